//! Rules that values keep, as data that can be replicated and evaluated alike everywhere, and as functions that are registered by name.

use serde::{Deserialize, Serialize};

use super::definition::{DefinitionError, Fault};
use super::function::Functions;
use super::limits::{TERMS_MAX, VALUES_MAX};
use super::value::{Name, Value, bounded};

/// How exactly sums are compared, relative to what is summed: `0.1 + 0.2` equals `0.3`.
const TOLERANCE: f64 = 1e-9;

/// A rule. One that speaks of a variable that has no value binds nobody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Constraint {
    /// The condition holds.
    Always(Condition),
    /// While the first condition holds, so does the second.
    Implies {
        /// The first.
        when: Condition,
        /// The second.
        then: Condition,
    },
    /// A function that [`Functions::constraint`] registered says yes. Nodes that have it refuse to write what it denies, nodes that lack it refuse to write.
    Function {
        /// Its name.
        function: Name,
        /// The variables that it gets, in this order.
        #[serde(deserialize_with = "bounded::<TERMS_MAX, _, _>")]
        variables: Vec<Name>,
    },
}

/// What can be said about values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Condition {
    /// A weighted sum of variables compares so with a bound. It does not hold for text.
    Sum {
        /// What is summed.
        #[serde(deserialize_with = "bounded::<TERMS_MAX, _, _>")]
        terms: Vec<Term>,
        /// How it compares.
        relation: Relation,
        /// The bound.
        bound: f64,
    },
    /// A variable is one of these values.
    OneOf {
        /// The variable.
        variable: Name,
        /// The values.
        #[serde(deserialize_with = "bounded::<VALUES_MAX, _, _>")]
        values: Vec<Value>,
    },
}

/// A part of a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// What the variable is multiplied by.
    pub factor: f64,
    /// The variable.
    pub variable: Name,
}

/// How a sum compares with its bound. Sums that differ by no more than rounding are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// It is less.
    Less,
    /// It is less or equal.
    AtMost,
    /// It is equal.
    Equal,
    /// It is not equal.
    NotEqual,
    /// It is greater or equal.
    AtLeast,
    /// It is greater.
    Greater,
}

/// What a constraint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Holds,
    Broken,
    /// A variable has no value.
    Unbound,
    NoFunction(Name),
}

impl Condition {
    /// The sum of these variables compares so with a bound.
    pub fn sum(variables: impl IntoIterator<Item = Name>, relation: Relation, bound: f64) -> Self {
        let terms = variables.into_iter().map(|variable| Term { factor: 1.0, variable }).collect();
        Condition::Sum { terms, relation, bound }
    }

    /// One variable compares so with another.
    pub fn compare(left: Name, relation: Relation, right: Name) -> Self {
        let terms = vec![Term { factor: 1.0, variable: left }, Term { factor: -1.0, variable: right }];
        Condition::Sum { terms, relation, bound: 0.0 }
    }

    fn holds(&self, value_of: &mut dyn FnMut(&Name) -> Option<Value>) -> Option<bool> {
        match self {
            Condition::Sum { terms, relation, bound } => {
                let (mut sum, mut size) = (0.0, bound.abs().max(1.0));
                for term in terms {
                    let Some(number) = value_of(&term.variable)?.number() else { return Some(false) };
                    sum += term.factor * number;
                    size += (term.factor * number).abs();
                }
                let (apart, tolerance) = (sum - bound, TOLERANCE * size);
                Some(match relation {
                    Relation::Less => apart < -tolerance,
                    Relation::AtMost => apart <= tolerance,
                    Relation::Equal => apart.abs() <= tolerance,
                    Relation::NotEqual => apart.abs() > tolerance,
                    Relation::AtLeast => apart >= -tolerance,
                    Relation::Greater => apart > tolerance,
                })
            }
            Condition::OneOf { variable, values } => value_of(variable).map(|value| values.contains(&value)),
        }
    }

    fn mentions<'a>(&'a self, names: &mut Vec<&'a Name>) {
        match self {
            Condition::Sum { terms, .. } => names.extend(terms.iter().map(|term| &term.variable)),
            Condition::OneOf { variable, .. } => names.push(variable),
        }
    }

    fn check_shape(&self) -> Result<(), DefinitionError> {
        match self {
            Condition::Sum { terms, bound, .. } => {
                Fault::count("constraints.terms", terms.len(), 1, TERMS_MAX)?;
                let is_finite = bound.is_finite() && terms.iter().all(|term| term.factor.is_finite());
                if is_finite { Ok(()) } else { Err(DefinitionError { field: "constraints.terms", why: Fault::NotFinite }) }
            }
            Condition::OneOf { values, .. } => {
                Fault::count("constraints.values", values.len(), 0, VALUES_MAX)?;
                let is_sound = values.iter().all(Value::is_sound);
                if is_sound { Ok(()) } else { Err(DefinitionError { field: "constraints.values", why: Fault::NotFinite }) }
            }
        }
    }
}

impl Constraint {
    /// The variables that it speaks of.
    pub(super) fn mentions(&self) -> Vec<&Name> {
        let mut names = Vec::new();
        match self {
            Constraint::Always(condition) => condition.mentions(&mut names),
            Constraint::Implies { when, then } => {
                when.mentions(&mut names);
                then.mentions(&mut names);
            }
            Constraint::Function { variables, .. } => names.extend(variables),
        }
        names
    }

    /// Whether every node can judge it by the value of this variable alone.
    pub(super) fn is_about(&self, name: &Name) -> bool {
        !matches!(self, Constraint::Function { .. }) && self.mentions().into_iter().all(|mentioned| mentioned == name)
    }

    pub(super) fn judge(&self, functions: &Functions, value_of: &mut dyn FnMut(&Name) -> Option<Value>) -> Verdict {
        let holds = match self {
            Constraint::Always(condition) => condition.holds(value_of),
            Constraint::Implies { when, then } => match when.holds(value_of) {
                Some(true) => then.holds(value_of),
                known => known.map(|_| true),
            },
            Constraint::Function { function, variables } => {
                let values: Option<Vec<Value>> = variables.iter().map(value_of).collect();
                let Some(values) = values else { return Verdict::Unbound };
                let Some(holds) = functions.judge(function, &values) else { return Verdict::NoFunction(function.clone()) };
                Some(holds)
            }
        };
        holds.map_or(Verdict::Unbound, |holds| if holds { Verdict::Holds } else { Verdict::Broken })
    }

    pub(super) fn check_shape(&self) -> Result<(), DefinitionError> {
        match self {
            Constraint::Always(condition) => condition.check_shape(),
            Constraint::Implies { when, then } => when.check_shape().and_then(|()| then.check_shape()),
            Constraint::Function { variables, .. } => Fault::count("constraints.variables", variables.len(), 0, TERMS_MAX),
        }
    }
}
