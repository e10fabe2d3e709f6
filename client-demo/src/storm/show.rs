//! The storm in words.

use super::{LoneDevice, Options, Round, RoundDevice, With, Without};
use crate::term::{Terminal, Tone, count};

/// Devices listed one by one; the others are only counted.
const MOST_LISTED: usize = 12;

pub(super) fn intro(terminal: Terminal, options: Options) {
    terminal.line(format_args!(
        "One user, {}, one OAuth grant. Its access token lives {}; its refresh token works once.",
        count(options.devices, "device", "devices"),
        humantime::format_duration(options.access_ttl),
    ));
}

pub(super) fn without(terminal: Terminal, without: &Without) {
    terminal.heading("WITHOUT A HUB: every device refreshes by itself when the token expires");
    list(terminal, &without.devices, lone_device);
    terminal.line("");
    terminal.line(format_args!(
        "  The authorization server saw the same refresh token {}, refused {}{}",
        count(without.token_calls, "time", "times"),
        without.invalid_grants,
        if without.family_revoked {
            ", and revoked the whole family."
        } else {
            "."
        },
    ));
    let verdict = format!(
        "{} of {} logged out{}",
        without.logged_out,
        count(without.devices.len(), "device", "devices"),
        if without.logged_out == without.devices.len() {
            ", the winner included."
        } else {
            "."
        },
    );
    result(terminal, without.logged_out == 0, &verdict);
}

fn lone_device(terminal: Terminal, device: &LoneDevice) {
    let (tone, refresh) = match &device.refresh_error {
        None => (Tone::Good, format!("{} new tokens", device.refresh_status)),
        Some(error) => (Tone::Bad, format!("{} {error}", device.refresh_status)),
    };
    let (end_tone, end) = match (device.logged_out, &device.refresh_error) {
        (true, None) => (Tone::Bad, "logged out: its new tokens were revoked with the family"),
        (true, Some(_)) => (Tone::Bad, "logged out"),
        (false, _) => (Tone::Good, "still logged in"),
    };
    terminal.line(format_args!(
        "  {:<12} refresh: {:<20} {}",
        device.name,
        terminal.paint(tone, refresh),
        terminal.paint(end_tone, end),
    ));
}

pub(super) fn with_heading(terminal: Terminal, options: Options) {
    terminal.heading(if options.mixed {
        "WITH A HUB: the same devices, half of them on long-poll, ask it when the token expires"
    } else {
        "WITH A HUB: the same devices ask it when the token expires"
    });
}

/// The first round is told device by device.
pub(super) fn round(terminal: Terminal, number: usize, round: &Round) {
    if number == 1 {
        list(terminal, &round.devices, |terminal, device| {
            round_device(terminal, device, round.version);
        });
        terminal.line("");
    }
    let good = round.redeems == round.versions && round.redeems > 0;
    let tone = if good { Tone::Good } else { Tone::Bad };
    let mut calls = format!("{} at the authorization server", count(round.redeems, "call", "calls"));
    if round.redeems != 1 || round.versions != 1 {
        calls += &format!(" for {}", count(round.versions, "version", "versions"));
    }
    terminal.line(format_args!(
        "  expiry {number}: {}; {} of {} hold and acked version {}, the last after {:.0} ms",
        terminal.paint(tone, calls),
        round.acked,
        count(round.devices.len(), "device", "devices"),
        round.version,
        round.slowest_ms(),
    ));
}

fn round_device(terminal: Terminal, device: &RoundDevice, version: u64) {
    let (tone, end) = match (&device.error, device.works) {
        (Some(error), _) => (Tone::Bad, error.clone()),
        (None, false) => (Tone::Bad, "its new token does not work".into()),
        (None, true) => (Tone::Good, format!("version {version}, still logged in")),
    };
    terminal.line(format_args!(
        "  {:<12} asked over {:<4} and after {:>4.0} ms: {}",
        device.name,
        device.transport,
        device.waited_ms,
        terminal.paint(tone, end),
    ));
}

pub(super) fn with(terminal: Terminal, with: &With, options: Options) {
    let errors: usize = with.rounds.iter().map(Round::errors).sum();
    let verdict = format!(
        "{}, {}, {} of {} acked, {}: {}",
        count(with.rounds.len(), "expiry", "expiries"),
        count(with.redeems, "redeem", "redeems"),
        with.acked,
        count(with.rounds.len() * options.devices, "update", "updates"),
        count(errors, "error", "errors"),
        if with.ok {
            "everyone is still logged in."
        } else {
            "NOT as promised."
        },
    );
    terminal.line("");
    result(terminal, with.ok, &verdict);
}

fn result(terminal: Terminal, good: bool, verdict: &str) {
    let tone = if good { Tone::Good } else { Tone::Bad };
    terminal.line(format_args!("  Result: {}", terminal.paint(tone, verdict)));
}

fn list<T>(terminal: Terminal, all: &[T], show: impl Fn(Terminal, &T)) {
    for one in all.iter().take(MOST_LISTED) {
        show(terminal, one);
    }
    if let Some(more) = all.len().checked_sub(MOST_LISTED).filter(|more| *more > 0) {
        terminal.line(format_args!("  … and {more} more"));
    }
}
