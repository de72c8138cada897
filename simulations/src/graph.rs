//! The overlay as a graph: who is alive, who is whose neighbor, and on whom it hangs.

use crate::invariants::View;

/// The living nodes, in order.
pub(crate) fn living(view: &dyn View) -> Vec<u32> {
    (0..view.nodes()).filter(|node| view.is_alive(*node)).collect()
}

/// The neighbors of every node by its number, in order; those of a dead node are none.
pub(crate) fn neighbors(view: &dyn View) -> Vec<Vec<u32>> {
    (0..view.nodes())
        .map(|node| {
            let mut neighbors = Vec::new();
            if view.is_alive(node) {
                view.visit_neighbors(node, &mut |peer| neighbors.push(peer));
            }
            neighbors.sort_unstable();
            neighbors
        })
        .collect()
}

/// The share of pairs of neighbors that are neighbors of each other, mean over the living nodes.
pub(crate) fn clustering(alive: &[u32], neighbors: &[Vec<u32>]) -> f64 {
    let of = |node: &u32| {
        let view = &neighbors[*node as usize];
        let pairs = view.len() * view.len().saturating_sub(1) / 2;
        let closed = |(at, peer): (usize, &u32)| {
            view[at + 1..].iter().filter(|other| neighbors[*peer as usize].binary_search(other).is_ok()).count()
        };
        view.iter().enumerate().map(closed).sum::<usize>() as f64 / pairs.max(1) as f64
    };
    alive.iter().map(of).sum::<f64>() / alive.len().max(1) as f64
}

/// Into how many pieces the living nodes fall. A link on one side counts.
pub(crate) fn components(alive: &[u32], neighbors: &[Vec<u32>]) -> u32 {
    let mut links: Vec<Vec<u32>> = neighbors.to_vec();
    for (node, of) in (0..).zip(neighbors) {
        of.iter().for_each(|peer| links[*peer as usize].push(node));
    }
    let mut is_found = vec![true; links.len()];
    alive.iter().for_each(|node| is_found[*node as usize] = false);
    let mut pieces = 0;
    for start in alive {
        let mut stack = Vec::new();
        if !std::mem::replace(&mut is_found[*start as usize], true) {
            pieces += 1;
            stack.push(*start);
        }
        while let Some(node) = stack.pop() {
            for peer in &links[node as usize] {
                if !std::mem::replace(&mut is_found[*peer as usize], true) {
                    stack.push(*peer);
                }
            }
        }
    }
    pieces
}

/// The nodes without which others could not reach each other any more (Hopcroft and Tarjan, *Efficient algorithms for graph manipulation*, 1973), in order. A link counts
/// in both directions if one of its ends has it.
pub(crate) fn articulations(neighbors: &[Vec<u32>]) -> Vec<u32> {
    let mut links: Vec<Vec<u32>> = neighbors.to_vec();
    for (node, of) in (0..).zip(neighbors) {
        of.iter().for_each(|peer| links[*peer as usize].push(node));
    }
    let len = links.len();
    // By node: when it was found, from 1, and the earliest that it or what was found through it has a link to.
    let (mut found, mut low) = (vec![0_u32; len], vec![0_u32; len]);
    let mut is_cut = vec![false; len];
    let mut count = 0;
    for root in 0..len as u32 {
        if found[root as usize] > 0 {
            continue;
        }
        let mut children = 0;
        count += 1;
        (found[root as usize], low[root as usize]) = (count, count);
        // Node, the one through which it was found, and its next link.
        let mut path = vec![(root, root, 0_usize)];
        while let Some((node, parent, next)) = path.last_mut() {
            let (node, parent) = (*node, *parent);
            if let Some(peer) = links[node as usize].get(*next).copied() {
                *next += 1;
                if found[peer as usize] == 0 {
                    count += 1;
                    (found[peer as usize], low[peer as usize]) = (count, count);
                    children += u32::from(node == root);
                    path.push((peer, node, 0));
                } else if peer != parent {
                    low[node as usize] = low[node as usize].min(found[peer as usize]);
                }
            } else {
                path.pop();
                if node != root {
                    low[parent as usize] = low[parent as usize].min(low[node as usize]);
                    is_cut[parent as usize] |= parent != root && low[node as usize] >= found[parent as usize];
                }
            }
        }
        is_cut[root as usize] = children > 1;
    }
    (0..len as u32).filter(|node| is_cut[*node as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_nodes(len: usize, links: &[(usize, u32)]) -> Vec<u32> {
        let mut neighbors = vec![Vec::new(); len];
        links.iter().for_each(|(node, peer)| neighbors[*node].push(*peer));
        articulations(&neighbors)
    }

    #[test]
    fn a_path_hangs_on_its_middle_and_a_ring_on_nobody() {
        assert_eq!(cut_nodes(4, &[(0, 1), (1, 2), (2, 3)]), [1, 2]);
        assert_eq!(cut_nodes(4, &[(0, 1), (1, 2), (2, 3), (3, 0)]), [0; 0]);
        assert_eq!(cut_nodes(3, &[(1, 0), (1, 2)]), [1], "whoever has the link");
        assert_eq!(cut_nodes(0, &[]), [0; 0]);
    }

    #[test]
    fn two_rings_hang_on_the_node_that_they_share() {
        let rings = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)];
        assert_eq!(cut_nodes(6, &rings), [2]);
        // With the root in another place, and two pieces.
        assert_eq!(cut_nodes(7, &[(0, 4), (4, 3), (3, 0), (0, 1), (1, 2), (2, 0), (5, 6)]), [0]);
    }
}
