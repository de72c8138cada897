//! What is measured of a network is what was configured.

use super::*;

const LINK: Link = Link { latency: 20_000, jitter: 5_000, loss: 0.2 };

#[test]
fn a_pair_keeps_its_latency_in_both_directions() {
    let network = Network::new(1, LINK);
    let latencies: Vec<u64> = (1..200).map(|node| network.latency(0, node)).collect();
    assert!(latencies.iter().all(|latency| (10_000..=30_000).contains(latency)));
    assert!(latencies.iter().max() > latencies.iter().min());
    assert_eq!(network.latency(3, 4), network.latency(4, 3));
}

#[test]
fn losses_drop_datagrams_and_delay_streams() {
    let mut network = Network::new(1, LINK);
    let lost = (0..10_000).filter(|sequence| network.datagram(1, 2, *sequence, 100, 0).is_none()).count();
    assert!((1_800..2_200).contains(&lost), "{lost} of 10,000 lost at 20 %");
    let latest = network.latency(1, 2) + LINK.jitter;
    let late = (0..10_000).filter(|sequence| network.stream(1, 2, *sequence, 0) > Fate::After(latest)).count();
    assert!((1_800..2_200).contains(&late), "{late} of 10,000 late at 20 %");
    network.calm();
    assert!((0..10_000).all(|sequence| network.datagram(1, 2, sequence, 100, 0).is_some()));
}

#[test]
fn a_long_silence_breaks_a_stream() {
    let mut network = Network::new(1, Link { loss: 0.999, ..LINK });
    assert!((0..100).any(|sequence| network.stream(1, 2, sequence, 0) == Fate::Breaks));
}

#[test]
fn a_cut_separates_its_side_until_it_heals() {
    let mut network = Network::new(1, Link { loss: 0.0, ..LINK });
    network.cut(Cut::new(4, &[vec![1, 2]], &[], false, 10, 20), 10);
    assert_eq!(network.cut_between(1, 3, 15), Some((10, 20)));
    assert_eq!(network.cut_between(1, 2, 15), None);
    assert!(network.datagram(0, 1, 0, 100, 19).is_none());
    assert!(network.datagram(0, 1, 0, 100, 20).is_some());
    assert_eq!(network.cut_between(1, 3, 20), None);
}

#[test]
fn cuts_have_groups_bridges_and_a_direction() {
    let parted = |cut: &Cut| -> Vec<(u32, u32)> {
        let pairs = (0..5).flat_map(|from| (0..5).map(move |to| (from, to)));
        pairs.filter(|(from, to)| cut.parts(*from, *to, 5)).collect()
    };
    let both = |pairs: &[(u32, u32)]| {
        let mut all: Vec<(u32, u32)> = pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        all.sort_unstable();
        all
    };
    let three = Cut::new(5, &[vec![0], vec![1, 2]], &[], false, 0, 10);
    assert_eq!(parted(&three), both(&[(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)]));
    let bridge = Cut::new(5, &[vec![0, 1]], &[2], false, 0, 10);
    assert_eq!(parted(&bridge), both(&[(0, 3), (0, 4), (1, 3), (1, 4)]));
    let one_way = Cut::new(5, &[vec![0], vec![1]], &[2, 3, 4], true, 0, 10);
    assert_eq!(parted(&one_way), [(0, 1)]);
    assert!(parted(&Cut::new(5, &[vec![0]], &[], false, 0, 5)).is_empty(), "it is over");
}

#[test]
fn a_clog_delays_what_a_cut_would_lose() {
    let mut network = Network::new(1, Link { loss: 0.0, jitter: 0, ..LINK });
    let latency = network.latency(0, 1);
    network.cut(Cut::clog(3, &[1], 0, 1_000_000), 0);
    assert_eq!(network.datagram(0, 1, 0, 100, 400_000), Some(600_000 + latency));
    assert_eq!(network.datagram(0, 2, 0, 100, 400_000), Some(network.latency(0, 2)));
    assert_eq!(network.cut_between(1, 0, 400_000), Some((0, 1_000_000)));
}

#[test]
fn weather_loses_and_delays_where_it_is_told_to() {
    let mut network = Network::new(1, Link { loss: 0.0, jitter: 0, ..LINK });
    network.worsen(Weather { until: 100, loss: 0.5, late: 70, nodes: vec![1] }, 0);
    let lost = (0..10_000).filter(|sequence| network.datagram(1, 2, *sequence, 100, 0).is_none()).count();
    assert!((4_700..5_300).contains(&lost), "{lost}");
    let latency = network.latency(2, 1);
    assert_eq!((0..50).find_map(|sequence| network.datagram(2, 1, sequence, 100, 99)), Some(latency + 70));
    let base = network.latency(2, 3);
    assert!((0..100).all(|sequence| network.datagram(2, 3, sequence, 100, 0) == Some(base)));
    assert!((0..100).all(|sequence| network.datagram(2, 1, sequence, 100, 100) == Some(latency)), "it is over");
    network.worsen(Weather { until: 100, loss: 0.2, late: 1, nodes: Vec::new() }, 0);
    network.calm();
    assert!((0..100).all(|sequence| network.stream(2, 1, sequence, 0) == Fate::After(latency)));
}

/// Latencies of 50,000 pairs of nodes that have nothing to do with one another, in microseconds, in both directions.
fn latencies(shape: Shape, link: Link) -> Vec<u64> {
    let network = Network::shaped(1, 0, link, shape);
    let mut latencies = Vec::new();
    for pair in 0..50_000 {
        let (there, back) = (network.latency(2 * pair, 2 * pair + 1), network.latency(2 * pair + 1, 2 * pair));
        assert_eq!(there, back, "pair {pair}");
        latencies.extend([there, back]);
    }
    latencies.sort_unstable();
    latencies
}

fn mean(values: &[u64]) -> f64 {
    values.iter().sum::<u64>() as f64 / values.len() as f64
}

fn near(what: &str, found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 0.02, "{what}: {found}, not {expected}");
}

fn of(model: Model) -> Shape {
    Shape { model, ..Shape::default() }
}

#[test]
fn ranges_are_even() {
    for (model, min, max) in [
        (Model::Pair, 10_000, 30_000),
        (Model::Lan, 100, 500),
        (Model::Uniform { min: 10_000, max: 50_000 }, 10_000, 50_000),
        (Model::Uniform { min: 700, max: 700 }, 700, 700),
    ] {
        let latencies = latencies(of(model), LINK);
        assert!(latencies[0] >= min && latencies[99_999] <= max, "{model:?}");
        near("mean", mean(&latencies), (min + max) as f64 / 2.0);
        for percent in [10, 50, 90] {
            near("quantile", latencies[percent * 1_000] as f64, min as f64 + (max - min) as f64 * percent as f64 / 100.0);
        }
    }
}

#[test]
fn log_normal_latencies_have_the_median_and_the_spread() {
    for spread in [0.25_f64, 0.5, 1.0] {
        let latencies = latencies(of(Model::LogNormal { spread }), LINK);
        for (percent, deviations) in [(10, -1.281_552), (25, -0.674_490), (50, 0.0), (75, 0.674_490), (90, 1.281_552_f64)] {
            near("quantile", latencies[percent * 1_000] as f64, 20_000.0 * (spread * deviations).exp());
        }
    }
}

#[test]
fn a_square_has_its_mean_distance() {
    // The mean distance of two points of a square is 0.521405 of its side.
    let link = Link { latency: 100_000, ..LINK };
    near("mean", mean(&latencies(of(Model::Euclid { access: 0 }), link)), 52_140.5);
    near("with access", mean(&latencies(of(Model::Euclid { access: 3_000 }), link)), 58_140.5);
}

#[test]
fn places_are_as_far_apart_as_their_ways() {
    let expected = |weights: &[u64], way: &dyn Fn(usize, usize) -> u64| {
        let all: u64 = weights.iter().sum();
        let pairs = (0..weights.len()).flat_map(|a| (0..weights.len()).map(move |b| (a, b)));
        pairs.map(|(a, b)| (weights[a] * weights[b] * way(a, b)) as f64).sum::<f64>() / (all * all) as f64
    };
    let cities = earth::Earth::new(1);
    let people: Vec<u64> = earth::CITIES.iter().map(|city| city.3).collect();
    let between = expected(&people, &|a, b| cities.way(a, b));
    near("earth", mean(&latencies(of(Model::Earth { access: 2_000 }), LINK)), between + 4_000.0);
    near("regions", mean(&latencies(of(Model::Regions), LINK)), expected(&regions::WEIGHTS, &regions::way));
}

/// Numbers on record: they differ when a model changes, and never between machines, builds or runs. They were first worked out by a program in another language.
#[test]
fn latencies_are_the_same_everywhere() {
    let pairs = [(0, 1), (2, 3), (4, 1_000), (70_000, 5)];
    for (model, expected) in [
        (Model::Pair, [11_219, 20_492, 11_980, 25_480]),
        (Model::Lan, [448, 362, 446, 220]),
        (Model::Uniform { min: 10_000, max: 50_000 }, [44_804, 36_297, 44_651, 22_065]),
        (Model::LogNormal { spread: 0.5 }, [35_170, 24_496, 34_876, 15_423]),
        (Model::Euclid { access: 2_000 }, [10_387, 10_461, 21_386, 18_401]),
        (Model::Earth { access: 2_000 }, [161_318, 70_322, 53_784, 140_191]),
        (Model::Regions, [1_000, 35_000, 55_000, 1_000]),
    ] {
        let network = Network::shaped(7, 0, LINK, of(model));
        assert_eq!(pairs.map(|(a, b)| network.latency(a, b)), expected, "{model:?}");
    }
}

/// As above, for what happens to packets.
#[test]
fn packets_fare_the_same_everywhere() {
    let trouble = Trouble { reorder: 0.1, reorder_by: 9_000, duplicate: 0.2, burst: Some(Burst { enter: 0.1, leave: 0.3, loss: 0.8 }) };
    let mut network = Network::shaped(7, 3, LINK, Shape { trouble, ..Shape::default() });
    let mut fates = [0_u64; 3];
    for sequence in 0..1_000 {
        fates[0] += network.datagram(1, 2, sequence, 100, 0).unwrap_or(1_000_000);
        fates[1] += network.double(1, 2, sequence, 0).unwrap_or(1_000_000);
        if let Fate::After(micros) = network.stream(2, 1, sequence, 0) {
            fates[2] += micros;
        }
    }
    assert_eq!((fates, network.losses), ([377_918_309, 805_653_932, 107_171_201], 997));
}

#[test]
fn jitter_and_loss_are_those_of_the_link() {
    let mut network = Network::new(1, LINK);
    let base = network.latency(1, 2);
    let arrived: Vec<u64> = (0..100_000).filter_map(|sequence| network.datagram(1, 2, sequence, 100, 0)).collect();
    near("loss", 1.0 - arrived.len() as f64 / 1e5, 0.2);
    near("jitter", mean(&arrived) - base as f64, 2_500.0);
}

#[test]
fn bursts_take_datagrams_and_delay_streams_until_it_is_calm() {
    let burst = Burst { enter: 0.1, leave: 0.4, loss: 0.9 };
    let link = Link { loss: 0.1, ..LINK };
    let shape = Shape { trouble: Trouble { burst: Some(burst), ..Trouble::default() }, ..Shape::default() };
    let mut network = Network::shaped(1, 3, link, shape);
    let lost = (0..200_000).filter(|sequence| network.datagram(1, 2, *sequence, 100, 0).is_none()).count();
    near("loss of datagrams", lost as f64 / 2e5, shape.mean_loss(link));
    let latest = Fate::After(network.latency(2, 1) + link.jitter);
    let late = (0..200_000).filter(|sequence| network.stream(2, 1, *sequence, 0) > latest).count();
    near("loss of streams", late as f64 / 2e5, shape.mean_loss(link));
    network.calm();
    assert!((0..10_000).all(|sequence| network.datagram(1, 2, sequence, 100, 0).is_some()));
}

#[test]
fn what_is_too_large_or_finds_the_queue_full_is_lost() {
    let shape = Shape { capacity: Capacity { up: 8_000, down: 8_000, queue: 10_000 }, mtu: 1_200, ..Shape::default() };
    let mut network = Network::shaped(1, 3, Link { loss: 0.0, jitter: 0, ..LINK }, shape);
    let base = network.latency(1, 2);
    assert_eq!(network.datagram(1, 2, 0, 1_201, 0), None);
    assert_eq!(network.datagram(1, 2, 1, 1_200, 0), Some(base + 1_200));
    let passed = (2..100).filter(|sequence| network.datagram(1, 2, *sequence, 1_000, 0).is_some()).count();
    assert_eq!(passed, 8, "and what is sent on waits behind");
    assert_eq!(network.leave(1, 1_000, 0, Full::Wait), Some(10_200));
    assert_eq!(network.leave(2, 1_000, 0, Full::Wait), Some(1_000), "each node has its own line");
    assert_eq!(network.enter(1, 1_000, 0, Full::Drop), Some(1_000), "and one for each direction");
    assert_eq!(network.losses, 91);
}
