//! Logins, odd grants, and tombstones.

use lockstep_protocol::{Code, Version, frame::Cause};

use super::{claim_of, code, failure, health, strict};
use crate::{
    grant::{Asker, Input, Reply, WaiterId},
    policy::Policy,
    record::{Health, Purpose, TokenSet},
    sim::bench::{Bench, START, answered, issued, secs, tokens},
};

#[test]
fn the_current_token_again_changes_nothing() {
    let mut b = strict();
    let before = b.record().clone();
    b.login(5, tokens("1", None));
    assert_eq!(b.take_replies(), [(5, Reply::Done(Version(1)))]);
    assert_eq!(*b.record(), before);
}

#[test]
fn a_retired_one_is_refused() {
    let mut b = strict();
    b.operator(10);
    b.provider(issued("2"));
    b.take_replies();
    b.login(5, tokens("1", None));
    assert_eq!(
        (b.take_replies(), b.record().version),
        (vec![(5, Reply::Retired)], Version(2))
    );
}

#[test]
fn a_new_one_ends_claim_doubt_and_reauth_required() {
    let mut b = strict();
    b.operator(10);
    b.provider(answered(400, r#"{"error":"invalid_grant"}"#));
    b.pass(secs(5));
    assert_eq!(
        (code(&mut b), health(&b)),
        (Code::ReauthRequired, Health::ReauthRequired)
    );
    b.login(5, tokens("new", None));
    assert_eq!(b.take_replies(), [(5, Reply::Done(Version(2)))]);
    assert_eq!((health(&b), b.record().reason.clone()), (Health::Ok, None));
    claim_of(&mut b, "b", 1, Purpose::Redeem);
    b.login(6, tokens("newer", None));
    assert_eq!((b.record().claim.clone(), b.record().version), (None, Version(3)));
}

#[test]
fn a_redeem_under_way_is_overtaken_by_a_login() {
    let mut b = strict();
    b.operator(10);
    let (lease, _) = b.redeem();
    b.login(5, tokens("new", None));
    assert_eq!(
        b.take_replies(),
        [(10, Reply::Done(Version(2))), (5, Reply::Done(Version(2)))]
    );
    b.reply(lease, issued("old"));
    assert_eq!(b.record().tokens.as_ref().unwrap().refresh_token, Some("rt-new".into()));
}

#[test]
fn a_login_with_only_a_refresh_token_is_redeemed_before_it_is_answered() {
    let mut b = strict();
    let half = TokenSet {
        access_token: None,
        ..tokens("half", None)
    };
    b.login(5, half);
    assert_eq!((b.take_replies(), b.take_pushed()), (vec![], vec![]));
    assert_eq!(b.provider(issued("3")), "rt-half");
    assert_eq!(
        (b.take_replies(), b.take_pushed()),
        (vec![(5, Reply::Done(Version(3)))], vec![3])
    );
}

#[test]
fn a_grant_without_refresh_token_is_never_claimed_and_ends_at_expiry() {
    let mut b = Bench::new(Policy::default());
    let poor = TokenSet {
        refresh_token: None,
        ..tokens("1", Some(START + 60_000))
    };
    b.login(5, poor);
    b.take_replies();
    b.operator(6);
    assert_eq!((code(&mut b), b.record().claim.clone()), (Code::ReauthRequired, None));
    assert_eq!(health(&b), Health::Ok, "while the access token lives");
    b.pass(secs(61));
    b.ask(7, Asker::Scheduler, None);
    let (_, code, message, _) = failure(&mut b);
    assert_eq!((code, health(&b)), (Code::ReauthRequired, Health::ReauthRequired));
    assert!(message.contains("no refresh token"), "{message}");
    assert_eq!(b.record().fence, 1, "a verdict, and no claim");
}

#[test]
fn a_grant_without_expiry_is_never_scheduled() {
    let mut b = Bench::new(Policy::default());
    b.login(5, tokens("1", None));
    assert_eq!((b.record().expires_at, b.record().due_at), (None, None));
}

#[test]
fn a_grant_is_due_a_lead_before_it_expires_and_at_most_half_its_life() {
    for (life, from, to) in [(3600, 3300, 3330), (60, 30, 33)] {
        let mut b = Bench::new(Policy::default());
        b.login(5, tokens("1", Some(START + life * 1000)));
        let due = b.record().due_at.unwrap().0 - START;
        assert!((from * 1000..=to * 1000).contains(&due), "{due} of {life} s");
    }
}

#[test]
fn a_tombstone_keeps_the_version_for_the_grant_made_anew() {
    let mut b = strict();
    b.operator(10);
    b.provider(issued("2"));
    b.take_replies();
    b.handle(Input::Delete { waiter: WaiterId(5) });
    assert_eq!(b.take_replies(), [(5, Reply::Deleted)]);
    let tombstone = b.record();
    assert_eq!((tombstone.version, tombstone.tokens.clone()), (Version(2), None));
    b.login(6, tokens("new", None));
    assert_eq!(b.take_replies(), [(6, Reply::Done(Version(3)))]);
    assert_eq!((health(&b), b.record().cause), (Health::Ok, Cause::Login));
}

#[test]
fn those_who_wait_for_a_grant_that_is_deleted_are_told() {
    let mut b = strict();
    b.operator(10);
    b.handle(Input::Delete { waiter: WaiterId(5) });
    let replies = b.take_replies();
    assert!(
        matches!(
            &replies[..],
            [
                (
                    10,
                    Reply::Failed {
                        code: Code::UnknownGrant,
                        ..
                    }
                ),
                (5, Reply::Deleted)
            ]
        ),
        "{replies:?}"
    );
}
