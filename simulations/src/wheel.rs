//! The queue of what will happen: a hierarchical timing wheel in microseconds (Varghese and Lauck, SOSP 1987).
//!
//! A heap pays a logarithm and several cache misses for each event; the wheel pays a constant. Time is cut into windows of a few microseconds.
//! The level of an event is the highest byte in which the number of its window differs from the current one, its slot is that byte, so a slot
//! is emptied into lower levels when its turn comes and an event moves at most once for each level. The current window is sorted, which also
//! tells a little ahead what will happen next ([`Wheel::ahead`]).
//!
//! Events of one moment come out ordered by (destination, source, sequence of the source). No global counter takes part, so the order does
//! not depend on who pushed first, and a run gives the same digest however its nodes are spread over threads.
//!
//! Invariant: an event lies in the future when it is pushed, so a moment is complete when its first event comes out.

/// Slots of one level: one for each value of a byte.
const SLOTS: usize = 256;
/// Levels: one for each byte of a moment.
const LEVELS: usize = 8;
/// The length of a window is two to this power, in microseconds: a million nodes have some hundred events in one.
const WINDOW_BITS: u32 = 5;
/// A slot that grew beyond this gives its memory back once emptied: a burst at one far moment must not stay allocated for ever.
const KEPT_CAPACITY_MAX: usize = 64;

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

impl<T> Event<T> {
    fn key(&self) -> (u64, u32, u32, u64) {
        (self.at, self.to, self.from, self.sequence)
    }

    fn window(&self) -> u64 {
        self.at >> WINDOW_BITS
    }
}

#[derive(Clone, Debug)]
struct Level<T> {
    /// Which slots hold events.
    occupied: [u64; SLOTS / 64],
    slots: Vec<Vec<Event<T>>>,
}

impl<T> Level<T> {
    fn new() -> Self {
        Level { occupied: [0; SLOTS / 64], slots: (0..SLOTS).map(|_| Vec::new()).collect() }
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

/// The queue.
#[derive(Clone, Debug)]
pub struct Wheel<T> {
    /// The moment of the event that was taken last.
    now: u64,
    window: u64,
    len: usize,
    /// The events of the current window, the next one last.
    due: Vec<Event<T>>,
    levels: Vec<Level<T>>,
    /// A slot that is being emptied; kept for its memory.
    spare: Vec<Event<T>>,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Wheel { now: 0, window: 0, len: 0, due: Vec::new(), levels: (0..LEVELS).map(|_| Level::new()).collect(), spare: Vec::new() }
    }
}

impl<T> Wheel<T> {
    /// An empty wheel at moment 0.
    pub fn new() -> Self {
        Self::default()
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
    /// limit up to which nothing more was found.
    pub fn push(&mut self, event: Event<T>) {
        assert!(event.at > self.now, "an event at {} was pushed at {}: an effect comes after its cause", event.at, self.now);
        self.len += 1;
        self.place(event);
    }

    /// Puts an event into its slot. In the current window it takes its place in the order.
    fn place(&mut self, event: Event<T>) {
        let window = event.window();
        let differing = window ^ self.window;
        if differing == 0 {
            let at = self.due.partition_point(|other| other.key() > event.key());
            self.due.insert(at, event);
            return;
        }
        let level = (63 - differing.leading_zeros() as usize) / 8;
        let slot = (window >> (8 * level)) as usize & (SLOTS - 1);
        self.levels[level].occupied[slot / 64] |= 1 << (slot % 64);
        self.levels[level].slots[slot].push(event);
    }

    /// Takes the next event whose moment is not after `limit`.
    pub fn pop(&mut self, limit: u64) -> Option<Event<T>> {
        if self.due.is_empty() && !self.advance(limit) {
            return None;
        }
        let event = self.due.pop_if(|event| event.at <= limit)?;
        self.len -= 1;
        self.now = event.at;
        Some(event)
    }

    /// The event that will be taken after `count` others, if it lies in the current window and nothing comes in between.
    pub fn ahead(&self, count: usize) -> Option<&Event<T>> {
        self.due.get(self.due.len().checked_sub(count + 1)?)
    }

    /// Moves to the next window that has events; says whether there is one that begins up to `limit`.
    fn advance(&mut self, limit: u64) -> bool {
        'moved: while self.len > 0 {
            for level in 0..LEVELS {
                let shift = 8 * level;
                let current = (self.window >> shift) as usize & (SLOTS - 1);
                let Some(slot) = self.levels[level].next_after(current) else { continue };
                let above = self.window.checked_shr(shift as u32 + 8).unwrap_or(0).checked_shl(shift as u32 + 8).unwrap_or(0);
                let start = above | ((slot as u64) << shift);
                if start > limit >> WINDOW_BITS {
                    return false;
                }
                self.window = start;
                self.levels[level].occupied[slot / 64] &= !(1 << (slot % 64));
                if level == 0 {
                    // Its events are all of this one window.
                    std::mem::swap(&mut self.due, &mut self.levels[0].slots[slot]);
                    self.sort_due();
                    return true;
                }
                let mut events = std::mem::replace(&mut self.levels[level].slots[slot], std::mem::take(&mut self.spare));
                for event in events.drain(..) {
                    match event.window() == start {
                        true => self.due.push(event),
                        false => self.place(event),
                    }
                }
                if events.capacity() <= KEPT_CAPACITY_MAX {
                    self.spare = events;
                }
                if self.due.is_empty() {
                    continue 'moved;
                }
                self.sort_due();
                return true;
            }
            unreachable!("{} events wait, yet no slot holds one", self.len);
        }
        false
    }

    fn sort_due(&mut self) {
        if self.due.len() > 1 {
            self.due.sort_unstable_by_key(|event| std::cmp::Reverse(event.key()));
        }
    }
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
        for seed in 0..20 {
            let mut wheel = Wheel::new();
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
