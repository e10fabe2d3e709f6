use std::{sync::mpsc::sync_channel, time::SystemTime};

use super::*;
use crate::audit::{Audit, file::OPENED};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How many old files there are before the one that grows.
const FILES: u64 = 40;

/// A log with many files that are due, opened.
fn old_log(dir: &Path) -> Writer {
    let signer = Arc::new(Signer::ephemeral().unwrap());
    let mut head = Head::START;
    for number in 1..=FILES {
        let mut lines = Vec::new();
        let record = (clock::unix().minus(DAY * 9), Event::Lost { count: 1 });
        chain::append(&mut head, "here", record, Some(&signer), &mut lines);
        let path = file::path(dir, number);
        std::fs::write(&path, lines).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - DAY * 9).unwrap();
    }
    Writer::open(dir, "here", signer, Keep::new(Some(DAY)), Head::START).unwrap()
}

#[test]
fn one_file_goes_at_a_time_and_the_rest_is_not_read_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = old_log(dir.path());
    let mut left = file::numbers(dir.path()).unwrap();
    assert!(writer.drop_old(), "nothing was dropped before this one");
    for _ in 1..FILES {
        assert_eq!(file::numbers(dir.path()).unwrap(), left[1..]);
        left.remove(0);
        assert!(writer.patience().is_zero(), "more is due, but what waits comes first");
        OPENED.set(0);
        writer.drop_old();
        assert!(OPENED.get() <= 2, "the oldest, and the one after it: {}", OPENED.get());
    }
    assert!(file::numbers(dir.path()).unwrap().len() <= 2);
}

#[test]
fn records_are_written_between_two_files_that_go() {
    let dir = tempfile::tempdir().unwrap();
    let writer = old_log(dir.path());
    let (queue, records) = sync_channel(2 * LARGEST_BATCH);
    // More than one batch, all waiting before the log looks for what is old.
    for count in 0..=LARGEST_BATCH as u64 {
        queue
            .send(Message::Record(clock::unix(), Event::Lost { count }))
            .unwrap();
    }
    drop(queue);
    let (tell, _head) = watch::channel(writer.head);
    writer.run(&records, &tell);
    let newest = file::numbers(dir.path()).unwrap().pop().unwrap();
    let text = std::fs::read_to_string(file::path(dir.path(), newest)).unwrap();
    let last_word = text.rfind("\"event\":\"expired\"").unwrap();
    let first_record = text.find("\"event\":\"lost\",\"count\":0").unwrap();
    assert!(first_record < last_word, "not after all files");
}

#[tokio::test]
async fn a_log_whose_disk_stands_still_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _nobody_reads) = sync_channel(1);
    let (_tell, head) = watch::channel(Head::START);
    let audit = Audit::on(queue, head, Signer::ephemeral().unwrap().into(), dir.path());
    assert!(!audit.flush_within(Duration::from_millis(20)).await);
    assert!(
        !audit.flush_within(Duration::from_millis(20)).await,
        "the queue is full"
    );
}
