//! Become a node of a peer-to-peer cluster, with no server to run.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let node = meshwork::Node::builder("my-cluster").start().await?;
//! node.broadcast("hello").await?;
//! node.state().set("color", "green").await?;
//! node.leave().await;
//! # Ok(())
//! # }
//! ```
//!
//! That node finds others of the same user on the local network by mDNS, or through one address given to [`Builder::join`]; links are encrypted QUIC
//! between keys, and nobody is let in who does not prove to know the secret of the cluster.
//!
//! | module | what |
//! |---|---|
//! | [`node`] | the node as a pure state machine: what can happen to it, what it decides, and how it is configured |
//! | [`app`] | an application of your own as a state machine, which runs over QUIC and in the simulator unchanged |
//! | [`runtime`] | the driver with sockets and clocks, and the [`Node`] handle (feature `net`, on by default) |
//! | [`services`] | config, registry and variables, over the replicated state; `docs/state.md` is the way in |
//! | [`channels`], [`overlay`], [`crdt`] | the parts, for whoever replaces one or drives a node in another way |
//!
//! Without the feature `net` this crate depends on no runtime and touches no socket; the simulator uses it that way.

pub mod app;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod node;
#[cfg(feature = "net")]
pub mod runtime;
pub mod services;

pub use meshwork_channels as channels;
pub use meshwork_crdt as crdt;
pub use meshwork_overlay as overlay;

pub use meshwork_channels::{ChannelId, ChannelSpec, PeerId};
#[cfg(feature = "net")]
pub use runtime::{Builder, ChannelError, Error, Node, StartError, Stopped};

/// Compiles what stands in the documentation.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../docs/state.md")]
struct StatePage;
