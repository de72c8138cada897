//! Who is in the cluster and who is alive: SWIM by foca, as data that feeds a [`View`], with what foca leaves to its user.
//!
//! Sources: Das, Gupta and Motivala, "SWIM" (DSN 2002), sections 3 (probes), 4.1 (piggyback), 4.2 (suspicion), 4.3 (round-robin), all inside
//! foca 2.0; Dadgar, Phillips and Currey, "Lifeguard" (2017), for telling the accused and for distrusting oneself.
//!
//! What this adapter adds, and where it deviates:
//!
//! 1. **Suspicions are timed here.** Foca 2.0.0 treats a suspicion that was refuted in time as one that was not, and sends "you are dead" to
//!    a healthy member. Here a suspicion ends in a verdict only if foca still holds that very run of the member suspect, in that incarnation.
//! 2. **Pings over streams.** A member that owes the answer to a probe is asked over a reliable stream as well, at the moment when others are asked to
//!    probe it, so that loss alone makes hardly anybody suspect (memberlist's fallback over TCP); and the accused is told over a stream when a suspicion
//!    starts and before it ends (buddy ping), so that loss alone kills nobody.
//! 3. **State exchange.** Tables are compared over a stream, hash first, when a peer is new, soon after a start, and now and then; gossip alone
//!    needs a minute until a hundred nodes know each other. A quarter of the exchanges goes to members that are down, which heals partitions.
//! 4. **Verdicts from tables are checked.** A table that says "down" of a member that we see alive makes us ask that member, which then renews its
//!    generation, or is believed dead when it has no answer; only gossip, which is fresh, is believed at once. After a partition nobody is killed by old verdicts.
//! 5. **The minority yields.** A node that held more members for dead than alive and hears from one of those withdraws its recent verdicts:
//!    it was the one that was cut off.
//! 6. **Leaving** travels as a verdict with the last incarnation, so whoever hears of a departure hears that it was one.
//! 7. **Own lateness.** A timer that fires late by half a probe period says that this process stood still; all verdicts wait that much longer,
//!    and whoever stood still again and again suspects others for up to eight times as long: what it has not heard, it may have slept through.
//! 8. **Flap damping.** A suspicion of a member lasts twice as long for each time it came back from being down, up to six times; one step is forgotten
//!    every ten minutes.
//! 9. **Alarm.** Whoever hears of a suspicion asks three more members that are connected, so that those that crash together are suspected together; but not
//!    for a while after one was refuted, because where packets are lost the questions themselves make suspects.
//! 10. **Settling.** The report of a failure waits up to half a second while others are suspected, so that those that fail together are reported
//!     together; [`State::view`] is ahead of the events by as much.
//!
//! Each of these can be left out by its name, [`Improvement`], to see in a run what it is good for.
//!
//! Generations. A node starts with one from its driver (the wall clock will do) and goes above it when its generation is held for dead or a
//! higher one of its name is known: at most [`Config::renewals_per_minute_max`] times a minute, and it keeps silent when that is spent. What a peer
//! says of itself over its own connection is believed. By hearsay the generation of a peer grows by at most 2^42 at a time (in milliseconds,
//! 139 years) and six times a minute, so that no liar can use up the generations of another peer in less than a year of trying; the peer goes
//! above each lie. What cannot be helped: any admitted node can spread "down" of any other, which then has to renew.
//!
//! Invariants: at most one entry for each peer, never one for ourselves; foca and the view agree on who is up; every suspicion has a deadline.
//!
//! Memory that peers govern: the view (`members_max` by hearsay, besides those that connect), tombstones (the larger of 1,024 and four times the
//! members that are up), one small record for each connected peer, 1,024 open exchanges, one suspicion and one hint for each member.
//!
//! The driver owes: [`Input::Connected`] when an admitted connection stands, [`Input::Disconnected`] when one breaks (not when either side closed
//! it because it was idle), [`Input::Unreached`] when none could be made, [`Input::Datagram`] and [`Input::Received`] with the authenticated sender. It dials whoever an action is addressed to.

mod config;
mod detector;
mod exchange;
mod health;
mod identity;
mod improvement;
mod message;
mod news;
mod renewal;
mod suspicion;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::{Member as Update, State as Verdict, Timer};
use meshwork_channels::random::{Generator, generator};
use meshwork_channels::{DecodeError, Misbehavior, Time, Timers, limits};
use rand::RngExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use config::{Config, ConfigError, Params};
use detector::{Detector, Kind};
use exchange::{Asked, Bucket, Link};
use health::Health;
use identity::{Identity, is_reachable, plain};
pub use improvement::Improvement;
pub use message::{Accusation, Message, RECORDS_MAX, Record, SAMPLE_MAX};
use message::{LEFT, Packet};
pub use news::News;
use news::Tell;
use suspicion::{FALSE_ALARM, Hint, Late, Suspicion};
pub use view::{Event, Member, Status, View};

use crate::identifier::Identifier;

/// How far hearsay may raise a generation at once.
const GENERATION_JUMP_MAX: u64 = 1 << 42;
/// Members that are told of a departure by a datagram; half of them over a stream as well.
const FAREWELLS: usize = 16;
const TOMBSTONES_EVERY: Duration = Duration::from_secs(60);

/// What can happen to the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<I> {
    /// An admitted connection to this peer stands. Given for every connection, dialed or accepted.
    Connected {
        /// The peer, authenticated.
        peer: I,
        /// Where it can be dialed, as far as the driver knows.
        address: SocketAddr,
        /// The generation that it gave.
        generation: u64,
    },
    /// The connection to this peer broke. A hint: it starts questions early and never kills by itself.
    Disconnected(I),
    /// No connection to this peer could be made. A weaker hint: a peer that stands still takes no connection either.
    Unreached(I),
    /// A datagram arrived.
    Datagram {
        /// The peer whose connection carried it.
        from: I,
        /// Its bytes.
        bytes: Bytes,
    },
    /// A message arrived over the reliable stream.
    Received {
        /// The peer whose connection carried it.
        from: I,
        /// The message.
        message: Message<I>,
    },
    /// This node is about to leave. It says so, and then ignores every input; carry out the actions before closing connections.
    Leave,
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What the membership decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<I> {
    /// Send a datagram, over a connection that is dialed if there is none. It may be lost.
    Datagram {
        /// The peer.
        to: I,
        /// Where it listens, for dialing.
        address: SocketAddr,
        /// At most [`limits::MEMBERSHIP_BYTES_MAX`] bytes.
        bytes: Bytes,
    },
    /// Send a message over the reliable stream, over a connection that is dialed if there is none. It is dropped when that fails.
    Send {
        /// The peer.
        to: I,
        /// Where it listens, for dialing.
        address: SocketAddr,
        /// The message.
        message: Message<I>,
    },
    /// Tell the neighbors, as long as they are connected. Too much news come again, so a neighbor that misses some loses little.
    News(News<I>),
    /// The view changed.
    Event(Event<I>),
    /// The peer broke a rule.
    Misbehaved {
        /// The peer.
        peer: I,
        /// The rule.
        what: Misbehavior,
    },
}

/// What has happened since the start, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were handed over for sending.
    pub datagrams_sent: u64,
    /// Datagrams that were taken in.
    pub datagrams_received: u64,
    /// Datagrams for another run of this node, or while it keeps silent.
    pub datagrams_ignored: u64,
    /// State exchanges that this node opened.
    pub exchanges: u64,
    /// Exchanges opened by others that ended with equal hashes.
    pub exchanges_equal: u64,
    /// Exchanges opened by others that were answered with a few members because this node was busy.
    pub exchanges_busy: u64,
    /// Records sent in tables and pushes.
    pub records_sent: u64,
    /// Records and updates of others that were not believed.
    pub records_refused: u64,
    /// Answers that this node no longer waited for, or never had; they are not taken in.
    pub unasked: u64,
    /// Suspicions that this node timed.
    pub suspicions: u64,
    /// Of these, the ones that were refuted in time.
    pub suspicions_refuted: u64,
    /// Suspicions of this node that it refuted.
    pub refutations: u64,
    /// Generations that this node took after its first.
    pub renewals: u64,
    /// Times that this node withdrew its verdicts because it had been cut off.
    pub yields: u64,
    /// Times that this process was found to have stood still.
    pub freezes: u64,
}

/// The deadlines. Foca's come first among those of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<I> {
    Foca(Kind),
    LastPing(I),
    Suspicion(I),
    Hint(I),
    Settle,
    News,
    Exchange,
    Renew,
    Tombstones,
}

/// The membership of one node.
pub struct State<I: Identifier + Serialize + DeserializeOwned> {
    me: Identity<I>,
    params: Params,
    seed: u64,
    random: Generator,

    detector: Detector<I>,
    rebuilds: u64,
    /// The timers that foca runs, by kind: they come due through `timers`.
    running: [Option<Timer<Identity<I>>>; Kind::ALL.len()],
    timers: Timers<Key<I>>,
    /// For how many nodes foca was last configured, as a power of two.
    size: usize,
    gossiped: Time,

    view: View<I>,
    /// Peers of which foca may hold something new.
    touched: Vec<I>,
    events: Vec<Event<I>>,
    /// Failures that are reported together soon.
    failures: Vec<Member<I>>,
    /// Whether something changed that others should hear of soon.
    has_news: bool,
    /// Of whom the neighbors are to be told, and who told us.
    news: BTreeMap<I, Option<I>>,

    late: Option<Late<I>>,
    suspicions: BTreeMap<I, Suspicion<I>>,
    hints: BTreeMap<I, Hint<I>>,
    hints_left: Bucket,
    alarms_left: Bucket,
    /// Until when no alarm is raised, because the last was a false one.
    alarms_from: Time,
    health: Health,

    links: BTreeMap<I, Link<I>>,
    asked: VecDeque<Asked<I>>,
    tables_left: Bucket,
    /// Next step of the quick exchanges after a start, and when they began.
    series: Option<(usize, Time)>,

    renewals: VecDeque<Time>,
    /// The generation to take as soon as the budget allows; until then this node is dead to others, and keeps silent.
    wanted: Option<u64>,
    has_left: bool,
    counters: Counters,
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// A node that knows nobody. `address` is where others can reach it, `generation` must grow from run to run, and `seed` feeds its generator.
    pub fn new(me: I, generation: u64, address: SocketAddr, params: Params, seed: u64, now: Time) -> Self {
        let me = Identity { peer: me, generation, address: plain(address) };
        let mut state = State {
            me,
            detector: Detector::new(me, params.foca(1), generator(seed, "swim/foca", 0)),
            rebuilds: 0,
            running: [const { None }; Kind::ALL.len()],
            timers: Timers::new(),
            size: 1,
            gossiped: Time::ZERO,
            view: View::new(),
            touched: Vec::new(),
            events: Vec::new(),
            failures: Vec::new(),
            has_news: false,
            news: BTreeMap::new(),
            late: None,
            suspicions: BTreeMap::new(),
            hints: BTreeMap::new(),
            hints_left: Bucket::full(now),
            alarms_left: Bucket::full(now),
            alarms_from: Time::ZERO,
            health: Health::new(now),
            links: BTreeMap::new(),
            asked: VecDeque::new(),
            tables_left: Bucket::full(now),
            series: None,
            renewals: VecDeque::new(),
            wanted: None,
            has_left: false,
            counters: Counters::default(),
            random: generator(seed, "swim", 0),
            seed,
            params,
        };
        state.timers.set(Key::Tombstones, now + TOMBSTONES_EVERY);
        state.schedule_exchange(now);
        state
    }

    /// Handles one input; appends what was decided. After [`Input::Leave`] nothing is decided any more.
    pub fn handle(&mut self, input: Input<I>, now: Time, actions: &mut Vec<Action<I>>) {
        if self.has_left {
            return;
        }
        self.allow_for_lateness(now);
        match input {
            Input::Connected { peer, address, generation } => self.on_connected(peer, address, generation, now, actions),
            Input::Disconnected(peer) => self.on_disconnected(peer, Hint::Lost, now, actions),
            Input::Unreached(peer) => self.on_disconnected(peer, Hint::Unreached, now, actions),
            Input::Datagram { from, bytes } => self.on_datagram(from, &bytes, now, actions),
            Input::Received { from, message } => self.on_message(from, message, now, actions),
            Input::Leave => self.on_leave(actions),
            Input::DeadlineReached => self.on_deadline(now, actions),
        }
        self.settle(now, actions);
        self.check();
    }

    /// When [`Input::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// All that is known of the others.
    pub fn view(&self) -> &View<I> {
        &self.view
    }

    /// What is known of one other peer.
    pub fn member(&self, peer: I) -> Option<&Member<I>> {
        self.view.member(peer)
    }

    /// This node as others see it.
    pub fn me(&self) -> Member<I> {
        Member { peer: self.me.peer, generation: self.me.generation, address: self.me.address, status: Status::Alive }
    }

    /// The generation of this node, to be given to peers when a connection is admitted. It grows with [`Event::Renewed`].
    pub fn generation(&self) -> u64 {
        self.me.generation
    }

    /// What has happened since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn on_disconnected(&mut self, peer: I, hint: Hint<I>, now: Time, actions: &mut Vec<Action<I>>) {
        self.links.remove(&peer);
        self.late.take_if(|late| late.target.peer == peer);
        self.give_up_exchange(peer);
        self.inquire(peer, hint, now, actions);
    }

    fn on_datagram(&mut self, from: I, bytes: &Bytes, now: Time, actions: &mut Vec<Action<I>>) {
        if bytes.len() > limits::MEMBERSHIP_BYTES_MAX {
            return misbehaved(from, Misbehavior::Undecodable(DecodeError::TooLong), actions);
        }
        let mut packet = match Packet::<I>::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => return misbehaved(from, Misbehavior::Undecodable(error), actions),
        };
        let src = packet.header.src;
        if src.peer != from {
            return misbehaved(from, Misbehavior::Impersonation, actions);
        }
        if from == self.me.peer {
            return misbehaved(from, Misbehavior::OwnName, actions);
        }
        if !is_reachable(src.address) {
            return misbehaved(from, Misbehavior::BadAddress, actions);
        }
        let is_for_us = match packet.header.message {
            foca::Message::Announce => packet.header.dst.peer == self.me.peer,
            _ => packet.header.dst == self.me,
        };
        if !is_for_us || self.wanted.is_some() {
            self.counters.datagrams_ignored += 1;
            return;
        }
        self.counters.datagrams_received += 1;
        match packet.header.message {
            foca::Message::TurnUndead => return self.renew_above(self.me.generation, now, actions),
            // Whom we write to on the word of another must be a member, or we could be made to write to anybody.
            foca::Message::PingReq { target, .. } | foca::Message::IndirectAck { target, .. }
                if self.view.entry(target.peer).is_none_or(|entry| entry.identity() != target) =>
            {
                self.counters.datagrams_ignored += 1;
                return;
            }
            _ => {}
        }
        self.hear_from(src.peer, now);

        let mut about_us = Vec::new();
        let mut fault = None;
        let all = packet.updates.len();
        packet.updates.retain(|update| {
            if update.id().peer == self.me.peer {
                about_us.push(update.clone());
                return false;
            }
            let believed = update.id().peer == from && *update.id() == src || self.believes(update.id(), now, &mut fault);
            if believed {
                self.touch(update);
            }
            believed
        });
        // Foca takes the sender of a packet for alive.
        self.touch(&Update::new(src, packet.header.src_incarnation, Verdict::Alive));
        if packet.updates.len() == all {
            self.detector.handle_packet(bytes);
        } else {
            self.detector.handle_packet(&packet.encode());
        }
        if let Some(what) = fault {
            misbehaved(from, what, actions);
        }
        for update in about_us {
            self.on_own_name(from, update.id(), update.incarnation(), update.state(), now, actions);
        }
    }

    /// Whether hearsay of this run of a peer may be taken in.
    fn believes(&mut self, identity: &Identity<I>, now: Time, fault: &mut Option<Misbehavior>) -> bool {
        let known = self.view.entry(identity.peer);
        let base = known.map_or(self.me.generation, |entry| entry.member.generation);
        let believed = if !is_reachable(identity.address) {
            *fault = Some(Misbehavior::BadAddress);
            false
        } else if identity.generation.saturating_sub(base) > GENERATION_JUMP_MAX {
            *fault = Some(Misbehavior::GenerationAhead);
            false
        } else {
            match known {
                Some(entry) => identity.generation <= base || !entry.is_raised_too_often(now),
                // Those that this very packet adds are not in the view yet.
                None => self.view.len() + self.touched.len() < self.params.config().members_max,
            }
        };
        if !believed {
            self.counters.records_refused += 1;
        }
        believed
    }

    /// Notes that foca may hold something new of a peer once it has this update. Most of what packets say is known, and looking through all that foca
    /// holds takes longer than handling the rest of a packet.
    fn touch(&mut self, update: &Update<Identity<I>>) {
        let peer = update.id().peer;
        if !self.view.entry(peer).is_some_and(|known| known.is_settled && known.update() == *update) {
            self.touched.push(peer);
        }
    }

    fn stop_foca(&mut self) {
        for kind in Kind::ALL {
            self.timers.cancel(&Key::Foca(kind));
            self.running[kind as usize] = None;
        }
        for peer in std::mem::take(&mut self.suspicions).into_keys() {
            self.timers.cancel(&Key::Suspicion(peer));
            self.timers.cancel(&Key::LastPing(peer));
        }
    }

    /// Starts foca anew under our present identity, with what the view holds and without what it was about to tell.
    fn rebuild(&mut self, now: Time) {
        self.stop_foca();
        self.refresh(Tell::All, now);
        self.rebuilds += 1;
        let random = generator(self.seed, "swim/foca", self.rebuilds);
        self.detector = Detector::new(self.me, self.params.foca(self.size), random);
        let settled = self.view.entries().iter().filter(|entry| entry.is_settled);
        self.detector.apply(settled.map(view::Entry::update), false);
    }

    fn on_leave(&mut self, actions: &mut Vec<Action<I>>) {
        self.has_left = true;
        self.stop_foca();
        self.hints.clear();
        self.timers = Timers::new();
        let told = self.sample(FAREWELLS);
        for (index, member) in told.into_iter().enumerate() {
            let Some(entry) = self.view.entry(member.peer) else { continue };
            let farewell = Packet {
                header: foca::Header {
                    src: self.me,
                    src_incarnation: self.detector.incarnation(),
                    dst: entry.identity(),
                    message: foca::Message::Gossip,
                },
                updates: vec![Update::new(self.me, LEFT, Verdict::Down)],
            };
            self.counters.datagrams_sent += 1;
            actions.push(Action::Datagram { to: member.peer, address: member.address, bytes: farewell.encode().into() });
            if index < FAREWELLS / 2 {
                let message = Message::Leaving { generation: self.me.generation };
                actions.push(Action::Send { to: member.peer, address: member.address, message });
            }
        }
    }

    /// Some of the members that are up, in no order.
    fn sample(&mut self, amount: usize) -> Vec<Member<I>> {
        let mut chosen: Vec<Member<I>> = Vec::with_capacity(amount);
        for (seen, member) in self.view.up().enumerate() {
            if chosen.len() < amount {
                chosen.push(*member);
            } else if let Some(place) = chosen.get_mut(self.random.random_range(0..=seen)) {
                *place = *member;
            }
        }
        chosen
    }

    fn on_deadline(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        // Every timer that is set while this runs lies in the future, so the loop ends.
        while let Some((_, key)) = self.timers.pop_due(now) {
            match key {
                // Foca's rhythm goes on, for the day when the cluster is small again.
                Key::Foca(Kind::Gossip) if self.tells_neighbors() => {
                    self.timers.set(key, now + self.params.config().probe_period);
                }
                Key::Foca(kind) => {
                    if let Some(timer) = self.running[kind as usize].take() {
                        let sent = self.detector.output.packets.len();
                        self.detector.handle_timer(timer);
                        if kind == Kind::SendIndirectProbe {
                            self.on_late_answer(sent, now, actions);
                        }
                        self.schedule_foca(Some(kind), now);
                    }
                }
                Key::LastPing(peer) => self.on_last_ping_due(peer, actions),
                Key::Suspicion(peer) => self.on_suspicion_due(peer),
                Key::Hint(peer) => self.on_hint_due(peer, now, actions),
                Key::Settle => self.report_failures(actions),
                Key::News => self.on_news_due(now, actions),
                Key::Exchange => self.on_exchange_due(now, actions),
                Key::Renew => self.renew(now, actions),
                Key::Tombstones => {
                    self.timers.set(Key::Tombstones, now + TOMBSTONES_EVERY);
                    self.bury(now);
                }
            }
            self.attend(now, actions);
        }
    }

    /// Sets the timers that foca asked for. `due` is the one that has just fired: it keeps its rhythm.
    fn schedule_foca(&mut self, due: Option<Kind>, now: Time) {
        for (kind, timer, after) in std::mem::take(&mut self.detector.output.timers) {
            let is_first = kind.is_periodic() && due != Some(kind) && self.params.has(Improvement::RandomPhase);
            let after = if is_first { self.random.random_range(Duration::from_micros(1)..=after) } else { after };
            self.running[kind as usize] = Some(timer);
            self.timers.set(Key::Foca(kind), now + after);
        }
    }

    /// Looks at what foca did: its timers, its changes, and the members that did not answer it.
    fn attend(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.schedule_foca(None, now);
        let unanswered = std::mem::take(&mut self.detector.output.unanswered);
        self.touched.extend(unanswered.iter().map(|(identity, ..)| identity.peer));
        self.refresh(Tell::All, now);
        for (identity, incarnation, token) in unanswered {
            self.suspect((identity, incarnation), Some(token), self.params.config().suspicion, now, actions);
        }
    }

    /// Takes what foca holds of the touched peers over into the view.
    fn refresh(&mut self, tell: Tell<I>, now: Time) {
        if self.touched.is_empty() {
            return;
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        let life = self.params.config().tombstone_life;
        let version = self.view.version();
        let mut changed = Vec::new();
        // Foca has no look-up by name. Most often it was one that was touched, and half of the others need not be looked at.
        let touched = self.detector.members().filter(|update| self.touched.binary_search(&update.id().peer).is_ok());
        for update in touched.take(self.touched.len()) {
            if self.view.take_over(update, life, now, &mut self.events) {
                changed.push(update.id().peer);
            }
        }
        self.touched.clear();
        self.has_news |= self.view.version() != version;
        match tell {
            Tell::All => changed.into_iter().for_each(|peer| self.tell(peer, None, now)),
            Tell::AllBut(teller) => changed.into_iter().for_each(|peer| self.tell(peer, Some(teller), now)),
            Tell::Nobody => {}
        }
    }

    /// The end of every input: all that foca did is attended to, told, and sent.
    fn settle(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.attend(now, actions);
        let nodes = (self.view.up_len() + 1).next_power_of_two();
        if nodes != self.size && self.params.has(Improvement::SizeFollowing) {
            self.size = nodes;
            self.detector.set_config(self.params.foca(nodes));
        }
        // What is new need not wait for the next round, if the last one is some time ago: each item is sent as often as before, only sooner.
        if self.has_news
            && !self.tells_neighbors()
            && self.wanted.is_none()
            && now.since(self.gossiped) >= self.params.config().gossip_interval / 4
        {
            self.gossiped = now;
            self.detector.gossip();
        }
        self.has_news = false;
        for at in 0..self.events.len() {
            match self.events[at] {
                Event::Suspected(_) => self.look_around(now, actions),
                Event::Recovered { was_down: false, .. } => self.alarms_from = now + FALSE_ALARM,
                _ => {}
            }
        }
        self.report(now, actions);
        for (to, bytes) in self.detector.output.packets.drain(..) {
            self.counters.datagrams_sent += 1;
            actions.push(Action::Datagram { to: to.peer, address: to.address, bytes });
        }
        let gone = self.view.len() - self.view.up_len();
        if gone > self.params.tombstones_max(self.view.up_len()) {
            self.bury(now);
        }
    }

    /// Reports what happened. A failure waits a little for others while somebody is suspected, unless there is something else to say of its member.
    fn report(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let settle = self.params.config().settle;
        let waits = !settle.is_zero() && self.params.has(Improvement::Settling);
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Failed(member) if waits => {
                    self.failures.push(member);
                    self.timers.set_if_absent(Key::Settle, now + settle);
                }
                event => {
                    let is_of = |failed: &Member<I>| event.member().is_some_and(|member| member.peer == failed.peer);
                    if self.failures.iter().any(is_of) {
                        self.report_failures(actions);
                    }
                    actions.push(Action::Event(event));
                }
            }
        }
        if !self.failures.is_empty() && self.view.suspects_len() == 0 {
            self.report_failures(actions);
        }
    }

    fn report_failures(&mut self, actions: &mut Vec<Action<I>>) {
        self.timers.cancel(&Key::Settle);
        actions.extend(self.failures.drain(..).map(|member| Action::Event(Event::Failed(member))));
    }

    /// Forgets tombstones that are too old, and the oldest of those that are too many.
    fn bury(&mut self, now: Time) {
        let mut gone: Vec<(Time, I)> = Vec::new();
        for entry in self.view.entries() {
            if !entry.member.status.is_up() {
                gone.push((entry.expires, entry.member.peer));
            }
        }
        gone.sort_unstable();
        // An eighth more than needed, so that a full table is not sorted again for every newcomer.
        let max = self.params.tombstones_max(self.view.up_len());
        let excess = if gone.len() > max { gone.len() - max + max / 8 } else { 0 };
        for (index, (expires, peer)) in gone.into_iter().enumerate() {
            if index >= excess && expires > now {
                break;
            }
            if let Some(entry) = self.view.entry(peer) {
                self.detector.forget(entry.identity());
                self.view.remove(peer);
            }
        }
    }

    fn check(&self) {
        debug_assert!(self.view.member(self.me.peer).is_none(), "a node is no member of its own view");
        debug_assert_eq!(self.view.up_len(), self.detector.up_len(), "foca and the view agree on who is up");
        debug_assert!(self.suspicions.keys().all(|peer| self.timers.get(&Key::Suspicion(*peer)).is_some()), "a suspicion ends");
        debug_assert_eq!(self.failures.is_empty(), self.timers.get(&Key::Settle).is_none(), "a failure is reported in time");
        debug_assert!(self.hints.keys().all(|peer| self.timers.get(&Key::Hint(*peer)).is_some()), "a question ends");
        debug_assert!(
            self.running.iter().zip(Kind::ALL).all(|(timer, kind)| timer.is_some() == self.timers.get(&Key::Foca(kind)).is_some())
        );
    }
}

impl<I: Identifier + Serialize + DeserializeOwned> fmt::Debug for State<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("me", &self.me).field("view", &self.view).field("counters", &self.counters).finish_non_exhaustive()
    }
}

fn misbehaved<I>(peer: I, what: Misbehavior, actions: &mut Vec<Action<I>>) {
    actions.push(Action::Misbehaved { peer, what });
}
