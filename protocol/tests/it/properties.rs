//! What holds for every frame and every text.

use std::sync::LazyLock;

use jsonschema::Validator;
use lockstep_protocol::{decode_client, decode_hub, encode, number::NUMBER_BOUND, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::arbitrary::{almost_ack, client_frame, hub_frame, json};

/// Addresses of all values in `value` that `wanted` picks, as JSON pointers (RFC 6901).
fn pointers(value: &Value, wanted: fn(&Value) -> bool) -> Vec<String> {
    fn walk(value: &Value, at: &str, wanted: fn(&Value) -> bool, found: &mut Vec<String>) {
        if wanted(value) {
            found.push(at.to_owned());
        }
        if let Value::Object(fields) = value {
            for (name, value) in fields {
                walk(value, &format!("{at}/{name}"), wanted, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(value, "", wanted, &mut found);
    found
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("what we encode is JSON")
}

/// Damages `text` in one place, and decodes what comes of it; it may be refused, but not crash.
fn survives(text: &str, cut: prop::sample::Index, bit: prop::sample::Index) {
    let mut bytes = text.as_bytes().to_vec();
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let flipped = String::from_utf8_lossy(&bytes).into_owned();
    let cut: String = text.chars().take(cut.index(text.len())).collect();
    for text in [flipped, cut] {
        let _ = decode_client(&text);
        let _ = decode_hub(&text);
    }
}

static CLIENT: LazyLock<Validator> = LazyLock::new(|| validator("ClientFrame"));
static HUB: LazyLock<Validator> = LazyLock::new(|| validator("HubFrame"));

fn validator(definition: &str) -> Validator {
    let schema = json!({ "$ref": format!("#/$defs/{definition}"), "$defs": schema::document()["$defs"] });
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema")
}

/// Puts `new` in the place of one of the values of `frame`, or takes the value away.
fn mutated(mut frame: Value, place: prop::sample::Index, new: Option<Value>) -> Value {
    let places = pointers(&frame, |_| true);
    let place = &places[place.index(places.len())];
    match (new, place.rsplit_once('/')) {
        (Some(new), _) => *frame.pointer_mut(place).expect("a place") = new,
        (None, Some((parent, name))) => {
            let parent = frame.pointer_mut(parent).and_then(Value::as_object_mut);
            parent.expect("an object").remove(name);
        }
        (None, None) => {}
    }
    frame
}

proptest! {
    #[test]
    fn a_client_frame_comes_back_as_it_went(frame in client_frame()) {
        let text = encode(&frame);
        prop_assert_eq!(&parse(&text)["type"], frame.kind());
        prop_assert_eq!(decode_client(&text), Ok(frame));
    }

    #[test]
    fn a_hub_frame_comes_back_as_it_went(frame in hub_frame()) {
        let text = encode(&frame);
        prop_assert_eq!(&parse(&text)["type"], frame.kind());
        prop_assert_eq!(decode_hub(&text), Ok(frame));
    }

    #[test]
    fn damage_never_crashes_the_decoder(
        client in client_frame(), hub in hub_frame(), cut: prop::sample::Index, bit: prop::sample::Index,
    ) {
        survives(&encode(&client), cut, bit);
        survives(&encode(&hub), cut, bit);
    }

    #[test]
    fn no_text_crashes_the_decoder(text: String, json in json(), bytes: Vec<u8>) {
        for text in [text, json.to_string(), String::from_utf8_lossy(&bytes).into_owned()] {
            let _ = decode_client(&text);
            let _ = decode_hub(&text);
        }
    }

    #[test]
    fn a_frame_cut_short_is_refused(frame in client_frame(), cut: prop::sample::Index) {
        let text = encode(&frame);
        let cut: String = text.chars().take(cut.index(text.chars().count())).collect();
        prop_assert!(decode_client(&cut).is_err());
    }

    #[test]
    fn no_number_of_two_to_the_53_or_above_is_taken(
        client in client_frame(), hub in hub_frame(), number in NUMBER_BOUND..=u64::MAX,
    ) {
        let mut frame = parse(&encode(&client));
        for place in pointers(&frame, Value::is_number) {
            let kept = frame.pointer_mut(&place).expect("a place").take();
            *frame.pointer_mut(&place).expect("a place") = number.into();
            prop_assert!(decode_client(&frame.to_string()).is_err(), "{}", place);
            *frame.pointer_mut(&place).expect("a place") = kept;
        }
        let mut frame = parse(&encode(&hub));
        for place in pointers(&frame, Value::is_number) {
            let kept = frame.pointer_mut(&place).expect("a place").take();
            *frame.pointer_mut(&place).expect("a place") = number.into();
            prop_assert!(decode_hub(&frame.to_string()).is_err(), "{}", place);
            *frame.pointer_mut(&place).expect("a place") = kept;
        }
    }

    #[test]
    fn unknown_fields_are_ignored(client in client_frame(), hub in hub_frame(), name: String, value in json()) {
        let name = format!("x{name}");
        let with = |text: &str| {
            let mut frame = parse(text);
            for place in pointers(&frame, Value::is_object) {
                frame[&*name].take();
                frame.pointer_mut(&place).expect("a place")[&*name] = value.clone();
            }
            frame.to_string()
        };
        prop_assert_eq!(decode_client(&with(&encode(&client))), Ok(client));
        prop_assert_eq!(decode_hub(&with(&encode(&hub))), Ok(hub));
    }

    #[test]
    fn the_short_way_to_an_ack_agrees_with_the_long_one(text in almost_ack()) {
        // White space in front makes no difference to JSON, and takes a text off the short way.
        let (short, long) = (decode_client(&text), decode_client(&format!(" {text}")));
        prop_assert_eq!(short.ok(), long.ok());
    }

    #[test]
    fn the_decoder_takes_what_the_schema_takes(
        client in client_frame(), place: prop::sample::Index, new in prop::option::of(json()),
    ) {
        let frame = mutated(parse(&encode(&client)), place, new);
        let decoded = decode_client(&frame.to_string());
        prop_assert_eq!(decoded.is_ok(), CLIENT.is_valid(&frame), "{}: {:?}", frame, decoded);
    }

    #[test]
    fn the_schema_takes_what_a_hub_may_send(
        hub in hub_frame(), place: prop::sample::Index, new in prop::option::of(json()),
    ) {
        let frame = parse(&encode(&hub));
        prop_assert!(HUB.is_valid(&frame));
        let frame = mutated(frame, place, new);
        // A missing expires_at is taken for null here, though a hub always sends it.
        if decode_hub(&frame.to_string()).is_ok() && !(frame["type"] == "token" && frame.get("expires_at").is_none()) {
            prop_assert!(HUB.is_valid(&frame), "{}", frame);
        }
    }
}
