//! What the replicated state costs: bytes of repair, of a broadcast and of a snapshot, operations for a second of processor time, and memory.
//!
//! The replicas are those of every node, driven by hand in one thread and in a time of their own (`replicas`): no network, no runtime, no lock. So bytes and round trips say what the
//! protocol costs before any transport, and are the same on every machine; processor time is that of the thread. Bytes are of payloads: what the broadcast tree and QUIC put around them is not counted.
//! Memory is measured in a process of its own, as in `bench memory`.

#![expect(clippy::disallowed_methods, reason = "it measures in a thread that may take long")]

use std::time::Duration;

use clap::{Args, ValueEnum};
use meshwork_channels::quic::NodeKey;
use meshwork_channels::random::{generator, mix};
use meshwork_channels::{Time, encode};
use meshwork_crdt::Stamp;
use meshwork_crdt::journal::{Head, Image, Kind, Writer};
use meshwork_crdt::replica::{Action, Input, State};
use meshwork_crdt::sketch::{CELLS_MAX, Sketch};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::day::day;
use super::machine::{self, resident_bytes, thread_cpu_time};
use super::replicas::{self, KEY_BYTES, Pair, VALUE_BYTES, Watcher, at, delta, empty, filled, key, peer, stamp, value};
use super::samples::median;
use super::siege::{ATTACKS, Attack, Siege};
use super::{Bar, Outcome, Output, Progress, row};
use crate::cli::Failure;
use crate::cli::text::{self, Align, Table};

const KEYS_MAX: u32 = 1_000_000;
const DIFFS: [usize; 4] = [1, 10, 100, 1_000];
/// Keys of the smaller replica of `apply`.
const FEW_KEYS: usize = 10_000;
/// Writes that one delta brings in bulk.
const BULK: usize = 256;
/// Operations that a measurement of processor time has.
const OPERATIONS: usize = 102_400;
/// Writers of what is in a replica, where that is not what is measured.
const ORIGINS: usize = 10;
const MANY_ORIGINS: usize = 1_000;
const OVERWRITES: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Keys that are newer on one side.
    Repair,
    /// Two equal replicas compare.
    Idle,
    /// A write as it is broadcast.
    Delta,
    /// Broadcasts of others arrive.
    Apply,
    /// Writes here, and what of that the sketch takes.
    Write,
    /// Writes that are signed here and verified elsewhere.
    Signed,
    /// One key, written 10,000 times.
    Overwrites,
    /// A new replica takes everything.
    Snapshot,
    /// What an entry takes beside key and value.
    Memory,
    /// Writes beside a peer that sends what must wait for what never comes.
    Hostile,
    /// Keys are written and removed all day.
    Day,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Keys have 16 bytes and values 100, but for `delta` and `overwrites`, where they have 8. Bytes are those of the payloads in both directions; `entry bytes` are those of the messages that carry entries, the others \
are what it takes to find them. A round trip is two messages, there and back, until both replicas are equal. Processor time is told of the one who asks and of the one who is asked, decoding and encoding included.

`repair`: so many keys are newer on one side. `idle`: a comparison of equal replicas. `delta`: a write as it is broadcast, alone and among eight of one flush, for each write. `apply`: \
broadcasts of one write and of 256 arrive, under a watch, written by one node and by 1,000; the ratio is by one. `write`: writes here with their broadcasts; `sketch`: of that, an item taken out of the sketch and another put in; \
the ratio is its part of a write. `signed`: writes of 10,000 keys that are signed, with the bytes of a broadcast of one, and `verified`: those broadcasts arrive elsewhere; the ratio is by the same \
unsigned. `overwrites`: a snapshot of the journal after 10,000 writes of one key, and the entry in it. `snapshot`: an empty replica takes everything; the ratio is by keys and values. \
`memory`: bytes for an entry beside key and value, by what the process holds. `hostile`: writes of registers and sets, in turns at a replica that is left alone and at one to which a peer sent 10,000 \
steps and removals that cannot be taken (`waiting`), then 10,000 removals of keys that nobody wrote (`unknown`); the ratio is the time of a write by that of the first replica, and the bytes are by how much memory grew with them. `day`: \
as many keys as there are written and removed in a day of their own time, by five replicas; the ratio is the most removals that one of them remembered at once by those of an hour, the bytes are of a replica. It is done once, whatever \
the number of rounds.")]
pub(super) struct StateArgs {
    /// Keys of a replica, 1,000 to 1,000,000
    #[arg(long, default_value_t = KEYS_MAX, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1_000..=i64::from(KEYS_MAX)))]
    keys: u32,
    /// Keys that differ in `repair`, fewer than there are, 1 to 100,000, with commas between them. Without: 1, 10, 100 and 1,000
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    diff: Vec<u32>,
    /// Only these cases, with commas between them
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    case: Vec<Case>,
    /// Rounds, 1 to 100; the figures are medians over them
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Measure memory in this process and print what was found; the command runs itself so
    #[arg(long, hide = true)]
    alone: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// What is to be done.
#[derive(Clone)]
struct Plan {
    keys: usize,
    diffs: Vec<usize>,
    cases: Vec<Case>,
    rounds: u8,
}

impl StateArgs {
    fn plan(&self) -> Result<Plan, Failure> {
        let keys = self.keys as usize;
        let asked: Vec<usize> = self.diff.iter().map(|diff| *diff as usize).collect();
        if let Some(diff) = asked.iter().find(|diff| **diff >= keys) {
            return Err(Failure::usage(format!("{diff} of {keys} keys cannot differ: there must be fewer")));
        }
        let diffs = if asked.is_empty() { DIFFS.into_iter().filter(|diff| *diff < keys).collect() } else { asked };
        let cases = if self.case.is_empty() { Case::value_variants().to_vec() } else { self.case.clone() };
        Ok(Plan { keys, diffs, cases, rounds: self.rounds })
    }

    /// Nothing where another process waits for this one and shows how far it is.
    pub(super) fn expected_seconds(&self) -> Result<f64, Failure> {
        let plan = self.plan()?;
        Ok(if self.alone { 0.0 } else { plan.cases.iter().map(|case| plan.seconds(*case) * f64::from(plan.rounds)).sum() })
    }
}

impl Plan {
    /// About what a round of a case takes.
    fn seconds(&self, case: Case) -> f64 {
        let of_a_million = match case {
            Case::Delta | Case::Idle | Case::Overwrites => 0.1,
            Case::Repair => 1.0,
            Case::Apply | Case::Write | Case::Memory => 4.0,
            // Not of as many keys as there are.
            Case::Signed => 1.0,
            Case::Hostile => 2.0,
            Case::Snapshot => 10.0,
            Case::Day => 60.0,
        };
        0.1 + of_a_million * self.keys as f64 / f64::from(KEYS_MAX)
    }
}

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
struct Subject {
    case: &'static str,
    /// Keys of a replica.
    n: Option<usize>,
    /// Keys that differ, or writes that travel together.
    d: Option<usize>,
    /// Whose writes they are: the nodes that wrote, or which of two replicas.
    origins: Option<usize>,
    writer: Option<&'static str>,
}

impl Subject {
    fn new(case: &'static str) -> Self {
        Subject { case, n: None, d: None, origins: None, writer: None }
    }
}

/// What one round has found, or all of them.
#[derive(Clone, Copy, Default, Serialize)]
struct Figures {
    bytes: Option<f64>,
    entry_bytes: Option<f64>,
    rounds: Option<f64>,
    cpu_ms: Option<f64>,
    cpu_asking_ms: Option<f64>,
    cpu_asked_ms: Option<f64>,
    ops_per_cpu_s: Option<f64>,
    /// What the replicas waited for, in their own time.
    waited_s: Option<f64>,
    /// Entries that one replica had of the other.
    repaired: Option<f64>,
    /// The most removals that one replica remembered.
    tombstones: Option<f64>,
    /// What is compared with a baseline, by that.
    ratio: Option<f64>,
}

impl Figures {
    fn median(rounds: &[Figures]) -> Self {
        let of = |field: fn(&Figures) -> Option<f64>| rounds.iter().map(field).collect::<Option<Vec<f64>>>().map(median);
        Figures {
            bytes: of(|round| round.bytes),
            entry_bytes: of(|round| round.entry_bytes),
            rounds: of(|round| round.rounds),
            cpu_ms: of(|round| round.cpu_ms),
            cpu_asking_ms: of(|round| round.cpu_asking_ms),
            cpu_asked_ms: of(|round| round.cpu_asked_ms),
            ops_per_cpu_s: of(|round| round.ops_per_cpu_s),
            waited_s: of(|round| round.waited_s),
            repaired: of(|round| round.repaired),
            tombstones: of(|round| round.tombstones),
            ratio: of(|round| round.ratio),
        }
    }

    fn rate(operations: usize, cpu: Duration) -> Self {
        Figures { ops_per_cpu_s: Some(operations as f64 / cpu.as_secs_f64().max(1e-9)), ..Figures::default() }
    }
}

impl From<replicas::Repair> for Figures {
    fn from(run: replicas::Repair) -> Self {
        let millis = run.cpu.map(|cpu| cpu.as_secs_f64() * 1e3);
        Figures {
            bytes: Some(run.bytes as f64),
            entry_bytes: Some(run.entry_bytes as f64),
            rounds: Some(run.round_trips),
            cpu_ms: Some(millis.iter().sum()),
            cpu_asking_ms: Some(millis[0]),
            cpu_asked_ms: Some(millis[1]),
            waited_s: Some(run.waited.as_secs_f64()),
            repaired: Some(run.repaired as f64),
            ..Figures::default()
        }
    }
}

struct Measured {
    subject: Subject,
    /// What the ratio is by.
    baseline: Option<&'static str>,
    rounds: Vec<Figures>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    subject: Subject,
    #[serde(flatten)]
    figures: Figures,
    /// The most of a round.
    bytes_max: Option<f64>,
    baseline: Option<&'static str>,
}

/// What was measured so far, in the order in which it is told.
#[derive(Default)]
struct Rows(Vec<Measured>);

impl Rows {
    fn add(&mut self, subject: Subject, baseline: Option<&'static str>, found: Figures) {
        match self.0.iter_mut().find(|measured| measured.subject == subject) {
            Some(measured) => measured.rounds.push(found),
            None => self.0.push(Measured { subject, baseline, rounds: vec![found] }),
        }
    }
}

pub(super) async fn run(args: &StateArgs, progress: &Progress) -> Result<Option<Outcome>, Failure> {
    let plan = args.plan()?;
    if args.alone {
        let found = tokio::task::spawn_blocking(move || resident(plan.keys)).await.map_err(Failure::new)??;
        text::print(&format!("{}\n", text::json_line(&found)))?;
        return Ok(None);
    }
    let (planned, progress) = (plan.clone(), progress.clone());
    let rows = tokio::task::spawn_blocking(move || measure(&planned, &progress)).await.map_err(Failure::new)??;
    Ok(Some(outcome(&plan, &rows)))
}

fn measure(plan: &Plan, progress: &Progress) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    let has = |case| plan.cases.contains(&case);
    // Those of a pair share it, and go before the others, which want the memory.
    if has(Case::Repair) || has(Case::Idle) || has(Case::Snapshot) {
        progress.show("replicas are filled".into());
        let mut pair = Pair::new([filled(0, plan.keys, ORIGINS)?, filled(1, plan.keys, ORIGINS)?]);
        for case in [Case::Idle, Case::Repair, Case::Snapshot].into_iter().filter(|case| has(*case)) {
            plan.repeat(case, progress, |_| match case {
                Case::Idle => idle(plan, &mut pair, &mut rows),
                Case::Repair => repair(plan, &mut pair, &mut rows),
                _ => snapshot(plan, &mut pair, &mut rows),
            })?;
        }
    }
    if has(Case::Delta) {
        plan.repeat(Case::Delta, progress, |_| flushes(&mut rows))?;
    }
    if has(Case::Apply) {
        let mut sizes = vec![plan.keys];
        if plan.keys > FEW_KEYS {
            sizes.insert(0, FEW_KEYS);
        }
        for keys in sizes {
            let mut stores = [(1, filled(1, keys, 1)?), (MANY_ORIGINS, filled(1, keys, MANY_ORIGINS)?)];
            let part = Plan { keys, ..plan.clone() };
            part.repeat(Case::Apply, progress, |round| apply(keys, round, &mut stores, &mut rows))?;
        }
    }
    if has(Case::Write) {
        let mut state = filled(1, plan.keys, ORIGINS)?;
        let mut items: Vec<u64> = (0..plan.keys as u64).map(mix).collect();
        let mut sketch = Sketch::of(items.iter().copied(), CELLS_MAX);
        plan.repeat(Case::Write, progress, |round| write(plan, round, &mut state, (&mut sketch, &mut items), &mut rows))?;
    }
    if has(Case::Signed) {
        plan.repeat(Case::Signed, progress, |_| signed(&mut rows))?;
    }
    if has(Case::Overwrites) {
        plan.repeat(Case::Overwrites, progress, |_| overwrites(&mut rows))?;
    }
    if has(Case::Hostile) {
        progress.show("replicas are filled".into());
        let mut siege = Siege::new(plan.keys)?;
        for (attack, name) in [(Attack::Waiting, "waiting"), (Attack::Unknown, "unknown")] {
            let bytes = siege.attack(attack)?;
            plan.repeat(Case::Hostile, progress, |round| hostile(plan, round, &mut siege, (name, bytes), &mut rows))?;
        }
    }
    if has(Case::Day) {
        let once = Plan { rounds: 1, ..plan.clone() };
        once.repeat(Case::Day, progress, |_| whole_day(plan, &mut rows))?;
    }
    if has(Case::Memory) {
        plan.repeat(Case::Memory, progress, |_| memory(plan, &mut rows))?;
    }
    Ok(rows)
}

impl Plan {
    fn repeat(&self, case: Case, progress: &Progress, mut once: impl FnMut(u8) -> Result<(), Failure>) -> Result<(), Failure> {
        let name = case.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        for round in 1..=self.rounds {
            progress.show(format!("{name} of {} keys, round {round}", self.keys));
            once(round)?;
            progress.advance(self.seconds(case));
        }
        Ok(())
    }
}

fn idle(plan: &Plan, pair: &mut Pair, rows: &mut Rows) -> Result<(), Failure> {
    let run = pair.repair()?;
    rows.add(Subject { n: Some(plan.keys), d: Some(0), ..Subject::new("idle") }, None, run.into());
    Ok(())
}

fn repair(plan: &Plan, pair: &mut Pair, rows: &mut Rows) -> Result<(), Failure> {
    for diff in &plan.diffs {
        for (writer, name) in [(1, "asked"), (0, "asking")] {
            pair.differ(writer, plan.keys, *diff);
            let run = pair.repair()?;
            if run.repaired != *diff as u64 {
                return Err(Failure::new(format!("{} keys were repaired, and {diff} differed", run.repaired)));
            }
            let subject = Subject { n: Some(plan.keys), d: Some(*diff), writer: Some(name), ..Subject::new("repair") };
            rows.add(subject, None, run.into());
        }
    }
    Ok(())
}

/// The first of the pair begins again with nothing.
fn snapshot(plan: &Plan, pair: &mut Pair, rows: &mut Rows) -> Result<(), Failure> {
    pair.replace_first(empty(0, plan.keys)?);
    let run = pair.repair()?;
    let raw = plan.keys * (KEY_BYTES + VALUE_BYTES);
    let found = Figures { ratio: Some((run.bytes + run.entry_bytes) as f64 / raw as f64), ..run.into() };
    rows.add(Subject { n: Some(plan.keys), d: Some(plan.keys), ..Subject::new("snapshot") }, Some("key and value"), found);
    Ok(())
}

/// Writes that wait for one flush, as they are broadcast.
fn flushes(rows: &mut Rows) -> Result<(), Failure> {
    for count in [1, 8] {
        let (mut state, mut actions) = (empty(1, FEW_KEYS)?, Vec::new());
        // The first write leaves at once, and those of the next milliseconds together.
        for number in 0..=count {
            let value = (number as u64).to_le_bytes().to_vec().into();
            state.set(&key(number), value, at(Time::from_secs(1)), &mut actions).map_err(Failure::new)?;
            if number == 0 {
                actions.clear();
            }
        }
        state.handle(Input::DeadlineReached, at(Time::from_secs(2)), &mut actions);
        let bytes: usize = actions.iter().map(|action| if let Action::Broadcast(bytes) = action { bytes.len() } else { 0 }).sum();
        let found = Figures { bytes: Some(bytes as f64 / count as f64), ..Figures::default() };
        rows.add(Subject { d: Some(count), ..Subject::new("delta") }, None, found);
    }
    Ok(())
}

/// Broadcasts of so many writes each, with a watch on all keys; by the same of one writer.
fn apply(keys: usize, round: u8, stores: &mut [(usize, State); 2], rows: &mut Rows) -> Result<(), Failure> {
    for (part, count) in [1, BULK].into_iter().enumerate() {
        let mut alone = None;
        for (origins, state) in &mut *stores {
            let mut generator = generator(u64::from(round), "apply", count as u64);
            let time = Time::from_secs(2 * u64::from(round) + part as u64);
            let deltas: Vec<Input> = (0..OPERATIONS / count)
                .map(|index| {
                    let first = generator.random_range(0..keys);
                    let numbers = (first..first + count).map(|number| number % keys);
                    // Each is the latest of all so far, and within what may be ahead.
                    let stamp = Stamp::from_bits(stamp(time).to_bits() + index as u64);
                    let bytes = delta(numbers, stamp, 1 + u64::from(round) * 1_000_000 + (part * 500_000 + index) as u64);
                    Input::Delta { origin: peer(100 + generator.random_range(0..*origins)), bytes }
                })
                .collect();
            let (mut watcher, mut actions) = (Watcher::default(), Vec::new());
            let from = thread_cpu_time();
            for delta in deltas {
                state.handle(delta, at(time + Duration::from_millis(500)), &mut actions);
                watcher.note(&mut actions);
            }
            let mut found = Figures::rate(OPERATIONS, thread_cpu_time().saturating_sub(from));
            if watcher.seen != OPERATIONS / count * count {
                return Err(Failure::new(format!("{} of {OPERATIONS} writes were seen", watcher.seen)));
            }
            let rate = found.ops_per_cpu_s;
            found.ratio = Some(rate.unwrap_or(0.0) / *alone.get_or_insert(rate.unwrap_or(1.0)));
            let subject = Subject { n: Some(keys), d: Some(count), origins: Some(*origins), ..Subject::new("apply") };
            rows.add(subject, Some("one writer"), found);
        }
    }
    Ok(())
}

/// Writes of random keys with the broadcasts they make, and the part of the sketch in that, which is the same work on a sketch alone.
fn write(plan: &Plan, round: u8, state: &mut State, (sketch, items): (&mut Sketch, &mut [u64]), rows: &mut Rows) -> Result<(), Failure> {
    let mut generator = generator(u64::from(round), "write", 0);
    let numbers: Vec<usize> = (0..OPERATIONS).map(|_| generator.random_range(0..plan.keys)).collect();
    let writes: Vec<_> =
        numbers.iter().enumerate().map(|(index, number)| (key(*number), value(u64::from(round) * 1_000_000 + index as u64))).collect();
    let (mut watcher, mut actions) = (Watcher::default(), Vec::new());
    let mut time = Time::from_secs(10 * u64::from(round));
    let from = thread_cpu_time();
    for (key, value) in writes {
        time += Duration::from_micros(10);
        state.set(&key, value, at(time), &mut actions).map_err(Failure::new)?;
        if state.next_deadline().is_some_and(|due| due <= time) {
            state.handle(Input::DeadlineReached, at(time), &mut actions);
        }
        watcher.note(&mut actions);
    }
    let written = Figures::rate(OPERATIONS, thread_cpu_time().saturating_sub(from));
    let from = thread_cpu_time();
    for number in numbers {
        let item = &mut items[number];
        sketch.remove(*item);
        *item = item.wrapping_mul(5).wrapping_add(1);
        sketch.insert(*item);
    }
    let mut sketched = Figures::rate(OPERATIONS, thread_cpu_time().saturating_sub(from));
    sketched.ratio = written.ops_per_cpu_s.zip(sketched.ops_per_cpu_s).map(|(write, sketch)| write / sketch);
    rows.add(Subject { n: Some(plan.keys), ..Subject::new("write") }, None, written);
    rows.add(Subject { n: Some(plan.keys), ..Subject::new("sketch") }, Some("a write"), sketched);
    Ok(())
}

/// Writes that are signed and go out one by one, and what they cost another that takes them in; by the same unsigned.
fn signed(rows: &mut Rows) -> Result<(), Failure> {
    let ((plain, _), (signed, bytes)) = (hand_over(false)?, hand_over(true)?);
    for (index, name) in ["signed", "verified"].into_iter().enumerate() {
        let mut found = Figures::rate(FEW_KEYS, signed[index]);
        found.ratio = Some(plain[index].as_secs_f64() / signed[index].as_secs_f64().max(1e-9));
        found.bytes = Some(bytes).filter(|_| index == 0);
        rows.add(Subject { n: Some(FEW_KEYS), d: Some(1), ..Subject::new(name) }, Some("unsigned"), found);
    }
    Ok(())
}

/// Writes of one node, taken in by another one by one: the time of both, and the bytes of a broadcast.
fn hand_over(is_signed: bool) -> Result<([Duration; 2], f64), Failure> {
    let (writer, taker) = (NodeKey::generate().map_err(Failure::new)?, NodeKey::generate().map_err(Failure::new)?);
    let (mut here, mut there) = (replicas::signing(&writer, is_signed)?, replicas::signing(&taker, is_signed)?);
    let (mut cpu, mut bytes, mut actions) = ([Duration::ZERO; 2], 0, Vec::new());
    for number in 0..FEW_KEYS {
        let now = at(Time::from_millis(10 * number as u64));
        let (key, value) = (key(number), value(number as u64));
        let from = thread_cpu_time();
        here.set(&key, value, now, &mut actions).map_err(Failure::new)?;
        cpu[0] += thread_cpu_time().saturating_sub(from);
        for action in std::mem::take(&mut actions) {
            let Action::Broadcast(delta) = action else { continue };
            bytes += delta.len();
            let from = thread_cpu_time();
            there.handle(Input::Delta { origin: writer.peer_id(), bytes: delta }, now, &mut actions);
            cpu[1] += thread_cpu_time().saturating_sub(from);
        }
        actions.clear();
    }
    if there.digest() != here.digest() {
        return Err(Failure::new("what was written by one node is not what the other took"));
    }
    Ok((cpu, bytes as f64 / FEW_KEYS as f64))
}

/// What a journal keeps of a key that was written again and again.
fn overwrites(rows: &mut Rows) -> Result<(), Failure> {
    let (mut state, mut image, mut actions) = (empty(1, FEW_KEYS)?, Image::default(), Vec::new());
    state.restore([], at(Time::from_millis(1_000)));
    let key = key(1);
    for number in 0..OVERWRITES {
        let now = at(Time::from_millis(1_000 + number));
        state.set(&key, number.to_le_bytes().to_vec().into(), now, &mut actions).map_err(Failure::new)?;
        actions.clear();
        state.records(usize::MAX, now).into_iter().for_each(|record| image.apply(record));
    }
    let mut file = Vec::new();
    let mut writer = Writer::begin(Head { kind: Kind::Snapshot, number: 1, salt: 1 }, &mut file);
    image.records().for_each(|record| writer.push(&record, &mut file));
    writer.end(&mut file);
    let entry = state.entry_of(&key).ok_or_else(|| Failure::new("the key is not there"))?;
    let found = Figures { bytes: Some(file.len() as f64), entry_bytes: Some(encode(&entry).len() as f64), ..Figures::default() };
    rows.add(Subject { n: Some(1), d: Some(OVERWRITES as usize), ..Subject::new("overwrites") }, None, found);
    Ok(())
}

/// What a process of its own has found.
#[derive(Serialize, Deserialize)]
struct Resident {
    entry_bytes: f64,
}

/// Bytes that an entry takes, by what this process holds.
fn resident(keys: usize) -> Result<Resident, Failure> {
    let before = resident_bytes();
    let state = filled(0, keys, ORIGINS)?;
    let after = resident_bytes();
    Ok(Resident { entry_bytes: after.saturating_sub(before) as f64 / state.len().max(1) as f64 })
}

fn memory(plan: &Plan, rows: &mut Rows) -> Result<(), Failure> {
    let found: Resident = machine::alone("memory", &["state", "--alone", "--keys", &plan.keys.to_string()])?;
    let beside = found.entry_bytes - (KEY_BYTES + VALUE_BYTES) as f64;
    let found = Figures { bytes: Some(beside), entry_bytes: Some(found.entry_bytes), ..Figures::default() };
    rows.add(Subject { n: Some(plan.keys), ..Subject::new("memory") }, None, found);
    Ok(())
}

fn hostile(plan: &Plan, round: u8, siege: &mut Siege, (name, bytes): (&'static str, u64), rows: &mut Rows) -> Result<(), Failure> {
    let [alone, beside] = siege.write(round, OPERATIONS)?;
    let found = Figures {
        bytes: Some(bytes as f64),
        ratio: Some(beside.as_secs_f64() / alone.as_secs_f64().max(1e-9)),
        ..Figures::rate(OPERATIONS, beside)
    };
    let subject = Subject { n: Some(plan.keys), d: Some(ATTACKS), writer: Some(name), ..Subject::new("hostile") };
    rows.add(subject, Some("left alone"), found);
    Ok(())
}

fn whole_day(plan: &Plan, rows: &mut Rows) -> Result<(), Failure> {
    let day = day(plan.keys)?;
    let found = Figures {
        bytes: Some(day.resident_bytes),
        ops_per_cpu_s: Some(day.ops_per_cpu_s),
        tombstones: Some(day.tombstones_max as f64),
        ratio: Some(day.hours),
        ..Figures::default()
    };
    rows.add(Subject { n: Some(plan.keys), ..Subject::new("day") }, Some("removals of an hour"), found);
    Ok(())
}

fn outcome(plan: &Plan, found: &Rows) -> Outcome {
    let mut table = Table::new(&[
        ("case", Align::Left),
        ("keys", Align::Right),
        ("differ", Align::Right),
        ("written by", Align::Right),
        ("bytes", Align::Right),
        ("at most", Align::Right),
        ("entry bytes", Align::Right),
        ("round trips", Align::Right),
        ("ms, asking", Align::Right),
        ("ms, asked", Align::Right),
        ("k ops/cpu s", Align::Right),
        ("ratio", Align::Right),
        ("by", Align::Left),
    ]);
    let (mut rows, mut rounds, mut bars) = (Vec::new(), Vec::new(), Vec::new());
    for Measured { subject, baseline, rounds: all } in &found.0 {
        let figures = Figures::median(all);
        let bytes_max = all.iter().filter_map(|round| round.bytes).reduce(f64::max);
        let writer = subject.writer.map(str::to_owned).or_else(|| subject.origins.map(|origins| origins.to_string()));
        let count = |count: Option<usize>| count.map_or_else(String::new, |count| count.to_string());
        let number = |figure: Option<f64>, digits: usize| figure.map_or_else(String::new, |figure| format!("{figure:.digits$}"));
        // Of eight writes each has a part of a byte.
        let byte_digits = usize::from(subject.case == "delta");
        table.row([
            subject.case.into(),
            count(subject.n),
            count(subject.d),
            writer.clone().unwrap_or_default(),
            number(figures.bytes, byte_digits),
            number(bytes_max, byte_digits),
            number(figures.entry_bytes, 0),
            number(figures.rounds, 1),
            number(figures.cpu_asking_ms, 3),
            number(figures.cpu_asked_ms, 3),
            number(figures.ops_per_cpu_s.map(|rate| rate / 1e3), 0),
            number(figures.ratio, 2),
            baseline.unwrap_or_default().into(),
        ]);
        if let Some(rate) = figures.ops_per_cpu_s {
            let of = |what: &str, number: Option<usize>| number.map_or_else(String::new, |number| format!(", {number} {what}"));
            bars.push(Bar {
                group: "operations for a second of processor time".into(),
                name: format!("{}{}{}{}", subject.case, of("keys", subject.n), of("together", subject.d), of("writers", subject.origins)),
                value: rate / 1e3,
                unit: "k",
            });
        }
        rows.push(row(&Row { subject: *subject, figures, bytes_max, baseline: *baseline }));
        rounds.extend(all.iter().enumerate().map(|(round, found)| json!({ "row": subject, "round": round + 1, "found": found })));
    }
    Outcome {
        settings: json!({ "keys": plan.keys, "diffs": plan.diffs, "rounds": plan.rounds, "key_bytes": KEY_BYTES, "value_bytes": VALUE_BYTES }),
        rows,
        rounds,
        table,
        curves: Vec::new(),
        bars,
    }
}
