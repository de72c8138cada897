//! Hundreds of nodes in virtual time: what only shows in a crowd. The simulator does the same with links, faults and scales of its own; this
//! one is as small as it can be, so that a failing test of this package points at this package.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use meshwork_channels::random::{hash, unit};

use super::*;

enum Event {
    Message { from: u32, to: u32, message: TopologyMessage<u32> },
    Input { to: u32, input: Input<u32> },
}

struct Network {
    seed: u64,
    now: Time,
    sequence: u64,
    params: Params,
    queue: BTreeMap<(Time, u64), Event>,
    deadlines: BTreeSet<(Time, u32)>,
    /// `None` once it crashed.
    nodes: Vec<Option<State<u32>>>,
    /// What the nodes said of their neighbors; must agree with their views.
    told: Vec<BTreeSet<u32>>,
    downs: Vec<u32>,
    evictions: Vec<u32>,
    sent: Vec<u32>,
    /// Messages per thousand that vanish.
    loss: u64,
    split: bool,
    actions: Vec<Action<u32>>,
}

impl Network {
    fn new(config: Config, seed: u64) -> Self {
        Network {
            seed,
            now: Time::ZERO,
            sequence: 0,
            params: config.build().unwrap(),
            queue: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            nodes: Vec::new(),
            told: Vec::new(),
            downs: Vec::new(),
            evictions: Vec::new(),
            sent: Vec::new(),
            loss: 0,
            split: false,
            actions: Vec::new(),
        }
    }

    fn add_node(&mut self) -> u32 {
        let me = self.nodes.len() as u32;
        self.nodes.push(Some(State::new(me, self.params.clone(), hash(&[self.seed, u64::from(me)]))));
        self.told.push(BTreeSet::new());
        self.downs.push(0);
        self.evictions.push(0);
        self.sent.push(0);
        me
    }

    /// Restarts a crashed node under its old name.
    fn restart(&mut self, me: u32) {
        assert!(self.nodes[me as usize].is_none());
        self.nodes[me as usize] = Some(State::new(me, self.params.clone(), hash(&[self.seed, u64::from(me), self.sequence])));
        self.told[me as usize].clear();
    }

    /// 10 to 50 ms one way, the same for each pair at all times.
    fn latency(&self, a: u32, b: u32) -> Duration {
        let spread = unit(hash(&[self.seed, u64::from(a.min(b)), u64::from(a.max(b))]));
        Duration::from_millis(10) + Duration::from_millis(40).mul_f64(spread)
    }

    fn is_cut(&self, a: u32, b: u32) -> bool {
        self.split && a % 2 != b % 2
    }

    fn push(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    fn later(&mut self, delay: Duration, to: u32, input: Input<u32>) {
        self.push(delay, Event::Input { to, input });
    }

    fn handle(&mut self, me: u32, input: Input<u32>) {
        let index = me as usize;
        let Some(node) = &mut self.nodes[index] else { return };
        let before = node.next_deadline();
        let mut actions = std::mem::take(&mut self.actions);
        node.handle(input, self.now, &mut actions);
        let after = node.next_deadline();
        let view = node.neighbors().to_vec();
        if before != after {
            before.map(|at| self.deadlines.remove(&(at, me)));
            after.map(|at| self.deadlines.insert((at, me)));
        }
        for action in actions.drain(..) {
            match action {
                Action::Send { to, message } => {
                    assert_ne!(to, me, "a node speaks to itself");
                    self.sent[index] += 1;
                    let delay = self.latency(me, to);
                    let is_lost = hash(&[self.seed, 7, self.sequence]) % 1_000 < self.loss;
                    if self.is_cut(me, to) {
                        self.later(Duration::from_secs(1), me, Input::Unreachable(to));
                    } else if self.nodes.get(to as usize).is_none_or(Option::is_none) {
                        self.later(delay * 2, me, Input::Unreachable(to));
                    } else if !is_lost {
                        self.push(delay, Event::Message { from: me, to, message });
                    } else {
                        self.sequence += 1;
                    }
                }
                Action::NeighborUp(peer) => assert!(self.told[index].insert(peer), "{me}: {peer} is up twice"),
                Action::NeighborDown(peer, reason) => {
                    assert!(self.told[index].remove(&peer), "{me}: {peer} is down twice");
                    self.downs[index] += 1;
                    self.evictions[index] += u32::from(reason == DownReason::Evicted);
                }
                Action::Misbehaved { peer, what } => panic!("{me} holds {peer} for misbehaved: {what}"),
            }
        }
        self.actions = actions;
        assert!(self.told[index].iter().eq(&view), "{me}: what it said differs from its view");
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let deadline = self.deadlines.first().map(|(at, _)| *at);
            let Some(at) = event.into_iter().chain(deadline).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if event == Some(at) {
                match self.queue.pop_first().unwrap().1 {
                    Event::Message { from, to, message } => {
                        if !self.is_cut(from, to) {
                            self.handle(to, Input::Received { from, message });
                        }
                    }
                    Event::Input { to, input } => self.handle(to, input),
                }
            } else {
                let (_, me) = self.deadlines.pop_first().unwrap();
                self.handle(me, Input::DeadlineReached);
                // A node must not ask for the same moment for ever.
                let next = self.nodes[me as usize].as_ref().and_then(State::next_deadline);
                assert!(next.is_none_or(|next| next > self.now), "{me} stands still at {}", self.now);
            }
        }
        self.now = end;
    }

    fn join_all_at_once(&mut self, count: usize) {
        let contact = if self.nodes.is_empty() { self.add_node() } else { 0 };
        for _ in 1..count {
            let me = self.add_node();
            self.handle(me, Input::Join { contact });
        }
    }

    fn join_one_by_one(&mut self, count: usize, pause: Duration) {
        let contact = self.add_node();
        for _ in 1..count {
            let me = self.add_node();
            self.handle(me, Input::Join { contact });
            self.run_for(pause);
        }
    }

    /// Connections to it break and its neighbors see that.
    fn crash(&mut self, me: u32) {
        let node = self.nodes[me as usize].take().unwrap();
        node.next_deadline().map(|at| self.deadlines.remove(&(at, me)));
        self.told[me as usize].clear();
        for peer in self.living() {
            if self.view(peer).contains(&me) {
                self.later(self.latency(me, peer), peer, Input::Unreachable(me));
            }
        }
    }

    fn living(&self) -> Vec<u32> {
        (0..self.nodes.len() as u32).filter(|me| self.nodes[*me as usize].is_some()).collect()
    }

    fn view(&self, me: u32) -> &[u32] {
        self.nodes[me as usize].as_ref().map_or(&[], |node| node.neighbors())
    }

    /// Hops from `start` to everyone that it reaches.
    fn hops(&self, start: u32) -> BTreeMap<u32, u32> {
        let mut hops = BTreeMap::from([(start, 0)]);
        let mut queue = VecDeque::from([start]);
        while let Some(me) = queue.pop_front() {
            for peer in self.view(me) {
                if self.nodes[*peer as usize].is_some() && !hops.contains_key(peer) {
                    hops.insert(*peer, hops[&me] + 1);
                    queue.push_back(*peer);
                }
            }
        }
        hops
    }

    /// Sizes of the components, the largest first.
    fn components(&self) -> Vec<usize> {
        let mut rest: BTreeSet<u32> = self.living().into_iter().collect();
        let mut sizes = Vec::new();
        while let Some(start) = rest.first().copied() {
            let reached = self.hops(start);
            sizes.push(reached.len());
            rest.retain(|me| !reached.contains_key(me));
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    fn one_way_links(&self) -> Vec<(u32, u32)> {
        let links = self.living().into_iter().flat_map(|me| self.view(me).iter().map(move |peer| (me, *peer)));
        links.filter(|(me, peer)| !self.view(*peer).contains(me)).collect()
    }

    /// Those that are still there once a farewell has had the time to arrive: neighbors are given up for nearer ones at any moment.
    fn lasting_one_way_links(&mut self) -> usize {
        let before = self.one_way_links();
        self.run_for(SECOND / 5);
        self.one_way_links().into_iter().filter(|link| before.contains(link)).count()
    }

    /// Neighbors that living nodes took because they are nearer.
    fn swaps(&self) -> u64 {
        self.nodes.iter().flatten().map(|node| node.counters().swaps).sum()
    }

    /// The share of nodes whose view is full, in percent.
    fn full(&self) -> f64 {
        let living = self.living();
        let full = living.iter().filter(|me| self.view(**me).len() == self.params.active_len_max).count();
        100.0 * full as f64 / living.len() as f64
    }

    /// The mean over all nodes of the share of pairs of neighbors that are neighbors themselves.
    fn clustering(&self) -> f64 {
        let living = self.living();
        let mut total = 0.0;
        for me in &living {
            let view = self.view(*me);
            let pairs = view.len() * view.len().saturating_sub(1) / 2;
            let closed = view.iter().enumerate().map(|(i, a)| view[i + 1..].iter().filter(|b| self.view(*a).contains(b)).count());
            total += closed.sum::<usize>() as f64 / pairs.max(1) as f64;
        }
        total / living.len() as f64
    }

    /// Mean and largest number of hops, from a sample of nodes.
    fn path(&self) -> (f64, u32) {
        let (mut total, mut pairs, mut longest) = (0_u64, 0_u64, 0);
        for start in self.living().into_iter().take(20) {
            for hops in self.hops(start).into_values() {
                total += u64::from(hops);
                pairs += u64::from(hops > 0);
                longest = longest.max(hops);
            }
        }
        (total as f64 / pairs.max(1) as f64, longest)
    }

    #[track_caller]
    fn assert_one_sound_overlay(&mut self) {
        assert_eq!(self.components(), [self.living().len()], "components");
        assert_eq!(self.lasting_one_way_links(), 0, "one-way links");
        assert!(self.living().iter().all(|me| self.view(*me).len() <= self.params.active_len_max), "degree");
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn joined_one_by_one_the_views_fill_and_the_graph_is_random() {
    let mut network = Network::new(Config::default(), 1);
    network.join_one_by_one(500, Duration::from_millis(200));
    network.run_for(10 * SECOND);
    network.assert_one_sound_overlay();
    assert!(network.full() >= 95.0, "{} % of the views are full", network.full());
    // A random 6-regular graph of 500 nodes has a clustering of 0.010 and a mean path of 3.8.
    assert!(network.clustering() < 0.02, "clustering {}", network.clustering());
    assert!(network.path().0 < 4.0, "path {:?}", network.path());
}

#[test]
fn neighbors_come_to_be_near_and_the_graph_stays_random() {
    let play = |without: Vec<Improvement>| {
        let mut network = Network::new(Config { without, ..Config::default() }, 3);
        network.join_one_by_one(300, Duration::from_millis(50));
        network.run_for(60 * SECOND);
        network.assert_one_sound_overlay();
        assert!(network.full() >= 95.0, "{} % of the views are full", network.full());
        assert!(network.clustering() < 0.035 && network.path().0 < 4.0, "{} {:?}", network.clustering(), network.path());
        let links: Vec<f64> = (0..300)
            .flat_map(|me| network.view(me).iter().map(move |peer| (me, *peer)).collect::<Vec<_>>())
            .map(|(me, peer)| network.latency(me, peer).as_secs_f64())
            .collect();
        let before: u32 = network.sent.iter().sum();
        network.run_for(300 * SECOND);
        (links.iter().sum::<f64>() / links.len() as f64, network.sent.iter().sum::<u32>() - before)
    };
    let ((near, sent), (far, sent_without)) = (play(Vec::new()), play(vec![Improvement::NearLinks]));
    assert!(near < 0.75 * far, "{near} s for a link in the mean, {far} s without");
    // Probes and answers of a node that finds hardly anything any more: less than one in two seconds.
    assert!(sent < sent_without + 300 * 150, "{sent} messages, {sent_without} without");
}

#[test]
fn five_hundred_joins_at_once_through_one_contact() {
    for seed in [1, 2, 3] {
        let mut network = Network::new(Config::default(), seed);
        network.join_all_at_once(500);
        network.run_for(10 * SECOND);
        let stormed = network.nodes[0].as_ref().unwrap().counters().storm_joiners;
        assert!(stormed > 400, "only {stormed} joiners came as a storm");
        network.assert_one_sound_overlay();
        assert!(network.full() >= 90.0, "{} % of the views are full", network.full());
        assert!(network.clustering() < 0.02, "clustering {}", network.clustering());
        assert!(network.path().0 < 4.0, "path {:?}", network.path());
        assert!(network.sent[0] <= 4 * 500, "the contact sent {} messages", network.sent[0]);
        assert!(network.evictions[0] <= 10 * 10, "the contact evicted {} neighbors", network.evictions[0]);
    }
}

#[test]
fn a_storm_ties_itself_to_a_full_overlay() {
    let mut network = Network::new(Config::default(), 4);
    network.join_one_by_one(200, Duration::from_millis(200));
    network.run_for(20 * SECOND);
    assert!(network.full() > 95.0);
    network.join_all_at_once(300);
    network.run_for(10 * SECOND);
    network.assert_one_sound_overlay();
    assert!(network.full() >= 90.0, "{} % of the views are full", network.full());
    // Two overlays of their own would have no link between them; a random graph has about 36 % of its links there.
    let across = (0..200).flat_map(|me| network.view(me)).filter(|peer| **peer >= 200).count();
    assert!(across > 150, "{across} links tie the storm to the rest");
}

#[test]
fn the_survivors_of_half_stay_one_overlay() {
    for seed in [1, 2] {
        let mut network = Network::new(Config::default(), seed);
        network.join_all_at_once(400);
        network.run_for(20 * SECOND);
        let dying: Vec<u32> = network.living().into_iter().filter(|me| hash(&[seed, u64::from(*me)]).is_multiple_of(2)).collect();
        dying.iter().for_each(|me| network.crash(*me));
        assert!(dying.len() > 150);
        network.run_for(Duration::from_millis(60));
        assert!(network.full() < 20.0, "the failure tore no view");
        network.run_for(10 * SECOND);
        network.assert_one_sound_overlay();
        assert!(network.full() >= 90.0, "{} % of the views are full", network.full());
    }
}

#[test]
fn the_survivors_of_nine_tenths_find_each_other() {
    let mut network = Network::new(Config::default(), 5);
    network.join_all_at_once(500);
    network.run_for(30 * SECOND);
    (0..500).filter(|me| me % 10 != 0).for_each(|me| network.crash(me));
    network.run_for(Duration::from_millis(60));
    assert!(network.components().len() > 1, "the failure cut nobody off");
    network.run_for(30 * SECOND);
    network.assert_one_sound_overlay();
}

#[test]
fn a_healed_partition_is_bridged_without_a_storm() {
    let mut network = Network::new(Config::default(), 6);
    network.join_all_at_once(200);
    network.run_for(20 * SECOND);

    network.split = true;
    for me in network.living() {
        for peer in network.living() {
            if network.is_cut(me, peer) {
                let delay = Duration::from_millis(1_000 + hash(&[u64::from(me), u64::from(peer)]) % 4_000);
                network.later(delay, me, Input::MemberDown(peer));
            }
        }
    }
    network.run_for(60 * SECOND);
    assert_eq!(network.components(), [100, 100], "the partition split the overlay");
    assert!(network.full() > 95.0, "both sides closed up");

    network.split = false;
    let (downs, swaps): (Vec<u32>, u64) = (network.downs.clone(), network.swaps());
    for me in network.living() {
        for peer in network.living() {
            if me % 2 != peer % 2 {
                let delay = Duration::from_millis(hash(&[u64::from(me), u64::from(peer)]) % 5_000);
                network.later(delay, me, Input::MemberBack(peer));
            }
        }
    }
    network.run_for(10 * SECOND);
    network.assert_one_sound_overlay();
    let across = network.living().iter().flat_map(|me| network.view(*me).iter().filter(move |peer| **peer % 2 != me % 2)).count() / 2;
    assert!(across >= 50, "{across} links bridge the halves");
    let lost: Vec<u32> = network.downs.iter().zip(&downs).map(|(after, before)| after - before).collect();
    assert!(lost.iter().all(|lost| *lost <= 2 * 6 * 2), "a node lost {:?} neighbors", lost.iter().max());
    // A swap takes two links from both of their ends, and both sides count it.
    let swapped = 2 * (network.swaps() - swaps);
    assert!(u64::from(lost.iter().sum::<u32>()) <= 200 * 6 + swapped, "{} neighbors were lost in all", lost.iter().sum::<u32>());
    network.run_for(10 * SECOND);
    assert!(network.full() > 90.0);
}

#[test]
fn an_isolated_node_comes_back_however_late() {
    let mut network = Network::new(Config::default(), 7);
    network.join_one_by_one(4, SECOND);
    network.run_for(20 * SECOND);
    (0..3).for_each(|me| network.crash(me));
    network.run_for(300 * SECOND);
    assert!(network.view(3).is_empty(), "nobody is left");
    let sent = network.sent[3];
    network.run_for(300 * SECOND);
    assert!((5..60).contains(&(network.sent[3] - sent)), "it keeps trying, at leisure: {} messages", network.sent[3] - sent);

    // The contact comes back and knows nobody.
    network.restart(0);
    network.run_for(60 * SECOND);
    assert_eq!(network.view(3), [0]);
    network.assert_one_sound_overlay();
}

#[test]
fn a_restarted_node_is_let_in_again() {
    let mut network = Network::new(Config::default(), 8);
    network.join_all_at_once(50);
    network.run_for(20 * SECOND);
    let before = network.view(7).to_vec();
    // So fast that nobody sees its connections break.
    network.nodes[7] = None;
    network.deadlines.retain(|(_, me)| *me != 7);
    network.restart(7);
    assert!(before.iter().all(|peer| network.view(*peer).contains(&7)) && network.view(7).is_empty(), "the links are one-way");
    network.handle(7, Input::Join { contact: 0 });
    network.run_for(20 * SECOND);
    network.assert_one_sound_overlay();
    assert!(network.view(7).len() >= 5);
}

#[test]
fn lost_messages_leave_no_one_way_link() {
    let mut network = Network::new(Config::default(), 9);
    network.loss = 100;
    network.join_all_at_once(150);
    let mut one_way = 0;
    for _ in 0..40 {
        network.run_for(SECOND);
        one_way += network.lasting_one_way_links();
    }
    assert!(one_way > 0, "the loss made no one-way link");
    network.loss = 0;
    network.run_for(20 * SECOND);
    network.assert_one_sound_overlay();
}

#[test]
fn churn_with_odd_but_legal_parameters() {
    let odd = [
        Config { active_len_max: 1, active_len_min: 1, passive_len_max: 1, ..Config::default() },
        Config { active_len_max: 2, active_len_min: 2, passive_len_max: 2, active_walk_len: 1, passive_walk_len: 0, ..Config::local() },
        Config {
            active_len_max: 5,
            shuffle_active_len: 0,
            shuffle_passive_len: 0,
            shuffle_walk_len: 1,
            requests_len_max: 32,
            ..Config::wan()
        },
        Config { active_len_max: 32, passive_len_max: 256, shuffle_active_len: 8, shuffle_passive_len: 8, ..Config::default() },
        Config { storm_len_max: 1, joins_per_second: 1, evictions_per_second: 1, requests_per_retry: 1, ..Config::default() },
        Config {
            active_len_max: 3,
            active_len_min: 3,
            join_walks: 8,
            request_timeout: Duration::from_millis(20),
            storm_delay: Duration::from_millis(1),
            ..Config::default()
        },
    ];
    for (index, config) in odd.into_iter().enumerate() {
        // One link makes pairs and two make rings, of which there may be several. Answers that always come too late make links for a moment.
        let (is_one_overlay, is_in_time) = (config.active_len_max >= 3, config.request_timeout > Duration::from_millis(100));
        let seed = index as u64;
        let mut network = Network::new(config, seed);
        network.join_all_at_once(40);
        for round in 0..20_u64 {
            network.run_for(SECOND);
            let victim = 1 + (hash(&[seed, round]) % 39) as u32;
            if network.nodes[victim as usize].is_some() {
                if round % 3 == 0 {
                    network.handle(victim, Input::Leave);
                    network.run_for(Duration::from_millis(1));
                }
                network.crash(victim);
            } else {
                network.restart(victim);
                network.handle(victim, Input::Join { contact: 0 });
            }
            // Nonsense from the caller must not matter either.
            let other = (hash(&[seed, round, 1]) % 40) as u32;
            network.handle(0, Input::MemberBack(other));
            network.handle(0, Input::MemberUp(0));
            network.handle(0, Input::Join { contact: 0 });
            network.handle(0, Input::MemberDown(other));
        }
        network.run_for(60 * SECOND);
        assert!(network.lasting_one_way_links() == 0 || !is_in_time, "configuration {index}");
        if is_one_overlay && is_in_time {
            let largest = network.components()[0];
            assert!(largest * 10 >= network.living().len() * 9, "configuration {index}: {:?}", network.components());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = Network::new(Config::default(), seed);
        network.join_all_at_once(60);
        network.run_for(15 * SECOND);
        (network.sent.clone(), network.told.clone())
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).1, run(12).1);
}

#[test]
fn the_paper_makes_a_random_graph_and_survives_half_of_it() {
    // Section 5, in small.
    let mut network = Network::new(Config::paper(), 13);
    network.join_one_by_one(300, Duration::from_millis(200));
    assert!(network.evictions[0] > 200, "the contact evicts for nearly every joiner: {}", network.evictions[0]);
    network.run_for(200 * SECOND);
    network.assert_one_sound_overlay();
    assert!(network.full() >= 90.0, "{} % of the views are full", network.full());
    // A random 5-regular graph of 300 nodes has a clustering of 0.011 and a mean path of 3.9.
    assert!(network.clustering() < 0.04, "clustering {}", network.clustering());
    assert!(network.path().0 < 4.3, "path {:?}", network.path());

    let dying: Vec<u32> = network.living().into_iter().filter(|me| hash(&[13, u64::from(*me)]).is_multiple_of(2)).collect();
    dying.iter().for_each(|me| network.crash(*me));
    network.run_for(Duration::from_millis(60));
    assert!(network.full() < 20.0, "the failure tore no view");
    network.run_for(20 * SECOND);
    let living = network.living().len();
    assert!(network.components()[0] * 100 >= living * 97, "{:?} of {living}", network.components());
}
