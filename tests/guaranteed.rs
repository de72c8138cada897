//! Guaranteed delivery between real nodes on loopback, whose connections break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::future::Future;
use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::node::SendError;
use meshwork::runtime::ReceiptError;
use meshwork::{Builder, ChannelId, Error, Node};

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
    let sender = on_loopback().start().await.unwrap();
    let receiver = on_loopback().join(sender.address().to_string()).start().await.unwrap();
    acquainted(&[&sender, &receiver]).await;
    (sender, receiver)
}

fn numbered(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

#[test]
fn ten_thousand_messages_survive_three_reconnections_in_order() {
    const COUNT: u32 = 10_000;
    run(async {
        let (sender, receiver) = pair().await;
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
