//! Members that send garbage or do not read, and strangers that hold the door: what it costs, and that the others do not notice.
#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "these are tests, though not all marked as such")]

mod quic_support;

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::compress::{COMPRESSED, Packer};
use meshwork_channels::quic::{CloseCode, CloseReason, Event, NodeKey, Refusal};
use meshwork_channels::random::generator;
use meshwork_channels::{ChannelId, DecodeError, Misbehavior, frame, limits, sender};
use quic_support::{CLUSTER, Node, SECRET, Shown, alpn, close_code, hello, join, member, proof, say, shake, stranger};
use rand::RngExt;

/// A node, and a member that speaks by hand.
async fn acquaintance() -> (Node, quinn::Endpoint, quinn::Connection) {
    let mut node = Node::start();
    let socket = stranger();
    let connection = member(&socket, &NodeKey::generate().unwrap(), &node).await;
    node.connected().await;
    (node, socket, connection)
}

async fn closed(node: &mut Node) -> CloseReason {
    match node.next().await {
        Event::Closed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_no_stream_of_frames_ends_the_connection() {
    let preamble = frame::Preamble::of(ChannelId::DATA).encode();
    let with_preamble = |rest: &[u8]| [&preamble[..], rest].concat();
    let cases = [
        (vec![9], DecodeError::Invalid),
        (vec![1, 0xff, 0xff, 0xff], DecodeError::Invalid),
        // A length above the limit, a frame of nothing, a number in two bytes that fits in one.
        (with_preamble(&[0xff, 0xff, 0xff, 0xff, 0x0f]), DecodeError::TooLong),
        (with_preamble(&[0]), DecodeError::Invalid),
        (with_preamble(&[0x81, 0x00, 1]), DecodeError::Invalid),
        // The stream ends in the middle of a frame.
        (with_preamble(&[5, 1, b'x']), DecodeError::Truncated),
    ];
    for (bytes, error) in cases {
        let (mut node, _socket, connection) = acquaintance().await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.finish().unwrap();
        assert_eq!(closed(&mut node).await, CloseReason::Misbehaved(Misbehavior::Undecodable(error)), "{bytes:?}");
        assert_eq!(close_code(&connection).await, u64::from(CloseCode::Undecodable.number()));
    }
}

#[tokio::test]
async fn a_compressed_frame_is_opened_and_a_bomb_ends_the_connection() {
    let (mut node, _socket, connection) = acquaintance().await;
    let mut stream = connection.open_uni().await.unwrap();
    let pack = |body: &[u8]| frame::encode(COMPRESSED, &Packer::default().pack(7, body).unwrap());
    let text = b"again and again ".repeat(100);
    stream.write_all(&[frame::Preamble::of(ChannelId::DATA).encode(), pack(&text)].concat()).await.unwrap();
    let (_, opened) = node.frame().await;
    assert_eq!((opened.kind, &opened.body[..]), (7, &text[..]));
    // A few kilobytes that want more than a frame may have.
    let bomb = pack(&vec![0; limits::FRAME_BYTES_MAX + 1]);
    assert!(bomb.len() < 16_384);
    stream.write_all(&bomb).await.unwrap();
    assert_eq!(closed(&mut node).await, CloseReason::Misbehaved(Misbehavior::Undecodable(DecodeError::Invalid)));
}

#[tokio::test]
async fn a_control_frame_has_a_smaller_limit() {
    let (mut node, _socket, connection) = acquaintance().await;
    let mut stream = connection.open_uni().await.unwrap();
    let large = frame::encode(1, &vec![0; limits::CONTROL_BYTES_MAX]);
    stream.write_all(&[&frame::Preamble::of(ChannelId::CONTROL).encode()[..], &large[..10]].concat()).await.unwrap();
    assert_eq!(closed(&mut node).await, CloseReason::Misbehaved(Misbehavior::Undecodable(DecodeError::TooLong)));
}

#[tokio::test]
async fn unknown_and_second_channels_are_stopped_and_the_rest_goes_on() {
    let (mut node, _socket, connection) = acquaintance().await;
    let open = async |channel, body: &'static [u8]| {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[frame::Preamble::of(channel).encode(), frame::encode(7, body)].concat()).await.unwrap();
        stream
    };
    let mut first = open(ChannelId::DATA, b"one").await;
    assert_eq!(&node.frame().await.1.body[..], b"one");
    assert_eq!(open(ChannelId(999), b"lost").await.stopped().await.unwrap(), Some(1_u32.into()));
    assert_eq!(open(ChannelId::DATA, b"lost").await.stopped().await.unwrap(), Some(2_u32.into()));
    // Kinds are the business of those who read them: an unknown one passes.
    first.write_all(&frame::encode(u16::MAX, b"two")).await.unwrap();
    let (channel, frame) = node.frame().await;
    assert_eq!((channel, frame.kind, &frame.body[..]), (ChannelId::DATA, u16::MAX, &b"two"[..]));
    // A stream that ended may be followed by another one.
    first.finish().unwrap();
    first.stopped().await.unwrap();
    let mut second = connection.open_uni().await.unwrap();
    let preamble = frame::Preamble { number: 1, ..frame::Preamble::of(ChannelId::DATA) };
    second.write_all(&[preamble.encode(), frame::encode(7, b"three")].concat()).await.unwrap();
    assert_eq!(&node.frame().await.1.body[..], b"three");
}

#[tokio::test]
async fn streams_in_vain_end_the_connection() {
    let (mut node, _socket, connection) = acquaintance().await;
    let flood = async {
        while let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.write_all(&frame::Preamble::of(ChannelId(999)).encode()).await;
            let _ = stream.finish();
        }
    };
    let (reason, ()) = tokio::join!(closed(&mut node), flood);
    assert_eq!(reason, CloseReason::Misbehaved(Misbehavior::TooMany));
}

#[tokio::test]
async fn random_bytes_on_streams_and_datagrams() {
    let mut node = Node::start();
    let (mut friend, socket) = (Node::start(), stranger());
    let (there, _back) = join(&mut friend, &mut node).await;
    let mut random = generator(1, "garbage", 0);
    for round in 0..20 {
        let connection = member(&socket, &NodeKey::generate().unwrap(), &node).await;
        node.connected().await;
        for _ in 0..random.random_range(1..5) {
            let garbage: Vec<u8> = (0..random.random_range(0..600)).map(|_| random.random()).collect();
            let _ = connection.send_datagram(Bytes::from(garbage.clone()));
            let Ok(mut stream) = connection.open_uni().await else { break };
            // Half of them get past the preamble.
            if random.random() {
                let _ = stream.write_all(&frame::Preamble::of(ChannelId(random.random_range(0..6))).encode()).await;
            }
            let _ = stream.write_all(&garbage).await;
            let _ = stream.finish();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        connection.close(0_u32.into(), b"");
        // Whatever it meant: frames, datagrams, and one end.
        while !matches!(node.next().await, Event::Closed { .. }) {}
        there.try_send(ChannelId::DATA, frame::encode(round, b"still here")).unwrap();
        assert_eq!(node.frame().await.1.kind, round);
    }
}

#[tokio::test]
async fn large_datagrams_are_counted_and_dropped() {
    let (mut node, _socket, connection) = acquaintance().await;
    let link = node.endpoint.links().remove(0);
    // Path discovery takes a moment to find that the loopback interface carries more.
    while connection.max_datagram_size().unwrap() <= limits::DATAGRAM_BYTES_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    connection.send_datagram(Bytes::from(vec![1; limits::DATAGRAM_BYTES_MAX + 1])).unwrap();
    connection.send_datagram(Bytes::from_static(b"small")).unwrap();
    assert!(matches!(node.next().await, Event::Datagram { bytes, .. } if &bytes[..] == b"small"));
    assert_eq!(link.stats().datagrams_refused, 1);
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let mut node = Node::start();
    let socket = stranger();
    let cases: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 5_000],
        &hello(3, [1, 1], [0; 32]),
        &frame::encode(1, b"short"),
        &[&hello(1, [1, 1], [0; 32])[..], b"more"].concat(),
    ];
    for (index, words) in cases.into_iter().enumerate() {
        let shown = Shown::RawKey(NodeKey::generate().unwrap());
        let connection = shake(&socket, &shown, alpn(&SECRET, CLUSTER), node.address()).await;
        assert!(say(&connection, words).await.is_none());
        assert_eq!(close_code(&connection).await, u64::from(CloseCode::Undecodable.number()), "{index}");
    }
    assert_eq!(node.refused().await, Refusal::Undecodable);
    assert_eq!(node.endpoint.stats().refused(Refusal::Undecodable), 6);
    assert_eq!(node.endpoint.stats().links, 0);
}

#[tokio::test]
async fn before_admission_there_is_one_stream_and_no_datagram() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let soon = Duration::from_millis(100);
    assert!(tokio::time::timeout(soon, connection.open_uni()).await.is_err());
    let (mut stream, _) = connection.open_bi().await.unwrap();
    assert!(tokio::time::timeout(soon, connection.open_bi()).await.is_err());
    // Nobody reads beyond a hello, and 32 KiB is all that the node takes in.
    let mut sent = 0;
    let _ = tokio::time::timeout(soon, async {
        while let Ok(bytes) = stream.write(&[0x80; 4_096]).await {
            sent += bytes;
        }
    })
    .await;
    assert!(sent <= limits::WINDOW_BYTES_BEFORE_ADMISSION as usize, "{sent}");
    close_code(&connection).await;

    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    connection.send_datagram(Bytes::from_static(b"early")).unwrap();
    assert_eq!(close_code(&connection).await, u64::from(CloseCode::Undecodable.number()));
    assert_eq!(node.refused().await, Refusal::Undecodable);
    // Only one attempt: a good hello after a bad one comes too late.
    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = hello(1, [1, 1], proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]));
    assert!(say(&connection, &hello(1, [1, 1], [0; 32])).await.is_none());
    assert!(say(&connection, &right).await.is_none());
    assert_eq!(node.endpoint.stats().links, 0);
}

#[tokio::test]
async fn a_hundred_who_shake_hands_and_say_nothing() {
    let mut node = Node::start();
    let socket = stranger();
    let shown = Shown::RawKey(NodeKey::generate().unwrap());
    const COUNT: u64 = 100;
    let mut slow = Vec::new();
    for _ in 0..COUNT {
        slow.push(shake(&socket, &shown, alpn(&SECRET, CLUSTER), node.address()).await);
    }
    // Somebody honest gets through, at worst with a token.
    join(&mut Node::start(), &mut node).await;
    for connection in slow {
        assert_eq!(close_code(&connection).await, u64::from(CloseCode::TooSlow.number()));
    }
    let stats = node.endpoint.stats();
    assert_eq!((stats.refused(Refusal::TimedOut), stats.refused_total(), stats.half_open), (COUNT, COUNT, 0));
    assert!(stats.retries > 0, "so many at once must show that they receive");
    // One line for all of them.
    while let Some(event) = node.events.try_recv() {
        assert!(matches!(event, Event::Refused { reason: Refusal::TimedOut, .. } | Event::Closed { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_peer_that_never_reads() {
    let (mut node, _socket, _connection) = acquaintance().await;
    let deaf = node.endpoint.links().remove(0);
    let mut friend = Node::start();
    let (_there, back) = join(&mut friend, &mut node).await;
    let params = sender::Params::default();

    // Fill every channel to the brim.
    let (mut refused, mut rounds) = (0, 0);
    while refused < 200 {
        for channel in ChannelId::BUILT_IN {
            let frame = frame::encode(1, &vec![0; 60_000]);
            refused += u32::from(deaf.try_send(channel, frame).is_err());
        }
        rounds += 1;
        // The friend is served all the while.
        back.try_send(ChannelId::DATA, frame::encode(2, b"you")).unwrap();
        assert_eq!(friend.frame().await.1.kind, 2);
    }
    assert!(rounds > 40, "the windows and queues took something first");
    // The params bound what is queued, 64 KiB and a frame what the writer holds for each stream.
    let held_max = ChannelId::BUILT_IN.len() * 128 * 1_024;
    assert!(deaf.queued().bytes <= params.peer_bytes_max() + held_max);
    assert!(deaf.stalled_since().is_some());
    assert_eq!(back.stalled_since(), None);
    deaf.close(CloseCode::TooSlow);
    assert_eq!(closed(&mut node).await, CloseReason::Ours(CloseCode::TooSlow));
}

#[tokio::test]
async fn one_stream_that_is_not_read_holds_back_no_other() {
    let (node, _socket, connection) = acquaintance().await;
    let link = node.endpoint.links().remove(0);
    const MIB: u64 = 1_024 * 1_024;
    // Data until its stream, which the peer leaves unread, takes no more and its queue is full.
    let fill = || while link.try_send(ChannelId::DATA, frame::encode(1, &vec![0; 60_000])).is_ok() {};
    fill();
    let _unread = connection.accept_uni().await.unwrap();
    while link.stats().channels.iter().all(|channel| channel.sent.sent_bytes < MIB) {
        fill();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    link.try_send(ChannelId::COORDINATION, frame::encode(1, b"first")).unwrap();
    let mut read = connection.accept_uni().await.unwrap();
    for _ in 0..50 {
        link.try_send(ChannelId::COORDINATION, frame::encode(1, &[1; 100_000])).unwrap();
        let mut bytes = 0;
        while bytes < 100_000 {
            bytes += read.read_chunk(usize::MAX, true).await.unwrap().unwrap().bytes.len();
        }
    }
    assert!(link.queued().bytes > 0, "the other channel still waits");
}

#[tokio::test]
async fn of_256_streams_at_once_a_quarter_gets_in_and_nobody_else_notices() {
    let (mut node, _socket, connection) = acquaintance().await;
    let mut friend = Node::start();
    let (there, back) = join(&mut friend, &mut node).await;
    // Half a preamble each: nothing to refuse yet, nothing to end.
    let opening: Vec<_> = (0..256)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let mut stream = connection.open_uni().await?;
                let _ = stream.write_all(&[1]).await;
                Ok::<_, quinn::ConnectionError>(stream)
            })
        })
        .collect();
    let opened = || opening.iter().filter(|opening| opening.is_finished()).count();
    while opened() < limits::STREAMS_MAX as usize {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for round in 0..100 {
        there.try_send(ChannelId::DATA, frame::encode(round, b"still here")).unwrap();
        assert_eq!(node.frame().await.1.kind, round);
        back.try_send(ChannelId::DATA, frame::encode(round, b"here too")).unwrap();
        assert_eq!(friend.frame().await.1.kind, round);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(opened(), limits::STREAMS_MAX as usize, "the others wait at their sender");
    assert_eq!(node.endpoint.stats().links, 2, "which is no fault");
    // Those that get in make room for the next when they are over, and each has to be the stream of something.
    let mut stopped = 0;
    for opening in opening {
        let mut stream = tokio::time::timeout(quic_support::PATIENCE, opening).await.unwrap().unwrap().unwrap();
        let preamble = frame::Preamble::of(ChannelId(999)).encode();
        let _ = stream.write_all(&preamble[1..]).await;
        stopped += usize::from(stream.stopped().await.unwrap() == Some(1_u32.into()));
    }
    assert_eq!(stopped, 256);
    let mut good = connection.open_uni().await.unwrap();
    good.write_all(&[frame::Preamble::of(ChannelId::DATA).encode(), frame::encode(7, b"one")].concat()).await.unwrap();
    assert_eq!(&node.frame().await.1.body[..], b"one");
    // Open streams without a word hold up no end.
    let _silent = connection.open_uni().await.unwrap();
    connection.close(CloseCode::Leaving.number().into(), b"");
    assert_eq!(closed(&mut node).await, CloseReason::Theirs(CloseCode::Leaving));
}
