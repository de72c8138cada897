//! What people write to configure a node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use meshwork_channels::buggify::Buggify;
use meshwork_channels::{ChannelId, Signer, dial, reliable, sender};
use meshwork_overlay::{hyparview, mesh, plumtree, swim, topology};
use serde::{Deserialize, Serialize};

use super::{guaranteed, links};

/// The configuration of a node. Every field has a default that suits a local network; [`Config::build`] checks all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which overlay. All nodes of a cluster use the same. Default: HyParView.
    pub topology: Kind,
    /// Partial views, when `topology` is `hyparview`.
    pub hyparview: hyparview::Config,
    /// Full mesh, when `topology` is `mesh`.
    pub mesh: mesh::Config,
    /// How broadcasts travel.
    pub broadcast: plumtree::Config,
    /// Who is in the cluster and who is alive.
    pub membership: swim::Config,
    /// The replicated state.
    pub state: meshwork_crdt::config::Config,
    /// The services over the replicated state.
    pub services: crate::services::Config,
    /// Connections.
    pub links: Links,
}

/// A kind of overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A handful of neighbors, whatever the size of the cluster.
    #[default]
    Hyparview,
    /// Everybody is everybody's neighbor; for up to some tens of nodes.
    Mesh,
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        match text {
            "hyparview" => Ok(Kind::Hyparview),
            "mesh" => Ok(Kind::Mesh),
            _ => Err(UnknownKind),
        }
    }
}

/// The text names no kind of overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind;

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a topology is `hyparview` or `mesh`")
    }
}

impl std::error::Error for UnknownKind {}

/// The configuration of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Connections beyond those to neighbors that are kept open, for membership probes and direct messages. Raising it saves handshakes
    /// (about 1 ms of CPU each), lowering it saves about 40 KiB each. Default 64 (the lower end of what the study of SWIM over QUIC
    /// recommends).
    pub light_max: usize,
    /// A connection to a peer that is no neighbor is closed after this many seconds without use. Default 60 (the same study).
    pub light_idle_s: u64,
    /// Frames that wait for a peer while it is being dialed; further ones are dropped and counted. Default 1,024 (guess).
    pub waiting_frames_max: usize,
}

impl Default for Links {
    fn default() -> Self {
        Links { light_max: 64, light_idle_s: 60, waiting_frames_max: 1_024 }
    }
}

/// Checked parameters, ready for [`Node::new`](super::Node::new).
#[derive(Clone, Debug)]
pub struct Params {
    /// Of the overlay.
    pub overlay: meshwork_overlay::Params,
    /// Of the replicated state.
    pub state: meshwork_crdt::config::Params,
    /// Of the services over it.
    pub services: crate::services::Params,
    /// Of the connections.
    pub links: links::Params,
    /// The channels that the application defined, beside the built-in ones; see [`Params::with_channels`].
    pub channels: Arc<[ChannelId]>,
    /// The channels with messages that are kept until they were taken, built-in ones and defined ones.
    pub guaranteed: reliable::Params,
}

impl Params {
    /// With these channels of the application, which both the driver and the node must know.
    pub fn with_channels(self, channels: &sender::Params) -> Self {
        let defined = || channels.channels().iter().filter(|spec| spec.id.is_defined());
        Params { channels: defined().map(|spec| spec.id).collect(), guaranteed: guaranteed::params(defined()), ..self }
    }
}

impl Params {
    /// With rare behavior of all parts, for the simulator.
    pub fn with_buggify(mut self, buggify: &Buggify) -> Self {
        self.overlay.plumtree = self.overlay.plumtree.with_buggify(buggify.clone());
        self.overlay.topology = match self.overlay.topology {
            topology::Params::Hyparview(params) => topology::Params::Hyparview(params.with_buggify(buggify.clone())),
            mesh => mesh,
        };
        self.state = self.state.with_buggify(buggify.clone());
        self
    }
}

/// A value that cannot be used, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, as it is written in a configuration file.
    pub field: String,
    /// What is wrong with it, with the value and the limit.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Checks every field, and the fields against each other, for a node that signs nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the name of the first field that cannot be used. Nothing is cut to size in silence.
    pub fn build(self) -> Result<Params, ConfigError> {
        self.with_state(meshwork_crdt::config::Config::build)
    }

    /// The same for a node that signs what it writes where that is asked for, by its key and in this cluster: see
    /// [`build_signed`](meshwork_crdt::config::Config::build_signed) of the state.
    ///
    /// # Errors
    ///
    /// As [`Config::build`].
    pub fn build_signed(self, signer: Arc<dyn Signer>, cluster: [u8; 32]) -> Result<Params, ConfigError> {
        self.with_state(|state| state.build_signed(signer, cluster))
    }

    /// Checks the same before there is a key.
    ///
    /// # Errors
    ///
    /// As [`Config::build`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let checked = |mut state: meshwork_crdt::config::Config| {
            state.check()?;
            state.signed.clear();
            state.build()
        };
        self.clone().with_state(checked).map(drop)
    }

    fn with_state(
        self,
        state: impl FnOnce(meshwork_crdt::config::Config) -> Result<meshwork_crdt::config::Params, meshwork_channels::ConfigError>,
    ) -> Result<Params, ConfigError> {
        let within =
            |table: &'static str| move |error: &dyn fmt::Display| ConfigError { field: table.to_owned(), problem: error.to_string() };
        let topology = match self.topology {
            Kind::Hyparview => topology::Params::Hyparview(self.hyparview.build().map_err(|error| within("hyparview")(&error))?),
            Kind::Mesh => topology::Params::Mesh(self.mesh.build().map_err(|error| within("mesh")(&error))?),
        };
        if self.links.light_idle_s == 0 {
            return Err(ConfigError {
                field: "links.light_idle_s".into(),
                problem: "0 would close every connection at once; at least 1".into(),
            });
        }
        Ok(Params {
            overlay: meshwork_overlay::Params {
                topology,
                plumtree: self.broadcast.build().map_err(|error| within("broadcast")(&error))?,
                membership: self.membership.build().map_err(|error| within("membership")(&error))?,
            },
            state: state(self.state).map_err(|error| within("state")(&error))?,
            services: self.services.build().map_err(|error| within("services")(&error))?,
            links: links::Params {
                dial: dial_params()?,
                book_max: 16_384,
                waiting_peers_max: 1_024,
                waiting_frames_max: self.links.waiting_frames_max,
                waiting_bytes_max: 4 * 1_024 * 1_024,
                light_max: self.links.light_max,
                light_idle: Duration::from_secs(self.links.light_idle_s),
            },
            channels: Arc::default(),
            guaranteed: guaranteed::params([]),
        })
    }
}

/// How eagerly a node dials.
fn dial_params() -> Result<dial::Params, ConfigError> {
    // Membership and topology try others when one does not answer: waiting through many tries for a dead peer would cost more than it finds.
    let config = dial::Config { tries_max: 2, per_second: 200, burst: 400, in_flight_max: 256, ..dial::Config::default() };
    config.build().map_err(|error| ConfigError { field: "links".into(), problem: error.to_string() })
}
