//! A page in a real browser is a device like any other, if its origin is listed.

use lockstep_tests::{
    BOUND, GRANT, Scene,
    browser::{Browser, FOREIGN, LISTED},
    eventually,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_is_pushed_and_polls_and_one_of_another_is_refused() {
    let mut browser = Browser::start().await;
    let origin = browser.origin().to_owned();
    let scene = Scene::set(|settings| settings.set("server.allowed_origins", vec![origin])).await;
    let device = scene.user("alice").await;
    let hub = scene.hub.listen.to_string();

    browser
        .run(LISTED, "connect", &[&hub, &device.id, &device.access_token])
        .await;
    let frames = eventually("the page is synced", BOUND, async || {
        let frames = browser_device(&mut browser, LISTED).await["frames"].take();
        frames.as_array()?.contains(&json!("synced")).then_some(frames)
    })
    .await;
    assert_eq!(frames, json!(["welcome", "token", "synced"]));
    scene.admin.refresh("alice", GRANT).await.expect(200);
    reaches(&mut browser, 2).await;
    eventually("the page's ack arrives", BOUND, async || {
        let behind = &scene.admin.device(&device).await["behind"];
        (behind == &json!([])).then_some(())
    })
    .await;

    // Where WebSocket is blocked, the page reads the same from the long-poll: the browser asks first whether it may.
    let fresh = scene.admin.enrol("alice").await;
    browser.run(LISTED, "forget", &[]).await;
    let polled = browser.run(LISTED, "poll", &[&hub, &fresh.access_token]).await;
    assert_eq!(polled, json!({"status": 200, "versions": [2]}));
    let nothing_new = browser.run(LISTED, "poll", &[&hub, &fresh.access_token]).await;
    assert_eq!(nothing_new["status"], 204);
    let refused = browser.run(LISTED, "poll", &[&hub, "no.token.atall"]).await;
    assert_eq!(refused["status"], 401, "a page may read why it is refused");

    let foreign = scene.admin.enrol("alice").await;
    browser
        .run(FOREIGN, "connect", &[&hub, &foreign.id, &foreign.access_token])
        .await;
    let closed = eventually("the browser gives up", BOUND, async || {
        let device = browser_device(&mut browser, FOREIGN).await;
        (!device["closed"].is_null()).then_some(device)
    })
    .await;
    assert_eq!((&closed["closed"], &closed["frames"]), (&json!(1006), &json!([])));
    let unread = browser.run(FOREIGN, "poll", &[&hub, &foreign.access_token]).await;
    assert_eq!(unread["status"], json!(null));
}

async fn browser_device(browser: &mut Browser, page: &str) -> serde_json::Value {
    browser.run(page, "device", &[]).await
}

async fn reaches(browser: &mut Browser, version: u64) {
    eventually("the page holds the version", BOUND, async || {
        (browser_device(browser, LISTED).await["newest"] == version).then_some(())
    })
    .await;
}
