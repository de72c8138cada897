//! Configuration: values by path, in layers, of which one is replicated.
//!
//! A read puts five layers over each other, the weakest first: defaults, file, environment, what was set for the whole cluster, and what was
//! set on this node while it ran. Maps are merged name by name; any other value hides what weaker layers have above and below it.
//! [`State::explain`] tells what each layer says, who said it and which one answered.
//!
//! For the cluster, **each value that is not a map is one entry** of the replica, under `@config/` and its path. Two nodes that change
//! different names of one subtree at once therefore write different keys, and both changes stay. Should one node put a value where another
//! puts a map, the entries are put over each other in the order of their stamps, as if one node had made these writes: all nodes
//! show the same. An entry carries its [history](State::history) with it.
//!
//! Deviations from a plain service over the replica:
//!
//! 1. The service keeps a handle to the bytes of each entry that it last told of. It shares them with the replica as long as they are
//!    current. Without it no event could say what a value was before, and a value that does not pass could not leave the last good one in
//!    place.
//! 2. Validators judge one value at a time, not a subtree: each of two changes made at once may pass alone and what they make together may
//!    not, and then neither node could be told whose to hide.
//!
//! Invariants: what does not decode, or does not pass here, is in no answer of a reading verb; a visible value changes with exactly one
//! [`Event::Updated`], and what the events told is what reads give once all changes were handed in; a verb that fails changed nothing.
//!
//! What a peer can make it store: one handle for each live entry under `@config/`, which the replica bounds, and
//! [`limits::CONFLICTS_MAX`] conflicts. A peer may write any key, and tell what it likes of the past: entries carry no signature.
//!
//! Known limits: a peer that repeats the bytes of an entry under a newer stamp, which nodes do not do by themselves, can change without an
//! event which of a value and a map at one path is shown; an enum of the application that holds data is a map of one name, so two nodes that set different variants at once leave a
//! map of two, which no longer reads as one; of two values of one path that were written at once, the replica keeps the newer, and only
//! nodes that showed the older one notice the conflict.
//!
//! Who talks to it: the node, which applies the writes and hands in what changed; whoever reads the file and the environment; applications.
//!
//! ```
//! use meshwork::services::config::{Config, State, Value};
//! use meshwork::crdt::replica;
//! use meshwork::PeerId;
//!
//! let me = PeerId::from_bytes([1; 32]);
//! let replica = replica::State::new(me, replica::Config::default().build()?, 1);
//! let mut config = State::new(me, Config::default());
//! let mut events = Vec::new();
//! config.load_file(r#"{"app": {"limits": {"rate": 5, "burst": 9}}}"#, serde_json::from_str, &mut events)?;
//! config.update("app/limits/rate", &7, &mut events)?;
//! assert_eq!(config.get::<u32>(&replica, "app/limits/rate")?, 7);
//! assert_eq!(config.get::<u32>(&replica, "app/limits/burst")?, 9);
//! config.reset("app/limits/rate", &mut events)?;
//! assert_eq!(config.get::<u32>(&replica, "app/limits/rate")?, 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use meshwork_channels::PeerId;
use meshwork_crdt::replica;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod cluster;
pub mod conflict;
mod convert;
mod error;
mod layers;
pub mod limits;
mod local;
mod path;
mod record;
mod value;

#[cfg(test)]
mod tests;

use cluster::Held;
pub use conflict::{Candidate, Choice, Conflict, ConflictId, Strategy};
pub use error::{Hidden, HiddenEntry, LoadError, ReadError, SetError};
pub use layers::{Found, Layer};
use layers::{Visible, assemble, overlay};
pub use path::{Path, PathError, SPACE};
use path::{below, related, under};
pub use record::Change;
pub use value::{Value, ValueError};

/// The namespaces that nodes and their parts use; applications may use any other name as well.
pub const NAMESPACES: [&str; 5] = ["default", "app", "ai", "infrastructure", "telemetry"];

/// What people may set about the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this node shows, and may set, values of the whole cluster. Default no: a node that nobody configured so is governed by its
    /// own file alone. With a replica that holds something already, begin without and call [`State::set_synced`], which tells of it.
    pub is_synced: bool,
    /// What may be changed while the node runs: each of these paths and all below it, by this node and by others. `None`, the default,
    /// allows all. Defaults, file and environment are not asked.
    pub updatable_paths: Option<Vec<Path>>,
    /// What is shown of values written at once. Must be the same on all nodes. Default: the newest.
    pub strategy: Strategy,
}

/// Judges one value: the path that has it, and the value. The error is the reason, of which [`limits::REASON_BYTES_MAX`] are kept.
pub type Validator = Arc<dyn Fn(&Path, &Value) -> Result<(), String> + Send + Sync>;

/// What the service tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A visible value has changed.
    Updated {
        /// Its path.
        path: Path,
        /// The value before; `None` when there was none.
        old: Option<Value>,
        /// The value from now on; `None` when there is none any more, also where a map or another value took its place.
        new: Option<Value>,
        /// The layer that answers now, or in which the last value was removed.
        layer: Layer,
        /// Who set the new value, or removed the last.
        origin: PeerId,
    },
    /// An entry that another node wrote is not shown. The last good value stays, if there was one.
    Hidden(HiddenEntry),
    /// Values were written at once.
    Conflict(Conflict),
    /// The file was not loaded; what it said before still holds.
    FileRefused(LoadError),
}

impl Event {
    /// Whether this tells of a value at `prefix` or below it: the filter of a subscription.
    pub fn is_update_under(&self, prefix: &Path) -> bool {
        matches!(self, Event::Updated { path, .. } if path.is_under(prefix))
    }
}

/// What the service did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Visible values that changed.
    pub updated: u64,
    /// Entries that were found not to be shown.
    pub hidden: u64,
    /// Conflicts that were noticed.
    pub conflicts: u64,
    /// Files that were not loaded.
    pub files_refused: u64,
}

/// What one layer says of a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The layer.
    pub layer: Layer,
    /// What it says, if anything; of the cluster, by whom and when it was said last.
    pub found: Option<Found>,
    /// Whether it answers, or of a subtree, a part of it.
    pub answers: bool,
    /// Entries of the cluster at or below the path that are not shown.
    pub hidden: Vec<HiddenEntry>,
}

type Leaves = BTreeMap<Path, Value>;

/// The service of one node.
#[derive(Clone)]
pub struct State {
    me: PeerId,
    config: Config,
    validators: Vec<(Path, Validator)>,
    /// All layers but that of the cluster.
    local: BTreeMap<Layer, Leaves>,
    /// What the overrides were before each of the last local changes, at and below a path.
    undo: VecDeque<(Path, Leaves)>,
    /// The entries that events told of; see deviation 1.
    announced: BTreeMap<Path, Held>,
    conflicts: VecDeque<Conflict>,
    counters: Counters,
}

impl State {
    /// The service of the node `me`, without any value.
    pub fn new(me: PeerId, config: Config) -> Self {
        State {
            me,
            config,
            validators: Vec::new(),
            local: BTreeMap::new(),
            undo: VecDeque::new(),
            announced: BTreeMap::new(),
            conflicts: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// With a judge of every value at and below `prefix`, whatever its layer. Belongs before the first value: what is there is not judged
    /// again.
    pub fn with_validator(mut self, prefix: Path, validator: Validator) -> Self {
        self.add_validator(prefix, validator);
        self
    }

    /// As [`State::with_validator`], for a service that runs.
    pub fn add_validator(&mut self, prefix: Path, validator: Validator) {
        self.validators.push((prefix, validator));
    }

    /// The value at a path as a type of the application: a map of the values below it where there are several.
    ///
    /// # Errors
    ///
    /// Any [`ReadError`].
    pub fn get<T: DeserializeOwned>(&self, replica: &replica::State, path: &str) -> Result<T, ReadError> {
        let value = self.read(replica, path)?.value;
        convert::from_value(value).map_err(|unfit| ReadError::WrongType { expected: unfit.expected, found: unfit.found })
    }

    /// As [`State::get`], with `default` where there is no value.
    ///
    /// # Errors
    ///
    /// Any [`ReadError`] but [`ReadError::NotFound`].
    pub fn get_or<T: DeserializeOwned>(&self, replica: &replica::State, path: &str, default: T) -> Result<T, ReadError> {
        match self.get(replica, path) {
            Err(ReadError::NotFound) => Ok(default),
            other => other,
        }
    }

    /// The value at a path, and where it comes from.
    ///
    /// # Errors
    ///
    /// [`ReadError::InvalidPath`] or [`ReadError::NotFound`].
    pub fn read(&self, replica: &replica::State, path: &str) -> Result<Found, ReadError> {
        let path = Path::try_from(path)?;
        found_at(&path, &self.visible(Some(replica), Some(&path))).ok_or(ReadError::NotFound)
    }

    /// Whether there is a value at or below the path.
    pub fn is_available(&self, replica: &replica::State, path: &str) -> bool {
        self.read(replica, path).is_ok()
    }

    /// The paths of all values at and below `prefix`, or of all that there are, in their order.
    pub fn paths(&self, replica: &replica::State, prefix: Option<&Path>) -> Vec<Path> {
        let visible = self.visible(Some(replica), prefix);
        visible.into_keys().filter(|path| prefix.is_none_or(|prefix| path.is_under(prefix))).collect()
    }

    /// What each layer says of a path, the weakest first.
    ///
    /// # Errors
    ///
    /// A [`PathError`].
    pub fn explain(&self, replica: &replica::State, path: &str) -> Result<Vec<Explained>, PathError> {
        let path = Path::try_from(path)?;
        let visible = self.visible(Some(replica), Some(&path));
        let explained = Layer::ALL.map(|layer| {
            let mut alone = Visible::new();
            self.overlay_layer(layer, Some(replica), Some(&path), &mut alone);
            let hidden = if layer == Layer::Cluster { self.hidden(replica, &path) } else { Vec::new() };
            let answers = under(&visible, &path).any(|(_, found)| found.layer == layer);
            Explained { layer, found: found_at(&path, &alone), answers, hidden }
        });
        Ok(explained.into())
    }

    /// What may be changed while the node runs; `None` for all.
    pub fn updatable_paths(&self) -> Option<&[Path]> {
        self.config.updatable_paths.as_deref()
    }

    /// The conflicts that this node noticed, oldest first, up to [`limits::CONFLICTS_MAX`].
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.iter()
    }

    /// What the service did so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What decides on the values at and below a path, or on all. Of the cluster, what the replica holds, or without it what was told last.
    fn visible(&self, replica: Option<&replica::State>, path: Option<&Path>) -> Visible {
        let mut visible = Visible::new();
        for layer in Layer::ALL {
            self.overlay_layer(layer, replica, path, &mut visible);
        }
        visible
    }

    fn overlay_layer(&self, layer: Layer, replica: Option<&replica::State>, path: Option<&Path>, visible: &mut Visible) {
        if layer == Layer::Cluster {
            for (path, found) in self.cluster(replica, path) {
                overlay(visible, &path, found);
            }
            return;
        }
        let Some(leaves) = self.local.get(&layer) else { return };
        let mut put = |(path, value): (&Path, &Value)| {
            overlay(visible, path, Found { value: value.clone(), layer, origin: self.me, stamp: None });
        };
        match path {
            Some(path) => related(leaves, path).for_each(&mut put),
            None => leaves.iter().for_each(&mut put),
        }
    }

    /// Makes a change at and below a path, or anywhere, and tells of each visible value that became another one, in the order of paths.
    ///
    /// Only values at, above and below the path can appear or go by that. What else is below one above it stays as it is, and is only asked whether it hides that
    /// one: else each of many changes below one value would cost a look at all of them.
    fn change(&mut self, path: Option<&Path>, cause: (Layer, PeerId), events: &mut Vec<Event>, make: impl FnOnce(&mut Self)) {
        let mut before = self.visible(None, path);
        make(self);
        let after = self.visible(None, path);
        let is_shown = |at: &Path, found: &Found| path.is_none_or(|path| at.is_under(path) || !self.is_hidden_beside(path, at, found));
        let mut changed: BTreeMap<Path, (Option<Value>, Option<Found>)> = BTreeMap::new();
        for (at, found) in after {
            let old = before.remove(&at).map(|found| found.value);
            if old.as_ref() != Some(&found.value) && is_shown(&at, &found) {
                changed.insert(at, (old, Some(found)));
            }
        }
        let gone = before.into_iter().filter(|(at, found)| is_shown(at, found));
        changed.extend(gone.map(|(at, found)| (at, (Some(found.value), None))));
        for (path, (old, new)) in changed {
            let (layer, origin) = new.as_ref().map_or(cause, |found| (found.layer, found.origin));
            self.counters.updated += 1;
            events.push(Event::Updated { path, old, new: new.map(|found| found.value), layer, origin });
        }
    }

    /// Whether anything below `above` hides what `found` says of it, but for what is at and below `path`. Values are read of what is further above alone.
    fn is_hidden_beside(&self, path: &Path, above: &Path, found: &Found) -> bool {
        let mut from = found.rank();
        if found.is_empty_map() {
            // It gives way to older values as well, but for those that a value of the same path or one further above had hidden by then.
            let hid =
                above.above().chain([above.as_str()]).flat_map(|at| self.at(at)).filter(|hid| hid.rank() < from && !hid.is_empty_map());
            from = hid.map(|hid| hid.rank()).max().unwrap_or((Layer::Default, None, PeerId::from_bytes([0; 32])));
        }
        let mut local = self.local.iter().filter(|(layer, _)| (**layer, None, self.me) >= from);
        let mut shared = below(&self.announced, above);
        local.any(|(_, leaves)| below(leaves, above).any(|(at, _)| !at.is_under(path)))
            || shared.any(|(at, held)| held.rank() >= from && !at.is_under(path))
    }

    /// What each layer says of one path alone, of the cluster what was told last.
    fn at(&self, path: &str) -> Vec<Found> {
        let local = self.local.iter().filter_map(|(layer, leaves)| {
            let value = leaves.get(path)?.clone();
            Some(Found { value, layer: *layer, origin: self.me, stamp: None })
        });
        local.chain(self.announced.get(path).and_then(Held::found)).collect()
    }

    /// Whether a value may be at a path while the node runs.
    fn permits(&self, path: &Path, value: &Value) -> Result<(), Hidden> {
        if !self.is_updatable(path) {
            return Err(Hidden::NotUpdatable);
        }
        self.validate(path, value).map_err(Hidden::Refused)
    }

    fn is_updatable(&self, path: &Path) -> bool {
        self.updatable_paths().is_none_or(|allowed| allowed.iter().any(|prefix| path.is_under(prefix)))
    }

    fn validate(&self, path: &Path, value: &Value) -> Result<(), String> {
        for (_, validator) in self.validators.iter().filter(|(prefix, _)| path.is_under(prefix)) {
            validator(path, value).map_err(|mut reason| {
                reason.truncate(reason.floor_char_boundary(limits::REASON_BYTES_MAX));
                reason
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("me", &self.me).field("config", &self.config).field("local", &self.local).finish_non_exhaustive()
    }
}

/// The value at a path, from the strongest layer and the newest stamp of its parts.
fn found_at(path: &Path, visible: &Visible) -> Option<Found> {
    let value = assemble(path, visible)?;
    let (_, strongest) = under(visible, path).max_by_key(|(_, found)| (found.layer, found.stamp))?;
    Some(Found { value, ..*strongest })
}
