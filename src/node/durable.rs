//! How a node goes on from what it wrote down, and what it wants written down.

use meshwork_channels::Now;
use meshwork_crdt::journal::Record;
use meshwork_crdt::replica::Restored;

use super::{Action, Node};

impl Node {
    /// Takes the replicated state of an earlier life, and notes from now on what is to be written down. For a node that has seen nothing yet. The services are told
    /// of all that is there; what they tell follows as actions.
    pub fn restore(&mut self, records: impl IntoIterator<Item = Record>, now: Now, actions: &mut Vec<Action>) -> Restored {
        let restored = self.state.restore(records, now);
        self.services.on_restored(&self.state, now);
        self.route(now, actions);
        restored
    }

    /// How many entries of the replicated state are to be written down.
    pub fn unrecorded(&self) -> usize {
        self.state.unrecorded()
    }

    /// What is to be written down of the replicated state, so many entries at most.
    pub fn records(&mut self, entries_max: usize, now: Now) -> Vec<Record> {
        self.state.records(entries_max, now)
    }

    /// Takes back what could not be written down now.
    pub fn give_back(&mut self, records: &[Record]) {
        self.state.give_back(records);
    }

    /// The last record of this life, behind all others. The replicated state is not touched after it.
    pub fn ended(&self) -> Record {
        self.state.ended()
    }
}
