//! What was done to the replicated state, and what of it must be there in the end.
//!
//! It follows no replica and merges nothing: it knows what nodes did, in the order of true time, what each of them read just before, and which lives last. From
//! that follow facts about the one state in which all replicas end, by the meaning of each kind alone:
//!
//! - Something is *owed* while a life lasts that is known to have it: the one that did it, or, once that is over, another that was seen to have it then. What
//!   nobody is known to have may be there or not.
//! - Of a plain register there is no older write than the last one owed, by stamp; of a best one no lower score than the best one owed.
//! - A sibling that is owed is there unless somebody who read it wrote over it; if that write is owed too, it is not.
//! - A counter is the sum of what lasting lives added and, of each other life, of what it added up to some moment: its adds travel as one growing sum.
//! - A member that is owed is there unless it was taken out after it was put in, wherever that was: who puts in what was taken out before has not been seen by
//!   the taker, and adding wins. A member that was put in once and taken out by an owed deed is not there, for the taker read it.
//! - A key that was removed, and to which nothing was done after that, is not there. Nothing is said of a key that was used again after its removal: that
//!   depends on who had heard of the removal.
//! - What was written for some time is not there: a run is judged long after that. Equal digests do not tell, so that each replica is asked for this alone.
//! - Whatever is there was put there by somebody.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use meshwork::crdt::{Kind, Value};

use crate::deed::{Change, Deed, Place};

/// So many sums of one counter are told apart; where more are possible, a sum only has to lie between the least and the greatest.
const SUMS_MAX: usize = 4_096;

/// A life of a node: its number, and which.
pub type LifeOf = (u32, u32);

/// Something that a node did, as the world saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What.
    pub change: Change,
    /// The bits of its stamp.
    pub stamp: u64,
    /// Of a [`Deed::Put`]: the numbers of the siblings that the node read before.
    pub saw: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    by: LifeOf,
    /// A life that has it, as far as is known.
    holder: LifeOf,
    deed: Deed,
    stamp: u64,
    saw: Vec<u32>,
}

/// What was done so far.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    places: BTreeMap<Place, Vec<Entry>>,
    /// By life: the entries of which it is the holder.
    held: BTreeMap<LifeOf, Vec<(Place, usize)>>,
    /// What was written for some time.
    brief: BTreeSet<(Place, u32)>,
    /// By node with a disk: the entries that are on it.
    durable: BTreeMap<u32, Vec<(Place, usize)>>,
}

/// What is wrong, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How often.
    pub count: u64,
    /// The first of them, in words.
    pub first: Option<String>,
}

impl Found {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }
}

/// What is to be said of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgment {
    /// Facts that it was held against.
    pub facts: u64,
    /// What it must have and has not.
    pub lost: Found,
    /// What it must not have and has.
    pub resurrected: Found,
}

impl Judgment {
    /// Something must be there.
    fn present(&mut self, is_there: bool, what: impl FnOnce() -> String) {
        self.facts += 1;
        if !is_there {
            self.lost.add(what);
        }
    }

    /// Something must not be there.
    fn absent(&mut self, is_there: bool, what: impl FnOnce() -> String) {
        self.facts += 1;
        if is_there {
            self.resurrected.add(what);
        }
    }
}

/// The number that a value or a member begins with.
pub(crate) fn number(bytes: &Bytes) -> u32 {
    bytes.first_chunk().map_or(u32::MAX, |number| u64::from_le_bytes(*number) as u32)
}

/// The numbers of what one reads of a key: its values or its members.
pub(crate) fn numbers(value: Option<&Value>) -> Vec<u32> {
    match value {
        Some(Value::Lww(value) | Value::Best(_, value)) => vec![number(value)],
        Some(Value::Mv(siblings)) => siblings.iter().map(|written| number(&written.value)).collect(),
        Some(Value::Set(members) | Value::GSet(members)) => members.iter().map(number).collect(),
        Some(Value::Count(_) | Value::GCount(_)) | None => Vec::new(),
    }
}

impl Ledger {
    /// Takes in what a life did.
    pub fn take(&mut self, by: LifeOf, done: &Done) {
        let Done { change: Change { place, deed }, stamp, saw } = done;
        let entries = self.places.entry(*place).or_default();
        self.held.entry(by).or_default().push((*place, entries.len()));
        if let Deed::SetFor { write, .. } = deed {
            self.brief.insert((*place, *write));
        }
        entries.push(Entry { by, holder: by, deed: *deed, stamp: *stamp, saw: saw.clone() });
    }

    /// A life is over: what it held is owed on if one of these lives, which last, has it.
    pub fn ended(&mut self, life: LifeOf, lasting: &[LifeOf], read: &dyn Fn(u32, Place) -> Option<Value>) {
        for (place, index) in self.held.remove(&life).unwrap_or_default() {
            let Some(entries) = self.places.get_mut(&place) else { continue };
            if entries[index].holder != life {
                // It went on with the disk of another already.
                continue;
            }
            if brought(entries[index].deed).is_none() {
                // Of a sum or a removal nobody can say that this one has it.
                continue;
            }
            let holder = lasting.iter().find(|(node, _)| has(entries, index, read(*node, place).as_ref()));
            if let Some(holder) = holder {
                entries[index].holder = *holder;
                self.held.entry(*holder).or_default().push((place, index));
            }
        }
    }

    /// Something that a replica shows and that has expired.
    pub fn unexpired(&self, read: &dyn Fn(Place) -> Option<Value>) -> Option<String> {
        let (place, write) = self.brief.iter().find(|(place, write)| numbers(read(*place).as_ref()).contains(write))?;
        Some(format!("{} holds write {write}, which expired", place.name()))
    }

    /// All that a life did, and what it began with, is on its disk.
    pub fn synced(&mut self, life: LifeOf) {
        self.durable.insert(life.0, self.held.get(&life).cloned().unwrap_or_default());
    }

    /// A life begins with what an earlier one had on its disk, so it is the one that has that now.
    pub fn restored(&mut self, life: LifeOf) {
        let durable = self.durable.get(&life.0).cloned().unwrap_or_default();
        for (place, index) in &durable {
            if let Some(entry) = self.places.get_mut(place).and_then(|entries| entries.get_mut(*index)) {
                entry.holder = life;
            }
        }
        self.held.entry(life).or_default().extend(durable);
    }

    /// Holds a replica against all that is known.
    pub fn judge(&self, lasts: &dyn Fn(LifeOf) -> bool, read: &dyn Fn(Place) -> Option<Value>) -> Judgment {
        let mut judgment = Judgment::default();
        for (place, entries) in &self.places {
            let owed: Vec<bool> = entries.iter().map(|entry| lasts(entry.holder)).collect();
            let value = read(*place);
            Case { place: *place, entries, owed: &owed, value: value.as_ref(), judgment: &mut judgment }.judge();
        }
        judgment
    }
}

/// Whether a node that reads this of a key is sure to have an entry, or what replaced it.
fn has(entries: &[Entry], index: usize, value: Option<&Value>) -> bool {
    let there = numbers(value);
    match entries[index].deed {
        Deed::Set { .. } | Deed::SetFor { .. } => entries
            .iter()
            .any(|other| brought(other.deed).is_some_and(|write| there.contains(&write)) && other.stamp >= entries[index].stamp),
        Deed::Best { score, .. } => matches!(value, Some(Value::Best(best, _)) if *best >= f64::from(score)),
        Deed::Put { write: number } | Deed::Insert { member: number } | Deed::Include { member: number } => there.contains(&number),
        // A sum does not tell whose it is, and what is not there may never have been.
        Deed::Add { .. } | Deed::Grow { .. } | Deed::Take { .. } | Deed::Remove => false,
    }
}

/// One key of one replica.
struct Case<'a> {
    place: Place,
    entries: &'a [Entry],
    owed: &'a [bool],
    value: Option<&'a Value>,
    judgment: &'a mut Judgment,
}

impl Case<'_> {
    fn judge(&mut self) {
        let there = numbers(self.value);
        let known: BTreeSet<u32> = self.entries.iter().filter_map(|entry| brought(entry.deed)).collect();
        for number in there.iter().filter(|number| !known.contains(number)) {
            self.judgment.absent(true, || format!("{} holds {number}, which nobody put there", self.place.name()));
        }
        if self.place.kind == Kind::Lww {
            return self.judge_lww(&there);
        }
        let removal = self.entries.iter().position(|entry| entry.deed == Deed::Remove);
        if let Some(first) = removal {
            let is_last = self.entries[first..].iter().all(|entry| entry.deed == Deed::Remove);
            if is_last && self.owed[first..].contains(&true) {
                self.judgment.absent(self.value.is_some(), || format!("{} is there, and was removed", self.place.name()));
            }
            return;
        }
        match self.place.kind {
            Kind::Lww => {}
            Kind::Best => self.judge_best(),
            Kind::Mv => self.judge_mv(&there),
            Kind::Count | Kind::GCount => self.judge_count(),
            Kind::Set => self.judge_set(&there),
            Kind::GSet => {
                for (entry, _) in self.entries.iter().zip(self.owed).filter(|(_, owed)| **owed) {
                    if let Deed::Include { member } = entry.deed {
                        self.judgment.present(there.contains(&member), || missing(self.place, entry, "member", member));
                    }
                }
            }
        }
    }

    fn owed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().zip(self.owed).filter(|(_, owed)| **owed).map(|(entry, _)| entry)
    }

    fn judge_lww(&mut self, there: &[u32]) {
        let Some(last) = self.owed().max_by_key(|entry| entry.stamp).cloned() else { return };
        // Equal stamps of two nodes are told apart by their names; either may be the last here.
        let from = |deed: &dyn Fn(Deed) -> bool| self.entries.iter().any(|entry| entry.stamp >= last.stamp && deed(entry.deed));
        let is_new = match there.first() {
            Some(number) => from(&|deed| brought(deed) == Some(*number)),
            None => from(&|deed| matches!(deed, Deed::Remove | Deed::SetFor { .. })),
        };
        let is_over = !is_new && !there.is_empty();
        match last.deed {
            Deed::Set { write } => self.judgment.present(is_new, || missing(self.place, &last, "write", write)),
            _ => self
                .judgment
                .absent(is_over, || format!("{} holds an older write than its removal, or than one that expired", self.place.name())),
        }
    }

    fn judge_best(&mut self) {
        let best = self.owed().filter_map(|entry| match entry.deed {
            Deed::Best { score, .. } => Some((score, entry)),
            _ => None,
        });
        let Some((score, entry)) = best.max_by_key(|(score, _)| *score) else { return };
        let entry = entry.clone();
        let is_there = matches!(self.value, Some(Value::Best(held, _)) if *held >= f64::from(score));
        self.judgment.present(is_there, || missing(self.place, &entry, "score", score));
    }

    fn judge_mv(&mut self, there: &[u32]) {
        let mut over = BTreeMap::<u32, bool>::new();
        for (entry, owed) in self.entries.iter().zip(self.owed) {
            entry.saw.iter().for_each(|seen| *over.entry(*seen).or_default() |= *owed);
        }
        for (entry, owed) in self.entries.iter().zip(self.owed) {
            let Deed::Put { write } = entry.deed else { continue };
            match over.get(&write) {
                None if *owed => self.judgment.present(there.contains(&write), || missing(self.place, entry, "write", write)),
                Some(true) => {
                    let name = self.place.name();
                    self.judgment.absent(there.contains(&write), || format!("{name} holds write {write}, which was written over"));
                }
                _ => {}
            }
        }
    }

    fn judge_count(&mut self) {
        let mut base = 0;
        let mut others = BTreeMap::<LifeOf, Vec<i128>>::new();
        for (entry, owed) in self.entries.iter().zip(self.owed) {
            let by = match entry.deed {
                Deed::Add { by } => i128::from(by),
                Deed::Grow { by } => i128::from(by),
                _ => continue,
            };
            if *owed {
                base += by;
            } else {
                let sums = others.entry(entry.by).or_insert_with(|| vec![0]);
                sums.push(sums.last().copied().unwrap_or(0) + by);
            }
        }
        let (mut least, mut most) = (base, base);
        let mut possible = BTreeSet::from([base]);
        for sums in others.values() {
            least += sums.iter().min().copied().unwrap_or(0);
            most += sums.iter().max().copied().unwrap_or(0);
            if possible.len() * sums.len() <= SUMS_MAX && !possible.is_empty() {
                possible = possible.iter().flat_map(|sum| sums.iter().map(move |more| sum + more)).collect();
            } else {
                possible.clear();
            }
        }
        let sum = match self.value {
            Some(Value::Count(sum)) => i128::from(*sum),
            Some(Value::GCount(sum)) => i128::from(*sum),
            _ => 0,
        };
        let is_right = (least..=most).contains(&sum) && (possible.is_empty() || possible.contains(&sum));
        let what = || format!("{} is {sum} and must be from {least} to {most}, of {} sums", self.place.name(), possible.len());
        if sum > most {
            self.judgment.absent(true, what);
        } else {
            self.judgment.present(is_right, what);
        }
    }

    fn judge_set(&mut self, there: &[u32]) {
        let members: BTreeSet<u32> = self.entries.iter().filter_map(|entry| brought(entry.deed)).collect();
        for member in members {
            let (mut inserts, mut is_taken, mut owed_since, mut is_taken_for_good) = (0, false, None, false);
            for (index, entry) in self.entries.iter().enumerate() {
                if entry.deed == (Deed::Insert { member }) {
                    inserts += 1;
                    owed_since = owed_since.or(Some(index).filter(|index| self.owed[*index]));
                } else if entry.deed == (Deed::Take { member }) {
                    (is_taken, owed_since) = (true, None);
                    is_taken_for_good |= self.owed[index];
                }
            }
            if let Some(index) = owed_since {
                self.judgment.present(there.contains(&member), || missing(self.place, &self.entries[index], "member", member));
            } else if inserts == 1 && is_taken && is_taken_for_good {
                let name = self.place.name();
                self.judgment.absent(there.contains(&member), || format!("{name} holds member {member}, which was taken out"));
            }
        }
    }
}

/// The number of what a deed puts into a key, if it is one that can be read there.
fn brought(deed: Deed) -> Option<u32> {
    match deed {
        Deed::Set { write } | Deed::SetFor { write, .. } | Deed::Best { write, .. } | Deed::Put { write } => Some(write),
        Deed::Insert { member } | Deed::Include { member } => Some(member),
        Deed::Add { .. } | Deed::Grow { .. } | Deed::Take { .. } | Deed::Remove => None,
    }
}

fn missing(place: Place, entry: &Entry, what: &str, number: u32) -> String {
    let ((by, life), (node, _)) = (entry.by, entry.holder);
    format!("{} lacks {what} {number} of node {by} in its life {life}, which node {node} has", place.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork::crdt::Stamp;
    use meshwork::crdt::value::Written;
    use meshwork_channels::PeerId;

    fn bytes(number: u32) -> Bytes {
        Bytes::copy_from_slice(&u64::from(number).to_le_bytes())
    }

    fn mv(numbers: &[u32]) -> Option<Value> {
        let written = |number: &u32| Written { stamp: Stamp::ZERO, origin: PeerId::from_bytes([0; 32]), value: bytes(*number) };
        Some(Value::Mv(numbers.iter().map(written).collect()))
    }

    fn set(numbers: &[u32]) -> Option<Value> {
        Some(Value::Set(numbers.iter().copied().map(bytes).collect()))
    }

    /// What is lost and what is back where a key holds a value, after deeds of nodes, each with its stamp and what it saw; nodes from 10 on are dead.
    fn found(kind: Kind, deeds: &[(u32, Deed, u64, &[u32])], value: Option<Value>) -> (u64, u64) {
        let place = Place { kind, key: 0 };
        let mut ledger = Ledger::default();
        for (node, deed, stamp, saw) in deeds {
            ledger.take((*node, 1), &Done { change: Change { place, deed: *deed }, stamp: *stamp, saw: saw.to_vec() });
        }
        let judgment = ledger.judge(&|(node, _)| node < 10, &|_| value.clone());
        assert_eq!(judgment.lost.first.is_some(), judgment.lost.count > 0);
        (judgment.lost.count, judgment.resurrected.count)
    }

    #[test]
    fn of_a_register_the_last_stamp_counts_and_not_the_last_write() {
        let deeds: &[(u32, Deed, u64, &[u32])] =
            &[(0, Deed::Set { write: 1 }, 5, &[]), (1, Deed::Set { write: 2 }, 4, &[]), (10, Deed::Set { write: 3 }, 9, &[])];
        let holds = |number| found(Kind::Lww, deeds, Some(Value::Lww(bytes(number))));
        assert_eq!((holds(1), holds(3)), ((0, 0), (0, 0)), "what a dead node wrote may be there");
        assert_eq!((holds(2), holds(7), found(Kind::Lww, deeds, None)), ((1, 0), (1, 1), (1, 0)));
        let removed = [deeds, &[(1, Deed::Remove, 6, &[])]].concat();
        assert_eq!(found(Kind::Lww, &removed, Some(Value::Lww(bytes(1)))), (0, 1));
        assert_eq!(found(Kind::Lww, &removed, None), (0, 0));
        let expired = [deeds, &[(1, Deed::SetFor { write: 4, seconds: 1 }, 6, &[])]].concat();
        assert_eq!(found(Kind::Lww, &expired, None), (0, 0));
        assert_eq!(found(Kind::Lww, &expired, Some(Value::Lww(bytes(1)))), (0, 1), "it had been written over");
        assert_eq!(found(Kind::Lww, &expired, Some(Value::Lww(bytes(3)))), (0, 0), "and this wrote over that");
        let mut ledger = Ledger::default();
        let change = Change::plain(0, Deed::SetFor { write: 4, seconds: 1 });
        ledger.take((0, 1), &Done { change, stamp: 1, saw: Vec::new() });
        let shows = |number| ledger.unexpired(&|_| Some(Value::Lww(bytes(number)))).is_some();
        assert_eq!((shows(4), shows(1)), (true, false));
    }

    #[test]
    fn a_sum_has_every_lasting_add_and_of_each_other_life_the_first_ones() {
        let deeds: &[(u32, Deed, u64, &[u32])] = &[
            (0, Deed::Add { by: 1_000 }, 1, &[]),
            (10, Deed::Add { by: 1 }, 2, &[]),
            (10, Deed::Add { by: 10 }, 3, &[]),
            (11, Deed::Add { by: -100 }, 4, &[]),
        ];
        let is = |sum| found(Kind::Count, deeds, Some(Value::Count(sum)));
        for right in [1_000, 1_001, 1_011, 900, 901, 911] {
            assert_eq!(is(right), (0, 0), "{right}");
        }
        assert_eq!((is(1_010), is(910), is(0), is(1_012)), ((1, 0), (1, 0), (1, 0), (0, 1)));
        assert_eq!(found(Kind::Count, deeds, None), (1, 0));
        assert_eq!(found(Kind::GCount, &[(0, Deed::Grow { by: 3 }, 1, &[])], Some(Value::GCount(6))), (0, 1), "counted twice");
    }

    #[test]
    fn adding_wins_over_a_take_that_came_first_and_a_take_over_what_it_saw() {
        let insert = |node| (node, Deed::Insert { member: 1 }, 0, &[][..]);
        let take = |node| (node, Deed::Take { member: 1 }, 0, &[][..]);
        assert_eq!(found(Kind::Set, &[insert(0), take(1), insert(2)], set(&[])), (1, 0));
        assert_eq!(found(Kind::Set, &[insert(0), take(1)], set(&[1])), (0, 1));
        assert_eq!(found(Kind::Set, &[insert(0), take(10)], set(&[1])), (0, 0), "the taker died");
        assert_eq!(found(Kind::Set, &[insert(0), insert(2), take(1)], set(&[1])), (0, 0), "the taker may have seen one of two");
        assert_eq!(found(Kind::Set, &[insert(0)], set(&[1, 9])), (0, 1), "nobody put the other there");
        assert_eq!(found(Kind::GSet, &[(0, Deed::Include { member: 4 }, 0, &[])], None), (1, 0));
    }

    #[test]
    fn siblings_stay_until_somebody_writes_over_them() {
        let deeds: &[(u32, Deed, u64, &[u32])] =
            &[(0, Deed::Put { write: 1 }, 0, &[]), (1, Deed::Put { write: 2 }, 0, &[]), (2, Deed::Put { write: 3 }, 0, &[1])];
        assert_eq!(found(Kind::Mv, deeds, mv(&[2, 3])), (0, 0));
        assert_eq!((found(Kind::Mv, deeds, mv(&[3])), found(Kind::Mv, deeds, mv(&[1, 2, 3]))), ((1, 0), (0, 1)));
        let best = |score, write| (0, Deed::Best { score, write }, 0, &[][..]);
        let holds = |score, write| found(Kind::Best, &[best(5, 1), best(3, 2)], Some(Value::Best(score, bytes(write))));
        assert_eq!((holds(5.0, 1), holds(3.0, 2)), ((0, 0), (1, 0)));
    }

    #[test]
    fn a_removal_counts_if_nothing_was_done_after_it() {
        let deeds: &[(u32, Deed, u64, &[u32])] = &[(0, Deed::Add { by: 1 }, 0, &[]), (1, Deed::Remove, 0, &[])];
        assert_eq!((found(Kind::Count, deeds, Some(Value::Count(1))), found(Kind::Count, deeds, None)), ((0, 1), (0, 0)));
        let used_again = [deeds, &[(0, Deed::Add { by: 1 }, 0, &[])]].concat();
        assert_eq!(found(Kind::Count, &used_again, None), (0, 0), "whoever added may not have heard of the removal");
    }
}
