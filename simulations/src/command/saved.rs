//! Results that an earlier run wrote with `--json`, read again and compared.
//!
//! A file is known by what is in it: results say which version of their form they have, a plan does not.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;

use super::comparison::{Comparison, Limit};
use super::source::read;
use super::{Output, Size, Usage, report};
use crate::report::compare::Value;
use crate::report::figures::FIGURES;
use crate::run::Failure;
use crate::scale::Preset;
use crate::scenarios::Scenario;

/// The result file of a run.
pub(super) struct Saved {
    name: String,
    json: Json,
}

/// One run of it.
#[derive(Debug, Deserialize)]
struct Run {
    seed: u64,
    replay: String,
    failure: Option<Failure>,
    metrics: BTreeMap<String, Option<f64>>,
}

/// The results of one combination.
struct Runs {
    /// By seed.
    runs: BTreeMap<u64, Run>,
    units: BTreeMap<String, String>,
    replay: String,
}

/// A result file, if that is what the name means; none when it means something that can be run.
pub(super) fn recognize(name: &str) -> Result<Option<Saved>, Usage> {
    let path = Path::new(name);
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let is_preset = Scenario::named(name).is_some() || Preset::named(name).is_some();
    let is_other = is_preset || path.extension().is_some_and(|extension| extension == "toml");
    if is_other || !(is_json || path.is_file()) {
        return Ok(None);
    }
    let text = read(name)?;
    let json: Json = match serde_json::from_str(&text) {
        Ok(json) => json,
        Err(error) => return Err(Usage(format!("{name} is no JSON, so neither results nor a plan: {error}"))),
    };
    if json.get("schedule").is_some() && json.get("setup").is_some() {
        return Ok(None);
    }
    let Some(schema) = json.get("schema").and_then(Json::as_u64) else {
        return Err(Usage(format!("{name} is no result file; `meshwork-sim run SCENARIO --seed 1..21 --json FILE.json` writes one")));
    };
    if schema != u64::from(report::SCHEMA) {
        let version = json.get("version").and_then(Json::as_str).unwrap_or("another");
        return Err(Usage(format!(
            "{name} has results in form {schema}, written by version {version}, and this version reads form {}; run it again with this one",
            report::SCHEMA
        )));
    }
    Ok(Some(Saved { name: name.to_owned(), json }))
}

impl Saved {
    /// What is in it, when that is not the results of runs.
    fn is_instead(&self) -> Option<&'static str> {
        let has = |key| self.json.get(key).is_some();
        match () {
            () if has("rows") => Some("a comparison"),
            () if has("happened") => Some("what a swarm found"),
            () if has("before") && has("after") => Some("what `minimize` found"),
            () if has("combinations") || has("runs") || has("metrics") => None,
            () => Some("nothing of a run"),
        }
    }

    /// The runs of the one combination that has all of these settings.
    fn runs(&self, set: &[String]) -> Result<Runs, Usage> {
        let name = &self.name;
        if let Some(what) = self.is_instead() {
            return Err(Usage(format!("{name} holds {what}; a comparison takes what `run --json` wrote")));
        }
        let swept = self.json.get("combinations").and_then(Json::as_array);
        let of = |combination: &Json| -> Vec<String> {
            let set = combination.get("set").and_then(Json::as_array).into_iter().flatten();
            set.filter_map(Json::as_str).map(str::to_owned).collect()
        };
        let part = match swept {
            None if set.is_empty() => &self.json,
            None => return Err(Usage(format!("{name} holds one combination; --set and --set-other pick one from the file of a sweep"))),
            Some(all) => {
                let picked: Vec<&Json> =
                    all.iter().filter(|combination| set.iter().all(|wanted| of(combination).contains(wanted))).collect();
                match picked[..] {
                    [one] => one,
                    _ => {
                        let there_are: Vec<String> = all.iter().map(|combination| format!("`{}`", of(combination).join(" "))).collect();
                        return Err(Usage(format!(
                            "{name} holds a sweep, and {} of its combinations are meant; pick one with --set, and --set-other for the second \
                             file. There are: {}",
                            picked.len(),
                            there_are.join(", ")
                        )));
                    }
                }
            }
        };
        let broken = |error: serde_json::Error| Usage(format!("{name} is no result file: {error}"));
        let runs: Vec<Run> = match part.get("runs") {
            Some(runs) => serde_json::from_value(runs.clone()).map_err(broken)?,
            None => vec![serde_json::from_value(part.clone()).map_err(broken)?],
        };
        let unit = |(name, value): (&String, &Json)| Some((name.clone(), value.get("unit")?.as_str()?.to_owned()));
        let units = part.get("metrics").and_then(Json::as_object).into_iter().flatten().filter_map(unit).collect();
        let replay = part.get("replay").and_then(Json::as_str).unwrap_or_default().to_owned();
        let mut by_seed = BTreeMap::new();
        for run in runs {
            if let Some(twice) = by_seed.insert(run.seed, run) {
                return Err(Usage(format!("{name} is no result file: it has two runs of seed {}", twice.seed)));
            }
        }
        Ok(Runs { runs: by_seed, units, replay })
    }
}

impl Runs {
    /// The metrics of a run, in the order in which reports have them.
    fn values<'a>(&'a self, run: &'a Run) -> Vec<Value<'a>> {
        let unit = |name: &String| self.units.get(name).map_or("", String::as_str);
        let known = run.metrics.iter().filter_map(|(name, value)| Some(Value { name, value: (*value)?, unit: unit(name) }));
        let mut values: Vec<Value<'a>> = known.collect();
        let place = |name: &str| FIGURES.iter().position(|figure| figure.name == name).unwrap_or(FIGURES.len());
        values.sort_by_key(|value| place(value.name));
        values
    }
}

/// Compares two result files, pair by pair, by the seeds that both have.
pub(super) fn compare(saved: [Saved; 2], set: [&[String]; 2], size: &Size, limit: Limit<'_>, output: &Output) -> Result<u8, Usage> {
    if size.nodes.is_some() {
        return Err(Usage("results are as they are: --nodes is for what is still to run".to_owned()));
    }
    let [one, two] = &saved;
    // What is set for both, but for what the second has of its own.
    let key = |assignment: &String| assignment.split('=').next().map(str::to_owned);
    let is_own = |assignment: &&String| set[1].iter().any(|own| key(own) == key(assignment));
    let second: Vec<String> = set[0].iter().filter(|assignment| !is_own(assignment)).chain(set[1]).cloned().collect();
    let (base, other) = (one.runs(set[0])?, two.runs(&second)?);
    let is_wanted = |seed: &u64| size.seed.as_ref().is_none_or(|seeds| seeds.contains(seed));
    let seeds: Vec<u64> = base.runs.keys().copied().filter(is_wanted).filter(|seed| other.runs.contains_key(seed)).collect();
    let span = |runs: &Runs| match (runs.runs.keys().next(), runs.runs.keys().next_back()) {
        (Some(first), Some(last)) => format!("{first}..{}", last.saturating_add(1)),
        _ => "none".to_owned(),
    };
    if seeds.is_empty() {
        return Err(Usage(format!(
            "{} and {} have no seed in common{}: {} and {}; only runs of one seed can be paired, so run both with the same --seed A..B",
            one.name,
            two.name,
            if size.seed.is_some() { " among those of --seed" } else { "" },
            span(&base),
            span(&other)
        )));
    }
    let mut pairs = Vec::new();
    let mut failed = Vec::new();
    for seed in &seeds {
        let (Some(first), Some(second)) = (base.runs.get(seed), other.runs.get(seed)) else { continue };
        pairs.push((base.values(first), other.values(second)));
        for run in [first, second] {
            failed.extend(run.failure.as_ref().map(|failure| (failure.class, report::failed(failure, run.seed, &run.replay))));
        }
    }
    let alone = base.runs.len() + other.runs.len() - 2 * seeds.len();
    let notes = match alone {
        0 => Vec::new(),
        alone => {
            vec![format!("{alone} runs without a partner are left out: the files have the seeds {} and {}", span(&base), span(&other))]
        }
    };
    let shown = |saved: &Saved, runs: &Runs| format!("{}: {}", saved.name, runs.replay);
    Comparison { base: shown(one, &base), other: shown(two, &other), seeds, notes, failed }.tell(&pairs, limit, output)
}
