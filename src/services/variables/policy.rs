//! What becomes of concurrent writes of one variable: a pure function of the writes, so that whoever knows the same ones shows the same.

use std::cmp::Reverse;

use meshwork_crdt::Stamp;

use super::definition::{Definition, Merge, Order, Policy};
use super::function::Functions;
use super::kind::Kind;
use super::limits::VERSION_MAX;
use super::value::{Author, Value, Version};

/// A valid write of a variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) value: Value,
    pub(super) version: u64,
    pub(super) score: Option<f64>,
    pub(super) by: Author,
    pub(super) stamp: Stamp,
}

/// Whether the first score is better than the second.
pub(super) fn is_better(order: Order, score: f64, than: f64) -> bool {
    match order {
        Order::Highest => score > than,
        Order::Lowest => score < than,
    }
}

/// The version that the policy makes of concurrent writes; `None` without any. The order of `candidates` does not matter.
///
/// Every write counts once in the version: concurrent ones saw the same number, so all but one of them are added.
pub(super) fn resolve(definition: &Definition, candidates: &[Candidate], functions: &Functions) -> Option<Version> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by_key(|candidate| Reverse((candidate.stamp, candidate.by.node)));
    let newest = *newest_first.first()?;
    let version = newest_first.iter().map(|candidate| candidate.version).max()?;
    let version = version.saturating_add(newest_first.len() as u64 - 1).min(VERSION_MAX);
    let mut chosen = newest;
    let mut value = newest.value.clone();
    match &definition.policy {
        Policy::LastWriteWins | Policy::Consensus => {}
        Policy::Best(order) => {
            for candidate in newest_first.iter().skip(1) {
                let (Some(score), Some(best)) = (candidate.score, chosen.score) else { continue };
                // Of equals the earlier one stands, as it does against a later write that only equals it.
                if !is_better(*order, best, score) {
                    chosen = candidate;
                }
            }
            value = chosen.value.clone();
        }
        Policy::Merge(merge) if newest_first.len() > 1 => {
            let values: Vec<Value> = newest_first.iter().map(|candidate| candidate.value.clone()).collect();
            let merged = merged(merge, &values, &definition.kind, functions).map(|value| definition.kind.snap(&value));
            value = merged.filter(|merged| definition.check_value(merged).is_ok()).unwrap_or(value);
        }
        Policy::Merge(_) => {}
    }
    Some(Version {
        value,
        version,
        by: Some(chosen.by.clone()),
        stamp: Some(chosen.stamp),
        score: chosen.score,
        concurrent: newest_first.len(),
    })
}

fn merged(merge: &Merge, values: &[Value], kind: &Kind, functions: &Functions) -> Option<Value> {
    if let Merge::Function(name) = merge {
        return functions.merged(name, values);
    }
    // In order of size, so that sums of floats are rounded alike whatever the order of writing.
    let mut sorted = values.to_vec();
    match kind {
        Kind::Integer { .. } => sorted.sort_by_key(|value| match value {
            Value::Integer(number) => *number,
            _ => 0,
        }),
        _ => sorted.sort_by(|a, b| a.number().unwrap_or(0.0).total_cmp(&b.number().unwrap_or(0.0))),
    }
    let middle = sorted.len() / 2;
    match merge {
        Merge::Min => sorted.first().cloned(),
        Merge::Max => sorted.last().cloned(),
        Merge::Mean => mean(&sorted),
        Merge::Median if sorted.len() % 2 == 1 => sorted.get(middle).cloned(),
        Merge::Median => mean(sorted.get(middle - 1..=middle)?),
        Merge::Function(_) => None,
    }
}

/// Whole numbers are rounded half up, and exactly.
fn mean(values: &[Value]) -> Option<Value> {
    let whole: Option<Vec<i128>> = values
        .iter()
        .map(|value| match value {
            Value::Integer(number) => Some(i128::from(*number)),
            _ => None,
        })
        .collect();
    if let Some(whole) = whole {
        let len = whole.len() as i128;
        let mean = (2 * whole.iter().sum::<i128>() + len).div_euclid(2 * len);
        return i64::try_from(mean).ok().map(Value::Integer);
    }
    // Divided first, so that the sum of large numbers stays finite.
    let len = values.len() as f64;
    values.iter().map(|value| value.number().map(|number| number / len)).sum::<Option<f64>>().map(Value::Float)
}
