//! Counts what was promised: every message once at every node that lived from its sending to the end.
//!
//! A node that was killed is owed nothing. The node that joined late is owed the messages sent after it had been let in: after the moment at
//! which it knew everybody, everybody knew it, and it had neighbors. What it got before is not counted, but none of it may come twice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// The node that sent it.
    pub(super) sender: usize,
    /// When, from the start of the demonstration.
    pub(super) at: Duration,
}

/// What one node received.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// How often each message came, and how long it took the first time.
    messages: BTreeMap<u32, (u32, Duration)>,
    /// Messages that nobody sent, or that came under another name than their sender's.
    pub(super) foreign: u64,
    /// Messages that the demonstration itself was too slow to take.
    pub(super) overlooked: u64,
}

impl Received {
    pub(super) fn record(&mut self, number: u32, latency: Duration) {
        self.messages.entry(number).and_modify(|(count, _)| *count = count.saturating_add(1)).or_insert((1, latency));
    }
}

/// What a node is owed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owed {
    /// It was killed, or never let in.
    Nothing,
    /// What was sent from this moment on.
    Since(Duration),
}

/// The count.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Broadcasts {
    pub(super) senders: usize,
    /// Messages.
    pub(super) sent: usize,
    /// Deliveries: for each message, the other nodes that lived from its sending to the end.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// Deliveries beyond the first at any node, dead or alive, and of a node's own messages to itself.
    pub(super) duplicates: u64,
    /// Deliveries of messages that nobody sent.
    pub(super) foreign: u64,
    pub(super) latency_ms: Latency,
}

/// From the call that sent a message to the delivery at another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// A delivery that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) message: u32,
    pub(super) sender: usize,
    pub(super) node: usize,
}

/// Counts; the second result is the first delivery that is missing.
pub(super) fn tally(sent: &BTreeMap<u32, Sent>, owed: &[Owed], received: &[Received]) -> (Broadcasts, Option<Missing>) {
    let mut count = Broadcasts { sent: sent.len(), ..Broadcasts::default() };
    let mut missing = None;
    let mut latencies = Vec::new();
    for (node, (owed, received)) in owed.iter().zip(received).enumerate() {
        count.foreign += received.foreign;
        for (number, (times, _)) in &received.messages {
            let to_itself = sent.get(number).is_some_and(|sent| sent.sender == node);
            count.duplicates += u64::from(if to_itself { *times } else { times.saturating_sub(1) });
        }
        let Owed::Since(since) = owed else { continue };
        for (number, message) in sent {
            if message.sender == node || message.at < *since {
                continue;
            }
            count.expected += 1;
            match received.messages.get(number) {
                Some((_, latency)) => {
                    count.delivered += 1;
                    latencies.push(*latency);
                }
                None => missing = missing.or(Some(Missing { message: *number, sender: message.sender, node })),
            }
        }
    }
    latencies.sort_unstable();
    count.latency_ms = Latency { p50: quantile(&latencies, 0.5), p99: quantile(&latencies, 0.99), max: quantile(&latencies, 1.0) };
    (count, missing)
}

/// The smallest latency that so large a part of all does not exceed, in milliseconds.
fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |latency| (latency.as_secs_f64() * 1e6).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn sent(messages: &[(u32, usize, u64)]) -> BTreeMap<u32, Sent> {
        messages.iter().map(|(number, sender, millis)| (*number, Sent { sender: *sender, at: at(*millis) })).collect()
    }

    fn received(messages: &[(u32, u64)]) -> Received {
        let mut received = Received::default();
        for (number, latency) in messages {
            received.record(*number, at(*latency));
        }
        received
    }

    #[test]
    fn everybody_but_the_sender_is_owed_a_message() {
        let sent = sent(&[(0, 0, 0), (1, 1, 10)]);
        let owed = [Owed::Since(at(0)); 3];
        let received = [received(&[(1, 2)]), received(&[(0, 1)]), received(&[(0, 3), (1, 4)])];
        let (count, missing) = tally(&sent, &owed, &received);
        assert_eq!((count.sent, count.expected, count.delivered, count.duplicates, missing), (2, 4, 4, 0, None));
        assert_eq!(count.latency_ms, Latency { p50: 2.0, p99: 4.0, max: 4.0 });
    }

    #[test]
    fn a_missing_delivery_is_named() {
        let (count, missing) = tally(&sent(&[(7, 0, 0)]), &[Owed::Since(at(0)); 2], &[received(&[]), received(&[])]);
        assert_eq!((count.expected, count.delivered), (1, 0));
        assert_eq!(missing, Some(Missing { message: 7, sender: 0, node: 1 }));
    }

    #[test]
    fn the_dead_are_owed_nothing_and_newcomers_what_follows() {
        let sent = sent(&[(0, 0, 5), (1, 0, 15)]);
        let owed = [Owed::Since(at(0)), Owed::Nothing, Owed::Since(at(10))];
        let (count, missing) = tally(&sent, &owed, &[received(&[]), received(&[]), received(&[(1, 1)])]);
        assert_eq!((count.expected, count.delivered, missing), (1, 1, None));
    }

    #[test]
    fn nothing_may_come_twice_anywhere() {
        let sent = sent(&[(0, 0, 5)]);
        let owed = [Owed::Since(at(0)), Owed::Nothing, Owed::Since(at(10))];
        // Twice at a dead node, twice at a newcomer that was not owed it, once at its own sender.
        let (count, _) = tally(&sent, &owed, &[received(&[(0, 1)]), received(&[(0, 1), (0, 1)]), received(&[(0, 1), (0, 1)])]);
        assert_eq!(count.duplicates, 3);
    }
}
