//! What the overlay asks of the name of a peer.

use std::fmt::Debug;

/// The name of a peer: small, copied freely, totally ordered. `PeerId` in a node, `u32` in a simulation of a million.
pub trait Identifier: Copy + Ord + Debug + 'static {}

impl<T: Copy + Ord + Debug + 'static> Identifier for T {}
