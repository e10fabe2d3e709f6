//! Setting up a client.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use lockstep_protocol::{DeviceId, Secret, frame::PresenceState};
use tokio::sync::{broadcast, mpsc};

use crate::{
    cache::Cache,
    client::Client,
    clock,
    device_file::DeviceFile,
    driver::{
        Driver, enrol,
        identity::{Credential, Identity, SourceAnswer},
        net::{Hub, Net, Proxy},
    },
    enrol::{EnrolError, Enrolled, Login},
    error::Error,
    event::{Connection, Event, Transport, TransportChoice},
    machine::{Machine, Remembered, Setup, redeem},
    shared::Shared,
    timing::{self, Timing},
    vault::Vault,
};

/// How many calls of handles may wait for the driver.
const CALLS: usize = 256;

/// Everything about a client that is settled before it connects. Needed: the hub's address and one of
/// [`Builder::device`], [`Builder::device_file`], [`Builder::access_token`], [`Builder::access_token_source`].
#[derive(Debug)]
#[must_use = "nothing happens before `connect`"]
pub struct Builder {
    hub_url: String,
    identity: Option<(DeviceId, Credential)>,
    app: String,
    presence: PresenceState,
    priority: Option<u8>,
    transport: TransportChoice,
    proxy: Proxy,
    roots: Option<Vec<u8>>,
    timing: Timing,
    cache: Option<PathBuf>,
    device_file: Option<DeviceFile>,
    redeemer: bool,
    state_dir: Option<PathBuf>,
}

impl Builder {
    pub(crate) const fn new(hub_url: String) -> Self {
        Self {
            hub_url,
            identity: None,
            app: String::new(),
            presence: PresenceState::Active,
            priority: None,
            transport: TransportChoice::Auto,
            proxy: Proxy::Environment,
            roots: None,
            timing: timing::DEFAULT,
            cache: None,
            device_file: None,
            redeemer: false,
            state_dir: None,
        }
    }

    /// The enrolled device and its device refresh token (`lsd_…`), as enrolment gave them.
    ///
    /// The token rotates with each use. With [`Builder::cache`] the newest is kept there, and the one given here only
    /// matters the first time. Without a cache the newest lives in memory: a program that starts again with the first
    /// one after it was used more than once is taken for a thief, and the device is revoked.
    pub fn device(mut self, device: DeviceId, device_refresh_token: Secret) -> Self {
        self.identity = Some((device, Credential::Refresh(device_refresh_token)));
        self
    }

    /// The enrolled device of a file. The file keeps the newest device refresh token; [`Builder::cache`], if given too,
    /// only what the device holds. The file must be of this builder's hub: `Client::builder(file.hub_url())`.
    pub fn device_file(mut self, file: DeviceFile) -> Self {
        self.identity = Some((file.device(), Credential::Refresh(file.newest())));
        self.device_file = Some(file);
        self
    }

    /// One device access token and no other: for as long as the hub takes it.
    pub fn access_token(mut self, device: DeviceId, token: Secret) -> Self {
        self.identity = Some((device, Credential::Fixed(token)));
        self
    }

    /// Device access tokens from elsewhere: `source` is called whenever one is needed.
    pub fn access_token_source<S, F>(mut self, device: DeviceId, source: S) -> Self
    where
        S: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = SourceAnswer> + Send + 'static,
    {
        self.identity = Some((device, Credential::source(source)));
        self
    }

    /// The application and its version, for the hub's logs: `editor/1.2`.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// Whether somebody is using the device; `Active` by default.
    pub const fn presence(mut self, state: PresenceState) -> Self {
        self.presence = state;
        self
    }

    /// Lowers this device's weight in elections below that of its kind.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// WebSocket, long-poll, or (by default) whichever works.
    pub const fn transport(mut self, choice: TransportChoice) -> Self {
        self.transport = choice;
        self
    }

    /// The proxy; by default what the environment says.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Root certificates (PEM, one or more) to trust in place of the system's.
    pub fn roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Time-outs and waits other than the default ones.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How long [`Client::token`] waits at most; 60 s by default.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.timing.patience = patience;
        self
    }

    /// A file of this client's own (mode 0600) that keeps tokens, the cursor and the device refresh token across
    /// restarts.
    pub fn cache(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// The same, in a directory: the file is named after the device.
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        let name = self.identity.as_ref().map_or_else(
            || "lockstep.json".to_owned(),
            |(device, _)| format!("lockstep-{device}.json"),
        );
        self.cache = Some(directory.into().join(name));
        self
    }

    /// Whether this device redeems when it is elected (it must be enrolled for that too). Needs [`Builder::state_dir`].
    pub const fn redeemer(mut self, redeemer: bool) -> Self {
        self.redeemer = redeemer;
        self
    }

    /// A directory of this client's own, where the result of a redeem is kept, sealed, until the hub has it.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    /// Begins to enrol this program as a new device that the user approves elsewhere (RFC 8628). Only the address, the
    /// roots, the proxy and the timing of this builder matter.
    ///
    /// # Errors
    /// [`EnrolError`] when the hub cannot be reached or does not offer it.
    pub async fn login(&self, name: &str, kind: &str) -> Result<Login, EnrolError> {
        Login::begin(self.net()?, name, kind).await
    }

    /// Presents a device refresh token that an operator handed over, and learns whose it is. Keep the answer, in a
    /// [`DeviceFile`]: the token has rotated.
    ///
    /// # Errors
    /// [`EnrolError`] when the hub cannot be reached or does not take it.
    pub async fn adopt(&self, device_refresh_token: &Secret) -> Result<Enrolled, EnrolError> {
        enrol::adopt(&self.net()?, device_refresh_token).await
    }

    /// Whether the hub's address can be one. [`Builder::connect`] asks itself; this is for a program that has more to do
    /// before that.
    ///
    /// # Errors
    /// [`Error::Misuse`] when it cannot.
    pub fn check(&self) -> Result<(), Error> {
        Hub::parse(&self.hub_url).map(drop)
    }

    fn net(&self) -> Result<Net, Error> {
        let hub = Hub::parse(&self.hub_url)?;
        Net::new(hub, self.roots.as_deref(), &self.proxy, self.timing.clone())
    }

    /// Starts the client's background task. Returns at once, connected or not: [`Client::synced`] waits for the hub.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the settings make no sense.
    pub async fn connect(self) -> Result<Client, Error> {
        self.connect_listening().await.map(|(client, _)| client)
    }

    /// The same, with a listener that misses nothing: [`Client::events`] tells only what happens after it was called, and
    /// by then a quick hub may have answered.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the settings make no sense.
    pub async fn connect_listening(self) -> Result<(Client, broadcast::Receiver<Event>), Error> {
        let net = self.net()?;
        let hub = net.hub.as_str();
        let Some((device, credential)) = self.identity else {
            return Err(Error::misuse(
                "no identity: call device(), device_file(), access_token() or access_token_source()",
            ));
        };
        if self.redeemer && self.state_dir.is_none() {
            return Err(Error::misuse("a redeemer needs state_dir()"));
        }
        let given = match &credential {
            Credential::Refresh(given) => Some(given),
            Credential::Source(_) | Credential::Fixed(_) => None,
        };
        let cache = self.cache.map(|path| Cache::new(path, device, hub.to_owned(), given));
        let patience = self.timing.patience;
        let setup = Setup {
            device,
            app: self.app,
            presence: self.presence,
            priority: self.priority,
            transport: self.transport,
            timing: self.timing,
            cached: cache.is_some(),
            redeemer: self.redeemer,
        };
        let mut remembered = match cache.clone() {
            None => Remembered::default(),
            Some(cache) => recall(cache).await?,
        };
        let vault = match (self.redeemer, self.state_dir) {
            (true, Some(directory)) => {
                let (vault, redeems) = open_vault(directory, device).await?;
                remembered.redeems = redeems;
                Some(vault)
            }
            _ => None,
        };
        let credentials = match self.device_file {
            None => cache.clone(),
            Some(file) => Some(checked(file, hub).await?),
        };
        let machine = Machine::new(setup, remembered, clock::now(), &mut crate::driver::Os);
        let shared = Arc::new(Shared::new(unconnected(self.transport)));
        let (calls, called) = mpsc::channel(CALLS);
        let identity = Identity::new(device, credential, credentials);
        let driver = Driver::new(machine, net, identity, cache, vault, shared.clone(), called);
        let events = shared.listen();
        tokio::spawn(driver.run());
        let client = Client {
            shared,
            calls,
            patience,
        };
        Ok((client, events))
    }
}

const fn unconnected(choice: TransportChoice) -> Connection {
    Connection {
        transport: match choice {
            TransportChoice::Auto | TransportChoice::Ws => Transport::Ws,
            TransportChoice::Poll => Transport::Poll,
        },
        synced: false,
        stopped: None,
    }
}

/// What an earlier run left in the cache.
async fn recall(cache: Cache) -> Result<Remembered, Error> {
    let path = cache.path().display().to_string();
    let read = tokio::task::spawn_blocking(move || cache.check().map(|()| cache.load(clock::now())));
    match read.await {
        Ok(Ok(remembered)) => Ok(remembered),
        Ok(Err(error)) => Err(Error::misuse(format!("cache {path}: {error}"))),
        Err(error) => Err(Error::misuse(format!("cache {path}: {error}"))),
    }
}

/// The place of a device file, if it is of this hub and can be written: its token goes to no other.
async fn checked(file: DeviceFile, hub: &str) -> Result<Cache, Error> {
    if file.hub_url() != hub {
        return Err(Error::misuse(format!(
            "{}: the device is enrolled at {}, not at {hub}",
            file.path().display(),
            file.hub_url(),
        )));
    }
    let (path, cache) = (file.path().display().to_string(), file.cache);
    let check = tokio::task::spawn_blocking(move || cache.check().map(|()| cache));
    match check.await {
        Ok(Ok(cache)) => Ok(cache),
        Ok(Err(error)) => Err(Error::misuse(format!("{path}: {error}"))),
        Err(error) => Err(Error::misuse(format!("{path}: {error}"))),
    }
}

/// Where results of redeems are kept, and what an earlier run left there.
async fn open_vault(directory: PathBuf, device: DeviceId) -> Result<(Vault, Vec<redeem::Kept>), Error> {
    let path = directory.display().to_string();
    let open = tokio::task::spawn_blocking(move || {
        let vault = Vault::open(&directory, device)?;
        let left = vault.load(clock::now())?;
        std::io::Result::Ok((vault, left))
    });
    match open.await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(Error::misuse(format!("state directory {path}: {error}"))),
        Err(error) => Err(Error::misuse(format!("state directory {path}: {error}"))),
    }
}
