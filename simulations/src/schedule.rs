//! What is done to the nodes and by them, as data made before the run.
//!
//! Nothing in the loop of the world draws a fault: a run is its schedule, its seed and the code. A failing run can therefore be replayed
//! exactly, and made smaller by leaving entries out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::deed::{BATCH_LEN_MAX, Change, Deed};

/// The source of scheduled events in the order of a moment: after every node.
pub const SCHEDULE: u32 = u32::MAX;

/// The most that a slow node takes for an input, and that weather adds to a packet, in microseconds.
pub const DELAY_MAX: u64 = 10_000_000;
/// The most packets of a thousand that weather takes.
pub const LOSS_MAX: u32 = 950;
/// The farthest that a clock jumps, in microseconds: a day.
pub const JUMP_MAX: u64 = 86_400_000_000;
/// The most millionths by which a clock is set to go too fast or too slow.
pub const DRIFT_MAX: u32 = 100_000;
/// The most frames that a hostile node sends to each of its peers.
pub const FRAMES_MAX: u32 = 10_000;

/// How long a hostile node lives, in microseconds.
pub const ATTACK_MICROS: u64 = 1_000_000;

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in microseconds since the start.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

impl Entry {
    /// Until when it keeps nodes apart, if it does.
    pub(crate) fn parts_until(&self) -> Option<u64> {
        match self.what {
            Happening::Partition { until, .. } => Some(until),
            _ => None,
        }
    }
}

/// What an entry does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// A crashed node starts again: the same name, the next incarnation, an empty memory but for the peers and the state that it may have on its disk.
    Restart {
        /// Which.
        node: u32,
        /// The nodes whose addresses it is told.
        contacts: Vec<u32>,
        /// Whether it comes back at another address.
        moved: bool,
        /// Whether it has its data folder still: it asks the peers that it knew when it stopped, beside those that it is told of.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remembers: bool,
        /// Whether its replicated state is on its disk still: what it synced, and after a crash some of the rest.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disk: bool,
    },
    /// A node says goodbye and stops a second later.
    Leave {
        /// Which.
        node: u32,
    },
    /// The most important living nodes crash: which they are is seen when it happens.
    Strike {
        /// What makes a node important.
        aim: Aim,
        /// How many crash.
        count: u32,
        /// Nodes with a number below this one are spared.
        spared: u32,
    },
    /// A node handles nothing for a while, then everything that arrived. Its memory is kept; when it stands still for longer than the idle timeout its connections
    /// break, as those of a machine that was put to sleep.
    Pause {
        /// Which.
        node: u32,
        /// For how long, in microseconds.
        micros: u64,
    },
    /// A node takes its time for whatever it handles; the rest waits.
    Slow {
        /// Which.
        node: u32,
        /// How long it takes for each input, in microseconds.
        micros: u64,
        /// Until when, in microseconds since the start.
        until: u64,
    },
    /// All connections of a node break at once; it can dial again at once.
    Break {
        /// Which.
        node: u32,
    },
    /// The cluster is cut into groups: nothing crosses from one to another. Connections across it break after the idle timeout if it lasts longer.
    Partition {
        /// Until when, in microseconds since the start.
        until: u64,
        /// The groups; nodes that are in none of them are one more, the last.
        groups: Vec<Vec<u32>>,
        /// Nodes that reach all groups, and that all groups reach.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        bridges: Vec<u32>,
        /// Whether only what goes from an earlier group to a later one is lost.
        #[serde(default, skip_serializing_if = "is_false")]
        one_way: bool,
    },
    /// Whatever goes to some nodes or comes from them waits, and arrives when this is over.
    Clog {
        /// Until when, in microseconds since the start.
        until: u64,
        /// Which.
        nodes: Vec<u32>,
    },
    /// Packets to some nodes and from them are lost more often, or take longer.
    Weather {
        /// Until when, in microseconds since the start.
        until: u64,
        /// Which nodes; all when none is named.
        nodes: Vec<u32>,
        /// Packets of a thousand that are lost, beside those that always are.
        loss: u32,
        /// How much longer each takes, in microseconds.
        late: u64,
    },
    /// The wall clock of a node jumps, and goes at another speed from then on. Its deadlines are not moved by it: they go by a clock that only counts.
    Clock {
        /// Which.
        node: u32,
        /// By how much it jumps, in microseconds.
        jump: i64,
        /// By how many millionths it goes too fast.
        drift: i32,
    },
    /// A node turns hostile: it sends frames and datagrams of its own making to everybody it is connected to, and is gone a second later.
    Attack {
        /// Which.
        node: u32,
        /// How many to each.
        frames: u32,
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
    /// A node does something to keys of the replicated state: one change, or a batch of which all is done or nothing.
    Change {
        /// Which.
        node: u32,
        /// What is done, each to another key.
        changes: Vec<Change>,
    },
    /// The application of a node is told something by its owner.
    Tell {
        /// Which.
        node: u32,
        /// The number of the input, counted from 0 over the whole schedule.
        input: u32,
    },
}

/// What makes a node important to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Many neighbors.
    Degree,
    /// Without it the overlay falls apart; in their order, and no others when there are fewer.
    Articulation,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Happening {
    /// The cluster is cut into two groups until a moment.
    pub fn cut(until: u64, side: Vec<u32>) -> Self {
        Happening::Partition { until, groups: vec![side], bridges: Vec::new(), one_way: false }
    }

    /// A short stable name; the kinds of faults are counted under it.
    pub fn name(&self) -> &'static str {
        match self {
            Happening::Start { .. } => "start",
            Happening::Crash { .. } => "crash",
            Happening::Restart { .. } => "restart",
            Happening::Leave { .. } => "leave",
            Happening::Strike { .. } => "strike",
            Happening::Pause { .. } => "pause",
            Happening::Slow { .. } => "slow",
            Happening::Break { .. } => "break",
            Happening::Partition { bridges, .. } if !bridges.is_empty() => "bridge",
            Happening::Partition { one_way: true, .. } => "one_way",
            Happening::Partition { .. } => "partition",
            Happening::Clog { .. } => "clog",
            Happening::Weather { .. } => "weather",
            Happening::Clock { .. } => "clock",
            Happening::Attack { .. } => "attack",
            Happening::Calm => "calm",
            Happening::Broadcast { .. } => "broadcast",
            Happening::Send { .. } => "send",
            Happening::Write { .. } => "write",
            Happening::Remove { .. } => "remove",
            Happening::Change { .. } => "change",
            Happening::Tell { .. } => "tell",
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
                | Happening::Change { .. }
                | Happening::Tell { .. }
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
            | Happening::Slow { node, .. }
            | Happening::Break { node }
            | Happening::Clock { node, .. }
            | Happening::Attack { node, .. }
            | Happening::Broadcast { node, .. }
            | Happening::Send { node, .. }
            | Happening::Write { node, .. }
            | Happening::Remove { node, .. }
            | Happening::Change { node, .. }
            | Happening::Tell { node, .. } => Some(*node),
            Happening::Strike { .. }
            | Happening::Partition { .. }
            | Happening::Clog { .. }
            | Happening::Weather { .. }
            | Happening::Calm => None,
        }
    }

    /// Whether it is a fault: neither work, nor a node that comes in, nor the calm at the end.
    pub fn is_fault(&self) -> bool {
        !self.is_workload() && !matches!(self, Happening::Start { .. } | Happening::Restart { .. } | Happening::Calm)
    }

    /// Whether a node starts again with the disk that it had.
    pub fn keeps_disk(&self) -> bool {
        matches!(self, Happening::Restart { disk: true, .. })
    }

    /// Whether a node stops for it, at once or soon after.
    pub fn stops(&self) -> bool {
        matches!(self, Happening::Crash { .. } | Happening::Leave { .. } | Happening::Attack { .. })
    }

    /// When it is over that began at a moment.
    pub fn ends_at(&self, at: u64) -> u64 {
        match self {
            Happening::Partition { until, .. }
            | Happening::Clog { until, .. }
            | Happening::Weather { until, .. }
            | Happening::Slow { until, .. } => *until,
            Happening::Pause { micros, .. } => at.saturating_add(*micros),
            Happening::Attack { .. } => at.saturating_add(ATTACK_MICROS),
            _ => at,
        }
    }

    /// Whether its numbers are of a size that a run can have, beside its times.
    pub(crate) fn is_within_bounds(&self) -> bool {
        match self {
            Happening::Slow { micros, .. } => *micros <= DELAY_MAX,
            Happening::Weather { loss, late, .. } => *loss <= LOSS_MAX && *late <= DELAY_MAX,
            Happening::Clock { jump, drift, .. } => jump.unsigned_abs() <= JUMP_MAX && drift.unsigned_abs() <= DRIFT_MAX,
            Happening::Attack { frames, .. } => *frames <= FRAMES_MAX,
            Happening::Change { changes, .. } => (1..=BATCH_LEN_MAX).contains(&changes.len()) && changes.iter().all(Change::is_sound),
            _ => true,
        }
    }

    /// The nodes that it names, for leaving some of them out: each is replaced by what `of` says, or taken off the list, and the answer is whether anything is left
    /// to happen.
    pub fn rename(&mut self, of: &dyn Fn(u32) -> Option<u32>) -> bool {
        let list = |nodes: &mut Vec<u32>| *nodes = nodes.iter().filter_map(|node| of(*node)).collect();
        let one = |node: &mut u32| of(*node).map(|named| *node = named).is_some();
        match self {
            Happening::Start { node, contacts } | Happening::Restart { node, contacts, .. } => {
                list(contacts);
                one(node)
            }
            Happening::Crash { node }
            | Happening::Leave { node }
            | Happening::Pause { node, .. }
            | Happening::Slow { node, .. }
            | Happening::Break { node }
            | Happening::Clock { node, .. }
            | Happening::Attack { node, .. }
            | Happening::Broadcast { node, .. }
            | Happening::Write { node, .. }
            | Happening::Remove { node, .. }
            | Happening::Change { node, .. }
            | Happening::Tell { node, .. } => one(node),
            Happening::Send { node, to, .. } => one(node) && one(to),
            Happening::Strike { .. } | Happening::Calm => true,
            Happening::Partition { groups, bridges, .. } => {
                groups.iter_mut().for_each(list);
                groups.retain(|group| !group.is_empty());
                list(bridges);
                !groups.is_empty()
            }
            Happening::Clog { nodes, .. } => {
                list(nodes);
                !nodes.is_empty()
            }
            Happening::Weather { nodes, .. } => {
                let was_all = nodes.is_empty();
                list(nodes);
                was_all || !nodes.is_empty()
            }
        }
    }
}

/// Everything that will be done, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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

    /// Keeps the entries of which `is_kept` says so, which may change them.
    pub fn retain(&mut self, is_kept: impl FnMut(&mut Entry) -> bool) {
        self.entries.retain_mut(is_kept);
    }

    /// How many broadcasts there must be numbers for.
    pub fn messages(&self) -> usize {
        let numbers = self.entries.iter().filter_map(|entry| match entry.what {
            Happening::Broadcast { message, .. } => Some(message as usize + 1),
            _ => None,
        });
        numbers.max().unwrap_or(0)
    }

    /// The least number that no write of a value has.
    pub fn next_write(&self) -> u32 {
        let of_deed = |change: &Change| match change.deed {
            Deed::Set { write } | Deed::SetFor { write, .. } | Deed::Best { write, .. } | Deed::Put { write } => Some(write),
            Deed::Include { member } => Some(member),
            // The members of sets may be any, and come back.
            _ => None,
        };
        let numbers = self.entries.iter().filter_map(|entry| match &entry.what {
            Happening::Write { write, .. } => Some(*write),
            Happening::Change { changes, .. } => changes.iter().filter_map(of_deed).max(),
            _ => None,
        });
        numbers.max().map_or(0, |write| write + 1)
    }

    /// When the node does the last of all that it does to the replicated state; none when nothing is done to it.
    pub fn last_write(&self) -> Option<u64> {
        let is_one = |what: &Happening| matches!(what, Happening::Write { .. } | Happening::Remove { .. } | Happening::Change { .. });
        self.entries.iter().filter(|entry| is_one(&entry.what)).map(|entry| entry.at).max()
    }

    /// When the last of everything is over.
    pub fn ends_at(&self) -> u64 {
        self.entries.iter().map(|entry| entry.what.ends_at(entry.at)).max().unwrap_or(0)
    }

    /// How many entries have this name.
    pub fn count(&self, name: &str) -> u64 {
        self.entries.iter().filter(|entry| entry.what.name() == name).count() as u64
    }

    /// How many keys of the replicated state it writes.
    pub fn keys(&self) -> u64 {
        let (mut registers, mut places) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.entries {
            match &entry.what {
                Happening::Write { key, .. } => drop(registers.insert(*key)),
                Happening::Change { changes, .. } => places.extend(changes.iter().map(|change| change.place)),
                _ => {}
            }
        }
        (registers.len() + places.len()) as u64
    }
}
