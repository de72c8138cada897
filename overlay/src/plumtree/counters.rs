//! What happened, counted from the start.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What happened, counted from the start. Numbers of messages unless said otherwise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// All at zero.
            pub(crate) const fn new() -> Self {
                Counters { $($name: 0,)+ }
            }

            /// Every counter with its name, in a stable order.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Our own broadcasts.
    broadcasts,
    /// Messages of others handed to the application.
    delivered,
    /// Payloads received that were delivered already.
    duplicates,
    /// Bytes of payloads received.
    payload_bytes_received,
    /// Bytes of payloads sent.
    payload_bytes_sent,
    /// Payloads sent down the tree.
    pushes_sent,
    /// Identities announced.
    ihave_ids_sent,
    /// Frames that announce, whatever they announce.
    ihave_frames_sent,
    /// Lists of everything held, for a new neighbor.
    backlogs_sent,
    /// Summaries of what is held, for a neighbor at random.
    summaries_sent,
    /// Payloads asked for.
    grafts_sent,
    /// Frames that ask for payloads.
    graft_frames_sent,
    /// Payloads sent because they were asked for.
    grafts_served,
    /// Payloads asked for that were not held, and answered so.
    grafts_missed,
    /// Payloads asked for above the limit of a neighbor, and not answered.
    grafts_refused,
    /// Requests of ours that were not answered in time.
    grafts_timed_out,
    /// Requests of ours answered by "gone".
    grafts_gone,
    /// Missing messages that nobody is left to ask for.
    missing_given_up,
    /// Links taken out of the tree by us.
    prunes_sent,
    /// Links taken out of the tree by the neighbor.
    prunes_received,
    /// Links that joined the tree because it did not bring what was pulled over them.
    mended,
    /// Links that joined the tree in the place of a lost way to its root.
    regrafted,
    /// Links of the tree replaced by shorter ways.
    optimizations,
    /// Payloads dropped after their retention.
    payloads_expired,
    /// Payloads dropped before it, at a bound.
    payloads_evicted,
    /// Streams forgotten at a bound.
    streams_evicted,
    /// Gaps in streams closed at a bound: messages that can never be delivered here any more.
    gaps_closed,
    /// Announcements dropped at a bound of missing messages.
    announcements_dropped,
    /// Announcers not remembered for a missing message that has enough of them.
    announcers_dropped,
    /// Sequence numbers refused because no node can have reached them.
    sequences_refused,
    /// Messages ignored because the sender is no neighbor.
    strangers_ignored,
}
