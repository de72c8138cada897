//! What a small message costs the allocator, from one application to another, with all that two nodes and QUIC do in between: everything runs on one thread, on
//! which allocations are counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::time::Duration;

use allocation_counter::measure;
use meshwork::channels::ClusterSecret;
use meshwork::runtime::{Receiver, Sender};
use meshwork::{ChannelId, Node};
use tokio::runtime::Handle;

const WARM_UP: usize = 20_000;
const MESSAGES: usize = 200_000;

/// Sends messages of 64 bytes and receives them all.
async fn flow(sender: &mut Sender, receiver: &mut Receiver, count: usize) {
    let sending = async {
        for _ in 0..count {
            sender.send([7; 64]).await.unwrap();
        }
    };
    let receiving = async {
        let (mut messages, mut received) = (Vec::with_capacity(1_024), 0);
        while received < count {
            messages.clear();
            received += receiver.recv_many(&mut messages, 1_024).await;
        }
    };
    let both = async { tokio::join!(sending, receiving) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("messages flow");
}

#[test]
fn a_small_message_takes_less_than_two_allocations() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_nodes, mut sender, mut receiver) = runtime.block_on(async {
        let builder = || {
            let builder = Node::builder("allocations").secret(ClusterSecret::from_bytes([1; 32])).mdns(false).runtime(Handle::current());
            builder.listen("127.0.0.1:0".parse().unwrap())
        };
        let a = builder().start().await.unwrap();
        let b = builder().join(a.address().to_string()).start().await.unwrap();
        while !b.members().await.unwrap().iter().any(|member| member.peer == a.id()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut sender = b.sender(a.id(), ChannelId::DATA).await.unwrap();
        let mut receiver = a.receiver(ChannelId::DATA).await.unwrap();
        flow(&mut sender, &mut receiver, WARM_UP).await;
        ((a, b), sender, receiver)
    });
    let counted = measure(|| runtime.block_on(flow(&mut sender, &mut receiver, MESSAGES)));
    let each = counted.count_total as f64 / MESSAGES as f64;
    println!("{each:.3} allocations for a message of 64 bytes");
    assert!(each <= 2.0, "{each} allocations for each message");
}
