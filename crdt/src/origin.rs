//! Who wrote what a replica holds, each kept once: an entry has a pointer to it instead of 32 bytes.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use meshwork_channels::PeerId;

/// The node that wrote an entry. It is and orders like its identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin(Arc<PeerId>);

impl Deref for Origin {
    type Target = PeerId;

    fn deref(&self) -> &PeerId {
        &self.0
    }
}

impl Borrow<PeerId> for Origin {
    fn borrow(&self) -> &PeerId {
        &self.0
    }
}

/// The origins of the entries of one store, so no more than these.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(BTreeSet<Origin>);

impl Origins {
    /// The one that is kept of a node, or a new one that is not kept yet.
    pub(crate) fn of(&self, id: PeerId) -> Origin {
        self.0.get(&id).cloned().unwrap_or_else(|| Origin(Arc::new(id)))
    }

    /// Keeps one, for an entry that is about to be held.
    pub(crate) fn keep(&mut self, origin: &mut Origin) {
        // Whoever else holds one has it from here.
        if Arc::strong_count(&origin.0) == 1 {
            match self.0.get(&**origin) {
                Some(kept) => *origin = kept.clone(),
                None => drop(self.0.insert(origin.clone())),
            }
        }
    }

    /// Takes the origin of an entry that is no longer held, and forgets it with its last entry.
    pub(crate) fn release(&mut self, origin: Origin) {
        if Arc::strong_count(&origin.0) == 2 {
            self.0.remove(&origin);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
