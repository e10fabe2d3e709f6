//! From settings to a hub that serves.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use lockstep_engine::record::Holder;
use lockstep_protocol::Close;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Hub, facts, lifetime, stop, sweep};
use crate::{
    audit::{Anchor, Audit, AuditError, Event, Signer},
    clock,
    cluster::{self, Cluster, Fact, Heard},
    config::{Config, Limits, StoreUrl},
    hangup::{Hangup, Hangups},
    http::{self, AdminToken, Rates},
    identity::{Identity, IdentityError},
    provider::{ProviderError, Providers},
    scheduler,
    shell::{Timers, timers},
    spool::{Spool, SpoolError},
    store::{self, Mark, Pooling, Store, StoreError},
    telemetry::alert,
    tls::{Certificates, TlsError},
    transport::{
        doors::Doors,
        listener::{self, Listener},
    },
    user::Registry,
    vault::{Vault, VaultError},
};

/// How many connections operators and monitoring may have at once.
const MOST_OPERATORS: usize = 256;
/// Descriptors that are kept for the store, the providers and whatever else is not a device.
const SPARE_FILES: u64 = 512;

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sealing keys.
    #[error("sealing keys: {0}")]
    Vault(#[from] VaultError),
    /// The spool.
    #[error("spool: {0}")]
    Spool(#[from] SpoolError),
    /// Device identity.
    #[error("identity: {0}")]
    Identity(#[from] IdentityError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The other nodes.
    #[error("cluster: {0}")]
    Cluster(String),
    /// Certificate and key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A file or an address.
    #[error("{what}: {error}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it cannot.
        error: io::Error,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |error| StartError::Io { what, error }
}

/// What was opened before the hub itself can be put together.
struct Ground {
    cluster: Cluster,
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    spool: Spool,
    audit: Audit,
    mark: Mark,
    me: Holder,
}

/// Runs a hub until it is told to stop.
///
/// When it serves it prints one line of JSON on stdout, `{"listening":…,"admin":…}`, with the addresses it listens on.
///
/// # Errors
/// Why it cannot start.
pub async fn run(config: Config, hangup: Hangup) -> Result<(), StartError> {
    let hangups = Hangups::hear(hangup);
    let files = raise_file_limit();
    keep_memory_private();
    let config = Arc::new(within_files(config, files));
    let ground = lay(&config).await?;
    let public = bind(config.server.listen).await?;
    let private = bind(config.server.admin_listen).await?;
    let listening = public.local_addr().map_err(io("listen"))?;
    let admin = private.local_addr().map_err(io("admin_listen"))?;
    let (hub, heard) = assemble(config, ground, listening).await?;
    hub.set_clock().await;
    hub.look_at_lifetime().await;
    tokio::spawn(facts::listen(Arc::clone(&hub), heard));
    tokio::spawn(timers::run(Arc::clone(&hub)));
    hub.land_spool().await?;
    let listeners = listeners(&hub, public, private, hangups)?;
    open(&hub, listeners);
    announce(listening, admin).map_err(io("stdout"))?;
    tracing::info!(%listening, %admin, node = %hub.me.node, epoch = %hub.epoch(), "ready");
    stop::wait(&hub).await;
    Ok(())
}

/// Each device is a file descriptor. Tells how many there may be; none: as many as it takes.
fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

/// What is in memory is the users' tokens: no core dump of it, and no looking into it by others of the same user id.
fn keep_memory_private() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    let closed = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for error in [limited.err(), closed.err()].into_iter().flatten() {
        tracing::warn!(%error, "this process may leave a core dump, with tokens in it");
    }
}

/// No more connections are let in than there are descriptors for: one who is told to come back comes back, a store that
/// cannot open its files does not.
fn within_files(mut config: Config, files: Option<u64>) -> Config {
    let most = files.map(|files| usize::try_from(files.saturating_sub(SPARE_FILES).max(1)).unwrap_or(usize::MAX));
    let limit = &mut config.server.limits.max_connections;
    if let Some(most) = most.filter(|most| *limit == 0 || *limit > *most) {
        tracing::info!(
            asked = *limit,
            given = most,
            "fewer connections than configured: the limit of open files is too low"
        );
        *limit = most;
    }
    config
}

async fn lay(config: &Config) -> Result<Ground, StartError> {
    let store = match &config.store.url {
        StoreUrl::Memory => store::memory(),
        StoreUrl::File(path) => store::open(&format!("file:{}", path.display()), Path::new("")).await?,
        StoreUrl::Postgres(url) => store::postgres(url.expose(), &pooling(config)).await?,
    };
    let mark = store.mark().await?;
    // Keys are made only for a store in which nothing is sealed yet: a lost key file is not to be papered over.
    let is_new = mark.commits == 0 && store.shared(Identity::KEYS).await?.is_none();
    let vault = Arc::new(Vault::open(&config.store.key_file, is_new)?);
    // The wrong key is found here, before anything is touched.
    if let Some(sealed) = store.shared(Identity::KEYS).await? {
        vault.open_sealed(Identity::KEYS, &sealed)?;
    }
    let spool = Spool::open(&config.store.spool, Arc::clone(&vault))?;
    let seen = mark;
    let mark = check_witness(&*store, &spool, mark).await?;
    let node = match &config.cluster.node {
        Some(name) => name.clone(),
        None => node_name(&config.store.spool)?,
    };
    let incarnation = store.start_node(&node).await?;
    let carrier = match &config.store.url {
        StoreUrl::Postgres(url) => Some(url.expose()),
        StoreUrl::Memory | StoreUrl::File(_) => None,
    };
    let cluster = cluster::join(&config.cluster.url, carrier, &node).map_err(StartError::Cluster)?;
    let audit = open_audit(config, &store, &vault, &node).await?;
    if mark.epoch != seen.epoch {
        audit.record(Event::StoreRestored { epoch: mark.epoch });
    }
    Ok(Ground {
        cluster,
        store,
        vault,
        spool,
        audit,
        mark,
        me: Holder { node, incarnation },
    })
}

fn pooling(config: &Config) -> Pooling {
    Pooling {
        connections: config.store.pool,
        statement_timeout: config.store.statement_timeout,
        ..Pooling::default()
    }
}

/// Goes on with this node's chain, and keeps its end in the store.
async fn open_audit(
    config: &Config,
    store: &Arc<dyn Store>,
    vault: &Arc<Vault>,
    node: &str,
) -> Result<Audit, AuditError> {
    let signer = Signer::load_or_make(&**store, vault).await?;
    let (anchor, known) = Anchor::load(Arc::clone(store), Arc::clone(vault), node).await?;
    let keep = Some(config.audit.keep).filter(|keep| !keep.is_zero());
    let audit = Audit::open(&config.store.spool.join("audit"), node, signer, keep, known)?;
    // If the chain does not have what was known, it says so now: only then does the anchor go on to its new end.
    tokio::spawn(anchor.follow(audit.clone()));
    Ok(audit)
}

/// A store behind what this node has seen of it went back in time: nothing in it is to be believed blindly.
async fn check_witness(store: &dyn Store, spool: &Spool, mark: Mark) -> Result<Mark, StartError> {
    match spool.witness() {
        Ok(Some(seen)) if mark.is_behind(seen) => Ok(lifetime::doubt(store, seen, mark).await?),
        Ok(_) => Ok(mark),
        Err(error) => {
            tracing::warn!(%error, "the witness cannot be read; it is written anew");
            Ok(mark)
        }
    }
}

/// This node's lasting name: kept beside what it spools, which is this node's too.
fn node_name(spool: &Path) -> Result<String, StartError> {
    let file = spool.join("node");
    match std::fs::read_to_string(&file) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        _ => {
            let host = host_name();
            let name = format!("{host}-{:08x}", rand::random::<u32>());
            std::fs::write(&file, format!("{name}\n")).map_err(io(file.display().to_string()))?;
            Ok(name)
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
        .collect();
    if name.is_empty() { "node".into() } else { name }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let what = || format!("cannot listen on {address}");
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }
    .map_err(io(what()))?;
    socket.set_reuseaddr(true).map_err(io(what()))?;
    socket.bind(address).map_err(io(what()))?;
    // A stampede of reconnects waits here, and not in time-outs.
    socket.listen(4096).map_err(io(what()))
}

async fn assemble(
    config: Arc<Config>,
    ground: Ground,
    listening: SocketAddr,
) -> Result<(Arc<Hub>, mpsc::Receiver<Heard>), StartError> {
    let Ground {
        cluster,
        store,
        vault,
        spool,
        audit,
        mark,
        me,
    } = ground;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let settings = config.identity(&format!("{scheme}://{listening}"));
    let identity = Identity::start(Arc::clone(&store), Arc::clone(&vault), settings).await?;
    identity.audit_to(audit.clone());
    let token_file = &config.server.admin_token_file;
    let hub = Arc::new(Hub {
        providers: Providers::new(&config)?,
        bus: cluster.bus,
        lock: cluster.lock,
        users: Registry::default(),
        timers: Timers::default(),
        tasks: TaskTracker::new(),
        leaving: CancellationToken::new(),
        rates: Rates::new(&config.server.limits),
        doors: Doors::new(config.server.limits.clone()),
        admin: AdminToken::load(token_file).map_err(io(format!("admin token {}", token_file.display())))?,
        writes: super::writes::Writes::default(),
        audit,
        keys_in_work: tokio::sync::Mutex::default(),
        uses: Default::default(),
        round: Default::default(),
        epoch: AtomicU64::new(mark.epoch.0),
        commits: AtomicU64::new(mark.commits),
        waiters: AtomicU64::new(1),
        config,
        store,
        vault,
        spool,
        identity,
        me,
    });
    let weak = Arc::downgrade(&hub);
    hub.identity.on_revoked(Box::new(move |user, device| {
        let Some(hub) = weak.upgrade() else { return };
        hub.bus.tell(Fact::Revoked {
            device,
            user: user.clone(),
            at: clock::unix(),
        });
        // Of a user who is not known it may be anybody's.
        let users = user.map_or_else(
            || hub.users.all(),
            |user| hub.users.resident(&user).into_iter().collect(),
        );
        for user in users {
            user.close_device(device, Close::Revoked);
        }
    }));
    Ok((hub, cluster.heard))
}

fn open(hub: &Arc<Hub>, [public, private]: [Listener; 2]) {
    tokio::spawn(sweep::run(Arc::clone(hub)));
    tokio::spawn(alert::run(hub.config.alerts.clone(), hub.me.node.clone()));
    for provider in hub.providers.iter() {
        tokio::spawn(scheduler::run(Arc::clone(hub), provider.name().to_owned()));
    }
    tokio::spawn(listener::run(Arc::clone(hub), public));
    tokio::spawn(listener::run(Arc::clone(hub), private));
}

/// What listens for devices, and what listens for operators: they have doors of their own, so that a hub that is full of
/// devices can still be looked after.
fn listeners(
    hub: &Arc<Hub>,
    public: TcpListener,
    private: TcpListener,
    hangups: Hangups,
) -> Result<[Listener; 2], TlsError> {
    let certificates = hub.config.tls.as_ref().map(Certificates::load).transpose()?;
    let tls = certificates.as_ref().map(Certificates::acceptor).transpose()?;
    match certificates {
        Some(certificates) => tokio::spawn(certificates.follow(hangups)),
        None => tokio::spawn(hangups.ignore()),
    };
    let private_tls = tls.clone().filter(|_| hub.config.serves_admin_over_tls());
    let limits = Limits {
        max_connections: MOST_OPERATORS,
        max_connections_per_address: 0,
        ..hub.config.server.limits.clone()
    };
    Ok([
        Listener {
            tcp: public,
            tls,
            doors: hub.doors.clone(),
            router: http::public(hub),
        },
        Listener {
            tcp: private,
            tls: private_tls,
            doors: Doors::new(limits),
            router: http::private(hub),
        },
    ])
}

fn announce(listening: SocketAddr, admin: SocketAddr) -> io::Result<()> {
    let line = serde_json::json!({ "listening": listening, "admin": admin });
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
