//! Logs, to stderr: text for people or one JSON object a line.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{Log, LogFormat, LogLevel};

/// The variable that goes before the settings.
pub const VARIABLE: &str = "LOCKSTEP_LOG";

/// Crates whose own lines at `debug` and `trace` may show headers and bodies of requests: never more than this.
const QUIET: [&str; 9] = [
    "hyper=info",
    "hyper_util=info",
    "reqwest=info",
    "h2=info",
    "rustls=info",
    "tungstenite=info",
    "tokio_tungstenite=info",
    "sqlx=info",
    "redis=info",
];

/// Starts logging for the whole process. A second call does nothing.
///
/// # Errors
/// The filter cannot be read; in words for people.
pub fn start(settings: &Log, variable: Option<&str>) -> Result<(), String> {
    let filter = filter(settings, variable)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let _already_started = match settings.format {
        LogFormat::Text => registry.with(lines.compact().with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

fn filter(settings: &Log, variable: Option<&str>) -> Result<EnvFilter, String> {
    let wanted = variable.filter(|v| !v.is_empty()).unwrap_or(match settings.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    });
    let mut filter = EnvFilter::builder()
        .parse(wanted)
        .map_err(|error| format!("{VARIABLE}: {error}"))?;
    for directive in QUIET {
        // Later directives win, so that no wish can make these crates show what they carry.
        filter = filter.add_directive(directive.parse().map_err(|_| format!("bad directive {directive}"))?);
    }
    Ok(filter)
}
