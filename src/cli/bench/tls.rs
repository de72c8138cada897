//! TCP with TLS 1.3 by rustls: one connection, four bytes of length before each message.
//!
//! A flood alone is collected into blocks of 32 KiB, the best that it can do. Beside urgent messages both go through one task that writes urgent
//! frames first, in frames of at most 64 KiB: what a program builds that must share a connection.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::keys;
use super::subject::{BLOCK_BYTES, Boxed, Deframer, Facts, Flow, Load, Outlet, Pace, Subject, Way, number_of};
use crate::cli::Failure;

const FRAME_BYTES_MAX: usize = 64 * 1_024;
const BULK: u8 = 0;
const URGENT: u8 = 1;

type Stream = TlsStream<TcpStream>;
type Halves = (ReadHalf<Stream>, WriteHalf<Stream>);

/// One connection to each peer.
pub(super) struct Tls {
    pairs: Mutex<Vec<(Halves, Halves)>>,
    /// The task that writes both kinds, once there are urgent messages.
    mux: OnceLock<Mux>,
    flow: Arc<OnceLock<Arc<Flow>>>,
}

/// Where frames go to be written; urgent ones first.
#[derive(Clone, Debug)]
struct Mux {
    urgent: mpsc::Sender<Vec<u8>>,
    bulk: mpsc::Sender<Vec<u8>>,
}

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Failure {
    move |error| Failure::new(format!("TCP with TLS: {what}: {error}"))
}

impl Tls {
    pub(super) async fn start(peers: usize) -> Result<Self, Failure> {
        let (server, client) = keys::configs()?;
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| failed("no socket")(&error))?;
        let address = listener.local_addr().map_err(|error| failed("no address")(&error))?;
        let mut pairs = Vec::new();
        for _ in 0..peers {
            let name = ServerName::try_from(keys::NAME).map_err(|error| failed("no name")(&error))?;
            let dialing = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                std::io::Result::Ok(TlsStream::from(connector.connect(name, stream).await?))
            };
            let accepting = async {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                std::io::Result::Ok(TlsStream::from(acceptor.accept(stream).await?))
            };
            let (near, far) = tokio::try_join!(dialing, accepting).map_err(|error| failed("cannot connect")(&error))?;
            pairs.push((split(near), split(far)));
        }
        Ok(Tls { pairs: Mutex::new(pairs), mux: OnceLock::new(), flow: Arc::default() })
    }
}

impl Subject for Tls {
    fn urgent<'a>(&'a self, _size: usize, echo: bool, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>> {
        Box::pin(async move {
            let taken = self.pairs.lock().await.pop();
            let ((near_read, near_write), (far_read, far_write)) = taken.ok_or_else(|| Failure::new("TCP with TLS: no connection"))?;
            let mux = start_mux(near_write, tasks);
            let back = start_mux(far_write, tasks);
            let (answers, answered) = mpsc::channel(1 << 12);
            let to = if echo { To::Back(back.clone()) } else { To::Here(answers.clone()) };
            let flow = self.flow.clone();
            tasks.spawn(async move { drop(read_frames(far_read, &flow, &to).await) });
            tasks.spawn(async move {
                // Held, or the task that writes at the far end would close it.
                let _back = back;
                drop(read_frames(near_read, &OnceLock::new(), &To::Here(answers)).await);
            });
            let _ = self.mux.set(mux.clone());
            Ok(Way::new(mux, answered))
        })
    }

    fn flood<'a>(&'a self, load: Load, flow: &'a Arc<Flow>, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            if let Some(mux) = self.mux.get() {
                let _ = self.flow.set(flow.clone());
                for _ in 0..load.lanes * load.channels {
                    let (mux, flow) = (mux.clone(), flow.clone());
                    tasks.spawn(async move { flood_mux(&mux, load, &flow).await });
                }
                return Ok(());
            }
            // One connection has one writer, whatever is asked for.
            let load = Load { rate: load.rate.map(|rate| rate * (load.lanes * load.channels) as f64), ..load };
            for ((near_read, mut write), (mut read, far_write)) in self.pairs.lock().await.drain(..) {
                let (sender, receiver) = (flow.clone(), flow.clone());
                tasks.spawn(async move {
                    write_blocks(&mut write, load, &sender).await.unwrap_or_else(|error| sender.fail(error));
                    drop(near_read);
                });
                tasks.spawn(async move {
                    let mut deframer = Deframer::default();
                    let mut buffer = vec![0; 2 * FRAME_BYTES_MAX];
                    while let Ok(len @ 1..) = read.read(&mut buffer).await {
                        let (messages, bytes) = deframer.feed(&buffer[..len]);
                        receiver.delivered(messages, bytes);
                    }
                    drop(far_write);
                });
            }
            Ok(())
        })
    }

    fn stop(self: Box<Self>) -> Boxed<'static, Facts> {
        Box::pin(async { Facts::default() })
    }
}

async fn write_blocks(stream: &mut WriteHalf<Stream>, load: Load, flow: &Flow) -> std::io::Result<()> {
    let mut message = (load.size as u32).to_le_bytes().to_vec();
    message.resize(4 + load.size, 7);
    let mut pace = Pace::new(load.rate);
    let mut block = Vec::with_capacity(2 * BLOCK_BYTES);
    let mut held = 0;
    while !flow.is_stopped() {
        for _ in 0..pace.next().await {
            if message.len() >= BLOCK_BYTES / 2 {
                stream.write_all(&message).await?;
                flow.sent(1);
                continue;
            }
            block.extend_from_slice(&message);
            held += 1;
            if block.len() >= BLOCK_BYTES {
                stream.write_all(&block).await?;
                block.clear();
                flow.sent(std::mem::take(&mut held));
            }
        }
        if load.rate.is_some() {
            stream.write_all(&block).await?;
            stream.flush().await?;
            block.clear();
            flow.sent(std::mem::take(&mut held));
        }
    }
    Ok(())
}

fn frame_of(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

fn start_mux(mut stream: WriteHalf<Stream>, tasks: &mut JoinSet<()>) -> Mux {
    let (urgent, mut urgent_frames) = mpsc::channel::<Vec<u8>>(1_024);
    let (bulk, mut bulk_frames) = mpsc::channel::<Vec<u8>>(16);
    tasks.spawn(async move {
        loop {
            let frame = tokio::select! {
                biased;
                Some(frame) = urgent_frames.recv() => frame,
                Some(frame) = bulk_frames.recv() => frame,
                else => return,
            };
            if stream.write_all(&frame).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    });
    Mux { urgent, bulk }
}

async fn flood_mux(mux: &Mux, load: Load, flow: &Flow) {
    let payload = vec![7; load.size];
    let mut pace = Pace::new(load.rate);
    while !flow.is_stopped() {
        for _ in 0..pace.next().await {
            for piece in payload.chunks(FRAME_BYTES_MAX) {
                if mux.bulk.send(frame_of(BULK, piece)).await.is_err() {
                    return flow.fail("the connection has ended");
                }
            }
            flow.sent(1);
        }
    }
}

/// Where urgent messages go that arrived.
enum To {
    Back(Mux),
    Here(mpsc::Sender<u64>),
}

/// Counts bulk, and hands urgent messages on.
async fn read_frames(stream: ReadHalf<Stream>, flow: &OnceLock<Arc<Flow>>, to: &To) -> std::io::Result<()> {
    let mut stream = tokio::io::BufReader::with_capacity(2 * FRAME_BYTES_MAX, stream);
    let mut body = Vec::new();
    loop {
        let len = stream.read_u32_le().await? as usize;
        let kind = stream.read_u8().await?;
        body.resize(len, 0);
        stream.read_exact(&mut body).await?;
        match (kind, to, number_of(&body), flow.get()) {
            (URGENT, To::Back(back), _, _) => drop(back.urgent.send(frame_of(URGENT, &body)).await),
            (URGENT, To::Here(here), Some(number), _) => drop(here.send(number).await),
            (BULK, _, _, Some(flow)) => flow.delivered(1, len as u64),
            _ => {}
        }
    }
}

impl Outlet for Mux {
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            let frames = messages.chunks(size).flat_map(|message| frame_of(URGENT, message)).collect();
            self.urgent.send(frames).await.map_err(|_| Failure::new("TCP with TLS: the connection has ended"))
        })
    }
}
