//! The table of outcomes, row by row.

use lockstep_protocol::{Code, Version};

use super::{code, failure, health, strict};
use crate::{
    grant::{Note, ProviderReply, Reply},
    record::Health,
    sim::bench::{Bench, answered, issued, secs},
};

fn lost() -> ProviderReply {
    ProviderReply::Lost("connection reset".into())
}

fn not_sent() -> ProviderReply {
    ProviderReply::NotSent("connection refused".into())
}

fn after(status: u16, seconds: u64) -> ProviderReply {
    ProviderReply::Answered {
        status,
        retry_after: Some(secs(seconds)),
        body: "".into(),
    }
}

/// A bench whose operator waits (as 10), and whose redeem was answered so.
fn answered_with(reply: ProviderReply) -> Bench {
    let mut b = strict();
    b.operator(10);
    b.provider(reply);
    b
}

#[test]
fn a_usable_answer_is_committed_and_pushed() {
    let mut b = answered_with(issued("2"));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    assert_eq!(b.take_pushed(), [2]);
}

#[test]
fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let b = answered_with(answered(200, r#"{"access_token":"at-2","token_type":"bearer"}"#));
    let tokens = b.record().tokens.clone().unwrap();
    assert_eq!(tokens.access_token, Some("at-2".into()));
    assert_eq!(tokens.refresh_token, Some("rt-1".into()));
    assert_eq!(tokens.expires_at, None, "nothing is known of its expiry");
    assert_eq!(b.record().due_at, None, "so it is never scheduled");
}

#[test]
fn what_was_not_processed_is_tried_three_times_in_a_round() {
    for reply in [not_sent(), answered(500, "<html>"), answered(503, "")] {
        let mut b = answered_with(reply.clone());
        for _ in 0..2 {
            assert_eq!(b.take_replies(), [], "{reply:?}: the round goes on");
            b.pass(secs(5));
            assert_eq!(b.provider(reply.clone()), "rt-1");
        }
        let (_, code, _, retry_at) = failure(&mut b);
        assert_eq!(code, Code::Unavailable);
        let at = retry_at.unwrap();
        assert!(at > b.now.unix && at <= b.now.unix + secs(5), "{reply:?}");
        assert_eq!((b.record().due_at, health(&b)), (Some(at), Health::Ok));
        b.pass(secs(60));
        assert_eq!(b.redeems(), 0, "the scheduler asks again, or somebody else");
    }
}

#[test]
fn a_short_retry_after_is_waited_for_within_the_round() {
    let mut b = answered_with(after(503, 4));
    b.pass(secs(3));
    assert_eq!(b.redeems(), 0);
    b.pass(secs(1));
    assert_eq!(b.redeems(), 1);
}

#[test]
fn a_long_retry_after_ends_the_round() {
    let mut b = answered_with(after(503, 600));
    let (_, code, _, retry_at) = failure(&mut b);
    assert_eq!((code, retry_at), (Code::Unavailable, Some(b.now.unix + secs(600))));
}

#[test]
fn a_429_is_obeyed_even_by_operators_and_never_counts_against_the_grant() {
    let mut b = answered_with(after(429, 60));
    assert_eq!(failure(&mut b).3, Some(b.now.unix + secs(60)));
    b.pass(secs(59));
    b.operator(11);
    assert_eq!((b.redeems(), code(&mut b)), (0, Code::Unavailable));
    b.pass(secs(1));
    b.operator(12);
    b.provider(after(429, 60));
    assert_eq!(health(&b), Health::Ok);
}

#[test]
fn an_outcome_that_nobody_knows_makes_a_strict_grant_suspect() {
    let unknown = [
        lost(),
        answered(408, ""),
        answered(502, "<html>bad gateway</html>"),
        answered(504, ""),
        answered(200, "<html>hello</html>"),
        answered(200, r#"{"token_type":"bearer"}"#),
    ];
    for reply in unknown {
        let mut b = answered_with(reply.clone());
        assert_eq!(code(&mut b), Code::Suspect, "{reply:?}");
        assert_eq!(health(&b), Health::Suspect);
        assert_eq!(b.redeems(), 0, "nothing is replayed");
    }
}

#[test]
fn a_conflict_adopts_what_is_newer_in_the_store() {
    let mut b = strict();
    b.operator(10);
    let (lease, _) = b.redeem();
    // Somebody committed meanwhile, and this node has not heard.
    let mut elsewhere = super::policy();
    elsewhere.lead = secs(1);
    let mut other = Bench::with_grant(elsewhere);
    other.operator(1);
    other.provider(issued("2"));
    b.store.record = other.store.record;
    b.store.record.as_mut().unwrap().revision += 100;
    b.reply(lease, answered(400, r#"{"error":"invalid_grant"}"#));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
    assert_eq!(health(&b), Health::Ok);
}

#[test]
fn a_conflict_waits_shortly_and_then_somebody_must_log_in() {
    let words = [
        (400, r#"{"error":"invalid_grant"}"#),
        (403, r#"{"error":"invalid_grant"}"#),
        (401, r#"{"error":{"code":"refresh_token_reused"}}"#),
        (400, r#"{"error":"refresh_token_expired"}"#),
        (200, r#"{"error":"bad_refresh_token"}"#),
    ];
    for (status, body) in words {
        let mut b = answered_with(answered(status, body));
        assert_eq!(b.take_replies(), [], "a late result or a login may come");
        assert_eq!(health(&b), Health::Ok);
        b.pass(secs(4));
        let (_, code, message, _) = failure(&mut b);
        assert_eq!(code, Code::ReauthRequired, "{status} {body}");
        assert!(message.contains(&format!("HTTP {status}")), "{message}");
        assert_eq!(health(&b), Health::ReauthRequired);
    }
}

#[test]
fn our_own_wrong_settings_are_never_blamed_on_the_grant() {
    let ours = [
        answered(401, r#"{"error":"invalid_client"}"#),
        answered(400, r#"{"error":"unauthorized_client"}"#),
        answered(400, r#"{"error":"unsupported_grant_type"}"#),
        answered(302, ""),
        answered(404, "<html>not found</html>"),
    ];
    for reply in ours {
        let mut b = answered_with(reply.clone());
        assert_eq!(code(&mut b), Code::Unavailable, "{reply:?}");
        assert_eq!((health(&b), b.record().due_at), (Health::Ok, None));
        assert!(
            b.notes.iter().any(|note| matches!(note, Note::Misconfigured { .. })),
            "an operator is alerted"
        );
        b.pass(secs(120));
        assert_eq!(b.redeems(), 0, "no retry");
    }
}

#[test]
fn any_other_refusal_is_tried_once_more_and_then_named() {
    for (status, body) in [(400, ""), (403, "<html>"), (418, r#"{"error":"teapot"}"#)] {
        let mut b = answered_with(answered(status, body));
        assert_eq!(b.take_replies(), []);
        b.pass(secs(10));
        b.provider(answered(status, body));
        let (_, code, message, _) = failure(&mut b);
        assert_eq!(code, Code::ReauthRequired);
        assert!(message.contains(&status.to_string()), "{message}");
        assert_eq!(message.contains("teapot"), body.contains("teapot"), "{message}");
        assert_eq!(health(&b), Health::ReauthRequired);
    }
}

#[test]
fn a_refusal_that_passes_is_forgiven() {
    let mut b = answered_with(answered(400, ""));
    b.pass(secs(10));
    b.provider(issued("2"));
    assert_eq!(b.take_replies(), [(10, Reply::Done(Version(2)))]);
}
