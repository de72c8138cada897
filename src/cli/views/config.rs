//! The config as a node sees it.

use meshwork_crdt::Stamp;
use serde::{Deserialize, Serialize};

use super::{Printable, short};
use crate::cli::asks::Json;
use crate::cli::text::{self, Align, Table, json_line, printable};
use crate::services::config::{self, Explained, Found, HiddenEntry};

/// Paths and changes in one answer.
const LISTED_MAX: usize = 1_000;
/// Characters of a value in a table.
const VALUE_CHARS_MAX: usize = 60;

/// When something was written: the stamp of the cluster, and its milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct When {
    pub(in crate::cli) stamp: Option<String>,
    pub(in crate::cli) time_ms: Option<u64>,
}

impl When {
    pub(super) fn of(stamp: Option<Stamp>) -> Self {
        When { stamp: stamp.map(|stamp| stamp.to_string()), time_ms: stamp.map(Stamp::millis) }
    }

    pub(super) fn print(&self) -> String {
        self.time_ms.map(text::date).unwrap_or_default()
    }
}

/// A value as JSON.
pub(in crate::cli) fn value(value: &config::Value) -> Json {
    // What JSON lacks, such as an infinite number, becomes null there.
    serde_json::to_value(value).unwrap_or_default()
}

fn value_text(value: &Json, chars_max: usize) -> String {
    printable(&json_line(value), chars_max)
}

/// A value that counts, and where it comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Setting {
    pub(in crate::cli) path: String,
    pub(in crate::cli) value: Json,
    /// `default`, `file`, `environment`, `cluster` or `override`.
    pub(in crate::cli) layer: String,
    /// The node that set it.
    pub(in crate::cli) origin: String,
    #[serde(flatten)]
    pub(in crate::cli) when: When,
}

impl Setting {
    pub(in crate::cli) fn of(path: String, found: &Found) -> Self {
        let origin = found.origin.to_string();
        Setting { path, value: value(&found.value), layer: found.layer.to_string(), origin, when: When::of(found.stamp) }
    }
}

impl Printable for Setting {
    fn print(&self, _: Option<usize>) -> String {
        let when = if self.when.time_ms.is_some() { format!(", {}", self.when.print()) } else { String::new() };
        let (layer, origin) = (printable(&self.layer, 20), short(&self.origin));
        format!("{}\n({layer}, set by {origin}{when})\n", value_text(&self.value, usize::MAX))
    }
}

/// What each layer says of a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Explanation {
    path: String,
    /// The weakest first.
    layers: Vec<LayerView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LayerView {
    layer: String,
    /// Whether it says anything.
    found: bool,
    value: Json,
    origin: Option<String>,
    #[serde(flatten)]
    when: When,
    /// Whether it counts, or a part of it.
    answers: bool,
    /// Entries of the cluster that are not shown.
    hidden: Vec<HiddenView>,
}

/// An entry that is not shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct HiddenView {
    pub(in crate::cli) key: String,
    pub(in crate::cli) origin: String,
    pub(in crate::cli) reason: String,
}

impl HiddenView {
    pub(in crate::cli) fn of(entry: &HiddenEntry) -> Self {
        HiddenView { key: entry.key.to_string(), origin: entry.origin.to_string(), reason: entry.problem.to_string() }
    }
}

impl Explanation {
    pub(in crate::cli) fn of(path: String, layers: &[Explained]) -> Self {
        let layers = layers.iter().map(|explained| LayerView {
            layer: explained.layer.to_string(),
            found: explained.found.is_some(),
            value: explained.found.as_ref().map(|found| value(&found.value)).unwrap_or_default(),
            origin: explained.found.as_ref().map(|found| found.origin.to_string()),
            when: When::of(explained.found.as_ref().and_then(|found| found.stamp)),
            answers: explained.answers,
            hidden: explained.hidden.iter().take(LISTED_MAX).map(HiddenView::of).collect(),
        });
        Explanation { path, layers: layers.collect() }
    }
}

impl Printable for Explanation {
    fn print(&self, width: Option<usize>) -> String {
        let columns =
            [("layer", Align::Left), ("counts", Align::Left), ("value", Align::Left), ("set by", Align::Left), ("when", Align::Left)];
        let mut table = Table::new(&columns);
        let mut hidden = String::new();
        for layer in &self.layers {
            table.row([
                printable(&layer.layer, 20),
                if layer.answers { "yes" } else { "" }.to_owned(),
                if layer.found { value_text(&layer.value, VALUE_CHARS_MAX) } else { String::new() },
                layer.origin.as_deref().map(short).unwrap_or_default(),
                layer.when.print(),
            ]);
            for entry in &layer.hidden {
                hidden += &format!(
                    "{} of {} is not shown: {}\n",
                    printable(&entry.key, 100),
                    short(&entry.origin),
                    printable(&entry.reason, 300)
                );
            }
        }
        format!("{}{hidden}", table.render(width))
    }
}

/// What was set for the cluster at and below a path.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct History {
    path: String,
    /// The newest first.
    changes: Vec<ChangeView>,
    /// Whether there are more changes than these.
    more: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ChangeView {
    path: String,
    value: Json,
    removed: bool,
    proposer: String,
    #[serde(flatten)]
    when: When,
}

impl History {
    pub(in crate::cli) fn of(path: String, changes: &[config::Change]) -> Self {
        let listed = changes.iter().take(LISTED_MAX).map(|change| ChangeView {
            path: change.path.to_string(),
            value: change.value.as_ref().map(value).unwrap_or_default(),
            removed: change.value.is_none(),
            proposer: change.proposer.to_string(),
            when: When::of(Some(change.stamp)),
        });
        History { path, changes: listed.collect(), more: changes.len() > LISTED_MAX }
    }
}

impl Printable for History {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("when", Align::Left), ("set by", Align::Left), ("path", Align::Left), ("value", Align::Left)]);
        for change in &self.changes {
            let value = if change.removed { "removed".to_owned() } else { value_text(&change.value, VALUE_CHARS_MAX) };
            table.row([change.when.print(), short(&change.proposer), printable(&change.path, 100), value]);
        }
        table.render(width)
    }
}

/// Values that were set at the same time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Conflicts {
    /// The oldest first.
    conflicts: Vec<ConflictView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ConflictView {
    id: String,
    pub(in crate::cli) path: String,
    /// When this node noticed it, in milliseconds since the Unix epoch.
    noticed_ms: u64,
    pub(in crate::cli) chosen: CandidateView,
    /// From above 0 to 1.
    confidence: f64,
    /// The newest first.
    values: Vec<CandidateView>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct CandidateView {
    pub(in crate::cli) value: Json,
    removed: bool,
    origin: String,
    #[serde(flatten)]
    when: When,
}

impl ConflictView {
    pub(in crate::cli) fn of(conflict: &config::Conflict) -> Self {
        let candidate = |shown: &Option<config::Value>, origin: meshwork_channels::PeerId, stamp| CandidateView {
            value: shown.as_ref().map(value).unwrap_or_default(),
            removed: shown.is_none(),
            origin: origin.to_string(),
            when: When::of(Some(stamp)),
        };
        let chosen = &conflict.chosen;
        ConflictView {
            id: conflict.id.to_string(),
            path: conflict.path.to_string(),
            noticed_ms: conflict.noticed.as_micros() / 1_000,
            chosen: candidate(&chosen.value, chosen.origin, chosen.stamp),
            confidence: chosen.confidence,
            values: conflict.values.iter().map(|value| candidate(&value.value, value.origin, value.stamp)).collect(),
        }
    }
}

impl CandidateView {
    pub(in crate::cli) fn print(&self) -> String {
        if self.removed { "removed".to_owned() } else { value_text(&self.value, VALUE_CHARS_MAX) }
    }
}

impl Conflicts {
    pub(in crate::cli) fn of(conflicts: &[config::Conflict]) -> Self {
        Conflicts { conflicts: conflicts.iter().map(ConflictView::of).collect() }
    }
}

impl Printable for Conflicts {
    fn print(&self, width: Option<usize>) -> String {
        let columns =
            [("noticed", Align::Left), ("path", Align::Left), ("chosen", Align::Left), ("confidence", Align::Right), ("of", Align::Left)];
        let mut table = Table::new(&columns);
        for conflict in &self.conflicts {
            let values: Vec<String> =
                conflict.values.iter().map(|value| format!("{} by {}", value.print(), short(&value.origin))).collect();
            let (path, chosen) = (printable(&conflict.path, 100), conflict.chosen.print());
            table.row([text::date(conflict.noticed_ms), path, chosen, format!("{:.2}", conflict.confidence), values.join(", ")]);
        }
        table.render(width)
    }
}

/// The paths that have a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Paths {
    paths: Vec<String>,
    /// Whether there are more paths than these.
    more: bool,
    /// What may be changed while the node runs; none for all.
    updatable: Option<Vec<String>>,
}

impl Paths {
    pub(in crate::cli) fn of(paths: &[config::Path], updatable: Option<&[config::Path]>) -> Self {
        let texts = |paths: &[config::Path]| paths.iter().take(LISTED_MAX).map(ToString::to_string).collect();
        Paths { paths: texts(paths), more: paths.len() > LISTED_MAX, updatable: updatable.map(texts) }
    }
}

impl Printable for Paths {
    fn print(&self, _: Option<usize>) -> String {
        let mut text: String = self.paths.iter().map(|path| format!("{}\n", printable(path, 600))).collect();
        if self.more {
            text += &format!("only the first {} are shown; name a path above fewer\n", self.paths.len());
        }
        if let Some(updatable) = &self.updatable {
            text += &format!("\nmay be changed while the node runs: {}\n", printable(&updatable.join(", "), 2_000));
        }
        text
    }
}
