//! Calls of the application that wait for an answer, and requests of peers that were seen.
//!
//! A request whose connection breaks is sent again on the next connection to the peer until its time is over, under the same number; the
//! peer recognizes the number, runs its handler once, and repeats the answer that it gave.
//!
//! A request that its application gives up, or whose time is over, is forgotten here at once, and the peer is told if it is connected. The peer lets its handler
//! know and keeps the number, so that a copy that comes late runs nothing. Being told is a favor: what gets lost costs the peer a handler that works in vain. A
//! cancellation of something unknown is forgotten at once; remembering it would let a peer fill the memory, and it may well be of a request that was answered.
//!
//! What peers can make this node store: [`RUNNING_MAX`] numbers of requests that run, further ones being turned down, and [`ANSWERS_MAX`] answers of at most
//! [`ANSWER_BYTES_MAX`] together, oldest forgotten first; a cancelled request that ended counts as an answer of no bytes. One that runs is never forgotten, so its handler runs once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{PeerId, Time, Timers};

use super::api::{CallId, RequestToken};

/// Requests of peers whose handlers run at once.
pub(crate) const RUNNING_MAX: usize = 4_096;
/// Requests of our own that may be under way at once.
pub(super) const CALLS_MAX: usize = 65_536;
/// Answers that are remembered at once.
pub(crate) const ANSWERS_MAX: usize = 4_096;
/// Their bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 * 1_024 * 1_024;

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
    /// How often it was handed to a connection.
    sent: u32,
}

impl Calls {
    /// The number of the next call, whatever its kind.
    pub(crate) fn next_id(&mut self) -> CallId {
        self.next += 1;
        CallId(self.next)
    }

    pub(crate) fn open(&mut self, call: CallId, to: PeerId, frame: Bytes, timeout: Duration, now: Time) {
        self.open.insert(call, Call { to, frame, sent: 0 });
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

    /// Ends a call that its maker gave up; who has to be told of it, if anybody.
    pub(crate) fn cancel(&mut self, call: CallId) -> Option<PeerId> {
        self.deadlines.cancel(&call);
        self.open.remove(&call)?.knows()
    }

    /// Ends a call, whoever was asked; one that was answered already, or that waits for no answer, is none of these.
    pub(crate) fn forget(&mut self, call: CallId) {
        self.open.remove(&call);
        self.deadlines.cancel(&call);
    }

    /// Takes note that a call is handed to a connection, and gives its frame.
    pub(crate) fn send(&mut self, call: CallId) -> Option<Bytes> {
        let call = self.open.get_mut(&call)?;
        call.sent += 1;
        Some(call.frame.clone())
    }

    /// How often a call was handed to a connection; none when it is no request, or over.
    pub(crate) fn times_sent(&self, call: CallId) -> Option<u32> {
        self.open.get(&call).map(|call| call.sent)
    }

    /// The calls to a peer, oldest first.
    pub(crate) fn to_peer(&self, peer: PeerId) -> Vec<CallId> {
        self.open.iter().filter(|(_, call)| call.to == peer).map(|(id, _)| *id).collect()
    }

    /// Whether an answer of this peer is awaited.
    pub(crate) fn awaits(&self, peer: PeerId) -> bool {
        self.open.values().any(|call| call.to == peer)
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next_deadline()
    }

    /// Takes a call whose time is over, with who has to be told of it, if anybody.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(CallId, Option<PeerId>)> {
        let (_, call) = self.deadlines.pop_due(now)?;
        Some((call, self.open.remove(&call).and_then(|open| open.knows())))
    }
}

impl Call {
    /// Who may have heard of the call: nobody, if it never left, or if all that it waited for was a connection.
    fn knows(&self) -> Option<PeerId> {
        (self.sent > 0 && !self.frame.is_empty()).then_some(self.to)
    }
}

/// Requests of peers that this node has seen: those whose handler runs, and the last ones that were answered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Whether each is cancelled.
    running: BTreeMap<RequestToken, bool>,
    /// Without a frame for those that were cancelled before they were answered.
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
    /// Its asker cancelled it, and it ended.
    Over,
    /// As many handlers run as may: turn it down, and forget it.
    Busy,
}

impl Seen {
    pub(crate) fn on_request(&mut self, token: RequestToken) -> Verdict {
        if let Some(answer) = self.answers.get(&token) {
            answer.clone().map_or(Verdict::Over, Verdict::Answered)
        } else if self.running.contains_key(&token) {
            Verdict::Running
        } else if self.running.len() >= RUNNING_MAX {
            Verdict::Busy
        } else {
            self.running.insert(token, false);
            Verdict::New
        }
    }

    /// Remembers the answer; false when there is nobody to send it to: the request is unknown, was answered before, or was cancelled.
    pub(crate) fn on_answer(&mut self, token: RequestToken, frame: &Bytes) -> bool {
        let Some(is_cancelled) = self.running.remove(&token) else { return false };
        let answer = (!is_cancelled).then(|| frame.clone());
        self.bytes += answer.as_ref().map_or(0, Bytes::len);
        self.answers.insert(token, answer);
        self.order.push_back(token);
        while self.order.len() > ANSWERS_MAX || self.bytes > ANSWER_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.answers.remove(&oldest).flatten().map_or(0, |frame| frame.len());
        }
        !is_cancelled
    }

    /// Takes note that nobody waits for the answer any more; whether that is news to a handler that runs.
    pub(crate) fn on_cancel(&mut self, token: RequestToken) -> bool {
        self.running.get_mut(&token).is_some_and(|is_cancelled| !std::mem::replace(is_cancelled, true))
    }

    /// Cancels what other lives of a peer asked than the one that is there now. Those to whom that is news.
    pub(crate) fn on_incarnation(&mut self, peer: PeerId, incarnation: u64) -> Vec<RequestToken> {
        let others =
            self.running.range_mut(of_peer(peer)).filter(|(token, is_cancelled)| token.incarnation != incarnation && !**is_cancelled);
        others
            .map(|(token, is_cancelled)| {
                *is_cancelled = true;
                *token
            })
            .collect()
    }

    /// Handlers that run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether this peer waits for a handler that runs.
    pub(crate) fn serves(&self, peer: PeerId) -> bool {
        self.running.range(of_peer(peer)).any(|(_, is_cancelled)| !is_cancelled)
    }
}

fn of_peer(peer: PeerId) -> RangeInclusive<RequestToken> {
    RequestToken { from: peer, incarnation: 0, id: 0 }..=RequestToken { from: peer, incarnation: u64::MAX, id: u64::MAX }
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
        let big = Bytes::from(vec![0; 1_024 * 1_024]);
        assert_eq!(seen.on_request(token(0)), Verdict::New);
        for id in 1..=2 * ANSWERS_MAX as u64 {
            assert_eq!(seen.on_request(token(id)), Verdict::New);
            assert!(seen.on_answer(token(id), &Bytes::from_static(b"small")));
        }
        assert_eq!(seen.answers.len(), ANSWERS_MAX);
        for id in 1_000_000..1_000_020 {
            seen.on_request(token(id));
            assert!(seen.on_answer(token(id), &big));
        }
        assert!(seen.bytes <= ANSWER_BYTES_MAX);
        assert_eq!(seen.on_request(token(0)), Verdict::Running, "what runs is not forgotten for what was answered");
        assert!(seen.serves(token(0).from));
        assert!(seen.on_answer(token(0), &big));
        assert!(!seen.serves(token(0).from));
    }

    #[test]
    fn a_cancelled_request_is_recognized_and_keeps_no_answer() {
        let mut seen = Seen::default();
        assert!(!seen.on_cancel(token(1)), "nobody asked");
        assert_eq!(seen.on_request(token(1)), Verdict::New, "and nothing was remembered of it");
        assert!(seen.on_cancel(token(1)));
        assert!(!seen.on_cancel(token(1)), "told once");
        assert_eq!(seen.on_request(token(1)), Verdict::Running);
        assert!(!seen.on_answer(token(1), &Bytes::from_static(b"in vain")), "nobody waits");
        assert_eq!((seen.bytes, seen.running()), (0, 0));
        assert_eq!(seen.on_request(token(1)), Verdict::Over);
        assert!(!seen.on_cancel(token(1)));

        assert_eq!(seen.on_request(token(2)), Verdict::New);
        assert!(seen.on_answer(token(2), &Bytes::from_static(b"yes")));
        assert!(!seen.on_cancel(token(2)), "it was answered");
        assert_eq!(seen.on_request(token(2)), Verdict::Answered(Bytes::from_static(b"yes")), "and still is");
    }

    #[test]
    fn what_a_former_life_asked_is_cancelled() {
        let mut seen = Seen::default();
        let of = |peer: u8, incarnation, id| RequestToken { from: PeerId::from_bytes([peer; 32]), incarnation, id };
        for asked in [of(1, 1, 1), of(1, 1, 2), of(1, 2, 1), of(2, 1, 1), of(0, u64::MAX, u64::MAX)] {
            assert_eq!(seen.on_request(asked), Verdict::New);
        }
        assert_eq!(seen.on_incarnation(PeerId::from_bytes([1; 32]), 2), [of(1, 1, 1), of(1, 1, 2)]);
        assert_eq!(seen.on_incarnation(PeerId::from_bytes([1; 32]), 2), []);
    }

    #[test]
    fn only_who_may_have_heard_of_a_call_is_told_of_its_end() {
        let (mut calls, asked) = (Calls::default(), PeerId::from_bytes([1; 32]));
        let open = |calls: &mut Calls, frame| {
            let call = calls.next_id();
            calls.open(call, asked, Bytes::from_static(frame), Duration::from_secs(5), Time::ZERO);
            call
        };
        let (unsent, sent, connect, late) = (open(&mut calls, b"x"), open(&mut calls, b"x"), open(&mut calls, b""), open(&mut calls, b"x"));
        for call in [sent, connect, late] {
            calls.send(call);
        }
        assert_eq!([unsent, sent, connect, sent].map(|call| calls.cancel(call)), [None, Some(asked), None, None]);
        assert_eq!(calls.pop_due(Time::MAX), Some((late, Some(asked))));
        assert_eq!((calls.len(), calls.next_deadline()), (0, None));
    }

    #[test]
    fn as_many_handlers_run_as_may() {
        let mut seen = Seen::default();
        for id in 0..RUNNING_MAX as u64 {
            assert_eq!(seen.on_request(token(id)), Verdict::New);
        }
        assert_eq!(seen.on_request(token(u64::MAX)), Verdict::Busy);
        assert!(!seen.on_answer(token(u64::MAX), &Bytes::new()));
        assert!(seen.on_answer(token(7), &Bytes::new()));
        assert_eq!(seen.on_request(token(u64::MAX)), Verdict::New);
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
