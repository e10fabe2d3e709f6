//! What overtakes what: readings that are old when they come, and requests while the store does not answer.

use lockstep_protocol::{Code, Version, frame::PublishedToken};

use super::bench::{Bench, answered, device, issued, secs};
use crate::{
    entropy::lease_id,
    grant::{Command, Input, PermitAnswer, Reply, Trouble, WaiterId},
    policy::Policy,
};

fn bench() -> Bench {
    Bench::with_grant(Policy {
        reject_interval: secs(0),
        ..Policy::default()
    })
}

fn code(replies: &[(u64, Reply)]) -> Option<Code> {
    match replies {
        [(_, Reply::Failed { code, .. })] => Some(*code),
        _ => None,
    }
}

/// Another node handed a lease out, and its holder publishes here. A reading that is older than that comes in between, for
/// another reason: the result is not turned away on its word (P5).
#[test]
fn an_old_reading_does_not_stand_for_the_one_that_was_ordered() {
    let mut b = bench();
    let old = b.store.read().unwrap();
    let lease = lease_id(&mut b.entropy);
    b.store.record.as_mut().unwrap().leases.push(lease);
    b.store.record.as_mut().unwrap().revision += 1;
    b.store_answers = false;

    b.handle(Input::Publish {
        waiter: WaiterId(20),
        device: device(1),
        lease,
        from_version: Version(1),
        token: Box::new(PublishedToken {
            access_token: "at-2".into(),
            refresh_token: Some("rt-2".into()),
            expires_in: Some(3600),
            scope: None,
            token_type: "Bearer".into(),
        }),
    });
    b.handle(Input::Seen(old));
    assert_eq!(b.take_replies(), [], "the store was not asked yet");

    b.store_answers = true;
    let newest = b.store.read();
    b.handle(Input::Read(Ok(newest)));
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(2)))]);
}

#[test]
fn a_reading_that_nobody_ordered_is_taken_for_what_it_is() {
    let mut b = bench();
    let mut newer = b.store.read().unwrap();
    newer.version = Version(5);
    newer.revision += 1;
    newer.seq.0 += 1;
    b.store.record = Some((*newer).clone());
    b.handle(Input::Seen(newer));
    assert_eq!(b.take_pushed(), [5]);
    b.reject(20, 1, 4);
    assert_eq!(b.take_replies(), [(20, Reply::Done(Version(5)))]);
}

#[test]
fn who_asks_while_a_verdict_cannot_be_written_is_told_at_once() {
    let mut b = bench();
    b.operator(10);
    let (lease, _) = b.redeem();
    b.trouble = Some(Trouble::Refused("disk full".into()));
    b.reply(lease, answered(400, r#"{"error":"invalid_client"}"#));
    assert_eq!(code(&b.take_replies()), Some(Code::Unavailable));
    b.reject(11, 1, 1);
    assert_eq!(
        code(&b.take_replies()),
        Some(Code::Unavailable),
        "and not in two minutes"
    );
    assert_eq!(b.redeems(), 0);
}

#[test]
fn who_asks_while_nothing_could_be_kept_is_told_at_once() {
    let mut b = bench();
    b.auto_permit = false;
    b.operator(10);
    assert!(matches!(b.orders[..], [Command::AskPermit]), "{:?}", b.orders);
    b.handle(Input::Permit(PermitAnswer::Refused {
        why: "no room in the spool".into(),
        again: secs(5),
    }));
    let replies = b.take_replies();
    let [
        (
            10,
            Reply::Failed {
                code,
                message,
                retry_at,
            },
        ),
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert_eq!((*code, message.as_str()), (Code::Unavailable, "no room in the spool"));
    assert_eq!(*retry_at, Some(b.now.unix + secs(5)));
    assert!(b.grant.is_idle());
}

#[test]
fn what_was_told_in_passing_holds_as_long_as_the_redeem() {
    let mut b = bench();
    b.operator(10);
    let (lease, _) = b.redeem();
    b.pass(secs(1));
    assert!(b.orders.iter().any(|order| matches!(order, Command::Announce(_))));
    assert!(b.grant.is_refreshing());
    b.reply(lease, issued("2"));
    assert!(!b.grant.is_refreshing());
}
