//! `docs/protocol.md` tells the truth, and all of it.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::LazyLock};

use lockstep_protocol::{Close, Code, close::AfterClose, decode_client, decode_hub, limits, schema, version::VERSIONS};
use serde_json::{Value, json};

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    fs::read_to_string(file).expect("docs/protocol.md")
});

/// Who says a frame in an example.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Hub,
}

/// A fenced block: what stands behind the fence, and its lines.
fn blocks() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in PAGE.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(info), None) => open = Some((info, Vec::new())),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some((info, mut lines))) => {
                lines.push(line);
                open = Some((info, lines));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block without an end");
    blocks
}

/// The frames of all conversations: a line that begins with an arrow, and the indented lines below it.
fn frames() -> Vec<(Speaker, String)> {
    let mut frames: Vec<(Speaker, String)> = Vec::new();
    for (_, lines) in blocks().into_iter().filter(|(info, _)| info.is_empty()) {
        for line in lines {
            if let Some(frame) = line.strip_prefix("→ ") {
                frames.push((Speaker::Client, frame.to_owned()));
            } else if let Some(frame) = line.strip_prefix("← ") {
                frames.push((Speaker::Hub, frame.to_owned()));
            } else if let (Some(more), Some((_, frame))) = (line.strip_prefix("   "), frames.last_mut()) {
                frame.push_str(more);
            } else {
                assert!(line.starts_with('#'), "neither a frame nor a remark: {line}");
            }
        }
    }
    frames
}

fn validator(definition: &str) -> jsonschema::Validator {
    let schema = json!({ "$ref": format!("#/$defs/{definition}"), "$defs": schema::document()["$defs"] });
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema")
}

#[test]
fn every_frame_of_the_examples_is_one() {
    let (client, hub) = (validator("ClientFrame"), validator("HubFrame"));
    for (speaker, text) in frames() {
        // The one that shows what happens to a frame of no type.
        if text.contains(r#""type":"subscribe""#) {
            assert!(decode_client(&text).is_err());
            continue;
        }
        let frame: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let (decoded, validator) = match speaker {
            Speaker::Client => (decode_client(&text).err(), &client),
            Speaker::Hub => (decode_hub(&text).err(), &hub),
        };
        assert_eq!(decoded, None, "{text}");
        assert!(validator.is_valid(&frame), "{text}");
    }
}

#[test]
fn every_type_of_frame_has_an_example() {
    let mut shown = BTreeSet::new();
    for (speaker, text) in frames() {
        shown.extend(match speaker {
            Speaker::Client => decode_client(&text).ok().map(|frame| ("ClientFrame", frame.kind())),
            Speaker::Hub => decode_hub(&text).ok().map(|frame| ("HubFrame", frame.kind())),
        });
    }
    let document = schema::document();
    let mut wanted = BTreeSet::new();
    for direction in ["ClientFrame", "HubFrame"] {
        for variant in document["$defs"][direction]["oneOf"].as_array().expect("variants") {
            wanted.insert((
                direction,
                variant["properties"]["type"]["const"].as_str().expect("a type"),
            ));
        }
    }
    assert_eq!(shown, wanted);
}

#[test]
fn answers_in_the_examples_belong_to_a_request() {
    let mut asked = Vec::new();
    for (speaker, text) in frames() {
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        match (speaker, frame["type"].as_str()) {
            (Speaker::Client, Some("refresh" | "publish" | "failed" | "subscribe")) => asked.push(frame["id"].clone()),
            (Speaker::Hub, Some("done" | "error")) => {
                let at = asked.iter().position(|id| *id == frame["id"]);
                asked.remove(at.unwrap_or_else(|| panic!("nobody asked: {text}")));
            }
            _ => {}
        }
    }
    assert!(asked.is_empty(), "never answered: {asked:?}");
}

#[test]
fn every_body_of_the_examples_is_one() {
    let mut shown = BTreeSet::new();
    for (info, lines) in blocks() {
        let Some(definition) = info.strip_prefix("http") else {
            assert_eq!(info, "");
            continue;
        };
        let text = lines.join("\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        for length in head.lines().filter_map(|line| line.strip_prefix("Content-Length: ")) {
            assert_eq!(length, body.len().to_string(), "{text}");
        }
        let value = serde_json::from_str::<Value>(body);
        assert_eq!(value.is_ok(), body.starts_with('{'), "{body}");
        let definition = definition.trim();
        if !definition.is_empty() {
            let value = value.unwrap_or_else(|error| panic!("{body}: {error}"));
            assert!(validator(definition).is_valid(&value), "not a {definition}: {body}");
            shown.insert(definition);
        }
    }
    assert_eq!(shown, BTreeSet::from(schema::BODIES));
}

/// The row under `heading` that begins with `` `first` ``.
fn row(heading: &str, first: &str) -> &'static str {
    let start = format!("| `{first}`");
    let section = PAGE.split_once(&format!("\n### {heading}\n")).expect("a heading").1;
    let mut rows = section.lines().take_while(|line| !line.starts_with('#'));
    let row = rows.find(|line| line.starts_with(&start));
    row.unwrap_or_else(|| panic!("no row under {heading} for {first}"))
}

#[test]
fn every_close_code_is_told_with_what_comes_next() {
    for close in Close::ALL {
        let told = row("Close codes", &close.code().to_string());
        let word = match Close::after(close.code()) {
            AfterClose::Stop => "**stop**",
            AfterClose::End => "**ends**",
            AfterClose::Reconnect if close == Close::Normal => "connect again",
            AfterClose::Reconnect => "reconnect",
        };
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn every_error_code_is_told_with_what_to_do() {
    for code in Code::ALL {
        assert_eq!(row("Errors", code.as_str()).matches('|').count(), 4, "{code}");
    }
}

#[test]
fn every_field_and_word_of_the_schema_is_in_the_reference() {
    fn words(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().cloned());
                }
                if let Some(Value::String(word)) = object.get("const") {
                    found.insert(word.clone());
                }
                object.values().for_each(|value| words(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| words(value, found)),
            _ => {}
        }
    }
    let reference = PAGE.split_once("\n## Reference\n").expect("a reference").1;
    let codes: Vec<_> = Code::ALL.map(Code::as_str).to_vec();
    let mut wanted = BTreeSet::new();
    words(&schema::document()["$defs"], &mut wanted);
    let missing: Vec<_> = wanted
        .iter()
        .filter(|word| !codes.contains(&word.as_str()) && !reference.contains(&format!("`{word}`")))
        .collect();
    assert!(missing.is_empty(), "not in the reference: {missing:?}");
}

#[test]
fn limits_and_versions_are_those_of_the_code() {
    let limits = [
        ("| frame |", format!("{} KiB", limits::MAX_FRAME / 1024)),
        ("| `hello` after", format!("{} s", limits::HELLO_WITHIN.as_secs())),
        ("| bad frames", limits::MAX_BAD_FRAMES.to_string()),
        ("| ack owed |", format!("{} s", limits::ACK_WITHIN.as_secs())),
        ("| `accept` after", format!("{} s", limits::ACCEPT_WITHIN.as_secs())),
        ("| `wait` of a poll |", format!("{} s", limits::MAX_POLL_WAIT)),
        ("| connected after", format!("{} s", limits::POLLER_CONNECTED.as_secs())),
        (
            "| a redeem before",
            format!("{} ms", limits::REFRESHING_AFTER.as_millis()),
        ),
        (
            "| `id` |",
            format!("{} characters", lockstep_protocol::RequestId::LONGEST),
        ),
    ];
    for (start, value) in limits {
        let row = PAGE.lines().find(|line| line.starts_with(start));
        let row = row.unwrap_or_else(|| panic!("no row {start}"));
        assert!(row.ends_with(&format!("| {value} |")), "{row} is {value}");
    }
    for version in VERSIONS {
        row("Versions", version.subprotocol);
    }
}
