//! The pieces by themselves: bytes on the wire, what was seen, rates and waits, configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::random::generator;
use meshwork_channels::{ChannelId, DecodeError, PeerId, Time, decode, encode, limits};
use rand::RngExt;

use super::super::message::{GROUPS_MAX, Group, Groups, LIST_BYTES_MAX, LinkNews, Message, Packer, Push, RANGES_MAX, Range};
use super::super::neighbor::{Estimate, Quota};
use super::super::seen::{Bounds, Seen};
use super::super::{Config, Counters, MessageId, Stream};
use crate::few::Few;
use crate::tally::Tally;

fn peer(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn id(origin: u8, sequence: u64) -> MessageId<PeerId> {
    MessageId { origin: peer(origin), incarnation: 300, channel: ChannelId::EVENTS, sequence }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_have_these_bytes() {
    let key = "07".repeat(32);
    let list = Packer::pack([(id(7, 1), 0), (id(7, 2), 0), (id(7, 9), 5)]).pop().unwrap();
    // One group: the stream, two ranges of (first, how many follow, hops).
    let list_hex = format!("01{key}ac0204{}", "02010100090005");
    let golden = [
        (
            Message::Gossip { id: id(7, 1_000), hops: 3, push: Push::Eager, payload: Bytes::from_static(b"hi") },
            format!("00{key}ac0204e8070300026869"),
        ),
        (Message::Gossip { id: id(7, 1), hops: 300, push: Push::Answer, payload: Bytes::new() }, format!("00{key}ac020401ac020100")),
        (Message::Gossip { id: id(7, 1), hops: 1, push: Push::Late, payload: Bytes::new() }, format!("00{key}ac020401010200")),
        (
            Message::Gossip { id: id(7, 1), hops: 1, push: Push::Trim { shape: 300, from_root: true }, payload: Bytes::new() },
            format!("00{key}ac0204010106ac020100"),
        ),
        (Message::IHave { link: LinkNews::Same, groups: list.clone() }, format!("0100{list_hex}")),
        (Message::IHave { link: LinkNews::Opened, groups: Groups::new() }, "010100".to_owned()),
        (Message::IHave { link: LinkNews::OpenedUnheard, groups: Groups::new() }, "010200".to_owned()),
        (Message::Graft { eager: true, groups: list.clone() }, format!("0201{list_hex}")),
        (Message::Prune { shape: 300 }, "03ac02".to_owned()),
        (Message::Gone { groups: list }, format!("04{list_hex}")),
    ];
    for (message, bytes) in golden {
        let encoded = encode(&message);
        assert_eq!(hex(&encoded), bytes, "{message:?}");
        assert_eq!(decode::<Message<PeerId>>(&encoded), Ok(message));
    }
}

#[test]
fn only_payloads_have_a_channel() {
    let payload = Message::Gossip { id: id(7, 1), hops: 1, push: Push::Eager, payload: Bytes::new() };
    assert_eq!(payload.channel(), Some(ChannelId::EVENTS));
    assert_eq!(Message::<PeerId>::Prune { shape: 0 }.channel(), None);
    assert_eq!(Message::<PeerId>::Gone { groups: Groups::new() }.channel(), None);
}

#[test]
fn no_frame_costs_more_than_four_of_its_kind() {
    // As many of the smallest ranges as 64 KiB can name: refused at the first list above its bound.
    let stream = Stream { origin: 0_u32, incarnation: 0, channel: ChannelId(0) };
    let mut bomb = vec![4, 255, 1];
    while bomb.len() + 3 * 127 < limits::CONTROL_BYTES_MAX {
        bomb.extend([0, 0, 0, 127]);
        bomb.extend([0; 3 * 127]);
    }
    assert_eq!(decode::<Message<u32>>(&bomb), Err(DecodeError::TooLong));
    // The most that is accepted, in memory, where lists grow to the next power of two.
    let ranges: Few<Range, RANGES_MAX> = Few::first_of(vec![Range { first: 0, more: 0, hops: 0 }; RANGES_MAX]);
    let groups: Groups<u32> = Groups::first_of(vec![Group { stream, ranges }; GROUPS_MAX]);
    let most = encode(&Message::Gone { groups });
    assert!(most.len() < limits::CONTROL_BYTES_MAX);
    let Ok(Message::Gone { groups }) = decode::<Message<u32>>(&most) else { panic!("the most that is accepted") };
    let memory = groups.into_iter().map(|group| size_of::<Group<PeerId>>() + group.ranges.into_vec().capacity() * size_of::<Range>());
    assert!(memory.sum::<usize>() <= 4 * limits::CONTROL_BYTES_MAX);
    // Lengths that are claimed and not there.
    for claimed in [&[4_u8, 128, 1][..], &[1, 0, 1, 0, 0, 0, 64], &[0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 127]] {
        assert!(decode::<Message<u32>>(claimed).is_err());
    }
}

#[test]
fn cut_and_changed_frames_decode_to_something_or_to_an_error() {
    let list =
        Packer::pack((1..200).map(|sequence| (id((sequence % 7) as u8, sequence * 3), 2)).collect::<std::collections::BTreeMap<_, _>>());
    let mut chance = generator(1, "frames", 0);
    let bytes = encode(&Message::IHave { link: LinkNews::Same, groups: list[0].clone() });
    for len in 0..bytes.len() {
        assert!(decode::<Message<PeerId>>(&bytes[..len]).is_err());
    }
    for _ in 0..2_000 {
        let mut changed = bytes.to_vec();
        let at = chance.random_range(0..changed.len());
        changed[at] = chance.random_range(0..=255);
        let _ = decode::<Message<PeerId>>(&changed);
    }
}

#[test]
fn any_number_of_identities_fits_into_frames() {
    let mut chance = generator(2, "packer", 0);
    for round in 0..20_u64 {
        let ids: BTreeSet<MessageId<PeerId>> = (0..4_000)
            .map(|_| MessageId {
                origin: peer(chance.random_range(0..=(10 * round) as u8)),
                incarnation: [1, u64::MAX][chance.random_range(0..2)],
                channel: ChannelId(chance.random_range(0..3) * 20_000),
                sequence: chance.random_range(1..1 + (1_u64 << (8 + round))),
            })
            .collect();
        let mut again = BTreeSet::new();
        for groups in Packer::pack(ids.iter().map(|id| (*id, 0))) {
            let frame = encode(&Message::IHave { link: LinkNews::Same, groups: groups.clone() });
            assert!(frame.len() <= LIST_BYTES_MAX + 64, "{}", frame.len());
            for group in &groups {
                for range in &group.ranges {
                    again.extend((range.first..=range.last()).map(|sequence| group.stream.message(sequence)));
                }
            }
        }
        assert_eq!(again, ids);
    }
}

#[test]
fn a_long_run_costs_a_few_bytes() {
    let lists = Packer::pack((1..=100_000).map(|sequence| (id(7, sequence), 3)));
    assert_eq!(lists.len(), 1);
    assert!(encode(&Message::IHave { link: LinkNews::Same, groups: lists[0].clone() }).len() < 60);
    let last = Packer::pack([(id(7, u64::MAX - 1), 0), (id(7, u64::MAX), 0)]);
    assert_eq!(last[0][0].ranges[0].last(), u64::MAX);
    // At one identity in a batch of ten from one origin: within the twelve bytes of the control budget.
    let batch = Packer::pack((1..=10).map(|sequence| (id(7, sequence), 3)));
    assert!(encode(&Message::IHave { link: LinkNews::Same, groups: batch[0].clone() }).len() <= 12 * 10);
}

const BOUNDS: Bounds =
    Bounds { streams_max: 100, stream_ranges_max: 1_000, ranges_max: 10_000, ahead_max: 1 << 20, idle: Duration::from_secs(90) };

#[test]
fn what_was_seen_agrees_with_a_set() {
    let mut chance = generator(3, "seen", 0);
    let (mut seen, mut model, mut counters) = (Seen::new(), BTreeSet::new(), Tally::new());
    for _ in 0..5_000 {
        let id = MessageId { origin: chance.random_range(0..3_u32), ..super::by_hand::id(0, chance.random_range(1..400)) };
        assert_eq!(seen.contains(&id), !model.insert(id));
        assert_eq!(seen.insert(&id, Time::ZERO, &BOUNDS, &mut counters), None);
        assert!(seen.contains(&id));
        let first = chance.random_range(1..400);
        let last = first + chance.random_range(0..100);
        let mut unseen = Vec::new();
        let mut next = first;
        while let Some((first, last)) = seen.next_unseen(&id.stream(), next, last) {
            unseen.extend(first..=last);
            next = last + 1;
        }
        let expected: Vec<u64> = (first..=last).filter(|sequence| !model.contains(&id.stream().message(*sequence))).collect();
        assert_eq!(unseen, expected);
    }
    assert_eq!(seen.streams_len(), 3);
    assert_eq!(
        seen.ranges_len(),
        3 + model.iter().filter(|id| id.sequence > 1 && !model.contains(&id.stream().message(id.sequence - 1))).count()
            - (0..3).filter(|origin| !model.contains(&super::by_hand::id(*origin, 1))).count()
    );
    assert_eq!(counters.read(), Some(&Counters::default()));
}

#[test]
fn the_ends_of_the_numbers_are_no_trap() {
    let (mut seen, mut counters) = (Seen::new(), Tally::new());
    for sequence in [u64::MAX, u64::MAX - 1, 1, 3, 2] {
        assert_eq!(seen.insert(&super::by_hand::id(9, sequence), Time::ZERO, &BOUNDS, &mut counters), None);
    }
    let stream = super::by_hand::id(9, 1).stream();
    assert_eq!(seen.next_unseen(&stream, 1, u64::MAX), Some((4, u64::MAX - 2)));
    assert_eq!(seen.next_unseen(&stream, u64::MAX, u64::MAX), None);
    assert_eq!(seen.next_unseen(&stream, 2, 1), None);
    assert_eq!(seen.ranges_len(), 2);
}

#[test]
fn a_quota_allows_its_burst_and_then_its_rate() {
    let mut quota = Quota::default();
    let now = Time::from_secs(5);
    assert_eq!(quota.available(now, 10, 3), 3);
    quota.take(3, now, 10);
    assert_eq!(quota.available(now, 10, 3), 0);
    assert_eq!(quota.available_at(2, 10, 3), now + Duration::from_millis(200));
    assert_eq!(quota.available(now + Duration::from_millis(200), 10, 3), 2);
    assert_eq!(quota.available(now + Duration::from_secs(100), 10, 3), 3);
    quota.take(u64::MAX, now, 10);
    assert_eq!(quota.available(Time::from_secs(1_000), 10, 3), 0);
}

#[test]
fn an_estimate_covers_its_samples_within_its_limits() {
    let mut estimate = Estimate::default();
    let millis = Duration::from_millis;
    assert_eq!(estimate.bound(millis(200), millis(1), millis(1_000)), millis(200), "unknown");
    estimate.sample(millis(100));
    assert_eq!(estimate.bound(millis(200), millis(1), millis(1_000)), millis(300));
    for _ in 0..100 {
        estimate.sample(millis(100));
    }
    assert_eq!(estimate.bound(millis(200), millis(150), millis(1_000)), millis(150));
    estimate.sample(Duration::MAX);
    assert_eq!(estimate.bound(millis(200), millis(1), millis(1_000)), millis(1_000));
}

#[test]
fn bad_values_are_refused_by_name() {
    let refused = |config: Config| config.build().unwrap_err().field;
    assert_eq!(refused(Config { payload_len_max: 0, ..Config::default() }), "payload_len_max");
    assert_eq!(refused(Config { payload_len_max: limits::BROADCAST_BYTES_MAX + 1, ..Config::default() }), "payload_len_max");
    assert_eq!(refused(Config { payload_retention: Duration::MAX, ..Config::default() }), "payload_retention");
    assert_eq!(refused(Config { announce_delay_min: Duration::from_secs(1), ..Config::default() }), "announce_delay_min");
    assert_eq!(refused(Config { graft_wait: Duration::ZERO, ..Config::default() }), "graft_wait");
    assert_eq!(refused(Config { summary_period: Duration::ZERO, ..Config::default() }), "summary_period");
    assert_eq!(refused(Config { asked_max: 0, ..Config::default() }), "asked_max");
    assert_eq!(refused(Config { graft_burst: 1, ..Config::default() }), "graft_burst");
    assert_eq!(refused(Config { optimization_threshold: Some(0), ..Config::default() }), "optimization_threshold");
    for preset in [Config::lan(), Config::wan(), Config::local()] {
        preset.build().unwrap();
    }
}
