//! The name of a value: names separated by slashes, of which the first is the namespace.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use meshwork_crdt::Key;
use serde::{Deserialize, Serialize};

use super::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_NAMES_MAX};

/// Where the entries of this service lie in the replica.
pub const SPACE: &str = "@config/";

/// A path such as `app/limits/rate`: up to [`PATH_NAMES_MAX`] names of 1 to [`NAME_BYTES_MAX`] ASCII letters, digits, `_` and `-`, cheap to clone.
///
/// The first name is the namespace, such as `default`, `app`, `ai`, `infrastructure` or `telemetry`; a namespace alone names its whole tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(Arc<str>);

/// A text that is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It is longer than [`PATH_BYTES_MAX`].
    TooLong,
    /// It has more than [`PATH_NAMES_MAX`] names.
    TooDeep,
    /// A name is empty: the text is, or it begins or ends with a slash, or has two in a row.
    EmptyName,
    /// A name is longer than [`NAME_BYTES_MAX`].
    NameTooLong,
    /// A character that no name has.
    Character(char),
    /// A namespace holds a tree, and no value by itself.
    OnlyNamespace,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::TooLong => write!(f, "a path has at most {PATH_BYTES_MAX} bytes"),
            PathError::TooDeep => write!(f, "a path has at most {PATH_NAMES_MAX} names"),
            PathError::EmptyName => f.write_str("a name of a path is not empty"),
            PathError::NameTooLong => write!(f, "a name of a path has at most {NAME_BYTES_MAX} bytes"),
            PathError::Character(character) => write!(f, "a name has letters, digits, `_` and `-`, not {character:?}"),
            PathError::OnlyNamespace => f.write_str("a namespace holds a tree, and no value by itself"),
        }
    }
}

impl std::error::Error for PathError {}

impl Path {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first name.
    pub fn namespace(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Whether this is `prefix` or below it.
    pub fn is_under(&self, prefix: &Path) -> bool {
        self.below(prefix).is_some()
    }

    /// The path with one more name.
    ///
    /// # Errors
    ///
    /// A [`PathError`] when that is no path.
    pub fn child(&self, name: &str) -> Result<Path, PathError> {
        if name.contains('/') {
            return Err(PathError::Character('/'));
        }
        Path::try_from(format!("{self}/{name}").as_str())
    }

    /// The key of the entry in the replica.
    pub fn key(&self) -> Key {
        const { assert!(SPACE.len() + PATH_BYTES_MAX <= meshwork_channels::limits::KEY_BYTES_MAX) };
        Key::try_from(format!("{SPACE}{self}").as_str()).expect("every path fits in a key, as was checked when this was compiled")
    }

    /// The path of the value whose entry has this key.
    ///
    /// # Errors
    ///
    /// A [`PathError`]: another version or somebody hostile wrote it.
    pub(super) fn of_key(key: &str) -> Result<Path, PathError> {
        Path::try_from(key.strip_prefix(SPACE).ok_or(PathError::EmptyName)?)?.of_value()
    }

    /// The path, if it may hold a value.
    pub(super) fn of_value(self) -> Result<Path, PathError> {
        if self.0.contains('/') { Ok(self) } else { Err(PathError::OnlyNamespace) }
    }

    /// What follows `prefix` and a slash, empty for the prefix itself.
    pub(super) fn below(&self, prefix: &Path) -> Option<&str> {
        let rest = self.0.strip_prefix(&*prefix.0)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// The paths above this one, from the namespace on.
    pub(super) fn above(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl TryFrom<&str> for Path {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        for (index, name) in text.split('/').enumerate() {
            let is_allowed = |character: &char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
            match name.len() {
                _ if index == PATH_NAMES_MAX => return Err(PathError::TooDeep),
                0 => return Err(PathError::EmptyName),
                len if len > NAME_BYTES_MAX => return Err(PathError::NameTooLong),
                _ => name.chars().find(|character| !is_allowed(character)).map_or(Ok(()), |found| Err(PathError::Character(found)))?,
            }
        }
        Ok(Path(Arc::from(text)))
    }
}

impl TryFrom<String> for Path {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Path::try_from(text.as_str())
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a map holds above, at and below a path: all that can decide what is visible there.
pub(super) fn related<'a, V>(map: &'a BTreeMap<Path, V>, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a V)> {
    path.above().filter_map(|above| map.get_key_value(above)).chain(under(map, path))
}

/// What a map holds at and below a path.
pub(super) fn under<'a, V>(map: &'a BTreeMap<Path, V>, path: &'a Path) -> impl Iterator<Item = (&'a Path, &'a V)> {
    map.get_key_value(path.as_str()).into_iter().chain(below(map, path))
}

/// What a map holds below a path.
pub(super) fn below<'a, V>(map: &'a BTreeMap<Path, V>, path: &Path) -> impl Iterator<Item = (&'a Path, &'a V)> + use<'a, V> {
    let prefix = format!("{path}/");
    let range = (Bound::Included(prefix.as_str()), Bound::Unbounded);
    map.range::<str, _>(range).take_while(move |(found, _)| found.as_str().starts_with(&prefix))
}
