//! Several nodes over one store: any node serves any device, and each hears what happens at the others.

use std::time::{Duration, Instant};

use lockstep_tests::{
    Answer, BOUND, Cluster, Fault, GRANT, Session,
    admin::http,
    cluster::{HEALED, holds},
    eventually,
    provider::{Gate, Rules},
    within,
};
use serde_json::json;
use tokio::time::sleep;

/// How long a node waits for another to take an election up, before it tells whoever asked that there is nobody.
const WANTED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn any_node_serves_any_device_and_a_push_crosses_nodes() {
    let cluster = Cluster::start().await;
    let device = cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;

    assert_eq!(sessions[0].refresh(GRANT, 1).await["version"], 2);
    for session in &mut sessions {
        let token = holds(session, 2).await;
        assert_eq!(
            token["access_token"],
            cluster.provider.newest("alice").access_token.as_str()
        );
    }

    // A poll that began at one node goes on at another.
    let first = cluster.poll(1, &device, "").await.expect(200);
    assert_eq!(first["tokens"][0]["version"], 2);
    let query = format!("?after={}&wait=25", first["cursor"].as_str().expect("a cursor"));
    let (news, ()) = tokio::join!(cluster.poll(2, &device, &query), async {
        eventually("the poll waits at node 2", BOUND, async || {
            (cluster.admin(2).device(&device).await["transport"] == "poll").then_some(())
        })
        .await;
        cluster.admin(0).refresh("alice", GRANT).await.expect(200);
    });
    let news = news.expect(200);
    assert_eq!(
        (&news["resume"], &news["tokens"][0]["version"]),
        (&"delta".into(), &3.into())
    );
    assert_eq!(cluster.provider.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_devices_on_all_nodes_ask_at_once_and_one_redeem_answers_them() {
    let cluster = Cluster::start().await;
    cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;
    for version in 1..=20_u64 {
        let asks = sessions.iter_mut().map(|session| session.refresh(GRANT, version));
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer["type"], "done", "round {version}: {answer}");
            assert_eq!(answer["version"], version + 1, "round {version}: {answer}");
        }
        let calls = cluster.provider.calls();
        assert_eq!(calls.len() as u64, version, "round {version}: one redeem each");
    }
    assert!(cluster.provider.overlapping().is_empty());
    for session in &mut sessions {
        holds(session, 21).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_node_died_is_judged_by_another_when_it_lapses() {
    let rules = Rules {
        grace: Duration::from_secs(600),
        ..Rules::default()
    };
    let mut cluster = Cluster::with(2, true, rules, |settings| {
        settings.example("grace", "600s").example("lease", "30s")
    })
    .await;
    cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;
    let gate = Gate::closed();
    cluster.provider.fault(Fault::HoldAfter(gate.clone()));
    sessions[0].ask_refresh(GRANT, 1).await;
    cluster.provider.called("alice", 1, BOUND).await;

    cluster.hubs[0].kill9().await;

    // Until the claim lapses nobody may send; then the same refresh token again, inside the provider's grace.
    let calls = cluster.provider.called("alice", 2, HEALED + HEALED).await;
    // 30 s from the claim: the first may have been sent 5 s after it, and have arrived even later.
    assert!(
        calls[1].arrived - calls[0].arrived > Duration::from_secs(15),
        "it did not wait for the lapse"
    );
    holds(&mut sessions[1], 2).await;
    let grant = cluster
        .grant(1, "alice", "health ok", |grant| grant["health"] == "ok")
        .await;
    assert_eq!(grant["version"], 2);
    gate.open();

    cluster.hubs[0].start_again().await;
    let device = cluster.admin(0).enrol("alice").await;
    let mut back = cluster.session(0, &device).await;
    holds(&mut back, 2).await;
    assert_eq!(
        cluster.provider.calls_of("alice").len(),
        2,
        "a node that returns adopts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_crosses_nodes() {
    let cluster = Cluster::start().await;
    let device = cluster.user("alice").await;
    let mut session = cluster.session(1, &device).await;
    cluster.poll(2, &device, "").await.expect(200);
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    let admin = cluster.admin(0);
    let slave = Answer::to(admin.request(reqwest::Method::POST, &path))
        .await
        .expect(201);
    let slave = slave["refresh_token"].as_str().expect("a slave").to_owned();
    let form = [("grant_type", "refresh_token"), ("refresh_token", slave.as_str())];
    let ask = |node: usize| Answer::to(http().post(cluster.hubs[node].url("/oauth/token")).form(&form));
    ask(2).await.expect(200);

    cluster.admin(0).revoke(&device).await.expect(204);

    assert_eq!(session.closed().await, Some(4403));
    eventually("its token is refused at node 2", BOUND, async || {
        (cluster.poll(2, &device, "").await.status == 401).then_some(())
    })
    .await;
    assert_eq!(ask(2).await.expect(400)["error"], "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_elected_on_whichever_node_it_is() {
    let cluster = Cluster::with(3, true, Rules::default(), |settings| {
        settings.example("refresher", "device").example("hub_may_redeem", false)
    })
    .await;
    let device = cluster.user("alice").await;
    let mut asker = cluster.session(0, &device).await;
    let able = json!({"kind": "desktop", "name": "able", "redeemer": true});
    let able = cluster.admin(1).enrol_as("alice", &able).await;
    let (mut able, welcome) = Session::connect(&cluster.hubs[2], &able, None).await;

    let asked = Instant::now();
    let asking = async {
        loop {
            let id = asker.ask_refresh(GRANT, 1).await;
            tokio::select! {
                elected = able.frame("elected") => break (id, elected),
                answer = asker.answer(&id) => {
                    // Whoever asks is put off only if the other node was held up for as long.
                    let is_late = asked.elapsed() >= WANTED_WITHIN;
                    assert!(is_late && answer["code"] == "unavailable", "{answer}");
                    sleep(Duration::from_millis(500)).await;
                }
            }
        }
    };
    let (id, elected) = within("a device is elected", HEALED, asking).await;
    let is_late = asked.elapsed() >= WANTED_WITHIN;
    able.send(&json!({"type": "accept", "grant": GRANT, "lease": elected["lease"]["id"]}))
        .await;
    let order = able.frame("redeem").await;
    let refresh_token = order["refresh_token"].as_str().expect("a refresh token");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", "app"),
    ];
    let token = Answer::to(http().post(cluster.provider.token_endpoint()).form(&form))
        .await
        .expect(200);
    able.send(&json!({
        "type": "publish", "id": "p", "grant": GRANT, "lease": order["lease"], "epoch": welcome["epoch"],
        "from_version": order["from_version"], "token": token,
    }))
    .await;

    assert_eq!(able.answer("p").await["version"], 2);
    let answer = asker.answer(&id).await;
    assert!(
        answer["version"] == 2 || is_late && answer["code"] == "unavailable",
        "{answer}"
    );
    holds(&mut asker, 2).await;
    assert_eq!(cluster.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_store_carries_the_facts() {
    let cluster = Cluster::with(2, false, Rules::default(), |settings| settings).await;
    cluster.user("alice").await;
    let mut sessions = cluster.sessions("alice").await;
    for version in 1..=5_u64 {
        let asks = sessions.iter_mut().map(|session| session.refresh(GRANT, version));
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer["version"], version + 1, "{answer}");
        }
        for session in &mut sessions {
            holds(session, version + 1).await;
        }
    }
    assert_eq!(cluster.provider.calls().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_among_others_serves_its_devices_until_they_leave_for_those() {
    let mut cluster = Cluster::with(2, true, Rules::default(), |settings| {
        settings.set("server.drain", "10m")
    })
    .await;
    let device = cluster.user("alice").await;
    let mut session = cluster.session(0, &device).await;
    eventually("node 0 knows node 1", BOUND, async || {
        let metrics = cluster.admin(0).anonymous(reqwest::Method::GET, "/metrics");
        let metrics = Answer::to(metrics).await.body;
        let lines = metrics.as_str().unwrap_or_default().lines();
        lines
            .filter_map(|line| line.strip_prefix("lockstep_cluster_nodes "))
            .any(|nodes| nodes == "2")
            .then_some(())
    })
    .await;

    cluster.hubs[0].signal(rustix::process::Signal::TERM);

    session.frame("goaway").await;
    for version in 1..=3 {
        cluster.admin(1).refresh("alice", GRANT).await.expect(200);
        holds(&mut session, version + 1).await;
    }
    drop(session);
    assert!(cluster.hubs[0].ended(BOUND).await.success());
    cluster.session(1, &device).await;
}
