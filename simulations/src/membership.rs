//! How soon and how rightly nodes know each other, to the microsecond: from what each reports, not from looks once a second.
//!
//! A view is complete when it holds exactly the living nodes, each in its present life. Whoever is suspected is still held for alive.

use std::collections::VecDeque;

use crate::world::{Seen, Sight};

/// A node that came when the others knew each other.
#[derive(Clone, Copy, Debug)]
struct Newcomer {
    node: u32,
    from: u64,
    /// Whether it had lived before.
    is_back: bool,
    /// Whether it stopped before all was known of it; it counts for nothing then.
    is_gone: bool,
    known: Option<u64>,
    knows: Option<u64>,
}

/// Who holds whom for alive, and when that was complete.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    nodes: usize,
    /// By holder and held: the generation in which it is held for alive, 0 for not. Higher ones than fit are as good as the highest.
    held: Vec<u32>,
    /// By node: the number of its life, with which its generations begin; 0 while it is dead.
    lives: Vec<u32>,
    /// By node: how many living nodes it holds rightly, and how many living nodes hold it rightly.
    knows: Vec<u32>,
    known_by: Vec<u32>,
    alive: u32,
    /// Pairs of living nodes of which the one does not hold the other rightly, and those of a living and a dead one that it holds for alive.
    wrong: u64,

    /// When the nodes that form the cluster have all started, how many they are, and when the first of them did.
    work_at: u64,
    founders: usize,
    started: usize,
    first_start: Option<u64>,
    formed: Option<u64>,

    /// When partitions end, in order, and of those that have: since when healing takes; and the longest that it took.
    ends: VecDeque<u64>,
    healing: Vec<u64>,
    healed: Option<u64>,

    newcomers: Vec<Newcomer>,
    /// By node: its place among the newcomers while not all is known of it.
    places: Vec<Option<usize>>,

    /// By node: how many others it holds for alive, and which such numbers it has reported since the work began.
    sizes: Vec<u32>,
    reported: Vec<Vec<u32>>,
    /// Whose view has changed at this moment.
    changed: Vec<u32>,
    moment: u64,
}

impl Membership {
    /// Of a world in which nothing has happened: with so many nodes, of which `founders` start before `work_at`, and with partitions that end at these moments.
    pub fn new(nodes: u32, work_at: u64, founders: usize, mut ends: Vec<u64>) -> Self {
        ends.sort_unstable();
        let nodes = nodes as usize;
        Membership {
            nodes,
            held: vec![0; nodes * nodes],
            lives: vec![0; nodes],
            knows: vec![0; nodes],
            known_by: vec![0; nodes],
            work_at,
            founders,
            ends: ends.into(),
            places: vec![None; nodes],
            sizes: vec![0; nodes],
            reported: vec![Vec::new(); nodes],
            ..Membership::default()
        }
    }

    /// Takes in one more sight.
    pub fn take(&mut self, seen: &Seen) {
        let (held, generation) = match seen.what {
            Sight::Started => return self.start(seen),
            Sight::Stopped => return self.stop(seen),
            Sight::HeldForAlive { node, generation } => (node, u32::try_from(generation).unwrap_or(u32::MAX)),
            Sight::HeldForDead { node, .. } | Sight::HeldForGone { node } => (node, 0),
            _ => return,
        };
        self.pass(seen.at);
        if (held as usize) < self.nodes && held != seen.node {
            self.hold(seen.node, held, generation);
            self.changed.push(seen.node);
            self.look(seen.at, [seen.node, held].into_iter());
        }
    }

    /// Lets time pass until a moment; everything before it was taken in.
    pub fn pass(&mut self, now: u64) {
        while self.ends.front().is_some_and(|end| *end < now) {
            let end = self.ends.pop_front().unwrap_or(now);
            self.healing.push(end);
            self.look(end, std::iter::empty());
        }
        if now != self.moment {
            let counts = self.moment >= self.work_at;
            for node in std::mem::take(&mut self.changed) {
                let size = self.sizes[node as usize];
                let reported = &mut self.reported[node as usize];
                if counts && !reported.contains(&size) {
                    reported.push(size);
                }
            }
            self.moment = now;
        }
    }

    fn start(&mut self, seen: &Seen) {
        self.pass(seen.at);
        let node = seen.node as usize;
        let is_founder = seen.life == 1 && seen.at <= self.work_at;
        self.first_start.get_or_insert(seen.at);
        self.started += usize::from(is_founder);
        self.lives[node] = seen.life;
        self.alive += 1;
        // It knows nobody; others may hold an earlier life of it.
        self.wrong += 2 * u64::from(self.alive - 1);
        for holder in 0..self.nodes {
            let held = self.held[holder * self.nodes + node];
            if held > 0 && holder != node && self.lives[holder] > 0 {
                self.wrong -= 1;
                self.count(holder, node, held, true);
            }
        }
        if !is_founder {
            self.places[node] = Some(self.newcomers.len());
            self.newcomers.push(Newcomer {
                node: seen.node,
                from: seen.at,
                is_back: seen.life > 1,
                is_gone: false,
                known: None,
                knows: None,
            });
        }
        self.look(seen.at, std::iter::empty());
    }

    fn stop(&mut self, seen: &Seen) {
        self.pass(seen.at);
        let node = seen.node as usize;
        if self.lives[node] == 0 {
            return;
        }
        // What it held is gone with it, and whoever holds it is wrong from now on.
        for held in 0..self.nodes as u32 {
            self.hold(seen.node, held, 0);
        }
        for holder in 0..self.nodes {
            let held = self.held[holder * self.nodes + node];
            if held > 0 && holder != node && self.lives[holder] > 0 {
                if held >= self.lives[node] {
                    self.wrong += 1;
                    self.knows[holder] -= 1;
                }
                self.wrong += 1;
            }
        }
        // All pairs with it were counted as wrong by now.
        self.wrong -= 2 * u64::from(self.alive - 1);
        self.lives[node] = 0;
        self.known_by[node] = 0;
        self.alive -= 1;
        if let Some(place) = self.places[node].take() {
            self.newcomers[place].is_gone = true;
        }
        let waiting: Vec<u32> = self.newcomers.iter().map(|newcomer| newcomer.node).collect();
        self.look(seen.at, waiting.into_iter());
    }

    /// Notes what a node holds of another.
    fn hold(&mut self, holder: u32, held: u32, generation: u32) {
        let (holder, held) = (holder as usize, held as usize);
        let before = std::mem::replace(&mut self.held[holder * self.nodes + held], generation);
        self.sizes[holder] = self.sizes[holder] + u32::from(generation > 0) - u32::from(before > 0);
        if holder == held {
            return;
        }
        self.count(holder, held, before, false);
        self.count(holder, held, generation, true);
    }

    /// Counts what a living node holds of another, or takes it out of the count.
    fn count(&mut self, holder: usize, held: usize, generation: u32, is_added: bool) {
        if generation == 0 {
            return;
        }
        let life = self.lives[held];
        match (life, is_added) {
            (0, true) => self.wrong += 1,
            (0, false) => self.wrong -= 1,
            _ if generation < life => {}
            (_, true) => {
                self.wrong -= 1;
                self.knows[holder] += 1;
                self.known_by[held] += 1;
            }
            (_, false) => {
                self.wrong += 1;
                self.knows[holder] -= 1;
                self.known_by[held] -= 1;
            }
        }
    }

    /// Looks whether something has become complete: all views, or what is known of and to some nodes.
    fn look(&mut self, now: u64, nodes: impl Iterator<Item = u32>) {
        if self.wrong == 0 {
            if self.formed.is_none() && self.started > 1 && self.started >= self.founders {
                self.formed = self.first_start.map(|first| now - first);
            }
            if let Some(longest) = std::mem::take(&mut self.healing).into_iter().map(|end| now - end).max() {
                self.healed = self.healed.max(Some(longest));
            }
        }
        let others = self.alive.saturating_sub(1);
        let mut ask = |node: u32| {
            let Some(place) = self.places[node as usize] else { return };
            let newcomer = &mut self.newcomers[place];
            let since = now - newcomer.from;
            if newcomer.known.is_none() && self.known_by[node as usize] == others {
                newcomer.known = Some(since);
            }
            if newcomer.knows.is_none() && self.knows[node as usize] == others {
                newcomer.knows = Some(since);
            }
            if newcomer.known.is_some() && newcomer.knows.is_some() {
                self.places[node as usize] = None;
            }
        };
        nodes.for_each(&mut ask);
    }

    /// From the first start until every node knew every other.
    pub fn formed(&self) -> Option<u64> {
        self.formed
    }

    /// From the end of a partition until all views were complete, the longest; none when there was none, or one has not come to that.
    pub fn healed(&self) -> Option<u64> {
        self.healed.filter(|_| self.healing.is_empty())
    }

    /// From the start of a node that came later until all others knew it, and until it knew all others; each the longest, none while one has not come to that.
    pub fn newcomers(&self) -> (Option<u64>, Option<u64>) {
        (self.longest(false, |newcomer| newcomer.known), self.longest(false, |newcomer| newcomer.knows))
    }

    /// From the start of a node that had crashed until all others knew it in its new life, the longest; none while one is not known so.
    pub fn back(&self) -> Option<u64> {
        self.longest(true, |newcomer| newcomer.known)
    }

    fn longest(&self, is_back: bool, of: impl Fn(&Newcomer) -> Option<u64>) -> Option<u64> {
        let some = self.newcomers.iter().filter(|newcomer| newcomer.is_back == is_back && !newcomer.is_gone);
        some.map(of).try_fold(None, |longest: Option<u64>, one| Some(longest.max(Some(one?)))).flatten()
    }

    /// How many sizes of the cluster a node reported since the work began: the mean over those that reported any, and the most.
    pub fn sizes(&self) -> Option<(f64, usize)> {
        let counts: Vec<usize> = self.reported.iter().map(Vec::len).filter(|count| *count > 0).collect();
        let most = counts.iter().copied().max()?;
        Some((counts.iter().sum::<usize>() as f64 / counts.len() as f64, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Told(Membership);

    impl Told {
        fn of(nodes: u32, ends: Vec<u64>) -> Self {
            let mut told = Told(Membership::new(nodes, 100, nodes as usize - 1, ends));
            for node in 0..nodes - 1 {
                told.see(u64::from(node) + 1, node, 1, Sight::Started);
            }
            for node in 0..nodes - 1 {
                for other in (0..nodes - 1).filter(|other| *other != node) {
                    told.holds(50, node, other, 1);
                }
            }
            told
        }

        fn see(&mut self, at: u64, node: u32, life: u32, what: Sight) {
            self.0.take(&Seen { at, node, life, what });
            self.recount();
        }

        fn holds(&mut self, at: u64, holder: u32, node: u32, generation: u64) {
            self.see(at, holder, 1, Sight::HeldForAlive { node, generation });
        }

        fn buries(&mut self, at: u64, holder: u32, node: u32) {
            self.see(at, holder, 1, Sight::HeldForDead { node, generation: 1 });
        }

        /// Counts anew what is counted along.
        fn recount(&self) {
            let told = &self.0;
            let mut wrong = 0;
            for holder in (0..told.nodes).filter(|node| told.lives[*node] > 0) {
                let mut knows = 0;
                for held in (0..told.nodes).filter(|held| *held != holder) {
                    let generation = told.held[holder * told.nodes + held];
                    let is_right = generation > 0 && generation >= told.lives[held];
                    match told.lives[held] {
                        0 => wrong += u64::from(generation > 0),
                        _ => {
                            knows += u32::from(is_right);
                            wrong += u64::from(!is_right);
                        }
                    }
                }
                assert_eq!(told.knows[holder], knows);
            }
            assert_eq!(told.wrong, wrong);
        }
    }

    #[test]
    fn a_cluster_is_formed_when_all_who_form_it_know_each_other() {
        let told = Told::of(4, Vec::new());
        assert_eq!(told.0.formed(), Some(49));
        assert_eq!((told.0.newcomers(), told.0.back(), told.0.healed(), told.0.sizes()), ((None, None), None, None, None));
    }

    #[test]
    fn newcomers_and_those_who_come_back_are_known_in_their_present_life() {
        let mut told = Told::of(4, Vec::new());
        told.see(200, 3, 1, Sight::Started);
        (0..3).for_each(|other| told.holds(210, 3, other, 1));
        (0..2).for_each(|holder| told.holds(220, holder, 3, 1));
        assert_eq!(told.0.newcomers(), (None, Some(10)));
        told.holds(230, 2, 3, 1);
        assert_eq!(told.0.newcomers(), (Some(30), Some(10)));

        told.see(300, 1, 1, Sight::Stopped);
        told.see(310, 1, 2, Sight::Started);
        [0, 2].into_iter().for_each(|holder| told.holds(320, holder, 1, 2));
        assert_eq!(told.0.back(), None, "one has not heard of the new life");
        told.buries(330, 3, 1);
        told.holds(340, 3, 1, 2);
        assert_eq!(told.0.back(), Some(30));
        told.see(400, 1, 2, Sight::Stopped);
        (0..4).filter(|holder| *holder != 1).for_each(|holder| told.buries(410, holder, 1));
        assert_eq!(told.0.wrong, 0);
    }

    #[test]
    fn a_partition_is_healed_when_all_views_are_complete_again() {
        let mut told = Told::of(4, vec![200, 300]);
        told.buries(150, 0, 1);
        told.0.pass(250);
        assert_eq!(told.0.healed(), None);
        told.holds(260, 0, 1, 1);
        assert_eq!(told.0.healed(), Some(60));
        told.0.pass(400);
        assert_eq!(told.0.healed(), Some(60), "the second one found complete views");
    }

    #[test]
    fn sizes_are_those_at_the_end_of_a_moment() {
        let mut told = Told::of(6, Vec::new());
        told.see(190, 1, 1, Sight::Stopped);
        told.see(190, 2, 1, Sight::Stopped);
        told.buries(200, 0, 1);
        told.buries(200, 0, 2);
        told.buries(200, 3, 1);
        told.buries(210, 3, 2);
        told.0.pass(300);
        assert_eq!(told.0.sizes(), Some((1.5, 2)));
    }
}
