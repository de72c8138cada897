//! Each improvement undone gives the rule of the paper; all of them undone give the paper.

use std::time::Duration;

use meshwork_channels::Time;
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer};

use super::super::message::{Groups, LinkNews, Message, Push};
use super::super::{Action, Config, Improvement, Params};
use super::by_hand::{ME, Node, deliver, fresh, gone, gossip, graft, held, id, prune, quiet, send};
use super::network::Network;

fn without(improvement: Improvement) -> Config {
    Config { without: vec![Improvement::RootedTree, improvement], ..quiet() }
}

/// A core that tells a new neighbor nothing.
fn silent(config: Config, neighbors: impl IntoIterator<Item = u32>) -> Node {
    let mut node = Node::new(config, []);
    neighbors.into_iter().for_each(|peer| assert_eq!(node.up(peer), []));
    node
}

// ---- The switches ----

#[test]
fn an_improvement_has_one_name_and_one_bit() {
    for improvement in Improvement::ALL.iter().copied() {
        assert_eq!(improvement.name().parse(), Ok(improvement));
        assert_eq!(Improvement::deserialize(StrDeserializer::<Error>::new(improvement.name())), Ok(improvement));
        let params = Config { without: vec![improvement], ..Config::default() }.build().unwrap();
        assert!(Improvement::ALL.iter().all(|other| params.has(*other) == (*other != improvement)));
    }
    assert!("".parse::<Improvement>().is_err());
    assert!(Improvement::ALL.iter().all(|improvement| Params::default().has(*improvement)), "by default all are there");
}

#[test]
fn the_paper_can_be_built() {
    let params = Config::paper().build().unwrap();
    assert!(Improvement::ALL.iter().all(|improvement| !params.has(*improvement)));
    for threshold in [3, 7] {
        assert!(Config { optimization_threshold: Some(threshold), ..Config::paper() }.build().is_ok());
    }
}

// ---- One by one ----

#[test]
fn without_backlog_a_new_neighbor_is_told_nothing() {
    let mut node = silent(without(Improvement::Backlog), [2]);
    node.broadcast();
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.receive(3, held([id(9, 2)]));
    assert_eq!(node.up(3), [], "not even that it was not heard");
    let opened = |link| Message::IHave { link, groups: Groups::new() };
    assert_eq!(node.receive(3, opened(LinkNews::OpenedUnheard)), []);
    node.wait(Duration::from_secs(5));
    assert_eq!(node.receive(3, opened(LinkNews::Opened)), []);
    assert_eq!(node.state.counters().backlogs_sent, 0);
}

#[test]
fn without_summary_what_is_held_is_told_to_nobody() {
    let mut node = Node::new(Config { without: vec![Improvement::RootedTree, Improvement::Summary], ..Config::default() }, [2, 3]);
    node.broadcast();
    assert_eq!((node.state.payloads_len(), node.state.next_deadline()), (1, None));
    assert_eq!(node.wait(Duration::from_secs(60)), []);
}

#[test]
fn without_answer_gone_a_graft_in_vain_is_met_with_silence() {
    let mut node = Node::new(without(Improvement::AnswerGone), [2, 3]);
    let (own, _) = node.broadcast();
    assert_eq!(node.receive(3, graft(false, [own, id(9, 1)])), [send(3, gossip(own, 1, Push::Answer))]);
    assert_eq!(node.receive(8, graft(true, [id(9, 1)])), []);
    assert_eq!(node.state.counters().grafts_missed, 2);
}

#[test]
fn without_retry_grafts_each_announcer_is_asked_once() {
    let mut node = Node::new(without(Improvement::RetryGrafts), [2, 3, 4]);
    let missing = id(9, 1);
    for peer in [3, 2, 4] {
        node.receive(peer, held([missing]));
    }
    let ask = |peer| [send(peer, graft(false, [missing]))];
    assert_eq!(node.wait(Duration::from_millis(200)), ask(3));
    assert_eq!(node.wait(Duration::from_millis(500)), ask(2), "in the order of their announcements");
    assert_eq!(node.receive(2, gone([missing])), ask(4));
    assert_eq!(node.wait(Duration::from_secs(600)), []);
    assert_eq!(node.state.missing_len(), 0, "nobody is left");
    // Until it is announced anew.
    node.receive(3, held([missing]));
    assert_eq!(node.wait(Duration::from_millis(200)), ask(3));
}

#[test]
fn without_first_way_only_repairs_shape_the_tree() {
    let mut node = Node::new(without(Improvement::FirstWayOnly), [2, 3, 4]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    assert_eq!(node.receive(3, gossip(id(9, 1), 1, Push::Answer)), [send(3, prune())]);
    assert_eq!(node.receive(4, gossip(id(9, 1), 1, Push::Late)), [send(4, prune())]);
    // Who brings it first belongs into the tree, however it came.
    let late = id(9, 2);
    assert_eq!(node.receive(3, gossip(late, 5, Push::Late)), [deliver(late, 3, 5), send(2, gossip(late, 6, Push::Eager))]);
    assert_eq!(node.eager(), [2, 3]);
    assert_eq!(
        node.wait(Duration::from_millis(5)).last(),
        Some(&send(4, fresh(late, 6))),
        "it is announced as if it were on its first way"
    );
    node.receive(4, held([id(9, 3)]));
    assert_eq!(node.wait(Duration::from_millis(200)), [send(4, graft(true, [id(9, 3)]))]);
    assert_eq!(node.eager(), [2, 3, 4]);
}

#[test]
fn without_spare_prunes_every_duplicate_prunes() {
    let mut node = Node::new(without(Improvement::SparePrunes), [2, 3]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    for _ in 0..2 {
        assert_eq!(node.receive(3, gossip(id(9, 1), 1, Push::Eager)), [send(3, prune())]);
    }
    assert_eq!(node.receive(2, gossip(id(9, 1), 1, Push::Eager)), [send(2, prune())], "though it is the only way in");
    assert_eq!(node.eager(), []);
    assert_eq!(node.receive(2, gossip(id(9, 1), 1, Push::Answer)), [], "a repair is another matter");
}

#[test]
fn without_measured_timers_the_waits_are_those_of_the_configuration() {
    let mut node = Node::new(without(Improvement::MeasuredTimers), [2, 3]);
    // The tree lags by 150 ms, and an answer takes 400 ms.
    for sequence in 1..=10 {
        node.receive(2, fresh(id(9, sequence), 4));
        node.wait(Duration::from_millis(150));
        node.receive(3, gossip(id(9, sequence), 6, Push::Eager));
        node.receive(2, held([id(8, sequence)]));
        assert_eq!(node.wait(Duration::from_millis(200)), [send(2, graft(false, [id(8, sequence)]))]);
        node.wait(Duration::from_millis(400));
        node.receive(2, gossip(id(8, sequence), 6, Push::Answer));
    }
    node.receive(2, held([id(8, 11)]));
    node.receive(3, held([id(8, 11)]));
    let grafts = |actions: Vec<Action<u32>>| {
        let is_graft = |action: &Action<u32>| matches!(action, Action::Send { message: Message::Graft { .. }, .. });
        actions.into_iter().filter(is_graft).collect::<Vec<_>>()
    };
    assert_eq!(grafts(node.wait(Duration::from_millis(199))), []);
    assert_eq!(grafts(node.wait(Duration::from_millis(1))), [send(2, graft(false, [id(8, 11)]))]);
    assert_eq!(grafts(node.wait(Duration::from_millis(499))), []);
    assert_eq!(grafts(node.wait(Duration::from_millis(1))), [send(3, graft(false, [id(8, 11)]))]);
}

#[test]
fn without_batching_everything_goes_out_alone_and_at_once() {
    let mut node = Node::new(without(Improvement::Batching), [2, 3, 4]);
    node.receive(3, prune());
    for sequence in 1..=3 {
        let first = id(9, sequence);
        assert_eq!(
            node.receive(2, gossip(first, 2, Push::Eager)),
            [deliver(first, 2, 2), send(4, gossip(first, 3, Push::Eager)), send(3, fresh(first, 3))]
        );
    }
    node.receive(2, held([id(8, 1), id(8, 2)]));
    assert_eq!(node.wait(Duration::from_millis(200)), [1, 2].map(|sequence| send(2, graft(false, [id(8, sequence)]))));
}

#[test]
fn without_skip_holders_only_the_bringer_is_left_out() {
    let mut node = Node::new(without(Improvement::SkipHolders), [2, 3, 4]);
    node.receive(3, prune());
    let first = id(9, 1);
    node.receive(3, fresh(first, 2));
    node.receive(4, fresh(first, 2));
    assert_eq!(node.receive(2, gossip(first, 2, Push::Eager)), [deliver(first, 2, 2), send(4, gossip(first, 3, Push::Eager))]);
    // Nor does it matter what is heard meanwhile.
    node.receive(3, fresh(first, 2));
    node.receive(3, gossip(first, 2, Push::Late));
    assert_eq!(node.wait(Duration::from_millis(5)), [send(3, fresh(first, 3))]);
}

#[test]
fn without_raise_lazy_a_broadcast_is_only_announced() {
    let mut node = Node::new(without(Improvement::RaiseLazy), [2, 3]);
    for peer in [2, 3] {
        node.receive(peer, prune());
    }
    let (own, actions) = node.broadcast();
    assert_eq!(actions, []);
    assert_eq!(node.wait(Duration::from_millis(5)), [2, 3].map(|peer| send(peer, fresh(own, 1))));
    assert_eq!(node.eager(), []);
}

// ---- All of them ----

#[test]
fn the_paper_pushes_prunes_and_grafts_as_published() {
    // Section 3.7, then 3.4 and 3.5.
    let mut node = silent(Config::paper(), [2, 3, 4]);
    let first = id(9, 1);
    node.receive(4, prune());
    assert_eq!(
        node.receive(2, gossip(first, 1, Push::Eager)),
        [deliver(first, 2, 1), send(3, gossip(first, 2, Push::Eager)), send(4, fresh(first, 2))]
    );
    assert_eq!(node.receive(3, gossip(first, 1, Push::Eager)), [send(3, prune())]);
    assert_eq!(node.state.next_deadline(), None::<Time>, "nothing is left to do");
    // Section 3.6: the first timer, then the second one for each further announcer.
    let missing = id(9, 2);
    node.receive(3, fresh(missing, 5));
    node.receive(4, fresh(missing, 2));
    assert_eq!(node.wait(Duration::from_millis(4_999)), []);
    assert_eq!(node.wait(Duration::from_millis(1)), [send(3, graft(true, [missing]))]);
    assert_eq!(node.wait(Duration::from_millis(499)), []);
    assert_eq!(node.wait(Duration::from_millis(1)), [send(4, graft(true, [missing]))]);
    assert_eq!(node.eager(), [2, 3, 4]);
    let actions = node.receive(4, gossip(missing, 2, Push::Answer));
    assert_eq!(actions, [deliver(missing, 4, 2), send(2, gossip(missing, 3, Push::Eager)), send(3, gossip(missing, 3, Push::Eager))]);
    // What was cut off meanwhile is told nothing.
    assert_eq!(node.up(ME + 10), []);
}

#[test]
fn the_paper_needs_the_messages_that_it_says() {
    // Section 4.2, table 1 and figure 2b: one sender has a tree after some broadcasts, and an announcement goes out in both directions of each
    // lazy link. In 10,000 nodes these are 9,999 payloads and 29,987 announcements.
    let nodes = 400;
    let mut network = Network::regular(nodes, 5, &Config::paper().build().unwrap(), 1);
    let mut last = 0;
    let mut redundancy = Vec::new();
    for _ in 0..12 {
        let before = network.control;
        let id = network.broadcast(17, &[1; 100]);
        network.run(Duration::from_secs(10));
        redundancy.push(network.rmr(&id));
        last = network.control - before;
    }
    network.assert_complete();
    // The first one is a flood: the fanout less one, and every duplicate takes its link out of the tree.
    assert!((redundancy[0] - 3.0).abs() < 0.01, "{redundancy:?}");
    assert!(redundancy[4..].iter().all(|redundancy| *redundancy == 0.0), "{redundancy:?}");
    let lazy = network.connections().len() - (nodes as usize - 1);
    assert_eq!(last, 2 * lazy as u64);
}
