//! A neighbor that sends what no honest node sends. Nothing may panic, take long, or grow past its bound.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::limits::BROADCAST_BYTES_MAX;
use meshwork_channels::random::generator;
use meshwork_channels::{ChannelId, Misbehavior};
use rand::RngExt;

use super::super::message::{Group, Groups, LinkNews, Message, Push, Range};
use super::super::{Action, Config, Input, MessageId, Stream};
use super::by_hand::{ME, Node, fresh, gone, gossip, graft, held, id, prune, quiet, send};
use crate::few::Few;

const BAD: u32 = 66;

fn blamed(what: Misbehavior) -> Action<u32> {
    Action::Misbehaved { peer: BAD, what }
}

/// The widest list that decodes: every group of every stream claims as much as it can.
fn widest(incarnation: impl Fn(u64) -> u64, first: impl Fn(u64) -> u64) -> Groups<u32> {
    Groups::first_of((0..128).map(|group| Group {
        stream: Stream { origin: 9, incarnation: incarnation(group), channel: ChannelId::EVENTS },
        ranges: Few::first_of((0..64).map(|range| Range { first: first(group * 64 + range), more: u16::MAX, hops: 1 })),
    }))
}

#[test]
fn numbers_that_nobody_can_have_reached_are_refused() {
    let mut node = Node::new(quiet(), [2, BAD]);
    assert_eq!(node.receive(BAD, gossip(id(9, 0), 1, Push::Eager)), [blamed(Misbehavior::SequenceAhead)]);
    node.receive(2, gossip(id(9, 1_000), 1, Push::Eager));
    let ahead = id(9, 1_001 + (1 << 20));
    assert_eq!(node.receive(BAD, gossip(ahead, 1, Push::Eager)), [blamed(Misbehavior::SequenceAhead)]);
    assert_eq!(node.receive(BAD, fresh(ahead, 1)), [blamed(Misbehavior::SequenceAhead)]);
    assert_eq!(node.receive(BAD, fresh(id(9, u64::MAX), 1)), [blamed(Misbehavior::SequenceAhead)]);
    assert_eq!(node.state.counters().sequences_refused, 4);
    // A stream that stood still for the retention may have gone anywhere while we were cut off.
    node.wait(Duration::from_secs(91));
    assert_eq!(node.receive(2, gossip(ahead, 1, Push::Eager)).len(), 2);
    // A stream that was never seen may start anywhere, and goes on from there.
    assert_eq!(node.receive(2, gossip(id(8, u64::MAX), u16::MAX, Push::Eager)).len(), 2);
    assert_eq!(node.receive(2, gossip(id(8, 1), 1, Push::Eager)).len(), 2);
}

#[test]
fn nobody_else_numbers_our_messages() {
    let mut node = Node::new(quiet(), [BAD]);
    node.broadcast();
    assert_eq!(node.receive(BAD, gossip(id(ME, 2), 1, Push::Eager)), [blamed(Misbehavior::OwnName)]);
    assert_eq!(node.receive(BAD, fresh(id(ME, 2), 1)), [blamed(Misbehavior::OwnName)]);
    assert_eq!(node.receive(BAD, fresh(id(ME, 0), 1)), [blamed(Misbehavior::OwnName)]);
    assert_eq!(node.receive(BAD, fresh(id(ME, 1), 1)), []);
    assert_eq!(node.broadcast().0, id(ME, 2));
}

#[test]
fn a_payload_above_the_limit_is_refused() {
    let mut node = Node::new(quiet(), [2, BAD]);
    let payload = Bytes::from(vec![0; BROADCAST_BYTES_MAX + 1]);
    let message = Message::Gossip { id: id(9, 1), hops: 1, push: Push::Eager, payload };
    assert_eq!(node.receive(BAD, message), [blamed(Misbehavior::TooMany)]);
}

#[test]
fn a_flood_of_announcements_that_nobody_keeps_stays_within_bounds() {
    let config = Config { missing_per_neighbor_max: 1_000, missing_max: 1_500, ..quiet() };
    let mut node = Node::new(config, [2, 3, BAD]);
    for round in 0..12 {
        node.receive(BAD, Message::IHave { link: LinkNews::Same, groups: widest(|group| round * 128 + group, |range| range << 20 | 1) });
        assert!(node.state.missing_len() <= 1_000);
        // The same identities again and again.
        node.receive(BAD, Message::IHave { link: LinkNews::Same, groups: widest(|_| 7, |_| 5) });
    }
    node.receive(3, held((1..=1_000).map(|sequence| id(8, sequence))));
    assert_eq!(node.state.missing_len(), 1_500);
    assert!(node.state.counters().announcements_dropped >= 12);
    // An honest neighbor is still served: what it pushes does not need the table.
    assert!(node.receive(2, gossip(id(7, 1), 1, Push::Eager)).len() > 1);
    // And in the end nothing is left of it.
    node.handle(Input::NeighborDown(3));
    node.wait(Duration::from_secs(3_000));
    assert_eq!(node.state.missing_len(), 0);
}

#[test]
fn a_flood_of_streams_and_gaps_stays_within_bounds() {
    let config = Config { streams_max: 100, stream_ranges_max: 10, ranges_max: 50, ..quiet() };
    let mut node = Node::new(config, [2, BAD]);
    for round in 0..300 {
        let forged = MessageId { incarnation: round << 40, ..id(9, round << 30 | 1) };
        node.receive(BAD, gossip(forged, 1, Push::Eager));
        node.receive(BAD, gossip(id(8, 2 * round + 1), 1, Push::Eager));
    }
    assert_eq!(node.state.counters().delivered, 600);
    assert_eq!(node.state.counters().streams_evicted, 201);
    assert!(node.state.counters().gaps_closed >= 290);
    // A closed gap is lost; what lies above it is not.
    assert_eq!(node.receive(2, gossip(id(8, 2), 1, Push::Late)).len(), 0);
    assert_eq!(node.receive(2, gossip(id(8, 600), 1, Push::Eager)).len(), 2);
}

#[test]
fn a_stream_that_was_forgotten_is_not_repeated_while_its_payloads_are_held() {
    let mut node = Node::new(Config { streams_max: 1, ..quiet() }, [2, 3]);
    node.receive(2, gossip(id(8, 1), 1, Push::Eager));
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    assert_eq!(node.state.counters().streams_evicted, 1);
    assert_eq!(node.receive(3, gossip(id(8, 1), 1, Push::Answer)), []);
    assert_eq!(node.receive(3, held([id(8, 1)])), []);
    assert_eq!(node.state.missing_len(), 0);
}

#[test]
fn requests_above_the_limit_are_refused() {
    let mut node = Node::new(quiet(), [BAD]);
    let (own, _) = node.broadcast();
    let mut served = 0;
    let mut refused = 0;
    for _ in 0..3_000 {
        for action in node.receive(BAD, graft(false, [own])) {
            match action {
                Action::Send { to: BAD, message: Message::Gossip { .. } } => served += 1,
                Action::Misbehaved { peer: BAD, what: Misbehavior::TooManyRequests } => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((served, refused), (2_048, 952));
    assert_eq!(node.receive(BAD, Message::Graft { eager: true, groups: widest(|_| 1, |_| 1) }), [blamed(Misbehavior::TooManyRequests)]);
    // One frame can ask for half a billion; the answers are those that the limit allows.
    node.wait(Duration::from_secs(1));
    let actions = node.receive(BAD, Message::Graft { eager: true, groups: widest(|_| 1, |range| u64::MAX - range) });
    assert!(actions.len() < 70, "{}", actions.len());
    assert_eq!(actions.last(), Some(&blamed(Misbehavior::TooManyRequests)));
    // Peers that are no neighbors share one limit.
    let mut served = 0;
    for stranger in 100..3_100 {
        let actions = node.receive(stranger, graft(false, [own]));
        served += usize::from(matches!(actions[..], [Action::Send { .. }]));
    }
    assert_eq!(served, 2_048);
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut node = Node::new(quiet(), [2, BAD]);
    node.receive(2, held([id(9, 1)]));
    node.wait(Duration::from_millis(200));
    assert_eq!(node.receive(BAD, gone([id(9, 1)])), []);
    assert_eq!(node.receive(BAD, Message::Gone { groups: widest(|_| 1, |_| 0) }), []);
    assert_eq!(node.state.missing_len(), 1);
    assert_eq!(node.receive(77, prune()), []);
    assert_eq!(node.receive(77, gone([id(9, 1)])), []);
    assert_eq!(node.receive(77, fresh(id(9, 2), 1)), []);
    for stranger in 100..1_000 {
        node.receive(stranger, held([id(9, 2)]));
    }
    assert_eq!(node.state.missing_len(), 1);
    assert_eq!(node.receive(2, gossip(id(9, 1), 1, Push::Answer)).len(), 2);
}

#[test]
fn a_node_is_not_its_own_neighbor() {
    let mut node = Node::new(quiet(), []);
    assert_eq!(node.up(ME), []);
    assert_eq!(node.state.neighbors().count(), 0);
}

#[test]
fn repeated_news_of_a_link_do_not_repeat_the_backlog() {
    let mut node = Node::new(quiet(), [BAD]);
    let (own, _) = node.broadcast();
    node.wait(Duration::from_secs(2));
    let news = |link| Message::IHave { link, groups: Groups::new() };
    assert_eq!(node.receive(BAD, news(LinkNews::Opened)), [send(BAD, held([own]))]);
    for _ in 0..10 {
        assert_eq!(node.receive(BAD, news(LinkNews::Opened)), []);
        assert_eq!(node.receive(BAD, news(LinkNews::OpenedUnheard)), []);
    }
}

#[test]
fn anything_in_any_order_leaves_the_core_sound() {
    // The invariants run after every input.
    for seed in 0..20 {
        let mut chance = generator(seed, "hostile", 0);
        let config = Config {
            asked_max: 3,
            missing_max: 12,
            missing_per_neighbor_max: 8,
            announcers_max: 2,
            payloads_max: 6,
            streams_max: 3,
            stream_ranges_max: 3,
            ranges_max: 6,
            graft_burst: 8,
            grafts_per_second: 10,
            attempts_max: 3,
            optimization_threshold: Some(1),
            payload_retention: Duration::from_secs(3),
            ..Config::default()
        };
        let mut node = Node::new(config, []);
        for _ in 0..3_000 {
            let peer = chance.random_range(1..7);
            let mut list = || {
                let first = [0, 1, 2, 3, 5, 9, 1 << 21, u64::MAX][chance.random_range(0..8)];
                let range = Range { first, more: chance.random_range(0..4), hops: chance.random_range(0..4) };
                let stream = Stream { origin: chance.random_range(1..4), incarnation: 1, channel: ChannelId(chance.random_range(0..2)) };
                let ranges = Few::first_of([range, Range { first: first.saturating_add(2), ..range }]);
                Groups::first_of([Group { stream, ranges }])
            };
            let (groups, single) = (list(), list());
            let id = single[0].stream.message(single[0].ranges[0].first);
            let link = [LinkNews::Same, LinkNews::Opened, LinkNews::OpenedUnheard][chance.random_range(0..3)];
            let push = [Push::Eager, Push::Answer, Push::Late][chance.random_range(0..3)];
            let hops = single[0].ranges[0].hops;
            let input = match chance.random_range(0..12) {
                0 => Input::NeighborUp(peer),
                1 => Input::NeighborDown(peer),
                2..=4 => Input::Received { from: peer, message: Message::IHave { link, groups } },
                5 => Input::Received { from: peer, message: Message::Graft { eager: hops > 1, groups } },
                6 => Input::Received { from: peer, message: Message::Gone { groups } },
                7 => Input::Received { from: peer, message: prune() },
                8 => {
                    node.wait(Duration::from_millis(chance.random_range(0..600)));
                    Input::DeadlineReached
                }
                9 => {
                    node.broadcast();
                    Input::DeadlineReached
                }
                _ => Input::Received { from: peer, message: gossip_of(id, hops, push) },
            };
            node.handle(input);
        }
        for peer in 1..7 {
            node.handle(Input::NeighborDown(peer));
        }
        assert_eq!(node.state.missing_len(), 0);
        node.wait(Duration::from_secs(10));
        assert_eq!((node.state.payloads_len(), node.state.payload_bytes()), (0, 0));
        assert_eq!(node.state.next_deadline(), None);
    }
}

fn gossip_of(id: MessageId<u32>, hops: u16, push: Push) -> Message<u32> {
    Message::Gossip { id, hops, push, payload: Bytes::from_static(b"any") }
}
