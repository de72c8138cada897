//! The driver of a node with real sockets and clocks, and the handle through which an application uses it.
//!
//! The protocol runs on a thread of its own with its own tokio runtime. Applications use the [`Node`] handle from any thread and any async runtime that can poll a future: what they do there
//! cannot make the node look dead. Code of theirs runs on the thread of the node only where they ask for it: a function given to [`Node::on_message`], and an
//! [`Application`](crate::app::Application) given to [`Builder::start_with`].
//!
//! | file | what |
//! |---|---|
//! | [`builder`](Builder) | settings, secrets and keys, the start |
//! | `driver` | the loop: inputs in, actions out, never a wait between them |
//! | `app` | an application that lives beside the node, and the handle of its owner |
//! | `byte_stream` | streams of bytes between two applications |
//! | `calls` | questions and requests that the application gives up |
//! | `channel` | messages to one peer, past the protocol thread |
//! | `confirm` | writes that other nodes hold, reads that ask several, and writes that are waited for |
//! | `congestion` | when the application waits for slow queues, and when it does not |
//! | `metrics` | what the channels to all peers measured, also over connections that are gone |
//! | `guaranteed` | receipts, and messages that are acknowledged one by one |
//! | `discovery` | mDNS and remembered peers |
//! | `storage` | the files of a node and of a user |
//! | `durable` | the replicated state over restarts |
//! | [`journal`] | the replicated state on disk |
//! | `streams` | what the application receives |

mod app;
mod backlog;
mod builder;
mod byte_stream;
mod calls;
mod channel;
mod confirm;
mod congestion;
mod discovery;
mod driver;
mod durable;
mod guaranteed;
pub mod journal;
mod known;
mod metrics;
mod report;
mod services;
mod state;
mod storage;
mod streams;
mod watchdog;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::agreement::{Disagreement, Terms};
use meshwork_channels::quic::{Handler, Link, OpenError};
use meshwork_channels::{ChannelId, ClusterName, Now, PeerId};
use meshwork_crdt::Stamp;
use meshwork_crdt::confirm::Confirmed;
use meshwork_crdt::replica::SetError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::node::{self, CallError, CallId, Delivery, Event, Hint, Member, SendError, Sent};

pub use app::{Running, TellError};
pub use builder::{Builder, StartError};
pub use channel::{Receiver, Sender, TrySendError};
pub use confirm::{AckError, Acked, QuorumError, Seen};
#[cfg(feature = "cli")]
pub use durable::JournalReport;
pub use durable::{Durability, DurableError};
pub use guaranteed::{GuaranteedMessage, GuaranteedMessages, Receipt, ReceiptError};
pub use meshwork_channels::quic::{ByteReader, ByteStream, ByteWriter, StreamError, StreamListener};
pub use metrics::{ChannelsReport, FORMER_PEERS_MAX, PeerMetrics};
pub use report::{ChannelReport, LinkReport, Report};
pub use services::{Balanced, Config, Lease, Notices, Registry, Variables};
pub use state::{Change, State, Watch};
#[cfg(feature = "cli")]
pub(crate) use storage::user_secret;
pub use storage::{StorageError, state_dir};
pub use streams::{DirectMessage, Lagged, Request, Requests, Subscription};

/// Calls that wait for the protocol thread.
const COMMANDS_MAX: usize = 1_024;

/// A running node of a cluster. Clones are handles to the same node; it shuts down when the last one is dropped, or better by
/// [`Node::leave`], which lets the others know.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = meshwork::Node::builder("my-cluster").start().await?;
/// let mut messages = node.subscribe();
/// node.broadcast("hello").await?;
/// while let Some(message) = messages.next().await {
///     println!("{}: {:?}", message.id.origin.short(), message.payload);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) cluster: ClusterName,
    pub(crate) identity: node::Identity,
    pub(crate) listening: SocketAddr,
    pub(crate) token: Option<String>,
    /// The channels that the application defined, in the order of their numbers.
    pub(crate) channels: Arc<[ChannelId]>,
    /// Those whose messages are acknowledged, in the order of their numbers.
    pub(crate) acknowledged: Arc<[ChannelId]>,
    pub(crate) commands: mpsc::Sender<Command>,
    /// For commands that make broadcasts: they wait while the queues to neighbors are full, and nothing else waits with them.
    pub(crate) writes: mpsc::Sender<Command>,
    // The protocol thread alone holds the other ends, so that subscriptions end with it.
    pub(crate) events: broadcast::WeakSender<Event>,
    pub(crate) deliveries: broadcast::WeakSender<Delivery>,
    pub(crate) messages: broadcast::WeakSender<DirectMessage>,
    pub(crate) changes: broadcast::WeakSender<Change>,
    pub(crate) services: broadcast::WeakSender<crate::services::Event>,
    pub(crate) pulse: Arc<watchdog::Pulse>,
    /// Messages of guaranteed delivery that wait for the application.
    pub(crate) inbox: Arc<guaranteed::Inbox>,
    pub(crate) given_up: Arc<calls::GivenUp>,
    pub(crate) journal: Option<watch::Receiver<journal::Status>>,
}

/// The node has stopped. The call had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node has stopped")
    }
}

impl std::error::Error for Stopped {}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The node has stopped. Nothing was done.
    Stopped,
    /// The message was refused. Nothing was sent.
    Send(SendError),
    /// The call was made and failed; see the variants for whether it had an effect.
    Call(CallError),
    /// The write was refused. Nothing was changed.
    Set(SetError),
    /// The byte stream was not opened.
    Stream(OpenError),
    /// The peer does not have the channel, or has it on other terms. Nothing was sent.
    Channel(Box<ChannelError>),
}

/// Why a message cannot go to a peer on a channel that the application defined. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// The peer has no channel of this name.
    UnknownChannel {
        /// The name.
        channel: String,
        /// The peer.
        peer: PeerId,
    },
    /// The peer has it on other terms.
    ChannelMismatch {
        /// The peer.
        peer: PeerId,
        /// Our terms.
        ours: Terms,
        /// Those of the peer.
        theirs: Terms,
    },
}

impl ChannelError {
    fn of(peer: PeerId, problem: Disagreement) -> Self {
        match problem {
            Disagreement::Unknown { name, .. } => ChannelError::UnknownChannel { channel: name, peer },
            Disagreement::Mismatch { ours, theirs, .. } => ChannelError::ChannelMismatch { peer, ours, theirs },
        }
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChannelError::UnknownChannel { channel, peer } => write!(f, "{} has no channel `{channel}`", peer.short()),
            ChannelError::ChannelMismatch { peer, ours, theirs } => {
                write!(f, "the channel `{}` is {ours} here and {theirs} at {}", ours.name, peer.short())
            }
        }
    }
}

impl std::error::Error for ChannelError {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Stopped => Stopped.fmt(f),
            Error::Send(error) => error.fmt(f),
            Error::Call(error) => error.fmt(f),
            Error::Set(error) => error.fmt(f),
            Error::Stream(error) => error.fmt(f),
            Error::Channel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Stopped> for Error {
    fn from(Stopped: Stopped) -> Self {
        Error::Stopped
    }
}

/// Something to do with the node.
pub(crate) type Verb = Box<dyn FnOnce(&mut node::Node, Now, &mut Vec<node::Action>) + Send>;

/// Something to do with the node that writes.
pub(crate) type WriteVerb = Box<dyn FnOnce(&mut node::Node, Now, &mut Vec<node::Action>) -> Result<Option<Stamp>, SetError> + Send>;

/// Something that other nodes confirm; none when they were not asked.
pub(crate) type ConfirmVerb = Box<dyn FnOnce(&mut node::Node, Now, &mut Vec<node::Action>) -> Option<CallId> + Send>;

/// How a durable write ended.
pub(crate) type Verdict = Result<Option<Stamp>, DurableError>;

/// What the handle asks of the protocol thread.
pub(crate) enum Command {
    Broadcast {
        channel: ChannelId,
        payload: Bytes,
        reply: oneshot::Sender<Result<Sent, SendError>>,
    },
    Send {
        to: PeerId,
        channel: ChannelId,
        payload: Bytes,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    SendGuaranteed(guaranteed::GuaranteedSend),
    Request {
        to: PeerId,
        payload: Bytes,
        timeout: Duration,
        ticket: calls::Ticket,
        reply: oneshot::Sender<Result<Bytes, Error>>,
    },
    Connect {
        to: PeerId,
        channel: ChannelId,
        reply: oneshot::Sender<Result<Link, Error>>,
    },
    Handle {
        channel: ChannelId,
        handler: Handler,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    AcceptStreams {
        channel: ChannelId,
        reply: oneshot::Sender<Result<StreamListener, Error>>,
    },
    TakeOver {
        channel: ChannelId,
        reply: oneshot::Sender<Result<Receiver, Error>>,
    },
    Respond {
        token: node::RequestToken,
        answer: Result<Bytes, node::Refusal>,
    },
    Serve {
        requests: mpsc::Sender<Request>,
    },
    /// A verb of the replicated state or of a service, with its own way to answer. It runs on the protocol thread, so it is ours.
    With(Verb),
    /// Something that other nodes confirm, with its own way to tell why they were not asked.
    Confirm {
        begin: ConfirmVerb,
        ticket: calls::Ticket,
        reply: oneshot::Sender<Confirmed>,
    },
    /// A write that is answered when it is durable.
    WriteDurably {
        verb: WriteVerb,
        reply: oneshot::Sender<Verdict>,
    },
    Discovered {
        source: &'static str,
        candidates: Vec<node::Candidate>,
    },
    Tell(app::AnyInput),
    Report {
        reply: oneshot::Sender<Report>,
    },
    ChannelReport {
        reply: oneshot::Sender<ChannelsReport>,
    },
    Leave {
        reply: oneshot::Sender<()>,
    },
    BreakLinks,
    Kill,
}

impl Node {
    /// Settings for a node of the cluster with this name. Every setting has a default: with none, the node finds others of the same user
    /// on the local network, encrypted and admitted by a secret that is made once for this user and cluster.
    pub fn builder(cluster: impl Into<String>) -> Builder {
        Builder::new(cluster.into())
    }

    /// The public key of this node.
    pub fn id(&self) -> PeerId {
        self.shared.identity.peer
    }

    /// Which life of the node this is.
    pub fn incarnation(&self) -> u64 {
        self.shared.identity.incarnation
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &str {
        self.shared.cluster.as_str()
    }

    /// Where others reach this node.
    pub fn address(&self) -> SocketAddr {
        self.shared.identity.address
    }

    /// The socket that it listens on.
    pub fn listening(&self) -> SocketAddr {
        self.shared.listening
    }

    /// A token that admits another machine to the cluster, with this node's address and identity in it; none when the node runs without a secret. Whoever
    /// has it is let in.
    pub fn token(&self) -> Option<&str> {
        self.shared.token.as_deref()
    }

    /// Broadcasts to every other node of the cluster on the channel `events`.
    ///
    /// Waits only while the queues to neighbors that keep up are more than half full.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when the payload is larger than 64 KiB, [`Error::Stopped`]. Nothing was sent then.
    pub async fn broadcast(&self, payload: impl Into<Bytes>) -> Result<Sent, Error> {
        self.broadcast_on(ChannelId::EVENTS, payload).await
    }

    /// Broadcasts on the given channel.
    ///
    /// # Errors
    ///
    /// As [`Node::broadcast`], and [`SendError::UnknownChannel`].
    pub async fn broadcast_on(&self, channel: ChannelId, payload: impl Into<Bytes>) -> Result<Sent, Error> {
        let payload = payload.into();
        self.write(|reply| Command::Broadcast { channel, payload, reply }).await?.map_err(Error::Send)
    }

    /// Sends to one peer, dialing it if need be; done when the message is queued on a connection. It arrives at most once, in order with
    /// others on the same channel while the connection stands. On a defined channel whose messages are acknowledged it is [`Node::send_guaranteed`] without
    /// the receipt.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when it was refused, [`Error::Call`] when the peer could not be reached or its queue is full, [`Error::Channel`] when the peer does not
    /// have the channel. Nothing was sent then.
    pub async fn send(&self, to: PeerId, channel: impl Into<ChannelId>, payload: impl Into<Bytes>) -> Result<(), Error> {
        let (channel, payload) = (channel.into(), payload.into());
        if self.shared.acknowledged.binary_search(&channel).is_ok() {
            return self.send_guaranteed(to, channel, payload).await.map(drop);
        }
        self.ask(|reply| Command::Send { to, channel, payload, reply }).await?
    }

    /// Sends to one peer on the channel that suits the message best ([`node::choose`]), of the built-in ones and those that this node defines.
    ///
    /// # Errors
    ///
    /// As [`Node::send`].
    pub async fn send_hinted(&self, to: PeerId, hint: Hint, payload: impl Into<Bytes>) -> Result<(), Error> {
        let payload = payload.into();
        let channel = node::choose(hint, payload.len(), |channel| self.shared.channels.binary_search(&channel).is_ok());
        self.send(to, channel, payload).await
    }

    /// Sends to one peer with guaranteed delivery: the message is kept here until the application of the peer acknowledged it, and sent again on the next connection as often as
    /// it takes; the peer is dialed for that. While both processes live it arrives exactly once, in order with others of this kind on the same channel. If the peer's process starts anew
    /// before it acknowledged, the message arrives again there; if this one does, what was not acknowledged is gone with it.
    ///
    /// The channel is a built-in one that applications send on, or one that was defined for this ([`ChannelSpec::guaranteed`](meshwork_channels::ChannelSpec::guaranteed), [`ChannelSpec::at_least_once`](meshwork_channels::ChannelSpec::at_least_once)): then
    /// both ends must have it, and no fallback takes its place. What the peer's application leaves unacknowledged for a second is sent again on a channel of
    /// the second kind; the order may suffer then. Both kinds drop what the peer's process got before.
    ///
    /// ```no_run
    /// # async fn run(peer: meshwork::PeerId) -> Result<(), Box<dyn std::error::Error>> {
    /// use meshwork::{ChannelSpec, Node};
    ///
    /// let node = Node::builder("my-cluster").channel(ChannelSpec::new("orders").guaranteed()).start().await?;
    /// let receipt = node.send_guaranteed(peer, "orders", "two of these").await?;
    /// receipt.await?;
    ///
    /// // At the peer, which defined the channel too:
    /// let mut messages = node.guaranteed();
    /// while let Some(message) = messages.next().await {
    ///     println!("{} on {}: {:?}", message.from().short(), message.channel(), message.payload());
    ///     message.acknowledge();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Done when the message is kept; waits while as much is kept for the peer as may be: on `coordination` 1,000 messages and 2 MiB, on `data` 10,000 and 4 MiB, on `gossip`
    /// 5,000 and 2 MiB, on `events` 5,000 and 4 MiB, and 8 MiB together; on a defined channel what [`ChannelSpec::queue`](meshwork_channels::ChannelSpec::queue) says, beside those. The receipt tells when the peer acknowledged it. [`Node::leave`] does not wait for that.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when it was refused, with [`SendError::Full`] when 4,096 sends wait for room already; [`Error::Channel`] when the peer is connected and
    /// does not have the channel; [`Error::Stopped`]. It was not sent then.
    pub async fn send_guaranteed(&self, to: PeerId, channel: impl Into<ChannelId>, payload: impl Into<Bytes>) -> Result<Receipt, Error> {
        let (channel, payload) = (channel.into(), payload.into());
        self.ask(|reply| Command::SendGuaranteed(guaranteed::GuaranteedSend { to, channel, payload, ttl: None, reply })).await?
    }

    /// As [`Node::send_guaranteed`], for a message that is not worth sending after `ttl`, counted from when it is kept. One that was sent by then is delivered all the same.
    ///
    /// # Errors
    ///
    /// As [`Node::send_guaranteed`].
    pub async fn send_guaranteed_within(
        &self,
        to: PeerId,
        channel: impl Into<ChannelId>,
        payload: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Receipt, Error> {
        let (channel, payload) = (channel.into(), payload.into());
        self.ask(|reply| Command::SendGuaranteed(guaranteed::GuaranteedSend { to, channel, payload, ttl: Some(ttl), reply })).await?
    }

    /// The messages of guaranteed delivery that other nodes send to this one, those that wait already included. A later call takes over from an earlier one.
    pub fn guaranteed(&self) -> GuaranteedMessages {
        self.shared.inbox.take_over()
    }

    /// A sender of messages on one channel to one peer, which is dialed if need be. It is the fast way: what it sends does not pass the protocol thread.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when applications may not send there, [`Error::Call`] when the peer cannot be reached, [`Error::Channel`] when it does not have the
    /// channel, [`Error::Stopped`].
    pub async fn sender(&self, to: PeerId, channel: impl Into<ChannelId>) -> Result<Sender, Error> {
        Sender::connect(self, to, channel.into()).await
    }

    /// Takes over what other nodes send to this one alone on a channel, from now on: it comes from the receiver, and no longer from [`Node::messages`]. A later receiver takes
    /// over from an earlier one.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when applications may not send there, [`Error::Stopped`].
    pub async fn receiver(&self, channel: impl Into<ChannelId>) -> Result<Receiver, Error> {
        let channel = channel.into();
        self.ask(|reply| Command::TakeOver { channel, reply }).await?
    }

    /// Has a function called for what other nodes send to this one alone on a channel, from now on and in place of a receiver, with a sender back to where the message came
    /// from. It is the quickest way to answer: the function runs where the message arrives, on the thread or the runtime that carries this node, and for several peers at
    /// once. It must not block, and better leaves long work to others: while it runs, the node does not. Messages of one sender come in order. When it panics, that is logged,
    /// and what arrived in the same batch is lost. A later handler or receiver takes over.
    ///
    /// # Errors
    ///
    /// As [`Node::receiver`].
    pub async fn on_message(
        &self,
        channel: ChannelId,
        handler: impl Fn(DirectMessage, &mut Sender) + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let handler = channel::handler(self, channel, handler);
        self.ask(|reply| Command::Handle { channel, handler, reply }).await?
    }

    /// Asks one peer and waits at most `timeout` for its answer. The peer's handler runs at most once, however often the connection breaks meanwhile.
    ///
    /// Dropping the future before the answer cancels the request: it is forgotten at once, is not sent again, and the peer is told if it is connected, so that
    /// its handler can stop ([`Request::cancelled`]). A peer whose answer comes too late is told in the same way. It may have acted all the same.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when it was refused and [`Error::Call`] when it failed; after [`CallError::TimedOut`] the peer may have acted.
    pub async fn request(&self, to: PeerId, payload: impl Into<Bytes>, timeout: Duration) -> Result<Bytes, Error> {
        let payload = payload.into();
        let waiting = calls::Waiting::new(&self.shared.given_up);
        let ticket = waiting.ticket();
        let outcome = self.ask(|reply| Command::Request { to, payload, timeout, ticket, reply }).await;
        waiting.end();
        outcome?
    }

    /// The requests of other nodes from now on, but for those that are cancelled before they are looked at. A later call takes over from an earlier one. A node that nobody serves on answers
    /// `NoHandler`, one whose queue of 256 requests is full answers `Busy`.
    pub async fn serve(&self) -> Result<Requests, Stopped> {
        let (sender, receiver) = mpsc::channel(256);
        self.shared.commands.send(Command::Serve { requests: sender }).await.map_err(|_| Stopped)?;
        Ok(Requests::new(receiver))
    }

    /// The broadcasts of other nodes from now on. Each arrives exactly once; a subscriber that falls behind by 16,384 messages is told how many
    /// it lost.
    pub fn subscribe(&self) -> Subscription<Delivery> {
        Subscription::new(streams::subscribe(&self.shared.deliveries))
    }

    /// The messages that other nodes send to this one alone, from now on.
    pub fn messages(&self) -> Subscription<DirectMessage> {
        Subscription::new(streams::subscribe(&self.shared.messages))
    }

    /// What happens in the cluster, from now on.
    pub fn events(&self) -> Subscription<Event> {
        Subscription::new(streams::subscribe(&self.shared.events))
    }

    /// Settings of this node and of the whole cluster.
    pub fn config(&self) -> Config<'_> {
        Config { node: self }
    }

    /// Who offers what in the cluster.
    pub fn registry(&self) -> Registry<'_> {
        Registry { node: self }
    }

    /// What agents tune together.
    pub fn variables(&self) -> Variables<'_> {
        Variables { node: self }
    }

    /// What the services over the replicated state tell, from now on.
    pub fn service_events(&self) -> Subscription<crate::services::Event> {
        Subscription::new(streams::subscribe(&self.shared.services))
    }

    /// The replicated state.
    pub fn state(&self) -> State<'_> {
        State { node: self }
    }

    /// The members of the cluster, this node included, in the order of their identities; those that failed or left lately too.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn members(&self) -> Result<Vec<Member>, Stopped> {
        Ok(self.report().await?.members)
    }

    /// The neighbors in the overlay.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn neighbors(&self) -> Result<Vec<PeerId>, Stopped> {
        Ok(self.report().await?.neighbors)
    }

    /// Everything that the node knows about itself.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn report(&self) -> Result<Report, Stopped> {
        self.ask(|reply| Command::Report { reply }).await
    }

    /// What is measured of the channels, for each peer and over all of them, since the node was started: exact counts of messages and bytes, what was refused or dropped and
    /// why, how long messages waited, and how the number of lanes in use changed. See [`channels::metrics`](meshwork_channels::metrics) for what the words mean.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn channel_report(&self) -> Result<ChannelsReport, Stopped> {
        self.ask(|reply| Command::ChannelReport { reply }).await
    }

    /// Whether the protocol thread has been seen to stall: then nothing else here answers. It reads one flag and never waits.
    pub fn is_stalled(&self) -> bool {
        self.shared.pulse.is_stalled()
    }

    /// Tells the node of addresses worth dialing, found in a way of the application's own. They are never taken for members.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn discovered(&self, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<(), Stopped> {
        let candidates = addresses.into_iter().map(|address| node::Candidate { address, peer: None, keep: false }).collect();
        self.shared.commands.send(Command::Discovered { source: "application", candidates }).await.map_err(|_| Stopped)
    }

    /// How the state in the data folder fares: what it is, and a way to wait for changes. It is closed when nothing is written any more, and a failure that it has then kept
    /// the last writes from the disk. None in a node that keeps its state in memory.
    pub fn journal_status(&self) -> Option<watch::Receiver<journal::Status>> {
        self.shared.journal.clone()
    }

    /// Leaves the cluster: says goodbye, lets what is queued go out for at most a few seconds, closes the connections and stops. Other handles
    /// answer [`Stopped`] afterwards. Leaving a stopped node does nothing.
    pub async fn leave(&self) {
        // A node that has stopped has left.
        let _ = self.ask(|reply| Command::Leave { reply }).await;
        self.shared.commands.closed().await;
    }

    /// Stops at once and without a word, as if the process had died. For tests and demonstrations.
    #[doc(hidden)]
    pub async fn kill(&self) {
        let _ = self.shared.commands.send(Command::Kill).await;
        self.shared.commands.closed().await;
    }

    /// Closes all connections as if they had broken. For tests and demonstrations.
    #[doc(hidden)]
    pub async fn break_links(&self) {
        let _ = self.shared.commands.send(Command::BreakLinks).await;
    }

    async fn write<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.shared.writes.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Does something that writes with the node, as soon as there is room for what it sends.
    async fn write_with<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&mut node::Node, Now, &mut Vec<node::Action>) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.write(|reply| Command::With(Box::new(|node, now, actions| drop(reply.send(verb(node, now, actions)))))).await
    }

    /// Looks at the node.
    async fn look<T: Send + 'static>(&self, look: impl FnOnce(&node::Node) -> T + Send + 'static) -> Result<T, Stopped> {
        self.ask(|reply| Command::With(Box::new(|node, _, _| drop(reply.send(look(node)))))).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.shared.commands.send(command(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("cluster", &self.cluster()).field("id", &self.id()).field("address", &self.address()).finish()
    }
}
