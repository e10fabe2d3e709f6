//! The storm in words.

use super::{Options, Without};
use crate::term::{Terminal, Tone, count};

pub(super) fn intro(terminal: Terminal, options: Options) {
    terminal.line(format_args!(
        "One user, {}, one OAuth grant. Its access token lives {}; its refresh token works once.",
        count(options.devices, "device"),
        humantime::format_duration(options.access_ttl),
    ));
}

pub(super) fn without(terminal: Terminal, without: &Without) {
    terminal.heading("WITHOUT A HUB: every device refreshes by itself when the token expires");
    for device in &without.devices {
        let (tone, refresh) = match &device.refresh_error {
            None => (Tone::Good, format!("{} new tokens", device.refresh_status)),
            Some(error) => (Tone::Bad, format!("{} {error}", device.refresh_status)),
        };
        let end = match (device.logged_out, &device.refresh_error) {
            (true, None) => terminal.paint(Tone::Bad, "logged out: its new tokens were revoked with the family"),
            (true, Some(_)) => terminal.paint(Tone::Bad, "logged out"),
            (false, _) => terminal.paint(Tone::Good, "still logged in"),
        };
        terminal.line(format_args!(
            "  {:<12} refresh: {:<20} {end}",
            device.name,
            terminal.paint(tone, refresh)
        ));
    }
    terminal.line("");
    terminal.line(format_args!(
        "  The authorization server saw the same refresh token {}, refused {}{}",
        times(without.token_calls),
        without.invalid_grants,
        if without.family_revoked {
            " and revoked the whole family."
        } else {
            "."
        },
    ));
    let everyone = without.logged_out == without.devices.len();
    terminal.line(format_args!(
        "  Result: {}",
        terminal.paint(
            if without.logged_out > 0 { Tone::Bad } else { Tone::Good },
            format!(
                "{} of {} logged out{}",
                without.logged_out,
                count(without.devices.len(), "device"),
                if everyone { ", the winner included." } else { "." },
            )
        )
    ));
}

fn times(number: u64) -> String {
    if number == 1 {
        "once".into()
    } else {
        format!("{number} times")
    }
}
