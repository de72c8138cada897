//! What the cores cost in instructions and allocations, against what is on record in `baseline.txt`. The operations are those of `channels/benches/cases`,
//! `overlay/benches/cases` and `crdt/benches/cases`, of which the benches beside them measure the times, and of `simulations/benches/cases`.
//!
//! ```text
//! cargo bench --package meshwork-benches             compares, and fails when something became worse
//! cargo bench --package meshwork-benches -- update   puts on record what is counted now
//! ```
//!
//! Valgrind counts instructions. Every operation is repeated in two processes, in the second one twice as often, and the difference is what is counted: so
//! the start of a process and the making of an operation are left out. Allocations are counted in this process. The counter of allocations stands between the
//! operations and the allocator, so an allocation costs some instructions more here than it does elsewhere.
//!
//! Instructions differ between architectures, compilers and, a little, C libraries, but hardly from run to run. An instruction count fails above
//! 5 % of what is on record, or 15 % when that was counted with another compiler; allocations fail with the first one more.

#![expect(clippy::disallowed_methods, reason = "the program starts others and keeps a file")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use allocation_counter::measure;

#[path = "../channels/benches/cases/mod.rs"]
mod channels;
#[path = "../crdt/benches/cases/mod.rs"]
mod crdt;
#[path = "../overlay/benches/cases/mod.rs"]
mod overlay;
#[path = "../simulations/benches/cases/mod.rs"]
mod simulations;

/// How often an operation is repeated.
const TIMES: u64 = 1_000;
/// By how many percent instructions may exceed what is on record.
const TOLERANCE: f64 = 5.0;
/// The same when another compiler made the record.
const TOLERANCE_COMPILERS: f64 = 15.0;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt");
const UPDATE: &str = "cargo bench --package meshwork-benches -- update";
/// The C library chooses how to copy by the processor: this leaves what every processor of an architecture has.
const PLAIN_COPIES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM";

/// As in the modules above.
type Case = (&'static str, fn() -> Box<dyn FnMut()>);
type Failure = Box<dyn std::error::Error>;

/// What one operation costs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// None when nothing counts them here.
    instructions: Option<u64>,
    /// With three digits behind the point: what grows now and then allocates now and then.
    allocations: f64,
}

/// What is on record, and what it was counted with.
struct Record {
    compiler: String,
    target: String,
    costs: BTreeMap<String, Cost>,
}

fn main() -> Result<ExitCode, Failure> {
    // Cargo adds an argument of its own.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["repeat", name, times] => repeat(name, times.parse()?),
        [] => compare(&count()?),
        ["update"] => update(&count()?),
        _ => Err(format!("no argument, or `update`: {arguments:?}").into()),
    }
}

fn cases() -> impl Iterator<Item = Case> {
    channels::all().into_iter().chain(overlay::all()).chain(crdt::all()).chain(simulations::all())
}

/// What runs under valgrind.
fn repeat(name: &str, times: u64) -> Result<ExitCode, Failure> {
    let (_, make) = cases().find(|(known, _)| *known == name).ok_or("no such case")?;
    let mut operation = make();
    (0..times).for_each(|_| operation());
    Ok(ExitCode::SUCCESS)
}

/// Counts everything that can be counted here.
fn count() -> Result<Vec<(&'static str, Cost)>, Failure> {
    let has_valgrind = match Command::new("valgrind").arg("--version").stdout(Stdio::null()).status() {
        Ok(status) => status.success(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if !has_valgrind {
        println!("INSTRUCTIONS ARE NOT COUNTED: there is no valgrind here. Allocations are.");
    }
    let cost = |(name, make): Case| {
        let instructions = if has_valgrind { Some(instructions(name)?) } else { None };
        let mut operation = make();
        let counted = measure(|| (0..TIMES).for_each(|_| operation()));
        Ok((name, Cost { instructions, allocations: counted.count_total as f64 / TIMES as f64 }))
    };
    cases().map(cost).collect()
}

fn instructions(name: &str) -> Result<u64, Failure> {
    let start = |times: u64| {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe()?).args([
            "repeat",
            name,
            &times.to_string(),
        ]);
        // The environment lies on the stack, and moves what is behind it.
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("GLIBC_TUNABLES", PLAIN_COPIES);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    // Both at once, each on a processor of its own.
    let processes = [start(TIMES)?, start(2 * TIMES)?];
    let mut counted = [0; 2];
    for (process, counted) in processes.into_iter().zip(&mut counted) {
        let output = process.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let number = text.lines().find_map(|line| line.split_once("Collected :")).and_then(|(_, number)| number.trim().parse::<u64>().ok());
        *counted = number.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind counted nothing for {name}:\n{text}"))?;
    }
    Ok((counted[1].saturating_sub(counted[0]) + TIMES / 2) / TIMES)
}

fn compare(counted: &[(&'static str, Cost)]) -> Result<ExitCode, Failure> {
    let record = read()?;
    let (compiler, target) = (compiler()?, target());
    let is_comparable = record.target == target;
    if !is_comparable {
        println!("Instructions are not compared: those on record are of {}, and this is {target}.", record.target);
    }
    let tolerance = if record.compiler == compiler { TOLERANCE } else { TOLERANCE_COMPILERS };
    if record.compiler != compiler {
        println!("Counted with {compiler}, on record with {}: {tolerance} % are tolerated instead of {TOLERANCE} %.", record.compiler);
    }
    let (mut worse, mut better) = (0, 0);
    println!("{:<42} {:>12} {:>12} {:>12} {:>12}", "one operation", "instructions", "on record", "allocations", "on record");
    for (name, cost) in counted {
        let Some(known) = record.costs.get(*name) else {
            println!("{name:<42} is not on record: {UPDATE}");
            worse += 1;
            continue;
        };
        let mut verdict = String::new();
        if let (Some(now), Some(then), true) = (cost.instructions, known.instructions, is_comparable) {
            let change = (now as f64 / then as f64 - 1.0) * 100.0;
            if change > tolerance {
                worse += 1;
                write!(verdict, "  WORSE: {change:+.1} % instructions")?;
            } else if change < -tolerance {
                better += 1;
                write!(verdict, "  better: {change:+.1} % instructions")?;
            }
        }
        if cost.allocations > known.allocations {
            worse += 1;
            write!(verdict, "  WORSE: {:+.3} allocations", cost.allocations - known.allocations)?;
        } else if cost.allocations < known.allocations {
            better += 1;
            write!(verdict, "  better: {:+.3} allocations", cost.allocations - known.allocations)?;
        }
        let number = |instructions: Option<u64>| instructions.map_or("-".to_owned(), |instructions| instructions.to_string());
        let (now, then) = (number(cost.instructions), number(known.instructions));
        println!("{name:<42} {now:>12} {then:>12} {:>12.3} {:>12.3}{verdict}", cost.allocations, known.allocations);
    }
    for name in record.costs.keys().filter(|name| counted.iter().all(|(counted, _)| counted != name)) {
        println!("{name:<42} is on record and not counted any more: {UPDATE}");
        worse += 1;
    }
    if better > 0 {
        println!("{better} became better: update the baseline with `{UPDATE}`");
    }
    if worse > 0 {
        println!("{worse} do not hold. If it is worth it, `{UPDATE}` and say why in the commit.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn update(counted: &[(&'static str, Cost)]) -> Result<ExitCode, Failure> {
    let mut text = format!("# What one operation costs. Made by `{UPDATE}`.\ncompiler {}\ntarget {}\n", compiler()?, target());
    writeln!(text, "\n# {:<40} {:>12} {:>12}", "operation", "instructions", "allocations")?;
    for (name, cost) in counted {
        let instructions = cost.instructions.ok_or("without valgrind there is nothing to put on record")?;
        writeln!(text, "{name:<42} {instructions:>12} {:>12.3}", cost.allocations)?;
    }
    fs::write(BASELINE, &text)?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn read() -> Result<Record, Failure> {
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}; make it with `{UPDATE}`"))?;
    let mut record = Record { compiler: String::new(), target: String::new(), costs: BTreeMap::new() };
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(compiler) = line.strip_prefix("compiler ") {
            record.compiler = compiler.to_owned();
        } else if let Some(target) = line.strip_prefix("target ") {
            record.target = target.to_owned();
        } else if let [name, instructions, allocations] = line.split_whitespace().collect::<Vec<_>>()[..] {
            let cost = Cost { instructions: Some(instructions.parse()?), allocations: allocations.parse()? };
            record.costs.insert(name.to_owned(), cost);
        } else {
            return Err(format!("{BASELINE}: a name and two numbers, not {line:?}").into());
        }
    }
    Ok(record)
}

fn compiler() -> Result<String, Failure> {
    let output = Command::new(env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn target() -> String {
    format!("{} {}", env::consts::ARCH, env::consts::OS)
}
