//! No node has more neighbors than its parameters allow.

use super::{Invariant, Kind, Violation};
use crate::record::Record;
use crate::world::{Seen, Sight};

pub(super) struct BoundedViews {
    pub(super) neighbors_max: usize,
}

impl Invariant for BoundedViews {
    fn name(&self) -> &'static str {
        "bounded_views"
    }

    fn kind(&self) -> Kind {
        Kind::Always
    }

    fn see(&mut self, seen: &Seen, _: &Record) -> Result<(), Violation> {
        match seen.what {
            Sight::Neighbors { len } if len > self.neighbors_max => {
                let detail = format!("has {len} neighbors, {} are allowed", self.neighbors_max);
                Err(Violation { at: seen.at, node: seen.node, detail })
            }
            _ => Ok(()),
        }
    }
}
