//! What it takes to repair keys that were written on one side only: bytes besides the entries, round trips, and the time that each side computes;
//! and what it takes to keep the sums and the sketch that make it cheap: time of a write, and memory of an entry.
//!
//! Bytes and round trips are the same on every machine. `cargo bench --package meshwork-crdt --bench repair` has a million keys, which takes a
//! minute and a gigabyte; `-- 10000` has as many as it says.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use meshwork_channels::{Bounded, Now, PeerId, Time, WallTime, encode};
use meshwork_crdt::replica::{Action, Config, Input, Message, State};
use meshwork_crdt::wire::{Body, ENTRIES_MAX, Entry};
use meshwork_crdt::{Key, Stamp};

const RUNS: usize = 20;
const VALUE_BYTES: usize = 100;

fn main() {
    let keys = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let before = resident();
    let first = filled(0, keys);
    let (each, raw) = ((resident() - before) / keys, key(0).len() + VALUE_BYTES);
    println!(
        "{keys} keys, {raw} bytes of key and value: {each} bytes resident for each, {} beyond key and value",
        each.saturating_sub(raw)
    );
    let mut pair = [first, filled(1, keys)];
    assert_eq!(pair[0].digest(), pair[1].digest());
    writes(&mut pair, keys);
    let mut now = idle(&mut pair);

    println!(
        "{:>6} {:>6} {:>9} {:>9} {:>6} {:>7} {:>12} {:>12}",
        "keys", "writer", "bytes", "at most", "RTT", "at most", "prober", "other"
    );
    let mut clock = 1;
    for differ in [1, 10, 100, 1_000].into_iter().filter(|differ| *differ < keys) {
        for writer in [1, 0] {
            let runs: Vec<Run> = (0..RUNS)
                .map(|_| {
                    clock += 1;
                    now += Duration::from_secs(1);
                    for number in 0..differ {
                        // Spread over all keys, other ones each time.
                        let name = key((number * 7_919 + clock * 104_729) % keys);
                        let value = Bytes::from(vec![clock as u8; VALUE_BYTES]);
                        pair[writer].set(&name, value, at(now), &mut Vec::new()).expect("there is room");
                    }
                    let run = reconcile(&mut pair);
                    now = run.at;
                    run
                })
                .collect();
            let mean = |of: fn(&Run) -> f64| runs.iter().map(of).sum::<f64>() / RUNS as f64;
            let most = |of: fn(&Run) -> f64| runs.iter().map(of).fold(0.0, f64::max);
            println!(
                "{differ:>6} {:>6} {:>9.0} {:>9.0} {:>6.2} {:>7.1} {:>9.0} µs {:>9.0} µs",
                ["prober", "other"][writer],
                mean(|run| run.bytes as f64),
                most(|run| run.bytes as f64),
                mean(|run| run.round_trips),
                most(|run| run.round_trips),
                mean(|run| run.busy[0].as_secs_f64() * 1e6),
                mean(|run| run.busy[1].as_secs_f64() * 1e6),
            );
        }
    }
}

/// A repair of the first replica with the second.
struct Run {
    at: Time,
    /// Of all messages but entries.
    bytes: usize,
    /// From the probe until both are equal.
    round_trips: f64,
    busy: [Duration; 2],
}

fn reconcile(pair: &mut [State; 2]) -> Run {
    let mut run = Run { at: Time::ZERO, bytes: 0, round_trips: 0.0, busy: [Duration::ZERO; 2] };
    let mut mail: Vec<(usize, Message)> = Vec::new();
    while mail.is_empty() {
        run.at = pair[0].next_deadline().expect("there is a neighbor to compare with");
        mail = handle(pair, 0, Input::DeadlineReached, run.at, &mut run);
    }
    while !mail.is_empty() {
        let is_equal = pair[0].digest() == pair[1].digest();
        run.round_trips += if is_equal { 0.0 } else { 0.5 };
        for (to, message) in std::mem::take(&mut mail) {
            if !matches!(message, Message::Entries { .. }) {
                run.bytes += encode(&message).len();
            }
            mail.extend(handle(pair, to, Input::Received { from: peer(1 - to), message }, run.at, &mut run));
        }
    }
    assert_eq!(pair[0].digest(), pair[1].digest(), "one session repairs all");
    run
}

fn handle(pair: &mut [State; 2], index: usize, input: Input, time: Time, run: &mut Run) -> Vec<(usize, Message)> {
    let mut actions = Vec::new();
    let begun = Instant::now();
    pair[index].handle(input, at(time), &mut actions);
    run.busy[index] += begun.elapsed();
    let sent = |action| match action {
        Action::Send { message, .. } => Some((1 - index, message)),
        _ => None,
    };
    actions.into_iter().filter_map(sent).collect()
}

/// A probe and its answer, where nothing differs.
fn idle(pair: &mut [State; 2]) -> Time {
    for (index, state) in pair.iter_mut().enumerate() {
        state.handle(Input::NeighborUp(peer(1 - index)), at(Time::from_secs(1)), &mut Vec::new());
    }
    let run = reconcile(pair);
    println!("equal replicas: {} bytes for each comparison, probe and answer", run.bytes);
    run.at
}

/// Entries that replace those of random keys.
fn writes(pair: &mut [State; 2], keys: usize) {
    let stamp = Stamp::from_parts(at(Time::from_millis(500)).wall.as_millis(), 0);
    let numbers = (0..100 * ENTRIES_MAX).map(|number| number * 7_919 % keys);
    let entries: Vec<Entry> = numbers.map(|number| entry(number, stamp, vec![7; VALUE_BYTES])).collect();
    let distinct = entries.len().min(keys);
    for state in pair {
        let begun = Instant::now();
        join(state, entries[..distinct].to_vec());
        println!("{:.0} ns for an entry that arrives and replaces a random one", begun.elapsed().as_nanos() as f64 / distinct as f64);
    }
}

fn filled(number: usize, keys: usize) -> State {
    let config = Config { keys_max: keys, state_bytes_max: 256 << 20, flush_delay: Duration::from_secs(1), ..Config::default() };
    let mut state = State::new(peer(number), config.build().expect("within the limits"), 7);
    let stamp = Stamp::from_parts(at(Time::ZERO).wall.as_millis(), 0);
    for first in (0..keys).step_by(ENTRIES_MAX) {
        let entries = (first..keys.min(first + ENTRIES_MAX)).map(|number| entry(number, stamp, vec![1; VALUE_BYTES])).collect();
        join(&mut state, entries);
    }
    assert_eq!(state.len(), keys);
    state
}

fn join(state: &mut State, entries: Vec<Entry>) {
    let mut actions = Vec::new();
    for chunk in entries.chunks(ENTRIES_MAX) {
        let message = Message::Entries { entries: Bounded::first_of(chunk.iter().cloned()) };
        state.handle(Input::Received { from: peer(9), message }, at(Time::from_secs(1)), &mut actions);
        actions.clear();
    }
}

/// Of ten writers.
fn entry(number: usize, stamp: Stamp, value: Vec<u8>) -> Entry {
    let key = Key::try_from(&*key(number)).expect("it is short");
    Entry { key, stamp, origin: peer(10 + number % 10), body: Body::Register(value.into()) }
}

fn key(number: usize) -> String {
    // In no order, as they are written in a cluster.
    format!("service/{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn peer(number: usize) -> PeerId {
    PeerId::from_bytes([number as u8; 32])
}

fn at(time: Time) -> Now {
    Now { time, wall: WallTime::from_millis(1_700_000_000_000) + time.since(Time::ZERO) }
}

/// Bytes of this process in memory, where the system tells them.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|statm| statm.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}
