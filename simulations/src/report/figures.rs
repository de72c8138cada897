//! What is known of each metric: what it is, and which way it is worse.

use crate::rare;

/// Which of two values is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worse {
    /// The smaller.
    Less,
    /// The larger.
    More,
    /// Neither: it says what was done, not how well.
    Neither,
}

/// What is known of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Which value is worse.
    pub worse: Worse,
}

const fn figure(name: &'static str, worse: Worse, about: &'static str) -> Figure {
    Figure { name, about, worse }
}

/// All figures.
pub const FIGURES: &[Figure] = &[
    figure("formed", Worse::More, "until the overlay was one piece and everybody knew everybody"),
    figure("settled", Worse::More, "from the start of the quiet phase until everything had come to rest"),
    figure("messages", Worse::Neither, "broadcasts sent"),
    figure("delivery", Worse::Less, "share of the deliveries owed to surviving nodes that were made"),
    figure("delivery_1s", Worse::Less, "the same, within a second of sending"),
    figure("latency_p50", Worse::More, "from sending to delivery, median"),
    figure("latency_p99", Worse::More, "from sending to delivery, 99th percentile"),
    figure("rmr", Worse::More, "copies received beyond the first, per delivery (relative message redundancy)"),
    figure("bytes_per_delivery", Worse::More, "bytes sent for whatever reason, per delivery"),
    figure("grafts", Worse::More, "payloads asked for after an announcement"),
    figure("prunes", Worse::More, "tree links cut after a copy"),
    figure("detection_p50", Worse::More, "from a crash until another node held the crashed one for dead, median"),
    figure("detection_p99", Worse::More, "the same, 99th percentile"),
    figure("detection_max", Worse::More, "the same, slowest"),
    figure("living_held_for_dead", Worse::More, "times that a living node was held for dead"),
    figure("suspicions", Worse::More, "times that a node was suspected"),
    figure("rejoins", Worse::More, "times that a node went on under another generation, because it was held for dead"),
    figure("views_complete", Worse::More, "from the first start until every node knew every other, of those that form the cluster"),
    figure("newcomer_known", Worse::More, "from the start of a node that came later until all others knew it, slowest"),
    figure("newcomer_knows", Worse::More, "from the start of a node that came later until it knew all others, slowest"),
    figure("restart_known", Worse::More, "from the start of a node that had crashed until all others knew it in its new life, slowest"),
    figure("heal", Worse::More, "from the end of a partition until every node knew every other, slowest"),
    figure("sizes_mean", Worse::More, "sizes of the cluster that a node reported since the work began, mean over those that reported any"),
    figure("sizes_max", Worse::More, "the same, most"),
    figure("writes", Worse::Neither, "writes of replicated keys, a batch being one"),
    figure("keys", Worse::Neither, "replicated keys at the end"),
    figure(
        "state_equal",
        Worse::More,
        "from the end of the last partition, or the last write if that was later, until all replicas were equal",
    ),
    figure("facts", Worse::Neither, "what is known of the replicated state at the end: what must be in it, and what must not"),
    figure("lost", Worse::More, "of that, what the replica that is worst lacks"),
    figure("resurrected", Worse::More, "of that, what the replica that is worst holds and must not"),
    figure("state_bytes", Worse::Neither, "bytes of the keys and values of one replica at the end"),
    figure("repaired", Worse::Neither, "entries that were news and came by repair, per node"),
    figure("repair_entries", Worse::More, "entries that were sent to repair, per node"),
    figure("repair_bytes", Worse::More, "bytes that were sent to repair, over the whole run, per node"),
    figure("state_ahead", Worse::More, "by how much the clock of a replica is ahead of the true time at the end, most"),
    figure("collected", Worse::Neither, "removed keys that were forgotten, per node"),
    figure("given_up", Worse::Neither, "entries that nodes gave up for which nobody had waited"),
    figure("crash", Worse::Neither, "crashes"),
    figure("restart", Worse::Neither, "restarts"),
    figure("restored", Worse::Neither, "restarts with the disk of the life before"),
    figure("torn", Worse::Neither, "crashes that took what was written and not synced"),
    figure("leave", Worse::Neither, "goodbyes"),
    figure("pause", Worse::Neither, "pauses"),
    figure("break", Worse::Neither, "breaks of all connections of a node"),
    figure("partition", Worse::Neither, "partitions"),
    figure(
        "one_way",
        Worse::Neither,
        "partitions in one direction; of the overlay alone: links that stand on one side at the end, those included that are just being made or ended",
    ),
    figure("bridge", Worse::Neither, "partitions with nodes on both sides"),
    figure("strike", Worse::Neither, "crashes of those who matter most"),
    figure("slow", Worse::Neither, "times that a node became slow"),
    figure("clog", Worse::Neither, "times that nodes were clogged"),
    figure("weather", Worse::Neither, "times that links became worse"),
    figure("clock", Worse::Neither, "clocks that were set"),
    figure("attack", Worse::Neither, "nodes that turned hostile"),
    figure("tell", Worse::Neither, "inputs that applications were told"),
    figure("datagram_loss", Worse::Neither, "share of the datagrams that were lost until the quiet phase, for whatever reason"),
    figure("datagram_latency", Worse::Neither, "from sending a datagram to its arrival until the quiet phase, mean"),
    figure("datagram_latency_model", Worse::Neither, "the same by the model of the links alone, without queues, pauses and weather"),
    figure("line_up_max", Worse::Neither, "the most that a node's line carried to the network in a second"),
    figure("line_down_max", Worse::Neither, "the most that a node's line carried from the network in a second"),
    figure("losses", Worse::Neither, "packets lost by the network"),
    figure("frames", Worse::More, "frames sent on streams"),
    figure("frames_lost", Worse::More, "frames on connections that were gone"),
    figure("datagrams", Worse::More, "datagrams sent"),
    figure("dials", Worse::More, "dials"),
    figure("dials_failed", Worse::More, "dials that failed"),
    figure("bytes_per_node", Worse::More, "bytes that a node sent, mean over nodes and time"),
    figure("degree_min", Worse::Less, "fewest neighbors of a living node at the end"),
    figure("degree_mean", Worse::Neither, "neighbors of a living node at the end, mean"),
    figure("degree_max", Worse::More, "most neighbors of a living node at the end"),
    figure("unreachable", Worse::More, "pairs of living nodes without a path at the end"),
    figure("node_sent_p50", Worse::More, "bytes that one node sent over the whole run, median"),
    figure("node_sent_max", Worse::More, "the same, most"),
    figure("node_received_p50", Worse::More, "bytes that reached one node over the whole run, median"),
    figure("node_received_max", Worse::More, "the same, most"),
    figure("ldh_mean", Worse::More, "links that the farthest delivery of a broadcast crossed (last delivery hop), mean over broadcasts"),
    figure("ldh_max", Worse::More, "the same, most"),
    figure("latency_ms_mean", Worse::More, "from sending to the last delivery of a broadcast, mean over broadcasts"),
    figure("latency_ms_max", Worse::More, "the same, slowest"),
    figure("control", Worse::More, "frames that announce, ask for, prune or report, per broadcast"),
    figure("rmr_1", Worse::More, "copies received beyond the first per delivery, of the first broadcast"),
    figure("rmr_2", Worse::More, "the same, of the second broadcast"),
    figure("rmr_3", Worse::More, "the same, of the third broadcast"),
    figure("links_new", Worse::More, "neighbors that nodes took after the first broadcast that is measured"),
    figure("first_1s", Worse::Less, "of the first broadcast after the failure: share of the survivors that had it within a second"),
    figure("first_10s", Worse::Less, "the same, within ten seconds"),
    figure("healed", Worse::More, "from the failure until every broadcast reached all survivors within a second"),
    figure("healed_cycles", Worse::More, "the same in membership cycles, which are periods of the shuffle"),
    figure("isolated_max", Worse::More, "the longest that a living node was without a living neighbor"),
    figure("full_views", Worse::Less, "share of the nodes with as many neighbors as a view holds"),
    figure("avg_path", Worse::More, "links on the shortest path between two living nodes, mean"),
    figure("diameter", Worse::More, "the same, longest"),
    figure("hostile_share", Worse::More, "share of hostile nodes among the neighbors of all others"),
    figure("misbehaved", Worse::Neither, "times that a node said that another had broken a rule"),
    figure("eclipsed", Worse::More, "nodes whose neighbors are all hostile"),
    figure("tree_pieces", Worse::More, "pieces into which the links of the tree tie the nodes at the end"),
    figure("tree_circles", Worse::More, "links of the tree that could go without one of them falling apart"),
    figure("contact_frames", Worse::More, "messages about links that the first node sent until the work began, per node that joined"),
    figure("contact_evictions", Worse::More, "the most neighbors that it gave up for others in a second"),
    figure("reunited", Worse::More, "from the end of the last partition until the overlay was one piece again"),
    figure("components", Worse::More, "pieces of the overlay at the end"),
    figure("largest", Worse::Less, "nodes of the largest of them"),
    figure("clustering", Worse::Neither, "share of pairs of neighbors that are neighbors of each other, mean over nodes"),
    figure("clustering_sampled", Worse::Neither, "the same, mean over some nodes"),
    figure("deadlines", Worse::More, "deadlines that nodes handled"),
    figure("view_messages", Worse::More, "messages of the partial views"),
    figure("payloads", Worse::More, "payloads received, the needed ones included"),
    figure("announcements", Worse::More, "messages that announce payloads"),
    figure("memory", Worse::More, "the most memory that the process took"),
    figure("memory_per_node", Worse::More, "the same by the number of nodes"),
];

/// What is known of a metric; of an unknown one nothing but its name.
pub fn figure_of(name: &'static str) -> Figure {
    let about = || rare::of_metric(name).map_or("", rare::about);
    FIGURES.iter().copied().find(|figure| figure.name == name).unwrap_or_else(|| figure(name, Worse::Neither, about()))
}

/// Whether some run has a metric of this name.
pub fn is_known(name: &str) -> bool {
    FIGURES.iter().any(|figure| figure.name == name) || rare::of_metric(name).is_some()
}

/// What a metric is, in words with a capital letter.
pub(super) fn about(name: &str) -> String {
    let about = FIGURES.iter().find(|figure| figure.name == name).map_or(name, |figure| figure.about);
    let mut letters = about.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Which way a metric is worse.
pub fn worse_of(name: &str) -> Worse {
    FIGURES.iter().find(|figure| figure.name == name).map_or(Worse::Neither, |figure| figure.worse)
}
