//! The expectations of scenario files as a table in Markdown: what others reached, what is aimed at, and what was reached here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::source::Source;
use super::{Finished, Output, Size, Usage, complain, report, say, variants, write_file};
use crate::file::File;
use crate::host::Host;
use crate::plan::Expectation;
use crate::report::metrics::spread;

/// Runs every file and writes the table; gives whether all expectations were met.
pub(super) fn run<H: Host>(paths: &[PathBuf], out: Option<&Path>, threads: u32, quiet: bool) -> Result<u8, Usage> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(scenarios_in(path)?);
    }
    if files.is_empty() {
        return Err(Usage("there is no scenario file".to_owned()));
    }
    let mut rows = Vec::new();
    for (index, name) in files.iter().enumerate() {
        if !quiet {
            complain(&format!("{} of {}: {name}", index + 1, files.len()));
        }
        rows.extend(rows_of::<H>(name, threads, quiet)?);
        // After each file: the whole folder takes long, and what is interrupted shall not be lost.
        if let Some(path) = out {
            write_file(path, &table(&rows))?;
        }
    }
    if out.is_none() {
        say(&table(&rows));
    }
    Ok(if rows.iter().all(|row| row.held) { 0 } else { 2 })
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| Scenario | Metric | Published | Peer | Target | Mean | Worst | Held | Command |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let _ = writeln!(text, "{}", row.text);
    }
    let _ = writeln!(text, "\n{} of {} held.", rows.iter().filter(|row| row.held).count(), rows.len());
    text
}

struct Row {
    held: bool,
    text: String,
}

/// The scenario files that a path names: itself, or those in a folder by name.
#[expect(clippy::disallowed_methods, reason = "what is run is read from the folder that was named")]
fn scenarios_in(path: &Path) -> Result<Vec<String>, Usage> {
    let name = |path: &Path| path.to_string_lossy().into_owned();
    if !path.is_dir() {
        return Ok(vec![name(path)]);
    }
    let wrong = |error: std::io::Error| Usage(format!("cannot read {}: {error}", path.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.push(name(&path));
        }
    }
    names.sort();
    Ok(names)
}

fn rows_of<H: Host>(name: &str, threads: u32, quiet: bool) -> Result<Vec<Row>, Usage> {
    let source = Source::find(name)?;
    let Source::File(file) = &source else { return Err(Usage(format!("{name} is no scenario file"))) };
    let size = Size { nodes: None, seed: None, set: Vec::new() };
    let seeds = source.seeds(&size);
    let combinations = source.variants(&size);
    let mut jobs = Vec::new();
    for variant in &combinations {
        for seed in seeds.clone() {
            jobs.push(source.job(&size, seed, variant, 1)?);
        }
    }
    let played = variants::play_all::<H>(&jobs, threads, false, &Output { json: None, quiet })?;
    let mut rows = Vec::new();
    for (variant, runs) in combinations.iter().zip(played.chunks((seeds.end - seeds.start) as usize)) {
        let runs: Vec<&Finished> = runs.iter().map(|(finished, _)| finished).collect();
        // What broke is no expectation that was missed, and must not look like one.
        let broken = runs.iter().find_map(|run| run.outcome.failure.as_ref().filter(|failure| !is_expectation(failure.class)));
        let mut command = format!("meshwork-sim run {name}");
        variant.iter().for_each(|set| command.push_str(&format!(" --set {set}")));
        for (expectation, reference) in file.expectations() {
            rows.push(row(file, variant, &runs, expectation, reference, &command));
        }
        if let Some(failure) = broken {
            let text = format!("| {} {} | {} | | | holds | | | **no** | `{command}` |", file.name, variant.join(" "), failure.what);
            rows.push(Row { held: false, text });
        }
    }
    Ok(rows)
}

fn is_expectation(class: crate::run::Class) -> bool {
    class == crate::run::Class::Expectation
}

fn row(
    file: &File,
    variant: &[String],
    runs: &[&Finished],
    expectation: &Expectation,
    reference: &crate::file::Reference,
    command: &str,
) -> Row {
    let Expectation { metric, min, max } = expectation;
    let outcomes: Vec<_> = runs.iter().map(|run| &run.outcome).collect();
    let values: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.metric(metric)).collect();
    let fits = |value: &f64| min.is_none_or(|min| *value >= min) && max.is_none_or(|max| *value <= max);
    let held = values.len() == runs.len() && values.iter().all(fits);
    // The worst is the one nearest to missing the target, or furthest beyond it.
    let worst = match (min, max) {
        (Some(_), None) => values.iter().copied().reduce(f64::min),
        _ => values.iter().copied().reduce(f64::max),
    };
    let mean = spread(&outcomes).into_iter().find(|spread| spread.name == metric).map(|spread| spread.mean);
    let shown = |value: Option<f64>| value.map_or("not measured".to_owned(), digits);
    let target = match (min, max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) if *min > 0.0 => format!(">= {min}"),
        (None, Some(max)) => format!("<= {max}"),
        _ => String::new(),
    };
    let words = |words: &Option<String>| words.clone().unwrap_or_default();
    let name = [std::slice::from_ref(&file.name), variant].concat().join(" ");
    let text = format!(
        "| {name} | {metric} | {} | {} | {target} | {} | {} | {} | `{command}` |",
        words(&reference.published),
        words(&reference.peer),
        shown(mean),
        shown(worst),
        if held { "yes" } else { "**no**" },
    );
    Row { held, text }
}

/// A value with as many digits as say something.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.9 => format!("{value:.5}"),
        size if size < 0.001 => format!("{value:.6}"),
        _ => report::number(value),
    }
}
