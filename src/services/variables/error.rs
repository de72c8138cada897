//! Why a verb did not do what was asked. None of these errors had an effect but a count.

use std::fmt;

use super::definition::DefinitionError;
use super::kind::ValueError;
use super::limits::{VARIABLES_MAX, VERSION_MAX};
use super::value::Name;

/// Why a variable has no value to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetError {
    /// It is not registered, or its name is none.
    NotFound,
    /// It was written in a format of another release.
    OtherFormat(u8),
    /// A variable that it is computed from is not there.
    Dependency(Name),
    /// It is computed from itself: two nodes registered at once what neither of them would have accepted from the other.
    Cycle,
    /// It is computed from too many others, or too many deep.
    TooDeep,
    /// The function that computes it is not registered on this node.
    NoFunction(Name),
    /// The function gave no value, or none that a variable can hold.
    NotComputable(String),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::NotFound => f.write_str("no such variable is registered"),
            GetError::OtherFormat(format) => write!(f, "it is written in format {format}, of another release"),
            GetError::Dependency(name) => write!(f, "it is computed from {name}, which is not there"),
            GetError::Cycle => f.write_str("it is computed from itself"),
            GetError::TooDeep => f.write_str("it is computed from too many others"),
            GetError::NoFunction(name) => write!(f, "the function {name} is not registered on this node"),
            GetError::NotComputable(why) => write!(f, "it cannot be computed: {why}"),
        }
    }
}

impl std::error::Error for GetError {}

/// A constraint that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The variable whose definition has it.
    pub variable: Name,
    /// Which one: the constraints of the definition come first, the lines of its compatibility table after them.
    pub index: usize,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "constraint {} of {}", self.index, self.variable)
    }
}

/// Why a variable was not registered.
#[derive(Clone, Debug, PartialEq)]
pub enum RegisterError {
    /// There is one of this name.
    AlreadyRegistered,
    /// There is one of this name, which was written in a format of another release.
    OtherFormat(u8),
    /// There are [`VARIABLES_MAX`] already.
    TooMany,
    /// The definition is wrong.
    Invalid(DefinitionError),
    /// It would be computed from itself, by way of this variable.
    Cycle {
        /// The dependency that leads back.
        through: Name,
    },
    /// The default breaks a constraint together with other variables.
    Constraint(Broken),
    /// This node lacks the function of a constraint.
    NoFunction(Name),
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::AlreadyRegistered => f.write_str("a variable of this name is registered already"),
            RegisterError::OtherFormat(format) => write!(f, "a variable of this name is there in format {format}, of another release"),
            RegisterError::TooMany => write!(f, "there are {VARIABLES_MAX} variables already"),
            RegisterError::Invalid(error) => error.fmt(f),
            RegisterError::Cycle { through } => write!(f, "it would be computed from itself, through {through}"),
            RegisterError::Constraint(broken) => write!(f, "the default breaks {broken}"),
            RegisterError::NoFunction(name) => write!(f, "a constraint needs the function {name}, which is not registered on this node"),
        }
    }
}

impl std::error::Error for RegisterError {}

/// Why a variable was not updated.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateError {
    /// It is not registered, or its name is none.
    NotFound,
    /// It was written in a format of another release, and is not overwritten unseen.
    OtherFormat(u8),
    /// This node may not write it.
    NotPermitted,
    /// It has another version than was expected.
    VersionMismatch {
        /// The version that was expected.
        expected: u64,
        /// The version that it has.
        actual: u64,
    },
    /// The value is not one of the variable.
    Value(ValueError),
    /// The policy needs a score, and a finite one.
    ScoreMissing,
    /// The score is no better than the one that is reached.
    NotBetter {
        /// The score.
        score: f64,
        /// The best one so far.
        best: f64,
    },
    /// The value breaks a constraint together with other variables.
    Constraint(Broken),
    /// This node lacks the function of a constraint.
    NoFunction(Name),
    /// The variable has been at [`VERSION_MAX`]; delete it and register it again.
    VersionsSpent,
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::NotFound => f.write_str("no such variable is registered"),
            UpdateError::OtherFormat(format) => write!(f, "it is written in format {format}, of another release"),
            UpdateError::NotPermitted => f.write_str("this node may not write it"),
            UpdateError::VersionMismatch { expected, actual } => write!(f, "version {expected} was expected; it has version {actual}"),
            UpdateError::Value(error) => error.fmt(f),
            UpdateError::ScoreMissing => f.write_str("a finite score is needed"),
            UpdateError::NotBetter { score, best } => write!(f, "the score {score} is no better than {best}"),
            UpdateError::Constraint(broken) => write!(f, "the value breaks {broken}"),
            UpdateError::NoFunction(name) => write!(f, "a constraint needs the function {name}, which is not registered on this node"),
            UpdateError::VersionsSpent => write!(f, "it has had all {VERSION_MAX} versions"),
        }
    }
}

impl std::error::Error for UpdateError {}

/// Why a variable was not deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteError {
    /// It is not registered, or its name is none.
    NotFound,
    /// It was written in a format of another release, and is not removed unseen.
    OtherFormat(u8),
    /// This node may not write it, and did not register it either.
    NotPermitted,
    /// A composite is computed from it.
    Needed {
        /// The composite.
        by: Name,
    },
}

impl fmt::Display for DeleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeleteError::NotFound => f.write_str("no such variable is registered"),
            DeleteError::OtherFormat(format) => write!(f, "it is written in format {format}, of another release"),
            DeleteError::NotPermitted => f.write_str("this node may not delete it"),
            DeleteError::Needed { by } => write!(f, "{by} is computed from it"),
        }
    }
}

impl std::error::Error for DeleteError {}

/// What a node refused to show of what others wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The key is none of this service's.
    UnknownKey,
    /// It is in a format of another release.
    OtherFormat(u8),
    /// The bytes are no definition, or no value.
    Undecodable(meshwork_channels::DecodeError),
    /// The definition is wrong.
    Definition(DefinitionError),
    /// There are [`VARIABLES_MAX`] already: it can be read, but has no events and no history.
    TooMany,
    /// A local variable has the name.
    Hidden,
    /// The writer is not one of those who may.
    NotPermitted,
    /// The version is beyond [`VERSION_MAX`].
    Version,
    /// The value is not one of the variable.
    Value(ValueError),
    /// The score is missing or not finite.
    Score,
    /// A composite has no value any more.
    NotComputed(GetError),
}
