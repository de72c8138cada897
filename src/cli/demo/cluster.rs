//! The nodes of a demonstration, and what can be seen of them from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use meshwork_channels::{ClusterSecret, PeerId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::tally::Received;
use crate::cli::Failure;
use crate::node::{Config, Delivery};
use crate::runtime::{Lagged, Node, Report, Subscription};

/// How long a node may take to say how it is.
const REPORT_MAX: Duration = Duration::from_secs(2);
/// How long the goodbyes may take in all.
const LEAVE_MAX: Duration = Duration::from_secs(8);

/// Bytes of each broadcast.
pub(super) const PAYLOAD_BYTES: usize = 256;

/// The head of a payload: which message it is, and when it was sent.
pub(super) fn payload(number: u32, at: Duration) -> Vec<u8> {
    let mut payload = vec![0; PAYLOAD_BYTES];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    payload[4..12].copy_from_slice(&u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    payload
}

fn read_payload(payload: &[u8]) -> Option<(u32, Duration)> {
    let number = u32::from_le_bytes(*payload.first_chunk::<4>()?);
    let at = u64::from_le_bytes(*payload.get(4..)?.first_chunk::<8>()?);
    (payload.len() == PAYLOAD_BYTES).then(|| (number, Duration::from_nanos(at)))
}

/// A node and what it received.
#[derive(Debug)]
pub(super) struct Citizen {
    pub(super) node: Node,
    received: Arc<Mutex<Received>>,
    /// Whether it was killed.
    pub(super) is_dead: bool,
}

/// Nodes in one process, each with its own thread, socket and key; admitted by a secret that exists only here.
#[derive(Debug)]
pub(super) struct Cluster {
    secret: ClusterSecret,
    config: Config,
    started: Instant,
    pub(super) citizens: Vec<Citizen>,
    /// Who sends which message: the remainder of its number names the sender.
    senders: Arc<Mutex<Vec<PeerId>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(super) fn new(config: Config, secret: ClusterSecret, started: Instant) -> Self {
        Cluster { secret, config, started, citizens: Vec::new(), senders: Arc::default() }
    }

    /// Starts one more node; all but the first join through the first.
    pub(super) async fn start_node(&mut self) -> Result<(), Failure> {
        let mut builder = Node::builder("demo")
            .secret(self.secret.clone())
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .mdns(false)
            .config(self.config.clone());
        if let Some(first) = self.citizens.first() {
            builder = builder.join(first.node.address().to_string());
        }
        let node = builder.start().await.map_err(|error| Failure::new(format!("node {} cannot start: {error}", self.citizens.len())))?;
        let received = Arc::<Mutex<Received>>::default();
        tokio::spawn(collect(node.subscribe(), received.clone(), self.senders.clone(), self.started));
        self.citizens.push(Citizen { node, received, is_dead: false });
        Ok(())
    }

    /// Message `number` comes from the node at `number % senders.len()` of this list.
    pub(super) fn name_senders(&self, senders: &[usize]) {
        *lock(&self.senders) = senders.iter().filter_map(|index| self.citizens.get(*index)).map(|citizen| citizen.node.id()).collect();
    }

    /// Stops a node without a word to anybody.
    pub(super) async fn kill(&mut self, index: usize) {
        if let Some(citizen) = self.citizens.get_mut(index) {
            citizen.node.kill().await;
            citizen.is_dead = true;
        }
    }

    /// What each node received so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.citizens.iter().map(|citizen| lock(&citizen.received).clone()).collect()
    }

    /// How the living nodes are. One that gives no answer is missing.
    pub(super) async fn look(&self) -> Sight {
        let mut reports = BTreeMap::new();
        for (index, citizen) in self.citizens.iter().enumerate().filter(|(_, citizen)| !citizen.is_dead) {
            if let Ok(Ok(report)) = timeout(REPORT_MAX, citizen.node.report()).await {
                reports.insert(index, report);
            }
        }
        Sight { ids: self.citizens.iter().map(|citizen| citizen.node.id()).collect(), reports }
    }

    /// Whether all living nodes hold the same entries.
    pub(super) async fn holds_the_same_entries(&self, keys: usize) -> bool {
        let mut first = None;
        for citizen in self.citizens.iter().filter(|citizen| !citizen.is_dead) {
            let Ok(Ok(entries)) = timeout(REPORT_MAX, citizen.node.state().entries("")).await else { return false };
            if entries.len() != keys || *first.get_or_insert_with(|| entries.clone()) != entries {
                return false;
            }
        }
        true
    }

    /// Says goodbye everywhere.
    pub(super) async fn leave(&self) {
        let mut leaving = JoinSet::new();
        for citizen in self.citizens.iter().filter(|citizen| !citizen.is_dead) {
            let node = citizen.node.clone();
            leaving.spawn(async move { node.leave().await });
        }
        if timeout(LEAVE_MAX, leaving.join_all()).await.is_err() {
            tracing::warn!("some nodes did not stop in time");
        }
    }
}

/// Notes each delivery of a node until it stops.
async fn collect(
    mut deliveries: Subscription<Delivery>,
    received: Arc<Mutex<Received>>,
    senders: Arc<Mutex<Vec<PeerId>>>,
    started: Instant,
) {
    while let Some(delivery) = deliveries.try_next().await {
        let now = started.elapsed();
        match delivery {
            Ok(delivery) => {
                let message = read_payload(&delivery.payload).filter(|(number, _)| {
                    let senders = lock(&senders);
                    let sender = (*number as usize).checked_rem(senders.len()).and_then(|index| senders.get(index));
                    sender == Some(&delivery.id.origin)
                });
                match message {
                    Some((number, at)) => lock(&received).record(number, now.saturating_sub(at)),
                    None => lock(&received).foreign += 1,
                }
            }
            Err(Lagged(lost)) => lock(&received).overlooked += lost,
        }
    }
}

/// The living nodes at one moment, as they say themselves.
#[derive(Debug)]
pub(super) struct Sight {
    ids: Vec<PeerId>,
    pub(super) reports: BTreeMap<usize, Report>,
}

impl Sight {
    /// Whether each of `observers` holds each of `subjects` for up.
    pub(super) fn know(&self, observers: &[usize], subjects: &[usize]) -> bool {
        observers.iter().all(|observer| {
            let up: BTreeSet<PeerId> = self
                .reports
                .get(observer)
                .into_iter()
                .flat_map(|report| &report.members)
                .filter(|member| member.status.is_up())
                .map(|member| member.peer)
                .collect();
            subjects.iter().all(|subject| subject == observer || self.ids.get(*subject).is_some_and(|id| up.contains(id)))
        })
    }

    /// Whether each of `observers` knows that `subject` is gone.
    pub(super) fn miss(&self, observers: &[usize], subject: usize) -> bool {
        let Some(id) = self.ids.get(subject) else { return false };
        observers.iter().all(|observer| {
            self.reports
                .get(observer)
                .is_some_and(|report| !report.members.iter().any(|member| member.peer == *id && member.status.is_up()))
        })
    }

    /// Whether `node` is a neighbor of any of `observers`.
    pub(super) fn is_neighbor(&self, observers: &[usize], node: usize) -> bool {
        let Some(id) = self.ids.get(node) else { return false };
        observers.iter().any(|observer| self.reports.get(observer).is_some_and(|report| report.neighbors.contains(id)))
    }

    /// Whether each of `nodes` has a neighbor, and neighbors connect all of them, by way of living nodes.
    pub(super) fn is_whole(&self, nodes: &[usize]) -> bool {
        let has_neighbors = |node: &usize| self.reports.get(node).is_some_and(|report| !report.neighbors.is_empty());
        let Some(first) = nodes.first() else { return true };
        let mut reached = BTreeSet::from([*first]);
        let mut next = vec![*first];
        while let Some(node) = next.pop() {
            for (other, id) in self.ids.iter().enumerate() {
                let is_link =
                    self.reports.contains_key(&other) && self.reports.get(&node).is_some_and(|report| report.neighbors.contains(id));
                if is_link && reached.insert(other) {
                    next.push(other);
                }
            }
        }
        nodes.iter().all(|node| has_neighbors(node) && reached.contains(node))
    }

    /// Whether all nodes that live hold the same state with so many keys.
    pub(super) fn is_converged(&self, living: usize, keys: usize) -> bool {
        let digests: BTreeSet<(u64, u128)> = self.reports.values().map(|report| (report.digest.keys, report.digest.sum)).collect();
        self.reports.len() == living && digests.len() <= 1 && self.reports.values().all(|report| report.keys == keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_which_message_it_is() {
        let at = Duration::from_micros(1_234_567);
        let bytes = payload(42, at);
        assert_eq!(bytes.len(), PAYLOAD_BYTES);
        assert_eq!(read_payload(&bytes), Some((42, at)));
        assert_eq!(read_payload(&bytes[..255]), None);
        assert_eq!(read_payload(b""), None);
    }
}
