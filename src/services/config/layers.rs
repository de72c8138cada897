//! Layers put over each other, value by value.

use std::collections::BTreeMap;
use std::fmt;

use meshwork_channels::PeerId;
use meshwork_crdt::Stamp;

use super::path::{Path, PathError, under};
use super::value::Value;

/// Where a value comes from. Later layers go before earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// What the program was built with.
    Default,
    /// The configuration file.
    File,
    /// Variables of the environment.
    Environment,
    /// What was set for the whole cluster.
    Cluster,
    /// What was set on this node while it ran.
    Override,
}

impl Layer {
    /// All layers, the weakest first.
    pub const ALL: [Layer; 5] = [Layer::Default, Layer::File, Layer::Environment, Layer::Cluster, Layer::Override];
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Default => "default",
            Layer::File => "file",
            Layer::Environment => "environment",
            Layer::Cluster => "cluster",
            Layer::Override => "override",
        })
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// The layer that answered; of a subtree of several, the strongest.
    pub layer: Layer,
    /// Who set it; this node for its own layers.
    pub origin: PeerId,
    /// When, if that was for the cluster.
    pub stamp: Option<Stamp>,
}

/// The order in which values are put over each other.
pub(super) type Rank = (Layer, Option<Stamp>, PeerId);

impl Found {
    pub(super) fn rank(&self) -> Rank {
        (self.layer, self.stamp, self.origin)
    }

    pub(super) fn is_empty_map(&self) -> bool {
        matches!(&self.value, Value::Map(map) if map.is_empty())
    }
}

/// Values by path, none of which is above another.
pub(super) type Visible = BTreeMap<Path, Found>;

/// Puts a value over what is there: it hides what is above and below it. A map without names hides no names.
pub(super) fn overlay(shown: &mut Visible, path: &Path, found: Found) {
    let below: Vec<Path> = under(shown, path).map(|(path, _)| path.clone()).collect();
    if found.is_empty_map() && below.iter().any(|below| below != path) {
        return;
    }
    for hidden in path.above().chain(below.iter().map(Path::as_str)) {
        shown.remove(hidden);
    }
    shown.insert(path.clone(), found);
}

/// The value at a path, of the values at and below it.
pub(super) fn assemble(path: &Path, shown: &Visible) -> Option<Value> {
    if let Some(found) = shown.get(path) {
        return Some(found.value.clone());
    }
    let mut root = BTreeMap::new();
    for (at, found) in under(shown, path) {
        let mut map = &mut root;
        let mut names = at.below(path)?.split('/').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                map.insert(name.to_owned(), found.value.clone());
                break;
            }
            let next = map.entry(name.to_owned()).or_insert_with(|| Value::Map(BTreeMap::new()));
            let Value::Map(next) = next else { break };
            map = next;
        }
    }
    (!root.is_empty()).then_some(Value::Map(root))
}

/// The values of which a subtree consists, by path; a map without names is one, except as a whole namespace.
pub(super) fn split(path: &Path, value: Value) -> Result<Vec<(Path, Value)>, (Path, PathError)> {
    let mut leaves = Vec::new();
    push_leaves(path, value, &mut leaves)?;
    Ok(leaves)
}

// A path has few names, so this ends before the stack does.
fn push_leaves(path: &Path, value: Value, leaves: &mut Vec<(Path, Value)>) -> Result<(), (Path, PathError)> {
    match value {
        Value::Map(map) if !map.is_empty() => map.into_iter().try_for_each(|(name, value)| {
            let child = path.child(&name).map_err(|error| (path.clone(), error))?;
            push_leaves(&child, value, leaves)
        }),
        Value::Map(_) if path.clone().of_value().is_err() => Ok(()),
        value => {
            let path = path.clone().of_value().map_err(|error| (path.clone(), error))?;
            leaves.push((path, value));
            Ok(())
        }
    }
}

/// The value that a variable of the environment means: `true`, `false`, a whole number, a number with a point or an exponent, else text.
/// Text in double quotes is what is between them.
pub(super) fn read_variable(text: &str) -> Value {
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return Value::Text(quoted.to_owned());
    }
    let is_number = text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'));
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if is_number && let Ok(value) = text.parse() => Value::Integer(value),
        // Not what only looks like a number when it is read as one, such as `-inf`, nor a whole number of which digits would be lost.
        _ if is_number
            && text.contains(['.', 'e', 'E'])
            && let Ok(value) = text.parse::<f64>()
            && value.is_finite() =>
        {
            Value::Float(value)
        }
        _ => Value::Text(text.to_owned()),
    }
}
