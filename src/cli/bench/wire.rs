//! A link in user space: datagrams between two sockets of this machine, held up as a narrow line would hold them up.
//!
//! Each direction is a [`bottleneck::State`], the same model that the simulator drives: a rate, a queue that drops what does not fit, and the delay and
//! loss of the way behind. The rate counts the bytes of UDP payloads. Datagrams above [`PAYLOAD_BYTES_MAX`] are dropped, as on Ethernet, so that the discovery
//! of the packet size finds what it would find there.
//!
//! One thread moves both directions: it sleeps in `ppoll` until something arrives or the next datagram is due, with the slack of its
//! timers at a microsecond. It never spins, for the subjects need the processors. How late it was is measured and reported.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it moves datagrams between sockets, on a thread, in real time")]

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use meshwork_channels::Time;
use meshwork_channels::link::bottleneck::{Config, Fate, Params, State};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::machine::{keep_time, overruns};
use super::samples::Samples;
use crate::cli::Failure;

/// The largest UDP payload that passes: what is left of an Ethernet frame.
const PAYLOAD_BYTES_MAX: usize = 1_472;
/// The thread looks around this often even when nothing happens, to see whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Batches taken from one socket before what is due is sent.
const BATCHES_MAX: usize = 16;

/// What a link is like, as people write it: `100mbit,20ms,queue=100ms,loss=1%`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    text: String,
    pub(super) bits_per_second: u64,
    /// There and back, without any queue.
    pub(super) rtt: Duration,
    /// The time that the queue takes to empty.
    queue: Duration,
    /// The part of datagrams lost in each direction.
    pub(super) loss: f64,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = |what: String| {
            format!("`{text}`: {what}; write a rate and a round trip, for example 100mbit,20ms or 20mbit,50ms,queue=200ms,loss=1%")
        };
        let mut parts = text.split(',').map(str::trim);
        let (Some(rate), Some(rtt)) = (parts.next().filter(|rate| !rate.is_empty()), parts.next()) else {
            return Err(problem("a link has a rate and a round trip".into()));
        };
        let bits_per_second = parse_rate(rate).ok_or_else(|| problem(format!("`{rate}` is not a rate (kbit, mbit, gbit)")))?;
        let rtt = parse_time(rtt).ok_or_else(|| problem(format!("`{rtt}` is not a time (us, ms, s)")))?;
        let mut link = Link { text: text.to_owned(), bits_per_second, rtt, queue: Duration::from_millis(100), loss: 0.0 };
        for part in parts {
            match part.split_once('=') {
                Some(("queue", value)) => {
                    link.queue = parse_time(value).ok_or_else(|| problem(format!("`{value}` is not a time (us, ms, s)")))?;
                }
                Some(("loss", value)) => {
                    link.loss = parse_part(value).ok_or_else(|| problem(format!("`{value}` is no part from 0 % to 100 %")))?;
                }
                _ => return Err(problem(format!("`{part}` is neither `queue=TIME` nor `loss=PERCENT`"))),
            }
        }
        match link.params() {
            Ok(_) => Ok(link),
            Err(error) => Err(problem(error.to_string())),
        }
    }
}

/// A number with the factor of its unit; the units must be given from the longest to the shortest.
fn parse_scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

fn parse_rate(text: &str) -> Option<u64> {
    parse_scaled(text, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)]).filter(|rate| *rate <= 1e12).map(|rate| rate as u64)
}

fn parse_time(text: &str) -> Option<Duration> {
    parse_scaled(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]).filter(|seconds| *seconds <= 3_600.0).map(Duration::from_secs_f64)
}

pub(super) fn parse_part(text: &str) -> Option<f64> {
    let part = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&part).then_some(part)
}

impl Link {
    /// The same link with other loss.
    pub(super) fn with_loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        let kept: Vec<&str> = self.text.split(',').filter(|part| !part.trim().starts_with("loss")).collect();
        self.text = kept.join(",");
        if loss > 0.0 {
            // A part in ten thousand is as fine as anybody writes it.
            self.text.push_str(&format!(",loss={}%", (loss * 1e6).round() / 1e4));
        }
        self
    }

    /// The link without its loss, as a name.
    pub(super) fn name(&self) -> String {
        self.clone().with_loss(0.0).text
    }

    fn params(&self) -> Result<Params, meshwork_channels::error::ConfigError> {
        let bytes_per_second = self.bits_per_second / 8;
        let queue_bytes = (bytes_per_second as f64 * self.queue.as_secs_f64()) as u64;
        Config { bytes_per_second, queue_bytes, delay: self.rtt / 2, loss: self.loss }.build()
    }
}

/// What a link did to the datagrams of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counters {
    pub(super) forwarded: u64,
    /// There was no room in the queue.
    pub(super) dropped: u64,
    /// Lost behind the queue, as asked for.
    pub(super) lost: u64,
    /// Larger than an Ethernet frame carries: probes for the packet size.
    pub(super) oversized: u64,
    /// The system took them not.
    pub(super) refused: u64,
}

/// What a link says about itself.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// From the end that dials to the other, and back.
    pub(super) there: Counters,
    pub(super) back: Counters,
    /// What the system dropped before this link read it: too much load on the machine, and the figures of the run are those of another link.
    pub(super) overruns: u64,
    /// How late datagrams were sent, in milliseconds: what this link adds by its own slowness.
    pub(super) late_p50_ms: f64,
    pub(super) late_p99_ms: f64,
    pub(super) late_max_ms: f64,
}

/// Both sockets of a link that does not carry anything yet.
pub(super) struct Unlinked {
    params: Params,
    near: UdpSocket,
    far: UdpSocket,
}

/// A running link. It ends when dropped.
pub(super) struct Wire {
    end: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    thread: Option<JoinHandle<()>>,
}

impl Unlinked {
    pub(super) fn bind(link: &Link) -> Result<Self, Failure> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| Failure::new(format!("no socket for the link: {error}")));
        let params = link.params().map_err(|error| Failure::usage(format!("--link `{link}`: {error}")))?;
        Ok(Unlinked { params, near: bind()?, far: bind()? })
    }

    /// Where the dialing end finds the other.
    pub(super) fn near(&self) -> Result<SocketAddr, Failure> {
        self.near.local_addr().map_err(Failure::new)
    }

    /// Where the other end finds the dialing one.
    pub(super) fn far(&self) -> Result<SocketAddr, Failure> {
        self.far.local_addr().map_err(Failure::new)
    }

    /// Carries datagrams from now on, to `acceptor` and back to whoever dials.
    pub(super) fn start(self, acceptor: SocketAddr, seed: u64) -> Result<Wire, Failure> {
        let end = Arc::new(AtomicBool::new(false));
        let report = Arc::<Mutex<Report>>::default();
        let failed = |error: io::Error| Failure::new(format!("the link cannot start: {error}"));
        let near = Socket::new(self.near).map_err(failed)?;
        let far = Socket::new(self.far).map_err(failed)?;
        let relay = Relay {
            there: Direction::new(State::new(self.params.clone(), seed), Some(acceptor)),
            back: Direction::new(State::new(self.params, seed.wrapping_add(1)), None),
            near,
            far,
            late: Samples::new(),
            origin: Instant::now(),
        };
        let (ended, said) = (end.clone(), report.clone());
        let thread = std::thread::Builder::new()
            .name("bench-link".into())
            .spawn(move || {
                let report = relay.run(&ended);
                *said.lock().unwrap_or_else(PoisonError::into_inner) = report;
            })
            .map_err(failed)?;
        Ok(Wire { end, report, thread: Some(thread) })
    }
}

impl Wire {
    /// Ends the link, and tells what it did.
    pub(super) fn stop(mut self) -> Report {
        self.join();
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn join(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A relay that panicked has no report; the run shows it by carrying nothing.
            let _ = thread.join();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.join();
    }
}

struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        // As much as the system gives: what is lost here would not be lost by the model.
        let state = deepen(&socket, 8 << 20)?;
        Ok(Socket { socket, state })
    }
}

/// Asks the system for room in front of a socket; it gives as much as it allows.
pub(super) fn deepen(socket: &UdpSocket, bytes: usize) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    let _ = state.set_recv_buffer_size(socket.into(), bytes);
    let _ = state.set_send_buffer_size(socket.into(), bytes);
    Ok(state)
}

struct Packet {
    at: Time,
    bytes: Vec<u8>,
    ecn: Option<EcnCodepoint>,
}

/// One direction. Packets leave the model in the order in which they came, so a queue is sorted by deadline by itself.
struct Direction {
    state: State,
    due: VecDeque<Packet>,
    spare: Vec<Vec<u8>>,
    to: Option<SocketAddr>,
    counters: Counters,
}

impl Direction {
    fn new(state: State, to: Option<SocketAddr>) -> Self {
        Direction { state, due: VecDeque::new(), spare: Vec::new(), to, counters: Counters::default() }
    }

    fn offer(&mut self, datagram: &[u8], ecn: Option<EcnCodepoint>, now: Time) {
        if datagram.len() > PAYLOAD_BYTES_MAX {
            self.counters.oversized += 1;
            return;
        }
        match self.state.offer(datagram.len(), now) {
            Fate::Arrives(at) => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.clear();
                bytes.extend_from_slice(datagram);
                self.due.push_back(Packet { at, bytes, ecn });
            }
            Fate::Dropped => self.counters.dropped += 1,
            Fate::Lost => self.counters.lost += 1,
        }
    }

    fn send_due(&mut self, socket: &Socket, late: &mut Samples, now: Time) {
        while let Some(packet) = self.due.pop_front_if(|packet| packet.at <= now) {
            late.record(now.since(packet.at));
            let Some(destination) = self.to else { continue };
            let transmit = Transmit { destination, ecn: packet.ecn, contents: &packet.bytes, segment_size: None, src_ip: None };
            match socket.state.try_send((&socket.socket).into(), &transmit) {
                Ok(()) => self.counters.forwarded += 1,
                Err(_) => self.counters.refused += 1,
            }
            self.spare.push(packet.bytes);
        }
    }
}

struct Relay {
    there: Direction,
    back: Direction,
    near: Socket,
    far: Socket,
    late: Samples,
    origin: Instant,
}

impl Relay {
    fn run(mut self, end: &AtomicBool) -> Report {
        keep_time();
        let mut buffer = vec![0; 64 * 1_024];
        while !end.load(Ordering::Relaxed) {
            if let Some(dialer) = take_in(&self.near, &mut self.there, &mut buffer, self.origin) {
                self.back.to = Some(dialer);
            }
            take_in(&self.far, &mut self.back, &mut buffer, self.origin);
            let now = self.now();
            self.there.send_due(&self.far, &mut self.late, now);
            self.back.send_due(&self.near, &mut self.late, now);
            let next = [&self.there, &self.back].into_iter().filter_map(|direction| direction.due.front()).map(|packet| packet.at).min();
            let wait = next.map_or(LOOK_EVERY, |next| next.since(self.now()).min(LOOK_EVERY));
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
            let mut sockets = [PollFd::new(&self.near.socket, PollFlags::IN), PollFd::new(&self.far.socket, PollFlags::IN)];
            // Interrupted or not, the next turn looks at everything.
            let _ = poll(&mut sockets, Some(&timeout));
        }
        let port = |socket: &Socket| socket.socket.local_addr().map_or(0, |address| address.port());
        Report {
            overruns: overruns(port(&self.near)) + overruns(port(&self.far)),
            there: self.there.counters,
            back: self.back.counters,
            late_p50_ms: self.late.quantile_ms(0.5),
            late_p99_ms: self.late.quantile_ms(0.99),
            late_max_ms: self.late.quantile_ms(1.0),
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}

/// Offers what arrived; the answer is who sent the last of it.
fn take_in(socket: &Socket, direction: &mut Direction, buffer: &mut [u8], origin: Instant) -> Option<SocketAddr> {
    let mut from = None;
    for _ in 0..BATCHES_MAX {
        let mut meta = [RecvMeta::default()];
        match socket.state.recv((&socket.socket).into(), &mut [IoSliceMut::new(buffer)], &mut meta) {
            Ok(1) => {}
            _ => break,
        }
        let [meta] = meta;
        from = Some(meta.addr);
        let now = Time::ZERO + origin.elapsed();
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            direction.offer(datagram, meta.ecn, now);
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_people_write_them() {
        let link: Link = "100mbit,20ms".parse().unwrap();
        assert_eq!(
            (link.bits_per_second, link.rtt, link.queue, link.loss),
            (100_000_000, Duration::from_millis(20), Duration::from_millis(100), 0.0)
        );
        let link: Link = "1.5gbit, 500us, queue=2s, loss=0.1%".parse().unwrap();
        assert_eq!((link.bits_per_second, link.rtt, link.queue), (1_500_000_000, Duration::from_micros(500), Duration::from_secs(2)));
        assert!((link.loss - 0.001).abs() < 1e-12);
        assert_eq!("100mbit,20ms,loss=0.01".parse::<Link>().unwrap().loss, 0.01);
    }

    #[test]
    fn what_is_no_link_is_refused_with_the_part_that_is_wrong() {
        for (text, part) in [
            ("", "a rate and a round trip"),
            ("100mbit", "a rate and a round trip"),
            ("fast,20ms", "`fast` is not a rate"),
            ("100mbit,20", "`20` is not a time"),
            ("100mbit,-1ms", "`-1ms` is not a time"),
            ("100mbit,20ms,loss=2", "`2` is no part"),
            ("100mbit,20ms,jitter=1ms", "neither"),
            ("1kbit,20ms", "bytes_per_second"),
            ("100mbit,20ms,queue=1us", "queue_bytes"),
        ] {
            let error = text.parse::<Link>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn loss_is_no_part_of_the_name() {
        let link: Link = "100mbit,20ms,loss=5%,queue=50ms".parse().unwrap();
        assert_eq!(link.name(), "100mbit,20ms,queue=50ms");
        assert_eq!(link.with_loss(0.001).to_string(), "100mbit,20ms,queue=50ms,loss=0.1%");
    }

    #[test]
    fn datagrams_go_there_and_back() {
        let link: Link = "10mbit,2ms".parse().unwrap();
        let (dialer, acceptor) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        for socket in [&dialer, &acceptor] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        let unlinked = Unlinked::bind(&link).unwrap();
        let (near, far) = (unlinked.near().unwrap(), unlinked.far().unwrap());
        let wire = unlinked.start(acceptor.local_addr().unwrap(), 1).unwrap();
        let mut buffer = [0; 2_000];
        dialer.send_to(&[1; 1_473], near).unwrap();
        dialer.send_to(b"ping", near).unwrap();
        assert_eq!(acceptor.recv_from(&mut buffer).unwrap(), (4, far));
        acceptor.send_to(b"pong!", far).unwrap();
        assert_eq!(dialer.recv_from(&mut buffer).unwrap(), (5, near));
        let report = wire.stop();
        assert_eq!((report.there.forwarded, report.there.oversized, report.back.forwarded), (1, 1, 1));
    }
}
