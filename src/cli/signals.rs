//! SIGINT and SIGTERM: the first asks to leave, the second ends the process at once.

#![expect(clippy::disallowed_methods, reason = "signals come in real time")]

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// A signal so soon after another is the same one: programs that run others send it to the process and to its group.
const SAME: Duration = Duration::from_millis(200);

/// The signals that ask a process to end.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    last: Option<Instant>,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())?, last: None })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            if self.last.is_none_or(|last| last.elapsed() > SAME) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }

    /// Waits for `work`, unless another signal comes first: then the process ends at once.
    pub(super) async fn or_exit<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            () = self.next() => std::process::exit(130),
        }
    }
}
