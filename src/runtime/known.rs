//! Whom the node once found, in case that it loses everybody: where it knocks again, and what is written down for its next life.

#![expect(clippy::disallowed_methods, reason = "files are written on another thread")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::warn;

use super::storage::DataDir;
use crate::node::{Candidate, Connectivity, Node};

/// How often a node without company knocks again where it once found somebody.
const KNOCK_AGAIN: Duration = Duration::from_secs(5);
/// How often known peers are written down.
const WRITE_AGAIN: Duration = Duration::from_secs(30);
/// Addresses of non-seeds to knock at again.
const KNOWN_MAX: usize = 64;

/// Where others were found.
pub(super) struct Known {
    candidates: Vec<Candidate>,
    dir: Option<Arc<DataDir>>,
    knock_at: Instant,
    write_at: Instant,
    had_company: bool,
}

impl Known {
    /// Of those whom the node begins with, the seeds are looked for by the node itself.
    pub(super) fn new(candidates: &[Candidate], dir: Option<DataDir>, origin: Instant) -> Self {
        Known {
            candidates: candidates.iter().filter(|candidate| !candidate.keep).copied().take(KNOWN_MAX).collect(),
            dir: dir.map(Arc::new),
            knock_at: origin + KNOCK_AGAIN,
            write_at: origin + WRITE_AGAIN,
            had_company: false,
        }
    }

    /// Adds some; the oldest give way.
    pub(super) fn add(&mut self, found: &[Candidate]) {
        for candidate in found {
            if !self.candidates.contains(candidate) {
                if self.candidates.len() == KNOWN_MAX {
                    self.candidates.remove(0);
                }
                self.candidates.push(*candidate);
            }
        }
    }

    /// Writes down who is there, now and then and once there is company for the first time. Gives those to knock at, when it is time for that.
    pub(super) fn on_tick(&mut self, node: &Node, now: Instant) -> Option<Vec<Candidate>> {
        let is_connected = node.connectivity() == Connectivity::Connected;
        if now >= self.write_at || (is_connected && !self.had_company) {
            self.write_at = now + WRITE_AGAIN;
            self.had_company |= is_connected;
            self.write_down(node);
        }
        if now < self.knock_at {
            return None;
        }
        self.knock_at = now + KNOCK_AGAIN;
        (!is_connected && !self.candidates.is_empty()).then(|| self.candidates.clone())
    }

    /// Writes down some living members for the last time, and frees the folder.
    pub(super) async fn close(&mut self, node: &Node) {
        let written = self.write_down(node);
        self.dir = None;
        if let Some(written) = written {
            // It said by itself what went wrong.
            let _ = written.await;
        }
    }

    /// Writes down some living members, on another thread: a slow disk must not stop the protocol.
    fn write_down(&self, node: &Node) -> Option<JoinHandle<()>> {
        let dir = self.dir.clone()?;
        let peers: Vec<_> = node.worth_remembering().collect();
        if peers.is_empty() {
            return None;
        }
        Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = dir.set_peers(&peers) {
                warn!(%error, "peers not remembered");
            }
        }))
    }
}
