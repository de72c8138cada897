//! One of several, and what health has to do with it.

use super::*;

fn three(change: impl Fn(usize, &mut Details)) -> Cluster {
    let mut cluster = Cluster::with(3, |index| Config { zone: Some(format!("zone {index}")), ..Config::default() });
    for index in 0..3 {
        let mut registration = registration("a", "1");
        change(index, &mut registration.details);
        cluster.register(index, registration).unwrap();
    }
    cluster.settle();
    cluster
}

impl Cluster {
    fn pick(&mut self, query: &Query, balancer: &mut Balancer, tried: &[Id]) -> Result<usize, PickError> {
        let now = self.now();
        let node = &mut self.nodes[0];
        let picked = node.registry.pick(&node.replica, query, balancer, tried, now)?;
        Ok(usize::from(picked.id.node.as_bytes()[0]) - 1)
    }

    /// How many of so many requests each of three nodes gets.
    fn shares(&mut self, requests: usize, balancer: &mut Balancer) -> [usize; 3] {
        let mut shares = [0; 3];
        (0..requests).for_each(|_| shares[self.pick(&Query::new().name("a"), balancer, &[]).unwrap()] += 1);
        shares
    }
}

#[test]
fn each_in_turn_gets_the_same() {
    let mut cluster = three(|_, _| {});
    assert_eq!(cluster.shares(9_000, &mut Balancer::new(Policy::RoundRobin)), [3_000; 3]);
    assert_eq!(cluster.shares(9_000, &mut Balancer::new(Policy::HealthFirst)), [3_000; 3]);
}

#[test]
fn weights_decide_the_shares_and_nobody_gets_many_in_a_row() {
    let mut cluster = three(|index, details| details.weight = index as u16 + 1);
    let mut balancer = Balancer::new(Policy::Weighted);
    assert_eq!(cluster.shares(9_000, &mut balancer), [1_500, 3_000, 4_500]);
    let query = Query::new().name("a");
    let round: Vec<usize> = (0..6).map(|_| cluster.pick(&query, &mut balancer, &[]).unwrap()).collect();
    assert_eq!(round, [2, 1, 0, 2, 1, 2]);
    // A request that is tried again elsewhere does not disturb the shares of the others.
    for _ in 0..600 {
        let first = cluster.pick(&query, &mut balancer, &[]).unwrap();
        assert_ne!(cluster.pick(&query, &mut balancer, &[id("a", first, "1")]), Ok(first));
    }
    assert_eq!(cluster.shares(600, &mut balancer), [100, 200, 300]);
}

#[test]
fn the_unhealthy_get_nothing_and_a_request_moves_on_to_who_is_left() {
    for policy in [Policy::RoundRobin, Policy::Weighted, Policy::LeastLatency, Policy::HealthFirst] {
        let mut cluster = three(|index, details| details.health = if index == 1 { Health::Unhealthy } else { Health::Healthy });
        let mut balancer = Balancer::new(policy);
        let shares = cluster.shares(900, &mut balancer);
        assert_eq!((shares[1], shares[0] + shares[2]), (0, 900), "{policy:?}");
        let query = Query::new().name("a");
        assert_eq!(cluster.pick(&query, &mut balancer, &[id("a", 0, "1")]), Ok(2));
        assert_eq!(cluster.pick(&query, &mut balancer, &[id("a", 0, "1"), id("a", 2, "1")]), Err(PickError::NoneUsable));
        assert_eq!(cluster.pick(&Query::new().name("b"), &mut balancer, &[]), Err(PickError::NotFound));
        cluster.member(0, 2, false);
        assert_eq!(cluster.shares(9, &mut balancer), [9, 0, 0], "{policy:?}");
    }
}

#[test]
fn the_best_health_goes_first() {
    let mut cluster = three(|index, details| details.health = [Health::Degraded, Health::Unknown, Health::Unknown][index]);
    assert_eq!(cluster.shares(10, &mut Balancer::new(Policy::HealthFirst)), [0, 5, 5]);
}

#[test]
fn the_fastest_goes_first_once_all_are_measured_and_old_measurements_do_not_count() {
    let mut cluster = three(|_, _| {});
    let mut balancer = Balancer::new(Policy::LeastLatency);
    for (index, millis) in [(0, 30), (1, 10), (2, 20)] {
        let now = cluster.now();
        assert_ne!(cluster.shares(30, &mut balancer)[index], 0, "who is not measured is tried");
        cluster.nodes[0].registry.report_success(&id("a", index, "1"), Duration::from_millis(millis), now);
    }
    assert_eq!(cluster.shares(10, &mut balancer), [0, 10, 0]);
    let now = cluster.now();
    (0..8).for_each(|_| cluster.nodes[0].registry.report_success(&id("a", 1, "1"), Duration::from_millis(100), now));
    assert_eq!(cluster.shares(10, &mut balancer), [0, 0, 10]);
    cluster.run_for(11 * SECOND);
    assert!(cluster.shares(30, &mut balancer).iter().all(|share| *share == 10));
}

#[test]
fn the_own_zone_goes_first_while_it_has_anybody_to_use() {
    let mut cluster = three(|_, _| {});
    let (query, mut balancer) = (Query::new().name("a").prefer_zone("zone 1"), Balancer::default());
    assert_eq!(cluster.pick(&query, &mut balancer, &[]), Ok(1));
    assert_eq!(cluster.pick(&query, &mut balancer, &[]), Ok(1));
    assert_ne!(cluster.pick(&query, &mut balancer, &[id("a", 1, "1")]).unwrap(), 1);
    cluster
        .write(1, |node, _| node.registry.update(&id("a", 1, "1"), Update { health: Some(Health::Unhealthy), ..Update::default() }))
        .unwrap();
    cluster.settle();
    assert_ne!(cluster.pick(&query, &mut balancer, &[]).unwrap(), 1);
}

#[test]
fn after_some_failures_an_instance_is_left_alone_and_tried_by_one_request_at_a_time() {
    let mut cluster = three(|_, _| {});
    let (target, query) = (id("a", 1, "1"), Query::new().name("a"));
    let mut balancer = Balancer::default();
    let fail = |cluster: &mut Cluster| {
        let now = cluster.now();
        cluster.nodes[0].registry.report_failure(&target, now);
    };
    (0..2).for_each(|_| fail(&mut cluster));
    assert_eq!(cluster.shares(3, &mut balancer), [1, 1, 1]);
    fail(&mut cluster);
    assert_eq!(cluster.shares(30, &mut balancer)[1], 0);
    let health =
        |cluster: &Cluster, index: usize| cluster.nodes[index].registry.get(&cluster.nodes[index].replica, &target).unwrap().health;
    assert_eq!((health(&cluster, 0), health(&cluster, 2)), (Health::Unhealthy, Health::Healthy), "others met nothing");
    assert_eq!(named(&cluster.nodes[0].registry.find(&cluster.nodes[0].replica, &query.clone().health(Health::Unhealthy))), ["a/1@1"]);
    cluster.run_for(5 * SECOND);
    assert_eq!(cluster.shares(30, &mut balancer)[1], 1, "one request tries it");
    fail(&mut cluster);
    cluster.run_for(4 * SECOND);
    assert_eq!(cluster.shares(30, &mut balancer)[1], 0);
    cluster.run_for(SECOND);
    assert_eq!(cluster.pick(&query, &mut balancer, &[]), Ok(1));
    let now = cluster.now();
    cluster.nodes[0].registry.report_success(&target, Duration::from_millis(1), now);
    assert_eq!(cluster.shares(30, &mut balancer), [10; 3]);
    cluster.nodes[0].registry.report_failure(&id("nobody", 1, "1"), now);
    cluster.write(1, |node, _| node.registry.unregister(&target)).unwrap();
    cluster.settle();
    assert!(cluster.nodes[0].registry.marks.is_empty(), "there are marks of instances only");
}
