//! The client in Python that was written from the protocol page alone. Its own tests are in `tests/python`.

use std::{path::Path, time::Duration};

use lockstep_tests::{binaries, within};
use tokio::process::Command;

/// Its storm lasts as long as some tokens do.
const TIME: Duration = Duration::from_secs(240);
/// A protocol for which a client takes more lines than this has become too hard.
const MOST_LINES: usize = 150;
const MOST_COLUMNS: usize = 150;

fn place() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

/// Runs its tests in `file`; how many they are must be known, so that none is left out unseen.
async fn passes(file: &str, tests: usize) {
    let hub = binaries::hub();
    let output = Command::new(binaries::python())
        .args(["-m", "unittest", "discover", "--pattern", file, "--start-directory"])
        .arg(place())
        .env("LOCKSTEP_BIN", hub.parent().expect("binaries lie in a directory"))
        .kill_on_drop(true)
        .output();
    let output = within("the tests of the independent client", TIME, output)
        .await
        .expect("python runs: scripts/setup makes its environment");
    let said = String::from_utf8_lossy(&output.stderr);
    let ran = said.contains(&format!("Ran {tests} test{} in", if tests == 1 { "" } else { "s" }));
    let all = output.status.success() && ran && !said.contains("skipped");
    assert!(all, "{said}{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn it_passes_the_golden_vectors() {
    passes("test_vectors.py", 4).await;
}

#[tokio::test]
async fn it_takes_part_in_the_storm() {
    passes("test_storm.py", 1).await;
}

#[test]
fn it_is_short() {
    let text = std::fs::read_to_string(place().join("lockstep_client.py")).expect("the client");
    let lines = text.lines().count();
    assert!(lines <= MOST_LINES, "{lines} lines");
    let long = text.lines().find(|line| line.chars().count() > MOST_COLUMNS);
    assert_eq!(long, None, "lines that would be two");
}
