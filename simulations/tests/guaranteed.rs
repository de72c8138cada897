//! Guaranteed delivery between whole nodes in virtual time: every connection breaks again and again, packets are lost, and each message
//! arrives once and in order.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test, in which a panic is the verdict")]

use std::collections::BTreeMap;

use meshwork_channels::buggify::Sites;
use meshwork_channels::random::hash;
use meshwork_simulations::host::{Host, RealNode};
use meshwork_simulations::network::{Link, Shape};
use meshwork_simulations::plan::Tuning;
use meshwork_simulations::schedule::{Happening, Schedule};
use meshwork_simulations::world::{Seen, Setup, Sight, World};

const SECOND: u64 = 1_000_000;
const NODES: u32 = 3;

struct Ran {
    breaks: u64,
    losses: u64,
    lost_frames: u64,
    sent: BTreeMap<u32, Vec<u32>>,
    received: BTreeMap<(u32, u32), Vec<u32>>,
    blamed: Vec<Seen>,
}

/// Nodes 0 and 1 send `messages` in turns to node 2; all connections of one of them break `breaks` times, spread over the same time.
fn play(seed: u64, messages: u32, breaks: u32, every: u64) -> Ran {
    let mut schedule = Schedule::default();
    for node in 0..NODES {
        schedule.push(1, Happening::Start { node, contacts: if node == 0 { vec![] } else { vec![0] } });
    }
    let (begin, until) = (10 * SECOND, 10 * SECOND + u64::from(messages) * every);
    for message in 0..messages {
        schedule.push(begin + u64::from(message) * every, Happening::Send { node: message % 2, to: 2, message });
    }
    for number in 0..breaks {
        let at = begin + (until - begin) * u64::from(number) / u64::from(breaks) + hash(&[seed, u64::from(number)]) % 300_000;
        schedule.push(at, Happening::Break { node: (hash(&[seed, 1, u64::from(number)]) % u64::from(NODES)) as u32 });
    }
    schedule.sort();
    let tuning = Tuning {
        full_mesh: true,
        active: 5,
        passive: 30,
        retention: 60 * SECOND,
        suspicion: 0,
        no_repair: false,
        collect_after: 0,
        absent_max: 0,
        without: None,
        buggify: Sites::NONE,
    };
    let link = Link { latency: 20_000, jitter: 10_000, loss: 0.1 };
    let setup =
        Setup { seed, nodes: NODES, link, shape: Shape::default(), skew: 0, payload_bytes: 64, value_bytes: 8, sync: 0, plant: None };
    let params = RealNode::params(&tuning).unwrap();
    let mut world = World::<RealNode>::new(setup, params, schedule);
    let mut ran = Ran { breaks: 0, losses: 0, lost_frames: 0, sent: BTreeMap::new(), received: BTreeMap::new(), blamed: Vec::new() };
    let mut seen = Vec::new();
    for step in 1..=(until + 120 * SECOND) / (10 * SECOND) {
        world.run_until(step * 10 * SECOND);
        world.take_seen(&mut seen);
        for seen in seen.drain(..) {
            match seen.what {
                Sight::Accepted { message } => ran.sent.entry(seen.node).or_default().push(message),
                Sight::Received { from, message } => ran.received.entry((from, seen.node)).or_default().push(message),
                Sight::Blamed { .. } | Sight::Garbled => ran.blamed.push(seen),
                _ => {}
            }
        }
    }
    ran.breaks = world.happened("break");
    ran.losses = world.losses();
    ran.lost_frames = world.traffic().frames_lost;
    ran
}

fn check(ran: &Ran, messages: u32) {
    assert!(ran.losses > u64::from(messages) / 20, "packets were lost: {}", ran.losses);
    assert!(ran.lost_frames > 0, "connections broke with frames on them");
    assert_eq!(ran.blamed, [], "nobody broke a rule");
    assert_eq!(ran.sent.values().map(Vec::len).sum::<usize>(), messages as usize, "no window was full");
    for (node, sent) in &ran.sent {
        // Equal lists: nothing is missing, nothing is twice, and the order is that of the sender.
        assert_eq!(ran.received.get(&(*node, 2)), Some(sent), "from node {node}");
    }
}

/// The size that everybody runs; the environment asks for more.
#[test]
fn ten_thousand_messages_arrive_once_and_in_order_however_often_connections_break() {
    let breaks = std::env::var("MESHWORK_BREAKS").ok().map_or(300, |breaks| breaks.parse().unwrap());
    // Some seconds for each break: dials back off when connections do not last.
    let ran = play(1, 10_000, breaks, u64::from(breaks) * 5 * SECOND / 10_000);
    eprintln!("{} breaks, {} packets lost, {} frames lost", ran.breaks, ran.losses, ran.lost_frames);
    assert!(ran.breaks > u64::from(breaks) / 2, "{} breaks had something to break", ran.breaks);
    check(&ran, 10_000);
}

#[test]
fn so_they_do_under_other_seeds() {
    for seed in 2..12 {
        check(&play(seed, 500, 40, SECOND / 10), 500);
    }
}
