//! Makes a failing run smaller: fewer nodes, fewer entries of the schedule, a plainer network, as long as it fails for the same reason.
//!
//! A plan is data and every draw is a hash of what it is for, so what is left of a plan goes on as before when something else is left out. The search is delta debugging
//! (Zeller and Hildebrandt, *Simplifying and isolating failure-inducing input*, TSE 2002) over the nodes, then over the entries, again and again until nothing more can go.

use meshwork_channels::buggify::{Site, Sites};

use crate::network::Shape;
use crate::plan::{Plan, SECOND};
use crate::run::{Class, Failure};
use crate::schedule::Happening;

/// What is left of a plan.
#[derive(Clone, Debug)]
pub struct Minimized {
    /// The smallest plan that was found to fail in the same way.
    pub plan: Plan,
    /// How it fails.
    pub failure: Failure,
    /// How many runs it took.
    pub runs: u32,
}

/// How far the search is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Runs so far.
    pub runs: u32,
    /// Nodes that start in the smallest failing plan.
    pub nodes: usize,
    /// Its faults.
    pub faults: usize,
    /// Its entries.
    pub entries: usize,
}

/// Plays a plan and gives its failure.
pub type Play<'a> = &'a mut dyn FnMut(&Plan) -> Option<Failure>;

/// The smallest plan that still fails as this one does, of those that at most `runs_max` runs find; none when it does not fail.
pub fn minimize(plan: &Plan, runs_max: u32, play: Play<'_>, watch: &mut dyn FnMut(Progress)) -> Option<Minimized> {
    let failure = play(plan)?;
    let mut search = Search { best: plan.clone(), failure, runs: 1, runs_max, play, watch };
    if !matches!(search.failure.class, Class::Vacuous | Class::Expectation) {
        // They ask for things that are about to be left out.
        search.attempt(|plan| {
            plan.required.clear();
            plan.expectations.clear();
            plan.must_lose = false;
        });
    }
    loop {
        let before = (search.best.schedule.entries().len(), search.starts().len());
        search.flatten();
        search.switch_off();
        search.drop_nodes();
        search.drop_entries();
        search.shorten();
        let after = (search.best.schedule.entries().len(), search.starts().len());
        if after == before || search.runs >= runs_max {
            break;
        }
    }
    search.renumber();
    let Search { best, failure, runs, .. } = search;
    Some(Minimized { plan: best, failure, runs })
}

struct Search<'a> {
    best: Plan,
    failure: Failure,
    runs: u32,
    runs_max: u32,
    play: Play<'a>,
    watch: &'a mut dyn FnMut(Progress),
}

impl Search<'_> {
    /// Takes a changed plan if it fails as the first one did.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        let mut plan = self.best.clone();
        change(&mut plan);
        self.runs += 1;
        let same = (self.play)(&plan).filter(|failure| (failure.class, &failure.what) == (self.failure.class, &self.failure.what));
        let is_same = same.is_some();
        if let Some(failure) = same {
            (self.best, self.failure) = (plan, failure);
        }
        let (nodes, entries) = (self.starts().len(), self.best.schedule.entries().len());
        (self.watch)(Progress { runs: self.runs, nodes, faults: faults(&self.best), entries });
        is_same
    }

    /// The nodes that ever start.
    fn starts(&self) -> Vec<u32> {
        let starts = self.best.schedule.entries().iter().filter(|entry| matches!(entry.what, Happening::Start { .. }));
        starts.filter_map(|entry| entry.what.node()).collect()
    }

    /// Leaves out what it can of some items, in ever smaller pieces.
    fn without<T: Clone>(&mut self, mut items: Vec<T>, leave_out: impl Fn(&mut Plan, &[T])) {
        let mut size = items.len().div_ceil(2);
        while size > 0 && self.runs < self.runs_max {
            let mut from = 0;
            while from < items.len() {
                let piece = items[from..(from + size).min(items.len())].to_vec();
                if self.attempt(|plan| leave_out(plan, &piece)) {
                    items.drain(from..from + piece.len());
                } else {
                    from += piece.len();
                }
            }
            size /= 2;
        }
    }

    fn drop_nodes(&mut self) {
        let planted = self.best.setup.plant.map(|(node, _)| node);
        // The last first: they are told of the others.
        let items: Vec<u32> = self.starts().into_iter().rev().filter(|node| Some(*node) != planted).collect();
        self.without(items, |plan, gone| rename(plan, &|node| (!gone.contains(&node)).then_some(node)));
    }

    fn drop_entries(&mut self) {
        let may_go = |what: &Happening| !matches!(what, Happening::Start { .. } | Happening::Calm);
        let items: Vec<_> = self.best.schedule.entries().iter().filter(|entry| may_go(&entry.what)).cloned().collect();
        self.without(items, |plan, gone| plan.schedule.retain(|entry| !gone.contains(entry)));
    }

    /// No rare behavior, or as little as it can be.
    fn switch_off(&mut self) {
        let sites = self.best.tuning.buggify;
        let leave_out = |plan: &mut Plan, gone: &[Site]| {
            plan.tuning.buggify = gone.iter().fold(plan.tuning.buggify, |sites, site| sites.without(*site));
        };
        if !sites.is_empty() && !self.attempt(|plan| plan.tuning.buggify = Sites::NONE) {
            self.without(sites.iter().collect(), leave_out);
        }
    }

    /// The plainest network, or one that is as plain as it can be.
    fn flatten(&mut self) {
        let plain = |plan: &mut Plan| {
            plan.setup.shape = Shape::default();
            (plan.setup.link.loss, plan.setup.link.jitter) = (0.0, 0);
            plan.setup.skew = 0;
        };
        if self.attempt(plain) {
            return;
        }
        self.attempt(|plan| plan.setup.shape = Shape::default());
        self.attempt(|plan| plan.setup.link.loss = 0.0);
        self.attempt(|plan| plan.setup.link.jitter = 0);
        self.attempt(|plan| plan.setup.skew = 0);
    }

    /// Calm as soon as everything is over. How long it may take to come to rest after that stays: less time would be another reason to fail.
    fn shorten(&mut self) {
        self.attempt(|plan| {
            plan.schedule.retain(|entry| entry.what != Happening::Calm);
            plan.calm_at = plan.schedule.ends_at() + SECOND;
            plan.schedule.push(plan.calm_at, Happening::Calm);
            plan.schedule.sort();
        });
    }

    /// Numbers the nodes from 0. Their names, and so all draws, change with that, so it may be that the failure does not stay.
    fn renumber(&mut self) {
        let mut kept = self.starts();
        kept.sort_unstable();
        self.attempt(|plan| {
            let number = |node: u32| kept.binary_search(&node).ok().map(|index| index as u32);
            rename(plan, &number);
            plan.setup.nodes = kept.len() as u32;
            plan.setup.plant = plan.setup.plant.and_then(|(node, plant)| Some((number(node)?, plant)));
        });
    }
}

/// How many faults a plan has.
pub fn faults(plan: &Plan) -> usize {
    plan.schedule.entries().iter().filter(|entry| entry.what.is_fault()).count()
}

/// Gives nodes other numbers, or leaves them out. Whoever was told of nobody but such nodes is told of the first that is left: to know nobody would be another reason to fail.
fn rename(plan: &mut Plan, of: &dyn Fn(u32) -> Option<u32>) {
    let knew_somebody = |what: &Happening| match what {
        Happening::Start { contacts, .. } | Happening::Restart { contacts, .. } => !contacts.is_empty(),
        _ => false,
    };
    let mut knew = Vec::new();
    plan.schedule.retain(|entry| {
        let knew_one = knew_somebody(&entry.what);
        let is_left = entry.what.rename(of);
        if is_left {
            knew.push(knew_one);
        }
        is_left
    });
    let starts = plan.schedule.entries().iter().filter(|entry| matches!(entry.what, Happening::Start { .. }));
    let mut left: Vec<u32> = starts.filter_map(|entry| entry.what.node()).collect();
    left.sort_unstable();
    left.truncate(2);
    let mut knew = knew.into_iter();
    plan.schedule.retain(|entry| {
        let knew_one = knew.next().unwrap_or(false);
        if let Happening::Start { node, contacts } | Happening::Restart { node, contacts, .. } = &mut entry.what
            && knew_one
            && contacts.is_empty()
        {
            contacts.extend(left.iter().filter(|other| *other != node).take(1));
        }
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm;

    fn failing(what: &str) -> Option<Failure> {
        Some(Failure { class: Class::Safety, what: what.to_owned(), at: 0, node: None, detail: String::new() })
    }

    /// A plan fails when a crash of one node and a write of another are both in it.
    #[test]
    fn what_does_not_matter_goes() {
        let plan = (0..).map(swarm::plan).find(|plan| plan.schedule.count("crash") > 1 && plan.schedule.count("write") > 5).unwrap();
        let victim = plan.schedule.entries().iter().find(|entry| entry.what.name() == "crash").unwrap().what.node();
        let mut play = |plan: &Plan| {
            let has_crash = plan.schedule.entries().iter().any(|entry| entry.what.name() == "crash" && entry.what.node() == victim);
            if has_crash && plan.schedule.count("write") > 0 { failing("both") } else { failing("other") }
        };
        let smaller = minimize(&plan, 10_000, &mut play, &mut |_| {}).unwrap();
        // Renumbering makes another node of the victim, and is not taken here.
        assert_eq!((smaller.plan.schedule.count("crash"), smaller.plan.schedule.count("write")), (1, 1));
        assert_eq!(faults(&smaller.plan), 1);
        assert!(smaller.plan.schedule.count("start") <= 2, "the victim and the writer, who may be the same");
        assert_eq!(smaller.failure.what, "both");
        assert_eq!(smaller.plan.check(), Ok(()), "it can be read again");
    }

    #[test]
    fn rare_behavior_that_does_not_matter_is_switched_off() {
        let mut plan = swarm::plan(1);
        plan.tuning.buggify = Sites::ALL;
        let mut play = |plan: &Plan| failing(if plan.tuning.buggify.has(Site::PushTwice) { "it" } else { "other" });
        let smaller = minimize(&plan, 10_000, &mut play, &mut |_| {}).unwrap();
        assert_eq!(smaller.plan.tuning.buggify, Sites::NONE.with(Site::PushTwice));
    }

    #[test]
    fn a_plan_that_holds_cannot_be_made_smaller() {
        assert!(minimize(&swarm::plan(1), 100, &mut |_| None, &mut |_| {}).is_none());
    }

    #[test]
    fn nobody_is_left_without_a_contact() {
        let mut plan = swarm::plan(3);
        rename(&mut plan, &|node| (node > 0).then_some(node));
        for entry in plan.schedule.entries() {
            if let Happening::Start { node, contacts } = &entry.what {
                assert!(!contacts.is_empty() && !contacts.contains(node) && !contacts.contains(&0), "{entry:?}");
            }
        }
    }
}
