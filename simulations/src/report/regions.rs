//! How long deliveries took from region to region, beside what the model of the network takes one way.

use std::fmt::Write;

use super::svg::{self, escape};
use crate::network::Network;
use crate::plan::Plan;
use crate::record::Record;
use crate::run::percentile;

/// Shades of a table.
const SHADES: f64 = 5.0;

/// The deliveries from one region to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// How many.
    pub deliveries: u64,
    /// The median from sending to delivery, in microseconds.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// What the network takes one way between the two nodes of a delivery before jitter and loss, the median over the deliveries.
    pub model: u64,
}

/// The regions of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    /// Their names, those in which a node lives.
    pub names: Vec<&'static str>,
    /// How many nodes live in each.
    pub nodes: Vec<u32>,
    /// By the region of the sender, and in it by that of the receiver; none where nothing was delivered.
    pub cells: Vec<Vec<Option<Cell>>>,
}

impl Regions {
    /// Of a run that is over; none when its network has no regions.
    pub fn new(plan: &Plan, record: &Record) -> Option<Self> {
        let setup = &plan.setup;
        let network = Network::shaped(setup.seed, setup.nodes, setup.link, setup.shape);
        let len = network.regions().len();
        if len == 0 {
            return None;
        }
        let of: Vec<usize> = (0..setup.nodes).map(|node| network.region(node)).collect();
        let mut found = vec![vec![(Vec::new(), Vec::new()); len]; len];
        for (_, message) in record.messages() {
            for arrival in &message.arrivals {
                let (took, model) = &mut found[of[message.sender as usize]][of[arrival.node as usize]];
                took.push(u64::from(arrival.micros));
                model.push(network.latency(message.sender, arrival.node));
            }
        }
        let lived: Vec<usize> = (0..len).filter(|region| of.contains(region)).collect();
        let cell = |(took, model): &mut (Vec<u64>, Vec<u64>)| {
            took.sort_unstable();
            model.sort_unstable();
            let deliveries = took.len() as u64;
            (deliveries > 0).then(|| Cell {
                deliveries,
                p50: percentile(took, 50),
                p99: percentile(took, 99),
                model: percentile(model, 50),
            })
        };
        Some(Regions {
            names: lived.iter().map(|region| network.regions()[*region]).collect(),
            nodes: lived.iter().map(|region| of.iter().filter(|other| *other == region).count() as u32).collect(),
            cells: lived.iter().map(|from| lived.iter().map(|to| cell(&mut found[*from][*to])).collect()).collect(),
        })
    }

    /// The cells in which something was delivered, with the places of their regions.
    pub fn filled(&self) -> impl Iterator<Item = (usize, usize, Cell)> {
        let row = |(from, row): (usize, &'_ Vec<Option<Cell>>)| {
            row.iter().enumerate().filter_map(move |(to, cell)| Some((from, to, (*cell)?))).collect::<Vec<_>>()
        };
        self.cells.iter().enumerate().flat_map(row)
    }

    /// As a table, the darker the longer it took.
    pub(super) fn table(&self, page: &mut String) {
        let ends = self.filled().fold((u64::MAX, 0), |(least, most), (.., cell)| (least.min(cell.p50), most.max(cell.p50)));
        let span = (ends.1.saturating_sub(ends.0)).max(1) as f64;
        page.push_str("<div class=\"scroll\"><table id=\"regions\"><thead><tr><th>from, to</th>");
        for (name, nodes) in self.names.iter().zip(&self.nodes) {
            put!(page, "<th class=\"number\">{}<br/><span>{nodes} nodes</span></th>", escape(name));
        }
        page.push_str("</tr></thead><tbody>");
        // Three digits say enough.
        let millis = |micros: u64| match micros as f64 / 1e3 {
            small if small < 10.0 => svg::millis((small * 10.0).round() / 10.0),
            middle if middle < 1e3 => svg::millis(middle.round()),
            large => svg::seconds((large / 10.0).round() / 100.0),
        };
        for (name, row) in self.names.iter().zip(&self.cells).filter(|(_, row)| row.iter().any(Option::is_some)) {
            put!(page, "<tr><th>{}</th>", escape(name));
            for cell in row {
                match cell {
                    None => page.push_str("<td></td>"),
                    Some(Cell { deliveries, p50, p99, model }) => {
                        let shade = 1 + (p50.saturating_sub(ends.0) as f64 / span * (SHADES - 1.0)).round() as u32;
                        put!(page, "<td class=\"number shade{shade}\" title=\"{deliveries} deliveries\"><b>{}</b>", millis(*p50));
                        put!(page, "<br/><span>p99 {}</span><br/><span>way {}</span></td>", millis(*p99), millis(*model));
                    }
                }
            }
            page.push_str("</tr>");
        }
        page.push_str("</tbody></table></div>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Model, Shape};
    use crate::world::{Seen, Sight};

    #[test]
    fn deliveries_are_grouped_by_where_their_nodes_live() {
        let mut plan = crate::swarm::plan(1);
        plan.setup.nodes = 40;
        plan.setup.shape = Shape { model: Model::Regions, ..Shape::default() };
        let network = Network::shaped(plan.setup.seed, 40, plan.setup.link, plan.setup.shape);
        let mut record = Record::new(40);
        let mut see = |at, node, what| record.take(&Seen { at, node, life: 1, what });
        (0..40).for_each(|node| see(1, node, Sight::Started));
        see(10, 0, Sight::Sent { message: 0 });
        (1..40).for_each(|node| see(10 + 2 * network.latency(0, node), node, Sight::Delivered { message: 0, hops: 2 }));
        let regions = Regions::new(&plan, &record).unwrap();
        assert_eq!(regions.nodes.iter().sum::<u32>(), 40);
        assert_eq!(regions.filled().map(|(.., cell)| cell.deliveries).sum::<u64>(), 39);
        let from = regions.names.iter().position(|name| *name == network.regions()[network.region(0)]).unwrap();
        assert!(regions.filled().all(|(row, _, cell)| row == from && cell.p50 == 2 * cell.model && cell.p99 == cell.p50));
        plan.setup.shape = Shape::default();
        assert_eq!(Regions::new(&plan, &record), None);
    }
}
