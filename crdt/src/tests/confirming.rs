//! How many hold a write, what several hold under a key, and waiting for a write elsewhere.

use super::*;

const WITHIN: Duration = Duration::from_secs(10);
const ONE: ConfirmId = ConfirmId(1);

fn peers(numbers: impl IntoIterator<Item = u8>) -> Vec<PeerId> {
    numbers.into_iter().map(peer).collect()
}

fn call(id: ConfirmId, peers: Vec<PeerId>, required: usize) -> Call {
    Call { id, peers, required, within: WITHIN }
}

/// Replicas that hear nothing by broadcast and compare too seldom to matter: what one holds of another came by confirmation.
fn apart(count: usize, seed: u64) -> Network {
    let config = Config { repair_period: Some(Duration::from_secs(500)), ..Config::default() };
    let mut network = Network::new(count, seed, &config);
    network.broadcast_loss = 1.0;
    network
}

impl Network {
    fn confirm(&mut self, index: usize, key: &str, to: impl IntoIterator<Item = u8>, required: usize) -> Result<(), ConfirmError> {
        let (now, mut actions) = (self.now(index), Vec::new());
        let begun = self.replicas[index].confirm(key, call(ONE, peers(to), required), now, &mut actions);
        self.execute(index, actions);
        begun
    }

    fn ask(&mut self, index: usize, name: &str, of: impl IntoIterator<Item = u8>, required: usize) {
        let (now, mut actions) = (self.now(index), Vec::new());
        self.replicas[index].ask(key(name), call(ONE, peers(of), required), now, &mut actions).unwrap();
        self.execute(index, actions);
    }

    fn named(&mut self, index: usize, key: &str, op: Op) -> WriteToken {
        let (now, mut actions) = (self.now(index), Vec::new());
        let token = self.replicas[index].apply_named(key, op, now, &mut actions).unwrap().unwrap();
        self.execute(index, actions);
        token
    }

    fn await_write(&mut self, index: usize, token: &WriteToken) {
        let (now, mut actions) = (self.now(index), Vec::new());
        self.replicas[index].await_write(ONE, token.clone(), WITHIN, now, &mut actions).unwrap();
        self.execute(index, actions);
    }

    /// The one confirmation that has ended, and when that was seen.
    fn ended(&mut self) -> Confirmed {
        assert_eq!(self.confirmed.len(), 1, "it ends once");
        let (_, id, confirmed) = self.confirmed.pop().unwrap();
        assert_eq!(id, ONE);
        confirmed
    }

    fn holders(&self, key: &str) -> Vec<u8> {
        (0..self.replicas.len()).filter(|index| self.replicas[*index].get(key).is_some()).map(|index| index as u8).collect()
    }
}

#[test]
fn a_confirmed_write_is_held_by_as_many_as_were_needed() {
    let mut network = apart(5, 1);
    network.set(0, "k", "v");
    network.confirm(0, "k", 1..5, 2).unwrap();
    network.run_for(Duration::from_millis(100));
    let confirmed = network.ended();
    assert!(confirmed.is_enough && confirmed.declined.is_empty() && confirmed.silent.is_empty());
    assert_eq!(network.holders("k"), [0, 1, 2], "and nobody else was bothered");
    assert_eq!(network.replicas[0].next_deadline(), None, "nothing is left of it");

    let (key, value) = ("k".repeat(limits::KEY_BYTES_MAX), "v".repeat(limits::VALUE_BYTES_MAX));
    network.set(0, &key, &value);
    network.confirm(0, &key, [4], 1).unwrap();
    network.run_for(Duration::from_millis(100));
    network.ask(3, &key, [4], 1);
    network.run_for(Duration::from_millis(100));
    assert_eq!((network.holders(&key), network.confirmed.len()), (vec![0, 3, 4], 2), "the largest entry fits both messages");
}

#[test]
fn loss_repetition_and_disorder_only_take_time() {
    for seed in 0..40 {
        let mut network = apart(6, seed);
        (network.control_loss, network.is_ordered, network.delay_millis) = (0.3, false, 1..400);
        network.apply(0, "n", Op::Add(5)).unwrap();
        network.set(0, "k", "v");
        network.confirm(0, "n", 1..6, 3).unwrap();
        network.run_for(WITHIN);
        let confirmed = network.ended();
        assert!(confirmed.is_enough, "seed {seed}: {confirmed}");
        for holder in confirmed.by {
            assert_eq!(network.replicas[usize::from(holder.as_bytes()[0])].read("n"), Some(Value::Count(5)), "seed {seed}");
        }
        assert_eq!(network.holders("k"), [0], "nothing else went along");
    }
}

/// The writer crashes in the moment in which its write is confirmed, or its time is over.
#[test]
fn a_confirmed_write_survives_the_crash_of_the_writer() {
    let (mut confirmed, mut lost) = (0, 0);
    for seed in 0..100 {
        let mut network = Network::new(5, seed, &Config { repair_period: Some(Duration::from_secs(1)), ..Config::default() });
        (network.broadcast_loss, network.control_loss, network.is_ordered) = (1.0, 0.4, false);
        network.set(0, "k", "v");
        let required = 1 + seed as usize % 3;
        network.confirm(0, "k", 1..5, required).unwrap();
        while network.confirmed.is_empty() && network.time < Time::from_millis(seed * 10) {
            network.run_for(Duration::from_millis(1));
        }
        let was_confirmed = network.confirmed.first().is_some_and(|(_, _, confirmed)| confirmed.is_enough);
        let holders = network.holders("k").len() - 1;
        assert!(!was_confirmed || holders >= required, "seed {seed}: {holders} hold it");
        network.cut = (1..5).map(|other| (0, other)).collect();
        network.queue.clear();
        for (a, b) in [(1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3)] {
            network.handle(a, Input::NeighborUp(peer(b)));
        }
        network.run_for(Duration::from_secs(120));
        let is_everywhere = network.holders("k") == [0, 1, 2, 3, 4];
        assert!(is_everywhere || !was_confirmed, "seed {seed}: it was confirmed and is lost");
        confirmed += usize::from(was_confirmed);
        lost += usize::from(!is_everywhere);
    }
    assert!(confirmed > 40 && lost > 2, "both happened: {confirmed} confirmed, {lost} lost");
}

#[test]
fn whoever_says_nothing_is_passed_over_and_at_the_deadline_all_is_told() {
    let mut network = apart(5, 1);
    network.cut = [(0, 1), (0, 2)].into();
    network.set(0, "k", "v");
    network.confirm(0, "k", 1..5, 2).unwrap();
    network.run_for(Duration::from_secs(1));
    let confirmed = network.ended();
    assert_eq!((confirmed.is_enough, confirmed.by, confirmed.silent), (true, peers([3, 4]), peers([1, 2])));

    network.cut.insert((0, 3));
    network.set(0, "other", "v");
    network.confirm(0, "other", 1..5, 2).unwrap();
    network.run_for(WITHIN - Duration::from_millis(1));
    assert_eq!(network.confirmed, []);
    network.run_for(Duration::from_millis(1));
    let confirmed = network.ended();
    assert_eq!((confirmed.is_enough, confirmed.required, &confirmed.by), (false, 2, &peers([4])));
    assert_eq!(confirmed.silent, peers([1, 2, 3]));
    assert_eq!(network.holders("other"), [0, 4], "what too few confirmed stays");

    // Whoever was found dead is passed over without waiting; cut is who may be back.
    network.cut.remove(&(0, 3));
    network.confirm(0, "k", 1..5, 2).unwrap();
    network.handle(0, Input::Unreached(peer(1)));
    network.handle(0, Input::Left(peer(2)));
    network.run_for(Duration::from_millis(100));
    assert_eq!(network.ended().by, peers([3, 4]));
}

#[test]
fn who_declines_says_why_and_another_is_asked() {
    let mut network = apart(4, 1);
    let small = Config { keys_max: 1, repair_period: Some(Duration::from_secs(500)), ..Config::default() };
    network.replicas[1] = State::new(peer(1), params(small), 1);
    network.set(1, "full", "x");
    network.wall_offset_millis[0] = 5_000;
    network.wall_offset_millis[1] = 5_000;
    network.set(0, "k", "v");
    network.wall_offset_millis[2] = 5_000;
    network.wall_offset_millis[3] = 4_700;
    network.confirm(0, "k", [1, 0, 1, 2, 3], 2).unwrap();
    network.run_for(Duration::from_millis(100));
    let confirmed = network.ended();
    assert_eq!((confirmed.by, confirmed.declined), (peers([2, 3]), vec![(peer(1), Decline::Full)]));

    // Too far ahead now, and taken once its time has come.
    network.wall_offset_millis[3] = 0;
    network.set(0, "soon", "v");
    network.confirm(0, "soon", [3], 1).unwrap();
    network.run_for(Duration::from_secs(3));
    assert_eq!(network.confirmed, []);
    assert_eq!(
        network.misbehaved.iter().filter(|(_, what)| *what == Misbehavior::StampAhead).count() as u64,
        network.replicas[3].counters().stamp_ahead
    );
    network.run_for(Duration::from_secs(6));
    assert!(network.ended().is_enough);

    assert_eq!(network.confirm(0, "k", [0, 1, 1, 2], 3), Err(ConfirmError::TooFew { have: 2, need: 3 }));
    network.confirm(0, "never written", [1], 1).unwrap();
    assert!(network.ended().is_enough, "of nothing there is nothing to hold");
    network.confirm(0, "k", [], 0).unwrap();
    assert!(network.ended().is_enough);
}

#[test]
fn who_was_away_for_too_long_confirms_nothing() {
    let mut network = apart(3, 1);
    // One waits for the writer no more; for another the writer does not.
    for (waiting, gone) in [(1, 0), (0, 2)] {
        network.handle(waiting, Input::NeighborUp(peer(gone)));
        network.handle(waiting, Input::Left(peer(gone)));
    }
    network.time = Time::from_secs(5_000);
    network.set(0, "k", "v");
    network.confirm(0, "k", [1, 2], 2).unwrap();
    network.run_for(WITHIN);
    let confirmed = network.ended();
    assert_eq!((confirmed.is_enough, confirmed.declined), (false, vec![(peer(1), Decline::Away), (peer(2), Decline::Away)]));
}

#[test]
fn only_who_was_asked_counts_and_once() {
    let mut state = replica(0);
    let mut actions = Vec::new();
    state.set("k", bytes("v"), at_millis(0), &mut actions).unwrap();
    actions.clear();
    state.confirm("k", call(ONE, peers([1, 2, 3]), 2), at_millis(0), &mut actions).unwrap();
    let [Action::Send { message: Message::Hold { id, .. }, .. }, Action::Send { .. }] = actions[..] else { panic!("{actions:?}") };
    let mut hear = |from: u8, message| {
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(from), message }, at_millis(1), &mut actions);
        actions
    };
    let entry = wire::Entry { key: key("k"), stamp: Stamp::from_parts(1, 0), origin: peer(3), body: Body::Removed };
    let answer = Message::Answer { id, entries: Bounded::first_of([entry]) };
    for from in [1, 3, 4] {
        assert_eq!(hear(from, Message::Held { id: id.wrapping_add(1) }), [], "nobody asked that");
        assert_eq!(hear(from, answer.clone()), [], "nobody asked for a key");
    }
    for _ in 0..3 {
        assert_eq!(hear(1, Message::Held { id }), []);
        assert_eq!(hear(3, Message::Held { id }), [], "it was not asked yet");
        assert_eq!(hear(4, Message::Held { id }), []);
        assert_eq!(hear(1, Message::Declined { id, why: Decline::Busy }), [], "it cannot take that back");
    }
    let [Action::Confirmed { id: ONE, confirmed }] = &hear(2, Message::Held { id })[..] else { panic!("it is over") };
    assert_eq!(confirmed.by, peers([1, 2]));
    assert_eq!(hear(2, Message::Held { id }), [], "and stays so");
}

#[test]
fn an_answer_about_another_key_is_refused_whole() {
    let mut state = replica(0);
    let mut actions = Vec::new();
    state.ask(key("k"), call(ONE, peers([1, 2]), 1), at_millis(0), &mut actions).unwrap();
    let [Action::Send { message: Message::Ask { id, .. }, .. }] = actions[..] else { panic!("{actions:?}") };
    let entry = |name| wire::Entry { key: key(name), stamp: Stamp::from_parts(1, 0), origin: peer(1), body: Body::Register(bytes("v")) };
    for entries in [vec![entry("other")], vec![entry("k"), entry("k")]] {
        actions.clear();
        let message = Message::Answer { id, entries: Bounded::first_of(entries) };
        state.handle(Input::Received { from: peer(1), message }, at_millis(1), &mut actions);
        assert_eq!(misbehaviors(&actions).len(), actions.len());
        assert_eq!(state.len(), 0);
    }
}

#[test]
fn what_is_open_is_bounded_and_what_is_given_up_is_gone() {
    let (mut state, mut actions) = (replica(0), Vec::new());
    state.set("k", bytes("v"), at_millis(0), &mut actions).unwrap();
    for number in 0..CONFIRMS_MAX as u64 {
        state.confirm("k", call(ConfirmId(number), peers([1]), 1), at_millis(0), &mut actions).unwrap();
    }
    let token = state.apply_named("k", Op::Set(bytes("w")), at_millis(0), &mut actions).unwrap().unwrap();
    assert_eq!(state.ask(key("k"), call(ONE, peers([1]), 1), at_millis(0), &mut actions), Err(ConfirmError::TooMany));
    assert_eq!(state.await_write(ONE, token, WITHIN, at_millis(0), &mut actions), Err(ConfirmError::TooMany));
    assert_eq!(state.check_confirm(1, 1), Err(ConfirmError::TooMany));
    (0..CONFIRMS_MAX as u64).for_each(|number| state.give_up(ConfirmId(number)));
    actions.clear();
    state.handle(Input::DeadlineReached, at(Time::ZERO + 2 * WITHIN), &mut actions);
    assert_eq!(broadcasts(&actions).len(), actions.len(), "nobody is told of what was given up");
    assert_eq!(state.next_deadline(), None);
    assert_eq!(state.check_confirm(1, 1), Ok(()));
}

#[test]
fn a_read_of_several_sees_what_they_hold_and_keeps_it() {
    let mut network = apart(5, 1);
    network.set(3, "k", "old");
    network.run_for(Duration::from_millis(10));
    network.set(4, "k", "new");
    network.apply(3, "n", Op::Add(2)).unwrap();
    network.apply(4, "n", Op::Add(3)).unwrap();
    network.ask(0, "k", [3, 4], 2);
    network.run_for(Duration::from_millis(100));
    assert!(network.ended().is_enough);
    assert_eq!(network.replicas[0].get("k"), Some(&bytes("new")));
    network.ask(0, "n", 1..5, 4);
    network.run_for(Duration::from_millis(100));
    assert_eq!(network.ended().by, peers(1..5), "nothing is an answer as well");
    assert_eq!(network.replicas[0].read("n"), Some(Value::Count(5)));

    network.cut = [(0, 1), (0, 2), (0, 3)].into();
    network.apply(4, "n", Op::Add(1)).unwrap();
    network.ask(0, "n", 1..5, 2);
    network.run_for(WITHIN);
    let confirmed = network.ended();
    assert_eq!((confirmed.is_enough, confirmed.by), (false, peers([4])));
    assert_eq!(network.replicas[0].read("n"), Some(Value::Count(6)), "what was seen is there");
}

#[test]
fn whoever_asks_for_keys_without_end_is_put_off_and_not_blamed() {
    let mut state = replica(0);
    let mut busy = 0;
    for number in 0..10_000 {
        let mut actions = Vec::new();
        state.handle(Input::Received { from: peer(2), message: Message::Ask { id: number, key: key("k") } }, at_millis(0), &mut actions);
        let [Action::Send { message, .. }] = &actions[..] else { panic!("{actions:?}") };
        busy += usize::from(matches!(message, Message::Declined { why: Decline::Busy, .. }));
    }
    assert!((7_900..8_000).contains(&busy), "{busy}");
}

#[test]
fn a_token_is_waited_for_until_its_write_is_there() {
    let ops = || {
        [
            ("lww", Op::Set(bytes("v"))),
            ("best", Op::Best(2.0, bytes("v"))),
            ("mv", Op::Put(bytes("v"))),
            ("count", Op::Add(-2)),
            ("g_count", Op::Grow(2)),
            ("set", Op::Insert(bytes("v"))),
            ("g_set", Op::Include(bytes("v"))),
        ]
    };
    let mut network = apart(3, 1);
    for (name, op) in ops() {
        // Somebody else writes later: a later stamp says nothing of what one holds of an earlier write but in a register.
        let token = network.named(0, name, op.clone());
        network.run_for(Duration::from_millis(10));
        let later = match op {
            Op::Include(_) => Op::Include(bytes("w")),
            Op::Best(..) => Op::Best(1.0, bytes("w")),
            other => other,
        };
        network.apply(1, name, later).unwrap();
        let is_register = name == "lww";
        assert_eq!(network.replicas[1].holds(&token), is_register, "{name}");
        assert!(network.replicas[0].holds(&token) && !network.replicas[2].holds(&token), "{name}");
        let text = token.to_string();
        assert!(text.len() < 200, "{text}");
        assert_eq!(text.parse(), Ok(token.clone()));

        if !is_register {
            network.await_write(1, &token);
            assert_eq!(network.confirmed, []);
            network.confirm(0, name, [1], 1).unwrap();
            network.run_for(Duration::from_millis(100));
            let mut ended = std::mem::take(&mut network.confirmed);
            assert_eq!(ended.len(), 2, "{name}");
            assert!(ended.remove(0).2.is_enough);
        }
        network.await_write(1, &token);
        assert!(network.ended().is_enough, "{name}: it is there already");
        let removed = network.named(1, name, Op::Remove);
        assert!(network.replicas[1].holds(&token) && network.replicas[1].holds(&removed), "{name}: it was, and is past");
        assert!(!network.replicas[0].holds(&removed), "{name}");
    }
    let token = network.named(0, "lww", Op::Set(bytes("again")));
    network.await_write(2, &token);
    network.run_for(WITHIN);
    let confirmed = network.ended();
    assert!(!confirmed.is_enough && confirmed.by.is_empty());
    assert_eq!(network.replicas[2].next_deadline(), None);
    network.await_write(2, &token);
    network.replicas[2].give_up(ONE);
    assert_eq!(network.replicas[2].next_deadline(), None);
}

#[test]
fn a_member_taken_out_and_a_write_of_the_same_value_are_waited_for_too() {
    let mut network = apart(2, 1);
    network.apply(0, "s", Op::Insert(bytes("a"))).unwrap();
    network.set(0, "k", "same");
    for name in ["s", "k"] {
        network.confirm(0, name, [1], 1).unwrap();
        network.run_for(Duration::from_millis(100));
        assert!(network.ended().is_enough);
    }
    for (name, op) in [("s", Op::Take(bytes("a"))), ("k", Op::Set(bytes("same")))] {
        let token = network.named(0, name, op);
        network.await_write(1, &token);
        assert_eq!(network.confirmed, [], "{name}");
        let mut actions = Vec::new();
        let now = network.now(0);
        network.replicas[0].confirm(name, call(ConfirmId(2), peers([1]), 1), now, &mut actions).unwrap();
        network.execute(0, actions);
        network.run_for(Duration::from_millis(100));
        let ended: Vec<_> = network.confirmed.drain(..).map(|(index, _, confirmed)| (index, confirmed.is_enough)).collect();
        assert_eq!(ended, [(1, true), (0, true)], "{name}");
    }
}

#[test]
fn a_text_that_is_no_token_is_refused() {
    let (mut state, mut actions) = (replica(0), Vec::new());
    let token = state.apply_named("k", Op::Insert(bytes("v")), at_millis(0), &mut actions).unwrap().unwrap();
    let text = token.to_string();
    for len in 0..text.len() {
        assert!(text[..len].parse::<WriteToken>().is_err(), "{len}");
    }
    for other in [format!("{text}aa"), text.replace("write1", "write2"), format!("write1{}", "a".repeat(1 << 20))] {
        assert!(other.parse::<WriteToken>().is_err());
    }
    assert!((token.key().as_str(), token.origin()) == ("k", peer(0)) && token.stamp() > Stamp::ZERO);
}

#[test]
fn a_value_that_expires_while_its_key_is_awaited_disturbs_no_write() {
    let (mut state, mut actions) = (replica(0), Vec::new());
    state.apply("k", Op::SetFor(bytes("v"), Duration::from_secs(5)), at_millis(0), &mut actions).unwrap();
    let mut later = replica(1);
    let token = later.apply_named("k", Op::Set(bytes("w")), at_millis(9_000), &mut actions).unwrap().unwrap();
    state.await_write(ONE, token, WITHIN, at_millis(0), &mut actions).unwrap();
    // It expires as a removal comes too late.
    assert_eq!(state.remove("k", at_millis(5_000), &mut actions), Ok(None));
    assert_eq!((changed(&actions).last(), state.counters().expired), (Some(&("k", None)), 1));
}

#[test]
fn whoever_let_a_value_expire_by_a_clock_ahead_does_not_hold_it() {
    for is_typed in [false, true] {
        let mut network = apart(4, 1);
        if is_typed {
            network.apply(0, "k", Op::Add(1)).unwrap();
            network.remove(0, "k");
        }
        network.wall_offset_millis[1] = HOUR_MILLIS;
        network.apply(0, "k", Op::SetFor(bytes("v"), Duration::from_secs(60))).unwrap();
        network.confirm(0, "k", 1..4, 2).unwrap();
        network.run_for(Duration::from_millis(200));
        let confirmed = network.ended();
        assert_eq!((confirmed.by, network.holders("k")), (peers([2, 3]), vec![0, 2, 3]));
        assert_eq!(confirmed.declined, [(peer(1), Decline::Expired)]);
        // Of what has expired for the writer as well there is nothing more to hold, and who asks for a value hears that it is one no more.
        network.run_for(Duration::from_secs(60));
        network.confirm(0, "k", [1], 1).unwrap();
        network.ask(1, "k", [0], 1);
        network.run_for(Duration::from_millis(200));
        assert!(network.confirmed.drain(..).map(|(.., confirmed)| confirmed.is_enough).eq([true, true]));
    }
}
