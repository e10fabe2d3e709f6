//! What is shown on stdout: tables for people, JSON for scripts.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use lockstep_protocol::UnixSeconds;
use serde::Serialize;

use super::{Done, outcome::Outcome};
use crate::clock;

/// Writes text to stdout.
pub(super) fn text(text: &str) -> Done {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Outcome::NobodyReads,
            _ => Outcome::failed(format!("stdout: {error}")),
        })
}

/// Writes a value to stdout as JSON.
pub(super) fn json(value: &impl Serialize) -> Done {
    let json = serde_json::to_string_pretty(value).map_err(Outcome::failed)?;
    text(&(json + "\n"))
}

/// Writes rows under a heading to stdout, in columns.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Done {
    text(&layout(heading, rows))
}

fn layout<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let lines = || std::iter::once(&heading).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines().map(|line| line[column].chars().count()).max().unwrap_or(0));
    lines()
        .map(|line| {
            let cells: Vec<_> = line
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

/// How far a time is from now, for people.
pub(super) fn from_now(at: Option<UnixSeconds>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| distance(at.0, clock::unix().seconds().0))
}

fn distance(at: u64, now: u64) -> String {
    match at.cmp(&now) {
        std::cmp::Ordering::Equal => "now".to_owned(),
        std::cmp::Ordering::Greater => format!("in {}", roughly(at - now)),
        std::cmp::Ordering::Less => format!("{} ago", roughly(now - at)),
    }
}

/// The two largest units are enough for people.
fn roughly(seconds: u64) -> String {
    let whole = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{distance, layout};

    #[test]
    fn a_table_has_columns_and_no_trailing_blanks() {
        let rows = [
            ["example/main".to_owned(), "7".to_owned()],
            ["x/y".to_owned(), "12".to_owned()],
        ];
        assert_eq!(
            layout(["GRANT", "VERSION"], &rows),
            "GRANT         VERSION\nexample/main  7\nx/y           12\n"
        );
    }

    #[test]
    fn times_are_told_as_people_would() {
        assert_eq!(distance(1000, 1000), "now");
        assert_eq!(distance(1000 + 3 * 3600 + 61, 1000), "in 3h 1m");
        assert_eq!(distance(1000, 1000 + 90), "1m 30s ago");
    }
}
