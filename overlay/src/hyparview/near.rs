//! Near links: some neighbors are chosen by how soon they answer (deviation 13 of the header of [`super`]).
//!
//! A node looks for a peer that is nearer than a neighbor of its own. Both measure how far they are from each other, and if each of them
//! gains they become neighbors: the *seeker* asks, the *candidate* agrees, and each gives up one link for the new one. The two that were
//! given up have a free slot each and become neighbors of one another, so that all four keep their number of links:
//!
//! ```text
//! seeker ──probe──▶ candidate ──answer──▶ seeker ──swap──▶ candidate ──accepted──▶ seeker
//!                                                             │ farewell              │ farewell
//!                                                             ▼                       ▼
//!                                                      waits for a request ◀── old neighbor of the seeker
//! ```
//!
//! A swap that would give the two a common neighbor is refused. A near link gives way on either side only to one that is nearer by a
//! share, so swaps come to an end by themselves. The distances are measured by these very messages: the seeker knows the time from its
//! probe to the answer, the candidate that from its answer to the wish, which quotes a token of the answer. A peer can seem farther than it is, and never nearer.

use super::*;

/// Searches in vain after which the pause before the next one doubles.
const SEARCHES: u32 = 8;
/// Who lost a near link searches as after so many in vain: often enough, and without haste where many lose some at once.
const FRUITLESS_AFTER_LOSS: u32 = 2 * SEARCHES;
/// How many times it doubles at most.
const DOUBLINGS_MAX: u32 = 8;
/// What a swap must gain at least, in microseconds of a round trip. Less is the noise of busy machines.
const GAIN_MIN: u64 = 500;
/// A distance counts so many times less than all before it in what is usual.
const WEIGHT: u32 = 8;

/// A probe, and when what it waits for began to be on its way.
#[derive(Clone, Copy, Debug)]
struct Probe<I> {
    peer: I,
    /// What the message that it waits for must quote.
    nonce: u32,
    at: Time,
}

/// What a node knows of distances, and what is under way.
#[derive(Clone, Debug)]
pub(super) struct Near<I> {
    /// Ours, whose answer is awaited.
    asked: Option<Probe<I>>,
    /// That of another, which was answered. One at a time: whom the next one drives out begins again later.
    answered: Option<Probe<I>>,
    /// How far the peer is that we asked for a swap, and the neighbor that we give up for it.
    wish: Option<(u32, I)>,
    /// Whom we asked last for its distance: all candidates have their turn.
    last: Option<I>,
    /// Neighbors that broadcasts need.
    carrying: Vec<I>,
    /// How far a peer is in the mean, so a neighbor that nobody chose; 0 before any distance was measured.
    usual: u32,
    /// Searches in vain.
    fruitless: u32,
}

impl<I> Default for Near<I> {
    fn default() -> Self {
        Near { asked: None, answered: None, wish: None, last: None, carrying: Vec::new(), usual: 0, fruitless: 0 }
    }
}

impl<I: Identifier> State<I> {
    pub(super) fn near_later(&mut self, now: Time) {
        if !self.params.has(Improvement::NearLinks) || self.near_len_max() == 0 {
            return;
        }
        let fruitless = self.near.as_ref().map_or(0, |near| near.fruitless);
        let pause = self.params.near_period * (1 << (fruitless / SEARCHES).min(DOUBLINGS_MAX));
        self.timers.set_if_absent(Key::Near, now + pause.mul_f64(self.random.random_range(0.5..1.5)));
    }

    /// How many neighbors may be chosen by their distance.
    fn near_len_max(&self) -> usize {
        self.params.active_len_max.saturating_sub(self.params.random_len_min)
    }

    /// Whether nothing is under way that a swap would disturb.
    fn is_calm(&self) -> bool {
        self.active.len() == self.params.active_len_max && self.requests.is_empty() && self.timers.get(Key::Storm).is_none()
    }

    pub(super) fn on_near_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let last = self.near.as_ref().and_then(|near| near.last);
        // Everybody knows the contacts, who would be probed by all.
        let is_contact = |peer| self.contacts.contains(&peer);
        let candidate = match last {
            _ if !self.is_calm() => None,
            Some(last) => self.passive.next_after(last, now, is_contact),
            None => self.passive.pick(now, is_contact, &mut self.random),
        };
        if let Some(peer) = candidate {
            let nonce = self.random.random();
            let near = self.near.get_or_insert_default();
            near.asked = Some(Probe { peer, nonce, at: now });
            near.last = Some(peer);
            near.fruitless = near.fruitless.saturating_add(1);
            send(peer, Message::Probe { nonce }, actions);
        }
        // Without neighbors there is nothing to compare, and the first one begins it again.
        if !self.active.is_empty() {
            self.near_later(now);
        }
    }

    pub(super) fn on_probe(&mut self, from: I, nonce: u32, now: Time, actions: &mut Vec<Action<I>>) {
        let token = self.random.random();
        if self.params.has(Improvement::NearLinks) {
            self.near.get_or_insert_default().answered = Some(Probe { peer: from, nonce: token, at: now });
        }
        send(from, Message::ProbeReply { nonce, token }, actions);
    }

    /// The seeker decides.
    pub(super) fn on_probe_reply(&mut self, from: I, nonce: u32, token: u32, now: Time, actions: &mut Vec<Action<I>>) {
        let Some(near) = &mut self.near else { return };
        let Some(probe) = near.asked.take_if(|probe| probe.peer == from && probe.nonce == nonce) else { return };
        let distance = distance(probe.at, now);
        near.usual = match near.usual {
            0 => distance,
            usual => usual - usual / WEIGHT + distance / WEIGHT,
        };
        let Some(old) = self.worse_than(distance, from, from, now) else { return };
        if let Some(near) = &mut self.near {
            near.wish = Some((distance, old));
        }
        let link = self.push_request(from, Purpose::Near, now);
        let others = Peers::first_of(self.active.iter().copied().filter(|peer| *peer != old));
        send(from, Message::Swap { link, token, old, others }, actions);
    }

    /// The candidate decides.
    #[expect(clippy::too_many_arguments, reason = "the fields of the message, once")]
    pub(super) fn on_swap(&mut self, from: I, link: u32, token: u32, old: I, others: &[I], now: Time, actions: &mut Vec<Action<I>>) {
        let answered = self.near.as_mut().and_then(|near| near.answered.take_if(|probe| probe.peer == from && probe.nonce == token));
        let distance = answered.map(|probe| distance(probe.at, now));
        let worse = distance.and_then(|distance| self.worse_than(distance, from, old, now));
        // Candidates of one node are often neighbors of each other, so that near links would close triangles, which shorten no path.
        let closes_triangle = |given_up: I| self.active.iter().any(|peer| *peer != given_up && others.contains(peer));
        let given_up = worse.filter(|peer| !closes_triangle(*peer));
        let (Some(distance), Some(given_up)) = (distance, given_up) else {
            return self.send_reply(from, link, false, 0, actions);
        };
        self.give_up(given_up, Farewell::Swapped, Some(old), actions);
        send(from, Message::NeighborReply { link, accepted: true, peers: Peers::first_of([given_up]) }, actions);
        self.add_near(from, link, distance, now, actions);
    }

    /// The candidate agreed; `successor` is whom it gave up.
    pub(super) fn on_swapped(&mut self, request: Request<I>, successor: Option<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let wish = self.near.as_mut().and_then(|near| near.wish.take());
        let may_go = |old: I| if self.link_of(old).is_some() { !self.is_carrying(old) } else { self.room() > 0 };
        let Some((distance, old)) = wish.filter(|(_, old)| may_go(*old)) else {
            // The one that we would give up is gone and another took its place, or it has come to be needed.
            return send(request.peer, Message::Disconnect { link: request.link, reason: Farewell::NoLink, peers: Peers::new() }, actions);
        };
        self.give_up(old, Farewell::Evicted, successor, actions);
        self.add_near(request.peer, request.link, distance, now, actions);
        if let Some(near) = &mut self.near {
            near.fruitless = near.fruitless.saturating_sub(1);
        }
    }

    /// Told by the parent in front of a message that may lead to a swap.
    pub(super) fn on_carrying(&mut self, peers: Vec<I>) {
        if let Some(near) = &mut self.near {
            near.carrying = peers;
        }
    }

    /// Who loses a near link looks for another soon, once the view is full again.
    pub(super) fn near_was_lost(&mut self) {
        if let Some(near) = &mut self.near {
            near.fruitless = near.fruitless.min(FRUITLESS_AFTER_LOSS);
            self.timers.cancel(Key::Near);
        }
    }

    fn is_carrying(&self, peer: I) -> bool {
        self.near.as_ref().is_some_and(|near| near.carrying.contains(&peer))
    }

    fn give_up(&mut self, peer: I, reason: Farewell, successor: Option<I>, actions: &mut Vec<Action<I>>) {
        let Some(index) = self.active.binary_search(&peer).ok() else { return };
        let peers = Peers::first_of(successor.filter(|successor| *successor != peer));
        send(peer, Message::Disconnect { link: self.links[index].number, reason, peers }, actions);
        // It was not lost.
        self.links[index].distance = 0;
        self.drop_link(peer, DownReason::Evicted, actions);
        self.learn(peer, &[]);
    }

    fn add_near(&mut self, peer: I, link: u32, distance: u32, now: Time, actions: &mut Vec<Action<I>>) {
        self.add_link(peer, link, now, actions);
        if let Ok(index) = self.active.binary_search(&peer) {
            self.links[index].distance = distance;
        }
        self.counters.count(|counters| counters.swaps += 1);
    }

    /// The neighbor to give up for a peer at a distance, if it is worth that: one that nobody chose while more of those are there than must
    /// stay, else the farthest of the chosen. Neither one that is new, nor `but`, nor one that broadcasts need.
    fn worse_than(&mut self, distance: u32, peer: I, but: I, now: Time) -> Option<I> {
        if !self.is_calm() || self.link_of(peer).is_some() {
            return None;
        }
        let is_full = self.links.iter().filter(|link| link.distance > 0).count() >= self.near_len_max();
        let may_go = |peer: I, link: &Link| {
            let is_settled = now.since(link.since) >= self.params.retry_period;
            is_settled && (link.distance > 0) == is_full && peer != but && !self.is_carrying(peer)
        };
        let candidates = self.active.iter().zip(&self.links).filter(|(peer, link)| may_go(**peer, link));
        let mut spare: Vec<(u32, I)> = candidates.map(|(peer, link)| (link.distance, *peer)).collect();
        spare.shuffle(&mut self.random);
        let (far, old) = spare.into_iter().max_by_key(|(far, _)| *far)?;
        let worse = u64::from(if is_full { far } else { self.near.as_ref()?.usual });
        let gain = GAIN_MIN.max(worse * u64::from(self.params.near_gain_percent) / 100);
        (u64::from(distance) + gain <= worse).then_some(old)
    }
}

/// Between two moments, in microseconds, at least one.
fn distance(from: Time, to: Time) -> u32 {
    u32::try_from(to.since(from).as_micros()).unwrap_or(u32::MAX).max(1)
}
