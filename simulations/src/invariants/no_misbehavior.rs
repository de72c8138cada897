//! Among honest nodes nobody is found to break a rule.

use std::collections::BTreeSet;

use meshwork_channels::Misbehavior;

use super::{Invariant, Kind, Violation};
use crate::record::Record;
use crate::world::{Seen, Sight};

#[derive(Default)]
pub(super) struct NoMisbehavior {
    /// Nodes that turned hostile.
    hostile: BTreeSet<u32>,
    /// Whether a clock was set. From then on there are stamps of times that have not come, and to say so is right, whoever passes them on.
    is_clock_set: bool,
}

impl Invariant for NoMisbehavior {
    fn name(&self) -> &'static str {
        "no_misbehavior"
    }

    fn kind(&self) -> Kind {
        Kind::Always
    }

    fn see(&mut self, seen: &Seen, _: &Record) -> Result<(), Violation> {
        match seen.what {
            Sight::Attacked => {
                self.hostile.insert(seen.node);
                Ok(())
            }
            Sight::ClockSet => {
                self.is_clock_set = true;
                Ok(())
            }
            Sight::Blamed { rule, .. } if self.is_clock_set && rule == Misbehavior::StampAhead.name() => Ok(()),
            Sight::Blamed { node, rule } if !self.hostile.contains(&node) => {
                Err(Violation { at: seen.at, node: seen.node, detail: format!("blames honest node {node} for `{rule}`") })
            }
            _ => Ok(()),
        }
    }
}
