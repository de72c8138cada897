//! From a missed answer to a verdict: hints, suspicions and the pings that can end them.

use std::time::Duration;

use foca::{Incarnation, Member as Update, ProbeNumber, State as Verdict, Timer, TimerToken};
use meshwork_channels::{Misbehavior, Time};
use rand::seq::IteratorRandom;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::Identity;
use super::improvement::Improvement;
use super::message::{Accusation, Message, Packet, Record};
use super::news::Tell;
use super::renewal::OF_LATE;
use super::view::Status;
use super::{Action, Key, State, misbehaved};
use crate::identifier::Identifier;

/// A suspicion never lasts longer than so many times the configured one.
const DAMPING_MAX: u32 = 6;
/// Questions at once, and in a second from then on, whatever connections break and tables say.
const HINTS_BURST: u32 = 64;
const HINTS_PER_SECOND: u32 = 32;

/// Members that are asked because one is suspected: a member that crashed with it is then asked by nobody once in twenty times, with 1 once in three times.
const ALARM_FANOUT: usize = 3;
/// Further members that are asked at once because others are suspected, and in a second from then on.
const ALARMS_BURST: u32 = 6;
const ALARMS_PER_SECOND: u32 = 2;
/// For how long a suspicion raises no alarm after one was refuted. Among 100 nodes that lost 30 % of their packets, alarms made most of the suspicions.
pub(super) const FALSE_ALARM: Duration = Duration::from_secs(15);

/// A suspicion that this node times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspicion<I> {
    identity: Identity<I>,
    incarnation: Incarnation,
    /// Foca's own timer, when a probe began it.
    token: Option<TimerToken>,
}

/// A member that is asked whether it lives, before anything is held against it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hint<I> {
    /// The connection to it broke.
    Lost,
    /// No connection to it could be made.
    Unreached,
    /// Another is suspected.
    Alarm,
    /// A table says that it is dead in this run.
    HeldForDead(Identity<I>),
}

/// A member that was asked over a stream because a probe of it has no answer yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late<I> {
    pub(super) target: Identity<I>,
    /// The latest such probe.
    probe_number: ProbeNumber,
    asked_at: Time,
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// Asks a member that is up for a sign of life; without one it becomes a suspect.
    pub(super) fn inquire(&mut self, peer: I, hint: Hint<I>, now: Time, actions: &mut Vec<Action<I>>) {
        let Some(entry) = self.view.entry(peer).filter(|entry| entry.member.status.is_up()) else { return };
        let accusation = match hint {
            Hint::Lost | Hint::Unreached | Hint::Alarm => Accusation::Nothing,
            Hint::HeldForDead(identity) => Accusation::Dead { generation: identity.generation },
        };
        let to = entry.member;
        if self.wanted.is_some() || self.hints.contains_key(&peer) || !self.hints_left.take(HINTS_BURST, HINTS_PER_SECOND, now) {
            return;
        }
        self.hints.insert(peer, hint);
        self.timers.set(Key::Hint(peer), now + self.params.hint_grace());
        actions.push(Action::Send { to: peer, address: to.address, message: Message::Ping { accusation } });
    }

    /// Somebody is suspected, and what took one may have taken others: some more that are connected are asked for a sign of life, beside the usual probes. As all do so,
    /// those that crashed together are suspected soon after the first, and not only when their turns come.
    pub(super) fn look_around(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let raises = self.params.has(Improvement::Alarm) && now >= self.alarms_from;
        let fanout = if raises { ALARM_FANOUT } else { 0 };
        for _ in 0..fanout {
            // Before anybody is looked for: where many are suspected, the looking would be most of the work.
            if !self.alarms_left.take(ALARMS_BURST, ALARMS_PER_SECOND, now) {
                return;
            }
            let is_quiet = |peer: &&I| {
                !self.hints.contains_key(*peer) && self.view.member(**peer).is_some_and(|member| member.status == Status::Alive)
            };
            let Some(peer) = self.links.keys().filter(is_quiet).choose(&mut self.random).copied() else { return };
            self.inquire(peer, Hint::Alarm, now, actions);
        }
    }

    pub(super) fn on_hint_due(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) {
        let Some(hint) = self.hints.remove(&peer) else { return };
        if self.wanted.is_some() {
            return;
        }
        let Some(entry) = self.view.entry(peer).filter(|entry| entry.member.status.is_up()) else { return };
        let (identity, incarnation) = (entry.identity(), entry.incarnation);
        self.touched.push(peer);
        match hint {
            Hint::Lost | Hint::Unreached | Hint::Alarm => {
                self.detector.apply(std::iter::once(Update::new(identity, incarnation, Verdict::Suspect)), true);
                self.refresh(Tell::All, now);
                // Silence after a broken connection is two signs, so half the time will do; silence while it is dialed is only one.
                let signs = if matches!(hint, Hint::Lost) { 2 } else { 1 };
                self.suspect((identity, incarnation), None, self.params.config().suspicion / signs, now, actions);
            }
            // Others gave it its time to refute, and it has nothing to say to us either.
            Hint::HeldForDead(accused) if accused == identity => {
                self.detector.apply(std::iter::once(Update::new(identity, incarnation.min(super::LEFT - 1), Verdict::Down)), true);
            }
            // That run is over.
            Hint::HeldForDead(_) => {}
        }
    }

    /// Foca asks others to probe a member, by the packets after the first `sent`, because it has no answer from it: it is asked over a stream as well, where
    /// nothing is lost. While it is dialed the questions would pile up, so it is asked once in the time of a suspicion.
    pub(super) fn on_late_answer(&mut self, sent: usize, now: Time, actions: &mut Vec<Action<I>>) {
        let request = self.detector.output.packets.get(sent).and_then(|(_, bytes)| Packet::<I>::decode(bytes).ok());
        if let Some(foca::Message::PingReq { target, probe_number }) = request.map(|packet| packet.header.message)
            && self.params.has(Improvement::StreamPing)
        {
            let asked = self.late.filter(|late| late.target == target && now - late.asked_at < self.params.config().suspicion);
            self.late = Some(Late { target, probe_number, asked_at: asked.map_or(now, |late| late.asked_at) });
            if asked.is_none() {
                let message = Message::Ping { accusation: Accusation::Nothing };
                actions.push(Action::Send { to: target.peer, address: target.address, message });
            }
        }
    }

    /// Starts to time a suspicion that foca holds, and tells the accused (Lifeguard, section IV.C, over a stream).
    pub(super) fn suspect(
        &mut self,
        (identity, incarnation): (Identity<I>, Incarnation),
        token: Option<TimerToken>,
        span: Duration,
        now: Time,
        actions: &mut Vec<Action<I>>,
    ) {
        if self.wanted.is_some() || !self.detector.is_suspect(&identity, incarnation) {
            return;
        }
        let Identity { peer, generation, address } = identity;
        let damps = self.params.has(Improvement::FlapDamping);
        let flaps = self.view.entry(peer).filter(|_| damps).map_or(0, |entry| entry.flaps(OF_LATE, now));
        let span = span * 2_u32.saturating_pow(flaps).min(DAMPING_MAX) * (1 + self.health.unwell(self.params.config().probe_period, now));
        let until = now + span;
        let is_known = self.suspicions.get(&peer).is_some_and(|known| known.identity == identity && known.incarnation == incarnation);
        if is_known && self.timers.get(&Key::Suspicion(peer)).is_some_and(|at| at <= until) {
            return;
        }
        self.timers.set(Key::Suspicion(peer), until);
        self.timers.set(Key::LastPing(peer), now + span.saturating_sub(self.params.last_ping_lead()));
        if !is_known {
            self.suspicions.insert(peer, Suspicion { identity, incarnation, token });
            self.counters.suspicions += 1;
            if self.params.has(Improvement::BuddyPing) {
                let accusation = Accusation::Suspected { generation, incarnation };
                actions.push(Action::Send { to: peer, address, message: Message::Ping { accusation } });
            }
        }
    }

    pub(super) fn on_last_ping_due(&mut self, peer: I, actions: &mut Vec<Action<I>>) {
        let Some(Suspicion { identity, incarnation, .. }) = self.suspicions.get(&peer).copied() else { return };
        if self.params.has(Improvement::BuddyPing) && self.detector.is_suspect(&identity, incarnation) {
            let accusation = Accusation::Suspected { generation: identity.generation, incarnation };
            actions.push(Action::Send { to: peer, address: identity.address, message: Message::Ping { accusation } });
        }
    }

    pub(super) fn on_suspicion_due(&mut self, peer: I) {
        let Some(Suspicion { identity, incarnation, token }) = self.suspicions.remove(&peer) else { return };
        self.timers.cancel(&Key::LastPing(peer));
        // A suspicion may have been refuted, or be about a run that is over. Foca 2.0.0 would tell the member that it is dead all the same.
        if self.detector.is_suspect(&identity, incarnation) {
            self.detector.apply(std::iter::once(Update::new(identity, incarnation.min(super::LEFT - 1), Verdict::Down)), true);
            self.touched.push(peer);
        } else {
            self.counters.suspicions_refuted += 1;
            if let Some(token) = token.filter(|_| !self.params.has(Improvement::TimerFilter)) {
                self.detector.handle_timer(Timer::ChangeSuspectToDown { member_id: identity, incarnation, token });
            }
        }
    }

    pub(super) fn on_ping(&mut self, from: I, accusation: Accusation, now: Time, actions: &mut Vec<Action<I>>) {
        let verdict = match accusation {
            Accusation::Nothing => None,
            Accusation::Suspected { generation, incarnation } => Some((generation, incarnation, Verdict::Suspect)),
            Accusation::Dead { generation } => Some((generation, 0, Verdict::Down)),
        };
        if matches!(accusation, Accusation::Dead { .. }) {
            // Who holds us for dead may not have answered our digest.
            self.give_up_exchange(from);
        }
        if let Some((generation, incarnation, verdict)) = verdict {
            self.on_own_name(from, &Identity { generation, ..self.me }, incarnation, verdict, now, actions);
        }
        // A node that must wait before it renews has no sign of life to give: its present generation is dead.
        if self.wanted.is_none() {
            let message = Message::Pong { sender: self.own_record() };
            self.send(from, message, actions);
        }
    }

    pub(super) fn on_pong(&mut self, from: I, sender: &Record<I>, now: Time, actions: &mut Vec<Action<I>>) {
        if !self.take_in_person(from, sender, now, actions) {
            return;
        }
        if self.hints.remove(&from).is_some() {
            self.timers.cancel(&Key::Hint(from));
        }
        if let Some(late) = self.late.take_if(|late| late.target == sender.identity()) {
            self.detector.acknowledge(sender, late.probe_number);
        }
        self.tell_the_dead(from, now, actions);
    }

    /// Tells a peer that speaks although we hold this run of it for dead, once for all that it says at the same time; says whether that is so.
    pub(super) fn tell_the_dead(&mut self, peer: I, now: Time, actions: &mut Vec<Action<I>>) -> bool {
        let Some(entry) = self.view.entry(peer).filter(|entry| entry.member.status == Status::Down && entry.is_settled) else {
            return false;
        };
        let (generation, address) = (entry.member.generation, entry.member.address);
        let grace = self.params.hint_grace();
        let is_told = self.link(peer, now).accused_at.is_some_and(|at| now - at < grace);
        if !is_told && self.hints_left.take(HINTS_BURST, HINTS_PER_SECOND, now) {
            self.link(peer, now).accused_at = Some(now);
            let accusation = Accusation::Dead { generation };
            actions.push(Action::Send { to: peer, address, message: Message::Ping { accusation } });
        }
        true
    }

    /// Takes in what an authenticated peer says of itself; says whether it was fit to be heard.
    pub(super) fn take_in_person(&mut self, from: I, sender: &Record<I>, now: Time, actions: &mut Vec<Action<I>>) -> bool {
        if sender.peer != from || sender.status != Status::Alive {
            misbehaved(from, Misbehavior::Impersonation, actions);
            return false;
        }
        if let Some(what) = sender.fault() {
            misbehaved(from, what, actions);
            return false;
        }
        self.hear_from(from, now);
        self.detector.apply(std::iter::once(sender.update()), true);
        self.touched.push(from);
        self.refresh(Tell::All, now);
        true
    }
}
