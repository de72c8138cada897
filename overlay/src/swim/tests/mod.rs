//! The core by hand and in a small network, in virtual time.

mod hostile;
mod improvements;
mod network;
mod upstream;

use network::{Network, address, ms, secs};

use super::renewal::OF_LATE;
use super::*;

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// Everything that foca holds is in the view, as it is there, and nothing else that is settled.
    fn audit(&self) {
        let mut held = 0;
        for update in self.detector.members() {
            let entry = self.view.entry(update.id().peer).expect("foca holds nobody that the view does not");
            assert_eq!(&entry.update(), update);
            held += 1;
        }
        assert_eq!(held, self.view.entries().iter().filter(|entry| entry.is_settled).count());
        assert!(self.view.entries().is_sorted_by_key(|entry| entry.member.peer));
        assert_eq!(self.view.up().count(), self.view.up_len());
        assert_eq!(self.view.up().filter(|member| member.status == Status::Suspect).count(), self.view.suspects_len());
    }
}

/// The default without some of the improvements.
fn without(improvements: &[Improvement]) -> Config {
    Config { without: improvements.to_vec(), ..Config::default() }
}

/// When the last of the others reported what `is` finds, counted from `start`.
fn last_report(net: &Network, start: Time, is: impl Fn(&Event<u32>) -> bool, reporters: usize) -> Duration {
    let mut by: Vec<(u32, Time)> = net.events.iter().filter(|(_, _, event)| is(event)).map(|(at, by, _)| (*by, *at)).collect();
    by.sort();
    by.dedup_by_key(|(by, _)| *by);
    assert_eq!(by.len(), reporters, "everybody reports it");
    by.iter().map(|(_, at)| at.since(start)).max().unwrap()
}

fn has_failed(peer: u32) -> impl Fn(&Event<u32>) -> bool {
    move |event| matches!(event, Event::Failed(member) if member.peer == peer)
}

#[test]
fn two_nodes_meet() {
    let mut net = Network::new(1);
    net.start(0, 7);
    net.start(1, 8);
    net.connect(1, 0);
    net.run(ms(20));
    assert!(net.is_complete());
    assert!(matches!(&net.events[..], [(_, _, Event::Joined(_)), (_, _, Event::Joined(_))]));
    assert_eq!(net.hosts[&0].state.member(1).unwrap().generation, 8);
    net.run(secs(30));
    assert_eq!(net.events.len(), 2, "nothing else ever happens: {:?}", net.events);
    assert!(net.faults.is_empty());
}

#[test]
fn a_crash_among_five_is_found_by_all() {
    let mut slowest = Duration::ZERO;
    for seed in 0..12 {
        let mut net = Network::formed(5, seed);
        let start = net.now;
        net.crash(3, false);
        net.run(secs(12));
        slowest = slowest.max(last_report(&net, start, has_failed(3), 4));
        assert_eq!(net.failures().len(), 4, "only the dead failed");
        assert_eq!(net.renewals(), 0);
        net.audit();
    }
    assert!(slowest <= ms(8_500), "{slowest:?}");
    println!("slowest of 12: {slowest:?}");
}

#[test]
fn a_crash_with_broken_connections_is_found_sooner() {
    for seed in 0..4 {
        let mut net = Network::formed(5, seed);
        let start = net.now;
        net.crash(3, true);
        net.run(secs(10));
        let last = last_report(&net, start, has_failed(3), 4);
        assert!(last <= ms(3_500), "{last:?}");
        assert_eq!(net.failures().len(), 4);
    }
}

#[test]
fn a_broken_connection_kills_nobody() {
    let mut net = Network::formed(5, 1);
    for peer in 0..4 {
        net.disconnect(peer, 4);
    }
    net.run(secs(20));
    assert!(net.hosts[&0].state.links.contains_key(&4), "the question made a connection again");
    assert!(net.events.is_empty(), "{:?}", net.events);
}

#[test]
fn a_process_that_stood_still_for_two_seconds_is_no_failure() {
    let mut suspected = 0;
    for seed in 0..8 {
        let mut net = Network::formed(5, seed);
        net.freeze(2, secs(2));
        net.run(secs(15));
        suspected += net.events.iter().filter(|(_, _, event)| matches!(event, Event::Suspected(_))).count();
        assert!(net.failures().is_empty(), "{:?}", net.failures());
        assert_eq!(net.renewals(), 0);
        let accused: Vec<_> = net.events.iter().filter(|(_, by, event)| *by == 2 && matches!(event, Event::Suspected(_))).collect();
        assert!(accused.is_empty(), "who stood still accuses nobody: {accused:?}");
        assert!(net.is_complete());
        assert_eq!(net.hosts[&2].state.counters().freezes, 1);
    }
    assert!(suspected > 0, "the freeze was noticed in some run");
}

/// What has piled up comes before the deadline that is late. Were everything put off again with each of those inputs, a node that is slow for some seconds would probe nobody for minutes.
#[test]
fn lateness_is_allowed_for_once() {
    let mut net = Network::formed(5, 1);
    let state = &mut net.hosts.get_mut(&2).unwrap().state;
    let due = state.timers.get(&Key::Foca(Kind::ProbeRandomMember)).unwrap();
    let late = state.next_deadline().unwrap() + secs(1);
    let mut actions = Vec::new();
    for input in 0..200 {
        state.handle(Input::Disconnected(99), late + ms(input), &mut actions);
    }
    let put_off = state.timers.get(&Key::Foca(Kind::ProbeRandomMember)).unwrap().since(due);
    assert!((secs(1)..secs(2)).contains(&put_off), "{put_off:?}");
    assert_eq!(state.counters().freezes, 1);
}

#[test]
fn a_process_that_stood_still_for_long_comes_back() {
    let mut net = Network::formed(5, 3);
    net.freeze(2, secs(20));
    net.run(secs(19));
    assert_eq!(net.failures().len(), 4, "everybody else holds it for dead");
    let healed = net.run_until_complete(secs(10)).expect("it comes back");
    assert!(healed <= secs(7), "{healed:?}");
    let back = |event: &Event<u32>| matches!(event, Event::Recovered { member, was_down: true } if member.peer == 2);
    last_report(&net, Time::ZERO, back, 4);
    assert_eq!(net.failures().len(), 4, "nobody else failed for it");
    assert_eq!(net.renewals(), 1);
    net.run(secs(5));
    assert!(net.is_complete());
    net.audit();
}

#[test]
fn a_hundred_join_through_one() {
    let mut net = Network::new(5);
    for peer in 0..100 {
        net.run(ms(10));
        net.start(peer, 1);
        net.connect(peer, 0);
    }
    let took = net.run_until_complete(secs(10)).expect("all know all");
    assert!(took <= secs(2), "{took:?} after the last start, which was a second after the first");
    println!("complete {took:?} after the last start, {} KB in all", net.bytes / 1_000);
    assert!(net.events.iter().all(|(_, _, event)| matches!(event, Event::Joined(_))));

    // A newcomer among them.
    net.run(secs(6));
    net.events.clear();
    let start = net.now;
    net.start(100, 1);
    net.connect(100, 0);
    let took = net.run_until_complete(secs(5)).expect("all know it");
    assert!(took <= secs(1), "{took:?}");
    let knows = net.events.iter().filter(|(_, by, _)| *by == 100).map(|(at, _, _)| at.since(start)).max().unwrap();
    assert!(knows <= ms(200), "it knows all after {knows:?}");

    // A crash among them.
    net.run(secs(6));
    net.events.clear();
    let start = net.now;
    net.crash(40, false);
    net.run(secs(10));
    let last = last_report(&net, start, has_failed(40), 100);
    assert!(last <= secs(9), "{last:?}");
    assert_eq!(net.failures().len(), 100);

    // A departure.
    net.events.clear();
    let start = net.now;
    net.input(41, Input::Leave);
    net.crash(41, false);
    net.run(secs(1));
    let last = last_report(&net, start, |event| matches!(event, Event::Left(member) if member.peer == 41), 99);
    println!("left known after {last:?}");
    net.run(secs(20));
    assert!(net.failures().is_empty(), "who left did not fail");
    assert_eq!(net.renewals(), 0);
    net.audit();
}

#[test]
fn leaving_is_told_apart_from_failing_even_by_latecomers() {
    let mut net = Network::formed(5, 2);
    let mut actions = Vec::new();
    net.input(4, Input::Leave);
    net.hosts.get_mut(&4).unwrap().state.handle(Input::DeadlineReached, Time::MAX, &mut actions);
    assert!(actions.is_empty() && net.hosts[&4].state.next_deadline().is_none(), "who left is silent");
    net.crash(4, true);
    net.run(secs(1));
    last_report(&net, Time::ZERO, |event| matches!(event, Event::Left(member) if member.peer == 4), 4);
    net.start(5, 1);
    net.connect(5, 1);
    net.run(secs(10));
    assert_eq!(net.hosts[&5].state.member(4).unwrap().status, Status::Left);
    assert!(net.failures().is_empty());

    // The same peer comes back with a higher generation: it joins.
    net.events.clear();
    net.start(4, 2);
    net.connect(4, 5);
    assert!(net.run_until_complete(secs(3)).is_some());
    last_report(&net, Time::ZERO, |event| matches!(event, Event::Joined(member) if member.peer == 4 && member.generation == 2), 5);
}

#[test]
fn who_leaves_while_it_asks_for_a_sign_of_life_waits_for_none() {
    let mut net = Network::formed(5, 3);
    net.input(4, Input::Disconnected(1));
    assert_eq!(net.hosts[&4].state.hints.len(), 1, "it has asked");
    net.input(4, Input::Leave);
    net.input(4, Input::Disconnected(2));
    assert!(net.hosts[&4].state.hints.is_empty() && net.hosts[&4].state.next_deadline().is_none());
}

#[test]
fn a_restart_shows_its_new_generation_and_address() {
    let mut net = Network::formed(8, 4);
    let start = net.now;
    net.crash(3, false);
    net.start_at(3, 2, "10.9.9.9:99".parse().unwrap());
    net.connect(3, 0);
    net.run(secs(2));
    assert!(net.is_complete());
    let updated = |event: &Event<u32>| matches!(event, Event::Updated(member) if member.peer == 3 && member.generation == 2 && member.address.port() == 99);
    assert!(last_report(&net, start, updated, 7) <= secs(1));
    net.run(secs(20));
    assert!(net.failures().is_empty());
    assert_eq!(net.hosts[&0].state.view().len(), 7, "no ghost of the first run is left");
    net.audit();
}

#[test]
fn a_restart_with_a_clock_that_went_back_goes_above_its_past() {
    let mut net = Network::new(6);
    for peer in 0..5 {
        net.start(peer, 1_000);
        net.connect(peer, 0);
    }
    net.run(secs(8));
    net.crash(3, false);
    net.run(secs(15));
    assert_eq!(net.failures().len(), 4);
    net.start(3, 10);
    net.connect(3, 0);
    assert!(net.run_until_complete(secs(3)).is_some());
    assert_eq!(net.hosts[&3].state.generation(), 1_001);
    assert_eq!(net.hosts[&1].state.member(3).unwrap().generation, 1_001);
}

#[test]
fn a_partition_heals() {
    let mut net = Network::formed(40, 7);
    for peer in 0..40 {
        net.sides.insert(peer, u8::from(peer >= 20));
    }
    net.run(secs(60));
    for host in net.hosts.values() {
        assert_eq!(host.state.view().up_len(), 19, "each side holds the other for dead");
    }
    let renewed = net.renewals();
    net.events.clear();
    net.sides.clear();
    let took = net.run_until_complete(secs(20)).expect("it heals");
    println!("healed after {took:?}, {} failures reported meanwhile, {} renewals", net.failures().len(), net.renewals() - renewed);
    assert!(took <= secs(10), "{took:?}");
    net.run(secs(10));
    assert!(net.is_complete(), "and stays healed");
    net.audit();
}

#[test]
fn one_that_was_cut_off_does_not_kill_the_others_on_return() {
    let mut net = Network::formed(20, 8);
    net.sides.insert(7, 1);
    net.run(secs(60));
    assert_eq!(net.hosts[&7].state.view().up_len(), 0);
    assert_eq!(net.failures().len(), 19 + 19);
    net.events.clear();
    net.sides.clear();
    let took = net.run_until_complete(secs(20)).expect("it heals");
    println!("healed after {took:?}");
    assert!(took <= secs(8), "{took:?}");
    net.run(secs(10));
    assert!(net.failures().is_empty(), "{:?}", net.failures());
    assert_eq!(net.renewals(), 1, "only it goes on under a new generation");
}

#[test]
fn lost_datagrams_alone_kill_nobody() {
    let mut net = Network::formed_with(50, 9, without(&[Improvement::StreamPing]));
    net.loss = 0.1;
    net.run(secs(120));
    let suspicions: u64 = net.hosts.values().map(|host| host.state.counters().suspicions).sum();
    assert!(suspicions > 0, "there were suspicions");
    assert!(net.failures().is_empty(), "{:?}", net.failures());
    assert_eq!(net.renewals(), 0);
    assert!(net.faults.is_empty(), "{:?}", net.faults);
    net.audit();
}

#[test]
fn the_same_seed_runs_the_same() {
    let run = |seed| {
        let mut net = Network::formed(12, seed);
        net.loss = 0.2;
        net.crash(3, true);
        net.freeze(4, secs(7));
        net.run(secs(30));
        net.trace
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11), run(12));
}

#[test]
fn a_member_that_comes_back_again_and_again_is_suspected_for_longer() {
    let mut view = View::new();
    let mut events = Vec::new();
    let life = secs(3_600);
    let at = |generation| Identity { peer: 1_u32, generation, address: address(1) };
    for round in 0..4_u64 {
        view.take_over(&Update::new(at(round), 0, Verdict::Alive), life, Time::from_secs(round), &mut events);
        view.take_over(&Update::new(at(round), 0, Verdict::Down), life, Time::from_secs(round), &mut events);
    }
    let entry = view.entry(1).unwrap();
    assert_eq!(entry.flaps(OF_LATE, Time::from_secs(4)), 3);
    assert_eq!(entry.flaps(OF_LATE, Time::from_secs(4 + 600)), 2, "one step is forgotten after a quiet spell");
    assert_eq!(entry.flaps(OF_LATE, Time::from_secs(4 + 6_000)), 0);
    assert!(matches!(events[..3], [Event::Joined(_), Event::Failed(_), Event::Recovered { was_down: true, .. }]));
}

#[test]
fn tombstones_age_as_they_travel_and_are_buried() {
    let params = Config { tombstone_life: secs(600), ..Config::lan() }.build().unwrap();
    let mut net = Network::new(13);
    net.params = params;
    for peer in 0..4 {
        net.start(peer, 1);
        net.connect(peer, 0);
    }
    net.run(secs(8));
    net.crash(3, false);
    net.run(secs(200));
    net.start(4, 1);
    net.connect(4, 0);
    net.run(secs(5));
    assert_eq!(net.hosts[&4].state.member(3).unwrap().status, Status::Down, "a newcomer hears of the dead");
    net.run(secs(480));
    for host in net.hosts.values().filter(|host| host.is_up) {
        assert!(host.state.member(3).is_none(), "ten minutes after the death, the latecomer has forgotten it too");
    }
    net.audit();
}

/// After a cut it answers at once all that it was asked meanwhile; were each answer met with a question, we would ask more than it allows.
#[test]
fn the_dead_are_told_once_for_all_that_they_say_at_once() {
    let mut net = Network::formed(3, 1);
    let sender = net.hosts[&0].state.view.entry(2).unwrap().record(secs(3_600), net.now);
    net.crash(2, false);
    net.run(secs(60));
    let now = net.now;
    let state = &mut net.hosts.get_mut(&0).unwrap().state;
    assert_eq!(state.member(2).unwrap().status, Status::Down);
    let mut told = |at| {
        let mut actions = Vec::new();
        for _ in 0..20 {
            state.handle(Input::Received { from: 2, message: Message::Pong { sender } }, at, &mut actions);
        }
        let accusation = Message::Ping { accusation: Accusation::Dead { generation: sender.generation } };
        actions.iter().filter(|action| matches!(action, Action::Send { to: 2, message, .. } if *message == accusation)).count()
    };
    assert_eq!((told(now), told(now + ms(10)), told(now + secs(5))), (1, 0, 1));
}

#[test]
fn odd_but_legal_settings_work() {
    for config in [
        Config::wan(),
        Config::local(),
        Config::steady(),
        Config { gossip_fanout: 1, indirect_probes: 1, members_max: 16, ..Config::lan() },
    ] {
        let mut net = Network::new(14);
        net.params = config.clone().build().unwrap();
        for peer in 0..12 {
            net.start(peer, u64::from(peer));
            net.connect(peer, 0);
        }
        net.run(secs(20));
        assert!(net.is_complete(), "{config:?}");
        net.crash(5, false);
        net.run(2 * config.suspicion + 10 * config.probe_period);
        assert!(net.is_complete(), "{config:?}");
        assert!(net.failures().iter().all(|(_, _, peer)| *peer == 5));
    }
}

#[test]
fn settings_out_of_their_limits_are_refused_by_name() {
    let bad = [
        (Config { probe_period: ms(1), ..Config::lan() }, "probe_period"),
        (Config { probe_rtt: secs(1), ..Config::lan() }, "probe_rtt"),
        (Config { indirect_probes: 0, ..Config::lan() }, "indirect_probes"),
        (Config { suspicion: ms(1), ..Config::lan() }, "suspicion"),
        (Config { gossip_interval: Duration::ZERO, ..Config::lan() }, "gossip_interval"),
        (Config { gossip_fanout: 17, ..Config::lan() }, "gossip_fanout"),
        (Config { announce_to_down: Duration::ZERO, ..Config::lan() }, "announce_to_down"),
        (Config { exchange_interval: Duration::MAX, ..Config::lan() }, "exchange_interval"),
        (Config { tombstone_life: secs(1), ..Config::lan() }, "tombstone_life"),
        (Config { members_max: 0, ..Config::lan() }, "members_max"),
        (Config { renewals_per_minute_max: 0, ..Config::lan() }, "renewals_per_minute_max"),
    ];
    for (config, field) in bad {
        assert_eq!(config.build().unwrap_err().field, field);
    }
    let error = Config { probe_rtt: secs(1), ..Config::lan() }.build().unwrap_err();
    assert_eq!(error.to_string(), "probe_rtt is 1s, but must be below probe_period (1s)");
}

#[test]
fn processes_that_freeze_again_and_again_for_four_seconds_are_no_failures() {
    let mut net = Network::formed(16, 15);
    for round in 0..6 {
        for peer in (0..5).filter(|peer| (peer + round) % 3 == 0) {
            net.freeze(peer, secs(4));
        }
        net.run(ms(4_700));
    }
    net.run(secs(10));
    assert!(net.events.iter().any(|(_, _, event)| matches!(event, Event::Suspected(_))));
    assert!(net.failures().is_empty());
    assert_eq!(net.renewals(), 0);
}

/// Raise it for a longer look: 1,500 have passed.
const SWARM_SEEDS: u64 = 6;

/// Whatever happens, once it stops everybody agrees, nobody has accused anyone of breaking a rule, and events tell one story of each member.
#[test]
fn swarm() {
    use rand::RngExt;
    for seed in 0..SWARM_SEEDS {
        let mut random = generator(seed, "swarm", 0);
        let n = random.random_range(2..=14);
        let mut net = Network::formed(n, seed);
        let before = net.clone_views();
        let mut generations = vec![1_u64; n as usize];
        for _ in 0..random.random_range(3..=15) {
            let peer = random.random_range(0..n);
            let is_up = net.hosts[&peer].is_up;
            match random.random_range(0..8) {
                0 if is_up && net.up().len() > 2 => net.crash(peer, random.random_bool(0.5)),
                1 if !is_up || random.random_bool(0.2) => {
                    // Some restart with a clock that went back.
                    generations[peer as usize] += if random.random_bool(0.8) { 1_000 } else { 0 };
                    net.start(peer, generations[peer as usize]);
                    let seed = *net.up().iter().find(|up| **up != peer).unwrap();
                    net.connect(peer, seed);
                }
                2 if is_up => net.freeze(peer, ms(random.random_range(100..=15_000))),
                3 => net.sides = (0..n).map(|peer| (peer, u8::from(random.random_bool(0.5)))).collect(),
                4 => net.sides.clear(),
                5 => net.loss = random.random_range(0.0..0.5),
                6 => net.disconnect(peer, random.random_range(0..n)),
                _ => {}
            }
            net.run(ms(random.random_range(0..=12_000)));
        }
        net.sides.clear();
        net.loss = 0.0;
        // Discovery never ends, so whoever started while nobody could be reached finds somebody now.
        let first = net.up()[0];
        for peer in net.up() {
            net.connect(peer, first);
        }
        // A node that used up its renewals waits for a minute.
        net.run(secs(16));
        assert!(net.run_until_complete(secs(150)).is_some(), "seed {seed}");
        net.run(secs(20));
        assert!(net.is_complete(), "seed {seed}");
        net.audit();
        assert!(net.faults.is_empty(), "seed {seed}: {:?}", net.faults);
        net.check_stories(before);
    }
}
