//! What an endpoint is made with, and why there is none.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::channel::{ChannelId, Class};
use crate::error::ConfigError;
use crate::governor;
use crate::identity::{ClusterName, ClusterSecret, PeerId};
use crate::limits;
use crate::quic::key::{NodeKey, NodeKeyError};
use crate::sender;

/// What an [`Endpoint`](super::Endpoint) is made with.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The address to listen on; port 0 takes a free one. With an unspecified IPv6 address, IPv4 works too where the system allows it.
    pub listen: SocketAddr,
    /// This node's key.
    pub key: NodeKey,
    /// The cluster to be a node of. It is part of every proof, so equal secrets in two clusters keep them apart.
    pub cluster: ClusterName,
    /// The secrets that admit, at most [`limits::KEYRING_MAX`], the preferred one first. During a rotation two nodes use the first one of
    /// the acceptor's that both have. Without any, everybody is admitted, so only loopback addresses can be listened on.
    pub secrets: Vec<ClusterSecret>,
    /// A number that grows with every start of this node; peers learn it at admission.
    pub incarnation: u64,
    /// Who may come and who is dialed; `None` for everybody who knows the secret.
    pub allow: Option<BTreeSet<PeerId>>,
    /// The channels, and how much of them may wait for one peer.
    pub channels: sender::Params,
    /// The channel that takes what is sent on one that the application defined here and not at the peer; `None` to refuse it.
    pub channel_fallback: Option<ChannelId>,
    /// Events that may wait for the owner. A guess: some milliseconds of a busy node.
    pub events_max: usize,
    /// Bytes of frames and datagrams that may wait for the owner; at least one frame of the largest size. A guess: two send windows.
    pub event_bytes_max: usize,
    /// The second connection to a peer, for bulk, is closed after this time without anything to send. Shorter costs handshakes, longer memory.
    pub bulk_idle: Duration,
    /// A peer that did not take the second connection is asked again after this time. A guess.
    pub bulk_retry: Duration,
    /// How much bulk may be in flight to one peer.
    pub governor: governor::Params,
    /// The moment that is [`Time::ZERO`](crate::Time::ZERO).
    pub origin: Instant,
}

impl EndpointConfig {
    /// A node of a cluster, without secrets, with the built-in channels, and a clock that starts now.
    pub fn new(listen: SocketAddr, key: NodeKey, cluster: ClusterName) -> Self {
        EndpointConfig {
            listen,
            key,
            cluster,
            secrets: Vec::new(),
            incarnation: 0,
            allow: None,
            channels: sender::Params::default(),
            channel_fallback: None,
            events_max: 4_096,
            event_bytes_max: 16 * 1_024 * 1_024,
            bulk_idle: limits::BULK_IDLE,
            bulk_retry: limits::BULK_RETRY,
            governor: governor::Params::default(),
            origin: Instant::now(),
        }
    }

    pub(super) fn check(&self) -> Result<(), BindError> {
        if self.secrets.is_empty() && !self.listen.ip().to_canonical().is_loopback() {
            return Err(BindError::NoSecret { listen: self.listen });
        }
        if self.secrets.len() > limits::KEYRING_MAX {
            let limit = format!("at most {}", limits::KEYRING_MAX);
            return Err(ConfigError::new("secrets", format_args!("{} secrets", self.secrets.len()), limit).into());
        }
        if self.events_max == 0 {
            return Err(ConfigError::new("events_max", 0, "at least 1").into());
        }
        if let Some(channel) = self.channel_fallback
            && (channel.is_defined() || self.channels.channel(channel).is_none_or(|spec| spec.class == Class::Control))
        {
            return Err(ConfigError::new("channel_fallback", channel, "a channel that every node has, and not that of control").into());
        }
        // The upper bound is what the queue below can count.
        let bytes = limits::FRAME_BYTES_MAX..=u32::MAX as usize;
        if !bytes.contains(&self.event_bytes_max) {
            let limit = format!("{} to {}", bytes.start(), bytes.end());
            return Err(ConfigError::new("event_bytes_max", self.event_bytes_max, limit).into());
        }
        Ok(())
    }
}

/// Why there is no endpoint. Nothing was started.
#[derive(Debug)]
pub enum BindError {
    /// Everybody who reaches that address could join.
    NoSecret {
        /// The address that is more than a loopback address.
        listen: SocketAddr,
    },
    /// A value cannot work.
    Config(ConfigError),
    /// The key cannot be used.
    Key(NodeKeyError),
    /// The system does not give us the socket.
    Socket {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// There is no tokio runtime around the call.
    NoRuntime,
}

impl From<ConfigError> for BindError {
    fn from(error: ConfigError) -> Self {
        BindError::Config(error)
    }
}

impl From<NodeKeyError> for BindError {
    fn from(error: NodeKeyError) -> Self {
        BindError::Key(error)
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::NoSecret { listen } => write!(
                f,
                "listening on {listen} without a cluster secret would let anybody who reaches that address join; \
                 give a secret or a join token, or listen on a loopback address such as 127.0.0.1:0"
            ),
            BindError::Config(error) => error.fmt(f),
            BindError::Key(error) => error.fmt(f),
            BindError::Socket { listen, error } => write!(f, "no UDP socket at {listen}: {error}"),
            BindError::NoRuntime => f.write_str("an endpoint needs a tokio runtime: bind it inside one"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BindError::Config(error) => Some(error),
            BindError::Key(error) => Some(error),
            BindError::Socket { error, .. } => Some(error),
            BindError::NoSecret { .. } | BindError::NoRuntime => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> EndpointConfig {
        EndpointConfig::new(listen.parse().unwrap(), NodeKey::generate().unwrap(), "test".parse().unwrap())
    }

    #[test]
    fn without_a_secret_only_loopback() {
        for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7000"] {
            let error = config(listen).check().unwrap_err();
            assert!(matches!(error, BindError::NoSecret { .. }));
            assert!(error.to_string().contains("join token"), "{error}");
            let secrets = vec![ClusterSecret::from_bytes([1; 32])];
            assert!(EndpointConfig { secrets, ..config(listen) }.check().is_ok());
        }
        for listen in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(config(listen).check().is_ok(), "{listen}");
        }
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let refused = |config: EndpointConfig| match config.check() {
            Err(BindError::Config(error)) => error.field,
            other => panic!("{other:?}"),
        };
        let config = config("127.0.0.1:0");
        assert_eq!(refused(EndpointConfig { events_max: 0, ..config.clone() }), "events_max");
        assert_eq!(refused(EndpointConfig { event_bytes_max: 1_024, ..config.clone() }), "event_bytes_max");
        let secrets = vec![ClusterSecret::from_bytes([1; 32]); limits::KEYRING_MAX + 1];
        assert_eq!(refused(EndpointConfig { secrets, ..config }), "secrets");
    }
}
