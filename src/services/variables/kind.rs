//! The kinds of variables: which values each of them takes, and how its range is drawn from.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::definition::{DefinitionError, Fault};
use super::limits::{
    CAPABILITIES_MAX, COMPATIBILITY_MAX, DEPENDENCIES_MAX, GRID_STEPS_MAX, MODULES_MAX, OPTIONS_MAX, TEXT_BYTES_MAX, VALUES_MAX,
};
use super::value::{Name, Value, bounded};

/// How far from a step of its grid a float may lie, in steps: more than the rounding errors of [`GRID_STEPS_MAX`] steps.
const GRID_TOLERANCE: f64 = 1e-4;

/// Which values a variable takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// A float within a range, both ends included.
    Float {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
        /// Values lie on steps of this size that begin at `min`; 0 for all values of the range.
        precision: f64,
    },
    /// A whole number within a range, both ends included.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
        /// Values lie on steps of this size that begin at `min`; at least 1.
        step: u64,
    },
    /// One of several texts.
    Choice {
        /// The options, each once.
        #[serde(deserialize_with = "bounded::<OPTIONS_MAX, _, _>")]
        options: Vec<Choice>,
        /// Whether other texts than the options may be set.
        is_custom_allowed: bool,
    },
    /// The name of one of several modules.
    Module {
        /// The modules, each once.
        #[serde(deserialize_with = "bounded::<MODULES_MAX, _, _>")]
        allowed: Vec<Module>,
        /// What a module must be capable of to be set.
        #[serde(deserialize_with = "bounded::<CAPABILITIES_MAX, _, _>")]
        required: Vec<Name>,
        /// What may stand in other variables beside a module.
        #[serde(deserialize_with = "bounded::<COMPATIBILITY_MAX, _, _>")]
        compatibility: Vec<Compatibility>,
    },
    /// Computed from other variables; it cannot be set.
    Composite {
        /// The variables, in the order in which a function gets them.
        #[serde(deserialize_with = "bounded::<DEPENDENCIES_MAX, _, _>")]
        dependencies: Vec<Name>,
        /// How.
        compute: Compute,
    },
}

/// An option of a choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The text.
    pub text: String,
    /// How often it is drawn, in proportion to the weights of the others; not negative.
    pub weight: f64,
}

/// A module that a variable may choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub name: Name,
    /// What it is capable of.
    #[serde(deserialize_with = "bounded::<CAPABILITIES_MAX, _, _>")]
    pub capabilities: Vec<Name>,
}

/// A line of a compatibility table: while this variable is `module`, `variable` is one of `with`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// A module of this variable.
    pub module: Name,
    /// Another variable.
    pub variable: Name,
    /// What that may be.
    #[serde(deserialize_with = "bounded::<VALUES_MAX, _, _>")]
    pub with: Vec<Name>,
}

/// How a composite is computed. All but functions need numbers and give a float.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compute {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The mean.
    Mean,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// What [`Functions::compute`](super::Functions::compute) registered under this name.
    Function(Name),
}

/// Why a variable cannot hold a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueError {
    /// It is of another type.
    WrongType {
        /// The type that is needed.
        expected: &'static str,
    },
    /// It is not a finite number.
    NotFinite,
    /// It is outside the range.
    OutOfRange {
        /// The value.
        value: Value,
        /// The least that is allowed.
        min: Value,
        /// The greatest that is allowed.
        max: Value,
    },
    /// It lies between two steps.
    OffGrid {
        /// The value.
        value: Value,
        /// The step that is nearest.
        nearest: Value,
    },
    /// It is not one of the options.
    NotAnOption(String),
    /// It is a text of more than [`TEXT_BYTES_MAX`] bytes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It is not one of the modules.
    NotAllowed(String),
    /// The module lacks a capability.
    Incapable {
        /// The module.
        module: Name,
        /// What it must be capable of.
        capability: Name,
    },
    /// The variable is computed and cannot be set.
    Computed,
    /// It breaks a constraint that speaks of this variable alone.
    Constraint {
        /// Which one of the definition's.
        index: usize,
    },
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueError::WrongType { expected } => write!(f, "the value must be {expected}"),
            ValueError::NotFinite => f.write_str("the value must be a finite number"),
            ValueError::OutOfRange { value, min, max } => write!(f, "{value} is outside the range of {min} to {max}"),
            ValueError::OffGrid { value, nearest } => write!(f, "{value} lies between two steps; the nearest is {nearest}"),
            ValueError::NotAnOption(text) => write!(f, "{text:?} is not one of the options"),
            ValueError::TooLong { len } => write!(f, "a text has at most {TEXT_BYTES_MAX} bytes; this has {len}"),
            ValueError::NotAllowed(text) => write!(f, "{text:?} is not one of the modules"),
            ValueError::Incapable { module, capability } => write!(f, "the module {module} is not capable of {capability}"),
            ValueError::Computed => f.write_str("the variable is computed and cannot be set"),
            ValueError::Constraint { index } => write!(f, "the value breaks constraint {index} of the variable"),
        }
    }
}

impl std::error::Error for ValueError {}

impl Kind {
    /// All floats of a range.
    pub fn float(min: f64, max: f64) -> Self {
        Kind::Float { min, max, precision: 0.0 }
    }

    /// All whole numbers of a range.
    pub fn integer(min: i64, max: i64) -> Self {
        Kind::Integer { min, max, step: 1 }
    }

    /// One of these texts, all of the same weight.
    pub fn choice<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let options = options.into_iter().map(|text| Choice { text: text.to_owned(), weight: 1.0 }).collect();
        Kind::Choice { options, is_custom_allowed: false }
    }

    /// The name of the kind, for lists.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Float { .. } => "float",
            Kind::Integer { .. } => "integer",
            Kind::Choice { .. } => "choice",
            Kind::Module { .. } => "module",
            Kind::Composite { .. } => "composite",
        }
    }

    /// Whether the value is of this kind. It looks at nothing else, so every node answers alike.
    ///
    /// # Errors
    ///
    /// A [`ValueError`]; never of a constraint.
    pub fn check(&self, value: &Value) -> Result<(), ValueError> {
        match (self, value) {
            (Kind::Composite { .. }, _) => Err(ValueError::Computed),
            (Kind::Float { .. }, Value::Float(number)) if !number.is_finite() => Err(ValueError::NotFinite),
            (&Kind::Float { min, max, .. }, &Value::Float(number)) => {
                if number < min || number > max {
                    return Err(ValueError::OutOfRange { value: value.clone(), min: min.into(), max: max.into() });
                }
                self.check_grid(value, |nearest| (nearest - number).abs() > self.float_tolerance())
            }
            (&Kind::Integer { min, max, .. }, &Value::Integer(number)) => {
                if number < min || number > max {
                    return Err(ValueError::OutOfRange { value: value.clone(), min: min.into(), max: max.into() });
                }
                self.check_grid(value, |_| self.snap(value) != *value)
            }
            (Kind::Choice { .. }, Value::Text(text)) if text.len() > TEXT_BYTES_MAX => Err(ValueError::TooLong { len: text.len() }),
            (Kind::Choice { options, is_custom_allowed }, Value::Text(text)) => {
                let is_allowed = *is_custom_allowed || options.iter().any(|option| option.text == *text);
                if is_allowed { Ok(()) } else { Err(ValueError::NotAnOption(text.clone())) }
            }
            (Kind::Module { allowed, required, .. }, Value::Text(text)) => {
                let module = allowed.iter().find(|module| module.name.as_str() == text);
                let module = module.ok_or_else(|| ValueError::NotAllowed(text.chars().take(TEXT_BYTES_MAX).collect()))?;
                match required.iter().find(|capability| !module.capabilities.contains(capability)) {
                    Some(capability) => Err(ValueError::Incapable { module: module.name.clone(), capability: capability.clone() }),
                    None => Ok(()),
                }
            }
            (Kind::Float { .. }, _) => Err(ValueError::WrongType { expected: "a float" }),
            (Kind::Integer { .. }, _) => Err(ValueError::WrongType { expected: "an integer" }),
            (Kind::Choice { .. } | Kind::Module { .. }, _) => Err(ValueError::WrongType { expected: "a text" }),
        }
    }

    fn check_grid(&self, value: &Value, is_off: impl FnOnce(f64) -> bool) -> Result<(), ValueError> {
        let nearest = self.snap(value);
        let is_off = nearest.number().is_some_and(is_off);
        if is_off { Err(ValueError::OffGrid { value: value.clone(), nearest }) } else { Ok(()) }
    }

    fn float_tolerance(&self) -> f64 {
        match self {
            Kind::Float { precision, .. } => precision * GRID_TOLERANCE,
            _ => 0.0,
        }
    }

    /// The number of this kind that is nearest to a number of the same type; other values stay as they are.
    pub(super) fn snap(&self, value: &Value) -> Value {
        match (self, value) {
            (&Kind::Float { min, max, precision }, &Value::Float(number)) if precision > 0.0 => {
                let step = ((number - min) / precision).round().clamp(0.0, float_steps(min, max, precision));
                Value::Float((min + step * precision).min(max))
            }
            (&Kind::Float { min, max, .. }, &Value::Float(number)) => Value::Float(number.clamp(min, max)),
            (&Kind::Integer { min, max, step }, &Value::Integer(number)) => {
                let (step, offset) = (i128::from(step), i128::from(number.clamp(min, max)) - i128::from(min));
                let last = (i128::from(max) - i128::from(min)) / step;
                integer(i128::from(min) + ((offset + step / 2) / step).min(last) * step)
            }
            _ => value.clone(),
        }
    }

    /// The value at `unit`, from 0 and below 1, of this kind's values in their order; each has its share of the unit. `None` for a composite.
    pub(super) fn at(&self, unit: f64) -> Option<Value> {
        match self {
            &Kind::Float { min, max, precision } if precision > 0.0 => {
                let steps = float_steps(min, max, precision);
                let step = (unit * (steps + 1.0)).floor().min(steps);
                Some(Value::Float((min + step * precision).min(max)))
            }
            &Kind::Float { min, max, .. } => Some(Value::Float((min + unit * (max - min)).clamp(min, max))),
            &Kind::Integer { min, max, step } => {
                let last = (i128::from(max) - i128::from(min)) / i128::from(step);
                let at = ((unit * (last + 1) as f64) as i128).min(last);
                Some(integer(i128::from(min) + at * i128::from(step)))
            }
            Kind::Choice { options, .. } => {
                let mut left = unit * options.iter().map(|option| option.weight).sum::<f64>();
                let mut drawn = options.iter().filter(|option| option.weight > 0.0);
                let found = drawn.clone().find(|option| {
                    left -= option.weight;
                    left < 0.0
                });
                // The sum of the weights may be rounded up past the last of them.
                found.or_else(|| drawn.next_back()).map(|option| Value::Text(option.text.clone()))
            }
            Kind::Module { allowed, required, .. } => {
                let is_capable = |module: &&Module| required.iter().all(|capability| module.capabilities.contains(capability));
                let capable: Vec<&Module> = allowed.iter().filter(is_capable).collect();
                let at = ((unit * capable.len() as f64) as usize).min(capable.len().checked_sub(1)?);
                Some(Value::Text(capable[at].name.to_string()))
            }
            Kind::Composite { .. } => None,
        }
    }

    /// The lines of the compatibility table; none unless it is a module.
    pub(super) fn compatibility(&self) -> &[Compatibility] {
        match self {
            Kind::Module { compatibility, .. } => compatibility,
            _ => &[],
        }
    }

    /// What a composite is computed from; nothing for others.
    pub(super) fn dependencies(&self) -> &[Name] {
        match self {
            Kind::Composite { dependencies, .. } => dependencies,
            _ => &[],
        }
    }

    pub(super) fn check_shape(&self) -> Result<(), DefinitionError> {
        let fault = |field, why| Err(DefinitionError { field, why });
        match self {
            &Kind::Float { min, max, precision } => {
                if !min.is_finite() || !max.is_finite() || !(max - min).is_finite() {
                    return fault("kind.range", Fault::NotFinite);
                }
                if min > max {
                    return fault("kind.range", Fault::Reversed);
                }
                let is_fine =
                    precision == 0.0 || precision > 0.0 && (max - min).max(min.abs()).max(max.abs()) / precision <= GRID_STEPS_MAX;
                if !is_fine {
                    return fault("kind.precision", Fault::NotAStep);
                }
            }
            &Kind::Integer { min, max, step } => {
                if min > max {
                    return fault("kind.range", Fault::Reversed);
                }
                if step == 0 {
                    return fault("kind.step", Fault::NotAStep);
                }
            }
            Kind::Choice { options, .. } => {
                Fault::count("kind.options", options.len(), 1, OPTIONS_MAX)?;
                Fault::distinct("kind.options", options.iter().map(|option| option.text.as_str()))?;
                options.iter().try_for_each(|option| Fault::text("kind.options", &option.text, TEXT_BYTES_MAX))?;
                let sum = options.iter().map(|option| option.weight).sum::<f64>();
                if options.iter().any(|option| option.weight.is_nan() || option.weight < 0.0) || sum <= 0.0 || !sum.is_finite() {
                    return fault("kind.weights", Fault::Weights);
                }
            }
            Kind::Module { allowed, required, compatibility } => {
                Fault::count("kind.allowed", allowed.len(), 1, MODULES_MAX)?;
                Fault::distinct("kind.allowed", allowed.iter().map(|module| module.name.as_str()))?;
                allowed.iter().try_for_each(|module| Fault::count("kind.capabilities", module.capabilities.len(), 0, CAPABILITIES_MAX))?;
                Fault::count("kind.required", required.len(), 0, CAPABILITIES_MAX)?;
                Fault::count("kind.compatibility", compatibility.len(), 0, COMPATIBILITY_MAX)?;
                compatibility.iter().try_for_each(|line| Fault::count("kind.compatibility", line.with.len(), 0, VALUES_MAX))?;
            }
            Kind::Composite { dependencies, .. } => {
                Fault::count("kind.dependencies", dependencies.len(), 1, DEPENDENCIES_MAX)?;
                Fault::distinct("kind.dependencies", dependencies.iter().map(Name::as_str))?;
            }
        }
        Ok(())
    }
}

impl Fault {
    pub(super) fn count(field: &'static str, len: usize, len_min: usize, len_max: usize) -> Result<(), DefinitionError> {
        let why = Fault::Count { len, len_min, len_max };
        if (len_min..=len_max).contains(&len) { Ok(()) } else { Err(DefinitionError { field, why }) }
    }

    pub(super) fn text(field: &'static str, text: &str, len_max: usize) -> Result<(), DefinitionError> {
        let why = Fault::TooLong { len: text.len(), len_max };
        if text.len() <= len_max { Ok(()) } else { Err(DefinitionError { field, why }) }
    }

    pub(super) fn distinct<'a>(field: &'static str, texts: impl Iterator<Item = &'a str>) -> Result<(), DefinitionError> {
        let mut seen = BTreeSet::new();
        for text in texts {
            if !seen.insert(text) {
                return Err(DefinitionError { field, why: Fault::Duplicate(text.to_owned()) });
            }
        }
        Ok(())
    }
}

fn float_steps(min: f64, max: f64, precision: f64) -> f64 {
    ((max - min) / precision + GRID_TOLERANCE).floor()
}

/// A number that is known to lie within the range of a variable.
fn integer(number: i128) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX }))
}
