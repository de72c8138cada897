//! What people use of the replicated state under names of its own: each service is a pure core over the replica.
//!
//! A service keeps no copy of what is replicated. Its reading verbs look into the replica; its writing verbs look into it too and return the
//! [`Write`]s that they want, which the node makes together or not at all; and of every entry that changed, by a write here or elsewhere, the
//! service is told, so that it can tell the application what that means.

pub mod config;
pub mod registry;
pub mod variables;

use bytes::Bytes;
use meshwork_crdt::{Key, Op};

/// A write that a service wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key. It begins with the name of the space of the service, such as `@config/`, which applications cannot write to by themselves.
    pub key: Key,
    /// What to do to it.
    pub op: Op,
}

impl Write {
    /// A register in which the last writer wins.
    pub(crate) fn set(key: Key, value: impl Into<Bytes>) -> Self {
        Write { key, op: Op::Set(value.into()) }
    }

    /// A register that keeps what is written at the same time.
    pub(crate) fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Write { key, op: Op::Put(value.into()) }
    }

    /// The end of a key.
    pub(crate) fn remove(key: Key) -> Self {
        Write { key, op: Op::Remove }
    }
}
