//! Become a node of a peer-to-peer cluster, with no server to run.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod node;
#[cfg(feature = "net")]
pub mod runtime;
