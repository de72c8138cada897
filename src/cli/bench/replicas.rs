//! Replicas by hand, for `bench state`: filled without a network, and repaired by messages that are handed over as the bytes that a connection would carry.
//!
//! Time is a number here: a pair moves on to what is due next, and a message takes none. So bytes and round trips are the same on every machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::quic::NodeKey;
use meshwork_channels::random::mix;
use meshwork_channels::{Bounded, Now, PeerId, Time, WallTime, decode, encode};
use meshwork_crdt::replica::{Action, Config, Input, Message, State};
use meshwork_crdt::wire::{Body, Delta, ENTRIES_MAX, Entry, WRITES_MAX, Write};
use meshwork_crdt::{Key, Stamp, Value};

use super::machine::thread_cpu_time;
use crate::cli::Failure;

pub(super) const KEY_BYTES: usize = 16;
pub(super) const VALUE_BYTES: usize = 100;
/// Bytes of all keys and values that replicas are allowed here.
const STATE_BYTES_MAX: usize = 256 << 20;
/// Keys for which there is room beside those that a replica is filled with.
const KEYS_SPARE: usize = 20_000;
/// How long two replicas have in their own time until they are equal.
const PATIENCE: Duration = Duration::from_secs(600);
/// Changes that a watcher keeps until it reads them.
const WATCHED_MAX: usize = 16_384;

/// A key of 16 bytes; consecutive ones are in no order, as they are written in a cluster.
pub(super) fn key(number: usize) -> Key {
    Key::try_from(&*format!("{:016x}", mix(number as u64))).expect("sixteen bytes are a key")
}

/// A value that differs from those of other serials.
pub(super) fn value(serial: u64) -> Bytes {
    let mut value = vec![7; VALUE_BYTES];
    value[..8].copy_from_slice(&serial.to_le_bytes());
    value.into()
}

pub(super) fn peer(number: usize) -> PeerId {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

pub(super) fn at(time: Time) -> Now {
    Now { time, wall: WallTime::from_millis(1_700_000_000_000) + time.since(Time::ZERO) }
}

/// A stamp of this moment.
pub(super) fn stamp(time: Time) -> Stamp {
    Stamp::from_parts(at(time).wall.as_millis(), 0)
}

pub(super) fn empty(number: usize, keys: usize) -> Result<State, Failure> {
    let config = Config { keys_max: keys + KEYS_SPARE, state_bytes_max: STATE_BYTES_MAX, ..Config::local() };
    Ok(State::new(peer(number), config.build().map_err(Failure::new)?, number as u64))
}

/// A replica of the node with this key, of which every write leaves at once, signed or not.
pub(super) fn signing(node: &NodeKey, is_signed: bool) -> Result<State, Failure> {
    // All that keys begin with here.
    let signed = if is_signed { (0..16).map(|digit| format!("{digit:x}")).collect() } else { Vec::new() };
    let config = Config { flush_delay: Duration::ZERO, signed, ..Config::local() };
    let params = config.build_signed(Arc::new(node.clone()), [0; 32]).map_err(Failure::new)?;
    Ok(State::new(node.peer_id(), params, 1))
}

/// A replica with so many keys, of so many writers.
pub(super) fn filled(number: usize, keys: usize, origins: usize) -> Result<State, Failure> {
    let mut state = empty(number, keys)?;
    let mut actions = Vec::new();
    for first in (0..keys).step_by(ENTRIES_MAX) {
        let entries = (first..keys.min(first + ENTRIES_MAX)).map(|number| Entry {
            key: key(number),
            stamp: stamp(Time::ZERO),
            origin: peer(100 + number % origins),
            body: Body::Register(value(0)),
        });
        let message = Message::Entries { entries: Bounded::first_of(entries) };
        state.handle(Input::Received { from: peer(99), message }, at(Time::ZERO), &mut actions);
        actions.clear();
    }
    if state.len() != keys {
        return Err(Failure::new(format!("a replica took {} of {keys} keys", state.len())));
    }
    Ok(state)
}

/// What a node broadcasts after it wrote these keys.
pub(super) fn delta(numbers: impl Iterator<Item = usize>, stamp: Stamp, serial: u64) -> Bytes {
    let mut writes: Vec<Write> = numbers.map(|number| Write { key: key(number), stamp, body: Body::Register(value(serial)) }).collect();
    writes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    encode(&Delta::Writes(Bounded::first_of(writes)))
}

/// Whoever watches all keys: keeps what changed until it reads, which is whenever it has much.
#[derive(Default)]
pub(super) struct Watcher {
    changes: VecDeque<(Key, Option<Value>)>,
    pub(super) seen: usize,
}

impl Watcher {
    pub(super) fn note(&mut self, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            if let Action::Changed { key, value, .. } = action {
                self.seen += 1;
                self.changes.push_back((key, value));
            }
        }
        if self.changes.len() >= WATCHED_MAX {
            self.changes.clear();
        }
    }
}

/// What it took until two replicas were equal.
#[derive(Clone, Copy, Default)]
pub(super) struct Repair {
    /// Of all messages but entries.
    pub(super) bytes: usize,
    /// Of the messages that carry entries.
    pub(super) entry_bytes: usize,
    pub(super) round_trips: f64,
    /// Of the one who asks, and of the one who is asked.
    pub(super) cpu: [Duration; 2],
    /// Of their own time, in which messages take none: waiting for turns and allowances.
    pub(super) waited: Duration,
    /// Entries that one had of the other.
    pub(super) repaired: u64,
}

/// Two neighbors, of which the first asks.
pub(super) struct Pair {
    replicas: [State; 2],
    time: Time,
    serial: u64,
}

impl Pair {
    pub(super) fn new(replicas: [State; 2]) -> Self {
        let mut pair = Pair { replicas, time: Time::from_secs(1), serial: 0 };
        pair.meet();
        pair
    }

    /// Another one in place of the first.
    pub(super) fn replace_first(&mut self, state: State) {
        self.replicas[1].handle(Input::NeighborDown(peer(0)), at(self.time), &mut Vec::new());
        self.replicas[0] = state;
        self.meet();
    }

    fn meet(&mut self) {
        for (index, state) in self.replicas.iter_mut().enumerate() {
            state.handle(Input::NeighborUp(peer(1 - index)), at(self.time), &mut Vec::new());
        }
    }

    fn is_equal(&self) -> bool {
        self.replicas[0].digest() == self.replicas[1].digest()
    }

    fn repaired(&self) -> u64 {
        self.replicas.iter().map(|state| state.counters().repaired).sum()
    }

    /// Writes so many keys, spread over all of them, that only one of both hears of.
    pub(super) fn differ(&mut self, writer: usize, keys: usize, count: usize) {
        self.serial += 1;
        self.time += Duration::from_secs(1);
        let first = mix(self.serial) as usize % keys;
        let numbers: Vec<usize> = (0..count).map(|index| (first + index * (keys / count)) % keys).collect();
        for numbers in numbers.chunks(WRITES_MAX / 4) {
            let bytes = delta(numbers.iter().copied(), stamp(self.time), self.serial);
            self.replicas[writer].handle(Input::Delta { origin: peer(98), bytes }, at(self.time), &mut Vec::new());
        }
        // What was written a moment ago is taken to be on its way.
        self.time += Duration::from_secs(1);
    }

    /// Lets the first ask until both are equal.
    pub(super) fn repair(&mut self) -> Result<Repair, Failure> {
        let (begun, repaired, is_idle) = (self.time, self.repaired(), self.is_equal());
        let mut run = Repair::default();
        let mut mail: Vec<(usize, Bytes)> = Vec::new();
        let mut asked = None;
        loop {
            if mail.is_empty() {
                if asked.is_some() && self.is_equal() {
                    run.waited = self.time.since(asked.unwrap_or(begun));
                    run.repaired = self.repaired() - repaired;
                    return Ok(run);
                }
                let due = self.replicas[0].next_deadline().unwrap_or(Time::MAX);
                self.time = self.time.max(due);
                if self.time.since(begun) > PATIENCE {
                    return Err(Failure::new(format!("two replicas still differ after {} s of their time", PATIENCE.as_secs())));
                }
                let from = thread_cpu_time();
                self.handle(0, Input::DeadlineReached, &mut run, &mut mail);
                run.cpu[0] += thread_cpu_time().saturating_sub(from);
                asked = asked.or((!mail.is_empty()).then_some(self.time));
                continue;
            }
            run.round_trips += if is_idle || !self.is_equal() { 0.5 } else { 0.0 };
            for (to, bytes) in std::mem::take(&mut mail) {
                let from = thread_cpu_time();
                let message = decode(&bytes).map_err(|error| Failure::new(format!("a message came out otherwise: {error}")))?;
                self.handle(to, Input::Received { from: peer(1 - to), message }, &mut run, &mut mail);
                run.cpu[to] += thread_cpu_time().saturating_sub(from);
            }
        }
    }

    fn handle(&mut self, index: usize, input: Input, run: &mut Repair, mail: &mut Vec<(usize, Bytes)>) {
        let mut actions = Vec::new();
        self.replicas[index].handle(input, at(self.time), &mut actions);
        for action in actions {
            if let Action::Send { message, .. } = action {
                let bytes = encode(&message);
                let counted = if matches!(message, Message::Entries { .. }) { &mut run.entry_bytes } else { &mut run.bytes };
                *counted += bytes.len();
                mail.push((1 - index, bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_repaired_and_counted() {
        let mut pair = Pair::new([filled(0, 2_000, 10).unwrap(), filled(1, 2_000, 10).unwrap()]);
        assert_eq!(pair.repair().unwrap().repaired, 0);
        for writer in [0, 1] {
            pair.differ(writer, 2_000, 150);
            assert!(!pair.is_equal());
            let run = pair.repair().unwrap();
            assert_eq!(run.repaired, 150);
            assert!(run.entry_bytes > 150 * (KEY_BYTES + VALUE_BYTES) && run.bytes < run.entry_bytes);
        }
        pair.replace_first(empty(0, 2_000).unwrap());
        assert_eq!(pair.repair().unwrap().repaired, 2_000);
        assert_eq!(pair.replicas[0].get(&key(7)), pair.replicas[1].get(&key(7)));
    }
}
