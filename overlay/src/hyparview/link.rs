//! Links: how they come to stand, and how they end (sections 4.3 and 4.4 of the paper).

use super::*;

impl<I: Identifier> State<I> {
    pub(super) fn on_neighbor(&mut self, from: I, link: u32, priority: Priority, now: Time, actions: &mut Vec<Action<I>>) {
        if self.link_of(from).is_some() {
            self.relink(from, link, now, actions);
            return;
        }
        let wanted = self.request_of(from).map(|request| request.purpose);
        if !self.yield_to(from) {
            return;
        }
        // A wish of low priority may be refused; the others belong to somebody who has nobody else.
        let pretends = || priority == Priority::Low && wanted.is_none() && self.params.buggify().happens(Site::NeighborRefused);
        let accepts = self.room() > 0 && !pretends()
            || match priority {
                // It asks us while we were about to evict for it: the eviction is already paid for.
                _ if matches!(wanted, Some(Purpose::Evict | Purpose::Heal)) => true,
                Priority::Low => false,
                Priority::High if !self.params.has(Improvement::LimitHigh) => true,
                Priority::High => self.is_unfavored(from, now) && self.may_evict(now),
                Priority::Heal if !self.params.has(Improvement::Heal) && !self.params.has(Improvement::OpenClosedGroups) => false,
                Priority::Heal => {
                    self.is_unfavored(from, now) && {
                        let links_max = self.params.heal_links;
                        self.aside().heals_granted.take(now, links_max, Duration::from_secs(1))
                    }
                }
            };
        if accepts {
            self.accept(from, link, false, now, actions);
        } else {
            if self.params.has(Improvement::LearnMore) {
                self.learn(from, &[]);
            }
            self.refuse(from, link, now, actions);
        }
    }

    pub(super) fn on_neighbor_reply(&mut self, from: I, link: u32, accepted: bool, peers: &[I], now: Time, actions: &mut Vec<Action<I>>) {
        let Some(request) = self.take_request(from, link) else {
            let held = self.link_of(from);
            if accepted && held != Some(link) {
                // The request was given up before the answer came, so the link stands on the other side only. It also took the place of
                // a link that we still hold, if there is one.
                self.counters.count(|counters| counters.one_way_links += 1);
                send(from, Message::Disconnect { link, reason: Farewell::NoLink, peers: Peers::new() }, actions);
                if held.is_some() {
                    self.drop_link(from, DownReason::Disconnected, actions);
                    self.on_slot_free(now, actions);
                }
            }
            return;
        };
        self.learn_all(peers, &[]);
        if accepted {
            self.on_accepted(request, peers.first().copied(), now, actions);
        } else {
            self.counters.count(|counters| counters.refused += 1);
            self.on_refused(request, now);
            if request.purpose == Purpose::Succeed && self.room() > 0 {
                // Our request has overtaken the news that a place is free; by now that has come.
                self.send_request(from, Purpose::Fill(Priority::Low), now, actions);
            }
        }
        self.fill(now, actions);
    }

    /// The peer holds the link from now on, and so do we.
    pub(super) fn on_accepted(&mut self, request: Request<I>, first: Option<I>, now: Time, actions: &mut Vec<Action<I>>) {
        match request.purpose {
            Purpose::Join => self.wait_for_walks(now),
            Purpose::Heal => self.counters.count(|counters| counters.healed += 1),
            Purpose::Near => return self.on_swapped(request, first, now, actions),
            Purpose::Fill(_) | Purpose::Succeed | Purpose::Evict | Purpose::Awaited => {}
        }
        self.make_room(request.peer, now, actions);
        self.add_link(request.peer, request.link, now, actions);
    }

    pub(super) fn on_refused(&mut self, request: Request<I>, now: Time) {
        if request.purpose == Purpose::Join {
            self.wait_for_walks(now);
        }
        self.learn(request.peer, &[]);
        self.passive.pause(request.peer, now + self.params.refusal_pause);
    }

    pub(super) fn on_disconnect(&mut self, from: I, link: u32, reason: Farewell, peers: &[I], now: Time, actions: &mut Vec<Action<I>>) {
        let was_neighbor = self.link_of(from) == Some(link);
        if was_neighbor {
            let down = match reason {
                Farewell::Evicted | Farewell::Swapped => DownReason::EvictedUs,
                Farewell::Leaving => DownReason::Left,
                Farewell::NoLink => DownReason::Disconnected,
            };
            self.drop_link(from, down, actions);
        } else if self.take_request(from, link).is_none() {
            // It speaks of a link that is long gone.
            if reason == Farewell::Leaving {
                self.passive.remove(from);
            }
            return;
        }
        self.learn_all(peers, &[]);
        if reason == Farewell::Leaving {
            self.forget(from);
        } else {
            self.learn(from, &[]);
            self.passive.pause(from, now + self.params.refusal_pause);
        }
        // Whoever took our place has a slot to spare, or was told to ask us.
        let can_be_linked = |peer: &I| *peer != self.me && self.link_of(*peer).is_none() && self.request_of(*peer).is_none();
        let successor = peers.first().copied().filter(|peer| self.room() > 0 && can_be_linked(peer));
        match (reason, successor) {
            (Farewell::Evicted, Some(successor)) => self.send_request(successor, Purpose::Succeed, now, actions),
            (Farewell::Swapped, Some(successor)) if was_neighbor => {
                self.push_request(successor, Purpose::Awaited, now);
            }
            _ => {}
        }
        if was_neighbor {
            self.on_slot_free(now, actions);
        } else {
            // It was only asked. Asked for a new budget each time it would be asked again as fast as it says no, by who knows nobody else.
            self.fill(now, actions);
        }
    }

    pub(super) fn on_alive(&mut self, from: I, link: u32, now: Time, actions: &mut Vec<Action<I>>) {
        if self.link_of(from) == Some(link) {
            return;
        }
        if let Some(request) = self.take_request(from, link) {
            // The answer was lost or comes behind.
            self.on_accepted(request, None, now, actions);
            self.fill(now, actions);
            return;
        }
        self.counters.count(|counters| counters.one_way_links += 1);
        send(from, Message::Disconnect { link, reason: Farewell::NoLink, peers: Peers::new() }, actions);
    }

    pub(super) fn on_alive_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        for (peer, link) in self.active.iter().zip(&self.links) {
            send(*peer, Message::Alive { link: link.number }, actions);
        }
        if !self.active.is_empty() {
            self.timers.set(Key::Alive, now + self.params.alive_period);
        }
    }

    /// The peer is gone: unreachable, or dead for the membership.
    pub(super) fn on_lost(&mut self, peer: I, reason: DownReason, now: Time, actions: &mut Vec<Action<I>>) {
        if let Some(request) = self.request_of(peer).copied() {
            self.take_request(peer, request.link);
            // The budget is for peers that say no. The dead are forgotten, so they use up themselves; after a massive failure most are dead.
            if matches!(request.purpose, Purpose::Fill(_)) {
                self.requests_left = self.requests_left.saturating_add(1).min(self.params.requests_per_retry);
            }
            if request.purpose == Purpose::Join {
                // No walk is under way.
                self.fill_after = now;
            }
        }
        self.passive.remove(peer);
        self.heal_no_more(peer);
        if let Some(aside) = &mut self.aside {
            aside.storm.retain(|(joiner, _)| *joiner != peer);
        }
        if self.drop_link(peer, reason, actions) {
            self.on_slot_free(now, actions);
        } else {
            self.fill(now, actions);
        }
    }

    /// A neighbor asks again. It has lost the link, so we have a new one; or its request came twice.
    pub(super) fn relink(&mut self, peer: I, link: u32, now: Time, actions: &mut Vec<Action<I>>) {
        let is_new = self.link_of(peer) != Some(link);
        if is_new {
            self.drop_link(peer, DownReason::Disconnected, actions);
            self.accept(peer, link, false, now, actions);
        } else {
            self.send_reply(peer, link, true, 0, actions);
        }
    }

    /// Two requests crossed: that of the smaller name counts, or each side would answer for a link that the other has given up. Says whether
    /// the request of `peer` is to be answered.
    pub(super) fn yield_to(&mut self, peer: I) -> bool {
        if self.request_of(peer).is_none() {
            return true;
        }
        let yields = peer < self.me || self.request_of(peer).is_some_and(|request| request.purpose == Purpose::Awaited);
        if yields {
            self.requests.retain(|request| request.peer != peer);
        }
        yields
    }

    /// Becomes a neighbor of `peer`. Candidates go to joiners only: anybody else knows some, and those that two neighbors share close triangles
    /// (measured: without this rule a storm of 5,000 joins left a graph eight times as clustered).
    pub(super) fn accept(&mut self, peer: I, link: u32, is_joiner: bool, now: Time, actions: &mut Vec<Action<I>>) {
        self.make_room(peer, now, actions);
        self.send_reply(peer, link, true, if is_joiner { CANDIDATES_LEN_MAX } else { 0 }, actions);
        self.add_link(peer, link, now, actions);
        self.fill(now, actions);
    }

    pub(super) fn refuse(&mut self, peer: I, link: u32, now: Time, actions: &mut Vec<Action<I>>) {
        self.counters.count(|counters| counters.refusals += 1);
        self.send_reply(peer, link, false, CANDIDATES_LEN_MAX, actions);
        // Neither does it have a place for us, or not for long.
        self.passive.pause(peer, now + self.params.refusal_pause);
    }

    pub(super) fn send_reply(&mut self, peer: I, link: u32, accepted: bool, peers_len: usize, actions: &mut Vec<Action<I>>) {
        let candidates = if self.params.has(Improvement::AnswerPeers) { self.candidates(peer, peers_len) } else { Vec::new() };
        let peers = Peers::first_of(candidates);
        send(peer, Message::NeighborReply { link, accepted, peers }, actions);
    }

    /// Frees a slot for `newcomer` if none is: a request of ours gives way, or else a neighbor.
    pub(super) fn make_room(&mut self, newcomer: I, now: Time, actions: &mut Vec<Action<I>>) {
        if self.room() > 0 {
            return;
        }
        if self.active.len() < self.params.active_len_max {
            // An answer to it that comes later finds no request and ends the link.
            if let Some(index) = self.requests.iter().rposition(|request| request.purpose.keeps_slot()) {
                self.requests.remove(index);
            }
            return;
        }
        // The newest links are spared while there are older ones, or newcomers would only push each other out.
        let settled = |link: &Link| now.since(link.since) >= self.params.retry_period;
        let has_settled = self.params.has(Improvement::SpareNewest) && self.links.iter().any(settled);
        let Some((index, link)) =
            self.links.iter().copied().enumerate().filter(|(_, link)| !has_settled || settled(link)).choose(&mut self.random)
        else {
            return;
        };
        let evicted = self.active[index];
        let mut peers = self.replacements(evicted);
        if self.params.has(Improvement::FarewellPeers) {
            peers.retain(|peer| *peer != newcomer);
            peers.insert(0, newcomer);
            peers.truncate(CANDIDATES_LEN_MAX);
        }
        send(evicted, Message::Disconnect { link: link.number, reason: Farewell::Evicted, peers: Peers::first_of(peers) }, actions);
        self.drop_link(evicted, DownReason::Evicted, actions);
        self.learn(evicted, &[]);
        self.passive.pause(evicted, now + self.params.refusal_pause);
        self.counters.count(|counters| counters.evictions += 1);
        if self.favored.len() >= FAVORED_LEN_MAX {
            self.favored.remove(0);
        }
        self.favored.push((newcomer, now));
    }

    /// Peers that a neighbor may take in our place, given along with a farewell.
    pub(super) fn replacements(&mut self, neighbor: I) -> Vec<I> {
        if self.params.has(Improvement::FarewellPeers) { self.candidates(neighbor, CANDIDATES_LEN_MAX) } else { Vec::new() }
    }

    pub(super) fn may_evict(&mut self, now: Time) -> bool {
        self.evictions.take(now, self.params.evictions_per_second, per_second(self.params.evictions_per_second))
    }

    pub(super) fn is_unfavored(&self, peer: I, now: Time) -> bool {
        !self.favored.iter().any(|(favored, at)| *favored == peer && now.since(*at) < self.params.refusal_pause)
    }

    pub(super) fn add_link(&mut self, peer: I, link: u32, now: Time, actions: &mut Vec<Action<I>>) {
        self.requests.retain(|request| request.peer != peer);
        self.passive.remove(peer);
        self.heal_no_more(peer);
        if let Err(index) = self.active.binary_search(&peer) {
            reserve(&mut self.active);
            reserve(&mut self.links);
            self.active.insert(index, peer);
            self.links.insert(index, Link { number: link, distance: 0, since: now });
        }
        self.rewire_later(now);
        self.near_later(now);
        if self.params.has(Improvement::Reseed) {
            remember(&mut self.acquaintances, peer);
        }
        self.fruitless = 0;
        actions.push(Action::NeighborUp(peer));
        if self.active.len() == 1 {
            // The first neighbor. Random phases, or nodes that start together would speak together for ever; and the first shuffle comes
            // early, because a joiner knows nearly nobody.
            let phase = self.random.random_range(0.0..1.0);
            self.timers.set_if_absent(Key::Alive, now + self.params.alive_period.mul_f64(phase));
            let soon = self.params.retry_period.min(self.params.shuffle_period);
            self.timers.set_if_absent(Key::Shuffle, now + soon.mul_f64(0.5 + phase));
        }
    }

    /// Removes a neighbor, if it is one, and says whether it was.
    pub(super) fn drop_link(&mut self, peer: I, reason: DownReason, actions: &mut Vec<Action<I>>) -> bool {
        let Ok(index) = self.active.binary_search(&peer) else {
            return false;
        };
        self.active.remove(index);
        if self.links.remove(index).distance > 0 {
            self.near_was_lost();
        }
        actions.push(Action::NeighborDown(peer, reason));
        true
    }

    /// Forgets a peer that left for good.
    pub(super) fn forget(&mut self, peer: I) {
        self.passive.remove(peer);
        self.acquaintances.retain(|known| *known != peer);
        self.heal_no_more(peer);
    }
}
