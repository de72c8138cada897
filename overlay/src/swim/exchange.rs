//! The state exchange over reliable streams: who is asked when, and what tables say.

use std::net::SocketAddr;
use std::time::Duration;

use foca::State as Verdict;
use meshwork_channels::{Bounded, Misbehavior, Time, codec, limits};
use rand::RngExt;
use rand::seq::IteratorRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::{Identity, plain};
use super::improvement::Improvement;
use super::message::{Message, RECORDS_MAX, Record, SAMPLE_MAX};
use super::news::Tell;
use super::suspicion::Hint;
use super::view::Status;
use super::{Action, Key, State, misbehaved};
use crate::identifier::Identifier;

/// Exchanges of a node that has just met the cluster, after the first contact.
const SERIES: [Duration; 5] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Exchanges that this node has open at once; above it the oldest is given up for the next.
const ASKED_MAX: usize = limits::CONNECTIONS_MAX;
/// A peer that has not answered is asked again after this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Newcomers in one table that are news to the others even when they outnumber those that we knew.
const NEWS_MIN: usize = 8;
/// Digests and pings of one peer at once, and in a second from then on.
const REQUESTS_BURST: u32 = 16;
const REQUESTS_PER_SECOND: u32 = 2;
/// Tables given to all peers at once, and in a second from then on. Above it the answer is a few members to ask instead.
const TABLES_BURST: u32 = 256;
const TABLES_PER_SECOND: u32 = 128;
/// Members that one table may make us ask whether they live.
const INQUIRIES_MAX: usize = 16;

/// What is remembered of a connected peer.
#[derive(Clone, Debug)]
pub(super) struct Link<I> {
    pub(super) address: Option<SocketAddr>,
    requests: Bucket,
    /// Where the part of our table that it may ask for starts.
    serving: Option<I>,
    /// Pushes that it may still send: one for each part of a table that it got.
    pushes: u32,
    /// When it was last told that we hold it for dead.
    pub(super) accused_at: Option<Time>,
}

/// A digest that was sent.
#[derive(Clone, Debug)]
pub(super) struct Asked<I> {
    pub(super) peer: I,
    /// Where the next part of its table starts.
    after: Option<I>,
    at: Time,
    /// Answers that may come. More than one when a connection broke and we asked again, while the first digest had arrived all the same.
    due: u32,
    /// Whether there is no reason to wait for them.
    is_lost: bool,
}

/// A token bucket in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    used: u64,
    at: Time,
}

impl Bucket {
    pub(super) fn full(now: Time) -> Self {
        Bucket { used: 0, at: now }
    }

    /// Takes one, if `burst` are not used up; `per_second` come back.
    pub(super) fn take(&mut self, burst: u32, per_second: u32, now: Time) -> bool {
        let back = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(per_second));
        if back > 0 {
            self.used = self.used.saturating_sub(back);
            self.at = now;
        }
        let is_left = self.used + 1_000 <= u64::from(burst) * 1_000;
        if is_left {
            self.used += 1_000;
        }
        is_left
    }
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    pub(super) fn on_connected(&mut self, peer: I, address: SocketAddr, generation: u64, now: Time, actions: &mut Vec<Action<I>>) {
        if peer == self.me.peer {
            return;
        }
        self.link(peer, now).address = Some(address);
        // The connection that broke was replaced, by the same run of the peer: the question is answered.
        let member = self.view.member(peer).copied().filter(|member| member.status.is_up() && member.generation == generation);
        if member.is_some() && matches!(self.hints.get(&peer), Some(Hint::Lost | Hint::Unreached)) {
            self.hints.remove(&peer);
            self.timers.cancel(&Key::Hint(peer));
        }
        if self.view.up_len() == 0 && self.series.is_none() {
            self.start_series(now);
        }
        // The identity of a peer is what it says itself in its answer: the address of a connection may be one that only we see it at.
        if member.is_none() && self.wanted.is_none() {
            if self.params.has(Improvement::StateExchange) {
                self.send_digest(peer, now, actions);
            } else {
                self.detector.announce(Identity { peer, generation, address: plain(address) });
            }
        }
    }

    pub(super) fn on_message(&mut self, from: I, message: Message<I>, now: Time, actions: &mut Vec<Action<I>>) {
        if from == self.me.peer {
            return misbehaved(from, Misbehavior::OwnName, actions);
        }
        let is_request = matches!(message, Message::Digest { .. } | Message::Ping { .. });
        if is_request && !self.link(from, now).requests.take(REQUESTS_BURST, REQUESTS_PER_SECOND, now) {
            return misbehaved(from, Misbehavior::TooManyRequests, actions);
        }
        if self.wanted.is_some() {
            // While we are dead to others, foca rests, and so does all that would wake it.
            return;
        }
        match message {
            Message::Digest { hash, sender } => self.on_digest(from, hash, &sender, now, actions),
            Message::Table { after, until, records } => self.on_table(from, after, until, &records, now, actions),
            Message::Equal => self.on_equal(from),
            Message::Busy { records } => self.on_busy(from, &records, now, actions),
            Message::Next { after } => self.on_next(from, after, now, actions),
            Message::Push { records } => self.on_push(from, &records, now, actions),
            Message::Ping { accusation } => self.on_ping(from, accusation, now, actions),
            Message::Pong { sender } => self.on_pong(from, &sender, now, actions),
            Message::Leaving { generation } => self.on_leaving(from, generation),
            Message::News { records } => self.on_news(from, &records, now, actions),
        }
    }

    /// Begins the quick exchanges: after a first contact, and when we come back under a new generation.
    pub(super) fn start_series(&mut self, now: Time) {
        self.series = Some((0, now));
        self.schedule_exchange(now);
    }

    pub(super) fn schedule_exchange(&mut self, now: Time) {
        let after = match self.series {
            Some((step, start)) if step < SERIES.len() => {
                self.series = Some((step + 1, start));
                (start + SERIES[step]).since(now).max(Duration::from_millis(50))
            }
            _ => self.params.exchange_interval(self.view.up_len()),
        };
        // Nodes that start together must not exchange together.
        let jittered = self.random.random_range(after * 4 / 5..=after * 6 / 5);
        self.timers.set(Key::Exchange, now + jittered);
    }

    pub(super) fn on_exchange_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.schedule_exchange(now);
        if self.wanted.is_none()
            && self.params.has(Improvement::StateExchange)
            && let Some(partner) = self.choose_partner(now)
        {
            self.send_digest(partner, now, actions);
        }
    }

    fn choose_partner(&mut self, now: Time) -> Option<I> {
        let told = self.params.tombstone_told();
        let life = self.params.config().tombstone_life;
        let down = |entry: &&super::view::Entry<I>| entry.member.status == Status::Down && entry.gone_for(life, now) < told;
        let is_alone = self.view.up_len() == 0;
        // A peer that is connected and unknown: its first answer was lost, or it had none to spare.
        if self.random.random_bool(0.5)
            && let Some(peer) = self.links.keys().filter(|peer| self.view.entry(**peer).is_none()).choose(&mut self.random)
        {
            return Some(*peer);
        }
        // A quarter goes to the dead, so that the sides of a partition find each other.
        let heals = self.params.has(Improvement::HealAnnounce);
        if (is_alone || heals && self.random.random_bool(0.25))
            && let Some(entry) = self.view.entries().iter().filter(down).choose(&mut self.random)
        {
            return Some(entry.member.peer);
        }
        self.view.up().choose(&mut self.random).map(|member| member.peer)
    }

    fn send_digest(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        self.asked.retain(|asked| now.since(asked.at) < ANSWER_TIMEOUT);
        let mut due = 1;
        if let Some(at) = self.asked.iter().position(|asked| asked.peer == peer) {
            if !self.asked[at].is_lost {
                return;
            }
            due = self.asked[at].due.saturating_add(1);
            self.asked.remove(at);
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { peer, after: None, at: now, due, is_lost: false });
        self.counters.exchanges += 1;
        let message = Message::Digest { hash: self.hash(now), sender: self.own_record() };
        self.send(peer, message, actions);
    }

    fn on_digest(&mut self, from: I, hash: u64, sender: &Record<I>, now: Time, actions: &mut Vec<Action<I>>) {
        if !self.take_in_person(from, sender, now, actions) || self.tell_the_dead(from, now, actions) {
            // Either it was no proper digest, or the sender comes again once it has renewed itself.
            return;
        }
        if hash == self.hash(now) {
            self.counters.exchanges_equal += 1;
            self.send(from, Message::Equal, actions);
        } else if self.tables_left.take(TABLES_BURST, TABLES_PER_SECOND, now) {
            self.send_table(from, None, now, actions);
        } else {
            self.counters.exchanges_busy += 1;
            let sample = self.sample(SAMPLE_MAX - 1);
            let known = sample.iter().filter_map(|member| self.view.entry(member.peer));
            let records = known.map(|entry| entry.record(self.params.config().tombstone_life, now));
            let records = Bounded::first_of(std::iter::once(self.own_record()).chain(records));
            self.send(from, Message::Busy { records }, actions);
        }
    }

    fn send_table(&mut self, to: I, after: Option<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let mut records = self.records(after, None, RECORDS_MAX + 1, now);
        let until = if records.len() > RECORDS_MAX {
            records.truncate(RECORDS_MAX);
            records.last().map(|record| record.peer)
        } else {
            None
        };
        let link = self.link(to, now);
        link.serving = until;
        link.pushes = if after.is_none() { 1 } else { link.pushes.saturating_add(1) };
        self.counters.records_sent += records.len() as u64;
        self.send(to, Message::Table { after, until, records: Bounded::first_of(records) }, actions);
    }

    fn on_next(&mut self, from: I, after: I, now: Time, actions: &mut Vec<Action<I>>) {
        if self.link(from, now).serving.take() == Some(after) {
            self.send_table(from, Some(after), now, actions);
        } else {
            self.counters.unasked += 1;
        }
    }

    fn on_table(&mut self, from: I, after: Option<I>, until: Option<I>, records: &[Record<I>], now: Time, actions: &mut Vec<Action<I>>) {
        let Some(at) = self.asked.iter().position(|asked| asked.peer == from && asked.after == after) else {
            // An answer that was given up on, or one to an earlier run of this node: no fault, and not taken in.
            self.counters.unasked += 1;
            return;
        };
        // The range only moves on, so one digest brings one walk through a table at most.
        match until {
            Some(until) if after.is_none_or(|after| until > after) => {
                self.asked[at].after = Some(until);
                self.send(from, Message::Next { after: until }, actions);
            }
            Some(_) => {
                self.answered(at);
                return misbehaved(from, Misbehavior::Unasked, actions);
            }
            None => self.answered(at),
        }
        self.take_in(from, records, now, actions);
        if self.wanted.is_some() {
            return;
        }
        let mut theirs: Vec<&Record<I>> = records.iter().collect();
        theirs.sort_unstable_by_key(|record| record.peer);
        let mut better = self.records(after, until, usize::MAX, now);
        better.retain(|record| {
            let known = theirs.binary_search_by_key(&record.peer, |their| their.peer);
            record.peer != from && known.is_ok_and(|at| record.beats(theirs[at])) || known.is_err()
        });
        if !better.is_empty() {
            // What does not fit is told at the next exchange, by when this part is no news any more.
            let records = Bounded::first_of(better);
            self.counters.records_sent += records.len() as u64;
            self.send(from, Message::Push { records }, actions);
        }
    }

    fn on_push(&mut self, from: I, records: &[Record<I>], now: Time, actions: &mut Vec<Action<I>>) {
        let link = self.link(from, now);
        if link.pushes == 0 {
            self.counters.unasked += 1;
            return;
        }
        link.pushes -= 1;
        self.take_in(from, records, now, actions);
    }

    fn on_equal(&mut self, from: I) {
        if !self.end_exchange(from) {
            self.counters.unasked += 1;
        }
    }

    fn on_busy(&mut self, from: I, records: &[Record<I>], now: Time, actions: &mut Vec<Action<I>>) {
        if self.end_exchange(from) {
            self.take_in(from, records, now, actions);
        } else {
            self.counters.unasked += 1;
        }
    }

    /// Ends the exchange that we opened with a peer; says whether there was one whose first answer is due.
    fn end_exchange(&mut self, peer: I) -> bool {
        let at = self.asked.iter().position(|asked| asked.peer == peer && asked.after.is_none());
        if let Some(at) = at {
            self.answered(at);
        }
        at.is_some()
    }

    /// An answer is still welcome, but not waited for.
    pub(super) fn give_up_exchange(&mut self, peer: I) {
        for asked in self.asked.iter_mut().filter(|asked| asked.peer == peer) {
            asked.is_lost = true;
        }
    }

    fn answered(&mut self, at: usize) {
        let asked = &mut self.asked[at];
        asked.due -= 1;
        asked.after = None;
        // Another answer is only what may come, nothing to wait for.
        asked.is_lost = true;
        if asked.due == 0 {
            self.asked.remove(at);
        }
    }

    /// Takes in what a peer says of others.
    fn take_in(&mut self, from: I, records: &[Record<I>], now: Time, actions: &mut Vec<Action<I>>) {
        let mut fault = None;
        let mut updates = Vec::with_capacity(records.len());
        let mut aged = Vec::new();
        let mut about_us = None;
        let mut inquiries = 0;
        let mut newcomers = 0;
        self.hear_from(from, now);
        for record in records {
            if record.peer == self.me.peer {
                about_us = Some(record);
                continue;
            }
            let identity = record.identity();
            let is_in_person = record.peer == from && record.status == Status::Alive && record.fault().is_none();
            if !is_in_person && !self.believes(&identity, now, &mut fault) {
                continue;
            }
            let known = self.view.entry(record.peer);
            // Most of a table is known already, and foca looks through all members for each record that it is given.
            if record.status.is_up() && known.is_some_and(|known| known.is_settled && known.update() == record.update()) {
                continue;
            }
            let is_new = known.is_none();
            let is_alive = known.is_some_and(|known| known.member.status == Status::Alive && known.identity() == identity);
            if record.status == Status::Down && is_alive && self.params.has(Improvement::CheckedVerdicts) {
                // Old verdicts of another side must not kill whom we see alive: it is asked, and renews itself. A suspect had its chance.
                if inquiries < INQUIRIES_MAX {
                    inquiries += 1;
                    self.inquire(record.peer, Hint::HeldForDead(identity), now, actions);
                }
                continue;
            }
            if record.status == Status::Left {
                self.view.mark_left(record.peer, record.generation);
            }
            if !record.status.is_up() {
                aged.push(record);
            } else if is_new {
                newcomers += 1;
            }
            self.touched.push(record.peer);
            updates.push(record.update());
        }
        // A newcomer has nothing to tell to those it has just heard of: where two groups meet, the larger tells its own of the smaller.
        let is_news = newcomers <= self.view.up_len().max(NEWS_MIN);
        self.detector.apply(updates.into_iter(), is_news);
        self.refresh(if is_news { Tell::AllBut(from) } else { Tell::Nobody }, now);
        for record in aged {
            self.view.age(record, self.params.config().tombstone_life, now);
        }
        if let Some(what) = fault {
            misbehaved(from, what, actions);
        }
        if let Some(record) = about_us {
            let verdict = record.update();
            self.on_own_name(from, &record.identity(), verdict.incarnation(), verdict.state(), now, actions);
        }
    }

    fn on_leaving(&mut self, from: I, generation: u64) {
        let Some(entry) = self.view.entry(from).filter(|entry| entry.member.generation == generation) else { return };
        let identity = entry.identity();
        self.detector.apply(std::iter::once(foca::Member::new(identity, super::LEFT, Verdict::Down)), true);
        self.view.mark_left(from, generation);
        self.touched.push(from);
    }

    pub(super) fn own_record(&self) -> Record<I> {
        Record {
            peer: self.me.peer,
            generation: self.me.generation,
            address: self.me.address,
            incarnation: self.detector.incarnation(),
            status: Status::Alive,
            down_for_secs: 0,
        }
    }

    /// The first `max` of what this node tells of the peers in a range, itself included, in the order of their names.
    fn records(&self, after: Option<I>, until: Option<I>, max: usize, now: Time) -> Vec<Record<I>> {
        let is_in_range = |peer: I| after.is_none_or(|after| peer > after) && until.is_none_or(|until| peer <= until);
        let life = self.params.config().tombstone_life;
        let entries = self.view.entries();
        let start = after.map_or(0, |after| entries.partition_point(|entry| entry.member.peer <= after));
        let is_told = |entry: &&super::view::Entry<I>| {
            entry.is_settled && (entry.member.status.is_up() || entry.gone_for(life, now) < self.params.tombstone_told())
        };
        let in_range = entries[start..].iter().take_while(|entry| is_in_range(entry.member.peer));
        let mut records: Vec<Record<I>> = in_range.filter(is_told).take(max).map(|entry| entry.record(life, now)).collect();
        if is_in_range(self.me.peer) {
            let at = records.partition_point(|record| record.peer < self.me.peer);
            if at < max {
                records.insert(at, self.own_record());
                records.truncate(max);
            }
        }
        records
    }

    /// The same for two nodes that tell the same, however they came to know it.
    fn hash(&self, now: Time) -> u64 {
        let mut bytes = Vec::new();
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for record in self.records(None, None, usize::MAX, now) {
            bytes.clear();
            let state = match record.status {
                Status::Alive => Some((record.incarnation, false)),
                Status::Suspect => Some((record.incarnation, true)),
                Status::Down | Status::Left => None,
            };
            codec::encode_into(&(record.peer, record.generation, record.address, state), &mut bytes);
            hash = bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        }
        hash
    }

    pub(super) fn link(&mut self, peer: I, now: Time) -> &mut Link<I> {
        self.links.entry(peer).or_insert_with(|| Link {
            address: None,
            requests: Bucket::full(now),
            serving: None,
            pushes: 0,
            accused_at: None,
        })
    }

    /// Sends to where the peer says that it listens, or to where it was seen.
    pub(super) fn send(&self, to: I, message: Message<I>, actions: &mut Vec<Action<I>>) {
        let told = self.view.member(to).map(|member| member.address);
        let seen = self.links.get(&to).and_then(|link| link.address);
        // Without either the connection is gone again, and nobody waits for the answer.
        if let Some(address) = told.or(seen) {
            actions.push(Action::Send { to, address, message });
        }
    }
}
