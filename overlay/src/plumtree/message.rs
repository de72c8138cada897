//! What neighbors say to each other, and how lists of identities become frames.
//!
//! Identities travel grouped by stream and, inside a stream, as ranges of sequence numbers: the 32 bytes of an origin are written once
//! for each group, and a thousand messages in a row cost a few bytes.

use bytes::Bytes;
use meshwork_channels::limits::CONTROL_BYTES_MAX;
use meshwork_channels::{Bounded, ChannelId, PeerId};
use serde::{Deserialize, Serialize};

use super::{MessageId, Stream};
use crate::few::Few;

/// Groups in one frame.
pub const GROUPS_MAX: usize = 128;
/// Ranges in one group. A stream with more of them fills several groups.
pub const RANGES_MAX: usize = 64;
/// Encoded bytes at which a list of identities is closed and the next frame begins.
pub const LIST_BYTES_MAX: usize = 16 * 1_024;

// A frame of hostile bytes costs less than four times the largest control frame once it is decoded.
const _: () = assert!(GROUPS_MAX * (size_of::<Group<PeerId>>() + RANGES_MAX * size_of::<Range>()) < 4 * CONTROL_BYTES_MAX);

/// A list of identities.
pub type Groups<I> = Few<Group<I>, GROUPS_MAX>;

/// What one neighbor says to another. The wire enum only grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<I> {
    /// A payload.
    Gossip {
        /// Its identity.
        id: MessageId<I>,
        /// How many links it has crossed when it arrives: 1 from its origin.
        hops: u16,
        /// Why it is sent.
        push: Push,
        /// The payload, at most [`BROADCAST_BYTES_MAX`](meshwork_channels::limits::BROADCAST_BYTES_MAX).
        payload: Bytes,
    },
    /// Payloads that the sender holds.
    IHave {
        /// What the sender says about the link itself.
        link: LinkNews,
        /// The identities.
        groups: Groups<I>,
    },
    /// A request for payloads, each answered by a [`Message::Gossip`] or inside a [`Message::Gone`].
    Graft {
        /// Whether the link joins the tree as well. With an empty list this is the only purpose (section 3.8).
        eager: bool,
        /// The payloads that are asked for.
        groups: Groups<I>,
    },
    /// The link leaves the tree: payloads are announced over it from now on.
    Prune {
        /// The number of the tree; 0 for one that was not made by [`Push::Shape`].
        shape: u32,
    },
    /// Payloads that were asked for and that the sender does not hold (any more).
    Gone {
        /// The identities.
        groups: Groups<I>,
    },
    /// A payload that somebody pulled has come down the tree as well. This goes back to that node, along the way on which it passed it on.
    Met {
        /// The identity.
        id: MessageId<I>,
    },
}

impl<I> Message<I> {
    /// The channel of a payload; `None` for messages that belong to the protocol itself.
    pub fn channel(&self) -> Option<ChannelId> {
        match self {
            Message::Gossip { id, .. } => Some(id.channel),
            _ => None,
        }
    }
}

/// Why a payload is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// It travels down the tree; a duplicate means that the link is not needed in the tree.
    Eager,
    /// It answers a graft; a duplicate says nothing about the tree.
    Answer,
    /// It travels down the tree after a repair, so it may enter the tree in several places; a duplicate says nothing about the tree.
    Late,
    /// It goes over all links, in the tree or not, for so many more of them, so that it enters the tree in many places; a duplicate says
    /// nothing about the tree.
    Flood(u8),
    /// It travels down the tree from a node that pulled it before the tree had brought it; a duplicate says nothing about the tree.
    Pulled,
    /// It goes over all links and makes the tree anew: all join it, and those that bring a duplicate leave it. Of two trees that are made at the
    /// same time the one with the larger number stays.
    Shape(u32),
    /// It travels down the tree and shapes what there is of it: a duplicate means that the link closes a circle. One is sent at a time, so no
    /// circle is cut in two places.
    Trim {
        /// The number of the tree.
        shape: u32,
        /// Whether the root sends it, so that who learns of a shorter way takes that one.
        from_root: bool,
    },
}

impl Push {
    /// Whether it is on its first way through the tree.
    pub(crate) fn is_first_way(self) -> bool {
        match self {
            Push::Eager | Push::Pulled | Push::Shape(_) | Push::Trim { .. } => true,
            Push::Answer | Push::Late | Push::Flood(_) => false,
        }
    }
}

/// What the sender of an announcement says about the link itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkNews {
    /// Nothing.
    Same,
    /// The sender has just taken the receiver as a neighbor. A receiver whose own side of the link is older has missed that the link was
    /// replaced, and announces what it holds again.
    Opened,
    /// The same, and the sender threw an announcement of the receiver away because the receiver was not its neighbor yet.
    OpenedUnheard,
}

/// Messages of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group<I> {
    /// The stream.
    pub stream: Stream<I>,
    /// The sequence numbers, ascending when an honest node wrote them.
    pub ranges: Few<Range, RANGES_MAX>,
}

/// Consecutive sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// How many follow it.
    pub more: u16,
    /// In an announcement, how many links the payload would have crossed on arrival, when it is on its first way through the tree; 0 for a
    /// payload that is only held, and in every other message.
    pub hops: u16,
}

impl Range {
    /// The last sequence number.
    pub const fn last(&self) -> u64 {
        self.first.saturating_add(self.more as u64)
    }

    /// How many there are.
    pub const fn len(&self) -> u64 {
        self.last() - self.first + 1
    }

    /// Never: a range holds at least its first number.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// A list of one identity.
pub(crate) fn one<I: Copy>(id: MessageId<I>, hops: u16) -> Groups<I> {
    let range = Range { first: id.sequence, more: 0, hops };
    Few::one(Group { stream: id.stream(), ranges: Few::one(range) })
}

/// Packs identities, given in order, into lists that fit into frames.
#[derive(Clone, Debug)]
pub(crate) struct Packer<I> {
    full: Vec<Groups<I>>,
    groups: Vec<Group<I>>,
    ranges: Vec<Range>,
    stream: Option<Stream<I>>,
    list_bytes: usize,
    full_bytes: usize,
    ids: u64,
}

impl<I: Copy + Ord> Packer<I> {
    pub(crate) const fn new() -> Self {
        Packer { full: Vec::new(), groups: Vec::new(), ranges: Vec::new(), stream: None, list_bytes: 0, full_bytes: 0, ids: 0 }
    }

    /// Lists for all of `ids`, which are in order.
    pub(crate) fn pack(ids: impl IntoIterator<Item = (MessageId<I>, u16)>) -> Vec<Groups<I>> {
        let mut packer = Packer::new();
        for (id, hops) in ids {
            packer.add(id, hops);
        }
        packer.finish()
    }

    /// Appends one identity.
    pub(crate) fn add(&mut self, id: MessageId<I>, hops: u16) {
        self.ids += 1;
        let same_stream = self.stream == Some(id.stream());
        if same_stream
            && let Some(range) = self.ranges.last_mut()
            && range.hops == hops
            && range.more < u16::MAX
            && range.last().checked_add(1) == Some(id.sequence)
        {
            range.more += 1;
            return;
        }
        let range = Range { first: id.sequence, more: 0, hops };
        let range_bytes = varint_bytes(range.first) + varint_bytes(u64::from(u16::MAX)) + varint_bytes(u64::from(hops));
        // A `u32` takes up to five bytes in postcard, an array exactly its own.
        let group_bytes = size_of::<I>() * 5 / 4 + varint_bytes(id.incarnation) + varint_bytes(u64::from(id.channel.0)) + 2;
        if !same_stream || self.ranges.len() == RANGES_MAX {
            self.close_group();
            if self.groups.len() == GROUPS_MAX || self.list_bytes + group_bytes + range_bytes > LIST_BYTES_MAX {
                self.close_list();
            }
            self.list_bytes += group_bytes;
            self.stream = Some(id.stream());
        } else if self.list_bytes + range_bytes > LIST_BYTES_MAX {
            self.close_group();
            self.close_list();
            self.list_bytes += group_bytes;
            self.stream = Some(id.stream());
        }
        self.list_bytes += range_bytes;
        self.ranges.push(range);
    }

    /// How many identities were added.
    pub(crate) fn ids(&self) -> u64 {
        self.ids
    }

    /// An upper bound of the encoded bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.full_bytes + self.list_bytes
    }

    /// The lists; none when nothing was added.
    pub(crate) fn finish(mut self) -> Vec<Groups<I>> {
        self.close_group();
        self.close_list();
        self.full
    }

    fn close_group(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.groups.push(Group { stream, ranges: Bounded::first_of(std::mem::take(&mut self.ranges)).into() });
        }
    }

    fn close_list(&mut self) {
        self.full_bytes += std::mem::take(&mut self.list_bytes);
        if !self.groups.is_empty() {
            self.full.push(Bounded::first_of(std::mem::take(&mut self.groups)).into());
        }
    }
}

/// Bytes of a number in postcard: seven bits in each.
const fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
