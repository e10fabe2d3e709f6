//! A provider's limits are the cluster's: however many nodes there are, it is asked for no more than was agreed.

use std::time::{Duration, Instant};

use lockstep_tests::{
    Cluster, Fault, GRANT, Link, Settings, Weather,
    cluster::HEALED,
    eventually,
    provider::{Call, Gate, Outcome, Rules},
};
use serde_json::json;
use url::Url;

const NODES: usize = 3;
const AT_ONCE: usize = 6;
const PER_SECOND: usize = 12;
/// The window over which the rate is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// How much later than it was allowed to a request may arrive, on a busy machine: so many seconds' worth may come on top.
const LATE: usize = 5;

/// Nodes whose calls can be told apart, and that wait as long as a test holds an answer back.
fn node(nth: usize, settings: Settings) -> Settings {
    settings
        .example("client_id", format!("node-{nth}"))
        .example("timeout", "35s")
        .example("lease", "45s")
        .example("grace", "600s")
}

fn rules() -> Rules {
    Rules {
        grace: Duration::from_secs(600),
        ..Rules::default()
    }
}

/// So many users, all of whom have a token that is about to expire.
async fn all_due(cluster: &Cluster, users: usize) -> Vec<String> {
    let names: Vec<String> = (0..users).map(|nth| format!("user-{nth}")).collect();
    for (nth, user) in names.iter().enumerate() {
        let pair = cluster.provider.login(user);
        let login = json!({
            "access_token": pair.access_token, "refresh_token": pair.refresh_token, "expires_in": 20,
        });
        cluster.admin(nth % NODES).login(user, GRANT, &login).await.expect(200);
    }
    names
}

fn sent_by(call: &Call) -> &str {
    call.parameters.get("client_id").map_or("", String::as_str)
}

/// Waits until the provider has exactly so many requests before it, from each node.
async fn in_flight(cluster: &Cluster, wanted: [usize; NODES]) {
    eventually(&format!("{wanted:?} requests in flight"), HEALED, async || {
        let calls = cluster.provider.calls();
        let count = |node: usize| {
            let of = |call: &&Call| call.over.is_none() && sent_by(call) == format!("node-{node}");
            calls.iter().filter(of).count()
        };
        ([0, 1, 2].map(count) == wanted).then_some(())
    })
    .await;
}

/// Waits until every user has a token of the provider's making.
async fn all_renewed(cluster: &Cluster, users: &[String]) {
    // A claim of a node that died is judged when it lapses; and all the others come first.
    eventually("every user was renewed", HEALED * 4, async || {
        let calls = cluster.provider.calls();
        let renewed = |user: &String| {
            calls
                .iter()
                .any(|call| call.family == *user && call.outcome == Outcome::Issued)
        };
        users.iter().all(renewed).then_some(())
    })
    .await;
}

/// The most requests that the provider had before it at one time.
fn most_at_once(calls: &[Call]) -> usize {
    let at = |moment: Instant| {
        let there = |call: &&Call| call.arrived <= moment && call.over.is_none_or(|over| over > moment);
        calls.iter().filter(there).count()
    };
    calls.iter().map(|call| at(call.arrived)).max().unwrap_or(0)
}

/// The most requests that came within `window`.
fn most_within(calls: &[Call], window: Duration) -> usize {
    let from = |start: Instant| {
        let within = |call: &&Call| call.arrived >= start && call.arrived < start + window;
        calls.iter().filter(within).count()
    };
    calls.iter().map(|call| from(call.arrived)).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_together_redeem_no_more_at_once_than_one_may() {
    let mut cluster = Cluster::with_each(NODES, true, rules(), |nth, settings| {
        node(nth, settings).example("max_concurrent", i64::try_from(AT_ONCE).expect("a small number"))
    })
    .await;
    cluster.all_count(&[0, 1, 2], 3).await;
    let gate = Gate::closed();
    cluster.provider.always(Some(Fault::HoldAfter(gate.clone())));
    let users = all_due(&cluster, 120).await;

    // Every node holds what it may, and gets no answer that would let it go on.
    in_flight(&cluster, [2, 2, 2]).await;
    cluster.hubs[2].kill9().await;
    in_flight(&cluster, [3, 3, 0]).await;

    gate.open();
    all_renewed(&cluster, &users).await;
    let calls = cluster.provider.calls();
    let most = most_at_once(&calls);
    eprintln!(
        "{} calls for {} users, at most {most} at once",
        calls.len(),
        users.len()
    );
    assert_eq!(most, AT_ONCE);
    assert!(cluster.provider.overlapping().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_together_redeem_no_faster_than_one_may() {
    // Without a Redis: nodes count each other all the same.
    let mut cluster = Cluster::with_each(NODES, false, rules(), |nth, settings| {
        node(nth, settings).example("max_concurrent", 300).example(
            "max_per_second",
            f64::from(u8::try_from(PER_SECOND).expect("a small number")),
        )
    })
    .await;
    cluster.all_count(&[0, 1, 2], 3).await;
    let began = Instant::now();
    let users = all_due(&cluster, 300).await;
    eventually("a third of them was renewed", HEALED * 2, async || {
        (cluster.provider.calls().len() > users.len() / 3).then_some(())
    })
    .await;
    cluster.hubs[2].kill9().await;
    let died = Instant::now();
    cluster.all_count(&[0, 1], 2).await;
    all_renewed(&cluster, &users).await;

    let calls = cluster.provider.calls();
    let since_death: Vec<Call> = calls.iter().filter(|call| call.arrived > died).cloned().collect();
    let seconds = usize::try_from(WINDOW.as_secs()).expect("a small number");
    let (most, after) = (most_within(&calls, WINDOW), most_within(&since_death, WINDOW));
    eprintln!(
        "{} calls in {:?}: at most {} within a second, {most} within {WINDOW:?}, {after} when a node had died",
        calls.len(),
        began.elapsed(),
        most_within(&calls, Duration::from_secs(1)),
    );
    // A second's worth may come at once after a pause, and each node rounds for itself.
    let allowed = PER_SECOND * (seconds + 1 + LATE) + NODES;
    assert!(most <= allowed, "{most} within {WINDOW:?}, and {allowed} are allowed");
    for node in ["node-0", "node-1"] {
        assert!(since_death.iter().any(|call| sent_by(call) == node), "{node} went on");
    }
    assert!(cluster.provider.overlapping().is_empty());
}

/// A store that swallows everything holds up whoever waits for it, and not the counting of nodes.
#[tokio::test(flavor = "multi_thread")]
async fn limits_are_shared_anew_while_the_store_is_silent() {
    let mut cluster = Cluster::with(NODES, true, rules(), |settings| settings).await;
    let url = Url::parse(&cluster.postgres.url()).expect("a URL");
    let link = Link::to(url.socket_addrs(|| None).expect("an address")[0]).await;
    for hub in &mut cluster.hubs {
        hub.change(|settings| settings.set("store.url", link.over(url.as_str())));
        hub.crash().await;
    }
    cluster.all_count(&[0, 1, 2], NODES).await;
    let mut sessions = Vec::new();
    for node in [0, 1] {
        let device = cluster.user(&format!("user-{node}")).await;
        sessions.push(cluster.session(node, &device).await);
    }

    link.turn(Weather::Silent);
    for session in &mut sessions {
        let answer = session.refresh(GRANT, 1).await;
        assert_eq!(answer["code"], "unavailable", "{answer}");
    }
    cluster.hubs[2].kill9().await;
    let died = Instant::now();
    cluster.all_count(&[0, 1], 2).await;
    eprintln!("the others knew it after {:?}, with a silent store", died.elapsed());

    link.turn(Weather::Fair);
    for session in &mut sessions {
        eventually("it redeems again", HEALED, async || {
            (session.refresh(GRANT, 1).await["version"] == 2).then_some(())
        })
        .await;
    }
}
