//! Which lane of a channel a new sender gets.
//!
//! A sender keeps its lane as long as the connection stands, and a key keeps its own: nothing that was sent earlier can be overtaken on another lane, because there is
//! none. Whether the application of the peer has everything of a lane cannot be seen from here, so nothing ever moves; growth and blocked lanes decide for those
//! who come.
//!
//! 1. Senders without a key are spread evenly over the first lanes, as many as [`growth`](super::growth) says.
//! 2. Keys are spread over all lanes from the start, for a key could not use a lane that comes later. There are [`PLACES`] places, a hash of the key chooses
//!    one, and a place gets its lane with its first key. That is the memory for keys: a byte for each place.
//! 3. A lane that holds something and of which the transport took nothing for a window, while it took something else, is blocked. Nobody who comes gets it as long
//!    as there is another.

use std::cmp::Reverse;
use std::time::Duration;

use super::growth::{self, Input, Window};
use crate::time::Time;

/// Places for keys; keys that share one share a lane.
const PLACES: usize = 1_024;

/// One channel to one peer.
#[derive(Debug)]
pub(super) struct Spread {
    pub(super) growth: growth::State,
    lanes: Vec<Lane>,
    /// The lane of each place and one; zero where no key has been. Empty before the first key.
    places: Vec<u8>,
    /// Where the window began.
    began: Time,
    busy: Duration,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Senders that it was given to since the number of lanes changed.
    given: u32,
    last: Seen,
    is_blocked: bool,
}

/// What a lane looks like at the end of a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Whether something waits for the transport.
    pub(super) is_held: bool,
    /// What the transport took altogether.
    pub(super) bytes: u64,
}

/// What a channel looks like at the end of a window: all since the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    /// For how long something waited.
    pub(super) busy: Duration,
    /// What the transport took.
    pub(super) bytes: u64,
    /// Whether something waits now.
    pub(super) is_waiting: bool,
}

impl Spread {
    pub(super) fn new(totals: Totals, lanes: impl Iterator<Item = Seen>, now: Time) -> Self {
        let lanes: Vec<Lane> = lanes.map(|last| Lane { last, ..Lane::default() }).collect();
        let growth = growth::State::new(u8::try_from(lanes.len()).unwrap_or(u8::MAX));
        Spread { growth, lanes, places: Vec::new(), began: now, busy: totals.busy, bytes: totals.bytes }
    }

    pub(super) fn is_blocked(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.is_blocked)
    }

    /// The lane of a new sender without a key.
    pub(super) fn give(&mut self, now: Time) -> u8 {
        let spread_over = usize::from(self.growth.lanes());
        // The highest of equal ones: it has been there for the shortest time.
        let order = |(at, lane): &(usize, &mut Lane)| (lane.is_blocked, *at >= spread_over, lane.given, Reverse(*at));
        let Some((at, lane)) = self.lanes.iter_mut().enumerate().min_by_key(order) else { return 0 };
        lane.given = lane.given.saturating_add(1);
        self.growth.handle(Input::Given(at as u8), now);
        at as u8
    }

    /// The lane of a key, by its hash.
    pub(super) fn place(&mut self, hash: u64) -> u8 {
        self.places.resize(PLACES, 0);
        let place = hash as usize % PLACES;
        if self.places[place] == 0 {
            let lanes = self.lanes.len();
            // From the one that it has among all of them on.
            let nth = |step: usize| (hash as usize % 256 + step) % lanes;
            let lane = (0..lanes).map(nth).find(|lane| !self.lanes[*lane].is_blocked).unwrap_or(nth(0));
            self.places[place] = lane as u8 + 1;
        }
        self.places[place] - 1
    }

    /// A window is over. `has_moved` says whether the transport took anything of any channel in it.
    pub(super) fn on_window(&mut self, totals: Totals, lanes: impl Iterator<Item = Seen>, has_moved: bool, now: Time) {
        for (lane, seen) in self.lanes.iter_mut().zip(lanes) {
            let is_stuck = lane.last.is_held && seen.is_held && lane.last.bytes == seen.bytes;
            lane.is_blocked = is_stuck && (has_moved || lane.is_blocked);
            lane.last = seen;
        }
        let window = Window {
            took: now.since(self.began),
            busy: totals.busy.saturating_sub(self.busy),
            is_waiting: totals.is_waiting,
            bytes: totals.bytes.saturating_sub(self.bytes),
        };
        (self.began, self.busy, self.bytes) = (now, totals.busy, totals.bytes);
        let before = self.growth.lanes();
        self.growth.handle(Input::Window(window), now);
        if self.growth.lanes() != before {
            self.lanes.iter_mut().for_each(|lane| lane.given = 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Totals = Totals { busy: Duration::ZERO, bytes: 0, is_waiting: false };
    const FREE: Seen = Seen { is_held: false, bytes: 0 };
    const STUCK: Seen = Seen { is_held: true, bytes: 7 };

    fn spread(lanes: usize) -> Spread {
        Spread::new(NOTHING, std::iter::repeat_n(FREE, lanes), Time::ZERO)
    }

    /// Windows in which the lanes look like this at the end.
    fn windows(spread: &mut Spread, count: u32, lanes: &[Seen], has_moved: bool) {
        (0..count).for_each(|_| spread.on_window(NOTHING, lanes.iter().copied(), has_moved, spread.began + growth::WINDOW));
    }

    #[test]
    fn senders_begin_on_one_lane_and_keys_on_all() {
        let mut spread = spread(4);
        assert!((0..100).all(|_| spread.give(Time::ZERO) == 0));
        let mut keys = [0; 4];
        (0..1_000_u64).for_each(|key| keys[usize::from(spread.place(crate::random::hash(&[key])))] += 1);
        assert!(keys.iter().all(|count| (150..350).contains(count)), "{keys:?}");
    }

    #[test]
    fn a_lane_that_takes_nothing_while_others_move_is_avoided_by_whoever_comes() {
        let mut spread = spread(3);
        let before: Vec<u8> = (0..100_u64).map(|key| spread.place(key)).collect();
        windows(&mut spread, 2, &[STUCK, FREE, FREE], false);
        assert!(!spread.is_blocked(0), "nothing moved anywhere: that is not the lane");
        windows(&mut spread, 1, &[STUCK, FREE, FREE], true);
        assert!(spread.is_blocked(0));
        let given: Vec<u8> = (0..4).map(|_| spread.give(Time::ZERO)).collect();
        assert_eq!(given, [2, 1, 2, 1], "beyond the first, for that is blocked");
        assert_eq!((0..100_u64).map(|key| spread.place(key)).collect::<Vec<_>>(), before, "a key that has a lane keeps it");
        assert!((100..800_u64).all(|key| spread.place(key) != 0), "one that has none gets another");
        windows(&mut spread, 1, &[STUCK, FREE, FREE], false);
        assert!(spread.is_blocked(0), "it stays blocked when everything stands still");
        windows(&mut spread, 1, &[Seen { bytes: 8, ..STUCK }, FREE, FREE], true);
        assert!(!spread.is_blocked(0));
        assert_eq!(spread.give(Time::ZERO), 0);
    }

    #[test]
    fn where_all_are_blocked_nobody_is_turned_away() {
        let mut spread = spread(2);
        windows(&mut spread, 2, &[STUCK, STUCK], true);
        assert_eq!((spread.give(Time::ZERO), spread.place(3)), (0, 1));
    }

    #[test]
    fn what_waits_and_moves_is_not_blocked_nor_is_what_has_just_come() {
        let mut spread = spread(2);
        windows(&mut spread, 1, &[STUCK, FREE], true);
        assert!(!spread.is_blocked(0), "it may have come in the last moment of the window");
        for bytes in 8..12 {
            windows(&mut spread, 1, &[Seen { bytes, ..STUCK }, FREE], true);
            assert!(!spread.is_blocked(0));
        }
    }

    #[test]
    fn new_senders_are_spread_evenly_over_the_lanes_that_there_are() {
        let mut spread = spread(3);
        assert!((0..10).all(|_| spread.give(Time::ZERO) == 0));
        let mut bytes = 0;
        for window in 1..=4_u32 {
            bytes += 1_000;
            let totals = Totals { busy: window * growth::WINDOW, bytes, is_waiting: true };
            spread.on_window(totals, [FREE; 3].into_iter(), true, Time::ZERO + window * growth::WINDOW);
        }
        assert_eq!(spread.growth.lanes(), 2);
        assert_eq!((0..6).map(|_| spread.give(Time::ZERO)).collect::<Vec<_>>(), [1, 0, 1, 0, 1, 0]);
    }
}
