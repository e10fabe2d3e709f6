//! How a command ends that did not do what was asked.

use std::{fmt::Display, process::ExitCode};

/// Why a command did not do what was asked. Each kind has an exit code of its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Settings that are wrong, or a request that the hub does not grant.
    Refused(String),
    /// The hub cannot be reached.
    Unreachable(String),
    /// The admin token is missing or wrong.
    Unauthorized(String),
    /// No such user, grant, device or provider.
    Unknown(String),
    /// Not now: try again.
    NotNow(String),
    /// Whoever reads our output has gone.
    NobodyReads,
}

impl Outcome {
    /// Anything that went wrong here and not at the hub.
    pub(super) fn failed(why: impl Display) -> Self {
        Self::Refused(why.to_string())
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NobodyReads => 0,
            Self::Refused(_) => 1,
            // 2 is clap's, for a wrong command line.
            Self::Unreachable(_) => 3,
            Self::Unauthorized(_) => 4,
            Self::Unknown(_) => 5,
            Self::NotNow(_) => 6,
        })
    }

    /// Says on stderr what is the matter.
    pub(super) fn tell(&self) {
        match self {
            Self::Refused(why)
            | Self::Unreachable(why)
            | Self::Unauthorized(why)
            | Self::Unknown(why)
            | Self::NotNow(why) => eprintln!("lockstep-hub: {why}"),
            Self::NobodyReads => {}
        }
    }
}
