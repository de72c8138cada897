//! The socket as quinn sees it: datagrams leave in large batches only while much leaves.
//!
//! A connection that has more than one datagram to send makes room for as many as one call of the system takes, and keeps that room: 16 KiB for each connection that ever sent two packets
//! at once. A node has many connections that never need it. So a batch is short until the batches of the last moments were full.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::limits;

/// Datagrams in a batch while little leaves: some KiB, what a few small messages and their answers take.
const SEGMENTS_FEW: usize = 4;
/// What a batch that full adds to the demand. A flow of bulk alternates with acknowledgments of what comes the other way.
const FULL: u32 = 4;
/// The most demand: so many smaller batches in a row end it.
const DEMAND_MAX: u32 = 64;
/// From so much demand on batches are as large as they can be: some full ones in a row.
const MUCH: u32 = 32;

/// Asks the system for room in front of a socket; it gives as much as it allows.
pub(super) fn deepen(socket: &UdpSocket) -> io::Result<()> {
    // Quinn makes another of these, with the same options.
    let state = UdpSocketState::new(socket.into())?;
    if state.recv_buffer_size(socket.into())? < limits::SOCKET_BUFFER_BYTES {
        let _ = state.set_recv_buffer_size(socket.into(), limits::SOCKET_BUFFER_BYTES);
    }
    if state.send_buffer_size(socket.into())? < limits::SOCKET_BUFFER_BYTES {
        let _ = state.set_send_buffer_size(socket.into(), limits::SOCKET_BUFFER_BYTES);
    }
    Ok(())
}

/// A socket with batches of two sizes.
pub(super) struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// Counts batches; it may miss some that other threads count at the same moment.
    demand: AtomicU32,
}

impl Socket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        Socket { inner, demand: AtomicU32::new(0) }
    }
}

/// The demand after a batch.
fn after(demand: u32, segments: usize) -> u32 {
    if segments >= SEGMENTS_FEW { (demand + FULL).min(DEMAND_MAX) } else { demand.saturating_sub(1) }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segments = transmit.segment_size.map_or(1, |bytes| transmit.contents.len().div_ceil(bytes.max(1)));
        let before = self.demand.load(Ordering::Relaxed);
        let demand = after(before, segments);
        if demand != before {
            self.demand.store(demand, Ordering::Relaxed);
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(&self, context: &mut Context<'_>, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        let segments = self.inner.max_transmit_segments();
        if self.demand.load(Ordering::Relaxed) >= MUCH { segments } else { segments.min(SEGMENTS_FEW) }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({:?})", self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(batches: impl IntoIterator<Item = usize>) -> u32 {
        batches.into_iter().fold(0, after)
    }

    #[test]
    fn small_batches_are_no_demand() {
        assert_eq!(demand([1, 2, 3].into_iter().cycle().take(10_000)), 0);
        assert!(demand([SEGMENTS_FEW, 1, 1, 1, 1].into_iter().cycle().take(10_000)) < MUCH);
    }

    #[test]
    fn full_batches_in_a_row_are_much() {
        assert!(demand([SEGMENTS_FEW; 7]) < MUCH);
        assert!(demand([SEGMENTS_FEW; 8]) >= MUCH);
        assert!(demand([10, 1].into_iter().cycle().take(10_000)) >= MUCH, "beside acknowledgments");
    }

    #[test]
    fn demand_ends() {
        let much = std::iter::repeat_n(10, 1_000);
        assert!(demand(much.chain(std::iter::repeat_n(1, (DEMAND_MAX - MUCH) as usize + 1))) < MUCH);
    }
}
