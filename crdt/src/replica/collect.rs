//! How removed keys are forgotten, and what becomes of a replica that others did not wait for.

use std::time::Duration;

use meshwork_channels::{Now, PeerId, random};

use super::{Action, Message, Pending, State};
use crate::floor::begin_of;
use crate::hlc::Stamp;
use crate::key::Key;
use crate::register::Register;
use crate::store::Held;
use crate::value::Actor;
use crate::wire::Known;

/// How long a removal that was made again waits before it is told, on average: long enough that few of very many tell theirs.
const AGAIN_DELAY: Duration = Duration::from_secs(1);

/// Former names that are known: those of four weeks in which a name is taken with every step of the floor. Where an older one was, the new one comes beside it.
const FORMER_ACTORS_MAX: usize = 4_096;

impl State {
    /// Everything that was removed before is forgotten here.
    pub fn floor(&self) -> Stamp {
        begin_of(self.repair.floor().position().floor)
    }

    /// A member said that it leaves: nobody waits for it before a removal is forgotten.
    pub(super) fn on_left(&mut self, member: PeerId, now: Now) {
        let now = self.repair.second(now);
        self.repair.floor_mut().left(member, now);
    }

    /// Forgets what the floor passed, if it rose.
    pub(super) fn collect(&mut self) {
        if !self.repair.take_risen() {
            return;
        }
        let floor = self.floor();
        // What has expired here has not yet for whoever has not come to that moment.
        let is_over = |held: &Held| held.expiry().is_none_or(|until| begin_of(until) < floor);
        let doomed: Vec<Key> = self.not_ours(|held| !held.is_live() && held.latest() < floor && is_over(held));
        self.rename(&doomed);
        for key in doomed {
            self.store.forget(&key);
            self.counters.collected += 1;
            self.note(&key);
        }
    }

    /// Others went on without this replica. What they may have removed meanwhile goes, and comes back from them if they did not.
    pub(super) fn on_away(&mut self, from: PeerId, floor: u32, table: &[Known], now: Now, actions: &mut Vec<Action>) {
        let clock = self.repair.second(now);
        let Some(me) = table.iter().find(|known| known.member == self.me) else { return };
        if !self.repair.is_neighbor(from) {
            return;
        }
        // What cannot be is believed as far as it can: without an answer we would be kept out until our clock is right.
        let floor = self.repair.floor().credible(floor, clock);
        let (back, is_to_give_up) = self.repair.floor_mut().went_on_without_me(me.left, floor, clock);
        if is_to_give_up {
            let floor = begin_of(floor);
            // What is new in a counter or a set says nothing of what was in it before: others may have removed that.
            let doomed = self.not_ours(|held| held.is_live() && (held.is_typed() || held.latest() < floor));
            self.rename(&doomed);
            for key in doomed {
                let Some(stamp) = self.store.get(&key).map(|held| held.marker.stamp) else { continue };
                self.store.forget(&key);
                self.counters.given_up += 1;
                self.note(&key);
                let told = self.changed(key, None, stamp);
                actions.push(told);
            }
        }
        self.repair.floor_mut().heard(from, table, clock);
        actions.push(Action::Send { to: from, message: Message::Back { back } });
    }

    /// Steps are numbered from one again where a value is forgotten. Whoever still has it would take them for those that it knows, so they get another name.
    fn rename(&mut self, doomed: &[Key]) {
        if doomed.iter().any(|key| self.store.get(key).is_some_and(Held::is_typed)) {
            if self.former_actors.len() == FORMER_ACTORS_MAX {
                self.former_actors.pop_first();
            }
            self.former_actors.insert(self.actor);
            self.actor = Actor(random::hash(&[self.actor.0, self.clock.last().to_bits()]));
        }
    }

    /// The keys of the entries that are meant, but for those that this replica wrote and that others may not know of.
    fn not_ours(&self, is_meant: impl Fn(&Held) -> bool) -> Vec<Key> {
        let acknowledged = begin_of(self.repair.floor().position().acknowledged);
        let is_ours = |held: &Held| *held.marker.origin == self.me && held.marker.stamp >= acknowledged;
        let all = self.store.iter("").filter(|(_, held)| is_meant(held) && !is_ours(held));
        all.map(|(key, _)| key.clone()).collect()
    }

    /// What is to be held in place of an entry that came. A removal that comes only after the floor passed it, from somebody who was away, would be forgotten
    /// before all have heard of it: it is made again.
    pub(super) fn renewed(&mut self, key: &Key, new: Held, now: Now) -> Held {
        let is_late = !new.is_live() && new.latest() < self.floor() && self.store.get(key).is_some_and(Held::is_live);
        if !is_late {
            return new;
        }
        let stamp = self.clock.tick(self.wall(now));
        self.written_at = stamp;
        self.counters.removed_again += 1;
        self.outbox.push(key.clone(), Pending { stamp, step: None });
        // Where it came to all at once, whoever hears of one that was made later in the meantime tells nothing.
        let delay = self.repair.around(AGAIN_DELAY, 1.0);
        self.outbox.flush_at = self.outbox.flush_at.or(Some(now.time + delay));
        match self.signing_of(key) {
            Some(signing) => self.store.register(stamp, self.me, Register::Signed(Box::new(signing.sign(key, stamp, None)))),
            None => self.store.again(new, stamp, self.me),
        }
    }
}
