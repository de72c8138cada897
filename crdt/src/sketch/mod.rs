//! The content of a replica as a sketch from which a neighbor learns what differs, at a cost that follows the difference alone.
//!
//! An *item* is 64 bits that name an entry: a hash under the key of the cluster, so that who does not know the key cannot choose items that
//! fall together. A sketch is a row of *cells*, each the sum of the items that are mapped to it. Cells of two sketches subtract: what both
//! hold is gone, and a cell in which one item is left gives it away, is emptied by it in all other cells, and so on. The first cells serve a
//! small difference and every further one adds to what the cells before it tell, so the peer sends more until it is enough. Measured, that
//! is 1.37 cells for each item that differs when there are 2,000, 1.42 for 200, and at most 1.78, for five; the paper has 1.35 to 1.72. A key
//! that was written on one side is two items, the old entry and the new one.
//!
//! The source is "Practical Rateless Set Reconciliation" (Yang, Gilad, Alizadeh, SIGCOMM 2024), section 4. Deviations:
//!
//! 1. *A sketch has at most [`CELLS_MAX`] cells*, kept up to date by every insert and remove, where the paper makes an endless row when it is
//!    asked to. A greater difference is compared shard by shard ([`Sketch::of`]), or by rows.
//! 2. *An item's cells are found from the last one down*, which needs no square root and has the probabilities of the paper exactly.
//! 3. *A cell has no count, and 16 bits of checksum, which are added rather than combined by exclusive or*: 10 bytes instead of 16 and more.
//!    One item is left where the checksum is that of the sum of the items, or its negative, and that also says on which side. One in about
//!    2^15 mixtures looks like an item. Most of those are not mapped to the cell and are refused; the others behave as one item more that
//!    differs, found on one side first and on the other one later, when both cancel. Measured, that happens in one decoding of 2,000 items
//!    out of seven and in one of 200 out of seventy, and the cells needed are, to a thousandth, those of a check that is never wrong.
//! 4. *Nothing is done before [`CELLS_MIN`] cells came*, because it is the agreement of all cells that proves a result, and of few cells it
//!    proves little: with 32 a wrong one has a chance below one in 2^30, and is only a list of items that nobody holds.
//!
//! Invariants: a sketch is the one made from scratch of the same items, whatever came and went before; a shorter sketch is the beginning of a
//! longer one; nothing that a peer sends makes a decoder hold more than the cells of our sketch and one item for each of them, or do more
//! than to take out so many items, because each cell gives one item at most.
//!
//! Who holds the entries keeps the sketch and lends it for encoding and decoding; the messages around the cells are not decided here.
//!
//! ```
//! use meshwork_crdt::sketch::{Decoder, Difference, Progress, Sketch};
//!
//! let ours = Sketch::of([1, 2, 3], 64);
//! let theirs = Sketch::of([2, 3, 4], 64);
//! let mut decoder = Decoder::new(&ours);
//! let mut progress = Progress::NeedMore;
//! while progress == Progress::NeedMore {
//!     progress = decoder.feed(&theirs.cells(decoder.wants()));
//! }
//! assert_eq!(progress, Progress::Done(Difference { theirs: vec![4], ours: vec![1] }));
//! ```

mod decoder;
mod mapping;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use meshwork_channels::{Bounded, limits};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::decoder::{Decoder, Difference, Failure, Progress};
use self::mapping::Mapping;

/// Cells of a sketch: enough for some 2,900 items that differ. The mapping starts here, so another number makes other cells.
pub const CELLS_MAX: usize = 4_096;
/// Cells of the shortest sketch that holds anything, and below which no difference is taken for decoded.
pub const CELLS_MIN: usize = 32;
/// Bytes of a cell on the wire, and in memory.
pub const CELL_BYTES: usize = 10;

const _: () = assert!(size_of::<Cell>() == CELL_BYTES);
// The index of the first, and the length.
const _: () = assert!(3 + 2 + CELLS_MAX * CELL_BYTES <= limits::CONTROL_BYTES_MAX, "all cells fit in one frame");

/// The sum of some items.
// Packed, so that all cells of a sketch take 40 KiB instead of 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(2))]
pub struct Cell {
    /// All items, combined by exclusive or.
    items: u64,
    /// The checksums of the items, added; for a difference those of one side less those of the other.
    check: u16,
}

impl Cell {
    fn add(&mut self, item: u64, check: u16) {
        self.items ^= item;
        self.check = self.check.wrapping_add(check);
    }

    fn is_empty(self) -> bool {
        self == Cell::default()
    }
}

// Both numbers use all their bits, so they are written as they are, highest byte first.
impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ([a, b, c, d, e, f, g, h], [i, j]) = (self.items.to_be_bytes(), self.check.to_be_bytes());
        [a, b, c, d, e, f, g, h, i, j].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [a, b, c, d, e, f, g, h, i, j] = <[u8; CELL_BYTES]>::deserialize(deserializer)?;
        Ok(Cell { items: u64::from_be_bytes([a, b, c, d, e, f, g, h]), check: u16::from_be_bytes([i, j]) })
    }
}

/// A part of a sketch on the wire: ten bytes for each cell, and at most five more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells {
    /// The index of the first one.
    pub first: u16,
    /// The cells, in their order.
    pub cells: Bounded<Cell, CELLS_MAX>,
}

/// The first cells of the sketch of a set of items.
///
/// One that never held anything takes no memory beside its own 32 bytes. The others begin with [`CELLS_MIN`] cells and double while that is
/// less than two for each item: whoever inserts asks [`Sketch::is_short`] afterwards, and then calls [`Sketch::grow`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Empty until the first item.
    cells: Vec<Cell>,
    items: usize,
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").field("cells", &self.cells.len()).field("items", &self.items).finish()
    }
}

impl Sketch {
    /// The sketch of nothing.
    pub const fn new() -> Self {
        Sketch { cells: Vec::new(), items: 0 }
    }

    /// A sketch from scratch, such as one of a single shard for the time of a comparison. `cells` is brought within [`CELLS_MIN`] and
    /// [`CELLS_MAX`]; the items must be distinct.
    pub fn of(items: impl IntoIterator<Item = u64>, cells: usize) -> Self {
        let mut sketch = Sketch { cells: vec![Cell::default(); cells.clamp(CELLS_MIN, CELLS_MAX)], items: 0 };
        items.into_iter().for_each(|item| sketch.insert(item));
        sketch
    }

    /// How many items it holds.
    pub fn items(&self) -> usize {
        self.items
    }

    /// How many cells it can give. The cells of nothing are known without being kept, so those are all.
    pub fn cell_count(&self) -> usize {
        if self.cells.is_empty() { CELLS_MAX } else { self.cells.len() }
    }

    /// Adds an item that it does not hold: twice the same one is not a set, and cannot be told apart afterwards.
    pub fn insert(&mut self, item: u64) {
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); CELLS_MIN];
        }
        self.items += 1;
        let mapping = Mapping::of(item);
        self.add(item, mapping, mapping.check());
    }

    /// Takes out an item that it holds.
    pub fn remove(&mut self, item: u64) {
        debug_assert!(self.items > 0, "what is removed was inserted");
        self.items = self.items.saturating_sub(1);
        let mapping = Mapping::of(item);
        self.add(item, mapping, mapping.check().wrapping_neg());
    }

    #[inline]
    fn add(&mut self, item: u64, mapping: Mapping, check: u16) {
        for index in mapping.cells() {
            // Those behind a short sketch are passed over.
            if let Some(cell) = self.cells.get_mut(index) {
                cell.add(item, check);
            }
        }
    }

    /// Whether it should grow: less than two cells for each item find no large difference.
    pub fn is_short(&self) -> bool {
        let cells = self.cells.len();
        cells < CELLS_MAX && cells < 2 * self.items
    }

    /// Doubles the cells. `items` are all that it holds, in any order.
    pub fn grow(&mut self, items: impl IntoIterator<Item = u64>) {
        let first = self.cells.len();
        self.cells.resize((2 * first).clamp(CELLS_MIN, CELLS_MAX), Cell::default());
        let mut count = 0;
        for item in items {
            let mapping = Mapping::of(item);
            for index in mapping.cells().take_while(|index| *index >= first) {
                if let Some(cell) = self.cells.get_mut(index) {
                    cell.add(item, mapping.check());
                }
            }
            count += 1;
        }
        debug_assert_eq!(count, self.items, "a sketch grows by all that it holds");
    }

    /// A part of it for the wire; what of `range` lies behind its last cell is left out.
    pub fn cells(&self, range: Range<usize>) -> Cells {
        let end = range.end.min(self.cell_count());
        let first = range.start.min(end);
        let cells = (first..end).map(|index| self.cells.get(index).copied().unwrap_or_default());
        Cells { first: first as u16, cells: Bounded::first_of(cells) }
    }
}
