//! Lanes between two real nodes: they grow where that brings more, and one that is blocked is left to those who have it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::channels::metrics::{ChannelMetrics, LaneOutcome, LaneReason};
use meshwork::runtime::DirectMessage;
use meshwork::{Builder, ChannelId, Node, PeerId};

/// Handlers run on the runtime of the program here, those of several lanes side by side.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(6).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test ends in time") })
}

fn on_loopback() -> Builder {
    let builder = Node::builder("lanes-test").secret(ClusterSecret::from_bytes([3; 32])).listen("127.0.0.1:0".parse().unwrap());
    builder.mdns(false).runtime(tokio::runtime::Handle::current())
}

async fn pair() -> (Node, Node) {
    let a = on_loopback().start().await.unwrap();
    let b = on_loopback().join(a.address().to_string()).start().await.unwrap();
    for node in [&a, &b] {
        while node.neighbors().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    (a, b)
}

async fn data(node: &Node, peer: PeerId) -> ChannelMetrics {
    let report = node.channel_report().await.unwrap();
    let peer = report.peers.iter().find(|metrics| metrics.peer == peer).unwrap();
    peer.channels.iter().find(|metrics| metrics.channel == ChannelId::DATA).unwrap().clone()
}

/// A message of 16 KiB that says who sent it and which one it is.
fn numbered(who: u64, number: u64) -> Vec<u8> {
    [&who.to_le_bytes()[..], &number.to_le_bytes(), &[0; 16 * 1_024 - 16]].concat()
}

/// For how long a sender stays, so that there are a few at a time.
const ALIVE: Duration = Duration::from_millis(1_500);

/// Checks the order of what each sent; counts what comes.
#[derive(Default)]
struct Arrived {
    next: Mutex<BTreeMap<u64, u64>>,
    count: AtomicU64,
}

impl Arrived {
    fn take(&self, payload: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
        let (who, number) = (word(0), word(8));
        let mut all = self.next.lock().unwrap();
        let next = all.entry(who).or_default();
        assert_eq!(*next, number, "what {who} sent comes in order");
        *next += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_saturated_channel_tries_a_lane_more_and_the_record_says_what_came_of_it() {
    run(async {
        let (a, b) = pair().await;
        let arrived = Arc::new(Arrived::default());
        let there = arrived.clone();
        // Every message takes a while, and those of another lane need not wait for it: a lane more carries more.
        let slow = move |message: DirectMessage, _: &mut _| {
            std::thread::sleep(Duration::from_millis(1));
            there.take(&message.payload);
        };
        b.on_message(ChannelId::DATA, slow).await.unwrap();
        let sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        assert_eq!(data(&a, b.id()).await.lanes_active, 1);
        let mut producers = Vec::new();
        let change = loop {
            let (who, mut sender, ends) = (producers.len() as u64, sender.clone(), tokio::time::Instant::now() + ALIVE);
            producers.push(tokio::spawn(async move {
                let mut number = 0;
                while tokio::time::Instant::now() < ends {
                    sender.send(numbered(who, number)).await.unwrap();
                    number += 1;
                }
                number
            }));
            tokio::time::sleep(Duration::from_millis(250)).await;
            let changes = data(&a, b.id()).await.lane_changes;
            if let Some(change) = changes.first().filter(|change| change.outcome != LaneOutcome::Measuring) {
                break *change;
            }
        };
        let mut sent = 0;
        for producer in producers {
            sent += producer.await.unwrap();
        }
        while arrived.count.load(Ordering::Relaxed) < sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (before, after) = (change.before_bytes_per_s, change.after_bytes_per_s.unwrap());
        assert_eq!((change.from, change.to, change.reason), (1, 2, LaneReason::Saturated), "{change:?}");
        // How much it brought depends on what else the machine does.
        let outcome = if after >= before + before / 10 { LaneOutcome::Kept } else { LaneOutcome::Reverted };
        assert!(before > 0 && change.outcome == outcome, "{change:?}");
        let metrics = data(&a, b.id()).await;
        assert!(metrics.lanes[0].sent.messages > 0 && metrics.lanes[1].sent.messages > 0, "{metrics:?}");
        assert_eq!(metrics.lanes.iter().map(|lane| lane.sent.messages).sum::<u64>(), sent);
    });
}

#[test]
fn a_blocked_lane_is_given_to_nobody_who_comes_and_goes_on_where_it_stood() {
    run(async {
        let (a, b) = pair().await;
        let arrived = Arc::new(Arrived::default());
        let is_shut = Arc::new(AtomicBool::new(true));
        let (there, shut) = (arrived.clone(), is_shut.clone());
        let handler = move |message: DirectMessage, _: &mut _| {
            // The first sender is the one whose lane nothing leaves.
            while message.payload[0] == 0 && shut.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            there.take(&message.payload);
        };
        b.on_message(ChannelId::DATA, handler).await.unwrap();
        let first = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        let mut stuck = first.clone();
        // More than a stream may have under way, and less than the queue holds beside.
        for number in 0..180 {
            stuck.send(numbered(0, number)).await.unwrap();
        }
        let blocked = loop {
            let lanes = data(&a, b.id()).await.lanes;
            if let Some(lane) = lanes.iter().position(|lane| lane.is_blocked) {
                break lane;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((blocked, arrived.count.load(Ordering::Relaxed)), (0, 0), "nothing left the lane so far");
        // Whoever comes now is not held up, with a key or without.
        for who in 1..=60_u8 {
            let mut sender = if who % 2 == 0 { first.with_key(&[who]) } else { first.clone() };
            sender.send(numbered(u64::from(who), 0)).await.unwrap();
        }
        while arrived.count.load(Ordering::Relaxed) < 60 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let lanes = data(&a, b.id()).await.lanes;
        assert!(lanes[0].is_blocked && lanes[0].waiting.messages > 0, "{lanes:?}");
        is_shut.store(false, Ordering::Relaxed);
        while arrived.count.load(Ordering::Relaxed) < 240 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while data(&a, b.id()).await.lanes[0].is_blocked {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}
