//! Section 6: the drop-in token endpoint for clients that nobody will rewrite (`lsg_…`).

use std::time::Duration;

use lockstep_tests::{
    Answer, BOUND, Enrolled, Fault, GRANT, Scene,
    admin::http,
    eventually,
    provider::{Gate, Reply, Rules},
};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

async fn slave(scene: &Scene, device: &Enrolled) -> String {
    let path = format!("/admin/v1/devices/{}/grants/{GRANT}", device.id);
    let body = Answer::to(scene.admin.request(Method::POST, &path)).await.expect(201);
    let token = body["refresh_token"].as_str().expect("a slave").to_owned();
    assert!(token.starts_with("lsg_"), "{token}");
    token
}

/// How long the tokens of [`short_lived`] live.
const LIFE: Duration = Duration::from_secs(2);

/// Tokens that expire before anyone asks: the scheduler is told to leave them alone until then.
async fn short_lived() -> Scene {
    let rules = Rules {
        ttl: Some(LIFE),
        ..Rules::default()
    };
    Scene::with(rules, |settings| {
        settings.example("lead", "0s").example("late_wait", "1s")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_gets_the_current_token_with_every_field_it_may_need() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let slave = slave(&scene, &device).await;

    let answer = scene.oauth_token(&slave).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.expect(200);
    assert_eq!(
        body["access_token"],
        scene.provider.newest("alice").access_token.as_str()
    );
    assert_eq!(
        (&body["token_type"], &body["refresh_token"]),
        (&"Bearer".into(), &slave.as_str().into())
    );
    let expires_in = body["expires_in"].as_u64().expect("an integer");
    assert!((3500..=3600).contains(&expires_in), "what really remains: {expires_in}");
    assert!(body["scope"].is_string(), "{body}");
    assert!(scene.provider.calls().is_empty(), "a good token needs no redeem");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_asking_is_understood() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let slave = slave(&scene, &device).await;
    let url = scene.hub.url("/oauth/token");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", slave.as_str()),
        ("stray", "field"),
    ];
    let with_client = [
        ("client_id", "whatever"),
        ("client_secret", "x"),
        form[0],
        form[1],
        ("scope", ""),
    ];
    let requests = [
        http().post(&url).form(&form),
        http().post(&url).form(&with_client),
        http().post(&url).form(&form).basic_auth("client", Some("secret")),
        http()
            .post(&url)
            .json(&json!({"grant_type": "refresh_token", "refresh_token": slave, "stray": {"a": 1}})),
    ];
    for request in requests {
        let body = Answer::to(request).await.expect(200);
        assert_eq!(
            body["access_token"],
            scene.provider.newest("alice").access_token.as_str()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_askers_with_stale_tokens_are_one_redeem() {
    let scene = short_lived().await;
    let first = scene.provider.login("alice");
    // Whoever redeems it, and whenever: the next token lasts.
    scene
        .provider
        .rules(|rules| rules.ttl = Some(Duration::from_secs(3600)));
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldBefore(gate.clone()));
    scene.admin.login("alice", GRANT, &first.login()).await.expect(200);
    let device = scene.admin.enrol("alice").await;
    let slave = slave(&scene, &device).await;
    // From the hub's answer on: it counts from when it was told of the token.
    sleep(LIFE).await;

    let asking = futures::future::join_all((0..1000).map(|_| scene.oauth_token(&slave)));
    let (answers, ()) = tokio::join!(asking, async {
        scene.provider.called("alice", 1, BOUND).await;
        sleep(Duration::from_millis(500)).await;
        gate.open();
    });

    let newest = scene.provider.newest("alice").access_token;
    for answer in answers {
        assert_eq!(answer.expect(200)["access_token"], newest.as_str());
    }
    assert_eq!(scene.provider.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_is_invalid_grant_and_a_passing_trouble_never_is() {
    let scene = short_lived().await;
    let device = scene.user("alice").await;
    let slave = slave(&scene, &device).await;
    // Before it expires: then the hub tries by itself.
    scene
        .provider
        .always(Some(Fault::Refuse(Reply::empty(503).header("retry-after", "5"))));
    sleep(LIFE).await;
    let trouble = scene.oauth_token(&slave).await;
    assert_eq!(trouble.status, 503, "{}", trouble.body);
    assert!(
        trouble
            .header("retry-after")
            .and_then(|text| text.parse::<u64>().ok())
            .is_some()
    );

    scene.provider.always(None);
    scene.provider.revoke("alice");
    let dead = eventually("the grant is found dead", Duration::from_secs(60), async || {
        let answer = scene.oauth_token(&slave).await;
        (answer.status == 400).then_some(answer)
    })
    .await;
    assert_eq!(dead.text("error"), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slave_is_revocable_alone_and_with_its_device() {
    let scene = Scene::new().await;
    let device = scene.user("alice").await;
    let (one, other) = (slave(&scene, &device).await, slave(&scene, &device).await);

    Answer::to(
        http()
            .post(scene.hub.url("/oauth/revoke"))
            .form(&[("token", one.as_str())]),
    )
    .await
    .expect(200);

    assert_eq!(scene.oauth_token(&one).await.expect(400)["error"], "invalid_grant");
    scene.oauth_token(&other).await.expect(200);
    scene.admin.revoke(&device).await.expect(204);
    assert_eq!(scene.oauth_token(&other).await.expect(400)["error"], "invalid_grant");
    scene.admin.delete_grant("alice", GRANT).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_revoked_while_a_redeem_is_waited_for_is_given_nothing_of_it() {
    let scene = Scene::set(|settings| settings.example("lead", "0s")).await;
    let gate = Gate::closed();
    scene.provider.fault(Fault::HoldBefore(gate.clone()));
    let mut login = scene.provider.login("alice").login();
    login["expires_in"] = json!(1);
    scene.admin.login("alice", GRANT, &login).await.expect(200);
    let (device, other) = (scene.admin.enrol("alice").await, scene.admin.enrol("alice").await);
    let slaves = [slave(&scene, &device).await, slave(&scene, &other).await];
    sleep(Duration::from_millis(1_100)).await;
    let revoking = async {
        scene.provider.called("alice", 1, BOUND).await;
        // Until both have joined it.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.admin.revoke(&device).await.status, 204);
        let gone = [("token", slaves[1].as_str())];
        let dropped = http().post(scene.hub.url("/oauth/revoke")).form(&gone);
        assert_eq!(Answer::to(dropped).await.status, 200);
        gate.open();
    };

    let (told, one, two, ()) = tokio::join!(
        scene.get_token(&device, GRANT, ""),
        scene.oauth_token(&slaves[0]),
        scene.oauth_token(&slaves[1]),
        revoking
    );
    assert_eq!(told.status, 401, "{}", told.body);
    for answer in [one, two] {
        assert_eq!(answer.expect(400)["error"], "invalid_grant");
    }
    scene.get_token(&other, GRANT, "").await.expect(200);
}
