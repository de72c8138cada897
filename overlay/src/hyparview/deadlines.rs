//! The deadlines of the views: one place for each key, so that a node pays for no tree of them.

use meshwork_channels::Time;

use super::Key;

/// Keys.
const KEYS: usize = 8;

/// At most one deadline for each key. It acts as `meshwork_channels::Timers` does: setting replaces, and deadlines that fall on the same
/// moment come out in the order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Deadlines {
    /// By key; [`Time::MAX`] for none.
    at: [Time; KEYS],
}

impl Deadlines {
    pub(super) const fn new() -> Self {
        Deadlines { at: [Time::MAX; KEYS] }
    }

    pub(super) fn set(&mut self, key: Key, at: Time) {
        self.at[key as usize] = at;
    }

    pub(super) fn set_if_absent(&mut self, key: Key, at: Time) {
        if self.get(key).is_none() {
            self.set(key, at);
        }
    }

    pub(super) fn cancel(&mut self, key: Key) {
        self.at[key as usize] = Time::MAX;
    }

    pub(super) fn get(&self, key: Key) -> Option<Time> {
        Some(self.at[key as usize]).filter(|at| *at < Time::MAX)
    }

    /// Reads the first and the last; see [`super::State::warm`].
    pub(super) fn warm(&self) -> u64 {
        self.at[0].as_nanos() ^ self.at[KEYS - 1].as_nanos()
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.at.iter().copied().min().filter(|at| *at < Time::MAX)
    }

    /// Takes the earliest key whose deadline is not after `now`.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Key> {
        let (at, key) = self.at.iter().copied().zip(Key::ALL).min()?;
        if at > now || at == Time::MAX {
            return None;
        }
        self.cancel(key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_out_in_the_order_of_time_and_then_of_their_keys() {
        let mut deadlines = Deadlines::new();
        assert_eq!((deadlines.next_deadline(), deadlines.pop_due(Time::MAX)), (None, None));
        deadlines.set(Key::Storm, Time::from_secs(1));
        deadlines.set(Key::Fill, Time::from_secs(3));
        deadlines.set(Key::Alive, Time::from_secs(2));
        deadlines.set(Key::Fill, Time::from_secs(2));
        deadlines.set(Key::Heal, Time::from_secs(2));
        deadlines.set_if_absent(Key::Storm, Time::ZERO);
        deadlines.cancel(Key::Heal);
        assert_eq!(deadlines.pop_due(Time::ZERO), None);
        let order: Vec<Key> = std::iter::from_fn(|| deadlines.pop_due(Time::from_secs(2))).collect();
        assert_eq!(order, [Key::Storm, Key::Alive, Key::Fill]);
        assert_eq!(deadlines.next_deadline(), None);
    }

    #[test]
    fn every_key_has_its_place() {
        assert!(Key::ALL.iter().enumerate().all(|(at, key)| *key as usize == at));
        assert_eq!(Key::ALL.len(), KEYS);
    }
}
