//! Which hub, and which device: what `device`, `token` and `login` have in common.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args as ClapArgs;
use lockstep_client::{Builder, Client, DeviceFile};

use super::Failure;

/// Where a hub is unless it is told.
const DEFAULT_HUB: &str = "http://127.0.0.1:8787";
/// The largest file that is read.
const LARGEST: u64 = 1024 * 1024;

#[derive(Debug, ClapArgs)]
pub(super) struct HubArgs {
    /// Address of the hub, as devices reach it [default: that of the device file, else http://127.0.0.1:8787]
    #[arg(long, env = "LOCKSTEP_URL", value_name = "URL", help_heading = "The hub")]
    hub: Option<String>,
    /// Root certificates (PEM) to trust in place of the system's
    #[arg(long, value_name = "FILE", help_heading = "The hub")]
    roots: Option<PathBuf>,
}

impl HubArgs {
    /// The address for a device that is not enrolled yet.
    pub(super) fn url(&self) -> &str {
        self.given().unwrap_or(DEFAULT_HUB)
    }

    /// An empty variable is no address.
    fn given(&self) -> Option<&str> {
        self.hub.as_deref().filter(|url| !url.is_empty())
    }

    /// A client of the hub at this address, as far as it depends on the command line.
    pub(super) fn builder(&self, url: &str) -> Result<Builder, Failure> {
        let builder = Client::builder(url);
        Ok(match &self.roots {
            None => builder,
            Some(file) => builder.roots(fs::read(file).map_err(|error| Failure::file(file, &error))?),
        })
    }

    /// A client of an enrolled device: at the hub of its file, unless another is named (which the library refuses).
    pub(super) fn builder_of(&self, file: &DeviceFile) -> Result<Builder, Failure> {
        let url = self.given().unwrap_or(file.hub_url());
        Ok(self.builder(url)?.device_file(file.clone()))
    }
}

/// The device of a file that must be there.
pub(super) fn enrolled(path: &Path) -> Result<DeviceFile, Failure> {
    DeviceFile::open(path)?.ok_or_else(|| {
        let path = path.display();
        Failure::NotEnrolled(format!(
            "{path}: no such device file; `client-demo login --device-file {path}` makes one"
        ))
    })
}

/// The text of a file; "-" is stdin.
pub(super) fn text_of(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(LARGEST).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file(file, &error))?;
    Ok(text)
}

/// The directory that a file is in.
pub(super) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether files can be made in a directory: better told before a device is enrolled than after.
pub(super) fn writable(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
    let probe = tempfile::NamedTempFile::new_in(directory);
    probe.map_err(|error| Failure::file(directory, &error)).map(drop)
}
