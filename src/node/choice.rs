//! Which channel a message goes on, when its sender says what it is and not where it belongs.

use meshwork_channels::ChannelId;

/// What a message is, as far as its sender knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// Nothing in particular.
    #[default]
    Any,
    /// It must not wait.
    Urgent,
    /// It may wait for everything else.
    Background,
    /// A newer one makes it worthless.
    StateUpdate,
}

impl Hint {
    /// All of them.
    pub const ALL: [Hint; 4] = [Hint::Any, Hint::Urgent, Hint::Background, Hint::StateUpdate];
}

/// Messages above this size are bulk. From the feature list.
pub const BULK_BYTES: usize = 1_024;

/// The channel for a message of `len` bytes: `coordination` for what is urgent, `gossip` for the background, `state_updates` for updates and `bulk_data` for what
/// is larger than [`BULK_BYTES`], where the node defines them, and `data` for the rest. What it is counts before how large it is.
pub fn choose(hint: Hint, len: usize, is_defined: impl Fn(ChannelId) -> bool) -> ChannelId {
    const STATE_UPDATES: ChannelId = ChannelId::named("state_updates");
    const BULK_DATA: ChannelId = ChannelId::named("bulk_data");
    match hint {
        Hint::Urgent => ChannelId::COORDINATION,
        Hint::Background => ChannelId::GOSSIP,
        Hint::StateUpdate if is_defined(STATE_UPDATES) => STATE_UPDATES,
        Hint::Any | Hint::StateUpdate if len > BULK_BYTES && is_defined(BULK_DATA) => BULK_DATA,
        Hint::Any | Hint::StateUpdate => ChannelId::DATA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hint_and_size_has_a_channel() {
        let sizes = [0, 1, BULK_BYTES, BULK_BYTES + 1, usize::MAX];
        for (hint, defined, plain) in [
            (Hint::Any, ["data", "data", "data", "bulk_data", "bulk_data"], "data"),
            (Hint::Urgent, ["coordination"; 5], "coordination"),
            (Hint::Background, ["gossip"; 5], "gossip"),
            (Hint::StateUpdate, ["state_updates"; 5], "data"),
        ] {
            for (len, name) in sizes.into_iter().zip(defined) {
                assert_eq!(choose(hint, len, |_| true), ChannelId::named(name), "{hint:?} with {len} bytes");
                assert_eq!(choose(hint, len, |_| false), ChannelId::named(plain), "{hint:?} with {len} bytes and the built-in channels");
            }
        }
        assert_eq!(choose(Hint::StateUpdate, 2_000, |id| id == ChannelId::named("bulk_data")), ChannelId::named("bulk_data"));
    }
}
