//! Over how many lanes of a channel new senders without a key are spread: one core for each channel to a peer.
//!
//! It begins with one lane. When the channel was saturated for [`MEASURED`] windows in a row, it tries one lane more, and measures as many windows once a new sender
//! has got that lane: the lane stays if the channel carried a tenth more, and is taken back if not, or if no sender came. Each lane that is taken back doubles the
//! time until the next attempt; one that stays makes it short again. After a long quiet time there is one lane again. Every change is kept on record.
//!
//! The rule is our own. It decides where new senders go and moves none that is there, so that no order depends on it (`spread`).
//!
//! Invariants: there is at least one lane and never more than the channel has; a lane on trial is the last one. It stores [`LANE_CHANGES_MAX`] changes, and a peer
//! that takes little can only make it try lanes, ever more rarely. The queues to a peer feed it, window by window, and ask it when a sender comes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::{LANE_CHANGES_MAX, LaneChange, LaneOutcome, LaneReason};
use crate::time::Time;

/// What is looked at together. A guess: many round trips of most paths.
pub(super) const WINDOW: Duration = Duration::from_millis(500);
/// Windows that one figure is measured over. A guess: two seconds even out what a burst or a lost packet does to one window.
const MEASURED: u32 = 4;
/// The share of a window in which something waited above which a channel is saturated; the feature list chose it.
const SATURATED: f64 = 0.9;
/// The share of a window up to which a channel is quiet. A guess.
const QUIET: f64 = 0.1;
/// A lane is worth keeping when the channel carries more by this part. A guess, above what two measurements of one thing differ by.
const GAIN_ONE_IN: u64 = 10;
/// Windows for which a lane waits for a new sender.
const UNUSED_MAX: u32 = 20;
/// From a lane that was taken back to the next attempt, at first and at most.
const REST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(640);
/// The quiet time after which there is one lane again.
const IDLE: Duration = Duration::from_secs(60);

/// What is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A window is over.
    Window(Window),
    /// A new sender was given a lane.
    Given(u8),
}

/// What a channel did in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// How long it was: longer than [`WINDOW`] when nothing happened.
    pub(super) took: Duration,
    /// For how long of it something waited.
    pub(super) busy: Duration,
    /// Whether something waits at its end.
    pub(super) is_waiting: bool,
    /// What the transport took.
    pub(super) bytes: u64,
}

/// Windows in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    windows: u32,
    bytes: u64,
    took: Duration,
}

impl Run {
    /// Counts a window; the bytes per second of the whole run once it is long enough, which ends it.
    fn add(&mut self, window: Window) -> Option<u64> {
        self.windows += 1;
        self.bytes = self.bytes.saturating_add(window.bytes);
        self.took += window.took;
        (self.windows >= MEASURED).then(|| std::mem::take(self).rate())
    }

    fn rate(self) -> u64 {
        let nanos = self.took.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
    }
}

/// A lane that is tried.
#[derive(Clone, Copy, Debug)]
enum Trial {
    /// No sender has it yet, for so many windows.
    Unused(u32),
    /// A sender got it in this window, which is part of neither figure.
    Begins,
    Measured,
}

#[derive(Debug)]
pub(super) struct State {
    lanes: u8,
    lanes_max: u8,
    run: Run,
    trial: Option<Trial>,
    /// What the next lane that is taken back costs, and until when the last one does.
    rest: Duration,
    rests_until: Time,
    quiet: Duration,
    /// The last one is that of the trial, if there is one.
    changes: VecDeque<LaneChange>,
}

impl State {
    pub(super) fn new(lanes_max: u8) -> Self {
        let (run, changes) = (Run::default(), VecDeque::new());
        State { lanes: 1, lanes_max, run, trial: None, rest: REST, rests_until: Time::ZERO, quiet: Duration::ZERO, changes }
    }

    /// The lanes that new senders are spread over: so many of the first ones.
    pub(super) fn lanes(&self) -> u8 {
        self.lanes
    }

    pub(super) fn changes(&self) -> &VecDeque<LaneChange> {
        &self.changes
    }

    pub(super) fn handle(&mut self, input: Input, now: Time) {
        match input {
            Input::Window(window) => self.on_window(window, now),
            Input::Given(lane) => self.on_given(lane),
        }
        self.check();
    }

    fn on_given(&mut self, lane: u8) {
        if lane + 1 == self.lanes && matches!(self.trial, Some(Trial::Unused(_))) {
            self.trial = Some(Trial::Begins);
            self.run = Run::default();
        }
    }

    fn on_window(&mut self, window: Window, now: Time) {
        let share = window.busy.as_secs_f64() / window.took.as_secs_f64().max(f64::MIN_POSITIVE);
        self.quiet = if share > QUIET { Duration::ZERO } else { self.quiet.saturating_add(window.took) };
        if self.quiet >= IDLE {
            return self.on_idle(now);
        }
        let is_saturated = share > SATURATED && window.is_waiting;
        match self.trial {
            Some(Trial::Begins) => self.trial = Some(Trial::Measured),
            Some(Trial::Measured) => {
                if let Some(after) = self.run.add(window) {
                    self.judge(after, now);
                }
            }
            _ if !is_saturated => {
                self.run = Run::default();
                self.count_unused(now);
            }
            Some(Trial::Unused(_)) => {
                // What it will be compared with is what was last.
                if let Some(before) = self.run.add(window)
                    && let Some(change) = self.changes.back_mut()
                {
                    change.before_bytes_per_s = before;
                }
                self.count_unused(now);
            }
            None => {
                if let Some(before) = self.run.add(window)
                    && self.lanes < self.lanes_max
                    && now >= self.rests_until
                {
                    self.trial = Some(Trial::Unused(0));
                    self.change(self.lanes + 1, before, LaneReason::Saturated, LaneOutcome::Measuring, now);
                }
            }
        }
    }

    fn count_unused(&mut self, now: Time) {
        if let Some(Trial::Unused(windows)) = &mut self.trial {
            *windows += 1;
            if *windows >= UNUSED_MAX {
                self.take_back(None, LaneOutcome::Unused, now);
            }
        }
    }

    fn judge(&mut self, after: u64, now: Time) {
        let Some(change) = self.changes.back_mut() else { return };
        let before = change.before_bytes_per_s;
        if after < before.saturating_add(before / GAIN_ONE_IN) {
            return self.take_back(Some(after), LaneOutcome::Reverted, now);
        }
        (change.after_bytes_per_s, change.outcome) = (Some(after), LaneOutcome::Kept);
        (self.trial, self.rest) = (None, REST);
    }

    fn take_back(&mut self, after: Option<u64>, outcome: LaneOutcome, now: Time) {
        if let Some(change) = self.changes.back_mut() {
            (change.after_bytes_per_s, change.outcome) = (after, outcome);
        }
        self.lanes -= 1;
        (self.trial, self.run) = (None, Run::default());
        self.rests_until = now + self.rest;
        self.rest = (2 * self.rest).min(REST_MAX);
    }

    fn on_idle(&mut self, now: Time) {
        (self.quiet, self.run) = (Duration::ZERO, Run::default());
        if self.trial.is_some() {
            self.take_back(None, LaneOutcome::Unused, now);
        }
        if self.lanes > 1 {
            self.change(1, 0, LaneReason::Idle, LaneOutcome::Kept, now);
        }
    }

    fn change(&mut self, to: u8, before: u64, reason: LaneReason, outcome: LaneOutcome, now: Time) {
        if self.changes.len() == LANE_CHANGES_MAX {
            self.changes.pop_front();
        }
        let from = std::mem::replace(&mut self.lanes, to);
        self.changes.push_back(LaneChange { at: now, from, to, before_bytes_per_s: before, after_bytes_per_s: None, reason, outcome });
    }

    fn check(&self) {
        debug_assert!((1..=self.lanes_max).contains(&self.lanes), "a channel has its lanes, and one at least");
        debug_assert!(self.trial.is_none() || self.lanes > 1, "the first lane is not on trial");
        debug_assert!(self.changes.len() <= LANE_CHANGES_MAX, "the record is bounded");
        debug_assert!(
            self.changes.iter().rev().skip(usize::from(self.trial.is_some())).all(|change| change.outcome != LaneOutcome::Measuring),
            "what is over has an outcome"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel whose throughput is a function of its lanes, in virtual time.
    struct Bench {
        state: State,
        now: Time,
        /// Whether a sender comes as soon as there is a lane for it.
        has_newcomers: bool,
    }

    impl Bench {
        fn new() -> Self {
            Bench { state: State::new(5), now: Time::from_secs(100), has_newcomers: true }
        }

        fn window(&mut self, busy: f64, bytes: u64) {
            self.now += WINDOW;
            let window = Window { took: WINDOW, busy: WINDOW.mul_f64(busy), is_waiting: busy > 0.5, bytes };
            self.state.handle(Input::Window(window), self.now);
            if self.has_newcomers {
                self.state.handle(Input::Given(self.state.lanes() - 1), self.now);
            }
        }

        /// Saturated for some windows; each lane up to `useful` carries as much.
        fn saturate(&mut self, windows: u32, useful: u8) {
            (0..windows).for_each(|_| self.window(1.0, 1_000_000 * u64::from(self.state.lanes().min(useful))));
        }

        fn outcomes(&self) -> Vec<(u8, u8, LaneOutcome)> {
            self.state.changes().iter().map(|change| (change.from, change.to, change.outcome)).collect()
        }
    }

    #[test]
    fn a_saturated_channel_grows_while_that_brings_more_and_no_further() {
        let mut bench = Bench::new();
        bench.saturate(3, 3);
        assert_eq!(bench.state.lanes(), 1, "it has been saturated for too short a time");
        bench.saturate(1, 3);
        assert_eq!((bench.state.lanes(), bench.outcomes()), (2, vec![(1, 2, LaneOutcome::Measuring)]));
        bench.saturate(5, 3);
        assert_eq!(bench.outcomes(), [(1, 2, LaneOutcome::Kept)]);
        let LaneChange { at, before_bytes_per_s, after_bytes_per_s, reason, .. } = bench.state.changes()[0];
        assert_eq!((before_bytes_per_s, after_bytes_per_s, reason), (2_000_000, Some(4_000_000), LaneReason::Saturated));
        assert_eq!(at, Time::from_secs(102));
        bench.saturate(18, 3);
        assert_eq!(bench.outcomes(), [(1, 2, LaneOutcome::Kept), (2, 3, LaneOutcome::Kept), (3, 4, LaneOutcome::Reverted)]);
        assert_eq!(bench.state.lanes(), 3);
    }

    #[test]
    fn a_channel_that_gains_from_all_its_lanes_gets_them_all_and_no_more() {
        let mut bench = Bench::new();
        bench.saturate(1_000, 9);
        assert_eq!((bench.state.lanes(), bench.state.changes().len()), (5, 4));
    }

    #[test]
    fn less_than_a_tenth_is_no_gain() {
        for (more, outcome) in [(1_099, LaneOutcome::Reverted), (1_100, LaneOutcome::Kept)] {
            let mut bench = Bench::new();
            (0..9).for_each(|_| bench.window(1.0, if bench.state.lanes() > 1 { more } else { 1_000 }));
            assert_eq!(bench.outcomes(), [(1, 2, outcome)], "{more}");
        }
    }

    #[test]
    fn attempts_in_vain_become_rare_and_one_that_pays_makes_them_frequent_again() {
        let mut bench = Bench::new();
        // An hour.
        bench.saturate(7_200, 1);
        assert_eq!(bench.state.lanes(), 1);
        let at: Vec<u64> = bench.state.changes().iter().map(|change| change.at.as_nanos() / 1_000_000_000).collect();
        let rests: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let expected = [10, 20, 40, 80, 160, 320, 640, 640, 640];
        assert!(rests.len() >= 8 && rests.iter().zip(expected).all(|(rest, least)| (least..least + 8).contains(rest)), "{rests:?}");
        bench.saturate(1_400, 2);
        let changes: Vec<LaneChange> = bench.state.changes().iter().copied().collect();
        let kept = changes.iter().position(|change| change.outcome == LaneOutcome::Kept).unwrap();
        let rests: Vec<u64> = changes[kept..].windows(2).map(|pair| pair[1].at.since(pair[0].at).as_secs()).collect();
        assert!(rests[0] < 8 && (10..18).contains(&rests[1]) && (20..28).contains(&rests[2]), "{rests:?}");
        assert_eq!(bench.state.lanes(), 2);
    }

    #[test]
    fn a_lane_that_no_sender_comes_for_is_taken_back_and_one_that_comes_late_is_measured_from_then_on() {
        let mut bench = Bench { has_newcomers: false, ..Bench::new() };
        bench.saturate(4 + UNUSED_MAX - 1, 2);
        assert_eq!(bench.outcomes(), [(1, 2, LaneOutcome::Measuring)]);
        bench.saturate(1, 2);
        assert_eq!((bench.state.lanes(), bench.outcomes()), (1, vec![(1, 2, LaneOutcome::Unused)]));
        assert_eq!(bench.state.changes()[0].after_bytes_per_s, None);

        let mut bench = Bench { has_newcomers: false, ..Bench::new() };
        (0..4).for_each(|_| bench.window(1.0, 500));
        // The load has changed, and nobody has the new lane.
        (0..8).for_each(|_| bench.window(1.0, 1_000));
        bench.state.handle(Input::Given(0), bench.now);
        bench.window(1.0, 1_000);
        bench.state.handle(Input::Given(1), bench.now);
        // The window in which it came, and those that count.
        bench.window(1.0, 77);
        (0..4).for_each(|_| bench.window(1.0, 1_500));
        let change = bench.state.changes()[0];
        assert_eq!((change.before_bytes_per_s, change.after_bytes_per_s, change.outcome), (2_000, Some(3_000), LaneOutcome::Kept));
    }

    #[test]
    fn it_shrinks_after_a_long_quiet_time_and_not_before() {
        let mut bench = Bench::new();
        bench.saturate(18, 3);
        assert_eq!(bench.state.lanes(), 3);
        (0..119).for_each(|_| bench.window(0.05, 10));
        bench.window(0.5, 10);
        (0..119).for_each(|_| bench.window(0.05, 10));
        assert_eq!(bench.state.lanes(), 3, "it was quiet for less than a minute");
        bench.window(0.0, 0);
        assert_eq!((bench.state.lanes(), bench.outcomes().last()), (1, Some(&(3, 1, LaneOutcome::Kept))));
        assert_eq!(bench.state.changes().back().unwrap().reason, LaneReason::Idle);
        (0..1_000).for_each(|_| bench.window(0.0, 0));
        assert_eq!(bench.state.changes().len(), 3, "one lane cannot become fewer");
    }

    #[test]
    fn a_long_pause_is_one_window_and_ends_a_trial_too() {
        let mut bench = Bench::new();
        bench.saturate(13, 3);
        assert_eq!(bench.outcomes(), [(1, 2, LaneOutcome::Kept), (2, 3, LaneOutcome::Measuring)]);
        bench.now += Duration::from_secs(600);
        let pause = Window { took: Duration::from_secs(600), busy: Duration::from_secs(1), is_waiting: false, bytes: 10 };
        bench.state.handle(Input::Window(pause), bench.now);
        assert_eq!(bench.outcomes(), [(1, 2, LaneOutcome::Kept), (2, 3, LaneOutcome::Unused), (2, 1, LaneOutcome::Kept)]);
    }

    #[test]
    fn a_load_that_comes_and_goes_does_not_make_it_oscillate() {
        // Shorter than what is measured: nothing happens at all.
        let mut bench = Bench::new();
        (0..1_000).for_each(|_| {
            bench.saturate(3, 1);
            bench.window(0.2, 10);
        });
        assert_eq!(bench.state.changes().len(), 0);
        // Longer: attempts become rare, as under a load that stays.
        for quiet in [4, 20, 60] {
            let mut bench = Bench::new();
            let mut changes = 0;
            let mut lanes = bench.state.lanes();
            // An hour.
            for _ in 0..7_200 / (quiet + 6) {
                bench.saturate(6, 1);
                (0..quiet).for_each(|_| bench.window(0.2, 10));
                changes += u32::from(bench.state.lanes() != lanes);
                lanes = bench.state.lanes();
            }
            assert!(changes <= 24, "{quiet}: {changes}");
        }
    }

    #[test]
    fn the_record_is_bounded() {
        let mut bench = Bench::new();
        for _ in 0..100 {
            bench.saturate(9, 2);
            (0..120).for_each(|_| bench.window(0.0, 0));
        }
        assert_eq!(bench.state.changes().len(), LANE_CHANGES_MAX);
    }
}
