//! The name of a replicated value.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use meshwork_channels::limits;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key: 1 to [`limits::KEY_BYTES_MAX`] bytes of UTF-8, cheap to clone. Services put theirs under a prefix such as `config/`.
///
/// Keys order as their bytes do.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Smaller than every key, for the lower ends of ranges; no key itself.
    pub(crate) fn below_all() -> Self {
        Key(Arc::from(""))
    }
}

/// A text that cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// It is empty.
    Empty,
    /// It is longer than a key may be.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest length, [`limits::KEY_BYTES_MAX`].
        len_max: usize,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Empty => f.write_str("a key is not empty"),
            KeyError::TooLong { len, len_max } => write!(f, "a key has at most {len_max} bytes; this has {len}"),
        }
    }
}

impl std::error::Error for KeyError {}

impl TryFrom<&str> for Key {
    type Error = KeyError;

    fn try_from(text: &str) -> Result<Self, KeyError> {
        match text.len() {
            0 => Err(KeyError::Empty),
            len if len > limits::KEY_BYTES_MAX => Err(KeyError::TooLong { len, len_max: limits::KEY_BYTES_MAX }),
            _ => Ok(Key(Arc::from(text))),
        }
    }
}

impl Deref for Key {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a key of 1 to {} bytes", limits::KEY_BYTES_MAX)
            }

            // The text is still borrowed from the frame: an impossible one is refused before it is copied.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                Key::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
