//! What a node says of its channels is what the application counted itself, to the message and to the byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::future::Future;
use std::time::Duration;

use meshwork::channels::metrics::{ChannelMetrics, Volume};
use meshwork::channels::quic::ConnectionRole;
use meshwork::runtime::{ChannelsReport, TrySendError};
use meshwork::{ChannelId, Node, PeerId};
use pair::{pair, run};

fn of(report: &ChannelsReport, peer: PeerId, channel: ChannelId) -> ChannelMetrics {
    let peer = report.peers.iter().find(|metrics| metrics.peer == peer).unwrap();
    peer.channels.iter().find(|metrics| metrics.channel == channel).unwrap().clone()
}

async fn data(node: &Node, peer: PeerId) -> ChannelMetrics {
    of(&node.channel_report().await.unwrap(), peer, ChannelId::DATA)
}

/// What was accepted is sent, dropped or waits, whenever one looks.
fn check(metrics: &ChannelMetrics) {
    assert_eq!(metrics.accepted.messages, metrics.sent.messages + metrics.waiting.messages + metrics.dropped.total());
    assert_eq!(metrics.waited.count(), metrics.sent.messages);
}

/// Sends bursts that find the queue full now and then; what was taken, and how often it was full.
async fn flood(from: &Node, to: PeerId, messages: u64) -> (Volume, u64) {
    let sender = from.sender(to, ChannelId::DATA).await.unwrap();
    let mut lanes: Vec<_> = (0..5_u8).map(|key| sender.with_key(&[key])).collect();
    let (mut accepted, mut full) = (Volume::default(), 0);
    while accepted.messages < messages {
        // Small ones, and large ones that fill the queue.
        let scale = if accepted.messages % 500 < 100 { 500 } else { 1 };
        let payload = vec![1; (accepted.messages % 97 * scale) as usize];
        let lane = (accepted.messages % 5) as usize;
        let sent = if accepted.messages.is_multiple_of(2) {
            lanes[lane].try_send(&payload)
        } else {
            lanes[lane].try_send_bytes(payload.clone().into())
        };
        match sent {
            Ok(()) => accepted = Volume { messages: accepted.messages + 1, bytes: accepted.bytes + payload.len() as u64 },
            Err(TrySendError::Full) => {
                full += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (accepted, full)
}

async fn receive(node: &Node, messages: u64) -> impl Future<Output = Volume> {
    let mut inbox = node.receiver(ChannelId::DATA).await.unwrap();
    async move {
        let (mut batch, mut received) = (Vec::new(), Volume::default());
        while received.messages < messages {
            inbox.recv_many(&mut batch, 1_000).await;
            received.messages += batch.len() as u64;
            received.bytes += batch.drain(..).map(|message| message.payload.len() as u64).sum::<u64>();
        }
        received
    }
}

#[test]
fn the_figures_are_those_that_the_application_counted() {
    const THERE: u64 = 20_000;
    const BACK: u64 = 5_000;
    run(async {
        let (a, b) = pair().await;
        let (at_b, at_a) = (receive(&b, THERE).await, receive(&a, BACK).await);
        let ((sent_a, full_a), (sent_b, full_b), got_b, got_a) =
            tokio::join!(flood(&a, b.id(), THERE), flood(&b, a.id(), BACK), at_b, at_a);
        assert!(full_a > 0, "the queue was full now and then");
        assert_eq!((sent_a, sent_b), (got_b, got_a));
        for (node, peer, sent, received, full) in [(&a, b.id(), sent_a, got_a, full_a), (&b, a.id(), sent_b, got_b, full_b)] {
            // The receiver may have a message before its sender has counted it.
            let mut metrics = data(node, peer).await;
            while metrics.waiting.messages > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                metrics = data(node, peer).await;
                check(&metrics);
            }
            check(&metrics);
            assert_eq!((metrics.accepted, metrics.sent.messages), (sent, sent.messages));
            assert_eq!((metrics.received, metrics.refused.total(), metrics.dropped.total()), (received, full, 0));
            assert!(metrics.sent.bytes >= sent.bytes + 2 * sent.messages && metrics.sent.bytes <= sent.bytes + 4 * sent.messages);
            assert_eq!(metrics.waited.count(), sent.messages);
            assert_eq!(metrics.lanes.iter().map(|lane| lane.sent.messages).sum::<u64>(), sent.messages);
            assert_eq!(metrics.lanes.iter().map(|lane| lane.received.bytes).sum::<u64>(), received.bytes);
            assert!(metrics.writes > 0 && metrics.writes <= sent.messages && metrics.busy > Duration::ZERO);
            assert!(metrics.waited.quantile(0.5) <= metrics.waited.quantile(0.999));
            let report = node.channel_report().await.unwrap();
            let total = report.total.iter().find(|metrics| metrics.channel == ChannelId::DATA).unwrap();
            assert_eq!((total.accepted, total.received), (metrics.accepted, metrics.received));
            let connections = &report.peers.iter().find(|metrics| metrics.peer == peer).unwrap().connections;
            let first = connections.iter().find(|connection| connection.role == ConnectionRole::First).unwrap();
            assert!(first.packets_sent > 0 && first.rtt_min > Duration::ZERO && first.datagrams_per_send() >= 1.0);
            assert_eq!(first.governor, None);
        }
        // A window can end between two of the reads, not between both pairs.
        let reads = [data(&a, b.id()).await, data(&a, b.id()).await, data(&a, b.id()).await];
        assert!(reads[0] == reads[1] || reads[1] == reads[2], "idle reads are equal: {reads:?}");
    });
}

#[test]
fn what_a_broken_connection_held_is_lost_and_the_figures_go_on() {
    run(async {
        let (a, b) = pair().await;
        // Nobody takes anything from this one.
        let idle = b.receiver(ChannelId::DATA).await.unwrap();
        let mut sender = a.sender(b.id(), ChannelId::DATA).await.unwrap();
        let (mut accepted, mut full) = (0_u64, 0_u64);
        while full < 20 {
            match sender.try_send(&[0; 10_000]) {
                Ok(()) => accepted += 1,
                Err(TrySendError::Full) => {
                    full += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(data(&a, b.id()).await.waiting.messages > 0);
        a.break_links().await;
        let broken = loop {
            let metrics = data(&a, b.id()).await;
            check(&metrics);
            if metrics.waiting.messages == 0 {
                break metrics;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!((broken.accepted.messages, broken.refused.total()), (accepted, full));
        assert!(broken.dropped.lost > 0, "{broken:?}");
        drop(idle);
        let mut inbox = b.receiver(ChannelId::DATA).await.unwrap();
        sender.send(b"again").await.unwrap();
        while inbox.recv().await.unwrap().payload != b"again"[..] {}
        let again = loop {
            let metrics = data(&a, b.id()).await;
            check(&metrics);
            if metrics.waiting.messages == 0 {
                break metrics;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(again.accepted.messages, accepted + 1, "over both connections");
        assert_eq!(again.dropped, broken.dropped);
    });
}
