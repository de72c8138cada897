//! Every bound of the service, in one place.

/// Bytes of a path, its namespace and separators included.
pub const PATH_BYTES_MAX: usize = 512;
/// Names of a path, its namespace included.
pub const PATH_NAMES_MAX: usize = 16;
/// Bytes of one name of a path.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of one encoded value. A subtree may hold many.
pub const VALUE_BYTES_MAX: usize = 16 * 1_024;
/// Values and names within one value, lists and maps counted as well.
pub const VALUE_NODES_MAX: usize = 4_096;
/// Lists and maps within each other, the outermost included.
pub const VALUE_DEPTH_MAX: usize = 16;

/// Former values that an entry carries with it.
pub const HISTORY_MAX: usize = 16;
/// Bytes of one entry: its value, and as many former ones as fit.
pub const RECORD_BYTES_MAX: usize = 32 * 1_024;
const _: () = assert!(RECORD_BYTES_MAX <= meshwork_channels::limits::VALUE_BYTES_MAX, "a replica takes every entry");
const _: () = assert!(VALUE_BYTES_MAX + 64 <= RECORD_BYTES_MAX, "an entry without history fits");

/// Writes that one verb asks for: the leaves that it sets, and those that it removes.
pub const WRITES_MAX: usize = 256;
/// Values of one local layer: defaults, file, environment or overrides.
pub const LAYER_VALUES_MAX: usize = 10_000;
/// Local changes that can be undone.
pub const UNDO_MAX: usize = 64;
/// Conflicts that are remembered; the oldest gives way.
pub const CONFLICTS_MAX: usize = 64;
/// Bytes of the reason that a validator gave.
pub const REASON_BYTES_MAX: usize = 256;
