//! The certified npm `oidc-provider`, as a process.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Response, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

use crate::{
    admin::{Answer, http},
    process::Process,
};

/// Where the native app of the tests would listen. Nobody does: the flow is read off the redirect.
const REDIRECT: &str = "http://127.0.0.1:7/callback";

/// A real authorization server with strict rotation.
pub struct Oidc {
    _process: Process,
    base: String,
    http: Client,
    _dir: TempDir,
}

impl Oidc {
    /// Starts one whose access tokens live `ttl` seconds.
    ///
    /// # Panics
    /// When Node or its packages are missing (`scripts/setup` brings them).
    pub async fn start(ttl: u64) -> Self {
        let home = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/oidc-provider"));
        assert!(
            home.join("node_modules").is_dir(),
            "oidc-provider is not installed: run scripts/setup"
        );
        let dir = TempDir::with_prefix("lockstep-oidc-").expect("a temporary directory");
        let log: PathBuf = dir.path().join("oidc.log");
        let mut command = Command::new("node");
        command
            .current_dir(home)
            .args(["server.mjs", "--ttl", &ttl.to_string()]);
        let (process, ready) = Process::start(&mut command, &log)
            .await
            .unwrap_or_else(|refusal| panic!("oidc-provider does not start:\n{}", refusal.log));
        let address = ready["listening"].as_str().expect("a ready line with an address");
        Self {
            _process: process,
            base: format!("http://{address}"),
            http: http(),
            _dir: dir,
        }
    }

    /// Its token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.base)
    }

    /// A grant without a browser, as the body of a login at the hub.
    pub async fn mint(&self) -> Value {
        Answer::to(self.http.post(format!("{}/test/grants", self.base)))
            .await
            .expect(201)
    }

    /// Every token call so far: `{at, grant_type, refresh_token, status, error}`.
    ///
    /// # Panics
    /// When the server does not tell.
    pub async fn calls(&self) -> Vec<Value> {
        let calls = Answer::to(self.http.get(format!("{}/test/calls", self.base)))
            .await
            .expect(200);
        calls.as_array().cloned().expect("a list of calls")
    }

    /// The token calls that were refreshes.
    pub async fn refreshes(&self) -> Vec<Value> {
        let calls = self.calls().await;
        calls
            .into_iter()
            .filter(|call| call["grant_type"] == "refresh_token")
            .collect()
    }

    /// The authorization code flow with PKCE (RFC 6749 section 4.1, RFC 7636), as a native app and a consenting user go
    /// through it. Returns the body of a login at the hub.
    ///
    /// # Panics
    /// When the server does not lead to a code.
    pub async fn log_in(&self) -> Value {
        let verifier = uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string();
        let code = self.authorize(&challenge(&verifier)).await;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "app"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", &verifier),
        ];
        let tokens = Answer::to(self.http.post(self.token_endpoint()).form(&form))
            .await
            .expect(200);
        json!({
            "access_token": tokens["access_token"],
            "refresh_token": tokens["refresh_token"],
            "expires_in": tokens["expires_in"],
            "scope": tokens["scope"],
            "token_type": tokens["token_type"],
        })
    }

    async fn authorize(&self, challenge: &str) -> String {
        let query = [
            ("client_id", "app"),
            ("response_type", "code"),
            ("redirect_uri", REDIRECT),
            ("scope", "openid offline_access"),
            ("prompt", "consent"),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ];
        let mut next = Url::parse_with_params(&format!("{}/auth", self.base), query).expect("a URL");
        let mut cookies = Vec::new();
        for _ in 0..10 {
            let request = self.http.get(next.clone()).header(header::COOKIE, cookies.join("; "));
            let response = request.send().await.expect("an HTTP answer");
            keep_cookies(&mut cookies, &response);
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.unwrap_or_else(|| panic!("no redirect from {next}: {}", response.status()));
            next = next.join(location).expect("a URL");
            if next.as_str().starts_with(REDIRECT) {
                let code = next.query_pairs().find(|(key, _)| key == "code");
                return code.unwrap_or_else(|| panic!("no code in {next}")).1.into_owned();
            }
        }
        panic!("too many redirects, the last to {next}")
    }
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

fn keep_cookies(cookies: &mut Vec<String>, response: &Response) {
    for set in response.headers().get_all(header::SET_COOKIE) {
        let pair = set.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        let name = pair.split('=').next().unwrap_or_default().to_owned();
        cookies.retain(|known| known.split('=').next() != Some(&name));
        cookies.push(pair.to_owned());
    }
}
