//! How a command ends that did not do what was asked.

use std::{io, path::Path, process::ExitCode};

use lockstep_client::{EnrolError, Error, Stopped};

use crate::{device::FirstStartError, hub::AdminError};

/// Why a command came to nothing, for people. Each kind has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The system refused.
    #[error(transparent)]
    Io(io::Error),
    /// A file cannot be used.
    #[error("{0}")]
    File(String),
    /// The answer cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The storm could not be shown.
    #[error(transparent)]
    Storm(#[from] crate::storm::StormError),
    /// The bench could not be run.
    #[error(transparent)]
    Bench(#[from] crate::bench::BenchError),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The library's word.
    #[error(transparent)]
    Client(Error),
    /// The hub did not enrol the device.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// Nor did the admin API.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// There is no device yet.
    #[error("{0}")]
    NotEnrolled(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// The hub cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// Not now.
    #[error("{0}")]
    NotNow(String),
    /// Somebody must log in.
    #[error("{0}")]
    LoginNeeded(String),
    /// The user did not want to wait.
    #[error("{0}")]
    Interrupted(String),
    /// Whoever reads our output has gone.
    #[error("nobody reads the output")]
    NobodyReads,
}

impl Failure {
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        Self::File(format!("{}: {error}", path.display()))
    }

    /// Says on stderr what is the matter, and what to do about it.
    pub(super) fn tell(&self) {
        if matches!(self, Self::NobodyReads) {
            return;
        }
        eprintln!("client-demo: {self}");
        if let Some(hint) = self.hint() {
            eprintln!("  {hint}");
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Client(Error::Stopped(why)) => match why {
                Stopped::NotAuthenticated { .. } | Stopped::Revoked => {
                    Some("to enrol this device anew: client-demo login --force --device-file FILE")
                }
                Stopped::Replaced => {
                    Some("two programs cannot be the same device: give each a --device-file of its own")
                }
                Stopped::Protocol => Some("update whichever of the two is older"),
                _ => None,
            },
            Self::Admin(AdminError::Refused { status: 404, .. }) => {
                Some("is this the address that operators use (server.admin_listen of the hub)?")
            }
            Self::Enrol(EnrolError::NotOffered(_)) => {
                Some("is this the address that devices use (server.listen of the hub), and does this hub offer logins?")
            }
            _ => None,
        }
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NobodyReads => 0,
            Self::Client(error) => of_client(error),
            Self::Enrol(error) => of_enrol(error),
            Self::Admin(AdminError::Http(_)) | Self::Unreachable(_) => 3,
            Self::Admin(AdminError::Refused { status: 401 | 403, .. }) | Self::NotEnrolled(_) => 4,
            Self::NotNow(_) => 6,
            Self::LoginNeeded(_) => 7,
            Self::Usage(_) => 2,
            Self::Admin(_)
            | Self::Io(_)
            | Self::File(_)
            | Self::Json(_)
            | Self::Storm(_)
            | Self::Bench(_)
            | Self::Exists(_)
            | Self::Interrupted(_) => 1,
        })
    }
}

fn of_client(error: &Error) -> u8 {
    match error {
        Error::Retry { .. } => 6,
        Error::Reauth { .. } => 7,
        Error::UnknownGrant { .. } => 5,
        Error::Stopped(Stopped::NotAuthenticated { .. }) => 4,
        Error::Stopped(Stopped::Revoked) => 8,
        Error::Stopped(Stopped::Replaced) => 9,
        Error::Stopped(Stopped::Protocol) => 10,
        _ => 1,
    }
}

fn of_enrol(error: &EnrolError) -> u8 {
    match error {
        EnrolError::Unreachable(_) | EnrolError::NotOffered(_) => 3,
        EnrolError::Later { .. } => 6,
        EnrolError::Denied | EnrolError::Expired | EnrolError::Refused(_) => 4,
        EnrolError::Settings(error) => of_client(error),
        _ => 1,
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Io(error),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<Stopped> for Failure {
    fn from(why: Stopped) -> Self {
        Self::Client(why.into())
    }
}

impl From<FirstStartError> for Failure {
    fn from(error: FirstStartError) -> Self {
        match error {
            FirstStartError::Enrol(error) => Self::Enrol(error),
            FirstStartError::Admin(error) => Self::Admin(error),
            FirstStartError::File(error) => Self::Client(error),
        }
    }
}
