//! An application beside one node, driven by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use meshwork_channels::WallTime;

use super::*;
use crate::node::{Config, Identity};

/// Does what its inputs say, and notes every callback as an output.
#[derive(Debug)]
struct Diary;

enum Do {
    Set(&'static str, &'static str),
    Remove(&'static str),
    Alarm(u64, Duration),
    Cancel(u64),
    Broadcast(usize),
    Send(PeerId),
    Random,
    Panic,
}

impl Application for Diary {
    type Input = Do;
    type Output = String;

    fn on_start(&mut self, context: &mut Context<'_, Self>) {
        context.output(format!("start {}", context.members().count()));
        context.set("first", "here").unwrap();
    }

    fn on_input(&mut self, input: Do, context: &mut Context<'_, Self>) {
        let answer = match input {
            Do::Set(key, value) => format!("{:?}", context.set(key, value).map(drop)),
            Do::Remove(key) => format!("{:?}", context.remove(key).map(|stamp| stamp.is_some())),
            Do::Alarm(alarm, after) => format!("{:?}", context.set_alarm(alarm, after)),
            Do::Cancel(alarm) => format!("{}", context.cancel_alarm(alarm)),
            Do::Broadcast(len) => format!("{:?}", context.broadcast(vec![0; len]).map(|sent| sent.neighbors)),
            Do::Send(to) => format!("{:?}", context.send(to, ChannelId::DATA, "hello")),
            Do::Random => format!("{}", context.random()),
            Do::Panic => panic!("as I was told"),
        };
        context.output(answer);
    }

    fn on_change(&mut self, key: &str, value: Option<&Value>, context: &mut Context<'_, Self>) {
        context.output(format!("{key} is {:?}", value.and_then(Value::bytes)));
        match key {
            // Reacts to its own write once, or for ever.
            "first" => drop(context.set("second", "here too").unwrap()),
            "endless" => {
                let other = context.random().to_string();
                context.set("endless", other).unwrap();
            }
            _ => {}
        }
    }

    fn on_alarm(&mut self, alarm: u64, context: &mut Context<'_, Self>) {
        context.output(format!("alarm {alarm} at {}", context.now().time));
        match alarm {
            1 => context.set_alarm(1, Duration::ZERO),
            2 => drop(context.cancel_alarm(3)),
            _ => {}
        }
    }
}

struct Table {
    node: Node,
    runner: Runner<Diary>,
    now: Now,
}

impl Table {
    fn new(seed: u64) -> Self {
        let now = Now { time: Time::from_secs(1), wall: WallTime::from_millis(1_800_000_000_000) };
        let identity = Identity { peer: PeerId::from_bytes([1; 32]), incarnation: 1, address: ([10, 0, 0, 1], 7_000).into() };
        let node = Node::new(identity, Config::default().build().unwrap(), seed, now);
        let mut table = Table { node, runner: Runner::new(Diary, seed), now };
        table.with(|runner, node, now, actions| runner.start(node, now, actions));
        table
    }

    fn with(&mut self, act: impl FnOnce(&mut Runner<Diary>, &mut Node, Now, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        act(&mut self.runner, &mut self.node, self.now, &mut actions);
        self.runner.react(&mut self.node, self.now, &mut actions);
    }

    fn told(&mut self) -> Vec<String> {
        self.runner.take_outputs().collect()
    }

    fn tell(&mut self, input: Do) -> Vec<String> {
        self.with(|runner, node, now, actions| runner.tell(input, node, now, actions));
        self.told()
    }

    fn wake(&mut self, secs: u64) -> Vec<String> {
        self.now.time = Time::from_secs(secs);
        self.with(|runner, node, now, actions| runner.on_deadline(node, now, actions));
        self.told()
    }
}

#[test]
fn what_an_application_does_comes_back_to_it_after_the_callback() {
    let mut table = Table::new(1);
    assert_eq!(table.told(), ["start 1", "first is Some(b\"here\")", "second is Some(b\"here too\")"]);
    assert_eq!(table.tell(Do::Set("color", "green")), ["Ok(())", "color is Some(b\"green\")"]);
    assert_eq!(table.tell(Do::Remove("color")), ["Ok(true)", "color is None"]);
    assert_eq!(table.tell(Do::Remove("color")), ["Ok(false)"]);
}

#[test]
fn what_is_refused_is_answered_with_the_errors_of_the_node() {
    let mut table = Table::new(1);
    table.told();
    assert_eq!(table.tell(Do::Set("", "nothing")), ["Err(KeyEmpty)"]);
    assert_eq!(table.tell(Do::Broadcast(1)), ["Ok(0)"]);
    assert_eq!(table.tell(Do::Broadcast(65_537)), ["Err(TooLarge { len: 65537, len_max: 65536 })"]);
    let nobody = PeerId::from_bytes([9; 32]);
    assert_eq!(table.tell(Do::Send(nobody)), [format!("Err(UnknownPeer({nobody:?}))")]);
}

#[test]
fn alarms_come_once_in_the_order_of_their_times() {
    let mut table = Table::new(1);
    table.told();
    let seconds = Duration::from_secs;
    for (alarm, after) in [(2, 2), (3, 2), (1, 1), (7, 60), (8, 1), (9, 1)] {
        table.tell(Do::Alarm(alarm, seconds(after)));
    }
    // Set anew, and taken back.
    table.tell(Do::Alarm(8, seconds(60)));
    assert_eq!(table.tell(Do::Cancel(9)), ["true"]);
    assert_eq!(table.runner.next_deadline(), Some(Time::from_secs(2)));
    // 1 sets itself again at once, and has to wait all the same; 2 takes 3 back before its turn.
    assert_eq!(table.wake(3), ["alarm 1 at 3.000000s", "alarm 2 at 3.000000s"]);
    assert_eq!(table.tell(Do::Cancel(1)), ["true"]);
    assert_eq!(table.runner.next_deadline(), Some(Time::from_secs(61)));
    assert_eq!(table.wake(100), ["alarm 7 at 100.000000s", "alarm 8 at 100.000000s"]);
    assert_eq!(table.runner.next_deadline(), None);
}

#[test]
fn chance_comes_from_the_seed() {
    let drawn = |seed| Table::new(seed).tell(Do::Random).pop();
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn a_panic_of_the_application_is_not_taken_for_one_of_the_node() {
    let mut table = Table::new(1);
    assert!(catch_unwind(AssertUnwindSafe(|| table.tell(Do::Panic))).is_err());
    assert!(!table.runner.is_in_node());
    // The node is whole.
    let mut actions = Vec::new();
    table.node.set("still", Bytes::from_static(b"there"), table.now, &mut actions).unwrap();
    assert!(!actions.is_empty());
}

#[test]
fn a_reaction_without_end_ends() {
    let mut table = Table::new(1);
    let panic = catch_unwind(AssertUnwindSafe(|| table.tell(Do::Set("endless", "0")))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the application reacts to its own doing without end"));
    assert!(!table.runner.is_in_node());
}
