//! Every number that bounds what a registration may hold and what this service may do at once.

use std::time::Duration;

use meshwork_channels::limits::KEY_BYTES_MAX;

/// Bytes of a namespace.
pub const NAMESPACE_BYTES_MAX: usize = 64;
/// Bytes of the name of a service.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of the name of an instance.
pub const INSTANCE_BYTES_MAX: usize = 64;
/// Bytes of a type of service.
pub const SERVICE_TYPE_BYTES_MAX: usize = 64;
/// Bytes of a zone.
pub const ZONE_BYTES_MAX: usize = 64;
/// Bytes of an address.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Capabilities of one instance.
pub const CAPABILITIES_MAX: usize = 16;
/// Bytes of one capability.
pub const CAPABILITY_BYTES_MAX: usize = 64;
/// Pairs of metadata of one instance.
pub const METADATA_MAX: usize = 64;
/// Bytes of a key of metadata.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// Bytes of a value of metadata.
pub const METADATA_VALUE_BYTES_MAX: usize = 1_024;
/// Bytes of everything that is written of one instance, its key excluded. It is below what the numbers above add up to: it keeps a
/// replica with the default of [`meshwork_crdt::config::Config::state_bytes_max`] from being filled by some hundred instances.
pub const DETAILS_BYTES_MAX: usize = 8 * 1_024;
/// The greatest weight; the least is 1.
pub const WEIGHT_MAX: u16 = 1_000;

/// Instances that one node may have registered at once.
pub const OWN_MAX: usize = 16_384;
/// Leases that may be open at once on one node.
pub const LEASES_MAX: usize = 16_384;
/// Registrations of one batch: as many as a replica writes at once. Large details are bounded by the bytes of such a batch before that.
pub const BATCH_MAX: usize = meshwork_crdt::replica::BATCH_LEN_MAX;

/// Writes of one pass that removes what dead nodes left, and of one that writes again what others took away here.
pub const PASS_WRITES_MAX: usize = 64;
/// The least time between two such passes. A member that keeps overwriting what is ours makes us write this often, not more.
pub const PASS_PERIOD: Duration = Duration::from_secs(1);
/// How often a node compares what it registered with what the replica holds of it. A guess: it only matters for a change of which no
/// replica tells, that of the writer of an equal value.
pub const AUDIT_PERIOD: Duration = Duration::from_secs(30);

/// How long a node waits before it removes what others left while more nodes are away than there: it is more likely cut off than left alone, and
/// its removals would reach all the others when it returns.
pub const MINORITY_WAIT: Duration = Duration::from_secs(24 * 3_600);

// The longest key: the space, three names, a peer and three separators.
const _: () =
    assert!(super::PREFIX.len() + NAMESPACE_BYTES_MAX + NAME_BYTES_MAX + 52 + INSTANCE_BYTES_MAX + 3 <= KEY_BYTES_MAX, "every key fits");
