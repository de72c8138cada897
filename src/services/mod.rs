//! What people use of the replicated state under names of its own: each service is a pure core over the replica.
//!
//! A service keeps no copy of what is replicated. Its reading verbs look into the replica; its writing verbs look into it too and return the
//! [`Write`]s that they want, which the node makes together or not at all; and of every entry that changed, by a write here or elsewhere, the
//! service is told, so that it can tell the application what that means.

pub mod config;
pub mod registry;
pub mod variables;

use std::fmt;

use bytes::Bytes;
use meshwork_channels::{Now, PeerId, Time};
use meshwork_crdt::replica::{self, SetError};
use meshwork_crdt::{Key, Op};
use meshwork_overlay::swim;
use serde::{Deserialize, Serialize};

/// A write that a service wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key. It begins with the name of the space of the service, such as `@config/`, which applications cannot write to by themselves.
    pub key: Key,
    /// What to do to it.
    pub op: Op,
}

impl Write {
    /// A register in which the last writer wins.
    pub(crate) fn set(key: Key, value: impl Into<Bytes>) -> Self {
        Write { key, op: Op::Set(value.into()) }
    }

    /// A register that keeps what is written at the same time.
    pub(crate) fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Write { key, op: Op::Put(value.into()) }
    }

    /// The end of a key.
    pub(crate) fn remove(key: Key) -> Self {
        Write { key, op: Op::Remove }
    }
}

/// What people may set about the services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Of the config.
    pub config: config::Config,
    /// Of the registry.
    pub registry: registry::Config,
}

/// Checked parameters of the services.
#[derive(Clone, Debug)]
pub struct Params {
    config: config::Config,
    registry: registry::Params,
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The name of the first field that cannot be used, with its value and limit.
    pub fn build(self) -> Result<Params, meshwork_channels::error::ConfigError> {
        Ok(Params { config: self.config, registry: self.registry.build()? })
    }
}

/// What the services tell.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The config.
    Config(config::Event),
    /// The registry.
    Registry(registry::Event),
    /// The agent variables.
    Variables(variables::Event),
}

/// Why a verb of a service had no effect.
#[derive(Clone, Debug, PartialEq)]
pub enum ServiceError<E> {
    /// The service refused.
    Refused(E),
    /// The replica refused the write.
    NotWritten(SetError),
    /// The node has stopped.
    Stopped,
}

impl<E: fmt::Display> fmt::Display for ServiceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Refused(error) => error.fmt(f),
            ServiceError::NotWritten(error) => error.fmt(f),
            ServiceError::Stopped => f.write_str("the node has stopped"),
        }
    }
}

impl<E: std::error::Error> std::error::Error for ServiceError<E> {}

/// What the services told, each in order.
#[derive(Debug, Default)]
pub struct Told {
    /// By the config.
    pub config: Vec<config::Event>,
    /// By the registry.
    pub registry: Vec<registry::Event>,
    /// By the agent variables.
    pub variables: Vec<variables::Event>,
}

impl Told {
    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.config.is_empty() && self.registry.is_empty() && self.variables.is_empty()
    }

    /// All of it; nothing is left.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Event> {
        let config = std::mem::take(&mut self.config).into_iter().map(Event::Config);
        let registry = std::mem::take(&mut self.registry).into_iter().map(Event::Registry);
        config.chain(registry).chain(std::mem::take(&mut self.variables).into_iter().map(Event::Variables))
    }
}

/// The services of one node.
#[derive(Debug)]
pub struct Services {
    /// Settings of the node and of the whole cluster.
    pub config: config::State,
    /// Who offers what.
    pub registry: registry::State,
    /// What agents tune together.
    pub variables: variables::State,
    /// What they told and nobody has taken yet.
    pub told: Told,
}

impl Services {
    pub(crate) fn new(me: PeerId, params: Params) -> Self {
        Services {
            config: config::State::new(me, params.config),
            registry: registry::State::new(me, params.registry),
            variables: variables::State::new(me),
            told: Told::default(),
        }
    }

    /// A key changed, by a write here or elsewhere.
    pub(crate) fn on_changed(&mut self, key: &Key, replica: &replica::State, now: Now) {
        let Services { config, registry, variables, told } = self;
        match key.split('/').next() {
            Some("@config") => config.on_changed(key, replica, now, &mut told.config),
            Some("@registry") => registry.on_changed(key, replica, now, &mut told.registry),
            Some("@variables") => variables.on_changed(key, replica, now, &mut told.variables),
            _ => {}
        }
    }

    /// The replica holds what an earlier life of the node wrote down.
    pub(crate) fn on_restored(&mut self, replica: &replica::State, now: Now) {
        let Services { config, registry, variables, told } = self;
        config.on_restored(replica, now, &mut told.config);
        for (key, _) in replica.iter(registry::PREFIX) {
            registry.on_changed(key, replica, now, &mut told.registry);
        }
        for (key, _) in replica.iter(variables::SPACE) {
            variables.on_changed(key, replica, now, &mut told.variables);
        }
    }

    /// The membership tells of a member.
    pub(crate) fn on_member(&mut self, event: &swim::Event<PeerId>, replica: &replica::State, now: Now) {
        let (registry, told) = (&mut self.registry, &mut self.told.registry);
        match event {
            swim::Event::Joined(member) | swim::Event::Updated(member) | swim::Event::Recovered { member, .. } => {
                registry.member_up(member.peer, replica, told);
            }
            swim::Event::Suspected(member) => registry.member_suspected(member.peer, now),
            swim::Event::Failed(member) | swim::Event::Left(member) => registry.member_down(member.peer, now, told),
            swim::Event::Renewed { .. } => {}
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.registry.next_deadline()
    }

    pub(crate) fn deadline_reached(&mut self, replica: &replica::State, now: Now) -> Vec<Write> {
        self.registry.deadline_reached(replica, now, &mut self.told.registry)
    }
}
