//! What callers are told, and why an entry of another node is not shown.

use std::fmt;

use meshwork_channels::{DecodeError, PeerId};
use meshwork_crdt::Key;

use super::path::{Path, PathError};
use super::value::ValueError;

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The text is no path.
    InvalidPath(PathError),
    /// No layer has a value there.
    NotFound,
    /// The value is not of the type that was asked for.
    WrongType {
        /// What was asked for.
        expected: String,
        /// What there is.
        found: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::InvalidPath(error) => error.fmt(f),
            ReadError::NotFound => f.write_str("there is no such value"),
            ReadError::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<PathError> for ReadError {
    fn from(error: PathError) -> Self {
        ReadError::InvalidPath(error)
    }
}

/// Why nothing was set, removed or brought back. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The text is no path, or a name below `at` makes none.
    InvalidPath {
        /// What was given, or the last path that is one.
        at: String,
        /// What is wrong.
        problem: PathError,
    },
    /// The type has no form as a value.
    WrongType {
        /// What a value could have been.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value is too large, or no number.
    TooLarge {
        /// Its path.
        path: Path,
        /// The bound.
        problem: ValueError,
    },
    /// More values at once than the bound.
    TooMany {
        /// How many.
        len: usize,
        /// The most.
        len_max: usize,
    },
    /// A validator refused the value.
    Refused {
        /// Its path.
        path: Path,
        /// What the validator said.
        reason: String,
    },
    /// The path is not one of those that may be changed while the node runs.
    NotUpdatable(Path),
    /// There is nothing to remove.
    NotFound(Path),
    /// History does not reach back that far.
    NoHistory {
        /// The path; none for the overrides of this node, of which there is one history.
        path: Option<Path>,
        /// How far it does.
        kept: usize,
    },
    /// The node does not take part in what is set for the whole cluster.
    SyncOff,
    /// The entry was written by a newer version, and replacing it would lose what we cannot read.
    UnknownVersion {
        /// Its path.
        path: Path,
        /// The version of its encoding.
        version: u8,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::InvalidPath { at, problem } => write!(f, "{at:?}: {problem}"),
            SetError::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            SetError::TooLarge { path, problem } => write!(f, "{path}: {problem}"),
            SetError::TooMany { len, len_max } => write!(f, "at most {len_max} values at once; these are {len}"),
            SetError::Refused { path, reason } => write!(f, "{path}: refused: {reason}"),
            SetError::NotUpdatable(path) => write!(f, "{path} cannot be changed while the node runs"),
            SetError::NotFound(path) => write!(f, "{path}: there is nothing to remove"),
            SetError::NoHistory { path, kept } => {
                path.as_ref().map_or(Ok(()), |path| write!(f, "{path}: "))?;
                match kept {
                    0 => f.write_str("there is no earlier value to go back to"),
                    1 => f.write_str("only 1 change can be undone"),
                    kept => write!(f, "only {kept} changes can be undone"),
                }
            }
            SetError::SyncOff => f.write_str("this node takes no part in the configuration of the cluster"),
            SetError::UnknownVersion { path, version } => write!(f, "{path} was written in version {version}, which is newer than ours"),
        }
    }
}

impl std::error::Error for SetError {}

/// Why a layer was not loaded. The one before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The text cannot be read, for the reason that the parser gave.
    Broken(String),
    /// It holds something other than a map of namespaces at the top.
    NoMap(&'static str),
    /// A value of it cannot be set.
    Set(SetError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Broken(problem) => f.write_str(problem),
            LoadError::NoMap(found) => write!(f, "expected a map of namespaces, found {found}"),
            LoadError::Set(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<SetError> for LoadError {
    fn from(error: SetError) -> Self {
        LoadError::Set(error)
    }
}

/// Why an entry that is in the replica is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Its key holds no path.
    InvalidPath(PathError),
    /// Its encoding has a version that this one does not know.
    UnknownVersion(u8),
    /// Its bytes are no entry, or exceed a bound.
    Undecodable(DecodeError),
    /// Its path may not be changed while this node runs.
    NotUpdatable,
    /// A validator of this node refused it, with this reason.
    Refused(String),
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hidden::InvalidPath(error) => error.fmt(f),
            Hidden::UnknownVersion(version) => write!(f, "version {version} of the encoding is not known"),
            Hidden::Undecodable(error) => error.fmt(f),
            Hidden::NotUpdatable => f.write_str("the path cannot be changed while the node runs"),
            Hidden::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// An entry that is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenEntry {
    /// Its key.
    pub key: Key,
    /// Who wrote it.
    pub origin: PeerId,
    /// Why it is not shown.
    pub problem: Hidden,
}
