//! How far a run is, on the standard error: a bar on a terminal, a line now and then elsewhere.

#![expect(clippy::disallowed_methods, reason = "people wait in real time")]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::complain;
use crate::job::Job;
use crate::minimize;
use crate::run::Progress;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

fn bar(quiet: bool, len: u64, template: &str) -> (ProgressBar, bool) {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(10));
    let lines = !quiet && !std::io::stderr().is_terminal();
    if quiet || lines {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    (bar, lines)
}

/// The progress of one run.
pub(super) struct Bar {
    bar: ProgressBar,
    lines: bool,
    started: Instant,
    last_line: Instant,
}

impl Bar {
    pub(super) fn start(quiet: bool, job: &Job) -> Self {
        Self::named(quiet, job.ends_at(), format!("{} seed {}", job.name(), job.seed()))
    }

    pub(super) fn named(quiet: bool, ends_at: u64, name: String) -> Self {
        let (bar, lines) = bar(quiet, ends_at / 1_000, "{prefix} [{bar:30}] {msg}, at most {eta} left");
        bar.set_prefix(name);
        Bar { bar, lines, started: Instant::now(), last_line: Instant::now() }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        let rate = progress.events as f64 / self.started.elapsed().as_secs_f64().max(1e-6);
        self.tell(progress.now, || {
            let seconds = progress.now / 1_000_000;
            format!("{seconds} s of virtual time, {} nodes alive, {} events, {:.2} M/s", progress.alive, progress.events, rate / 1e6)
        });
    }

    /// Shows words of one's own, at a moment in microseconds.
    pub(super) fn tell(&mut self, now: u64, message: impl Fn() -> String) {
        if self.lines {
            if self.last_line.elapsed() >= LINE_EVERY {
                self.last_line = Instant::now();
                complain(&message());
            }
        } else if !self.bar.is_hidden() {
            self.bar.set_message(message());
            self.bar.set_position(now / 1_000);
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The progress of many runs.
pub(super) struct Count {
    bar: ProgressBar,
    lines: bool,
    last_line: Instant,
}

impl Count {
    pub(super) fn start(quiet: bool, what: &'static str, count: u64) -> Self {
        let (bar, lines) = bar(quiet, count, "{prefix} [{bar:30}] {pos} of {len}, {msg}, {eta} left");
        bar.set_prefix(what);
        bar.set_message("none failed");
        Count { bar, lines, last_line: Instant::now() }
    }

    pub(super) fn advance(&mut self, failures: u64) {
        self.bar.inc(1);
        if failures > 0 {
            self.bar.set_message(format!("{failures} failed"));
        }
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            complain(&format!("{} of {}, {failures} failed", self.bar.position(), self.bar.length().unwrap_or(0)));
        }
    }

    /// Writes a line that stays.
    pub(super) fn interrupt(&self, line: &str) {
        self.bar.suspend(|| complain(line));
    }

    /// Ends it; gives how many runs there were.
    pub(super) fn finish(&self) -> u64 {
        // Its end would count all that were meant to be.
        let done = self.bar.position();
        self.bar.finish_and_clear();
        done
    }
}

/// The progress of a search for a smaller plan.
pub(super) struct Search {
    bar: ProgressBar,
    lines: bool,
    last_line: Instant,
}

impl Search {
    pub(super) fn start(quiet: bool, runs_max: u32) -> Self {
        let (bar, lines) = bar(quiet, u64::from(runs_max), "minimize, {pos} runs of at most {len}: {msg}");
        Search { bar, lines, last_line: Instant::now() }
    }

    pub(super) fn show(&mut self, progress: minimize::Progress) {
        let minimize::Progress { runs, nodes, faults, entries } = progress;
        let message = format!("{nodes} nodes, {faults} faults, {entries} entries");
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            complain(&format!("{runs} runs: {message}"));
        }
        self.bar.set_message(message);
        self.bar.set_position(u64::from(runs));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
