//! What was announced and is not here: waiting for the tree, then asking the announcers (sections 3.5 and 3.6).

use meshwork_channels::buggify::Site;
use meshwork_channels::{Misbehavior, Time};

use super::message::{self, Group, LinkNews, Message, Packer, Push, Range};
use super::store::{Passed, Way};
use super::{Action, EARLY_MAX, Improvement, MessageId, PULLED_MAX, Pulled, SETTLE, State, Stream};
use crate::identifier::Identifier;
use crate::sorted::reserve;

/// A message that was announced and is not here.
#[derive(Clone, Debug)]
pub(super) struct Missing<I> {
    /// Never empty, in the order in which they announced it.
    announcers: Vec<Announcer<I>>,
    phase: Phase<I>,
    since: Time,
    /// How often all announcers have been asked in vain.
    rounds: u8,
}

#[derive(Clone, Copy, Debug)]
struct Announcer<I> {
    peer: I,
    /// As announced; 0 when the message is not on its first way through the tree.
    hops: u16,
    /// Whether it was asked in this round.
    asked: bool,
    /// How often it was asked at all.
    attempts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase<I> {
    /// For the tree, or for the next round.
    Waiting { due: Time },
    /// For room among the open requests of an announcer that was not asked in this round.
    Ready,
    /// For the answer of an announcer.
    Asked { peer: I, at: Time, due: Time },
}

impl<I: Copy + Ord> Missing<I> {
    /// Whether it is on its first way through the tree.
    pub(super) fn is_fresh(&self) -> bool {
        self.announcers.iter().any(|announcer| announcer.hops > 0)
    }

    /// When it was first announced.
    pub(super) fn since(&self) -> Time {
        self.since
    }

    /// The announcer that is nearest to the origin.
    pub(super) fn nearest(&self) -> Option<(I, u16)> {
        let fresh = self.announcers.iter().filter(|announcer| announcer.hops > 0);
        fresh.min_by_key(|announcer| announcer.hops).map(|announcer| (announcer.peer, announcer.hops))
    }

    /// Over how many links an announcer told us of it, if it is on its first way.
    pub(super) fn announced(&self) -> impl Iterator<Item = (I, u16)> {
        self.announcers.iter().map(|announcer| (announcer.peer, announcer.hops)).filter(|(_, hops)| *hops > 0)
    }

    pub(super) fn into_announcers(self) -> Vec<I> {
        self.announcers.into_iter().map(|announcer| announcer.peer).collect()
    }

    fn position(&self, peer: I) -> Option<usize> {
        self.announcers.iter().position(|announcer| announcer.peer == peer)
    }
}

impl<I: Identifier> State<I> {
    /// Section 3.5: what is announced and not here is expected from the tree for a while.
    pub(super) fn on_ihave(&mut self, from: I, link: LinkNews, groups: &[Group<I>], now: Time, actions: &mut Vec<Action<I>>) {
        let Ok(at) = self.find(&from) else {
            // The two sides of a link do not come up in the same instant. Once it is our neighbor, we ask it to say this again.
            self.counters.count(|counters| counters.strangers_ignored += 1);
            self.early.retain(|(early, _)| *early != from);
            if !self.params.has(Improvement::Backlog) || self.params.buggify().happens(Site::EarlyForgotten) {
                return;
            }
            if self.early.len() == EARLY_MAX {
                self.early.remove(0);
            }
            reserve(&mut self.early);
            self.early.push((from, now));
            return;
        };
        let mut budget = self.params.config().missing_per_neighbor_max.saturating_mul(2);
        let mut misbehavior = None;
        'frame: for (stream, range) in ranges(groups) {
            let (first, last) = (stream.message(range.first), stream.message(range.last()));
            if self.params.has(Improvement::SkipHolders) {
                // It has them, so it need not be told of them.
                self.neighbors[at].announce.remove_range(first, last);
            }
            if range.hops > 0
                && range.more == 0
                && let Some(hops) = self.store.shaped_hops(&first)
            {
                self.neighbors[at].nearer = if range.hops <= hops { range.hops } else { 0 };
            }
            if self.is_own(&stream) {
                if range.first == 0 || range.last() > self.sequence(stream.channel) {
                    misbehavior = Some(Misbehavior::OwnName);
                }
                continue;
            }
            let Ok(mut unseen) = self.seen.first_unseen(&stream, range.first, range.last(), now, self.params.seen()) else {
                self.counters.count(|counters| counters.sequences_refused += 1);
                misbehavior = Some(Misbehavior::SequenceAhead);
                continue;
            };
            while let Some((first, last)) = unseen {
                for sequence in first..=last {
                    if budget == 0 || !self.note_announcement(stream.message(sequence), from, range.hops, now) {
                        self.counters.count(|counters| counters.announcements_dropped += 1);
                        break 'frame;
                    }
                    budget -= 1;
                }
                let Some(next) = last.checked_add(1) else { break };
                unseen = self.seen.next_unseen(&stream, next, range.last());
            }
        }
        if let Some(what) = misbehavior {
            actions.push(Action::Misbehaved { peer: from, what });
        }
        if link != LinkNews::Same {
            self.on_link_news(from, link, now, actions);
        }
    }

    /// Notes that `peer` holds a message that is not here; `false` when there is no room for that.
    fn note_announcement(&mut self, id: MessageId<I>, peer: I, hops: u16, now: Time) -> bool {
        if self.seen.has_forgotten() && self.store.contains(&id) {
            // Its stream was forgotten at the bound, and it came before that.
            return true;
        }
        let Ok(at) = self.find(&peer) else { return true };
        let config = self.params.config();
        let is_full = self.neighbors[at].announced_len as usize >= config.missing_per_neighbor_max;
        let announcer = Announcer { peer, hops, asked: false, attempts: 0 };
        match self.missing.get_mut(&id) {
            Some(missing) => {
                if let Some(known) = missing.position(peer) {
                    missing.announcers[known].hops = missing.announcers[known].hops.max(hops);
                    return true;
                }
                if is_full {
                    return false;
                }
                if missing.announcers.len() >= config.announcers_max {
                    self.counters.count(|counters| counters.announcers_dropped += 1);
                    return true;
                }
                missing.announcers.push(announcer);
                self.neighbors[at].announced_len += 1;
                match missing.phase {
                    Phase::Ready => {
                        self.neighbors[at].insert_ready(id);
                        self.is_wanting = true;
                    }
                    // The others were asked in vain; this one was not.
                    Phase::Waiting { .. } if missing.rounds > 0 => self.make_ready(id, now),
                    Phase::Waiting { .. } | Phase::Asked { .. } => {}
                }
            }
            None => {
                if is_full || self.missing.len() >= config.missing_max {
                    return false;
                }
                let due = now
                    + match self.params.has(Improvement::MeasuredTimers) {
                        true => self.tree_lag.bound(config.graft_wait, config.graft_wait_min, config.graft_wait_max),
                        false => config.graft_wait,
                    };
                let missing = Missing { announcers: vec![announcer], phase: Phase::Waiting { due }, since: now, rounds: 0 };
                self.missing.insert(id, missing);
                self.missing_due.insert((due, id), ());
                self.neighbors[at].announced_len += 1;
            }
        }
        true
    }

    /// A link that was replaced without our knowing has lost what we sent over it: tell the neighbor again what we hold.
    fn on_link_news(&mut self, from: I, link: LinkNews, now: Time, actions: &mut Vec<Action<I>>) {
        let begin = self.store.begin();
        let Some(neighbor) = self.neighbor_mut(&from) else { return };
        if link != LinkNews::Same {
            neighbor.told = begin;
            neighbor.lose_unheard();
        }
        let again = match link {
            LinkNews::Same => false,
            LinkNews::Opened => now - neighbor.backlog_at > SETTLE,
            LinkNews::OpenedUnheard => neighbor.may_ask_backlog(now),
        };
        if again {
            neighbor.backlog_asked(now);
            self.send_backlog(from, LinkNews::Same, actions);
        }
        if link != LinkNews::Same {
            self.plan_summary(now);
        }
    }

    /// Section 3.6: the link joins the tree, and what was asked for is sent. What is not held is said, so that the peer asks elsewhere.
    pub(super) fn on_graft(&mut self, from: I, eager: bool, groups: &[Group<I>], now: Time, actions: &mut Vec<Action<I>>) {
        let config = self.params.config();
        let (per_second, burst) = (config.grafts_per_second, config.graft_burst);
        let at = self.find(&from).ok();
        if eager && let Some(at) = at {
            self.neighbors[at].eager = true;
        }
        let quota = match at {
            Some(at) => self.neighbors[at].serve_quota,
            None => self.aside().strangers_quota,
        };
        let available = quota.available(now, per_second, burst);
        let asked = ranges(groups).fold(0_u64, |sum, (_, range)| sum.saturating_add(range.len()));
        let mut gone = Packer::new();
        let ids = ranges(groups).flat_map(|(stream, range)| (range.first..=range.last()).map(move |sequence| stream.message(sequence)));
        let answered = if self.params.buggify().happens(Site::GraftCut) { available.min(asked / 2) } else { available };
        for id in ids.take(usize::try_from(answered).unwrap_or(usize::MAX)) {
            let Some(held) = self.store.get(&id) else {
                gone.add(id, 0);
                continue;
            };
            self.counters.count(|counters| counters.grafts_served += 1);
            self.counters.count(|counters| counters.payload_bytes_sent += held.payload.len() as u64);
            let (hops, payload) = (held.hops.saturating_add(1), held.payload.clone());
            actions.push(Action::Send { to: from, message: Message::Gossip { id, hops, push: Push::Answer, payload } });
            if let Some(at) = at
                && self.params.has(Improvement::SkipHolders)
            {
                self.neighbors[at].announce.remove(&id);
            }
        }
        self.counters.count(|counters| counters.grafts_missed += gone.ids());
        let gone = if self.params.has(Improvement::AnswerGone) { gone.finish() } else { Vec::new() };
        for groups in gone {
            actions.push(Action::Send { to: from, message: Message::Gone { groups } });
        }
        let quota = match at {
            Some(at) => &mut self.neighbors[at].serve_quota,
            None => &mut self.aside().strangers_quota,
        };
        quota.take(asked.min(available), now, per_second);
        if asked > available {
            self.counters.count(|counters| counters.grafts_refused += asked - available);
            actions.push(Action::Misbehaved { peer: from, what: Misbehavior::TooManyRequests });
        }
    }

    /// The peer does not hold what it announced (any more): the next announcer is asked at once.
    pub(super) fn on_gone(&mut self, from: I, groups: &[Group<I>], now: Time) {
        self.on_answers(from, ranges(groups).fold(0, |sum, (_, range)| sum.saturating_add(range.len())));
        // An honest list names each message once, so this is no limit to it.
        let mut budget = self.missing.len();
        for (stream, range) in ranges(groups) {
            let (first, last) = (stream.message(range.first), stream.message(range.last()));
            let mut gone = Vec::new();
            for (id, missing) in self.missing.range(first..=last).take(budget) {
                budget -= 1;
                if missing.position(from).is_some() {
                    gone.push(*id);
                }
            }
            for id in gone {
                self.counters.count(|counters| counters.grafts_gone += 1);
                self.remove_announcer(id, from, now);
            }
        }
    }

    /// So much of what a neighbor was asked for is under way no longer.
    pub(super) fn on_answers(&mut self, from: I, count: u64) {
        let per_second = self.params.unheard_per_second();
        if let Some(neighbor) = self.neighbor_mut(&from) {
            neighbor.heard(count, per_second);
        }
    }

    /// The tree did not bring the message in time, a round begins, or an answer did not come.
    pub(super) fn on_missing_due(&mut self, id: MessageId<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let Some(missing) = self.missing.get(&id) else { return self.mend(&id, actions) };
        match missing.phase {
            Phase::Waiting { .. } => self.make_ready(id, now),
            Phase::Asked { peer, .. } => {
                self.counters.count(|counters| counters.grafts_timed_out += 1);
                let attempts = missing.position(peer).map_or(0, |at| missing.announcers[at].attempts);
                let attempts_max = if self.params.has(Improvement::RetryGrafts) { self.params.config().attempts_max } else { 1 };
                if attempts >= attempts_max {
                    self.remove_announcer(id, peer, now);
                } else {
                    self.leave_phase(&id);
                    self.ask_next(id, now);
                }
            }
            Phase::Ready => {}
        }
    }

    /// A payload on its first way was pulled. Either the tree is broken or it was not waited for long enough: in the second case the wave that
    /// starts here meets that of the tree.
    pub(super) fn on_pulled(&mut self, id: MessageId<I>, from: I, since: Time, now: Time) {
        if !self.is_rooted() || self.neighbor_mut(&from).is_none_or(|neighbor| neighbor.eager) {
            return;
        }
        let due = now + self.params.config().graft_wait_max;
        let pulled = self.pulled.get_or_insert_default();
        if pulled.len() < PULLED_MAX {
            pulled.push(Pulled { id, from, since, due });
            self.missing_due.insert((due, id), ());
        }
    }

    /// The wave of the tree has come to where another wave was before. If that one started at a pull, the node there learns that the tree is
    /// whole.
    pub(super) fn on_meeting(&mut self, id: &MessageId<I>, way: Way<I>, now: Time, actions: &mut Vec<Action<I>>) {
        if way.passed == Passed::Pulled && !self.is_pulled_here(id, now) && self.find(&way.from).is_ok() {
            actions.push(Action::Send { to: way.from, message: Message::Met { id: *id } });
        }
    }

    /// Ends the doubt about a payload that was pulled here; says whether there was one. What the tree lagged behind is learned from it.
    fn is_pulled_here(&mut self, id: &MessageId<I>, now: Time) -> bool {
        let Some(Pulled { since, due, .. }) = self.take_pulled(id) else { return false };
        self.missing_due.remove(&(due, *id));
        self.tree_lag.sample(now - since);
        true
    }

    fn take_pulled(&mut self, id: &MessageId<I>) -> Option<Pulled<I>> {
        let pulled = self.pulled.as_mut()?;
        let at = pulled.iter().position(|pulled| pulled.id == *id)?;
        let taken = pulled.swap_remove(at);
        self.pulled.take_if(|pulled| pulled.is_empty());
        Some(taken)
    }

    /// Passes the news on to where the payload came from, one for one, within what the peer may ask of us.
    pub(super) fn on_met(&mut self, from: I, id: MessageId<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let (per_second, burst) = (self.params.config().grafts_per_second, self.params.config().graft_burst);
        let Some(neighbor) = self.neighbor_mut(&from) else {
            return self.counters.count(|counters| counters.strangers_ignored += 1);
        };
        if neighbor.serve_quota.available(now, per_second, burst) > 0 {
            neighbor.serve_quota.take(1, now, per_second);
            if let Some(way) = self.store.way(&id) {
                self.on_meeting(&id, way, now, actions);
            }
        }
    }

    /// The tree did not bring what was pulled: the link over which it came joins the tree.
    fn mend(&mut self, id: &MessageId<I>, actions: &mut Vec<Action<I>>) {
        let Some(Pulled { from, .. }) = self.take_pulled(id) else { return };
        if let Some(neighbor) = self.neighbor_mut(&from).filter(|neighbor| !neighbor.eager) {
            neighbor.eager = true;
            self.counters.count(|counters| counters.mended += 1);
            actions.push(Action::Send { to: from, message: Message::Graft { eager: true, groups: message::Groups::new() } });
        }
    }

    /// Notes who stands where in the tree after a payload came that shaped it.
    pub(super) fn is_shaped_by(&mut self, parent: I, hops: u16, missing: Option<&Missing<I>>) {
        for neighbor in &mut self.neighbors {
            (neighbor.is_parent, neighbor.nearer) = (neighbor.peer == parent, 0);
        }
        for (peer, announced) in missing.iter().flat_map(|missing| missing.announced()).filter(|(_, announced)| *announced <= hops) {
            if let Some(neighbor) = self.neighbor_mut(&peer) {
                neighbor.nearer = announced;
            }
        }
    }

    /// The way to the root was lost: another neighbor takes its place, best one that is nearer to it, which cannot be below us. Of the others
    /// hardly any is, as most pieces of a tree are small; where one is, a circle is closed and the piece is mended by a pull.
    pub(super) fn regraft(&mut self, actions: &mut Vec<Action<I>>) {
        let lazy = self.neighbors.iter_mut().filter(|neighbor| !neighbor.eager);
        if let Some(neighbor) = lazy.min_by_key(|neighbor| (neighbor.nearer == 0, neighbor.nearer)) {
            (neighbor.eager, neighbor.is_parent) = (true, true);
            self.counters.count(|counters| counters.regrafted += 1);
            actions.push(Action::Send { to: neighbor.peer, message: Message::Graft { eager: true, groups: message::Groups::new() } });
        }
    }

    /// Takes a message out because it has come. Learns how long the tree lags, or how long the neighbor took to answer.
    pub(super) fn take_missing(&mut self, id: &MessageId<I>, from: I, push: Push, now: Time) -> Option<Missing<I>> {
        let missing = self.missing.remove(id)?;
        match push {
            Push::Eager | Push::Pulled | Push::Shape(_) | Push::Trim { .. } => self.tree_lag.sample(now - missing.since),
            Push::Answer => {
                if let Phase::Asked { peer, at, .. } = missing.phase
                    && peer == from
                    // An answer to a repeated request could belong to the first one (Karn and Partridge, SIGCOMM 1987).
                    && missing.rounds == 0
                    && let Some(neighbor) = self.neighbor_mut(&peer)
                {
                    neighbor.answers.sample(now - at);
                }
            }
            Push::Late | Push::Flood(_) => {}
        }
        self.forget_announcers(id, &missing);
        Some(missing)
    }

    /// Takes messages out because they count as seen, though they never came.
    pub(super) fn forget_missing(&mut self, first: MessageId<I>, last: MessageId<I>) {
        while let Some(id) = self.missing.range(first..=last).next().map(|(id, _)| *id)
            && let Some(missing) = self.missing.remove(&id)
        {
            self.counters.count(|counters| counters.missing_given_up += 1);
            self.forget_announcers(&id, &missing);
        }
    }

    /// Undoes what is kept outside of a message that was taken out.
    fn forget_announcers(&mut self, id: &MessageId<I>, missing: &Missing<I>) {
        self.forget_phase(id, missing.phase);
        for announcer in &missing.announcers {
            if let Some(neighbor) = self.neighbor_mut(&announcer.peer) {
                neighbor.announced_len -= 1;
                neighbor.remove_ready(id);
            }
        }
    }

    /// A neighbor is about to be forgotten: nothing is expected from it any more.
    pub(super) fn forget_announcer(&mut self, peer: I, now: Time) {
        let ids: Vec<MessageId<I>> =
            self.missing.iter().filter(|(_, missing)| missing.position(peer).is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            self.remove_announcer(id, peer, now);
        }
    }

    /// Sends what was asked for in this input, after filling the room that has become free.
    pub(super) fn send_grafts(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        if !self.is_wanting {
            return;
        }
        let mut is_wanting = false;
        for at in 0..self.neighbors.len() {
            let asked_max = self.params.config().asked_max;
            // Half of the room at a time, so that answers that come one by one do not make one request each.
            if self.neighbors[at].asked_len as usize * 2 <= asked_max {
                while let Some(id) = self.neighbors[at].first_ready()
                    && self.has_room(at, now)
                {
                    self.ask(id, at, now);
                }
            }
            if !self.neighbors[at].is_ready_empty() && (self.neighbors[at].asked_len as usize) < asked_max {
                self.ask_later(at, now);
            }
            let neighbor = &mut self.neighbors[at];
            if !neighbor.is_asking_empty() {
                let (to, eager) = (neighbor.peer, std::mem::take(&mut neighbor.asking_eager));
                let asking = neighbor.take_asking();
                let ids = asking.iter().map(|(id, ())| *id);
                let lists = match self.params.has(Improvement::Batching) {
                    true => Packer::pack(ids.map(|id| (id, 0))),
                    false => ids.map(|id| message::one(id, 0)).collect(),
                };
                for groups in lists {
                    self.counters.count(|counters| counters.graft_frames_sent += 1);
                    actions.push(Action::Send { to, message: Message::Graft { eager, groups } });
                }
            }
            is_wanting |= self.neighbors[at].is_wanted(now);
        }
        self.is_wanting = is_wanting;
    }

    /// Wakes up once the neighbor may be asked for a fair number again.
    fn ask_later(&mut self, at: usize, now: Time) {
        let config = self.params.config();
        let (per_second, burst) = (config.grafts_per_second / 2, config.graft_burst / 2);
        let neighbor = &self.neighbors[at];
        if self.has_quota(at, now) {
            return;
        }
        let count = (burst / 4).clamp(1, u32::try_from(config.asked_max).unwrap_or(u32::MAX));
        let again = neighbor.ask_quota.available_at(count, per_second, burst);
        let heard = neighbor.unheard().available_at(1, self.params.unheard_per_second(), burst);
        self.ask_at = self.ask_at.min(again.max(heard));
    }

    fn has_room(&self, at: usize, now: Time) -> bool {
        (self.neighbors[at].asked_len as usize) < self.params.config().asked_max && self.has_quota(at, now)
    }

    /// Whether the neighbor will answer one more request, whenever it arrives: at most half of the burst is under way, and what is sent keeps to half of the rate
    /// and of the burst, so in any time at most the burst and what the rate allows can arrive.
    fn has_quota(&self, at: usize, now: Time) -> bool {
        let (config, neighbor) = (self.params.config(), &self.neighbors[at]);
        let (per_second, burst) = (config.grafts_per_second / 2, config.graft_burst / 2);
        neighbor.ask_quota.available(now, per_second, burst) > 0
            && neighbor.unheard().available(now, self.params.unheard_per_second(), burst) > 0
    }

    /// Asks the first announcer that was not asked in this round and has room; else the first that gets room will be asked.
    fn make_ready(&mut self, id: MessageId<I>, now: Time) {
        self.leave_phase(&id);
        let Some(missing) = self.missing.get(&id) else { return };
        let mut left: Vec<Announcer<I>> = missing.announcers.iter().filter(|announcer| !announcer.asked).copied().collect();
        // Who was asked in vain in an earlier round comes after who was never asked.
        left.sort_by_key(|announcer| announcer.attempts);
        let places: Vec<usize> = left.iter().filter_map(|announcer| self.find(&announcer.peer).ok()).collect();
        // Where others wait already, this one waits behind them.
        match places.iter().find(|at| self.neighbors[**at].is_ready_empty() && self.has_room(**at, now)) {
            Some(at) => self.ask(id, *at, now),
            None => {
                for at in places {
                    self.neighbors[at].insert_ready(id);
                }
                self.is_wanting = true;
            }
        }
    }

    /// Section 3.6: asks an announcer, and takes the link into the tree when the tree should have brought the message.
    fn ask(&mut self, id: MessageId<I>, at: usize, now: Time) {
        let peer = self.neighbors[at].peer;
        let config = self.params.config();
        let wait = match self.params.has(Improvement::MeasuredTimers) {
            true => self.neighbors[at].answers.bound(config.answer_wait, config.answer_wait_min, config.answer_wait_max),
            false => config.answer_wait,
        };
        let (any_way, is_broken) = (!self.params.has(Improvement::FirstWayOnly), self.is_tree_broken());
        let Some(missing) = self.missing.get_mut(&id) else { return };
        let due = now + wait.saturating_mul(1 << missing.rounds.min(8)).min(config.answer_wait_max);
        missing.phase = Phase::Asked { peer, at: now, due };
        let shapes = any_way || missing.is_fresh() && is_broken;
        if let Some(announcer) = missing.announcers.iter_mut().find(|announcer| announcer.peer == peer) {
            announcer.asked = true;
            announcer.attempts = announcer.attempts.saturating_add(1);
        }
        let peers: Vec<I> = missing.announcers.iter().map(|announcer| announcer.peer).collect();
        for peer in peers {
            if let Some(neighbor) = self.neighbor_mut(&peer) {
                neighbor.remove_ready(&id);
            }
        }
        self.missing_due.insert((due, id), ());
        let (per_second, unheard_per_second) = (self.params.config().grafts_per_second / 2, self.params.unheard_per_second());
        let neighbor = &mut self.neighbors[at];
        neighbor.asked_len += 1;
        neighbor.insert_asking(id);
        self.is_wanting = true;
        neighbor.ask_quota.take(1, now, per_second);
        neighbor.ask_unheard(now, unheard_per_second);
        if shapes {
            neighbor.eager = true;
            neighbor.asking_eager = true;
        }
        self.counters.count(|counters| counters.grafts_sent += 1);
    }

    /// Asks an announcer that was not asked in this round. After the last one, a new round begins after a pause that grows.
    fn ask_next(&mut self, id: MessageId<I>, now: Time) {
        let config = self.params.config();
        let Some(missing) = self.missing.get_mut(&id) else { return };
        if missing.announcers.is_empty() {
            self.missing.remove(&id);
            self.counters.count(|counters| counters.missing_given_up += 1);
        } else if missing.announcers.iter().any(|announcer| !announcer.asked) {
            self.make_ready(id, now);
        } else {
            missing.announcers.iter_mut().for_each(|announcer| announcer.asked = false);
            missing.rounds = missing.rounds.saturating_add(1);
            let pause = config.answer_wait.saturating_mul(1 << (missing.rounds - 1).min(8)).min(config.answer_wait_max);
            let due = now + pause;
            missing.phase = Phase::Waiting { due };
            self.missing_due.insert((due, id), ());
        }
    }

    /// Nothing more is expected from this announcer of this message. What it was asked for is asked for elsewhere at once.
    fn remove_announcer(&mut self, id: MessageId<I>, peer: I, now: Time) {
        let Some(missing) = self.missing.get_mut(&id) else { return };
        let Some(position) = missing.position(peer) else { return };
        missing.announcers.remove(position);
        let phase = missing.phase;
        let is_last = missing.announcers.is_empty();
        let is_stuck = missing.announcers.iter().all(|announcer| announcer.asked);
        if let Some(neighbor) = self.neighbor_mut(&peer) {
            neighbor.announced_len -= 1;
            neighbor.remove_ready(&id);
        }
        match phase {
            Phase::Asked { peer: asked, .. } if asked == peer => {
                self.leave_phase(&id);
                self.ask_next(id, now);
            }
            Phase::Ready if is_stuck => self.ask_next(id, now),
            Phase::Waiting { .. } if is_last => {
                self.leave_phase(&id);
                self.ask_next(id, now);
            }
            Phase::Asked { .. } | Phase::Ready | Phase::Waiting { .. } => {}
        }
    }

    /// Between two phases: nothing is open, no deadline is set, and nobody is about to be asked. The caller enters the next phase.
    fn leave_phase(&mut self, id: &MessageId<I>) {
        if let Some(missing) = self.missing.get_mut(id) {
            let phase = std::mem::replace(&mut missing.phase, Phase::Ready);
            self.forget_phase(id, phase);
        }
    }

    /// Undoes what a phase keeps outside of the message itself.
    fn forget_phase(&mut self, id: &MessageId<I>, phase: Phase<I>) {
        match phase {
            Phase::Waiting { due } => {
                self.missing_due.remove(&(due, *id));
            }
            Phase::Ready => {}
            Phase::Asked { peer, due, .. } => {
                self.missing_due.remove(&(due, *id));
                if let Some(neighbor) = self.neighbor_mut(&peer) {
                    neighbor.asked_len -= 1;
                    neighbor.remove_asking(id);
                }
            }
        }
    }

    /// The invariants of what is missing, where they are cheap to see.
    pub(super) fn check_missing(&self) {
        if !cfg!(debug_assertions) || self.missing.len() > 16 {
            return;
        }
        for neighbor in &self.neighbors {
            let asked = |missing: &Missing<I>| matches!(missing.phase, Phase::Asked { peer, .. } if peer == neighbor.peer);
            assert_eq!(
                self.missing.iter().filter(|(_, missing)| asked(missing)).count(),
                neighbor.asked_len as usize,
                "open requests are counted"
            );
            let announced = self.missing.iter().filter(|(_, missing)| missing.position(neighbor.peer).is_some()).count();
            assert_eq!(announced, neighbor.announced_len as usize, "announcements are counted");
        }
        for (id, missing) in self.missing.iter() {
            assert!(!self.is_seen(id), "what is here is not missing");
            assert!(!missing.announcers.is_empty(), "somebody announced what is missing");
            assert!(missing.announcers.iter().all(|announcer| self.find(&announcer.peer).is_ok()), "announcers are neighbors");
            match missing.phase {
                Phase::Waiting { due } | Phase::Asked { due, .. } => assert!(self.missing_due.contains(&(due, *id)), "a deadline is set"),
                Phase::Ready => {
                    assert!(self.neighbors.iter().any(|neighbor| neighbor.is_ready(id)), "a neighbor will be asked as soon as it has room")
                }
            }
        }
    }
}

fn ranges<I: Copy>(groups: &[Group<I>]) -> impl Iterator<Item = (Stream<I>, Range)> {
    groups.iter().flat_map(|group| group.ranges.iter().map(|range| (group.stream, *range)))
}
