//! Rare behavior of our own code that a run of the simulator can switch on: what is legal and hardly ever happens, made to happen often.
//!
//! The idea is FoundationDB's `BUGGIFY` (Zhou et al., *FoundationDB: A Distributed Unbundled Transactional Key Value Store*, SIGMOD 2021, section 4): a place in the code is
//! active in a quarter of all runs, and then fires now and then, so that each run has another subset of odd behavior. Whatever fires must be allowed by the protocol:
//! an answer may be cut short or come late, but nothing may be said that is not so.
//!
//! Nothing of this is in a library that is built without the feature `buggify`: [`Buggify`] is empty then, and [`Buggify::happens`] is `false`, so that the compiler
//! leaves the place out. With the feature a place is inert as long as nobody hands the node a [`Buggify`] that has it.
//!
//! Draws are hashes of (seed of the node, place, how often that place has drawn), so one more place, or one less, shifts no other draw.

#[cfg(feature = "buggify")]
use std::sync::Arc;
#[cfg(feature = "buggify")]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "buggify")]
use crate::random::hash;

/// A place where something rare can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// Broadcast: a graft is answered in part, and nothing is said of the rest.
    GraftCut,
    /// Broadcast: announcements wait as long as they may.
    AnnounceLate,
    /// Broadcast: a summary of what is held ends after its first message.
    SummaryCut,
    /// Broadcast: who announced something before it was a neighbor is forgotten.
    EarlyForgotten,
    /// Broadcast: a payload goes over a link twice.
    PushTwice,
    /// Partial views: a shuffle is skipped.
    ShuffleSkipped,
    /// Partial views: a peer that asks to become a neighbor is refused although there is room.
    NeighborRefused,
    /// Partial views: a peer of the passive view is forgotten.
    PassiveForgotten,
    /// Replica: a comparison that was due is skipped.
    ProbeSkipped,
    /// Replica: an answer to a comparison carries one entry at most.
    AnswerCut,
    /// Replica: a comparison is not answered.
    CompareIgnored,
    /// Replica: writes wait for a second before they are broadcast.
    DeltaLate,
}

impl Site {
    /// How many there are.
    pub const LEN: usize = 12;
    /// All of them, each at the place of its number.
    pub const ALL: [Site; Site::LEN] = [
        Site::GraftCut,
        Site::AnnounceLate,
        Site::SummaryCut,
        Site::EarlyForgotten,
        Site::PushTwice,
        Site::ShuffleSkipped,
        Site::NeighborRefused,
        Site::PassiveForgotten,
        Site::ProbeSkipped,
        Site::AnswerCut,
        Site::CompareIgnored,
        Site::DeltaLate,
    ];

    /// A short stable name.
    pub fn name(self) -> &'static str {
        match self {
            Site::GraftCut => "graft_cut",
            Site::AnnounceLate => "announce_late",
            Site::SummaryCut => "summary_cut",
            Site::EarlyForgotten => "early_forgotten",
            Site::PushTwice => "push_twice",
            Site::ShuffleSkipped => "shuffle_skipped",
            Site::NeighborRefused => "neighbor_refused",
            Site::PassiveForgotten => "passive_forgotten",
            Site::ProbeSkipped => "probe_skipped",
            Site::AnswerCut => "answer_cut",
            Site::CompareIgnored => "compare_ignored",
            Site::DeltaLate => "delta_late",
        }
    }

    /// How many times in a hundred it fires where it is active. What is drawn for every payload fires less often than what is drawn every few seconds.
    #[cfg(feature = "buggify")]
    fn percent(self) -> u64 {
        match self {
            Site::PushTwice => 5,
            Site::AnnounceLate | Site::NeighborRefused | Site::CompareIgnored => 10,
            Site::EarlyForgotten => 50,
            _ => 25,
        }
    }
}

/// Some of the places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sites(u32);

impl Sites {
    /// None of them.
    pub const NONE: Sites = Sites(0);
    /// All of them.
    pub const ALL: Sites = Sites((1 << Site::LEN) - 1);

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a place is among them.
    pub fn has(self, site: Site) -> bool {
        self.0 & 1 << site as u32 != 0
    }

    /// With one more.
    #[must_use]
    pub fn with(self, site: Site) -> Self {
        Sites(self.0 | 1 << site as u32)
    }

    /// With one less.
    #[must_use]
    pub fn without(self, site: Site) -> Self {
        Sites(self.0 & !(1 << site as u32))
    }

    /// Those that are there.
    pub fn iter(self) -> impl Iterator<Item = Site> {
        Site::ALL.into_iter().filter(move |site| self.has(*site))
    }
}

/// What can happen to a node, and its draws. Clones share them: the parts of one node have one.
#[derive(Clone, Debug, Default)]
pub struct Buggify {
    #[cfg(feature = "buggify")]
    active: Option<Arc<Active>>,
}

#[cfg(feature = "buggify")]
#[derive(Debug)]
struct Active {
    seed: u64,
    sites: Sites,
    drawn: [AtomicU64; Site::LEN],
    /// For reports; nothing that a node decides reads it.
    fired: [AtomicU64; Site::LEN],
}

impl Buggify {
    /// Whether this library has the places in it.
    pub const IS_BUILT: bool = cfg!(feature = "buggify");

    /// With some places active; draws are fed by `seed`, which no two nodes share. Without the feature nothing is active.
    #[cfg(feature = "buggify")]
    pub fn new(seed: u64, sites: Sites) -> Self {
        if sites.is_empty() {
            return Buggify::default();
        }
        let zeros = || [const { AtomicU64::new(0) }; Site::LEN];
        Buggify { active: Some(Arc::new(Active { seed, sites, drawn: zeros(), fired: zeros() })) }
    }

    /// With some places active; draws are fed by `seed`, which no two nodes share. Without the feature nothing is active.
    #[cfg(not(feature = "buggify"))]
    pub fn new(_seed: u64, _sites: Sites) -> Self {
        Buggify {}
    }

    /// Whether it happens now; each call is a draw.
    #[cfg(feature = "buggify")]
    #[inline]
    pub fn happens(&self, site: Site) -> bool {
        self.active.as_ref().is_some_and(|active| active.draw(site))
    }

    /// Whether it happens now; each call is a draw.
    #[cfg(not(feature = "buggify"))]
    #[inline(always)]
    pub const fn happens(&self, _site: Site) -> bool {
        false
    }

    /// How often each place fired, by its number.
    pub fn fired(&self) -> [u64; Site::LEN] {
        #[cfg(feature = "buggify")]
        if let Some(active) = &self.active {
            return std::array::from_fn(|place| active.fired[place].load(Ordering::Relaxed));
        }
        [0; Site::LEN]
    }
}

/// The same places are active under the same seed; what was drawn so far does not count.
impl PartialEq for Buggify {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(feature = "buggify")]
        return match (&self.active, &other.active) {
            (Some(one), Some(other)) => (one.seed, one.sites) == (other.seed, other.sites),
            (one, other) => one.is_none() && other.is_none(),
        };
        #[cfg(not(feature = "buggify"))]
        {
            let Buggify {} = other;
            true
        }
    }
}

impl Eq for Buggify {}

#[cfg(feature = "buggify")]
impl Active {
    /// The purpose of the draws.
    const PURPOSE: u64 = 0x0062_7567_6769_6679;

    fn draw(&self, site: Site) -> bool {
        if !self.sites.has(site) {
            return false;
        }
        let place = site as usize;
        // One thread at a time drives a node, so the order of these is that of its inputs.
        let count = self.drawn[place].fetch_add(1, Ordering::Relaxed);
        let fires = hash(&[self.seed, Self::PURPOSE, place as u64, count]) % 100 < site.percent();
        if fires {
            self.fired[place].fetch_add(1, Ordering::Relaxed);
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_has_its_number_and_a_name_of_its_own() {
        for (place, site) in Site::ALL.into_iter().enumerate() {
            assert_eq!(site as usize, place);
            assert_eq!(Site::ALL.iter().filter(|other| other.name() == site.name()).count(), 1);
            assert!(Sites::ALL.has(site) && !Sites::NONE.has(site) && Sites::NONE.with(site).iter().eq([site]));
            assert!(!Sites::ALL.without(site).has(site));
        }
    }

    #[test]
    fn nothing_happens_unless_somebody_asks_for_it() {
        let none = Buggify::default();
        assert!(Site::ALL.into_iter().all(|site| !none.happens(site)));
        assert_eq!((none.clone(), none.fired()), (Buggify::new(7, Sites::NONE), [0; Site::LEN]));
        assert!(Buggify::IS_BUILT || !Buggify::new(7, Sites::ALL).happens(Site::GraftCut), "a build without them has none");
    }

    #[cfg(feature = "buggify")]
    #[test]
    fn a_site_more_shifts_no_other_draw() {
        let draws = |buggify: &Buggify, site| (0..1_000).map(|_| buggify.happens(site)).collect::<Vec<bool>>();
        let (all, one) = (Buggify::new(7, Sites::ALL), Buggify::new(7, Sites::NONE.with(Site::DeltaLate)));
        let fired = draws(&all, Site::GraftCut).into_iter().filter(|fires| *fires).count();
        assert!((200..300).contains(&fired), "{fired} of 1,000 at 25 %");
        assert_eq!(draws(&all, Site::DeltaLate), draws(&one, Site::DeltaLate));
        assert_eq!(draws(&one, Site::GraftCut), vec![false; 1_000]);
        assert_eq!(all.fired()[Site::GraftCut as usize], fired as u64);
        assert_ne!(draws(&Buggify::new(8, Sites::ALL), Site::DeltaLate), draws(&Buggify::new(7, Sites::ALL), Site::DeltaLate));
    }
}
