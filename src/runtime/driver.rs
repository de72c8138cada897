//! The loop that drives a node: inputs in, actions out, never a wait between them.
//!
//! Everything that may wait happens elsewhere: connections have tasks of their own behind bounded queues, files are written on another thread,
//! handlers of the application run wherever the application runs. The answer to a queue that is full stands beside the send.

#![expect(clippy::disallowed_methods, reason = "the driver reads the clocks and starts threads and tasks")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meshwork_channels::agreement::Disagreement;
use meshwork_channels::channel::Overflow;
use meshwork_channels::dial::ConnectionId;
use meshwork_channels::quic::{self, CloseCode, Endpoint, Link};
use meshwork_channels::{ChannelId, Now, PeerId, Time, WallTime, random};
use meshwork_crdt::confirm::Confirmed;
use meshwork_crdt::journal::Record;
use meshwork_crdt::replica::{Restored, Reunion};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::app::Driven;
use super::backlog::Backlog;
use super::calls::{Abandoned, GivenUp};
use super::channel::{Receiver, inbox_bytes_max};
use super::congestion::Congestion;
use super::discovery::{self, Found};
use super::durable::{DurableError, Keeper};
use super::guaranteed::{Content, GuaranteedSend, Inbox, Outbox, Owned};
use super::known::Known;
use super::metrics::Ledger;
use super::report::Report;
use super::state::Change;
use super::storage::DataDir;
use super::streams::{DirectMessage, Request};
use super::watchdog::Pulse;
use super::{ChannelError, Command, Error, Verdict, WriteVerb};
use crate::node::{
    Action, CallError, CallId, Candidate, CloseReason, Delivery, Event, Identity, Input, Node, Params, Refusal, RequestToken, SendError,
};

/// Inputs of one kind that are handled before others get their turn.
const BURST: usize = 128;
/// The loop turns at least this often, and looks after slow peers when it does.
const TICK: Duration = Duration::from_millis(500);
/// A peer that takes nothing for this long while frames wait for it is too slow.
const STALLED: Duration = Duration::from_secs(5);
/// While the application is held up, the queues are looked at this often: nothing tells when they have drained.
const CONGESTED_LOOK: Duration = Duration::from_millis(2);
/// How long a goodbye may take to spread, and what is queued to go out.
const GOODBYE: Duration = Duration::from_millis(600);
const DRAIN: Duration = Duration::from_secs(3);

/// Where the application listens.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) events: broadcast::Sender<Event>,
    pub(super) deliveries: broadcast::Sender<Delivery>,
    pub(super) messages: broadcast::Sender<DirectMessage>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) services: broadcast::Sender<crate::services::Event>,
}

/// What a driver is made of.
pub(super) struct Parts {
    /// The moment that is zero for the node and for its links.
    pub(super) origin: Instant,
    pub(super) identity: Identity,
    pub(super) params: Params,
    pub(super) endpoint: Endpoint,
    pub(super) endpoint_events: quic::Events,
    pub(super) command_queue: mpsc::Receiver<Command>,
    pub(super) write_queue: mpsc::Receiver<Command>,
    pub(super) streams: Streams,
    pub(super) pulse: Arc<Pulse>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) given_up: Arc<GivenUp>,
    pub(super) data_dir: Option<DataDir>,
    /// What keeps the replicated state, and what it kept.
    pub(super) kept: Option<(Keeper, Vec<Record>)>,
    pub(super) candidates: Vec<Candidate>,
    /// The keyed tag of the cluster and the socket that listens, when mDNS is on.
    pub(super) mdns: Option<(String, SocketAddr)>,
    pub(super) app: Option<Box<dyn Driven>>,
}

/// Runs a node on a thread of its own, with a runtime of its own. `make` is called there.
pub(super) fn start_thread(peer: PeerId, make: impl FnOnce() -> Option<Driver> + Send + 'static) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system gives no event loop: {error}"))?;
    std::thread::Builder::new()
        .name(format!("meshwork-{}", &peer.short()[..4]))
        .spawn(move || {
            let _inside = runtime.enter();
            if let Some(driver) = make() {
                runtime.block_on(driver.run());
            }
        })
        .map_err(|error| format!("the system gives no thread: {error}"))?;
    Ok(())
}

enum Waiter {
    Connect(PeerId, oneshot::Sender<Result<Link, Error>>),
    Send(oneshot::Sender<Result<(), Error>>),
    Request(oneshot::Sender<Result<Bytes, Error>>),
    Confirmed(oneshot::Sender<Confirmed>),
}

impl Waiter {
    fn fail(self, error: CallError) {
        // Whoever asked may have gone away.
        match self {
            Waiter::Connect(_, reply) => drop(reply.send(Err(Error::Call(error)))),
            Waiter::Send(reply) => drop(reply.send(Err(Error::Call(error)))),
            Waiter::Request(reply) => drop(reply.send(Err(Error::Call(error)))),
            // Whoever waits sees that nobody answers any more.
            Waiter::Confirmed(_) => {}
        }
    }
}

/// The driver of one node.
pub(super) struct Driver {
    node: Node,
    app: Option<Box<dyn Driven>>,
    origin: Instant,
    endpoint: Endpoint,
    endpoint_events: quic::Events,
    command_queue: mpsc::Receiver<Command>,
    write_queue: mpsc::Receiver<Command>,
    found: mpsc::Receiver<Found>,
    streams: Streams,
    pulse: Arc<Pulse>,
    links: BTreeMap<ConnectionId, Link>,
    ledger: Ledger,
    congestion: Congestion,
    /// Application frames that each connection had carried at the last tick.
    carried: BTreeMap<ConnectionId, u64>,
    waiters: BTreeMap<CallId, Waiter>,
    inbox: Owned,
    outbox: Outbox,
    backlog: Backlog,
    requests: Option<mpsc::Sender<Request>>,
    /// Requests that the application has, and whose askers wait as far as is known: dropping the entry tells it that they do not.
    awaited: BTreeMap<RequestToken, watch::Sender<()>>,
    given_up: Arc<GivenUp>,
    /// For requests that wait for their answer: dropped with the driver, so that a handle that only serves does not keep the node alive.
    commands: mpsc::WeakSender<Command>,
    known: Known,
    keeper: Option<Keeper>,
    inputs: VecDeque<Input>,
    actions: Vec<Action>,
    tick_at: Instant,
}

/// Why the loop ended.
enum End {
    /// Somebody asked to leave, and waits.
    Leave(Option<oneshot::Sender<()>>),
    /// Stop at once, as if the process had died.
    Kill,
}

impl Driver {
    pub(super) fn new(parts: Parts, commands: mpsc::WeakSender<Command>) -> Self {
        let Parts {
            origin,
            identity,
            params,
            endpoint,
            endpoint_events,
            command_queue,
            write_queue,
            streams,
            pulse,
            inbox,
            given_up,
            data_dir,
            kept,
            candidates,
            mdns,
            app,
        } = parts;
        let mut seed = [0; 8];
        // Without system randomness the keys could not have been made; the identity still sets nodes apart.
        if quic::system_random(&mut seed).is_err() {
            seed.copy_from_slice(&identity.peer.as_bytes()[..8]);
        }
        let seed = random::hash(&[u64::from_le_bytes(seed), identity.incarnation]);
        let now = Now { time: since(origin), wall: wall_now() };
        let (found_sender, found) = mpsc::channel(64);
        if let Some((tag, listening)) = mdns {
            tokio::spawn(discovery::mdns(identity.peer, listening, tag, found_sender));
        }
        let known = Known::new(&candidates, data_dir, origin);
        let (mut node, mut actions) = (Node::new(identity, params, seed, now), Vec::new());
        let keeper = kept.map(|(keeper, records)| {
            let Restored { entries, refused, is_continued } = node.restore(records, now, &mut actions);
            info!(entries, is_continued, "state restored");
            if refused > 0 {
                warn!(
                    refused,
                    "entries do not fit within the bounds of the state, or are not signed as `signed` says; they stay in the data folder"
                );
            }
            keeper
        });
        info!(id = %identity.peer.short(), address = %identity.address, incarnation = identity.incarnation, "node started");
        Driver {
            node,
            app,
            origin,
            endpoint,
            endpoint_events,
            command_queue,
            write_queue,
            found,
            streams,
            pulse,
            links: BTreeMap::new(),
            ledger: Ledger::default(),
            congestion: Congestion::default(),
            carried: BTreeMap::new(),
            waiters: BTreeMap::new(),
            inbox: Owned(inbox),
            outbox: Outbox::default(),
            backlog: Backlog::default(),
            requests: None,
            awaited: BTreeMap::new(),
            given_up,
            commands,
            known,
            keeper,
            inputs: VecDeque::from([Input::Discovered { source: "static", candidates }]),
            actions,
            tick_at: origin + TICK,
        }
    }

    pub(super) async fn run(mut self) {
        let end = self.turn_until_end().await;
        self.pulse.end();
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            waiter.fail(CallError::Leaving);
        }
        // Before anybody can see that the queue of commands is closed.
        self.inbox.close();
        self.outbox = Outbox::default();
        self.awaited.clear();
        if let End::Leave(reply) = end {
            // Nothing is decided any more. Who stops programs may not wait until all has gone out, so the files come first.
            self.known.close(&self.node).await;
            let now = self.now();
            if let Some(keeper) = self.keeper.take() {
                keeper.close(&mut self.node, now).await;
            }
            self.endpoint.shutdown(CloseCode::Leaving, DRAIN).await;
            info!(id = %self.node.id().short(), "node stopped");
            if let Some(reply) = reply {
                let _ = reply.send(());
            }
        }
    }

    async fn turn_until_end(&mut self) -> End {
        let mut leaving: Option<(Instant, Option<oneshot::Sender<()>>)> = None;
        self.call_app(|app, node, now, actions| app.start(node, now, actions));
        loop {
            self.pulse.beat();
            self.handle_inputs();
            self.send_waiting();
            self.backlog.send_waiting(&self.links);
            let now = self.now();
            if let Some(keeper) = &mut self.keeper {
                keeper.write_down(&mut self.node, now);
            }
            if let Some((until, reply)) = &mut leaving
                && Instant::now() >= *until
            {
                return End::Leave(reply.take());
            }
            let deadline = self.node.next_deadline().map_or(self.tick_at, |at| self.tick_at.min(self.instant(at)));
            let deadline = leaving.as_ref().map_or(deadline, |(until, _)| deadline.min(*until));
            let congested = self.is_congested();
            let alarm = self.app.as_ref().and_then(|app| app.next_deadline()).filter(|_| !congested);
            let deadline = alarm.map_or(deadline, |at| deadline.min(self.instant(at)));
            let deadline = if congested || !self.backlog.is_empty() { deadline.min(Instant::now() + CONGESTED_LOOK) } else { deadline };
            let room_at = self.keeper.as_ref().and_then(Keeper::next_deadline);
            let deadline = room_at.map_or(deadline, |at| deadline.min(at));
            let (takes_commands, takes_writes) = (leaving.is_none(), leaving.is_none() && !congested);
            let command = tokio::select! {
                biased;
                event = self.endpoint_events.recv() => {
                    if let Some(event) = event {
                        self.on_endpoint_event(event);
                    }
                    None
                }
                command = self.command_queue.recv(), if takes_commands => Some(command),
                // Ends only with the other queue.
                Some(write) = self.write_queue.recv(), if takes_writes => Some(Some(write)),
                Some(found) = self.found.recv() => {
                    self.on_found(found);
                    None
                }
                () = self.inbox.acknowledged() => None,
                () = self.given_up.left() => None,
                () = Keeper::spoke(&mut self.keeper) => {
                    if let Some(keeper) = &mut self.keeper {
                        keeper.settle();
                    }
                    None
                }
                () = tokio::time::sleep_until(deadline.into()) => None,
            };
            for _ in 0..BURST {
                let Some(event) = self.endpoint_events.try_recv() else { break };
                self.on_endpoint_event(event);
            }
            let (mut next, mut handled) = (command, 0);
            while let Some(command) = next.take() {
                match command {
                    Some(Command::Kill) => return End::Kill,
                    Some(Command::Leave { reply }) => leaving = Some(self.say_goodbye(Some(reply))),
                    // Every handle is gone: nobody can use the node any more.
                    None => leaving = Some(self.say_goodbye(None)),
                    Some(command) => self.on_command(command),
                }
                handled += 1;
                if leaving.is_none() && handled < BURST {
                    next = self.command_queue.try_recv().ok().map(Some);
                    // Looked at before the next one is taken: whatever is taken is handled.
                    if next.is_none() && !self.is_congested() {
                        next = self.write_queue.try_recv().ok().map(Some);
                    }
                }
            }
            self.inputs.extend(self.inbox.drain_taken());
            self.take_given_up();
            if Instant::now() >= self.tick_at {
                self.on_tick();
            }
            if self.node.next_deadline().is_some_and(|at| at <= self.now().time) {
                self.inputs.push_back(Input::DeadlineReached);
            }
            let alarm = self.app.as_ref().and_then(|app| app.next_deadline());
            if alarm.is_some_and(|at| at <= self.now().time) && !self.is_congested() {
                self.call_app(|app, node, now, actions| app.on_deadline(node, now, actions));
            }
        }
    }

    /// Calls the application, if there is one, and carries out what it decides.
    fn call_app(&mut self, call: impl FnOnce(&mut dyn Driven, &mut Node, Now, &mut Vec<Action>)) {
        let now = self.now();
        if let Some(app) = &mut self.app {
            call(app.as_mut(), &mut self.node, now, &mut self.actions);
            self.carry_out();
        }
    }

    fn now(&self) -> Now {
        Now { time: since(self.origin), wall: wall_now() }
    }

    fn instant(&self, time: Time) -> Instant {
        // A far deadline is cut to the next tick by the caller; an hour keeps the sum in range.
        self.origin + time.since(Time::ZERO).min(self.origin.elapsed() + Duration::from_secs(3_600))
    }

    fn say_goodbye(&mut self, reply: Option<oneshot::Sender<()>>) -> (Instant, Option<oneshot::Sender<()>>) {
        let now = self.now();
        self.node.leave(now, &mut self.actions);
        self.carry_out();
        (Instant::now() + GOODBYE, reply)
    }

    /// Feeds what has come up, and carries out what the node decides, until neither is left.
    fn handle_inputs(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let now = self.now();
            self.node.handle(input, now, &mut self.actions);
            self.carry_out();
        }
    }

    /// Carries out the actions in order. Nothing here waits: a full queue has its answer beside the send.
    fn carry_out(&mut self) {
        if self.app.is_some() && !self.actions.is_empty() {
            let now = self.now();
            if let Some(app) = &mut self.app {
                app.react(&mut self.node, now, &mut self.actions);
            }
        }
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Dial { address, expected } => self.endpoint.dial(address, expected),
                Action::Send { connection, channel, frame, call } => self.send(connection, channel, frame, call),
                Action::SendGuaranteed { connection, channel, frame } => self.send_in_order(connection, channel, frame),
                Action::SendDatagram { connection, bytes } => {
                    if let Some(link) = self.links.get(&connection) {
                        // A datagram may be lost, on the way as here.
                        let _ = link.try_send_datagram(bytes);
                    }
                }
                Action::Close { connection, reason } => {
                    // Nothing is sent on it any more, and its queues count for nothing.
                    if let Some(link) = self.links.remove(&connection) {
                        self.ledger.closing(link.clone());
                        match reason {
                            // What is queued still goes out.
                            CloseReason::Unneeded => link.drain(CloseCode::Idle, DRAIN),
                            reason => link.close(close_code(reason)),
                        }
                    }
                }
                Action::Event(event) => {
                    log_event(&event);
                    // Without a subscriber nobody wants to know.
                    let _ = self.streams.events.send(event);
                }
                Action::Deliver(delivery) => drop(self.streams.deliveries.send(delivery)),
                Action::Message { from, channel, payload } => {
                    drop(self.streams.messages.send(DirectMessage { from, channel, payload }));
                }
                Action::DeliverGuaranteed { from, incarnation, channel, sequence, payload } => {
                    self.inbox.push(Content { from, channel, incarnation, sequence, payload });
                }
                Action::Settled { to, channel, sequence, outcome } => self.outbox.settle(to, channel, sequence, &outcome),
                Action::Request { token, payload } => self.hand_out(token, payload),
                Action::Cancelled { token } => drop(self.awaited.remove(&token)),
                Action::Answer { call, outcome } => match self.waiters.remove(&call) {
                    Some(Waiter::Request(reply)) => drop(reply.send(outcome.map_err(Error::Call))),
                    Some(Waiter::Send(reply)) => drop(reply.send(outcome.map(|_| ()).map_err(Error::Call))),
                    Some(Waiter::Connect(to, reply)) => {
                        let link = self.node.connection_of(to).and_then(|connection| self.links.get(&connection)).cloned();
                        drop(reply.send(match outcome {
                            Ok(_) => link.ok_or(Error::Call(CallError::Unreachable)),
                            Err(error) => Err(Error::Call(error)),
                        }));
                    }
                    Some(Waiter::Confirmed(_)) | None => {}
                },
                Action::Confirmed { call, confirmed } => {
                    if let Some(Waiter::Confirmed(reply)) = self.waiters.remove(&call) {
                        let _ = reply.send(confirmed);
                    }
                }
                Action::Service(event) => drop(self.streams.services.send(event)),
                Action::Changed { key, value, stamp, revision } => {
                    drop(self.streams.changes.send(Change { key, value, stamp: Some(stamp), revision }));
                }
            }
        }
        self.actions = actions;
    }

    fn send(&mut self, connection: ConnectionId, channel: ChannelId, frame: Bytes, call: Option<CallId>) {
        let sent = match self.links.get(&connection) {
            Some(link) => link.try_send(channel, frame),
            None => Err(quic::SendError::Closed(frame)),
        };
        match (sent, call) {
            (Ok(()), Some(call)) => {
                if let Some(Waiter::Send(_)) = self.waiters.get(&call)
                    && let Some(Waiter::Send(reply)) = self.waiters.remove(&call)
                {
                    let _ = reply.send(Ok(()));
                }
            }
            (Ok(()), None) => {}
            // A connection that is going down: its end is among the events to come. A request is sent again on the next one.
            (Err(quic::SendError::Closed(_)), Some(call)) => {
                if let Some(Waiter::Send(_)) = self.waiters.get(&call)
                    && let Some(waiter) = self.waiters.remove(&call)
                {
                    waiter.fail(CallError::Unreachable);
                }
            }
            (Err(quic::SendError::Disagreed(_, problem)), Some(call)) => {
                if let Some(Waiter::Send(reply)) = self.waiters.remove(&call)
                    && let Some(link) = self.links.get(&connection)
                {
                    let _ = reply.send(Err(Error::Channel(Box::new(ChannelError::of(link.peer(), *problem)))));
                }
            }
            (Err(_), Some(call)) => self.inputs.push_back(Input::Refused { call }),
            // Nobody here could be told: a relayed broadcast, or an answer. After the reconnection both are made good.
            (Err(quic::SendError::Refused(refused)), None) if refused.overflow != Overflow::Drop => {
                self.inputs.push_back(Input::Stalled { connection });
            }
            // Counted by the link; or the connection is going down, and what is lost with it is the peers' to repair.
            (Err(_), None) => {}
        }
    }

    /// Queues a frame that may not be lost as long as its connection stands.
    fn send_in_order(&mut self, connection: ConnectionId, channel: ChannelId, frame: Bytes) {
        // Without a connection: what it carried is sent again on the next one.
        let Some(link) = self.links.get(&connection) else { return };
        if disagreement(link, channel).is_some() {
            self.inputs.push_back(Input::Disagreed { connection, channel });
        } else if !self.backlog.send(link, channel, frame) {
            self.inputs.push_back(Input::Stalled { connection });
        }
    }

    /// Tries the sends that waited for something to be settled.
    fn send_waiting(&mut self) {
        for sends in self.outbox.take_roomy() {
            for send in sends {
                self.send_guaranteed(send);
            }
        }
        self.carry_out();
    }

    fn send_guaranteed(&mut self, send: GuaranteedSend) {
        let GuaranteedSend { to, channel, payload, ttl, reply } = send;
        if reply.is_closed() {
            // Whoever waited for room has given up.
            return;
        }
        let link = self.node.connection_of(to).and_then(|connection| self.links.get(&connection));
        if let Some(problem) = link.and_then(|link| disagreement(link, channel)) {
            let _ = reply.send(Err(Error::Channel(Box::new(ChannelError::of(to, problem)))));
            return;
        }
        // Whoever waits already goes first.
        let sent = match self.outbox.is_waiting(to, channel) {
            true => Err(SendError::Full),
            false => self.node.send_guaranteed(to, channel, payload.clone(), ttl, self.now(), &mut self.actions),
        };
        match sent {
            Ok(sequence) => {
                let receipt = self.outbox.expect(to, channel, sequence);
                let _ = reply.send(Ok(receipt));
            }
            Err(SendError::Full) => self.outbox.wait(GuaranteedSend { to, channel, payload, ttl, reply }),
            Err(error) => drop(reply.send(Err(Error::Send(error)))),
        }
    }

    fn hand_out(&mut self, token: RequestToken, payload: Bytes) {
        let refusal = match &self.requests {
            None => Some(Refusal::NoHandler),
            Some(requests) => {
                let (sender, awaited) = watch::channel(());
                let request = Request { token, payload, commands: self.commands.upgrade(), given_up: self.given_up.clone(), awaited };
                match requests.try_send(request) {
                    Ok(()) => {
                        self.awaited.insert(token, sender);
                        None
                    }
                    Err(mpsc::error::TrySendError::Full(mut request)) => {
                        request.commands = None;
                        Some(Refusal::Busy)
                    }
                    Err(mpsc::error::TrySendError::Closed(mut request)) => {
                        request.commands = None;
                        self.requests = None;
                        Some(Refusal::NoHandler)
                    }
                }
            }
        };
        if let Some(refusal) = refusal {
            self.inputs.push_back(Input::Respond { token, answer: Err(refusal) });
        }
    }

    /// Forgets what the application gave up.
    fn take_given_up(&mut self) {
        for note in self.given_up.take() {
            match note {
                Abandoned::Call(call) => self.cancel(call),
                // An asker that waits tries elsewhere, or later.
                Abandoned::Request(token) => self.respond(token, Err(Refusal::Busy)),
            }
        }
    }

    fn cancel(&mut self, call: CallId) {
        self.waiters.remove(&call);
        let now = self.now();
        self.node.cancel(call, now, &mut self.actions);
        self.carry_out();
    }

    fn respond(&mut self, token: RequestToken, answer: Result<Bytes, Refusal>) {
        self.awaited.remove(&token);
        self.inputs.push_back(Input::Respond { token, answer });
    }

    fn on_endpoint_event(&mut self, event: quic::Event) {
        let input = match event {
            quic::Event::Connected(link) => {
                let input = Input::Connected {
                    connection: link.id(),
                    peer: link.peer(),
                    incarnation: link.incarnation(),
                    address: link.address(),
                    direction: link.direction(),
                };
                debug!(peer = %link.peer().short(), address = %link.address(), "connected");
                self.links.insert(link.id(), link);
                input
            }
            quic::Event::DialFailed { address, error, .. } => {
                debug!(%address, %error, "dial failed");
                Input::DialFailed { address, failure: error.failure() }
            }
            quic::Event::Refused { address, reason } => {
                warn!(%address, %reason, "turned away");
                return;
            }
            quic::Event::Frame { connection, channel, frame } => Input::Frame { connection, channel, frame },
            quic::Event::Datagram { connection, bytes } => Input::Datagram { connection, bytes },
            quic::Event::Closed { connection, peer, reason } => {
                debug!(peer = %peer.short(), %reason, "connection closed");
                let link = self.links.remove(&connection);
                self.ledger.ended(connection, link, &self.links);
                use quic::CloseReason::{Misbehaved, Ours, Theirs};
                if let Misbehaved(what) = reason {
                    self.inputs.push_back(Input::Misbehaved { connection, what });
                }
                let unneeded =
                    matches!(reason, Ours(CloseCode::Idle | CloseCode::Duplicate) | Theirs(CloseCode::Idle | CloseCode::Duplicate));
                Input::Disconnected { connection, peer, unneeded }
            }
        };
        self.inputs.push_back(input);
        self.handle_inputs();
    }

    fn on_found(&mut self, found: Found) {
        self.known.add(&found.candidates);
        self.inputs.push_back(Input::Discovered { source: found.source, candidates: found.candidates });
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Broadcast { channel, payload, reply } => {
                let _ = reply.send(self.node.broadcast(channel, payload, now, &mut self.actions));
            }
            Command::Send { to, channel, payload, reply } => {
                // The waiter must be there before the actions are carried out.
                match self.node.send(to, channel, &payload, now, &mut self.actions) {
                    Ok(call) => drop(self.waiters.insert(call, Waiter::Send(reply))),
                    Err(error) => drop(reply.send(Err(Error::Send(error)))),
                }
            }
            Command::SendGuaranteed(send) => self.send_guaranteed(send),
            Command::BreakLinks => self.links.values().for_each(|link| link.close(CloseCode::Broken)),
            // Given up while it waited in the queue: nothing has to be sent.
            Command::Request { reply, .. } if reply.is_closed() => {}
            Command::Request { to, payload, timeout, ticket, reply } => {
                match self.node.request(to, payload, timeout, now, &mut self.actions) {
                    Ok(call) => {
                        self.waiters.insert(call, Waiter::Request(reply));
                        if !ticket.asked(call) {
                            self.cancel(call);
                        }
                    }
                    Err(error) => drop(reply.send(Err(Error::Send(error)))),
                }
            }
            Command::Confirm { begin, ticket, reply } => {
                if let Some(call) = begin(&mut self.node, now, &mut self.actions) {
                    self.waiters.insert(call, Waiter::Confirmed(reply));
                    if !ticket.asked(call) {
                        self.cancel(call);
                    }
                }
            }
            Command::Connect { to, channel, reply } => match self.node.connect(to, channel, now, &mut self.actions) {
                Ok(call) => drop(self.waiters.insert(call, Waiter::Connect(to, reply))),
                Err(error) => drop(reply.send(Err(Error::Send(error)))),
            },
            Command::Handle { channel, handler, reply } => {
                let taken = self.node.check_channel(channel).map(|()| self.endpoint.handle(channel, crate::node::MESSAGE, handler));
                let _ = reply.send(taken.map_err(Error::Send));
            }
            Command::AcceptStreams { channel, reply } => {
                let listener = self.node.check_channel(channel).map(|()| self.endpoint.accept_streams(channel));
                let _ = reply.send(listener.map_err(Error::Send));
            }
            Command::TakeOver { channel, reply } => {
                let inbox = || self.endpoint.inbox(channel, crate::node::MESSAGE, inbox_bytes_max(self.endpoint.channel(channel)));
                let taken = self.node.check_channel(channel).map(|()| Receiver::new(channel, inbox()));
                let _ = reply.send(taken.map_err(Error::Send));
            }
            Command::Respond { token, answer } => self.respond(token, answer),
            Command::Serve { requests } => self.requests = Some(requests),
            Command::With(verb) => verb(&mut self.node, now, &mut self.actions),
            Command::WriteDurably { verb, reply } => self.write_durably(verb, reply),
            Command::Discovered { source, candidates } => self.inputs.push_back(Input::Discovered { source, candidates }),
            Command::Tell(input) => self.call_app(|app, node, now, actions| app.tell(input, node, now, actions)),
            Command::Report { reply } => {
                let journal = self.keeper.as_ref().map(|keeper| keeper.report(self.node.unrecorded()));
                let _ = reply.send(Report::of(&self.node, self.links.values(), journal, &self.pulse, self.origin.elapsed()));
            }
            Command::ChannelReport { reply } => {
                let _ = reply.send(self.ledger.report(self.links.values(), |channel| self.endpoint.channel(channel)));
            }
            // Ends of the loop, taken by the loop.
            Command::Leave { .. } | Command::Kill => {}
        }
        self.carry_out();
    }

    /// Makes a write whose answer waits for the disk.
    fn write_durably(&mut self, verb: WriteVerb, reply: oneshot::Sender<Verdict>) {
        let now = self.now();
        let Some(keeper) = &mut self.keeper else { return drop(reply.send(Err(DurableError::Off))) };
        let written = match keeper.refusal() {
            Some(refusal) => Err(refusal),
            None => verb(&mut self.node, now, &mut self.actions).map_err(DurableError::Set),
        };
        match written {
            Ok(stamp) => keeper.expect(stamp, reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn is_congested(&mut self) -> bool {
        let now = self.now().time;
        self.congestion.holds_up(self.links.iter().map(|(connection, link)| (*connection, link.fullest())), now)
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.tick_at = now + TICK;
        let time = self.now().time;
        // Messages and byte streams that pass this loop by use a connection too.
        for (connection, link) in &self.links {
            let carried = link.carried_frames();
            if self.carried.insert(*connection, carried) != Some(carried) || link.byte_streams() > 0 {
                self.inputs.push_back(Input::Used { connection: *connection });
            }
        }
        self.carried.retain(|connection, _| self.links.contains_key(connection));
        self.congestion.on_tick(self.links.iter().map(|(connection, link)| (*connection, link.taken_bytes())));
        for (connection, link) in &self.links {
            if link.stalled_since().is_some_and(|since| time.since(since) >= STALLED) {
                self.inputs.push_back(Input::Stalled { connection: *connection });
            }
        }
        if let Some(candidates) = self.known.on_tick(&self.node, now) {
            self.inputs.push_back(Input::Discovered { source: "known", candidates });
        }
    }
}

/// Why a peer does not take what its application would have to acknowledge. No other channel can take its place: the promise is that of the channel.
fn disagreement(link: &Link, channel: ChannelId) -> Option<Disagreement> {
    let spec = link.channel(channel).filter(|spec| spec.reliability.is_acknowledged())?;
    link.channels_of_peer().check(spec).err()
}

fn since(origin: Instant) -> Time {
    Time::from_nanos(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

fn wall_now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn close_code(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Duplicate => CloseCode::Duplicate,
        CloseReason::Unneeded => CloseCode::Idle,
        CloseReason::Misbehaved => CloseCode::Misbehaved,
        CloseReason::TooSlow => CloseCode::TooSlow,
        CloseReason::Leaving => CloseCode::Leaving,
    }
}

/// What an operator cares about, at the level that it deserves.
fn log_event(event: &Event) {
    match event {
        Event::MemberJoined(member) | Event::MemberUpdated(member) | Event::MemberRecovered(member) => {
            info!(peer = %member.peer.short(), address = %member.address, "{}", event.name());
        }
        Event::MemberSuspected(member) => debug!(peer = %member.peer.short(), "{}", event.name()),
        Event::MemberFailed(member) | Event::MemberLeft(member) => info!(peer = %member.peer.short(), "{}", event.name()),
        Event::NeighborUp(peer) => debug!(peer = %peer.short(), "{}", event.name()),
        Event::NeighborDown(peer, reason) => debug!(peer = %peer.short(), reason = reason.name(), "{}", event.name()),
        Event::Connected | Event::Isolated => info!("{}", event.name()),
        Event::Reunited(Reunion { members, taken, overlaps }) => info!(members, taken, overlaps, "{}", event.name()),
        Event::SlowPeer(peer) => warn!(peer = %peer.short(), "{}", event.name()),
        Event::Misbehaved(peer, what) => warn!(peer = %peer.short(), %what, "{}", event.name()),
        // The application is told, and knows better whether it matters.
        Event::DialFailed(address, failure) => info!(%address, %failure, "{}", event.name()),
    }
}
