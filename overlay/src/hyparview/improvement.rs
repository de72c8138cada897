//! What this core does better than the paper; the numbers are those of the deviations in the header of [`super`].

use crate::improvements::improvements;

improvements! {
    /// What this core does beyond the paper and can leave undone, by [`Config::without`](super::Config::without).
    {
        /// 2: a full contact keeps its view. Without it the contact gives up a random neighbor for every joiner, whatever the rates, and a
        /// walk starts at each of its other neighbors (section 4.2).
        KeepView = "keep-view",
        /// 2: a walk takes a free slot from its middle on, and at a full node it is spliced into a link, at a rate. Without it a walk ends
        /// only at its last step or at a node with one neighbor, and that node gives up a random neighbor for the joiner, always (section
        /// 4.2).
        Splice = "splice",
        /// 3: joiners beyond a rate are introduced to one another. Without it each is answered at once, as below the rate.
        StormMixing = "storm-mixing",
        /// 4: free slots are filled in parallel. Without it one replacement is asked at a time, and the next once it refused or is gone
        /// (section 4.3).
        FillInParallel = "fill-in-parallel",
        /// 4: a node that misses neighbors sends walks of its own. Without it only its passive view brings it any.
        OwnWalks = "own-walks",
        /// 5: a high priority has a rate. Without it a full node evicts for every such request (section 4.3).
        LimitHigh = "limit-high",
        /// 6: full views on both sides of a healed partition are linked. Without it nobody asks across.
        Heal = "heal",
        /// 7: contacts and past neighbors are remembered and tried for ever. Without it a node whose views are empty stays alone.
        Reseed = "reseed",
        /// 8: a closed group asks beyond itself. Without it nobody watches for one.
        OpenClosedGroups = "open-closed-groups",
        /// 9: a farewell names replacements. Without it the evicted asks its passive view alone (section 4.4).
        FarewellPeers = "farewell-peers",
        /// 10: an answer to a joiner and a refusal name candidates. Without it a joiner knows its contact and what walks and shuffles
        /// bring.
        AnswerPeers = "answer-peers",
        /// 11: the newest links are not evicted while there are older ones. Without it any neighbor may have to go.
        SpareNewest = "spare-newest",
        /// 12: the passive view learns of new members and of whoever was refused. Without it walks, shuffles and farewells alone fill it
        /// (section 4.5).
        LearnMore = "learn-more",
        /// 13: some neighbors are chosen by how soon they answer. Without it all are as chance has it.
        NearLinks = "near-links",
    }
}
