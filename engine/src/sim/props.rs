//! Properties of the parts that are pure functions: whatever the bytes and the record, an answer, and an honest one.

use std::time::Duration;

use lockstep_protocol::{DeviceId, LeaseId, Seq, Version, frame::Cause};
use proptest::prelude::*;
use uuid::Uuid;

use super::bench::{Bench, START, holder, secs, tokens};
use crate::{
    grant::{Asker, Command, Input, ProviderReply, row_of},
    policy::{Policy, Refresher},
    record::{Claim, Doubt, GrantRecord, Health, Purpose},
    time::Unix,
};

fn body() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        Just("invalid_grant"),
        Just("invalid_client"),
        Just("refresh_token_reused"),
        Just("slow_down"),
        Just(""),
    ];
    prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        ".{0,200}",
        words.prop_map(|word| format!(r#"{{"error":"{word}"}}"#)),
        "[a-z]{0,8}".prop_map(|token| format!(r#"{{"access_token":"{token}","refresh_token":"r","expires_in":60}}"#)),
        any::<f64>().prop_map(|life| format!(r#"{{"access_token":"a","expires_in":{life:?}}}"#)),
        Just("[".repeat(10_000)),
    ]
}

fn reply() -> impl Strategy<Value = ProviderReply> {
    let seconds = proptest::option::of(any::<u32>().prop_map(|s| Duration::from_secs(u64::from(s))));
    prop_oneof![
        1 => any::<String>().prop_map(ProviderReply::NotSent),
        1 => any::<String>().prop_map(ProviderReply::Lost),
        8 => (any::<u16>(), seconds, body()).prop_map(|(status, retry_after, body)| ProviderReply::Answered {
            status,
            retry_after,
            body: body.into(),
        }),
    ]
}

/// Times around now, the beginning and the end of time.
fn time() -> impl Strategy<Value = Unix> {
    let offset = -200_000_i64..200_000;
    prop_oneof![
        8 => offset.prop_map(|by| Unix(START.saturating_add_signed(by))),
        1 => Just(Unix(0)),
        1 => Just(Unix(u64::MAX)),
    ]
}

fn doubt() -> impl Strategy<Value = Doubt> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (time(), proptest::option::of(time()), flags).prop_map(|(since, late_until, (last_try, conflict, dead))| Doubt {
        since,
        late_until,
        last_try,
        conflict,
        dead,
        reason: String::new(),
    })
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Redeem),
        Just(Purpose::Grace),
        Just(Purpose::LastTry),
        Just(Purpose::Alternate)
    ]
}

fn claim() -> impl Strategy<Value = Claim> {
    let who = (prop_oneof![Just("a"), Just("b")], 0_u64..3);
    let what = (purpose(), any::<bool>(), any::<bool>());
    (who, what, time(), time()).prop_map(
        |((node, run), (purpose, for_device, handed), taken_at, expires_at)| Claim {
            lease: LeaseId(Uuid::from_u128(7)),
            fence: 3,
            holder: holder(node, run),
            purpose,
            taken_at,
            expires_at,
            for_device,
            handed_to: (for_device && handed).then_some(DeviceId(Uuid::from_u128(1))),
        },
    )
}

fn record() -> impl Strategy<Value = GrantRecord> {
    let health = prop_oneof![
        4 => Just(Health::Ok),
        4 => Just(Health::Suspect),
        1 => Just(Health::ReauthRequired),
        1 => Just(Health::Deleted)
    ];
    let tokens_of = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::option::of(time()),
    );
    let rest = (
        proptest::option::of(claim()),
        proptest::option::of(doubt()),
        proptest::option::of(time()),
    );
    (health, tokens_of, rest).prop_map(
        |(health, (access, refresh, alternate, expires), (claim, doubt, retry_at))| {
            let mut held = tokens("1", None);
            held.access_token = held.access_token.filter(|_| access);
            held.refresh_token = held.refresh_token.filter(|_| refresh);
            GrantRecord {
                revision: 9,
                version: Version(1),
                seq: Seq(1),
                health,
                reason: None,
                retry_at,
                tokens: (health != Health::Deleted).then_some(held),
                expires_at: expires,
                refreshed_at: Unix(START),
                cause: Cause::Refresh,
                due_at: None,
                claim,
                fence: 3,
                leases: Vec::new(),
                former_leases: Vec::new(),
                committed_by: None,
                doubt,
                alternate: alternate.then(|| tokens("other", None)),
                rejected_in_a_row: 0,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a provider answers is judged, and what may have been processed is never called "not processed".
    #[test]
    fn an_unknown_outcome_is_never_called_not_processed(reply in reply()) {
        let row = row_of(&reply);
        match &reply {
            ProviderReply::Lost(_) => prop_assert_eq!(row, "unknown"),
            ProviderReply::NotSent(_) => prop_assert_eq!(row, "not_processed"),
            ProviderReply::Answered { status, .. } => {
                let may_be = matches!(status, 200..=299 | 408 | 502 | 504 | 0..=199 | 600..);
                prop_assert!(!(may_be && matches!(row, "not_processed" | "rate_limited")), "{} is {}", status, row);
                prop_assert!(row != "committed" || (200..=299).contains(status), "{} is {}", status, row);
            }
        }
    }

    /// Whatever the record: the machine says something, does at most one redeem, and comes to rest.
    #[test]
    fn there_is_always_something_to_do_or_to_say(record in record(), grace in 0_u64..60, by_device in any::<bool>()) {
        let policy = Policy {
            grace: secs(grace),
            reject_interval: secs(0),
            refresher: if by_device { Refresher::Device } else { Refresher::Hub },
            ..Policy::default()
        };
        let mut b = Bench::new(policy);
        b.store.record = Some(record.clone());
        b.operator(10);
        let asks = |order: &Command| matches!(order, Command::AskCandidates);
        for _ in 0..3 {
            if b.orders.iter().any(asks) {
                b.orders.retain(|order| !asks(order));
                b.handle(Input::Candidates { here: Vec::new(), others: false });
            }
        }
        prop_assert!(b.redeems() <= 1);
        let deleted = matches!(record.health, Health::ReauthRequired | Health::Deleted);
        prop_assert!(!deleted || b.redeems() == 0, "nothing is sent of a grant that is over");
        prop_assert!(
            b.redeems() == 1 || b.replies.len() == 1 || b.grant.next_timeout().is_some(),
            "it waits for nothing"
        );
        if b.redeems() == 0 {
            b.pass(secs(600));
            let asked_again = b.orders.iter().any(asks);
            prop_assert!(asked_again || b.redeems() == 1 || b.replies.len() == 1, "nobody is told");
        }
    }

    /// A token is shown only if nothing says that it is dead.
    #[test]
    fn what_is_known_to_be_dead_is_not_servable(record in record()) {
        let now = Unix(START);
        let servable = crate::grant::view::is_servable(&record, now);
        let dead = record.doubt.as_ref().is_some_and(|doubt| doubt.dead);
        let over = matches!(record.health, Health::ReauthRequired | Health::Deleted);
        let expired = record.expires_at.is_some_and(|at| at <= now);
        prop_assert!(!servable || !(dead || over || expired));
    }
}

#[test]
fn a_reader_is_no_witness() {
    let mut b = Bench::with_grant(Policy::default());
    b.ask(10, Asker::Reader, Some(1));
    b.provider(ProviderReply::Lost("cut".to_owned()));
    b.take_replies();
    for waiter in 20..25 {
        b.ask(waiter, Asker::Reader, Some(1));
    }
    assert_eq!(b.redeems(), 0);
}
