//! Each improvement undone gives the rule of the paper; all of them undone give the paper.

use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};

use super::*;

fn without(improvement: Improvement) -> Config {
    Config { without: vec![improvement], ..Config::default() }
}

/// A view that has no free slot.
fn full_without(improvement: Improvement) -> Core {
    Core::with_neighbors(without(improvement), &[1, 2, 3, 4, 5, 6])
}

fn know(core: &mut Core, peers: std::ops::Range<u32>) {
    // As a shuffle does, which no switch touches.
    for peer in peers {
        core.state.learn(peer, &[]);
    }
}

fn walks(actions: &[Action<u32>]) -> Vec<(u32, u32, u8)> {
    let walks = sent(actions).into_iter().filter_map(|(to, message)| match message {
        Message::ForwardJoin { joiner, ttl, .. } => Some((to, joiner, ttl)),
        _ => None,
    });
    walks.collect()
}

fn evicted(actions: &[Action<u32>]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::NeighborDown(_, DownReason::Evicted))).count()
}

fn high(link: u32) -> Message<u32> {
    Message::Neighbor { link, priority: Priority::High }
}

// ---- The switches ----

#[test]
fn an_improvement_has_one_name_and_one_bit() {
    for improvement in Improvement::ALL.iter().copied() {
        assert_eq!(improvement.name().parse(), Ok(improvement));
        assert_eq!(Improvement::deserialize(StrDeserializer::<Error>::new(improvement.name())), Ok(improvement));
        let params = without(improvement).build().unwrap();
        assert!(Improvement::ALL.iter().all(|other| params.has(*other) == (*other != improvement)));
    }
    assert!("splices".parse::<Improvement>().is_err());
    assert!(Improvement::ALL.iter().all(|improvement| Params::default().has(*improvement)), "by default all are there");
    let params = Config { without: vec![Improvement::Heal, Improvement::Heal], ..Config::default() }.build().unwrap();
    assert!(!params.has(Improvement::Heal) && params.has(Improvement::Splice));
}

#[test]
fn the_paper_can_be_built() {
    // Section 5.1.
    let params = Config::paper().build().unwrap();
    assert!(Improvement::ALL.iter().all(|improvement| !params.has(*improvement)));
    assert_eq!((params.active_len_max, params.passive_len_max), (5, 30));
    assert_eq!((params.active_walk_len, params.passive_walk_len), (6, 3));
    assert_eq!((params.shuffle_active_len, params.shuffle_passive_len), (3, 4));
}

// ---- One by one ----

#[test]
fn without_keep_view_a_contact_evicts_for_every_joiner_and_tells_all_others() {
    let mut core = full_without(Improvement::KeepView);
    for joiner in 200..300 {
        let actions = core.receive(joiner, Message::Join { link: joiner });
        assert_eq!(evicted(&actions), 1, "no rate binds");
        assert!(core.state.link_of(joiner) == Some(joiner));
        let others: Vec<u32> = core.state.neighbors().iter().copied().filter(|peer| *peer != joiner).collect();
        assert_eq!(walks(&actions), others.into_iter().map(|peer| (peer, joiner, 6)).collect::<Vec<_>>());
    }
    let mut core = Core::with_neighbors(without(Improvement::KeepView), &[1, 2, 3, 4, 5]);
    let actions = core.receive(50, Message::Join { link: 50 });
    assert_eq!((evicted(&actions), walks(&actions).len()), (0, 5), "a free slot is taken first");
}

#[test]
fn without_splice_a_walk_ends_at_its_last_step_and_evicts() {
    let walk = |joiner, ttl, missing| Message::ForwardJoin { joiner, ttl, missing };
    let mut core = Core::with_neighbors(without(Improvement::Splice), &[1, 2, 3]);
    for ttl in 1..=6 {
        let actions = core.receive(1, walk(50, ttl, 6));
        assert!(matches!(walks(&actions)[..], [(2 | 3, 50, left)] if left == ttl - 1), "a free slot does not stop it");
    }
    assert_eq!(core.passive(), [50]);
    let actions = core.receive(1, walk(51, 0, 6));
    let [(51, link, Priority::High)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(changes(&core.receive(51, reply(link, true))), [Action::NeighborUp(51)]);

    // At a full node it evicts, whatever the joiner misses and however often.
    let mut core = full_without(Improvement::Splice);
    for joiner in 200..300 {
        let actions = core.receive(1_000, walk(joiner, 0, 0));
        let [(to, link, Priority::High)] = requests(&actions)[..] else { panic!("{actions:?}") };
        assert_eq!(to, joiner);
        assert_eq!(evicted(&core.receive(joiner, reply(link, true))), 1);
    }

    let mut core = Core::with_neighbors(without(Improvement::Splice), &[1]);
    assert_eq!(requests(&core.receive(1, walk(50, 6, 6))).len(), 1, "the only neighbor is where it came from");
    assert_eq!(requests(&core.receive(9, walk(51, 6, 6))).len(), 1, "and with one neighbor it ends wherever it came from");
}

#[test]
fn without_storm_mixing_every_joiner_is_answered_at_once() {
    let mut core = full_without(Improvement::StormMixing);
    for joiner in 1_000..1_100 {
        let actions = core.receive(joiner, Message::Join { link: joiner });
        assert!(
            sent(&actions).iter().any(|(to, message)| *to == joiner && matches!(message, Message::NeighborReply { accepted: false, .. }))
        );
        assert_eq!(walks(&actions).len(), 3);
    }
    assert_eq!(core.state.counters().storm_joiners, 0);
}

#[test]
fn without_fill_in_parallel_one_candidate_is_asked_after_the_other() {
    let mut core = full_without(Improvement::FillInParallel);
    know(&mut core, 50..60);
    let actions = core.input(Input::Unreachable(1));
    let [(first, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    for lost in 2..6 {
        assert_eq!(requests(&core.input(Input::Unreachable(lost))), [], "one is asked already");
    }
    let actions = core.receive(first, reply(link, false));
    let [(second, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert!(second != first && core.passive().contains(&first), "who refuses is not forgotten");
    let actions = core.input(Input::Unreachable(second));
    let [(third, _, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert!(third != second && !core.passive().contains(&second), "who cannot be reached is");
    core.receive(second, reply(link, true));
    let actions = core.input(Input::Unreachable(6));
    assert_eq!((core.state.neighbors().len(), requests(&actions).len()), (0, 0), "the one that was asked before still is");
    let actions = core.input(Input::Unreachable(third));
    assert!(matches!(requests(&actions)[..], [(_, _, Priority::High)]), "the view is empty");
}

#[test]
fn without_own_walks_none_is_sent() {
    let mut core = Core::with_neighbors(without(Improvement::OwnWalks), &[1, 2, 3]);
    assert_eq!(walks(&core.pass(Duration::from_secs(100))), []);
}

#[test]
fn without_limit_high_every_such_request_evicts() {
    let mut core = full_without(Improvement::LimitHigh);
    let evictions: usize = (1_000..1_100).map(|peer| evicted(&core.receive(peer, high(1)))).sum();
    assert_eq!(evictions, 100);
    // The same peer as well, as soon as it comes back.
    core.receive(1_099, no_link(1));
    core.receive(50, Message::Neighbor { link: 1, priority: Priority::Low });
    assert_eq!(evicted(&core.receive(1_099, high(2))), 1);
}

#[test]
fn without_heal_nobody_asks_across_a_partition() {
    let mut core = full_without(Improvement::Heal);
    (50..100).for_each(|peer| assert_eq!(requests(&core.input(Input::MemberBack(peer))), []));
    core.input(Input::Join { contact: 200 });
    assert_eq!(requests(&core.pass(Duration::from_secs(60))), []);
    // Who opens a closed group still may; nobody may when neither is there.
    let heal = Message::Neighbor { link: 1, priority: Priority::Heal };
    assert_eq!(evicted(&core.receive(300, heal.clone())), 1);
    let neither = Config { without: vec![Improvement::Heal, Improvement::OpenClosedGroups], ..Config::default() };
    let mut core = Core::with_neighbors(neither, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(evicted(&core.receive(300, heal)), 0);
}

#[test]
fn without_reseed_a_node_whose_views_are_empty_stays_alone() {
    let mut core = Core::new(without(Improvement::Reseed));
    assert_eq!(sent(&core.input(Input::Join { contact: 1 })).len(), 1);
    assert_eq!(sent(&core.input(Input::Unreachable(1))), []);
    assert_eq!(sent(&core.pass(Duration::from_secs(600))), []);
    let mut core = Core::with_neighbors(without(Improvement::Reseed), &[1, 2]);
    let mut last = core.input(Input::Unreachable(1));
    last.extend(core.input(Input::Unreachable(2)));
    last.extend(core.pass(Duration::from_secs(600)));
    assert_eq!(requests(&last), [], "past neighbors are past");
    assert!(sent(&last).iter().all(|(_, message)| !matches!(message, Message::Join { .. })));
}

#[test]
fn without_open_closed_groups_nobody_looks_for_one() {
    let mut core = full_without(Improvement::OpenClosedGroups);
    core.input(Input::MemberUp(200));
    for nonce in 0..16 {
        core.receive(1, Message::Shuffle { origin: 1 + nonce % 3, nonce, ttl: 1, peers: Peers::new() });
    }
    assert_eq!(requests(&core.pass(Duration::from_secs(60))), []);
    assert!(core.state.origins.is_empty() && core.state.timers.get(Key::Rewire).is_none());
}

#[test]
fn without_farewell_peers_a_farewell_names_nobody() {
    let mut core = full_without(Improvement::FarewellPeers);
    know(&mut core, 50..60);
    let mut farewells = sent(&core.receive(90, high(1)));
    farewells.extend(sent(&core.input(Input::Leave)));
    let lists = farewells.into_iter().filter_map(|(_, message)| match message {
        Message::Disconnect { peers, .. } => Some(peers.len()),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [0; 7], "one was evicted, six were left");
}

#[test]
fn without_answer_peers_an_answer_names_nobody() {
    let mut core = full_without(Improvement::AnswerPeers);
    know(&mut core, 50..60);
    let mut answers = sent(&core.receive(90, Message::Join { link: 1 }));
    answers.extend(sent(&core.receive(91, Message::Neighbor { link: 1, priority: Priority::Low })));
    core.input(Input::Unreachable(1));
    core.state.requests.clear();
    answers.extend(sent(&core.receive(92, Message::Join { link: 1 })));
    let lists = answers.into_iter().filter_map(|(_, message)| match message {
        Message::NeighborReply { accepted, peers, .. } => Some((accepted, peers.len())),
        _ => None,
    });
    assert_eq!(lists.collect::<Vec<_>>(), [(false, 0), (false, 0), (true, 0)]);
}

#[test]
fn without_spare_newest_any_neighbor_may_have_to_go() {
    let newest_goes = |config: Config| {
        let goes = (0..100).filter(|seed| {
            let mut core = Core::with_neighbors(config.clone(), &[1, 2, 3, 4, 5]);
            core.state.random = generator(*seed, "test", 0);
            core.receive(6, Message::Neighbor { link: 6, priority: Priority::Low });
            core.receive(50, high(1)).contains(&Action::NeighborDown(6, DownReason::Evicted))
        });
        goes.count()
    };
    assert_eq!(newest_goes(Config::default()), 0);
    let often = newest_goes(without(Improvement::SpareNewest));
    assert!((8..=28).contains(&often), "{often} of a hundred, where one in six is expected");
}

#[test]
fn without_learn_more_the_membership_and_the_refused_stay_unknown() {
    let mut core = full_without(Improvement::LearnMore);
    core.input(Input::MemberUp(50));
    core.input(Input::MemberBack(51));
    core.receive(52, Message::Neighbor { link: 1, priority: Priority::Low });
    assert_eq!(core.passive(), []);
}

#[test]
fn without_near_links_nobody_looks_for_any_or_agrees_to_one() {
    let mut core = full_without(Improvement::NearLinks);
    know(&mut core, 50..60);
    let probes = |message: &(u32, Message<u32>)| matches!(message.1, Message::Probe { .. });
    assert!(!sent(&core.pass(Duration::from_secs(100))).iter().any(probes));
    core.receive(50, Message::Probe { nonce: 1 });
    assert_eq!(sent(&core.receive(50, Message::Swap { link: 2, token: 1, old: 60, others: Peers::new() })), [(50, reply(2, false))]);
}

// ---- All of them ----

#[test]
fn the_paper_joins_as_published() {
    // Section 4.2.
    let mut core = Core::with_neighbors(Config::paper(), &[1, 2, 3, 4, 5]);
    let actions = core.receive(50, Message::Join { link: 50 });
    assert_eq!((evicted(&actions), walks(&actions).len()), (1, 4));
    let said: Vec<_> = sent(&actions).into_iter().filter(|(_, message)| !matches!(message, Message::ForwardJoin { .. })).collect();
    let [(gone, Message::Disconnect { reason: Farewell::Evicted, .. }), (50, answer)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((answer, core.passive()), (&reply(50, true), vec![*gone]));

    // Section 4.4: the evicted remembers who evicted it, and replaces it with somebody else.
    let mut core = Core::with_neighbors(Config::paper(), &[1, 2, 3, 4, 5]);
    know(&mut core, 50..52);
    let actions = core.receive(3, Message::Disconnect { link: 3, reason: Farewell::Evicted, peers: Peers::new() });
    let [(first, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert!(first != 3 && core.passive().contains(&3));
    let actions = core.receive(first, reply(link, false));
    let [(second, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert!(![3, first].contains(&second));
    assert_eq!(requests(&core.receive(second, reply(link, false))), [], "each once");
    assert_eq!(core.passive(), [3, 50, 51]);
    assert!(!requests(&core.pass(Duration::from_secs(15))).is_empty(), "and again in the next cycle");
}
