//! Reads sections from a parsed file with the environment laid over it, and notes every mistake on the way.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use toml::de::{DeTable, DeValue};

use super::{
    environment::Overlay,
    error::{ConfigError, Place},
    section::Section,
    value::{Raw, Value, Why, key_text},
};

/// The file and the environment, and what was found wrong in them.
pub(super) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    base: &'t Path,
    overlay: &'t Overlay,
    found: RefCell<Found>,
}

/// What reading found, beside the settings.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is wrong.
    pub errors: Vec<ConfigError>,
    /// Settings that nobody knows; to be named with the nearest known one.
    pub unknown: Vec<(Place, String)>,
    /// Where each setting stands that is set, and each table.
    pub places: BTreeMap<String, Place>,
    /// The tables whose names people chose.
    pub named: BTreeSet<String>,
}

/// One table of the document.
pub(super) struct Reader<'r, 't> {
    document: &'r Document<'t>,
    /// `server.tls`; empty at the root.
    path: String,
    /// The same as the environment writes it.
    variable: Vec<String>,
    table: Option<&'r DeTable<'t>>,
    taken: BTreeSet<&'static str>,
}

impl<'t> Document<'t> {
    /// A document called `file` in messages, whose relative paths are relative to `base`.
    pub(super) fn new(file: &'t str, text: &'t str, base: &'t Path, overlay: &'t Overlay) -> Self {
        Self {
            file,
            text,
            base,
            overlay,
            found: RefCell::default(),
        }
    }

    /// A reader of the root table.
    pub(super) fn root<'r>(&'r self, table: &'r DeTable<'t>) -> Reader<'r, 't> {
        Reader {
            document: self,
            path: String::new(),
            variable: Vec::new(),
            table: Some(table),
            taken: BTreeSet::new(),
        }
    }

    /// The place of a stretch of the text.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        Place::Line(self.file.to_owned(), line)
    }

    /// Notes a mistake.
    pub(super) fn error(&self, place: Place, key: impl Into<String>, what: impl Into<String>) {
        self.found.borrow_mut().errors.push(ConfigError {
            place,
            key: key.into(),
            what: what.into(),
        });
    }

    /// What was found.
    pub(super) fn found(self) -> Found {
        self.found.into_inner()
    }
}

impl<'r, 't> Reader<'r, 't> {
    /// A value, or what stands for it when it is not set. None: it is wrong.
    pub(super) fn value_or<T: Value>(&mut self, key: &'static str, default: impl FnOnce() -> T) -> Option<T> {
        self.value(key)
            .unwrap_or_else(|| Some(default().under(self.document.base)))
    }

    /// A value that must be set. None: it is missing or wrong.
    pub(super) fn required<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key);
        if value.is_none() {
            let what = format!("missing; expected {}", T::expected());
            self.document.error(self.place(), self.child(key), what);
        }
        value?
    }

    /// A table whose settings all have defaults.
    pub(super) fn section<T: Section>(&mut self, key: &'static str) -> Option<T> {
        T::read(&mut self.table(key)?)
    }

    /// A table that may be absent.
    pub(super) fn maybe<T: Section>(&mut self, key: &'static str) -> Option<Option<T>> {
        let mut table = self.table(key)?;
        if table.table.is_none() && !self.document.overlay.has_below(&table.variable) {
            return Some(None);
        }
        T::read(&mut table).map(Some)
    }

    /// Tables under `key`, one for each name that people chose.
    pub(super) fn named<T: Section>(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<BTreeMap<String, T>> {
        let tables = self.table(key)?;
        let mut names: Vec<String> = tables
            .table
            .map(|t| t.keys().map(|k| k.get_ref().to_string()).collect())
            .unwrap_or_default();
        for variable in self.document.overlay.names_below(&tables.variable) {
            if !names.iter().any(|name| Overlay::segment(name) == variable) {
                names.push(variable);
            }
        }
        let mut all = BTreeMap::new();
        let mut whole = true;
        for name in names {
            let Some(mut table) = tables.child_table(&name) else {
                whole = false;
                continue;
            };
            self.document.found.borrow_mut().named.insert(table.path.clone());
            if let Err(what) = check(&name) {
                self.document.error(table.place(), table.path.clone(), what);
            }
            match T::read(&mut table) {
                Some(section) => {
                    all.insert(name, section);
                }
                None => whole = false,
            }
        }
        whole.then_some(all)
    }

    /// Notes every key of the table that was not asked for.
    pub(super) fn refuse_the_rest(&mut self) {
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            if !self.taken.contains(key.get_ref().as_ref()) {
                let place = self.document.place(&key.span());
                let unknown = (place, self.child(key.get_ref()));
                self.document.found.borrow_mut().unknown.push(unknown);
            }
        }
    }

    /// The value of `key`: none when it is not set, `Some(None)` when it is wrong.
    fn value<T: Value>(&mut self, key: &'static str) -> Option<Option<T>> {
        self.taken.insert(key);
        let (place, raw) = self.raw(key)?;
        let path = self.child(key);
        self.document
            .found
            .borrow_mut()
            .places
            .insert(path.clone(), place.clone());
        match T::read(raw, self.document.base) {
            Ok(value) => Some(Some(value)),
            Err(why) => {
                self.document.error(place, path, mismatch::<T>(why));
                Some(None)
            }
        }
    }

    fn raw(&self, key: &str) -> Option<(Place, Raw<'r>)> {
        if let Some((name, text)) = self.document.overlay.take(&self.variable, key) {
            return Some((Place::Environment(name.to_owned()), Raw::Text(text)));
        }
        let value = self.table?.get(key)?;
        Some((self.document.place(&value.span()), Raw::Toml(value.get_ref())))
    }

    fn table(&mut self, key: &'static str) -> Option<Self> {
        self.taken.insert(key);
        self.child_table(key)
    }

    fn child_table(&self, key: &str) -> Option<Self> {
        let path = self.child(key);
        let table = match self.table.and_then(|table| table.get_key_value(key)) {
            None => None,
            Some((name, value)) => {
                let place = self.document.place(&name.span());
                self.document
                    .found
                    .borrow_mut()
                    .places
                    .insert(path.clone(), place.clone());
                let DeValue::Table(table) = value.get_ref() else {
                    self.document.error(place, path, "expected a table");
                    return None;
                };
                Some(table)
            }
        };
        let mut variable = self.variable.clone();
        variable.push(Overlay::segment(key));
        Some(Self {
            document: self.document,
            path,
            variable,
            table,
            taken: BTreeSet::new(),
        })
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() {
            key_text(key)
        } else {
            format!("{}.{}", self.path, key_text(key))
        }
    }

    /// Where this table stands; the file, if it is not in it.
    fn place(&self) -> Place {
        let found = self.document.found.borrow();
        found
            .places
            .get(&self.path)
            .cloned()
            .unwrap_or_else(|| Place::File(self.document.file.to_owned()))
    }
}

fn mismatch<T: Value>(why: Why) -> String {
    match why {
        Some(why) => format!("expected {}; {why}", T::expected()),
        None => format!("expected {}", T::expected()),
    }
}
