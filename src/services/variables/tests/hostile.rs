//! What others write that no service here would.

use super::*;

#[test]
fn what_is_no_value_of_a_variable_is_hidden_counted_and_reported() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.update(0, "x", 2.0).unwrap();
    cluster.exchange();
    cluster.events(0);
    let out_of_range = ValueError::OutOfRange { value: 11.0.into(), min: 0.0.into(), max: 10.0.into() };
    cluster.write_value(1, "x", 11.0, 5);
    cluster.exchange();
    assert_eq!(cluster.events(0), [refused("x", Refusal::Value(out_of_range))]);
    assert_eq!(cluster.value(0, "x"), 2.0.into(), "the last valid value stays");

    cluster.write_value(1, "x", 3.0, VERSION_MAX + 1);
    cluster.write_value(1, "x", f64::NAN, 2);
    cluster.write(1, &value_key(&name("x")), vec![FORMAT, 1, 2, 1, 0, 0, 9]);
    cluster.write(1, &value_key(&name("x")), Vec::new());
    cluster.exchange();
    let reasons = [
        Refusal::Version,
        Refusal::Value(ValueError::NotFinite),
        Refusal::Undecodable(DecodeError::Trailing),
        Refusal::Undecodable(DecodeError::Truncated),
    ];
    assert_eq!(cluster.events(0), reasons.map(|why| refused("x", why)));
    assert_eq!(cluster.value(0, "x"), 2.0.into());
    assert_eq!(cluster.nodes[0].variables.statistics("x").unwrap().hidden, 5);
    assert_eq!(cluster.nodes[0].variables.counters().refused, 5);

    cluster.update(0, "x", 4.0).unwrap();
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 4.0.into());
}

#[test]
fn the_next_write_is_above_every_version_that_was_seen() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.write_value(1, "x", 11.0, 7);
    cluster.exchange();
    cluster.update(0, "x", 4.0).unwrap();
    assert_eq!(cluster.get(0, "x").unwrap().version, 8);
    cluster.exchange();
    cluster.write_value(1, "x", 5.0, VERSION_MAX);
    cluster.exchange();
    assert_eq!(cluster.update(0, "x", 4.0), Err(UpdateError::VersionsSpent));
}

#[test]
fn what_is_no_definition_is_refused_and_the_last_valid_one_stays() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.exchange();
    cluster.events(0);
    let strong = Definition { consistency: Consistency::Strong, ..float("x") };
    let reversed = Definition::new(name("x"), Kind::float(2.0, 1.0), 1.0);
    let local = Definition { scope: Scope::Local, ..float("x") };
    let key = definition_key(&name("x"));
    for bytes in [seal(&strong), seal(&reversed), seal(&local), seal(&float("y")), Bytes::from_static(&[FORMAT, 200])] {
        cluster.write(1, &key, bytes);
        cluster.exchange();
        let events = cluster.events(0);
        assert!(matches!(&events[..], [Event::Refused { name, .. }] if name == "x"), "{events:?}");
        assert_eq!(cluster.value(0, "x"), 1.0.into());
        cluster.update(0, "x", 2.0).unwrap();
        cluster.update(0, "x", 1.0).unwrap();
        cluster.exchange();
        cluster.events(0);
    }
}

#[test]
fn keys_of_no_variable_are_reported() {
    let mut cluster = Cluster::new(2);
    for key in ["@variables/val/a b", "@variables/def/", "@variables/other/x"] {
        cluster.write(1, key, vec![FORMAT]);
        cluster.exchange();
        assert_eq!(cluster.events(0), [refused(key, Refusal::UnknownKey)]);
    }
}

#[test]
fn what_another_release_wrote_is_carried_and_not_overwritten() {
    let mut cluster = Cluster::new(2);
    cluster.register(0, float("x")).unwrap();
    cluster.write(1, &value_key(&name("x")), vec![2, 1, 2, 3]);
    cluster.write(1, &definition_key(&name("y")), vec![2, 1]);
    cluster.exchange();
    assert_eq!(cluster.get(0, "x"), Err(GetError::OtherFormat(2)));
    assert_eq!(cluster.update(0, "x", 2.0), Err(UpdateError::OtherFormat(2)));
    assert_eq!(cluster.get(0, "y"), Err(GetError::OtherFormat(2)));
    assert_eq!(cluster.register(0, float("y")), Err(RegisterError::OtherFormat(2)));
    assert_eq!(cluster.delete(0, "y"), Err(DeleteError::OtherFormat(2)));
    let listed = cluster.nodes[0].variables.list(&cluster.nodes[0].replica, &Filter::default());
    assert_eq!(listed, [(name("x"), Err(GetError::OtherFormat(2))), (name("y"), Err(GetError::OtherFormat(2)))]);
    assert!(cluster.events(0).contains(&refused("y", Refusal::OtherFormat(2))));
}

#[test]
fn who_may_not_write_is_not_shown() {
    let mut cluster = Cluster::new(3);
    cluster.register(0, Definition { access: Access::Only(vec![peer(0)]), ..float("x") }).unwrap();
    cluster.exchange();
    cluster.write_value(1, "x", 5.0, 1);
    cluster.exchange();
    assert_eq!(cluster.shared("x"), 1.0.into());
    assert!(cluster.events(2).contains(&refused("x", Refusal::NotPermitted)));
}

#[test]
fn more_variables_than_the_limit_are_read_but_not_followed() {
    let mut cluster = Cluster::new(2);
    let now = cluster.now();
    let node = &mut cluster.nodes[0];
    for number in 0..VARIABLES_MAX + 2 {
        let text = format!("x{number:04}");
        let key = definition_key(&name(&text));
        node.replica.set(&key, seal(&float(&text)), now, &mut Vec::new()).unwrap();
        node.variables.on_changed(&key, &node.replica, now, &mut node.events);
    }
    assert_eq!(cluster.nodes[0].variables.followed.len(), VARIABLES_MAX);
    assert_eq!(cluster.value(0, "x1001"), 1.0.into());
    assert_eq!(cluster.nodes[0].variables.statistics("x1001"), None);
    assert_eq!(cluster.events(0).iter().filter(|event| matches!(event, Event::Refused { why: Refusal::TooMany, .. })).count(), 2);
    cluster.update(0, "x1001", 3.0).unwrap();
    assert_eq!(cluster.value(0, "x1001"), 3.0.into());
}

/// Each level takes the one before several times: without a memory of what is computed it would be 3^34 steps.
#[test]
fn composites_that_fan_out_cost_no_more_than_their_number() {
    let mut cluster = Cluster::new(1);
    for level in 0..34 {
        for number in 0..3 {
            let from = (0..3).map(|number| name(&format!("l{}.{number}", level + 1)));
            let composite = Definition::composite(name(&format!("l{level}.{number}")), from, Compute::Max);
            cluster.write(0, &definition_key(&composite.name), seal(&composite));
        }
    }
    assert_eq!(cluster.get(0, "l0.0"), Err(GetError::TooDeep));
    assert_eq!(cluster.get(0, "l24.0"), Err(GetError::Dependency(name("l34.0"))));
}

/// Any bytes, and any change of valid ones, under any key of the service.
#[test]
fn no_bytes_make_the_service_fail() {
    let mut generator = generator(5, "hostile", 0);
    let record = Record { value: 2.0.into(), version: 1, score: Some(1.0), agent: Some(name("a")) };
    let composite = Definition::composite(name("y"), names(["x"]), Compute::Sum);
    let valid = [seal(&record), seal(&float("x")), seal(&composite)];
    for _ in 0..60 {
        let mut cluster = Cluster::new(2);
        cluster.register(0, float("x")).unwrap();
        for _ in 0..50 {
            let key = ["def/x", "def/y", "val/x", "val/y"][generator.random_range(0..4)];
            let mut bytes = valid[generator.random_range(0..3)].to_vec();
            for _ in 0..generator.random_range(0..3) {
                let at = generator.random_range(0..bytes.len());
                bytes[at] = generator.random();
            }
            bytes.truncate(generator.random_range(0..=2 * bytes.len()));
            cluster.write(1, &format!("@variables/{key}"), bytes);
            cluster.exchange();
        }
    }
}

/// A change here breaks running clusters.
#[test]
fn the_encoding_is_what_it_was() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let record = Record { value: 300.into(), version: 2, score: Some(1.0), agent: Some(name("a")) };
    assert_eq!(hex(&seal(&record)), "0101d8040201000000000000f03f010161");
    assert_eq!(open::<Record>(&seal(&record)), Ok(record));
    let definition = Definition {
        constraints: vec![sum_at_most(&["x", "y"], 3.0)],
        policy: Policy::Merge(Merge::Median),
        ..Definition::new(name("x"), Kind::integer(1, 2), 1)
    };
    let expected = "0101780102040101010201000002000000000000f03f0178000000000000f03f017901000000000000084002000203000000";
    assert_eq!(hex(&seal(&definition)), expected);
    assert_eq!(open::<Definition>(&seal(&definition)), Ok(definition));
}
