//! What is known of the machine and of this process: processor time, memory, names and versions.

#![expect(clippy::disallowed_methods, reason = "the system says it in files")]

use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_getres, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::Failure;

/// Where the figures come from.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) kernel: String,
    /// Over one, five and fifteen minutes, when the run began.
    pub(super) load: [f64; 3],
    pub(super) memory_bytes: u64,
    /// The resolution of the clock that counts the processor time of this process, both ends of every connection together.
    pub(super) cpu_clock_ns: u64,
    pub(super) version: &'static str,
    pub(super) quinn: &'static str,
    pub(super) rustls: &'static str,
    pub(super) optimized: bool,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into());
        let load = read("/proc/loadavg");
        let mut load = load.split_whitespace().map(|number| number.parse().unwrap_or(0.0));
        let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.trim_end_matches(" kB").trim().parse::<u64>().ok());
        let resolution = clock_getres(ClockId::ProcessCPUTime);
        Machine {
            cpu,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: std::array::from_fn(|_| load.next().unwrap_or(0.0)),
            memory_bytes: memory.unwrap_or(0) * 1_024,
            cpu_clock_ns: u64::try_from(resolution.tv_nsec).unwrap_or(0),
            version: env!("CARGO_PKG_VERSION"),
            quinn: "0.11",
            rustls: "0.23",
            optimized: !cfg!(debug_assertions),
        }
    }
}

/// The value of the first line that begins with a name and a colon.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Makes the calling thread wake to the microsecond and, where the system allows it (it wants privileges), go before all others: what keeps time
/// for a measurement must not wait for what is measured.
pub(super) fn keep_time() {
    // Without it the system may wake us fifty microseconds late.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
    // On Linux this is of the thread alone.
    let _ = rustix::process::setpriority_process(None, -15);
}

/// Datagrams that the system dropped because the socket with this local port was not read in time.
pub(super) fn overruns(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    overruns_in(&text, port)
}

/// The second field is the local address in hexadecimal digits, the last one the count.
fn overruns_in(text: &str, port: u16) -> u64 {
    let port = format!(":{port:04X}");
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = lines.filter(|fields| fields.get(1).is_some_and(|local| local.ends_with(&port)));
    of_port.filter_map(|fields| fields.last()?.parse::<u64>().ok()).sum()
}

/// How long a cache line takes from one core to another and back; none where there is one core, or others have the rest. It decides what a message between two threads costs, and on
/// virtual machines it changes while they run, with the cores that they are given: 60 and 330 ns have been seen on one.
pub(super) fn line_trip() -> Option<Duration> {
    const TRIPS: u64 = 2_000;
    const TRIES: usize = 9;
    let (line, is_over) = (&AtomicU64::new(0), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let now = line.load(Ordering::Acquire);
                if now % 2 == 1 {
                    line.store(now + 1, Ordering::Release);
                } else {
                    std::hint::spin_loop();
                }
            }
        });
        let mut tries: Vec<Option<Duration>> = (0..TRIES).map(|_| trips(line, TRIPS)).collect();
        is_over.store(true, Ordering::Relaxed);
        tries.sort_unstable();
        tries.into_iter().flatten().next().map(|shortest| shortest / TRIPS as u32)
    })
}

/// So many trips there and back, unless the other thread does not run.
fn trips(line: &AtomicU64, count: u64) -> Option<Duration> {
    let begun = Instant::now();
    let start = line.load(Ordering::Acquire);
    for trip in 0..count {
        let sent = start + 2 * trip;
        line.store(sent + 1, Ordering::Release);
        let mut looks = 0_u32;
        while line.load(Ordering::Acquire) != sent + 2 {
            looks += 1;
            // To look at the clock takes as long as a short trip.
            if looks.is_multiple_of(1_000) && begun.elapsed() > Duration::from_millis(20) {
                // Whoever answers is waited for, so that the next try begins with a whole trip.
                while line.load(Ordering::Acquire) % 2 == 1 {
                    std::thread::yield_now();
                }
                return None;
            }
            std::hint::spin_loop();
        }
    }
    Some(begun.elapsed())
}

/// What this program finds in a process of its own, which prints it as JSON: the memory of this one would hide what a subject takes.
pub(super) fn alone<T: DeserializeOwned>(case: &str, arguments: &[&str]) -> Result<T, Failure> {
    let mut command = Command::new(std::env::current_exe().map_err(Failure::new)?);
    command.args(["--log", "error", "bench"]).args(arguments);
    let output = command.stderr(Stdio::inherit()).stdin(Stdio::null()).output().map_err(Failure::new)?;
    serde_json::from_slice(&output.stdout).map_err(|_| Failure::new(format!("{case} was not measured")))
}

/// Processor time that all threads of this process have used.
pub(super) fn cpu_time() -> Duration {
    used(ClockId::ProcessCPUTime)
}

/// Processor time that the calling thread has used.
pub(super) fn thread_cpu_time() -> Duration {
    used(ClockId::ThreadCPUTime)
}

fn used(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bytes of memory that this process has in use, as the system counts them.
pub(super) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    field(&text, "Rss").and_then(|text| text.trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "RssAnon: 1 kB\nRss:                 312 kB\n";
        assert_eq!(field(text, "Rss").as_deref(), Some("312 kB"));
        assert_eq!(field(text, "Pss"), None);
    }

    #[test]
    fn a_line_comes_back() {
        // Or there is no core for it.
        let trip = line_trip();
        assert!(trip.is_none_or(|trip| trip < Duration::from_millis(1)), "{trip:?}");
    }

    #[test]
    fn overruns_are_those_of_the_socket() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                    12: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 99 2 0000000000000000 17\n\
                    13: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 98 2 0000000000000000 3\n";
        assert_eq!((overruns_in(text, 8_080), overruns_in(text, 8_081), overruns_in(text, 1)), (17, 3, 0));
    }
}
