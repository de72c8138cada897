//! A snapshot and a log of the same number; see the module above for the order in which they come and go.

use meshwork_channels::quic::system_random;
use meshwork_crdt::journal::{End, HEAD_BYTES, Head, Image, Kind, Record, Records, Writer};

use super::disk::{Disk, Output};
use super::{Damaged, OpenError, Recovered, Torn};
use crate::runtime::storage::{StorageError, failed};

/// Bytes of a snapshot that are written at once, and that the buffer keeps.
const CHUNK_BYTES: usize = 256 * 1_024;

#[derive(Debug)]
pub(super) struct Files {
    disk: Disk,
    /// The greatest number so far, also of files that failed.
    number: u64,
    log: Option<Log>,
    buffer: Vec<u8>,
}

/// The log that is written.
#[derive(Debug)]
struct Log {
    output: Output,
    writer: Writer,
    /// Up to where it was synced, and up to where it says so.
    synced: u64,
    marked: u64,
}

impl Log {
    /// Before more is written: says in the log what was synced.
    fn mark(&mut self, buffer: &mut Vec<u8>) {
        if self.synced > self.marked {
            self.writer.mark_synced(self.synced, buffer);
            self.marked = self.synced;
        }
    }
}

/// The kind and number in a name.
fn parse(name: &str) -> Option<(Kind, u64)> {
    let (kind, number) = name.split_once('-')?;
    let kind = match kind {
        "snapshot" => Kind::Snapshot,
        "log" => Kind::Log,
        _ => return None,
    };
    let number = number.parse().ok()?;
    (self::name(kind, number) == name).then_some((kind, number))
}

fn name(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Snapshot => format!("snapshot-{number}"),
        Kind::Log => format!("log-{number}"),
    }
}

impl Files {
    /// Reads the newest snapshot and its log. Nothing is changed.
    pub(super) fn recover(disk: Disk) -> Result<(Self, Image, Recovered), OpenError> {
        let mut found: Vec<(u64, Kind)> =
            disk.names()?.iter().filter_map(|name| parse(name)).map(|(kind, number)| (number, kind)).collect();
        found.sort_unstable_by_key(|(number, kind)| (*number, *kind == Kind::Log));
        let number = found.last().map_or(0, |(number, _)| *number);
        let oldest = found.first().map(|(number, _)| *number);
        let (mut image, mut recovered) = (Image::default(), Recovered::default());
        let (mut log, mut refused) = (None::<(u64, String, Vec<u8>)>, None);
        // From the newest on: each log comes before its snapshot.
        for (number, kind) in found.into_iter().rev() {
            let name = name(kind, number);
            let bytes = disk.read(&name)?;
            if kind == Kind::Log {
                // One without a whole head was never used.
                if bytes.len() <= HEAD_BYTES && Records::new(&bytes).is_err() {
                    continue;
                }
                // One with nothing else may be left from an attempt that failed.
                if log.as_ref().is_none_or(|(.., bytes)| bytes.len() == HEAD_BYTES) {
                    log = Some((number, name, bytes));
                }
                continue;
            }
            match read(&disk, &name, kind, number, &bytes, &mut image) {
                Ok(_) => {
                    refused = None;
                    if let Some((_, name, bytes)) = log.take_if(|(of, ..)| *of == number) {
                        let end = read(&disk, &name, Kind::Log, number, &bytes, &mut image)?;
                        if let End::Torn { at, why, behind } = end {
                            recovered.torn = Some(Torn { at, why, bytes: bytes.len() as u64 - at, behind });
                        }
                    } else if oldest == Some(number) {
                        // What came before goes only when the log is there.
                        recovered.missing = Some(self::name(Kind::Log, number));
                    }
                    break;
                }
                // Only one that no log continues can be done without: its predecessor was not removed, and nothing was promised since.
                Err(error) if log.is_some() => return Err(error),
                Err(error) => {
                    image = Image::default();
                    recovered.passed_over.push(name);
                    refused = refused.or(Some(error));
                }
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        if let Some((_, name, _)) = log.filter(|(.., bytes)| bytes.len() > HEAD_BYTES) {
            return Err(OpenError::Damaged { path: disk.path(&name), why: Damaged::Alone });
        }
        recovered.records = image.records().collect();
        Ok((Files { disk, number, log: None, buffer: Vec::new() }, image, recovered))
    }

    pub(super) fn begin(&mut self, image: &Image) -> Result<(), StorageError> {
        self.log = None;
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let temporary = format!("snapshot-{number}.new");
        let begun = self.begin_in(image, &temporary);
        // What failed makes room again; else what is older has served. A file that cannot be removed takes room and does no harm.
        for old in self.disk.names().unwrap_or_default() {
            let is_ours = old.ends_with(".new") && old.starts_with("snapshot-") || parse(&old).is_some();
            let is_needed = parse(&old).is_some_and(|(_, of)| if begun.is_ok() { of >= number } else { of < number });
            if is_ours
                && !is_needed
                && let Err(error) = self.disk.remove(&old)
            {
                tracing::debug!(%error, "an old file stays");
            }
        }
        self.log = Some(begun?);
        Ok(())
    }

    fn begin_in(&mut self, image: &Image, temporary: &str) -> Result<Log, StorageError> {
        let mut output = self.disk.create(temporary)?;
        let (buffer, number) = (&mut self.buffer, self.number);
        buffer.clear();
        let mut writer = Writer::begin(head(Kind::Snapshot, number)?, buffer);
        for record in image.records() {
            writer.push(&record, buffer);
            if buffer.len() >= CHUNK_BYTES {
                output.write(buffer)?;
                buffer.clear();
            }
        }
        writer.end(buffer);
        output.write(buffer)?;
        output.sync()?;
        self.disk.rename(temporary, &name(Kind::Snapshot, number))?;
        let mut output = self.disk.create(&name(Kind::Log, number))?;
        buffer.clear();
        let writer = Writer::begin(head(Kind::Log, number)?, buffer);
        output.write(buffer)?;
        output.sync()?;
        self.disk.sync_dir()?;
        let synced = writer.offset();
        Ok(Log { output, writer, synced, marked: synced })
    }

    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), StorageError> {
        let log = self.log.as_mut().expect("nothing is appended before a log has begun");
        self.buffer.clear();
        self.buffer.shrink_to(CHUNK_BYTES);
        log.mark(&mut self.buffer);
        records.for_each(|record| log.writer.push(record, &mut self.buffer));
        log.output.write(&self.buffer)
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        let log = self.log.as_mut().expect("nothing is synced before a log has begun");
        log.output.sync()?;
        log.synced = log.writer.offset();
        Ok(())
    }

    /// Also says in the log that all of it was synced, so that whatever is broken later is known to be damage.
    pub(super) fn close(&mut self) -> Result<(), StorageError> {
        self.sync()?;
        self.append([].iter())?;
        self.sync()
    }

    pub(super) fn abandon(&mut self) {
        self.log = None;
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.writer.offset())
    }
}

fn head(kind: Kind, number: u64) -> Result<Head, StorageError> {
    let mut salt = [0; 8];
    system_random(&mut salt).map_err(|error| failed("choose the salt of a file")(std::io::Error::other(error)))?;
    Ok(Head { kind, number, salt: u64::from_le_bytes(salt) })
}

/// Reads one file into the image.
fn read(disk: &Disk, name: &str, kind: Kind, number: u64, bytes: &[u8], image: &mut Image) -> Result<End, OpenError> {
    let damaged = |why| OpenError::Damaged { path: disk.path(name), why };
    let mut records = Records::new(bytes).map_err(|error| damaged(Damaged::Head(error)))?;
    let head = records.head();
    if (head.kind, head.number) != (kind, number) {
        return Err(damaged(Damaged::Misnamed));
    }
    records.by_ref().for_each(|record| image.apply(record));
    records.finish().map_err(|damage| damaged(Damaged::Content(damage)))
}
