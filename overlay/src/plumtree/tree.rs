//! The tree that a flood makes: which one this node is in, whether it is whole, and how what we broadcast starts.
//!
//! The node that made the tree is its root: the way from it to every node is the one that was fastest then. Deviations 10 and 12 of the header of
//! [`super`] say why, and what a flood costs; how a broken tree is mended stands in [`repair`](super::repair).
//!
//! **What a peer can make us do**: take part in [`MADE_MAX`] floods in each [`MAKING`]. Whatever else claims to make a tree follows the tree
//! that there is, as does what claims to trim one within half of [`TRIMMING`] of the last; what claims to be flooded is flooded no further than we would flood it ourselves.

use std::time::Duration;

use meshwork_channels::Time;
use meshwork_channels::random::Generator;
use rand::RngExt;

use super::message::Push;

/// For so long a tree is being made, and another one must have a larger number.
const MAKING: Duration = Duration::from_secs(5);
/// Floods that are passed on meanwhile, be their number the largest or not: so many may begin at once without knowing of each other.
const MADE_MAX: u8 = 32;
/// A tree is not made anew within this time. It is well above `MAKING`, so that all agree whether the old one still counts.
const PAUSE: Duration = Duration::from_secs(15);
/// A tree is not trimmed again within this time, nor after it was made: what trims it has reached all by then, so two do not cut one circle in two
/// places.
const TRIMMING: Duration = Duration::from_secs(5);
/// Broadcasts after which a tree is made anew: what churn leaves of it is longer than it need be.
const PASSED_MAX: u32 = 512;
/// Then each broadcast makes it with a chance of one in so many, so that not all do at once.
const CHANCE: u32 = 16;
/// A node that lost half of its neighbors within this time takes the whole tree for torn.
const TEARING: Duration = Duration::from_secs(5);
/// The share of the nodes that a flood before the tree may reach, one in so many.
const REACHED: u64 = 22;
/// Over so many broadcasts it is seen who sends most.
const SHARE_LEN: f32 = 8.0;

/// A moment in milliseconds, which begin anew after 49 days: a million simulated nodes have two each. Whoever was left alone for just so long takes
/// what happened then for new, and makes a tree too many or waits for one too long, by seconds.
#[derive(Clone, Copy, Debug)]
struct Moment(u32);

impl Moment {
    fn of(time: Time) -> Self {
        Moment((time.as_nanos() / 1_000_000) as u32)
    }

    fn until(self, now: Time) -> Duration {
        Duration::from_millis(Moment::of(now).0.wrapping_sub(self.0).into())
    }
}

/// What a node knows of its tree.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// When it was made; of several that were made at the same time, when the first was.
    made_at: Moment,
    /// When the first of the neighbors was lost that `torn` counts.
    torn_at: Moment,
    /// When it was last made or trimmed.
    shaped_at: Moment,
    /// 0 when there was none yet.
    number: u32,
    /// Broadcasts since, ours and others'.
    passed: u32,
    /// The same since it was last made or trimmed.
    unshaped: u32,
    /// What part of the latest broadcasts was ours.
    own_share: f32,
    /// Nodes in the cluster, if that is known.
    nodes: u32,
    /// Floods that were passed on at that time.
    made: u8,
    /// Neighbors that were lost within a short time.
    torn: u8,
    /// Whether one of them was in the tree. Neighbors that are given up for nearer ones are not, however many they are.
    has_torn: bool,
    /// Whether we made it.
    is_own: bool,
    /// Whether a link of it was lost and it has brought nothing since.
    has_lost_link: bool,
}

impl Tree {
    pub(super) const fn new() -> Self {
        Tree {
            made_at: Moment(0),
            torn_at: Moment(0),
            shaped_at: Moment(0),
            number: 0,
            passed: 0,
            unshaped: 0,
            own_share: 0.5,
            nodes: 0,
            made: 0,
            torn: 0,
            has_torn: false,
            is_own: false,
            has_lost_link: false,
        }
    }

    /// Its number; 0 when it was not made by a flood.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn has_lost_link(&self) -> bool {
        self.has_lost_link
    }

    /// So many nodes are in the cluster.
    pub(super) fn grows_to(&mut self, nodes: u32) {
        self.nodes = nodes;
    }

    /// Notes that a neighbor was lost, with a link of the tree or not.
    pub(super) fn loses(&mut self, was_in_tree: bool, now: Time) {
        self.has_lost_link |= was_in_tree;
        if self.torn_at.until(now) > TEARING {
            (self.torn, self.has_torn, self.torn_at) = (0, false, Moment::of(now));
        }
        self.torn = self.torn.saturating_add(1);
        self.has_torn |= was_in_tree && self.number != 0;
    }

    /// Notes that a payload came down the tree, so the link that was lost is not missed here.
    pub(super) fn brings(&mut self) {
        self.has_lost_link = false;
    }

    /// Notes that a broadcast of somebody else came.
    pub(super) fn passes(&mut self) {
        self.counts();
        self.own_share -= self.own_share / SHARE_LEN;
    }

    fn counts(&mut self) {
        self.passed = self.passed.saturating_add(1);
        self.unshaped = self.unshaped.saturating_add(1);
    }

    fn is_shaped(&mut self, now: Time) {
        (self.shaped_at, self.unshaped) = (Moment::of(now), 0);
    }

    /// How what we broadcast starts: as the root of a new tree, down the tree, trimming it if it `trims`, or by a flood of `len` links, which puts what others than the main
    /// sender send into the tree in many places at once. `knows_others` says whether anything was ever broadcast here.
    pub(super) fn starts(&mut self, len: u8, trims: bool, knows_others: bool, links: usize, now: Time, random: &mut Generator) -> Push {
        let is_main = self.own_share >= 0.5;
        self.own_share += (1.0 - self.own_share) / SHARE_LEN;
        self.counts();
        let is_due = self.made_at.until(now) >= PAUSE
            && match is_main {
                _ if self.is_torn(links, now) => true,
                true if self.is_own => self.passed > PASSED_MAX,
                true => self.own_share >= 0.8,
                false => self.passed > PASSED_MAX && random.random_ratio(1, CHANCE),
            };
        if is_due || self.number == 0 && !knows_others {
            let number = random.random_range(1..=u32::MAX);
            (self.number, self.made_at, self.is_own, self.passed, self.made) = (number, Moment::of(now), true, 0, 1);
            self.is_shaped(now);
            return Push::Shape(number);
        }
        // Whoever sends when nobody else does need not fear to trim at the same time as another.
        let mut is_alone = || is_main && self.is_own || random.random_ratio(1, self.unshaped);
        if trims && self.number != 0 && self.shaped_at.until(now) >= TRIMMING && is_alone() {
            self.is_shaped(now);
            return Push::Trim { shape: self.number, from_root: self.is_own };
        }
        match len.checked_sub(1) {
            Some(left) if !is_main => Push::Flood(left),
            _ => Push::Eager,
        }
    }

    /// A flood makes a tree. It becomes ours if it is the only one, or has the largest number of several; says whether it is to be passed on
    /// over all links, whatever became of it: others may not know of ours.
    pub(super) fn is_made(&mut self, number: u32, now: Time) -> bool {
        // Stands for no tree here, so no node draws it.
        if number == 0 {
            return false;
        }
        let is_another = self.number == 0 || self.made_at.until(now) >= MAKING;
        if is_another {
            (self.made_at, self.made) = (Moment::of(now), 0);
        } else if self.made >= MADE_MAX {
            return false;
        }
        self.made += 1;
        if is_another || number > self.number {
            (self.number, self.is_own, self.passed) = (number, false, 0);
            self.is_shaped(now);
        }
        true
    }

    /// A payload trims the tree with this number; says whether it may. A tree that we have missed the making of becomes ours.
    pub(super) fn is_trimmed(&mut self, number: u32, now: Time) -> bool {
        if number == 0 || self.number != 0 && self.shaped_at.until(now) < TRIMMING / 2 {
            return false;
        }
        if self.number == 0 || number != self.number && self.made_at.until(now) >= PAUSE {
            (self.number, self.made_at, self.is_own, self.passed) = (number, Moment::of(now), false, 0);
        }
        if number != self.number {
            return false;
        }
        self.is_shaped(now);
        true
    }

    /// Whether so many neighbors were lost at once that the tree is hardly one any more.
    fn is_torn(&self, links: usize, now: Time) -> bool {
        self.has_torn && self.torn_at.until(now) <= 2 * TEARING && usize::from(self.torn) * 2 > links.max(2)
    }

    /// Over how many links, up to a bound, a flood reaches a small share of the nodes.
    pub(super) fn flood_len(&self, len_max: u8, links: usize) -> u8 {
        let (links, most) = (links as u64, u64::from(self.nodes) / REACHED);
        let (mut reached, mut ring) = (0, links);
        let fits = |_: &u8| {
            reached += ring;
            ring *= links.saturating_sub(1).max(1);
            reached <= most
        };
        (0..len_max).take_while(fits).count() as u8
    }
}
