use tempfile::TempDir;

use super::*;
use crate::{
    audit::{
        Audit, Link, PublicKey, Signer,
        chain::{append, link_of},
        verify::{Report, What, verify},
    },
    clock,
};

/// Long enough for a busy machine and a slow disk.
const AMPLE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How old the files of a chain are, in days.
const AGES: [u32; 4] = [40, 30, 20, 1];
const RECORDS: u64 = 5;
/// What two of them are older than.
const KEEP: Duration = Duration::from_secs(25 * 24 * 3600);

/// A chain of four closed files with five records each, and its key.
struct Chain {
    dir: TempDir,
    signer: Signer,
}

impl Chain {
    fn new() -> Self {
        Self::signed_by(Signer::ephemeral().unwrap(), 0)
    }

    /// One whose records count from `first`.
    fn signed_by(signer: Signer, first: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chain = Self { dir, signer };
        let mut head = Head::START;
        for (number, age) in (1..).zip(AGES) {
            let at = clock::unix().minus(DAY * age);
            let mut lines = Vec::new();
            for count in first..first + RECORDS {
                append(
                    &mut head,
                    "here",
                    (at, Event::Lost { count }),
                    Some(&chain.signer),
                    &mut lines,
                );
            }
            chain.write(number, &lines, age);
        }
        chain
    }

    fn write(&self, number: u64, lines: &[u8], age: u32) {
        let path = file::path(self.dir.path(), number);
        fs::write(&path, lines).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * age).unwrap();
    }

    fn read(&self, number: u64) -> String {
        fs::read_to_string(file::path(self.dir.path(), number)).unwrap()
    }

    fn steal(&self, number: u64) {
        fs::remove_file(file::path(self.dir.path(), number)).unwrap();
    }

    /// The hub runs for a moment, until nothing more is to be dropped. Its end of the chain.
    async fn run(&self, keep: Option<Duration>) -> Head {
        let audit = Audit::open(self.dir.path(), "here", self.signer.copy(), keep, Head::START).unwrap();
        // A file goes with each round of the log.
        for _ in AGES {
            assert!(audit.flush_within(AMPLE).await);
        }
        *audit.head().unwrap().borrow()
    }

    fn files(&self) -> Vec<u64> {
        file::numbers(self.dir.path()).unwrap()
    }

    fn public(&self) -> PublicKey {
        self.signer.public().clone()
    }

    fn check(&self, known: &[Head]) -> Report {
        verify(self.dir.path(), &self.public(), known).unwrap()
    }

    fn found(&self) -> Vec<What> {
        self.check(&[]).faults.into_iter().map(|fault| fault.what).collect()
    }
}

#[tokio::test]
async fn what_is_older_is_dropped_and_the_rest_still_verifies() {
    let chain = Chain::new();
    let last = ends(&file::path(chain.dir.path(), 2)).unwrap().unwrap().1.head();
    let head = chain.run(Some(KEEP)).await;
    assert_eq!(chain.files(), [3, 4]);
    let report = chain.check(&[head]);
    assert!(report.is_clean(), "{:?}", report.faults);
    assert_eq!(report.expired, Some(last));
    // Two old files of theirs are gone; that the hub started, and a word of each of the two, came.
    assert_eq!((report.records, report.head), (2 * RECORDS + 3, head));
    assert_eq!(last.n, 2 * RECORDS);
}

#[tokio::test]
async fn without_a_word_in_the_settings_nothing_is_dropped() {
    let chain = Chain::new();
    chain.run(None).await;
    assert_eq!(chain.files(), [1, 2, 3, 4]);
    let report = chain.check(&[]);
    assert!(report.is_clean() && report.expired.is_none(), "{report:?}");
}

#[tokio::test]
async fn the_file_that_grows_is_kept_however_old_it_is() {
    let chain = Chain::new();
    (1..4).for_each(|number| chain.steal(number));
    let (mut keep, public) = (Keep::new(None), chain.public());
    let due = oldest_due(&mut keep, &public, chain.dir.path(), 4, clock::unix());
    assert_eq!(due.unwrap(), None);
}

#[tokio::test]
async fn a_thief_who_takes_the_oldest_files_is_found() {
    for (kept, stolen) in [(None, 1), (None, 2), (None, 3), (Some(KEEP), 3)] {
        let chain = Chain::new();
        let head = chain.run(kept).await;
        let first = chain.files()[0];
        (first..=stolen).for_each(|number| chain.steal(number));
        let found = chain.found();
        let (from, to) = ((first - 1) * RECORDS + 1, stolen * RECORDS);
        assert_eq!(found, [What::Dropped { from, to }], "{kept:?} {stolen}");
        assert!(!chain.check(&[head]).is_clean());
    }
}

#[tokio::test]
async fn a_theft_is_not_covered_up_by_dropping_what_follows() {
    for kept in [None, Some(KEEP)] {
        let chain = Chain::new();
        chain.run(kept).await;
        let first = chain.files()[0];
        chain.steal(first);
        let left = chain.files();
        chain.run(Some(DAY / 2)).await;
        assert!(chain.files().starts_with(&left), "the evidence stays");
        assert!(!chain.check(&[]).is_clean());
    }
}

#[tokio::test]
async fn a_made_up_word_that_records_were_dropped_is_found() {
    let chain = Chain::new();
    chain.run(None).await;
    let stolen = ends(&file::path(chain.dir.path(), 1)).unwrap().unwrap().1.head();
    chain.steal(1);
    let newest = chain.read(4);
    let end = Line::read_link(newest.lines().last().unwrap()).unwrap().head();
    let word = format!(
        "{{\"n\":{},\"at\":1,\"node\":\"here\",\"prev\":\"{}\",\"event\":\"expired\",\"through\":{},\"last\":\"{}\"",
        end.n + 1,
        end.link,
        stolen.n,
        stolen.link
    );
    let line = format!("{word},\"link\":\"{}\"}}\n", link_of(&word));
    // At the end nobody signed for it; put in the middle, what comes next does not follow it.
    chain.write(4, format!("{newest}{line}").as_bytes(), 1);
    let dropped = What::Dropped { from: 1, to: RECORDS };
    assert_eq!(chain.found(), [dropped.clone(), What::Unsigned]);
    let third = chain.read(3);
    chain.write(4, newest.as_bytes(), 1);
    chain.write(3, format!("{third}{line}").as_bytes(), 20);
    assert!(!chain.found().is_empty());
    // The hub signs for all before it when it starts, but not for what this one says.
    chain.write(3, third.as_bytes(), 20);
    chain.write(4, format!("{newest}{line}").as_bytes(), 1);
    let left = chain.files();
    chain.run(Some(KEEP)).await;
    let unproven = What::Unproven {
        from: end.n + 1,
        to: end.n + 1,
    };
    assert_eq!(chain.found(), [unproven, dropped]);
    assert_eq!(chain.files(), left, "nor does the hub believe it: the evidence stays");
}

#[tokio::test]
async fn another_past_put_before_the_rest_is_found() {
    let chain = Chain::new();
    let other = Chain::signed_by(chain.signer.copy(), 100);
    chain.run(Some(KEEP)).await;
    for number in [1, 2] {
        chain.write(number, other.read(number).as_bytes(), 30);
    }
    assert!(chain.found().contains(&What::Replaced(2 * RECORDS + 1)));
}

#[tokio::test]
async fn a_crash_between_the_word_and_the_deed_is_no_theft() {
    let chain = Chain::new();
    let second = chain.read(2);
    chain.run(Some(KEEP)).await;
    chain.write(2, second.as_bytes(), 30);
    let report = chain.check(&[]);
    assert!(report.is_clean(), "{:?}", report.faults);
    let head = chain.run(Some(KEEP)).await;
    assert_eq!(chain.files(), [3, 4], "it is made up for");
    assert!(chain.check(&[head]).is_clean());
}

#[tokio::test]
async fn what_does_not_hold_together_is_evidence_and_stays() {
    let alter = |text: &str| text.replacen("\"count\":2", "\"count\":7", 1);
    let cut = |text: &str| text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
    let tear = |text: &str| text[..text.len() - 9].to_owned();
    let forged: [&dyn Fn(&str) -> String; 3] = [&alter, &cut, &tear];
    for (nth, forge) in forged.into_iter().enumerate() {
        let chain = Chain::new();
        chain.write(1, forge(&chain.read(1)).as_bytes(), 40);
        chain.run(Some(KEEP)).await;
        assert_eq!(chain.files(), [1, 2, 3, 4], "{nth}");
        assert!(!chain.found().is_empty(), "{nth}");
    }
}

#[tokio::test]
async fn what_was_known_of_dropped_records_is_not_passed_over() {
    let chain = Chain::new();
    let at = |number, nth: usize| {
        let text = chain.read(number);
        Line::read_link(text.lines().nth(nth).unwrap()).unwrap().head()
    };
    let (old, last, kept) = (at(1, 0), at(2, 4), at(3, 0));
    chain.run(Some(KEEP)).await;
    assert!(
        chain.check(&[last, kept]).is_clean(),
        "the beginning says what was before it"
    );
    let faults = chain.check(&[old, kept]).faults;
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].what, What::TooOld(1));
    let other = Head {
        link: Link([7; 32]),
        ..last
    };
    assert_eq!(chain.check(&[other]).faults[0].what, What::Forked(last.n));
}

#[tokio::test]
async fn what_the_store_knew_may_be_dropped_but_only_by_the_hub() {
    let found = async |knew: Head, steal: u64| {
        let chain = Chain::new();
        chain.run(Some(KEEP)).await;
        (3..3 + steal).for_each(|number| chain.steal(number));
        let audit = Audit::open(chain.dir.path(), "here", chain.signer.copy(), None, knew).unwrap();
        assert!(audit.flush_within(AMPLE).await);
        chain.found().contains(&What::Missing(knew.n))
    };
    let at = |n| Head { n, link: Link([7; 32]) };
    assert!(!found(at(1), 0).await, "it was dropped for its age");
    assert!(
        found(at(10), 0).await,
        "the beginning says that the last one was another"
    );
    assert!(found(at(11), 0).await, "it is there, and another");
    assert!(found(at(99), 0).await, "the chain is not that long");
    assert!(found(at(11), 1).await, "taken by somebody else");
}

#[tokio::test]
async fn what_was_cut_off_a_file_goes_with_it() {
    let chain = Chain::new();
    let cut = file::path(chain.dir.path(), 1).with_extension("cut");
    fs::write(&cut, b"half a l").unwrap();
    chain.run(Some(KEEP)).await;
    assert!(!cut.exists());
}

#[test]
fn a_file_is_closed_in_time_to_be_dropped() {
    let now = clock::unix();
    let began = |days| Some(now.minus(DAY * days));
    let keep = Keep::new(Some(DAY * 80));
    assert!(!keep.closes(began(9), now) && keep.closes(began(10), now));
    assert!(!keep.closes(None, now), "there is nothing in it");
    assert!(!Keep::new(None).closes(began(10_000), now));
}

#[test]
fn it_is_looked_for_at_once_and_then_now_and_then() {
    let mut keep = Keep::new(Some(KEEP));
    assert_eq!(keep.due(Unix(0) + DAY * 30), Some(Unix(0) + DAY * 5));
    assert_eq!(keep.due(Unix(0) + DAY * 30), None);
    assert!(keep.patience() <= LOOK_EVERY);
    assert_eq!(Keep::new(None).due(clock::unix()), None);
}
