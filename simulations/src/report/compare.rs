//! Two variants over the same seeds: what differs beyond chance, and which way.

use super::figures::{Worse, worse_of};
use crate::run::Outcome;

/// A metric of one run, from wherever the run comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: f64,
    /// Its unit; empty for a plain count or ratio, and where it is not known.
    pub unit: &'a str,
}

/// The metrics of a run.
pub fn values(outcome: &Outcome) -> Vec<Value<'_>> {
    outcome.metrics.iter().map(|metric| Value { name: metric.name, value: metric.value, unit: metric.unit }).collect()
}

/// What a metric is like in both variants.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference<'a> {
    /// The metric.
    pub name: &'a str,
    /// Its unit.
    pub unit: &'a str,
    /// Seeds in which both variants have it.
    pub seeds: usize,
    /// Its mean in the first.
    pub base: f64,
    /// Its mean in the second.
    pub other: f64,
    /// The mean of the differences of the pairs, the second less the first.
    pub mean: f64,
    /// Half the width of the confidence interval of 95 % around that mean; infinite for one seed.
    pub half: f64,
    /// What that says of the second.
    pub verdict: Finding,
}

/// What a difference says of the second variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing: the interval holds zero.
    Same,
    /// It is better.
    Better,
    /// It is worse.
    Worse,
    /// It is another one, and neither is better.
    Other,
}

impl Finding {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Finding::Same => "same",
            Finding::Better => "better",
            Finding::Worse => "worse",
            Finding::Other => "differs",
        }
    }
}

impl Difference<'_> {
    /// The difference by the first variant's value; infinite when that is zero.
    pub fn relative(&self) -> f64 {
        if self.mean == 0.0 { 0.0 } else { self.mean / self.base.abs() }
    }
}

/// Two-sided 95 % quantiles of Student's t distribution by degrees of freedom, from 1.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
    2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// For more of them.
const NORMAL: f64 = 1.960;

/// Compares pairs of runs with the same seed, metric by metric, in the order in which the first variant has them. The intervals are those of paired differences (Student's t): seeds
/// that are hard for both variants say nothing, and are not taken for noise.
pub fn compare<'a>(pairs: &[(Vec<Value<'a>>, Vec<Value<'a>>)]) -> Vec<Difference<'a>> {
    let mut differences: Vec<Difference<'a>> = Vec::new();
    let of = |run: &[Value<'a>], name: &str| run.iter().find(|metric| metric.name == name).map(|metric| metric.value);
    for metric in pairs.iter().flat_map(|(base, _)| base) {
        if differences.iter().any(|difference| difference.name == metric.name) {
            continue;
        }
        let values: Vec<(f64, f64)> =
            pairs.iter().filter_map(|(base, other)| Some((of(base, metric.name)?, of(other, metric.name)?))).collect();
        if values.is_empty() {
            continue;
        }
        let count = values.len() as f64;
        let base = values.iter().map(|(base, _)| base).sum::<f64>() / count;
        let other = values.iter().map(|(_, other)| other).sum::<f64>() / count;
        let mean = other - base;
        let squares: f64 = values.iter().map(|(base, other)| (other - base - mean).powi(2)).sum();
        let half = match values.len() {
            1 => f64::INFINITY,
            len => T.get(len - 2).copied().unwrap_or(NORMAL) * (squares / (count - 1.0) / count).sqrt(),
        };
        let verdict = match (mean.abs() > half, worse_of(metric.name)) {
            (false, _) => Finding::Same,
            (true, Worse::Neither) => Finding::Other,
            (true, Worse::Less) => {
                if mean < 0.0 {
                    Finding::Worse
                } else {
                    Finding::Better
                }
            }
            (true, Worse::More) => {
                if mean > 0.0 {
                    Finding::Worse
                } else {
                    Finding::Better
                }
            }
        };
        differences.push(Difference { name: metric.name, unit: metric.unit, seeds: values.len(), base, other, mean, half, verdict });
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Metric;

    fn outcome(seed: u64, latency: f64, delivery: f64) -> Outcome {
        let metric = |name, value| Metric { name, value, unit: "" };
        Outcome {
            scenario: "test".to_owned(),
            seed,
            nodes: 3,
            digest: String::new(),
            events: 1,
            virtual_s: 1.0,
            ok: true,
            failure: None,
            invariants: Vec::new(),
            metrics: vec![metric("latency_p50", latency), metric("delivery", delivery)],
            digests: Vec::new(),
        }
    }

    fn found(pairs: &[(f64, f64)]) -> Difference<'static> {
        let runs: Vec<(Outcome, Outcome)> =
            (1..).zip(pairs).map(|(seed, (a, b))| (outcome(seed, *a, 1.0), outcome(seed, *b, 1.0))).collect();
        let pairs: Vec<_> = runs.iter().map(|(a, b)| (values(a), values(b))).collect();
        let both = compare(&pairs);
        assert_eq!((both[1].name, both[1].verdict), ("delivery", Finding::Same));
        Difference { name: "latency_p50", unit: "", ..both[0] }
    }

    /// The differences are 1, 2, 3: their mean is 2, their standard deviation 1, and t for two degrees of freedom 4.303.
    #[test]
    fn the_interval_is_that_of_pairs() {
        let found = found(&[(10.0, 11.0), (50.0, 52.0), (90.0, 93.0)]);
        assert_eq!((found.base, found.other, found.mean, found.seeds), (50.0, 52.0, 2.0, 3));
        assert!((found.half - 4.303 / 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(found.verdict, Finding::Same);
        assert_eq!(found.relative(), 0.04);
    }

    #[test]
    fn seeds_that_are_hard_for_both_hide_nothing() {
        let slower = [(10.0, 11.0), (50.0, 51.1), (90.0, 90.9), (20.0, 21.0)];
        assert_eq!(found(&slower).verdict, Finding::Worse);
        let faster: Vec<(f64, f64)> = slower.iter().map(|(a, b)| (*b, *a)).collect();
        assert_eq!(found(&faster).verdict, Finding::Better);
        assert_eq!(found(&slower[..1]).verdict, Finding::Same, "one seed says nothing");
    }
}
