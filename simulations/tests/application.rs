//! Applications on simulated nodes: that every callback comes, in each life, that a run can be repeated, and that what an application gets wrong is found.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, in which a panic is the verdict")]

use std::time::Duration;

use bytes::Bytes;
use meshwork::app::{Application, Context};
use meshwork::crdt::Value;
use meshwork::node::{Delivery, Event, Settlement};
use meshwork::{ChannelId, PeerId};
use meshwork_channels::reliable::Sequence;
use meshwork_simulations::app::{Play, Played, Said};
use meshwork_simulations::plan::{Plan, SECOND};
use meshwork_simulations::run::Class;
use meshwork_simulations::scenarios::Scenario;
use meshwork_simulations::schedule::Happening;

const NODES: u32 = 8;

/// Cut in two from the 27th second to the 57th; node 5 crashes before that and comes back.
fn plan(seed: u64) -> Plan {
    let mut plan = Scenario::named("partition").unwrap().plan(NODES, seed, &[]).unwrap();
    plan.schedule.push(20 * SECOND, Happening::Crash { node: 5 });
    plan.schedule.push(25 * SECOND, Happening::Restart { node: 5, contacts: vec![0, 1], moved: false, remembers: false, disk: false });
    plan
}

/// Sends something to a member drawn by chance every second, and notes what happens.
struct Pen {
    sent: u32,
}

#[derive(Clone, Debug, PartialEq)]
enum Note {
    Started,
    Told(&'static str),
    Joined(PeerId),
    Sent(u32),
    Got(PeerId, ChannelId, Bytes),
    Settled(PeerId, ChannelId, Settlement),
    Changed(String),
}

const NEXT: u64 = 1;

impl Application for Pen {
    type Input = &'static str;
    type Output = Note;

    fn on_start(&mut self, context: &mut Context<'_, Self>) {
        assert_eq!(context.neighbors(), []);
        context.output(Note::Started);
        context.set_alarm(NEXT, Duration::from_secs(1));
    }

    fn on_input(&mut self, input: &'static str, context: &mut Context<'_, Self>) {
        context.output(Note::Told(input));
        context.set(input, "by its owner").unwrap();
    }

    fn on_alarm(&mut self, alarm: u64, context: &mut Context<'_, Self>) {
        assert_eq!(alarm, NEXT);
        if self.sent < 30 {
            context.set_alarm(NEXT, Duration::from_secs(1));
        }
        let me = context.id();
        let others: Vec<PeerId> =
            context.members().filter(|member| member.status.is_up() && member.peer != me).map(|member| member.peer).collect();
        if others.is_empty() {
            return;
        }
        let to = others[context.random() as usize % others.len()];
        context.send_guaranteed(to, ChannelId::DATA, self.sent.to_string()).unwrap();
        context.send(to, ChannelId::COORDINATION, "maybe").unwrap();
        context.output(Note::Sent(self.sent));
        self.sent += 1;
    }

    fn on_message(&mut self, from: PeerId, channel: ChannelId, payload: Bytes, context: &mut Context<'_, Self>) {
        context.output(Note::Got(from, channel, payload));
    }

    fn on_settled(&mut self, to: PeerId, channel: ChannelId, _: Sequence, outcome: &Settlement, context: &mut Context<'_, Self>) {
        context.output(Note::Settled(to, channel, outcome.clone()));
    }

    fn on_change(&mut self, key: &str, _: Option<&Value>, context: &mut Context<'_, Self>) {
        context.output(Note::Changed(key.to_owned()));
    }

    fn on_event(&mut self, event: &Event, context: &mut Context<'_, Self>) {
        if let Event::MemberJoined(member) = event {
            context.output(Note::Joined(member.peer));
        }
    }
}

fn play(seed: u64) -> Played<Pen> {
    let play = Play::new(plan(seed), |_| Pen { sent: 0 });
    // One to a node that is dead at that moment.
    play.tell(30 * SECOND, 3, "color").tell(22 * SECOND, 5, "nobody").run().unwrap()
}

#[test]
fn every_callback_comes_in_each_life() {
    let played = play(1);
    assert!(played.outcome.ok, "{:?}", played.outcome.failure);
    assert_eq!(played.outcome.metric("tell"), Some(1.0));
    let nodes = played.nodes();
    for node in 0..NODES {
        let notes: Vec<&Note> = nodes.outputs_of(node).collect();
        assert_eq!(notes[0], &Note::Started);
        let lives = if node == 5 { 2 } else { 1 };
        assert_eq!(notes.iter().filter(|note| ***note == Note::Started).count(), lives);
        assert_eq!(notes.iter().filter(|note| ***note == Note::Changed("color".to_owned())).count(), 1, "node {node}");
        assert!(notes.iter().filter(|note| matches!(note, Note::Joined(_))).count() >= NODES as usize - 1);
        let got = |on| notes.iter().filter(move |note| matches!(note, Note::Got(_, channel, _) if *channel == on)).count();
        assert!(got(ChannelId::DATA) > 0 && got(ChannelId::COORDINATION) > 0, "node {node}");
        assert!(notes.iter().any(|note| matches!(note, Note::Settled(_, ChannelId::DATA, Settlement::Taken))), "node {node}");
        assert_eq!(nodes.app(node).unwrap().sent, 31);
        assert_eq!(nodes.value(node, "color").unwrap(), "by its owner");
    }
    let told: Vec<&Said<Note>> = nodes.outputs().iter().filter(|said| matches!(said.output, Note::Told(_))).collect();
    assert_eq!(told, [&Said { at: 30 * SECOND, node: 3, life: 1, output: Note::Told("color") }]);
    assert!(nodes.outputs().iter().filter(|said| said.life == 2).all(|said| said.node == 5 && said.at >= 25 * SECOND));
    assert!(nodes.outputs().is_sorted_by_key(|said| said.at));
    // What was sent for sure came once and in order, from each life of each node to each life of another that was there to the end.
    for to in (0..NODES).filter(|node| *node != 5) {
        let mut last = std::collections::BTreeMap::new();
        for note in nodes.outputs_of(to) {
            if let Note::Got(from, ChannelId::DATA, payload) = note
                && *from != meshwork_simulations::host::peer_id(1, 5)
            {
                let number: u32 = std::str::from_utf8(payload).unwrap().parse().unwrap();
                assert!(last.insert(*from, number).is_none_or(|before| before < number), "{note:?} at {to}");
            }
        }
    }
}

#[test]
fn a_run_with_an_application_can_be_repeated() {
    let (one, two, other) = (play(1), play(1), play(2));
    assert_eq!(one.outcome.digest, two.outcome.digest);
    assert_eq!(one.nodes().outputs(), two.nodes().outputs());
    assert_ne!(one.outcome.digest, other.outcome.digest);
}

/// A chat that keeps what it hears, in the order in which it hears it.
struct Hearsay {
    heard: Vec<String>,
}

impl Application for Hearsay {
    type Input = String;
    type Output = ();

    fn on_input(&mut self, line: String, context: &mut Context<'_, Self>) {
        context.broadcast(line.clone()).unwrap();
        self.heard.push(line);
    }

    fn on_broadcast(&mut self, delivery: Delivery, _: &mut Context<'_, Self>) {
        assert_ne!(delivery.payload, "a panic");
        self.heard.push(String::from_utf8_lossy(&delivery.payload).into_owned());
    }
}

fn hearsay() -> Play<Hearsay> {
    Play::new(plan(1), |_| Hearsay { heard: Vec::new() })
}

#[test]
fn what_a_partition_breaks_is_found() {
    let mut play = hearsay();
    for number in 0..40_u32 {
        play = play.tell(30 * SECOND + u64::from(number) * SECOND / 4, number % 5, format!("line {number}"));
    }
    let play = play.eventually("histories are equal", |nodes| {
        let heard = |node| nodes.app(node).map(|app: &Hearsay| &app.heard);
        let other = nodes.alive().find(|node| heard(*node) != heard(0));
        other.map_or(Ok(()), |node| Err(format!("node {node} has another history than node 0")))
    });
    let outcome = play.run().unwrap().outcome;
    let failure = outcome.failure.unwrap();
    assert_eq!((failure.class, failure.what.as_str()), (Class::Liveness, "histories are equal"));
    assert!(outcome.invariants.iter().any(|verdict| verdict.name == "histories are equal" && !verdict.ok));
}

#[test]
fn what_must_always_hold_ends_the_run_when_it_does_not() {
    let play = hearsay().tell(30 * SECOND, 3, "a secret".to_owned());
    let play = play.always("nobody hears anything", |nodes| {
        match nodes.alive().any(|node| nodes.app(node).is_some_and(|app| !app.heard.is_empty())) {
            true => Err("somebody heard something".to_owned()),
            false => Ok(()),
        }
    });
    let failure = play.run().unwrap().outcome.failure.unwrap();
    assert_eq!((failure.class, failure.what.as_str(), failure.at), (Class::Safety, "nobody hears anything", 30 * SECOND));
}

#[test]
fn a_node_that_the_plan_does_not_have_is_refused() {
    let play = hearsay().tell(SECOND, NODES, "is anybody there?".to_owned());
    assert_eq!(play.run().err().unwrap(), "there is no node 8 among 8");
}

#[test]
#[should_panic(expected = "assertion `left != right` failed")]
fn a_panic_goes_through_to_the_test() {
    let _ = hearsay().tell(30 * SECOND, 3, "a panic".to_owned()).run();
}
