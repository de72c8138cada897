//! Channels that applications define, between real nodes on loopback.

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
use meshwork::{Builder, ChannelError, ChannelId, ChannelSpec, Error, Node, StartError};

fn on_loopback() -> Builder {
    Node::builder("channels-test").secret(ClusterSecret::from_bytes([7; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test ends in time") })
}

async fn pair(a: Builder, b: Builder) -> (Node, Node) {
    let a = a.start().await.unwrap();
    let b = b.join(a.address().to_string()).start().await.unwrap();
    for node in [&a, &b] {
        while node.neighbors().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    (a, b)
}

#[test]
fn a_defined_channel_carries_messages_by_name() {
    run(async {
        let video = || ChannelSpec::new("video").lanes(2);
        let (a, b) = pair(on_loopback().channel(video()).channel(ChannelSpec::telemetry()), on_loopback().channel(video())).await;
        let mut received = b.receiver("video").await.unwrap();
        let mut sender = a.sender(b.id(), "video").await.unwrap();
        for number in 0..1_000_u32 {
            sender.send(number.to_be_bytes()).await.unwrap();
        }
        for number in 0..1_000_u32 {
            let message = received.recv().await.unwrap();
            assert_eq!((&message.payload[..], message.channel), (&number.to_be_bytes()[..], ChannelId::named("video")));
        }
        // Past the protocol thread or through it, they are messages of the application.
        drop(received);
        let mut messages = b.messages();
        a.send(b.id(), &video(), "slow way").await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!((&message.payload[..], message.channel), (&b"slow way"[..], ChannelId::named("video")));
        // Nodes that pass a broadcast on may not have the channel.
        let refused = a.broadcast_on(ChannelId::named("video"), "no").await;
        assert_eq!(refused, Err(Error::Send(SendError::UnknownChannel(ChannelId::named("video")))));
    });
}

#[test]
fn a_channel_that_the_peer_lacks_or_has_otherwise_is_refused_with_a_reason() {
    run(async {
        let here = on_loopback().channel(ChannelSpec::new("mine")).channel(ChannelSpec::new("video").lanes(2));
        let (a, b) = pair(here, on_loopback().channel(ChannelSpec::new("video").latest())).await;
        let unknown = Error::Channel(Box::new(ChannelError::UnknownChannel { channel: "mine".into(), peer: b.id() }));
        assert_eq!(a.sender(b.id(), "mine").await.unwrap_err(), unknown);
        assert_eq!(a.send(b.id(), "mine", "x").await, Err(unknown));
        match (a.sender(b.id(), "video").await.unwrap_err(), a.send(b.id(), "video", "x").await.unwrap_err()) {
            (Error::Channel(one), Error::Channel(other)) => {
                assert_eq!(one, other);
                let text = one.to_string();
                assert!(text.starts_with("the channel `video` is ordered with 2 lanes here and latest with 1 lane at "), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // One that this node lacks itself.
        let none = Error::Send(SendError::UnknownChannel("nothing".into()));
        assert_eq!(a.sender(b.id(), "nothing").await.unwrap_err(), none);
        assert_eq!(b.receiver("mine").await.unwrap_err(), Error::Send(SendError::UnknownChannel("mine".into())));
        // What went wrong there touches nothing else.
        let mut received = b.receiver(ChannelId::DATA).await.unwrap();
        a.send(b.id(), ChannelId::DATA, "still here").await.unwrap();
        assert_eq!(&received.recv().await.unwrap().payload[..], b"still here");
    });
}

#[test]
fn a_fallback_takes_what_the_peer_has_no_channel_for() {
    run(async {
        let here = on_loopback().channel(ChannelSpec::new("mine").lanes(7)).channel_fallback("data");
        let (a, b) = pair(here, on_loopback()).await;
        let mut received = b.receiver(ChannelId::DATA).await.unwrap();
        let mut sender = a.sender(b.id(), "mine").await.unwrap().with_key(b"some key");
        assert_eq!((sender.channel(), sender.carrier()), (ChannelId::named("mine"), ChannelId::DATA));
        sender.send("fast").await.unwrap();
        assert_eq!(&received.recv().await.unwrap().payload[..], b"fast");
        a.send(b.id(), "mine", "slow").await.unwrap();
        assert_eq!(&received.recv().await.unwrap().payload[..], b"slow");
    });
}

#[test]
fn a_node_does_not_start_with_channels_that_cannot_be() {
    run(async {
        let field = |builder: Builder| async {
            match builder.start().await {
                Err(StartError::Config(error)) => error.field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(on_loopback().channel(ChannelSpec::new("data"))).await, "channels.name");
        assert_eq!(field(on_loopback().channel(ChannelSpec::new("a")).channel(ChannelSpec::new("a"))).await, "channels.name");
        assert_eq!(field(on_loopback().channel(ChannelSpec::new("a").lanes(17))).await, "channels.lanes");
        for fallback in ["control", "state", "mine"] {
            assert_eq!(field(on_loopback().channel(ChannelSpec::new("mine")).channel_fallback(fallback)).await, "channel_fallback");
        }
    });
}

#[test]
fn of_ten_thousand_versions_a_slow_reader_gets_few_in_order_and_the_last() {
    const VERSIONS: u32 = 10_000;
    const KEYS: u32 = 3;
    run(async {
        let pose = || ChannelSpec::new("pose").latest();
        let (a, b) = pair(on_loopback().channel(pose()), on_loopback().channel(pose())).await;
        let mut received = b.receiver("pose").await.unwrap();
        let mut sender = a.sender(b.id(), "pose").await.unwrap();
        let sending = tokio::spawn(async move {
            for version in 0..VERSIONS {
                for key in 0..KEYS {
                    // Nothing waits for the reader, however slow it is.
                    sender.try_send_latest(&key.to_be_bytes(), &[key.to_be_bytes(), version.to_be_bytes()].concat()).unwrap();
                }
                if version % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut newest = [None; KEYS as usize];
        let mut count = 0;
        while newest.iter().any(|version| *version != Some(VERSIONS - 1)) {
            let payload = received.recv().await.unwrap().payload;
            let [key, version] = [&payload[..4], &payload[4..]].map(|word| u32::from_be_bytes(word.try_into().unwrap()));
            let last = newest[key as usize].replace(version);
            assert!(last.is_none_or(|last| last < version), "{last:?}, then {version}");
            count += 1;
            if count % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        sending.await.unwrap();
        assert!(count < VERSIONS * KEYS, "{count} arrived");
        // Through the protocol thread it is kept too, under the empty key.
        a.send(b.id(), "pose", "plain").await.unwrap();
        assert_eq!(&received.recv().await.unwrap().payload[..], b"plain");
    });
}
