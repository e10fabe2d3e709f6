//! Where serde would take more shapes than the protocol allows: a list for an object, `{"active": null}` for `"active"`.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        IntoDeserializer, MapAccess, Visitor,
        value::{Error as ValueError, MapAccessDeserializer},
    },
};

/// Reads a struct from a JSON object, and from nothing else.
pub(crate) fn object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Object(PhantomData))
}

/// Reads one of a few words from a JSON string, and from nothing else.
pub(crate) fn word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    T::deserialize(IntoDeserializer::<ValueError>::into_deserializer(text)).map_err(serde::de::Error::custom)
}
