//! What foca calls an identity: one run of one peer at one address.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::identifier::Identifier;

/// One run of a peer. Foca keeps one identity for each peer, the one with the highest generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity<I> {
    pub(super) peer: I,
    pub(super) generation: u64,
    pub(super) address: SocketAddr,
}

impl<I: Identifier> foca::Identity for Identity<I> {
    type Addr = I;

    /// Foca is not asked to renew: the node bounds how often it does, and must be able to skip generations.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> I {
        self.peer
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.generation, self.address) > (adversary.generation, adversary.address)
    }
}

/// The address as it travels: an IPv6 scope and flow label have a meaning on one host only, and would make two spellings of one identity.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Whether a peer could be reached at the address at all.
pub(super) fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}
