//! The replicated state of the cluster through one node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_crdt::replica::SetError;
use meshwork_crdt::{Key, Kind, Op, Stamp, Value};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::streams::subscribe;
use super::{Command, DurableError, Error, Node, Stopped, WriteVerb};
use crate::node;

/// The replicated state of the cluster through one node: keys that hold a value each, the same everywhere soon after a write.
///
/// A plain value is a register in which the last writer wins; [`State::apply`] writes values of other kinds, such as counters and sets, in which nothing that
/// is written at the same time is lost.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    pub(super) node: &'a Node,
}

impl State<'_> {
    /// Writes a register. The write is visible here at once and on the other nodes soon.
    ///
    /// # Errors
    ///
    /// [`Error::Set`] when key or value are too large, the store is full or the key is of another kind, [`Error::Stopped`]. Nothing was changed then.
    pub async fn set(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Result<Stamp, Error> {
        let stamp = self.apply(key, Op::Set(value.into())).await?;
        Ok(stamp.expect("to write a register is always news"))
    }

    /// Writes a register that expires: after this time, from [a second](meshwork_crdt::register::LIFETIME_MIN) to
    /// [ten years](meshwork_crdt::register::LIFETIME_MAX), it is gone on every node, as if removed, unless it was written again meanwhile. Only registers of this
    /// kind expire; [`Op::SetFor`] does the same in a [batch](State::batch).
    ///
    /// # Errors
    ///
    /// As [`State::set`]; [`SetError::Lifetime`].
    pub async fn set_for(&self, key: impl Into<String>, value: impl Into<Bytes>, lifetime: Duration) -> Result<Stamp, Error> {
        let stamp = self.apply(key, Op::SetFor(value.into(), lifetime)).await?;
        Ok(stamp.expect("to write a register is always news"))
    }

    /// Does something to a key: writes a register of any kind, counts, changes a set, removes it. None when that changes nothing.
    ///
    /// # Errors
    ///
    /// As [`State::set`].
    pub async fn apply(&self, key: impl Into<String>, op: Op) -> Result<Option<Stamp>, Error> {
        let key = key.into();
        self.node.write_with(move |node, now, actions| node.apply(&key, op, now, actions)).await?.map_err(Error::Set)
    }

    /// Writes a register, and returns when it is on the disk of this node as well: a crash of the process or the machine does not lose it. It goes to other nodes without
    /// waiting for that. The node needs a [data folder](super::Builder::data_dir).
    ///
    /// ```
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = std::env::temp_dir().join(format!("meshwork-durable-example-{}", std::process::id()));
    /// # let start = || meshwork::Node::builder("durable").insecure_without_secret().mdns(false).data_dir(&dir).start();
    /// let node = start().await?;
    /// node.state().set_durable("color", "green").await?;
    /// node.leave().await;
    ///
    /// let node = start().await?;
    /// assert_eq!(node.state().get("color").await?.as_deref(), Some(&b"green"[..]));
    /// # node.leave().await;
    /// # std::fs::remove_dir_all(&dir)?;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// A [`DurableError`], of which each says whether the write was made.
    pub async fn set_durable(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Result<Stamp, DurableError> {
        let stamp = self.apply_durable(key, Op::Set(value.into())).await?;
        Ok(stamp.expect("to write a register is always news"))
    }

    /// Does something to a key as [`State::apply`] does, and returns when all that the key holds then is on the disk of this node as well. None when it changed nothing.
    ///
    /// # Errors
    ///
    /// As [`State::set_durable`].
    pub async fn apply_durable(&self, key: impl Into<String>, op: Op) -> Result<Option<Stamp>, DurableError> {
        let key = key.into();
        let verb: WriteVerb = Box::new(move |node, now, actions| node.apply(&key, op, now, actions));
        self.node.write(|reply| Command::WriteDurably { verb, reply }).await?
    }

    /// Does something to several keys at once: all of it or nothing, here and wherever the broadcast arrives. A node that was cut off may see a part of it for a
    /// moment. None when that changes nothing.
    ///
    /// # Errors
    ///
    /// As [`State::set`]; [`SetError::BatchTooLarge`], [`SetError::KeyRepeated`].
    pub async fn batch(&self, writes: impl IntoIterator<Item = (impl Into<String>, Op)>) -> Result<Option<Stamp>, Error> {
        let keyed = |(key, op): (_, Op)| {
            let key = Into::<String>::into(key);
            Ok((Key::try_from(&*key).map_err(|error| SetError::from(error).in_batch(&key))?, op))
        };
        let writes: Vec<(Key, Op)> = writes.into_iter().map(keyed).collect::<Result<_, SetError>>().map_err(Error::Set)?;
        self.node.write_with(move |node, now, actions| node.batch(writes, now, actions)).await?.map_err(Error::Set)
    }

    /// Removes a key, of whatever kind; none when it has no value here.
    ///
    /// # Errors
    ///
    /// As [`State::set`].
    pub async fn remove(&self, key: impl Into<String>) -> Result<Option<Stamp>, Error> {
        self.apply(key, Op::Remove).await
    }

    /// The value of a register, as this node knows it; of one with concurrent values the latest.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Bytes>, Stopped> {
        let key = key.into();
        self.node.look(move |node| node.get(&key).cloned()).await
    }

    /// What a key holds, of whatever kind, as this node knows it.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn read(&self, key: impl Into<String>) -> Result<Option<Value>, Stopped> {
        let key = key.into();
        self.node.look(move |node| node.state().read(&key)).await
    }

    /// The registers whose keys begin with `prefix`, in order, with their values; those of services as in [`State::list`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn entries(&self, prefix: impl Into<String>) -> Result<Vec<(String, Bytes)>, Stopped> {
        let prefix = prefix.into();
        self.node
            .look(move |node| {
                let entries = node.state().iter(&prefix).filter(|(key, _)| is_told(key, &prefix));
                entries.map(|(key, entry)| (key.to_string(), entry.value.clone())).collect()
            })
            .await
    }

    /// The keys that begin with `prefix`, in order, with what kind they are of; those of services as in [`State::list`].
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn keys(&self, prefix: impl Into<String>) -> Result<Vec<(String, Kind)>, Stopped> {
        let prefix = prefix.into();
        self.node.look(move |node| keys(node, &prefix).map(|(key, kind)| (key.to_string(), kind)).collect()).await
    }

    /// The first `len_max` keys that begin with `prefix`, in order, with what they hold. Those of services, which begin with `@`, are among them only when the
    /// prefix does too.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn list(&self, prefix: impl Into<String>, len_max: usize) -> Result<Vec<(String, Value)>, Stopped> {
        let prefix = prefix.into();
        let list = move |node: &node::Node| {
            keys(node, &prefix).take(len_max).filter_map(|(key, _)| Some((key.to_string(), node.state().read(key)?))).collect()
        };
        self.node.look(list).await
    }

    /// The keys that begin with `prefix`: first as they are, then every change. A watcher that falls behind is told
    /// what differs now, removals included, instead of every change that it lost. Keys of services, which begin with `@`, are told only when the prefix does too.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn watch(&self, prefix: impl Into<String>) -> Result<Watch, Stopped> {
        Watch::start(self.node, prefix.into()).await
    }
}

/// Whether somebody who asks for a prefix is told of a key: keys of services are only for those who ask for them.
fn is_told(key: &str, prefix: &str) -> bool {
    key.starts_with(prefix) && (prefix.starts_with('@') || !key.starts_with('@'))
}

/// The keys that somebody who asks for a prefix is told of.
fn keys<'a>(node: &'a node::Node, prefix: &'a str) -> impl Iterator<Item = (&'a Key, Kind)> {
    node.state().keys(prefix).filter(|(key, _)| is_told(key, prefix))
}

/// A key of the replicated state changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What it holds; none when it was removed.
    pub value: Option<Value>,
    /// The stamp of the write; none for a value that was there when the watch began, or began again.
    pub stamp: Option<Stamp>,
    /// The number of the change on this node; of a value that was there, that of the last change before the watch began.
    pub revision: u64,
}

/// The keys with a common beginning: first as they are, then every change.
#[derive(Debug)]
pub struct Watch {
    commands: mpsc::WeakSender<Command>,
    prefix: String,
    changes: broadcast::Receiver<Change>,
    /// What is told before the next change.
    pending: VecDeque<Change>,
    /// What was told of the keys that are there.
    shown: BTreeMap<Key, Value>,
    /// Up to which change all was told.
    revision: u64,
    /// Changes were lost, and the keys have to be listed again.
    is_stale: bool,
}

impl Watch {
    async fn start(node: &Node, prefix: String) -> Result<Self, Stopped> {
        let mut watch = Watch {
            commands: node.shared.commands.downgrade(),
            prefix,
            // Subscribed before the keys are listed, so that nothing falls between the two; what falls into both is told by its number.
            changes: subscribe(&node.shared.changes),
            pending: VecDeque::new(),
            shown: BTreeMap::new(),
            revision: 0,
            is_stale: true,
        };
        watch.list().await?;
        Ok(watch)
    }

    /// The next change; none once the node has stopped.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some(change);
            }
            if self.is_stale {
                self.list().await.ok()?;
                continue;
            }
            match self.changes.recv().await {
                Ok(change) if is_told(&change.key, &self.prefix) && change.revision > self.revision => {
                    self.revision = change.revision;
                    match &change.value {
                        Some(value) => drop(self.shown.insert(change.key.clone(), value.clone())),
                        None => drop(self.shown.remove(&change.key)),
                    }
                    return Some(change);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    // What is still queued is older than the list to come.
                    self.changes = self.changes.resubscribe();
                    self.is_stale = true;
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Lists the keys, and puts what differs from what was told before the changes to come.
    async fn list(&mut self) -> Result<(), Stopped> {
        let (reply, answer) = oneshot::channel();
        let prefix = self.prefix.clone();
        let commands = self.commands.upgrade().ok_or(Stopped)?;
        let list = move |node: &mut node::Node| {
            let read = |key: &Key| Some((key.clone(), node.state().read(key)?));
            let present: BTreeMap<Key, Value> = keys(node, &prefix).filter_map(|(key, _)| read(key)).collect();
            (present, node.state().revision())
        };
        let verb: super::Verb = Box::new(move |node, _, _| drop(reply.send(list(node))));
        commands.send(Command::With(verb)).await.map_err(|_| Stopped)?;
        drop(commands);
        let (present, revision) = answer.await.map_err(|_| Stopped)?;
        for key in self.shown.keys().filter(|key| !present.contains_key(*key)) {
            self.pending.push_back(Change { key: key.clone(), value: None, stamp: None, revision });
        }
        for (key, value) in &present {
            if self.shown.get(key) != Some(value) {
                self.pending.push_back(Change { key: key.clone(), value: Some(value.clone()), stamp: None, revision });
            }
        }
        self.shown = present;
        self.revision = revision;
        self.is_stale = false;
        Ok(())
    }
}
