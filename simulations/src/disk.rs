//! The disk of a simulated node: the files of the replicated state in memory, and what a crash leaves of them.
//!
//! The files are those of a real node, a snapshot and its log, written and read by [`meshwork::crdt::journal`]; the policy is that of a node by default: all that
//! came together is synced some time after the first of it. A crash leaves what was synced, and of the rest any beginning, or holes in it. Beside the files stands
//! what they must give back, and [`Disk::recover`] says so when they do not.
//!
//! What it holds: the files, and an image of what was synced, which shares keys and registers with the replica. Nodes whose disk no plan keeps have none.

use meshwork::crdt::journal::{End, HEAD_BYTES, Head, Image, Kind, Record, Records, Writer};
use meshwork_channels::random::hash;

/// A log that is longer than this, and than twice what a snapshot takes, gives way to a snapshot: a small one, so that many crashes meet one.
const LOG_BYTES_MIN: usize = 16 * 1_024;
/// Feeds the salts of files.
const SALT: u64 = 0x7361_6c74;

/// What a disk gave back.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The fewest records that amount to what is there.
    pub records: Vec<Record>,
    /// The digest of the replica that they must amount to, if that is known: nothing is there but what was synced.
    pub digest: Option<u128>,
    /// What is wrong with it, in words.
    pub fault: Option<String>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    seed: u64,
    number: u64,
    snapshot: Vec<u8>,
    log: Vec<u8>,
    writer: Writer,
    /// Up to where the log was synced, and up to where it says so.
    synced: usize,
    marked: usize,
    /// What was synced, the digest of the replica then, and what was written since.
    durable: Image,
    digest: u128,
    pending: Vec<Record>,
}

impl Disk {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        let (snapshot, mut log) = (Vec::new(), Vec::new());
        let writer = Writer::begin(Head { kind: Kind::Log, number: 0, salt: 0 }, &mut log);
        let mut disk = Disk {
            seed,
            number: 0,
            snapshot,
            log,
            writer,
            synced: 0,
            marked: 0,
            durable: Image::default(),
            digest: 0,
            pending: Vec::new(),
        };
        disk.begin(Image::default());
        disk
    }

    /// Whether nothing was ever written to it.
    pub fn is_new(&self) -> bool {
        self.number == 1 && self.writer.offset() == HEAD_BYTES as u64
    }

    /// Begins a snapshot and an empty log, durably, in place of what was there.
    fn begin(&mut self, image: Image) {
        self.number += 1;
        let head = |kind| Head { kind, number: self.number, salt: hash(&[self.seed, SALT, self.number, kind as u64]) };
        let (snapshot, log) = (head(Kind::Snapshot), head(Kind::Log));
        self.snapshot.clear();
        let mut writer = Writer::begin(snapshot, &mut self.snapshot);
        image.records().for_each(|record| writer.push(&record, &mut self.snapshot));
        writer.end(&mut self.snapshot);
        self.log.clear();
        self.writer = Writer::begin(log, &mut self.log);
        (self.synced, self.marked) = (self.log.len(), self.log.len());
        self.durable = image;
        self.pending.clear();
    }

    /// Writes records behind those before, without syncing them.
    pub fn append(&mut self, records: Vec<Record>) {
        if self.synced > self.marked {
            self.writer.mark_synced(self.synced as u64, &mut self.log);
            self.marked = self.synced;
        }
        records.iter().for_each(|record| self.writer.push(record, &mut self.log));
        self.pending.extend(records);
    }

    /// Syncs what was written, which is all of a replica with this digest.
    pub fn sync(&mut self, digest: u128) {
        self.synced = self.log.len();
        self.pending.drain(..).for_each(|record| self.durable.apply(record));
        self.digest = digest;
        if self.log.len() > LOG_BYTES_MIN.max(2 * self.durable.bytes()) {
            let image = std::mem::take(&mut self.durable);
            self.begin(image);
        }
    }

    /// The machine ends in the middle of things; says whether that took something. A disk that is not `honest` loses of what it had synced, too.
    pub fn crash(&mut self, draw: u64, honest: bool) -> bool {
        let draw = |what: u64, from: usize, to: usize| from + (hash(&[draw, what]) % (to - from + 1) as u64) as usize;
        let (from, len) = (if honest { self.synced } else { HEAD_BYTES }, self.log.len());
        let kept = draw(0, from, len);
        match draw(1, 0, 2) {
            // Of one that is not honest something must be missing.
            0 if honest => return false,
            0 | 1 => self.log.truncate(kept),
            _ => {
                let end = draw(2, kept, len);
                self.log[kept..end].fill(0);
            }
        }
        kept < len
    }

    /// Reads what is there, and begins anew with it. Whoever goes on from the end of a life has taken it back durably by then.
    pub fn recover(&mut self) -> Recovered {
        let (image, fault) = match self.read() {
            Ok(image) => {
                let is_known = self.amounts_to(&image);
                (
                    image,
                    (!is_known).then(|| {
                        "what it gave back is not what was synced, with or without some of what was written after that".to_owned()
                    }),
                )
            }
            Err(fault) => (Image::default(), Some(fault)),
        };
        let records: Vec<Record> = image.records().collect();
        let digest = (image == self.durable).then_some(self.digest);
        let has_ended = records.iter().any(|record| matches!(record, Record::Ended(_)));
        self.begin(image);
        if has_ended {
            self.append(vec![Record::Begun]);
            self.sync(self.digest);
        }
        Recovered { records, digest, fault }
    }

    fn read(&self) -> Result<Image, String> {
        let mut image = Image::default();
        for (name, bytes) in [("snapshot", &self.snapshot), ("log", &self.log)] {
            let mut records = Records::new(bytes).map_err(|error| format!("the {name}: {error}"))?;
            records.by_ref().for_each(|record| image.apply(record));
            match records.finish() {
                Ok(End::Whole | End::Torn { .. }) => {}
                Err(damage) => return Err(format!("the {name}: {damage}")),
            }
        }
        Ok(image)
    }

    /// Whether an image is what was synced, and after that some of what was written, in its order.
    fn amounts_to(&self, image: &Image) -> bool {
        let mut expected = self.durable.clone();
        if expected == *image {
            return true;
        }
        self.pending.iter().any(|record| {
            expected.apply(record.clone());
            expected == *image
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshwork::crdt::Stamp;

    fn clock(number: u64) -> Record {
        Record::Clock(Stamp::from_bits(number))
    }

    /// The highest clock that a disk gives back on which 5 was synced and 6 to 8 were written, and whether that is as it should be.
    fn after_a_crash(draw: u64, honest: bool) -> (u64, bool) {
        let mut disk = Disk::new(1);
        disk.append((1..=5).map(clock).collect());
        disk.sync(7);
        disk.append((6..=8).map(clock).collect());
        disk.crash(draw, honest);
        let recovered = disk.recover();
        let highest = recovered.records.iter().map(|record| if let Record::Clock(stamp) = record { stamp.to_bits() } else { 0 }).max();
        assert_eq!(recovered.digest, (highest == Some(5)).then_some(7));
        assert_eq!(disk.recover().records, recovered.records, "it begins anew with what it gave back");
        (highest.unwrap_or(0), recovered.fault.is_none())
    }

    #[test]
    fn a_crash_leaves_what_was_synced_and_any_of_the_rest() {
        let left: Vec<(u64, bool)> = (0..100).map(|draw| after_a_crash(draw, true)).collect();
        assert!(left.iter().all(|(highest, is_right)| (5..=8).contains(highest) && *is_right));
        assert!((5..=8).all(|highest| left.iter().any(|(left, _)| *left == highest)));
    }

    #[test]
    fn a_disk_that_loses_what_it_synced_is_noticed() {
        let left: Vec<(u64, bool)> = (0..100).map(|draw| after_a_crash(draw, false)).collect();
        assert!(left.iter().all(|(highest, is_right)| *is_right == (*highest >= 5)));
        assert!(left.iter().any(|(_, is_right)| !is_right));
    }

    #[test]
    fn a_long_log_gives_way_to_a_snapshot_and_an_end_is_used_up() {
        let mut disk = Disk::new(2);
        (0..2_000).for_each(|number| {
            disk.append(vec![clock(number)]);
            disk.sync(0);
        });
        assert!(disk.number > 1 && disk.log.len() <= LOG_BYTES_MIN);
        disk.append(vec![Record::Ended(meshwork::crdt::journal::Ended { actor: Default::default(), clock: Stamp::ZERO })]);
        disk.sync(0);
        let has_end = |recovered: &Recovered| recovered.records.iter().any(|record| matches!(record, Record::Ended(_)));
        assert!(has_end(&disk.recover()) && !has_end(&disk.recover()));
    }
}
