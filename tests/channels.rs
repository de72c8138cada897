//! Channels that applications define, between real nodes on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/relay.rs"]
mod relay;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::node::{Hint, SendError};
use meshwork::runtime::TrySendError;
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
        // What is measured of them goes by their names too.
        let report = a.channel_report().await.unwrap();
        let names = report.total.iter().map(|metrics| report.name_of(metrics.channel).into_owned()).collect::<Vec<_>>();
        assert_eq!(names[..6], ["control", "coordination", "data", "gossip", "events", "state"]);
        assert_eq!(names[6..], ["video", "telemetry"], "in the order of their numbers");
        // Past the protocol thread or through it, they are messages of the application.
        drop(received);
        let mut messages = b.messages();
        a.send(b.id(), &video(), "slow way").await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!((&message.payload[..], message.channel), (&b"slow way"[..], ChannelId::named("video")));
        a.send_hinted(b.id(), Hint::Urgent, "now").await.unwrap();
        assert_eq!(messages.next().await.unwrap().channel, ChannelId::COORDINATION);
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

/// What was accepted, gave way, was refused, arrived and was dropped then on a channel between two nodes.
async fn counts(node: &Node, channel: ChannelId) -> [u64; 5] {
    let mut sums = [0; 5];
    for link in node.report().await.unwrap().links {
        for report in link.channels.iter().filter(|report| report.channel == channel) {
            let counts = [report.sent_frames, report.superseded, report.refused, report.received_frames, report.received_dropped];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    sums
}

#[test]
fn over_a_lossy_path_best_effort_loses_some_and_never_waits() {
    const COUNT: u32 = 20_000;
    run(async {
        let telemetry = ChannelSpec::telemetry;
        let a = on_loopback().channel(telemetry()).start().await.unwrap();
        let loss = Arc::new(relay::Loss::default());
        let (near, way) = relay::door().await;
        tokio::spawn(relay::pass(near, a.address(), loss.clone()));
        let b = on_loopback().channel(telemetry()).join(way.to_string()).start().await.unwrap();
        for node in [&a, &b] {
            while node.neighbors().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut received = a.receiver("telemetry").await.unwrap();
        let mut sender = b.sender(a.id(), "telemetry").await.unwrap();
        loss.is_on.store(true, Ordering::Relaxed);
        let gathering = tokio::spawn(async move {
            let mut numbers = Vec::new();
            while let Some(message) = received.recv().await {
                match u32::from_be_bytes(message.payload[..4].try_into().unwrap()) {
                    u32::MAX => break,
                    number => numbers.push((number, message.payload.len())),
                }
            }
            numbers
        });
        for number in 0..COUNT {
            // Every thousandth does not fit in a datagram.
            let len = if number % 1_000 == 0 { 5_000 } else { 40 };
            let mut payload = vec![7; len];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.try_send(&payload).unwrap();
            if number % 50 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // Until the last words get through.
        while !gathering.is_finished() {
            sender.try_send(&u32::MAX.to_be_bytes()).unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let numbers = gathering.await.unwrap();
        assert!(numbers.len() < COUNT as usize && loss.packets.load(Ordering::Relaxed) > 0, "some are missing");
        assert!(numbers.len() > COUNT as usize / 2, "and most are not: {}", numbers.len());
        assert!(numbers.iter().any(|(_, len)| *len == 5_000));
        let mut distinct: Vec<_> = numbers.iter().map(|(number, _)| number).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), numbers.len(), "none twice");
        assert!(matches!(sender.try_send(&[0; 40_000]), Err(TrySendError::TooLarge)));
    });
}

#[test]
fn what_best_effort_drops_here_is_counted_exactly() {
    const COUNT: u64 = 20_000;
    run(async {
        let telemetry = || ChannelSpec::telemetry().queue(1_000, 8 * 1_024);
        let (a, b) = pair(on_loopback().channel(telemetry()), on_loopback().channel(telemetry())).await;
        let mut received = b.receiver("telemetry").await.unwrap();
        let mut sender = a.sender(b.id(), "telemetry").await.unwrap();
        for _ in 0..COUNT {
            // Faster than any path: nothing yields here, and these are large enough that encrypting them takes longer than queueing.
            sender.try_send(&[7; 1_000]).unwrap();
        }
        let channel = ChannelId::named("telemetry");
        let [sent, superseded, refused, ..] = counts(&a, channel).await;
        assert_eq!(sent, COUNT, "all were accepted");
        assert!(superseded > 0 && refused == 0, "{superseded} gave way, {refused} were refused");
        // What did not give way left. It arrived unless the system lost packets, and whatever arrived was taken or is counted as dropped.
        let mut taken = 0;
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(500), received.recv()).await {
            assert_eq!(message.unwrap().payload.len(), 1_000);
            taken += 1;
        }
        let [_, _, _, arrived, dropped] = counts(&b, channel).await;
        assert!(arrived > 0 && arrived <= COUNT - superseded, "{arrived} arrived, {superseded} had given way");
        assert_eq!(taken, arrived - dropped);
    });
}

#[test]
fn a_message_that_waits_past_its_time_is_not_delivered() {
    run(async {
        let bulk = || ChannelSpec::new("bulk").queue(20_000, 16 * 1_024 * 1_024);
        let (a, b) = pair(on_loopback().channel(bulk()), on_loopback().channel(bulk())).await;
        let mut received = b.receiver("bulk").await.unwrap();
        let sender = a.sender(b.id(), "bulk").await.unwrap();
        let (mut lasting, mut brief) = (sender.clone(), sender.with_ttl(Duration::from_millis(1)));
        // Nobody reads there: what fits in no window waits here.
        while lasting.try_send(&[1; 100_000]).is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut sent = 0;
        while sent < 100 && brief.try_send(&[2; 10]).is_ok() {
            sent += 1;
        }
        assert!(sent > 0, "small ones still fit");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let end = tokio::spawn(async move { lasting.send([3; 10]).await.unwrap() });
        loop {
            match received.recv().await.unwrap().payload[0] {
                1 => {}
                2 => panic!("its time was over"),
                _ => break,
            }
        }
        end.await.unwrap();
        let report = a.report().await.unwrap();
        let reports = report.links.iter().flat_map(|link| &link.channels);
        assert_eq!(reports.filter(|report| report.channel == ChannelId::named("bulk")).map(|report| report.expired).sum::<u64>(), sent);
        // One whose time is not over arrives.
        sender.with_ttl(Duration::from_secs(60)).send("in time").await.unwrap();
        assert_eq!(&received.recv().await.unwrap().payload[..], b"in time");
    });
}

#[test]
fn text_travels_smaller_on_a_compressed_channel_and_noise_as_it_is() {
    run(async {
        let texts = || ChannelSpec::new("texts").compressed();
        let (a, b) = pair(on_loopback().channel(texts()), on_loopback().channel(texts())).await;
        let mut received = b.receiver("texts").await.unwrap();
        let mut sender = a.sender(b.id(), "texts").await.unwrap();
        let text = "a line that is like every other line, but for its number\n".repeat(18_000);
        let noise: Vec<u8> = (0..200_000_u64).map(|number| meshwork::channels::random::hash(&[number]) as u8).collect();
        let mut carried = Vec::new();
        for payload in [text.as_bytes(), &noise, b"short"] {
            let before = sent_bytes(&a).await;
            sender.send(payload).await.unwrap();
            assert_eq!(&received.recv().await.unwrap().payload[..], payload);
            carried.push(sent_bytes(&a).await - before);
        }
        assert!(carried[0] < text.len() as u64 / 10, "{carried:?}");
        assert!((noise.len() as u64..noise.len() as u64 + 16).contains(&carried[1]), "{carried:?}");
    });
}

/// Bytes that went over the channel `texts`.
async fn sent_bytes(node: &Node) -> u64 {
    let report = node.report().await.unwrap();
    let channels = report.links.iter().flat_map(|link| &link.channels);
    channels.filter(|channel| channel.channel == ChannelId::named("texts")).map(|channel| channel.sent_bytes).sum()
}
