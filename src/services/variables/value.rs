//! What a variable is called, what it can hold, and one version of it.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use meshwork_channels::{Bounded, PeerId};
use meshwork_crdt::Stamp;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{NAME_BYTES_MAX, TEXT_BYTES_MAX};

/// The name of a variable, a function, a module, a capability or an agent: 1 to [`NAME_BYTES_MAX`] ASCII letters, digits and `_`, `-`, `.`,
/// `:`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Not above any name, for the lower ends of ranges.
    pub(super) fn least() -> Self {
        Name(Arc::from(""))
    }
}

/// A text that cannot be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError;

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name is 1 to {NAME_BYTES_MAX} ASCII letters, digits and _ - . :")
    }
}

impl std::error::Error for NameError {}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_name { Ok(Name(Arc::from(text))) } else { Err(NameError) }
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Name::try_from(text)
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{NameError}")
            }

            // The text is still borrowed: an impossible one is refused before it is copied.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Name::try_from(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A list of at most `N` elements, for people a `Vec` and on the wire a [`Bounded`]: what is longer is refused unread.
pub(super) fn bounded<'de, const N: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Bounded::<T, N>::deserialize(deserializer).map(Bounded::into_vec)
}

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A number with a fraction; finite.
    Float(f64),
    /// A whole number.
    Integer(i64),
    /// An option of a choice, or the name of a module: at most [`TEXT_BYTES_MAX`] bytes.
    Text(String),
}

impl Value {
    /// The value as a number, whole ones rounded to the 53 bits of a float; `None` for text.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            Value::Text(_) => None,
        }
    }

    /// The value if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is a finite number, or a text that is short enough.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Value::Float(number) => number.is_finite(),
            Value::Integer(_) => true,
            Value::Text(text) => text.len() <= TEXT_BYTES_MAX,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Float(number) => number.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::Text(text) => fmt::Debug::fmt(text, f),
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Float(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Integer(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

/// Who wrote a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The node.
    pub node: PeerId,
    /// The agent on it, if one was named.
    pub agent: Option<Name>,
}

/// One version of a variable.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// What it holds.
    pub value: Value,
    /// 0 for the default, and one more with each write: a write adds one to what its writer saw, and each write that is concurrent with
    /// others adds one where they meet. A composite has the sum of the versions that it is computed from.
    pub version: u64,
    /// The last who wrote it; `None` for the default.
    pub by: Option<Author>,
    /// When that was, by the hybrid logical clock.
    pub stamp: Option<Stamp>,
    /// The score that was reported with it.
    pub score: Option<f64>,
    /// How many concurrent writes the policy chose it from: 1 without a conflict, 0 for the default and for a composite.
    pub concurrent: usize,
}
