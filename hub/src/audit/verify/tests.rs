use std::{fs, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::audit::{Audit, Event, Signer, chain::append};

/// Long enough for a busy machine and a slow disk.
const AMPLE: Duration = Duration::from_secs(60);

/// A chain of `count` records and the one that says that the hub started, on disk.
async fn chain(count: u64) -> (TempDir, PublicKey, Head) {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::ephemeral().unwrap();
    let public = signer.public().clone();
    let audit = Audit::open(dir.path(), "node-1", signer, None, Head::START).unwrap();
    for n in 0..count {
        audit.record(Event::UserDeleted {
            user: format!("user-{n}").parse().unwrap(),
        });
        // One at a time, as on a quiet hub: each line is signed.
        assert!(audit.flush_within(AMPLE).await);
    }
    let head = *audit.head().unwrap().borrow();
    (dir, public, head)
}

fn lines(dir: &TempDir) -> Vec<String> {
    let text = fs::read_to_string(file::path(dir.path(), 1)).unwrap();
    text.lines().map(Into::into).collect()
}

fn write(dir: &TempDir, lines: &[String]) {
    fs::write(file::path(dir.path(), 1), lines.join("\n") + "\n").unwrap();
}

/// What is found after `change`.
async fn found(change: impl FnOnce(&mut Vec<String>)) -> Vec<What> {
    let (dir, public, head) = chain(8).await;
    let mut lines = lines(&dir);
    change(&mut lines);
    write(&dir, &lines);
    let report = verify(dir.path(), &public, &[head]).unwrap();
    report.faults.into_iter().map(|fault| fault.what).collect()
}

#[tokio::test]
async fn an_untouched_chain_is_clean() {
    let (dir, public, head) = chain(8).await;
    let report = verify(dir.path(), &public, &[head]).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    assert_eq!((report.records, report.head), (9, head));
}

#[tokio::test]
async fn an_altered_record_is_found() {
    let found = found(|lines| lines[4] = lines[4].replace("user-3", "user-x")).await;
    assert_eq!(found[0], What::Line(BadLine::Altered));
}

#[tokio::test]
async fn an_altered_record_with_its_hash_made_right_is_found() {
    let found = found(|lines| {
        let record = lines[4].replace("user-3", "user-x");
        lines[4] = relinked(&record);
    })
    .await;
    assert_eq!(
        found,
        [What::Line(BadLine::Signature), What::Dropped { from: 5, to: 5 }]
    );
}

#[tokio::test]
async fn an_altered_record_without_its_signature_is_found() {
    let found = found(|lines| {
        let record = lines[4].replace("user-3", "user-x");
        lines[4] = unsigned(&relinked(&record));
    })
    .await;
    assert_eq!(found, [What::Replaced(6)]);
}

#[tokio::test]
async fn a_history_written_anew_without_the_key_is_found() {
    let found = found(|lines| written_anew(lines)).await;
    assert_eq!(found, [What::Forked(9), What::Unsigned]);
}

#[tokio::test]
async fn a_dropped_record_is_found() {
    let found = found(|lines| drop(lines.remove(4))).await;
    assert_eq!(found, [What::Dropped { from: 5, to: 5 }]);
}

#[tokio::test]
async fn the_first_record_dropped_is_found() {
    let found = found(|lines| drop(lines.remove(0))).await;
    assert_eq!(found, [What::Dropped { from: 1, to: 1 }]);
}

#[tokio::test]
async fn the_newest_records_cut_off_are_found() {
    let found = found(|lines| lines.truncate(7)).await;
    assert_eq!(found, [What::CutOff(7, 9)]);
}

#[tokio::test]
async fn records_reordered_are_found() {
    let found = found(|lines| lines.swap(3, 4)).await;
    assert_eq!(found, [What::Dropped { from: 4, to: 4 }, What::OutOfOrder(4)]);
}

#[tokio::test]
async fn a_record_added_is_found() {
    let found = found(|lines| lines.insert(4, lines[2].clone())).await;
    assert_eq!(found, [What::OutOfOrder(3)]);
}

#[tokio::test]
async fn a_record_added_at_the_end_is_found() {
    let (dir, public, head) = chain(3).await;
    let mut lines = lines(&dir);
    let record = format!(
        "{{\"n\":5,\"at\":1,\"node\":\"node-1\",\"prev\":\"{}\",\"event\":\"user_deleted\",\"user\":\"eve\",\"link\":\"",
        head.link
    );
    lines.push(unsigned(&relinked(&record)));
    write(&dir, &lines);
    let report = verify(dir.path(), &public, &[head]).unwrap();
    assert_eq!(report.faults[0].what, What::Unsigned);
}

#[tokio::test]
async fn garbage_is_found_and_does_not_panic() {
    let found = found(|lines| {
        lines[2] = "\u{0}\u{0}".into();
        lines[3] = "{".repeat(40_000);
        lines[4] = "{\"link\":\"\"}".into();
    })
    .await;
    assert!(
        found.contains(&What::Line(BadLine::Shape)) && found.contains(&What::Torn),
        "{found:?}"
    );
}

#[tokio::test]
async fn another_key_verifies_nothing() {
    let (dir, _, head) = chain(3).await;
    let other = Signer::ephemeral().unwrap();
    let report = verify(dir.path(), other.public(), &[head]).unwrap();
    assert_eq!(report.records, 0);
    assert!(!report.is_clean());
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts_and_what_a_crash_left_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let first = Signer::ephemeral().unwrap();
    let public = first.public().clone();
    let again = first.copy();
    let and_again = first.copy();
    let audit = Audit::open(dir.path(), "node-1", first, None, Head::START).unwrap();
    assert!(audit.flush_within(AMPLE).await);
    drop(audit);
    let audit = Audit::open(dir.path(), "node-1", again, None, Head::START).unwrap();
    audit.record(Event::UserDeleted {
        user: "alice".parse().unwrap(),
    });
    assert!(audit.flush_within(AMPLE).await);
    drop(audit);
    let path = file::path(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"n\":4,\"at\":17");
    fs::write(&path, bytes).unwrap();
    let audit = Audit::open(dir.path(), "node-1", and_again, None, Head::START).unwrap();
    assert!(audit.flush_within(AMPLE).await);
    let report = verify(dir.path(), &public, &[]).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    // started, started, deleted, started, repaired
    assert_eq!(report.records, 5);
}

#[tokio::test]
async fn a_busy_log_signs_for_many_and_what_is_altered_in_between_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::ephemeral().unwrap();
    let public = signer.public().clone();
    let audit = Audit::open(dir.path(), "node-1", signer, None, Head::START).unwrap();
    for n in 0..2_000 {
        audit.record(Event::Lost { count: n });
    }
    assert!(audit.flush_within(AMPLE).await);
    assert!(verify(dir.path(), &public, &[]).unwrap().is_clean());
    let mut lines = lines(&dir);
    let altered = lines
        .iter()
        .position(|line| !line.contains("\"sig\""))
        .expect("batches are signed once");
    lines[altered] = relinked(&lines[altered].replace("\"count\":", "\"count\":1"));
    write(&dir, &lines);
    let faults = verify(dir.path(), &public, &[]).unwrap().faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(matches!(faults[0].what, What::Replaced(_)));
}

/// `line` with the link that its record has.
fn relinked(line: &str) -> String {
    let at = line.rfind(",\"link\":\"").unwrap();
    let link = super::super::chain::link_of(&line[..at]);
    let sig = line.find(",\"sig\":").map_or("}", |sig| &line[sig..]);
    format!("{},\"link\":\"{link}\"{sig}", &line[..at])
}

fn unsigned(line: &str) -> String {
    line.find(",\"sig\":")
        .map_or_else(|| line.to_owned(), |sig| format!("{}}}", &line[..sig]))
}

/// What is found after `change`, and a start of the hub that knows this much of the chain.
async fn found_after_a_start(know: bool, change: impl FnOnce(&mut Vec<String>)) -> Vec<What> {
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::ephemeral().unwrap();
    let (again, public) = (signer.copy(), signer.public().clone());
    let audit = Audit::open(dir.path(), "node-1", signer, None, Head::START).unwrap();
    for n in 0..8 {
        audit.record(Event::UserDeleted {
            user: format!("user-{n}").parse().unwrap(),
        });
        assert!(audit.flush_within(AMPLE).await);
    }
    let head = *audit.head().unwrap().borrow();
    drop(audit);
    let mut lines = lines(&dir);
    change(&mut lines);
    write(&dir, &lines);
    let known = if know { head } else { Head::START };
    let audit = Audit::open(dir.path(), "node-1", again, None, known).unwrap();
    assert!(audit.flush_within(AMPLE).await);
    let report = verify(dir.path(), &public, &[]).unwrap();
    let found: Vec<_> = report.faults.into_iter().map(|fault| fault.what).collect();
    let has_word = fs::read_to_string(file::path(dir.path(), 1))
        .unwrap()
        .contains("\"event\":\"unsigned\"");
    let needs_word = found.iter().any(|what| matches!(what, What::Unproven { .. }));
    assert_eq!(has_word, needs_word, "the chain itself says what nobody had signed for");
    found
}

/// Another history with links that fit, as one makes it who has no key.
fn written_anew(lines: &mut [String]) {
    let mut prev = String::new();
    for line in lines {
        let at = line.find("\"prev\":\"").unwrap() + 8;
        let mut record = line.replace("user-3", "user-x");
        if !prev.is_empty() {
            record.replace_range(at..at + 64, &prev);
        }
        *line = unsigned(&relinked(&record));
        prev = line[line.len() - 66..line.len() - 2].into();
    }
}

#[tokio::test]
async fn an_untouched_chain_is_clean_after_a_start() {
    assert_eq!(found_after_a_start(true, |_| ()).await, []);
}

#[tokio::test]
async fn a_history_written_anew_is_not_covered_up_by_a_start() {
    let unproven = What::Unproven { from: 1, to: 9 };
    let found = found_after_a_start(true, |lines| written_anew(lines)).await;
    assert_eq!(found, [unproven.clone(), What::Missing(9)]);
    // Nor when nothing is known of the old one.
    let found = found_after_a_start(false, |lines| written_anew(lines)).await;
    assert_eq!(found, [unproven]);
}

#[tokio::test]
async fn newest_records_cut_off_are_not_covered_up_by_a_start() {
    for cut in [1, 2, 8, 9] {
        let found = found_after_a_start(true, |lines| lines.truncate(9 - cut)).await;
        assert_eq!(found, [What::Missing(9)], "{cut}");
    }
}

#[tokio::test]
async fn a_signature_taken_off_before_a_start_is_found() {
    let found = found_after_a_start(true, |lines| lines[8] = unsigned(&lines[8])).await;
    assert_eq!(found, [What::Unproven { from: 9, to: 9 }]);
}

/// What is found in a chain of so many records without a signature, and then one with it.
fn found_after_unsigned(count: usize, end: &Event) -> Vec<What> {
    let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::ephemeral().unwrap());
    let (mut head, mut text) = (Head::START, Vec::new());
    for nth in 0..=count {
        let is_end = nth == count;
        let event = if is_end { end.clone() } else { Event::Lost { count: 1 } };
        let record = (crate::clock::unix(), event);
        append(&mut head, "here", record, is_end.then_some(&signer), &mut text);
    }
    fs::write(file::path(dir.path(), 1), text).unwrap();
    let report = verify(dir.path(), signer.public(), &[]).unwrap();
    report.faults.into_iter().map(|fault| fault.what).collect()
}

#[test]
fn more_records_without_a_signature_than_the_log_leaves_are_found() {
    let end = Event::Lost { count: 1 };
    assert_eq!(found_after_unsigned(LARGEST_BATCH, &end), []);
    assert_eq!(found_after_unsigned(LARGEST_BATCH + 1, &end), [What::Stripped(1)]);
}

#[test]
fn a_start_that_says_nothing_of_records_without_a_signature_is_found() {
    let started = Event::Started {
        version: "1".into(),
        key: "a key".into(),
    };
    assert_eq!(found_after_unsigned(0, &started), []);
    let two = What::Unproven { from: 1, to: 2 };
    assert_eq!(found_after_unsigned(2, &started), std::slice::from_ref(&two));
    // The word counts what was there then: signatures that were taken off since do not make it fewer or more.
    assert_eq!(found_after_unsigned(2, &Event::Unsigned { records: 1 }), [two]);
}
