//! A model check of claim, redeem and commit: two hubs with the real engine over one store, two devices, a strict provider.
//! Every order of what may happen is walked, crashes and lost answers included, up to a stated number of steps.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use lockstep_protocol::{LeaseId, Version};
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::{
    bench::{START, Seeded, answered, device, holder, secs},
    carry_out::refused,
    provider::{Decision, Provider, Rotation},
    store::Store,
};
use crate::{
    grant::{Ask, Asker, Command, Grant, Input, Login, PermitAnswer, ProviderReply, Trouble, WaiterId},
    policy::Policy,
    record::{Health, TokenSet},
    time::{Mono, Now, Unix},
};

/// How many steps are walked from the first question on.
const STEPS: usize = 13;
/// How many crashes, lost answers, and passings of time each path may have.
const CRASHES: u8 = 1;
const LOSSES: u8 = 1;
const PASSINGS: u8 = 2;

/// What may happen next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// A device asks its hub for something newer than what it holds.
    Ask(usize),
    /// The store carries out a hub's order, and answers.
    Store { hub: usize, order: usize },
    /// The same, and the answer is lost.
    StoreSilent { hub: usize, order: usize },
    /// The provider processes a redeem, and answers.
    Provider(usize),
    /// The same, and the answer is lost.
    ProviderSilent(usize),
    /// A hub dies, and starts again.
    Crash(usize),
    /// Time passes until the next timer.
    Pass,
}

/// One hub.
#[derive(Debug, Clone)]
struct Hub {
    machine: Grant,
    life: u64,
    entropy: Seeded,
    /// Orders for the store that did not arrive yet.
    orders: Vec<Command>,
}

/// A redeem on its way.
#[derive(Debug, Clone)]
struct Sent {
    hub: usize,
    life: u64,
    lease: LeaseId,
    token: String,
    version: Version,
    deadline: u64,
    processed: bool,
}

#[derive(Clone)]
struct World {
    hubs: Vec<Hub>,
    store: Store,
    provider: Provider,
    sent: Vec<Sent>,
    /// The version that each device was shown last.
    seen: Vec<Version>,
    asked: Vec<bool>,
    now: u64,
    crashes: u8,
    losses: u8,
    passings: u8,
    /// What went wrong.
    wrong: Option<&'static str>,
}

/// A world, and what tells it from others.
#[derive(Clone)]
struct State {
    world: World,
    print: String,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.world.store.record.as_ref().map(|r| (r.version, r.health));
        write!(f, "{record:?} {:?}", self.world.wrong)
    }
}

impl From<World> for State {
    fn from(world: World) -> Self {
        // Secrets do not print, so they are told apart here.
        let tokens = |record: Option<&crate::record::GrantRecord>| {
            let refresh = record.and_then(|r| r.tokens.as_ref()?.refresh_token.as_ref());
            refresh.map_or(String::new(), |token| token.expose().to_owned())
        };
        let known: Vec<String> = world.hubs.iter().map(|hub| tokens(hub.machine.record())).collect();
        let stored = tokens(world.store.record.as_ref());
        let World {
            hubs,
            store,
            provider,
            sent,
            seen,
            asked,
            now,
            ..
        } = &world;
        let spent = (world.crashes, world.losses, world.passings, world.wrong);
        let print = format!("{hubs:?}{store:?}{provider:?}{sent:?}{seen:?}{asked:?}{now}{spent:?}{known:?}{stored}");
        Self { world, print }
    }
}

impl World {
    fn new(policy: &Policy) -> Self {
        let mut provider = Provider::new(Rotation::Strict);
        let pair = provider.log_in();
        let hub = |n: usize| Hub {
            machine: Grant::new(holder(["a", "b"][n], 1), Arc::new(policy.clone())),
            life: 1,
            entropy: Seeded(n as u64 + 1),
            orders: Vec::new(),
        };
        let mut world = Self {
            hubs: vec![hub(0), hub(1)],
            store: Store::default(),
            provider,
            sent: Vec::new(),
            seen: vec![Version(0); 2],
            asked: vec![false; 2],
            now: 1_000,
            crashes: CRASHES,
            losses: LOSSES,
            passings: PASSINGS,
            wrong: None,
        };
        let tokens = TokenSet {
            access_token: Some(pair.access.into()),
            refresh_token: pair.refresh.map(Into::into),
            token_type: "Bearer".to_owned(),
            scope: None,
            expires_at: Some(Unix(START + 3_600_000)),
            refresh_expires_at: None,
        };
        let login = Box::new(Login { tokens });
        let waiter = WaiterId(1);
        world.tell(0, Input::Login { waiter, login });
        while !world.hubs[0].orders.is_empty() {
            world.store(0, 0, false);
        }
        let record = world.store.read();
        world.tell(1, Input::Read(Ok(record)));
        world
    }

    fn clock(&self) -> Now {
        Now {
            mono: Mono(self.now),
            unix: Unix(START + self.now),
        }
    }

    fn tell(&mut self, hub: usize, input: Input) {
        let now = self.clock();
        let before = self.known(hub);
        let h = &mut self.hubs[hub];
        h.machine.handle(input, now, &mut h.entropy);
        while let Some(command) = self.hubs[hub].machine.next_command() {
            self.obey(hub, command);
        }
        if self.known(hub) < before {
            self.wrong = self.wrong.or(Some("P3: a hub goes back"));
        }
    }

    fn known(&self, hub: usize) -> u64 {
        self.hubs[hub].machine.record().map_or(0, |record| record.revision)
    }

    fn obey(&mut self, hub: usize, command: Command) {
        match command {
            Command::AskPermit => {
                let now = self.clock();
                let h = &mut self.hubs[hub];
                h.machine
                    .handle(Input::Permit(PermitAnswer::Granted), now, &mut h.entropy);
            }
            Command::Redeem {
                lease,
                refresh_token,
                deadline,
                ..
            } => self.send(hub, lease, refresh_token.expose(), deadline),
            Command::Push(record) => {
                if record.version < self.seen[hub] {
                    self.wrong = self.wrong.or(Some("P3: a device goes back"));
                }
                self.seen[hub] = record.version;
            }
            Command::Load
            | Command::Claim { .. }
            | Command::Renew { .. }
            | Command::Commit(_)
            | Command::Settle { .. }
            | Command::KeepAlternate { .. } => self.hubs[hub].orders.push(command),
            _ => {}
        }
    }

    fn send(&mut self, hub: usize, lease: LeaseId, token: &str, deadline: Duration) {
        let version = self.hubs[hub]
            .machine
            .record()
            .map_or(Version(0), |record| record.version);
        let flying =
            |sent: &Sent| sent.version == version && self.now < sent.deadline && self.hubs[sent.hub].life == sent.life;
        if self.sent.iter().any(flying) {
            self.wrong = self.wrong.or(Some("P1: two redeems of a version are in flight"));
        }
        let current = self
            .store
            .record
            .as_ref()
            .and_then(|record| record.tokens.as_ref()?.refresh_token.as_ref());
        if current.is_none_or(|current| current.expose() != token) {
            self.wrong = self.wrong.or(Some("P1: a token is sent whose successor is committed"));
        }
        // The access token lives throughout, and the provider has no grace: there is nothing to gain.
        if self.provider.processed.contains_key(token) {
            self.wrong = self.wrong.or(Some("P1: a token that was used up is sent"));
        }
        self.sent.push(Sent {
            hub,
            life: self.hubs[hub].life,
            lease,
            token: token.to_owned(),
            version,
            deadline: self.now + u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            processed: false,
        });
    }

    fn store(&mut self, hub: usize, order: usize, silent: bool) {
        let command = self.hubs[hub].orders.remove(order);
        let me = holder(["a", "b"][hub], self.hubs[hub].life);
        let now = self.clock().unix;
        let answer = self.store.carry_out(&me, &command, now).filter(|_| !silent);
        let lost = || refused(&command, Trouble::Unknown("lost".to_owned()));
        self.tell(hub, answer.unwrap_or_else(lost));
    }

    fn provider(&mut self, index: usize, silent: bool) {
        let sent = self.sent[index].clone();
        self.sent[index].processed = true;
        let decision = self.provider.redeem(&sent.token, self.now);
        if self.hubs[sent.hub].life != sent.life {
            return;
        }
        let reply = match decision {
            _ if silent => ProviderReply::Lost("cut".to_owned()),
            Decision::Invalid => answered(400, r#"{"error":"invalid_grant"}"#),
            Decision::Issued(pair) => answered(
                200,
                &format!(
                    r#"{{"access_token":"{}","refresh_token":"{}","expires_in":3600}}"#,
                    pair.access,
                    pair.refresh.unwrap_or_default()
                ),
            ),
        };
        self.sent.remove(index);
        let lease = sent.lease;
        self.tell(sent.hub, Input::Redeemed { lease, reply });
    }

    fn crash(&mut self, hub: usize, policy: &Policy) {
        self.crashes -= 1;
        let h = &mut self.hubs[hub];
        h.life += 1;
        h.orders.clear();
        h.machine = Grant::new(holder(["a", "b"][hub], h.life), Arc::new(policy.clone()));
        self.asked[hub] = false;
    }

    fn ask(&mut self, hub: usize) {
        self.asked[hub] = true;
        let by = Asker::Device {
            device: device(hub as u64),
            acked: true,
            connected: 2,
        };
        let rejected = Some(self.seen[hub]);
        let waiter = Some(WaiterId(10 + hub as u64));
        self.tell(hub, Input::Ask(Ask { waiter, by, rejected }));
    }

    fn next_timer(&self) -> Option<u64> {
        let timers = self.hubs.iter().filter_map(|hub| hub.machine.next_timeout());
        timers.map(|at| at.0.max(self.now)).min()
    }
}

/// The model.
struct Cluster(Policy);

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![World::new(&self.0).into()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let world = &state.world;
        if world.wrong.is_some() {
            return;
        }
        for (hub, h) in world.hubs.iter().enumerate() {
            if !world.asked[hub] {
                actions.push(Action::Ask(hub));
            }
            for order in 0..h.orders.len() {
                actions.push(Action::Store { hub, order });
                if world.losses > 0 {
                    actions.push(Action::StoreSilent { hub, order });
                }
            }
            if world.crashes > 0 {
                actions.push(Action::Crash(hub));
            }
        }
        for index in (0..world.sent.len()).filter(|index| !world.sent[*index].processed) {
            actions.push(Action::Provider(index));
            if world.losses > 0 {
                actions.push(Action::ProviderSilent(index));
            }
        }
        if world.passings > 0 && world.next_timer().is_some() {
            actions.push(Action::Pass);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut world = last.world.clone();
        match action {
            Action::Ask(hub) => world.ask(hub),
            Action::Store { hub, order } => world.store(hub, order, false),
            Action::StoreSilent { hub, order } => {
                world.losses -= 1;
                world.store(hub, order, true);
            }
            Action::Provider(index) => world.provider(index, false),
            Action::ProviderSilent(index) => {
                world.losses -= 1;
                world.provider(index, true);
            }
            Action::Crash(hub) => world.crash(hub, &self.0),
            Action::Pass => {
                world.passings -= 1;
                world.now = world.next_timer()?;
                for hub in 0..world.hubs.len() {
                    world.tell(hub, Input::Tick);
                }
            }
        }
        Some(world.into())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1 and P3 hold", |_, state: &State| state.world.wrong.is_none()),
            Property::sometimes("a refresh is committed", |_, state: &State| {
                let record = state.world.store.record.as_ref();
                record.is_some_and(|record| record.version >= Version(2))
            }),
            Property::sometimes("both devices see it", |_, state: &State| {
                state.world.seen.iter().all(|seen| *seen >= Version(2))
            }),
            Property::sometimes("an outcome is in doubt", |_, state: &State| {
                let record = state.world.store.record.as_ref();
                record.is_some_and(|record| record.health == Health::Suspect)
            }),
        ]
    }
}

fn cluster() -> Cluster {
    Cluster(Policy {
        reject_interval: secs(0),
        ..Policy::default()
    })
}

#[test]
fn two_hubs_and_two_devices_keep_single_flight_in_every_order_of_events() {
    let checker = cluster()
        .checker()
        .target_max_depth(STEPS)
        .threads(2)
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} of them unique, all orders of up to {} steps",
        checker.state_count(),
        checker.unique_state_count(),
        STEPS - 1,
    );
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000, "a bound that is reached");
}

#[test]
fn the_model_finds_a_hub_that_forgets_its_doubt() {
    struct Forgetful(Cluster);
    impl Model for Forgetful {
        type State = State;
        type Action = Action;

        fn init_states(&self) -> Vec<State> {
            let mut world = World::new(&self.0.0);
            for hub in &mut world.hubs {
                hub.machine.broken = Some(crate::grant::broken::Broken::ForgetDoubt);
            }
            vec![world.into()]
        }

        fn actions(&self, state: &State, actions: &mut Vec<Action>) {
            self.0.actions(state, actions);
        }

        fn next_state(&self, last: &State, action: Action) -> Option<State> {
            self.0.next_state(last, action)
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![Property::always("P1 holds", |_, state: &State| {
                state.world.wrong.is_none()
            })]
        }
    }
    let checker = Forgetful(cluster())
        .checker()
        .target_max_depth(STEPS)
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    assert!(checker.discovery("P1 holds").is_some());
}
