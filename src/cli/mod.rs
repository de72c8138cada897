//! The `meshwork` command: a node for people who write no program, a window into running nodes, and a demonstration.
//!
//! | file | what |
//! |---|---|
//! | `settings` | what a node is told: flags, environment, file, in this order of precedence |
//! | `node` | `meshwork node`: a node whose application is the terminal |
//! | `output`, `told` | what it prints, and what of that the services tell |
//! | `app_config` | file and environment of the config service |
//! | `asks` | what can be asked about state and services: typed, after `ctl`, and on the wire |
//! | `desk` | where that is answered |
//! | `views` | what a node says about itself, as JSON and as tables |
//! | `admin` | the endpoint at which a running node is asked |
//! | `ctl` | `meshwork ctl`, which asks |
//! | `token` | `meshwork token` |
//! | `demo` | `meshwork demo`: a cluster that forms, talks, loses nodes and heals |
//! | `bench` | `meshwork bench`: what a link carries, and how long it takes, beside baselines |
//! | `sim` | `meshwork sim`, which hands over to the simulator |
//! | `signals` | ctrl-c and termination: once to leave, twice to end at once |
//! | `text` | what may be printed on a terminal |
//!
//! Results go to standard output. Logs, progress and the one line that says why a command failed go to standard error. Exit codes: 0 done,
//! 1 what was promised did not hold, 2 the command line or the configuration cannot be used, 130 interrupted. `sim` has those of the simulator.

mod admin;
mod app_config;
mod asks;
mod bench;
mod ctl;
mod demo;
mod desk;
mod node;
mod output;
mod settings;
mod signals;
mod sim;
mod text;
mod token;
mod told;
mod views;

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Why a command failed: one line for people, and the exit code.
#[derive(Debug)]
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// What was promised did not hold.
    fn new(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), code: 1 }
    }

    /// The command line or the configuration cannot be used; nothing was started.
    fn usage(message: impl fmt::Display) -> Self {
        Failure { message: message.to_string(), code: 2 }
    }

    /// Somebody pressed ctrl-c.
    fn interrupted() -> Self {
        Failure { message: "interrupted".into(), code: 130 }
    }
}

#[derive(Parser, Debug)]
#[command(
    name = "meshwork",
    version,
    about = "Become a node of a peer-to-peer cluster, with no server to run",
    after_help = "Begin with `meshwork demo`, or with `meshwork node` in two terminals: the nodes find each other, and what you type in one appears in the other.\n\n\
                  Exit codes: 0 done, 1 what was promised did not hold, 2 the command line or the configuration cannot be used, 130 interrupted; \
                  `sim` has its own."
)]
struct Args {
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as `meshwork=debug`
    #[arg(long, global = true, env = "MESHWORK_LOG", default_value = "warn", value_name = "FILTER", hide_env_values = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a node: lines that you type reach every other node of the cluster
    Node(Box<settings::NodeArgs>),
    /// Ask a running node of this machine about its members, links, state and health
    Ctl(ctl::CtlArgs),
    /// Make or inspect the token that lets another machine into the cluster
    Token(token::TokenArgs),
    /// Watch a real cluster on this machine form, talk, lose nodes, heal, and count every message
    Demo(demo::DemoArgs),
    /// Measure channels, latency, head-of-line blocking and memory beside raw QUIC and TCP with TLS
    Bench(bench::BenchArgs),
    /// Simulate clusters in virtual time (runs `meshwork-sim` with the same arguments)
    #[command(disable_help_flag = true)]
    Sim(sim::SimArgs),
}

/// Runs the command with the arguments of the process.
pub fn main() -> ExitCode {
    let args = Args::parse();
    match log_to_stderr(&args.log).and_then(|()| run(args.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("meshwork: {}", text::printable(&failure.message, 2_000));
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Node(args) => block_on(node::run(*args)),
        Command::Ctl(args) => block_on(ctl::run(args)),
        Command::Token(args) => token::run(args),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Bench(args) => bench::run(args),
        Command::Sim(args) => sim::run(&args),
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Failure::usage(format!("--log `{filter}`: {error}")))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    Ok(())
}

/// Runs a command on threads of its own: the protocol of each node has another one, so nothing here can hold it up.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("meshwork-cli")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("the system gives no threads: {error}")))?;
    let outcome = runtime.block_on(command);
    // What is left are reads and writes that may never end.
    runtime.shutdown_background();
    outcome
}
