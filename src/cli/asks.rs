//! What can be asked about the state and the services of a node.
//!
//! The words that people type, after `meshwork ctl` or after a slash at the terminal of a node, and the questions of the admin endpoint are the
//! same enums, so that each verb exists once and is called the same everywhere.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use meshwork_crdt::Op;
use serde::{Deserialize, Serialize};

use super::text::parse_duration;
use crate::services::registry;

/// A value as it is typed: JSON where it parses, else text.
pub(super) type Json = serde_json::Value;

/// The part of a node that is asked.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(super) enum Service {
    /// The replicated state: its first 1000 keys, or what the verb says
    State {
        #[command(subcommand)]
        verb: Option<StateAsk>,
    },
    /// Settings of this node and of the whole cluster
    Config {
        #[command(subcommand)]
        verb: ConfigAsk,
    },
    /// Who in the cluster offers which service
    Registry {
        #[command(subcommand)]
        verb: RegistryAsk,
    },
    /// Variables that agents tune together
    Variables {
        #[command(subcommand)]
        verb: VariablesAsk,
    },
}

impl Service {
    /// How long the answer may take because of other nodes.
    pub(super) fn patience(&self) -> Duration {
        if let Service::State { verb: Some(ask) } = self { ask.patience() } else { Duration::ZERO }
    }
}

/// What can be asked of the replicated state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(super) enum StateAsk {
    /// The first 1000 keys that begin with a prefix, with the beginnings of their values; those of services only when the prefix begins with @
    List {
        /// How the keys begin
        #[arg(default_value = "")]
        #[serde(default)]
        prefix: String,
    },
    /// What a key holds, of whatever kind; a plain value goes to a file or another program as it was written, and to a terminal made harmless
    Get(GetAsk),
    #[command(flatten)]
    Do(StateOp),
    /// Do one thing, and wait until other nodes hold it: confirm 'set color blue'. Prints a token for `get --after`
    Confirm(ConfirmAsk),
    /// Do several things at once, all of them or nothing: batch 'set color blue' 'add visits 1'
    Batch {
        /// Each as it is typed after `state`
        #[arg(required = true, value_parser = parse_op, value_name = "'VERB KEY …'")]
        ops: Vec<StateOp>,
    },
}

impl Default for StateAsk {
    fn default() -> Self {
        StateAsk::List { prefix: String::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Args)]
pub(super) struct GetAsk {
    /// The key
    pub(super) key: String,
    /// Ask more than half of the members first
    #[arg(long, conflicts_with = "after")]
    #[serde(default)]
    pub(super) quorum: bool,
    /// Wait for the write with this token, which `confirm` printed
    #[arg(long, value_name = "TOKEN")]
    pub(super) after: Option<String>,
    /// For how long to wait [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub(super) struct ConfirmAsk {
    /// As it is typed after `state`
    #[arg(value_parser = parse_op, value_name = "'VERB KEY …'")]
    pub(super) op: StateOp,
    /// How many other nodes [default: more than half of the members, this node included]
    #[arg(long, value_name = "N")]
    pub(super) acked: Option<usize>,
    /// For how long to wait [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(super) timeout: Option<u64>,
}

/// How long a question may wait for other nodes that says nothing of it.
const TIMEOUT_S: u64 = 5;
const TIMEOUT_S_MAX: u64 = 3_600;

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = parse_duration(text)?.as_secs();
    if seconds > TIMEOUT_S_MAX { Err(format!("at most {TIMEOUT_S_MAX}s")) } else { Ok(seconds) }
}

/// How long to wait for other nodes.
pub(super) fn patience(timeout: Option<u64>) -> Duration {
    Duration::from_secs(timeout.unwrap_or(TIMEOUT_S).min(TIMEOUT_S_MAX))
}

impl StateAsk {
    /// How long the answer may take because of other nodes.
    pub(super) fn patience(&self) -> Duration {
        match self {
            StateAsk::Confirm(ask) => patience(ask.timeout),
            StateAsk::Get(ask) if ask.quorum || ask.after.is_some() => patience(ask.timeout),
            _ => Duration::ZERO,
        }
    }
}

/// What can be done to a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum StateOp {
    /// Write a plain value, of which the last writer wins
    Set {
        key: String,
        value: String,
        /// After this time it is gone everywhere, unless it was written again: 90s, 10m, 24h or 7d
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl: Option<Duration>,
    },
    /// Write a value with a score, of which the highest wins
    Best {
        key: String,
        #[arg(value_parser = finite, allow_negative_numbers = true)]
        score: f64,
        value: String,
    },
    /// Write a value that stays beside those which others write at the same time
    Put { key: String, value: String },
    /// Add to a counter, 1 unless told
    Add {
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Add to a counter that only goes up, 1 unless told
    Grow {
        key: String,
        #[arg(default_value_t = 1)]
        by: u64,
    },
    /// Add a member to a set
    Insert { key: String, member: String },
    /// Take a member out of a set
    Take { key: String, member: String },
    /// Add a member to a set that only grows
    Include { key: String, member: String },
    /// Remove a key, of whatever kind
    Remove { key: String },
}

impl StateOp {
    /// The name of the verb, the key, and what is done to it.
    pub(super) fn parts(self) -> (&'static str, String, Op) {
        match self {
            StateOp::Set { key, value, ttl: None } => ("set", key, Op::Set(value.into())),
            StateOp::Set { key, value, ttl: Some(ttl) } => ("set", key, Op::SetFor(value.into(), ttl)),
            StateOp::Best { key, score, value } => ("best", key, Op::Best(score, value.into())),
            StateOp::Put { key, value } => ("put", key, Op::Put(value.into())),
            StateOp::Add { key, by } => ("add", key, Op::Add(by)),
            StateOp::Grow { key, by } => ("grow", key, Op::Grow(by)),
            StateOp::Insert { key, member } => ("insert", key, Op::Insert(member.into())),
            StateOp::Take { key, member } => ("take", key, Op::Take(member.into())),
            StateOp::Include { key, member } => ("include", key, Op::Include(member.into())),
            StateOp::Remove { key } => ("remove", key, Op::Remove),
        }
    }
}

/// What can be asked of the config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(super) enum ConfigAsk {
    /// The value that counts on this node, and where it comes from
    Get {
        /// Such as app/limits/rate; a path above several values gives a map of them
        path: String,
    },
    /// Set a value for the whole cluster
    Set {
        path: String,
        /// JSON where it parses, else text
        #[arg(value_parser = json, allow_negative_numbers = true)]
        value: Json,
    },
    /// Remove what the cluster has at and below a path
    Remove { path: String },
    /// What each layer says of a path (default, file, environment, cluster, override), and which one counts
    Explain { path: String },
    /// What was set for the cluster at and below a path, by whom and when, the newest first
    History { path: String },
    /// Set for the cluster what it had so many changes ago, 1 unless told
    Rollback {
        path: String,
        #[arg(default_value_t = 1)]
        count: usize,
    },
    /// Override a value on this node alone, while it runs
    #[command(visible_alias = "override")]
    Update {
        path: String,
        /// JSON where it parses, else text
        #[arg(value_parser = json, allow_negative_numbers = true)]
        value: Json,
    },
    /// Take the overrides of this node at and below a path back
    Reset { path: String },
    /// Undo the last changes that `update` and `reset` made on this node, 1 unless told
    Undo {
        #[arg(default_value_t = 1)]
        #[serde(default)]
        count: usize,
    },
    /// Values that nodes set at the same time, and what became of them
    Conflicts,
    /// The paths that have a value, and which of them may be changed while the node runs
    Paths {
        /// At and below this path
        prefix: Option<String>,
    },
}

/// What can be asked of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(super) enum RegistryAsk {
    /// All instances of all services
    List {
        /// Of this namespace only
        namespace: Option<String>,
    },
    /// The instances that match everything that is asked for
    Find(FindAsk),
    /// Register an instance for as long as the node that is asked runs
    Register(RegisterAsk),
    /// Unregister an instance that was registered so
    Unregister {
        /// The name of the service
        name: String,
        #[arg(long, default_value = NAMESPACE)]
        namespace: String,
        #[arg(long, default_value = INSTANCE)]
        instance: String,
    },
}

/// The namespace of a service that is registered without one.
const NAMESPACE: &str = "default";
/// The name of an instance that is registered without one.
const INSTANCE: &str = "1";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Args)]
#[serde(default)]
pub(super) struct FindAsk {
    /// The name of the service
    pub(super) name: Option<String>,
    /// With this capability; can be repeated
    #[arg(long = "capability", value_name = "CAPABILITY")]
    pub(super) capabilities: Vec<String>,
    /// In this namespace
    #[arg(long)]
    pub(super) namespace: Option<String>,
    /// Of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) service_type: Option<String>,
    /// Of this health, as it looks from the node that is asked
    #[arg(long)]
    pub(super) health: Option<Health>,
    /// Registered by the node with this id
    #[arg(long, value_name = "ID")]
    pub(super) node: Option<String>,
    /// With this pair of metadata; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) metadata: Vec<(String, String)>,
    /// Only those in this zone, if there are any
    #[arg(long)]
    pub(super) zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub(super) struct RegisterAsk {
    /// The name of the service
    pub(super) name: String,
    /// What it can do
    #[arg(value_name = "CAPABILITY")]
    #[serde(default)]
    pub(super) capabilities: Vec<String>,
    #[arg(long, default_value = NAMESPACE)]
    pub(super) namespace: String,
    /// Which of the instances of the node
    #[arg(long, default_value = INSTANCE)]
    pub(super) instance: String,
    /// What kind of service it is
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) service_type: Option<String>,
    /// Anything else; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    #[serde(default)]
    pub(super) metadata: Vec<(String, String)>,
    /// Where it is [default: the zone of the node]
    #[arg(long)]
    pub(super) zone: Option<String>,
    /// Its share of the requests beside other instances, 1 to 1000 [default: 1]
    #[arg(long)]
    pub(super) weight: Option<u16>,
    /// How it is [default: healthy]
    #[arg(long)]
    pub(super) health: Option<Health>,
    /// Where it can be reached
    #[arg(long, value_name = "TEXT")]
    pub(super) address: Option<String>,
}

/// How an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    Healthy,
    Unknown,
    Degraded,
    Unhealthy,
}

impl From<Health> for registry::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => registry::Health::Healthy,
            Health::Unknown => registry::Health::Unknown,
            Health::Degraded => registry::Health::Degraded,
            Health::Unhealthy => registry::Health::Unhealthy,
        }
    }
}

/// What can be asked of the agent variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(super) enum VariablesAsk {
    /// All variables, with their visible versions
    List {
        /// Those whose names begin so
        #[arg(default_value = "")]
        #[serde(default)]
        prefix: String,
        /// Those of this kind
        #[arg(long)]
        kind: Option<Kind>,
    },
    /// A variable and its visible version
    Get { name: String },
    /// Write a variable
    #[command(visible_alias = "update")]
    Set {
        name: String,
        /// JSON where it parses, else text
        #[arg(value_parser = json, allow_negative_numbers = true)]
        value: Json,
        /// Only if the variable has this version
        #[arg(long, value_name = "VERSION")]
        expected: Option<u64>,
        /// How good the value was found to be; with --policy highest or lowest only a better one is taken
        #[arg(long, value_parser = finite, allow_negative_numbers = true)]
        score: Option<f64>,
        /// The agent that writes
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
    },
    /// Register a variable: float MIN MAX, integer MIN MAX, choice OPTION…, module NAME…, or composite VARIABLE…
    Register(VariableAsk),
    /// Delete a variable
    Delete { name: String },
    /// The versions that were visible on the node that is asked, the newest first
    History {
        name: String,
        /// How many, up to 100 [default: 50]
        #[arg(long, value_name = "COUNT")]
        len: Option<usize>,
    },
    /// What happened to a variable, as the node that is asked counted it
    Statistics { name: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Args)]
pub(super) struct VariableAsk {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The range, the options, the modules, or the variables that it is computed from
    #[arg(required = true, allow_negative_numbers = true)]
    pub(super) of: Vec<String>,
    /// Its value until it is set [default: the least, or the first]
    #[arg(long, value_parser = json, allow_negative_numbers = true)]
    pub(super) default: Option<Json>,
    /// The size of the steps on which numbers lie [default: any float, every integer]
    #[arg(long, value_parser = finite)]
    pub(super) step: Option<f64>,
    /// Let a choice take other texts than its options
    #[arg(long)]
    #[serde(default)]
    pub(super) custom: bool,
    /// How a composite is computed [default: sum]
    #[arg(long)]
    pub(super) compute: Option<Compute>,
    /// What becomes of writes at the same time [default: last]
    #[arg(long)]
    pub(super) policy: Option<Policy>,
    /// Keep it on the node that is asked
    #[arg(long)]
    #[serde(default)]
    pub(super) local: bool,
    /// What it is for
    #[arg(long, default_value = "")]
    #[serde(default)]
    pub(super) description: String,
}

/// A kind of variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Float,
    Integer,
    Choice,
    Module,
    Composite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compute {
    Sum,
    Product,
    Mean,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Policy {
    /// The last write wins
    Last,
    /// The highest score wins
    Highest,
    /// The lowest score wins
    Lowest,
    /// The mean of the values
    Mean,
    /// The least of the values
    Min,
    /// The greatest of the values
    Max,
    /// The one in the middle
    Median,
}

fn json(text: &str) -> Result<Json, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // JSON would make a number with a point of it, and lose digits.
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<i64>().is_err() {
        return Err(format!("a whole number is {} to {}; in double quotes it is a text", i64::MIN, i64::MAX));
    }
    Ok(serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned())))
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "write a finite number".into())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn parse_op(text: &str) -> Result<StateOp, String> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct One {
        #[command(subcommand)]
        op: StateOp,
    }
    One::try_parse_from(words(text)?).map(|one| one.op).map_err(|error| one_line(&error))
}

/// What a typed line asks of a service, or the help that it asks for.
pub(super) fn parse_line(line: &str) -> Result<Service, Untyped> {
    #[derive(Parser)]
    #[command(no_binary_name = true, name = "/")]
    struct Line {
        #[command(subcommand)]
        service: Service,
    }
    let words = words(line).map_err(Untyped::Wrong)?;
    Line::try_parse_from(words).map(|line| line.service).map_err(|error| match error.kind() {
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Untyped::Help(error.to_string().trim().to_owned())
        }
        _ => Untyped::Wrong(one_line(&error)),
    })
}

/// Why a typed line asks nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Untyped {
    /// It asks for help, which this is.
    Help(String),
    /// It cannot be understood, for this reason.
    Wrong(String),
}

fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more"));
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The words of a typed line. White space does not part what stands in single quotes, which are taken away, nor what stands in double quotes, brackets or
/// braces, which stay, so that JSON can be typed as it is.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut in_single, mut in_double, mut is_escaped, mut depth) = (false, false, false, 0_usize);
    for character in line.chars() {
        match character {
            '\'' if in_single => in_single = false,
            '\'' if word.is_none() => {
                in_single = true;
                word = Some(String::new());
            }
            _ if character.is_whitespace() && !in_single && !in_double && depth == 0 => words.extend(word.take()),
            _ => {
                match character {
                    _ if in_single => {}
                    _ if is_escaped => is_escaped = false,
                    '\\' if in_double => is_escaped = true,
                    '"' => in_double = !in_double,
                    '{' | '[' if !in_double => depth += 1,
                    '}' | ']' if !in_double => depth = depth.saturating_sub(1),
                    _ => {}
                }
                word.get_or_insert_default().push(character);
            }
        }
    }
    if in_single || in_double || depth > 0 {
        return Err("a quote or a bracket is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        match parse_line(line) {
            Err(Untyped::Wrong(problem)) => problem,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn json_can_be_typed_as_it_is() {
        assert_eq!(words(r#"set a {"b": [1, "} \" 2"]} 'two  words' it's"#).unwrap().len(), 5);
        let set = |value: Json| Service::Config { verb: ConfigAsk::Set { path: "app/x".into(), value } };
        for (typed, value) in [
            ("3", Json::from(3)),
            ("-3", Json::from(-3)),
            ("two", Json::from("two")),
            (r#""two words""#, Json::from("two words")),
            ("'two words'", Json::from("two words")),
            (r#"{"a": [1, 2]}"#, serde_json::json!({"a": [1, 2]})),
        ] {
            assert_eq!(parse_line(&format!("config set app/x {typed}")), Ok(set(value)), "{typed}");
        }
        assert!(wrong("config set app/x {").contains("not closed"));
        assert!(wrong("config set app/x 99999999999999999999").contains("a whole number is"), "digits are not lost");
        assert!(parse_line(r#"config set app/x "99999999999999999999""#).is_ok());
    }

    #[test]
    fn a_wrong_line_says_why_in_one_line() {
        for line in
            ["config set", "config nonsense", "variables register v float", "state add n x", "registry find --health fine", "nonsense"]
        {
            let problem = wrong(line);
            assert!(!problem.is_empty() && !problem.contains('\n') && !problem.starts_with("error"), "{problem}");
        }
        assert!(matches!(parse_line("config"), Err(Untyped::Help(_))) && matches!(parse_line("variables help"), Err(Untyped::Help(_))));
    }

    #[test]
    fn questions_have_stable_names() {
        let Ok(Service::State { verb: Some(verb) }) = parse_line("state batch 'add n -2' 'remove k'") else { panic!("it is a batch") };
        let json = r#"{"verb":"batch","ops":[{"op":"add","key":"n","by":-2},{"op":"remove","key":"k"}]}"#;
        assert_eq!(serde_json::to_string(&verb).unwrap(), json);
        assert_eq!(serde_json::from_str::<StateAsk>(json).unwrap(), verb);
        let Ok(Service::State { verb: Some(verb) }) = parse_line("state confirm 'add n -2' --acked 2 --timeout 1m") else {
            panic!("it is one")
        };
        let json = r#"{"verb":"confirm","op":{"op":"add","key":"n","by":-2},"acked":2,"timeout":60}"#;
        assert_eq!((serde_json::to_string(&verb).unwrap().as_str(), verb.patience()), (json, Duration::from_secs(60)));
        let get: StateAsk = serde_json::from_str(r#"{"verb":"get","key":"n"}"#).unwrap();
        assert_eq!((&get, get.patience()), (&StateAsk::Get(GetAsk { key: "n".into(), ..GetAsk::default() }), Duration::ZERO));
        assert!(wrong("state get n --quorum --after x").contains("--after") && wrong("state get n --timeout 2h").contains("3600s"));
        let Ok(Service::State { verb: Some(verb) }) = parse_line("state set k v --ttl 10m") else { panic!("it is one") };
        let json = r#"{"verb":"do","op":"set","key":"k","value":"v","ttl":{"secs":600,"nanos":0}}"#;
        assert_eq!(serde_json::to_string(&verb).unwrap(), json);
        assert_eq!(serde_json::from_str::<StateAsk>(json).unwrap(), verb);
        assert!(parse_line("state batch 'set k v --ttl 7d' 'set k v'").is_ok());
        assert!(wrong("state set k v --ttl soon").contains("is not a duration"));
        let Ok(Service::Variables { verb }) = parse_line("variables register rate float -1 1 --default 0.5") else { panic!("it is one") };
        let json = serde_json::to_string(&verb).unwrap();
        assert!(json.starts_with(r#"{"verb":"register","name":"rate","kind":"float","of":["-1","1"],"default":0.5,"#), "{json}");
        assert_eq!(serde_json::from_str::<VariablesAsk>(&json).unwrap(), verb);
        let find = r#"{"verb":"find","capabilities":["pay"]}"#;
        assert!(matches!(serde_json::from_str(find).unwrap(), RegistryAsk::Find(FindAsk { capabilities, .. }) if capabilities == ["pay"]));
    }
}
