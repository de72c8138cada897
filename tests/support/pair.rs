//! Two real nodes on loopback that know each other, and a limit to how long a test of them takes.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::future::Future;
use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::{Builder, Node};

/// Runs a test on a runtime of its own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in a minute") })
}

/// A node of the cluster of this test, not started yet.
pub(crate) fn builder() -> Builder {
    Node::builder("pair-test").secret(ClusterSecret::from_bytes([1; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false)
}

/// Two nodes, each of which counts the other among its members.
pub(crate) async fn pair() -> (Node, Node) {
    let a = builder().start().await.unwrap();
    let b = builder().join(a.address().to_string()).start().await.unwrap();
    for (node, other) in [(&a, &b), (&b, &a)] {
        until(async || node.members().await.unwrap().iter().any(|member| member.peer == other.id())).await;
    }
    (a, b)
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
