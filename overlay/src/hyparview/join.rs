//! Entering and leaving (section 4.2 of the paper).

use super::*;

impl<I: Identifier> State<I> {
    pub(super) fn on_join_wanted(&mut self, contact: I, now: Time, actions: &mut Vec<Action<I>>) {
        if contact == self.me {
            return;
        }
        self.has_left = false;
        if self.params.has(Improvement::Reseed) {
            remember(&mut self.contacts, contact);
        }
        if self.link_of(contact).is_some() {
            return;
        }
        if self.active.is_empty() {
            self.fruitless = 0;
            // With a join under way further contacts are the reserve.
            if !self.requests.iter().any(|request| request.purpose == Purpose::Join) {
                self.send_join(contact, now, actions);
                self.fill_after = now + self.params.retry_period;
            }
            self.arm_fill(now);
        } else if self.params.has(Improvement::Heal) {
            // Somebody wants these two connected, and they may belong to overlays that have never met: worth a link even between full views.
            self.want_heal(contact, now);
        }
    }

    pub(super) fn on_join(&mut self, from: I, link: u32, now: Time, actions: &mut Vec<Action<I>>) {
        if self.link_of(from).is_some() {
            self.relink(from, link, now, actions);
            return;
        }
        if !self.yield_to(from) {
            return;
        }
        if !self.params.has(Improvement::KeepView) {
            // Section 4.2: the contact takes every joiner in, if need be in the place of a random neighbor, and tells all others of it.
            self.accept(from, link, true, now, actions);
            let missing = u8::try_from(self.params.active_len_max - 1).unwrap_or(MISSING_MAX);
            for to in self.active.iter().copied().filter(|peer| *peer != from) {
                send(to, Message::ForwardJoin { joiner: from, ttl: self.params.active_walk_len, missing }, actions);
            }
            return;
        }
        if self.room() > 0 {
            self.accept(from, link, true, now, actions);
            self.send_walks(from, self.params.active_len_max - 1, self.params.join_walks, actions);
            return;
        }
        let is_in_time = self.joins.take(now, self.params.joins_per_second, per_second(self.params.joins_per_second));
        if is_in_time || !self.params.has(Improvement::StormMixing) {
            self.learn(from, &[]);
            self.refuse(from, link, now, actions);
            self.send_walks(from, self.params.active_len_max, self.params.join_walks, actions);
            return;
        }
        if self.aside().storm.iter().any(|(joiner, _)| *joiner == from) {
            return misbehaved(from, Misbehavior::TooManyRequests, actions);
        }
        self.counters.count(|counters| counters.storm_joiners += 1);
        self.aside().storm.push((from, link));
        self.send_walks(from, self.params.active_len_max, 1, actions);
        if self.aside().storm.len() >= self.params.storm_len_max {
            self.end_storm(actions);
        } else {
            self.timers.set_if_absent(Key::Storm, now + self.params.storm_delay);
        }
    }

    /// Introduces the joiners of a storm to one another, each with some peers of the older overlay.
    pub(super) fn end_storm(&mut self, actions: &mut Vec<Action<I>>) {
        self.timers.cancel(Key::Storm);
        let storm = std::mem::take(&mut self.aside().storm);
        if storm.len() < STORM_LEN_MIN {
            // So few would all know each other. They get the walks of other joiners, a little later.
            for (joiner, link) in storm {
                self.learn(joiner, &[]);
                self.counters.count(|counters| counters.refusals += 1);
                self.send_reply(joiner, link, false, CANDIDATES_LEN_MAX, actions);
                self.send_walks(joiner, self.params.active_len_max, self.params.join_walks - 1, actions);
            }
            return;
        }
        for (joiner, link) in &storm {
            let mut peers = self.candidates(*joiner, 2);
            // Drawn with replacement: a storm is long, so a draw rarely repeats, and a short one needs no eight peers.
            for _ in peers.len()..CANDIDATES_LEN_MAX {
                let (other, _) = storm[self.random.random_range(0..storm.len())];
                if other != *joiner && !peers.contains(&other) {
                    peers.push(other);
                }
            }
            self.counters.count(|counters| counters.refusals += 1);
            send(*joiner, Message::NeighborReply { link: *link, accepted: false, peers: Peers::first_of(peers) }, actions);
        }
        // Only now, and only some: what we knew before ties the storm to the older overlay.
        for (joiner, _) in sample(storm.into_iter(), CANDIDATES_LEN_MAX, &mut self.random) {
            self.learn(joiner, &[]);
        }
    }

    /// Starts up to `count` walks for a joiner that misses `missing` neighbors. One walk finds up to two.
    pub(super) fn send_walks(&mut self, joiner: I, missing: usize, count: usize, actions: &mut Vec<Action<I>>) {
        let missing = u8::try_from(missing).unwrap_or(MISSING_MAX);
        let ttl = self.params.active_walk_len;
        let count = count.min(missing.div_ceil(2).into());
        for to in sample(self.active.iter().copied().filter(|peer| *peer != joiner), count, &mut self.random) {
            send(to, Message::ForwardJoin { joiner, ttl, missing }, actions);
        }
    }

    pub(super) fn on_forward_join(&mut self, from: I, joiner: I, ttl: u8, missing: u8, now: Time, actions: &mut Vec<Action<I>>) {
        let ttl = ttl.min(self.params.active_walk_len);
        let missing = missing.min(MISSING_MAX);
        let next = self.random_neighbor(&[from, joiner]);
        let is_end = ttl == 0 || next.is_none();
        let is_known = self.link_of(joiner).is_some() || self.request_of(joiner).is_some();
        // Section 4.2: the walk leaves the joiner in the passive view of the node where PRWL steps are left.
        if ttl == self.params.passive_walk_len {
            self.learn(joiner, &[]);
        }
        if !self.params.has(Improvement::Splice) {
            return self.walk_on(joiner, ttl, missing, next, now, actions);
        }
        // The paper takes the joiner in where the walk ends. A free slot from the middle of the walk on is as random and spares an eviction.
        if !is_known && self.room() > 0 && (is_end || ttl <= self.params.passive_walk_len) {
            return self.send_request(joiner, Purpose::Fill(Priority::Low), now, actions);
        }
        match next {
            Some(next) if !is_end => send(next, Message::ForwardJoin { joiner, ttl: ttl - 1, missing }, actions),
            // The end, at a full node: the joiner is put between us and a neighbor, if it has a slot for both.
            _ if !is_known && missing >= 2 && self.active.len() == self.params.active_len_max && self.may_evict(now) => {
                self.send_request(joiner, Purpose::Evict, now, actions);
            }
            _ => self.counters.count(|counters| counters.walks_lost += 1),
        }
    }

    /// Section 4.2: a walk ends at its last step or at a node with one neighbor, which takes the joiner in, if need be in the place of
    /// another.
    fn walk_on(&mut self, joiner: I, ttl: u8, missing: u8, next: Option<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match next {
            Some(next) if ttl > 0 && self.active.len() > 1 => {
                send(next, Message::ForwardJoin { joiner, ttl: ttl - 1, missing }, actions);
            }
            _ if self.link_of(joiner).is_some() || self.request_of(joiner).is_some() => {
                self.counters.count(|counters| counters.walks_lost += 1);
            }
            _ => {
                let purpose = if self.room() > 0 { Purpose::Fill(Priority::High) } else { Purpose::Evict };
                self.send_request(joiner, purpose, now, actions);
            }
        }
    }

    pub(super) fn on_leave(&mut self, actions: &mut Vec<Action<I>>) {
        for (joiner, link) in self.aside.take().map_or_else(Vec::new, |aside| aside.storm) {
            send(joiner, Message::Disconnect { link, reason: Farewell::Leaving, peers: Peers::new() }, actions);
        }
        for (peer, link) in self.active.clone().into_iter().zip(std::mem::take(&mut self.links)) {
            let peers = Peers::first_of(self.replacements(peer));
            send(peer, Message::Disconnect { link: link.number, reason: Farewell::Leaving, peers }, actions);
            actions.push(Action::NeighborDown(peer, DownReason::Leaving));
        }
        self.active.clear();
        self.passive.clear();
        self.requests.clear();
        self.contacts.clear();
        self.acquaintances.clear();
        self.shuffling = None;
        self.near = None;
        self.timers = Deadlines::new();
        self.has_left = true;
    }

    /// After we left: whoever believes in a link, or wants one, learns that we are gone.
    pub(super) fn turn_away(&mut self, from: I, message: &Message<I>, actions: &mut Vec<Action<I>>) {
        let (Message::Join { link }
        | Message::Neighbor { link, .. }
        | Message::NeighborReply { link, accepted: true, .. }
        | Message::Alive { link }
        | Message::Swap { link, .. }) = message
        else {
            return;
        };
        send(from, Message::Disconnect { link: *link, reason: Farewell::Leaving, peers: Peers::new() }, actions);
    }
}
