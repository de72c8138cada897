//! What is declared of a variable, and what of it is refused.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use meshwork_channels::PeerId;
use serde::{Deserialize, Serialize};

use super::constraint::{Condition, Constraint, Verdict};
use super::function::Functions;
use super::kind::{Compute, Kind, ValueError};
use super::limits::{CONSTRAINTS_MAX, DESCRIPTION_BYTES_MAX, MENTIONS_MAX, METADATA_MAX, TEXT_BYTES_MAX, WRITERS_MAX};
use super::value::{Name, Value, bounded};

/// A variable as it is declared. It is replicated as it is, unless its scope is local.
///
/// ```
/// use meshwork::services::variables::{Access, Definition, Kind};
///
/// let temperature = Kind::Float { min: 0.0, max: 2.0, precision: 0.1 };
/// let definition = Definition {
///     description: "how freely the writers choose their words".to_owned(),
///     ..Definition::new("temperature".parse()?, temperature, 0.7)
/// };
/// assert!(definition.check().is_ok());
/// assert!(definition.check_value(&2.5.into()).is_err());
/// # Ok::<(), meshwork::services::variables::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Its name, which is unique within the cluster.
    pub name: Name,
    /// Which values it takes.
    pub kind: Kind,
    /// What it is until somebody sets it. Every kind but a composite has one.
    pub default: Option<Value>,
    /// Rules that it keeps, alone and with other variables. Those about this variable alone hold everywhere: a value that breaks one is shown nowhere.
    /// Those that speak of several are kept by every write, and what concurrent writes broke together is reported, because no node can
    /// know which of them the others saw first.
    #[serde(deserialize_with = "bounded::<CONSTRAINTS_MAX, _, _>")]
    pub constraints: Vec<Constraint>,
    /// Where it is seen.
    pub scope: Scope,
    /// What a reader may rely on.
    pub consistency: Consistency,
    /// What becomes of concurrent writes.
    pub policy: Policy,
    /// Who may write it.
    pub access: Access,
    /// What it is for.
    pub description: String,
    /// Whatever the application, or an optimizer, wants to know of it; in any order, each key once.
    #[serde(deserialize_with = "bounded::<METADATA_MAX, _, _>")]
    pub metadata: Vec<(String, String)>,
}

/// Where a variable is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// On the node that registered it, and never elsewhere. There it hides a replicated variable of the same name.
    Local,
    /// In every cluster that this one is joined to; there is no joining of clusters yet, so it is like `Cluster`.
    Global,
    /// On every node of the cluster.
    #[default]
    Cluster,
}

/// What a reader may rely on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Every node shows the same once it has heard the same. Writes never wait.
    #[default]
    Eventual,
    /// Every reader sees the last write. Refused as [`Fault::Unsupported`]: it needs consensus.
    Strong,
    /// No reader sees an effect before its cause. Refused as [`Fault::Unsupported`].
    Causal,
    /// Everybody sees what they wrote themselves, wherever they go. Refused as [`Fault::Unsupported`].
    Session,
}

/// What becomes of concurrent writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// The one with the latest stamp of the hybrid logical clock wins.
    #[default]
    LastWriteWins,
    /// The one with the best reported score wins, the earlier one of equals; and no write may lower what is reached.
    Best(Order),
    /// They are merged.
    Merge(Merge),
    /// The nodes agree. Refused as [`Fault::Unsupported`]: it needs consensus.
    Consensus,
}

/// Which score is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The highest.
    Highest,
    /// The lowest.
    Lowest,
}

/// How concurrent values become one. What comes out is put on the nearest step of the range; where it breaks a constraint of the variable, the
/// newest value stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Merge {
    /// Their mean; of numbers.
    Mean,
    /// The least; of numbers.
    Min,
    /// The greatest; of numbers.
    Max,
    /// The one in the middle, or the mean of the two there; of numbers.
    Median,
    /// What [`Functions::merge`] registered under this name. Nodes that lack it show the newest value.
    Function(Name),
}

/// Who may write a variable. Each node asks it of every write, its own and those of others, by the node that a write names; what is not
/// signed is as true as the neighbors that pass it on are honest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Every node.
    #[default]
    Everyone,
    /// These nodes. With none of them the variable is a constant.
    Only(#[serde(deserialize_with = "bounded::<WRITERS_MAX, _, _>")] Vec<PeerId>),
}

impl Access {
    /// Whether the node may write.
    pub fn allows(&self, node: PeerId) -> bool {
        match self {
            Access::Everyone => true,
            Access::Only(nodes) => nodes.contains(&node),
        }
    }
}

/// What is wrong with a definition. Nothing was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionError {
    /// The field, with a dot before a field within.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: Fault,
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A number is not finite, or a text among values too long.
    NotFinite,
    /// The least is above the greatest.
    Reversed,
    /// The step is negative or zero, or too fine for the range: at most [`GRID_STEPS_MAX`](super::limits::GRID_STEPS_MAX) steps.
    NotAStep,
    /// There are too few or too many.
    Count {
        /// How many there are.
        len: usize,
        /// The fewest.
        len_min: usize,
        /// The most.
        len_max: usize,
    },
    /// It is longer than allowed.
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest.
        len_max: usize,
    },
    /// It is there twice.
    Duplicate(String),
    /// Weights are not numbers from 0 up with a sum above it.
    Weights,
    /// A composite has it, which is computed; or another kind lacks it.
    Misplaced,
    /// The default is no value of the variable.
    Default(ValueError),
    /// It is declared for later, and needs what is not there yet.
    Unsupported,
    /// The kind has no numbers to do that with.
    NotNumeric,
    /// Another node cannot see the local variable that it depends on.
    LocalDependency(Name),
    /// It is not the name under which it is replicated.
    OtherName(Name),
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match &self.why {
            Fault::NotFinite => write!(f, "{field}: numbers must be finite, and texts short"),
            Fault::Reversed => write!(f, "{field}: the least is above the greatest"),
            Fault::NotAStep => write!(f, "{field}: the step must be above zero and not too fine for the range"),
            Fault::Count { len, len_min, len_max } => write!(f, "{field}: there are {len}; there must be {len_min} to {len_max}"),
            Fault::TooLong { len, len_max } => write!(f, "{field}: it has {len} bytes; there may be {len_max}"),
            Fault::Duplicate(what) => write!(f, "{field}: {what:?} is there twice"),
            Fault::Weights => write!(f, "{field}: weights are numbers from 0 up, not all of them 0"),
            Fault::Misplaced => write!(f, "{field}: a composite has none, every other kind needs one"),
            Fault::Default(error) => write!(f, "{field}: {error}"),
            Fault::Unsupported => write!(f, "{field}: it is not supported yet, because it needs consensus"),
            Fault::NotNumeric => write!(f, "{field}: it needs a float or an integer"),
            Fault::LocalDependency(name) => write!(f, "{field}: {name} is local, so others could not compute it"),
            Fault::OtherName(name) => write!(f, "{field}: it is {name}, and not where it is kept"),
        }
    }
}

impl std::error::Error for DefinitionError {}

impl Definition {
    /// A variable of the cluster that everybody may write, whose last writer wins.
    pub fn new(name: Name, kind: Kind, default: impl Into<Value>) -> Self {
        Definition { default: Some(default.into()), ..Definition::bare(name, kind) }
    }

    /// A variable that is computed from others.
    pub fn composite(name: Name, dependencies: impl IntoIterator<Item = Name>, compute: Compute) -> Self {
        Definition::bare(name, Kind::Composite { dependencies: dependencies.into_iter().collect(), compute })
    }

    fn bare(name: Name, kind: Kind) -> Self {
        Definition {
            name,
            kind,
            default: None,
            constraints: Vec::new(),
            scope: Scope::default(),
            consistency: Consistency::default(),
            policy: Policy::default(),
            access: Access::default(),
            description: String::new(),
            metadata: Vec::new(),
        }
    }

    /// Checks the definition alone; every node answers alike.
    ///
    /// # Errors
    ///
    /// A [`DefinitionError`] with the first field that is wrong.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let fault = |field, why| Err(DefinitionError { field, why });
        self.kind.check_shape()?;
        Fault::count("constraints", self.constraints.len(), 0, CONSTRAINTS_MAX)?;
        self.constraints.iter().try_for_each(Constraint::check_shape)?;
        Fault::count("constraints", self.mentions().len(), 0, MENTIONS_MAX)?;
        if self.consistency != Consistency::Eventual {
            return fault("consistency", Fault::Unsupported);
        }
        match &self.policy {
            Policy::Consensus => return fault("policy", Fault::Unsupported),
            Policy::Merge(Merge::Mean | Merge::Min | Merge::Max | Merge::Median)
                if !matches!(self.kind, Kind::Float { .. } | Kind::Integer { .. }) =>
            {
                return fault("policy", Fault::NotNumeric);
            }
            _ => {}
        }
        if let Access::Only(nodes) = &self.access {
            Fault::count("access", nodes.len(), 0, WRITERS_MAX)?;
        }
        Fault::text("description", &self.description, DESCRIPTION_BYTES_MAX)?;
        Fault::count("metadata", self.metadata.len(), 0, METADATA_MAX)?;
        Fault::distinct("metadata", self.metadata.iter().map(|(key, _)| key.as_str()))?;
        self.metadata.iter().flat_map(|(key, value)| [key, value]).try_for_each(|text| Fault::text("metadata", text, TEXT_BYTES_MAX))?;
        match (&self.default, &self.kind) {
            (None, Kind::Composite { .. }) => Ok(()),
            (Some(_), Kind::Composite { .. }) | (None, _) => fault("default", Fault::Misplaced),
            (Some(value), _) => match self.check_value(value) {
                Ok(()) => Ok(()),
                Err(error) => fault("default", Fault::Default(error)),
            },
        }
    }

    /// Checks a value by what every node knows: the kind, and the constraints that speak of this variable alone.
    ///
    /// # Errors
    ///
    /// A [`ValueError`].
    pub fn check_value(&self, value: &Value) -> Result<(), ValueError> {
        self.kind.check(value)?;
        let functions = Functions::default();
        let is_broken = |constraint: &Constraint| {
            constraint.is_about(&self.name) && constraint.judge(&functions, &mut |_| Some(value.clone())) == Verdict::Broken
        };
        match self.constraints.iter().position(is_broken) {
            Some(index) => Err(ValueError::Constraint { index }),
            None => Ok(()),
        }
    }

    /// The constraints and, after them, the lines of the compatibility table.
    pub(super) fn rules(&self) -> impl Iterator<Item = Cow<'_, Constraint>> {
        let lines = self.kind.compatibility().iter().map(|line| {
            let text = |name: &Name| Value::Text(name.to_string());
            let when = Condition::OneOf { variable: self.name.clone(), values: vec![text(&line.module)] };
            let then = Condition::OneOf { variable: line.variable.clone(), values: line.with.iter().map(text).collect() };
            Cow::Owned(Constraint::Implies { when, then })
        });
        self.constraints.iter().map(Cow::Borrowed).chain(lines)
    }

    /// The other variables of which the rules and the composite speak.
    pub(super) fn mentions(&self) -> BTreeSet<&Name> {
        let rules = self.constraints.iter().flat_map(Constraint::mentions);
        let lines = self.kind.compatibility().iter().map(|line| &line.variable);
        let all = rules.chain(lines).chain(self.kind.dependencies());
        all.filter(|name| **name != self.name).collect()
    }
}
