//! What a redeem looks like on the wire (RFC 6749 sections 2.3.1 and 6).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use lockstep_protocol::Secret;
use reqwest::header::HeaderValue;
use url::form_urlencoded::{self, byte_serialize};
use zeroize::Zeroizing;

use super::ProviderError;
use crate::config::{ClientAuth, ProviderSettings, RequestFormat};

/// How the hub shows the provider who it is.
#[derive(Debug)]
pub(super) struct Credentials {
    auth: ClientAuth,
    secret: Option<Secret>,
    authorization: Option<HeaderValue>,
}

impl Credentials {
    /// Takes the secret from the settings or from its file.
    pub(super) fn new(name: &str, settings: &ProviderSettings) -> Result<Self, ProviderError> {
        let secret = match &settings.client_secret_file {
            None => settings.client_secret.clone(),
            Some(file) => Some(secret_from(file).map_err(|why| ProviderError::SecretFile {
                name: name.to_owned(),
                file: file.display().to_string(),
                why,
            })?),
        };
        let auth = settings.client_auth();
        let authorization = match (auth, &secret) {
            (ClientAuth::Basic, Some(secret)) => Some(basic(&settings.client_id, secret)),
            _ => None,
        };
        Ok(Self {
            auth,
            secret,
            authorization,
        })
    }

    /// The `Authorization` header, marked as not to be shown.
    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }

    /// Body and content type of a redeem.
    pub(super) fn redeem_body(
        &self,
        settings: &ProviderSettings,
        refresh_token: &Secret,
        scope: Option<&str>,
    ) -> (Zeroizing<String>, &'static str) {
        let mut fields = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        fields.extend(scope.map(|scope| ("scope", scope)));
        self.body(settings, fields)
    }

    /// Body and content type of a request, once the client's own fields are added.
    pub(super) fn body<'a>(
        &'a self,
        settings: &'a ProviderSettings,
        mut fields: Vec<(&'a str, &'a str)>,
    ) -> (Zeroizing<String>, &'static str) {
        if self.auth != ClientAuth::Basic {
            fields.push(("client_id", &settings.client_id));
        }
        if let (ClientAuth::Post, Some(secret)) = (self.auth, &self.secret) {
            fields.push(("client_secret", secret.expose()));
        }
        match settings.request_format {
            RequestFormat::Form => (form(&fields), "application/x-www-form-urlencoded"),
            RequestFormat::Json => (json(&fields), "application/json"),
        }
    }
}

fn secret_from(file: &std::path::Path) -> Result<Secret, String> {
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(|error| error.to_string())?);
    // Editors end a file with a newline that is not part of the secret.
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("empty".into()),
        secret => Ok(Secret::new(secret)),
    }
}

fn form(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let mut body = form_urlencoded::Serializer::new(String::new());
    Zeroizing::new(body.extend_pairs(fields).finish())
}

fn json(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let object: serde_json::Map<_, _> = fields
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    Zeroizing::new(serde_json::Value::Object(object).to_string())
}

/// HTTP Basic as RFC 6749 section 2.3.1 wants it: both parts form-urlencoded first.
fn basic(client_id: &str, secret: &Secret) -> HeaderValue {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(client_id), encoded(secret.expose())));
    let text = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
    #[expect(clippy::expect_used, reason = "base64 is ASCII, and so a header value")]
    let mut value = HeaderValue::from_str(&text).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}
