//! Config, registry and agent variables through one node.
#![expect(clippy::disallowed_methods, reason = "a lease that is dropped while the node is busy ends in a task")]

use std::sync::Arc;
use std::time::Duration;

use meshwork_crdt::Stamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Command, Node, Stopped, Subscription};
use crate::node;
use crate::services::config::{self, Explained, Found, LoadError, ReadError};
use crate::services::registry::{self, Balancer, Id, Instance, LeaseId, PickError, Policy, Query, RegisterError, Registration};
use crate::services::variables::{self, Definition, Filter, Name, Space, SpaceError, Version};
use crate::services::{Event, ServiceError};

/// The events of one service: what matches, from the moment of the subscription on.
#[derive(Debug)]
pub struct Notices<T> {
    events: Subscription<Event>,
    prefix: Option<config::Path>,
    select: fn(Event, Option<&config::Path>) -> Option<T>,
}

impl<T> Notices<T> {
    /// The next event; none once the node has stopped. Events that were lost, because the subscriber fell behind, are passed over in silence:
    /// [`Notices::try_next`] tells of them.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            if let Ok(event) = self.try_next().await? {
                return Some(event);
            }
        }
    }

    /// The next event, or how many events of all services were lost before it; none once the node has stopped.
    pub async fn try_next(&mut self) -> Option<Result<T, super::Lagged>> {
        loop {
            match self.events.try_next().await? {
                Ok(event) => {
                    if let Some(event) = (self.select)(event, self.prefix.as_ref()) {
                        return Some(Ok(event));
                    }
                }
                Err(lagged) => return Some(Err(lagged)),
            }
        }
    }
}

/// Settings of this node and of the whole cluster. What the cluster has is shown, and may be set, once [`Config::sync`] was called or
/// [`node::Config::services`] says so.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    pub(super) node: &'a Node,
}

impl Config<'_> {
    /// The visible value at a path, such as `app/limits/rate`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: there is none, it is of another type, or the path is no path.
    pub async fn get<T: DeserializeOwned + Send + 'static>(&self, path: impl Into<String>) -> Result<Result<T, ReadError>, Stopped> {
        let path = path.into();
        self.node.look(move |node| node.services().config.get(node.state(), &path)).await
    }

    /// The visible value at a path, with the layer that answers, its origin and its stamp.
    ///
    /// # Errors
    ///
    /// As [`Config::get`].
    pub async fn read(&self, path: impl Into<String>) -> Result<Result<Found, ReadError>, Stopped> {
        let path = path.into();
        self.node.look(move |node| node.services().config.read(node.state(), &path)).await
    }

    /// What every layer says of a path, and which one answers.
    ///
    /// # Errors
    ///
    /// [`config::PathError`] when it is no path.
    pub async fn explain(&self, path: impl Into<String>) -> Result<Result<Vec<Explained>, config::PathError>, Stopped> {
        let path = path.into();
        self.node.look(move |node| node.services().config.explain(node.state(), &path)).await
    }

    /// The paths with a visible value, at and below one, or all.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn paths(&self, prefix: Option<config::Path>) -> Result<Vec<config::Path>, Stopped> {
        self.node.look(move |node| node.services().config.paths(node.state(), prefix.as_ref())).await
    }

    /// Takes part in what is set for the whole cluster from now on, or no more.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn sync(&self, is_synced: bool) -> Result<(), Stopped> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            let _ = node.serve(now, actions, |services, replica| {
                services.config.set_synced(is_synced, replica, now, &mut services.told.config);
                Ok::<_, config::SetError>(Vec::new())
            });
        };
        self.node.write_with(verb).await
    }

    /// Judges every value at and below `prefix` from now on, whatever its layer: what it refuses is not set from here, and not shown here when another node
    /// set it. Belongs before the first value, and the same on every node: what is there is not judged again. It runs where the node does, so it must not block.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn validate(
        &self,
        prefix: config::Path,
        validator: impl Fn(&config::Path, &config::Value) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<(), Stopped> {
        let added = self.local(move |config, _| {
            config.add_validator(prefix, Arc::new(validator));
            Ok::<_, config::SetError>(())
        });
        added.await.map_err(|_| Stopped)
    }

    /// Sets a value for the whole cluster.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn set<T>(&self, path: impl Into<String>, value: T) -> Result<Option<Stamp>, ServiceError<config::SetError>>
    where
        T: Serialize + Send + 'static,
    {
        let path = path.into();
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| services.config.set_cluster_wide(replica, &path, &value))
        };
        self.node.write_with(verb).await?
    }

    /// Removes what the cluster has at and below a path.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn remove(&self, path: impl Into<String>) -> Result<Option<Stamp>, ServiceError<config::SetError>> {
        let path = path.into();
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| services.config.remove_cluster_wide(replica, &path))
        };
        self.node.write_with(verb).await?
    }

    /// Sets for the whole cluster what it had at a path so many changes ago.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn rollback(&self, path: impl Into<String>, count: usize) -> Result<Option<Stamp>, ServiceError<config::SetError>> {
        let path = path.into();
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| services.config.rollback_cluster_wide(replica, &path, count))
        };
        self.node.write_with(verb).await?
    }

    /// Overrides a value on this node alone, while it runs.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn update<T>(&self, path: impl Into<String>, value: T) -> Result<(), ServiceError<config::SetError>>
    where
        T: Serialize + Send + 'static,
    {
        let path = path.into();
        self.local(move |config, events| config.update(&path, &value, events)).await
    }

    /// Takes the overrides of this node at and below a path back.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn reset(&self, path: impl Into<String>) -> Result<(), ServiceError<config::SetError>> {
        let path = path.into();
        self.local(move |config, events| config.reset(&path, events)).await
    }

    /// Undoes the last changes that [`Config::update`] and [`Config::reset`] made.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn undo(&self, count: usize) -> Result<(), ServiceError<config::SetError>> {
        self.local(move |config, events| config.rollback(count, events)).await
    }

    /// What may be changed while the node runs: these paths and all below them; none for everything.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn updatable_paths(&self) -> Result<Option<Vec<config::Path>>, Stopped> {
        self.node.look(|node| node.services().config.updatable_paths().map(<[_]>::to_vec)).await
    }

    /// Takes the layer of the environment from these variables and their values, as [`config::State::load_environment`] reads them.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: what the environment said before still holds.
    pub async fn load_environment(
        &self,
        prefix: impl Into<String>,
        variables: Vec<(String, String)>,
    ) -> Result<(), ServiceError<LoadError>> {
        let prefix = prefix.into();
        let load = move |config: &mut config::State, events: &mut Vec<config::Event>| {
            config.load_environment(&prefix, variables.iter().map(|(name, value)| (name.as_str(), value.as_str())), events)
        };
        self.local(load).await
    }

    /// Takes the layer of the file from this text: all of it or, when it does not parse or pass, nothing.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: what the file said before still holds.
    pub async fn load_file<E: std::fmt::Display + Send + 'static>(
        &self,
        text: String,
        parse: fn(&str) -> Result<config::Value, E>,
    ) -> Result<(), ServiceError<LoadError>> {
        self.local(move |config, events| config.load_file(&text, parse, events)).await
    }

    /// The values that were set at once and what became of them, the oldest first.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn conflicts(&self) -> Result<Vec<config::Conflict>, Stopped> {
        self.node.look(|node| node.services().config.conflicts().cloned().collect()).await
    }

    /// What was set for the whole cluster at and below a path, the newest first.
    ///
    /// # Errors
    ///
    /// [`config::SetError::InvalidPath`].
    pub async fn history(&self, path: impl Into<String>) -> Result<Result<Vec<config::Change>, config::SetError>, Stopped> {
        let path = path.into();
        self.node.look(move |node| node.services().config.history(node.state(), &path)).await
    }

    /// The changes at and below a path, each once and in order.
    pub fn watch(&self, prefix: config::Path) -> Notices<config::Event> {
        let select: fn(Event, Option<&config::Path>) -> Option<config::Event> = |event, prefix| match event {
            Event::Config(event) => prefix.is_none_or(|prefix| event.is_update_under(prefix)).then_some(event),
            _ => None,
        };
        Notices { events: self.node.service_events(), prefix: Some(prefix), select }
    }

    async fn local<E: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut config::State, &mut Vec<config::Event>) -> Result<(), E> + Send + 'static,
    ) -> Result<(), ServiceError<E>> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, _| verb(&mut services.config, &mut services.told.config).map(|()| Vec::new())).map(drop)
        };
        self.node.write_with(verb).await?
    }
}

/// Who offers what in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Registry<'a> {
    pub(super) node: &'a Node,
}

impl<'a> Registry<'a> {
    /// Registers an instance of a service, for as long as the lease is kept: when it is dropped, or this node is gone, so is the instance.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was registered then.
    pub async fn register(&self, registration: Registration) -> Result<Lease, ServiceError<RegisterError>> {
        self.register_all(vec![registration]).await
    }

    /// Registers several instances under one lease: all of them or none.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was registered then.
    pub async fn register_all(&self, registrations: Vec<Registration>) -> Result<Lease, ServiceError<RegisterError>> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            let mut lease = None;
            let registered = node.serve(now, actions, |services, replica| {
                let opened = services.registry.open_lease()?;
                lease = Some(opened);
                services.registry.register_all(opened, registrations, replica, now)
            });
            if let (Err(_), Some(lease)) = (&registered, lease) {
                let _ = node.serve(now, actions, |services, _| Ok::<_, RegisterError>(services.registry.end_lease(lease)));
            }
            registered.map(|_| lease.expect("it was opened"))
        };
        let id = self.node.write_with(verb).await??;
        Ok(Lease { id, commands: self.node.shared.commands.downgrade() })
    }

    /// Changes what is said of an instance of this node, such as its health. What is `None` in the update stays.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn update(&self, id: Id, update: registry::Update) -> Result<(), ServiceError<registry::UpdateError>> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, _| services.registry.update(&id, update))
        };
        self.node.write_with(verb).await?.map(drop)
    }

    /// Unregisters one instance of this node before its lease ends. Where the removal is not written at once, it is soon after.
    ///
    /// # Errors
    ///
    /// [`ServiceError`].
    pub async fn unregister(&self, id: Id) -> Result<(), ServiceError<registry::UpdateError>> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, _| services.registry.unregister(&id))
        };
        self.node.write_with(verb).await?.map(drop)
    }

    /// The instance with this name.
    ///
    /// # Errors
    ///
    /// [`registry::GetError`].
    pub async fn get(&self, id: Id) -> Result<Result<Instance, registry::GetError>, Stopped> {
        self.node.look(move |node| node.services().registry.get(node.state(), &id)).await
    }

    /// The instances of a service, in order.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn lookup(&self, namespace: impl Into<String>, name: impl Into<String>) -> Result<Vec<Instance>, Stopped> {
        let (namespace, name) = (namespace.into(), name.into());
        self.node.look(move |node| node.services().registry.lookup(node.state(), &namespace, &name)).await
    }

    /// The instances that match, in order.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn find(&self, query: Query) -> Result<Vec<Instance>, Stopped> {
        self.node.look(move |node| node.services().registry.find(node.state(), &query)).await
    }

    /// Chooses among the instances that match, one request after the other.
    pub fn balance(&self, query: Query, policy: Policy) -> Balanced<'a> {
        Balanced { node: self.node, query, balancer: Balancer::new(policy) }
    }

    /// What becomes of instances, each change once and in order.
    pub fn watch(&self) -> Notices<registry::Event> {
        Notices {
            events: self.node.service_events(),
            prefix: None,
            select: |event, _| if let Event::Registry(event) = event { Some(event) } else { None },
        }
    }
}

/// Registered instances, for as long as this is kept.
#[derive(Debug)]
pub struct Lease {
    id: LeaseId,
    commands: mpsc::WeakSender<Command>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(commands) = self.commands.upgrade() else { return };
        let id = self.id;
        let end: super::Verb = Box::new(move |node, now, actions| {
            let _ = node.serve(now, actions, |services, _| Ok::<_, RegisterError>(services.registry.end_lease(id)));
        });
        if let Err(mpsc::error::TrySendError::Full(command)) = commands.try_send(Command::With(end)) {
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(async move { drop(commands.send(command).await) })),
                // No runtime, so no task that would be held up by waiting.
                Err(_) => drop(commands.blocking_send(command)),
            }
        }
    }
}

/// Chooses among the instances of a service.
#[derive(Debug)]
pub struct Balanced<'a> {
    node: &'a Node,
    query: Query,
    balancer: Balancer,
}

impl Balanced<'_> {
    /// The next instance, none of those that were tried for the same request.
    ///
    /// # Errors
    ///
    /// [`PickError`] when none is left.
    pub async fn pick(&mut self, tried: Vec<Id>) -> Result<Result<Instance, PickError>, Stopped> {
        let (query, mut balancer) = (self.query.clone(), self.balancer.clone());
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            let mut picked = Err(PickError::NotFound);
            let _ = node.serve(now, actions, |services, replica| {
                picked = services.registry.pick(replica, &query, &mut balancer, &tried, now);
                Ok::<_, RegisterError>(Vec::new())
            });
            (picked, balancer)
        };
        let (picked, balancer) = self.node.write_with(verb).await?;
        self.balancer = balancer;
        Ok(picked)
    }

    /// Says how a request to an instance ended: after some failures in a row it is passed over for a while. `None` is a failure.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn report(&self, id: Id, latency: Option<Duration>) -> Result<(), Stopped> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            let _ = node.serve(now, actions, |services, _| {
                match latency {
                    Some(latency) => services.registry.report_success(&id, latency, now),
                    None => services.registry.report_failure(&id, now),
                }
                Ok::<_, RegisterError>(Vec::new())
            });
        };
        self.node.write_with(verb).await
    }
}

/// What agents tune together.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    pub(super) node: &'a Node,
}

impl Variables<'_> {
    /// Registers a variable.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was registered then.
    pub async fn register(&self, definition: Definition) -> Result<(), ServiceError<variables::RegisterError>> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| services.variables.register(replica, definition, &mut services.told.variables))
        };
        self.node.write_with(verb).await?.map(drop)
    }

    /// Registers functions of the application, such as `|functions| functions.merge(name, function)`: best before the variables that need them, because
    /// registering one gives no events, and the same on every node. They run where the node does, so they must not block.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn functions(&self, register: impl FnOnce(&mut variables::Functions) + Send + 'static) -> Result<(), Stopped> {
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            let _ = node.serve(now, actions, |services, _| {
                register(services.variables.functions_mut());
                Ok::<_, variables::UpdateError>(Vec::new())
            });
        };
        self.node.write_with(verb).await
    }

    /// Writes a variable.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn update(
        &self,
        name: impl Into<String>,
        update: impl Into<variables::Update> + Send + 'static,
    ) -> Result<(), ServiceError<variables::UpdateError>> {
        let name = name.into();
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| {
                services.variables.update(replica, &name, update, now, &mut services.told.variables)
            })
        };
        self.node.write_with(verb).await?.map(drop)
    }

    /// Removes a variable.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was changed then.
    pub async fn delete(&self, name: impl Into<String>) -> Result<(), ServiceError<variables::DeleteError>> {
        let name = name.into();
        let verb = move |node: &mut node::Node, now, actions: &mut Vec<node::Action>| {
            node.serve(now, actions, |services, replica| services.variables.delete(replica, &name, &mut services.told.variables))
        };
        self.node.write_with(verb).await?.map(drop)
    }

    /// The visible version of a variable.
    ///
    /// # Errors
    ///
    /// [`variables::GetError`].
    pub async fn get(&self, name: impl Into<String>) -> Result<Result<Version, variables::GetError>, Stopped> {
        let name = name.into();
        self.node.look(move |node| node.services().variables.get(node.state(), &name)).await
    }

    /// The definition of a variable.
    ///
    /// # Errors
    ///
    /// [`variables::GetError`].
    pub async fn definition(&self, name: impl Into<String>) -> Result<Result<Definition, variables::GetError>, Stopped> {
        let name = name.into();
        self.node.look(move |node| node.services().variables.definition(node.state(), &name)).await
    }

    /// The variables that match, with their visible versions.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn list(&self, filter: Filter) -> Result<Vec<(Name, Result<Version, variables::GetError>)>, Stopped> {
        self.node.look(move |node| node.services().variables.list(node.state(), &filter)).await
    }

    /// The variables that match as a space, from which configurations are drawn: with their constraints, without their values.
    ///
    /// # Errors
    ///
    /// [`SpaceError`], for instance when they are computed from each other in a cycle.
    pub async fn space(&self, filter: Filter) -> Result<Result<Space, SpaceError>, Stopped> {
        self.node.look(move |node| node.services().variables.space(node.state(), &filter)).await
    }

    /// The last versions that were visible on this node, the newest first: so many, or [`variables::limits::HISTORY_LEN_DEFAULT`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn history(&self, name: impl Into<String>, len: Option<usize>) -> Result<Vec<Version>, Stopped> {
        let name = name.into();
        self.node.look(move |node| node.services().variables.history(&name, len).cloned().collect()).await
    }

    /// What was counted of a variable; none when there is no such variable.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn statistics(&self, name: impl Into<String>) -> Result<Option<variables::Statistics>, Stopped> {
        let name = name.into();
        self.node.look(move |node| node.services().variables.statistics(&name)).await
    }

    /// What becomes of variables, each visible version once and in order.
    pub fn watch(&self) -> Notices<variables::Event> {
        Notices {
            events: self.node.service_events(),
            prefix: None,
            select: |event, _| if let Event::Variables(event) = event { Some(event) } else { None },
        }
    }
}

impl<E> From<Stopped> for ServiceError<E> {
    fn from(Stopped: Stopped) -> Self {
        ServiceError::Stopped
    }
}
