//! What this node writes is signed where that is asked for, and what others send is taken only if their origins did the same.

use bytes::Bytes;
use meshwork_channels::PeerId;

use super::{Joined, Op, SetError, State};
use crate::hlc::Stamp;
use crate::key::Key;
use crate::signed::Signing;
use crate::wire::Body;

impl State {
    /// Whether an operation can be signed, if it has to be.
    pub(super) fn check_signable(&self, key: &Key, op: &Op) -> Result<(), SetError> {
        match self.signing.as_ref().and_then(|signing| signing.prefix_of(key)) {
            Some(prefix) if !matches!(op, Op::Set(_) | Op::Remove) => Err(SetError::Signed { prefix: prefix.to_owned() }),
            _ => Ok(()),
        }
    }

    /// A register that this node writes or removes, signed where that is asked for.
    pub(super) fn register(&self, key: &Key, stamp: Stamp, value: Option<Bytes>) -> Body {
        match self.signing_of(key) {
            Some(signing) => Body::Signed(Box::new(signing.sign(key, stamp, value))),
            None => value.map_or(Body::Removed, Body::Register),
        }
    }

    /// Who signs and verifies the entries of a key; nobody if they are not signed.
    pub(super) fn signing_of(&self, key: &Key) -> Option<&Signing> {
        self.signing.as_ref().filter(|signing| signing.prefix_of(key).is_some())
    }

    /// How an entry is refused that is not signed where each is, or is where none is.
    pub(super) fn wrongly_signed(&mut self, key: &Key, origin: PeerId, body: &Body) -> Option<Joined> {
        match (self.signing_of(key).is_some(), matches!(body, Body::Signed(_))) {
            (true, false) => Some(self.forged(key, origin)),
            (false, true) => {
                tracing::debug!(%key, ?origin, "entry refused: it is signed, and nothing is under this key");
                self.counters.stray_signatures += 1;
                Some(Joined::Stray)
            }
            _ => None,
        }
    }

    /// Whether the origin of an entry signed it, if it has to.
    pub(super) fn is_by_origin(&self, key: &Key, stamp: Stamp, origin: &PeerId, body: &Body) -> bool {
        match (self.signing_of(key), body) {
            (None, _) => true,
            (Some(signing), Body::Signed(signed)) => signing.is_by(origin, key, stamp, signed),
            (Some(_), _) => false,
        }
    }

    pub(super) fn forged(&mut self, key: &Key, origin: PeerId) -> Joined {
        tracing::debug!(%key, ?origin, "entry refused: its origin did not sign it");
        self.counters.forged += 1;
        Joined::Forged
    }
}
