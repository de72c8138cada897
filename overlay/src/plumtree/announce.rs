//! Telling neighbors what is held: the announcements beside the tree, the summary for one of them now and then, and all of it for a new one.

use meshwork_channels::Time;
use meshwork_channels::buggify::Site;
use rand::RngExt;

use super::message::{self, LinkNews, Message, Packer};
use super::neighbor::{Announce, Neighbor};
use super::{Action, Improvement, State};
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

    /// Tells one neighbor at random what is held. Lazy links are twice as likely: over eager ones little can be missing.
    pub(super) fn send_summary(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        if self.store.len() == 0 {
            self.summary_at = Time::MAX;
            return;
        }
        let config = self.params.config();
        self.summary_at = now + config.summary_period;
        let weight = |neighbor: &Neighbor<I>| if neighbor.eager { 1 } else { 2 };
        let total: usize = self.neighbors.iter().map(weight).sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.generator.random_range(0..total);
        let Some(chosen) = self.neighbors.iter().find(|neighbor| {
            let weight = weight(neighbor);
            let is_chosen = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_chosen
        }) else {
            return;
        };
        let bytes_max = if self.params.buggify().happens(Site::SummaryCut) { 1 } else { config.summary_bytes_max };
        let to = chosen.peer;
        let mut packer = Packer::new();
        let start = self.aside.as_mut().and_then(|aside| aside.summary_from.take());
        let mut left = None;
        for id in self.store.ids_from(start) {
            if packer.bytes() >= bytes_max {
                left = Some(id);
                break;
            }
            packer.add(id, 0);
        }
        if left.is_some() {
            self.aside().summary_from = left;
        }
        self.counters.count(|counters| counters.summaries_sent += 1);
        self.send_ihave(to, LinkNews::Same, packer, actions);
    }

    /// Tells a neighbor everything that is held. The news about the link come last, when all is said.
    pub(super) fn send_backlog(&mut self, to: I, link: LinkNews, actions: &mut Vec<Action<I>>) {
        if !self.params.has(Improvement::Backlog) {
            // Section 3.7: a new neighbor is told nothing.
            return;
        }
        let mut packer = Packer::new();
        for id in self.store.ids_from(None) {
            packer.add(id, 0);
        }
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
