use std::collections::{BTreeMap, VecDeque};

use rand::RngExt;

use super::*;
use crate::channel::{Path, Reliability};
use crate::frame;
use crate::limits;
use crate::metrics::{self, ChannelMetrics, Volume};
use crate::random;

const T0: Time = Time::from_secs(1);

fn state() -> State {
    State::new(Params::default())
}

fn frame_of(len: usize) -> Bytes {
    Bytes::from(vec![0; len])
}

fn push(state: &mut State, channel: ChannelId, len: usize) -> Result<(), Reason> {
    state.push(channel, frame_of(len), T0).map_err(|refused| {
        assert_eq!(refused.frame.len(), len, "the frame is given back");
        refused.reason
    })
}

fn any(_: ChannelId, _: u8) -> bool {
    true
}

/// One frame.
fn pop(state: &mut State, ready: impl Fn(ChannelId, u8) -> bool) -> Option<(ChannelId, Bytes)> {
    let popped = state.pop(0, ready)?;
    assert_eq!(popped.frames, 1);
    Some((popped.channel, popped.bytes))
}

fn pop_all(state: &mut State) -> Vec<ChannelId> {
    std::iter::from_fn(|| pop(state, any).map(|(channel, _)| channel)).collect()
}

#[test]
fn the_built_in_table_is_what_the_docs_say() {
    let params = Params::default();
    assert_eq!(params.channels().iter().map(|channel| channel.id).collect::<Vec<_>>(), ChannelId::BUILT_IN);
    assert_eq!(params.channels().iter().map(|channel| channel.queued_bytes_max).sum::<usize>(), Params::PEER_BYTES_MAX);
    let data = params.channel(ChannelId::DATA).unwrap();
    assert_eq!((data.class, data.queued_frames_max, data.overflow), (Class::Medium, 10_000, Overflow::Refuse));
    assert_eq!(params.channel(ChannelId::CONTROL).unwrap().overflow, Overflow::Disconnect);
    assert_eq!(params.channel(ChannelId(9)), None);
}

#[test]
fn a_bad_table_is_refused_by_name() {
    let field = |channels: Vec<ChannelSpec>, bytes| Params::new(channels, bytes).map(|_| ()).map_err(|error| error.field);
    let table = || ChannelSpec::built_in().to_vec();
    let total = Params::PEER_BYTES_MAX;
    assert_eq!(field(table(), total), Ok(()));
    assert_eq!(field(vec![], total), Ok(()));
    assert_eq!(field(table(), 5 * 1_024 * 1_024), Err("peer_bytes_max"));
    assert_eq!(field((0..1_025).map(|id| ChannelSpec { id: ChannelId(id), ..table()[1].clone() }).collect(), total), Err("channels"));
    let with = |change: fn(&mut ChannelSpec)| {
        let mut table = table();
        change(&mut table[2]);
        field(table, total)
    };
    assert_eq!(with(|spec| spec.id = ChannelId::EVENTS), Err("channels.id"));
    assert_eq!(with(|spec| spec.name = "events".into()), Err("channels.name"));
    assert_eq!(with(|spec| spec.name = "".into()), Err("channels.name"));
    assert_eq!(with(|spec| spec.queued_frames_max = 0), Err("channels.queued_frames_max"));
    assert_eq!(with(|spec| spec.queued_bytes_max = limits::FRAME_BYTES_MAX), Err("channels.queued_bytes_max"));
    assert_eq!(with(|spec| spec.queued_bytes_max = usize::MAX), Ok(()));
    assert_eq!(with(|spec| (spec.class, spec.queued_bytes_max) = (Class::Control, usize::MAX)), Err("peer_bytes_max"));
    assert_eq!(field(vec![ChannelSpec { name: "".into(), ..table()[0].clone() }], total), Err("channels.name"));
    let error = Params::new(table(), 7).unwrap_err().to_string();
    assert!(error.starts_with("peer_bytes_max is 7; it must be at least 5308424: "), "{error}");
}

#[test]
fn higher_classes_go_first_and_a_channel_keeps_its_order() {
    let mut state = state();
    for channel in [ChannelId::GOSSIP, ChannelId::DATA, ChannelId::COORDINATION, ChannelId::CONTROL] {
        for number in 0..2 {
            state.push(channel, Bytes::from(vec![number]), T0).unwrap();
        }
    }
    let order: Vec<_> = std::iter::from_fn(|| pop(&mut state, any)).map(|(channel, frame)| (channel, frame[0])).collect();
    let expected = [ChannelId::CONTROL, ChannelId::COORDINATION, ChannelId::DATA, ChannelId::GOSSIP];
    assert_eq!(order, expected.into_iter().flat_map(|channel| [(channel, 0), (channel, 1)]).collect::<Vec<_>>());
    assert!(state.is_empty());
}

#[test]
fn a_stream_that_is_not_ready_is_passed_over() {
    let mut state = state();
    push(&mut state, ChannelId::CONTROL, 10).unwrap();
    push(&mut state, ChannelId::GOSSIP, 10).unwrap();
    assert_eq!(pop(&mut state, |channel, _| channel != ChannelId::CONTROL).unwrap().0, ChannelId::GOSSIP);
    assert_eq!(pop(&mut state, |channel, _| channel != ChannelId::CONTROL), None);
    assert_eq!(pop(&mut state, any).unwrap().0, ChannelId::CONTROL);
}

#[test]
fn channels_of_one_class_take_turns() {
    let mut state = state();
    for channel in [ChannelId::DATA, ChannelId::DATA, ChannelId::DATA, ChannelId::EVENTS, ChannelId::EVENTS, ChannelId::EVENTS] {
        push(&mut state, channel, 100).unwrap();
    }
    let (data, events) = (ChannelId::DATA, ChannelId::EVENTS);
    assert_eq!(pop_all(&mut state), [data, events, data, events, data, events]);
}

#[test]
fn channels_of_one_class_share_bytes_not_frames() {
    let mut state = state();
    for _ in 0..3 {
        push(&mut state, ChannelId::DATA, 1_000).unwrap();
    }
    for _ in 0..30 {
        push(&mut state, ChannelId::EVENTS, 100).unwrap();
    }
    let order = pop_all(&mut state);
    for (index, window) in order.windows(11).enumerate() {
        let bulky = window.iter().filter(|channel| **channel == ChannelId::DATA).count();
        assert!(bulky <= 2, "{bulky} large frames in 11 from {index}");
    }
    assert_eq!(order[..12].iter().filter(|channel| **channel == ChannelId::DATA).count(), 2);
}

#[test]
fn silence_earns_nothing() {
    // Events were quiet, or blocked, while data sent a lot. Afterwards they share; events do not catch up.
    for blocked in [false, true] {
        let mut state = state();
        if blocked {
            (0..100).for_each(|_| push(&mut state, ChannelId::EVENTS, 100).unwrap());
        }
        (0..1_100).for_each(|_| push(&mut state, ChannelId::DATA, 100).unwrap());
        for _ in 0..1_000 {
            assert_eq!(pop(&mut state, |channel, _| channel == ChannelId::DATA).unwrap().0, ChannelId::DATA);
        }
        if !blocked {
            (0..100).for_each(|_| push(&mut state, ChannelId::EVENTS, 100).unwrap());
        }
        let first: Vec<_> = (0..20).map(|_| pop(&mut state, any).unwrap().0).collect();
        let events = first.iter().filter(|channel| **channel == ChannelId::EVENTS).count();
        assert!((9..=11).contains(&events), "blocked {blocked}: {events} of 20");
    }
}

/// Keeps channels full and counts the bytes that each gets of the first `pops` frames.
fn saturate(lens: &[(ChannelId, usize)], pops: usize) -> BTreeMap<ChannelId, usize> {
    let mut state = state();
    let mut got = BTreeMap::new();
    for _ in 0..pops {
        for (channel, len) in lens {
            while state.queued(*channel).frames < 2 {
                push(&mut state, *channel, *len).unwrap();
            }
        }
        let (channel, frame) = pop(&mut state, any).unwrap();
        *got.entry(channel).or_insert(0) += frame.len();
    }
    got
}

#[test]
fn the_floor_gives_a_64th_of_the_bytes_whatever_the_sizes() {
    for (high, low) in [(100, 100), (60_000, 100), (100, 60_000), (1_000_000, 64), (1, 1)] {
        let got = saturate(&[(ChannelId::COORDINATION, high), (ChannelId::GOSSIP, low)], 200_000.min(2_000_000_000 / high));
        let (high_got, low_got) = (got[&ChannelId::COORDINATION], *got.get(&ChannelId::GOSSIP).unwrap_or(&0));
        let share = low_got as f64 / (high_got + low_got) as f64;
        assert!((share - 1.0 / 64.0).abs() < 0.003, "{high} over {low}: share {share}");
    }
}

#[test]
fn the_floor_holds_for_every_lower_class_at_once() {
    let got =
        saturate(&[(ChannelId::CONTROL, 500), (ChannelId::COORDINATION, 500), (ChannelId::DATA, 500), (ChannelId::GOSSIP, 500)], 100_000);
    let total: usize = got.values().sum();
    for channel in [ChannelId::COORDINATION, ChannelId::DATA, ChannelId::GOSSIP] {
        let share = got[&channel] as f64 / total as f64;
        assert!((0.015..0.017).contains(&share), "{channel}: {share}");
    }
    assert!(got[&ChannelId::CONTROL] as f64 > 0.95 * total as f64);
}

#[test]
fn nothing_is_owed_after_an_idle_moment() {
    let mut state = state();
    push(&mut state, ChannelId::GOSSIP, 1_000).unwrap();
    for _ in 0..600 {
        push(&mut state, ChannelId::COORDINATION, 100).unwrap();
    }
    assert_eq!(pop_all(&mut state).last(), Some(&ChannelId::GOSSIP));
    push(&mut state, ChannelId::GOSSIP, 1).unwrap();
    push(&mut state, ChannelId::COORDINATION, 1).unwrap();
    assert_eq!(pop_all(&mut state), [ChannelId::COORDINATION, ChannelId::GOSSIP]);
}

#[test]
fn a_full_channel_refuses_and_leaves_the_others_alone() {
    let mut state = state();
    for _ in 0..1_000 {
        push(&mut state, ChannelId::COORDINATION, 10).unwrap();
    }
    assert_eq!(push(&mut state, ChannelId::COORDINATION, 10), Err(Reason::ChannelFull));
    for _ in 0..3 {
        push(&mut state, ChannelId::DATA, 1_024 * 1_024).unwrap();
    }
    assert_eq!(push(&mut state, ChannelId::DATA, 1), Err(Reason::ChannelFull));
    push(&mut state, ChannelId::GOSSIP, 10).unwrap();
    assert_eq!(push(&mut state, ChannelId(77), 10), Err(Reason::UnknownChannel));
    let counters: BTreeMap<_, _> = state.counters().collect();
    assert_eq!((counters[&ChannelId::DATA].frames, counters[&ChannelId::DATA].refused), (3, 1));
    assert_eq!(counters[&ChannelId::DATA].high, Queued { frames: 3, bytes: 3 * 1_024 * 1_024 });
    assert_eq!(counters[&ChannelId::COORDINATION].refused, 1);
    let refused = state.push(ChannelId::COORDINATION, frame_of(3), T0).unwrap_err();
    assert_eq!(format!("{refused:?}: {refused}"), "Refused(ChannelFull, Refuse, 3 bytes): the channel's queue to the peer is full");
}

#[test]
fn other_classes_cannot_take_what_control_reserves() {
    const MIB: usize = 1_024 * 1_024;
    let mut table = ChannelSpec::built_in();
    table.iter_mut().filter(|channel| channel.class != Class::Control).for_each(|channel| channel.queued_bytes_max = 100 * MIB);
    let mut state = State::new(Params::new(table, 6 * MIB).unwrap());
    push(&mut state, ChannelId::DATA, MIB).unwrap();
    push(&mut state, ChannelId::EVENTS, MIB).unwrap();
    assert_eq!(push(&mut state, ChannelId::GOSSIP, 1), Err(Reason::PeerFull));
    for _ in 0..4 {
        push(&mut state, ChannelId::CONTROL, MIB).unwrap();
    }
    assert_eq!(push(&mut state, ChannelId::CONTROL, 1), Err(Reason::ChannelFull));
    assert_eq!(state.total(), Queued { frames: 6, bytes: 6 * MIB });
    assert_eq!(pop(&mut state, |channel, _| channel == ChannelId::DATA).unwrap().0, ChannelId::DATA);
    push(&mut state, ChannelId::GOSSIP, MIB).unwrap();
}

#[test]
fn a_stall_is_the_time_without_progress() {
    let mut state = state();
    assert_eq!(state.stalled_since(), None);
    let at = Time::from_secs;
    state.push(ChannelId::DATA, frame_of(10), at(1)).unwrap();
    state.push(ChannelId::DATA, frame_of(10), at(2)).unwrap();
    assert_eq!(state.stalled_since(), Some(at(1)));
    let (channel, frame) = pop(&mut state, any).unwrap();
    assert_eq!(state.stalled_since(), Some(at(1)), "a frame in the driver's hands is no progress");
    state.sent(channel, 0, frame.len(), at(5));
    assert_eq!(state.stalled_since(), Some(at(5)));
    state.sent(channel, 0, 0, at(3));
    assert_eq!(state.stalled_since(), Some(at(5)), "time does not run backwards");
    pop(&mut state, any).unwrap();
    assert_eq!(state.stalled_since(), None);
    state.sent(channel, 0, 10, at(6));
    assert_eq!(state.stalled_since(), None);
    state.push(ChannelId::DATA, frame_of(10), at(9)).unwrap();
    assert_eq!(state.stalled_since(), Some(at(9)));
    assert_eq!(state.counters().find(|(id, _)| *id == ChannelId::DATA).unwrap().1.sent_bytes, 20);
    state.sent(ChannelId(500), 0, 10, at(10));
}

#[test]
fn random_use_loses_and_invents_nothing() {
    for seed in 0..20 {
        let mut rng = random::generator(seed, "sender", 0);
        let table = (0..rng.random_range(0..12_u16)).map(|id| ChannelSpec {
            id: ChannelId(id * 7),
            name: format!("channel-{id}").into(),
            class: Class::ALL[rng.random_range(0..4)],
            path: Path::Urgent,
            reliability: Reliability::Ordered,
            lanes: 1,
            queued_frames_max: rng.random_range(1..20),
            queued_bytes_max: rng.random_range(1_200_000..1_500_000),
            overflow: Overflow::Drop,
            is_compressed: false,
        });
        let mut state = State::new(Params::new(table.collect::<Vec<_>>(), 20_000_000).unwrap());
        let mut model: BTreeMap<ChannelId, VecDeque<Bytes>> = BTreeMap::new();
        for step in 0..5_000_u64 {
            let id = ChannelId(7 * rng.random_range(0..13));
            if rng.random() {
                let len = if rng.random_range(0..20) == 0 { rng.random_range(0..1_000_000) } else { rng.random_range(1..50) };
                let frame = Bytes::from(vec![step as u8; len]);
                if state.push(id, frame.clone(), Time::from_nanos(step)).is_ok() {
                    model.entry(id).or_default().push_back(frame);
                }
            } else {
                let blocked = id;
                match pop(&mut state, |channel, _| channel != blocked) {
                    Some((channel, frame)) => {
                        assert_ne!(channel, blocked);
                        assert_eq!(model.get_mut(&channel).and_then(VecDeque::pop_front), Some(frame));
                    }
                    None => assert!(model.iter().all(|(channel, frames)| *channel == blocked || frames.is_empty())),
                }
            }
        }
        while let Some((channel, frame)) = pop(&mut state, any) {
            assert_eq!(model.get_mut(&channel).and_then(VecDeque::pop_front), Some(frame));
        }
        assert!(model.values().all(VecDeque::is_empty));
        assert_eq!((state.total(), state.is_empty()), (Queued::default(), true));
    }
}

#[test]
fn the_fullest_channel_shows_a_peer_that_takes_only_others() {
    let mut state = state();
    assert_eq!(state.fullest(), None);
    push(&mut state, ChannelId::EVENTS, 1_000).unwrap();
    push(&mut state, ChannelId::EVENTS, 500).unwrap();
    push(&mut state, ChannelId::CONTROL, 100).unwrap();
    let (channel, frame) = pop(&mut state, any).unwrap();
    assert_eq!(channel, ChannelId::CONTROL);
    state.sent(channel, 0, frame.len(), T0);
    assert_eq!(state.fullest(), Some((ChannelId::EVENTS, Queued { frames: 2, bytes: 1_500 }, 0)), "progress on control is not its own");
    let (channel, frame) = pop(&mut state, any).unwrap();
    state.sent(channel, 0, frame.len(), T0);
    assert_eq!(state.fullest(), Some((ChannelId::EVENTS, Queued { frames: 1, bytes: 500 }, 1_000)));
}

#[test]
fn small_messages_leave_as_one_piece_and_large_ones_are_not_copied() {
    let mut state = state();
    let large = Bytes::from(vec![9; 100_000]);
    for number in 0..100_u8 {
        state.push_message(ChannelId::DATA, 0, 3, &[number; 60], || T0).unwrap();
    }
    state.push_shared(ChannelId::DATA, 0, 3, large.clone(), || T0).unwrap();
    state.push_message(ChannelId::DATA, 0, 3, b"last", || T0).unwrap();
    assert_eq!(state.queued(ChannelId::DATA).frames, 102);
    let mut pieces = Vec::new();
    while let Some(piece) = state.pop(BLOCK_BYTES, any) {
        pieces.push(piece);
    }
    assert_eq!(pieces.iter().map(|piece| piece.frames).sum::<usize>(), 102);
    assert!(pieces.len() <= 8, "{} pieces", pieces.len());
    assert!(pieces.iter().any(|piece| piece.bytes.as_ptr() == large.as_ptr()), "the large body is the one that was given");
    let mut decoder = frame::Decoder::new(limits::FRAME_BYTES_MAX);
    let mut bodies = Vec::new();
    for piece in pieces {
        decoder.push(piece.bytes);
        while let Some(frame) = decoder.next().unwrap() {
            bodies.push(frame.body);
        }
    }
    assert_eq!(bodies.len(), 102);
    assert!(bodies[..100].iter().enumerate().all(|(number, body)| body[..] == [number as u8; 60]));
    assert_eq!((&bodies[100], &bodies[101][..]), (&large, &b"last"[..]));
}

#[test]
fn lanes_share_what_is_their_channels() {
    let mut state = state();
    for lane in 0..5 {
        for _ in 0..20 {
            state.push_message(ChannelId::DATA, lane, 3, &[0; 97], || T0).unwrap();
        }
    }
    (0..100).for_each(|_| push(&mut state, ChannelId::EVENTS, 100).unwrap());
    let first: Vec<Popped> = (0..20).map(|_| state.pop(0, any).unwrap()).collect();
    assert_eq!(first.iter().filter(|popped| popped.channel == ChannelId::EVENTS).count(), 10);
    for lane in 0..5 {
        assert_eq!(first.iter().filter(|popped| popped.channel == ChannelId::DATA && popped.lane == lane).count(), 2);
    }
    assert_eq!(state.push_message(ChannelId::DATA, 7, 3, b"", || T0), Ok(true), "lanes begin anew");
}

fn with(change: impl Fn(&mut ChannelSpec)) -> State {
    let mut table = ChannelSpec::built_in();
    change(&mut table[2]);
    State::new(Params::new(table, Params::PEER_BYTES_MAX).unwrap())
}

#[test]
fn the_oldest_give_way_where_the_channel_says_so() {
    let mut state = with(|spec| (spec.overflow, spec.queued_frames_max) = (Overflow::DropOldest, 3));
    for number in 0..10_u8 {
        state.push_message(ChannelId::DATA, 0, 3, &[number], || T0).unwrap();
    }
    let left: Vec<u8> = std::iter::from_fn(|| state.pop(0, any)).map(|popped| popped.bytes[2]).collect();
    assert_eq!(left, [7, 8, 9]);
    assert_eq!(state.counters().find(|(id, _)| *id == ChannelId::DATA).unwrap().1.superseded, 7);
    // A frame whose start has left stays, and what finds no room then is refused.
    let large = Bytes::from(vec![1; 50_000]);
    state.push_shared(ChannelId::DATA, 0, 3, large.clone(), || T0).unwrap();
    assert_eq!(state.pop(0, any).unwrap().frames, 0);
    for _ in 0..4 {
        let _ = state.push_shared(ChannelId::DATA, 0, 3, large.clone(), || T0);
    }
    assert_eq!(state.queued(ChannelId::DATA).frames, 3);
    assert_eq!(state.pop(0, any).unwrap().bytes, large, "the rest of it");
}

#[test]
fn the_latest_of_a_key_takes_the_place_of_the_one_that_waits() {
    let mut state = with(|spec| spec.reliability = Reliability::Latest);
    let key = |number: u8| Bytes::from(vec![number]);
    for version in 0..100_u8 {
        for number in 0..10 {
            state.push_latest(ChannelId::DATA, key(number), frame::encode(3, &[number, version]), T0).unwrap();
        }
        if version == 50 {
            let (_, frame) = pop(&mut state, any).unwrap();
            assert_eq!(frame[2..], [0, 50]);
        }
    }
    assert_eq!(state.queued(ChannelId::DATA).frames, 10);
    let left: Vec<[u8; 2]> = std::iter::from_fn(|| pop(&mut state, any)).map(|(_, frame)| [frame[2], frame[3]]).collect();
    let mut expected: Vec<[u8; 2]> = (1..10).map(|number| [number, 99]).collect();
    expected.push([0, 99]);
    assert_eq!(left, expected);
    let counters = state.counters().find(|(id, _)| *id == ChannelId::DATA).unwrap().1;
    assert_eq!((counters.frames, counters.superseded), (1_000, 989));
    assert!(state.is_empty());
}

#[test]
fn what_is_best_effort_leaves_in_pieces_that_fit_a_datagram() {
    let mut state = with(|spec| (spec.reliability, spec.overflow) = (Reliability::BestEffort, Overflow::DropOldest));
    state.set_datagram_bytes_max(100);
    for len in [40, 40, 40, 300, 3] {
        state.push_message(ChannelId::DATA, 0, 3, &vec![0; len], || T0).unwrap();
        state.push_message(ChannelId::EVENTS, 0, 3, &vec![0; len], || T0).unwrap();
    }
    let pieces = |state: &mut State, id: ChannelId| -> Vec<(usize, usize)> {
        std::iter::from_fn(|| state.pop(1_000, |channel, _| channel == id)).map(|popped| (popped.frames, popped.bytes.len())).collect()
    };
    assert_eq!(pieces(&mut state, ChannelId::DATA), [(2, 84), (1, 42), (1, 303), (1, 5)]);
    let others = pieces(&mut state, ChannelId::EVENTS);
    assert!(others.iter().any(|(_, bytes)| *bytes > 100), "other channels know no datagrams: {others:?}");
}

#[test]
fn what_waits_past_its_deadline_is_dropped_when_it_would_leave() {
    let at = |seconds| Time::from_secs(seconds);
    let body = |popped: Popped| (popped.frames, popped.bytes[2]);
    let mut state = state();
    for number in 0..10_u8 {
        let lane = ChannelId::EVENTS;
        let waited = match number % 2 {
            0 => state.push_message(lane, 0, 3, &[number], || T0),
            _ => state.push_until(lane, 0, 3, &[number], at(u64::from(number)), T0),
        };
        assert!(waited.is_ok());
    }
    state.set_now(at(4));
    // 1 and 3 are over; the others leave one by one, or up to the next that may be over by then.
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 0));
    assert_eq!(state.queued(ChannelId::EVENTS).frames, 9, "nothing is dropped before its turn");
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 2));
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 4));
    assert_eq!(body(state.pop(1_000, any).unwrap()), (2, 5));
    state.set_now(at(60));
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 8));
    assert_eq!(state.pop(1_000, any), None);
    assert!(state.is_empty() && state.stalled_since().is_none());
    let counters = state.counters().find(|(id, _)| *id == ChannelId::EVENTS).unwrap().1;
    assert_eq!((counters.frames, counters.expired, counters.superseded), (10, 4, 0));
    // The only one: nothing leaves, and nobody waits any more.
    state.push_until(ChannelId::DATA, 2, 3, b"late", at(61), at(60)).unwrap();
    state.set_now(at(61));
    assert_eq!(state.pop(1_000, any), None);
    assert!(state.is_empty() && state.stalled_since().is_none());
    // The oldest that gives way takes its deadline along.
    let mut state = with(|spec| (spec.overflow, spec.queued_frames_max) = (Overflow::DropOldest, 2));
    state.push_until(ChannelId::DATA, 0, 3, &[1], at(2), T0).unwrap();
    state.push_message(ChannelId::DATA, 0, 3, &[2], || T0).unwrap();
    state.push_message(ChannelId::DATA, 0, 3, &[3], || T0).unwrap();
    state.set_now(at(5));
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 2));
    assert_eq!(body(state.pop(1_000, any).unwrap()), (1, 3));
}

#[test]
fn little_of_a_channel_that_keeps_the_latest_is_under_way_without_credit() {
    let mut state = with(|spec| (spec.reliability, spec.lanes) = (Reliability::Latest, 1));
    let mut seen = Vec::new();
    for version in 0..1_000_u16 {
        let body = [&version.to_be_bytes()[..], &[0; 1_024]].concat();
        state.push_latest(ChannelId::DATA, Bytes::new(), frame::encode(3, &body), T0).unwrap();
        seen.extend(pop(&mut state, any).map(|(_, frame)| u16::from_be_bytes([frame[3], frame[4]])));
    }
    assert_eq!(seen, (0..16).collect::<Vec<_>>(), "16 KiB, and then the rest gives way to later ones");
    assert_eq!(state.queued(ChannelId::DATA).frames, 1);
    // Other channels do not wait for it, and credit for what was not sent is a lie.
    push(&mut state, ChannelId::EVENTS, 10).unwrap();
    assert_eq!(pop_all(&mut state), [ChannelId::EVENTS]);
    assert!(!state.credit(ChannelId::DATA, 17, T0) && !state.credit(ChannelId::EVENTS, 0, T0) && !state.credit(ChannelId(77), 0, T0));
    assert!(state.credit(ChannelId::DATA, 1, T0));
    let (_, frame) = pop(&mut state, any).unwrap();
    assert_eq!(u16::from_be_bytes([frame[3], frame[4]]), 999, "the newest always goes");
    assert!(state.is_empty());
    // What waits for credit is forgotten with the connection.
    for number in 0..100_u8 {
        state.push_latest(ChannelId::DATA, Bytes::from(vec![number]), frame::encode(3, &[0; 1_024]), T0).unwrap();
    }
    while state.pop(0, any).is_some() {}
    assert!(!state.is_empty());
    state.clear(T0);
    assert!(state.is_empty());
}
fn at_ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn metrics_of(state: &State, channel: ChannelId, now: Time) -> ChannelMetrics {
    let metrics = state.metrics(now).into_iter().find(|metrics| metrics.channel == channel).unwrap();
    let dropped = metrics.dropped.total();
    assert_eq!(metrics.accepted.messages, metrics.sent.messages + metrics.waiting.messages + dropped, "all are accounted for");
    assert_eq!(metrics.waited.count(), metrics.sent.messages);
    assert_eq!(metrics.lanes.iter().map(|lane| lane.sent.messages).sum::<u64>(), metrics.sent.messages);
    assert_eq!(metrics.lanes.iter().map(|lane| lane.sent.bytes).sum::<u64>(), metrics.sent.bytes);
    assert_eq!(metrics.lanes.iter().map(|lane| lane.waiting.messages).sum::<u64>(), metrics.waiting.messages);
    assert_eq!(metrics.lanes.iter().map(|lane| lane.waiting.bytes).sum::<u64>(), metrics.waiting.bytes);
    assert_eq!(metrics.lanes.iter().map(|lane| lane.dropped).sum::<u64>(), dropped);
    metrics
}

#[test]
fn a_wait_lasts_from_the_push_until_the_transport_has_the_last_byte() {
    let mut state = state();
    let push_at = |state: &mut State, millis| state.push_message(ChannelId::DATA, 0, 3, &[7; 10], || at_ms(millis)).unwrap();
    push_at(&mut state, 0);
    // The clock is asked again at once, because frames come slowly.
    push_at(&mut state, 1);
    push_at(&mut state, 10);
    let all = metrics_of(&state, ChannelId::DATA, at_ms(10));
    assert_eq!((all.accepted, all.waiting), (Volume { messages: 3, bytes: 30 }, Volume { messages: 3, bytes: 36 }));
    state.set_now(at_ms(20));
    let popped = state.pop(BLOCK_BYTES, any).unwrap();
    assert_eq!(popped.frames, 3);
    state.sent(ChannelId::DATA, popped.lane, 11, at_ms(21));
    assert_eq!(metrics_of(&state, ChannelId::DATA, at_ms(21)).sent, Volume { messages: 0, bytes: 11 }, "a byte is missing");
    state.sent(ChannelId::DATA, popped.lane, 1, at_ms(22));
    state.sent(ChannelId::DATA, popped.lane, 24, at_ms(30));
    let all = metrics_of(&state, ChannelId::DATA, at_ms(30));
    assert_eq!((all.sent.messages, all.writes, all.waited.max()), (3, 3, Duration::from_millis(29)));
    let waits: Vec<_> = all.waited.buckets().map(|(end, count)| (end.as_millis(), count)).collect();
    assert_eq!(waits, [(20, 1), (22, 1), (29, 1)], "20, 22 and 29 ms in buckets of up to 1 ms: {waits:?}");
    assert_eq!((all.messages_per_write(), all.busy), (1.0, Duration::from_millis(30)));
    assert_eq!(metrics_of(&state, ChannelId::DATA, at_ms(40)), all, "nothing happened");
}

#[test]
fn the_clock_is_asked_seldom_when_frames_come_fast() {
    let mut state = state();
    let (mut nanos, mut asked) = (0, 0_u32);
    for _ in 0..5_000 {
        nanos += 100;
        let now = || {
            asked += 1;
            Time::from_nanos(nanos)
        };
        state.push_message(ChannelId::DATA, 0, 3, b"", now).unwrap();
    }
    assert!(asked <= 170, "{asked}");
    let popped = state.pop(BLOCK_BYTES, any).unwrap();
    state.sent(ChannelId::DATA, 0, popped.bytes.len(), Time::from_nanos(nanos));
    let waited = metrics_of(&state, ChannelId::DATA, at_ms(9)).waited;
    // None is understated, and none is overstated by the time of more than 31 frames: 3.1 µs.
    let (true_max, told) = (Duration::from_nanos(nanos - 100), waited.max());
    assert!(true_max <= told && told <= true_max + Duration::from_nanos(3_100), "{told:?}");
    // When they come slowly, each is stamped but for the rest of one stride.
    asked = 0;
    for _ in 0..1_000 {
        nanos += 20_000;
        let now = || {
            asked += 1;
            Time::from_nanos(nanos)
        };
        state.push_message(ChannelId::DATA, 0, 3, b"", now).unwrap();
    }
    assert!(asked >= 968, "{asked}");
    // A frame that comes to an empty lane is always stamped, whatever waits on others.
    asked = 0;
    for lane in 1..5 {
        let now = || {
            asked += 1;
            Time::from_nanos(nanos)
        };
        state.push_message(ChannelId::DATA, lane, 3, b"", now).unwrap();
    }
    assert_eq!(asked, 4);
}

#[test]
fn refusals_and_drops_are_told_apart() {
    let mut state = with(|spec| (spec.overflow, spec.queued_frames_max) = (Overflow::DropOldest, 3));
    (0..10).for_each(|nth| assert_eq!(state.push_message(ChannelId::DATA, 0, 3, b"1", || T0), Ok(nth > 0)));
    let data = metrics_of(&state, ChannelId::DATA, T0);
    assert_eq!((data.dropped.oldest, data.dropped.total(), data.waiting.messages, data.accepted.messages), (7, 7, 3, 10));
    assert_eq!(data.queued_high, Volume { messages: 3, bytes: 9 });

    let mut state = with(|spec| spec.reliability = Reliability::Latest);
    for version in 0..10_u64 {
        let at = T0 + Duration::from_secs(version);
        state.push_latest(ChannelId::DATA, Bytes::from_static(b"key"), frame::encode(3, &[0; 5]), at).unwrap();
    }
    let popped = state.pop(0, any).unwrap();
    state.sent(ChannelId::DATA, 0, popped.bytes.len(), T0 + Duration::from_secs(11));
    let data = metrics_of(&state, ChannelId::DATA, T0);
    assert_eq!((data.dropped.conflated, data.dropped.total(), data.sent.messages, data.accepted.bytes), (9, 9, 1, 50));
    assert_eq!(data.waited.max(), Duration::from_secs(2), "the wait of the one that was sent");

    let mut table = ChannelSpec::built_in();
    table[2].queued_frames_max = 2;
    let mut state = State::new(Params::new(table, 4 * 1_024 * 1_024 + limits::FRAME_BYTES_MAX + 100).unwrap());
    let fits = push(&mut state, ChannelId::EVENTS, limits::FRAME_BYTES_MAX);
    assert_eq!(fits, Ok(()));
    assert_eq!(push(&mut state, ChannelId::DATA, 1_000), Err(Reason::PeerFull));
    (0..2).for_each(|_| push(&mut state, ChannelId::DATA, 10).unwrap());
    (0..3).for_each(|_| assert_eq!(push(&mut state, ChannelId::DATA, 10), Err(Reason::ChannelFull)));
    (0..4).for_each(|_| assert_eq!(push(&mut state, ChannelId(99), 10), Err(Reason::UnknownChannel)));
    let data = metrics_of(&state, ChannelId::DATA, T0);
    assert_eq!((data.refused.channel_full, data.refused.peer_full, data.refused.total(), state.unknown()), (3, 1, 4, 4));
}

#[test]
fn what_a_broken_connection_held_is_lost_and_what_nobody_wants_is_not() {
    let mut state = state();
    for lane in 0..5 {
        (0..10).for_each(|nth| assert_eq!(state.push_message(ChannelId::DATA, lane, 3, &[1; 18], || T0), Ok(nth > 0)));
    }
    push(&mut state, ChannelId::EVENTS, 50).unwrap();
    for _ in 0..3 {
        state.pop(BLOCK_BYTES, |channel, _| channel == ChannelId::DATA).unwrap();
    }
    // A lane is sent, one is given up, one is in the driver's hands, two wait.
    state.sent(ChannelId::DATA, 0, 200, T0);
    state.unwanted(ChannelId::DATA, 1, 200, T0);
    state.clear(T0);
    let data = metrics_of(&state, ChannelId::DATA, T0);
    assert_eq!((data.sent.messages, data.dropped.unwanted, data.dropped.lost), (10, 10, 30));
    assert_eq!((data.waiting, data.lanes[2].dropped), (Volume::default(), 10));
    assert_eq!(metrics_of(&state, ChannelId::EVENTS, T0).dropped.lost, 1);
    assert!(state.is_empty());
}

#[test]
fn utilization_is_that_of_the_last_whole_window() {
    let mut state = state();
    let secs = Time::from_secs;
    let utilization = |state: &State, now| metrics_of(state, ChannelId::DATA, now).utilization();
    state.push(ChannelId::DATA, frame_of(10), secs(12)).unwrap();
    assert_eq!(utilization(&state, secs(19)), 0.0, "its window is not over");
    state.set_now(secs(14));
    let popped = state.pop(0, any).unwrap();
    state.sent(ChannelId::DATA, popped.lane, 10, secs(15));
    for second in [20, 25, 29] {
        assert_eq!(utilization(&state, secs(second)), 0.3);
    }
    assert_eq!(utilization(&state, secs(30)), 0.0);
    state.push(ChannelId::DATA, frame_of(10), secs(45)).unwrap();
    assert_eq!(utilization(&state, secs(51)), 0.5);
    assert_eq!(utilization(&state, secs(69)), 1.0);
    assert_eq!(metrics_of(&state, ChannelId::DATA, secs(69)).busy, Duration::from_secs(3 + 24));
    let popped = state.pop(0, any).unwrap();
    state.sent(ChannelId::DATA, popped.lane, 10, secs(72));
    assert_eq!((utilization(&state, secs(79)), utilization(&state, secs(80)), utilization(&state, secs(99))), (1.0, 0.2, 0.0));
    assert_eq!(metrics_of(&state, ChannelId::DATA, secs(99)).busy, Duration::from_secs(3 + 27));
}

#[test]
fn random_use_accounts_for_every_message() {
    for seed in 0..10 {
        let mut rng = random::generator(seed, "sender-metrics", 0);
        let mut state = with(|spec| {
            spec.overflow = [Overflow::Refuse, Overflow::DropOldest][seed as usize % 2];
            spec.queued_frames_max = 50;
        });
        let (mut now, mut accepted, mut refused) = (0, Volume::default(), 0);
        // What was popped of each lane and not reported.
        let mut held = [0_usize; 5];
        for _ in 0..3_000 {
            now += rng.random_range(0..30_000);
            let time = Time::from_nanos(now);
            let lane = rng.random_range(0..5);
            match rng.random_range(0..8) {
                0..4 => {
                    let len = if rng.random_range(0..20) == 0 { rng.random_range(0..100_000) } else { rng.random_range(0..200) };
                    let body = Bytes::from(vec![1; len]);
                    let pushed = match rng.random_range(0..3) {
                        0 => state.push_message(ChannelId::DATA, lane, 3, &body, || time),
                        1 => state.push_shared(ChannelId::DATA, lane, 3, body, || time),
                        _ => {
                            let frame = frame::encode(300, &body);
                            state
                                .push_on(ChannelId::DATA, lane, frame, time)
                                .map(|()| false)
                                .map_err(|refused| (refused.reason, refused.overflow))
                        }
                    };
                    match pushed {
                        Ok(_) => accepted = Volume { messages: accepted.messages + 1, bytes: accepted.bytes + len as u64 },
                        Err(_) => refused += 1,
                    }
                }
                4 | 5 => {
                    state.set_now(time);
                    if let Some(popped) = state.pop(rng.random_range(0..5_000), any) {
                        held[usize::from(popped.lane)] += popped.bytes.len();
                    }
                }
                6 => {
                    let bytes = rng.random_range(0..=held[usize::from(lane)]);
                    held[usize::from(lane)] -= bytes;
                    state.sent(ChannelId::DATA, lane, bytes, time);
                }
                _ if rng.random_range(0..20) == 0 => {
                    state.unwanted(ChannelId::DATA, lane, std::mem::take(&mut held[usize::from(lane)]), time);
                }
                _ => {}
            }
            let metrics = metrics_of(&state, ChannelId::DATA, time);
            assert_eq!((metrics.accepted, metrics.refused.total()), (accepted, refused));
            assert_eq!(metrics.waiting.bytes, (state.queued(ChannelId::DATA).bytes + held.iter().sum::<usize>()) as u64);
        }
        state.clear(Time::from_nanos(now));
        let end = metrics_of(&state, ChannelId::DATA, Time::from_nanos(now));
        assert_eq!(end.waiting, Volume::default());
        assert!(end.sent.messages > 0 && end.dropped.lost > 0 && end.dropped.unwanted > 0, "it happened: {end:?}");
    }
}

/// Lanes that each carry three messages in 10 ms, and a peer that reads them in any order among each other.
struct Lanes {
    state: State,
    channel: ChannelId,
    now: Time,
    under_way: Vec<VecDeque<(u64, u64)>>,
    stuck: Option<u8>,
    rng: random::Generator,
    /// The last number that arrived of each key and sender.
    arrived: BTreeMap<u64, u64>,
    sent: BTreeMap<u64, u64>,
}

impl Lanes {
    fn new(seed: u64) -> Self {
        let spec = ChannelSpec::new("lanes").lanes(4).queue(64, 2 * 1_024 * 1_024);
        let channel = spec.id;
        let params = Params::new(ChannelSpec::built_in().into_iter().chain([spec]), Params::PEER_BYTES_MAX).unwrap();
        let (state, under_way, rng) = (State::new(params), vec![VecDeque::new(); 4], random::generator(seed, "lanes", 0));
        Lanes { state, channel, now: T0, under_way, stuck: None, rng, arrived: BTreeMap::new(), sent: BTreeMap::new() }
    }

    fn metrics(&self) -> ChannelMetrics {
        metrics_of(&self.state, self.channel, self.now)
    }

    /// A message of this key or sender, if there is room.
    fn send(&mut self, who: u64, lane: u8) {
        let number = self.sent.get(&who).map_or(0, |last| last + 1);
        let body = [who.to_be_bytes(), number.to_be_bytes()].concat();
        if self.state.push_message(self.channel, lane, 3, &body, || self.now).is_ok() {
            self.sent.insert(who, number);
        }
    }

    /// 10 ms of the transport and the peer.
    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        self.state.turn(self.now);
        let mut room = [3; 4];
        room[usize::from(self.stuck.unwrap_or(0))] *= usize::from(self.stuck.is_none());
        // Something moves always.
        self.state.push(ChannelId::CONTROL, frame_of(5), self.now).unwrap();
        while let Some(popped) = self.state.pop(0, |channel, lane| channel == ChannelId::CONTROL || room[usize::from(lane)] > 0) {
            if popped.channel == ChannelId::CONTROL {
                self.state.sent(popped.channel, 0, popped.bytes.len(), self.now);
                continue;
            }
            let lane = usize::from(popped.lane);
            room[lane] -= 1;
            let word = |at: usize| u64::from_be_bytes(popped.bytes[at..at + 8].try_into().unwrap());
            let end = popped.bytes.len();
            self.under_way[lane].push_back((word(end - 16), word(end - 8)));
            self.state.sent(popped.channel, popped.lane, popped.bytes.len(), self.now);
        }
        for lane in 0..4 {
            // The peer may leave a lane alone for long.
            for _ in 0..self.rng.random_range(0..2) * self.rng.random_range(0..100) {
                let Some((who, number)) = self.under_way[lane].pop_front() else { break };
                let before = self.arrived.insert(who, number);
                assert_eq!(before.map_or(0, |before| before + 1), number, "what {who:x} sent comes in order, and all of it");
            }
        }
    }
}

#[test]
fn keys_and_senders_keep_their_order_while_lanes_come_and_go() {
    for seed in 0..2 {
        let mut lanes = Lanes::new(seed);
        let (mut comers, mut placed, mut blocked) = (0, BTreeMap::new(), 0);
        let mut senders: Vec<(u64, u8)> = Vec::new();
        for _round in 0..2 {
            for step in 0..3_000 {
                lanes.stuck = (step % 1_000 >= 800).then_some((step / 1_000) as u8);
                // Senders come and go.
                if step % 10 == 0 {
                    comers += 1;
                    senders.push((comers, lanes.state.lane_for(lanes.channel, None, lanes.now)));
                    senders.drain(..senders.len().saturating_sub(12));
                }
                for _ in 0..40 {
                    if lanes.rng.random_range(0..10) == 0 {
                        // A new handle for one of a hundred keys each time.
                        let key = lanes.rng.random_range(0..100);
                        let lane = lanes.state.lane_for(lanes.channel, Some(random::hash(&[key])), lanes.now);
                        assert_eq!(*placed.entry(key).or_insert(lane), lane, "a key keeps its lane");
                        lanes.send(1 << 32 | key, lane);
                    } else {
                        let (who, lane) = senders[lanes.rng.random_range(0..senders.len())];
                        lanes.send(who, lane);
                    }
                }
                lanes.step();
                blocked += usize::from(lanes.metrics().lanes.iter().any(|lane| lane.is_blocked));
            }
            lanes.stuck = None;
            (0..7_000).for_each(|_| lanes.step());
            assert_eq!(lanes.sent, lanes.arrived, "nothing is left behind");
        }
        assert!(blocked > 100, "lanes were blocked: {blocked}");
        let changes = lanes.metrics().lane_changes;
        let has = |reason, outcome| changes.iter().any(|change| change.reason == reason && change.outcome == outcome);
        assert!(has(metrics::LaneReason::Saturated, metrics::LaneOutcome::Kept), "it grew: {changes:?}");
        assert!(has(metrics::LaneReason::Idle, metrics::LaneOutcome::Kept), "and shrank: {changes:?}");
    }
}

#[test]
fn a_lane_that_its_stream_blocks_is_given_to_nobody_new() {
    let mut lanes = Lanes::new(1);
    assert_eq!(lanes.state.lane_for(lanes.channel, None, lanes.now), 0);
    lanes.stuck = Some(0);
    for step in 0..200 {
        // So that it does not fill the queue of the channel.
        if step % 10 == 0 {
            lanes.send(1, 0);
        }
        lanes.send(2, 1);
        lanes.step();
    }
    assert_eq!(lanes.metrics().lanes.iter().map(|lane| lane.is_blocked).collect::<Vec<_>>(), [true, false, false, false]);
    let given: Vec<u8> = (0..6).map(|_| lanes.state.lane_for(lanes.channel, None, lanes.now)).collect();
    assert!(!given.contains(&0), "{given:?}");
    assert!((0..100).all(|key| lanes.state.lane_for(lanes.channel, Some(key), lanes.now) != 0));
    lanes.stuck = None;
    (0..200).for_each(|_| lanes.step());
    assert!(lanes.metrics().lanes.iter().all(|lane| !lane.is_blocked));
    assert_eq!(lanes.state.lane_for(lanes.channel, None, lanes.now), 0);
}

#[test]
fn lanes_for_which_no_sender_asked_cost_nothing_and_do_not_grow() {
    let mut lanes = Lanes::new(1);
    for _ in 0..2_000 {
        (0..10).for_each(|_| lanes.send(1, 0));
        lanes.step();
    }
    assert!(lanes.metrics().lane_changes.is_empty() && lanes.state.channels.iter().all(|channel| channel.spread.is_none()));
    assert_eq!(lanes.state.lane_for(ChannelId::GOSSIP, Some(7), lanes.now), 0);
    assert_eq!(lanes.state.lane_for(ChannelId(77), Some(7), lanes.now), 0);
}

/// A link of 10 Mbit/s and 20 ms there and back, ten times as much to send, and a thousand keys.
#[test]
fn of_a_thousand_keys_that_change_faster_than_the_link_carries_none_gets_old() {
    const KEYS: usize = 1_000;
    const STEP: Duration = Duration::from_micros(100);
    const BYTES_PER_STEP: u32 = 125;
    let one_way = Duration::from_millis(10);
    let mut state = with(|spec| (spec.reliability, spec.lanes) = (Reliability::Latest, 1));
    let frame_of = |key: usize, version: usize| {
        let body = [&(key as u32).to_be_bytes()[..], &(version as u32).to_be_bytes(), &[0; 92]].concat();
        frame::encode(3, &body)
    };
    let len = frame_of(0, 0).len();
    let number = |frame: &[u8], at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap()) as usize;
    let mut written: Vec<Vec<Time>> = vec![Vec::new(); KEYS];
    // How many versions of each key are past, as far as the receiver knows.
    let mut received = vec![0; KEYS];
    let (mut wire, mut credits) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
    let (mut free_at, mut taken, mut oldest) = (T0, 0, Duration::ZERO);
    for step in 0_u32.. {
        let now = T0 + STEP * step;
        let is_over = step > 30_000;
        for change in 0..if is_over { 0 } else { 10 * BYTES_PER_STEP / len as u32 + 1 } {
            let key = random::hash(&[u64::from(step), u64::from(change)]) as usize % KEYS;
            state.push_latest(ChannelId::DATA, Bytes::from(key.to_be_bytes().to_vec()), frame_of(key, written[key].len()), now).unwrap();
            written[key].push(now);
        }
        while let Some((_, frame)) = wire.pop_front_if(|(at, _): &mut (Time, Bytes)| *at <= now) {
            let (key, version) = (number(&frame, 2), number(&frame, 6));
            assert!(version >= received[key], "no version after a newer one");
            (received[key], taken) = (version + 1, taken + 1);
            credits.push_back((now + one_way, taken));
        }
        while let Some((_, total)) = credits.pop_front_if(|(at, _): &mut (Time, u64)| *at <= now) {
            assert!(state.credit(ChannelId::DATA, total, now));
        }
        while free_at <= now
            && let Some((_, frame)) = pop(&mut state, any)
        {
            state.sent(ChannelId::DATA, 0, frame.len(), now);
            free_at = free_at.max(now) + STEP * frame.len() as u32 / BYTES_PER_STEP;
            wire.push_back((free_at + one_way, frame));
        }
        assert!(state.queued(ChannelId::DATA).frames <= KEYS, "one of each key waits at most");
        if step > 5_000 && step % 10 == 0 {
            let ages = written.iter().zip(&received).filter_map(|(written, received)| Some(now.since(*written.get(*received)?)));
            oldest = oldest.max(ages.max().unwrap_or_default());
        }
        if is_over && state.is_empty() && wire.is_empty() {
            break;
        }
    }
    assert!(written.iter().zip(&received).all(|(written, received)| written.len() == *received), "the last of each key arrives");
    // Two round trips, and the time that the link takes for one of each key.
    let bound = 4 * one_way + STEP * (KEYS * len) as u32 / BYTES_PER_STEP;
    assert!(oldest > bound / 4 && oldest <= bound, "{oldest:?}, and {bound:?} are promised");
    let counters = state.counters().find(|(id, _)| *id == ChannelId::DATA).unwrap().1;
    assert!(counters.superseded > counters.frames * 8 / 10, "nine of ten were replaced where they waited");
}
