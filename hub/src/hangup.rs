//! SIGHUP: whatever can be read again while the hub runs is read again at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What SIGHUP does to a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// Files are read again.
    Reloads,
    /// It ends with its terminal.
    Ends,
}

/// The hang-ups that are heard.
#[derive(Debug)]
pub struct Hangups(Option<Signal>);

impl Hangups {
    /// Hears them from now on. Until then a hang-up ends the process: to be called before anything that takes time.
    pub fn hear(hangup: Hangup) -> Self {
        match hangup {
            Hangup::Ends => Self(None),
            Hangup::Reloads => {
                let heard = signal(SignalKind::hangup());
                Self(
                    heard
                        .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be heard"))
                        .ok(),
                )
            }
        }
    }

    /// The next one; never, if they are not heard.
    pub async fn next(&mut self) {
        if let Some(heard) = &mut self.0
            && heard.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Says that there is nothing to be read again, for as long as it is polled.
    pub async fn ignore(mut self) {
        loop {
            self.next().await;
            tracing::info!("SIGHUP: nothing is to be reloaded, because only certificates are, and there is no [tls]");
        }
    }
}
