//! `client-demo login`: becoming a device by the user's approval.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args as ClapArgs;
use lockstep_client::{DeviceFile, Login};
use qrcode::{QrCode, render::unicode::Dense1x2};
use serde_json::{Value, json};

use super::{
    Failure,
    device::Kind,
    hub_args::{HubArgs, directory_of, writable},
    logs, stop_signal,
};
use crate::term::{Terminal, Tone};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    hub: HubArgs,
    /// File (0600) that will keep the device and its newest token
    #[arg(long, env = "LOCKSTEP_DEVICE_FILE", value_name = "FILE")]
    device_file: PathBuf,
    /// Enrol anew even if there is a device file
    #[arg(long)]
    force: bool,
    /// What people call the device [default: the name of this machine]
    #[arg(long)]
    name: Option<String>,
    /// What the device is
    #[arg(long, value_enum, default_value_t = Kind::Cli)]
    kind: Kind,
    /// Do not draw the address as a QR code
    #[arg(long)]
    no_qr: bool,
    /// Print JSON: one object with the code, one with the device
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    logs();
    may_be_made(&args.device_file, args.force)?;
    let url = args.hub.url();
    let name = args.name.clone().unwrap_or_else(machine);
    let login = args.hub.builder(url)?.login(&name, args.kind.as_str()).await?;
    let terminal = if args.json { Terminal::silent() } else { Terminal::new() };
    if args.json {
        say(&code(&login))?;
    } else {
        show(terminal, &login, !args.no_qr)?;
    }
    let spinner = terminal.spinner("waiting for the approval");
    let approved = tokio::select! {
        approved = login.approved() => approved?,
        signal = stop_signal() => {
            signal?;
            return Err(Failure::Interrupted("interrupted: nothing was stored".into()));
        }
    };
    let file = DeviceFile::create(&args.device_file, url, &approved)?;
    drop(spinner);
    let kept = file.path().display();
    if args.json {
        say(&json!({ "event": "enrolled", "device_id": file.device(), "device_file": kept.to_string() }))?;
    }
    terminal.line(terminal.paint(Tone::Good, format_args!("Approved: this is device {}.", file.device())));
    terminal.line(format_args!("Its token is kept in {kept}. Now try:\n"));
    terminal.line(format_args!("  client-demo device --device-file {kept}"));
    terminal.line(format_args!(
        "  client-demo token provider/account --device-file {kept}"
    ));
    Ok(ExitCode::SUCCESS)
}

fn may_be_made(path: &Path, force: bool) -> Result<(), Failure> {
    if path.exists() && !force {
        return Err(Failure::Exists(format!(
            "{}: this machine is enrolled already; --force enrols it anew",
            path.display()
        )));
    }
    writable(directory_of(path))
}

fn code(login: &Login) -> Value {
    json!({
        "event": "code",
        "user_code": login.user_code(),
        "verification_uri": login.verification_uri(),
        "verification_uri_complete": login.verification_uri_complete(),
        "expires_in": login.expires_in().as_secs(),
    })
}

fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

fn show(terminal: Terminal, login: &Login, qr: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let address = login.verification_uri();
    let minutes = humantime::format_duration(Duration::from_secs(login.expires_in().as_secs().div_ceil(60) * 60));
    writeln!(
        out,
        "To let this device in, open\n\n  {}\n",
        terminal.paint(Tone::Strong, address)
    )?;
    writeln!(
        out,
        "and enter the code  {}   (good for {minutes})\n",
        terminal.paint(Tone::Strong, login.user_code())
    )?;
    if qr && io::stdout().is_terminal() {
        let scanned = login.verification_uri_complete().unwrap_or(address);
        if let Some(drawing) = drawn(scanned) {
            writeln!(out, "{drawing}\n")?;
        }
    }
    out.flush()
}

/// As a QR code for a dark terminal; none if the text is too long for one.
fn drawn(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let drawing = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(drawing)
}

fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "client-demo".to_owned(),
        name => name.chars().take(64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn an_address_becomes_a_square_of_half_blocks() {
        let drawing = drawn("http://127.0.0.1:8787/device?user_code=BCDF-GHJK").unwrap();
        let lines: Vec<_> = drawing.lines().collect();
        let width = lines[0].chars().count();
        assert!(width >= 29, "{drawing}");
        assert!(lines.iter().all(|line| line.chars().count() == width), "{drawing}");
        assert_eq!(lines.len(), width.div_ceil(2), "{drawing}");
        assert!(drawn(&"x".repeat(10_000)).is_none(), "too long for a QR code");
    }
}
