//! A bench for one machine: it executes store commands at once, and hands everything else to the test.

use std::{sync::Arc, time::Duration};

use lockstep_protocol::{DeviceId, LeaseId, Version};
use uuid::Uuid;

use super::{
    carry_out::{claim_row, is_write, refused},
    store::{ClaimRow, Store},
};
use crate::{
    entropy::Entropy,
    grant::{Ask, Asker, Command, Grant, Input, Login, Note, PermitAnswer, ProviderReply, Reply, Trouble, WaiterId},
    policy::Policy,
    record::{GrantRecord, Holder, TokenSet},
    time::{Mono, Now, Unix},
};

/// A small generator (SplitMix64): good enough for tests, the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// One machine on one node, its store, and what it ordered that the test is to answer.
pub(crate) struct Bench {
    pub(crate) grant: Grant,
    pub(crate) me: Holder,
    pub(crate) store: Store,
    pub(crate) now: Now,
    pub(crate) entropy: Seeded,
    /// What the store does with the next write: nothing special, or trouble.
    pub(crate) trouble: Option<Trouble>,
    /// Commands that are not the store's, in order, notes apart.
    pub(crate) orders: Vec<Command>,
    pub(crate) notes: Vec<Note>,
    pub(crate) replies: Vec<(u64, Reply)>,
    pub(crate) auto_permit: bool,
    /// Whether the store answers; if not, its orders are left for the test.
    pub(crate) store_answers: bool,
}

pub(crate) const START: u64 = 1_800_000_000_000;

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn holder(node: &str, incarnation: u64) -> Holder {
    Holder {
        node: node.to_owned(),
        incarnation,
    }
}

pub(crate) fn device(n: u64) -> DeviceId {
    DeviceId(Uuid::from_u64_pair(1, n))
}

pub(crate) fn tokens(name: &str, expires_at: Option<u64>) -> TokenSet {
    TokenSet {
        access_token: Some(format!("at-{name}").into()),
        refresh_token: Some(format!("rt-{name}").into()),
        token_type: "Bearer".to_owned(),
        scope: None,
        expires_at: expires_at.map(Unix),
        refresh_expires_at: None,
    }
}

pub(crate) fn answered(status: u16, body: &str) -> ProviderReply {
    ProviderReply::Answered {
        status,
        retry_after: None,
        body: body.into(),
    }
}

/// A provider's good answer: access and refresh token named after `name`, good for an hour.
pub(crate) fn issued(name: &str) -> ProviderReply {
    answered(
        200,
        &format!(
            r#"{{"access_token":"at-{name}","refresh_token":"rt-{name}","token_type":"Bearer","expires_in":3600}}"#
        ),
    )
}

impl Bench {
    pub(crate) fn new(policy: Policy) -> Self {
        let me = holder("a", 1);
        Self {
            grant: Grant::new(me.clone(), Arc::new(policy)),
            me,
            store: Store::default(),
            now: Now {
                mono: Mono(1_000_000),
                unix: Unix(START),
            },
            entropy: Seeded(7),
            trouble: None,
            orders: Vec::new(),
            notes: Vec::new(),
            replies: Vec::new(),
            auto_permit: true,
            store_answers: true,
        }
    }

    /// A bench whose grant is at version 1, logged in just now, good for an hour.
    pub(crate) fn with_grant(policy: Policy) -> Self {
        let mut bench = Self::new(policy);
        let expires = Some(START + 3_600_000);
        bench.login(1, tokens("1", expires));
        assert_eq!(bench.take_replies(), [(1, Reply::Done(Version(1)))]);
        bench.orders.clear();
        bench.notes.clear();
        bench
    }

    pub(crate) fn record(&self) -> &GrantRecord {
        self.store.record.as_ref().unwrap()
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.grant.handle(input, self.now, &mut self.entropy);
        while let Some(command) = self.grant.next_command() {
            self.execute(command);
        }
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        while let Some(at) = self.grant.next_timeout().filter(|at| *at <= end) {
            self.jump(at.since(self.now.mono));
            self.handle(Input::Tick);
        }
        self.jump(end.since(self.now.mono));
    }

    fn jump(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
        self.now.unix = self.now.unix + span;
    }

    pub(crate) fn login(&mut self, waiter: u64, tokens: TokenSet) {
        self.handle(Input::Login {
            waiter: WaiterId(waiter),
            login: Box::new(Login { tokens }),
        });
    }

    pub(crate) fn ask(&mut self, waiter: u64, by: Asker, rejected: Option<u64>) {
        self.handle(Input::Ask(Ask {
            waiter: Some(WaiterId(waiter)),
            by,
            rejected: rejected.map(Version),
        }));
    }

    pub(crate) fn operator(&mut self, waiter: u64) {
        self.ask(waiter, Asker::Operator, None);
    }

    pub(crate) fn reject(&mut self, waiter: u64, n: u64, version: u64) {
        let by = Asker::Device {
            device: device(n),
            acked: true,
            connected: 3,
        };
        self.ask(waiter, by, Some(version));
    }

    /// The redeem that is ordered, if exactly one is: lease and refresh token.
    pub(crate) fn redeem(&mut self) -> (LeaseId, String) {
        let redeems = self.orders.iter().filter_map(|command| match command {
            Command::Redeem {
                lease, refresh_token, ..
            } => Some((*lease, refresh_token.expose().to_owned())),
            _ => None,
        });
        let redeems: Vec<_> = redeems.collect();
        assert_eq!(redeems.len(), 1, "one redeem in {:?}", self.orders);
        self.orders.retain(|command| !matches!(command, Command::Redeem { .. }));
        redeems.into_iter().next().unwrap()
    }

    pub(crate) fn redeems(&self) -> usize {
        self.orders
            .iter()
            .filter(|command| matches!(command, Command::Redeem { .. }))
            .count()
    }

    pub(crate) fn reply(&mut self, lease: LeaseId, reply: ProviderReply) {
        self.handle(Input::Redeemed { lease, reply });
    }

    /// Takes the ordered redeem and answers it.
    pub(crate) fn provider(&mut self, reply: ProviderReply) -> String {
        let (lease, token) = self.redeem();
        self.reply(lease, reply);
        token
    }

    pub(crate) fn take_replies(&mut self) -> Vec<(u64, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// The versions pushed, in order.
    pub(crate) fn take_pushed(&mut self) -> Vec<u64> {
        let pushed = self.orders.iter().filter_map(|command| match command {
            Command::Push(record) => Some(record.version.0),
            _ => None,
        });
        let pushed = pushed.collect();
        self.orders.retain(|command| !matches!(command, Command::Push(_)));
        pushed
    }

    fn execute(&mut self, command: Command) {
        let trouble = if is_write(&command) { self.trouble.take() } else { None };
        if let Some(trouble @ Trouble::Refused(_)) = trouble {
            return self.handle(refused(&command, trouble));
        }
        match command {
            Command::Note(note) => self.notes.push(note),
            Command::Answer { waiter, reply } => self.replies.push((waiter.0, reply)),
            Command::AskPermit if self.auto_permit => self.handle(Input::Permit(PermitAnswer::Granted)),
            command if !self.store_answers => self.orders.push(command),
            command => match (self.store.carry_out(&self.me, &command, self.now.unix), trouble) {
                (None, _) => self.orders.push(command),
                (Some(_), Some(lost)) => self.handle(refused(&command, lost)),
                (Some(input), None) => self.handle(input),
            },
        }
    }

    /// The claim that is ordered and was not answered.
    pub(crate) fn take_claim(&mut self) -> ClaimRow {
        let rows: Vec<_> = self
            .orders
            .iter()
            .filter_map(|order| claim_row(&self.me, order))
            .collect();
        assert_eq!(rows.len(), 1, "one claim in {:?}", self.orders);
        self.orders.retain(|order| !matches!(order, Command::Claim { .. }));
        rows.into_iter().next().unwrap()
    }

    /// The leases whose renewal is ordered and was not answered.
    pub(crate) fn renewals(&self) -> Vec<LeaseId> {
        let leases = self.orders.iter().filter_map(|order| match order {
            Command::Renew { lease, .. } => Some(*lease),
            _ => None,
        });
        leases.collect()
    }
}
