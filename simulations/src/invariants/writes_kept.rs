//! A key that a node wrote, that nobody removed and whose writer lives is visible everywhere.
//!
//! Replicas that agree on having lost a write would satisfy `state_converged`; they do not satisfy this.

use super::{Invariant, Kind, View, Violation};
use crate::graph::living;
use crate::record::Record;

pub(super) struct WritesKept;

impl Invariant for WritesKept {
    fn name(&self) -> &'static str {
        "writes_kept"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, record: &Record) -> Result<(), Violation> {
        let keys: Vec<u32> = record.keys_to_keep().collect();
        // All replicas are equal once `state_converged` holds, so two are enough to look at.
        let living = living(view);
        for node in living.first().into_iter().chain(living.last()) {
            if let Some(key) = keys.iter().find(|key| !view.has_key(*node, **key)) {
                return Err(Violation { at: view.now(), node: *node, detail: format!("does not have key {key}, whose writer lives") });
            }
        }
        Ok(())
    }
}
