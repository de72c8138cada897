//! Where questions about the state and the services of a node are answered, whether they are typed at its terminal or come to its admin endpoint.
//!
//! The desk keeps the lease of each instance that was registered here: it is there for as long as the node runs. The registry bounds how many
//! there may be.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use meshwork_channels::PeerId;
use meshwork_crdt::WriteToken;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::asks::{
    Compute, ConfigAsk, ConfirmAsk, FindAsk, GetAsk, Json, Kind, Policy, RegisterAsk, RegistryAsk, Service, StateAsk, VariableAsk,
    VariablesAsk, patience,
};
use super::text::{json_line, printable, terminal_width};
use super::views::Printable;
use super::views::config::{Conflicts, Explanation, History, Paths, Setting};
use super::views::registry::Instances;
use super::views::state::{Done, DoneBy, ENTRIES_MAX, Entry, State};
use super::views::variables::{StatisticsView, VariableList, VariableView, Versions};
use crate::node::Level;
use crate::runtime::{AckError, Error, Lease, Node, QuorumError, Stopped};
use crate::services::ServiceError;
use crate::services::config::Path;
use crate::services::registry::{Query, Registration};
use crate::services::variables::{self, Definition, Filter, Merge, Module, Name, Order, Scope};

/// Namespace, name and instance.
type Registered = (String, String, String);

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) node: Node,
    leases: Mutex<BTreeMap<Registered, Lease>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The protocol thread does not turn.
    Stalled,
    /// The node has stopped.
    Stopped,
    /// What was asked for cannot be, for this reason.
    Refused(String),
}

impl Unanswered {
    fn refused(what: &str, why: impl Display) -> Self {
        Unanswered::Refused(format!("{}: {why}", printable(what, 200)))
    }
}

impl From<Stopped> for Unanswered {
    fn from(Stopped: Stopped) -> Self {
        Unanswered::Stopped
    }
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        match error {
            Error::Stopped => Unanswered::Stopped,
            other => Unanswered::Refused(other.to_string()),
        }
    }
}

impl From<AckError> for Unanswered {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Stopped => Unanswered::Stopped,
            other => Unanswered::Refused(other.to_string()),
        }
    }
}

impl<T> From<QuorumError<T>> for Unanswered {
    fn from(error: QuorumError<T>) -> Self {
        match error {
            QuorumError::Stopped => Unanswered::Stopped,
            other => Unanswered::Refused(other.to_string()),
        }
    }
}

impl<E: Display> From<ServiceError<E>> for Unanswered {
    fn from(error: ServiceError<E>) -> Self {
        match error {
            ServiceError::Stopped => Unanswered::Stopped,
            other => Unanswered::Refused(other.to_string()),
        }
    }
}

/// A refusal of what was asked of a variable names it.
fn of_variable<E: Display>(name: &str) -> impl FnOnce(ServiceError<E>) -> Unanswered {
    move |error| match error {
        ServiceError::Stopped => Unanswered::Stopped,
        other => Unanswered::refused(name, other),
    }
}

pub(super) fn json(view: impl Serialize) -> Result<Json, Unanswered> {
    serde_json::to_value(view).map_err(|problem| Unanswered::Refused(problem.to_string()))
}

impl Desk {
    pub(super) fn new(node: Node) -> Self {
        Desk { node, leases: Mutex::default() }
    }

    pub(super) async fn state(&self, ask: StateAsk) -> Result<Json, Unanswered> {
        let state = self.node.state();
        match ask {
            StateAsk::List { prefix } => {
                let entries = state.list(prefix, ENTRIES_MAX + 1).await?;
                json(State::of(&self.node.report().await?, &entries))
            }
            StateAsk::Get(GetAsk { key, quorum, after, timeout }) => {
                let timeout = patience(timeout);
                let value = match after {
                    Some(text) => {
                        let token: WriteToken = text.parse().map_err(|error| Unanswered::refused("--after", error))?;
                        if **token.key() != *key {
                            return Err(Unanswered::refused(
                                "--after",
                                format_args!("the token is of the key `{}`", printable(token.key(), 100)),
                            ));
                        }
                        state.read_after(&token, timeout).await?
                    }
                    None if quorum => state.read_quorum(key.clone(), Level::Quorum, timeout).await?.value,
                    None => state.read(key.clone()).await?,
                };
                let missing = || Unanswered::Refused(format!("no value under `{}`", printable(&key, 100)));
                json(Entry::of(key.clone(), &value.ok_or_else(missing)?))
            }
            StateAsk::Confirm(ConfirmAsk { op, acked, timeout }) => {
                let (done, key, op) = op.parts();
                let level = acked.map_or(Level::Quorum, Level::Acked);
                let acked = state.apply_with(key.clone(), op, level, patience(timeout)).await?;
                json(DoneBy::new(Done::new(done, key, acked.token.is_some()), &acked))
            }
            StateAsk::Do(op) => {
                let (done, key, op) = op.parts();
                json(Done::new(done, key.clone(), state.apply(key, op).await?.is_some()))
            }
            StateAsk::Batch { ops } if ops.is_empty() => Err(Unanswered::refused("batch", "there is nothing to write in it")),
            StateAsk::Batch { ops } => {
                let what = format!("{} writes", ops.len());
                let ops = ops.into_iter().map(|op| op.parts()).map(|(_, key, op)| (key, op));
                json(Done::new("batch", what, state.batch(ops).await?.is_some()))
            }
        }
    }

    pub(super) async fn config(&self, ask: ConfigAsk) -> Result<Json, Unanswered> {
        let config = self.node.config();
        let refused = |path: &str, error: &dyn Display| Unanswered::refused(path, error);
        match ask {
            ConfigAsk::Get { path } => {
                let found = config.read(path.clone()).await?.map_err(|error| refused(&path, &error))?;
                json(Setting::of(path, &found))
            }
            ConfigAsk::Set { path, value } => json(Done::new("set", path.clone(), config.set(path, value).await?.is_some())),
            ConfigAsk::Remove { path } => json(Done::new("remove", path.clone(), config.remove(path).await?.is_some())),
            ConfigAsk::Explain { path } => {
                let layers = config.explain(path.clone()).await?.map_err(|error| refused(&path, &error))?;
                json(Explanation::of(path, &layers))
            }
            ConfigAsk::History { path } => {
                let changes = config.history(path.clone()).await?.map_err(|error| Unanswered::Refused(error.to_string()))?;
                json(History::of(path, &changes))
            }
            ConfigAsk::Rollback { path, count } => json(Done::new("rollback", path.clone(), config.rollback(path, count).await?.is_some())),
            ConfigAsk::Update { path, value } => {
                config.update(path.clone(), value).await?;
                json(Done::new("update", path, true))
            }
            ConfigAsk::Reset { path } => {
                config.reset(path.clone()).await?;
                json(Done::new("reset", path, true))
            }
            ConfigAsk::Undo { count } => {
                config.undo(count).await?;
                json(Done::new("undo", if count == 1 { "1 change".to_owned() } else { format!("{count} changes") }, count > 0))
            }
            ConfigAsk::Conflicts => json(Conflicts::of(&config.conflicts().await?)),
            ConfigAsk::Paths { prefix } => {
                let parse = |prefix: String| Path::try_from(prefix.as_str()).map_err(|error| refused(&prefix, &error));
                let paths = config.paths(prefix.map(parse).transpose()?).await?;
                json(Paths::of(&paths, config.updatable_paths().await?.as_deref()))
            }
        }
    }

    pub(super) async fn registry(&self, ask: RegistryAsk) -> Result<Json, Unanswered> {
        let registry = self.node.registry();
        match ask {
            RegistryAsk::List { namespace } => {
                let query = namespace.map_or_else(Query::new, |namespace| Query::new().namespace(namespace));
                json(Instances::of(&registry.find(query).await?))
            }
            RegistryAsk::Find(ask) => json(Instances::of(&registry.find(query(ask)?).await?)),
            RegistryAsk::Register(ask) => {
                let (at, registration) = registration(ask);
                let lease = registry.register(registration).await?;
                self.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone(), lease);
                json(Done::new("register", format!("{}/{} {}", at.0, at.1, at.2), true))
            }
            RegistryAsk::Unregister { name, namespace, instance } => {
                let what = format!("{namespace}/{name} {instance}");
                let lease = self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(&(namespace, name, instance));
                match lease {
                    // Its end is queued before whatever is asked next.
                    Some(lease) => drop(lease),
                    None => return Err(Unanswered::refused(&what, "it was not registered here by a command")),
                }
                json(Done::new("unregister", what, true))
            }
        }
    }

    pub(super) async fn variables(&self, ask: VariablesAsk) -> Result<Json, Unanswered> {
        let variables = self.node.variables();
        match ask {
            VariablesAsk::List { prefix, kind } => {
                let found = variables.list(Filter { prefix, kind: kind.map(kind_name), scope: None }).await?;
                let views = found.iter().map(|(name, version)| VariableView::of(name.to_string(), None, version));
                json(VariableList { variables: views.collect() })
            }
            VariablesAsk::Get { name } => self.variable(name).await,
            VariablesAsk::Set { name, value, expected, score, agent } => {
                let definition = variables.definition(name.clone()).await?.map_err(|error| Unanswered::refused(&name, error))?;
                let agent = agent.map(|agent| agent.parse().map_err(|error| Unanswered::refused(&format!("the agent {agent}"), error)));
                let agent = agent.transpose()?;
                let update = variables::Update { value: fit(&definition.kind, value), expected, score, agent };
                variables.update(name.clone(), update).await.map_err(of_variable(&name))?;
                self.variable(name).await
            }
            VariablesAsk::Register(ask) => {
                let name = ask.name.clone();
                let definition = definition(ask).map_err(|problem| Unanswered::refused(&name, problem))?;
                variables.register(definition).await.map_err(of_variable(&name))?;
                self.variable(name).await
            }
            VariablesAsk::Delete { name } => {
                variables.delete(name.clone()).await.map_err(of_variable(&name))?;
                json(Done::new("delete", name, true))
            }
            VariablesAsk::History { name, len } => {
                // A name that is none has no history either, and says why.
                self.variable(name.clone()).await?;
                json(Versions::of(name.clone(), &variables.history(name, len).await?))
            }
            VariablesAsk::Statistics { name } => match variables.statistics(name.clone()).await? {
                Some(variables::Statistics { updates, conflicts, refused, hidden }) => {
                    json(StatisticsView { name, updates, conflicts, refused, hidden })
                }
                None => Err(Unanswered::refused(&name, variables::GetError::NotFound)),
            },
        }
    }

    async fn variable(&self, name: String) -> Result<Json, Unanswered> {
        let variables = self.node.variables();
        let definition = variables.definition(name.clone()).await?.map_err(|error| Unanswered::refused(&name, error))?;
        let version = variables.get(name.clone()).await?;
        json(VariableView::of(name, Some(&definition.kind), &version))
    }

    /// Answers what is typed at the terminal of the node.
    pub(super) async fn typed(&self, service: Service) -> Result<Json, Unanswered> {
        match service {
            Service::State { verb } => self.state(verb.unwrap_or_default()).await,
            Service::Config { verb } => self.config(verb).await,
            Service::Registry { verb } => self.registry(verb).await,
            Service::Variables { verb } => self.variables(verb).await,
        }
    }
}

/// The answer to a question as it is printed: for people, or as one line of JSON, which after `event` has it as its first field.
///
/// # Errors
///
/// The answer is in another format, as that of another version may be.
pub(super) fn print(service: &Service, answer: Json, is_json: bool, event: Option<&'static str>) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Line<T> {
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<&'static str>,
        #[serde(flatten)]
        view: T,
    }
    fn of<T: DeserializeOwned + Serialize + Printable>(
        answer: Json,
        is_json: bool,
        event: Option<&'static str>,
    ) -> Result<String, serde_json::Error> {
        let view: T = serde_json::from_value(answer)?;
        Ok(if is_json { json_line(&Line { event, view }) } else { view.print(terminal_width()).trim_end_matches('\n').to_owned() })
    }
    let print = match service {
        Service::State { verb: None | Some(StateAsk::List { .. }) } => of::<State>,
        Service::State { verb: Some(StateAsk::Get { .. }) } => of::<Entry>,
        Service::State { verb: Some(StateAsk::Confirm { .. }) } => of::<DoneBy>,
        Service::Config { verb: ConfigAsk::Get { .. } } => of::<Setting>,
        Service::Config { verb: ConfigAsk::Explain { .. } } => of::<Explanation>,
        Service::Config { verb: ConfigAsk::History { .. } } => of::<History>,
        Service::Config { verb: ConfigAsk::Conflicts } => of::<Conflicts>,
        Service::Config { verb: ConfigAsk::Paths { .. } } => of::<Paths>,
        Service::Registry { verb: RegistryAsk::List { .. } | RegistryAsk::Find(_) } => of::<Instances>,
        Service::Variables { verb: VariablesAsk::List { .. } } => of::<VariableList>,
        Service::Variables { verb: VariablesAsk::Get { .. } | VariablesAsk::Set { .. } | VariablesAsk::Register(_) } => of::<VariableView>,
        Service::Variables { verb: VariablesAsk::History { .. } } => of::<Versions>,
        Service::Variables { verb: VariablesAsk::Statistics { .. } } => of::<StatisticsView>,
        Service::State { .. } | Service::Config { .. } | Service::Registry { .. } | Service::Variables { .. } => of::<Done>,
    };
    print(answer, is_json, event)
}

fn query(ask: FindAsk) -> Result<Query, Unanswered> {
    let FindAsk { name, capabilities, namespace, service_type, health, node, metadata, zone } = ask;
    let mut query = Query::new();
    if let Some(name) = name {
        query = query.name(name);
    }
    if let Some(namespace) = namespace {
        query = query.namespace(namespace);
    }
    if let Some(service_type) = service_type {
        query = query.service_type(service_type);
    }
    if let Some(health) = health {
        query = query.health(health.into());
    }
    if let Some(node) = node {
        query = query.node(parse::<PeerId>(&node)?);
    }
    if let Some(zone) = zone {
        query = query.prefer_zone(zone);
    }
    query = capabilities.into_iter().fold(query, Query::capability);
    Ok(metadata.into_iter().fold(query, |query, (key, value)| query.metadata(key, value)))
}

fn registration(ask: RegisterAsk) -> (Registered, Registration) {
    let RegisterAsk { name, capabilities, namespace, instance, service_type, metadata, zone, weight, health, address } = ask;
    let at = (namespace.clone(), name.clone(), instance.clone());
    let mut registration = Registration::new(namespace, name, instance);
    let details = &mut registration.details;
    details.capabilities = capabilities.into_iter().collect();
    details.metadata = metadata.into_iter().collect();
    (details.service_type, details.zone, details.address) = (service_type, zone, address);
    details.weight = weight.unwrap_or(details.weight);
    details.health = health.map_or(details.health, Into::into);
    (at, registration)
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Unanswered> {
    text.parse().map_err(|error| Unanswered::refused(text, error))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "float",
        Kind::Integer => "integer",
        Kind::Choice => "choice",
        Kind::Module => "module",
        Kind::Composite => "composite",
    }
}

/// A typed value as one of this kind; one that cannot be stays as it is, for the variable to refuse.
fn fit(kind: &variables::Kind, value: Json) -> variables::Value {
    let is_text = matches!(kind, variables::Kind::Choice { .. } | variables::Kind::Module { .. });
    match (value, kind) {
        (Json::String(text), _) => variables::Value::Text(text),
        (value, _) if is_text => variables::Value::Text(value.to_string()),
        (Json::Number(number), variables::Kind::Float { .. }) => variables::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        (Json::Number(number), _) => match number.as_i64() {
            Some(number) => variables::Value::Integer(number),
            None => variables::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        (value, _) => variables::Value::Text(value.to_string()),
    }
}

/// The definition that is asked for, or what keeps the words from being one.
fn definition(ask: VariableAsk) -> Result<Definition, String> {
    let VariableAsk { name, kind, of, default, step, custom, compute, policy, local, description } = ask;
    let name_of = |text: &String| text.parse::<Name>().map_err(|error| format!("`{text}`: {error}"));
    let names = || of.iter().map(name_of).collect::<Result<Vec<Name>, String>>();
    let name = name_of(&name)?;
    fn range<T: FromStr>(of: &[String], what: &str) -> Result<(T, T), String> {
        let number = |text: &String| text.parse::<T>().map_err(|_| format!("`{text}` is not {what}"));
        match of {
            [min, max] => Ok((number(min)?, number(max)?)),
            _ => Err("write the least and the greatest value".into()),
        }
    }
    // None at all is refused with the definition.
    let first = |of: &[String]| of.first().map(|text| Json::from(text.as_str())).unwrap_or_default();
    let (kind, least) = match kind {
        Kind::Float => {
            let (min, max) = range::<f64>(&of, "a number")?;
            (variables::Kind::Float { min, max, precision: step.unwrap_or(0.0) }, Json::from(min))
        }
        Kind::Integer => {
            let (min, max) = range::<i64>(&of, "a whole number")?;
            let step = step.unwrap_or(1.0);
            if step.fract() != 0.0 || !(1.0..=9e15).contains(&step) {
                return Err(format!("the step of an integer is a whole number, not {step}"));
            }
            (variables::Kind::Integer { min, max, step: step as u64 }, Json::from(min))
        }
        Kind::Choice => {
            let options = of.iter().map(|text| variables::Choice { text: text.clone(), weight: 1.0 }).collect();
            (variables::Kind::Choice { options, is_custom_allowed: custom }, first(&of))
        }
        Kind::Module => {
            let allowed = names()?.into_iter().map(|name| Module { name, capabilities: Vec::new() }).collect();
            (variables::Kind::Module { allowed, required: Vec::new(), compatibility: Vec::new() }, first(&of))
        }
        Kind::Composite => {
            let compute = match compute {
                None | Some(Compute::Sum) => variables::Compute::Sum,
                Some(Compute::Product) => variables::Compute::Product,
                Some(Compute::Mean) => variables::Compute::Mean,
                Some(Compute::Min) => variables::Compute::Min,
                Some(Compute::Max) => variables::Compute::Max,
            };
            (variables::Kind::Composite { dependencies: names()?, compute }, Json::Null)
        }
    };
    let default = match &kind {
        variables::Kind::Composite { .. } => default.map(|default| fit(&kind, default)),
        _ => Some(fit(&kind, default.unwrap_or(least))),
    };
    let policy = match policy {
        None | Some(Policy::Last) => variables::Policy::LastWriteWins,
        Some(Policy::Highest) => variables::Policy::Best(Order::Highest),
        Some(Policy::Lowest) => variables::Policy::Best(Order::Lowest),
        Some(Policy::Mean) => variables::Policy::Merge(Merge::Mean),
        Some(Policy::Min) => variables::Policy::Merge(Merge::Min),
        Some(Policy::Max) => variables::Policy::Merge(Merge::Max),
        Some(Policy::Median) => variables::Policy::Merge(Merge::Median),
    };
    let scope = if local { Scope::Local } else { Scope::Cluster };
    Ok(Definition { default, policy, scope, description, ..Definition::new(name, kind, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::asks::parse_line;

    fn registered(line: &str) -> Result<Definition, String> {
        match parse_line(&format!("variables register {line}")) {
            Ok(Service::Variables { verb: VariablesAsk::Register(ask) }) => definition(ask),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn words_become_definitions() {
        for (line, default) in [
            ("rate float -1 1", Some((-1.0).into())),
            ("rate float 0 1 --default 1 --step 0.5 --policy mean", Some(1.0.into())),
            ("size integer 2 8 --step 2", Some(2.into())),
            ("mode choice fast 3 --default 3", Some("3".into())),
            ("mode choice fast --custom --default other", Some("other".into())),
            ("writer module plain rich", Some("plain".into())),
            ("total composite a b --compute mean", None),
        ] {
            let definition = registered(line).unwrap_or_else(|problem| panic!("{line}: {problem}"));
            assert_eq!((definition.default.clone(), definition.check()), (default, Ok(())), "{line}");
        }
    }

    #[test]
    fn words_that_make_no_definition_are_refused() {
        for line in [
            "rate float 0",
            "rate float a b",
            "size integer 0 1.5",
            "size integer 0 4 --step 0.5",
            "total composite 'a b'",
            "'a b' choice x",
        ] {
            let problem = registered(line).unwrap_err();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{line}: {problem}");
        }
        // What the words allow and the service does not, the service says.
        assert!(registered("rate float 0 1 --default 2").unwrap().check().is_err());
        assert!(registered("total composite a --default 2").unwrap().check().is_err());
        assert!(registered("rate float 1 0").unwrap().check().is_err());
    }

    #[test]
    fn a_typed_number_becomes_what_the_variable_takes() {
        let (float, integer, choice) = (variables::Kind::float(0.0, 9.0), variables::Kind::integer(0, 9), variables::Kind::choice(["3"]));
        assert_eq!(fit(&float, Json::from(3)), 3.0.into());
        assert_eq!(fit(&integer, Json::from(3)), 3.into());
        assert_eq!(fit(&choice, Json::from(3)), "3".into());
        assert!(integer.check(&fit(&integer, Json::from(2.5))).is_err() && float.check(&fit(&float, Json::from("x"))).is_err());
        assert!(float.check(&fit(&float, Json::from(true))).is_err());
    }
}
