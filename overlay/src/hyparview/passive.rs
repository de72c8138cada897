//! The passive view: peers that may become neighbors.

use meshwork_channels::Time;
use meshwork_channels::random::Generator;
use rand::RngExt;
use rand::seq::IteratorRandom;

use crate::identifier::Identifier;
use crate::sorted::{Sorted, reserve};

/// Peers that others may take the place of, the first first.
#[derive(Debug)]
pub(super) struct Spare<'a, I> {
    peers: &'a [I],
    /// So many of them, from the first on, were looked for and are not there.
    gone: usize,
}

impl<'a, I: Identifier> Spare<'a, I> {
    pub(super) const fn new(peers: &'a [I]) -> Self {
        Spare { peers, gone: 0 }
    }

    /// Where the first one that is there lies.
    fn find(&mut self, passive: &Passive<I>) -> Option<usize> {
        while let Some(peer) = self.peers.get(self.gone) {
            if let Ok(index) = passive.find(*peer) {
                return Some(index);
            }
            self.gone += 1;
        }
        None
    }

    /// A peer is there from now on.
    fn came(&mut self, peer: I) {
        if let Some(at) = self.peers[..self.gone].iter().position(|other| *other == peer) {
            self.gone = at;
        }
    }
}

/// A bounded set of candidates, in order of their names.
#[derive(Clone, Debug)]
pub(super) struct Passive<I> {
    peers: Vec<I>,
    /// Those that refused: not asked before that moment. Few have, so the moments lie beside the names.
    ask_after: Sorted<I, Time>,
}

impl<I: Identifier> Passive<I> {
    pub(super) fn new() -> Self {
        Passive { peers: Vec::new(), ask_after: Sorted::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Reads some of it; see [`super::State::warm`].
    pub(super) fn warm(&self) -> u64 {
        let has = |at| u64::from(self.peers.get(at) == self.peers.first());
        has(self.peers.len() / 2) + has(self.peers.len().saturating_sub(1))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = I> + '_ {
        self.peers.iter().copied()
    }

    pub(super) fn contains(&self, peer: I) -> bool {
        self.find(peer).is_ok()
    }

    fn find(&self, peer: I) -> Result<usize, usize> {
        self.peers.binary_search(&peer)
    }

    fn remove_at(&mut self, index: usize) {
        let peer = self.peers.remove(index);
        self.ask_after.remove(&peer);
    }

    /// Adds a peer; says whether it is new. In a full view it takes the place of one of `spare` if there is one, else of a random one.
    pub(super) fn insert(&mut self, peer: I, len_max: usize, spare: &mut Spare<'_, I>, random: &mut Generator) -> bool {
        if self.contains(peer) {
            return false;
        }
        if self.peers.len() >= len_max {
            let index = spare.find(self).unwrap_or_else(|| random.random_range(0..self.peers.len()));
            self.remove_at(index);
        }
        spare.came(peer);
        let index = self.find(peer).unwrap_or_else(|index| index);
        reserve(&mut self.peers);
        self.peers.insert(index, peer);
        true
    }

    pub(super) fn remove(&mut self, peer: I) -> bool {
        match self.find(peer) {
            Ok(index) => {
                self.remove_at(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Does not offer the peer before `until`.
    pub(super) fn pause(&mut self, peer: I, until: Time) {
        if self.contains(peer) {
            self.ask_after.insert(peer, until);
        }
    }

    /// Forgets the pauses that are over, and so mean nothing any more.
    pub(super) fn end_pauses(&mut self, now: Time) {
        while let Some(peer) = self.ask_after.iter().find(|(_, after)| **after <= now).map(|(peer, _)| *peer) {
            self.ask_after.remove(&peer);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Passive::new();
    }

    /// The first peer behind another in the order of names, and then from the start, that may be asked now and is none of those that `skip` names.
    pub(super) fn next_after(&self, peer: I, now: Time, skip: impl Fn(I) -> bool) -> Option<I> {
        let at = self.find(peer).map_or_else(|at| at, |at| at + 1);
        let mut in_turn = self.peers[at..].iter().chain(&self.peers[..at]).copied();
        in_turn.find(|peer| !skip(*peer) && self.ask_after.get(peer).is_none_or(|after| *after <= now))
    }

    /// A random peer that may be asked now and is none of those that `skip` names.
    pub(super) fn pick(&self, now: Time, skip: impl Fn(I) -> bool, random: &mut Generator) -> Option<I> {
        // Both are in the order of names.
        let mut pauses = self.ask_after.iter().peekable();
        let mut may_be_asked = |peer: I| {
            while pauses.next_if(|(paused, _)| **paused < peer).is_some() {}
            pauses.peek().is_none_or(|(paused, after)| **paused != peer || **after <= now)
        };
        self.peers.iter().copied().filter(|peer| may_be_asked(*peer) && !skip(*peer)).choose(random)
    }
}
