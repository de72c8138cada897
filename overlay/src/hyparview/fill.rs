//! Filling the active view: replacements, retries, and the way back from isolation (section 4.3 of the paper).

use super::*;

impl<I: Identifier> State<I> {
    /// Slots neither taken nor kept for an answer.
    pub(super) fn room(&self) -> usize {
        self.params.active_len_max.saturating_sub(self.active.len() + self.kept())
    }

    pub(super) fn kept(&self) -> usize {
        self.requests.iter().filter(|request| request.purpose.keeps_slot()).count()
    }

    /// A neighbor was lost: replacements are looked for at once.
    pub(super) fn on_slot_free(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.fruitless = 0;
        self.requests_left = self.params.requests_per_retry;
        self.fill(now, actions);
    }

    /// Asks passive peers for every free slot, within the budget until the next retry.
    pub(super) fn fill(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        if self.has_left || self.active.len() == self.params.active_len_max {
            self.fruitless = 0;
            self.timers.cancel(Key::Fill);
            return;
        }
        self.arm_fill(now);
        if now >= self.fill_after {
            self.ask_candidates(now, false, actions);
        }
        // Nobody left to ask: back to the start, which costs from the same budget so that a dead contact is not dialed in a circle.
        if self.active.is_empty() && self.requests.is_empty() && now >= self.fill_after && self.requests_left > 0 {
            self.requests_left -= 1;
            self.rejoin(now, actions);
        }
    }

    pub(super) fn ask_candidates(&mut self, now: Time, ignore_pauses: bool, actions: &mut Vec<Action<I>>) {
        // Section 4.3: a node without any neighbor asks with high priority, which may not be refused for want of a slot.
        let (priority, in_flight_max) = match self.active.is_empty() {
            true => (Priority::High, HIGH_REQUESTS_MAX.min(self.params.requests_len_max)),
            false => (Priority::Low, self.params.requests_len_max),
        };
        let in_parallel = self.params.has(Improvement::FillInParallel);
        let moment = if ignore_pauses { Time::MAX } else { now };
        let purpose = Purpose::Fill(priority);
        while self.requests_left > 0
            && self.room() > 0
            && match in_parallel {
                true => self.requests.iter().filter(|request| request.purpose == purpose).count() < in_flight_max,
                // Section 4.3: another one is tried once this one has refused or cannot be reached.
                false => !self.requests.iter().any(|request| matches!(request.purpose, Purpose::Fill(_))),
            }
        {
            let requests = &self.requests;
            let Some(peer) = self.passive.pick(moment, |peer| requests.iter().any(|request| request.peer == peer), &mut self.random) else {
                break;
            };
            self.requests_left -= 1;
            self.send_request(peer, purpose, now, actions);
        }
    }

    /// Sets the retry, or brings it forward.
    pub(super) fn arm_fill(&mut self, now: Time) {
        let longest = match self.active.len() {
            0 => self.params.rejoin_period_max,
            len if len < self.params.active_len_min => self.params.retry_period * 2,
            _ => self.params.shuffle_period.max(self.params.retry_period),
        };
        let delay = self.params.retry_period.saturating_mul(1 << self.fruitless.min(16)).min(longest);
        // Compared before the random part is added, which would otherwise bring it forward a little with every call.
        if self.timers.get(Key::Fill).is_none_or(|at| at > now + delay.mul_f64(1.25)) {
            let at = now + delay.mul_f64(self.random.random_range(0.75..1.25));
            self.timers.set(Key::Fill, at);
        }
    }

    pub(super) fn on_fill_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.requests_left = self.params.requests_per_retry;
        self.fruitless = self.fruitless.saturating_add(1);
        if self.active.is_empty() {
            // No more than there are peers to ask, or a node that knows one dead contact would dial it again and again.
            let known = self.passive.len() + self.contacts.len() + self.acquaintances.len();
            self.requests_left = self.requests_left.min(u8::try_from(known).unwrap_or(u8::MAX));
            self.ask_candidates(now, true, actions);
            // Contacts answer with walks and candidates, so they come second and then always.
            if self.requests.is_empty() || self.fruitless > 2 {
                self.rejoin(now, actions);
            }
        } else if self.room() > 0 && now >= self.fill_after {
            if self.passive.len() == 0 {
                // Whoever was lost counts as dead. When all were lost at once it may have been their links alone.
                self.known().into_iter().for_each(|peer| {
                    self.learn(peer, &[]);
                });
            }
            if self.params.has(Improvement::OwnWalks) {
                // A walk of our own. Whoever has a free slot answers it; so do full nodes if we miss two.
                self.send_walks(self.me, self.room(), 1, actions);
            }
        }
        self.fill(now, actions);
    }

    /// Contacts and past neighbors.
    pub(super) fn known(&self) -> Vec<I> {
        self.contacts.iter().chain(&self.acquaintances).copied().collect()
    }

    /// Starts again from a contact or a past neighbor, each in its turn.
    pub(super) fn rejoin(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let len = self.contacts.len() + self.acquaintances.len();
        if len == 0 || self.requests.iter().any(|request| request.purpose == Purpose::Join) {
            return;
        }
        let turn = self.contact_turn % len;
        self.contact_turn = turn + 1;
        let contact = self.contacts.iter().chain(&self.acquaintances).nth(turn).copied();
        if let Some(contact) = contact {
            self.send_join(contact, now, actions);
        }
    }

    pub(super) fn send_join(&mut self, contact: I, now: Time, actions: &mut Vec<Action<I>>) {
        if self.room() > 0 && self.request_of(contact).is_none() {
            self.send_request(contact, Purpose::Join, now, actions);
        }
    }

    pub(super) fn send_request(&mut self, peer: I, purpose: Purpose, now: Time, actions: &mut Vec<Action<I>>) {
        let link = self.push_request(peer, purpose, now);
        let message = match purpose {
            Purpose::Join => Message::Join { link },
            Purpose::Fill(priority) => Message::Neighbor { link, priority },
            Purpose::Succeed => Message::Neighbor { link, priority: Priority::Low },
            Purpose::Evict if self.params.has(Improvement::Splice) => Message::Neighbor { link, priority: Priority::Low },
            // Section 4.2: the end of a walk takes the joiner in whatever the state of both views.
            Purpose::Evict => Message::Neighbor { link, priority: Priority::High },
            Purpose::Heal => Message::Neighbor { link, priority: Priority::Heal },
            // The one goes out with what was measured, and for the other nothing does.
            Purpose::Near | Purpose::Awaited => return,
        };
        send(peer, message, actions);
    }

    /// Notes a request that ends in time, and draws the number of the link that it would become.
    pub(super) fn push_request(&mut self, peer: I, purpose: Purpose, now: Time) -> u32 {
        let link = self.random.random();
        let until = now + self.params.request_timeout;
        reserve(&mut self.requests);
        self.requests.push(Request { peer, link, purpose, until });
        self.timers.set_if_absent(Key::Requests, until);
        link
    }

    pub(super) fn on_requests_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let before = self.requests.len();
        let passive = &mut self.passive;
        self.requests.retain(|request| {
            let waits = request.until > now;
            if !waits {
                passive.remove(request.peer);
            }
            waits
        });
        self.counters.count(|counters| counters.timeouts += (before - self.requests.len()) as u64);
        if let Some(until) = self.requests.iter().map(|request| request.until).min() {
            self.timers.set(Key::Requests, until);
        }
        self.fill(now, actions);
    }

    /// The contact has started walks for us: about half a retry later we ask for what they did not bring.
    pub(super) fn wait_for_walks(&mut self, now: Time) {
        if !self.params.has(Improvement::AnswerPeers) {
            // Nobody was named whom we could ask in their place, so there is nothing to wait with.
            self.fill_after = now;
            return;
        }
        self.fill_after = now + self.params.retry_period.mul_f64(self.random.random_range(0.25..0.75));
        self.timers.set(Key::Fill, self.fill_after);
    }
}
