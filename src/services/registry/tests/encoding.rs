//! What is written, byte by byte, and what is not read.

use super::*;

fn details() -> Details {
    Details {
        service_type: Some("db".into()),
        capabilities: ["read".into(), "write".into()].into(),
        metadata: [("v".into(), "1".into())].into(),
        zone: Some("n".into()),
        weight: 300,
        health: Health::Degraded,
        address: None,
    }
}

#[test]
fn details_have_these_bytes_and_come_back() {
    let value = details().to_value().unwrap();
    assert_eq!(&value[..], b"\x01\x01\x02db\x02\x04read\x05write\x01\x01v\x011\x01\x01n\xac\x02\x02\x00");
    assert_eq!(Details::from_value(&value), Ok(details()));
    assert_eq!(Details::from_value(&Details::default().to_value().unwrap()), Ok(Details::default()));
}

#[test]
fn a_key_names_one_instance_and_an_instance_has_one_key() {
    let id = id("payments", 0, "a");
    let key = id.key().unwrap();
    assert_eq!(key.as_str(), format!("@registry/test/payments/{}/a", peer(0)));
    assert_eq!(Parts::of(&key).unwrap().id(), id);
    let node = peer(0).to_string();
    for wrong in [
        "@registry/".to_owned(),
        format!("@registry/test/payments/{node}"),
        format!("@registry/test/payments/{node}/a/b"),
        format!("@registry/test/payments/{}/a", node.to_uppercase()),
        format!("@registry/test/payments/{}/a", &node[1..]),
        format!("@registry/test//{node}/a"),
        format!("@registry/test/payments/{node}/"),
        format!("@registry/te\nst/payments/{node}/a"),
        format!("@registry/{}/payments/{node}/a", "n".repeat(limits::NAMESPACE_BYTES_MAX + 1)),
        format!("@config/test/payments/{node}/a"),
    ] {
        assert_eq!(Parts::of(&wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_not_written_in_its_one_way_is_not_read() {
    let value = details().to_value().unwrap();
    for len in 0..value.len() {
        assert!(Details::from_value(&value[..len]).is_err(), "the first {len} bytes");
    }
    let undecodable = |error| Err(Unreadable::Invalid(Invalid::Undecodable(error)));
    assert_eq!(Details::from_value(&[&value[..], &[0]].concat()), undecodable(DecodeError::Trailing));
    assert_eq!(Details::from_value(b"\x01\x00\x02\x01b\x01a\x00\x00\x01\x00\x00"), undecodable(DecodeError::Invalid), "not in order");
    assert_eq!(Details::from_value(b"\x01\x00\x02\x01a\x01a\x00\x00\x01\x00\x00"), undecodable(DecodeError::Invalid), "twice");
    assert_eq!(Details::from_value(b"\x01\x00\x00\x00\x00\x00\x00\x00"), Err(Unreadable::Invalid(Invalid::Weight(0))));
    assert_eq!(
        Details::from_value(&[&b"\x01\x00\x11"[..], &[1; 40]].concat()),
        undecodable(DecodeError::TooLong),
        "more capabilities than may be"
    );
    assert_eq!(Details::from_value(b"\x02anything"), Err(Unreadable::Version(2)));
    let mut generator = generator(1, "registry bytes", 0);
    for _ in 0..20_000 {
        let mut bytes = value.to_vec();
        for _ in 0..generator.random_range(1..4) {
            let at = generator.random_range(1..bytes.len());
            bytes[at] = generator.random_range(0..=255);
        }
        // Whatever can be read is written in the same way, and within the limits.
        if let Ok(read) = Details::from_value(&bytes) {
            let again = read.to_value().unwrap();
            assert_eq!(Details::from_value(&again), Ok(read));
        }
    }
}

#[test]
fn every_limit_is_held_by_name() {
    let refused = |change: &dyn Fn(&mut Details)| {
        let mut details = details();
        change(&mut details);
        details.to_value().unwrap_err()
    };
    let too_long = |field, len, len_max| Invalid::TooLong { field, len, len_max };
    let too_many = Invalid::TooMany { field: "capabilities", count: 17, count_max: 16 };
    assert_eq!(refused(&|details| details.weight = 0), Invalid::Weight(0));
    assert_eq!(refused(&|details| details.weight = 1_001).to_string(), "weight is 1001; it may be 1 to 1000");
    assert_eq!(refused(&|details| details.zone = Some(String::new())), Invalid::Empty("zone"));
    assert_eq!(refused(&|details| details.address = Some("a\0".into())), Invalid::Character("address"));
    assert_eq!(refused(&|details| details.service_type = Some("t".repeat(65))), too_long("service_type", 65, 64));
    assert_eq!(refused(&|details| details.capabilities = (0..17).map(|n| n.to_string()).collect()), too_many);
    assert_eq!(refused(&|details| details.metadata = [("k".into(), "v".repeat(1_025))].into()), too_long("metadata value", 1_025, 1_024));
    let metadata: BTreeMap<String, String> = (10..20).map(|n| (n.to_string(), "v".repeat(1_024))).collect();
    let Invalid::TooLong { field: "details", len_max: limits::DETAILS_BYTES_MAX, .. } =
        refused(&|details| details.metadata.clone_from(&metadata))
    else {
        panic!("all of it is bounded as well");
    };
    assert_eq!(id("a/b", 0, "a").key(), Err(Invalid::Character("name")));
    assert_eq!(id("", 0, "a").key(), Err(Invalid::Empty("name")));
    assert_eq!(id("a", 0, &"i".repeat(65)).key(), Err(too_long("instance", 65, 64)));
}

#[test]
fn bad_configuration_is_refused_by_name() {
    let refused = |config: Config| config.build().unwrap_err().field;
    assert_eq!(refused(Config { zone: Some(String::new()), ..Config::default() }), "zone");
    assert_eq!(refused(Config { failures_max: 0, ..Config::default() }), "failures_max");
    assert_eq!(refused(Config { permdown: Duration::ZERO, ..Config::default() }), "permdown");
    assert!(Config::default().build().is_ok());
}
