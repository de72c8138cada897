//! What every subject of a measurement can do, and how it is driven: floods of messages, and urgent messages at a fixed rate.

#![expect(clippy::disallowed_methods, reason = "it measures with the real clock, and beats time on a thread")]

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use super::machine::{cpu_time, keep_time};
use super::samples::Samples;
use super::wire;
use crate::cli::Failure;

/// Subjects are chosen while the program runs, so their futures are boxed. None of these is awaited for each message of a flood.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long answers may take that did not come in the measured time.
const ANSWERS_MAX: Duration = Duration::from_secs(5);
/// Urgent messages that are sent together when they are late.
const DUE_MAX: usize = 256;
/// Messages that a flood without a rate sends before it looks whether it shall end.
const BATCH: u64 = 256;
/// The baselines collect small messages up to this size, and count those of a block together; ours are counted alike.
pub(super) const BLOCK_BYTES: usize = 32 * 1_024;

/// Two connected ends in this process, and traffic between them.
pub(super) trait Subject: Send + Sync {
    /// A way for urgent messages of `size` bytes: to the other end and, with `echo`, back.
    fn urgent<'a>(&'a self, size: usize, echo: bool, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>>;

    /// A way for values of `size` bytes of which only the newest counts, to the other end. Of a baseline the way of urgent messages.
    fn latest<'a>(&'a self, size: usize, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<Way, Failure>> {
        self.urgent(size, false, tasks)
    }

    /// Starts to send as `load` says. Both ends count into `flow`, until it is stopped.
    fn flood<'a>(&'a self, load: Load, flow: &'a Arc<Flow>, tasks: &'a mut JoinSet<()>) -> Boxed<'a, Result<(), Failure>>;

    /// Closes everything, and tells what the transport knows.
    fn stop(self: Box<Self>) -> Boxed<'static, Facts>;
}

/// Where urgent messages go in and where they come out.
pub(super) struct Way {
    outlet: Box<dyn Outlet>,
    inlet: Box<dyn Inlet>,
    /// The number of the next message: an answer that comes after all patience must not pass for one of a later use.
    next: u64,
}

impl Way {
    pub(super) fn new(outlet: impl Outlet + 'static, inlet: impl Inlet + 'static) -> Self {
        Way { outlet: Box::new(outlet), inlet: Box::new(inlet), next: 0 }
    }

    /// Sends a message and waits for its answer; how long both took.
    pub(super) async fn ping(&mut self, size: usize) -> Result<Duration, Failure> {
        let mut message = vec![0; size.max(8)];
        message[..8].copy_from_slice(&self.next.to_le_bytes());
        let from = Instant::now();
        self.outlet.send(&message, message.len()).await?;
        while self.inlet.next().await.ok_or_else(|| Failure::new("the connection has ended"))? != self.next {}
        self.next += 1;
        Ok(from.elapsed())
    }
}

pub(super) trait Outlet: Send {
    /// Sends messages of `size` bytes that stand one after the other: usually one, more after a moment in which none could be sent.
    fn send<'a>(&'a mut self, messages: &'a [u8], size: usize) -> Boxed<'a, Result<(), Failure>>;
}

pub(super) trait Inlet: Send {
    /// The number at the head of the next message; none when the connection has ended. A number that was sent twice may come twice: the first counts.
    fn next(&mut self) -> Boxed<'_, Option<u64>>;
}

/// The number at the head of a message.
pub(super) fn number_of(message: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*message.first_chunk::<8>()?))
}

/// What a flood is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes of a message.
    pub(super) size: usize,
    /// Producers towards each peer: streams, where the subject has any.
    pub(super) lanes: usize,
    /// Channels that each of them is spread over.
    pub(super) channels: usize,
    /// Messages in a second that each producer sends; none: as many as it can.
    pub(super) rate: Option<f64>,
    /// Messages in a second that the other end takes from each channel; none: as they come. Meshwork alone heeds it.
    pub(super) read_rate: Option<f64>,
}

/// What went in and came out.
#[derive(Debug, Default)]
pub(super) struct Flow {
    stopped: AtomicBool,
    sent: AtomicU64,
    delivered: AtomicU64,
    bytes: AtomicU64,
    problem: OnceLock<String>,
}

impl Flow {
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, messages: u64) {
        self.sent.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, messages: u64, bytes: u64) {
        self.delivered.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes why a flood ended; what happens once it is stopped is no problem.
    pub(super) fn fail(&self, problem: impl std::fmt::Display) {
        if !self.is_stopped() {
            let _ = self.problem.set(problem.to_string());
        }
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        self.problem.get().map_or(Ok(()), |problem| Err(Failure::new(problem)))
    }

    pub(super) fn look(&self) -> Moment {
        Moment {
            at: Instant::now(),
            cpu: cpu_time(),
            sent: self.sent.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    at: Instant,
    cpu: Duration,
    sent: u64,
    delivered: u64,
    bytes: u64,
}

/// What happened between two moments.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Span {
    pub(super) wall_s: f64,
    /// Processor time of the whole process: both ends, and the link when there is one.
    pub(super) cpu_s: f64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) bytes: u64,
}

impl Moment {
    pub(super) fn until(self, later: Moment) -> Span {
        Span {
            wall_s: later.at.duration_since(self.at).as_secs_f64(),
            cpu_s: later.cpu.saturating_sub(self.cpu).as_secs_f64(),
            sent: later.sent - self.sent,
            delivered: later.delivered - self.delivered,
            bytes: later.bytes - self.bytes,
        }
    }
}

impl Span {
    pub(super) fn per_wall_s(&self) -> f64 {
        self.delivered as f64 / self.wall_s.max(1e-9)
    }

    pub(super) fn per_cpu_s(&self) -> f64 {
        self.delivered as f64 / self.cpu_s.max(1e-9)
    }

    pub(super) fn mb_per_cpu_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.cpu_s.max(1e-9)
    }

    pub(super) fn mb_per_wall_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.wall_s.max(1e-9)
    }
}

/// How many messages a producer may send next.
pub(super) struct Pace {
    rate: Option<f64>,
    began: Instant,
    sent: u64,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Pace { rate, began: Instant::now(), sent: 0 }
    }

    /// At least one: all that are due by now, when there is a rate.
    pub(super) async fn next(&mut self) -> u64 {
        let Some(rate) = self.rate else { return BATCH };
        loop {
            let due = (self.began.elapsed().as_secs_f64() * rate) as u64;
            if due > self.sent {
                let count = due - self.sent;
                self.sent = due;
                return count;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Counts messages in a stream of bytes: four bytes of length before each.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    header: [u8; 4],
    have: usize,
    body: usize,
}

impl Deframer {
    /// The messages that these bytes complete, and the bytes of bodies among them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut messages, mut body_bytes) = (0, 0);
        while !bytes.is_empty() {
            if self.have < 4 {
                let part = bytes.len().min(4 - self.have);
                self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
                (self.have, bytes) = (self.have + part, &bytes[part..]);
                if self.have == 4 {
                    self.body = u32::from_le_bytes(self.header) as usize;
                }
            }
            let part = if self.have == 4 { bytes.len().min(self.body) } else { 0 };
            (self.body, bytes) = (self.body - part, &bytes[part..]);
            body_bytes += part as u64;
            if self.have == 4 && self.body == 0 {
                (self.have, messages) = (0, messages + 1);
            }
        }
        (messages, body_bytes)
    }
}

/// What a transport knows of a run: without it a figure says little.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Facts {
    /// Bytes of the largest packet, where the subject tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mtu: Option<u16>,
    /// Packets held for lost, of those sent by the sending end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_part: Option<f64>,
    /// Datagrams for each call of the system, at the sending end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) datagrams_per_call: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<wire::Report>,
}

/// Urgent messages at a fixed rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) every: Duration,
    /// What is sent in this time is not counted.
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
    pub(super) size: usize,
}

/// What became of them.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// From the moment at which each message was to be sent. One without an answer counts with its age at the end of all patience.
    pub(super) samples: Samples,
    pub(super) unanswered: u64,
}

/// Sends a message at each beat and hears the answers. Nothing is left out when the subject holds up: a message that is sent late
/// counts from the moment at which it was due.
///
/// The way is given back for the next use. The beat comes from a thread, because the timers of the runtime are good to a millisecond only.
pub(super) async fn listen(mut way: Way, beat: Beat, begin: Instant) -> Result<(Heard, Way), Failure> {
    let Way { outlet, inlet, next: base } = &mut way;
    let total = ((beat.warm_up + beat.length).as_secs_f64() / beat.every.as_secs_f64()).round() as u64;
    let first = (beat.warm_up.as_secs_f64() / beat.every.as_secs_f64()).round() as u64;
    let head = *base;
    *base += total;
    let due = move |number: u64| begin + beat.every.mul_f64(number as f64);
    let mut next = beats(total, due)?;

    let sending = async {
        let size = beat.size.max(8);
        let (mut numbers, mut messages) = (Vec::new(), Vec::new());
        while next.recv_many(&mut numbers, DUE_MAX).await > 0 {
            // What became due while the last send waited goes out together, as a writer with a queue would do it.
            for number in numbers.drain(..) {
                messages.extend_from_slice(&(head + number).to_le_bytes());
                messages.resize(messages.len() + size - 8, 7);
            }
            outlet.send(&messages, size).await?;
            messages.clear();
        }
        // The way stays open for the answers.
        std::future::pending::<Result<(), Failure>>().await
    };
    let hearing = async {
        let mut samples = Samples::new();
        let mut answered = vec![false; usize::try_from(total).unwrap_or(0)];
        let patience = due(total) + ANSWERS_MAX;
        let mut left = total;
        while left > 0 {
            let Ok(Some(number)) = timeout_at(patience.into(), inlet.next()).await else { break };
            let Some(number) = number.checked_sub(head) else { continue };
            if let Some(answered) = answered.get_mut(number as usize).filter(|answered| !**answered) {
                *answered = true;
                left -= 1;
                if number >= first {
                    samples.record(due(number).elapsed());
                }
            }
        }
        let missing = answered.iter().enumerate().skip(first as usize).filter(|(_, answered)| !**answered);
        let mut unanswered = 0;
        for (number, _) in missing {
            unanswered += 1;
            samples.record(patience.saturating_duration_since(due(number as u64)));
        }
        Heard { samples, unanswered }
    };
    let heard = tokio::select! {
        failed = sending => return failed.and_then(|()| Err(Failure::new("the urgent messages ended"))),
        heard = hearing => heard,
    };
    Ok((heard, way))
}

/// The numbers up to `total`, each when it is due.
fn beats(total: u64, due: impl Fn(u64) -> Instant + Send + 'static) -> Result<mpsc::Receiver<u64>, Failure> {
    let (beats, next) = mpsc::channel(1 << 12);
    let keep_beating = move || {
        keep_time();
        for number in 0..total {
            std::thread::sleep(due(number).saturating_duration_since(Instant::now()));
            if beats.blocking_send(number).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("bench-beat".into()).spawn(keep_beating);
    thread.map_err(|error| Failure::new(format!("the system gives no thread: {error}")))?;
    Ok(next)
}

/// What arrived of values of which only the newest counts.
#[derive(Clone, Debug)]
pub(super) struct Aged {
    /// How old each value was that arrived in the measured time.
    pub(super) ages: Samples,
    /// Values that the subject took in that time, of those that there were.
    pub(super) taken: u64,
}

/// Publishes a value at each beat, whether or not those before have left, and hears how old the values are that arrive.
///
/// A value is as old as the time since it was due. When a send waits, only the newest of the values that came meanwhile goes next: a subject that waits is driven by a program that
/// keeps the newest value itself.
pub(super) async fn publish(mut way: Way, beat: Beat, begin: Instant) -> Result<Aged, Failure> {
    let Way { outlet, inlet, .. } = &mut way;
    let total = ((beat.warm_up + beat.length).as_secs_f64() / beat.every.as_secs_f64()).round() as u64;
    let due = move |number: u64| begin + beat.every.mul_f64(number as f64);
    let (from, until) = (begin + beat.warm_up, begin + beat.warm_up + beat.length);
    let mut next = beats(total, due)?;
    let taken = AtomicU64::new(0);
    let sending = async {
        let (mut numbers, mut message) = (Vec::new(), vec![7; beat.size.max(8)]);
        while next.recv_many(&mut numbers, usize::MAX).await > 0 {
            let Some(number) = numbers.drain(..).next_back() else { continue };
            message[..8].copy_from_slice(&number.to_le_bytes());
            outlet.send(&message, message.len()).await?;
            if (from..until).contains(&Instant::now()) {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        }
        // The way stays open for what is still to arrive.
        std::future::pending::<Result<(), Failure>>().await
    };
    let hearing = async {
        let mut ages = Samples::new();
        while let Ok(number) = timeout_at(until.into(), inlet.next()).await {
            let number = number.ok_or_else(|| Failure::new("the connection has ended"))?;
            if Instant::now() >= from {
                ages.record(due(number).elapsed());
            }
        }
        Ok(ages)
    };
    let ages = tokio::select! {
        failed = sending => return failed.and_then(|()| Err(Failure::new("the values ended"))),
        ages = hearing => ages?,
    };
    Ok(Aged { ages, taken: taken.into_inner() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for len in [0_u32, 1, 5, 300] {
            bytes.extend(len.to_le_bytes());
            bytes.resize(bytes.len() + len as usize, 9);
        }
        for step in [1, 2, 3, 7, 1_000] {
            let mut deframer = Deframer::default();
            let counts = bytes.chunks(step).map(|chunk| deframer.feed(chunk));
            assert_eq!(counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1)), (4, 306), "in pieces of {step}");
        }
    }
}
