//! The simulation finds bugs: each deliberate mistake of [`Broken`] is caught within a bounded number of seeds.

use super::{
    hunt::{hunt, shrink},
    script::Script,
    world::run,
};
use crate::grant::broken::Broken;

/// Within how many seeds a mistake must be found.
const SEEDS: u64 = 20_000;

/// Finds the mistake, shows the shrunk run, and shows that the sound engine passes it.
fn is_caught(broken: Broken, promises: &[&str]) {
    let (found, tally) = hunt(0, SEEDS, Some(broken), &|| true);
    let Some(seed) = found else {
        panic!("{broken:?} is not found in {} schedules", tally.schedules);
    };
    let found = shrink(seed, Some(broken));
    let violation = found.violation().expect("a shrunk run breaks the same promise");
    println!(
        "{broken:?} after {} schedules, seed {seed}: {violation}",
        tally.schedules
    );
    let known = promises.iter().any(|promise| violation.promise.starts_with(promise));
    assert!(known, "{broken:?} breaks {promises:?}, not:\n{found}");
    assert_eq!(
        run(&Script::of(seed), None, false).violation,
        None,
        "without the mistake"
    );
}

#[test]
fn a_redeem_sent_late_is_caught() {
    is_caught(Broken::SendLate, &["P1"]);
}

#[test]
fn a_hand_over_before_it_is_durable_is_caught() {
    is_caught(Broken::HandBeforeDurable, &["P1"]);
}

#[test]
fn silence_taken_for_an_outcome_is_caught() {
    is_caught(Broken::SilenceIsNo, &["P1"]);
}

#[test]
fn a_claim_given_back_while_its_redeem_is_under_way_is_caught() {
    is_caught(Broken::LeaveUnderWay, &["P1"]);
}

#[test]
fn a_forgotten_doubt_is_caught() {
    is_caught(Broken::ForgetDoubt, &["P1"]);
}

#[test]
fn a_replay_in_doubt_is_caught() {
    is_caught(Broken::ReplayInDoubt, &["P1"]);
}

#[test]
fn a_grace_that_never_ends_is_caught() {
    is_caught(Broken::GraceFromNewest, &["P1"]);
}

#[test]
fn a_grant_blamed_for_an_outage_is_caught() {
    is_caught(Broken::BlameTheGrant, &["P8"]);
}

#[test]
fn a_push_before_the_commit_is_caught() {
    is_caught(Broken::PushBeforeCommit, &["P2"]);
}

#[test]
fn a_result_dropped_because_the_store_refused_it_is_caught() {
    is_caught(Broken::DropRefused, &["P5"]);
}

#[test]
fn a_result_dropped_because_the_store_was_silent_is_caught() {
    is_caught(Broken::DropUnknown, &["P5"]);
}

#[test]
fn a_dropped_second_result_is_caught() {
    is_caught(Broken::DropSecond, &["P5"]);
}

#[test]
fn a_refused_late_result_is_caught() {
    is_caught(Broken::RefuseLate, &["P5"]);
}

#[test]
fn an_old_reading_that_undoes_a_newer_one_is_caught() {
    is_caught(Broken::BelieveOldReadings, &["P3"]);
}

#[test]
fn forgotten_waiters_are_caught() {
    is_caught(Broken::ForgetWaiters, &["P8"]);
}
