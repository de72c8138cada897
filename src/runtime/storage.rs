//! The files of a node and of a user, written so that a crash leaves the old or the new content and so that nobody else can read a secret.
//!
//! The state folder of the user holds `clusters/NAME/secret`, made once and shared by all nodes that this user runs on this host. The data folder
//! of a node holds its `key`, its last `incarnation`, and the `peers` that it last knew.

#![expect(clippy::disallowed_methods, reason = "files and the environment are what this module is for")]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fmt};

use meshwork_channels::identity::{base32_decode, base32_encode};
use meshwork_channels::quic::NodeKey;
use meshwork_channels::{ClusterName, ClusterSecret, PeerId};

use crate::node::REMEMBERED_MAX;

/// A file or folder could not be used. Nothing was started.
#[derive(Debug)]
pub struct StorageError {
    /// What was being done.
    pub what: String,
    /// Why it failed.
    pub source: io::Error,
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.source)
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

pub(super) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> StorageError {
    let what = what.into();
    move |source| StorageError { what, source }
}

/// The folder where Meshwork keeps what belongs to the user: `MESHWORK_STATE_DIR`, else `meshwork` in `XDG_STATE_HOME`, else
/// `~/.local/state/meshwork`.
///
/// # Errors
///
/// [`StorageError`] when none of the three variables `MESHWORK_STATE_DIR`, `XDG_STATE_HOME` and `HOME` is set.
pub fn state_dir() -> Result<PathBuf, StorageError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MESHWORK_STATE_DIR")
        .or_else(|| set("XDG_STATE_HOME").map(|dir| dir.join("meshwork")))
        .or_else(|| set("HOME").map(|dir| dir.join(".local/state/meshwork")))
        .ok_or_else(|| StorageError {
            what: "find the state folder of the user".into(),
            source: io::Error::new(io::ErrorKind::NotFound, "set MESHWORK_STATE_DIR or HOME"),
        })
}

/// Makes a folder that only the user may enter, with its parents.
fn private_dir(dir: &Path) -> Result<(), StorageError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(format!("make the folder {}", dir.display())))
}

/// Makes a folder that only the user may enter, and locks it for as long as the returned file is open.
pub(super) fn lock_dir(dir: &Path) -> Result<File, StorageError> {
    private_dir(dir)?;
    let path = dir.join("lock");
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed(format!("open {}", path.display())))?;
    lock.try_lock().map_err(|error| {
        let source = match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another node runs with it"),
            TryLockError::Error(error) => error,
        };
        failed(format!("use the data folder {}", dir.display()))(source)
    })?;
    Ok(lock)
}

/// Writes a file that only the user may read: complete or not at all.
fn write_private(path: &Path, content: &[u8]) -> Result<(), StorageError> {
    let temporary = temporary_beside(path);
    let written = write_new_private(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed(format!("write {}", path.display())))
}

/// A name that nobody else uses, in this process or another.
fn temporary_beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}-{}.new", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), wall_clock_incarnation()));
    path.with_file_name(name)
}

/// Writes a file that must not be there yet: one that is has rights, and an owner, that nobody here chose.
fn write_new_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Reads a file that must not be open to others; none when it does not exist.
fn read_private(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let what = || format!("read {}", path.display());
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let problem = format!("others may read it (mode {:o}); run `chmod 600` on it", metadata.permissions().mode() & 0o777);
            Err(failed(what())(io::Error::new(io::ErrorKind::PermissionDenied, problem)))
        }
        Ok(_) => fs::read(path).map(Some).map_err(failed(what())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(what())(error)),
    }
}

/// The secret that all nodes of this user on this host share for a cluster; made by whoever comes first, even when several start at once.
///
/// # Errors
///
/// [`StorageError`] when it can neither be read nor made, or when others may read it.
pub(crate) fn user_secret(cluster: &ClusterName) -> Result<ClusterSecret, StorageError> {
    let dir = state_dir()?.join("clusters").join(folder_name(cluster));
    let path = dir.join("secret");
    if let Some(secret) = read_secret(&path)? {
        return Ok(secret);
    }
    private_dir(&dir)?;
    let mut bytes = [0; 32];
    meshwork_channels::quic::system_random(&mut bytes).map_err(|error| failed("make a cluster secret")(io::Error::other(error)))?;
    let temporary = temporary_beside(&path);
    write_new_private(&temporary, base32_encode(&bytes).as_bytes()).map_err(failed(format!("write {}", temporary.display())))?;
    // A link never replaces: of several that start at once, one makes the secret and all use it.
    let linked = fs::hard_link(&temporary, &path);
    let _ = fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(format!("write {}", path.display()))(error)),
        _ => read_secret(&path)?.ok_or_else(|| failed(format!("read {}", path.display()))(io::ErrorKind::NotFound.into())),
    }
}

fn read_secret(path: &Path) -> Result<Option<ClusterSecret>, StorageError> {
    let Some(content) = read_private(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content);
    let bytes: Option<[u8; 32]> = base32_decode(text.trim()).and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(bytes) => Ok(Some(ClusterSecret::from_bytes(bytes))),
        None => Err(failed(format!("use {}", path.display()))(io::Error::new(io::ErrorKind::InvalidData, "it does not hold a secret"))),
    }
}

/// A cluster name as the name of a folder: names that are plain stay readable, others become base32.
fn folder_name(cluster: &ClusterName) -> String {
    let name = cluster.as_str();
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') && !name.starts_with('-');
    if plain { name.to_owned() } else { format!("_{}", base32_encode(name.as_bytes())) }
}

/// The data folder of a running node. It is locked: a second node with the same key would fight with the first for ever.
#[derive(Debug)]
pub(super) struct DataDir {
    dir: PathBuf,
    _lock: File,
}

impl DataDir {
    pub(super) fn open(dir: &Path) -> Result<Self, StorageError> {
        Ok(DataDir { dir: dir.to_owned(), _lock: lock_dir(dir)? })
    }

    /// The key of the node, made on first use.
    pub(super) fn key(&self) -> Result<NodeKey, StorageError> {
        let path = self.dir.join("key");
        let invalid = |problem: &str| failed(format!("use {}", path.display()))(io::Error::new(io::ErrorKind::InvalidData, problem));
        match read_private(&path)? {
            Some(content) => {
                let pkcs8 = base32_decode(String::from_utf8_lossy(&content).trim()).ok_or_else(|| invalid("it is not base32"))?;
                NodeKey::from_pkcs8(&pkcs8).map_err(|error| invalid(&error.to_string()))
            }
            None => {
                let key = NodeKey::generate().map_err(|error| invalid(&error.to_string()))?;
                write_private(&path, base32_encode(key.expose_pkcs8()).as_bytes())?;
                Ok(key)
            }
        }
    }

    /// The number of the next life: above the last one even if the wall clock stepped back, and noted before it is used.
    pub(super) fn next_incarnation(&self) -> Result<u64, StorageError> {
        let path = self.dir.join("incarnation");
        let last = match read_private(&path)?.map(|content| String::from_utf8_lossy(&content).trim().parse::<u64>()) {
            Some(Ok(last)) => last,
            None => 0,
            Some(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "the number of the last life cannot be read; the clock alone tells the next one");
                0
            }
        };
        let next = wall_clock_incarnation().max(last.saturating_add(1));
        write_private(&path, next.to_string().as_bytes())?;
        Ok(next)
    }

    /// The peers that the node last knew: where to knock when every seed is gone.
    pub(super) fn peers(&self) -> Vec<(PeerId, SocketAddr)> {
        let path = self.dir.join("peers");
        let content = match read_private(&path) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the peers that the node last knew are passed over");
                return Vec::new();
            }
        };
        let parse = |line: &str| {
            let (peer, address) = line.split_once(' ')?;
            Some((peer.parse().ok()?, address.parse().ok()?))
        };
        let text = String::from_utf8_lossy(&content);
        let peers: Vec<_> = text.lines().filter_map(parse).take(REMEMBERED_MAX).collect();
        if peers.len() < text.lines().count() {
            tracing::warn!(path = %path.display(), read = peers.len(), lines = text.lines().count(), "lines that are no peers are passed over");
        }
        peers
    }

    /// Remembers peers.
    pub(super) fn set_peers(&self, peers: &[(PeerId, SocketAddr)]) -> Result<(), StorageError> {
        let lines: String = peers.iter().take(REMEMBERED_MAX).map(|(peer, address)| format!("{peer} {address}\n")).collect();
        write_private(&self.dir.join("peers"), lines.as_bytes())
    }
}

/// Milliseconds since the Unix epoch: the number of a life that leaves no trace.
pub(super) fn wall_clock_incarnation() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("meshwork-storage-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Scratch(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_node_keeps_its_key_and_counts_its_lives() {
        let scratch = Scratch::new("key");
        let (first, life) = {
            let dir = DataDir::open(&scratch.0).unwrap();
            (dir.key().unwrap().peer_id(), dir.next_incarnation().unwrap())
        };
        let dir = DataDir::open(&scratch.0).unwrap();
        assert_eq!(dir.key().unwrap().peer_id(), first);
        assert!(dir.next_incarnation().unwrap() > life);
        assert_eq!(fs::metadata(scratch.0.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_life_follows_the_last_one_when_the_clock_steps_back() {
        let scratch = Scratch::new("clock");
        let dir = DataDir::open(&scratch.0).unwrap();
        let far = wall_clock_incarnation() + 1_000_000_000;
        write_private(&scratch.0.join("incarnation"), far.to_string().as_bytes()).unwrap();
        assert_eq!(dir.next_incarnation().unwrap(), far + 1);
    }

    #[test]
    fn a_data_folder_serves_one_node() {
        let scratch = Scratch::new("lock");
        let _first = DataDir::open(&scratch.0).unwrap();
        let error = DataDir::open(&scratch.0).unwrap_err();
        assert!(error.to_string().contains("another node runs with it"), "{error}");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let scratch = Scratch::new("mode");
        let dir = DataDir::open(&scratch.0).unwrap();
        dir.key().unwrap();
        fs::set_permissions(scratch.0.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = dir.key().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn peers_survive_and_garbage_does_not() {
        let scratch = Scratch::new("peers");
        let dir = DataDir::open(&scratch.0).unwrap();
        let peer = (PeerId::from_bytes([7; 32]), SocketAddr::from(([127, 0, 0, 1], 4433)));
        dir.set_peers(&[peer]).unwrap();
        let path = scratch.0.join("peers");
        let mut content = fs::read(&path).unwrap();
        content.extend_from_slice(b"garbage\nnot a peer\n");
        fs::write(&path, content).unwrap();
        assert_eq!(dir.peers(), [peer]);
    }

    #[test]
    fn a_cluster_name_becomes_a_safe_folder() {
        assert_eq!(folder_name(&"my-cluster".parse().unwrap()), "my-cluster");
        for name in ["../../etc", ".", "A b", "-x", "/"] {
            let folder = folder_name(&name.parse().unwrap());
            assert!(folder.starts_with('_') && !folder.contains(['/', '.']), "{folder}");
        }
    }
}
