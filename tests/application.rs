//! Applications beside real nodes on loopback: that callbacks come, that the chat works as in the simulator, and that a panic ends the application alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "../examples/chat/app.rs"]
mod chat;
#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use bytes::Bytes;
use meshwork::app::{Application, Context};
use meshwork::channels::reliable::Sequence;
use meshwork::crdt::Value;
use meshwork::node::{Delivery, Event, Settlement};
use meshwork::runtime::{Running, TellError};
use meshwork::{ChannelId, PeerId};

use chat::{Chat, Input, Line, Output};
use pair::{builder, run};

/// Waits for an output that is as it should be; passes over others.
async fn wait_for<A>(running: &mut Running<A>, mut is_it: impl FnMut(&A::Output) -> bool) -> A::Output
where
    A: Application<Input: Send + 'static, Output: Clone>,
{
    loop {
        let output = running.next().await.expect("the application lives");
        if is_it(&output) {
            return output;
        }
    }
}

async fn has_members(chat: &mut Running<Chat>, count: usize) {
    loop {
        chat.tell(Input::ShowMembers).await.unwrap();
        let Output::Members(members) = wait_for(chat, |output| matches!(output, Output::Members(_))).await else { unreachable!() };
        if members.len() == count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn history(chat: &mut Running<Chat>) -> Vec<Line> {
    chat.tell(Input::ShowHistory).await.unwrap();
    match wait_for(chat, |output| matches!(output, Output::History(_))).await {
        Output::History(lines) => lines,
        _ => unreachable!(),
    }
}

#[test]
fn whoever_comes_late_to_the_chat_sees_what_was_said() {
    run(async {
        let mut ann = builder().start_with(Chat::new("ann")).await.unwrap();
        let join = ann.node().address().to_string();
        let mut ben = builder().join(join.clone()).start_with(Chat::new("ben")).await.unwrap();
        has_members(&mut ann, 2).await;
        ann.tell(Input::Say("is anybody here?".to_owned())).await.unwrap();
        wait_for(&mut ben, |output| matches!(output, Output::Said(line) if line.name == "ann")).await;
        ben.tell(Input::Say("I am".to_owned())).await.unwrap();
        wait_for(&mut ann, |output| matches!(output, Output::Said(line) if line.name == "ben")).await;

        let mut cat = builder().join(join).start_with(Chat::new("cat")).await.unwrap();
        wait_for(&mut cat, |output| matches!(output, Output::Said(line) if line.name == "ann")).await;
        while history(&mut cat).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let expected = [("ann", "is anybody here?"), ("ben", "I am")];
        let expected = expected.map(|(name, text)| Line { name: name.to_owned(), text: text.to_owned() });
        for chat in [&mut ann, &mut ben, &mut cat] {
            assert_eq!(history(chat).await, expected);
        }
        let gone = cat.node().id();
        cat.node().leave().await;
        wait_for(&mut ann, |output| *output == Output::Went(gone)).await;
        assert_eq!(cat.tell(Input::ShowHistory).await, Err(TellError::Stopped));
        while cat.next().await.is_some() {}
        assert_eq!(cat.panicked(), None);
    });
}

/// Does one thing of each kind.
struct Everything;

#[derive(Clone, Debug)]
enum Do {
    Greet,
    SendTo(PeerId),
    Wait(Duration),
    Count(u64),
    Panic,
}

#[derive(Clone, Debug, PartialEq)]
enum Saw {
    Start,
    Neighbor(PeerId),
    Broadcast(PeerId, Bytes),
    Message(PeerId, ChannelId, Bytes),
    Alarm(u64),
    Taken(PeerId),
}

impl Application for Everything {
    type Input = Do;
    type Output = Saw;

    fn on_start(&mut self, context: &mut Context<'_, Self>) {
        context.output(Saw::Start);
    }

    fn on_input(&mut self, input: Do, context: &mut Context<'_, Self>) {
        match input {
            Do::Greet => drop(context.broadcast("all").unwrap()),
            Do::SendTo(to) => {
                context.send(to, ChannelId::COORDINATION, "one").unwrap();
                context.send_guaranteed(to, ChannelId::DATA, "for sure").unwrap();
            }
            Do::Wait(time) => context.set_alarm(7, time),
            Do::Count(count) => (0..count).for_each(|number| context.output(Saw::Alarm(number))),
            Do::Panic => panic!("as I was told"),
        }
    }

    fn on_broadcast(&mut self, delivery: Delivery, context: &mut Context<'_, Self>) {
        context.output(Saw::Broadcast(delivery.id.origin, delivery.payload));
    }

    fn on_message(&mut self, from: PeerId, channel: ChannelId, payload: Bytes, context: &mut Context<'_, Self>) {
        context.output(Saw::Message(from, channel, payload));
    }

    fn on_event(&mut self, event: &Event, context: &mut Context<'_, Self>) {
        if let Event::NeighborUp(peer) = event {
            context.output(Saw::Neighbor(*peer));
        }
    }

    fn on_alarm(&mut self, alarm: u64, context: &mut Context<'_, Self>) {
        context.output(Saw::Alarm(alarm));
    }

    fn on_settled(&mut self, to: PeerId, _: ChannelId, _: Sequence, outcome: &Settlement, context: &mut Context<'_, Self>) {
        if *outcome == Settlement::Taken {
            context.output(Saw::Taken(to));
        }
    }
}

#[test]
fn callbacks_come_and_a_panic_ends_the_application_alone() {
    run(async {
        let mut a = builder().start_with(Everything).await.unwrap();
        let mut b = builder().join(a.node().address().to_string()).start_with(Everything).await.unwrap();
        assert_eq!(a.next().await, Some(Saw::Start));
        let (at_a, at_b) = (a.node().id(), b.node().id());
        wait_for(&mut a, |saw| *saw == Saw::Neighbor(at_b)).await;
        // What is broadcast reaches the application and a subscriber.
        let mut subscription = b.node().subscribe();
        a.tell(Do::Greet).await.unwrap();
        a.tell(Do::SendTo(at_b)).await.unwrap();
        let mut awaited = vec![
            Saw::Broadcast(at_a, Bytes::from_static(b"all")),
            Saw::Message(at_a, ChannelId::COORDINATION, Bytes::from_static(b"one")),
            Saw::Message(at_a, ChannelId::DATA, Bytes::from_static(b"for sure")),
        ];
        while !awaited.is_empty() {
            let saw = b.next().await.unwrap();
            awaited.retain(|awaited| *awaited != saw);
        }
        assert_eq!(subscription.next().await.unwrap().payload, "all");
        wait_for(&mut a, |saw| *saw == Saw::Taken(at_b)).await;
        a.tell(Do::Wait(Duration::from_millis(30))).await.unwrap();
        wait_for(&mut a, |saw| *saw == Saw::Alarm(7)).await;

        b.tell(Do::Panic).await.unwrap();
        while b.next().await.is_some() {}
        assert_eq!(b.panicked(), Some("as I was told"));
        assert_eq!(b.tell(Do::Greet).await, Err(TellError::Panicked("as I was told".to_owned())));
        // The node goes on.
        b.node().state().set("still", "there").await.unwrap();
        let mut watch = a.node().state().watch("still").await.unwrap();
        assert_eq!(watch.next().await.unwrap().value, Some(Value::Lww(Bytes::from_static(b"there"))));
        assert_eq!(b.node().neighbors().await.unwrap(), [at_a]);
    });
}

#[test]
fn an_owner_that_falls_behind_is_told_how_much_it_lost() {
    run(async {
        let mut a = builder().start_with(Everything).await.unwrap();
        assert_eq!(a.next().await, Some(Saw::Start));
        a.tell(Do::Count(16_400)).await.unwrap();
        // Answered after it.
        a.tell(Do::Wait(Duration::ZERO)).await.unwrap();
        a.node().state().set("told", "both").await.unwrap();
        let first = a.next().await;
        assert!(matches!(first, Some(Saw::Alarm(number)) if number >= 16), "{first:?}");
        assert!(a.lost() >= 16);
        wait_for(&mut a, |saw| *saw == Saw::Alarm(7)).await;
    });
}
