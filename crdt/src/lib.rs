//! What converges, and how replicas compare and repair.
//!
//! Every node holds a [`replica`]: a map from keys to values, each of a kind that converges: registers, counters and sets. A write changes the replica of the writer at
//! once, travels to the others as a delta in a broadcast, and reaches whoever missed it by repair between neighbors. Equal replicas have
//! equal digests, so that comparing them is cheap and a difference cannot hide.
//!
//! Read in this order:
//!
//! 1. [`hlc`]: the hybrid logical clock that stamps writes, and the bound on stamps of others.
//! 2. [`key`], [`register`], [`signed`], [`value`], [`digest`], `origin`, `store`: the map, what a key can hold, and the sums that name it all.
//! 3. [`wire`]: deltas and the messages of repair.
//! 4. [`sketch`]: what differs between two maps, at a cost that follows the difference.
//! 5. [`replica`]: the core, with its [`config`]; `repair` is its half that talks to neighbors; `floor` says which removals may be forgotten.
//! 6. [`confirm`], [`token`]: how many other replicas hold a write, and waiting for one elsewhere.
//! 7. [`journal`]: the records that make a replica durable, as bytes of files.
//!
//! The package is pure: no clock, no system randomness, no task, no input or output. It knows no socket, tree or view; a neighbor is a
//! peer that the overlay reports, and a broadcast is bytes that somebody carries.

pub mod config;
pub mod confirm;
pub mod digest;
mod floor;
pub mod hlc;
pub mod journal;
pub mod key;
mod origin;
pub mod register;
mod repair;
pub mod replica;
mod reunion;
pub mod signed;
pub mod sketch;
mod store;
pub mod token;
pub mod value;
pub mod wire;

#[cfg(test)]
mod tests;

pub use digest::Digest;
pub use hlc::Stamp;
pub use key::Key;
pub use token::WriteToken;
pub use value::{Kind, Op, Value};
