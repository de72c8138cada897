//! Meshwork's replicated state beside Automerge, Yrs and Loro: a map in memory whose writes are shipped to another one, in one thread and without a network.
//!
//! Subjects take turns in rounds. Figures are medians over rounds, and ratios are medians of the ratios within each round.

#[path = "../machine.rs"]
mod machine;
#[path = "../maps.rs"]
mod maps;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use serde_json::json;

use machine::{cpu_time, machine, median, version};
use maps::{AutomergeMap, LoroMaps, Map, Meshwork, YrsMap};

/// What a subject says when it cannot go on.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

const OVERWRITES: u64 = 10_000;
/// Writes that travel together.
const FLUSH: usize = 8;
const BULK: usize = 256;
/// The form of the JSON; it changes when a field changes its meaning.
const SCHEMA: u32 = 1;

#[derive(Parser)]
#[command(about = "Compares Meshwork's replicated state with Automerge, Yrs and Loro")]
struct Args {
    /// Keys of the map, 256 to 100000
    #[arg(long, default_value_t = 10_000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(256..=100_000))]
    keys: u32,
    /// Updates of one key that arrive in a measurement, and of 256 keys a sixteenth as many, 16 to 100000
    #[arg(long, default_value_t = 3_200, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(16..=100_000))]
    updates: u32,
    /// Rounds, 1 to 100
    #[arg(long, default_value_t = 5, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// Write rows and every round as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Makes a map; the number tells replicas apart.
type Make = fn(u64) -> Result<Box<dyn Map>, Failure>;

const SUBJECTS: [(&str, Make); 4] = [
    ("meshwork", |number| Ok(Box::new(Meshwork::new(number)?))),
    ("automerge", |number| Ok(Box::new(AutomergeMap::new(number)))),
    ("yrs", |number| Ok(Box::new(YrsMap::new(number)))),
    ("loro", |number| Ok(Box::new(LoroMaps::new(number)?))),
];

/// What one round of one subject has found.
#[derive(Clone, Copy, Serialize)]
struct Found {
    /// Bytes that others must have of a write.
    delta_bytes: f64,
    /// The same for each of eight that travel together.
    flush_bytes: f64,
    /// Writes of others for a second of processor time, one in each update.
    applies_per_cpu_s: f64,
    /// The same with 256 in each.
    bulk_applies_per_cpu_s: f64,
    /// The whole map after 10,000 writes of its one key.
    overwrites_bytes: f64,
    /// The same in the shortest form that the subject has.
    overwrites_least_bytes: f64,
}

type Figure = (&'static str, fn(&Found) -> f64, bool);

/// Name, figure, and whether more is better.
const FIGURES: [Figure; 6] = [
    ("delta_bytes", |found| found.delta_bytes, false),
    ("flush_bytes", |found| found.flush_bytes, false),
    ("applies_per_cpu_s", |found| found.applies_per_cpu_s, true),
    ("bulk_applies_per_cpu_s", |found| found.bulk_applies_per_cpu_s, true),
    ("overwrites_bytes", |found| found.overwrites_bytes, false),
    ("overwrites_least_bytes", |found| found.overwrites_least_bytes, false),
];

/// A key of 16 bytes; consecutive ones are in no order.
fn key(number: usize) -> String {
    format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn measure(make: Make, args: &Args) -> Result<Found, Failure> {
    let keys = args.keys as usize;
    let (mut writer, mut reader) = (make(1)?, make(2)?);
    for first in (0..keys).step_by(BULK) {
        let writes: Vec<(String, u64)> = (first..keys.min(first + BULK)).map(|number| (key(number), 0)).collect();
        reader.apply(&writer.write(&writes)?)?;
    }
    reader.watch();
    let mut serial = 0;
    // So many updates of so many keys each, in no order.
    let mut updates = |count: usize, together: usize| {
        let one = |_| {
            serial += 1;
            let first = serial as usize * 7_919 % keys;
            let writes: Vec<(String, u64)> = (first..first + together).map(|number| (key(number % keys), serial)).collect();
            writer.write(&writes)
        };
        (0..count).map(one).collect::<Result<Vec<Vec<u8>>, Failure>>()
    };
    let mut rate = |updates: &[Vec<u8>], together: usize| -> Result<f64, Failure> {
        let seen = reader.seen();
        let from = cpu_time();
        for update in updates {
            reader.apply(update)?;
        }
        let busy = cpu_time().saturating_sub(from);
        match reader.seen() - seen {
            all if all == updates.len() * together => Ok(all as f64 / busy.as_secs_f64().max(1e-9)),
            some => Err(format!("{some} of {} writes were seen", updates.len() * together).into()),
        }
    };
    let mean =
        |updates: &[Vec<u8>], together: usize| updates.iter().map(Vec::len).sum::<usize>() as f64 / (updates.len() * together) as f64;
    let (single, flushed) = (updates(args.updates as usize, 1)?, updates(FLUSH, FLUSH)?);
    let bulk = updates(args.updates as usize / 16, BULK)?;
    let (delta_bytes, flush_bytes) = (mean(&single, 1), mean(&flushed, FLUSH));
    let applies_per_cpu_s = rate(&single, 1)?;
    rate(&flushed, FLUSH)?;
    let bulk_applies_per_cpu_s = rate(&bulk, BULK)?;

    let mut one = make(3)?;
    for number in 0..OVERWRITES {
        one.write(&[(key(1), number)])?;
    }
    let (whole, least) = one.state_bytes()?;
    Ok(Found {
        delta_bytes,
        flush_bytes,
        applies_per_cpu_s,
        bulk_applies_per_cpu_s,
        overwrites_bytes: whole as f64,
        overwrites_least_bytes: least as f64,
    })
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    figure: &'static str,
    value: f64,
    /// How many times better Meshwork is.
    ratio: Option<f64>,
}

fn compare(args: &Args) -> Result<(), Failure> {
    let machine = machine();
    if cfg!(debug_assertions) {
        eprintln!("built without optimization; the figures say nothing");
    }
    let mut found: Vec<(&str, Vec<Found>)> = SUBJECTS.map(|(name, _)| (name, Vec::new())).into();
    for round in 1..=args.rounds {
        for ((name, make), (_, rounds)) in SUBJECTS.into_iter().zip(&mut found) {
            rounds.push(measure(make, args).map_err(|error| format!("{name}: {error}"))?);
            eprintln!("round {round} of {}: {name}", args.rounds);
        }
    }
    let ours = found[0].1.clone();
    let mut rows = Vec::new();
    println!("{:<24}{:<12}{:>12}   meshwork better by", "figure", "case", "");
    for (figure, of, is_more_better) in FIGURES {
        for (case, rounds) in &found {
            let value = median(rounds.iter().map(of));
            let ratios = ours.iter().zip(rounds).map(|(ours, theirs)| match is_more_better {
                true => of(ours) / of(theirs),
                false => of(theirs) / of(ours),
            });
            let ratio = (*case != "meshwork").then(|| median(ratios));
            let shown = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            println!("{figure:<24}{case:<12}{value:>12.1}   {shown}");
            rows.push(Row { case, figure, value, ratio });
        }
    }
    let versions = ["meshwork", "automerge", "yrs", "loro"].map(|package| (package, version(package)));
    println!("\n{}", versions.map(|(package, version)| format!("{package} {version}")).join(", "));
    if let Some(path) = &args.json {
        let document = json!({
            "schema": SCHEMA,
            "kind": "compare-state",
            "machine": machine,
            "versions": versions.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "settings": { "keys": args.keys, "updates": args.updates, "rounds": args.rounds, "overwrites": OVERWRITES },
            "rows": rows,
            "rounds": found.iter().map(|(case, rounds)| json!({ "case": case, "found": rounds })).collect::<Vec<_>>(),
        });
        std::fs::write(path, format!("{document:#}\n"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state: {error}");
            ExitCode::FAILURE
        }
    }
}
