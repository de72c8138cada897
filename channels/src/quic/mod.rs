//! QUIC connections between peers: the only module of this package that performs input and output.
//!
//! An [`Endpoint`] owns one UDP socket, dials and accepts, and turns away whoever is not of the cluster. A connection that both sides
//! proved ([`admission`](self#admission)) becomes a [`Link`]; everything that happens arrives in order as an [`Event`].
//!
//! ```text
//! driver ──try_send──▶ sender::State ──▶ writer task ──▶ one stream for each channel ──▶ reader tasks ──▶ Events ──▶ driver
//!                        (bounded)                        (flow control)                                 (bounded)
//! ```
//!
//! Nothing that the driver calls waits: a full queue answers at once ([`SendError`]), and results of dialing are events. Nothing is
//! unbounded: when the driver is slow, readers stop reading, and the peers' own flow control holds the rest back.
//!
//! # Admission
//!
//! TLS 1.3 with raw ed25519 keys on both sides says who is at the other end; a protocol name that depends on the cluster's secret keeps
//! strangers from getting that far by accident; an HMAC over the TLS exporter, the dialer first, proves that both know the secret. Only
//! then is a connection reported, on both sides.
//!
//! # Two connections for a link
//!
//! A link begins with one QUIC connection, which lives as long as the link. When more than [`limits::BULK_OPENS_AT_BYTES`](crate::limits::BULK_OPENS_AT_BYTES)
//! wait on a channel with [`Path::Bulk`](crate::channel::Path::Bulk), the sender opens a *second connection* for those channels, with a congestion control of
//! its own ([`Governed`]); each side may open one, and sends alone on its own. It goes through the same admission and names the first connection by its tag; the
//! acceptor decides before it welcomes. After [`EndpointConfig::bulk_idle`] without anything to send it is closed. A peer that refuses it, or is not reached, gets
//! everything on the first, and is asked again after [`EndpointConfig::bulk_retry`].
//!
//! ```text
//! Closed ──much waits──▶ Opening ──welcome──▶ Open ──idle, or drained──▶ Closing ──the peer has it all──▶ Closed
//!                           └──────────no, or nobody there──▶ Refused ──later──▶ as Closed
//! ```
//!
//! A lane that moves ends its stream and goes on in a stream with the next number on the other connection; the reader takes the streams of a lane in the order of
//! their numbers. Frames on their way are in one place only: while a second connection opens, what it is to carry waits. When it breaks, or a stream is
//! reset, the whole link ends, with [`CloseCode::Broken`] or as misbehavior, for what was on it may be lost.
//!
//! # Byte streams
//!
//! Beside frames, an application can have streams of bytes ([`Link::open_stream`], [`Endpoint::accept_streams`]): bidirectional QUIC streams that begin with four bytes, the version 1, the letter
//! `B` and the channel in two bytes, the higher first. The acceptor answers with one byte 1, or resets its direction: with 1 when it has no such channel, 3 when nobody listens
//! there, 4 when too many streams are open, 5 when that is no beginning. Codes from 2^32 on are the application's. They use the second connection of the opener for channels with
//! [`Path::Bulk`](crate::channel::Path::Bulk), which is governed in both directions and stays as long as one is open, and otherwise the first.
//!
//! # Invariants
//!
//! - No [`Event::Frame`], [`Event::Datagram`] or [`Event::Closed`] of a connection comes before its [`Event::Connected`], and none after
//!   its [`Event::Closed`].
//! - A secret, a private key or a proof is never logged.
//! - No failing connection, however hostile, ends the loop that accepts the next one.
//! - While a link stands, the frames of a lane arrive complete and in order, whatever connection carries them.
//! - No second connection outlives its first but to be read to its end, and [`Event::Closed`] comes after that.
//! - Nothing comes on a second connection before its link was reported. Frames of [`Class::Control`](crate::channel::Class::Control) and datagrams never do:
//!   a peer that sends them there misbehaves.
//! - A task that is ended while it waits for room in a queue takes none of that room along.
//! - No lock is held while waiting.
//!
//! # What a peer can make us hold
//!
//! | Who | What | Bound |
//! |---|---|---|
//! | anybody, with forged addresses | first packets not looked at | 1,024 and 4 MiB |
//! | anybody, with forged addresses | handshakes in progress | some [`limits::HALF_OPEN_RETRY`](crate::limits::HALF_OPEN_RETRY), then Retry |
//! | anybody who receives at its address | handshakes in progress | [`limits::HALF_OPEN_MAX`](crate::limits::HALF_OPEN_MAX), for some seconds each |
//! | anybody who holds some key | bytes before admission | 32 KiB on one stream |
//! | a member, for each connection | bytes that it sent and nobody read | 32 MiB and 512 KiB of datagrams: [`limits::WINDOW_BYTES`](crate::limits::WINDOW_BYTES) on the first, [`limits::BULK_WINDOW_BYTES`](crate::limits::BULK_WINDOW_BYTES) on its second, 256 KiB of datagrams on each; none of it before the link is reported |
//! | a member, for each connection | streams, and a task for each | [`limits::STREAMS_MAX`](crate::limits::STREAMS_MAX) on the first and on its second; of one lane [`limits::STREAMS_AHEAD_MAX`](crate::limits::STREAMS_AHEAD_MAX) wait for their turn |
//! | a member, for each connection | byte streams that it opened | [`limits::URGENT_BYTE_STREAMS_MAX`](crate::limits::URGENT_BYTE_STREAMS_MAX) on the first and [`limits::BULK_BYTE_STREAMS_MAX`](crate::limits::BULK_BYTE_STREAMS_MAX) on its second |
//! | a member, for each byte stream of either side that is open or was open beside them | bytes that it sent and nobody read | [`limits::STREAM_WINDOW_BYTES`](crate::limits::STREAM_WINDOW_BYTES) beyond the windows above |
//! | all members together | byte streams | [`limits::BYTE_STREAMS_MAX`](crate::limits::BYTE_STREAMS_MAX) |
//! | a member that does not read | queued frames | [`sender::Params`](crate::sender::Params), and 64 KiB and a frame for each lane and connection |
//! | a member that does not acknowledge | bytes to send again | 32 MiB: [`limits::SEND_WINDOW_BYTES`](crate::limits::SEND_WINDOW_BYTES) on the first, at most [`limits::BULK_SEND_WINDOW_BYTES`](crate::limits::BULK_SEND_WINDOW_BYTES) on our second |
//! | all members together | connections | [`limits::CONNECTIONS_MAX`](crate::limits::CONNECTIONS_MAX) links, and for each of them one second connection of theirs and one of ours |
//! | all members together | messages in an [`Inbox`] | the bytes that it was made with, and a batch for each stream; when the peer has closed, what finds no room for [`limits::IDLE_TIMEOUT`](crate::limits::IDLE_TIMEOUT) is dropped |
//! | all members together | events not taken | [`EndpointConfig::events_max`] and [`EndpointConfig::event_bytes_max`] |
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this module reads the monotonic clock, starts tasks and binds a UDP socket"
)]

mod admission;
mod batch;
mod close;
mod derive;
mod endpoint;
mod event;
mod gate;
mod governed;
mod inbox;
mod key;
mod link;
mod metrics;
mod queues;
mod reader;
mod reading;
mod received;
mod seconds;
mod socket;
mod stream;
mod tls;
mod tuning;
mod writer;

use std::time::Instant;

pub use admission::Versions;
pub use batch::{Batch, Bodies};
pub use close::{CloseCode, CloseReason, DialError, Refusal};
pub use derive::{NoRandomness, derived, system_random};
pub use endpoint::{BindError, Endpoint, EndpointConfig, EndpointStats};
pub use event::{Event, Events};
pub use governed::Governed;
pub use inbox::{Handler, Inbox};
pub use key::{NodeKey, NodeKeyError};
pub use link::{ChannelStats, DatagramError, Link, LinkStats, MessageError, SendError};
pub use metrics::{ConnectionMetrics, ConnectionRole, LinkMetrics};
pub use stream::{ByteReader, ByteStream, ByteWriter, OpenError, StreamError, StreamListener};

use crate::time::Time;

/// The monotonic clock as a number: what cores call the time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    origin: Instant,
}

impl Clock {
    fn now(self) -> Time {
        let elapsed = Instant::now().saturating_duration_since(self.origin);
        Time::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}
