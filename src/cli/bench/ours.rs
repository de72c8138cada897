//! Meshwork, through its public interface: the one place of the benchmarks that knows how a program sends and receives.

#![expect(clippy::disallowed_methods, reason = "nodes connect in real time")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meshwork_channels::channel::{Class, Path};
use meshwork_channels::quic::{Endpoint, EndpointConfig, NodeKey, system_random};
use meshwork_channels::{ChannelId, ChannelSpec, ClusterSecret, PeerId};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::machine::{cpu_time, resident_bytes};
use super::subject::{BLOCK_BYTES, Boxed, Facts, Flow, Inlet, Load, Outlet, Pace, Subject, Way, number_of};
use super::wire::{Link, Unlinked, Wire};
use crate::cli::Failure;
use crate::runtime::{Error, Node, Receiver, Sender, TrySendError};

/// How long two nodes may take to find each other.
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// Urgent messages go here.
const URGENT: ChannelId = ChannelId::COORDINATION;
/// The second copies of urgent messages go here, where they are sent twice ([`twice_channel`]).
const TWICE: ChannelId = ChannelId::named("bench-twice");
/// Floods go here, over as many of them as are asked for.
pub(super) const FLOODED: [ChannelId; 4] = [ChannelId::DATA, ChannelId::EVENTS, ChannelId::GOSSIP, ChannelId::COORDINATION];
/// Values of which the newest counts go here, where it is defined ([`latest_channel`]).
const LATEST: ChannelId = ChannelId::named("bench-latest");
/// Nodes that join, or links that are dialed, before it is waited for them.
const JOIN_TOGETHER: usize = 16;
/// A kind of frame that means nothing.
const KIND: u16 = 99;
/// Messages taken at once.
const TAKEN_MAX: usize = 1_024;

/// How nodes run, and what becomes of their urgent messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Each node on a thread of its own.
    Alone,
    /// All of them on the runtime of the program.
    Shared,
    /// Each node on a thread of its own, and each urgent message on two channels.
    Twice,
}

/// One node, and others that it is connected with.
pub(super) struct Ours {
    form: Form,
    near: Node,
    far: Vec<Node>,
    wire: Option<Wire>,
}

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| Failure::new(format!("meshwork: {what}: {error}"))
}

/// The channel that [`Subject::latest`] of a node wants to have defined.
pub(super) fn latest_channel() -> ChannelSpec {
    ChannelSpec::new("bench-latest").latest()
}

/// The channel of the second copies: of the highest class that an application may use, on the connection for bulk.
fn twice_channel() -> ChannelSpec {
    ChannelSpec::new("bench-twice").class(Class::High).path(Path::Bulk)
}

impl Ours {
    pub(super) async fn start(form: Form, peers: usize, link: Option<&Link>, seed: u64, channels: &[ChannelSpec]) -> Result<Self, Failure> {
        let mut secret = [0; 32];
        system_random(&mut secret).map_err(|error| failed("no secret")(&error))?;
        let secret = ClusterSecret::from_bytes(secret);
        let builder = || {
            let builder = Node::builder("bench").secret(secret.clone()).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).mdns(false);
            let builder = channels.iter().cloned().fold(builder, |builder, channel| builder.channel(channel));
            match form {
                Form::Alone => builder,
                Form::Shared => builder.runtime(Handle::current()),
                Form::Twice => builder.channel(twice_channel()),
            }
        };
        let cannot = failed("a node cannot start");

        let mut near = builder();
        let mut far = Vec::new();
        let mut wire = None;
        if let Some(link) = link {
            // Each says that it is at the link, so that neither can find a way around it.
            let unlinked = Unlinked::bind(link)?;
            near = near.advertise(unlinked.far()?).join(unlinked.near()?.to_string());
            let node = builder().advertise(unlinked.near()?).start().await.map_err(|error| cannot(&error))?;
            wire = Some(unlinked.start(node.listening(), seed)?);
            far.push(node);
        } else {
            for _ in 0..peers {
                let node = builder().start().await.map_err(|error| cannot(&error))?;
                near = near.join(node.address().to_string());
                far.push(node);
            }
        }
        let near = near.start().await.map_err(|error| cannot(&error))?;
        let ours = Ours { form, near, far, wire };
        ours.connected().await?;
        Ok(ours)
    }

    /// Waits until the one is connected with all others, and they with it.
    async fn connected(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + CONNECT_MAX;
        let has = async |node: &Node, peers: &[PeerId]| match node.report().await {
            Ok(report) => peers.iter().all(|peer| report.links.iter().any(|link| link.peer == *peer)),
            Err(_) => false,
        };
        let peers: Vec<PeerId> = self.far.iter().map(Node::id).collect();
        while Instant::now() < deadline {
            let mut all = has(&self.near, &peers).await;
            for node in &self.far {
                all = all && has(node, &[self.near.id()]).await;
            }
            if all {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Err(Failure::new(format!("meshwork: the nodes did not connect within {} s", CONNECT_MAX.as_secs())))
    }

    /// Starts to send as `load` says, on one channel to one peer.
    pub(super) async fn flood_on(
        &self,
        far: &Node,
        channel: ChannelId,
        load: Load,
        flow: &Arc<Flow>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Failure> {
        let receiver = far.receiver(channel).await.map_err(|error| failed("no receiver")(&error))?;
        let received = flow.clone();
        tasks.spawn(async move { count(receiver, load.read_rate, &received).await });
        for lane in 0..load.lanes {
            let sender = self.near.sender(far.id(), channel).await.map_err(|error| failed("no sender")(&error))?;
            // Each for itself, as independent producers are.
            let sender = if load.lanes > 1 { sender.with_key(&lane.to_le_bytes()) } else { sender };
            let flow = flow.clone();
            tasks.spawn(async move { send(sender, load, &flow).await.unwrap_or_else(|error| flow.fail(error)) });
        }
        Ok(())
    }

    /// A way on one channel to the first peer and, with `echo`, back on the same channel.
    async fn way_on(&self, channel: ChannelId, echo: bool) -> Result<(Sender, Receiver), Failure> {
        let far = self.far.first().ok_or_else(|| Failure::new("meshwork: no peer"))?;
        let outlet = self.near.sender(far.id(), channel).await.map_err(|error| failed("no sender")(&error))?;
        let inlet = if echo {
            far.on_message(channel, |message, back| {
                // An urgent queue that is full is what the measurement is to show.
                let _ = back.try_send_bytes(message.payload);
            })
            .await
            .map_err(|error| failed("no handler")(&error))?;
            self.near.receiver(channel).await
        } else {
            far.receiver(channel).await
        };
        Ok((outlet, inlet.map_err(|error| failed("no receiver")(&error))?))
    }

    /// The nodes at the other ends.
    pub(super) fn far(&self) -> &[Node] {
        &self.far
    }
}

impl Subject for Ours {
    fn urgent<'a>(&'a self, _size: usize, echo: bool, _tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>> {
        Box::pin(async move {
            let (outlet, inlet) = self.way_on(URGENT, echo).await?;
            if self.form != Form::Twice {
                return Ok(Way::new(outlet, inlet));
            }
            let (second_outlet, second_inlet) = self.way_on(TWICE, echo).await?;
            Ok(Way::new(Twice(outlet, second_outlet), Either(inlet, second_inlet)))
        })
    }

    fn latest<'a>(&'a self, _size: usize, _tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>> {
        Box::pin(async move {
            let far = self.far.first().ok_or_else(|| Failure::new("meshwork: no peer"))?;
            let outlet = self.near.sender(far.id(), LATEST).await.map_err(|error| failed("no sender")(&error))?;
            let inlet = far.receiver(LATEST).await.map_err(|error| failed("no receiver")(&error))?;
            Ok(Way::new(Latest(outlet), inlet))
        })
    }

    fn flood<'a>(&'a self, load: Load, flow: &'a Arc<Flow>, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            for far in &self.far {
                for channel in FLOODED.into_iter().take(load.channels) {
                    self.flood_on(far, channel, load, flow, tasks).await?;
                }
            }
            Ok(())
        })
    }

    fn stop(self: Box<Self>) -> Boxed<'static, Facts> {
        Box::pin(async move {
            let mut facts = Facts::default();
            if let Ok(report) = self.near.report().await
                && let Some(link) = report.links.first()
            {
                facts.lost_part = Some(link.lost_packets as f64 / (link.sent_packets as f64).max(1.0));
            }
            for node in self.far.iter().chain([&self.near]) {
                node.kill().await;
            }
            facts.link = self.wire.map(Wire::stop);
            facts
        })
    }
}

async fn send(mut sender: Sender, load: Load, flow: &Flow) -> Result<(), Error> {
    let payload = Bytes::from(vec![7; load.size]);
    // As the baselines count: what would fill a block.
    let counted_together = (BLOCK_BYTES / load.size.max(1)).max(1) as u64;
    let (mut pace, mut uncounted) = (Pace::new(load.rate), 0);
    while !flow.is_stopped() {
        for _ in 0..pace.next().await {
            // What is large is handed over whole, as a program would.
            if load.size >= 16 * 1_024 {
                sender.send_bytes(payload.clone()).await?
            } else {
                sender.send(&payload).await?
            }
            uncounted += 1;
            if uncounted >= counted_together {
                flow.sent(std::mem::take(&mut uncounted));
            }
        }
        flow.sent(std::mem::take(&mut uncounted));
    }
    Ok(())
}

async fn count(mut receiver: Receiver, rate: Option<f64>, flow: &Flow) {
    let mut taken = Vec::with_capacity(TAKEN_MAX);
    let mut pace = Pace::new(rate);
    loop {
        let max = if rate.is_some() { pace.next().await as usize } else { TAKEN_MAX };
        if receiver.recv_many(&mut taken, max).await == 0 {
            return;
        }
        flow.delivered(taken.len() as u64, taken.iter().map(|message| message.payload.len() as u64).sum());
        taken.clear();
    }
}

impl Outlet for Sender {
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            for message in messages.chunks(size) {
                Sender::send(self, message).await.map_err(|error| failed("cannot send")(&error))?;
            }
            Ok(())
        })
    }
}

/// Values with one key: each takes the place of the one before that still waits.
struct Latest(Sender);

impl Outlet for Latest {
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            for message in messages.chunks(size) {
                self.0.send_latest(b"key", message).await.map_err(|error| failed("cannot send")(&error))?;
            }
            Ok(())
        })
    }
}

impl Inlet for Receiver {
    fn next(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(async { number_of(&self.recv().await?.payload) })
    }
}

/// Sends each message on both channels.
struct Twice(Sender, Sender);

impl Outlet for Twice {
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            for message in messages.chunks(size) {
                self.0.send(message).await.map_err(|error| failed("cannot send")(&error))?;
                // A second copy for which there is no room goes missing: the first ones never wait for those.
                if self.1.try_send(message) == Err(TrySendError::Disconnected) {
                    self.1.send(message).await.map_err(|error| failed("cannot send")(&error))?;
                }
            }
            Ok(())
        })
    }
}

/// Hears both channels. Whoever listens counts the first answer to each number and drops the other.
struct Either(Receiver, Receiver);

impl Inlet for Either {
    fn next(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(async {
            let message = tokio::select! {
                message = self.0.recv() => message,
                message = self.1.recv() => message,
            };
            number_of(&message?.payload)
        })
    }
}

/// What nodes and their links cost in memory, and in processor time to connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Of all nodes before any of them knew another.
    pub(super) nodes_bytes: u64,
    /// On top of that with all of them connected, and four channels of every link used once in each direction.
    pub(super) links_bytes: u64,
    /// Ends of connections, over all nodes.
    pub(super) link_ends: usize,
    /// Processor time of the whole process from the first dial until all links stood, where that was all it did.
    pub(super) connecting: Option<Duration>,
}

/// Starts a node and `peers` others, connects them, and looks at the memory before and after.
pub(super) async fn memory(peers: usize, settle: Duration) -> Result<Cost, Failure> {
    let mut secret = [0; 32];
    system_random(&mut secret).map_err(|error| failed("no secret")(&error))?;
    let secret = ClusterSecret::from_bytes(secret);
    let before = resident_bytes();
    let mut nodes = Vec::new();
    for _ in 0..=peers {
        let builder = Node::builder("bench").secret(secret.clone()).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).mdns(false);
        nodes.push(builder.start().await.map_err(|error| failed("a node cannot start")(&error))?);
    }
    sleep(settle).await;
    let alone = resident_bytes();
    let far = nodes.split_off(1);
    let near = nodes.remove(0);
    // Some at a time: every node that comes makes links to nearly all that are there, and all of them run on this machine.
    for some in far.chunks(JOIN_TOGETHER) {
        for node in some {
            node.discovered([near.address()]).await.map_err(|error| failed("cannot join")(&error))?;
        }
        let deadline = Instant::now() + CONNECT_MAX;
        for node in some {
            while !near.members().await.is_ok_and(|members| members.iter().any(|member| member.peer == node.id())) {
                if Instant::now() > deadline {
                    return Err(Failure::new("meshwork: the nodes did not find each other"));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
    for node in far.iter().chain([&near]) {
        let links = node.report().await.map_err(|error| failed("no report")(&error))?.links;
        for (link, channel) in links.iter().flat_map(|link| FLOODED.map(|channel| (link, channel))) {
            // Membership may close a link that nobody needs, and then it is not counted either.
            if let Ok(mut sender) = node.sender(link.peer, channel).await {
                let _ = sender.try_send(&[7; 1_024]);
            }
        }
    }
    sleep(settle).await;
    let connected = resident_bytes();
    let mut link_ends = 0;
    for node in far.iter().chain([&near]) {
        link_ends += node.report().await.map_err(|error| failed("no report")(&error))?.links.len();
    }
    Ok(Cost { nodes_bytes: alone.saturating_sub(before), links_bytes: connected.saturating_sub(alone), link_ends, connecting: None })
}

/// Connects two endpoints with so many links, uses them, and looks at the memory before and after, and at the processor time that connecting took.
pub(super) async fn links_memory(links: usize, settle: Duration) -> Result<Cost, Failure> {
    let mut secret = [0; 32];
    system_random(&mut secret).map_err(|error| failed("no secret")(&error))?;
    let secret = ClusterSecret::from_bytes(secret);
    let before = resident_bytes();
    let endpoint = || {
        let key = NodeKey::generate().map_err(|error| failed("no key")(&error))?;
        let cluster = "bench".parse().map_err(|error| failed("no name")(&error))?;
        let config = EndpointConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), key, cluster);
        let bound = Endpoint::bind(EndpointConfig { secrets: vec![secret.clone()], ..config });
        let (endpoint, mut events) = bound.map_err(|error| failed("no endpoint")(&error))?;
        // What arrives is taken and nothing is done with it.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok::<_, Failure>(endpoint)
    };
    let (near, far) = (endpoint()?, endpoint()?);
    sleep(settle).await;
    let alone = resident_bytes();
    let busy = cpu_time();
    let mut dialed = 0;
    while dialed < links {
        for _ in 0..JOIN_TOGETHER.min(links - dialed) {
            // Each takes no more than a part from others.
            let (from, to) = if dialed % 2 == 0 { (&near, &far) } else { (&far, &near) };
            from.dial(to.local_address(), Some(to.peer_id()));
            dialed += 1;
        }
        let deadline = Instant::now() + CONNECT_MAX;
        while near.links().len() < dialed || far.links().len() < dialed {
            if Instant::now() > deadline {
                return Err(Failure::new(format!("meshwork: {} of {dialed} links stand", near.links().len())));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    let connecting = Some(cpu_time().saturating_sub(busy));
    let ends = || near.links().into_iter().chain(far.links());
    for link in ends() {
        for channel in FLOODED {
            link.try_send_message(channel, 0, KIND, &[7; 1_024]).map_err(|error| failed("cannot send")(&format!("{error:?}")))?;
        }
        // One after the other, as the baseline does. Used all at once an end costs some 6 KiB more: packets are lost then, probably in the buffer of the socket, and the memory of what is sent again seems to stay.
        sleep(Duration::from_millis(1)).await;
    }
    sleep(settle).await;
    let connected = resident_bytes();
    let (nodes_bytes, links_bytes) = (alone.saturating_sub(before), connected.saturating_sub(alone));
    Ok(Cost { nodes_bytes, links_bytes, link_ends: ends().count(), connecting })
}
