//! What a replica wants written down is all that it needs to be the same again, and a life that lost some of it harms nobody's counts.

use super::*;
use crate::journal::{Image, Record};
use crate::replica::Restored;

/// A replica with the image of what it wrote down.
struct Kept {
    state: State,
    image: Image,
    now: Now,
}

impl Kept {
    fn begin(number: u8, seed: u64, image: Image, now: Now) -> (Self, Restored) {
        let mut state = State::new(peer(number), params(Config::default()), seed);
        let restored = state.restore(image.records(), now);
        (Kept { state, image, now }, restored)
    }

    fn apply(&mut self, name: &str, op: Op) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.apply(name, op, self.now, &mut actions).unwrap();
        actions
    }

    /// Writes down in small pieces, of which some find no room at first.
    fn write_down(&mut self, generator: &mut Generator) {
        while self.state.unrecorded() > 0 {
            let records = self.state.records(generator.random_range(1..4), self.now);
            match generator.random_range(0..3) {
                0 => self.state.give_back(&records),
                _ => records.into_iter().for_each(|record| self.image.apply(record)),
            }
        }
        assert_eq!(self.state.records(1, self.now), []);
    }

    fn end(mut self) -> (State, Image) {
        assert_eq!(self.state.unrecorded(), 0);
        self.image.apply(self.state.ended());
        (self.state, self.image)
    }
}

fn random_op(generator: &mut Generator) -> (String, Op) {
    let member = |generator: &mut Generator| Bytes::from(format!("m{}", generator.random_range(0..5)));
    let (number, value) = (generator.random_range(0..3), member(generator));
    let (kind, op) = match generator.random_range(0..10) {
        0 => ("lww", Op::Set(value)),
        9 => ("lww", Op::SetFor(value, Duration::from_secs(9))),
        1 => ("best", Op::Best(generator.random_range(0.0..9.0), value)),
        2 => ("mv", Op::Put(value)),
        3 => ("count", Op::Add(generator.random_range(-9..9))),
        4 => ("g_count", Op::Grow(generator.random_range(0..9))),
        5 => ("set", Op::Insert(value)),
        6 => ("set", Op::Take(value)),
        7 => ("g_set", Op::Include(value)),
        _ => {
            let kinds = ["lww", "best", "mv", "count", "g_count", "set", "g_set"];
            (kinds[generator.random_range(0..kinds.len())], Op::Remove)
        }
    };
    (format!("{kind}/{number}"), op)
}

fn deltas(actions: &[Action]) -> impl Iterator<Item = Bytes> {
    actions.iter().filter_map(|action| if let Action::Broadcast(bytes) = action { Some(bytes.clone()) } else { None })
}

#[test]
fn a_replica_that_is_restored_holds_the_same_and_goes_on_as_if_nothing_had_happened() {
    let (mut generator, mut restarts, mut tombstones) = (generator(1, "durable", 0), 0, 0);
    for run in 0..100_u64 {
        let (mut kept, restored) = Kept::begin(1, run, Image::default(), at_millis(0));
        assert_eq!(restored, Restored::default());
        let (mut other, mut twin) = (replica(2), State::new(peer(1), params(Config::default()), run));
        for millis in 1..60 {
            kept.now = at_millis(millis);
            let (name, op) = random_op(&mut generator);
            let actions = if generator.random() {
                let mut actions = Vec::new();
                other.apply(&name, op, kept.now, &mut actions).unwrap();
                for bytes in deltas(&actions) {
                    let input = Input::Delta { origin: peer(2), bytes };
                    kept.state.handle(input.clone(), kept.now, &mut Vec::new());
                    twin.handle(input, kept.now, &mut Vec::new());
                }
                continue;
            } else {
                twin.apply(&name, op.clone(), kept.now, &mut Vec::new()).unwrap();
                kept.apply(&name, op)
            };
            deltas(&actions).for_each(|bytes| other.handle(Input::Delta { origin: peer(1), bytes }, kept.now, &mut Vec::new()));
            if generator.random_range(0..5) == 0 {
                kept.write_down(&mut generator);
            }
            if generator.random_range(0..10) == 0 {
                let now = kept.now;
                kept.write_down(&mut generator);
                let (before, image) = kept.end();
                let next;
                (kept, next) = Kept::begin(1, generator.random(), image, now);
                assert_eq!((next.refused, next.is_continued), (0, true));
                assert_eq!(next.entries, before.len() + before.tombstones());
                assert_eq!((kept.state.digest(), kept.state.last_stamp()), (before.digest(), before.last_stamp()));
                kept.state.store().check_sums();
                kept.image.apply(Record::Begun);
                restarts += 1;
            }
            // The same name, the same steps, the same stamps as in a life that never ended.
            assert_eq!(kept.state.digest(), twin.digest());
        }
        tombstones += kept.state.tombstones();
    }
    assert!(restarts > 100 && tombstones > 100, "{restarts} restarts, {tombstones} tombstones");
}

#[test]
fn a_replica_in_memory_notes_nothing() {
    let mut state = replica(1);
    state.set("k", bytes("v"), at_millis(1), &mut Vec::new()).unwrap();
    assert_eq!((state.unrecorded(), state.records(9, at_millis(1))), (0, Vec::new()));
}

#[test]
fn counts_of_a_life_whose_end_was_lost_are_neither_lost_nor_counted_twice() {
    for lost in ["the end", "the last step", "everything"] {
        let (mut first, _) = Kept::begin(1, 1, Image::default(), at_millis(1));
        let mut other = replica(2);
        other.apply("hits", Op::Add(100), at_millis(1), &mut Vec::new()).unwrap();
        let mut told = deltas(&first.apply("hits", Op::Add(3))).collect::<Vec<_>>();
        first.write_down(&mut generator(2, "durable", 0));
        let written = first.image.clone();
        first.now = at_millis(500);
        told.extend(deltas(&first.apply("hits", Op::Add(4))));
        for bytes in told {
            other.handle(Input::Delta { origin: peer(1), bytes }, at_millis(500), &mut Vec::new());
        }
        assert_eq!(other.read("hits"), Some(Value::Count(107)));
        let image = match lost {
            "the last step" => written,
            "everything" => Image::default(),
            _ => {
                first.write_down(&mut generator(2, "durable", 0));
                first.image.clone()
            }
        };
        let (mut second, restored) = Kept::begin(1, 2, image, at_millis(1_000));
        assert!(!restored.is_continued);
        for bytes in deltas(&second.apply("hits", Op::Add(5))) {
            other.handle(Input::Delta { origin: peer(1), bytes }, at_millis(1_000), &mut Vec::new());
        }
        assert_eq!(other.read("hits"), Some(Value::Count(112)), "{lost} lost");
        // And back: what others kept makes the replica whole.
        let entry = other.entry_of(&key("hits")).unwrap();
        let entries = Message::Entries { entries: Bounded::first_of([entry]) };
        second.state.handle(Input::Received { from: peer(2), message: entries }, at_millis(1_000), &mut Vec::new());
        assert_eq!(second.state.read("hits"), Some(Value::Count(112)), "{lost} lost");
    }
}

#[test]
fn a_clock_that_was_set_back_meanwhile_loses_no_write() {
    let (mut first, _) = Kept::begin(1, 1, Image::default(), at_millis(3_600_000));
    first.apply("k", Op::Set(bytes("old")));
    first.write_down(&mut generator(3, "durable", 0));
    // Told to others, and lost by the crash.
    first.now = at_millis(3_600_100);
    let told = first.apply("k", Op::Set(bytes("older")));
    let mut other = replica(2);
    deltas(&told).for_each(|bytes| other.handle(Input::Delta { origin: peer(1), bytes }, first.now, &mut Vec::new()));

    let (mut second, _) = Kept::begin(1, 2, first.image, at_millis(0));
    assert_eq!(second.state.get("k"), Some(&bytes("old")));
    for bytes in deltas(&second.apply("k", Op::Set(bytes("new")))) {
        other.handle(Input::Delta { origin: peer(1), bytes }, at_millis(3_600_200), &mut Vec::new());
    }
    assert_eq!(other.get("k"), Some(&bytes("new")));
    assert_eq!(other.counters().stamp_ahead, 0, "what is reserved is within what others take");
}

#[test]
fn what_does_not_fit_any_more_is_counted_and_the_rest_is_there() {
    let (mut first, _) = Kept::begin(1, 1, Image::default(), at_millis(1));
    (0..9).for_each(|number| drop(first.apply(&format!("k{number}"), Op::Set(bytes("v")))));
    first.write_down(&mut generator(4, "durable", 0));
    let mut state = State::new(peer(1), params(Config { keys_max: 5, ..Config::default() }), 2);
    assert_eq!(state.restore(first.image.records(), at_millis(1)), Restored { entries: 5, refused: 4, is_continued: false });
    assert_eq!(state.len(), 5);
}

#[test]
fn a_name_is_taken_over_once_and_not_again_after_a_crash() {
    let (mut first, _) = Kept::begin(1, 1, Image::default(), at_millis(1));
    let mut told = deltas(&first.apply("hits", Op::Add(3))).collect::<Vec<_>>();
    first.write_down(&mut generator(5, "durable", 0));
    let (mut second, restored) = Kept::begin(1, 2, first.end().1, at_millis(2));
    assert!(restored.is_continued);
    second.image.apply(Record::Begun);
    let written = second.image.clone();
    second.now = at_millis(500);
    // Told to others, and lost by the crash.
    told.extend(deltas(&second.apply("hits", Op::Add(4))));
    let (mut third, restored) = Kept::begin(1, 3, written, at_millis(1_000));
    assert!(!restored.is_continued, "the end of the first life is used up");
    told.extend(deltas(&third.apply("hits", Op::Add(5))));
    let mut other = replica(2);
    for bytes in told {
        other.handle(Input::Delta { origin: peer(1), bytes }, at_millis(1_000), &mut Vec::new());
    }
    assert_eq!(other.read("hits"), Some(Value::Count(12)));
}
