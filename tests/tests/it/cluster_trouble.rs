//! Redis gone, PostgreSQL gone, PostgreSQL gone back in time: what several nodes do then, and that it heals.

use std::{fs, time::Duration};

use lockstep_tests::{
    BOUND, Cluster, Enrolled, Event, Fault, GRANT, Hub, Postgres, Session, Settings,
    cluster::{HEALED, holds},
    eventually,
    provider::{Gate, Rules},
};

/// How many results wait in a hub's spool.
fn results(hub: &Hub) -> usize {
    let spool = fs::read_dir(hub.dir().join("spool")).expect("the spool").flatten();
    let is_result = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "spool");
    spool.filter(is_result).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_one_redeem_answers_all_nodes_and_the_return_heals() {
    let mut cluster = Cluster::start().await;
    cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;
    let mut version = 1;
    let mut round = async |cluster: &Cluster, sessions: &mut [Session]| {
        let rejected = version;
        let asks = sessions.iter_mut().map(|session| session.refresh(GRANT, rejected));
        version += 1;
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer["version"], version, "{answer}");
        }
        for session in sessions {
            holds(session, version).await;
        }
        assert_eq!(cluster.provider.calls().len() as u64, version - 1, "one redeem each");
    };

    round(&cluster, &mut sessions).await;
    cluster.redis.as_ref().expect("a Redis").flush().await;
    round(&cluster, &mut sessions).await;

    cluster.redis.as_mut().expect("a Redis").kill9().await;
    for _ in 0..3 {
        round(&cluster, &mut sessions).await;
    }
    cluster.all_say("degraded").await;
    assert_eq!(cluster.readyz(0).await.status, 200, "degraded, not down");
    for _ in 0..3 {
        round(&cluster, &mut sessions).await;
    }

    cluster.redis.as_mut().expect("a Redis").start_again().await;
    cluster.all_say("ok").await;
    round(&cluster, &mut sessions).await;
    assert!(cluster.provider.overlapping().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_good_tokens_are_served_and_what_was_redeemed_lands_later() {
    let mut cluster = Cluster::start().await;
    let device = cluster.user("alice").await;
    let bob = cluster.user("bob").await;
    let mut sessions = cluster.sessions("alice").await;
    let mut other = cluster.session(1, &bob).await;
    let gate = Gate::closed();
    cluster.provider.fault(Fault::HoldAfter(gate.clone()));
    sessions[0].ask_refresh(GRANT, 1).await;
    cluster.provider.called("alice", 1, BOUND).await;

    cluster.postgres.stop_at_once().await;
    gate.open();
    eventually("the result is in the spool", HEALED, async || {
        (results(&cluster.hubs[0]) == 1).then_some(())
    })
    .await;

    let answer = other.refresh(GRANT, 1).await;
    assert_eq!(
        (&answer["type"], &answer["code"]),
        (&"error".into(), &"unavailable".into()),
        "{answer}"
    );
    assert!(
        cluster.provider.calls_of("bob").is_empty(),
        "nothing is redeemed that could not be kept"
    );
    for node in 0..3 {
        let token = cluster.get_token(node, &device).await.expect(200);
        assert_eq!(token["version"], 1, "what is good is served");
        assert_eq!(cluster.readyz(node).await.status, 503);
    }
    assert!(sessions[2].settle().await.is_empty(), "sessions live");

    cluster.postgres.start_again().await;
    for session in &mut sessions {
        holds(session, 2).await;
    }
    assert_eq!(cluster.provider.calls_of("alice").len(), 1);
    assert!(!cluster.provider.is_revoked("alice"));
    eventually("bob's refresh works again", HEALED, async || {
        (other.refresh(GRANT, 1).await["version"] == 2).then_some(())
    })
    .await;
    assert_eq!(cluster.provider.calls_of("bob").len(), 1);
    eventually("the spool is empty", HEALED, async || {
        (results(&cluster.hubs[0]) == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_spooled_by_a_node_that_died_lands_when_both_are_back() {
    let mut cluster = Cluster::with(2, true, Rules::default(), |settings| settings.example("lease", "30s")).await;
    cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;
    let gate = Gate::closed();
    cluster.provider.fault(Fault::HoldAfter(gate.clone()));
    sessions[0].ask_refresh(GRANT, 1).await;
    cluster.provider.called("alice", 1, BOUND).await;
    cluster.postgres.stop_at_once().await;
    gate.open();
    eventually("the result is in the spool", HEALED, async || {
        (results(&cluster.hubs[0]) == 1).then_some(())
    })
    .await;
    cluster.hubs[0].kill9().await;
    cluster.postgres.start_again().await;
    cluster.hubs[0].start_again().await;

    holds(&mut sessions[1], 2).await;
    assert_eq!(cluster.provider.calls().len(), 1, "and nothing was sent twice");
}

/// Waits until every node has written down all that the store holds.
async fn witnessed(cluster: &Cluster) {
    let commits = cluster.postgres.run("SELECT sum(commits) FROM lockstep.marks").await;
    for hub in &cluster.hubs {
        eventually("the witness is up to date", HEALED, async || {
            let witness = fs::read_to_string(hub.dir().join("spool/witness")).unwrap_or_default();
            witness.ends_with(&format!("commits {commits}\n")).then_some(())
        })
        .await;
    }
}

/// Waits until a node has noticed that its store is back: connections from before are found dead one by one.
async fn answers(cluster: &Cluster, node: usize, device: &Enrolled) {
    eventually("the store answers the node", HEALED, async || {
        (cluster.get_token(node, device).await.status == 200).then_some(())
    })
    .await;
}

async fn go_back(postgres: &mut Postgres) {
    postgres.stop_at_once().await;
    postgres.restore().await;
    postgres.start_again().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_in_time_is_noticed_by_hubs_that_run() {
    let mut cluster = Cluster::with(2, true, Rules::default(), |settings| settings).await;
    let device = cluster.user("alice").await;
    cluster.postgres.stop_at_once().await;
    cluster.postgres.back_up().await;
    cluster.postgres.start_again().await;
    answers(&cluster, 1, &device).await;
    let (mut session, welcome) = Session::connect(&cluster.hubs[1], &device, None).await;
    eventually("the store is back", HEALED, async || {
        (session.refresh(GRANT, 1).await["version"] == 2).then_some(())
    })
    .await;
    let cursor = session.cursor().expect("a cursor");
    witnessed(&cluster).await;

    go_back(&mut cluster.postgres).await;

    assert_eq!(session.closed_within(HEALED).await, Some(1001));
    for node in 0..2 {
        cluster
            .grant(node, "alice", "suspect", |grant| grant["health"] == "suspect")
            .await;
        let (back, again) = Session::connect(&cluster.hubs[node], &device, Some(&cursor)).await;
        assert_eq!(again["resume"], "reset");
        assert_ne!(again["epoch"], welcome["epoch"]);
        drop(back);
    }
    assert_eq!(cluster.provider.calls().len(), 1, "no old refresh token is replayed");
    assert!(!cluster.provider.is_revoked("alice"));

    let pair = cluster.provider.login("alice");
    cluster.admin(0).login("alice", GRANT, &pair.login()).await.expect(200);
    eventually("the login at the other node", HEALED, async || {
        let answer = cluster.get_token(1, &device).await;
        (answer.text("access_token") == pair.access_token).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_in_time_is_noticed_at_the_start() {
    let mut cluster = Cluster::with(2, true, Rules::default(), |settings| settings).await;
    let device = cluster.user("alice").await;
    cluster.postgres.stop_at_once().await;
    cluster.postgres.back_up().await;
    cluster.postgres.start_again().await;
    answers(&cluster, 0, &device).await;
    let (mut session, welcome) = Session::connect(&cluster.hubs[0], &device, None).await;
    eventually("the store is back", HEALED, async || {
        (session.refresh(GRANT, 1).await["version"] == 2).then_some(())
    })
    .await;
    witnessed(&cluster).await;
    for hub in &mut cluster.hubs {
        hub.kill9().await;
    }
    go_back(&mut cluster.postgres).await;
    for hub in &mut cluster.hubs {
        hub.start_again().await;
    }
    for node in 0..2 {
        cluster
            .grant(node, "alice", "suspect", |grant| grant["health"] == "suspect")
            .await;
    }
    let (mut session, again) = Session::connect(&cluster.hubs[1], &device, session.cursor().as_deref()).await;
    assert_eq!(again["resume"], "reset");
    assert_ne!(again["epoch"], welcome["epoch"]);
    assert!(
        !matches!(
            session.next_within(Duration::from_millis(100)).await,
            Some(Event::Closed(_))
        ),
        "and stays"
    );
    assert_eq!(cluster.provider.calls().len(), 1, "no old refresh token is replayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_the_store_went_back_is_waited_for_before_anything_is_sent_again() {
    let rules = Rules {
        ttl: Some(Duration::from_secs(30)),
        ..Rules::default()
    };
    // Nothing is refreshed ahead of expiry before the device asks.
    let patient = |settings: Settings| {
        let settings = settings.example("timeout", "50s").example("lease", "60s");
        settings.example("lead", "0s")
    };
    let mut cluster = Cluster::with(2, true, rules, patient).await;
    let device = cluster.user("alice").await;
    let expired = tokio::time::Instant::now() + Duration::from_secs(31);
    cluster.postgres.stop_at_once().await;
    cluster.postgres.back_up().await;
    cluster.postgres.start_again().await;
    answers(&cluster, 0, &device).await;
    let gate = Gate::closed();
    cluster.provider.fault(Fault::HoldAfter(gate.clone()));
    let (mut asking, _) = Session::connect(&cluster.hubs[0], &device, None).await;
    asking.ask_refresh(GRANT, 1).await;
    cluster.provider.called("alice", 1, BOUND).await;
    witnessed(&cluster).await;

    go_back(&mut cluster.postgres).await;
    assert_eq!(asking.closed_within(HEALED).await, Some(1001));
    tokio::time::sleep_until(expired).await;
    cluster
        .grant(1, "alice", "suspect", |grant| grant["health"] == "suspect")
        .await;
    let (mut session, _) = Session::connect(&cluster.hubs[1], &device, None).await;

    let answer = session.refresh(GRANT, 1).await;
    assert_eq!(answer["code"], "suspect", "{answer}");
    assert_eq!(cluster.provider.calls().len(), 1, "the first is still under way");
    gate.open();
    holds(&mut session, 2).await;
    assert!(cluster.provider.overlapping().is_empty());
}

/// A standby is waited for that is not there: what was written stands, and nobody is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_claimed_ahead_by_a_statement_that_was_never_answered_is_refreshed_all_the_same() {
    let rules = Rules {
        ttl: Some(Duration::from_secs(40)),
        ..Rules::default()
    };
    let cluster = Cluster::with(1, false, rules, |settings| {
        settings.set("store.statement_timeout", "1s")
    })
    .await;
    cluster.user("alice").await;
    let answered = async |standby: &str| {
        cluster
            .postgres
            .run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'"))
            .await;
        cluster.postgres.run("SELECT pg_reload_conf()").await;
    };

    answered("nobody").await;
    eventually("a look for what is due was not answered", BOUND, async || {
        let log = fs::read_to_string(cluster.hubs[0].dir().join("hub.log")).expect("a log");
        log.contains("what is due cannot be found").then_some(())
    })
    .await;
    answered("").await;

    let wanted = |grant: &serde_json::Value| grant["version"] == 2;
    let grant = cluster.grant(0, "alice", "a refresh ahead of expiry", wanted).await;
    assert_eq!(grant["health"], "ok");
    assert_eq!(cluster.provider.calls().len(), 1);
}
