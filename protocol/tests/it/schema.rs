//! The schema file says what the types say.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/lockstep.v1.json")
}

#[test]
fn the_schema_file_is_made_from_the_types() {
    let made = lockstep_protocol::schema::document();
    if env::var_os("LOCKSTEP_BLESS").is_some() {
        fs::write(file(), format!("{made:#}\n")).expect("the schema file can be written");
    }
    let kept: Value = fs::read_to_string(file())
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    assert!(
        kept == made,
        "the types have changed and {} has not; if that was meant, run\n\n    LOCKSTEP_BLESS=1 cargo test -p lockstep-protocol\n",
        file().display()
    );
}
