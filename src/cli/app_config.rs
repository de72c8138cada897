//! What the config service of a node is told from outside: a file, which is read again when it changes, and variables of the environment.
//!
//! The file is looked at once a second. Whoever changes it should put a new one in its place in one step, because what is half written is
//! read as it is. A file that cannot be used changes nothing, and the service tells of it.

#![expect(clippy::disallowed_methods, reason = "files are read on threads that may block")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::output::Output;
use super::told::Told;
use super::{Failure, settings};
use crate::runtime::Node;
use crate::services::ServiceError;
use crate::services::config::{LoadError, Value};

/// How often the file is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// What the names of variables of the environment begin with; two underscores and the path follow.
const PREFIX: &str = "MESHWORK_CONFIG";

/// Loads the environment and the file, before anybody reads the config.
pub(super) async fn load(node: &Node, file: Option<&Path>) -> Result<(), Failure> {
    let begins = |name: &str| name.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with("__"));
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let mut said = Vec::new();
    for (name, value) in variables.filter(|(name, _)| begins(name)) {
        let value = value.into_string().map_err(|_| Failure::usage(format!("{name}: the value is not UTF-8")))?;
        said.push((name, value));
    }
    node.config().load_environment(PREFIX, said).await.map_err(|error| failure(error, &format!("{PREFIX}__…")))?;
    if let Some(file) = file {
        let text = settings::read(file)?;
        node.config().load_file(text, parse).await.map_err(|error| failure(error, &file.display().to_string()))?;
    }
    Ok(())
}

fn failure(error: ServiceError<LoadError>, whose: &str) -> Failure {
    match error {
        ServiceError::Stopped => Failure::new(error),
        error => Failure::usage(format!("{whose}: {error}")),
    }
}

/// Reads the file again whenever it changes, until the node stops.
pub(super) async fn watch(node: Node, file: PathBuf, mut seen: Option<Seen>, output: Output) {
    let mut looks = tokio::time::interval(LOOK_PERIOD);
    loop {
        looks.tick().await;
        let looked = file.clone();
        // A disk that stands still holds up a thread that does nothing else.
        let look = move || {
            let now = Seen::of(&looked);
            (now, (now != seen).then(|| settings::read(&looked)))
        };
        let Ok((now, text)) = tokio::task::spawn_blocking(look).await else { return };
        seen = now;
        let loaded = match text {
            None => continue,
            Some(Ok(text)) => node.config().load_file(text, parse).await,
            Some(Err(failure)) => {
                // The service tells of what it was given; of this nobody else would.
                tracing::warn!("{}; what it said before holds", failure.message);
                output.line(&Told::ConfigFileRefused { reason: failure.message });
                continue;
            }
        };
        match loaded {
            Ok(()) => tracing::info!(file = %file.display(), "the file of the config was read again"),
            Err(ServiceError::Stopped) => return,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the file of the config cannot be used; what it said before holds")
            }
        }
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    modified: Option<SystemTime>,
    len: u64,
}

impl Seen {
    /// None while there is no file.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Seen { modified: metadata.modified().ok(), len: metadata.len() })
    }
}

/// A file in TOML; the error is one line, which names the line of the file.
fn parse(text: &str) -> Result<Value, String> {
    let value = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    match date_in(&value) {
        Some((path, date)) => Err(format!("{path}: a date is no value; write it as text, \"{date}\"")),
        None => Ok(value),
    }
}

/// The first date, and where it is. TOML has them as values of their own, which reach other types as a map of this one name.
fn date_in(value: &Value) -> Option<(String, &str)> {
    let within =
        |name: String, value| date_in(value).map(|(path, date)| (if path.is_empty() { name } else { format!("{name}/{path}") }, date));
    match value {
        Value::Map(map) => match map.get("$__toml_private_datetime") {
            Some(Value::Text(date)) => Some((String::new(), date)),
            _ => map.iter().find_map(|(name, value)| within(name.clone(), value)),
        },
        Value::List(values) => values.iter().enumerate().find_map(|(index, value)| within(index.to_string(), value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn toml_becomes_a_value_or_one_line() {
        let map = |entries: &[(&str, Value)]| Value::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
        let values =
            [("rate", Value::Integer(5)), ("share", Value::Float(0.5)), ("on", Value::Bool(true)), ("name", Value::Text("x".into()))];
        let text = "[app]\nrate = 5\nshare = 0.5\non = true\nname = \"x\"\n";
        assert_eq!(parse(text), Ok(map(&[("app", map(&values))])));
        assert_eq!(parse(""), Ok(Value::Map(BTreeMap::new())));
        let problem = parse("[app]\nrate = \n").unwrap_err();
        assert!(problem.starts_with("line 2: ") && !problem.contains('\n'), "{problem}");
        assert!(parse("[app]\nbig = 99999999999999999999\n").is_err());
        for (date, path) in [("1979-05-27T07:32:00Z", "app/start"), ("07:32:00", "app/start"), ("[1, 1979-05-27]", "app/start/1")] {
            let problem = parse(&format!("[app]\nstart = {date}\n")).unwrap_err();
            assert!(problem.starts_with(&format!("{path}: a date is no value")), "{problem}");
        }
    }
}
