//! Every bound of the service. Whatever a peer writes is held to them before it is shown or kept.

/// Bytes of a name: of a variable, a function, a module, a capability or an agent.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of a value or an option that is text, and of a key or value of the metadata.
pub const TEXT_BYTES_MAX: usize = 256;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 1_024;
/// Bytes of one encoded definition.
pub const DEFINITION_BYTES_MAX: usize = 16 * 1_024;
/// Options of a choice.
pub const OPTIONS_MAX: usize = 256;
/// Modules that one variable may choose from.
pub const MODULES_MAX: usize = 64;
/// Capabilities of one module, and those that a variable may ask for.
pub const CAPABILITIES_MAX: usize = 32;
/// Lines of the compatibility table of one variable.
pub const COMPATIBILITY_MAX: usize = 64;
/// Variables that a composite is computed from.
pub const DEPENDENCIES_MAX: usize = 32;
/// Constraints of one definition.
pub const CONSTRAINTS_MAX: usize = 32;
/// Variables of one sum or one function of a constraint.
pub const TERMS_MAX: usize = 32;
/// Values of one condition.
pub const VALUES_MAX: usize = 64;
/// Different variables that one definition may speak of, so that the index of who speaks of whom has a bound.
pub const MENTIONS_MAX: usize = 64;
/// Nodes that may be allowed to write one variable.
pub const WRITERS_MAX: usize = 64;
/// Pairs of metadata of one variable.
pub const METADATA_MAX: usize = 16;
/// Variables that one node registers or follows. Others that are replicated can be read, but have no events, history or statistics.
pub const VARIABLES_MAX: usize = 1_000;
/// Versions of one variable that are remembered, its default included.
pub const HISTORY_LEN_MAX: usize = 100;
/// Versions that [`history`](super::State::history) returns unless more are asked for.
pub const HISTORY_LEN_DEFAULT: usize = 50;
/// The last version of a variable: one write in each microsecond for nine years.
pub const VERSION_MAX: u64 = 1 << 48;
/// Concurrent writes of one variable that are looked at, the newest first.
pub const SIBLINGS_MAX: usize = 64;
/// How many composites deep a value may be computed.
pub const DEPTH_MAX: usize = 32;
/// Variables that may take part in computing one value.
pub const REACH_MAX: usize = 64;
/// Composites that are computed anew after one change. Others show what is right when they are read, but have no events of it.
pub const AFFECTED_MAX: usize = 256;
/// Steps of the grid of a float: with more, rounding errors would be as large as the steps.
pub const GRID_STEPS_MAX: f64 = 1e9;
/// Draws for one configuration of a space before its constraints are called too tight.
pub const ATTEMPTS_MAX: u32 = 10_000;
/// Draws within its strata for one configuration of a sample, before it is drawn without them.
pub const STRATUM_ATTEMPTS_MAX: u32 = 16;
/// Configurations of one sample.
pub const SAMPLES_MAX: usize = 100_000;
