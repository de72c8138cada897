//! The operations on files that a journal needs. Tests count them, make them fail, and then treat the files as a crash would.

#![expect(clippy::disallowed_methods, reason = "files are what this module is for")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
use super::faults::Faults;
use crate::runtime::storage::{StorageError, failed};

/// An operation, before it is made.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the tests look at them"))]
pub(super) enum Op<'a> {
    Create(&'a str),
    Write(&'a str, usize),
    Sync(&'a str),
    Rename(&'a str, &'a str),
    Remove(&'a str, &'a Path),
    SyncDir,
}

/// Nothing fails unless the disk does.
#[cfg(not(test))]
#[derive(Clone, Debug)]
struct Faults;

#[cfg(not(test))]
impl Faults {
    fn none() -> Self {
        Faults
    }

    #[expect(clippy::unused_self, reason = "that of the tests has state")]
    fn run<T>(&self, _op: Op<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        run()
    }

    #[expect(clippy::unused_self, reason = "that of the tests has state")]
    fn sync(&self, _op: Op<'_>, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        sync()
    }

    #[expect(clippy::unused_self, reason = "that of the tests has state")]
    fn write_len(&self, len: usize) -> usize {
        len
    }
}

/// A folder.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    dir: PathBuf,
    faults: Faults,
}

impl Disk {
    pub(super) fn new(dir: &Path) -> Self {
        Disk { dir: dir.to_owned(), faults: Faults::none() }
    }

    #[cfg(test)]
    pub(super) fn with_faults(dir: &Path, faults: Faults) -> Self {
        Disk { dir: dir.to_owned(), faults }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn names(&self) -> Result<Vec<String>, StorageError> {
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        read().map_err(failed(format!("list {}", self.dir.display())))
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        fs::read(self.path(name)).map_err(failed(format!("read {}", self.path(name).display())))
    }

    /// Makes a file that was not there.
    pub(super) fn create(&self, name: &str) -> Result<Output, StorageError> {
        let path = self.path(name);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = self.faults.run(Op::Create(name), create).map_err(failed(format!("make {}", path.display())))?;
        Ok(Output { file, name: name.to_owned(), path, faults: self.faults.clone() })
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let rename = || fs::rename(self.path(from), self.path(to));
        self.faults.run(Op::Rename(from, to), rename).map_err(failed(format!("rename {}", self.path(from).display())))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        self.faults.run(Op::Remove(name, &path), || fs::remove_file(&path)).map_err(failed(format!("remove {}", path.display())))
    }

    /// Makes durable which files there are.
    pub(super) fn sync_dir(&self) -> Result<(), StorageError> {
        let sync = || File::open(&self.dir)?.sync_all();
        self.faults.sync(Op::SyncDir, sync).map_err(failed(format!("sync {}", self.dir.display())))
    }
}

/// Makes durable that a folder is there: the names of folders, which may be new, are in those that hold them. One that may not be opened was not
/// made by us.
pub(super) fn sync_parents(dir: &Path) -> Result<(), StorageError> {
    let sync = || {
        for parent in fs::canonicalize(dir)?.ancestors().skip(1) {
            match File::open(parent) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                opened => opened?.sync_all()?,
            }
        }
        Ok(())
    };
    sync().map_err(failed(format!("sync the folders above {}", dir.display())))
}

/// A file that is written from its beginning to its end.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    name: String,
    path: PathBuf,
    faults: Faults,
}

impl Output {
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let mut write = || {
            while !bytes.is_empty() {
                let len = self.faults.write_len(bytes.len());
                match self.faults.run(Op::Write(&self.name, len), || (&self.file).write(&bytes[..len])) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(len) => bytes = &bytes[len..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        write().map_err(failed(format!("write {}", self.path.display())))
    }

    /// Makes durable what was written. The length of the file is part of that.
    pub(super) fn sync(&self) -> Result<(), StorageError> {
        self.faults.sync(Op::Sync(&self.name), || self.file.sync_data()).map_err(failed(format!("sync {}", self.path.display())))
    }
}
