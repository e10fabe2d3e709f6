//! nginx as it stands in front of hubs: helpful, indifferent or hostile to WebSockets.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use tempfile::TempDir;

use crate::{
    ports::free_port,
    servers::{Server, directory},
};

/// What nginx is told to do with the hub's addresses: the inside of `server {}`. `HUB` stands for the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// WebSockets pass, as the manual says.
    Passes,
    /// Nobody thought of WebSockets: the upgrade is not passed on.
    DropsUpgrades,
    /// Upgrades are forbidden.
    ForbidsUpgrades,
    /// A WebSocket opens, and is cut when nothing went over it for 300 ms.
    KillsAfter300Ms,
    /// Answers are collected and compressed before they are passed on; upgrades are not passed on.
    Buffers,
    /// Whatever takes longer than 10 s is answered with 504; upgrades are not passed on.
    TimesOutAfter10S,
}

const UPGRADE: &str = "proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $hop;";

impl Manner {
    fn server(self) -> String {
        match self {
            Self::Passes => format!("location / {{ proxy_pass http://HUB; {UPGRADE} proxy_read_timeout 120s; }}"),
            Self::DropsUpgrades => "location / { proxy_pass http://HUB; }".to_owned(),
            Self::ForbidsUpgrades => {
                "if ($http_upgrade) { return 403; } location / { proxy_pass http://HUB; }".to_owned()
            }
            Self::KillsAfter300Ms => format!(
                "location / {{ proxy_pass http://HUB; }}
                location /v1/ws {{ proxy_pass http://HUB; {UPGRADE} proxy_read_timeout 300ms; }}"
            ),
            Self::Buffers => "location / {
                    proxy_pass http://HUB;
                    proxy_buffering on; proxy_buffer_size 4k; proxy_buffers 8 4k;
                    gzip on; gzip_proxied any; gzip_types application/json; gzip_min_length 1;
                }"
            .to_owned(),
            Self::TimesOutAfter10S => "location / { proxy_pass http://HUB; proxy_read_timeout 10s; }".to_owned(),
        }
    }
}

/// A request as nginx wrote it down when it was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The status.
    pub status: u16,
    /// The path.
    pub path: String,
    /// Whether it asked for a WebSocket.
    pub is_upgrade: bool,
}

/// An nginx of the test's own, in front of one hub.
pub struct Nginx {
    /// Where clients connect.
    pub listen: SocketAddr,
    log: PathBuf,
    _server: Server,
    _dir: TempDir,
}

impl Nginx {
    /// Starts one in front of `hub`.
    ///
    /// # Panics
    /// When nginx is not installed (`scripts/setup` brings it), or does not take its configuration.
    pub async fn start(hub: SocketAddr, manner: Manner) -> Self {
        let dir = directory("lockstep-nginx-");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let place = dir.path().display();
        let inside = manner.server().replace("HUB", &hub.to_string());
        // One process of the test's own user: nothing that would have to be ended by name.
        let text = format!(
            "daemon off; master_process off; pid {place}/nginx.pid; error_log stderr warn;
            events {{ worker_connections 4096; }}
            http {{
                log_format passed '$status $uri [$http_upgrade]';
                access_log {place}/access.log passed;
                client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
                uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
                map $http_upgrade $hop {{ default upgrade; '' close; }}
                server {{ listen {listen}; {inside} }}
            }}"
        );
        let config = dir.path().join("nginx.conf");
        fs::write(&config, text).expect("a configuration can be written");
        let mut server = Server {
            program: PathBuf::from("nginx"),
            arguments: [
                "-e",
                "stderr",
                "-p",
                &place.to_string(),
                "-c",
                &config.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec(),
            address: listen,
            child: None,
            log: dir.path().join("nginx.log"),
            outlived_by: None,
        };
        server.start().await;
        Self {
            listen,
            log: dir.path().join("access.log"),
            _server: server,
            _dir: dir,
        }
    }

    /// Every request that is over.
    pub fn passed(&self) -> Vec<Passed> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(Passed::read).collect()
    }
}

impl Passed {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            status: words.next()?.parse().ok()?,
            path: words.next()?.to_owned(),
            is_upgrade: words.next()? == "[websocket]",
        })
    }
}
