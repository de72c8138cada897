//! A node that starts again with its disk has all that was synced, and nothing that was never written.
//!
//! What others repair later would hide that from the invariants of the end.

use super::{Invariant, Kind, Violation};
use crate::record::Record;
use crate::world::{Seen, Sight};

pub(super) struct DurableKept;

impl Invariant for DurableKept {
    fn name(&self) -> &'static str {
        "durable_kept"
    }

    fn kind(&self) -> Kind {
        Kind::Always
    }

    fn see(&mut self, seen: &Seen, _: &Record) -> Result<(), Violation> {
        match &seen.what {
            Sight::Restored { fault: Some(fault) } => Err(Violation { at: seen.at, node: seen.node, detail: fault.clone() }),
            _ => Ok(()),
        }
    }
}
