//! Telling neighbors what is held: the announcements beside the tree, a summary for one of them now and then, and all of it for a new one.

use meshwork_channels::Time;
use meshwork_channels::buggify::Site;
use rand::RngExt;

use super::message::{self, LinkNews, Message, Packer};
use super::neighbor::{Announce, Neighbor};
use super::{Action, Improvement, MessageId, State};
use crate::identifier::Identifier;

impl<I: Identifier> State<I> {
    pub(super) fn announce_to(&mut self, at: usize, actions: &mut Vec<Action<I>>) {
        let neighbor = &mut self.neighbors[at];
        let to = neighbor.peer;
        match std::mem::replace(&mut neighbor.announce, Announce::Nothing) {
            Announce::Nothing => {}
            Announce::One(id, hops) => {
                self.counters.count(|counters| counters.ihave_ids_sent += 1);
                self.counters.count(|counters| counters.ihave_frames_sent += 1);
                actions.push(Action::Send { to, message: Message::IHave { link: LinkNews::Same, groups: message::one(id, hops) } });
            }
            Announce::Several(several) => {
                let mut packer = Packer::new();
                several.iter().for_each(|(id, hops)| packer.add(*id, *hops));
                self.send_ihave(to, LinkNews::Same, packer, actions);
            }
        }
    }

    /// Makes sure that a summary tells soon of what is held.
    pub(super) fn plan_summary(&mut self, now: Time) {
        let period = self.params.config().summary_period;
        if self.summary_at > now + period && self.store.len() > 0 && self.params.has(Improvement::Summary) {
            // At a random phase, or all nodes would send theirs in the same moment after a broadcast.
            self.summary_at = now + period.mul_f64(self.generator.random_range(0.0..1.0));
        }
    }

    /// Tells one neighbor at random what came since it was told last, but not what it sent itself. When all were told, what is held is next looked at when
    /// some of it is past its retention.
    pub(super) fn send_summary(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.summary_at = now + self.params.config().summary_period;
        while let Some(at) = self.draw_untold() {
            let packer = self.summarize(at);
            if packer.ids() > 0 {
                self.counters.count(|counters| counters.summaries_sent += 1);
                self.send_ihave(self.neighbors[at].peer, LinkNews::Same, packer, actions);
                return;
            }
        }
        self.summary_at = match self.store.len() {
            0 => Time::MAX,
            _ => self.summary_at.max(self.store.oldest_at() + self.params.config().payload_retention),
        };
    }

    /// A neighbor that was not told of everything. Lazy links are twice as likely: over eager ones little can be missing.
    fn draw_untold(&mut self) -> Option<usize> {
        let weight = |neighbor: &Neighbor<I>| match self.store.len_after(neighbor.told) {
            0 => 0,
            _ if neighbor.eager => 1,
            _ => 2,
        };
        let total: usize = self.neighbors.iter().map(weight).sum();
        if total == 0 {
            return None;
        }
        let mut drawn = self.generator.random_range(0..total);
        self.neighbors.iter().position(|neighbor| {
            let weight = weight(neighbor);
            let is_drawn = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_drawn
        })
    }

    /// The next of what a neighbor was not told, as much as a summary holds.
    fn summarize(&mut self, at: usize) -> Packer<I> {
        let bytes_max = if self.params.buggify().happens(Site::SummaryCut) { 1 } else { self.params.config().summary_bytes_max };
        let neighbor = &mut self.neighbors[at];
        let untold = self.store.len_after(neighbor.told);
        let mut len = untold;
        loop {
            let ids = self.store.after(neighbor.told).take(len).filter(|(_, from)| *from != neighbor.peer).map(|(id, _)| id);
            let packer = packed(ids);
            if packer.bytes() <= bytes_max || len <= 1 {
                neighbor.told = self.store.arrived().wrapping_sub((untold - len) as u32);
                return packer;
            }
            len = (len * bytes_max / packer.bytes()).clamp(1, len - 1);
        }
    }

    /// Tells a neighbor everything that is held. The news about the link come last, when all is said. Summaries tell it once more, since the link may not be
    /// open at its other end.
    pub(super) fn send_backlog(&mut self, to: I, link: LinkNews, actions: &mut Vec<Action<I>>) {
        if !self.params.has(Improvement::Backlog) {
            // Section 3.7: a new neighbor is told nothing.
            return;
        }
        let packer = packed(self.store.after(self.store.begin()).map(|(id, _)| id));
        self.counters.count(|counters| counters.backlogs_sent += 1);
        self.send_ihave(to, link, packer, actions);
    }

    fn send_ihave(&mut self, to: I, link: LinkNews, packer: Packer<I>, actions: &mut Vec<Action<I>>) {
        self.counters.count(|counters| counters.ihave_ids_sent += packer.ids());
        let mut lists = packer.finish();
        if lists.is_empty() && link != LinkNews::Same {
            lists.push(message::Groups::new());
        }
        let len = lists.len();
        for (at, groups) in lists.into_iter().enumerate() {
            let link = if at + 1 == len { link } else { LinkNews::Same };
            self.counters.count(|counters| counters.ihave_frames_sent += 1);
            actions.push(Action::Send { to, message: Message::IHave { link, groups } });
        }
    }
}

/// Identities in any order, packed.
fn packed<I: Identifier>(ids: impl Iterator<Item = MessageId<I>>) -> Packer<I> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    let mut packer = Packer::new();
    for id in ids {
        packer.add(id, 0);
    }
    packer
}
