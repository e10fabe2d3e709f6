//! A strict authorization server for demonstrations and tests: every refresh token works once, and a second use
//! revokes the whole family, access tokens included (RFC 9700 section 4.14.2).
//!
//! It keeps everything in memory, approves every authorization request by itself, and misbehaves on request through its
//! control API. It is not a product: whoever reaches its port owns it.

mod authorize;
mod book;
mod calls;
mod control;
mod fault;
mod http;
mod ledger;
mod minted;
mod oauth_error;
mod request;
mod routes;
mod token;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lockstep_protocol::Secret;
use tokio::{net::TcpListener, task::JoinHandle};

pub use book::Granted;
pub use calls::{Call, Outcome, Stats};
pub use fault::{FaultError, FaultSpec};
pub use ledger::{FamilyView, Grace};
pub use minted::pkce_challenge;

use book::Book;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an access token is good.
    pub access_ttl: Duration,
    /// What happens when a used refresh token comes again.
    pub grace: Grace,
    /// Whether a rotation kills the access tokens issued before it at once.
    pub kill_old_access: bool,
    /// Whether refresh tokens rotate at all; without rotation answers carry no refresh token.
    pub rotate: bool,
    /// Pads access tokens to at least this many bytes.
    pub access_bytes: usize,
    /// The only client that is let in; any client, without a secret, when `None`.
    pub client: Option<Client>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(3600),
            grace: Grace::None,
            kill_old_access: false,
            rotate: true,
            access_bytes: 0,
            client: None,
        }
    }
}

/// A registered OAuth client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// Its secret, by `client_secret_basic` or `client_secret_post`; a public client has none.
    pub secret: Option<Secret>,
}

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Authserver {
    addr: SocketAddr,
    book: Arc<Book>,
    task: JoinHandle<()>,
}

impl Authserver {
    /// Listens at `listen` and serves in a task of its own.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(listen: SocketAddr, settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let book = Arc::new(Book::new(addr, settings));
        let task = tokio::spawn(http::serve(listener, routes::routes(Arc::clone(&book))));
        Ok(Self { addr, book, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("http://{}/token", self.addr)
    }

    /// The protected resource, which knows whether an access token is good.
    pub fn resource(&self) -> String {
        format!("http://{}/resource", self.addr)
    }

    /// Makes a grant, as a login would.
    pub fn grant(&self) -> Granted {
        self.book.grant(None, None)
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        self.book.stats()
    }

    /// Every token call so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.book.calls_after(0)
    }

    /// What became of a grant.
    pub fn family(&self, grant: &str) -> Option<FamilyView> {
        self.book.family(grant)
    }

    /// Adds a fault.
    ///
    /// # Errors
    /// When the fault contradicts itself.
    pub fn fault(&self, spec: FaultSpec) -> Result<(), FaultError> {
        self.book.add_fault(spec)
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.book.clear_faults();
    }
}

impl Drop for Authserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
