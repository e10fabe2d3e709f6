//! A small hub for tests: the real protocol over real sockets, with faults on demand. One user, in memory.

mod http;
mod session;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    routing::{get, post},
};
use lockstep_protocol::{
    ClientFrame, Code, Cursor, Epoch, GrantName, HubFrame, Secret, Seq, SessionId, UnixSeconds, Version,
    frame::{Cause, Failed, Goaway, Health, Hello, Publish, ReconnectAfter, Resume, Status, Synced, Token, Welcome},
};
use tokio::{net::TcpListener, sync::watch, time::timeout};

/// How long a test waits for anything before it fails.
pub const BOUND: Duration = Duration::from_secs(60);

/// What the hub does with an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    Serve,
    /// Answers with this status.
    Refuse(u16),
    /// Opens, and kills after this time, whatever was said.
    KillAfter(Duration),
    /// Opens and says nothing.
    Mute,
}

/// What the hub does with a `refresh` of the newest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshing {
    /// Mints the next version.
    Mint,
    /// Answers with an error.
    Refuse(Code, Option<u64>),
    /// Takes note and says nothing.
    Ignore,
}

/// Everything that the test looks at or turns.
#[derive(Debug)]
pub struct Core {
    pub epoch: Epoch,
    pub seq: u64,
    pub grants: BTreeMap<GrantName, HubFrame>,
    pub upgrade: Upgrade,
    pub refreshing: Refreshing,
    /// Sessions whose number is below this are to end without a word.
    pub killed: u64,
    /// Sessions are to end with this close code.
    pub close_all: Option<u16>,
    pub goaway: Option<ReconnectAfter>,
    pub polls_work: bool,
    /// Polls are cut after this long.
    pub cut_polls_after: Option<Duration>,
    /// Polls are never answered.
    pub mute_polls: bool,
    pub hellos: Vec<Hello>,
    pub upgrades: u64,
    pub sessions: u64,
    pub live: u64,
    pub acked: u64,
    pub frames: Vec<ClientFrame>,
    /// `after` of each poll, and its `wait`.
    pub polls: Vec<(Option<String>, u64)>,
    pub refreshes: Vec<(GrantName, Version)>,
    /// Tokens asked for over HTTP, and the validity wished for.
    pub fetches: Vec<(GrantName, u64)>,
    /// Device refresh tokens presented, in order.
    pub presented: Vec<String>,
    /// The device refresh token that is good, and its parent.
    pub device_token: (String, Option<String>),
    pub purchases: u64,
    /// Access tokens that the hub takes; none: all.
    pub takes: Option<String>,
    pub expires_in: u64,
    /// How many purchases are answered only after the token rotated, by a cut connection.
    pub lose_purchases: u64,
    /// Frames to be sent to whichever session is live.
    pub outbox: VecDeque<HubFrame>,
    pub clock_ahead: i64,
    pub life: Option<u64>,
    /// What the hub says to `publish` and `failed`; none: nothing.
    pub takes_results: Option<Result<(), Code>>,
    pub published: Vec<Publish>,
    pub failed: Vec<Failed>,
    /// What the provider answers, and after how long.
    pub provider: (u16, String, Duration),
    /// The provider takes redeems and answers none yet.
    pub hold_redeems: bool,
    /// Content type and body of each redeem.
    pub redeems: Vec<(String, String)>,
}

#[derive(Clone)]
pub struct Hub {
    pub addr: SocketAddr,
    core: Arc<Mutex<Core>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Hub {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hub = Self {
            addr,
            core: Arc::new(Mutex::new(Core::new())),
            changed: Arc::new(watch::Sender::new(0)),
        };
        let router = Router::new()
            .route("/v1/ws", get(session::ws))
            .route("/v1/tokens", get(http::poll))
            .route("/v1/grants/{provider}/{account}/refresh", post(http::refresh))
            .route("/v1/grants/{provider}/{account}/token", get(http::fetch))
            .route("/oauth/token", post(http::token))
            .route("/provider/token", post(http::provider))
            .with_state(hub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        hub
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Looks at the hub, or turns something; sessions and waiting tests take notice.
    pub fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let result = act(&mut self.core.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// Waits until the hub looks as it should.
    pub async fn until(&self, what: &str, good: impl Fn(&Core) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !good(&self.core.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        };
        if timeout(BOUND, wait).await.is_err() {
            panic!("not in time: {what}; {:#?}", self.core.lock().unwrap());
        }
    }

    /// Commits the next version of a grant.
    pub fn mint(&self, grant: &GrantName) -> Version {
        self.with(|core| core.mint(grant))
    }

    /// Ends all sessions without a close frame.
    pub fn kill_sessions(&self) {
        self.with(|core| core.killed = core.sessions + 1);
    }
}

impl Core {
    fn new() -> Self {
        Self {
            epoch: Epoch(0xabcd),
            seq: 0,
            grants: BTreeMap::new(),
            upgrade: Upgrade::Serve,
            refreshing: Refreshing::Mint,
            killed: 0,
            close_all: None,
            goaway: None,
            polls_work: true,
            cut_polls_after: None,
            mute_polls: false,
            hellos: Vec::new(),
            upgrades: 0,
            sessions: 0,
            live: 0,
            acked: 0,
            frames: Vec::new(),
            polls: Vec::new(),
            refreshes: Vec::new(),
            fetches: Vec::new(),
            presented: Vec::new(),
            device_token: ("lsd_0".into(), None),
            purchases: 0,
            takes: None,
            expires_in: 900,
            lose_purchases: 0,
            outbox: VecDeque::new(),
            clock_ahead: 0,
            life: Some(3600),
            takes_results: Some(Ok(())),
            published: Vec::new(),
            failed: Vec::new(),
            provider: (
                200,
                r#"{"access_token":"fresh","refresh_token":"rt-2","expires_in":"3600"}"#.into(),
                Duration::ZERO,
            ),
            hold_redeems: false,
            redeems: Vec::new(),
        }
    }

    pub fn now(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        now.saturating_add_signed(self.clock_ahead)
    }

    fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: Seq(self.seq),
        }
    }

    pub fn version(&self, grant: &GrantName) -> Version {
        match self.grants.get(grant) {
            Some(HubFrame::Token(token)) => token.version,
            Some(HubFrame::Status(status)) => status.version,
            _ => Version(0),
        }
    }

    pub fn mint(&mut self, grant: &GrantName) -> Version {
        let version = self.version(grant).next();
        self.seq += 1;
        let token = Token {
            grant: grant.clone(),
            version,
            seq: Seq(self.seq),
            cursor: self.cursor(),
            access_token: Secret::new(format!("at-{grant}-{version}")),
            token_type: "Bearer".into(),
            scope: None,
            expires_at: self.life.map(|life| UnixSeconds(self.now() + life)),
            refreshed_at: UnixSeconds(self.now()),
            cause: Cause::Refresh,
        };
        self.grants.insert(grant.clone(), HubFrame::Token(token));
        version
    }

    pub fn status(&mut self, grant: &GrantName, health: Health, reason: &str) {
        self.seq += 1;
        let status = Status {
            grant: grant.clone(),
            version: self.version(grant),
            seq: Seq(self.seq),
            cursor: self.cursor(),
            health,
            refreshing_by: None,
            lease_expires_in: None,
            reason: Some(reason.into()),
            retry_at: None,
            login_url: None,
        };
        self.grants.insert(grant.clone(), HubFrame::Status(status));
    }

    fn newer_than(&self, seq: u64) -> Vec<HubFrame> {
        let mut newer: Vec<_> = self.grants.values().filter(|f| seq_of(f) > seq).cloned().collect();
        newer.sort_by_key(seq_of);
        newer
    }

    /// A new session: its number, what is said first, and the seq that this reaches.
    fn begin(&mut self, hello: &Hello) -> (u64, Vec<HubFrame>, u64) {
        self.sessions += 1;
        self.live += 1;
        let (resume, from) = self.resume(hello.cursor.as_deref());
        let mut opening = vec![HubFrame::Welcome(Welcome {
            session: SessionId(uuid::Uuid::new_v4()),
            user: "alice".parse().unwrap(),
            epoch: self.epoch,
            time: UnixSeconds(self.now()),
            heartbeat: 20,
            resume,
        })];
        opening.extend(self.newer_than(from));
        opening.push(HubFrame::Synced(Synced { cursor: self.cursor() }));
        (self.sessions, opening, self.seq)
    }

    /// What a session has to say now, and the code to close it with; none: it was killed.
    fn due(&mut self, number: u64, sent: &mut u64) -> Option<(Vec<HubFrame>, Option<u16>)> {
        if self.killed > number {
            return None;
        }
        let mut todo: Vec<_> = self.outbox.drain(..).collect();
        if let Some(reconnect_after) = self.goaway.take() {
            todo.push(HubFrame::Goaway(Goaway {
                reason: "restart".into(),
                reconnect_after,
            }));
        }
        todo.extend(self.newer_than(*sent));
        *sent = self.seq;
        Some((todo, self.close_all))
    }

    /// Where a client stands: how to resume, and from which seq.
    fn resume(&self, cursor: Option<&str>) -> (Resume, u64) {
        match cursor.and_then(|text| text.parse::<Cursor>().ok()) {
            Some(cursor) if cursor.epoch == self.epoch && cursor.seq.0 == self.seq => (Resume::Uptodate, self.seq),
            Some(cursor) if cursor.epoch == self.epoch && cursor.seq.0 < self.seq => (Resume::Delta, cursor.seq.0),
            _ => (Resume::Reset, 0),
        }
    }

    fn refresh(&mut self, grant: &GrantName, rejected: Version) -> Result<Option<Version>, (Code, Option<u64>)> {
        self.refreshes.push((grant.clone(), rejected));
        if !self.grants.contains_key(grant) {
            return Err((Code::UnknownGrant, None));
        }
        if self.version(grant) > rejected {
            return Ok(Some(self.version(grant)));
        }
        match self.refreshing {
            Refreshing::Mint => Ok(Some(self.mint(grant))),
            Refreshing::Refuse(code, after) => Err((code, after.map(|after| self.now() + after))),
            Refreshing::Ignore => Ok(None),
        }
    }
}

pub fn seq_of(frame: &HubFrame) -> u64 {
    match frame {
        HubFrame::Token(token) => token.seq.0,
        HubFrame::Status(status) => status.seq.0,
        _ => 0,
    }
}
