//! Messages under way, packed: what nearly all of them hold fits beside an event into a cache line, without a pointer to follow.
//!
//! Packing loses nothing. A message that does not fit is boxed as it is.

use bytes::Bytes;
use meshwork_channels::ChannelId;
use meshwork_overlay::few::Few;
use meshwork_overlay::hyparview::{self, Farewell, Peers, Priority};
use meshwork_overlay::plumtree::message::{Group, Groups, LinkNews, Push, Range};
use meshwork_overlay::plumtree::{self, Stream};
use meshwork_overlay::{MessageId, topology};

/// The channel of all broadcasts.
pub(super) const CHANNEL: ChannelId = ChannelId::EVENTS;
/// Nodes live once.
pub(super) const INCARNATION: u64 = 1;
/// Peers that fit into a packed list.
const PEERS_MAX: usize = 8;

/// What one node says to another.
#[derive(Debug)]
pub(super) enum Message {
    Topology(topology::Message<u32>),
    Plumtree(plumtree::Message<u32>),
}

/// A message that is packed.
#[derive(Debug)]
pub(super) enum Parcel {
    Join { link: u32 },
    ForwardJoin { joiner: u32, ttl: u8, missing: u8 },
    Neighbor { link: u32, priority: Priority },
    NeighborReply { link: u32, accepted: bool, len: u8, peers: [u32; PEERS_MAX] },
    Disconnect { link: u32, reason: Farewell, len: u8, peers: [u32; PEERS_MAX] },
    Shuffle { origin: u32, nonce: u32, ttl: u8, len: u8, peers: [u32; PEERS_MAX - 1] },
    ShuffleReply { nonce: u32, len: u8, peers: [u32; PEERS_MAX] },
    Alive { link: u32 },
    Probe { nonce: u32 },
    ProbeReply { nonce: u32, token: u32 },
    Swap { link: u32, token: u32, old: u32, len: u8, others: [u32; PEERS_MAX - 2] },
    Gossip { origin: u32, hops: u16, push: Push, sequence: u64, len: u32 },
    IHave { origin: u32, link: LinkNews, range: Range },
    IHaveNothing { link: LinkNews },
    Graft { origin: u32, eager: bool, range: Range },
    GraftNothing { eager: bool },
    Prune { shape: u32 },
    Other(Box<Message>),
}

// With the head of an event, 64 bytes.
const _: () = assert!(size_of::<Parcel>() <= 40);

/// What a digest tells of why a payload is sent.
fn told(push: Push) -> u64 {
    match push {
        Push::Eager => 0,
        Push::Answer => 1,
        Push::Late => 2,
        Push::Flood(left) => 3 | u64::from(left) << 16,
        Push::Pulled => 4,
        Push::Shape(number) => 5 | u64::from(number) << 16,
        Push::Trim { shape, from_root } => 6 | u64::from(from_root) << 8 | u64::from(shape) << 16,
    }
}

impl Parcel {
    pub(super) fn topology(message: topology::Message<u32>) -> Self {
        use hyparview::Message::*;
        let topology::Message::Hyparview(message) = message else { return Parcel::Other(Box::new(Message::Topology(message))) };
        match message {
            Join { link } => Parcel::Join { link },
            ForwardJoin { joiner, ttl, missing } => Parcel::ForwardJoin { joiner, ttl, missing },
            Neighbor { link, priority } => Parcel::Neighbor { link, priority },
            Alive { link } => Parcel::Alive { link },
            Probe { nonce } => Parcel::Probe { nonce },
            ProbeReply { nonce, token } => Parcel::ProbeReply { nonce, token },
            Swap { link, token, old, ref others } if let Some((len, others)) = pack(others) => {
                Parcel::Swap { link, token, old, len, others }
            }
            NeighborReply { link, accepted, ref peers } if let Some((len, peers)) = pack(peers) => {
                Parcel::NeighborReply { link, accepted, len, peers }
            }
            Disconnect { link, reason, ref peers } if let Some((len, peers)) = pack(peers) => {
                Parcel::Disconnect { link, reason, len, peers }
            }
            Shuffle { origin, nonce, ttl, ref peers } if let Some((len, peers)) = pack(peers) => {
                Parcel::Shuffle { origin, nonce, ttl, len, peers }
            }
            ShuffleReply { nonce, ref peers } if let Some((len, peers)) = pack(peers) => Parcel::ShuffleReply { nonce, len, peers },
            other => Parcel::Other(Box::new(Message::Topology(topology::Message::Hyparview(other)))),
        }
    }

    pub(super) fn plumtree(message: plumtree::Message<u32>) -> Self {
        use plumtree::Message::*;
        match message {
            Gossip { id, hops, push, ref payload } if is_usual(&id.stream()) && payload.len() <= u32::MAX as usize => {
                Parcel::Gossip { origin: id.origin, hops, push, sequence: id.sequence, len: payload.len() as u32 }
            }
            IHave { link, ref groups } if groups.is_empty() => Parcel::IHaveNothing { link },
            IHave { link, ref groups } if let Some((origin, range)) = only(groups) => Parcel::IHave { origin, link, range },
            Graft { eager, ref groups } if groups.is_empty() => Parcel::GraftNothing { eager },
            Graft { eager, ref groups } if let Some((origin, range)) = only(groups) => Parcel::Graft { origin, eager, range },
            Prune { shape } => Parcel::Prune { shape },
            other => Parcel::Other(Box::new(Message::Plumtree(other))),
        }
    }

    /// Whether it is of the partial views, as far as one sees without opening it.
    pub(super) fn is_of_topology(&self) -> bool {
        !matches!(
            self,
            Parcel::Gossip { .. }
                | Parcel::IHave { .. }
                | Parcel::IHaveNothing { .. }
                | Parcel::Graft { .. }
                | Parcel::GraftNothing { .. }
                | Parcel::Prune { .. }
                | Parcel::Other(_)
        )
    }

    /// The message. Payloads are pieces of `zeros`.
    pub(super) fn open(self, zeros: &'static [u8]) -> Message {
        use hyparview::Message as Topology;
        use plumtree::Message as Plumtree;
        let topology = |message| Message::Topology(topology::Message::Hyparview(message));
        match self {
            Parcel::Join { link } => topology(Topology::Join { link }),
            Parcel::ForwardJoin { joiner, ttl, missing } => topology(Topology::ForwardJoin { joiner, ttl, missing }),
            Parcel::Neighbor { link, priority } => topology(Topology::Neighbor { link, priority }),
            Parcel::NeighborReply { link, accepted, len, peers } => {
                topology(Topology::NeighborReply { link, accepted, peers: unpack(len, &peers) })
            }
            Parcel::Disconnect { link, reason, len, peers } => topology(Topology::Disconnect { link, reason, peers: unpack(len, &peers) }),
            Parcel::Shuffle { origin, nonce, ttl, len, peers } => {
                topology(Topology::Shuffle { origin, nonce, ttl, peers: unpack(len, &peers) })
            }
            Parcel::ShuffleReply { nonce, len, peers } => topology(Topology::ShuffleReply { nonce, peers: unpack(len, &peers) }),
            Parcel::Alive { link } => topology(Topology::Alive { link }),
            Parcel::Probe { nonce } => topology(Topology::Probe { nonce }),
            Parcel::ProbeReply { nonce, token } => topology(Topology::ProbeReply { nonce, token }),
            Parcel::Swap { link, token, old, len, others } => topology(Topology::Swap { link, token, old, others: unpack(len, &others) }),
            Parcel::Gossip { origin, hops, push, sequence, len } => {
                let id = MessageId { origin, incarnation: INCARNATION, channel: CHANNEL, sequence };
                let payload = Bytes::from_static(&zeros[..len as usize]);
                Message::Plumtree(Plumtree::Gossip { id, hops, push, payload })
            }
            Parcel::IHave { origin, link, range } => Message::Plumtree(Plumtree::IHave { link, groups: one(origin, range) }),
            Parcel::IHaveNothing { link } => Message::Plumtree(Plumtree::IHave { link, groups: Groups::new() }),
            Parcel::Graft { origin, eager, range } => Message::Plumtree(Plumtree::Graft { eager, groups: one(origin, range) }),
            Parcel::GraftNothing { eager } => Message::Plumtree(Plumtree::Graft { eager, groups: Groups::new() }),
            Parcel::Prune { shape } => Message::Plumtree(Plumtree::Prune { shape }),
            Parcel::Other(message) => *message,
        }
    }

    /// What of it goes into the digest: everything that differs between two messages.
    pub(super) fn tell(&self) -> u64 {
        let peers = |kind: u64, number: u32, len: u8, peers: &[u32]| {
            let peers = &peers[..usize::from(len)];
            peers.iter().fold(kind | u64::from(number) << 32, |told, peer| told.rotate_left(11).wrapping_add(u64::from(*peer)))
        };
        let range = |kind: u64, origin: u32, range: &Range| {
            (kind | u64::from(origin) << 32 | u64::from(range.hops) << 16).wrapping_add(range.first.rotate_left(24))
                ^ u64::from(range.more) << 8
        };
        match self {
            Parcel::Join { link } => peers(4, *link, 0, &[]),
            Parcel::ForwardJoin { joiner, ttl, missing } => peers(5 | u64::from(*ttl) << 8 | u64::from(*missing) << 16, *joiner, 0, &[]),
            Parcel::Neighbor { link, priority } => peers(6 | (*priority as u64) << 8, *link, 0, &[]),
            Parcel::NeighborReply { link, accepted, len, peers: list } => peers(7 | u64::from(*accepted) << 8, *link, *len, list),
            Parcel::Disconnect { link, reason, len, peers: list } => peers(8 | (*reason as u64) << 8, *link, *len, list),
            Parcel::Shuffle { origin, nonce, ttl, len, peers: list } => {
                peers(9 | u64::from(*ttl) << 8, *nonce, *len, list).wrapping_add(u64::from(*origin))
            }
            Parcel::ShuffleReply { nonce, len, peers: list } => peers(10, *nonce, *len, list),
            Parcel::Alive { link } => peers(11, *link, 0, &[]),
            Parcel::Probe { nonce } => peers(4 << 40, *nonce, 0, &[]),
            Parcel::ProbeReply { nonce, token } => peers(5 << 40, *nonce, 0, &[]).wrapping_add(u64::from(*token) << 32),
            Parcel::Swap { link, token, old, len, others } => {
                peers(6 << 40, *link, *len, others).wrapping_add(u64::from(*token)) ^ u64::from(*old).rotate_left(32)
            }
            Parcel::Gossip { origin, hops, push, sequence, .. } => {
                (12 | told(*push) << 8 | u64::from(*hops) << 16 | u64::from(*origin) << 32).wrapping_add(sequence.rotate_left(40))
            }
            Parcel::IHave { origin, link, range: list } => range(13 | (*link as u64) << 4, *origin, list),
            Parcel::IHaveNothing { link } => 14 | (*link as u64) << 4,
            Parcel::Graft { origin, eager, range: list } => range(15 | u64::from(*eager) << 4, *origin, list),
            Parcel::GraftNothing { eager } => 1 << 40 | u64::from(*eager),
            Parcel::Prune { shape } => 2 << 40 | u64::from(*shape),
            Parcel::Other(message) => tell_other(message),
        }
    }
}

/// The long messages, of which there are few.
fn tell_other(message: &Message) -> u64 {
    let groups = |groups: &[Group<u32>]| {
        let ranges = groups.iter().flat_map(|group| group.ranges.iter().map(|range| (group.stream.origin, range)));
        ranges.fold(0, |told: u64, (origin, range)| {
            let one = u64::from(origin) << 32 ^ range.first << 16 ^ u64::from(range.more) << 8 ^ u64::from(range.hops);
            told.rotate_left(11).wrapping_add(one)
        })
    };
    let mut told = 0_u64;
    match message {
        Message::Topology(message) => message.visit_peers(&mut |peer| told = told.rotate_left(11).wrapping_add(u64::from(peer))),
        Message::Plumtree(
            plumtree::Message::IHave { groups: list, .. }
            | plumtree::Message::Graft { groups: list, .. }
            | plumtree::Message::Gone { groups: list },
        ) => told = groups(list),
        Message::Plumtree(_) => {}
    }
    told ^ 3 << 40
}

fn pack<const N: usize>(peers: &[u32]) -> Option<(u8, [u32; N])> {
    let mut packed = [0; N];
    packed.get_mut(..peers.len())?.copy_from_slice(peers);
    Some((peers.len() as u8, packed))
}

fn unpack(len: u8, peers: &[u32]) -> Peers<u32> {
    Peers::first_of(peers[..usize::from(len)].iter().copied())
}

fn is_usual(stream: &Stream<u32>) -> bool {
    stream.incarnation == INCARNATION && stream.channel == CHANNEL
}

/// The range of a list that holds one.
fn only(groups: &[Group<u32>]) -> Option<(u32, Range)> {
    let [group] = groups else { return None };
    let [range] = group.ranges[..] else { return None };
    is_usual(&group.stream).then_some((group.stream.origin, range))
}

/// All broadcasts of a node.
fn stream(origin: u32) -> Stream<u32> {
    Stream { origin, incarnation: INCARNATION, channel: CHANNEL }
}

fn one(origin: u32, range: Range) -> Groups<u32> {
    let stream = stream(origin);
    Groups::one(Group { stream, ranges: Few::one(range) })
}

#[cfg(test)]
mod tests {
    use super::*;

    static ZEROS: [u8; 16] = [0; 16];

    fn survives(message: Message) -> bool {
        let before = format!("{message:?}");
        let parcel = match message {
            Message::Topology(message) => Parcel::topology(message),
            Message::Plumtree(message) => Parcel::plumtree(message),
        };
        let is_packed = !matches!(parcel, Parcel::Other(_));
        assert_eq!(format!("{:?}", parcel.open(&ZEROS)), before);
        is_packed
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        use hyparview::Message as Topology;
        use plumtree::Message as Plumtree;
        let peers = |len: u32| Peers::first_of(5..5 + len);
        for (len, is_packed) in [(0, true), (7, true), (8, false), (16, false)] {
            let message = Topology::Shuffle { origin: 1, nonce: 2, ttl: 3, peers: peers(len) };
            assert_eq!(survives(Message::Topology(topology::Message::Hyparview(message))), is_packed);
        }
        for message in [
            Topology::Join { link: u32::MAX },
            Topology::ForwardJoin { joiner: 1, ttl: 2, missing: 3 },
            Topology::Neighbor { link: 1, priority: Priority::Heal },
            Topology::NeighborReply { link: 1, accepted: true, peers: peers(8) },
            Topology::Disconnect { link: 1, reason: Farewell::Evicted, peers: peers(8) },
            Topology::ShuffleReply { nonce: 1, peers: peers(8) },
            Topology::Alive { link: 9 },
            Topology::Probe { nonce: 9 },
            Topology::ProbeReply { nonce: 9, token: 8 },
            Topology::Swap { link: 1, token: 2, old: 3, others: peers(6) },
        ] {
            assert!(survives(Message::Topology(topology::Message::Hyparview(message))));
        }
        let range = Range { first: u64::MAX - 3, more: 3, hops: 9 };
        let id = MessageId { origin: 3, incarnation: INCARNATION, channel: CHANNEL, sequence: u64::MAX };
        let payload = Bytes::from_static(&ZEROS);
        for message in [
            Plumtree::Gossip { id, hops: u16::MAX, push: Push::Late, payload: payload.clone() },
            Plumtree::IHave { link: LinkNews::OpenedUnheard, groups: one(7, range) },
            Plumtree::IHave { link: LinkNews::Opened, groups: Groups::new() },
            Plumtree::Graft { eager: true, groups: one(7, range) },
            Plumtree::Graft { eager: false, groups: Groups::new() },
            Plumtree::Prune { shape: 9 },
        ] {
            assert!(survives(Message::Plumtree(message)));
        }
        let group = one(1, range).into_vec().remove(0);
        let groups = || Groups::first_of([group.clone(), group.clone()]);
        for message in [
            Plumtree::IHave { link: LinkNews::Same, groups: groups() },
            Plumtree::Gone { groups: one(7, range) },
            Plumtree::Met { id },
            Plumtree::Gossip { id: MessageId { incarnation: 2, ..id }, hops: 1, push: Push::Eager, payload },
        ] {
            assert!(!survives(Message::Plumtree(message)));
        }
    }
}
