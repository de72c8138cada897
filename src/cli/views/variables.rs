//! Agent variables as a node sees them.

use serde::{Deserialize, Serialize};

use super::config::When;
use super::{Printable, short};
use crate::cli::asks::Json;
use crate::cli::text::{Align, Table, json_line, printable};
use crate::services::variables::{self, GetError, Kind, Version};

/// A value as JSON.
pub(in crate::cli) fn value(value: &variables::Value) -> Json {
    match value {
        variables::Value::Float(number) => Json::from(*number),
        variables::Value::Integer(number) => Json::from(*number),
        variables::Value::Text(text) => Json::from(text.as_str()),
    }
}

/// A variable and its visible version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct VariableView {
    name: String,
    #[serde(flatten)]
    version: VersionView,
    /// Which values it takes, as far as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    takes: Option<String>,
    /// Why it has no value, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct VersionView {
    value: Json,
    version: u64,
    node: Option<String>,
    agent: Option<String>,
    #[serde(flatten)]
    when: When,
    score: Option<f64>,
    /// How many writes at the same time it was chosen from.
    concurrent: usize,
}

impl VersionView {
    fn of(version: &Version) -> Self {
        VersionView {
            value: value(&version.value),
            version: version.version,
            node: version.by.as_ref().map(|by| by.node.to_string()),
            agent: version.by.as_ref().and_then(|by| by.agent.as_ref()).map(ToString::to_string),
            when: When::of(version.stamp),
            score: version.score,
            concurrent: version.concurrent,
        }
    }

    fn author(&self) -> String {
        let agent = self.agent.as_deref().map(|agent| format!("{} on ", printable(agent, 40))).unwrap_or_default();
        self.node.as_deref().map(|node| format!("{agent}{}", short(node))).unwrap_or_default()
    }
}

impl VariableView {
    pub(in crate::cli) fn of(name: String, kind: Option<&Kind>, version: &Result<Version, GetError>) -> Self {
        VariableView {
            name,
            version: version.as_ref().map(VersionView::of).unwrap_or_default(),
            kind: kind.map(|kind| kind.name().to_owned()),
            takes: kind.map(takes),
            problem: version.as_ref().err().map(ToString::to_string),
        }
    }
}

/// The values of a kind, in words.
fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Float { min, max, precision: 0.0 } => format!("{min} to {max}"),
        Kind::Float { min, max, precision: step } => format!("{min} to {max} in steps of {step}"),
        Kind::Integer { min, max, step: 1 } => format!("{min} to {max}"),
        Kind::Integer { min, max, step } => format!("{min} to {max} in steps of {step}"),
        Kind::Choice { options, is_custom_allowed } => {
            let options: Vec<&str> = options.iter().map(|option| option.text.as_str()).collect();
            format!("{}{}", options.join(", "), if *is_custom_allowed { " or another text" } else { "" })
        }
        Kind::Module { allowed, .. } => allowed.iter().map(|module| module.name.to_string()).collect::<Vec<_>>().join(", "),
        Kind::Composite { dependencies, .. } => {
            format!("computed from {}", dependencies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
    }
}

impl Printable for VariableView {
    fn print(&self, _: Option<usize>) -> String {
        let kind = self.kind.as_ref().zip(self.takes.as_ref());
        let kind = kind.map(|(kind, takes)| format!("; {}: {}", printable(kind, 20), printable(takes, 500))).unwrap_or_default();
        match &self.problem {
            Some(problem) => format!("no value: {}{kind}\n", printable(problem, 300)),
            None => {
                let author = if self.version.node.is_some() { format!(" by {}", self.version.author()) } else { String::new() };
                let value = printable(&json_line(&self.version.value), usize::MAX);
                format!("{value}\n(version {}{author}{kind})\n", self.version.version)
            }
        }
    }
}

/// The variables that match.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct VariableList {
    pub(in crate::cli) variables: Vec<VariableView>,
}

impl Printable for VariableList {
    fn print(&self, width: Option<usize>) -> String {
        let columns =
            [("variable", Align::Left), ("value", Align::Left), ("version", Align::Right), ("set by", Align::Left), ("when", Align::Left)];
        let mut table = Table::new(&columns);
        for variable in &self.variables {
            let version = &variable.version;
            let value = match &variable.problem {
                Some(problem) => format!("no value: {}", printable(problem, 60)),
                None => printable(&json_line(&version.value), 60),
            };
            table.row([printable(&variable.name, 128), value, version.version.to_string(), version.author(), version.when.print()]);
        }
        table.render(width)
    }
}

/// The versions of a variable that were visible on one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Versions {
    name: String,
    /// The newest first.
    versions: Vec<VersionView>,
}

impl Versions {
    pub(in crate::cli) fn of(name: String, versions: &[Version]) -> Self {
        Versions { name, versions: versions.iter().map(VersionView::of).collect() }
    }
}

impl Printable for Versions {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("version", Align::Right), ("value", Align::Left), ("set by", Align::Left), ("when", Align::Left)]);
        for version in &self.versions {
            table.row([version.version.to_string(), printable(&json_line(&version.value), 60), version.author(), version.when.print()]);
        }
        table.render(width)
    }
}

/// What happened to a variable, as one node counted it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct StatisticsView {
    pub(in crate::cli) name: String,
    pub(in crate::cli) updates: u64,
    pub(in crate::cli) conflicts: u64,
    pub(in crate::cli) refused: u64,
    pub(in crate::cli) hidden: u64,
}

impl Printable for StatisticsView {
    fn print(&self, _: Option<usize>) -> String {
        let StatisticsView { updates, conflicts, refused, hidden, .. } = self;
        format!("updates    {updates}\nconflicts  {conflicts}\nrefused    {refused}\nhidden     {hidden}\n")
    }
}
