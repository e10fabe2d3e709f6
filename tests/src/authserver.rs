//! `client-demo authserver`, as a process: a strict rotating authorization server that misbehaves when told to.

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    admin::{Answer, http},
    binaries,
    process::Process,
};

/// A running authorization server.
pub struct Authserver {
    _process: Process,
    base: String,
    http: Client,
    _dir: TempDir,
}

/// A grant of it.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name at the server.
    pub name: String,
    /// The body of a login at the hub.
    pub login: Value,
}

impl Authserver {
    /// Starts one with these arguments.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(arguments: &[&str]) -> Self {
        let dir = TempDir::with_prefix("lockstep-authserver-").expect("a temporary directory");
        let mut command = Command::new(binaries::demo());
        command.arg("authserver").args(arguments);
        let (process, ready) = Process::start(&mut command, &dir.path().join("authserver.log"))
            .await
            .unwrap_or_else(|refusal| panic!("the authorization server does not start:\n{}", refusal.log));
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

    /// Somebody logs in.
    ///
    /// # Panics
    /// When the answer has no name in it.
    pub async fn log_in(&self) -> Family {
        let granted = Answer::to(self.http.post(format!("{}/control/grants", self.base)))
            .await
            .expect(201);
        Family {
            name: granted["grant"].as_str().expect("a name").to_owned(),
            login: json!({
                "access_token": granted["access_token"],
                "refresh_token": granted["refresh_token"],
                "expires_in": granted["expires_in"],
            }),
        }
    }

    /// The next call for `family` meets this fault.
    pub async fn fault(&self, family: &Family, mut fault: Value) {
        fault["grant"] = family.name.as_str().into();
        Answer::to(self.http.post(format!("{}/control/faults", self.base)).json(&fault))
            .await
            .expect(204);
    }

    /// Every token call for `family` so far, in order of arrival.
    ///
    /// # Panics
    /// When the server does not tell.
    pub async fn calls(&self, family: &Family) -> Vec<Value> {
        let calls = Answer::to(self.http.get(format!("{}/control/calls", self.base)))
            .await
            .expect(200);
        let calls = calls.as_array().cloned().expect("a list of calls");
        calls
            .into_iter()
            .filter(|call| call["grant"] == family.name.as_str())
            .collect()
    }

    /// Whether `family` was ended.
    pub async fn is_revoked(&self, family: &Family) -> bool {
        let path = format!("{}/control/grants/{}", self.base, family.name);
        Answer::to(self.http.get(path)).await.expect(200)["revoked"] == true
    }

    /// Whether a resource would accept this access token now.
    pub async fn is_live(&self, access_token: &str) -> bool {
        let resource = self
            .http
            .get(format!("{}/resource", self.base))
            .bearer_auth(access_token);
        Answer::to(resource).await.status == 200
    }
}
