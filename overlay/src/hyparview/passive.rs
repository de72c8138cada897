//! The passive view: peers that may become neighbors.

use meshwork_channels::Time;
use meshwork_channels::random::Generator;
use rand::RngExt;
use rand::seq::IteratorRandom;

use crate::identifier::Identifier;

/// A peer that may become a neighbor.
#[derive(Clone, Copy, Debug)]
struct Candidate<I> {
    peer: I,
    /// It refused: not asked before this moment.
    ask_after: Time,
}

/// A bounded set of candidates, in order of their names.
#[derive(Clone, Debug)]
pub(super) struct Passive<I> {
    candidates: Vec<Candidate<I>>,
}

impl<I: Identifier> Passive<I> {
    pub(super) fn new() -> Self {
        Passive { candidates: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = I> + '_ {
        self.candidates.iter().map(|candidate| candidate.peer)
    }

    pub(super) fn contains(&self, peer: I) -> bool {
        self.find(peer).is_ok()
    }

    fn find(&self, peer: I) -> Result<usize, usize> {
        self.candidates.binary_search_by(|candidate| candidate.peer.cmp(&peer))
    }

    /// Adds a peer; says whether it is new. In a full view it takes the place of one of `spare` if there is one, else of a random one.
    pub(super) fn insert(&mut self, peer: I, len_max: usize, spare: &[I], random: &mut Generator) -> bool {
        if self.contains(peer) {
            return false;
        }
        if self.candidates.len() >= len_max {
            let index =
                spare.iter().find_map(|spare| self.find(*spare).ok()).unwrap_or_else(|| random.random_range(0..self.candidates.len()));
            self.candidates.remove(index);
        }
        let index = self.find(peer).unwrap_or_else(|index| index);
        self.candidates.insert(index, Candidate { peer, ask_after: Time::ZERO });
        true
    }

    pub(super) fn remove(&mut self, peer: I) -> bool {
        match self.find(peer) {
            Ok(index) => {
                self.candidates.remove(index);
                true
            }
            Err(_) => false,
        }
    }

    /// Does not offer the peer before `until`.
    pub(super) fn pause(&mut self, peer: I, until: Time) {
        if let Ok(index) = self.find(peer) {
            self.candidates[index].ask_after = until;
        }
    }

    pub(super) fn clear(&mut self) {
        self.candidates.clear();
    }

    /// A random peer that may be asked now and is none of those that `skip` names.
    pub(super) fn pick(&self, now: Time, skip: impl Fn(I) -> bool, random: &mut Generator) -> Option<I> {
        let free = self.candidates.iter().filter(|candidate| candidate.ask_after <= now && !skip(candidate.peer));
        free.map(|candidate| candidate.peer).choose(random)
    }
}
