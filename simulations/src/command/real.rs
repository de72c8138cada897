//! `meshwork-sim real`: a scenario on real processes, beside the same one in virtual time.
//!
//! The command makes the namespaces and starts itself again in one of them, the hub, where the devices of the nodes are made. That second process does the work; this one waits, and takes the namespaces away
//! again whatever becomes of it. The standard input of the second is a pipe from the first: when it ends, so does the run.

#![expect(clippy::disallowed_methods, reason = "it starts processes and waits for them")]

use std::path::{Path, PathBuf};

use clap::Args;

use super::source::Source;
use super::{Output, Size, Usage, can_write, give, say, share_of_one};
use crate::host::Host;
use crate::plan::Plan;
use crate::real::compare::{Figures, Side, distance};
use crate::real::wire::Carried;
use crate::real::{RealError, feasible};
use crate::run::{Class, Failure};

mod table;

/// The exit code where nothing was done because it is not permitted.
const SKIPPED: u8 = 77;
/// The exit code after ctrl-c.
const INTERRUPTED: u8 = 130;
/// The command of the nodes.
const BINARY: &str = "meshwork";

#[derive(Args, Debug)]
#[command(after_help = "\
It takes as long as the scenario says: `broadcast` 40 s and more for each seed. --set form=10s --set work=10s --set quiet=2s makes it shorter. It needs root, the command `ip` and /dev/net/tun.

Fails with 2 when the nodes of one side deliver more than those of the other, and when --ks-max is exceeded.")]
pub(super) struct RealArgs {
    /// A scenario, as `list` names it; a scenario file, FILE.toml; a plan, FILE.json; or `swarm`
    scenario: String,
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    output: Output,
    /// The command `meshwork` [default: the one beside this command]
    #[arg(long, value_name = "PATH")]
    meshwork: Option<PathBuf>,
    /// Fail when the Kolmogorov-Smirnov distance of the delivery latencies of a seed is above this
    #[arg(long, value_name = "DISTANCE", value_parser = share_of_one)]
    ks_max: Option<f64>,
    /// Write the comparison to a page
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// The prefix of the namespaces that there are already
    #[arg(long, hide = true)]
    inside: Option<String>,
}

/// A seed on both sides.
struct Pair {
    seed: u64,
    simulated: Side,
    /// Why the simulated run failed, if it did.
    failure: Option<Failure>,
    real: Side,
    carried: Carried,
}

impl Pair {
    fn distance(&self) -> f64 {
        distance(&self.simulated.latencies, &self.real.latencies)
    }

    /// Whether as much was delivered.
    fn is_same(&self) -> bool {
        let of = |side: &Side| (side.messages, side.owed, side.figures().delivery);
        of(&self.simulated) == of(&self.real)
    }
}

/// All seeds, with what was asked for.
struct Comparison {
    command: String,
    plan: String,
    ks_max: Option<f64>,
    /// The page that was asked for.
    markdown: Option<String>,
    pairs: Vec<Pair>,
}

impl Comparison {
    /// All seeds together.
    fn sum(&self) -> (Figures, Figures, f64) {
        let (mut simulated, mut real) = (Side::default(), Side::default());
        for pair in &self.pairs {
            simulated.add(&pair.simulated);
            real.add(&pair.real);
        }
        (simulated.figures(), real.figures(), distance(&simulated.latencies, &real.latencies))
    }

    /// What is not as it must be, seed by seed.
    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for pair in &self.pairs {
            let Pair { seed, simulated, real, failure, .. } = pair;
            if let Some(Failure { class, what, detail, .. }) = failure {
                failures.push(format!("FAIL {} {what}: seed {seed}, simulated: {detail}", class.name()));
            }
            if !pair.is_same() {
                let of = |side: &Side| format!("{} broadcasts, {:.6} of {} deliveries", side.messages, side.delivery, side.owed);
                failures.push(format!("FAIL expectation delivery: seed {seed}: simulated {}; real {}", of(simulated), of(real)));
            }
            if let Some(max) = self.ks_max.filter(|max| pair.distance() > *max) {
                failures.push(format!("FAIL expectation ks: seed {seed}: is {:.3}, at most {max} is expected", pair.distance()));
            }
        }
        failures
    }
}

/// Carries a scenario out, for each seed.
pub(super) fn run<H: Host>(args: &RealArgs) -> Result<u8, Usage> {
    let source = Source::find(&args.scenario)?;
    let [variant] = &source.variants(&args.size)[..] else {
        return Err(Usage("the file sweeps settings and this takes one combination: pick it with --set".to_owned()));
    };
    let seeds = source.seeds(&args.size);
    let plans: Vec<Plan> = seeds.clone().map(|seed| source.plan(&args.size, seed, variant)).collect::<Result<_, _>>()?;
    for plan in &plans {
        feasible::check(plan).map_err(|error| Usage(error.to_string()))?;
    }
    let binary = binary(args.meshwork.as_deref())?;
    // Before minutes pass: what cannot be written at their end shall be known now.
    for file in args.markdown.iter().chain(args.output.json.iter().filter(|path| path.as_os_str() != "-")) {
        can_write(file)?;
    }
    let Some(nodes) = plans.iter().map(|plan| plan.setup.nodes).max() else { return Ok(0) };
    let done = match &args.inside {
        None => outside(nodes),
        Some(prefix) => inside::<H>(args, prefix, nodes, &plans, &binary).and_then(|pairs| {
            let first = plans.first().map(|plan| (plan.replay.replacen(" run ", " real ", 1), plan.describe())).unwrap_or_default();
            let command = match seeds.end - seeds.start {
                1 => first.0,
                _ => first.0.replacen(&format!("--seed {}", seeds.start), &format!("--seed {}..{}", seeds.start, seeds.end), 1),
            };
            let markdown = args.markdown.as_deref().map(|path| path.display().to_string());
            let comparison = Comparison { command, plan: first.1, ks_max: args.ks_max, markdown, pairs };
            report(args, &comparison).map_err(|Usage(problem)| RealError::Failed(problem))
        }),
    };
    match done {
        Ok(code) => Ok(code),
        Err(RealError::Skipped(why)) => {
            say(&format!("skipped: {why}\n"));
            Ok(SKIPPED)
        }
        Err(RealError::Interrupted) => Ok(INTERRUPTED),
        Err(error) => Err(Usage(error.to_string())),
    }
}

fn report(args: &RealArgs, comparison: &Comparison) -> Result<u8, Usage> {
    give(&args.output, &table::text(comparison), &table::json(comparison))?;
    if let Some(path) = &args.markdown {
        super::write_file(path, &table::markdown(comparison))?;
    }
    let failures = comparison.failures();
    failures.iter().for_each(|failure| super::complain(failure));
    Ok(if failures.is_empty() { 0 } else { Class::Expectation.exit_code() })
}

/// The command of the nodes: the one that was named, or the one beside this command.
fn binary(named: Option<&Path>) -> Result<PathBuf, Usage> {
    let how = "build it with `cargo build --release --package meshwork --features cli --bin meshwork`, or name it with --meshwork PATH";
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()
            .ok()
            .and_then(|me| Some(me.parent()?.join(BINARY)))
            .ok_or_else(|| Usage(format!("this command does not know where it is; {how}")))?,
    };
    match path.is_file() {
        true => path.canonicalize().map_err(|error| Usage(format!("cannot use {}: {error}", path.display()))),
        false => Err(Usage(format!("there is no {}: {how}", path.display()))),
    }
}

#[cfg(not(target_os = "linux"))]
fn outside(_nodes: u32) -> Result<u8, RealError> {
    Err(RealError::Skipped("only Linux has network namespaces".to_owned()))
}

#[cfg(not(target_os = "linux"))]
fn inside<H: Host>(_: &RealArgs, _: &str, nodes: u32, _: &[Plan], _: &Path) -> Result<Vec<Pair>, RealError> {
    outside(nodes).map(|_| Vec::new())
}

#[cfg(target_os = "linux")]
use linux::{inside, outside};

#[cfg(target_os = "linux")]
mod linux {
    use std::io::Read;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::process::{Command, ExitStatus, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    use super::super::PANIC;
    use super::super::progress::Bar;
    use super::{INTERRUPTED, Pair, RealArgs};
    use crate::host::Host;
    use crate::plan::Plan;
    use crate::real::carry::Machine;
    use crate::real::compare::Side;
    use crate::real::namespaces::{Names, Namespaces, clean};
    use crate::real::{RealError, failed};
    use crate::run;

    /// How often it is looked whether the second process has ended.
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    /// How long the second process may take to end when it was told to.
    const END_MAX: Duration = Duration::from_secs(10);

    /// A flag that is set when somebody asks this process to end.
    fn stop() -> Result<Arc<AtomicBool>, RealError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, stop.clone()).map_err(failed("listen for signals"))?;
        }
        Ok(stop)
    }

    /// Makes the namespaces and starts this command again in the hub.
    pub(super) fn outside(nodes: u32) -> Result<u8, RealError> {
        let stop = stop()?;
        let namespaces = Namespaces::make(nodes)?;
        let names = namespaces.names();
        let me = std::env::current_exe().map_err(failed("find this command"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &names.hub()]).arg(me).args(std::env::args_os().skip(1)).args(["--inside", names.prefix()]);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(failed("run ip"))?;
        // It ends with the input that it gets from here.
        let mut input = child.stdin.take();
        let mut asked: Option<Instant> = None;
        let status: ExitStatus = loop {
            if let Some(status) = child.try_wait().map_err(failed("wait for the run"))? {
                break status;
            }
            if asked.is_none() && stop.load(Ordering::Relaxed) {
                input = None;
                asked = Some(Instant::now());
            }
            if asked.is_some_and(|asked| asked.elapsed() > END_MAX) {
                // Cleaning up ends it.
                return Err(RealError::Interrupted);
            }
            std::thread::sleep(LOOK_EVERY);
        };
        drop(input);
        Ok(match status.code() {
            _ if asked.is_some() => INTERRUPTED,
            Some(code) => u8::try_from(code).unwrap_or(1),
            None => return Err(RealError::Failed(format!("the run was ended from outside: {status}"))),
        })
    }

    /// Carries the plans out, in the hub.
    pub(super) fn inside<H: Host>(
        args: &RealArgs,
        prefix: &str,
        nodes: u32,
        plans: &[Plan],
        binary: &Path,
    ) -> Result<Vec<Pair>, RealError> {
        let stop = stop()?;
        let orphaned = stop.clone();
        let names = Names::of(prefix, nodes).ok_or_else(|| RealError::Failed("--inside is for this command alone".to_owned()))?;
        std::thread::Builder::new()
            .name("orphaned".to_owned())
            .spawn(move || {
                let mut input = std::io::stdin().lock();
                // Nothing is ever written; the end of it is the end of the first process.
                while input.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
                orphaned.store(true, Ordering::Relaxed);
            })
            .map_err(failed("start a thread"))?;
        let done = catch_unwind(AssertUnwindSafe(|| carry_out::<H>(args, names.clone(), nodes, plans, binary, stop)));
        let done = done.unwrap_or_else(|_| {
            let said = PANIC.with(|kept| kept.borrow_mut().take());
            Err(RealError::Failed(format!("a node or the command panicked: {}", said.unwrap_or_else(|| "no message".to_owned()))))
        });
        if matches!(done, Err(RealError::Interrupted)) {
            // The first process may not be there to do it.
            clean(&names);
        }
        done
    }

    fn carry_out<H: Host>(
        args: &RealArgs,
        names: Names,
        nodes: u32,
        plans: &[Plan],
        binary: &Path,
        stop: Arc<AtomicBool>,
    ) -> Result<Vec<Pair>, RealError> {
        let machine = Machine::new(binary, names, nodes, stop)?;
        let mut pairs = Vec::new();
        for plan in plans {
            let seed = plan.setup.seed;
            let (outcome, record) = run::recorded::<H>(plan, &mut |_| {}).map_err(RealError::Failed)?;
            let mut bar = Bar::named(args.output.quiet, plan.calm_at + plan.quiet_min, format!("{} seed {seed}", plan.scenario));
            let carrying = machine.carry_out(plan, &mut |progress| {
                bar.tell(progress.now, || {
                    let crate::real::carry::Progress { now, alive, sent, delivered } = progress;
                    format!("{} s, {alive} processes, {sent} broadcasts, {delivered} deliveries", now / crate::plan::SECOND)
                });
            });
            bar.finish();
            let carrying = carrying?;
            let (simulated, failure) = (Side::of(&record), outcome.failure);
            pairs.push(Pair { seed, simulated, failure, real: carrying.side, carried: carrying.carried });
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fails_when_less_is_delivered_or_the_latencies_are_too_far_apart() {
        let side = |delivery, latencies: &[u64]| Side { messages: 2, owed: 4, delivery, latencies: latencies.to_vec(), last_hop: 1.0 };
        let failures = |simulated, real, ks_max| {
            let pairs = vec![Pair { seed: 3, simulated, failure: None, real, carried: Carried::default() }];
            Comparison { command: String::new(), plan: String::new(), ks_max, markdown: None, pairs }.failures()
        };
        assert!(failures(side(1.0, &[1, 2]), side(1.0, &[1, 3]), Some(0.5)).is_empty());
        assert!(failures(side(1.0, &[1, 2]), side(1.0, &[7, 8]), None).is_empty(), "nothing was asked of the distance");
        let far = failures(side(1.0, &[1, 2]), side(1.0, &[7, 8]), Some(0.5));
        assert!(far.len() == 1 && far[0].contains("seed 3: is 1.000, at most 0.5"), "{far:?}");
        assert!(failures(side(1.0, &[1]), side(0.75, &[1]), None)[0].contains("delivery"));
    }

    #[test]
    fn a_command_that_is_not_there_is_told_with_how_to_build_it() {
        let Err(Usage(missing)) = binary(Some(Path::new("/nowhere/meshwork"))) else { panic!("there is one") };
        assert!(
            missing.contains("/nowhere/meshwork")
                && missing.contains("cargo build --release --package meshwork --features cli --bin meshwork"),
            "{missing}"
        );
    }
}
