//! When the application waits for the queues to its peers, and when it does not.
//!
//! An application that broadcasts faster than its links carry must wait, or its own flood makes every peer look slow. But it must not wait for
//! one peer that reads slowly while the others have all: that peer costs itself, and is closed when its queue is full.
//!
//! A peer is told from a flood like this. Once much waits for it on one channel, it holds up the application as long as it takes
//! [`PACE_BYTES_PER_S`] of that channel. A slower one does so only while it takes something and no other peer takes a share of the
//! traffic with little waiting: then the links are what is slow, and not the peer. Progress on another channel counts for nothing, or a
//! peer that answers control messages and leaves the rest unread would hold up everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwork_channels::dial::ConnectionId;
use meshwork_channels::{ChannelId, Time, sender};

/// So much waiting on one channel is congestion: well below what any channel may queue. It ends at half of it.
const CONGESTED_BYTES: usize = 768 * 1_024;
/// So many frames are congestion too, however small they are: a quarter of the frames that `events` may queue.
const CONGESTED_FRAMES: usize = 1_250;
/// The pace at which a peer keeps up whatever the others do. A guess: a link of 8 Mbit/s.
const PACE_BYTES_PER_S: u64 = 1_024 * 1_024;
/// The pace is judged after this time; until then a peer has the benefit of the doubt.
const JUDGED_AFTER: Duration = Duration::from_millis(20);
/// A slow peer that took nothing for this long holds up nobody.
const STANDS_STILL: Duration = Duration::from_millis(50);
/// A peer that took less between two ticks has no share of the traffic.
const SHARE_BYTES: u64 = 16 * 1_024;

/// How one peer takes the channel on which most waits for it.
#[derive(Debug)]
struct Pace {
    channel: ChannelId,
    /// When it became congested, and what it had taken until then.
    since: Time,
    taken_then: u64,
    /// What it has taken, and when it last took something.
    taken: u64,
    progress_at: Time,
}

/// What is known of the queues to all peers.
#[derive(Debug, Default)]
pub(super) struct Congestion {
    paces: BTreeMap<ConnectionId, Pace>,
    taken: BTreeMap<ConnectionId, u64>,
    shares: BTreeSet<ConnectionId>,
}

/// What waits, in bytes; small frames weigh more than they have.
fn weight(queued: sender::Queued) -> usize {
    queued.bytes.max(queued.frames * (CONGESTED_BYTES / CONGESTED_FRAMES))
}

impl Congestion {
    /// Notes which peers take a share of the traffic, from the bytes that each has taken so far.
    pub(super) fn on_tick(&mut self, links: impl Iterator<Item = (ConnectionId, u64)>) {
        let before = std::mem::take(&mut self.taken);
        self.taken.extend(links);
        let share = |(connection, taken): (&ConnectionId, &u64)| {
            let before = before.get(connection).copied().unwrap_or(0);
            (taken.saturating_sub(before) >= SHARE_BYTES).then_some(*connection)
        };
        self.paces.retain(|connection, _| self.taken.contains_key(connection));
        self.shares = self.taken.iter().filter_map(share).collect();
    }

    /// Whether the application has to wait, given the fullest channel to each peer: what waits there, and the bytes taken so far.
    pub(super) fn holds_up(
        &mut self,
        links: impl Iterator<Item = (ConnectionId, Option<(ChannelId, sender::Queued, u64)>)>,
        now: Time,
    ) -> bool {
        let (mut keeps_up, mut slow, mut relaxed) = (false, false, false);
        for (connection, fullest) in links {
            let Some((channel, queued, taken)) = fullest.filter(|(_, queued, _)| weight(*queued) > CONGESTED_BYTES / 2) else {
                self.paces.remove(&connection);
                relaxed |= self.shares.contains(&connection);
                continue;
            };
            let begins = Pace { channel, since: now, taken_then: taken, taken, progress_at: now };
            let pace = match self.paces.get_mut(&connection) {
                Some(pace) if pace.channel == channel => pace,
                _ if weight(queued) <= CONGESTED_BYTES => {
                    relaxed |= self.shares.contains(&connection);
                    continue;
                }
                _ => self.paces.entry(connection).insert_entry(begins).into_mut(),
            };
            if taken > pace.taken {
                (pace.taken, pace.progress_at) = (taken, now);
            }
            if weight(queued) <= CONGESTED_BYTES {
                continue;
            }
            let waited = now.since(pace.since);
            let due = u128::from(PACE_BYTES_PER_S) * waited.as_millis() / 1_000;
            if waited < JUDGED_AFTER || u128::from(taken - pace.taken_then) >= due {
                keeps_up = true;
            } else {
                slow |= now.since(pace.progress_at) < STANDS_STILL;
            }
        }
        keeps_up || slow && !relaxed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1_024 * 1_024;

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn link(number: u64, bytes: usize, taken: u64) -> (ConnectionId, Option<(ChannelId, sender::Queued, u64)>) {
        (ConnectionId(number), Some((ChannelId::EVENTS, sender::Queued { frames: 1, bytes }, taken)))
    }

    /// Asks every 10 ms for two seconds about a peer with full queues that takes `pace` bytes a second; how many times it held up.
    fn held_up(pace: u64, others: &[u64]) -> usize {
        let mut congestion = Congestion::default();
        congestion.on_tick(others.iter().map(|number| (ConnectionId(*number), 10_000_000)));
        (0..200)
            .filter(|turn| {
                let others = others.iter().map(|number| (ConnectionId(*number), None));
                congestion.holds_up(others.chain([link(1, MIB, pace * turn / 100)]), at(turn * 10))
            })
            .count()
    }

    #[test]
    fn a_peer_that_takes_its_share_holds_up_always_and_a_slow_one_only_without_others() {
        assert_eq!(held_up(2 * MIB as u64, &[2]), 200, "a flood waits for its peers");
        assert_eq!(held_up(100_000, &[]), 200, "the only peer sets the pace");
        assert!(held_up(100_000, &[2]) <= 2, "one of several costs itself");
        assert!(held_up(0, &[]) <= 6, "nobody waits for a peer that stands still");
    }

    #[test]
    fn all_links_slow_is_no_fault_of_one_peer() {
        let mut congestion = Congestion::default();
        congestion.on_tick([(ConnectionId(1), 10_000_000), (ConnectionId(2), 10_000_000)].into_iter());
        for turn in 0..100 {
            let links = [link(1, MIB, turn * 1_000), link(2, MIB, turn * 1_000)];
            assert!(congestion.holds_up(links.into_iter(), at(turn * 10)));
        }
    }

    #[test]
    fn little_waiting_holds_up_nobody() {
        let mut congestion = Congestion::default();
        assert!(!congestion.holds_up([link(1, CONGESTED_BYTES, 0)].into_iter(), at(0)));
        assert!(congestion.holds_up([link(1, CONGESTED_BYTES + 1, 0)].into_iter(), at(1)));
        let small = |frames| [(ConnectionId(2), Some((ChannelId::EVENTS, sender::Queued { frames, bytes: 67 * frames }, 0)))].into_iter();
        assert!(!congestion.holds_up(small(CONGESTED_FRAMES), at(1)));
        assert!(congestion.holds_up(small(CONGESTED_FRAMES + 2), at(1)), "or their queue would be full before it looks so");
        congestion.on_tick(std::iter::empty());
        assert!(congestion.paces.is_empty(), "a connection that is gone is forgotten");
    }
}
