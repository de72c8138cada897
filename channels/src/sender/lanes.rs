//! Which lane a sender gets, and in what time it is seen whether more of them help.

use super::spread::{Seen, Spread, Totals};
use super::{Channel, State, growth};
use crate::channel::{ChannelId, Reliability};
use crate::time::Time;

/// The time in which it is seen whether lanes help.
#[derive(Default)]
pub(super) struct Window {
    began: Time,
    /// What the transport had taken of all channels by then.
    bytes: u64,
}

impl State {
    /// Tells the time, and now and then looks at what lanes bring.
    pub fn turn(&mut self, now: Time) {
        self.set_now(now);
        if now.since(self.window.began) >= growth::WINDOW {
            self.end_window(now);
        }
    }

    /// The lane for a new sender: of those with a key, by a hash of it, always the same while the connection stands. The sender keeps it; nothing that it sends on
    /// that lane is overtaken.
    pub fn lane_for(&mut self, channel: ChannelId, key: Option<u64>, now: Time) -> u8 {
        self.turn(now);
        let Some(index) = self.params.index(channel) else { return 0 };
        if self.params.channels[index].lanes == 1 || self.params.channels[index].reliability == Reliability::Latest {
            return 0;
        }
        self.channels[index].has_senders = true;
        if key.is_some() && self.channels[index].spread.is_none() {
            self.channels[index].spread = Some(Box::new(Spread::new(self.totals(index), self.seen(index), now)));
        }
        match (&mut self.channels[index].spread, key) {
            (None, _) => 0,
            (Some(spread), None) => spread.give(now),
            (Some(spread), Some(hash)) => spread.place(hash),
        }
    }

    /// What a channel has seen so far.
    fn totals(&self, index: usize) -> Totals {
        let Channel { counters, queued, busy, .. } = &self.channels[index];
        Totals { busy: busy.at(self.stamps.now()).0, bytes: counters.sent_bytes, is_waiting: queued.frames > 0 }
    }

    /// What its lanes have.
    fn seen(&self, index: usize) -> impl Iterator<Item = Seen> + use<'_> {
        let lanes = self.queues[self.params.lanes[index]..self.params.lanes[index + 1]].iter();
        lanes.map(|queue| Seen { is_held: !queue.frames.is_empty() || queue.waits.under_way.bytes > 0, bytes: queue.waits.sent_bytes })
    }

    /// Ends a window: where senders came and something waits, lanes may help.
    fn end_window(&mut self, now: Time) {
        let bytes = self.channels.iter().map(|channel| channel.counters.sent_bytes).sum();
        let has_moved = bytes > self.window.bytes;
        self.window = Window { began: now, bytes };
        for index in 0..self.channels.len() {
            let totals = self.totals(index);
            let Channel { has_senders, spread, .. } = &mut self.channels[index];
            if let Some(mut spread) = spread.take() {
                spread.on_window(totals, self.seen(index), has_moved, now);
                self.channels[index].spread = Some(spread);
            } else if *has_senders && totals.is_waiting {
                self.channels[index].spread = Some(Box::new(Spread::new(totals, self.seen(index), now)));
            }
        }
    }
}
