//! What the services of a node tell, as lines for people and for programs.

use serde::Serialize;

use super::asks::Json;
use super::output::Line;
use super::text::{json_line, printable};
use super::views::config::{ConflictView, HiddenView};
use super::views::registry::{IdView, InstanceView};
use super::views::{config as config_view, short, variables as variables_view};
use crate::services::variables::Refusal;
use crate::services::{Event, config, registry, variables};

/// Characters of a value in a line for people.
const VALUE_CHARS_MAX: usize = 200;

/// An event of a service. The names and fields stay.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    ConfigUpdated {
        path: String,
        old: Option<Json>,
        new: Option<Json>,
        layer: String,
        origin: String,
    },
    ConfigHidden(HiddenView),
    ConfigConflict(ConflictView),
    ConfigFileRefused {
        reason: String,
    },
    RegistryRegistered(InstanceView),
    RegistryUpdated(InstanceView),
    RegistryUnregistered(IdView),
    RegistryHidden(IdView),
    RegistryShown(InstanceView),
    RegistryRejected(HiddenView),
    VariableRegistered {
        name: String,
    },
    VariableUpdated {
        name: String,
        old: Option<Json>,
        new: Json,
        version: u64,
        node: Option<String>,
        agent: Option<String>,
    },
    VariableDeleted {
        name: String,
    },
    VariableConflict {
        name: String,
        writes: usize,
    },
    VariableRefused {
        name: String,
        reason: String,
    },
    /// `constraint` of the definition of `variable` does not hold since `name` changed.
    VariableViolated {
        name: String,
        variable: String,
        constraint: usize,
    },
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        match event {
            Event::Config(event) => Told::of_config(event),
            Event::Registry(event) => Told::of_registry(event),
            Event::Variables(event) => Told::of_variables(event),
        }
    }
}

impl Told {
    fn of_config(event: config::Event) -> Self {
        match event {
            config::Event::Updated { path, old, new, layer, origin } => Told::ConfigUpdated {
                path: path.to_string(),
                old: old.as_ref().map(config_view::value),
                new: new.as_ref().map(config_view::value),
                layer: layer.to_string(),
                origin: origin.to_string(),
            },
            config::Event::Hidden(entry) => Told::ConfigHidden(HiddenView::of(&entry)),
            config::Event::Conflict(conflict) => Told::ConfigConflict(ConflictView::of(&conflict)),
            config::Event::FileRefused(error) => Told::ConfigFileRefused { reason: error.to_string() },
        }
    }

    fn of_registry(event: registry::Event) -> Self {
        match event {
            registry::Event::Registered(instance) => Told::RegistryRegistered(InstanceView::of(&instance)),
            registry::Event::Updated(instance) => Told::RegistryUpdated(InstanceView::of(&instance)),
            registry::Event::Unregistered(id) => Told::RegistryUnregistered(IdView::of(&id)),
            registry::Event::Hidden(id) => Told::RegistryHidden(IdView::of(&id)),
            registry::Event::Shown(instance) => Told::RegistryShown(InstanceView::of(&instance)),
            registry::Event::Rejected { key, origin, reason } => {
                Told::RegistryRejected(HiddenView { key: key.to_string(), origin: origin.to_string(), reason: reason.to_string() })
            }
        }
    }

    fn of_variables(event: variables::Event) -> Self {
        match event {
            variables::Event::Registered { name } => Told::VariableRegistered { name: name.to_string() },
            variables::Event::Updated { name, old, new, version, by } => Told::VariableUpdated {
                name: name.to_string(),
                old: old.as_ref().map(variables_view::value),
                new: variables_view::value(&new),
                version,
                node: by.as_ref().map(|by| by.node.to_string()),
                agent: by.and_then(|by| by.agent).map(|agent| agent.to_string()),
            },
            variables::Event::Deleted { name } => Told::VariableDeleted { name: name.to_string() },
            variables::Event::Conflict { name, writes } => Told::VariableConflict { name: name.to_string(), writes },
            variables::Event::Refused { name, why } => Told::VariableRefused { name, reason: refusal(&why) },
            variables::Event::Violated { name, constraint } => {
                Told::VariableViolated { name: name.to_string(), variable: constraint.variable.to_string(), constraint: constraint.index }
            }
        }
    }
}

fn refusal(why: &Refusal) -> String {
    match why {
        Refusal::UnknownKey => "the key is none of the variables".into(),
        Refusal::OtherFormat(format) => format!("it is written in format {format}, of another release"),
        Refusal::Undecodable(error) => error.to_string(),
        Refusal::Definition(error) => error.to_string(),
        Refusal::TooMany => "there are too many variables to follow it".into(),
        Refusal::Hidden => "a local variable has the name".into(),
        Refusal::NotPermitted => "its writer may not write it".into(),
        Refusal::Version => "its version is too high".into(),
        Refusal::Value(error) => error.to_string(),
        Refusal::Score => "its score is missing or not finite".into(),
        Refusal::NotComputed(error) => error.to_string(),
    }
}

impl Line for Told {
    fn text(&self) -> String {
        let value = |value: &Json| printable(&json_line(value), VALUE_CHARS_MAX);
        let name = |text: &str| printable(text, VALUE_CHARS_MAX);
        let text = match self {
            Told::ConfigUpdated { path, new: Some(new), layer, origin, .. } => {
                format!("{} is {} ({layer}, set by {})", name(path), value(new), short(origin))
            }
            Told::ConfigUpdated { path, new: None, layer, origin, .. } => {
                format!("{} has no value any more ({layer}, removed by {})", name(path), short(origin))
            }
            Told::ConfigHidden(entry) | Told::RegistryRejected(entry) => {
                format!("{} of {} is not shown: {}", name(&entry.key), short(&entry.origin), name(&entry.reason))
            }
            Told::ConfigConflict(conflict) => {
                format!("{} was set by several at the same time; it is {}", name(&conflict.path), conflict.chosen.print())
            }
            Told::ConfigFileRefused { reason } => {
                format!("the file of the config cannot be used, so what it said before holds: {}", printable(reason, 500))
            }
            Told::RegistryRegistered(instance) => format!("{} is registered", instance.id.print()),
            Told::RegistryUpdated(instance) => format!("{} has changed", instance.id.print()),
            Told::RegistryUnregistered(id) => format!("{} is not registered any more", id.print()),
            Told::RegistryHidden(id) => format!("{} is away with its node", id.print()),
            Told::RegistryShown(instance) => format!("{} is back with its node", instance.id.print()),
            Told::VariableRegistered { name: variable } => format!("the variable {} is registered", name(variable)),
            Told::VariableUpdated { name: variable, new, version, .. } => {
                format!("the variable {} is {} (version {version})", name(variable), value(new))
            }
            Told::VariableDeleted { name: variable } => format!("the variable {} is deleted", name(variable)),
            Told::VariableConflict { name: variable, writes } => {
                format!("the variable {} was written {writes} times at once", name(variable))
            }
            Told::VariableRefused { name: variable, reason } => {
                format!("what was written of {} is not shown: {}", name(variable), name(reason))
            }
            Told::VariableViolated { name: changed, variable, constraint } => {
                format!("constraint {constraint} of {} does not hold since {} changed", name(variable), name(changed))
            }
        };
        format!("* {text}")
    }
}

#[cfg(test)]
mod tests {
    use meshwork_channels::PeerId;

    use super::*;

    #[test]
    fn events_have_stable_names_and_fields() {
        let origin = PeerId::from_bytes([1; 32]);
        let path = config::Path::try_from("app/x").unwrap();
        let updated =
            config::Event::Updated { path, old: None, new: Some(config::Value::Integer(3)), layer: config::Layer::Cluster, origin };
        let told = Told::from(Event::Config(updated));
        let json = format!(r#"{{"event":"config_updated","path":"app/x","old":null,"new":3,"layer":"cluster","origin":"{origin}"}}"#);
        assert_eq!((json_line(&told), told.text()), (json, format!("* app/x is 3 (cluster, set by {})", origin.short())));

        let id = registry::Id { namespace: "default".into(), name: "pay".into(), node: origin, instance: "1".into() };
        let told = Told::from(Event::Registry(registry::Event::Hidden(id)));
        let json = format!(r#"{{"event":"registry_hidden","namespace":"default","name":"pay","node":"{origin}","instance":"1"}}"#);
        assert_eq!(json_line(&told), json);

        let name = variables::Name::try_from("rate").unwrap();
        let updated = variables::Event::Updated { name, old: Some(0.5.into()), new: 1.0.into(), version: 2, by: None };
        let json = r#"{"event":"variable_updated","name":"rate","old":0.5,"new":1.0,"version":2,"node":null,"agent":null}"#;
        assert_eq!(json_line(&Told::from(Event::Variables(updated))), json);
    }
}
