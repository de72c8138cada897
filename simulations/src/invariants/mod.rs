//! What must hold: some things always, others once the network has been whole and quiet for a while.
//!
//! Each stands in a file of its own, and each has a test in which it fails: an invariant that never failed proves nothing.

mod bounded_views;
mod delivered_once;
mod delivered_to_all_survivors;
mod durable_kept;
mod neighbors_symmetric;
mod no_misbehavior;
mod nothing_lost;
mod nothing_resurrected;
mod one_component;
pub mod sometimes;
mod state_converged;
mod views_complete;
mod writes_kept;

#[cfg(test)]
mod tests;

use meshwork::crdt::Value;

use crate::deed::Place;
use crate::record::Record;
use crate::world::Seen;

/// When an invariant must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At every moment. A failure ends the run.
    Always,
    /// At some moment of the quiet phase, together with all others of this kind.
    Eventually,
}

impl Kind {
    /// `always` or `eventually`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Always => "always",
            Kind::Eventually => "eventually",
        }
    }
}

/// How an invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in microseconds since the start of the run.
    pub at: u64,
    /// At which node.
    pub node: u32,
    /// What was found.
    pub detail: String,
}

/// The nodes as an invariant sees them.
pub trait View {
    /// Microseconds since the start of the run.
    fn now(&self) -> u64;
    /// How many nodes there are, alive or not.
    fn nodes(&self) -> u32;
    /// Whether a node is alive and has not said goodbye.
    fn is_alive(&self, node: u32) -> bool;
    /// Calls `visit` with every neighbor of a node.
    fn visit_neighbors(&self, node: u32, visit: &mut dyn FnMut(u32));
    /// Calls `visit` with every member that a node holds for alive, itself included.
    fn visit_members(&self, node: u32, visit: &mut dyn FnMut(u32));
    /// The digest of a node's replica.
    fn state_digest(&self, node: u32) -> u128;
    /// Whether a key is visible at a node.
    fn has_key(&self, node: u32, key: u32) -> bool;
    /// What a node reads of a key.
    fn read(&self, node: u32, place: Place) -> Option<Value>;
}

/// Something that must hold.
pub trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// When it must hold.
    fn kind(&self) -> Kind;

    /// Looks at one sight, with the record of those before it.
    ///
    /// # Errors
    ///
    /// The violation that it is.
    fn see(&mut self, seen: &Seen, record: &Record) -> Result<(), Violation> {
        let _ = (seen, record);
        Ok(())
    }

    /// Looks at all nodes at once.
    ///
    /// # Errors
    ///
    /// The violation that it finds first.
    fn check(&self, view: &dyn View, record: &Record) -> Result<(), Violation> {
        let _ = (view, record);
        Ok(())
    }
}

/// What the invariants must know of the run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most neighbors that a node may have.
    pub neighbors_max: usize,
}

/// All invariants.
pub fn all(bounds: Bounds) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<delivered_once::DeliveredOnce>::default(),
        Box::new(bounded_views::BoundedViews { neighbors_max: bounds.neighbors_max }),
        Box::<no_misbehavior::NoMisbehavior>::default(),
        Box::new(durable_kept::DurableKept),
        Box::new(neighbors_symmetric::NeighborsSymmetric),
        Box::new(one_component::OneComponent),
        Box::new(views_complete::ViewsComplete),
        Box::new(delivered_to_all_survivors::DeliveredToAllSurvivors),
        Box::new(state_converged::StateConverged),
        Box::new(writes_kept::WritesKept),
        Box::new(nothing_lost::NothingLost),
        Box::new(nothing_resurrected::NothingResurrected),
    ]
}
