//! Calls of the application that wait for an answer, and requests of peers that were seen.
//!
//! A request whose connection breaks is sent again on the next connection to the peer until its time is over, under the same number; the
//! peer recognizes the number, runs its handler once, and repeats the answer that it gave.
//!
//! What a peer can make this node store: [`SEEN_MAX`] request numbers over all peers with at most [`SEEN_BYTES_MAX`] of remembered answers,
//! oldest forgotten first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{PeerId, Time, Timers};

use super::api::{CallId, RequestToken};

/// Requests of peers that are remembered at once.
pub(crate) const SEEN_MAX: usize = 4_096;
/// Bytes of answers that are remembered at once.
pub(crate) const SEEN_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Our own requests under way.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    next: u64,
    open: BTreeMap<CallId, Call>,
    deadlines: Timers<CallId>,
}

#[derive(Debug)]
struct Call {
    to: PeerId,
    /// The whole frame, kept to be sent again on a new connection.
    frame: Bytes,
}

impl Calls {
    /// The number of the next call, whatever its kind.
    pub(crate) fn next_id(&mut self) -> CallId {
        self.next += 1;
        CallId(self.next)
    }

    pub(crate) fn open(&mut self, call: CallId, to: PeerId, frame: Bytes, timeout: Duration, now: Time) {
        self.open.insert(call, Call { to, frame });
        self.deadlines.set(call, now + timeout);
    }

    /// Ends a call; false when it had ended before or was never made to this peer.
    pub(crate) fn close(&mut self, call: CallId, from: PeerId) -> bool {
        let ours = self.open.get(&call).is_some_and(|open| open.to == from);
        if ours {
            self.open.remove(&call);
            self.deadlines.cancel(&call);
        }
        ours
    }

    /// Ends a call, whoever was asked; one that was answered already, or that waits for no answer, is none of these.
    pub(crate) fn forget(&mut self, call: CallId) {
        self.open.remove(&call);
        self.deadlines.cancel(&call);
    }

    /// The calls to a peer with their frames, oldest first.
    pub(crate) fn to_peer(&self, peer: PeerId) -> Vec<(CallId, Bytes)> {
        self.open.iter().filter(|(_, call)| call.to == peer).map(|(id, call)| (*id, call.frame.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next_deadline()
    }

    /// Takes a call whose time is over.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<CallId> {
        let (_, call) = self.deadlines.pop_due(now)?;
        self.open.remove(&call);
        Some(call)
    }
}

/// Requests of peers that this node has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    answers: BTreeMap<RequestToken, Option<Bytes>>,
    order: VecDeque<RequestToken>,
    bytes: usize,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Run the handler.
    New,
    /// The handler runs; its answer will be sent.
    Running,
    /// It was answered: repeat this frame.
    Answered(Bytes),
}

impl Seen {
    pub(crate) fn on_request(&mut self, token: RequestToken) -> Verdict {
        match self.answers.get(&token) {
            Some(Some(frame)) => Verdict::Answered(frame.clone()),
            Some(None) => Verdict::Running,
            None => {
                self.answers.insert(token, None);
                self.order.push_back(token);
                self.shrink();
                Verdict::New
            }
        }
    }

    /// Remembers the answer; false when the request is unknown or was answered before.
    pub(crate) fn on_answer(&mut self, token: RequestToken, frame: &Bytes) -> bool {
        match self.answers.get_mut(&token) {
            Some(answer @ None) => {
                *answer = Some(frame.clone());
                self.bytes += frame.len();
                self.shrink();
                true
            }
            _ => false,
        }
    }

    fn shrink(&mut self) {
        while self.order.len() > SEEN_MAX || self.bytes > SEEN_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(Some(frame)) = self.answers.remove(&oldest) {
                self.bytes -= frame.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u64) -> RequestToken {
        RequestToken { from: PeerId::from_bytes([1; 32]), incarnation: 1, id }
    }

    #[test]
    fn a_retried_request_runs_once_and_repeats_its_answer() {
        let mut seen = Seen::default();
        let answer = Bytes::from_static(b"yes");
        assert_eq!(seen.on_request(token(1)), Verdict::New);
        assert_eq!(seen.on_request(token(1)), Verdict::Running);
        assert!(seen.on_answer(token(1), &answer));
        assert!(!seen.on_answer(token(1), &answer), "answered once");
        assert_eq!(seen.on_request(token(1)), Verdict::Answered(answer));
        assert!(!seen.on_answer(token(2), &Bytes::new()), "never asked");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for id in 0..2 * SEEN_MAX as u64 {
            assert_eq!(seen.on_request(token(id)), Verdict::New);
        }
        assert_eq!(seen.answers.len(), SEEN_MAX);
        for id in 0..20 {
            let big = token(1_000_000 + id);
            seen.on_request(big);
            assert!(seen.on_answer(big, &Bytes::from(vec![0; 1_024 * 1_024])));
        }
        assert!(seen.bytes <= SEEN_BYTES_MAX);
    }

    #[test]
    fn a_call_ends_once_and_only_by_the_peer_that_was_asked() {
        let (asked, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let mut calls = Calls::default();
        let call = calls.next_id();
        calls.open(call, asked, Bytes::new(), Duration::from_secs(5), Time::ZERO);
        assert!(!calls.close(call, other));
        assert!(calls.close(call, asked));
        assert!(!calls.close(call, asked));
        assert_eq!(calls.pop_due(Time::MAX), None, "its deadline went with it");
    }
}
