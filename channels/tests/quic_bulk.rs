//! The second connection of a link: that channels for bulk move to it and back with nothing lost and nothing out of order, and that a peer gains
//! nothing by misusing it.
#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, though not all marked as such")]

mod quic_support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::quic::{CloseCode, CloseReason, EndpointConfig, Event, Link, MessageError, NodeKey};
use meshwork_channels::{ChannelId, DecodeError, Misbehavior, frame, limits};
use quic_support::{CLUSTER, Node, PATIENCE, SECRET, Shown, alpn, close_code, config, join, member, proof, say, shake, stranger, tag};
use tokio::time::{sleep, timeout};

const KIND: u16 = 9;

/// A node whose second connections come and go quickly.
fn quick() -> EndpointConfig {
    let mut config = config();
    config.bulk_idle = Duration::from_millis(100);
    config.bulk_retry = Duration::from_millis(300);
    config
}

async fn quick_pair() -> (Node, Node, Link, Link) {
    let (mut a, mut b) = (Node::new(quick()), Node::new(quick()));
    let (there, back) = join(&mut a, &mut b).await;
    (a, b, there, back)
}

/// Sends, waiting for room as long as it takes.
async fn send(link: &Link, channel: ChannelId, lane: u8, body: &[u8]) {
    timeout(PATIENCE, async {
        loop {
            match link.try_send_message(channel, lane, KIND, body) {
                Ok(()) => return,
                Err(MessageError::Refused(..)) => link.room(channel, body.len()).await,
                Err(MessageError::Closed) => panic!("closed"),
            }
        }
    })
    .await
    .expect("room in time");
}

fn body(lane: u8, number: u32, len: usize) -> Vec<u8> {
    let mut body = vec![lane; len.max(5)];
    body[1..5].copy_from_slice(&number.to_be_bytes());
    body
}

/// Sends so many numbered messages of a size on each lane of the data channel.
async fn burst(link: &Link, next: &mut [u32; 5], count: u32, len: usize) {
    for _ in 0..count {
        for lane in 0..5 {
            send(link, ChannelId::DATA, lane, &body(lane, next[lane as usize], len)).await;
            next[lane as usize] += 1;
        }
    }
}

/// Checks that messages of lanes are complete and in order.
#[derive(Default)]
struct Ledger {
    next: BTreeMap<u8, u32>,
    count: u32,
}

impl Ledger {
    fn note(&mut self, body: &[u8]) {
        let number = u32::from_be_bytes(body[1..5].try_into().unwrap());
        let next = self.next.entry(body[0]).or_default();
        assert_eq!(number, *next, "lane {}", body[0]);
        *next += 1;
        self.count += 1;
    }

    async fn read(&mut self, node: &mut Node, until: u32) {
        while self.count < until {
            let (channel, frame) = node.frame().await;
            assert_eq!(channel, ChannelId::DATA);
            self.note(&frame.body);
        }
    }

    async fn read_to_the_end(&mut self, node: &mut Node) -> CloseReason {
        loop {
            match node.next().await {
                Event::Frame { frame, .. } => self.note(&frame.body),
                Event::Closed { reason, .. } => return reason,
                // A second connection that was being opened when the link ended is turned away.
                Event::Refused { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Nothing is told of a connection whose end was told.
async fn assert_silence(node: &mut Node) {
    // A second connection that was being opened may be told of as turned away.
    while let Ok(event) = timeout(Duration::from_millis(100), node.events.recv()).await {
        assert!(matches!(event, Some(Event::Refused { .. })), "{event:?}");
    }
}

/// Until so many second connections of the node are open.
async fn until_open(node: &Node, count: usize) {
    let open = async {
        while node.endpoint.stats().second_connections != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, open).await.expect("second connections in time");
}

#[tokio::test]
async fn channels_move_there_and_back_and_there_and_back() {
    let (mut a, mut b, there, back) = quick_pair().await;
    let (mut forth, mut home) = ([0; 5], [0; 5]);
    let (mut at_b, mut at_a) = (Ledger::default(), Ledger::default());
    for round in 1..=3 {
        // Too little, then enough to move, both ways at once.
        let sending = async {
            burst(&there, &mut forth, 2, 100).await;
            burst(&there, &mut forth, 20, 30_000).await;
        };
        let answering = burst(&back, &mut home, 22, 30_000);
        let (to_b, to_a) = (at_b.read(&mut b, round * 110), at_a.read(&mut a, round * 110));
        tokio::join!(sending, answering, to_b, to_a);
        assert!(a.endpoint.stats().second_connections > 0, "it was used");
        until_open(&a, 0).await;
        until_open(&b, 0).await;
    }
    let stats = there.stats();
    assert!(stats.bytes_sent > 9_000_000 && stats.bytes_received > 9_000_000, "closed connections stay in the sums");
    there.close(CloseCode::Leaving);
    assert_eq!(at_b.read_to_the_end(&mut b).await, CloseReason::Theirs(CloseCode::Leaving));
    assert_eq!(at_a.read_to_the_end(&mut a).await, CloseReason::Ours(CloseCode::Leaving));
    assert_silence(&mut b).await;
}

#[tokio::test]
async fn a_drain_loses_nothing_whatever_the_second_connection_does() {
    // While it opens, when it just opened, when it is full, when it closes for idleness.
    for wait in [0, 5, 50, 140] {
        let (mut a, mut b, there, _back) = quick_pair().await;
        let (mut ledger, mut next) = (Ledger::default(), [0; 5]);
        for _ in 0..16 {
            for lane in 0..5 {
                there.try_send_message(ChannelId::DATA, lane, KIND, &body(lane, next[lane as usize], 30_000)).unwrap();
                next[lane as usize] += 1;
            }
        }
        sleep(Duration::from_millis(wait)).await;
        let reading = ledger.read_to_the_end(&mut b);
        let ((), reason) = tokio::join!(a.endpoint.shutdown(CloseCode::Leaving, PATIENCE), reading);
        assert_eq!((ledger.count, reason), (80, CloseReason::Theirs(CloseCode::Leaving)), "after {wait} ms");
        assert!(matches!(a.next().await, Event::Closed { reason: CloseReason::Ours(CloseCode::Leaving), .. }));
        assert_silence(&mut b).await;
        assert_eq!((a.endpoint.stats().second_connections, b.endpoint.stats().second_connections), (0, 0));
    }
}

#[tokio::test]
async fn a_close_by_either_side_ends_both_connections() {
    for (ours, wait) in [(true, 0), (true, 20), (false, 0), (false, 20)] {
        let (mut a, mut b, there, back) = quick_pair().await;
        for number in 0..40 {
            there.try_send_message(ChannelId::DATA, 0, KIND, &body(0, number, 50_000)).unwrap();
        }
        sleep(Duration::from_millis(wait)).await;
        if ours {
            there.close(CloseCode::Shutdown)
        } else {
            back.close(CloseCode::Shutdown)
        }
        let (mut ledger, mut none) = (Ledger::default(), Ledger::default());
        let (at_a, at_b) = (none.read_to_the_end(&mut a).await, ledger.read_to_the_end(&mut b).await);
        let (closed, told) = if ours { (at_a, at_b) } else { (at_b, at_a) };
        assert_eq!((closed, told), (CloseReason::Ours(CloseCode::Shutdown), CloseReason::Theirs(CloseCode::Shutdown)));
        until_open(&a, 0).await;
        until_open(&b, 0).await;
        assert_silence(&mut b).await;
    }
}

#[tokio::test]
async fn urgent_channels_go_on_while_data_stands_still() {
    let (_a, mut b, there, _back) = quick_pair().await;
    let inbox = b.endpoint.inbox(ChannelId::DATA, KIND, 1024 * 1024);
    let mut refused = 0;
    let mut next = 0;
    while refused < 20 {
        match there.try_send_message(ChannelId::DATA, 0, KIND, &body(0, next, 60_000)) {
            Ok(()) => next += 1,
            Err(_) => {
                refused += 1;
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // One stream's window, one send queue, the inbox: not more.
    assert!(next < 200, "{next} messages were taken for somebody who reads none");
    for channel in [ChannelId::COORDINATION, ChannelId::CONTROL, ChannelId::GOSSIP] {
        for index in 0..20 {
            there.try_send(channel, frame::encode(index, &[1; 10_000])).unwrap();
            assert_eq!(b.frame().await.1.kind, index);
        }
    }
    // Dropped with what it held, and the rest comes as events.
    drop(inbox);
    let mut last = None;
    while last != Some(next - 1) {
        let (_, frame) = b.frame().await;
        let number = u32::from_be_bytes(frame.body[1..5].try_into().unwrap());
        assert!(last.is_none_or(|last| number == last + 1));
        last = Some(number);
    }
}

#[tokio::test]
async fn an_inbox_takes_over_from_one_that_nobody_reads() {
    let (a, b, there, _back) = quick_pair().await;
    let mut first = b.endpoint.inbox(ChannelId::DATA, KIND, 100_000);
    let sending = async {
        for number in 0..5_000 {
            send(&there, ChannelId::DATA, 0, &body(0, number, 500)).await;
        }
    };
    let reading = async {
        sleep(Duration::from_millis(100)).await;
        let mut second = b.endpoint.inbox(ChannelId::DATA, KIND, 100_000);
        let mut ledger = Ledger::default();
        while let Some(batch) = timeout(PATIENCE, first.recv()).await.unwrap() {
            batch.bodies.for_each(|body| ledger.note(&body));
        }
        assert!(ledger.count < 5_000);
        while ledger.count < 5_000 {
            let batch = timeout(PATIENCE, second.recv()).await.unwrap().unwrap();
            assert_eq!((batch.peer, batch.lane), (a.id(), 0));
            batch.bodies.for_each(|body| ledger.note(&body));
        }
    };
    tokio::join!(sending, reading);
}

/// A node, and a member that speaks by hand, has one connection and knows its tag.
struct Acquaintance {
    node: Node,
    socket: quinn::Endpoint,
    key: NodeKey,
    first: quinn::Connection,
}

async fn acquaintance() -> Acquaintance {
    let mut node = Node::new(quick());
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let first = member(&socket, &key, &node).await;
    node.connected().await;
    Acquaintance { node, socket, key, first }
}

impl Acquaintance {
    /// Knocks a second time and names a connection; whether the node welcomed it.
    async fn attach_as(&self, key: &NodeKey, tag: [u8; 16]) -> (quinn::Connection, bool) {
        let connection = shake(&self.socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), self.node.address()).await;
        let proof = proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), self.node.id()]);
        let welcome = say(&connection, &quic_support::hello_of(1, [1, 1], proof, Some(tag))).await;
        (connection, welcome.is_some())
    }

    async fn attach(&self) -> quinn::Connection {
        let (connection, welcome) = self.attach_as(&self.key, tag(&self.first)).await;
        assert!(welcome);
        connection
    }
}

async fn stream(on: &quinn::Connection, channel: ChannelId, lane: u8, number: u32, bodies: &[&[u8]]) -> quinn::SendStream {
    let mut stream = timeout(PATIENCE, on.open_uni()).await.unwrap().unwrap();
    let mut bytes = frame::Preamble { channel, lane, number }.encode().to_vec();
    bodies.iter().for_each(|body| frame::encode_into(KIND, body, &mut bytes));
    stream.write_all(&bytes).await.unwrap();
    stream
}

async fn closed(node: &mut Node) -> CloseReason {
    loop {
        match node.next().await {
            Event::Closed { reason, .. } => return reason,
            Event::Refused { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_the_peer_of_a_link_attaches_and_only_once_at_a_time() {
    let acquaintance = acquaintance().await;
    let right = tag(&acquaintance.first);
    let duplicate = u64::from(CloseCode::Duplicate.number());
    let stranger = NodeKey::generate().unwrap();
    for (key, tag) in [(&acquaintance.key, [0; 16]), (&stranger, right)] {
        let (connection, welcome) = acquaintance.attach_as(key, tag).await;
        assert!(!welcome);
        assert_eq!(close_code(&connection).await, duplicate);
    }
    let second = acquaintance.attach().await;
    let (third, welcome) = acquaintance.attach_as(&acquaintance.key, right).await;
    assert!(!welcome, "one is enough");
    assert_eq!(close_code(&third).await, duplicate);
    // In good order, and then there is room for the next.
    second.close(CloseCode::Idle.number().into(), b"");
    until_open(&acquaintance.node, 0).await;
    let _fourth = acquaintance.attach().await;
    acquaintance.first.close(CloseCode::Leaving.number().into(), b"");
    let Acquaintance { mut node, .. } = acquaintance;
    assert_eq!(closed(&mut node).await, CloseReason::Theirs(CloseCode::Leaving));
    until_open(&node, 0).await;
    assert_eq!(node.endpoint.stats().links, 0);
}

#[tokio::test]
async fn attaching_to_a_link_that_is_over_is_refused() {
    let mut acquaintance = acquaintance().await;
    let right = tag(&acquaintance.first);
    acquaintance.first.close(CloseCode::Leaving.number().into(), b"");
    closed(&mut acquaintance.node).await;
    assert!(!acquaintance.attach_as(&acquaintance.key, right).await.1);
}

#[tokio::test]
async fn what_does_not_belong_there_ends_the_link() {
    for datagram in [false, true] {
        let mut acquaintance = acquaintance().await;
        let second = acquaintance.attach().await;
        if datagram {
            second.send_datagram(Bytes::from_static(b"here")).unwrap();
        } else {
            stream(&second, ChannelId::CONTROL, 0, 0, &[b"here"]).await;
        }
        assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Misbehaved(Misbehavior::WrongChannel));
        close_code(&second).await;
    }
}

#[tokio::test]
async fn streams_are_read_in_the_order_of_their_numbers() {
    let mut acquaintance = acquaintance().await;
    let second = acquaintance.attach().await;
    let first = acquaintance.first.clone();
    let data = ChannelId::DATA;
    let mut late = Vec::new();
    for number in (1..=4).rev() {
        let on = if number % 2 == 0 { &first } else { &second };
        let mut stream = stream(on, data, 1, number, &[&[number as u8]]).await;
        stream.finish().unwrap();
        late.push(stream);
    }
    sleep(Duration::from_millis(100)).await;
    assert!(acquaintance.node.events.is_empty(), "they wait for the first");
    // Too far ahead, a number twice, no such lane.
    for (lane, number, code) in [(1, 5, 2_u32), (1, 3, 2), (5, 0, 1)] {
        let refused = stream(&second, data, lane, number, &[b"never"]).await;
        assert_eq!(timeout(PATIENCE, refused.stopped()).await.unwrap().unwrap(), Some(code.into()), "{lane} {number}");
    }
    stream(&second, data, 1, 0, &[&[0]]).await.finish().unwrap();
    for number in 0..=4 {
        assert_eq!(acquaintance.node.frame().await.1.body[..], [number]);
    }
}

#[tokio::test]
async fn streams_that_wait_for_what_never_comes_hold_up_no_end() {
    // The peer closes, then we do.
    for theirs in [true, false] {
        let mut acquaintance = acquaintance().await;
        let second = acquaintance.attach().await;
        let mut kept = Vec::new();
        for on in [&acquaintance.first, &second] {
            for lane in 0..5 {
                let numbers = if std::ptr::eq(on, &second) { [1, 2] } else { [3, 4] };
                for number in numbers {
                    kept.push(stream(on, ChannelId::DATA, lane, number, &[b"never"]).await);
                }
            }
        }
        sleep(Duration::from_millis(50)).await;
        if theirs {
            second.close(CloseCode::Idle.number().into(), b"");
            acquaintance.first.close(CloseCode::Leaving.number().into(), b"");
            assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Theirs(CloseCode::Leaving));
        } else {
            timeout(PATIENCE, acquaintance.node.endpoint.shutdown(CloseCode::Shutdown, Duration::from_secs(1))).await.unwrap();
            assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Ours(CloseCode::Shutdown));
        }
        assert_eq!((acquaintance.node.endpoint.stats().links, acquaintance.node.endpoint.stats().second_connections), (0, 0));
    }
}

#[tokio::test]
async fn a_second_connection_that_breaks_takes_the_link_along() {
    let mut acquaintance = acquaintance().await;
    let second = acquaintance.attach().await;
    let _open = stream(&second, ChannelId::DATA, 0, 0, &[b"one"]).await;
    assert_eq!(&acquaintance.node.frame().await.1.body[..], b"one");
    // The next stream must not be read as if nothing was missing.
    let mut next = stream(&acquaintance.first, ChannelId::DATA, 0, 1, &[b"three"]).await;
    next.finish().unwrap();
    second.close(0_u32.into(), b"");
    assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Ours(CloseCode::Broken));
    assert_eq!(close_code(&acquaintance.first).await, u64::from(CloseCode::Broken.number()));
}

#[tokio::test]
async fn a_stream_that_is_reset_leaves_a_hole() {
    let mut acquaintance = acquaintance().await;
    let mut lost = stream(&acquaintance.first, ChannelId::DATA, 0, 0, &[b"one"]).await;
    assert_eq!(&acquaintance.node.frame().await.1.body[..], b"one");
    lost.reset(7_u32.into()).unwrap();
    assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Misbehaved(Misbehavior::Undecodable(DecodeError::Truncated)));
}

#[tokio::test]
async fn a_peer_that_refuses_gets_everything_on_the_first_connection() {
    // A member that can only dial: nobody answers at its socket.
    let acquaintance = acquaintance().await;
    let link = acquaintance.node.endpoint.links().remove(0);
    let mut read = 0;
    for number in 0..40 {
        link.try_send_message(ChannelId::DATA, 0, KIND, &body(0, number, 50_000)).unwrap();
    }
    let reading = async {
        let mut next = 0;
        // A stream ends when the channel is about to move, and the next one goes on where it was.
        while read < 40 {
            let mut stream = acquaintance.first.accept_uni().await.unwrap();
            let mut decoder = frame::Decoder::new(limits::FRAME_BYTES_MAX);
            let mut preamble = None;
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                decoder.push(chunk.bytes);
                if preamble.is_none() {
                    preamble = decoder.preamble().unwrap();
                    assert_eq!(preamble.map(|preamble| preamble.number), Some(next));
                    next += 1;
                }
                while let Some(frame) = decoder.next().unwrap() {
                    assert_eq!(frame.body[1..5], u32::to_be_bytes(read));
                    read += 1;
                }
                if read == 40 {
                    break;
                }
            }
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
}

#[tokio::test]
async fn a_lane_that_stands_still_holds_back_no_other() {
    let (mut a, mut b) = (Node::start(), Node::start());
    let (there, _back) = join(&mut a, &mut b).await;
    let mut inbox = b.endpoint.inbox(ChannelId::COORDINATION, KIND, 100_000);
    // A second connection that stays.
    for number in 0..10 {
        there.try_send_message(ChannelId::DATA, 0, KIND, &body(0, number, 60_000)).unwrap();
    }
    Ledger::default().read(&mut b, 10).await;
    assert!(a.endpoint.stats().second_connections > 0);
    // Nobody reads, until frames of the first lane wait.
    let mut quiet = 0;
    while quiet < 5 {
        quiet += 1;
        while there.try_send_message(ChannelId::COORDINATION, 0, KIND, &[0; 60_000]).is_ok() {
            quiet = 0;
        }
        sleep(Duration::from_millis(100)).await;
    }
    // Then room for one message, and quiet again.
    let mut taken = 0;
    while taken < 10 {
        taken += timeout(PATIENCE, inbox.recv()).await.unwrap().unwrap().bodies.len();
    }
    sleep(Duration::from_millis(300)).await;
    let waiting = there.queued().frames;
    assert!(waiting > 0, "the first lane waits");
    there.try_send_message(ChannelId::COORDINATION, 1, KIND, b"other").unwrap();
    let taken = async {
        while there.queued().frames > waiting {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, taken).await.expect("the writer was woken for it");
}

/// Writes until nothing more is taken for a while.
async fn fill(streams: &mut [quinn::SendStream]) {
    let chunk = vec![0; 64 * 1_024];
    for stream in streams {
        while let Ok(written) = timeout(Duration::from_millis(100), stream.write_all(&chunk)).await {
            written.unwrap();
        }
    }
}

#[tokio::test]
async fn streams_behind_gaps_that_stay_hold_a_window_and_hold_up_nobody() {
    let mut acquaintance = acquaintance().await;
    let second = acquaintance.attach().await;
    let mut friend = Node::new(quick());
    let (there, back) = quic_support::join(&mut friend, &mut acquaintance.node).await;
    // Every stream that may wait, on every lane of the channel, and never the one that they wait for.
    let (mut on_first, mut on_second) = (Vec::new(), Vec::new());
    for lane in 0..5 {
        for number in 1..=limits::STREAMS_AHEAD_MAX {
            let (on, streams) = if number % 2 == 0 { (&acquaintance.first, &mut on_first) } else { (&second, &mut on_second) };
            streams.push(stream(on, ChannelId::DATA, lane, number, &[b"never"]).await);
        }
    }
    tokio::join!(fill(&mut on_first), fill(&mut on_second));
    // What left is what was held, for the receiver made no room: the windows, and what packets cost.
    for (connection, window) in [(&acquaintance.first, limits::WINDOW_BYTES), (&second, limits::BULK_WINDOW_BYTES)] {
        let sent = connection.stats().udp_tx.bytes;
        assert!(sent > 1_024 * 1_024, "only {sent} bytes were sent");
        assert!(sent <= u64::from(window) * 3 / 2, "{sent} bytes were taken in");
    }
    let before = (acquaintance.first.stats().udp_tx.bytes, second.stats().udp_tx.bytes);
    for number in 0..100 {
        there.try_send_message(ChannelId::DATA, 0, KIND, &body(0, number, 1_000)).unwrap();
        assert_eq!(acquaintance.node.frame().await.1.body[..], body(0, number, 1_000));
        back.try_send_message(ChannelId::DATA, 0, KIND, &body(0, number, 1_000)).unwrap();
        assert_eq!(friend.frame().await.1.body[..], body(0, number, 1_000));
    }
    let after = (acquaintance.first.stats().udp_tx.bytes, second.stats().udp_tx.bytes);
    assert!(after.0 - before.0 < 64 * 1_024 && after.1 - before.1 < 64 * 1_024, "{before:?} {after:?}");
    // Nothing of it was told, and nothing of it holds up the end.
    acquaintance.first.close(CloseCode::Leaving.number().into(), b"");
    assert_eq!(closed(&mut acquaintance.node).await, CloseReason::Theirs(CloseCode::Leaving));
}

#[tokio::test]
async fn streams_too_far_ahead_end_the_link_when_they_are_many() {
    for on_second in [false, true] {
        let mut acquaintance = acquaintance().await;
        let second = acquaintance.attach().await;
        let on = if on_second { &second } else { &acquaintance.first };
        let flood = async {
            for number in limits::STREAMS_AHEAD_MAX + 1.. {
                let Ok(mut stream) = on.open_uni().await else { break };
                let preamble = frame::Preamble { channel: ChannelId::DATA, lane: (number % 5) as u8, number };
                let _ = stream.write_all(&preamble.encode()).await;
                let _ = stream.finish();
            }
        };
        let (reason, ()) = tokio::join!(closed(&mut acquaintance.node), flood);
        assert_eq!(reason, CloseReason::Misbehaved(Misbehavior::TooMany));
        assert_eq!(close_code(&acquaintance.first).await, u64::from(CloseCode::Misbehaved.number()));
    }
}
