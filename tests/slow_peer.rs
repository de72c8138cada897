//! A neighbor that is alive in every way and does not read costs itself its place, and the others nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use meshwork::channels::quic::CloseCode;
use meshwork::node::{Config, Event, Kind};
use meshwork::overlay::plumtree;
use meshwork::{Node, PeerId};
use support::puppet::{Appetite, Puppet};
use support::{mesh, neighbors, within_patience};

/// Healthy nodes; everybody is everybody's neighbor.
const NODES: usize = 4;
const PAYLOAD_BYTES: usize = 4_096;
const EVERY: Duration = Duration::from_millis(5);

/// What this process may grow by because of the slow peer. For each of the healthy nodes: the queues to one peer (3 MiB of events), what the
/// writer holds (64 KiB a channel), the copies for retransmission that the peer's window allows (2 MiB), the same window as it lies unread in
/// the puppet, which lives in this process too; twice, because a closed connection may live on beside its successor for a moment; and 16 MiB for
/// an allocator that gives little back.
const GROWTH_BYTES_MAX: usize = NODES * 2 * (3 + 1 + 2 + 2) * 1_024 * 1_024 + 16 * 1_024 * 1_024;

/// The ratio that the long run demands.
const RATIO_MAX: f64 = 1.20;

fn config() -> Config {
    // What is kept for latecomers would grow all through a short run and hide what the slow peer costs.
    let broadcast = plumtree::Config { payload_bytes_max: 2 * 1_024 * 1_024, ..plumtree::Config::default() };
    Config { topology: Kind::Mesh, broadcast, ..Config::default() }
}

/// In the order of arrival: the number of a message, and how long it took.
type Arrivals = Vec<(u64, Duration)>;

/// Steady broadcasts of the first node, and what the others receive.
struct Load {
    origin: Instant,
    sent: u64,
    /// One for each receiver.
    received: Arc<Mutex<Vec<Arrivals>>>,
}

impl Load {
    fn new(nodes: &[Node]) -> Self {
        let origin = Instant::now();
        let received = Arc::new(Mutex::new(vec![Vec::new(); nodes.len() - 1]));
        for (index, node) in nodes[1..].iter().enumerate() {
            let (mut inbox, received) = (node.subscribe(), received.clone());
            tokio::spawn(async move {
                while let Some(message) = inbox.try_next().await {
                    let message = message.expect("the subscriber keeps up");
                    let (number, head) = message.payload.split_first_chunk().unwrap();
                    let sent_at = Duration::from_nanos(u64::from_be_bytes(*head.first_chunk().unwrap()));
                    let took = origin.elapsed() - sent_at;
                    received.lock().unwrap()[index].push((u64::from_be_bytes(*number), took));
                }
            });
        }
        Load { origin, sent: 0, received }
    }

    /// Broadcasts for a while, and answers the latencies of these messages once all have arrived, sorted.
    async fn run(&mut self, node: &Node, duration: Duration) -> Vec<Duration> {
        let first = self.sent;
        let mut beat = tokio::time::interval(EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = Instant::now() + duration;
        while Instant::now() < end {
            beat.tick().await;
            let mut payload = vec![0; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&self.sent.to_be_bytes());
            // Taken before the call: what the application waits for counts.
            payload[8..16].copy_from_slice(&(self.origin.elapsed().as_nanos() as u64).to_be_bytes());
            node.broadcast(payload).await.unwrap();
            self.sent += 1;
        }
        within_patience("all messages at all healthy nodes", async || {
            self.received.lock().unwrap().iter().all(|received| received.len() as u64 >= self.sent)
        })
        .await;
        let received = self.received.lock().unwrap();
        let mut took: Vec<Duration> = received.iter().flatten().filter(|(number, _)| *number >= first).map(|(_, took)| *took).collect();
        took.sort_unstable();
        took
    }

    fn assert_exactly_once(&self) {
        for received in self.received.lock().unwrap().iter() {
            let numbers: BTreeSet<u64> = received.iter().map(|(number, _)| *number).collect();
            assert_eq!(received.len() as u64, self.sent, "each message once");
            assert_eq!(numbers, (0..self.sent).collect(), "each message");
        }
    }
}

/// What the nodes say about each other and about the slow peer.
#[derive(Default)]
struct Told {
    slow: Vec<PeerId>,
    down: Vec<PeerId>,
    failed: Vec<PeerId>,
}

fn listen(nodes: &[Node]) -> Arc<Mutex<Told>> {
    let told = Arc::new(Mutex::new(Told::default()));
    for node in nodes {
        let (mut events, told) = (node.events(), told.clone());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut told = told.lock().unwrap();
                match event {
                    Event::SlowPeer(peer) => told.slow.push(peer),
                    Event::NeighborDown(peer, _) => told.down.push(peer),
                    Event::MemberFailed(member) => told.failed.push(member.peer),
                    _ => {}
                }
            }
        });
    }
    told
}

/// The quantile of a sorted list.
fn quantile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

async fn queued_bytes(nodes: &[Node], peer: PeerId) -> usize {
    let mut most = 0;
    for node in nodes {
        let report = node.report().await.unwrap();
        most = report.links.iter().filter(|link| link.peer == peer).map(|link| link.queued_bytes).chain([most]).max().unwrap();
    }
    most
}

struct Outcome {
    baseline: Vec<Duration>,
    slow: Vec<Duration>,
}

async fn starve(appetite: Appetite, baseline: Duration, slow: Duration) -> Outcome {
    let nodes = mesh(NODES, &config()).await;
    let puppet = Puppet::start(&config(), nodes[0].address());
    neighbors(&nodes, NODES).await;
    let mut load = Load::new(&nodes);
    // The first second fills what is kept and warms what is lazy.
    load.run(&nodes[0], Duration::from_secs(1)).await;
    let told = listen(&nodes);
    let baseline = load.run(&nodes[0], baseline).await;
    assert!(told.lock().unwrap().slow.is_empty(), "nobody is slow while everybody reads");
    let delivered = puppet.seen.delivered.load(std::sync::atomic::Ordering::SeqCst);
    assert!(delivered > 0, "the puppet is a part of the cluster");

    let before = resident_bytes();
    let peak = Arc::new(Mutex::new((before, 0)));
    let watching = tokio::spawn({
        let (peak, nodes, peer) = (peak.clone(), nodes.clone(), puppet.peer);
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = (resident_bytes(), queued_bytes(&nodes, peer).await);
                let mut peak = peak.lock().unwrap();
                *peak = (peak.0.max(now.0), peak.1.max(now.1));
            }
        }
    });
    puppet.set_appetite(appetite);
    let slow = load.run(&nodes[0], slow).await;
    watching.abort();
    load.assert_exactly_once();

    let (resident, queued) = *peak.lock().unwrap();
    let growth_bytes = resident - before;
    let closed = puppet.seen.closed_with(CloseCode::TooSlow);
    {
        let told = told.lock().unwrap();
        for (name, phase) in [("baseline", &baseline), ("slow peer", &slow)] {
            println!(
                "{appetite:?} {name}: {} latencies, p50 {:?}, p99 {:?}, max {:?}",
                phase.len(),
                quantile(phase, 0.5),
                quantile(phase, 0.99),
                phase[phase.len() - 1]
            );
        }
        println!(
            "{appetite:?}: memory grew by {} KiB, at most {} KiB waited for the slow peer, it was reported {} times and closed {closed} times",
            growth_bytes / 1_024,
            queued / 1_024,
            told.slow.len()
        );
        assert!(!told.slow.is_empty(), "the slow peer is reported");
        assert!(closed > 0, "and told why it loses its connection");
        for (what, peers) in [("slow", &told.slow), ("lost", &told.down), ("dead", &told.failed)] {
            assert!(peers.iter().all(|peer| *peer == puppet.peer), "a healthy node was held for {what}");
        }
    }
    assert!(queued > 512 * 1_024, "the queues to the slow peer filled: {queued}");
    assert!(growth_bytes <= GROWTH_BYTES_MAX, "{growth_bytes} bytes more than before");
    for node in &nodes {
        assert_eq!(node.report().await.unwrap().stalls, 0);
    }
    Outcome { baseline, slow }
}

/// One at a time: they measure the memory of this process.
static TURN: Mutex<()> = Mutex::new(());

fn run(appetite: Appetite) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let long = std::env::var("MESHWORK_SLOW_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (baseline, slow) = long.map_or((Duration::from_millis(1_500), Duration::from_secs(11)), |long| (long / 2, long));
        let outcome = starve(appetite, baseline, slow).await;
        if long.is_some() {
            let ratio = quantile(&outcome.slow, 0.99).as_secs_f64() / quantile(&outcome.baseline, 0.99).as_secs_f64();
            println!("{appetite:?}: p99 with a slow peer is {ratio:.2} times that of the baseline");
            assert!(ratio <= RATIO_MAX, "{ratio:.2} is above {RATIO_MAX}");
        }
    });
}

#[test]
fn a_neighbor_that_leaves_one_channel_unread() {
    run(Appetite::NoEvents);
}

#[test]
fn a_neighbor_that_reads_nothing() {
    run(Appetite::Nothing);
}

#[test]
fn a_neighbor_that_reads_crumbs() {
    run(Appetite::Crumbs);
}
