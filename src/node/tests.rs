//! Some nodes by hand: messages are carried over in order, one at a time, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use meshwork_channels::dial::Direction;
use meshwork_channels::{WallTime, frame::Decoder};

use super::*;
use meshwork_channels::limits;
use meshwork_channels::reliable::Sequence;
use meshwork_crdt::Op;

/// Nodes whose connections never break and whose messages take no time.
struct Table {
    nodes: Vec<Node>,
    now: Now,
    /// Both ends of each connection: `(node, peer's node)` by number.
    connections: BTreeMap<ConnectionId, (usize, ConnectionId)>,
    inputs: VecDeque<(usize, Input)>,
    told: Vec<Vec<Action>>,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, index as u8 + 1], 7_000))
}

fn peer(index: usize) -> PeerId {
    PeerId::from_bytes([index as u8 + 1; 32])
}

impl Table {
    fn new(count: usize, config: &Config) -> Self {
        let now = Now { time: Time::ZERO, wall: WallTime::from_millis(1_800_000_000_000) };
        let nodes = (0..count)
            .map(|index| {
                let identity = Identity { peer: peer(index), incarnation: 1, address: address(index) };
                Node::new(identity, config.clone().build().unwrap(), index as u64, now)
            })
            .collect();
        Table { nodes, now, connections: BTreeMap::new(), inputs: VecDeque::new(), told: vec![Vec::new(); count] }
    }

    fn join_all_to_the_first(&mut self) {
        for index in 1..self.nodes.len() {
            let candidates = vec![Candidate { address: address(0), peer: None, keep: true }];
            self.inputs.push_back((index, Input::Discovered { source: "static", candidates }));
        }
    }

    fn with(&mut self, index: usize, act: impl FnOnce(&mut Node, Now, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        act(&mut self.nodes[index], self.now, &mut actions);
        self.carry_out(index, actions);
    }

    fn carry_out(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial { address: to, .. } => {
                    let Some(other) = (0..self.nodes.len()).find(|other| address(*other) == to) else { continue };
                    let (ours, theirs) = (ConnectionId(self.connections.len() as u64), ConnectionId(self.connections.len() as u64 + 1));
                    self.connections.insert(ours, (index, theirs));
                    self.connections.insert(theirs, (other, ours));
                    for (at, connection, whom, direction) in
                        [(index, ours, other, Direction::Outbound), (other, theirs, index, Direction::Inbound)]
                    {
                        let input = Input::Connected { connection, peer: peer(whom), incarnation: 1, address: address(whom), direction };
                        self.inputs.push_back((at, input));
                    }
                }
                Action::Send { connection, channel, frame, .. } | Action::SendGuaranteed { connection, channel, frame } => {
                    let (_, theirs) = self.connections[&connection];
                    let (to, _) = self.connections[&theirs];
                    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
                    decoder.push(frame);
                    let frame = decoder.next().unwrap().unwrap();
                    self.inputs.push_back((to, Input::Frame { connection: theirs, channel, frame }));
                }
                Action::SendDatagram { connection, bytes } => {
                    let (_, theirs) = self.connections[&connection];
                    let (to, _) = self.connections[&theirs];
                    self.inputs.push_back((to, Input::Datagram { connection: theirs, bytes }));
                }
                Action::Close { connection, reason } => {
                    let (_, theirs) = self.connections[&connection];
                    for (end, other) in [(connection, theirs), (theirs, connection)] {
                        let at = self.connections[&end].0;
                        let whom = self.connections[&other].0;
                        let unneeded = matches!(reason, CloseReason::Unneeded | CloseReason::Duplicate);
                        self.inputs.push_back((at, Input::Disconnected { connection: end, peer: peer(whom), unneeded }));
                    }
                }
                other => self.told[index].push(other),
            }
        }
    }

    fn settle(&mut self) {
        let mut steps = 0;
        while let Some((index, input)) = self.inputs.pop_front() {
            steps += 1;
            assert!(steps < 100_000, "two nodes answer each other for ever: {input:?}");
            self.with(index, |node, now, actions| node.handle(input, now, actions));
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now.time + duration;
        self.settle();
        let mut turns = 0;
        while let Some(next) = self.nodes.iter().filter_map(Node::next_deadline).min().filter(|next| *next <= end) {
            let next = next.max(self.now.time);
            turns += 1;
            assert!(turns < 200_000, "a deadline comes back for ever at {next}");
            self.now.wall = self.now.wall + next.since(self.now.time);
            self.now.time = next;
            for index in 0..self.nodes.len() {
                if self.nodes[index].next_deadline().is_some_and(|at| at <= next) {
                    self.inputs.push_back((index, Input::DeadlineReached));
                    self.settle();
                }
            }
        }
        self.now.time = end;
    }

    fn delivered(&self, index: usize) -> Vec<Bytes> {
        self.told[index]
            .iter()
            .filter_map(|action| match action {
                Action::Deliver(delivery) => Some(delivery.payload.clone()),
                _ => None,
            })
            .collect()
    }

    fn answers(&self, index: usize) -> Vec<(CallId, Result<Bytes, CallError>)> {
        self.told[index]
            .iter()
            .filter_map(|action| match action {
                Action::Answer { call, outcome } => Some((*call, outcome.clone())),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn nodes_find_each_other_talk_and_agree() {
    for topology in [Kind::Hyparview, Kind::Mesh] {
        let mut table = Table::new(7, &Config { topology, ..Config::default() });
        table.join_all_to_the_first();
        table.run(Duration::from_secs(10));
        for node in &table.nodes {
            assert_eq!(node.members().filter(|member| member.status == Status::Alive).count(), 7, "{topology:?}");
            assert!(!node.neighbors().is_empty(), "{topology:?}");
            assert_eq!(node.connectivity(), Connectivity::Connected);
        }
        table.with(3, |node, now, actions| {
            node.broadcast(ChannelId::EVENTS, Bytes::from_static(b"hello"), now, actions).unwrap();
        });
        table.with(5, |node, now, actions| {
            node.set("color", Bytes::from_static(b"green"), now, actions).unwrap();
        });
        table.run(Duration::from_secs(10));
        for index in 0..7 {
            let expected: &[&[u8]] = if index == 3 { &[] } else { &[b"hello"] };
            assert_eq!(table.delivered(index), expected, "{topology:?}");
            assert_eq!(table.nodes[index].get("color").map(|value| &value[..]), Some(&b"green"[..]), "{topology:?}");
            assert_eq!(table.nodes[index].state().digest(), table.nodes[0].state().digest());
            assert!(table.nodes[index].counters().misbehaved.is_empty(), "{:?}", table.nodes[index].counters());
        }
    }
}

#[test]
fn a_node_that_was_alone_delivers_what_it_said_then() {
    let mut table = Table::new(2, &Config::default());
    table.with(0, |node, now, actions| {
        let sent = node.broadcast(ChannelId::EVENTS, Bytes::from_static(b"anybody?"), now, actions).unwrap();
        assert_eq!(sent.neighbors, 0);
    });
    table.run(Duration::from_secs(5));
    table.join_all_to_the_first();
    table.run(Duration::from_secs(5));
    assert_eq!(table.delivered(1), [&b"anybody?"[..]]);
}

#[test]
fn members_are_listed_in_order_with_this_node_among_them() {
    let mut table = Table::new(5, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(5));
    for node in &table.nodes {
        let listed: Vec<PeerId> = node.members().map(|member| member.peer).collect();
        assert_eq!(listed, (0..5).map(peer).collect::<Vec<_>>());
    }
}

#[test]
fn a_request_is_answered_once() {
    let mut table = Table::new(2, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    let mut call = None;
    table.with(0, |node, now, actions| {
        call = Some(node.request(peer(1), Bytes::from_static(b"ping"), Duration::from_secs(5), now, actions).unwrap());
    });
    table.settle();
    let token = table.told[1]
        .iter()
        .find_map(|action| match action {
            Action::Request { token, payload } if payload == "ping" => Some(*token),
            _ => None,
        })
        .expect("the request arrived");
    for answer in ["pong", "again"] {
        table.with(1, |node, now, actions| node.handle(Input::Respond { token, answer: Ok(answer.into()) }, now, actions));
    }
    table.run(Duration::from_secs(10));
    assert_eq!(table.answers(0), [(call.unwrap(), Ok(Bytes::from_static(b"pong")))]);
}

#[test]
fn a_request_that_nobody_answers_times_out_and_leaves_nothing_behind() {
    let mut table = Table::new(2, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    for _ in 0..1_000 {
        table.with(0, |node, now, actions| {
            node.request(peer(1), Bytes::new(), Duration::from_secs(5), now, actions).unwrap();
        });
        table.settle();
    }
    table.run(Duration::from_secs(6));
    assert_eq!(table.answers(0).len(), 1_000);
    assert!(table.answers(0).iter().all(|(_, outcome)| *outcome == Err(CallError::TimedOut)));
    assert_eq!(table.nodes[0].calls.len(), 0);
}

#[test]
fn a_request_to_a_peer_that_must_be_dialed_goes_out_once() {
    let mut table = Table::new(2, &Config::default());
    table.nodes[0].links.learn(peer(1), address(1));
    let mut call = None;
    table.with(0, |node, now, actions| {
        call = Some(node.request(peer(1), Bytes::from_static(b"ping"), Duration::from_secs(30), now, actions).unwrap());
    });
    table.run(Duration::from_secs(5));
    let requests = table.told[1].iter().filter(|action| matches!(action, Action::Request { .. })).count();
    assert_eq!((requests, table.nodes[0].calls.times_sent(call.unwrap())), (1, Some(1)));
}

#[test]
fn a_request_to_a_peer_that_cannot_be_reached_fails_and_is_over() {
    let mut table = Table::new(1, &Config::default());
    table.nodes[0].links.learn(peer(9), address(9));
    table.with(0, |node, now, actions| {
        node.request(peer(9), Bytes::new(), Duration::from_secs(600), now, actions).unwrap();
        node.send(peer(9), ChannelId::DATA, b"", now, actions).unwrap();
    });
    // The table lets dials to nobody go unanswered, as a kept address or a lost packet would.
    table.run(Duration::from_secs(11));
    let failures: Vec<_> = table.answers(0).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(failures, [Err(CallError::Unreachable), Err(CallError::Unreachable)]);
    assert_eq!(table.nodes[0].calls.len(), 0);
}

#[test]
fn a_request_is_asked_again_on_the_next_connection_and_answered_once() {
    let mut table = Table::new(2, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    table.with(0, |node, now, actions| {
        node.request(peer(1), Bytes::from_static(b"ping"), Duration::from_secs(60), now, actions).unwrap();
    });
    table.settle();
    let connection = table.nodes[0].connections().next().unwrap().1;
    table.carry_out(0, vec![Action::Close { connection, reason: CloseReason::Misbehaved }]);
    table.run(Duration::from_secs(20));
    let tokens: Vec<_> = table.told[1]
        .iter()
        .filter_map(|action| match action {
            Action::Request { token, .. } => Some(*token),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 1, "the handler runs once");
    table.with(1, |node, now, actions| node.handle(Input::Respond { token: tokens[0], answer: Ok("pong".into()) }, now, actions));
    table.run(Duration::from_secs(1));
    assert_eq!(table.answers(0).into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>(), [Ok(Bytes::from_static(b"pong"))]);
}

impl Table {
    fn request(&mut self, payload: &'static str, timeout: Duration) -> CallId {
        let mut call = None;
        self.with(0, |node, now, actions| call = Some(node.request(peer(1), payload.into(), timeout, now, actions).unwrap()));
        call.unwrap()
    }

    fn cancel(&mut self, call: CallId) {
        self.with(0, |node, now, actions| node.cancel(call, now, actions));
    }

    /// The second node answers a request of the first.
    fn respond(&mut self, token: RequestToken) {
        self.with(1, |node, now, actions| node.handle(Input::Respond { token, answer: Ok("pong".into()) }, now, actions));
    }

    fn frame(&mut self, index: usize, kind: u16, body: Bytes) {
        let connection = self.nodes[index].connections().next().unwrap().1;
        self.inputs.push_back((index, Input::Frame { connection, channel: ChannelId::COORDINATION, frame: Frame { kind, body } }));
        self.settle();
    }
}

/// The requests that a node handed out, and those of which it told that they were cancelled.
fn asked(told: &[Action]) -> (Vec<RequestToken>, Vec<RequestToken>) {
    let (mut handed, mut cancelled) = (Vec::new(), Vec::new());
    for action in told {
        match action {
            Action::Request { token, .. } => handed.push(*token),
            Action::Cancelled { token } => cancelled.push(*token),
            _ => {}
        }
    }
    (handed, cancelled)
}

#[test]
fn of_ten_copies_of_a_request_one_reaches_the_handler_and_all_get_its_answer() {
    let mut table = acquainted();
    let body = meshwork_channels::encode(&wire::Request { id: 77, payload: "ping".into() });
    (0..10).for_each(|_| table.frame(1, wire::REQUEST, body.clone()));
    let (handed, _) = asked(&table.told[1]);
    assert_eq!(handed, [RequestToken { from: peer(0), incarnation: 1, id: 77 }]);
    let mut answers = Vec::new();
    let mut feed = |table: &mut Table, input| {
        let now = table.now;
        table.nodes[1].handle(input, now, &mut answers);
    };
    feed(&mut table, Input::Respond { token: handed[0], answer: Ok("pong".into()) });
    let connection = table.nodes[1].connections().next().unwrap().1;
    for _ in 0..10 {
        let frame = Frame { kind: wire::REQUEST, body: body.clone() };
        feed(&mut table, Input::Frame { connection, channel: ChannelId::COORDINATION, frame });
    }
    assert_eq!(answers.len(), 11, "{answers:?}");
    let expected = wire::encode(wire::RESPONSE, &wire::Response { id: 77, outcome: wire::Outcome::Done("pong".into()) });
    assert!(answers.iter().all(|action| matches!(action, Action::Send { frame, .. } if *frame == expected)));
}

#[test]
fn a_hundred_thousand_timeouts_leave_nothing_on_either_side() {
    let mut table = acquainted();
    let mut timed_out = 0;
    for _ in 0..100 {
        for _ in 0..1_000 {
            table.request("ping", Duration::from_millis(100));
        }
        table.settle();
        table.run(Duration::from_millis(200));
        timed_out += table.answers(0).iter().filter(|(_, outcome)| *outcome == Err(CallError::TimedOut)).count();
        // Handlers that never finish by themselves end when they are told that nobody waits.
        let (handed, cancelled) = asked(&table.told[1]);
        assert_eq!((handed.len(), &handed), (1_000, &cancelled));
        cancelled.into_iter().for_each(|token| table.respond(token));
        table.told.iter_mut().for_each(Vec::clear);
    }
    assert_eq!(timed_out, 100_000);
    table.run(Duration::from_secs(1));
    assert_eq!((table.nodes[0].open_calls(), table.nodes[0].calls.next_deadline()), (0, None));
    assert_eq!(table.nodes[1].open_requests(), 0);
    assert!(table.answers(0).is_empty(), "no answer of a cancelled request was sent");
    assert!(table.nodes.iter().all(|node| node.counters().misbehaved.is_empty()));
}

#[test]
fn a_cancelled_request_is_forgotten_here_and_told_there() {
    let mut table = acquainted();
    let call = table.request("ping", Duration::from_secs(60));
    table.settle();
    table.cancel(call);
    assert_eq!(table.nodes[0].open_calls(), 0, "at once");
    table.cancel(call);
    table.settle();
    let (handed, cancelled) = asked(&table.told[1]);
    assert_eq!((handed.len(), &handed), (1, &cancelled));
    assert!(!table.nodes[1].seen.serves(peer(0)), "a connection is not kept for it");
    // A copy that comes late finds it running, and then over.
    let body = meshwork_channels::encode(&wire::Request { id: handed[0].id, payload: "ping".into() });
    table.frame(1, wire::REQUEST, body.clone());
    table.respond(handed[0]);
    table.frame(1, wire::REQUEST, body);
    table.break_all();
    table.run(Duration::from_secs(20));
    assert_eq!(asked(&table.told[1]), (handed, cancelled), "the handler ran once and was told once");
    assert!(table.answers(0).is_empty());
    assert_eq!(table.nodes[1].open_requests(), 0);
}

#[test]
fn a_request_cancelled_while_its_peer_is_away_is_not_sent_again() {
    let mut table = acquainted();
    let call = table.request("ping", Duration::from_secs(60));
    // It is lost with its connection.
    table.break_all();
    table.cancel(call);
    table.run(Duration::from_secs(20));
    assert!(table.nodes[0].connection_of(peer(1)).is_some(), "they met again");
    assert_eq!(asked(&table.told[1]), (vec![], vec![]));
    assert!(table.answers(0).is_empty());

    // One that never left is told to nobody.
    let mut table = Table::new(1, &Config::default());
    table.nodes[0].links.learn(peer(1), address(1));
    let call = table.request("ping", Duration::from_secs(60));
    table.cancel(call);
    assert_eq!((table.nodes[0].open_calls(), table.nodes[0].counters().dropped), (0, 0));
}

#[test]
fn a_cancellation_that_finds_no_room_is_lost_without_a_word() {
    let mut table = acquainted();
    let call = table.request("ping", Duration::from_secs(60));
    table.settle();
    let now = table.now;
    let mut actions = Vec::new();
    table.nodes[0].cancel(call, now, &mut actions);
    let [Action::Send { call: Some(whose), .. }] = actions[..] else { panic!("{actions:?}") };
    actions.clear();
    table.nodes[0].handle(Input::Refused { call: whose }, now, &mut actions);
    assert!(actions.is_empty(), "{actions:?}");
}

#[test]
fn a_flood_of_cancellations_stores_nothing_and_ends_no_request_of_others() {
    let mut table = Table::new(3, &Config { topology: Kind::Mesh, ..Config::default() });
    table.join_all_to_the_first();
    table.run(Duration::from_secs(5));
    let call = table.request("ping", Duration::from_secs(60));
    table.settle();
    let (handed, _) = asked(&table.told[1]);
    let from_liar = table.nodes[1].connections().find(|(whom, _)| *whom == peer(2)).unwrap().1;
    let mut actions = Vec::new();
    let now = table.now;
    for id in (0..100_000).chain([call.0, u64::MAX]) {
        let frame = Frame { kind: wire::CANCEL, body: meshwork_channels::encode(&wire::Cancel { id }) };
        table.nodes[1].handle(Input::Frame { connection: from_liar, channel: ChannelId::COORDINATION, frame }, now, &mut actions);
    }
    assert!(actions.is_empty(), "{actions:?}");
    assert_eq!(table.nodes[1].open_requests(), 1);
    table.respond(handed[0]);
    table.settle();
    assert_eq!(table.answers(0), [(call, Ok(Bytes::from_static(b"pong")))]);
    // What is no cancellation costs the connection, as with any other kind.
    let frame = Frame { kind: wire::CANCEL, body: Bytes::new() };
    table.nodes[1].handle(Input::Frame { connection: from_liar, channel: ChannelId::COORDINATION, frame }, now, &mut actions);
    assert!(actions.iter().any(|action| matches!(action, Action::Close { reason: CloseReason::Misbehaved, .. })));
}

#[test]
fn what_a_peer_asked_in_a_former_life_is_cancelled_when_it_is_back() {
    let mut table = acquainted();
    table.request("ping", Duration::from_secs(60));
    table.settle();
    let (now, mut actions) = (table.now, Vec::new());
    let open: Vec<ConnectionId> = table.nodes[1].connections().map(|(_, connection)| connection).collect();
    for connection in open {
        table.nodes[1].handle(Input::Disconnected { connection, peer: peer(0), unneeded: false }, now, &mut actions);
    }
    assert_eq!(asked(&actions), (vec![], vec![]), "it may come back as it was");
    let (connection, direction) = (ConnectionId(90), Direction::Inbound);
    let input = Input::Connected { connection, peer: peer(0), incarnation: 2, address: address(0), direction };
    table.nodes[1].handle(input, now, &mut actions);
    let (handed, _) = asked(&table.told[1]);
    assert_eq!(asked(&actions), (vec![], handed));
}

#[test]
fn the_bytes_of_a_cancellation() {
    assert_eq!(&wire::encode(wire::CANCEL, &wire::Cancel { id: 300 })[..], [3, 6, 0xac, 0x02]);
}

#[test]
fn what_cannot_be_sent_is_refused_by_name() {
    let mut table = Table::new(1, &Config::default());
    table.with(0, |node, now, actions| {
        let large = Bytes::from(vec![0; limits::BROADCAST_BYTES_MAX + 1]);
        assert!(matches!(node.broadcast(ChannelId::EVENTS, large, now, actions), Err(SendError::TooLarge { .. })));
        for channel in [ChannelId::CONTROL, ChannelId::STATE, ChannelId(99)] {
            assert_eq!(node.broadcast(channel, Bytes::new(), now, actions), Err(SendError::UnknownChannel(channel)));
        }
        assert_eq!(node.send(peer(0), ChannelId::DATA, b"", now, actions), Err(SendError::Myself));
        assert_eq!(node.send(peer(9), ChannelId::DATA, b"", now, actions), Err(SendError::UnknownPeer(peer(9))));
        node.leave(now, actions);
        assert_eq!(node.broadcast(ChannelId::EVENTS, Bytes::new(), now, actions), Err(SendError::Leaving));
        assert!(actions.iter().all(|action| !matches!(action, Action::Send { .. })));
    });
}

#[test]
fn frames_that_do_not_belong_cost_the_sender_its_connection() {
    let hostile = [
        (ChannelId::CONTROL, wire::MESSAGE, Bytes::from_static(b"not here")),
        (ChannelId::CONTROL, wire::STATE, Bytes::from_static(b"")),
        (ChannelId::CONTROL, wire::OVERLAY, Bytes::from_static(b"\xff\xff\xff")),
        (ChannelId::STATE, wire::STATE, Bytes::from_static(b"\xff\xff\xff")),
        (ChannelId::COORDINATION, wire::REQUEST, Bytes::from_static(b"")),
        (ChannelId::COORDINATION, wire::CANCEL, Bytes::from_static(b"\xff")),
    ];
    for (channel, kind, body) in hostile {
        let mut table = Table::new(2, &Config::default());
        table.join_all_to_the_first();
        table.run(Duration::from_secs(2));
        let (victim_side, _) = table.nodes[0].connections().next().map(|(_, connection)| (connection, ())).unwrap();
        table.with(0, |node, now, actions| {
            node.handle(Input::Frame { connection: victim_side, channel, frame: Frame { kind, body: body.clone() } }, now, actions);
            let closed = actions.iter().any(|action| matches!(action, Action::Close { reason: CloseReason::Misbehaved, .. }));
            assert!(closed, "{channel} {kind} {body:?}");
            assert!(actions.iter().any(|action| matches!(action, Action::Event(Event::Misbehaved(..)))));
        });
    }
}

#[test]
fn an_unknown_kind_of_frame_is_skipped() {
    let mut table = Table::new(2, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    let connection = table.nodes[0].connections().next().unwrap().1;
    table.with(0, |node, now, actions| {
        let frame = Frame { kind: 999, body: Bytes::from_static(b"from the future") };
        node.handle(Input::Frame { connection, channel: ChannelId::EVENTS, frame }, now, actions);
        assert!(actions.is_empty());
        assert_eq!(node.counters().skipped, 1);
    });
}

#[test]
fn a_peer_that_was_too_slow_rests_and_then_gets_what_it_missed() {
    for topology in [Kind::Hyparview, Kind::Mesh] {
        let mut table = Table::new(4, &Config { topology, ..Config::default() });
        table.join_all_to_the_first();
        table.run(Duration::from_secs(10));
        let mut rests = Vec::new();
        for round in 0..3_u8 {
            let slow_at = table.now.time;
            for index in 0..3 {
                assert!(table.nodes[index].neighbors().contains(&peer(3)), "{topology:?}");
                table.told[index].clear();
                let connection = table.nodes[index].connections().find(|(whom, _)| *whom == peer(3)).unwrap().1;
                // A driver may find many full queues in one turn.
                for _ in 0..3 {
                    table.with(index, |node, now, actions| node.handle(Input::Stalled { connection }, now, actions));
                }
                let slow = table.told[index].iter().filter(|action| matches!(action, Action::Event(Event::SlowPeer(_)))).count();
                assert_eq!(slow, 1, "told once");
            }
            table.settle();
            table.run(Duration::from_millis(1_500));
            table.with(0, |node, now, actions| {
                node.broadcast(ChannelId::EVENTS, Bytes::from(vec![round]), now, actions).unwrap();
            });
            table.settle();
            assert!((0..3).all(|index| !table.nodes[index].neighbors().contains(&peer(3))), "it rests");
            assert_eq!(table.delivered(1).last(), table.delivered(2).last(), "the others go on");
            while !table.nodes[0].neighbors().contains(&peer(3)) {
                table.run(Duration::from_millis(100));
                assert!(table.now.time.since(slow_at) < Duration::from_secs(60), "it is taken back, {topology:?}");
            }
            rests.push(table.now.time.since(slow_at));
            table.run(Duration::from_secs(20));
            assert_eq!(table.delivered(3), (0..=round).map(|round| Bytes::from(vec![round])).collect::<Vec<_>>());
            let alive = |node: &Node| node.members().filter(|member| member.status == Status::Alive).count();
            assert!(table.nodes.iter().all(|node| alive(node) == 4), "it was a member all the time");
        }
        assert!(
            rests[0] >= Duration::from_secs(2) && rests[1] >= Duration::from_secs(8) && rests[2] >= Duration::from_secs(32),
            "{rests:?}"
        );
    }
}

/// What a liar sends as if it passed on a broadcast of somebody else.
fn forged(origin: PeerId, channel: ChannelId) -> Frame {
    let id = MessageId { origin, incarnation: 1, channel, sequence: 1_000 };
    let push = meshwork_overlay::plumtree::message::Push::Eager;
    let gossip = meshwork_overlay::plumtree::Message::Gossip { id, hops: 1, push, payload: Bytes::from_static(b"\xff\xff\xff") };
    let message = meshwork_overlay::Message::Plumtree(gossip);
    let body = meshwork_channels::encode(&wire::Overlay { addresses: Bounded::first_of([]), message });
    Frame { kind: wire::OVERLAY, body }
}

#[test]
fn nobody_broadcasts_on_the_control_channel() {
    for channel in [ChannelId::CONTROL, ChannelId(9)] {
        let mut table = Table::new(2, &Config::default());
        table.join_all_to_the_first();
        table.run(Duration::from_secs(2));
        let connection = table.nodes[0].connections().next().unwrap().1;
        table.with(0, |node, now, actions| {
            node.handle(Input::Frame { connection, channel, frame: forged(peer(1), channel) }, now, actions);
            assert!(actions.iter().any(|action| matches!(action, Action::Close { reason: CloseReason::Misbehaved, .. })), "{actions:?}");
            assert!(!actions.iter().any(|action| matches!(action, Action::Deliver(_))));
        });
    }
}

#[test]
fn a_forged_broadcast_costs_the_one_it_names_nothing() {
    let mut table = Table::new(3, &Config { topology: Kind::Mesh, ..Config::default() });
    table.join_all_to_the_first();
    table.run(Duration::from_secs(5));
    let from_liar = table.nodes[0].connections().find(|(whom, _)| *whom == peer(2)).unwrap().1;
    table.with(0, |node, now, actions| {
        let frame = forged(peer(1), ChannelId::STATE);
        node.handle(Input::Frame { connection: from_liar, channel: ChannelId::STATE, frame }, now, actions);
        assert!(!actions.iter().any(|action| matches!(action, Action::Close { .. } | Action::Event(_))), "{actions:?}");
        assert_eq!(node.counters().misbehaved["undecodable"], 1, "it is counted");
    });
}

/// What a node handed out with guarantee, by sequence and payload.
fn handed_out(told: &[Action]) -> Vec<(Sequence, Bytes)> {
    let handed = told.iter().filter_map(|action| match action {
        Action::DeliverGuaranteed { sequence, payload, .. } => Some((*sequence, payload.clone())),
        _ => None,
    });
    handed.collect()
}

fn settled(told: &[Action]) -> Vec<(Sequence, Settlement)> {
    let settled = told.iter().filter_map(|action| match action {
        Action::Settled { sequence, outcome, .. } => Some((*sequence, outcome.clone())),
        _ => None,
    });
    settled.collect()
}

fn acquainted() -> Table {
    let mut table = Table::new(2, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    table
}

impl Table {
    fn send_guaranteed(&mut self, payload: &'static str) -> Sequence {
        let mut sequence = None;
        self.with(0, |node, now, actions| {
            sequence = Some(node.send_guaranteed(peer(1), ChannelId::DATA, payload.into(), None, now, actions).unwrap());
        });
        sequence.unwrap()
    }

    fn take(&mut self, sequence: Sequence) {
        let input = Input::Taken { from: peer(0), incarnation: 1, channel: ChannelId::DATA, sequence };
        self.with(1, |node, now, actions| node.handle(input, now, actions));
    }

    /// Loses what is under way and every connection between the two.
    fn break_all(&mut self) {
        self.inputs.retain(|(_, input)| !matches!(input, Input::Frame { .. } | Input::Datagram { .. }));
        let open: Vec<ConnectionId> = self.nodes[0].connections().map(|(_, connection)| connection).collect();
        assert!(!open.is_empty(), "there is something to break");
        let close = |connection| Action::Close { connection, reason: CloseReason::Misbehaved };
        self.carry_out(0, open.into_iter().map(close).collect());
    }
}

#[test]
fn a_guaranteed_message_is_kept_until_it_was_taken_however_often_the_connection_breaks() {
    let mut table = acquainted();
    for (number, payload) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(table.send_guaranteed(payload), number as Sequence + 1);
        table.break_all();
        table.run(Duration::from_secs(20));
    }
    let all = [(1, "a".into()), (2, "b".into()), (3, "c".into())];
    assert_eq!(handed_out(&table.told[1]), all, "once each, in order");
    assert_eq!(settled(&table.told[0]), [], "nothing was taken");
    table.take(1);
    table.break_all();
    table.take(2);
    table.run(Duration::from_secs(20));
    assert_eq!(settled(&table.told[0]), [(2, Settlement::Taken)]);
    assert!(table.nodes[0].guaranteed.needs(peer(1)) && table.nodes[1].guaranteed.needs(peer(0)));
    table.take(3);
    table.run(Duration::from_secs(20));
    assert_eq!(settled(&table.told[0]).last(), Some(&(3, Settlement::Taken)));
    assert_eq!(handed_out(&table.told[1]), all);
    assert!(!table.nodes[0].guaranteed.needs(peer(1)) && !table.nodes[1].guaranteed.needs(peer(0)));
    assert!(table.nodes.iter().all(|node| node.counters().misbehaved.is_empty()));
}

#[test]
fn a_guaranteed_message_dials_its_peer_and_waits_for_it() {
    let mut table = Table::new(2, &Config::default());
    table.nodes[0].links.learn(peer(1), address(1));
    table.send_guaranteed("a");
    table.run(Duration::from_secs(5));
    assert_eq!(handed_out(&table.told[1]), [(1, "a".into())]);
}

#[test]
fn a_full_window_refuses_and_takes_again_what_was_acknowledged() {
    let mut table = acquainted();
    let mut refused = None;
    table.with(0, |node, now, actions| {
        for number in 0_u64.. {
            match node.send_guaranteed(peer(1), ChannelId::COORDINATION, Bytes::from_static(b"x"), None, now, actions) {
                Ok(sequence) => assert_eq!(sequence, number + 1),
                Err(error) => {
                    refused = Some((number, error));
                    break;
                }
            }
        }
    });
    assert_eq!(refused, Some((1_000, SendError::Full)));
    table.run(Duration::from_secs(1));
    let in_flight = handed_out(&table.told[1]).len();
    assert!(in_flight < 1_000, "what is on the wire stays below the queue of the channel: {in_flight}");
    let input = Input::Taken { from: peer(0), incarnation: 1, channel: ChannelId::COORDINATION, sequence: 1 };
    table.with(1, |node, now, actions| node.handle(input, now, actions));
    table.run(Duration::from_secs(1));
    table.with(0, |node, now, actions| {
        node.send_guaranteed(peer(1), ChannelId::COORDINATION, Bytes::new(), None, now, actions).unwrap();
    });
}

#[test]
fn what_is_kept_for_a_peer_that_is_gone_is_given_back() {
    // One that says goodbye, at once.
    let mut table = acquainted();
    table.send_guaranteed("a");
    table.settle();
    table.with(1, |node, now, actions| node.leave(now, actions));
    table.settle();
    let undelivered = |payload: &'static str, transmitted| Settlement::Undelivered { payload: payload.into(), transmitted };
    assert_eq!(settled(&table.told[0]), [(1, undelivered("a", true))]);

    // One that cannot be reached, after a while.
    let mut table = Table::new(1, &Config::default());
    table.nodes[0].links.learn(peer(1), address(1));
    table.send_guaranteed("b");
    table.run(guaranteed::ABANDON_AFTER - Duration::from_secs(1));
    assert_eq!(settled(&table.told[0]), []);
    table.run(Duration::from_secs(30));
    assert_eq!(settled(&table.told[0]), [(1, undelivered("b", false))]);

    // Forgotten in the end, and its numbers are not used again.
    table.run(guaranteed::FORGET_AFTER);
    table.nodes[0].links.learn(peer(1), address(1));
    assert_eq!(table.send_guaranteed("c"), 2);
}

#[test]
fn a_message_that_is_over_is_not_sent() {
    let mut table = Table::new(1, &Config::default());
    table.nodes[0].links.learn(peer(1), address(1));
    table.with(0, |node, now, actions| {
        let ttl = Some(Duration::from_millis(500));
        node.send_guaranteed(peer(1), ChannelId::DATA, Bytes::new(), ttl, now, actions).unwrap();
    });
    table.run(Duration::from_secs(1));
    assert_eq!(settled(&table.told[0]), [(1, Settlement::Expired)]);
}

#[test]
fn a_connection_that_the_two_sides_disagreed_about_never_becomes_the_link() {
    let mut table = acquainted();
    let mut core = Guaranteed::new(guaranteed::params([]));
    let (first, second) = (ConnectionId(70), ConnectionId(71));
    let mut actions = Vec::new();
    let now = table.now.time;
    core.send(peer(1), Some((first, 1)), ChannelId::DATA, Bytes::new(), None, now, &mut actions).unwrap();
    let resume = reliable::Message::Resume { positions: Bounded::first_of([]), last: true };
    let frame = Frame { kind: reliable::KIND_MESSAGE, body: meshwork_channels::encode(&resume) };
    // The peer speaks on another connection, and gets no answer there.
    actions.clear();
    core.on_frame(peer(1), second, Some((first, 1)), ChannelId::COORDINATION, frame, now, &mut actions).unwrap();
    assert!(actions.is_empty());
    // So that one is closed when it is chosen, as is the first when it comes back.
    for (connection, expected) in [(second, true), (first, true), (ConnectionId(72), false)] {
        actions.clear();
        core.set_link(peer(1), Some((connection, 1)), now, &mut actions);
        let closed = actions.iter().any(|action| matches!(action, Action::Close { connection: closed, .. } if *closed == connection));
        assert_eq!(closed, expected, "{connection:?}");
    }
    assert!(actions.iter().any(|action| matches!(action, Action::SendGuaranteed { .. })));
    table.run(Duration::from_secs(1));
}

#[test]
fn what_is_kept_on_a_channel_that_the_peer_lacks_is_given_back() {
    let specs = vec![meshwork_channels::ChannelSpec::new("orders").guaranteed(), meshwork_channels::ChannelSpec::new("video")];
    let channels = meshwork_channels::agreement::with_defined(specs).unwrap();
    let orders = ChannelId::named("orders");
    let mut table = Table::new(2, &Config::default());
    let identity = Identity { peer: peer(0), incarnation: 1, address: address(0) };
    table.nodes[0] = Node::new(identity, Config::default().build().unwrap().with_channels(&channels), 0, table.now);
    table.join_all_to_the_first();
    table.run(Duration::from_secs(2));
    table.with(0, |node, now, actions| {
        assert_eq!(node.send(peer(1), orders, b"", now, actions), Err(SendError::Unsuited(orders)));
        let unsuited = Err(SendError::Unsuited("video".into()));
        assert_eq!(node.send_guaranteed(peer(1), "video".into(), Bytes::new(), None, now, actions), unsuited);
        let unknown = Err(SendError::UnknownChannel("nothing".into()));
        assert_eq!(node.send_guaranteed(peer(1), "nothing".into(), Bytes::new(), None, now, actions), unknown);
    });
    table.send_guaranteed("on data");
    // The driver would not put these on the wire.
    let mut told = Vec::new();
    let now = table.now;
    table.nodes[0].send_guaranteed(peer(1), orders, "order".into(), None, now, &mut told).unwrap();
    assert!(told.iter().any(|action| matches!(action, Action::SendGuaranteed { channel, .. } if *channel == orders)));
    let connection = table.nodes[0].connection_of(peer(1)).unwrap();
    table.with(0, |node, now, actions| node.handle(Input::Disagreed { connection, channel: orders }, now, actions));
    assert_eq!(settled(&table.told[0]), [(1, Settlement::Disagreed { payload: "order".into() })]);
    // A message that needs no acknowledgment has no business there.
    let frame = Frame { kind: wire::MESSAGE, body: Bytes::new() };
    table.with(0, |node, now, actions| node.handle(Input::Frame { connection, channel: orders, frame }, now, actions));
    let complaint = |action: &Action| matches!(action, Action::Event(Event::Misbehaved(_, Misbehavior::WrongChannel)));
    assert!(table.told[0].iter().any(complaint));
}

#[test]
fn frames_of_guaranteed_delivery_that_make_no_sense_cost_the_sender_its_connection() {
    let nonsense = [
        (ChannelId::CONTROL, reliable::KIND_DATA, &b"\x01"[..]),
        (ChannelId::STATE, reliable::KIND_MESSAGE, b"\x01"),
        (ChannelId::DATA, reliable::KIND_DATA, b""),
        (ChannelId::DATA, reliable::KIND_DATA, b"\x80\x00"),
        (ChannelId::DATA, reliable::KIND_MESSAGE, b"\xff\xff"),
    ];
    for (channel, kind, body) in nonsense {
        let mut table = acquainted();
        let connection = table.nodes[0].connections().next().unwrap().1;
        table.with(0, |node, now, actions| {
            let frame = Frame { kind, body: Bytes::from_static(body) };
            node.handle(Input::Frame { connection, channel, frame }, now, actions);
            let closed = actions.iter().any(|action| matches!(action, Action::Close { reason: CloseReason::Misbehaved, .. }));
            assert!(closed, "{channel} {kind} {body:?}");
        });
    }
}

#[test]
fn what_a_service_tells_without_a_write_is_told_at_once() {
    let mut table = Table::new(1, &Config::default());
    table.with(0, |node, now, actions| {
        let updated =
            node.serve(now, actions, |services, _| services.config.update("app/x", &3, &mut services.told.config).map(|()| Vec::new()));
        assert_eq!(updated, Ok(None));
        let told = |action: &Action| {
            matches!(action, Action::Service(crate::services::Event::Config(crate::services::config::Event::Updated { .. })))
        };
        assert!(actions.iter().any(told), "{actions:?}");
    });
}

#[test]
fn nodes_that_are_no_neighbors_confirm_a_write_and_answer_for_a_key_too() {
    const OTHERS: usize = 19;
    let mut table = Table::new(OTHERS + 1, &Config::default());
    table.join_all_to_the_first();
    table.run(Duration::from_secs(30));
    assert!(table.nodes[3].neighbors().len() < OTHERS);
    let timeout = Duration::from_secs(5);
    let (mut written, mut asked, mut refused) = (None, None, None);
    table.with(3, |node, now, actions| {
        let op = |text: &'static str| Op::Set(text.into());
        written = node.apply_with("k", op("v"), Level::Acked(OTHERS), timeout, now, actions).ok();
        asked = node.ask("k".try_into().unwrap(), Level::Quorum, timeout, now, actions).ok();
        refused = node.apply_with("k", op("w"), Level::Acked(OTHERS + 1), timeout, now, actions).err();
    });
    table.settle();
    let confirmed = |call| {
        table.told[3].iter().find_map(|action| match action {
            Action::Confirmed { call: ended, confirmed } if *ended == call => Some((confirmed.is_enough, confirmed.by.len())),
            _ => None,
        })
    };
    assert_eq!(confirmed(written.unwrap().0), Some((true, OTHERS)));
    assert_eq!(confirmed(asked.unwrap()), Some((true, 10)), "11 of 20 with the one who asks");
    assert!(matches!(refused, Some(WriteError::Confirm(_))));
    assert!(table.nodes.iter().all(|node| node.get("k").is_some_and(|value| value == "v")), "nothing was written then");
}
