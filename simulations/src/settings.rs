//! What people may set in a scenario: keys with a type, bounds and a sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::network::Model;
use crate::plan::SECOND;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// A whole number within bounds.
    Count(u64, u64),
    /// A duration within bounds in microseconds; written `250us`, `20ms`, `1.5s`, `2m` or `1h`.
    Time(u64, u64),
    /// A share from 0 to a bound; written `0.05` or `5%`.
    Share(f64),
    /// A number of things up to a bound, or a share of them up to another; a share has a percent sign or a point.
    Part(u64, f64),
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Two durations in order within bounds in microseconds; written `10ms..50ms`.
    Span(u64, u64),
}

/// A key that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// What is typed before the `=`.
    pub name: &'static str,
    /// What may stand after it.
    pub of: Type,
    /// What it does.
    pub about: &'static str,
}

/// What the cores can do without: every improvement over what was published, by name; of the membership, of the views, and of the trees.
const WITHOUT: &[&str] = &[
    "nothing",
    "timer-filter",
    "state-exchange",
    "stream-ping",
    "buddy-ping",
    "heal-announce",
    "local-health",
    "flap-damping",
    "size-following",
    "checked-verdicts",
    "minority-yield",
    "alarm",
    "settling",
    "random-phase",
    "keep-view",
    "splice",
    "storm-mixing",
    "fill-in-parallel",
    "own-walks",
    "limit-high",
    "heal",
    "reseed",
    "open-closed-groups",
    "farewell-peers",
    "answer-peers",
    "spare-newest",
    "learn-more",
    "near-links",
    "backlog",
    "summary",
    "answer-gone",
    "retry-grafts",
    "first-way-only",
    "spare-prunes",
    "measured-timers",
    "batching",
    "skip-holders",
    "raise-lazy",
    "rooted-tree",
    "trim",
    "regraft",
    "flood",
];

/// All keys. A scenario takes those to which it gives a default.
pub const KEYS: &[Key] = &[
    Key {
        name: "network",
        of: Type::Choice(Model::WORDS),
        about: "where latencies come from: pairs that differ, one room, a range, a log-normal distribution, a square, cities, eight regions",
    },
    Key {
        name: "latency",
        of: Type::Time(0, 2 * SECOND),
        about: "mean one-way latency between two nodes; the median of `lognormal`, the side of the square of `euclid`",
    },
    Key { name: "latency-min", of: Type::Time(0, 2 * SECOND), about: "the least one-way latency of `uniform`" },
    Key { name: "latency-max", of: Type::Time(0, 2 * SECOND), about: "the greatest one-way latency of `uniform`" },
    Key { name: "spread", of: Type::Share(1.0), about: "the standard deviation of the logarithm of the latencies of `lognormal`" },
    Key {
        name: "access",
        of: Type::Time(0, SECOND),
        about: "mean one-way latency between a node and the network in `euclid` and `earth`, added at both ends",
    },
    Key {
        name: "jitter",
        of: Type::Time(0, 2 * SECOND),
        about: "the most that one packet may take longer than its pair's latency; 50us in `lan` unless set",
    },
    Key { name: "loss", of: Type::Share(0.5), about: "the share of packets that are lost until the quiet phase" },
    Key {
        name: "burst-enter",
        of: Type::Share(1.0),
        about: "the chance at each packet of a node that its line turns bad, until the quiet phase; 0 for no bursts",
    },
    Key { name: "burst-leave", of: Type::Share(1.0), about: "the chance at each packet that a bad line turns good again" },
    Key { name: "burst-loss", of: Type::Share(1.0), about: "the share of packets that a bad line loses" },
    Key { name: "reorder", of: Type::Share(1.0), about: "the share of packets that are late, so that others overtake them" },
    Key { name: "reorder-by", of: Type::Time(0, 10 * SECOND), about: "by how much a packet is late" },
    Key { name: "duplicate", of: Type::Share(1.0), about: "the share of datagrams that arrive twice" },
    Key { name: "up", of: Type::Count(0, 10_000_000), about: "kilobits per second that a node can send; 0 for no limit" },
    Key { name: "down", of: Type::Count(0, 10_000_000), about: "kilobits per second that a node can receive; 0 for no limit" },
    Key {
        name: "queue",
        of: Type::Count(1_500, 1_000_000_000),
        about: "bytes that may wait before such a line; datagrams beyond are dropped, streams wait",
    },
    Key {
        name: "mtu",
        of: Type::Count(0, 65_535),
        about: "bytes of the largest datagram that passes, larger ones are lost; 0 for no limit",
    },
    Key { name: "cone", of: Type::Share(1.0), about: "the share of nodes that all but the blocked can dial" },
    Key { name: "symmetric", of: Type::Share(1.0), about: "the share of nodes that dial, and that nobody can dial" },
    Key { name: "blocked", of: Type::Share(1.0), about: "the share of nodes that dial public nodes alone, and that nobody can dial" },
    Key { name: "skew", of: Type::Time(0, 3_600 * SECOND), about: "how far a node's wall clock may be from the true time" },
    Key {
        name: "sync",
        of: Type::Time(SECOND / 1_000, 60 * SECOND),
        about: "how long after a write a disk is synced, where a restart keeps it",
    },
    Key {
        name: "buggify",
        of: Type::Choice(&["off", "on", "all"]),
        about: "rare behavior of our own code: each place is active in a quarter of the seeds, or all are",
    },
    Key { name: "topology", of: Type::Choice(&["hyparview", "mesh"]), about: "partial views, or everybody everybody's neighbor" },
    Key { name: "active", of: Type::Count(1, 64), about: "neighbors of a node in a partial view" },
    Key { name: "passive", of: Type::Count(1, 1_024), about: "further peers that a partial view remembers" },
    Key { name: "retention", of: Type::Time(SECOND, 3_600 * SECOND), about: "how long nodes keep broadcasts for peers that missed them" },
    Key { name: "suspicion", of: Type::Time(SECOND / 2, 600 * SECOND), about: "how long a suspected member has to refute" },
    Key {
        name: "without",
        of: Type::Choice(WITHOUT),
        about: "an improvement over what was published that is left out, to see what it is good for: of the membership with whole nodes, of views and trees with \
                the overlay alone",
    },
    Key {
        name: "join",
        of: Type::Choice(&["one-by-one", "staggered", "storm", "through-one"]),
        about: "how nodes come in; a storm is all at once through one contact, `through-one` over a time through it",
    },
    Key { name: "join-over", of: Type::Time(0, 86_400 * SECOND), about: "over what time nodes come in; 0s for all at once" },
    Key {
        name: "entry",
        of: Type::Choice(&["anyone", "contacts"]),
        about: "through whom nodes come in: one of those before them, or the first few in turn",
    },
    Key {
        name: "contacts",
        of: Type::Count(1, 1_000_000),
        about: "how many of the first nodes the others come in through, with entry=contacts",
    },
    Key { name: "links", of: Type::Span(0, 2 * SECOND), about: "one-way latencies between nodes, all between two times alike" },
    Key {
        name: "protocol",
        of: Type::Choice(&["ours", "paper"]),
        about: "our protocols, or HyParView and Plumtree as they were published",
    },
    Key {
        name: "threshold",
        of: Type::Count(0, 1_000),
        about: "by how many links another way must be shorter before a tree takes it; 0 for never",
    },
    Key { name: "flood", of: Type::Count(0, 8), about: "over how many links a broadcast is flooded before it follows the tree" },
    Key { name: "shuffle", of: Type::Time(SECOND, 3_600 * SECOND), about: "time between two shuffles of a node, a membership cycle" },
    Key { name: "form", of: Type::Time(SECOND, 86_400 * SECOND), about: "time to form before the work begins" },
    Key { name: "work", of: Type::Time(SECOND, 86_400 * SECOND), about: "over what time messages and writes are made" },
    Key { name: "messages", of: Type::Count(0, 1_000_000), about: "broadcasts over the whole run" },
    Key { name: "warmup", of: Type::Count(0, 1_000_000), about: "the first broadcasts, which build the trees and are not measured" },
    Key {
        name: "volley",
        of: Type::Count(1, 1_000_000),
        about: "broadcasts that are sent, or writes of one node that are made, at the same moment",
    },
    Key { name: "senders", of: Type::Count(1, 1_000_000), about: "nodes that broadcast, in turn" },
    Key { name: "bytes", of: Type::Count(8, 65_536), about: "bytes of a broadcast" },
    Key { name: "payload", of: Type::Count(0, 65_536), about: "bytes of a broadcast" },
    Key { name: "writes", of: Type::Count(0, 1_000_000), about: "writes of replicated keys over the whole run" },
    Key { name: "value", of: Type::Count(8, 60_000), about: "bytes of a value that is written" },
    Key { name: "keys", of: Type::Count(1, 100_000), about: "different keys that are written" },
    Key {
        name: "kinds",
        of: Type::Choice(&["registers", "all"]),
        about: "what keys hold: plain registers, or values of every kind, written one by one and in batches",
    },
    Key { name: "repair", of: Type::Choice(&["on", "off"]), about: "whether replicas repair with their neighbors what broadcasts missed" },
    Key {
        name: "collect-after",
        of: Type::Time(12 * SECOND, 86_400 * SECOND),
        about: "for how long removed keys leave tombstones at least",
    },
    Key { name: "absent", of: Type::Time(60 * SECOND, 30 * 86_400 * SECOND), about: "how long members that fell silent are waited for" },
    Key {
        name: "churn",
        of: Type::Share(1.0),
        about: "the share of nodes that crash in each minute of the work, and start again, with nothing unless told otherwise; one at least",
    },
    Key {
        name: "away",
        of: Type::Part(10_000, 0.45),
        about: "the share of nodes that are away, or how many; half of them crash, half are cut off",
    },
    Key {
        name: "restart-disk",
        of: Type::Share(1.0),
        about: "the share of those that start again which do so with their disk: what they had synced, and after a crash some of the rest",
    },
    Key { name: "late", of: Type::Share(0.5), about: "the share of nodes that join when half of the writes are made" },
    Key { name: "breaks", of: Type::Count(0, 10_000), about: "moments at which all connections of one node break" },
    Key { name: "crashed", of: Type::Part(10_000, 0.9), about: "the share of nodes that crash, or how many" },
    Key {
        name: "failed",
        of: Type::Share(0.99),
        about: "the share of nodes that crash at the moment of the first broadcast that is measured",
    },
    Key { name: "hostile", of: Type::Share(0.9), about: "the share of nodes that are hostile" },
    Key {
        name: "attack",
        of: Type::Choice(&["collude", "ride"]),
        about: "what hostile nodes do: name each other wherever they name peers, or take payloads and pass none on",
    },
    Key { name: "crash-rate", of: Type::Share(0.5), about: "the share of nodes that crash in each second of the work" },
    Key { name: "leave-rate", of: Type::Share(0.5), about: "the share of nodes that leave in each second of the work" },
    Key { name: "join-rate", of: Type::Share(0.5), about: "nodes that come in each second of the work, as a share of those at first" },
    Key { name: "notice", of: Type::Time(0, 600 * SECOND), about: "how long after a crash the neighbors learn of it; a latency at least" },
    Key { name: "restarted", of: Type::Share(1.0), about: "the share of crashed nodes that start again, half of them at a new address" },
    Key { name: "moved", of: Type::Share(1.0), about: "the share of those that start again which do so at a new address" },
    Key { name: "gone", of: Type::Time(SECOND / 10, 600 * SECOND), about: "how long a crashed node is gone before it starts again" },
    Key { name: "newcomers", of: Type::Count(0, 10_000), about: "nodes that start one after the other once the cluster is formed" },
    Key { name: "slow", of: Type::Part(10_000, 0.9), about: "the share of nodes that freeze again and again, or how many" },
    Key { name: "freeze", of: Type::Time(SECOND / 10, 60 * SECOND), about: "how long such a node stands still each time" },
    Key { name: "awake", of: Type::Time(SECOND / 100, 60 * SECOND), about: "how long it runs between two freezes" },
    Key { name: "side", of: Type::Share(0.5), about: "the share of nodes on the smaller side of the partition" },
    Key { name: "cut", of: Type::Time(SECOND, 3_600 * SECOND), about: "how long the partition lasts" },
    Key { name: "quiet", of: Type::Time(SECOND, 3_600 * SECOND), about: "how long the quiet phase at the end lasts at least" },
    Key { name: "settle", of: Type::Time(SECOND, 3_600 * SECOND), about: "after what time of quiet everything must have come to rest" },
];

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError(String);

impl SettingError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        SettingError(what.into())
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Number(u64),
    Share(f64),
    Part(Part),
    Word(&'static str),
    Span(u64, u64),
}

/// Some of the nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Count(u64),
    Share(f64),
}

/// The values of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<&'static str, Value>,
    typed: BTreeSet<&'static str>,
}

impl Settings {
    /// The defaults of a scenario, and over them what was typed as `key=value`.
    ///
    /// # Errors
    ///
    /// [`SettingError`] for a key that the scenario does not have, with the nearest that it has, and for a value that does not fit.
    pub fn new(defaults: &[(&str, &str)], typed: &[String]) -> Result<Self, SettingError> {
        let mut settings = Settings::defaults(KEYS, defaults)?;
        for assignment in typed {
            let Some((key, value)) = assignment.split_once('=') else {
                return Err(SettingError(format!("`{assignment}` is not of the form key=value")));
            };
            settings.replace(key, value)?;
        }
        Ok(settings)
    }

    /// Defaults alone, of some keys.
    pub(crate) fn defaults(keys: &'static [Key], defaults: &[(&str, &str)]) -> Result<Self, SettingError> {
        let mut settings = Settings { keys, values: BTreeMap::new(), typed: BTreeSet::new() };
        for (key, value) in defaults {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    /// Replaces the default of a key that there is.
    pub(crate) fn replace(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        if !self.values.contains_key(key) {
            let keys: Vec<&str> = self.values.keys().copied().collect();
            return Err(unknown("setting", key, &keys));
        }
        let name = self.set(key, value)?;
        self.typed.insert(name);
        Ok(())
    }

    fn set(&mut self, name: &str, text: &str) -> Result<&'static str, SettingError> {
        let Some(key) = self.keys.iter().find(|key| key.name == name) else {
            return Err(SettingError(format!("there is no setting `{name}`")));
        };
        let value = parse(key.of, text).ok_or_else(|| SettingError(format!("{name}: `{text}` is not {}", describe(key.of))))?;
        self.values.insert(key.name, value);
        Ok(key.name)
    }

    /// Whether a key was typed, rather than left at its default.
    pub fn is_typed(&self, key: &str) -> bool {
        self.typed.contains(key)
    }

    /// A count or a duration in microseconds; 0 when the scenario does not have the key.
    pub fn number(&self, key: &str) -> u64 {
        match self.values.get(key) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    /// A share; 0 when the scenario does not have the key.
    pub fn share(&self, key: &str) -> f64 {
        match self.values.get(key) {
            Some(Value::Share(share)) => *share,
            _ => 0.0,
        }
    }

    /// A part of a number, as a share of it.
    pub fn share_of(&self, key: &str, of: u32) -> f64 {
        match self.values.get(key) {
            Some(Value::Part(Part::Count(count))) => *count as f64 / f64::from(of.max(1)),
            Some(Value::Part(Part::Share(share)) | Value::Share(share)) => *share,
            _ => 0.0,
        }
    }

    /// A word; empty when the scenario does not have the key.
    pub fn word(&self, key: &str) -> &'static str {
        match self.values.get(key) {
            Some(Value::Word(word)) => word,
            _ => "",
        }
    }

    /// Two durations in microseconds; zeros when the scenario does not have the key.
    pub fn span(&self, key: &str) -> (u64, u64) {
        match self.values.get(key) {
            Some(Value::Span(min, max)) => (*min, *max),
            _ => (0, 0),
        }
    }

    /// A share of a number, rounded down.
    /// A part of a number: a share of it, rounded down, or as many as were typed.
    pub fn part(&self, key: &str, of: u32) -> u64 {
        match self.values.get(key) {
            Some(Value::Part(Part::Count(count))) => *count,
            Some(Value::Part(Part::Share(share)) | Value::Share(share)) => (share * f64::from(of)) as u64,
            _ => 0,
        }
    }
}

/// Says that there is no such thing, what was probably meant, and what there is.
pub(crate) fn unknown(what: &str, typed: &str, there_are: &[&str]) -> SettingError {
    let hint = nearest(typed, there_are).map_or(String::new(), |near| format!(" Did you mean `{near}`?"));
    SettingError(format!("there is no {what} `{typed}` here.{hint} There are: {}.", there_are.join(", ")))
}

/// What may be typed, in words.
pub fn describe(of: Type) -> String {
    match of {
        Type::Count(min, max) => format!("a number from {min} to {max}"),
        Type::Time(min, max) => format!("a time such as `20ms` or `1.5s`, from {} to {}", print_time(min), print_time(max)),
        Type::Share(max) => format!("a share such as `0.05` or `5%`, up to {}%", max * 100.0),
        Type::Part(count, share) => format!("a number up to {count}, or a share such as `5%` up to {}%", share * 100.0),
        Type::Choice(words) => format!("one of {}", words.join(", ")),
        Type::Span(min, max) => format!("two times such as `10ms..50ms`, from {} to {}", print_time(min), print_time(max)),
    }
}

fn print_time(micros: u64) -> String {
    match micros {
        0 => "0s".to_owned(),
        micros if micros % SECOND == 0 => format!("{}s", micros / SECOND),
        micros if micros % 1_000 == 0 => format!("{}ms", micros / 1_000),
        micros => format!("{micros}us"),
    }
}

fn parse(of: Type, text: &str) -> Option<Value> {
    match of {
        Type::Count(min, max) => text.parse().ok().filter(|count| (min..=max).contains(count)).map(Value::Number),
        Type::Time(min, max) => parse_time(text).filter(|micros| (min..=max).contains(micros)).map(Value::Number),
        Type::Share(max) => parse_share(text, max).map(Value::Share),
        Type::Part(count_max, share_max) => match text.parse().ok().filter(|count| *count <= count_max) {
            Some(count) => Some(Value::Part(Part::Count(count))),
            None => parse_share(text, share_max).map(|share| Value::Part(Part::Share(share))),
        },
        Type::Choice(words) => words.iter().find(|word| **word == text).map(|word| Value::Word(word)),
        Type::Span(min, max) => {
            let (first, last) = text.split_once("..").unwrap_or((text, text));
            let (first, last) = (parse_time(first)?, parse_time(last)?);
            (min <= first && first <= last && last <= max).then_some(Value::Span(first, last))
        }
    }
}

fn parse_share(text: &str, max: f64) -> Option<f64> {
    let share: f64 = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=max).contains(&share).then_some(share)
}

fn parse_time(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let micros = match unit.trim() {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" | "min" => 60e6,
        "h" => 3_600e6,
        "" if number == "0" => 1.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * micros).round() as u64)
}

/// The word that is nearest to what was typed, if one is near.
pub fn nearest<'a>(typed: &str, words: &[&'a str]) -> Option<&'a str> {
    let near = words.iter().map(|word| (distance(typed, word), *word)).min()?;
    (near.0 <= 2.max(typed.len() / 3) || near.1.starts_with(typed)).then_some(near.1)
}

/// How many letters must be put in, left out or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &[(&str, &str)] = &[("latency", "20ms"), ("loss", "1%"), ("messages", "10"), ("join", "storm")];

    fn with(typed: &[&str]) -> Result<Settings, String> {
        let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
        Settings::new(DEFAULTS, &typed).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_typed_replaces_the_defaults() {
        let settings = with(&["latency=1.5s", "loss=0.25", "join=one-by-one"]).unwrap();
        assert_eq!(settings.number("latency"), 1_500_000);
        assert_eq!(settings.share("loss"), 0.25);
        assert_eq!(settings.part("loss", 10), 2);
        assert_eq!(settings.number("messages"), 10);
        assert_eq!(settings.word("join"), "one-by-one");
    }

    #[test]
    fn a_mistake_is_named_with_what_was_meant() {
        assert!(with(&["latencey=1s"]).unwrap_err().contains("Did you mean `latency`?"));
        assert!(with(&["keys=3"]).unwrap_err().contains("there is no setting `keys` here"));
        assert!(with(&["loss=60%"]).unwrap_err().contains("up to 50%"));
        assert!(with(&["latency=5"]).unwrap_err().contains("a time such as"));
        assert!(with(&["join=flood"]).unwrap_err().contains("one of one-by-one, staggered, storm"));
        assert!(with(&["loss"]).unwrap_err().contains("key=value"));
        assert!(with(&["loss=NaN"]).is_err());
    }

    #[test]
    fn every_improvement_can_be_left_out() {
        use meshwork_overlay::{hyparview, plumtree, swim};
        let mut names: Vec<&str> = swim::Improvement::ALL.iter().map(|improvement| improvement.name()).collect();
        names.extend(hyparview::Improvement::ALL.iter().map(|improvement| improvement.name()));
        names.extend(plumtree::Improvement::ALL.iter().map(|improvement| improvement.name()));
        assert_eq!(WITHOUT[1..], names[..]);
    }

    #[test]
    fn distances_between_words() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("brodcast", &["broadcast", "state"]), Some("broadcast"));
        assert_eq!(nearest("qqqqqq", &["broadcast", "state"]), None);
    }
}
