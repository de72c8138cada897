//! Handshakes, what crosses connections, and their ends.

use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::{ChannelId, PeerId};

use super::{Arrival, End, Stage, World};
use crate::host::{self, Connection, DialFailure, Host, Input};
use crate::network::{DIAL_TIMEOUT, Fate, Full, IDLE_TIMEOUT};

impl<H: Host> World<H> {
    pub(super) fn dial(&mut self, node: u32, address: SocketAddr, expected: Option<PeerId>) {
        self.traffic.dials += 1;
        let slot = &mut self.slots[node as usize];
        slot.last_connection += 1;
        let dial = slot.last_connection;
        let peer_moves = slot.moves;
        let target = host::at_address(address).filter(|(index, _)| (*index as usize) < self.peers.len());
        let peer = target.map_or(node, |(index, _)| index);
        let end =
            End { id: dial, peer, remote: 0, incarnation: 0, address, stage: Stage::Dialing { expected }, clocks: Vec::new(), opened: 0 };
        slot.ends.push(end);
        match target {
            Some((index, moves)) if index == node && moves == peer_moves => {
                self.push(node, node, self.now + 1, Arrival::GiveUp { connection: dial, why: DialFailure::Myself });
            }
            Some((index, moves)) if index != node && self.network.can_dial(node, index) => {
                self.send_packet(node, index, Arrival::Hello { dial, peer_moves, moves });
                self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: dial, why: DialFailure::TimedOut });
            }
            _ => self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: dial, why: DialFailure::TimedOut }),
        }
    }

    /// Sends a packet of a handshake, which is sent again when it is lost; gives its arrival.
    fn send_packet(&mut self, from: u32, to: u32, what: Arrival) -> Option<u64> {
        let at = self.arrival(from, to, 0)?;
        self.push(from, to, at, what);
        Some(at)
    }

    /// When something that is sent again until it arrives does arrive, and that first waits for its line; none when it never does.
    fn arrival(&mut self, from: u32, to: u32, waits: u64) -> Option<u64> {
        let start = match self.network.cut_between(from, to, self.now) {
            Some((began, until)) if until - began < IDLE_TIMEOUT => until,
            Some(_) => return None,
            None => self.now,
        };
        let slot = &mut self.slots[from as usize];
        match self.network.stream(from, to, slot.sequence + 1, self.now) {
            Fate::After(micros) => Some(start.max(self.now + waits) + micros),
            Fate::Breaks => {
                // What is lost uses up its number too, or the next packet would share its fate.
                slot.sequence += 1;
                None
            }
        }
    }

    pub(super) fn on_hello(&mut self, node: u32, from: u32, dial: Connection, peer_moves: u16, moves: u16) {
        let slot = &mut self.slots[node as usize];
        if slot.moves != moves {
            return;
        }
        slot.last_connection += 1;
        let accept = slot.last_connection;
        let incarnation = u64::from(slot.life);
        let end = End {
            id: accept,
            peer: from,
            remote: dial,
            incarnation: 0,
            address: host::address(from, peer_moves),
            stage: Stage::Answering,
            clocks: Vec::new(),
            opened: 0,
        };
        slot.ends.push(end);
        self.note(self.now, node, from, 1, dial);
        self.send_packet(node, from, Arrival::Welcome { dial, accept, incarnation });
        self.push(node, node, self.now + DIAL_TIMEOUT, Arrival::GiveUp { connection: accept, why: DialFailure::TimedOut });
    }

    pub(super) fn on_welcome(&mut self, node: u32, from: u32, dial: Connection, accept: Connection, incarnation: u64) {
        let found = self.peers[from as usize];
        let slot = &mut self.slots[node as usize];
        let life = u64::from(slot.life);
        let Some(end) = slot.end(dial) else { return };
        let Stage::Dialing { expected } = end.stage else { return };
        end.remote = accept;
        end.incarnation = incarnation;
        self.note(self.now, node, from, 2, dial);
        if expected.is_some_and(|expected| expected != found) {
            self.on_give_up(node, dial, DialFailure::WrongPeer(found));
        } else {
            self.send_packet(node, from, Arrival::Proof { accept, incarnation: life });
        }
    }

    pub(super) fn on_proof(&mut self, node: u32, from: u32, accept: Connection, incarnation: u64) {
        let slot = &mut self.slots[node as usize];
        let Some(end) = slot.end(accept) else { return };
        if end.stage != Stage::Answering {
            return;
        }
        end.stage = Stage::Open;
        end.incarnation = incarnation;
        let (remote, address) = (end.remote, end.address);
        self.note(self.now, node, from, 3, accept);
        let opened = self.send_packet(node, from, Arrival::Admitted { dial: remote });
        if let Some(end) = self.slots[node as usize].end(accept) {
            end.opened = opened.unwrap_or(u64::MAX);
        }
        self.fear_silence(node, from, accept);
        let peer = self.peers[from as usize];
        self.feed(node, Input::Connected { connection: accept, peer, incarnation, address, outbound: false });
    }

    pub(super) fn on_admitted(&mut self, node: u32, from: u32, dial: Connection) {
        let Some(end) = self.slots[node as usize].end(dial) else { return };
        if !matches!(end.stage, Stage::Dialing { .. }) {
            return;
        }
        end.stage = Stage::Open;
        let (incarnation, address) = (end.incarnation, end.address);
        self.note(self.now, node, from, 4, dial);
        self.fear_silence(node, from, dial);
        let peer = self.peers[from as usize];
        self.feed(node, Input::Connected { connection: dial, peer, incarnation, address, outbound: true });
    }

    pub(super) fn on_give_up(&mut self, node: u32, connection: Connection, why: DialFailure) {
        let slot = &mut self.slots[node as usize];
        if slot.end(connection).is_none_or(|end| matches!(end.stage, Stage::Open | Stage::Closing)) {
            return;
        }
        let Some(end) = slot.take_end(connection) else { return };
        self.note(self.now, node, end.peer, 5, connection);
        if end.remote != 0 {
            self.send_packet(node, end.peer, Arrival::Closed { connection: end.remote, unneeded: false });
        }
        if let Stage::Dialing { .. } = end.stage {
            self.traffic.dials_failed += 1;
            self.feed(node, Input::DialFailed { address: end.address, why });
        }
    }

    /// A connection is gone; says whether it stood.
    pub(super) fn on_gone(&mut self, node: u32, connection: Connection, code: u64, unneeded: bool) -> bool {
        let Some(end) = self.slots[node as usize].take_end(connection) else { return false };
        self.note(self.now, node, end.peer, code, connection);
        match end.stage {
            Stage::Open | Stage::Closing => {
                let peer = self.peers[end.peer as usize];
                self.feed(node, Input::Disconnected { connection, peer, unneeded });
            }
            Stage::Dialing { .. } => {
                self.traffic.dials_failed += 1;
                self.feed(node, Input::DialFailed { address: end.address, why: DialFailure::Lost });
            }
            Stage::Answering => {}
        }
        end.stage == Stage::Open
    }

    pub(super) fn send_frame(&mut self, node: u32, connection: Connection, channel: ChannelId, bytes: Bytes) {
        self.traffic.frames += 1;
        self.traffic.frame_bytes += bytes.len() as u64;
        self.moved[node as usize].sent += bytes.len() as u64;
        let Some((peer, remote, opened)) =
            self.slots[node as usize].end(connection).filter(|end| end.stage == Stage::Open).map(|end| (end.peer, end.remote, end.opened))
        else {
            self.traffic.frames_lost += 1;
            return;
        };
        let waits = self.network.leave(node, bytes.len(), self.now, Full::Wait).unwrap_or(0);
        let arrival = self.arrival(node, peer, waits);
        let Some(at) = arrival else {
            self.traffic.frames_lost += 1;
            // A cut that outlasts the idle timeout ends the connection by itself; under a shorter one it was the losses.
            let is_cut = self.network.cut_between(node, peer, self.now).is_some_and(|(began, until)| until - began >= IDLE_TIMEOUT);
            if !is_cut {
                let silence = self.now + IDLE_TIMEOUT;
                self.push(node, node, silence, Arrival::Silence { connection });
                self.push(node, peer, silence, Arrival::Silence { connection: remote });
            }
            // Whatever follows on this channel waits behind the lost frame for ever.
            self.delay(node, connection, channel, u64::MAX);
            return;
        };
        let at = self.delay(node, connection, channel, at.max(opened));
        let through = !self.network.has_lines_down();
        if at < u64::MAX {
            self.push(node, peer, at, Arrival::Frame { connection: remote, channel, bytes, through });
        } else {
            self.traffic.frames_lost += 1;
        }
    }

    /// The arrival of a frame behind those that were sent before it.
    fn delay(&mut self, node: u32, connection: Connection, channel: ChannelId, at: u64) -> u64 {
        let Some(end) = self.slots[node as usize].end(connection) else { return at };
        match end.clocks.iter_mut().find(|(known, _)| *known == channel) {
            Some((_, clock)) => {
                *clock = (*clock).max(at);
                *clock
            }
            None => {
                end.clocks.push((channel, at));
                at
            }
        }
    }

    pub(super) fn send_datagram(&mut self, node: u32, connection: Connection, bytes: Bytes) {
        self.traffic.datagrams += 1;
        self.traffic.datagram_bytes += bytes.len() as u64;
        self.moved[node as usize].sent += bytes.len() as u64;
        let slot = &mut self.slots[node as usize];
        let sequence = slot.sequence + 1;
        let Some((peer, remote)) = slot.end(connection).filter(|end| end.stage == Stage::Open).map(|end| (end.peer, end.remote)) else {
            return;
        };
        if let Some(micros) = self.network.datagram(node, peer, sequence, bytes.len(), self.now) {
            let through = !self.network.has_lines_down();
            let second = self.network.double(node, peer, sequence, self.now).map(|micros| (micros, bytes.clone()));
            self.push(node, peer, self.now + micros, Arrival::Datagram { connection: remote, bytes, sent: self.now, through });
            if let Some((micros, bytes)) = second {
                self.push(node, peer, self.now + micros, Arrival::Datagram { connection: remote, bytes, sent: self.now, through });
            }
        } else {
            // As above: what is lost uses up its number.
            self.slots[node as usize].sequence = sequence;
        }
    }

    pub(super) fn close(&mut self, node: u32, connection: Connection, unneeded: bool) {
        let slot = &mut self.slots[node as usize];
        let Some(end) = slot.end(connection).filter(|end| end.stage == Stage::Open) else { return };
        end.stage = Stage::Closing;
        let (peer, remote) = (end.peer, end.remote);
        if self.send_packet(node, peer, Arrival::Closed { connection: remote, unneeded }).is_none() {
            self.push(node, peer, self.now + IDLE_TIMEOUT, Arrival::Silence { connection: remote });
        }
        // The node hears of the end like of any other, after it has decided everything else that belongs to this input.
        self.push(node, node, self.now + 1, Arrival::Closed { connection, unneeded });
    }
}
