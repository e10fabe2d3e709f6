//! Settings from the environment: `LOCKSTEP_SECTION__KEY`.

use std::{cell::Cell, collections::BTreeMap};

/// What every variable of ours starts with.
const PREFIX: &str = "LOCKSTEP_";
/// What stands between the parts of a setting's name.
const BETWEEN: &str = "__";

/// The variables that set something, by the parts of their names.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    variables: BTreeMap<Vec<String>, Variable>,
}

#[derive(Debug)]
struct Variable {
    name: String,
    text: String,
    taken: Cell<bool>,
}

impl Overlay {
    /// Picks the variables of the form `LOCKSTEP_SECTION__KEY`. All others are none of the settings' business.
    pub(super) fn new(environment: impl Iterator<Item = (String, String)>) -> Self {
        let variables = environment
            .filter_map(|(name, text)| {
                let parts: Vec<_> = name.strip_prefix(PREFIX)?.split(BETWEEN).map(Self::segment).collect();
                let variable = Variable {
                    name,
                    text,
                    taken: Cell::new(false),
                };
                (parts.len() > 1).then_some((parts, variable))
            })
            .collect();
        Self { variables }
    }

    /// A part of a setting's name as the environment can write it, in lower case.
    pub(super) fn segment(name: &str) -> String {
        name.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '_'
                }
            })
            .collect()
    }

    /// The variable that sets a setting.
    pub(super) fn name_of(setting: &str) -> String {
        let parts: Vec<_> = setting.split('.').map(|p| Self::segment(p).to_uppercase()).collect();
        format!("{PREFIX}{}", parts.join(BETWEEN))
    }

    /// Name and text of the variable for `key` in the table `above`, if it is set.
    pub(super) fn take(&self, above: &[String], key: &str) -> Option<(&str, &str)> {
        let mut path = above.to_vec();
        path.push(key.to_owned());
        let variable = self.variables.get(&path)?;
        variable.taken.set(true);
        Some((&variable.name, &variable.text))
    }

    /// Whether anything in the table `above` is set.
    pub(super) fn has_below(&self, above: &[String]) -> bool {
        self.variables.keys().any(|path| path.starts_with(above))
    }

    /// The parts that follow `above`, where something follows them.
    pub(super) fn names_below(&self, above: &[String]) -> Vec<String> {
        let mut names: Vec<_> = self
            .variables
            .keys()
            .filter(|path| path.starts_with(above) && path.len() > above.len() + 1)
            .map(|path| path[above.len()].clone())
            .collect();
        names.dedup();
        names
    }

    /// Variables that no setting asked for: name, and the setting they seem to mean.
    pub(super) fn left(&self) -> impl Iterator<Item = (&str, String)> {
        self.variables
            .iter()
            .filter(|(_, variable)| !variable.taken.get())
            .map(|(path, variable)| (variable.name.as_str(), path.join(".")))
    }
}
