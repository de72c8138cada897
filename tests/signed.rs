//! State that is signed, on real nodes over QUIC on loopback: what a node wrote is its own everywhere, and nothing else is taken in its place.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use meshwork::channels::Misbehavior;
use meshwork::crdt::replica::SetError;
use meshwork::crdt::{Op, Value};
use meshwork::node::{Config, Event, Level};
use meshwork::runtime::{Error, Subscription};
use meshwork::{Node, PeerId};

use pair::{builder, run, until};

const LONG: Duration = Duration::from_secs(20);

fn config(signed: &[&str]) -> Config {
    let mut config = Config::default();
    config.state = meshwork::crdt::config::Config::local();
    config.state.signed = signed.iter().map(|prefix| (*prefix).to_owned()).collect();
    config
}

async fn join(nodes: &[Node], config: Config) -> Node {
    let node = builder().config(config).join(nodes[0].address().to_string()).start().await.unwrap();
    let count = nodes.len() + 1;
    for node in nodes.iter().chain([&node]) {
        until(async || node.members().await.unwrap().len() == count).await;
    }
    node
}

/// Waits until a node blames another for this.
async fn blames(events: &mut Subscription<Event>, peer: PeerId, what: Misbehavior) {
    while let Some(event) = events.next().await {
        if event == Event::Misbehaved(peer, what) {
            return;
        }
    }
    panic!("the node is gone");
}

#[test]
fn signed_writes_reach_everybody_and_unsigned_ones_nobody() {
    run(async {
        let mut nodes = vec![builder().config(config(&["app/"])).start().await.unwrap()];
        nodes.push(join(&nodes, config(&["app/"])).await);
        nodes.push(join(&nodes, config(&["app/"])).await);
        let state = nodes[0].state();
        assert_eq!(state.set_with("app/x", "1", Level::Acked(2), LONG).await.unwrap().by.len(), 2);
        let seen = nodes[2].state().read_quorum("app/x", Level::Acked(2), LONG).await.unwrap();
        assert_eq!((seen.value, seen.by.len()), (Some(Value::Lww("1".into())), 2));
        nodes[1].state().batch([("app/x", Op::Remove), ("app/y", Op::Set("2".into())), ("n", Op::Add(3))]).await.unwrap();
        for node in &nodes {
            until(async || node.state().read("n").await.unwrap() == Some(Value::Count(3))).await;
            until(async || node.state().get("app/y").await.unwrap() == Some("2".into())).await;
            until(async || node.state().get("app/x").await.unwrap().is_none()).await;
        }
        let refused = state.set_for("app/x", "1", Duration::from_secs(9)).await;
        assert_eq!(refused.unwrap_err(), Error::Set(SetError::Signed { prefix: "app/".to_owned() }));
        assert!(matches!(state.apply("app/x", Op::Add(1)).await, Err(Error::Set(SetError::Signed { .. }))));

        // Whoever signs nothing changes nothing there, and elsewhere whatever it likes.
        let odd = join(&nodes, config(&[])).await;
        let mut events = (nodes[0].events(), odd.events());
        odd.state().set("app/x", "forged").await.unwrap();
        odd.state().set("app/y", "forged").await.unwrap();
        odd.state().set("other", "3").await.unwrap();
        for node in &nodes {
            until(async || node.state().get("other").await.unwrap() == Some("3".into())).await;
            assert_eq!((node.state().get("app/x").await.unwrap(), node.state().get("app/y").await.unwrap()), (None, Some("2".into())));
        }
        blames(&mut events.0, odd.id(), Misbehavior::ForgedOrigin).await;
        state.set("app/z", "4").await.unwrap();
        blames(&mut events.1, nodes[0].id(), Misbehavior::StraySignature).await;
        assert_eq!(odd.members().await.unwrap().len(), 4, "nobody is shut out for it");
    });
}
