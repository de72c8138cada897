//! Replicas by hand and in a small network in virtual time. The network loses, repeats and reorders, and checks of every message that it
//! fits its limit and survives its encoding, of every replica that `Changed` tells all that `get` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Bounded, DecodeError, Misbehavior, Now, PeerId, Time, WallTime, decode, encode, limits};
use rand::RngExt;
use rand::seq::SliceRandom;

use crate::digest::Digest;
use crate::hlc::{Clock, Stamp};
use crate::key::{Key, KeyError};
use crate::replica::{Action, Config, Counters, Entry, Input, Message, Params, Quota, SetError, State};
use crate::store::{Bounds, Merged, Store};
use crate::wire::{self, Delta, KeyHash, Range, Row, SHARDS, ShardSum, Value, Write};

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
        value: value.map_or(Value::Removed, |value| Value::Register(bytes(value))),
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
            changed.push((key.as_str(), value.as_deref()));
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
    views: Vec<BTreeMap<Key, Bytes>>,
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
    /// A hash of all that happened.
    trace: u64,
}

impl Network {
    fn new(count: usize, seed: u64, config: &Config) -> Self {
        let replicas = (0..count).map(|index| State::new(peer(index as u8), params(config.clone()), seed ^ index as u64)).collect();
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
            trace: 0,
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
        let mut actions = Vec::new();
        let now = self.now(index);
        self.replicas[index].remove(key, now, &mut actions).unwrap();
        self.execute(index, actions);
    }

    fn execute(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            self.note(index as u64, &action);
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
                        for _ in 0..copies {
                            self.send(index, to, Input::Delta { origin: peer(index as u8), bytes: bytes.clone() });
                        }
                    }
                }
                Action::Changed { key, value, stamp } => {
                    assert_eq!(self.replicas[index].entry(&key).map(|entry| entry.stamp), value.as_ref().map(|_| stamp));
                    match value {
                        Some(value) => assert_ne!(self.views[index].insert(key, value.clone()), Some(value), "nothing changed"),
                        None => assert!(self.views[index].remove(&key).is_some(), "nothing changed"),
                    }
                }
                Action::Misbehaved { peer, what } => self.misbehaved.push((peer, what)),
            }
        }
        let shown: BTreeMap<Key, Bytes> = if self.replicas[index].len() > 500 {
            return;
        } else {
            content(&self.replicas[index]).into_iter().map(|(key, value, ..)| (key, value)).collect()
        };
        assert_eq!(shown, self.views[index], "Changed tells all that get shows");
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
        }
        self.replicas.iter_mut().for_each(|replica| replica.store().check_sums());
    }
}

mod clock {
    use super::*;

    const AHEAD_MAX: Duration = limits::STAMP_AHEAD_MAX;

    #[test]
    fn stamps_order_by_time_and_then_by_counter() {
        assert_eq!(Stamp::from_parts(5, 6).millis(), 5);
        assert_eq!(Stamp::from_parts(5, 6).counter(), 6);
        assert!(Stamp::from_parts(5, u16::MAX) < Stamp::from_parts(6, 0));
        assert_eq!(Stamp::from_parts(u64::MAX, u16::MAX), Stamp::MAX);
        assert_eq!(Stamp::from_parts(5, 6).to_string(), "5.6");
        assert_eq!(encode(&Stamp::from_parts(0x0102_0304_0506, 0x0708))[..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    /// Section 3, local events: the wall clock if it is ahead, else the counter.
    #[test]
    fn a_local_event_takes_the_wall_clock_or_counts() {
        let mut clock = Clock::new();
        assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(10, 0));
        assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(10, 1));
        assert_eq!(clock.tick(WallTime::from_millis(12)), Stamp::from_parts(12, 0));
    }

    /// Section 3, receive events: what is written after is after, although our own clock is behind.
    #[test]
    fn a_slow_clock_heals_by_what_it_hears() {
        let mut clock = Clock::new();
        clock.tick(WallTime::from_millis(10));
        assert_eq!(clock.observe(Stamp::from_parts(400, 9), WallTime::from_millis(10), AHEAD_MAX), Ok(()));
        assert_eq!(clock.tick(WallTime::from_millis(11)), Stamp::from_parts(400, 10));
        assert_eq!(clock.tick(WallTime::from_millis(401)), Stamp::from_parts(401, 0));
    }

    #[test]
    fn never_goes_back() {
        let mut clock = Clock::new();
        let before = clock.tick(WallTime::from_millis(10 * 3_600_000));
        assert_eq!(clock.tick(WallTime::from_millis(9 * 3_600_000)), Stamp::from_bits(before.to_bits() + 1));
        assert_eq!(clock.tick(WallTime::from_millis(0)), Stamp::from_bits(before.to_bits() + 2));
    }

    #[test]
    fn an_overflowing_counter_carries_into_the_milliseconds() {
        let mut clock = Clock::new();
        let mut last = Stamp::ZERO;
        for _ in 0..=u16::MAX {
            let stamp = clock.tick(WallTime::from_millis(10));
            assert!(stamp > last);
            last = stamp;
        }
        assert_eq!(last, Stamp::from_parts(10, u16::MAX));
        assert_eq!(clock.tick(WallTime::from_millis(10)), Stamp::from_parts(11, 0));
    }

    #[test]
    fn too_far_ahead_is_refused_without_effect() {
        let mut clock = Clock::new();
        let wall = WallTime::from_millis(1_000);
        assert_eq!(clock.observe(Stamp::from_parts(1_500, u16::MAX), wall, AHEAD_MAX), Ok(()));
        let before = clock.last();
        let refused = clock.observe(Stamp::from_parts(1_501, 0), wall, AHEAD_MAX).unwrap_err();
        assert_eq!(refused.by, Duration::from_millis(501));
        assert!(clock.observe(Stamp::MAX, wall, AHEAD_MAX).is_err());
        assert_eq!(clock.last(), before);
    }

    #[test]
    fn absurd_wall_clocks_leave_room_to_count() {
        let mut clock = Clock::new();
        let first = clock.tick(WallTime::from_micros(u64::MAX));
        assert!(clock.tick(WallTime::from_micros(u64::MAX)) > first);
        assert!(clock.tick(WallTime::from_micros(0)) > first);
    }
}

mod laws {
    use super::*;

    const BOUNDS: Bounds = Bounds { keys_max: 1_000, bytes_max: 1_000_000, value_bytes_max: 1_000 };

    type Update = (Key, Stamp, PeerId, Option<Bytes>);

    /// Few keys, stamps, origins and values, so that ties of all kinds happen.
    fn update(generator: &mut Generator) -> Update {
        let value = [None, Some(""), Some("a"), Some("b")][generator.random_range(0..4)];
        (
            key(["x", "y", "z"][generator.random_range(0..3)]),
            Stamp::from_bits(generator.random_range(0..4)),
            peer(generator.random_range(0..3)),
            value.map(bytes),
        )
    }

    fn store(updates: &[Update]) -> Store {
        let mut store = Store::new([1; 16], BOUNDS);
        join(&mut store, updates);
        store
    }

    fn join(store: &mut Store, updates: &[Update]) {
        for (key, stamp, origin, value) in updates {
            let register = store.register(*stamp, *origin, value.clone());
            let is_news = store.is_news(key, &register);
            let merged = store.merge(key.clone(), register);
            assert_eq!(is_news, merged != Merged::Known);
        }
        store.check_sums();
    }

    fn entries(store: &Store) -> Vec<Update> {
        store.iter("").map(|(key, held)| (key.clone(), held.marker.stamp, held.marker.origin, held.val.clone())).collect()
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent() {
        let mut generator = generator(1, "laws", 0);
        for _ in 0..2_000 {
            let [a, b, c] = std::array::from_fn(|_| {
                let len = generator.random_range(0..5);
                (0..len).map(|_| update(&mut generator)).collect::<Vec<_>>()
            });
            let (mut ab, mut ba) = (store(&a), store(&b));
            join(&mut ab, &entries(&store(&b)));
            join(&mut ba, &entries(&store(&a)));
            assert_eq!(entries(&ab), entries(&ba));
            assert_eq!(ab.digest(), ba.digest());

            let mut bc = store(&b);
            join(&mut bc, &entries(&store(&c)));
            let mut a_bc = store(&a);
            join(&mut a_bc, &entries(&bc));
            let mut ab_c = ab.clone();
            join(&mut ab_c, &entries(&store(&c)));
            assert_eq!(entries(&ab_c), entries(&a_bc));
            assert_eq!(ab_c.digest(), a_bc.digest());

            let mut again = ab.clone();
            join(&mut again, &entries(&ab));
            join(&mut again, &a);
            assert_eq!(entries(&again), entries(&ab));
        }
    }

    #[test]
    fn digests_are_equal_exactly_when_entries_are() {
        let mut generator = generator(2, "laws", 0);
        let mut seen: BTreeMap<String, Digest> = BTreeMap::new();
        for _ in 0..2_000 {
            let len = generator.random_range(0..6);
            let mut updates: Vec<Update> = (0..len).map(|_| update(&mut generator)).collect();
            let first = store(&updates);
            updates.shuffle(&mut generator);
            assert_eq!(store(&updates).digest(), first.digest());
            let name = format!("{:?}", entries(&first));
            assert_eq!(*seen.entry(name).or_insert(first.digest()), first.digest());
        }
        let distinct: BTreeSet<u128> = seen.values().map(|digest| digest.sum).collect();
        assert!(seen.len() > 100);
        assert_eq!(distinct.len(), seen.len());
    }

    /// A register of the `crdts` crate that meets its own marker with another value keeps its own. Ours cannot meet that.
    #[test]
    fn two_values_under_one_stamp_and_origin_have_one_order() {
        let stamp = Stamp::from_parts(1, 1);
        let updates = [(key("x"), stamp, peer(1), Some(bytes("a"))), (key("x"), stamp, peer(1), Some(bytes("b")))];
        let (one, mut reversed) = (store(&updates), updates.to_vec());
        reversed.reverse();
        assert_eq!(entries(&one), entries(&store(&reversed)));
    }

    #[test]
    fn sums_depend_on_the_key_of_the_cluster() {
        let mut digests = BTreeSet::new();
        for digest_key in [[1; 16], [2; 16]] {
            let mut state = State::new(peer(1), params(Config::default()).with_digest_key(digest_key), 1);
            state.set("x", bytes("a"), at_millis(0), &mut Vec::new()).unwrap();
            digests.insert(state.digest().sum);
        }
        assert_eq!(digests.len(), 2);
    }
}

mod writing {
    use super::*;

    #[test]
    fn a_write_is_visible_announced_and_broadcast() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let stamp = state.set("config/x", bytes("1"), at_millis(0), &mut actions).unwrap();
        assert_eq!(state.get("config/x"), Some(&bytes("1")));
        assert_eq!(state.entry("config/x"), Some(Entry { value: &bytes("1"), stamp, origin: peer(1) }));
        assert_eq!(state.len(), 1);
        assert_eq!(changed(&actions), [("config/x", Some(&b"1"[..]))]);
        let writes = vec![Write { key: key("config/x"), stamp, value: Value::Register(bytes("1")) }];
        assert_eq!(broadcasts(&actions), [writes]);
        assert_eq!(state.next_deadline(), None, "a lone replica that said everything waits for nothing");
    }

    #[test]
    fn removing_leaves_a_tombstone() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        assert_eq!(state.remove("x", at_millis(0), &mut actions), Ok(None));
        assert!(actions.is_empty());
        let written = state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
        let removed = state.remove("x", at_millis(100), &mut actions).unwrap().unwrap();
        assert!(removed > written);
        assert_eq!((state.get("x"), state.entry("x"), state.len(), state.tombstones()), (None, None, 0, 1));
        assert!(state.is_empty());
        assert_eq!(state.bytes(), 1);
        assert_eq!(changed(&actions), [("x", None)]);
        assert_eq!(broadcasts(&actions), [[Write { key: key("x"), stamp: removed, value: Value::Removed }]]);
        assert_eq!(state.remove("x", at_millis(100), &mut actions), Ok(None));

        // An older write that arrives late stays without effect.
        let before = state.digest();
        let late = Input::Delta { origin: peer(2), bytes: delta([("x", written, Some("2"))]) };
        state.handle(late, at_millis(100), &mut actions);
        assert_eq!((state.get("x"), state.digest()), (None, before));
    }

    #[test]
    fn changed_tells_only_what_is_visible() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
        state.set("x", bytes("1"), at_millis(1), &mut actions).unwrap();
        let gone = delta([("never-seen", stamp_ahead(at_millis(2), 0), None)]);
        state.handle(Input::Delta { origin: peer(2), bytes: gone }, at_millis(2), &mut actions);
        assert_eq!(changed(&actions), []);
        assert_eq!(state.counters().applied, 1);
    }

    #[test]
    fn writes_under_load_share_a_delta() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        for number in 0..50 {
            for turn in 0..3 {
                state.set(&format!("k{number:02}"), bytes(&turn.to_string()), at_millis(1), &mut actions).unwrap();
            }
        }
        assert_eq!(broadcasts(&actions).len(), 1, "the first leaves at once");
        assert_eq!(state.next_deadline(), Some(Time::from_millis(6)));
        actions.clear();
        state.handle(Input::DeadlineReached, at_millis(6), &mut actions);
        let [writes] = &broadcasts(&actions)[..] else { panic!("one delta") };
        assert_eq!(writes.len(), 50);
        assert!(writes.iter().all(|write| write.value == Value::Register(bytes("2"))), "writes of one key become one");
        assert!(writes.is_sorted_by(|a, b| a.key < b.key));
        assert_eq!(state.next_deadline(), None);
    }

    #[test]
    fn deltas_are_bounded_in_bytes_writes_and_number() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let largest = Bytes::from(vec![7; limits::VALUE_BYTES_MAX]);
        let longest = "k".repeat(limits::KEY_BYTES_MAX - 2);
        for number in 10..50 {
            state.set(&format!("{longest}{number}"), largest.clone(), at_millis(0), &mut actions).unwrap();
        }
        for number in 0..5_000 {
            state.set(&format!("small{number}"), Bytes::new(), at_millis(0), &mut actions).unwrap();
        }
        let (mut sent, mut millis) = (broadcasts(&actions).concat().len(), 0);
        while let Some(deadline) = state.next_deadline() {
            assert!(deadline > Time::from_millis(millis), "pieces are spread over time");
            millis = deadline.as_nanos() / 1_000_000;
            actions.clear();
            state.handle(Input::DeadlineReached, at(deadline), &mut actions);
            let deltas = broadcasts(&actions);
            assert!(deltas.len() <= 16 && deltas.iter().all(|writes| writes.len() <= 1_024));
            sent += deltas.concat().len();
        }
        assert_eq!(sent, 5_040);
    }

    #[test]
    fn a_write_that_was_overtaken_is_not_broadcast() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        state.set("a", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
        state.set("x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
        let newer = delta([("x", stamp_ahead(at_millis(0), 100), Some("2"))]);
        state.handle(Input::Delta { origin: peer(2), bytes: newer }, at_millis(1), &mut Vec::new());
        state.handle(Input::DeadlineReached, at_millis(5), &mut actions);
        assert_eq!(actions, []);
        assert_eq!(state.next_deadline(), None);
    }

    #[test]
    fn iterating_follows_prefixes_in_order() {
        let mut state = replica(1);
        for name in ["b", "a/2", "a/1", "a", "a0", "a/3"] {
            state.set(name, bytes(name), at_millis(0), &mut Vec::new()).unwrap();
        }
        state.remove("a/2", at_millis(0), &mut Vec::new()).unwrap();
        let names = |prefix| state.iter(prefix).map(|(key, _)| key.to_string()).collect::<Vec<_>>();
        assert_eq!(names("a/"), ["a/1", "a/3"]);
        assert_eq!(names(""), ["a", "a/1", "a/3", "a0", "b"]);
        assert_eq!(names("c"), [""; 0]);
    }
}

mod bounds {
    use super::*;

    #[test]
    fn keys_have_bounds() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
        let too_long = SetError::KeyTooLong { len: 1_025, len_max: 1_024 };
        assert_eq!(state.set("", Bytes::new(), at_millis(0), &mut actions), Err(SetError::KeyEmpty));
        assert_eq!(state.set(&long, Bytes::new(), at_millis(0), &mut actions), Err(too_long.clone()));
        assert_eq!(state.remove("", at_millis(0), &mut actions), Err(SetError::KeyEmpty));
        assert_eq!(state.remove(&long, at_millis(0), &mut actions), Err(too_long));
        assert_eq!(Key::try_from(""), Err(KeyError::Empty));
        assert!(state.set(&long[1..], Bytes::new(), at_millis(0), &mut actions).is_ok());
        assert_eq!(decode::<Key>(&encode(&long)), Err(DecodeError::TooLong));
        assert_eq!(decode::<Key>(&[0]), Err(DecodeError::TooLong));
        assert_eq!(decode::<Key>(&[1, 0xff]), Err(DecodeError::Invalid));
    }

    #[test]
    fn values_have_bounds() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let large = Bytes::from(vec![1; limits::VALUE_BYTES_MAX + 1]);
        let error = SetError::ValueTooLarge { len: large.len(), len_max: limits::VALUE_BYTES_MAX };
        assert_eq!(state.set("x", large.clone(), at_millis(0), &mut actions), Err(error));
        assert_eq!(state.last_stamp(), Stamp::ZERO, "no stamp was spent");
        assert!(state.set("x", large.slice(1..), at_millis(0), &mut actions).is_ok());
    }

    #[test]
    fn a_full_replica_refuses_new_keys_gives_the_value_back_and_still_changes_and_shrinks() {
        let config = Config { keys_max: 2, state_bytes_max: 20, value_bytes_max: 10, ..Config::default() };
        let (mut state, mut actions) = (State::new(peer(1), params(config), 1), Vec::new());
        state.set("a", bytes("12345678"), at_millis(0), &mut actions).unwrap();
        state.set("b", bytes("12345678"), at_millis(0), &mut actions).unwrap();
        assert_eq!(state.bytes(), 18);
        let full = SetError::Full { quota: Quota::Bytes(20), value: bytes("123456789ab".get(..10).unwrap()) };
        assert!(state.set("a", bytes("1234567890"), at_millis(0), &mut actions).is_ok());
        assert_eq!(state.set("b", bytes("123456789a"), at_millis(0), &mut actions), Err(full));
        let full = SetError::Full { quota: Quota::Keys(2), value: bytes("1") };
        assert_eq!(state.set("c", bytes("1"), at_millis(0), &mut actions), Err(full.clone()));
        assert!(state.remove("a", at_millis(0), &mut actions).unwrap().is_some());
        assert_eq!(state.bytes(), 10);
        assert_eq!(state.set("c", bytes("1"), at_millis(0), &mut actions), Err(full), "a tombstone is a key");
        assert!(state.set("b", bytes("123456789a"), at_millis(0), &mut actions).is_ok());
        state.store().check_sums();
    }

    #[test]
    fn what_others_send_beyond_the_bounds_is_refused_and_counted() {
        let config = Config { keys_max: 2, state_bytes_max: 12, value_bytes_max: 6, ..Config::default() };
        let (mut state, mut actions) = (State::new(peer(1), params(config), 1), Vec::new());
        let now = at_millis(0);
        let stamp = stamp_ahead(now, 0);
        let writes = [
            ("a", stamp, Some("1234567")),
            ("b", stamp, Some("123456")),
            ("c", stamp, Some("123456")),
            ("d", stamp, Some("1234")),
            ("e", stamp, None),
        ];
        state.handle(Input::Delta { origin: peer(2), bytes: delta(writes) }, now, &mut actions);
        assert_eq!(content(&state).into_iter().map(|(key, ..)| key.to_string()).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(state.counters().refused, 3);
        assert_eq!(state.counters().applied, 2);
        assert_eq!(misbehaviors(&actions), []);
        state.store().check_sums();
    }

    #[test]
    fn bad_configuration_is_refused_by_name() {
        let refused = |config: Config| config.build().unwrap_err().field;
        let millis = Duration::from_millis;
        assert_eq!(refused(Config { flush_delay: Duration::MAX, ..Config::default() }), "flush_delay");
        assert_eq!(refused(Config { repair_period: Some(Duration::ZERO), ..Config::default() }), "repair_period");
        assert_eq!(refused(Config { first_repair_delay: Duration::ZERO, ..Config::default() }), "first_repair_delay");
        assert_eq!(refused(Config { session_timeout: millis(1), ..Config::default() }), "session_timeout");
        assert_eq!(refused(Config { burst_frames: 0, ..Config::default() }), "burst_frames");
        assert_eq!(refused(Config { leads_max: 0, ..Config::default() }), "leads_max");
        assert_eq!(refused(Config { answer_frames_per_second: 0, ..Config::default() }), "answer_frames_per_second");
        assert_eq!(refused(Config { stamp_ahead_max: Duration::MAX, ..Config::default() }), "stamp_ahead_max");
        assert_eq!(refused(Config { keys_max: 0, ..Config::default() }), "keys_max");
        assert_eq!(refused(Config { state_bytes_max: usize::MAX, ..Config::default() }), "state_bytes_max");
        assert_eq!(refused(Config { value_bytes_max: limits::VALUE_BYTES_MAX + 1, ..Config::default() }), "value_bytes_max");
        for preset in [Config::local(), Config::lan(), Config::wan()] {
            assert!(preset.build().is_ok());
        }
        assert!(!format!("{:?}", params(Config::default()).with_digest_key([77; 16])).contains("77"));
    }
}

mod stamps_ahead {
    use super::*;

    #[test]
    fn a_delta_from_the_future_is_refused_before_it_is_merged() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let now = at_millis(0);
        let before = (state.digest(), state.last_stamp());
        let future = delta([("x", stamp_ahead(now, 501), Some("1")), ("y", Stamp::MAX, Some("1"))]);
        state.handle(Input::Delta { origin: peer(2), bytes: future }, now, &mut actions);
        assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::StampAhead)], "said once for one delta");
        assert_eq!(state.counters().stamp_ahead, 2);
        assert_eq!((state.digest(), state.last_stamp(), state.len()), (before.0, before.1, 0));

        let edge = delta([("x", stamp_ahead(now, 500), Some("1"))]);
        state.handle(Input::Delta { origin: peer(2), bytes: edge }, now, &mut actions);
        assert_eq!(state.len(), 1);
        let stamp = state.set("x", bytes("2"), now, &mut actions).unwrap();
        assert!(stamp > stamp_ahead(now, 500), "what is written after wins");
    }

    #[test]
    fn repair_cannot_bring_in_the_future_either() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let entry = wire::Entry { key: key("x"), stamp: Stamp::MAX, origin: peer(3), value: Value::Register(bytes("1")) };
        let message = Message::Entries { entries: Bounded::first_of([entry]) };
        state.handle(Input::Received { from: peer(2), message }, at_millis(0), &mut actions);
        assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::StampAhead)]);
        assert_eq!(state.digest(), Digest::default());
    }

    #[test]
    fn one_node_with_a_fast_clock_changes_nothing_elsewhere() {
        let mut network = Network::new(4, 3, &Config::default());
        network.wall_offset_millis[3] = HOUR_MILLIS;
        network.connect_all();
        network.run_for(Duration::from_secs(12));
        network.set(0, "x", "honest");
        network.run_for(Duration::from_secs(1));
        network.set(3, "x", "from the future");
        network.run_for(Duration::from_secs(20));
        for index in 0..3 {
            assert_eq!(network.replicas[index].get("x"), Some(&bytes("honest")));
            assert!(network.replicas[index].counters().stamp_ahead > 0, "the attack happened");
            assert!(network.replicas[index].last_stamp() < Stamp::from_parts(EPOCH.as_millis() + 60_000, 0));
        }
        assert!(network.misbehaved.iter().all(|(_, what)| *what == Misbehavior::StampAhead));
    }

    #[test]
    fn a_wall_clock_that_jumps_back_an_hour_neither_loses_conflicts_nor_cuts_the_node_off() {
        let mut network = Network::new(4, 4, &Config::default());
        network.connect_all();
        network.run_for(Duration::from_secs(15));
        let before = network.set(0, "x", "before");
        network.run_for(Duration::from_secs(1));
        network.wall_offset_millis[0] = -HOUR_MILLIS;
        let after = network.set(0, "x", "after");
        assert!(after > before, "stamps do not go back");
        network.run_for(Duration::from_secs(1));
        network.set(1, "y", "of another");
        network.run_for(Duration::from_secs(1));
        assert_eq!(network.replicas[0].get("y"), Some(&bytes("of another")), "its neighbors tell it the time");
        network.set(0, "y", "of the slow one");
        network.run_for(Duration::from_secs(1));
        assert_eq!(network.replicas[0].counters().stamp_ahead, 0);
        network.assert_converged();
        assert_eq!(network.replicas[2].get("x"), Some(&bytes("after")));
        assert_eq!(network.replicas[2].get("y"), Some(&bytes("of the slow one")));
    }

    #[test]
    fn a_clock_that_was_wrong_from_the_start_heals_as_well() {
        let mut network = Network::new(4, 5, &Config::default());
        network.wall_offset_millis[0] = -10 * HOUR_MILLIS;
        for index in 1..4 {
            network.set(index, &format!("k{index}"), "1");
        }
        network.connect_all();
        network.run_for(Duration::from_secs(20));
        network.set(0, "k1", "2");
        network.run_for(Duration::from_secs(10));
        network.assert_converged();
        assert_eq!(network.replicas[2].get("k1"), Some(&bytes("2")));
    }

    #[test]
    fn one_lying_neighbor_does_not_tell_the_time() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let now = at_millis(0);
        let future = WallTime::from_millis(EPOCH.as_millis() + 10 * HOUR_MILLIS as u64);
        let stamp = Stamp::from_parts(future.as_millis(), 0);
        let probe = |wall| Message::Probe { digest: Digest::default(), wall };
        for (number, wall) in [(2, future), (3, WallTime::from_micros(u64::MAX))] {
            state.handle(Input::NeighborUp(peer(number)), now, &mut actions);
            state.handle(Input::Received { from: peer(number), message: probe(wall) }, now, &mut actions);
            if number == 2 {
                let ahead = Input::Delta { origin: peer(9), bytes: delta([("x", stamp, Some("1"))]) };
                state.handle(ahead, now, &mut actions);
                assert_eq!(state.len(), 0, "one report is nobody's median");
            }
        }
        // Of two, the lower counts; a third that is honest outvotes one liar.
        let ahead = Input::Delta { origin: peer(9), bytes: delta([("x", stamp, Some("1"))]) };
        for honest in [4, 5] {
            state.handle(Input::NeighborUp(peer(honest)), now, &mut actions);
            state.handle(Input::Received { from: peer(honest), message: probe(EPOCH) }, now, &mut actions);
        }
        state.handle(ahead, now, &mut actions);
        assert_eq!(state.len(), 0);
        assert_eq!(state.counters().stamp_ahead, 2);
    }
}

mod repairing {
    use super::*;

    fn filled(count: usize, number: u8) -> State {
        let mut state = replica(number);
        fill(&mut state, count);
        state
    }

    fn fill(state: &mut State, count: usize) {
        let mut actions = Vec::new();
        for index in 0..count {
            let value = Bytes::from(format!("value of key number {index:06}"));
            state.set(&format!("registry/{index:06}"), value, at_millis(0), &mut actions).unwrap();
            actions.clear();
        }
        while let Some(deadline) = state.next_deadline() {
            state.handle(Input::DeadlineReached, at(deadline), &mut actions);
        }
    }

    fn snapshot_bytes(state: &State) -> u64 {
        content(state).iter().map(|(key, value, ..)| encode(key).len() + encode(value).len() + 41).sum::<usize>() as u64
    }

    #[test]
    fn equal_neighbors_say_little() {
        let mut network = Network::new(2, 1, &Config::default());
        network.connect_all();
        network.run_for(Duration::from_secs(1));
        assert!((2..=4).contains(&network.messages), "{}", network.messages);
        network.run_for(Duration::from_secs(100));
        let periods = network.replicas.iter().map(|replica| replica.counters().probes).sum::<u64>();
        assert!((30..60).contains(&periods), "{periods}");
        assert!(network.message_bytes < 60 * network.messages);
        assert_eq!(network.replicas[0].counters().different, 0);
    }

    #[test]
    fn one_session_repairs_both_directions() {
        let mut network = Network::new(2, 2, &Config::default());
        network.broadcast_loss = 1.0;
        for (index, name, value) in [(0, "a", "0"), (0, "both", "0"), (1, "b", "1"), (1, "gone", "1")] {
            network.set(index, name, value);
        }
        network.run_for(Duration::from_millis(5));
        network.set(1, "both", "1");
        network.remove(1, "gone");
        assert!(!network.has_converged());
        network.connect_all();
        network.run_for(Duration::from_millis(300));
        network.assert_converged();
        assert_eq!(network.replicas[0].get("both"), Some(&bytes("1")));
        assert_eq!(network.replicas[0].tombstones(), 1);
        let counters: Vec<&Counters> = network.replicas.iter().map(State::counters).collect();
        assert_eq!(counters[0].completed + counters[1].completed, 1);
        assert_eq!(counters[0].repaired, 3);
        assert_eq!(counters[1].repaired, 1);
        assert_eq!((counters[0].broadcasts, counters[1].broadcasts), (2, 3), "repair is not broadcast again");
    }

    /// A new node receives everything in few round trips, whichever side starts.
    #[test]
    fn twenty_thousand_keys_reach_an_empty_replica() {
        let full = filled(20_000, 0);
        let size = snapshot_bytes(&full);
        for starter in [0, 1] {
            let mut network = Network::new(2, 3, &Config::default());
            network.replicas[0] = full.clone();
            network.time = Time::from_secs(10);
            network.delay_millis = 5..6;
            network.handle(starter, Input::NeighborUp(peer(1 - starter as u8)));
            network.run_for(Duration::from_millis(40));
            network.handle(1 - starter, Input::NeighborUp(peer(starter as u8)));
            network.run_for(Duration::from_secs(1));
            network.assert_converged();
            assert_eq!(network.replicas[1].len(), 20_000);
            assert!(network.messages < 60, "{} messages", network.messages);
            assert!(network.compares <= 8, "{} round trips", network.compares);
            assert!(network.message_bytes * 100 < size * 110, "{} bytes for a snapshot of {size}", network.message_bytes);
            assert_eq!(network.replicas[1].counters().repaired, 20_000);
        }
    }

    #[test]
    fn many_full_neighbors_send_a_new_one_everything_once() {
        let full = filled(5_000, 0);
        let size = snapshot_bytes(&full);
        let mut network = Network::new(6, 4, &Config::default());
        for index in 0..5 {
            network.replicas[index] = State::new(peer(index as u8), params(Config::default()), index as u64);
            fill_from(&mut network.replicas[index], &full);
        }
        network.time = Time::from_secs(10);
        network.connect_all();
        network.run_for(Duration::from_secs(5));
        network.assert_converged();
        assert!(network.message_bytes < size * 3 / 2, "{} bytes for a snapshot of {size}", network.message_bytes);
        assert_eq!(network.misbehaved, []);
    }

    fn fill_from(state: &mut State, full: &State) {
        let entries: Vec<wire::Entry> = full
            .iter("")
            .map(|(key, entry)| wire::Entry {
                key: key.clone(),
                stamp: entry.stamp,
                origin: entry.origin,
                value: Value::Register(entry.value.clone()),
            })
            .collect();
        for chunk in entries.chunks(wire::ENTRIES_MAX) {
            let message = Message::Entries { entries: Bounded::first_of(chunk.iter().cloned()) };
            state.handle(Input::Received { from: peer(99), message }, at_millis(0), &mut Vec::new());
        }
    }

    #[test]
    fn a_small_difference_among_many_keys_costs_little() {
        let full = filled(20_000, 0);
        let mut network = Network::new(2, 5, &Config::default());
        network.replicas[0] = full.clone();
        fill_from(&mut network.replicas[1], &full);
        network.time = Time::from_secs(10);
        network.broadcast_loss = 1.0;
        for number in 0..10 {
            network.set(number % 2, &format!("registry/{:06}", 1_000 * number), "changed");
        }
        network.connect_all();
        network.run_for(Duration::from_secs(1));
        network.assert_converged();
        assert!(network.message_bytes < 40_000, "{} bytes", network.message_bytes);
        assert!(network.messages < 15, "{} messages", network.messages);
    }

    /// Rows, wants and answers all have to be cut, and large values fill frames alone.
    #[test]
    fn large_differences_continue_chunk_by_chunk() {
        let config = Config { burst_frames: 1, ..Config::default() };
        let mut network = Network::new(2, 6, &config);
        network.broadcast_loss = 1.0;
        for index in 0..2 {
            for number in 0..5_000 {
                network.set(index, &format!("{}{index}/{number}", ["left", "right"][index]), "x");
                network.set(index, &format!("shared/{number}"), ["0", "1"][(number + index) % 2]);
            }
            for number in 0..20 {
                let value = "x".repeat(limits::VALUE_BYTES_MAX - number);
                network.set(index, &format!("large/{index}/{number}"), &value);
            }
            network.run_for(Duration::from_millis(3));
        }
        network.connect_all();
        network.run_for(Duration::from_secs(10));
        network.assert_converged();
        assert_eq!(network.replicas[0].len(), 15_040);
        assert!(network.compares > 40 && network.compares < 400, "{} round trips", network.compares);
    }

    #[test]
    fn a_lost_peer_frees_its_session() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut actions);
        let mut probes = 0;
        for _ in 0..10 {
            let deadline = state.next_deadline().unwrap();
            actions.clear();
            state.handle(Input::DeadlineReached, at(deadline), &mut actions);
            probes += actions.iter().filter(|action| matches!(action, Action::Send { message: Message::Probe { .. }, .. })).count();
        }
        assert!(probes >= 3, "a silent neighbor is asked again");
        assert!(state.counters().abandoned >= 2);
        state.handle(Input::NeighborDown(peer(2)), at_millis(100_000), &mut actions);
        assert_eq!(state.next_deadline(), None, "nobody left to ask");
        state.handle(Input::NeighborDown(peer(2)), at_millis(100_000), &mut actions);
    }

    #[test]
    fn without_repair_what_broadcasts_miss_stays_missed() {
        let mut network = Network::new(2, 7, &Config { repair_period: None, ..Config::default() });
        network.connect_all();
        network.broadcast_loss = 1.0;
        network.set(0, "x", "lost");
        network.broadcast_loss = 0.0;
        network.run_for(Duration::from_secs(60));
        network.set(0, "y", "kept");
        network.run_for(Duration::from_secs(60));
        assert_eq!(network.messages, 0);
        assert_eq!(network.replicas[1].get("x"), None);
        assert_eq!(network.replicas[1].get("y"), Some(&bytes("kept")));
        // It does not answer either.
        let probe = Message::Probe { digest: Digest::default(), wall: EPOCH };
        network.handle(0, Input::Received { from: peer(1), message: probe });
        assert_eq!(network.messages, 0);
    }

    #[test]
    fn both_sides_of_a_partition_write_and_converge() {
        let mut network = Network::new(5, 8, &Config::default());
        network.connect_all();
        network.set(0, "shared", "before");
        network.run_for(Duration::from_secs(1));
        network.cut = [0, 1].into_iter().flat_map(|a| [2, 3, 4].map(|b| (a, b))).collect();
        for number in 0..100 {
            network.set(0, &format!("left/{number}"), "l");
            network.set(4, &format!("right/{number}"), "r");
            network.run_for(Duration::from_millis(20));
        }
        network.set(1, "shared", "left");
        network.run_for(Duration::from_millis(20));
        network.set(2, "shared", "right");
        network.run_for(Duration::from_secs(5));
        assert_eq!(network.replicas[0].len(), 101);
        assert!(!network.has_converged(), "the partition happened");
        network.cut.clear();
        network.run_for(Duration::from_secs(30));
        network.assert_converged();
        assert_eq!(network.replicas[0].len(), 201);
        assert_eq!(network.replicas[0].get("shared"), Some(&bytes("right")), "the later write wins on both sides");
    }

    /// Hashes of three bits, so that every row is one of many with its hash.
    #[test]
    fn colliding_hashes_of_keys_are_repaired_as_well() {
        let mut network = Network::new(2, 9, &Config::default());
        network.broadcast_loss = 1.0;
        for replica in &mut network.replicas {
            replica.store().mask_key_hashes(0x8000_0000_0000_0003);
        }
        for number in 0..200 {
            network.set(number % 2, &format!("k{}", number * 7 % 120), &number.to_string());
            network.run_for(Duration::from_millis(1));
        }
        network.connect_all();
        network.run_for(Duration::from_secs(30));
        network.assert_converged();
        assert_eq!(network.replicas[0].len(), 120);
    }

    /// More keys with one hash than one message has rows.
    #[test]
    fn more_colliding_keys_than_rows_do_not_stop_repair() {
        let mut network = Network::new(2, 10, &Config { burst_frames: 1, ..Config::default() });
        network.broadcast_loss = 1.0;
        for replica in &mut network.replicas {
            replica.store().mask_key_hashes(0x8000_0000_0000_0000);
        }
        for number in 0..3_000 {
            network.set(0, &format!("k{number}"), "x");
            network.set(1, &format!("k{number}"), "x");
        }
        network.connect_all();
        network.run_for(Duration::from_secs(60));
        let counters = network.replicas[0].counters().completed + network.replicas[1].counters().completed;
        assert!(counters > 3, "sessions come to their ends");
        network.replicas.iter_mut().for_each(|replica| replica.store().check_sums());
    }
}

/// Random writes at random replicas over a network that loses, repeats and reorders, then quiet and repair.
mod traces {
    use super::*;

    fn odd_config(generator: &mut Generator) -> Config {
        let millis = Duration::from_millis;
        Config {
            flush_delay: millis(generator.random_range(0..50)),
            repair_period: Some(millis(generator.random_range(200..3_000))),
            first_repair_delay: millis(generator.random_range(1..500)),
            session_timeout: millis(generator.random_range(50..1_000)),
            burst_frames: generator.random_range(1..4),
            leads_max: generator.random_range(1..4),
            ..Config::default()
        }
    }

    fn run(seed: u64) -> Network {
        let mut chance = generator(seed, "trace", 0);
        let config = odd_config(&mut chance);
        let count = chance.random_range(3..=5);
        let mut network = Network::new(count, seed, &config);
        network.broadcast_loss = [0.0, 0.2, 0.9][chance.random_range(0..3)];
        network.is_ordered = chance.random_bool(0.5);
        network.control_loss = [0.0, 0.2][chance.random_range(0..2)];
        network.delay_millis = 0..chance.random_range(1..100);
        for offset in &mut network.wall_offset_millis {
            *offset = chance.random_range(-100..=100);
        }
        network.connect_all();
        for _ in 0..chance.random_range(0..120) {
            let (index, other) = (chance.random_range(0..count), chance.random_range(0..count));
            let name = format!("k{}", chance.random_range(0..12));
            match chance.random_range(0..20) {
                0..12 => {
                    network.set(index, &name, &chance.random_range(0..3).to_string());
                }
                12..15 => network.remove(index, &name),
                15 if index != other => {
                    network.cut.insert((index.min(other), index.max(other)));
                }
                16 => {
                    network.cut.pop_first();
                }
                17 => {
                    network.handle(index, Input::NeighborDown(peer(other as u8)));
                    network.handle(index, Input::NeighborUp(peer(other as u8)));
                }
                _ => {
                    let pause = Duration::from_millis(chance.random_range(0..200));
                    network.run_for(pause);
                }
            }
        }
        network.cut.clear();
        network.control_loss = 0.0;
        network.run_for(Duration::from_secs(60));
        network
    }

    #[test]
    fn converge_after_any_loss_repetition_and_order() {
        let mut needed_repair = 0;
        for seed in 0..150 {
            let mut network = run(seed);
            network.assert_converged();
            assert_eq!(network.misbehaved, [], "seed {seed}");
            needed_repair += u64::from(network.replicas.iter().any(|replica| replica.counters().repaired > 0));
        }
        assert!(needed_repair > 50, "losses happened: {needed_repair}");
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        for seed in [1, 2] {
            assert_eq!(run(seed).trace, run(seed).trace);
        }
        assert_ne!(run(1).trace, run(2).trace);
    }
}

mod hostile {
    use super::*;

    fn receive(state: &mut State, message: Message) -> Vec<Action> {
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(2), message }, at_millis(1_000), &mut actions);
        actions
    }

    fn range(first: u64, last: u64) -> Range {
        Range { first: KeyHash(first), last: KeyHash(last) }
    }

    fn row(key: u64) -> Row {
        Row { key: KeyHash(key), stamp: Stamp::ZERO, entry: 0 }
    }

    fn compare(ranges: &[Range], rows: &[Row]) -> Message {
        Message::Compare { round: 1, ranges: Bounded::first_of(ranges.iter().copied()), rows: Bounded::first_of(rows.iter().copied()) }
    }

    const INVALID: [(PeerId, Misbehavior); 1] = [(PeerId::from_bytes([2; 32]), Misbehavior::Undecodable(DecodeError::Invalid))];

    /// A replica of 100 keys that leads a comparison with peer 2.
    fn leader() -> (State, u32) {
        let mut state = replica(1);
        for number in 0..100 {
            state.set(&format!("k{number}"), bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
        }
        state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
        let everything = Message::Lead { ranges: Bounded::first_of([range(0, u64::MAX)]) };
        let actions = receive(&mut state, everything);
        let [Action::Send { message: Message::Compare { round, rows, .. }, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(rows.len(), 100);
        (state, *round)
    }

    #[test]
    fn bytes_that_are_no_delta_are_blamed_on_their_origin() {
        let (mut state, mut actions) = (replica(1), Vec::new());
        let mut generator = generator(1, "hostile", 0);
        for _ in 0..2_000 {
            let len = generator.random_range(0..60);
            let garbage: Vec<u8> = (0..len).map(|_| generator.random()).collect();
            let _ = decode::<Message>(&garbage);
            state.handle(Input::Delta { origin: peer(2), bytes: garbage.into() }, at_millis(0), &mut actions);
        }
        assert!(misbehaviors(&actions).iter().any(|(_, what)| matches!(what, Misbehavior::Undecodable(_))));
        actions.clear();
        let huge = Bytes::from(vec![0; limits::BROADCAST_BYTES_MAX + 1]);
        state.handle(Input::Delta { origin: peer(2), bytes: huge }, at_millis(0), &mut actions);
        assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::Undecodable(DecodeError::TooLong))]);
    }

    #[test]
    fn truncated_and_extended_messages_do_not_decode() {
        for message in every_message() {
            let encoded = encode(&message);
            for len in 0..encoded.len() {
                assert!(decode::<Message>(&encoded[..len]).is_err(), "{} cut to {len}", message.name());
            }
            let mut longer = encoded.to_vec();
            longer.push(0);
            assert_eq!(decode::<Message>(&longer), Err(DecodeError::Trailing));
        }
    }

    #[test]
    fn a_list_that_claims_too_much_is_refused_before_it_is_read() {
        // Compare, round 0, no ranges, 2,049 rows.
        assert_eq!(decode::<Message>(&[&[4, 0, 0, 0x81, 0x10][..], &[0; 2_049 * 24]].concat()), Err(DecodeError::TooLong));
        // Entries, 1,025 of them.
        assert_eq!(decode::<Message>(&[&[5, 0x81, 0x08][..], &[1; 60_000]].concat()), Err(DecodeError::TooLong));
    }

    #[test]
    fn ranges_and_rows_out_of_order_are_refused() {
        let mut state = replica(1);
        state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
        for message in [
            compare(&[], &[]),
            compare(&[range(5, 4)], &[]),
            compare(&[range(0, 4), range(4, 9)], &[]),
            compare(&[range(5, 9), range(0, 4)], &[]),
            compare(&[range(5, 9)], &[row(4)]),
            compare(&[range(0, 2), range(5, 9)], &[row(3)]),
            compare(&[range(0, 9)], &[row(4), row(4)]),
            compare(&[range(0, 9)], &[row(5), row(4)]),
            Message::Lead { ranges: Bounded::new() },
            Message::Lead { ranges: Bounded::first_of([range(1, 0)]) },
            Message::Shards { keys: 0, wall: EPOCH, sums: Bounded::first_of([ShardSum(1); SHARDS - 1]) },
        ] {
            assert_eq!(misbehaviors(&receive(&mut state, message.clone())), INVALID, "{message:?}");
        }
        let fine = compare(&[range(0, 2), range(5, u64::MAX)], &[row(0), row(2), row(5), row(u64::MAX)]);
        assert_eq!(misbehaviors(&receive(&mut state, fine)), []);
    }

    #[test]
    fn answers_to_nothing_change_nothing() {
        let mut state = replica(1);
        state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
        let compared = Message::Compared { round: 0, through: KeyHash(u64::MAX), want: Bounded::new() };
        let shards = Message::Shards { keys: 9, wall: EPOCH, sums: Bounded::first_of([ShardSum(1); SHARDS]) };
        for message in [Message::Equal { wall: EPOCH }, shards, compared] {
            assert_eq!(receive(&mut state, message), []);
        }
        // A stranger gets no place for a session, but an answer.
        let lead = Message::Lead { ranges: Bounded::first_of([range(0, u64::MAX)]) };
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(3), message: lead }, at_millis(0), &mut actions);
        assert_eq!(actions, []);
        let probe = Message::Probe { digest: Digest::default(), wall: EPOCH };
        state.handle(Input::Received { from: peer(3), message: probe }, at_millis(0), &mut actions);
        assert_eq!(actions, [Action::Send { to: peer(3), message: Message::Equal { wall: at_millis(0).wall } }]);
    }

    #[test]
    fn an_answer_outside_of_what_was_asked_ends_the_session() {
        for (through, want) in [(u64::MAX, vec![5, 5]), (u64::MAX, vec![6, 5]), (7, vec![8])] {
            let (mut state, round) = leader();
            let want = Bounded::first_of(want.into_iter().map(KeyHash));
            let answer = Message::Compared { round, through: KeyHash(through), want };
            assert_eq!(misbehaviors(&receive(&mut state, answer.clone())), INVALID);
            assert_eq!(receive(&mut state, answer), [], "the session is over");
        }
        let (mut state, round) = leader();
        let stale = Message::Compared { round: round.wrapping_add(1), through: KeyHash(u64::MAX), want: Bounded::new() };
        assert_eq!(receive(&mut state, stale), []);
    }

    #[test]
    fn a_peer_that_wants_everything_gets_it_once() {
        let (mut state, round) = leader();
        let want = Bounded::first_of((0..2_048).map(|number| KeyHash(number << 53)));
        let actions = receive(&mut state, Message::Compared { round, through: KeyHash(u64::MAX), want });
        assert_eq!(actions, [], "none of these exists");
        assert_eq!(state.counters().completed, 1);
    }

    #[test]
    fn a_session_that_hardly_moves_ends() {
        let (mut state, mut round) = leader();
        for step in 0..10_000 {
            let actions = receive(&mut state, Message::Compared { round, through: KeyHash(step), want: Bounded::new() });
            match &actions[..] {
                [Action::Send { message: Message::Compare { round: next, .. }, .. }] => round = *next,
                [] => {
                    assert_eq!(state.counters().abandoned, 1);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
        panic!("it goes on without end");
    }

    #[test]
    fn a_peer_that_asks_without_end_is_not_answered_without_end() {
        let mut state = replica(1);
        state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
        for stranger in [2, 3] {
            let mut answered = 0;
            for _ in 0..10_000 {
                let message = compare(&[range(0, u64::MAX)], &[]);
                let mut actions = Vec::new();
                state.handle(Input::Received { from: peer(stranger), message }, at_millis(0), &mut actions);
                answered += usize::from(misbehaviors(&actions).is_empty());
            }
            assert!((2_000..2_100).contains(&answered), "{answered}");
        }
        assert!(state.counters().throttled > 0);
        let mut actions = Vec::new();
        let message = compare(&[range(0, u64::MAX)], &[]);
        state.handle(Input::Received { from: peer(2), message }, at_millis(1_000), &mut actions);
        assert_eq!(misbehaviors(&actions), [], "time heals");
    }

    #[test]
    fn our_own_name_is_no_neighbor() {
        let mut state = replica(1);
        state.handle(Input::NeighborUp(peer(1)), at_millis(0), &mut Vec::new());
        assert_eq!(state.next_deadline(), None);
    }

    #[test]
    fn random_messages_break_nothing() {
        let mut generator = generator(2, "hostile", 0);
        let (mut state, _) = leader();
        let before = state.digest();
        for number in 0..3_000 {
            let mut hash = || [0, 1, u64::MAX, 1 << 56, generator.random(), generator.random()][generator.random_range(0..6)];
            let ranges = Bounded::first_of([range(hash(), hash()), range(hash(), hash())].into_iter().take(number % 3));
            let rows = Bounded::first_of([row(hash()), row(hash())].into_iter().take(number % 4));
            let want = Bounded::first_of([KeyHash(hash()), KeyHash(hash())].into_iter().take(number % 3));
            let message = match number % 7 {
                0 => Message::Probe { digest: Digest { keys: hash(), sum: 7 }, wall: WallTime::from_micros(hash()) },
                1 => Message::Equal { wall: WallTime::from_micros(hash()) },
                2 => Message::Shards { keys: hash(), wall: EPOCH, sums: Bounded::first_of([ShardSum(hash()); SHARDS]) },
                3 => Message::Lead { ranges },
                4 => Message::Compare { round: hash() as u32, ranges, rows },
                5 => Message::Compared { round: number as u32 / 7, through: KeyHash(hash()), want },
                _ => {
                    let entry =
                        wire::Entry { key: key("k"), stamp: Stamp::from_bits(hash() | 1 << 63), origin: peer(3), value: Value::Removed };
                    Message::Entries { entries: Bounded::first_of([entry]) }
                }
            };
            let now = at_millis(number as u64 * 10);
            state.handle(Input::Received { from: peer(2), message }, now, &mut Vec::new());
            state.handle(Input::DeadlineReached, now, &mut Vec::new());
        }
        assert_eq!(state.digest(), before);
        state.store().check_sums();
    }
}

fn every_message() -> Vec<Message> {
    let range = Range { first: KeyHash(0x0100_0000_0000_0000), last: KeyHash(0x01ff_ffff_ffff_ffff) };
    let row = Row { key: KeyHash(0x0101_0101_0101_0101), stamp: Stamp::from_parts(5, 6), entry: 0x0202_0202_0202_0202 };
    let entries = [
        wire::Entry { key: key("ab"), stamp: Stamp::from_parts(5, 6), origin: peer(9), value: Value::Removed },
        wire::Entry { key: key("c"), stamp: Stamp::from_parts(5, 7), origin: peer(9), value: Value::Register(bytes("xyz")) },
    ];
    vec![
        Message::Probe { digest: Digest { keys: 300, sum: 0xabcd }, wall: WallTime::from_micros(1) },
        Message::Equal { wall: WallTime::from_micros(300) },
        Message::Shards { keys: 2, wall: WallTime::from_micros(1), sums: Bounded::first_of([ShardSum(3), ShardSum(u64::MAX)]) },
        Message::Lead { ranges: Bounded::first_of([range]) },
        Message::Compare { round: 4, ranges: Bounded::first_of([range]), rows: Bounded::first_of([row]) },
        Message::Entries { entries: Bounded::first_of(entries) },
        Message::Compared { round: 4, through: KeyHash(7), want: Bounded::first_of([KeyHash(6)]) },
    ]
}

#[test]
fn the_wire_is_what_it_was() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let nine = "09".repeat(32);
    let expected = [
        "00ac020000000000000000000000000000abcd01".to_owned(),
        "01ac02".to_owned(),
        "020201020000000000000003ffffffffffffffff".to_owned(),
        "0301010000000000000001ffffffffffffff".to_owned(),
        "040401010000000000000001ffffffffffffff01010101010101010100000000000500060202020202020202".to_owned(),
        format!("050202616200000000000500 06{nine}00016300000000000500 07{nine}010378797a").replace(' ', ""),
        "060400000000000000070100000000 00000006".replace(' ', ""),
    ];
    for (message, expected) in every_message().iter().zip(expected) {
        assert_eq!(hex(&encode(message)), expected, "{}", message.name());
        assert_eq!(decode::<Message>(&encode(message)).as_ref(), Ok(message));
    }
    let delta = delta([("a", Stamp::from_parts(1, 2), Some("v")), ("b", Stamp::from_parts(1, 3), None)]);
    assert_eq!(hex(&delta), "000201610000000000010002010176016200000000000100 0300".replace(' ', ""));
}

/// The digest of one entry, so that a change of the hash or of what it covers is seen.
#[test]
fn digests_are_what_they_were() {
    let mut state = replica(1);
    let stamp = Stamp::from_parts(EPOCH.as_millis(), 3);
    let bytes = delta([("config/x", stamp, Some("1"))]);
    state.handle(Input::Delta { origin: peer(2), bytes }, at_millis(0), &mut Vec::new());
    assert_eq!(state.digest().to_string(), "1:e96e2a6f2c082fcbc8fbc6d7620b5aed");
    assert_eq!(replica(1).digest().to_string(), format!("0:{:032x}", 0));
}
