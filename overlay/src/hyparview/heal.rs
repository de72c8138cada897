//! What the membership tells: new peers, and peers from beyond a healed partition; and what it cannot tell: that a group is closed.

use super::*;

impl<I: Identifier> State<I> {
    pub(super) fn on_member_up(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        if !self.has_left && self.params.has(Improvement::LearnMore) && self.learn(peer, &[]) {
            // Worth a request, however many were made in vain.
            self.requests_left = self.requests_left.max(1);
            self.fruitless = 0;
            self.fill(now, actions);
        }
    }

    pub(super) fn on_member_back(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        if self.has_left || peer == self.me || self.link_of(peer).is_some() {
            return;
        }
        if self.params.has(Improvement::LearnMore) {
            self.learn(peer, &[]);
        }
        if self.params.has(Improvement::Heal) {
            self.want_heal(peer, now);
        }
        self.fill(now, actions);
    }

    /// Puts a peer into the sample of those that are asked for a link though both views are full.
    pub(super) fn want_heal(&mut self, peer: I, now: Time) {
        let returned = &mut self.aside.get_or_insert_default().returned;
        if returned.contains(&peer) {
            return;
        }
        if returned.len() < RETURNED_LEN_MAX {
            returned.push(peer);
        } else {
            let index = self.random.random_range(0..RETURNED_LEN_MAX);
            returned[index] = peer;
        }
        let phase = Duration::from_secs(1).mul_f64(self.random.random_range(0.0..1.0));
        self.timers.set_if_absent(Key::Heal, now + phase);
    }

    /// There is a link to the peer, or there can be none.
    pub(super) fn heal_no_more(&mut self, peer: I) {
        if let Some(aside) = &mut self.aside {
            aside.returned.retain(|returned| *returned != peer);
        }
    }

    pub(super) fn aside(&mut self) -> &mut Aside<I> {
        self.aside.get_or_insert_default()
    }

    pub(super) fn on_heal_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let each = self.params.heal_pause / self.params.heal_links;
        let aside = self.aside.get_or_insert_default();
        if aside.returned.is_empty() || !aside.heals_asked.allows(now, self.params.heal_links, each) {
            // Every node asks for a few links, so that all together bridge the gap without a storm.
            aside.returned.clear();
            return;
        }
        let peer = aside.returned.swap_remove(self.random.random_range(0..aside.returned.len()));
        if self.link_of(peer).is_none() && self.request_of(peer).is_none() {
            let links_max = self.params.heal_links;
            self.aside().heals_asked.take(now, links_max, each);
            self.send_request(peer, Purpose::Heal, now, actions);
        }
        self.timers.set(Key::Heal, now + Duration::from_secs(1));
    }

    /// A closed group looks healthy to each of its nodes, be it four that found only each other or a pair beside others whose views are full. But every shuffle that
    /// comes by began in it, so the same few origins come again and again; then one of the peers that the membership told us of is worth a link.
    pub(super) fn on_rewire_due(&mut self, now: Time) {
        if self.has_left || self.active.is_empty() {
            return;
        }
        self.rewire_later(now);
        let mut origins: Vec<I> = self.origins.iter().copied().collect();
        origins.sort_unstable();
        origins.dedup();
        let is_closed = self.origins.len() >= ORIGINS_LEN_MIN && origins.len() * ORIGINS_LEN <= self.origins.len() * ORIGINS_FEW;
        if !is_closed {
            return;
        }
        let is_beyond = |peer: &I| origins.binary_search(peer).is_err();
        let mut beyond: Vec<I> = self.passive.iter().filter(is_beyond).collect();
        if beyond.is_empty() {
            // Everybody beyond was lost at once, and with that forgotten.
            beyond = self.known().into_iter().filter(|peer| is_beyond(peer) && *peer != self.me && self.link_of(*peer).is_none()).collect();
        }
        if let Some(peer) = beyond.into_iter().choose(&mut self.random) {
            self.want_heal(peer, now);
        }
    }

    pub(super) fn rewire_later(&mut self, now: Time) {
        if !self.params.has(Improvement::OpenClosedGroups) {
            return;
        }
        let period = self.params.rewire_period.mul_f64(self.random.random_range(0.5..1.5));
        self.timers.set_if_absent(Key::Rewire, now + period);
    }

    pub(super) fn note_origin(&mut self, origin: I) {
        if !self.params.has(Improvement::OpenClosedGroups) {
            return;
        }
        if self.origins.len() == ORIGINS_LEN {
            self.origins.pop_front();
        }
        self.origins.push_back(origin);
    }
}
