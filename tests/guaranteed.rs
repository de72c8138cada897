//! Guaranteed delivery between real nodes on loopback, whose connections break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::node::SendError;
use meshwork::runtime::ReceiptError;
use meshwork::{Builder, ChannelError, ChannelId, ChannelSpec, Error, Node};

fn on_loopback() -> Builder {
    Node::builder("guaranteed-test").secret(ClusterSecret::from_bytes([7; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test ends in time") })
}

async fn acquainted(nodes: &[&Node]) {
    for node in nodes {
        while node.neighbors().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn pair() -> (Node, Node) {
    pair_of(on_loopback(), on_loopback()).await
}

async fn pair_of(sender: Builder, receiver: Builder) -> (Node, Node) {
    let sender = sender.start().await.unwrap();
    let receiver = receiver.join(sender.address().to_string()).start().await.unwrap();
    acquainted(&[&sender, &receiver]).await;
    (sender, receiver)
}

fn orders() -> ChannelSpec {
    ChannelSpec::new("orders").guaranteed()
}

fn logs() -> ChannelSpec {
    ChannelSpec::new("logs").at_least_once()
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("meshwork-{name}-{}", std::process::id()))
}

/// A node in the place of one that was killed, which may hold its data folder for another moment.
async fn restarted(builder: impl Fn() -> Builder, directory: &Path, join: &str) -> Node {
    loop {
        match builder().data_dir(directory).join(join).start().await {
            Ok(node) => break node,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn numbered(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

#[test]
fn ten_thousand_messages_survive_loss_and_three_reconnections_in_order() {
    const COUNT: u32 = 10_000;
    run(async {
        // Each tells the other of the near end of a path to itself, so that both dial over paths that lose.
        let ((near_sender, to_sender), (near_receiver, to_receiver)) = (relay::door().await, relay::door().await);
        let loss = Arc::new(relay::Loss::default());
        let sender = on_loopback().advertise(to_sender).start().await.unwrap();
        tokio::spawn(relay::pass(near_sender, sender.listening(), loss.clone()));
        let receiver = on_loopback().advertise(to_receiver).join(to_sender.to_string()).start().await.unwrap();
        tokio::spawn(relay::pass(near_receiver, receiver.listening(), loss.clone()));
        acquainted(&[&sender, &receiver]).await;
        loss.is_on.store(true, Ordering::Relaxed);
        let mut messages = receiver.guaranteed();
        let to = receiver.id();
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move {
                let mut receipts = Vec::new();
                for number in 0..COUNT {
                    let payload = [&number.to_be_bytes()[..], &[7; 200]].concat();
                    receipts.push(sender.send_guaranteed(to, ChannelId::COORDINATION, payload).await.unwrap());
                }
                for receipt in receipts {
                    assert_eq!(receipt.await, Ok(()));
                }
            }
        });
        for number in 0..COUNT {
            let message = messages.next().await.unwrap();
            assert_eq!((numbered(message.payload()), message.from()), (number, sender.id()));
            assert_eq!(message.sequence(), u64::from(number) + 1);
            message.acknowledge();
            if number % 2_500 == 2_499 && number + 1 < COUNT {
                let before = receiver.report().await.unwrap().links.len();
                assert!(before > 0, "there is a connection to break");
                let breaking = if number % 5_000 == 4_999 { &receiver } else { &sender };
                breaking.break_links().await;
            }
        }
        sending.await.unwrap();
        let more = tokio::time::timeout(Duration::from_millis(500), messages.next()).await;
        assert!(more.is_err(), "none twice");
        assert!(loss.packets.load(Ordering::Relaxed) > 40, "the paths must hurt: {loss:?}");
        assert_eq!(sender.report().await.unwrap().counters.misbehaved.len(), 0);
        assert_eq!(receiver.report().await.unwrap().counters.misbehaved.len(), 0);
    });
}

#[test]
fn a_message_taken_by_nobody_arrives_again_and_one_that_was_taken_does_not() {
    run(async {
        let directory = std::env::temp_dir().join(format!("meshwork-guaranteed-{}", std::process::id()));
        let sender = on_loopback().start().await.unwrap();
        let join = sender.address().to_string();
        let start = || on_loopback().data_dir(&directory).join(join.clone()).start();
        let receiver = start().await.unwrap();
        acquainted(&[&sender, &receiver]).await;
        let mut messages = receiver.guaranteed();
        let to = receiver.id();
        let done = sender.send_guaranteed(to, ChannelId::DATA, "done").await.unwrap();
        let seen = sender.send_guaranteed(to, ChannelId::DATA, "seen").await.unwrap();
        messages.next().await.unwrap().acknowledge();
        assert_eq!(done.await, Ok(()));

        // The receiver lives through a reconnection with a message in hand: it is not handed out a second time.
        let message = messages.next().await.unwrap();
        assert_eq!(&message.payload()[..], b"seen");
        receiver.break_links().await;
        let after = sender.send_guaranteed(to, ChannelId::DATA, "after").await.unwrap();
        let second = messages.next().await.unwrap();
        assert_eq!(&second.payload()[..], b"after");

        // Dropped without a word, it comes again; and a later stream takes over.
        let named = (message.incarnation(), message.sequence());
        drop(second);
        drop(message);
        let mut others = receiver.guaranteed();
        assert!(messages.next().await.is_none());
        let again = others.next().await.unwrap();
        assert_eq!((again.incarnation(), again.sequence(), &again.payload()[..]), (named.0, named.1, &b"seen"[..]));

        // The process dies between receiving and acknowledging: the next one gets both, under the same names.
        receiver.kill().await;
        assert!(others.next().await.is_none());
        drop((again, receiver));
        // The killed node may hold its data folder for another moment.
        let receiver = loop {
            match start().await {
                Ok(node) => break node,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        assert_eq!(receiver.id(), to);
        let mut messages = receiver.guaranteed();
        let again = messages.next().await.unwrap();
        assert_eq!((again.incarnation(), again.sequence(), &again.payload()[..]), (named.0, named.1, &b"seen"[..]));
        again.acknowledge();
        assert_eq!(seen.await, Ok(()));
        let last = messages.next().await.unwrap();
        assert_eq!(&last.payload()[..], b"after");
        last.acknowledge();
        assert_eq!(after.await, Ok(()));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn a_slow_receiver_holds_up_the_sender_and_loses_nothing() {
    const COUNT: u32 = 4_000;
    run(async {
        let (sender, receiver) = pair().await;
        let to = receiver.id();
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move {
                for number in 0..COUNT {
                    let payload = [&number.to_be_bytes()[..], &[0; 4_000]].concat();
                    sender.send_guaranteed(to, ChannelId::DATA, payload).await.unwrap();
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!sending.is_finished(), "16 MB are more than the window");
        let mut messages = receiver.guaranteed();
        for number in 0..COUNT {
            let message = messages.next().await.unwrap();
            assert_eq!(numbered(message.payload()), number);
            message.acknowledge();
        }
        sending.await.unwrap();
    });
}

#[test]
fn what_cannot_be_delivered_is_told() {
    run(async {
        let (sender, receiver) = pair().await;
        let to = receiver.id();
        let refused = sender.send_guaranteed(to, ChannelId::CONTROL, "").await.unwrap_err();
        assert_eq!(refused, Error::Send(SendError::UnknownChannel(ChannelId::CONTROL)));
        let refused = sender.send_guaranteed(sender.id(), ChannelId::DATA, "").await.unwrap_err();
        assert_eq!(refused, Error::Send(SendError::Myself));

        let taken_by_nobody = sender.send_guaranteed(to, ChannelId::DATA, "left alone").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        receiver.leave().await;
        assert_eq!(taken_by_nobody.await, Err(ReceiptError::Undelivered { transmitted: true }));

        let late = sender.send_guaranteed_within(to, ChannelId::DATA, "late", Duration::from_millis(100)).await.unwrap();
        assert_eq!(late.await, Err(ReceiptError::Expired));
        let never = sender.send_guaranteed(to, ChannelId::DATA, "never").await.unwrap();
        sender.leave().await;
        assert_eq!(never.await, Err(ReceiptError::Stopped));
        assert!(sender.send_guaranteed(to, ChannelId::DATA, "").await.is_err());
    });
}

#[test]
fn defined_channels_keep_their_messages_across_connections() {
    const COUNT: u32 = 3_000;
    run(async {
        let define = || on_loopback().channel(orders()).channel(logs());
        let (sender, receiver) = pair_of(define(), define()).await;
        let mut messages = receiver.guaranteed();
        let to = receiver.id();
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move {
                let mut receipts = Vec::new();
                for number in 0..COUNT {
                    receipts.push(sender.send_guaranteed(to, "orders", number.to_be_bytes().to_vec()).await.unwrap());
                    // Without a receipt it is kept all the same.
                    sender.send(to, "logs", number.to_be_bytes().to_vec()).await.unwrap();
                }
                for receipt in receipts {
                    assert_eq!(receipt.await, Ok(()));
                }
            }
        });
        let (mut next_order, mut seen_logs, mut breaks) = (0, BTreeSet::new(), 0);
        while next_order < COUNT || seen_logs.len() < COUNT as usize {
            let message = messages.next().await.unwrap();
            let number = numbered(message.payload());
            if message.channel() == ChannelId::named("orders") {
                assert_eq!(number, next_order, "in order, none twice");
                next_order += 1;
                if number % 1_000 == 500 {
                    assert!(!sender.report().await.unwrap().links.is_empty(), "there is a connection to break");
                    sender.break_links().await;
                    breaks += 1;
                }
            } else {
                assert_eq!(message.channel(), ChannelId::named("logs"));
                assert!(seen_logs.insert(number), "no process died, so none is seen twice");
            }
            message.acknowledge();
        }
        assert_eq!(breaks, 3);
        sending.await.unwrap();
        let more = tokio::time::timeout(Duration::from_millis(500), messages.next()).await;
        assert!(more.is_err(), "none twice");
        for node in [&sender, &receiver] {
            assert_eq!(node.report().await.unwrap().counters.misbehaved.len(), 0);
        }
    });
}

#[test]
fn a_receiver_that_died_before_it_acknowledged_sees_messages_of_defined_channels_again() {
    run(async {
        let directory = folder("guaranteed-defined");
        let define = || on_loopback().channel(orders()).channel(logs());
        let sender = define().start().await.unwrap();
        let join = sender.address().to_string();
        let receiver = restarted(define, &directory, &join).await;
        acquainted(&[&sender, &receiver]).await;
        let to = receiver.id();
        let mut messages = receiver.guaranteed();
        let mut receipts = Vec::new();
        for channel in ["orders", "logs"] {
            for text in ["taken", "held"] {
                receipts.push(sender.send_guaranteed(to, channel, text).await.unwrap());
            }
        }
        let mut held = Vec::new();
        for _ in 0..4 {
            let message = messages.next().await.unwrap();
            if &message.payload()[..] == b"taken" {
                message.acknowledge();
            } else {
                held.push(message);
            }
        }
        // The acknowledgments are heard, those of the others never come. What is sent again after a second meanwhile is known here.
        let (second_of_logs, first_of_logs) = (receipts.pop().unwrap(), receipts.pop().unwrap());
        let (second_of_orders, first_of_orders) = (receipts.pop().unwrap(), receipts.pop().unwrap());
        assert_eq!((first_of_orders.await, first_of_logs.await), (Ok(()), Ok(())));
        let none = tokio::time::timeout(Duration::from_millis(1_500), messages.next()).await;
        assert!(none.is_err(), "once in one life of the receiver");
        let names: BTreeSet<_> = held.iter().map(|message| (message.channel(), message.incarnation(), message.sequence())).collect();
        receiver.kill().await;
        drop((held, receiver));

        let receiver = restarted(define, &directory, &join).await;
        assert_eq!(receiver.id(), to);
        let mut messages = receiver.guaranteed();
        let mut again = BTreeSet::new();
        for _ in 0..2 {
            let message = messages.next().await.unwrap();
            assert_eq!(&message.payload()[..], b"held");
            again.insert((message.channel(), message.incarnation(), message.sequence()));
            message.acknowledge();
        }
        assert_eq!(again, names, "under the names that they had");
        assert_eq!((second_of_orders.await, second_of_logs.await), (Ok(()), Ok(())));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn a_promise_that_the_peer_does_not_make_is_refused_and_no_fallback_takes_its_place() {
    run(async {
        let directory = folder("guaranteed-refused");
        let sender = on_loopback().channel(orders()).channel(logs()).channel(ChannelSpec::new("video")).channel_fallback("data");
        let sender = sender.start().await.unwrap();
        let join = sender.address().to_string();
        let other_terms = || on_loopback().channel(ChannelSpec::new("orders").at_least_once()).channel(logs());
        let receiver = restarted(other_terms, &directory, &join).await;
        acquainted(&[&sender, &receiver]).await;
        let to = receiver.id();
        match sender.send_guaranteed(to, "orders", "x").await.unwrap_err() {
            Error::Channel(problem) => assert!(matches!(*problem, ChannelError::ChannelMismatch { .. }), "{problem}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(sender.send(to, "orders", "x").await, Err(Error::Channel(_))));
        let kept = sender.send_guaranteed(to, "logs", "x").await.unwrap();
        let mut messages = receiver.guaranteed();
        messages.next().await.unwrap().acknowledge();
        assert_eq!(kept.await, Ok(()));

        // Channels of one kind are not used as those of another.
        let unsuited = |name: &str| Error::Send(SendError::Unsuited(name.into()));
        assert_eq!(sender.send_guaranteed(to, "video", "x").await.unwrap_err(), unsuited("video"));
        assert_eq!(sender.sender(to, "logs").await.unwrap_err(), unsuited("logs"));
        assert_eq!(receiver.receiver("logs").await.unwrap_err(), unsuited("logs"));

        // The peer starts anew without the channel: what is kept for it cannot be delivered, and that is told.
        receiver.kill().await;
        drop((messages, receiver));
        let kept = sender.send_guaranteed(to, "logs", "x").await.unwrap();
        let receiver = restarted(on_loopback, &directory, &join).await;
        assert_eq!(kept.await, Err(ReceiptError::Disagreed));
        let refused = sender.send_guaranteed(to, "logs", "x").await.unwrap_err();
        assert_eq!(refused, Error::Channel(Box::new(ChannelError::UnknownChannel { channel: "logs".into(), peer: receiver.id() })));
        // What is on the built-in channels goes on.
        let kept = sender.send_guaranteed(to, ChannelId::DATA, "x").await.unwrap();
        receiver.guaranteed().next().await.unwrap().acknowledge();
        assert_eq!(kept.await, Ok(()));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}
