//! Nodes whose clocks are wrong, each in its own way: what they decide together is as if all were right.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lockstep_tests::{
    Cluster, Follower, GRANT, Session, Skew,
    cluster::HEALED,
    device::{all_reach, assert_lawful},
    provider::{Outcome, Rules},
};

/// How long tokens live.
const LIFE: Duration = Duration::from_secs(8);
/// How wrong clocks are, in seconds.
const MINUTE: i64 = 60;
/// How much of a difference may be the machine's doing: far less than how wrong the clocks are.
const SLOW: i64 = 20;
const USERS: usize = 6;

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).expect("a date of these centuries")
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

/// Three nodes, of which the second is a minute ahead and the third a minute behind.
async fn disagreeing() -> (Cluster, [Skew; 2]) {
    let rules = Rules {
        ttl: Some(LIFE),
        ..Rules::default()
    };
    let mut cluster = Cluster::with(3, true, rules, |settings| settings.example("lead", "2s")).await;
    let clocks = [Skew::of(MINUTE), Skew::of(-MINUTE)];
    for (node, clock) in clocks.iter().enumerate() {
        let hub = &mut cluster.hubs[node + 1];
        hub.surround(clock.environment());
        hub.crash().await;
    }
    cluster.all_say("ok").await;
    (cluster, clocks)
}

/// How wrong a node's own clock is: HTTP answers carry the machine's time (RFC 9110 section 6.6.1).
async fn off_by(cluster: &Cluster, node: usize) -> i64 {
    let date = cluster.readyz(node).await;
    let date = date.header("date").expect("a date in every answer").to_owned();
    let date = httpdate::parse_http_date(&date).expect("a date");
    seconds(date) - now()
}

async fn assert_off_by(cluster: &Cluster, node: usize, wanted: i64) {
    let off = off_by(cluster, node).await;
    assert!(
        (off - wanted).abs() < SLOW,
        "node {node} is {off} s off, and should be {wanted}"
    );
}

/// A device at each node, and one that polls there.
async fn devices(cluster: &Cluster, user: &str) -> Vec<Follower> {
    let mut devices = Vec::new();
    for (node, hub) in cluster.hubs.iter().enumerate() {
        devices.push(Follower::start(hub.listen, cluster.admin(node).enrol(user).await));
        let poller = cluster.admin(node).enrol(user).await;
        devices.push(Follower::polling(vec![hub.listen], poller));
    }
    devices
}

/// Waits until every user's token was renewed twice.
async fn rotate(fleet: &[Vec<Follower>]) {
    let version = |devices: &Vec<Follower>| devices.iter().map(|device| device.version(GRANT)).max();
    let then: Vec<u64> = fleet.iter().filter_map(version).collect();
    for (devices, then) in fleet.iter().zip(then) {
        all_reach(devices, GRANT, then + 2, HEALED).await;
    }
}

/// What a device is told of expiries is true by the true clock, whichever node tells it, and nothing is ever in doubt.
fn assert_true(device: &Follower, user: &str) {
    let life = i64::try_from(LIFE.as_secs()).expect("seconds");
    for seen in device.seen() {
        let frame = &seen.frame;
        let at = now() - i64::try_from(seen.at.elapsed().as_secs()).expect("seconds");
        if let Some(expires_at) = frame["expires_at"].as_i64() {
            let left = expires_at - at;
            assert!(
                (-SLOW..life + SLOW).contains(&left),
                "{user}: {left} s are left of {frame}"
            );
        }
        let health = frame["health"].as_str().unwrap_or("ok");
        assert!(matches!(health, "ok" | "refreshing"), "{user}: {frame}");
    }
}

/// Each refresh token was sent once, and none too early.
fn assert_sparing(cluster: &Cluster, user: &str, began: Instant) {
    let mut sent: HashMap<String, usize> = HashMap::new();
    let calls = cluster.provider.calls_of(user);
    for call in &calls {
        assert_eq!(call.outcome, Outcome::Issued, "{user}");
        *sent.entry(call.refresh_token.clone()).or_default() += 1;
    }
    assert!(sent.values().all(|times| *times == 1), "{user}: {sent:?}");
    // A token is renewed in the second half of its life. A node that believed a wrong clock would do it all the time.
    let most = began.elapsed().as_secs() * 2 / LIFE.as_secs() + 2;
    assert!(
        calls.len() as u64 <= most,
        "{user}: {} redeems, {most} would be many",
        calls.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_a_minute_ahead_and_behind_rotate_as_one() {
    let began = Instant::now();
    let (cluster, clocks) = disagreeing().await;
    for (node, off) in [0, MINUTE, -MINUTE].into_iter().enumerate() {
        assert_off_by(&cluster, node, off).await;
    }
    let users: Vec<String> = (0..USERS).map(|nth| format!("user-{nth}")).collect();
    let mut fleet = Vec::new();
    for user in &users {
        let device = cluster.user(user).await;
        // What a node signs is good at all others.
        for node in 0..3 {
            let enrolled = cluster.admin(node).enrol(user).await;
            for other in 0..3 {
                cluster.poll(other, &enrolled, "").await.expect(200);
            }
            let (_, welcome) = Session::connect(&cluster.hubs[node], &device, None).await;
            let time = welcome["time"].as_i64().expect("a time");
            assert!((time - now()).abs() < SLOW, "node {node} says {time}");
        }
        fleet.push(devices(&cluster, user).await);
    }
    rotate(&fleet).await;
    // Clocks that are set while the nodes run, by two minutes, in the middle of a token's life. Again and again: the
    // store's clock is read often enough to hide one time, but not all of them.
    for ahead in [-MINUTE, MINUTE, -MINUTE] {
        clocks[0].set(ahead);
        clocks[1].set(-ahead);
        rotate(&fleet).await;
    }
    // Not of the one that was set back: until its clock is where it was, its HTTP library repeats the last date.
    assert_off_by(&cluster, 2, MINUTE).await;

    for (user, devices) in users.iter().zip(&fleet) {
        assert_lawful(devices, &cluster.provider);
        assert_sparing(&cluster, user, began);
        devices.iter().for_each(|device| assert_true(device, user));
        assert!(!cluster.provider.is_revoked(user), "{user}");
    }
    eprintln!(
        "{} redeems for {USERS} users in {:?}",
        cluster.provider.calls().len(),
        began.elapsed()
    );
}
