//! A map from texts to numbers in each of the libraries, its writes, and whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ROOT};
use loro::{ExportMode, LoroDoc};
use meshwork::channels::{Now, PeerId, Time, WallTime, encode};
use meshwork::crdt::journal::{Head, Image, Kind, Writer};
use meshwork::crdt::replica::{Action, Config, Input, State};
use meshwork::crdt::{Key, Op};
use yrs::updates::decoder::Decode;
use yrs::{Doc, MapRef, Observable, ReadTxn, StateVector, Transact, Update};

use crate::Failure;

/// What every subject can do. Writes of one call travel together.
pub(crate) trait Map {
    /// Writes numbers; what others need to know.
    fn write(&mut self, writes: &[(String, u64)]) -> Result<Vec<u8>, Failure>;

    /// Takes what another one wrote.
    fn apply(&mut self, update: &[u8]) -> Result<(), Failure>;

    /// From now on somebody hears of every change.
    fn watch(&mut self);

    /// Changes that they heard of.
    fn seen(&self) -> usize;

    /// Bytes of the whole map as it is kept, and in the shortest form that there is.
    fn state_bytes(&mut self) -> Result<(usize, usize), Failure>;
}

pub(crate) struct Meshwork {
    state: State,
    image: Image,
    time: Time,
    actions: Vec<Action>,
    seen: usize,
}

impl Meshwork {
    pub(crate) fn new(number: u64) -> Result<Self, Failure> {
        let mut state = State::new(peer(number), Config::default().build()?, number);
        state.restore([]);
        Ok(Meshwork { state, image: Image::default(), time: Time::ZERO, actions: Vec::new(), seen: 0 })
    }

    fn now(&self) -> Now {
        Now { time: self.time, wall: WallTime::from_millis(1_700_000_000_000) + self.time.since(Time::ZERO) }
    }

    /// What is to be written down, which else grows.
    fn record(&mut self) {
        for record in self.state.records(usize::MAX, self.now()) {
            self.image.apply(record);
        }
    }
}

fn peer(number: u64) -> PeerId {
    PeerId::from_bytes([number as u8; 32])
}

impl Map for Meshwork {
    fn write(&mut self, writes: &[(String, u64)]) -> Result<Vec<u8>, Failure> {
        self.time += Duration::from_millis(10);
        let writes = writes.iter().map(|(key, value)| Ok((Key::try_from(&**key)?, Op::Set(value.to_le_bytes().to_vec().into()))));
        let writes = writes.collect::<Result<_, Failure>>()?;
        self.state.batch(writes, self.now(), &mut self.actions)?;
        self.record();
        let sent = self.actions.drain(..).find_map(|action| if let Action::Broadcast(bytes) = action { Some(bytes) } else { None });
        Ok(sent.ok_or("nothing was broadcast")?.to_vec())
    }

    fn apply(&mut self, update: &[u8]) -> Result<(), Failure> {
        self.time += Duration::from_millis(10);
        let delta = Input::Delta { origin: peer(1), bytes: update.to_vec().into() };
        self.state.handle(delta, self.now(), &mut self.actions);
        self.seen += self.actions.drain(..).filter(|action| matches!(action, Action::Changed { .. })).count();
        Ok(())
    }

    fn watch(&mut self) {}

    fn seen(&self) -> usize {
        self.seen
    }

    fn state_bytes(&mut self) -> Result<(usize, usize), Failure> {
        let mut file = Vec::new();
        let mut writer = Writer::begin(Head { kind: Kind::Snapshot, number: 1, salt: 1 }, &mut file);
        self.image.records().for_each(|record| writer.push(&record, &mut file));
        writer.end(&mut file);
        let entries = self.state.keys("").filter_map(|(key, _)| self.state.entry_of(key));
        Ok((file.len(), entries.map(|entry| encode(&entry).len()).sum()))
    }
}

pub(crate) struct AutomergeMap {
    doc: AutoCommit,
    is_watched: bool,
    seen: usize,
}

impl AutomergeMap {
    pub(crate) fn new(number: u64) -> Self {
        let actor = automerge::ActorId::from(number.to_le_bytes());
        AutomergeMap { doc: AutoCommit::new().with_actor(actor), is_watched: false, seen: 0 }
    }
}

impl Map for AutomergeMap {
    fn write(&mut self, writes: &[(String, u64)]) -> Result<Vec<u8>, Failure> {
        for (key, value) in writes {
            self.doc.put(ROOT, &**key, *value)?;
        }
        self.doc.commit();
        Ok(self.doc.get_last_local_change().ok_or("nothing was committed")?.raw_bytes().to_vec())
    }

    fn apply(&mut self, update: &[u8]) -> Result<(), Failure> {
        self.doc.load_incremental(update)?;
        if self.is_watched {
            self.seen += self.doc.diff_incremental().len();
        }
        Ok(())
    }

    fn watch(&mut self) {
        self.is_watched = true;
        self.doc.update_diff_cursor();
    }

    fn seen(&self) -> usize {
        self.seen
    }

    fn state_bytes(&mut self) -> Result<(usize, usize), Failure> {
        let bytes = self.doc.save().len();
        Ok((bytes, bytes))
    }
}

pub(crate) struct YrsMap {
    doc: Doc,
    map: MapRef,
    seen: Arc<AtomicUsize>,
}

impl YrsMap {
    pub(crate) fn new(number: u64) -> Self {
        let doc = Doc::with_client_id(number);
        let map = doc.get_or_insert_map("map");
        YrsMap { doc, map, seen: Arc::default() }
    }
}

impl Map for YrsMap {
    fn write(&mut self, writes: &[(String, u64)]) -> Result<Vec<u8>, Failure> {
        let mut transaction = self.doc.transact_mut();
        for (key, value) in writes {
            yrs::Map::insert(&self.map, &mut transaction, &**key, i64::try_from(*value)?);
        }
        Ok(transaction.encode_update_v1())
    }

    fn apply(&mut self, update: &[u8]) -> Result<(), Failure> {
        let update = Update::decode_v1(update)?;
        self.doc.transact_mut().apply_update(update)?;
        Ok(())
    }

    fn watch(&mut self) {
        let seen = self.seen.clone();
        self.map.observe("watch", move |transaction, event| {
            seen.fetch_add(event.keys(transaction).len(), Ordering::Relaxed);
        });
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    fn state_bytes(&mut self) -> Result<(usize, usize), Failure> {
        let bytes = self.doc.transact().encode_state_as_update_v1(&StateVector::default()).len();
        Ok((bytes, bytes))
    }
}

pub(crate) struct LoroMaps {
    doc: LoroDoc,
    watch: Option<loro::Subscription>,
    seen: Arc<AtomicUsize>,
}

impl LoroMaps {
    pub(crate) fn new(number: u64) -> Result<Self, Failure> {
        let doc = LoroDoc::new();
        doc.set_peer_id(number)?;
        Ok(LoroMaps { doc, watch: None, seen: Arc::default() })
    }
}

impl Map for LoroMaps {
    fn write(&mut self, writes: &[(String, u64)]) -> Result<Vec<u8>, Failure> {
        let before = self.doc.oplog_vv();
        let map = self.doc.get_map("map");
        for (key, value) in writes {
            map.insert(key, i64::try_from(*value)?)?;
        }
        self.doc.commit();
        Ok(self.doc.export(ExportMode::updates(&before))?)
    }

    fn apply(&mut self, update: &[u8]) -> Result<(), Failure> {
        self.doc.import(update)?;
        Ok(())
    }

    fn watch(&mut self) {
        let seen = self.seen.clone();
        let count = move |event: loro::event::DiffEvent<'_>| {
            for diff in event.events {
                if let loro::event::Diff::Map(map) = diff.diff {
                    seen.fetch_add(map.updated.len(), Ordering::Relaxed);
                }
            }
        };
        self.watch = Some(self.doc.subscribe_root(Arc::new(count)));
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    fn state_bytes(&mut self) -> Result<(usize, usize), Failure> {
        let shallow = self.doc.export(ExportMode::shallow_snapshot(&self.doc.oplog_frontiers()))?.len();
        Ok((self.doc.export(ExportMode::Snapshot)?.len(), shallow))
    }
}
