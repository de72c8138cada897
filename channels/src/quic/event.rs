//! What an endpoint tells its owner, and the bounded queue in which it does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::close::{CloseReason, DialError, Refusal};
use super::link::Link;
use crate::channel::ChannelId;
use crate::dial::ConnectionId;
use crate::frame::Frame;
use crate::identity::PeerId;

/// Something that happened at an endpoint.
#[derive(Debug)]
pub enum Event {
    /// A connection stands and both sides proved that they belong to the cluster.
    Connected(Link),
    /// A dial came to nothing.
    DialFailed {
        /// The address that was dialed.
        address: SocketAddr,
        /// The peer that was expected there.
        expected: Option<PeerId>,
        /// Why. What [`crate::dial`] needs to know of it is its [`DialError::failure`].
        error: DialError,
    },
    /// An inbound connection was turned away. At most one a second for each reason is told, so that a flood at the door is no flood
    /// here; [`EndpointStats`](super::EndpointStats) counts them all.
    Refused {
        /// Where it came from.
        address: SocketAddr,
        /// Why.
        reason: Refusal,
    },
    /// A frame arrived, in the order of its channel. Its kind may be one that nobody knows.
    Frame {
        /// The connection.
        connection: ConnectionId,
        /// The channel.
        channel: ChannelId,
        /// The frame. It shares no memory with anything else.
        frame: Frame,
    },
    /// A datagram arrived, of at most [`limits::DATAGRAM_BYTES_MAX`](crate::limits::DATAGRAM_BYTES_MAX) bytes.
    Datagram {
        /// The connection.
        connection: ConnectionId,
        /// The bytes. They share no memory with anything else.
        bytes: Bytes,
    },
    /// A connection that was reported is gone. Nothing more comes from it.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// The peer at its other end.
        peer: PeerId,
        /// Why.
        reason: CloseReason,
    },
}

impl Event {
    /// The bytes that count against the queue.
    fn weight(&self) -> u32 {
        let bytes = match self {
            Event::Frame { frame, .. } => frame.body.len(),
            Event::Datagram { bytes, .. } => bytes.len(),
            _ => 0,
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// The events of an endpoint in the order in which they happened, bounded in number and in bytes. Dropping it closes the endpoint.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Event>,
    room: Arc<Semaphore>,
}

impl Events {
    /// The next event; `None` when the endpoint is gone and everything was told. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.queue.recv().await?;
        Some(self.release(event))
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<Event> {
        let event = self.queue.try_recv().ok()?;
        Some(self.release(event))
    }

    /// The next event, for hand-written futures.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let event = ready!(self.queue.poll_recv(context));
        Poll::Ready(event.map(|event| self.release(event)))
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn release(&self, event: Event) -> Event {
        self.room.add_permits(event.weight() as usize);
        event
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Whoever waits for room learns that there will be none.
        self.room.close();
    }
}

/// The end of the queue into which the tasks of an endpoint put events.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    queue: mpsc::Sender<Event>,
    room: Arc<Semaphore>,
}

/// The owner does not listen any more.
#[derive(Debug)]
pub(super) struct NobodyListens;

pub(super) fn queue(events_max: usize, event_bytes_max: usize) -> (Outlet, Events) {
    let (sender, receiver) = mpsc::channel(events_max);
    let room = Arc::new(Semaphore::new(event_bytes_max));
    (Outlet { queue: sender, room: room.clone() }, Events { queue: receiver, room })
}

impl Outlet {
    /// Tells at once if there is room, and otherwise waits for it. Those who wait are served in turn, so that a peer that floods us gets no more than its share of the queue.
    ///
    /// The wait is rare and lies apart: every task that tells something would hold the place for it as long as it lives.
    pub(super) fn send(&self, event: Event) -> impl Future<Output = Result<(), NobodyListens>> + Send + use<'_> {
        let waiting = self.put(event).err().map(|event| Box::pin(self.wait(event)));
        async move {
            match waiting {
                Some(waiting) => waiting.await,
                None => {
                    // One for whom there is always room must not keep others from their turn.
                    tokio::task::coop::consume_budget().await;
                    Ok(())
                }
            }
        }
    }

    /// Gives the event back when there is no room now or nobody listens.
    fn put(&self, event: Event) -> Result<(), Event> {
        let Ok(room) = self.room.try_acquire_many(event.weight()) else { return Err(event) };
        let Ok(place) = self.queue.try_reserve() else { return Err(event) };
        room.forget();
        place.send(event);
        Ok(())
    }

    async fn wait(&self, event: Event) -> Result<(), NobodyListens> {
        let weight = event.weight();
        let room = self.room.acquire_many(weight).await.map_err(|_| NobodyListens)?;
        let place = self.queue.reserve().await.map_err(|_| NobodyListens)?;
        // Only now: a reader that is ended while it waits takes no room along.
        room.forget();
        place.send(event);
        Ok(())
    }

    /// Tells something of little weight if there is room.
    pub(super) fn try_send(&self, event: Event) -> bool {
        debug_assert_eq!(event.weight(), 0, "only events without bytes may pass by the room for bytes");
        self.queue.try_send(event).is_ok()
    }

    /// Whether the owner is behind: three quarters of the queue are full.
    pub(super) fn is_loaded(&self) -> bool {
        self.queue.capacity() < self.queue.max_capacity() / 4
    }

    /// Ends when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}
