//! What a run of the overlay alone is made of: who comes when and through whom, who goes, and who broadcasts.
//!
//! Everything follows from the seed and a number, so nothing is stored for a node unless nodes go.

use std::sync::Arc;

use bytes::Bytes;
use meshwork_channels::Time;
use meshwork_channels::random::{hash, unit};
use meshwork_overlay::{hyparview, plumtree};

use super::parcel::INCARNATION;
use crate::network::{Link, Model};
use crate::plan::SECOND;

/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 65_536;
static ZEROS: [u8; PAYLOAD_BYTES_MAX] = [0; PAYLOAD_BYTES_MAX];

// Purposes of draws.
const CONTACT: u64 = 0x5ca1_e001;
const SENDER: u64 = 0x5ca1_e002;
const NODE: u64 = 0x5ca1_e003;
const CRASH: u64 = 0x5ca1_e004;
const CRASH_AT: u64 = 0x5ca1_e005;
const FAIL: u64 = 0x5ca1_e006;
const LIFE: u64 = 0x5ca1_e007;
const HOSTILE: u64 = 0x5ca1_e008;

/// Through so many nodes does one come that joins while others go: a contact that goes before it answers is no way in, and whoever knows nobody
/// else stays alone whatever the protocol does. A real node has as many from discovery.
const LATE_CONTACTS: usize = 3;
/// Nodes that are looked at in search of one that lives.
const TRIES_MAX: u64 = 10_000;
/// Whoever broadcasts has lived for so long, in microseconds, and lives on for as long.
const STEADY: u64 = 10 * SECOND;

/// Through whom nodes come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Each through one of those that came before it.
    Anyone,
    /// Through the first so many nodes in turn.
    Contacts(u32),
}

/// Who goes, and how the others learn of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// The chance of each node to crash at some moment of the first half of the work.
    pub crashed: f64,
    /// The chance of each node to crash at the moment of the first broadcast that is measured.
    pub failed: f64,
    /// The chance of each node to crash in each second of the work.
    pub crash_rate: f64,
    /// The chance of each node to leave, with a farewell to its neighbors, in each second of the work.
    pub leave_rate: f64,
    /// Nodes that come in each second of the work, as a share of those that were there at first.
    pub join_rate: f64,
    /// How long after a crash those who had a link to the node learn of it, in microseconds; a latency at least.
    pub notice: u64,
}

impl Losses {
    /// Whether any node goes.
    pub fn any(&self) -> bool {
        self.crashed > 0.0 || self.failed > 0.0 || self.crash_rate > 0.0 || self.leave_rate > 0.0
    }
}

/// What hostile nodes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Whenever they name peers they name each other.
    Collude,
    /// They take what they get and pass nothing on, nor announce it.
    Ride,
}

/// From when to when a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// When it goes, in microseconds.
    pub(super) at: u64,
    /// Whether it says so.
    pub(super) leaves: bool,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Feeds every draw.
    pub seed: u64,
    /// How many nodes are there when the work begins.
    pub founders: u32,
    /// How many nodes there are in the whole run, those included that come later.
    pub nodes: u32,
    /// In how many shards they are, which only matters to how fast a run is.
    pub shards: u32,
    /// The links between them. What is lost on one is sent again, so it comes later.
    pub link: Link,
    /// The latencies of the links.
    pub model: Model,
    /// Of the partial views.
    pub hyparview: hyparview::Params,
    /// Of the broadcast.
    pub plumtree: plumtree::Params,
    /// How nodes come in.
    pub entry: Entry,
    /// Over what time the founders join, in microseconds; 0 for all at once.
    pub join_over: u64,
    /// What time they then have to settle, in microseconds.
    pub form: u64,
    /// How many broadcasts there are.
    pub messages: u32,
    /// How many of them, the first ones, only build the trees and are not measured.
    pub warmup: u32,
    /// How many are sent at the same moment, by different nodes.
    pub volley: u32,
    /// By how many nodes, in turn.
    pub senders: u32,
    /// Over what time, in microseconds.
    pub work: u64,
    /// Who goes.
    pub losses: Losses,
    /// The chance of each node but the first to be hostile.
    pub hostile: f64,
    /// What those do.
    pub attack: Attack,
    /// How long the run goes on after the last broadcast, in microseconds.
    pub quiet: u64,
    /// Bytes of a broadcast, at most [`PAYLOAD_BYTES_MAX`].
    pub payload_bytes: usize,
    /// Whether the graph is measured when the work begins instead of at the end.
    pub is_measured_early: bool,
    /// By node, when it goes; empty when nobody does.
    ends: Arc<[Option<End>]>,
    /// By broadcast, who sends it; empty when nobody goes.
    chosen: Arc<[u32]>,
}

impl Setup {
    /// A run in which nobody goes yet.
    #[expect(clippy::too_many_arguments, reason = "what has no sensible default, once")]
    pub(super) fn new(
        seed: u64,
        nodes: u32,
        shards: u32,
        link: Link,
        model: Model,
        hyparview: hyparview::Params,
        plumtree: plumtree::Params,
        entry: Entry,
    ) -> Self {
        Setup {
            seed,
            founders: nodes,
            nodes,
            shards,
            link,
            model,
            hyparview,
            plumtree,
            entry,
            join_over: 0,
            form: SECOND,
            messages: 0,
            warmup: 0,
            volley: 1,
            senders: 1,
            work: SECOND,
            losses: Losses::default(),
            hostile: 0.0,
            attack: Attack::Collude,
            quiet: SECOND,
            payload_bytes: 0,
            is_measured_early: false,
            ends: Arc::new([]),
            chosen: Arc::new([]),
        }
    }

    /// Decides how many come later, once everything else is set.
    pub(super) fn with_latecomers(mut self) -> Self {
        let late = f64::from(self.founders) * self.losses.join_rate * (self.work / SECOND) as f64;
        self.nodes = self.founders.saturating_add(late as u32);
        self
    }

    /// Decides who goes and who sends, once it is known how many come.
    pub(super) fn decided(mut self) -> Self {
        if self.losses.any() || self.hostile > 0.0 {
            self.ends = (0..self.nodes).map(|node| self.draw_end(node)).collect();
            self.chosen = (0..self.messages).map(|message| self.choose_sender(message)).collect();
            // Whoever crashes at some moment of the work broadcasts nothing at all.
            if self.losses.crashed > 0.0 {
                let mut ends = self.ends.to_vec();
                self.chosen.iter().for_each(|sender| ends[*sender as usize] = None);
                self.ends = ends.into();
            }
        }
        self
    }

    /// When the work begins, in microseconds since the start.
    pub fn works_from(&self) -> u64 {
        self.join_over + self.form
    }

    /// When the run ends, in microseconds since the start.
    pub fn ends_at(&self) -> u64 {
        self.works_from() + self.work + self.quiet
    }

    /// When a node joins.
    pub(super) fn joins_at(&self, node: u32) -> u64 {
        match node.checked_sub(self.founders) {
            None => 1 + self.join_over * u64::from(node) / u64::from(self.founders.max(1)),
            Some(late) => self.works_from() + self.work * u64::from(late + 1) / u64::from(self.nodes - self.founders + 1),
        }
    }

    /// Whether a node is hostile. The first is not: it is how others come in.
    pub(super) fn is_hostile(&self, node: u32) -> bool {
        self.hostile > 0.0 && node > 0 && unit(hash(&[self.seed, HOSTILE, u64::from(node)])) < self.hostile
    }

    /// When a node goes, if it does.
    pub(super) fn end(&self, node: u32) -> Option<End> {
        self.ends.get(node as usize).copied().flatten()
    }

    /// Whether a node is there from one moment to another.
    fn is_there(&self, node: u32, from: u64, until: u64) -> bool {
        self.joins_at(node) <= from && self.end(node).is_none_or(|end| end.at > until)
    }

    /// Through whom a node joins: one of those that joined before it, or several if it comes while others go.
    pub(super) fn contacts(&self, node: u32) -> Vec<u32> {
        let is_founder = node < self.founders;
        match self.entry {
            _ if node == 0 => Vec::new(),
            Entry::Contacts(count) if is_founder => {
                // The contacts know the first of them.
                let count = count.min(self.founders).max(1);
                vec![if node < count { 0 } else { node % count }]
            }
            _ => {
                let (joins_at, before) = (self.joins_at(node), node.min(self.founders));
                let draw = |attempt: u64| match attempt {
                    0 => (hash(&[self.seed, CONTACT, u64::from(node)]) % u64::from(before)) as u32,
                    _ => (hash(&[self.seed, CONTACT, u64::from(node), attempt]) % u64::from(node)) as u32,
                };
                let those_there = (0..TRIES_MAX).map(draw).filter(|contact| self.is_there(*contact, joins_at, joins_at));
                let contacts: Vec<u32> = those_there.take(if is_founder { 1 } else { LATE_CONTACTS }).collect();
                if contacts.is_empty() { vec![0] } else { contacts }
            }
        }
    }

    /// When a broadcast is sent.
    pub(super) fn sent_at(&self, message: u32) -> u64 {
        let (volley, volleys) = (message / self.volley.max(1), self.messages.div_ceil(self.volley.max(1)));
        self.works_from() + self.work * u64::from(volley) / u64::from(volleys.max(1))
    }

    /// When the first broadcast is sent that is measured.
    pub(super) fn measured_from(&self) -> u64 {
        self.sent_at(self.warmup.min(self.messages))
    }

    /// By whom a broadcast is sent.
    pub(super) fn sender(&self, message: u32) -> u32 {
        self.chosen.get(message as usize).copied().unwrap_or_else(|| self.drawn_sender(message, 0))
    }

    fn drawn_sender(&self, message: u32, attempt: u64) -> u32 {
        let turn = message % self.senders.max(1);
        match attempt {
            0 if self.volley > 1 && self.senders >= self.nodes => turn % self.nodes,
            0 => (hash(&[self.seed, SENDER, u64::from(turn)]) % u64::from(self.nodes)) as u32,
            _ => (hash(&[self.seed, SENDER, u64::from(turn), attempt]) % u64::from(self.nodes)) as u32,
        }
    }

    /// A sender that is there around the moment of its broadcast.
    fn choose_sender(&self, message: u32) -> u32 {
        if self.losses.crashed > 0.0 {
            return self.drawn_sender(message, 0);
        }
        let at = self.sent_at(message);
        let is_steady = |node: &u32| !self.is_hostile(*node) && self.is_there(*node, at.saturating_sub(STEADY), at + STEADY);
        (0..TRIES_MAX).map(|attempt| self.drawn_sender(message, attempt)).find(is_steady).unwrap_or(0)
    }

    /// Whether the sender of a broadcast is there to send it; where nearly all go, nobody may be.
    pub(super) fn is_sent(&self, message: u32) -> bool {
        let at = self.sent_at(message);
        self.is_there(self.sender(message), at, at)
    }

    fn draw_end(&self, node: u32) -> Option<End> {
        let Losses { crashed, failed, crash_rate, leave_rate, .. } = self.losses;
        let begins = self.works_from();
        let draw = |purpose| hash(&[self.seed, purpose, u64::from(node)]);
        if crashed > 0.0 && unit(draw(CRASH)) < crashed {
            return Some(End { at: begins + draw(CRASH_AT) % (self.work / 2).max(1), leaves: false });
        }
        if failed > 0.0 && unit(draw(FAIL)) < failed {
            // A moment before the first broadcast that is measured: whoever sends lives, and nobody else knows yet.
            return Some(End { at: self.measured_from() - 1, leaves: false });
        }
        if crash_rate + leave_rate <= 0.0 {
            return None;
        }
        let joined = self.joins_at(node);
        (0..self.work / SECOND).find_map(|second| {
            let drawn = hash(&[self.seed, LIFE, u64::from(node), second]);
            let at = begins + second * SECOND + drawn % SECOND;
            let chance = unit(hash(&[drawn]));
            (at > joined && chance < crash_rate + leave_rate).then_some(End { at, leaves: chance >= crash_rate })
        })
    }

    pub(super) fn node_seed(&self, node: u32) -> u64 {
        hash(&[self.seed, NODE, u64::from(node)])
    }

    /// The broadcast of a node, which is told how many nodes there are: membership, which would know, has no part in these runs.
    pub(super) fn plumtree_state(&self, node: u32, seed: u64) -> plumtree::State<u32> {
        let mut state = plumtree::State::new(node, INCARNATION, self.plumtree.clone(), seed).uncounted();
        state.handle(plumtree::Input::ClusterSize(self.founders), Time::ZERO, &mut Vec::new());
        state
    }

    pub(super) fn payload(&self) -> Bytes {
        Bytes::from_static(&ZEROS[..self.payload_bytes])
    }

    /// The zeros of which all payloads are made.
    pub(super) fn zeros() -> &'static [u8; PAYLOAD_BYTES_MAX] {
        &ZEROS
    }

    /// The least that a message takes, in microseconds.
    pub(super) fn latency_min(&self) -> u64 {
        match self.model {
            Model::Uniform { min, .. } => min,
            _ => self.link.latency / 2,
        }
        .max(1)
    }

    /// The most that a message takes that is not lost, in microseconds.
    pub(super) fn latency_max(&self) -> u64 {
        let of_pair = match self.model {
            Model::Uniform { max, .. } => max,
            _ => self.link.latency / 2 + self.link.latency,
        };
        of_pair + self.link.jitter + 1
    }
}
