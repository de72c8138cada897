//! Nothing grows beyond its bounds, and nobody is cut short in silence.

use super::*;

#[test]
fn keys_have_bounds() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let long = "k".repeat(limits::KEY_BYTES_MAX + 1);
    let too_long = SetError::KeyTooLong { len: 1_025, len_max: 1_024 };
    assert_eq!(state.set("", Bytes::new(), at_millis(0), &mut actions), Err(SetError::KeyEmpty));
    assert_eq!(state.set(&long, Bytes::new(), at_millis(0), &mut actions), Err(too_long.clone()));
    assert_eq!(state.remove("", at_millis(0), &mut actions), Err(SetError::KeyEmpty));
    assert_eq!(state.remove(&long, at_millis(0), &mut actions), Err(too_long));
    assert_eq!(Key::try_from(""), Err(KeyError::Empty));
    assert!(state.set(&long[1..], Bytes::new(), at_millis(0), &mut actions).is_ok());
    assert_eq!(decode::<Key>(&encode(&long)), Err(DecodeError::TooLong));
    assert_eq!(decode::<Key>(&[0]), Err(DecodeError::TooLong));
    assert_eq!(decode::<Key>(&[1, 0xff]), Err(DecodeError::Invalid));
}

#[test]
fn values_have_bounds() {
    let (mut state, mut actions) = (replica(1), Vec::new());
    let large = Bytes::from(vec![1; limits::VALUE_BYTES_MAX + 1]);
    let error = SetError::ValueTooLarge { len: large.len(), len_max: limits::VALUE_BYTES_MAX };
    assert_eq!(state.set("x", large.clone(), at_millis(0), &mut actions), Err(error));
    assert_eq!(state.last_stamp(), Stamp::ZERO, "no stamp was spent");
    assert!(state.set("x", large.slice(1..), at_millis(0), &mut actions).is_ok());
}

#[test]
fn a_full_replica_refuses_new_keys_gives_the_value_back_and_still_changes_and_shrinks() {
    let config = Config { keys_max: 2, state_bytes_max: 20, value_bytes_max: 10, ..Config::default() };
    let (mut state, mut actions) = (State::new(peer(1), params(config), 1), Vec::new());
    state.set("a", bytes("12345678"), at_millis(0), &mut actions).unwrap();
    state.set("b", bytes("12345678"), at_millis(0), &mut actions).unwrap();
    assert_eq!(state.bytes(), 18);
    let full = SetError::Full { quota: Quota::Bytes(20), value: bytes("123456789ab".get(..10).unwrap()) };
    assert!(state.set("a", bytes("1234567890"), at_millis(0), &mut actions).is_ok());
    assert_eq!(state.set("b", bytes("123456789a"), at_millis(0), &mut actions), Err(full));
    let full = SetError::Full { quota: Quota::Keys(2), value: bytes("1") };
    assert_eq!(state.set("c", bytes("1"), at_millis(0), &mut actions), Err(full.clone()));
    assert!(state.remove("a", at_millis(0), &mut actions).unwrap().is_some());
    assert_eq!(state.bytes(), 10);
    assert_eq!(state.set("c", bytes("1"), at_millis(0), &mut actions), Err(full), "a tombstone is a key");
    assert!(state.set("b", bytes("123456789a"), at_millis(0), &mut actions).is_ok());
    state.store().check_sums();
}

#[test]
fn what_others_send_beyond_the_bounds_is_refused_and_counted() {
    let config = Config { keys_max: 2, state_bytes_max: 12, value_bytes_max: 6, ..Config::default() };
    let (mut state, mut actions) = (State::new(peer(1), params(config), 1), Vec::new());
    let now = at_millis(0);
    let stamp = stamp_ahead(now, 0);
    let writes = [
        ("a", stamp, Some("1234567")),
        ("b", stamp, Some("123456")),
        ("c", stamp, Some("123456")),
        ("d", stamp, Some("1234")),
        ("e", stamp, None),
    ];
    state.handle(Input::Delta { origin: peer(2), bytes: delta(writes) }, now, &mut actions);
    assert_eq!(content(&state).into_iter().map(|(key, ..)| key.to_string()).collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!(state.counters().refused, 3);
    assert_eq!(state.counters().applied, 2);
    assert_eq!(misbehaviors(&actions), []);
    state.store().check_sums();
}

#[test]
fn bad_configuration_is_refused_by_name() {
    let refused = |config: Config| config.build().unwrap_err().field;
    let millis = Duration::from_millis;
    assert_eq!(refused(Config { flush_delay: Duration::MAX, ..Config::default() }), "flush_delay");
    assert_eq!(refused(Config { repair_period: Some(Duration::ZERO), ..Config::default() }), "repair_period");
    assert_eq!(refused(Config { first_repair_delay: Duration::ZERO, ..Config::default() }), "first_repair_delay");
    assert_eq!(refused(Config { session_timeout: millis(1), ..Config::default() }), "session_timeout");
    assert_eq!(refused(Config { burst_frames: 0, ..Config::default() }), "burst_frames");
    assert_eq!(refused(Config { leads_max: 0, ..Config::default() }), "leads_max");
    assert_eq!(refused(Config { answer_frames_per_second: 0, ..Config::default() }), "answer_frames_per_second");
    assert_eq!(refused(Config { stamp_ahead_max: Duration::MAX, ..Config::default() }), "stamp_ahead_max");
    assert_eq!(refused(Config { keys_max: 0, ..Config::default() }), "keys_max");
    assert_eq!(refused(Config { state_bytes_max: usize::MAX, ..Config::default() }), "state_bytes_max");
    assert_eq!(refused(Config { value_bytes_max: limits::VALUE_BYTES_MAX + 1, ..Config::default() }), "value_bytes_max");
    for preset in [Config::local(), Config::lan(), Config::wan()] {
        assert!(preset.build().is_ok());
    }
    assert!(!format!("{:?}", params(Config::default()).with_digest_key([77; 16])).contains("77"));
}
