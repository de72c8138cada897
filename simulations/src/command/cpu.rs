//! Processor time, which says more than the clock on a machine that others use too; and memory.

#![expect(clippy::disallowed_methods, reason = "the cost of a run is measured, and nothing in a run reads it")]

use std::time::Instant;

/// Measures what this thread costs from its start on.
pub(super) struct Meter {
    started: Instant,
    used: Option<f64>,
}

impl Meter {
    pub(super) fn start() -> Self {
        Meter { started: Instant::now(), used: thread_seconds() }
    }

    /// Seconds of processor time; of the clock where the system does not tell.
    pub(super) fn seconds(&self) -> f64 {
        match (self.used, thread_seconds()) {
            (Some(before), Some(now)) => now - before,
            _ => self.started.elapsed().as_secs_f64(),
        }
    }
}

/// A line of what Linux tells of the memory of this process or of the machine, in bytes.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}

/// The most memory that this process has had, in bytes.
pub(super) fn memory_max() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM")
}

/// The memory that is left on this machine, in bytes.
pub(super) fn memory_left() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable")
}

/// Seconds that this thread has run on a processor: Linux tells nanoseconds in the first field.
fn thread_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<u64>().ok()? as f64 / 1e9)
}
