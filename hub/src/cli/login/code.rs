//! The authorization code flow of a native application: PKCE, a state that is checked, a redirect to this machine.

use std::net::Ipv4Addr;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_protocol::Secret;
use subtle::ConstantTimeEq;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};
use url::Url;

use super::{Login, Outcome, Walk};

/// Where the browser comes back to.
const PATH: &str = "/callback";
/// Longer requests are not a browser's that comes back from a login.
const MOST_HEAD: usize = 16 * 1024;
/// How long a browser may take to say what it wants.
const HEAD_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

impl Walk<'_> {
    /// Opens the provider's page, waits until it sends the browser back, and exchanges the code. Whoever calls bounds it
    /// in time.
    pub(super) async fn by_code(&self) -> Result<Login, Outcome> {
        let endpoint = self.endpoint(&self.settings.authorization_endpoint, "authorization_endpoint")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.args.port))
            .await
            .map_err(|error| Outcome::failed(format!("cannot wait for the browser: {error}")))?;
        let port = listener.local_addr().map_err(Outcome::failed)?.port();
        // The address, not the name: RFC 8252 section 7.3.
        let redirect_uri = format!("http://127.0.0.1:{port}{PATH}");
        let (state, verifier) = (random()?, random()?);
        let address = self.address(endpoint, &redirect_uri, &state, &verifier);
        eprintln!("Log in at {address}");
        if !self.args.no_browser {
            open_browser(&address);
        }
        let code = wait(&listener, &state).await?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect_uri.as_str()),
            ("code_verifier", verifier.expose()),
        ];
        self.post(&self.settings.token_endpoint, &fields)
            .await?
            .map_err(super::Refusal::told)
    }

    fn address(&self, endpoint: &Url, redirect_uri: &str, state: &Secret, verifier: &Secret) -> Url {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose().as_bytes()));
        let mut address = endpoint.clone();
        let mut query = address.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(scope) = self.scope() {
            query.append_pair("scope", scope);
        }
        query.extend_pairs(&self.args.params);
        drop(query);
        address
    }
}

fn random() -> Result<Secret, Outcome> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Outcome::failed("the system gives no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Tries to; whoever has none has the address on the screen.
fn open_browser(address: &Url) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let _ = Command::new(opener)
        .arg(address.as_str())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
}

/// What a browser came back with.
enum Came {
    /// The code of this login.
    With(Secret),
    /// The provider's no.
    Refused(String),
    /// Something else: another page of this machine, or somebody with a made-up answer. Not told from one another.
    Astray,
}

async fn wait(listener: &TcpListener, state: &Secret) -> Result<Secret, Outcome> {
    loop {
        let (mut browser, _) = listener.accept().await.map_err(Outcome::failed)?;
        let Ok(Some(target)) = tokio::time::timeout(HEAD_WITHIN, target(&mut browser)).await else {
            continue;
        };
        let came = came(&target, state);
        let (status, words) = match &came {
            Came::With(_) => ("200 OK", "Done. You may close this page."),
            Came::Refused(_) => ("200 OK", "The provider refused. You may close this page."),
            Came::Astray => ("404 Not Found", "There is nothing here."),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\nreferrer-policy: no-referrer\r\n\r\n{words}\n",
            words.len() + 1
        );
        let _ = browser.write_all(answer.as_bytes()).await;
        let _ = browser.shutdown().await;
        match came {
            Came::With(code) => return Ok(code),
            Came::Refused(why) => return Err(Outcome::failed(format!("the provider refused: {why}"))),
            Came::Astray => {}
        }
    }
}

/// The target of a GET request, once its head is complete.
async fn target(browser: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= MOST_HEAD || browser.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut parts = line.split(' ');
    (parts.next()? == "GET").then_some(())?;
    parts.next().map(str::to_owned)
}

/// Only an answer that bears this login's state is one: nobody can slip us another's code (RFC 6749 section 10.12).
fn came(target: &str, state: &Secret) -> Came {
    let Ok(url) = Url::parse("http://127.0.0.1").and_then(|base| base.join(target)) else {
        return Came::Astray;
    };
    let field = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let ours = field("state").is_some_and(|came| came.as_bytes().ct_eq(state.expose().as_bytes()).into());
    if url.path() != PATH || !ours {
        return Came::Astray;
    }
    match (field("code"), field("error")) {
        (Some(code), None) if !code.is_empty() => Came::With(Secret::new(code)),
        (_, Some(error)) => {
            let more = field("error_description")
                .map(|more| format!(": {more}"))
                .unwrap_or_default();
            Came::Refused(format!("{error}{more}"))
        }
        _ => Came::Astray,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_with_this_logins_state_counts() {
        let state = Secret::new("s-1");
        let with = |target: &str| match came(target, &state) {
            Came::With(code) => format!("code {}", code.expose()),
            Came::Refused(why) => format!("refused {why}"),
            Came::Astray => "astray".to_owned(),
        };
        assert_eq!(with("/callback?code=c&state=s-1"), "code c");
        assert_eq!(with("/callback?error=access_denied&state=s-1"), "refused access_denied");
        for target in [
            "/callback?code=c",
            "/callback?code=c&state=s-2",
            "/callback?code=c&state=",
            "/callback?code=&state=s-1",
            "/callback?error=access_denied",
            "/favicon.ico",
            "/other?code=c&state=s-1",
            "*",
            "//",
        ] {
            assert_eq!(with(target), "astray", "{target}");
        }
    }
}
