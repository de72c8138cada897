//! The registry: who in the cluster offers which service, and which of them to use.
//!
//! A node registers instances of services under a lease, and every node finds them by name, capability and more in its own replica, without
//! asking anybody. An instance is visible as long as its node is a member: that needs no heartbeat, and a node that is cut off and returns
//! costs no write. [`Balancer`] picks one of several.
//!
//! Sources: Phoenix.Tracker for what becomes of the entries of nodes that go away (`members`), nginx for weighted picks (`balance`), Nygard's
//! circuit breaker for marks of failing instances (`health`).
//!
//! Invariants: folding the events, in order, gives exactly what [`State::find`] shows; the index is what a pass over the replica makes of it;
//! an instance is only ever what its own node wrote.
//!
//! What a peer can make this store: for each entry under [`PREFIX`] that the replica took, and so within the bounds of the replica, a record in the
//! index and one for each of at most [`limits::CAPABILITIES_MAX`] capabilities; for each node that entries name, a standing. What it can make
//! this do: [`limits::PASS_WRITES_MAX`] writes in [`limits::PASS_PERIOD`], by overwriting what is ours. Entries that are not what they should be
//! are counted, told once, and never shown.
//!
//! Known limits: entries carry no signature, so a member can hide what another one registered, for about [`limits::PASS_PERIOD`], each time that
//! it overwrites or removes it. An equal value under another writer changes nothing of which the replica tells; then the instance is not found
//! until its node audits what it registered, and no event tells of that.
//!
//! Who talks to it: the node, which makes the writes, tells of every changed entry and of members, and calls
//! [`State::deadline_reached`]; the runtime, which ends leases.
//!
//! ```
//! use meshwork::channels::{Now, PeerId};
//! use meshwork::crdt::{config, replica};
//! use meshwork::services::registry::{self, Balancer, Event, Policy, Query, Registration};
//!
//! let (me, now) = (PeerId::from_bytes([1; 32]), Now::default());
//! let mut replica = replica::State::new(me, config::Config::default().build()?, 1);
//! let mut registry = registry::State::new(me, registry::Config::default().build()?);
//!
//! let lease = registry.open_lease()?;
//! let mut registration = Registration::new("shop", "payments", "a");
//! registration.details.capabilities.insert("refund".into());
//! let writes = registry.register(lease, registration, &replica, now)?;
//!
//! // What the node does with them.
//! let (mut actions, mut events) = (Vec::new(), Vec::new());
//! for write in writes {
//!     replica.apply(&write.key, write.op, now, &mut actions)?;
//!     registry.on_changed(&write.key, &replica, now, &mut events);
//! }
//! assert!(matches!(&events[..], [Event::Registered(instance)] if instance.id.name == "payments"));
//!
//! let query = Query::new().namespace("shop").capability("refund");
//! assert_eq!(registry.find(&replica, &query).len(), 1);
//! let mut balancer = Balancer::new(Policy::RoundRobin);
//! assert_eq!(registry.pick(&replica, &query, &mut balancer, &[], now)?.id.instance, "a");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod limits;

mod balance;
mod config;
mod details;
mod health;
mod index;
mod members;
mod own;
mod query;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use meshwork_channels::{Now, PeerId, Time, Timers};
use meshwork_crdt::{Key, replica};

pub use self::balance::{Balancer, Candidate, Policy};
pub use self::config::{Config, Params};
use self::details::Parts;
pub use self::details::{Details, Health, Id, Invalid, Unreadable};
use self::health::Mark;
use self::index::{Index, Known, Told, fingerprint};
use self::members::Standing;
use self::own::Own;
pub use self::own::{LeaseId, RegisterError, Registration, Update, UpdateError};
pub use self::query::Query;
use super::Write;

/// What the keys of this service begin with.
pub const PREFIX: &str = "@registry/";

/// One that offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub id: Id,
    /// What its node says of it.
    pub details: Details,
    /// Its health as it looks from here: what its node says, unless callers on this node met too many failures in a row.
    pub health: Health,
}

/// What the application is told. The first five are about what can be found: an instance is there after `Registered` and `Shown`, and is not after
/// `Unregistered` and `Hidden`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is there for the first time, or again after it was unregistered.
    Registered(Instance),
    /// Its details changed.
    Updated(Instance),
    /// It is gone for good.
    Unregistered(Id),
    /// Its node is away.
    Hidden(Id),
    /// Its node is back. Its details may have changed meanwhile.
    Shown(Instance),
    /// An entry was written that is no instance and is not shown.
    Rejected {
        /// Its key.
        key: Key,
        /// Who wrote it, as far as the replica knows.
        origin: PeerId,
        /// What it is instead.
        reason: Unreadable,
    },
}

/// Why an instance cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetError {
    /// There is none.
    NotFound,
    /// Its node is away.
    Hidden,
    /// What is there is no instance.
    Unreadable(Unreadable),
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GetError::NotFound => f.write_str("no such instance is registered"),
            GetError::Hidden => f.write_str("the node of the instance is away"),
            GetError::Unreadable(reason) => reason.fmt(f),
        }
    }
}

impl std::error::Error for GetError {}

/// Why no instance was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// None matches.
    NotFound,
    /// Those that match are unhealthy, or were tried already.
    NoneUsable,
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PickError::NotFound => "no instance matches",
            PickError::NoneUsable => "every instance that matches is unhealthy or was tried already",
        })
    }
}

impl std::error::Error for PickError {}

/// What the registry did so far. Entries are counted as often as they changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries that another node wrote than the one that their keys name.
    pub forged: u64,
    /// Entries whose keys belong to no instance.
    pub keys_malformed: u64,
    /// Entries whose values are invalid.
    pub invalid: u64,
    /// Entries of a newer version.
    pub newer: u64,
    /// Writes that undid what others did to what is ours, and that removed what an earlier life of this node left.
    pub reasserted: u64,
    /// Removals of what dead nodes left.
    pub purged: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// What a suspected node registered is to be hidden.
    Hide(PeerId),
    /// What dead nodes left may be removed.
    Purge,
    /// What others took away here is to be written again.
    Reassert,
    /// What is ours is to be compared with the replica.
    Audit,
}

/// The registry of one node.
#[derive(Clone, Debug)]
pub struct State {
    me: PeerId,
    config: Config,
    index: Index,
    members: BTreeMap<PeerId, Standing>,
    own: Own,
    marks: BTreeMap<Key, Mark>,
    timers: Timers<Timer>,
    counters: Counters,
}

impl State {
    /// The registry of the node `me`. Where the replica is not empty, [`State::on_changed`] is told of all that it holds.
    pub fn new(me: PeerId, params: Params) -> Self {
        State {
            me,
            config: params.0,
            index: Index::default(),
            members: BTreeMap::new(),
            own: Own::default(),
            marks: BTreeMap::new(),
            timers: Timers::new(),
            counters: Counters::default(),
        }
    }

    /// The entry of a key that begins with [`PREFIX`] changed, by a write here or elsewhere. Being told twice of one change, or late, does no harm.
    pub fn on_changed(&mut self, key: &Key, replica: &replica::State, now: Now, events: &mut Vec<Event>) {
        let entry = replica.entry(key);
        let Some(parts) = Parts::of(key) else {
            if let Some(entry) = entry {
                self.counters.keys_malformed += 1;
                events.push(Event::Rejected { key: key.clone(), origin: entry.origin, reason: Unreadable::Key });
            }
            return;
        };
        if parts.node == self.me {
            self.on_own_changed(key, replica, now);
        }
        let fingerprint = entry.as_ref().map(fingerprint);
        if self.index.get(key).map(|known| known.fingerprint) == fingerprint {
            return;
        }
        let told = self.index.remove(key, &parts).map_or(Told::Nothing, |known| known.told);
        let read = self.read(key, replica);
        if !matches!(read, Some(Ok(_))) {
            self.marks.remove(key);
            if told != Told::Nothing {
                events.push(Event::Unregistered(parts.id()));
            }
        }
        if let (Some(entry), Some(fingerprint), Some(read)) = (entry, fingerprint, read) {
            let known = match read {
                Ok(instance) => {
                    let capabilities = instance.details.capabilities.iter().map(|capability| self.index.shared(capability)).collect();
                    let told = self.tell(instance, told, events);
                    Known { fingerprint, capabilities: Some(capabilities), told }
                }
                Err(reason) => {
                    self.reject(key, entry.origin, reason, events);
                    Known { fingerprint, capabilities: None, told: Told::Nothing }
                }
            };
            self.index.insert(key.clone(), &parts, known);
        }
        self.note_member(parts.node, now);
    }

    /// When [`State::deadline_reached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// The moment of [`State::next_deadline`] has come. The writes that it returns stand each for itself: what is not made now is asked for again.
    pub fn deadline_reached(&mut self, replica: &replica::State, now: Now, events: &mut Vec<Event>) -> Vec<Write> {
        let mut writes = Vec::new();
        while let Some((_, timer)) = self.timers.pop_due(now.time) {
            match timer {
                Timer::Hide(peer) => self.on_hide_due(peer, now, events),
                Timer::Purge => self.on_purge_due(now, &mut writes),
                Timer::Reassert => self.on_reassert_due(replica, now, &mut writes),
                Timer::Audit => self.on_audit_due(replica, now),
            }
        }
        writes
    }

    /// One instance.
    ///
    /// # Errors
    ///
    /// A [`GetError`].
    pub fn get(&self, replica: &replica::State, id: &Id) -> Result<Instance, GetError> {
        let key = id.key().map_err(|_| GetError::NotFound)?;
        match self.read(&key, replica) {
            None => Err(GetError::NotFound),
            Some(Err(reason)) => Err(GetError::Unreadable(reason)),
            Some(Ok(_)) if !self.is_visible(id.node) => Err(GetError::Hidden),
            Some(Ok(instance)) => Ok(instance),
        }
    }

    /// The instances of a service, in the order of their keys.
    pub fn lookup(&self, replica: &replica::State, namespace: &str, name: &str) -> Vec<Instance> {
        self.find(replica, &Query::new().namespace(namespace).name(name))
    }

    /// The instances of a namespace, in the order of their keys.
    pub fn list(&self, replica: &replica::State, namespace: &str) -> Vec<Instance> {
        self.find(replica, &Query::new().namespace(namespace))
    }

    /// The instances that match, in the order of their keys.
    pub fn find(&self, replica: &replica::State, query: &Query) -> Vec<Instance> {
        let mut found: Vec<Instance> = self.matching(replica, query).map(|(_, instance)| instance).collect();
        found.retain(|instance| query.health.is_none_or(|health| health == instance.health));
        if found.iter().any(|instance| query.is_near(&instance.details)) {
            found.retain(|instance| query.is_near(&instance.details));
        }
        found
    }

    /// One of the instances that match, for a request. Those of `tried` have failed for this request already. One that was unhealthy here goes first when
    /// it is time to try it again; the caller says with [`State::report_success`] or [`State::report_failure`] what became of it.
    ///
    /// # Errors
    ///
    /// A [`PickError`].
    pub fn pick(
        &mut self,
        replica: &replica::State,
        query: &Query,
        balancer: &mut Balancer,
        tried: &[Id],
        now: Now,
    ) -> Result<Instance, PickError> {
        let mut found: Vec<(Key, Instance)> = self.matching(replica, query).collect();
        for (key, instance) in &mut found {
            if self.is_trial_due(key, now.time) {
                instance.health = instance.details.health;
            }
        }
        found.retain(|(_, instance)| query.health.is_none_or(|health| health == instance.health));
        if found.is_empty() {
            return Err(PickError::NotFound);
        }
        let is_usable = |instance: &Instance| instance.health != Health::Unhealthy && !tried.contains(&instance.id);
        // A zone in which nobody can be used is as good as an empty one.
        let has_near = found.iter().any(|(_, instance)| query.is_near(&instance.details) && is_usable(instance));
        let is_candidate = |instance: &Instance| is_usable(instance) && (!has_near || query.is_near(&instance.details));
        let trial = found.iter().position(|(key, instance)| is_candidate(instance) && self.is_trial_due(key, now.time));
        let candidate = |(key, instance): &(Key, Instance)| Candidate {
            key: key.clone(),
            weight: instance.details.weight,
            health: instance.health,
            latency: self.latency(key, now.time),
            is_excluded: !is_candidate(instance),
        };
        let pick = || balancer.pick(&found.iter().map(candidate).collect::<Vec<_>>());
        let index = trial.or_else(pick).ok_or(PickError::NoneUsable)?;
        let (key, instance) = found.swap_remove(index);
        if trial.is_some() {
            self.begin_trial(&key, now.time);
        }
        Ok(instance)
    }

    /// The zone of this node.
    pub fn zone(&self) -> Option<&str> {
        self.config.zone.as_deref()
    }

    /// Entries that are known here, hidden and unreadable ones included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no entry is known here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the registry did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Visible instances that match in everything but health and zone.
    fn matching<'a>(&'a self, replica: &'a replica::State, query: &'a Query) -> impl Iterator<Item = (Key, Instance)> + 'a {
        let Query { namespace, name, node, capabilities, .. } = query;
        self.index.candidates(namespace.as_deref(), name.as_deref(), *node, capabilities).filter_map(|key| {
            let instance = self.read(key, replica)?.ok()?;
            let is_found = self.is_visible(instance.id.node) && query.matches(&instance.id, &instance.details);
            is_found.then(|| (key.clone(), instance))
        })
    }

    /// What the replica holds under a key. The only place that trusts an entry.
    fn read(&self, key: &Key, replica: &replica::State) -> Option<Result<Instance, Unreadable>> {
        let entry = replica.entry(key)?;
        let Some(parts) = Parts::of(key) else { return Some(Err(Unreadable::Key)) };
        if entry.origin != parts.node {
            return Some(Err(Unreadable::Forged));
        }
        Some(Details::from_value(entry.value).map(|details| {
            let health = self.health_here(key, details.health);
            Instance { id: parts.id(), details, health }
        }))
    }

    /// Tells of an instance that is new or has changed.
    fn tell(&self, instance: Instance, told: Told, events: &mut Vec<Event>) -> Told {
        if !self.is_visible(instance.id.node) {
            return told;
        }
        events.push(match told {
            Told::Nothing => Event::Registered(instance),
            Told::Shown => Event::Updated(instance),
            Told::Hidden => Event::Shown(instance),
        });
        Told::Shown
    }

    fn reject(&mut self, key: &Key, origin: PeerId, reason: Unreadable, events: &mut Vec<Event>) {
        let counter = match reason {
            Unreadable::Key => &mut self.counters.keys_malformed,
            Unreadable::Forged => &mut self.counters.forged,
            Unreadable::Version(_) => &mut self.counters.newer,
            Unreadable::Invalid(_) => &mut self.counters.invalid,
        };
        *counter += 1;
        tracing::debug!(%key, ?origin, %reason, "entry is no instance");
        events.push(Event::Rejected { key: key.clone(), origin, reason });
    }
}
