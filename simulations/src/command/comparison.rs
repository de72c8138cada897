//! What two variants of the same seeds differ in, told to people and programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Output, Usage, complain, give, report};
use crate::report::compare::{Difference, Finding, Value, compare};
use crate::run::Class;

/// When a comparison fails.
pub(super) struct Limit<'a> {
    /// The share of its value by which a metric may be worse.
    pub(super) worse: f64,
    /// The metrics that are looked at; all when none is named.
    pub(super) metrics: &'a [String],
}

/// The metrics of two runs with one seed.
pub(super) type Pair<'a> = (Vec<Value<'a>>, Vec<Value<'a>>);

/// Two variants, beside their metrics.
pub(super) struct Comparison {
    /// The seed of each pair, in order.
    pub(super) seeds: Vec<u64>,
    /// What the first is.
    pub(super) base: String,
    /// What the second is.
    pub(super) other: String,
    /// What else is to be known.
    pub(super) notes: Vec<String>,
    /// The runs that failed, each in a line.
    pub(super) failed: Vec<(Class, String)>,
}

impl Comparison {
    /// Says what differs; gives the exit code.
    pub(super) fn tell(&self, pairs: &[Pair<'_>], limit: Limit<'_>, output: &Output) -> Result<u8, Usage> {
        let mut found = compare(pairs);
        if found.is_empty() {
            return Err(Usage("the two have no metric in common, so there is nothing to compare".to_owned()));
        }
        if let Some(unknown) = limit.metrics.iter().find(|name| !found.iter().any(|difference| difference.name == **name)) {
            let names: Vec<&str> = found.iter().map(|difference| difference.name).collect();
            return Err(Usage(crate::settings::unknown("metric", unknown, &names).to_string()));
        }
        found.retain(|difference| limit.metrics.is_empty() || limit.metrics.iter().any(|name| name == difference.name));
        let worse: Vec<&Difference<'_>> =
            found.iter().filter(|difference| difference.verdict == Finding::Worse && difference.relative().abs() > limit.worse).collect();
        give(output, &self.text(&found), &self.json(&found, worse.is_empty() && self.failed.is_empty()))?;
        self.failed.iter().for_each(|(_, line)| complain(line));
        for difference in &worse {
            complain(&format!(
                "FAIL expectation {}: {} against {}: worse by {:.1} %, beyond chance and the {:.1} % that are allowed",
                difference.name,
                report::number(difference.other),
                report::number(difference.base),
                difference.relative().abs() * 100.0,
                limit.worse * 100.0
            ));
        }
        let failed = self.failed.first().map(|(class, _)| *class);
        Ok(failed.or((!worse.is_empty()).then_some(Class::Expectation)).map_or(0, Class::exit_code))
    }

    /// The first seed, and the one after the last.
    fn range(&self) -> (u64, u64) {
        (self.seeds.first().copied().unwrap_or(0), self.seeds.last().map_or(0, |seed| seed.saturating_add(1)))
    }

    fn text(&self, found: &[Difference<'_>]) -> String {
        let (first, end) = self.range();
        let pairs = if self.seeds.len() == 1 { "1 pair".to_owned() } else { format!("{} pairs", self.seeds.len()) };
        let mut text = format!("seeds {first}..{end}, {pairs}\n  base   {}\n  other  {}\n", self.base, self.other);
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        if self.seeds.len() == 1 {
            text.push_str("  one pair tells nothing from chance, and nothing fails for it: give more seeds, such as --seed 1..21\n");
        }
        let _ = writeln!(text, "\n  {:<22} {:>12} {:>12} {:>12} {:>12} {:>9}", "", "base", "other", "difference", "+- 95 %", "relative");
        for difference in found {
            let Difference { name, unit, base, other, mean, half, verdict, .. } = difference;
            let number = report::number;
            let half = if half.is_finite() { number(*half) } else { "-".to_owned() };
            let relative = match difference.relative() {
                relative if relative.is_finite() => format!("{:+.1} %", relative * 100.0),
                _ => "-".to_owned(),
            };
            let verdict = if *verdict == Finding::Same { "" } else { verdict.name() };
            let line = format!(
                "  {name:<22} {:>12} {:>12} {:>12} {half:>12} {relative:>9}  {verdict} {unit}",
                number(*base),
                number(*other),
                number(*mean)
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    fn json<'a>(&'a self, found: &'a [Difference<'a>], ok: bool) -> String {
        #[derive(Serialize)]
        struct Row<'a> {
            metric: &'a str,
            unit: &'a str,
            seeds: usize,
            base: f64,
            other: f64,
            difference: f64,
            half_95: Option<f64>,
            verdict: &'static str,
        }
        #[derive(Serialize)]
        struct Json<'a> {
            schema: u32,
            version: &'static str,
            ok: bool,
            first_seed: u64,
            end_seed: u64,
            pairs: usize,
            base: &'a str,
            other: &'a str,
            rows: Vec<Row<'a>>,
        }
        let row = |difference: &'a Difference<'a>| Row {
            metric: difference.name,
            unit: difference.unit,
            seeds: difference.seeds,
            base: difference.base,
            other: difference.other,
            difference: difference.mean,
            half_95: difference.half.is_finite().then_some(difference.half),
            verdict: difference.verdict.name(),
        };
        let (first_seed, end_seed) = self.range();
        report::pretty(&Json {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            ok,
            first_seed,
            end_seed,
            pairs: self.seeds.len(),
            base: &self.base,
            other: &self.other,
            rows: found.iter().map(row).collect(),
        })
    }
}
