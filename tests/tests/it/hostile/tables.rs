//! The tables: every endpoint, every frame, and how mallory tries it.

use std::{collections::BTreeSet, fs, path::Path};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{HERS, Plot};

/// Every endpoint of the clients' listener, and how mallory tries it. None: tried by a test of its own.
pub(super) fn attempts(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    [grants(plot), oauth(plot), about_tokens(plot)]
        .into_iter()
        .flatten()
        .collect()
}

fn grants(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    let hers = |more: &str| format!("/v1/grants/{HERS}{more}");
    let body = json!({"rejected_version": 1});
    let login = json!({"refresh_token": "rt-mallory", "access_token": "at-mallory", "expires_in": 60});
    vec![
        ("/v1/ws", vec![]),
        (
            "/v1/tokens",
            vec![plot.mallory(Method::GET, "/v1/tokens?user=alice&wait=0")],
        ),
        (
            "/v1/grants/{provider}/{account}",
            vec![plot.mallory(Method::PUT, "/v1/grants/example/x").json(&login)],
        ),
        (
            "/v1/grants/{provider}/{account}/refresh",
            vec![plot.mallory(Method::POST, &hers("/refresh")).json(&body)],
        ),
        (
            "/v1/grants/{provider}/{account}/token",
            vec![plot.mallory(Method::GET, &hers("/token"))],
        ),
        (
            "/v1/grants/{provider}/{account}/audit",
            vec![plot.mallory(Method::GET, &hers("/audit?version=1"))],
        ),
    ]
}

fn oauth(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    let device = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
    let refresh = ("grant_type", "refresh_token");
    vec![
        (
            "/oauth/token",
            vec![
                plot.form("/oauth/token", &[refresh, ("refresh_token", &plot.alice.id)]),
                plot.form("/oauth/token", &[refresh, ("refresh_token", &plot.alice.access_token)]),
                plot.form(
                    "/oauth/token",
                    &[
                        refresh,
                        ("refresh_token", &plot.mallory.refresh_token),
                        ("client_id", &plot.alice.id),
                    ],
                ),
                plot.form("/oauth/token", &[device, ("device_code", &plot.alice.id)]),
            ],
        ),
        (
            "/oauth/device_authorization",
            vec![plot.form(
                "/oauth/device_authorization",
                &[("client_id", &plot.alice.id), ("user", "alice")],
            )],
        ),
        (
            "/oauth/device",
            vec![
                plot.mallory(Method::GET, "/oauth/device?user_code=alice"),
                plot.form(
                    "/oauth/device",
                    &[
                        ("user_code", "BCDF-GHJK"),
                        ("token", &plot.mallory.access_token),
                        ("user", "alice"),
                    ],
                ),
            ],
        ),
    ]
}

fn about_tokens(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    vec![
        (
            "/oauth/revoke",
            vec![
                plot.form("/oauth/revoke", &[("token", &plot.alice.id)]),
                plot.form("/oauth/revoke", &[("token", &plot.alice.access_token)]),
            ],
        ),
        (
            "/oauth/introspect",
            vec![
                plot.form("/oauth/introspect", &[("token", &plot.alice.refresh_token)]),
                plot.form("/oauth/introspect", &[("token", &plot.slave)]),
                plot.form("/oauth/introspect", &[("token", &plot.alice.access_token)]),
            ],
        ),
        (
            "/.well-known/jwks.json",
            vec![plot.mallory(Method::GET, "/.well-known/jwks.json")],
        ),
        (
            "/.well-known/oauth-authorization-server",
            vec![plot.mallory(Method::GET, "/.well-known/oauth-authorization-server")],
        ),
    ]
}

/// Every endpoint of the operator's listener, and the methods that it takes.
pub(super) fn intrusions(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    [users_and_devices(plot), upkeep(plot)].into_iter().flatten().collect()
}

fn users_and_devices(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    let (device, user) = (&plot.alice.id, "/admin/v1/users/alice");
    let at = |method: Method, path: String| plot.intrude(method, &path);
    let hers = format!("{user}/grants/{HERS}");
    vec![
        (
            "/admin/v1/users/{user}",
            vec![at(Method::GET, user.into()), at(Method::DELETE, user.into())],
        ),
        (
            "/admin/v1/users/{user}/grants/{provider}/{account}",
            vec![at(Method::PUT, hers.clone()), at(Method::DELETE, hers.clone())],
        ),
        (
            "/admin/v1/users/{user}/grants/{provider}/{account}/refresh",
            vec![at(Method::POST, format!("{hers}/refresh"))],
        ),
        (
            "/admin/v1/users/{user}/devices",
            vec![at(Method::POST, format!("{user}/devices"))],
        ),
        (
            "/admin/v1/devices/{device_id}",
            vec![
                at(Method::GET, format!("/admin/v1/devices/{device}")),
                at(Method::DELETE, format!("/admin/v1/devices/{device}")),
            ],
        ),
        (
            "/admin/v1/devices/{device_id}/grants/{provider}/{account}",
            vec![at(Method::POST, format!("/admin/v1/devices/{device}/grants/{HERS}"))],
        ),
        (
            "/admin/v1/devices/{device_id}/slaves/{slave}",
            vec![at(
                Method::DELETE,
                format!("/admin/v1/devices/{device}/slaves/0000000000000000"),
            )],
        ),
        (
            "/admin/v1/device-codes/{code}",
            vec![
                at(Method::GET, "/admin/v1/device-codes/BCDF-GHJK".into()),
                at(Method::POST, "/admin/v1/device-codes/BCDF-GHJK".into()),
                at(Method::DELETE, "/admin/v1/device-codes/BCDF-GHJK".into()),
            ],
        ),
    ]
}

fn upkeep(plot: &Plot) -> Vec<(&'static str, Vec<RequestBuilder>)> {
    let at = |method: Method, path: &str| vec![plot.intrude(method, path)];
    vec![
        ("/admin/v1/audit", at(Method::GET, "/admin/v1/audit")),
        ("/admin/v1/keys", at(Method::GET, "/admin/v1/keys")),
        ("/admin/v1/keys/rotate", at(Method::POST, "/admin/v1/keys/rotate")),
        ("/admin/v1/keys/reseal", at(Method::POST, "/admin/v1/keys/reseal")),
        ("/admin/v1/keys/{id}", at(Method::DELETE, "/admin/v1/keys/00000000")),
    ]
}

/// Endpoints that need no token, and tell nothing of any user.
pub(super) const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// Every path that the hub's source gives a route to.
pub(super) fn routes() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).expect("the hub's source") {
            let path = entry.expect("an entry").path();
            if path.ends_with("tests") || path.ends_with("tests.rs") {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read(&fs::read_to_string(&path).expect("a source file"), found);
            }
        }
    }
    fn read(text: &str, found: &mut BTreeSet<String>) {
        for (at, _) in text.match_indices(".route(") {
            let argument = text[at + ".route(".len()..].trim_start();
            let path = match argument.strip_prefix('"') {
                Some(literal) => literal.split('"').next().unwrap_or_default().to_owned(),
                // The one path with a name.
                None if argument.starts_with("page::PATH") => "/oauth/device".to_owned(),
                None => panic!(
                    "a route that this test cannot read: {}",
                    &argument[..argument.len().min(60)]
                ),
            };
            found.insert(path);
        }
    }
    let mut found = BTreeSet::new();
    walk(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../hub/src")),
        &mut found,
    );
    found
}

/// Every frame that a client may send, naming what is not its own.
pub(super) fn frames(plot: &Plot) -> Vec<(&'static str, Value)> {
    let lease = "00000000-0000-4000-8000-000000000001";
    let token = json!({"access_token": "at-mallory", "refresh_token": "rt-mallory", "token_type": "Bearer"});
    vec![
        (
            "hello",
            json!({"token": plot.alice.access_token, "device": {"id": plot.alice.id, "app": "x"}, "state": "active"}),
        ),
        ("ack", json!({"seq": 1})),
        (
            "refresh",
            json!({"id": "1", "grant": HERS, "rejected_version": 1, "reason": "rejected"}),
        ),
        ("presence", json!({"state": "idle"})),
        ("accept", json!({"grant": HERS, "lease": lease})),
        ("renew", json!({"grant": HERS, "lease": lease})),
        (
            "publish",
            json!({"id": "2", "grant": HERS, "lease": lease, "epoch": "0000000000000000", "from_version": 1, "token": token}),
        ),
        (
            "failed",
            json!({"id": "3", "grant": HERS, "lease": lease, "sent": true}),
        ),
    ]
}

pub(super) fn frame_types() -> BTreeSet<String> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/schema/lockstep.v1.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).expect("the schema")).expect("JSON");
    let kinds = schema["$defs"]["ClientFrame"]["oneOf"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    kinds
        .iter()
        .filter_map(|kind| kind["properties"]["type"]["const"].as_str().map(str::to_owned))
        .collect()
}
