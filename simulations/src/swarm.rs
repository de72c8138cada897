//! Runs drawn at random from a seed: any size, any network, any legal parameters, any faults.
//!
//! Each run draws which kinds of trouble it has at all before it draws how much of each, so that runs differ in kind (Groce, Zhang, Eide,
//! Chen and Regehr, *Swarm testing*, ISSTA 2012). Trouble ends with the first phase; in the second, for those who are left, all is whole and quiet, and whatever
//! must hold in the end has to.
//!
//! The size, the network, the work and each kind of fault draw under purposes of their own, so that one more kind changes nothing of the others.

use meshwork_channels::buggify::Sites;

use crate::network::{Burst, Capacity, Classes, Link, Model, Shape, Trouble};
use crate::plan::{self, Draw, Join, Plan, SECOND, Tuning};
use crate::rare;
use crate::schedule::{Aim, Happening, Schedule};
use crate::world::Setup;

/// What a kind of fault puts into a run.
type Kind = fn(&mut Maker, &mut Draw);

/// The kinds, with how many runs of a hundred have each.
const KINDS: [(&str, u64, Kind); 14] = [
    ("crash", 45, crash),
    ("leave", 15, leave),
    ("churn", 10, churn),
    ("strike", 12, strike),
    ("pause", 25, pause),
    ("slow", 15, slow),
    ("break", 30, break_),
    ("partition", 30, partition),
    ("flap", 10, flap),
    ("one way", 12, one_way),
    ("bridge", 12, bridge),
    ("swizzle", 15, swizzle),
    ("weather", 20, weather),
    ("clock", 20, clock),
];
/// And this one comes after them, because whoever does it is not needed any more.
const ATTACK: u64 = 12;

/// And so many runs of a hundred have rare behavior of our own code.
const RARE: u64 = 50;

/// And in so many of those in which nodes start again, some have their disks.
const DISKS: u64 = 60;

/// And so many write keys of all kinds, beside the plain registers that most write.
const KINDS_OF_KEYS: u64 = 60;
/// And so many of these write some plain registers for some time only.
const EXPIRING: u64 = 50;

/// A run that is being drawn.
struct Maker {
    nodes: u32,
    /// When the work begins, and how long it lasts.
    from: u64,
    work: u64,
    schedule: Schedule,
    /// Nodes that nothing has stopped for good yet; never the first two, who live on at their addresses, for they are whom everybody else was told of.
    mortal: Vec<u32>,
}

impl Maker {
    fn moment(&self, draw: &mut Draw) -> u64 {
        self.from + draw.below(self.work)
    }

    fn any(&self, draw: &mut Draw) -> u32 {
        draw.below(u64::from(self.nodes)) as u32
    }

    /// Some nodes, at most a part of all, in order.
    fn some(&self, draw: &mut Draw, part: u64) -> Vec<u32> {
        let count = draw.between(1, (u64::from(self.nodes) / part).max(1));
        let mut some = draw.take((0..self.nodes).collect(), count);
        some.sort_unstable();
        some
    }

    /// Some nodes that are not needed any more.
    fn victims(&mut self, draw: &mut Draw, part: u64) -> Vec<u32> {
        let count = draw.between(1, (u64::from(self.nodes) / part).max(1));
        let victims = draw.take(self.mortal.clone(), count);
        self.mortal.retain(|node| !victims.contains(node));
        victims
    }
}

fn crash(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.victims(draw, 3) {
        let at = maker.moment(draw);
        maker.schedule.push(at, Happening::Crash { node });
        if draw.chance(60) {
            let back = at + draw.between(SECOND / 10, 30 * SECOND);
            maker.schedule.push(
                back,
                Happening::Restart { node, contacts: vec![0, 1], moved: draw.chance(40), remembers: draw.chance(40), disk: false },
            );
        }
    }
}

fn leave(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.victims(draw, 4) {
        let at = maker.moment(draw);
        maker.schedule.push(at, Happening::Leave { node });
    }
}

/// A node that comes and goes.
fn churn(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.victims(draw, 8) {
        let mut at = maker.moment(draw);
        for _ in 0..draw.between(2, 4) {
            let back = at + draw.between(SECOND / 10, 12 * SECOND);
            maker.schedule.push(at, Happening::Crash { node });
            maker.schedule.push(back, Happening::Restart { node, contacts: vec![0, 1], moved: false, remembers: false, disk: false });
            at = back + draw.between(SECOND / 10, 12 * SECOND);
        }
    }
}

fn strike(maker: &mut Maker, draw: &mut Draw) {
    let at = maker.moment(draw);
    let aim = if draw.chance(60) { Aim::Degree } else { Aim::Articulation };
    let count = draw.between(1, (u64::from(maker.nodes) / 8).max(1)) as u32;
    maker.schedule.push(at, Happening::Strike { aim, count, spared: 2 });
}

/// Up to twice the idle timeout.
fn pause(maker: &mut Maker, draw: &mut Draw) {
    for _ in 0..draw.between(1, 4) {
        let (at, node) = (maker.moment(draw), maker.any(draw));
        let micros = if draw.chance(75) { draw.between(SECOND / 10, 9 * SECOND) } else { draw.between(10 * SECOND, 20 * SECOND) };
        maker.schedule.push(at, Happening::Pause { node, micros });
    }
}

fn slow(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.some(draw, 6) {
        let at = maker.moment(draw);
        let (until, micros) = (at + draw.between(SECOND, 15 * SECOND), draw.between(100, 20_000));
        maker.schedule.push(at, Happening::Slow { node, micros, until });
    }
}

fn break_(maker: &mut Maker, draw: &mut Draw) {
    for _ in 0..draw.between(1, 6) {
        let (at, node) = (maker.moment(draw), maker.any(draw));
        maker.schedule.push(at, Happening::Break { node });
    }
}

/// Two or three groups, or one node alone; shorter than the idle timeout too, when connections outlive the cut.
fn partition(maker: &mut Maker, draw: &mut Draw) {
    for _ in 0..draw.between(1, 2) {
        let at = maker.moment(draw);
        let until = at + draw.between(SECOND, 40 * SECOND);
        let groups = match draw.below(10) {
            0..7 => vec![maker.some(draw, 2)],
            7..9 => vec![vec![maker.any(draw)]],
            _ => {
                let one = maker.some(draw, 3);
                let other = maker.some(draw, 3).into_iter().filter(|node| !one.contains(node)).collect();
                vec![one, other]
            }
        };
        maker.schedule.push(at, Happening::Partition { until, groups, bridges: Vec::new(), one_way: false });
    }
}

fn flap(maker: &mut Maker, draw: &mut Draw) {
    let mut at = maker.moment(draw);
    let side = maker.some(draw, 2);
    for _ in 0..draw.between(3, 8) {
        let until = at + draw.between(SECOND / 5, 6 * SECOND);
        maker.schedule.push(at, Happening::cut(until, side.clone()));
        at = until + draw.between(SECOND / 5, 4 * SECOND);
    }
}

fn one_way(maker: &mut Maker, draw: &mut Draw) {
    let at = maker.moment(draw);
    let until = at + draw.between(SECOND, 30 * SECOND);
    let groups = vec![maker.some(draw, 2)];
    maker.schedule.push(at, Happening::Partition { until, groups, bridges: Vec::new(), one_way: true });
}

fn bridge(maker: &mut Maker, draw: &mut Draw) {
    let at = maker.moment(draw);
    let until = at + draw.between(SECOND, 30 * SECOND);
    let groups = vec![maker.some(draw, 2)];
    let outside: Vec<u32> = (0..maker.nodes).filter(|node| !groups[0].contains(node)).collect();
    let bridges = draw.take(outside, 1);
    if !bridges.is_empty() {
        maker.schedule.push(at, Happening::Partition { until, groups, bridges, one_way: false });
    }
}

/// Nodes are clogged one after the other and freed in another order.
fn swizzle(maker: &mut Maker, draw: &mut Draw) {
    let at = maker.moment(draw);
    let half = draw.between(SECOND, 7 * SECOND);
    for node in maker.some(draw, 2) {
        let (from, until) = (at + draw.below(half), at + half + draw.between(1, half));
        maker.schedule.push(from, Happening::Clog { until, nodes: vec![node] });
    }
}

fn weather(maker: &mut Maker, draw: &mut Draw) {
    for _ in 0..draw.between(1, 2) {
        let at = maker.moment(draw);
        let until = at + draw.between(SECOND, 20 * SECOND);
        let nodes = if draw.chance(50) { Vec::new() } else { maker.some(draw, 2) };
        let loss = if draw.chance(70) { draw.between(10, 400) as u32 } else { 0 };
        let late = if draw.chance(50) || loss == 0 { draw.between(1_000, 300_000) } else { 0 };
        maker.schedule.push(at, Happening::Weather { until, nodes, loss, late });
    }
}

/// Clocks jump by up to two seconds either way.
fn clock(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.some(draw, 3) {
        let at = maker.moment(draw);
        let jump = draw.below(4 * SECOND) as i64 - 2 * SECOND as i64;
        let drift = draw.below(2_000) as i32 - 1_000;
        maker.schedule.push(at, Happening::Clock { node, jump, drift });
    }
}

fn attack(maker: &mut Maker, draw: &mut Draw) {
    for node in maker.victims(draw, 10) {
        let at = maker.moment(draw);
        let frames = draw.between(1, 60) as u32;
        maker.schedule.push(at, Happening::Attack { node, frames });
    }
}

/// Some of those that start again have their disks, and some of those that leave start again with theirs.
fn disks(maker: &mut Maker, draw: &mut Draw) {
    let percent = draw.between(20, 100);
    let mut back = Vec::new();
    maker.schedule.retain(|entry| {
        match &mut entry.what {
            Happening::Restart { disk, .. } => *disk = draw.chance(percent),
            Happening::Leave { node } if draw.chance(percent) => {
                let restart =
                    Happening::Restart { node: *node, contacts: vec![0, 1], moved: false, remembers: draw.chance(40), disk: true };
                back.push((entry.at + draw.between(2 * SECOND, 30 * SECOND), restart));
            }
            _ => {}
        }
        true
    });
    back.into_iter().for_each(|(at, restart)| maker.schedule.push(at, restart));
}

/// The network of a seed.
fn network(draw: &mut Draw) -> (Link, Shape) {
    let lossy = draw.chance(60);
    let latency = if draw.chance(20) { draw.between(0, 1_000) } else { draw.between(1_000, 120_000) };
    let jitter = if draw.chance(50) { draw.below(latency / 2 + 1) } else { 0 };
    let loss = if lossy { draw.between(5, 150) as f64 / 1_000.0 } else { 0.0 };
    let model = match draw.below(12) {
        0 => Model::Lan,
        1 => {
            let min = draw.below(60_000);
            Model::Uniform { min, max: min + draw.below(100_000) }
        }
        2 => Model::LogNormal { spread: draw.below(100) as f64 / 100.0 },
        3 => Model::Euclid { access: draw.below(20_000) },
        4 => Model::Earth { access: draw.below(20_000) },
        5 => Model::Regions,
        _ => Model::Pair,
    };
    let percent = |draw: &mut Draw, chance, most| if draw.chance(chance) { draw.between(1, most) as f64 / 100.0 } else { 0.0 };
    let burst = draw.chance(15).then(|| {
        let enter = draw.between(1, 20) as f64 / 1_000.0;
        Burst { enter, leave: draw.between(10, 60) as f64 / 100.0, loss: draw.between(30, 100) as f64 / 100.0 }
    });
    let trouble = Trouble { reorder: percent(draw, 20, 30), reorder_by: draw.between(1, 50_000), duplicate: percent(draw, 20, 30), burst };
    let capacity = match draw.chance(15) {
        true => Capacity { up: draw.between(2_000, 100_000), down: draw.between(2_000, 100_000), queue: draw.between(16_000, 256_000) },
        false => Capacity::default(),
    };
    let classes = Classes { cone: percent(draw, 20, 60), symmetric: 0.0, blocked: 0.0 };
    let mtu = if draw.chance(10) { draw.between(1_200, 9_000) } else { 0 };
    (plan::link(latency, jitter, loss), Shape { model, trouble, capacity, mtu, classes })
}

/// The run of a seed.
pub fn plan(seed: u64) -> Plan {
    let draw = &mut Draw::new(seed, "swarm");
    let nodes_max = match draw.below(100) {
        0..2 => 200,
        2..25 => 50,
        _ => 16,
    };
    let nodes = draw.between(3, nodes_max) as u32;
    let (link, shape) = network(&mut Draw::new(seed, "swarm network"));
    let mut syncing = Draw::new(seed, "sync");
    let setup = Setup {
        seed,
        nodes,
        link,
        shape,
        skew: if draw.chance(50) { draw.below(SECOND / 5) } else { 0 },
        payload_bytes: draw.between(8, 2_000) as usize,
        value_bytes: draw.between(8, 200) as usize,
        sync: syncing.between(SECOND / 100, 10 * SECOND) * u64::from(syncing.chance(50)),
        plant: None,
    };
    let active = draw.between(3, 8);
    let mut collecting = Draw::new(seed, "collecting");
    let tuning = Tuning {
        full_mesh: nodes <= 50 && draw.chance(15),
        active,
        passive: if draw.chance(30) { active } else { draw.between(active, 40) },
        retention: 300 * SECOND,
        suspicion: 0,
        no_repair: false,
        // Often soon enough for removals to be forgotten within the run.
        collect_after: collecting.between(12, 60) * SECOND * u64::from(collecting.chance(50)),
        absent_max: 0,
        without: None,
        buggify: if Draw::new(seed, "buggify").chance(RARE) { rare::drawn(seed) } else { Sites::NONE },
    };

    let mut schedule = Schedule::default();
    let how = [Join::OneByOne, Join::Staggered, Join::Storm][draw.below(3) as usize];
    let over = draw.between(1, 15) * SECOND;
    plan::join(&mut schedule, draw, 0..nodes, how, 0, over);
    let from = over + draw.between(5, 15) * SECOND;
    let work = draw.between(10, 40) * SECOND;
    let all: Vec<u32> = (0..nodes).collect();
    let senders = draw.between(0, u64::from(nodes) - 1);
    let mut senders = draw.take((1..nodes).collect(), senders);
    // The first node lives to the end, so at least one message is sent whatever happens to the others.
    senders.insert(0, 0);
    let messages = draw.between(1, 40);
    plan::broadcasts(&mut schedule, draw, &senders, messages, from, work);
    if draw.chance(70) {
        let (keys, writes) = (draw.between(1, 30), draw.between(1, 60));
        plan::writes(&mut schedule, draw, &all, keys, writes, from, work);
    }

    // Every kind of keys, under a purpose of its own.
    let kinds = &mut Draw::new(seed, "kinds");
    if kinds.chance(KINDS_OF_KEYS) {
        let (keys, changes) = (kinds.between(1, 40), kinds.between(1, 80));
        plan::changes(&mut schedule, kinds, &all, keys, changes, from, work);
        let expiring = &mut Draw::new(seed, "expiring");
        if expiring.chance(EXPIRING) {
            plan::expire(&mut schedule, expiring);
        }
    }

    let mut maker = Maker { nodes, from, work, schedule, mortal: (2..nodes).collect() };
    for (name, percent, put) in KINDS.into_iter().chain([("attack", ATTACK, attack as Kind)]) {
        let draw = &mut Draw::new(seed, name);
        if draw.chance(percent) {
            put(&mut maker, draw);
        }
    }
    let draw = &mut Draw::new(seed, "disks");
    if draw.chance(DISKS) {
        disks(&mut maker, draw);
    }
    let mut schedule = maker.schedule;
    let mut required = vec![("start".to_owned(), u64::from(nodes)), ("broadcast".to_owned(), 1)];
    // Whatever cannot fail to have an effect must have had it. A strike may take those who were to crash or to leave before they do.
    let is_struck = schedule.count("strike") > 0;
    for name in ["crash", "leave", "weather"] {
        if schedule.count(name) > 0 && (name == "weather" || !is_struck) {
            required.push((name.to_owned(), 1));
        }
    }
    let calm_at = schedule.ends_at() + SECOND;
    schedule.keep_contacts(|from, to| shape.classes.can_dial(seed, from, to), |node| u32::from(node == 0));
    schedule.push(calm_at, Happening::Calm);
    schedule.sort();
    Plan {
        scenario: "swarm".to_owned(),
        replay: format!("meshwork-sim run swarm --seed {seed}"),
        setup,
        tuning,
        schedule,
        work_at: from,
        calm_at,
        quiet_min: 10 * SECOND,
        settle_max: 180 * SECOND,
        required,
        must_lose: false,
        expectations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::sometimes::FAULTS;

    #[test]
    fn seeds_give_runs_of_all_kinds() {
        let plans: Vec<Plan> = (0..400).map(plan).collect();
        for kind in FAULTS.into_iter().chain(["write", "remove", "change"]) {
            let with = plans.iter().filter(|plan| plan.schedule.count(kind) > 0).count();
            assert!((20..390).contains(&with), "{with} of 400 runs have a {kind}");
        }
        assert!(plans.iter().any(|plan| plan.setup.nodes == 3) && plans.iter().any(|plan| plan.setup.nodes > 50));
        let expiring = plans.iter().filter(|plan| format!("{:?}", plan.schedule).contains("SetFor")).count();
        assert!((40..200).contains(&expiring), "{expiring} of 400 runs have values that expire");
        assert_eq!(plan(7).schedule, plans[7].schedule);
        assert!(plans.iter().all(|plan| plan.check().is_ok()));
    }

    #[test]
    fn the_first_two_live_on() {
        for plan in (0..200).map(plan) {
            let stopping = plan.schedule.entries().iter().filter(|entry| entry.what.stops());
            assert!(stopping.filter_map(|entry| entry.what.node()).all(|node| node >= 2), "seed {}", plan.setup.seed);
        }
    }
}
