//! `meshwork-sim real-membership`: membership measured on real processes, beside serf.
//!
//! The command starts itself again in a network and a process tree of its own, so nothing that it starts outlives it and nothing else is on its wire.

#![expect(clippy::disallowed_methods, reason = "it starts processes and waits for them")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Output, Usage};

/// The exit code where nothing was done because it is not permitted.
#[cfg(target_os = "linux")]
const SKIPPED: u8 = 77;

#[derive(Args, Debug)]
#[command(after_help = "\
It needs root, and the commands `ip` and `unshare`. With 100 nodes it takes about four minutes. A machine that does something else meanwhile makes all numbers worse, and each process counts: look at the load first.

serf is the reference: `--of serf` measures `serf agent` in the same way, if it is installed.")]
pub(super) struct MembersArgs {
    /// What to start
    #[arg(long, value_enum, default_value_t = Of::Meshwork)]
    of: Of,
    /// How many processes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(3..=300))]
    nodes: u16,
    /// What to measure; can be repeated [default: everything but `slow`]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<What>,
    /// How many processes are killed, one after the other, and how often two find each other by mDNS
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    times: u16,
    /// A profile of serf (`lan`, `wan`, `local`), or the suspicion of a Meshwork node in seconds
    #[arg(long)]
    profile: Option<String>,
    /// The command `meshwork` or `serf` [default: the one beside this command, or the installed one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// How long slow processes stand still each time, in seconds; between, they run for half a second
    #[arg(long, default_value_t = 4.0)]
    freeze: f64,
    #[command(flatten)]
    output: Output,
    /// Whether this is the process in the network of its own
    #[arg(long, hide = true)]
    inside: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    Meshwork,
    Serf,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// From the first of so many starts within a second until all know all
    Start,
    /// Bytes on the wire of a node that is idle, memory and threads
    Idle,
    /// From SIGKILL until the last of the others reports it
    Crash,
    /// Two nodes that are told no address: from their start until both see each other
    Mdns,
    /// Failures that are reported while three in ten stand still again and again (SIGSTOP) for a minute
    Slow,
}

#[cfg(not(target_os = "linux"))]
pub(super) fn run(args: &MembersArgs) -> Result<u8, Usage> {
    let _ = (args.of, args.nodes, &args.only, args.times, &args.profile, &args.binary, args.freeze, &args.output, args.inside);
    super::complain("skipped: only Linux has namespaces");
    Ok(77)
}

#[cfg(target_os = "linux")]
pub(super) use linux::run;

#[cfg(target_os = "linux")]
mod linux {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use serde::Serialize;

    use super::*;
    use crate::command::{complain, give};
    use crate::plan::Draw;
    use crate::real::members::{Cluster, Kind, Recipe, loopback_bytes};
    use crate::real::{RealError, failed};

    /// Until everybody has come to know everybody, and until a crash is known.
    const WAIT_MAX: Duration = Duration::from_secs(180);
    /// What is done after a start settles.
    const SETTLE: Duration = Duration::from_secs(15);
    /// How long idle bytes are counted.
    const IDLE: Duration = Duration::from_secs(60);

    /// One number.
    #[derive(Serialize)]
    struct Figure {
        name: &'static str,
        unit: &'static str,
        mean: f64,
        p50: f64,
        worst: f64,
        times: usize,
    }

    impl Figure {
        fn of(name: &'static str, unit: &'static str, mut values: Vec<f64>) -> Self {
            values.sort_by(f64::total_cmp);
            let last = values.len().saturating_sub(1);
            let (p50, worst) = (values.get(last / 2).copied(), values.last().copied());
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            Figure { name, unit, mean, p50: p50.unwrap_or(f64::NAN), worst: worst.unwrap_or(f64::NAN), times: values.len() }
        }
    }

    #[derive(Serialize)]
    struct Findings {
        of: &'static str,
        nodes: u16,
        figures: Vec<Figure>,
    }

    pub(in crate::command) fn run(args: &MembersArgs) -> Result<u8, Usage> {
        let done = if args.inside { inside(args) } else { outside() };
        match done {
            Ok(code) => Ok(code),
            Err(RealError::Skipped(why)) => {
                complain(&format!("skipped: {why}"));
                Ok(SKIPPED)
            }
            Err(error) => Err(Usage(error.to_string())),
        }
    }

    /// Starts the command again in a network of its own.
    fn outside() -> Result<u8, RealError> {
        if !rustix::process::geteuid().is_root() {
            return Err(RealError::Skipped("only root makes namespaces".to_owned()));
        }
        let me = std::env::current_exe().map_err(failed("find this command"))?;
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(me)
            .args(std::env::args_os().skip(1))
            .arg("--inside");
        let status = match command.status() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RealError::Skipped("the command unshare is not installed".to_owned()));
            }
            status => status.map_err(failed("start this command again"))?,
        };
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }

    fn ip(line: &str) -> Result<(), RealError> {
        let status = Command::new("ip").args(line.split_whitespace()).status().map_err(failed("run ip"))?;
        if status.success() { Ok(()) } else { Err(RealError::Failed(format!("`ip {line}` failed"))) }
    }

    fn inside(args: &MembersArgs) -> Result<u8, RealError> {
        ip("link set lo up")?;
        let folder = std::env::temp_dir().join(format!("meshwork-members-{}", std::process::id()));
        // The secret of the cluster will be in it.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(failed("make a folder"))?;
        let found = measure(args, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        let findings = found?;
        let json = serde_json::to_string_pretty(&findings).map(|json| json + "\n");
        let json = json.map_err(|error| RealError::Failed(error.to_string()))?;
        give(&args.output, &table(&findings), &json).map_err(|Usage(what)| RealError::Failed(what))?;
        Ok(0)
    }

    fn recipe(args: &MembersArgs, folder: &Path) -> Result<Recipe, RealError> {
        let (kind, name) = match args.of {
            Of::Meshwork => (Kind::Meshwork, "meshwork"),
            Of::Serf => (Kind::Serf, "serf"),
        };
        let beside = std::env::current_exe().ok().map(|me| me.with_file_name(name)).filter(|path| path.is_file());
        let binary = args.binary.clone().or(beside).unwrap_or_else(|| name.into());
        let setting = match (args.of, &args.profile) {
            (Of::Meshwork, Some(seconds)) => {
                let seconds: f64 = seconds.parse().map_err(|_| RealError::Failed(format!("`{seconds}` is not a number of seconds")))?;
                let span = Duration::try_from_secs_f64(seconds).map_err(|error| RealError::Failed(error.to_string()))?;
                let file = folder.join("meshwork.toml");
                let text = format!("[node.membership.suspicion]\nsecs = {}\nnanos = {}\n", span.as_secs(), span.subsec_nanos());
                std::fs::write(&file, text).map_err(failed("write the parameters of the nodes"))?;
                Some(file.display().to_string())
            }
            (Of::Meshwork, None) => None,
            (Of::Serf, profile) => profile.clone(),
        };
        Ok(Recipe { kind, binary, setting, folder: folder.to_owned(), mdns: false })
    }

    fn measure(args: &MembersArgs, folder: &Path) -> Result<Findings, RealError> {
        let recipe = recipe(args, folder)?;
        let does = |what| match args.only.is_empty() {
            true => what != What::Slow && (what != What::Mdns || args.of == Of::Meshwork),
            false => args.only.contains(&what),
        };
        let mut figures = Vec::new();
        let nodes = usize::from(args.nodes);
        if [What::Start, What::Idle, What::Crash, What::Slow].into_iter().any(does) {
            complain(&format!("{nodes} processes start"));
            let mut cluster = Cluster::start(&recipe, nodes, Duration::from_millis(900))?;
            let within = cluster.started_within();
            let complete = cluster.wait_until_complete(WAIT_MAX)?;
            figures.push(Figure::of("started_within", "s", vec![within.as_secs_f64()]));
            figures.push(Figure::of("views_complete", "s", vec![complete.as_secs_f64()]));
            if [What::Idle, What::Crash, What::Slow].into_iter().any(does) {
                cluster.listen_for(SETTLE)?;
            }
            if does(What::Idle) {
                complain("nobody does anything");
                let before = loopback_bytes()?;
                cluster.listen_for(IDLE)?;
                let bytes = (loopback_bytes()? - before) as f64 / IDLE.as_secs_f64() / nodes as f64;
                figures.push(Figure::of("idle_bytes_per_node", "B/s", vec![bytes]));
                let weights = cluster.weights();
                let mib = weights.iter().map(|weight| weight.rss_kib as f64 / 1_024.0).collect();
                figures.push(Figure::of("rss", "MiB", mib));
                figures.push(Figure::of("threads", "", weights.iter().map(|weight| weight.threads as f64).collect()));
            }
            if does(What::Crash) {
                let mut draw = Draw::new(u64::from(args.nodes), "members");
                let killed =
                    draw.take((1..nodes).collect(), u64::from(args.times).min(args.nodes.into()) - u64::from(args.times >= args.nodes));
                let (mut first, mut last, mut missed) = (Vec::new(), Vec::new(), Vec::new());
                for index in killed {
                    complain("one is killed");
                    let (one, all, never) = cluster.kill(index, WAIT_MAX)?;
                    first.push(one.as_secs_f64());
                    last.push(all.as_secs_f64());
                    missed.push(never as f64);
                    // At another moment of everybody's periods.
                    cluster.listen_for(Duration::from_millis(3_000 + draw.below(1_000)))?;
                }
                figures.push(Figure::of("detection_first", "s", first));
                figures.push(Figure::of("detection_last", "s", last));
                figures.push(Figure::of("detection_missed", "", missed));
            }
            if does(What::Slow) {
                complain("three in ten stand still again and again");
                let some: Vec<usize> = (1..nodes).take(nodes * 3 / 10).collect();
                let frozen = Duration::try_from_secs_f64(args.freeze).map_err(|error| RealError::Failed(error.to_string()))?;
                let failures = cluster.freeze(&some, frozen, Duration::from_millis(500), Duration::from_secs(60))?;
                figures.push(Figure::of("living_held_for_dead", "", vec![failures as f64]));
            }
        }
        if does(What::Mdns) {
            // A cable with both ends here; what is sent to a group comes back to the sockets of this host.
            for line in ["link add mesh0 type veth peer name mesh1", "link set mesh1 up", "address add 10.77.0.1/24 dev mesh0"] {
                ip(line)?;
            }
            ip("link set mesh0 multicast on up")?;
            ip("route add 224.0.0.0/4 dev mesh0")?;
            let mut times = Vec::new();
            for time in 0..args.times {
                complain("two look for each other");
                // A cluster of their own each time: nobody finds those of the time before.
                let folder = folder.join(format!("mdns-{time}"));
                let mut pair = Cluster::start(&Recipe { mdns: true, folder, ..recipe.clone() }, 2, Duration::ZERO)?;
                times.push(pair.wait_until_complete(WAIT_MAX)?.as_secs_f64());
            }
            figures.push(Figure::of("mdns_both_alive", "s", times));
        }
        let of = if args.of == Of::Meshwork { "meshwork" } else { "serf" };
        Ok(Findings { of, nodes: args.nodes, figures })
    }

    fn table(findings: &Findings) -> String {
        let mut text = format!("{} processes of {}\n\n", findings.nodes, findings.of);
        let _ = writeln!(text, "  {:<22}{:>10}{:>10}{:>10}{:>7}", "", "mean", "median", "worst", "times");
        for Figure { name, unit, mean, p50, worst, times } in &findings.figures {
            let _ = writeln!(text, "  {name:<22}{mean:>10.3}{p50:>10.3}{worst:>10.3}{times:>7}  {unit}");
        }
        text
    }
}
