//! Near links (deviation 13): who gives up whom for whom, and who does not.

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A node with six neighbors that knows 50, 51 and so on, and for which a round trip of 60 ms is usual.
fn seeker() -> Core {
    let mut core = full();
    for peer in 50..58 {
        core.state.learn(peer, &[]);
    }
    assert_eq!(sent(&answer_probe(&mut core, 60)), [], "nothing is known to be near before something else was measured");
    core
}

/// Waits for the next probe and answers it after so many milliseconds.
fn answer_probe(core: &mut Core, millis: u32) -> Vec<Action<u32>> {
    for _ in 0..1_000_000 {
        let actions = core.pass(MILLI);
        let probe = sent(&actions).into_iter().find_map(|(to, message)| match message {
            Message::Probe { nonce } => Some((to, nonce)),
            _ => None,
        });
        if let Some((to, nonce)) = probe {
            core.now += MILLI * millis;
            return core.receive(to, Message::ProbeReply { nonce, token: 1 });
        }
    }
    panic!("no probe within a quarter of an hour");
}

/// The swap that an answer after so many milliseconds leads to: with whom, under which link, in whose place.
fn swap(core: &mut Core, millis: u32) -> Option<(u32, u32, u32)> {
    let actions = answer_probe(core, millis);
    let swaps = sent(&actions).into_iter().find_map(|(to, message)| match message {
        Message::Swap { link, old, .. } => Some((to, link, old)),
        _ => None,
    });
    assert_eq!(changes(&actions), [], "nothing changes before the other side agreed");
    swaps
}

/// A swap that the candidate agrees to, and gives up 200 for.
fn agreed(core: &mut Core, millis: u32) -> (u32, u32) {
    let (to, link, old) = swap(core, millis).expect("near enough");
    let actions = core.receive(to, Message::NeighborReply { link, accepted: true, peers: peers([200]) });
    assert_eq!(changes(&actions), [Action::NeighborDown(old, DownReason::Evicted), Action::NeighborUp(to)]);
    let told = sent(&actions).into_iter().find_map(|(peer, message)| match message {
        Message::Disconnect { reason: Farewell::Evicted, peers, .. } if peer == old => Some(peers),
        _ => None,
    });
    assert_eq!(told, Some(peers([200])), "whom it may ask in our place");
    core.pass(Duration::from_secs(2));
    (to, old)
}

/// Answers a probe of `from`; the token of the answer.
fn probed(core: &mut Core, from: u32) -> u32 {
    let answer = sent(&core.receive(from, Message::Probe { nonce: 7 }));
    let [(to, Message::ProbeReply { nonce: 7, token })] = answer[..] else { panic!("{answer:?}") };
    assert_eq!(to, from);
    token
}

/// A probe of `from` that is answered, and a wish that comes so many milliseconds later.
fn wish(core: &mut Core, from: u32, millis: u32) -> Vec<Action<u32>> {
    let token = probed(core, from);
    core.now += MILLI * millis;
    core.receive(from, Message::Swap { link: 9, token, old: 300, others: peers([301]) })
}

/// Whoever sends a wish along with its probe would seem to be no way off.
#[test]
fn a_wish_that_did_not_wait_for_the_answer_is_refused() {
    let mut core = seeker();
    let token = probed(&mut core, 100_000);
    let swap = |token| Message::Swap { link: 9, token, old: 300, others: peers([301]) };
    for guess in [0, 7, token.wrapping_add(1)] {
        assert_eq!(sent(&core.receive(100_000, swap(guess))), [(100_000, reply(9, false))]);
    }
    core.now += MILLI * 20;
    assert_eq!(changes(&core.receive(100_000, swap(token))).len(), 2, "the one that waited is taken");
}

#[test]
fn a_nearer_peer_takes_the_place_of_a_neighbor_that_nobody_chose() {
    let mut core = seeker();
    let (near, old) = agreed(&mut core, 20);
    assert!((50..58).contains(&near) && (1..=6).contains(&old));
    assert_eq!((core.state.neighbors().len(), core.state.counters().swaps), (6, 1));
}

#[test]
fn a_peer_that_is_hardly_nearer_is_not_worth_a_swap() {
    let mut core = seeker();
    assert_eq!(swap(&mut core, 55), None);
    assert!(swap(&mut core, 40).is_some());
}

#[test]
fn some_links_stay_as_chance_has_it_and_the_farthest_of_the_others_goes() {
    let mut core = seeker();
    let chosen: Vec<u32> = [20, 10, 24, 15].into_iter().map(|millis| agreed(&mut core, millis).0).collect();
    assert_eq!(core.state.links.iter().filter(|link| link.distance == 0).count(), 2);
    assert_eq!(swap(&mut core, 23), None, "not nearer by a fifth than the farthest");
    core.pass(Duration::from_secs(1));
    assert_eq!(agreed(&mut core, 16).1, chosen[2]);
    assert_eq!(core.state.links.iter().filter(|link| link.distance == 0).count(), 2);
}

#[test]
fn a_refusal_leaves_everything_as_it_was() {
    let mut core = seeker();
    let (to, link, _) = swap(&mut core, 20).unwrap();
    let actions = core.receive(to, reply(link, false));
    assert_eq!((changes(&actions), sent(&actions)), (vec![], vec![]));
    assert_eq!(core.state.neighbors(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_candidate_agrees_if_it_gains_too_and_tells_its_neighbor_who_will_ask() {
    let mut core = seeker();
    let actions = wish(&mut core, 100_000, 20);
    let [Action::NeighborDown(given_up, DownReason::Evicted), Action::NeighborUp(100_000)] = changes(&actions)[..] else {
        panic!("{actions:?}")
    };
    let farewell = Message::Disconnect { link: given_up, reason: Farewell::Swapped, peers: peers([300]) };
    let agreed = Message::NeighborReply { link: 9, accepted: true, peers: peers([given_up]) };
    assert_eq!(sent(&actions), [(given_up, farewell), (100_000, agreed)]);

    // Far, without a probe, twice upon one probe, or of a neighbor: no.
    let mut core = seeker();
    assert_eq!(sent(&wish(&mut core, 100_000, 55)), [(100_000, reply(9, false))]);
    let token = probed(&mut core, 100_000);
    let swap = Message::Swap { link: 9, token, old: 300, others: peers([301]) };
    core.now += 55 * MILLI;
    for from in [60, 100_000, 100_000] {
        assert_eq!(sent(&core.receive(from, swap.clone())), [(from, reply(9, false))]);
    }
    assert_eq!(sent(&wish(&mut core, 1, 5)), [(1, reply(9, false))]);
    assert_eq!(core.state.neighbors(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_swap_closes_no_triangle() {
    let mut core = seeker();
    let swap = |token, others| Message::Swap { link: 9, token, old: 300, others };
    let token = probed(&mut core, 100_000);
    core.now += 20 * MILLI;
    assert_eq!(sent(&core.receive(100_000, swap(token, peers([2, 3])))), [(100_000, reply(9, false))]);
    let token = probed(&mut core, 100_000);
    core.now += 20 * MILLI;
    core.input(Input::Carrying(vec![1, 3, 4, 5, 6]));
    let actions = core.receive(100_000, swap(token, peers([2])));
    assert_eq!(changes(&actions), [Action::NeighborDown(2, DownReason::Evicted), Action::NeighborUp(100_000)], "2 is given up");
}

#[test]
fn the_two_that_were_given_up_become_neighbors() {
    // The one that was told to wait keeps its slot for the one that will ask.
    let mut core = full();
    for peer in 50..58 {
        core.state.learn(peer, &[]);
    }
    let actions = core.receive(3, Message::Disconnect { link: 3, reason: Farewell::Swapped, peers: peers([300]) });
    assert_eq!((requests(&actions), core.state.room()), (vec![], 0));
    let actions = core.receive(60, Message::Neighbor { link: 5, priority: Priority::Low });
    assert!(matches!(sent(&actions)[..], [(60, Message::NeighborReply { accepted: false, .. })]));
    let actions = core.receive(300, Message::Neighbor { link: 5, priority: Priority::Low });
    assert_eq!((changes(&actions), sent(&actions)), (vec![Action::NeighborUp(300)], vec![(300, reply(5, true))]));
    // In vain: it looks for somebody else in the end.
    core.receive(4, Message::Disconnect { link: 4, reason: Farewell::Swapped, peers: peers([301]) });
    assert!(!requests(&core.pass(Config::default().request_timeout + MILLI)).is_empty());
}

#[test]
fn what_broadcasts_need_is_not_given_up() {
    let mut core = seeker();
    core.input(Input::Carrying(vec![1, 2, 3, 4, 5]));
    for _ in 0..3 {
        let (to, link, old) = swap(&mut core, 20).unwrap();
        assert_eq!(old, 6);
        core.receive(to, reply(link, false));
        core.pass(Duration::from_secs(11));
    }
    // Nor if it came to be needed while the other side agreed.
    let (to, link, _) = swap(&mut core, 20).unwrap();
    core.input(Input::Carrying(vec![6]));
    let actions = core.receive(to, Message::NeighborReply { link, accepted: true, peers: peers([200]) });
    assert_eq!((changes(&actions), sent(&actions)), (vec![], vec![(to, no_link(link))]));
    core.input(Input::Carrying(vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(sent(&wish(&mut core, 100_000, 5)), [(100_000, reply(9, false))]);
}

#[test]
fn a_new_link_and_a_view_that_is_not_full_are_left_alone() {
    let mut core = seeker();
    core.input(Input::Unreachable(1));
    core.state.requests.clear();
    core.receive(10, Message::Neighbor { link: 10, priority: Priority::Low });
    core.input(Input::Carrying(vec![2, 3, 4, 5, 6]));
    assert_eq!(sent(&wish(&mut core, 100_000, 5)), [(100_000, reply(9, false))], "10 is new, and the others are needed");
    core.pass(Duration::from_secs(2));
    core.input(Input::Carrying(vec![2, 3, 4, 5]));
    core.input(Input::Unreachable(10));
    core.state.requests.clear();
    assert_eq!(sent(&wish(&mut core, 100_000, 5)), [(100_000, reply(9, false))], "there is a slot to fill");
}

#[test]
fn searches_in_vain_become_rare_and_a_near_link_that_is_lost_is_looked_for_soon() {
    let mut core = seeker();
    let probes = |actions: &[Action<u32>]| sent(actions).iter().filter(|(_, message)| matches!(message, Message::Probe { .. })).count();
    agreed(&mut core, 10);
    let first = probes(&core.pass(Duration::from_secs(10)));
    core.pass(Duration::from_secs(600));
    let later = probes(&core.pass(Duration::from_secs(600)));
    assert!((10..40).contains(&first) && (4..20).contains(&later), "{first} in ten seconds, {later} in ten minutes");
    let near = core.state.active[core.state.links.iter().position(|link| link.distance > 0).unwrap()];
    core.input(Input::Unreachable(near));
    core.state.requests.clear();
    core.receive(10, Message::Neighbor { link: 10, priority: Priority::Low });
    let again = probes(&core.pass(Duration::from_secs(10)));
    assert!((5..20).contains(&again), "{again}");
}
