//! Members that speak the wire by hand: admitted like any other, and then free to do what no honest node does.
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod puppet;
pub(crate) mod table;
pub(crate) mod wire;

use std::time::Duration;

use meshwork::channels::ClusterSecret;
use meshwork::node::Config;
use meshwork::overlay::swim::Status;
use meshwork::{Builder, Node};

pub(crate) const CLUSTER: &str = "by-hand";
pub(crate) const SECRET: ClusterSecret = ClusterSecret::from_bytes([7; 32]);

/// Long enough for a loaded machine; a test that gets here has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn on_loopback() -> Builder {
    Node::builder(CLUSTER).secret(SECRET).listen("127.0.0.1:0".parse().unwrap()).mdns(false)
}

/// Nodes of one cluster, once everybody sees everybody alive and has a neighbor.
pub(crate) async fn cluster(count: usize, config: &Config) -> Vec<Node> {
    let first = on_loopback().config(config.clone()).start().await.unwrap();
    let address = first.address().to_string();
    let mut nodes = vec![first];
    for _ in 1..count {
        nodes.push(on_loopback().config(config.clone()).join(address.clone()).start().await.unwrap());
    }
    within_patience("a whole cluster", async || {
        let mut whole = true;
        for node in &nodes {
            let report = node.report().await.unwrap();
            let alive = report.members.iter().filter(|member| member.status == Status::Alive).count();
            whole &= alive == nodes.len() && !report.neighbors.is_empty();
        }
        whole
    })
    .await;
    nodes
}

/// Nodes of one cluster, once everybody is everybody's neighbor.
pub(crate) async fn mesh(count: usize, config: &Config) -> Vec<Node> {
    let nodes = cluster(count, config).await;
    neighbors(&nodes, count - 1).await;
    nodes
}

/// Waits until every node has so many neighbors.
pub(crate) async fn neighbors(nodes: &[Node], count: usize) {
    within_patience("everybody to be everybody's neighbor", async || {
        let mut whole = true;
        for node in nodes {
            whole &= node.neighbors().await.unwrap().len() == count;
        }
        whole
    })
    .await;
}

/// Waits until something is so.
pub(crate) async fn within_patience(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "still waiting for {what}");
}
