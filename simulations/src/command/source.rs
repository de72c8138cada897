//! What is to be run: a preset, a file, a plan, or a run drawn from its seed.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use super::{Size, Usage, large, one};
use crate::file::File;
use crate::job::Job;
use crate::plan::Plan;
use crate::scale::{self, Preset};
use crate::scenarios::{self, Scenario};
use crate::settings;
use crate::swarm;

/// The name of runs that are drawn from their seed.
const SWARM: &str = "swarm";

/// Where plans come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A preset of whole nodes.
    Preset(&'static Scenario),
    /// A preset of the overlay alone.
    Overlay(&'static Preset),
    /// A scenario file.
    File(Box<File>),
    /// One plan, as `minimize` and `show --schedule` write it.
    Plan(Box<Plan>),
    /// The run of a seed of the swarm.
    Swarm,
}

impl Source {
    /// What a name means: a file by its ending, or a preset.
    pub(super) fn find(name: &str) -> Result<Source, Usage> {
        let path = Path::new(name);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Ok(Source::File(Box::new(File::parse(name, &read(name)?).map_err(|error| Usage(error.to_string()))?))),
            Some("json") => {
                let wrong = |what: String| Usage(format!("{name} is no plan: {what}"));
                let text = read(name)?;
                let mut plan: Plan = serde_json::from_str(&text).map_err(|error| match is_results(&text) {
                    true => Usage(format!("{name} holds results, not a plan; `compare` takes it")),
                    false => wrong(error.to_string()),
                })?;
                plan.check().map_err(wrong)?;
                plan.replay = format!("meshwork-sim run {name}");
                Ok(Source::Plan(Box::new(plan)))
            }
            _ if name == SWARM => Ok(Source::Swarm),
            _ => Scenario::named(name).map(Source::Preset).or_else(|| Preset::named(name).map(Source::Overlay)).ok_or_else(|| {
                let whole = scenarios::ALL.iter().map(|scenario| scenario.name);
                let names: Vec<&str> = whole.chain(scale::plan::ALL.iter().map(|preset| preset.name)).chain([SWARM]).collect();
                let mut text = settings::unknown("scenario", name, &names).to_string();
                let _ = write!(text, " A file ends in .toml, a plan in .json.");
                Usage(text)
            }),
        }
    }

    /// The seeds to run.
    pub(super) fn seeds(&self, size: &Size) -> Range<u64> {
        match (&size.seed, self) {
            (Some(seeds), _) => seeds.clone(),
            (None, Source::File(file)) => file.seeds.clone(),
            (None, Source::Plan(plan)) => plan.setup.seed..plan.setup.seed + 1,
            (None, Source::Preset(scenario)) => 1..1 + scenario.seeds,
            (None, Source::Overlay(preset)) => 1..1 + preset.seeds,
            (None, _) => 1..2,
        }
    }

    /// The combinations of swept settings, without those that are set to one value.
    pub(super) fn variants(&self, size: &Size) -> Vec<Vec<String>> {
        let Source::File(file) = self else { return vec![Vec::new()] };
        let key = |assignment: &str| assignment.split('=').next().map(str::to_owned);
        let mut variants = file.variants();
        for variant in &mut variants {
            variant.retain(|swept| !size.set.iter().any(|set| key(set) == key(swept)));
        }
        variants.dedup();
        variants
    }

    /// The plan of the one seed and the one combination that are asked for, of whole nodes.
    pub(super) fn one_plan(&self, size: &Size) -> Result<Plan, Usage> {
        whole(self.one_job(size)?)
    }

    /// The plan of a seed and a combination, of whole nodes.
    pub(super) fn plan(&self, size: &Size, seed: u64, variant: &[String]) -> Result<Plan, Usage> {
        whole(self.job(size, seed, variant, 1)?)
    }

    /// The run of the one seed and the one combination that are asked for.
    pub(super) fn one_job(&self, size: &Size) -> Result<Job, Usage> {
        let seeds = self.seeds(size);
        // Of presets that are run with several seeds the first is meant where only one can be.
        let seed = if size.seed.is_none() { seeds.start } else { one(&seeds)? };
        match &self.variants(size)[..] {
            [variant] => self.job(size, seed, variant, 1),
            variants => Err(Usage(format!(
                "the file sweeps settings and this takes one combination: pick it with --set, such as --set {}",
                variants.first().map(|variant| variant.join(" --set ")).unwrap_or_default()
            ))),
        }
    }

    /// The run of a seed and a combination; one of the overlay alone is on so many threads.
    pub(super) fn job(&self, size: &Size, seed: u64, variant: &[String], threads: u32) -> Result<Job, Usage> {
        // Where a file could say it, the number of nodes can be typed as a setting too.
        let (nodes, set) = nodes_of(size)?;
        let set = [variant, &set].concat();
        let wrong = |error: &dyn std::fmt::Display| Usage(error.to_string());
        let job = match self {
            Source::Preset(scenario) => {
                let nodes = nodes.unwrap_or(scenario.nodes);
                can_have(nodes)?;
                Job::Whole(Box::new(scenario.plan(nodes, seed, &set).map_err(|error| wrong(&error))?))
            }
            Source::Overlay(preset) => {
                let nodes = nodes.unwrap_or(preset.nodes);
                Job::Overlay(Box::new(preset.plan(nodes, seed, threads, &set).map_err(|error| wrong(&error))?))
            }
            Source::File(file) => {
                let mut file = file.clone();
                file.nodes = nodes.unwrap_or(file.nodes);
                if !file.is_of_the_overlay() {
                    can_have(file.nodes)?;
                }
                let mut job = file.job(seed, &set, threads).map_err(|error| wrong(&error))?;
                if nodes.is_some() {
                    let _ = write!(job.replay_mut(), " --nodes {}", file.nodes);
                }
                job
            }
            Source::Plan(_) | Source::Swarm if nodes.is_some() || !set.is_empty() => {
                return Err(Usage("a plan and a run of the swarm are as they are: --nodes and --set are for scenarios".to_owned()));
            }
            Source::Plan(plan) if seed != plan.setup.seed => {
                return Err(Usage(format!("this plan is for seed {}", plan.setup.seed)));
            }
            Source::Plan(plan) => Job::Whole(plan.clone()),
            Source::Swarm => Job::Whole(Box::new(swarm::plan(seed))),
        };
        large::fits(&job)?;
        Ok(job)
    }
}

fn whole(job: Job) -> Result<Plan, Usage> {
    let name = job.name().to_owned();
    job.into_whole().ok_or_else(|| Usage(format!("this is for scenarios of whole nodes, and `{name}` runs the overlay alone")))
}

/// The number of nodes that was asked for, and the other settings.
fn nodes_of(size: &Size) -> Result<(Option<u32>, Vec<String>), Usage> {
    let (nodes, set): (Vec<String>, Vec<String>) = size.set.iter().cloned().partition(|set| set.starts_with("nodes="));
    let typed = nodes.last().and_then(|set| set.split_once('=')).map(|(_, text)| text);
    let typed = typed.map(|text| text.parse().map_err(|_| Usage(format!("nodes: `{text}` is not a number of nodes")))).transpose()?;
    Ok((size.nodes.or(typed), set))
}

/// Whether this is what a run wrote, and not what can be run.
fn is_results(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|json| json.get("schema").is_some())
}

fn can_have(nodes: u32) -> Result<(), Usage> {
    if (scenarios::NODES_MIN..=scenarios::NODES_MAX).contains(&nodes) {
        return Ok(());
    }
    Err(Usage(format!(
        "--nodes is {nodes}; this scenario has {} to {} nodes. Each knows every other, which takes memory with the square of their number: for {nodes} \
         about {}. `meshwork-sim run scale --nodes {nodes}` runs the overlay without membership, for which {} are enough.",
        scenarios::NODES_MIN,
        scenarios::NODES_MAX,
        large::gigabytes(scenarios::bytes(nodes, false)),
        large::gigabytes(scale::plan::bytes(nodes)),
    )))
}

#[expect(clippy::disallowed_methods, reason = "what is run is read from the file that was named")]
pub(super) fn read(name: &str) -> Result<String, Usage> {
    std::fs::read_to_string(name).map_err(|error| Usage(format!("cannot read {name}: {error}")))
}
