//! The command line: `meshwork-sim`.
//!
//! Beside `real`, the only module of this package that performs input and output: it reads the clock and the processor time for the progress bar and the
//! report, writes to the terminal and to files, and runs the seeds of a swarm on threads. Nothing of that reaches a run.

mod comparison;
mod cpu;
mod large;
mod members;
mod progress;
mod real;
mod report;
mod results;
mod saved;
mod source;
mod swarm;
mod table;
mod variants;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Args, Parser, Subcommand};

use crate::host::{Host, Plant};
use crate::job::Job;
use crate::minimize;
use crate::plan::Plan;
use crate::report::metrics::Results;
use crate::run::{self, Class, Failure, Metric, Outcome};
use crate::scale;
use crate::scenarios;
use crate::settings::{self, KEYS};
use source::Source;

/// The exit code for a mistake on the command line.
const USAGE: u8 = 1;
/// Failing seeds of a swarm that are shown; the rest is counted.
const SHOWN_MAX: usize = 5;

/// Run whole Meshwork nodes in virtual time: the same code as a real node, repeatable from a seed, with faults.
#[derive(Debug, Parser)]
#[command(
    name = "meshwork-sim",
    version,
    after_help = "Exit codes: 0 all is well, 1 usage, 2 an expectation failed or the run showed nothing, 3 something broke that must always \
                  hold, 4 something did not come to hold in the end, 5 a node panicked, 6 two runs of one seed differ, 77 `real` was skipped because \
                  this machine does not permit it, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenarios
    List,
    /// Show what a scenario does and what can be set in it
    Show {
        /// A scenario, as `list` names it; a scenario file, FILE.toml; a plan, FILE.json; or `swarm`
        scenario: String,
        #[command(flatten)]
        size: Size,
        /// Print the whole schedule of faults and work as JSON instead
        #[arg(long)]
        schedule: bool,
    },
    /// Run a scenario, a file or a plan, and report
    #[command(visible_alias = "replay")]
    Run {
        /// A scenario, as `list` names it; a scenario file, FILE.toml; a plan, FILE.json; or `swarm`
        scenario: String,
        #[command(flatten)]
        size: Size,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        files: results::Files,
        /// Threads: of `scale` for its one run, with the same result; else for several runs at once
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=scale::plan::THREADS_MAX as i64))]
        threads: u32,
        /// Give one node a bug on purpose, to see that it is noticed
        #[arg(long, value_name = "BUG", value_parser = plant)]
        plant: Option<Plant>,
    },
    /// Carry a scenario out on real processes, up to 50, and compare them with simulated nodes
    Real(real::RealArgs),
    /// Measure membership on real processes, up to 300 on loopback, and the same of serf
    RealMembership(members::MembersArgs),
    /// Run many small clusters with random parameters and random faults, one for each seed
    Swarm {
        /// The seeds: one number, or a first and an end that is not run, such as `0..500`
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// Seeds that run at once
        #[arg(long, default_value_t = 1)]
        threads: u16,
        /// Stop after this many failing seeds
        #[arg(long, value_name = "COUNT", default_value_t = SHOWN_MAX as u64)]
        failures_max: u64,
        /// Give one node of each run a bug on purpose
        #[arg(long, value_name = "BUG", value_parser = plant)]
        plant: Option<Plant>,
        #[command(flatten)]
        output: Output,
    },
    /// Run a scenario twice and compare: the same seed must give the same run
    Check {
        /// A scenario, as `list` names it; a scenario file, FILE.toml; a plan, FILE.json; or `swarm`
        scenario: String,
        #[command(flatten)]
        size: Size,
        /// Give one node a bug on purpose
        #[arg(long, value_name = "BUG", value_parser = plant)]
        plant: Option<Plant>,
        #[command(flatten)]
        output: Output,
    },
    /// Run two variants over the same seeds, or take two files that `run --json` wrote, and say what differs beyond chance
    Compare {
        /// The scenario, file, plan or results that are the measure
        base: String,
        /// The others; the same ones again, unless said
        other: Option<String>,
        #[command(flatten)]
        size: Size,
        /// A setting of the other alone; can be given several times. Of the results of a sweep, --set and --set-other pick combinations
        #[arg(long = "set-other", value_name = "KEY=VALUE")]
        set_other: Vec<String>,
        /// Fail when a metric is worse by more than this share of what it was, beyond chance; can be narrowed with --metric
        #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
        worse: f64,
        /// Look at this metric alone; can be given several times
        #[arg(long = "metric", value_name = "NAME")]
        metrics: Vec<String>,
        /// Runs at once
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=scale::plan::THREADS_MAX as i64))]
        threads: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Run scenario files and write what they expect, what others reached and what was reached as a table in Markdown
    Table {
        /// Scenario files, or folders of them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Write the table to this file instead of the standard output
        #[arg(long, value_name = "FILE.md")]
        out: Option<PathBuf>,
        /// Runs at once
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=scale::plan::THREADS_MAX as i64))]
        threads: u32,
        /// No progress
        #[arg(long, short)]
        quiet: bool,
    },
    /// Make a failing run smaller: fewer nodes and faults, as long as it fails for the same reason
    Minimize {
        /// A scenario, as `list` names it; a scenario file, FILE.toml; a plan, FILE.json; or `swarm`
        scenario: String,
        #[command(flatten)]
        size: Size,
        /// Give one node a bug on purpose
        #[arg(long, value_name = "BUG", value_parser = plant)]
        plant: Option<Plant>,
        /// Write what is left to this file, which `run` takes
        #[arg(long, value_name = "FILE.json", default_value = "minimized.json")]
        out: PathBuf,
        /// Try at most this many runs
        #[arg(long, value_name = "COUNT", default_value_t = 5_000)]
        runs_max: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Args, Debug)]
struct Size {
    /// How many nodes [default: the scenario's own]
    #[arg(long, short)]
    nodes: Option<u32>,
    /// What feeds every draw: one seed is one run. `run` and `compare` also take a first and an end that is not run, such as `1..21`
    /// [default: 1, or what the file says]
    #[arg(long, short, value_name = "SEED|A..B", value_parser = seeds)]
    seed: Option<std::ops::Range<u64>>,
    /// Set one of the scenario's settings; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn one(seeds: &std::ops::Range<u64>) -> Result<u64, Usage> {
    match seeds.end - seeds.start {
        1 => Ok(seeds.start),
        _ => {
            Err(Usage("this takes one seed: pick it with --seed; `run` and `compare` with whole nodes and `swarm` take several".to_owned()))
        }
    }
}

#[derive(Args, Debug)]
struct Output {
    /// Write the report as JSON to a file; `-` writes it to the standard output in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|share| share.is_finite() && *share >= 0.0);
    match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    }
    .ok_or_else(|| "a share is written `0.05` or `5%`".to_owned())
}

/// A share that cannot be above one.
fn share_of_one(text: &str) -> Result<f64, String> {
    share(text).and_then(|share| if share <= 1.0 { Ok(share) } else { Err("it is from 0 to 1, or to 100%".to_owned()) })
}

fn plant(text: &str) -> Result<Plant, String> {
    let names: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
    Plant::ALL.into_iter().find(|plant| plant.name() == text).ok_or_else(|| format!("the bugs are: {}", names.join(", ")))
}

pub(crate) fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| "seeds are one number or a range such as 0..500".to_owned());
    let range = match text.split_once("..") {
        Some((first, end)) => number(first)?..number(end)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    if range.is_empty() { Err("there is no seed in this range".to_owned()) } else { Ok(range) }
}

/// A mistake of the person who typed.
struct Usage(String);

/// Runs the command with nodes of a kind; gives its exit code.
pub fn main<H: Host>() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes. When even the terminal is gone there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    quiet_panics();
    let done = match cli.command {
        Command::List => list(),
        Command::Show { scenario, size, schedule } => show(&scenario, &size, schedule),
        Command::Run { scenario, size, output, files, threads, plant } => {
            results::run::<H>(&scenario, &size, &output, &files, threads, plant)
        }
        Command::Real(args) => real::run::<H>(&args),
        Command::RealMembership(args) => members::run(&args),
        Command::Swarm { seeds, threads, failures_max, plant, output } => {
            swarm::run::<H>(seeds, threads.max(1), failures_max.max(1), plant, &output)
        }
        Command::Check { scenario, size, plant, output } => check::<H>(&scenario, &size, plant, &output),
        Command::Compare { base, other, size, set_other, worse, metrics, threads, output } => {
            let other = variants::Other { name: other.as_deref(), set: &set_other };
            variants::compare::<H>(&base, other, &size, comparison::Limit { worse, metrics: &metrics }, threads, &output)
        }
        Command::Table { paths, out, threads, quiet } => table::run::<H>(&paths, out.as_deref(), threads, quiet),
        Command::Minimize { scenario, size, plant, out, runs_max, output } => {
            minimize::<H>(&scenario, &size, plant, &out, runs_max, &output)
        }
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Usage(message)) => {
            complain(&format!("error: {message}"));
            ExitCode::from(USAGE)
        }
    }
}

/// Writes to the standard output. A reader that went away is no error: `meshwork-sim list | head` is a fair thing to type.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a line to the standard error, where nothing can be done about a failure.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn list() -> Result<u8, Usage> {
    let mut text = String::new();
    for scenario in scenarios::ALL {
        let _ = writeln!(text, "{:<16} {}", scenario.name, scenario.about);
    }
    for preset in scale::plan::ALL {
        let _ = writeln!(text, "{:<16} {}", preset.name, preset.about);
    }
    text.push_str("swarm            small clusters with random parameters and random faults, one for each seed\n");
    text.push_str("\nRun one with `meshwork-sim run NAME`; `meshwork-sim show NAME` tells what can be set in it.\n");
    say(&text);
    Ok(0)
}

fn show(name: &str, size: &Size, schedule: bool) -> Result<u8, Usage> {
    let source = Source::find(name)?;
    let job = source.one_job(size)?;
    let mut text = match &source {
        Source::Preset(scenario) => settings_of(scenario.name, scenario.about, &scenario.defaults()),
        Source::Overlay(preset) => settings_of(preset.name, preset.about, &preset.defaults()),
        _ => format!("{}: {}\n", job.name(), job.describe()),
    };
    let plan = match job {
        Job::Whole(plan) => plan,
        Job::Overlay(_) if schedule => {
            return Err(Usage(format!("`{name}` has no schedule of faults; who comes, goes and broadcasts follows from the settings")));
        }
        Job::Overlay(plan) => {
            show_overlay(&mut text, &plan);
            say(&text);
            return Ok(0);
        }
    };
    if schedule {
        say(&report::plan(&plan));
        return Ok(0);
    }
    let _ = writeln!(text, "\nWith {} nodes and seed {}:", plan.setup.nodes, plan.setup.seed);
    let mut names: Vec<&str> = plan.schedule.entries().iter().map(|entry| entry.what.name()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let times: Vec<u64> = plan.schedule.entries().iter().filter(|entry| entry.what.name() == name).map(|entry| entry.at).collect();
        let (Some(first), Some(last)) = (times.first(), times.last()) else { continue };
        let (first, last) = (*first as f64 / 1e6, *last as f64 / 1e6);
        let _ = writeln!(text, "  {:>6} x {name:<10} from {first:.1} s to {last:.1} s", times.len());
    }
    let _ = writeln!(
        text,
        "  quiet from {:.1} s on; everything must have come to rest by {:.1} s",
        plan.calm_at as f64 / 1e6,
        plan.ends_at() as f64 / 1e6
    );
    say(&text);
    Ok(0)
}

/// A preset with what can be set in it.
fn settings_of(name: &str, about: &str, defaults: &[(&str, &str)]) -> String {
    let mut text = format!("{name}: {about}\n\nSettings (--set key=value):\n");
    for (name, default) in defaults {
        let Some(key) = KEYS.iter().find(|key| key.name == *name) else { continue };
        let _ = writeln!(text, "  {name:<11} {default:<12} {} ({})", key.about, settings::describe(key.of));
    }
    text
}

/// What happens when in a run of the overlay alone.
fn show_overlay(text: &mut String, plan: &scale::Plan) {
    let setup = &plan.setup;
    let seconds = |micros: u64| micros as f64 / 1e6;
    let from = setup.works_from();
    let _ = writeln!(text, "\nWith {} nodes and seed {}: {}", setup.founders, setup.seed, plan.describe());
    let _ = writeln!(text, "  nodes join from 0.0 s to {:.1} s", seconds(setup.join_over));
    let _ = writeln!(text, "  {:>6} x broadcast  from {:.1} s to {:.1} s", setup.messages, seconds(from), seconds(from + setup.work));
    let _ = writeln!(text, "  quiet from {:.1} s to {:.1} s", seconds(from + setup.work), seconds(setup.ends_at()));
    let bytes = plan.bytes();
    let _ = writeln!(text, "  about {} of memory, {} B a node", large::gigabytes(bytes), bytes / u64::from(setup.nodes.max(1)));
}

/// What one run gave, with what it cost.
#[derive(Clone)]
struct Finished {
    outcome: Outcome,
    cpu_s: f64,
    replay: String,
    plan: String,
}

thread_local! {
    /// What the last panic of this thread said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic in a node is a result to report in one line. Its message is kept instead of printed.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map_or(String::new(), |location| format!(" ({location})"));
        PANIC.with(|kept| *kept.borrow_mut() = Some(format!("{message}{place}")));
    }));
}

/// Plays a run, for its results too if they are asked for; a panic becomes a failure.
fn play<H: Host>(job: &Job, results: Option<&mut Results>, watch: &mut dyn FnMut(run::Progress)) -> Result<Finished, Usage> {
    let cpu = cpu::Meter::start();
    let mut last = 0;
    let mut events = 0;
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut see = |progress: run::Progress| {
            (last, events) = (progress.now, progress.events);
            watch(progress);
        };
        let alone = |outcome| (outcome, 0.0);
        match (job, results) {
            (Job::Whole(plan), Some(results)) => run::observe::<H>(plan, results, &mut see).map(alone),
            (Job::Whole(plan), None) => run::run::<H>(plan, &mut see).map(alone),
            (Job::Overlay(plan), results) => Ok(large::play(plan, results, &mut see)),
        }
    }));
    let (outcome, helped) = match result {
        Ok(outcome) => outcome.map_err(Usage)?,
        Err(_) => (panicked(job.name(), job.seed(), job.nodes(), last, events), 0.0),
    };
    Ok(Finished { outcome, cpu_s: cpu.seconds() + helped, replay: job.replay().to_owned(), plan: job.describe() })
}

/// The outcome of a run in which a node panicked.
fn panicked(scenario: &str, seed: u64, nodes: u32, at: u64, events: u64) -> Outcome {
    let detail = PANIC.with(|kept| kept.borrow_mut().take()).unwrap_or_else(|| "no message".to_owned());
    Outcome {
        scenario: scenario.to_owned(),
        seed,
        nodes,
        digest: String::new(),
        events,
        virtual_s: at as f64 / 1e6,
        ok: false,
        failure: Some(Failure { class: Class::Panic, what: "panic".to_owned(), at, node: None, detail }),
        invariants: Vec::new(),
        metrics: Vec::new(),
        digests: Vec::new(),
    }
}

/// Adds what memory the run took, where the system tells.
fn weigh(finished: &mut Finished) {
    if let Some(bytes) = cpu::memory_max() {
        let outcome = &mut finished.outcome;
        outcome.metrics.push(Metric { name: "memory", value: (bytes as f64 / 1e6).round(), unit: "MB" });
        outcome.metrics.push(Metric { name: "memory_per_node", value: (bytes / u64::from(outcome.nodes.max(1))) as f64, unit: "B" });
    }
}

/// Names the failure in one line and gives the exit code.
fn verdict(finished: &Finished) -> u8 {
    match &finished.outcome.failure {
        None => 0,
        Some(failure) => {
            complain(&report::line(finished, failure));
            failure.class.exit_code()
        }
    }
}

/// Writes the report where it was asked for.
fn give(output: &Output, table: &str, json: &str) -> Result<(), Usage> {
    match &output.json {
        Some(path) if path.as_os_str() == "-" => say(json),
        // What was found is shown in any case.
        Some(path) => {
            say(table);
            write_file(path, json)?;
        }
        None => say(table),
    }
    Ok(())
}

/// Whether a file can be written later. What is in it stays, and one that was not there is not there after.
#[expect(clippy::disallowed_methods, reason = "it is tried on the file that was asked for")]
fn can_write(path: &Path) -> Result<(), Usage> {
    let was_there = path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|error| Usage(format!("cannot write {}: {error}", path.display())))?;
    if !was_there {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a report is written to the file that was asked for")]
fn write_file(path: &Path, text: &str) -> Result<(), Usage> {
    std::fs::write(path, text).map_err(|error| Usage(format!("cannot write {}: {error}", path.display())))
}

fn check<H: Host>(name: &str, size: &Size, plant: Option<Plant>, output: &Output) -> Result<u8, Usage> {
    let source = Source::find(name)?;
    let job = source.one_job(size)?;
    let mut bar = progress::Bar::start(output.quiet, &job);
    let mut plan = match job {
        Job::Whole(plan) => *plan,
        Job::Overlay(plan) => {
            bar.finish();
            // Once on one thread and once on two.
            let on = |shards| {
                let mut plan = plan.clone();
                plan.setup.shards = shards;
                play::<H>(&Job::Overlay(plan), None, &mut |_| {})
            };
            return compare(vec![on(1)?, on(2)?], output);
        }
    };
    planted(&mut plan, plant);
    let cpu = cpu::Meter::start();
    let twice = catch_unwind(AssertUnwindSafe(|| run::twice::<H>(&plan, &mut |progress| bar.show(progress))));
    bar.finish();
    let (mut outcome, divergence) = match twice {
        Ok(twice) => twice.map_err(Usage)?,
        Err(_) => (panicked(&plan.scenario, plan.setup.seed, plan.setup.nodes, 0, 0), None),
    };
    let text = match &divergence {
        None => format!(
            "Both runs are the same: {} events and {} seconds compared, digest {}.\n",
            outcome.events,
            outcome.digests.len(),
            outcome.digest
        ),
        Some(run::Divergence { second, index, one, two }) => {
            let step = |step: &Option<crate::world::Step>| match step {
                None => "nothing more in that second".to_owned(),
                Some(step) => {
                    let from =
                        if step.from == crate::schedule::SCHEDULE { "the schedule".to_owned() } else { format!("node {}", step.from) };
                    format!("at {:.6} s, {} at node {} from {from}", step.at as f64 / 1e6, step.what(), step.node)
                }
            };
            let (first, other) = (step(one), step(two));
            let node = one.or(*two).map(|step| step.node);
            let detail =
                format!("two runs of the same seed differ from event {index} of second {second} on: {first}; in the other run: {other}");
            let at = one.or(*two).map_or(second * 1_000_000, |step| step.at);
            outcome.ok = false;
            outcome.failure = Some(Failure { class: Class::NonDeterminism, what: "check".to_owned(), at, node, detail: detail.clone() });
            format!("The runs differ in second {second}, from event {index} of it on:\n  {first}\n  {other}\n")
        }
    };
    let finished = Finished { outcome, cpu_s: cpu.seconds(), replay: plan.replay.clone(), plan: plan.describe() };
    give(output, &text, &report::json(&finished))?;
    // What the runs found is not what is asked here.
    Ok(if divergence.is_some() || finished.outcome.failure.as_ref().is_some_and(|failure| failure.class == Class::Panic) {
        verdict(&finished)
    } else {
        0
    })
}

/// Plants a bug, if one was asked for, and says so in what repeats the run.
fn planted(plan: &mut Plan, plant: Option<Plant>) {
    if let Some(plant) = plant {
        plan.plant(plant);
        let _ = write!(plan.replay, " --plant {}", plant.name());
    }
}

fn minimize<H: Host>(name: &str, size: &Size, plant: Option<Plant>, out: &Path, runs_max: u32, output: &Output) -> Result<u8, Usage> {
    let source = Source::find(name)?;
    let mut plan = source.one_plan(size)?;
    planted(&mut plan, plant);
    // Before the search: what cannot be written at its end shall be known now.
    can_write(out)?;
    let cpu = cpu::Meter::start();
    let mut bar = progress::Search::start(output.quiet, runs_max);
    let mut trouble = None;
    let mut fails = |plan: &Plan| match play::<H>(&Job::Whole(Box::new(plan.clone())), None, &mut |_| {}) {
        Ok(finished) => finished.outcome.failure,
        Err(usage) => {
            trouble.get_or_insert(usage);
            None
        }
    };
    let found = minimize::minimize(&plan, runs_max, &mut fails, &mut |progress| bar.show(progress));
    bar.finish();
    let Some(smaller) = found else {
        if let Some(usage) = trouble {
            return Err(usage);
        }
        return Err(Usage(format!("{} does not fail, so there is nothing to make smaller", plan.replay)));
    };
    write_file(out, &report::plan(&smaller.plan))?;
    let text = report::minimized(&plan, &smaller, out, cpu.seconds());
    give(output, &text, &report::minimized_json(&plan, &smaller, out, cpu.seconds()))?;
    Ok(0)
}

fn compare(mut runs: Vec<Finished>, output: &Output) -> Result<u8, Usage> {
    let (Some(mut second), Some(first)) = (runs.pop(), runs.pop()) else { return Ok(0) };
    let (one, two) = (&first.outcome.digests, &second.outcome.digests);
    let differs = (0..one.len().max(two.len())).find(|index| one.get(*index) != two.get(*index));
    if let Some(index) = differs.or((first.outcome.digest != second.outcome.digest).then_some(one.len())) {
        let detail = format!("two runs of the same seed first differ within second {index} of virtual time");
        let at = index as u64 * 1_000_000;
        second.outcome.ok = false;
        second.outcome.failure = Some(Failure { class: Class::NonDeterminism, what: "check".to_owned(), at, node: None, detail });
    }
    let same = if differs.is_none() { "Both runs are the same" } else { "The runs differ" };
    let text = format!("{same}: {} events and {} seconds compared, digest {}.\n", second.outcome.events, two.len(), second.outcome.digest);
    give(output, &text, &report::json(&second))?;
    Ok(verdict(&second))
}

/// Locks; nothing that holds a lock here can panic, and if it did, a report is still worth more than none.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_are_a_number_or_a_range() {
        assert_eq!(seeds("7"), Ok(7..8));
        assert_eq!(seeds("0..500"), Ok(0..500));
        assert!(seeds("5..5").is_err());
        assert!(seeds("5..").is_err());
        assert!(seeds("x").is_err());
    }

    #[test]
    fn mistakes_come_with_a_suggestion() {
        let size = |set: &[&str], nodes| Size { nodes, seed: None, set: set.iter().map(|text| (*text).to_owned()).collect() };
        let plan = |name, size: &Size| Source::find(name).and_then(|source| source.job(size, 1, &[], 1));
        let mistake = |name, size| plan(name, &size).err().map(|Usage(message)| message).unwrap_or_default();
        assert!(mistake("brodcast", size(&[], None)).contains("Did you mean `broadcast`?"));
        assert!(mistake("broadcast", size(&["message=3"], None)).contains("Did you mean `messages`?"));
        assert!(mistake("broadcast", size(&[], Some(2))).contains("3 to 20000 nodes"));
        let refused = mistake("broadcast", size(&[], Some(1_000_000)));
        assert!(refused.contains("run scale --nodes 1000000") && refused.contains("GB"), "{refused}");
    }

    #[test]
    fn every_scenario_can_be_planned_at_every_size() {
        for scenario in scenarios::ALL {
            for nodes in [3, 4, 10, 100] {
                let plan = scenario.plan(nodes, 5, &[]).unwrap();
                assert!(plan.schedule.entries().is_sorted_by_key(|entry| entry.at), "{}", scenario.name);
                let last = plan.schedule.entries().last().unwrap().at;
                assert!(plan.calm_at >= last && plan.calm_at > 0, "{} is calm after everything", scenario.name);
                assert_eq!(plan.schedule, scenario.plan(nodes, 5, &[]).unwrap().schedule);
            }
            for (name, _) in scenario.defaults() {
                assert!(KEYS.iter().any(|key| key.name == name), "{name}");
            }
        }
    }
}
