//! The rules, one by one, on cores driven by hand.

use meshwork_channels::{DecodeError, decode, encode};

use super::*;

mod plain;
mod swaps;

const ME: u32 = 100;

/// One node, its clock, and what it decided last.
struct Core {
    state: State<u32>,
    now: Time,
}

impl Core {
    fn new(config: Config) -> Self {
        Core { state: State::new(ME, config.build().unwrap(), 1), now: Time::from_secs(10) }
    }

    /// A node with these neighbors, whose link is numbered as their name.
    fn with_neighbors(config: Config, neighbors: &[u32]) -> Self {
        let mut core = Core::new(config);
        for peer in neighbors {
            core.receive(*peer, Message::Neighbor { link: *peer, priority: Priority::Low });
        }
        assert_eq!(core.state.neighbors(), neighbors);
        core.pass(Duration::from_secs(2));
        core
    }

    fn input(&mut self, input: Input<u32>) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        self.state.handle(input, self.now, &mut actions);
        actions
    }

    fn receive(&mut self, from: u32, message: Message<u32>) -> Vec<Action<u32>> {
        self.input(Input::Received { from, message: TopologyMessage::Hyparview(message) })
    }

    /// Lets time pass, deadlines included.
    fn pass(&mut self, duration: Duration) -> Vec<Action<u32>> {
        let end = self.now + duration;
        let mut actions = Vec::new();
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.state.handle(Input::DeadlineReached, self.now, &mut actions);
        }
        self.now = end;
        actions
    }

    fn passive(&self) -> Vec<u32> {
        self.state.passive().collect()
    }
}

fn sent(actions: &[Action<u32>]) -> Vec<(u32, Message<u32>)> {
    let messages = actions.iter().filter_map(|action| match action {
        Action::Send { to, message: TopologyMessage::Hyparview(message) } => Some((*to, message.clone())),
        _ => None,
    });
    messages.collect()
}

/// The neighbor requests among the actions: whom, under which link, how urgently.
fn requests(actions: &[Action<u32>]) -> Vec<(u32, u32, Priority)> {
    let requests = sent(actions).into_iter().filter_map(|(to, message)| match message {
        Message::Neighbor { link, priority } => Some((to, link, priority)),
        _ => None,
    });
    requests.collect()
}

fn changes(actions: &[Action<u32>]) -> Vec<Action<u32>> {
    actions.iter().filter(|action| matches!(action, Action::NeighborUp(_) | Action::NeighborDown(..))).cloned().collect()
}

fn peers<const N: usize>(list: [u32; N]) -> Peers<u32> {
    Peers::first_of(list)
}

fn reply(link: u32, accepted: bool) -> Message<u32> {
    Message::NeighborReply { link, accepted, peers: Peers::new() }
}

fn no_link(link: u32) -> Message<u32> {
    Message::Disconnect { link, reason: Farewell::NoLink, peers: Peers::new() }
}

/// A view that has no free slot and a test that knows who is in it.
fn full() -> Core {
    Core::with_neighbors(Config::default(), &[1, 2, 3, 4, 5, 6])
}

/// A pair of which one says goodbye and is then asked again and again, as fast as it answers.
#[test]
fn whoever_left_is_not_asked_in_a_circle() {
    let mut core = Core::new(Config::default());
    let mut asked = sent(&core.input(Input::Join { contact: 1 }));
    let Some((1, Message::Join { link })) = asked.pop() else { panic!("it joins: {asked:?}") };
    core.receive(1, reply(link, true));
    assert_eq!(core.state.neighbors(), [1]);
    core.pass(Duration::from_secs(5));
    let goodbye = |link| Message::Disconnect { link, reason: Farewell::Leaving, peers: Peers::new() };
    let mut waiting = vec![goodbye(link)];
    let mut count = 0;
    while let Some(message) = waiting.pop() {
        for (to, message) in sent(&core.receive(1, message)) {
            assert_eq!(to, 1);
            count += 1;
            assert!(count <= usize::from(Config::default().requests_per_retry), "without a moment passing");
            if let Message::Join { link } | Message::Neighbor { link, .. } = message {
                waiting.push(goodbye(link));
            }
        }
    }
}

// ---- Wire ----

#[test]
fn golden_bytes() {
    for (message, hex) in [
        (Message::Join { link: 300 }, "00ac02"),
        (Message::ForwardJoin { joiner: 7, ttl: 6, missing: 5 }, "01070605"),
        (Message::Neighbor { link: 1, priority: Priority::Low }, "020100"),
        (Message::Neighbor { link: 1, priority: Priority::High }, "020101"),
        (Message::Neighbor { link: 1, priority: Priority::Heal }, "020102"),
        (Message::NeighborReply { link: 2, accepted: true, peers: peers([8, 9]) }, "030201020809"),
        (Message::Disconnect { link: 3, reason: Farewell::Evicted, peers: peers([8]) }, "0403000108"),
        (Message::Disconnect { link: 3, reason: Farewell::Leaving, peers: Peers::new() }, "04030100"),
        (Message::Disconnect { link: 3, reason: Farewell::NoLink, peers: Peers::new() }, "04030200"),
        (Message::Shuffle { origin: 4, nonce: 5, ttl: 6, peers: peers([1, 2, 3]) }, "0504050603010203"),
        (Message::ShuffleReply { nonce: 5, peers: peers([1]) }, "06050101"),
        (Message::Alive { link: 6 }, "0706"),
        (Message::Disconnect { link: 3, reason: Farewell::Swapped, peers: peers([8]) }, "0403030108"),
        (Message::Probe { nonce: 300 }, "08ac02"),
        (Message::ProbeReply { nonce: 300, token: 5 }, "09ac0205"),
        (Message::Swap { link: 6, token: 7, old: 8, others: peers([9, 10]) }, "0a06070802090a"),
    ] {
        let bytes = encode(&message);
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex, "{message:?}");
        assert_eq!(decode(&bytes), Ok(message));
    }
}

#[test]
fn a_list_that_is_too_long_is_no_message() {
    let mut bytes = vec![6, 5, 17];
    bytes.extend([1; 17]);
    assert_eq!(decode::<Message<u32>>(&bytes), Err(DecodeError::TooLong));
}

#[test]
fn every_peer_that_a_message_names_is_visited() {
    let named = |message: Message<u32>| {
        let mut named = Vec::new();
        TopologyMessage::Hyparview(message).visit_peers(&mut |peer| named.push(peer));
        named
    };
    assert_eq!(named(Message::Shuffle { origin: 4, nonce: 0, ttl: 0, peers: peers([1, 2]) }), [4, 1, 2]);
    assert_eq!(named(Message::ForwardJoin { joiner: 7, ttl: 0, missing: 0 }), [7]);
    assert_eq!(named(Message::Disconnect { link: 0, reason: Farewell::Leaving, peers: peers([1]) }), [1]);
    assert_eq!(named(Message::NeighborReply { link: 0, accepted: false, peers: peers([3]) }), [3]);
    assert_eq!(named(Message::ShuffleReply { nonce: 0, peers: peers([5, 6]) }), [5, 6]);
    assert_eq!(named(Message::Alive { link: 1 }), []);
    assert_eq!((named(Message::Probe { nonce: 1 }), named(Message::ProbeReply { nonce: 1, token: 2 })), (vec![], vec![]));
    assert_eq!(named(Message::Swap { link: 1, token: 2, old: 3, others: peers([4]) }), [3]);
}

// ---- Configuration ----

#[test]
fn a_configuration_that_cannot_work_is_refused_by_name() {
    for config in [Config::default(), Config::lan(), Config::wan(), Config::local()] {
        assert!(config.build().is_ok());
    }
    let field = |config: Config| config.build().unwrap_err().field;
    assert_eq!(field(Config { active_len_max: 0, ..Config::default() }), "active_len_max");
    assert_eq!(field(Config { active_len_min: 7, ..Config::default() }), "active_len_min");
    assert_eq!(field(Config { passive_len_max: 0, ..Config::default() }), "passive_len_max");
    assert_eq!(field(Config { shuffle_active_len: 10, shuffle_passive_len: 7, ..Config::default() }), "shuffle_passive_len");
    assert_eq!(field(Config { retry_period: Duration::ZERO, ..Config::default() }), "retry_period");
    assert_eq!(field(Config { near_gain_percent: 0, ..Config::default() }), "near_gain_percent");
    assert_eq!(field(Config { near_period: Duration::ZERO, ..Config::default() }), "near_period");
    assert_eq!(field(Config { request_timeout: Duration::from_millis(1), ..Config::default() }), "request_timeout");
    let error = Config { passive_walk_len: 6, ..Config::default() }.build().unwrap_err();
    assert_eq!(error.to_string(), "passive_walk_len is 6; it must be 0 to 5");
}

// ---- Joining (section 4.2) ----

#[test]
fn a_joiner_is_a_neighbor_once_the_contact_said_so() {
    let mut core = Core::new(Config::default());
    let actions = core.input(Input::Join { contact: 1 });
    let [(1, Message::Join { link })] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(changes(&actions), []);
    let actions = core.receive(1, reply(link, true));
    assert_eq!(changes(&actions), [Action::NeighborUp(1)]);
    assert_eq!(core.state.neighbors(), [1]);
}

#[test]
fn a_contact_with_room_takes_the_joiner_in_and_starts_walks() {
    let mut core = Core::with_neighbors(Config::default(), &[1, 2, 3, 4]);
    let actions = core.receive(50, Message::Join { link: 9 });
    assert_eq!(changes(&actions), [Action::NeighborUp(50)]);
    let sent = sent(&actions);
    assert!(matches!(sent[0], (50, Message::NeighborReply { link: 9, accepted: true, .. })), "the answer comes before all else");
    assert_eq!(sent.iter().filter(|(_, message)| matches!(message, Message::ForwardJoin { joiner: 50, ttl: 6, missing: 5 })).count(), 3);
}

#[test]
fn a_full_contact_keeps_its_view_and_sends_at_most_four_messages() {
    let mut core = full();
    let actions = core.receive(50, Message::Join { link: 9 });
    assert_eq!(changes(&actions), []);
    let sent = sent(&actions);
    assert!(matches!(&sent[0], (50, Message::NeighborReply { link: 9, accepted: false, peers }) if !peers.is_empty()));
    assert_eq!(sent.len(), 4);
    assert!(sent[1..].iter().all(|(_, message)| matches!(message, Message::ForwardJoin { joiner: 50, ttl: 6, missing: 6 })));
    assert_eq!(core.passive(), [50]);
}

#[test]
fn a_storm_of_joiners_is_introduced_to_one_another() {
    let mut core = full();
    let mut early = 0;
    for joiner in 1_000..1_100 {
        let actions = core.receive(joiner, Message::Join { link: joiner });
        assert_eq!(changes(&actions), []);
        early += usize::from(sent(&actions).iter().any(|(_, message)| matches!(message, Message::NeighborReply { .. })));
        assert!(sent(&actions).iter().any(|(_, message)| matches!(message, Message::ForwardJoin { .. })), "each has a walk at once");
    }
    assert_eq!(early, 10, "the rate is ten per second");
    let misbehaved = core.receive(1_099, Message::Join { link: 1 });
    assert_eq!(misbehaved, [Action::Misbehaved { peer: 1_099, what: Misbehavior::TooManyRequests }]);
    let late = sent(&core.pass(Duration::from_millis(200)));
    let replies = late.iter().filter_map(|(to, message)| match message {
        Message::NeighborReply { accepted: false, link, peers } => Some((*to, *link, peers)),
        _ => None,
    });
    let mut count = 0;
    for (to, link, peers) in replies {
        count += 1;
        assert_eq!(to, link);
        assert!(!peers.contains(&to));
        assert!(peers.iter().filter(|peer| **peer >= 1_010).count() >= 4, "{peers:?}");
        assert!(peers.iter().any(|peer| *peer < 1_010), "{peers:?} has nobody of the older overlay");
    }
    assert_eq!(count, 90);
}

#[test]
fn a_walk_leaves_the_joiner_in_the_passive_view_where_prwl_steps_are_left() {
    let mut core = full();
    let actions = core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 4, missing: 6 });
    assert_eq!(core.passive(), []);
    let [(next, Message::ForwardJoin { joiner: 50, ttl: 3, missing: 6 })] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_ne!(next, 1, "a walk does not turn back");
    core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 3, missing: 6 });
    assert_eq!(core.passive(), [50]);
}

#[test]
fn a_walk_ends_where_a_slot_is_free() {
    let mut core = Core::with_neighbors(Config::default(), &[1, 2, 3]);
    assert_eq!(requests(&core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 5, missing: 1 })), [], "not before its middle");
    let actions = core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 2, missing: 1 });
    let [(50, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(changes(&core.receive(50, reply(link, true))), [Action::NeighborUp(50)]);
}

#[test]
fn a_walk_with_nowhere_to_go_ends() {
    let mut core = Core::with_neighbors(Config::default(), &[1]);
    assert_eq!(requests(&core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 6, missing: 6 })).len(), 1);
}

#[test]
fn a_walk_that_ends_at_a_full_node_is_spliced_into_a_link() {
    let mut core = full();
    let actions = core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 0, missing: 2 });
    let [(50, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(changes(&actions), [], "nobody is evicted before the joiner agrees");
    let actions = core.receive(50, reply(link, true));
    let [Action::NeighborDown(evicted, DownReason::Evicted), Action::NeighborUp(50)] = changes(&actions)[..] else { panic!("{actions:?}") };
    let (to, Message::Disconnect { link, reason: Farewell::Evicted, peers }) = &sent(&actions)[0] else { panic!("{actions:?}") };
    assert_eq!((*to, *link, peers[0]), (evicted, evicted, 50), "the evicted learns first who took its place");
    assert_eq!(core.state.counters().evictions, 1);
    // A joiner that misses one neighbor has no slot for the evicted.
    assert_eq!(core.receive(1, Message::ForwardJoin { joiner: 51, ttl: 0, missing: 1 }), []);
}

#[test]
fn the_evicted_asks_its_successor_at_once() {
    let mut core = full();
    let actions = core.receive(3, Message::Disconnect { link: 3, reason: Farewell::Evicted, peers: peers([50, 51, 52]) });
    assert_eq!(changes(&actions), [Action::NeighborDown(3, DownReason::EvictedUs)]);
    assert_eq!(requests(&actions).iter().map(|(to, ..)| *to).collect::<Vec<_>>(), [50]);
    assert!(core.passive().contains(&3));
}

// ---- The active view (sections 4.3 and 4.4) ----

#[test]
fn a_low_priority_is_refused_by_a_full_view_and_a_high_one_is_not() {
    let mut core = full();
    let actions = core.receive(50, Message::Neighbor { link: 8, priority: Priority::Low });
    assert!(matches!(sent(&actions)[..], [(50, Message::NeighborReply { link: 8, accepted: false, .. })]));
    let actions = core.receive(50, Message::Neighbor { link: 9, priority: Priority::High });
    assert!(matches!(changes(&actions)[..], [Action::NeighborDown(_, DownReason::Evicted), Action::NeighborUp(50)]));
}

#[test]
fn a_high_priority_has_a_rate_for_each_peer_and_for_all() {
    let mut core = full();
    let high = |link| Message::Neighbor { link, priority: Priority::High };
    core.receive(50, high(1));
    let link = core.state.link_of(50).unwrap();
    core.receive(50, Message::Disconnect { link, reason: Farewell::NoLink, peers: Peers::new() });
    core.receive(60, Message::Neighbor { link: 1, priority: Priority::Low });
    assert_eq!(core.state.neighbors().len(), 6);
    assert_eq!(changes(&core.receive(50, high(2))), [], "it comes back for another neighbor of ours too soon");
    let evictions = (1_000..1_100).filter(|peer| !changes(&core.receive(*peer, high(1))).is_empty()).count();
    assert_eq!(evictions, 3, "four per second, one of them spent");
    core.pass(Duration::from_millis(250));
    assert_eq!((2_000..2_100).filter(|peer| !changes(&core.receive(*peer, high(1))).is_empty()).count(), 1);
}

#[test]
fn a_lost_neighbor_is_replaced_at_once_and_a_refusal_asks_the_next() {
    let mut core = full();
    (50..60).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    let actions = core.input(Input::Unreachable(2));
    assert_eq!(changes(&actions), [Action::NeighborDown(2, DownReason::Disconnected)]);
    assert!(!core.passive().contains(&2));
    let [(first, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    let actions = core.receive(first, reply(link, false));
    let [(second, link, Priority::Low)] = requests(&actions)[..] else { panic!("{actions:?}") };
    assert_ne!(first, second);
    assert_eq!(changes(&core.receive(second, reply(link, true))), [Action::NeighborUp(second)]);
    // Who refused is remembered and left alone for a while.
    let actions = core.input(Input::MemberDown(3));
    assert_eq!(changes(&actions), [Action::NeighborDown(3, DownReason::Failed)]);
    let asked: Vec<u32> = std::iter::successors(requests(&actions).first().copied(), |(peer, link, _)| {
        requests(&core.receive(*peer, reply(*link, false))).first().copied()
    })
    .map(|(peer, ..)| peer)
    .collect();
    assert!(asked.len() == 8 && !asked.contains(&first), "{asked:?} within the budget of eight");
}

#[test]
fn several_slots_are_filled_in_parallel_within_bounds() {
    let mut core = full();
    (50..80).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    for lost in 1..6 {
        core.input(Input::Unreachable(lost));
        assert!(core.state.kept() <= 4);
    }
    assert_eq!(core.state.kept(), 4);
}

#[test]
fn without_neighbors_the_priority_is_high() {
    let mut core = Core::with_neighbors(Config::default(), &[1]);
    (50..60).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    let actions = core.input(Input::Unreachable(1));
    assert_eq!(requests(&actions).into_iter().map(|(.., priority)| priority).collect::<Vec<_>>(), [Priority::High; 2]);
}

#[test]
fn crossed_requests_make_one_link() {
    // Ours to a larger name counts.
    let mut core = Core::with_neighbors(Config::default(), &[1]);
    let [(200, ours, _)] = requests(&core.input(Input::MemberUp(200)))[..] else { panic!() };
    assert_eq!(core.receive(200, Message::Neighbor { link: 7, priority: Priority::Low }), []);
    core.receive(200, reply(ours, true));
    assert_eq!(core.state.link_of(200), Some(ours));
    // That of a smaller name counts against ours.
    let [(20, ours, _)] = requests(&core.input(Input::MemberUp(20)))[..] else { panic!() };
    let actions = core.receive(20, Message::Neighbor { link: 7, priority: Priority::Low });
    assert_eq!(changes(&actions), [Action::NeighborUp(20)]);
    assert_eq!(core.state.link_of(20), Some(7));
    assert_eq!(core.receive(20, reply(ours, false)), []);
}

#[test]
fn an_answer_that_comes_too_late_ends_the_link() {
    let mut core = Core::with_neighbors(Config::default(), &[1]);
    let [(50, link, _)] = requests(&core.input(Input::MemberUp(50)))[..] else { panic!() };
    core.pass(Duration::from_secs(3));
    assert_eq!(core.state.counters().timeouts, 1);
    assert!(!core.passive().contains(&50), "who does not answer is forgotten");
    assert_eq!(sent(&core.receive(50, reply(link, true))), [(50, no_link(link))]);
    assert_eq!(core.state.neighbors(), [1]);
}

#[test]
fn a_late_farewell_does_not_touch_the_newer_link() {
    let mut core = full();
    let actions = core.receive(3, Message::Neighbor { link: 33, priority: Priority::Low });
    // It asks again, so it has lost the first link, and whoever tracks neighbors starts over with it.
    assert_eq!(changes(&actions), [Action::NeighborDown(3, DownReason::Disconnected), Action::NeighborUp(3)]);
    assert_eq!(core.receive(3, Message::Disconnect { link: 3, reason: Farewell::Evicted, peers: peers([77]) }), []);
    assert!(!core.passive().contains(&77));
    // The same request twice changes nothing.
    assert_eq!(changes(&core.receive(3, Message::Neighbor { link: 33, priority: Priority::Low })), []);
}

#[test]
fn one_way_links_are_found_by_checks() {
    let mut core = full();
    let checks = sent(&core.pass(Duration::from_secs(5)));
    for peer in 1..=6 {
        assert!(checks.contains(&(peer, Message::Alive { link: peer })));
    }
    assert_eq!(core.receive(3, Message::Alive { link: 3 }), []);
    assert_eq!(sent(&core.receive(50, Message::Alive { link: 5 })), [(50, no_link(5))]);
    assert_eq!(sent(&core.receive(3, Message::Alive { link: 4 })), [(3, no_link(4))], "another link than the one we hold");
    let actions = core.receive(3, no_link(3));
    assert_eq!(changes(&actions), [Action::NeighborDown(3, DownReason::Disconnected)]);
}

#[test]
fn a_check_stands_for_an_answer_that_was_lost() {
    let mut core = Core::with_neighbors(Config::default(), &[1]);
    let [(50, link, _)] = requests(&core.input(Input::MemberUp(50)))[..] else { panic!() };
    assert_eq!(changes(&core.receive(50, Message::Alive { link })), [Action::NeighborUp(50)]);
}

#[test]
fn leaving_is_told_and_final() {
    let mut core = Core::with_neighbors(Config::default(), &[1, 2]);
    let actions = core.input(Input::Leave);
    assert_eq!(changes(&actions), [1, 2].map(|peer| Action::NeighborDown(peer, DownReason::Leaving)));
    assert_eq!(sent(&actions).len(), 2);
    assert!(
        sent(&actions)
            .iter()
            .all(|(to, message)| matches!(message, Message::Disconnect { link, reason: Farewell::Leaving, .. } if link == to))
    );
    assert_eq!(core.state.next_deadline(), None);
    core.input(Input::MemberUp(9));
    let actions = core.receive(3, Message::Join { link: 4 });
    assert_eq!(sent(&actions), [(3, Message::Disconnect { link: 4, reason: Farewell::Leaving, peers: Peers::new() })]);
    assert_eq!(core.pass(Duration::from_secs(100)), []);
    // Unless it is asked back.
    assert!(matches!(sent(&core.input(Input::Join { contact: 1 }))[..], [(1, Message::Join { .. })]));
}

#[test]
fn who_leaves_is_no_candidate() {
    let mut core = full();
    let actions = core.receive(3, Message::Disconnect { link: 3, reason: Farewell::Leaving, peers: peers([50]) });
    assert_eq!(changes(&actions), [Action::NeighborDown(3, DownReason::Left)]);
    assert_eq!(core.passive(), [50]);
}

#[test]
fn an_unfilled_view_is_retried_more_and_more_rarely() {
    let mut core = Core::with_neighbors(Config::default(), &[1, 2, 3]);
    let walks =
        |actions: Vec<Action<u32>>| sent(&actions).iter().filter(|(_, m)| matches!(m, Message::ForwardJoin { joiner: ME, .. })).count();
    let early = walks(core.pass(Duration::from_secs(10)));
    let late = walks(core.pass(Duration::from_secs(100)));
    assert!((2..=8).contains(&early) && (8..=14).contains(&late), "{early} walks, then {late}");
}

// ---- Isolation and partitions ----

#[test]
fn contacts_are_tried_for_ever_with_a_growing_wait() {
    let mut core = Core::new(Config::default());
    core.input(Input::Join { contact: 1 });
    core.input(Input::Join { contact: 2 });
    let mut joins = Vec::new();
    let start = core.now;
    core.input(Input::Unreachable(1));
    core.input(Input::Unreachable(2));
    while core.now.since(start) < Duration::from_secs(600) {
        let actions = core.pass(Duration::from_millis(100));
        for (to, message) in sent(&actions) {
            if matches!(message, Message::Join { .. }) {
                joins.push((core.now, to));
                core.input(Input::Unreachable(to));
            }
        }
    }
    assert!((15..80).contains(&joins.len()), "{} joins in 10 minutes", joins.len());
    assert!([1, 2].iter().all(|contact| joins.iter().any(|(_, to)| to == contact)), "both in turn");
    let last = joins[joins.len() - 1].0;
    assert!(core.now.since(last) < Duration::from_secs(40));
}

#[test]
fn peers_that_come_back_are_linked_though_views_are_full() {
    let mut core = full();
    let mut asked = Vec::new();
    for peer in 50..100 {
        asked.extend(requests(&core.input(Input::MemberBack(peer))));
    }
    assert_eq!(asked, [], "a healed partition makes no burst");
    asked.extend(requests(&core.pass(Duration::from_secs(2))));
    assert_eq!(asked.len(), 2, "one each second");
    assert!(asked.iter().all(|(.., priority)| *priority == Priority::Heal));
    let (peer, link, _) = asked[0];
    let actions = core.receive(peer, reply(link, true));
    assert!(matches!(changes(&actions)[..], [Action::NeighborDown(_, DownReason::Evicted), Action::NeighborUp(up)] if up == peer));
    assert_eq!(core.state.counters().healed, 1);
    assert_eq!(requests(&core.pass(Duration::from_secs(8))), [], "and few for each node");
    // The other side: accepted by a full view, at a rate.
    let heal = Message::Neighbor { link: 1, priority: Priority::Heal };
    assert_eq!((200..300).filter(|peer| !changes(&core.receive(*peer, heal.clone())).is_empty()).count(), 2);
}

// ---- The passive view (section 4.5) ----

#[test]
fn a_shuffle_carries_neighbors_and_passive_peers() {
    let mut core = full();
    (50..60).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    let shuffles = |actions: &[Action<u32>]| {
        let shuffles = sent(actions).into_iter().filter_map(|(to, message)| match message {
            Message::Shuffle { origin: ME, nonce, ttl: 6, peers } => Some((to, nonce, peers)),
            _ => None,
        });
        shuffles.collect::<Vec<_>>()
    };
    let shuffles = shuffles(&core.pass(Duration::from_secs(11)));
    let [(to, nonce, list)] = &shuffles[..] else { panic!("{shuffles:?}") };
    assert_eq!((list.iter().filter(|peer| **peer < 10).count(), list.iter().filter(|peer| **peer >= 50).count()), (3, 4));
    assert!(!list.contains(to));
    // The answer is taken once.
    let answer = Message::ShuffleReply { nonce: *nonce, peers: peers([70, 71]) };
    assert_eq!(core.receive(80, answer.clone()), []);
    assert!(core.passive().contains(&70) && core.passive().contains(&71));
    assert_eq!(core.receive(80, answer), []);
    assert_eq!(core.state.counters().unasked, 1);
}

#[test]
fn what_was_given_makes_room_first() {
    let config = Config { passive_len_max: 6, shuffle_passive_len: 3, ..Config::default() };
    let mut core = Core::with_neighbors(config, &[1, 2, 3, 4, 5, 6]);
    (50..56).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    let actions = core.pass(Duration::from_secs(11));
    let (nonce, given) = sent(&actions)
        .into_iter()
        .find_map(|(_, message)| match message {
            Message::Shuffle { nonce, peers, .. } => Some((nonce, peers.into_vec())),
            _ => None,
        })
        .unwrap();
    core.receive(80, Message::ShuffleReply { nonce, peers: peers([70, 71, 72]) });
    let kept = (50..56).filter(|peer| !given.contains(peer));
    assert_eq!(core.passive(), kept.chain([70, 71, 72]).collect::<Vec<_>>());
}

#[test]
fn a_shuffle_walks_and_its_end_gives_as_many_as_it_got() {
    let mut core = full();
    (50..60).for_each(|peer| drop(core.input(Input::MemberUp(peer))));
    let shuffle = |ttl| Message::Shuffle { origin: 90, nonce: 4, ttl, peers: peers([1, 91, ME]) };
    let actions = core.receive(1, shuffle(2));
    let [(next, Message::Shuffle { origin: 90, nonce: 4, ttl: 1, .. })] = &sent(&actions)[..] else { panic!("{actions:?}") };
    assert_ne!(*next, 1);
    let actions = core.receive(1, shuffle(1));
    let [(90, Message::ShuffleReply { nonce: 4, peers })] = &sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(peers.len(), 4, "three and the origin");
    assert!(core.passive().contains(&90) && core.passive().contains(&91));
    assert!(!core.passive().contains(&1) && !core.passive().contains(&ME));
}

// ---- Hostile peers ----

#[test]
fn broken_rules_are_reported_and_change_nothing() {
    let mut core = full();
    let many = Peers::first_of(50..59);
    for (message, what) in [
        (Message::ForwardJoin { joiner: ME, ttl: 1, missing: 1 }, Misbehavior::OwnName),
        (Message::Shuffle { origin: ME, nonce: 1, ttl: 1, peers: Peers::new() }, Misbehavior::OwnName),
        (Message::Shuffle { origin: 8, nonce: 1, ttl: 1, peers: peers([8]) }, Misbehavior::OwnName),
        (Message::NeighborReply { link: 1, accepted: false, peers: peers([1]) }, Misbehavior::OwnName),
        (Message::Disconnect { link: 1, reason: Farewell::Evicted, peers: peers([ME]) }, Misbehavior::OwnName),
        (Message::ShuffleReply { nonce: 1, peers: peers([ME]) }, Misbehavior::OwnName),
        (Message::NeighborReply { link: 1, accepted: false, peers: many.clone() }, Misbehavior::TooMany),
        (Message::Disconnect { link: 1, reason: Farewell::Evicted, peers: many }, Misbehavior::TooMany),
    ] {
        assert_eq!(core.receive(1, message.clone()), [Action::Misbehaved { peer: 1, what }], "{message:?}");
    }
    let foreign = TopologyMessage::Mesh(crate::mesh::Message::Link { mine: 1, yours: None });
    let actions = core.input(Input::Received { from: 1, message: foreign });
    assert_eq!(actions, [Action::Misbehaved { peer: 1, what: Misbehavior::WrongTopology }]);
    assert_eq!(core.receive(ME, Message::Join { link: 1 }), [Action::Misbehaved { peer: ME, what: Misbehavior::OwnName }]);
    assert_eq!(core.state.neighbors(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(core.passive(), []);
}

#[test]
fn a_walk_cannot_be_made_longer_than_ours() {
    let mut core = full();
    let actions = core.receive(1, Message::ForwardJoin { joiner: 50, ttl: 255, missing: 255 });
    assert!(matches!(sent(&actions)[..], [(_, Message::ForwardJoin { ttl: 5, missing: 32, .. })]));
    let actions = core.receive(1, Message::Shuffle { origin: 50, nonce: 1, ttl: 255, peers: Peers::new() });
    assert!(matches!(sent(&actions)[..], [(_, Message::Shuffle { ttl: 5, .. })]));
}

#[test]
fn no_flood_makes_the_node_remember_more() {
    let mut core = full();
    for peer in 1_000..20_000 {
        core.receive(peer, Message::Join { link: peer });
        core.receive(peer, Message::Neighbor { link: peer, priority: Priority::Heal });
        core.input(Input::MemberBack(peer));
        core.receive(1, Message::Shuffle { origin: peer, nonce: 1, ttl: 0, peers: Peers::first_of(peer + 1..peer + 17) });
    }
    assert_eq!(core.state.passive.len(), 30);
    let aside = core.state.aside();
    assert!(aside.storm.len() < 4_096 && aside.returned.len() <= 16);
    assert!(core.state.favored.len() <= 16);
    assert!(core.state.contacts.len() <= 8 && core.state.acquaintances.len() <= 8);
    assert!(core.state.requests.len() <= 8 + 6, "{}", core.state.requests.len());
    assert!(core.state.counters().evictions <= 6);
}

#[test]
fn any_sequence_of_inputs_keeps_the_invariants() {
    let odd = [
        Config::default(),
        Config { active_len_max: 1, active_len_min: 1, passive_len_max: 1, active_walk_len: 1, passive_walk_len: 0, ..Config::default() },
        Config { active_len_max: 2, active_len_min: 1, passive_len_max: 3, storm_len_max: 1, joins_per_second: 1, ..Config::local() },
        Config {
            active_len_max: 32,
            shuffle_active_len: 16,
            shuffle_passive_len: 0,
            evictions_per_second: 1_000,
            heal_links: 32,
            ..Config::wan()
        },
        Config::paper(),
    ];
    // And every improvement on its own, which has to do without it.
    let lacking = Improvement::ALL.iter().map(|improvement| (4_000, Config { without: vec![*improvement], ..Config::default() }));
    for (seed, (inputs, config)) in odd.into_iter().map(|config| (20_000, config)).chain(lacking).enumerate() {
        let mut random = generator(seed as u64, "test", 0);
        let mut core = Core::new(config);
        core.state.me = 5;
        let mut up = Vec::new();
        // Numbers that were seen, so that some answers match.
        let mut links = vec![0_u32; 64];
        for _ in 0..inputs {
            let mut peer = || random.random_range(0..16_u32);
            let (from, other) = (peer(), peer());
            let list = Peers::first_of((0..peer()).map(|_| peer()).collect::<Vec<_>>());
            let link = links[random.random_range(0..links.len())];
            let (ttl, flag) = (random.random_range(0..8), random.random_bool(0.5));
            let message = match random.random_range(0..11) {
                0 => Message::Join { link },
                1 => Message::ForwardJoin { joiner: other, ttl, missing: ttl },
                2 => Message::Neighbor { link, priority: [Priority::Low, Priority::High, Priority::Heal][usize::from(ttl % 3)] },
                3 => Message::NeighborReply { link, accepted: flag, peers: list },
                4 => Message::Disconnect {
                    link,
                    reason: [Farewell::Evicted, Farewell::Leaving, Farewell::NoLink, Farewell::Swapped][usize::from(ttl % 4)],
                    peers: list,
                },
                5 => Message::Shuffle { origin: other, nonce: link, ttl, peers: list },
                6 => Message::ShuffleReply { nonce: link, peers: list },
                7 => Message::Probe { nonce: link },
                8 => Message::ProbeReply { nonce: link, token: link },
                9 => Message::Swap { link, token: link, old: other, others: list },
                _ => Message::Alive { link },
            };
            let actions = match random.random_range(0..40) {
                0 => core.input(Input::Join { contact: other }),
                1 => core.input(Input::Unreachable(other)),
                2 => core.input(Input::MemberUp(other)),
                3 => core.input(Input::MemberBack(other)),
                4 => core.input(Input::MemberDown(other)),
                5 if random.random_bool(0.05) => core.input(Input::Leave),
                10 => core.input(Input::Carrying(vec![from, other])),
                6..=9 => core.pass(Duration::from_millis(random.random_range(0..2_000))),
                _ => core.receive(from, message),
            };
            for action in actions {
                match action {
                    Action::NeighborUp(peer) => up.push(peer),
                    Action::NeighborDown(peer, _) => {
                        let index = up.iter().position(|known| *known == peer).expect("down comes after up");
                        up.swap_remove(index);
                    }
                    Action::Send { to, message } => {
                        assert_ne!(to, 5);
                        if let TopologyMessage::Hyparview(
                            Message::Join { link }
                            | Message::Neighbor { link, .. }
                            | Message::Alive { link }
                            | Message::Probe { nonce: link }
                            | Message::Swap { link, .. }
                            | Message::Shuffle { nonce: link, .. },
                        ) = message
                        {
                            let index = random.random_range(0..links.len());
                            links[index] = link;
                        }
                    }
                    Action::Misbehaved { .. } => {}
                }
            }
            up.sort_unstable();
            assert_eq!(up, core.state.neighbors());
        }
    }
}

#[test]
fn a_closed_group_asks_beyond_itself() {
    let mut core = full();
    core.input(Input::MemberUp(200));
    assert!(core.passive().contains(&200));
    let shuffle = |origin: u32, nonce| Message::Shuffle { origin, nonce, ttl: 1, peers: Peers::new() };
    for nonce in 0..16 {
        core.receive(1, shuffle(1 + nonce % 3, nonce));
    }
    let asked = core.pass(Duration::from_secs(60));
    let heals = |actions: &[Action<u32>]| {
        actions
            .iter()
            .filter(|action| {
                matches!(
                    action,
                    Action::Send { message: TopologyMessage::Hyparview(Message::Neighbor { priority: Priority::Heal, .. }), .. }
                )
            })
            .count()
    };
    assert!(heals(&asked) > 0, "three origins in sixteen shuffles");

    let mut core = full();
    core.input(Input::MemberUp(200));
    for nonce in 0..16 {
        core.receive(1, shuffle(1_000 + nonce, nonce));
    }
    assert_eq!(heals(&core.pass(Duration::from_secs(60))), 0, "shuffles come from everywhere");
}
