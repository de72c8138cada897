//! Networks of cores: what the papers measure, and what they lose.

use std::time::Duration;

use super::super::{Config, Params};
use super::network::Network;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn one_sender_soon_has_a_tree_without_redundancy() {
    // Section 4.2, figure 2b: the first broadcast floods, the following ones find a tree.
    let mut network = Network::regular(500, 5, &Params::default(), 1);
    let ids: Vec<_> = (0..12)
        .map(|_| {
            let id = network.broadcast(17, &[1; 100]);
            network.run(secs(2));
            id
        })
        .collect();
    network.assert_complete();
    assert!(network.rmr(&ids[0]) > 1.5, "the first broadcast floods");
    for id in &ids[3..] {
        assert!(network.rmr(id) <= 0.01, "{}", network.rmr(id));
        assert!(network.hops_max[id] <= 14, "{}", network.hops_max[id]);
    }
}

#[test]
fn rotating_senders_reach_everyone() {
    let mut network = Network::regular(300, 5, &Params::default(), 2);
    let mut redundancy = 0.0;
    for round in 0..60 {
        let at = network.draw(300) as u32;
        let id = network.broadcast(at, &[2; 100]);
        network.run(secs(2));
        if round >= 30 {
            redundancy += network.rmr(&id) / 30.0;
        }
    }
    network.assert_complete();
    assert!(redundancy <= 0.1, "{redundancy}");
}

#[test]
fn all_send_at_once() {
    let mut network = Network::regular(100, 5, &Params::default(), 3);
    for _ in 0..2 {
        for at in 0..100 {
            network.broadcast(at, &[3; 10]);
        }
        network.run(secs(3));
    }
    network.run(secs(10));
    network.assert_complete();
}

#[test]
fn a_busy_sender_announces_many_messages_in_a_frame() {
    let mut network = Network::regular(100, 5, &Params::default(), 4);
    for _ in 0..3 {
        network.broadcast(0, &[4; 10]);
        network.run(secs(1));
    }
    let before = network.control;
    for _ in 0..200 {
        network.broadcast(0, &[4; 10]);
        network.run(millis(10));
    }
    network.run(secs(4));
    network.assert_complete();
    // Without batches the paper needs (5 * 100 - 2 * 99) announcements for each message: one in both directions of each lazy link.
    assert!(network.control - before < 200 * 302 / 5, "{}", network.control - before);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = Network::regular(60, 5, &Params::default(), seed);
        for at in 0..20 {
            network.broadcast(at, b"again");
            network.run(millis(70));
        }
        network.run(secs(10));
        network.digest
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn links_that_are_cut_and_replaced_lose_nothing() {
    for seed in 0..2 {
        let mut network = Network::regular(120, 5, &Params::default(), 100 + seed);
        for round in 0..60_u32 {
            for _ in 0..5 {
                let links = network.connections();
                let (a, b) = links[network.draw(links.len())];
                network.cut(a, b);
                let (c, d) = (network.draw(120) as u32, network.draw(120) as u32);
                network.link(c, d);
                network.link(a, d);
            }
            network.reconnect();
            let at = network.draw(120) as u32;
            network.broadcast(at, &round.to_le_bytes());
            network.run(millis(150));
        }
        network.run(secs(25));
        network.assert_complete();
    }
}

#[test]
fn nodes_inside_the_tree_crash_in_the_middle_of_a_broadcast() {
    let mut network = Network::regular(200, 5, &Params::default(), 7);
    for _ in 0..5 {
        network.broadcast(0, b"warm up");
        network.run(secs(1));
    }
    let id = network.broadcast(0, b"interrupted");
    network.run(millis(60));
    let reached = network.delivered[&id].len();
    assert!(reached > 3 && reached < 150, "the crashes hit a broadcast under way: {reached}");
    let inner = |network: &Network, at: u32| network.node(at).neighbors().filter(|(_, eager)| *eager).count();
    let mut order: Vec<u32> = (1..200).collect();
    order.sort_by_key(|at| std::cmp::Reverse(inner(&network, *at)));
    for at in &order[..30] {
        network.crash(*at);
    }
    let survivors = network.alive().len();
    network.run(millis(100));
    assert!(
        network.delivered[&id].keys().filter(|at| network.nodes[**at as usize].is_some()).count() < survivors - 1,
        "the tree was broken"
    );
    network.reconnect();
    network.run(secs(10));
    network.assert_complete();
}

#[test]
fn half_of_the_nodes_crash_and_new_links_repair_the_first_message() {
    // H4: the undelivered share of a message sent in the instant of a massive failure arrives once the overlay has healed.
    let mut network = Network::regular(300, 5, &Params::default(), 8);
    for _ in 0..5 {
        network.broadcast(0, b"warm up");
        network.run(secs(1));
    }
    for at in 1..=240 {
        network.crash(at);
    }
    let id = network.broadcast(0, b"first after the failure");
    network.run(secs(5));
    let before = network.delivered.get(&id).map_or(0, |delivered| delivered.len());
    assert!(before < 59, "the failure cut the overlay: {before}");
    network.reconnect();
    network.run(secs(10));
    network.assert_complete();
}

#[test]
fn a_node_that_was_cut_off_gets_everything_once() {
    let mut network = Network::regular(50, 5, &Params::default(), 9);
    let links = network.neighbors(30);
    for peer in &links {
        network.cut(30, *peer);
    }
    network.reconnect_all_but(30);
    for round in 0..1_000_u32 {
        let at = round % 5;
        network.broadcast(at, &round.to_le_bytes());
        network.run(millis(20));
    }
    assert_eq!(network.lost().iter().filter(|(_, at)| *at == 30).count(), 1_000, "it was cut off");
    for peer in 40..44 {
        network.link(30, peer);
    }
    network.run(secs(6));
    network.assert_complete();
    let asked = network.node(30).counters();
    // What neighbors announced is not pushed back to them, and nothing is asked for twice on a quiet network.
    assert!(asked.duplicates < 20, "{asked:?}");
    assert!(asked.pushes_sent < 100, "{asked:?}");
    assert!(asked.graft_frames_sent < 100, "{asked:?}");
}

#[test]
fn two_halves_that_meet_again_exchange_what_they_missed() {
    let mut network = Network::regular(120, 5, &Params::default(), 10);
    for at in 0..10 {
        network.broadcast(at * 12, b"warm up");
        network.run(millis(500));
    }
    let across: Vec<_> = network.connections().into_iter().filter(|(a, b)| (*a < 60) != (*b < 60)).collect();
    for (a, b) in &across {
        network.cut(*a, *b);
    }
    for round in 0..200_u32 {
        let at = network.draw(120) as u32;
        network.broadcast(at, &round.to_le_bytes());
        network.run(millis(100));
    }
    assert!(network.lost().len() >= 200 * 60, "the halves were apart");
    for (a, b) in &across[..5] {
        network.link(*a, *b);
    }
    network.reconnect();
    network.run(secs(20));
    network.assert_complete();
    // And who sends from then on makes a tree of both.
    for _ in 0..15 {
        network.broadcast(3, b"after");
        network.run(secs(2));
    }
    let id = network.broadcast(3, b"after");
    network.run(secs(3));
    network.assert_complete();
    assert!(network.rmr(&id) < 0.05, "{}", network.rmr(&id));
}

#[test]
fn links_that_flap_lose_and_repeat_nothing() {
    for seed in 0..50 {
        let mut network = Network::regular(24, 4, &Params::default(), 1_000 + seed);
        for round in 0..80_u32 {
            for _ in 0..network.draw(4) {
                let links = network.connections();
                let (a, b) = links[network.draw(links.len())];
                network.cut(a, b);
                // Some links come back so soon that one side hears of the cut when the other already pushes again.
                if network.draw(2) == 0 {
                    network.link(a, b);
                }
            }
            if network.draw(3) == 0 {
                network.reconnect();
                let (c, d) = (network.draw(24) as u32, network.draw(24) as u32);
                network.link(c, d);
            }
            let at = network.draw(24) as u32;
            network.broadcast(at, &round.to_le_bytes());
            let pause = network.draw(200) as u64;
            network.run(millis(pause));
        }
        network.reconnect();
        network.run(secs(45));
        network.assert_complete();
    }
}

#[test]
fn summaries_repair_pushes_that_were_lost() {
    let run = |summary_period| {
        // Every link is in the tree of a line, so nobody announces anything to anybody.
        let params = Config { summary_period, ..Config::default() }.build().unwrap();
        let mut network = Network::new(12, &params, 11);
        for at in 1..12 {
            network.link(at - 1, at);
        }
        network.run(secs(1));
        network.lost_pushes_per_mille = 100;
        for round in 0..30_u32 {
            network.broadcast(0, &round.to_le_bytes());
            network.run(millis(200));
        }
        network.run(secs(70));
        network.assert_once();
        assert!(network.lost_pushes > 10, "the fault happened");
        network.lost().len()
    };
    assert_eq!(run(secs(5)), 0);
    // The same without summaries, to know that this test can fail.
    assert!(run(secs(3_000)) > 0);
}

#[test]
fn odd_parameters_still_deliver() {
    let odd = [
        Config { announce_delay_min: Duration::ZERO, announce_delay_max: Duration::ZERO, ..Config::default() },
        Config { asked_max: 1, attempts_max: 1, announcers_max: 1, ..Config::default() },
        Config { graft_burst: 2, grafts_per_second: 20, asked_max: 3, ..Config::default() },
        Config { optimization_threshold: Some(1), ..Config::default() },
        Config { optimization_threshold: None, summary_period: millis(300), summary_bytes_max: 256, ..Config::default() },
        Config {
            graft_wait: millis(1),
            graft_wait_min: millis(1),
            answer_wait: millis(1),
            answer_wait_min: millis(1),
            ..Config::default()
        },
        Config::lan(),
        Config::wan(),
        Config::local(),
    ];
    for (at, config) in odd.into_iter().enumerate() {
        let mut network = Network::regular(40, 5, &config.build().unwrap(), 2_000 + at as u64);
        for round in 0..30_u32 {
            network.broadcast(round % 40, &round.to_le_bytes());
            network.run(millis(60));
            if round == 10 {
                let links = network.neighbors(39);
                links.iter().for_each(|peer| network.cut(39, *peer));
            }
        }
        network.link(39, 0);
        network.link(39, 20);
        network.run(secs(60));
        network.assert_complete();
    }
}

#[test]
fn tight_bounds_lose_repairs_but_neither_order_nor_memory() {
    let tight = [
        Config { payloads_max: 1, ..Config::default() },
        Config { payload_bytes_max: 1, ..Config::default() },
        Config { payload_retention: Duration::ZERO, ..Config::default() },
        Config { missing_max: 1, missing_per_neighbor_max: 1, ..Config::default() },
    ];
    for (at, config) in tight.into_iter().enumerate() {
        let mut network = Network::regular(40, 5, &config.build().unwrap(), 3_000 + at as u64);
        for round in 0..30_u32 {
            network.broadcast(round % 3, &round.to_le_bytes());
            network.run(millis(60));
        }
        network.run(secs(300));
        network.assert_once();
        let lost = network.lost().len();
        assert!(lost < 30 * 39 / 5, "the tree alone brings nearly everything: {lost}");
        for node in network.alive() {
            assert_eq!(network.node(node).missing_len(), 0);
            assert_eq!(network.node(node).payloads_len(), 0, "everything is past its retention");
        }
    }
}
