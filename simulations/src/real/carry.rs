//! The schedule of a plan, done to processes as time passes.

#![expect(clippy::disallowed_methods, reason = "processes live in real time, and the wire has a thread of its own")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tun_rs::SyncDevice;

use super::compare::Side;
use super::namespaces::{Names, wire_up};
use super::process::{Home, Line, Process, Said, message, prepare, text};
use super::wire::{Carried, Wire};
use super::{RealError, feasible, hub};
use crate::host;
use crate::network::{Cut, Weather};
use crate::plan::{Plan, SECOND};
use crate::record::Record;
use crate::schedule::Happening;
use crate::world::{Seen, Sight, key_name};

/// Lines of nodes that wait to be looked at; a node whose line finds no place waits with its next.
const SAID_MAX: usize = 4_096;
/// How long a node may take to say that it started.
const START_MAX: Duration = Duration::from_secs(15);
/// How long the loop may sleep.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// How far a plan is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Microseconds that have passed.
    pub(crate) now: u64,
    /// Processes that run.
    pub(crate) alive: usize,
    /// Broadcasts so far.
    pub(crate) sent: usize,
    /// Deliveries so far.
    pub(crate) delivered: usize,
}

/// What became of a plan on processes.
#[derive(Clone, Debug)]
pub(crate) struct Carrying {
    pub(crate) side: Side,
    pub(crate) carried: Carried,
}

/// Devices in namespaces, on which plans are carried out one after the other.
pub(crate) struct Machine {
    devices: Vec<SyncDevice>,
    home: Home,
    stop: Arc<AtomicBool>,
}

impl Machine {
    /// Makes the devices in the namespace of this process, which is the hub, and moves each to that of its node. A run ends early when `stop` is set.
    pub(crate) fn new(binary: &Path, names: Names, nodes: u32, stop: Arc<AtomicBool>) -> Result<Self, RealError> {
        let devices = hub::devices(nodes)?;
        wire_up(&names, nodes, hub::device_name)?;
        Ok(Machine { devices, home: Home { binary: binary.to_owned(), folder: names.folder(), names }, stop })
    }

    /// Carries out a plan, and watches it.
    pub(crate) fn carry_out(&self, plan: &Plan, watch: &mut dyn FnMut(Progress)) -> Result<Carrying, RealError> {
        feasible::check(plan).map_err(RealError::Infeasible)?;
        let home = Home { folder: self.home.folder.join(format!("seed-{}", plan.setup.seed)), ..self.home.clone() };
        #[derive(serde::Serialize)]
        struct File {
            node: meshwork::node::Config,
        }
        let config = toml::to_string(&File { node: host::config(&plan.tuning) });
        prepare(&home, &config.map_err(|error| RealError::Failed(format!("the parameters of the nodes: {error}")))?)?;
        let wire = Mutex::new(Wire::new(&plan.setup));
        let (started, is_over) = (Instant::now(), AtomicBool::new(false));
        let result = std::thread::scope(|scope| {
            let carrying = scope.spawn(|| hub::carry(&self.devices, &wire, started, &is_over));
            let mut run = Run::new(plan, &home, &wire, started);
            let done = run.play(&self.stop, &|| carrying.is_finished(), watch);
            is_over.store(true, Ordering::Relaxed);
            let carried = carrying.join().unwrap_or_else(|_| Err(RealError::Failed("the wire panicked".to_owned())));
            carried.and(done).map(|()| run.side())
        });
        let wire = wire.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Carrying { side: result?, carried: wire.carried() })
    }
}

/// What is to be done at a moment.
enum Todo {
    Entry(Happening),
    /// A paused node goes on.
    GoOn(u32),
}

/// A place for each node.
#[derive(Default)]
struct Slot {
    process: Option<Process>,
    life: u32,
    moves: u16,
    paused_until: u64,
    is_leaving: bool,
    /// Until when it may take to say that it started; none once it has.
    silent_until: Option<u64>,
}

struct Run<'a> {
    plan: &'a Plan,
    home: &'a Home,
    wire: &'a Mutex<Wire>,
    started: Instant,
    /// What the clock of the machine showed then, in microseconds.
    epoch: u64,
    slots: Vec<Slot>,
    todo: BTreeMap<(u64, usize), Todo>,
    /// By node and life: broadcasts that were typed, and of which it has not said that they were sent.
    typed: BTreeMap<(u32, u32), VecDeque<u32>>,
    seen: Vec<Seen>,
    said: Receiver<Said>,
    sayer: SyncSender<Said>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, home: &'a Home, wire: &'a Mutex<Wire>, started: Instant) -> Self {
        let (sayer, said) = sync_channel(SAID_MAX);
        let since = started.elapsed();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(since).as_micros() as u64;
        let entries = plan.schedule.entries().iter().enumerate();
        Run {
            plan,
            home,
            wire,
            started,
            epoch,
            slots: (0..plan.setup.nodes).map(|_| Slot::default()).collect(),
            todo: entries.map(|(index, entry)| ((entry.at, index), Todo::Entry(entry.what.clone()))).collect(),
            typed: BTreeMap::new(),
            seen: Vec::new(),
            said,
            sayer,
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    fn play(&mut self, stop: &AtomicBool, is_wire_gone: &dyn Fn() -> bool, watch: &mut dyn FnMut(Progress)) -> Result<(), RealError> {
        let mut second = 0;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(RealError::Interrupted);
            }
            let now = self.now();
            while let Some(entry) = self.todo.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((_, index), todo) = entry.remove_entry();
                self.act(todo, index)?;
            }
            if now >= (second + 1) * SECOND {
                second = now / SECOND;
                self.look_after()?;
                let (sent, delivered) = (self.count(|what| matches!(what, Sight::Sent { .. })), self.count(is_delivery));
                watch(Progress { now, alive: self.slots.iter().filter(|slot| slot.process.is_some()).count(), sent, delivered });
                let is_quiet = self.todo.is_empty() && now >= self.plan.calm_at + self.plan.quiet_min;
                if is_wire_gone() || (is_quiet && (now >= self.plan.ends_at() || self.is_complete())) {
                    return Ok(());
                }
            }
            let next = self.todo.first_key_value().map_or(SLEEP_MAX, |((at, _), _)| Duration::from_micros(at.saturating_sub(self.now())));
            match self.said.recv_timeout(next.min(SLEEP_MAX)) {
                Ok(said) => self.on_said(said)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn count(&self, is: impl Fn(&Sight) -> bool) -> usize {
        self.seen.iter().filter(|seen| is(&seen.what)).count()
    }

    fn see(&mut self, node: u32, what: Sight) {
        let (at, life) = (self.now(), self.slots[node as usize].life);
        self.seen.push(Seen { at, node, life, what });
    }

    /// Does what is due, unless it is done by a node that stands still: then it is due when that goes on.
    fn act(&mut self, todo: Todo, index: usize) -> Result<(), RealError> {
        let what = match todo {
            Todo::Entry(what) => what,
            Todo::GoOn(node) => {
                let slot = &self.slots[node as usize];
                let is_due = slot.paused_until <= self.now();
                return slot.process.as_ref().filter(|_| is_due).map_or(Ok(()), |process| process.pause(false));
            }
        };
        let (now, nodes) = (self.now(), self.plan.setup.nodes);
        let paused_until = what.node().map_or(0, |node| self.slots[node as usize].paused_until);
        if what.is_workload() && paused_until > now {
            self.todo.insert((paused_until, index), Todo::Entry(what));
            return Ok(());
        }
        match what {
            Happening::Start { node, contacts } => self.start(node, &contacts, false, false, false)?,
            Happening::Restart { node, contacts, moved, remembers, disk } => {
                if self.slots[node as usize].life > 0 {
                    self.start(node, &contacts, moved, remembers, disk)?;
                }
            }
            Happening::Crash { node } => {
                if let Some(process) = self.slots[node as usize].process.take() {
                    process.kill();
                    self.see(node, Sight::Stopped);
                }
            }
            Happening::Leave { node } => {
                self.type_line(node, "/quit")?;
                self.slots[node as usize].is_leaving = true;
            }
            Happening::Pause { node, micros } => {
                let slot = &mut self.slots[node as usize];
                slot.paused_until = slot.paused_until.max(now + micros);
                if let Some(process) = &slot.process {
                    process.pause(true)?;
                    let until = slot.paused_until;
                    // Behind what the schedule has at that moment.
                    self.todo.insert((until, self.plan.schedule.entries().len() + node as usize), Todo::GoOn(node));
                }
            }
            Happening::Partition { until, groups, bridges, one_way } => {
                hub::lock(self.wire).cut(Cut::new(nodes, &groups, &bridges, one_way, now, until), now);
            }
            Happening::Clog { until, nodes: clogged } => hub::lock(self.wire).cut(Cut::clog(nodes, &clogged, now, until), now),
            Happening::Weather { until, mut nodes, loss, late } => {
                nodes.sort_unstable();
                hub::lock(self.wire).worsen(Weather { until, loss: f64::from(loss) / 1_000.0, late, nodes }, now);
            }
            Happening::Calm => hub::lock(self.wire).calm(),
            Happening::Broadcast { node, message } => {
                let line = text(message, self.plan.setup.payload_bytes);
                if self.type_line(node, &line)? {
                    let life = self.slots[node as usize].life;
                    self.typed.entry((node, life)).or_default().push_back(message);
                }
            }
            Happening::Write { node, key, write } => {
                let line = format!("/set {} {}", key_name(key), text(write, self.plan.setup.value_bytes));
                self.type_line(node, &line)?;
            }
            Happening::Remove { node, key } => {
                self.type_line(node, &format!("/remove {}", key_name(key)))?;
            }
            Happening::Strike { .. }
            | Happening::Slow { .. }
            | Happening::Break { .. }
            | Happening::Clock { .. }
            | Happening::Attack { .. }
            | Happening::Send { .. }
            | Happening::Change { .. }
            | Happening::Tell { .. } => unreachable!("refused before anything started"),
        }
        Ok(())
    }

    fn start(&mut self, node: u32, contacts: &[u32], moved: bool, remembers: bool, keeps: bool) -> Result<(), RealError> {
        let now = self.now();
        let slot = &mut self.slots[node as usize];
        if slot.process.is_some() {
            return Ok(());
        }
        slot.life += 1;
        slot.moves += u16::from(moved);
        (slot.paused_until, slot.is_leaving) = (0, false);
        slot.silent_until = Some(now + START_MAX.as_micros() as u64);
        if !remembers {
            self.home.forget_peers(node);
        }
        if !keeps {
            self.home.forget_state(node);
        }
        slot.process = Some(Process::start(self.home, node, slot.life, slot.moves, contacts, self.sayer.clone())?);
        self.see(node, Sight::Started);
        Ok(())
    }

    /// Types a line into a node; says whether there is one that takes it.
    fn type_line(&mut self, node: u32, line: &str) -> Result<bool, RealError> {
        let slot = &mut self.slots[node as usize];
        let Some(process) = slot.process.as_mut().filter(|_| !slot.is_leaving) else { return Ok(false) };
        match process.type_line(line) {
            Ok(()) => Ok(true),
            Err(error) => Err(RealError::Failed(format!("node {node} takes no line: {error}; {}", self.home.last_words(node)))),
        }
    }

    /// Looks for nodes that have ended: they may when they were told to leave.
    fn look_after(&mut self) -> Result<(), RealError> {
        let now = self.now();
        for node in 0..self.plan.setup.nodes {
            let slot = &mut self.slots[node as usize];
            let Some(process) = &mut slot.process else { continue };
            let Some(status) = process.ended()? else {
                if slot.silent_until.is_some_and(|until| until < now) {
                    return Err(RealError::Failed(format!(
                        "node {node} has not said that it started after {} s: is {} the command `meshwork`, and of this version?",
                        START_MAX.as_secs(),
                        self.home.binary.display()
                    )));
                }
                continue;
            };
            if !slot.is_leaving {
                return Err(RealError::Failed(format!("node {node} ended by itself ({status}): {}", self.home.last_words(node))));
            }
            slot.process = None;
            self.see(node, Sight::Stopped);
        }
        Ok(())
    }

    fn on_said(&mut self, said: Said) -> Result<(), RealError> {
        let Said { node, life, what } = said;
        let at = |time_us: u64| time_us.saturating_sub(self.epoch);
        let (at, what) = match what {
            Line::Sent { time_us } => match self.typed.get_mut(&(node, life)).and_then(VecDeque::pop_front) {
                Some(message) => (at(time_us), Sight::Sent { message }),
                None => return Err(RealError::Failed(format!("node {node} sent what nobody typed"))),
            },
            Line::Message { time_us, hops, value } => {
                match value.as_deref().and_then(|value| message(value, self.plan.setup.payload_bytes)) {
                    Some(message) => (at(time_us), Sight::Delivered { message, hops }),
                    None => return Err(RealError::Failed(format!("node {node} received what nobody sent"))),
                }
            }
            Line::Error { text } | Line::Lost { text } => return Err(RealError::Failed(format!("node {node} says: {text}"))),
            Line::Started => {
                if let Some(slot) = self.slots.get_mut(node as usize).filter(|slot| slot.life == life) {
                    slot.silent_until = None;
                }
                return Ok(());
            }
            Line::Other => return Ok(()),
        };
        self.seen.push(Seen { at, node, life, what });
        Ok(())
    }

    /// What was seen, in the order of time.
    fn record(&self) -> Record {
        let mut seen: Vec<&Seen> = self.seen.iter().collect();
        // Of one microsecond, causes come before effects.
        let rank = |what: &Sight| match what {
            Sight::Started => 0,
            Sight::Sent { .. } => 1,
            _ => 2,
        };
        seen.sort_by_key(|seen| (seen.at, rank(&seen.what)));
        let mut record = Record::new(self.plan.setup.nodes);
        seen.into_iter().for_each(|seen| record.take(seen));
        record
    }

    /// Whether all that was typed was sent, and every node has what it must have.
    fn is_complete(&self) -> bool {
        let (owed, had) = self.record().owed();
        let lasts = |node: u32, life| self.slots.get(node as usize).is_some_and(|slot| slot.life == life && slot.process.is_some());
        owed == had && self.typed.iter().all(|((node, life), typed)| typed.is_empty() || !lasts(*node, *life))
    }

    fn side(&self) -> Side {
        Side::of(&self.record())
    }
}

fn is_delivery(what: &Sight) -> bool {
    matches!(what, Sight::Delivered { .. })
}
