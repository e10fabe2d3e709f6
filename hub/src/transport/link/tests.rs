use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{PrivateKeyDer, ServerName},
    },
};

use super::*;
use crate::transport::socket::{Received, Socket};
use crate::user::{
    User,
    sample::{face, grant, record},
};

const START: Mono = Mono(1_000_000);

/// A link and the other side of its connection.
async fn link() -> (Link, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    (Link::new(Wire::new(here.unwrap().0, None)), there.unwrap())
}

/// The same with TLS, whose library keeps what the socket does not take.
async fn link_with_tls() -> (Link, TlsStream<TcpStream>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let provider = Arc::new(default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::from(signing_key))
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (here, there) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    let there = there.unwrap();
    SockRef::from(&there).set_recv_buffer_size(4 * 1024).unwrap();
    let (acceptor, connector) = (
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    );
    let (here, there) = tokio::join!(
        acceptor.accept(here.unwrap().0),
        connector.connect(ServerName::try_from("localhost").unwrap(), there),
    );
    let (tcp, tls) = here.unwrap().into_inner();
    // Less than the library keeps, as on a slow network: it takes the socket several turns to take all of that.
    SockRef::from(&tcp).set_send_buffer_size(4 * 1024).unwrap();
    (Link::new(Wire::new(tcp, Some(tls))), there.unwrap())
}

/// A board that is complete up to `seq`.
fn board(seq: u64) -> Board {
    Board::default().settled(Seq(seq))
}

fn after(seconds: u64) -> Mono {
    START + Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_device_that_is_always_a_step_behind_but_getting_on_owes_nothing_old() {
    let (link, _there) = link().await;
    link.open(b"", Seq(1), false, START).unwrap();
    for seq in 2..=60 {
        link.offer(&board(seq), after(seq));
        link.ack(Seq(seq - 1), Seq(seq - 2), || after(seq));
    }
    assert_eq!(link.owing(), Some(after(60)));
    assert_eq!(link.ack(Seq(60), Seq(59), || after(61)).1.owed_since, Some(after(60)));
    assert_eq!(link.owing(), None);
}

#[tokio::test]
async fn a_device_that_says_the_same_again_and_again_still_owes() {
    let (link, _there) = link().await;
    link.open(b"", Seq(1), false, START).unwrap();
    link.offer(&board(2), START);
    for second in 1..=29 {
        assert_eq!(link.ack(Seq(1), Seq(1), || after(second)).0, Seq(1));
    }
    assert_eq!(
        link.ack(Seq(99), Seq(1), || after(30)).0,
        Seq(2),
        "more than was sent is not believed"
    );
    link.offer(&board(3), after(31));
    assert_eq!(link.owing(), Some(after(31)));
}

#[tokio::test]
async fn one_that_is_being_closed_is_told_nothing_more() {
    let (link, mut there) = link().await;
    link.open(b"welcome", Seq(1), false, START).unwrap();
    link.say(b" more");
    link.close(Close::Revoked);
    link.say(b" a secret");
    link.offer(&board(2), START);
    assert_eq!(link.owing(), None);
    drop(link);
    let mut arrived = Vec::new();
    there.read_to_end(&mut arrived).await.unwrap();
    assert_eq!(arrived, b"welcome more");
}

/// Only what it did not have to be told is counted: a large state that is under way is no flood.
#[tokio::test]
async fn a_slow_device_that_is_still_being_sent_a_large_state_may_be_told_something() {
    let (link, _there) = link().await;
    link.open(&vec![b'x'; 16 * 1024 * 1024], Seq(1), true, START).unwrap();
    assert!(link.is_blocked());
    link.mention(b"a passing word", Seq(1));
    assert_eq!(link.closing(), None);
    for _ in 0..MOST_BACKLOG / 1024 {
        link.say(&[b'x'; 1024]);
    }
    assert_eq!(link.closing(), Some(Close::TooMany), "what it asked for is");
}

/// The board of a user whose one grant is at `version`.
fn board_with(version: u64) -> Arc<Board> {
    let user = User::new("alice".parse().unwrap());
    let mut inner = user.lock();
    inner.show_all(Seq(version), &[(grant("a/x"), *record(version, version))], &face());
    Arc::clone(&inner.board)
}

/// What moved the board offers it a moment later, in a task of its own: an answer in between brings the token along.
#[tokio::test]
async fn an_answer_comes_after_the_token_that_it_speaks_of() {
    let (link, mut there) = link().await;
    link.open(b"", Seq(0), false, START).unwrap();
    link.answer(&board_with(1), b"done", START);
    link.offer(&board_with(1), START);
    drop(link);
    let mut read = Vec::new();
    there.read_to_end(&mut read).await.unwrap();
    let text = String::from_utf8_lossy(&read);
    assert!(text.contains("at-1") && text.ends_with("done"), "{text}");
}

/// P6: a device that does not read costs the hub one update and a flag, however many there are meanwhile; when it reads
/// again it is sent the newest and none of those between.
#[tokio::test]
async fn p6_a_device_that_does_not_read_is_sent_only_the_newest_once_it_does() {
    let (link, mut there) = link().await;
    link.open(b"", Seq(0), false, START).unwrap();
    let mut version = 0;
    while !link.is_blocked() {
        version += 1;
        link.offer(&board_with(version), START);
    }
    let waiting = link.out.lock().backlog.len();
    for missed in 1..=100 {
        link.offer(&board_with(version + missed), START);
    }
    assert_eq!(link.out.lock().backlog.len(), waiting, "nothing is queued for it");

    let mut read = Vec::new();
    let drained = tokio::spawn(async move {
        std::future::poll_fn(|cx| link.poll_drain(cx)).await.unwrap();
        link.offer(&board_with(version + 100), START);
        drop(link);
    });
    there.read_to_end(&mut read).await.unwrap();
    drained.await.unwrap();
    let text = String::from_utf8_lossy(&read);
    let sent = |version: u64| text.contains(&format!("\"at-{version}\""));
    assert!(sent(1) && sent(version) && sent(version + 100));
    assert!(
        (1..100).all(|missed| !sent(version + missed)),
        "and none of those between"
    );
}

/// The same over TLS. What the library has taken and the socket has not still waits: the link is drained only when that
/// has gone too, and the newest is offered then.
#[tokio::test]
async fn p4_a_slow_device_behind_tls_is_offered_the_newest_once_it_reads_again() {
    let (link, mut there) = link_with_tls().await;
    link.open(b"", Seq(0), false, START).unwrap();
    let mut version = 0;
    while !link.is_blocked() {
        version += 1;
        link.offer(&board_with(version), START);
    }
    link.offer(&board_with(version + 1), START);

    let link = Arc::new(link);
    let mut socket = Socket::new(Arc::clone(&link), &bytes::Bytes::new());
    let served = tokio::spawn(async move {
        while let Ok(received) = std::future::poll_fn(|cx| socket.poll_next(cx)).await {
            if matches!(received, Received::Drained) {
                link.offer(&board_with(version + 1), START);
            }
        }
    });
    let newest = format!("\"at-{}\"", version + 1);
    let mut read = String::new();
    let brought = tokio::time::timeout(Duration::from_secs(60), async {
        let mut bytes = vec![0; 1024];
        while !read.contains(&newest) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let more = there.read(&mut bytes).await.unwrap();
            read.push_str(&String::from_utf8_lossy(&bytes[..more]));
        }
    });
    let brought = brought.await;
    served.abort();
    assert!(brought.is_ok(), "it was never brought to the newest");
}

/// P6: whatever is there to be read, others wait no longer for their turn than a hundred or so messages take.
#[tokio::test]
async fn p6_little_messages_without_end_are_not_all_taken_in_one_turn() {
    const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
    let (link, mut there) = link().await;
    there.write_all(&PING.repeat(5000)).await.unwrap();
    std::future::poll_fn(|cx| link.wire.poll_readable(cx)).await.unwrap();
    let mut socket = Socket::new(Arc::new(link), &bytes::Bytes::new());
    let turn = tokio::spawn(std::future::poll_fn(move |cx| {
        let taken = std::iter::from_fn(|| socket.poll_next(cx).is_ready().then_some(()));
        Poll::Ready(taken.count())
    }));
    let taken = turn.await.unwrap();
    assert!((1..=200).contains(&taken), "{taken} in one turn");
}
