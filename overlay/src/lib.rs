//! Whom a node knows, and how a message reaches everyone.
//!
//! Four cores, each a pure state machine (`handle(input, now, actions)`), composed by the one routing loop in [`state`]:
//!
//! | module | core | source |
//! |---|---|---|
//! | [`swim`] | who is in the cluster and who is alive, as data that feeds a [`swim::View`] | SWIM (Das, Gupta, Motivala, DSN 2002) by foca |
//! | [`topology`] | which members are our neighbors: [`hyparview`] or [`mesh`] behind one interface | HyParView (Leitão, Pereira, Rodrigues, DSN 2007) |
//! | [`plumtree`] | how a payload reaches every node over the neighbors | Epidemic Broadcast Trees (the same, SRDS 2007) |
//!
//! The package knows no socket and no address beyond passing them on, and never looks inside a payload. It is generic over the identifier
//! of a peer alone: `PeerId` in a node, `u32` in a simulation of a million nodes.

pub mod few;
pub mod hyparview;
pub mod identifier;
pub mod improvements;
pub mod mesh;
pub mod plumtree;
mod sorted;
pub mod state;
pub mod swim;
mod tally;
pub mod topology;

pub use identifier::Identifier;
pub use plumtree::MessageId;
pub use state::{Action, Input, Message, Params, State};
