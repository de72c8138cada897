//! What people look at after a run: a page with plots, and tables for programs that draw their own.
//!
//! Everything here is made from what was recorded and is the same for the same seed: it holds no clock reading and no cost of a run.
//! Nothing here writes a file; the command does.

/// Writes into a string, which takes everything.
macro_rules! put {
    ($text:expr, $($part:tt)*) => {{ let _ = write!($text, $($part)*); }};
}

pub mod compare;
pub mod csv;
pub mod metrics;
pub mod page;
pub mod svg;

use crate::run::Outcome;
use metrics::Results;

/// One run of a report.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What became of it.
    pub outcome: &'a Outcome,
    /// What there is to show of it.
    pub results: &'a Results,
    /// What to type to see it again.
    pub replay: &'a str,
}

#[cfg(test)]
mod tests;
