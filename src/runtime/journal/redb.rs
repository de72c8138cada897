//! The embedded database `redb` as back-end: one file, in which each entry has a row.
//!
//! After an error the file is not used again: the state is written to another, which then takes its name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use meshwork_channels::{decode, encode};
use meshwork_crdt::journal::{Image, Record};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::{OpenError, Recovered};
use crate::runtime::storage::{StorageError, failed};

/// Records by their keys; those without one have a name that no key can have, because it is longer.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Pages that the database keeps in memory. The image holds what is read.
const CACHE_BYTES: usize = 8 * 1_024 * 1_024;

#[derive(Debug)]
pub(super) struct Redb {
    path: PathBuf,
    database: Option<Database>,
}

/// The name of a record that has no key.
fn longer_than_keys(name: &str) -> String {
    name.repeat(meshwork_channels::limits::KEY_BYTES_MAX + 1)
}

fn put(table: &mut Table<'_, &str, &[u8]>, record: &Record) -> Result<(), redb::Error> {
    match record {
        Record::Entry(entry) => drop(table.insert(entry.key.as_str(), &*encode(record))?),
        Record::Forgotten(key) => drop(table.remove(key.as_str())?),
        Record::Clock(_) => drop(table.insert(longer_than_keys("c").as_str(), &*encode(record))?),
        Record::Reserved(_) => drop(table.insert(longer_than_keys("r").as_str(), &*encode(record))?),
        Record::Begun => drop(table.remove(longer_than_keys("e").as_str())?),
        Record::Ended(_) => drop(table.insert(longer_than_keys("e").as_str(), &*encode(record))?),
        Record::Collected(_) => drop(table.insert(longer_than_keys("f").as_str(), &*encode(record))?),
    }
    Ok(())
}

/// The error of the disk, if that is what it is.
fn io_error(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        redb::Error::Corrupted(problem) => io::Error::new(io::ErrorKind::InvalidData, problem),
        error => io::Error::other(error),
    }
}

impl Redb {
    /// Reads the database, if there is one.
    pub(super) fn recover(dir: &Path) -> Result<(Self, Image, Recovered), OpenError> {
        let path = dir.join("state.redb");
        let mut image = Image::default();
        let is_there = fs::exists(&path).map_err(failed(format!("open {}", path.display())))?;
        let read = || -> Result<Database, redb::Error> {
            let database = Database::builder().set_cache_size(CACHE_BYTES).open(&path)?;
            let table = database.begin_read()?.open_table(RECORDS)?;
            for row in table.iter()? {
                let record = decode(row?.1.value()).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
                image.apply(record);
            }
            Ok(database)
        };
        let database = is_there.then(read).transpose().map_err(|error| failed(format!("read {}", path.display()))(io_error(error)))?;
        let recovered = Recovered { records: image.records().collect(), ..Recovered::default() };
        Ok((Redb { path, database }, image, recovered))
    }

    /// Writes all of the image, unless the database that was recovered with it is still open.
    pub(super) fn begin(&mut self, image: &Image) -> Result<(), StorageError> {
        if self.database.is_some() {
            return Ok(());
        }
        let temporary = self.path.with_extension("new");
        let begin = || -> Result<Database, redb::Error> {
            if fs::exists(&temporary)? {
                fs::remove_file(&temporary)?;
            }
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(&temporary)?;
            commit(&database, image.records(), Durability::Immediate)?;
            fs::rename(&temporary, &self.path)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(database)
        };
        let database = begin().map_err(|error| failed(format!("write {}", self.path.display()))(io_error(error)))?;
        self.database = Some(database);
        Ok(())
    }

    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), StorageError> {
        self.commit(records.cloned(), Durability::None)
    }

    /// A commit that waits for the disk takes along those that did not.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        self.commit(std::iter::empty(), Durability::Immediate)
    }

    pub(super) fn abandon(&mut self) {
        self.database = None;
    }

    fn commit(&self, records: impl Iterator<Item = Record>, durability: Durability) -> Result<(), StorageError> {
        let database = self.database.as_ref().expect("nothing is committed before a database is open");
        commit(database, records, durability).map_err(|error| failed(format!("write {}", self.path.display()))(io_error(error)))
    }
}

fn commit(database: &Database, records: impl Iterator<Item = Record>, durability: Durability) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(durability)?;
    // With one phase, whoever chooses the data and when the process crashes could make half a transaction look whole.
    transaction.set_two_phase_commit(matches!(durability, Durability::Immediate));
    // The table must be there to be read, even with nothing in it.
    let mut table = transaction.open_table(RECORDS)?;
    for record in records {
        put(&mut table, &record)?;
    }
    drop(table);
    transaction.commit()?;
    Ok(())
}
