//! Key files: text, newest key first, one `id base64` a line; blank lines and lines that start with `#` are skipped.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::{TryRngCore, rngs::OsRng};
use zeroize::Zeroizing;

use super::VaultError;

/// Where keys may also come from: the text of a key file (a comma does for a line break, ids may be left out).
pub(super) const ENVIRONMENT: &str = "LOCKSTEP_KEY";

const LENGTH: usize = 32;

/// Which key: a fingerprint of it, so that no two places can mean different keys by one id. Eight hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl KeyId {
    fn of(key: &[u8; LENGTH]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"lockstep key id v1\0");
        context.update(key);
        let mut id = [0; 4];
        id.copy_from_slice(&context.finish().as_ref()[..4]);
        Self(u32::from_be_bytes(id))
    }

    pub(super) fn list(ids: &[Self]) -> String {
        ids.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::str::FromStr for KeyId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u32::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or(())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Key = Zeroizing<[u8; LENGTH]>;

/// Keys with their ids, newest first, at least one.
pub(super) struct Keys(Vec<(KeyId, Key)>);

impl Keys {
    pub(super) fn fresh() -> Self {
        let key = fresh_key();
        Self(vec![(KeyId::of(&key), key)])
    }

    pub(super) fn read(path: &Path, may_make: bool) -> Result<Self, VaultError> {
        let fail = |error| VaultError::File {
            path: path.to_owned(),
            error,
        };
        let mut file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return if may_make {
                    Self::make(path).map_err(fail)
                } else {
                    Err(VaultError::Absent(path.to_owned()))
                };
            }
            opened => opened.map_err(fail)?,
        };
        let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(VaultError::Loose {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::with_capacity(4096));
        file.read_to_string(&mut text).map_err(fail)?;
        Self::parse(&text, &path.display().to_string())
    }

    fn make(path: &Path) -> std::io::Result<Self> {
        let keys = Self::fresh();
        let text: Zeroizing<String> = Zeroizing::new(keys.0.iter().map(|(id, key)| line(*id, key)).collect());
        replace(path, &text)?;
        Ok(keys)
    }

    /// Puts a fresh key at the top of a key file.
    pub(super) fn add(path: &Path) -> Result<(KeyId, Self), VaultError> {
        let key = fresh_key();
        let id = KeyId::of(&key);
        let first = Zeroizing::new(line(id, &key));
        let keys = Self::edit(path, |text| Zeroizing::new(format!("{}{}", *first, text)))?;
        Ok((id, keys))
    }

    /// Takes a key out of a key file.
    pub(super) fn remove(path: &Path, id: KeyId) -> Result<Self, VaultError> {
        let others = |line: &&str| parse_line(line.trim()).map_or(true, |(other, _)| other != id);
        Self::edit(path, |text| {
            Zeroizing::new(text.split_inclusive('\n').filter(others).collect::<String>())
        })
    }

    /// Writes a key file anew, unless that would make it unusable. Comments stay.
    fn edit(path: &Path, change: impl FnOnce(&str) -> Zeroizing<String>) -> Result<Self, VaultError> {
        let fail = |error| VaultError::File {
            path: path.to_owned(),
            error,
        };
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fail)?);
        let text = change(&text);
        let keys = Self::parse(&text, &path.display().to_string())?;
        replace(path, &text).map_err(fail)?;
        Ok(keys)
    }

    pub(super) fn parse(text: &str, place: &str) -> Result<Self, VaultError> {
        let mut keys: Vec<(KeyId, Key)> = Vec::new();
        for (index, line) in text.split(['\n', ',']).enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| VaultError::Line {
                place: place.to_owned(),
                line: index + 1,
                why,
            };
            let (id, key) = parse_line(line).map_err(wrong)?;
            if keys.iter().any(|(other, _)| *other == id) {
                return Err(wrong("the same key twice"));
            }
            keys.push((id, key));
        }
        if keys.is_empty() {
            return Err(VaultError::Empty(place.to_owned()));
        }
        Ok(Self(keys))
    }
}

impl IntoIterator for Keys {
    type Item = (KeyId, Key);
    type IntoIter = std::vec::IntoIter<(KeyId, Key)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn line(id: KeyId, key: &Key) -> String {
    format!("{id} {}\n", *Zeroizing::new(STANDARD.encode(**key)))
}

/// The file is complete when it appears: a key that sealed something must never be half a key.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(parent)?.sync_all()
}

fn parse_line(line: &str) -> Result<(KeyId, Key), &'static str> {
    let (said, text) = match line.split_once(char::is_whitespace) {
        Some((id, text)) => {
            let id = u32::from_str_radix(id, 16).map_err(|_| "the id is not eight hex digits")?;
            (Some(KeyId(id)), text.trim_start())
        }
        None => (None, line),
    };
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| "the key is not base64")?);
    let key = <[u8; LENGTH]>::try_from(bytes.as_slice()).map_err(|_| "the key is not 32 bytes")?;
    let key = Zeroizing::new(key);
    let id = KeyId::of(&key);
    if said.is_some_and(|said| said != id) {
        return Err("the id is not that of the key");
    }
    Ok((id, key))
}

#[expect(
    clippy::expect_used,
    reason = "without random numbers from the system nothing can be sealed at all"
)]
fn fresh_key() -> Key {
    let mut key = Zeroizing::new([0; LENGTH]);
    OsRng
        .try_fill_bytes(&mut *key)
        .expect("the operating system gives random numbers");
    key
}
