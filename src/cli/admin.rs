//! The endpoint at which a running node is asked: one JSON object per line in, one per line out.
//!
//! `{"ask":"members"}` is answered by `{"ok":true,"answer":{"members":[…]}}`, or by `{"ok":false,"error":"…"}`. It is a Unix socket that only
//! the user may open, or a port on loopback when one was asked for, never on another address, because it asks for no password.
//!
//! What a client can make it hold: [`LINE_BYTES_MAX`] each, of [`CLIENTS_MAX`] clients, each for at most [`IDLE_MAX`] without a line and
//! [`WRITE_MAX`] without reading its answer. The first line that is no question ends the connection, so that a web page that sends a form to
//! the port gets nothing asked.

#![expect(clippy::disallowed_methods, reason = "it serves its clients on tasks and keeps its socket in a folder")]

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::asks::{ConfigAsk, Json, RegistryAsk, Service, StateAsk, VariablesAsk};
use super::desk::{Desk, Unanswered, json};
use super::{Failure, text, views};
use crate::runtime::{Node, state_dir};

/// Bytes of a line: the longest value with every character escaped.
pub(super) const LINE_BYTES_MAX: usize = 512 * 1_024;
/// Clients at once.
const CLIENTS_MAX: usize = 16;
/// How long a client may be silent.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a client may leave its answer unread.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long the node may take; the watchdog calls it stalled after as long.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Bytes of the path of a Unix socket: the smallest limit among systems.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Where an admin endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Endpoint {
    /// An address of loopback, or a path.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            if !address.ip().is_loopback() {
                return Err(Failure::usage(format!(
                    "--admin {address}: the admin endpoint asks for no password, so it is on loopback only; for another machine use ssh"
                )));
            }
            return Ok(Endpoint::Tcp(address));
        }
        let looks_like_an_address = !text.contains('/') && text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if text.is_empty() || looks_like_an_address {
            return Err(Failure::usage(format!("--admin `{text}`: write an IP address with a port, such as 127.0.0.1:4100, or a path")));
        }
        Ok(Endpoint::Unix(PathBuf::from(text)))
    }
}

impl From<Service> for Ask {
    fn from(service: Service) -> Self {
        match service {
            Service::State { verb } => Ask::State(verb.unwrap_or_default()),
            Service::Config { verb } => Ask::Config(verb),
            Service::Registry { verb } => Ask::Registry(verb),
            Service::Variables { verb } => Ask::Variables(verb),
        }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum Ask {
    Members,
    Links,
    Channels,
    Topology,
    Health,
    State(StateAsk),
    Config(ConfigAsk),
    Registry(RegistryAsk),
    Variables(VariablesAsk),
}

/// An answer on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The folder of the sockets of this user's nodes.
pub(super) fn sockets_dir() -> Result<PathBuf, Failure> {
    state_dir().map(|dir| dir.join("run")).map_err(Failure::new)
}

/// The path of a node's socket: the cluster for people, the id to be unique.
fn socket_path(node: &Node) -> Result<PathBuf, Failure> {
    let cluster: String = node
        .cluster()
        .chars()
        .take(24)
        .map(|character| if character.is_ascii_alphanumeric() || character == '-' { character } else { '_' })
        .collect();
    Ok(sockets_dir()?.join(format!("{cluster}-{}.sock", node.id().short())))
}

/// A running endpoint; it ends, and its socket goes, when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Endpoint::Unix(path) = &self.endpoint {
            // Somebody may have removed it already.
            let _ = fs::remove_file(path);
        }
    }
}

impl Server {
    /// Starts the endpoint of a node, in the state folder of the user unless told where.
    pub(super) async fn start(desk: Arc<Desk>, endpoint: Option<Endpoint>) -> Result<Self, Failure> {
        let endpoint = match endpoint {
            Some(endpoint) => endpoint,
            None => {
                let dir = sockets_dir()?;
                let cannot = |error| Failure::new(format!("cannot make the folder {}: {error}", dir.display()));
                DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(cannot)?;
                fs::set_permissions(&dir, Permissions::from_mode(0o700)).map_err(cannot)?;
                Endpoint::Unix(socket_path(&desk.node)?)
            }
        };
        let cannot = |error: &dyn std::fmt::Display| Failure::new(format!("cannot open the admin endpoint {endpoint}: {error}"));
        let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
        let (endpoint, task) = match &endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(|error| cannot(&error))?;
                let address = listener.local_addr().map_err(|error| cannot(&error))?;
                (Endpoint::Tcp(address), tokio::spawn(accept_tcp(listener, desk, clients)))
            }
            Endpoint::Unix(path) => {
                let (listener, owner) = bind_socket(path).map_err(|error| cannot(&error))?;
                (endpoint.clone(), tokio::spawn(accept_unix(listener, owner, desk, clients)))
            }
        };
        Ok(Server { endpoint, task })
    }
}

/// Binds a socket that only its owner may open, in place of one that a killed process left; the number is that of the owner.
fn bind_socket(path: &Path) -> io::Result<(UnixListener, u32)> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let problem = format!("the path has {} bytes; a Unix socket may have {SOCKET_PATH_BYTES_MAX}", path.as_os_str().len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another node answers there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    let owner = fs::metadata(path)?.uid();
    Ok((listener, owner))
}

async fn accept_unix(listener: UnixListener, owner: u32, desk: Arc<Desk>, clients: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            // The mode of the file keeps others out already, but not in the moment before it is set.
            Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0) => {
                tokio::spawn(serve(stream, desk.clone(), clients.clone()));
            }
            Ok(_) => {}
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_tcp(listener: TcpListener, desk: Arc<Desk>, clients: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, desk.clone(), clients.clone()));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// When there are no descriptors left, trying again at once would only burn time.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "the admin endpoint cannot accept a client");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Serves one client until it is done, silent for too long, or breaks the format.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, desk: Arc<Desk>, clients: Arc<Semaphore>) {
    let _place: SemaphorePermit<'_> = match clients.try_acquire() {
        Ok(place) => place,
        Err(_) => {
            let refusal = error(format!("{CLIENTS_MAX} clients are here already; try again later"));
            let _ = timeout(WRITE_MAX, write_line(&mut stream, &text::json_line(&refusal))).await;
            return;
        }
    };
    let (reading, mut writing) = tokio::io::split(stream);
    let mut reading = BufReader::new(reading);
    while let Ok(line) = timeout(IDLE_MAX, read_line_of(&mut reading, LINE_BYTES_MAX)).await {
        let (answer, goes_on) = match line.map(|line| line.map(|line| serde_json::from_slice::<Ask>(&line))) {
            Ok(Some(Ok(ask))) => (answer(&desk, ask).await, true),
            Ok(Some(Err(problem))) => (error(format!("not a question: {problem}")), false),
            Err(problem) if problem.kind() == io::ErrorKind::InvalidData => (error(problem.to_string()), false),
            Ok(None) | Err(_) => return,
        };
        let written = timeout(WRITE_MAX, write_line(&mut writing, &text::json_line(&answer))).await;
        if !goes_on || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// Writes a line, with its end.
pub(super) async fn write_line(stream: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.flush().await
}

/// The next line of at most so many bytes, without its end; none when the stream ends. A longer one is an error.
pub(super) async fn read_line_of(stream: &mut (impl AsyncBufRead + Unpin), bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = stream.take(bytes_max as u64 + 1).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if read > bytes_max => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line has more than {bytes_max} bytes"))),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn error(problem: String) -> Answer {
    Answer { ok: false, answer: None, error: Some(problem) }
}

fn done(view: impl Serialize) -> Answer {
    match serde_json::to_value(view) {
        Ok(value) => Answer { ok: true, answer: Some(value), error: None },
        Err(problem) => error(problem.to_string()),
    }
}

async fn answer(desk: &Desk, ask: Ask) -> Answer {
    let is_health = ask == Ask::Health;
    let patience = if let Ask::State(ask) = &ask { ask.patience() } else { Duration::ZERO };
    match within_time(patience, answer_of(desk, ask)).await {
        Ok(answer) => Answer { ok: true, answer: Some(answer), error: None },
        Err(Unanswered::Stalled) if is_health => done(views::health(&desk.node, None)),
        Err(problem) => error(problem.to_string()),
    }
}

/// An answer of the node, or none when it takes too long, beyond the time that it may wait for other nodes.
pub(super) async fn within_time<T>(patience: Duration, answer: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
    timeout(ANSWER_MAX + patience, answer).await.unwrap_or(Err(Unanswered::Stalled))
}

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unanswered::Stalled => {
                write!(f, "the node gave no answer in {}; its protocol thread is stalled", text::duration(ANSWER_MAX))
            }
            Unanswered::Stopped => f.write_str("the node has stopped"),
            Unanswered::Refused(problem) => f.write_str(problem),
        }
    }
}

async fn answer_of(desk: &Desk, ask: Ask) -> Result<Json, Unanswered> {
    let node = &desk.node;
    match ask {
        Ask::Members => json(views::members(&node.report().await?, node.id())),
        Ask::Links => json(views::links(&node.report().await?)),
        Ask::Channels => json(views::channels(&node.channel_report().await?)),
        Ask::Topology => json(views::topology(&node.report().await?)),
        Ask::Health => json(views::health(node, Some(&node.report().await?))),
        Ask::State(ask) => desk.state(ask).await,
        Ask::Config(ask) => desk.config(ask).await,
        Ask::Registry(ask) => desk.registry(ask).await,
        Ask::Variables(ask) => desk.variables(ask).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_loopback_address_or_a_path() {
        assert_eq!(Endpoint::parse("127.0.0.1:9").unwrap(), Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert!(matches!(Endpoint::parse("[::1]:9"), Ok(Endpoint::Tcp(_))));
        assert_eq!(Endpoint::parse("./a:9").unwrap(), Endpoint::Unix("./a:9".into()));
        assert!(Endpoint::parse("0.0.0.0:9").unwrap_err().message.contains("no password"));
        assert!(Endpoint::parse("localhost:9").unwrap_err().message.contains("127.0.0.1"));
        assert!(Endpoint::parse("").is_err());
    }

    #[test]
    fn questions_have_stable_names() {
        let asks = [
            (Ask::Members, r#"{"ask":"members"}"#),
            (Ask::State(StateAsk::default()), r#"{"ask":"state","verb":"list","prefix":""}"#),
            (Ask::Config(ConfigAsk::Set { path: "p".into(), value: 3.into() }), r#"{"ask":"config","verb":"set","path":"p","value":3}"#),
        ];
        for (ask, json) in asks {
            assert_eq!(serde_json::to_string(&ask).unwrap(), json);
            assert_eq!(serde_json::from_str::<Ask>(json).unwrap(), ask);
        }
        assert_eq!(serde_json::from_str::<Ask>(r#"{"ask":"state","verb":"list"}"#).unwrap(), Ask::State(StateAsk::default()));
        let add = r#"{"ask":"state","verb":"do","op":"add","key":"n","by":2}"#;
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Ask>(add).unwrap()).unwrap(), add);
        assert!(serde_json::from_str::<Ask>("POST / HTTP/1.1").is_err());
    }

    #[tokio::test]
    async fn lines_have_a_bound() {
        let mut input: &[u8] = b"one\n\nlonger\n";
        assert_eq!(read_line_of(&mut input, 5).await.unwrap(), Some(b"one".to_vec()));
        assert_eq!(read_line_of(&mut input, 5).await.unwrap(), Some(Vec::new()));
        assert_eq!(read_line_of(&mut input, 5).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut input: &[u8] = b"exact\nhalf";
        assert_eq!(read_line_of(&mut input, 6).await.unwrap(), Some(b"exact".to_vec()));
        assert_eq!(read_line_of(&mut input, 6).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut input: &[u8] = b"";
        assert_eq!(read_line_of(&mut input, 6).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_socket_is_private_and_replaces_a_dead_one() {
        let path = std::env::temp_dir().join(format!("meshwork-admin-{}.sock", std::process::id()));
        let _ = fs::remove_file(&path);
        let (listener, _) = bind_socket(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_socket(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(path.exists());
        drop(bind_socket(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not a socket").unwrap();
        assert!(bind_socket(&path).is_err());
        assert!(path.exists(), "a file that is no socket stays");
        fs::remove_file(&path).unwrap();
        assert!(bind_socket(Path::new(&format!("/tmp/{}", "x".repeat(120)))).unwrap_err().to_string().contains("bytes"));
    }
}
