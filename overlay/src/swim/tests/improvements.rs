//! What the adapter adds to SWIM, each with and without: where the overlay and the driver would hide what is missing, the core is alone here.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::*;

/// What a run gives with all improvements, and without one.
fn with_and_without<T>(improvement: Improvement, run: impl Fn(Config) -> T) -> (T, T) {
    (run(without(&[])), run(without(&[improvement])))
}

/// The same for what has little to do unless loss makes many suspect.
fn with_and_without_among_suspects<T>(improvement: Improvement, run: impl Fn(Config) -> T) -> (T, T) {
    (run(without(&[Improvement::StreamPing])), run(without(&[Improvement::StreamPing, improvement])))
}

#[test]
fn each_has_the_name_that_files_have() {
    for improvement in Improvement::ALL {
        let name: StrDeserializer<'_, ValueError> = improvement.name().into_deserializer();
        assert_eq!(Improvement::deserialize(name).unwrap(), *improvement);
    }
}

#[test]
fn without_the_filter_a_suspicion_that_was_refuted_kills() {
    let (with, without) = with_and_without_among_suspects(Improvement::TimerFilter, |config| {
        let mut net = Network::formed_with(5, 1, config);
        net.loss = 0.3;
        net.run(secs(60));
        let refuted: u64 = net.hosts.values().map(|host| host.state.counters().suspicions_refuted).sum();
        assert!(refuted > 0, "some suspicion was refuted");
        net.renewals()
    });
    assert!(with == 0 && without > 0, "{with} {without}");
}

#[test]
fn without_the_buddy_ping_loss_alone_kills() {
    let (with, without) = with_and_without_among_suspects(Improvement::BuddyPing, |config| {
        let mut net = Network::formed_with(30, 1, config);
        net.loss = 0.4;
        net.run(secs(180));
        net.failures().len()
    });
    assert!(with == 0 && without > 0, "{with} {without}");
}

/// The overlay heals partitions too, by the peers that it remembers; here is only the membership. In large clusters somebody greets the dead soon however seldom each does.
#[test]
fn without_greetings_to_the_dead_a_partition_heals_late() {
    let (with, without) = with_and_without(Improvement::HealAnnounce, |config| {
        let heal = |seed| {
            let mut net = Network::formed_with(4, seed, config.clone());
            net.sides = (0..4).map(|peer| (peer, u8::from(peer < 2))).collect();
            net.run(secs(60));
            assert_eq!(net.failures().len(), 8, "both sides noticed");
            net.sides.clear();
            net.run_until_complete(secs(200)).expect("it heals")
        };
        (0..6).map(heal).max()
    });
    assert!(with <= Some(secs(6)) && without >= Some(secs(15)), "{with:?} {without:?}");
}

#[test]
fn without_allowing_for_lateness_who_froze_accuses() {
    let (with, without) = with_and_without(Improvement::LocalHealth, |config| {
        let mut accused = 0;
        for seed in 0..8 {
            let mut net = Network::formed_with(10, seed, config.clone());
            for _ in 0..5 {
                net.freeze(2, secs(2));
                net.run(secs(3));
            }
            accused += net.events.iter().filter(|(_, by, event)| *by == 2 && matches!(event, Event::Suspected(of) if of.peer != 2)).count();
        }
        accused
    });
    assert!(with < without, "{with} {without}");
}

#[test]
fn without_damping_a_member_that_freezes_for_long_flaps_on() {
    let (with, without) = with_and_without(Improvement::FlapDamping, |config| {
        let mut net = Network::formed_with(10, 1, config);
        for _ in 0..20 {
            net.freeze(2, secs(8));
            net.run(ms(8_500));
        }
        net.failures().len()
    });
    assert!(without > 2 * with && with > 0, "{with} {without}");
}

/// Comparing tables repairs what gossip misses, so it is put off here.
#[test]
fn without_following_the_size_gossip_misses_some() {
    let (with, without) = with_and_without(Improvement::SizeFollowing, |config| {
        let mut missed = 0;
        for seed in 0..6 {
            let mut net = Network::formed_with(60, seed, config.clone());
            let hour = Config { exchange_interval: secs(3_600), ..config.clone() }.build().unwrap();
            net.hosts.values_mut().for_each(|host| {
                host.state.params = hour.clone();
                host.state.timers.cancel(&Key::Exchange);
            });
            net.crash(7, false);
            net.run(secs(13));
            missed += 59 - net.failures().len();
        }
        missed
    });
    assert!(with == 0 && without > 0, "{with} {without}");
}

#[test]
fn without_checking_verdicts_the_sides_of_a_partition_bury_each_other_again() {
    let (with, without) = with_and_without(Improvement::CheckedVerdicts, |config| {
        let mut net = Network::formed_with(40, 1, config);
        net.sides = (0..40).map(|peer| (peer, u8::from(peer < 20))).collect();
        net.run(secs(60));
        net.events.clear();
        net.sides.clear();
        net.run(secs(30));
        net.failures().len()
    });
    assert!(without > 2 * with, "{with} {without}");
}

#[test]
fn without_yielding_one_that_was_cut_off_makes_all_others_renew() {
    let (with, without) = with_and_without(Improvement::MinorityYield, |config| {
        let mut net = Network::formed_with(10, 1, config);
        net.sides = (0..10).map(|peer| (peer, u8::from(peer == 3))).collect();
        net.run(secs(60));
        net.sides.clear();
        net.run(secs(30));
        assert!(net.is_complete());
        net.renewals()
    });
    assert!(with == 1 && without > 3, "{with} {without}");
}

#[test]
fn without_the_alarm_those_that_crash_together_are_found_one_by_one() {
    let (with, without) = with_and_without(Improvement::Alarm, |config| {
        let mut slowest = Duration::ZERO;
        for seed in 0..4 {
            let mut net = Network::formed_with(60, seed, config.clone());
            let start = net.now;
            (1..7).for_each(|peer| net.crash(peer, false));
            net.run(secs(20));
            slowest = (1..7).map(|peer| last_report(&net, start, has_failed(peer), 54)).max().unwrap().max(slowest);
        }
        slowest
    });
    assert!(with + secs(1) < without, "{with:?} {without:?}");
}

#[test]
fn without_settling_each_failure_is_a_size_of_its_own() {
    let (with, without) = with_and_without(Improvement::Settling, |config| {
        let mut net = Network::formed_with(60, 1, config);
        (1..7).for_each(|peer| net.crash(peer, false));
        net.run(secs(20));
        let mut moments: Vec<Time> = net.failures().into_iter().filter(|(_, by, _)| *by == 0).map(|(at, ..)| at).collect();
        assert_eq!(moments.len(), 6);
        moments.dedup();
        moments.len()
    });
    assert!(with <= 4 && with < without, "{with} {without}");
}

#[test]
fn without_random_phases_nodes_that_start_together_probe_together() {
    let (with, without) = with_and_without(Improvement::RandomPhase, |config| {
        let net = Network::formed_with(60, 1, config);
        let from = net.now;
        let mut net = net;
        net.datagrams.clear();
        net.run(secs(10));
        let bucket = |at: &Time| at.since(from).as_millis() / 100 % 10;
        // Of the tenths of all seconds, the one in which most is sent.
        (0..10).map(|tenth| net.datagrams.iter().filter(|at| bucket(at) == tenth).count()).max().unwrap() * 100 / net.datagrams.len()
    });
    assert!(with <= 25 && without >= 40, "{with} % and {without} % of the datagrams in a tenth of the time");
}

#[test]
fn without_pings_over_streams_loss_makes_many_suspect() {
    let (with, without) = with_and_without(Improvement::StreamPing, |config| {
        let mut net = Network::formed_with(30, 1, config);
        net.loss = 0.3;
        net.run(secs(60));
        net.hosts.values().map(|host| host.state.counters().suspicions).sum::<u64>()
    });
    assert!(with * 10 < without, "{with} {without}");
}
