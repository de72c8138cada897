//! Scenario files: a preset with other settings, faults of one's own, expectations, and settings to be swept, in TOML.
//!
//! ```toml
//! name = "half of them crash"
//! scenario = "broadcast"
//! nodes = 40
//! seeds = "1..6"
//!
//! [set]
//! messages = 100
//! loss = "1%"
//!
//! [[fault]]
//! kind = "crash"
//! at = "28s"
//! nodes = "50%"
//!
//! [[expect]]
//! metric = "delivery"
//! min = 1
//!
//! [sweep]
//! active = [4, 6]
//! ```
//!
//! An expectation can also say what a paper published and what a peer reached, as `published` and `peer`; these words are for tables.
//!
//! A preset of the overlay alone takes settings, expectations and sweeps, and no faults: who goes is one of its settings.
//!
//! Whatever is wrong is told with the file, the line, the key and what would be right. Faults are drawn for each seed with numbers of their own, so a further fault changes nothing of the others.

mod fault;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use fault::{Fault, Select};
pub use fault::{KINDS, Kind};

use crate::job::Job;
use crate::plan::{Expectation, Plan, SECOND};
use crate::report::figures;
use crate::scale::{self, Preset};
use crate::scenarios::{self, Scenario};
use crate::schedule::Happening;
use crate::settings::{SettingError, unknown};

/// Most values of one swept setting, and most runs of a file for each seed.
const SWEPT_MAX: usize = 1_000;

/// What a file changes.
#[derive(Clone, Copy, Debug)]
enum Base {
    Whole(&'static Scenario),
    Overlay(&'static Preset),
}

impl Base {
    fn named(name: &str) -> Option<Base> {
        Scenario::named(name).map(Base::Whole).or_else(|| Preset::named(name).map(Base::Overlay))
    }

    fn nodes(self) -> u32 {
        match self {
            Base::Whole(scenario) => scenario.nodes,
            Base::Overlay(preset) => preset.nodes,
        }
    }

    fn seeds(self) -> u64 {
        match self {
            Base::Whole(scenario) => scenario.seeds,
            Base::Overlay(preset) => preset.seeds,
        }
    }

    fn nodes_bounds(self) -> RangeInclusive<u32> {
        match self {
            Base::Whole(_) => scenarios::NODES_MIN..=scenarios::NODES_MAX,
            Base::Overlay(_) => scale::plan::NODES_MIN..=scale::plan::NODES_MAX,
        }
    }
}

/// What a file says.
#[derive(Clone, Debug)]
pub struct File {
    /// What the file is called, for messages and for repeating a run.
    path: String,
    /// What people call the scenario; the name of the preset unless they say.
    pub name: String,
    base: Base,
    /// How many nodes.
    pub nodes: u32,
    /// The seeds.
    pub seeds: Range<u64>,
    /// Settings of the preset as `key=value`, with the place in the file.
    set: Vec<(String, Place)>,
    faults: Vec<Fault>,
    expectations: Vec<Expectation>,
    /// What others reached, in the order of the expectations.
    references: Vec<Reference>,
    /// Settings that take several values, as `key=value`.
    sweep: Vec<Vec<(String, Place)>>,
}

/// What was reached elsewhere of what is expected, in words for a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// By the paper.
    pub published: Option<String>,
    /// By another implementation.
    pub peer: Option<String>,
}

/// A place in the text of a file: its line, from 1.
type Place = usize;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    path: String,
    line: Place,
    what: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

impl std::error::Error for FileError {}

/// The text of a file, and where one is in it.
struct Text<'a> {
    path: &'a str,
    text: &'a str,
}

impl Text<'_> {
    fn line(&self, at: usize) -> Place {
        1 + self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, at: usize, what: impl Into<String>) -> FileError {
        FileError { path: self.path.to_owned(), line: self.line(at), what: what.into() }
    }

    /// Looks at every key of a table.
    fn walk<'i>(
        &self,
        table: &DeTable<'i>,
        what: &str,
        keys: &[&str],
        mut take: impl FnMut(&str, &Spanned<DeValue<'i>>) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        for (key, value) in table.iter() {
            if !keys.contains(&key.get_ref().as_ref()) {
                return Err(self.error(key.span().start, unknown(&format!("key of {what}"), key.get_ref(), keys).to_string()));
            }
            take(key.get_ref(), value)?;
        }
        Ok(())
    }

    fn table<'v, 'i>(&self, value: &'v Spanned<DeValue<'i>>, what: &str) -> Result<&'v DeTable<'i>, FileError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            other => Err(self.error(value.span().start, format!("{what} is {}; it must be a table", kind(other)))),
        }
    }

    fn tables<'v, 'i>(&self, value: &'v Spanned<DeValue<'i>>, what: &str) -> Result<Vec<(usize, &'v DeTable<'i>)>, FileError> {
        let DeValue::Array(array) = value.get_ref() else {
            return Err(self
                .error(value.span().start, format!("`{what}` is {}; each is a table that begins with [[{what}]]", kind(value.get_ref()))));
        };
        array.iter().map(|value| Ok((value.span().start, self.table(value, what)?))).collect()
    }

    /// A value as one would type it on the command line.
    fn word(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, FileError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(is) => Ok(is.to_string()),
            other => Err(self.error(value.span().start, format!("{key} is {}; it must be one value", kind(other)))),
        }
    }

    fn number(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<f64, FileError> {
        let text = self.word(key, value)?;
        text.parse().map_err(|_| self.error(value.span().start, format!("{key}: `{text}` is not a number")))
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl File {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn parse(path: &str, text: &str) -> Result<File, FileError> {
        let at = Text { path, text };
        let root = DeTable::parse(text).map_err(|error| at.error(error.span().map_or(0, |span| span.start), error.message()))?;
        let root = root.get_ref();
        let whole = scenarios::ALL.iter().map(|scenario| scenario.name);
        let names: Vec<&str> = whole.chain(scale::plan::ALL.iter().map(|preset| preset.name)).collect();
        let Some(named) = root.get("scenario") else {
            return Err(at.error(0, format!("there is no `scenario`, the preset that the file changes: one of {}", names.join(", "))));
        };
        let name = at.word("scenario", named)?;
        let base = Base::named(&name).ok_or_else(|| at.error(named.span().start, unknown("scenario", &name, &names).to_string()))?;
        let mut file = File {
            path: path.to_owned(),
            name,
            base,
            nodes: base.nodes(),
            seeds: 1..1 + base.seeds(),
            set: Vec::new(),
            faults: Vec::new(),
            expectations: Vec::new(),
            references: Vec::new(),
            sweep: Vec::new(),
        };
        at.walk(root, "the file", &["name", "scenario", "nodes", "seeds", "set", "fault", "expect", "sweep"], |key, value| {
            let wrong = |what: String| at.error(value.span().start, what);
            match key {
                "name" => file.name = at.word(key, value)?,
                "nodes" => {
                    let (text, nodes) = (at.word(key, value)?, base.nodes_bounds());
                    let number = text.parse().ok().filter(|number| nodes.contains(number));
                    file.nodes = number
                        .ok_or_else(|| wrong(format!("nodes: `{text}` is not a number from {} to {}", nodes.start(), nodes.end())))?;
                }
                "seeds" => file.seeds = crate::command::seeds(&at.word(key, value)?).map_err(|what| wrong(format!("seeds: {what}")))?,
                "set" => {
                    for (key, value) in at.table(value, "set")?.iter() {
                        file.set.push((format!("{}={}", key.get_ref(), at.word(key.get_ref(), value)?), at.line(key.span().start)));
                    }
                }
                "fault" => {
                    if matches!(base, Base::Overlay(_)) {
                        return Err(wrong("a run of the overlay alone has no faults; who goes is one of its settings".to_owned()));
                    }
                    for (start, table) in at.tables(value, key)? {
                        file.faults.push(fault(&at, start, table)?);
                    }
                }
                "expect" => {
                    for (start, table) in at.tables(value, key)? {
                        let (expectation, reference) = expectation(&at, start, table)?;
                        file.expectations.push(expectation);
                        file.references.push(reference);
                    }
                }
                "sweep" => {
                    for (key, value) in at.table(value, "sweep")?.iter() {
                        let DeValue::Array(values) = value.get_ref() else {
                            return Err(at.error(
                                value.span().start,
                                format!("{} is {}; a list of values is swept", key.get_ref(), kind(value.get_ref())),
                            ));
                        };
                        let value =
                            |value| Ok((format!("{}={}", key.get_ref(), at.word(key.get_ref(), value)?), at.line(key.span().start)));
                        file.sweep.push(values.iter().map(value).collect::<Result<_, FileError>>()?);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        let runs = file.sweep.iter().map(Vec::len).try_fold(1_usize, usize::checked_mul);
        if runs.is_none_or(|runs| !(1..=SWEPT_MAX).contains(&runs)) {
            let place = root.get("sweep").map_or(0, |sweep| sweep.span().start);
            return Err(at.error(place, format!("the sweep must have 1 to {SWEPT_MAX} combinations of values")));
        }
        // Whatever is wrong with the settings shall be said now, with its line.
        for variant in file.variants() {
            file.job(file.seeds.start, &variant, 1)?;
        }
        Ok(file)
    }

    /// The combinations of the swept values, each as `key=value`; one without any when nothing is swept.
    pub fn variants(&self) -> Vec<Vec<String>> {
        let mut variants = vec![Vec::new()];
        for values in &self.sweep {
            let longer = |variant: &Vec<String>| -> Vec<Vec<String>> {
                let with = |(value, _): &(String, Place)| [&variant[..], std::slice::from_ref(value)].concat();
                values.iter().map(with).collect()
            };
            variants = variants.iter().flat_map(longer).collect();
        }
        variants
    }

    /// What is expected, and what others reached of it.
    pub fn expectations(&self) -> impl Iterator<Item = (&Expectation, &Reference)> {
        self.expectations.iter().zip(&self.references)
    }

    /// Whether it runs the overlay alone.
    pub fn is_of_the_overlay(&self) -> bool {
        matches!(self.base, Base::Overlay(_))
    }

    /// The run for a seed, with further settings as `key=value`, such as one of [`variants`](Self::variants); one of the overlay alone is on so
    /// many threads.
    ///
    /// # Errors
    ///
    /// A setting that cannot be used.
    pub fn job(&self, seed: u64, further: &[String], threads: u32) -> Result<Job, FileError> {
        let mut typed: Vec<String> = Vec::new();
        let key = |assignment: &str| assignment.split('=').next().map(str::to_owned);
        for assignment in self.set.iter().map(|(assignment, _)| assignment).chain(further) {
            // The last one counts, and stands alone, so that the run is repeated with what it had.
            typed.retain(|earlier| key(earlier) != key(assignment));
            typed.push(assignment.clone());
        }
        let mut replay = format!("meshwork-sim run {} --seed {seed}", self.path);
        for assignment in further {
            replay.push_str(&format!(" --set {assignment}"));
        }
        match self.base {
            Base::Whole(scenario) => Ok(Job::Whole(Box::new(self.whole(scenario, seed, &typed, replay)?))),
            Base::Overlay(preset) => {
                let mut plan = preset.plan(self.nodes, seed, threads, &typed).map_err(|error| self.place(&error))?;
                plan.name.clone_from(&self.name);
                plan.replay = replay;
                plan.expectations.extend(self.expectations.iter().cloned());
                Ok(Job::Overlay(Box::new(plan)))
            }
        }
    }

    /// The run of whole nodes.
    fn whole(&self, scenario: &Scenario, seed: u64, typed: &[String], replay: String) -> Result<Plan, FileError> {
        let mut plan = scenario.plan(self.nodes, seed, typed).map_err(|error| self.place(&error))?;
        plan.scenario.clone_from(&self.name);
        plan.replay = replay;
        for (index, fault) in self.faults.iter().enumerate() {
            fault.put(index, &mut plan).map_err(|what| FileError { path: self.path.clone(), line: fault.line, what })?;
        }
        plan.expectations.extend(self.expectations.iter().cloned());
        // Calm begins when everything is over, the faults of the file too.
        plan.schedule.retain(|entry| entry.what != Happening::Calm);
        plan.calm_at = plan.calm_at.max(plan.schedule.ends_at() + SECOND);
        plan.schedule.push(plan.calm_at, Happening::Calm);
        plan.schedule.sort();
        // A month of repetitions, say.
        plan.check().map_err(|what| FileError { path: self.path.clone(), line: 1, what: format!("this cannot be run: {what}") })?;
        Ok(plan)
    }

    /// Where the setting is that an error is about: the one that it names first.
    fn place(&self, error: &SettingError) -> FileError {
        let what = error.to_string();
        let all = self.set.iter().chain(self.sweep.iter().flatten());
        let place = |(assignment, line): &(String, Place)| {
            let key = assignment.split('=').next().unwrap_or_default();
            what.find(key).map(|at| (at, *line))
        };
        let line = all.filter_map(place).min().map_or(1, |(_, line)| line);
        FileError { path: self.path.clone(), line, what }
    }
}

fn fault(at: &Text<'_>, start: usize, table: &DeTable<'_>) -> Result<Fault, FileError> {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let Some(named) = table.get("kind") else {
        return Err(at.error(start, format!("this fault has no `kind`: one of {}", names.join(", "))));
    };
    let name = at.word("kind", named)?;
    let kind = KINDS.iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| at.error(named.span().start, unknown("kind of fault", &name, &names).to_string()))?;
    let mut fault = Fault::new(kind, at.line(start)).map_err(|error| at.error(start, error.to_string()))?;
    let keys: Vec<&str> =
        ["kind"].into_iter().chain(kind.has_nodes.then_some("nodes")).chain(kind.keys.iter().map(|(key, _)| *key)).collect();
    let mut has_time = false;
    at.walk(table, &format!("a fault of kind {name}"), &keys, |key, value| match key {
        "kind" => Ok(()),
        "nodes" => {
            fault.nodes = Some(select(at, value)?);
            Ok(())
        }
        _ => {
            has_time |= key == "at";
            let text = at.word(key, value)?;
            fault.settings.replace(key, &text).map_err(|error| at.error(value.span().start, error.to_string()))
        }
    })?;
    if has_time { Ok(fault) } else { Err(at.error(start, "this fault has no `at`, the time at which it happens, such as `at = \"20s\"`")) }
}

fn select(at: &Text<'_>, value: &Spanned<DeValue<'_>>) -> Result<Select, FileError> {
    let wrong = || at.error(value.span().start, "nodes is a number of nodes, a share such as \"30%\", or a list of node numbers");
    match value.get_ref() {
        DeValue::Array(array) => {
            let number = |value: &Spanned<DeValue<'_>>| at.word("nodes", value).ok()?.parse().ok();
            array.iter().map(number).collect::<Option<Vec<u32>>>().map(Select::These).ok_or_else(wrong)
        }
        _ => {
            let text = at.word("nodes", value)?;
            let share = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok()).map(|percent| percent / 100.0);
            match (share, text.parse()) {
                (Some(share), _) if (0.0..=1.0).contains(&share) => Ok(Select::Share(share)),
                (None, Ok(count)) => Ok(Select::Count(count)),
                _ => Err(wrong()),
            }
        }
    }
}

fn expectation(at: &Text<'_>, start: usize, table: &DeTable<'_>) -> Result<(Expectation, Reference), FileError> {
    let mut expectation = Expectation { metric: String::new(), min: None, max: None };
    let mut reference = Reference::default();
    at.walk(table, "an expectation", &["metric", "min", "max", "published", "peer"], |key, value| {
        match key {
            "metric" => {
                let metric = at.word(key, value)?;
                if !figures::is_known(&metric) {
                    let names: Vec<&str> = figures::FIGURES.iter().map(|figure| figure.name).collect();
                    return Err(at.error(value.span().start, unknown("metric", &metric, &names).to_string()));
                }
                expectation.metric = metric;
            }
            "min" => expectation.min = Some(at.number(key, value)?),
            "published" => reference.published = Some(at.word(key, value)?),
            "peer" => reference.peer = Some(at.word(key, value)?),
            _ => expectation.max = Some(at.number(key, value)?),
        }
        Ok(())
    })?;
    if expectation.metric.is_empty() || (expectation.min.is_none() && expectation.max.is_none()) {
        return Err(at.error(start, "an expectation has a `metric`, and a `min`, a `max` or both"));
    }
    Ok((expectation, reference))
}
