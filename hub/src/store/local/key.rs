//! Keys: one ordered space for all rows, so that what is read or written together lies together.
//!
//! A letter for the table, then the parts. Names hold no zero byte, so one ends a part whose length varies, and keys sort
//! as their parts do.

use std::fmt;

use lockstep_engine::time::Unix;
use lockstep_protocol::{DeviceId, GrantName, UserId};
use uuid::Uuid;

use super::super::{Answer, Hash, StoreError};

/// What a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Table {
    Meta = b'm',
    Node = b'n',
    Shared = b's',
    /// Users and their grants: the user's own row comes first.
    User = b'u',
    /// Index: provider, due, user, grant.
    Due = b'd',
    /// When users are active: a row of its own, because it changes at other times than the user's other ones.
    Hours = b'h',
    Device = b'v',
    /// Index: user, device.
    UserDevice = b'w',
    /// Index: time, device.
    Revoked = b'x',
    Slave = b't',
    /// Index: device, slave.
    DeviceSlave = b'y',
    /// Index: user, grant, slave.
    GrantSlave = b'z',
}

impl Table {
    const ALL: [Self; 12] = [
        Self::Meta,
        Self::Node,
        Self::Shared,
        Self::User,
        Self::Due,
        Self::Hours,
        Self::Device,
        Self::UserDevice,
        Self::Revoked,
        Self::Slave,
        Self::DeviceSlave,
        Self::GrantSlave,
    ];
}

/// A key, or the beginning that several have in common.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::store) struct Key(Vec<u8>);

impl Key {
    fn new(table: Table, parts: &[&[u8]]) -> Self {
        let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        key.push(table as u8);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        Self(key)
    }

    /// Epoch and commit number.
    pub(in crate::store) fn mark() -> Self {
        Self::new(Table::Meta, &[b"mark"])
    }

    /// The number of the last transaction.
    pub(in crate::store) fn group() -> Self {
        Self::new(Table::Meta, &[b"group"])
    }

    /// What [`super::super::Store::probe`] writes.
    pub(super) fn probe() -> Self {
        Self::new(Table::Meta, &[b"probe"])
    }

    pub(super) fn node(node: &str) -> Self {
        Self::new(Table::Node, &[node.as_bytes()])
    }

    pub(super) fn shared(name: &str) -> Self {
        Self::new(Table::Shared, &[name.as_bytes()])
    }

    /// The beginning of every shared value's key.
    pub(super) fn all_shared() -> Self {
        Self::new(Table::Shared, &[])
    }

    /// The name of a shared value's key.
    pub(super) fn parse_shared(bytes: &[u8]) -> Answer<String> {
        let name = bytes.get(1..).and_then(|name| std::str::from_utf8(name).ok());
        name.map(str::to_owned)
            .ok_or_else(|| corrupt(bytes, "not a key of this table"))
    }

    /// The user's own row; also the beginning of all of its grants' keys.
    pub(super) fn user(user: &UserId) -> Self {
        Self::new(Table::User, &[user.as_str().as_bytes(), &[0]])
    }

    pub(super) fn grant(user: &UserId, grant: &GrantName) -> Self {
        Self::new(
            Table::User,
            &[user.as_str().as_bytes(), &[0], grant.as_str().as_bytes()],
        )
    }

    pub(super) fn hours(user: &UserId) -> Self {
        Self::new(Table::Hours, &[user.as_str().as_bytes()])
    }

    /// The beginning of every user's and grant's key.
    pub(super) fn users() -> Self {
        Self::new(Table::User, &[])
    }

    /// User and grant of a key in the table of users; no grant: the user's own row.
    pub(super) fn parse_user(bytes: &[u8]) -> Answer<(UserId, Option<GrantName>)> {
        let broken = || corrupt(bytes, "not a key of this table");
        let mut parts = bytes.get(1..).unwrap_or_default().splitn(2, |byte| *byte == 0);
        let user = name(parts.next()).ok_or_else(broken)?;
        match parts.next() {
            Some([]) => Ok((user, None)),
            part => Ok((user, Some(name(part).ok_or_else(broken)?))),
        }
    }

    pub(super) fn due(due: Unix, user: &UserId, grant: &GrantName) -> Self {
        let (provider, account) = (grant.provider().as_bytes(), grant.account().as_bytes());
        Self::new(
            Table::Due,
            &[
                provider,
                &[0],
                &due.0.to_be_bytes(),
                user.as_str().as_bytes(),
                &[0],
                account,
            ],
        )
    }

    /// The beginning of what is due at a provider.
    pub(super) fn due_at(provider: &str) -> Self {
        Self::new(Table::Due, &[provider.as_bytes(), &[0]])
    }

    /// Time, user and grant of a key that begins with `prefix`, made by [`Self::due_at`] for `provider`.
    pub(super) fn parse_due(bytes: &[u8], prefix: &Self, provider: &str) -> Answer<(Unix, UserId, GrantName)> {
        let parse = || {
            let (due, rest) = bytes.strip_prefix(prefix.as_slice())?.split_first_chunk()?;
            let mut parts = rest.splitn(2, |byte| *byte == 0);
            let user = name(parts.next())?;
            let account = std::str::from_utf8(parts.next()?).ok()?;
            Some((
                Unix(u64::from_be_bytes(*due)),
                user,
                GrantName::new(provider, account).ok()?,
            ))
        };
        parse().ok_or_else(|| corrupt(bytes, "not a key of this table"))
    }

    pub(super) fn device(device: DeviceId) -> Self {
        Self::new(Table::Device, &[device.0.as_bytes()])
    }

    pub(super) fn user_device(user: &UserId, device: DeviceId) -> Self {
        Self::new(
            Table::UserDevice,
            &[user.as_str().as_bytes(), &[0], device.0.as_bytes()],
        )
    }

    pub(super) fn user_devices(user: &UserId) -> Self {
        Self::new(Table::UserDevice, &[user.as_str().as_bytes(), &[0]])
    }

    /// The device that ends a key of one of the indexes.
    pub(super) fn last_device(bytes: &[u8]) -> Answer<DeviceId> {
        let id = bytes
            .last_chunk()
            .ok_or_else(|| corrupt(bytes, "ends in no device id"))?;
        Ok(DeviceId(Uuid::from_bytes(*id)))
    }

    pub(super) fn revoked(at: Unix, device: DeviceId) -> Self {
        Self::new(Table::Revoked, &[&at.0.to_be_bytes(), device.0.as_bytes()])
    }

    pub(super) fn revocations() -> Self {
        Self::new(Table::Revoked, &[])
    }

    pub(super) fn parse_revoked(bytes: &[u8]) -> Answer<(DeviceId, Unix)> {
        let at = bytes.get(1..).and_then(|rest| rest.first_chunk());
        let at = at.ok_or_else(|| corrupt(bytes, "begins with no time"))?;
        Ok((Self::last_device(bytes)?, Unix(u64::from_be_bytes(*at))))
    }

    pub(super) fn slave(hash: Hash) -> Self {
        Self::new(Table::Slave, &[&hash.0])
    }

    pub(super) fn device_slave(device: DeviceId, hash: Hash) -> Self {
        Self::new(Table::DeviceSlave, &[device.0.as_bytes(), &hash.0])
    }

    pub(super) fn device_slaves(device: DeviceId) -> Self {
        Self::new(Table::DeviceSlave, &[device.0.as_bytes()])
    }

    pub(super) fn grant_slave(user: &UserId, grant: &GrantName, hash: Hash) -> Self {
        let (user, grant) = (user.as_str().as_bytes(), grant.as_str().as_bytes());
        Self::new(Table::GrantSlave, &[user, &[0], grant, &[0], &hash.0])
    }

    pub(super) fn grant_slaves(user: &UserId, grant: &GrantName) -> Self {
        let (user, grant) = (user.as_str().as_bytes(), grant.as_str().as_bytes());
        Self::new(Table::GrantSlave, &[user, &[0], grant, &[0]])
    }

    /// The hash that ends a key of one of the indexes.
    pub(super) fn last_hash(bytes: &[u8]) -> Answer<Hash> {
        let hash = bytes.last_chunk().ok_or_else(|| corrupt(bytes, "ends in no hash"))?;
        Ok(Hash(*hash))
    }

    pub(in crate::store) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(in crate::store) fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

fn name<T: std::str::FromStr>(part: Option<&[u8]>) -> Option<T> {
    std::str::from_utf8(part?).ok()?.parse().ok()
}

/// Names a row that cannot be read, by table and key. Keys hold names, ids and hashes: no secrets.
pub(super) fn corrupt(key: &[u8], why: impl fmt::Display) -> StoreError {
    let table = Table::ALL
        .into_iter()
        .find(|table| key.first() == Some(&(*table as u8)));
    let rest = key.get(1..).unwrap_or_default();
    match table {
        Some(table) => StoreError::Corrupt(format!("table {table:?}, key \"{}\": {why}", rest.escape_ascii())),
        None => StoreError::Corrupt(format!("key \"{}\" of no table: {why}", key.escape_ascii())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_letters_of_their_own() {
        let mut letters = Table::ALL.map(|table| table as u8).to_vec();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), Table::ALL.len());
    }

    #[test]
    fn a_user_is_not_the_beginning_of_another() {
        let (short, long): (UserId, UserId) = ("al".parse().unwrap(), "al-ice".parse().unwrap());
        let grant: GrantName = "p/a".parse().unwrap();
        assert!(
            !Key::grant(&long, &grant)
                .as_slice()
                .starts_with(Key::user(&short).as_slice())
        );
        assert!(
            Key::grant(&short, &grant)
                .as_slice()
                .starts_with(Key::user(&short).as_slice())
        );
        assert!(Key::grant(&short, &grant).as_slice() < Key::user(&long).as_slice());
    }

    #[test]
    fn keys_are_read_back() {
        let user: UserId = "alice@example.com".parse().unwrap();
        let grant: GrantName = "p/a".parse().unwrap();
        let key = Key::grant(&user, &grant);
        assert_eq!(
            Key::parse_user(key.as_slice()).unwrap(),
            (user.clone(), Some(grant.clone()))
        );
        assert_eq!(
            Key::parse_user(Key::user(&user).as_slice()).unwrap(),
            (user.clone(), None)
        );
        let due = Key::due(Unix(0x0102_0003), &user, &grant);
        let read = Key::parse_due(due.as_slice(), &Key::due_at("p"), "p").unwrap();
        assert_eq!(read, (Unix(0x0102_0003), user, grant));
    }

    #[test]
    fn corruption_is_named_by_table_and_key() {
        let error = Key::parse_user(b"u\xff\0p/a").unwrap_err().to_string();
        assert!(error.contains("User") && error.contains(r"\xff\x00p/a"), "{error}");
    }
}
