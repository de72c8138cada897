//! How many other replicas hold something: writes that are confirmed, keys that several are asked for, and writes of others that are awaited.
//!
//! A write is confirmed by handing its entry to other replicas one by one ([`Message::Hold`]), beside the broadcast, until enough of them say that they hold it or
//! something newer. A key is read from several by asking what they hold ([`Message::Ask`]) and joining that, so that the reader is repaired by reading. Both keep
//! to the quorums of Gifford ("Weighted voting for replicated data", SOSP 1979) in that a majority that was written to and a majority that is read from share a
//! replica; nothing else of it is here: nobody is locked, a write is made before anybody confirms it, and one that too few confirmed stays.
//!
//! Whom to ask, and in which order, is the caller's choice. As many are asked as are needed; one more for each that declines, cannot be reached or says nothing
//! for a while, and all of those again from time to time, because whatever was lost is lost.
//!
//! Invariants: what was begun ends exactly once, at the latest when its time is over, unless it is given up; only who was asked counts, and once; nothing
//! is kept of what ended.
//!
//! What a peer can make it store: nothing. The caller can open [`CONFIRMS_MAX`] at once, each with at most one entry and [`PEERS_MAX`] peers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use meshwork_channels::{Bounded, PeerId, Time, Timers};

use crate::key::Key;
use crate::replica::Action;
use crate::store::Store;
use crate::token::WriteToken;
use crate::wire::{ENTRIES_MAX, Entry, Message};

pub use crate::wire::Decline;

/// Writes that are confirmed, keys that are asked for and writes that are awaited, all together.
pub const CONFIRMS_MAX: usize = 1_024;
/// Peers that can be asked for one of them; further ones are not.
pub const PEERS_MAX: usize = 1_024;
/// After so long a peer that said nothing is asked again; twice as long each time. A guess above most round trips.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// Which one; the caller's number, which no other has that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfirmId(pub u64);

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Whether as many as were needed confirmed it before its time was over.
    pub is_enough: bool,
    /// How many others were needed.
    pub required: usize,
    /// Who did.
    pub by: Vec<PeerId>,
    /// Who declined, with the last reason.
    pub declined: Vec<(PeerId, Decline)>,
    /// Who was asked and said nothing.
    pub silent: Vec<PeerId>,
}

impl fmt::Display for Confirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the {} other nodes that it takes", self.by.len(), self.required)?;
        for (peer, why) in &self.declined {
            write!(f, "; {}: {why}", peer.short())?;
        }
        if self.silent.is_empty() { Ok(()) } else { write!(f, "; {} silent", self.silent.len()) }
    }
}

/// Why nobody was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmError {
    /// There are not so many others.
    TooFew {
        /// How many there are.
        have: usize,
        /// How many it takes.
        need: usize,
    },
    /// [`CONFIRMS_MAX`] are open already.
    TooMany,
}

impl fmt::Display for ConfirmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfirmError::TooFew { have, need } => write!(f, "it takes {need} other nodes, and {have} are known"),
            ConfirmError::TooMany => write!(f, "{CONFIRMS_MAX} writes and reads wait for other nodes already; try again later"),
        }
    }
}

impl std::error::Error for ConfirmError {}

/// What the others are asked for.
#[derive(Clone, Debug)]
pub(crate) enum Matter {
    /// To hold this.
    Hold(Bounded<Entry, ENTRIES_MAX>),
    /// What they hold under this key.
    Ask(Key),
    /// Nothing: a write is awaited.
    Await(Box<WriteToken>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Asked,
    /// It said nothing for a while, or cannot be reached: another was asked beside it.
    PassedOver,
    Declined(Decline),
    Done,
}

#[derive(Clone, Debug)]
struct Open {
    matter: Matter,
    required: usize,
    /// In the order in which they were asked.
    asked: Vec<(PeerId, Standing)>,
    /// Who is asked next, the first at the end.
    others: Vec<PeerId>,
    done: usize,
    pause: Duration,
}

/// Whom to ask for a word, how many have to give it, and for how long that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number, used once in the life of a replica.
    pub id: ConfirmId,
    /// Who can be asked, in this order.
    pub peers: Vec<PeerId>,
    /// How many have to confirm it.
    pub required: usize,
    /// For how long.
    pub within: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Again(ConfirmId),
    Over(ConfirmId),
}

/// All that are open.
#[derive(Clone, Debug)]
pub(crate) struct Confirms {
    /// Added to every number on the wire, so that no answer to an earlier life is taken for one to this.
    offset: u64,
    open: BTreeMap<ConfirmId, Open>,
    timers: Timers<Timer>,
    /// Keys of writes that are awaited.
    awaited: BTreeMap<Key, BTreeSet<ConfirmId>>,
    /// Those that changed.
    touched: BTreeSet<Key>,
}

impl Confirms {
    pub(crate) fn new(offset: u64) -> Self {
        Confirms { offset, open: BTreeMap::new(), timers: Timers::new(), awaited: BTreeMap::new(), touched: BTreeSet::new() }
    }

    pub(crate) fn check_room(&self, have: usize, need: usize) -> Result<(), ConfirmError> {
        match have < need {
            true => Err(ConfirmError::TooFew { have, need }),
            false if self.open.len() >= CONFIRMS_MAX => Err(ConfirmError::TooMany),
            false => Ok(()),
        }
    }

    /// Asks the first `required` of these peers, and others of them later.
    pub(crate) fn begin(&mut self, matter: Matter, call: Call, now: Time, actions: &mut Vec<Action>) {
        let Call { id, mut peers, required, within } = call;
        debug_assert!(!self.open.contains_key(&id), "a number is used once");
        peers.reverse();
        if let Matter::Await(token) = &matter {
            self.awaited.entry(token.key().clone()).or_default().insert(id);
        }
        let open = Open { matter, required, asked: Vec::with_capacity(required), others: peers, done: 0, pause: AGAIN };
        self.open.insert(id, open);
        self.timers.set(Timer::Over(id), now + within);
        (0..required).for_each(|_| self.ask_next(id, actions));
        if required > 0 {
            self.timers.set(Timer::Again(id), now + AGAIN);
        }
    }

    /// Forgets one that nobody waits for any more.
    pub(crate) fn give_up(&mut self, id: ConfirmId) {
        self.remove(id);
    }

    /// A peer confirmed one.
    pub(crate) fn on_done(&mut self, from: PeerId, number: u64, actions: &mut Vec<Action>) {
        let id = self.id_of(number);
        let Some(standing) = self.standing(id, from).filter(|standing| **standing != Standing::Done) else { return };
        *standing = Standing::Done;
        let Some(open) = self.open.get_mut(&id) else { return };
        open.done += 1;
        if open.done >= open.required {
            self.end(id, true, actions);
        }
    }

    /// A peer does not confirm one.
    pub(crate) fn on_declined(&mut self, from: PeerId, number: u64, why: Decline, actions: &mut Vec<Action>) {
        let id = self.id_of(number);
        let Some(standing) = self.standing(id, from) else { return };
        match *standing {
            Standing::Done => {}
            Standing::Asked => {
                *standing = Standing::Declined(why);
                self.ask_next(id, actions);
            }
            Standing::PassedOver | Standing::Declined(_) => *standing = Standing::Declined(why),
        }
    }

    /// A peer cannot be reached.
    pub(crate) fn on_unreached(&mut self, peer: PeerId, actions: &mut Vec<Action>) {
        let ids: Vec<ConfirmId> = self.open.keys().copied().collect();
        for id in ids {
            if let Some(standing) = self.standing(id, peer).filter(|standing| **standing == Standing::Asked) {
                *standing = Standing::PassedOver;
                self.ask_next(id, actions);
            }
        }
    }

    /// What a peer was asked under this number, if it was.
    pub(crate) fn matter(&mut self, from: PeerId, number: u64) -> Option<&Matter> {
        let id = self.id_of(number);
        self.standing(id, from)?;
        Some(&self.open.get(&id)?.matter)
    }

    /// What a key holds was replaced.
    pub(crate) fn touch(&mut self, key: &Key) {
        if self.awaited.contains_key(key) {
            self.touched.insert(key.clone());
        }
    }

    /// Ends what waited for something that has come.
    pub(crate) fn settle(&mut self, store: &Store, actions: &mut Vec<Action>) {
        while let Some(key) = self.touched.pop_first() {
            let Some(held) = store.get(&key) else { continue };
            for id in self.awaited.get(&key).cloned().unwrap_or_default() {
                if self.open.get(&id).is_some_and(|open| matches!(&open.matter, Matter::Await(token) if token.is_in(held))) {
                    self.end(id, true, actions);
                }
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    pub(crate) fn deadline_reached(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::Over(id) => self.end(id, false, actions),
                Timer::Again(id) => self.on_again_due(id, now, actions),
            }
        }
    }

    pub(crate) fn check(&self) {
        debug_assert!(self.open.len() <= CONFIRMS_MAX, "what is open is bounded");
        debug_assert!(self.timers.len() <= 2 * self.open.len(), "timers belong to what is open");
        debug_assert!(self.awaited.len() <= self.open.len(), "keys are awaited by what is open");
        debug_assert!(self.touched.is_empty(), "whoever waits is told at once");
    }

    fn on_again_due(&mut self, id: ConfirmId, now: Time, actions: &mut Vec<Action>) {
        let offset = self.offset;
        let Some(open) = self.open.get_mut(&id) else { return };
        let mut newly_silent = 0;
        for (peer, standing) in &mut open.asked {
            if *standing == Standing::Asked {
                *standing = Standing::PassedOver;
                newly_silent += 1;
            }
            if *standing != Standing::Done {
                actions.extend(open.matter.message(id, offset).map(|message| Action::Send { to: *peer, message }));
            }
        }
        open.pause = (open.pause * 2).min(AGAIN_MAX);
        self.timers.set(Timer::Again(id), now + open.pause);
        (0..newly_silent).for_each(|_| self.ask_next(id, actions));
    }

    fn ask_next(&mut self, id: ConfirmId, actions: &mut Vec<Action>) {
        let offset = self.offset;
        let Some(open) = self.open.get_mut(&id) else { return };
        if let Some(to) = open.others.pop() {
            open.asked.push((to, Standing::Asked));
            actions.extend(open.matter.message(id, offset).map(|message| Action::Send { to, message }));
        }
    }

    /// How one stands that was asked; none of others.
    fn standing(&mut self, id: ConfirmId, peer: PeerId) -> Option<&mut Standing> {
        self.open.get_mut(&id)?.asked.iter_mut().find(|(asked, _)| *asked == peer).map(|(_, standing)| standing)
    }

    fn id_of(&self, number: u64) -> ConfirmId {
        ConfirmId(number.wrapping_sub(self.offset))
    }

    fn end(&mut self, id: ConfirmId, is_enough: bool, actions: &mut Vec<Action>) {
        let Some(Open { required, asked, .. }) = self.remove(id) else { return };
        let mut confirmed = Confirmed { is_enough, required, by: Vec::new(), declined: Vec::new(), silent: Vec::new() };
        for (peer, standing) in asked {
            match standing {
                Standing::Done => confirmed.by.push(peer),
                Standing::Declined(why) => confirmed.declined.push((peer, why)),
                Standing::Asked | Standing::PassedOver => confirmed.silent.push(peer),
            }
        }
        actions.push(Action::Confirmed { id, confirmed });
    }

    fn remove(&mut self, id: ConfirmId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.timers.cancel(&Timer::Again(id));
        self.timers.cancel(&Timer::Over(id));
        if let Matter::Await(token) = &open.matter
            && let Some(ids) = self.awaited.get_mut(token.key())
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.awaited.remove(token.key());
            }
        }
        Some(open)
    }
}

impl Matter {
    fn message(&self, id: ConfirmId, offset: u64) -> Option<Message> {
        let id = id.0.wrapping_add(offset);
        match self {
            Matter::Hold(entries) => Some(Message::Hold { id, entries: entries.clone() }),
            Matter::Ask(key) => Some(Message::Ask { id, key: key.clone() }),
            Matter::Await(_) => None,
        }
    }
}
