//! Runs of whole nodes, one seed or several, and the files about them that people look at.

use std::path::{Path, PathBuf};

use clap::Args;

use super::source::Source;
use super::{Finished, Output, SHOWN_MAX, Size, Usage, complain, give, planted, report, variants, verdict, weigh, write_file};
use crate::host::{Host, Plant};
use crate::job::Job;
use crate::report::metrics::Results;
use crate::report::page::Report;
use crate::report::sweep::Sweep;
use crate::report::{Combination, Run, csv};

/// Where to write what.
#[derive(Args, Debug)]
pub(super) struct Files {
    /// Write tables to a folder, which is made when it is not there: series.csv, messages.csv, nodes.csv and, where the network has regions, regions.csv; of a sweep, sweep.csv
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// Write a page with plots, which stands alone
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl Files {
    /// Whether any was asked for.
    fn is_any(&self) -> bool {
        self.csv.is_some() || self.report.is_some()
    }

    /// Makes the folder, before anything runs: an hour later is a bad time to hear of it.
    pub(super) fn prepare(&self) -> Result<(), Usage> {
        self.csv.as_deref().map_or(Ok(()), make_folder)
    }
}

/// Runs a scenario for each seed, and for each combination of swept settings, and reports.
pub(super) fn run<H: Host>(
    name: &str,
    size: &Size,
    output: &Output,
    files: &Files,
    threads: u32,
    plant: Option<Plant>,
) -> Result<u8, Usage> {
    let source = Source::find(name)?;
    let (seeds, combinations) = (source.seeds(size), source.variants(size));
    files.prepare()?;
    let mut jobs = Vec::new();
    let is_one = combinations.len() == 1 && seeds.end - seeds.start == 1;
    for variant in &combinations {
        for seed in seeds.clone() {
            let mut job = source.job(size, seed, variant, if is_one { threads } else { 1 })?;
            match &mut job {
                Job::Whole(plan) => planted(plan, plant),
                Job::Overlay(_) if plant.is_some() => {
                    return Err(Usage("--plant is for scenarios of whole nodes, and this runs the overlay alone".to_owned()));
                }
                Job::Overlay(_) => {}
            }
            jobs.push(job);
        }
    }
    let mut played = variants::play_all::<H>(&jobs, threads, files.is_any(), output)?;
    // What shards take of memory depends on how many there are, and a page shows the run whatever their number.
    let is_whole = matches!(jobs.first(), Some(Job::Whole(_)));
    if let ([(finished, _)], true) = (&mut played[..], is_whole) {
        weigh(finished);
    }
    let Some((first, _)) = played.first() else { return Ok(0) };
    let whole = |command: &str| match seeds.end - seeds.start {
        1 => command.to_owned(),
        _ => command.replacen(&format!("--seed {}", seeds.start), &format!("--seed {}..{}", seeds.start, seeds.end), 1),
    };
    let command = whole(&first.replay);
    match &combinations[..] {
        [_] => write_files(files, &played, &first.plan, &command)?,
        _ => {
            // What is picked by --set alone stands in the replay; what is swept does not belong there.
            let swept = combinations.first().map_or(&[][..], |variant| variant);
            let command = swept.iter().fold(command, |command, set| command.replacen(&format!(" --set {set}"), "", 1));
            write_sweep(files, &combinations, &played, &command)?;
        }
    }
    if let [(finished, _)] = &mut played[..] {
        if !is_whole {
            weigh(finished);
        }
        give(output, &report::table(finished), &report::json(finished))?;
        return Ok(verdict(finished));
    }
    let count = (seeds.end - seeds.start) as usize;
    let groups: Vec<report::Seeds<'_>> = played
        .chunks(count)
        .map(|runs| report::Seeds {
            seeds: seeds.clone(),
            replay: runs.first().map_or(String::new(), |(finished, _)| whole(&finished.replay)),
            runs: runs.iter().map(|(finished, _)| finished).collect(),
        })
        .collect();
    match &groups[..] {
        [seeds] => give(output, &seeds.text(), &seeds.json())?,
        groups => give(output, &variants::table(&combinations, groups), &variants::json(&combinations, groups))?,
    }
    let failed: Vec<&Finished> = played.iter().map(|(finished, _)| finished).filter(|finished| !finished.outcome.ok).collect();
    let codes: Vec<u8> = failed.iter().take(SHOWN_MAX).map(|finished| verdict(finished)).collect();
    if failed.len() > codes.len() {
        complain(&format!("and {} more", failed.len() - codes.len()));
    }
    Ok(codes.first().copied().unwrap_or(0))
}

fn write_sweep(files: &Files, combinations: &[Vec<String>], played: &[(Finished, Results)], command: &str) -> Result<(), Usage> {
    let runs = runs(played);
    let count = (runs.len() / combinations.len().max(1)).max(1);
    let all: Vec<Combination<'_>> = combinations.iter().zip(runs.chunks(count)).map(|(set, runs)| Combination { set, runs }).collect();
    if let Some(folder) = &files.csv {
        write_file(&folder.join("sweep.csv"), &csv::sweep(&all))?;
    }
    if let (Some(path), Some(first)) = (&files.report, runs.first()) {
        let page = Sweep { name: &first.outcome.scenario, command, version: env!("CARGO_PKG_VERSION"), combinations: &all };
        write_file(path, &page.render())?;
    }
    Ok(())
}

fn runs(played: &[(Finished, Results)]) -> Vec<Run<'_>> {
    played.iter().map(|(finished, results)| Run { outcome: &finished.outcome, results, replay: &finished.replay }).collect()
}

/// Writes what was asked for of the runs of one combination.
pub(super) fn write_files(files: &Files, played: &[(Finished, Results)], plan: &str, command: &str) -> Result<(), Usage> {
    let runs = runs(played);
    if let Some(folder) = &files.csv {
        write_file(&folder.join("series.csv"), &csv::series(&runs))?;
        write_file(&folder.join("messages.csv"), &csv::messages(&runs))?;
        write_file(&folder.join("nodes.csv"), &csv::nodes(&runs))?;
        if let Some(table) = csv::regions(&runs) {
            write_file(&folder.join("regions.csv"), &table)?;
        }
    }
    if let Some(path) = &files.report {
        let page = Report { plan, command, version: env!("CARGO_PKG_VERSION"), runs: &runs };
        write_file(path, &page.render())?;
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), Usage> {
    std::fs::create_dir_all(path).map_err(|error| Usage(format!("cannot make the folder {}: {error}", path.display())))
}
