//! Reading: what the replica, the policies and the composites make of a variable. Nothing is kept between two readings.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_channels::PeerId;
use meshwork_crdt::{Stamp, replica};

use super::State;
use super::constraint::{Constraint, Verdict};
use super::definition::{Definition, DefinitionError, Fault, Policy, Scope};
use super::error::{Broken, GetError, Refusal};
use super::function::Functions;
use super::kind::{Compute, Kind};
use super::limits::{DEPTH_MAX, REACH_MAX, SIBLINGS_MAX, VERSION_MAX};
use super::policy::Candidate;
use super::record::{Record, Unreadable, definition_key, open, value_key};
use super::value::{Author, Name, Value, Version};

/// The concurrent writes of a variable.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) valid: Vec<Candidate>,
    pub(super) refused: Vec<(Stamp, PeerId, Refusal)>,
    /// The greatest version that was seen, valid or not, so that the next write is above it for everybody.
    pub(super) version: u64,
}

/// The writes of one key that no other write has replaced, the newest first.
fn siblings<'a>(replica: &'a replica::State, key: &str) -> impl Iterator<Item = replica::Entry<'a>> {
    replica.siblings(key).take(SIBLINGS_MAX)
}

/// What the replica holds of a variable, judged by what every node knows.
pub(super) fn written(replica: &replica::State, definition: &Definition) -> Written {
    let mut all = Written::default();
    for entry in siblings(replica, &value_key(&definition.name)) {
        match judge(&entry, definition, &mut all.version) {
            Ok(candidate) => all.valid.push(candidate),
            Err(refusal) => all.refused.push((entry.stamp, entry.origin, refusal)),
        }
    }
    all
}

fn judge(entry: &replica::Entry<'_>, definition: &Definition, version: &mut u64) -> Result<Candidate, Refusal> {
    let record: Record = open(entry.value)?;
    if !(1..=VERSION_MAX).contains(&record.version) {
        return Err(Refusal::Version);
    }
    *version = (*version).max(record.version);
    if !definition.access.allows(entry.origin) {
        return Err(Refusal::NotPermitted);
    }
    definition.check_value(&record.value).map_err(Refusal::Value)?;
    let score = record.score.filter(|score| score.is_finite());
    if score != record.score || matches!(definition.policy, Policy::Best(_)) && score.is_none() {
        return Err(Refusal::Score);
    }
    let by = Author { node: entry.origin, agent: record.agent };
    Ok(Candidate { value: record.value, version: record.version, score, by, stamp: entry.stamp })
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::OtherFormat(format) => Refusal::OtherFormat(format),
            Unreadable::Undecodable(error) => Refusal::Undecodable(error),
        }
    }
}

/// The definition that the replica holds under a name, checked.
pub(super) fn replicated(replica: &replica::State, name: &Name) -> Option<Result<Definition, Refusal>> {
    let bytes = replica.get(&definition_key(name))?;
    Some(definition_in(bytes, name))
}

pub(super) fn definition_in(bytes: &[u8], name: &Name) -> Result<Definition, Refusal> {
    let definition: Definition = open(bytes)?;
    let fault = |field, why| Err(Refusal::Definition(DefinitionError { field, why }));
    if definition.name != *name {
        return fault("name", Fault::OtherName(definition.name));
    }
    if definition.scope == Scope::Local {
        return fault("scope", Fault::Misplaced);
    }
    definition.check().map_err(Refusal::Definition)?;
    Ok(definition)
}

/// Values at one moment, with some of them supposed to be other than they are.
pub(super) struct Evaluation<'a> {
    state: &'a State,
    replica: &'a replica::State,
    supposed: BTreeMap<Name, Version>,
    /// A definition that is not there yet.
    proposed: Option<&'a Definition>,
    done: BTreeMap<Name, Result<Version, GetError>>,
    depth: usize,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(state: &'a State, replica: &'a replica::State) -> Self {
        Evaluation { state, replica, supposed: BTreeMap::new(), proposed: None, done: BTreeMap::new(), depth: 0 }
    }

    pub(super) fn suppose(mut self, name: &Name, value: Value) -> Self {
        let version = Version { value, version: 0, by: None, stamp: None, score: None, concurrent: 0 };
        self.supposed.insert(name.clone(), version);
        self
    }

    pub(super) fn propose(mut self, definition: &'a Definition) -> Self {
        self.proposed = Some(definition);
        self
    }

    pub(super) fn definition(&self, name: &Name) -> Result<Definition, GetError> {
        match self.proposed.filter(|proposed| proposed.name == *name) {
            Some(proposed) => Ok(proposed.clone()),
            None => self.state.defined(self.replica, name),
        }
    }

    /// The visible version of a variable.
    pub(super) fn version(&mut self, name: &Name) -> Result<Version, GetError> {
        if let Some(supposed) = self.supposed.get(name) {
            return Ok(supposed.clone());
        }
        if let Some(done) = self.done.get(name) {
            return done.clone();
        }
        if self.depth > DEPTH_MAX || self.done.len() >= REACH_MAX {
            return Err(GetError::TooDeep);
        }
        let definition = self.definition(name)?;
        // What comes back here while it is being computed is computed from itself.
        self.done.insert(name.clone(), Err(GetError::Cycle));
        self.depth += 1;
        let version = match &definition.kind {
            Kind::Composite { dependencies, compute } => self.computed(dependencies, compute),
            _ => self.state.settled(&definition, &self.state.written(self.replica, &definition)),
        };
        self.depth -= 1;
        self.done.insert(name.clone(), version.clone());
        version
    }

    fn computed(&mut self, dependencies: &[Name], compute: &Compute) -> Result<Version, GetError> {
        let mut versions = Vec::with_capacity(dependencies.len());
        for name in dependencies {
            versions.push(self.version(name).map_err(|error| match error {
                GetError::NotFound => GetError::Dependency(name.clone()),
                other => other,
            })?);
        }
        let values: Vec<Value> = versions.iter().map(|version| version.value.clone()).collect();
        let newest = versions.iter().max_by_key(|version| version.stamp);
        Ok(Version {
            value: compute.value(&values, &self.state.functions)?,
            version: versions.iter().fold(0, |sum: u64, version| sum.saturating_add(version.version)),
            by: newest.and_then(|version| version.by.clone()),
            stamp: newest.and_then(|version| version.stamp),
            score: None,
            concurrent: 0,
        })
    }

    /// The rules that speak of one of the variables, are not kept, and are not for each variable to keep alone. A function that
    /// is not there is an error.
    pub(super) fn broken(&mut self, variables: &BTreeSet<Name>) -> Result<Vec<Broken>, Name> {
        let mut keepers: BTreeSet<Name> = variables.clone();
        keepers.extend(variables.iter().flat_map(|name| self.state.speakers(name)).map(|(by, _)| by.clone()));
        let mut broken = Vec::new();
        for keeper in keepers {
            let Ok(definition) = self.definition(&keeper) else { continue };
            for (index, rule) in definition.rules().enumerate() {
                // Values that were set were checked by themselves; those of composites only here.
                let is_kept = rule.is_about(&keeper) && definition.kind.dependencies().is_empty();
                if is_kept || !is_about_any(&rule, variables) {
                    continue;
                }
                match rule.judge(&self.state.functions, &mut |name| self.version(name).ok().map(|version| version.value)) {
                    Verdict::Holds | Verdict::Unbound => {}
                    Verdict::Broken => broken.push(Broken { variable: keeper.clone(), index }),
                    Verdict::NoFunction(name) => return Err(name),
                }
            }
        }
        Ok(broken)
    }
}

fn is_about_any(rule: &Constraint, variables: &BTreeSet<Name>) -> bool {
    rule.mentions().into_iter().any(|name| variables.contains(name))
}

impl Compute {
    /// The value that comes of the values of the dependencies.
    pub(super) fn value(&self, values: &[Value], functions: &Functions) -> Result<Value, GetError> {
        let numbers = || values.iter().map(Value::number).collect::<Option<Vec<f64>>>();
        let fold = |of: fn(&[f64]) -> f64| {
            let numbers = numbers().ok_or_else(|| GetError::NotComputable("a text is no number".to_owned()))?;
            Ok(Value::Float(of(&numbers)))
        };
        let value = match self {
            Compute::Sum => fold(|numbers| numbers.iter().sum()),
            Compute::Product => fold(|numbers| numbers.iter().product()),
            Compute::Mean => fold(|numbers| numbers.iter().sum::<f64>() / numbers.len() as f64),
            Compute::Min => fold(|numbers| numbers.iter().copied().fold(f64::INFINITY, f64::min)),
            Compute::Max => fold(|numbers| numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
            Compute::Function(name) => match functions.computed(name, values) {
                Some(value) => value.map_err(GetError::NotComputable),
                None => Err(GetError::NoFunction(name.clone())),
            },
        }?;
        if value.is_sound() { Ok(value) } else { Err(GetError::NotComputable("it is no value that a variable can hold".to_owned())) }
    }
}
