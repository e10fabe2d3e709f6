//! A machine in a world where everything happens when a test says so.

use std::{fmt::Write as _, time::Duration};

use lockstep_protocol::{
    ClientFrame, Cursor, DeviceId, Epoch, GrantName, HubFrame, Secret, Seq, SessionId, UnixSeconds, Version,
    frame::{Cause, Health, PresenceState, Resume, Status, Synced, Token, Welcome},
    http::PollAnswer,
};
use uuid::Uuid;

use super::super::{
    Bought, Command, Entropy, HttpTrouble, Input, LinkId, Machine, NoAccess, NotOpened, PollId, Remembered, Setup,
    Snapshot, redeem,
};
use crate::{
    clock::{Mono, Now, Unix, millis},
    error::Error,
    event::{Event, TransportChoice},
    state::GrantState,
    timing,
};

pub(super) const EPOCH: Epoch = Epoch(0xe);
/// 2026-09-01, give or take.
const START: u64 = 1_788_000_000;
/// More ticks than this at one instant is spinning.
const MOST_TICKS: usize = 100;

pub(super) fn grant() -> GrantName {
    "example/main".parse().unwrap()
}

pub(super) fn cursor(seq: u64) -> Cursor {
    Cursor {
        epoch: EPOCH,
        seq: Seq(seq),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Entropy for Dice {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How device access tokens are sold.
#[derive(Debug, Clone)]
pub(super) enum Shop {
    /// At once.
    Open,
    /// With this answer.
    Refuses(NoAccess),
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) dice: Dice,
    pub(super) shop: Shop,
    /// Whether a write of the cache is answered at once.
    pub(super) disk: bool,
    /// Whether the hub pings.
    pub(super) pings: bool,
    acts: Vec<String>,
    words: Vec<String>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) link: LinkId,
    poll: PollId,
    /// The last mark of a write.
    pub(super) mark: u64,
    sold: u64,
    /// When a device access token was last asked for, and how often since the clock moved.
    bought: (Mono, usize),
}

fn setup() -> Setup {
    Setup {
        device: DeviceId(Uuid::from_u128(1)),
        app: "test".into(),
        presence: PresenceState::Active,
        priority: None,
        transport: TransportChoice::Auto,
        timing: timing::DEFAULT,
        cached: false,
        redeemer: false,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_, _, _| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut Setup, &mut Remembered, Now)) -> Self {
        let now = Now {
            mono: Mono(5_000_000),
            awake: 4_000_000,
            unix: Unix(START * 1000),
        };
        let (mut setup, mut remembered, mut dice) = (setup(), Remembered::default(), Dice(7));
        change(&mut setup, &mut remembered, now);
        Self {
            machine: Machine::new(setup, remembered, now, &mut dice),
            now,
            dice,
            shop: Shop::Open,
            disk: true,
            pings: true,
            acts: Vec::new(),
            words: Vec::new(),
            snapshot: None,
            link: LinkId(0),
            poll: PollId(0),
            mark: 0,
            sold: 0,
            bought: (Mono(0), 0),
        }
    }

    /// What was done since the last look: everything that leaves the machine for the hub, the provider, the disk.
    pub(super) fn acts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.acts)
    }

    /// What applications were told since the last look.
    pub(super) fn words(&mut self) -> Vec<String> {
        std::mem::take(&mut self.words)
    }

    /// Forgets what was done and told so far.
    pub(super) fn read(mut self) -> Self {
        self.acts.clear();
        self.words.clear();
        self
    }

    pub(super) fn tell(&mut self, input: Input) {
        let commands = self.machine.handle(input, self.now, &mut self.dice);
        for command in commands {
            self.done(command);
        }
    }

    fn done(&mut self, command: Command) {
        match act(&command) {
            Some(line) => self.acts.push(line),
            None => self.words.extend(word(&command)),
        }
        match command {
            Command::Buy { .. } => {
                let (at, times) = self.bought;
                self.bought = (self.now.mono, if at == self.now.mono { times + 1 } else { 1 });
                assert!(self.bought.1 < MOST_TICKS, "it buys without a pause");
                let answer = match self.shop.clone() {
                    Shop::Refuses(why) => Err(why),
                    Shop::Open => {
                        self.sold += 1;
                        Ok(Bought {
                            token: Secret::new(format!("dat-{}", self.sold)),
                            good_for: Some(Duration::from_secs(900)),
                        })
                    }
                };
                self.tell(Input::Access(answer));
            }
            Command::Open(link) => self.link = link,
            Command::Poll { poll, .. } => self.poll = poll,
            Command::Persist { mark, snapshot } => {
                self.snapshot = Some(*snapshot);
                self.mark = mark;
                if self.disk {
                    self.tell(Input::Persisted { mark, kept: Ok(()) });
                }
            }
            _ => {}
        }
    }

    /// Time goes by, for all clocks alike, and the machine is called when it wants to be.
    pub(super) fn pass(mut self, span: Duration) -> Self {
        self.run(span);
        self
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now.mono + span;
        let mut ticks = 0;
        loop {
            let due = self.machine.next_timeout().unwrap_or(end).max(self.now.mono);
            let at = due.min(end);
            ticks = if at == self.now.mono { ticks + 1 } else { 0 };
            assert!(ticks < MOST_TICKS, "it spins at {at:?}: {:#?}", self.machine);
            self.advance(at.since(self.now.mono));
            if self.pings {
                let link = self.link;
                self.tell(Input::Heard(link));
            }
            self.tell(Input::Tick);
            if at == end && self.machine.next_timeout().is_none_or(|next| next > end) {
                return;
            }
        }
    }

    /// Time goes by without a call.
    pub(super) fn advance(&mut self, span: Duration) {
        self.sleep(span);
        self.now.awake += millis(span);
    }

    /// The same while the device sleeps.
    pub(super) fn sleep(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
        self.now.unix = self.now.unix.plus(span);
    }

    /// Time goes by until another WebSocket is opened.
    pub(super) fn until_open(mut self) -> Self {
        let before = self.link;
        let start = self.now.mono;
        while self.link == before {
            assert!(
                self.now.mono.since(start) < Duration::from_secs(3600),
                "{:#?}",
                self.machine
            );
            let next = self.machine.next_timeout().unwrap_or(self.now.mono);
            self.run(next.since(self.now.mono).max(Duration::from_millis(1)));
        }
        self
    }

    pub(super) fn frame(&mut self, frame: HubFrame) {
        let link = self.link;
        self.tell(Input::Frame(link, Box::new(frame)));
    }
}

/// What happens, one after the other.
impl World {
    pub(super) fn start(mut self) -> Self {
        self.tell(Input::Tick);
        self
    }

    pub(super) fn opened(mut self) -> Self {
        self.tell(Input::Opened(self.link));
        self
    }

    pub(super) fn refused(self, status: u16, retry_after: Option<Duration>) -> Self {
        self.not_opened(NotOpened::Status { status, retry_after })
    }

    pub(super) fn not_opened(mut self, why: NotOpened) -> Self {
        self.tell(Input::NotOpened(self.link, why));
        self
    }

    pub(super) fn ended(mut self, code: Option<u16>) -> Self {
        self.tell(Input::Ended(self.link, code));
        self
    }

    pub(super) fn welcomed(mut self, resume: Resume) -> Self {
        let welcome = Welcome {
            session: SessionId(Uuid::from_u128(u128::from(self.link.0))),
            user: "alice".parse().unwrap(),
            epoch: EPOCH,
            time: UnixSeconds(self.now.unix.0 / 1000),
            heartbeat: 30,
            resume,
        };
        self.frame(HubFrame::Welcome(welcome));
        self
    }

    /// A token whose version is its seq.
    pub(super) fn token(mut self, seq: u64) -> Self {
        let token = self.minted(seq);
        self.frame(HubFrame::Token(token));
        self
    }

    pub(super) fn status(mut self, seq: u64, health: Health) -> Self {
        self.frame(HubFrame::Status(status(seq, health)));
        self
    }

    pub(super) fn synced(mut self, seq: u64) -> Self {
        self.frame(HubFrame::Synced(Synced { cursor: cursor(seq) }));
        self
    }

    pub(super) fn minted(&self, seq: u64) -> Token {
        let now = self.now.unix.0 / 1000;
        Token {
            grant: grant(),
            version: Version(seq),
            seq: Seq(seq),
            cursor: cursor(seq),
            access_token: Secret::new(format!("at-{seq}")),
            token_type: "Bearer".into(),
            scope: None,
            expires_at: Some(UnixSeconds(now + 3600)),
            refreshed_at: UnixSeconds(now),
            cause: Cause::Refresh,
        }
    }

    pub(super) fn polled(mut self, result: Result<Option<Box<PollAnswer>>, HttpTrouble>) -> Self {
        self.tell(Input::Polled(self.poll, result));
        self
    }

    /// A long-poll brings a token.
    pub(super) fn polled_token(self, seq: u64) -> Self {
        let answer = PollAnswer {
            epoch: EPOCH,
            time: UnixSeconds(self.now.unix.0 / 1000),
            cursor: cursor(seq),
            resume: Resume::Delta,
            tokens: vec![self.minted(seq)],
            statuses: Vec::new(),
        };
        self.polled(Ok(Some(Box::new(answer))))
    }

    pub(super) fn poll_failed(self, status: u16) -> Self {
        self.polled(Err(HttpTrouble::Status {
            status,
            retry_after: None,
            problem: None,
        }))
    }
}

pub(super) fn status(seq: u64, health: Health) -> Status {
    Status {
        grant: grant(),
        version: Version(seq),
        seq: Seq(seq),
        cursor: cursor(seq),
        health,
        refreshing_by: None,
        lease_expires_in: Some(45),
        reason: None,
        retry_at: None,
        login_url: None,
    }
}

/// A command to the world outside, in words.
fn act(command: &Command) -> Option<String> {
    Some(match command {
        Command::Buy { refused: None } => "buy".into(),
        Command::Buy { refused: Some(token) } => format!("buy other than {}", token.expose()),
        Command::Open(_) => "open".into(),
        Command::Send(_, frame) => said(frame),
        Command::Shut(_, code) => format!("shut {code}"),
        Command::Poll { after, wait, .. } => {
            let after = after.map_or("-".into(), |after| after.seq.to_string());
            format!("poll after {after} for {}", wait.as_secs())
        }
        Command::StopPoll => "stop poll".into(),
        Command::PostRefresh { version, .. } => format!("POST refresh {version}"),
        Command::Fetch { min_validity, .. } => format!("GET token for {}", min_validity.as_secs()),
        Command::Persist { snapshot, .. } => {
            format!("write {}", snapshot.cursor.map_or(0, |cursor| cursor.seq.0))
        }
        Command::Redeem(redeem::Command::Send { .. }) => "note, then redeem".into(),
        Command::Redeem(redeem::Command::Keep(_)) => "seal".into(),
        Command::Redeem(redeem::Command::Forget(_)) => "forget".into(),
        Command::Stop => "stop".into(),
        Command::Show(..) | Command::Answer(..) | Command::Event(_) | Command::Connection(_) => return None,
    })
}

fn said(frame: &ClientFrame) -> String {
    match frame {
        ClientFrame::Hello(hello) => {
            let mut line = "hello".to_owned();
            if let Some(cursor) = hello.cursor.as_ref().and_then(|text| text.parse::<Cursor>().ok()) {
                write!(line, " after {}", cursor.seq).unwrap();
            }
            line
        }
        ClientFrame::Ack(ack) => format!("ack {}", ack.seq),
        ClientFrame::Refresh(refresh) => format!("refresh {} {:?}", refresh.rejected_version, refresh.reason),
        ClientFrame::Presence(presence) => format!("presence {:?}", presence.state),
        ClientFrame::Accept(_) => "accept".into(),
        ClientFrame::Renew(_) => "renew".into(),
        ClientFrame::Publish(publish) => {
            format!(
                "publish {} for {:?}",
                publish.id,
                publish.token.expires_in.unwrap_or_default()
            )
        }
        ClientFrame::Failed(failed) => format!("failed {} sent {}", failed.id, failed.sent),
    }
}

/// What applications are told, in words.
fn word(command: &Command) -> Option<String> {
    Some(match command {
        Command::Show(_, GrantState::Unknown) => "show nothing".into(),
        Command::Show(_, GrantState::Token(lease)) => format!("show token {}", lease.version),
        Command::Show(_, GrantState::Status(status)) => {
            let token = status.token.as_ref().map(|lease| format!(", token {}", lease.version));
            format!(
                "show {:?} {}{}",
                status.health,
                status.version,
                token.unwrap_or_default()
            )
        }
        Command::Answer(waiter, Ok(lease)) => format!("answer {}: token {}", waiter.0, lease.version),
        Command::Answer(waiter, Err(error)) => format!("answer {}: {}", waiter.0, kind(error)),
        Command::Event(event) => told(event),
        _ => return None,
    })
}

fn kind(error: &Error) -> String {
    match error {
        Error::Retry { held, .. } => match held {
            Some(lease) => format!("retry, token {}", lease.version),
            None => "retry".into(),
        },
        Error::Reauth { .. } => "reauth".into(),
        Error::UnknownGrant { .. } => "unknown grant".into(),
        Error::Stopped(why) => format!("stopped {}", why.code()),
        Error::Misuse(_) => "misuse".into(),
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Connecting { transport } => format!("connecting over {transport}"),
        Event::Connected { transport, .. } => format!("connected over {transport}"),
        Event::Synced { transport } => format!("synced over {transport}"),
        Event::Disconnected {
            transport, retry_in, ..
        } => format!("disconnected, {transport} in {} ms", retry_in.as_millis()),
        Event::TransportChanged { from, to, .. } => format!("{from} to {to}"),
        Event::Woke { gap } => format!("woke after {} s", gap.as_secs()),
        Event::Redeem { step, .. } => format!("redeem: {step:?}"),
        Event::CacheTrouble { .. } => "cache trouble".into(),
        Event::Stopped(why) => format!("stopped {}", why.code()),
        Event::Changed { .. } => "changed".into(),
    }
}
