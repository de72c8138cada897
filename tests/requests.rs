//! Requests between two real nodes: asked once, answered in time or not at all, and given up by dropping their future.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::future::Future;
use std::time::Duration;

use meshwork::node::{CallError, Event};
use meshwork::{Error, Node};
use pair::{pair, run, until};

/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(300);

async fn open_calls(node: &Node) -> usize {
    node.report().await.unwrap().open_calls
}

async fn open_requests(node: &Node) -> usize {
    node.report().await.unwrap().open_requests
}

/// Asks in a task, whose end is the end of the question.
fn ask(from: &Node, to: &Node, payload: &'static str) -> tokio::task::JoinHandle<Result<bytes::Bytes, Error>> {
    let (from, to) = (from.clone(), to.id());
    tokio::spawn(async move { from.request(to, payload, LONG).await })
}

#[test]
fn a_dropped_future_is_forgotten_and_its_handler_learns_of_it() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        let question = ask(&a, &b, "work");
        let request = requests.next().await.unwrap();
        assert!(!request.is_cancelled());
        assert_eq!((open_calls(&a).await, open_requests(&b).await), (1, 1));
        question.abort();
        request.cancelled().await;
        assert!(request.is_cancelled());
        request.cancelled().await;
        assert_eq!(open_calls(&a).await, 0);
        assert_eq!(open_requests(&b).await, 1, "the handler has not ended");
        request.respond("in vain").await.unwrap();
        until(async || open_requests(&b).await == 0).await;

        // The next one is none of this, also when it is awaited next to its own cancellation.
        let question = ask(&a, &b, "more work");
        let request = requests.next().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(100), request.cancelled()).await.is_err());
        request.respond("done").await.unwrap();
        assert_eq!(&question.await.unwrap().unwrap()[..], b"done");
    });
}

#[test]
fn a_timeout_is_an_error_here_and_a_cancellation_there() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        let waiting = a.request(b.id(), "anybody?", Duration::from_millis(200));
        let serving = async {
            let request = requests.next().await.unwrap();
            request.cancelled().await;
            request
        };
        let (outcome, request) = tokio::join!(waiting, serving);
        assert_eq!(outcome, Err(Error::Call(CallError::TimedOut)));
        drop(request);
        until(async || open_requests(&b).await == 0).await;
        assert_eq!(open_calls(&a).await, 0);
    });
}

#[test]
fn a_request_whose_connection_breaks_runs_once() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        let question = ask(&a, &b, "once");
        let request = requests.next().await.unwrap();
        let mut events = a.events();
        let mut until_neighbor = async |up: bool| {
            loop {
                match events.next().await.unwrap() {
                    Event::NeighborUp(_) if up => return,
                    Event::NeighborDown(..) if !up => return,
                    _ => {}
                }
            }
        };
        for _ in 0..3 {
            a.break_links().await;
            until_neighbor(false).await;
            until_neighbor(true).await;
        }
        assert!(!request.is_cancelled(), "a broken connection is no cancellation");
        assert!(tokio::time::timeout(Duration::from_millis(200), requests.next()).await.is_err(), "it was handed out once");
        request.respond("yes").await.unwrap();
        assert_eq!(&question.await.unwrap().unwrap()[..], b"yes");
    });
}

#[test]
fn requests_given_up_before_anybody_looked_are_passed_over() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        let questions: Vec<_> = (0..100).map(|_| ask(&a, &b, "never mind")).collect();
        until(async || open_requests(&b).await == 100).await;
        questions.iter().for_each(tokio::task::JoinHandle::abort);
        until(async || open_calls(&a).await == 0).await;
        let question = ask(&a, &b, "this one");
        let request = requests.next().await.unwrap();
        assert_eq!(&request.payload()[..], b"this one", "which was told after the cancellations");
        request.respond("yes").await.unwrap();
        assert_eq!(&question.await.unwrap().unwrap()[..], b"yes");
        until(async || open_requests(&b).await == 0).await;
    });
}

#[test]
fn questions_dropped_at_any_moment_and_requests_dropped_unanswered_leave_nothing() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        // More than the queue of commands has room for, dropped before they were looked at, while they waited, and after they were answered.
        for round in 0..20_u32 {
            let questions: Vec<_> = (0..500).map(|_| ask(&a, &b, "quick")).collect();
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            let dropping: Vec<_> = std::iter::from_fn(|| next_of(&mut requests)).take(100).collect();
            drop(dropping);
            questions.iter().for_each(tokio::task::JoinHandle::abort);
            for question in questions {
                match question.await {
                    // The queue of a request, or of its handler.
                    Ok(outcome) => assert!(matches!(outcome, Err(Error::Call(CallError::Busy | CallError::Full))), "{outcome:?}"),
                    Err(aborted) => assert!(aborted.is_cancelled()),
                }
            }
        }
        until(async || open_calls(&a).await == 0).await;
        let serving = tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                request.respond("yes").await.unwrap();
            }
        });
        until(async || open_requests(&b).await == 0).await;
        // What was asked and dropped may still be on its way, and the queue of the handler is full while it arrives; what were left in it for good would keep it full for good.
        until(async || match a.request(b.id(), "still there?", LONG).await {
            Err(Error::Call(CallError::Busy)) => false,
            answered => {
                assert_eq!(&answered.unwrap()[..], b"yes");
                true
            }
        })
        .await;
        serving.abort();
    });
}

/// The next request, if one is there.
fn next_of(requests: &mut meshwork::runtime::Requests) -> Option<meshwork::runtime::Request> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(requests.next()).poll(&mut context) {
        std::task::Poll::Ready(next) => next,
        std::task::Poll::Pending => None,
    }
}

#[test]
fn who_serves_learns_that_its_node_has_stopped() {
    run(async {
        let (a, b) = pair().await;
        let mut requests = b.serve().await.unwrap();
        let question = ask(&a, &b, "work");
        let request = requests.next().await.unwrap();
        b.kill().await;
        request.cancelled().await;
        assert_eq!(request.respond("too late").await, Err(Error::Stopped));
        question.abort();
    });
}
