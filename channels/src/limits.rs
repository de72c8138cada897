//! Every number that bounds what a peer can make this node hold or do, in one place.
//!
//! The values follow the measurements of QUIC handshakes, postcard decoding and flood tests that the design rests on. A bound that
//! belongs to one core's own tables stands in that core's `Params`.

use std::time::Duration;

/// Bytes of a cluster name.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;

/// Bytes of one frame on a stream, prefix excluded. A larger length is refused before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 1_088 * 1_024;
/// Bytes of one application message.
pub const MESSAGE_BYTES_MAX: usize = 1_024 * 1_024;
/// Bytes of the key of a message of which the latest is kept.
pub const LATEST_KEY_BYTES_MAX: usize = 256;
/// Bytes of one broadcast payload.
pub const BROADCAST_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of one control frame (overlay, membership, repair).
pub const CONTROL_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of one datagram: fits the minimum that QUIC guarantees after its own headers.
pub const DATAGRAM_BYTES_MAX: usize = 1_162;
/// Bytes of one datagram of the membership: a node puts one byte before it that says what it is.
pub const MEMBERSHIP_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - 1;

/// Bytes of an admission frame.
pub const ADMISSION_BYTES_MAX: usize = 4 * 1_024;
/// How long an admission may take once the connection stands.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Handshakes in progress at once; the next is refused.
pub const HALF_OPEN_MAX: usize = 256;
/// Handshakes in progress above which every new address must first prove that it can receive (QUIC Retry).
pub const HALF_OPEN_RETRY: usize = 64;
/// New connections in one second above which every new address must first prove that it can receive (QUIC Retry).
pub const NEW_PER_SECOND_RETRY: u32 = 50;
/// Admitted connections of one endpoint.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Flow-control window of one stream.
pub const STREAM_WINDOW_BYTES: u32 = 2 * 1_024 * 1_024;
/// Flow-control window of a connection before admission.
pub const WINDOW_BYTES_BEFORE_ADMISSION: u32 = 32 * 1_024;
/// Flow-control window of an admitted connection.
pub const WINDOW_BYTES: u32 = 8 * 1_024 * 1_024;
/// Flow-control window of the second connection to a peer, for bulk: more than what the streams of the built-in channels may fill, so that one that nobody reads
/// leaves the others their room.
pub const BULK_WINDOW_BYTES: u32 = 24 * 1_024 * 1_024;
/// Bytes that we keep for retransmission on the second connection.
pub const BULK_SEND_WINDOW_BYTES: u64 = 24 * 1_024 * 1_024;
/// What may wait on one channel for bulk before a connection of its own is opened for it.
pub const BULK_OPENS_AT_BYTES: usize = 64 * 1_024;
/// The second connection is closed after this time without anything to send.
pub const BULK_IDLE: Duration = Duration::from_secs(30);
/// How long a peer that did not take the second connection is left in peace.
pub const BULK_RETRY: Duration = Duration::from_secs(60);
/// How far ahead of its turn a stream of a lane may come.
pub const STREAMS_AHEAD_MAX: u32 = 4;
/// Bytes that we keep for retransmission on one connection.
pub const SEND_WINDOW_BYTES: u64 = 8 * 1_024 * 1_024;
/// Bytes of packets that may wait in the system for an endpoint, and as many the other way, where the system allows it. Linux gives 208 KiB by itself, and counts in them what it
/// keeps beside each packet: measured, an endpoint that did not run for two milliseconds lost packets of 500 Mbit/s, up to one in a hundred.
pub const SOCKET_BUFFER_BYTES: usize = 1_024 * 1_024;
/// Bytes of datagrams that wait to be sent on one connection: they go before every stream.
pub const DATAGRAM_SEND_BYTES: usize = 64 * 1_024;
/// What of it messages of best effort leave to the membership.
pub const DATAGRAM_RESERVE_BYTES: usize = 32 * 1_024;
/// Bytes of received datagrams kept on one connection.
pub const DATAGRAM_BUFFER_BYTES: usize = 256 * 1_024;
/// Streams that a peer may hold open towards us once admitted.
pub const STREAMS_MAX: u32 = 64;

/// Byte streams of the application that a peer may hold open towards us on the first connection. QUIC hands places out again when more than an eighth of the limit is free, so it may be two
/// fewer.
pub const URGENT_BYTE_STREAMS_MAX: u32 = 16;
/// Byte streams of the application that a peer may hold open towards us on its second connection; 64 with those on the first.
pub const BULK_BYTE_STREAMS_MAX: u32 = 48;
/// Byte streams that all peers together may hold open towards one endpoint; each may hold a stream window of unread bytes.
pub const BYTE_STREAMS_MAX: usize = 1_024;

/// The connection is given up after this silence.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection is kept alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Any duration that a peer sends is cut to this before arithmetic.
pub const REMOTE_DURATION_MAX: Duration = Duration::from_secs(3_600);
/// How far ahead of our wall clock a replicated stamp may be.
pub const STAMP_AHEAD_MAX: Duration = Duration::from_millis(500);

/// Bytes of a replicated key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a replicated value.
pub const VALUE_BYTES_MAX: usize = 64 * 1_024 - 2 * 1_024;
/// Keys that a replica can be allowed to keep.
pub const KEYS_MAX: usize = 1 << 20;
/// Bytes of keys and values that a replica can be allowed to keep.
pub const STATE_BYTES_MAX: usize = 256 * 1_024 * 1_024;

/// Life of a join token unless another is asked for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Secrets that one endpoint accepts at once, for rotation.
pub const KEYRING_MAX: usize = 4;
