//! What is to be run: a preset, a file, a plan, or a run drawn from its seed.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use super::{Size, Usage, large, one};
use crate::file::File;
use crate::plan::Plan;
use crate::scale;
use crate::scenarios::{self, Scenario};
use crate::settings;
use crate::swarm;

/// The name of runs that are drawn from their seed.
const SWARM: &str = "swarm";

/// Where plans come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A preset.
    Preset(&'static Scenario),
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
            _ => Scenario::named(name).map(Source::Preset).ok_or_else(|| {
                let names: Vec<&str> = scenarios::ALL.iter().map(|scenario| scenario.name).chain([scale::NAME, SWARM]).collect();
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

    /// The plan of the one seed and the one combination that are asked for.
    pub(super) fn one_plan(&self, size: &Size) -> Result<Plan, Usage> {
        let seed = one(&self.seeds(size))?;
        match &self.variants(size)[..] {
            [variant] => self.plan(size, seed, variant),
            variants => Err(Usage(format!(
                "the file sweeps settings and this takes one combination: pick it with --set, such as --set {}",
                variants.first().map(|variant| variant.join(" --set ")).unwrap_or_default()
            ))),
        }
    }

    /// The plan of a seed and a combination.
    pub(super) fn plan(&self, size: &Size, seed: u64, variant: &[String]) -> Result<Plan, Usage> {
        let plan = match self {
            Source::Preset(scenario) => {
                let nodes = size.nodes.unwrap_or(scenario.nodes);
                can_have(nodes)?;
                scenario.plan(nodes, seed, &[variant, &size.set].concat()).map_err(|error| Usage(error.to_string()))?
            }
            Source::File(file) => {
                let mut file = file.clone();
                file.nodes = size.nodes.unwrap_or(file.nodes);
                can_have(file.nodes)?;
                let mut plan = file.plan(seed, &[variant, &size.set].concat()).map_err(|error| Usage(error.to_string()))?;
                if size.nodes.is_some() {
                    let _ = write!(plan.replay, " --nodes {}", file.nodes);
                }
                plan
            }
            Source::Plan(_) | Source::Swarm if size.nodes.is_some() || !size.set.is_empty() => {
                return Err(Usage("a plan and a run of the swarm are as they are: --nodes and --set are for scenarios".to_owned()));
            }
            Source::Plan(plan) if seed != plan.setup.seed => {
                return Err(Usage(format!("this plan is for seed {}", plan.setup.seed)));
            }
            Source::Plan(plan) => (**plan).clone(),
            Source::Swarm => swarm::plan(seed),
        };
        let needed = scenarios::bytes(plan.setup.nodes, plan.tuning.full_mesh);
        let instead = match plan.tuning.full_mesh {
            true => "without `--set topology=mesh` a node has a handful of links instead of one to each",
            false => "`run scale` runs the overlay without membership, up to millions of nodes",
        };
        large::fits(plan.setup.nodes, needed, instead)?;
        Ok(plan)
    }
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
