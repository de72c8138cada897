//! The chat of `examples/chat`, the very source file that the program runs over QUIC, on twenty simulated nodes: cut in two, with a crash, a restart and a latecomer, all have the same history in
//! the end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, in which a panic is the verdict")]

#[path = "../../examples/chat/app.rs"]
mod chat;

use meshwork_channels::random::hash;
use meshwork_simulations::app::{Nodes, Play, Played};
use meshwork_simulations::plan::{Plan, SECOND};
use meshwork_simulations::scenarios::Scenario;
use meshwork_simulations::schedule::Happening;
use meshwork_simulations::swarm;

use chat::{Chat, Input, Line, Output};

const NODES: u32 = 20;
const LATECOMER: u32 = NODES - 1;
const GONE: u32 = 7;
const RESTARTED: u32 = 5;

/// Cut in two from the 27th second to the 57th; meanwhile a node crashes for good, another for ten seconds, and the last one comes.
fn plan(seed: u64) -> Plan {
    let mut plan = Scenario::named("partition").unwrap().plan(NODES, seed, &[]).unwrap();
    plan.schedule.retain(|entry| entry.what.name() != "start" || entry.what.node() != Some(LATECOMER));
    plan.schedule.push(50 * SECOND, Happening::Start { node: LATECOMER, contacts: vec![0, 1] });
    plan.schedule.push(40 * SECOND, Happening::Crash { node: GONE });
    plan.schedule.push(35 * SECOND, Happening::Crash { node: RESTARTED });
    plan.schedule
        .push(45 * SECOND, Happening::Restart { node: RESTARTED, contacts: vec![0, 1], moved: false, remembers: false, disk: false });
    plan.required.extend([("crash", 2), ("restart", 1)].map(|(name, count)| (name.into(), count)));
    plan
}

fn play(seed: u64) -> Played<Chat> {
    let mut play = Play::new(plan(seed), |birth| Chat::new(format!("node {}", birth.index)));
    // A line each half second from the 20th to the 57th, in turn; nobody speaks in the five seconds before a crash, so that what was said has left the node.
    for number in 0..74_u32 {
        let (at, node) = (20 * SECOND + u64::from(number) * SECOND / 2, number % LATECOMER);
        let crashes_at = match node {
            GONE => 40,
            RESTARTED => 35,
            _ => u64::MAX,
        };
        if at / SECOND + 5 <= crashes_at || node == RESTARTED && at > 46 * SECOND {
            play = play.tell(at, node, Input::Say(format!("line {number}")));
        }
    }
    play = play.tell(58 * SECOND, LATECOMER, Input::Say("sorry, I am late".to_owned()));
    for node in 0..NODES {
        play = play.tell(85 * SECOND, node, Input::ShowHistory);
    }
    play.tell(85 * SECOND, LATECOMER, Input::ShowMembers).run().unwrap()
}

fn history(nodes: &Nodes<'_, Chat>, node: u32) -> Vec<Line> {
    let shown = nodes.outputs_of(node).filter_map(|output| match output {
        Output::History(lines) => Some(lines),
        _ => None,
    });
    shown.last().cloned().unwrap_or_default()
}

#[test]
fn all_histories_are_the_same_in_the_end() {
    for seed in [1, 2] {
        let played = play(seed);
        assert!(played.outcome.ok, "{:?}", played.outcome.failure);
        let nodes = played.nodes();
        let lines = history(&nodes, 0);
        let told = played.outcome.metric("tell").unwrap() as usize;
        // The rest showed something.
        assert_eq!(lines.len(), told - NODES as usize, "every line that somebody was told to say, seed {seed}");
        for node in nodes.alive() {
            assert_eq!(history(&nodes, node), lines, "node {node}, seed {seed}");
        }
        assert_eq!(nodes.alive().count(), NODES as usize - 1);
        let members = nodes.outputs_of(LATECOMER).find_map(|output| match output {
            Output::Members(members) => Some(members.len()),
            _ => None,
        });
        assert_eq!(members, Some(NODES as usize - 1));
        // Whoever speaks last stands last, whatever the clocks say, and so do the lines of each node among themselves.
        assert_eq!(lines.last().unwrap().text, "sorry, I am late");
        for name in lines.iter().map(|line| &line.name) {
            let own = lines.iter().filter(|line| line.name == *name);
            let numbers: Vec<u32> = own.filter_map(|line| line.text.strip_prefix("line ")?.parse().ok()).collect();
            assert!(numbers.is_sorted(), "{name}: {numbers:?}");
        }
    }
}

#[test]
fn so_they_are_on_clusters_and_with_faults_drawn_at_random() {
    for seed in 0..8 {
        let plan = swarm::plan(seed);
        let (count, calm_at) = (plan.setup.nodes, plan.calm_at);
        let mut play = Play::new(plan, |birth| Chat::new(format!("node {}", birth.index)));
        for number in 0..60 {
            let node = hash(&[seed, number]) % u64::from(count);
            play = play.tell(calm_at / 4 + calm_at * 3 / 4 * number / 60, node as u32, Input::Say(format!("line {number}")));
        }
        for node in 0..count {
            play = play.tell(calm_at + 60 * SECOND, node, Input::ShowHistory);
        }
        let played = play.run().unwrap();
        assert!(played.outcome.ok, "seed {seed}: {:?}", played.outcome.failure);
        let nodes = played.nodes();
        let mut histories = nodes.alive().map(|node| history(&nodes, node));
        let first = histories.next().unwrap();
        assert!(!first.is_empty() && histories.all(|history| history == first), "seed {seed}");
    }
}
