//! `meshwork ctl`: asks a running node of this machine.

#![expect(clippy::disallowed_methods, reason = "the command looks for the sockets of running nodes")]

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::admin::{Answer, Ask, Endpoint, LINE_BYTES_MAX, read_line_of, sockets_dir, write_line};
use super::asks::{Service, StateAsk};
use super::views::{self, Printable};
use super::{Failure, desk, text};

/// How long a node may take to answer; it answers for itself that it is stalled before that.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Bytes of an answer: a thousand entries with names, or what a thousand links did on each channel.
const ANSWER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

#[derive(Args, Debug)]
#[command(after_help = "\
Without --admin it finds the running node of this user; when several run, it lists them and --admin has to name one.

Exit codes: 0 answered, 1 not answered, refused, no such key, or `health` of a node that is stalled, has lost its last neighbor, or whose state does not reach the disk, 2 the question cannot be asked.")]
pub(super) struct CtlArgs {
    /// The admin endpoint that the node printed: a loopback address or the path of a socket
    #[arg(long, env = "MESHWORK_ADMIN", hide_env_values = true, value_name = "ADDR|PATH", global = true)]
    admin: Option<String>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// The members of the cluster, and whether they are alive
    Members,
    /// The connections, their round-trip times and bytes
    Links,
    /// What went over each channel to each peer, what was refused, dropped or waits, and for how long messages waited
    Channels(ChannelsArgs),
    /// The neighbors in the overlay
    Topology,
    /// Whether the node does its work
    Health,
    #[command(flatten)]
    Service(Service),
}

#[derive(Args, Debug)]
#[command(after_help = "\
sent: messages that QUIC took, and their bytes on the stream. received: messages, and the bytes of their contents. refused: calls that found the queue full. \
dropped: messages that were queued and not sent. waiting: messages that are queued or half sent. waited p50, p99, max: from the call until QUIC had the message. \
busy: the share of the last whole 10 s in which something waited. /write: messages that a stream took at one go.

Figures of a peer add up over its connections; --json has all of them, with the buckets of the waits. The first rows are the sums over all peers.

With --lanes, state says which lanes new senders without a key are spread over (active), and which nobody new gets because it takes nothing while others do (blocked). Below are the changes \
of their number, in seconds since the node was started, with what the channel carried before and after: kept when that was a tenth more, else reverted; unused when no new sender came.")]
struct ChannelsArgs {
    /// A row for each lane instead
    #[arg(long)]
    lanes: bool,
}

pub(super) async fn run(args: CtlArgs) -> Result<(), Failure> {
    let endpoint = match args.admin.as_deref() {
        Some(text) => Endpoint::parse(text)?,
        None => only_node().await?,
    };
    let json = args.json;
    match args.question {
        Question::Members => show::<views::Members>(&endpoint, &Ask::Members, json).await.map(drop),
        Question::Links => show::<views::Links>(&endpoint, &Ask::Links, json).await.map(drop),
        Question::Channels(ChannelsArgs { lanes: false }) => show::<views::Channels>(&endpoint, &Ask::Channels, json).await.map(drop),
        Question::Channels(ChannelsArgs { lanes: true }) => show::<views::Lanes>(&endpoint, &Ask::Channels, json).await.map(drop),
        Question::Topology => show::<views::Topology>(&endpoint, &Ask::Topology, json).await.map(drop),
        Question::Service(service) => {
            let answer = ask(&endpoint, &Ask::from(service.clone())).await?;
            // A program gets what was written; only on a terminal it could do harm.
            if !json
                && !std::io::stdout().is_terminal()
                && let Service::State { verb: Some(StateAsk::Get { .. }) } = service
                && let Ok(Some(mut value)) = views::state::Entry::deserialize(&answer).map(|entry| entry.raw())
            {
                value.push(b'\n');
                return text::print_bytes(&value);
            }
            let answer = desk::print(&service, answer, json, None).map_err(|error| other_format(&endpoint, error))?;
            text::print(&format!("{answer}\n"))
        }
        Question::Health => {
            let health: views::Health = show(&endpoint, &Ask::Health, json).await?;
            let node = views::short(&health.id);
            match (health.status.as_str(), &health.undurable) {
                ("ok" | "alone", None) => Ok(()),
                ("ok" | "alone", Some(why)) => Err(Failure::new(format!("the state of the node {node} does not reach the disk: {why}"))),
                (status, _) => Err(Failure::new(format!("the node {node} is {status}"))),
            }
        }
    }
}

/// Asks, and prints the answer.
async fn show<T: DeserializeOwned + Serialize + Printable>(endpoint: &Endpoint, question: &Ask, json: bool) -> Result<T, Failure> {
    let view: T = serde_json::from_value(ask(endpoint, question).await?).map_err(|error| other_format(endpoint, error))?;
    let text = if json { format!("{}\n", text::json_line(&view)) } else { view.print(text::terminal_width()) };
    text::print(&text)?;
    Ok(view)
}

fn other_format(endpoint: &Endpoint, error: serde_json::Error) -> Failure {
    Failure::new(format!("the node at {endpoint} answered in another format; is it of another version? ({error})"))
}

/// Asks one question.
async fn ask(endpoint: &Endpoint, question: &Ask) -> Result<serde_json::Value, Failure> {
    let patience = if let Ask::State(ask) = question { ask.patience() } else { Duration::ZERO };
    let question = text::json_line(question);
    if question.len() > LINE_BYTES_MAX {
        let problem = format!("the question has {} bytes; a node takes {LINE_BYTES_MAX}", question.len());
        return Err(Failure::usage(problem));
    }
    let asked = async {
        match endpoint {
            Endpoint::Tcp(address) => exchange(TcpStream::connect(address).await?, &question).await,
            Endpoint::Unix(path) => exchange(UnixStream::connect(path).await?, &question).await,
        }
    };
    let answer = match timeout(ANSWER_MAX + patience, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(Failure::new(format!("no node answers at {endpoint}: {error}"))),
        Err(_) => return Err(Failure::new(format!("the node at {endpoint} gave no answer in {}", text::duration(ANSWER_MAX)))),
    };
    match answer {
        Answer { ok: true, answer: Some(answer), .. } => Ok(answer),
        Answer { error, .. } => Err(Failure::new(error.unwrap_or_else(|| "the node gave no reason".into()))),
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, question: &str) -> std::io::Result<Answer> {
    let (reading, mut writing) = tokio::io::split(stream);
    let written = write_line(&mut writing, question).await;
    // A node that takes no question says why before it closes, so what it says counts more than that it closed.
    match (read_line_of(&mut BufReader::new(reading), ANSWER_BYTES_MAX).await, written) {
        (Ok(Some(line)), _) => Ok(serde_json::from_slice(&line)?),
        (_, Err(error)) | (Err(error), _) => Err(error),
        (Ok(None), Ok(())) => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The only running node of this user.
async fn only_node() -> Result<Endpoint, Failure> {
    let dir = sockets_dir()?;
    let mut running: Vec<PathBuf> = Vec::new();
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")) {
        match timeout(Duration::from_secs(1), UnixStream::connect(&path)).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                // The node that left it was killed; nobody can answer there again.
                let _ = fs::remove_file(&path);
            }
            Ok(Err(_)) => {}
            Ok(Ok(_)) | Err(_) => running.push(path),
        }
    }
    running.sort();
    match running.as_slice() {
        [path] => Ok(Endpoint::Unix(path.clone())),
        [] => Err(Failure::new(
            "no node of this user runs on this machine; start one with `meshwork node`, or name its endpoint with --admin",
        )),
        several => {
            let paths: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::usage(format!("{} nodes run; choose one with --admin: {}", paths.len(), paths.join(" "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::cli::asks::ConfigAsk;

    #[tokio::test]
    async fn a_refusal_is_read_although_the_question_was_not_taken() {
        let refusal = "{\"ok\":false,\"error\":\"too many\"}";
        let (ours, mut theirs) = duplex(64);
        let node = async move {
            write_line(&mut theirs, refusal).await.unwrap();
            // It closes with the question half read.
            theirs.read_u8().await.unwrap();
        };
        let question = "x".repeat(1_000);
        let (answer, ()) = tokio::join!(exchange(ours, &question), node);
        assert_eq!(answer.unwrap().error.as_deref(), Some("too many"));

        let (ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(exchange(ours, "x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_question_that_no_node_takes_is_not_asked() {
        let nowhere = Endpoint::Unix("/nowhere".into());
        let set = |len| Ask::Config(ConfigAsk::Set { path: "app/x".into(), value: "x".repeat(len).into() });
        let failure = ask(&nowhere, &set(LINE_BYTES_MAX)).await.unwrap_err();
        assert!(failure.code == 2 && failure.message.contains("524288"), "{}", failure.message);
        assert_eq!(ask(&nowhere, &set(10)).await.unwrap_err().code, 1);
    }
}
