//! How long records are kept: old ones are dropped a whole file at a time, and the chain itself says so.
//!
//! Before a file goes, a record is brought to disk that names the last record in it ([`Event::Expired`]). So a chain that
//! begins later than at its first record holds a signed word that this is where it should begin. A thief who takes the
//! oldest files leaves a beginning that no record names. What does not hold together is evidence, and is not dropped.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use lockstep_engine::time::Unix;

use super::{
    AuditError, Event, Head, PublicKey,
    chain::{Line, Record},
    file::{self, Lines, Raw},
};

/// The most time between two looks for what may be dropped.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// A file is closed after this part of the time that records are kept, however small it is.
const PARTS: u32 = 8;

/// What the settings say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// None: for ever.
    span: Option<Duration>,
    next_look: Instant,
    /// The last record before the chain's beginning that was looked for in the records, and whether one names it. So the
    /// files are searched once, and not for each that goes.
    looked_for: Option<(Head, bool)>,
}

impl Keep {
    pub(super) fn new(span: Option<Duration>) -> Self {
        let next_look = Instant::now();
        Self {
            span,
            next_look,
            looked_for: None,
        }
    }

    /// Records from before this may be dropped, if it is time to look.
    pub(super) fn due(&mut self, now: Unix) -> Option<Unix> {
        let span = self.span.filter(|_| Instant::now() >= self.next_look)?;
        self.next_look = Instant::now() + LOOK_EVERY.min(span / PARTS);
        Some(now.minus(span))
    }

    /// A record on disk names `end` as dropped. There may be more to drop at once.
    pub(super) fn named(&mut self, end: Head) {
        self.looked_for = Some((end, true));
        self.next_look = Instant::now();
    }

    /// How long until that.
    pub(super) fn patience(&self) -> Duration {
        self.span
            .map_or(LOOK_EVERY, |_| self.next_look.saturating_duration_since(Instant::now()))
    }

    /// Whether a record says that those before `first` were dropped.
    fn is_named(
        &mut self,
        dir: &Path,
        numbers: &[u64],
        first: &Record,
        public: &PublicKey,
    ) -> Result<bool, AuditError> {
        let before = Head {
            n: first.n - 1,
            link: first.prev,
        };
        if let Some((_, named)) = self.looked_for.filter(|(head, _)| *head == before) {
            return Ok(named);
        }
        let named = is_named(dir, numbers, first, public)?;
        self.looked_for = Some((before, named));
        Ok(named)
    }

    /// Whether a file that began then is to be closed, so that it can go in its time.
    pub(super) fn closes(&self, began: Option<Unix>, now: Unix) -> bool {
        let Some((span, began)) = self.span.zip(began) else {
            return false;
        };
        now.since(began) >= span / PARTS
    }
}

/// A closed file whose records are all old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) number: u64,
    /// The last of them.
    pub(super) end: Head,
}

/// The oldest file, if all in it is from before `before`, and it is not the one that grows.
pub(super) fn oldest_due(
    keep: &mut Keep,
    public: &PublicKey,
    dir: &Path,
    current: u64,
    before: Unix,
) -> Result<Option<Due>, AuditError> {
    let numbers = file::numbers(dir)?;
    let &[number, next, ..] = &numbers[..] else {
        return Ok(None);
    };
    let path = file::path(dir, number);
    let broken = |why: &str| AuditError::Broken {
        path: path.clone(),
        why: why.to_owned(),
    };
    // A file that was written to later cannot be old enough; the others are read.
    let changed = fs::metadata(&path).and_then(|meta| meta.modified());
    let changed = changed.map_err(|error| file::io(&path, error))?;
    if number >= current || changed >= SystemTime::UNIX_EPOCH + Duration::from_millis(before.0) {
        return Ok(None);
    }
    let Some((first, last)) = ends(&path).map_err(|error| file::io(&path, error))? else {
        return Err(broken("it does not hold together"));
    };
    if last.record.at >= before {
        return Ok(None);
    }
    let Some(following) = first_of(&file::path(dir, next))? else {
        return Ok(None);
    };
    if !follows(&following, &last) {
        return Err(broken("what comes after it does not follow it"));
    }
    if first.n > 1 && !keep.is_named(dir, &numbers, &first, public)? {
        return Err(broken(
            "records before it are missing, and none says that they were dropped",
        ));
    }
    let end = last.head();
    Ok(Some(Due { number, end }))
}

/// Removes a file, and what was once cut off its end.
pub(super) fn remove(dir: &Path, number: u64) -> Result<(), AuditError> {
    let path = file::path(dir, number);
    let remove = || {
        // The file last: as long as it is there, it is tried again.
        match fs::remove_file(path.with_extension("cut")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::remove_file(&path)?,
        }
        File::open(dir)?.sync_all()
    };
    remove().map_err(|error| file::io(&path, error))
}

/// The first record and the last line of a file; none if it does not hold together.
fn ends(path: &Path) -> io::Result<Option<(Record, Line)>> {
    let mut lines = Lines::open(path)?;
    let mut found: Option<(Record, Line)> = None;
    while let Some(raw) = lines.next()? {
        let Raw::Line(text) = raw else { return Ok(None) };
        let Ok(line) = Line::read_link(&text) else {
            return Ok(None);
        };
        found = match found {
            None => Some((line.record.clone(), line)),
            Some((first, last)) if follows(&line.record, &last) => Some((first, line)),
            Some(_) => return Ok(None),
        };
    }
    Ok(found)
}

fn follows(record: &Record, last: &Line) -> bool {
    Some(record.n) == last.record.n.checked_add(1) && record.prev == last.link
}

/// The first record of a file; none if it has none yet, or none that can be read.
pub(super) fn first_of(path: &Path) -> Result<Option<Record>, AuditError> {
    let line = Lines::open(path).and_then(|mut lines| lines.next());
    let line = line.map_err(|error| file::io(path, error))?;
    Ok(match line {
        Some(Raw::Line(text)) => Line::read_link(&text).ok().map(|line| line.record),
        _ => None,
    })
}

/// Whether a signed record says that those before `first` were dropped. The newest files are searched first: that is where it
/// was written.
pub(super) fn is_named(dir: &Path, numbers: &[u64], first: &Record, public: &PublicKey) -> Result<bool, AuditError> {
    for number in numbers.iter().rev() {
        let path = file::path(dir, *number);
        let fail = |error| file::io(&path, error);
        let mut lines = Lines::open(&path).map_err(fail)?;
        while let Some(Raw::Line(text)) = lines.next().map_err(fail)? {
            // Parsed only if it looks like it.
            if text.contains("\"event\":\"expired\"") && names(&text, first, public) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Only a line with a signature of its own counts, as the hub writes it. What anybody can put at the end of a file while the
/// hub is down is signed for, with all before it, by what the hub writes next.
fn names(text: &str, first: &Record, public: &PublicKey) -> bool {
    let Ok(line) = Line::read(text, public) else {
        return false;
    };
    line.signed
        && matches!(
            line.record.event,
            Event::Expired { through, last } if through.checked_add(1) == Some(first.n) && last == first.prev
        )
}

#[cfg(test)]
mod tests;
