//! What the world tells of a run: what was seen and what was moved.

use serde::Serialize;

use crate::ledger::Done;

/// What the world saw happen, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, in microseconds since the start.
    pub at: u64,
    /// At which node.
    pub node: u32,
    /// In which of its lives, from 1.
    pub life: u32,
    /// What.
    pub what: Sight,
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The node started.
    Started,
    /// The node crashed, or stopped after its goodbye.
    Stopped,
    /// The node broadcast a message.
    Sent {
        /// Its number.
        message: u32,
    },
    /// The node handed a message to its application.
    Delivered {
        /// Its number.
        message: u32,
        /// Links that it crossed.
        hops: u16,
    },
    /// The node accepted a message of guaranteed delivery.
    Accepted {
        /// Its number.
        message: u32,
    },
    /// The node handed a message of guaranteed delivery to its application.
    Received {
        /// Who sent it.
        from: u32,
        /// Its number.
        message: u32,
    },
    /// The node handed bytes to its application that nobody sent.
    Garbled,
    /// The node wrote a key.
    Wrote {
        /// The key.
        key: u32,
        /// The number of the write.
        write: u32,
    },
    /// The node removed a key, or wrote it for some time only.
    Removed {
        /// The key.
        key: u32,
    },
    /// The node did something to a key of the replicated state; a plain write or removal is seen beside it.
    Changed(Box<Done>),
    /// The node has another number of neighbors, or others.
    Neighbors {
        /// How many.
        len: usize,
    },
    /// The node holds another for alive that was not, or in another of its generations.
    HeldForAlive {
        /// Which.
        node: u32,
        /// Which of its generations.
        generation: u64,
    },
    /// The node holds another for dead.
    HeldForDead {
        /// Which.
        node: u32,
        /// Which of its generations.
        generation: u64,
    },
    /// The node heard the goodbye of another.
    HeldForGone {
        /// Which.
        node: u32,
    },
    /// The node suspects another.
    Suspected {
        /// Which.
        node: u32,
    },
    /// The node turned hostile.
    Attacked,
    /// The wall clock of the node was set.
    ClockSet,
    /// The node goes on from what it had on its disk.
    Restored {
        /// What is wrong with that, in words.
        fault: Option<String>,
    },
    /// All that the node did to the replicated state in this life, and what it began with, is on its disk.
    Synced,
    /// The node says that another broke a rule.
    Blamed {
        /// Which.
        node: u32,
        /// The rule.
        rule: &'static str,
    },
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames on streams.
    pub frames: u64,
    /// Their bytes.
    pub frame_bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Dials.
    pub dials: u64,
    /// Dials that failed.
    pub dials_failed: u64,
    /// Connections that broke without a goodbye.
    pub connections_lost: u64,
    /// Frames that were sent on, or under way on, a connection that was gone.
    pub frames_lost: u64,
}

/// What one node moved, in all its lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of frames and datagrams that it sent, lost ones included.
    pub sent: u64,
    /// Bytes that reached it.
    pub received: u64,
}
