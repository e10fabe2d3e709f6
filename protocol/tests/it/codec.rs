//! Single cases of decoding: what the vectors cannot say in a file.

use lockstep_protocol::{ClientFrame, Seq, decode_client, decode_hub, frame::Ack, limits::MAX_FRAME};

fn ack(seq: u64) -> ClientFrame {
    ClientFrame::Ack(Ack { seq: Seq(seq) })
}

#[test]
fn a_frame_may_be_as_large_as_the_limit_and_no_larger() {
    let of_size = |size: usize| {
        let frame = |padding: usize| format!(r#"{{"type":"ack","seq":7,"x":"{}"}}"#, "x".repeat(padding));
        frame(size - frame(0).len())
    };
    assert_eq!(decode_client(&of_size(MAX_FRAME)), Ok(ack(7)));
    let error = decode_client(&of_size(MAX_FRAME + 1)).expect_err("one byte too many");
    assert_eq!(error.to_string(), "larger than 65536 bytes");
}

#[test]
fn depth_in_an_unknown_field_costs_nothing() {
    let depth = 30_000;
    let text = format!(
        r#"{{"type":"ack","x":{}{},"seq":7}}"#,
        "[".repeat(depth),
        "]".repeat(depth)
    );
    assert_eq!(decode_client(&text), Ok(ack(7)));
}

#[test]
fn depth_in_a_known_field_is_refused() {
    let depth = 30_000;
    for field in ["type", "id", "seq", "device", "token", "grant"] {
        for (open, close) in [("[", "]"), (r#"{"id":"#, "}")] {
            let depth = depth / open.len();
            let text = format!(r#"{{"{field}":{}1{}}}"#, open.repeat(depth), close.repeat(depth));
            assert!(decode_client(&text).is_err());
            assert!(decode_hub(&text).is_err());
        }
    }
}

#[test]
fn why_a_frame_is_bad_is_told_without_repeating_it() {
    let secret = "rt-7-very-secret";
    let why = |text: &str| decode_client(text).expect_err("a bad frame").why;
    assert_eq!(why(r#"{"type":"ack"}"#), "missing field `seq` at line 1 column 14");
    assert_eq!(
        why(r#"{"type":"ack","seq":1,"seq":2}"#),
        "duplicate field `seq` at line 1 column 27"
    );
    assert_eq!(why(r#"["ack"]"#), "not a JSON object");
    assert_eq!(why(r#"{"type":"rt-7-very-secret"}"#), "unknown type");
    for text in [
        r#"{"type":"presence","state":"rt-7-very-secret"}"#,
        r#"{"type":"ack","seq":"rt-7-very-secret"}"#,
        r#"{"type":"accept","grant":"rt-7-very-secret","lease":"rt-7-very-secret"}"#,
        r#"{"type":"accept","grant":"a/b","lease":"rt-7-very-secret"}"#,
        r#"{"type":"hello","token":{"rt-7-very-secret":1}}"#,
        r#"{"rt-7-very-secret"}"#,
        "rt-7-very-secret",
    ] {
        let error = decode_client(text).expect_err("a bad frame");
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn debug_of_a_frame_shows_no_secret() {
    let hello = r#"{"type":"hello","token":"top-secret","device":{"id":"6f1c8a52-3a0e-4c3b-9d5e-0c7a1f2b3d4e","app":""},"state":"idle"}"#;
    let redeem = r#"{"type":"redeem","grant":"a/b","lease":"6f1c8a52-3a0e-4c3b-9d5e-0c7a1f2b3d4e","from_version":1,"refresh_token":"top-secret","token_endpoint":"","client_id":"","request_format":"form","send_within":5,"deadline":9}"#;
    let shown = format!("{:?} {:?}", decode_client(hello), decode_hub(redeem));
    assert!(shown.contains("Hello") && shown.contains("Redeem"), "{shown}");
    assert!(!shown.contains("top-secret"), "{shown}");
}
