//! An application of your own beside a node: a state machine that the runtime drives over QUIC and the simulator in virtual time, unchanged.
//!
//! An [`Application`] is called when something happens, and acts through the [`Context`] that it is given. It reads no clock, draws from no system generator, starts nothing and
//! waits for nothing: what it needs of the world comes from the context, and what takes long is left to its owner, who gets outputs and gives inputs. So a run of it in the
//! simulator can be repeated to the last event.
//!
//! ```
//! use bytes::Bytes;
//! use meshwork::Node;
//! use meshwork::app::{Application, Context};
//! use meshwork::node::Delivery;
//!
//! /// Says aloud what its owner says, and tells its owner what the others say.
//! struct Crier;
//!
//! impl Application for Crier {
//!     type Input = String;
//!     type Output = String;
//!
//!     fn on_input(&mut self, said: String, context: &mut Context<'_, Self>) {
//!         if let Err(error) = context.broadcast(said) {
//!             context.output(format!("not said: {error}"));
//!         }
//!     }
//!
//!     fn on_broadcast(&mut self, delivery: Delivery, context: &mut Context<'_, Self>) {
//!         context.output(String::from_utf8_lossy(&delivery.payload).into_owned());
//!     }
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! # let here = || Node::builder("criers").insecure_without_secret().mdns(false);
//! let ann = here().start_with(Crier).await?;
//! let mut ben = here().join(ann.node().address().to_string()).start_with(Crier).await?;
//! ann.tell("hear, hear".to_owned()).await?;
//! assert_eq!(ben.next().await.as_deref(), Some("hear, hear"));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run()).unwrap();
//! ```
//!
//! The same type runs in the package `meshwork-simulations` (its module `app`), with as many nodes and faults as a plan says; `examples/chat` is a program that does both.
//!
//! Invariants: callbacks come one at a time, in the order in which the node decided; what the application does in one is carried out after it, in order, and shown to it like what
//! others did. What a peer can make this store: nothing; an application may set [`ALARMS_MAX`] alarms.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::reliable::Sequence;
use meshwork_channels::{ChannelId, Now, PeerId, Time, Timers, random};
use meshwork_crdt::replica::SetError;
use meshwork_crdt::{Stamp, Value};
use rand::RngExt;

use crate::node::{Action, Connectivity, Delivery, Event, Input, Member, Node, SendError, Sent, Settlement};

/// Alarms that an application may have set at once.
pub const ALARMS_MAX: usize = 65_536;

/// Callbacks that one input may lead to: more than there can be keys to be told of. An application that gets there reacts to its own doing without end.
const CALLBACKS_MAX: usize = 150_000;

/// What you write. All callbacks but [`Application::on_input`] may be left out.
///
/// A callback must not block: the node stands still meanwhile, and for two seconds or more looks dead to others. A panic ends the application; in the runtime the node goes on without
/// it and the owner is told, in the simulator it fails the run.
pub trait Application: Sized {
    /// What its owner tells it.
    type Input;
    /// What it tells its owner.
    type Output;

    /// The node begins to live. It knows nobody yet.
    fn on_start(&mut self, _context: &mut Context<'_, Self>) {}

    /// Its owner told it something.
    fn on_input(&mut self, input: Self::Input, context: &mut Context<'_, Self>);

    /// Another node broadcast something: exactly once for each life of this node.
    fn on_broadcast(&mut self, _delivery: Delivery, _context: &mut Context<'_, Self>) {}

    /// A peer sent something to this node alone, by [`Context::send`] or [`Context::send_guaranteed`].
    fn on_message(&mut self, _from: PeerId, _channel: ChannelId, _payload: Bytes, _context: &mut Context<'_, Self>) {}

    /// A key of the replicated state has another value, or none any more: by a write of another node, of this application or of its owner.
    fn on_change(&mut self, _key: &str, _value: Option<&Value>, _context: &mut Context<'_, Self>) {}

    /// Something happened in the cluster: members come, are suspected and go, peers become neighbors, the node finds company or loses it.
    fn on_event(&mut self, _event: &Event, _context: &mut Context<'_, Self>) {}

    /// The time of an alarm has come that was set with this number. It is not set any more.
    fn on_alarm(&mut self, _alarm: u64, _context: &mut Context<'_, Self>) {}

    /// What became of a message of guaranteed delivery; for [`Settlement::Taken`], of all to this peer on this channel up to this number that were not reported otherwise.
    fn on_settled(
        &mut self,
        _to: PeerId,
        _channel: ChannelId,
        _sequence: Sequence,
        _outcome: &Settlement,
        _context: &mut Context<'_, Self>,
    ) {
    }
}

/// Through what an application sees its node and acts, for as long as a callback takes.
pub struct Context<'a, A: Application> {
    node: &'a mut Node,
    now: Now,
    actions: &'a mut Vec<Action>,
    alarms: &'a mut Timers<u64>,
    generator: &'a mut random::Generator,
    outputs: &'a mut Vec<A::Output>,
    in_node: &'a mut bool,
}

impl<A: Application> Context<'_, A> {
    /// The public key of this node.
    pub fn id(&self) -> PeerId {
        self.node.id()
    }

    /// Which life of the node this is.
    pub fn incarnation(&self) -> u64 {
        self.node.incarnation()
    }

    /// Both clocks, as they were when the callback began. Those of other nodes may differ.
    pub fn now(&self) -> Now {
        self.now
    }

    /// A random number; in the simulator the same in each run of a seed.
    pub fn random(&mut self) -> u64 {
        self.generator.random()
    }

    /// The members of the cluster, this node included, in the order of their identities; those that failed or left lately too.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.node.members()
    }

    /// The neighbors in the overlay, in order.
    pub fn neighbors(&self) -> &[PeerId] {
        self.node.neighbors()
    }

    /// Whether the node has company.
    pub fn connectivity(&self) -> Connectivity {
        self.node.connectivity()
    }

    /// Broadcasts to every other node of the cluster, on the channel `events`. With no neighbor, the message waits for the first one for as long as payloads are kept.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the payload is larger than 64 KiB, or the node is leaving. Nothing was sent then.
    pub fn broadcast(&mut self, payload: impl Into<Bytes>) -> Result<Sent, SendError> {
        let payload = payload.into();
        self.act(|node, now, actions| node.broadcast(ChannelId::EVENTS, payload, now, actions))
    }

    /// Sends to one peer, dialing it if need be. It arrives at most once, in order with others on the same channel while the connection stands; what is lost on the way is lost
    /// without a word.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was sent then.
    pub fn send(&mut self, to: PeerId, channel: impl Into<ChannelId>, payload: impl AsRef<[u8]>) -> Result<(), SendError> {
        let channel = channel.into();
        self.act(|node, now, actions| node.send(to, channel, payload.as_ref(), now, actions)).map(drop)
    }

    /// Sends to one peer with guaranteed delivery: exactly once and in order while both processes live, as often as the connection may break meanwhile.
    /// [`Application::on_settled`] tells under the same number how it ended.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was kept or sent then. After [`SendError::Full`] it can be tried again when something to this peer was settled.
    pub fn send_guaranteed(&mut self, to: PeerId, channel: impl Into<ChannelId>, payload: impl Into<Bytes>) -> Result<Sequence, SendError> {
        let (channel, payload) = (channel.into(), payload.into());
        self.act(|node, now, actions| node.send_guaranteed(to, channel, payload, None, now, actions))
    }

    /// Writes a key of the replicated state. The write is visible here at once and everywhere soon; of two writes of one key the later one stays.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn set(&mut self, key: &str, value: impl Into<Bytes>) -> Result<Stamp, SetError> {
        let value = value.into();
        self.act(|node, now, actions| node.set(key, value, now, actions))
    }

    /// Removes a key of the replicated state; none when it has no value here.
    ///
    /// # Errors
    ///
    /// [`SetError`]; nothing was changed then.
    pub fn remove(&mut self, key: &str) -> Result<Option<Stamp>, SetError> {
        self.act(|node, now, actions| node.remove(key, now, actions))
    }

    /// The value of a key of the replicated state, as this node knows it.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.node.get(key)
    }

    /// The keys of the replicated state that begin with `prefix`, in order, with their values.
    pub fn entries<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Bytes)> {
        self.node.state().iter(prefix).map(|(key, entry)| (key.as_str(), entry.value))
    }

    /// Has [`Application::on_alarm`] called with this number after some time. An alarm that is set with the same number is replaced.
    ///
    /// In the runtime alarms wait, as inputs do, while the queues to neighbors that keep up are more than half full.
    ///
    /// # Panics
    ///
    /// When more than [`ALARMS_MAX`] are set.
    pub fn set_alarm(&mut self, alarm: u64, after: Duration) {
        // Never now: an alarm that is set again while it is handled would be due for ever.
        self.alarms.set(alarm, self.now.time + after.max(Duration::from_nanos(1)));
        assert!(self.alarms.len() <= ALARMS_MAX, "an application has at most {ALARMS_MAX} alarms set");
    }

    /// Takes an alarm back; says whether it was set.
    pub fn cancel_alarm(&mut self, alarm: u64) -> bool {
        self.alarms.cancel(&alarm)
    }

    /// Tells the owner something.
    pub fn output(&mut self, output: A::Output) {
        self.outputs.push(output);
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Node, Now, &mut Vec<Action>) -> T) -> T {
        *self.in_node = true;
        let answer = act(self.node, self.now, self.actions);
        *self.in_node = false;
        answer
    }
}

impl<A: Application> std::fmt::Debug for Context<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("id", &self.node.id()).field("now", &self.now).finish_non_exhaustive()
    }
}

/// An application with its alarms, for whoever drives a node: the runtime and the simulator do.
///
/// After every call that let the node or the application decide something, the driver calls [`Runner::react`] once on the new actions, and then carries out what is left of them.
#[derive(Debug)]
pub struct Runner<A: Application> {
    app: A,
    alarms: Timers<u64>,
    generator: random::Generator,
    outputs: Vec<A::Output>,
    /// Whether a call of the node is under way, so that it is known whose a panic is.
    in_node: bool,
}

impl<A: Application> Runner<A> {
    /// An application that was not called yet. `seed` feeds its generator.
    pub fn new(app: A, seed: u64) -> Self {
        let generator = random::generator(seed, "application", 0);
        Runner { app, alarms: Timers::new(), generator, outputs: Vec::new(), in_node: false }
    }

    /// The application.
    pub fn app(&self) -> &A {
        &self.app
    }

    /// Calls [`Application::on_start`].
    pub fn start(&mut self, node: &mut Node, now: Now, actions: &mut Vec<Action>) {
        self.call(node, now, actions, |app, context| app.on_start(context));
    }

    /// Calls [`Application::on_input`].
    pub fn tell(&mut self, input: A::Input, node: &mut Node, now: Now, actions: &mut Vec<Action>) {
        self.call(node, now, actions, |app, context| app.on_input(input, context));
    }

    /// When [`Runner::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.alarms.next_deadline()
    }

    /// Calls [`Application::on_alarm`] for the alarms that are due.
    pub fn on_deadline(&mut self, node: &mut Node, now: Now, actions: &mut Vec<Action>) {
        while let Some((_, alarm)) = self.alarms.pop_due(now.time) {
            self.call(node, now, actions, |app, context| app.on_alarm(alarm, context));
        }
    }

    /// Shows the application what was decided, and what it decides on that, until there is nothing left to show. Messages of guaranteed delivery are taken out of the
    /// actions: the application takes them.
    pub fn react(&mut self, node: &mut Node, now: Now, actions: &mut Vec<Action>) {
        let (mut next, mut callbacks) = (0, 0);
        while let Some(action) = actions.get(next) {
            next += 1;
            callbacks += 1;
            match action {
                Action::Deliver(delivery) => {
                    let delivery = delivery.clone();
                    self.call(node, now, actions, |app, context| app.on_broadcast(delivery, context));
                }
                Action::Message { from, channel, payload } => {
                    let (from, channel, payload) = (*from, *channel, payload.clone());
                    self.call(node, now, actions, |app, context| app.on_message(from, channel, payload, context));
                }
                Action::DeliverGuaranteed { .. } => {
                    next -= 1;
                    if let Action::DeliverGuaranteed { from, incarnation, channel, sequence, payload } = actions.remove(next) {
                        self.call(node, now, actions, |app, context| app.on_message(from, channel, payload, context));
                        self.in_node = true;
                        node.handle(Input::Taken { from, incarnation, channel, sequence }, now, actions);
                        self.in_node = false;
                    }
                }
                Action::Changed { key, value, .. } => {
                    let (key, value) = (key.clone(), value.clone());
                    self.call(node, now, actions, |app, context| app.on_change(&key, value.as_ref(), context));
                }
                Action::Event(event) => {
                    let event = event.clone();
                    self.call(node, now, actions, |app, context| app.on_event(&event, context));
                }
                Action::Settled { to, channel, sequence, outcome } => {
                    let (to, channel, sequence, outcome) = (*to, *channel, *sequence, outcome.clone());
                    self.call(node, now, actions, |app, context| app.on_settled(to, channel, sequence, &outcome, context));
                }
                _ => callbacks -= 1,
            }
            assert!(callbacks <= CALLBACKS_MAX, "the application reacts to its own doing without end");
        }
    }

    /// What the application told its owner since the last time, in order.
    pub fn take_outputs(&mut self) -> impl Iterator<Item = A::Output> {
        self.outputs.drain(..)
    }

    /// Whether a panic that just went through here came from the node, which must not go on after it, and not from the application.
    pub fn is_in_node(&self) -> bool {
        self.in_node
    }

    fn call(&mut self, node: &mut Node, now: Now, actions: &mut Vec<Action>, call: impl FnOnce(&mut A, &mut Context<'_, A>)) {
        let Runner { app, alarms, generator, outputs, in_node } = self;
        call(app, &mut Context { node, now, actions, alarms, generator, outputs, in_node });
    }
}

#[cfg(test)]
mod tests;
