//! What the simulation found in the engine, each bug as the smallest run that shows it. The seeds are in the documentation of
//! [`crate::sim`].

use lockstep_protocol::{Code, LeaseId, Version};

use super::{claim_of, code, health, policy, strict};
use crate::{
    grant::{Ask, Asker, ClaimAnswer, Command, Input, ProviderReply, Trouble},
    policy::{Policy, Refresher},
    record::{Claim, Doubt, Health, Purpose},
    sim::bench::{Bench, answered, holder, issued, secs},
};

fn ask(by: Asker) -> Input {
    Input::Ask(Ask {
        waiter: None,
        by,
        rejected: None,
    })
}

fn doubt(b: &Bench) -> Doubt {
    Doubt {
        since: b.now.unix,
        late_until: Some(b.now.unix + secs(3)),
        last_try: false,
        conflict: true,
        dead: false,
        reason: "invalid_grant".to_owned(),
    }
}

/// Another node claims and writes a verdict that raises no seq: nobody tells this one.
fn quiet_verdict_elsewhere(b: &mut Bench) {
    let claim = claim_of(b, "b", 1, Purpose::Redeem);
    let verdict = crate::grant::Verdict {
        tell: false,
        health: Health::Ok,
        reason: None,
        retry_at: None,
        due_at: None,
        doubt: Some(doubt(b)),
        drop_alternate: false,
    };
    let (fence, now) = (b.record().fence, b.now.unix);
    assert!(
        b.store
            .settle(&holder("b", 1), claim.lease, (Version(1), fence), verdict, now)
    );
}

#[test]
fn a_claim_decided_on_an_old_reading_does_not_undo_a_doubt() {
    let mut b = strict();
    quiet_verdict_elsewhere(&mut b);
    b.operator(10);
    b.pass(secs(2));
    assert_eq!(b.redeems(), 0, "another node was told that it is used up");
    b.pass(secs(3));
    assert_eq!(
        (code(&mut b), health(&b)),
        (Code::ReauthRequired, Health::ReauthRequired)
    );
}

#[test]
fn a_verdict_decided_on_an_old_reading_is_decided_anew() {
    let mut b = strict();
    b.store.record.as_mut().unwrap().tokens.as_mut().unwrap().refresh_token = None;
    b.store.record.as_mut().unwrap().expires_at = Some(b.now.unix);
    b.store.record.as_mut().unwrap().revision += 1;
    b.handle(Input::Read(Ok(b.store.read())));
    quiet_verdict_elsewhere(&mut b);
    b.operator(10);
    assert_eq!(
        b.take_replies(),
        [],
        "the verdict did not count, so nobody is told of it"
    );
    b.pass(secs(2));
    assert_eq!(
        (code(&mut b), health(&b)),
        (Code::ReauthRequired, Health::ReauthRequired)
    );
    assert!(
        b.record().doubt.as_ref().is_some_and(|doubt| doubt.conflict),
        "the other's doubt stands"
    );
}

#[test]
fn another_nodes_wish_does_not_make_a_claim_of_the_scheduler_spin() {
    let mut b = Bench::with_grant(Policy {
        refresher: Refresher::Device,
        ..policy()
    });
    b.handle(ask(Asker::Node));
    let claim = claim_of(&mut b, "a", 1, Purpose::Redeem);
    let record = Box::new(b.record().clone());
    let asked = b.now.mono;
    b.handle(Input::ClaimedAhead { record, asked });
    for _ in 0..4 {
        let asks = |order: &Command| matches!(order, Command::AskCandidates);
        if b.orders.iter().any(asks) {
            b.orders.retain(|order| !asks(order));
            let here = Vec::new();
            b.handle(Input::Candidates { here, others: false });
        }
    }
    assert_eq!(b.provider(issued("2")), "rt-1", "the hub last");
    assert_ne!(b.record().committed_by, Some(claim.lease));
}

#[test]
fn a_claim_that_turns_up_late_does_not_hide_the_doubt_before_it() {
    let mut b = Bench::with_grant(Policy {
        grace: secs(10),
        ..policy()
    });
    b.operator(10);
    let first = b.record().claim.clone().unwrap();
    b.trouble = None;
    // The redeem is lost; the claim for the replay is written, but the node is told nothing and reads too early.
    let (lease, _) = b.redeem();
    b.store_answers = false;
    b.reply(lease, ProviderReply::Lost("cut".into()));
    b.pass(secs(1));
    let replay = b.take_claim();
    b.handle(Input::Claimed {
        lease: replay.lease,
        answer: ClaimAnswer::Trouble(Trouble::Unknown("cut".into())),
    });
    b.store_answers = true;
    b.handle(Input::Read(Ok(b.store.read())));
    let now = b.now.unix;
    assert_eq!(b.store.claim(replay, now), Some(true), "it takes effect after all");
    for _ in 0..60 {
        b.pass(secs(1));
        if b.redeems() > 0 {
            assert!(b.now.unix < first.taken_at + secs(10), "a replay after the window");
            b.provider(ProviderReply::Lost("cut".into()));
        }
    }
    assert_eq!((code(&mut b), health(&b)), (Code::Suspect, Health::Suspect));
    assert_eq!(b.record().doubt.as_ref().unwrap().since, first.taken_at);
}

#[test]
fn a_claim_of_the_scheduler_that_nobody_can_use_is_ended() {
    let mut b = Bench::with_grant(Policy {
        refresher: Refresher::Device,
        hub_may_redeem: false,
        ..policy()
    });
    claim_of(&mut b, "a", 1, Purpose::Redeem);
    let record = Box::new(b.record().clone());
    let asked = b.now.mono;
    b.handle(Input::ClaimedAhead { record, asked });
    b.handle(Input::Candidates {
        here: Vec::new(),
        others: false,
    });
    assert_eq!(b.record().claim, None::<Claim>, "no lock stays behind");
}

#[test]
fn an_answer_to_one_renewal_is_not_taken_for_that_to_a_later_one() {
    let mut b = strict();
    b.operator(10);
    b.provider(answered(503, ""));
    b.store_answers = false;
    // Long after the first renewal was asked for its answer comes: it shows the lease as of then, and that is too long ago.
    b.pass(secs(2));
    let renewals = b.renewals();
    assert_eq!(renewals.len(), 1, "one at a time");
    b.pass(secs(6));
    assert_eq!(b.renewals().len(), 1);
    b.store_answers = true;
    let lease: LeaseId = renewals[0];
    b.handle(Input::Renewed { lease, held: Ok(true) });
    let proven_just_now = b.redeems();
    assert_eq!(proven_just_now, 1, "shown once more, and then sent");
}

#[test]
fn a_silent_device_may_still_report_within_late_wait() {
    // The claim as this node knows it does not say yet that a device was given the refresh token.
    let mut b = Bench::with_grant(Policy {
        refresher: Refresher::Device,
        ..policy()
    });
    super::elections::let_one_redeem(&mut b);
    b.pass(secs(60));
    let until = b.record().doubt.as_ref().unwrap().late_until;
    assert!(until.is_some_and(|until| until > b.now.unix), "{until:?}");
}

#[test]
fn nobody_to_redeem_is_no_news_of_a_grant_that_was_given_up_meanwhile() {
    let mut b = Bench::with_grant(Policy {
        refresher: Refresher::Device,
        hub_may_redeem: false,
        ..policy()
    });
    b.operator(10);
    b.handle(Input::Candidates {
        here: Vec::new(),
        others: true,
    });
    let record = b.store.record.as_mut().unwrap();
    record.health = Health::ReauthRequired;
    record.reason = Some("invalid_grant".to_owned());
    record.revision += 1;
    b.pass(secs(3));
    let (_, code, message, _) = super::failure(&mut b);
    assert_eq!((code, message.as_str()), (Code::ReauthRequired, "invalid_grant"));
    assert_eq!(b.record().retry_at, None);
}
