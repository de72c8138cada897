//! An application that lives beside the node, on its thread, and the handle of its owner.
//!
//! The driver knows it as something that is [`Driven`]. Between the two stands a guard: a panic of the application ends the application and not the node. The owner is told, and decides
//! what becomes of the node.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};

use meshwork_channels::{Now, PeerId, Time};
use tokio::sync::broadcast;
use tracing::error;

use super::{Command, Node};
use crate::app::{Application, Runner};
use crate::node::{self, Action};

/// Outputs that an owner may fall behind before it loses some.
const OUTPUTS_MAX: usize = 16_384;

/// An input on its way to an application; which type it has, the two ends know.
pub(crate) type AnyInput = Box<dyn Any + Send>;

/// An application as the driver sees it.
pub(super) trait Driven: Send {
    /// The node begins to live.
    fn start(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>);
    /// The owner told something.
    fn tell(&mut self, input: AnyInput, node: &mut node::Node, now: Now, actions: &mut Vec<Action>);
    /// The node decided something.
    fn react(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>);
    /// When its next alarm is due.
    fn next_deadline(&self) -> Option<Time>;
    /// Its next alarm is due.
    fn on_deadline(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>);
}

/// An application until it panics.
struct Guard<A: Application> {
    runner: Option<Runner<A>>,
    outputs: broadcast::Sender<A::Output>,
    panicked: Arc<OnceLock<String>>,
}

impl<A: Application<Output: Clone>> Guard<A> {
    fn call(&mut self, peer: PeerId, call: impl FnOnce(&mut Runner<A>)) {
        let Some(runner) = &mut self.runner else { return };
        let called = catch_unwind(AssertUnwindSafe(|| call(runner)));
        for output in runner.take_outputs() {
            // Nobody listens any more.
            let _ = self.outputs.send(output);
        }
        let Err(panic) = called else { return };
        if runner.is_in_node() {
            // Ours, and nobody knows what the node is worth after it.
            resume_unwind(panic);
        }
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        let said = said.unwrap_or_else(|| "without a word".to_owned());
        error!(peer = %peer.short(), panic = said, "the application panicked; the node goes on without it");
        // Told before the outputs end.
        let _ = self.panicked.set(said);
        let runner = self.runner.take();
        // What it holds may panic too when it is dropped, and nothing more is known then.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(runner)));
        self.outputs = broadcast::Sender::new(1);
    }
}

impl<A: Application<Input: Send + 'static, Output: Clone + Send> + Send> Driven for Guard<A> {
    fn start(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>) {
        self.call(node.id(), |runner| runner.start(node, now, actions));
    }

    fn tell(&mut self, input: AnyInput, node: &mut node::Node, now: Now, actions: &mut Vec<Action>) {
        let input = input.downcast::<A::Input>().expect("only the handle of this application makes inputs");
        self.call(node.id(), |runner| runner.tell(*input, node, now, actions));
    }

    fn react(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>) {
        self.call(node.id(), |runner| runner.react(node, now, actions));
    }

    fn next_deadline(&self) -> Option<Time> {
        self.runner.as_ref()?.next_deadline()
    }

    fn on_deadline(&mut self, node: &mut node::Node, now: Now, actions: &mut Vec<Action>) {
        self.call(node.id(), |runner| runner.on_deadline(node, now, actions));
    }
}

/// An application for the driver, and what makes the handle of its owner once the node runs.
pub(super) fn hosted<A>(app: A, seed: u64) -> (Box<dyn Driven>, impl FnOnce(Node) -> Running<A>)
where
    A: Application<Input: Send + 'static, Output: Clone + Send> + Send + 'static,
{
    let (sender, outputs) = broadcast::channel(OUTPUTS_MAX);
    let panicked = Arc::new(OnceLock::new());
    let guard = Guard { runner: Some(Runner::new(app, seed)), outputs: sender, panicked: panicked.clone() };
    (Box::new(guard), move |node| Running { node, outputs, lost: 0, panicked })
}

/// A running application, for its owner. Started by [`Builder::start_with`](super::Builder::start_with).
pub struct Running<A: Application> {
    node: Node,
    outputs: broadcast::Receiver<A::Output>,
    lost: u64,
    panicked: Arc<OnceLock<String>>,
}

/// Why an application cannot be told anything any more. The call had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TellError {
    /// The node has stopped.
    Stopped,
    /// The application panicked with these words. The node goes on without it.
    Panicked(String),
}

impl fmt::Display for TellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TellError::Stopped => super::Stopped.fmt(f),
            TellError::Panicked(said) => write!(f, "the application panicked: {said}"),
        }
    }
}

impl std::error::Error for TellError {}

impl<A: Application<Input: Send + 'static, Output: Clone>> Running<A> {
    /// The node, for everything else.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Tells the application something; done when it is queued. Waits while 1,024 inputs and writes wait, or while the queues to neighbors that keep up are more than half
    /// full.
    ///
    /// # Errors
    ///
    /// [`TellError`]. One that is queued when the application panics is lost.
    pub async fn tell(&self, input: A::Input) -> Result<(), TellError> {
        if let Some(said) = self.panicked() {
            return Err(TellError::Panicked(said.to_owned()));
        }
        // The first queue that is closed when a node stops.
        if self.node.shared.commands.is_closed() {
            return Err(TellError::Stopped);
        }
        self.node.shared.writes.send(Command::Tell(Box::new(input))).await.map_err(|_| TellError::Stopped)
    }

    /// The next output; none once the node has stopped or the application has panicked. An owner that falls behind by 16,384 outputs loses the oldest: [`Running::lost`] counts
    /// them. Safe to cancel.
    pub async fn next(&mut self) -> Option<A::Output> {
        loop {
            match self.outputs.recv().await {
                Ok(output) => return Some(output),
                Err(broadcast::error::RecvError::Lagged(lost)) => self.lost += lost,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Outputs that were lost so far, because they were not taken.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What the application said when it panicked; none if it did not.
    pub fn panicked(&self) -> Option<&str> {
        self.panicked.get().map(String::as_str)
    }
}

impl<A: Application> fmt::Debug for Running<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("node", &self.node).field("lost", &self.lost).finish_non_exhaustive()
    }
}
