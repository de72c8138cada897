//! Byte streams between two nodes, as an application uses them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshwork::channels::limits;
use meshwork::channels::quic::OpenError;
use meshwork::node::{Config, SendError};
use meshwork::runtime::{ByteStream, Error, StreamError};
use meshwork::{ChannelId, Node, PeerId};
use support::{PATIENCE, mesh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

async fn pair() -> [Node; 2] {
    mesh(2, &Config::default()).await.try_into().unwrap()
}

fn cause(error: &io::Error) -> StreamError {
    *error.get_ref().unwrap().downcast_ref().unwrap()
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("done in time")
}

/// Answers every stream with what it says, once it has said everything.
fn echo(mut streams: meshwork::runtime::StreamListener) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut served = 0;
        while let Some(mut stream) = streams.accept().await {
            let mut said = Vec::new();
            if stream.read_to_end(&mut said).await.is_ok() {
                stream.write_all(&said).await.unwrap();
                stream.shutdown().await.unwrap();
                served += 1;
            }
        }
        served
    })
}

#[tokio::test]
async fn a_pipe_both_ways_with_half_close() {
    let [a, b] = pair().await;
    for channel in [ChannelId::DATA, ChannelId::COORDINATION] {
        let mut streams = b.accept_streams(channel).await.unwrap();
        let (near, far) = in_time(async { tokio::join!(a.open_stream(b.id(), channel), streams.accept()) }).await;
        let (mut near, mut far): (ByteStream, ByteStream) = (near.unwrap(), far.unwrap());
        assert_eq!((near.peer(), far.peer()), (b.id(), a.id()));
        near.write_all(b"how much is the fish?").await.unwrap();
        near.shutdown().await.unwrap();
        let mut question = String::new();
        in_time(far.read_to_string(&mut question)).await.unwrap();
        assert_eq!(question, "how much is the fish?");
        far.write_all(b"it is not for sale").await.unwrap();
        far.shutdown().await.unwrap();
        let mut answer = String::new();
        in_time(near.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "it is not for sale");
    }
}

#[tokio::test]
async fn who_may_not_open_a_stream_is_told_why() {
    let [a, b] = pair().await;
    let refused = async |peer, channel| in_time(a.open_stream(peer, channel)).await.unwrap_err();
    assert_eq!(refused(b.id(), ChannelId::DATA).await, Error::Stream(OpenError::NoListener));
    for channel in [ChannelId::CONTROL, ChannelId::STATE, ChannelId(999)] {
        assert_eq!(refused(b.id(), channel).await, Error::Send(SendError::UnknownChannel(channel)));
        assert_eq!(a.accept_streams(channel).await.unwrap_err(), Error::Send(SendError::UnknownChannel(channel)));
    }
    let nobody = PeerId::from_bytes([9; 32]);
    assert_eq!(refused(nobody, ChannelId::DATA).await, Error::Send(SendError::UnknownPeer(nobody)));
    assert_eq!(refused(a.id(), ChannelId::DATA).await, Error::Send(SendError::Myself));
    a.leave().await;
    assert_eq!(refused(b.id(), ChannelId::DATA).await, Error::Stopped);
    assert_eq!(a.accept_streams(ChannelId::DATA).await.unwrap_err(), Error::Stopped);
}

#[tokio::test]
async fn more_streams_than_may_be_open_are_served_in_the_end() {
    const STREAMS: usize = 256;
    let [a, b] = pair().await;
    let mut streams = b.accept_streams(ChannelId::DATA).await.unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let openers: Vec<_> = (0..STREAMS)
        .map(|number| {
            let (a, peer, opened) = (a.clone(), b.id(), opened.clone());
            tokio::spawn(async move {
                let mut stream = a.open_stream(peer, ChannelId::DATA).await.unwrap();
                opened.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&number.to_be_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                stream.read_u64().await.unwrap()
            })
        })
        .collect();
    // Nobody accepts: the others wait at their node.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let open = opened.load(Ordering::Relaxed);
    assert!(open > 0 && open <= limits::BULK_BYTE_STREAMS_MAX as usize, "{open} streams are open");
    for _ in 0..STREAMS {
        let mut stream = in_time(streams.accept()).await.unwrap();
        let number = in_time(stream.read_u64()).await.unwrap();
        stream.write_u64(number).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    for (number, opener) in openers.into_iter().enumerate() {
        assert_eq!(in_time(opener).await.unwrap(), number as u64);
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_message() {
    let [a, b] = pair().await;
    let mut streams = b.accept_streams(ChannelId::DATA).await.unwrap();
    let mut urgent = b.accept_streams(ChannelId::COORDINATION).await.unwrap();
    let mut held = Vec::new();
    for (channel, streams) in [(ChannelId::DATA, &mut streams), (ChannelId::COORDINATION, &mut urgent)] {
        for _ in 0..6 {
            let (near, far) = in_time(async { tokio::join!(a.open_stream(b.id(), channel), streams.accept()) }).await;
            let mut near = near.unwrap();
            let stuck = tokio::spawn(async move { near.write_all(&vec![1; 4 * 1_024 * 1_024]).await });
            held.push((stuck, far));
        }
    }
    for channel in [ChannelId::COORDINATION, ChannelId::DATA, ChannelId::EVENTS] {
        let mut receiver = b.receiver(channel).await.unwrap();
        let mut sender = a.sender(b.id(), channel).await.unwrap();
        let sending = async {
            for number in 0..200_u32 {
                sender.send(number.to_be_bytes().repeat(1_000)).await.unwrap();
            }
        };
        let receiving = async {
            for number in 0..200_u32 {
                let message = in_time(receiver.recv()).await.unwrap();
                assert_eq!(message.payload[..4], number.to_be_bytes());
            }
        };
        tokio::join!(sending, receiving);
    }
    assert!(held.iter().all(|(stuck, _)| !stuck.is_finished()));
    assert_eq!(
        in_time(a.request(b.id(), "anybody?", Duration::from_secs(5))).await.unwrap_err().to_string(),
        "the peer answers no requests"
    );
}

#[tokio::test]
async fn leaving_ends_streams_and_waits_for_none() {
    let [a, b] = pair().await;
    let mut streams = b.accept_streams(ChannelId::DATA).await.unwrap();
    let open = async |streams: &mut meshwork::runtime::StreamListener| {
        let (near, far) = in_time(async { tokio::join!(a.open_stream(b.id(), ChannelId::DATA), streams.accept()) }).await;
        (near.unwrap(), far.unwrap())
    };
    let (mut idle, mut idle_far) = open(&mut streams).await;
    let (mut finished, mut finished_far) = open(&mut streams).await;
    let (mut stuck, _unread) = open(&mut streams).await;
    let stuck = tokio::spawn(async move { stuck.write_all(&vec![1; 4 * 1_024 * 1_024]).await });
    finished.write_all(&[3; 500_000]).await.unwrap();
    finished.shutdown().await.unwrap();
    drop(finished);
    in_time(a.leave()).await;
    let mut all = Vec::new();
    in_time(finished_far.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 500_000, "what was finished has gone out");
    for (end, error) in [
        ("here", in_time(idle.read_u8()).await.unwrap_err()),
        ("there", in_time(idle_far.read_u8()).await.unwrap_err()),
        ("in a write", in_time(stuck).await.unwrap().unwrap_err()),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{end}");
        assert!(matches!(cause(&error), StreamError::LinkClosed(_)), "{end}: {error}");
    }
    // A node that is gone takes no streams.
    let mut streams = b.accept_streams(ChannelId::DATA).await.unwrap();
    b.leave().await;
    assert!(in_time(streams.accept()).await.is_none());
}

#[tokio::test]
async fn a_node_that_dies_wakes_its_streams() {
    let [a, b] = pair().await;
    let served = echo(b.accept_streams(ChannelId::DATA).await.unwrap());
    let mut stream = in_time(a.open_stream(b.id(), ChannelId::DATA)).await.unwrap();
    let (read, ()) = in_time(async { tokio::join!(stream.read_u8(), a.kill()) }).await;
    assert!(matches!(cause(&read.unwrap_err()), StreamError::LinkClosed(_)));
    b.kill().await;
    assert_eq!(in_time(served).await.unwrap(), 0);
}
