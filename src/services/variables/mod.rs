//! Variables that agents read, propose changes to and adapt together: typed, constrained, replicated, with a policy for concurrent writes.
//!
//! A variable is a [`Definition`] under `@variables/def/<name>` and its writes under `@variables/val/<name>`, or both in this node alone
//! when its scope is local. What a reader sees is a pure function of the definition and of the concurrent writes that the replica holds, so
//! nodes that have heard the same show the same. Sources: the conflict policies are joins in the sense of Shapiro, Preguiça, Baquero and
//! Zawirski, "Conflict-free Replicated Data Types" (SSS 2011), over the siblings of a multi-value register; the stratified samples of a
//! [`Space`] follow McKay, Beckman and Conover, "A Comparison of Three Methods for Selecting Values of Input Variables" (Technometrics, 1979).
//!
//! Decisions:
//!
//! 1. Every node judges every write by what all nodes know alike: the kind, the access, the constraints about the variable alone. What fails is
//!    hidden, counted and reported, and the last version that was seen here stays; a node that saw none shows the default.
//! 2. Constraints over several variables bind writes, not arrivals: writes that are each valid where they were made can break one together, and hiding
//!    one of them would depend on the order of arrival. What is broken is reported as [`Event::Violated`].
//! 3. Composites are computed when they are read. Cycles are refused at registration; one that two nodes made together has no value.
//! 4. The version is for people and for `expected`; stamps order writes, so a writer that lies about the version wins nothing.
//! 5. Registering is not idempotent, but concurrent registrations of one name are: the newest definition stands, and values under it are judged anew.
//!
//! Invariants: no reading verb shows a value that its definition refuses; an event of a version is given once; the composites of a change follow it.
//!
//! What a peer can make it store: [`limits::VARIABLES_MAX`] followed variables with [`limits::HISTORY_LEN_MAX`] versions each, and an index of
//! who speaks of whom within [`limits::MENTIONS_MAX`] names per variable. The rest is in the replica, which has bounds of its own.
//!
//! Who talks to it: the node, which makes the writes that verbs return, and tells of each changed key under [`SPACE`] with
//! [`State::on_changed`]. A node that begins with a replica that holds something already tells of all of it once.

mod change;
mod constraint;
mod definition;
mod error;
mod function;
mod kind;
pub mod limits;
mod policy;
mod record;
mod space;
#[cfg(test)]
mod tests;
mod value;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use meshwork_channels::{Now, PeerId};
use meshwork_crdt::hlc::Clock;
use meshwork_crdt::{Stamp, replica};

pub use change::{Counters, Event};
pub use constraint::{Condition, Constraint, Relation, Term};
pub use definition::{Access, Consistency, Definition, DefinitionError, Fault, Merge, Order, Policy, Scope};
pub use error::{Broken, DeleteError, GetError, Refusal, RegisterError, UpdateError};
pub use function::Functions;
pub use kind::{Choice, Compatibility, Compute, Kind, Module, ValueError};
use limits::{AFFECTED_MAX, DEFINITION_BYTES_MAX, HISTORY_LEN_DEFAULT, REACH_MAX, VARIABLES_MAX, VERSION_MAX};
use policy::{Candidate, is_better, resolve};
pub use record::SPACE;
use record::{DEFINITIONS, Record, definition_key, seal, value_key};
pub use space::{Assignment, Dimensions, DrawError, Invalid, Space, SpaceError};
pub use value::{Author, Name, NameError, Value, Version};
use view::{Evaluation, Written, definition_in, replicated, written};

use super::Write;

/// A write that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The value.
    pub value: Value,
    /// The version that the variable must have; `None` for any.
    pub expected: Option<u64>,
    /// How good the value was found to be; [`Policy::Best`] needs it.
    pub score: Option<f64>,
    /// The agent that asks.
    pub agent: Option<Name>,
}

impl<T: Into<Value>> From<T> for Update {
    fn from(value: T) -> Self {
        Update { value: value.into(), expected: None, score: None, agent: None }
    }
}

/// Which variables are meant; by default all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those whose names begin so.
    pub prefix: String,
    /// Those of this kind, as [`Kind::name`] gives it.
    pub kind: Option<&'static str>,
    /// Those of this scope.
    pub scope: Option<Scope>,
}

/// What happened to one variable since this node follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Versions that became visible.
    pub updates: u64,
    /// Times that concurrent writes met.
    pub conflicts: u64,
    /// Updates that were asked for here and refused.
    pub refused: u64,
    /// Writes of other nodes that are not shown.
    pub hidden: u64,
}

/// What is kept of a variable beside the replica.
#[derive(Clone, Debug, Default)]
struct Followed {
    /// The last valid definition as it was replicated: the same bytes that the replica holds, unless somebody wrote a wrong one over it.
    definition: Bytes,
    /// The visible versions, the newest last.
    history: VecDeque<Version>,
    /// The writes that are hidden now.
    hidden: Vec<(Stamp, PeerId)>,
    /// Why it has no value, if it has none.
    failed: Option<GetError>,
    statistics: Statistics,
}

#[derive(Clone, Debug)]
struct Local {
    definition: Definition,
    current: Option<Candidate>,
}

/// The service of one node.
#[derive(Clone, Debug)]
pub struct State {
    me: PeerId,
    functions: Functions,
    locals: BTreeMap<Name, Local>,
    /// Stamps the writes of local variables.
    clock: Clock,
    followed: BTreeMap<Name, Followed>,
    /// A variable, one whose definition speaks of it, and whether that is computed from it.
    mentions: BTreeMap<(Name, Name), bool>,
    counters: Counters,
}

impl State {
    /// The service of the node `me`, which knows no variable.
    pub fn new(me: PeerId) -> Self {
        State {
            me,
            functions: Functions::default(),
            locals: BTreeMap::new(),
            clock: Clock::new(),
            followed: BTreeMap::new(),
            mentions: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Where functions are registered: best before the variables that need them, because registering one gives no events.
    pub fn functions_mut(&mut self) -> &mut Functions {
        &mut self.functions
    }

    /// Registers a variable. One of local scope is there at once, with its event; another once the writes are made.
    ///
    /// # Errors
    ///
    /// A [`RegisterError`]; nothing was changed.
    pub fn register(
        &mut self,
        replica: &replica::State,
        definition: Definition,
        events: &mut Vec<Event>,
    ) -> Result<Vec<Write>, RegisterError> {
        definition.check().map_err(RegisterError::Invalid)?;
        let name = &definition.name;
        match self.defined(replica, name) {
            Ok(_) => return Err(RegisterError::AlreadyRegistered),
            Err(GetError::OtherFormat(format)) => return Err(RegisterError::OtherFormat(format)),
            Err(_) if self.followed.len().max(replica.iter(DEFINITIONS).count() + self.locals.len()) >= VARIABLES_MAX => {
                return Err(RegisterError::TooMany);
            }
            Err(_) => {}
        }
        let invalid = |field, why| Err(RegisterError::Invalid(DefinitionError { field, why }));
        let bytes = seal(&definition);
        if bytes.len() > DEFINITION_BYTES_MAX {
            return invalid("definition", Fault::TooLong { len: bytes.len(), len_max: DEFINITION_BYTES_MAX });
        }
        if definition.scope != Scope::Local
            && let Some(local) = definition.kind.dependencies().iter().find(|name| self.locals.contains_key(*name))
        {
            return invalid("kind.dependencies", Fault::LocalDependency(local.clone()));
        }
        if let Some(through) = definition.kind.dependencies().iter().find(|from| self.leads_to(replica, from, name)) {
            return Err(RegisterError::Cycle { through: through.clone() });
        }
        let mut evaluation = Evaluation::new(self, replica).propose(&definition);
        if let Some(default) = &definition.default {
            evaluation = evaluation.suppose(name, default.clone());
        }
        let broken = evaluation.broken(&BTreeSet::from([name.clone()])).map_err(RegisterError::NoFunction)?;
        if let Some(broken) = broken.into_iter().next() {
            return Err(RegisterError::Constraint(broken));
        }
        if definition.scope != Scope::Local {
            return Ok(vec![Write::set(definition_key(name), bytes)]);
        }
        let name = name.clone();
        self.locals.insert(name.clone(), Local { definition, current: None });
        self.follow(&name, Bytes::new(), replica, events);
        Ok(Vec::new())
    }

    /// The visible version of a variable.
    ///
    /// # Errors
    ///
    /// A [`GetError`] when there is nothing to show.
    pub fn get(&self, replica: &replica::State, name: &str) -> Result<Version, GetError> {
        let name = Name::try_from(name).map_err(|_| GetError::NotFound)?;
        Evaluation::new(self, replica).version(&name)
    }

    /// The definition of a variable.
    ///
    /// # Errors
    ///
    /// [`GetError::NotFound`] or [`GetError::OtherFormat`].
    pub fn definition(&self, replica: &replica::State, name: &str) -> Result<Definition, GetError> {
        self.defined(replica, &Name::try_from(name).map_err(|_| GetError::NotFound)?)
    }

    /// The variables that a filter lets through, in the order of their names, each as [`State::get`] shows it. Those of another format are listed
    /// unless the filter asks what cannot be known of them.
    pub fn list(&self, replica: &replica::State, filter: &Filter) -> Vec<(Name, Result<Version, GetError>)> {
        let mut found = Vec::new();
        for name in self.names(replica, &filter.prefix) {
            let is_meant = match self.defined(replica, &name) {
                Ok(definition) => {
                    filter.kind.is_none_or(|kind| definition.kind.name() == kind)
                        && filter.scope.is_none_or(|scope| definition.scope == scope)
                }
                Err(GetError::OtherFormat(_)) => filter.kind.is_none() && filter.scope.is_none(),
                Err(_) => false,
            };
            if is_meant {
                let version = Evaluation::new(self, replica).version(&name);
                found.push((name, version));
            }
        }
        found
    }

    /// Updates a variable: the version that is written is one more than what this node saw. One of local scope has its value at once, with
    /// its events; another once the writes are made.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`]; nothing was changed but a count.
    pub fn update(
        &mut self,
        replica: &replica::State,
        name: &str,
        update: impl Into<Update>,
        now: Now,
        events: &mut Vec<Event>,
    ) -> Result<Vec<Write>, UpdateError> {
        let name = Name::try_from(name).map_err(|_| UpdateError::NotFound)?;
        let update = update.into();
        let version = match self.next_version(replica, &name, &update) {
            Ok(version) => version,
            Err(error) => {
                if let Some(followed) = self.followed.get_mut(&name) {
                    followed.statistics.refused += 1;
                }
                return Err(error);
            }
        };
        let Update { value, score, agent, .. } = update;
        if let Some(local) = self.locals.get_mut(&name) {
            let by = Author { node: self.me, agent };
            local.current = Some(Candidate { value, version, score, by, stamp: self.clock.tick(now.wall) });
            self.refresh(&name, replica, events);
            return Ok(Vec::new());
        }
        Ok(vec![Write::put(value_key(&name), seal(&Record { value, version, score, agent }))])
    }

    /// Deletes a variable and what was written of it. One of local scope is gone at once, with its event; another once the writes are made.
    ///
    /// # Errors
    ///
    /// A [`DeleteError`]; nothing was changed.
    pub fn delete(&mut self, replica: &replica::State, name: &str, events: &mut Vec<Event>) -> Result<Vec<Write>, DeleteError> {
        let name = Name::try_from(name).map_err(|_| DeleteError::NotFound)?;
        let definition = self.defined(replica, &name).map_err(|error| match error {
            GetError::OtherFormat(format) => DeleteError::OtherFormat(format),
            _ => DeleteError::NotFound,
        })?;
        if let Some((by, _)) = self.speakers(&name).find(|(_, is_computed)| *is_computed) {
            return Err(DeleteError::Needed { by: by.clone() });
        }
        if self.locals.remove(&name).is_some() {
            self.unfollow(&name, replica, events);
            return Ok(Vec::new());
        }
        let is_mine = replica.entry(&definition_key(&name)).is_some_and(|entry| entry.origin == self.me);
        if !is_mine && !definition.access.allows(self.me) {
            return Err(DeleteError::NotPermitted);
        }
        let key = value_key(&name);
        let value = replica.get(&key).is_some().then(|| Write::remove(key));
        Ok([Write::remove(definition_key(&name))].into_iter().chain(value).collect())
    }

    /// The versions that were visible here, the newest first: `len` of them, [`limits::HISTORY_LEN_DEFAULT`] without it and never more than
    /// [`limits::HISTORY_LEN_MAX`].
    pub fn history(&self, name: &str, len: Option<usize>) -> impl Iterator<Item = &Version> {
        let versions = self.followed.get(name).into_iter().flat_map(|followed| followed.history.iter().rev());
        versions.take(len.unwrap_or(HISTORY_LEN_DEFAULT))
    }

    /// What happened to a variable since this node follows it; `None` when it does not.
    pub fn statistics(&self, name: &str) -> Option<Statistics> {
        self.followed.get(name).map(|followed| followed.statistics)
    }

    /// What happened to all of them.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The variables that a filter lets through as a space, with the constraints of their definitions and the functions of this node.
    ///
    /// # Errors
    ///
    /// A [`SpaceError`], for instance when they are computed from each other in a cycle.
    pub fn space(&self, replica: &replica::State, filter: &Filter) -> Result<Space, SpaceError> {
        let mut space = Space::new(self.functions.clone());
        for (name, _) in self.list(replica, filter) {
            if let Ok(definition) = self.defined(replica, &name) {
                space.add(definition)?;
            }
        }
        Ok(space)
    }

    /// All that an update must pass; the version that it makes.
    fn next_version(&self, replica: &replica::State, name: &Name, update: &Update) -> Result<u64, UpdateError> {
        let unreadable = |error| match error {
            GetError::OtherFormat(format) => UpdateError::OtherFormat(format),
            _ => UpdateError::NotFound,
        };
        let definition = self.defined(replica, name).map_err(unreadable)?;
        if !definition.access.allows(self.me) {
            return Err(UpdateError::NotPermitted);
        }
        definition.check_value(&update.value).map_err(UpdateError::Value)?;
        let written = self.written(replica, &definition);
        let current = self.settled(&definition, &written).map_err(unreadable)?;
        if let Some(expected) = update.expected
            && expected != current.version
        {
            return Err(UpdateError::VersionMismatch { expected, actual: current.version });
        }
        if update.score.is_some_and(|score| !score.is_finite()) {
            return Err(UpdateError::ScoreMissing);
        }
        if let Policy::Best(order) = definition.policy {
            let score = update.score.ok_or(UpdateError::ScoreMissing)?;
            if let Some(best) = current.score.filter(|best| !is_better(order, score, *best)) {
                return Err(UpdateError::NotBetter { score, best });
            }
        }
        let affected = self.affected(name).into_iter().collect();
        let mut supposed = Evaluation::new(self, replica).suppose(name, update.value.clone());
        if let Some(broken) = supposed.broken(&affected).map_err(UpdateError::NoFunction)?.into_iter().next() {
            return Err(UpdateError::Constraint(broken));
        }
        match current.version.max(written.version) + 1 {
            version if version > VERSION_MAX => Err(UpdateError::VersionsSpent),
            version => Ok(version),
        }
    }

    /// The definition that holds for a name: a local one, else the replicated one, else the last one that was valid.
    fn defined(&self, replica: &replica::State, name: &Name) -> Result<Definition, GetError> {
        if let Some(local) = self.locals.get(name) {
            return Ok(local.definition.clone());
        }
        match replicated(replica, name).ok_or(GetError::NotFound)? {
            Ok(definition) => Ok(definition),
            Err(Refusal::OtherFormat(format)) => Err(GetError::OtherFormat(format)),
            Err(_) => {
                let last = self.followed.get(name).ok_or(GetError::NotFound)?;
                definition_in(&last.definition, name).map_err(|_| GetError::NotFound)
            }
        }
    }

    /// What is written of a variable: here when it is local, else in the replica.
    fn written(&self, replica: &replica::State, definition: &Definition) -> Written {
        match self.locals.get(&definition.name) {
            Some(local) => Written { valid: local.current.iter().cloned().collect(), ..Written::default() },
            None => written(replica, definition),
        }
    }

    /// The visible version of a variable that is not computed, by what is written of it.
    fn settled(&self, definition: &Definition, written: &Written) -> Result<Version, GetError> {
        let default = || Version {
            // A composite has no default, and is not asked for here.
            value: definition.default.clone().unwrap_or(Value::Integer(0)),
            version: 0,
            by: None,
            stamp: None,
            score: None,
            concurrent: 0,
        };
        for (_, _, refusal) in &written.refused {
            if let Refusal::OtherFormat(format) = refusal {
                return Err(GetError::OtherFormat(*format));
            }
        }
        let resolved = resolve(definition, &written.valid, &self.functions);
        // Nothing that is there is valid: the last version that was stays, if it still is.
        let last = || {
            let last = self.followed.get(&definition.name)?.history.back()?;
            (!written.refused.is_empty() && definition.check_value(&last.value).is_ok()).then(|| last.clone())
        };
        Ok(resolved.or_else(last).unwrap_or_else(default))
    }

    /// The names that begin so, local and replicated.
    fn names(&self, replica: &replica::State, prefix: &str) -> BTreeSet<Name> {
        let path = format!("{DEFINITIONS}{prefix}");
        let replicated = replica.iter(&path).filter_map(|(key, _)| Name::try_from(key.strip_prefix(DEFINITIONS)?).ok());
        let locals = self.locals.keys().filter(|name| name.starts_with(prefix)).cloned();
        replicated.chain(locals).collect()
    }

    /// The variables whose definitions speak of this one, and whether they are computed from it.
    fn speakers(&self, name: &Name) -> impl Iterator<Item = (&Name, bool)> {
        let of = self.mentions.range((name.clone(), Name::least())..);
        of.take_while(move |((mentioned, _), _)| mentioned == name).map(|((_, by), is_computed)| (by, *is_computed))
    }

    /// The variable, and the composites that are computed from it, each after what it was reached from.
    fn affected(&self, name: &Name) -> Vec<Name> {
        let mut affected = vec![name.clone()];
        let mut next = 0;
        while let Some(from) = affected.get(next).cloned() {
            next += 1;
            for (by, is_computed) in self.speakers(&from) {
                if is_computed && affected.len() <= AFFECTED_MAX && !affected.contains(by) {
                    affected.push(by.clone());
                }
            }
        }
        affected
    }

    /// Whether a variable is another or computed from it.
    fn leads_to(&self, replica: &replica::State, from: &Name, to: &Name) -> bool {
        let mut reached = vec![from.clone()];
        let mut next = 0;
        while let Some(name) = reached.get(next).cloned() {
            next += 1;
            if name == *to {
                return true;
            }
            let Ok(definition) = self.defined(replica, &name) else { continue };
            for dependency in definition.kind.dependencies() {
                if reached.len() < REACH_MAX && !reached.contains(dependency) {
                    reached.push(dependency.clone());
                }
            }
        }
        false
    }
}
