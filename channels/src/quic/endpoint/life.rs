//! The life of a link after its admission: its two connections are read and written until it ends, for whatever reason.

use std::pin::pin;
use std::sync::Arc;

use quinn::VarInt;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Counted, HalfOpen, LINGER, Shared};
use crate::channel::Path;
use crate::error::Misbehavior;
use crate::limits;
use crate::quic::close::{CloseCode, CloseReason};
use crate::quic::event::Event;
use crate::quic::governed::govern;
use crate::quic::link::{Inner, Link};
use crate::quic::queues::Bulk;
use crate::quic::reader::{Place, REFUSED_STREAMS_MAX, StreamEnd, read_datagrams, read_stream, read_the_rest};
use crate::quic::seconds::{Attached, Way};
use crate::quic::stream::{Carrier, open_windows, receive_stream};
use crate::quic::writer::{write, write_bulk};

/// Streams for messages that a peer may open at first. QUIC keeps a place for each that may be opened, in tables that double: with the byte streams these are three quarters of what the
/// smallest useful one takes. When half of them were opened it may open all.
const STREAMS_AT_FIRST: u32 = 20;

/// Byte streams that a peer may open at first. When half of them were opened it may open all.
const BYTE_STREAMS_AT_FIRST: u32 = 4;

impl Shared {
    /// Opens the second connection of a link, sends on it until it is idle, and closes it.
    pub(super) async fn open_bulk(self: Arc<Self>, link: Link) {
        let inner = &link.0;
        let _counted = Counted::one(&self);
        let opened = Box::pin(self.connect(link.address(), Some(link.peer()), self.bulk_transport.clone(), Some(inner.tag))).await;
        let connection = match opened {
            Ok((connection, ..)) => connection,
            Err(error) => {
                tracing::debug!(peer = %link.peer().short(), %error, "no second connection");
                inner.set_bulk(Bulk::Refused(self.clock.now() + inner.times.retry));
                return;
            }
        };
        let Some(_listed) = inner.seconds.list(Way::Ours, &connection) else { return };
        inner.set_bulk(Bulk::Open);
        tracing::debug!(peer = %link.peer().short(), "second connection opened");
        // Lives longer than the connection: streams that are let go of before would seem to end in the middle of a frame.
        let mut writing = pin!(write_bulk(inner.clone(), connection.clone()));
        tokio::select! {
            biased;
            () = &mut writing => {}
            _ = connection.closed() => {}
            _ = inner.connection.closed() => connection.close(CloseCode::Broken.var_int(), &[]),
        }
        if !matches!(connection.close_reason(), Some(quinn::ConnectionError::LocallyClosed)) {
            // What it had taken may be lost.
            Self::broken(inner).await;
        }
    }

    /// A second connection ended other than it should. The first one says why, or ends for that reason.
    async fn broken(inner: &Inner) {
        if timeout(LINGER, inner.connection.closed()).await.is_err() {
            inner.end(CloseReason::Ours(CloseCode::Broken));
        }
    }

    /// Reads what a peer sends on the second connection of a link, until it closes it or the link ends.
    pub(super) async fn serve_bulk(self: &Arc<Self>, attached: Attached, source: Place, connection: quinn::Connection) {
        let inner = &attached.0.0;
        let _counted = Counted::one(self);
        let Some(_listed) = inner.seconds.list(Way::Theirs, &connection) else { return };
        tokio::select! {
            biased;
            () = inner.seconds.reported() => {}
            _ = inner.connection.closed() => return,
        }
        connection.set_receive_window(VarInt::from_u64(inner.window(Path::Bulk, limits::BULK_WINDOW_BYTES)).unwrap_or(VarInt::MAX));
        govern(&connection);
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(limits::STREAMS_MAX));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits::BULK_BYTE_STREAMS_MAX));
        let mut readers = JoinSet::new();
        let mut refused = Refused::default();
        // A peer that says goodbye has closed this one before, though we may hear of it later.
        let mut grace = None;
        let error = loop {
            tokio::select! {
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        readers.spawn(read_stream(stream, Path::Bulk, Place::of(inner.clone()), self.outlet.clone()));
                    }
                    Err(error) => break error,
                },
                stream = connection.accept_bi() => match stream {
                    Ok(stream) => {
                        readers.spawn(receive_stream(stream, Carrier::Theirs, inner.clone(), connection.clone()));
                    }
                    Err(error) => break error,
                },
                Some(ended) = readers.join_next() => refused.count(&ended, inner),
                // Nothing of ours sends datagrams here.
                Ok(_) = connection.read_datagram() => inner.end(CloseReason::Misbehaved(Misbehavior::WrongChannel)),
                first = inner.connection.closed(), if grace.is_none() => {
                    match CloseReason::of(&first, inner.ours()) {
                        CloseReason::Theirs(_) | CloseReason::TheirsUnknown(_) => grace = Some(Box::pin(sleep(LINGER))),
                        _ => connection.close(CloseCode::Broken.var_int(), &[]),
                    }
                }
                () = over(&mut grace) => connection.close(CloseCode::Broken.var_int(), &[]),
            }
        };
        drop(source);
        let is_complete = CloseReason::of(&error, None) == CloseReason::Theirs(CloseCode::Idle);
        if !is_complete {
            Self::broken(inner).await;
        }
        let is_theirs = |error| matches!(CloseReason::of(&error, inner.ours()), CloseReason::Theirs(_) | CloseReason::TheirsUnknown(_));
        if is_complete || inner.connection.close_reason().is_some_and(is_theirs) {
            // Everything was sent before it was closed, and the next stream of a lane waits for the last one here.
            read_the_rest(&mut readers, inner).await;
        } else {
            readers.shutdown().await;
        }
    }

    /// The life of an admitted connection.
    pub(super) async fn serve(self: &Arc<Self>, link: Link, place: Option<HalfOpen>) {
        let address = link.address();
        let (id, peer) = (link.id(), link.peer());
        let _struck = Struck { shared: self, link: &link };
        if self.outlet.send(Event::Connected(link.clone())).await.is_err() {
            link.close(CloseCode::Shutdown);
            return;
        }
        drop(place);
        link.0.seconds.set_reported();
        tracing::debug!(peer = %peer.short(), %address, direction = ?link.direction(), "connected");
        // Only now may the peer send: whoever is slow to hear of connections shall not hold what they sent.
        let connection = &link.0.connection;
        open_windows(&link.0);
        connection.set_max_concurrent_uni_streams(VarInt::from_u32(STREAMS_AT_FIRST));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(BYTE_STREAMS_AT_FIRST));

        let reason = self.carry(&link).await;
        tracing::debug!(peer = %peer.short(), %address, %reason, "closed");
        let _ = self.outlet.send(Event::Closed { connection: id, peer, reason }).await;
    }

    /// Reads and writes until the connection ends. When it returns, nothing of the connection will be reported any more.
    async fn carry(self: &Arc<Self>, link: &Link) -> CloseReason {
        let inner = &link.0;
        let source = Place::of(inner.clone());
        let mut readers = JoinSet::new();
        let mut others = JoinSet::new();
        others.spawn(write(inner.clone()));
        others.spawn(read_datagrams(inner.clone(), self.outlet.clone()));
        let mut refused = Refused::default();
        let mut deadline = None;
        let error = loop {
            tokio::select! {
                stream = inner.connection.accept_uni() => match stream {
                    Ok(stream) => {
                        if stream.id().index() == u64::from(STREAMS_AT_FIRST / 2) {
                            inner.connection.set_max_concurrent_uni_streams(VarInt::from_u32(limits::STREAMS_MAX));
                        }
                        readers.spawn(read_stream(stream, Path::Urgent, Place::of(inner.clone()), self.outlet.clone()));
                    }
                    Err(error) => break error,
                },
                Some(ended) = readers.join_next() => refused.count(&ended, inner),
                stream = inner.connection.accept_bi() => match stream {
                    Ok(stream) => {
                        if stream.0.id().index() == u64::from(BYTE_STREAMS_AT_FIRST / 2) {
                            inner.connection.set_max_concurrent_bi_streams(VarInt::from_u32(limits::URGENT_BYTE_STREAMS_MAX));
                        }
                        readers.spawn(receive_stream(stream, Carrier::First, inner.clone(), inner.connection.clone()));
                    }
                    Err(error) => break error,
                },
                () = inner.bulk_wanted.notified() => {
                    others.spawn(self.clone().open_bulk(link.clone()));
                }
                () = inner.draining.notified() => {
                    deadline = inner.queues().drain.map(|drain| (Box::pin(sleep(drain.limit)), drain.code));
                },
                code = expired(&mut deadline) => inner.end(CloseReason::Ours(code)),
                () = self.outlet.closed() => inner.end(CloseReason::Ours(CloseCode::Shutdown)),
            }
        };
        let reason = CloseReason::of(&error, inner.ours());
        inner.seconds.refuse_theirs();
        drop(source);
        inner.seconds.close(|way| way == Way::Ours);
        others.shutdown().await;
        inner.mark_closed();
        match reason {
            // What the peer sent before it closed is still there, and it may have waited until we had it.
            CloseReason::Theirs(_) | CloseReason::TheirsUnknown(_) => read_the_rest(&mut readers, inner).await,
            _ => readers.shutdown().await,
        }
        inner.seconds.without_theirs().await;
        reason
    }
}

/// Streams of one connection that nobody here wants.
#[derive(Default)]
struct Refused(u32);

impl Refused {
    /// Counts a stream that ended, if it was one of them; too many end the link.
    fn count(&mut self, ended: &Result<StreamEnd, JoinError>, inner: &Inner) {
        self.0 += u32::from(matches!(ended, Ok(StreamEnd::Refused)));
        if self.0 > REFUSED_STREAMS_MAX {
            inner.end(CloseReason::Misbehaved(Misbehavior::TooMany));
        }
    }
}

/// Ends when the deadline of a drain is over, and never without one.
async fn expired(deadline: &mut Option<(std::pin::Pin<Box<tokio::time::Sleep>>, CloseCode)>) -> CloseCode {
    match deadline {
        Some((sleep, code)) => {
            sleep.as_mut().await;
            *code
        }
        None => std::future::pending().await,
    }
}

/// Ends with a sleep, and never without one.
async fn over(sleeping: &mut Option<std::pin::Pin<Box<tokio::time::Sleep>>>) {
    match sleeping {
        Some(sleep) => sleep.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Takes the link off the list however its task ends.
struct Struck<'a> {
    shared: &'a Shared,
    link: &'a Link,
}

impl Drop for Struck<'_> {
    fn drop(&mut self) {
        self.shared.strike(self.link);
    }
}
