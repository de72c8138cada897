//! Runs on record: the first ones of the swarm, and every plan that ever showed a bug.

use meshwork_simulations::host::RealNode;
use meshwork_simulations::plan::Plan;
use meshwork_simulations::run::run;
use meshwork_simulations::swarm;

fn holds(plan: &Plan, replay: &str) {
    let outcome = run::<RealNode>(plan, &mut |_| {}).expect("parameters that nodes accept");
    assert!(outcome.ok, "{:?}; replay: {replay}", outcome.failure);
}

#[test]
fn the_first_seeds_hold() {
    for plan in (0..5).map(swarm::plan) {
        holds(&plan, &plan.replay);
    }
}

/// Plans that showed bugs:
///
/// - With three neighbors each, four nodes can be one another's only neighbors, and a pair can be left over beside six: everybody's view is full
///   or nobody has room, so the overlay stays in pieces although all know all.
/// - When a node loses all its links at once, and another right after, all of them forget one another as dead. Two pairs found together again and had nobody else to try.
/// - Of the simulator: losses that break a connection while a short cut delays it were taken for the cut, and the connection stood for ever and carried nothing.
/// - A slow node put its probes off once more with each input that had piled up, until it probed nobody for minutes, and held a dead member for alive.
#[test]
fn what_once_failed_holds() {
    for (name, text) in [
        ("small-views-886", include_str!("plans/small-views-886.json")),
        ("small-views-1208", include_str!("plans/small-views-1208.json")),
        ("small-views-1287", include_str!("plans/small-views-1287.json")),
        ("all-links-lost-110", include_str!("plans/all-links-lost-110.json")),
        ("losses-under-a-short-cut-1295", include_str!("plans/losses-under-a-short-cut-1295.json")),
        ("slow-and-cut-off-4864", include_str!("plans/slow-and-cut-off-4864.json")),
    ] {
        let plan: Plan = serde_json::from_str(text).expect("a plan");
        assert_eq!(plan.check(), Ok(()));
        holds(&plan, &format!("meshwork-sim run simulations/tests/plans/{name}.json"));
    }
}
