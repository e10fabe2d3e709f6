//! What a board takes, and in what order.

use lockstep_engine::time::Unix;
use lockstep_protocol::Version;

use super::*;
use crate::user::{
    Shows, User,
    sample::{NOW, face, grant, record},
};

/// Shows records in this order, and gives what came of each, then what the board holds: its seq and, of each grant, the
/// version.
fn show(records: &[(&str, u64, u64)]) -> (Vec<Shown>, Seq, Vec<(String, u64)>) {
    let user = User::new("alice".parse().unwrap());
    let mut inner = user.lock();
    let came = records
        .iter()
        .map(|(name, seq, version)| inner.show(&grant(name), record(*seq, *version), &face()))
        .collect();
    let held = inner
        .board
        .entries()
        .iter()
        .map(|entry| (entry.grant.to_string(), entry.version.0))
        .collect();
    (came, inner.board.seq, held)
}

/// P3: whatever comes late or twice, the board never goes back.
#[test]
fn p3_what_is_older_than_what_is_shown_is_not_shown() {
    let (came, seq, held) = show(&[("a/x", 1, 1), ("a/x", 2, 2), ("a/x", 1, 1), ("a/x", 2, 2)]);
    assert_eq!(came, [Shown::Moved, Shown::Moved, Shown::Old, Shown::Old]);
    assert_eq!((seq, held), (Seq(2), vec![("a/x".to_owned(), 2)]));
}

/// A device's cursor says "everything up to here": so nothing is shown above a gap.
#[test]
fn what_overtook_a_change_waits_for_it() {
    let (came, seq, held) = show(&[("a/x", 1, 1), ("a/z", 3, 1)]);
    assert_eq!(came, [Shown::Moved, Shown::Gap]);
    assert_eq!((seq, held), (Seq(1), vec![("a/x".to_owned(), 1)]));

    let (came, seq, held) = show(&[("a/x", 1, 1), ("a/z", 3, 1), ("a/y", 2, 1)]);
    assert_eq!(came, [Shown::Moved, Shown::Gap, Shown::Moved]);
    let all = ["a/x", "a/y", "a/z"].map(|name| (name.to_owned(), 1));
    assert_eq!((seq, held), (Seq(3), all.to_vec()));
}

#[test]
fn what_is_left_out_is_no_gap() {
    let user = User::new("alice".parse().unwrap());
    let mut inner = user.lock();
    inner.show(&grant("a/x"), record(1, 1), &face());
    assert_eq!(inner.show(&grant("a/x"), record(4, 4), &face()), Shown::Gap);
    inner.leave_out(Seq(2));
    inner.leave_out(Seq(1));
    assert_eq!(inner.show(&grant("a/y"), record(3, 1), &face()), Shown::Moved);
    assert_eq!(inner.board.seq, Seq(4), "what was held back follows");
    assert!(inner.left_out.is_empty(), "{:?}", inner.left_out);
}

#[test]
fn a_read_of_the_whole_user_closes_every_gap_and_takes_nothing_back() {
    let user = User::new("alice".parse().unwrap());
    let mut inner = user.lock();
    inner.show(&grant("a/x"), record(1, 1), &face());
    inner.show(&grant("a/x"), record(4, 4), &face());
    inner.show(&grant("a/y"), record(6, 1), &face());
    // Read before the last change of y, and in between a commit of x.
    let read = [(grant("a/x"), *record(5, 5)), (grant("a/y"), *record(3, 1))];
    assert_eq!(inner.show_all(Seq(5), &read, &face()), Shown::Moved);
    assert_eq!(inner.board.seq, Seq(6), "what was held back follows");
    assert_eq!(inner.board.entry(&grant("a/x")).map(|e| e.version), Some(Version(5)));
    assert_eq!(inner.board.entry(&grant("a/y")).map(|e| e.seq), Some(Seq(6)));

    let old = [(grant("a/x"), *record(4, 4))];
    assert_eq!(inner.show_all(Seq(4), &old, &face()), Shown::Old);
    assert_eq!(inner.board.entry(&grant("a/x")).map(|e| e.version), Some(Version(5)));
    assert_eq!(inner.board.seq, Seq(6));
}

#[test]
fn a_board_knows_when_what_it_shows_dies() {
    let user = User::new("alice".parse().unwrap());
    let mut inner = user.lock();
    inner.show(&grant("a/x"), record(1, 1), &face());
    let entry = inner.board.entry(&grant("a/x")).unwrap();
    assert_eq!(entry.shows, Shows::Token);
    assert!(inner.board.is_stale(Unix(NOW.unix.0 + 3_600_000)));
    assert!(!inner.board.is_stale(NOW.unix));
}
