//! What both programs say of the machine and of themselves.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

/// Processor time that all threads of this process have used, in user mode and in the system.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The middle of some numbers; of an even count, the mean of the two in the middle. Nothing has the middle zero.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[count / 2],
        count => (numbers[count / 2 - 1] + numbers[count / 2]) / 2.0,
    }
}

/// The version of a package that this program was built with.
pub(crate) fn version(package: &str) -> &'static str {
    let head = format!("name = \"{package}\"\n");
    let rest = include_str!("../Cargo.lock").split_once(&head).map_or("", |(_, rest)| rest);
    rest.lines().next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).unwrap_or("unknown")
}

/// Where the figures come from.
pub(crate) fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == "model name"));
    let load: Vec<f64> = read("/proc/loadavg").split_whitespace().take(3).filter_map(|number| number.parse().ok()).collect();
    json!({
        "cpu": model.map_or("unknown", |(_, value)| value.trim()),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": load,
        "optimized": !cfg!(debug_assertions),
    })
}
