//! Values of all kinds: that they converge whatever is lost, repeated or late, what concurrent writes come to, and that they are what
//! the types of the `crdts` crate are where those are sound.

use crdts::{CmRDT, CvRDT};

use super::*;
use crate::replica::BATCH_LEN_MAX;
use crate::value::{self, Actor, MEMBERS_MAX, Step, Typed};

/// A replica whose writes leave at once.
fn prompt(number: u8) -> State {
    State::new(peer(number), params(Config { flush_delay: Duration::ZERO, ..Config::default() }), 7)
}

fn pair() -> (State, State) {
    (prompt(1), prompt(2))
}

/// Does something to a key; gives what was broadcast.
fn apply(state: &mut State, key: &str, op: Op) -> Vec<Bytes> {
    let mut actions = Vec::new();
    state.apply(key, op, at_millis(0), &mut actions).unwrap();
    sent(&actions)
}

fn sent(actions: &[Action]) -> Vec<Bytes> {
    let one = |action: &Action| if let Action::Broadcast(bytes) = action { Some(bytes.clone()) } else { None };
    actions.iter().filter_map(one).collect()
}

fn deliver(to: &mut State, from: u8, deltas: &[Bytes]) {
    for bytes in deltas {
        let mut actions = Vec::new();
        to.handle(Input::Delta { origin: peer(from), bytes: bytes.clone() }, at_millis(20), &mut actions);
        assert_eq!(misbehaviors(&actions), []);
    }
}

fn texts(values: &[&str]) -> Vec<Bytes> {
    values.iter().map(|text| bytes(text)).collect()
}

pub(super) fn any_op(chance: &mut Generator) -> Op {
    let member = bytes(["", "a", "b", "c"][chance.random_range(0..4)]);
    match chance.random_range(0..20) {
        0 => Op::Set(member),
        1 => Op::SetFor(member, Duration::from_secs(chance.random_range(1..9))),
        2..4 => Op::Best([f64::NEG_INFINITY, -1.5, -0.0, 0.0, 2.0][chance.random_range(0..5)], member),
        4..7 => Op::Put(member),
        7..9 => Op::Add(chance.random_range(-5..=5)),
        9..11 => Op::Grow(chance.random_range(0..3)),
        11..14 => Op::Insert(member),
        14..16 => Op::Take(member),
        16..18 => Op::Include(member),
        _ => Op::Remove,
    }
}

/// Any kinds under few keys, which therefore meet, come and go at once on several sides.
#[test]
fn values_of_all_kinds_converge_after_any_loss_repetition_and_order() {
    let (mut gaps, mut sent_back, mut kinds) = (0, 0, BTreeSet::new());
    for seed in 0..120 {
        let mut chance = generator(seed, "values", 0);
        let config = Config { repair_period: Some(Duration::from_millis(500)), ..Config::default() };
        let mut network = Network::new(4, seed, &config);
        network.broadcast_loss = [0.0, 0.3, 0.9][chance.random_range(0..3)];
        network.control_loss = [0.0, 0.2][chance.random_range(0..2)];
        network.is_ordered = chance.random_bool(0.5);
        network.delay_millis = 0..chance.random_range(1..60);
        network.connect_all();
        let keys = chance.random_range(1..12);
        for _ in 0..150 {
            let (index, name) = (chance.random_range(0..4), format!("k{}", chance.random_range(0..keys)));
            match network.apply(index, &name, any_op(&mut chance)) {
                Ok(_) | Err(SetError::WrongKind { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            kinds.extend(network.replicas[index].kind(&name));
            if chance.random_bool(0.5) {
                let pause = Duration::from_millis(chance.random_range(0..40));
                network.run_for(pause);
            }
        }
        network.control_loss = 0.0;
        network.run_for(Duration::from_secs(20));
        network.assert_converged();
        assert_eq!(network.misbehaved, [], "seed {seed}");
        gaps += network.replicas.iter().map(|replica| replica.counters().gaps).sum::<u64>();
        sent_back += network.replicas.iter().map(|replica| replica.counters().sent_back).sum::<u64>();
    }
    assert!(gaps > 100 && sent_back > 100, "{gaps} {sent_back}");
    assert_eq!(kinds.len(), 7);
}

/// Two replicas beside the set and the register of the crate, whose operations arrive in order on each side.
#[test]
fn they_are_what_the_types_of_the_crate_are_under_causal_delivery() {
    for seed in 0..300 {
        let mut chance = generator(seed, "reference", 0);
        let mut ours = [prompt(1), prompt(2)];
        let mut sets: [crdts::Orswot<Bytes, u8>; 2] = Default::default();
        let mut registers: [crdts::MVReg<Bytes, u8>; 2] = Default::default();
        // By side, what it knows of the sum of each side.
        let mut sums = [[0_i64; 2]; 2];
        let mut waiting: [Vec<Bytes>; 2] = Default::default();
        for _ in 0..40 {
            let side = chance.random_range(0..2);
            let actor = side as u8;
            let member = bytes(["a", "b", "c"][chance.random_range(0..3)]);
            match chance.random_range(0..6) {
                0 => {
                    waiting[side].extend(apply(&mut ours[side], "set", Op::Insert(member.clone())));
                    let op = sets[side].add(member, sets[side].read_ctx().derive_add_ctx(actor));
                    sets[side].apply(op);
                }
                1 => {
                    waiting[side].extend(apply(&mut ours[side], "set", Op::Take(member.clone())));
                    let op = sets[side].rm(member.clone(), sets[side].contains(&member).derive_rm_ctx());
                    sets[side].apply(op);
                }
                2 => {
                    waiting[side].extend(apply(&mut ours[side], "mv", Op::Put(member.clone())));
                    let op = registers[side].write(member, registers[side].read_ctx().derive_add_ctx(actor));
                    registers[side].apply(op);
                }
                3 => {
                    let by: i64 = chance.random_range(-3..=3);
                    waiting[side].extend(apply(&mut ours[side], "count", Op::Add(by)));
                    sums[side][side] += by;
                }
                // Everything of one side arrives at the other, which the crate does by merging.
                _ => {
                    let deltas = std::mem::take(&mut waiting[side]);
                    deliver(&mut ours[1 - side], side as u8 + 1, &deltas);
                    let (set, register) = (sets[side].clone(), registers[side].clone());
                    sets[1 - side].merge(set);
                    registers[1 - side].merge(register);
                    sums[1 - side][side] = sums[side][side];
                }
            }
            for side in 0..2 {
                let mut members: Vec<Bytes> = sets[side].read().val.into_iter().collect();
                members.sort_unstable();
                let held = ours[side].read("set").unwrap_or(Value::Set(Vec::new()));
                assert_eq!(held, Value::Set(members), "seed {seed}");
                let mut siblings = registers[side].read().val;
                siblings.sort_unstable();
                let mut held: Vec<Bytes> = ours[side].siblings("mv").map(|entry| entry.value.clone()).collect();
                held.sort_unstable();
                assert_eq!(held, siblings, "seed {seed}");
                let sum = sums[side].iter().sum();
                assert_eq!(ours[side].read("count").unwrap_or(Value::Count(0)), Value::Count(sum), "seed {seed}");
            }
        }
    }
}

#[test]
fn each_kind_reads_as_it_was_written() {
    let mut state = replica(1);
    for (key, op, value) in [
        ("lww", Op::Set(bytes("x")), Value::Lww(bytes("x"))),
        ("best", Op::Best(0.5, bytes("x")), Value::Best(0.5, bytes("x"))),
        ("count", Op::Add(-3), Value::Count(-3)),
        ("g_count", Op::Grow(4), Value::GCount(4)),
        ("set", Op::Insert(bytes("m")), Value::Set(texts(&["m"]))),
        ("g_set", Op::Include(bytes("m")), Value::GSet(texts(&["m"]))),
    ] {
        apply(&mut state, key, op);
        assert_eq!(state.read(key), Some(value));
        assert_eq!(state.kind(key).unwrap().name(), key);
    }
    apply(&mut state, "best", Op::Best(0.4, bytes("worse")));
    assert_eq!(state.get("best"), Some(&bytes("x")));
    apply(&mut state, "count", Op::Add(5));
    assert_eq!(state.read("count"), Some(Value::Count(2)));
    apply(&mut state, "set", Op::Take(bytes("m")));
    assert_eq!(state.read("set"), Some(Value::Set(Vec::new())), "an empty set is there");
    let error = state.apply("set", Op::Add(1), at_millis(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::WrongKind { held: Kind::Set });
    assert_eq!(error.to_string(), "the key holds a value of the kind `set`; remove it first");
    let error = state.apply("best", Op::Best(f64::NAN, bytes("x")), at_millis(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::NotANumber);
    apply(&mut state, "set", Op::Remove);
    assert_eq!((state.read("set"), state.kind("set")), (None, None));
    apply(&mut state, "set", Op::Add(1));
    assert_eq!(state.read("set"), Some(Value::Count(1)), "a removed key can be of any kind");
    state.store().check_sums();
}

#[test]
fn concurrent_writes_come_to_what_the_kind_says() {
    let (mut a, mut b) = pair();
    for (key, op) in [("set", Op::Insert(bytes("m"))), ("count", Op::Add(10)), ("mv", Op::Put(bytes("0"))), ("gone", Op::Add(1))] {
        let deltas = apply(&mut a, key, op);
        deliver(&mut b, 1, &deltas);
    }
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    for (key, ours, theirs) in [
        ("set", Op::Take(bytes("m")), Op::Insert(bytes("m"))),
        ("count", Op::Add(1), Op::Add(-2)),
        ("mv", Op::Put(bytes("1")), Op::Put(bytes("2"))),
        ("best", Op::Best(1.0, bytes("low")), Op::Best(2.0, bytes("high"))),
        ("gone", Op::Remove, Op::Add(5)),
        ("kinds", Op::Add(1), Op::Insert(bytes("m"))),
    ] {
        from_a.extend(apply(&mut a, key, ours));
        from_b.extend(apply(&mut b, key, theirs));
    }
    deliver(&mut a, 2, &from_b);
    deliver(&mut b, 1, &from_a);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.read("set"), Some(Value::Set(texts(&["m"]))), "adding wins");
    assert_eq!(a.read("count"), Some(Value::Count(9)), "nothing is lost");
    assert_eq!(a.siblings("mv").count(), 2, "both are kept");
    assert_eq!(a.siblings("mv").map(|entry| entry.origin).collect::<BTreeSet<_>>(), [peer(1), peer(2)].into());
    assert_eq!(a.get("best"), Some(&bytes("high")));
    assert_eq!(a.read("gone"), None, "removing wins");
    assert_eq!(a.read("kinds"), Some(Value::Set(texts(&["m"]))), "the later kind wins");
    let deltas = apply(&mut a, "mv", Op::Put(bytes("3")));
    deliver(&mut b, 1, &deltas);
    assert_eq!(b.siblings("mv").map(|entry| entry.value.clone()).collect::<Vec<_>>(), texts(&["3"]), "and replaced by who saw both");
}

#[test]
fn a_step_with_a_gap_before_it_is_left_to_repair() {
    let (mut a, mut b) = pair();
    let lost = apply(&mut a, "set", Op::Insert(bytes("lost")));
    let late = apply(&mut a, "set", Op::Insert(bytes("late")));
    deliver(&mut b, 1, &late);
    assert_eq!((b.read("set"), b.counters().gaps), (None, 1));
    let gone = apply(&mut a, "set", Op::Take(bytes("lost")));
    deliver(&mut b, 1, &gone);
    assert_eq!(b.counters().gaps, 2, "nor is a removal of what never came");
    deliver(&mut b, 1, &lost);
    deliver(&mut b, 1, &late);
    deliver(&mut b, 1, &gone);
    assert_eq!(b.read("set"), Some(Value::Set(texts(&["late"]))));
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn steps_that_wait_for_a_delta_become_one() {
    let mut state = replica(1);
    apply(&mut state, "other", Op::Add(1));
    let mut actions = Vec::new();
    for op in [Op::Insert(bytes("a")), Op::Insert(bytes("b")), Op::Take(bytes("a")), Op::Insert(bytes("b"))] {
        state.apply("set", op, at_millis(1), &mut actions).unwrap();
    }
    for _ in 0..5 {
        state.apply("count", Op::Add(1), at_millis(1), &mut actions).unwrap();
    }
    state.handle(Input::DeadlineReached, at_millis(100), &mut actions);
    assert_eq!(broadcasts(&actions).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    let mut other = replica(2);
    deliver(&mut other, 1, &sent(&actions));
    assert_eq!(other.read("set"), Some(Value::Set(texts(&["b"]))));
    assert_eq!(other.read("count"), Some(Value::Count(5)));
}

#[test]
fn a_batch_is_made_and_arrives_whole_or_not_at_all() {
    let mut state = State::new(peer(1), params(Config { keys_max: 3, ..Config::default() }), 1);
    let write = |name: &str| (key(name), Op::Set(bytes(name)));
    let mut actions = Vec::new();
    let mut batch = |state: &mut State, writes| {
        actions.clear();
        (state.batch(writes, at_millis(0), &mut actions), broadcasts(&actions))
    };
    let (stamp, sent) = batch(&mut state, vec![write("a"), write("b"), (key("c"), Op::Add(2))]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [3]);
    assert!(sent[0].iter().all(|write| Some(write.stamp) == stamp.clone().unwrap()), "one stamp for all");
    let digest = state.digest();
    let (error, sent) = batch(&mut state, vec![(key("a"), Op::Set(bytes("new"))), write("d")]);
    assert!(matches!(error, Err(SetError::Full { quota: Quota::Keys(3), .. })) && sent.is_empty());
    let (error, _) = batch(&mut state, vec![(key("a"), Op::Set(bytes("new"))), (key("c"), Op::Insert(bytes("m")))]);
    assert_eq!(error, Err(SetError::WrongKind { held: Kind::Count }.in_batch("c")));
    assert!(error.unwrap_err().to_string().starts_with("`c`: "), "it says which");
    let (error, _) = batch(&mut state, vec![write("a"), write("a")]);
    assert_eq!(error, Err(SetError::KeyRepeated(key("a"))));
    let (error, _) = batch(&mut state, (0..=BATCH_LEN_MAX).map(|number| write(&number.to_string())).collect());
    assert!(matches!(error, Err(SetError::BatchTooLarge { .. })));
    assert_eq!((state.digest(), state.get("a")), (digest, Some(&bytes("a"))), "nothing was changed");
    assert_eq!(batch(&mut state, Vec::new()).0, Ok(None));
}

#[test]
fn a_batch_does_not_mix_with_what_waits() {
    let mut state = replica(1);
    let mut actions = Vec::new();
    for name in ["a", "b"] {
        state.set(name, bytes("1"), at_millis(0), &mut actions).unwrap();
    }
    state.batch(vec![(key("b"), Op::Set(bytes("2"))), (key("c"), Op::Set(bytes("2")))], at_millis(0), &mut actions).unwrap();
    let sent = broadcasts(&actions);
    let names: Vec<Vec<&str>> = sent.iter().map(|writes| writes.iter().map(|write| write.key.as_str()).collect()).collect();
    assert_eq!(names, [vec!["a"], vec!["b"], vec!["b", "c"]]);
}

#[test]
fn sets_are_bounded_and_say_so() {
    let mut state = replica(1);
    for number in 0..MEMBERS_MAX {
        state.apply("set", Op::Insert(Bytes::from(number.to_string())), at_millis(0), &mut Vec::new()).unwrap();
    }
    let error = state.apply("set", Op::Insert(bytes("one more")), at_millis(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::TooManyMembers { len_max: MEMBERS_MAX });
    let half = Bytes::from(vec![0; limits::VALUE_BYTES_MAX / 2]);
    state.apply("large", Op::Include(half.clone()), at_millis(0), &mut Vec::new()).unwrap();
    let error = state.apply("large", Op::Include(bytes("x")), at_millis(0), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::TooManyMembers { len_max: MEMBERS_MAX });
    let full = Bytes::from(vec![0; limits::VALUE_BYTES_MAX]);
    for op in [Op::Best(1.0, full.clone()), Op::Put(full.clone()), Op::Insert(full)] {
        let error = state.apply("x", op, at_millis(0), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, SetError::TooManyMembers { .. } | SetError::ValueTooLarge { .. }), "{error}");
    }
    state.store().check_sums();
}

/// What a hostile writer may send instead of a sound value: each is refused by name and leaves nothing.
#[test]
fn values_that_contradict_themselves_are_refused() {
    let mut writer = prompt(1);
    let mut found = 0;
    for op in [Op::Insert(bytes("b")), Op::Insert(bytes("a")), Op::Include(bytes("b")), Op::Put(bytes("a")), Op::Add(3), Op::Remove] {
        let name = op.kind().map_or("set", Kind::name);
        let deltas = apply(&mut writer, name, op);
        for delta in deltas {
            for index in 0..delta.len() {
                for flip in [1, 2, 0x80, 0xff] {
                    let mut bytes = delta.to_vec();
                    bytes[index] ^= flip;
                    let mut state = replica(2);
                    let mut actions = Vec::new();
                    state.handle(Input::Delta { origin: peer(1), bytes: bytes.into() }, at_millis(20), &mut actions);
                    let blamed = misbehaviors(&actions);
                    assert!(blamed.is_empty() || state.digest().keys == 0, "what is blamed is not kept: {blamed:?}");
                    found += blamed.len();
                    state.store().check_sums();
                }
            }
        }
    }
    assert!(found > 100, "{found}");
    let unsorted = Step::Whole(decode::<Typed>(&[1, 1, 6, 2, 1, b'b', 1, b'a']).unwrap());
    assert!(!unsorted.is_sound());
    let sorted = Step::Whole(decode::<Typed>(&[1, 1, 6, 2, 1, b'a', 1, b'b']).unwrap());
    assert!(sorted.is_sound());
}

/// Numbers at the end of their range would make the next write of whoever they name overflow.
#[test]
fn numbers_that_leave_no_room_for_the_next_are_refused() {
    let typed = |length, state| Body::Step(Box::new(Step::Whole(Typed { length, state })));
    // A change of the actor seven from 0 to the last step that there is, with nothing in it.
    let mut steps = vec![0; 8];
    steps[7] = 7;
    steps.push(0);
    steps.extend([0xff; 9]);
    steps.extend([1, 0, 0]);
    let bodies = [
        typed(u32::MAX, Some(value::State::GSet(Default::default()))),
        typed(u32::MAX - 1, None),
        Body::Step(Box::new(Step::Set(1, decode(&steps).unwrap()))),
    ];
    for body in bodies {
        let mut state = prompt(2).with_actor(Actor(7));
        let write = Write { key: key("x"), stamp: Stamp::from_parts(EPOCH.as_millis(), 0), body };
        let mut actions = Vec::new();
        let bytes = encode(&Delta::Writes(Bounded::first_of([write])));
        state.handle(Input::Delta { origin: peer(1), bytes }, at_millis(0), &mut actions);
        assert_eq!(misbehaviors(&actions), [(peer(1), Misbehavior::Undecodable(DecodeError::Invalid))]);
        apply(&mut state, "x", Op::Insert(Bytes::from_static(b"m")));
        assert_eq!(state.read("x"), Some(Value::Set(texts(&["m"]))));
        apply(&mut state, "x", Op::Remove);
    }
}

/// Otherwise the key would read as removed for good, whatever is set.
#[test]
fn a_removal_from_the_future_inside_a_value_is_refused_as_well() {
    let mut state = prompt(2);
    let gone = value::State::Lww(Stamp::MAX, peer(1), Register::Removed);
    let body = Body::Step(Box::new(Step::Whole(Typed { length: 3, state: Some(gone) })));
    let write = Write { key: key("x"), stamp: Stamp::from_parts(EPOCH.as_millis(), 0), body };
    let mut actions = Vec::new();
    state.handle(Input::Delta { origin: peer(1), bytes: encode(&Delta::Writes(Bounded::first_of([write]))) }, at_millis(0), &mut actions);
    assert_eq!(misbehaviors(&actions), [(peer(1), Misbehavior::StampAhead)]);
    apply(&mut state, "x", Op::Set(bytes("here")));
    assert_eq!(state.get("x"), Some(&bytes("here")));
}

/// Repair may bring a member to others while its step still waits to be told, with the removal that follows it.
#[test]
fn a_removal_is_told_to_those_who_had_the_member_by_repair() {
    let mut state = replica(1);
    apply(&mut state, "other", Op::Add(1));
    let mut actions = Vec::new();
    state.apply("set", Op::Insert(bytes("m")), at_millis(1), &mut actions).unwrap();
    let mut other = replica(2);
    let held = state.entry_of(&key("set")).unwrap();
    other.handle(Input::NeighborUp(peer(1)), at_millis(1), &mut Vec::new());
    let entries = Message::Entries { entries: Bounded::first_of([held]) };
    other.handle(Input::Received { from: peer(1), message: entries }, at_millis(1), &mut Vec::new());
    assert_eq!(other.read("set"), Some(Value::Set(texts(&["m"]))));
    state.apply("set", Op::Take(bytes("m")), at_millis(2), &mut actions).unwrap();
    state.handle(Input::DeadlineReached, at_millis(100), &mut actions);
    deliver(&mut other, 1, &sent(&actions));
    assert_eq!(other.read("set"), Some(Value::Set(Vec::new())));
}

#[test]
fn a_set_that_a_join_made_too_large_can_shrink() {
    let (mut a, mut b) = pair();
    let part = |letter: u8| Bytes::from(vec![letter; limits::VALUE_BYTES_MAX / 5]);
    let mut from_a = apply(&mut a, "set", Op::Insert(part(b'a')));
    from_a.extend(apply(&mut a, "set", Op::Insert(part(b'b'))));
    let mut from_b = apply(&mut b, "set", Op::Insert(part(b'c')));
    from_b.extend(apply(&mut b, "set", Op::Insert(part(b'd'))));
    deliver(&mut a, 2, &from_b);
    deliver(&mut b, 1, &from_a);
    let error = a.apply("set", Op::Insert(bytes("more")), at_millis(30), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::TooManyMembers { len_max: MEMBERS_MAX });
    a.apply("set", Op::Take(part(b'c')), at_millis(30), &mut Vec::new()).unwrap().expect("it was there");
    assert_eq!(a.read("set"), Some(Value::Set(vec![part(b'a'), part(b'b'), part(b'd')])));
}

#[test]
fn a_life_that_forgot_everything_has_another_actor() {
    let (mut before, mut other) = pair();
    let deltas = apply(&mut before, "count", Op::Add(5));
    deliver(&mut other, 1, &deltas);
    let mut after = prompt(1).with_actor(Actor(99));
    let deltas = apply(&mut after, "count", Op::Add(2));
    deliver(&mut other, 1, &deltas);
    assert_eq!(other.read("count"), Some(Value::Count(7)));
}
