//! A token endpoint for tests that misbehaves as it is told, one connection at a time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// What is done with a connection.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// Closes without reading.
    CloseAtOnce,
    /// Reads the whole request, then closes.
    CloseAfterReading,
    /// Reads the whole request, then is silent.
    Silent,
    /// Neither reads nor closes.
    Deaf,
    /// Reads the whole request, writes these bytes, closes.
    Say(Vec<u8>),
    /// Reads the whole request, writes these bytes, is silent.
    SayAndHang(Vec<u8>),
    /// Reads the whole request, writes the first bytes, then the second ones for ever.
    SayForEver(Vec<u8>, Vec<u8>),
}

/// The server. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Unruly {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Unruly {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Unruly {
    pub(super) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let task = tokio::spawn(serve(listener, manner, Arc::clone(&seen)));
        Self { address, seen, task }
    }

    /// What came on each connection so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came on the only connection.
    pub(super) fn only(&self) -> String {
        let [request] = self.seen().try_into().expect("one connection");
        request
    }
}

async fn serve(listener: TcpListener, manner: Manner, seen: Arc<Mutex<Vec<String>>>) {
    let mut kept = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let index = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(String::new());
            seen.len() - 1
        };
        let note = |request: String| seen.lock().unwrap_or_else(PoisonError::into_inner)[index] = request;
        match &manner {
            Manner::CloseAtOnce => {}
            Manner::Deaf => kept.push(stream),
            Manner::CloseAfterReading => note(request(&mut stream).await),
            Manner::Silent => {
                note(request(&mut stream).await);
                kept.push(stream);
            }
            Manner::Say(bytes) => {
                note(request(&mut stream).await);
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            }
            Manner::SayAndHang(bytes) => {
                note(request(&mut stream).await);
                let _ = stream.write_all(bytes).await;
                kept.push(stream);
            }
            Manner::SayForEver(first, again) => {
                note(request(&mut stream).await);
                let _ = stream.write_all(first).await;
                while stream.write_all(again).await.is_ok() {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }
}

/// Reads one request: its head, and as much body as `Content-Length` tells. What is missing after a while stays missing.
async fn request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !is_whole(&bytes) {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await {
                Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                _ => break,
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), reading).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_whole(bytes: &[u8]) -> bool {
    const TLS_HANDSHAKE: u8 = 22;
    if bytes.first() == Some(&TLS_HANDSHAKE) {
        return true;
    }
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}
