//! Settings as TOML: the effective ones, and the reference of all.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    Alerts, Audit, Cluster, Config, Election, Identity, Log, ProviderSettings, Server, Store, Tls,
    section::{Entry, Item, Section},
    value::key_text,
};

/// The table in the reference that stands for all providers.
const ANY_PROVIDER: &str = "providers.example";

/// The effective settings, secrets redacted.
pub(super) fn effective(config: &Config) -> String {
    let mut tables = vec![("server".to_owned(), config.server.entries())];
    if let Some(tls) = &config.tls {
        tables.push(("tls".to_owned(), tls.entries()));
    }
    tables.extend([
        ("store".to_owned(), config.store.entries()),
        ("cluster".to_owned(), config.cluster.entries()),
    ]);
    for (name, provider) in &config.providers {
        tables.push((format!("providers.{}", key_text(name)), provider.entries()));
    }
    tables.extend([
        ("election".to_owned(), config.election.entries()),
        ("identity".to_owned(), config.identity.entries()),
        ("audit".to_owned(), config.audit.entries()),
        ("alerts".to_owned(), config.alerts.entries()),
        ("log".to_owned(), config.log.entries()),
    ]);
    let mut out = String::new();
    for (name, entries) in tables {
        effective_table(&mut out, &name, &entries);
    }
    out
}

fn effective_table(out: &mut String, name: &str, entries: &[Entry]) {
    let _ = writeln!(out, "[{name}]");
    for entry in entries {
        if let Item::Set(value) = &entry.item {
            let _ = writeln!(out, "{} = {value}", entry.key);
        }
    }
    out.push('\n');
    for entry in entries {
        if let Item::Table(entries) = &entry.item {
            effective_table(out, &format!("{name}.{}", entry.key), entries);
        }
    }
}

/// A table of the root.
struct Table {
    name: &'static str,
    about: &'static [&'static str],
    entries: Vec<Entry>,
    /// What its lines start with in the reference: a comment, if the table is not there by default.
    comment: &'static str,
}

fn all_tables() -> Vec<Table> {
    fn of<T: Section>(name: &'static str) -> Table {
        Table {
            name,
            about: T::ABOUT,
            entries: T::reference(),
            comment: "",
        }
    }
    vec![
        of::<Server>("server"),
        Table {
            comment: "# ",
            ..of::<Tls>("tls")
        },
        of::<Store>("store"),
        of::<Cluster>("cluster"),
        of::<ProviderSettings>(ANY_PROVIDER),
        of::<Election>("election"),
        of::<Identity>("identity"),
        of::<Audit>("audit"),
        of::<Alerts>("alerts"),
        of::<Log>("log"),
    ]
}

/// All settings with their defaults and what they mean. What has no default is commented out.
pub(super) fn reference() -> String {
    let mut out = String::from(
        "# All settings of lockstep-hub with their defaults. Those without a default are commented out.\n\
         # Each can be set from the environment as LOCKSTEP_SECTION__KEY, like LOCKSTEP_SERVER__LISTEN or\n\
         # LOCKSTEP_PROVIDERS__EXAMPLE__CLIENT_ID. Relative paths are relative to the file that they stand in.\n\n",
    );
    for table in all_tables() {
        reference_table(&mut out, table.name, table.about, &table.entries, table.comment);
    }
    out
}

fn reference_table(out: &mut String, name: &str, about: &[&str], entries: &[Entry], comment: &str) {
    for line in about {
        let _ = writeln!(out, "#{line}");
    }
    let _ = writeln!(out, "{comment}[{name}]");
    for entry in entries {
        let (comment, value) = match &entry.item {
            Item::Set(value) => (comment, value),
            Item::Unset(example) => ("# ", example),
            Item::Table(_) => continue,
        };
        for line in &entry.doc {
            let _ = writeln!(out, "#{line}");
        }
        let _ = writeln!(out, "{comment}{} = {value}", entry.key);
    }
    out.push('\n');
    for entry in entries {
        if let Item::Table(entries) = &entry.item {
            reference_table(out, &format!("{name}.{}", entry.key), &entry.doc, entries, comment);
        }
    }
}

/// All settings as a page in Markdown, for people who read before they start.
pub(super) fn page() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         Made from the program: `lockstep-hub config reference` prints the same as a file to start from.\n\n\
         `lockstep-hub serve --config FILE` reads a TOML file. Each setting can be given in the environment instead, as\n\
         `LOCKSTEP_SECTION__KEY`: `LOCKSTEP_SERVER__LISTEN`, `LOCKSTEP_PROVIDERS__EXAMPLE__CLIENT_ID`; the environment goes\n\
         before the file, and lists are separated by commas there. Relative paths are relative to the file. Durations are\n\
         texts like `\"30s\"` or `\"1h 30m\"`. An unknown setting is an error that names the nearest known one;\n\
         `lockstep-hub config check` tells all errors at once.\n\n\
         Three variables are no settings: `LOCKSTEP_ADMIN_TOKEN` (the admin token), `LOCKSTEP_KEY` (the sealing keys) and\n\
         `LOCKSTEP_LOG` (a log filter). Each goes before its setting.\n",
    );
    for table in all_tables() {
        let name = if table.name == ANY_PROVIDER {
            "providers.NAME"
        } else {
            table.name
        };
        page_table(&mut out, name, table.about, &table.entries);
    }
    out
}

fn page_table(out: &mut String, name: &str, about: &[&str], entries: &[Entry]) {
    let _ = write!(out, "\n## `[{name}]`\n\n{}\n\n", sentence(about));
    out.push_str("| setting | default | meaning |\n|---|---|---|\n");
    for entry in entries {
        let default = match &entry.item {
            _ if entry.is_required => "required".to_owned(),
            Item::Set(value) => format!("`{value}`"),
            Item::Unset(_) => "–".to_owned(),
            Item::Table(_) => continue,
        };
        let _ = writeln!(
            out,
            "| `{}` | {default} | {} |",
            entry.key,
            sentence(&entry.doc).replace('|', "\\|")
        );
    }
    for entry in entries {
        if let Item::Table(entries) = &entry.item {
            page_table(out, &format!("{name}.{}", entry.key), &entry.doc, entries);
        }
    }
}

/// The lines of a documentation comment as one.
fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// Every setting and table that there is, by its whole name, with the providers' tables that are called `providers`.
pub(super) fn known_settings(providers: &BTreeSet<String>) -> BTreeSet<String> {
    let mut known = BTreeSet::from(["providers".to_owned()]);
    for table in all_tables() {
        collect(&mut known, table.name, &table.entries);
    }
    let of_any: Vec<_> = known
        .iter()
        .filter_map(|name| name.strip_prefix(ANY_PROVIDER).map(str::to_owned))
        .collect();
    for table in providers {
        known.extend(of_any.iter().map(|rest| format!("{table}{rest}")));
    }
    known
}

fn collect(known: &mut BTreeSet<String>, name: &str, entries: &[Entry]) {
    known.insert(name.to_owned());
    for entry in entries {
        let name = format!("{name}.{}", entry.key);
        match &entry.item {
            Item::Table(entries) => collect(known, &name, entries),
            Item::Set(_) | Item::Unset(_) => {
                known.insert(name);
            }
        }
    }
}
