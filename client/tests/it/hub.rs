//! A small hub for tests: the real protocol over real sockets, with faults on demand. One user, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Form, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use lockstep_protocol::{
    ClientFrame, Code, Cursor, Epoch, GrantName, HubFrame, RequestId, Secret, Seq, SessionId, UnixSeconds, Version,
    decode_client, encode,
    frame::{
        Cause, Done, Error, Failed, Goaway, Health, Hello, Publish, ReconnectAfter, Resume, Status, Synced, Token,
        Welcome,
    },
    http::{GrantVersion, PollAnswer, Problem, RefreshBody},
};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

/// How long a test waits for anything before it fails.
pub const BOUND: Duration = Duration::from_secs(20);

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
    pub hellos: Vec<Hello>,
    pub upgrades: u64,
    pub sessions: u64,
    pub live: u64,
    pub acked: u64,
    pub frames: Vec<ClientFrame>,
    /// `after` of each poll, and its `wait`.
    pub polls: Vec<(Option<String>, u64)>,
    pub refreshes: Vec<(GrantName, Version)>,
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
            .route("/v1/ws", get(ws))
            .route("/v1/tokens", get(poll))
            .route("/v1/grants/{provider}/{account}/refresh", post(refresh))
            .route("/oauth/token", post(token))
            .route("/provider/token", post(provider))
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
            hellos: Vec::new(),
            upgrades: 0,
            sessions: 0,
            live: 0,
            acked: 0,
            frames: Vec::new(),
            polls: Vec::new(),
            refreshes: Vec::new(),
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

async fn ws(State(hub): State<Hub>, mut request: Request) -> Response {
    let upgrade = hub.with(|core| {
        core.upgrades += 1;
        core.upgrade
    });
    if let Upgrade::Refuse(status) = upgrade {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].clone();
    assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "lockstep.v1");
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let ws = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
        match upgrade {
            Upgrade::KillAfter(after) => {
                let _ = timeout(after, session(&hub, ws)).await;
            }
            Upgrade::Mute => {
                let mut ws = ws;
                while let Some(Ok(_)) = ws.next().await {}
            }
            Upgrade::Serve | Upgrade::Refuse(_) => session(&hub, ws).await,
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()))
        .header(header::SEC_WEBSOCKET_PROTOCOL, "lockstep.v1")
        .body(Body::empty())
        .unwrap()
}

type Ws = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Counts a live session, also when it is killed.
struct Live<'a>(&'a Hub);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.with(|core| core.live -= 1);
    }
}

async fn close(ws: &mut Ws, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    let _ = ws.close(Some(frame)).await;
    while let Ok(Some(Ok(_))) = timeout(Duration::from_secs(1), ws.next()).await {}
}

async fn say(ws: &mut Ws, frame: &HubFrame) -> bool {
    ws.send(Message::text(encode(frame))).await.is_ok()
}

async fn session(hub: &Hub, mut ws: Ws) {
    let Some(Ok(Message::Text(text))) = ws.next().await else {
        return;
    };
    let Ok(ClientFrame::Hello(hello)) = decode_client(&text) else {
        return close(&mut ws, 4400).await;
    };
    let taken = hub.with(|core| {
        core.hellos.push(hello.clone());
        core.takes.as_ref().is_none_or(|takes| hello.token.expose() == takes)
    });
    if !taken {
        return close(&mut ws, 4401).await;
    }
    let (number, opening, sent) = hub.with(|core| core.begin(&hello));
    let _live = Live(hub);
    for frame in opening {
        say(&mut ws, &frame).await;
    }
    serve(hub, &mut ws, number, sent).await;
}

async fn serve(hub: &Hub, ws: &mut Ws, number: u64, mut sent: u64) {
    let mut changed = hub.changed.subscribe();
    loop {
        let Some((todo, code)) = hub.core.lock().unwrap().due(number, &mut sent) else {
            return;
        };
        for frame in &todo {
            if !say(ws, frame).await {
                return;
            }
        }
        if let Some(code) = code {
            return close(ws, code).await;
        }
        tokio::select! {
            message = ws.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let frame = decode_client(&text).unwrap();
                    if let Some(answer) = answer(hub, frame) && !say(ws, &answer).await {
                        return;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = changed.changed() => {}
        }
    }
}

fn answer(hub: &Hub, frame: ClientFrame) -> Option<HubFrame> {
    hub.with(|core| {
        core.frames.push(frame.clone());
        match frame {
            ClientFrame::Ack(ack) => {
                core.acked = core.acked.max(ack.seq.0);
                None
            }
            ClientFrame::Refresh(refresh) => match core.refresh(&refresh.grant, refresh.rejected_version) {
                Ok(None) => None,
                Ok(Some(version)) => Some(HubFrame::Done(Done {
                    id: refresh.id,
                    grant: refresh.grant,
                    version,
                })),
                Err((code, retry_at)) => Some(HubFrame::Error(Error {
                    id: Some(refresh.id),
                    grant: Some(refresh.grant),
                    code,
                    message: "no".into(),
                    retry_at: retry_at.map(UnixSeconds),
                })),
            },
            ClientFrame::Publish(publish) => {
                core.published.push(publish.clone());
                let took = core.takes_results?;
                Some(told(publish.id, publish.grant, publish.from_version.next(), took))
            }
            ClientFrame::Failed(failed) => {
                core.failed.push(failed.clone());
                let took = core.takes_results?;
                Some(told(failed.id, failed.grant, Version(1), took))
            }
            _ => None,
        }
    })
}

fn told(id: RequestId, grant: GrantName, version: Version, took: Result<(), Code>) -> HubFrame {
    match took {
        Ok(()) => HubFrame::Done(Done { id, grant, version }),
        Err(code) => HubFrame::Error(Error {
            id: Some(id),
            grant: Some(grant),
            code,
            message: "no".into(),
            retry_at: None,
        }),
    }
}

/// The authorization server of a device-side redeem.
async fn provider(State(hub): State<Hub>, headers: axum::http::HeaderMap, body: String) -> Response {
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let (status, answer, delay) = hub.with(|core| {
        core.redeems.push((kind, body));
        core.provider.clone()
    });
    tokio::time::sleep(delay).await;
    (StatusCode::from_u16(status).unwrap(), answer).into_response()
}

#[derive(Deserialize)]
struct PollQuery {
    after: Option<String>,
    wait: Option<u64>,
}

async fn poll(State(hub): State<Hub>, Query(query): Query<PollQuery>, request: Request) -> Response {
    let wait = query.wait.unwrap_or(0);
    let bearer = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
    let (works, cut, taken) = hub.with(|core| {
        core.polls.push((query.after.clone(), wait));
        if let Some(Ok(cursor)) = query.after.as_deref().map(str::parse::<Cursor>) {
            core.acked = core.acked.max(cursor.seq.0);
        }
        let taken = core
            .takes
            .as_ref()
            .is_none_or(|takes| bearer == format!("Bearer {takes}"));
        (core.polls_work, core.cut_polls_after, taken)
    });
    if !works {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if !taken {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let held = hold(&hub, query.after.as_deref(), Duration::from_secs(wait));
    match cut {
        None => held.await,
        Some(cut) => timeout(cut, held)
            .await
            .unwrap_or_else(|_| StatusCode::GATEWAY_TIMEOUT.into_response()),
    }
}

async fn hold(hub: &Hub, after: Option<&str>, wait: Duration) -> Response {
    let mut changed = hub.changed.subscribe();
    let newer = async {
        loop {
            let found = {
                let core = hub.core.lock().unwrap();
                let (resume, from) = core.resume(after);
                (resume != Resume::Uptodate).then(|| poll_answer(&core, resume, from))
            };
            if let Some(answer) = found {
                return answer;
            }
            changed.changed().await.unwrap();
        }
    };
    match timeout(wait.max(Duration::from_millis(1)), newer).await {
        Ok(answer) => Json(answer).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

fn poll_answer(core: &Core, resume: Resume, from: u64) -> PollAnswer {
    let mut answer = PollAnswer {
        epoch: core.epoch,
        time: UnixSeconds(core.now()),
        cursor: core.cursor(),
        resume,
        tokens: Vec::new(),
        statuses: Vec::new(),
    };
    for frame in core.newer_than(from) {
        match frame {
            HubFrame::Token(token) => answer.tokens.push(token),
            HubFrame::Status(status) => answer.statuses.push(status),
            _ => {}
        }
    }
    answer
}

async fn refresh(
    State(hub): State<Hub>,
    axum::extract::Path((provider, account)): axum::extract::Path<(String, String)>,
    Json(body): Json<RefreshBody>,
) -> Response {
    let grant = GrantName::new(&provider, &account).unwrap();
    let came = hub.with(|core| core.refresh(&grant, body.rejected_version));
    match came {
        Ok(Some(version)) => Json(GrantVersion { grant, version }).into_response(),
        Ok(None) => std::future::pending().await,
        Err((code, retry_at)) => {
            let status = if code == Code::UnknownGrant { 404 } else { 503 };
            let problem = Problem {
                kind: "about:blank".into(),
                title: "no".into(),
                status,
                code,
                detail: "no".into(),
                retry_at: retry_at.map(UnixSeconds),
            };
            let mut response = Json(problem).into_response();
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    }
}

#[derive(Deserialize)]
struct TokenForm {
    grant_type: String,
    refresh_token: String,
}

/// The device token endpoint: the newest advances, the parent gives the newest again, anything else is revoked.
async fn token(State(hub): State<Hub>, Form(form): Form<TokenForm>) -> Response {
    assert_eq!(form.grant_type, "refresh_token");
    let granted = hub.with(|core| {
        core.presented.push(form.refresh_token.clone());
        let (newest, parent) = core.device_token.clone();
        if form.refresh_token == newest {
            let next = format!("lsd_{}", core.purchases + 1);
            core.device_token = (next, Some(newest));
        } else if Some(&form.refresh_token) != parent.as_ref() {
            return Err(false);
        }
        core.purchases += 1;
        if core.lose_purchases > 0 {
            core.lose_purchases -= 1;
            return Err(true);
        }
        Ok((
            format!("dat-{}", core.purchases),
            core.expires_in,
            core.device_token.0.clone(),
        ))
    });
    match granted {
        Ok((access_token, expires_in, refresh_token)) => Json(serde_json::json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": expires_in,
            "refresh_token": refresh_token,
        }))
        .into_response(),
        Err(true) => StatusCode::BAD_GATEWAY.into_response(),
        Err(false) => (
            StatusCode::BAD_REQUEST,
            Json(serde_json::json!({ "error": "invalid_grant" })),
        )
            .into_response(),
    }
}
