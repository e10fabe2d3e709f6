//! The golden vectors hold for this implementation, agree with the schema, and leave no frame out.

use std::{collections::BTreeSet, fs, path::PathBuf};

use lockstep_protocol::{
    BadFrame, Close,
    close::AfterClose,
    decode_client, decode_hub, encode,
    frame::Token,
    http::{GrantVersion, LoginBody, PollAnswer, Problem, RefreshBody},
    schema,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    about: String,
    definition: String,
    r#type: Option<String>,
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Valid {
    name: String,
    text: String,
    frame: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalid {
    name: String,
    text: String,
    result: String,
    id: Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All vector files with their names, `close.json` aside.
fn all() -> Vec<(String, Vectors)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder()).expect("the folder of vectors") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "close.json" || !name.ends_with(".json") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a vector file");
        files.push((
            name.clone(),
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}")),
        ));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

/// Decodes by the name of a definition, and gives back the canonical form, checked to be stable.
fn decode(definition: &str, text: &str) -> Result<Value, BadFrame> {
    fn frame<F: Serialize + PartialEq>(decode: fn(&str) -> Result<F, BadFrame>, text: &str) -> Result<Value, BadFrame> {
        let frame = decode(text)?;
        let canonical = encode(&frame);
        assert!(
            decode(&canonical)? == frame,
            "{canonical} does not come back as it went"
        );
        Ok(serde_json::from_str(&canonical).expect("what we encode is JSON"))
    }
    fn body<B: Serialize + DeserializeOwned + PartialEq>(text: &str) -> Result<Value, BadFrame> {
        frame(
            |text| {
                serde_json::from_str::<B>(text).map_err(|error| BadFrame {
                    why: error.to_string(),
                    id: None,
                })
            },
            text,
        )
    }
    match definition {
        "ClientFrame" => frame(decode_client, text),
        "HubFrame" => frame(decode_hub, text),
        "Token" => body::<Token>(text),
        "PollAnswer" => body::<PollAnswer>(text),
        "RefreshBody" => body::<RefreshBody>(text),
        "LoginBody" => body::<LoginBody>(text),
        "GrantVersion" => body::<GrantVersion>(text),
        "Problem" => body::<Problem>(text),
        other => panic!("no such definition: {other}"),
    }
}

#[test]
fn every_valid_vector_is_read_as_its_canonical_form() {
    for (file, vectors) in all() {
        assert!(!vectors.about.is_empty(), "{file} does not say what it is about");
        for Valid { name, text, frame } in vectors.valid {
            match decode(&vectors.definition, &text) {
                Ok(read) => assert_eq!(read, frame, "{file}: {name}"),
                Err(error) => panic!("{file}: {name}: {error}"),
            }
        }
    }
}

#[test]
fn every_invalid_vector_is_a_bad_frame_that_tells_its_id() {
    for (file, vectors) in all() {
        for Invalid { name, text, result, id } in vectors.invalid {
            assert_eq!(result, "bad_frame", "{file}: {name}");
            match decode(&vectors.definition, &text) {
                Ok(read) => panic!("{file}: {name}: read as {read}"),
                Err(error) => assert_eq!(json!(error.id), id, "{file}: {name}"),
            }
        }
    }
}

#[test]
fn no_frame_and_no_body_is_without_vectors() {
    let document = schema::document();
    let mut wanted = BTreeSet::new();
    for direction in ["ClientFrame", "HubFrame"] {
        for variant in document["$defs"][direction]["oneOf"].as_array().expect("variants") {
            let kind = variant["properties"]["type"]["const"].as_str().expect("a type");
            wanted.insert((direction.to_owned(), Some(kind.to_owned())));
        }
        wanted.insert((direction.to_owned(), None));
    }
    for body in schema::BODIES {
        wanted.insert((body.to_owned(), None));
    }
    assert_eq!(wanted.len(), 8 + 10 + 2 + 6, "the frames of section 5 and the bodies");
    let found = all().into_iter().map(|(file, vectors)| {
        for valid in &vectors.valid {
            if let Some(kind) = &vectors.r#type {
                assert_eq!(valid.frame["type"], **kind, "{file}: {}", valid.name);
            }
        }
        assert!(!vectors.invalid.is_empty(), "{file} has no invalid vector");
        (vectors.definition, vectors.r#type)
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn vectors_and_schema_agree() {
    let document = schema::document();
    for (file, vectors) in all() {
        let definition = json!({ "$ref": format!("#/$defs/{}", vectors.definition), "$defs": document["$defs"] });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&definition)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        for Valid { name, text, frame } in vectors.valid {
            let written: Value = serde_json::from_str(&text).expect("JSON");
            for value in [written, frame] {
                if let Err(error) = validator.validate(&value) {
                    panic!("{file}: {name}: {error}");
                }
            }
        }
        for Invalid { name, text, .. } in vectors.invalid {
            // What is no JSON, or holds a name twice, is beyond a schema.
            if name.ends_with("twice") {
                continue;
            }
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                assert!(
                    !validator.is_valid(&value),
                    "{file}: {name}: the schema lets it through"
                );
            }
        }
    }
}

#[test]
fn what_follows_a_close_is_as_in_the_vectors() {
    #[derive(Deserialize)]
    struct Row {
        code: u16,
        then: String,
    }
    let text = fs::read_to_string(folder().join("close.json")).expect("close.json");
    let mut document: Value = serde_json::from_str(&text).expect("JSON");
    let rows: Vec<Row> = serde_json::from_value(document["after"].take()).expect("rows");
    for Row { code, then } in &rows {
        let expected = match then.as_str() {
            "reconnect" => AfterClose::Reconnect,
            "end" => AfterClose::End,
            "stop" => AfterClose::Stop,
            other => panic!("{code}: {other}"),
        };
        assert_eq!(Close::after(*code), expected, "{code}");
    }
    for close in Close::ALL {
        assert!(rows.iter().any(|row| row.code == close.code()), "{close:?} is missing");
    }
}
