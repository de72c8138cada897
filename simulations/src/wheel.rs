//! The queue of what will happen: a hierarchical timing wheel in microseconds (Varghese and Lauck, SOSP 1987).
//!
//! A heap pays a logarithm and several cache misses for each event; the wheel pays a constant. Time is cut into windows of a few microseconds.
//! The level of an event is the highest byte in which the number of its window differs from the current one, its slot is that byte, so a slot
//! is emptied into lower levels when its turn comes and an event moves at most once for each level. The current window is put in order, which
//! also tells a little ahead what will happen next ([`Wheel::ahead`]).
//!
//! Events of one moment come out ordered by (destination, source, sequence of the source). No global counter takes part, so the order does
//! not depend on who pushed first, and a run gives the same digest however its nodes are spread over threads.
//!
//! Whoever knows that no event has an effect on another node within a window can have the events of a window by node instead
//! ([`Wheel::by_node`]): each node still sees its own in the same order, and all nodes of a window come in the order in which they lie in the
//! memory.
//!
//! A slot is a chain of pieces of one size, and all slots take their pieces from one pool. So the memory is that of the most events that ever
//! waited, whenever that was and however far they lay ahead.
//!
//! Invariant: an event lies in the future when it is pushed, so a moment is complete when its first event comes out.

/// Slots of one level: one for each value of a byte.
const SLOTS: usize = 256;
/// Levels: one for each byte of a moment.
const LEVELS: usize = 8;
/// Unless told otherwise the length of a window is two to this power, in microseconds.
const WINDOW_BITS: u32 = 5;
/// The largest such power: a moment within a window shares a number with a node.
const WINDOW_BITS_MAX: u32 = 31;
/// So many turns are looked at one after the other for the place of a new one.
const NEAR: usize = 8;
/// Events of a piece.
const PIECE: usize = 32;
/// No piece.
const NONE: u32 = u32::MAX;

/// Something that will happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<T> {
    /// When, in microseconds since the start of the run.
    pub at: u64,
    /// To which node.
    pub to: u32,
    /// Caused by which node.
    pub from: u32,
    /// The how-manieth event that this cause pushed.
    pub sequence: u64,
    /// What.
    pub what: T,
}

/// The slots of one level.
#[derive(Clone, Debug)]
struct Level {
    /// Which of them hold events.
    occupied: [u64; SLOTS / 64],
    /// The first piece of each.
    first: [u32; SLOTS],
}

impl Level {
    const fn new() -> Self {
        Level { occupied: [0; SLOTS / 64], first: [NONE; SLOTS] }
    }

    /// The first occupied slot after `slot`.
    fn next_after(&self, slot: usize) -> Option<usize> {
        let start = slot + 1;
        let mut word = start / 64;
        let mut mask = u64::MAX.checked_shl((start % 64) as u32).unwrap_or(0);
        while word < self.occupied.len() {
            let bits = self.occupied[word] & mask;
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
            mask = u64::MAX;
            word += 1;
        }
        None
    }
}

/// Some events of a slot, in no order.
#[derive(Clone, Debug)]
struct Piece<T> {
    events: Vec<Event<T>>,
    /// The next one of the same slot, or of those that are free.
    next: u32,
}

/// An event of the current window, until it is taken. It begins with a cache line, so that a small one lies in one.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Place<T>(Option<Event<T>>);

/// When an event of the current window comes.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Its moment within the window and its destination, which settle the order but for few events.
    key: u64,
    /// Where it lies.
    place: u32,
}

/// The queue.
#[derive(Clone, Debug)]
pub struct Wheel<T> {
    /// The moment of the event that was taken last.
    now: u64,
    /// Whose it was.
    node: u32,
    window: u64,
    window_bits: u32,
    /// Whether the events of a window are ordered by node first.
    is_by_node: bool,
    len: usize,
    /// The events of the current window.
    due: Vec<Place<T>>,
    /// The order of those up to `settled`, the next one last.
    turns: Vec<Turn>,
    /// The last moment of the window up to which there is an order.
    settled: u64,
    /// How many events of the window lie after that.
    held: usize,
    levels: [Level; LEVELS],
    pieces: Vec<Piece<T>>,
    /// The first piece that no slot has.
    free: u32,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self::with_windows(WINDOW_BITS, false)
    }
}

impl<T> Wheel<T> {
    /// An empty wheel at moment 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty wheel with windows of `length` microseconds or somewhat less, whose events come out ordered by (destination, moment, source,
    /// sequence). The limits up to which they are taken never shrink.
    pub fn by_node(length: u64) -> Self {
        Self::with_windows(length.max(1).ilog2(), true)
    }

    fn with_windows(bits: u32, is_by_node: bool) -> Self {
        let bits = bits.min(WINDOW_BITS_MAX);
        Wheel {
            now: 0,
            node: 0,
            window: 0,
            window_bits: bits,
            is_by_node,
            len: 0,
            due: Vec::new(),
            turns: Vec::new(),
            settled: if is_by_node { 0 } else { (1 << bits) - 1 },
            held: 0,
            levels: [const { Level::new() }; LEVELS],
            pieces: Vec::new(),
            free: NONE,
        }
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing will happen any more.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an event.
    ///
    /// # Panics
    ///
    /// If it does not lie after the event that was taken last: a cause never has its effect at the same moment. Nor may it lie before a
    /// limit up to which nothing more was found, nor, in a wheel [by node](Self::by_node), in the window of that event if it is another node's.
    pub fn push(&mut self, event: Event<T>) {
        assert!(event.at > self.now, "an event at {} was pushed at {}: an effect comes after its cause", event.at, self.now);
        self.len += 1;
        self.place(event);
    }

    /// Puts an event into its slot. In the current window it takes its place in the order.
    fn place(&mut self, event: Event<T>) {
        let window = event.at >> self.window_bits;
        let differing = window ^ self.window;
        if differing == 0 {
            if event.at <= self.settled {
                self.take_turn(&event);
            } else {
                self.held += 1;
            }
            self.due.push(Place(Some(event)));
            return;
        }
        let level = (63 - differing.leading_zeros() as usize) / 8;
        let slot = (window >> (8 * level)) as usize & (SLOTS - 1);
        let Level { occupied, first } = &mut self.levels[level];
        occupied[slot / 64] |= 1 << (slot % 64);
        if let Some(piece) = self.pieces.get_mut(first[slot] as usize)
            && piece.events.len() < PIECE
        {
            piece.events.push(event);
            return;
        }
        let next = first[slot];
        match self.pieces.get_mut(self.free as usize) {
            Some(piece) => {
                first[slot] = self.free;
                self.free = std::mem::replace(&mut piece.next, next);
                piece.events.push(event);
            }
            None => {
                first[slot] = self.pieces.len() as u32;
                self.pieces.push(Piece { events: vec![event], next });
            }
        }
    }

    /// Gives the event that is about to be the last of the window its place in the order.
    fn take_turn(&mut self, event: &Event<T>) {
        assert!(!self.is_by_node || event.to == self.node, "an effect on another node comes after the window of its cause");
        let turn = Turn { key: self.key(event), place: self.due.len() as u32 };
        let order = (turn.key, (event.from, event.sequence));
        let is_after = |other: &Turn| (other.key, cause_at(&self.due, other.place)) > order;
        // Most often it is one of the next.
        let near = self.turns.len().saturating_sub(NEAR);
        let at = match self.turns[near..].iter().rposition(is_after) {
            Some(at) => near + at + 1,
            None => self.turns[..near].partition_point(is_after),
        };
        self.turns.insert(at, turn);
    }

    fn key(&self, event: &Event<T>) -> u64 {
        let (moment, node) = (event.at - (self.window << self.window_bits), u64::from(event.to));
        if self.is_by_node { node << 32 | moment } else { moment << 32 | node }
    }

    /// Takes the next event whose moment is not after `limit`.
    pub fn pop(&mut self, limit: u64) -> Option<Event<T>> {
        if self.turns.is_empty() && !self.refill(limit) {
            return None;
        }
        let place = self.turns.last()?.place as usize;
        let event = self.due[place].0.take_if(|event| event.at <= limit)?;
        self.turns.pop();
        self.len -= 1;
        self.now = event.at;
        self.node = event.to;
        Some(event)
    }

    /// Puts what is next in order; says whether there is anything up to `limit`.
    fn refill(&mut self, limit: u64) -> bool {
        if self.held == 0 {
            return self.advance(limit);
        }
        self.put_in_order(limit);
        !self.turns.is_empty()
    }

    /// The event that will be taken after `count` others, if it lies in the current window and nothing comes in between.
    pub fn ahead(&self, count: usize) -> Option<&Event<T>> {
        let turn = self.turns.get(self.turns.len().checked_sub(count + 1)?)?;
        self.due[turn.place as usize].0.as_ref()
    }

    /// Moves to the next window that has events; says whether there is one that begins up to `limit`.
    fn advance(&mut self, limit: u64) -> bool {
        self.due.clear();
        'moved: while self.len > 0 {
            for level in 0..LEVELS {
                let shift = 8 * level;
                let current = (self.window >> shift) as usize & (SLOTS - 1);
                let Some(slot) = self.levels[level].next_after(current) else { continue };
                let above = self.window.checked_shr(shift as u32 + 8).unwrap_or(0).checked_shl(shift as u32 + 8).unwrap_or(0);
                let start = above | ((slot as u64) << shift);
                if start > limit >> self.window_bits {
                    return false;
                }
                self.window = start;
                self.empty(level, slot);
                if self.due.is_empty() {
                    continue 'moved;
                }
                self.put_in_order(limit);
                return !self.turns.is_empty();
            }
            unreachable!("{} events wait, yet no slot holds one", self.len);
        }
        false
    }

    /// Moves the events of a slot to where they belong now: to the current window, or to a lower level.
    fn empty(&mut self, level: usize, slot: usize) {
        let Level { occupied, first } = &mut self.levels[level];
        occupied[slot / 64] &= !(1 << (slot % 64));
        let mut at = std::mem::replace(&mut first[slot], NONE);
        while at != NONE {
            let mut events = std::mem::take(&mut self.pieces[at as usize].events);
            for event in events.drain(..) {
                // The slots of the lowest level are one window each.
                match level == 0 || event.at >> self.window_bits == self.window {
                    true => self.due.push(Place(Some(event))),
                    false => self.place(event),
                }
            }
            let piece = &mut self.pieces[at as usize];
            piece.events = events;
            at = std::mem::replace(&mut piece.next, std::mem::replace(&mut self.free, at));
        }
    }

    /// Puts in order what is left of the window; by node only up to `limit`, or a node would be ahead of others.
    fn put_in_order(&mut self, limit: u64) {
        let end = (self.window << self.window_bits) + ((1 << self.window_bits) - 1);
        self.settled = if self.is_by_node { limit.min(end) } else { end };
        self.held = 0;
        for (event, place) in self.due.iter().zip(0..) {
            match &event.0 {
                Some(event) if event.at <= self.settled => self.turns.push(Turn { key: self.key(event), place }),
                Some(_) => self.held += 1,
                None => {}
            }
        }
        self.turns.sort_unstable_by_key(|turn| std::cmp::Reverse(turn.key));
        // Few are of the same moment and destination.
        for same in self.turns.chunk_by_mut(|a, b| a.key == b.key).filter(|same| same.len() > 1) {
            same.sort_unstable_by_key(|turn| std::cmp::Reverse(cause_at(&self.due, turn.place)));
        }
    }
}

/// Whose event lies at a place, and which of its events it is.
fn cause_at<T>(due: &[Place<T>], place: u32) -> (u32, u64) {
    due[place as usize].0.as_ref().map_or((0, 0), |event| (event.from, event.sequence))
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use meshwork_channels::random::hash;

    use super::*;

    fn event(at: u64, to: u32, from: u32, sequence: u64) -> Event<u64> {
        Event { at, to, from, sequence, what: at ^ sequence }
    }

    #[test]
    fn agrees_with_a_heap_whatever_the_distances() {
        for seed in 0..24 {
            // Windows of all lengths from one microsecond to more than a minute.
            let mut wheel = Wheel::with_windows(seed as u32 % 6 * 5, false);
            let mut heap = BinaryHeap::new();
            let mut now = 0;
            for step in 0..5_000_u64 {
                let draw = |purpose| hash(&[seed, step, purpose]);
                for copy in 0..draw(0) % 3 {
                    // Every level of the wheel, near distances most often.
                    let distance = 1 + (draw(10 + copy) >> (draw(20 + copy) % 64));
                    let event = event(
                        u64::min(now + distance % (1 << 50), u64::MAX),
                        draw(30 + copy) as u32 % 4,
                        draw(40 + copy) as u32 % 4,
                        step * 4 + copy,
                    );
                    heap.push(std::cmp::Reverse((event.at, event.to, event.from, event.sequence)));
                    wheel.push(event);
                }
                let limit = now + (draw(50) >> (14 + draw(60) % 50));
                let expected = heap.peek().filter(|next| next.0.0 <= limit).map(|next| next.0);
                let popped = wheel.pop(limit);
                assert_eq!(popped.as_ref().map(|e| (e.at, e.to, e.from, e.sequence)), expected, "seed {seed}, step {step}");
                if let Some(event) = popped {
                    heap.pop();
                    now = event.at;
                } else {
                    now = limit;
                }
                assert_eq!(wheel.len(), heap.len());
            }
            while let Some(std::cmp::Reverse(next)) = heap.pop() {
                let event = wheel.pop(u64::MAX).unwrap();
                assert_eq!((event.at, event.to, event.from, event.sequence), next);
            }
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn by_node_each_node_sees_the_same_and_nobody_is_ahead_of_a_limit() {
        for seed in 0..30 {
            let length = 1 << (seed % 10);
            let (mut wheel, mut model) = (Wheel::by_node(length), Wheel::new());
            let start: Vec<Event<u64>> = (0..20).map(|node| event(1 + hash(&[seed, u64::from(node)]) % 3_000, node, node, 0)).collect();
            // Each event causes up to two more, one of the node itself and one of another that lies beyond the window.
            let effects = |cause: &Event<u64>| {
                let draw = |purpose| hash(&[seed, cause.at, u64::from(cause.to), cause.sequence, purpose]);
                let mut effects = Vec::new();
                if draw(0) % 8 < 5 {
                    effects.push(event(cause.at + 1 + draw(1) % 700, cause.to, cause.to, hash(&[cause.sequence, 1])));
                }
                if draw(2) % 8 < 4 {
                    effects.push(event(cause.at + length + draw(3) % 4_000, draw(4) as u32 % 20, cause.to, hash(&[cause.sequence, 2])));
                }
                effects.retain(|effect| effect.at < 50_000);
                effects
            };
            let mut seen = [const { Vec::new() }; 2];
            for (wheel, seen) in [&mut wheel, &mut model].into_iter().zip(&mut seen) {
                start.iter().for_each(|event| wheel.push(event.clone()));
                for limit in (0..60_000).step_by(1 + seed as usize * 97) {
                    while let Some(event) = wheel.pop(limit) {
                        assert!(event.at <= limit);
                        effects(&event).into_iter().for_each(|effect| wheel.push(effect));
                        seen.push((event.to, event.at, event.from, event.sequence));
                    }
                    seen.push((u32::MAX, limit, 0, 0));
                }
                assert!(wheel.is_empty());
            }
            // What happened between two limits is the same, in another order.
            let [by_node, by_moment] = &mut seen;
            assert!(by_moment.len() > 100);
            for seen in [&mut *by_node, by_moment] {
                seen.split_mut(|(node, ..)| *node == u32::MAX).for_each(|part| part.sort_unstable());
            }
            assert_eq!(by_node, by_moment, "seed {seed}");
        }
    }

    #[test]
    #[should_panic(expected = "an effect on another node comes after the window of its cause")]
    fn by_node_an_effect_on_another_node_in_the_same_window_is_refused() {
        let mut wheel = Wheel::by_node(64);
        wheel.push(event(65, 0, 0, 0));
        wheel.pop(u64::MAX);
        wheel.push(event(67, 1, 0, 1));
    }

    #[test]
    fn one_moment_is_ordered_by_destination_then_source_then_sequence() {
        let mut wheel = Wheel::new();
        for (to, from, sequence) in [(2, 1, 1), (1, 2, 5), (1, 2, 4), (1, 1, 9)] {
            wheel.push(event(70_000, to, from, sequence));
        }
        let order: Vec<_> = std::iter::from_fn(|| wheel.pop(u64::MAX).map(|e| (e.to, e.from, e.sequence))).collect();
        assert_eq!(order, [(1, 1, 9), (1, 2, 4), (1, 2, 5), (2, 1, 1)]);
    }

    #[test]
    fn a_limit_holds_events_back_and_the_last_moment_can_be_reached() {
        let mut wheel = Wheel::new();
        wheel.push(event(300, 0, 0, 0));
        wheel.push(event(u64::MAX, 0, 0, 1));
        assert!(wheel.pop(299).is_none());
        // The queue did not move past what may still be pushed.
        wheel.push(event(299, 0, 0, 2));
        assert_eq!(wheel.pop(300).unwrap().at, 299);
        assert_eq!(wheel.pop(300).unwrap().at, 300);
        assert_eq!(wheel.pop(u64::MAX).unwrap().at, u64::MAX);
    }

    #[test]
    #[should_panic(expected = "an effect comes after its cause")]
    fn an_effect_at_the_moment_of_its_cause_is_refused() {
        let mut wheel = Wheel::new();
        wheel.push(event(5, 0, 0, 0));
        wheel.pop(5);
        wheel.push(event(5, 0, 0, 1));
    }
}
