//! Logs, to stderr: text for people or one JSON object a line.
//!
//! The hub's own lines hold no secret, because secrets have a type that does not show them. Libraries know no such type:
//! below `info`, some of them write what they send and receive. They are not asked, whatever the filter says.

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat, LogLevel};

/// The variable that goes before the settings.
pub const VARIABLE: &str = "LOCKSTEP_LOG";

/// Starts logging for the whole process. A second call does nothing.
///
/// # Errors
/// The filter cannot be read; in words for people.
pub fn start(settings: &Log, variable: Option<&str>) -> Result<(), String> {
    let _already_started = subscriber(settings, variable, std::io::stderr)?.try_init();
    Ok(())
}

fn subscriber<W>(settings: &Log, variable: Option<&str>, writer: W) -> Result<impl Subscriber + Send + Sync, String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match settings.format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let filter = filter(settings, variable)?;
    Ok(tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(filter_fn(is_discreet))))
}

fn filter(settings: &Log, variable: Option<&str>) -> Result<EnvFilter, String> {
    let wanted = variable.filter(|v| !v.is_empty()).unwrap_or(match settings.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    });
    EnvFilter::builder()
        .parse(wanted)
        .map_err(|error| format!("{VARIABLE}: {error}"))
}

/// Whether a line is the hub's own, or one that libraries write to be read by anybody.
fn is_discreet(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO || line.target().starts_with("lockstep_")
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use lockstep_protocol::Secret;
    use tracing::{debug, info, subscriber::with_default, trace};

    use super::{LogFormat, LogLevel, subscriber};
    use crate::config::Log;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat, variable: Option<&str>, work: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = subscriber(&Log { level, format }, variable, move || writer.clone()).expect("filter");
        with_default(subscriber, work);
        let bytes = buffer.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn the_level_of_the_settings_holds_unless_the_variable_says_otherwise() {
        let work = || {
            debug!("low");
            info!("high");
        };
        let text = logged(LogLevel::Info, LogFormat::Text, None, work);
        assert!(text.contains("high") && !text.contains("low"), "{text}");
        let text = logged(
            LogLevel::Error,
            LogFormat::Text,
            Some("lockstep_hub::telemetry=debug"),
            work,
        );
        assert!(text.contains("high") && text.contains("low"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogLevel::Info, LogFormat::Json, None, || {
            info!(user = "alice", "said\nso");
        });
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!(line["user"], "alice");
        assert_eq!(line["message"], "said\nso");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_secret_shows_in_no_format() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let token = Secret::new("s3cret");
            let text = logged(LogLevel::Trace, format, None, || trace!(?token, "token {token:?}"));
            assert!(text.contains("[secret]") && !text.contains("s3cret"), "{text}");
        }
    }

    /// Below `info` libraries write whole frames and headers.
    #[test]
    fn no_wish_makes_a_library_show_what_it_carries() {
        let wishes = "trace,tungstenite::protocol=trace,hyper::proto::h1=trace";
        let text = logged(LogLevel::Trace, LogFormat::Text, Some(wishes), || {
            trace!(target: "tungstenite::protocol", "frame s3cret");
            debug!(target: "hyper::proto::h1::conn", "header s3cret");
            info!(target: "sqlx::pool", "harmless");
        });
        assert!(text.contains("harmless") && !text.contains("s3cret"), "{text}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let log = Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
        };
        let error = subscriber(&log, Some("lockstep=loud"), io::sink)
            .err()
            .expect("refused");
        assert!(error.starts_with("LOCKSTEP_LOG: "), "{error}");
    }
}
