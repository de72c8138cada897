//! What can be done to processes, and what to do instead of what cannot.

use std::fmt;

use super::NODES_MAX;
use crate::network::Classes;
use crate::plan::Plan;
use crate::schedule::Happening;

/// What a line that is typed may have for the text of a broadcast or the value of a key, with room for the rest of the line: `meshwork node` takes 65,536 bytes.
const LINE_BYTES_MAX: usize = 65_000;

/// What a plan has that cannot be done to processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Infeasible {
    /// More nodes than there may be processes.
    Nodes(u32),
    /// Entries of the schedule with this name.
    Entry {
        /// What `show --schedule` calls it.
        name: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// Nodes that not everybody can dial.
    Classes,
    /// A node with a planted bug.
    Plant,
    /// Rare behavior that was switched on.
    Rare,
    /// Broadcasts or values of more bytes than a typed line may have.
    Bytes(usize),
}

impl fmt::Display for Infeasible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Infeasible::Nodes(nodes) => {
                write!(f, "{nodes} nodes are too many for processes of one machine: at most {NODES_MAX}, see --nodes")
            }
            Infeasible::Entry { name, instead } => write!(f, "`{name}` cannot be done to processes; {instead}"),
            Infeasible::Classes => {
                f.write_str("the wire translates no addresses: leave out `cone`, `symmetric` and `blocked`, or use `run` for them")
            }
            Infeasible::Plant => f.write_str("the bugs that `plant` names are not in the command `meshwork`; use `run` for them"),
            Infeasible::Bytes(bytes) => {
                write!(f, "{bytes} bytes cannot be typed: broadcasts and values are lines of at most {LINE_BYTES_MAX} bytes there")
            }
            Infeasible::Rare => {
                f.write_str("rare behavior is not built into the command `meshwork`: leave out `buggify`, or use `run` for it")
            }
        }
    }
}

impl std::error::Error for Infeasible {}

/// Whether a plan can be carried out on processes.
///
/// # Errors
///
/// [`Infeasible`] with the first thing that cannot.
pub fn check(plan: &Plan) -> Result<(), Infeasible> {
    if plan.setup.nodes > NODES_MAX {
        return Err(Infeasible::Nodes(plan.setup.nodes));
    }
    if plan.setup.shape.classes != Classes::default() {
        return Err(Infeasible::Classes);
    }
    if plan.setup.plant.is_some() {
        return Err(Infeasible::Plant);
    }
    let bytes = plan.setup.payload_bytes.max(plan.setup.value_bytes);
    if bytes > LINE_BYTES_MAX {
        return Err(Infeasible::Bytes(bytes));
    }
    if !plan.tuning.buggify.is_empty() {
        return Err(Infeasible::Rare);
    }
    for entry in plan.schedule.entries() {
        let instead = match &entry.what {
            Happening::Start { .. }
            | Happening::Crash { .. }
            | Happening::Restart { .. }
            | Happening::Leave { .. }
            | Happening::Pause { .. }
            | Happening::Partition { .. }
            | Happening::Clog { .. }
            | Happening::Weather { .. }
            | Happening::Calm
            | Happening::Broadcast { .. }
            | Happening::Write { .. }
            | Happening::Remove { .. } => continue,
            Happening::Strike { .. } => "nobody sees the overlay of processes from outside; name the nodes with `crash`",
            Happening::Slow { .. } => "a process cannot be told to take its time; use `pause`, or `weather` with `late`",
            Happening::Break { .. } => {
                "connections are encrypted, so the wire cannot end one; use `partition` for longer than the idle timeout"
            }
            Happening::Clock { .. } => "all processes have the clock of this machine; use `run` for it",
            Happening::Attack { .. } => "the command `meshwork` has no hostile mode; use `run` for it",
            Happening::Send { .. } | Happening::Tell { .. } | Happening::Change { .. } => {
                "it cannot be typed into `meshwork node`; use `broadcast` or `write`, or `run` for it"
            }
        };
        return Err(Infeasible::Entry { name: entry.what.name(), instead });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::Scenario;

    fn plan(name: &str, nodes: u32, set: &[&str]) -> Plan {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        Scenario::named(name).unwrap().plan(nodes, 1, &set).unwrap()
    }

    #[test]
    fn what_processes_can_do_is_taken() {
        for name in ["broadcast", "partition", "crash", "storm"] {
            assert_eq!(check(&plan(name, 20, &[])), Ok(()), "{name}");
        }
        let mut plan = plan("broadcast", 10, &[]);
        for what in [Happening::Crash { node: 3 }, Happening::Pause { node: 3, micros: 5 }, Happening::cut(9, vec![1])] {
            plan.schedule.push(plan.calm_at, what);
        }
        assert_eq!(check(&plan), Ok(()));
    }

    #[test]
    fn what_they_cannot_do_is_refused_by_name_with_what_to_do_instead() {
        assert_eq!(check(&plan("broadcast", 51, &[])), Err(Infeasible::Nodes(51)));
        assert_eq!(check(&plan("broadcast", 50, &["blocked=10%"])), Err(Infeasible::Classes));
        assert_eq!(check(&plan("broadcast", 5, &["buggify=all"])), Err(Infeasible::Rare));
        assert_eq!(check(&plan("broadcast", 5, &["bytes=65536"])), Err(Infeasible::Bytes(65_536)));
        for (what, named, instead) in [
            (Happening::Attack { node: 1, frames: 1 }, "`attack`", "`run`"),
            (Happening::Clock { node: 1, jump: 1, drift: 1 }, "`clock`", "`run`"),
            (Happening::Slow { node: 1, micros: 1, until: 2 }, "`slow`", "`pause`"),
            (Happening::Break { node: 1 }, "`break`", "`partition`"),
            (Happening::Send { node: 1, to: 2, message: 1 }, "`send`", "`broadcast`"),
        ] {
            let mut plan = plan("broadcast", 5, &[]);
            plan.schedule.push(plan.calm_at, what);
            let refused = check(&plan).unwrap_err().to_string();
            assert!(refused.contains(named) && refused.contains(instead), "{refused}");
        }
    }
}
