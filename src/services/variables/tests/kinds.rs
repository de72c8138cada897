//! What definitions and values are refused, each by its own error.

use super::*;

fn fault(definition: Definition) -> (&'static str, Fault) {
    let error = definition.check().unwrap_err();
    assert!(!error.to_string().is_empty());
    (error.field, error.why)
}

fn of(kind: Kind, default: impl Into<Value>) -> Definition {
    Definition::new(name("x"), kind, default)
}

fn module(text: &str, capabilities: &[&str]) -> Module {
    Module { name: name(text), capabilities: capabilities.iter().map(|text| name(text)).collect() }
}

#[test]
fn every_wrong_field_of_a_definition_is_named() {
    let weighted = |weight| Kind::Choice { options: vec![Choice { text: "a".to_owned(), weight }], is_custom_allowed: false };
    let many = (0..=OPTIONS_MAX).map(|number| number.to_string()).collect::<Vec<_>>();
    let cases = [
        (of(Kind::float(f64::NAN, 1.0), 0.0), "kind.range", Fault::NotFinite),
        (of(Kind::float(f64::MIN, f64::MAX), 0.0), "kind.range", Fault::NotFinite),
        (of(Kind::float(2.0, 1.0), 1.0), "kind.range", Fault::Reversed),
        (of(Kind::Float { min: 0.0, max: 1.0, precision: -0.1 }, 0.0), "kind.precision", Fault::NotAStep),
        (of(Kind::Float { min: 0.0, max: 1.0, precision: 1e-12 }, 0.0), "kind.precision", Fault::NotAStep),
        (of(Kind::integer(2, 1), 1), "kind.range", Fault::Reversed),
        (of(Kind::Integer { min: 0, max: 1, step: 0 }, 0), "kind.step", Fault::NotAStep),
        (of(Kind::choice([]), "a"), "kind.options", Fault::Count { len: 0, len_min: 1, len_max: OPTIONS_MAX }),
        (of(Kind::choice(many.iter().map(String::as_str)), "0"), "kind.options", Fault::Count { len: 257, len_min: 1, len_max: 256 }),
        (of(Kind::choice(["a", "a"]), "a"), "kind.options", Fault::Duplicate("a".to_owned())),
        (of(weighted(0.0), "a"), "kind.weights", Fault::Weights),
        (of(weighted(f64::NAN), "a"), "kind.weights", Fault::Weights),
        (
            of(Kind::float(0.0, 1.0), 2.0),
            "default",
            Fault::Default(ValueError::OutOfRange { value: 2.0.into(), min: 0.0.into(), max: 1.0.into() }),
        ),
        (Definition { default: None, ..float("x") }, "default", Fault::Misplaced),
        (
            Definition { default: Some(1.0.into()), ..Definition::composite(name("x"), names(["y"]), Compute::Sum) },
            "default",
            Fault::Misplaced,
        ),
        (Definition { consistency: Consistency::Strong, ..float("x") }, "consistency", Fault::Unsupported),
        (Definition { consistency: Consistency::Causal, ..float("x") }, "consistency", Fault::Unsupported),
        (Definition { consistency: Consistency::Session, ..float("x") }, "consistency", Fault::Unsupported),
        (Definition { policy: Policy::Consensus, ..float("x") }, "policy", Fault::Unsupported),
        (Definition { policy: Policy::Merge(Merge::Mean), ..of(Kind::choice(["a"]), "a") }, "policy", Fault::NotNumeric),
        (Definition { constraints: vec![sum_at_most(&["x"], f64::NAN)], ..float("x") }, "constraints.terms", Fault::NotFinite),
        (Definition { description: "x".repeat(1_025), ..float("x") }, "description", Fault::TooLong { len: 1_025, len_max: 1_024 }),
    ];
    for (definition, field, why) in cases {
        let (found_field, found) = fault(definition);
        assert_eq!(found_field, field);
        // Not a number is not equal to itself; the names of the variants tell what matters.
        assert_eq!(format!("{found:?}"), format!("{why:?}"));
    }
}

#[test]
fn every_wrong_value_has_its_error() {
    let steps = of(Kind::Float { min: 0.0, max: 1.0, precision: 0.1 }, 0.0);
    assert_eq!(steps.check_value(&0.7.into()), Ok(()));
    assert_eq!(steps.check_value(&(0.1 + 0.2).into()), Ok(()));
    assert_eq!(steps.check_value(&3.0.into()).unwrap_err().to_string(), "3 is outside the range of 0 to 1");
    assert!(matches!(steps.check_value(&0.55.into()), Err(ValueError::OffGrid { .. })));
    assert_eq!(steps.check_value(&f64::NAN.into()), Err(ValueError::NotFinite));
    assert_eq!(steps.check_value(&1.into()), Err(ValueError::WrongType { expected: "a float" }));

    let even = of(Kind::Integer { min: 2, max: 9, step: 2 }, 2);
    assert_eq!(even.check_value(&8.into()), Ok(()));
    assert_eq!(even.check_value(&9.into()), Err(ValueError::OffGrid { value: 9.into(), nearest: 8.into() }));
    assert_eq!(even.check_value(&10.into()), Err(ValueError::OutOfRange { value: 10.into(), min: 2.into(), max: 9.into() }));
    let all = of(Kind::integer(i64::MIN, i64::MAX), 0);
    assert_eq!([i64::MIN, -1, i64::MAX].map(|number| all.check_value(&number.into())), [Ok(()), Ok(()), Ok(())]);

    let fixed = of(Kind::choice(["a", "b"]), "a");
    assert_eq!(fixed.check_value(&"c".into()), Err(ValueError::NotAnOption("c".to_owned())));
    let custom = Kind::Choice { options: vec![Choice { text: "a".to_owned(), weight: 1.0 }], is_custom_allowed: true };
    assert_eq!(of(custom.clone(), "a").check_value(&"c".into()), Ok(()));
    assert_eq!(of(custom, "a").check_value(&Value::Text("c".repeat(257))), Err(ValueError::TooLong { len: 257 }));

    let allowed = vec![module("fast", &["plan"]), module("deep", &["plan", "prove"])];
    let modules = of(Kind::Module { allowed, required: vec![name("prove")], compatibility: Vec::new() }, "deep");
    assert_eq!(modules.check(), Ok(()));
    assert_eq!(modules.check_value(&"none".into()), Err(ValueError::NotAllowed("none".to_owned())));
    let incapable = ValueError::Incapable { module: name("fast"), capability: name("prove") };
    assert_eq!(modules.check_value(&"fast".into()), Err(incapable));

    let composite = Definition::composite(name("x"), names(["y"]), Compute::Sum);
    assert_eq!(composite.check_value(&1.0.into()), Err(ValueError::Computed));
    let bounded = Definition { constraints: vec![sum_at_most(&["x"], 5.0)], ..float("x") };
    assert_eq!(bounded.check_value(&6.0.into()), Err(ValueError::Constraint { index: 0 }));
}

#[test]
fn names_are_short_and_plain() {
    for text in ["", "a/b", "a b", "\u{e9}", &"x".repeat(129)] {
        assert_eq!(Name::try_from(text), Err(NameError));
    }
    assert_eq!(name("team-1.budget:max_2").as_str(), "team-1.budget:max_2");
}

#[test]
fn every_draw_of_a_kind_is_one_of_its_values() {
    let mut generator = generator(1, "kinds", 0);
    for _ in 0..2_000 {
        let min = generator.random_range(-1e6..1e6);
        let span = 10.0_f64.powi(generator.random_range(-3..6));
        let precision = [0.0, span / 7.0, span / 1e3, span * 2.0][generator.random_range(0..4)];
        let low = generator.random_range(i64::MIN..i64::MAX);
        for kind in [
            Kind::Float { min, max: min + span, precision },
            Kind::Integer { min: low, max: generator.random_range(low..=i64::MAX), step: generator.random_range(1..u64::MAX) },
        ] {
            if kind.check_shape().is_err() {
                continue;
            }
            for unit in [0.0, generator.random(), 1.0 - f64::EPSILON / 2.0] {
                let value = kind.at(unit).unwrap();
                assert_eq!(kind.check(&value), Ok(()), "{kind:?}");
                assert_eq!(kind.check(&kind.snap(&value)), Ok(()), "{kind:?}");
            }
        }
    }
}
