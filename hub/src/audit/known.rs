//! Whether a chain still has a record that is known from elsewhere.

use std::{cmp::Ordering, path::Path};

use super::{
    AuditError, Head, PublicKey,
    chain::Line,
    file::{self, Lines, Raw},
    keep,
};

/// Whether the chain in `dir` has the record `known`. Its files are read from the newest, where the end that was known is.
///
/// A record that was dropped for its age is not missing: then the chain begins later, where a signed record says that it
/// should.
pub(super) fn is_in(dir: &Path, known: Head, public: &PublicKey) -> Result<bool, AuditError> {
    if known == Head::START {
        return Ok(true);
    }
    let numbers = file::numbers(dir)?;
    for number in numbers.iter().rev() {
        let path = file::path(dir, *number);
        match search(&path, known).map_err(|error| file::io(&path, error))? {
            Search::Found(is_it) => return Ok(is_it),
            Search::Before => {}
        }
    }
    let Some(number) = numbers.first() else {
        return Ok(false);
    };
    let Some(first) = keep::first_of(&file::path(dir, *number))? else {
        return Ok(false);
    };
    if known.n.checked_add(1) == Some(first.n) && first.prev != known.link {
        return Ok(false);
    }
    keep::is_named(dir, &numbers, &first, public)
}

/// What a file says.
enum Search {
    /// The record has its place in this file; whether it is there.
    Found(bool),
    /// Its place is before this file.
    Before,
}

fn search(path: &Path, known: Head) -> std::io::Result<Search> {
    let mut lines = Lines::open(path)?;
    let mut is_first = true;
    while let Some(Raw::Line(text)) = lines.next()? {
        let Ok(line) = Line::read_link(&text) else { break };
        match line.record.n.cmp(&known.n) {
            Ordering::Less => is_first = false,
            Ordering::Greater if is_first => return Ok(Search::Before),
            _ => return Ok(Search::Found(line.head() == known)),
        }
    }
    // An empty file says nothing; one that ends before the record should have had it.
    Ok(if is_first { Search::Before } else { Search::Found(false) })
}
