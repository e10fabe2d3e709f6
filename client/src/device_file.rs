//! An enrolled device, in a file.

use std::path::{Path, PathBuf};

use lockstep_protocol::{DeviceId, Secret};

use crate::{
    cache::{Cache, Enrolment},
    driver::net::Hub,
    enrol::Enrolled,
    error::Error,
};

/// A device as enrolment made it, in a file of mode 0600: its hub, its id, and the device refresh token, of which the
/// newest is always on disk before it counts.
///
/// Any number of processes may use the same file at a time; they are then one device to the hub, and only one of them
/// can have its WebSocket. Never restore it from a copy: a device refresh token that is older than the parent of the
/// newest revokes the device.
///
/// All functions block for as long as a small file takes.
#[derive(Debug, Clone)]
pub struct DeviceFile {
    path: PathBuf,
    pub(crate) cache: Cache,
    pub(crate) enrolment: Enrolment,
}

impl DeviceFile {
    /// Reads the file. `None`: there is no such file.
    ///
    /// # Errors
    /// [`Error::Misuse`] when it cannot be read, is not a device file, or can be read by others than its owner.
    pub fn open(path: impl Into<PathBuf>) -> Result<Option<Self>, Error> {
        let path = path.into();
        let opened = Cache::open_device_file(&path).map_err(|error| wrong(&path, &error))?;
        Ok(opened.map(|(cache, enrolment)| Self { path, cache, enrolment }))
    }

    /// Writes the file, in the place of whatever was there.
    ///
    /// # Errors
    /// [`Error::Misuse`] when the hub's address is none, or the file cannot be written.
    pub fn create(path: impl Into<PathBuf>, hub_url: &str, device: &Enrolled) -> Result<Self, Error> {
        let path = path.into();
        let hub = Hub::parse(hub_url)?;
        Cache::make_device_file(&path, hub.as_str().to_owned(), device.device, &device.refresh_token)
            .map_err(|error| wrong(&path, &error))?;
        let written = Self::open(&path)?;
        written.ok_or_else(|| Error::misuse(format!("{}: gone as soon as it was written", path.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address of the hub that the device is enrolled at.
    pub fn hub_url(&self) -> &str {
        &self.enrolment.hub
    }

    /// The device.
    pub fn device(&self) -> DeviceId {
        self.enrolment.device
    }

    pub(crate) fn newest(&self) -> Secret {
        self.enrolment.newest.clone()
    }
}

fn wrong(path: &Path, error: &std::io::Error) -> Error {
    Error::misuse(format!("{}: {error}", path.display()))
}
