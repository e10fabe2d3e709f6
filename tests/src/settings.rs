//! A hub's config file, as an operator would write it.

use toml::{Table, Value};

use crate::ports::free_port;

/// On a port that the system chooses.
const ANYWHERE: &str = "127.0.0.1:0";

/// Settings by dotted key (`providers.example.grace`).
#[derive(Debug, Clone)]
pub struct Settings {
    table: Table,
}

impl Settings {
    /// A hub that serves one provider named `example` at `token_endpoint`, on ports that the system chooses.
    ///
    /// Devices may cause redeems as often as they like (`reject_interval = "0s"`), so that tests need not wait for
    /// the limit; the tests of the limit set it.
    pub fn new(token_endpoint: &str) -> Self {
        Self { table: Table::new() }
            .set("server.listen", ANYWHERE)
            .set("server.admin_listen", ANYWHERE)
            .set("store.url", "file:lockstep.db")
            .set("store.key_file", "lockstep.key")
            .set("store.spool", "spool")
            .provider("example", token_endpoint)
    }

    /// One more provider.
    #[must_use]
    pub fn provider(self, name: &str, token_endpoint: &str) -> Self {
        self.set(&format!("providers.{name}.token_endpoint"), token_endpoint)
            .set(&format!("providers.{name}.client_id"), "app")
            .set(&format!("providers.{name}.reject_interval"), "0s")
    }

    /// Sets `key`.
    ///
    /// # Panics
    /// When a part of `key` is already a value and not a table.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.put(key, value.into());
        self
    }

    /// Sets `key` of the provider named `example`.
    #[must_use]
    pub fn example(self, key: &str, value: impl Into<Value>) -> Self {
        self.set(&format!("providers.example.{key}"), value)
    }

    /// Chooses the ports that were left to the system, so that the hub finds them free whenever it starts again.
    pub(crate) fn choose_ports(&mut self) {
        for (_, listen) in self.table["server"].as_table_mut().expect("a table") {
            if listen.as_str() == Some(ANYWHERE) {
                *listen = format!("127.0.0.1:{}", free_port()).into();
            }
        }
    }

    /// Sets `key` in place.
    pub(crate) fn put(&mut self, key: &str, value: Value) {
        let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.table;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            table = table
                .entry(part)
                .or_insert_with(|| Table::new().into())
                .as_table_mut()
                .unwrap_or_else(|| panic!("{part} in {key} is a value"));
        }
        table.insert(last.to_owned(), value);
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.table.to_string()
    }
}
