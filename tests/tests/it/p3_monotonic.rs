//! P3: no device sees a grant go back within an epoch.

use lockstep_tests::{
    BOUND, GRANT, Scene, Session,
    device::{all_reach, assert_lawful},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn p3_logins_refreshes_and_reconnects_at_once_never_take_a_device_back() {
    let scene = Scene::new().await;
    scene.user("alice").await;
    let followers = scene.followers("alice", 6).await;

    let logins = async {
        for _ in 0..20 {
            scene.log_in("alice").await;
        }
    };
    let refreshes = async {
        let mut session = Session::fresh(&scene.hub, &scene.admin.enrol("alice").await).await;
        for _ in 0..20 {
            let version = session
                .token(GRANT)
                .map_or(0, |token| token["version"].as_u64().unwrap_or(0));
            session.refresh(GRANT, version).await;
        }
    };
    let reconnects = async {
        let device = scene.admin.enrol("alice").await;
        let mut cursor: Option<String> = None;
        let mut newest = 0;
        for _ in 0..20 {
            let (session, _) = Session::connect(&scene.hub, &device, cursor.as_deref()).await;
            if let Some(token) = session.token(GRANT) {
                let version = token["version"].as_u64().unwrap_or(0);
                assert!(version >= newest, "from {newest} back to {version}");
                newest = version;
            }
            cursor = session.cursor();
        }
    };
    tokio::join!(logins, refreshes, reconnects);

    let newest = scene.grant("alice").await["version"].as_u64().unwrap_or(0);
    assert!(newest >= 21);
    all_reach(&followers, GRANT, newest, BOUND).await;
    assert_lawful(&followers, &scene.provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_grant_made_anew_goes_on_above_its_tombstone() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);
    let before = session.token(GRANT).cloned().unwrap_or_default();

    scene.admin.delete_grant("alice", GRANT).await.expect(204);
    let gone = session
        .until("the deletion", |frame| frame["health"] == "deleted")
        .await;
    assert_eq!(scene.log_in("alice").await, 3);

    let again = session
        .until("the new grant", |frame| {
            frame["type"] == "token" && frame["version"] == 3
        })
        .await;
    assert!(gone["seq"].as_u64() > before["seq"].as_u64());
    assert!(again["seq"].as_u64() > gone["seq"].as_u64());
    assert_eq!(again["cause"], "login");
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_rejected_version_above_the_newest_is_no_evidence() {
    let scene = Scene::new().await;
    let mut session = scene.session("alice").await;

    let answer = session.refresh(GRANT, 99).await;

    // Whatever the word for it: the device is brought to the newest, and nothing is redeemed.
    let newest = session.token(GRANT).expect("the newest token");
    assert_eq!(newest["version"], 1, "{answer}");
    assert!(scene.provider.calls().is_empty());
    session.send(&json!({"type": "ack", "seq": 1_000_000})).await;
    session.settle().await;
    assert_eq!(scene.grant("alice").await["version"], 1);
}
