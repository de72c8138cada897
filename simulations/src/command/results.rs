//! Runs of whole nodes, one seed or several, and the files about them that people look at.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Finished, Output, SHOWN_MAX, Size, Usage, complain, give, plan, play, progress, report, verdict, weigh, write_file};
use crate::host::{Host, Plant};
use crate::report::metrics::Results;
use crate::report::page::Report;
use crate::report::{Run, csv};
use crate::scale;

/// Where to write what.
#[derive(Args, Debug)]
pub(super) struct Files {
    /// Write tables to a folder, which is made when it is not there: series.csv, messages.csv and nodes.csv
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Write a page with plots, which stands alone
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl Files {
    /// Whether any was asked for.
    pub(super) fn is_any(&self) -> bool {
        self.csv.is_some() || self.report.is_some()
    }
}

/// Runs a scenario for each seed and reports.
pub(super) fn run<H: Host>(
    name: &str,
    size: &Size,
    output: &Output,
    files: &Files,
    threads: u32,
    plant: Option<Plant>,
) -> Result<u8, Usage> {
    if threads > 1 {
        return Err(Usage(format!(
            "--threads is for `run {}`; a run of whole nodes has one, and `swarm` has several runs at once",
            scale::NAME
        )));
    }
    // Before anything runs: an hour later is a bad time to hear of it.
    if let Some(folder) = &files.csv {
        make_folder(folder)?;
    }
    let mut played: Vec<(Finished, Results)> = Vec::new();
    for seed in size.seed.clone() {
        let mut plan = plan(name, size, seed)?;
        if let Some(plant) = plant {
            plan.plant(plant);
            let _ = write!(plan.replay, " --plant {}", plant.name());
        }
        let mut results = Results::default();
        let mut bar = progress::Bar::start(output.quiet, &plan);
        let mut finished = play::<H>(&plan, Some(&mut results), &mut |progress| bar.show(progress))?;
        bar.finish();
        weigh(&mut finished);
        played.push((finished, results));
    }
    let Some((first, _)) = played.first() else { return Ok(0) };
    let mut command = first.replay.clone();
    if played.len() > 1 {
        let range = format!("--seed {}..{}", size.seed.start, size.seed.end);
        command = command.replacen(&format!("--seed {}", size.seed.start), &range, 1);
    }
    let runs: Vec<Run<'_>> =
        played.iter().map(|(finished, results)| Run { outcome: &finished.outcome, results, replay: &finished.replay }).collect();
    if let Some(folder) = &files.csv {
        write_file(&folder.join("series.csv"), &csv::series(&runs))?;
        write_file(&folder.join("messages.csv"), &csv::messages(&runs))?;
        write_file(&folder.join("nodes.csv"), &csv::nodes(&runs))?;
    }
    if let Some(path) = &files.report {
        let page = Report { plan: &first.plan, command: &command, version: env!("CARGO_PKG_VERSION"), runs: &runs };
        write_file(path, &page.render())?;
    }
    if let [(finished, _)] = &played[..] {
        give(output, &report::table(finished), &report::json(finished))?;
        return Ok(verdict(finished));
    }
    let seeds = report::Seeds { seeds: size.seed.clone(), replay: &command, runs: played.iter().map(|(finished, _)| finished).collect() };
    give(output, &seeds.text(), &seeds.json())?;
    let failed: Vec<&Finished> = played.iter().map(|(finished, _)| finished).filter(|finished| !finished.outcome.ok).collect();
    let codes: Vec<u8> = failed.iter().take(SHOWN_MAX).map(|finished| verdict(finished)).collect();
    if failed.len() > codes.len() {
        complain(&format!("and {} more", failed.len() - codes.len()));
    }
    Ok(codes.first().copied().unwrap_or(0))
}

fn make_folder(path: &Path) -> Result<(), Usage> {
    std::fs::create_dir_all(path).map_err(|error| Usage(format!("cannot make the folder {}: {error}", path.display())))
}
