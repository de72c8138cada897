//! What is written of one instance, under which key, and what is refused.
//!
//! The key is `@registry/<namespace>/<name>/<node>/<instance>`. The value is a byte with the version, 1, and the rest in postcard, with its
//! lists in ascending order, so that equal details have equal bytes. Whatever a node wrote that is not exactly this is kept out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use meshwork_channels::codec::encode_into;
use meshwork_channels::{Bounded, DecodeError, PeerId, decode};
use meshwork_crdt::Key;
use serde::{Deserialize, Serialize};

use super::PREFIX;
use super::limits::*;

/// The first byte of a value.
const VERSION: u8 = 1;

/// Which instance: several nodes may offer one service, and one node may offer it several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The namespace, 1 to [`NAMESPACE_BYTES_MAX`] bytes without `/` and control characters.
    pub namespace: String,
    /// The name of the service, 1 to [`NAME_BYTES_MAX`] bytes, likewise.
    pub name: String,
    /// The node that registered it, the only one that may write it.
    pub node: PeerId,
    /// Which of the instances of that node, 1 to [`INSTANCE_BYTES_MAX`] bytes, likewise.
    pub instance: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.namespace, self.name, self.node, self.instance)
    }
}

impl Id {
    /// Where the instance is in the replica.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a part is empty, too long or has a character that it may not have.
    pub fn key(&self) -> Result<Key, Invalid> {
        check_segments(&self.namespace, &self.name, &self.instance)?;
        Ok(Key::try_from(&*format!("{PREFIX}{self}")).expect("the prefix is not empty, and the limits add up to less than a key"))
    }
}

/// The parts of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) node: PeerId,
    pub(super) instance: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` when the key is not one that [`Id::key`] makes.
    pub(super) fn of(key: &'a str) -> Option<Self> {
        let mut segments = key.strip_prefix(PREFIX)?.split('/');
        let (namespace, name, node, instance) = (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
        // Base32 may be read in either case; two keys for one instance would be two instances.
        let is_canonical = segments.next().is_none() && !node.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_canonical || check_segments(namespace, name, instance).is_err() {
            return None;
        }
        Some(Parts { namespace, name, node: node.parse().ok()?, instance })
    }

    pub(super) fn id(&self) -> Id {
        Id { namespace: self.namespace.into(), name: self.name.into(), node: self.node, instance: self.instance.into() }
    }
}

/// How an instance is. New kinds are added at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Fit to be used.
    #[default]
    Healthy,
    /// Nobody knows.
    Unknown,
    /// Works, but others are better.
    Degraded,
    /// Not to be used.
    Unhealthy,
}

/// What is known of an instance beside its [`Id`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What kind of service it is, up to [`SERVICE_TYPE_BYTES_MAX`] bytes.
    pub service_type: Option<String>,
    /// What it can do: up to [`CAPABILITIES_MAX`] names of up to [`CAPABILITY_BYTES_MAX`] bytes.
    pub capabilities: BTreeSet<String>,
    /// Anything else: up to [`METADATA_MAX`] pairs of up to [`METADATA_KEY_BYTES_MAX`] and [`METADATA_VALUE_BYTES_MAX`] bytes.
    pub metadata: BTreeMap<String, String>,
    /// Where it is, up to [`ZONE_BYTES_MAX`] bytes. When it is registered without one, it gets that of its node.
    pub zone: Option<String>,
    /// Its share of the requests beside the other instances: 1 to [`WEIGHT_MAX`].
    pub weight: u16,
    /// How it is, as its node says.
    pub health: Health,
    /// Where it can be reached by other means than its node, up to [`ADDRESS_BYTES_MAX`] bytes. Nobody looks into it.
    pub address: Option<String>,
}

impl Default for Details {
    fn default() -> Self {
        Details {
            service_type: None,
            capabilities: BTreeSet::new(),
            metadata: BTreeMap::new(),
            zone: None,
            weight: 1,
            health: Health::default(),
            address: None,
        }
    }
}

/// The value behind the byte with the version.
#[derive(Serialize, Deserialize)]
struct Wire {
    service_type: Option<String>,
    capabilities: Bounded<String, CAPABILITIES_MAX>,
    metadata: Bounded<(String, String), METADATA_MAX>,
    zone: Option<String>,
    weight: u16,
    health: Health,
    address: Option<String>,
}

impl Details {
    /// The value, if everything is within its limits.
    pub(super) fn to_value(&self) -> Result<Bytes, Invalid> {
        self.check()?;
        let wire = Wire {
            service_type: self.service_type.clone(),
            capabilities: Bounded::first_of(self.capabilities.iter().cloned()),
            metadata: Bounded::first_of(self.metadata.iter().map(|(key, value)| (key.clone(), value.clone()))),
            zone: self.zone.clone(),
            weight: self.weight,
            health: self.health,
            address: self.address.clone(),
        };
        let mut bytes = vec![VERSION];
        encode_into(&wire, &mut bytes);
        within("details", bytes.len(), DETAILS_BYTES_MAX)?;
        Ok(bytes.into())
    }

    /// Reads a value that anybody may have written.
    pub(super) fn from_value(value: &[u8]) -> Result<Self, Unreadable> {
        let invalid = |error| Unreadable::Invalid(Invalid::Undecodable(error));
        let bytes = match value {
            [VERSION, bytes @ ..] => bytes,
            [version, ..] => return Err(Unreadable::Version(*version)),
            [] => return Err(invalid(DecodeError::Truncated)),
        };
        within("details", value.len(), DETAILS_BYTES_MAX).map_err(Unreadable::Invalid)?;
        let wire: Wire = decode(bytes).map_err(invalid)?;
        let is_ascending = wire.capabilities.is_sorted_by(|a, b| a < b) && wire.metadata.is_sorted_by(|(a, _), (b, _)| a < b);
        if !is_ascending {
            return Err(invalid(DecodeError::Invalid));
        }
        let details = Details {
            service_type: wire.service_type,
            capabilities: wire.capabilities.into_iter().collect(),
            metadata: wire.metadata.into_iter().collect(),
            zone: wire.zone,
            weight: wire.weight,
            health: wire.health,
            address: wire.address,
        };
        details.check().map_err(Unreadable::Invalid)?;
        Ok(details)
    }

    fn check(&self) -> Result<(), Invalid> {
        let optional = [
            ("service_type", &self.service_type, SERVICE_TYPE_BYTES_MAX),
            ("zone", &self.zone, ZONE_BYTES_MAX),
            ("address", &self.address, ADDRESS_BYTES_MAX),
        ];
        for (field, text, len_max) in optional {
            text.as_ref().map_or(Ok(()), |text| check_text(field, text, len_max))?;
        }
        few("capabilities", self.capabilities.len(), CAPABILITIES_MAX)?;
        for capability in &self.capabilities {
            check_text("capability", capability, CAPABILITY_BYTES_MAX)?;
        }
        few("metadata", self.metadata.len(), METADATA_MAX)?;
        for (key, value) in &self.metadata {
            check_text("metadata key", key, METADATA_KEY_BYTES_MAX)?;
            within("metadata value", value.len(), METADATA_VALUE_BYTES_MAX)?;
        }
        if (1..=WEIGHT_MAX).contains(&self.weight) { Ok(()) } else { Err(Invalid::Weight(self.weight)) }
    }
}

/// Why something cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// The field is empty.
    Empty(&'static str),
    /// The weight is 0 or above [`WEIGHT_MAX`].
    Weight(u16),
    /// The field is too long.
    TooLong {
        /// The field.
        field: &'static str,
        /// Its bytes.
        len: usize,
        /// The limit.
        len_max: usize,
    },
    /// The field has too many parts.
    TooMany {
        /// The field.
        field: &'static str,
        /// How many it has.
        count: usize,
        /// The limit.
        count_max: usize,
    },
    /// The field has a control character, or a `/` where it is a part of a key.
    Character(&'static str),
    /// The bytes are no details. Only another node can have written them.
    Undecodable(DecodeError),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::Empty(field) => write!(f, "{field} is empty"),
            Invalid::Weight(weight) => write!(f, "weight is {weight}; it may be 1 to {WEIGHT_MAX}"),
            Invalid::TooMany { field, count, count_max } => write!(f, "{field}: {count}, at most {count_max}"),
            Invalid::TooLong { field, len, len_max } => write!(f, "{field}: {len} bytes, at most {len_max}"),
            Invalid::Character(field) => write!(f, "{field} has a character that is not allowed there"),
            Invalid::Undecodable(error) => write!(f, "the details cannot be read: {error}"),
        }
    }
}

impl std::error::Error for Invalid {}

/// Why an entry of the replica is no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// The key is not one that a registration makes. Nobody owns it.
    Key,
    /// Another node wrote it than the one that its key names.
    Forged,
    /// A node with a newer version of this program wrote it. It is carried and left alone.
    Version(u8),
    /// The value is none.
    Invalid(Invalid),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Key => f.write_str("the key belongs to no instance"),
            Unreadable::Forged => f.write_str("another node wrote it than the one that its key names"),
            Unreadable::Version(version) => write!(f, "its version, {version}, is newer than {VERSION}"),
            Unreadable::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for Unreadable {}

fn within(field: &'static str, len: usize, len_max: usize) -> Result<(), Invalid> {
    if len > len_max { Err(Invalid::TooLong { field, len, len_max }) } else { Ok(()) }
}

fn few(field: &'static str, count: usize, count_max: usize) -> Result<(), Invalid> {
    if count > count_max { Err(Invalid::TooMany { field, count, count_max }) } else { Ok(()) }
}

pub(super) fn check_text(field: &'static str, text: &str, len_max: usize) -> Result<(), Invalid> {
    within(field, text.len(), len_max)?;
    if text.is_empty() {
        return Err(Invalid::Empty(field));
    }
    if text.chars().any(char::is_control) { Err(Invalid::Character(field)) } else { Ok(()) }
}

fn check_segments(namespace: &str, name: &str, instance: &str) -> Result<(), Invalid> {
    let segments =
        [("namespace", namespace, NAMESPACE_BYTES_MAX), ("name", name, NAME_BYTES_MAX), ("instance", instance, INSTANCE_BYTES_MAX)];
    for (field, text, len_max) in segments {
        check_text(field, text, len_max)?;
        if text.contains('/') {
            return Err(Invalid::Character(field));
        }
    }
    Ok(())
}
