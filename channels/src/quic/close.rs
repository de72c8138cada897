//! Why connections end, and why some never begin.

use std::fmt;

use quinn::{ConnectionError, VarInt};

use super::admission::Versions;
use super::tls::alert;
use crate::dial::{self, DialFailure};
use crate::error::Misbehavior;
use crate::identity::PeerId;

/// What a node says when it closes a connection. The numbers are on the wire and only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseCode {
    /// The node leaves the cluster for good.
    Leaving,
    /// The node or its program stops, and may come back.
    Shutdown,
    /// There is another connection between the two, and that one stays.
    Duplicate,
    /// Nobody needed the connection any more.
    Idle,
    /// The other side did not prove that it belongs to the cluster.
    NotAdmitted,
    /// The key of the other side is not on the list of those who may come.
    NotAllowed,
    /// The two sides have no version in common.
    Incompatible,
    /// The other side sent bytes that are not a message.
    Undecodable,
    /// The other side broke a rule of a protocol.
    Misbehaved,
    /// The other side took too long to read, or to answer.
    TooSlow,
    /// A queue overflowed whose frames cannot be lost one by one.
    Overflow,
    /// There are as many connections as there may be.
    Full,
    /// The other connection between the two broke, and with it what it carried.
    Broken,
}

impl CloseCode {
    /// All codes in the order of their numbers.
    pub const ALL: [CloseCode; 13] = [
        CloseCode::Leaving,
        CloseCode::Shutdown,
        CloseCode::Duplicate,
        CloseCode::Idle,
        CloseCode::NotAdmitted,
        CloseCode::NotAllowed,
        CloseCode::Incompatible,
        CloseCode::Undecodable,
        CloseCode::Misbehaved,
        CloseCode::TooSlow,
        CloseCode::Overflow,
        CloseCode::Full,
        CloseCode::Broken,
    ];

    /// The application error code on the wire. Zero is left to QUIC stacks that close without a reason.
    pub const fn number(self) -> u32 {
        self as u32 + 1
    }

    /// The code with this number, if this version knows it.
    pub fn from_number(number: u64) -> Option<Self> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        Self::ALL.get(index).copied()
    }

    /// A short stable name for counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            CloseCode::Leaving => "leaving",
            CloseCode::Shutdown => "shutdown",
            CloseCode::Duplicate => "duplicate",
            CloseCode::Idle => "idle",
            CloseCode::NotAdmitted => "not_admitted",
            CloseCode::NotAllowed => "not_allowed",
            CloseCode::Incompatible => "incompatible",
            CloseCode::Undecodable => "undecodable",
            CloseCode::Misbehaved => "misbehaved",
            CloseCode::TooSlow => "too_slow",
            CloseCode::Overflow => "overflow",
            CloseCode::Full => "full",
            CloseCode::Broken => "broken",
        }
    }

    /// The code for what the core of connections decided.
    pub fn of(reason: dial::CloseReason) -> Self {
        match reason {
            dial::CloseReason::Replaced | dial::CloseReason::Restarted | dial::CloseReason::Outdated | dial::CloseReason::Myself => {
                CloseCode::Duplicate
            }
        }
    }

    pub(super) fn var_int(self) -> VarInt {
        VarInt::from_u32(self.number())
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Codes with which a reader stops a stream that it does not want. The connection goes on.
pub(super) mod stop {
    use quinn::VarInt;

    /// The reader has no such channel.
    pub(crate) const UNKNOWN_CHANNEL: VarInt = VarInt::from_u32(1);
    /// The channel has a stream already.
    pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(2);
}

/// Why an admitted connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// We closed it, with this code.
    Ours(CloseCode),
    /// The peer closed it, with this code.
    Theirs(CloseCode),
    /// The peer closed it with a number that this version does not know.
    TheirsUnknown(u64),
    /// We closed it because the peer broke this rule.
    Misbehaved(Misbehavior),
    /// Nothing came from the peer for [`limits::IDLE_TIMEOUT`](crate::limits::IDLE_TIMEOUT).
    Silent,
    /// The peer's node does not know the connection: it restarted.
    Reset,
    /// One of the two QUIC stacks gave up, with this transport error code (RFC 9000, section 20.1).
    Transport(u64),
}

impl CloseReason {
    /// A short stable name for counters and logs.
    pub fn name(&self) -> &'static str {
        match self {
            CloseReason::Ours(code) | CloseReason::Theirs(code) => code.name(),
            CloseReason::TheirsUnknown(_) => "unknown",
            CloseReason::Misbehaved(_) => "misbehaved",
            CloseReason::Silent => "silent",
            CloseReason::Reset => "reset",
            CloseReason::Transport(_) => "transport",
        }
    }

    /// `ours` is the reason that this side gave, when it closed.
    pub(super) fn of(error: &ConnectionError, ours: Option<CloseReason>) -> Self {
        match error {
            ConnectionError::LocallyClosed => ours.unwrap_or(CloseReason::Ours(CloseCode::Shutdown)),
            ConnectionError::ApplicationClosed(closed) => {
                let number = closed.error_code.into_inner();
                CloseCode::from_number(number).map_or(CloseReason::TheirsUnknown(number), CloseReason::Theirs)
            }
            ConnectionError::TimedOut => CloseReason::Silent,
            ConnectionError::Reset => CloseReason::Reset,
            ConnectionError::ConnectionClosed(closed) => CloseReason::Transport(closed.error_code.into()),
            ConnectionError::TransportError(error) => CloseReason::Transport(error.code.into()),
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => CloseReason::Transport(0),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Ours(code) => write!(f, "we closed it: {code}"),
            CloseReason::Theirs(code) => write!(f, "the peer closed it: {code}"),
            CloseReason::TheirsUnknown(number) => write!(f, "the peer closed it: code {number}"),
            CloseReason::Misbehaved(what) => write!(f, "the peer broke a rule: {what}"),
            CloseReason::Silent => f.write_str("the peer fell silent"),
            CloseReason::Reset => f.write_str("the peer restarted"),
            CloseReason::Transport(code) => write!(f, "QUIC transport error {code:#x}"),
        }
    }
}

/// Why an inbound connection was turned away, one variant for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There are as many handshakes or connections as there may be.
    Busy,
    /// It spoke of another cluster, or of this one with another secret.
    WrongCluster,
    /// It has no key.
    NoKey,
    /// It offered a certificate where a raw public key belongs, or shares no algorithm with us.
    NoRawKey,
    /// Its key is not an ed25519 key in its one encoding, or it does not hold the private half.
    BadKey,
    /// The handshake failed for another reason.
    Handshake,
    /// It did not want us: it expected another node, or none of our algorithms.
    Unwanted,
    /// The handshake or the admission took too long.
    TimedOut,
    /// It went away before the admission was over.
    GaveUp,
    /// Its proof is not one of this connection and one of our secrets.
    BadProof,
    /// It has no version in common with us.
    Incompatible,
    /// What it sent for its admission is no such thing.
    Undecodable,
    /// Its key is not on the list of those who may come.
    NotAllowed,
    /// It is this very node.
    Myself,
}

impl Refusal {
    /// All reasons.
    pub const ALL: [Refusal; 14] = [
        Refusal::Busy,
        Refusal::WrongCluster,
        Refusal::NoKey,
        Refusal::NoRawKey,
        Refusal::BadKey,
        Refusal::Handshake,
        Refusal::Unwanted,
        Refusal::TimedOut,
        Refusal::GaveUp,
        Refusal::BadProof,
        Refusal::Incompatible,
        Refusal::Undecodable,
        Refusal::NotAllowed,
        Refusal::Myself,
    ];

    /// A short stable name for counters and logs.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Busy => "busy",
            Refusal::WrongCluster => "wrong_cluster",
            Refusal::NoKey => "no_key",
            Refusal::NoRawKey => "no_raw_key",
            Refusal::BadKey => "bad_key",
            Refusal::Handshake => "handshake",
            Refusal::Unwanted => "unwanted",
            Refusal::TimedOut => "timed_out",
            Refusal::GaveUp => "gave_up",
            Refusal::BadProof => "bad_proof",
            Refusal::Incompatible => "incompatible",
            Refusal::Undecodable => "undecodable",
            Refusal::NotAllowed => "not_allowed",
            Refusal::Myself => "myself",
        }
    }

    /// What a handshake that failed on the accepting side means.
    pub(super) fn of_handshake(error: &ConnectionError) -> Self {
        match error {
            // Our own TLS refused what the dialer sent.
            ConnectionError::TransportError(error) => match tls_alert(error.code.into()) {
                Some(alert::NO_APPLICATION_PROTOCOL) => Refusal::WrongCluster,
                Some(alert::CERTIFICATE_REQUIRED) => Refusal::NoKey,
                Some(alert::HANDSHAKE_FAILURE) => Refusal::NoRawKey,
                Some(alert::BAD_CERTIFICATE | alert::UNSUPPORTED_CERTIFICATE | alert::DECRYPT_ERROR) => Refusal::BadKey,
                _ => Refusal::Handshake,
            },
            ConnectionError::ConnectionClosed(closed) => match tls_alert(closed.error_code.into()) {
                Some(_) => Refusal::Unwanted,
                None => Refusal::GaveUp,
            },
            ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => Refusal::GaveUp,
            ConnectionError::TimedOut => Refusal::TimedOut,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted | ConnectionError::LocallyClosed => Refusal::Handshake,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Nothing answered in time.
    TimedOut,
    /// No node can be behind such an address, or this socket cannot reach it.
    Unreachable,
    /// The peer, or this endpoint, has no room for one more connection.
    Full,
    /// The handshake failed.
    Handshake,
    /// A node of another cluster answered, or one of this cluster with another secret.
    WrongCluster,
    /// Another node answered than the one that was expected. It did not learn who dialed.
    NotExpected {
        /// Who answered.
        found: PeerId,
    },
    /// We reached ourselves.
    Myself,
    /// One side did not accept the proof of the other.
    NotAdmitted,
    /// The key of one side is not on the list of the other.
    NotAllowed,
    /// The two sides have no version in common.
    Incompatible {
        /// What we speak.
        ours: Versions,
        /// What the peer speaks, if it was the one who had to say.
        theirs: Option<Versions>,
    },
    /// What the peer sent for its admission is no such thing.
    Undecodable,
    /// The peer closed the connection before the admission was over.
    Closed,
    /// This endpoint is shutting down.
    Stopped,
}

impl DialError {
    /// What the core that decides about the next dial has to know.
    pub fn failure(self) -> DialFailure {
        match self {
            DialError::TimedOut => DialFailure::TimedOut,
            DialError::Unreachable | DialError::Full => DialFailure::Refused,
            DialError::Handshake | DialError::Undecodable | DialError::Closed | DialError::Stopped => DialFailure::Broken,
            DialError::WrongCluster => DialFailure::WrongCluster,
            DialError::NotExpected { .. } => DialFailure::NotExpected,
            DialError::Myself => DialFailure::Myself,
            DialError::NotAdmitted | DialError::NotAllowed | DialError::Incompatible { .. } => DialFailure::NotAdmitted,
        }
    }

    /// What a connection that was lost during a dial means.
    pub(super) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(closed) => match CloseCode::from_number(closed.error_code.into_inner()) {
                Some(CloseCode::NotAdmitted) => DialError::NotAdmitted,
                Some(CloseCode::NotAllowed) => DialError::NotAllowed,
                Some(CloseCode::Incompatible) => DialError::Incompatible { ours: Versions::OURS, theirs: None },
                Some(CloseCode::Full) => DialError::Full,
                Some(CloseCode::TooSlow) => DialError::TimedOut,
                _ => DialError::Closed,
            },
            ConnectionError::ConnectionClosed(closed) => Self::of_transport(closed.error_code.into()),
            ConnectionError::TransportError(error) => Self::of_transport(error.code.into()),
            ConnectionError::TimedOut => DialError::TimedOut,
            ConnectionError::LocallyClosed => DialError::Stopped,
            ConnectionError::Reset => DialError::Closed,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => DialError::Handshake,
        }
    }

    fn of_transport(code: u64) -> Self {
        const CONNECTION_REFUSED: u64 = 2;
        match tls_alert(code) {
            Some(alert::NO_APPLICATION_PROTOCOL) => DialError::WrongCluster,
            None if code == CONNECTION_REFUSED => DialError::Full,
            _ => DialError::Handshake,
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DialError::TimedOut => f.write_str("nothing answered in time"),
            DialError::Unreachable => f.write_str("no node can be reached at such an address"),
            DialError::Full => f.write_str("there is no room for one more connection"),
            DialError::Handshake => f.write_str("the handshake failed"),
            DialError::WrongCluster => f.write_str("a node of another cluster answered, or one with another secret"),
            DialError::NotExpected { found } => write!(f, "another node answered: {found}"),
            DialError::Myself => f.write_str("the address is our own"),
            DialError::NotAdmitted => f.write_str("the proof of membership was not accepted"),
            DialError::NotAllowed => f.write_str("the node is not on the list of those who may come"),
            DialError::Incompatible { ours, theirs: Some(theirs) } => write!(f, "we speak versions {ours}, the peer {theirs}"),
            DialError::Incompatible { ours, theirs: None } => write!(f, "we speak versions {ours}, the peer none of them"),
            DialError::Undecodable => f.write_str("the peer's answer is no answer"),
            DialError::Closed => f.write_str("the peer closed the connection"),
            DialError::Stopped => f.write_str("this endpoint is shutting down"),
        }
    }
}

impl std::error::Error for DialError {}

/// The TLS alert in a QUIC transport error code (RFC 9001, section 4.8).
fn tls_alert(code: u64) -> Option<u8> {
    (0x100..0x200).contains(&code).then_some(code as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_stable_numbers() {
        for (index, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, index + 1);
            assert_eq!(CloseCode::from_number(u64::from(code.number())), Some(code));
        }
        for unknown in [0, 14, u64::from(u32::MAX) + 2, u64::MAX] {
            assert_eq!(CloseCode::from_number(unknown), None);
        }
        assert_eq!((CloseCode::Leaving.number(), CloseCode::Full.number()), (1, 12));
    }

    #[test]
    fn all_refusals_are_listed_once() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
