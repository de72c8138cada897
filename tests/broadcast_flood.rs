//! Many small broadcasts at once: whoever sends them waits, and nobody loses a link.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::time::Duration;

use meshwork::Node;
use meshwork::channels::ClusterSecret;
use tokio::task::JoinSet;

const PRODUCERS: u32 = 64;
const EACH: u32 = 400;

#[test]
fn a_flood_of_small_broadcasts_waits_and_isolates_nobody() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let work = async {
        let builder =
            || Node::builder("flood").secret(ClusterSecret::from_bytes([3; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false);
        let a = builder().start().await.unwrap();
        let b = builder().join(a.address().to_string()).start().await.unwrap();
        for node in [&a, &b] {
            while node.neighbors().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let mut heard = b.subscribe();
        let hearing = tokio::spawn(async move {
            let (mut count, mut lost) = (0, 0);
            while count + lost < u64::from(PRODUCERS * EACH) {
                match heard.try_next().await.expect("the node runs") {
                    Ok(_) => count += 1,
                    Err(behind) => lost += behind.0,
                }
            }
        });
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            let node = a.clone();
            producers.spawn(async move {
                for number in 0..EACH {
                    let payload = [producer.to_le_bytes(), number.to_le_bytes()].concat();
                    node.broadcast(payload).await.unwrap();
                }
            });
        }
        producers.join_all().await;
        hearing.await.unwrap();
        for node in [&a, &b] {
            assert_eq!(node.report().await.unwrap().counters.stalled, 0);
            assert_eq!(node.neighbors().await.unwrap().len(), 1);
        }
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(90), work).await.expect("all is heard") });
}
