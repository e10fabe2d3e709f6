//! A device's words, as lines for people or as JSON.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::said::{Held, Said, Step};
use crate::term::{Terminal, Tone, count};

/// The column of what a line is about: wide enough for most grants.
const SUBJECT: usize = 16;

/// Where a device's words go.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    terminal: Terminal,
    json: bool,
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    said: &'a Said,
}

impl Show {
    /// Lines for people, in colour where somebody watches; or one JSON object a line.
    pub fn new(json: bool) -> Self {
        Self {
            terminal: Terminal::new(),
            json,
        }
    }

    /// One line.
    ///
    /// # Errors
    /// When nobody reads.
    pub fn say(&self, said: &Said) -> io::Result<()> {
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &Line { time: now, said })?;
            writeln!(out)?;
        } else {
            let clock = now.get(11..23).unwrap_or(&now);
            let (tone, subject, words) = words(said);
            writeln!(
                out,
                "{}  {:<SUBJECT$}  {}",
                self.terminal.paint(Tone::Faint, clock),
                self.terminal.paint(Tone::Strong, subject),
                self.terminal.paint(tone, words),
            )?;
        }
        // Whoever reads a pipe reads it now.
        out.flush()
    }
}

/// How a line looks, what it is about, and what it says.
fn words(said: &Said) -> (Tone, String, String) {
    let (tone, subject, words) = match said {
        Said::Token { grant, version, token } => (
            Tone::Good,
            grant.as_str(),
            format!("version {version}, token {}", held(token)),
        ),
        Said::Status { grant, .. } => {
            let (tone, words) = status(said);
            (tone, grant.as_str(), words)
        }
        Said::Gone { grant } => (
            Tone::Bad,
            grant.as_str(),
            "gone: the user has no such grant any more".into(),
        ),
        Said::Missing { grant } => (Tone::Bad, grant.as_str(), "the user has no such grant yet".into()),
        Said::Redeem {
            grant,
            from_version,
            step,
        } => {
            let (tone, words) = redeem(step, from_version.0);
            (tone, grant.as_str(), words)
        }
        _ => connection(said),
    };
    (tone, subject.to_owned(), words)
}

/// The same for what is about the device and its connection.
fn connection(said: &Said) -> (Tone, &'static str, String) {
    match said {
        Said::Started {
            device,
            hub,
            device_file,
            enrolled,
        } => {
            let new = if *enrolled { ", enrolled just now" } else { "" };
            let file = device_file.as_ref().map(|file| format!(", kept in {file}"));
            let words = format!("{device}{new}{}, at {hub}; Ctrl-C ends it", file.unwrap_or_default());
            (Tone::Plain, "device", words)
        }
        Said::Connecting { transport } => (Tone::Faint, "connecting", format!("over {transport}")),
        Said::Connected { transport, .. } => (Tone::Good, "connected", format!("over {transport}")),
        Said::Synced { grants: 0, .. } => (Tone::Good, "up to date", "the user has no grants yet".into()),
        Said::Synced { transport, grants } => {
            let grants = count(*grants as u64, "grant", "grants");
            (
                Tone::Good,
                "up to date",
                format!("holds the newest of {grants} (over {transport})"),
            )
        }
        Said::Disconnected {
            transport,
            reason,
            retry_in_ms,
        } => {
            let again = soon(*retry_in_ms);
            (
                Tone::Bad,
                "disconnected",
                format!("{reason}; {transport} again {again}"),
            )
        }
        Said::Transport { from, to, reason } => (Tone::Strong, "transport", format!("{from} → {to}: {reason}")),
        Said::Woke { gap_ms } => {
            let words = format!("{} are missing: everything is checked again", length(*gap_ms));
            (Tone::Strong, "woke", words)
        }
        Said::CacheTrouble { reason } => (Tone::Bad, "cache", format!("not written: {reason}")),
        Said::Stopped { reason, .. } => (Tone::Plain, "stopped", reason.clone()),
        _ => (Tone::Plain, "", String::new()),
    }
}

fn held(token: &Held) -> String {
    format!("{} {} (from a {})", token.fingerprint, left(token), token.cause)
}

fn left(token: &Held) -> String {
    match token.expires_in {
        None => "of unknown life".into(),
        Some(0) => "has expired".into(),
        Some(seconds) => format!("good for {}", humantime::format_duration(Duration::from_secs(seconds))),
    }
}

fn status(said: &Said) -> (Tone, String) {
    let Said::Status {
        version,
        health,
        refreshing_by,
        reason,
        retry_at,
        login_url,
        token,
        ..
    } = said
    else {
        return (Tone::Plain, String::new());
    };
    let mut words = format!("version {version}, {health}");
    if *health == "refreshing" {
        let by = refreshing_by.map(|device| format!(" by device {device}"));
        words += &by.unwrap_or_else(|| " by the hub".into());
    }
    if let Some(reason) = reason {
        words += &format!(": {reason}");
    }
    if let Some(at) = retry_at {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs((*at).min(u64::from(u32::MAX)));
        words += &format!("; better expected at {}", humantime::format_rfc3339_seconds(at));
    }
    if let Some(url) = login_url {
        words += &format!("; log in again at {url}");
    }
    if let Some(token) = token {
        words += &format!("; token {} {}", token.fingerprint, left(token));
    }
    let tone = match *health {
        "refreshing" => Tone::Faint,
        "ok" => Tone::Good,
        _ => Tone::Bad,
    };
    (tone, words)
}

fn redeem(step: &Step, from_version: u64) -> (Tone, String) {
    match step {
        Step::Elected => (
            Tone::Strong,
            format!("elected to redeem version {from_version}; accepted"),
        ),
        Step::Declined { reason } => (
            Tone::Faint,
            format!("asked to redeem version {from_version}; declined: {reason}"),
        ),
        Step::Redeeming => (
            Tone::Strong,
            format!("redeem: the refresh token of version {from_version} goes to the provider"),
        ),
        Step::Sealed => (Tone::Strong, "redeemed: the result is sealed on disk".into()),
        Step::Publishing => (Tone::Strong, "publishing the result to the hub".into()),
        Step::Published { version } => (Tone::Good, format!("published: the hub has version {version}")),
        Step::Failed { sent: true, reason } => (Tone::Bad, format!("not redeemed: {reason}; the hub judges")),
        Step::Failed { sent: false, reason } => (Tone::Bad, format!("not redeemed, nothing was sent: {reason}")),
        Step::Refused { reason } => (Tone::Bad, format!("the hub does not take the result: {reason}")),
    }
}

fn soon(millis: u128) -> String {
    if millis == 0 {
        "at once".into()
    } else {
        format!("in {}", length(millis))
    }
}

fn length(millis: u128) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds, for people")]
    let seconds = millis as f64 / 1000.0;
    format!("{seconds:.1} s")
}
