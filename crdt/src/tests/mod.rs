//! Replicas by hand and in a small network in virtual time. The network loses, repeats and reorders, and checks of every message that it
//! fits its limit and survives its encoding, of every replica that `Changed` tells all that `read` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Bounded, DecodeError, Misbehavior, Now, PeerId, Time, WallTime, decode, encode, limits};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::confirm::{CONFIRMS_MAX, Call, ConfirmError, ConfirmId, Confirmed, Decline};
use crate::digest::Digest;
use crate::hlc::{Clock, Stamp};
use crate::key::{Key, KeyError};
use crate::register::Register;
use crate::replica::{Action, Config, Counters, Entry, Input, Kind, Message, Op, Params, Quota, Reunion, SetError, State, Value};
use crate::sketch::{CELLS_MAX, Sketch};
use crate::store::{Bounds, Merged, Store};
use crate::token::WriteToken;
use crate::wire::{self, Body, Delta, GLIMPSE_BYTES, KeyHash, Name, Named, Range, Row, SHARDS, ShardSum, Write};

mod bounds;
mod clock;
mod collecting;
mod confirming;
mod durable;
mod expiring;
mod golden;
mod hostile;
mod journaling;
mod laws;
mod repairing;
mod reunions;
mod signing;
mod sketching;
mod stamps_ahead;
mod traces;
mod values;
mod writing;

/// Wall time at the start of every test.
const EPOCH: WallTime = WallTime::from_millis(1_700_000_000_000);
const HOUR_MILLIS: i64 = 3_600_000;

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn at(time: Time) -> Now {
    Now { time, wall: EPOCH + time.since(Time::ZERO) }
}

fn at_millis(millis: u64) -> Now {
    at(Time::from_millis(millis))
}

fn params(config: Config) -> Params {
    config.build().unwrap()
}

fn replica(number: u8) -> State {
    State::new(peer(number), params(Config::default()), 7)
}

fn delta(writes: impl IntoIterator<Item = (&'static str, Stamp, Option<&'static str>)>) -> Bytes {
    let writes = writes.into_iter().map(|(name, stamp, value)| Write {
        key: key(name),
        stamp,
        body: value.map_or(Body::Removed, |value| Body::Register(bytes(value))),
    });
    encode(&Delta::Writes(Bounded::first_of(writes)))
}

fn stamp_ahead(now: Now, millis: i64) -> Stamp {
    Stamp::from_parts(now.wall.as_millis().saturating_add_signed(millis), 0)
}

fn content(state: &State) -> Vec<(Key, Bytes, Stamp, PeerId)> {
    state.iter("").map(|(key, entry)| (key.clone(), entry.value.clone(), entry.stamp, entry.origin)).collect()
}

fn changed(actions: &[Action]) -> Vec<(&str, Option<&[u8]>)> {
    let mut changed = Vec::new();
    for action in actions {
        if let Action::Changed { key, value, .. } = action {
            changed.push((key.as_str(), value.as_ref().map(|value| &value.bytes().unwrap()[..])));
        }
    }
    changed
}

fn broadcasts(actions: &[Action]) -> Vec<Vec<Write>> {
    let one = |action: &Action| match action {
        Action::Broadcast(bytes) => {
            assert!(bytes.len() <= limits::BROADCAST_BYTES_MAX);
            let Delta::Writes(writes) = decode(bytes).unwrap();
            Some(writes.into_vec())
        }
        _ => None,
    };
    actions.iter().filter_map(one).collect()
}

fn misbehaviors(actions: &[Action]) -> Vec<(PeerId, Misbehavior)> {
    let one = |action: &Action| match action {
        Action::Misbehaved { peer, what } => Some((*peer, *what)),
        _ => None,
    };
    actions.iter().filter_map(one).collect()
}

/// Replicas that talk over links with delay, loss and repetition.
struct Network {
    time: Time,
    replicas: Vec<State>,
    /// What each replica's application knows from `Changed` alone.
    views: Vec<BTreeMap<Key, Value>>,
    wall_offset_millis: Vec<i64>,
    queue: BTreeMap<(Time, u64), (usize, Input)>,
    queued: u64,
    /// Pairs that do not reach each other.
    cut: BTreeSet<(usize, usize)>,
    generator: Generator,
    broadcast_loss: f64,
    control_loss: f64,
    delay_millis: std::ops::Range<u64>,
    /// Whether messages of repair stay in order, as they do on a stream. The last arrival on each link.
    is_ordered: bool,
    arrivals: BTreeMap<(usize, usize), Time>,
    /// Messages of repair, their bytes, and how many were requests for rows.
    messages: u64,
    message_bytes: u64,
    compares: u64,
    misbehaved: Vec<(PeerId, Misbehavior)>,
    reunions: BTreeMap<usize, Vec<Reunion>>,
    /// How confirmations ended.
    confirmed: Vec<(usize, ConfirmId, Confirmed)>,
    /// Broadcasts that were lost to one replica.
    lost: u64,
    /// A hash of all that happened, while it is noted.
    trace: u64,
    is_noted: bool,
}

impl Network {
    fn new(count: usize, seed: u64, config: &Config) -> Self {
        let replicas = (0..count)
            .map(|index| State::new(peer(index as u8), signing::params(index as u8, config.clone()), seed ^ index as u64))
            .collect();
        Network {
            time: Time::ZERO,
            replicas,
            views: vec![BTreeMap::new(); count],
            wall_offset_millis: vec![0; count],
            queue: BTreeMap::new(),
            queued: 0,
            cut: BTreeSet::new(),
            generator: generator(seed, "network", 0),
            broadcast_loss: 0.0,
            control_loss: 0.0,
            delay_millis: 1..20,
            is_ordered: true,
            arrivals: BTreeMap::new(),
            messages: 0,
            message_bytes: 0,
            compares: 0,
            misbehaved: Vec::new(),
            reunions: BTreeMap::new(),
            confirmed: Vec::new(),
            lost: 0,
            trace: 0,
            is_noted: true,
        }
    }

    fn now(&self, index: usize) -> Now {
        let mut now = at(self.time);
        now.wall = WallTime::from_micros(now.wall.as_micros().saturating_add_signed(self.wall_offset_millis[index] * 1_000));
        now
    }

    fn connect_all(&mut self) {
        let count = self.replicas.len();
        for a in 0..count {
            for b in 0..count {
                if a != b {
                    self.handle(a, Input::NeighborUp(peer(b as u8)));
                }
            }
        }
    }

    fn handle(&mut self, index: usize, input: Input) {
        let mut actions = Vec::new();
        let now = self.now(index);
        self.replicas[index].handle(input, now, &mut actions);
        self.execute(index, actions);
    }

    fn set(&mut self, index: usize, key: &str, value: &str) -> Stamp {
        let mut actions = Vec::new();
        let now = self.now(index);
        let stamp = self.replicas[index].set(key, bytes(value), now, &mut actions).unwrap();
        self.execute(index, actions);
        stamp
    }

    fn remove(&mut self, index: usize, key: &str) {
        self.apply(index, key, Op::Remove).unwrap();
    }

    fn apply(&mut self, index: usize, key: &str, op: Op) -> Result<Option<Stamp>, SetError> {
        let mut actions = Vec::new();
        let now = self.now(index);
        let written = self.replicas[index].apply(key, op, now, &mut actions);
        self.execute(index, actions);
        written
    }

    fn execute(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            if self.is_noted {
                self.note(index as u64, &action);
            }
            match action {
                Action::Send { to, message } => {
                    let encoded = encode(&message);
                    assert!(encoded.len() < limits::CONTROL_BYTES_MAX, "{} of {} bytes", message.name(), encoded.len());
                    assert_eq!(decode::<Message>(&encoded).as_ref(), Ok(&message));
                    self.messages += 1;
                    self.message_bytes += encoded.len() as u64;
                    self.compares += u64::from(matches!(message, Message::Compare { .. }));
                    let to = usize::from(to.as_bytes()[0]);
                    if !self.generator.random_bool(self.control_loss) {
                        self.send(index, to, Input::Received { from: peer(index as u8), message });
                    }
                }
                Action::Broadcast(bytes) => {
                    assert!(bytes.len() <= limits::BROADCAST_BYTES_MAX);
                    for to in (0..self.replicas.len()).filter(|to| *to != index) {
                        let copies = if self.generator.random_bool(self.broadcast_loss) { 0 } else { self.generator.random_range(1..=2) };
                        self.lost += u64::from(copies == 0);
                        for _ in 0..copies {
                            self.send(index, to, Input::Delta { origin: peer(index as u8), bytes: bytes.clone() });
                        }
                    }
                }
                Action::Changed { key, value, stamp, .. } => {
                    assert!(stamp <= self.replicas[index].last_stamp());
                    match value {
                        Some(value) => assert_ne!(self.views[index].insert(key, value.clone()), Some(value), "nothing changed"),
                        None => assert!(self.views[index].remove(&key).is_some(), "nothing changed"),
                    }
                }
                Action::Reunited(reunion) => self.reunions.entry(index).or_default().push(reunion),
                Action::Confirmed { id, confirmed } => self.confirmed.push((index, id, confirmed)),
                Action::Misbehaved { peer, what } => self.misbehaved.push((peer, what)),
            }
        }
        let replica = &self.replicas[index];
        if replica.len() > 500 {
            return;
        }
        let shown: BTreeMap<Key, Value> = replica.keys("").map(|(key, _)| (key.clone(), replica.read(key).unwrap())).collect();
        assert_eq!(shown, self.views[index], "Changed tells all that read shows");
    }

    fn send(&mut self, from: usize, to: usize, input: Input) {
        if self.cut.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let mut arrival = self.time + Duration::from_millis(self.generator.random_range(self.delay_millis.clone()));
        if self.is_ordered && matches!(input, Input::Received { .. }) {
            let last = self.arrivals.entry((from, to)).or_default();
            arrival = arrival.max(*last);
            *last = arrival;
        }
        self.queued += 1;
        self.queue.insert((arrival, self.queued), (to, input));
    }

    fn note(&mut self, index: u64, action: &Action) {
        let text = format!("{index} {action:?}");
        self.trace = text.bytes().fold(self.trace, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// Handles everything that is due up to a moment.
    fn run_until(&mut self, end: Time) {
        loop {
            let delivery = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadline = (0..self.replicas.len()).filter_map(|index| Some((self.replicas[index].next_deadline()?, index))).min();
            let due = [delivery, deadline.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.time = self.time.max(due);
            match deadline {
                Some((at, index)) if at == due => self.handle(index, Input::DeadlineReached),
                _ => {
                    let (_, (to, input)) = self.queue.pop_first().unwrap();
                    self.handle(to, input);
                }
            }
        }
        self.time = end;
    }

    fn run_for(&mut self, duration: Duration) {
        self.run_until(self.time + duration);
    }

    fn has_converged(&self) -> bool {
        self.replicas.windows(2).all(|pair| pair[0].digest() == pair[1].digest())
    }

    fn assert_converged(&mut self) {
        for index in 1..self.replicas.len() {
            assert_eq!(self.replicas[index].digest(), self.replicas[0].digest(), "replica {index}");
            assert_eq!(content(&self.replicas[index]), content(&self.replicas[0]), "replica {index}");
            for (key, _) in self.replicas[0].keys("") {
                assert_eq!(self.replicas[index].read(key), self.replicas[0].read(key), "{key} of replica {index}");
            }
        }
        self.replicas.iter_mut().for_each(|replica| replica.store().check_sums());
    }
}
