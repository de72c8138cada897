//! Writes that several real nodes hold, reads that ask several, and writes that are waited for elsewhere, on five nodes over QUIC on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::time::{Duration, Instant};

use meshwork::Node;
use meshwork::crdt::confirm::ConfirmError;
use meshwork::crdt::{Op, Value};
use meshwork::node::{Config, Level};
use meshwork::overlay::swim::Status;
use meshwork::runtime::{AckError, QuorumError};
use meshwork::services::config::{Path, Value as Setting};
use tokio::time::timeout;

use pair::{builder, run, until};

const NODES: usize = 5;
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(2);

async fn cluster() -> Vec<Node> {
    let mut config = Config::default();
    config.services.config.is_synced = true;
    let first = builder().config(config.clone()).start().await.unwrap();
    let mut nodes = vec![first];
    while nodes.len() < NODES {
        nodes.push(builder().config(config.clone()).join(nodes[0].address().to_string()).start().await.unwrap());
    }
    for node in &nodes {
        until(async || node.members().await.unwrap().iter().filter(|member| member.status == Status::Alive).count() == NODES).await;
    }
    nodes
}

#[test]
fn with_two_of_five_gone_a_majority_answers_and_with_three_what_was_seen_is_told_in_time() {
    run(async {
        let nodes = cluster().await;
        let (state, path) = (nodes[0].state(), Path::try_from("app/rate").unwrap());
        for level in [Level::Acked(4), Level::Acked(2), Level::Quorum] {
            let acked = state.set_with("k", format!("{level:?}"), level, LONG).await.unwrap();
            assert_eq!(acked.by.len(), if level == Level::Acked(4) { 4 } else { 2 });
            for node in nodes.iter().filter(|node| acked.by.contains(&node.id())) {
                assert_eq!(node.state().get("k").await.unwrap(), Some(format!("{level:?}").into()));
            }
        }
        nodes[4].config().set("app/rate", 7).await.unwrap();
        let refused = state.set_with("k", "never", Level::Acked(5), LONG).await;
        assert_eq!(refused, Err(AckError::Refused(ConfirmError::TooFew { have: 4, need: 5 })));

        for gone in [1, 2] {
            nodes[gone].kill().await;
        }
        let acked = state.apply_with("n", Op::Add(3), Level::Quorum, LONG).await.unwrap();
        assert_eq!(acked.by.len(), 2);
        let seen = nodes[3].state().read_quorum("n", Level::Quorum, LONG).await.unwrap();
        assert_eq!((seen.value, seen.by.len()), (Some(Value::Count(3)), 2));
        let seen = nodes[0].config().read_quorum(path.clone(), Level::Quorum, LONG).await.unwrap();
        assert_eq!((seen.value.unwrap().value, seen.by.len()), (Setting::Integer(7), 2));

        nodes[3].kill().await;
        let begun = Instant::now();
        let written = state.apply_with("n", Op::Add(1), Level::Quorum, SHORT).await;
        let Err(AckError::TimedOut { token: Some(_), confirmed }) = written else { panic!("{written:?}") };
        assert!(begun.elapsed() >= SHORT);
        assert_eq!((confirmed.by, confirmed.required, confirmed.silent.len()), (vec![nodes[4].id()], 2, 3));

        let (begun, read) = (Instant::now(), state.read_quorum("n", Level::Quorum, SHORT).await);
        let Err(QuorumError::TimedOut { value, confirmed }) = read else { panic!("{read:?}") };
        assert!(begun.elapsed() >= SHORT);
        assert_eq!((value, confirmed.by), (Some(Value::Count(4)), vec![nodes[4].id()]), "what was written stays");
        let read = nodes[0].config().read_quorum(path, Level::Quorum, SHORT).await;
        let Err(QuorumError::TimedOut { value: Ok(found), .. }) = read else { panic!("{read:?}") };
        assert_eq!(found.value, Setting::Integer(7));
    });
}

#[test]
fn what_was_written_on_one_node_is_read_on_another_by_its_name() {
    run(async {
        let nodes = cluster().await;
        for number in 0..50_i64 {
            let (writer, reader) = (&nodes[number as usize % NODES], &nodes[(number as usize + 2) % NODES]);
            let token = writer.state().apply_named("n", Op::Add(1)).await.unwrap().unwrap();
            let token = token.to_string().parse().unwrap();
            let value = reader.state().read_after(&token, LONG).await.unwrap();
            assert_eq!(value, Some(Value::Count(number + 1)), "each writer had read what the last one wrote");
            writer.state().read_after(&token, Duration::ZERO).await.unwrap();
            // The next writer adds to what it has.
            let next = &nodes[(number as usize + 1) % NODES];
            next.state().read_after(&token, LONG).await.unwrap();
        }
        let alone = builder().start().await.unwrap();
        let token = alone.state().apply_named("k", Op::Put("v".into())).await.unwrap().unwrap();
        let waited = nodes[0].state().read_after(&token, Duration::from_millis(50)).await;
        assert!(matches!(waited, Err(QuorumError::TimedOut { value: None, .. })), "{waited:?}");
        let alone = alone.state().set_with("k2", "v", Level::Quorum, LONG).await.unwrap();
        assert_eq!(alone.by, [], "one of one is a majority");
    });
}

#[test]
fn whoever_stops_to_wait_leaves_nothing_behind() {
    run(async {
        let (a, b) = pair::pair().await;
        b.kill().await;
        // More than can wait at once.
        for _ in 0..1_100 {
            let waiting = timeout(Duration::from_millis(1), a.state().set_with("k", "v", Level::Acked(1), LONG)).await;
            assert!(waiting.is_err(), "{waiting:?}");
        }
        let refused = a.state().set_with("k", "v", Level::Acked(1), Duration::from_millis(100)).await;
        assert!(matches!(refused, Err(AckError::TimedOut { .. })), "{refused:?}");
    });
}
