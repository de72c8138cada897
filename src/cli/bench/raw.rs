//! Raw quinn, as a program would use it that has no Meshwork: the baselines.
//!
//! | name | what |
//! |---|---|
//! | `quinn` | defaults; small messages are collected into blocks of 32 KiB on one long stream, the best that quinn can do |
//! | `quinn-threads` | defaults; each endpoint, its connections and what echoes at the far end on a thread of its own, the rest of the program elsewhere: as a node by default |
//! | `quinn-same` | the same with the transport settings and the packet size of Meshwork |
//! | `quinn-priority` | defaults; urgent messages on a stream of priority 10 beside the bulk streams |
//! | `quinn-one-stream` | defaults; everything on one stream, whose lock is fair: the control run that shows the blocking |
//! | `quinn-stream-per-message` | a stream for each message, 64 at work at a time, 4,096 allowed |
//! | `quinn-write-per-message` | one long stream, one write for each message |

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it opens sockets and starts threads")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use meshwork_channels::limits;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncTimer, AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, Runtime, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;

use super::keys;
use super::subject::{BLOCK_BYTES, Boxed, Deframer, Facts, Flow, Inlet, Load, Outlet, Pace, Subject, Way, number_of};
use super::wire::{Link, Unlinked, Wire, deepen};
use crate::cli::Failure;

/// Larger messages are handed over in pieces of this size: quinn counts a piece as unsent until all of it is acknowledged.
const PIECE_BYTES: usize = 64 * 1_024;
/// Tasks that open or read streams, when each message has one.
const WORKERS: usize = 64;
/// Streams that may be open at once, when each message has one.
const STREAMS_MAX: u32 = 4_096;
/// The packet size up to which Meshwork searches on loopback.
const SAME_PACKET_BYTES_MAX: u16 = 6_500;

/// How a baseline uses its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Threads,
    Same,
    Priority,
    OneStream,
    StreamPerMessage,
    WritePerMessage,
}

/// The kinds of frames on the one stream.
const BULK: u8 = 0;
const URGENT: u8 = 1;

/// Two endpoints, and connections between them.
pub(super) struct Raw {
    form: Form,
    near: Endpoint,
    far: Endpoint,
    /// Those of the endpoints, the near one first, when they have any.
    threads: Option<[Thread; 2]>,
    /// Where the far end is found: at the link, when there is one.
    address: SocketAddr,
    pairs: Vec<(Connection, Connection)>,
    wire: Option<Wire>,
    shared: Option<Arc<Mutex<SendStream>>>,
    /// Takes the bulk that the one stream brings.
    flow: Arc<OnceLock<Arc<Flow>>>,
    unread: Mutex<Option<(RecvStream, SendStream, RecvStream)>>,
}

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| Failure::new(format!("quinn: {what}: {error}"))
}

fn transport(form: Form) -> TransportConfig {
    let mut transport = TransportConfig::default();
    match form {
        Form::Same => {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(SAME_PACKET_BYTES_MAX);
            transport
                .max_concurrent_uni_streams(VarInt::from_u32(limits::STREAMS_MAX))
                .receive_window(VarInt::from_u32(limits::WINDOW_BYTES))
                .stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES))
                .send_window(limits::SEND_WINDOW_BYTES)
                .mtu_discovery_config(Some(discovery));
        }
        Form::StreamPerMessage => {
            transport.max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX));
        }
        _ => {}
    }
    transport
}

/// A runtime on a thread of its own. It ends when this is dropped.
struct Thread {
    runtime: Handle,
    _held: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed("no runtime")(&error))?;
        let handle = runtime.handle().clone();
        let (held, dropped) = oneshot::channel();
        let turn = move || {
            let _ = runtime.block_on(dropped);
        };
        std::thread::Builder::new().name("bench-quinn".into()).spawn(turn).map_err(|error| failed("no thread")(&error))?;
        Ok(Thread { runtime: handle, _held: held })
    }
}

/// Has quinn run its tasks on this runtime, wherever it is called from.
#[derive(Debug)]
struct On(Handle);

impl Runtime for On {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _inside = self.0.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> std::io::Result<Arc<dyn AsyncUdpSocket>> {
        let _inside = self.0.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

fn endpoint(form: Form, server: Option<ServerConfig>, thread: Option<&Thread>) -> Result<Endpoint, Failure> {
    let mut config = EndpointConfig::default();
    if form == Form::Same {
        config.max_udp_payload_size(SAME_PACKET_BYTES_MAX).map_err(|error| failed("packet size")(&error))?;
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| failed("no socket")(&error))?;
    if form == Form::Same {
        deepen(&socket, limits::SOCKET_BUFFER_BYTES).map_err(|error| failed("no socket")(&error))?;
    }
    let runtime: Arc<dyn Runtime> = match thread {
        Some(thread) => Arc::new(On(thread.runtime.clone())),
        None => Arc::new(TokioRuntime),
    };
    Endpoint::new(config, server, socket, runtime).map_err(|error| failed("no endpoint")(&error))
}

impl Raw {
    pub(super) async fn start(form: Form, peers: usize, link: Option<&Link>, seed: u64) -> Result<Self, Failure> {
        let (server, client) = keys::configs()?;
        let settings = Arc::new(transport(form));
        let server = QuicServerConfig::try_from(server).map_err(|error| failed("TLS")(&error))?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(settings.clone());
        let client = QuicClientConfig::try_from(client).map_err(|error| failed("TLS")(&error))?;
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(settings);

        let threads = if form == Form::Threads { Some([Thread::start()?, Thread::start()?]) } else { None };
        let [near_thread, far_thread] = threads.as_ref().map_or([None; 2], |threads| threads.each_ref().map(Some));
        let far = endpoint(form, Some(server), far_thread)?;
        let mut near = endpoint(form, None, near_thread)?;
        near.set_default_client_config(client);
        let mut address: SocketAddr = far.local_addr().map_err(|error| failed("no address")(&error))?;
        let mut wire = None;
        if let Some(link) = link {
            let unlinked = Unlinked::bind(link)?;
            let behind = address;
            address = unlinked.near()?;
            wire = Some(unlinked.start(behind, seed)?);
        }
        let (pairs, flow, unread) = (Vec::new(), Arc::default(), Mutex::new(None));
        let mut raw = Raw { form, near, far, threads, address, pairs, wire, shared: None, flow, unread };
        raw.connect(peers).await?;
        if form == Form::OneStream {
            let (ends, far_ends) = raw.open_bi().await?;
            raw.shared = Some(Arc::new(Mutex::new(ends.0)));
            raw.unread = Mutex::new(Some((ends.1, far_ends.0, far_ends.1)));
        }
        Ok(raw)
    }

    /// So many more connections.
    pub(super) async fn connect(&mut self, peers: usize) -> Result<(), Failure> {
        for _ in 0..peers {
            let dialing = self.near.connect(self.address, keys::NAME).map_err(|error| failed("cannot dial")(&error))?;
            let dialing = async { dialing.await.map_err(|error| error.to_string()) };
            let accepting = async {
                let incoming = self.far.accept().await.ok_or("the endpoint has ended")?;
                incoming.await.map_err(|error| error.to_string())
            };
            let pair = tokio::try_join!(dialing, accepting).map_err(|error: String| failed("cannot connect")(&error))?;
            self.pairs.push(pair);
        }
        Ok(())
    }

    /// Sends one message on so many streams of each connection, and reads them to their end.
    pub(super) async fn use_streams(&self, count: usize, message: &Bytes) -> Result<(), Failure> {
        for (near, far) in &self.pairs {
            for _ in 0..count {
                let mut send = near.open_uni().await.map_err(|error| failed("no stream")(&error))?;
                send.write_chunk(message.clone()).await.map_err(|error| failed("cannot write")(&error))?;
                let _ = send.finish();
                let mut recv = far.accept_uni().await.map_err(|error| failed("no stream")(&error))?;
                recv.read_to_end(message.len()).await.map_err(|error| failed("cannot read")(&error))?;
            }
        }
        Ok(())
    }

    fn first(&self) -> Result<&(Connection, Connection), Failure> {
        self.pairs.first().ok_or_else(|| Failure::new("quinn: no connection"))
    }

    /// A stream in both directions and both ends of it. The byte that opens it has been read.
    async fn open_bi(&self) -> Result<((SendStream, RecvStream), (SendStream, RecvStream)), Failure> {
        let (near, far) = self.first()?;
        let mut ends = near.open_bi().await.map_err(|error| failed("no stream")(&error))?;
        ends.0.write_all(&[0]).await.map_err(|error| failed("no stream")(&error))?;
        let mut far_ends = far.accept_bi().await.map_err(|error| failed("no stream")(&error))?;
        far_ends.1.read_exact(&mut [0]).await.map_err(|error| failed("no stream")(&error))?;
        Ok((ends, far_ends))
    }
}

impl Subject for Raw {
    fn urgent<'a>(&'a self, size: usize, echo: bool, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>> {
        Box::pin(async move {
            if let Some(shared) = &self.shared {
                let taken = self.unread.lock().await.take();
                let (back, send, recv) = taken.ok_or_else(|| Failure::new("quinn: the one stream is taken"))?;
                let flow = self.flow.clone();
                let (urgent, arrived) = mpsc::channel(1 << 12);
                tasks.spawn(async move {
                    if let Err(problem) = read_all(recv, send, echo, &flow, &urgent).await
                        && let Some(flow) = flow.get()
                    {
                        flow.fail(problem);
                    }
                });
                let outlet = shared.clone();
                return Ok(if echo { Way::new(outlet, Fixed { stream: back, buffer: vec![0; size] }) } else { Way::new(outlet, arrived) });
            }
            let ((near_send, near_recv), (mut far_send, mut far_recv)) = self.open_bi().await?;
            if self.form == Form::Priority {
                for stream in [&near_send, &far_send] {
                    stream.set_priority(10).map_err(|error| failed("no priority")(&error))?;
                }
            }
            let heard = if echo {
                let echoing = async move {
                    let mut buffer = vec![0; size];
                    while far_recv.read_exact(&mut buffer).await.is_ok() && far_send.write_all(&buffer).await.is_ok() {}
                };
                match &self.threads {
                    // Where a node calls the handler of a message, too.
                    Some([_, far]) => tasks.spawn_on(echoing, &far.runtime),
                    None => tasks.spawn(echoing),
                };
                near_recv
            } else {
                // Both halves live as long as the way, or the other end would see the stream reset.
                tasks.spawn(async move {
                    let _held = (near_recv, far_send);
                    std::future::pending::<()>().await;
                });
                far_recv
            };
            Ok(Way::new(near_send, Fixed { stream: heard, buffer: vec![0; size] }))
        })
    }

    fn flood<'a>(&'a self, load: Load, flow: &'a Arc<Flow>, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            let lanes = load.lanes * load.channels;
            if let Some(shared) = &self.shared {
                let _ = self.flow.set(flow.clone());
                for _ in 0..lanes {
                    let (shared, flow) = (shared.clone(), flow.clone());
                    tasks.spawn(async move {
                        let frame = frame_of(BULK, &vec![7; load.size]);
                        let mut pace = Pace::new(load.rate);
                        while !flow.is_stopped() {
                            for _ in 0..pace.next().await {
                                if let Err(error) = shared.lock().await.write_all(&frame).await {
                                    return flow.fail(error);
                                }
                                flow.sent(1);
                            }
                        }
                    });
                }
                return Ok(());
            }
            for (near, far) in &self.pairs {
                if self.form == Form::StreamPerMessage {
                    flood_streams(near, far, load, flow, tasks);
                    continue;
                }
                for _ in 0..lanes {
                    let mut send = near.open_uni().await.map_err(|error| failed("no stream")(&error))?;
                    // Opens it. A message of no bytes is as good as none.
                    send.write_all(&[0; 4]).await.map_err(|error| failed("no stream")(&error))?;
                    let recv = far.accept_uni().await.map_err(|error| failed("no stream")(&error))?;
                    let (form, sender, receiver) = (self.form, flow.clone(), flow.clone());
                    tasks.spawn(async move {
                        let outcome = match form {
                            Form::WritePerMessage => write_each(send, load, &sender).await,
                            _ => write_blocks(send, load, &sender).await,
                        };
                        outcome.unwrap_or_else(|error| sender.fail(error));
                    });
                    tasks.spawn(async move { count(recv, &receiver).await });
                }
            }
            Ok(())
        })
    }

    fn stop(self: Box<Self>) -> Boxed<'static, Facts> {
        Box::pin(async move {
            let stats = self.pairs.first().map(|(near, _)| near.stats());
            self.near.close(VarInt::from_u32(0), &[]);
            self.far.close(VarInt::from_u32(0), &[]);
            Facts {
                mtu: stats.map(|stats| stats.path.current_mtu),
                lost_part: stats.map(|stats| stats.path.lost_packets as f64 / (stats.path.sent_packets as f64).max(1.0)),
                datagrams_per_call: stats.map(|stats| stats.udp_tx.datagrams as f64 / (stats.udp_tx.ios as f64).max(1.0)),
                link: self.wire.map(Wire::stop),
            }
        })
    }
}

/// Collects small messages into blocks; hands large ones over without copying.
async fn write_blocks(mut stream: SendStream, load: Load, flow: &Flow) -> Result<(), quinn::WriteError> {
    let payload = Bytes::from(vec![7; load.size]);
    let header = (load.size as u32).to_le_bytes();
    let mut pace = Pace::new(load.rate);
    let mut block = BytesMut::with_capacity(2 * BLOCK_BYTES);
    let mut held = 0;
    while !flow.is_stopped() {
        for _ in 0..pace.next().await {
            if load.size >= BLOCK_BYTES / 2 {
                stream.write_chunk(Bytes::copy_from_slice(&header)).await?;
                for start in (0..load.size).step_by(PIECE_BYTES) {
                    stream.write_chunk(payload.slice(start..load.size.min(start + PIECE_BYTES))).await?;
                }
                flow.sent(1);
                continue;
            }
            block.put_slice(&header);
            block.put_slice(&payload);
            held += 1;
            if block.len() >= BLOCK_BYTES {
                stream.write_chunk(block.split().freeze()).await?;
                block.reserve(2 * BLOCK_BYTES);
                flow.sent(std::mem::take(&mut held));
            }
        }
        if load.rate.is_some() && !block.is_empty() {
            stream.write_chunk(block.split().freeze()).await?;
            flow.sent(std::mem::take(&mut held));
        }
    }
    Ok(())
}

/// One write for each message, with its length in it.
async fn write_each(mut stream: SendStream, load: Load, flow: &Flow) -> Result<(), quinn::WriteError> {
    let mut message = (load.size as u32).to_le_bytes().to_vec();
    message.resize(4 + load.size, 7);
    let mut pace = Pace::new(load.rate);
    while !flow.is_stopped() {
        let count = pace.next().await;
        for _ in 0..count {
            stream.write_all(&message).await?;
        }
        flow.sent(count);
    }
    Ok(())
}

async fn count(mut stream: RecvStream, flow: &Flow) {
    let mut deframer = Deframer::default();
    let mut chunks: [Bytes; 32] = std::array::from_fn(|_| Bytes::new());
    while let Ok(Some(read)) = stream.read_chunks(&mut chunks).await {
        let (mut messages, mut bytes) = (0, 0);
        for chunk in &mut chunks[..read] {
            let (more, more_bytes) = deframer.feed(&std::mem::take(chunk));
            (messages, bytes) = (messages + more, bytes + more_bytes);
        }
        flow.delivered(messages, bytes);
    }
}

fn flood_streams(near: &Connection, far: &Connection, load: Load, flow: &Arc<Flow>, tasks: &mut JoinSet<()>) {
    let rate = load.rate.map(|rate| rate * (load.lanes * load.channels) as f64 / WORKERS as f64);
    for _ in 0..WORKERS {
        let (near, far, sender, receiver) = (near.clone(), far.clone(), flow.clone(), flow.clone());
        tasks.spawn(async move {
            let payload = Bytes::from(vec![7; load.size]);
            let mut pace = Pace::new(rate);
            let send = async || -> Result<(), quinn::WriteError> {
                let mut stream = near.open_uni().await?;
                stream.write_chunk(payload.clone()).await?;
                // It was not finished before, so it can be.
                let _ = stream.finish();
                Ok(())
            };
            while !sender.is_stopped() {
                for _ in 0..pace.next().await {
                    if let Err(error) = send().await {
                        return sender.fail(error);
                    }
                    sender.sent(1);
                }
            }
        });
        tasks.spawn(async move {
            while let Ok(mut stream) = far.accept_uni().await {
                if let Ok(message) = stream.read_to_end(load.size).await {
                    receiver.delivered(1, message.len() as u64);
                }
            }
        });
    }
}

/// A frame of the one stream: length, kind, payload.
fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

/// Reads the one stream at the far end: bulk is counted, urgent messages go back or to the inlet.
async fn read_all(
    recv: RecvStream,
    mut send: SendStream,
    echo: bool,
    flow: &OnceLock<Arc<Flow>>,
    urgent: &mpsc::Sender<u64>,
) -> std::io::Result<()> {
    let mut recv = tokio::io::BufReader::with_capacity(PIECE_BYTES, recv);
    let mut body = Vec::new();
    loop {
        let len = recv.read_u32_le().await? as usize;
        let kind = recv.read_u8().await?;
        body.resize(len, 0);
        recv.read_exact(&mut body).await?;
        match (kind, number_of(&body), flow.get()) {
            (URGENT, _, _) if echo => send.write_all(&body).await?,
            (URGENT, Some(number), _) => drop(urgent.send(number).await),
            (_, _, Some(flow)) => flow.delivered(1, len as u64),
            _ => {}
        }
    }
}

/// Messages of one size on a stream, with nothing between them.
struct Fixed {
    stream: RecvStream,
    buffer: Vec<u8>,
}

impl Inlet for Fixed {
    fn next(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(async {
            self.stream.read_exact(&mut self.buffer).await.ok()?;
            number_of(&self.buffer)
        })
    }
}

impl Inlet for mpsc::Receiver<u64> {
    fn next(&mut self) -> Boxed<'_, Option<u64>> {
        Box::pin(self.recv())
    }
}

impl Outlet for SendStream {
    fn send<'a>(&'a mut self, messages: &'a [u8], _size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move { self.write_all(messages).await.map_err(|error| failed("cannot write")(&error)) })
    }
}

impl Outlet for Arc<Mutex<SendStream>> {
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            let frames: Vec<u8> = messages.chunks(size).flat_map(|message| frame_of(URGENT, message)).collect();
            self.lock().await.write_all(&frames).await.map_err(|error| failed("cannot write")(&error))
        })
    }
}
