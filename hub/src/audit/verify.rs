//! Checks a chain: finds any record altered, dropped, reordered or added.

use std::{fmt, path::Path};

use super::{
    AuditError, Head, PublicKey,
    chain::{BadLine, Line},
    file::{self, Lines, Raw},
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
        signed: true,
        report: Report {
            records: 0,
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
    /// The end of what was read.
    head: Head,
    /// Whether a signature covers that end.
    signed: bool,
    report: Report,
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
                Raw::Line(text) => Line::read(&text, self.public)
                    .map_err(What::from)
                    .and_then(|line| self.line(&line)),
            };
            if let Err(what) = found {
                self.fault(name.clone(), number, what);
            }
        }
        Ok(())
    }

    /// Takes a line that holds together in itself.
    fn line(&mut self, line: &Line) -> Result<(), What> {
        let (before, now) = (self.head, line.head());
        if now.n <= before.n {
            return Err(What::OutOfOrder(now.n));
        }
        // From here on this line is what the next is compared with, so that one fault is told once.
        self.head = now;
        self.signed = line.signed;
        self.known_at(now)?;
        if now.n > before.n + 1 {
            return Err(What::Dropped {
                from: before.n + 1,
                to: now.n - 1,
            });
        }
        if line.record.prev != before.link {
            return Err(What::Replaced(now.n));
        }
        self.report.records += 1;
        Ok(())
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
        if !self.signed {
            self.fault(None, 0, What::Unsigned);
        }
        let missing = self.known.iter().map(|known| known.n).max();
        if let Some(missing) = missing.filter(|n| *n > self.head.n) {
            self.fault(None, 0, What::CutOff(self.head.n, missing));
        }
        self.report.head = self.head;
        self.report
    }

    fn fault(&mut self, file: Option<String>, line: u64, what: What) {
        if self.report.faults.len() < MOST_FAULTS {
            self.report.faults.push(Fault { file, line, what });
        }
    }
}

#[cfg(test)]
mod tests;
