//! Programs as they are without a hub: each has its own copy of the credentials and refreshes by itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    admin::{Answer, http},
    provider::{Pair, Provider},
};

/// What came of a refresh, as the program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// New tokens.
    Fresh,
    /// The provider refused: the program has wiped its tokens.
    LoggedOut,
    /// No answer: the program will try again.
    Nothing,
}

/// One process of such a program.
pub struct Program {
    endpoint: String,
    resource: String,
    json: bool,
    file: Option<PathBuf>,
    held: Option<(String, String)>,
}

impl Program {
    /// A process that has read these credentials.
    pub fn new(provider: &Provider, pair: &Pair) -> Self {
        Self {
            endpoint: provider.token_endpoint(),
            resource: provider.resource(),
            json: false,
            file: None,
            held: Some((pair.access_token.clone(), pair.refresh_token.clone())),
        }
    }

    /// It speaks JSON to the token endpoint.
    #[must_use]
    pub fn in_json(mut self) -> Self {
        self.json = true;
        self
    }

    /// It keeps what it gets, and wipes what is refused, in this file, which it shares with others.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn keeping(mut self, file: &Path) -> Self {
        self.file = Some(file.to_path_buf());
        self.keep();
        self
    }

    /// Whether it has tokens.
    pub fn is_logged_in(&self) -> bool {
        self.held.is_some()
    }

    /// Whether its access token is accepted.
    pub async fn works(&self) -> bool {
        let Some((access_token, _)) = &self.held else {
            return false;
        };
        Answer::to(http().get(&self.resource).bearer_auth(access_token))
            .await
            .status
            == 200
    }

    /// It found its token expired, and refreshes.
    pub async fn refresh(&mut self) -> Came {
        let Some((_, refresh_token)) = &self.held else {
            return Came::LoggedOut;
        };
        let fields = json!({"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": "app"});
        let request = http().post(&self.endpoint);
        let request = if self.json {
            request.json(&fields)
        } else {
            request.form(&fields)
        };
        let came = match Answer::try_to(request).await {
            Err(_) => return Came::Nothing,
            Ok(answer) if answer.status == 200 => {
                let text = |key: &str| answer.text(key).to_owned();
                self.held = Some((text("access_token"), text("refresh_token")));
                Came::Fresh
            }
            Ok(_) => {
                self.held = None;
                Came::LoggedOut
            }
        };
        self.keep();
        came
    }

    fn keep(&self) {
        if let Some(file) = &self.file {
            let (access_token, refresh_token) = self.held.clone().unwrap_or_default();
            let kept: Value = json!({"access_token": access_token, "refresh_token": refresh_token});
            fs::write(file, kept.to_string()).expect("a credentials file");
        }
    }
}
