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
pub mod figures;
pub mod metrics;
pub mod page;
mod parts;
pub mod regions;
mod style;
pub mod svg;
pub mod sweep;

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

/// The runs of one combination of swept settings.
#[derive(Clone, Copy, Debug)]
pub struct Combination<'a> {
    /// The settings, each as `key=value`.
    pub set: &'a [String],
    /// Its runs by seed.
    pub runs: &'a [Run<'a>],
}

impl Combination<'_> {
    /// The value of a setting; empty when it does not have it.
    pub fn value(&self, key: &str) -> &str {
        self.set.iter().filter_map(|assignment| assignment.split_once('=')).find(|(name, _)| *name == key).map_or("", |(_, value)| value)
    }
}

/// The settings that combinations differ in, in the order in which they are typed.
pub fn keys<'a>(combinations: &[Combination<'a>]) -> Vec<&'a str> {
    let first = combinations.first().map_or(&[][..], |combination| combination.set);
    first.iter().filter_map(|assignment| assignment.split('=').next()).collect()
}

#[cfg(test)]
mod tests;
