//! All living nodes hold the same replicated state.

use super::{Invariant, Kind, View, Violation};
use crate::graph::living;
use crate::record::Record;

pub(super) struct StateConverged;

impl Invariant for StateConverged {
    fn name(&self) -> &'static str {
        "state_converged"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, _: &Record) -> Result<(), Violation> {
        let digests: Vec<(u32, u128)> = living(view).into_iter().map(|node| (node, view.state_digest(node))).collect();
        let mut sorted: Vec<u128> = digests.iter().map(|(_, digest)| *digest).collect();
        sorted.sort_unstable();
        // With a few nodes apart, the one in the middle has the state of the many, and the few are to be named.
        let Some(common) = sorted.get(sorted.len() / 2).copied() else { return Ok(()) };
        let mut apart = digests.iter().filter(|(_, digest)| *digest != common);
        match apart.next() {
            None => Ok(()),
            Some((node, _)) => {
                let others = apart.count();
                let detail = format!("holds another state than most; so do {others} other nodes");
                Err(Violation { at: view.now(), node: *node, detail })
            }
        }
    }
}
