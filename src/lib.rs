//! Become a node of a peer-to-peer cluster, with no server to run.
pub mod node;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "net")]
pub mod runtime;
