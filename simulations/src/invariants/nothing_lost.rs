//! All that is owed of the replicated state is there, of whatever kind.
//!
//! Replicas that agree on having lost something would satisfy `state_converged`; they do not satisfy this.

use super::{Invariant, Kind, View, Violation};
use crate::graph::living;
use crate::ledger::{Found, Judgment};
use crate::record::Record;

pub(super) struct NothingLost;

impl Invariant for NothingLost {
    fn name(&self) -> &'static str {
        "nothing_lost"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, record: &Record) -> Result<(), Violation> {
        none_found(view, record, |judgment| judgment.lost)
    }
}

/// Nothing of a kind is found at the first living node and the last: all replicas are equal once `state_converged` holds, so two are enough to look at.
pub(super) fn none_found(view: &dyn View, record: &Record, of: impl Fn(Judgment) -> Found) -> Result<(), Violation> {
    let living = living(view);
    for node in living.first().into_iter().chain(living.last()) {
        let Found { count, first } = of(record.judge(*node, view));
        if let Some(first) = first {
            return Err(Violation { at: view.now(), node: *node, detail: format!("{first}; {count} in all") });
        }
    }
    Ok(())
}
