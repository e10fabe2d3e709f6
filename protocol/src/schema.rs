//! The JSON Schema of the protocol, made from the types, for people who write a client in another language.

use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use crate::{
    ClientFrame, HubFrame,
    frame::Token,
    http::{GrantVersion, LoginBody, PollAnswer, Problem, RefreshBody},
    number::NUMBER_BOUND,
};

/// The definitions of [`document`] that are HTTP bodies.
pub const BODIES: [&str; 6] = [
    "Token",
    "PollAnswer",
    "RefreshBody",
    "LoginBody",
    "GrantVersion",
    "Problem",
];

/// One document (JSON Schema 2020-12) with a definition for each frame and each HTTP body.
///
/// The document itself describes a frame of either direction; `#/$defs/ClientFrame`, `#/$defs/HubFrame` and the names
/// of the bodies are narrower.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(bound_numbers))
        .into_generator();
    let client = generator.subschema_for::<ClientFrame>();
    let hub = generator.subschema_for::<HubFrame>();
    generator.subschema_for::<Token>();
    generator.subschema_for::<PollAnswer>();
    generator.subschema_for::<RefreshBody>();
    generator.subschema_for::<LoginBody>();
    generator.subschema_for::<GrantVersion>();
    generator.subschema_for::<Problem>();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lockstep.v1",
        "description": "Frames and HTTP bodies of the protocol lockstep.v1. Made from the types: do not edit.",
        "anyOf": [client, hub],
        "$defs": generator.take_definitions(true),
    })
}

/// Every number of the protocol is below 2^53, whatever the type that holds it; `uint64` and its like are words of ours.
fn bound_numbers(schema: &mut Schema) {
    let Some(width) = schema
        .get("format")
        .and_then(Value::as_str)
        .filter(|f| f.starts_with("uint"))
    else {
        return;
    };
    if width == "uint64" {
        schema.insert("maximum".into(), (NUMBER_BOUND - 1).into());
    }
    schema.remove("format");
}
