//! Removals are forgotten once everybody knows of them, and nothing that was removed comes back, whoever was away meanwhile.

use super::*;
use crate::floor::{Floor, seconds as seconds_of};
use crate::journal::Image;

const AFTER: Duration = Duration::from_secs(60);
const ABSENT: Duration = Duration::from_secs(300);

fn config() -> Config {
    Config { collect_after: Some(AFTER), absent_max: ABSENT, ..Config::default() }
}

fn network(count: usize, seed: u64) -> Network {
    let mut network = Network::new(count, seed, &config());
    network.connect_all();
    network
}

fn cut_off(network: &mut Network, index: usize) {
    network.cut.extend((0..network.replicas.len()).filter(|other| *other != index).map(|other| (index.min(other), index.max(other))));
}

#[test]
fn removals_are_forgotten_everywhere_and_their_keys_can_be_used_again() {
    for seed in 0..3 {
        let mut network = network(5, seed);
        (network.broadcast_loss, network.control_loss) = (0.2, 0.05);
        for number in 0..60 {
            network.set(number % 5, &format!("key{number}"), "value");
            network.apply(number % 5, &format!("set{}", number % 20), Op::Insert(bytes("member"))).unwrap();
        }
        network.run_for(Duration::from_secs(20));
        for number in 0..60 {
            network.remove((number + 1) % 5, &format!("key{number}"));
            network.remove((number + 1) % 5, &format!("set{}", number % 20));
        }
        network.run_for(AFTER / 2);
        assert!(network.replicas.iter().all(|replica| replica.is_empty() && replica.tombstones() == 80), "not yet");
        network.run_for(6 * AFTER);
        network.assert_converged();
        for replica in &network.replicas {
            assert_eq!((replica.len(), replica.tombstones(), replica.bytes()), (0, 0, 0), "seed {seed}");
            assert_eq!(replica.counters().collected, 80, "seed {seed}");
        }
        // Also one whose causal length begins again.
        network.set(0, "key1", "again");
        network.apply(1, "set1", Op::Insert(bytes("again"))).unwrap();
        network.run_for(Duration::from_secs(30));
        network.assert_converged();
        assert_eq!(network.replicas[4].len(), 2);
    }
}

/// While writes go on everywhere digests are hardly ever equal, and comparisons that were led to their end tell enough.
#[test]
fn removals_are_forgotten_while_everybody_writes() {
    let mut network = network(4, 3);
    network.delay_millis = 50..200;
    for number in 0..2_400_u64 {
        network.set((number % 4) as usize, &format!("busy{}", number % 40), &number.to_string());
        if number < 30 {
            network.set(0, &format!("gone{number}"), "value");
            network.remove(0, &format!("gone{number}"));
        }
        network.run_for(Duration::from_millis(150));
    }
    assert!(network.replicas.iter().all(|replica| replica.tombstones() == 0), "{:?}", network.replicas[0].floor());
}

#[test]
fn whoever_is_away_is_waited_for() {
    let mut network = network(5, 1);
    for number in 0..20 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(Duration::from_secs(5));
    cut_off(&mut network, 4);
    (0..20).for_each(|number| network.remove(1, &format!("key{number}")));
    network.set(4, "mine", "kept");
    network.run_for(3 * AFTER);
    assert_eq!(network.replicas[0].tombstones(), 20, "the fifth may be back");
    network.cut.clear();
    network.run_for(4 * AFTER);
    network.assert_converged();
    assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (1, 0));
    assert!(network.replicas.iter().all(|replica| replica.counters().given_up == 0));
}

#[test]
fn whoever_left_is_not() {
    let mut network = network(5, 2);
    for number in 0..20 {
        network.set(4, &format!("key{number}"), "value");
    }
    (0..20).for_each(|number| network.remove(4, &format!("key{number}")));
    network.run_for(2 * AFTER / 3);
    cut_off(&mut network, 4);
    (0..4).for_each(|index| network.handle(index, Input::Left(peer(4))));
    network.run_for(5 * AFTER);
    assert!(network.replicas[..4].iter().all(|replica| replica.tombstones() == 0));
}

/// It is waited for long enough to start again.
#[test]
fn whoever_left_and_is_back_gives_nothing_up() {
    let mut network = network(5, 2);
    for number in 0..20 {
        network.set(4, &format!("key{number}"), "value");
    }
    network.run_for(4 * AFTER);
    cut_off(&mut network, 4);
    for index in 0..4 {
        network.handle(index, Input::Left(peer(4)));
        network.handle(index, Input::NeighborDown(peer(4)));
    }
    network.run_for(AFTER / 2);
    network.cut.clear();
    network.connect_all();
    (0..10).for_each(|number| network.remove(1, &format!("key{number}")));
    network.run_for(6 * AFTER);
    network.assert_converged();
    for replica in &network.replicas {
        assert_eq!((replica.len(), replica.tombstones(), replica.counters().given_up), (10, 0, 0));
    }
}

/// One is away for longer than anybody waits for. What was removed meanwhile does not come back with it, and what it wrote meanwhile does.
#[test]
fn whoever_was_away_for_too_long_brings_nothing_back_but_its_own() {
    for seed in 0..4 {
        let mut network = network(6, seed);
        for number in 0..30 {
            network.set(number % 6, &format!("key{number}"), "value");
            network.apply(number % 6, &format!("set{number}"), Op::Insert(bytes("member"))).unwrap();
        }
        network.run_for(2 * AFTER);
        network.assert_converged();
        cut_off(&mut network, 5);
        (0..20).for_each(|number| network.remove(0, &format!("key{number}")));
        (0..20).for_each(|number| network.remove(0, &format!("set{number}")));
        network.set(5, "while away", "kept");
        network.apply(5, "count while away", Op::Add(7)).unwrap();
        network.remove(5, "key29");
        network.run_for(ABSENT + 5 * AFTER);
        assert!(network.replicas[..5].iter().all(|replica| replica.tombstones() == 0), "{:?}", network.replicas[0].floor());
        network.set(5, "just now", "kept");

        network.cut.clear();
        network.run_for(Duration::from_secs(60));
        network.assert_converged();
        let replica = &network.replicas[0];
        assert!((0..20).all(|number| replica.get(&format!("key{number}")).is_none()), "seed {seed}");
        assert!((0..20).all(|number| replica.kind(&format!("set{number}")).is_none()), "seed {seed}");
        assert!((20..29).all(|number| replica.get(&format!("key{number}")).is_some()), "seed {seed}");
        assert!((20..30).all(|number| replica.kind(&format!("set{number}")).is_some()), "seed {seed}");
        assert_eq!(replica.get("key29"), None, "what it removed is removed for all");
        assert_eq!((replica.get("while away"), replica.get("just now")), (Some(&bytes("kept")), Some(&bytes("kept"))));
        assert_eq!(replica.read("count while away"), Some(Value::Count(7)));
        assert!(network.replicas[5].counters().given_up > 0 && network.replicas[..5].iter().all(|other| other.counters().given_up == 0));
        assert!(network.misbehaved.is_empty(), "{:?}", network.misbehaved);
    }
}

/// Neither half goes on without the other, however long it takes.
#[test]
fn two_halves_wait_for_each_other() {
    let mut network = network(6, 5);
    for number in 0..10 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(Duration::from_secs(20));
    network.cut.extend((0..3).flat_map(|a| (3..6).map(move |b| (a, b))));
    (0..10).for_each(|number| network.remove(0, &format!("key{number}")));
    network.set(5, "other half", "kept");
    network.run_for(3 * ABSENT);
    assert!(network.replicas[..3].iter().all(|replica| replica.tombstones() == 10));
    network.cut.clear();
    network.run_for(Duration::from_secs(10));
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 1);
}

/// A node that joins after removals were forgotten has nothing to forget, takes what is old, and takes part from then on.
#[test]
fn a_new_node_takes_old_entries() {
    let mut network = Network::new(4, 6, &config());
    for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        network.handle(a, Input::NeighborUp(peer(b as u8)));
    }
    cut_off(&mut network, 3);
    for number in 0..30 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(Duration::from_secs(1));
    (0..20).for_each(|number| network.remove(1, &format!("key{number}")));
    network.run_for(5 * AFTER);
    assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (10, 0));
    network.cut.clear();
    network.connect_all();
    network.run_for(Duration::from_secs(20));
    network.assert_converged();
    assert_eq!(network.replicas[3].len(), 10);
    network.remove(3, "key25");
    network.run_for(5 * AFTER);
    network.assert_converged();
    assert!(network.replicas.iter().all(|replica| replica.tombstones() == 0 && replica.floor() > Stamp::ZERO));
}

/// What a node knows of the floor is written down behind what it rests on, so that it goes on from there and from no further.
#[test]
fn a_restart_goes_on_from_the_floor() {
    let mut network = network(4, 7);
    let mut image = Image::default();
    let seed = 99;
    let now = network.now(3);
    network.replicas[3].restore([], now);
    for number in 0..30 {
        network.set(3, &format!("key{number}"), "value");
    }
    network.run_for(Duration::from_secs(20));
    (0..20).for_each(|number| network.remove(3, &format!("key{number}")));
    for _ in 0..60 {
        network.run_for(AFTER / 12);
        write_down(&mut network, 3, &mut image);
    }
    assert_eq!(network.replicas[3].tombstones(), 0);
    assert_eq!(image.records().filter(|record| matches!(record, crate::journal::Record::Entry(_))).count(), 10);

    // It was down for longer than anybody waits for, and others removed what it holds.
    cut_off(&mut network, 3);
    (20..25).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(ABSENT + 5 * AFTER);
    let floor = network.replicas[3].floor();
    network.cut.clear();
    restart(&mut network, 3, &image, seed);
    assert_eq!((network.replicas[3].len(), network.replicas[3].floor()), (10, floor));
    network.run_for(Duration::from_secs(30));
    network.assert_converged();
    assert_eq!(network.replicas[3].len(), 5);
}

fn write_down(network: &mut Network, index: usize, image: &mut Image) {
    let now = network.now(index);
    while network.replicas[index].unrecorded() > 0 {
        network.replicas[index].records(3, now).into_iter().for_each(|record| image.apply(record));
    }
}

fn restart(network: &mut Network, index: usize, image: &Image, seed: u64) {
    let mut state = State::new(peer(index as u8), params(config()), seed);
    state.restore(image.records(), network.now(index));
    let others =
        (0..network.replicas.len()).filter(|other| *other != index && !network.cut.contains(&(index.min(*other), index.max(*other))));
    others.for_each(|other| state.handle(Input::NeighborUp(peer(other as u8)), network.now(index), &mut Vec::new()));
    network.views[index] = state.keys("").map(|(key, _)| (key.clone(), state.read(key).unwrap())).collect();
    network.replicas[index] = state;
}

/// They know of nobody but each other, and that they hold the same says nothing of the others.
#[test]
fn two_that_restart_and_meet_first_bring_nothing_back() {
    let mut network = network(6, 17);
    let mut images = [Image::default(), Image::default()];
    for index in [4, 5] {
        let now = network.now(index);
        network.replicas[index].restore([], now);
    }
    for number in 0..30 {
        network.set(0, &format!("key{number}"), "value");
    }
    for _ in 0..60 {
        network.run_for(AFTER / 12);
        (0..2).for_each(|index| write_down(&mut network, 4 + index, &mut images[index]));
    }
    network.cut.extend((0..4).flat_map(|a| [(a, 4), (a, 5)]));
    (0..20).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(ABSENT + 5 * AFTER);
    assert_eq!(network.replicas[0].tombstones(), 0);
    (0..2).for_each(|index| restart(&mut network, 4 + index, &images[index], 100 + index as u64));
    network.run_for(3 * AFTER);
    network.cut.clear();
    network.connect_all();
    network.run_for(3 * AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 10);
}

/// That it gave up what it had to says nothing of what was removed after that.
#[test]
fn whoever_left_twice_brings_nothing_back_either() {
    let config = Config { collect_after: Some(AFTER), absent_max: 20 * AFTER, ..Config::default() };
    let mut network = Network::new(5, 3, &config);
    network.connect_all();
    for number in 0..30 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(2 * AFTER);
    for round in 1..3 {
        cut_off(&mut network, 4);
        for index in 0..4 {
            network.handle(index, Input::Left(peer(4)));
            network.handle(index, Input::NeighborDown(peer(4)));
            network.handle(4, Input::NeighborDown(peer(index as u8)));
        }
        (0..10).for_each(|number| network.remove(1, &format!("key{}", round * 10 + number)));
        network.run_for(5 * AFTER);
        assert_eq!(network.replicas[0].tombstones(), 0);
        network.cut.clear();
        network.connect_all();
        network.run_for(AFTER);
        network.assert_converged();
        assert_eq!(network.replicas[0].len(), 30 - round * 10);
    }
}

/// That nothing was missed until some moment says nothing of what came after.
#[test]
fn whoever_was_told_of_a_low_floor_gives_up_by_a_high_one() {
    let mut state = replica_that_collects();
    let now = at_millis(2_000_000);
    let receive = |state: &mut State, from: u8, message: Message| {
        let mut actions = Vec::new();
        state.handle(Input::NeighborUp(peer(from)), now, &mut actions);
        actions.clear();
        state.handle(Input::Received { from: peer(from), message }, now, &mut actions);
        actions
    };
    let theirs =
        wire::Entry { key: key("theirs"), stamp: stamp_ahead(at_millis(1_000), 0), origin: peer(3), body: Body::Register(bytes("value")) };
    receive(&mut state, 2, Message::Entries { entries: Bounded::first_of([theirs]) });
    let away = |floor: u32| {
        let known = wire::Known { member: peer(1), heard: 0, left: seconds_of(now.wall) - 300, back: 0, through: 0, complete: 0 };
        Message::Away { floor, table: Bounded::first_of([known]) }
    };
    receive(&mut state, 2, away(0));
    assert_eq!((state.len(), state.counters().given_up), (1, 0));
    receive(&mut state, 3, away(seconds_of(now.wall) - 60));
    assert_eq!((state.len(), state.counters().given_up), (0, 1));
    // Once.
    let again =
        wire::Entry { key: key("again"), stamp: stamp_ahead(at_millis(1_000), 0), origin: peer(3), body: Body::Register(bytes("value")) };
    receive(&mut state, 2, Message::Entries { entries: Bounded::first_of([again]) });
    receive(&mut state, 3, away(seconds_of(now.wall) - 50));
    assert_eq!((state.len(), state.counters().given_up), (1, 1));
}

fn replica_that_collects() -> State {
    State::new(peer(1), params(config()), 7)
}

/// Floors and tables that cannot be true, and more members than fit.
#[test]
fn false_floors_forget_nothing() {
    let mut state = replica_that_collects();
    let (now, mut actions) = (at_millis(1_000_000), Vec::new());
    state.set("old", bytes("value"), at_millis(0), &mut actions).unwrap();
    state.remove("old", at_millis(1), &mut actions).unwrap();
    state.set("live", bytes("value"), at_millis(2), &mut actions).unwrap();
    state.handle(Input::NeighborUp(peer(2)), now, &mut actions);
    let second = |now: Now| (now.wall.as_millis() / 1_000) as u32;
    let receive = |state: &mut State, message: Message| {
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(2), message }, now, &mut actions);
        actions
    };
    // What was removed here others may not know of yet.
    for floor in [1, second(now) - 100, second(now), u32::MAX] {
        assert_eq!(receive(&mut state, Message::Floor { floor }), []);
    }
    let away = |floor: u32, member: PeerId| {
        let known = wire::Known { member, heard: 0, left: second(now) - 50, back: 0, through: 0, complete: 0 };
        Message::Away { floor, table: Bounded::first_of([known]) }
    };
    assert_eq!(receive(&mut state, away(second(now) - 100, peer(3))), [], "it is of another");
    let stranger = Input::Received { from: peer(5), message: away(second(now) - 100, peer(1)) };
    state.handle(stranger, now, &mut actions);
    // Tables that nobody asked for.
    let known = |number: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        wire::Known { member: PeerId::from_bytes(id), heard: u32::MAX, left: 0, back: 0, through: u32::MAX, complete: u32::MAX }
    };
    let table = Bounded::first_of((0..1_024).map(known));
    receive(&mut state, Message::Members { frames: 0, table, is_last: true });
    receive(&mut state, Message::Frames { frames: 0 });
    assert_eq!((state.len(), state.tombstones()), (1, 1));
    // What nobody else can know of is not given up.
    for floor in [u32::MAX, second(now) - 100] {
        let answer = receive(&mut state, away(floor, peer(1)));
        assert!(matches!(answer[..], [Action::Send { message: Message::Back { .. }, .. }]), "{answer:?}");
    }
    assert_eq!((state.len(), state.tombstones(), state.counters().given_up), (1, 1, 0));
    state.store().check_sums();
}

/// Each makes a replica go through all that it has.
#[test]
fn floors_cost_whoever_tells_them() {
    let mut state = State::new(peer(1), params(config()), 7);
    let (now, mut actions) = (at_millis(0), Vec::new());
    state.handle(Input::NeighborUp(peer(2)), now, &mut actions);
    let first = (now.wall.as_millis() / 1_000) as u32 - 2_000;
    for floor in first..first + 1_000 {
        state.handle(Input::Received { from: peer(2), message: Message::Floor { floor } }, now, &mut actions);
    }
    assert_eq!(state.floor().millis(), u64::from(first + 32) * 1_000);
    assert!(misbehaviors(&actions).iter().all(|(from, what)| (*from, *what) == (peer(2), Misbehavior::TooManyRequests)));
}

/// Five nodes of which three went on without two, and then two of the three without the third, which found the first two again.
#[test]
fn two_parts_that_both_went_on_lose_nothing() {
    let mut network = network(5, 8);
    for number in 0..20 {
        network.set(number % 5, &format!("key{number}"), "value");
    }
    network.run_for(2 * AFTER);
    let between = |parts: [&[usize]; 2]| -> BTreeSet<(usize, usize)> {
        parts[0].iter().flat_map(|a| parts[1].iter().map(move |b| (*a.min(b), *a.max(b)))).collect()
    };
    network.cut = between([&[0, 1, 2], &[3, 4]]);
    network.run_for(ABSENT + 4 * AFTER);
    network.cut = between([&[0, 1], &[2, 3, 4]]);
    network.set(1, "one part", "kept");
    network.set(3, "other part", "kept");
    let parted = network.now(0).wall.as_millis();
    network.run_for(ABSENT + 6 * AFTER);
    assert!(network.replicas.iter().all(|replica| replica.floor().millis() > parted), "both went on");
    network.cut.clear();
    network.run_for(2 * AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 22);
}

/// The first that it meets is not as far as others that went on without it.
#[test]
fn whoever_was_away_gives_up_what_anybody_may_have_forgotten() {
    let mut is_tried = false;
    for seed in 0..8 {
        let mut network = network(5, seed);
        network.run_for(2 * AFTER);
        for number in 0..20 {
            network.set(0, &format!("key{number}"), "value");
        }
        network.run_for(Duration::from_secs(3));
        cut_off(&mut network, 4);
        (0..20).for_each(|number| network.remove(1, &format!("key{number}")));
        let (removed, now) = (network.replicas[1].last_stamp(), |network: &Network| seconds_of(network.now(0).wall));
        let first = loop {
            network.run_for(Duration::from_millis(100));
            let now = now(&network);
            let is_behind = |state: &mut State| state.repair().floor().is_away(peer(4), now) && state.floor() < removed;
            let first = (0..4).find(|index| is_behind(&mut network.replicas[*index]));
            let is_ahead = |state: &State| state.floor() > removed;
            if network.replicas[..4].iter().any(is_ahead) {
                break first;
            }
        };
        let Some(first) = first else { continue };
        is_tried = true;
        network.cut = (0..5).flat_map(|a| (a + 1..5).map(move |b| (a, b))).filter(|pair| *pair != (first, 4)).collect();
        network.run_for(Duration::from_secs(1));
        let probe = network.now(4);
        let digest = network.replicas[4].digest();
        network.handle(first, Input::Received { from: peer(4), message: Message::Probe { digest, wall: probe.wall } });
        network.run_for(Duration::from_millis(45));
        network.cut.retain(|pair| pair.1 != 4);
        network.cut.insert((first, 4));
        network.run_for(Duration::from_secs(5));
        network.cut.clear();
        network.run_for(AFTER);
        network.assert_converged();
        assert_eq!(network.replicas[0].len(), 0, "seed {seed}");
    }
    assert!(is_tried);
}

/// Whoever keeps tombstones for ever holds the others up only as long as anybody waits for it.
#[test]
fn whoever_forgets_nothing_is_let_in_again() {
    let mut network = network(4, 10);
    network.replicas[3] = State::new(peer(3), params(Config { collect_after: None, ..config() }), 5);
    for other in 0..3 {
        network.handle(3, Input::NeighborUp(peer(other)));
    }
    for number in 0..10 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(AFTER);
    cut_off(&mut network, 3);
    (0..5).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(ABSENT + 5 * AFTER);
    assert!(network.replicas[..3].iter().all(|replica| replica.tombstones() == 0));
    network.cut.clear();
    network.run_for(AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 5);
}

#[test]
fn whoever_was_away_with_a_clock_behind_is_let_in_again() {
    for behind in [60_000, HOUR_MILLIS] {
        for has_left in [false, true] {
            let mut network = network(4, 11);
            for number in 0..10 {
                network.set(0, &format!("key{number}"), "value");
            }
            network.run_for(AFTER);
            cut_off(&mut network, 3);
            if has_left {
                (0..3).for_each(|index| network.handle(index, Input::Left(peer(3))));
            }
            (0..5).for_each(|number| network.remove(0, &format!("key{number}")));
            network.run_for(ABSENT + 5 * AFTER);
            assert!(network.replicas[..3].iter().all(|replica| replica.tombstones() == 0));
            network.wall_offset_millis[3] = -behind;
            network.cut.clear();
            network.run_for(AFTER);
            network.assert_converged();
        }
    }
}

/// What came after it was made again says nothing of what it held before.
#[test]
fn a_set_that_was_made_again_gets_no_old_members() {
    let mut network = network(4, 12);
    for number in 0..10 {
        network.apply(0, &format!("set{number}"), Op::Insert(bytes("old"))).unwrap();
    }
    network.run_for(AFTER);
    cut_off(&mut network, 3);
    (0..10).for_each(|number| network.remove(0, &format!("set{number}")));
    network.run_for(ABSENT + 5 * AFTER);
    assert!(network.replicas[..3].iter().all(|replica| replica.tombstones() == 0));
    network.cut.clear();
    for number in 0..10 {
        network.apply(1, &format!("set{number}"), Op::Insert(bytes("new"))).unwrap();
    }
    network.run_for(AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].read("set1"), Some(Value::Set(vec![bytes("new")])));
}

/// Once there is room again for all members, removals are forgotten again.
#[test]
fn a_table_that_was_short_is_not_for_ever() {
    let mut floor = Floor::new(peer(1), Some(AFTER), ABSENT);
    let known = |number: u32, heard: u32, left: u32| {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        wire::Known { member: PeerId::from_bytes(id), heard, left, back: 0, through: heard, complete: heard }
    };
    let now = 1_000_000;
    let table: Vec<wire::Known> = (0..20_000).map(|number| known(number, now, now)).collect();
    assert!(!floor.adopt(&table, now), "nobody knows of all");
    let later = now + 10_000;
    floor.adopt(&[known(30_000, later, 0)], later);
    assert!(floor.adopt(&[known(30_000, later, 0)], later), "{:?}", floor.position());
}

/// Each of two holds what the other has no room for. Removing makes room for it again.
#[test]
fn full_replicas_forget_removals() {
    let mut network = Network::new(2, 13, &Config { keys_max: 10, ..config() });
    network.connect_all();
    for number in 0..9 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(AFTER);
    network.cut.insert((0, 1));
    network.set(0, "a", "value");
    network.set(1, "b", "value");
    network.cut.clear();
    network.run_for(Duration::from_secs(10));
    assert!(network.replicas.iter().all(|replica| replica.counters().refused > 0));
    (0..9).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(6 * AFTER);
    network.assert_converged();
    assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (2, 0));
}

/// It said that it holds what was not on its disk when it crashed.
#[test]
fn whoever_crashed_brings_nothing_back() {
    let mut network = network(3, 14);
    let mut image = Image::default();
    let now = network.now(2);
    network.replicas[2].restore([], now);
    for number in 0..10 {
        network.set(0, &format!("key{number}"), "value");
    }
    for _ in 0..24 {
        network.run_for(AFTER / 12);
        let now = network.now(2);
        network.replicas[2].records(usize::MAX, now).into_iter().for_each(|record| image.apply(record));
    }
    (0..5).for_each(|number| network.remove(0, &format!("key{number}")));
    // What is handed over from now on never reaches the disk: a minute passes before it is synced.
    for _ in 0..11 {
        network.run_for(AFTER / 12);
        let now = network.now(2);
        network.replicas[2].records(usize::MAX, now);
    }
    cut_off(&mut network, 2);
    network.run_for(3 * AFTER);
    let mut state = State::new(peer(2), params(config()), 99);
    state.restore(image.records(), network.now(2));
    (0..2).for_each(|other| state.handle(Input::NeighborUp(peer(other)), network.now(2), &mut Vec::new()));
    network.views[2] = state.keys("").map(|(key, _)| (key.clone(), state.read(key).unwrap())).collect();
    network.replicas[2] = state;
    network.cut.clear();
    network.run_for(AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 5);
}

/// Its disk takes nothing any more, for however long: nobody forgets what is not on it.
#[test]
fn whoever_crashed_after_its_disk_was_full_brings_nothing_back() {
    let mut network = network(5, 15);
    let mut image = Image::default();
    let now = network.now(4);
    network.replicas[4].restore([], now);
    for number in 0..10 {
        network.set(0, &format!("key{number}"), "value");
    }
    for _ in 0..24 {
        network.run_for(AFTER / 12);
        write_down(&mut network, 4, &mut image);
    }
    (0..5).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(10 * AFTER);
    assert!(network.replicas.iter().all(|replica| replica.tombstones() == 5));
    restart(&mut network, 4, &image, 99);
    network.run_for(AFTER);
    network.assert_converged();
    assert_eq!(network.replicas[0].len(), 5);
}

/// A clock that knows no date holds nobody up.
#[test]
fn removals_are_forgotten_where_a_clock_is_years_behind() {
    let mut network = Network::new(4, 30, &config());
    network.wall_offset_millis[3] = -50 * 365 * 24 * HOUR_MILLIS;
    network.connect_all();
    for number in 0..20 {
        network.set(0, &format!("key{number}"), "value");
    }
    network.run_for(AFTER);
    (0..10).for_each(|number| network.remove(0, &format!("key{number}")));
    network.run_for(6 * AFTER);
    network.assert_converged();
    assert!(network.replicas.iter().all(|replica| (replica.len(), replica.tombstones()) == (10, 0)));
}

/// A removal that comes late to all at once is not told by all.
#[test]
fn a_late_removal_is_made_again_by_few() {
    let mut network = network(20, 18);
    network.set(0, "key", "value");
    network.run_for(8 * AFTER);
    let stamp = network.replicas[0].entry("key").unwrap().stamp;
    assert!(network.replicas[0].floor() > stamp);
    let late = Stamp::from_bits(stamp.to_bits() + 1);
    for index in 0..19 {
        network.handle(index, Input::Delta { origin: peer(19), bytes: delta([("key", late, None)]) });
    }
    network.run_for(AFTER / 2);
    network.assert_converged();
    let count = |of: fn(&Counters) -> u64| network.replicas.iter().map(|replica| of(replica.counters())).sum::<u64>();
    assert_eq!(count(|counters| counters.removed_again), 19);
    assert!(count(|counters| counters.broadcasts) <= 8, "{}", count(|counters| counters.broadcasts));
}

/// What was counted anew is not what somebody counted before that was away.
#[test]
fn whoever_keeps_an_old_value_swallows_nothing_new() {
    let mut network = network(4, 31);
    network.apply(0, "set", Op::Insert(bytes("a"))).unwrap();
    network.apply(0, "set", Op::Insert(bytes("b"))).unwrap();
    network.apply(0, "set", Op::Take(bytes("a"))).unwrap();
    network.apply(0, "count", Op::Add(100)).unwrap();
    network.run_for(AFTER);
    cut_off(&mut network, 3);
    network.apply(3, "set", Op::Insert(bytes("mine"))).unwrap();
    network.apply(3, "count", Op::Add(1)).unwrap();
    network.remove(1, "set");
    network.remove(1, "count");
    network.run_for(ABSENT + 5 * AFTER);
    assert!(network.replicas[..3].iter().all(|replica| replica.tombstones() == 0));
    network.apply(0, "set", Op::Insert(bytes("new"))).unwrap();
    network.apply(0, "count", Op::Add(5)).unwrap();
    network.run_for(AFTER);
    network.cut.clear();
    network.run_for(AFTER);
    network.assert_converged();
    // What it wrote itself brought back the rest.
    assert_eq!(network.replicas[1].read("set"), Some(Value::Set(vec![bytes("b"), bytes("mine"), bytes("new")])));
    assert_eq!(network.replicas[1].read("count"), Some(Value::Count(106)));
    // What is counted on goes on under the name under which it was counted, also after there is another.
    network.apply(0, "other", Op::Insert(bytes("member"))).unwrap();
    network.remove(0, "other");
    network.run_for(5 * AFTER);
    assert_eq!(network.replicas[0].tombstones(), 0);
    let before = encode(&network.replicas[0].entry_of(&key("count")).unwrap()).len();
    network.apply(0, "count", Op::Add(1)).unwrap();
    assert_eq!(encode(&network.replicas[0].entry_of(&key("count")).unwrap()).len(), before);
}
