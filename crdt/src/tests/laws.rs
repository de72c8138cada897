//! Merging is a join, and digests name what was joined.

use super::*;
use crate::signed::Signed;

const BOUNDS: Bounds = Bounds { keys_max: 1_000, bytes_max: 1_000_000, value_bytes_max: 1_000 };

type Update = (Key, Stamp, PeerId, Body);

/// Few keys, stamps, origins and values, so that ties of all kinds happen.
fn update(generator: &mut Generator) -> Update {
    let value = bytes(["", "a", "b"][generator.random_range(0..3)]);
    let body = match generator.random_range(0..6) {
        0 => Body::Removed,
        1 | 2 => Body::Until(generator.random_range(1..3), value),
        _ => Body::Register(value),
    };
    (
        key(["x", "y", "z"][generator.random_range(0..3)]),
        Stamp::from_bits(generator.random_range(0..4)),
        peer(generator.random_range(0..3)),
        body,
    )
}

/// The same, signed: of one value a liar makes several signatures.
fn signed_update(generator: &mut Generator) -> Update {
    let (key, stamp, origin, body) = update(generator);
    let value = if let Body::Register(value) = body { Some(value) } else { None };
    let signed = Signed { value, signature: [generator.random_range(0..2); 64] };
    (key, stamp, origin, Body::Signed(Box::new(signed)))
}

fn store(updates: &[Update]) -> Store {
    let mut store = Store::new([1; 16], BOUNDS);
    join(&mut store, updates);
    store
}

fn join(store: &mut Store, updates: &[Update]) {
    for (key, stamp, origin, body) in updates {
        if let Some(joined) = store.joined(key, *stamp, *origin, body).unwrap() {
            assert!(matches!(store.replace(key.clone(), joined), Merged::Replaced { .. }));
        }
    }
    store.check_sums();
}

fn entries(store: &Store) -> Vec<Update> {
    store.iter("").map(|(key, held)| (key.clone(), held.marker.stamp, *held.marker.origin, held.body())).collect()
}

#[test]
fn merging_is_commutative_associative_and_idempotent() {
    let mut generator = generator(1, "laws", 0);
    for round in 0..900 {
        let update = if round < 600 { update } else { signed_update };
        let [a, b, c] = std::array::from_fn(|_| {
            let len = generator.random_range(0..5);
            (0..len).map(|_| update(&mut generator)).collect::<Vec<_>>()
        });
        let (mut ab, mut ba) = (store(&a), store(&b));
        join(&mut ab, &entries(&store(&b)));
        join(&mut ba, &entries(&store(&a)));
        assert_eq!(entries(&ab), entries(&ba));
        assert_eq!(ab.digest(), ba.digest());

        let mut bc = store(&b);
        join(&mut bc, &entries(&store(&c)));
        let mut a_bc = store(&a);
        join(&mut a_bc, &entries(&bc));
        let mut ab_c = ab.clone();
        join(&mut ab_c, &entries(&store(&c)));
        assert_eq!(entries(&ab_c), entries(&a_bc));
        assert_eq!(ab_c.digest(), a_bc.digest());

        let mut again = ab.clone();
        join(&mut again, &entries(&ab));
        join(&mut again, &a);
        assert_eq!(entries(&again), entries(&ab));
    }
}

#[test]
fn digests_are_equal_exactly_when_entries_are() {
    let mut generator = generator(2, "laws", 0);
    let mut seen: BTreeMap<String, Digest> = BTreeMap::new();
    for _ in 0..2_000 {
        let len = generator.random_range(0..6);
        let update = if generator.random() { update } else { signed_update };
        let mut updates: Vec<Update> = (0..len).map(|_| update(&mut generator)).collect();
        let first = store(&updates);
        updates.shuffle(&mut generator);
        assert_eq!(store(&updates).digest(), first.digest());
        let name = format!("{:?}", entries(&first));
        assert_eq!(*seen.entry(name).or_insert(first.digest()), first.digest());
    }
    let distinct: BTreeSet<u128> = seen.values().map(|digest| digest.sum).collect();
    assert!(seen.len() > 100);
    assert_eq!(distinct.len(), seen.len());
}

#[test]
fn merging_and_expiring_go_in_any_order() {
    let mut generator = generator(3, "laws", 0);
    let expire = |store: &mut Store, second: u32| {
        while store.expire_next(second).is_some() {}
        store.check_sums();
    };
    let mut expired = 0;
    for _ in 0..600 {
        let [a, b] = std::array::from_fn(|_| (0..generator.random_range(0..6)).map(|_| update(&mut generator)).collect::<Vec<_>>());
        let second = generator.random_range(0..4);
        let mut early = store(&a);
        join(&mut early, &entries(&store(&b)));
        let (mut late, live) = (early.clone(), early.live());
        expire(&mut early, second);
        assert_eq!(early.digest(), late.digest());
        expired += live - early.live();

        // Both had it, one of them expired, before they met.
        let (mut one, mut other) = (store(&a), store(&b));
        expire(&mut one, second);
        join(&mut other, &entries(&one));
        join(&mut one, &entries(&store(&b)));
        assert_eq!((one.digest(), other.digest()), (late.digest(), late.digest()));
        [&mut late, &mut one, &mut other].into_iter().for_each(|store| expire(store, second));
        assert_eq!((entries(&one), entries(&other)), (entries(&early), entries(&late)));
        assert_eq!(entries(&early), entries(&late));
    }
    assert!(expired > 300, "{expired}");
}

/// A register of the `crdts` crate that meets its own marker with another value keeps its own. Ours cannot meet that.
#[test]
fn two_values_under_one_stamp_and_origin_have_one_order() {
    let stamp = Stamp::from_parts(1, 1);
    let updates = [(key("x"), stamp, peer(1), Body::Register(bytes("a"))), (key("x"), stamp, peer(1), Body::Register(bytes("b")))];
    let (one, mut reversed) = (store(&updates), updates.to_vec());
    reversed.reverse();
    assert_eq!(entries(&one), entries(&store(&reversed)));
}

#[test]
fn sums_depend_on_the_key_of_the_cluster() {
    let mut digests = BTreeSet::new();
    for digest_key in [[1; 16], [2; 16]] {
        let mut state = State::new(peer(1), params(Config::default()).with_digest_key(digest_key), 1);
        state.set("x", bytes("a"), at_millis(0), &mut Vec::new()).unwrap();
        digests.insert(state.digest().sum);
    }
    assert_eq!(digests.len(), 2);
}

#[test]
fn an_origin_is_kept_once_and_for_as_long_as_it_has_entries() {
    let mut store = store(&[]);
    let mut write = |number: u64, origin: u8| {
        join(&mut store, &[(key(&format!("k{}", number % 10)), Stamp::from_bits(number), peer(origin), Body::Register(bytes("x")))]);
        store.origins()
    };
    for number in 0..10 {
        assert_eq!(write(number, 1), 1);
    }
    for number in 10..19 {
        assert_eq!(write(number, number as u8), number as usize - 8);
    }
    assert_eq!(write(19, 19), 10, "the first has no entry left");
    for number in 20..30 {
        write(number, 2);
    }
    assert_eq!(write(30, 2), 1);
}
