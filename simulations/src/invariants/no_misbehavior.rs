//! Among honest nodes nobody is found to break a rule.

use super::{Invariant, Kind, Violation};
use crate::record::Record;
use crate::world::{Seen, Sight};

pub(super) struct NoMisbehavior;

impl Invariant for NoMisbehavior {
    fn name(&self) -> &'static str {
        "no_misbehavior"
    }

    fn kind(&self) -> Kind {
        Kind::Always
    }

    fn see(&mut self, seen: &Seen, _: &Record) -> Result<(), Violation> {
        match seen.what {
            Sight::Blamed { node, rule } => {
                Err(Violation { at: seen.at, node: seen.node, detail: format!("blames honest node {node} for `{rule}`") })
            }
            _ => Ok(()),
        }
    }
}
