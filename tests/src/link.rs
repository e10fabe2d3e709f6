//! A link over loopback that can be cut, silenced and healed: it stands between two programs, as a network does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// It carries everything.
    Fair,
    /// Connections are reset, and new ones as soon as they are made.
    Cut,
    /// Nothing passes and nobody is told; what was on its way arrives when it is over.
    Silent,
}

/// A link to one address. It ends when dropped.
pub struct Link {
    /// Where to connect instead.
    pub address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.weather.send_replace(Weather::Cut);
        self.task.abort();
    }
}

impl Link {
    /// A fair link to `target`, which need not be there yet.
    ///
    /// # Panics
    /// When loopback has no port left.
    pub async fn to(target: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, target).await
    }

    /// The same, for whoever connects to another address of this machine.
    ///
    /// # Panics
    /// When that address has no port left.
    pub async fn at(here: Ipv4Addr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind((here, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let told = Arc::clone(&weather);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, target, told.subscribe()));
            }
        });
        Self {
            address,
            weather,
            task: task.abort_handle(),
        }
    }

    /// Changes what it does.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// The same URL, over this link.
    ///
    /// # Panics
    /// When `url` has no host.
    pub fn over(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).expect("a URL");
        url.set_ip_host(self.address.ip()).expect("a URL with a host");
        url.set_port(Some(self.address.port())).expect("a URL with a host");
        url.to_string()
    }
}

async fn carry(near: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    if !passes(&mut weather).await {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let back = weather.clone();
    // Each ends by itself or with the other: half a connection is none.
    tokio::select! {
        () = one_way(from_near, to_far, weather) => {}
        () = one_way(from_far, to_near, back) => {}
    }
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            cut = weather.wait_for(|now| *now == Weather::Cut) => {
                drop(cut);
                return;
            }
        };
        match read {
            Ok(n) if n > 0 && passes(&mut weather).await && to.write_all(&buffer[..n]).await.is_ok() => {}
            _ => return,
        }
    }
}

/// Waits while it is silent. False: it is cut.
async fn passes(weather: &mut watch::Receiver<Weather>) -> bool {
    let now = weather.wait_for(|now| *now != Weather::Silent).await;
    now.is_ok_and(|now| *now == Weather::Fair)
}
