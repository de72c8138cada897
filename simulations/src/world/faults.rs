//! What the schedule does to nodes.

use bytes::Bytes;
use meshwork_channels::random::hash;
use meshwork_channels::{ChannelId, frame};

use super::{Arrival, Sight, Stage, World};
use crate::graph::{articulations, living, neighbors};
use crate::host::{Connection, Host, Plant};
use crate::network::{Cut, IDLE_TIMEOUT};
use crate::schedule::{ATTACK_MICROS, Aim};

/// Feeds what crashes leave of disks.
const TORN: u64 = 0x746f_726e;
/// Feeds what hostile nodes send.
const HOSTILE: u64 = 0x6861_7465;
/// Kinds of frames that hostile nodes name are below this; the protocols have fewer.
const KINDS: u64 = 64;
/// Bytes of a frame that a hostile node makes.
const HOSTILE_BYTES: u64 = 300;

impl<H: Host> World<H> {
    /// A process ends, in good order or without a word.
    pub(super) fn stop(&mut self, node: u32, in_order: bool) -> bool {
        let (clock, seed) = (self.clock(node), self.setup.seed);
        let slot = &mut self.slots[node as usize];
        let Some(mut host) = slot.host.take() else { return false };
        slot.disk = host.give_disk(in_order, clock);
        if let Some(disk) = slot.disk.as_mut().filter(|_| !in_order) {
            let honest = self.setup.plant != Some((node, Plant::LoseSynced));
            let is_torn = disk.crash(hash(&[seed, TORN, u64::from(node), u64::from(slot.life)]), honest);
            *self.happened.entry("torn").or_default() += u64::from(is_torn);
        }
        let ends = std::mem::take(&mut slot.ends);
        self.tally.add(&host.tally());
        let mut remembered = Vec::new();
        host.visit_remembered(&mut |address| remembered.push(address));
        self.slots[node as usize].remembered = remembered;
        for end in ends.into_iter().filter(|end| end.remote != 0) {
            self.push(node, end.peer, self.now + IDLE_TIMEOUT, Arrival::Silence { connection: end.remote });
        }
        self.see(node, Sight::Stopped);
        true
    }

    /// The living nodes that matter most to the others end without a word. A node with a planted bug is spared too.
    pub(super) fn strike(&mut self, aim: Aim, count: u32, spared: u32) -> bool {
        let all = neighbors(self);
        let mut targets = match aim {
            Aim::Degree => living(self),
            Aim::Articulation => articulations(&all),
        };
        targets.sort_by_key(|node| std::cmp::Reverse(all[*node as usize].len()));
        let planted = self.setup.plant.map(|(node, _)| node);
        targets.retain(|node| *node >= spared && Some(*node) != planted);
        targets.truncate(count as usize);
        targets.iter().for_each(|node| {
            self.stop(*node, false);
        });
        !targets.is_empty()
    }

    /// A node stands still; when it does for longer than the idle timeout, nobody hears of it, and it hears of nobody when it goes on.
    pub(super) fn pause(&mut self, node: u32, micros: u64) -> bool {
        let slot = &mut self.slots[node as usize];
        slot.paused_until = slot.paused_until.max(self.now + micros);
        if slot.host.is_none() {
            return false;
        }
        if micros >= IDLE_TIMEOUT {
            self.silence(node, self.now + IDLE_TIMEOUT);
        }
        true
    }

    pub(super) fn slow(&mut self, node: u32, micros: u64, until: u64) -> bool {
        let slot = &mut self.slots[node as usize];
        slot.slow_until = until;
        slot.slow_by = micros;
        slot.host.is_some()
    }

    pub(super) fn break_all(&mut self, node: u32) -> bool {
        let open = self.open(node);
        for (id, peer, remote) in &open {
            self.push(node, node, self.now + 1, Arrival::Silence { connection: *id });
            self.push(node, *peer, self.now + self.network.latency(node, *peer), Arrival::Silence { connection: *remote });
        }
        !open.is_empty()
    }

    /// Lets both ends of all connections of a node end at a moment.
    fn silence(&mut self, node: u32, at: u64) {
        for (id, peer, remote) in self.open(node) {
            self.push(node, node, at, Arrival::Silence { connection: id });
            self.push(node, peer, at, Arrival::Silence { connection: remote });
        }
    }

    /// The open connections of a node: its number of each, the peer, and the number of the peer.
    fn open(&self, node: u32) -> Vec<(Connection, u32, Connection)> {
        let open = self.slots[node as usize].ends.iter().filter(|end| end.stage == Stage::Open);
        open.map(|end| (end.id, end.peer, end.remote)).collect()
    }

    /// Keeps nodes apart; says whether any connection crosses the cut.
    pub(super) fn cut(&mut self, cut: Cut) -> bool {
        self.network.cut(cut, self.now);
        let mut crossing = 0;
        for node in 0..self.setup.nodes {
            for (id, peer, _) in self.open(node) {
                let is_cut = |from, to| self.network.cut_between(from, to, self.now).is_some();
                if is_cut(node, peer) || is_cut(peer, node) {
                    crossing += 1;
                    self.fear_silence(node, peer, id);
                }
            }
        }
        crossing > 0
    }

    /// Breaks an open connection across a cut when the cut outlasts the idle timeout: at once at the end that hears nothing, and at the other, when only one hears nothing,
    /// once that one has fallen silent for as long, or has answered that it knows of no connection.
    pub(super) fn fear_silence(&mut self, node: u32, peer: u32, connection: Connection) {
        let outlasting = |cut: Option<(u64, u64)>| cut.filter(|(began, until)| until - began >= IDLE_TIMEOUT);
        let heard = outlasting(self.network.cut_between(peer, node, self.now));
        let said = outlasting(self.network.cut_between(node, peer, self.now));
        let at = match (heard, said) {
            (Some((began, _)), _) => began + IDLE_TIMEOUT,
            (None, Some((began, until))) => until.clamp(began + IDLE_TIMEOUT, began + 2 * IDLE_TIMEOUT),
            (None, None) => return,
        };
        self.push(node, node, at, Arrival::Silence { connection });
    }

    pub(super) fn set_clock(&mut self, node: u32, jump: i64, drift: i32) -> bool {
        let slot = &mut self.slots[node as usize];
        slot.clock.set(self.now, jump, drift);
        let is_alive = slot.host.is_some();
        self.see(node, Sight::ClockSet);
        is_alive
    }

    /// A node sends what it makes up to whoever it is connected to: kinds and channels that there are and that there are not, with random bytes.
    pub(super) fn attack(&mut self, node: u32, frames: u32) -> bool {
        if self.slots[node as usize].host.is_none() {
            return false;
        }
        let open = self.open(node);
        self.see(node, Sight::Attacked);
        for (connection, peer, _) in &open {
            for index in 0..u64::from(frames) {
                let draw = |what: u64| hash(&[self.setup.seed, HOSTILE, u64::from(node), u64::from(*peer), index, what]);
                let body: Vec<u8> = (0..draw(0) % HOSTILE_BYTES).map(|byte| draw(16 + byte) as u8).collect();
                if draw(1) % 4 == 0 {
                    self.send_datagram(node, *connection, Bytes::from(body));
                } else {
                    let channel = ChannelId((draw(2) % 8) as u16);
                    self.send_frame(node, *connection, channel, frame::encode((draw(3) % KINDS) as u16, &body));
                }
            }
        }
        let life = self.slots[node as usize].life;
        self.push(node, node, self.now + ATTACK_MICROS, Arrival::Stop { life });
        !open.is_empty()
    }
}
