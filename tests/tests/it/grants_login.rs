//! `lockstep-hub grants login`: at the demo's authorization server, and at a certified one.

use std::{path::Path, process::Stdio};

use lockstep_tests::{BOUND, GRANT, Hub, Oidc, Session, Settings, binaries, process::Process, within};
use reqwest::{Client, RequestBuilder, header};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};
use url::Url;

/// What stands before the address when the browser is to come back by itself.
const BY_CODE: &str = "Log in at ";
/// The same when the user types a code.
const BY_DEVICE: &str = "Open ";

/// A login under way.
struct Login {
    child: Child,
    /// Where it sends its user.
    address: String,
    /// What it says after that.
    rest: JoinHandle<String>,
}

impl Login {
    /// Starts one, and reads on to the line that says where to go, after `mark`.
    async fn start(hub: &Hub, mark: &str, more: &[&str]) -> Self {
        let mut child = Command::new(binaries::hub())
            .args([
                "grants",
                "login",
                "example/main",
                "--user",
                "alice",
                "--no-browser",
                "--config",
            ])
            .arg(hub.config())
            .args(more)
            .env("LOCKSTEP_ADMIN", format!("http://{}", hub.admin_listen))
            .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let address = within("the login says where to go", BOUND, async {
            let mut said = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                said += &line;
                if let Some((_, address)) = line.split_once(mark) {
                    return address.to_owned();
                }
            }
            panic!("no address: {said}")
        })
        .await;
        let rest = tokio::spawn(async move {
            let mut rest = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                rest += &line;
            }
            rest
        });
        Self { child, address, rest }
    }

    /// Waits for its end. Whether it is content, and what it said.
    async fn ended(mut self) -> (bool, String) {
        let status = within("the login ends", BOUND, self.child.wait())
            .await
            .expect("a status");
        let rest = within("what it said", BOUND, self.rest).await.expect("read");
        (status.success(), rest)
    }

    async fn succeeds(self) {
        let (good, said) = self.ended().await;
        assert!(good, "{said}");
    }
}

/// A browser: follows redirects and keeps cookies.
struct Browser {
    client: Client,
    cookies: Vec<String>,
    /// Where it is.
    at: Url,
}

impl Browser {
    fn at(address: &str) -> Self {
        Self {
            client: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client"),
            cookies: Vec::new(),
            at: Url::parse(address).expect("an address"),
        }
    }

    /// Opens the page.
    async fn open(&mut self) -> (u16, String) {
        let request = self.client.get(self.at.clone());
        self.follow(request).await
    }

    /// Sends the form of a page, with what was typed into it.
    async fn submit(&mut self, page: &str, typed: &[(&str, &str)]) -> (u16, String) {
        let (_, form) = page.split_once("<form").expect("a form");
        self.at = self.at.join(&quoted(form, "action")).expect("the form's address");
        let hidden = page.split("<input").skip(1).filter(|input| input.contains("hidden"));
        let hidden: Vec<_> = hidden
            .map(|input| (quoted(input, "name"), quoted(input, "value")))
            .collect();
        let typed = typed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let form: Vec<_> = hidden.into_iter().chain(typed).collect();
        let request = self.client.post(self.at.clone()).form(&form);
        self.follow(request).await
    }

    async fn follow(&mut self, mut request: RequestBuilder) -> (u16, String) {
        for _ in 0..12 {
            let request_now = request.header(header::COOKIE, self.cookies.join("; "));
            let response = request_now.send().await.expect("an answer");
            for set in response.headers().get_all(header::SET_COOKIE) {
                let pair = set.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
                let name = pair.split('=').next().unwrap_or_default().to_owned();
                self.cookies.retain(|known| known.split('=').next() != Some(&name));
                self.cookies.push(pair.to_owned());
            }
            let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let Some(to) = location else {
                return (response.status().as_u16(), response.text().await.unwrap_or_default());
            };
            self.at = self.at.join(to).expect("a URL");
            request = self.client.get(self.at.clone());
        }
        panic!("too many redirects")
    }
}

/// The value of a tag's attribute.
fn quoted(tag: &str, name: &str) -> String {
    let after = tag.split_once(&format!("{name}=\"")).map_or("", |(_, after)| after);
    after.split('"').next().unwrap_or_default().to_owned()
}

async fn browse(address: &str) -> (u16, String) {
    Browser::at(address).open().await
}

async fn demo_server(dir: &Path) -> (Process, Value) {
    let mut command = Command::new(binaries::demo());
    command.args(["authserver", "--listen", "127.0.0.1:0"]);
    match Process::start(&mut command, &dir.join("authserver.log")).await {
        Ok(started) => started,
        Err(refusal) => panic!("the authorization server does not start:\n{}", refusal.log),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorization_code_flow_brings_a_grant_that_refreshes() {
    let dir = TempDir::new().expect("a temporary directory");
    let (_server, ready) = demo_server(dir.path()).await;
    let base = format!("http://{}", ready["listening"].as_str().unwrap_or_default());
    let settings =
        Settings::new(&format!("{base}/token")).example("authorization_endpoint", format!("{base}/authorize"));
    let hub = Hub::start(settings).await;
    let login = Login::start(&hub, BY_CODE, &["--scope", "demo"]).await;
    let address = login.address.clone();
    for part in [
        "code_challenge_method=S256",
        "state=",
        "scope=demo",
        "redirect_uri=http%3A%2F%2F127.0.0.1%3A",
    ] {
        assert!(address.contains(part), "{part} in {address}");
    }
    // Somebody who guesses at the port comes to nothing.
    let redirect = Url::parse(&address).expect("a URL");
    let redirect = redirect
        .query_pairs()
        .find(|(key, _)| key == "redirect_uri")
        .map(|(_, to)| to.into_owned());
    let redirect = redirect.unwrap_or_default();
    assert_eq!(browse(&format!("{redirect}?code=stolen&state=guessed")).await.0, 404);
    let (status, said) = browse(&address).await;
    assert_eq!(status, 200, "{said}");
    login.succeeds().await;
    let grant = hub.admin().grant("alice", "example/main").await;
    assert_eq!(
        (&grant["version"], &grant["health"]),
        (&1.into(), &"ok".into()),
        "{grant}"
    );
    let refreshed = hub.admin().refresh("alice", "example/main").await.expect(200);
    assert_eq!(refreshed["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_provider_is_content_with_the_login() {
    let provider = Oidc::start(3600).await;
    let base = provider.token_endpoint().trim_end_matches("/token").to_owned();
    let settings = Settings::new(&provider.token_endpoint())
        .example("authorization_endpoint", format!("{base}/auth"))
        .example("scope", "openid offline_access");
    let hub = Hub::start(settings).await;
    let login = Login::start(&hub, BY_CODE, &["--param", "prompt=consent"]).await;
    let (status, said) = browse(&login.address).await;
    assert_eq!(status, 200, "{said}");
    login.succeeds().await;
    let refreshed = hub.admin().refresh("alice", "example/main").await.expect(200);
    assert_eq!(refreshed["version"], 2);
}

/// A login by the provider's device flow: the command, where its user goes, and the code to be typed there.
async fn by_device(hub: &Hub) -> (Login, Browser, String) {
    let login = Login::start(hub, BY_DEVICE, &["--device"]).await;
    let (address, code) = login.address.split_once(" and type ").expect("an address and a code");
    let (browser, code) = (Browser::at(address), code.to_owned());
    (login, browser, code)
}

async fn hub_at(provider: &Oidc) -> Hub {
    let base = provider.token_endpoint().trim_end_matches("/token").to_owned();
    let settings = Settings::new(&provider.token_endpoint())
        .example("device_authorization_endpoint", format!("{base}/device/auth"))
        .example("scope", "openid offline_access");
    Hub::start(settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certified_provider_s_device_flow_brings_a_grant_that_is_pushed_and_refreshes() {
    let provider = Oidc::start(3600).await;
    let hub = hub_at(&provider).await;
    let device = hub.admin().enrol("alice").await;
    let mut session = Session::fresh(&hub, &device).await;

    let (login, mut browser, code) = by_device(&hub).await;
    let (status, page) = browser.open().await;
    assert_eq!(status, 200, "{page}");
    let (status, page) = browser.submit(&page, &[("user_code", "WRNG-WRNG")]).await;
    assert!(status == 200 && page.contains("incorrect"), "{status} {page}");
    let (_, page) = browser.submit(&page, &[("user_code", &code)]).await;
    assert!(page.contains(&code), "what is confirmed is shown: {page}");
    let (status, page) = browser.submit(&page, &[]).await;
    assert!(status == 200 && page.contains("Success"), "{status} {page}");
    login.succeeds().await;

    let token = session.frame("token").await;
    assert_eq!(
        (&token["grant"], &token["version"], &token["cause"]),
        (&GRANT.into(), &1.into(), &"login".into()),
        "{token}"
    );
    assert_eq!(session.refresh(GRANT, 1).await["version"], 2);
    let calls = provider.calls().await;
    let by_code = |call: &&Value| call["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code";
    let errors: Vec<_> = calls.iter().filter(by_code).map(|call| &call["error"]).collect();
    let (last, before) = errors.split_last().expect("it asked");
    assert!(last.is_null(), "{calls:?}");
    assert!(
        before.iter().all(|error| **error == "authorization_pending"),
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_says_no_at_the_provider_ends_the_login() {
    let provider = Oidc::start(3600).await;
    let hub = hub_at(&provider).await;
    let (login, mut browser, code) = by_device(&hub).await;
    let (_, page) = browser.open().await;
    browser.submit(&page, &[("user_code", &code), ("abort", "yes")]).await;
    let (good, said) = login.ended().await;
    assert!(!good && said.contains("access_denied"), "{said}");
    hub.admin().user("alice").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let hub = Hub::start(Settings::new("http://127.0.0.1:9/token")).await;
    for (more, setting) in [
        (None, "authorization_endpoint"),
        (Some("--device"), "device_authorization_endpoint"),
    ] {
        let output = Command::new(binaries::hub())
            .args(["grants", "login", "example/main", "--user", "alice", "--config"])
            .arg(hub.config())
            .args(more)
            .env("LOCKSTEP_ADMIN", format!("http://{}", hub.admin_listen))
            .env("LOCKSTEP_ADMIN_TOKEN", hub.admin_token())
            .output()
            .await
            .expect("the binary starts");
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(setting), "{said}");
    }
}
