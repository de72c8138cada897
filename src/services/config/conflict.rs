//! What is shown of values that nodes wrote at once, without knowing of each other's.

use std::collections::BTreeMap;
use std::fmt;

use meshwork_channels::random;
use meshwork_channels::{PeerId, WallTime};
use meshwork_crdt::Stamp;
use serde::{Deserialize, Serialize};

use super::Path;
use super::layers::{Found, Layer, assemble, overlay, split};
use super::value::Value;

/// How one of several values is chosen. All nodes should have the same strategy, or they show different values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The newest by the hybrid logical clock.
    #[default]
    TimestampWins,
    /// The value that more than half of the candidates hold, each of which is one vote; the newest without such a majority.
    MajorityWins,
    /// Of maps, every name that any of them has, and of a name that several have, the newest; the newest of other values. A newest candidate
    /// that removes the value removes it.
    Merge,
}

/// A value that a node wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The value; `None` when it is removed, or was never there.
    pub value: Option<Value>,
    /// Who wrote it.
    pub origin: PeerId,
    /// When.
    pub stamp: Stamp,
}

/// What a strategy chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The value.
    pub value: Option<Value>,
    /// Who wrote it; of a merged value, the newest part.
    pub origin: PeerId,
    /// When.
    pub stamp: Stamp,
    /// The share of the candidates that hold the chosen value, above 0 and at most 1: two that differ give 0.5. Of merged maps, the share of
    /// their values on which the candidates that have one agree, which is 1 when different names were changed, and never less than that of one
    /// candidate.
    pub confidence: f64,
}

/// Values of one path that were written at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// A hash of the path and of who wrote when: the same on every node that sees the same conflict.
    pub id: ConflictId,
    /// The path.
    pub path: Path,
    /// The values, newest first.
    pub values: Vec<Candidate>,
    /// What is shown.
    pub chosen: Choice,
    /// When this node noticed it.
    pub noticed: WallTime,
}

/// The name of a conflict, printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConflictId(pub u64);

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Conflict {
    /// The conflict between candidates that do not all hold the same value.
    pub(super) fn between(strategy: Strategy, path: &Path, mut values: Vec<Candidate>, noticed: WallTime) -> Option<Self> {
        values.sort_by_key(order);
        values.reverse();
        if values.windows(2).all(|pair| pair[0].value == pair[1].value) {
            return None;
        }
        let numbers = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).collect::<Vec<u64>>();
        let mut parts = numbers(path.as_str().as_bytes());
        for value in &values {
            parts.push(value.stamp.to_bits());
            parts.extend(numbers(value.origin.as_bytes()));
        }
        let chosen = resolve(strategy, path, &values)?;
        Some(Conflict { id: ConflictId(random::hash(&parts)), path: path.clone(), values, chosen, noticed })
    }
}

/// A total order, oldest first, so that every node chooses alike.
fn order(candidate: &Candidate) -> (Stamp, PeerId, Vec<u8>) {
    let tokens = candidate.value.as_ref().and_then(|value| value.tokens().ok());
    (candidate.stamp, candidate.origin, meshwork_channels::encode(&tokens).to_vec())
}

/// Chooses one of the values of a path; `None` without candidates. The order of the candidates does not matter.
pub fn resolve(strategy: Strategy, path: &Path, candidates: &[Candidate]) -> Option<Choice> {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_cached_key(|candidate| order(candidate));
    let newest = *sorted.last()?;
    if let (Strategy::Merge, Some(newest_value)) = (strategy, &newest.value)
        && !newest_value.is_leaf()
    {
        return Some(merge(path, newest, &sorted));
    }
    let votes = |candidate: &Candidate| sorted.iter().filter(|other| other.value == candidate.value).count();
    let majority = || sorted.iter().rev().find(|candidate| 2 * votes(candidate) > sorted.len());
    let chosen = if strategy == Strategy::MajorityWins { majority().map_or(newest, |chosen| *chosen) } else { newest };
    let confidence = votes(chosen) as f64 / sorted.len() as f64;
    Some(Choice { value: chosen.value.clone(), origin: chosen.origin, stamp: chosen.stamp, confidence })
}

/// Puts maps over each other, oldest first.
fn merge(path: &Path, newest: &Candidate, sorted: &[&Candidate]) -> Choice {
    let mut merged = BTreeMap::new();
    let mut said: BTreeMap<Path, Vec<Value>> = BTreeMap::new();
    for candidate in sorted {
        for (at, value) in candidate.value.iter().flat_map(|value| split(path, value.clone()).unwrap_or_default()) {
            said.entry(at.clone()).or_default().push(value.clone());
            overlay(&mut merged, &at, Found { value, layer: Layer::Cluster, origin: candidate.origin, stamp: Some(candidate.stamp) });
        }
    }
    let agreed = merged.keys().filter(|at| said.get(*at).is_some_and(|values| values.windows(2).all(|pair| pair[0] == pair[1]))).count();
    // A map whose names are no names of paths was split into nothing: the newest stands as it is.
    let value = assemble(path, &merged).or_else(|| newest.value.clone());
    let confidence = if merged.is_empty() { 1.0 / sorted.len() as f64 } else { agreed as f64 / merged.len() as f64 };
    // Where nothing is agreed on, each value is still that of one candidate.
    Choice { value, origin: newest.origin, stamp: newest.stamp, confidence: confidence.max(1.0 / sorted.len() as f64) }
}
