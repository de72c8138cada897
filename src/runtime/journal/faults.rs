//! A disk that fails when a test wants it to, and what a crash leaves of its files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use meshwork_channels::random::Generator;
use rand::RngExt;

use super::disk::Op;

/// The faults of one disk. Without a model it is the disk of the system.
#[derive(Clone, Debug)]
pub(super) struct Faults(Option<Arc<Mutex<Model>>>);

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Bytes that one write takes at most; 0 for all.
    pub(super) chunk: usize,
    /// Bytes until the disk is full.
    pub(super) bytes_left: Option<u64>,
    /// Bytes, and operations, until the crash.
    pub(super) bytes_to_crash: Option<u64>,
    pub(super) ops_to_crash: Option<u64>,
    /// Syncs of files that fail from now on.
    pub(super) failing_syncs: u32,
    pub(super) is_crashed: bool,
    /// What happened so far.
    pub(super) ops: u64,
    pub(super) bytes: u64,
    pub(super) full: u64,
    pub(super) failed_syncs: u64,
    pub(super) short_writes: u64,
    files: BTreeMap<String, Tracked>,
    /// What was removed since the folder was synced.
    removed: Vec<(String, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
struct Tracked {
    written: u64,
    synced: u64,
    /// Whether the folder was synced since it got its name.
    is_named: bool,
    /// A sync failed: what was not synced by then never will be, whatever later syncs say.
    is_lost: bool,
}

impl Faults {
    pub(super) fn none() -> Self {
        Faults(None)
    }

    pub(super) fn model() -> Self {
        Faults(Some(Arc::default()))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Model> {
        self.0.as_ref().expect("a disk with a model").lock().expect("no test panics within")
    }

    pub(super) fn write_len(&self, len: usize) -> usize {
        if self.0.is_none() {
            return len;
        }
        let mut model = self.lock();
        let allowed = [model.bytes_left, model.bytes_to_crash].into_iter().flatten().map(|bytes| bytes as usize);
        let chunk = if model.chunk == 0 { len } else { model.chunk };
        let short = allowed.chain([chunk]).fold(len, usize::min).max(1);
        model.short_writes += u64::from(short < len);
        short
    }

    /// A model loses whatever is not synced, so the system need not wait for its disk.
    pub(super) fn sync(&self, op: Op<'_>, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.run(op, || if self.0.is_some() { Ok(()) } else { sync() })
    }

    pub(super) fn run<T>(&self, op: Op<'_>, run: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.0.is_none() {
            return run();
        }
        let mut model = self.lock();
        model.before(op)?;
        if let Op::Sync(name) = op
            && model.failing_syncs > 0
        {
            model.failing_syncs -= 1;
            model.failed_syncs += 1;
            model.files.entry(name.to_owned()).or_default().is_lost = true;
            return Err(io::Error::other("planted: the sync failed"));
        }
        if let Op::Remove(name, path) = op {
            let content = fs::read(path).unwrap();
            model.removed.push((name.to_owned(), content));
        }
        let done = run()?;
        model.after(op);
        Ok(done)
    }
}

impl Model {
    fn before(&mut self, op: Op<'_>) -> io::Result<()> {
        self.is_crashed |= self.ops_to_crash == Some(0) || matches!(op, Op::Write(..)) && self.bytes_to_crash == Some(0);
        if self.is_crashed {
            return Err(io::Error::other("planted: crashed"));
        }
        self.ops += 1;
        self.ops_to_crash = self.ops_to_crash.map(|ops| ops - 1);
        if matches!(op, Op::Write(..)) && self.bytes_left == Some(0) {
            self.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn after(&mut self, op: Op<'_>) {
        match op {
            Op::Create(name) => drop(self.files.insert(name.to_owned(), Tracked::default())),
            Op::Write(name, len) => {
                let len = len as u64;
                self.file(name).written += len;
                self.bytes += len;
                self.bytes_left = self.bytes_left.map(|left| left - len);
                self.bytes_to_crash = self.bytes_to_crash.map(|left| left - len);
            }
            Op::Sync(name) => {
                let file = self.file(name);
                if !file.is_lost {
                    file.synced = file.written;
                }
            }
            Op::Rename(from, to) => {
                let file = self.files.remove(from).unwrap_or_default();
                self.files.insert(to.to_owned(), Tracked { is_named: false, ..file });
            }
            Op::Remove(name, _) => drop(self.files.remove(name)),
            Op::SyncDir => {
                self.files.values_mut().for_each(|file| file.is_named = true);
                self.removed.clear();
            }
        }
    }

    fn file(&mut self, name: &str) -> &mut Tracked {
        self.files.entry(name.to_owned()).or_default()
    }

    /// Does to the files in `dir` what a crash of the machine may do.
    pub(super) fn lose(&mut self, dir: &Path, generator: &mut Generator) {
        for (name, content) in self.removed.drain(..) {
            if generator.random() {
                fs::write(dir.join(name), content).unwrap();
            }
        }
        for (name, file) in std::mem::take(&mut self.files) {
            let path = dir.join(&name);
            if !file.is_named && generator.random() {
                fs::remove_file(path).unwrap();
                continue;
            }
            let mut bytes = fs::read(&path).unwrap();
            let synced = file.synced as usize;
            let keep = generator.random_range(synced..=bytes.len());
            match generator.random_range(0..3) {
                0 => {}
                1 => bytes.truncate(keep),
                _ => {
                    let end = generator.random_range(keep..=bytes.len());
                    bytes[keep..end].fill(0);
                }
            }
            fs::write(&path, bytes).unwrap();
        }
    }
}
