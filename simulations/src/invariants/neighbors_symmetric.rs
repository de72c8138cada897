//! Whoever has a living neighbor is its neighbor too, and nobody has a dead one.

use super::{Invariant, Kind, View, Violation};
use crate::graph::neighbors;
use crate::record::Record;

pub(super) struct NeighborsSymmetric;

impl Invariant for NeighborsSymmetric {
    fn name(&self) -> &'static str {
        "neighbors_symmetric"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, _: &Record) -> Result<(), Violation> {
        let all = neighbors(view);
        for (node, neighbors) in (0..).zip(&all) {
            for peer in neighbors {
                let detail = if !view.is_alive(*peer) {
                    format!("has the dead node {peer} as a neighbor")
                } else if all[*peer as usize].binary_search(&node).is_err() {
                    format!("has node {peer} as a neighbor, which does not have it")
                } else {
                    continue;
                };
                return Err(Violation { at: view.now(), node, detail });
            }
        }
        Ok(())
    }
}
