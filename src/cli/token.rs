//! `meshwork token`: what lets another machine or user into the cluster.

#![expect(clippy::disallowed_methods, reason = "a token expires, so it is made with the time of day")]

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use meshwork_channels::token::{JoinToken, SEEDS_MAX, TokenError};
use meshwork_channels::{Bounded, ClusterName, WallTime};
use serde::Serialize;

use super::Failure;
use super::settings::{self, CLUSTER};
use super::text::{self, parse_duration, printable};
use crate::runtime::user_secret;

/// Bytes of the standard input that may hold a token.
const INPUT_BYTES_MAX: u64 = 64 * 1_024;

#[derive(Args, Debug)]
#[command(after_help = "\
The token holds the secret of the cluster: whoever has it is let in until it expires. Hand it on like a password, in MESHWORK_JOIN or in a file \
(`--join @FILE`) rather than on a command line.")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Print a token for the cluster, making the secret of the cluster if this user has none yet
    #[command(visible_alias = "show")]
    New(NewArgs),
    /// Show what a token says, but for the secret
    Inspect(InspectArgs),
}

#[derive(Args, Debug)]
struct NewArgs {
    /// Name of the cluster
    #[arg(long, env = "MESHWORK_CLUSTER", hide_env_values = true, value_name = "NAME", default_value = CLUSTER)]
    cluster: ClusterName,
    /// How long the token is good for, or `never`
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_expiry)]
    expires: Expiry,
    /// Address of a node, where the other machine finds the cluster; can be repeated
    #[arg(long, value_name = "ADDR")]
    seed: Vec<SocketAddr>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// The token, or @FILE, or `-` for the standard input
    token: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// When a token ends.
#[derive(Clone, Copy, Debug)]
struct Expiry(Option<Duration>);

fn parse_expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    match parse_duration(text)? {
        Duration::ZERO => Err("a token that has expired admits nobody".into()),
        duration => Ok(Expiry(Some(duration))),
    }
}

#[derive(Debug, Serialize)]
struct Made<'a> {
    token: &'a str,
    #[serde(flatten)]
    inspected: Inspected,
}

/// What a token says, but for the secret.
#[derive(Debug, Serialize)]
struct Inspected {
    cluster: String,
    seeds: Vec<SocketAddr>,
    seed_ids: Vec<String>,
    /// Seconds since the Unix epoch.
    expires_at: Option<u64>,
    /// Seconds from now.
    expires_in_s: Option<u64>,
    /// Why it admits nobody, if so.
    problem: Option<String>,
}

pub(super) fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.verb {
        Verb::New(args) => new(args),
        Verb::Inspect(args) => inspect(&args),
    }
}

fn new(args: NewArgs) -> Result<(), Failure> {
    let count = args.seed.len();
    let seeds = Bounded::try_from(args.seed).map_err(|_| Failure::usage(format!("{count} seeds; a token holds at most {SEEDS_MAX}")))?;
    let secret = user_secret(&args.cluster).map_err(Failure::new)?;
    let now = now();
    let expires = args.expires.0.map(|duration| now + duration);
    // Who answers at the seeds is not known here; the secret decides.
    let token = JoinToken { cluster: args.cluster, secret, expires, seeds, peers: Bounded::default() };
    let printed = token.encode();
    if args.json {
        text::print(&format!("{}\n", text::json_line(&Made { token: &printed, inspected: Inspected::of(&token, now) })))
    } else {
        text::print(&format!("{printed}\n"))
    }
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let given = match args.token.strip_prefix('@') {
        Some(path) => settings::read(Path::new(path))?,
        None if args.token == "-" => std::io::read_to_string(std::io::stdin().take(INPUT_BYTES_MAX)).map_err(Failure::usage)?,
        None => args.token.clone(),
    };
    let token = JoinToken::parse(given.trim()).map_err(|error| Failure::usage(format!("not a token: {error}")))?;
    let inspected = Inspected::of(&token, now());
    text::print(&if args.json { format!("{}\n", text::json_line(&inspected)) } else { inspected.print() })?;
    match inspected.problem {
        Some(problem) => Err(Failure::new(problem)),
        None => Ok(()),
    }
}

impl Inspected {
    fn of(token: &JoinToken, now: WallTime) -> Self {
        let expires = token.expires;
        Inspected {
            cluster: token.cluster.to_string(),
            seeds: token.seeds.to_vec(),
            seed_ids: token.peers.iter().map(ToString::to_string).collect(),
            expires_at: expires.map(|expires| expires.as_micros() / 1_000_000),
            expires_in_s: expires.map(|expires| expires.as_micros().saturating_sub(now.as_micros()) / 1_000_000),
            problem: token.check(now).err().map(|error| match error {
                TokenError::Expired { at } => {
                    let ago = Duration::from_micros(now.as_micros().saturating_sub(at.as_micros()));
                    format!("the token expired {} ago", text::duration(ago))
                }
                other => other.to_string(),
            }),
        }
    }

    fn print(&self) -> String {
        let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let expires = match (&self.problem, self.expires_in_s) {
            (Some(problem), _) => format!("{problem}; it admits nobody"),
            (None, Some(seconds)) => format!("in {}", text::duration(Duration::from_secs(seconds))),
            (None, None) => "never".to_owned(),
        };
        format!(
            "cluster   {}\nseeds     {}\nseed ids  {}\nexpires   {expires}\nsecret    not shown\n",
            printable(&self.cluster, 64),
            list(self.seeds.iter().map(ToString::to_string).collect()),
            list(self.seed_ids.clone()),
        )
    }
}

fn now() -> WallTime {
    WallTime::from_micros(
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
    )
}
