//! Errors by blame: what a peer did wrong, and what bytes were not.
//!
//! Errors of the caller stand with the verb that returns them, errors of the world with the module that touches the world.

use std::fmt;

/// Bytes that are not a message. The connection that carried them is closed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DecodeError {
    /// The bytes end in the middle of a value.
    Truncated,
    /// Bytes follow the value.
    Trailing,
    /// A length is above its limit; nothing was allocated for it.
    TooLong,
    /// A value is not one of those that are allowed, or is not written in its one canonical way.
    Invalid,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Truncated => "the bytes end in the middle of a value",
            DecodeError::Trailing => "bytes follow the value",
            DecodeError::TooLong => "a length is above its limit",
            DecodeError::Invalid => "a value is not an allowed one",
        })
    }
}

impl std::error::Error for DecodeError {}

/// A configured value that cannot work. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The name of the field.
    pub field: &'static str,
    /// What it held.
    pub value: String,
    /// What it must hold, in words that follow "must be".
    pub limit: String,
}

impl ConfigError {
    /// The error for a field, its value and its limit.
    pub fn new(field: &'static str, value: impl fmt::Display, limit: impl fmt::Display) -> Self {
        ConfigError { field, value: value.to_string(), limit: limit.to_string() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}; it must be {}", self.field, self.value, self.limit)
    }
}

impl std::error::Error for ConfigError {}

/// A rule that a peer broke, one variant for each rule. It is counted by variant; some end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misbehavior {
    /// It sent bytes that are not a message.
    Undecodable(DecodeError),
    /// It sent a message that belongs to another kind of overlay than the one in use.
    WrongTopology,
    /// It named itself, or us, where another peer belongs.
    OwnName,
    /// It sent a list with more entries than the protocol allows.
    TooMany,
    /// It asked for payloads faster than its share.
    TooManyRequests,
    /// It sent a replicated stamp too far ahead of our clock.
    StampAhead,
    /// It sent, acknowledged or asked for a message under a sequence number that cannot have been reached.
    SequenceAhead,
    /// It sent a frame on a channel where that frame does not belong.
    WrongChannel,
    /// It answered a request that was never made.
    Unasked,
    /// It spoke in the name of another peer.
    Impersonation,
    /// It named an address that nobody can be reached at.
    BadAddress,
    /// It named a generation too far ahead of the known one.
    GenerationAhead,
    /// It took back an acknowledgment.
    SequenceBehind,
    /// It sent an entry that its origin did not sign, under a key where each is signed.
    ForgedOrigin,
    /// It sent a signed entry under a key where none is signed: the two nodes are configured differently.
    StraySignature,
}

impl Misbehavior {
    /// A short stable name for counters and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Misbehavior::Undecodable(_) => "undecodable",
            Misbehavior::WrongTopology => "wrong_topology",
            Misbehavior::OwnName => "own_name",
            Misbehavior::TooMany => "too_many",
            Misbehavior::TooManyRequests => "too_many_requests",
            Misbehavior::StampAhead => "stamp_ahead",
            Misbehavior::SequenceAhead => "sequence_ahead",
            Misbehavior::WrongChannel => "wrong_channel",
            Misbehavior::Unasked => "unasked",
            Misbehavior::Impersonation => "impersonation",
            Misbehavior::BadAddress => "bad_address",
            Misbehavior::GenerationAhead => "generation_ahead",
            Misbehavior::SequenceBehind => "sequence_behind",
            Misbehavior::ForgedOrigin => "forged_origin",
            Misbehavior::StraySignature => "stray_signature",
        }
    }

    /// Whether the connection ends at once. The other rules are counted, and cost the sender only its message.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Misbehavior::Undecodable(_) | Misbehavior::WrongChannel)
    }
}

impl fmt::Display for Misbehavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misbehavior::Undecodable(error) => write!(f, "undecodable bytes: {error}"),
            other => f.write_str(other.name()),
        }
    }
}
