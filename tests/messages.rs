//! Messages between two real nodes past the protocol thread: complete, in order, bounded, and with an answer when that cannot be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meshwork::channels::{ClusterSecret, PeerId, limits};
use meshwork::node::{CallError, SendError};
use meshwork::runtime::TrySendError;
use meshwork::{ChannelId, Error, Node};
use pair::{pair, run, until};

fn numbered(key: u64, number: u64, len: usize) -> Bytes {
    let mut payload = vec![0; len.max(16)];
    payload[..8].copy_from_slice(&key.to_le_bytes());
    payload[8..16].copy_from_slice(&number.to_le_bytes());
    payload.into()
}

fn read(payload: &[u8]) -> (u64, u64) {
    (u64::from_le_bytes(payload[..8].try_into().unwrap()), u64::from_le_bytes(payload[8..16].try_into().unwrap()))
}

#[test]
fn a_hundred_thousand_messages_of_each_key_keep_their_order() {
    run(async {
        const KEYS: u64 = 7;
        const COUNT: u64 = 100_000;
        let (a, b) = pair().await;
        let mut inbox = b.receiver(ChannelId::DATA).await.unwrap();
        let sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        assert_eq!((sender.peer(), sender.channel()), (b.id(), ChannelId::DATA));
        for key in 0..KEYS {
            let mut sender = sender.with_key(&key.to_le_bytes());
            tokio::spawn(async move {
                for number in 0..COUNT {
                    sender.send(numbered(key, number, 16)).await.unwrap();
                }
            });
        }
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut messages = Vec::new();
        let mut left = KEYS * COUNT;
        while left > 0 {
            let got = inbox.recv_many(&mut messages, 1_000).await;
            assert!(got > 0 && got == messages.len());
            left -= got as u64;
            for message in messages.drain(..) {
                assert_eq!((message.from, message.channel), (a.id(), ChannelId::DATA));
                let (key, number) = read(&message.payload);
                let next = next.entry(key).or_default();
                assert_eq!(number, *next, "key {key}");
                *next += 1;
            }
        }
        assert!(next.values().all(|next| *next == COUNT));
        // What was counted is what was sent; ours, for these channels carry nothing else to this peer.
        let report = a.report().await.unwrap();
        let link = report.links.iter().find(|link| link.peer == b.id()).unwrap();
        let data = link.channels.iter().find(|channel| channel.channel == ChannelId::DATA).unwrap();
        assert_eq!(data.sent_frames, KEYS * COUNT);
    });
}

#[test]
fn messages_of_every_size_arrive_whole() {
    run(async {
        let (a, b) = pair().await;
        let mut inbox = b.receiver(ChannelId::DATA).await.unwrap();
        let mut sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        let sizes = [16, 100, 4_000, 4_096, 4_097, 20_000, 65_536, 300_000, limits::MESSAGE_BYTES_MAX];
        let sending = async {
            for round in 0..20 {
                for (number, size) in sizes.into_iter().enumerate() {
                    let payload = numbered(round, number as u64, size);
                    if round % 2 == 0 { sender.send_bytes(payload).await.unwrap() } else { sender.send(payload).await.unwrap() }
                }
            }
        };
        let receiving = async {
            for round in 0..20 {
                for (number, size) in sizes.into_iter().enumerate() {
                    let message = inbox.recv().await.unwrap();
                    assert_eq!(message.payload, numbered(round, number as u64, size));
                }
            }
        };
        tokio::join!(sending, receiving);
        let large = vec![0; limits::MESSAGE_BYTES_MAX + 1];
        assert_eq!(sender.try_send(&large), Err(TrySendError::TooLarge));
        assert!(matches!(sender.send_bytes(large.into()).await, Err(Error::Send(SendError::TooLarge { .. }))));
        assert_eq!(sender.send([]).await, Ok(()), "an empty message is one");
        assert!(inbox.recv().await.unwrap().payload.is_empty());
    });
}

#[test]
fn messages_keep_their_order_between_a_receiver_that_waits_and_one_that_does_not() {
    run(async {
        const ROUNDS: u64 = 3_000;
        let (a, b) = pair().await;
        let mut inbox = b.receiver(ChannelId::DATA).await.unwrap();
        let mut sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        let sending = tokio::spawn(async move {
            let mut number = 0;
            for round in 0..ROUNDS {
                // Alone, a few together, many, and some that span packets.
                for _ in 0..[1, 1, 3, 1, 200][round as usize % 5] {
                    sender.send(numbered(round, number, if number % 97 == 0 { 9_000 } else { 64 })).await.unwrap();
                    number += 1;
                }
                match round % 7 {
                    0 => tokio::time::sleep(Duration::from_millis(1)).await,
                    1 | 2 => tokio::task::yield_now().await,
                    _ => {}
                }
            }
            number
        });
        let (mut next, mut given_up) = (0, 0);
        while next < ROUNDS / 5 * 206 {
            let message = match next % 3 {
                // Waits in earnest.
                0 => inbox.recv().await.unwrap(),
                // Asks once, and gives up when nothing is there.
                1 => {
                    let asked = tokio::select! {
                        biased;
                        message = inbox.recv() => Some(message.unwrap()),
                        () = tokio::task::yield_now() => None,
                    };
                    let Some(message) = asked else {
                        given_up += 1;
                        continue;
                    };
                    message
                }
                // Gives up at some moment.
                _ => match tokio::time::timeout(Duration::from_micros(300), inbox.recv()).await {
                    Ok(message) => message.unwrap(),
                    Err(_) => {
                        given_up += 1;
                        continue;
                    }
                },
            };
            assert_eq!(read(&message.payload).1, next);
            next += 1;
        }
        assert_eq!(sending.await.unwrap(), next);
        assert!(given_up > 0, "the receiver has to be too early at times");
        assert!(tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await.is_err(), "nothing came twice");
    });
}

#[test]
fn a_receiver_that_does_not_wait_keeps_nothing_from_others() {
    run(async {
        for channel in [ChannelId::COORDINATION, ChannelId::DATA] {
            let (a, b) = pair().await;
            let mut inbox = a.receiver(channel).await.unwrap();
            let mut back = b.sender(a.id(), channel).await.unwrap();
            let mut requests = b.serve().await.unwrap();
            for number in 0..20 {
                // It has waited on the stream on which the answer comes, and waits no more.
                back.send(numbered(0, number, 16)).await.unwrap();
                assert_eq!(read(&inbox.recv().await.unwrap().payload), (0, number));
                assert!(tokio::time::timeout(Duration::from_millis(1), inbox.recv()).await.is_err());
                let asking = a.request(b.id(), "well?", Duration::from_secs(5));
                let answering = async { requests.next().await.unwrap().respond("well").await.unwrap() };
                assert_eq!(&tokio::join!(asking, answering).0.unwrap()[..], b"well");
                // While it waits, what is not for it passes it by.
                let asking = a.request(b.id(), "well?", Duration::from_secs(5));
                let answering = async { requests.next().await.unwrap().respond("well").await.unwrap() };
                tokio::select! {
                    (answer, ()) = async { tokio::join!(asking, answering) } => assert_eq!(&answer.unwrap()[..], b"well"),
                    _ = inbox.recv() => panic!("nobody sent a message"),
                }
            }
            // The end of the connection is seen though nobody waits, and by one who does.
            b.leave().await;
            let waiting = tokio::time::timeout(Duration::from_secs(1), inbox.recv());
            assert!(waiting.await.is_err(), "the channel lives on without the peer");
            until(async || a.report().await.unwrap().links.is_empty()).await;
        }
    });
}

#[test]
fn a_receiver_that_does_not_take_holds_the_sender_and_nothing_else() {
    run(async {
        let (a, b) = pair().await;
        let mut idle = b.receiver(ChannelId::DATA).await.unwrap();
        let mut urgent = b.receiver(ChannelId::COORDINATION).await.unwrap();
        let mut sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        let mut sent = 0_u64;
        // Until nothing more is taken for a while: the queue, the windows and the inbox are full then.
        let mut full_since = tokio::time::Instant::now();
        while full_since.elapsed() < Duration::from_millis(500) {
            match sender.try_send(&numbered(0, sent, 1_000)) {
                Ok(()) => {
                    sent += 1;
                    full_since = tokio::time::Instant::now();
                }
                Err(TrySendError::Full) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(sent < 40_000, "{sent} KB are on the way to nobody");
        let mut other = a.sender(b.id(), ChannelId::COORDINATION).await.unwrap();
        for number in 0..100 {
            other.send(numbered(1, number, 64)).await.unwrap();
            assert_eq!(read(&urgent.recv().await.unwrap().payload), (1, number));
        }
        for number in 0..sent {
            assert_eq!(read(&idle.recv().await.unwrap().payload), (0, number), "nothing was lost for it");
        }
    });
}

#[test]
fn a_channel_goes_from_hand_to_hand_and_errors_say_why() {
    run(async {
        let (a, b) = pair().await;
        let mut sender = a.sender(b.id(), ChannelId::EVENTS).await.unwrap();
        // Nobody took the channel over: its messages are among all messages.
        let mut all = b.messages();
        sender.send(b"one").await.unwrap();
        assert_eq!(&all.next().await.unwrap().payload[..], b"one");
        let mut first = b.receiver(ChannelId::EVENTS).await.unwrap();
        sender.send(b"two").await.unwrap();
        assert_eq!(&first.recv().await.unwrap().payload[..], b"two");
        let mut second = b.receiver(ChannelId::EVENTS).await.unwrap();
        assert_eq!(first.recv().await, None, "the next one took over");
        sender.send(b"three").await.unwrap();
        assert_eq!(&second.recv().await.unwrap().payload[..], b"three");
        drop(second);
        sender.send(b"four").await.unwrap();
        assert_eq!(&all.next().await.unwrap().payload[..], b"four");

        let refused = |result: Result<_, Error>| result.map(|_| ()).unwrap_err();
        assert!(matches!(refused(a.sender(b.id(), ChannelId::CONTROL).await), Error::Send(SendError::UnknownChannel(_))));
        assert!(matches!(refused(a.sender(a.id(), ChannelId::DATA).await), Error::Send(SendError::Myself)));
        let stranger = PeerId::from_bytes([9; 32]);
        assert!(matches!(refused(a.sender(stranger, ChannelId::DATA).await), Error::Send(SendError::UnknownPeer(_))));
        assert!(matches!(b.receiver(ChannelId::STATE).await.map(|_| ()).unwrap_err(), Error::Send(SendError::UnknownChannel(_))));

        // The peer stops: the next message has nowhere to go, and the one after that says so at once.
        b.kill().await;
        let failed = loop {
            match sender.send(b"five").await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(failed, Error::Call(CallError::Unreachable | CallError::TimedOut) | Error::Send(SendError::UnknownPeer(_))),
            "{failed}"
        );
        a.leave().await;
        assert!(matches!(sender.send(b"six").await, Err(Error::Stopped)));
    });
}

#[test]
fn a_handler_answers_where_the_message_arrives_and_may_panic() {
    run(async {
        let (a, b) = pair().await;
        b.on_message(ChannelId::COORDINATION, |message, back| {
            assert_ne!(&message.payload[..], b"panic");
            back.try_send_bytes(message.payload).unwrap();
        })
        .await
        .unwrap();
        let mut answers = a.receiver(ChannelId::COORDINATION).await.unwrap();
        let mut sender = a.sender(b.id(), ChannelId::COORDINATION).await.unwrap();
        for number in 0..500_u64 {
            sender.send(number.to_le_bytes()).await.unwrap();
            let answer = answers.recv().await.unwrap();
            assert_eq!((answer.from, &answer.payload[..]), (b.id(), &number.to_le_bytes()[..]), "in order, one for each");
        }
        sender.send(b"panic").await.unwrap();
        // Alone in its batch or not, at the latest the next one is answered.
        let next = async {
            loop {
                sender.send(b"still there").await.unwrap();
                if let Ok(answer) = tokio::time::timeout(Duration::from_millis(100), answers.recv()).await {
                    return answer;
                }
            }
        };
        assert_eq!(&next.await.unwrap().payload[..], b"still there");
        assert!(matches!(b.on_message(ChannelId::STATE, |_, _| {}).await.unwrap_err(), Error::Send(SendError::UnknownChannel(_))));
        // A receiver takes over from a handler.
        let mut receiver = b.receiver(ChannelId::COORDINATION).await.unwrap();
        sender.send(b"for the receiver").await.unwrap();
        while &receiver.recv().await.unwrap().payload[..] != b"for the receiver" {}
    });
}

#[test]
fn a_node_on_the_runtime_of_its_program_lives_and_leaves_like_any_other() {
    run(async {
        let builder = || {
            let secret = ClusterSecret::from_bytes([1; 32]);
            let builder = Node::builder("messages-test").secret(secret).listen("127.0.0.1:0".parse().unwrap()).mdns(false);
            builder.runtime(tokio::runtime::Handle::current())
        };
        let a = builder().start().await.unwrap();
        let b = builder().join(a.address().to_string()).start().await.unwrap();
        while !b.members().await.unwrap().iter().any(|member| member.peer == a.id()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut messages = a.messages();
        b.send(a.id(), ChannelId::DATA, "hello").await.unwrap();
        assert_eq!(&messages.next().await.unwrap().payload[..], b"hello");
        b.leave().await;
        assert!(matches!(b.send(a.id(), ChannelId::DATA, "gone").await, Err(Error::Stopped)));
        while a
            .members()
            .await
            .unwrap()
            .iter()
            .any(|member| member.peer == b.id() && member.status == meshwork::overlay::swim::Status::Alive)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        a.kill().await;
        assert!(messages.next().await.is_none());
    });
}
