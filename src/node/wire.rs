//! What two nodes say to each other: the kinds of frames and their bodies.
//!
//! A frame of a kind that a node does not know is skipped and counted, so kinds can be added without breaking older nodes. Kinds and
//! the variants inside bodies are only ever added at the end.

use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::{Bounded, PeerId, frame};
use meshwork_overlay::Message;
use serde::{Deserialize, Serialize};

/// Overlay, membership and broadcast: an [`Overlay`].
pub(crate) const OVERLAY: u16 = 1;
/// Repair of the replicated state: a `meshwork_crdt::Message`.
pub(crate) const STATE: u16 = 2;
/// A message of the application: the body is the payload itself.
pub(crate) const MESSAGE: u16 = 3;
/// A request of the application: a [`Request`].
pub(crate) const REQUEST: u16 = 4;
/// The answer to a request: a [`Response`].
pub(crate) const RESPONSE: u16 = 5;
/// A request that nobody waits for any more: a [`Cancel`].
pub(crate) const CANCEL: u16 = 6;

/// The first byte of a datagram of the membership.
pub(crate) const DATAGRAM_MEMBERSHIP: u8 = 1;

/// Most addresses that travel with one overlay message.
pub(crate) const ADDRESSES_MAX: usize = 64;

/// A message of the overlay, with the addresses of the peers that it names: who hears of a peer must be able to dial it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Overlay {
    pub(crate) addresses: Bounded<(PeerId, SocketAddr), ADDRESSES_MAX>,
    pub(crate) message: Message<PeerId>,
}

/// A request of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Counted by the asker; a retried request keeps its number.
    pub(crate) id: u64,
    pub(crate) payload: Bytes,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) outcome: Outcome,
}

/// The asker gave a request up, or its time is over. May get lost; a request that is unknown or answered is none of its business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cancel {
    /// Of the request.
    pub(crate) id: u64,
}

/// How a request ended at the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done(Bytes),
    NoHandler,
    Busy,
}

/// A whole frame around an encoded body.
pub(crate) fn encode<T: Serialize>(kind: u16, body: &T) -> Bytes {
    frame::encode(kind, &meshwork_channels::encode(body))
}
