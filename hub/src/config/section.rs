//! Sections: a table of the file as a struct. One declaration gives the struct, its reader and its documentation.

use super::reader::Reader;

/// One line of a section, for printing.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The key.
    pub key: String,
    /// What it means, one line each.
    pub doc: Vec<&'static str>,
    /// Whether there is no default.
    pub is_required: bool,
    /// What stands there.
    pub item: Item,
}

/// What stands at a key.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// A value as TOML.
    Set(String),
    /// No value; an example as TOML.
    Unset(String),
    /// A table.
    Table(Vec<Entry>),
}

/// A table of the file.
pub(super) trait Section: Sized {
    /// What it is for, one line each.
    const ABOUT: &'static [&'static str];

    /// Reads it; every mistake is noted in the reader. None: something that is required is missing or wrong.
    fn read(reader: &mut Reader<'_, '_>) -> Option<Self>;

    /// What is set, secrets redacted.
    fn entries(&self) -> Vec<Entry>;

    /// All that may be set, with defaults.
    fn reference() -> Vec<Entry>;
}

/// Declares a section. Each field says where its value comes from when the file is silent:
/// `default(value)`, `required(example)`, `section` (a table with defaults).
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $Name:ident {
            $( $(#[doc = $doc:literal])+ pub $key:ident : $Type:ty = $origin:ident $(($given:expr))? ; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub struct $Name {
            $( $(#[doc = $doc])+ pub $key: $Type, )+
        }

        impl $crate::config::section::Section for $Name {
            const ABOUT: &'static [&'static str] = &[$($about),+];

            fn read(reader: &mut $crate::config::reader::Reader<'_, '_>) -> Option<Self> {
                $( let $key = section!(@read $origin reader $key $Type $(, $given)?); )+
                reader.refuse_the_rest();
                Some(Self { $($key: $key?,)+ })
            }

            fn entries(&self) -> Vec<$crate::config::section::Entry> {
                vec![$($crate::config::section::Entry {
                    key: stringify!($key).to_owned(),
                    doc: vec![$($doc),+],
                    is_required: section!(@is_required $origin),
                    item: section!(@item $origin $Type, &self.$key),
                }),+]
            }

            fn reference() -> Vec<$crate::config::section::Entry> {
                vec![$($crate::config::section::Entry {
                    key: stringify!($key).to_owned(),
                    doc: vec![$($doc),+],
                    is_required: section!(@is_required $origin),
                    item: section!(@reference $origin $Type $(, $given)?),
                }),+]
            }
        }
    };

    (@read default $reader:ident $key:ident $Type:ty, $given:expr) => {
        $reader.value_or::<$Type>(stringify!($key), || $given)
    };
    (@read required $reader:ident $key:ident $Type:ty, $given:expr) => {
        $reader.required::<$Type>(stringify!($key))
    };
    (@read section $reader:ident $key:ident $Type:ty) => {
        $reader.section::<$Type>(stringify!($key))
    };

    (@is_required required) => {
        true
    };
    (@is_required $origin:ident) => {
        false
    };

    (@item section $Type:ty, $value:expr) => {
        $crate::config::section::Item::Table($crate::config::section::Section::entries($value))
    };
    (@item $origin:ident $Type:ty, $value:expr) => {
        $crate::config::section::value_item::<$Type>($value)
    };

    (@reference section $Type:ty) => {
        $crate::config::section::Item::Table(<$Type as $crate::config::section::Section>::reference())
    };
    (@reference default $Type:ty, $given:expr) => {{
        let value: $Type = $given;
        $crate::config::section::value_item::<$Type>(&value)
    }};
    (@reference required $Type:ty, $given:expr) => {
        $crate::config::section::Item::Set($crate::config::value::quoted($given))
    };
}
pub(crate) use section;

/// A value as an item.
pub(crate) fn value_item<T: super::value::Value>(value: &T) -> Item {
    value.toml().map_or_else(|| Item::Unset(T::example()), Item::Set)
}
