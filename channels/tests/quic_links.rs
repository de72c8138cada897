//! Two nodes over the loopback interface: that what is sent arrives, and that the end of a connection is told on both sides.
#![cfg(feature = "quic")]

mod quic_support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::dial::Direction;
use meshwork_channels::quic::{CloseCode, CloseReason, DatagramError, DialError, Event, SendError};
use meshwork_channels::sender::Reason;
use meshwork_channels::{ChannelId, frame, limits};
use quic_support::{Node, OTHER_SECRET, SECRET, config, join, pair};

#[tokio::test]
async fn both_sides_know_each_other() {
    let mut a = Node::new({
        let mut config = config();
        config.incarnation = 5;
        config
    });
    let mut b = Node::start();
    let (there, back) = join(&mut a, &mut b).await;
    assert_eq!((there.peer(), back.peer()), (b.id(), a.id()));
    assert_eq!((there.direction(), back.direction()), (Direction::Outbound, Direction::Inbound));
    assert_eq!((there.incarnation(), back.incarnation()), (0, 5));
    assert_eq!((there.version(), back.version()), (1, 1));
    assert_eq!((there.address(), back.address()), (b.address(), a.address()));
    assert_eq!((there.observed(), back.observed()), (a.address(), b.address()));
    assert_eq!((a.endpoint.stats().dials_admitted, b.endpoint.stats().admitted), (1, 1));
    assert_eq!(b.endpoint.stats().half_open, 0);
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_on_every_channel() {
    let (_a, mut b, there, back) = pair().await;
    // Sizes around every limit on the way: joined writes, pieces, stream windows.
    let sizes = [0, 1, 100, 1_200, 16_384, 65_000, 65_537, 300_000, 1_048_576];
    let mut expected: BTreeMap<ChannelId, Vec<(u16, Bytes)>> = BTreeMap::new();
    for channel in ChannelId::BUILT_IN {
        for (index, size) in sizes.into_iter().enumerate() {
            if channel == ChannelId::CONTROL && size > 65_000 {
                continue;
            }
            let body = Bytes::from(vec![channel.0 as u8 * 16 + index as u8; size]);
            there.try_send(channel, frame::encode(index as u16, &body)).unwrap();
            expected.entry(channel).or_default().push((index as u16, body));
        }
    }
    let count = expected.values().map(Vec::len).sum::<usize>();
    let mut arrived: BTreeMap<ChannelId, Vec<(u16, Bytes)>> = BTreeMap::new();
    for _ in 0..count {
        let (channel, frame) = b.frame().await;
        arrived.entry(channel).or_default().push((frame.kind, frame.body));
    }
    assert!(arrived == expected);
    let (sent, received) = (there.stats(), back.stats());
    for (sent, received) in sent.channels.iter().zip(&received.channels) {
        assert_eq!(sent.sent.frames, received.received_frames);
        assert_eq!(sent.sent.bytes, sent.sent.sent_bytes, "what QUIC took is what was queued");
    }
    assert_eq!(there.queued().bytes, 0);
    assert_eq!(there.stalled_since(), None);
    assert!(sent.rtt > Duration::ZERO && sent.bytes_sent > 3_000_000);
}

#[tokio::test]
async fn many_small_frames_both_ways_at_once() {
    let (mut a, mut b, there, back) = pair().await;
    const COUNT: u32 = 20_000;
    let (mut sent, mut got) = ([0_u32; 2], [0_u32; 2]);
    while got != [COUNT; 2] {
        for (link, sent) in [&there, &back].into_iter().zip(&mut sent) {
            while *sent < COUNT {
                match link.try_send(ChannelId::DATA, frame::encode(1, &sent.to_be_bytes())) {
                    Ok(()) => *sent += 1,
                    Err(SendError::Refused(refused)) => {
                        assert_eq!(refused.reason, Reason::ChannelFull);
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let (node, got) = if got[0] <= got[1] { (&mut b, &mut got[0]) } else { (&mut a, &mut got[1]) };
        let (channel, frame) = node.frame().await;
        assert_eq!((channel, &frame.body[..]), (ChannelId::DATA, &got.to_be_bytes()[..]));
        *got += 1;
    }
}

#[tokio::test]
async fn datagrams_arrive() {
    let (mut a, mut b, there, back) = pair().await;
    there.try_send_datagram(Bytes::from(vec![1; limits::DATAGRAM_BYTES_MAX])).unwrap();
    match b.next().await {
        Event::Datagram { connection, bytes } => assert_eq!((connection, bytes.len()), (back.id(), limits::DATAGRAM_BYTES_MAX)),
        other => panic!("{other:?}"),
    }
    back.try_send_datagram(Bytes::from_static(b"back")).unwrap();
    assert!(matches!(a.next().await, Event::Datagram { bytes, .. } if &bytes[..] == b"back"));
    let too_large = Bytes::from(vec![1; limits::DATAGRAM_BYTES_MAX + 1]);
    let (len, len_max) = (too_large.len(), limits::DATAGRAM_BYTES_MAX);
    assert_eq!(there.try_send_datagram(too_large), Err(DatagramError::TooLarge { len, len_max }));
}

#[tokio::test]
async fn what_cannot_be_sent_is_given_back() {
    let (_a, _b, there, _back) = pair().await;
    let large = frame::encode(1, &vec![0; limits::CONTROL_BYTES_MAX]);
    assert!(matches!(there.try_send(ChannelId::CONTROL, large.clone()), Err(SendError::TooLarge { frame, .. }) if frame == large));
    assert!(there.try_send(ChannelId::CONTROL, frame::encode(1, &vec![0; limits::CONTROL_BYTES_MAX - 1])).is_ok());
    assert!(matches!(
        there.try_send(ChannelId(77), frame::encode(1, b"x")),
        Err(SendError::Refused(refused)) if refused.reason == Reason::UnknownChannel
    ));
}

#[tokio::test]
async fn a_close_is_told_on_both_sides() {
    for code in CloseCode::ALL {
        let (mut a, mut b, there, back) = pair().await;
        there.close(code);
        match a.next().await {
            Event::Closed { connection, peer, reason } => {
                assert_eq!((connection, peer, reason), (there.id(), b.id(), CloseReason::Ours(code)));
            }
            other => panic!("{other:?}"),
        }
        match b.next().await {
            Event::Closed { connection, peer, reason } => {
                assert_eq!((connection, peer, reason), (back.id(), a.id(), CloseReason::Theirs(code)));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(there.try_send(ChannelId::DATA, frame::encode(1, b"late")), Err(SendError::Closed(_))));
        assert!(matches!(back.try_send(ChannelId::DATA, frame::encode(1, b"late")), Err(SendError::Closed(_))));
        assert_eq!(back.try_send_datagram(Bytes::from_static(b"late")), Err(DatagramError::Closed));
        assert!(a.endpoint.links().is_empty() && b.endpoint.links().is_empty());
    }
}

#[tokio::test]
async fn a_shutdown_sends_what_is_queued() {
    let (mut a, mut b, there, _back) = pair().await;
    const COUNT: usize = 3_000;
    for index in 0..COUNT {
        there.try_send(ChannelId::DATA, frame::encode(1, &vec![index as u8; 1_000])).unwrap();
    }
    let reader = async {
        let mut frames = 0;
        loop {
            match b.next().await {
                Event::Frame { .. } => frames += 1,
                Event::Closed { reason, .. } => break (frames, reason),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), (frames, reason)) = tokio::join!(a.endpoint.shutdown(CloseCode::Leaving, Duration::from_secs(20)), reader);
    assert_eq!((frames, reason), (COUNT, CloseReason::Theirs(CloseCode::Leaving)));
    assert!(matches!(a.next().await, Event::Closed { reason: CloseReason::Ours(CloseCode::Leaving), .. }));
    assert!(matches!(there.try_send(ChannelId::DATA, frame::encode(1, b"late")), Err(SendError::Closed(_))));
    a.endpoint.dial(b.address(), None);
    // Nobody answers a node that has stopped, and it dials nobody.
    b.endpoint.dial(a.address(), None);
    assert_eq!(b.dial_failed().await, DialError::TimedOut);
    assert_eq!(a.dial_failed().await, DialError::Stopped);
}

#[tokio::test]
async fn a_drain_has_a_limit() {
    let (mut a, _b, there, back) = pair().await;
    // The other node takes no event, so in the end its window is full and nothing moves.
    while there.try_send(ChannelId::DATA, frame::encode(1, &vec![0; 500_000])).is_ok() || there.queued().frames < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    there.drain(CloseCode::TooSlow, Duration::from_millis(100));
    assert!(matches!(a.next().await, Event::Closed { reason: CloseReason::Ours(CloseCode::TooSlow), .. }));
    assert!(!back.stats().channels.is_empty());
}

#[tokio::test]
async fn dropping_an_endpoint_closes_its_connections() {
    let (a, mut b, ..) = pair().await;
    drop(a.endpoint);
    assert!(matches!(b.next().await, Event::Closed { reason: CloseReason::Theirs(CloseCode::Shutdown), .. }));
}

#[tokio::test]
async fn dropping_the_events_closes_the_endpoint() {
    let (a, mut b, ..) = pair().await;
    drop(a.events);
    assert!(matches!(b.next().await, Event::Closed { reason: CloseReason::Theirs(CloseCode::Shutdown), .. }));
}

#[tokio::test]
async fn a_slow_owner_holds_its_peers_back_and_loses_nothing() {
    let mut a = Node::start();
    let mut b = Node::new({
        let mut config = config();
        (config.events_max, config.event_bytes_max) = (64, limits::FRAME_BYTES_MAX);
        config
    });
    let (there, back) = join(&mut a, &mut b).await;
    let mut sent = 0_u32;
    let mut quiet = 0;
    // Until nothing moves any more.
    while quiet < 50 {
        let frame = frame::encode(1, &[&sent.to_be_bytes()[..], &[0; 100_000]].concat());
        match there.try_send(ChannelId::DATA, frame) {
            Ok(()) => (sent, quiet) = (sent + 1, 0),
            Err(_) => quiet += 1,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(b.events.len() <= 64);
    assert!(there.stalled_since().is_some());
    let received = back.stats().channels.iter().map(|channel| channel.received_bytes).sum::<u64>();
    assert!(received <= 2 * limits::FRAME_BYTES_MAX as u64, "{received} bytes were taken for an owner who takes none");
    for index in 0..sent {
        let (_, frame) = b.frame().await;
        assert_eq!(frame.body[..4], index.to_be_bytes());
    }
}

#[tokio::test]
async fn secrets_rotate_without_a_cut() {
    let with = |secrets: &[_]| {
        let mut config = config();
        config.secrets = secrets.to_vec();
        Node::new(config)
    };
    // Old, in between from both ends, new: neighbors in this row can always talk.
    let row = [vec![SECRET], vec![SECRET, OTHER_SECRET], vec![OTHER_SECRET, SECRET], vec![OTHER_SECRET]];
    for pair in row.windows(2) {
        for (dialer, acceptor) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            join(&mut with(dialer), &mut with(acceptor)).await;
        }
    }
}

#[tokio::test]
async fn without_secrets_on_loopback() {
    let open = || {
        let mut config = config();
        config.secrets.clear();
        Node::new(config)
    };
    join(&mut open(), &mut open()).await;
    // An open node is of another cluster than one with a secret.
    let (mut a, b) = (open(), Node::start());
    a.endpoint.dial(b.address(), None);
    assert_eq!(a.dial_failed().await, DialError::WrongCluster);
}

#[tokio::test]
async fn many_nodes_around_one() {
    let mut center = Node::start();
    let mut others: Vec<Node> = (0..30).map(|_| Node::start()).collect();
    for other in &others {
        other.endpoint.dial(center.address(), Some(center.id()));
    }
    let mut peers = BTreeSet::new();
    for _ in &others {
        peers.insert(center.connected().await.peer());
    }
    assert_eq!(peers, others.iter().map(Node::id).collect());
    for other in &mut others {
        other.connected().await;
    }
    assert_eq!(center.endpoint.stats().links, others.len());
}
