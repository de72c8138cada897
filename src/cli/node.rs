//! `meshwork node`: a node whose application is the terminal.
//!
//! Three things run beside each other and never wait for each other: what the node reports is printed, what is typed is done, and signals end it.
//! A terminal that takes no output loses lines, and is told how many.

#![expect(clippy::disallowed_methods, reason = "it reads and writes a terminal, which blocks, on threads of their own")]

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshwork_channels::{PeerId, limits};
use meshwork_crdt::Op;
use meshwork_crdt::replica::Reunion;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::Failure;
use super::admin::{Server, within_time};
use super::app_config::{self, Seen};
use super::asks::{GetAsk, Service, StateAsk, Untyped, parse_line};
use super::desk::{self, Desk};
use super::output::{Line, Note, Output};
use super::settings::{Admin, NodeArgs, Settings};
use super::signals::Signals;
use super::text::{self, LINE_CHARS_MAX, printable};
use super::told::Told;
use super::views::{self, MemberView, Printable, Value};
use crate::node::{ConfigError, Delivery, Event, Member};
use crate::runtime::journal::Status;
use crate::runtime::{Lagged, Node, StartError};
use crate::services;

/// Typed lines that wait for the node.
const INPUT_LINES_MAX: usize = 64;
/// Bytes of a typed line.
const INPUT_BYTES_MAX: usize = limits::BROADCAST_BYTES_MAX + 4_096;
/// How long a goodbye may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);

const HELP: &str = "\
TEXT            send a line to every other node (begin with // to send one that begins with /)
/members        the members of the cluster
/neighbors      the neighbors in the overlay
/set KEY VALUE  write a key of the replicated state; `/state set KEY VALUE --ttl 10m` for some time only
/add KEY [N]    add to a counter
/insert KEY X   add a member to a set; /take KEY X takes it out
/remove KEY     remove a key, of whatever kind
/get KEY        read a key, of whatever kind
/keys [PREFIX]  the keys that begin with a prefix, with their values
/state …        all that can be done to keys; `/state help` lists it, and so on
/config …       settings: get, set, remove, explain, history, rollback, override, reset, undo
/registry …     services: register, unregister, list, find
/variables …    agent variables: register, get, set, list, history, statistics, delete
/quit           leave the cluster";

pub(super) async fn run(args: NodeArgs) -> Result<(), Failure> {
    let settings = args.settings()?;
    let mut signals = Signals::listen()?;
    let builder = settings.builder();
    let events = builder.events();
    let node = tokio::select! {
        started = builder.start() => started.map_err(|error| start_failure(error, &settings))?,
        () = signals.next() => return Err(Failure::interrupted()),
    };
    let deliveries = node.subscribe();
    let seen = settings.app_config.as_deref().and_then(Seen::of);
    app_config::load(&node, settings.app_config.as_deref()).await?;
    let told = node.service_events();
    let desk = Arc::new(Desk::new(node.clone()));
    let admin = match &settings.admin {
        Admin::Off => None,
        Admin::At(endpoint) => Some(Server::start(desk.clone(), Some(endpoint.clone())).await?),
        // Nobody asked for it in particular, so the node does without it.
        Admin::Default => Server::start(desk.clone(), None)
            .await
            .inspect_err(|failure| tracing::warn!("{}; `meshwork ctl` cannot reach this node", failure.message))
            .ok(),
    };
    let output = Output::start(settings.json)?;
    output.line(&Started::of(&node, admin.as_ref()));

    let disk = node.journal_status();
    if let Some(disk) = disk.clone() {
        tokio::spawn(tell_of_the_disk(disk, output.clone()));
    }
    let quit = Arc::new(Notify::new());
    tokio::spawn(do_what_is_typed(desk, output.clone(), quit.clone()));
    if let Some(file) = settings.app_config {
        tokio::spawn(app_config::watch(node.clone(), file, seen, output.clone()));
    }
    let outcome = tokio::select! {
        () = report(&node, &output, events, deliveries, told) => Err(Failure::new("the node has stopped")),
        () = quit.notified() => Ok(()),
        () = signals.next() => Ok(()),
    };
    if outcome.is_ok() {
        output.line(&Note { event: "leaving", text: "leaving the cluster".into() });
        if signals.or_exit(timeout(LEAVE_MAX, node.leave())).await.is_err() {
            tracing::warn!("the goodbye took more than {}", text::duration(LEAVE_MAX));
        }
    }
    drop(admin);
    output.flush();
    match disk.and_then(|disk| unwritten(&disk)) {
        Some(why) if outcome.is_ok() => Err(Failure::new(format!("the last writes of the state are not on the disk: {why}"))),
        _ => outcome,
    }
}

/// What kept the end of the state from the disk, once the node has left.
fn unwritten(disk: &watch::Receiver<Status>) -> Option<String> {
    match &disk.borrow().failure {
        Some(failure) => Some(failure.to_string()),
        None => disk.has_changed().is_ok().then(|| format!("it took more than {}", text::duration(LEAVE_MAX))),
    }
}

/// Says when the state does not reach the disk, and when it does again.
async fn tell_of_the_disk(mut disk: watch::Receiver<Status>, output: Output) {
    let mut is_durable = true;
    loop {
        let failure = disk.borrow_and_update().failure.clone();
        if is_durable != failure.is_none() {
            is_durable = failure.is_none();
            output.line(&Happened::on_disk(failure.map(|failure| failure.to_string())));
        }
        if disk.changed().await.is_err() {
            return;
        }
    }
}

/// A wrong command line has another exit code than a busy port, and says where it is wrong.
fn start_failure(error: StartError, settings: &Settings) -> Failure {
    let named = |key, problem: &dyn std::fmt::Display| Failure::usage(format!("{}: {problem}", settings.named(key)));
    match &error {
        StartError::Storage(_) | StartError::State(_) | StartError::Bind(_) | StartError::System(_) => Failure::new(error),
        StartError::ClusterName(problem) => named("cluster", problem),
        StartError::Join { .. } => named("join", &error),
        StartError::Config(ConfigError { field, problem }) if field == "advertise" => named("advertise", problem),
        StartError::Config(ConfigError { field, problem }) if field == "data_dir" => named("data", problem),
        StartError::Config(_) | StartError::OtherCluster { .. } => Failure::usage(error),
    }
}

/// Prints what happens, until the node stops.
async fn report(
    node: &Node,
    output: &Output,
    mut events: crate::runtime::Subscription<Event>,
    mut deliveries: crate::runtime::Subscription<Delivery>,
    mut told: crate::runtime::Subscription<services::Event>,
) {
    let mut met = Met::already(node, output).await;
    loop {
        tokio::select! {
            event = events.try_next() => match event {
                Some(Ok(event)) if met.knows_of(&event) => {}
                Some(Ok(event)) => output.line(&Happened::of(&event, node.id())),
                Some(Err(Lagged(lost))) => output.line(&Note { event: "lost", text: format!("fell behind: {lost} events are not shown") }),
                None => return,
            },
            event = told.try_next() => match event {
                Some(Ok(event)) => output.line(&Told::from(event)),
                Some(Err(Lagged(lost))) => output.line(&Note { event: "lost", text: format!("fell behind: {lost} events of services are not shown") }),
                None => return,
            },
            delivery = deliveries.try_next() => match delivery {
                Some(Ok(delivery)) => output.line(&Message::of(&delivery)),
                Some(Err(Lagged(lost))) => output.line(&Note { event: "lost", text: format!("fell behind: {lost} messages are not shown") }),
                None => return,
            },
        }
    }
}

/// Members that joined before anybody listened: on a busy machine the node is at work long before its terminal is.
struct Met(BTreeSet<PeerId>);

impl Met {
    /// Says who is there already.
    async fn already(node: &Node, output: &Output) -> Self {
        let Ok(report) = node.report().await else { return Met(BTreeSet::new()) };
        let is_there = |member: &&Member| member.peer != node.id() && member.status.is_up();
        let met = report.members.iter().filter(is_there);
        Met(met
            .map(|member| {
                output.line(&Happened::of(&Event::MemberJoined(*member), node.id()));
                member.peer
            })
            .collect())
    }

    /// Whether this is the joining of one of them, which was said.
    fn knows_of(&mut self, event: &Event) -> bool {
        match event {
            Event::MemberJoined(member) => self.0.remove(&member.peer),
            Event::MemberFailed(member) | Event::MemberLeft(member) => {
                self.0.remove(&member.peer);
                false
            }
            _ => false,
        }
    }
}

/// Does what is typed. The end of the input is not the end of the node: it may have been started in the background.
async fn do_what_is_typed(desk: Arc<Desk>, output: Output, quit: Arc<Notify>) {
    let mut lines = match read_input() {
        Ok(lines) => lines,
        Err(error) => return output.line(&Note { event: "error", text: format!("cannot read the input: {error}") }),
    };
    while let Some(line) = lines.recv().await {
        let done = match line {
            Err(problem) => Err(problem),
            Ok(line) if line.trim().is_empty() => Ok(()),
            Ok(line) if line.trim() == "/quit" => return quit.notify_one(),
            Ok(line) => do_line(&desk, &output, &line).await,
        };
        if let Err(problem) = done {
            output.line(&Note { event: "error", text: problem });
        }
    }
}

async fn do_line(desk: &Desk, output: &Output, line: &str) -> Result<(), String> {
    let problem = |error: &dyn std::fmt::Display| error.to_string();
    let node = &desk.node;
    let Some(command) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
        let text = line.strip_prefix('/').unwrap_or(line);
        let time_us = micros_since_epoch();
        let sent = node.broadcast(text.as_bytes().to_vec()).await.map_err(|error| problem(&error))?;
        // A person sees what was typed; a program wants to know when it left.
        if output.json {
            output.line(&Sent { event: "sent", sequence: sent.id.sequence, neighbors: sent.neighbors, time_us });
        }
        if sent.neighbors == 0 {
            output.line(&Note { event: "waiting", text: "no neighbor yet: the line waits for the first one for a while".into() });
        }
        return Ok(());
    };
    let (verb, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match verb {
        "members" => {
            let report = node.report().await.map_err(|error| problem(&error))?;
            output.line(&Shown { event: "members", view: views::members(&report, node.id()) });
        }
        "neighbors" => {
            let report = node.report().await.map_err(|error| problem(&error))?;
            output.line(&Shown { event: "neighbors", view: views::topology(&report) });
        }
        "set" | "insert" | "take" => {
            let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| format!("write /{verb} KEY VALUE"))?;
            let value = value.trim_start().as_bytes().to_vec();
            let op = match verb {
                "set" => Op::Set(value.into()),
                "insert" => Op::Insert(value.into()),
                _ => Op::Take(value.into()),
            };
            node.state().apply(key, op).await.map_err(|error| problem(&error))?;
        }
        "add" if !rest.is_empty() => {
            let (key, by) = rest.split_once(char::is_whitespace).unwrap_or((rest, "1"));
            let by = by.trim_start().parse().map_err(|_| "write /add KEY [NUMBER]")?;
            node.state().apply(key, Op::Add(by)).await.map_err(|error| problem(&error))?;
        }
        "remove" if !rest.is_empty() => {
            // A key that is not there, or not any more, is as it should be.
            node.state().remove(rest).await.map_err(|error| problem(&error))?;
        }
        "get" if !rest.is_empty() => {
            let ask = Service::State { verb: Some(StateAsk::Get(GetAsk { key: rest.to_owned(), ..GetAsk::default() })) };
            answer(desk, output, ask, "value").await?;
        }
        "add" | "remove" | "get" => return Err(format!("write /{verb} KEY")),
        "keys" => answer(desk, output, Service::State { verb: Some(StateAsk::List { prefix: rest.to_owned() }) }, "keys").await?,
        "state" | "config" | "registry" | "variables" => match parse_line(command) {
            Ok(service) => {
                let event = match service {
                    Service::State { .. } => "state",
                    Service::Config { .. } => "config",
                    Service::Registry { .. } => "registry",
                    Service::Variables { .. } => "variables",
                };
                answer(desk, output, service, event).await?;
            }
            Err(Untyped::Help(text)) => output.line(&Note { event: "help", text }),
            Err(Untyped::Wrong(problem)) => return Err(problem),
        },
        "help" => output.line(&Note { event: "help", text: HELP.into() }),
        _ => return Err(format!("no command /{verb}; /help lists them")),
    }
    Ok(())
}

/// Asks what was typed, and prints the answer.
async fn answer(desk: &Desk, output: &Output, service: Service, event: &'static str) -> Result<(), String> {
    let answer = within_time(service.patience(), desk.typed(service.clone())).await.map_err(|problem| problem.to_string())?;
    output.print(desk::print(&service, answer, output.json, Some(event)).map_err(|error| error.to_string())?);
    Ok(())
}

/// The lines of the input, read by a thread of their own; a line that cannot be used is a problem instead.
fn read_input() -> io::Result<mpsc::Receiver<Result<String, String>>> {
    let (sender, receiver) = mpsc::channel(INPUT_LINES_MAX);
    std::thread::Builder::new().name("meshwork-input".into()).spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(line)) = read_input_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// The next line; one that is too long is passed over. None at the end.
fn read_input_line(input: &mut impl BufRead) -> io::Result<Option<Result<String, String>>> {
    let mut line = Vec::new();
    if input.take(INPUT_BYTES_MAX as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() == INPUT_BYTES_MAX && line.last() != Some(&b'\n') {
        while line.last() != Some(&b'\n') {
            line.clear();
            if input.take(INPUT_BYTES_MAX as u64).read_until(b'\n', &mut line)? == 0 {
                break;
            }
        }
        return Ok(Some(Err(format!("a line may have {} bytes; this one was not sent", limits::BROADCAST_BYTES_MAX))));
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Some(String::from_utf8(line.to_vec()).map_err(|_| "a line must be UTF-8; this one was not sent".into())))
}

/// The first line: who the node is and how others reach it.
#[derive(Debug, Serialize)]
struct Started {
    event: &'static str,
    cluster: String,
    id: String,
    incarnation: u64,
    address: SocketAddr,
    listening: SocketAddr,
    admin: Option<String>,
    token: Option<String>,
    pid: u32,
}

impl Started {
    fn of(node: &Node, admin: Option<&Server>) -> Self {
        Started {
            event: "started",
            cluster: node.cluster().to_owned(),
            id: node.id().to_string(),
            incarnation: node.incarnation(),
            address: node.address(),
            listening: node.listening(),
            admin: admin.map(|admin| admin.endpoint.to_string()),
            token: node.token().map(str::to_owned),
            pid: std::process::id(),
        }
    }
}

impl Line for Started {
    fn text(&self) -> String {
        let mut text = format!("cluster  {}\nnode     {}\naddress  {}\n", printable(&self.cluster, 64), self.id, self.address);
        if self.address != self.listening {
            text.push_str(&format!("listens  {}\n", self.listening));
        }
        text.push_str(&format!("admin    {}\n", self.admin.as_deref().map_or_else(|| "none".into(), |admin| printable(admin, 200))));
        match &self.token {
            Some(token) => text.push_str(&format!(
                "join     meshwork node --join {token}\n         from another machine or user; whoever has this token is let in for a day"
            )),
            None => text.push_str("join     every program of this machine can join: the node runs without a secret"),
        }
        text
    }
}

/// The clock of this machine, in microseconds since the Unix epoch; what one program of a machine says can be compared with what another says.
fn micros_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A typed line that the node broadcast.
#[derive(Debug, Serialize)]
struct Sent {
    event: &'static str,
    sequence: u64,
    neighbors: usize,
    time_us: u64,
}

impl Line for Sent {
    fn text(&self) -> String {
        format!("* sent to {} neighbors", self.neighbors)
    }
}

/// A broadcast of another node.
#[derive(Debug, Serialize)]
struct Message {
    event: &'static str,
    from: String,
    channel: String,
    sequence: u64,
    hops: u16,
    /// When it was handed to this program, in microseconds since the Unix epoch.
    time_us: u64,
    #[serde(flatten)]
    value: Value,
}

impl Message {
    fn of(delivery: &Delivery) -> Self {
        Message {
            event: "message",
            from: delivery.id.origin.to_string(),
            channel: delivery.id.channel.to_string(),
            sequence: delivery.id.sequence,
            hops: delivery.hops,
            time_us: micros_since_epoch(),
            value: Value::of(&delivery.payload),
        }
    }
}

impl Line for Message {
    fn text(&self) -> String {
        format!("{}> {}", views::short(&self.from), self.value.printable(LINE_CHARS_MAX))
    }
}

/// What happened in the cluster.
#[derive(Debug, Serialize)]
struct Happened {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<MemberView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    reunion: Option<Reunion>,
    #[serde(skip)]
    text: String,
}

impl Happened {
    /// That the state does not reach the disk, and why, or that it does again.
    fn on_disk(failure: Option<String>) -> Self {
        let (event, text) = match &failure {
            Some(failure) => ("state_undurable", format!("the state does not reach the disk: {}", printable(failure, LINE_CHARS_MAX))),
            None => ("state_durable", "the state is on the disk again".to_owned()),
        };
        Happened { event, member: None, peer: None, address: None, reason: failure, reunion: None, text }
    }

    fn of(event: &Event, me: PeerId) -> Self {
        let mut happened =
            Happened { event: event.name(), member: None, peer: None, address: None, reason: None, reunion: None, text: String::new() };
        happened.text = match event {
            Event::MemberJoined(member)
            | Event::MemberUpdated(member)
            | Event::MemberSuspected(member)
            | Event::MemberRecovered(member)
            | Event::MemberFailed(member)
            | Event::MemberLeft(member) => {
                happened.member = Some(MemberView::of(member, me));
                let what = match event {
                    Event::MemberJoined(_) => format!("joined, at {}", member.address),
                    Event::MemberUpdated(_) => format!("is back or has moved, at {}", member.address),
                    Event::MemberSuspected(_) => "does not answer".to_owned(),
                    Event::MemberRecovered(_) => "answers again".to_owned(),
                    Event::MemberFailed(_) => "failed".to_owned(),
                    _ => "left".to_owned(),
                };
                format!("{} {what}", member.peer.short())
            }
            Event::NeighborUp(peer) => {
                happened.peer = Some(peer.to_string());
                format!("{} is a neighbor", peer.short())
            }
            Event::NeighborDown(peer, reason) => {
                happened.peer = Some(peer.to_string());
                happened.reason = Some(reason.name().to_owned());
                format!("{} is no neighbor any more ({})", peer.short(), reason.name())
            }
            Event::Connected => "connected".to_owned(),
            Event::Isolated => "isolated: the last neighbor is gone; looking for others".to_owned(),
            Event::Reunited(reunion) => {
                happened.reunion = Some(*reunion);
                let Reunion { members, taken, overlaps } = reunion;
                format!(
                    "back together with {members} that were held for dead: {taken} keys changed by what they wrote, {overlaps} of them written on this side too"
                )
            }
            Event::SlowPeer(peer) => {
                happened.peer = Some(peer.to_string());
                format!("{} takes messages too slowly; its connection was closed", peer.short())
            }
            Event::Misbehaved(peer, rule) => {
                happened.peer = Some(peer.to_string());
                happened.reason = Some(rule.name().to_owned());
                format!("{} broke a rule: {}", peer.short(), rule.name())
            }
            Event::DialFailed(address, failure) => {
                happened.address = Some(*address);
                let (name, help) = views::dial_failure(*failure);
                happened.reason = Some(name.to_owned());
                format!("cannot join at {address}: {failure}{help}")
            }
        };
        happened
    }
}

impl Line for Happened {
    fn text(&self) -> String {
        format!("* {}", self.text)
    }
}

/// The answer to a typed question.
#[derive(Debug, Serialize)]
struct Shown<T> {
    event: &'static str,
    #[serde(flatten)]
    view: T,
}

impl<T: Serialize + Printable> Line for Shown<T> {
    fn text(&self) -> String {
        self.view.print(text::terminal_width()).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::json_line;

    #[test]
    fn typed_lines_are_read_to_the_end_of_the_input() {
        let mut input: &[u8] = b"one\r\n\ntwo \xff\nlast";
        assert_eq!(read_input_line(&mut input).unwrap(), Some(Ok("one".into())));
        assert_eq!(read_input_line(&mut input).unwrap(), Some(Ok(String::new())));
        assert!(read_input_line(&mut input).unwrap().unwrap().unwrap_err().contains("UTF-8"));
        assert_eq!(read_input_line(&mut input).unwrap(), Some(Ok("last".into())));
        assert_eq!(read_input_line(&mut input).unwrap(), None);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let mut text = vec![b'x'; 3 * INPUT_BYTES_MAX];
        text.extend_from_slice(b"\nnext\n");
        let mut input: &[u8] = &text;
        assert!(read_input_line(&mut input).unwrap().unwrap().unwrap_err().contains("was not sent"));
        assert_eq!(read_input_line(&mut input).unwrap(), Some(Ok("next".into())));
    }

    #[test]
    fn what_a_peer_wrote_is_printed_harmlessly() {
        let message = Message {
            event: "message",
            from: "abcdefghijklmnop".into(),
            channel: "events".into(),
            sequence: 1,
            hops: 1,
            time_us: 7,
            value: Value::of(b"\x1b]0;title\x07 hi"),
        };
        assert_eq!(message.text(), "abcdefghij> \\u{1b}]0;title\\u{7} hi");
        assert!(
            json_line(&message).starts_with(
                r#"{"event":"message","from":"abcdefghijklmnop","channel":"events","sequence":1,"hops":1,"time_us":7,"value":"#
            )
        );
    }

    #[test]
    fn help_is_one_note_of_several_lines() {
        let note = Note { event: "help", text: HELP.into() };
        assert_eq!(note.text().lines().count(), HELP.lines().count());
        assert!(note.text().lines().all(|line| line.starts_with("* ")));
    }
}
