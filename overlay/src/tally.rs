//! Counters that can be left out.
//!
//! Nobody looks at the counters of one node in a simulated million, where they would take several cache lines of each.

/// Counters, or nothing in their place.
#[derive(Clone, Debug)]
pub(crate) struct Tally<C>(Option<Box<C>>);

impl<C: Default> Tally<C> {
    /// Counters at zero.
    pub(crate) fn new() -> Self {
        Tally(Some(Box::default()))
    }
}

impl<C> Tally<C> {
    /// Counts nothing.
    pub(crate) const fn nothing() -> Self {
        Tally(None)
    }

    /// Counts, if anything is counted.
    pub(crate) fn count(&mut self, change: impl FnOnce(&mut C)) {
        if let Some(counters) = &mut self.0 {
            change(counters);
        }
    }

    /// What was counted, if anything is counted.
    pub(crate) fn read(&self) -> Option<&C> {
        self.0.as_deref()
    }
}
