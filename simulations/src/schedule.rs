//! What is done to the nodes and by them, as data made before the run.
//!
//! Nothing in the loop of the world draws a fault: a run is its schedule, its seed and the code. A failing run can therefore be replayed
//! exactly, and made smaller by leaving entries out.

use serde::Serialize;

/// The source of scheduled events in the order of a moment: after every node.
pub const SCHEDULE: u32 = u32::MAX;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When, in microseconds since the start.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happening {
    /// A node starts for the first time.
    Start {
        /// Which.
        node: u32,
        /// The nodes whose addresses it is told.
        contacts: Vec<u32>,
    },
    /// A node stops in the middle of whatever it does; nobody is told.
    Crash {
        /// Which.
        node: u32,
    },
    /// A crashed node starts again: the same name, the next incarnation, an empty memory.
    Restart {
        /// Which.
        node: u32,
        /// The nodes whose addresses it is told.
        contacts: Vec<u32>,
        /// Whether it comes back at another address.
        moved: bool,
    },
    /// A node says goodbye and stops a second later.
    Leave {
        /// Which.
        node: u32,
    },
    /// A node handles nothing for a while, then everything that arrived.
    Pause {
        /// Which.
        node: u32,
        /// For how long, in microseconds.
        micros: u64,
    },
    /// All connections of a node break at once; it can dial again at once.
    Break {
        /// Which.
        node: u32,
    },
    /// The cluster is cut into two groups: nothing crosses.
    Partition {
        /// Until when, in microseconds since the start.
        until: u64,
        /// The nodes of the smaller side.
        side: Vec<u32>,
    },
    /// No link loses anything from now on: the start of the phase in which everything must come to rest.
    Calm,
    /// A node broadcasts.
    Broadcast {
        /// Which.
        node: u32,
        /// The number of the message, counted from 0 over the whole schedule.
        message: u32,
    },
    /// A node sends a message of guaranteed delivery to another.
    Send {
        /// Which.
        node: u32,
        /// To whom.
        to: u32,
        /// The number of the message.
        message: u32,
    },
    /// A node writes a key.
    Write {
        /// Which.
        node: u32,
        /// The number of the key.
        key: u32,
        /// The number of the write, which is its value.
        write: u32,
    },
    /// A node removes a key.
    Remove {
        /// Which.
        node: u32,
        /// The number of the key.
        key: u32,
    },
}

impl Happening {
    /// A short stable name; the kinds of faults are counted under it.
    pub fn name(&self) -> &'static str {
        match self {
            Happening::Start { .. } => "start",
            Happening::Crash { .. } => "crash",
            Happening::Restart { .. } => "restart",
            Happening::Leave { .. } => "leave",
            Happening::Pause { .. } => "pause",
            Happening::Break { .. } => "break",
            Happening::Partition { .. } => "partition",
            Happening::Calm => "calm",
            Happening::Broadcast { .. } => "broadcast",
            Happening::Send { .. } => "send",
            Happening::Write { .. } => "write",
            Happening::Remove { .. } => "remove",
        }
    }

    /// Whether the application of a node does it; the rest is done to the node.
    pub fn is_workload(&self) -> bool {
        matches!(
            self,
            Happening::Broadcast { .. }
                | Happening::Send { .. }
                | Happening::Write { .. }
                | Happening::Remove { .. }
                | Happening::Leave { .. }
        )
    }

    /// The node that it happens to; none when it happens to all.
    pub fn node(&self) -> Option<u32> {
        match self {
            Happening::Start { node, .. }
            | Happening::Crash { node }
            | Happening::Restart { node, .. }
            | Happening::Leave { node }
            | Happening::Pause { node, .. }
            | Happening::Break { node }
            | Happening::Broadcast { node, .. }
            | Happening::Send { node, .. }
            | Happening::Write { node, .. }
            | Happening::Remove { node, .. } => Some(*node),
            Happening::Partition { .. } | Happening::Calm => None,
        }
    }
}

/// Everything that will be done, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Schedule {
    entries: Vec<Entry>,
}

impl Schedule {
    /// Adds an entry.
    pub fn push(&mut self, at: u64, what: Happening) {
        self.entries.push(Entry { at, what });
    }

    /// Orders the entries by time, those of one moment as they were added.
    pub fn sort(&mut self) {
        self.entries.sort_by_key(|entry| entry.at);
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Lets nodes be told only of those contacts that `can` says each of them can dial, and of `otherwise` when none is left.
    pub fn keep_contacts(&mut self, can: impl Fn(u32, u32) -> bool, otherwise: impl Fn(u32) -> u32) {
        for entry in &mut self.entries {
            if let Happening::Start { node, contacts } | Happening::Restart { node, contacts, .. } = &mut entry.what
                && !contacts.is_empty()
            {
                contacts.retain(|contact| can(*node, *contact));
                if contacts.is_empty() {
                    contacts.push(otherwise(*node));
                }
            }
        }
    }

    /// How many entries have this name.
    pub fn count(&self, name: &str) -> u64 {
        self.entries.iter().filter(|entry| entry.what.name() == name).count() as u64
    }
}
