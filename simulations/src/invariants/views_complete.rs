//! Every living node knows exactly the living nodes.

use super::{Invariant, Kind, View, Violation};
use crate::graph::living;
use crate::record::Record;

pub(super) struct ViewsComplete;

impl Invariant for ViewsComplete {
    fn name(&self) -> &'static str {
        "views_complete"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, _: &Record) -> Result<(), Violation> {
        let living = living(view);
        // By node: the last one of `living` that named it.
        let mut named_by = vec![u32::MAX; view.nodes() as usize];
        for node in &living {
            let mut stranger = None;
            view.visit_members(*node, &mut |member| match named_by.get_mut(member as usize) {
                Some(by) if view.is_alive(member) => *by = *node,
                _ => stranger = Some(member),
            });
            let missing = living.iter().find(|member| named_by[**member as usize] != *node);
            let detail = match (stranger, missing) {
                (Some(member), _) => format!("holds the dead node {member} for alive"),
                (None, Some(member)) => format!("does not know node {member}"),
                (None, None) => continue,
            };
            return Err(Violation { at: view.now(), node: *node, detail });
        }
        Ok(())
    }
}
