//! Checks a chain: finds any record altered, dropped, reordered or added.
//!
//! A chain that begins late is whole if a signed record in it names the one before its beginning ([`Event::Expired`]): that was
//! written, and signed for, by the hub that dropped them.

use std::{fmt, path::Path};

use super::{
    AuditError, Event, Head, PublicKey,
    chain::{BadLine, Line},
    file::{self, Lines, Raw},
    writer::LARGEST_BATCH,
};

/// The most faults that are listed; one alteration makes few, and a file of another kind makes one per line.
const MOST_FAULTS: usize = 100;

/// Where and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file's name; none for the chain as a whole.
    pub file: Option<String>,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u64,
    /// What.
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// The line is not one that the log wrote.
    #[error("{0}")]
    Line(#[from] BadLine),
    /// Half a line.
    #[error("not a whole line")]
    Torn,
    /// What was known cannot be compared with anything.
    #[error(
        "record {0} is from before the records that are kept: whether it was the one that was known, only a copy of them tells"
    )]
    TooOld(u64),
    /// Records are missing.
    #[error("records {from} to {to} were dropped")]
    Dropped {
        /// The first missing one.
        from: u64,
        /// The last missing one.
        to: u64,
    },
    /// The number was there before.
    #[error("record {0} is out of order, or was added")]
    OutOfOrder(u64),
    /// The right number, and another history.
    #[error("record {0} does not follow the one before: that, or this, was put in its place")]
    Replaced(u64),
    /// The hub found them so when it started, and went on.
    #[error(
        "nobody had signed for records {from} to {to} when the hub started after them: a crash left them so, or they were put there"
    )]
    Unproven {
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// More than the log ever leaves unsigned.
    #[error(
        "too many records without a signature, from record {0} on: signatures were removed, or records put in their place"
    )]
    Stripped(u64),
    /// The hub found it so when it started, and went on.
    #[error(
        "record {0} was on disk, and was no longer there when the hub started: the history was cut off, or written anew"
    )]
    Missing(u64),
    /// Nobody signed for the end.
    #[error("the newest records are not signed")]
    Unsigned,
    /// The end is missing.
    #[error("ends at record {0}, and record {1} was on disk: the newest records were cut off")]
    CutOff(u64, u64),
    /// The known record is another one.
    #[error("record {0} is not the one that was known: the history was written anew")]
    Forked(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) if self.line > 0 => write!(f, "{file}:{}: {}", self.line, self.what),
            Some(file) => write!(f, "{file}: {}", self.what),
            None => self.what.fmt(f),
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many records hold together.
    pub records: u64,
    /// The last record that the hub dropped for its age, as a record says; none: the chain begins at its beginning.
    pub expired: Option<Head>,
    /// How far the chain goes.
    pub head: Head,
    /// What is wrong; at most [`MOST_FAULTS`].
    pub faults: Vec<Fault>,
}

impl Report {
    /// Whether nothing was found.
    pub const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Checks the chain in `dir`. `known` are links that somebody holds from elsewhere (the store's anchor, a device's
/// receipt): the chain must have them.
///
/// # Errors
/// When the directory or a file in it cannot be read.
pub fn verify(dir: &Path, public: &PublicKey, known: &[Head]) -> Result<Report, AuditError> {
    let mut check = Check {
        public,
        known: known.to_vec(),
        head: Head::START,
        start: None,
        expired: Vec::new(),
        unsigned: 0,
        report: Report {
            records: 0,
            expired: None,
            head: Head::START,
            faults: Vec::new(),
        },
    };
    for number in file::numbers(dir)? {
        let path = file::path(dir, number);
        check.file(&path).map_err(|error| file::io(&path, error))?;
    }
    Ok(check.end())
}

struct Check<'a> {
    public: &'a PublicKey,
    known: Vec<Head>,
    /// Where it begins, if that is not at the first record.
    start: Option<Start>,
    /// What the records say was dropped for its age: the last record of each.
    expired: Vec<Head>,
    /// The end of what was read.
    head: Head,
    /// How many records up to that end no signature covers.
    unsigned: u64,
    report: Report,
}

/// A chain's late beginning.
struct Start {
    file: Option<String>,
    line: u64,
    /// The record before it, as the first one that is there says.
    before: Head,
}

impl Check<'_> {
    fn file(&mut self, path: &Path) -> std::io::Result<()> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut lines = Lines::open(path)?;
        let mut number = 0;
        while let Some(raw) = lines.next()? {
            number += 1;
            let found = match raw {
                Raw::Torn => Err(What::Torn),
                Raw::Line(text) => Line::read(&text, self.public).map_err(What::from).and_then(|line| {
                    self.begin(&line, name.as_deref(), number);
                    self.line(&line)
                }),
            };
            if let Err(what) = found {
                self.fault(name.clone(), number, what);
            }
        }
        Ok(())
    }

    /// Takes the first line that holds together in itself. If it is not the first record, those before it must have been
    /// dropped for their age: what is said of that comes later.
    fn begin(&mut self, line: &Line, file: Option<&str>, number: u64) {
        if self.head != Head::START || line.record.n <= 1 {
            return;
        }
        let before = Head {
            n: line.record.n - 1,
            link: line.record.prev,
        };
        self.start = Some(Start {
            file: file.map(str::to_owned),
            line: number,
            before,
        });
        self.head = before;
    }

    /// Takes a line that holds together in itself.
    fn line(&mut self, line: &Line) -> Result<(), What> {
        let (before, now) = (self.head, line.head());
        if now.n <= before.n {
            return Err(What::OutOfOrder(now.n));
        }
        // From here on this line is what the next is compared with, so that one fault is told once.
        self.head = now;
        let unsigned = self.unsigned;
        self.unsigned = if line.signed { 0 } else { unsigned + 1 };
        self.known_at(now)?;
        if now.n - 1 > before.n {
            return Err(What::Dropped {
                from: before.n + 1,
                to: now.n - 1,
            });
        }
        if line.record.prev != before.link {
            return Err(What::Replaced(now.n));
        }
        self.report.records += 1;
        self.says(line, unsigned)
    }

    /// Takes what a line says of the chain, after so many that no signature covers. Most is believed only if the line has a
    /// signature of its own: those that the hub writes when it starts cover all that anybody wrote before them.
    fn says(&mut self, line: &Line, before: u64) -> Result<(), What> {
        let n = line.record.n;
        if self.unsigned == LARGEST_BATCH as u64 + 1 {
            return Err(What::Stripped(n - before));
        }
        let unproven = |records: u64| What::Unproven {
            from: n.saturating_sub(records).max(1),
            to: n - 1,
        };
        match line.record.event {
            Event::Started { .. } if before > 0 => Err(unproven(before)),
            Event::Unsigned { records } if line.signed => Err(unproven(records.max(before))),
            Event::Missing { known, .. } if line.signed => Err(What::Missing(known)),
            Event::Expired { through, last } if line.signed => {
                self.expired.push(Head { n: through, link: last });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn known_at(&mut self, now: Head) -> Result<(), What> {
        let forked = self
            .known
            .iter()
            .any(|known| known.n == now.n && known.link != now.link);
        self.known.retain(|known| known.n != now.n);
        if forked { Err(What::Forked(now.n)) } else { Ok(()) }
    }

    fn end(mut self) -> Report {
        self.judge_start();
        if self.unsigned > 0 {
            self.fault(None, 0, What::Unsigned);
        }
        let missing = self.known.iter().map(|known| known.n).max();
        if let Some(missing) = missing.filter(|n| *n > self.head.n) {
            self.fault(None, 0, What::CutOff(self.head.n, missing));
        }
        self.report.head = self.head;
        self.report
    }

    fn judge_start(&mut self) {
        let Some(Start { file, line, before }) = self.start.take() else {
            return;
        };
        if let Err(what) = self.known_at(before) {
            self.fault(file.clone(), line, what);
        }
        let too_old = self.known.extract_if(.., |known| known.n < before.n);
        let too_old: Vec<_> = too_old.map(|known| What::TooOld(known.n)).collect();
        if self.expired.contains(&before) {
            self.report.expired = Some(before);
        } else {
            let said = self.expired.iter().map(|head| head.n).filter(|n| *n < before.n).max();
            let from = said.map_or(1, |n| n + 1);
            self.fault(file, line, What::Dropped { from, to: before.n });
        }
        for what in too_old {
            self.fault(None, 0, what);
        }
    }

    fn fault(&mut self, file: Option<String>, line: u64, what: What) {
        if self.report.faults.len() < MOST_FAULTS {
            self.report.faults.push(Fault { file, line, what });
        }
    }
}

#[cfg(test)]
mod tests;
