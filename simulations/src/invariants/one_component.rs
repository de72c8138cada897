//! The living nodes and their neighbor relation are one connected graph.

use super::{Invariant, Kind, View, Violation};
use crate::graph::{living, neighbors};
use crate::record::Record;

pub(super) struct OneComponent;

impl Invariant for OneComponent {
    fn name(&self) -> &'static str {
        "one_component"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, _: &Record) -> Result<(), Violation> {
        let living = living(view);
        let Some(first) = living.first() else { return Ok(()) };
        let all = neighbors(view);
        let mut reached = vec![false; all.len()];
        reached[*first as usize] = true;
        let mut next = vec![*first];
        let mut count = 0;
        while let Some(node) = next.pop() {
            count += 1;
            for peer in &all[node as usize] {
                if view.is_alive(*peer) && !std::mem::replace(&mut reached[*peer as usize], true) {
                    next.push(*peer);
                }
            }
        }
        match living.iter().find(|node| !reached[**node as usize]) {
            None => Ok(()),
            Some(node) => {
                let detail = format!("cannot be reached from node {first}, which reaches {count} of {} living nodes", living.len());
                Err(Violation { at: view.now(), node: *node, detail })
            }
        }
    }
}
