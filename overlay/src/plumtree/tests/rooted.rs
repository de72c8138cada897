//! The tree that a flood makes: who is in it, who mends it, and what is flooded before it.

use std::time::Duration;

use super::super::Params;
use super::super::message::{Message, Push};
use super::super::{Action, Config, Improvement, Input};
use super::by_hand::{Node, deliver, fresh, gossip, graft, id, prune, quiet, send};
use super::network::Network;

fn rooted() -> Config {
    Config { without: Vec::new(), ..quiet() }
}

/// A node with neighbors, of which it only told the first that it wants to be in the tree.
fn among(config: Config, neighbors: impl IntoIterator<Item = u32>) -> Node {
    let mut node = Node::new(config, []);
    for (index, peer) in neighbors.into_iter().enumerate() {
        let asks = node.up(peer).contains(&send(peer, graft(true, [])));
        assert_eq!(asks, index == 0, "a link more closes a circle");
    }
    node
}

fn met(sequence: u64) -> Message<u32> {
    Message::Met { id: id(9, sequence) }
}

#[test]
fn a_flood_makes_the_tree_and_only_its_duplicates_leave_it() {
    let mut node = among(rooted(), [2, 3, 4]);
    assert_eq!(node.eager(), [2]);
    let shape = Push::Shape(7);
    let actions = node.receive(3, gossip(id(9, 1), 1, shape));
    assert_eq!(actions, [deliver(id(9, 1), 3, 1), send(2, gossip(id(9, 1), 2, shape)), send(4, gossip(id(9, 1), 2, shape))]);
    assert_eq!(node.eager(), [2, 3, 4]);
    assert_eq!(node.receive(4, gossip(id(9, 1), 2, shape)), [send(4, Message::Prune { shape: 7 })]);
    assert_eq!(node.eager(), [2, 3]);
    // Two payloads at once would cut a circle in two places, so no other duplicate says anything.
    node.receive(3, gossip(id(9, 2), 1, Push::Eager));
    assert_eq!(node.receive(2, gossip(id(9, 2), 1, Push::Eager)), []);
    assert_eq!(node.receive(2, prune()), [], "of a tree that is no more");
    assert_eq!(node.eager(), [2, 3]);
    node.receive(2, Message::Prune { shape: 7 });
    assert_eq!(node.eager(), [3]);
}

#[test]
fn of_two_trees_that_are_made_at_once_the_larger_number_stays() {
    let mut node = among(rooted(), [2, 3, 4]);
    node.receive(2, gossip(id(9, 1), 1, Push::Shape(7)));
    node.receive(3, gossip(id(8, 1), 1, Push::Shape(9)));
    assert_eq!(node.receive(4, gossip(id(9, 1), 2, Push::Shape(7))), [], "it gave way");
    assert_eq!(node.receive(4, gossip(id(8, 1), 2, Push::Shape(9))), [send(4, Message::Prune { shape: 9 })]);
    // A smaller one only spreads its payload, until the other one is old.
    node.receive(2, gossip(id(7, 1), 1, Push::Shape(1)));
    assert_eq!(node.receive(3, gossip(id(7, 1), 1, Push::Shape(1))), []);
    node.now += Duration::from_secs(6);
    node.receive(2, gossip(id(7, 2), 1, Push::Shape(2)));
    assert_eq!(node.receive(3, gossip(id(7, 2), 1, Push::Shape(2))), [send(3, Message::Prune { shape: 2 })]);
}

#[test]
fn a_peer_that_makes_trees_all_the_time_is_followed_a_few_times() {
    let mut node = among(rooted(), [2, 3, 4]);
    let floods = |actions: &[Action<u32>]| {
        let is_flood = |action: &&Action<u32>| matches!(action, Action::Send { message: Message::Gossip { push: Push::Shape(_), .. }, .. });
        actions.iter().filter(is_flood).count() / 2
    };
    let mut followed = 0;
    for round in 1..=100_u32 {
        followed += floods(&node.receive(2, gossip(id(9, u64::from(round)), 1, Push::Shape(round))));
    }
    assert_eq!(followed, 32, "so many may begin at once without knowing of each other");
    // What is refused goes on down the tree, so nothing is lost by it.
    assert_eq!(node.receive(2, gossip(id(9, 101), 1, Push::Shape(101)))[1], send(3, gossip(id(9, 101), 2, Push::Eager)));
    assert_eq!(floods(&node.receive(2, gossip(id(9, 102), 1, Push::Shape(32)))), 0, "nor is the number that stands used again");
    // The number of no tree would forget the one that stands, and the bound with it.
    node.now += Duration::from_secs(60);
    for round in 200..240 {
        assert_eq!(floods(&node.receive(2, gossip(id(9, round), 1, Push::Shape(0)))), 0);
    }
    assert!(floods(&node.receive(2, gossip(id(9, 300), 1, Push::Shape(33)))) > 0, "and an honest one goes on");
}

#[test]
fn a_payload_trims_what_has_grown_into_circles_but_not_two_at_once() {
    let mut node = among(rooted(), [2, 3, 4]);
    let trim = |shape| Push::Trim { shape, from_root: false };
    node.receive(3, gossip(id(9, 1), 1, Push::Shape(7)));
    node.receive(2, gossip(id(9, 2), 1, trim(7)));
    assert_eq!(node.receive(4, gossip(id(9, 2), 1, trim(7))), [], "the tree has just been made");
    node.now += Duration::from_secs(5);
    let actions = node.receive(3, gossip(id(9, 3), 1, trim(7)));
    assert_eq!(actions[1..], [send(2, gossip(id(9, 3), 2, trim(7))), send(4, gossip(id(9, 3), 2, trim(7)))]);
    assert_eq!(node.receive(4, gossip(id(9, 3), 2, trim(7))), [send(4, Message::Prune { shape: 7 })]);
    let actions = node.receive(2, gossip(id(8, 1), 1, trim(7)));
    assert_eq!(actions[1], send(3, gossip(id(8, 1), 2, Push::Eager)), "another at the same time only spreads");
    assert_eq!(node.receive(3, gossip(id(8, 1), 2, trim(7))), []);
    node.now += Duration::from_secs(5);
    node.receive(2, gossip(id(8, 2), 1, trim(9)));
    assert_eq!(node.receive(3, gossip(id(8, 2), 1, trim(9))), [], "nor one of another tree, while it may not have reached all");
    assert_eq!(node.eager(), [2, 3]);
}

#[test]
fn what_the_root_trims_takes_the_shorter_way() {
    for (from_root, hops, eager) in [(true, 5, vec![3, 4]), (true, 4, vec![2, 3]), (false, 5, vec![2, 3])] {
        let mut node = among(rooted(), [2, 3, 4]);
        node.receive(2, gossip(id(9, 1), 1, Push::Shape(7)));
        node.receive(4, Message::Prune { shape: 7 });
        node.now += Duration::from_secs(5);
        node.receive(4, fresh(id(9, 2), 3));
        node.receive(2, gossip(id(9, 2), hops, Push::Trim { shape: 7, from_root }));
        assert_eq!(node.eager(), eager, "over {hops} links, from the root: {from_root}");
    }
}

#[test]
fn who_loses_the_way_to_the_root_takes_another_at_once() {
    for (without, asks) in [(vec![], true), (vec![Improvement::Regraft], false)] {
        let mut node = among(Config { without, ..quiet() }, [2, 3, 4, 5]);
        node.receive(4, fresh(id(9, 1), 2));
        node.receive(2, gossip(id(9, 1), 3, Push::Shape(7)));
        for peer in [3, 4] {
            node.receive(peer, Message::Prune { shape: 7 });
        }
        assert_eq!(node.handle(Input::NeighborDown(5)), [], "one below us");
        let asked = node.handle(Input::NeighborDown(2));
        assert_eq!(asked == [send(4, graft(true, []))], asks, "{asked:?}");
        // The next best follows when that one goes too.
        assert_eq!(node.handle(Input::NeighborDown(4)) == [send(3, graft(true, []))], asks);
    }
}

#[test]
fn a_pull_mends_the_tree_only_if_the_tree_does_not_bring_it_too() {
    for brought in [true, false] {
        let mut node = among(rooted(), [2, 3, 4]);
        node.receive(2, gossip(id(9, 1), 1, Push::Eager));
        node.receive(3, fresh(id(9, 2), 2));
        assert_eq!(node.wait_for_repair(250), [send(3, graft(false, [id(9, 2)]))]);
        let actions = node.receive(3, gossip(id(9, 2), 2, Push::Answer));
        assert_eq!(actions, [deliver(id(9, 2), 3, 2), send(2, gossip(id(9, 2), 3, Push::Pulled))]);
        if brought {
            assert_eq!(node.receive(2, met(2)), [], "it was for us");
        }
        let mended = node.wait(Duration::from_secs(5)).contains(&send(3, graft(true, [])));
        assert_eq!((mended, node.eager().contains(&3)), (!brought, !brought));
    }
}

#[test]
fn where_the_tree_meets_a_pulled_payload_the_news_goes_back() {
    let mut node = among(rooted(), [2, 3, 4]);
    node.receive(4, gossip(id(9, 1), 1, Push::Eager));
    node.receive(3, gossip(id(9, 1), 1, Push::Eager));
    // It comes from whoever pulled it, by 3, and then down the tree, by 2.
    node.receive(3, gossip(id(9, 2), 3, Push::Pulled));
    assert_eq!(node.receive(2, gossip(id(9, 2), 6, Push::Eager)), [send(3, met(2))]);
    assert_eq!(node.receive(2, met(2)), [send(3, met(2))], "and so does that of others");
    assert_eq!(node.receive(2, met(1)), [], "nobody pulled this one");
    assert_eq!(node.receive(2, met(77)), []);
    assert_eq!(node.receive(99, met(2)), [], "a stranger");
}

#[test]
fn who_lost_a_link_of_the_tree_mends_it_at_once() {
    let mut node = among(rooted(), [2, 3]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.handle(Input::NeighborDown(2));
    node.receive(3, fresh(id(9, 2), 2));
    assert_eq!(node.wait_for_repair(250), [send(3, graft(true, [id(9, 2)]))]);
}

#[test]
fn what_others_send_than_the_main_sender_is_flooded_first() {
    let mut node = among(rooted(), [2, 3, 4]);
    node.handle(Input::ClusterSize(10_000));
    for sequence in 1..=8 {
        node.receive(2, gossip(id(9, sequence), 1, Push::Eager));
    }
    let pushes = |actions: Vec<Action<u32>>| -> Vec<(u32, Push)> {
        let push = |action| match action {
            Action::Send { to, message: Message::Gossip { push, .. } } => Some((to, push)),
            _ => None,
        };
        actions.into_iter().filter_map(push).collect()
    };
    let flood = Push::Flood(3);
    assert_eq!(pushes(node.broadcast().1), [(2, flood), (3, flood), (4, flood)], "in the tree or not");
    assert_eq!(pushes(node.receive(3, gossip(id(8, 1), 1, Push::Flood(1)))), [(2, Push::Flood(0)), (4, Push::Flood(0))]);
    let most = Push::Flood(3);
    assert_eq!(pushes(node.receive(3, gossip(id(8, 3), 1, Push::Flood(u8::MAX)))), [(2, most), (4, most)], "no further than we would");
    assert_eq!(pushes(node.receive(3, gossip(id(8, 2), 1, Push::Flood(0)))), [(2, Push::Eager)], "from here on the tree");
    // In a small cluster it would reach too many.
    node.handle(Input::ClusterSize(50));
    assert_eq!(pushes(node.broadcast().1), [(2, Push::Eager)]);
    node.handle(Input::ClusterSize(10_000));
    for _ in 0..8 {
        node.broadcast();
    }
    assert!(!pushes(node.broadcast().1).iter().any(|(_, push)| matches!(push, Push::Flood(_))), "it sends most by now");
}

#[test]
fn many_who_begin_at_once_make_one_tree() {
    for (rooted, redundancy_max) in [(true, 0.02), (false, 10.0)] {
        let without = if rooted { Vec::new() } else { vec![Improvement::RootedTree] };
        let params: Params = Config { without, ..Config::default() }.build().unwrap();
        let mut network = Network::regular(200, 5, &params, 11);
        for at in 0..20 {
            network.broadcast(at * 10, b"at once");
        }
        network.run(Duration::from_secs(3));
        let id = network.broadcast(77, b"later");
        network.run(Duration::from_secs(1));
        assert_eq!(network.delivered[&id].len(), 199);
        assert!(network.rmr(&id) <= redundancy_max, "{}", network.rmr(&id));
        if rooted {
            assert!(network.hops_max[&id] <= 16, "{}", network.hops_max[&id]);
        }
        network.run(Duration::from_secs(20));
        network.assert_complete();
    }
}
