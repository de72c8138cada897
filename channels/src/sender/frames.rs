//! What waits on one lane: the frames in their order, in blocks that small ones share, their deadlines, and the latest of each key.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::KEPT_FRAMES;
use crate::frame;
use crate::time::Time;

/// Frames up to this size share blocks; larger ones keep their own memory, and are not copied.
pub const SHARED_FRAME_BYTES_MAX: usize = 4 * 1_024;

/// The largest block for small frames.
pub const BLOCK_BYTES: usize = 32 * 1_024;
/// The first block of a lane that was idle.
const BLOCK_BYTES_MIN: usize = 256;

/// Marks the length of a part that does not end its frame.
const CONTINUES: u32 = 1 << 31;

/// The frames of one lane in their order.
#[derive(Default)]
pub(super) struct Frames {
    /// The length of each part: of a whole frame, or of a part of one that ends with the next part without [`CONTINUES`].
    lens: VecDeque<u32>,
    /// How many of them end a frame.
    count: usize,
    /// How many of them have left.
    left: u64,
    /// The frames that have a deadline, by number since the first.
    deadlines: VecDeque<(u64, Time)>,
    /// Whether the start of the next frame has left.
    is_cut: bool,
    /// Their bytes; no part lies in two blocks.
    blocks: VecDeque<Bytes>,
    /// The block that small frames are appended to.
    tail: BytesMut,
    /// How large the last full block was: the next one will be.
    block_len: usize,
    /// On a channel that keeps the latest of each key: the frames, each its own block.
    latest: Latest,
}

/// Frames of which a later one of the same key takes the place.
#[derive(Default)]
struct Latest {
    /// The key, the frame, and when it came.
    slots: VecDeque<(Bytes, Bytes, Time)>,
    /// The number of the slot of each key; the first slot has the number `first`.
    places: BTreeMap<Bytes, u64>,
    first: u64,
}

impl Frames {
    pub(super) fn len(&self) -> usize {
        self.count + self.latest.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lens.is_empty() && self.latest.slots.is_empty()
    }

    /// All their bytes; looks at every block.
    pub(super) fn bytes(&self) -> usize {
        let latest: usize = self.latest.slots.iter().map(|(_, frame, _)| frame.len()).sum();
        self.blocks.iter().map(Bytes::len).sum::<usize>() + self.tail.len() + latest
    }

    /// The length of the next frame. An empty frame is not free, or it could go first for ever.
    pub(super) fn next_cost(&self) -> u64 {
        let latest = self.latest.slots.front().map(|(_, frame, _)| frame.len() as u64);
        latest.or(self.lens.front().map(|len| u64::from(*len & !CONTINUES))).unwrap_or(1).max(1)
    }

    /// Whether the next frame, of which nothing has left, has a deadline that is over.
    pub(super) fn is_expired(&self, now: Time) -> bool {
        !self.is_cut && self.deadlines.front().is_some_and(|(number, deadline)| *number == self.left && *deadline <= now)
    }

    /// Whether the start of the next frame has left.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Gives the frame at the end a deadline.
    pub(super) fn set_deadline(&mut self, deadline: Time) {
        self.deadlines.push_back(((self.left + self.count as u64).saturating_sub(1), deadline));
    }

    /// Where the frame of a key waits, on a channel that keeps the latest.
    pub(super) fn place(&self, key: &Bytes) -> Option<usize> {
        self.latest.places.get(key).map(|number| (number - self.latest.first) as usize)
    }

    /// The bytes of the frame at a place.
    pub(super) fn len_at(&self, place: usize) -> usize {
        self.latest.slots[place].1.len()
    }

    /// Puts a frame in the place of another of its key.
    pub(super) fn replace(&mut self, place: usize, frame: Bytes, now: Time) {
        let slot = &mut self.latest.slots[place];
        (slot.1, slot.2) = (frame, now);
    }

    /// Adds the frame of a key that has none.
    pub(super) fn push_latest(&mut self, key: Bytes, frame: Bytes, now: Time) {
        self.latest.places.insert(key.clone(), self.latest.first + self.latest.slots.len() as u64);
        self.latest.slots.push_back((key, frame, now));
    }

    /// When the next frame came, on a channel that keeps the latest.
    pub(super) fn kept_since(&self) -> Option<Time> {
        self.latest.slots.front().map(|(.., at)| *at)
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.block_len = self.tail.len();
            self.blocks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        self.lens.push_back(part_len(frame.len()));
        self.count += 1;
        if frame.len() <= SHARED_FRAME_BYTES_MAX {
            self.room(frame.len()).extend_from_slice(&frame);
        } else {
            self.seal();
            self.blocks.push_back(frame);
        }
    }

    #[inline]
    pub(super) fn push_message(&mut self, kind: u16, body: &[u8], len: usize) {
        self.lens.push_back(part_len(len));
        self.count += 1;
        frame::encode_into(kind, body, self.room(len));
    }

    /// A large message without a copy: its head goes with the small frames, its body is a block.
    pub(super) fn push_shared(&mut self, kind: u16, body: Bytes, len: usize) {
        let head = len - body.len();
        self.lens.push_back(part_len(head) | CONTINUES);
        frame::encode_head_into(kind, body.len(), self.room(head));
        self.seal();
        self.lens.push_back(part_len(body.len()));
        self.count += 1;
        self.blocks.push_back(body);
    }

    /// The block at the end with room for so many bytes.
    #[inline]
    fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.tail.capacity() - self.tail.len() < len {
            // A full block leaves as it is; growing it would copy it.
            let is_first = self.tail.is_empty();
            self.seal();
            let next = if is_first { self.block_len * 5 / 4 } else { self.block_len * 2 };
            // Written through once: the lines of a block that another core has read come over together, and not one by one between the locks of each message.
            self.tail = BytesMut::zeroed(next.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES).max(len));
            self.tail.clear();
        }
        &mut self.tail
    }

    /// Takes the next part and those behind it that lie in the same block and fit in `max` bytes together; how many frames end there.
    pub(super) fn pop(&mut self, max: usize) -> Option<(usize, Bytes)> {
        if let Some((key, frame, _)) = self.latest.slots.pop_front() {
            self.latest.places.remove(&key);
            self.latest.first += 1;
            return Some((1, frame));
        }
        if self.blocks.is_empty() {
            self.seal();
        }
        let mut last = self.lens.pop_front()?;
        let mut len = (last & !CONTINUES) as usize;
        let mut frames = usize::from(last & CONTINUES == 0);
        let Some(block) = self.blocks.front_mut() else {
            debug_assert!(false, "a part has its bytes");
            return None;
        };
        let max = max.min(block.len());
        // Up to a frame with a deadline: whether it is over is asked when it is the next.
        let stop = self.deadlines.iter().map(|(number, _)| *number).find(|number| *number > self.left);
        while let Some(next) = self.lens.front()
            && len + (*next & !CONTINUES) as usize <= max
            && stop.is_none_or(|stop| self.left + (frames as u64) < stop)
        {
            last = *next;
            len += (last & !CONTINUES) as usize;
            frames += usize::from(last & CONTINUES == 0);
            self.lens.pop_front();
        }
        let bytes = block.split_to(len);
        if block.is_empty() {
            self.blocks.pop_front();
        }
        self.count -= frames;
        self.left += frames as u64;
        while self.deadlines.pop_front_if(|(number, _)| *number < self.left).is_some() {}
        self.is_cut = last & CONTINUES != 0;
        if self.lens.is_empty() && self.lens.capacity() > KEPT_FRAMES {
            self.lens = VecDeque::new();
        }
        Some((frames, bytes))
    }
}

fn part_len(len: usize) -> u32 {
    debug_assert!(len < CONTINUES as usize, "no frame is nearly that large");
    u32::try_from(len).unwrap_or(u32::MAX) & !CONTINUES
}
