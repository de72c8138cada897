//! Nothing that was removed or written over for good is there again, nothing that expired, and nothing that nobody did.

use super::nothing_lost::none_found;
use super::{Invariant, Kind, View, Violation};
use crate::graph::living;
use crate::record::Record;

pub(super) struct NothingResurrected;

impl Invariant for NothingResurrected {
    fn name(&self) -> &'static str {
        "nothing_resurrected"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, record: &Record) -> Result<(), Violation> {
        for node in living(view) {
            if let Some(detail) = record.unexpired(node, view) {
                return Err(Violation { at: view.now(), node, detail });
            }
        }
        none_found(view, record, |judgment| judgment.resurrected)
    }
}
