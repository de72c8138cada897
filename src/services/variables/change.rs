//! Reacting: what a changed key of the replica, or a local write, means to the application.

use std::collections::BTreeSet;

use bytes::Bytes;
use meshwork_channels::{Now, PeerId};
use meshwork_crdt::{Key, Stamp, replica};

use super::error::{Broken, GetError, Refusal};
use super::kind::Kind;
use super::limits::{HISTORY_LEN_MAX, VARIABLES_MAX};
use super::record::{DEFINITIONS, VALUES};
use super::value::{Author, Name, Value, Version};
use super::view::{Evaluation, definition_in};
use super::{Followed, State};

/// What the application is told. Events of one variable come in the order in which its versions became visible here.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A variable is there, or has another definition.
    Registered {
        /// Its name.
        name: Name,
    },
    /// A variable, or a composite after one of its dependencies, has another visible version. Each is told once; versions that were overwritten before
    /// they arrived are not.
    Updated {
        /// Its name.
        name: Name,
        /// What it held before; `None` for a composite that had no value.
        old: Option<Value>,
        /// What it holds.
        new: Value,
        /// The version, as [`Version::version`](super::Version::version).
        version: u64,
        /// Who wrote it; `None` when it went back to its default.
        by: Option<Author>,
    },
    /// A variable is gone.
    Deleted {
        /// Its name.
        name: Name,
    },
    /// Concurrent writes met; the update that came of it follows.
    Conflict {
        /// The variable.
        name: Name,
        /// How many writes are known to be concurrent; at least 2.
        writes: usize,
    },
    /// Something that another node wrote is not shown, or a composite has no value any more.
    Refused {
        /// The name of the variable, or the key if it is none of this service's.
        name: String,
        /// Why.
        why: Refusal,
    },
    /// A constraint over several variables does not hold after a change.
    Violated {
        /// The variable that changed.
        name: Name,
        /// The constraint.
        constraint: Broken,
    },
}

/// What happened to all variables of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Versions that became visible.
    pub updates: u64,
    /// Times that concurrent writes met.
    pub conflicts: u64,
    /// Definitions, writes and keys that are not shown.
    pub refused: u64,
    /// Changes after which a constraint over several variables did not hold; one count for each constraint.
    pub violations: u64,
}

impl State {
    /// Takes note of a key under [`SPACE`](super::SPACE) that changed in the replica; appends what that means.
    pub fn on_changed(&mut self, key: &Key, replica: &replica::State, _now: Now, events: &mut Vec<Event>) {
        let name_in = |prefix| key.strip_prefix(prefix).and_then(|name| Name::try_from(name).ok());
        if let Some(name) = name_in(DEFINITIONS) {
            self.on_definition(&name, key, replica, events);
        } else if let Some(name) = name_in(VALUES) {
            // A write can arrive before its definition, which then looks for it.
            if self.followed.contains_key(&name) && !self.locals.contains_key(&name) {
                self.refresh(&name, replica, events);
            }
        } else {
            self.refuse(key, Refusal::UnknownKey, events);
        }
    }

    fn on_definition(&mut self, name: &Name, key: &Key, replica: &replica::State, events: &mut Vec<Event>) {
        let bytes = replica.get(key);
        if self.locals.contains_key(name) {
            if bytes.is_some() {
                self.refuse(name, Refusal::Hidden, events);
            }
            return;
        }
        let Some(bytes) = bytes else { return self.unfollow(name, replica, events) };
        let known = self.followed.get(name);
        if known.is_some_and(|known| known.definition == *bytes) {
            return;
        }
        if let Err(refusal) = definition_in(bytes, name) {
            return self.refuse(name, refusal, events);
        }
        if known.is_none() && self.followed.len() >= VARIABLES_MAX {
            return self.refuse(name, Refusal::TooMany, events);
        }
        self.follow(name, bytes.clone(), replica, events);
    }

    /// Begins to follow a variable, or follows it by another definition.
    pub(super) fn follow(&mut self, name: &Name, definition: Bytes, replica: &replica::State, events: &mut Vec<Event>) {
        self.mentions.retain(|(_, by), _| by != name);
        if let Ok(defined) = self.defined(replica, name) {
            let is_computed = |mentioned: &Name| defined.kind.dependencies().contains(mentioned);
            let index = |mentioned: &Name| ((mentioned.clone(), name.clone()), is_computed(mentioned));
            self.mentions.extend(defined.mentions().into_iter().map(index));
            let followed = self.followed.entry(name.clone()).or_default();
            followed.definition = definition;
            if followed.history.is_empty()
                && let Some(value) = defined.default
            {
                followed.history.push_back(Version { value, version: 0, by: None, stamp: None, score: None, concurrent: 0 });
            }
        }
        events.push(Event::Registered { name: name.clone() });
        self.refresh(name, replica, events);
    }

    pub(super) fn unfollow(&mut self, name: &Name, replica: &replica::State, events: &mut Vec<Event>) {
        if self.followed.remove(name).is_none() {
            return;
        }
        events.push(Event::Deleted { name: name.clone() });
        self.mentions.retain(|(_, by), _| by != name);
        self.refresh(name, replica, events);
    }

    /// Looks at a variable and at the composites that are computed from it; appends what is new.
    pub(super) fn refresh(&mut self, name: &Name, replica: &replica::State, events: &mut Vec<Event>) {
        let mut own = None;
        if let Ok(definition) = self.defined(replica, name) {
            let written = self.written(replica, &definition);
            if !matches!(definition.kind, Kind::Composite { .. }) {
                own = Some(self.settled(&definition, &written));
            }
            self.refresh_hidden(name, written.refused, events);
        }
        let mut changed = BTreeSet::new();
        for affected in self.affected(name) {
            // The variable itself is the first.
            let version = own.take().unwrap_or_else(|| Evaluation::new(self, replica).version(&affected));
            if self.refresh_one(&affected, version, events) {
                changed.insert(affected);
            }
        }
        // A function that is not there was not asked for here: nobody on this node writes.
        let broken = if changed.is_empty() { Vec::new() } else { Evaluation::new(self, replica).broken(&changed).unwrap_or_default() };
        for constraint in broken {
            self.counters.violations += 1;
            events.push(Event::Violated { name: name.clone(), constraint });
        }
    }

    /// Reports the writes that are hidden and were not before.
    fn refresh_hidden(&mut self, name: &Name, refused: Vec<(Stamp, PeerId, Refusal)>, events: &mut Vec<Event>) {
        let Some(followed) = self.followed.get_mut(name) else { return };
        let hidden = refused.iter().map(|(stamp, origin, _)| (*stamp, *origin)).collect();
        let before = std::mem::replace(&mut followed.hidden, hidden);
        for (stamp, origin, refusal) in refused {
            if !before.contains(&(stamp, origin)) {
                if let Some(followed) = self.followed.get_mut(name) {
                    followed.statistics.hidden += 1;
                }
                self.refuse(name, refusal, events);
            }
        }
    }

    /// Whether the variable has another visible version than before.
    fn refresh_one(&mut self, name: &Name, version: Result<Version, GetError>, events: &mut Vec<Event>) -> bool {
        let Some(followed) = self.followed.get_mut(name) else { return false };
        let Followed { history, failed, statistics, .. } = followed;
        let version = match version {
            Ok(version) => version,
            Err(error) => {
                let is_news = failed.as_ref() != Some(&error);
                *failed = Some(error.clone());
                // What cannot be read was reported when it arrived.
                if is_news && !matches!(error, GetError::OtherFormat(_)) {
                    self.refuse(name, Refusal::NotComputed(error), events);
                }
                return false;
            }
        };
        let had_failed = failed.take().is_some();
        let old = history.back();
        if old == Some(&version) && !had_failed {
            return false;
        }
        // A register that keeps one write shows a conflict by a version that does not grow.
        let is_overtaken = version.concurrent == 1 && old.is_some_and(|old| old.stamp < version.stamp && version.version <= old.version);
        let writes = if is_overtaken { 2 } else { version.concurrent };
        if writes > 1 {
            statistics.conflicts += 1;
            self.counters.conflicts += 1;
            events.push(Event::Conflict { name: name.clone(), writes });
        }
        statistics.updates += 1;
        self.counters.updates += 1;
        events.push(Event::Updated {
            name: name.clone(),
            old: old.map(|old| old.value.clone()),
            new: version.value.clone(),
            version: version.version,
            by: version.by.clone(),
        });
        if history.len() == HISTORY_LEN_MAX {
            history.pop_front();
        }
        history.push_back(version);
        true
    }

    fn refuse(&mut self, name: &str, why: Refusal, events: &mut Vec<Event>) {
        tracing::debug!(name, ?why, "not shown");
        self.counters.refused += 1;
        events.push(Event::Refused { name: name.to_owned(), why });
    }
}
