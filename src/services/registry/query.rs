//! What to look for.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_channels::PeerId;

use super::details::{Details, Health, Id};

/// Which instances to find. Everything that is asked for must match; a new query matches every instance.
///
/// ```
/// use meshwork::services::registry::{Health, Query};
///
/// let query = Query::new().namespace("shop").capability("pay").capability("refund").health(Health::Healthy).prefer_zone("north");
/// # let _ = query;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) service_type: Option<String>,
    pub(super) capabilities: BTreeSet<String>,
    pub(super) health: Option<Health>,
    pub(super) node: Option<PeerId>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) zone: Option<String>,
}

impl Query {
    /// Matches every instance.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Of the service with this name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Of services of this type.
    pub fn service_type(mut self, service_type: impl Into<String>) -> Self {
        self.service_type = Some(service_type.into());
        self
    }

    /// With this capability, beside those asked for before.
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.insert(capability.into());
        self
    }

    /// Of exactly this health, as it looks from here.
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// On this node.
    pub fn node(mut self, node: PeerId) -> Self {
        self.node = Some(node);
        self
    }

    /// With this pair of metadata, beside those asked for before.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Only those in this zone if there are any, else all.
    pub fn prefer_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Everything but health and zone.
    pub(super) fn matches(&self, id: &Id, details: &Details) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        is(&self.namespace, &id.namespace)
            && is(&self.name, &id.name)
            && self.node.is_none_or(|node| node == id.node)
            && (self.service_type.is_none() || self.service_type == details.service_type)
            && self.capabilities.is_subset(&details.capabilities)
            && self.metadata.iter().all(|(key, value)| details.metadata.get(key) == Some(value))
    }

    /// Whether an instance there is in the preferred zone.
    pub(super) fn is_near(&self, details: &Details) -> bool {
        self.zone.is_some() && self.zone == details.zone
    }
}
