//! Every broadcast reaches every node that was alive from its sending to the end.
//!
//! It is owed only while somebody who had it lives: a sender that crashes before its first packet is out takes its message with it.

use super::{Invariant, Kind, View, Violation};
use crate::record::Record;

pub(super) struct DeliveredToAllSurvivors;

impl Invariant for DeliveredToAllSurvivors {
    fn name(&self) -> &'static str {
        "delivered_to_all_survivors"
    }

    fn kind(&self) -> Kind {
        Kind::Eventually
    }

    fn check(&self, view: &dyn View, record: &Record) -> Result<(), Violation> {
        for (number, message) in record.messages() {
            if let Some((node, _)) = record.must_have(message).find(|(node, has)| !has && view.is_alive(*node)) {
                let sent = message.sent_at as f64 / 1e6;
                let detail = format!("never delivered message {number}, which node {} sent at {sent:.3} s", message.sender);
                return Err(Violation { at: view.now(), node, detail });
            }
        }
        Ok(())
    }
}
