//! The device flow (RFC 8628): codes, the operator's word, the page.

use super::*;
use crate::identity::Denied;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Hub {
    async fn begin(&self, form: &[(&str, &str)]) -> Answer {
        self.post_form("/oauth/device_authorization", form).await
    }

    async fn ask(&self, codes: &Answer) -> Answer {
        let form = [
            ("grant_type", GRANT),
            ("device_code", codes.body["device_code"].as_str().unwrap()),
        ];
        self.post_form("/oauth/token", &form).await
    }

    async fn operator(&self, method: Method, codes: &Answer, body: &str) -> Answer {
        let path = format!("/admin/v1/device-codes/{}", user_code(codes));
        self.send(json_request(method, &path, body)).await
    }

    /// Posts a form to the page; status and HTML.
    async fn page(&self, form: &[(&str, &str)], headers: &[(&str, &str)]) -> (u16, String) {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut request = form_request("/oauth/device");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }
}

fn user_code(codes: &Answer) -> &str {
    codes.body["user_code"].as_str().unwrap()
}

fn ticket(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"ticket\" value=\"").expect(html);
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn codes_are_as_the_standard_has_them() {
    let hub = Hub::start().await;
    let codes = hub.begin(&[("client_id", "x"), ("scope", "y")]).await;
    assert_eq!(codes.status, 200, "{}", codes.body);
    assert_eq!(codes.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(codes.body["verification_uri"], "https://hub.example/oauth/device");
    let complete = format!("https://hub.example/oauth/device?user_code={}", user_code(&codes));
    assert_eq!(codes.body["verification_uri_complete"], complete);
    assert_eq!(
        (&codes.body["expires_in"], &codes.body["interval"]),
        (&600.into(), &5.into())
    );
    hub.begin(&[("device_kind", "toaster")])
        .await
        .is_error(400, "invalid_request");
    hub.begin(&[("device_name", "a\nb")])
        .await
        .is_error(400, "invalid_request");
}

#[tokio::test]
async fn the_operator_approves_and_the_device_is_enrolled_once() {
    let hub = Hub::start().await;
    let codes = hub
        .begin(&[("device_name", "laptop"), ("device_kind", "desktop")])
        .await;
    hub.ask(&codes).await.is_error(400, "authorization_pending");
    hub.ask(&codes).await.is_error(400, "slow_down");
    let seen = hub.operator(Method::GET, &codes, "").await;
    assert_eq!(
        (&seen.body["name"], &seen.body["kind"]),
        (&"laptop".into(), &"desktop".into())
    );
    let said = hub
        .operator(Method::POST, &codes, r#"{"user":"alice","redeemer":true}"#)
        .await;
    assert_eq!(said.status, 200, "{}", said.body);
    let again = hub.operator(Method::POST, &codes, r#"{"user":"mallory"}"#).await;
    again.is_problem(404, "unknown_grant");

    let tokens = hub.ask(&codes).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    assert_eq!(
        (&tokens.body["user"], &tokens.body["scope"]),
        (&"alice".into(), &"sync redeem".into())
    );
    let principal = hub
        .identity
        .authenticate(&tokens.secret("access_token"), now())
        .unwrap();
    assert_eq!(principal.device.to_string(), tokens.body["device_id"].as_str().unwrap());
    assert!(tokens.secret("refresh_token").expose().starts_with("lsd_"));
    assert_eq!(hub.refresh(&tokens.secret("refresh_token")).await.status, 200);
    let row = hub.store.device(principal.device).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.kind), ("laptop", DeviceKind::Desktop));

    hub.ask(&codes).await.is_error(400, "invalid_grant");
    assert_eq!(hub.store.devices(&"alice".parse().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_many_who_come_with_one_code_one_is_answered() {
    let hub = Hub::start().await;
    let codes = hub.begin(&[]).await;
    hub.operator(Method::POST, &codes, r#"{"user":"alice"}"#).await;
    let answers = futures::future::join_all((0..8).map(|_| hub.ask(&codes))).await;
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 1);
    assert_eq!(hub.store.devices(&"alice".parse().unwrap()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn any_node_may_take_the_request_the_word_and_the_question() {
    let (store, vault) = (store::memory(), Arc::new(Vault::ephemeral()));
    let (a, b) = tokio::join!(Hub::node(store.clone(), vault.clone()), Hub::node(store, vault));
    let codes = a.begin(&[]).await;
    b.ask(&codes).await.is_error(400, "authorization_pending");
    b.operator(Method::POST, &codes, r#"{"user":"alice"}"#).await;
    assert_eq!(a.ask(&codes).await.status, 200);
}

#[tokio::test]
async fn a_denied_code_an_old_one_and_a_made_up_one_are_told_apart() {
    let hub = Hub::start().await;
    let codes = hub.begin(&[]).await;
    assert_eq!(hub.operator(Method::DELETE, &codes, "").await.status, 204);
    hub.ask(&codes).await.is_error(400, "access_denied");

    let brief = Hub::with(|settings| IdentitySettings {
        code_ttl: Duration::ZERO,
        ..settings
    })
    .await;
    let codes = brief.begin(&[]).await;
    brief.ask(&codes).await.is_error(400, "expired_token");
    brief
        .operator(Method::POST, &codes, r#"{"user":"alice"}"#)
        .await
        .is_problem(404, "unknown_grant");

    for made_up in ["ldc_", "ldc_AAAA", "x", codes.body["device_code"].as_str().unwrap()] {
        let form = [("grant_type", GRANT), ("device_code", made_up)];
        hub.post_form("/oauth/token", &form)
            .await
            .is_error(400, "invalid_grant");
    }
    hub.post_form("/oauth/token", &[("grant_type", GRANT)])
        .await
        .is_error(400, "invalid_request");
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let hub = Hub::start().await;
    let mut given = 0;
    let full = loop {
        let answer = hub.begin(&[]).await;
        if answer.status != 200 {
            break answer;
        }
        given += 1;
        assert!(given <= 16 * 64, "no end");
    };
    assert!(given > 16 * 32, "{given}");
    full.is_error(503, "temporarily_unavailable");
    assert!(full.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_user_approves_on_the_page_with_a_device_that_is_enrolled() {
    let hub = Hub::start().await;
    let mine = hub.enrol("alice").await;
    let codes = hub.begin(&[("device_name", "<b>phone</b>")]).await;
    let (status, html) = hub
        .page(
            &[("user_code", user_code(&codes)), ("token", mine.access_token.expose())],
            &[],
        )
        .await;
    assert_eq!(status, 200, "{html}");
    assert!(
        html.contains("&lt;b&gt;phone&lt;/b&gt;") && !html.contains("<b>phone"),
        "{html}"
    );
    assert!(html.contains("alice") && !html.contains(mine.access_token.expose()));
    let ticket = ticket(&html);
    let (status, html) = hub.page(&[("ticket", &ticket), ("action", "approve")], &[]).await;
    assert_eq!(status, 200, "{html}");
    let (status, _) = hub.page(&[("ticket", &ticket), ("action", "approve")], &[]).await;
    assert_eq!(status, 409, "one word");
    let tokens = hub.ask(&codes).await;
    assert_eq!(
        (&tokens.body["user"], &tokens.body["scope"]),
        (&"alice".into(), &"sync".into())
    );
}

#[tokio::test]
async fn the_word_of_a_device_that_was_revoked_since_counts_no_more() {
    let hub = Hub::start().await;
    let mine = hub.enrol("alice").await;
    let codes = hub.begin(&[]).await;
    let form = [("user_code", user_code(&codes)), ("token", mine.access_token.expose())];
    let (_, html) = hub.page(&form, &[]).await;
    let ticket = ticket(&html);
    let (status, _) = hub.page(&[("ticket", &ticket), ("action", "approve")], &[]).await;
    assert_eq!(status, 200);
    let why = crate::audit::RevokedWhy::Admin;
    assert!(hub.identity.revoke(mine.device_id, why).await.unwrap());
    hub.ask(&codes).await.is_error(400, "access_denied");
    assert_eq!(
        hub.identity.authenticate(&mine.access_token, now()),
        Err(Denied::Revoked)
    );
    let (status, _) = hub.page(&form, &[]).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_page_tells_a_stranger_nothing() {
    let hub = Hub::start().await;
    let mine = hub.enrol("alice").await;
    let codes = hub.begin(&[]).await;
    let good = user_code(&codes);
    let mut answers = std::collections::HashSet::new();
    for (code, token) in [
        (good, "x"),
        (good, "lsd_x"),
        (good, mine.device_refresh_token.expose()),
        ("BCDF-GHJK", mine.access_token.expose()),
        ("BCDF-GHJK", "x"),
    ] {
        let (status, html) = hub.page(&[("user_code", code), ("token", token)], &[]).await;
        assert_eq!(status, 400);
        answers.insert(html.replace(code, "CODE"));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    hub.ask(&codes).await.is_error(400, "authorization_pending");
}

#[tokio::test]
async fn no_other_sites_page_can_answer() {
    let hub = Hub::start().await;
    let mine = hub.enrol("alice").await;
    let codes = hub.begin(&[]).await;
    let form = [("user_code", user_code(&codes)), ("token", mine.access_token.expose())];
    for bad in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://hub.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(hub.page(&form, &[bad]).await.0, 403, "{bad:?}");
    }
    let own = [("origin", "https://hub.example"), ("sec-fetch-site", "same-origin")];
    let (status, html) = hub.page(&form, &own).await;
    assert_eq!(status, 200);
    let ticket = ticket(&html);
    for forged in ["", "x", "AAAA", &ticket[1..], &format!("{ticket}AA")] {
        let (status, _) = hub.page(&[("ticket", forged), ("action", "approve")], &own).await;
        assert_eq!(status, 400, "{forged}");
    }
    hub.ask(&codes).await.is_error(400, "authorization_pending");
}

#[tokio::test]
async fn the_page_loads_and_runs_nothing() {
    let hub = Hub::start().await;
    let request = Request::get("/oauth/device?user_code=wdjbmjht%22%3E")
        .body(Body::empty())
        .unwrap();
    let response = hub.router.clone().oneshot(request).await.unwrap();
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap()
        .to_owned();
    for rule in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let html = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let html = String::from_utf8(html.to_vec()).unwrap();
    assert!(html.contains("value=\"WDJB-MJHT\""), "{html}");
    assert!(
        !html.contains("<script") && !html.contains("http://") && !html.contains("https://"),
        "{html}"
    );
}

#[tokio::test]
async fn an_operator_may_keep_the_word_to_himself() {
    let hub = Hub::with(|settings| IdentitySettings {
        devices_approve: false,
        ..settings
    })
    .await;
    let mine = hub.enrol("alice").await;
    let codes = hub.begin(&[]).await;
    let form = [("user_code", user_code(&codes)), ("token", mine.access_token.expose())];
    assert_eq!(hub.page(&form, &[]).await.0, 403);
    assert_eq!(
        hub.operator(Method::POST, &codes, r#"{"user":"alice"}"#).await.status,
        200
    );
}
