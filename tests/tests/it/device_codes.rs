//! The device flow from outside: codes, the operator's command, the page, two bad guesses too many.

use lockstep_tests::{Answer, Enrolled, GRANT, Hub, Scene, Session, admin::http, binaries, process};
use reqwest::Method;
use serde_json::Value;
use tokio::process::Command;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn begin(hub: &Hub) -> Value {
    let form = [("device_name", "laptop"), ("device_kind", "desktop")];
    Answer::to(http().post(hub.url("/oauth/device_authorization")).form(&form))
        .await
        .expect(200)
}

async fn ask(hub: &Hub, codes: &Value) -> Answer {
    let form = [
        ("grant_type", GRANT_TYPE),
        ("device_code", codes["device_code"].as_str().unwrap_or_default()),
    ];
    Answer::to(http().post(hub.url("/oauth/token")).form(&form)).await
}

async fn operator(hub: &Hub, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binaries::hub());
    command
        .args(arguments)
        .args(["--admin", &format!("http://{}", hub.admin_listen)])
        .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token());
    let output = process::run(&mut command).await;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

fn enrolled(user: &str, tokens: &Value) -> Enrolled {
    let text = |key: &str| tokens[key].as_str().unwrap_or_default().to_owned();
    Enrolled {
        user: user.to_owned(),
        id: text("device_id"),
        refresh_token: text("refresh_token"),
        access_token: text("access_token"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_enrolled_by_code_across_a_crash_and_gets_its_users_tokens() {
    let mut scene = Scene::new().await;
    scene.user("alice").await;
    let metadata = Answer::to(http().get(scene.hub.url("/.well-known/oauth-authorization-server")))
        .await
        .expect(200);
    assert_eq!(
        metadata["device_authorization_endpoint"],
        scene.hub.url("/oauth/device_authorization")
    );
    let codes = begin(&scene.hub).await;
    assert_eq!(
        ask(&scene.hub, &codes).await.expect(400)["error"],
        "authorization_pending"
    );
    scene.hub.crash().await;
    let code = codes["user_code"].as_str().unwrap_or_default();
    let (good, said) = operator(&scene.hub, &["devices", "approve", code, "--user", "alice"]).await;
    assert!(good && said.contains("laptop"), "{said}");
    scene.hub.crash().await;
    let tokens = ask(&scene.hub, &codes).await.expect(200);
    let device = enrolled("alice", &tokens);
    let session = Session::fresh(&scene.hub, &device).await;
    assert!(session.token(GRANT).is_some());
    assert_eq!(ask(&scene.hub, &codes).await.expect(400)["error"], "invalid_grant");
    let (good, said) = operator(&scene.hub, &["devices", "approve", code, "--user", "alice"]).await;
    assert!(!good, "{said}");
    let codes = begin(&scene.hub).await;
    let code = codes["user_code"].as_str().unwrap_or_default();
    assert!(operator(&scene.hub, &["devices", "deny", code]).await.0);
    assert_eq!(ask(&scene.hub, &codes).await.expect(400)["error"], "access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_approves_on_the_page_as_a_browser_does() {
    let scene = Scene::set(|settings| settings.set("server.limits.device_codes_per_minute_per_address", 5)).await;
    let alice = scene.user("alice").await;
    let codes = begin(&scene.hub).await;
    let page = scene.hub.url("/oauth/device");
    let post = |form: Vec<(&'static str, String)>, origin: String| {
        Answer::to(http().post(&page).form(&form).header("origin", origin))
    };
    let own = format!("http://{}", scene.hub.listen);
    let first = vec![
        ("user_code", codes["user_code"].as_str().unwrap_or_default().to_owned()),
        ("token", alice.access_token.clone()),
    ];
    assert_eq!(post(first.clone(), "http://evil.example".into()).await.status, 403);
    let question = post(first, own.clone()).await;
    let html = question.body.as_str().unwrap_or_default().to_owned();
    assert_eq!(question.status, 200, "{html}");
    let ticket = html
        .split("name=\"ticket\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let answer = vec![
        ("ticket", ticket.unwrap_or_default().to_owned()),
        ("action", "approve".to_owned()),
    ];
    assert_eq!(post(answer, own.clone()).await.status, 200);
    let device = enrolled("alice", &ask(&scene.hub, &codes).await.expect(200));
    Session::fresh(&scene.hub, &device).await;

    let wrong = || vec![("user_code", "BCDF-GHJK".to_owned()), ("token", "x".to_owned())];
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(post(wrong(), own.clone()).await.status);
    }
    assert_eq!(statuses[0], 400, "{statuses:?}");
    assert_eq!(statuses[6], 429, "guesses are limited: {statuses:?}");
    let mut refused = None;
    for _ in 0..7 {
        let answer = Answer::to(http().post(scene.hub.url("/oauth/device_authorization"))).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("codes are limited per address");
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
    let view = scene.admin.request(Method::GET, "/admin/v1/users/alice");
    assert_eq!(Answer::to(view).await.status, 200, "and nobody else is");
}
