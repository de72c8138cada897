//! How two peers exchange bytes, and the vocabulary that every other part of Meshwork speaks.
//!
//! Read in this order:
//!
//! 1. [`identity`], [`time`], [`timers`], [`random`]: who, when, and where chance comes from.
//! 2. [`limits`], [`error`], [`codec`], [`frame`]: what may be on the wire, and whose fault it is when something else is.
//! 3. [`channel`], [`agreement`], [`compress`], [`sender`]: named channels, what two peers must agree on, what is sent smaller, and the core that decides which frame to a peer goes next; [`metrics`], [`histogram`]: what is measured of them.
//! 4. [`reliable`]: the core that keeps messages to a peer until the application there took them, across connections.
//! 5. [`dial`]: the core that decides whom to dial, and which of two crossed connections stays.
//! 6. [`token`]: what lets another machine join, as one string.
//! 7. [`link`]: the model of a network link that the simulator uses.
//! 8. [`buggify`]: rare behavior that the simulator can switch on, in a build that has it.
//! 9. `quic` (feature `quic`): the sockets. It is the only module here that performs input and output.
//!
//! Everything but `quic` is pure: no clock, no system randomness, no task, no input or output.

mod address;
pub mod agreement;
pub mod buggify;
pub mod channel;
pub mod codec;
pub mod compress;
pub mod dial;
pub mod error;
pub mod frame;
pub mod governor;
pub mod histogram;
pub mod identity;
pub mod limits;
pub mod link;
pub mod metrics;
#[cfg(feature = "quic")]
pub mod quic;
pub mod random;
pub mod reliable;
pub mod sender;
pub mod time;
pub mod timers;
pub mod token;

pub use channel::{ChannelId, ChannelSpec, Class, Overflow};
pub use codec::{Bounded, decode, encode};
pub use error::{ConfigError, DecodeError, Misbehavior};
pub use identity::{ClusterName, ClusterSecret, PeerId, Signer};
pub use time::{Now, Time, WallTime};
pub use timers::Timers;
pub use token::JoinToken;
