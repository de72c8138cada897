//! One node alone: paths, types, layers, allow-list, file, environment, undoing.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Limits {
    rate: u16,
    ratio: f32,
    names: Vec<String>,
    note: Option<char>,
    mode: Mode,
    by_name: BTreeMap<String, bool>,
    pair: (i8, Unit),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Mode {
    Off,
    Fixed(u32),
    Range { low: u8, high: u8 },
    Both(u8, u8),
}

#[test]
fn what_was_updated_is_read_until_it_is_reset() {
    let mut node = Node::new(1, Config::default());
    node.with_config(|config, _, events| config.update("app/rate", &5, events)).unwrap();
    assert_eq!(node.config.get::<u8>(&node.replica, "app/rate"), Ok(5));
    assert!(node.config.is_available(&node.replica, "app"));
    node.with_config(|config, _, events| config.reset("app/rate", events)).unwrap();
    assert_eq!(node.config.get::<u8>(&node.replica, "app/rate"), Err(ReadError::NotFound));
    assert_eq!(node.config.get_or(&node.replica, "app/rate", 9), Ok(9));
    assert_eq!(node.config.reset("app/rate", &mut Vec::new()), Err(SetError::NotFound(path("app/rate"))));
    assert!(!node.config.is_available(&node.replica, "app"));
}

#[test]
fn a_value_of_another_type_is_a_typed_error() {
    let mut node = Node::new(1, Config::default());
    node.with_config(|config, _, events| config.update("app", &tree(r#"{"text": "x", "large": 300}"#), events)).unwrap();
    let wrong = |path| node.config.get::<u8>(&node.replica, path).unwrap_err();
    assert_eq!(wrong("app/text"), ReadError::WrongType { expected: "u8".to_owned(), found: "string \"x\"".to_owned() });
    assert_eq!(wrong("app/large"), ReadError::WrongType { expected: "u8".to_owned(), found: "integer `300`".to_owned() });
    assert_eq!(wrong("app"), ReadError::WrongType { expected: "u8".to_owned(), found: "map".to_owned() });
    let list = node.with_config(|config, _, events| config.update("app/list", &[1, 2, 3], events));
    assert_eq!(list, Ok(()));
    assert!(node.config.get::<(u8, u8)>(&node.replica, "app/list").is_err(), "an element too many");
}

#[test]
fn texts_that_are_no_paths_are_refused() {
    let long = "x".repeat(limits::NAME_BYTES_MAX + 1);
    let deep = ["x"; limits::PATH_NAMES_MAX + 1].join("/");
    let longest = format!("x/{}", [&long[1..]; 8].join("/"));
    for (text, problem) in [
        ("", PathError::EmptyName),
        ("/app", PathError::EmptyName),
        ("app/", PathError::EmptyName),
        ("app//x", PathError::EmptyName),
        ("app/\u{e9}", PathError::Character('\u{e9}')),
        ("app.x", PathError::Character('.')),
        (&long, PathError::NameTooLong),
        (&deep, PathError::TooDeep),
        (&longest, PathError::TooLong),
    ] {
        assert_eq!(Path::try_from(text), Err(problem), "{text}");
        let node = Node::new(1, Config::default());
        assert_eq!(node.config.get::<u8>(&node.replica, text), Err(ReadError::InvalidPath(problem)));
    }
    let mut config = State::new(peer(1), Config::default());
    let error = config.update("app", &5, &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::InvalidPath { at: "app".to_owned(), problem: PathError::OnlyNamespace });
    let error = config.update("app", &tree(r#"{"a b": 1}"#), &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::InvalidPath { at: "app".to_owned(), problem: PathError::Character(' ') });
    assert!(path("app/a/b").is_under(&path("app/a")));
    assert!(!path("app/ab").is_under(&path("app/a")));
    assert_eq!(path("app/a").child("b/c"), Err(PathError::Character('/')));
    assert_eq!(path("app/a").namespace(), "app");
}

#[test]
fn types_of_the_application_survive_being_values() {
    let mut node = Node::new(1, Config::default());
    for mode in [Mode::Off, Mode::Fixed(7), Mode::Range { low: 1, high: 2 }, Mode::Both(3, 4)] {
        let limits = Limits {
            rate: 500,
            ratio: 0.5,
            names: vec!["a".to_owned()],
            note: (mode == Mode::Off).then_some('x'),
            mode,
            by_name: BTreeMap::from([("http".to_owned(), true), ("https".to_owned(), false)]),
            pair: (-3, Unit),
        };
        node.with_config(|config, _, events| config.update("app/limits", &limits, events)).unwrap();
        assert_eq!(node.config.get::<Limits>(&node.replica, "app/limits"), Ok(limits));
        assert_eq!(node.integer("app/limits/rate"), Some(500));
    }
    let mut refused = |value: &dyn Fn(&mut State) -> Result<(), SetError>| value(&mut node.config).unwrap_err();
    assert!(matches!(refused(&|config| config.update("app/x", &u64::MAX, &mut Vec::new())), SetError::WrongType { .. }));
    let numbered = BTreeMap::from([(1, 2)]);
    assert!(matches!(refused(&|config| config.update("app/x", &numbered, &mut Vec::new())), SetError::WrongType { .. }));
}

#[test]
fn stronger_layers_answer_and_maps_are_merged() {
    let mut node = Node::new(1, synced());
    node.with_config(|config, _, events| config.load_defaults(tree(r#"{"app": {"a": {"x": 1, "y": 1}, "b": 1}}"#), events)).unwrap();
    node.with_config(|config, _, events| config.load_file(r#"{"app": {"a": {"y": 2, "z": 2}}}"#, serde_json::from_str, events)).unwrap();
    node.with_config(|config, _, events| config.load_environment("M", [("M__APP__A__Z", "3"), ("HOME", "/")], events)).unwrap();
    node.set("app/a/z", Value::Integer(4), 1);
    node.set("app/a/w", Value::Integer(4), 2);
    node.with_config(|config, _, events| config.update("app/a/w", &5, events)).unwrap();
    assert_eq!(node.get("app"), Some(tree(r#"{"a": {"w": 5, "x": 1, "y": 2, "z": 4}, "b": 1}"#)));

    let explained = node.config.explain(&node.replica, "app/a/w").unwrap();
    let said: Vec<_> =
        explained.iter().map(|said| (said.layer, said.found.as_ref().map(|found| found.value.clone()), said.answers)).collect();
    let four = Some(Value::Integer(4));
    let five = Some(Value::Integer(5));
    let nothing = [Layer::Default, Layer::File, Layer::Environment].map(|layer| (layer, None, false));
    assert_eq!(said, [&nothing[..], &[(Layer::Cluster, four.clone(), false), (Layer::Override, five, true)]].concat());
    let cluster = explained[3].found.as_ref().unwrap();
    assert_eq!((cluster.origin, cluster.stamp.is_some()), (peer(1), true));
    let answering: Vec<_> = node.config.explain(&node.replica, "app/a").unwrap().into_iter().map(|said| said.answers).collect();
    assert_eq!(answering, [true, true, false, true, true]);

    node.with_config(|config, _, events| config.reset("app/a/w", events)).unwrap();
    assert_eq!(node.get("app/a/w"), four);
    node.with_config(|config, _, events| config.update("app/a", &1, events)).unwrap();
    assert_eq!(node.get("app/a/w"), None, "the value above hides it");
    assert_eq!(node.get("app"), Some(tree(r#"{"a": 1, "b": 1}"#)));
}

#[test]
fn each_visible_change_is_told_once_and_in_order() {
    let mut node = Node::new(1, Config::default());
    node.with_config(|config, _, events| config.update("app/b", &1, events)).unwrap();
    node.with_config(|config, _, events| config.update("app", &tree(r#"{"c": 3, "a": 2}"#), events)).unwrap();
    node.with_config(|config, _, events| config.update("app/a", &2, events)).unwrap();
    let (one, two, three) = (Some(Value::Integer(1)), Some(Value::Integer(2)), Some(Value::Integer(3)));
    let told = [("app/b", one), ("app/a", two), ("app/b", None), ("app/c", three)].map(|(path, value)| (path.to_owned(), value));
    assert_eq!(node.updates(0), told);
    let from = node.events.len();
    node.with_config(|config, _, events| config.load_defaults(tree(r#"{"app": {"a": 9, "d": {}}}"#), events)).unwrap();
    assert_eq!(node.updates(from), [("app/d".to_owned(), Some(tree("{}")))], "what is hidden is not told");
    assert!(node.events.iter().all(|event| event.is_update_under(&path("app"))));
    assert!(!node.events[0].is_update_under(&path("app/a")));
}

#[test]
fn a_broken_or_invalid_file_leaves_the_old_one() {
    let state = State::new(peer(1), Config::default()).with_validator(path("app/rate"), digit());
    let mut node = Node::with(1, state);
    let load = |node: &mut Node, text: &str| node.with_config(|config, _, events| config.load_file(text, serde_json::from_str, events));
    load(&mut node, r#"{"app": {"rate": 5, "x": 1}}"#).unwrap();
    for (text, is_right) in [
        ("{", (|error| matches!(error, LoadError::Broken(_))) as fn(&LoadError) -> bool),
        ("[]", |error| *error == LoadError::NoMap("list")),
        (r#"{"app": 5}"#, |error| matches!(error, LoadError::Set(SetError::InvalidPath { problem: PathError::OnlyNamespace, .. }))),
        (
            r#"{"app": {"rate": 50, "x": 2}}"#,
            |error| matches!(error, LoadError::Set(SetError::Refused { reason, .. }) if reason == "not a digit"),
        ),
    ] {
        let from = node.events.len();
        let error = load(&mut node, text).unwrap_err();
        assert!(is_right(&error), "{error}");
        assert_eq!(node.events[from..], [Event::FileRefused(error)]);
        assert_eq!(node.get("app"), Some(tree(r#"{"rate": 5, "x": 1}"#)));
    }
    assert_eq!(node.config.counters().files_refused, 4);
    let from = node.events.len();
    load(&mut node, r#"{"app": {"rate": 6, "x": 1}}"#).unwrap();
    assert_eq!(node.updates(from), [("app/rate".to_owned(), Some(Value::Integer(6)))]);
    let error = node.config.update("app/rate", &50, &mut Vec::new()).unwrap_err();
    assert_eq!(error, SetError::Refused { path: path("app/rate"), reason: "not a digit".to_owned() });
}

#[cfg(feature = "cli")]
#[test]
fn a_file_may_be_toml() {
    let mut node = Node::new(1, Config::default());
    let text = "[app.limits]\nrate = 5\nratio = 0.5\nnames = ['a']\n";
    node.with_config(|config, _, events| config.load_file(text, toml::from_str, events)).unwrap();
    assert_eq!(node.get("app/limits"), Some(tree(r#"{"rate": 5, "ratio": 0.5, "names": ["a"]}"#)));
}

#[test]
fn variables_of_the_environment_are_what_they_look_like() {
    let mut node = Node::new(1, Config::default());
    let texts = ["true", "-7", "1.5", "2e3", "-inf", "NaN", "1.2.3", "", "\"8\"", "plain", "9223372036854775808"];
    let names: Vec<String> = (0..texts.len()).map(|index| format!("MESH__APP__MAX_{index}")).collect();
    let variables = names.iter().map(String::as_str).zip(texts);
    node.with_config(|config, _, events| config.load_environment("MESH", variables, events)).unwrap();
    let read: Vec<Value> = (0..texts.len()).map(|index| node.get(&format!("app/max_{index}")).unwrap()).collect();
    let text = |text: &str| Value::Text(text.to_owned());
    let (yes, seven, float) = (Value::Bool(true), Value::Integer(-7), Value::Float);
    let last = text("9223372036854775808");
    assert_eq!(
        read,
        [yes, seven, float(1.5), float(2_000.0), text("-inf"), text("NaN"), text("1.2.3"), text(""), text("8"), text("plain"), last]
    );
    let mut refused = |variables: [(&str, &str); 2]| node.config.load_environment("M", variables, &mut Vec::new()).unwrap_err();
    assert!(matches!(refused([("M__APP__A", "1"), ("M__APP__A__B", "2")]), LoadError::Set(SetError::WrongType { .. })));
    assert!(matches!(refused([("M__APP__A", "1"), ("M__APP____B", "2")]), LoadError::Set(SetError::InvalidPath { .. })));
    assert!(matches!(refused([("M__APP__A", "1"), ("M__APP", "2")]), LoadError::Set(SetError::InvalidPath { .. })));
    let unnamed = SetError::InvalidPath { at: "M__".to_owned(), problem: PathError::EmptyName };
    assert_eq!(refused([("M__APP__A", "1"), ("M__", "2")]), LoadError::Set(unnamed), "it is named as it is written");
    assert_eq!(node.integer("app/max_1"), Some(-7));
}

#[test]
fn only_paths_that_are_allowed_can_be_changed() {
    let allowed = vec![path("app/limits"), path("ai/model")];
    let mut node = Node::new(1, Config { updatable_paths: Some(allowed.clone()), ..synced() });
    assert_eq!(node.config.updatable_paths(), Some(&allowed[..]));
    node.with_config(|config, _, events| config.load_file(r#"{"app": {"name": "x"}}"#, serde_json::from_str, events)).unwrap();
    node.with_config(|config, _, events| config.update("app/limits/rate", &1, events)).unwrap();
    for at in ["app/name", "app/limits_too", "ai/models"] {
        let error = SetError::NotUpdatable(path(at));
        assert_eq!(node.config.update(at, &1, &mut Vec::new()), Err(error.clone()));
        assert_eq!(node.config.set_cluster_wide(&node.replica, at, &1), Err(error));
    }
    let error = node.config.update("app", &tree(r#"{"limits": {"rate": 2}, "name": "y"}"#), &mut Vec::new());
    assert_eq!(error, Err(SetError::NotUpdatable(path("app/name"))));
    assert_eq!(node.config.update("app", &tree("{}"), &mut Vec::new()), Err(SetError::NotUpdatable(path("app"))));
    assert_eq!(node.integer("app/limits/rate"), Some(1), "all or nothing");
}

#[test]
fn the_last_changes_can_be_undone() {
    let mut node = Node::new(1, Config::default());
    for value in 1..=3 {
        node.with_config(|config, _, events| config.update("app/x", &value, events)).unwrap();
    }
    let from = node.events.len();
    node.with_config(|config, _, events| config.rollback(2, events)).unwrap();
    assert_eq!(node.updates(from), [("app/x".to_owned(), Some(Value::Integer(1)))]);
    node.with_config(|config, _, events| config.update("app/x/deep", &2, events)).unwrap();
    assert_eq!(node.get("app"), Some(tree(r#"{"x": {"deep": 2}}"#)));
    node.with_config(|config, _, events| config.reset("app", events)).unwrap();
    node.with_config(|config, _, events| config.rollback(2, events)).unwrap();
    assert_eq!(node.get("app"), Some(tree(r#"{"x": 1}"#)));
    assert_eq!(node.config.rollback(2, &mut Vec::new()), Err(SetError::NoHistory { path: None, kept: 1 }));
    for value in 0..2 * limits::UNDO_MAX {
        node.with_config(|config, _, events| config.update("app/y", &value, events)).unwrap();
    }
    assert_eq!(
        node.config.rollback(limits::UNDO_MAX + 1, &mut Vec::new()),
        Err(SetError::NoHistory { path: None, kept: limits::UNDO_MAX })
    );
}

#[test]
fn values_beyond_their_bounds_are_refused() {
    let config = State::new(peer(1), synced());
    let replica = Node::new(1, synced()).replica;
    let set = |value: &Value| config.set_cluster_wide(&replica, "app/x", value).map(|writes| writes.len());
    let nested = |levels| (0..levels).fold(Value::Null, |value, _| Value::List(vec![value]));
    let many = |len: usize| Value::Map((0..len).map(|index| (index.to_string(), Value::Null)).collect());
    let problem = |problem| Err(SetError::TooLarge { path: path("app/x"), problem });
    assert_eq!(set(&nested(limits::VALUE_DEPTH_MAX)), Ok(1));
    assert_eq!(set(&nested(limits::VALUE_DEPTH_MAX + 1)), problem(ValueError::TooDeep));
    assert_eq!(set(&Value::List(vec![Value::Null; limits::VALUE_NODES_MAX - 1])), Ok(1));
    assert_eq!(set(&Value::List(vec![Value::Null; limits::VALUE_NODES_MAX])), problem(ValueError::TooManyNodes));
    assert_eq!(set(&Value::Float(f64::NAN)), problem(ValueError::NotANumber));
    let len = limits::VALUE_BYTES_MAX + 5;
    assert_eq!(set(&Value::Bytes(vec![0; len - 5].into())), problem(ValueError::TooLong { len }));
    assert_eq!(set(&many(limits::WRITES_MAX)), Ok(limits::WRITES_MAX));
    let len = limits::WRITES_MAX + 1;
    assert_eq!(set(&many(len)), Err(SetError::TooMany { len, len_max: limits::WRITES_MAX }));
    let mut config = config.clone();
    let len = limits::LAYER_VALUES_MAX + 1;
    assert_eq!(config.update("app/x", &many(len), &mut Vec::new()), Err(SetError::TooMany { len, len_max: len - 1 }));
}
