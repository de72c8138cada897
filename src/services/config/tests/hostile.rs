//! What other nodes write is not trusted: it is shown when it decodes and passes, and else the last good value stays.

use super::*;

const KEY: &str = "@config/app/x";

fn record(value: Value, past: Vec<Past>) -> Bytes {
    Record { value: Some(value), past, ..Record::default() }.encode()
}

fn hidden(node: &Node) -> Vec<&Hidden> {
    let one = |event| match event {
        &Event::Hidden(HiddenEntry { ref problem, .. }) => Some(problem),
        _ => None,
    };
    node.events.iter().filter_map(one).collect()
}

fn deliver(node: &mut Node, key: &str, bytes: Bytes, millis: u64) {
    let mut other = Node::new(9, Config::default());
    // Each is the first step of another life.
    other.replica = other.replica.with_actor(Actor(millis));
    other.write(key, bytes, millis);
    node.receive(9, &other.deltas[0], millis);
}

#[test]
fn a_value_that_does_not_pass_leaves_the_last_good_one() {
    let mut node = Node::with(1, State::new(peer(1), synced()).with_validator(path("app"), digit()));
    node.set("app/x", Value::Integer(4), 1);
    let Ok(good) = node.config.read(&node.replica, "app/x") else { panic!("it was set") };
    let from = node.events.len();
    let past = vec![Past { stamp: good.stamp.unwrap(), proposer: peer(1), value: Some(Value::Integer(4)) }];
    deliver(&mut node, KEY, record(Value::Integer(40), past), 2);
    let refused = Hidden::Refused("not a digit".to_owned());
    assert_eq!(hidden(&node), [&refused]);
    assert!(node.updates(from).is_empty());
    assert_eq!(node.config.read(&node.replica, "app/x"), Ok(good.clone()));
    assert_eq!(node.config.counters().hidden, 1);
    let explained = node.config.explain(&node.replica, "app/x").unwrap();
    assert_eq!(explained[3].hidden, [HiddenEntry { key: Key::try_from(KEY).unwrap(), origin: peer(9), problem: refused }]);

    // A service that starts anew finds the last good value in what the entry remembers.
    node.config = State::new(peer(1), Config::default()).with_validator(path("app"), digit());
    node.seen.clear();
    node.with_config(|config, replica, events| config.set_synced(true, replica, at_millis(3), events));
    assert_eq!(node.config.read(&node.replica, "app/x"), Ok(good));

    deliver(&mut node, KEY, record(Value::Integer(5), Vec::new()), 3);
    assert_eq!(node.integer("app/x"), Some(5));
}

#[test]
fn bytes_that_are_no_entry_leave_the_last_good_value_and_can_be_replaced() {
    let mut node = Node::new(1, synced());
    node.set("app/x", Value::Integer(4), 1);
    deliver(&mut node, KEY, Bytes::from_static(&[1, 9, 9]), 2);
    deliver(&mut node, KEY, Bytes::new(), 3);
    deliver(&mut node, KEY, vec![1; limits::RECORD_BYTES_MAX + 1].into(), 4);
    // With each change of the key, what is wrong with every entry of it.
    let hidden = hidden(&node);
    assert_eq!(hidden.len(), 1 + 2 + 3);
    assert_eq!(hidden[3..5], [&Hidden::Undecodable(DecodeError::TooLong), &Hidden::Undecodable(DecodeError::Truncated)]);
    assert_eq!(node.integer("app/x"), Some(4));
    node.set("app/x", Value::Integer(5), 5);
    assert_eq!(node.integer("app/x"), Some(5));
}

#[test]
fn an_entry_of_a_newer_version_is_shown_as_such_and_not_replaced() {
    let mut node = Node::new(1, synced());
    node.set("app/x", Value::Integer(4), 1);
    deliver(&mut node, KEY, Bytes::from_static(&[2, 0]), 2);
    assert_eq!(hidden(&node), [&Hidden::UnknownVersion(2)]);
    assert_eq!(node.integer("app/x"), Some(4));
    let refused = SetError::UnknownVersion { path: path("app/x"), version: 2 };
    assert_eq!(node.config.set_cluster_wide(&node.replica, "app/x", &5), Err(refused.clone()));
    assert_eq!(node.config.set_cluster_wide(&node.replica, "app", &tree("{}")), Err(refused.clone()));
    assert_eq!(node.config.remove_cluster_wide(&node.replica, "app"), Err(refused));
}

#[test]
fn keys_without_a_path_and_paths_that_may_not_change_are_hidden() {
    let mut node = Node::new(1, Config { updatable_paths: Some(vec![path("app/y")]), ..synced() });
    for key in ["@config/", "@config/app", "@config/app//x", "@config/app/x y", KEY] {
        deliver(&mut node, key, record(Value::Integer(1), Vec::new()), 1);
    }
    assert_eq!(
        hidden(&node),
        [
            &Hidden::InvalidPath(PathError::EmptyName),
            &Hidden::InvalidPath(PathError::OnlyNamespace),
            &Hidden::InvalidPath(PathError::EmptyName),
            &Hidden::InvalidPath(PathError::Character(' ')),
            &Hidden::NotUpdatable
        ]
    );
    assert!(node.shown().is_empty());
}

#[test]
fn a_removed_key_removes_the_value() {
    let mut node = Node::new(1, synced());
    node.set("app/x", Value::Integer(4), 1);
    let mut actions = Vec::new();
    node.replica.remove(KEY, at_millis(2), &mut actions).unwrap();
    node.execute(actions, 2);
    assert_eq!(node.get("app/x"), None);
}

#[test]
fn any_bytes_are_an_entry_or_an_error() {
    let mut generator = generator(1, "config bytes", 0);
    let value = tree(r#"["text", 1, 2.5, null, true, {"a": [], "b": {}}]"#);
    let good = record(value.clone(), vec![Past { stamp: stamp(1), proposer: peer(2), value: Some(value) }]);
    let mut decoded = 0;
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..generator.random_range(1..4) {
            let at = generator.random_range(1..bytes.len());
            bytes[at] = generator.random_range(0..=255);
        }
        bytes.truncate(generator.random_range(0..2 * good.len()));
        if let Ok(record) = Record::decode(&bytes) {
            decoded += 1;
            assert_eq!(Record::decode(&record.clone().encode()), Ok(record));
        }
    }
    assert!((100..19_000).contains(&decoded), "{decoded}");
}

#[test]
fn values_have_one_encoding_and_bounded_depth() {
    let decode = |tokens: Vec<Token>| {
        let entry = (1_u8, Some(tokens), 0_u8, false, 0_u8);
        Record::decode(&encode(&entry)).map(|record| record.value)
    };
    let name = |name: &str| Token::Name(name.to_owned());
    let bad = |error| Err(Hidden::Undecodable(error));
    assert_eq!(decode(vec![Token::List(1), Token::Null]), Ok(Some(Value::List(vec![Value::Null]))));
    assert_eq!(decode(vec![Token::List(u32::MAX), Token::Null]), bad(DecodeError::Truncated));
    assert_eq!(decode(vec![Token::Null, Token::Null]), bad(DecodeError::Trailing));
    assert_eq!(decode(vec![Token::Float(f64::NAN)]), bad(DecodeError::Invalid));
    assert_eq!(decode(vec![name("a")]), bad(DecodeError::Invalid));
    assert_eq!(decode(vec![Token::Map(1), name("a"), Token::Null]), bad(DecodeError::Invalid), "a map is several entries");
    let twice = vec![Token::List(1), Token::Map(2), name("a"), Token::Null, name("a"), Token::Null];
    assert_eq!(decode(twice), bad(DecodeError::Invalid));
    assert_eq!(decode(vec![Token::List(1); limits::VALUE_DEPTH_MAX + 1]), bad(DecodeError::TooLong));
    assert_eq!(decode(vec![Token::Null; limits::VALUE_NODES_MAX + 1]), bad(DecodeError::TooLong));
}

#[test]
fn the_bytes_of_an_entry_do_not_change() {
    let value = tree(r#"[null, true, -1, 1.0, "t", {"n": {}}]"#);
    let past = vec![Past { stamp: stamp(1), proposer: peer(2), value: None }];
    let bytes = record(value, past);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (stamp, origin) = ("0000000000010000", "02".repeat(32));
    assert_eq!(hex, format!("0101090606000101020103000000000000f03f040174070108016e070001{stamp}{origin}000000"));
    let bytes = record(Value::Bytes(Bytes::from_static(&[7])), Vec::new());
    assert_eq!(bytes[..], [1, 1, 1, 5, 1, 7, 0, 0, 0]);
}
