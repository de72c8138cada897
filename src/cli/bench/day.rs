//! A day of its own time in which keys are written and removed, for `bench state`: how many removals are remembered at once while all members are there.
//!
//! Replicas with the default settings, each a neighbor of all others, over links of 10 to 50 ms that lose one broadcast in a hundred. Every key is written by one of them and removed
//! by another a minute later.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_channels::Time;
use meshwork_channels::random::{Generator, generator};
use meshwork_crdt::Op;
use meshwork_crdt::replica::{Action, Config, Input, State};
use rand::RngExt;

use super::machine::{resident_bytes, thread_cpu_time};
use super::replicas::{at, key, peer, value};
use crate::cli::Failure;

const REPLICAS: usize = 5;
const DAY: Duration = Duration::from_secs(24 * 3_600);
const LIFETIME: Duration = Duration::from_secs(60);
/// How long after the day every removal must be forgotten.
const AFTER: Duration = Duration::from_secs(2 * 3_600);
const LOST: f64 = 0.01;
const DELAY_MILLIS: std::ops::Range<u64> = 10..50;

/// What a day was like.
pub(super) struct Day {
    /// The most removals that one replica remembered at once.
    pub(super) tombstones_max: usize,
    /// The same by the removals of an hour.
    pub(super) hours: f64,
    /// By how much more memory the process had in use after the day, by replicas.
    pub(super) resident_bytes: f64,
    /// Writes and removals, each at every replica, for a second of processor time.
    pub(super) ops_per_cpu_s: f64,
}

struct Cluster {
    replicas: Vec<State>,
    time: Time,
    mail: BTreeMap<(Time, u64), (usize, Input)>,
    sent: u64,
    generator: Generator,
}

pub(super) fn day(keys: usize) -> Result<Day, Failure> {
    let (begun, before) = (thread_cpu_time(), resident_bytes());
    let config = Config { keys_max: meshwork_channels::limits::KEYS_MAX, ..Config::default() };
    let mut cluster = Cluster {
        replicas: Vec::new(),
        time: Time::from_secs(1),
        mail: BTreeMap::new(),
        sent: 0,
        generator: generator(1, "day", keys as u64),
    };
    for number in 0..REPLICAS {
        cluster.replicas.push(State::new(peer(number), config.clone().build().map_err(Failure::new)?, number as u64));
    }
    for (number, other) in (0..REPLICAS).flat_map(|number| (0..REPLICAS).map(move |other| (number, other))) {
        if number != other {
            cluster.handle(number, Input::NeighborUp(peer(other)));
        }
    }
    let morning = cluster.time;
    let written_at = |number: usize| morning + DAY.mul_f64(number as f64 / keys as f64);
    let (mut written, mut tombstones_max) = (0, 0);
    for removed in 0..keys {
        while written < keys && written_at(written) < written_at(removed) + LIFETIME {
            cluster.run_until(written_at(written));
            cluster.apply(&key(written), Op::Set(value(written as u64)))?;
            written += 1;
        }
        cluster.run_until(written_at(removed) + LIFETIME);
        cluster.apply(&key(removed), Op::Remove)?;
        tombstones_max = cluster.replicas.iter().map(State::tombstones).fold(tombstones_max, usize::max);
    }
    let (spent, after) = (thread_cpu_time().saturating_sub(begun), resident_bytes());
    cluster.run_until(cluster.time + AFTER);
    let left: usize = cluster.replicas.iter().map(|state| state.len() + state.tombstones()).sum();
    if left > 0 {
        return Err(Failure::new(format!("{left} keys are left of a day that is long over")));
    }
    Ok(Day {
        tombstones_max,
        hours: tombstones_max as f64 / (keys as f64 / 24.0),
        resident_bytes: after.saturating_sub(before) as f64 / REPLICAS as f64,
        ops_per_cpu_s: (2 * keys * REPLICAS) as f64 / spent.as_secs_f64().max(1e-9),
    })
}

impl Cluster {
    fn run_until(&mut self, end: Time) {
        loop {
            let deadlines = self.replicas.iter().enumerate().filter_map(|(index, state)| Some((state.next_deadline()?, index)));
            let deadline = deadlines.min().filter(|(due, _)| *due <= end);
            let arrival = self.mail.first_key_value().map(|((due, _), _)| *due).filter(|due| *due <= end);
            match (arrival, deadline) {
                (Some(arrival), deadline) if deadline.is_none_or(|(due, _)| arrival <= due) => {
                    self.time = self.time.max(arrival);
                    if let Some((_, (to, input))) = self.mail.pop_first() {
                        self.handle(to, input);
                    }
                }
                (_, Some((due, index))) => {
                    self.time = self.time.max(due);
                    self.handle(index, Input::DeadlineReached);
                }
                (_, None) => break,
            }
        }
        self.time = self.time.max(end);
    }

    /// Somebody does something to a key.
    fn apply(&mut self, key: &str, op: Op) -> Result<(), Failure> {
        let (index, mut actions) = (self.generator.random_range(0..REPLICAS), Vec::new());
        self.replicas[index].apply(key, op, at(self.time), &mut actions).map_err(Failure::new)?;
        self.execute(index, actions);
        Ok(())
    }

    fn handle(&mut self, index: usize, input: Input) {
        let mut actions = Vec::new();
        self.replicas[index].handle(input, at(self.time), &mut actions);
        self.execute(index, actions);
    }

    fn execute(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                // On a stream, in order.
                Action::Send { to, message } => {
                    if let Some(to) = (0..REPLICAS).find(|number| peer(*number) == to) {
                        self.send(to, DELAY_MILLIS.start, Input::Received { from: peer(from), message });
                    }
                }
                Action::Broadcast(bytes) => {
                    for to in (0..REPLICAS).filter(|to| *to != from) {
                        if !self.generator.random_bool(LOST) {
                            let millis = self.generator.random_range(DELAY_MILLIS);
                            self.send(to, millis, Input::Delta { origin: peer(from), bytes: bytes.clone() });
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, to: usize, millis: u64, input: Input) {
        self.sent += 1;
        self.mail.insert((self.time + Duration::from_millis(millis), self.sent), (to, input));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_remembered_for_little_more_than_an_hour() {
        let day = day(2_000).unwrap();
        assert!((1.0..2.0).contains(&day.hours), "{}", day.hours);
    }
}
