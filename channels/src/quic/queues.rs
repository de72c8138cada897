//! What waits on a link for its writers, and how its second connection stands.

use std::collections::BTreeMap;
use std::time::Duration;

use super::close::CloseCode;
use crate::channel::{ChannelId, Path};
use crate::sender;
use crate::time::Time;

/// A frame that finds nothing else under way for so long is written by whoever sends it. While more follow, they are written together.
const WRITTEN_AT_ONCE_AFTER: Duration = Duration::from_micros(20);

/// What waits for the writer, and what the writer holds.
pub(super) struct Queues {
    pub(super) state: sender::State,
    /// Bytes that the writer took out of the state and the transport has not taken yet.
    held: usize,
    held_since: Option<Time>,
    /// The part of them that the writer of the first connection took.
    urgent_held: usize,
    /// When the first connection last took something.
    urgent_written_at: Time,
    pub(super) drain: Option<Drain>,
    pub(super) closed: bool,
    pub(super) bulk: Bulk,
    /// How often the channels for bulk left the first connection.
    pub(super) moves: u32,
    /// The number of the next stream of each lane.
    numbers: BTreeMap<(ChannelId, u8), u32>,
    /// Somebody waits for room.
    is_room_wanted: bool,
}

/// When a second connection is closed, and when another one is tried.
#[derive(Clone, Copy)]
pub(super) struct BulkTimes {
    pub(super) idle: Duration,
    pub(super) retry: Duration,
}

/// How the second connection of a link stands, on the side that sends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bulk {
    /// There is none; the first connection carries everything.
    Closed,
    /// It is being opened, and what it is to carry waits.
    Opening,
    /// It carries the channels for bulk.
    Open,
    /// It takes nothing more, and waits until the peer's transport has all of it; the first connection carries everything else.
    Closing,
    /// The peer did not want one or was not reached: until then the first connection carries everything.
    Refused(Time),
}

/// An order to send what is queued and then to close.
#[derive(Clone, Copy)]
pub(super) struct Drain {
    pub(super) code: CloseCode,
    pub(super) limit: Duration,
}

impl Bulk {
    /// Whether a second connection may be opened now.
    pub(super) fn may_open(self, now: impl FnOnce() -> Time) -> bool {
        match self {
            Bulk::Closed => true,
            Bulk::Refused(until) => now() >= until,
            Bulk::Opening | Bulk::Open | Bulk::Closing => false,
        }
    }
}

impl Queues {
    pub(super) fn new(state: sender::State) -> Self {
        Queues {
            state,
            held: 0,
            held_since: None,
            urgent_held: 0,
            urgent_written_at: Time::ZERO,
            drain: None,
            closed: false,
            bulk: Bulk::Closed,
            moves: 0,
            numbers: BTreeMap::new(),
            is_room_wanted: false,
        }
    }

    /// Whether nothing new is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed || self.drain.is_some()
    }

    /// Whether a connection carries a channel now.
    pub(super) fn carries(&self, connection: Path, channel: Path) -> bool {
        match connection {
            Path::Urgent => channel == Path::Urgent || matches!(self.bulk, Bulk::Closed | Bulk::Closing | Bulk::Refused(_)),
            Path::Bulk => channel == Path::Bulk && self.bulk == Bulk::Open,
        }
    }

    /// The number of the next stream of a lane.
    pub(super) fn next_number(&mut self, channel: ChannelId, lane: u8) -> u32 {
        let number = self.numbers.entry((channel, lane)).or_default();
        let this = *number;
        *number = number.wrapping_add(1);
        this
    }

    /// Whether one small frame waits for the first connection, where nothing had happened for a while. What the second one carries is not in its way.
    pub(super) fn is_lone(&self, now: impl FnOnce() -> Time) -> bool {
        if self.urgent_held > 0 {
            return false;
        }
        let waiting = self.state.queued_where(|spec| self.carries(Path::Urgent, spec.path));
        waiting.frames == 1
            && waiting.bytes <= sender::SHARED_FRAME_BYTES_MAX
            && now().since(self.urgent_written_at) >= WRITTEN_AT_ONCE_AFTER
    }

    /// Somebody waits for room from now on.
    pub(super) fn want_room(&mut self) {
        self.is_room_wanted = true;
    }

    /// Forgets what is queued and what the writer holds.
    pub(super) fn clear(&mut self, now: Time) {
        self.state.clear(now);
        self.held = 0;
        self.held_since = None;
    }

    /// Bytes that the writer took and the transport has not taken yet.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Since when something waits and the transport took nothing.
    pub(super) fn stalled_since(&self) -> Option<Time> {
        match (self.state.stalled_since(), self.held_since) {
            (Some(queued), Some(held)) => Some(queued.min(held)),
            (queued, held) => queued.or(held),
        }
    }

    /// Says once, after something was taken, that somebody waits for the room.
    pub(super) fn is_room_wanted(&mut self) -> bool {
        std::mem::take(&mut self.is_room_wanted)
    }

    /// The writer of a connection took something.
    pub(super) fn taken(&mut self, connection: Path, bytes: usize, now: Time) {
        self.held += bytes;
        self.held_since.get_or_insert(now);
        if connection == Path::Urgent {
            self.urgent_held += bytes;
        }
    }

    pub(super) fn written(&mut self, connection: Path, channel: ChannelId, lane: u8, bytes: usize, now: Time) {
        self.state.sent(channel, lane, bytes, now);
        if connection == Path::Urgent {
            self.urgent_written_at = now;
        }
        self.let_go(connection, bytes, now);
    }

    /// The peer does not take the channel.
    pub(super) fn dropped(&mut self, connection: Path, channel: ChannelId, lane: u8, bytes: usize, now: Time) {
        self.state.unwanted(channel, lane, bytes, now);
        self.let_go(connection, bytes, now);
    }

    fn let_go(&mut self, connection: Path, bytes: usize, now: Time) {
        self.held = self.held.saturating_sub(bytes);
        self.held_since = (self.held > 0).then_some(now);
        if connection == Path::Urgent {
            self.urgent_held = self.urgent_held.saturating_sub(bytes);
        }
    }
}
