use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::*;
use crate::codec::{decode, encode};
use crate::random::{Generator, generator};

const ORDERED: ChannelId = ChannelId::COORDINATION;
const LOOSE: ChannelId = ChannelId::DATA;
const MIB: usize = 1_024 * 1_024;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn config(window: usize, lanes: u8) -> Config {
    let channel = |id, reliability| Channel { id, reliability, lanes, window_messages_max: window, window_bytes_max: 2 * MIB };
    Config { channels: vec![channel(LOOSE, Reliability::AtLeastOnce), channel(ORDERED, Reliability::Guaranteed)], ..Config::default() }
}

/// The invariants that cost too much for every input of a real node.
fn check(state: &State) {
    let params = &state.outgoing_params();
    let mut total = Held::default();
    for (index, channel) in state.outgoing.channels.iter().enumerate() {
        let spec = params.spec(u16::try_from(index).unwrap());
        let (mut kept, mut in_flight) = (Held::default(), Held::default());
        for lane in &channel.lanes {
            let slots: Vec<_> = lane.sent.iter().chain(&lane.waiting).collect();
            assert!(slots.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            assert!(slots.last().is_none_or(|slot| slot.sequence < lane.next));
            slots.iter().for_each(|slot| kept.add(slot.payload.len()));
            lane.sent.iter().take(lane.cursor).for_each(|slot| in_flight.add(slot.payload.len()));
            assert!(lane.cursor <= lane.sent.len());
            total.messages += slots.len();
            total.bytes += slots.iter().map(|slot| slot.payload.len()).sum::<usize>();
        }
        assert_eq!((channel.kept, channel.in_flight), (kept, in_flight));
        assert!(kept.messages <= spec.window_messages_max && kept.bytes <= spec.window_bytes_max);
    }
    assert_eq!(state.kept(), total);
    let mut untaken = Held::default();
    for channel in &state.incoming.channels {
        untaken.messages += channel.untaken.messages;
        untaken.bytes += channel.untaken.bytes;
        assert!(channel.untaken.messages <= params.config().untaken_messages_max);
        assert!(channel.lanes.len() <= usize::from(LANES_MAX));
        for lane in &channel.lanes {
            assert!(lane.missing.len() <= MISSING_RANGES_MAX);
            assert!(lane.missing.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(lane.missing.iter().all(|range| range.start < range.end && range.end <= lane.next));
        }
    }
    assert_eq!(state.untaken(), untaken);
    assert!(state.incoming.former.len() <= untaken.messages);
}

impl State {
    fn params_ids(&self) -> Vec<ChannelId> {
        self.outgoing.params.config().channels.iter().map(|channel| channel.id).collect()
    }

    fn outgoing_params(&self) -> Params {
        self.outgoing.params.clone()
    }
}

// ---- Two cores over a link that breaks -------------------------------------------------------------------------------------------------

/// A message by its sender's life, its lane and its number.
type Key = (u64, ChannelId, u8, Sequence);

enum Event {
    Arrive { to: usize, input: Input },
    Take { side: usize, life: u64, key: Key },
}

struct Side {
    core: State,
    incarnation: u64,
    /// What this side sent in any life, and the number of its life's end before it was known what became of it.
    accepted: BTreeSet<Key>,
    gone: BTreeSet<Key>,
    confirmed: BTreeMap<(u64, ChannelId, u8), Sequence>,
    /// What the application here got in this life, and took in any life.
    got: BTreeMap<(u64, ChannelId, u8), Vec<Sequence>>,
    got_set: BTreeSet<Key>,
    taken: BTreeSet<Key>,
    redelivered: u64,
}

#[derive(Clone)]
struct Plan {
    config: Config,
    latency: Duration,
    jitter: Duration,
    /// The longest time from delivering to taking.
    slowness: Duration,
    ttl: Option<Duration>,
    payload_max: usize,
    /// Messages tried in each millisecond and direction.
    rate: [u32; 2],
}

struct Sim {
    plan: Plan,
    rng: Generator,
    now: Time,
    sides: [Side; 2],
    events: BTreeMap<(Time, u64), Event>,
    order: u64,
    generation: u64,
    is_up: bool,
    /// When each stream delivers next, so that jitter keeps its order.
    streams: BTreeMap<(usize, Option<(ChannelId, u8)>), Time>,
    refused: u64,
    checks: u64,
}

impl Sim {
    fn new(plan: Plan, seed: u64) -> Self {
        let side = || Side {
            core: State::new(plan.config.clone().build().unwrap()),
            incarnation: 1,
            accepted: BTreeSet::new(),
            gone: BTreeSet::new(),
            confirmed: BTreeMap::new(),
            got: BTreeMap::new(),
            got_set: BTreeSet::new(),
            taken: BTreeSet::new(),
            redelivered: 0,
        };
        Sim {
            rng: generator(seed, "reliable", 0),
            now: Time::from_secs(1),
            sides: [side(), side()],
            plan,
            events: BTreeMap::new(),
            order: 0,
            generation: 0,
            is_up: false,
            streams: BTreeMap::new(),
            refused: 0,
            checks: 0,
        }
    }

    fn push(&mut self, time: Time, event: Event) {
        self.order += 1;
        self.events.insert((time, self.order), event);
    }

    fn connect(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.generation += 1;
            for side in 0..2 {
                let incarnation = self.sides[1 - side].incarnation;
                // The two ends do not see the link at the same moment, but none sees a message before it.
                self.input(side, Input::Connected { generation: self.generation, incarnation });
            }
        }
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.is_up) {
            self.events.retain(|_, event| matches!(event, Event::Take { .. }));
            self.streams.clear();
            for side in 0..2 {
                // Now and then an end sees only that the next link takes over.
                if self.rng.random_range(0..4) > 0 {
                    self.input(side, Input::Disconnected { generation: self.generation });
                }
            }
        }
    }

    /// The process of a side ends and starts anew. What its application had and did not take is gone, and so is what it had sent.
    fn restart(&mut self, side: usize) {
        self.cut();
        let dead = &mut self.sides[side];
        for key in &dead.accepted {
            let confirmed = dead.confirmed.get(&(key.0, key.1, key.2)).is_some_and(|confirmed| key.3 <= *confirmed);
            if !confirmed {
                dead.gone.insert(*key);
            }
        }
        dead.incarnation += 1;
        dead.core = State::new(self.plan.config.clone().build().unwrap());
        dead.got.clear();
        dead.got_set.clear();
    }

    fn input(&mut self, side: usize, input: Input) {
        let mut actions = Vec::new();
        self.sides[side].core.handle(input, self.now, &mut actions);
        self.carry_out(side, actions);
    }

    fn send(&mut self, side: usize) {
        let lanes = self.plan.config.channels[0].lanes;
        let channel = if self.rng.random() { ORDERED } else { LOOSE };
        let lane = self.rng.random_range(0..lanes);
        let payload = Bytes::from(vec![7; self.rng.random_range(0..=self.plan.payload_max)]);
        let ttl = self.plan.ttl.filter(|_| self.rng.random()).map(|ttl| self.now + ttl.mul_f64(self.rng.random_range(0.2..1.0)));
        let mut actions = Vec::new();
        let this = &mut self.sides[side];
        match this.core.send(channel, lane, payload, ttl, self.now, &mut actions) {
            Ok(sequence) => assert!(this.accepted.insert((this.incarnation, channel, lane, sequence)), "a number is given once"),
            Err(refused) => {
                assert!(matches!(refused.reason, Reason::ChannelFull | Reason::PeerFull), "{refused}");
                self.refused += 1;
            }
        }
        self.carry_out(side, actions);
    }

    fn carry_out(&mut self, side: usize, actions: Vec<Action>) {
        self.checks += 1;
        if self.checks.is_multiple_of(13) {
            check(&self.sides[side].core);
        }
        for action in actions {
            match action {
                Action::Transmit { channel, lane, sequence, payload } => {
                    let (sequence, payload) = decode_data(&frame_body(&encode_data(sequence, &payload))).unwrap();
                    let input = Input::Data { generation: self.generation, channel, lane, sequence, payload };
                    self.carry(1 - side, Some((channel, lane)), input);
                }
                Action::Send { on, message } => {
                    let message = decode(&encode(&message)).unwrap();
                    self.carry(1 - side, on, Input::Received { generation: self.generation, message });
                }
                Action::Deliver { channel, lane, sequence, sender_incarnation, .. } => {
                    let key = (sender_incarnation, channel, lane, sequence);
                    let this = &mut self.sides[side];
                    assert!(this.got_set.insert(key), "{key:?} was delivered twice in one life");
                    let got = this.got.entry((sender_incarnation, channel, lane)).or_default();
                    if channel == ORDERED {
                        assert!(got.last().is_none_or(|last| *last < sequence), "{key:?} was delivered after {:?}", got.last());
                    }
                    got.push(sequence);
                    this.redelivered += u64::from(this.taken.contains(&key));
                    let slowness = self.plan.slowness.mul_f64(self.rng.random_range(0.0..1.0));
                    let life = this.incarnation;
                    self.push(self.now + slowness, Event::Take { side, life, key });
                }
                Action::Delivered { channel, lane, sequence } => {
                    let [first, second] = &mut self.sides;
                    let (this, other) = if side == 0 { (first, second) } else { (second, first) };
                    let confirmed = this.confirmed.entry((this.incarnation, channel, lane)).or_default();
                    for sequence in *confirmed + 1..=sequence {
                        let key = (this.incarnation, channel, lane, sequence);
                        assert!(this.gone.contains(&key) || other.taken.contains(&key), "{key:?} was confirmed and never taken");
                    }
                    *confirmed = sequence;
                }
                Action::Expired { channel, lane, sequence } => {
                    let key = (self.sides[side].incarnation, channel, lane, sequence);
                    assert!(!self.sides[1 - side].got_set.contains(&key));
                    assert!(self.sides[side].gone.insert(key), "{key:?} expired twice");
                }
                Action::Undelivered { .. } => panic!("nobody was abandoned"),
                Action::Misbehaved(what) => panic!("an honest peer was accused of {what}"),
            }
        }
    }

    fn carry(&mut self, to: usize, stream: Option<(ChannelId, u8)>, input: Input) {
        if !self.is_up {
            return;
        }
        let jitter = self.plan.jitter.mul_f64(self.rng.random_range(0.0..1.0));
        let free = self.streams.entry((to, stream)).or_default();
        *free = (*free).max(self.now + self.plan.latency + jitter);
        let time = *free;
        self.push(time, Event::Arrive { to, input });
    }

    /// Lets time pass, with the applications sending or silent.
    fn pass(&mut self, duration: Duration, sending: bool) {
        let end = self.now + duration;
        let mut tick = self.now;
        while tick < end {
            tick = (tick + ms(1)).min(end);
            self.settle(tick);
            self.now = tick;
            for side in (0..2).filter(|_| sending) {
                for _ in 0..self.plan.rate[side] {
                    self.send(side);
                }
            }
        }
    }

    fn settle(&mut self, until: Time) {
        let mut idle = 0;
        loop {
            let event = self.events.first_key_value().map(|(key, _)| key.0);
            let deadlines = [0, 1].map(|side| self.sides[side].core.next_deadline());
            let next = [event, deadlines[0], deadlines[1]].into_iter().flatten().min().filter(|next| *next <= until);
            let Some(next) = next else { return };
            idle = if next > self.now { 0 } else { idle + 1 };
            assert!(idle < 100_000, "a deadline that is always due");
            self.now = self.now.max(next);
            if event == Some(next) {
                match self.events.pop_first().unwrap().1 {
                    Event::Arrive { to, input } => self.input(to, input),
                    Event::Take { side, life, key } if life == self.sides[side].incarnation => {
                        self.sides[side].taken.insert(key);
                        let (sender_incarnation, channel, lane, sequence) = key;
                        self.input(side, Input::Taken { sender_incarnation, channel, lane, sequence });
                    }
                    Event::Take { .. } => {}
                }
            } else {
                for (side, deadline) in deadlines.into_iter().enumerate() {
                    if deadline == Some(next) {
                        self.input(side, Input::DeadlineReached);
                    }
                }
            }
        }
    }

    /// A while of quiet, after which everything that was promised must be so.
    fn finish(&mut self) {
        self.connect();
        let mut waited = 0;
        while self.sides.iter().any(|side| side.core.kept().messages > 0) {
            self.pass(ms(100), false);
            waited += 1;
            assert!(waited < 2_000, "messages are stuck: {:?}", self.sides.each_ref().map(|side| side.core.kept()));
        }
        self.pass(self.plan.slowness + ms(100), false);
        for side in 0..2 {
            let (this, other) = (&self.sides[side], &self.sides[1 - side]);
            let lost = this.accepted.iter().filter(|key| !this.gone.contains(key) && !other.taken.contains(key)).count();
            assert_eq!(lost, 0, "messages were lost");
            assert_eq!(other.core.untaken(), Held::default());
            assert_eq!(this.core.counters().misbehaved, 0);
            check(&this.core);
        }
    }
}

/// The body of a whole frame.
fn frame_body(bytes: &Bytes) -> Bytes {
    let mut decoder = frame::Decoder::new(limits::FRAME_BYTES_MAX);
    decoder.push(bytes.clone());
    let frame = decoder.next().unwrap().unwrap();
    assert_eq!((frame.kind, decoder.next()), (KIND_DATA, Ok(None)));
    frame.body
}

fn plan() -> Plan {
    Plan { config: config(60, 3), latency: ms(5), jitter: ms(1), slowness: ms(4), ttl: None, payload_max: 40, rate: [1, 1] }
}

#[test]
fn ten_thousand_breaks_lose_nothing_and_repeat_nothing() {
    let mut sim = Sim::new(Plan { latency: ms(2), slowness: ms(3), ..plan() }, 1);
    const BREAKS: u32 = 10_000;
    let mut cut_in_flight = 0;
    for _ in 0..BREAKS {
        sim.connect();
        let up = ms(sim.rng.random_range(1..10));
        sim.pass(up, true);
        cut_in_flight += sim.events.values().filter(|event| matches!(event, Event::Arrive { .. })).count();
        sim.cut();
        if sim.rng.random_range(0..4) == 0 {
            sim.pass(ms(1), true);
        }
    }
    sim.finish();
    let counters = sim.sides.each_ref().map(|side| side.core.counters());
    let sum = |what: fn(&Counters) -> u64| counters.iter().map(what).sum::<u64>();
    println!(
        "{BREAKS} breaks, {cut_in_flight} frames lost with them; {} messages accepted, {} received, {} resent, {} duplicates dropped, {} acks",
        sum(|c| c.accepted),
        sum(|c| c.received),
        sum(|c| c.resent),
        sum(|c| c.duplicates),
        sum(|c| c.acks)
    );
    assert!(cut_in_flight > 10_000, "the breaks must hurt");
    assert_eq!(sum(|c| c.accepted), sum(|c| c.received));
    assert_eq!(sum(|c| c.accepted), sum(|c| c.delivered));
    assert!(sum(|c| c.accepted) > 50_000);
}

#[test]
fn a_hundred_random_worlds() {
    let (mut accepted, mut expired, mut refused, mut redelivered, mut dropped) = (0, 0, 0, 0, 0);
    for seed in 0..100 {
        let mut rng = generator(seed, "plan", 0);
        let window = rng.random_range(1..=1_000);
        let mut config = config(window, rng.random_range(1..=4));
        config.peer_messages_max = rng.random_range(1..=2 * window);
        config.in_flight_messages_max = rng.random_range(1..=window);
        config.in_flight_bytes_max = rng.random_range(1..=20_000);
        config.untaken_messages_max = rng.random_range(1..=window);
        config.untaken_peer_messages_max = rng.random_range(1..=2 * window);
        config.untaken_bytes_max = rng.random_range(1..=20_000);
        config.untaken_peer_bytes_max = rng.random_range(1..=40_000);
        config.ack_bytes = rng.random_range(1..=10_000);
        config.resume_wait = ms(rng.random_range(1..200));
        config.retransmit = ms(rng.random_range(20..1_000));
        let plan = Plan {
            config,
            latency: ms(rng.random_range(0..40)),
            jitter: ms(rng.random_range(0..10)),
            slowness: ms([0, 5, 50, 200][rng.random_range(0..4)]),
            ttl: rng.random::<bool>().then(|| ms(rng.random_range(1..100))),
            payload_max: [0, 10, 300][rng.random_range(0..3)],
            rate: [rng.random_range(1..=3), rng.random_range(0..=1)],
        };
        let mut sim = Sim::new(plan, seed);
        let mut restarts = 0;
        for _ in 0..20 {
            sim.connect();
            let up = ms(rng.random_range(1..60));
            sim.pass(up, true);
            match rng.random_range(0..10) {
                0 => sim.restart(0),
                1 => sim.restart(1),
                _ => {}
            }
            restarts = sim.sides[0].incarnation + sim.sides[1].incarnation - 2;
            sim.cut();
            let down = ms(rng.random_range(0..40));
            sim.pass(down, true);
        }
        sim.finish();
        if restarts == 0 {
            assert_eq!(sim.sides[0].redelivered + sim.sides[1].redelivered, 0);
        }
        for side in &sim.sides {
            let counters = side.core.counters();
            accepted += side.accepted.len();
            expired += counters.expired;
            redelivered += side.redelivered;
            dropped += counters.dropped;
        }
        refused += sim.refused;
    }
    println!(
        "100 worlds: {accepted} accepted, {expired} expired, {refused} refused, {dropped} dropped for want of room, {redelivered} again to a new life"
    );
    assert!(accepted > 10_000 && expired > 0 && refused > 0 && redelivered > 0 && dropped > 0);
}

// ---- Cores by hand ---------------------------------------------------------------------------------------------------------------------

fn core(config: Config) -> State {
    State::new(config.build().unwrap())
}

fn handle(state: &mut State, input: Input, now: Time) -> Vec<Action> {
    let mut actions = Vec::new();
    state.handle(input, now, &mut actions);
    check(state);
    actions
}

fn send(state: &mut State, channel: ChannelId, ttl: Option<Time>, now: Time) -> Vec<Action> {
    let mut actions = Vec::new();
    state.send(channel, 0, Bytes::from_static(b"hello"), ttl, now, &mut actions).unwrap();
    check(state);
    actions
}

fn connected(generation: u64, incarnation: u64) -> Input {
    Input::Connected { generation, incarnation }
}

fn data(generation: u64, channel: ChannelId, sequence: Sequence) -> Input {
    Input::Data { generation, channel, lane: 0, sequence, payload: Bytes::from_static(b"hello") }
}

fn taken(incarnation: u64, channel: ChannelId, sequence: Sequence) -> Input {
    Input::Taken { sender_incarnation: incarnation, channel, lane: 0, sequence }
}

fn position(channel: ChannelId, next: Sequence) -> Position {
    Position { channel, lane: 0, next }
}

fn ack_message(channel: ChannelId, next: Sequence) -> Message {
    Message::Ack(Bounded::first_of([position(channel, next)]))
}

fn resume_message(positions: &[Position], last: bool) -> Message {
    Message::Resume { positions: Bounded::first_of(positions.iter().copied()), last }
}

fn skip_message(channel: ChannelId, from: Sequence, to: Sequence) -> Message {
    Message::Skip { channel, lane: 0, from, to }
}

fn received(generation: u64, message: Message) -> Input {
    Input::Received { generation, message }
}

fn say(message: Message) -> Action {
    Action::Send { on: None, message }
}

fn transmitted(actions: &[Action]) -> Vec<Sequence> {
    actions.iter().filter_map(|action| if let Action::Transmit { sequence, .. } = action { Some(*sequence) } else { None }).collect()
}

fn delivered(actions: &[Action]) -> Vec<(u64, Sequence)> {
    let what = |action: &Action| match action {
        Action::Deliver { sequence, sender_incarnation, .. } => Some((*sender_incarnation, *sequence)),
        _ => None,
    };
    actions.iter().filter_map(what).collect()
}

fn faults(actions: &[Action]) -> Vec<Misbehavior> {
    actions.iter().filter_map(|action| if let Action::Misbehaved(what) = action { Some(*what) } else { None }).collect()
}

/// A sender with `count` messages on the wire of link 1.
fn sender_with(count: u64, channel: ChannelId) -> State {
    let mut state = core(config(100, 1));
    handle(&mut state, connected(1, 1), at(0));
    for sequence in 1..=count {
        assert_eq!(transmitted(&send(&mut state, channel, None, at(0))), [sequence]);
    }
    state
}

#[test]
fn golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&encode_data(1, b"abc")), "054001616263");
    assert_eq!(hex(&encode_data(300, b"")), "0340ac02");
    assert_eq!(hex(&encode_data(u64::MAX, b"a")), "0c40ffffffffffffffffff0161");
    assert_eq!(hex(&encode(&ack_message(LOOSE, 300))), "00010200ac02");
    assert_eq!(hex(&encode(&resume_message(&[position(ORDERED, 5), position(LOOSE, 6)], true))), "010201000502000601");
    assert_eq!(hex(&encode(&resume_message(&[], false))), "010000");
    assert_eq!(hex(&encode(&skip_message(ChannelId(300), 1, 128))), "02ac0200018001");
    for message in [ack_message(LOOSE, 1), resume_message(&[position(LOOSE, u64::MAX)], false), skip_message(ORDERED, 1, 2)] {
        assert_eq!(decode::<Message>(&encode(&message)), Ok(message));
    }
    assert_eq!(decode_data(&Bytes::from_static(&[0x80])), Err(DecodeError::Truncated));
    assert_eq!(decode_data(&Bytes::from_static(&[0x80, 0x00])), Err(DecodeError::Invalid));
    assert_eq!(decode_data(&Bytes::from_static(&[0xff; 11])), Err(DecodeError::TooLong));
    assert_eq!(decode_data(&Bytes::from_static(&[7])), Ok((7, Bytes::new())));
    let crowd: Vec<Position> = (0..=POSITIONS_MAX as u64).map(|next| position(LOOSE, next)).collect();
    let mut bytes = vec![0, 0x81, 0x08];
    crowd.iter().for_each(|position| bytes.extend_from_slice(&encode(position)));
    assert_eq!(decode::<Message>(&bytes), Err(DecodeError::TooLong));
}

#[test]
fn a_config_that_cannot_work_is_refused_by_name() {
    let field = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.build().unwrap_err().field
    };
    assert!(Config::default().build().is_ok());
    assert_eq!(Params::default().channel(LOOSE).unwrap().lanes, 5);
    assert_eq!(Params::default().channel(ChannelId::GOSSIP), None);
    assert_eq!(field(|config| config.channels[1].id = ORDERED), "channels.id");
    assert_eq!(field(|config| config.channels[0].lanes = 17), "channels.lanes");
    assert_eq!(field(|config| config.channels[0].lanes = 0), "channels.lanes");
    assert_eq!(field(|config| config.channels[0].window_bytes_max = 5), "channels.window_bytes_max");
    assert_eq!(field(|config| config.channels[0].window_messages_max = 0), "channels.window_messages_max");
    assert_eq!(field(|config| config.peer_bytes_max = 5), "peer_bytes_max");
    assert_eq!(field(|config| config.ack_bytes = 0), "ack_bytes");
    assert_eq!(field(|config| config.ack_delay = Duration::ZERO), "ack_delay");
    assert_eq!(field(|config| config.retransmit_max = ms(1)), "retransmit_max");
    assert_eq!(field(|config| config.channels = vec![config.channels[0]; 1_025]), "channels");
}

#[test]
fn what_is_on_the_wire_fits_the_queues_of_the_sender() {
    let config = Config::default();
    let queues = crate::sender::Params::default();
    for channel in &config.channels {
        let queue = queues.channel(channel.id).unwrap();
        let overhead = frame::OVERHEAD_BYTES_MAX + 10;
        let bytes = config.in_flight_bytes_max + limits::MESSAGE_BYTES_MAX + config.in_flight_messages_max * overhead;
        assert!(config.in_flight_messages_max < queue.queued_frames_max && bytes <= queue.queued_bytes_max, "{channel:?}");
    }
}

#[test]
fn an_application_that_never_takes_costs_a_window_and_no_more() {
    let mut config = config(50, 1);
    config.in_flight_messages_max = 20;
    let (mut left, mut right) = (core(config.clone()), core(config));
    handle(&mut left, connected(1, 1), at(0));
    handle(&mut right, connected(1, 1), at(0));
    let mut refused = 0;
    for millis in 0..5_000 {
        let mut actions = Vec::new();
        if let Err(error) = left.send(ORDERED, 0, Bytes::from(vec![1; 100]), None, at(millis), &mut actions) {
            assert_eq!((error.reason, error.payload.len()), (Reason::ChannelFull, 100));
            refused += 1;
        }
        left.handle(Input::DeadlineReached, at(millis), &mut actions);
        for action in actions {
            if let Action::Transmit { channel, lane, sequence, payload } = action {
                handle(&mut right, Input::Data { generation: 1, channel, lane, sequence, payload }, at(millis));
            }
        }
        check(&left);
    }
    assert_eq!(left.kept(), Held { messages: 50, bytes: 5_000 });
    assert_eq!(left.kept_on(ORDERED), left.kept());
    assert_eq!(right.untaken(), Held { messages: 20, bytes: 2_000 });
    assert_eq!((refused, left.counters().refused, left.counters().transmitted), (4_950, 4_950, 20));
    assert_eq!(left.counters().high, Held { messages: 50, bytes: 5_000 });
}

#[test]
fn what_cannot_be_sent_is_given_back() {
    let mut config = config(10, 2);
    config.peer_bytes_max = MIB;
    let mut state = core(config);
    let mut reason = |channel, lane, len| {
        state.send(channel, lane, Bytes::from(vec![0; len]), None, at(0), &mut Vec::new()).map_err(|refused| refused.reason)
    };
    assert_eq!(reason(ChannelId::GOSSIP, 0, 1), Err(Reason::UnknownLane));
    assert_eq!(reason(ChannelId(u16::MAX), 0, 1), Err(Reason::UnknownLane));
    assert_eq!(reason(ORDERED, 2, 1), Err(Reason::UnknownLane));
    assert_eq!(reason(ORDERED, 0, MIB + 1), Err(Reason::TooLarge));
    assert_eq!(reason(ORDERED, 0, MIB), Ok(1));
    assert_eq!(reason(LOOSE, 0, 1), Err(Reason::PeerFull));
    assert_eq!(reason(LOOSE, 0, 0), Ok(1));
}

#[test]
fn acknowledgments_leave_at_once_after_quiet_and_then_every_25_ms_or_64_kib() {
    let mut state = core(config(100, 1));
    handle(&mut state, connected(1, 1), at(0));
    for sequence in 1..=8 {
        let payload = Bytes::from(vec![0; 30_000]);
        handle(&mut state, Input::Data { generation: 1, channel: ORDERED, lane: 0, sequence, payload }, at(50));
    }
    assert_eq!(handle(&mut state, taken(1, ORDERED, 1), at(100)), [say(ack_message(ORDERED, 2))]);
    assert_eq!(handle(&mut state, taken(1, ORDERED, 2), at(101)), []);
    assert_eq!(state.next_deadline(), Some(at(125)));
    assert_eq!(handle(&mut state, taken(1, ORDERED, 4), at(102)), []);
    assert_eq!(handle(&mut state, Input::DeadlineReached, at(125)), [say(ack_message(ORDERED, 3))]);
    // What was taken out of turn is acknowledged with the one before it. 60,000 bytes are not enough, the next are.
    assert_eq!(handle(&mut state, taken(1, ORDERED, 5), at(126)), []);
    assert_eq!(handle(&mut state, taken(1, ORDERED, 3), at(127)), []);
    assert_eq!(handle(&mut state, taken(1, ORDERED, 6), at(128)), [say(ack_message(ORDERED, 7))]);
    assert_eq!(handle(&mut state, taken(1, ORDERED, 6), at(200)), []);
    assert_eq!(state.next_deadline(), None);
}

#[test]
fn a_full_window_waits_for_a_delay_and_a_round_trip_at_most() {
    let mut plan = Plan { slowness: Duration::ZERO, jitter: Duration::ZERO, rate: [20, 0], latency: ms(5), ..plan() };
    plan.config = config(1, 1);
    let mut sim = Sim::new(plan, 1);
    sim.connect();
    sim.pass(Duration::from_secs(1), true);
    // Two channels with a window of one message: each goes round in 35 ms at most, and in a millisecond more until the next try.
    let delivered = sim.sides[0].core.counters().delivered;
    assert!(delivered >= 2 * (1_000 / 36), "{delivered}");
    sim.finish();
}

#[test]
fn a_message_costs_no_allocation_of_its_own() {
    let (mut left, mut right) = (core(config(1_000, 2)), core(config(1_000, 2)));
    let (mut ours, mut theirs) = (Vec::with_capacity(100), Vec::with_capacity(100));
    left.handle(connected(1, 1), at(0), &mut ours);
    right.handle(connected(1, 1), at(0), &mut theirs);
    let payload = Bytes::from_static(b"hello");
    let mut exchange = |messages: u64, from: u64| {
        for step in from..from + messages {
            let now = Time::from_micros(step * 100);
            left.send(ORDERED, (step % 2) as u8, payload.clone(), None, now, &mut ours).unwrap();
            for action in ours.drain(..) {
                if let Action::Transmit { channel, lane, sequence, payload } = action {
                    right.handle(Input::Data { generation: 1, channel, lane, sequence, payload }, now, &mut theirs);
                    right.handle(Input::Taken { sender_incarnation: 1, channel, lane, sequence }, now, &mut theirs);
                }
            }
            right.handle(Input::DeadlineReached, now, &mut theirs);
            for action in theirs.drain(..) {
                if let Action::Send { message, .. } = action {
                    left.handle(Input::Received { generation: 1, message }, now, &mut ours);
                }
            }
        }
        (left.counters().delivered, right.counters().acks)
    };
    exchange(1_000, 0);
    // 1,000 messages in 100 ms. What is allocated belongs to the few acknowledgments.
    let info = allocation_counter::measure(|| {
        exchange(1_000, 1_000);
    });
    assert!(info.count_total < 60, "{}", info.count_total);
    let (delivered, acks) = exchange(0, 0);
    assert!(delivered > 1_500 && acks < 20, "{delivered} {acks}");
}

#[test]
fn a_receiver_that_dies_before_it_acknowledges_gets_it_again() {
    let mut sender = sender_with(3, ORDERED);
    let mut receiver = core(config(100, 1));
    handle(&mut receiver, connected(1, 7), at(0));
    for sequence in 1..=3 {
        assert_eq!(delivered(&handle(&mut receiver, data(1, ORDERED, sequence), at(1))), [(7, sequence)]);
    }
    // It took the first, and the acknowledgment is lost with the link. A life that goes on tells that, and where to go on.
    handle(&mut receiver, taken(7, ORDERED, 1), at(26));
    let told = handle(&mut receiver, connected(2, 7), at(100));
    assert_eq!(told, [say(ack_message(ORDERED, 2)), say(resume_message(&[position(ORDERED, 4)], true))]);
    let mut same_life = sender.clone();
    assert_eq!(transmitted(&handle(&mut same_life, connected(2, 1), at(100))), []);
    let actions = handle(&mut same_life, received(2, ack_message(ORDERED, 2)), at(105));
    assert_eq!(actions, [Action::Delivered { channel: ORDERED, lane: 0, sequence: 1 }]);
    assert_eq!(handle(&mut same_life, received(2, resume_message(&[position(ORDERED, 4)], true)), at(105)), []);
    assert_eq!(same_life.kept().messages, 2);
    // Resent all the same, nothing is delivered twice.
    assert_eq!(delivered(&handle(&mut receiver, data(2, ORDERED, 2), at(110))), []);
    assert_eq!(receiver.counters().duplicates, 1);

    // A new life has nothing: it gets all that was not acknowledged, at once and under the same numbers.
    let mut reborn = core(config(100, 1));
    assert_eq!(handle(&mut reborn, connected(1, 7), at(200)), [say(resume_message(&[], true))]);
    handle(&mut sender, received(1, ack_message(ORDERED, 2)), at(199));
    let actions = handle(&mut sender, connected(2, 2), at(200));
    assert_eq!(transmitted(&actions), [2, 3]);
    assert!(actions.contains(&Action::Send { on: Some((ORDERED, 0)), message: skip_message(ORDERED, 1, 2) }));
    assert_eq!(handle(&mut reborn, received(1, skip_message(ORDERED, 1, 2)), at(205)), []);
    assert_eq!(delivered(&handle(&mut reborn, data(1, ORDERED, 2), at(205))), [(7, 2)]);
    assert_eq!(delivered(&handle(&mut reborn, data(1, ORDERED, 3), at(205))), [(7, 3)]);
}

#[test]
fn a_sender_that_starts_anew_begins_anew_and_its_old_messages_still_count() {
    let mut config = config(100, 1);
    config.untaken_messages_max = 4;
    let mut receiver = core(config);
    handle(&mut receiver, connected(1, 7), at(0));
    for sequence in 1..=3 {
        handle(&mut receiver, data(1, ORDERED, sequence), at(1));
    }
    assert_eq!(handle(&mut receiver, connected(2, 8), at(10)), [say(resume_message(&[], true))]);
    assert_eq!(delivered(&handle(&mut receiver, data(2, ORDERED, 1), at(11))), [(8, 1)]);
    // However often a peer starts anew, the application is not handed more than it may hold.
    assert_eq!(delivered(&handle(&mut receiver, data(2, ORDERED, 2), at(11))), []);
    for life in 9..200 {
        handle(&mut receiver, connected(life, life), at(life));
        assert_eq!(delivered(&handle(&mut receiver, data(life, ORDERED, 1), at(life))), []);
    }
    assert_eq!(receiver.untaken().messages, 4);
    // A link of an earlier life, or an earlier link, is nothing any more.
    assert_eq!(handle(&mut receiver, connected(500, 8), at(500)), []);
    assert_eq!(handle(&mut receiver, connected(8, 199), at(500)), []);
    // The old ones can be taken, each once; only numbers of the present life are acknowledged. With half of the room free, it asks again.
    assert_eq!(handle(&mut receiver, taken(7, ORDERED, 2), at(600)), []);
    assert_eq!(handle(&mut receiver, taken(7, ORDERED, 2), at(601)), []);
    assert_eq!(handle(&mut receiver, taken(7, ORDERED, 1), at(602)), []);
    assert_eq!(handle(&mut receiver, taken(8, ORDERED, 1), at(603)), [say(resume_message(&[position(ORDERED, 1)], false))]);
    assert_eq!(receiver.untaken().messages, 1);
    assert_eq!(delivered(&handle(&mut receiver, data(199, ORDERED, 1), at(604))), [(199, 1)]);
    assert_eq!(receiver.counters().misbehaved, 0);
}

#[test]
fn what_was_not_asked_for_in_time_is_sent_all_the_same() {
    let mut state = sender_with(2, ORDERED);
    handle(&mut state, Input::Disconnected { generation: 1 }, at(5));
    assert_eq!(transmitted(&send(&mut state, ORDERED, None, at(6))), []);
    assert_eq!(transmitted(&handle(&mut state, connected(2, 1), at(10))), []);
    assert_eq!(state.next_deadline(), Some(at(1_010)));
    assert_eq!(transmitted(&handle(&mut state, Input::DeadlineReached, at(1_010))), [1, 2, 3]);
    // The answer that comes after all costs a resend, and loses nothing.
    assert_eq!(transmitted(&handle(&mut state, received(2, resume_message(&[position(ORDERED, 3)], true)), at(1_020))), [3]);
}

#[test]
fn a_message_whose_time_is_over_leaves_a_gap_that_is_told() {
    let mut state = sender_with(1, ORDERED);
    handle(&mut state, Input::Disconnected { generation: 1 }, at(5));
    send(&mut state, ORDERED, Some(at(30)), at(10));
    send(&mut state, ORDERED, None, at(10));
    send(&mut state, ORDERED, Some(at(20)), at(10));
    assert_eq!(state.next_deadline(), Some(at(20)));
    let expired = |sequence| Action::Expired { channel: ORDERED, lane: 0, sequence };
    assert_eq!(handle(&mut state, Input::DeadlineReached, at(20)), [expired(4)]);
    assert_eq!(handle(&mut state, Input::DeadlineReached, at(30)), [expired(2)]);
    assert_eq!((state.kept().messages, state.counters().expired, state.next_deadline()), (2, 2, None));
    send(&mut state, ORDERED, Some(at(35)), at(31));
    // What was on the wire is kept, whatever its time was; what was not is not sent late, even if nobody looked since.
    handle(&mut state, connected(2, 1), at(40));
    let actions = handle(&mut state, received(2, resume_message(&[position(ORDERED, 2)], true)), at(50));
    assert_eq!(transmitted(&actions), [3]);
    assert!(actions.contains(&Action::Send { on: Some((ORDERED, 0)), message: skip_message(ORDERED, 2, 3) }));
    assert!(actions.contains(&expired(5)));
    let actions = send(&mut state, ORDERED, None, at(51));
    assert_eq!(actions[0], Action::Send { on: Some((ORDERED, 0)), message: skip_message(ORDERED, 4, 6) });
    assert_eq!(transmitted(&actions), [6]);
}

#[test]
fn a_peer_that_is_gone_for_good_gives_everything_back() {
    let mut state = sender_with(2, ORDERED);
    handle(&mut state, Input::Disconnected { generation: 1 }, at(5));
    send(&mut state, ORDERED, None, at(6));
    let mut actions = Vec::new();
    state.abandon(&mut actions);
    let undelivered = |sequence, transmitted| {
        let payload = Bytes::from_static(b"hello");
        Action::Undelivered { channel: ORDERED, lane: 0, sequence, payload, transmitted }
    };
    assert_eq!(actions, [undelivered(1, true), undelivered(2, true), undelivered(3, false)]);
    assert_eq!((state.kept(), state.counters().undelivered), (Held::default(), 3));
    check(&state);
    // It may come back after all, and then misses nothing but those.
    handle(&mut state, connected(2, 1), at(10));
    handle(&mut state, received(2, resume_message(&[position(ORDERED, 2)], true)), at(11));
    let actions = send(&mut state, ORDERED, None, at(12));
    assert_eq!(actions[0], Action::Send { on: Some((ORDERED, 0)), message: skip_message(ORDERED, 2, 4) });
    assert_eq!(transmitted(&actions), [4]);
}

#[test]
fn a_channel_that_the_peer_does_not_have_gives_back_its_own_messages_only() {
    let defined = ChannelId::named("orders");
    let mut config = config(10, 1);
    config.channels.push(Channel { id: defined, ..config.channels[0] });
    let mut state = core(config);
    assert_eq!(state.outgoing_params().channel(defined).map(|channel| channel.id), Some(defined));
    assert_eq!(state.outgoing_params().channel(ChannelId::named("nothing")), None);
    handle(&mut state, connected(1, 1), at(0));
    send(&mut state, ORDERED, None, at(0));
    send(&mut state, defined, None, at(0));
    let mut actions = Vec::new();
    state.abandon_on(ChannelId::named("nothing"), &mut actions);
    assert!(actions.is_empty());
    state.abandon_on(defined, &mut actions);
    assert!(
        matches!(&actions[..], [Action::Undelivered { channel, sequence: 1, transmitted: true, .. }] if *channel == defined),
        "{actions:?}"
    );
    check(&state);
    assert_eq!((state.kept().messages, state.kept_on(ORDERED).messages), (1, 1));
    // A later life of the peer has it: it is told of the gap.
    handle(&mut state, connected(2, 2), at(100));
    let told = send(&mut state, defined, None, at(100));
    assert!(told.contains(&Action::Send { on: Some((defined, 0)), message: skip_message(defined, 1, 2) }), "{told:?}");
    assert_eq!(transmitted(&told), [2]);
}

#[test]
fn at_least_once_is_sent_again_while_connected_and_guaranteed_is_not() {
    let mut state = sender_with(3, LOOSE);
    send(&mut state, ORDERED, None, at(0));
    let mut resent = Vec::new();
    while let Some(due) = state.next_deadline().filter(|due| *due < at(100_000)) {
        resent.extend(transmitted(&handle(&mut state, Input::DeadlineReached, due)).into_iter().map(|sequence| (due, sequence)));
    }
    let seconds: Vec<u64> = resent.iter().map(|(due, _)| due.as_nanos() / 1_000_000_000).collect();
    assert_eq!(seconds, [1, 3, 7, 15, 31, 63, 95]);
    assert!(resent.iter().all(|(_, sequence)| *sequence == 1));
    // Once it is known that it was missing, the next one that is old does not wait.
    handle(&mut state, received(1, ack_message(LOOSE, 2)), at(100_000));
    assert_eq!(transmitted(&handle(&mut state, Input::DeadlineReached, at(100_000))), [2]);
    handle(&mut state, received(1, ack_message(LOOSE, 4)), at(100_010));
    assert_eq!(transmitted(&handle(&mut state, Input::DeadlineReached, at(200_000))), []);
    assert_eq!((state.next_deadline(), state.kept().messages), (None, 1));
}

#[test]
fn at_least_once_takes_what_comes_out_of_turn_and_drops_what_it_has() {
    let mut state = core(config(100, 1));
    handle(&mut state, connected(1, 1), at(0));
    let mut got = Vec::new();
    for sequence in [3, 1, 3, 1, 6, 2, 2, 5, 6] {
        got.extend(delivered(&handle(&mut state, data(1, LOOSE, sequence), at(1))).into_iter().map(|(_, sequence)| sequence));
    }
    assert_eq!(got, [3, 1, 6, 2, 5]);
    for sequence in [6, 5, 3, 1, 2] {
        handle(&mut state, taken(1, LOOSE, sequence), at(2));
    }
    assert_eq!(handle(&mut state, Input::DeadlineReached, at(50)), [say(ack_message(LOOSE, 4))]);
    // The fourth will never come, and nothing else will be taken: what waited for it is acknowledged.
    assert_eq!(handle(&mut state, received(1, skip_message(LOOSE, 4, 5)), at(100)), [say(ack_message(LOOSE, 7))]);
    assert_eq!((state.counters().duplicates, state.counters().misbehaved), (4, 0));
}

#[test]
fn false_acknowledgments_change_nothing() {
    let mut state = sender_with(3, ORDERED);
    let mut fault = |message| faults(&handle(&mut state, received(1, message), at(1)));
    assert_eq!(fault(ack_message(ORDERED, 5)), [Misbehavior::SequenceAhead]);
    assert_eq!(fault(ack_message(ORDERED, u64::MAX)), [Misbehavior::SequenceAhead]);
    assert_eq!(fault(ack_message(ORDERED, 0)), [Misbehavior::SequenceBehind]);
    assert_eq!(fault(ack_message(ORDERED, 3)), []);
    assert_eq!(fault(ack_message(ORDERED, 3)), []);
    assert_eq!(fault(ack_message(ORDERED, 2)), [Misbehavior::SequenceBehind]);
    assert_eq!(fault(resume_message(&[position(ORDERED, 2)], false)), [Misbehavior::SequenceBehind]);
    assert_eq!(fault(resume_message(&[position(ORDERED, 5)], false)), [Misbehavior::SequenceAhead]);
    // Lanes that were never used, that do not exist, and channels without such promises.
    assert_eq!(fault(ack_message(LOOSE, 1)), [Misbehavior::Unasked]);
    assert_eq!(fault(resume_message(&[Position { channel: ORDERED, lane: 1, next: 1 }], false)), [Misbehavior::Unasked]);
    assert_eq!(fault(ack_message(ChannelId::GOSSIP, 1)), [Misbehavior::Unasked]);
    assert_eq!(fault(ack_message(ChannelId(u16::MAX), 1)), [Misbehavior::Unasked]);
    assert_eq!((state.kept().messages, state.counters().misbehaved), (1, 10));
}

#[test]
fn a_peer_that_asks_again_and_again_is_served_once_in_a_while() {
    let mut state = sender_with(100, ORDERED);
    let mut resent = 0;
    let mut too_many = 0;
    for micros in 0..10_000 {
        let now = Time::from_micros(micros * 100);
        for input in [received(1, resume_message(&[position(ORDERED, 1)], true)), Input::DeadlineReached] {
            let mut actions = Vec::new();
            state.handle(input, now, &mut actions);
            resent += transmitted(&actions).len();
            too_many += faults(&actions).iter().filter(|what| **what == Misbehavior::TooManyRequests).count();
        }
    }
    check(&state);
    // One second: at most one resend of the window in each 25 ms.
    assert!((100..=41 * 100).contains(&resent), "{resent}");
    assert!(too_many > 9_000, "{too_many}");
}

#[test]
fn jumps_and_floods_are_faults_that_a_lane_survives() {
    let mut state = core(config(100, 1));
    handle(&mut state, connected(1, 1), at(0));
    let wrong = |lane, channel| Input::Data { generation: 1, channel, lane, sequence: 1, payload: Bytes::new() };
    assert_eq!(faults(&handle(&mut state, wrong(0, ChannelId::GOSSIP), at(1))), [Misbehavior::WrongChannel]);
    for lane in LANES_MAX..=u8::MAX {
        assert_eq!(faults(&handle(&mut state, wrong(lane, ORDERED), at(1))), [Misbehavior::WrongChannel]);
    }
    let invalid = Misbehavior::Undecodable(DecodeError::Invalid);
    for (from, to) in [(0, 5), (5, 5), (6, 5), (u64::MAX, 0)] {
        assert_eq!(faults(&handle(&mut state, received(1, skip_message(ORDERED, from, to)), at(1))), [invalid]);
    }
    // Jumps: one fault for each gap, and the lane asks to go on from where it stands.
    let actions = handle(&mut state, data(1, ORDERED, 2), at(100));
    assert_eq!(actions, [Action::Misbehaved(Misbehavior::SequenceAhead), say(resume_message(&[position(ORDERED, 1)], false))]);
    assert_eq!(handle(&mut state, data(1, ORDERED, u64::MAX - 1), at(100)), []);
    assert_eq!(faults(&handle(&mut state, data(1, ORDERED, u64::MAX), at(100))), [Misbehavior::SequenceAhead]);
    assert_eq!(delivered(&handle(&mut state, data(1, ORDERED, 1), at(101))), [(1, 1)]);
    assert_eq!(faults(&handle(&mut state, received(1, skip_message(ORDERED, 9, 10)), at(102))), [Misbehavior::SequenceAhead]);
    assert_eq!(faults(&handle(&mut state, data(1, LOOSE, AHEAD_MAX + 2), at(102))), [Misbehavior::SequenceAhead]);
    // Every other message: no more gaps than are remembered.
    let delivered_of = (1..1_000).filter(|step| !delivered(&handle(&mut state, data(1, LOOSE, step * 2), at(103))).is_empty()).count();
    assert_eq!(delivered_of, MISSING_RANGES_MAX);
    // Stale links, and floods of duplicates: one answer in 25 ms.
    assert_eq!(handle(&mut state, data(9, ORDERED, 2), at(104)), []);
    let acks = state.counters().acks;
    for micros in 0..2_000 {
        handle(&mut state, data(1, ORDERED, 1), Time::from_micros(200_000 + micros * 100));
        handle(&mut state, Input::DeadlineReached, Time::from_micros(200_000 + micros * 100));
    }
    assert!(state.counters().acks - acks <= 9);
    assert_eq!(state.counters().stale, 1);
}

#[test]
fn numbers_end_without_wrapping() {
    let mut state = sender_with(1, ORDERED);
    assert_eq!(state.params_ids(), [ORDERED, LOOSE]);
    state.outgoing.channels[0].lanes.iter_mut().for_each(|lane| lane.next = u64::MAX - 1);
    let actions = send(&mut state, ORDERED, None, at(1));
    assert_eq!(transmitted(&actions), [u64::MAX - 1]);
    let refused = state.send(ORDERED, 0, Bytes::new(), None, at(1), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted);
    let last = handle(&mut state, received(1, ack_message(ORDERED, u64::MAX)), at(2));
    assert_eq!(last, [Action::Delivered { channel: ORDERED, lane: 0, sequence: u64::MAX - 1 }]);

    let mut receiver = core(config(10, 1));
    handle(&mut receiver, connected(1, 1), at(0));
    for channel in [ORDERED, LOOSE] {
        handle(&mut receiver, received(1, skip_message(channel, 1, u64::MAX - 1)), at(1));
        assert_eq!(delivered(&handle(&mut receiver, data(1, channel, u64::MAX - 1), at(1))), [(1, u64::MAX - 1)]);
        for sequence in [u64::MAX, u64::MAX - 1, u64::MAX] {
            assert_eq!(delivered(&handle(&mut receiver, data(1, channel, sequence), at(1))), []);
        }
        handle(&mut receiver, received(1, skip_message(channel, u64::MAX - 1, u64::MAX)), at(1));
        handle(&mut receiver, taken(1, channel, u64::MAX - 1), at(1));
        assert_eq!(receiver.untaken().messages, 0);
    }
}

#[test]
fn noise_from_a_peer_breaks_no_bound() {
    for seed in 0..30 {
        let mut rng = generator(seed, "noise", 0);
        let mut config = config(20, 2);
        config.untaken_messages_max = 30;
        let mut state = core(config);
        let mut now = Time::ZERO;
        let mut generation = 0;
        let mut handed = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            now += Duration::from_micros(rng.random_range(0..10_000));
            let number = |rng: &mut Generator| match rng.random_range(0..10) {
                0 => rng.random(),
                1 => u64::MAX - rng.random_range(0..3),
                _ => rng.random_range(0..60),
            };
            let channel = [ORDERED, LOOSE, LOOSE, ChannelId(9)][rng.random_range(0..4)];
            let lane = rng.random_range(0..5_u8) / 2;
            let (from, to) = (number(&mut rng), number(&mut rng));
            let positions = Bounded::first_of([Position { channel, lane, next: from }, Position { channel, lane: 0, next: to }]);
            let mut actions = Vec::new();
            let input = match rng.random_range(0..12) {
                0 => {
                    generation += rng.random_range(0..2);
                    connected(generation, 1 + generation / 8)
                }
                1 => Input::Disconnected { generation },
                2 | 3 => received(generation, Message::Ack(positions)),
                4 => received(generation, Message::Resume { positions, last: rng.random() }),
                5 => {
                    received(generation, Message::Skip { channel, lane, from, to: if rng.random() { from.saturating_add(2) } else { to } })
                }
                6 if !handed.is_empty() => {
                    let (sender_incarnation, channel, lane, sequence) = handed.swap_remove(rng.random_range(0..handed.len()));
                    Input::Taken { sender_incarnation, channel, lane, sequence }
                }
                7 => {
                    let _ =
                        state.send(channel, lane, Bytes::from_static(b"x"), rng.random::<bool>().then_some(now + ms(9)), now, &mut actions);
                    Input::DeadlineReached
                }
                _ => Input::Data { generation, channel, lane, sequence: from, payload: Bytes::from_static(b"abc") },
            };
            state.handle(input, now, &mut actions);
            check(&state);
            assert!(actions.len() < 200);
            for action in actions {
                if let Action::Deliver { channel, lane, sequence, sender_incarnation, .. } = action {
                    let key = (sender_incarnation, channel, lane, sequence);
                    assert!(seen.insert(key), "{key:?} was delivered twice");
                    handed.push(key);
                }
            }
            assert_eq!(state.untaken().messages, handed.len());
        }
    }
}
