//! Functions of the application, registered by name on each node. They are not replicated; a node that lacks one says so where it is needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::value::{Name, Value};

type Constrain = dyn Fn(&[Value]) -> bool + Send + Sync;
type Computed = dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync;
type Merged = dyn Fn(&[Value]) -> Option<Value> + Send + Sync;

/// What is registered. Functions must give the same for the same values on every node, or nodes show different values.
#[derive(Clone, Default)]
pub struct Functions {
    constraints: BTreeMap<Name, Arc<Constrain>>,
    computes: BTreeMap<Name, Arc<Computed>>,
    merges: BTreeMap<Name, Arc<Merged>>,
}

impl Functions {
    /// Registers what [`Constraint::Function`](super::Constraint::Function) asks; it gets the values of the variables that the constraint names.
    pub fn constraint(&mut self, name: Name, function: impl Fn(&[Value]) -> bool + Send + Sync + 'static) {
        self.constraints.insert(name, Arc::new(function));
    }

    /// Registers what [`Compute::Function`](super::Compute::Function) computes; it gets the values of the dependencies. An error says why there is no value.
    pub fn compute(&mut self, name: Name, function: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static) {
        self.computes.insert(name, Arc::new(function));
    }

    /// Registers what [`Merge::Function`](super::Merge::Function) merges; it gets concurrent values, the newest first. `None` keeps the newest.
    pub fn merge(&mut self, name: Name, function: impl Fn(&[Value]) -> Option<Value> + Send + Sync + 'static) {
        self.merges.insert(name, Arc::new(function));
    }

    pub(super) fn judge(&self, name: &Name, values: &[Value]) -> Option<bool> {
        self.constraints.get(name).map(|function| function(values))
    }

    pub(super) fn computed(&self, name: &Name, values: &[Value]) -> Option<Result<Value, String>> {
        self.computes.get(name).map(|function| function(values))
    }

    pub(super) fn merged(&self, name: &Name, values: &[Value]) -> Option<Value> {
        self.merges.get(name).and_then(|function| function(values))
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("constraints", &self.constraints.keys())
            .field("computes", &self.computes.keys())
            .field("merges", &self.merges.keys())
            .finish()
    }
}
