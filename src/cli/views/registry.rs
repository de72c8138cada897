//! Who offers what, as a node sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Printable, short};
use crate::cli::text::{Align, Table, printable};
use crate::services::registry::{Health, Id, Instance};

/// Instances in one answer.
const LISTED_MAX: usize = 1_000;

/// The instances that match.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Instances {
    instances: Vec<InstanceView>,
    /// Whether there are more instances than these.
    more: bool,
}

/// Which instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct IdView {
    namespace: String,
    pub(in crate::cli) name: String,
    node: String,
    instance: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct InstanceView {
    #[serde(flatten)]
    pub(in crate::cli) id: IdView,
    service_type: Option<String>,
    capabilities: Vec<String>,
    metadata: BTreeMap<String, String>,
    zone: Option<String>,
    weight: u16,
    /// `healthy`, `unknown`, `degraded` or `unhealthy`, as it looks from this node.
    health: String,
    address: Option<String>,
}

impl IdView {
    pub(in crate::cli) fn of(id: &Id) -> Self {
        IdView { namespace: id.namespace.clone(), name: id.name.clone(), node: id.node.to_string(), instance: id.instance.clone() }
    }

    pub(in crate::cli) fn print(&self) -> String {
        let (namespace, name, instance) = (printable(&self.namespace, 64), printable(&self.name, 128), printable(&self.instance, 64));
        format!("{namespace}/{name} {instance} of {}", short(&self.node))
    }
}

impl InstanceView {
    pub(in crate::cli) fn of(instance: &Instance) -> Self {
        let details = &instance.details;
        InstanceView {
            id: IdView::of(&instance.id),
            service_type: details.service_type.clone(),
            capabilities: details.capabilities.iter().cloned().collect(),
            metadata: details.metadata.clone(),
            zone: details.zone.clone(),
            weight: details.weight,
            health: match instance.health {
                Health::Healthy => "healthy",
                Health::Unknown => "unknown",
                Health::Degraded => "degraded",
                Health::Unhealthy => "unhealthy",
            }
            .to_owned(),
            address: details.address.clone(),
        }
    }
}

impl Instances {
    pub(in crate::cli) fn of(instances: &[Instance]) -> Self {
        let listed = instances.iter().take(LISTED_MAX).map(InstanceView::of);
        Instances { instances: listed.collect(), more: instances.len() > LISTED_MAX }
    }
}

impl Printable for Instances {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            ("service", Align::Left),
            ("instance", Align::Left),
            ("node", Align::Left),
            ("health", Align::Left),
            ("weight", Align::Right),
            ("zone", Align::Left),
            ("address", Align::Left),
            ("capabilities", Align::Left),
        ]);
        for instance in &self.instances {
            let text = |text: &Option<String>| text.as_deref().map(|text| printable(text, 40)).unwrap_or_default();
            table.row([
                format!("{}/{}", printable(&instance.id.namespace, 64), printable(&instance.id.name, 128)),
                printable(&instance.id.instance, 64),
                short(&instance.id.node),
                printable(&instance.health, 20),
                instance.weight.to_string(),
                text(&instance.zone),
                text(&instance.address),
                printable(&instance.capabilities.join(" "), 100),
            ]);
        }
        let more = if self.more { format!("only the first {} are shown\n", self.instances.len()) } else { String::new() };
        format!("{}{more}", table.render(width))
    }
}
