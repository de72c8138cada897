//! The operations that are measured, each ready to be repeated: whatever grows has grown, and nothing comes from a clock or a system generator.

use std::hint::black_box;
use std::time::Duration;

use meshwork_channels::{Bounded, Now, PeerId, Time, WallTime, encode};
use meshwork_crdt::replica::{Action, Config, Input, State};
use meshwork_crdt::wire::{Body, Delta, Write};
use meshwork_crdt::{Key, Stamp};

type Operation = Box<dyn FnMut()>;
/// A name, and what makes the operation.
type Case = (&'static str, fn() -> Operation);

const KEYS: u64 = 1_000;

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    vec![("crdt/write-arrives", write), ("crdt/compare-1000-equal-keys", compare)]
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn replica(number: u8) -> State {
    // Without the tables of members, which are told every five minutes.
    let config = Config { collect_after: None, ..Config::default() };
    State::new(peer(number), config.build().expect("the default is valid but for that"), 7)
}

fn at(time: Time) -> Now {
    Now { time, wall: WallTime::from_millis(1_700_000_000_000) + time.since(Time::ZERO) }
}

/// A write, as bytes of a broadcast.
fn delta(number: u64, now: Now) -> Input {
    let key = Key::try_from(&*format!("key-{:04}", number % KEYS)).expect("the key is short");
    let body = Body::Register(number.to_be_bytes().repeat(8).into());
    let write = Write { key, stamp: Stamp::from_parts(now.wall.as_millis(), 0), body };
    Input::Delta { origin: peer(9), bytes: encode(&Delta::Writes(Bounded::first_of([write]))) }
}

/// A write of 64 bytes to one of 1,000 known keys; what makes the bytes in which it arrives is a part of it, because a write arrives once.
fn write() -> Operation {
    let mut state = replica(0);
    let (mut time, mut number, mut actions) = (Time::from_secs(1), 0, Vec::new());
    warm(KEYS as usize, move || {
        time += Duration::from_millis(1);
        number += 1;
        actions.clear();
        state.handle(delta(number, at(time)), at(time), &mut actions);
        assert_eq!(black_box(&actions).len(), 1, "the key changed");
    })
}

/// One replica compares with its neighbor when its time has come, and learns that nothing differs.
fn compare() -> Operation {
    let mut states = [0, 1].map(replica);
    let (mut time, mut actions) = (Time::from_secs(1), Vec::new());
    for number in 0..KEYS {
        time += Duration::from_millis(1);
        states.iter_mut().for_each(|state| state.handle(delta(number, at(time)), at(time), &mut actions));
    }
    states[0].handle(Input::NeighborUp(peer(1)), at(time), &mut actions);
    actions.clear();
    warm(10, move || {
        let time = states[0].next_deadline().expect("there is a neighbor to compare with");
        states[0].handle(Input::DeadlineReached, at(time), &mut actions);
        for (from, to) in [(0, 1), (1, 0)] {
            let Some(Action::Send { message, .. }) = actions.pop() else { unreachable!("a probe, and its answer") };
            states[to].handle(Input::Received { from: peer(from as u8), message }, at(time), &mut actions);
        }
        assert!(black_box(&actions).is_empty(), "nothing differs");
    })
}

/// The operation, after it was done some times.
fn warm(times: usize, mut operation: impl FnMut() + 'static) -> Operation {
    (0..times).for_each(|_| operation());
    Box::new(operation)
}
