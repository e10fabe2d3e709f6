//! The files of a chain: `000001.jsonl`, `000002.jsonl`, … in one directory. Only the last one grows.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use lockstep_engine::time::Unix;

use super::{AuditError, Head, PublicKey, chain::LONGEST_LINE, chain::Line};

const SUFFIX: &str = ".jsonl";

pub(super) fn io(path: &Path, error: std::io::Error) -> AuditError {
    AuditError::Io {
        path: path.to_owned(),
        error,
    }
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:06}{SUFFIX}"))
}

/// The numbers of the files in `dir`, in order.
pub(super) fn numbers(dir: &Path) -> Result<Vec<u64>, AuditError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| io(dir, error))? {
        let name = entry.map_err(|error| io(dir, error))?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn make_dir(dir: &Path) -> Result<(), AuditError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| io(dir, error))
}

/// Opens a file to be written at its end, made (0600) if absent. Its name is on disk when this returns.
pub(super) fn open(dir: &Path, number: u64) -> Result<File, AuditError> {
    let path = path(dir, number);
    let open = || {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    open().map_err(|error| io(&path, error))
}

#[cfg(test)]
thread_local! {
    /// How many files were opened to be read, for tests that bound it.
    pub(super) static OPENED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The lines of a file, each without its line feed.
pub(super) struct Lines<R>(BufReader<R>);

/// One line as it stands in the file.
pub(super) enum Raw {
    /// A whole line.
    Line(String),
    /// Bytes without a line feed at the end of the file, or a line longer than any of ours, or not text.
    Torn,
}

impl Lines<File> {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        #[cfg(test)]
        OPENED.with(|opened| opened.set(opened.get() + 1));
        File::open(path).map(|file| Self(BufReader::new(file)))
    }
}

impl<R: Read> Lines<R> {
    /// The next line; none at the end. Nothing can be read after a torn one.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Raw>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
        (&mut self.0).take(most).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.pop() != Some(b'\n') {
            return Ok(Some(Raw::Torn));
        }
        Ok(Some(String::from_utf8(bytes).map_or(Raw::Torn, Raw::Line)))
    }
}

/// How far the chain has come, and how many bytes had to be cut off for it to hold together.
pub(super) struct End {
    pub(super) head: Head,
    /// When the first record of the file was written, if there is one.
    pub(super) began: Option<Unix>,
    pub(super) cut: u64,
}

/// Finds the end of the chain in its last file. What a loss of power left behind there (half a line, pages that never reached
/// the disk) is moved to a file beside it, so that the chain can go on; if that was more than a loss of power explains, the
/// anchor in the store tells.
pub(super) fn find_end(dir: &Path, before: Option<Head>, number: u64) -> Result<End, AuditError> {
    let path = path(dir, number);
    let fail = |error| io(&path, error);
    let mut lines = Lines::open(&path).map_err(fail)?;
    let mut head = before;
    let mut began = None;
    let mut good = 0_u64;
    while let Some(Raw::Line(text)) = lines.next().map_err(fail)? {
        let Ok(line) = Line::read_link(&text) else { break };
        let follows =
            head.is_none_or(|head| line.record.prev == head.link && Some(line.record.n) == head.n.checked_add(1));
        if !follows {
            break;
        }
        head = Some(line.head());
        began = began.or(Some(line.record.at));
        good += text.len() as u64 + 1;
    }
    let cut = cut_after(&path, good).map_err(fail)?;
    Ok(End {
        head: head.unwrap_or(Head::START),
        began,
        cut,
    })
}

/// How many whole lines at the end of a chain's last files no signature covers. More than one batch of them in more than two
/// files is not counted out: whoever checks the chain does.
pub(super) fn unsigned_at_end(dir: &Path, public: &PublicKey) -> Result<u64, AuditError> {
    let mut count = 0;
    for number in numbers(dir)?.into_iter().rev().take(2) {
        let path = path(dir, number);
        let text = std::fs::read_to_string(&path).map_err(|error| io(&path, error))?;
        for line in text.lines().rev() {
            if Line::read(line, public).is_ok_and(|line| line.signed) {
                return Ok(count);
            }
            count += 1;
        }
    }
    Ok(count)
}

fn cut_after(path: &Path, good: u64) -> std::io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    if size <= good {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(good))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let mut aside = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path.with_extension("cut"))?;
    aside.write_all(&rest)?;
    aside.sync_all()?;
    file.set_len(good)?;
    file.sync_all()?;
    Ok(size - good)
}
