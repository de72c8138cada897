//! What the sender measures of a lane and a channel, without reading a clock for each frame.
//!
//! *Stamps.* A frame is stamped with the last reading of the clock. It is read when a frame comes to an empty lane, when the driver tells the time, and after every
//! 32nd frame at the latest; sooner when frames come slowly: the number of frames between two readings doubles as long as they take no more than [`RESOLUTION`],
//! and is 1 again when they took longer. So a wait is never understated, and it is overstated by no more than the time in which those few frames came.
//!
//! *Waits.* Frames with one stamp are a run: its time, their number and their bytes. Runs follow the frames from the queue into the driver's hands, and end when the
//! transport took the last byte: then the wait of all frames of the run is counted, and the frames count as sent.
//!
//! Memory: 16 bytes for each run, of which there are no more than frames.

use std::collections::VecDeque;
use std::time::Duration;

use super::{KEPT_FRAMES, Queued};
use crate::histogram::Histogram;
use crate::metrics::WINDOW;
use crate::time::Time;

/// Frames between two readings of the clock take about this long at most, unless they suddenly come more slowly.
pub(super) const RESOLUTION: Duration = Duration::from_micros(16);
/// The most frames that share a stamp: a reading costs some 25 ns, which is so little of 32 small frames that throughput does not show it.
const STRIDE_MAX: u32 = 32;

/// The time of the frames that are pushed.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// The latest time that anybody told.
    now: Time,
    /// When a push asked for it last.
    asked: Time,
    /// Frames for each reading.
    stride: u32,
    /// Frames until the next one.
    left: u32,
}

impl Stamps {
    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn tell(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// The stamp of a frame; a fresh one if it must be.
    #[inline]
    pub(super) fn stamp(&mut self, fresh: bool, now: impl FnOnce() -> Time) -> Time {
        if fresh || self.left == 0 {
            let now = now();
            self.tell(now);
            let is_slow = fresh || now.since(self.asked) > RESOLUTION;
            self.stride = if is_slow { 1 } else { (2 * self.stride).clamp(1, STRIDE_MAX) };
            self.left = self.stride;
            self.asked = now;
        }
        self.left -= 1;
        self.now
    }
}

/// Frames that came at one time, or what is left of them.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: Time,
    /// Frames that end here; a part that does not end one belongs to none.
    frames: u32,
    bytes: u32,
}

/// The frames of one lane between the push and the transport.
#[derive(Debug, Default)]
pub(super) struct Waits {
    queued: VecDeque<Run>,
    /// Those that were popped, and that the transport has not taken.
    popped: VecDeque<Run>,
    /// What they are together.
    pub(super) under_way: Queued,
    pub(super) sent_frames: u64,
    pub(super) sent_bytes: u64,
    /// Frames that were queued and will never be sent.
    pub(super) dropped: u64,
}

impl Waits {
    #[inline]
    pub(super) fn push(&mut self, at: Time, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(last) = self.queued.back_mut()
            && last.at == at
            && let (Some(frames), Some(bytes)) = (last.frames.checked_add(1), last.bytes.checked_add(bytes))
        {
            (last.frames, last.bytes) = (frames, bytes);
            return;
        }
        self.queued.push_back(Run { at, frames: 1, bytes });
    }

    /// Frames leave the queue in order; the last of the bytes may belong to a frame that does not end there.
    pub(super) fn pop(&mut self, frames: usize, bytes: usize) {
        let popped = &mut self.popped;
        take(&mut self.queued, frames, bytes, |run| popped.push_back(run));
        self.under_way.frames += frames;
        self.under_way.bytes += bytes;
    }

    /// A frame leaves that was kept elsewhere, with the time at which it came.
    pub(super) fn pop_kept(&mut self, at: Time, bytes: usize) {
        self.popped.push_back(Run { at, frames: 1, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) });
        self.under_way.frames += 1;
        self.under_way.bytes += bytes;
    }

    /// Frames are given up in the queue.
    pub(super) fn drop_queued(&mut self, frames: usize, bytes: usize) {
        take(&mut self.queued, frames, bytes, |_| {});
        self.dropped += frames as u64;
    }

    /// The transport took bytes of what was popped: how many frames that completes.
    pub(super) fn sent(&mut self, bytes: usize, now: Time, waited: &mut Histogram) -> u64 {
        let frames = self.settle(bytes, |run| waited.record(now.since(run.at), run.frames.into()));
        self.sent_frames += frames;
        self.sent_bytes += bytes as u64;
        frames
    }

    /// Bytes of what was popped are given up: how many frames end there.
    pub(super) fn drop_popped(&mut self, bytes: usize) -> u64 {
        let frames = self.settle(bytes, |_| {});
        self.dropped += frames;
        frames
    }

    /// Everything that was popped is given up: how many frames.
    pub(super) fn drop_all_popped(&mut self) -> u64 {
        self.drop_popped(usize::MAX)
    }

    fn settle(&mut self, bytes: usize, mut over: impl FnMut(Run)) -> u64 {
        let (mut left, mut frames) = (bytes, 0_u64);
        while let Some(run) = self.popped.front_mut() {
            if run.bytes as usize > left {
                run.bytes -= left as u32;
                left = 0;
                break;
            }
            left -= run.bytes as usize;
            frames += u64::from(run.frames);
            over(*run);
            self.popped.pop_front();
        }
        give_back(&mut self.popped);
        self.under_way.frames = self.under_way.frames.saturating_sub(frames as usize);
        self.under_way.bytes = self.under_way.bytes.saturating_sub(bytes - left);
        frames
    }
}

/// Takes frames and bytes off the front, and hands over the runs that they are.
fn take(runs: &mut VecDeque<Run>, frames: usize, bytes: usize, mut to: impl FnMut(Run)) {
    let (mut frames, mut bytes) = (frames, bytes);
    while (frames > 0 || bytes > 0)
        && let Some(run) = runs.front_mut()
    {
        let part = Run { at: run.at, frames: (run.frames as usize).min(frames) as u32, bytes: (run.bytes as usize).min(bytes) as u32 };
        // Of a run that goes on, the frames that leave are whole but for the last, and have all the bytes that are left.
        let is_whole = part.frames == run.frames && part.bytes == run.bytes;
        (frames, bytes) = (frames - part.frames as usize, bytes - part.bytes as usize);
        to(part);
        if is_whole {
            runs.pop_front();
        } else {
            (run.frames, run.bytes) = (run.frames - part.frames, run.bytes - part.bytes);
            break;
        }
    }
    give_back(runs);
}

fn give_back(runs: &mut VecDeque<Run>) {
    if runs.is_empty() && runs.capacity() > KEPT_FRAMES {
        *runs = VecDeque::new();
    }
}

/// For how long something waited, altogether and in the last window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Busy {
    /// Since when something waits, within this window.
    since: Option<Time>,
    /// Which window it is.
    window: u64,
    /// The time before `since`, within this window.
    within: Duration,
    /// In the window before.
    last: Duration,
    /// The time before `since`, altogether.
    total: Duration,
}

impl Busy {
    pub(super) fn begin(&mut self, now: Time) {
        if self.since.is_none() {
            self.turn(now);
            self.since = Some(now);
        }
    }

    pub(super) fn end(&mut self, now: Time) {
        self.turn(now);
        if let Some(since) = self.since.take() {
            self.within += now.since(since);
            self.total += now.since(since);
        }
    }

    /// Altogether until now, and in the last window that is over.
    pub(super) fn at(mut self, now: Time) -> (Duration, Duration) {
        self.turn(now);
        let so_far = self.since.map_or(Duration::ZERO, |since| now.since(since));
        (self.total + so_far, self.last)
    }

    /// Begins the window that it is now.
    fn turn(&mut self, now: Time) {
        const WINDOW_NANOS: u64 = WINDOW.as_nanos() as u64;
        let window = now.as_nanos() / WINDOW_NANOS;
        if window <= self.window {
            return;
        }
        let end = Time::from_nanos((self.window + 1).saturating_mul(WINDOW_NANOS));
        let is_busy = self.since.is_some();
        if let Some(since) = &mut self.since {
            let begins = Time::from_nanos(window * WINDOW_NANOS);
            self.within += end.since(*since);
            self.total += begins.since(*since);
            *since = begins;
        }
        self.last = match (window - self.window, is_busy) {
            (1, _) => self.within,
            (_, true) => WINDOW,
            (_, false) => Duration::ZERO,
        };
        (self.window, self.within) = (window, Duration::ZERO);
    }
}
