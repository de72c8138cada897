//! The links in the end, and what they are worth.

use meshwork_channels::random::hash;
use serde::Serialize;

/// Nodes from which the paths are measured; from all of them it would take longer than the run.
const SOURCES: u32 = 64;
/// Up to so many nodes the clustering is that of all of them; above, of a sample of this size.
const CLUSTERING_EXACT_MAX: u32 = 100_000;
const SOURCE: u64 = 0x6ea9_0001;
const SAMPLE: u64 = 0x6ea9_0002;
/// Not reached.
const FAR: u8 = u8::MAX;

/// The links in the end.
#[derive(Clone, Debug, Serialize)]
pub struct Graph {
    /// Nodes that live.
    pub nodes: u32,
    /// How many pieces it has.
    pub components: u32,
    /// Nodes of the largest.
    pub largest: u32,
    /// Links that stand on one side only: who holds it, and whom it leads to.
    pub one_way: Vec<(u32, u32)>,
    /// By number of neighbors: how many nodes have so many.
    pub degrees: Vec<u32>,
    /// Nodes with more neighbors than a view may have.
    pub overfull: u32,
    /// The share of pairs of neighbors that are neighbors of each other, the mean over the nodes.
    pub clustering: f64,
    /// Whether that is of all nodes, not of a sample.
    pub clustering_exact: bool,
    /// Links between two nodes, in the mean, from a sample of nodes.
    pub path_mean: f64,
    /// The longest of these ways.
    pub path_max: u32,
    /// By number of links: how many of these ways have so many; index 0 is unused.
    pub paths: Vec<u64>,
    /// From how many nodes they lead.
    pub sources: u32,
    #[serde(skip)]
    component: Vec<u32>,
    #[serde(skip)]
    largest_name: u32,
}

impl Graph {
    /// Measures the links of so many nodes; those that do not live have none to show.
    pub(super) fn new<'a>(nodes: u32, seed: u64, len_max: usize, neighbors: impl Fn(u32) -> Option<&'a [u32]>) -> Self {
        let mut starts = Vec::with_capacity(nodes as usize + 1);
        let mut links: Vec<u32> = Vec::with_capacity(nodes as usize * len_max);
        let mut degrees = vec![0; len_max + 1];
        let mut overfull = 0;
        let lives: Vec<bool> = (0..nodes).map(|node| neighbors(node).is_some()).collect();
        let living: Vec<u32> = (0..nodes).filter(|node| lives[*node as usize]).collect();
        // Links to nodes that are gone tie nothing together.
        let mut one_way: Vec<(u32, u32)> = Vec::new();
        for node in 0..nodes {
            starts.push(links.len());
            let Some(view) = neighbors(node) else { continue };
            for peer in view.iter().copied() {
                if lives[peer as usize] {
                    links.push(peer);
                } else {
                    one_way.push((node, peer));
                }
            }
            match degrees.get_mut(view.len()) {
                Some(count) => *count += 1,
                None => overfull += 1,
            }
        }
        starts.push(links.len());
        let of = |node: u32| &links[starts[node as usize]..starts[node as usize + 1]];

        let both = (0..nodes).flat_map(|node| of(node).iter().map(move |peer| (node, *peer)));
        one_way.extend(both.filter(|(node, peer)| of(*peer).binary_search(node).is_err()));
        let (component, sizes) = components(nodes, &living, of);
        let (largest_name, largest) =
            (0_u32..).zip(&sizes).max_by_key(|(name, size)| (**size, u32::MAX - *name)).map_or((0, 0), |(name, size)| (name, *size));

        let count = living.len() as u32;
        let clustering_exact = count <= CLUSTERING_EXACT_MAX;
        let drawn = |purpose, index: u32| living[(hash(&[seed, purpose, u64::from(index)]) % u64::from(count.max(1))) as usize];
        let clustering: f64 = (0..count.min(CLUSTERING_EXACT_MAX))
            .map(|index| {
                let view = of(if clustering_exact { living[index as usize] } else { drawn(SAMPLE, index) });
                let pairs = view.len() * view.len().saturating_sub(1) / 2;
                let closed =
                    view.iter().enumerate().map(|(at, a)| view[at + 1..].iter().filter(|b| of(*a).binary_search(b).is_ok()).count());
                closed.sum::<usize>() as f64 / pairs.max(1) as f64
            })
            .sum();

        let mut paths: Vec<u64> = Vec::new();
        let mut distance = vec![FAR; nodes as usize];
        let mut queue = Vec::new();
        let sources: Vec<u32> = if count <= SOURCES { living.clone() } else { (0..SOURCES).map(|index| drawn(SOURCE, index)).collect() };
        for source in sources.iter().copied() {
            distance.fill(FAR);
            distance[source as usize] = 0;
            queue.clear();
            queue.push(source);
            let mut at = 0;
            while let Some(node) = queue.get(at).copied() {
                at += 1;
                let next = distance[node as usize].saturating_add(1).min(FAR - 1);
                for peer in of(node) {
                    if distance[*peer as usize] == FAR {
                        distance[*peer as usize] = next;
                        queue.push(*peer);
                        if paths.len() <= usize::from(next) {
                            paths.resize(usize::from(next) + 1, 0);
                        }
                        paths[usize::from(next)] += 1;
                    }
                }
            }
        }
        let pairs: u64 = paths.iter().sum();
        let hops: u64 = paths.iter().zip(0..).map(|(count, length): (&u64, u64)| count * length).sum();
        Graph {
            nodes: count,
            components: sizes.len() as u32,
            largest,
            one_way,
            degrees,
            overfull,
            clustering: clustering / f64::from(count.clamp(1, CLUSTERING_EXACT_MAX)),
            clustering_exact,
            path_mean: hops as f64 / pairs.max(1) as f64,
            path_max: paths.len().saturating_sub(1) as u32,
            paths,
            sources: sources.len() as u32,
            component,
            largest_name,
        }
    }

    /// Whether a node lives and belongs to the largest component.
    pub fn is_in_largest(&self, node: u32) -> bool {
        self.component.get(node as usize) == Some(&self.largest_name)
    }
}

/// By node: the name of its component, and the sizes by name. A link on one side only ties nothing together that it would not tie in the other
/// direction, so a component is what is reached from its smallest node. Nodes that do not live are in none.
fn components<'a>(nodes: u32, living: &[u32], of: impl Fn(u32) -> &'a [u32]) -> (Vec<u32>, Vec<u32>) {
    let mut component = vec![u32::MAX; nodes as usize];
    let mut sizes = Vec::new();
    let mut stack = Vec::new();
    for start in living.iter().copied() {
        if component[start as usize] != u32::MAX {
            continue;
        }
        let name = sizes.len() as u32;
        component[start as usize] = name;
        stack.push(start);
        let mut size = 0;
        while let Some(node) = stack.pop() {
            size += 1;
            for peer in of(node) {
                if component[*peer as usize] == u32::MAX {
                    component[*peer as usize] = name;
                    stack.push(*peer);
                }
            }
        }
        sizes.push(size);
    }
    (component, sizes)
}
