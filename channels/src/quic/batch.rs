//! Messages that arrived together, as they are handed from the thread that reads them to the one that takes them.
//!
//! They cross in blocks, each a run of whole frames in memory of its own, and are cut by whoever takes them. Cut before, each message would be a reference of its own to a block
//! that both threads count at the same time: on a machine whose cores share no cache that costs more than all else that is done for a small message.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::frame;
use crate::identity::PeerId;

/// What a message weighs beside its bytes, so that a flood of empty ones is bounded too.
const MESSAGE_WEIGHT: usize = 64;

/// Messages that come together, and their weight, above which a task reads them for whoever waits: it reads the next ones while those before are taken, and so more of them together. Measured: a
/// flood of 64 bytes, some hundred in a packet, costs 2.5 times as much when whoever takes it reads it, and messages of 1 MiB on another thread, to which each packet would be a change of threads, a fifth more.
const FEW: usize = 16;
const FEW_BYTES: u32 = 16 * 1_024;

/// Messages of one peer on one lane of a channel, in order.
#[derive(Debug)]
pub struct Batch {
    /// Who sent them.
    pub peer: PeerId,
    /// Which life of it.
    pub incarnation: u64,
    /// The lane on which they came.
    pub lane: u8,
    /// The bodies. Small ones share memory: what arrived together stays until the last of it is dropped, up to 64 KiB. A body that is larger than that may keep what came with it, up
    /// to the window of its stream ([`STREAM_WINDOW_BYTES`](crate::limits::STREAM_WINDOW_BYTES)). Copy what is kept for long.
    pub bodies: Bodies,
    pub(super) weight: u32,
}

impl Batch {
    pub(super) fn new(peer: PeerId, incarnation: u64, lane: u8, bodies: Bodies) -> Self {
        let weight = bodies.bytes.saturating_add(bodies.len().saturating_mul(MESSAGE_WEIGHT));
        Batch { peer, incarnation, lane, bodies, weight: u32::try_from(weight).unwrap_or(u32::MAX) }
    }

    /// Whether it was hardly worth a task that gathers messages.
    pub(super) fn is_few(&self) -> bool {
        self.bodies.len() <= FEW && self.weight <= FEW_BYTES
    }
}

/// The bodies of messages in their order: an iterator that cuts them out of what arrived.
#[derive(Debug, Default)]
pub struct Bodies {
    blocks: VecDeque<Block>,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Block {
    /// Whole frames, one after the other.
    Frames(Bytes),
    /// A body without a frame around it.
    Body(Bytes),
}

impl Bodies {
    /// Bytes of all that are left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn reserve(&mut self, blocks: usize) {
        self.blocks.reserve(blocks);
    }

    pub(super) fn push(&mut self, body: Bytes) {
        self.count += 1;
        self.bytes += body.len();
        self.blocks.push_back(Block::Body(body));
    }

    /// Adds whole frames: so many, with so many bytes of bodies.
    pub(super) fn push_run(&mut self, frames: Bytes, count: usize, bytes: usize) {
        self.count += count;
        self.bytes += bytes;
        self.blocks.push_back(Block::Frames(frames));
    }
}

impl Iterator for Bodies {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let body = match self.blocks.front_mut()? {
            Block::Body(body) => {
                let body = std::mem::take(body);
                self.blocks.pop_front();
                body
            }
            Block::Frames(frames) => {
                // Whoever pushed them has seen that they are whole.
                let body = frame::next_body(frames);
                debug_assert!(body.is_some(), "a run holds whole frames");
                if frames.is_empty() || body.is_none() {
                    self.blocks.pop_front();
                }
                body.unwrap_or_default()
            }
        };
        self.count -= 1;
        self.bytes -= body.len();
        Some(body)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Bodies {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_in_their_order_from_runs_and_alone() {
        let mut run = Vec::new();
        frame::encode_into(7, b"one", &mut run);
        frame::encode_into(7, b"", &mut run);
        frame::encode_into(7, b"three", &mut run);
        let mut bodies = Bodies::default();
        bodies.push(Bytes::from_static(b"zero"));
        bodies.push_run(Bytes::from(run), 3, 8);
        bodies.push(Bytes::from_static(b"four"));
        assert_eq!((bodies.len(), bodies.bytes()), (5, 16));
        let all: Vec<Bytes> = bodies.by_ref().collect();
        assert_eq!(all, [&b"zero"[..], b"one", b"", b"three", b"four"]);
        assert_eq!((bodies.len(), bodies.bytes(), bodies.next()), (0, 0, None));
    }
}
