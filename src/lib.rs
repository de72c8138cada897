//! Become a node of a peer-to-peer cluster, with no server to run.
pub mod node;
