//! What this node registered, and until when.
//!
//! It is kept here because it is the wish of this process and not what the replica holds of it: others remove it when this node was away for
//! too long, a hostile member may overwrite it, and the replica may still hold what an earlier life of this node registered. A pass that
//! runs when a difference was noticed writes the wish again, at most [`PASS_WRITES_MAX`] writes in [`PASS_PERIOD`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use meshwork_channels::{Now, PeerId};
use meshwork_crdt::{Key, replica};

use super::details::{Details, Health, Id, Invalid, Unreadable};
use super::limits::{AUDIT_PERIOD, BATCH_MAX, LEASES_MAX, OWN_MAX, PASS_PERIOD, PASS_WRITES_MAX};
use super::{State, Timer, Write};

/// Names a lease: what is registered under it stays until it ends. The runtime ends it when the task that owns it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(u64);

/// What to register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// As in [`Id`].
    pub namespace: String,
    /// As in [`Id`].
    pub name: String,
    /// As in [`Id`].
    pub instance: String,
    /// The rest.
    pub details: Details,
}

impl Registration {
    /// With details that say nothing.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, instance: impl Into<String>) -> Self {
        Registration { namespace: namespace.into(), name: name.into(), instance: instance.into(), details: Details::default() }
    }
}

/// What to change of an instance; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// All of its metadata from now on.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Its health.
    pub health: Option<Health>,
    /// Its weight.
    pub weight: Option<u16>,
}

/// Why nothing was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterError {
    /// The lease has ended.
    LeaseEnded,
    /// As many leases are open as may be.
    LeasesFull {
        /// The limit.
        len_max: usize,
    },
    /// This node has registered it already, or the batch names it twice.
    AlreadyRegistered(Id),
    /// A registration has something that it may not have.
    Invalid {
        /// Which of the batch, counted from 0; none when it was alone.
        index: Option<usize>,
        /// What.
        invalid: Invalid,
    },
    /// An earlier life of this node, with a newer version of this program, registered it. It is removed within [`PASS_PERIOD`].
    Version(Id),
    /// The batch has more registrations than it may have.
    BatchTooLarge {
        /// The limit.
        len_max: usize,
    },
    /// This node has as many instances as it may have.
    Full {
        /// The limit.
        len_max: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::LeasesFull { len_max } => write!(f, "at most {len_max} leases are open at once"),
            RegisterError::LeaseEnded => f.write_str("the lease has ended"),
            RegisterError::AlreadyRegistered(id) => write!(f, "{id} is registered already"),
            RegisterError::Invalid { index: Some(index), invalid } => write!(f, "registration {index}: {invalid}"),
            RegisterError::Invalid { index: None, invalid } => invalid.fmt(f),
            RegisterError::Version(id) => write!(f, "{id} was registered by a newer version of this node"),
            RegisterError::BatchTooLarge { len_max } => write!(f, "a batch has at most {len_max} registrations"),
            RegisterError::Full { len_max } => write!(f, "a node registers at most {len_max} instances"),
        }
    }
}

impl std::error::Error for RegisterError {}

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// This node has not registered it.
    NotRegistered,
    /// The change has something that it may not have.
    Invalid(Invalid),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpdateError::NotRegistered => f.write_str("this node has not registered it"),
            UpdateError::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for UpdateError {}

#[derive(Clone, Debug)]
struct Owned {
    lease: LeaseId,
    details: Details,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    instances: BTreeMap<Key, Owned>,
    leases: BTreeSet<LeaseId>,
    leases_opened: u64,
    /// Keys under the name of this node of which the replica holds something else than is wished.
    differing: BTreeSet<Key>,
}

impl Own {
    fn differs(&self, key: &Key, replica: &replica::State, me: PeerId) -> bool {
        let wish = self.instances.get(key).map(|owned| owned.details.to_value());
        match (wish, replica.entry(key)) {
            (None, None) => false,
            (Some(Ok(wish)), Some(held)) => held.origin != me || *held.value != wish,
            _ => true,
        }
    }
}

impl State {
    /// Opens a lease.
    ///
    /// # Errors
    ///
    /// [`RegisterError::LeasesFull`]; nothing was changed.
    pub fn open_lease(&mut self) -> Result<LeaseId, RegisterError> {
        if self.own.leases.len() >= LEASES_MAX {
            return Err(RegisterError::LeasesFull { len_max: LEASES_MAX });
        }
        let lease = LeaseId(self.own.leases_opened);
        self.own.leases_opened += 1;
        self.own.leases.insert(lease);
        Ok(lease)
    }

    /// Ends a lease and unregisters everything under it. One that has ended already: nothing.
    pub fn end_lease(&mut self, lease: LeaseId) -> Vec<Write> {
        self.own.leases.remove(&lease);
        let ended: Vec<Key> = self.own.instances.iter().filter(|(_, owned)| owned.lease == lease).map(|(key, _)| key.clone()).collect();
        ended.into_iter().map(|key| self.let_go(key)).collect()
    }

    /// Registers an instance of this node.
    ///
    /// # Errors
    ///
    /// A [`RegisterError`]; nothing was changed.
    pub fn register(
        &mut self,
        lease: LeaseId,
        registration: Registration,
        replica: &replica::State,
        now: Now,
    ) -> Result<Vec<Write>, RegisterError> {
        self.register_all(lease, vec![registration], replica, now)
    }

    /// Registers several instances of this node, all or none.
    ///
    /// # Errors
    ///
    /// A [`RegisterError`]; nothing was changed.
    pub fn register_all(
        &mut self,
        lease: LeaseId,
        registrations: Vec<Registration>,
        replica: &replica::State,
        now: Now,
    ) -> Result<Vec<Write>, RegisterError> {
        if !self.own.leases.contains(&lease) {
            return Err(RegisterError::LeaseEnded);
        }
        if registrations.len() > BATCH_MAX {
            return Err(RegisterError::BatchTooLarge { len_max: BATCH_MAX });
        }
        if self.own.instances.len() + registrations.len() > OWN_MAX {
            return Err(RegisterError::Full { len_max: OWN_MAX });
        }
        let is_batch = registrations.len() > 1;
        let mut owned = BTreeMap::new();
        let mut writes = Vec::with_capacity(registrations.len());
        for (index, Registration { namespace, name, instance, mut details }) in registrations.into_iter().enumerate() {
            let id = Id { namespace, name, node: self.me, instance };
            let invalid = |invalid| RegisterError::Invalid { index: is_batch.then_some(index), invalid };
            let key = id.key().map_err(invalid)?;
            if details.zone.is_none() {
                details.zone.clone_from(&self.config.zone);
            }
            let value = details.to_value().map_err(invalid)?;
            if self.own.instances.contains_key(&key) || owned.contains_key(&key) {
                return Err(RegisterError::AlreadyRegistered(id));
            }
            let held = replica.get(&key).map(|value| Details::from_value(value));
            if let Some(Err(Unreadable::Version(_))) = held {
                return Err(RegisterError::Version(id));
            }
            owned.insert(key.clone(), Owned { lease, details });
            writes.push(Write::set(key, value));
        }
        self.own.instances.extend(owned);
        self.timers.set_if_absent(Timer::Audit, now.time + AUDIT_PERIOD);
        Ok(writes)
    }

    /// Changes an instance of this node. No write when that changes nothing.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`]; nothing was changed.
    pub fn update(&mut self, id: &Id, update: Update) -> Result<Vec<Write>, UpdateError> {
        let (key, owned) = self.owned(id)?;
        let mut details = owned.details.clone();
        let Update { metadata, health, weight } = update;
        details.metadata = metadata.unwrap_or(details.metadata);
        details.health = health.unwrap_or(details.health);
        details.weight = weight.unwrap_or(details.weight);
        let value = details.to_value().map_err(UpdateError::Invalid)?;
        if details == owned.details {
            return Ok(Vec::new());
        }
        owned.details = details;
        Ok(vec![Write::set(key, value)])
    }

    /// Unregisters an instance of this node.
    ///
    /// # Errors
    ///
    /// [`UpdateError::NotRegistered`]; nothing was changed.
    pub fn unregister(&mut self, id: &Id) -> Result<Vec<Write>, UpdateError> {
        let (key, _) = self.owned(id)?;
        Ok(vec![self.let_go(key)])
    }

    /// The replica refused these writes, which a verb of this service asked for: what it holds is what this node wishes from now on.
    /// An instance that was let go of and is still there is removed by a later pass.
    pub fn refused(&mut self, writes: &[Write], replica: &replica::State, now: Now) {
        for Write { key, .. } in writes {
            let held = replica.entry(key).filter(|entry| entry.origin == self.me).map(|entry| Details::from_value(entry.value));
            match (self.own.instances.get_mut(key), held) {
                (Some(owned), Some(Ok(details))) => owned.details = details,
                _ => drop(self.let_go(key.clone())),
            }
            self.on_own_changed(key, replica, now);
        }
    }

    /// How many instances this node has registered.
    pub fn own_len(&self) -> usize {
        self.own.instances.len()
    }

    /// The key and the record of an instance of this node.
    fn owned(&mut self, id: &Id) -> Result<(Key, &mut Owned), UpdateError> {
        let key = id.key().map_err(|_| UpdateError::NotRegistered)?;
        let owned = self.own.instances.get_mut(&key).ok_or(UpdateError::NotRegistered)?;
        Ok((key, owned))
    }

    fn let_go(&mut self, key: Key) -> Write {
        self.own.instances.remove(&key);
        Write::remove(key)
    }

    /// An entry under the name of this node changed.
    pub(super) fn on_own_changed(&mut self, key: &Key, replica: &replica::State, now: Now) {
        if self.own.differs(key, replica, self.me) {
            self.own.differing.insert(key.clone());
            self.timers.set_if_absent(Timer::Reassert, now.time + PASS_PERIOD);
        }
    }

    pub(super) fn on_audit_due(&mut self, replica: &replica::State, now: Now) {
        let keys: Vec<Key> = self.own.instances.keys().cloned().collect();
        for key in &keys {
            self.on_own_changed(key, replica, now);
        }
        if !keys.is_empty() {
            self.timers.set(Timer::Audit, now.time + AUDIT_PERIOD);
        }
    }

    pub(super) fn on_reassert_due(&mut self, replica: &replica::State, now: Now, writes: &mut Vec<Write>) {
        let mut room = PASS_WRITES_MAX;
        let mut differing = std::mem::take(&mut self.own.differing);
        differing.retain(|key| {
            if room == 0 {
                return true;
            }
            if !self.own.differs(key, replica, self.me) {
                return false;
            }
            let value = self.own.instances.get(key).and_then(|owned| owned.details.to_value().ok());
            tracing::debug!(%key, is_registered = value.is_some(), "written again, because others changed it");
            self.counters.reasserted += 1;
            writes.push(match value {
                Some(value) => Write::set(key.clone(), value),
                None => Write::remove(key.clone()),
            });
            room -= 1;
            // It stays until it is found as it should be, because the replica may refuse the write.
            true
        });
        self.own.differing = differing;
        if !self.own.differing.is_empty() {
            self.timers.set(Timer::Reassert, now.time + PASS_PERIOD);
        }
    }
}
