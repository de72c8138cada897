//! What applications ask of a node: each call is checked, decided and routed before it returns.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::reliable::Sequence;
use meshwork_channels::{ChannelId, Now, PeerId, frame, limits};
use meshwork_crdt::confirm::ConfirmId;
use meshwork_crdt::replica::{self, SetError};
use meshwork_crdt::{Key, Op, Stamp};
use meshwork_overlay::plumtree::BroadcastError;

use super::requests::CALLS_MAX;
use super::{Action, CallId, Node, SendError, Sent, wire};
use crate::services::{ServiceError, Services, Write};

/// How long a connection may take that the application waits for: longer than two dials that nobody answers.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

impl Node {
    /// Broadcasts a payload to every node of the cluster but this one, on an application channel.
    ///
    /// Every node that is connected to this one, directly or through others, from now until the message has spread gets it exactly once; nodes that are cut off
    /// get it when they are linked again, as long as some node still holds the payload.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the payload is larger than [`limits::BROADCAST_BYTES_MAX`], the channel is not for applications, or the node is leaving.
    /// Nothing was sent then.
    pub fn broadcast(&mut self, channel: ChannelId, payload: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Sent, SendError> {
        self.check_channel(channel)?;
        // Whoever passes a broadcast on needs its channel, and not every node has one that was defined.
        if channel.is_defined() {
            return Err(SendError::UnknownChannel(channel));
        }
        let id = self
            .overlay
            .broadcast(channel, payload, now.time, &mut self.overlay_actions)
            .map_err(|BroadcastError::TooLarge { len, len_max }| SendError::TooLarge { len, len_max })?;
        self.route(now, actions);
        Ok(Sent { id, neighbors: self.neighbors().len() })
    }

    /// Sends a payload to one peer, dialing it if need be. It arrives at most once, in order with others on the same channel while
    /// the connection stands.
    ///
    /// The driver ends the call once the payload is queued on a connection; [`Action::Answer`] tells that it could not be.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then.
    pub fn send(
        &mut self,
        to: PeerId,
        channel: ChannelId,
        payload: &[u8],
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, SendError> {
        self.check_channel(channel)?;
        self.check_direct(to, payload)?;
        let call = self.calls.next_id();
        let frame = frame::encode(wire::MESSAGE, payload);
        let address = self.address_of(to);
        self.links.send(to, address, channel, frame, Some(call), now.time, &mut self.notices, actions);
        self.route(now, actions);
        Ok(call)
    }

    /// Sends a payload to one peer with guaranteed delivery: it is kept until the application of the peer took it, and sent again on the next
    /// connection as often as it takes. While both processes live it arrives exactly once, in order with others of this kind on the same channel; if the peer starts
    /// anew before it acknowledged, it arrives again under the same incarnation and sequence. After `ttl` it is not sent any more, if it was not sent before.
    ///
    /// [`Action::Settled`] tells how it ended.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was kept or sent then. After [`SendError::Full`] it can be tried again when something to this peer was settled.
    pub fn send_guaranteed(
        &mut self,
        to: PeerId,
        channel: ChannelId,
        payload: Bytes,
        ttl: Option<Duration>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<Sequence, SendError> {
        self.check_direct(to, &payload)?;
        if !self.guaranteed.has(channel) {
            return Err(if self.takes(channel) { SendError::Unsuited(channel) } else { SendError::UnknownChannel(channel) });
        }
        let link = self.links.link_of(to);
        let sent = self.guaranteed.send(to, link, channel, payload, ttl, now.time, actions);
        self.route(now, actions);
        sent
    }

    /// Connects to one peer if it is not connected, so that messages can go past this node, straight to the connection. [`Action::Answer`] tells when it stands.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was done then.
    pub fn connect(&mut self, to: PeerId, channel: ChannelId, now: Now, actions: &mut Vec<Action>) -> Result<CallId, SendError> {
        self.check_channel(channel)?;
        self.check_direct(to, &[])?;
        if self.calls.len() >= CALLS_MAX {
            return Err(SendError::TooManyCalls);
        }
        let call = self.calls.next_id();
        if self.links.connection_of(to).is_some() {
            actions.push(Action::Answer { call, outcome: Ok(Bytes::new()) });
            return Ok(call);
        }
        // A call without a frame: all that it waits for is the connection.
        self.calls.open(call, to, Bytes::new(), CONNECT_PATIENCE, now.time);
        let address = self.address_of(to);
        self.links.wait_for(to, address, now.time, &mut self.notices, actions);
        self.route(now, actions);
        Ok(call)
    }

    /// Asks one peer, dialing it if need be, and waits at most `timeout` for the answer. If the connection breaks the request is sent again; the
    /// peer's handler runs once all the same.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then. Later failures are told by [`Action::Answer`].
    pub fn request(
        &mut self,
        to: PeerId,
        payload: Bytes,
        timeout: Duration,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<CallId, SendError> {
        self.check_direct(to, &payload)?;
        if self.calls.len() >= CALLS_MAX {
            return Err(SendError::TooManyCalls);
        }
        let call = self.calls.next_id();
        let frame = wire::encode(wire::REQUEST, &wire::Request { id: call.0, payload });
        self.calls.open(call, to, frame, timeout, now.time);
        if self.links.connection_of(to).is_some() {
            self.send_call(call, to, now, actions);
        } else {
            let address = self.address_of(to);
            self.links.wait_for(to, address, now.time, &mut self.notices, actions);
        }
        self.route(now, actions);
        Ok(call)
    }

    /// Gives a call up: it is forgotten at once, and [`Action::Answer`] will not come for it. A peer that was asked is told if it is connected, so that its
    /// handler can stop; it may have acted all the same. A call that is over, or that waits for no answer, is none of this.
    pub fn cancel(&mut self, call: CallId, now: Now, actions: &mut Vec<Action>) {
        // It is one of both, and numbers are shared.
        self.state.give_up(ConfirmId(call.0));
        if let Some(asked) = self.calls.cancel(call) {
            self.send_cancel(call, asked, now, actions);
            self.route(now, actions);
        }
    }

    /// Writes a register of the replicated state, in which the last writer wins. The write is visible here at once and everywhere soon.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn set(&mut self, key: &str, value: Bytes, now: Now, actions: &mut Vec<Action>) -> Result<Stamp, SetError> {
        let stamp = self.apply(key, Op::Set(value), now, actions)?;
        Ok(stamp.expect("to write a register is always news"))
    }

    /// Does something to a key of the replicated state: writes a register, counts, changes a set. None when that changes nothing.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn apply(&mut self, key: &str, op: Op, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        check_key(key)?;
        let stamp = self.state.apply(key, op, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(stamp)
    }

    /// Does something to several keys of the replicated state, all of it or nothing. None when that changes nothing.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn batch(&mut self, writes: Vec<(Key, Op)>, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        writes.iter().try_for_each(|(key, _)| check_key(key).map_err(|error| error.in_batch(key)))?;
        let stamp = self.state.batch(writes, now, &mut self.state_actions)?;
        self.route(now, actions);
        Ok(stamp)
    }

    /// Removes a key of the replicated state; none when it has no value here.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn remove(&mut self, key: &str, now: Now, actions: &mut Vec<Action>) -> Result<Option<Stamp>, SetError> {
        self.apply(key, Op::Remove, now, actions)
    }

    /// The value of a register of the replicated state.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.state.get(key)
    }

    /// The services over the replicated state, for whoever reads.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Does something with a service, and makes the writes that it wants: all of them or none.
    ///
    /// # Errors
    ///
    /// [`ServiceError`]; nothing was written then.
    pub fn serve<E>(
        &mut self,
        now: Now,
        actions: &mut Vec<Action>,
        verb: impl FnOnce(&mut Services, &replica::State) -> Result<Vec<Write>, E>,
    ) -> Result<Option<Stamp>, ServiceError<E>> {
        let written = verb(&mut self.services, &self.state).map_err(ServiceError::Refused).and_then(|writes| {
            let ops = writes.iter().map(|write| (write.key.clone(), write.op.clone())).collect();
            self.state.batch(ops, now, &mut self.state_actions).map_err(|error| {
                self.services.registry.refused(&writes, &self.state, now);
                ServiceError::NotWritten(error)
            })
        });
        self.route(now, actions);
        written
    }

    /// Says goodbye to the cluster. The driver goes on for a moment so that it is heard, then closes the connections. From now on nobody is
    /// dialed, nobody is let in, and calls of the application are refused.
    pub fn leave(&mut self, now: Now, actions: &mut Vec<Action>) {
        if !self.leaving {
            self.leaving = true;
            self.overlay.handle(meshwork_overlay::Input::Leave, now.time, &mut self.overlay_actions);
            self.route(now, actions);
            self.links.leave();
        }
    }

    /// Whether the application may send what is not acknowledged on a channel.
    pub(crate) fn check_channel(&self, channel: ChannelId) -> Result<(), SendError> {
        if self.leaving {
            return Err(SendError::Leaving);
        }
        match self.takes(channel) {
            true if self.guaranteed.owns(channel) => Err(SendError::Unsuited(channel)),
            true => Ok(()),
            false => Err(SendError::UnknownChannel(channel)),
        }
    }

    fn check_direct(&self, to: PeerId, payload: &[u8]) -> Result<(), SendError> {
        if self.leaving {
            Err(SendError::Leaving)
        } else if payload.len() > limits::MESSAGE_BYTES_MAX {
            Err(SendError::TooLarge { len: payload.len(), len_max: limits::MESSAGE_BYTES_MAX })
        } else if to == self.identity.peer {
            Err(SendError::Myself)
        } else if self.links.connection_of(to).is_none() && self.address_of(to).is_none() {
            Err(SendError::UnknownPeer(to))
        } else {
            Ok(())
        }
    }
}

pub(super) fn check_key(key: &str) -> Result<(), SetError> {
    if key.starts_with('@') { Err(SetError::KeyReserved) } else { Ok(()) }
}
