//! What files say, and what is said of wrong ones.

use super::*;
use crate::host::RealNode;
use crate::run::run;

const FILE: &str = r#"
name = "half of them crash"
scenario = "broadcast"
nodes = 8
seeds = "3..5"

[set]
messages = 12
loss = "1%"

[[fault]]
kind = "crash"
at = "26s"
nodes = "50%"
over = "2s"
back = "5s"

[[fault]]
kind = "partition"
at = "27s"
for = "2s"
times = 3
every = "4s"
groups = 3
bridges = 1

[[expect]]
metric = "delivery"
min = 1

[sweep]
active = [4, 6]
latency = ["10ms", "50ms"]
"#;

fn mistake(text: &str) -> String {
    File::parse("a.toml", text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_file_says_what_is_run() {
    let file = File::parse("half.toml", FILE).unwrap();
    assert_eq!((file.name.as_str(), file.nodes, file.seeds.clone()), ("half of them crash", 8, 3..5));
    let variants = file.variants();
    assert_eq!(variants.len(), 4);
    assert_eq!(variants[1], ["active=4", "latency=50ms"]);
    let plan = file.job(3, &variants[3], 1).unwrap().into_whole().unwrap();
    assert_eq!((plan.tuning.active, plan.setup.link.latency, plan.setup.link.loss), (6, 50_000, 0.01));
    let count = |name| plan.schedule.count(name);
    assert_eq!((count("crash"), count("restart"), count("bridge"), count("broadcast")), (4, 4, 3, 12));
    for entry in plan.schedule.entries() {
        match &entry.what {
            Happening::Crash { node } => {
                assert!(*node >= 2, "the first two are whom the others are told of");
                assert!((26 * SECOND..28 * SECOND).contains(&entry.at));
            }
            Happening::Partition { until, groups, bridges, .. } => {
                assert_eq!((until - entry.at, groups.len(), bridges.len()), (2 * SECOND, 2, 1));
            }
            _ => {}
        }
    }
    assert!(
        plan.calm_at > plan.schedule.entries().iter().filter(|entry| entry.what.name() == "restart").map(|entry| entry.at).max().unwrap()
    );
    assert_eq!(plan.replay, "meshwork-sim run half.toml --seed 3 --set active=6 --set latency=50ms");
    let outcome = run::<RealNode>(&plan, &mut |_| {}).unwrap();
    assert!(outcome.ok, "{:?}", outcome.failure);
    assert_eq!((outcome.metric("crash"), outcome.metric("bridge")), (Some(4.0), Some(3.0)));
}

#[test]
fn a_further_fault_changes_nothing_of_the_others() {
    let longer = format!("{FILE}\n[[fault]]\nkind = \"clog\"\nat = \"26s\"\nnodes = 2\n");
    let plans = [FILE, &longer].map(|text| File::parse("a.toml", text).unwrap().job(3, &[], 1).unwrap().into_whole().unwrap());
    let entries = |plan: &Plan| -> Vec<_> {
        plan.schedule.entries().iter().filter(|entry| !matches!(entry.what.name(), "clog" | "calm")).cloned().collect()
    };
    assert_eq!(entries(&plans[0]), entries(&plans[1]));
}

#[test]
fn every_kind_of_fault_can_be_had_and_happens() {
    for kind in KINDS {
        let text = format!("scenario = \"broadcast\"\nnodes = 8\n[[fault]]\nkind = \"{}\"\nat = \"27s\"\n", kind.name);
        let plan = File::parse("a.toml", &text).unwrap().job(2, &[], 1).unwrap().into_whole().unwrap();
        let outcome = run::<RealNode>(&plan, &mut |_| {}).unwrap();
        assert!(outcome.ok, "{}: {:?}", kind.name, outcome.failure);
        let happens = match kind.name {
            "churn" => "crash",
            "swizzle" => "clog",
            // It moves a start, which is no fault of its own.
            "crowd" => continue,
            name => name,
        };
        assert!(outcome.metric(happens).is_some_and(|count| count >= 1.0), "{} did not happen", kind.name);
    }
}

#[test]
fn mistakes_name_the_line_the_key_and_what_would_be_right() {
    let head = "scenario = \"broadcast\"\n";
    for (text, line, words) in [
        ("nodes = 3\n", 1, &["no `scenario`", "one of broadcast"][..]),
        ("scenario = \"brodcast\"\n", 1, &["`brodcast`", "Did you mean `broadcast`?"]),
        ("scenario = \"broadcast\"\nnodse = 3\n", 2, &["`nodse`", "Did you mean `nodes`?"]),
        ("scenario = \"broadcast\"\nnodes = 2\n", 2, &["nodes: `2`", "from 3 to"]),
        ("scenario = \"broadcast\"\nseeds = \"x\"\n", 2, &["seeds", "0..500"]),
        ("scenario = \"broadcast\"\n[set]\n\nlos = \"1%\"\n", 4, &["`los`", "Did you mean `loss`?"]),
        ("scenario = \"broadcast\"\n[set]\nlatency = 20\n", 3, &["latency: `20`", "such as `20ms`"]),
        ("scenario = \"broadcast\"\n[set]\nlatency-min = \"1ms\"\n", 3, &["network=uniform"]),
        ("scenario = \"broadcast\"\n[[fault]]\nkind = \"crsh\"\nat = \"1s\"\n", 3, &["`crsh`", "Did you mean `crash`?"]),
        ("scenario = \"broadcast\"\n\n[[fault]]\nkind = \"crash\"\n", 3, &["no `at`"]),
        ("scenario = \"broadcast\"\n[[fault]]\nat = \"1s\"\n", 2, &["no `kind`", "one of crash"]),
        ("scenario = \"broadcast\"\n[[fault]]\nkind = \"crash\"\nat = \"20s\"\nfor = \"5s\"\n", 5, &["`for`", "There are:"]),
        ("scenario = \"broadcast\"\n[[fault]]\nkind = \"pause\"\nat = \"20s\"\nfor = 5\n", 5, &["for: `5`", "such as"]),
        ("scenario = \"broadcast\"\n[[fault]]\nkind = \"crash\"\nat = \"20s\"\nnodes = \"half\"\n", 5, &["nodes", "30%"]),
        ("scenario = \"broadcast\"\n[[fault]]\nkind = \"crash\"\nat = \"20s\"\nnodes = [99]\n", 2, &["no node 99"]),
        ("scenario = \"broadcast\"\n[[expect]]\nmetric = \"delivery\"\n", 2, &["a `min`"]),
        ("scenario = \"broadcast\"\n[[expect]]\nmetric = \"delivery\"\nmin = \"all\"\n", 4, &["min: `all`", "not a number"]),
        ("scenario = \"broadcast\"\n[[expect]]\nmetric = \"latency_p5\"\nmin = 1\n", 3, &["metric `latency_p5`", "`latency_p50`"]),
        ("scenario = \"broadcast\"\n[sweep]\nactive = 3\n", 3, &["active", "a list of values"]),
        ("scenario = \"broadcast\"\n[sweep]\nactive = []\n", 2, &["combinations"]),
        ("scenario = \"broadcast\"\n[sweep]\nactive = [4, 900]\n", 3, &["active: `900`", "from 1 to 64"]),
        ("scenario = \"broadcast\"\nfault = 3\n", 2, &["[[fault]]"]),
        ("scenario = \"broadcast\"\n[set\n", 2, &[]),
    ] {
        let mistake = mistake(text);
        assert!(mistake.starts_with(&format!("a.toml:{line}: ")), "{text}: {mistake}");
        assert!(words.iter().all(|word| mistake.contains(word)), "{text}: {mistake}");
    }
    assert!(File::parse("a.toml", head).is_ok());
}
