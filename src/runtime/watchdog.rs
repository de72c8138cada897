//! Whether the protocol thread turns, seen from outside: a thread that stalls cannot say so itself.

#![expect(clippy::disallowed_methods, reason = "the watchdog is a thread that looks at the clock")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meshwork_channels::PeerId;
use tracing::{error, warn};

/// How often it is looked whether the loop turns.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A loop that does not turn for this long is reported.
const STALL: Duration = Duration::from_secs(2);
/// The number of turns of a loop that has ended: the watchdog must not take an end for a stall.
const ENDED: u64 = u64::MAX;

/// How the protocol thread fares, readable even while it is stalled.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    turns: AtomicU64,
    stalled: AtomicBool,
    stalls: AtomicU64,
}

impl Pulse {
    /// The loop turns.
    pub(super) fn beat(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop has ended.
    pub(super) fn end(&self) {
        self.turns.store(ENDED, Ordering::Relaxed);
    }

    /// Whether the watchdog saw no turn for too long.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// How often it saw that.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }
}

/// Reports a loop that does not turn, as long as the node runs.
pub(super) fn start(peer: PeerId, pulse: &Arc<Pulse>) -> Result<(), String> {
    let watched = Arc::downgrade(pulse);
    std::thread::Builder::new()
        .name("meshwork-watchdog".into())
        .spawn(move || {
            let (mut turns, mut since) = (0, Instant::now());
            loop {
                std::thread::sleep(LOOK_EVERY);
                let Some(pulse) = watched.upgrade() else { return };
                let now_turns = pulse.turns.load(Ordering::Relaxed);
                if now_turns == ENDED {
                    return;
                }
                if now_turns != turns {
                    (turns, since) = (now_turns, Instant::now());
                    if pulse.stalled.swap(false, Ordering::Relaxed) {
                        warn!(peer = %peer.short(), "the node turns again");
                    }
                } else if since.elapsed() >= STALL && !pulse.stalled.swap(true, Ordering::Relaxed) {
                    pulse.stalls.fetch_add(1, Ordering::Relaxed);
                    error!(peer = %peer.short(), for_s = since.elapsed().as_secs_f32(), "the node stalls; peers will hold this node for dead");
                }
            }
        })
        .map_err(|error| format!("the system gives no thread: {error}"))?;
    Ok(())
}
