//! What this adapter adds to SWIM as foca has it, each by a name, so that a run can show what it would be without.

use serde::{Deserialize, Serialize};

/// Something without which the membership would be slower or less right. In a file, its name in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Improvement {
    /// A suspicion that was refuted ends in nothing. Without it foca 2.0.0 tells the healthy member that it is dead.
    TimerFilter,
    /// Tables are compared over a stream. Without it a newcomer announces itself, and foca's announcements every 30 s do the rest.
    StateExchange,
    /// The accused is told over a stream. Without it only datagrams tell it.
    BuddyPing,
    /// Members that are down are greeted every [`Config::announce_to_down`](super::Config::announce_to_down), and asked for their tables. Without it they are greeted every 65 s,
    /// as foca does.
    HealAnnounce,
    /// A node that stood still puts verdicts off, and suspects for longer when that happens again and again. Without it its timers fire as if nothing had been.
    LocalHealth,
    /// Who came back from being down is suspected for longer. Without it every suspicion is as long.
    FlapDamping,
    /// News are told more often in larger clusters. Without it as often as among two nodes.
    SizeFollowing,
    /// A verdict in a table about a member that is alive here makes us ask that member. Without it the table is believed.
    CheckedVerdicts,
    /// Who lost more members than it has left withdraws its verdicts. Without it both sides of a partition insist on theirs.
    MinorityYield,
    /// A suspicion makes all ask three more members for a sign of life. Without it those that crashed together are found when their turns come.
    Alarm,
    /// Failures are reported together while others are suspected. Without it each is reported by itself.
    Settling,
    /// Rhythms begin at random phases. Without it nodes that start together probe and gossip together.
    RandomPhase,
}

impl Improvement {
    /// All of them.
    pub const ALL: [Improvement; 12] = [
        Improvement::TimerFilter,
        Improvement::StateExchange,
        Improvement::BuddyPing,
        Improvement::HealAnnounce,
        Improvement::LocalHealth,
        Improvement::FlapDamping,
        Improvement::SizeFollowing,
        Improvement::CheckedVerdicts,
        Improvement::MinorityYield,
        Improvement::Alarm,
        Improvement::Settling,
        Improvement::RandomPhase,
    ];

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Improvement::TimerFilter => "timer-filter",
            Improvement::StateExchange => "state-exchange",
            Improvement::BuddyPing => "buddy-ping",
            Improvement::HealAnnounce => "heal-announce",
            Improvement::LocalHealth => "local-health",
            Improvement::FlapDamping => "flap-damping",
            Improvement::SizeFollowing => "size-following",
            Improvement::CheckedVerdicts => "checked-verdicts",
            Improvement::MinorityYield => "minority-yield",
            Improvement::Alarm => "alarm",
            Improvement::Settling => "settling",
            Improvement::RandomPhase => "random-phase",
        }
    }
}
