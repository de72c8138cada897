//! A set of variables as a space of configurations: checked, drawn and sampled as a whole, without any replica.

use std::collections::BTreeMap;
use std::fmt;

use meshwork_channels::random::Generator;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::constraint::{Constraint, Verdict};
use super::definition::{Definition, DefinitionError};
use super::error::{Broken, GetError};
use super::function::Functions;
use super::kind::{Kind, ValueError};
use super::limits::{ATTEMPTS_MAX, SAMPLES_MAX, STRATUM_ATTEMPTS_MAX, VARIABLES_MAX};
use super::value::{Name, Value};

/// A value for each of some variables.
pub type Assignment = BTreeMap<Name, Value>;

/// A set of variables, with the constraints of their definitions and more across them.
///
/// ```
/// use meshwork::channels::random::generator;
/// use meshwork::services::variables::{Condition, Constraint, Definition, Functions, Kind, Relation, Space};
///
/// let mut space = Space::new(Functions::default());
/// space.add(Definition::new("workers".parse()?, Kind::integer(1, 16), 4))?;
/// space.add(Definition::new("share".parse()?, Kind::float(0.0, 1.0), 0.5))?;
/// space.constrain(Constraint::Always(Condition::sum(["workers".parse()?, "share".parse()?], Relation::AtMost, 8.0)))?;
/// let drawn = space.random(&mut generator(1, "example", 0))?;
/// assert!(space.validate(&drawn).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Space {
    variables: BTreeMap<Name, Definition>,
    constraints: Vec<Constraint>,
    functions: Functions,
}

/// How many variables of a space can be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dimensions {
    /// Floats.
    pub continuous: usize,
    /// Integers, choices and modules.
    pub discrete: usize,
}

/// Why a space is not what was asked for. It was not changed.
#[derive(Clone, Debug, PartialEq)]
pub enum SpaceError {
    /// The definition is wrong, or the constraint.
    Invalid(DefinitionError),
    /// There is a variable of this name.
    Duplicate(Name),
    /// There are [`VARIABLES_MAX`] variables, or as many constraints.
    TooMany,
    /// No variable has this name.
    Unknown(Name),
    /// This composite is computed from itself.
    Cycle(Name),
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpaceError::Invalid(error) => error.fmt(f),
            SpaceError::Duplicate(name) => write!(f, "{name} is in the space already"),
            SpaceError::TooMany => write!(f, "a space has at most {VARIABLES_MAX} variables, and as many constraints"),
            SpaceError::Unknown(name) => write!(f, "{name} is not in the space"),
            SpaceError::Cycle(name) => write!(f, "{name} is computed from itself"),
        }
    }
}

impl std::error::Error for SpaceError {}

/// Why values are no configuration of a space.
#[derive(Clone, Debug, PartialEq)]
pub enum Invalid {
    /// This variable has no value.
    Missing(Name),
    /// No variable has this name.
    Unknown(Name),
    /// The value is not one of the variable.
    Value {
        /// The variable.
        name: Name,
        /// Why.
        why: ValueError,
    },
    /// The value of a composite is not what is computed.
    NotAsComputed {
        /// The composite.
        name: Name,
        /// What is computed.
        computed: Value,
    },
    /// A composite cannot be computed.
    NotComputed {
        /// The composite.
        name: Name,
        /// Why.
        why: GetError,
    },
    /// A constraint of a definition does not hold.
    Broken(Broken),
    /// A constraint across the space does not hold; they count from 0 in the order in which they were added.
    Across(usize),
    /// The function of a constraint is not registered.
    NoFunction(Name),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Missing(name) => write!(f, "{name} has no value"),
            Invalid::Unknown(name) => write!(f, "{name} is not in the space"),
            Invalid::Value { name, why } => write!(f, "{name}: {why}"),
            Invalid::NotAsComputed { name, computed } => write!(f, "{name} is computed to be {computed}"),
            Invalid::NotComputed { name, why } => write!(f, "{name}: {why}"),
            Invalid::Broken(broken) => write!(f, "{broken} does not hold"),
            Invalid::Across(index) => write!(f, "constraint {index} of the space does not hold"),
            Invalid::NoFunction(name) => write!(f, "the function {name} is not registered"),
        }
    }
}

impl std::error::Error for Invalid {}

/// Why no configuration was drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum DrawError {
    /// So many draws in a row were refused: the constraints leave too little of the space, or nothing.
    TooTight {
        /// How many draws.
        attempts: u32,
        /// What was wrong with the last of them.
        last: Invalid,
    },
    /// No draw can be valid: composites are computed in a cycle, or what they are computed from or with is not there.
    Impossible(Invalid),
    /// More than [`SAMPLES_MAX`] configurations were asked for.
    TooMany,
}

impl fmt::Display for DrawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DrawError::TooTight { attempts, last } => write!(f, "{attempts} draws were refused, the last one because {last}"),
            DrawError::Impossible(why) => why.fmt(f),
            DrawError::TooMany => write!(f, "a sample has at most {SAMPLES_MAX} configurations"),
        }
    }
}

impl std::error::Error for DrawError {}

impl Space {
    /// A space without variables, with the functions that composites and constraints may name.
    pub fn new(functions: Functions) -> Self {
        Space { variables: BTreeMap::new(), constraints: Vec::new(), functions }
    }

    /// Adds a variable.
    ///
    /// # Errors
    ///
    /// A [`SpaceError`]; a composite that closes a cycle is refused.
    pub fn add(&mut self, definition: Definition) -> Result<(), SpaceError> {
        definition.check().map_err(SpaceError::Invalid)?;
        let name = definition.name.clone();
        if self.variables.contains_key(&name) {
            return Err(SpaceError::Duplicate(name));
        }
        if self.variables.len() >= VARIABLES_MAX {
            return Err(SpaceError::TooMany);
        }
        self.variables.insert(name.clone(), definition);
        match self.dependency_order() {
            Ok(_) => Ok(()),
            Err(cyclic) => {
                self.variables.remove(&name);
                Err(SpaceError::Cycle(cyclic))
            }
        }
    }

    /// Takes a variable out; `None` when it is not there. Constraints that speak of it bind nobody from now on.
    pub fn remove(&mut self, name: &str) -> Option<Definition> {
        self.variables.remove(name)
    }

    /// The definition of a variable.
    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.variables.get(name)
    }

    /// The definitions, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Definition> {
        self.variables.values()
    }

    /// Adds a constraint across the space.
    ///
    /// # Errors
    ///
    /// A [`SpaceError`], for instance when it speaks of a variable that is not there.
    pub fn constrain(&mut self, constraint: Constraint) -> Result<(), SpaceError> {
        constraint.check_shape().map_err(SpaceError::Invalid)?;
        if let Some(unknown) = constraint.mentions().into_iter().find(|name| !self.variables.contains_key(*name)) {
            return Err(SpaceError::Unknown(unknown.clone()));
        }
        if self.constraints.len() >= VARIABLES_MAX {
            return Err(SpaceError::TooMany);
        }
        self.constraints.push(constraint);
        Ok(())
    }

    /// How many variables can be set.
    pub fn dimensions(&self) -> Dimensions {
        let mut dimensions = Dimensions::default();
        for definition in self.iter() {
            match definition.kind {
                Kind::Float { .. } => dimensions.continuous += 1,
                Kind::Integer { .. } | Kind::Choice { .. } | Kind::Module { .. } => dimensions.discrete += 1,
                Kind::Composite { .. } => {}
            }
        }
        dimensions
    }

    /// The variables, each after all of the space that it is computed from, and else in the order of their names (Kahn, "Topological Sorting of
    /// Large Networks", CACM 1962).
    ///
    /// # Errors
    ///
    /// The name of a composite that has no place in any such order, because it is in a cycle or behind one. [`Space::add`] lets none in.
    pub fn dependency_order(&self) -> Result<Vec<Name>, Name> {
        let mut waiting: BTreeMap<&Name, usize> = BTreeMap::new();
        let mut dependents: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
        for (name, definition) in &self.variables {
            let known = definition.kind.dependencies().iter().filter(|name| self.variables.contains_key(*name));
            waiting.insert(name, known.clone().count());
            known.for_each(|dependency| dependents.entry(dependency).or_default().push(name));
        }
        let mut order: Vec<Name> = waiting.iter().filter(|(_, count)| **count == 0).map(|(name, _)| (*name).clone()).collect();
        let mut next = 0;
        while let Some(name) = order.get(next).cloned() {
            next += 1;
            for &dependent in dependents.get(&name).into_iter().flatten() {
                let count = waiting.entry(dependent).or_default();
                *count -= 1;
                if *count == 0 {
                    order.push(dependent.clone());
                }
            }
        }
        match waiting.into_iter().find(|(_, count)| *count > 0) {
            Some((name, _)) => Err(name.clone()),
            None => Ok(order),
        }
    }

    /// Whether the values are a configuration: one for each variable that can be set, and for composites either none or what is computed.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the first thing that is wrong.
    pub fn validate(&self, assignment: &Assignment) -> Result<(), Invalid> {
        let composites = self.composites()?;
        self.complete(assignment.clone(), &composites).map(drop)
    }

    /// Draws a configuration at random, composites included: floats and integers evenly, choices by their weights, modules evenly among those that
    /// are capable. Draws that break a constraint are thrown away.
    ///
    /// # Errors
    ///
    /// [`DrawError::TooTight`] after [`ATTEMPTS_MAX`] draws, or [`DrawError::Impossible`].
    pub fn random(&self, generator: &mut Generator) -> Result<Assignment, DrawError> {
        let composites = self.composites().map_err(DrawError::Impossible)?;
        self.draw(ATTEMPTS_MAX, &composites, |_| generator.random::<f64>())
    }

    /// Draws `len` configurations that cover the space evenly (McKay, Beckman and Conover, section 2.3: a Latin hypercube): the range of each
    /// variable is cut into `len` parts of equal share, by weight for choices, and each part is used once. One that breaks a constraint is drawn
    /// again within its parts, and after [`STRATUM_ATTEMPTS_MAX`] times anywhere, so that constraints cost evenness and not the sample.
    ///
    /// # Errors
    ///
    /// As [`Space::random`], or [`DrawError::TooMany`].
    pub fn sample(&self, len: usize, generator: &mut Generator) -> Result<Vec<Assignment>, DrawError> {
        if len > SAMPLES_MAX {
            return Err(DrawError::TooMany);
        }
        let composites = self.composites().map_err(DrawError::Impossible)?;
        let mut parts: BTreeMap<&Name, Vec<u32>> = BTreeMap::new();
        for name in self.variables.keys() {
            let mut order: Vec<u32> = (0..len as u32).collect();
            order.shuffle(generator);
            parts.insert(name, order);
        }
        let drawn = (0..len).map(|index| {
            let within = |name: &Name, unit: f64| (f64::from(parts[name][index]) + unit) / len as f64;
            match self.draw(STRATUM_ATTEMPTS_MAX, &composites, |name| within(name, generator.random())) {
                Err(DrawError::TooTight { .. }) => self.draw(ATTEMPTS_MAX, &composites, |_| generator.random()),
                drawn => drawn,
            }
        });
        drawn.collect()
    }

    fn draw(&self, attempts: u32, composites: &[&Definition], mut unit: impl FnMut(&Name) -> f64) -> Result<Assignment, DrawError> {
        let mut last = None;
        for _ in 0..attempts {
            let mut drawn = Assignment::new();
            for (name, definition) in &self.variables {
                if let Some(value) = definition.kind.at(unit(name)) {
                    drawn.insert(name.clone(), value);
                }
            }
            match self.complete(drawn, composites) {
                Ok(complete) => return Ok(complete),
                Err(
                    impossible @ (Invalid::NoFunction(_)
                    | Invalid::Missing(_)
                    | Invalid::NotComputed { why: GetError::NoFunction(_) | GetError::Dependency(_), .. }),
                ) => return Err(DrawError::Impossible(impossible)),
                Err(invalid) => last = Some(invalid),
            }
        }
        let last = last.expect("there was at least one attempt, and all of them failed");
        Err(DrawError::TooTight { attempts, last })
    }

    fn composites(&self) -> Result<Vec<&Definition>, Invalid> {
        let order = self.dependency_order().map_err(|name| Invalid::NotComputed { name, why: GetError::Cycle })?;
        Ok(order.iter().map(|name| &self.variables[name]).filter(|definition| !definition.kind.dependencies().is_empty()).collect())
    }

    /// Adds the composites, given in the order of their dependencies, to values that are checked.
    fn complete(&self, mut values: Assignment, composites: &[&Definition]) -> Result<Assignment, Invalid> {
        if let Some(unknown) = values.keys().find(|name| !self.variables.contains_key(*name)) {
            return Err(Invalid::Unknown(unknown.clone()));
        }
        for (name, definition) in self.variables.iter().filter(|(_, definition)| definition.kind.dependencies().is_empty()) {
            let value = values.get(name).ok_or_else(|| Invalid::Missing(name.clone()))?;
            definition.check_value(value).map_err(|why| Invalid::Value { name: name.clone(), why })?;
        }
        for definition in composites {
            let Kind::Composite { dependencies, compute } = &definition.kind else { continue };
            let name = || definition.name.clone();
            let mut inputs = Vec::with_capacity(dependencies.len());
            for dependency in dependencies {
                let missing = || Invalid::NotComputed { name: name(), why: GetError::Dependency(dependency.clone()) };
                inputs.push(values.get(dependency).ok_or_else(missing)?.clone());
            }
            let computed = compute.value(&inputs, &self.functions).map_err(|why| Invalid::NotComputed { name: name(), why })?;
            match values.insert(name(), computed.clone()) {
                Some(given) if given != computed => return Err(Invalid::NotAsComputed { name: name(), computed }),
                _ => {}
            }
        }
        for (name, definition) in &self.variables {
            for (index, rule) in definition.rules().enumerate() {
                self.judge(&rule, &values, || Invalid::Broken(Broken { variable: name.clone(), index }))?;
            }
        }
        for (index, rule) in self.constraints.iter().enumerate() {
            self.judge(rule, &values, || Invalid::Across(index))?;
        }
        Ok(values)
    }

    fn judge(&self, rule: &Constraint, values: &Assignment, broken: impl FnOnce() -> Invalid) -> Result<(), Invalid> {
        match rule.judge(&self.functions, &mut |name| values.get(name).cloned()) {
            Verdict::Holds | Verdict::Unbound => Ok(()),
            Verdict::Broken => Err(broken()),
            Verdict::NoFunction(name) => Err(Invalid::NoFunction(name)),
        }
    }
}
