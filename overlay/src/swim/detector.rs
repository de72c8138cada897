//! Foca, held so that nothing it asks for is lost and nothing it does escapes notice.

use std::time::Duration;

use bytes::Bytes;
use foca::{
    Foca, Header, Incarnation, Member as Update, Message, NoCustomBroadcast, Notification, PostcardCodec, ProbeNumber, Runtime,
    State as Verdict, Timer, TimerToken,
};
use meshwork_channels::random::Generator;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::identity::Identity;
use super::message::{LEFT, Packet, Record};
use crate::identifier::Identifier;

/// The kinds of timers of which foca has at most one running each, in the order in which foca wants those that fall on one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    SendIndirectProbe,
    ProbeRandomMember,
    Announce,
    Gossip,
    AnnounceDown,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] = [Kind::SendIndirectProbe, Kind::ProbeRandomMember, Kind::Announce, Kind::Gossip, Kind::AnnounceDown];

    /// Whether the timer starts a rhythm, which then gets a random phase: nodes that start together must not probe together.
    pub(super) fn is_periodic(self) -> bool {
        self != Kind::SendIndirectProbe
    }
}

/// What foca asked for since it was last asked.
pub(super) struct Output<I> {
    pub(super) packets: Vec<(Identity<I>, Bytes)>,
    pub(super) timers: Vec<(Kind, Timer<Identity<I>>, Duration)>,
    /// Members that did not answer a probe.
    pub(super) unanswered: Vec<(Identity<I>, Incarnation, TimerToken)>,
}

impl<I: Identifier> Runtime<Identity<I>> for Output<I> {
    fn notify(&mut self, _: Notification<'_, Identity<I>>) {
        // Events are derived from the state alone: the view compares before and after.
    }

    fn send_to(&mut self, to: Identity<I>, data: &[u8]) {
        self.packets.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, timer: Timer<Identity<I>>, after: Duration) {
        let kind = match timer {
            Timer::SendIndirectProbe { .. } => Kind::SendIndirectProbe,
            Timer::ProbeRandomMember(_) => Kind::ProbeRandomMember,
            Timer::PeriodicAnnounce(_) => Kind::Announce,
            Timer::PeriodicGossip(_) => Kind::Gossip,
            Timer::PeriodicAnnounceDown(_) => Kind::AnnounceDown,
            Timer::ChangeSuspectToDown { member_id, incarnation, token } => {
                self.unanswered.push((member_id, incarnation, token));
                return;
            }
            // Tombstones are timed by the node, and foca is configured to keep them.
            Timer::RemoveDown(_) => return,
        };
        self.timers.push((kind, timer, after));
    }
}

/// One run of foca under one identity.
pub(super) struct Detector<I: Identifier + Serialize + DeserializeOwned> {
    foca: Foca<Identity<I>, PostcardCodec, Generator, NoCustomBroadcast>,
    /// Our own incarnation. Foca does not tell it, but changes it by one rule only: see [`Detector::refute`].
    incarnation: Incarnation,
    pub(super) output: Output<I>,
}

impl<I: Identifier + Serialize + DeserializeOwned> Detector<I> {
    pub(super) fn new(me: Identity<I>, config: foca::Config, random: Generator) -> Self {
        Detector {
            foca: Foca::new(me, config, random, PostcardCodec),
            incarnation: 0,
            output: Output { packets: Vec::new(), timers: Vec::new(), unanswered: Vec::new() },
        }
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn up_len(&self) -> usize {
        self.foca.num_members()
    }

    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = &Update<Identity<I>>> {
        self.foca.iter_membership_state()
    }

    /// Whether foca still suspects exactly this: the same run, not refuted since.
    pub(super) fn is_suspect(&self, identity: &Identity<I>, incarnation: Incarnation) -> bool {
        let same = |known: &Update<Identity<I>>| known.id() == identity && known.incarnation() == incarnation;
        self.members().any(|known| same(known) && known.state() == Verdict::Suspect)
    }

    /// Hands over a packet that was looked at: it comes from its sender, and nothing in it is about us.
    pub(super) fn handle_packet(&mut self, bytes: &[u8]) {
        if let Err(error) = self.foca.handle_data(bytes, &mut self.output) {
            tracing::debug!(%error, "foca refused a packet");
        }
    }

    /// Takes what a member said of itself for its answer to the probe of this number.
    pub(super) fn acknowledge(&mut self, sender: &Record<I>, number: ProbeNumber) {
        let header = Header {
            src: sender.identity(),
            src_incarnation: sender.incarnation,
            dst: *self.foca.identity(),
            message: Message::Ack(number),
        };
        self.handle_packet(&Packet { header, updates: Vec::new() }.encode());
    }

    pub(super) fn handle_timer(&mut self, timer: Timer<Identity<I>>) {
        if let Err(error) = self.foca.handle_timer(timer, &mut self.output) {
            tracing::debug!(%error, "foca lost its rhythm");
        }
    }

    /// Feeds knowledge about others, and tells it on unless it is only put back.
    pub(super) fn apply(&mut self, updates: impl Iterator<Item = Update<Identity<I>>>, is_news: bool) {
        if let Err(error) = self.foca.apply_many(updates, is_news, &mut self.output) {
            tracing::debug!(%error, "foca refused an update");
        }
    }

    /// Answers a suspicion of ourselves by a higher incarnation, which every packet carries from then on.
    pub(super) fn refute(&mut self, incarnation: Incarnation) {
        debug_assert!(incarnation < LEFT - 1, "the last incarnations are renewed, not refuted");
        if incarnation >= self.incarnation {
            let me = *self.foca.identity();
            self.apply(std::iter::once(Update::new(me, incarnation, Verdict::Suspect)), true);
            self.incarnation = incarnation + 1;
        }
    }

    pub(super) fn forget(&mut self, identity: Identity<I>) {
        self.handle_timer(Timer::RemoveDown(identity));
    }

    /// Makes itself known to a peer, of which only the name and where to reach it matter.
    pub(super) fn announce(&mut self, to: Identity<I>) {
        if let Err(error) = self.foca.announce(to, &mut self.output) {
            tracing::debug!(%error, "foca could not announce");
        }
    }

    /// Tells a few members now, if there is anything to tell.
    pub(super) fn gossip(&mut self) {
        if self.foca.updates_backlog() > 0 {
            self.introduce();
        }
    }

    /// Writes to a few members now, so that they learn our identity even when there is nothing else to tell.
    pub(super) fn introduce(&mut self) {
        if let Err(error) = self.foca.gossip(&mut self.output) {
            tracing::debug!(%error, "foca could not gossip");
        }
    }

    pub(super) fn set_config(&mut self, config: foca::Config) {
        if let Err(error) = self.foca.set_config(config) {
            debug_assert!(false, "only what foca lets change is changed: {error}");
        }
    }
}
