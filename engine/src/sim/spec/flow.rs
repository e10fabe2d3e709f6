//! The rules of the design, one test each, on one machine.

use lockstep_protocol::{Code, Version};

use crate::sim::bench::{Bench, START, answered, issued, secs, tokens};
use crate::{
    grant::{Asker, Command, Reply, Trouble},
    policy::Policy,
    record::{Health, TokenSet},
    time::Unix,
};

fn bench() -> Bench {
    Bench::with_grant(Policy {
        reject_interval: secs(0),
        ..Policy::default()
    })
}

#[test]
fn a_refresh_runs_from_claim_to_push_and_answer() {
    let mut b = bench();
    b.operator(10);
    assert!(
        b.record().claim.is_some(),
        "the claim is written before anything is sent"
    );
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_pushed(), [2]);
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    assert!(matches!(b.orders[..], [Command::ReturnPermit]), "{:?}", b.orders);
    assert_eq!(b.record().tokens, Some(tokens("2", Some(START + 3_600_000))));
    assert!(b.grant.is_idle());
}

#[test]
fn all_who_want_the_same_version_gone_share_one_redeem() {
    let mut b = bench();
    for n in 0..100 {
        b.reject(100 + n, n, 1);
    }
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies().len(), 100);
    b.reject(300, 3, 1);
    assert_eq!(
        b.take_replies(),
        [(300, Reply::Done(Version(2)))],
        "the loser adopts the winner's token"
    );
    assert_eq!(b.redeems(), 0);
}

#[test]
fn an_outage_is_tried_three_times_and_then_told_with_a_time() {
    let mut b = bench();
    b.operator(10);
    b.provider(answered(503, ""));
    b.pass(secs(2));
    b.provider(answered(500, "<html>oops</html>"));
    b.pass(secs(3));
    b.provider(answered(500, ""));
    let replies = b.take_replies();
    let [
        (
            10,
            Reply::Failed {
                code: Code::Unavailable,
                retry_at: Some(at),
                ..
            },
        ),
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert!(*at > b.now.unix && *at <= b.now.unix + secs(5));
    assert_eq!(b.record().due_at, Some(*at));
    assert_eq!(b.record().health, Health::Ok);
    assert_eq!(b.record().claim, None);
}

#[test]
fn a_login_without_access_token_is_redeemed_at_once() {
    let mut b = Bench::new(Policy::default());
    b.login(
        1,
        TokenSet {
            access_token: None,
            ..tokens("1", None)
        },
    );
    assert_eq!(b.take_replies(), []);
    assert_eq!(b.provider(issued("2")), "rt-1");
    assert_eq!(b.take_replies(), [(1, Reply::Done(Version(2)))]);
    assert_eq!(b.take_pushed(), [2]);
}

#[test]
fn a_deleted_grant_refuses_and_begins_again_above() {
    let mut b = bench();
    b.handle(crate::grant::Input::Delete {
        waiter: crate::grant::WaiterId(5),
    });
    assert_eq!(b.take_replies(), [(5, Reply::Deleted)]);
    b.operator(6);
    assert!(matches!(
        b.take_replies()[..],
        [(
            6,
            Reply::Failed {
                code: Code::UnknownGrant,
                ..
            }
        )]
    ));
    b.login(7, tokens("new", None));
    assert_eq!(b.take_replies(), [(7, Reply::Done(Version(2)))]);
}

#[test]
fn a_lost_answer_leaves_a_strict_grant_suspect_and_its_token_in_use() {
    let mut b = bench();
    b.operator(10);
    b.provider(crate::grant::ProviderReply::Lost("connection reset".into()));
    assert!(matches!(
        b.take_replies()[..],
        [(
            10,
            Reply::Failed {
                code: Code::Suspect,
                ..
            }
        )]
    ));
    assert_eq!(b.record().health, Health::Suspect);
    b.ask(11, Asker::Reader, Some(1));
    assert!(matches!(
        b.take_replies()[..],
        [(
            11,
            Reply::Failed {
                code: Code::Suspect,
                ..
            }
        )]
    ));
    assert_eq!(b.redeems(), 0, "nothing is replayed while the access token lives");
    b.pass(secs(3600));
    b.ask(12, Asker::Reader, Some(1));
    assert_eq!(b.provider(issued("2")), "rt-1", "one last try");
    assert_eq!(b.take_replies(), [(12, Reply::Done(Version(2)))]);
}

#[test]
fn a_conflict_ends_in_reauth_required_with_the_reason() {
    let mut b = bench();
    b.operator(10);
    b.provider(answered(400, r#"{"error":"invalid_grant"}"#));
    b.pass(secs(5));
    let replies = b.take_replies();
    let [
        (
            10,
            Reply::Failed {
                code: Code::ReauthRequired,
                message,
                ..
            },
        ),
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert!(message.contains("invalid_grant"), "{message}");
    assert_eq!(b.record().health, Health::ReauthRequired);
    assert!(b.grant.is_idle());
}

#[test]
fn a_commit_that_the_store_refuses_is_spooled_and_lands_later() {
    let mut b = bench();
    b.operator(10);
    b.trouble = Some(Trouble::Refused("disk full".into()));
    b.provider(issued("2"));
    assert!(b.orders.iter().any(|command| matches!(command, Command::Spool { .. })));
    assert!(matches!(
        b.take_replies()[..],
        [(
            10,
            Reply::Failed {
                code: Code::Unavailable,
                ..
            }
        )]
    ));
    b.pass(secs(10));
    assert_eq!(b.record().version, Version(2));
    let unspooled = |b: &Bench| b.orders.iter().any(|order| matches!(order, Command::Unspool { .. }));
    assert!(!unspooled(&b), "not before it is there: the order might overtake");
    assert!(!b.grant.is_idle());
    let lease = b.record().committed_by.unwrap();
    b.handle(crate::grant::Input::Spooled { lease, durable: true });
    assert!(unspooled(&b));
    assert!(b.grant.is_idle());
}

#[test]
fn a_commit_whose_answer_is_lost_is_read_again_and_recognised() {
    let mut b = bench();
    b.operator(10);
    b.trouble = Some(Trouble::Unknown("connection reset".into()));
    b.provider(issued("2"));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    assert_eq!(
        b.record().tokens.as_ref().unwrap().expires_at,
        Some(Unix(START + 3_600_000))
    );
}
