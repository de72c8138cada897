//! Under some keys nobody writes in the name of another.

use std::sync::atomic::{AtomicUsize, Ordering};

use meshwork_channels::{Signer, random};

use super::*;
use crate::journal::{Image, Record};
use crate::signed::Signed;
use crate::value::{self, Step, Typed};

/// What stands for a key pair here: a hash of the identity and the message, which nobody makes for another who plays by the rules. Counts what it verifies.
#[derive(Debug)]
struct Seal(PeerId, AtomicUsize);

impl Seal {
    fn of(origin: &PeerId, message: &[u8]) -> [u8; 64] {
        let mut hash = u64::from(origin.as_bytes()[0]);
        message.iter().for_each(|byte| hash = random::hash(&[hash, u64::from(*byte)]));
        std::array::from_fn(|index| (hash >> (index % 8 * 8)) as u8 ^ index as u8)
    }
}

impl Signer for Seal {
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        Seal::of(&self.0, message)
    }

    fn verify(&self, origin: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed);
        Seal::of(origin, message) == *signature
    }
}

fn seal(number: u8) -> Arc<Seal> {
    Arc::new(Seal(peer(number), AtomicUsize::new(0)))
}

pub(super) fn params(number: u8, config: Config) -> Params {
    config.build_signed(seal(number), [7; 32]).unwrap()
}

fn config() -> Config {
    Config { signed: vec!["app/".to_owned()], ..Config::default() }
}

fn replica(number: u8) -> State {
    State::new(peer(number), params(number, config()), 7)
}

/// What a node writes, as it hands it to another.
fn written(number: u8, name: &str, value: Option<&str>, now: Now) -> wire::Entry {
    let mut state = replica(number);
    state.set(name, bytes("before"), now, &mut Vec::new()).unwrap();
    match value {
        Some(value) => drop(state.set(name, bytes(value), now, &mut Vec::new()).unwrap()),
        None => drop(state.remove(name, now, &mut Vec::new()).unwrap()),
    }
    state.entry_of(&key(name)).unwrap()
}

fn signed(entry: &wire::Entry) -> Signed {
    let Body::Signed(signed) = &entry.body else { panic!("{entry:?}") };
    (**signed).clone()
}

fn with(entry: &wire::Entry, signed: Signed) -> wire::Entry {
    wire::Entry { body: Body::Signed(Box::new(signed)), ..entry.clone() }
}

/// Every way to say what its origin did not sign, made of a value and a removal that it did.
fn forgeries(now: Now) -> Vec<(&'static str, wire::Entry)> {
    let (value, removal) = (written(2, "app/x", Some("value"), now), written(2, "app/x", None, now));
    let seconds = (now.wall.as_millis() / 1_000) as u32;
    let body = |body: Body| wire::Entry { body, ..value.clone() };
    let typed = |state: value::State| Body::Step(Box::new(Step::Whole(Typed { length: 3, state: Some(state) })));
    let elsewhere = Config::build_signed(config(), seal(2), [8; 32]).unwrap();
    let mut elsewhere = State::new(peer(2), elsewhere, 7);
    elsewhere.set("app/x", bytes("value"), now, &mut Vec::new()).unwrap();
    let mut flipped = signed(&value);
    flipped.signature[63] ^= 1;
    vec![
        ("by another", wire::Entry { origin: peer(2), ..written(3, "app/x", Some("value"), now) }),
        ("of another", wire::Entry { origin: peer(3), ..value.clone() }),
        ("another value", with(&value, Signed { value: Some(bytes("Value")), ..signed(&value) })),
        ("another stamp", wire::Entry { stamp: Stamp::from_bits(value.stamp.to_bits() + 1), ..value.clone() }),
        ("another key", wire::Entry { key: key("app/y"), ..value.clone() }),
        ("another signature", with(&value, flipped)),
        ("a removal of a value", with(&value, Signed { value: None, ..signed(&value) })),
        ("no value of a removal", with(&removal, Signed { value: Some(Bytes::new()), ..signed(&removal) })),
        ("another cluster", elsewhere.entry_of(&key("app/x")).unwrap()),
        ("unsigned", body(Body::Register(bytes("value")))),
        ("removed unsigned", body(Body::Removed)),
        ("to expire", body(Body::Until(seconds + 9, bytes("value")))),
        ("expired", body(Body::Expired(seconds, 7))),
        ("of another kind", body(typed(value::State::Lww(value.stamp, peer(2), Register::Value(bytes("value")))))),
    ]
}

fn entries(all: &[wire::Entry]) -> Message {
    Message::Entries { entries: Bounded::first_of(all.iter().cloned()) }
}

#[test]
fn what_its_origin_did_not_sign_is_refused_wherever_it_comes_from() {
    let now = at_millis(1_000);
    for (name, forged) in forgeries(now) {
        let fine = ["app/fine", "other"].map(|name| written(forged.origin.as_bytes()[0], name, Some("1"), now));
        for way in ["delta", "repair", "hold", "answer"] {
            let (mut state, mut actions) = (replica(1), Vec::new());
            state.handle(Input::NeighborUp(peer(4)), now, &mut actions);
            let blamed = match way {
                "delta" => {
                    let writes = [&forged, &fine[0], &fine[1]].into_iter().cloned();
                    let writes = writes.map(|wire::Entry { key, stamp, body, .. }| Write { key, stamp, body });
                    let bytes = encode(&Delta::Writes(Bounded::first_of(writes)));
                    actions.clear();
                    state.handle(Input::Delta { origin: forged.origin, bytes }, now, &mut actions);
                    forged.origin
                }
                "answer" => {
                    let call = Call { id: ConfirmId(1), peers: vec![peer(4), peer(5)], required: 1, within: Duration::from_secs(9) };
                    actions.clear();
                    state.ask(forged.key.clone(), call, now, &mut actions).unwrap();
                    let [Action::Send { message: Message::Ask { id, .. }, .. }] = actions[..] else { panic!("{actions:?}") };
                    let message = Message::Answer { id, entries: Bounded::first_of([forged.clone()]) };
                    actions.clear();
                    state.handle(Input::Received { from: peer(4), message }, now, &mut actions);
                    let is_asked = |action: &Action| matches!(action, Action::Send { to, message: Message::Ask { .. } } if *to == peer(5));
                    assert!(actions.iter().any(is_asked), "{name}: another is asked");
                    peer(4)
                }
                _ => {
                    let all = [forged.clone(), fine[0].clone(), fine[1].clone()];
                    let message = match way {
                        "hold" => Message::Hold { id: 9, entries: Bounded::first_of(all) },
                        _ => entries(&all),
                    };
                    actions.clear();
                    state.handle(Input::Received { from: peer(4), message }, now, &mut actions);
                    let told = Action::Send { to: peer(4), message: Message::Declined { id: 9, why: Decline::Signature } };
                    assert_eq!(actions.contains(&told), way == "hold", "{name}");
                    peer(4)
                }
            };
            assert_eq!(misbehaviors(&actions), [(blamed, Misbehavior::ForgedOrigin)], "{name}, {way}");
            assert_eq!(state.counters().forged, 1, "{name}, {way}");
            // Nothing of it is left, and nothing else suffered.
            let taken = if way == "answer" { &[] } else { &fine[..] };
            assert!(state.read("app/x").is_none() && state.read("app/y").is_none() && state.tombstones() == 0, "{name}, {way}");
            assert_eq!(state.len(), taken.len(), "{name}, {way}");
            assert_eq!(state.last_stamp(), taken.iter().map(|entry| entry.stamp).max().unwrap_or_default(), "{name}, {way}");
        }
    }
}

#[test]
fn what_was_signed_reaches_everybody_and_is_collected_as_it_was_taken() {
    for seed in 0..3 {
        let config = Config { collect_after: Some(Duration::from_secs(60)), ..config() };
        let mut network = Network::new(4, seed, &config);
        network.connect_all();
        (network.broadcast_loss, network.control_loss) = (0.3, 0.05);
        for number in 0..60 {
            network.set(number % 4, &format!("app/{}", number % 40), &number.to_string());
            network.set(number % 4, &format!("other/{}", number % 40), &number.to_string());
        }
        let now = network.now(3);
        let batch = [("app/both", "1"), ("other/both", "2")].map(|(name, value)| (key(name), Op::Set(bytes(value))));
        let mut actions = Vec::new();
        network.replicas[3].batch(batch.to_vec(), now, &mut actions).unwrap();
        network.execute(3, actions);
        (0..20).for_each(|number| network.remove(number % 4, &format!("app/{number}")));
        network.run_for(Duration::from_secs(20));
        network.assert_converged();
        assert_eq!(network.misbehaved, []);
        assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (62, 20));
        for name in ["app/1", "app/30", "app/both"] {
            let of = |replica: &State| replica.entry_of(&key(name)).unwrap();
            assert!(network.replicas.iter().all(|replica| encode(&of(replica)) == encode(&of(&network.replicas[0]))));
            assert_eq!(signed(&of(&network.replicas[0])).value.is_some(), name != "app/1");
        }
        network.run_for(Duration::from_secs(400));
        network.assert_converged();
        assert_eq!((network.replicas[0].len(), network.replicas[0].tombstones()), (62, 0));
        assert_eq!(network.misbehaved, []);
    }
}

/// The largest of them fits in every message, which the network checks.
#[test]
fn the_largest_is_repaired_and_confirmed() {
    let mut network = Network::new(2, 1, &config());
    network.broadcast_loss = 1.0;
    network.connect_all();
    let name = format!("app/{}", "k".repeat(limits::KEY_BYTES_MAX - 4));
    network.set(0, &name, &"v".repeat(limits::VALUE_BYTES_MAX));
    let (now, mut actions) = (network.now(0), Vec::new());
    let call = Call { id: ConfirmId(1), peers: vec![peer(1)], required: 1, within: Duration::from_secs(9) };
    network.replicas[0].confirm(&name, call, now, &mut actions).unwrap();
    network.execute(0, actions);
    network.run_for(Duration::from_millis(100));
    assert!(network.confirmed[0].2.is_enough);
    network.remove(1, &name);
    network.run_for(Duration::from_secs(20));
    network.assert_converged();
    let entry = Record::Entry(network.replicas[0].entry_of(&key(&name)).unwrap());
    assert!(entry.fits() && network.misbehaved.is_empty());
    let mut state = replica(1);
    state.set(&name, Bytes::from(vec![1; limits::VALUE_BYTES_MAX]), at_millis(0), &mut Vec::new()).unwrap();
    assert!(Record::Entry(state.entry_of(&key(&name)).unwrap()).fits());
}

#[test]
fn a_removal_that_is_made_again_is_signed_again() {
    let after = Duration::from_secs(60);
    let mut network = Network::new(3, 18, &Config { collect_after: Some(after), ..config() });
    network.connect_all();
    network.set(0, "app/x", "value");
    network.run_for(8 * after);
    // By somebody who was away and is not there any more.
    let late = written(9, "app/x", None, at_millis(20));
    assert!(network.replicas[0].floor() > late.stamp && network.replicas[0].entry("app/x").unwrap().stamp < late.stamp);
    network.handle(0, Input::Received { from: peer(1), message: entries(&[late]) });
    network.run_for(after / 2);
    network.assert_converged();
    assert_eq!(network.replicas[0].counters().removed_again, 1);
    let again = network.replicas[2].entry_of(&key("app/x")).unwrap();
    assert_eq!((again.origin, signed(&again).value), (peer(0), None));
    assert_eq!(network.misbehaved, []);
}

#[test]
fn only_plain_writes_are_signed_and_only_where_they_are_to_be() {
    let (mut state, mut actions, now) = (replica(1), Vec::new(), at_millis(0));
    let refused = SetError::Signed { prefix: "app/".to_owned() };
    let ops = [
        Op::SetFor(bytes("v"), Duration::from_secs(9)),
        Op::Best(1.0, bytes("v")),
        Op::Put(bytes("v")),
        Op::Add(1),
        Op::Grow(1),
        Op::Insert(bytes("v")),
        Op::Take(bytes("v")),
        Op::Include(bytes("v")),
    ];
    for op in ops {
        assert_eq!(state.apply("app/x", op.clone(), now, &mut actions), Err(refused.clone()), "{op:?}");
        let batch = vec![(key("other"), Op::Set(bytes("v"))), (key("app/x"), op)];
        assert_eq!(state.batch(batch, now, &mut actions), Err(refused.clone().in_batch("app/x")));
    }
    assert_eq!((actions.len(), state.last_stamp()), (0, Stamp::ZERO));
    assert_eq!(state.apply("app", Op::Add(1), now, &mut actions).map(|stamp| stamp.is_some()), Ok(true), "not under it");

    let stray = wire::Entry { key: key("other"), ..written(2, "app/x", Some("value"), now) };
    let digest = state.digest();
    actions.clear();
    state.handle(Input::Received { from: peer(2), message: entries(&[stray]) }, now, &mut actions);
    assert_eq!(misbehaviors(&actions), [(peer(2), Misbehavior::StraySignature)]);
    assert_eq!((state.counters().stray_signatures, state.digest()), (1, digest));
}

#[test]
fn nothing_is_verified_that_is_not_taken() {
    let (now, seal) = (at_millis(1_000), seal(1));
    let bounds = Config { keys_max: 1, ..config() };
    let mut state = State::new(peer(1), bounds.build_signed(seal.clone(), [7; 32]).unwrap(), 7);
    let mut verified = |all: &[wire::Entry]| {
        let before = seal.1.load(Ordering::Relaxed);
        state.handle(Input::Received { from: peer(2), message: entries(all) }, now, &mut Vec::new());
        seal.1.load(Ordering::Relaxed) - before
    };
    let (early, late) = (written(2, "app/x", Some("1"), at_millis(1)), written(2, "app/x", Some("2"), at_millis(2)));
    assert_eq!(verified(std::slice::from_ref(&late)), 1);
    assert_eq!(verified(&[late.clone(), early]), 0, "known");
    assert_eq!(verified(&[written(2, "app/x", Some("3"), at_millis(9_999))]), 0, "ahead");
    assert_eq!(verified(&[written(2, "app/y", Some("4"), at_millis(3))]), 0, "no room");
    assert_eq!(verified(&[wire::Entry { body: Body::Removed, ..written(2, "app/x", None, at_millis(4)) }]), 0, "unsigned");
    assert_eq!(state.get("app/x"), Some(&bytes("2")));
}

/// Verifying is what costs most: whoever hands on one forgery after the other is not listened to for a while, and others are.
#[test]
fn forgeries_cost_whoever_hands_them_on() {
    let (seal, now) = (seal(1), at_millis(1_000));
    let mut state = State::new(peer(1), config().build_signed(seal.clone(), [7; 32]).unwrap(), 7);
    let genuine = written(2, "app/x", Some("1"), now);
    let forged = wire::Entry { origin: peer(3), ..genuine.clone() };
    let mut take = |from: u8, entry: &wire::Entry, now: Now| {
        let before = seal.1.load(Ordering::Relaxed);
        state.handle(Input::NeighborUp(peer(from)), now, &mut Vec::new());
        state.handle(Input::Received { from: peer(from), message: entries(&vec![entry.clone(); 1_000]) }, now, &mut Vec::new());
        (seal.1.load(Ordering::Relaxed) - before, state.counters().forged, state.get("app/x").is_some())
    };
    assert_eq!(take(4, &forged, now), (65, 65, false));
    assert_eq!(take(4, &genuine, now), (0, 65, false), "not from there now");
    assert_eq!(take(5, &genuine, now), (1, 65, true), "but from others");
    let late = at_millis(11_000);
    let newer = written(2, "app/x", Some("2"), late);
    assert_eq!(take(4, &newer, late), (1, 65, true), "and from there after a while");
}

/// An earlier life had another list.
#[test]
fn a_restart_takes_what_is_signed_as_it_is_to_be() {
    let mut state = replica(1);
    state.restore([], at_millis(0));
    state.set("app/x", bytes("1"), at_millis(0), &mut Vec::new()).unwrap();
    state.set("other", bytes("2"), at_millis(0), &mut Vec::new()).unwrap();
    let mut image = Image::default();
    state.records(9, at_millis(0)).into_iter().for_each(|record| image.apply(record));

    let again = |signed: &[&str]| {
        let config = Config { signed: signed.iter().map(|prefix| (*prefix).to_owned()).collect(), ..Config::default() };
        let mut next = State::new(peer(1), params(1, config), 8);
        let restored = next.restore(image.records(), at_millis(0));
        (restored.entries, restored.refused, next.digest() == state.digest())
    };
    assert_eq!(again(&["app/"]), (2, 0, true));
    assert_eq!(again(&[]), (1, 1, false));
    assert_eq!(again(&["app/", "other"]), (1, 1, false));
}

#[test]
fn a_list_of_prefixes_that_cannot_be_is_refused() {
    let list = |prefixes: &[&str]| Config { signed: prefixes.iter().map(|prefix| (*prefix).to_owned()).collect(), ..Config::default() };
    assert_eq!(list(&["app/"]).build().unwrap_err().to_string(), r#"signed is ["app/"]; it must be empty where there is nobody to sign"#);
    let refused = |config: Config| config.build_signed(seal(1), [7; 32]).map_or_else(|error| error.field, |_| "none");
    assert_eq!(refused(list(&["app/", ""])), "signed");
    assert_eq!(refused(list(&["@config/"])), "signed");
    assert_eq!(refused(list(&[&"k".repeat(1_025)])), "signed");
    assert_eq!(refused(list(&["a"; 17])), "signed");
    assert_eq!((refused(list(&["a"; 16])), refused(list(&[]))), ("none", "none"));
}

/// The bytes that are signed, and the digest of what is: signatures that were given once hold for ever.
#[test]
fn what_is_signed_is_what_it_was() {
    let mut message = b"meshwork signed register 1\0".to_vec();
    message.extend([7; 32]);
    message.extend([0, 0, 0, 5]);
    message.extend(b"app/x");
    let stamp = Stamp::from_parts(EPOCH.as_millis(), 0);
    message.extend(stamp.to_bits().to_be_bytes());
    message.extend(b"\x01value");
    let mut state = replica(1);
    assert_eq!(state.set("app/x", bytes("value"), at_millis(0), &mut Vec::new()), Ok(stamp));
    assert_eq!(signed(&state.entry_of(&key("app/x")).unwrap()).signature, Seal::of(&peer(1), &message));
    assert_eq!(state.digest().to_string(), "1:059f2da486f3cc69d989a9ecd7bfe6cc");
    state.remove("app/x", at_millis(0), &mut Vec::new()).unwrap();
    message.truncate(message.len() - 6);
    let len = message.len();
    message[len - 1] = 1;
    message.push(0);
    assert_eq!(signed(&state.entry_of(&key("app/x")).unwrap()).signature, Seal::of(&peer(1), &message));
}
