use super::*;

const MS: Duration = Duration::from_millis(1);

fn link(latency: Latency, jitter: Latency, loss: f64) -> Params {
    Config { latency, jitter, loss, ..Config::lan() }.build().unwrap()
}

fn constant(loss: f64) -> Params {
    link(Latency::Constant(10 * MS), Latency::Constant(Duration::ZERO), loss)
}

fn mean(durations: impl Iterator<Item = Duration>) -> Duration {
    let (count, sum) = durations.fold((0, Duration::ZERO), |(count, sum), duration| (count + 1, sum + duration));
    sum / count
}

#[test]
fn golden_values() {
    // The same on every machine and in every release, or recorded runs are worth nothing.
    let link = Config::wan().build().unwrap();
    assert_eq!(link.base(1, 2, 3).as_nanos(), 23_531_906);
    assert_eq!(link.delay(1, 2, 3, 4).as_nanos(), 23_898_328);
    assert_eq!(link.datagram(1, 2, 3, 4).map(|delay| delay.as_nanos()), Some(23_898_328));
}

#[test]
fn answers_do_not_depend_on_the_order_of_the_questions() {
    let link = Config { loss: 0.3, ..Config::wan() }.build().unwrap();
    let forward: Vec<_> = (0..100).map(|sequence| (link.datagram(1, 2, 3, sequence), link.stream(1, 2, 3, sequence, 5_000))).collect();
    let mut backward: Vec<_> =
        (0..100).rev().map(|sequence| (link.datagram(1, 2, 3, sequence), link.stream(1, 2, 3, sequence, 5_000))).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let other: Vec<_> = (0..100).map(|sequence| (link.datagram(2, 2, 3, sequence), link.stream(2, 2, 3, sequence, 5_000))).collect();
    assert_ne!(forward, other);
}

#[test]
fn a_pair_has_one_latency_in_both_directions() {
    let link = link(Latency::Uniform { min: 10 * MS, max: 90 * MS }, Latency::Uniform { min: Duration::ZERO, max: MS }, 0.0);
    for (a, b) in (0..50).flat_map(|a| (0..50).map(move |b| (a, b))) {
        let base = link.base(7, a, b);
        assert_eq!(base, link.base(7, b, a));
        let delay = link.delay(7, a, b, 1);
        assert!(delay >= base && delay <= base + MS && delay >= link.delay_min());
    }
    let average = mean((0..10_000).map(|b| link.base(7, 1_000_000, b)));
    assert!((49 * MS..51 * MS).contains(&average), "{average:?}");
    let jitter = mean((0..10_000).map(|sequence| link.delay(7, 1, 2, sequence) - link.base(7, 1, 2)));
    assert!((MS * 49 / 100..MS * 51 / 100).contains(&jitter), "{jitter:?}");
}

#[test]
fn datagrams_are_lost_at_the_rate_that_is_asked_for() {
    for loss in [0.0, 0.01, 0.3, 1.0] {
        let link = constant(loss);
        let lost = (0..100_000).filter(|sequence| link.datagram(1, 2, 3, *sequence).is_none()).count();
        assert!((lost as f64 / 100_000.0 - loss).abs() < 0.004, "{loss}: {lost}");
        assert!(loss > 0.0 || lost == 0);
    }
}

#[test]
fn loss_on_a_stream_is_time() {
    // 10 ms one way: a probe timeout is 20 + 25 ms, then twice that.
    let link = constant(0.1);
    let fates: Vec<_> = (0..100_000).map(|sequence| link.stream(1, 2, 3, sequence, 100)).collect();
    for (losses, delay, expected) in [(0, 10, 0.9), (1, 55, 0.09), (2, 145, 0.009)] {
        let count = fates.iter().filter(|fate| **fate == StreamFate::After(delay * MS)).count();
        assert!((count as f64 / 100_000.0 / expected - 1.0).abs() < 0.15, "{losses} losses: {count}");
    }
    assert_eq!(constant(0.0).stream(1, 2, 3, 4, 1_000_000), StreamFate::After(10 * MS));
}

#[test]
fn a_frame_of_many_packets_meets_a_loss_more_often() {
    let link = constant(0.01);
    let delayed = |bytes| (0..5_000).filter(|sequence| link.stream(1, 2, 3, *sequence, bytes) != StreamFate::After(10 * MS)).count();
    let (one, hundred) = (delayed(0), delayed(100 * PACKET_BYTES));
    assert!((25..80).contains(&one), "{one}");
    // 1 - 0.99^100 = 0.634.
    assert!((3_000..3_340).contains(&hundred), "{hundred}");
}

#[test]
fn a_stream_breaks_when_nothing_comes_through() {
    // 45 ms * (2^7 - 1).
    assert_eq!(constant(1.0).stream(1, 2, 3, 4, 10), StreamFate::Breaks(5_715 * MS));
    let link = constant(0.5);
    let broken = (0..100_000).filter(|sequence| matches!(link.stream(1, 2, 3, *sequence, 10), StreamFate::Breaks(_))).count();
    // 0.5^7 = 0.0078.
    assert!((690..880).contains(&broken), "{broken}");
}

#[test]
fn quantiles_are_followed() {
    let table = Latency::Quantiles(vec![MS, 2 * MS, 10 * MS]);
    let draws: Vec<_> = (0..20_000).map(|index| table.draw(hash(&[index]))).collect();
    let below = |limit| draws.iter().filter(|draw| **draw < limit).count() as f64 / 20_000.0;
    assert!((below(2 * MS) - 0.5).abs() < 0.02 && (below(6 * MS) - 0.75).abs() < 0.02);
    assert!(draws.iter().all(|draw| (MS..=10 * MS).contains(draw)));
    assert_eq!(Latency::Quantiles(vec![MS]).draw(u64::MAX), MS);
    assert_eq!(table.draw(0), MS);
    assert!(table.draw(u64::MAX) > Duration::from_micros(9_999));
}

#[test]
fn the_log_normal_has_its_median_and_its_spread() {
    for x in [-3.0_f64, -0.5, 0.0, 1e-9, 0.7, 1.0, 6.0] {
        assert!((exp(x) / x.exp() - 1.0).abs() < 1e-9, "exp({x}) = {}", exp(x));
    }
    let latency = Latency::log_normal(100 * MS, 0.5);
    let mut draws: Vec<_> = (0..50_000).map(|index| latency.draw(hash(&[index]))).collect();
    draws.sort_unstable();
    let at = |quantile: f64| draws[(quantile * 50_000.0) as usize].as_secs_f64() * 1e3;
    // exp(z * 0.5) * 100 at z = 0, 1 and -1 standard deviations.
    assert!((at(0.5) - 100.0).abs() < 2.0, "{}", at(0.5));
    assert!((at(0.8413) - 164.9).abs() < 3.0, "{}", at(0.8413));
    assert!((at(0.1587) - 60.7).abs() < 2.0, "{}", at(0.1587));
    assert!(latency.max() <= 449 * MS && latency.min() >= 22 * MS);
}

#[test]
fn odd_params_are_refused_or_work() {
    let field = |config: Config| config.build().map(|_| ()).map_err(|error| error.field);
    assert_eq!(field(Config::lan()), Ok(()));
    assert_eq!(field(Config::wan()), Ok(()));
    for loss in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(field(Config { loss, ..Config::lan() }), Err("loss"));
    }
    for latency in [
        Latency::Uniform { min: 2 * MS, max: MS },
        Latency::Quantiles(vec![]),
        Latency::Quantiles(vec![MS, Duration::ZERO]),
        Latency::Constant(Duration::MAX),
        Latency::log_normal(100 * MS, 100.0),
    ] {
        assert_eq!(field(Config { latency: latency.clone(), ..Config::lan() }), Err("latency"));
        assert_eq!(field(Config { jitter: latency, ..Config::lan() }), Err("jitter"));
    }
    assert_eq!(field(Config { tries_max: 0, ..Config::lan() }), Err("tries_max"));
    assert_eq!(field(Config { tries_max: 31, ..Config::lan() }), Err("tries_max"));
    assert_eq!(field(Config { ack_delay: Duration::MAX, ..Config::lan() }), Err("ack_delay"));
    // Nothing overflows at the ends of what is allowed.
    let hour = Latency::Constant(Duration::from_secs(3_600));
    let slow = Config { latency: hour.clone(), jitter: hour, loss: 1.0, tries_max: 30, ack_delay: Duration::from_secs(3_600) };
    assert!(matches!(slow.build().unwrap().stream(u64::MAX, u64::MAX, 0, u64::MAX, 1), StreamFate::Breaks(_)));
}
