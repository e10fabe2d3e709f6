//! The torture run: hubs killed and paused, Redis killed, stopped and emptied, PostgreSQL stopped as by a loss of power,
//! links cut and silenced, while tokens of six seconds rotate; and the rolling restart, in which nothing may be lost.
//!
//! The same plan runs over proxies and, with packets that vanish, between networks (`torture_breaks_no_promise_over_networks`).
//!
//! ```sh
//! LOCKSTEP_TORTURE_SECONDS=3600 LOCKSTEP_TORTURE_SEED=7 cargo test -p lockstep-tests torture -- --nocapture
//! ```

use std::{collections::BTreeMap, time::Duration};

use lockstep_tests::{
    Answer, Session, Weather,
    admin::http,
    eventually,
    network::{Island, apart},
    torture::{Arena, Chaos, Ground, Verdict, Wire, converge, history, judge, torment},
};
use rustix::process::Signal;

/// How long after the last repair every device holds the newest: a lease, a late wait, a reconnect, a slow machine.
const CONVERGED_WITHIN: Duration = Duration::from_secs(90);
/// Long enough for nothing to be due while the run is judged.
const LONG_LIFE: Duration = Duration::from_secs(3600);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// From here on tokens live long: what is held at the end stays.
fn calm(arena: &Arena) {
    for provider in [&arena.graceful, &arena.strict] {
        provider.rules(|rules| rules.ttl = Some(LONG_LIFE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn torture_breaks_no_promise() {
    torture("torture_breaks_no_promise", Ground::Proxies, 120).await;
}

#[test]
fn torture_breaks_no_promise_over_networks() {
    let name = "torture_breaks_no_promise_over_networks";
    apart(&format!("torture::{name}"), async || {
        torture(name, Ground::Islands, 300).await;
    });
}

async fn torture(test: &str, ground: Ground, usual: u64) {
    let seconds = number("LOCKSTEP_TORTURE_SECONDS").unwrap_or(usual);
    let seed = number("LOCKSTEP_TORTURE_SEED").unwrap_or_else(rand::random);
    let replay = format!(
        "LOCKSTEP_TORTURE_SECONDS={seconds} LOCKSTEP_TORTURE_SEED={seed} cargo test -p lockstep-tests {test} -- --nocapture"
    );
    eprintln!("to replay: {replay}");
    let mut arena = Arena::start(ground, "4s").await;
    let mut chaos = torment(&mut arena, seed, Duration::from_secs(seconds)).await;
    calm(&arena);
    // A redeem that is under way even now may be the last one of its grant.
    let logs_in = async || chaos.log_in_the_last(&arena).await;
    let took = converge(&arena, CONVERGED_WITHIN, logs_in).await;
    let verdict = judge(&arena, &chaos.events);
    tell(&arena, &chaos, &verdict);
    eprintln!("converged {took:?} after the last repair");
    assert_lawful(&arena, &chaos, &verdict, &replay);
}

fn tell(arena: &Arena, chaos: &Chaos, verdict: &Verdict) {
    let mut kinds = BTreeMap::new();
    for event in &chaos.events {
        let kind = format!("{:?}", event.what);
        let kind = kind.split('(').next().unwrap_or_default().to_owned();
        *kinds.entry(kind).or_insert(0) += 1;
    }
    eprintln!(
        "broken: {kinds:?}\nfound: {verdict:#?}\nlogins made necessary: {}",
        chaos.lost.len()
    );
    let islands = arena.nodes.iter().filter_map(|node| node.island.as_ref());
    let counts: Vec<(u64, u64)> = islands.map(Island::counts).collect();
    if !counts.is_empty() {
        eprintln!("packets that passed, and that vanished, by node: {counts:?}");
        assert!(
            counts.iter().any(|(_, vanished)| *vanished > 0),
            "the weather was better than it should be"
        );
    }
}

fn assert_lawful(arena: &Arena, chaos: &Chaos, verdict: &Verdict, replay: &str) {
    assert!(
        verdict.faults.is_empty(),
        "{} faults, the first: {}\nreplay: {replay}",
        verdict.faults.len(),
        verdict.faults[0]
    );
    let lost = chaos.lost.iter().filter(|lost| lost.graceful);
    let lost: Vec<_> = lost.map(|lost| history(arena, lost, &chaos.events)).collect();
    assert!(
        lost.is_empty(),
        "lost at the provider with a grace:\n{}\nreplay: {replay}",
        lost.join("\n")
    );
    assert!(
        verdict.versions > 50 && verdict.frames > 500,
        "something rotated: {verdict:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_redeems_nothing_twice() {
    // Longer than the test itself may stand still: no redeem is to be made twice.
    let mut arena = Arena::start(Ground::Proxies, "15s").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for nth in 0..arena.nodes.len() {
        let hub = &mut arena.nodes[nth].hub;
        hub.signal(Signal::TERM);
        let status = hub.ended(Duration::from_secs(60)).await;
        assert!(status.success(), "{status}");
        hub.start_again().await;
        let admin = hub.admin();
        eventually("the restarted node is ready", Duration::from_secs(30), async || {
            let ready = admin.anonymous(reqwest::Method::GET, "/readyz").send().await;
            ready.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
    }
    calm(&arena);
    let took = converge(&arena, CONVERGED_WITHIN, async || ()).await;
    let verdict = judge(&arena, &[]);
    eprintln!("found: {verdict:#?}\nconverged {took:?} after the last restart");
    assert_eq!((verdict.faults.as_slice(), verdict.repeats), ([].as_slice(), 0));
    assert!(verdict.versions > 30, "{verdict:?}");
    for user in &arena.users {
        let seen = user.devices.iter().flat_map(lockstep_tests::Follower::seen);
        let bad: Vec<_> = seen
            .filter(|seen| seen.frame["health"] == "reauth_required" || seen.frame["health"] == "suspect")
            .collect();
        assert!(bad.is_empty(), "{}: {bad:?}", user.name);
    }
}

/// A device may have heard of a version from one node before another node has, and the other may be cut off from the
/// store: it shows nothing older then (promise P3).
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_shows_a_device_nothing_older() {
    let arena = Arena::start(Ground::Proxies, "4s").await;
    let (ahead, behind) = (&arena.nodes[0], &arena.nodes[1]);
    let user = &arena.users[0];
    let device = ahead.hub.admin().enrol(&user.name).await;
    let mut first = Session::fresh(&behind.hub, &device).await;
    let known = first.until("a token", |frame| frame["type"] == "token").await["version"].as_u64();
    for wire in [Wire::Postgres, Wire::Redis] {
        behind.turn(wire, Weather::Silent);
    }
    let mut second = Session::fresh(&ahead.hub, &device).await;
    let newer = second
        .until("a newer token", |frame| {
            frame["type"] == "token" && frame["version"].as_u64() > known
        })
        .await;
    let cursor = second.cursor().expect("a cursor");

    let (third, welcome) = Session::connect(&behind.hub, &device, Some(&cursor)).await;
    assert_eq!(welcome["resume"], "uptodate", "{welcome}");
    let older: Vec<_> = third
        .frames
        .iter()
        .filter(|frame| frame["seq"].as_u64() < newer["seq"].as_u64() && frame["seq"].is_u64())
        .collect();
    assert!(older.is_empty(), "{older:?}");
    let request = http().get(behind.hub.url(&format!("/v1/tokens?after={cursor}&wait=0")));
    Answer::to(request.bearer_auth(&device.access_token)).await.expect(204);

    for wire in [Wire::Postgres, Wire::Redis] {
        behind.turn(wire, Weather::Fair);
    }
    let (mut third, _) = Session::connect(&behind.hub, &device, Some(&cursor)).await;
    let seq = newer["seq"].as_u64();
    third
        .until("what comes next", |frame| {
            frame["type"] == "token" && frame["seq"].as_u64() > seq
        })
        .await;
}
