//! No life of a node hands a broadcast to its application twice, nor one that nobody sent.

use super::{Invariant, Kind, Violation};
use crate::record::Record;
use crate::world::{Seen, Sight};

#[derive(Default)]
pub(super) struct DeliveredOnce {
    /// Whether a node turned hostile: what it makes up may be a broadcast.
    attacked: bool,
}

impl Invariant for DeliveredOnce {
    fn name(&self) -> &'static str {
        "delivered_once"
    }

    fn kind(&self) -> Kind {
        Kind::Always
    }

    fn see(&mut self, seen: &Seen, record: &Record) -> Result<(), Violation> {
        let violation = |detail| Err(Violation { at: seen.at, node: seen.node, detail });
        match seen.what {
            Sight::Attacked => {
                self.attacked = true;
                Ok(())
            }
            Sight::Garbled if !self.attacked => violation("delivered bytes that nobody broadcast".to_owned()),
            Sight::Delivered { message, .. } => match record.message(message) {
                None => violation(format!("delivered message {message} before it was sent")),
                Some(known) if known.delivered[seen.node as usize] == seen.life => violation(format!("delivered message {message} again")),
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
