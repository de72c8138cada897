use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 7_000))
}

/// One core and the time it lives in.
#[derive(Clone)]
struct Core {
    state: State,
    now: Time,
    said: Vec<Action>,
}

impl Core {
    fn new(config: Config) -> Self {
        Core { state: State::new(peer(5), config.build().unwrap(), 1), now: Time::from_secs(1_000), said: Vec::new() }
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.state.handle(input, self.now, &mut actions);
        self.check();
        self.said.extend(actions.iter().cloned());
        actions
    }

    fn want(&mut self, who: Option<u8>, at: u16, keep: bool) -> Vec<Action> {
        self.input(Input::Want { peer: who.map(peer), address: address(at), keep })
    }

    fn connected(&mut self, connection: u64, who: u8, incarnation: u64, at: u16, direction: Direction) -> Vec<Action> {
        let connection = ConnectionId(connection);
        self.input(Input::Connected { connection, peer: peer(who), incarnation, address: address(at), direction })
    }

    fn disconnected(&mut self, connection: u64, who: u8) -> Vec<Action> {
        self.input(Input::Disconnected { connection: ConnectionId(connection), peer: peer(who) })
    }

    fn failed(&mut self, at: u16, reason: DialFailure) -> Vec<Action> {
        self.input(Input::Failed { address: address(at), reason })
    }

    /// Lets time pass, deadline by deadline; returns what was said when.
    fn pass(&mut self, duration: Duration) -> Vec<(Time, Action)> {
        let end = self.now + duration;
        let mut said = Vec::new();
        let mut steps = 0;
        while let Some(at) = self.state.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            said.extend(self.input(Input::DeadlineReached).into_iter().map(|action| (self.now, action)));
            steps += 1;
            assert!(steps < 100_000, "a deadline that is always due");
        }
        self.now = end;
        said
    }

    /// Passes time, failing every dial as soon as it is made; returns when dials were made.
    fn pass_failing(&mut self, duration: Duration, reason: DialFailure) -> Vec<Time> {
        let end = self.now + duration;
        let mut dials = Vec::new();
        let mut open: Vec<SocketAddr> =
            self.state.targets.iter().filter(|(_, target)| target.phase == Phase::Dialing).map(|(at, _)| *at).collect();
        loop {
            while let Some(address) = open.pop() {
                let actions = self.input(Input::Failed { address, reason });
                open.extend(dialed(&actions));
                dials.extend(dialed(&actions).map(|_| self.now));
            }
            let Some(at) = self.state.next_deadline().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let actions = self.input(Input::DeadlineReached);
            open.extend(dialed(&actions));
            dials.extend(dialed(&actions).map(|_| self.now));
        }
        self.now = end;
        dials
    }

    /// The invariants that cost too much for `State::check`.
    fn check(&self) {
        let state = &self.state;
        assert_eq!(state.in_flight, state.targets.values().filter(|target| target.phase == Phase::Dialing).count());
        let evictable: BTreeSet<_> =
            state.targets.iter().filter(|(_, target)| !target.keep).map(|(at, target)| (target.wanted, *at)).collect();
        assert_eq!(state.evictable, evictable);
        for (at, target) in &state.targets {
            let timer = state.timers.get(&Key::Target(*at)).is_some();
            match target.phase {
                Phase::Idle if target.keep => assert!(state.is_satisfied(at), "a kept address is left alone only while its peer is up"),
                Phase::Idle | Phase::Waiting | Phase::Dialing | Phase::Blocked => assert!(timer, "{target:?} waits for nothing"),
                Phase::Due(since) => assert!(state.due.contains(&(!target.keep, since, *at)) && !timer),
            }
        }
        assert_eq!(state.due.len(), state.targets.values().filter(|target| matches!(target.phase, Phase::Due(_))).count());
        assert!(state.due.is_empty() || state.in_flight == state.config.in_flight_max || state.timers.get(&Key::Rate).is_some());
        for (peer, links) in &state.peers {
            assert!(links.all.len() <= LINKS_MAX);
            assert!(links.all.iter().any(|link| link.connection == links.current));
            for link in &links.all {
                let lingers = state.timers.get(&Key::Linger(link.connection, *peer)).is_some();
                assert_eq!(lingers, link.connection != links.current, "all but one connection end");
            }
        }
    }
}

fn dialed(actions: &[Action]) -> impl Iterator<Item = SocketAddr> {
    actions.iter().filter_map(|action| if let Action::Dial { address, .. } = action { Some(*address) } else { None })
}

fn dial(at: u16, expected: Option<u8>) -> Action {
    Action::Dial { address: address(at), expected: expected.map(peer) }
}

fn gave_up(at: u16, who: Option<u8>) -> Action {
    Action::GaveUp { peer: who.map(peer), address: address(at) }
}

fn up(who: u8, connection: u64) -> Action {
    Action::Up { peer: peer(who), connection: ConnectionId(connection) }
}

fn down(who: u8) -> Action {
    Action::Down { peer: peer(who) }
}

fn close(connection: u64, code: CloseReason) -> Action {
    Action::Close { connection: ConnectionId(connection), code }
}

fn replaced(who: u8, from: u64, to: u64) -> Action {
    Action::Replaced { peer: peer(who), from: ConnectionId(from), to: ConnectionId(to) }
}

use Direction::{Inbound, Outbound};

#[test]
fn a_want_is_dialed_at_once_and_once() {
    let mut core = Core::new(Config::default());
    assert_eq!(core.want(Some(7), 1, false), [dial(1, Some(7))]);
    assert_eq!(core.want(Some(7), 1, false), []);
    assert!(core.state.is_dialing(address(1)) && core.state.is_pending(address(1)));
    assert_eq!(core.connected(1, 7, 0, 1, Outbound), [up(7, 1)]);
    assert!(!core.state.is_dialing(address(1)) && !core.state.is_pending(address(1)));
    assert_eq!(core.state.connection_of(&peer(7)), Some(ConnectionId(1)));
    assert_eq!(core.state.peers().collect::<Vec<_>>(), [peer(7)]);
    // There already, by this address or another.
    assert_eq!(core.want(Some(7), 1, false), []);
    assert_eq!(core.want(Some(7), 2, false), []);
    assert_eq!(core.want(None, 1, false), []);
    assert_eq!(core.disconnected(1, 7), [down(7)]);
    assert_eq!(core.state.connection_of(&peer(7)), None);
    // Nobody asked to keep it.
    assert_eq!(core.pass(SECOND * 600), []);
    assert_eq!(core.state.addresses(), 0);
}

#[test]
fn tries_are_bounded_unless_the_address_is_kept() {
    let mut core = Core::new(Config::default());
    core.want(Some(7), 1, false);
    assert_eq!(core.pass_failing(SECOND * 600, DialFailure::TimedOut).len(), 4);
    assert_eq!(core.said.iter().filter(|action| **action == gave_up(1, Some(7))).count(), 1);
    assert_eq!(core.state.addresses(), 0);

    core.want(None, 2, true);
    let dials = core.pass_failing(SECOND * 3_600, DialFailure::Refused);
    // At most every 30 s, at a random part of them: 15 s on average.
    assert!((150..400).contains(&dials.len()), "{} dials in an hour", dials.len());
    assert!(core.state.is_pending(address(2)));
    core.input(Input::Forget { address: address(2) });
    assert_eq!(core.pass(SECOND * 600), []);
    assert_eq!(core.state.addresses(), 0);
}

#[test]
fn delays_double_and_are_drawn_in_full() {
    let mut longest = [Duration::ZERO; 9];
    for seed in 0..200 {
        let mut core = Core::new(Config::default());
        core.state.rng = random::generator(seed, "dial", 0);
        core.want(None, 1, true);
        for longest in &mut longest {
            core.failed(1, DialFailure::Broken);
            let before = core.now;
            let after = core.state.next_deadline().unwrap_or(before);
            *longest = (*longest).max(after - before);
            core.pass(after - before);
            core.now = before;
            core.state.paid_until = Time::ZERO;
        }
    }
    for (tries, longest) in longest.into_iter().enumerate() {
        let most = Duration::from_millis(250 << tries).min(SECOND * 30);
        assert!(longest <= most && longest > most.mul_f64(0.9), "after {tries}: {longest:?} of {most:?}");
    }
}

#[test]
fn a_lost_peer_is_dialed_again_only_at_kept_addresses() {
    let mut core = Core::new(Config::default());
    core.want(None, 1, true);
    core.connected(1, 7, 0, 1, Outbound);
    assert_eq!(core.pass(SECOND * 3_600), []);
    assert_eq!(core.disconnected(1, 7), [down(7)]);
    let said = core.pass(Duration::from_millis(250));
    assert_eq!(said.into_iter().map(|(_, action)| action).collect::<Vec<_>>(), [dial(1, None)]);
    // It comes back by its own dial: ours, in flight, may fail and nothing is left to do.
    assert_eq!(core.connected(2, 7, 0, 900, Inbound), [up(7, 2)]);
    assert_eq!(core.failed(1, DialFailure::TimedOut), []);
    assert_eq!(core.pass(SECOND * 3_600), []);
    assert_eq!(core.disconnected(2, 7), [down(7)]);
    assert_eq!(core.pass(SECOND).len(), 1);
}

#[test]
fn an_address_that_flaps_is_dialed_ever_more_slowly() {
    for keep in [true, false] {
        let mut core = Core::new(Config::default());
        let mut dials = Vec::new();
        let mut connection = 0;
        let end = core.now + SECOND * 600;
        while core.now < end {
            // Somebody insists on it.
            let mut actions = core.want(Some(7), 1, keep);
            actions.extend(core.pass(Duration::from_millis(100)).into_iter().map(|(_, action)| action));
            for address in dialed(&actions).collect::<Vec<_>>() {
                connection += 1;
                dials.push(core.now);
                assert_eq!(address, self::address(1));
                assert_eq!(core.connected(connection, 7, 0, 1, Outbound), [up(7, connection)]);
                assert_eq!(core.disconnected(connection, 7), [down(7)]);
            }
        }
        assert!((15..100).contains(&dials.len()), "{} dials in ten minutes", dials.len());
        // One that lives makes the next delay short again.
        core.pass(SECOND * 31);
        core.want(Some(7), 1, keep);
        core.connected(9_999, 7, 0, 1, Outbound);
        core.pass(SECOND * 15);
        core.disconnected(9_999, 7);
        let before = core.now;
        core.want(Some(7), 1, keep);
        while !core.state.is_dialing(address(1)) {
            let next = core.state.next_deadline().unwrap();
            core.pass(next - core.now);
        }
        assert!(core.now - before <= Duration::from_millis(250));
    }
}

#[test]
fn dials_are_bounded_in_flight_and_in_time() {
    let mut core = Core::new(Config::default());
    let mut dials = 0;
    for at in 0..200 {
        dials += core.want(None, at, false).len();
    }
    assert_eq!(dials, 20, "the burst");
    let said = core.pass(SECOND * 4);
    assert_eq!(said.len(), 40, "ten in a second");
    assert_eq!(core.pass(SECOND).len(), 4, "64 in flight");
    assert_eq!(core.state.in_flight(), 64);
    assert_eq!(core.pass(SECOND * 5), [], "no more until one ends");
    assert_eq!(core.failed(3, DialFailure::Refused).len(), 1);
    // A driver that never answers holds nothing for ever.
    let dials = core.pass(SECOND * 3_600).into_iter().filter(|(_, action)| matches!(action, Action::Dial { .. })).count();
    assert!(dials > 600, "{dials}");
    assert_eq!((core.state.in_flight(), core.state.addresses()), (0, 0));
}

#[test]
fn kept_addresses_go_first() {
    let mut core = Core::new(Config { burst: 1, ..Config::default() });
    for at in 0..100 {
        core.want(None, at, false);
    }
    core.want(None, 500, true);
    core.want(None, 40, true);
    let said: Vec<_> = core.pass(SECOND / 5).into_iter().map(|(_, action)| action).collect();
    assert_eq!(said, [dial(40, None), dial(500, None)], "the one that is due longer goes first");
}

#[test]
fn ourselves_and_strangers_are_left_alone_for_minutes() {
    for reason in [DialFailure::Myself, DialFailure::WrongCluster, DialFailure::NotAdmitted] {
        let mut core = Core::new(Config::default());
        core.want(Some(7), 1, false);
        core.want(None, 2, true);
        assert_eq!(core.failed(1, reason), [gave_up(1, Some(7))]);
        assert_eq!(core.failed(2, reason), []);
        assert_eq!(core.want(Some(8), 1, false), [gave_up(1, Some(8))]);
        assert_eq!(core.want(None, 2, true), []);
        assert_eq!(core.pass(SECOND * 299), []);
        let said: Vec<_> = core.pass(SECOND).into_iter().map(|(_, action)| action).collect();
        assert_eq!(said, [dial(2, None)]);
        assert_eq!(core.want(Some(8), 1, false), [dial(1, Some(8))]);
    }
}

#[test]
fn a_connection_to_ourselves_is_closed_at_both_ends() {
    let mut core = Core::new(Config::default());
    core.want(None, 1, false);
    assert_eq!(core.connected(1, 5, 0, 1, Outbound), [gave_up(1, None), close(1, CloseReason::Myself)]);
    assert_eq!(core.connected(2, 5, 0, 77, Inbound), [close(2, CloseReason::Myself)]);
    assert_eq!(core.want(None, 1, false), [gave_up(1, None)]);
    assert_eq!(core.want(Some(5), 9, true), [gave_up(9, Some(5))]);
    assert_eq!(core.state.peers().count(), 0);
}

#[test]
fn somebody_else_at_the_address_ends_the_want_and_may_stay() {
    let mut core = Core::new(Config::default());
    core.want(Some(7), 1, false);
    assert_eq!(core.failed(1, DialFailure::NotExpected), [gave_up(1, Some(7))]);
    core.want(Some(7), 2, false);
    assert_eq!(core.connected(1, 8, 0, 2, Outbound), [gave_up(2, Some(7)), up(8, 1)]);
}

#[test]
fn addresses_that_no_host_has_are_not_dialed() {
    let mut core = Core::new(Config::default());
    for text in ["10.0.0.1:0", "0.0.0.0:7000", "[::]:7000", "224.0.0.251:5353", "[ff02::fb]:5353", "255.255.255.255:7000"] {
        let address = text.parse().unwrap();
        assert_eq!(core.input(Input::Want { peer: None, address, keep: true }), [Action::GaveUp { peer: None, address }], "{text}");
    }
    // Two ways to write one address are one.
    assert_eq!(core.want(None, 1, false).len(), 1);
    assert_eq!(core.input(Input::Want { peer: None, address: "[::ffff:10.0.0.1]:7000".parse().unwrap(), keep: false }), []);
    assert_eq!(core.state.addresses(), 1);
}

#[test]
fn a_flood_of_wants_is_bounded_and_spares_the_kept() {
    let mut core = Core::new(Config { addresses_max: 50, in_flight_max: 4, ..Config::default() });
    for at in 0..3 {
        core.want(Some(7), 60_000 + at, true);
    }
    for at in 0..5_000 {
        core.want(Some(9), at, false);
        assert!(core.state.addresses() <= 50);
    }
    assert!((0..3).all(|at| core.state.is_pending(address(60_000 + at))));
    assert!(core.state.is_pending(address(4_999)), "the latest are there");
    let gave_up = core.said.iter().filter(|action| matches!(action, Action::GaveUp { .. })).count();
    assert_eq!(gave_up, 5_003 - 50, "whoever had to make room is named");
    // A table full of kept ones takes no more.
    for at in 0..60 {
        core.want(None, 30_000 + at, true);
    }
    assert_eq!(core.state.addresses(), 50);
    assert_eq!(core.want(Some(1), 40_000, true), [self::gave_up(40_000, Some(1))]);
}

#[test]
fn a_restarted_peer_goes_down_and_up() {
    let mut core = Core::new(Config::default());
    core.connected(1, 7, 10, 1, Inbound);
    assert_eq!(core.connected(2, 7, 11, 1, Inbound), [down(7), close(1, CloseReason::Restarted), up(7, 2)]);
    assert_eq!(core.disconnected(1, 7), [], "closed before");
    // A late connection of the process that is gone.
    assert_eq!(core.connected(3, 7, 10, 1, Inbound), [close(3, CloseReason::Outdated)]);
    assert_eq!(core.state.connection_of(&peer(7)), Some(ConnectionId(2)));
    assert_eq!(core.disconnected(3, 7), []);
    assert_eq!(core.disconnected(2, 7), [down(7)]);
    // With nothing left to compare, any incarnation will do: clocks may have been set back.
    assert_eq!(core.connected(4, 7, 3, 1, Inbound), [up(7, 4)]);
}

#[test]
fn a_crossed_dial_moves_at_once_and_closes_late() {
    // We are 5: larger than 3, so its dial stays.
    let mut core = Core::new(Config::default());
    core.connected(1, 3, 0, 1, Outbound);
    assert_eq!(core.connected(2, 3, 0, 900, Inbound), [replaced(3, 1, 2)]);
    assert_eq!(core.pass(SECOND / 2), []);
    let said: Vec<_> = core.pass(SECOND).into_iter().map(|(_, action)| action).collect();
    assert_eq!(said, [close(1, CloseReason::Replaced)]);
    // Smaller than 7, so ours stays, whichever came first.
    core.connected(3, 7, 0, 901, Inbound);
    assert_eq!(core.connected(4, 7, 0, 2, Outbound), [replaced(7, 3, 4)]);
    core.connected(5, 8, 0, 3, Outbound);
    assert_eq!(core.connected(6, 8, 0, 902, Inbound), []);
    let closed: Vec<_> = core.pass(SECOND).into_iter().map(|(_, action)| action).collect();
    assert_eq!(closed, [close(3, CloseReason::Replaced), close(6, CloseReason::Replaced)]);
    // The winner dies while the loser lingers: back to the loser, which stays.
    core.connected(7, 9, 0, 903, Inbound);
    core.connected(8, 9, 0, 4, Outbound);
    assert_eq!(core.disconnected(8, 9), [replaced(9, 8, 7)]);
    assert_eq!(core.pass(SECOND * 60), []);
}

#[test]
fn many_connections_of_one_peer_are_bounded() {
    let mut core = Core::new(Config::default());
    for connection in 0..1_000 {
        core.connected(connection, 7, 0, 900, Inbound);
    }
    assert_eq!(core.said.iter().filter(|action| matches!(action, Action::Close { .. })).count(), 1_000 - LINKS_MAX);
    assert_eq!(core.state.connection_of(&peer(7)), Some(ConnectionId(999)));
    assert_eq!(core.pass(SECOND * 5).len(), LINKS_MAX - 1);
    // The same number twice is the same connection.
    assert_eq!(core.connected(999, 7, 0, 900, Inbound), []);
}

/// Two cores and the connections between them, explored over every order of what each end sees.
#[derive(Clone)]
struct Pair {
    cores: [Core; 2],
    /// Who dialed each connection; its number is its index.
    dialers: Vec<usize>,
    /// What each end was not told yet.
    connects: Vec<(usize, u64)>,
    disconnects: Vec<(usize, u64)>,
}

impl Pair {
    const NAMES: [u8; 2] = [3, 5];

    fn new(dialers: &[usize]) -> Self {
        let cores = [0, 1].map(|end| {
            let state = State::new(peer(Self::NAMES[end]), Params::default(), end as u64);
            Core { state, now: Time::from_secs(1), said: Vec::new() }
        });
        let connects = (0..dialers.len() as u64).flat_map(|connection| [(0, connection), (1, connection)]).collect();
        Pair { cores, dialers: dialers.to_vec(), connects, disconnects: Vec::new() }
    }

    fn tell(&mut self, end: usize, input: Input) {
        for action in self.cores[end].input(input) {
            if let Action::Close { connection, .. } = action {
                let index = self.disconnects.iter().position(|pending| *pending == (end, connection.0));
                match index {
                    // Both ends closed it.
                    Some(index) => drop(self.disconnects.remove(index)),
                    None => self.disconnects.push((1 - end, connection.0)),
                }
            }
        }
    }

    fn explore(self, ends: &mut usize) {
        for (index, (end, connection)) in self.connects.iter().copied().enumerate() {
            let mut next = self.clone();
            next.connects.remove(index);
            let direction = if self.dialers[connection as usize] == end { Outbound } else { Inbound };
            let (connection, peer) = (ConnectionId(connection), peer(Self::NAMES[1 - end]));
            next.tell(end, Input::Connected { connection, peer, incarnation: 1, address: address(1), direction });
            next.explore(ends);
        }
        for (index, (end, connection)) in self.disconnects.iter().copied().enumerate() {
            let mut next = self.clone();
            next.disconnects.remove(index);
            next.tell(end, Input::Disconnected { connection: ConnectionId(connection), peer: peer(Self::NAMES[1 - end]) });
            next.explore(ends);
        }
        if !self.connects.is_empty() {
            // Handshakes take less than the linger.
            return;
        }
        let first = self.cores.iter().filter_map(|core| core.state.next_deadline()).min();
        let mut last = self.disconnects.is_empty();
        for end in [0, 1] {
            // The ends' clocks tick together, and a close takes less than the longer linger.
            let due = self.cores[end].state.next_deadline().filter(|at| Some(*at) == first);
            let Some(at) = due.filter(|at| self.disconnects.is_empty() || *at <= Time::from_secs(2)) else { continue };
            last = false;
            let mut next = self.clone();
            next.cores.iter_mut().for_each(|core| core.now = at);
            next.tell(end, Input::DeadlineReached);
            next.explore(ends);
        }
        if last {
            *ends += 1;
            let kept = [0, 1].map(|end| self.cores[end].state.connection_of(&peer(Self::NAMES[1 - end])));
            assert_eq!(kept[0], kept[1], "the ends keep different connections");
            assert!(kept[0].is_some(), "no connection is left");
            for core in &self.cores {
                assert!(!core.said.iter().any(|action| matches!(action, Action::Down { .. })), "the peer was lost in between");
                assert!(core.state.peers.values().all(|links| links.all.len() == 1), "connections are left over");
            }
        }
    }
}

#[test]
fn both_ends_keep_one_and_the_same_connection_in_every_order() {
    // Which end dials which connection: crossed dials, double dials, and both at once.
    for dialers in [&[0, 1][..], &[0, 0], &[1, 1], &[0, 0, 1], &[0, 1, 1]] {
        let mut ends = 0;
        Pair::new(dialers).explore(&mut ends);
        assert!(ends >= 24, "{dialers:?}: {ends} orders");
    }
}

#[test]
fn odd_params_are_refused_or_work() {
    let field = |config: Config| config.build().map(|_| ()).map_err(|error| error.field);
    assert_eq!(field(Config::default()), Ok(()));
    assert_eq!(field(Config { tries_max: 0, ..Config::default() }), Err("tries_max"));
    assert_eq!(field(Config { in_flight_max: 0, ..Config::default() }), Err("in_flight_max"));
    assert_eq!(field(Config { per_second: 0, ..Config::default() }), Err("per_second"));
    assert_eq!(field(Config { burst: 0, ..Config::default() }), Err("burst"));
    assert_eq!(field(Config { addresses_max: 0, ..Config::default() }), Err("addresses_max"));
    assert_eq!(field(Config { backoff_min: Duration::ZERO, ..Config::default() }), Err("backoff_min"));
    assert_eq!(field(Config { backoff_max: Duration::from_millis(1), ..Config::default() }), Err("backoff_max"));
    assert_eq!(field(Config { dial_timeout: Duration::ZERO, ..Config::default() }), Err("dial_timeout"));

    let tiny = Config {
        backoff_min: Duration::from_nanos(1),
        backoff_max: Duration::from_nanos(1),
        tries_max: 1,
        settled_after: Duration::ZERO,
        in_flight_max: 1,
        per_second: 1,
        burst: 1,
        dial_timeout: Duration::from_nanos(1),
        blocked_for: Duration::ZERO,
        linger: Duration::ZERO,
        addresses_max: 1,
    };
    let huge = Config {
        backoff_min: Duration::MAX,
        backoff_max: Duration::MAX,
        tries_max: u32::MAX,
        settled_after: Duration::MAX,
        in_flight_max: usize::MAX,
        per_second: u32::MAX,
        burst: u32::MAX,
        dial_timeout: Duration::MAX,
        blocked_for: Duration::MAX,
        linger: Duration::MAX,
        addresses_max: usize::MAX,
    };
    for config in [tiny, huge, Config::default(), Config { addresses_max: 5, in_flight_max: 2, ..Config::default() }] {
        for seed in 0..20 {
            random_use(config.clone(), seed);
        }
    }
}

/// Any inputs in any order break no invariant, and peers go up and down in turns.
fn random_use(config: Config, seed: u64) {
    let mut rng = random::generator(seed, "dial test", 0);
    let mut core = Core::new(config);
    let mut connections: Vec<(u64, u8)> = Vec::new();
    for step in 0..400 {
        let (at, who) = (rng.random_range(0..12), rng.random_range(0..9_u8));
        match rng.random_range(0..10) {
            0..3 => drop(core.want((who < 7).then_some(who), at, rng.random_range(0..4) == 0)),
            3..5 => {
                connections.push((step, who));
                let direction = if rng.random() { Inbound } else { Outbound };
                core.connected(step, who, rng.random_range(0..3), at, direction);
            }
            5 => {
                if !connections.is_empty() {
                    let (connection, who) = connections.swap_remove(rng.random_range(0..connections.len()));
                    core.disconnected(connection, who);
                }
            }
            6..8 => {
                let reasons = [DialFailure::TimedOut, DialFailure::NotExpected, DialFailure::Myself, DialFailure::Broken];
                core.failed(at, reasons[rng.random_range(0..4)]);
            }
            8 => drop(core.input(Input::Forget { address: address(at) })),
            _ => {
                core.now += Duration::from_millis(rng.random_range(0..3_000));
                core.input(Input::DeadlineReached);
            }
        }
    }
    let mut sends: BTreeMap<PeerId, ConnectionId> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    for action in &core.said {
        match action {
            Action::Up { peer, connection } => assert_eq!(sends.insert(*peer, *connection), None),
            Action::Replaced { peer, from, to } => assert_eq!(sends.insert(*peer, *to), Some(*from)),
            Action::Down { peer } => assert!(sends.remove(peer).is_some()),
            Action::Close { connection, .. } => assert!(closed.insert(*connection), "closed twice"),
            Action::Dial { .. } | Action::GaveUp { .. } => {}
        }
    }
    assert!(sends.iter().all(|(peer, connection)| core.state.connection_of(peer) == Some(*connection)));
    assert_eq!(sends.len(), core.state.peers().count());
}

#[test]
fn an_end_that_nobody_needed_to_avoid_is_no_failure() {
    for (unneeded, dialed_at_once) in [(false, false), (true, true)] {
        let mut core = Core::new(Config::default());
        for round in 0..6 {
            // A connection that lives for a second, again and again.
            core.want(Some(1), 1, false);
            core.pass(Duration::from_secs(60));
            core.connected(round, 1, 1, 1, Direction::Outbound);
            core.pass(SECOND);
            let (connection, peer) = (ConnectionId(round), peer(1));
            core.input(if unneeded { Input::Unneeded { connection, peer } } else { Input::Disconnected { connection, peer } });
        }
        let actions = core.want(Some(1), 1, false);
        assert_eq!(actions.iter().any(|action| matches!(action, Action::Dial { .. })), dialed_at_once);
    }
}
