//! Text in, frame out, and back. Decoding never panics, whatever the text.

use serde::{Serialize, de::DeserializeOwned};

use crate::{ClientFrame, HubFrame, RequestId, limits::MAX_FRAME};

/// Why a text is not a frame. The text itself is not kept: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadFrame {
    /// What is wrong, in words that are safe to send back.
    pub why: String,
    /// The request that the answer belongs to, if the text got so far as to tell.
    pub id: Option<RequestId>,
}

/// Decodes what a client sent.
///
/// # Errors
/// [`BadFrame`] when it is not JSON, not an object, of unknown `type` or with wrong fields.
pub fn decode_client(text: &str) -> Result<ClientFrame, BadFrame> {
    decode(text)
}

/// Decodes what a hub sent.
///
/// # Errors
/// [`BadFrame`] when it is not JSON, not an object, of unknown `type` or with wrong fields.
pub fn decode_hub(text: &str) -> Result<HubFrame, BadFrame> {
    decode(text)
}

/// Encodes a frame as one line of JSON.
pub fn encode<F: Serialize>(frame: &F) -> String {
    // Frames are plain structs with string keys; serde_json has no way to fail on them.
    serde_json::to_string(frame).unwrap_or_default()
}

fn decode<F: DeserializeOwned>(text: &str) -> Result<F, BadFrame> {
    if text.len() > MAX_FRAME {
        return Err(BadFrame {
            why: format!("larger than {MAX_FRAME} bytes"),
            id: None,
        });
    }
    serde_json::from_str(text).map_err(|error| BadFrame {
        why: explain(text, &error),
        id: request_id(text),
    })
}

/// Names what is wrong without repeating any value: serde's own words may quote the input, which may be a token.
fn explain(text: &str, error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    match error.classify() {
        Category::Data if !text.trim_start().starts_with('{') => "not a JSON object".into(),
        Category::Data => format!(
            "unknown type or wrong fields (at line {} column {})",
            error.line(),
            error.column()
        ),
        Category::Syntax | Category::Eof | Category::Io => {
            format!("not JSON (at line {} column {})", error.line(), error.column())
        }
    }
}

fn request_id(text: &str) -> Option<RequestId> {
    #[derive(serde::Deserialize)]
    struct OnlyId {
        id: Option<RequestId>,
    }
    serde_json::from_str::<OnlyId>(text).ok()?.id
}
