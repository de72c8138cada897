//! A neighbor may say anything.

use super::golden::every_message;
use super::*;

fn receive(state: &mut State, message: Message) -> Vec<Action> {
    let mut actions = Vec::new();
    state.handle(Input::Received { from: peer(2), message }, at_millis(1_000), &mut actions);
    actions
}

fn range(first: u64, last: u64) -> Range {
    Range { first: KeyHash(first), last: KeyHash(last) }
}

fn row(key: u64) -> Row {
    Row { key: KeyHash(key), stamp: Stamp::ZERO, entry: 0 }
}

fn compare(ranges: &[Range], rows: &[Row]) -> Message {
    Message::Compare { round: 1, ranges: Bounded::first_of(ranges.iter().copied()), rows: Bounded::first_of(rows.iter().copied()) }
}

const INVALID: [(PeerId, Misbehavior); 1] = [(PeerId::from_bytes([2; 32]), Misbehavior::Undecodable(DecodeError::Invalid))];

fn named(name: u32) -> Named {
    Named { name: Name(name), stamp: Stamp::MAX }
}

fn differs(glimpse_bytes: usize, first: usize) -> Message {
    let glimpse = Bounded::first_of(vec![7; glimpse_bytes]);
    Message::Differs { keys: 9, wall: EPOCH, version: 1, glimpse, cells: Sketch::of([1, 2], 40).cells(first..40) }
}

/// A replica of 20 keys that leads a comparison with peer 2.
fn leader() -> (State, u32) {
    let mut state = replica(1);
    for number in 0..20 {
        state.set(&format!("k{number}"), bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    }
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
    let everything = Message::Lead { ranges: Bounded::first_of([range(0, u64::MAX)]) };
    let actions = receive(&mut state, everything);
    let [Action::Send { message: Message::Compare { round, rows, .. }, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(rows.len(), 20);
    (state, *round)
}

#[test]
fn bytes_that_are_no_delta_are_blamed_on_their_origin() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let mut generator = generator(1, "hostile", 0);
    for _ in 0..2_000 {
        let len = generator.random_range(0..60);
        let garbage: Vec<u8> = (0..len).map(|_| generator.random()).collect();
        let _ = decode::<Message>(&garbage);
        state.handle(Input::Delta { origin: peer(2), bytes: garbage.into() }, at_millis(0), &mut actions);
    }
    assert!(misbehaviors(&actions).iter().any(|(_, what)| matches!(what, Misbehavior::Undecodable(_))));
    actions.clear();
    let huge = Bytes::from(vec![0; limits::BROADCAST_BYTES_MAX + 1]);
    state.handle(Input::Delta { origin: peer(2), bytes: huge }, at_millis(0), &mut actions);
    assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::Undecodable(DecodeError::TooLong))]);
}

#[test]
fn truncated_and_extended_messages_do_not_decode() {
    for message in every_message() {
        let encoded = encode(&message);
        for len in 0..encoded.len() {
            assert!(decode::<Message>(&encoded[..len]).is_err(), "{} cut to {len}", message.name());
        }
        let mut longer = encoded.to_vec();
        longer.push(0);
        assert_eq!(decode::<Message>(&longer), Err(DecodeError::Trailing));
    }
}

#[test]
fn a_list_that_claims_too_much_is_refused_before_it_is_read() {
    // Compare, round 0, no ranges, 2,049 rows.
    assert_eq!(decode::<Message>(&[&[4, 0, 0, 0x81, 0x10][..], &[0; 2_049 * 24]].concat()), Err(DecodeError::TooLong));
    // Entries, 1,025 of them.
    assert_eq!(decode::<Message>(&[&[5, 0x81, 0x08][..], &[1; 60_000]].concat()), Err(DecodeError::TooLong));
}

#[test]
fn ranges_and_rows_out_of_order_are_refused() {
    let mut state = replica(1);
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
    for message in [
        compare(&[], &[]),
        compare(&[range(5, 4)], &[]),
        compare(&[range(0, 4), range(4, 9)], &[]),
        compare(&[range(5, 9), range(0, 4)], &[]),
        compare(&[range(5, 9)], &[row(4)]),
        compare(&[range(0, 2), range(5, 9)], &[row(3)]),
        compare(&[range(0, 9)], &[row(4), row(4)]),
        compare(&[range(0, 9)], &[row(5), row(4)]),
        Message::Lead { ranges: Bounded::new() },
        Message::Lead { ranges: Bounded::first_of([range(1, 0)]) },
        Message::Shards { keys: 0, wall: EPOCH, sums: Bounded::first_of([ShardSum(1); SHARDS - 1]) },
        differs(GLIMPSE_BYTES - 1, 0),
        differs(GLIMPSE_BYTES, 1),
        Message::AskCells { version: 0, first: 5, end: 5 },
        Message::AskCells { version: 0, first: 6, end: 5 },
        Message::AskCells { version: 0, first: 0, end: CELLS_MAX as u16 + 1 },
        Message::Want { round: 0, names: Bounded::new() },
        Message::Want { round: 0, names: Bounded::first_of([named(5), named(5)]) },
        Message::Want { round: 0, names: Bounded::first_of([named(6), named(5)]) },
    ] {
        assert_eq!(misbehaviors(&receive(&mut state, message.clone())), INVALID, "{message:?}");
    }
    let fine = compare(&[range(0, 2), range(5, u64::MAX)], &[row(0), row(2), row(5), row(u64::MAX)]);
    assert_eq!(misbehaviors(&receive(&mut state, fine)), []);
}

#[test]
fn answers_to_nothing_change_nothing() {
    let mut state = replica(1);
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
    let compared = Message::Compared { round: 0, through: KeyHash(u64::MAX), want: Bounded::new() };
    let shards = Message::Shards { keys: 9, wall: EPOCH, sums: Bounded::first_of([ShardSum(1); SHARDS]) };
    let cells = Message::Cells { version: 0, cells: Sketch::of([1], 40).cells(0..40) };
    for message in [Message::Equal { wall: EPOCH }, shards, compared, differs(GLIMPSE_BYTES, 0), cells] {
        assert_eq!(receive(&mut state, message), []);
    }
    // A stranger gets no place for a session, but an answer.
    let lead = Message::Lead { ranges: Bounded::first_of([range(0, u64::MAX)]) };
    let mut actions = Vec::new();
    state.handle(Input::Received { from: peer(3), message: lead }, at_millis(0), &mut actions);
    assert_eq!(actions, []);
    let probe = Message::Probe { digest: Digest::default(), wall: EPOCH };
    state.handle(Input::Received { from: peer(3), message: probe }, at_millis(0), &mut actions);
    assert_eq!(actions, [Action::Send { to: peer(3), message: Message::Equal { wall: at_millis(0).wall } }]);
}

#[test]
fn an_answer_outside_of_what_was_asked_ends_the_session() {
    for (through, want) in [(u64::MAX, vec![5, 5]), (u64::MAX, vec![6, 5]), (7, vec![8])] {
        let (mut state, round) = leader();
        let want = Bounded::first_of(want.into_iter().map(KeyHash));
        let answer = Message::Compared { round, through: KeyHash(through), want };
        assert_eq!(misbehaviors(&receive(&mut state, answer.clone())), INVALID);
        assert_eq!(receive(&mut state, answer), [], "the session is over");
    }
    let (mut state, round) = leader();
    let stale = Message::Compared { round: round.wrapping_add(1), through: KeyHash(u64::MAX), want: Bounded::new() };
    assert_eq!(receive(&mut state, stale), []);
}

#[test]
fn a_peer_that_wants_everything_gets_it_once() {
    let (mut state, round) = leader();
    let want = Bounded::first_of((0..2_048).map(|number| KeyHash(number << 53)));
    let actions = receive(&mut state, Message::Compared { round, through: KeyHash(u64::MAX), want });
    assert_eq!(actions, [], "none of these exists");
    let names = Bounded::first_of((0..wire::NAMES_MAX as u32).map(named));
    let actions = receive(&mut state, Message::Want { round: 9, names });
    let [Action::Send { message: Message::Compared { round: 9, want, .. }, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(want.len(), wire::ROWS_MAX, "what it names and we lack is asked for, and not more than fits");
    assert_eq!(state.counters().completed, 1);
}

#[test]
fn a_session_that_hardly_moves_ends() {
    let (mut state, mut round) = leader();
    for step in 0..20_000 {
        let actions = receive(&mut state, Message::Compared { round, through: KeyHash(step), want: Bounded::new() });
        match &actions[..] {
            [Action::Send { message: Message::Compare { round: next, .. }, .. }] => round = *next,
            [] => {
                assert_eq!(state.counters().abandoned, 1);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it goes on without end");
}

#[test]
fn a_peer_that_asks_without_end_is_not_answered_without_end() {
    let mut state = replica(1);
    state.handle(Input::NeighborUp(peer(2)), at_millis(0), &mut Vec::new());
    let asked = [
        compare(&[range(0, u64::MAX)], &[]),
        Message::AskCells { version: 0, first: 0, end: 4 },
        Message::AskShards,
        Message::Want { round: 0, names: Bounded::first_of([named(1)]) },
    ];
    for stranger in [2, 3] {
        let mut answered = 0;
        for number in 0..10_000 {
            let message = asked[number % asked.len()].clone();
            let mut actions = Vec::new();
            state.handle(Input::Received { from: peer(stranger), message }, at_millis(0), &mut actions);
            answered += usize::from(misbehaviors(&actions).is_empty());
        }
        assert!((2_000..2_100).contains(&answered), "{answered}");
    }
    assert!(state.counters().throttled > 0);
    let mut actions = Vec::new();
    let message = compare(&[range(0, u64::MAX)], &[]);
    state.handle(Input::Received { from: peer(2), message }, at_millis(1_000), &mut actions);
    assert_eq!(misbehaviors(&actions), [], "time heals");
}

#[test]
fn our_own_name_is_no_neighbor() {
    let mut state = replica(1);
    state.handle(Input::NeighborUp(peer(1)), at_millis(0), &mut Vec::new());
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn random_messages_break_nothing() {
    let mut generator = generator(2, "hostile", 0);
    let (mut state, _) = leader();
    let before = state.digest();
    for number in 0..3_000 {
        let mut hash = || [0, 1, u64::MAX, 1 << 56, generator.random(), generator.random()][generator.random_range(0..6)];
        let ranges = Bounded::first_of([range(hash(), hash()), range(hash(), hash())].into_iter().take(number % 3));
        let rows = Bounded::first_of([row(hash()), row(hash())].into_iter().take(number % 4));
        let want = Bounded::first_of([KeyHash(hash()), KeyHash(hash())].into_iter().take(number % 3));
        let message = match number % 12 {
            0 => Message::Probe { digest: Digest { keys: hash(), sum: 7 }, wall: WallTime::from_micros(hash()) },
            1 => Message::Equal { wall: WallTime::from_micros(hash()) },
            2 => Message::Shards { keys: hash(), wall: EPOCH, sums: Bounded::first_of([ShardSum(hash()); SHARDS]) },
            3 => Message::Lead { ranges },
            4 => Message::Compare { round: hash() as u32, ranges, rows },
            7 => Message::Differs {
                keys: hash(),
                wall: EPOCH,
                version: hash(),
                glimpse: Bounded::first_of([hash() as u8; GLIMPSE_BYTES]),
                cells: Sketch::of([hash(), hash()], 64).cells(0..40),
            },
            8 => Message::AskCells { version: hash(), first: hash() as u16, end: hash() as u16 },
            9 => Message::Cells { version: hash(), cells: Sketch::of([hash(), hash()], 64).cells(hash() as usize % 64..64) },
            10 => Message::AskShards,
            11 => Message::Want { round: hash() as u32, names: Bounded::first_of([named(hash() as u32), named(hash() as u32)]) },
            5 => Message::Compared { round: number as u32 / 12, through: KeyHash(hash()), want },
            _ => {
                let entry = wire::Entry { key: key("k"), stamp: Stamp::from_bits(hash() | 1 << 63), origin: peer(3), body: Body::Removed };
                Message::Entries { entries: Bounded::first_of([entry]) }
            }
        };
        let now = at_millis(number as u64 * 10);
        state.handle(Input::Received { from: peer(2), message }, now, &mut Vec::new());
        state.handle(Input::DeadlineReached, now, &mut Vec::new());
    }
    assert_eq!(state.digest(), before);
    state.store().check_sums();
}
