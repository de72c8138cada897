//! Two equal replicas of which one has a hostile peer, for `bench state`: whether its writes take longer than those of the other.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Bounded, Time, encode};
use meshwork_crdt::replica::{Action, Input, State};
use meshwork_crdt::wire::{Body, Delta, Write};
use meshwork_crdt::{Key, Op};
use rand::RngExt;

use super::machine::{resident_bytes, thread_cpu_time};
use super::replicas::{Watcher, at, empty, filled, key, peer, stamp, value};
use crate::cli::Failure;

/// What the peer sends of a kind.
pub(super) const ATTACKS: usize = 10_000;
/// Sets at which it aims, and to which both replicas write.
const SETS: usize = 100;
/// Writes of one replica, then of the other.
const BLOCK: usize = 1_024;
const ORIGINS: usize = 10;
const HOSTILE: usize = 97;

/// What a hostile peer sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// In turn: steps of a set of which the first never comes, among them removals of members, and removals of keys that are stamped an hour ahead. Nothing of it is kept.
    Waiting,
    /// Removals of keys that nobody wrote, which are kept as all removals are.
    Unknown,
}

pub(super) struct Siege {
    /// The first is left alone.
    replicas: [State; 2],
    keys: usize,
    time: Time,
}

fn set(number: usize) -> Key {
    Key::try_from(&*format!("set-{}", number % SETS)).expect("it is short")
}

fn member(generator: &mut Generator) -> Bytes {
    vec![b'a' + generator.random_range(0..16)].into()
}

impl Siege {
    pub(super) fn new(keys: usize) -> Result<Self, Failure> {
        let mut siege = Siege { replicas: [filled(1, keys, ORIGINS)?, filled(1, keys, ORIGINS)?], keys, time: Time::from_secs(10) };
        for state in &mut siege.replicas {
            state.handle(Input::NeighborUp(peer(HOSTILE)), at(siege.time), &mut Vec::new());
        }
        // The sets are there before anything comes, and the first block warms up.
        siege.write(0, SETS)?;
        Ok(siege)
    }

    /// Lets the peer send so much to the second; by how much more memory this process has in use.
    pub(super) fn attack(&mut self, attack: Attack) -> Result<u64, Failure> {
        self.time += Duration::from_secs(10);
        let inputs = match attack {
            Attack::Waiting => {
                let mut steps = self.steps()?.into_iter();
                let ahead = self.removals(stamp(self.time + Duration::from_secs(3_600)), 0);
                ahead.into_iter().take(ATTACKS / 2).flat_map(|removal| [steps.next(), Some(removal)]).flatten().collect()
            }
            Attack::Unknown => self.removals(stamp(self.time), self.keys),
        };
        if inputs.len() != ATTACKS {
            return Err(Failure::new(format!("{} attacks were made", inputs.len())));
        }
        let (state, mut actions) = (&mut self.replicas[1], Vec::new());
        let (held, before) = (state.tombstones(), resident_bytes());
        for bytes in inputs {
            state.handle(Input::Delta { origin: peer(HOSTILE), bytes }, at(self.time), &mut actions);
            actions.clear();
        }
        let (kept, expected) = (state.tombstones() - held, if attack == Attack::Unknown { ATTACKS } else { 0 });
        if kept != expected {
            return Err(Failure::new(format!("{kept} removals were kept, and not {expected}")));
        }
        Ok(resident_bytes().saturating_sub(before))
    }

    /// Steps of sets as the peer would broadcast them, without the first of each set.
    fn steps(&self) -> Result<Vec<Bytes>, Failure> {
        let (mut writer, mut actions, mut generator) = (empty(HOSTILE, SETS)?, Vec::new(), generator(1, "hostile", 0));
        let mut steps = Vec::new();
        for number in 0.. {
            let (name, member) = (set(number), member(&mut generator));
            let op = if number < SETS || number % 2 == 0 { Op::Insert(member) } else { Op::Take(member) };
            // Far enough from each other to travel alone.
            let now = at(self.time + Duration::from_millis(10 * number as u64));
            writer.apply(&name, op, now, &mut actions).map_err(Failure::new)?;
            for action in actions.drain(..) {
                if let Action::Broadcast(bytes) = action
                    && number >= SETS
                {
                    steps.push(bytes);
                }
            }
            if steps.len() == ATTACKS / 2 {
                break;
            }
        }
        Ok(steps)
    }

    fn removals(&self, stamp: meshwork_crdt::Stamp, first: usize) -> Vec<Bytes> {
        let removal = |number| Delta::Writes(Bounded::first_of([Write { key: key(first + number), stamp, body: Body::Removed }]));
        (0..ATTACKS).map(|number| encode(&removal(number))).collect()
    }

    /// Writes the same to both in turns, registers and sets; the processor time of each.
    pub(super) fn write(&mut self, round: u8, operations: usize) -> Result<[Duration; 2], Failure> {
        let mut generator = generator(u64::from(round), "siege", 0);
        let mut spent = [Duration::ZERO; 2];
        self.time += Duration::from_secs(60);
        for first in (0..operations).step_by(BLOCK) {
            let writes: Vec<(Key, Op)> = (first..operations.min(first + BLOCK))
                .map(|number| match number % 4 {
                    _ if round == 0 => (set(number), Op::Insert(member(&mut generator))),
                    0 => (set(generator.random_range(0..SETS)), Op::Insert(member(&mut generator))),
                    1 => (set(generator.random_range(0..SETS)), Op::Take(member(&mut generator))),
                    _ => (key(generator.random_range(0..self.keys)), Op::Set(value(u64::from(round) * 1_000_000 + number as u64))),
                })
                .collect();
            // Whoever comes second finds the keys in the cache of the processor, so they take turns at that too.
            let is_turned = (first / BLOCK) % 2 == 1;
            for index in if is_turned { [1, 0] } else { [0, 1] } {
                let (state, writes) = (&mut self.replicas[index], writes.clone());
                let (mut watcher, mut actions, mut time) = (Watcher::default(), Vec::new(), self.time);
                let from = thread_cpu_time();
                for (key, op) in writes {
                    time += Duration::from_micros(10);
                    state.apply(&key, op, at(time), &mut actions).map_err(Failure::new)?;
                    if state.next_deadline().is_some_and(|due| due <= time) {
                        state.handle(Input::DeadlineReached, at(time), &mut actions);
                    }
                    watcher.note(&mut actions);
                }
                spent[index] += thread_cpu_time().saturating_sub(from);
            }
            self.time += Duration::from_millis(50);
        }
        Ok(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_replica_must_remember_is_kept() {
        let mut siege = Siege::new(1_000).unwrap();
        let before = siege.replicas[1].digest();
        siege.attack(Attack::Waiting).unwrap();
        assert_eq!(siege.replicas[1].digest(), before);
        assert_eq!(siege.replicas[1].counters().gaps, ATTACKS as u64 / 2);
        assert_eq!(siege.replicas[1].counters().stamp_ahead, ATTACKS as u64 / 2);
        siege.attack(Attack::Unknown).unwrap();
        siege.write(1, 3_000).unwrap();
        assert_eq!(siege.replicas[0].len(), siege.replicas[1].len());
    }
}
