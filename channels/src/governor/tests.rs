use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;
use crate::link::bottleneck;
use crate::random::{hash, unit};

const PACKET: u64 = 1_200;
const MILLI: Duration = Duration::from_millis(1);

fn at(seconds: f64) -> Time {
    Time::from_nanos((seconds * 1e9) as u64)
}

/// What decides how much a simulated sender has in flight.
#[derive(Clone, Debug)]
enum Control {
    Governed(Box<State>),
    /// Halves at a loss, adds a packet for each round trip: what fills any queue.
    Reno {
        window: u64,
        threshold: u64,
        recovered: Time,
    },
}

impl Control {
    fn window(&self) -> u64 {
        match self {
            Control::Governed(state) => state.window(),
            Control::Reno { window, .. } => *window,
        }
    }

    fn on_ack(&mut self, bytes: u64, sent_at: Time, limited: bool, now: Time) {
        match self {
            Control::Governed(state) => state.on_ack(bytes, sent_at, limited, now),
            Control::Reno { window, threshold, .. } => *window += if *window < *threshold { bytes } else { bytes * PACKET / *window },
        }
    }

    fn on_loss(&mut self, bytes: u64, sent_at: Time, persistent: bool, now: Time) {
        match self {
            Control::Governed(state) => state.on_loss(bytes, sent_at, persistent, now),
            Control::Reno { window, threshold, recovered } if sent_at >= *recovered => {
                *threshold = (*window / 2).max(2 * PACKET);
                *window = *threshold;
                *recovered = now;
            }
            Control::Reno { .. } => {}
        }
    }
}

struct Packet {
    number: u64,
    sent_at: Time,
    acked: bool,
}

/// A sender, paced as quinn does it, and the receiver at the other end, which acknowledges every second packet.
struct Flow {
    control: Control,
    starts: Time,
    /// Bytes that the application writes in a second; `None` means always more.
    demand: Option<u64>,
    backlog: u64,
    tokens: f64,
    refilled: Time,
    trip: Duration,
    numbers: u64,
    outstanding: VecDeque<Packet>,
    in_flight: u64,
    heard_at: Time,
    wake_at: Time,
    limited: bool,
    // The receiver.
    pending: Vec<(u64, Time)>,
    pending_since: u64,
    arrived_at: Time,
    // What is measured.
    arrived: Vec<(Time, u64)>,
    sent: u64,
    lost: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Arrives { flow: usize, number: u64, sent_at: Time },
    DelayedAck { flow: usize, pending_since: u64 },
    Acks { flow: usize, numbers: Vec<(u64, Time)> },
    Wake { flow: usize },
    Tick,
}

struct World {
    now: Time,
    order: u64,
    events: BinaryHeap<Reverse<(Time, u64, Happens)>>,
    line: bottleneck::State,
    config: bottleneck::Config,
    back: Duration,
    jitter: Duration,
    /// At the start of each such time the senders do not run for a while.
    pauses: Option<(Duration, Duration)>,
    flows: Vec<Flow>,
    /// What a packet that came now would wait, every millisecond.
    waits: Vec<(Time, Duration)>,
}

struct Outcome {
    goodput: f64,
    wait_p50: Duration,
    wait_p99: Duration,
    wait_max: Duration,
    /// Before the time that is looked at.
    ramp_wait_max: Duration,
}

impl World {
    fn new(megabits: u64, trip_ms: u64, queue: Duration, loss: f64) -> Self {
        let bytes_per_second = megabits * 125_000;
        let queue_bytes = ((bytes_per_second as f64 * queue.as_secs_f64()) as u64).max(1_500);
        let config = bottleneck::Config { bytes_per_second, queue_bytes, delay: MILLI * trip_ms as u32 / 2, loss };
        let line = bottleneck::State::new(config.clone().build().unwrap(), 7);
        let mut world = World {
            now: Time::ZERO,
            order: 0,
            events: BinaryHeap::new(),
            line,
            back: config.delay,
            config,
            jitter: Duration::ZERO,
            pauses: None,
            flows: Vec::new(),
            waits: Vec::new(),
        };
        world.push(Time::ZERO, Happens::Tick);
        world
    }

    fn governed(megabits: u64, trip_ms: u64, queue_ms: u64, loss: f64, target_ms: Option<u64>) -> Self {
        let mut world = World::new(megabits, trip_ms, MILLI * queue_ms as u32, loss);
        world.add(governed(target_ms), 0.0);
        world
    }

    fn add(&mut self, control: Control, starts: f64) {
        let starts = at(starts);
        let flow = self.flows.len();
        self.flows.push(Flow {
            control,
            starts,
            demand: None,
            backlog: 0,
            tokens: 12_000.0,
            refilled: starts,
            trip: self.config.delay + self.back,
            numbers: 0,
            outstanding: VecDeque::new(),
            in_flight: 0,
            heard_at: starts,
            wake_at: Time::MAX,
            limited: false,
            pending: Vec::new(),
            pending_since: 0,
            arrived_at: Time::ZERO,
            arrived: Vec::new(),
            sent: 0,
            lost: 0,
        });
        self.push(starts, Happens::Wake { flow });
    }

    fn state(&self, flow: usize) -> &State {
        match &self.flows[flow].control {
            Control::Governed(state) => state,
            Control::Reno { .. } => panic!("not governed"),
        }
    }

    fn push(&mut self, at: Time, what: Happens) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, what)));
    }

    /// Another line takes the place of this one, with an empty queue.
    fn change(&mut self, megabits: u64, delay: Duration) {
        self.config.queue_bytes = self.config.queue_bytes * megabits * 125_000 / self.config.bytes_per_second;
        self.config.bytes_per_second = megabits * 125_000;
        self.config.delay = delay;
        self.line = bottleneck::State::new(self.config.clone().build().unwrap(), 8);
    }

    fn run(&mut self, until: f64) {
        let until = at(until);
        while self.events.peek().is_some_and(|Reverse((time, ..))| *time <= until) {
            let Some(Reverse((time, _, what))) = self.events.pop() else { break };
            self.now = time;
            if let (Some(until), Happens::Acks { .. } | Happens::Wake { .. }) = (self.paused_until(), &what) {
                self.push(until, what);
                continue;
            }
            match what {
                Happens::Arrives { flow, number, sent_at } => self.on_arrival(flow, number, sent_at),
                Happens::DelayedAck { flow, pending_since } => {
                    if self.flows[flow].pending_since == pending_since {
                        self.send_ack(flow);
                    }
                }
                Happens::Acks { flow, numbers } => self.on_acks(flow, &numbers),
                Happens::Wake { flow } => {
                    if self.flows[flow].wake_at <= self.now {
                        self.flows[flow].wake_at = Time::MAX;
                    }
                    self.send(flow);
                }
                Happens::Tick => self.on_tick(),
            }
        }
        self.now = until;
    }

    fn paused_until(&self) -> Option<Time> {
        let (every, pause) = self.pauses?;
        let passed = Duration::from_nanos(self.now.as_nanos() % every.as_nanos() as u64);
        (passed < pause).then(|| self.now + (pause - passed))
    }

    fn on_tick(&mut self) {
        self.waits.push((self.now, self.line.wait(self.now)));
        for flow in 0..self.flows.len() {
            let it = &mut self.flows[flow];
            if it.starts > self.now {
                continue;
            }
            it.backlog += it.demand.unwrap_or(0) / 1_000;
            let silent = self.now.since(it.heard_at);
            if !it.outstanding.is_empty() && silent > (it.trip * 3).max(MILLI * 200) {
                let last = it.outstanding.back().map_or(Time::ZERO, |packet| packet.sent_at);
                it.control.on_loss(it.in_flight, last, true, self.now);
                it.lost += it.in_flight;
                (it.in_flight, it.heard_at) = (0, self.now);
                it.outstanding.clear();
            }
            if self.paused_until().is_none() {
                self.send(flow);
            }
        }
        self.push(self.now + MILLI, Happens::Tick);
    }

    fn send(&mut self, flow: usize) {
        loop {
            let now = self.now;
            let it = &mut self.flows[flow];
            if it.starts > now {
                return;
            }
            it.limited = it.demand.is_some() && it.backlog < PACKET;
            let window = it.control.window();
            if it.limited || it.in_flight + PACKET >= window {
                return;
            }
            let trip = it.trip.as_secs_f64();
            let burst = (window as f64 * 0.002 / trip).clamp(10.0 * PACKET as f64, 256.0 * PACKET as f64);
            let fresh = window as f64 * 1.25 * now.since(it.refilled).as_secs_f64() / trip;
            it.tokens = (it.tokens + fresh).min(burst);
            it.refilled = now;
            if it.tokens < PACKET as f64 {
                // It wakes when the bucket is full, as quinn does, so packets leave in bursts.
                if it.wake_at == Time::MAX {
                    it.wake_at = now + Duration::from_secs_f64((burst - it.tokens) * trip / (window as f64 * 1.25));
                    let wake_at = it.wake_at;
                    self.push(wake_at, Happens::Wake { flow });
                }
                return;
            }
            it.tokens -= PACKET as f64;
            it.backlog = it.backlog.saturating_sub(PACKET);
            let number = it.numbers;
            it.numbers += 1;
            it.sent += PACKET;
            it.in_flight += PACKET;
            it.outstanding.push_back(Packet { number, sent_at: now, acked: false });
            if let bottleneck::Fate::Arrives(time) = self.line.offer(PACKET as usize, now) {
                // A line that replaced another does not overtake it.
                it.arrived_at = it.arrived_at.max(time);
                let time = it.arrived_at;
                self.push(time, Happens::Arrives { flow, number, sent_at: now });
            }
        }
    }

    fn on_arrival(&mut self, flow: usize, number: u64, sent_at: Time) {
        let it = &mut self.flows[flow];
        it.arrived.push((self.now, PACKET));
        it.pending.push((number, sent_at));
        if it.pending.len() >= 2 {
            self.send_ack(flow);
        } else {
            let pending_since = it.pending_since;
            self.push(self.now + MILLI * 25, Happens::DelayedAck { flow, pending_since });
        }
    }

    fn send_ack(&mut self, flow: usize) {
        let it = &mut self.flows[flow];
        it.pending_since += 1;
        let numbers = std::mem::take(&mut it.pending);
        self.push(self.now + self.back, Happens::Acks { flow, numbers });
    }

    fn on_acks(&mut self, flow: usize, numbers: &[(u64, Time)]) {
        let now = self.now;
        let jitter = self.jitter;
        let it = &mut self.flows[flow];
        it.heard_at = now;
        let mut largest = 0;
        for &(number, sent_at) in numbers {
            largest = number;
            it.trip = (it.trip * 7 + now.since(sent_at)) / 8;
            let Some(first) = it.outstanding.front().map(|packet| packet.number) else { continue };
            // Numbers in the list have no holes.
            let Some(packet) = number.checked_sub(first).and_then(|index| it.outstanding.get_mut(index as usize)) else { continue };
            if std::mem::replace(&mut packet.acked, true) {
                continue;
            }
            it.in_flight -= PACKET;
            let noise = jitter.mul_f64(unit(hash(&[number, 3])));
            let seen = Time::from_nanos(sent_at.as_nanos().saturating_sub(noise.as_nanos() as u64));
            it.control.on_ack(PACKET, seen, it.limited, now);
        }
        let (mut lost, mut last) = (0, Time::ZERO);
        while let Some(packet) = it.outstanding.front() {
            if !packet.acked {
                if packet.number + 3 > largest {
                    break;
                }
                lost += PACKET;
                last = packet.sent_at;
            }
            it.outstanding.pop_front();
        }
        if lost > 0 {
            it.in_flight -= lost;
            it.lost += lost;
            it.control.on_loss(lost, last, false, now);
        }
        self.send(flow);
    }

    /// Bytes in a second that arrived between two moments.
    fn rate(&self, flow: usize, from: f64, to: f64) -> f64 {
        let (from, to) = (at(from), at(to));
        let bytes: u64 = self.flows[flow].arrived.iter().filter(|(time, _)| (from..to).contains(time)).map(|(_, bytes)| bytes).sum();
        bytes as f64 / to.since(from).as_secs_f64()
    }

    fn share(&self, flow: usize, from: f64, to: f64) -> f64 {
        self.rate(flow, from, to) / self.config.bytes_per_second as f64
    }

    /// When it first carried 90 % of the line for 50 ms.
    fn filled_after(&self, from: f64) -> f64 {
        let line = self.config.bytes_per_second as f64;
        let step = 0.05;
        let arrived = &self.flows[0].arrived;
        let mut index = arrived.partition_point(|(time, _)| *time < at(from));
        for bin in 1.. {
            let end = from + f64::from(bin) * step;
            if end > self.now.as_secs_f64() {
                break;
            }
            let next = index + arrived[index..].partition_point(|(time, _)| *time < at(end));
            if (next - index) as f64 * PACKET as f64 / step >= 0.9 * line {
                return end - from;
            }
            index = next;
        }
        f64::INFINITY
    }

    fn outcome(&self, from: f64, to: f64) -> Outcome {
        let mut waits: Vec<Duration> =
            self.waits.iter().filter(|(time, _)| (at(from)..at(to)).contains(time)).map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        let part = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        let before = self.waits.iter().filter(|(time, _)| *time < at(from)).map(|(_, wait)| *wait);
        let ramp_wait_max = before.max().unwrap_or_default();
        let goodput = (0..self.flows.len()).map(|flow| self.share(flow, from, to)).sum();
        Outcome { goodput, wait_p50: part(0.5), wait_p99: part(0.99), wait_max: part(1.0), ramp_wait_max }
    }

    fn show(&self, name: &str, from: f64, to: f64) -> Outcome {
        let outcome = self.outcome(from, to);
        let (lost, sent) = self.flows.iter().fold((0, 0), |sum, flow| (sum.0 + flow.lost, sum.1 + flow.sent));
        println!(
            "{name:<44} goodput {:5.1} %  wait p50 {:5.1} p99 {:5.1} max {:5.1} ms  ramp: 90 % after {:4.2} s, wait max {:5.1} ms  lost {:4.2} %",
            outcome.goodput * 100.0,
            outcome.wait_p50.as_secs_f64() * 1e3,
            outcome.wait_p99.as_secs_f64() * 1e3,
            outcome.wait_max.as_secs_f64() * 1e3,
            self.filled_after(0.0),
            outcome.ramp_wait_max.as_secs_f64() * 1e3,
            lost as f64 / sent as f64 * 100.0,
        );
        if let Control::Governed(state) = &self.flows[0].control {
            println!("{:<44} {:?}", "", state.report());
        }
        outcome
    }
}

fn governed(target_ms: Option<u64>) -> Control {
    let config = Config { target: target_ms.map(|millis| MILLI * millis as u32), ..Config::default() };
    Control::Governed(Box::new(State::new(config.build().unwrap(), Time::ZERO)))
}

#[test]
fn lines_are_full_and_queues_are_short() {
    for (megabits, trip, queue, filled) in [(100, 20, 100, 0.2), (20, 50, 200, 0.25), (100, 100, 100, 0.8), (500, 5, 50, 0.15)] {
        // Without a target it is 3 ms at 20 ms, 7.5 ms at 50 ms, 10 ms at 100 ms and 5 ms at 5 ms.
        for target in [None, Some(if trip > 20 { 5 } else { 10 })] {
            // The fastest line is the slowest to simulate.
            let seconds = if megabits > 100 { 3.0 } else { 11.0 };
            let mut world = World::governed(megabits, trip, queue, 0.0, target);
            world.run(seconds);
            let outcome = world.show(&format!("{megabits} Mbit/s x {trip} ms x {queue} ms, target {target:?}"), 1.0, seconds);
            assert!(outcome.goodput >= 0.965, "{}", outcome.goodput);
            let aimed = target.map_or(world.state(0).report().target, |millis| MILLI * millis as u32);
            let after_ramp = if trip < 100 { 1.0 } else { 2.5 };
            let wait = world.outcome(after_ramp, seconds).wait_p99;
            assert!(wait <= aimed + MILLI * 3, "{wait:?} above {aimed:?}");
            assert!(world.filled_after(0.0) <= filled);
            // The start puts less than a round trip of queue before others.
            assert!(outcome.ramp_wait_max <= MILLI * (trip as u32 + 25), "{:?}", outcome.ramp_wait_max);
        }
    }
}

#[test]
fn random_loss_costs_little() {
    for (megabits, trip, queue) in [(100, 20, 100), (20, 50, 200), (100, 100, 100)] {
        for loss in [0.001, 0.01, 0.02] {
            let mut world = World::governed(megabits, trip, queue, loss, None);
            world.run(5.0);
            let outcome = world.show(&format!("{megabits} Mbit/s x {trip} ms, loss {loss}"), 1.0, 5.0);
            // What is lost behind the line has filled it.
            assert!(outcome.goodput >= if loss > 0.01 { 0.85 } else { 0.93 }, "{}", outcome.goodput);
            assert!(world.flows[0].lost > 0);
        }
    }
}

#[test]
fn heavy_loss_cuts_the_window_and_leaves_the_floor() {
    let mut world = World::governed(100, 20, 100, 0.3, None);
    world.run(3.0);
    let outcome = world.show("100 Mbit/s x 20 ms, loss 0.3", 1.0, 3.0);
    assert!((0.02..0.1).contains(&outcome.goodput), "{}", outcome.goodput);
    assert!(world.state(0).report().cuts > 0 && world.state(0).window() >= 16 * 1_024);
}

#[test]
fn a_queue_shorter_than_the_target_is_no_storm() {
    for (megabits, trip, queue, target) in
        [(100, 20, 1_500, None), (100, 20, 3_000, Some(10)), (100, 100, 2_000, None), (20, 50, 5_000, None), (20, 50, 10_000, Some(10))]
    {
        let mut world = World::new(megabits, trip, Duration::from_micros(queue), 0.0);
        world.add(governed(target), 0.0);
        world.run(6.0);
        let outcome = world.show(&format!("{megabits} Mbit/s x {trip} ms x {queue} us, target {target:?}"), 1.0, 6.0);
        assert!(outcome.goodput >= 0.8, "{}", outcome.goodput);
        let flow = &world.flows[0];
        assert!(flow.lost > 0 && flow.lost * 50 < flow.sent, "{} of {} lost", flow.lost, flow.sent);
    }
}

#[test]
fn the_rate_may_change() {
    let mut world = World::governed(100, 20, 100, 0.0, None);
    world.run(3.0);
    world.change(50, MILLI * 10);
    world.run(6.0);
    let outcome = world.show("100, then 50 Mbit/s", 3.5, 6.0);
    assert!(outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 10);
    world.change(200, MILLI * 10);
    world.run(8.0);
    let outcome = world.show("then 200 Mbit/s", 6.5, 8.0);
    println!("filled after {:.2} s", world.filled_after(6.0));
    assert!(world.filled_after(6.0) <= 0.4 && outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 10);
}

#[test]
fn the_route_may_change() {
    for (trip, more, within) in [(5, 30, 3.0), (20, 30, 3.0), (50, 30, 4.0), (20, 100, 8.0)] {
        let mut world = World::governed(50, trip, 100, 0.0, None);
        world.run(3.0);
        world.change(50, MILLI * (trip as u32 / 2 + more));
        world.run(3.4);
        assert!(world.share(0, 3.2, 3.4) < 0.9, "the longer way is felt");
        world.run(13.0);
        let outcome = world.show(&format!("{trip} ms, then {more} ms more"), 3.0 + within, 13.0);
        println!("filled after {:.2} s", world.filled_after(3.2));
        assert!(outcome.goodput >= 0.9 && world.filled_after(3.2) <= within, "{}", outcome.goodput);
        assert!(world.state(0).report().base >= MILLI * more);
        world.change(50, MILLI * trip as u32 / 2);
        world.run(16.0);
        let outcome = world.show("and back", 14.0, 16.0);
        assert!(outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 13);
    }
}

#[test]
fn governed_flows_share() {
    for (trip, late) in [(20, 0.0), (20, 0.5), (20, 3.0), (50, 3.0), (20, 7.0)] {
        let mut world = World::governed(50, trip, 100, 0.0, None);
        world.add(governed(None), late);
        world.run(20.0);
        let outcome = world.show(&format!("two, {trip} ms, the second after {late} s"), 12.0, 20.0);
        let (first, second) = (world.share(0, 12.0, 20.0), world.share(1, 12.0, 20.0));
        println!("{first:.2} and {second:.2}");
        assert!(first <= 2.0 * second && second <= 2.0 * first, "{first} and {second}");
        assert!(outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 15, "{:?}", outcome.wait_p99);
    }
}

#[test]
fn eight_that_come_one_after_the_other_find_the_empty_path_together() {
    let mut world = World::governed(100, 20, 100, 0.0, None);
    for flow in 1..8 {
        world.add(governed(None), f64::from(flow) * 0.3);
    }
    world.run(18.0);
    let outcome = world.show("eight", 11.0, 18.0);
    assert!(outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 9, "{:?}", outcome.wait_p99);
    for flow in 0..8 {
        assert!(world.share(flow, 15.0, 18.0) >= 0.06, "{}", world.share(flow, 15.0, 18.0));
        assert!(world.state(flow).report().base < MILLI * 21, "{:?}", world.state(flow).report());
    }
}

#[test]
fn a_flow_that_fills_every_queue_does_not_starve_it() {
    for (trip, queue) in [(20, 100), (50, 50)] {
        let mut world = World::governed(50, trip, queue, 0.0, None);
        world.add(Control::Reno { window: 12_000, threshold: u64::MAX, recovered: Time::ZERO }, 2.0);
        world.run(14.0);
        world.show(&format!("beside Reno, {trip} ms x {queue} ms"), 4.0, 14.0);
        let share = world.share(0, 4.0, 14.0);
        println!("{share:.3}");
        assert!((0.02..0.7).contains(&share), "{share}");
    }
}

#[test]
fn a_window_that_is_not_filled_does_not_grow() {
    let mut world = World::governed(100, 20, 100, 0.0, None);
    world.flows[0].demand = Some(1_000_000);
    world.run(12.0);
    world.show("1 MB/s wanted", 1.0, 12.0);
    assert!(world.state(0).window() <= 128 * 1_024, "{}", world.state(0).window());
    world.flows[0].demand = None;
    world.run(13.0);
    println!("filled after {:.2} s", world.filled_after(12.0));
    assert!(world.filled_after(12.0) <= 0.3);
    // One that was full, and is not any more, is not kept for ever.
    let full = world.state(0).window();
    world.flows[0].demand = Some(100_000);
    world.flows[0].backlog = 0;
    world.run(37.0);
    assert!(world.state(0).window() <= full / 3, "{} of {full}", world.state(0).window());
}

#[test]
fn noise_of_samples_costs_nothing() {
    for target in [None, Some(5)] {
        let mut world = World::governed(100, 20, 100, 0.0, target);
        world.jitter = MILLI * 3;
        world.run(5.0);
        let outcome = world.show(&format!("0 to 3 ms of noise, target {target:?}"), 1.0, 5.0);
        assert!(outcome.goodput >= 0.97 && outcome.wait_p99 <= MILLI * 8);
    }
}

/// The first packets of a burst after a pause find an empty queue. With the least queue of a round as its queue the window grew until bursts were several times the target.
#[test]
fn bursts_after_pauses_do_not_open_the_window() {
    for (every, pause) in [(6, 3), (10, 4)] {
        let mut world = World::governed(500, 5, 50, 0.0, None);
        world.pauses = Some((MILLI * every, MILLI * pause));
        world.run(4.0);
        let outcome = world.show(&format!("500 Mbit/s x 5 ms, {pause} ms of pause in {every} ms"), 1.0, 4.0);
        assert!(outcome.goodput >= 0.95 && outcome.wait_p99 < MILLI * 5, "{:?}", outcome.wait_p99);
    }
}

#[test]
fn a_local_network_has_a_coarse_target_and_a_capped_window() {
    let mut world = World::governed(100, 1, 200, 0.0, Some(2));
    world.run(3.0);
    let outcome = world.show("100 Mbit/s x 1 ms, target 2 ms", 1.0, 3.0);
    assert!(outcome.goodput >= 0.98 && outcome.wait_p50 > MILLI * 8 && outcome.wait_p99 < MILLI * 13);
    let mut world = World::governed(1_000, 1, 50, 0.0, None);
    world.run(0.6);
    let outcome = world.show("1 Gbit/s x 1 ms", 0.3, 0.6);
    assert!(outcome.goodput >= 0.98 && world.state(0).window() <= 1_024 * 1_024);
}

#[test]
fn no_order_of_times_and_no_number_breaks_it() {
    for seed in 0..300 {
        let mut draws = 0;
        let mut draw = |of: u64| {
            draws += 1;
            hash(&[seed, draws]) % of
        };
        let config = Config { window_min: 2_400, window_initial: 2_400 + draw(100_000), target: None, ..Config::default() };
        let mut state = State::new(config.build().unwrap(), Time::from_millis(draw(1_000)));
        let mut now = 0_u64;
        for _ in 0..400 {
            now += [0, 1, 1_000_000, 40_000_000, 30_000_000_000][draw(5) as usize];
            let times = [now, now.saturating_sub(draw(50_000_000)), draw(u64::MAX), 0, u64::MAX, now + 1];
            let sent_at = Time::from_nanos(times[draw(6) as usize]);
            let time = Time::from_nanos(if draw(20) == 0 { times[draw(6) as usize] } else { now });
            let bytes = [0, 1, 1_200, 1_200, 1_000_000, u64::MAX][draw(6) as usize];
            match draw(8) {
                0 => state.on_loss(bytes, sent_at, draw(10) == 0, time),
                1 => state.on_packet_bytes(bytes),
                _ => state.on_ack(bytes, sent_at, draw(3) == 0, time),
            }
            let report = state.report();
            assert!((2_400..=64 * 1_024 * 1_024).contains(&report.window), "{report:?}");
            assert!(report.target <= Duration::from_millis(12), "{report:?}");
        }
    }
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let field = |config: Config| config.build().unwrap_err().field;
    assert_eq!(Config::default().build().unwrap(), Params::default());
    assert_eq!(field(Config { target: Some(Duration::ZERO), ..Config::default() }), "target");
    assert_eq!(field(Config { lan_target: Duration::MAX, ..Config::default() }), "lan_target");
    assert_eq!(field(Config { lan_base: Duration::from_secs(1), ..Config::default() }), "lan_base");
    assert_eq!(field(Config { window_min: 0, ..Config::default() }), "window_min");
    assert_eq!(field(Config { window_initial: 1, ..Config::default() }), "window_initial");
    assert_eq!(field(Config { lan_window: u64::MAX, ..Config::default() }), "lan_window");
    assert_eq!(field(Config { window_max: u64::MAX, ..Config::default() }), "window_max");
}
