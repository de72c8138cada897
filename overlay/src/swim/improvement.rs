//! What this adapter adds to SWIM as foca has it, each by a name, so that a run can show what it would be without.

use crate::improvements::improvements;

improvements! {
    /// Something without which the membership would be slower or less right, and which it can leave undone, by [`Config::without`](super::Config::without).
    {
        /// A suspicion that was refuted ends in nothing. Without it foca 2.0.0 tells the healthy member that it is dead.
        TimerFilter = "timer-filter",
        /// Tables are compared over a stream. Without it a newcomer announces itself, and foca's announcements every 30 s do the rest.
        StateExchange = "state-exchange",
        /// A member that owes the answer to a probe is asked over a stream as well. Without it only others are asked to probe it, by datagrams.
        StreamPing = "stream-ping",
        /// The accused is told over a stream. Without it only datagrams tell it.
        BuddyPing = "buddy-ping",
        /// Members that are down are greeted every [`Config::announce_to_down`](super::Config::announce_to_down), and asked for their tables. Without it they are greeted every 65 s,
        /// as foca does.
        HealAnnounce = "heal-announce",
        /// A node that stood still puts verdicts off, and suspects for longer when that happens again and again. Without it its timers fire as if nothing had been.
        LocalHealth = "local-health",
        /// Who came back from being down is suspected for longer. Without it every suspicion is as long.
        FlapDamping = "flap-damping",
        /// News are told more often in larger clusters. Without it as often as among two nodes.
        SizeFollowing = "size-following",
        /// A verdict in a table about a member that is alive here makes us ask that member. Without it the table is believed.
        CheckedVerdicts = "checked-verdicts",
        /// Who lost more members than it has left withdraws its verdicts. Without it both sides of a partition insist on theirs.
        MinorityYield = "minority-yield",
        /// A suspicion makes all ask three more members for a sign of life. Without it those that crashed together are found when their turns come.
        Alarm = "alarm",
        /// Failures are reported together while others are suspected. Without it each is reported by itself.
        Settling = "settling",
        /// Rhythms begin at random phases. Without it nodes that start together probe and gossip together.
        RandomPhase = "random-phase",
    }
}
