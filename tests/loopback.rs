//! Real nodes on loopback, each with its own thread, socket, key and connections: that the parts are wired, not that the protocols are right.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use meshwork::channels::ClusterSecret;
use meshwork::crdt::Value;
use meshwork::node::{CallError, Config, Event, Kind};
use meshwork::overlay::swim::Status;
use meshwork::{Builder, ChannelId, Error, Node};

fn on_loopback(secret: u8) -> Builder {
    Node::builder("loopback-test").secret(ClusterSecret::from_bytes([secret; 32])).listen("127.0.0.1:0".parse().unwrap()).mdns(false)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in a minute") })
}

async fn cluster(count: usize, config: &Config) -> Vec<Node> {
    let first = on_loopback(1).config(config.clone()).start().await.unwrap();
    let address = first.address().to_string();
    let mut nodes = vec![first];
    for _ in 1..count {
        nodes.push(on_loopback(1).config(config.clone()).join(address.clone()).start().await.unwrap());
    }
    formed(&nodes).await;
    nodes
}

/// Waits until everybody sees everybody alive and has a neighbor.
async fn formed(nodes: &[Node]) {
    loop {
        let mut whole = true;
        for node in nodes {
            let report = node.report().await.unwrap();
            let alive = report.members.iter().filter(|member| member.status == Status::Alive).count();
            whole &= alive == nodes.len() && !report.neighbors.is_empty();
        }
        if whole {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn nodes_talk_agree_and_part() {
    for topology in [Kind::Hyparview, Kind::Mesh] {
        run(async {
            let nodes = cluster(4, &Config { topology, ..Config::default() }).await;
            let mut inboxes: Vec<_> = nodes.iter().map(Node::subscribe).collect();
            for number in 0..50_u32 {
                nodes[0].broadcast(number.to_be_bytes().to_vec()).await.unwrap();
            }
            for inbox in &mut inboxes[1..] {
                let mut got = Vec::new();
                while got.len() < 50 {
                    let message = inbox.next().await.unwrap();
                    assert_eq!(message.id.origin, nodes[0].id());
                    got.push(u32::from_be_bytes(message.payload[..].try_into().unwrap()));
                }
                got.sort_unstable();
                assert_eq!(got, (0..50).collect::<Vec<_>>());
            }

            let mut watch = nodes[3].state().watch("light/").await.unwrap();
            nodes[1].state().set("light/kitchen", "on").await.unwrap();
            let change = watch.next().await.unwrap();
            assert_eq!((change.key.as_str(), change.value), ("light/kitchen", Some(Value::Lww(Bytes::from_static(b"on")))));

            let mut events = nodes[0].events();
            nodes[3].leave().await;
            let left = nodes[3].id();
            loop {
                match events.next().await.unwrap() {
                    Event::MemberLeft(member) if member.peer == left => break,
                    Event::MemberFailed(member) => panic!("{member:?} said goodbye"),
                    _ => {}
                }
            }
            assert_eq!(nodes[3].broadcast("too late").await.unwrap_err(), Error::Stopped);
        });
    }
}

#[test]
fn requests_are_answered_refused_or_time_out() {
    run(async {
        let nodes = cluster(2, &Config::default()).await;
        let (asker, server) = (&nodes[0], &nodes[1]);
        let timeout = Duration::from_secs(5);
        let unserved = asker.request(server.id(), "?", timeout).await;
        assert_eq!(unserved.unwrap_err(), Error::Call(CallError::NoHandler));

        let mut requests = server.serve().await.unwrap();
        let serving = tokio::spawn(async move {
            let request = requests.next().await.unwrap();
            let answer = request.payload().to_ascii_uppercase();
            request.respond(answer).await.unwrap();
            drop(requests.next().await.unwrap());
            let unanswered = requests.next().await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            drop(unanswered);
        });
        assert_eq!(asker.request(server.id(), "ping", timeout).await.unwrap(), "PING");
        assert_eq!(asker.request(server.id(), "dropped", timeout).await.unwrap_err(), Error::Call(CallError::Busy));
        let late = asker.request(server.id(), "late", Duration::from_millis(100)).await;
        assert_eq!(late.unwrap_err(), Error::Call(CallError::TimedOut));
        serving.await.unwrap();

        let mut messages = server.messages();
        asker.send(server.id(), ChannelId::DATA, "direct").await.unwrap();
        let message = messages.next().await.unwrap();
        assert_eq!((message.from, message.channel, message.payload), (asker.id(), ChannelId::DATA, Bytes::from_static(b"direct")));
    });
}

#[test]
fn a_node_with_another_secret_stays_outside() {
    run(async {
        let inside = on_loopback(1).start().await.unwrap();
        let outside = on_loopback(2).start().await.unwrap();
        let mut events = outside.events();
        outside.discovered([inside.address()]).await.unwrap();
        let refused = loop {
            if let Event::DialFailed(address, failure) = events.next().await.unwrap() {
                break (address, failure.to_string());
            }
        };
        assert_eq!(refused.0, inside.address());
        assert!(refused.1.contains("another cluster, or of this one under another secret"), "{}", refused.1);
        assert_eq!(inside.report().await.unwrap().members.len(), 1);
    });
}

#[test]
fn a_token_admits_to_its_cluster() {
    run(async {
        let first = on_loopback(1).start().await.unwrap();
        let token = first.token().unwrap().to_owned();
        let second = Node::builder(Node::CLUSTER_OF_TOKEN)
            .join(token.clone())
            .listen("127.0.0.1:0".parse().unwrap())
            .mdns(false)
            .start()
            .await
            .unwrap();
        assert_eq!(second.cluster(), "loopback-test");
        formed(&[first, second]).await;
        let named_otherwise = Node::builder("other").join(token).mdns(false).start().await;
        assert!(named_otherwise.unwrap_err().to_string().contains("the token admits to the cluster `loopback-test`"));
    });
}

#[test]
fn without_a_secret_a_node_keeps_to_loopback() {
    run(async {
        let node = Node::builder("open").insecure_without_secret().mdns(false).start().await.unwrap();
        assert!(node.listening().ip().is_loopback());
        assert!(node.token().is_none());
        let beyond = Node::builder("open").insecure_without_secret().mdns(false).listen("0.0.0.0:0".parse().unwrap()).start().await;
        let error = beyond.unwrap_err().to_string();
        assert!(error.contains("secret"), "{error}");
    });
}

#[test]
fn a_killed_node_is_found_dead() {
    run(async {
        let nodes = cluster(3, &Config::default()).await;
        let mut events = nodes[0].events();
        nodes[2].kill().await;
        loop {
            match events.next().await.unwrap() {
                Event::MemberFailed(member) if member.peer == nodes[2].id() => break,
                Event::MemberLeft(member) => panic!("{member:?} said nothing"),
                _ => {}
            }
        }
    });
}

#[test]
fn subscriptions_end_with_the_node_and_not_with_its_handles() {
    run(async {
        let node = on_loopback(1).start().await.unwrap();
        let (mut inbox, mut events, mut watch) = (node.subscribe(), node.events(), node.state().watch("").await.unwrap());
        node.leave().await;
        assert_eq!(inbox.next().await, None);
        while events.next().await.is_some() {}
        assert_eq!(watch.next().await, None);
        assert_eq!(node.messages().next().await, None, "nor does one to a stopped node wait for ever");
    });
}

#[test]
fn a_flood_of_calls_loses_none() {
    run(async {
        let nodes = cluster(3, &Config::default()).await;
        let mut inboxes: Vec<_> = nodes[1..].iter().map(Node::subscribe).collect();
        const COUNT: u32 = 3_000;
        // As fast as the node takes them: every call of a whole burst finds the next one waiting.
        for number in 0..COUNT {
            nodes[0].broadcast(number.to_be_bytes().to_vec()).await.unwrap();
        }
        for inbox in &mut inboxes {
            for _ in 0..COUNT {
                inbox.try_next().await.unwrap().unwrap();
            }
        }
    });
}

#[test]
fn a_watch_tells_what_is_there_what_comes_and_what_goes() {
    run(async {
        let node = on_loopback(1).start().await.unwrap();
        node.state().set("light/hall", "off").await.unwrap();
        let mut watch = node.state().watch("light/").await.unwrap();
        node.state().set("heat/hall", "21").await.unwrap();
        node.state().set("light/hall", "on").await.unwrap();
        node.state().remove("light/hall").await.unwrap();
        for expected in [Some("off"), Some("on"), None] {
            let change = watch.next().await.unwrap();
            assert_eq!((change.key.as_str(), change.value), ("light/hall", expected.map(|value| Value::Lww(Bytes::from(value)))));
        }
        // It falls behind by more than is kept, and a key goes meanwhile: it is told what differs.
        node.state().set("light/stairs", "on").await.unwrap();
        assert_eq!(watch.next().await.unwrap().key.as_str(), "light/stairs");
        node.state().remove("light/stairs").await.unwrap();
        for number in 0..17_000_u32 {
            node.state().set("light/flicker", number.to_string()).await.unwrap();
        }
        let (first, second) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((first.key.as_str(), first.value), ("light/stairs", None));
        assert_eq!((second.key.as_str(), second.value), ("light/flicker", Some(Value::Lww(Bytes::from_static(b"16999")))));
        node.leave().await;
        assert_eq!(watch.next().await, None);
    });
}
