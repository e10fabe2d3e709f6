//! Settings whose value is one of a few words.

/// Writes the [`Value`](super::value::Value) of an enum whose variants each have a word.
macro_rules! word_value {
    ($type:ty { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $crate::config::value::Value for $type {
            fn expected() -> String {
                let words: &[&str] = &[$(concat!("\"", $word, "\"")),+];
                format!("one of {}", words.join(", "))
            }

            fn example() -> String {
                let words: &[&str] = &[$($word),+];
                $crate::config::value::quoted(words[0])
            }

            fn read(raw: $crate::config::value::Raw<'_>, _: &std::path::Path) -> Result<Self, $crate::config::value::Why> {
                match raw.text()? {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(None),
                }
            }

            fn toml(&self) -> Option<String> {
                Some($crate::config::value::quoted(match self {
                    $(Self::$variant => $word,)+
                }))
            }
        }
    };
}
pub(crate) use word_value;
