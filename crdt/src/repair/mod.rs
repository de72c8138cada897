//! The half of a replica that compares with neighbors and repairs what differs, in both directions, in one session.
//!
//! ```text
//! A: Probe{digest}      ->
//!                       <- B: Equal                          (nearly always: done)
//!                       <- B: Differs{cells of its sketch}   (different, perhaps by little)
//!                       <- B: Shards{256 sums}               (the numbers of keys are far apart)
//!
//! A: AskCells           ->                                   (once as a rule: A estimates how many it takes)
//!                       <- B: Cells
//! A finds the names that differ: it leads, by names
//! A: AskShards          ->                                   (it does not find them)
//!                       <- B: Shards
//!
//! A holds more keys than B:   A: Lead{ranges that differ}  ->   and B plays the leader below
//!
//! leader                                 other
//! Entries*                       ->      (what only the leader holds, or changed since both were equal)
//! Want{names, its stamps}        ->      (by names)
//! Compare{ranges, its rows}      ->      (by rows) merges the rows with its own
//!                                <-      Entries*          (what the leader lacks or has older)
//!                                <-      Compared{through, want}
//! Entries*                       ->      (what the other lacks or has older)
//! Want or Compare{what remains}  ->      …
//! ```
//!
//! The [sketch](crate::sketch) finds what differs at a cost that follows the difference alone: some 50 bytes for each key, in two round trips for ten
//! of them and in three for a thousand. Rows serve what it cannot: a new node, replicas that were apart for long, and names that a session
//! left as they were.
//!
//! All rules of progress are the leader's: it keeps the ranges that remain, and cuts them by how far the answer came. The other side
//! answers each message from its state alone, so a lost peer leaves nothing behind there: cells carry the version of the sketch that
//! they are from, and begin again when there is another. By rows the side with fewer keys leads, because rows
//! travel from the leader only: a new node leads with no row at all and receives entries, `burst_frames` frames for each round trip.
//!
//! Bounds: one session per neighbor, `leads_max` of them as leader or with cells on their way, which take up to 108 KiB; a session keeps at
//! most [`RANGES_MAX`](crate::wire::RANGES_MAX) ranges, or [`NAMES_MAX`] of names, and a neighbor that was asked for it a table of the members; it ends after silence,
//! and after [`STEPS_MAX`] steps whatever the peer does. Crossed probes: the smaller `PeerId` stays the one who asked.

mod frames;
mod members;
mod names;
mod rows;
mod sketched;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use meshwork_channels::buggify::{Buggify, Site};
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{Bounded, DecodeError, Misbehavior, Now, PeerId, Time, Timers, WallTime};
use rand::RngExt;

use crate::config::Config;
use crate::digest::Digest;
use crate::floor::{Floor, seconds};
use crate::hlc::Stamp;
use crate::key::Key;
use crate::replica::{Action, Counters};
use crate::store::Store;
use crate::wire::{KeyHash, Message, NAMES_MAX, Name, Range, Row, SHARDS, ShardSum};

use self::frames::{Allowance, Frames};
use self::members::Told;
use self::names::Decoding;
use self::rows::{Answer, are_ascending, are_within, ranges_that_differ, rows_within, trim};

/// Steps of one session as leader. A full replica of values that fill half a frame each, one frame for each answer, takes 8,400.
const STEPS_MAX: u32 = 16_384;
/// The lower median of fewer reports would be one neighbor's word.
const CLOCK_REPORTS_MIN: usize = 2;

/// What one input may read and say.
pub(crate) struct Turn<'a> {
    pub(crate) store: &'a Store,
    /// Behind all that was written here.
    pub(crate) clock: Stamp,
    pub(crate) now: Now,
    pub(crate) actions: &'a mut Vec<Action>,
    pub(crate) counters: &'a mut Counters,
}

impl Turn<'_> {
    fn send(&mut self, to: PeerId, message: Message) {
        self.actions.push(Action::Send { to, message });
    }

    fn misbehaved(&mut self, peer: PeerId, what: Misbehavior) {
        self.counters.misbehaved += 1;
        self.actions.push(Action::Misbehaved { peer, what });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Compare with a random neighbor.
    Period,
    /// Compare with this neighbor.
    Probe(PeerId),
    /// Give up the session with this neighbor.
    Session(PeerId),
}

#[derive(Clone, Debug)]
struct Neighbor {
    session: Session,
    allowance: Allowance,
    /// Its wall clock less our monotonic one, in microseconds.
    clock_offset: Option<i64>,
    /// It leads, or was just asked to: we do not begin a session of our own before.
    led_until: Time,
    /// Of the names that differed when we last compared by names. The same ones again were not repaired by that, whatever the reason, and are compared
    /// by rows.
    names_before: Option<u64>,
    /// When we last held the same; [`Stamp::MAX`] if we do not know.
    synced: Stamp,
    /// Messages of entries to and from it.
    frames_sent: u32,
    frames_got: u32,
    told: Option<Box<Told>>,
}

#[derive(Clone, Debug)]
enum Session {
    Idle,
    /// `Probe` was sent.
    Probed,
    /// `AskShards` was sent.
    AskedShards,
    /// `AskCells` was sent.
    Decoding(Box<Decoding>),
    /// `Compare` or `Want` was sent.
    Leading(Lead),
}

/// What a leader tells of the ranges that remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Each range is that of a name.
    Names,
    Rows,
}

#[derive(Clone, Debug)]
struct Lead {
    by: By,
    /// What remains, ascending and disjoint. Only ever trimmed from its front.
    todo: VecDeque<Range>,
    round: u32,
    /// The last hash of the `Compare` that is out.
    asked_through: u64,
    steps: u32,
    /// When it began.
    begun: Stamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Repair {
    me: PeerId,
    config: Config,
    buggify: Buggify,
    generator: Generator,
    timers: Timers<Timer>,
    neighbors: BTreeMap<PeerId, Neighbor>,
    /// Peers that are neighbors of ours only in their own eyes, or no longer, share one allowance.
    strangers: Allowance,
    /// The lower median of the clocks of the neighbors.
    clock_offset: Option<i64>,
    round: u32,
    floor: Floor,
    /// It did, and nothing was forgotten for that yet.
    has_risen: bool,
    /// When somebody is asked for the members.
    members_due: Option<Time>,
    /// Answers no probe with a sketch, so that tests see what it is good for.
    #[cfg(test)]
    pub(crate) is_by_rows_alone: bool,
}

impl Repair {
    pub(crate) fn new(me: PeerId, config: Config, buggify: Buggify, seed: u64) -> Self {
        Repair {
            me,
            floor: Floor::new(me, config.collect_after, config.absent_max),
            has_risen: false,
            members_due: None,
            config,
            buggify,
            generator: generator(seed, "repair", 0),
            timers: Timers::new(),
            neighbors: BTreeMap::new(),
            strangers: Allowance::default(),
            clock_offset: None,
            round: 0,
            #[cfg(test)]
            is_by_rows_alone: false,
        }
    }

    pub(crate) fn neighbor_up(&mut self, peer: PeerId, at: Now) {
        let now = at.time;
        let Some(period) = self.config.repair_period else { return };
        if peer == self.me || self.neighbors.contains_key(&peer) {
            return;
        }
        let neighbor = Neighbor {
            session: Session::Idle,
            allowance: Allowance::default(),
            clock_offset: None,
            led_until: Time::ZERO,
            names_before: None,
            synced: Stamp::MAX,
            frames_sent: 0,
            frames_got: 0,
            told: None,
        };
        self.neighbors.insert(peer, neighbor);
        self.begin_members(now);
        let second = self.second(at);
        self.floor.met(peer, second);
        let delay = self.around(self.config.first_repair_delay, 0.5);
        self.timers.set(Timer::Probe(peer), now + delay);
        if self.timers.get(&Timer::Period).is_none() {
            let delay = self.around(period, 0.2);
            self.timers.set(Timer::Period, now + delay);
        }
    }

    pub(crate) fn neighbor_down(&mut self, peer: PeerId) {
        if self.neighbors.remove(&peer).is_none() {
            return;
        }
        self.timers.cancel(&Timer::Probe(peer));
        self.timers.cancel(&Timer::Session(peer));
        if self.neighbors.is_empty() {
            self.timers.cancel(&Timer::Period);
        }
        self.note_clocks();
    }

    pub(crate) fn received(&mut self, from: PeerId, message: Message, turn: &mut Turn<'_>) {
        if self.config.repair_period.is_none() {
            return;
        }
        if !matches!(message, Message::Back { .. }) && self.is_kept_out(from, turn) {
            return;
        }
        match message {
            Message::Probe { digest, wall } => self.on_probe(from, digest, wall, turn),
            Message::Equal { wall } => self.on_equal(from, wall, turn),
            Message::Shards { keys, wall, sums } => self.on_shards(from, keys, wall, &sums, turn),
            Message::Lead { ranges } => self.on_lead(from, &ranges, turn),
            Message::Compare { round, ranges, rows } => self.on_compare(from, round, &ranges, &rows, turn),
            Message::Compared { round, through, want } => self.on_compared(from, round, through, &want, turn),
            Message::Differs { keys, wall, version, glimpse, cells } => {
                self.note_clock(from, wall, turn.now.time);
                self.on_differs(from, keys, version, &glimpse, &cells, turn);
            }
            Message::AskCells { version, first, end } => self.on_ask_cells(from, version, first.into()..end.into(), turn),
            Message::Cells { version, cells } => self.on_cells(from, version, &cells, turn),
            Message::AskShards => self.on_ask_shards(from, turn),
            Message::Want { round, names } => self.on_want(from, round, &names, turn),
            Message::Floor { floor } => self.on_floor(from, floor, turn),
            Message::AskMembers => self.on_ask_members(from, turn),
            Message::Members { frames, table, is_last } => self.on_members(from, frames, &table, is_last, turn),
            Message::AskFrames => self.on_ask_frames(from, turn),
            Message::Frames { frames } => self.on_frames(from, frames, turn),
            Message::Back { back } => self.on_back(from, back, turn),
            // Their content is the business of the map; its caller tells us of entries by `entries_arrived`.
            Message::Entries { .. } | Message::Away { .. } => {}
            Message::Hold { .. } | Message::Held { .. } | Message::Ask { .. } | Message::Answer { .. } | Message::Declined { .. } => {}
        }
    }

    /// Entries came from a peer: a session with it is alive.
    pub(crate) fn entries_arrived(&mut self, from: PeerId, now: Time) {
        if let Some(neighbor) = self.neighbors.get_mut(&from) {
            neighbor.frames_got = neighbor.frames_got.wrapping_add(1);
        }
        if self.timers.get(&Timer::Session(from)).is_some() {
            self.timers.set(Timer::Session(from), now + self.config.session_timeout);
        }
    }

    /// Of these keys a peer sent less than is held here now: it gets that, as far as its allowance and one burst go.
    pub(crate) fn send_back(&mut self, to: PeerId, keys: &[Key], turn: &mut Turn<'_>) {
        if keys.is_empty() || !self.neighbors.contains_key(&to) || !self.allowance(to).is_left(turn.now.time) {
            return;
        }
        let mut frames = Frames::new(self.config.burst_frames);
        let entries = keys.iter().filter_map(|key| Some((key, turn.store.get(key)?)));
        turn.counters.sent_back += entries.take_while(|(key, held)| frames.push(key, held)).count() as u64;
        self.charge(to, frames.len(), turn.now.time);
        self.send_frames(to, frames, turn);
    }

    fn send_frames(&mut self, to: PeerId, frames: Frames, turn: &mut Turn<'_>) {
        if let Some(neighbor) = self.neighbors.get_mut(&to) {
            neighbor.frames_sent = neighbor.frames_sent.wrapping_add(frames.len() as u32);
        }
        frames.send(to, turn);
    }

    /// How far collection has come.
    pub(crate) fn floor(&self) -> &Floor {
        &self.floor
    }

    pub(crate) fn floor_mut(&mut self) -> &mut Floor {
        &mut self.floor
    }

    /// Something is known to be missing: compare soon.
    pub(crate) fn hurry(&mut self, now: Time) {
        let soon = now + self.around(self.config.first_repair_delay, 0.5);
        if self.timers.get(&Timer::Period).is_some_and(|at| at > soon) {
            self.timers.set(Timer::Period, soon);
        }
    }

    pub(crate) fn deadline_reached(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, timer)) = self.timers.pop_due(turn.now.time) {
            match timer {
                Timer::Period => self.on_period_due(turn),
                Timer::Probe(peer) => self.on_probe_due(peer, turn),
                Timer::Session(peer) => self.on_session_due(peer, turn),
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// The lower median of the clocks that the neighbors reported, brought up to now; `None` before enough of them did.
    pub(crate) fn cluster_wall(&self, now: Time) -> Option<WallTime> {
        let micros = self.clock_offset?.saturating_add(micros_of(now));
        Some(WallTime::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    /// The second that floors go by: also of a node whose clock is behind all others, which would hold them up.
    pub(crate) fn second(&self, now: Now) -> u32 {
        seconds(self.cluster_wall(now.time).map_or(now.wall, |wall| wall.max(now.wall)))
    }

    pub(crate) fn check(&self) {
        debug_assert!(self.timers.len() <= 2 * self.neighbors.len() + 1, "timers belong to neighbors");
        debug_assert!(self.leads() <= self.config.leads_max, "no more leads than allowed");
        for (peer, neighbor) in &self.neighbors {
            let has_timer = self.timers.get(&Timer::Session(*peer)).is_some();
            debug_assert_eq!(has_timer, !matches!(neighbor.session, Session::Idle), "a session has an end");
        }
    }

    fn on_period_due(&mut self, turn: &mut Turn<'_>) {
        let Some(period) = self.config.repair_period else { return };
        let delay = self.around(period, 0.2);
        self.timers.set(Timer::Period, turn.now.time + delay);
        let now = turn.now.time;
        let free: Vec<PeerId> = self.neighbors.iter().filter(|(_, neighbor)| neighbor.is_free(now)).map(|(peer, _)| *peer).collect();
        if !free.is_empty() && !self.buggify.happens(Site::ProbeSkipped) {
            let peer = free[self.generator.random_range(0..free.len())];
            self.send_probe(peer, turn);
        }
    }

    fn on_probe_due(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        // Whoever is in a session with the peer already is about to learn what a probe would tell.
        if self.neighbors.get(&peer).is_some_and(|neighbor| neighbor.is_free(turn.now.time)) {
            self.send_probe(peer, turn);
        }
    }

    fn on_session_due(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        tracing::debug!(?peer, "repair given up: the peer is silent");
        turn.counters.abandoned += 1;
        self.end_session(peer);
    }

    fn send_probe(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        if self.is_kept_out(peer, turn) {
            return;
        }
        self.send_floor(peer, turn);
        let Some(neighbor) = self.neighbors.get_mut(&peer) else { return };
        neighbor.session = Session::Probed;
        self.timers.cancel(&Timer::Probe(peer));
        self.timers.set(Timer::Session(peer), turn.now.time + self.config.session_timeout);
        turn.counters.probes += 1;
        turn.send(peer, Message::Probe { digest: turn.store.digest(), wall: turn.now.wall });
    }

    fn on_probe(&mut self, from: PeerId, digest: Digest, wall: WallTime, turn: &mut Turn<'_>) {
        self.note_clock(from, wall, turn.now.time);
        match self.neighbors.get(&from).map(|neighbor| &neighbor.session) {
            // Crossed probes: the smaller identity goes on, or both would do the work of one.
            Some(Session::Probed) if self.me < from => return,
            Some(Session::Probed) => self.end_session(from),
            // We compare with it already.
            Some(Session::AskedShards | Session::Decoding(_) | Session::Leading(_)) => return,
            Some(Session::Idle) | None => {}
        }
        if !self.allows(from, turn) {
            return;
        }
        self.charge(from, 1, turn.now.time);
        self.timers.cancel(&Timer::Probe(from));
        if digest == turn.store.digest() {
            turn.counters.equal += 1;
            self.note_equal(from, turn.now.wall);
            turn.send(from, Message::Equal { wall: turn.now.wall });
        } else {
            turn.counters.different += 1;
            self.tell_floor(from, turn);
            let keys = turn.store.digest().keys;
            #[cfg(test)]
            if self.is_by_rows_alone {
                return self.send_shards(from, turn);
            }
            if !names::are_near(keys, digest.keys) {
                return self.send_shards(from, turn);
            }
            self.note_led(from, turn.now.time);
            let (version, glimpse) = (version(turn.store), names::glimpse(turn.store.shard_sums()));
            let cells = turn.store.sketch().cells(0..names::CELLS_FIRST);
            turn.send(from, Message::Differs { keys, wall: turn.now.wall, version, glimpse, cells });
        }
    }

    fn send_shards(&mut self, to: PeerId, turn: &mut Turn<'_>) {
        self.note_led(to, turn.now.time);
        let keys = turn.store.digest().keys;
        let sums = Bounded::first_of(turn.store.shard_sums());
        turn.send(to, Message::Shards { keys, wall: turn.now.wall, sums });
    }

    fn on_equal(&mut self, from: PeerId, wall: WallTime, turn: &mut Turn<'_>) {
        self.note_clock(from, wall, turn.now.time);
        if self.is_probed(from) {
            turn.counters.equal += 1;
            self.note_equal(from, turn.now.wall);
            self.end_session(from);
            self.adopt(from, turn);
        }
    }

    fn on_shards(&mut self, from: PeerId, keys: u64, wall: WallTime, sums: &[ShardSum], turn: &mut Turn<'_>) {
        self.note_clock(from, wall, turn.now.time);
        if sums.len() != SHARDS {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        match self.neighbors.get(&from).map(|neighbor| &neighbor.session) {
            Some(Session::Probed) => turn.counters.different += 1,
            Some(Session::AskedShards) => {}
            // An answer that comes after its session was given up changes nothing.
            _ => return,
        }
        self.end_session(from);
        let ranges = ranges_that_differ(turn.store.shard_sums(), sums);
        if ranges.is_empty() {
            return;
        }
        if keys < turn.store.digest().keys {
            self.note_led(from, turn.now.time);
            turn.send(from, Message::Lead { ranges: Bounded::first_of(ranges) });
        } else {
            self.lead(from, By::Rows, ranges, turn);
        }
    }

    fn on_lead(&mut self, from: PeerId, ranges: &[Range], turn: &mut Turn<'_>) {
        if ranges.is_empty() || !are_ascending(ranges) {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        match self.neighbors.get(&from).map(|neighbor| &neighbor.session) {
            // We lead already, or it is no neighbor of ours and has no place for a session.
            Some(Session::Decoding(_) | Session::Leading(_)) | None => return,
            Some(Session::Probed | Session::AskedShards) => self.end_session(from),
            Some(Session::Idle) => {}
        }
        if !self.allows(from, turn) {
            return;
        }
        self.charge(from, 1, turn.now.time);
        self.lead(from, By::Rows, ranges.to_vec(), turn);
    }

    /// Whether there is a place for one more session as leader. If not, we compare later.
    fn may_lead(&mut self, peer: PeerId, now: Time) -> bool {
        let has_place = self.leads() < self.config.leads_max;
        if !has_place {
            // Another neighbor is bringing us up to date; what then still differs from this one is little.
            let delay = self.around(self.config.session_timeout / 4, 0.5);
            self.timers.set(Timer::Probe(peer), now + delay);
            if let Some(neighbor) = self.neighbors.get_mut(&peer) {
                neighbor.led_until = Time::ZERO;
            }
        }
        has_place
    }

    fn lead(&mut self, peer: PeerId, by: By, ranges: Vec<Range>, turn: &mut Turn<'_>) {
        if !self.may_lead(peer, turn.now.time) {
            return;
        }
        if let Some(neighbor) = self.neighbors.get_mut(&peer) {
            let begun = stamp_of(turn.now.wall);
            neighbor.session = Session::Leading(Lead { by, todo: ranges.into(), round: 0, asked_through: 0, steps: 0, begun });
            self.go_on(peer, turn);
        }
    }

    /// Tells the other side what we hold of what remains, or ends the session.
    fn go_on(&mut self, peer: PeerId, turn: &mut Turn<'_>) {
        let Some(Neighbor { session: Session::Leading(lead), synced, .. }) = self.neighbors.get_mut(&peer) else { return };
        if lead.todo.is_empty() {
            *synced = lead.begun;
            turn.counters.completed += 1;
            self.end_session(peer);
            return self.ask_frames(peer, turn);
        }
        if lead.steps >= STEPS_MAX {
            turn.counters.abandoned += 1;
            return self.end_session(peer);
        }
        self.round = self.round.wrapping_add(1);
        lead.round = self.round;
        lead.steps += 1;
        let message = match lead.by {
            By::Names => {
                let names = Bounded::<_, NAMES_MAX>::first_of(names::named(lead.todo.iter(), turn.store));
                lead.asked_through = names.last().map_or(0, |named| named.name.range().last.0);
                Message::Want { round: self.round, names }
            }
            By::Rows => {
                let (ranges, rows) = rows_within(&lead.todo, turn.store);
                lead.asked_through = ranges.last().map_or(0, |range| range.last.0);
                Message::Compare { round: self.round, ranges, rows }
            }
        };
        self.timers.set(Timer::Session(peer), turn.now.time + self.config.session_timeout);
        turn.send(peer, message);
    }

    fn on_compare(&mut self, from: PeerId, round: u32, ranges: &[Range], rows: &[Row], turn: &mut Turn<'_>) {
        if ranges.is_empty() || !are_ascending(ranges) || !are_within(rows, ranges) {
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }
        self.answer(from, round, turn, |store, frames| rows::answer(store, ranges, rows, frames));
    }

    fn answer(&mut self, from: PeerId, round: u32, turn: &mut Turn<'_>, answer: impl FnOnce(&Store, Frames) -> Answer) {
        if !self.allows(from, turn) {
            return;
        }
        if self.buggify.happens(Site::CompareIgnored) {
            return;
        }
        self.note_led(from, turn.now.time);
        let frames = match self.buggify.happens(Site::AnswerCut) {
            true => Frames::of_one_entry(),
            false => Frames::new(self.config.burst_frames),
        };
        let answer = answer(turn.store, frames);
        self.charge(from, answer.frames.len() + 1, turn.now.time);
        self.send_frames(from, answer.frames, turn);
        turn.send(from, Message::Compared { round, through: KeyHash(answer.through), want: Bounded::first_of(answer.want) });
    }

    fn on_compared(&mut self, from: PeerId, round: u32, through: KeyHash, want: &[KeyHash], turn: &mut Turn<'_>) {
        let Some(Neighbor { session: Session::Leading(lead), .. }) = self.neighbors.get_mut(&from) else { return };
        if lead.round != round {
            return;
        }
        let first = lead.todo.front().map_or(0, |range| range.first.0);
        let is_valid = through.0 >= first
            && through.0 <= lead.asked_through
            && want.is_sorted_by(|a, b| a < b)
            && want.first().is_none_or(|hash| hash.0 >= first)
            && want.last().is_none_or(|hash| *hash <= through);
        if !is_valid {
            self.end_session(from);
            return turn.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid));
        }

        let mut frames = Frames::new(self.config.burst_frames);
        let mut covered = Some(through.0);
        'all: for hash in want {
            let was_empty = frames.is_empty();
            let range = match lead.by {
                By::Names => Name::of(hash.0).range(),
                By::Rows => Range { first: *hash, last: *hash },
            };
            for (_, key, held) in turn.store.held(range) {
                if !frames.push(key, held) && !was_empty {
                    // The rest waits: the next round starts with this key and asks for it again.
                    covered = hash.0.checked_sub(1);
                    break 'all;
                }
            }
        }
        if let Some(covered) = covered {
            trim(&mut lead.todo, covered);
        }
        self.send_frames(from, frames, turn);
        self.go_on(from, turn);
    }

    fn is_probed(&self, peer: PeerId) -> bool {
        self.neighbors.get(&peer).is_some_and(|neighbor| matches!(neighbor.session, Session::Probed))
    }

    fn leads(&self) -> usize {
        self.neighbors.values().filter(|neighbor| matches!(neighbor.session, Session::Decoding(_) | Session::Leading(_))).count()
    }

    fn end_session(&mut self, peer: PeerId) {
        self.timers.cancel(&Timer::Session(peer));
        if let Some(neighbor) = self.neighbors.get_mut(&peer) {
            neighbor.session = Session::Idle;
        }
    }

    fn note_equal(&mut self, peer: PeerId, wall: WallTime) {
        if let Some(neighbor) = self.neighbors.get_mut(&peer) {
            neighbor.synced = stamp_of(wall);
        }
    }

    fn note_led(&mut self, peer: PeerId, now: Time) {
        if let Some(neighbor) = self.neighbors.get_mut(&peer) {
            neighbor.led_until = now + self.config.session_timeout;
        }
    }

    fn note_clock(&mut self, from: PeerId, wall: WallTime, now: Time) {
        if let Some(neighbor) = self.neighbors.get_mut(&from) {
            let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
            neighbor.clock_offset = Some(wall.saturating_sub(micros_of(now)));
            self.note_clocks();
        }
    }

    fn note_clocks(&mut self) {
        let mut offsets: Vec<i64> = self.neighbors.values().filter_map(|neighbor| neighbor.clock_offset).collect();
        offsets.sort_unstable();
        self.clock_offset = if offsets.len() < CLOCK_REPORTS_MIN { None } else { Some(offsets[(offsets.len() - 1) / 2]) };
    }

    fn allows(&mut self, peer: PeerId, turn: &mut Turn<'_>) -> bool {
        let is_allowed = self.allowance(peer).is_left(turn.now.time);
        if !is_allowed {
            turn.counters.throttled += 1;
            turn.misbehaved(peer, Misbehavior::TooManyRequests);
        }
        is_allowed
    }

    /// Takes one frame from what a peer may still ask for; whether there was any.
    pub(crate) fn spend(&mut self, peer: PeerId, now: Time) -> bool {
        let is_left = self.allowance(peer).is_left(now);
        if is_left {
            self.charge(peer, 1, now);
        }
        is_left
    }

    fn charge(&mut self, peer: PeerId, frames: usize, now: Time) {
        let per_second = self.config.answer_frames_per_second;
        self.allowance(peer).charge(frames, per_second, now);
    }

    fn allowance(&mut self, peer: PeerId) -> &mut Allowance {
        match self.neighbors.get_mut(&peer) {
            Some(neighbor) => &mut neighbor.allowance,
            None => &mut self.strangers,
        }
    }

    /// A duration within `part` of another, either way.
    pub(crate) fn around(&mut self, duration: Duration, part: f64) -> Duration {
        duration.mul_f64(self.generator.random_range(1.0 - part..1.0 + part))
    }
}

impl Neighbor {
    fn is_free(&self, now: Time) -> bool {
        matches!(self.session, Session::Idle) && self.led_until <= now
    }
}

fn stamp_of(wall: WallTime) -> Stamp {
    Stamp::from_parts(wall.as_millis(), 0)
}

/// Names a state of the sketch.
fn version(store: &Store) -> u64 {
    store.digest().sum as u64
}

fn micros_of(time: Time) -> i64 {
    i64::try_from(time.as_nanos() / 1_000).unwrap_or(i64::MAX)
}
