//! The endpoints as a client sees them: a router, a store in memory, grants that a test sets up.

mod admin;
mod device_flow;
mod device_token;
mod other;
mod slave;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, Secret, Seq, UserId, Version, frame};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{admin_routes, routes};
use crate::{
    audit::By,
    clock,
    identity::{Enrolled, GrantTrouble, Grants, Identity, IdentitySettings, Issuer, NewDevice},
    store::{self, CommitRow, DeviceKind, Sealed, Store},
    vault::Vault,
};

const ADMIN: &str = "the-admin-token";

/// A hub's identity and what stands around it.
struct Hub {
    store: Arc<dyn Store>,
    identity: Arc<Identity>,
    grants: Arc<FakeGrants>,
    router: Router,
}

impl Hub {
    async fn start() -> Self {
        Self::node(store::memory(), Arc::new(Vault::ephemeral())).await
    }

    /// A node on a store that others may share.
    async fn node(store: Arc<dyn Store>, vault: Arc<Vault>) -> Self {
        Self::built(store, vault, |settings| settings).await
    }

    /// With settings of the test's own.
    async fn with(change: impl FnOnce(IdentitySettings) -> IdentitySettings) -> Self {
        Self::built(store::memory(), Arc::new(Vault::ephemeral()), change).await
    }

    async fn built(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        change: impl FnOnce(IdentitySettings) -> IdentitySettings,
    ) -> Self {
        let settings = change(IdentitySettings {
            issuer: Issuer::Public("https://hub.example".into()),
            ..IdentitySettings::default()
        });
        let identity = Identity::start(store.clone(), vault, settings).await.unwrap();
        let grants = Arc::new(FakeGrants::default());
        let is_admin = Arc::new(|token: &Secret| token.expose() == ADMIN);
        let router = routes(identity.clone(), grants.clone(), is_admin).merge(admin_routes(identity.clone()));
        Self {
            store,
            identity,
            grants,
            router,
        }
    }

    async fn enrol(&self, user: &str) -> Enrolled {
        let new = NewDevice {
            kind: DeviceKind::Cli,
            name: "laptop".into(),
            redeemer: true,
            may_offer: false,
            priority: None,
        };
        self.identity
            .enrol(&user.parse().unwrap(), new, By::Admin)
            .await
            .unwrap()
    }

    /// A grant of this user, in the store.
    async fn grant(&self, user: &str, grant: &str) {
        let row = CommitRow {
            user: user.parse().unwrap(),
            grant: grant.parse().unwrap(),
            lease: None,
            from_version: Version(0),
            tokens: Sealed {
                key: 0,
                bytes: Vec::new(),
            },
            expires_at: None,
            cause: frame::Cause::Login,
            refreshed_at: clock::unix(),
            due_at: None,
            wake_at: None,
            retire: None,
            unless_retired: None,
            rejected_in_a_row: 0,
        };
        self.store.commit(row).await.unwrap();
    }

    async fn slave(&self, device: DeviceId, grant: &str) -> Secret {
        self.identity.make_slave(device, &grant.parse().unwrap()).await.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.send(form_request(path).body(body.into()).unwrap()).await
    }

    async fn refresh(&self, token: &Secret) -> Answer {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
        self.post_form("/oauth/token", &form).await
    }
}

fn form_request(path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
}

fn json_request(method: Method, path: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.to_owned().into())
        .unwrap()
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    fn secret(&self, field: &str) -> Secret {
        self.body[field]
            .as_str()
            .unwrap_or_else(|| panic!("no {field} in {}", self.body))
            .into()
    }

    #[track_caller]
    fn is_error(&self, status: u16, error: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["error"]),
            (status, &json!(error)),
            "{}",
            self.body
        );
        assert_eq!(self.headers[header::CACHE_CONTROL], "no-store");
        assert!(self.body["error_description"].is_string());
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.body["code"]),
            (status, &json!(code)),
            "{}",
            self.body
        );
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
    }
}

/// Grants that answer what a test says, and count who asked.
#[derive(Default)]
struct FakeGrants {
    asked: AtomicUsize,
    seen: Mutex<Vec<(UserId, GrantName, Duration)>>,
    answer: Mutex<Option<Result<frame::Token, GrantTrouble>>>,
}

impl FakeGrants {
    fn will_answer(&self, answer: Result<frame::Token, GrantTrouble>) {
        *self.answer.lock().unwrap() = Some(answer);
    }
}

#[async_trait]
impl Grants for FakeGrants {
    async fn token(&self, user: &UserId, grant: &GrantName, least: Duration) -> Result<frame::Token, GrantTrouble> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().unwrap().push((user.clone(), grant.clone(), least));
        self.answer.lock().unwrap().clone().expect("the test set an answer")
    }
}

/// A provider's token with this much life left.
fn provider_token(expires_in: Option<u64>) -> frame::Token {
    let epoch = lockstep_protocol::Epoch(1);
    frame::Token {
        grant: "example/main".parse().unwrap(),
        version: Version(3),
        seq: Seq(3),
        cursor: lockstep_protocol::Cursor { epoch, seq: Seq(3) },
        access_token: "at-3".into(),
        token_type: "bearer".into(),
        scope: Some("read write".into()),
        expires_at: expires_in.map(|seconds| (clock::unix() + Duration::from_secs(seconds)).seconds_up()),
        refreshed_at: clock::unix().seconds(),
        cause: frame::Cause::Refresh,
    }
}

fn now() -> Unix {
    clock::unix()
}
