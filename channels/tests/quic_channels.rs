//! Channels that applications defined: what peers say of them, and what hostile ones do with them.
#![cfg(feature = "quic")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

mod quic_support;

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::agreement::with_defined;
use meshwork_channels::frame::{self, Decoder, Preamble};
use meshwork_channels::quic::{CloseReason, EndpointConfig, Event, NodeKey, Refusal, SendError};
use meshwork_channels::{ChannelId, ChannelSpec, Misbehavior, encode};
use quic_support::*;

fn node(defined: Vec<ChannelSpec>) -> Node {
    Node::new(EndpointConfig { channels: with_defined(defined).unwrap(), ..config() })
}

/// A hello with these bytes behind its body.
fn hello_with(proof: [u8; 32], attach: Option<[u8; 16]>, tail: &[u8]) -> Bytes {
    let mut decoder = Decoder::new(4_096);
    decoder.push(hello_of(1, [1, 1], proof, attach));
    let body = decoder.next().unwrap().unwrap().body;
    frame::encode(1, &[&body, tail].concat())
}

/// Dials by hand and says what channels it has; whether it was welcome.
async fn knock(from: &quinn::Endpoint, node: &Node, tail: &[u8]) -> (quinn::Connection, bool) {
    let key = NodeKey::generate().unwrap();
    let connection = shake(from, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    let welcome = say(&connection, &hello_with(right, None, tail)).await.is_some();
    (connection, welcome)
}

#[tokio::test]
async fn a_frame_goes_only_where_the_peer_has_the_channel() {
    let mut a = node(vec![ChannelSpec::new("video"), ChannelSpec::new("mine"), ChannelSpec::new("other").lanes(2)]);
    let mut b = node(vec![ChannelSpec::new("video"), ChannelSpec::new("other")]);
    let (there, back) = join(&mut a, &mut b).await;
    assert_eq!(there.channels_of_peer().terms().iter().map(|terms| &terms.name[..]).collect::<Vec<_>>(), ["other", "video"]);
    assert_eq!(back.channels_of_peer().terms().len(), 3);
    for name in ["mine", "other"] {
        let refused = there.try_send(ChannelId::named(name), frame::encode(3, b"x"));
        assert!(matches!(refused, Err(SendError::Disagreed(..))), "{refused:?}");
    }
    there.try_send(ChannelId::named("video"), frame::encode(3, b"x")).unwrap();
    assert_eq!(b.frame().await.0, ChannelId::named("video"));
}

#[tokio::test]
async fn tables_that_no_node_sends_are_refused() {
    let mut node = node(vec![ChannelSpec::new("video")]);
    let socket = stranger();
    let thousand: Vec<u8> = [0x80, 8].into_iter().chain((0..512).flat_map(|_| [1, b'a', 0, 1])).collect();
    let tables: [&[u8]; 7] = [
        &thousand,
        b"\x02\x01a\0\x01\x01a\0\x01",
        b"\x01\x01a\0\x00",
        b"\x01\x07control\0\x01",
        b"\x00",
        b"\xff\xff\xff\xff\x0f",
        b"\x01\x05video\0\x01!",
    ];
    for table in tables {
        let (connection, welcome) = knock(&socket, &node, table).await;
        assert!(!welcome, "{table:?}");
        connection.closed().await;
        assert_eq!(node.endpoint.stats().links, 0);
    }
    assert_eq!(node.endpoint.stats().refused(Refusal::Undecodable), tables.len() as u64);
    assert_eq!(node.refused().await, Refusal::Undecodable);
    // Nobody else pays for it.
    assert!(knock(&socket, &node, b"\x01\x05video\0\x01").await.1);
    node.connected().await;
}

#[tokio::test]
async fn a_stream_on_a_channel_without_agreement_is_stopped_and_the_rest_goes_on() {
    let mut node = node(vec![ChannelSpec::new("video"), ChannelSpec::new("mine")]);
    let socket = stranger();
    // It has `video` in another way, and does not know `mine`.
    let (connection, welcome) = knock(&socket, &node, b"\x01\x05video\x01\x01").await;
    assert!(welcome);
    node.connected().await;
    for channel in ["video", "mine", "nothing"] {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[Preamble::of(channel.into()).encode(), frame::encode(3, b"lost")].concat()).await.unwrap();
        assert_eq!(stream.stopped().await.unwrap(), Some(1_u32.into()), "{channel}");
    }
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[Preamble::of(ChannelId::DATA).encode(), frame::encode(3, b"kept")].concat()).await.unwrap();
    assert_eq!(&node.frame().await.1.body[..], b"kept");
    assert_eq!(node.endpoint.stats().links, 1);
}

#[tokio::test]
async fn a_table_said_again_ends_nothing_but_the_attempt() {
    let mut node = node(vec![ChannelSpec::new("video")]);
    let socket = stranger();
    let key = NodeKey::generate().unwrap();
    let first = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = proof(&first, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&first, &hello_with(right, None, b"\x01\x05video\0\x01")).await.is_some());
    let link = node.connected().await;
    // There is one admission for each connection: on a later stream the same words are no beginning of a byte stream.
    let right = proof(&first, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&first, &hello_with(right, None, b"\x01\x05other\0\x01")).await.is_none());
    // The second connection of the link, with another table: the first one stands.
    let second = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = proof(&second, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&second, &hello_with(right, Some(tag(&first)), b"\x01\x05other\0\x01")).await.is_some());
    assert_eq!(link.channels_of_peer().terms()[0].name, "video");
    assert_eq!(link.route(ChannelId::named("video")), Ok(ChannelId::named("video")));
}

#[tokio::test]
async fn credit_for_what_was_never_sent_ends_the_connection() {
    let mut node = node(vec![ChannelSpec::new("pose").latest()]);
    let socket = stranger();
    let credit = |channel: ChannelId, total: u64| frame::encode(frame::FIRST_KIND_OF_LINKS, &encode(&(channel, total)));
    let pose = ChannelId::named("pose");
    for words in [credit(pose, 2), credit(ChannelId::DATA, 0), credit(ChannelId(77), 0), frame::encode(frame::FIRST_KIND_OF_LINKS, b"?")] {
        let (connection, _) = knock(&socket, &node, b"\x01\x04pose\x01\x01").await;
        let link = node.connected().await;
        link.try_send_latest(pose, Bytes::new(), 3, b"one").unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[Preamble::of(ChannelId::CONTROL).encode(), words].concat()).await.unwrap();
        match node.next().await {
            Event::Closed { reason: CloseReason::Misbehaved(Misbehavior::Undecodable(_)), .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn datagrams_of_messages_are_read_and_what_is_wrong_with_one_costs_its_sender() {
    let mut node = node(vec![ChannelSpec::telemetry(), ChannelSpec::new("video")]);
    let socket = stranger();
    let table = b"\x02\x09telemetry\x02\x01\x05video\0\x01";
    let (connection, _) = knock(&socket, &node, table).await;
    let link = node.connected().await;
    let datagram = |channel: &str, frames: &[u8]| {
        let id = ChannelId::named(channel).0.to_be_bytes();
        Bytes::from([&[0x80][..], &id, frames].concat())
    };
    let two = [frame::encode(3, b"one"), frame::encode(3, b"two")].concat();
    // A channel that is not of best effort, one that nobody has, and an empty one: nothing comes of them.
    for channel in ["video", "nothing", "data"] {
        connection.send_datagram(datagram(channel, &two)).unwrap();
    }
    connection.send_datagram(datagram("telemetry", b"")).unwrap();
    connection.send_datagram(datagram("telemetry", &two)).unwrap();
    for body in [b"one", b"two"] {
        let (channel, frame) = node.frame().await;
        assert_eq!((channel, &frame.body[..]), (ChannelId::named("telemetry"), &body[..]));
    }
    assert_eq!(link.stats().datagrams_refused, 3);
    // What nobody takes is dropped and counted, and the next datagram is read all the same.
    let _inbox = node.endpoint.inbox(ChannelId::named("telemetry"), 3, 100);
    for _ in 0..10 {
        connection.send_datagram(datagram("telemetry", &two)).unwrap();
    }
    connection.send_datagram(Bytes::from_static(b"\x01owner")).unwrap();
    assert!(matches!(node.next().await, Event::Datagram { .. }));
    let stats = link.stats();
    let telemetry = stats.channels.iter().find(|stats| stats.channel == ChannelId::named("telemetry")).unwrap();
    assert!(telemetry.received_dropped >= 16 && telemetry.received_frames == 22, "{telemetry:?}");
    // Half a frame is none.
    connection.send_datagram(datagram("telemetry", &two[..two.len() - 1])).unwrap();
    match node.next().await {
        Event::Closed { reason: CloseReason::Misbehaved(Misbehavior::Undecodable(_)), .. } => {}
        other => panic!("{other:?}"),
    }
}

/// QUIC keeps what arrived at once in one piece, and joins what waits for long. A message that is kept must not keep that.
#[tokio::test]
async fn a_message_holds_little_more_than_itself() {
    let mut node = Node::start();
    let socket = stranger();
    let connection = member(&socket, &NodeKey::generate().unwrap(), &node).await;
    node.connected().await;
    // One message fills it, so that the others wait below.
    let mut inbox = node.endpoint.inbox(ChannelId::DATA, 7, 64);
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&Preamble::of(ChannelId::DATA).encode()).await.unwrap();
    let message = frame::encode(7, &[1; 700]);
    for _ in 0..2_100 {
        stream.write_all(&message).await.unwrap();
        // A packet of its own.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut taken, mut largest) = (0, 0);
    while taken < 2_100 {
        let batch = tokio::time::timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap();
        taken += batch.bodies.len();
        largest = largest.max(batch.bodies.len());
        let mut bodies = batch.bodies;
        let first = bodies.next().unwrap();
        drop(bodies);
        // From the body to the end of the memory that it is a part of.
        let memory = first.try_into_mut().expect("nobody else has a part of it").capacity();
        assert!(memory <= 64 * 1_024, "{memory} bytes of memory");
    }
    assert!(largest > 1_000, "{largest}: nothing was joined below, so nothing was seen here");
}
