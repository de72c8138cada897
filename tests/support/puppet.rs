//! A member that keeps every rule but one: it reads as little as it is told to.
//!
//! It drives the very state machine that real nodes drive, over connections of its own, so it is alive to the membership and a neighbor to
//! the overlay. What it reads of its streams is up to its [`Appetite`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meshwork::channels::dial::{ConnectionId, DialFailure, Direction};
use meshwork::channels::frame::{self, Decoder, Frame};
use meshwork::channels::quic::CloseCode;
use meshwork::channels::{Now, Time, WallTime, limits};
use meshwork::node::{Action, Candidate, CloseReason, Config, Identity, Input, Node};
use meshwork::{ChannelId, PeerId};
use quinn::Connection;
use tokio::sync::mpsc;

use super::wire::{INCARNATION, Socket, read_preamble};

/// What a puppet reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Appetite {
    /// Everything, as a good node does.
    Good,
    /// Everything but the channel `events`.
    NoEvents,
    /// No stream at all.
    Nothing,
    /// Of the channel `events` some 50 KB a second, so that it always takes a little.
    Crumbs,
}

/// What happened to a puppet.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) delivered: AtomicU64,
    pub(crate) connected: AtomicU64,
    /// The codes with which nodes closed its connections, and how often.
    pub(crate) closed: Mutex<BTreeMap<u64, u64>>,
}

impl Seen {
    pub(crate) fn closed_with(&self, code: CloseCode) -> u64 {
        self.closed.lock().unwrap().get(&u64::from(code.number())).copied().unwrap_or(0)
    }
}

/// The strings of a puppet. It dies with them.
pub(crate) struct Puppet {
    pub(crate) peer: PeerId,
    pub(crate) seen: Arc<Seen>,
    appetite: Arc<AtomicU8>,
    _life: mpsc::Sender<()>,
}

impl Puppet {
    /// Starts a puppet on a thread of its own; it joins at an address.
    pub(crate) fn start(config: &Config, join: SocketAddr) -> Self {
        let (life, death) = mpsc::channel(1);
        let (ready, started) = std::sync::mpsc::channel();
        let seen = Arc::new(Seen::default());
        let appetite = Arc::new(AtomicU8::new(Appetite::Good as u8));
        let config = config.clone();
        std::thread::spawn({
            let (seen, appetite) = (seen.clone(), appetite.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let socket = Socket::new();
                    ready.send(socket.peer()).unwrap();
                    Strings::new(socket, &config, seen, appetite).run(join, death).await;
                });
            }
        });
        Puppet { peer: started.recv().unwrap(), seen, appetite, _life: life }
    }

    pub(crate) fn set_appetite(&self, appetite: Appetite) {
        self.appetite.store(appetite as u8, Ordering::SeqCst);
    }
}

enum Event {
    Connected(Connection, PeerId, SocketAddr, Direction),
    DialFailed(SocketAddr),
    Frame(ConnectionId, ChannelId, Frame),
    Datagram(ConnectionId, Bytes),
    Closed(ConnectionId, PeerId, quinn::ConnectionError),
}

struct Held {
    connection: Connection,
    lanes: BTreeMap<ChannelId, mpsc::UnboundedSender<Bytes>>,
}

struct Strings {
    socket: Socket,
    node: Node,
    origin: Instant,
    seen: Arc<Seen>,
    appetite: Arc<AtomicU8>,
    connections: BTreeMap<ConnectionId, Held>,
    last: u64,
    tell: mpsc::UnboundedSender<Event>,
    told: mpsc::UnboundedReceiver<Event>,
}

impl Strings {
    fn new(socket: Socket, config: &Config, seen: Arc<Seen>, appetite: Arc<AtomicU8>) -> Self {
        let identity = Identity { peer: socket.peer(), incarnation: INCARNATION, address: socket.address() };
        let origin = Instant::now();
        let (tell, told) = mpsc::unbounded_channel();
        let node = Node::new(identity, config.clone().build().unwrap(), 1, now(origin));
        Strings { socket, node, origin, seen, appetite, connections: BTreeMap::new(), last: 0, tell, told }
    }

    async fn run(mut self, join: SocketAddr, mut death: mpsc::Receiver<()>) {
        let candidates = vec![Candidate { address: join, peer: None, keep: true }];
        self.handle(Input::Discovered { source: "static", candidates });
        let (socket, tell) = (self.socket.clone(), self.tell.clone());
        tokio::spawn(async move {
            while let Some((connection, peer)) = socket.accept().await {
                let address = connection.remote_address();
                let _ = tell.send(Event::Connected(connection, peer, address, Direction::Inbound));
            }
        });
        loop {
            let due = self.node.next_deadline().map_or(Duration::from_secs(1), |at| at.since(now(self.origin).time));
            let event = tokio::select! {
                _ = death.recv() => return,
                event = self.told.recv() => event,
                () = tokio::time::sleep(due) => None,
            };
            if let Some(event) = event {
                self.on_event(event);
            }
            if self.node.next_deadline().is_some_and(|at| at <= now(self.origin).time) {
                self.handle(Input::DeadlineReached);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected(connection, peer, address, direction) => {
                self.last += 1;
                let id = ConnectionId(self.last);
                self.seen.connected.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(receive(id, peer, connection.clone(), self.appetite.clone(), self.tell.clone()));
                self.connections.insert(id, Held { connection, lanes: BTreeMap::new() });
                // Every node here is in its first life; which one does not matter to a member that never restarts.
                self.handle(Input::Connected { connection: id, peer, incarnation: 1, address, direction });
            }
            Event::DialFailed(address) => self.handle(Input::DialFailed { address, failure: DialFailure::Broken }),
            Event::Frame(connection, channel, frame) => self.handle(Input::Frame { connection, channel, frame }),
            Event::Datagram(connection, bytes) => self.handle(Input::Datagram { connection, bytes }),
            Event::Closed(connection, peer, error) => {
                self.connections.remove(&connection);
                if let quinn::ConnectionError::ApplicationClosed(closed) = &error {
                    *self.seen.closed.lock().unwrap().entry(closed.error_code.into_inner()).or_default() += 1;
                }
                self.handle(Input::Disconnected { connection, peer, unneeded: false });
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.node.handle(input, now(self.origin), &mut actions);
        for action in actions {
            match action {
                Action::Dial { address, .. } => {
                    let (socket, tell) = (self.socket.clone(), self.tell.clone());
                    tokio::spawn(async move {
                        let dialed = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, socket.dial(address)).await;
                        let _ = tell.send(match dialed {
                            Ok(Some((connection, peer))) => Event::Connected(connection, peer, address, Direction::Outbound),
                            _ => Event::DialFailed(address),
                        });
                    });
                }
                Action::Send { connection, channel, frame, .. } => {
                    if let Some(held) = self.connections.get_mut(&connection) {
                        let lane = held.lanes.entry(channel).or_insert_with(|| open(held.connection.clone(), channel));
                        let _ = lane.send(frame);
                    }
                }
                Action::SendDatagram { connection, bytes } => {
                    if let Some(held) = self.connections.get(&connection) {
                        let _ = held.connection.send_datagram(bytes);
                    }
                }
                Action::Close { connection, reason } => {
                    if let Some(held) = self.connections.get(&connection) {
                        let code = match reason {
                            CloseReason::Duplicate => CloseCode::Duplicate,
                            CloseReason::Unneeded => CloseCode::Idle,
                            _ => CloseCode::Shutdown,
                        };
                        held.connection.close(code.number().into(), b"");
                    }
                }
                Action::Deliver(_) => {
                    self.seen.delivered.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    }
}

fn now(origin: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now { time: Time::from_nanos(origin.elapsed().as_nanos() as u64), wall: WallTime::from_micros(wall.as_micros() as u64) }
}

/// A stream for a channel, and a task that writes to it.
fn open(connection: Connection, channel: ChannelId) -> mpsc::UnboundedSender<Bytes> {
    let (lane, mut frames) = mpsc::unbounded_channel::<Bytes>();
    tokio::spawn(async move {
        let Ok(mut stream) = connection.open_uni().await else { return };
        let mut next = Some(frame::Preamble::of(channel).encode());
        while let Some(bytes) = next {
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
            next = frames.recv().await;
        }
    });
    lane
}

async fn receive(id: ConnectionId, peer: PeerId, connection: Connection, appetite: Arc<AtomicU8>, tell: mpsc::UnboundedSender<Event>) {
    tokio::spawn({
        let (connection, tell) = (connection.clone(), tell.clone());
        async move {
            while let Ok(bytes) = connection.read_datagram().await {
                let _ = tell.send(Event::Datagram(id, bytes));
            }
        }
    });
    let error = loop {
        match connection.accept_uni().await {
            Ok(stream) => drop(tokio::spawn(read(id, stream, connection.clone(), appetite.clone(), tell.clone()))),
            Err(error) => break error,
        }
    };
    let _ = tell.send(Event::Closed(id, peer, error));
}

async fn read(
    id: ConnectionId,
    mut stream: quinn::RecvStream,
    connection: Connection,
    appetite: Arc<AtomicU8>,
    tell: mpsc::UnboundedSender<Event>,
) {
    let Some(channel) = read_preamble(&mut stream).await else { return };
    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
    let is = |wanted: Appetite| appetite.load(Ordering::SeqCst) == wanted as u8;
    while connection.close_reason().is_none() {
        let leaves = is(Appetite::Nothing) || channel == ChannelId::EVENTS && is(Appetite::NoEvents);
        let crumbs = channel == ChannelId::EVENTS && is(Appetite::Crumbs);
        if leaves || crumbs {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if leaves {
            // It keeps the stream all the same: one that it let go would tell the sender to stop.
            continue;
        }
        // Looks at its appetite now and then.
        let reading = stream.read_chunk(if crumbs { 1_024 } else { 65_536 }, true);
        let Ok(chunk) = tokio::time::timeout(Duration::from_millis(50), reading).await else { continue };
        let Ok(Some(chunk)) = chunk else { return };
        decoder.push(chunk.bytes);
        while let Ok(Some(frame)) = decoder.next() {
            let _ = tell.send(Event::Frame(id, channel, frame));
        }
    }
}
