//! How two nodes that hold a connection prove to each other that they belong to one cluster.
//!
//! TLS says *which key* is at the other end; admission says that whoever holds it also knows the cluster's secret. On the first
//! bidirectional stream the dialer proves first, so that a stranger who knocks learns nothing that depends on the secret:
//!
//! ```text
//! dialer   → hello    frame of kind 1: versions (2 × u16, big-endian), then postcard: incarnation, the address it sees, proof "c", attach
//! acceptor → welcome  frame of kind 2: the same, with proof "s"
//! proof    = HMAC-SHA256(secret, side ‖ exporter)
//! exporter = 32 bytes of the TLS exporter (RFC 5705) "EXPORTER-meshwork-member-v1", context: both keys in order ‖ cluster name
//! ```
//!
//! A node whose application defined channels appends their table ([`crate::agreement`]) to its message for a first connection.
//!
//! A dialer that wants a second connection to a peer, for bulk, names the first by its tag (`attach`): sixteen bytes of the exporter of that connection, which only its two ends know.
//!
//! The exporter is different on every connection, so a proof cannot be replayed; and different on the two connections of somebody in
//! the middle, so it cannot be relayed. The versions come first and in a fixed form: they can be read whatever follows them.
//!
//! One attempt for each connection, at most [`limits::ADMISSION_BYTES_MAX`] and [`limits::ADMISSION_TIMEOUT`]. Until it is over a dialer
//! may open one stream and send 32 KiB, and no datagram: one that comes early ends the connection.

use std::fmt;
use std::net::SocketAddr;

use quinn::{Connection, ConnectionError, ReadError, RecvStream, WriteError};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::close::{CloseCode, Refusal};
use crate::address::canonical;
use crate::agreement::{Table, WireTable};
use crate::codec;
use crate::error::DecodeError;
use crate::frame;
use crate::identity::{ClusterName, ClusterSecret, PeerId};
use crate::limits;

const EXPORTER_LABEL: &[u8] = b"EXPORTER-meshwork-member-v1";
const TAG_LABEL: &[u8] = b"EXPORTER-meshwork-bulk-v1";
const HELLO: u16 = 1;
const WELCOME: u16 = 2;
const VERSIONS_BYTES: usize = 4;

/// The wire versions that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this library speaks.
    pub const OURS: Versions = Versions { oldest: 1, newest: 1 };

    /// The newest version that both speak.
    pub fn in_common(self, other: Versions) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// What both messages carry behind the versions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    /// How often the sender's node has started, or another number that grows with every start.
    incarnation: u64,
    /// The address under which the sender sees the receiver.
    observed: SocketAddr,
    proof: [u8; 32],
    /// The connection of which this one is the second.
    attach: Option<Tag>,
}

/// The message of a node whose application defined channels.
#[derive(Deserialize)]
struct BodyAndTable {
    body: Body,
    table: WireTable,
}

/// The name of a connection that only its two ends know.
pub(super) type Tag = [u8; 16];

/// The tag of an admitted connection.
pub(super) fn tag(connection: &Connection) -> Tag {
    let mut tag = [0; 16];
    // It fails only for absurd lengths; a tag of zeros would name no other connection by accident, for the peer is compared as well.
    let _ = connection.export_keying_material(&mut tag, TAG_LABEL, &[]);
    tag
}

/// Who proves. It is part of what is proven, so that a proof cannot be sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Side::Dialer => b"c",
            Side::Acceptor => b"s",
        }
    }
}

/// What an admission needs to know of this node and of the one at the other end.
pub(super) struct Context<'a> {
    pub(super) own: PeerId,
    pub(super) incarnation: u64,
    pub(super) cluster: &'a ClusterName,
    /// The one that the handshake chose; `None` in a cluster without secrets.
    pub(super) secret: Option<&'a ClusterSecret>,
    pub(super) peer: PeerId,
    /// The channels that the application of this node defined.
    pub(super) table: &'a Table,
}

/// A peer that belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) incarnation: u64,
    pub(super) version: u16,
    /// Our own address as the peer sees it.
    pub(super) observed: SocketAddr,
    /// The connection of which it is the second.
    pub(super) attach: Option<Tag>,
    /// The channels that its application defined.
    pub(super) table: Table,
}

/// Why there was no admission. Nothing of the peer is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    TimedOut,
    Lost(ConnectionError),
    Undecodable(DecodeError),
    /// Something came that may only come after the admission, or a stream ended too early.
    OutOfTurn,
    Incompatible(Versions),
    BadProof,
    /// It proved that it belongs to the cluster, and has no business here now.
    Unwanted,
}

impl Failure {
    /// What the other side is told.
    pub(super) fn close_code(&self) -> CloseCode {
        match self {
            Failure::TimedOut => CloseCode::TooSlow,
            Failure::Incompatible(_) => CloseCode::Incompatible,
            Failure::Undecodable(_) | Failure::OutOfTurn => CloseCode::Undecodable,
            Failure::BadProof | Failure::Lost(_) => CloseCode::NotAdmitted,
            Failure::Unwanted => CloseCode::Duplicate,
        }
    }

    /// What it means on the accepting side.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Failure::TimedOut | Failure::Lost(ConnectionError::TimedOut) => Refusal::TimedOut,
            // TLS 1.3 lets a dialer finish before the acceptor has judged its key, but not the other way round: what reaches us now is
            // no verdict about keys.
            Failure::Lost(_) => Refusal::GaveUp,
            Failure::Undecodable(_) | Failure::OutOfTurn => Refusal::Undecodable,
            Failure::Incompatible(_) => Refusal::Incompatible,
            Failure::BadProof => Refusal::BadProof,
            Failure::Unwanted => Refusal::Unwanted,
        }
    }
}

/// The dialer's part: proves, then checks the answer.
pub(super) async fn ask(connection: &Connection, context: Context<'_>, attach: Option<Tag>) -> Result<Admitted, Failure> {
    let attempt = async {
        let channel = Channel::of(connection, &context)?;
        let (mut send, mut receive) = connection.open_bi().await.map_err(Failure::Lost)?;
        send.write_all(&channel.message(Side::Dialer, attach)).await.map_err(|error| lost(connection, error))?;
        // Only a stream that is gone cannot be finished, and then the answer will not come either.
        let _ = send.finish();
        channel.check(Side::Acceptor, &read(connection, &mut receive).await?)
    };
    tokio::time::timeout(limits::ADMISSION_TIMEOUT, attempt).await.unwrap_or(Err(Failure::TimedOut))
}

/// The acceptor's part: checks the proof, lets `judge` decide about whoever proved it, then proves. Whom the judge turns away never believes to be admitted.
pub(super) async fn answer<T>(
    connection: &Connection,
    context: Context<'_>,
    judge: impl FnOnce(&Admitted) -> Option<T>,
) -> Result<(Admitted, T), Failure> {
    let attempt = async {
        let channel = Channel::of(connection, &context)?;
        let (mut send, mut receive) = connection.accept_bi().await.map_err(Failure::Lost)?;
        let admitted = channel.check(Side::Dialer, &read(connection, &mut receive).await?)?;
        let judged = judge(&admitted).ok_or(Failure::Unwanted)?;
        send.write_all(&channel.message(Side::Acceptor, None)).await.map_err(|error| lost(connection, error))?;
        let _ = send.finish();
        Ok((admitted, judged))
    };
    // The peer has no reason to send datagrams yet; to let them pile up would be to store for a stranger.
    let attempt = async {
        tokio::select! {
            biased;
            result = attempt => result,
            early = connection.read_datagram() => Err(early.map_or_else(Failure::Lost, |_| Failure::OutOfTurn)),
        }
    };
    tokio::time::timeout(limits::ADMISSION_TIMEOUT, attempt).await.unwrap_or(Err(Failure::TimedOut))
}

/// Reads the one frame of the other side.
async fn read(connection: &Connection, stream: &mut RecvStream) -> Result<frame::Frame, Failure> {
    let mut decoder = frame::Decoder::new(limits::ADMISSION_BYTES_MAX);
    loop {
        match stream.read_chunk(limits::ADMISSION_BYTES_MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) => return Err(Failure::Undecodable(DecodeError::Truncated)),
            Err(ReadError::ConnectionLost(error)) => return Err(Failure::Lost(error)),
            // A stream that was reset; unless the connection went with it.
            Err(_) => return Err(connection.close_reason().map_or(Failure::OutOfTurn, Failure::Lost)),
        }
        if let Some(frame) = decoder.next().map_err(Failure::Undecodable)? {
            return if decoder.held_bytes() == 0 { Ok(frame) } else { Err(Failure::Undecodable(DecodeError::Trailing)) };
        }
    }
}

fn lost(connection: &Connection, error: WriteError) -> Failure {
    match error {
        WriteError::ConnectionLost(error) => Failure::Lost(error),
        _ => connection.close_reason().map_or(Failure::OutOfTurn, Failure::Lost),
    }
}

/// One connection as the proofs see it.
struct Channel {
    key: hmac::Key,
    exporter: [u8; 32],
    incarnation: u64,
    observed: SocketAddr,
    table: Table,
}

impl Channel {
    fn of(connection: &Connection, context: &Context<'_>) -> Result<Self, Failure> {
        let mut exporter = [0; 32];
        let label = exporter_context(context.own, context.peer, context.cluster);
        connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &label).map_err(|_| Failure::BadProof)?;
        let observed = canonical(connection.remote_address());
        Ok(Channel { key: proof_key(context.secret), exporter, incarnation: context.incarnation, observed, table: context.table.clone() })
    }

    fn message(&self, side: Side, attach: Option<Tag>) -> Vec<u8> {
        let body = Body { incarnation: self.incarnation, observed: self.observed, proof: prove(&self.key, side, &self.exporter), attach };
        let kind = if side == Side::Dialer { HELLO } else { WELCOME };
        let mut message = write_message(Versions::OURS, &body);
        // A second connection goes by what was said on the first.
        if attach.is_none() && !self.table.is_empty() {
            codec::encode_into(&self.table.to_wire(), &mut message);
        }
        frame::encode(kind, &message).to_vec()
    }

    fn check(&self, side: Side, frame: &frame::Frame) -> Result<Admitted, Failure> {
        let kind = if side == Side::Dialer { HELLO } else { WELCOME };
        if frame.kind != kind {
            return Err(Failure::Undecodable(DecodeError::Invalid));
        }
        let (theirs, rest) = read_versions(&frame.body).map_err(Failure::Undecodable)?;
        let version = Versions::OURS.in_common(theirs).ok_or(Failure::Incompatible(theirs))?;
        let (body, table) = read_body(rest).map_err(Failure::Undecodable)?;
        let message = [side.label(), &self.exporter].concat();
        // In constant time.
        hmac::verify(&self.key, &message, &body.proof).map_err(|_| Failure::BadProof)?;
        Ok(Admitted { incarnation: body.incarnation, version, observed: canonical(body.observed), attach: body.attach, table })
    }
}

/// The same on both sides: the keys in order, then the name, which is the only part without a fixed length.
fn exporter_context(own: PeerId, peer: PeerId, cluster: &ClusterName) -> Vec<u8> {
    let (low, high) = if own < peer { (own, peer) } else { (peer, own) };
    [low.as_bytes(), high.as_bytes(), cluster.as_str().as_bytes()].concat()
}

/// Without a secret everybody can make the proof: only the loopback interface is open then.
fn proof_key(secret: Option<&ClusterSecret>) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(&[], |secret| secret.expose()))
}

fn prove(key: &hmac::Key, side: Side, exporter: &[u8; 32]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    context.update(side.label());
    context.update(exporter);
    let mut proof = [0; 32];
    proof.copy_from_slice(context.sign().as_ref());
    proof
}

fn write_message(versions: Versions, body: &Body) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&versions.oldest.to_be_bytes());
    bytes.extend_from_slice(&versions.newest.to_be_bytes());
    codec::encode_into(body, &mut bytes);
    bytes
}

fn read_versions(message: &[u8]) -> Result<(Versions, &[u8]), DecodeError> {
    let (versions, rest) = message.split_first_chunk::<VERSIONS_BYTES>().ok_or(DecodeError::Truncated)?;
    let [a, b, c, d] = *versions;
    let versions = Versions { oldest: u16::from_be_bytes([a, b]), newest: u16::from_be_bytes([c, d]) };
    if versions.oldest > versions.newest { Err(DecodeError::Invalid) } else { Ok((versions, rest)) }
}

/// The body, and the table behind it if there is one.
fn read_body(bytes: &[u8]) -> Result<(Body, Table), DecodeError> {
    match codec::decode(bytes) {
        Ok(body) => Ok((body, Table::default())),
        Err(DecodeError::Trailing) => {
            let BodyAndTable { body, table } = codec::decode(bytes)?;
            Ok((body, Table::from_wire(table)?))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn channel(secret: u8, exporter: u8) -> Channel {
        Channel {
            key: proof_key(Some(&ClusterSecret::from_bytes([secret; 32]))),
            exporter: [exporter; 32],
            incarnation: 9,
            observed: ([127, 0, 0, 1], 7_000).into(),
            table: Table::default(),
        }
    }

    fn with_table(secret: u8, exporter: u8) -> Channel {
        let defined = vec![crate::ChannelSpec::new("video").lanes(3)];
        let table = Table::of(&crate::agreement::with_defined(defined).unwrap());
        Channel { table, ..channel(secret, exporter) }
    }

    fn frame_of(message: &[u8]) -> frame::Frame {
        let mut decoder = frame::Decoder::new(limits::ADMISSION_BYTES_MAX);
        decoder.push(message.to_vec().into());
        decoder.next().unwrap().unwrap()
    }

    #[test]
    fn a_member_is_admitted() {
        for side in [Side::Dialer, Side::Acceptor] {
            let message = channel(1, 2).message(side, None);
            assert!(message.len() < limits::ADMISSION_BYTES_MAX);
            let admitted = channel(1, 2).check(side, &frame_of(&message)).unwrap();
            let (observed, table) = (([127, 0, 0, 1], 7_000).into(), Table::default());
            assert_eq!(admitted, Admitted { incarnation: 9, version: 1, observed, attach: None, table });
        }
    }

    #[test]
    fn a_table_of_channels_comes_behind_the_body_of_a_first_connection() {
        let plain = channel(1, 2).message(Side::Dialer, None);
        let message = with_table(1, 2).message(Side::Dialer, None);
        let (plain, body) = (frame_of(&plain).body, frame_of(&message).body);
        assert_eq!(&body[..], [&plain[..], b"\x01\x05video\x00\x03"].concat());
        let admitted = channel(1, 2).check(Side::Dialer, &frame_of(&message)).unwrap();
        assert_eq!(admitted.table, with_table(1, 2).table);
        assert_eq!(channel(1, 2).check(Side::Dialer, &frame_of(&with_table(3, 2).message(Side::Dialer, None))), Err(Failure::BadProof));
        let second = with_table(1, 2).message(Side::Dialer, Some([7; 16]));
        assert_eq!(channel(1, 2).check(Side::Dialer, &frame_of(&second)).unwrap().table, Table::default());
        for (tail, error) in [
            (&b"\x01\x05video\x00\x03\x00"[..], DecodeError::Trailing),
            (b"\x21", DecodeError::Truncated),
            (b"\x00", DecodeError::Trailing),
        ] {
            let body = [&plain[..], tail].concat().into();
            assert_eq!(channel(1, 2).check(Side::Dialer, &frame::Frame { kind: HELLO, body }), Err(Failure::Undecodable(error)));
        }
    }

    #[test]
    fn a_proof_is_of_one_secret_one_connection_and_one_side() {
        let hello = frame_of(&channel(1, 2).message(Side::Dialer, None));
        assert_eq!(channel(3, 2).check(Side::Dialer, &hello), Err(Failure::BadProof));
        assert_eq!(channel(1, 3).check(Side::Dialer, &hello), Err(Failure::BadProof));
        // Sent back as it came, and with only its kind changed.
        assert_eq!(channel(1, 2).check(Side::Acceptor, &hello), Err(Failure::Undecodable(DecodeError::Invalid)));
        let turned = frame::Frame { kind: WELCOME, ..hello };
        assert_eq!(channel(1, 2).check(Side::Acceptor, &turned), Err(Failure::BadProof));
    }

    #[test]
    fn the_context_is_the_same_on_both_sides_and_names_the_cluster() {
        let red = "red".parse().unwrap();
        assert_eq!(exporter_context(peer(1), peer(2), &red), exporter_context(peer(2), peer(1), &red));
        assert_ne!(exporter_context(peer(1), peer(2), &red), exporter_context(peer(1), peer(2), &"blue".parse().unwrap()));
        assert_ne!(exporter_context(peer(1), peer(2), &red), exporter_context(peer(1), peer(3), &red));
    }

    #[test]
    fn versions_meet() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 3).in_common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 5).in_common(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 1).in_common(versions(2, 5)), None);
        assert_eq!(versions(0, u16::MAX).in_common(versions(7, 7)), Some(7));
    }

    #[test]
    fn the_versions_of_a_stranger_can_be_read_whatever_follows() {
        let message = frame::Frame { kind: HELLO, body: vec![0, 7, 0, 9, 0xff, 0xff].into() };
        let theirs = Versions { oldest: 7, newest: 9 };
        assert_eq!(channel(1, 2).check(Side::Dialer, &message), Err(Failure::Incompatible(theirs)));
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let good = frame_of(&channel(1, 2).message(Side::Dialer, None)).body;
        for len in 0..good.len() {
            let torn = frame::Frame { kind: HELLO, body: good.slice(..len) };
            assert!(matches!(channel(1, 2).check(Side::Dialer, &torn), Err(Failure::Undecodable(_))), "{len}");
        }
        let long = frame::Frame { kind: HELLO, body: [&good[..], &[0]].concat().into() };
        assert_eq!(channel(1, 2).check(Side::Dialer, &long), Err(Failure::Undecodable(DecodeError::Trailing)));
        let backwards = frame::Frame { kind: HELLO, body: vec![0, 2, 0, 1].into() };
        assert_eq!(channel(1, 2).check(Side::Dialer, &backwards), Err(Failure::Undecodable(DecodeError::Invalid)));
        for (index, _) in good.iter().enumerate() {
            let mut bent = good.to_vec();
            bent[index] ^= 0x40;
            // Whatever the flipped bit means, it never panics; and the proof covers itself, so its bytes never pass.
            let verdict = channel(1, 2).check(Side::Dialer, &frame::Frame { kind: HELLO, body: bent.into() });
            let is_proof = (good.len() - 33..good.len() - 1).contains(&index);
            assert!(!is_proof || verdict == Err(Failure::BadProof));
        }
    }

    #[test]
    fn a_hello_is_stable() {
        let body = Body { incarnation: 300, observed: ([192, 0, 2, 1], 443).into(), proof: [0xab; 32], attach: Some([7; 16]) };
        let golden = [&[0, 1, 0, 1, 0xac, 2, 0, 192, 0, 2, 1, 0xbb, 3][..], &[0xab; 32], &[1], &[7; 16]].concat();
        assert_eq!(write_message(Versions::OURS, &body), golden);
    }
}
