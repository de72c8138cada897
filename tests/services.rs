//! The replicated state and its services on five real nodes over QUIC on loopback: that what one node writes means the same on all the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "../examples/fleet.rs"]
#[allow(dead_code, reason = "a program has a main function")]
mod fleet;
#[path = "support/pair.rs"]
mod pair;
#[path = "../examples/todo.rs"]
#[allow(dead_code, reason = "a program has a main function")]
mod todo;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meshwork::crdt::{Kind, Op, Value};
use meshwork::node::{Config, Event};
use meshwork::overlay::swim::Status;
use meshwork::services::config::{self, Hidden, Layer, Path, ReadError, SetError};
use meshwork::services::registry::{self, Policy as Pick, Query, Registration};
use meshwork::services::variables::{self, Definition, GetError, Merge, Order, Policy, RegisterError, Update, UpdateError, ValueError};
use meshwork::services::{self, ServiceError};
use meshwork::{Node, PeerId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use pair::{builder, run, until};

const NODES: usize = 5;

/// Five nodes that see each other, and take part in the config of the cluster.
async fn cluster() -> Vec<Node> {
    let mut config = Config::default();
    config.services.config.is_synced = true;
    // What follows a write within this time waits here, so that writes of several nodes can be made at once.
    config.state.flush_delay = Duration::from_millis(100);
    let first = builder().config(config.clone()).start().await.unwrap();
    let address = first.address().to_string();
    let mut nodes = vec![first];
    while nodes.len() < NODES {
        nodes.push(builder().config(config.clone()).join(address.clone()).start().await.unwrap());
    }
    everywhere(&nodes, async |node| {
        let report = node.report().await.unwrap();
        report.members.iter().filter(|member| member.status == Status::Alive).count() == NODES && !report.neighbors.is_empty()
    })
    .await;
    nodes
}

/// Waits until something is so on each of these nodes.
async fn everywhere(nodes: &[Node], is_so: impl AsyncFn(&Node) -> bool) {
    for node in nodes {
        until(async || is_so(node).await).await;
    }
}

/// Lets every node do something at the same time: none hears of the others before it has.
async fn at_once<T: Send + 'static, F>(nodes: &[Node], act: impl Fn(usize, Node) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    for node in nodes {
        node.state().apply("primed", Op::Add(1)).await.unwrap();
    }
    let mut acting = JoinSet::new();
    for (index, node) in nodes.iter().cloned().enumerate() {
        acting.spawn(act(index, node));
    }
    acting.join_all().await
}

/// What a key holds once all nodes agree, and it is as it should be.
async fn agreed(nodes: &[Node], key: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    loop {
        let value = nodes[0].state().read(key).await.unwrap();
        if let Some(value) = value.filter(&is_right) {
            let mut is_agreed = true;
            for node in nodes {
                is_agreed &= node.state().read(key).await.unwrap().as_ref() == Some(&value);
            }
            if is_agreed {
                return value;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn path(text: &str) -> Path {
    Path::try_from(text).unwrap()
}

fn refused<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, ServiceError<E>>) -> E {
    match result {
        Err(ServiceError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn mine(index: usize) -> Bytes {
    Bytes::from(format!("of {index}"))
}

#[test]
fn what_all_nodes_do_to_a_key_at_once_comes_to_the_same_everywhere() {
    run(async {
        let nodes = cluster().await;
        at_once(&nodes, async |index, node| {
            let state = node.state();
            state.apply("count", Op::Add(10 - 5 * index as i64)).await.unwrap();
            state.apply("grown", Op::Grow(index as u64)).await.unwrap();
            state.apply("set", Op::Insert(mine(index))).await.unwrap();
            state.apply("g_set", Op::Include(mine(index))).await.unwrap();
            state.apply("best", Op::Best(index as f64, mine(index))).await.unwrap();
        })
        .await;
        let all: Vec<Bytes> = (0..NODES).map(mine).collect();
        agreed(&nodes, "count", |value| *value == Value::Count(0)).await;
        agreed(&nodes, "grown", |value| *value == Value::GCount(10)).await;
        agreed(&nodes, "set", |value| *value == Value::Set(all.clone())).await;
        agreed(&nodes, "g_set", |value| *value == Value::GSet(all.clone())).await;
        agreed(&nodes, "best", |value| *value == Value::Best(4.0, mine(4))).await;

        // A register that keeps all, until somebody who has seen all writes one in their place.
        for attempt in 0.. {
            let key = format!("siblings {attempt}");
            let written = key.clone();
            at_once(&nodes, move |index, node| {
                let key = written.clone();
                async move { node.state().apply(key, Op::Put(mine(index))).await.unwrap() }
            })
            .await;
            let Value::Mv(siblings) = agreed(&nodes, &key, |_| true).await else { panic!("it is of another kind") };
            if siblings.len() < NODES {
                continue;
            }
            let mut values: Vec<Bytes> = siblings.into_iter().map(|written| written.value).collect();
            values.sort();
            assert_eq!(values, all);
            nodes[2].state().apply(&*key, Op::Put(mine(7))).await.unwrap();
            agreed(&nodes, &key, |value| matches!(value, Value::Mv(siblings) if siblings.len() == 1 && siblings[0].value == mine(7))).await;
            break;
        }

        // One of two writes is lost, the same one everywhere.
        at_once(&nodes, async |index, node| node.state().set("lww", mine(index)).await.unwrap()).await;
        agreed(&nodes, "lww", |value| matches!(value, Value::Lww(_))).await;
        let held = nodes[1].state().apply("lww", Op::Add(1)).await.unwrap_err().to_string();
        assert!(held.contains("lww"), "{held}");
        assert!(nodes[1].state().keys("").await.unwrap().contains(&("count".to_owned(), Kind::Count)));
    });
}

#[test]
fn a_watch_elsewhere_sees_batches_whole_and_each_change_once_and_in_order() {
    run(async {
        const BATCHES: u64 = 100;
        let nodes = cluster().await;
        let mut halves = nodes[3].state().watch("half/").await.unwrap();
        let mut lines = Vec::new();
        for node in &nodes {
            lines.push(node.state().watch("line/").await.unwrap());
        }
        let writer = nodes[1].clone();
        let writing = tokio::spawn(async move {
            for number in 0..BATCHES {
                let half = |name| (name, Op::Set(number.to_be_bytes().to_vec().into()));
                writer.state().batch([half("half/left"), half("half/right")]).await.unwrap();
                // Each a key of its own: of one key, what is overwritten before it leaves is not told elsewhere.
                writer.state().set(format!("line/{number:03}"), "written").await.unwrap();
            }
        });
        // Not one half without the other, and none older than what was seen.
        let mut seen = 0;
        while seen < BATCHES - 1 {
            let (left, right) = (halves.next().await.unwrap(), halves.next().await.unwrap());
            assert_eq!((left.key.as_str(), right.key.as_str()), ("half/left", "half/right"));
            assert_eq!((&left.value, left.stamp), (&right.value, right.stamp));
            let number = u64::from_be_bytes(left.value.unwrap().bytes().unwrap()[..].try_into().unwrap());
            assert!(number >= seen, "{number} after {seen}");
            seen = number;
        }
        writing.await.unwrap();
        for mut watch in lines {
            let mut told = Vec::new();
            let mut revision = 0;
            while told.len() < BATCHES as usize {
                let change = watch.next().await.unwrap();
                assert!(change.revision > revision);
                revision = change.revision;
                told.push(change.key.to_string());
            }
            told.sort();
            assert_eq!(told, (0..BATCHES).map(|number| format!("line/{number:03}")).collect::<Vec<_>>());
            assert!(timeout(Duration::from_millis(50), watch.next()).await.is_err(), "nothing is told twice");
        }
        // Where it is written, a watch is told of every value of one key.
        let mut ticks = nodes[0].state().watch("tick").await.unwrap();
        for _ in 0..200 {
            nodes[0].state().apply("tick", Op::Add(1)).await.unwrap();
        }
        for expected in 1..=200 {
            assert_eq!(ticks.next().await.unwrap().value, Some(Value::Count(expected)));
        }
        agreed(&nodes, "tick", |value| *value == Value::Count(200)).await;
    });
}

#[test]
fn a_value_that_expires_is_gone_everywhere_and_one_that_was_written_again_is_not() {
    run(async {
        let nodes = cluster().await;
        let mut brief = nodes[2].state().watch("brief").await.unwrap();
        nodes[0].state().set_for("brief", "seen", Duration::from_secs(3)).await.unwrap();
        nodes[0].state().batch([("kept", Op::SetFor("1".into(), Duration::from_secs(3))), ("beside", Op::Set("it".into()))]).await.unwrap();
        assert_eq!(brief.next().await.unwrap().value, Some(Value::Lww("seen".into())));
        agreed(&nodes, "kept", |value| *value == Value::Lww("1".into())).await;
        nodes[1].state().set("kept", "2").await.unwrap();
        assert_eq!(brief.next().await.unwrap().value, None);
        everywhere(&nodes, async |node| node.state().get("brief").await.unwrap().is_none()).await;
        agreed(&nodes, "kept", |value| *value == Value::Lww("2".into())).await;
        let listed = nodes[1].state().list("", 9).await.unwrap();
        assert_eq!(listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["beside", "kept"]);
        assert_eq!(nodes[3].report().await.unwrap().expired, 1);
        let refused = nodes[0].state().set_for("brief", "never", Duration::ZERO).await;
        assert!(matches!(refused, Err(meshwork::Error::Set(meshwork::crdt::replica::SetError::Lifetime { .. }))));
    });
}

#[test]
fn what_is_set_for_the_cluster_is_read_everywhere_explained_overridden_and_rolled_back() {
    run(async {
        let nodes = cluster().await;
        let (a, b) = (&nodes[0], &nodes[1]);
        let reads =
            async |rate: u32| everywhere(&nodes, async |node| node.config().get::<u32>("app/rate").await.unwrap() == Ok(rate)).await;
        let mut watch = nodes[4].config().watch(path("app"));
        a.config().set("app/rate", 10).await.unwrap();
        reads(10).await;
        let found = b.config().read("app/rate").await.unwrap().unwrap();
        assert_eq!((found.layer, found.origin), (Layer::Cluster, a.id()));
        assert!(matches!(b.config().get::<String>("app/rate").await.unwrap(), Err(ReadError::WrongType { .. })));

        // An override of one node hides the value there alone.
        b.config().update("app/rate", 99).await.unwrap();
        assert_eq!(b.config().get::<u32>("app/rate").await.unwrap(), Ok(99));
        assert_eq!(a.config().get::<u32>("app/rate").await.unwrap(), Ok(10));
        let explained = b.config().explain("app/rate").await.unwrap().unwrap();
        let says = |layer: Layer| explained.iter().find(|explained| explained.layer == layer).unwrap();
        assert_eq!(
            says(Layer::Cluster).found.as_ref().map(|found| (&found.value, found.origin)),
            Some((&config::Value::Integer(10), a.id()))
        );
        assert!(!says(Layer::Cluster).answers && says(Layer::Override).answers);
        b.config().reset("app/rate").await.unwrap();
        assert_eq!(b.config().get::<u32>("app/rate").await.unwrap(), Ok(10));

        b.config().set("app/rate", 20).await.unwrap();
        reads(20).await;
        nodes[2].config().set("app/rate", 30).await.unwrap();
        reads(30).await;
        let history = nodes[3].config().history("app/rate").await.unwrap().unwrap();
        let changes: Vec<_> = history.iter().map(|change| (change.value.clone().unwrap(), change.proposer)).collect();
        let expected = [(30, &nodes[2]), (20, b), (10, a)].map(|(value, node)| (config::Value::Integer(value), node.id()));
        assert_eq!(changes, expected);
        nodes[3].config().rollback("app/rate", 2).await.unwrap();
        reads(10).await;
        nodes[3].config().remove("app").await.unwrap();
        everywhere(&nodes, async |node| node.config().get::<u32>("app/rate").await.unwrap() == Err(ReadError::NotFound)).await;

        // Whoever watched was told each of these once and in order, and nothing of the override elsewhere.
        let mut told = Vec::new();
        while told.len() < 5 {
            let config::Event::Updated { new, .. } = watch.next().await.unwrap() else { panic!("not an update") };
            told.push(new);
        }
        assert_eq!(told, [Some(10), Some(20), Some(30), Some(10), None].map(|value| value.map(config::Value::Integer)));

        // A node that takes no part sees nothing of it.
        a.config().set("app/rate", 40).await.unwrap();
        reads(40).await;
        b.config().sync(false).await.unwrap();
        assert_eq!(b.config().get::<u32>("app/rate").await.unwrap(), Err(ReadError::NotFound));
        assert_eq!(refused(b.config().set("app/rate", 50).await), SetError::SyncOff);
        b.config().sync(true).await.unwrap();
        assert_eq!(b.config().get::<u32>("app/rate").await.unwrap(), Ok(40));
    });
}

#[test]
fn a_bad_value_is_refused_hidden_and_leaves_the_last_good_one_and_conflicts_are_listed() {
    run(async {
        let nodes = cluster().await;
        // All but the last know what a rate may be.
        for node in &nodes[..NODES - 1] {
            let is_small = |_: &Path, value: &config::Value| match value {
                config::Value::Integer(rate) if (1..=100).contains(rate) => Ok(()),
                _ => Err("a rate is 1 to 100".to_owned()),
            };
            node.config().validate(path("app/rate"), is_small).await.unwrap();
        }
        let careless = &nodes[NODES - 1];
        let mut events = nodes[1].service_events();
        nodes[0].config().set("app/rate", 5).await.unwrap();
        everywhere(&nodes, async |node| node.config().get::<u32>("app/rate").await.unwrap() == Ok(5)).await;
        let refusal = SetError::Refused { path: path("app/rate"), reason: "a rate is 1 to 100".to_owned() };
        assert_eq!(refused(nodes[0].config().set("app/rate", 500).await), refusal);
        assert_eq!(refused(nodes[0].config().update("app/rate", 500).await), refusal);
        assert_eq!(nodes[0].config().get::<u32>("app/rate").await.unwrap(), Ok(5));

        careless.config().set("app/rate", 500).await.unwrap();
        let hidden = loop {
            if let services::Event::Config(config::Event::Hidden(hidden)) = events.next().await.unwrap() {
                break hidden;
            }
        };
        assert!(hidden.origin == careless.id() && matches!(hidden.problem, Hidden::Refused(_)), "{hidden:?}");
        for node in &nodes[..NODES - 1] {
            assert_eq!(node.config().get::<u32>("app/rate").await.unwrap(), Ok(5));
        }
        assert_eq!(careless.config().get::<u32>("app/rate").await.unwrap(), Ok(500));
        nodes[2].config().set("app/rate", 6).await.unwrap();
        everywhere(&nodes, async |node| node.config().get::<u32>("app/rate").await.unwrap() == Ok(6)).await;

        // What is set at once under different names stays; of one name the newest is shown, and all of it listed.
        at_once(&nodes, async |index, node| node.config().set(format!("app/names/of-{index}"), index as i64).await.unwrap()).await;
        everywhere(&nodes, async |node| {
            let names = node.config().get::<BTreeMap<String, i64>>("app/names").await.unwrap();
            names.is_ok_and(|names| names.into_values().eq(0..NODES as i64))
        })
        .await;
        loop {
            at_once(&nodes, async |index, node| node.config().set("app/name", format!("{index}")).await.unwrap()).await;
            agreed(&nodes, "@config/app/name", |_| true).await;
            let conflicts = nodes[2].config().conflicts().await.unwrap();
            let Some(conflict) = conflicts.into_iter().rfind(|conflict| conflict.path == path("app/name")) else { continue };
            assert!(conflict.values.len() > 1 && conflict.chosen.confidence <= 0.5, "{conflict:?}");
            break;
        }
        let shown = nodes[0].config().get::<String>("app/name").await.unwrap();
        everywhere(&nodes, async |node| node.config().get::<String>("app/name").await.unwrap() == shown).await;
    });
}

fn worker(instance: &str) -> Registration {
    let mut registration = Registration::new("shop", "pay", instance);
    registration.details.capabilities.insert("refund".to_owned());
    registration
}

/// The nodes that offer the service, as one node sees it.
async fn offering(node: &Node) -> Vec<PeerId> {
    let mut offering: Vec<_> = node.registry().lookup("shop", "pay").await.unwrap().into_iter().map(|instance| instance.id.node).collect();
    offering.sort();
    offering
}

fn ids(nodes: &[Node]) -> Vec<PeerId> {
    let mut ids: Vec<_> = nodes.iter().map(Node::id).collect();
    ids.sort();
    ids
}

#[test]
fn instances_are_found_everywhere_until_their_lease_ends_or_their_node_dies() {
    run(async {
        let nodes = cluster().await;
        let mut leases = Vec::new();
        for node in &nodes[2..] {
            leases.push(node.registry().register(worker("a")).await.unwrap());
        }
        everywhere(&nodes, async |node| offering(node).await == ids(&nodes[2..])).await;
        let refund = Query::new().capability("refund").node(nodes[3].id());
        assert_eq!(nodes[0].registry().find(refund).await.unwrap().len(), 1);
        assert_eq!(nodes[0].registry().find(Query::new().capability("fly")).await.unwrap(), []);
        let again = nodes[2].registry().register_all(vec![worker("b"), worker("a")]).await;
        assert!(matches!(refused(again), registry::RegisterError::AlreadyRegistered(id) if id.node == nodes[2].id()));

        let mut watch = nodes[0].registry().watch();
        drop(leases.remove(0));
        everywhere(&nodes, async |node| offering(node).await == ids(&nodes[3..])).await;
        assert!(matches!(watch.next().await.unwrap(), registry::Event::Unregistered(id) if id.node == nodes[2].id()));

        // As many as one call takes, under one lease.
        let many: Vec<_> = (0..registry::limits::BATCH_MAX).map(|number| Registration::new("many", "thing", number.to_string())).collect();
        let lease = nodes[1].registry().register_all(many).await.unwrap();
        let count = async |node: &Node| node.registry().lookup("many", "thing").await.unwrap().len();
        everywhere(&nodes, async |node| count(node).await == registry::limits::BATCH_MAX).await;
        drop(lease);
        everywhere(&nodes, async |node| count(node).await == 0).await;

        // Nobody has to write anything for a dead node: it is gone as soon as it is found dead.
        let (dead, alive) = (&nodes[4], &nodes[..4]);
        let mut events: Vec<_> = alive.iter().map(Node::events).collect();
        dead.kill().await;
        for (node, events) in alive.iter().zip(&mut events) {
            while !matches!(events.next().await.unwrap(), Event::MemberFailed(member) if member.peer == dead.id()) {}
            let is_gone = until(async || offering(node).await == ids(&nodes[3..4]));
            timeout(Duration::from_secs(1), is_gone).await.expect("gone within a second after the detection");
        }
    });
}

#[test]
fn a_node_does_alone_what_its_handles_offer() {
    run(async {
        let node = builder().start().await.unwrap();
        let _lease = node.registry().register_all(vec![worker("a"), worker("b")]).await.unwrap();
        let id = node.registry().lookup("shop", "pay").await.unwrap()[0].id.clone();
        let update = registry::Update { weight: Some(7), ..registry::Update::default() };
        node.registry().update(id.clone(), update.clone()).await.unwrap();
        assert_eq!(node.registry().get(id.clone()).await.unwrap().unwrap().details.weight, 7);
        node.registry().unregister(id.clone()).await.unwrap();
        assert_eq!(node.registry().lookup("shop", "pay").await.unwrap().len(), 1);
        assert_eq!(refused(node.registry().update(id, update).await), registry::UpdateError::NotRegistered);

        let double = |values: &[variables::Value]| Ok(variables::Value::Float(2.0 * values[0].number().unwrap()));
        node.variables().functions(move |functions| functions.compute("double".parse().unwrap(), double)).await.unwrap();
        node.variables().register(workers("workers", Policy::default())).await.unwrap();
        let kind = variables::Kind::Composite {
            dependencies: vec!["workers".parse().unwrap()],
            compute: variables::Compute::Function("double".parse().unwrap()),
        };
        node.variables().register(Definition { default: None, ..Definition::new("twice".parse().unwrap(), kind, 0) }).await.unwrap();
        assert_eq!(node.variables().get("twice").await.unwrap().unwrap().value, 20.0.into());

        // What services keep is not among all keys.
        let state = node.state();
        let mut watch = state.watch("").await.unwrap();
        node.variables().update("workers", 12).await.unwrap();
        state.set("mine", "1").await.unwrap();
        assert_eq!(watch.next().await.unwrap().key.as_str(), "mine");
        assert_eq!(state.keys("").await.unwrap().len(), 1);
        assert_eq!(state.entries("").await.unwrap().len(), 1);
        assert!(state.keys("@").await.unwrap().len() > 3);
        assert!(!state.entries("@registry/").await.unwrap().is_empty());
    });
}

#[test]
fn a_lease_that_is_dropped_while_its_node_is_busy_ends_all_the_same() {
    run(async {
        let node = builder().start().await.unwrap();
        let slow = |_: &Path, _: &config::Value| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        };
        node.config().validate(path("app"), slow).await.unwrap();
        let leases = [node.registry().register(worker("a")).await.unwrap(), node.registry().register(worker("b")).await.unwrap()];
        let mut asking = JoinSet::new();
        let asked = node.clone();
        asking.spawn(async move { asked.config().update("app/slow", true).await.unwrap() });
        tokio::time::sleep(Duration::from_millis(100)).await;
        // More than the queue to the node takes.
        for _ in 0..2_000 {
            let asked = node.clone();
            asking.spawn(async move { drop(asked.members().await.unwrap()) });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        // One on the runtime of the program, one where there is none.
        let [here, elsewhere] = leases;
        drop(here);
        let dropping = std::thread::spawn(|| drop(elsewhere));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!dropping.is_finished(), "the node is busy and the queue is full");
        asking.join_all().await;
        until(async || offering(&node).await.is_empty()).await;
        dropping.join().unwrap();
    });
}

#[test]
fn a_client_that_tries_the_next_instance_loses_no_request_when_one_dies() {
    run(async {
        let nodes = cluster().await;
        let mut leases = Vec::new();
        for node in &nodes[2..] {
            let mut requests = node.serve().await.unwrap();
            tokio::spawn(async move {
                while let Some(request) = requests.next().await {
                    request.respond("paid").await.unwrap();
                }
            });
            leases.push(node.registry().register(worker("a")).await.unwrap());
        }
        everywhere(&nodes, async |node| offering(node).await == ids(&nodes[2..])).await;
        let dead = nodes[4].id();
        let client = async |node: &Node| {
            let mut balanced = node.registry().balance(Query::new().namespace("shop").name("pay"), Pick::RoundRobin);
            let mut served = BTreeMap::<PeerId, u32>::new();
            let (mut attempts_failed, mut requests_failed, mut after) = (0, 0, 0);
            while after < 100 {
                after += u32::from(!offering(node).await.contains(&dead));
                let mut tried = Vec::new();
                loop {
                    let Ok(instance) = balanced.pick(tried.clone()).await.unwrap() else {
                        requests_failed += 1;
                        break;
                    };
                    let begun = Instant::now();
                    let answered = node.request(instance.id.node, "pay", Duration::from_millis(300)).await.is_ok();
                    balanced.report(instance.id.clone(), answered.then(|| begun.elapsed())).await.unwrap();
                    if answered {
                        *served.entry(instance.id.node).or_default() += 1;
                        break;
                    }
                    attempts_failed += 1;
                    tried.push(instance.id);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (served, attempts_failed, requests_failed)
        };
        let kill = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            nodes[4].kill().await;
        };
        let (first, second, ()) = tokio::join!(client(&nodes[0]), client(&nodes[1]), kill);
        for (served, attempts_failed, requests_failed) in [first, second] {
            println!("{attempts_failed} attempts and {requests_failed} requests failed");
            assert!(
                attempts_failed > 0 && served.get(&dead).is_some_and(|served| *served > 0),
                "it was asked while it lived and after: {served:?}"
            );
            assert!(requests_failed <= 1, "{requests_failed} requests were lost");
        }
    });
}

fn workers(name: &str, policy: Policy) -> Definition {
    Definition { policy, ..Definition::new(name.parse().unwrap(), variables::Kind::integer(1, 100), 10) }
}

#[test]
fn a_variable_is_registered_here_updated_there_and_read_elsewhere() {
    run(async {
        let nodes = cluster().await;
        let [a, b, c, d, _] = &nodes[..] else { panic!("there are five") };
        let shows = async |node: &Node| node.variables().get("workers").await.unwrap().map(|version| (version.value, version.version));
        let begun = Instant::now();
        a.variables().register(workers("workers", Policy::default())).await.unwrap();
        everywhere(&nodes, async |node| shows(node).await == Ok((10.into(), 0))).await;
        let mut watch = d.variables().watch();
        b.variables().update("workers", 12).await.unwrap();
        everywhere(&nodes, async |node| shows(node).await == Ok((12.into(), 1))).await;
        println!("registered, updated and read on five nodes within {:?}", begun.elapsed());
        assert_eq!(c.variables().get("workers").await.unwrap().unwrap().by.unwrap().node, b.id());

        assert_eq!(refused(b.variables().register(workers("workers", Policy::default())).await), RegisterError::AlreadyRegistered);
        assert_eq!(refused(b.variables().update("unknown", 1).await), UpdateError::NotFound);
        assert_eq!(c.variables().get("unknown").await.unwrap(), Err(GetError::NotFound));
        for node in &nodes {
            let out_of_range = ValueError::OutOfRange { value: 101.into(), min: 1.into(), max: 100.into() };
            assert_eq!(refused(node.variables().update("workers", 101).await), UpdateError::Value(out_of_range));
            let wrong = refused(node.variables().update("workers", 0.5).await);
            assert!(matches!(wrong, UpdateError::Value(ValueError::WrongType { .. })), "{wrong:?}");
            let expected = Update { expected: Some(7), ..13.into() };
            assert_eq!(
                refused(node.variables().update("workers", expected).await),
                UpdateError::VersionMismatch { expected: 7, actual: 1 }
            );
        }

        // Each version is told once and in order, here of another node than writes; as many as are kept are remembered.
        for number in 2..=130_u64 {
            let value = (number % 100 + 1) as i64;
            c.variables().update("workers", value).await.unwrap();
        }
        let last = Ok((31.into(), 130));
        everywhere(&nodes, async |node| shows(node).await == last).await;
        let mut told = Vec::new();
        while told.last() != Some(&130) {
            if let variables::Event::Updated { version, .. } = watch.next().await.unwrap() {
                told.push(version);
            }
        }
        assert!(told[0] == 1 && told.is_sorted_by(|a, b| a < b), "{told:?}");
        let history = c.variables().history("workers", Some(1_000)).await.unwrap();
        assert_eq!((history.len(), history[0].version), (variables::limits::HISTORY_LEN_MAX, 130));
        assert_eq!(c.variables().history("workers", None).await.unwrap().len(), variables::limits::HISTORY_LEN_DEFAULT);
        assert_eq!(c.variables().statistics("workers").await.unwrap().unwrap().updates, 130);

        d.variables().delete("workers").await.unwrap();
        everywhere(&nodes, async |node| shows(node).await == Err(GetError::NotFound)).await;
    });
}

#[test]
fn concurrent_writes_of_a_variable_come_to_what_its_policy_says() {
    run(async {
        let nodes = cluster().await;
        let all = |policy: Policy, label: &'static str, expected: i64| {
            let nodes = &nodes;
            async move {
                for attempt in 0.. {
                    let name = format!("{label}-{attempt}");
                    nodes[0].variables().register(workers(&name, policy.clone())).await.unwrap();
                    everywhere(nodes, async |node| node.variables().get(&*name).await.unwrap().is_ok()).await;
                    // The later nodes have higher values, the scores are 3, 5, 9, 5 and 4.
                    let updated = name.clone();
                    at_once(nodes, move |index, node| {
                        let name = updated.clone();
                        let update = Update { score: Some([3.0, 5.0, 9.0, 5.0, 4.0][index]), ..(20 + 10 * index as i64).into() };
                        async move { drop(node.variables().update(name, update).await) }
                    })
                    .await;
                    agreed(nodes, &format!("@variables/val/{name}"), |_| true).await;
                    let version = nodes[0].variables().get(&*name).await.unwrap().unwrap();
                    everywhere(nodes, async |node| node.variables().get(&*name).await.unwrap().as_ref() == Ok(&version)).await;
                    if version.concurrent == NODES {
                        // Every write counts once.
                        assert_eq!((version.value, version.version), (expected.into(), 5));
                        return;
                    }
                }
            }
        };
        all(Policy::Merge(Merge::Mean), "mean", 40).await;
        all(Policy::Merge(Merge::Min), "min", 20).await;
        all(Policy::Merge(Merge::Max), "max", 60).await;
        all(Policy::Best(Order::Highest), "highest", 40).await;
        all(Policy::Best(Order::Lowest), "lowest", 20).await;
    });
}

#[test]
fn several_people_share_the_list_of_the_example() {
    run(async {
        let nodes = cluster().await;
        at_once(&nodes, async |index, node| todo::act(&node, &format!("add item {index}")).await.unwrap()).await;
        everywhere(&nodes, async |node| todo::act(node, "list").await.unwrap() == "open: item 0, item 1, item 2, item 3, item 4\ndone: ")
            .await;
        assert_eq!(todo::act(&nodes[1], "done item 3").await.unwrap(), "done: item 3");
        everywhere(&nodes, async |node| todo::act(node, "list").await.unwrap() == "open: item 0, item 1, item 2, item 4\ndone: item 3")
            .await;
        assert!(todo::act(&nodes[1], "done item 3").await.is_err());
        assert!(todo::act(&nodes[1], "add").await.is_err());
    });
}

#[test]
fn the_fleet_of_the_example_finds_what_it_looks_for_and_agrees_on_it() {
    run(async {
        let rounds = std::cell::RefCell::new(Vec::new());
        let told = fleet::tune(4, |round, _, best| rounds.borrow_mut().push((round, best[0].1.score))).await.unwrap();
        assert_eq!(told.len(), 4);
        let scores: Vec<f64> = rounds.into_inner().into_iter().filter_map(|(_, score)| score).collect();
        assert!(scores.is_sorted(), "no round is worse than the one before: {scores:?}");
        let best = &told[0].1;
        assert!(told.iter().all(|(_, other)| other == best), "{told:?}");
        let assignment = best.iter().map(|(name, version)| (name.parse().unwrap(), version.value.clone())).collect();
        assert!(fleet::score(&assignment) > 99.0, "{best:?}");
        assert_eq!(best[0].1.score, Some(fleet::score(&assignment)));
    });
}
