//! How much bulk may be in flight to a peer: as much as fills the line, and a queue of a chosen delay, not more.
//!
//! A congestion controller for a connection that carries nothing but bulk. Whatever waits before the narrowest place of the path, urgent
//! messages of
//! other connections wait behind; so the window is steered by the delay that bulk itself adds, and hardly by loss.
//!
//! # The law
//!
//! Time is cut into rounds: one ends when a packet that was sent after its start is acknowledged. A round's queue is the mean of the *smallest*
//! samples of its batches, 16 acknowledgments each, above the base, the delay of an empty path; the smallest, because a busy processor or a delayed
//! acknowledgment can only add, and the mean of several, because a sender that did not run for a while sends its window in one burst: the first packets of it
//! find no queue, and the window would grow for ever.
//!
//! 1. **Steady.** `w ← (w + w' · (base + target) / (base + queue)) / 2`, once a round, and only when the window was used (FAST TCP: Wei,
//!    Jin, Low and
//!    Hegde, IEEE/ACM Transactions on Networking 14(6), 2006, section IV, with γ = ½). `w'` is the window under which the sampled packets
//!    were sent: a law that is applied to the
//!    present window reacts twice to one queue and swings.
//! 2. **Start.** The window grows by what is acknowledged until the smallest of 16 samples in a row shows half of the target (as
//!    HyStart++ does,
//!    RFC 9406, section 4.2). Those packets were sent a round trip ago, under half of the window; that half is therefore what the path
//!    holds, and the
//!    excess drains at once. In the steady phase a path that shows no queue round after round, because its rate rose, is probed with
//!    steps that
//!    grow from round to round, so that a small lack is met by a small step and a large one in few round trips.
//! 3. **Loss** of a few packets says nothing about congestion. A round that loses more than 3 % of its bytes, and ten packets, cuts the
//!    window by the
//!    share lost (15 % to 50 %) and *lowers the target* to half of the delay at which it happened: a queue shorter than the target would
//!    otherwise
//!    overflow for ever. The lowered target grows back by 1/512 a round. Persistent congestion (RFC 9002, section 7.6) begins anew from
//!    the floor.
//! 4. **Base.** At every tenth second of the clock three quarters of the window are withheld for one round trip, which empties the queue
//!    (the slowdown
//!    of LEDBAT++: draft-irtf-iccrg-ledbat-plus-plus, section 4.4), and what is measured then *is* the base. It costs up to three
//!    quarters of a round trip in
//!    ten seconds. A new governor does so at the next even second already. When the delay stays high although half of the window was
//!    given up, the
//!    path changed, or another governor took its queue for the path: it is measured within a quarter of a second, and again at the next
//!    even second.
//!
//! # Deviations
//!
//! 1. Neither FAST nor a plain delay target divides a line fairly: with one target every division is an equilibrium. The target
//!    therefore falls by 12 % for each doubling of the window (the idea of flow scaling: Swift, Kumar et al., SIGCOMM 2020, section 3.5),
//!    so the larger flow yields.
//! 2. LEDBAT++ measures its base in slowdowns whose times differ. Governors that share a clock all measure at the same tick, so that what
//!    several
//!    connections queue before one uplink is gone for all of them at once; else each takes the queue of the others for the path.
//! 3. The base is not a minimum over a history: it is replaced. A longer route costs seconds, not minutes; and beside a flow that
//!    fills every queue, that flow's queue becomes part of the path, so that this one does not stay at its floor.
//! 4. Below [`Config::lan_base`] delay is mostly that of schedulers: the target is coarse and the window capped.
//!
//! # Invariants
//!
//! - The window is never below the floor, and never above the largest of the configuration.
//! - No order of calls and no time panics. A peer that acknowledges dishonestly gains what it could gain from any sender: a window up to
//!   the largest.
//! - The state has a fixed size: nothing is kept for a packet.
//!
//! `quic` speaks to it, as the congestion controller of a connection.

use std::time::Duration;

use crate::error::ConfigError;
use crate::time::Time;

#[cfg(test)]
mod tests;

/// Samples in a row of which the smallest may end the start. RFC 9406 says 8; packets leave in bursts of ten, of which the last few see
/// their own burst.
const BATCH: u32 = 16;
/// The largest step of the law in a round, and of probing.
const STEP_MAX: f64 = 1.25;
const PROBE_MAX: f64 = 2.0;
/// Rounds with a quarter more than the target after which the base is doubted.
const HIGH_ROUNDS: u32 = 6;
/// How often the base is measured, by the clock that all governors of an endpoint share.
const REFRESH: Duration = Duration::from_secs(10);
/// The same for a new governor, and for one whose base is from a measurement in doubt, which is alone and may be of the queue of others.
const REFRESH_UNSETTLED: Duration = Duration::from_secs(2);
/// What is left of the window in a drain. A flow with half of a line must be able to empty a queue of half the base.
const DRAINED: f64 = 0.25;
/// Doubtful governors measure together, too.
const DOUBT_TICK: Duration = Duration::from_millis(250);
/// Between two measurements that doubt asked for.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// A round that loses more of its bytes is congested, in percent. Above what radio and long paths lose by chance.
const LOSS_PERCENT_MAX: u64 = 3;
/// Fewer packets lost in a round are chance, whatever their share.
const LOSS_PACKETS_MIN: u64 = 10;
/// The queue to keep, unless the configuration says another one: 15 % of the base within these.
const TARGET_MIN: Duration = Duration::from_millis(3);
const TARGET_MAX: Duration = Duration::from_millis(10);
/// The least on paths with a base below [`SHORT_BASE`]. Their rates are high, and what a queue bridges there are the pauses of a busy host: measured at 5 ms and 500 Mbit/s, 3.5 ms cost a
/// seventh of the throughput that 5 ms have, while at 20 ms and 100 Mbit/s 3 ms cost nothing.
const TARGET_SHORT: Duration = Duration::from_millis(5);
const SHORT_BASE: Duration = Duration::from_millis(10);
/// The window at which the target holds as it is; larger ones get a lower one, smaller ones a higher one.
const SCALE_BYTES: u64 = 128 * 1_024;

/// How a governor behaves. [`Config::build`] checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The queue to keep before the narrowest place: what urgent messages beside bulk wait longer. `None` means 15 % of the base, from
    /// 3 ms to 10 ms, and 5 ms where the base is below 10 ms. Lower gives up throughput where samples are noisy (2 ms on a busy machine: a fifth of a line of 500 Mbit/s was used); higher makes urgent
    /// messages wait. From 200 µs to 1 s.
    pub target: Option<Duration>,
    /// The floor, in bytes; at least 2,400. Higher queues more on lines below 5 Mbit/s (16 KiB are 26 ms there), lower starves beside
    /// flows that fill every queue. A guess.
    pub window_min: u64,
    /// Where a connection starts, in bytes. Higher saves round trips, and is a burst on slow lines. A guess: 27 packets.
    pub window_initial: u64,
    /// The largest, in bytes: what a connection may hold in flight and in memory. 64 MiB fill 5 Gbit/s at 100 ms.
    pub window_max: u64,
    /// A base below this means a local network; zero means that no path is local. At most 100 ms. Measured: delays below 2 ms are noise
    /// of schedulers.
    pub lan_base: Duration,
    /// The target on a local network, unless `target` is higher. Measured: on a busy host, 5 ms lost half of the throughput.
    pub lan_target: Duration,
    /// The largest window on a local network, in bytes. What is in flight waits in the sockets of the system, before what is urgent. Measured on loopback, for the p99 of urgent messages
    /// beside bulk between endpoints with a thread each: 1 MiB 5 ms, 512 KiB 4 ms, 256 KiB 3 ms, which costs an eighth of the throughput.
    pub lan_window: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            target: None,
            window_min: 16 * 1_024,
            window_initial: 32 * 1_024,
            window_max: 64 * 1_024 * 1_024,
            lan_base: Duration::from_millis(2),
            lan_target: Duration::from_millis(10),
            lan_window: 512 * 1_024,
        }
    }
}

impl Config {
    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the field.
    pub fn build(self) -> Result<Params, ConfigError> {
        let targets = Duration::from_micros(200)..=Duration::from_secs(1);
        for (field, target) in [("lan_target", self.lan_target), ("target", self.target.unwrap_or(self.lan_target))] {
            if !targets.contains(&target) {
                return Err(ConfigError::new(field, format_args!("{target:?}"), "from 200 µs to 1 s"));
            }
        }
        if self.lan_base > Duration::from_millis(100) {
            return Err(ConfigError::new("lan_base", format_args!("{:?}", self.lan_base), "at most 100 ms"));
        }
        if self.window_min < 2_400 {
            return Err(ConfigError::new("window_min", self.window_min, "at least 2,400, two packets"));
        }
        if self.window_max > 1 << 40 {
            return Err(ConfigError::new("window_max", self.window_max, "at most a tebibyte"));
        }
        for (field, window) in [("window_initial", self.window_initial), ("lan_window", self.lan_window)] {
            if !(self.window_min..=self.window_max).contains(&window) {
                return Err(ConfigError::new(
                    field,
                    window,
                    format_args!("from window_min to window_max, {} to {}", self.window_min, self.window_max),
                ));
            }
        }
        Ok(Params(self))
    }
}

/// A checked [`Config`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Config);

impl Params {
    /// Where a connection starts, in bytes.
    pub fn window_initial(&self) -> u64 {
        self.0.window_initial
    }
}

/// What a governor knows, for people and for benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The round trip of the empty path; zero before the first sample.
    pub base: Duration,
    /// What the last round waited in queues.
    pub queue: Duration,
    /// The queue that is aimed at now.
    pub target: Duration,
    /// Bytes that may be in flight.
    pub window: u64,
    /// What was acknowledged in the last round.
    pub bytes_per_second: u64,
    /// Rounds that lost so much that the window was cut.
    pub cuts: u64,
    /// How often the queue was emptied to measure the base.
    pub drains: u64,
}

/// The time from sending a packet to its acknowledgment, about one round trip.
#[derive(Clone, Copy, Debug)]
struct Round {
    began: Time,
    /// The window at its start, under which it sends.
    window: u64,
    /// The window of the round before, under which the packets were sent that are acknowledged in this one.
    sent_under: u64,
    acked: u64,
    lost: u64,
    min: Option<Duration>,
    /// The largest of the smallest samples of its batches: the queue where it was longest, without what noise adds.
    peak: Duration,
    /// The sum of those queues, and how many they are.
    batches: (Duration, u32),
    /// The window was changed abruptly at its start: its samples are of packets from before, and say nothing about it.
    stale: bool,
}

impl Round {
    fn begin(began: Time, window: u64, sent_under: u64, stale: bool) -> Self {
        Round { began, window, sent_under, acked: 0, lost: 0, min: None, peak: Duration::ZERO, batches: (Duration::ZERO, 0), stale }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Grows by what is acknowledged, from this window.
    Start {
        from: u64,
    },
    Steady,
    /// A part of the window until the queue is empty.
    Drain {
        began: Time,
        until: Time,
        restore: u64,
        min: Option<Duration>,
    },
    /// The window is back; packets that were sent in the drain are still to be acknowledged.
    Measure {
        began: Time,
        until: Time,
        min: Option<Duration>,
    },
}

/// The governor of one connection.
#[derive(Clone, Debug)]
pub struct State {
    params: Params,
    window: u64,
    phase: Phase,
    round: Round,
    packet_bytes: u64,
    base: Option<Duration>,
    queue: Duration,
    bytes_per_second: u64,
    /// What the last complete round had acknowledged.
    acked: u64,
    /// The smallest sample of those that may end the start, and how many there are.
    batch: (Duration, u32),
    /// The target that heavy loss left.
    ceiling: Duration,
    low_rounds: u32,
    /// Rounds with a high queue, and the window at the first.
    high_rounds: (u32, u64),
    /// Losses of packets sent before are those that the window was already cut for.
    cut_at: Time,
    /// When the window was last full.
    used_at: Time,
    drained_at: Time,
    /// The delay stays high although the window gave way.
    doubts: bool,
    /// The base is from a measurement at a tick.
    is_settled: bool,
    /// The acknowledgment before.
    asked_at: Time,
    cuts: u64,
    drains: u64,
}

impl State {
    /// The governor of a new path. Those that share lines should share the origin of their clock.
    pub fn new(params: Params, now: Time) -> Self {
        let window = params.0.window_initial;
        State {
            window,
            phase: Phase::Start { from: window },
            round: Round::begin(now, window, window, true),
            packet_bytes: 1_200,
            base: None,
            queue: Duration::ZERO,
            bytes_per_second: 0,
            acked: 0,
            batch: (Duration::MAX, 0),
            ceiling: Duration::MAX,
            low_rounds: 0,
            high_rounds: (0, window),
            cut_at: Time::ZERO,
            used_at: now,
            drained_at: now,
            doubts: false,
            is_settled: false,
            asked_at: now,
            cuts: 0,
            drains: 0,
            params,
        }
    }

    /// Bytes that may be in flight.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// What is known now.
    pub fn report(&self) -> Report {
        Report {
            base: self.base.unwrap_or_default(),
            queue: self.queue,
            target: self.aim(),
            window: self.window,
            bytes_per_second: self.bytes_per_second,
            cuts: self.cuts,
            drains: self.drains,
        }
    }

    /// Packets are this large from now on.
    pub fn on_packet_bytes(&mut self, bytes: u64) {
        self.packet_bytes = bytes.clamp(1, u64::from(u16::MAX));
        self.set_window(self.window);
    }

    /// A packet that was sent at `sent_at` is acknowledged. `app_limited` says that the sender had nothing more to send.
    pub fn on_ack(&mut self, bytes: u64, sent_at: Time, app_limited: bool, now: Time) {
        self.round.acked = self.round.acked.saturating_add(bytes);
        if matches!(self.phase, Phase::Start { .. }) && !app_limited {
            // A window that is not filled would grow without end: it stays within three times of what a round trip really carried.
            let carried = self.acked.max(self.round.acked).saturating_mul(3);
            if self.window < carried.saturating_add(self.params.0.window_initial) {
                self.set_window(self.window.saturating_add(bytes));
                self.used_at = now;
            }
        }
        // A packet cannot be acknowledged before it arrived: a clock that says so has nothing to say about delay.
        if now > sent_at {
            self.on_sample(now.since(sent_at), sent_at, now);
        }
        match self.phase {
            Phase::Drain { began, until, restore, min } if now >= until => {
                self.phase = Phase::Measure { began, until: now, min };
                self.set_window(restore);
            }
            Phase::Measure { until, min, .. } if sent_at >= until => {
                self.base = min.or(self.base);
                self.phase = Phase::Steady;
                self.restart_round(now);
                return;
            }
            Phase::Steady if self.is_drain_due(now) => self.drain(now),
            _ => {}
        }
        self.asked_at = now;
        if sent_at >= self.round.began {
            self.end_round(now);
        }
    }

    /// Bytes of packets of which the last was sent at `sent_at` are lost; with 0 bytes, the network marked packets instead (ECN).
    /// `persistent` says that nothing came through for a long time.
    pub fn on_loss(&mut self, bytes: u64, sent_at: Time, persistent: bool, now: Time) {
        if persistent {
            self.set_window(0);
            self.phase = Phase::Start { from: self.window };
            self.cut_at = now;
            self.cuts += 1;
            self.restart_round(now);
            return;
        }
        if sent_at < self.cut_at {
            return;
        }
        self.round.lost = self.round.lost.saturating_add(bytes);
        let flight = self.round.sent_under.max(self.round.acked.saturating_add(self.round.lost));
        let few = self.round.lost < LOSS_PACKETS_MIN.saturating_mul(self.packet_bytes);
        if bytes == 0 || (!few && self.round.lost.saturating_mul(100) > flight.saturating_mul(LOSS_PERCENT_MAX)) {
            self.cut(self.round.lost as f64 / flight.max(1) as f64, now);
        }
    }

    fn on_sample(&mut self, sample: Duration, sent_at: Time, now: Time) {
        let base = self.base.map_or(sample, |base| base.min(sample));
        self.base = Some(base);
        let least = |min: Option<Duration>| Some(min.map_or(sample, |min| min.min(sample)));
        self.round.min = least(self.round.min);
        if let Phase::Drain { began, min, .. } | Phase::Measure { began, min, .. } = &mut self.phase
            && sent_at >= *began
        {
            *min = least(*min);
        }
        self.batch = (self.batch.0.min(sample), self.batch.1 + 1);
        if self.batch.1 >= BATCH {
            let queue = self.batch.0.saturating_sub(base);
            self.batch = (Duration::MAX, 0);
            self.round.peak = self.round.peak.max(queue);
            self.round.batches = (self.round.batches.0 + queue, self.round.batches.1 + 1);
            if let Phase::Start { from } = self.phase
                && (queue > self.aim() / 2 || self.window >= self.window_max())
            {
                self.queue = queue;
                self.phase = Phase::Steady;
                let held = (self.window / 2).max(from);
                self.set_window(times(held, self.wanted(queue)));
                self.restart_round(now);
            }
        }
    }

    fn end_round(&mut self, now: Time) {
        let round = self.round;
        let Some(min) = round.min else { return self.restart_round(now) };
        let mean = round.batches.0 / round.batches.1.max(1);
        self.queue = min.saturating_sub(self.base.unwrap_or(min)).max(mean);
        self.acked = round.acked;
        let nanos = now.since(round.began).as_nanos().max(1);
        self.bytes_per_second = u64::try_from(u128::from(round.acked) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        // What is acknowledged in a round was in flight at its start.
        let used = round.acked.saturating_add(round.lost) >= round.sent_under / 4 * 3;
        if used {
            self.used_at = now;
        } else if now.since(self.used_at) > REFRESH {
            // A window that was not filled for so long was measured on a path that may be another by now (as RFC 7661 has it).
            self.set_window((self.window / 2).max(self.params.0.window_initial.min(self.window)));
            self.phase = Phase::Start { from: self.window };
            self.used_at = now;
        }
        if used && !round.stale && matches!(self.phase, Phase::Steady) {
            self.steer(&round);
        }
        self.round = Round::begin(now, self.window, round.window, false);
    }

    /// The law, once a round.
    fn steer(&mut self, round: &Round) {
        let (queue, aim) = (self.queue, self.aim());
        // After overflow the queue is kept low on purpose, and its lack calls for nothing.
        self.low_rounds =
            if queue.max(round.peak) <= aim / 4 && self.ceiling >= self.target() { self.low_rounds.saturating_add(1) } else { 0 };
        self.high_rounds = match self.high_rounds {
            _ if queue <= aim * 5 / 4 => (0, self.window),
            (0, _) => (1, self.window),
            (rounds, window) => (rounds.saturating_add(1), window),
        };
        self.ceiling = self.ceiling.saturating_add(self.ceiling / 512);
        let mut next = ((self.window as f64 + round.sent_under as f64 * self.wanted(queue)) / 2.0).min(self.window as f64 * STEP_MAX);
        if self.low_rounds > 1 {
            // The step of the law for an empty queue, once more with each round.
            let step = self.wanted(Duration::ZERO).min(STEP_MAX) - 1.0;
            next = next.max(self.window as f64 * (1.0 + step / 2.0 * f64::from(self.low_rounds)).min(PROBE_MAX));
        }
        self.set_window((next as u64).max(self.window / 2));

        let gave_way = self.window <= (self.high_rounds.1 / 2).max(self.window_min());
        self.doubts = self.high_rounds.0 >= HIGH_ROUNDS && gave_way;
    }

    /// Whether the clock says that the base is to be measured. It is asked at every acknowledgment: governors that share a line must
    /// drain together, not each at the end of its round.
    fn is_drain_due(&self, now: Time) -> bool {
        let passed = |every: Duration, since: Time| now.as_nanos() / every.as_nanos() as u64 != since.as_nanos() / every.as_nanos() as u64;
        let doubtful = self.doubts && now.since(self.drained_at) >= DOUBT_PAUSE && passed(DOUBT_TICK, self.asked_at);
        let every = if self.is_settled { REFRESH } else { REFRESH_UNSETTLED };
        doubtful || (passed(every, self.drained_at) && now.since(self.used_at) <= DOUBT_PAUSE)
    }

    fn drain(&mut self, now: Time) {
        let base = self.base.unwrap_or_default();
        let trip = base + self.queue;
        self.phase = Phase::Drain { began: now, until: now + trip, restore: self.window, min: None };
        // Where the queue is longer than the path, less than what the empty path holds.
        self.set_window(times(self.window, (0.75 * base.as_secs_f64() / trip.as_secs_f64()).min(DRAINED)));
        self.drained_at = now;
        self.drains += 1;
        self.high_rounds = (0, self.window);
        (self.is_settled, self.doubts) = (!self.doubts, false);
    }

    fn cut(&mut self, share: f64, now: Time) {
        let held = match self.phase {
            Phase::Start { from } => (self.window / 2).max(from),
            Phase::Drain { restore, .. } => restore,
            Phase::Steady | Phase::Measure { .. } => self.window,
        };
        let queue = self.round.min.unwrap_or_default().saturating_sub(self.base.unwrap_or_default());
        self.ceiling = (queue / 2).max(self.target() / 8);
        self.phase = Phase::Steady;
        self.set_window(times(held, (1.0 - share).clamp(0.5, 0.85)));
        self.cut_at = now;
        self.cuts += 1;
        self.restart_round(now);
    }

    /// The window was changed abruptly.
    fn restart_round(&mut self, now: Time) {
        self.round = Round::begin(now, self.window, self.window, true);
        self.low_rounds = 0;
        self.batch = (Duration::MAX, 0);
    }

    /// By how much the window would have to change for the queue to be what is aimed at.
    fn wanted(&self, queue: Duration) -> f64 {
        let base = self.base.unwrap_or_default();
        (base + self.aim()).as_secs_f64() / (base + queue).as_secs_f64().max(1e-9)
    }

    fn is_local(&self) -> bool {
        self.base.is_some_and(|base| base < self.params.0.lan_base)
    }

    fn target(&self) -> Duration {
        let base = self.base.unwrap_or_default();
        let least = if base < SHORT_BASE { TARGET_SHORT } else { TARGET_MIN };
        let target = self.params.0.target.unwrap_or((base * 3 / 20).clamp(least, TARGET_MAX));
        if self.is_local() { target.max(self.params.0.lan_target) } else { target }
    }

    /// The target of a window of this size, after what loss left of it.
    fn aim(&self) -> Duration {
        let doublings = log2(self.window) - log2(SCALE_BYTES);
        self.target().mul_f64((1.0 - 0.12 * doublings).clamp(0.5, 1.2)).min(self.ceiling)
    }

    fn window_min(&self) -> u64 {
        self.params.0.window_min.max(2 * self.packet_bytes)
    }

    fn window_max(&self) -> u64 {
        if self.is_local() { self.params.0.lan_window } else { self.params.0.window_max }
    }

    fn set_window(&mut self, window: u64) {
        self.window = window.min(self.window_max()).max(self.window_min());
    }
}

fn times(bytes: u64, factor: f64) -> u64 {
    (bytes as f64 * factor) as u64
}

/// The logarithm with a straight line between powers of two: the same on every platform.
fn log2(value: u64) -> f64 {
    let whole = value.max(1).ilog2();
    f64::from(whole) + (value.max(1) as f64 / (1_u64 << whole) as f64 - 1.0)
}
