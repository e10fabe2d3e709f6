//! What survives a restart: one JSON file, mode 0600, replaced atomically.
//!
//! It holds the device's credential, and what the device holds of its grants. The credential is the delicate part: a
//! device refresh token rotates, and presenting one that is older than the parent of the newest revokes the device.
//! Hence a new one is on disk before it counts (until then the old one is presented again, which the hub allows), and
//! purchases of several processes that share the file come one after the other.

mod file;
mod lock;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lockstep_protocol::{DeviceId, Secret};

use self::file::{Access, Credential, File};
pub(crate) use self::lock::{Lock, PATIENCE, STEP};
use crate::{
    clock::Now,
    files,
    machine::{Bought, Remembered, Snapshot},
};

/// The cache file of one device at one hub. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    device: DeviceId,
    hub: String,
    /// Which enrolment the file's credential descends from: the hash of the one that the program gave.
    enrolment: String,
    role: Role,
}

/// What becomes of a file that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It can be had again from the hub: replaced.
    Cache,
    /// It may be somebody's only credential: left alone.
    DeviceFile,
}

/// What a device file says of its device.
#[derive(Debug, Clone)]
pub(crate) struct Enrolment {
    pub(crate) hub: String,
    pub(crate) device: DeviceId,
    pub(crate) newest: Secret,
}

/// The device's credential as the file has it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// The one to present.
    pub(crate) refresh_token: Secret,
    /// An access token that is still good.
    pub(crate) access: Option<Bought>,
}

impl Cache {
    /// `given`: the device refresh token that the program was set up with, if it was with one.
    pub(crate) fn new(path: PathBuf, device: DeviceId, hub: String, given: Option<&Secret>) -> Self {
        Self(Arc::new(Place {
            path,
            device,
            hub,
            enrolment: given.map_or_else(String::new, file::hash),
            role: Role::Cache,
        }))
    }

    /// The credential of an enrolled device, and the newest device refresh token in it. None: there is no such file.
    pub(crate) fn open_device_file(path: &Path) -> io::Result<Option<(Self, Enrolment)>> {
        let text = match files::read_private(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = File::parse(&text).map_err(io::Error::other)?;
        let credential = file
            .credential
            .ok_or_else(|| io::Error::other("holds no device refresh token"))?;
        let enrolment = Enrolment {
            hub: file.hub.clone(),
            device: file.device,
            newest: credential.newest,
        };
        let place = Place {
            path: path.to_owned(),
            device: file.device,
            hub: file.hub,
            enrolment: credential.enrolment,
            role: Role::DeviceFile,
        };
        Ok(Some((Self(Arc::new(place)), enrolment)))
    }

    /// Writes a device file in the place of whatever was there.
    pub(crate) fn make_device_file(path: &Path, hub: String, device: DeviceId, given: &Secret) -> io::Result<()> {
        let mut file = File::new(device, hub);
        file.credential = Some(Credential {
            enrolment: file::hash(given),
            newest: given.clone(),
            access: None,
        });
        let place = Self::new(path.to_owned(), device, file.hub.clone(), None);
        let _lock = place.lock()?;
        place.write(&file)
    }

    /// What an earlier run left. A file that cannot be used is said to be so and replaced later.
    pub(crate) fn load(&self, now: Now) -> Remembered {
        let file = self.read().unwrap_or_else(|error| {
            self.warn(&error.to_string());
            None
        });
        let Some(state) = file.and_then(|file| file.state) else {
            return Remembered::default();
        };
        match file::remembered(state, now) {
            Ok(remembered) => remembered,
            Err(why) => {
                self.warn(&why);
                Remembered::default()
            }
        }
    }

    /// The credential as it is on disk, if it descends from the one that the program was given. A file that cannot be read
    /// now is no file without one: the token that the program was given may be long retired.
    pub(crate) fn credential(&self, now: Now) -> io::Result<Option<Kept>> {
        let found = self.read()?.and_then(|file| file.credential);
        let own = found.filter(|credential| credential.enrolment == self.0.enrolment);
        if own.is_none() && self.0.role == Role::DeviceFile && self.0.path.exists() {
            return Err(io::Error::other("the device file holds another enrolment now"));
        }
        Ok(own.map(|credential| Kept {
            refresh_token: credential.newest,
            access: credential.access.and_then(|access| access.good(now)),
        }))
    }

    /// Keeps a purchase, before it is used.
    pub(crate) fn keep_purchase(&self, newest: &Secret, access: &Bought, now: Now) -> io::Result<()> {
        let mut file = self.read()?.unwrap_or_else(|| self.empty());
        file.credential = Some(Credential {
            enrolment: self.0.enrolment.clone(),
            newest: newest.clone(),
            access: Access::of(access, now),
        });
        self.write(&file)
    }

    /// Keeps what the device holds; the credential stays as it is on disk.
    pub(crate) fn keep(&self, snapshot: &Snapshot) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut file = self.read()?.unwrap_or_else(|| self.empty());
        file.state = Some(file::state(snapshot)?);
        self.write(&file)
    }

    /// Only its holder may read in order to write.
    pub(crate) fn lock(&self) -> io::Result<Lock> {
        files::make_directory(self.directory())?;
        Lock::take(&self.lock_path())
    }

    /// The same, unless another process holds it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Lock>> {
        files::make_directory(self.directory())?;
        Lock::try_take(&self.lock_path())
    }

    fn lock_path(&self) -> PathBuf {
        let mut name = self.0.path.clone().into_os_string();
        name.push(".lock");
        name.into()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    fn directory(&self) -> &Path {
        files::parent(&self.0.path)
    }

    fn empty(&self) -> File {
        File::new(self.0.device, self.0.hub.clone())
    }

    /// What is there. None: nothing, or nothing that is of use to this device. An error is neither: what is there must not
    /// be replaced unread.
    fn read(&self) -> io::Result<Option<File>> {
        let text = match files::read(&self.0.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.warn(&error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let why = match File::parse(&text) {
            Ok(file) if file.device == self.0.device && file.hub == self.0.hub => return Ok(Some(file)),
            Ok(_) => "it belongs to another device or another hub".to_owned(),
            Err(why) => why,
        };
        self.warn(&why);
        Ok(None)
    }

    fn write(&self, file: &File) -> io::Result<()> {
        files::replace(&self.0.path, &file.text()?)
    }

    fn warn(&self, why: &str) {
        let path = self.0.path.display();
        match self.0.role {
            Role::Cache => tracing::warn!(%path, why, "the cache is not used, and will be replaced"),
            Role::DeviceFile => tracing::warn!(%path, why, "the device file is not used"),
        }
    }

    /// Whether the place is fit to hold a cache; better told at the start than at the first rotation. That another process
    /// is at it is no objection.
    pub(crate) fn check(&self) -> io::Result<()> {
        drop(self.try_lock()?);
        match fs::symlink_metadata(&self.0.path) {
            Ok(found) if found.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            _ => Ok(()),
        }
    }
}
