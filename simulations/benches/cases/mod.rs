//! The operations that are measured, each ready to be repeated.

use std::hint::black_box;

use meshwork_simulations::plan::SECOND;
use meshwork_simulations::scale::{Preset, World};

type Operation = Box<dyn FnMut()>;
/// A name, and what makes the operation.
type Case = (&'static str, fn() -> Operation);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    vec![("simulations/scale-100-events", events)]
}

/// A hundred events of a formed overlay of 200 nodes in which somebody broadcasts twice a second: messages of the views and of the trees, and deadlines.
fn events() -> Operation {
    let set = ["join-over=1s", "form=5s", "work=100s", "messages=200"].map(str::to_owned);
    let plan = Preset::named("scale").expect("a preset").plan(200, 7, 1, &set).expect("settings that fit");
    let mut world = World::new(plan.setup);
    // Payloads are kept for ten seconds.
    world.run_until(20 * SECOND, &mut meshwork_simulations::scale::in_turn);
    Box::new(move || black_box(&mut world).run_events(100))
}
