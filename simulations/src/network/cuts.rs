//! What keeps nodes apart for a time, and what makes their links worse.

/// The group of nodes that are on both sides of a cut.
const BRIDGE: u16 = 0;

/// A cut of the cluster into groups. A connection that it parts for longer than the idle timeout breaks.
#[derive(Clone, Debug)]
pub struct Cut {
    /// When it began, in microseconds since the start.
    pub began: u64,
    /// When it heals.
    pub until: u64,
    /// By node: its group.
    group: Vec<u16>,
    /// Whether what goes from a later group to an earlier one passes.
    one_way: bool,
    /// Whether datagrams wait for the end, as what is on streams does, and are not lost.
    pub(super) holds: bool,
}

impl Cut {
    /// A cut of `nodes` nodes into groups; nodes that are neither in one nor a bridge are one more, the last.
    pub fn new(nodes: u32, groups: &[Vec<u32>], bridges: &[u32], one_way: bool, began: u64, until: u64) -> Self {
        let mut group = vec![groups.len() as u16 + 1; nodes as usize];
        for (number, members) in (1..).zip(groups) {
            members.iter().for_each(|node| group[*node as usize] = number);
        }
        bridges.iter().for_each(|node| group[*node as usize] = BRIDGE);
        Cut { began, until, group, one_way, holds: false }
    }

    /// A clog: whatever goes to some of `nodes` nodes or comes from them arrives when it ends.
    pub fn clog(nodes: u32, clogged: &[u32], began: u64, until: u64) -> Self {
        let alone: Vec<Vec<u32>> = clogged.iter().map(|node| vec![*node]).collect();
        Cut { holds: true, ..Cut::new(nodes, &alone, &[], false, began, until) }
    }

    /// Whether nothing passes from one node to another now.
    pub(super) fn parts(&self, from: u32, to: u32, now: u64) -> bool {
        let (from, to) = (self.group[from as usize], self.group[to as usize]);
        self.until > now && from != to && from != BRIDGE && to != BRIDGE && !(self.one_way && from > to)
    }
}

/// Links that are worse for a time.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Until when.
    pub until: u64,
    /// The share of packets that are lost, beside those that always are.
    pub loss: f64,
    /// How much longer each packet takes, in microseconds.
    pub late: u64,
    /// The nodes whose links are meant, in order; none for all.
    pub nodes: Vec<u32>,
}

impl Weather {
    pub(super) fn reaches(&self, from: u32, to: u32, now: u64) -> bool {
        let has = |node: &u32| self.nodes.binary_search(node).is_ok();
        self.until > now && (self.nodes.is_empty() || has(&from) || has(&to))
    }
}
