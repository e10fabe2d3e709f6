//! Text in, frame out, and back. Decoding never panics, whatever the text.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{ClientFrame, HubFrame, RequestId, Seq, frame::Ack, limits::MAX_FRAME, number::NUMBER_BOUND};

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
    match plain_ack(text) {
        Some(ack) => Ok(ClientFrame::Ack(ack)),
        None => decode(text, ClientFrame::from_json),
    }
}

/// Decodes what a hub sent.
///
/// # Errors
/// [`BadFrame`] when it is not JSON, not an object, of unknown `type` or with wrong fields.
pub fn decode_hub(text: &str) -> Result<HubFrame, BadFrame> {
    decode(text, HubFrame::from_json)
}

/// Encodes a frame as one line of JSON.
pub fn encode<F: Serialize>(frame: &F) -> String {
    // Frames are plain structs with string keys; serde_json has no way to fail on them.
    serde_json::to_string(frame).unwrap_or_default()
}

/// Reads the one frame that comes with every delivery in the one form that clients write it, without a JSON reader.
/// Anything else, right or wrong, is none of its business.
fn plain_ack(text: &str) -> Option<Ack> {
    let digits = text
        .strip_prefix(r#"{"type":"ack","seq":"#)?
        .strip_suffix('}')?
        .as_bytes();
    // 16 digits hold every number below 2^53 and cannot overflow; JSON knows no leading zeros.
    if digits.is_empty() || digits.len() > 16 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut seq = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        seq = seq * 10 + u64::from(digit - b'0');
    }
    (seq < NUMBER_BOUND).then_some(Ack { seq: Seq(seq) })
}

/// Finds the `type`, then reads the frame straight into its struct. Two passes over at most 64 KiB cost less than the
/// tree of values that serde builds for a tagged enum, and leave no copies of secrets in it.
fn decode<F>(text: &str, from_json: impl Fn(&str, &str) -> Option<serde_json::Result<F>>) -> Result<F, BadFrame> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    if text.len() > MAX_FRAME {
        let why = format!("larger than {MAX_FRAME} bytes");
        return Err(BadFrame { why, id: None });
    }
    let bad = |why| BadFrame {
        why,
        id: request_id(text),
    };
    if !is_object(text) {
        return Err(bad("not a JSON object".into()));
    }
    let tag = serde_json::from_str::<Tag<'_>>(text).map_err(|error| bad(explain(&error)))?;
    let frame = from_json(&tag.kind, text).ok_or_else(|| bad("unknown type".into()))?;
    frame.map_err(|error| bad(explain(&error)))
}

/// Whether `text` can only be an object: serde would also read a struct from a list.
fn is_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{')
}

/// Names what is wrong without repeating any value: serde's own words may quote the input, which may be a token.
fn explain(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => format!("not JSON (at line {line} column {column})"),
        Category::Data => {
            let words = error.to_string();
            // These two name a field of ours, and quote nothing.
            if words.starts_with("missing field") || words.starts_with("duplicate field") {
                words
            } else {
                format!("wrong field (at line {line} column {column})")
            }
        }
    }
}

fn request_id(text: &str) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<RequestId>,
    }
    if !is_object(text) {
        return None;
    }
    serde_json::from_str::<OnlyId>(text).ok()?.id
}
