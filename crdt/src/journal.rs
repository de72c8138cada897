//! The records that make a replica durable, and the bytes of the files that hold them.
//!
//! A file is a head and frames. A frame is a length, a checksum of the length, a checksum of everything, and a record in the encoding of the
//! wire; all numbers of the frame are little-endian. The checksum is CRC-32C (Castagnoli, Bräuer and Herrmann, "Optimization of Cyclic
//! Redundancy-Check Codes with 24 and 32 Parity Bits", IEEE Transactions on Communications 1993; the polynomial of RFC 3720).
//! A *snapshot* holds all of an [`Image`] and ends by saying so; a *log* holds what was appended since, and ends anywhere.
//!
//! Two decisions need their reasons:
//!
//! 1. A crash may leave any part of what was not yet synced, also later blocks without earlier ones, so whole records behind a broken one
//!    prove nothing. The writer therefore marks in the log up to where it was synced: a fault *before* such a mark is [`Damage`] of what was
//!    promised; one behind the last mark is the [tail](End::Torn) of a crash.
//! 2. Peers choose what values hold. Each file has a random salt, and checksums cover it and the place of the frame, so that bytes within a
//!    value cannot pass for a frame, nor can an old block in a wrong place. The length has a checksum of its own, so that looking for frames
//!    behind a fault reads each byte a bounded number of times whatever it is.
//!
//! Invariants: what [`Writer`] wrote, [`Records`] reads back, and encodes to the same bytes again; any bytes at all are read without a
//! panic, in time and memory proportional to their number.
//!
//! What a peer can make it store: nothing beyond the replica, whose bounds are the bounds of the image.
//!
//! Who talks to it: whoever owns the files. The package itself touches none.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use meshwork_channels::codec::encode_into;
use meshwork_channels::{DecodeError, decode, encode, limits};
use serde::{Deserialize, Serialize};

use crate::hlc::Stamp;
use crate::key::Key;
use crate::signed::SIGNED_BYTES;
use crate::value::{Actor, Step};
use crate::wire::{self, Body, EXPIRY_BYTES_MAX, VALUE_ENCODED_MAX, entry_bytes_max};

/// The version of the format. The head of a file is the same in all of them; what follows is read in the version that wrote it or not at all.
pub const VERSION: u8 = 1;
/// Bytes of a file's head.
pub const HEAD_BYTES: usize = 28;
/// The largest record, encoded.
pub const RECORD_BYTES_MAX: usize = 1 + entry_bytes_max(limits::KEY_BYTES_MAX, VALUE_ENCODED_MAX);

const MAGIC: [u8; 6] = *b"meshwj";
/// Length, checksum of the length, checksum of everything.
const FRAME_HEAD_BYTES: usize = 12;
/// Set in the length of a frame that holds a [`Mark`].
const MARK: u32 = 1 << 31;
const _: () = assert!(RECORD_BYTES_MAX < MARK as usize, "lengths leave the highest bit free");

/// What is remembered. New kinds are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// All that the replica holds under a key from now on, a tombstone included; never a [part](Step) of it.
    Entry(wire::Entry),
    /// The replica holds nothing under the key any more, not even that it was removed.
    Forgotten(Key),
    /// Stamps up to this one may have been given out.
    Clock(Stamp),
    /// Numbers up to this one may have been given out.
    Reserved(Reserved),
    /// Whoever wrote this goes on from the last [`Record::Ended`], which nobody else may do from now on.
    Begun,
    /// A life ended in good order, and all that it did is written before this.
    Ended(Ended),
    /// How far collection has come, behind all that it rests on.
    Collected(Collected),
}

impl Record {
    /// At most how many bytes its frame takes.
    pub fn bytes_max(&self) -> usize {
        FRAME_HEAD_BYTES + self.encoded_max()
    }

    /// Whether it can be written: an entry can be too large, or only a part of what its key holds.
    pub fn fits(&self) -> bool {
        let is_part = |body: &Body| matches!(body, Body::Step(step) if !matches!(**step, Step::Whole(_)));
        !matches!(self, Record::Entry(entry) if is_part(&entry.body)) && self.encoded_max() <= RECORD_BYTES_MAX
    }

    fn encoded_max(&self) -> usize {
        let body_len = |body: &Body| match body {
            Body::Removed => 0,
            Body::Register(bytes) => bytes.len(),
            Body::Until(_, bytes) => EXPIRY_BYTES_MAX + bytes.len(),
            Body::Expired(..) => EXPIRY_BYTES_MAX,
            Body::Signed(signed) => SIGNED_BYTES + signed.value.as_ref().map_or(0, Bytes::len),
            // As the store measures it: the tag of the step takes the room of the length, which it does without.
            Body::Step(step) => match &**step {
                Step::Whole(typed) => encode(typed).len(),
                part => encode(part).len(),
            },
        };
        1 + match self {
            Record::Entry(entry) => entry_bytes_max(entry.key.len(), body_len(&entry.body)),
            Record::Forgotten(key) => 2 + key.len(),
            Record::Clock(_) => 8,
            Record::Reserved(_) => 20,
            Record::Begun => 0,
            Record::Ended(_) => 16,
            Record::Collected(_) => 20,
        }
    }
}

/// Numbers that a node must never use twice: its life, and what it counts within that life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reserved {
    /// The number of the life.
    pub incarnation: u64,
    /// The last number of the block that is reserved within it.
    pub sequence: u64,
}

/// How far collection has come, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Removals before this are forgotten.
    pub floor: u32,
    /// The replica holds everything of everybody from before this.
    pub complete: u32,
    /// More than half of the members hold everything that was written here before this.
    pub acknowledged: u32,
    /// Members that were known, this one included.
    pub members: u32,
}

/// What a life that ended in good order leaves to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The name under which it counted: no step of it is missing.
    pub actor: Actor,
    /// The greatest stamp that it gave out or accepted, however far they were reserved.
    pub clock: Stamp,
}

/// What all records so far amount to. It shares keys and registers with the replica, so that one costs some 200 bytes; values of other kinds are
/// here once more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Entries, and how many bytes each takes in a file at most.
    entries: BTreeMap<Key, (wire::Entry, usize)>,
    clock: Stamp,
    reserved: Reserved,
    ended: Option<Ended>,
    collected: Option<Collected>,
    bytes: usize,
}

impl Image {
    /// Takes a record in. The last entry of a key stays: the replica decided already which one wins.
    pub fn apply(&mut self, record: Record) {
        let bytes = record.bytes_max();
        let replaced = match record {
            Record::Entry(entry) => {
                self.clock = self.clock.max(entry.stamp);
                self.bytes += bytes;
                self.entries.insert(entry.key.clone(), (entry, bytes))
            }
            Record::Forgotten(key) => self.entries.remove(&key),
            Record::Clock(stamp) => {
                self.clock = self.clock.max(stamp);
                None
            }
            Record::Reserved(reserved) => {
                self.reserved = self.reserved.max(reserved);
                None
            }
            Record::Begun => {
                self.ended = None;
                None
            }
            Record::Ended(ended) => {
                self.ended = Some(ended);
                None
            }
            Record::Collected(collected) => {
                self.collected = Some(collected);
                None
            }
        };
        self.bytes -= replaced.map_or(0, |(_, bytes)| bytes);
    }

    /// The fewest records that amount to the same: the clock, the reservation and the end, if there are any, the entries in the order of their keys, and how
    /// far collection has come.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let clock = (self.clock > Stamp::ZERO).then_some(Record::Clock(self.clock));
        let reserved = (self.reserved > Reserved::default()).then_some(Record::Reserved(self.reserved));
        let entries = self.entries.values().map(|(entry, _)| Record::Entry(entry.clone()));
        let collected = self.collected.map(Record::Collected);
        clock.into_iter().chain(reserved).chain(self.ended.map(Record::Ended)).chain(entries).chain(collected)
    }

    /// At most how many bytes the entries take in a file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All of an image.
    Snapshot,
    /// What was appended to the snapshot of the same number.
    Log,
}

/// The beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the file is.
    pub kind: Kind,
    /// Its number: a log continues the snapshot of the same number.
    pub number: u64,
    /// Random bits that enter every checksum of the file.
    pub salt: u64,
}

/// Why bytes do not begin as a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// They end within the head.
    Truncated,
    /// They are no file of a journal, or the head is damaged.
    Invalid,
    /// Another version wrote them.
    Incompatible {
        /// The version read here, [`VERSION`].
        ours: u8,
        /// The version of the file.
        theirs: u8,
    },
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::Truncated => f.write_str("it ends within its head"),
            HeadError::Invalid => f.write_str("it does not begin as a file of a journal"),
            HeadError::Incompatible { ours, theirs } => write!(f, "it has version {theirs} of the format; this program reads {ours}"),
        }
    }
}

impl std::error::Error for HeadError {}

/// What is wrong with a frame, or with the end of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes end within it.
    Truncated,
    /// Its length is not what was written.
    Length,
    /// Its record is not what was written.
    Content,
    /// It is what was written, but no record.
    Undecodable(DecodeError),
    /// A snapshot ends without saying so, says another number of records than it holds, or goes on after its end.
    End,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Truncated => f.write_str("the file ends within a record"),
            Fault::Length => f.write_str("the length of a record does not match its checksum"),
            Fault::Content => f.write_str("a record does not match its checksum"),
            Fault::Undecodable(error) => write!(f, "a record is whole but not understood: {error}"),
            Fault::End => f.write_str("the end of the snapshot is not where it should be"),
        }
    }
}

/// How a file ends that holds all that was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole record.
    Whole,
    /// In what was not synced when the writer stopped: the normal trace of a crash.
    Torn {
        /// The offset of the first byte that is not part of a whole record.
        at: u64,
        /// What is wrong there.
        why: Fault,
        /// Whole records behind it, which are not read: nobody was told that they are durable.
        behind: u64,
    },
}

/// A file lacks what was promised: not the trace of a crash, but of a disk or of somebody who changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The offset of the first byte that is not part of a whole record.
    pub at: u64,
    /// What is wrong there.
    pub why: Fault,
    /// Whole records behind it.
    pub behind: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is damaged at byte {}: {}; {} whole records follow", self.at, self.why, self.behind)
    }
}

impl std::error::Error for Damage {}

/// What the writer says about the file itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Mark {
    /// In a log: everything before this offset was synced.
    Synced(u64),
    /// In a snapshot: these were all records.
    End(u64),
}

/// Encodes one file, piece by piece.
#[derive(Clone, Debug)]
pub struct Writer {
    salt: u64,
    at: u64,
    records: u64,
}

impl Writer {
    /// Appends the head of a file to `bytes`, which are the first of it.
    pub fn begin(head: Head, bytes: &mut Vec<u8>) -> Self {
        let from = bytes.len();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[VERSION, head.kind as u8]);
        bytes.extend_from_slice(&head.number.to_le_bytes());
        bytes.extend_from_slice(&head.salt.to_le_bytes());
        let sum = crc32c(0, &bytes[from..]);
        bytes.extend_from_slice(&sum.to_le_bytes());
        Writer { salt: head.salt, at: HEAD_BYTES as u64, records: 0 }
    }

    /// Appends a record to `bytes`.
    ///
    /// # Panics
    ///
    /// When the record does not [fit](Record::fits).
    pub fn push(&mut self, record: &Record, bytes: &mut Vec<u8>) {
        assert!(record.fits(), "a record that does not fit is refused before");
        self.records += 1;
        self.frame(record, 0, bytes);
    }

    /// Appends to the `bytes` of a log that all up to `offset` was synced.
    pub fn mark_synced(&mut self, offset: u64, bytes: &mut Vec<u8>) {
        self.frame(&Mark::Synced(offset), MARK, bytes);
    }

    /// Appends to the `bytes` of a snapshot that it is complete.
    pub fn end(mut self, bytes: &mut Vec<u8>) {
        self.frame(&Mark::End(self.records), MARK, bytes);
    }

    /// The length of the file once everything so far is in it.
    pub fn offset(&self) -> u64 {
        self.at
    }

    fn frame<T: Serialize>(&mut self, content: &T, mark: u32, bytes: &mut Vec<u8>) {
        let from = bytes.len();
        bytes.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        encode_into(content, bytes);
        let (head, content) = bytes[from..].split_at_mut(FRAME_HEAD_BYTES);
        let len = content.len() as u32 | mark;
        let sum = sum_of_len(self.salt, self.at, len);
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..8].copy_from_slice(&sum.to_le_bytes());
        head[8..].copy_from_slice(&crc32c(sum, content).to_le_bytes());
        self.at += (bytes.len() - from) as u64;
    }
}

/// Reads one file: an iterator over its records up to the first fault. What that means for the file, [`Records::finish`] says.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    head: Head,
    bytes: &'a [u8],
    at: usize,
    records: u64,
    /// What the end of a snapshot said.
    end: Option<u64>,
    fault: Option<Fault>,
}

/// A whole frame.
struct Frame<'a> {
    content: &'a [u8],
    is_mark: bool,
    next: usize,
}

impl<'a> Records<'a> {
    /// Begins to read all bytes of a file.
    ///
    /// # Errors
    ///
    /// A [`HeadError`] when they do not begin as one.
    pub fn new(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(HeadError::Truncated)?;
        if head[..6] != MAGIC || u32_at(head, 24) != crc32c(0, &head[..24]) {
            return Err(HeadError::Invalid);
        }
        if head[6] != VERSION {
            return Err(HeadError::Incompatible { ours: VERSION, theirs: head[6] });
        }
        let kind = match head[7] {
            0 => Kind::Snapshot,
            1 => Kind::Log,
            _ => return Err(HeadError::Invalid),
        };
        let head = Head { kind, number: u64_at(head, 8), salt: u64_at(head, 16) };
        Ok(Records { head, bytes, at: HEAD_BYTES, records: 0, end: None, fault: None })
    }

    /// The beginning of the file.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Reads what is left and says how the file ends.
    ///
    /// # Errors
    ///
    /// [`Damage`] when a snapshot is not complete, when a log is broken where it was synced, or when a whole record makes no sense.
    pub fn finish(mut self) -> Result<End, Damage> {
        while self.next().is_some() {}
        let is_log = self.head.kind == Kind::Log;
        let why = match self.fault {
            Some(why) => why,
            None if is_log || self.end == Some(self.records) => return Ok(End::Whole),
            None => Fault::End,
        };
        let (behind, synced) = self.behind();
        let at = self.at as u64;
        if is_log && synced <= at && !matches!(why, Fault::Undecodable(_)) {
            return Ok(End::Torn { at, why, behind });
        }
        Err(Damage { at, why, behind })
    }

    /// How many whole records lie behind the fault, and the greatest offset that a mark there calls synced.
    fn behind(&self) -> (u64, u64) {
        let (mut behind, mut synced, mut at) = (0, 0, self.at);
        while at < self.bytes.len() {
            at = match self.frame(at) {
                Ok(frame) => {
                    match decode::<Mark>(frame.content) {
                        Ok(Mark::Synced(offset)) if frame.is_mark => synced = synced.max(offset),
                        _ => behind += u64::from(!frame.is_mark && at > self.at),
                    }
                    frame.next
                }
                // The length is right, so the next frame is where it says.
                Err((Fault::Content, next)) => next,
                Err(_) => at + 1,
            };
        }
        (behind, synced)
    }

    /// The frame at an offset; else what is wrong with it, and where the next would begin if its length is right.
    fn frame(&self, at: usize) -> Result<Frame<'a>, (Fault, usize)> {
        let rest = &self.bytes[at..];
        let Some((head, rest)) = rest.split_at_checked(FRAME_HEAD_BYTES) else { return Err((Fault::Truncated, at)) };
        let len = u32_at(head, 0);
        let content_len = (len & !MARK) as usize;
        // First what costs nothing: nearly all offsets between frames fail here.
        if content_len > RECORD_BYTES_MAX || u32_at(head, 4) != sum_of_len(self.head.salt, at as u64, len) {
            return Err((Fault::Length, at));
        }
        let Some(content) = rest.get(..content_len) else { return Err((Fault::Truncated, at)) };
        let next = at + FRAME_HEAD_BYTES + content_len;
        if u32_at(head, 8) != crc32c(u32_at(head, 4), content) {
            return Err((Fault::Content, next));
        }
        Ok(Frame { content, is_mark: len & MARK != 0, next })
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        while self.fault.is_none() && self.at < self.bytes.len() {
            let step = self.frame(self.at).map_err(|(fault, _)| fault).and_then(|frame| {
                if self.end.is_some() {
                    return Err(Fault::End);
                }
                if !frame.is_mark {
                    let record = decode(frame.content).map_err(Fault::Undecodable)?;
                    return Ok((frame.next, Some(record)));
                }
                match (self.head.kind, decode(frame.content).map_err(Fault::Undecodable)?) {
                    (Kind::Log, Mark::Synced(_)) => {}
                    (Kind::Snapshot, Mark::End(records)) => self.end = Some(records),
                    _ => return Err(Fault::Undecodable(DecodeError::Invalid)),
                }
                Ok((frame.next, None))
            });
            match step {
                Ok((next, record)) => {
                    self.at = next;
                    if record.is_some() {
                        self.records += 1;
                        return record;
                    }
                }
                Err(fault) => self.fault = Some(fault),
            }
        }
        None
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn sum_of_len(salt: u64, at: u64, len: u32) -> u32 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&salt.to_le_bytes());
    bytes[8..16].copy_from_slice(&at.to_le_bytes());
    bytes[16..].copy_from_slice(&len.to_le_bytes());
    crc32c(0, &bytes)
}

/// CRC-32C of bytes that follow those whose checksum is `before`, eight bytes at a time ("slicing-by-8": Kounavis and Berry, "Novel Table
/// Lookup-Based Algorithms for High-Performance CRC Generation", IEEE Transactions on Computers 2008).
pub(crate) fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut sum = !before;
    for eight in eights {
        let word = u64::from_le_bytes(*eight) ^ u64::from(sum);
        sum = (0..8).fold(0, |sum, index| sum ^ TABLES[7 - index][(word >> (8 * index)) as usize & 0xff]);
    }
    for byte in rest {
        sum = sum >> 8 ^ TABLES[0][(sum as u8 ^ byte) as usize];
    }
    !sum
}

const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut index = 256;
    while index < 8 * 256 {
        let sum = tables[index / 256 - 1][index % 256];
        tables[index / 256][index % 256] = sum >> 8 ^ tables[0][sum as usize & 0xff];
        index += 1;
    }
    tables
};
