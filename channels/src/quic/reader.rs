//! The receiving half of a connection: one task for each stream, one for datagrams.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quinn::RecvStream;

use super::close::{CloseReason, stop};
use super::event::{Event, NobodyListens, Outlet};
use super::link::{Inner, frame_bytes_max};
use crate::channel::ChannelId;
use crate::error::{DecodeError, Misbehavior};
use crate::frame::{Decoder, Frame};
use crate::limits;

/// What one read takes from a stream.
const READ_BYTES_MAX: usize = 64 * 1_024;

/// Bodies up to this size may be slices of a received batch of packets, which a kept body of a few bytes would keep whole. Copying them
/// makes what an event holds what it counts. Larger ones span packets, so the decoder has copied them together.
const COPIED_BYTES_MAX: usize = 8 * 1_024;

/// Streams that a peer may open in vain before that is misbehavior.
pub(super) const REFUSED_STREAMS_MAX: u32 = 1_024;

/// Which channels have a stream from the peer.
pub(super) type OpenChannels = Arc<Mutex<BTreeSet<ChannelId>>>;

/// How the reading of one stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// It was read to its end, or the connection is gone.
    Over,
    /// It was stopped: its channel is unknown, or has a stream already.
    Refused,
}

/// Reads one stream to its end and reports its frames. Waits while the owner is behind; then flow control makes the peer wait.
pub(super) async fn read_stream(mut stream: RecvStream, link: Arc<Inner>, outlet: Outlet, open: OpenChannels) -> StreamEnd {
    // Nothing but the preamble is read under this limit.
    let mut decoder = Decoder::new(0);
    let channel = match preamble(&mut stream, &mut decoder).await {
        Ok(Some(channel)) => channel,
        Ok(None) => return StreamEnd::Over,
        Err(error) => {
            link.end(CloseReason::Misbehaved(Misbehavior::Undecodable(error)));
            return StreamEnd::Over;
        }
    };
    let refused = match link.params.channel(channel) {
        None => Some(stop::UNKNOWN_CHANNEL),
        Some(_) if !open.lock().unwrap_or_else(PoisonError::into_inner).insert(channel) => Some(stop::DUPLICATE),
        Some(spec) => {
            decoder.set_frame_bytes_max(frame_bytes_max(spec));
            None
        }
    };
    if let Some(code) = refused {
        tracing::debug!(peer = %link.peer.short(), ?channel, %code, "stopped a stream");
        let _ = stream.stop(code);
        return StreamEnd::Refused;
    }
    match read_frames(&mut stream, &mut decoder, channel, &link, &outlet).await {
        Ok(()) => {}
        Err(Fault::NobodyListens) => return StreamEnd::Over,
        Err(Fault::Undecodable(error)) => link.end(CloseReason::Misbehaved(Misbehavior::Undecodable(error))),
    }
    open.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    StreamEnd::Over
}

enum Fault {
    Undecodable(DecodeError),
    NobodyListens,
}

impl From<NobodyListens> for Fault {
    fn from(_: NobodyListens) -> Self {
        Fault::NobodyListens
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Fault::Undecodable(error)
    }
}

/// The channel that a stream begins with; `None` when the stream ended before it said.
async fn preamble(stream: &mut RecvStream, decoder: &mut Decoder) -> Result<Option<ChannelId>, DecodeError> {
    loop {
        match stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) | Err(_) => return Ok(None),
        }
        if let Some(channel) = decoder.preamble()? {
            return Ok(Some(channel));
        }
    }
}

async fn read_frames(
    stream: &mut RecvStream,
    decoder: &mut Decoder,
    channel: ChannelId,
    link: &Inner,
    outlet: &Outlet,
) -> Result<(), Fault> {
    loop {
        while let Some(Frame { kind, body }) = decoder.next()? {
            let body = if body.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&body) } else { body };
            link.count_received(channel, body.len());
            outlet.send(Event::Frame { connection: link.id, channel, frame: Frame { kind, body } }).await?;
        }
        match stream.read_chunk(READ_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) if decoder.held_bytes() == 0 => return Ok(()),
            Ok(None) => return Err(Fault::Undecodable(DecodeError::Truncated)),
            // Reset by the peer, or gone with the connection. What was whole has been reported.
            Err(_) => return Ok(()),
        }
    }
}

/// Reports datagrams until the connection ends. While the owner is behind, the oldest ones are dropped.
pub(super) async fn read_datagrams(link: Arc<Inner>, outlet: Outlet) {
    while let Ok(bytes) = link.connection.read_datagram().await {
        if bytes.len() > limits::DATAGRAM_BYTES_MAX {
            link.datagrams_refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let bytes = Bytes::copy_from_slice(&bytes);
        if outlet.send(Event::Datagram { connection: link.id, bytes }).await.is_err() {
            return;
        }
    }
}
