//! A few meshes by hand.

use std::collections::VecDeque;

use meshwork_channels::{decode, encode};

use super::*;

type Sent = (u32, u32, Message);

struct Cores {
    now: Time,
    states: Vec<State<u32>>,
    wire: VecDeque<Sent>,
    events: Vec<(u32, Action<u32>)>,
    cut: Vec<u32>,
    sent: usize,
}

impl Cores {
    fn new(count: u32, config: Config) -> Self {
        let params = config.build().unwrap();
        Cores {
            now: Time::from_secs(1),
            states: (0..count).map(|me| State::new(me, params.clone(), u64::from(me) + 1)).collect(),
            wire: VecDeque::new(),
            events: Vec::new(),
            cut: Vec::new(),
            sent: 0,
        }
    }

    fn input(&mut self, me: u32, input: Input<u32>) {
        let mut actions = Vec::new();
        self.states[me as usize].handle(input, self.now, &mut actions);
        for action in actions {
            match action {
                Action::Send { to, message: TopologyMessage::Mesh(message) } => {
                    self.sent += 1;
                    self.wire.push_back((me, to, message));
                }
                other => self.events.push((me, other)),
            }
        }
    }

    /// Delivers until the wire is silent.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some((from, to, message)) = self.wire.pop_front() else { return };
            if self.cut.contains(&from) || self.cut.contains(&to) {
                self.input(from, Input::Unreachable(to));
            } else if (to as usize) < self.states.len() {
                self.input(to, Input::Received { from, message: TopologyMessage::Mesh(message) });
            }
        }
        panic!("the exchange never ends");
    }

    fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while let Some((at, me)) = (0..self.states.len()).filter_map(|me| Some((self.states[me].next_deadline()?, me))).min() {
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            self.input(me as u32, Input::DeadlineReached);
            self.settle();
        }
        self.now = end;
    }

    fn everybody_up(&mut self) {
        for me in 0..self.states.len() as u32 {
            for peer in (0..self.states.len() as u32).filter(|peer| *peer != me) {
                self.input(me, Input::MemberUp(peer));
            }
        }
        self.settle();
    }

    fn view(&self, me: u32) -> &[u32] {
        self.states[me as usize].neighbors()
    }

    fn take_events(&mut self, me: u32) -> Vec<Action<u32>> {
        let (mine, others) = std::mem::take(&mut self.events).into_iter().partition(|(who, _)| *who == me);
        self.events = others;
        mine.into_iter().map(|(_, action)| action).collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn members_link_whoever_hears_first() {
    let mut cores = Cores::new(5, Config::default());
    cores.everybody_up();
    for me in 0..5 {
        assert_eq!(cores.view(me).len(), 4);
        assert_eq!(cores.take_events(me).len(), 4, "each neighbor is up once");
    }
    let sent = cores.sent;
    cores.run_for(25 * SECOND);
    assert!(cores.sent - sent <= 5 * 4 * 4, "checks alone go on: {}", cores.sent - sent);
    assert!(cores.events.is_empty(), "{:?}", cores.events);
}

#[test]
fn one_side_that_knows_is_enough() {
    let mut cores = Cores::new(2, Config::default());
    cores.input(0, Input::Join { contact: 1 });
    let first = cores.wire.clone();
    cores.settle();
    assert_eq!((cores.view(0), cores.view(1)), (&[1][..], &[0][..]));
    // The same request again, late: an answer, and no change.
    cores.events.clear();
    cores.wire.extend(first);
    cores.settle();
    assert!(cores.events.is_empty(), "{:?}", cores.events);
}

#[test]
fn a_lost_exchange_is_repeated_until_the_link_stands() {
    let mut cores = Cores::new(2, Config::default());
    cores.input(0, Input::MemberUp(1));
    cores.wire.clear();
    cores.run_for(2 * SECOND);
    assert_eq!(cores.view(0), [1]);

    // The last word of the exchange is lost: one side is up alone until the other retries.
    let mut cores = Cores::new(2, Config::default());
    cores.input(0, Input::MemberUp(1));
    for _ in 0..2 {
        let (from, to, message) = cores.wire.pop_front().unwrap();
        cores.input(to, Input::Received { from, message: TopologyMessage::Mesh(message) });
    }
    cores.wire.clear();
    assert_eq!((cores.view(0), cores.view(1)), (&[1][..], &[][..]));
    cores.run_for(2 * SECOND);
    assert_eq!(cores.view(1), [0]);
}

#[test]
fn a_link_lost_on_one_side_starts_over_on_both() {
    let mut cores = Cores::new(2, Config::default());
    cores.everybody_up();
    cores.events.clear();
    // Node 1 restarts so fast that nobody sees it.
    cores.states[1] = State::new(1, Params::default(), 77);
    assert_eq!((cores.view(0), cores.view(1)), (&[1][..], &[][..]));
    cores.run_for(12 * SECOND);
    assert_eq!((cores.view(0), cores.view(1)), (&[1][..], &[0][..]));
    assert_eq!(cores.take_events(0), [Action::NeighborDown(1, DownReason::Disconnected), Action::NeighborUp(1)]);
}

#[test]
fn neighbors_go_down_with_their_reasons() {
    let mut cores = Cores::new(4, Config::default());
    cores.everybody_up();
    cores.events.clear();
    cores.input(0, Input::MemberDown(1));
    assert_eq!(cores.take_events(0), [Action::NeighborDown(1, DownReason::Failed)]);

    cores.cut = vec![1, 2];
    cores.input(0, Input::Unreachable(2));
    assert_eq!(cores.take_events(0), [Action::NeighborDown(2, DownReason::Disconnected)]);
    cores.run_for(5 * SECOND);
    assert_eq!(cores.view(0), [3]);
    cores.cut.clear();
    cores.run_for(2 * SECOND);
    assert_eq!(cores.view(0), [2, 3], "a member is retried every second, one that is down is not");
    cores.input(0, Input::MemberBack(1));
    cores.settle();
    assert_eq!(cores.view(0), [1, 2, 3]);

    cores.events.clear();
    cores.input(3, Input::Leave);
    cores.settle();
    assert_eq!(cores.take_events(3).len(), 3);
    assert_eq!(cores.take_events(0), [Action::NeighborDown(3, DownReason::Left)]);
    cores.run_for(30 * SECOND);
    assert_eq!((cores.view(3), cores.view(0)), (&[][..], &[1, 2][..]));
    // It changes its mind.
    cores.input(3, Input::Join { contact: 0 });
    cores.settle();
    assert_eq!(cores.view(3), [0]);
}

#[test]
fn a_contact_is_retried_for_ever_and_a_stranger_is_not() {
    let mut cores = Cores::new(2, Config::default());
    cores.cut = vec![1];
    cores.input(0, Input::Join { contact: 1 });
    // A stranger that never completes the exchange.
    let message = TopologyMessage::Mesh(Message::Link { mine: 9, yours: None });
    cores.input(0, Input::Received { from: 9, message });
    assert_eq!(cores.states[0].halves.len(), 2);
    cores.run_for(200 * SECOND);
    assert_eq!(cores.states[0].halves.len(), 1, "the stranger is forgotten");
    let sent = cores.sent;
    cores.run_for(200 * SECOND);
    assert!((5..15).contains(&(cores.sent - sent)), "{} attempts", cores.sent - sent);
    cores.cut.clear();
    cores.run_for(40 * SECOND);
    assert_eq!(cores.view(0), [1]);
}

#[test]
fn a_full_mesh_refuses_and_counts() {
    let mut cores = Cores::new(4, Config { neighbors_len_max: 2, ..Config::default() });
    cores.everybody_up();
    cores.run_for(5 * SECOND);
    assert!((0..4).all(|me| cores.view(me).len() <= 2));
    assert!(cores.states.iter().any(|state| state.refused() > 0));
    let sent = cores.sent;
    cores.run_for(30 * SECOND);
    assert!(cores.sent - sent < 120, "refused peers do not insist: {}", cores.sent - sent);
    // Whoever is there may answer a peer that was refused once a place is free.
    let (one, other) = (cores.view(0)[0], cores.view(0)[1]);
    cores.input(0, Input::MemberDown(one));
    let newcomer = (1..4).find(|peer| *peer != one && *peer != other).unwrap();
    cores.input(0, Input::MemberUp(newcomer));
    cores.settle();
    assert!(cores.states[0].halves.iter().any(|half| half.peer == newcomer));
}

#[test]
fn hostile_messages_change_nothing() {
    let mut cores = Cores::new(2, Config::default());
    cores.everybody_up();
    cores.events.clear();
    let unlink = |link| Input::Received { from: 1, message: TopologyMessage::Mesh(Message::Unlink { link, reason: Unlinked::Leaving }) };
    cores.input(0, unlink(12345));
    assert_eq!(cores.view(0), [1], "a late farewell");
    cores.input(0, Input::Received { from: 0, message: TopologyMessage::Mesh(Message::Link { mine: 1, yours: None }) });
    let foreign = TopologyMessage::Hyparview(crate::hyparview::Message::Alive { link: 1 });
    cores.input(0, Input::Received { from: 1, message: foreign });
    let expected = [(0, Misbehavior::OwnName), (1, Misbehavior::WrongTopology)].map(|(peer, what)| Action::Misbehaved { peer, what });
    assert_eq!(cores.take_events(0), expected);
    // Strangers cannot take more than the places that are free.
    for stranger in 10..1_000 {
        cores.input(0, Input::Received { from: stranger, message: TopologyMessage::Mesh(Message::Link { mine: 1, yours: Some(2) }) });
    }
    assert_eq!(cores.states[0].halves.len(), 256);
    assert_eq!(cores.view(0), [1]);
}

#[test]
fn configurations_are_checked() {
    assert!(Config { attempts_len_max: 1, neighbors_len_max: 1, ..Config::default() }.build().is_ok());
    let error = Config { neighbors_len_max: 0, ..Config::default() }.build().unwrap_err();
    assert_eq!(error.to_string(), "neighbors_len_max is 0; it must be 1 to 4096");
    let error = Config { retry_period_max: Duration::ZERO, ..Config::default() }.build().unwrap_err();
    assert_eq!(error.field, "retry_period_max");
}

#[test]
fn golden_bytes() {
    for (message, hex) in [
        (Message::Link { mine: 300, yours: None }, "00ac0200"),
        (Message::Link { mine: 1, yours: Some(2) }, "00010102"),
        (Message::Unlink { link: 5, reason: Unlinked::Leaving }, "010500"),
        (Message::Unlink { link: 5, reason: Unlinked::Full }, "010501"),
    ] {
        let bytes = encode(&message);
        assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex, "{message:?}");
        assert_eq!(decode(&bytes), Ok(message));
    }
}
