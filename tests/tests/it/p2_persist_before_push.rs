//! P2: what any device has seen survives `kill -9`.

use std::{fs, os::unix::fs::PermissionsExt};

use lockstep_tests::{BOUND, GRANT, Scene, Session, device::assert_lawful};

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_version_that_a_device_saw_is_there_after_kill_9() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let followers = scene.followers("alice", 2).await;

    for version in 1..=6 {
        let (mut session, _) = Session::connect(&scene.hub, &device, None).await;
        session.ask_refresh(GRANT, version).await;
        let seen = session
            .until("the next version", |frame| {
                frame["type"] == "token" && frame["version"] == version + 1
            })
            .await;
        // Not one instruction more than the push.
        scene.hub.crash().await;
        let (after, _) = Session::connect(&scene.hub, &device, None).await;
        let token = after.token(GRANT).expect("the token is still there");
        assert_eq!(
            (&token["version"], &token["access_token"]),
            (&seen["version"], &seen["access_token"])
        );
        assert_eq!(token["seq"], seen["seq"]);
        followers[0].reaches(GRANT, version + 1, BOUND).await;
    }

    assert_lawful(&followers, &scene.provider);
    assert_eq!(scene.provider.calls().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_logins_and_deletions_survive_kill_9_once_they_are_answered() {
    let mut scene = Scene::new().await;
    scene.user("alice").await;
    scene.user("bob").await;
    scene.admin.delete_grant("bob", GRANT).await.expect(204);

    scene.hub.crash().await;

    assert_eq!(scene.grant("alice").await["version"], 1);
    let bob = scene.grant("bob").await;
    assert!(bob.is_null() || bob["health"] == "deleted", "{bob}");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_the_epoch_and_the_cursor_outlive_a_crash() {
    let mut scene = Scene::new().await;
    let device = scene.user("alice").await;
    let (session, before) = Session::connect(&scene.hub, &device, None).await;
    let cursor = session.cursor().expect("a cursor");

    scene.hub.crash().await;

    let (session, welcome) = Session::connect(&scene.hub, &device, Some(&cursor)).await;
    assert_eq!(welcome["epoch"], before["epoch"]);
    assert_eq!(welcome["resume"], "uptodate");
    assert!(session.token(GRANT).is_none(), "nothing changed: nothing is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_store_and_keys_are_the_owners_alone() {
    let scene = Scene::new().await;
    scene.user("alice").await;
    for name in ["lockstep.db", "lockstep.key"] {
        let mode = fs::metadata(scene.hub.dir().join(name))
            .expect("the file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_no_token_lies_readable_in_the_hubs_directory() {
    let mut scene = Scene::new().await;
    let mut session = scene.session("alice").await;
    session.refresh(GRANT, 1).await;
    let secrets = scene.provider.tokens();
    // What is there now stays: a living hub puts files in the place of others.
    scene.hub.kill9().await;
    for file in files(scene.hub.dir()) {
        let bytes = fs::read(&file).expect("a file of the hub");
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a token in the clear", file.display());
        }
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
