//! What this core does better than the papers; the numbers are those of the deviations in the header of [`super`].

use crate::improvements::improvements;

improvements! {
    /// What this core does beyond the paper and can leave undone, by [`Config::without`](super::Config::without).
    {
        /// 1: a new neighbor is told everything that is held. Without it it is told nothing (section 3.7).
        Backlog = "backlog",
        /// 1: one neighbor at random is told everything that is held, every few seconds. Without it nobody is.
        Summary = "summary",
        /// 2: a graft for what is not held is answered by "gone". Without it it is met with silence.
        AnswerGone = "answer-gone",
        /// 2: announcers are asked again and again. Without it each is asked once, in the order in which they announced (section 3.6).
        RetryGrafts = "retry-grafts",
        /// 3: only what is on its first way shapes the tree. Without it whatever is new makes its link eager, whatever is not prunes it,
        /// and every graft takes its link into the tree (sections 3.5 and 3.6).
        FirstWayOnly = "first-way-only",
        /// 4: a duplicate does not prune the last way in, nor twice in a moment. Without it every duplicate prunes (section 3.5).
        SparePrunes = "spare-prunes",
        /// 5: waiting times are measured. Without it they are [`graft_wait`](super::Config::graft_wait) and then
        /// [`answer_wait`](super::Config::answer_wait) (section 3.6).
        MeasuredTimers = "measured-timers",
        /// 6: announcements and grafts go out in batches. Without it each goes out alone and at once (section 3.4).
        Batching = "batching",
        /// 6: nothing is pushed or announced to a neighbor that is known to have it. Without it only the neighbor that brought it is left
        /// out.
        SkipHolders = "skip-holders",
        /// 8: a node whose links are all lazy makes one of them eager when it broadcasts. Without it its broadcast waits to be pulled.
        RaiseLazy = "raise-lazy",
        /// 10: a flood from one node makes the tree, and a pull mends it only where it is broken. Without it every duplicate takes a link out
        /// of the tree and every pull takes one in (sections 3.5 and 3.6).
        RootedTree = "rooted-tree",
        /// 13: now and then a payload trims the tree. Without it circles stay until the tree is made anew.
        Trim = "trim",
        /// 14: who loses the way to the root takes another one at once. Without it the next payload has to be pulled first.
        Regraft = "regraft",
        /// 12: what is not sent by the node that sends most is flooded over some links first. Without it it follows the tree from the start.
        Flood = "flood",
    }
}
