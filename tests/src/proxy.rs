//! A proxy in front of a real provider that loses requests and answers, for servers that cannot be told to misbehave.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use url::Url;

use crate::provider::Gate;

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Loss {
    /// Nothing.
    None,
    /// It never arrives; the connection is cut.
    Request,
    /// It is answered, and the answer is lost: the connection is cut.
    Answer,
    /// It is answered, and the answer waits here until the gate opens.
    Late(Gate),
}

/// A proxy for plain HTTP with one request a connection, as hubs make them.
pub struct Proxy {
    address: SocketAddr,
    target: Url,
    losses: Arc<Mutex<VecDeque<Loss>>>,
    task: AbortHandle,
}

impl Proxy {
    /// In front of the server of `endpoint`.
    ///
    /// # Panics
    /// When loopback has no port left, or `endpoint` is no URL with an address.
    pub async fn before(endpoint: &str) -> Self {
        let target = Url::parse(endpoint).expect("a URL");
        let server = *target
            .socket_addrs(|| None)
            .expect("an address")
            .first()
            .expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port on loopback");
        let address = listener.local_addr().expect("its address");
        let losses: Arc<Mutex<VecDeque<Loss>>> = Arc::default();
        let queue = losses.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let loss = lock(&queue).pop_front().unwrap_or(Loss::None);
                tokio::spawn(async move { pass(client, server, loss).await.ok() });
            }
        });
        Self {
            address,
            target,
            losses,
            task: task.abort_handle(),
        }
    }

    /// The endpoint, by way of the proxy.
    ///
    /// # Panics
    /// Never for a URL with an address.
    pub fn endpoint(&self) -> String {
        let mut url = self.target.clone();
        url.set_port(Some(self.address.port())).expect("a URL with a host");
        url.to_string()
    }

    /// What happens to the next request. Losses queue up.
    pub fn lose(&self, loss: Loss) {
        lock(&self.losses).push_back(loss);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, loss: Loss) -> io::Result<()> {
    let request = request(&mut client).await?;
    if matches!(loss, Loss::Request) {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    match loss {
        Loss::Answer => return Ok(()),
        Loss::Late(gate) => gate.passed().await,
        Loss::None | Loss::Request => {}
    }
    client.write_all(&answer).await
}

/// One whole request, told to be the last on its connection, so that the answer ends with it.
async fn request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            break (head, end + 4 + length.unwrap_or(0));
        }
        more(client, &mut bytes).await?;
    };
    while bytes.len() < length {
        more(client, &mut bytes).await?;
    }
    let body = bytes.split_off(head.len() + 4);
    Ok([head.as_bytes(), b"\r\nconnection: close\r\n\r\n", &body].concat())
}

async fn more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match client.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn lock(losses: &Mutex<VecDeque<Loss>>) -> std::sync::MutexGuard<'_, VecDeque<Loss>> {
    losses.lock().unwrap_or_else(PoisonError::into_inner)
}
