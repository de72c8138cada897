//! Runs of the swarm on record: fresh ones, and every seed that ever showed a bug.

use meshwork_simulations::host::RealNode;
use meshwork_simulations::run::run;
use meshwork_simulations::swarm;

fn play(seed: u64) {
    let plan = swarm::plan(seed);
    let outcome = run::<RealNode>(&plan, &mut |_| {}).expect("parameters that nodes accept");
    assert!(outcome.ok, "{:?}; replay: {}", outcome.failure, plan.replay);
}

#[test]
fn the_first_seeds_hold() {
    (0..5).for_each(play);
}

/// With three neighbors each, four nodes can be one another's only neighbors, and a pair can be left over beside six: everybody's view is full
/// or nobody has room, so the overlay stays in pieces although all know all.
#[test]
fn small_views_become_one_piece() {
    [886, 1208, 1287].into_iter().for_each(play);
}
