//! The second connections of a link: which are open in each direction, who may come, and what they carried.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::close::CloseCode;
use super::link::Link;

/// The second connections of a link, one for each direction at most.
#[derive(Default)]
pub(super) struct Seconds {
    register: Mutex<Register>,
    /// How that of the peer stands, on the side that reads it.
    incoming: Mutex<Incoming>,
    incoming_changed: Notify,
}

/// Those that are open, and what there was.
#[derive(Default)]
struct Register {
    open: Vec<(Way, quinn::Connection)>,
    /// Which are not opened any more: ours when the link is over, theirs when we ended it.
    refused: [bool; 2],
    past: Traffic,
}

/// Who sends on a second connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Ours,
    Theirs,
}

/// What the door needs to know of a link to let a second connection of its peer in.
#[derive(Clone, Copy, Default)]
struct Incoming {
    /// The owner has heard of the link.
    is_reported: bool,
    /// There is one already.
    is_taken: bool,
    /// The link ends, and takes none any more.
    is_over: bool,
}

impl Seconds {
    /// Closes second connections of a link that is over, before whoever writes there lets go of streams in the middle of a frame.
    pub(super) fn close(&self, like: impl Fn(Way) -> bool) {
        let mut register = self.register();
        for way in [Way::Ours, Way::Theirs] {
            register.refused[way as usize] |= like(way);
        }
        for (_, connection) in register.open.iter().filter(|(way, _)| like(*way)) {
            connection.close(CloseCode::Broken.var_int(), &[]);
        }
    }

    /// Our second connection, if there is one.
    pub(super) fn ours(&self) -> Option<quinn::Connection> {
        self.register().open.iter().find(|(way, _)| *way == Way::Ours).map(|(_, connection)| connection.clone())
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a second connection; `None`, and it is closed, when the link is over.
    pub(super) fn list(&self, way: Way, connection: &quinn::Connection) -> Option<Listed<'_>> {
        let mut register = self.register();
        if register.refused[way as usize] {
            connection.close(CloseCode::Broken.var_int(), &[]);
            return None;
        }
        register.open.push((way, connection.clone()));
        Some(Listed { seconds: self, connection: connection.clone() })
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_incoming(&self, set: impl FnOnce(&mut Incoming)) {
        set(&mut self.incoming());
        self.incoming_changed.notify_waiters();
    }

    async fn wait_for_incoming(&self, is_so: impl Fn(&Incoming) -> bool) {
        loop {
            let mut changed = pin!(self.incoming_changed.notified());
            changed.as_mut().enable();
            if is_so(&self.incoming()) {
                return;
            }
            changed.await;
        }
    }

    /// Says that the owner has heard of the link.
    pub(super) fn set_reported(&self) {
        self.set_incoming(|incoming| incoming.is_reported = true);
    }

    /// Ends when the owner has heard of the link.
    pub(super) async fn reported(&self) {
        self.wait_for_incoming(|incoming| incoming.is_reported).await;
    }

    /// Takes none of the peer from now on.
    pub(super) fn refuse_theirs(&self) {
        self.set_incoming(|incoming| incoming.is_over = true);
    }

    /// Ends when nobody reads one of the peer any more.
    pub(super) async fn without_theirs(&self) {
        self.wait_for_incoming(|incoming| !incoming.is_taken).await;
    }

    /// Those that are open.
    pub(super) fn open(&self) -> Vec<(Way, quinn::Connection)> {
        self.register().open.clone()
    }

    /// What all of them carried, those that are gone too.
    pub(super) fn traffic(&self) -> Traffic {
        let register = self.register();
        let mut traffic = register.past;
        register.open.iter().for_each(|(_, connection)| traffic.add(connection));
        traffic
    }
}

/// The place of the peer's second connection, given back when it is dropped.
pub(super) struct Attached(pub(super) Link);

impl Attached {
    /// Takes the place if it is free and the link takes a second connection.
    pub(super) fn take(link: Link) -> Option<Self> {
        let mut is_free = false;
        link.0.seconds.set_incoming(|incoming| {
            is_free = !incoming.is_taken && !incoming.is_over;
            incoming.is_taken |= is_free;
        });
        is_free.then(|| Attached(link))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.0.seconds.set_incoming(|incoming| incoming.is_taken = false);
    }
}

/// A second connection that is listed at its link until this is dropped, and closed then if nobody did before.
pub(super) struct Listed<'a> {
    seconds: &'a Seconds,
    connection: quinn::Connection,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Broken.var_int(), &[]);
        let mut register = self.seconds.register();
        register.open.retain(|(_, open)| open.stable_id() != self.connection.stable_id());
        register.past.add(&self.connection);
    }
}

/// What connections carried.
#[derive(Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) packets_sent: u64,
    pub(super) packets_lost: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, connection: &quinn::Connection) {
        let stats = connection.stats();
        self.packets_sent += stats.path.sent_packets;
        self.packets_lost += stats.path.lost_packets;
        self.bytes_sent += stats.udp_tx.bytes;
        self.bytes_received += stats.udp_rx.bytes;
    }
}
