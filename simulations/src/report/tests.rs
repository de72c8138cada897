//! The report of runs whose numbers are known.

use meshwork_channels::buggify::Sites;

use super::figures::{Worse, figure_of};
use super::metrics::{DRAWN_MAX, Results, State, further, middle_and_worst, spread};
use super::page::Report;
use super::sweep::Sweep;
use super::{Combination, Run, csv};
use crate::invariants::View;
use crate::plan::{self, Plan, SECOND, Tuning};
use crate::record::{Record, Totals};
use crate::run::{Failure, Outcome, Verdict, observe, run};
use crate::schedule::{Happening, Schedule};
use crate::toy::Toy;
use crate::world::{Moved, Seen, Setup, Sight};

const PLOTS: [&str; 9] = [
    "plot-delivery",
    "plot-latency",
    "plot-hops",
    "plot-redundancy",
    "plot-degree",
    "plot-paths",
    "plot-bytes",
    "plot-traffic",
    "plot-overlay",
];

/// Six nodes that join and broadcast; one crashes and a partition passes.
fn six(seed: u64) -> Plan {
    let mut schedule = Schedule::default();
    let mut draw = plan::Draw::new(seed, "test");
    plan::join(&mut schedule, &mut draw, 0..6, plan::Join::Staggered, 0, 2 * SECOND);
    plan::broadcasts(&mut schedule, &mut draw, &[0, 3], 20, 5 * SECOND, 10 * SECOND);
    schedule.push(8 * SECOND, Happening::cut(10 * SECOND, vec![1, 2]));
    schedule.push(12 * SECOND, Happening::Crash { node: 5 });
    schedule.push(16 * SECOND, Happening::Calm);
    schedule.sort();
    let link = plan::link(10_000, 2_000, 0.05);
    Plan {
        scenario: "six <& \"more\">".to_owned(),
        replay: format!("meshwork-sim run six --seed {seed}"),
        setup: Setup {
            seed,
            nodes: 6,
            link,
            shape: crate::network::Shape::default(),
            skew: 1_000,
            payload_bytes: 32,
            value_bytes: 16,
            sync: 0,
            plant: None,
        },
        tuning: Tuning {
            full_mesh: false,
            active: 5,
            passive: 30,
            retention: 60 * SECOND,
            suspicion: 0,
            no_repair: false,
            collect_after: 0,
            absent_max: 0,
            without: None,
            buggify: Sites::NONE,
        },
        schedule,
        work_at: 0,
        calm_at: 16 * SECOND,
        quiet_min: 12 * SECOND,
        settle_max: 30 * SECOND,
        required: vec![("crash".to_owned(), 1), ("partition".to_owned(), 1)],
        must_lose: true,
        expectations: Vec::new(),
    }
}

fn played(seed: u64) -> (Plan, Outcome, Results) {
    let plan = six(seed);
    let mut results = Results::default();
    let outcome = observe::<Toy>(&plan, &mut results, &mut |_| {}).unwrap();
    (plan, outcome, results)
}

fn page(all: &[(Plan, Outcome, Results)]) -> String {
    let runs: Vec<Run<'_>> = all.iter().map(|(plan, outcome, results)| Run { outcome, results, replay: &plan.replay }).collect();
    Report { plan: &all[0].0.describe(), command: "meshwork-sim run 'six' --set a<b", version: "1.2.3", runs: &runs }.render()
}

/// Checks that tags close in order and that every attribute is quoted and every `&` an entity; gives the elements.
fn parse(mut xml: &str) -> Vec<String> {
    let (mut open, mut elements) = (Vec::new(), Vec::new());
    while let Some(start) = xml.find('<') {
        let text = &xml[..start];
        assert!(!text.contains('>'), "{text}");
        for part in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| part.starts_with(entity)), "{text}");
        }
        let end = start + xml[start..].find('>').unwrap();
        let tag = &xml[start + 1..end];
        xml = &xml[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        let mut attributes = tag[name.len()..].trim_end_matches('/').trim();
        while !attributes.is_empty() {
            let (key, rest) = attributes.split_once("=\"").unwrap_or_else(|| panic!("{tag}"));
            assert!(key.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-'), "{tag}");
            let (value, rest) = rest.split_once('"').unwrap_or_else(|| panic!("{tag}"));
            assert!(!value.contains('<'), "{tag}");
            attributes = rest.trim_start();
        }
        elements.push(name.clone());
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    elements
}

fn check_page(page: &str) {
    for id in PLOTS {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    for foreign in ["http", "src=", "href=", "url(", "@import", "<script", "<link", "<img", "NaN", "inf\"", "six <&"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for part in page.split("<svg").skip(1) {
        let (svg, _) = part.split_once("</svg>").unwrap();
        parse(&format!("<svg{svg}</svg>"));
    }
    let body = page.split_once("<body>").unwrap().1.strip_suffix("</body></html>\n").unwrap();
    assert!(parse(body).iter().filter(|name| *name == "table").count() == 3);
}

#[test]
fn a_page_has_every_plot_and_stands_alone() {
    let one = played(1);
    assert!(one.1.ok, "{:?}", one.1.failure);
    let text = page(std::slice::from_ref(&one));
    check_page(&text);
    for part in [
        "six &lt;&amp; &quot;more&quot;&gt;, 6 nodes",
        "meshwork-sim run 'six' --set a&lt;b",
        "ok: everything held",
        "class=\"band partition\"",
        "class=\"band crash\"",
        "node 5: down",
        "All 6 nodes",
        "1 are down",
        "do not count copies",
        "prefers-color-scheme:dark",
        "width=device-width",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("nothing of the kind happened") && !text.contains("plot-copies"), "what nobody measured is left out");
    assert_eq!(text, page(&[played(1)]), "the same seed gives the same bytes");
}

#[test]
fn several_seeds_show_the_middle_and_the_worst() {
    let all: Vec<_> = (1..6).map(played).collect();
    let text = page(&all);
    check_page(&text);
    for part in ["(in the middle)", "(worst)", "<th class=\"number\">mean</th>", "ok: everything held in all 5 seeds", "dashed"] {
        assert!(text.contains(part), "{part}");
    }
    let outcomes: Vec<&Outcome> = all.iter().map(|(_, outcome, _)| outcome).collect();
    let spreads = spread(&outcomes);
    let values: Vec<f64> = outcomes.iter().map(|outcome| outcome.metric("latency_p99").unwrap()).collect();
    let p99 = spreads.iter().find(|spread| spread.name == "latency_p99").unwrap();
    let most = values.iter().copied().fold(0.0, f64::max);
    assert_eq!(p99.worst.unwrap().0, most);
    assert!((p99.mean - values.iter().sum::<f64>() / 5.0).abs() < 1e-9);
    let (middle, worst) = middle_and_worst(&outcomes, "latency_p99");
    assert_eq!(values[worst], most);
    assert_eq!(values.iter().filter(|value| **value < values[middle]).count(), 2);
    assert_eq!(spreads.iter().find(|spread| spread.name == "crash").unwrap().worst, None);
}

#[test]
fn a_run_that_broke_at_once_has_a_page_too() {
    let (plan, mut outcome, _) = played(1);
    outcome.ok = false;
    outcome.metrics.clear();
    outcome.invariants = vec![Verdict { name: "delivered_once", kind: "always", ok: false }];
    let class = crate::run::Class::Panic;
    outcome.failure = Some(Failure { class, what: "panic".to_owned(), at: 1, node: Some(2), detail: "<oh>".to_owned() });
    let text = page(&[(plan, outcome, Results::default())]);
    check_page(&text);
    for part in ["FAILED", "&lt;oh&gt;", "at node 2", "nothing of the kind happened", "FAILS"] {
        assert!(text.contains(part), "{part}");
    }
}

/// The columns of a table by name.
fn column(table: &str, name: &str) -> Vec<f64> {
    let mut lines = table.lines();
    let place = lines.next().unwrap().split(',').position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    lines.map(|line| line.split(',').nth(place).unwrap().parse().unwrap_or(0.0)).collect()
}

#[test]
fn tables_add_up_to_the_record() {
    let (plan, outcome, results) = played(3);
    let runs = [Run { outcome: &outcome, results: &results, replay: &plan.replay }];
    let (series, messages, nodes) = (csv::series(&runs), csv::messages(&runs), csv::nodes(&runs));
    let sum = |table: &str, name: &str| column(table, name).iter().sum::<f64>();
    for table in [&series, &messages, &nodes] {
        let columns = table.lines().next().unwrap().split(',').count();
        assert!(table.lines().all(|line| line.split(',').count() == columns), "{table}");
    }
    assert_eq!(series.lines().count() as f64, outcome.virtual_s + 1.0);
    assert_eq!(nodes.lines().count(), 7);
    assert_eq!(messages.lines().count() as f64, outcome.metric("messages").unwrap() + 1.0);
    assert_eq!(sum(&series, "sent_messages"), 20.0);
    let deliveries = sum(&series, "deliveries");
    assert!(deliveries > 60.0);
    assert_eq!((sum(&messages, "deliveries"), sum(&nodes, "deliveries")), (deliveries, deliveries));
    assert_eq!(sum(&series, "sent_bytes"), sum(&nodes, "sent_bytes"));
    assert!(sum(&nodes, "received_bytes") > 0.0 && sum(&nodes, "received_bytes") <= sum(&nodes, "sent_bytes"));
    let seconds = outcome.virtual_s * 6.0;
    assert!((sum(&series, "sent_bytes") / seconds - outcome.metric("bytes_per_node").unwrap()).abs() < 1e-6);
    let share = sum(&messages, "delivered_nodes") / sum(&messages, "expected_nodes");
    assert_eq!(Some(share), outcome.metric("delivery"));
    let most = column(&messages, "latency_max_ms").into_iter().fold(0.0, f64::max);
    assert_eq!(Some(most), outcome.metric("latency_ms_max"));
    assert_eq!(column(&series, "alive_nodes").last(), Some(&5.0));
    assert!(nodes.contains("5,down,0,"));
}

#[test]
fn watching_a_run_does_not_change_it() {
    let (plan, outcome, _) = played(2);
    let plain = run::<Toy>(&plan, &mut |_| {}).unwrap();
    assert_eq!(plain.digests, outcome.digests);
    assert_eq!(plain.metrics, outcome.metrics[..plain.metrics.len()]);
    for metric in &outcome.metrics {
        assert!(!figure_of(metric.name).about.is_empty(), "{} is explained", metric.name);
    }
    assert_eq!(figure_of("delivery").worse, Worse::Less);
}

/// A ring of the living; the last nodes are down.
struct Ring {
    nodes: u32,
    down: u32,
}

impl View for Ring {
    fn now(&self) -> u64 {
        10 * SECOND
    }
    fn nodes(&self) -> u32 {
        self.nodes
    }
    fn is_alive(&self, node: u32) -> bool {
        node < self.nodes - self.down
    }
    fn visit_neighbors(&self, node: u32, visit: &mut dyn FnMut(u32)) {
        let alive = self.nodes - self.down;
        visit((node + 1) % alive);
        visit((node + alive - 1) % alive);
    }
    fn visit_members(&self, _: u32, _: &mut dyn FnMut(u32)) {}
    fn state_digest(&self, _: u32) -> u128 {
        0
    }
    fn has_key(&self, _: u32, _: u32) -> bool {
        false
    }

    fn read(&self, _: u32, _: crate::deed::Place) -> Option<meshwork::crdt::Value> {
        None
    }
}

fn ring(nodes: u32, down: u32) -> Results {
    let mut record = Record::new(nodes);
    (0..nodes).for_each(|node| record.take(&Seen { at: 1, node, life: 1, what: Sight::Started }));
    record.end_second(SECOND, nodes as usize, Totals::default());
    Results::new(&six(1), &record, &Ring { nodes, down }, &vec![Moved::default(); nodes as usize], &[])
}

#[test]
fn the_graph_is_counted_exactly_when_small_and_sampled_when_large() {
    let small = ring(7, 0);
    assert_eq!((small.paths, small.sources, small.unreachable), (vec![0, 14, 14, 14], 7, 0));
    assert_eq!((small.picture.nodes.len(), small.picture.links.len(), small.picture.of), (7, 7, 7));
    let metric = |name: &str| further(&ring(7, 0)).iter().find(|metric| metric.name == name).map(|metric| metric.value);
    assert_eq!((metric("avg_path"), metric("diameter"), metric("degree_min")), (Some(2.0), Some(3.0), Some(2.0)));

    let large = ring(2_000, 500);
    assert_eq!(large.sources, 64);
    assert_eq!(large.paths.iter().sum::<u64>(), 64 * 1_499);
    assert_eq!((large.picture.nodes.len(), large.picture.of), (DRAWN_MAX, 2_000));
    let down = large.picture.nodes.iter().filter(|node| large.nodes[**node as usize].state == State::Down).count();
    assert_eq!(down, 50, "the share of those that are down");
    assert!(large.picture.links.len() >= 149, "the living ones hang together");
}

#[test]
fn combinations_stand_side_by_side() {
    let all: Vec<_> = (1..13).map(played).collect();
    let runs: Vec<Run<'_>> = all.iter().map(|(plan, outcome, results)| Run { outcome, results, replay: &plan.replay }).collect();
    let set = |active: &'static str| ["loss=0%", "loss=5%"].map(|loss| vec![active.to_owned(), loss.to_owned()]);
    let sets: Vec<Vec<String>> = ["active=4", "active=6", "active=\"5\""].into_iter().flat_map(set).collect();
    let combinations: Vec<Combination<'_>> = sets.iter().zip(runs.chunks(2)).map(|(set, runs)| Combination { set, runs }).collect();
    let text = Sweep { name: "<six>", command: "meshwork-sim run 'six'", version: "1.2.3", combinations: &combinations }.render();
    assert!(!["http", "src=", "href=", "<script", "NaN", "inf\"", "<six>"].iter().any(|foreign| text.contains(foreign)));
    let body = text.split_once("<body>").unwrap().1.strip_suffix("</body></html>\n").unwrap();
    assert_eq!(parse(body).iter().filter(|name| *name == "tr").count(), 1 + 6);
    for part in [
        "&lt;six&gt;, 6 combinations",
        "in all 12 runs",
        "id=\"plot-active-delivery\"",
        "id=\"plot-loss-latency_p99\"",
        ">loss=5%</li>",
        "class=\"spans a\"",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let table = csv::sweep(&combinations);
    assert!(table.starts_with("active,loss,seed,ok,failure,"), "{table}");
    assert_eq!(table.lines().count(), 1 + 12);
    assert!(table.lines().nth(9).unwrap().starts_with("\"\"\"5\"\"\",0%,9,true,,"), "{table}");
    let delivery: Vec<f64> = all.iter().map(|(_, outcome, _)| outcome.metric("delivery").unwrap()).collect();
    assert_eq!(column(&table, "delivery"), delivery);
}
