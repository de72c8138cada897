//! What the application gives up without a word: questions whose future is dropped, and requests that are dropped unanswered.
//!
//! Dropping cannot wait for room in the queue of commands, so it leaves a note here instead. The notes need no bound of their own: each is of a call or of a
//! request that was open, leaves when the loop turns, and is left once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::node::{CallId, RequestToken};

/// Something that the application gave up.
pub(crate) enum Abandoned {
    /// Nobody waits for the answer to this question.
    Call(CallId),
    /// Nobody will answer this request.
    Request(RequestToken),
}

/// The notes.
#[derive(Default)]
pub(crate) struct GivenUp {
    notes: Mutex<Vec<Abandoned>>,
    left: Notify,
}

impl std::fmt::Debug for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenUp")
    }
}

impl GivenUp {
    pub(super) fn leave(&self, note: Abandoned) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
        self.left.notify_one();
    }

    /// Waits until there is something to take.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    pub(super) fn take(&self) -> Vec<Abandoned> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The number of a question, for both sides of the queue of commands: whoever comes second learns what the other one did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ticket(Arc<AtomicU64>);

/// No call has these numbers.
const UNASKED: u64 = 0;
const GONE: u64 = u64::MAX;

impl Ticket {
    /// Says that the question was asked under this number; false when nobody waits for it any more.
    pub(super) fn asked(&self, call: CallId) -> bool {
        self.0.compare_exchange(UNASKED, call.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn abandon(&self) -> Option<CallId> {
        let call = self.0.swap(GONE, Ordering::AcqRel);
        (call != UNASKED && call != GONE).then_some(CallId(call))
    }
}

/// Somebody who waits for an answer; dropped before it came, leaves a note.
pub(super) struct Waiting<'a> {
    ticket: Ticket,
    given_up: &'a GivenUp,
    is_over: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(given_up: &'a GivenUp) -> Self {
        Waiting { ticket: Ticket::default(), given_up, is_over: false }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// The answer came.
    pub(super) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(call) = self.ticket.abandon()
        {
            self.given_up.leave(Abandoned::Call(call));
        }
    }
}
