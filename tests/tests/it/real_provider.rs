//! Against the certified npm `oidc-provider`, which revokes the whole grant on reuse.

use std::{collections::HashMap, time::Duration};

use lockstep_tests::{Follower, GRANT, Hub, Oidc, Settings, device::all_reach, eventually};
use serde_json::{Value, json};

const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

/// That every refresh token was sent once, and none was refused.
async fn assert_one_call_each(oidc: &Oidc) -> usize {
    let calls = oidc.refreshes().await;
    let mut sent: HashMap<String, usize> = HashMap::new();
    for call in &calls {
        assert_eq!(call["status"], 200, "{call}");
        *sent.entry(call["refresh_token"].to_string()).or_default() += 1;
    }
    assert!(sent.values().all(|times| *times == 1), "a refresh token was sent twice");
    calls.len()
}

/// Twenty rotations on four devices, one token call each, while the hub is killed and restarted `kills` times.
async fn rotations(kills: usize, login: impl AsyncFnOnce(&Oidc) -> Value) {
    let oidc = Oidc::start(4).await;
    let settings = Settings::new(&oidc.token_endpoint()).example("lead", "30s");
    let mut hub = Hub::start(settings).await;
    let admin = hub.admin();
    let tokens = login(&oidc).await;
    admin.login("alice", GRANT, &tokens).await.expect(200);
    let mut followers = Vec::new();
    for kind in ["desktop", "cli", "server", "web"] {
        let device = admin.enrol_as("alice", &json!({"kind": kind, "name": kind})).await;
        followers.push(Follower::start(hub.listen, device));
    }

    let mut version = 1;
    for _ in 0..kills {
        version += 5;
        all_reach(&followers, GRANT, version, Duration::from_secs(90)).await;
        // Right after a rotation: what a kill in the middle of one means is told elsewhere.
        hub.crash().await;
    }
    all_reach(&followers, GRANT, 21, Duration::from_secs(90)).await;

    let version = async || admin.grant("alice", GRANT).await["version"].as_u64().unwrap_or(0);
    // It goes on rotating meanwhile: each version but the first is a call, and one call may be under way.
    let before = version().await;
    let calls = assert_one_call_each(&oidc).await as u64;
    let after = version().await;
    assert!(
        (before - 1..=after).contains(&calls),
        "{calls} calls made {before} to {after} versions"
    );
    eventually("all devices acked", CONVERGE_WITHIN, async || {
        let view = admin.user("alice").await.expect(200);
        let devices = view["devices"].as_array().cloned().unwrap_or_default();
        devices.iter().all(|device| device["behind"] == json!([])).then_some(())
    })
    .await;
    for follower in &followers {
        assert_eq!(follower.faults(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_grant_rotates_with_one_call_each_while_the_hub_is_killed_thrice() {
    rotations(3, Oidc::mint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_code_with_pkce_rotates_with_one_call_each() {
    rotations(0, Oidc::log_in).await;
}
