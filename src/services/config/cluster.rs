//! The layer that all nodes share: what it shows of the replica, what changes it, and what it was before.

use std::collections::BTreeMap;

use bytes::Bytes;
use meshwork_channels::{Now, PeerId, random};
use meshwork_crdt::replica::{self, Entry};
use meshwork_crdt::{Key, Stamp};
use serde::Serialize;

use super::conflict::{Candidate, Conflict, resolve};
use super::layers::{Found, Layer, Rank};
use super::limits::{CONFLICTS_MAX, WRITES_MAX};
use super::local::checked_path;
use super::path::{Path, SPACE, related};
use super::record::{Change, Past, Record};
use super::{Event, Hidden, HiddenEntry, SetError, State, Value};
use crate::services::Write;

/// An entry that events told of: its bytes, and of which write it is.
#[derive(Clone, Debug)]
pub(super) struct Held {
    bytes: Bytes,
    stamp: Stamp,
    origin: PeerId,
}

impl Held {
    pub(super) fn rank(&self) -> Rank {
        (Layer::Cluster, Some(self.stamp), self.origin)
    }

    pub(super) fn found(&self) -> Option<Found> {
        Some(cluster_value(Record::decode(&self.bytes).ok()?.value?, self.stamp, self.origin))
    }
}

/// What is to be made of the entries of one path.
#[derive(Default)]
pub(super) struct Judged {
    pub shown: Option<Found>,
    /// Those that pass, removals included.
    pub good: Vec<Candidate>,
    pub bad: Vec<(PeerId, Hidden)>,
    /// What the writer of the last of `good` knew of, and whether that is all there was before.
    pub known: (Vec<Past>, bool),
}

/// Entries of one key that are looked at: more nodes than that do not write a path at the same time, unless somebody means harm.
const SIBLINGS_MAX: usize = 64;

/// The entries of a key of which none replaced another, newest first.
fn siblings<'a>(replica: &'a replica::State, key: &str) -> Vec<Entry<'a>> {
    replica.siblings(key).take(SIBLINGS_MAX).collect()
}

impl State {
    /// Sets a value for the whole cluster: the writes that make it so. A map replaces what the cluster has below the path, and any value what
    /// it has above and below it; what is so already is not written. Stamp and proposer are those of the writes.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing is to be written.
    pub fn set_cluster_wide<T: Serialize + ?Sized>(&self, replica: &replica::State, path: &str, value: &T) -> Result<Vec<Write>, SetError> {
        self.check_synced()?;
        let (path, leaves) = self.to_set(path, value)?;
        self.writes(replica, &path, leaves)
    }

    /// Removes what the cluster has at and below a path: the writes that make it so. The history stays.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing is to be written.
    pub fn remove_cluster_wide(&self, replica: &replica::State, path: &str) -> Result<Vec<Write>, SetError> {
        self.check_synced()?;
        let path = checked_path(path)?;
        let mut writes = self.writes(replica, &path, Vec::new())?;
        // Values above the path are none of this.
        writes.retain(|write| Path::of_key(&write.key).is_ok_and(|written| written.is_under(&path)));
        if writes.is_empty() { Err(SetError::NotFound(path)) } else { Ok(writes) }
    }

    /// Sets the one value at a path for the whole cluster to what it was `count` changes ago: the writes that make it so. That is a change like
    /// any other, which can be taken back as well.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing is to be written.
    pub fn rollback_cluster_wide(&self, replica: &replica::State, path: &str, count: usize) -> Result<Vec<Write>, SetError> {
        self.check_synced()?;
        let path = checked_path(path)?;
        let mut changes = self.changes(replica, &path);
        let kept = changes.len().saturating_sub(1);
        if count > kept {
            return Err(SetError::NoHistory { path: Some(path), kept });
        }
        if changes.is_empty() {
            return Err(SetError::NotFound(path));
        }
        let Some(value) = changes.swap_remove(count).value else {
            return if count == 0 { Ok(Vec::new()) } else { self.remove_cluster_wide(replica, path.as_str()) };
        };
        self.may_set(&path, &value)?;
        self.writes(replica, &path, vec![(path.clone(), value)])
    }

    /// The changes of the values at and below a path in the cluster, newest first, up to [`limits::HISTORY_MAX`](super::limits::HISTORY_MAX)
    /// before the last one of each. None while the node takes no part.
    ///
    /// # Errors
    ///
    /// [`SetError::InvalidPath`].
    pub fn history(&self, replica: &replica::State, path: &str) -> Result<Vec<Change>, SetError> {
        let path = checked_path(path)?;
        if !self.config.is_synced {
            return Ok(Vec::new());
        }
        let mut changes: Vec<Change> = keys(replica, &path).iter().flat_map(|at| self.changes(replica, at)).collect();
        changes.sort_by(|a, b| (b.stamp, b.proposer, &b.path).cmp(&(a.stamp, a.proposer, &a.path)));
        Ok(changes)
    }

    /// Takes note that an entry of the service has changed in the replica, by a write here or elsewhere. What is wrong with entries of this key is told
    /// each time, until they are replaced.
    pub fn on_changed(&mut self, key: &Key, replica: &replica::State, now: Now, events: &mut Vec<Event>) {
        if !self.config.is_synced {
            return;
        }
        let entries = siblings(replica, key);
        let Some((path, held)) = self.hold(key, &entries, now, events) else { return };
        let origin = entries.first().map_or(self.me, |entry| entry.origin);
        self.change(Some(&path.clone()), (Layer::Cluster, origin), events, |state| match held {
            Some(held) => drop(state.announced.insert(path, held)),
            None => drop(state.announced.remove(&path)),
        });
    }

    /// Takes note of all that the replica holds, as one change: for a node that begins with a replica that holds something.
    pub fn on_restored(&mut self, replica: &replica::State, now: Now, events: &mut Vec<Event>) {
        if !self.config.is_synced {
            return;
        }
        let mut all = BTreeMap::new();
        for (key, _) in replica.iter(SPACE) {
            if let Some((path, Some(held))) = self.hold(key, &siblings(replica, key), now, events) {
                all.insert(path, held);
            }
        }
        self.change(None, (Layer::Cluster, self.me), events, |state| state.announced = all);
    }

    /// Judges the entries of a key, and tells of those that are hidden and of a conflict. What remains to be told of, if the key has a path.
    fn hold(&mut self, key: &Key, entries: &[Entry<'_>], now: Now, events: &mut Vec<Event>) -> Option<(Path, Option<Held>)> {
        let path = match Path::of_key(key) {
            Ok(path) => path,
            Err(problem) => {
                let hide = |entry: &Entry<'_>| (entry.origin, Hidden::InvalidPath(problem));
                self.tell_hidden(key, entries.iter().map(hide).collect(), events);
                return None;
            }
        };
        let judged = self.judge(&path, entries);
        self.tell_hidden(key, judged.bad, events);
        if let Some(conflict) = self.conflict(&path, entries, judged.good, &judged.known, now) {
            self.counters.conflicts += 1;
            if self.conflicts.len() == CONFLICTS_MAX {
                self.conflicts.pop_front();
            }
            self.conflicts.push_back(conflict.clone());
            events.push(Event::Conflict(conflict));
        }
        let held = judged.shown.map(|found| {
            let (stamp, origin) = (found.stamp.unwrap_or_default(), found.origin);
            let is_it = |entry: &&Entry<'_>| (entry.stamp, entry.origin) == (stamp, origin);
            // The bytes of the replica where they say the same: no second copy.
            let bytes = entries.iter().find(is_it).map(|entry| entry.value.clone());
            let bytes = bytes.unwrap_or_else(|| Record { value: Some(found.value), ..Record::default() }.encode());
            Held { bytes, stamp, origin }
        });
        Some((path, held))
    }

    /// Takes part from now on in what is set for the whole cluster, or does so no more. What becomes visible or hidden by that is told.
    pub fn set_synced(&mut self, is_synced: bool, replica: &replica::State, now: Now, events: &mut Vec<Event>) {
        if is_synced == self.config.is_synced {
            return;
        }
        if is_synced {
            self.config.is_synced = true;
            self.on_restored(replica, now, events);
        } else {
            self.change(None, (Layer::Cluster, self.me), events, |state| {
                state.announced.clear();
                state.config.is_synced = false;
            });
        }
    }

    /// What the cluster has that decides on a path, or on all: oldest first, in which order newer values go over older ones.
    pub(super) fn cluster(&self, replica: Option<&replica::State>, path: Option<&Path>) -> Vec<(Path, Found)> {
        if !self.config.is_synced {
            return Vec::new();
        }
        let mut values: Vec<(Path, Found)> = match replica {
            Some(replica) => {
                let shown = |path: Path| {
                    let found = self.judge(&path, &siblings(replica, &path.key())).shown?;
                    Some((path, found))
                };
                let above = path.into_iter().flat_map(Path::above).filter_map(|above| Path::try_from(above).ok());
                let under = path.map_or_else(|| all_keys(replica), |path| keys(replica, path));
                above.chain(under).filter_map(shown).collect()
            }
            None => {
                let decode = |(path, held): (&Path, &Held)| Some((path.clone(), held.found()?));
                match path {
                    Some(path) => related(&self.announced, path).filter_map(decode).collect(),
                    None => self.announced.iter().filter_map(decode).collect(),
                }
            }
        };
        values.sort_by_key(|(_, found)| (found.stamp, found.origin));
        values
    }

    pub(super) fn hidden(&self, replica: &replica::State, path: &Path) -> Vec<HiddenEntry> {
        if !self.config.is_synced {
            return Vec::new();
        }
        let of_path = |path: Path| {
            let key = path.key();
            let bad = self.judge(&path, &siblings(replica, &key)).bad;
            bad.into_iter().map(move |(origin, problem)| HiddenEntry { key: key.clone(), origin, problem })
        };
        keys(replica, path).into_iter().flat_map(of_path).collect()
    }

    /// Decides what is shown of the entries of a path. If none passes, that is the last good value: the one shown so far, or after a restart
    /// the newest that the entries remember.
    pub(super) fn judge(&self, path: &Path, entries: &[Entry<'_>]) -> Judged {
        let mut judged = Judged::default();
        let mut former = Vec::new();
        for entry in entries {
            let Record { value, past, is_cut, .. } = match Record::decode(entry.value) {
                Ok(record) => record,
                Err(problem) => {
                    judged.bad.push((entry.origin, problem));
                    continue;
                }
            };
            match value.as_ref().map_or(Ok(()), |value| self.permits(path, value)) {
                Ok(()) => {
                    judged.good.push(Candidate { value, origin: entry.origin, stamp: entry.stamp });
                    judged.known = (past, !is_cut);
                }
                Err(problem) => {
                    former.extend(past);
                    judged.bad.push((entry.origin, problem));
                }
            }
        }
        judged.shown = match resolve(self.config.strategy, path, &judged.good) {
            Some(choice) => choice.value.map(|value| cluster_value(value, choice.stamp, choice.origin)),
            None if judged.bad.is_empty() => None,
            None => self.announced.get(path).and_then(Held::found).or_else(|| {
                former.sort_by_key(|past| (past.stamp, past.proposer));
                let passes = |past: &Past| past.value.as_ref().is_none_or(|value| self.permits(path, value).is_ok());
                let last = former.into_iter().rfind(passes)?;
                Some(cluster_value(last.value?, last.stamp, last.proposer))
            }),
        };
        judged
    }

    /// The conflict that entries show: with each other, or with a value shown so far which the writer of the newest did not know. The entry
    /// remembers what its writer knew.
    pub(super) fn conflict(
        &self,
        path: &Path,
        entries: &[Entry<'_>],
        mut candidates: Vec<Candidate>,
        (past, is_all): &(Vec<Past>, bool),
        now: Now,
    ) -> Option<Conflict> {
        if let [entry] = entries
            && let Some(held) = self.announced.get(path)
            && !candidates.is_empty()
        {
            let knew = past.iter().any(|past| (past.stamp, past.proposer) == (held.stamp, held.origin));
            let reaches = *is_all || past.last().is_some_and(|oldest| oldest.stamp < held.stamp);
            if !knew && reaches && (entry.stamp, entry.origin) > (held.stamp, held.origin) {
                candidates.push(Candidate { value: held.found().map(|found| found.value), origin: held.origin, stamp: held.stamp });
            }
        }
        let mut conflict = Conflict::between(self.config.strategy, path, candidates, now.wall)?;
        if entries.len() == 1 {
            // The replica has chosen already.
            conflict.chosen = resolve(super::Strategy::TimestampWins, path, &conflict.values)?;
        }
        Some(conflict)
    }

    fn tell_hidden(&mut self, key: &Key, bad: Vec<(PeerId, Hidden)>, events: &mut Vec<Event>) {
        for (origin, problem) in bad {
            tracing::debug!(key = %key, origin = ?origin, %problem, "entry not shown");
            self.counters.hidden += 1;
            events.push(Event::Hidden(HiddenEntry { key: key.clone(), origin, problem }));
        }
    }

    fn check_synced(&self) -> Result<(), SetError> {
        if self.config.is_synced { Ok(()) } else { Err(SetError::SyncOff) }
    }

    /// The changes of one value, newest first.
    fn changes(&self, replica: &replica::State, path: &Path) -> Vec<Change> {
        let record = known(&siblings(replica, &path.key()));
        let change = |past: Past| Change { path: path.clone(), stamp: past.stamp, proposer: past.proposer, value: past.value };
        record.into_iter().map(change).collect()
    }

    /// The writes after which the cluster has exactly `leaves` at and below `path`, and nothing above it.
    fn writes(&self, replica: &replica::State, path: &Path, leaves: Vec<(Path, Value)>) -> Result<Vec<Write>, SetError> {
        let mut wanted: BTreeMap<Path, Option<Value>> = leaves.into_iter().map(|(path, value)| (path, Some(value))).collect();
        let above = path.above().filter_map(|above| Path::try_from(above).ok());
        for there in above.chain(keys(replica, path)) {
            wanted.entry(there).or_insert(None);
        }
        let [a, b, c, d, e, f, g, h, ..] = *self.me.as_bytes();
        let mark = random::hash(&[u64::from_be_bytes([a, b, c, d, e, f, g, h]), replica.last_stamp().to_bits()]);
        let mut writes = Vec::new();
        for (path, value) in wanted {
            let key = path.key();
            let entries = siblings(replica, &key);
            let mut records = Vec::new();
            for entry in &entries {
                match Record::decode(entry.value) {
                    Err(Hidden::UnknownVersion(version)) => return Err(SetError::UnknownVersion { path, version }),
                    record => records.push(record),
                }
            }
            let is_so = match records.as_slice() {
                [] => value.is_none(),
                [Ok(record)] => record.value == value,
                _ => false,
            };
            if is_so {
                continue;
            }
            if value.is_none() && !self.is_updatable(&path) {
                return Err(SetError::NotUpdatable(path));
            }
            let is_cut = records.iter().flatten().any(|record| record.is_cut);
            let record = Record { value, past: known(&entries), is_cut, mark };
            writes.push(Write::put(key, record.encode()));
        }
        if writes.len() > WRITES_MAX {
            return Err(SetError::TooMany { len: writes.len(), len_max: WRITES_MAX });
        }
        Ok(writes)
    }
}

fn cluster_value(value: Value, stamp: Stamp, origin: PeerId) -> Found {
    Found { value, layer: Layer::Cluster, origin, stamp: Some(stamp) }
}

/// The values that entries have and remember, newest first.
fn known(entries: &[Entry<'_>]) -> Vec<Past> {
    let mut known = Vec::new();
    for entry in entries {
        let Ok(record) = Record::decode(entry.value) else { continue };
        known.push(Past { stamp: entry.stamp, proposer: entry.origin, value: record.value });
        known.extend(record.past);
    }
    known.sort_by_key(|past| std::cmp::Reverse((past.stamp, past.proposer)));
    known.dedup_by_key(|past| (past.stamp, past.proposer));
    known
}

/// The paths at and below `path` that have an entry.
fn keys(replica: &replica::State, path: &Path) -> Vec<Path> {
    let below = format!("{SPACE}{path}/");
    let exact = replica.entry(&path.key()).map(|_| path.clone());
    let below = replica.iter(&below).filter_map(|(key, _)| Path::of_key(key).ok());
    exact.into_iter().chain(below).collect()
}

fn all_keys(replica: &replica::State) -> Vec<Path> {
    replica.iter(SPACE).filter_map(|(key, _)| Path::of_key(key).ok()).collect()
}
