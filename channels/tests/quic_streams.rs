//! Byte streams of the application: what they carry, who refuses them and how, and that neither hostile nor idle ones delay anything else.
#![cfg(feature = "quic")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, though not all marked as such")]

mod quic_support;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use meshwork_channels::quic::{
    ByteStream, CloseCode, CloseReason, EndpointConfig, Event, Link, NodeKey, OpenError, StreamError, StreamListener,
};
use meshwork_channels::{ChannelId, Misbehavior, frame, limits};
use quic_support::{Node, PATIENCE, config, join, member, pair, stranger};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};

async fn write(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn finish(stream: &mut (impl AsyncWrite + Unpin)) {
    poll_fn(|context| Pin::new(&mut *stream).poll_shutdown(context)).await.unwrap();
}

/// The next bytes; none at the end.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 4_096];
    let mut buffer = ReadBuf::new(&mut bytes);
    timeout(PATIENCE, poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer))).await.expect("bytes in time")?;
    Ok(buffer.filled().to_vec())
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        match read(stream).await? {
            bytes if bytes.is_empty() => return Ok(all),
            bytes => all.extend(bytes),
        }
    }
}

/// Writes until nothing more is taken for a while; how much was.
async fn fill(stream: &mut ByteStream) -> usize {
    let mut filled = 0;
    while let Ok(written) =
        timeout(Duration::from_millis(300), poll_fn(|context| Pin::new(&mut *stream).poll_write(context, &[7; 16_384]))).await
    {
        filled += written.unwrap();
    }
    filled
}

fn cause(error: &io::Error) -> StreamError {
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

/// A stream as the one who opens it and the one who accepts it see it.
async fn stream(link: &Link, listener: &mut StreamListener, channel: ChannelId) -> (ByteStream, ByteStream) {
    let (opened, accepted) = tokio::join!(link.open_stream(channel), listener.accept());
    (opened.unwrap(), accepted.unwrap())
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    timeout(PATIENCE, async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("still waiting for {what}"));
}

fn quick() -> EndpointConfig {
    EndpointConfig { bulk_idle: Duration::from_millis(100), ..config() }
}

#[tokio::test]
async fn both_sides_send_finish_and_read_to_the_end() {
    let (a, b, there, back) = pair().await;
    for (channel, seconds) in [(ChannelId::COORDINATION, 0), (ChannelId::DATA, 1)] {
        let mut listener = b.endpoint.accept_streams(channel);
        let (mut near, mut far) = stream(&there, &mut listener, channel).await;
        assert_eq!((near.peer(), far.peer(), near.channel(), far.channel()), (b.id(), a.id(), channel, channel));
        assert_eq!((there.byte_streams(), back.byte_streams()), (1, 1));
        assert_eq!(a.endpoint.stats().second_connections, seconds, "bulk has a connection of its own");
        write(&mut near, b"question").await.unwrap();
        finish(&mut near).await;
        assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
        // The other direction is still open.
        write(&mut far, b"answer").await.unwrap();
        finish(&mut far).await;
        assert_eq!(read_to_end(&mut near).await.unwrap(), b"answer");
        let error = write(&mut near, b"more").await.unwrap_err();
        assert_eq!((error.kind(), cause(&error)), (io::ErrorKind::BrokenPipe, StreamError::Finished));
        drop((near, far));
        assert_eq!((there.byte_streams(), back.byte_streams()), (0, 0));
    }
}

#[tokio::test]
async fn who_may_not_open_one_is_told_why() {
    let (_a, b, there, _back) = pair().await;
    let refused = async |channel| there.open_stream(channel).await.unwrap_err();
    assert_eq!(refused(ChannelId(999)).await, OpenError::UnknownChannel(ChannelId(999)));
    assert_eq!(refused(ChannelId::CONTROL).await, OpenError::UnknownChannel(ChannelId::CONTROL));
    assert_eq!(refused(ChannelId::COORDINATION).await, OpenError::NoListener);
    assert_eq!(refused(ChannelId::DATA).await, OpenError::NoListener);
    let listener = b.endpoint.accept_streams(ChannelId::DATA);
    let waiting = there.open_stream(ChannelId::DATA).await.unwrap();
    drop(listener);
    assert_eq!(refused(ChannelId::DATA).await, OpenError::NoListener);
    // One that nobody had accepted has ended.
    let (mut reader, _writer) = waiting.into_split();
    let error = read(&mut reader).await.unwrap_err();
    assert_eq!((error.kind(), cause(&error)), (io::ErrorKind::ConnectionReset, StreamError::Dropped));
    // Another one takes over.
    let mut first = b.endpoint.accept_streams(ChannelId::DATA);
    let mut second = b.endpoint.accept_streams(ChannelId::DATA);
    assert!(first.accept().await.is_none());
    stream(&there, &mut second, ChannelId::DATA).await;
    there.close(CloseCode::Shutdown);
    assert_eq!(refused(ChannelId::DATA).await, OpenError::Closed(CloseReason::Ours(CloseCode::Shutdown)));
}

#[tokio::test]
async fn resets_and_drops_arrive_as_such() {
    let (_a, b, there, _back) = pair().await;
    let mut listener = b.endpoint.accept_streams(ChannelId::DATA);
    let (near, mut far) = stream(&there, &mut listener, ChannelId::DATA).await;
    near.reset(77);
    let error = read(&mut far).await.unwrap_err();
    assert_eq!((error.kind(), cause(&error)), (io::ErrorKind::ConnectionReset, StreamError::Reset(77)));
    let (near, mut far) = stream(&there, &mut listener, ChannelId::DATA).await;
    drop(near);
    assert_eq!(cause(&read(&mut far).await.unwrap_err()), StreamError::Dropped, "dropped without an end");
    let (near, mut far) = stream(&there, &mut listener, ChannelId::DATA).await;
    let (reader, _writer) = near.into_split();
    reader.stop(78);
    let error = loop {
        if let Err(error) = write(&mut far, b"unwanted").await {
            break error;
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert_eq!((error.kind(), cause(&error)), (io::ErrorKind::BrokenPipe, StreamError::Reset(78)));
}

#[tokio::test]
async fn streams_end_with_the_link_and_say_why() {
    for (channel, drains) in [(ChannelId::DATA, false), (ChannelId::COORDINATION, false), (ChannelId::DATA, true)] {
        let (_a, b, there, _back) = pair().await;
        let mut listener = b.endpoint.accept_streams(channel);
        let (mut near, mut far) = stream(&there, &mut listener, channel).await;
        if drains {
            there.drain(CloseCode::Leaving, Duration::from_secs(3));
        } else {
            there.close(CloseCode::Leaving);
        }
        let error = read(&mut near).await.unwrap_err();
        assert_eq!(
            (error.kind(), cause(&error)),
            (io::ErrorKind::ConnectionReset, StreamError::LinkClosed(CloseReason::Ours(CloseCode::Leaving)))
        );
        let error = read(&mut far).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(cause(&error), StreamError::LinkClosed(CloseReason::Theirs(_))), "{error}");
        let error = write(&mut near, b"x").await.unwrap_err();
        assert!(matches!(cause(&error), StreamError::LinkClosed(_)), "{error}");
    }
    // An endpoint that is dropped wakes those who wait.
    let (a, b, there, _back) = pair().await;
    let mut listener = b.endpoint.accept_streams(ChannelId::DATA);
    let (mut near, _far) = stream(&there, &mut listener, ChannelId::DATA).await;
    let (read, ()) = tokio::join!(read(&mut near), async {
        sleep(Duration::from_millis(50)).await;
        drop((a, b));
    });
    assert!(matches!(cause(&read.unwrap_err()), StreamError::LinkClosed(_)));
    assert!(listener.accept().await.is_none());
}

#[tokio::test]
async fn what_was_finished_goes_out_before_the_link_ends() {
    for channel in [ChannelId::DATA, ChannelId::COORDINATION] {
        let (_a, b, there, _back) = pair().await;
        let mut listener = b.endpoint.accept_streams(channel);
        let (mut near, mut far) = stream(&there, &mut listener, channel).await;
        let bytes = vec![5; 1_000_000];
        write(&mut near, &bytes).await.unwrap();
        finish(&mut near).await;
        drop(near);
        there.drain(CloseCode::Leaving, Duration::from_secs(3));
        until("the end of the link", || there.is_closed()).await;
        assert!(read_to_end(&mut far).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn the_second_connection_stays_as_long_as_a_stream() {
    let (mut a, mut b) = (Node::new(quick()), Node::new(quick()));
    let (there, _back) = join(&mut a, &mut b).await;
    let mut listener = b.endpoint.accept_streams(ChannelId::DATA);
    let (mut near, mut far) = stream(&there, &mut listener, ChannelId::DATA).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(a.endpoint.stats().second_connections, 1);
    write(&mut near, b"still there").await.unwrap();
    assert_eq!(read(&mut far).await.unwrap(), b"still there");
    drop((near, far));
    until("the second connection to be closed", || a.endpoint.stats().second_connections == 0).await;
    // And it comes back, with messages on the same channel before and after.
    for round in 0..3 {
        there.try_send(ChannelId::DATA, frame::encode(round, b"message")).unwrap();
        let (near, _far) = stream(&there, &mut listener, ChannelId::DATA).await;
        assert_eq!(b.frame().await.1.kind, round);
        drop(near);
        until("the second connection to be closed", || a.endpoint.stats().second_connections == 0).await;
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_delay_nothing_else() {
    let (_a, mut b, there, back) = pair().await;
    for (channel, streams) in [(ChannelId::COORDINATION, limits::URGENT_BYTE_STREAMS_MAX), (ChannelId::DATA, 20)] {
        let mut listener = b.endpoint.accept_streams(channel);
        let mut held = Vec::new();
        // More than the windows of the connections without streams.
        for index in 0..streams - 3 {
            let (mut near, far) = stream(&there, &mut listener, channel).await;
            let filled = fill(&mut near).await;
            // But for the preamble.
            assert_eq!(filled, limits::STREAM_WINDOW_BYTES as usize - 4, "stream {index}");
            held.push((near, far));
        }
        for (index, channel) in ChannelId::BUILT_IN.into_iter().enumerate() {
            there.try_send(channel, frame::encode(index as u16, &[1; 50_000])).unwrap();
            let (arrived, frame) = b.frame().await;
            assert_eq!((arrived, frame.kind), (channel, index as u16));
        }
        let (mut near, mut far) = stream(&there, &mut listener, channel).await;
        let bytes = vec![9; 3_000_000];
        let (read, ()) = tokio::join!(read_to_end(&mut far), async {
            write(&mut near, &bytes).await.unwrap();
            finish(&mut near).await;
        });
        assert!(read.unwrap() == bytes);
    }
    assert!(!back.is_closed());
}

/// A node, and a member that speaks by hand.
async fn acquaintance(config: EndpointConfig) -> (Node, Link, quinn::Endpoint, quinn::Connection) {
    let mut node = Node::new(config);
    let socket = stranger();
    let connection = member(&socket, &NodeKey::generate().unwrap(), &node).await;
    let link = node.connected().await;
    (node, link, socket, connection)
}

#[tokio::test]
async fn hostile_preambles_cost_their_sender_its_streams_only() {
    let (mut node, link, _socket, connection) = acquaintance(config()).await;
    let mut listener = node.endpoint.accept_streams(ChannelId::DATA);
    let open = async |bytes: &[u8], finishes: bool| {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        // Refused before all of it was written, if it is much.
        let _ = send.write_all(bytes).await;
        if finishes {
            let _ = send.finish();
        }
        let mut answer = [0];
        match timeout(PATIENCE, receive.read_exact(&mut answer)).await.unwrap() {
            Err(quinn::ReadExactError::ReadError(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
            Ok(()) => Ok(answer[0]),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(open(&[1, 0x42, 0, 2], false).await, Ok(1));
    assert_eq!(listener.accept().await.unwrap().channel(), ChannelId::DATA);
    for (bytes, finishes, code) in [
        (&[1, 0x42, 0x03, 0xe7][..], false, 1),
        (&[1, 0x42, 0, 0], false, 1),
        (&[1, 0x42, 0, 5], false, 3),
        (&[1, 0x42, 0, 1, 9, 9, 9], true, 3),
        (&[9, 0x42, 0, 2], false, 5),
        (&[1, 0x43, 0, 2], true, 5),
        (&[1, 0x42], true, 5),
        (&[], true, 5),
        // Never finished.
        (&[1, 0x42], false, 5),
        (&[0xff; 100_000], false, 5),
    ] {
        assert_eq!(open(bytes, finishes).await, Err(code), "{bytes:?}");
    }
    // The link stands, and nothing is left.
    let mut lane = connection.open_uni().await.unwrap();
    lane.write_all(&[frame::Preamble::of(ChannelId::DATA).encode(), frame::encode(7, b"alive")].concat()).await.unwrap();
    assert_eq!(node.frame().await.1.kind, 7);
    until("the streams to end", || link.byte_streams() == 0).await;
    assert!(!link.is_closed());
}

#[tokio::test]
async fn a_peer_opens_so_many_and_no_more() {
    let (node, link, _socket, connection) = acquaintance(config()).await;
    let mut listener = node.endpoint.accept_streams(ChannelId::GOSSIP);
    let mut open = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), connection.open_bi()).await {
        let (mut send, mut receive) = stream.unwrap();
        send.write_all(&[1, 0x42, 0, 3]).await.unwrap();
        receive.read_exact(&mut [0]).await.unwrap();
        open.push((send, receive));
    }
    // QUIC hands places out again an eighth of the limit at a time, and the admission had one.
    assert!((14..=16).contains(&open.len()), "{}", open.len());
    assert_eq!(link.byte_streams(), open.len());
    // Those that end make room.
    for (mut send, mut receive) in open.drain(..4) {
        send.finish().unwrap();
        drop(listener.accept().await.unwrap());
        assert!(receive.read_to_end(1).await.is_err());
    }
    timeout(PATIENCE, connection.open_bi()).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_without_end_ends_the_link() {
    let (mut node, _link, _socket, connection) = acquaintance(config()).await;
    let flood = async {
        while let Ok((mut send, _receive)) = connection.open_bi().await {
            let _ = send.write_all(&[0; 4]).await;
            let _ = send.finish();
        }
    };
    let (event, ()) = tokio::join!(node.next(), flood);
    assert!(matches!(event, Event::Closed { reason: CloseReason::Misbehaved(Misbehavior::TooMany), .. }), "{event:?}");
}

#[tokio::test]
async fn to_a_peer_with_one_connection_they_go_over_the_first() {
    let (_node, link, _socket, connection) = acquaintance(config()).await;
    let answering = async {
        let (mut send, mut receive) = connection.accept_bi().await.unwrap();
        let mut preamble = [0; 4];
        receive.read_exact(&mut preamble).await.unwrap();
        assert_eq!(preamble, [1, 0x42, 0, 2]);
        send.write_all(&[1]).await.unwrap();
        send.write_all(&receive.read_to_end(100).await.unwrap()).await.unwrap();
        send.finish().unwrap();
        send.stopped().await.unwrap();
    };
    let asking = async {
        let mut stream = timeout(PATIENCE, link.open_stream(ChannelId::DATA)).await.unwrap().unwrap();
        write(&mut stream, b"echo").await.unwrap();
        finish(&mut stream).await;
        assert_eq!(read_to_end(&mut stream).await.unwrap(), b"echo");
    };
    tokio::join!(answering, asking);
    // An answer that is none, and none at all.
    let answering = async {
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(&[9]).await.unwrap();
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.finish().unwrap();
        sleep(Duration::from_millis(200)).await;
    };
    let asking = async {
        assert_eq!(link.open_stream(ChannelId::DATA).await.unwrap_err(), OpenError::Ended(StreamError::Unknown(9)));
        assert_eq!(link.open_stream(ChannelId::DATA).await.unwrap_err(), OpenError::Ended(StreamError::Dropped));
    };
    tokio::join!(answering, asking);
}
