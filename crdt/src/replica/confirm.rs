//! Writes that other replicas confirm, keys that they are asked for, and writes of others that are awaited: what [`confirm`](crate::confirm) decides, done
//! to the map.

use std::collections::BTreeSet;
use std::time::Duration;

use meshwork_channels::{Bounded, DecodeError, Misbehavior, Now, PeerId};

use super::{Action, Message, Op, SetError, State};
use crate::confirm::{Call, ConfirmError, ConfirmId, Confirmed, Matter};
use crate::key::Key;
use crate::token::WriteToken;
use crate::wire::{self, Decline};

impl State {
    /// Does something to a key, as [`State::apply`] does, and names that write.
    ///
    /// # Errors
    ///
    /// A [`SetError`]; nothing was changed.
    pub fn apply_named(&mut self, key: &str, op: Op, now: Now, actions: &mut Vec<Action>) -> Result<Option<WriteToken>, SetError> {
        let me = self.me;
        self.apply_and(key, op, now, actions, |key, pending| WriteToken::new(key.clone(), pending.stamp, me, pending.step.as_ref()))
    }

    /// Whether as many others could be asked now: for whoever asks before it writes.
    ///
    /// # Errors
    ///
    /// A [`ConfirmError`].
    pub fn check_confirm(&self, peers: usize, required: usize) -> Result<(), ConfirmError> {
        self.confirms.check_room(peers, required)
    }

    /// Has what a key holds held by so many others, of these in this order. [`Action::Confirmed`] tells how that ended, at once where nobody is needed or nothing was ever
    /// under the key.
    ///
    /// # Errors
    ///
    /// A [`ConfirmError`]; nobody was asked.
    pub fn confirm(&mut self, key: &str, call: Call, now: Now, actions: &mut Vec<Action>) -> Result<(), ConfirmError> {
        let entry = Key::try_from(key).ok().and_then(|key| self.entry_of(&key));
        let required = if entry.is_some() { call.required } else { 0 };
        self.begin_confirm(Matter::Hold(Bounded::first_of(entry)), Call { required, ..call }, now, actions)
    }

    /// Asks others, of these in this order, what they hold under a key, and joins it, until so many have answered. [`Action::Confirmed`] tells how that ended; what
    /// the key holds then is the answer.
    ///
    /// # Errors
    ///
    /// A [`ConfirmError`]; nobody was asked.
    pub fn ask(&mut self, key: Key, call: Call, now: Now, actions: &mut Vec<Action>) -> Result<(), ConfirmError> {
        self.begin_confirm(Matter::Ask(key), call, now, actions)
    }

    /// Waits until this replica holds a write, or what took its place. [`Action::Confirmed`] tells when it does, at once if it does already.
    ///
    /// # Errors
    ///
    /// A [`ConfirmError`]; nothing is waited for.
    pub fn await_write(
        &mut self,
        id: ConfirmId,
        token: WriteToken,
        within: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), ConfirmError> {
        self.confirms.check_room(0, 0)?;
        let key = token.key().clone();
        let call = Call { id, peers: Vec::new(), required: 0, within };
        self.confirms.begin(Matter::Await(Box::new(token)), call, now.time, actions);
        self.confirms.touch(&key);
        self.confirms.settle(&self.store, actions);
        Ok(())
    }

    /// Whether this replica holds a write, or what took its place.
    pub fn holds(&self, token: &WriteToken) -> bool {
        self.store.get(token.key()).is_some_and(|held| token.is_in(held))
    }

    /// Nobody waits any more for what was begun under this number. A write is not undone by that, and [`Action::Confirmed`] does not come.
    pub fn give_up(&mut self, id: ConfirmId) {
        self.confirms.give_up(id);
    }

    fn begin_confirm(&mut self, matter: Matter, mut call: Call, now: Now, actions: &mut Vec<Action>) -> Result<(), ConfirmError> {
        let mut seen = BTreeSet::from([self.me]);
        call.peers.retain(|peer| seen.insert(*peer));
        call.peers.truncate(crate::confirm::PEERS_MAX);
        let Call { id, required, .. } = call;
        self.confirms.check_room(call.peers.len(), required)?;
        if required == 0 {
            let confirmed = Confirmed { is_enough: true, required, by: Vec::new(), declined: Vec::new(), silent: Vec::new() };
            actions.push(Action::Confirmed { id, confirmed });
            return Ok(());
        }
        self.confirms.begin(matter, call, now.time, actions);
        self.check();
        Ok(())
    }

    /// The answer is smaller than the question, so no peer can use it to make this replica send much.
    pub(super) fn on_hold(&mut self, from: PeerId, id: u64, entries: Vec<wire::Entry>, now: Now, actions: &mut Vec<Action>) {
        if self.config.repair_period.is_none() {
            return;
        }
        let declined = match self.is_kept_out(from, now, actions) {
            true => Some(Decline::Away),
            false => {
                let told = entries.clone();
                self.take(from, entries, now, actions)
                    .or_else(|| told.iter().any(|entry| self.let_expire(entry)).then_some(Decline::Expired))
            }
        };
        self.counters.confirmed += u64::from(declined.is_none());
        let message = declined.map_or(Message::Held { id }, |why| Message::Declined { id, why });
        actions.push(Action::Send { to: from, message });
    }

    /// Whether of a value that somebody else still has only a hash is left here.
    fn let_expire(&self, wire::Entry { key, stamp, origin, body }: &wire::Entry) -> bool {
        let held = self.store.get(key).filter(|held| !held.is_live() && held.expiry().is_some());
        body.is_live() && held.is_some_and(|held| !held.is_beyond(*stamp, *origin, body))
    }

    pub(super) fn on_ask(&mut self, from: PeerId, id: u64, key: &Key, now: Now, actions: &mut Vec<Action>) {
        if self.config.repair_period.is_none() {
            return;
        }
        let message = if self.is_kept_out(from, now, actions) {
            Message::Declined { id, why: Decline::Away }
        } else if !self.repair.spend(from, now.time) {
            self.counters.throttled += 1;
            Message::Declined { id, why: Decline::Busy }
        } else {
            self.counters.confirmed += 1;
            Message::Answer { id, entries: Bounded::first_of(self.entry_of(key)) }
        };
        actions.push(Action::Send { to: from, message });
    }

    pub(super) fn on_held(&mut self, from: PeerId, id: u64, now: Now, actions: &mut Vec<Action>) {
        if !matches!(self.confirms.matter(from, id), Some(Matter::Hold(_))) {
            return;
        }
        // It gives up what others may have removed meanwhile: its word is worth nothing before.
        match self.is_kept_out(from, now, actions) {
            true => self.confirms.on_declined(from, id, Decline::Away, actions),
            false => self.confirms.on_done(from, id, actions),
        }
    }

    pub(super) fn on_answer(&mut self, from: PeerId, id: u64, entries: Vec<wire::Entry>, now: Now, actions: &mut Vec<Action>) {
        let Some(Matter::Ask(key)) = self.confirms.matter(from, id) else { return };
        if entries.len() > 1 || entries.iter().any(|entry| entry.key != *key) {
            return self.misbehaved(from, Misbehavior::Undecodable(DecodeError::Invalid), actions);
        }
        let declined = match self.is_kept_out(from, now, actions) {
            true => Some(Decline::Away),
            false => self.take(from, entries, now, actions),
        };
        match declined {
            Some(why) => self.confirms.on_declined(from, id, why, actions),
            None => self.confirms.on_done(from, id, actions),
        }
    }
}
