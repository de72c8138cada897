//! Finds what differs between a sketch of ours and the cells of a peer, as they come.

use std::ops::Range;

use super::mapping::Mapping;
use super::{CELLS_MAX, CELLS_MIN, Cell, Cells, Sketch};

/// What differs, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Items that only the peer holds. They are its word: it need not hold anything of these names.
    pub theirs: Vec<u64>,
    /// Items that only we hold. A peer that lies can name others: look them up.
    pub ours: Vec<u64>,
}

/// How far a decoder came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next cells are needed.
    NeedMore,
    /// All cells that came agree with this.
    Done(Difference),
    /// It will not succeed.
    Failed(Failure),
}

/// Why decoding failed. Compare in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No cell is left on one of both sides: the difference is too large for the sketch.
    Exhausted,
    /// The cells do not begin where those before them ended. They had no effect.
    OutOfOrder,
    /// The cells contradict each other. They were made up, or come from a sketch that changed in between.
    Contradictory,
}

/// The state of one comparison: the cells of our sketch and what was found, at most 108 KiB. The peer's cells must all come from one state of
/// its sketch.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The cells of the peer that came less ours, or ours alone where none came yet; in all of them, less what was found.
    cells: Vec<Cell>,
    /// How many cells of the peer came.
    received: usize,
    /// The items that were taken out, in that order; `true` for those of the peer.
    pub(super) peeled: Vec<(u64, bool)>,
    /// Cells that came and may hold one item.
    single: Marks,
    /// Cells that gave an item. None gives a second one: an honest cell is empty afterwards, and in made-up cells two items can put each
    /// other back for ever. So can a mixture that was taken for an item, until this stops it.
    spent: Marks,
}

impl Decoder {
    /// Begins a comparison with a copy of our sketch as it is now.
    pub fn new(ours: &Sketch) -> Self {
        let mut cells = ours.cells.clone();
        cells.resize(ours.cell_count(), Cell::default());
        cells.iter_mut().for_each(|cell| cell.check = cell.check.wrapping_neg());
        Decoder { cells, received: 0, peeled: Vec::new(), single: Marks::default(), spent: Marks::default() }
    }

    /// How many cells came.
    pub fn received(&self) -> usize {
        self.received
    }

    /// The cells to ask for next: as many as came already, so that a large difference takes few questions and at most twice the bytes.
    pub fn wants(&self) -> Range<usize> {
        self.received..(2 * self.received).max(CELLS_MIN).min(self.cells.len())
    }

    /// Takes the next cells of the peer, however many; what lies behind our last cell is not used.
    pub fn feed(&mut self, chunk: &Cells) -> Progress {
        if usize::from(chunk.first) != self.received {
            return Progress::Failed(Failure::OutOfOrder);
        }
        let first = self.received;
        for (index, theirs) in (first..).zip(chunk.cells.iter()) {
            let Some(cell) = self.cells.get_mut(index) else { break };
            cell.add(theirs.items, theirs.check);
            self.received += 1;
            if side(*cell).is_some() {
                self.single.set(index);
            }
        }
        while let Some(index) = self.single.take() {
            self.peel(index);
        }
        if self.is_solved() && self.received >= CELLS_MIN {
            return self.difference().map_or(Progress::Failed(Failure::Contradictory), Progress::Done);
        }
        if self.received == self.cells.len() || chunk.cells.is_empty() { Progress::Failed(Failure::Exhausted) } else { Progress::NeedMore }
    }

    /// Takes the one item that is left in a cell out of all cells, those that did not come yet included.
    fn peel(&mut self, index: usize) {
        // It may have changed since it was marked.
        let Some(is_theirs) = side(self.cells[index]) else { return };
        let item = self.cells[index].items;
        let mapping = Mapping::of(item);
        // Not an item but a mixture that looks like one: it would stay where it is.
        if self.spent.has(index) || !mapping.cells().any(|mapped| mapped == index) {
            return;
        }
        self.spent.set(index);
        let check = if is_theirs { mapping.check().wrapping_neg() } else { mapping.check() };
        for index in mapping.cells() {
            let Some(cell) = self.cells.get_mut(index) else { continue };
            cell.add(item, check);
            if index < self.received && side(*cell).is_some() {
                self.single.set(index);
            }
        }
        self.peeled.push((item, is_theirs));
    }

    /// Whether nothing is left in the cells that came. Every item is in the first one, so nearly always that one answers.
    pub(super) fn is_solved(&self) -> bool {
        self.received > 0 && self.cells[..self.received].iter().all(|cell| cell.is_empty())
    }

    /// What was found, or nothing when an item was found more often on one side than a set can hold it.
    fn difference(&self) -> Option<Difference> {
        let mut peeled = self.peeled.clone();
        peeled.sort_unstable();
        let mut difference = Difference::default();
        for same in peeled.chunk_by(|one, other| one.0 == other.0) {
            let theirs = same.iter().filter(|(_, is_theirs)| *is_theirs).count();
            // An item on both sides was a mixture that cancelled out.
            match (theirs, same.len() - theirs) {
                (theirs, ours) if theirs == ours => {}
                (theirs, ours) if theirs == ours + 1 => difference.theirs.push(same[0].0),
                (theirs, ours) if theirs + 1 == ours => difference.ours.push(same[0].0),
                _ => return None,
            }
        }
        Some(difference)
    }
}

/// On which side the one item of a cell is; `true` for the peer. None if there is not one item, and rarely one although there are more.
#[inline]
fn side(cell: Cell) -> Option<bool> {
    // Every checksum is odd: half of the cells need no hash.
    if cell.check & 1 == 0 {
        return None;
    }
    let check = Mapping::of(cell.items).check();
    if cell.check == check { Some(true) } else { (cell.check == check.wrapping_neg()).then_some(false) }
}

/// A set of indices of cells.
#[derive(Clone, Debug)]
struct Marks {
    words: [u64; CELLS_MAX / 64],
    /// Words that are not zero.
    used: u64,
}

const _: () = assert!(CELLS_MAX == 64 * 64, "one word tells which words are used");

impl Default for Marks {
    fn default() -> Self {
        Marks { words: [0; CELLS_MAX / 64], used: 0 }
    }
}

impl Marks {
    fn set(&mut self, index: usize) {
        self.words[index / 64] |= 1 << (index % 64);
        self.used |= 1 << (index / 64);
    }

    fn has(&self, index: usize) -> bool {
        self.words[index / 64] & (1 << (index % 64)) != 0
    }

    /// Takes out the first one.
    fn take(&mut self) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        let at = self.used.trailing_zeros() as usize;
        let word = &mut self.words[at];
        let index = 64 * at + word.trailing_zeros() as usize;
        *word &= *word - 1;
        if *word == 0 {
            self.used &= self.used - 1;
        }
        Some(index)
    }
}
