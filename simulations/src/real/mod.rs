//! A plan carried out on real processes: `meshwork node` in network namespaces, over a wire in this program that is the network of the simulator.
//!
//! The same [`Plan`](crate::plan::Plan) that is played in virtual time is done here as time passes: what starts, starts a process; what broadcasts is typed into one; what crashes is killed. Between the
//! processes are devices whose packets come to this program, and the same [`Network`](crate::network::Network), with the same draws, decides what becomes of them. What the processes print makes the same
//! [`Record`](crate::record::Record). So whatever differs is the model of connections, the processes, or chance.
//!
//! What stands for what:
//!
//! 1. **A packet** of the processes is a datagram of the model: its latency, its loss, its place in a burst, its wait before a line, its copy. The bytes that count are those of its UDP payload, as the model
//!    counts no headers. What the simulator adds by itself for streams, that a loss is a delay and that a handshake takes round trips, is left to QUIC.
//! 2. **A node** has the address of its number plus one in 10.0.0.0/8, so that none has the address of the network, and the port that the simulator gives it.
//! 3. **A broadcast** is a typed line with as many bytes. It was sent when its node says that it took the line, and has arrived when the other node printed it.
//! 4. **A crash** is SIGKILL, a pause SIGSTOP and SIGCONT, a leave `/quit`. A node that starts again has its key and nothing else of its former life.
//! 5. **Chance** in the nodes is their own: keys and generators are not those of the simulated ones, so neither are the trees. The clocks of all processes are those of the machine.
//!
//! What cannot be done to a process is refused before anything starts ([`feasible`]).
//!
//! Read in this order: [`address`], [`feasible`], [`wire`], [`compare`], which are pure; `hub`, `namespaces`, `process`, `carry`, which are not. `members` stands for itself: it plays no plan.

pub mod address;
pub mod compare;
pub mod feasible;
pub mod wire;

#[cfg(target_os = "linux")]
pub(crate) mod carry;
#[cfg(target_os = "linux")]
mod hub;
#[cfg(target_os = "linux")]
pub(crate) mod members;
#[cfg(target_os = "linux")]
pub(crate) mod namespaces;
#[cfg(target_os = "linux")]
mod process;

use std::fmt;

/// The most processes: each takes some MB, and all share the processors of one machine.
pub const NODES_MAX: u32 = 50;

/// Why a plan was not carried out.
#[derive(Debug)]
pub enum RealError {
    /// This machine does not permit it, in words. Nothing was started.
    Skipped(String),
    /// The plan has something that cannot be done to processes. Nothing was started.
    Infeasible(feasible::Infeasible),
    /// Something that was started did not do what it must.
    Failed(String),
    /// Somebody asked to stop.
    Interrupted,
}

impl fmt::Display for RealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RealError::Skipped(why) => write!(f, "skipped: {why}"),
            RealError::Infeasible(what) => what.fmt(f),
            RealError::Failed(what) => f.write_str(what),
            RealError::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for RealError {}

/// A failure of something that was done to the system.
pub(crate) fn failed(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> RealError {
    move |error| RealError::Failed(format!("cannot {what}: {error}"))
}
