//! Placeholder, replaced below.
pub mod node;
