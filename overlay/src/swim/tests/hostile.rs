//! Input that no honest node sends.

use meshwork_channels::{Bounded, codec};

use super::*;

fn node() -> (State<u32>, Vec<Action<u32>>) {
    let mut state = State::new(0, 100, address(0), Params::default(), 1, Time::ZERO);
    let mut actions = Vec::new();
    for peer in [1, 2] {
        state.handle(Input::Connected { peer, address: address(peer), generation: 100 }, Time::ZERO, &mut actions);
        let pong = Message::Pong { sender: record(peer) };
        state.handle(Input::Received { from: peer, message: pong }, Time::ZERO, &mut actions);
    }
    assert_eq!(state.view().up_len(), 2);
    actions.clear();
    (state, actions)
}

fn record(peer: u32) -> Record<u32> {
    Record { peer, generation: 100, address: address(peer), incarnation: 0, status: Status::Alive, down_for_secs: 0 }
}

fn identity(peer: u32) -> Identity<u32> {
    record(peer).identity()
}

fn packet(src: Identity<u32>, message: foca::Message<Identity<u32>>, updates: Vec<Update<Identity<u32>>>) -> Bytes {
    let header = foca::Header { src, src_incarnation: 0, dst: identity(0), message };
    match header.message {
        foca::Message::TurnUndead | foca::Message::Announce => codec::encode(&header),
        _ => Packet { header, updates }.encode().into(),
    }
}

fn fault(state: &mut State<u32>, input: Input<u32>) -> Option<Misbehavior> {
    let mut actions = Vec::new();
    state.handle(input, Time::from_millis(10), &mut actions);
    state.audit();
    actions.iter().find_map(|action| match action {
        Action::Misbehaved { what, .. } => Some(*what),
        _ => None,
    })
}

fn datagram(bytes: impl Into<Bytes>) -> Input<u32> {
    Input::Datagram { from: 1, bytes: bytes.into() }
}

fn received(message: Message<u32>) -> Input<u32> {
    Input::Received { from: 1, message }
}

#[test]
fn garbage_is_refused() {
    use rand::Rng;
    let (mut state, _) = node();
    let before = state.view().version();
    let mut random = generator(1, "garbage", 0);
    for len in (0..200).chain([1_162, 1_163, 65_000]) {
        let mut bytes = vec![0; len];
        random.fill_bytes(&mut bytes);
        assert!(fault(&mut state, datagram(bytes)).is_some());
    }
    // A good packet, cut and bent at every place.
    let good = packet(identity(1), foca::Message::Gossip, vec![Update::new(identity(2), 0, Verdict::Alive)]);
    let header = good.len() - 2 - codec::encode(&Update::new(identity(2), 0, Verdict::Alive)).len();
    assert_eq!(fault(&mut state, datagram(good.clone())), None);
    for at in 0..good.len() {
        let cut = fault(&mut state, datagram(good.slice(..at)));
        assert!(cut.is_some() || at == header, "only the list of updates can be left out: {at}");
        for bit in 0..8 {
            let mut bent = good.to_vec();
            bent[at] ^= 1 << bit;
            let _ = fault(&mut state, datagram(bent));
        }
    }
    assert!(state.view().len() < 100 && before <= state.view().version());
}

#[test]
fn nobody_speaks_in_the_name_of_another() {
    let (mut state, _) = node();
    let forged = packet(identity(2), foca::Message::Gossip, vec![]);
    assert_eq!(fault(&mut state, datagram(forged)), Some(Misbehavior::Impersonation));
    let own = packet(identity(0), foca::Message::Gossip, vec![]);
    assert_eq!(fault(&mut state, Input::Datagram { from: 0, bytes: own }), Some(Misbehavior::OwnName));
    for message in [Message::Pong { sender: record(2) }, Message::Digest { hash: 1, sender: record(2) }] {
        assert_eq!(fault(&mut state, received(message)), Some(Misbehavior::Impersonation));
    }
    let stranger = foca::Message::PingReq { target: identity(77), probe_number: 1 };
    let ping = packet(identity(1), stranger, vec![]);
    let mut actions = Vec::new();
    state.handle(datagram(ping), Time::ZERO, &mut actions);
    assert!(actions.is_empty(), "nobody makes us write to a stranger");
}

#[test]
fn absurd_generations_and_addresses_are_not_believed() {
    let (mut state, _) = node();
    let absurd = Identity { generation: u64::MAX, ..identity(2) };
    let gossip = packet(identity(1), foca::Message::Gossip, vec![Update::new(absurd, 0, Verdict::Alive)]);
    assert_eq!(fault(&mut state, datagram(gossip)), Some(Misbehavior::GenerationAhead));
    assert_eq!(state.member(2).unwrap().generation, 100);
    for bad in ["0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:1", "255.255.255.255:1", "[::]:1", "[ff02::1]:1", "[::ffff:0.0.0.0]:1"] {
        let bad = Identity { address: bad.parse().unwrap(), ..identity(3) };
        let gossip = packet(identity(1), foca::Message::Gossip, vec![Update::new(bad, 0, Verdict::Alive)]);
        assert_eq!(fault(&mut state, datagram(gossip)), Some(Misbehavior::BadAddress), "{bad:?}");
        assert!(state.member(3).is_none());
    }

    // A lie that is small enough is believed, six times a minute at most; and the peer itself can always go above.
    for lie in 1..=10 {
        let raised = Identity { generation: 100 + lie, ..identity(2) };
        let gossip = packet(identity(1), foca::Message::Gossip, vec![Update::new(raised, 0, Verdict::Alive)]);
        assert_eq!(fault(&mut state, datagram(gossip)), None);
    }
    assert_eq!(state.member(2).unwrap().generation, 106);
    let honest = Record { generation: 111, ..record(2) };
    state.handle(Input::Received { from: 2, message: Message::Pong { sender: honest } }, Time::from_millis(20), &mut Vec::new());
    assert_eq!(state.member(2).unwrap().generation, 111);
}

#[test]
fn lies_about_this_node_are_refuted_within_a_budget() {
    let (mut state, mut actions) = node();
    let accuse = |identity, incarnation, verdict| {
        packet(super::hostile::identity(1), foca::Message::Gossip, vec![Update::new(identity, incarnation, verdict)])
    };

    state.handle(datagram(accuse(state.me, 5, Verdict::Suspect)), Time::ZERO, &mut actions);
    assert_eq!((state.detector.incarnation(), state.generation()), (6, 100));
    // What foca writes carries what we believe our incarnation to be.
    let sent = actions
        .iter()
        .filter_map(|action| if let Action::Datagram { bytes, .. } = action { Packet::<u32>::decode(bytes).ok() } else { None });
    let incarnations: Vec<u16> = sent.map(|packet| packet.header.src_incarnation).collect();
    assert!(!incarnations.is_empty() && incarnations.iter().all(|incarnation| *incarnation == 6), "{incarnations:?}");

    assert_eq!(
        fault(&mut state, datagram(accuse(Identity { generation: u64::MAX, ..identity(0) }, 0, Verdict::Down))),
        Some(Misbehavior::GenerationAhead)
    );
    assert_eq!(state.generation(), 100);

    // The last incarnations, death, and a later run each cost a generation, and after three of them this node waits.
    actions.clear();
    state.handle(datagram(accuse(state.me, u16::MAX, Verdict::Suspect)), Time::from_secs(1), &mut actions);
    assert_eq!(state.generation(), 101);
    state.handle(Input::Datagram { from: 1, bytes: undead(&state) }, Time::from_secs(2), &mut actions);
    assert_eq!(state.generation(), 102);
    let later = Identity { generation: 500, ..identity(0) };
    let bytes = Packet {
        header: foca::Header { src: identity(1), src_incarnation: 0, dst: state.me, message: foca::Message::Gossip },
        updates: vec![Update::new(later, 0, Verdict::Alive)],
    };
    state.handle(datagram(bytes.encode()), Time::from_secs(3), &mut actions);
    assert_eq!(state.generation(), 501);
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Event(Event::Renewed { .. }))).count(), 3);

    state.handle(Input::Datagram { from: 1, bytes: undead(&state) }, Time::from_secs(4), &mut actions);
    assert_eq!(state.generation(), 501);
    actions.clear();
    let mut now = Time::from_secs(4);
    while state.generation() == 501 {
        now = state.next_deadline().unwrap();
        state.handle(Input::DeadlineReached, now, &mut actions);
        let is_silent = actions.iter().all(|action| !matches!(action, Action::Datagram { .. } | Action::Send { .. }));
        assert!(is_silent || state.generation() > 501, "a node that is dead to others probes nobody");
    }
    assert_eq!((now, state.generation()), (Time::from_secs(61), 502));
    assert_eq!(state.view().up_len(), 2, "it has held nobody for dead meanwhile");
    state.audit();
}

fn undead(state: &State<u32>) -> Bytes {
    let header = foca::Header { src: identity(1), src_incarnation: 0, dst: state.me, message: foca::Message::TurnUndead };
    codec::encode(&header)
}

#[test]
fn a_verdict_in_a_table_is_checked_with_the_accused() {
    let (mut state, mut actions) = node();
    let Some(asked) = state.asked.front().map(|asked| asked.peer) else { panic!("a table was asked for") };
    let down = Record { status: Status::Down, ..record(3 - asked) };
    let table = Message::Table { after: None, until: None, records: Bounded::first_of([record(asked), down]) };
    state.handle(Input::Received { from: asked, message: table }, Time::ZERO, &mut actions);
    assert_eq!(state.member(3 - asked).unwrap().status, Status::Alive);
    let dead = Message::Ping { accusation: Accusation::Dead { generation: 100 } };
    assert!(actions.iter().any(|action| matches!(action, Action::Send { to, message, .. } if *to == 3 - asked && *message == dead)));
}

#[test]
fn what_was_not_asked_for_is_not_taken_in() {
    let (mut state, _) = node();
    let walk = Message::Table { after: Some(5), until: None, records: Bounded::new() };
    assert_eq!(fault(&mut state, received(walk)), None);
    let back = Message::Table { after: None, until: None, records: Bounded::new() };
    assert_eq!(fault(&mut state, received(back.clone())), None);
    assert_eq!(fault(&mut state, received(back)), None);
    assert_eq!(fault(&mut state, received(Message::Push { records: Bounded::new() })), None);
    assert_eq!(fault(&mut state, received(Message::Next { after: 3 })), None);
    assert_eq!(state.counters().unasked, 4, "one answer to one digest, and nothing else");
    let refused = (0..40).filter(|hash| {
        let digest = Message::Digest { hash: *hash, sender: record(1) };
        fault(&mut state, received(digest)) == Some(Misbehavior::TooManyRequests)
    });
    assert_eq!(refused.count(), 24);
    assert_eq!(fault(&mut state, received(Message::Leaving { generation: 99 })), None);
    assert_eq!(state.member(1).unwrap().status, Status::Alive, "an earlier run has left");
}

#[test]
fn ten_thousand_made_up_members_stay_within_bounds() {
    let params = Config { members_max: 2_000, ..Config::lan() }.build().unwrap();
    let mut state = State::new(0, 100, address(0), params, 1, Time::ZERO);
    let mut actions = Vec::new();
    state.handle(Input::Connected { peer: 1, address: address(1), generation: 100 }, Time::ZERO, &mut actions);
    let mut after = None;
    for part in 0..40_u32 {
        let status = if part % 2 == 0 { Status::Alive } else { Status::Down };
        let records = (0..250).map(|at| Record { status, ..record(10 + part * 250 + at) });
        let until = Some(10 + part * 250 + 249);
        let message = Message::Table { after, until, records: Bounded::first_of(records) };
        state.handle(received(message), Time::from_millis(u64::from(part)), &mut actions);
        after = until;
    }
    assert!(state.view().len() <= 2_000, "{}", state.view().len());
    assert!(state.counters().records_refused >= 5_000);
    state.audit();

    // Those that connect are let in all the same.
    state.handle(Input::Connected { peer: 5, address: address(5), generation: 100 }, Time::from_secs(1), &mut actions);
    let digest = Message::Digest { hash: 0, sender: record(5) };
    state.handle(Input::Received { from: 5, message: digest }, Time::from_secs(1), &mut actions);
    assert_eq!(state.member(5).unwrap().status, Status::Alive);
}

#[test]
fn messages_keep_their_bytes() {
    let hex = |message: &Message<u32>| codec::encode(message).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let dead = Record { status: Status::Left, down_for_secs: 300, incarnation: 3, ..record(9) };
    let messages = [
        (Message::Digest { hash: 0x1234, sender: record(1) }, "00b4240164000a000001d122000000"),
        (Message::Table { after: None, until: Some(9), records: Bounded::first_of([dead]) }, "01000109010964000a000009d1220303ac02"),
        (Message::Equal, "02"),
        (Message::Busy { records: Bounded::first_of([record(2)]) }, "03010264000a000002d122000000"),
        (Message::Next { after: 300 }, "04ac02"),
        (Message::Push { records: Bounded::first_of([record(2)]) }, "05010264000a000002d122000000"),
        (Message::Ping { accusation: Accusation::Nothing }, "0600"),
        (Message::Ping { accusation: Accusation::Suspected { generation: 200, incarnation: 2 } }, "0601c80102"),
        (Message::Ping { accusation: Accusation::Dead { generation: 1 } }, "060201"),
        (Message::Pong { sender: record(1) }, "070164000a000001d122000000"),
        (Message::Leaving { generation: 1 }, "0801"),
        (Message::News { records: Bounded::first_of([record(2)]) }, "09010264000a000002d122000000"),
    ];
    for (message, golden) in &messages {
        assert_eq!(&hex(message), golden);
        assert_eq!(&codec::decode::<Message<u32>>(&codec::encode(message)).unwrap(), message);
    }
}
