//! Messages between two real nodes past the protocol thread: complete, in order, bounded, and with an answer when that cannot be.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use meshwork::channels::{ClusterSecret, PeerId, limits};
use meshwork::node::{CallError, SendError};
use meshwork::runtime::TrySendError;
use meshwork::{ChannelId, Error, Node};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in a minute") })
}

async fn start(join: Option<&Node>) -> Node {
    let builder =
        Node::builder("messages-test").secret(ClusterSecret::from_bytes([1; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false);
    match join {
        Some(node) => builder.join(node.address().to_string()),
        None => builder,
    }
    .start()
    .await
    .unwrap()
}

async fn pair() -> (Node, Node) {
    let a = start(None).await;
    let b = start(Some(&a)).await;
    for (node, other) in [(&a, &b), (&b, &a)] {
        while !node.members().await.unwrap().iter().any(|member| member.peer == other.id()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    (a, b)
}

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
