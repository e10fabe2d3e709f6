//! Nothing is waited for without an end: whoever takes a connection and then says nothing is given up, and tried again.

use std::{net::SocketAddr, time::Duration};

use lockstep_client::{Client, Event, Proxy, Secret, Timing, TransportChoice};
use tokio::net::TcpListener;

use crate::{device, grant, hub::Hub, quick, soon};

/// Takes connections and never says a word.
async fn mute() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    // What the kernel accepts waits for ever for this program to take notice.
    (listener, addr)
}

fn short() -> Timing {
    let mut timing = Timing::default();
    timing.connect = Duration::from_millis(500);
    timing.answer = Duration::from_millis(500);
    timing.greet = Duration::from_millis(500);
    timing.poll_wait = Duration::from_secs(1);
    timing.backoff_first = Duration::from_millis(20);
    timing.backoff_most = Duration::from_millis(50);
    timing
}

/// It gives up, and tries again, and gives up again.
async fn gives_up(what: &str, client: &Client) {
    let mut events = client.events();
    for _ in 0..3 {
        soon(what, async {
            while !matches!(events.recv().await.unwrap(), Event::Disconnected { .. }) {}
        })
        .await;
    }
}

#[tokio::test]
async fn a_hub_that_says_nothing_is_given_up() {
    let (_listener, addr) = mute().await;
    for scheme in ["http", "https"] {
        for choice in [TransportChoice::Ws, TransportChoice::Poll, TransportChoice::Auto] {
            let client = Client::builder(format!("{scheme}://{addr}"))
                .access_token(device(), Secret::new("dat"))
                .proxy(Proxy::Direct)
                .transport(choice)
                .timing(short())
                .connect()
                .await
                .unwrap();
            gives_up(&format!("{scheme} {choice:?}"), &client).await;
        }
    }
}

#[tokio::test]
async fn a_proxy_that_says_nothing_is_given_up() {
    let (_listener, addr) = mute().await;
    for scheme in ["http", "socks5", "socks5h", "socks4"] {
        for choice in [TransportChoice::Ws, TransportChoice::Poll] {
            let client = Client::builder("https://127.0.0.1:1")
                .access_token(device(), Secret::new("dat"))
                .proxy(Proxy::Url(format!("{scheme}://{addr}").parse().unwrap()))
                .transport(choice)
                .timing(short())
                .connect()
                .await
                .unwrap();
            gives_up(&format!("{scheme} {choice:?}"), &client).await;
        }
    }
}

#[tokio::test]
async fn a_token_endpoint_that_says_nothing_is_given_up() {
    let (_listener, addr) = mute().await;
    let client = Client::builder(format!("http://{addr}"))
        .device(device(), Secret::new("lsd_0"))
        .proxy(Proxy::Direct)
        .timing(short())
        .connect()
        .await
        .unwrap();
    gives_up("a purchase", &client).await;
}

#[tokio::test]
async fn a_poll_whose_answer_never_comes_is_given_up_and_costs_no_version() {
    let hub = Hub::start().await;
    hub.mint(&grant());
    let client = quick(&hub)
        .timing(short())
        .transport(TransportChoice::Poll)
        .connect()
        .await
        .unwrap();
    soon("sync", client.synced()).await.unwrap();
    hub.with(|core| core.mute_polls = true);
    gives_up("a poll", &client).await;
    hub.with(|core| core.mute_polls = false);
    hub.mint(&grant());
    hub.until("the ack", |core| core.acked == 2).await;
}
