//! Whole Meshwork nodes in virtual time: deterministic scenarios with faults, invariants and digests.
//!
//! A run is a seed, a scenario and the code, nothing else: it reads no clock and no system generator, so it can be repeated exactly, in
//! debug and release builds alike, and a failure comes with the line that shows it again.
//!
//! Read in this order:
//!
//! 1. [`wheel`], [`network`], [`schedule`]: what happens when, what becomes of bytes, and what is done to the nodes.
//! 2. [`host`], [`disk`], [`world`]: what a node is to the world, what it keeps over restarts, and the world.
//! 3. [`deed`], [`record`], [`ledger`], [`invariants`]: what is done to the replicated state, what was seen, what of the state is owed in the end, and what must hold.
//! 4. [`plan`], [`settings`], [`scenarios`], `file` (a feature), [`swarm`]: a run as data, what people may set, the presets, files that change them, and runs drawn at random.
//! 5. [`run`](mod@run), [`report`], [`minimize`](mod@minimize): one run from its plan to its outcome, what people look at, a page with plots and tables, and the search for the smallest plan
//!    that fails in the same way.
//! 6. [`app`]: an application of your own on every node of a run.
//! 7. [`scale`](mod@scale): the overlay alone, for sizes that whole nodes do not reach and for the figures of the papers; [`job`]: a run of either depth.
//! 8. `real` (a feature): a plan carried out on real processes, over a wire that is the same network. It performs input and output too, to that end.
//! 9. `command` (a feature): the command line. It and `real` are the only modules here that perform input and output.

pub mod app;
#[cfg(feature = "command")]
pub mod command;
pub mod deed;
pub mod digest;
pub mod disk;
#[cfg(feature = "command")]
pub mod file;
mod graph;
pub mod host;
pub mod invariants;
pub mod job;
pub mod ledger;
pub mod membership;
pub mod minimize;
pub mod network;
pub mod plan;
pub mod rare;
#[cfg(feature = "command")]
pub mod real;
pub mod record;
pub mod report;
pub mod run;
pub mod scale;
pub mod scenarios;
pub mod schedule;
pub mod settings;
pub mod swarm;
pub mod wheel;
pub mod world;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
