//! A member that was let in and says whatever it likes: what it costs the one that listens, and that the others go on.
//!
//! The first half needs no socket: nodes on a table in virtual time, so that hundreds of thousands of hostile inputs take seconds and a failure
//! comes back with its seed. The second half sends real bytes to real nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests, some of real sockets, in which a panic is the verdict"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use meshwork::channels::frame::{self, Decoder, Frame};
use meshwork::channels::quic::CloseCode;
use meshwork::channels::random::{Generator, generator};
use meshwork::channels::reliable::{self, Position, Sequence};
use meshwork::channels::{Bounded, decode, encode, limits};
use meshwork::crdt::{self, Stamp};
use meshwork::node::{Config, Event, Kind};
use meshwork::overlay::few::Few;
use meshwork::overlay::mesh::Message as MeshMessage;
use meshwork::overlay::plumtree::message::{Group, LinkNews, Push, Range};
use meshwork::overlay::plumtree::{self, MessageId, Stream};
use meshwork::overlay::topology::Message as Topology;
use meshwork::overlay::{Message, hyparview, swim};
use meshwork::runtime::GuaranteedMessages;
use meshwork::{ChannelId, Node, PeerId};
use rand::RngExt;
use support::table::{HOSTILE, Said, Table, VICTIM, peer};
use support::wire::{Socket, close_code};
use support::{PATIENCE, mesh};

/// What one input may make a node hold on top of what it held.
const INPUT_BYTES_MAX: u64 = 4 * limits::FRAME_BYTES_MAX as u64;

const OVERLAY: u16 = 1;
const STATE: u16 = 2;
const MESSAGE: u16 = 3;
const REQUEST: u16 = 4;

/// What nodes say to each other when they form a cluster, broadcast, write, ask and part.
fn conversation(config: &Config) -> Vec<Said> {
    let mut table = Table::new(3, 1, config);
    for round in 0..20_u8 {
        for index in 0..3 {
            table.with(index, |node, now, actions| {
                let payload = Bytes::from(vec![round; usize::from(round) * 20]);
                node.broadcast(ChannelId::EVENTS, payload.clone(), now, actions).unwrap();
                node.set(&format!("key/{index}/{round}"), payload.clone(), now, actions).unwrap();
                let to = peer((index + 1) % 3);
                node.send(to, ChannelId::DATA, &payload, now, actions).unwrap();
                node.request(to, payload, Duration::from_secs(1), now, actions).unwrap();
            });
            table.run(Duration::from_millis(700));
        }
    }
    table.heard.take().unwrap()
}

fn mutated(random: &mut Generator, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = |random: &mut Generator, len: usize| random.random_range(0..=len);
    match random.random_range(0..8) {
        0 => {}
        1..=2 => {
            for _ in 0..random.random_range(1..5) {
                if let Some(last) = bytes.len().checked_sub(1) {
                    let index = random.random_range(0..=last);
                    bytes[index] ^= 1 << random.random_range(0..8);
                }
            }
        }
        3 => bytes.truncate(at(random, bytes.len())),
        4 => {
            bytes.truncate(at(random, bytes.len()));
            bytes.extend_from_slice(&other[at(random, other.len())..]);
        }
        5 => bytes = (0..random.random_range(0..512)).map(|_| random.random()).collect(),
        6 => {
            // A number that promises more than any machine holds.
            let index = at(random, bytes.len());
            bytes.splice(index..index, [[0xff; 9].as_slice(), &[1]].concat());
        }
        _ => {
            let (start, end) = (at(random, bytes.len()), at(random, bytes.len()));
            let part = bytes[start.min(end)..start.max(end)].repeat(random.random_range(2..40));
            bytes.splice(start..start, part);
        }
    }
    bytes.truncate(limits::CONTROL_BYTES_MAX);
    bytes
}

/// Feeds mutations of what nodes say to a node, and to the decoder of frames.
fn flood(topology: Kind, seed: u64, count: u32) {
    let config = Config { topology, ..Config::default() };
    let heard = conversation(&config);
    // Of another life: broadcasts carry no signature yet, so one who replays or forges the next numbers of this life would be believed.
    let mut table = Table::new(3, 1_000_003, &config);
    table.heard = None;
    let mut random = generator(seed, "hostile", 0);
    let mut most = 0;
    for number in 0..count {
        let [said, other] = [0, 0].map(|_| &heard[random.random_range(0..heard.len())]);
        let bytes_of = |said: &Said| match said {
            Said::Frame(_, frame) => frame.body.clone(),
            Said::Datagram(bytes) => bytes.clone(),
        };
        let body = mutated(&mut random, &bytes_of(said), &bytes_of(other));
        let said = match said {
            Said::Frame(channel, frame) => {
                let channel = if random.random_range(0..16) == 0 { ChannelId(random.random_range(0..8)) } else { *channel };
                let kind = if random.random_range(0..16) == 0 { random.random_range(0..8) } else { frame.kind };
                Said::Frame(channel, Frame { kind, body: Bytes::from(body) })
            }
            Said::Datagram(_) => Said::Datagram(Bytes::from(body)),
        };
        most = most.max(table.say(said));
        assert!(most <= INPUT_BYTES_MAX, "{most} bytes for input {number}");
        if number % 100 == 0 {
            table.run(Duration::from_millis(50));
        }
        table.answers.clear();
    }
    println!(
        "{topology:?}: {count} inputs, at most {most} bytes for one; {} broken rules, {} complaints, closed {} times",
        table.misbehaved(),
        table.complaints,
        table.closed
    );
    assert!(table.misbehaved() > u64::from(count) / 10, "most of it is no message");
    assert!(table.closed > 0 && table.complaints > 0);
    table.assert_works();
}

/// Inputs of each of the four floods: 200,000 together.
const SHARE: u32 = 50_000;

#[test]
fn mutated_messages_among_partial_views() {
    flood(Kind::Hyparview, 1, SHARE);
}

#[test]
fn mutated_messages_in_a_mesh() {
    flood(Kind::Mesh, 2, SHARE);
}

#[test]
fn more_mutated_messages_among_partial_views() {
    flood(Kind::Hyparview, 3, SHARE);
}

#[test]
fn more_mutated_messages_in_a_mesh() {
    flood(Kind::Mesh, 4, SHARE);
}

#[test]
fn mutated_streams() {
    let mut random = generator(3, "streams", 0);
    let heard = conversation(&Config::default());
    let frames: Vec<Bytes> = heard
        .iter()
        .filter_map(|said| match said {
            Said::Frame(_, frame) => Some(frame::encode(frame.kind, &frame.body)),
            Said::Datagram(_) => None,
        })
        .collect();
    let (mut most, mut failed, mut whole) = (0, 0, 0);
    for _ in 0..20_000 {
        let some: Vec<u8> = (0..random.random_range(1..6)).flat_map(|_| frames[random.random_range(0..frames.len())].to_vec()).collect();
        let other = &frames[random.random_range(0..frames.len())];
        let stream = mutated(&mut random, &some, other);
        let piece = random.random_range(1..=stream.len().max(1));
        let pieces: Vec<Bytes> = stream.chunks(piece).map(Bytes::copy_from_slice).collect();
        let cost = measure(|| {
            let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
            for piece in pieces {
                decoder.push(piece);
                loop {
                    match decoder.next() {
                        Ok(Some(_)) => whole += 1,
                        Ok(None) => break,
                        Err(_) => {
                            failed += 1;
                            break;
                        }
                    }
                }
            }
        });
        most = most.max(cost.bytes_max);
        assert!(most <= INPUT_BYTES_MAX, "{most} bytes");
    }
    assert!(failed > 0 && whole > 0, "{failed} failed, {whole} frames came through");
}

fn anybody(random: &mut Generator) -> PeerId {
    PeerId::from_bytes(std::array::from_fn(|_| random.random()))
}

fn anywhere(random: &mut Generator) -> SocketAddr {
    SocketAddr::from(([10, 7, random.random(), random.random()], random.random_range(1..=u16::MAX)))
}

fn overlay(random: &mut Generator, message: &Message<PeerId>) -> Said {
    let addresses: Bounded<(PeerId, SocketAddr), 64> = Bounded::first_of((0..64).map(|_| (anybody(random), anywhere(random))));
    let body = encode(&(addresses, message));
    Said::Frame(message.channel(), Frame { kind: OVERLAY, body })
}

/// The hostile member keeps all the rules until it is a neighbor of the victim.
fn become_neighbor(table: &mut Table, random: &mut Generator) {
    let link = |yours| Message::Topology(Topology::Mesh(MeshMessage::Link { mine: 1, yours }));
    match table.nodes[VICTIM].overlay().topology().name() {
        "mesh" => {
            table.answers.clear();
            table.say(overlay(random, &link(None)));
            let theirs =
                table.answers.iter().find_map(|(_, frame)| {
                    match decode::<(Bounded<(PeerId, SocketAddr), 64>, Message<PeerId>)>(&frame.body).ok()?.1 {
                        Message::Topology(Topology::Mesh(MeshMessage::Link { mine, .. })) => Some(mine),
                        _ => None,
                    }
                });
            table.say(overlay(random, &link(theirs)));
        }
        _ => {
            let neighbor = hyparview::Message::Neighbor { link: 1, priority: hyparview::Priority::High };
            table.say(overlay(random, &Message::Topology(Topology::Hyparview(neighbor))));
        }
    }
    assert!(table.nodes[VICTIM].neighbors().contains(&HOSTILE), "it becomes a neighbor by the rules");
}

/// One message after the other that is right in form and wrong in content.
fn nasty(random: &mut Generator, kind: &str, number: u64, wall: u64) -> Said {
    let peers = |random: &mut Generator| Bounded::first_of((0..16).map(|_| anybody(random)));
    let hyparview = |message| Message::Topology(Topology::Hyparview(message));
    let stream = |random: &mut Generator| Stream { origin: anybody(random), incarnation: random.random(), channel: ChannelId::EVENTS };
    let gossip =
        |id| Message::Plumtree(plumtree::Message::Gossip { id, hops: u16::MAX, push: Push::Eager, payload: Bytes::from(vec![7; 1_000]) });
    let record = |random: &mut Generator| swim::Record {
        peer: anybody(random),
        generation: random.random_range(0..1 << 50),
        address: anywhere(random),
        incarnation: random.random(),
        status: swim::Status::Alive,
        down_for_secs: 0,
    };
    let message = match kind {
        "joins" => hyparview(match number % 3 {
            0 => hyparview::Message::Join { link: random.random() },
            1 => hyparview::Message::Neighbor { link: random.random(), priority: hyparview::Priority::High },
            _ => hyparview::Message::ForwardJoin { joiner: anybody(random), ttl: u8::MAX, missing: u8::MAX },
        }),
        "shuffles" => hyparview(match number % 2 {
            0 => hyparview::Message::Shuffle { origin: anybody(random), nonce: random.random(), ttl: u8::MAX, peers: peers(random) },
            _ => hyparview::Message::ShuffleReply { nonce: random.random(), peers: peers(random) },
        }),
        "links" => Message::Topology(Topology::Mesh(MeshMessage::Link {
            mine: random.random(),
            yours: random.random::<bool>().then(|| random.random()),
        })),
        "announcements" => {
            let range = |random: &mut Generator| Range { first: random.random_range(1..1 << 20), more: u16::MAX, hops: 1 };
            let group = |random: &mut Generator| Group { stream: stream(random), ranges: Few::first_of((0..64).map(|_| range(random))) };
            let groups = Few::first_of((0..64).map(|_| group(random)));
            Message::Plumtree(plumtree::Message::IHave { link: LinkNews::OpenedUnheard, groups })
        }
        "grafts" => {
            let range = Range { first: 1, more: u16::MAX, hops: 0 };
            let stream = Stream { origin: peer(1), incarnation: 1, channel: ChannelId::EVENTS };
            let groups = Few::first_of((0..128).map(|_| Group { stream, ranges: Few::first_of([range; 64]) }));
            Message::Plumtree(plumtree::Message::Graft { eager: true, groups })
        }
        "origins" => gossip(stream(random).message(1)),
        "gaps" => gossip(MessageId { origin: HOSTILE, incarnation: 1, channel: ChannelId::EVENTS, sequence: 2 * number + 1 }),
        "tables" => {
            let records = Bounded::first_of((0..256).map(|_| record(random)));
            Message::Swim(match number % 2 {
                0 => swim::Message::Push { records },
                _ => swim::Message::Table { after: None, until: None, records },
            })
        }
        "digests" => Message::Swim(swim::Message::Digest { hash: random.random(), sender: record(random) }),
        "entries" => {
            let entry = |random: &mut Generator| crdt::wire::Entry {
                key: crdt::Key::try_from(format!("{:x}/{}", random.random::<u128>(), "k".repeat(100)).as_str()).unwrap(),
                stamp: Stamp::from_parts(wall, random.random()),
                origin: anybody(random),
                body: crdt::wire::Body::Register(Bytes::from(vec![7; 100])),
            };
            let entries = Bounded::first_of((0..200).map(|_| entry(random)));
            let body = encode(&crdt::replica::Message::Entries { entries });
            return Said::Frame(ChannelId::STATE, Frame { kind: STATE, body });
        }
        "requests" => {
            let body = encode(&(number, Bytes::from(vec![7; 1_000])));
            return Said::Frame(ChannelId::COORDINATION, Frame { kind: REQUEST, body });
        }
        _ => return Said::Frame(ChannelId::DATA, Frame { kind: MESSAGE, body: Bytes::from(vec![7; 1_000]) }),
    };
    overlay(random, &message)
}

/// Right in form, wrong in content, and a lot of it: what the victim holds afterwards is bounded, and it still works.
///
/// The bound of a kind of flood is that of the tables that it fills, as the cores state them; see each call.
fn nasty_flood(topology: Kind, kind: &str, count: u64, held_max: usize) {
    let mut config = Config { topology, ..Config::default() };
    // Smaller than by default, so that a short flood goes far beyond.
    config.state.keys_max = 2_000;
    config.state.state_bytes_max = 1_024 * 1_024;
    config.broadcast.payload_bytes_max = 1_024 * 1_024;
    config.broadcast.streams_max = 1_024;
    config.membership.members_max = 500;
    let mut table = Table::new(3, 1, &config);
    table.heard = None;
    let mut random = generator(4, kind, 0);
    let mut most = 0;
    let held = measure(|| {
        for number in 0..count {
            if number % 500 == 0 && !table.nodes[VICTIM].neighbors().contains(&HOSTILE) && kind != "links" {
                become_neighbor(&mut table, &mut random);
            }
            let said = nasty(&mut random, kind, number, table.now.wall.as_millis());
            most = most.max(table.say(said));
            table.answers.clear();
            table.delivered.iter_mut().for_each(|delivered| *delivered = Vec::new());
            if number % 100 == 0 {
                table.run(Duration::from_millis(50));
            }
        }
    });
    println!(
        "{kind} in {topology:?}: {count} inputs, at most {} KiB for one, {} KiB held by all nodes afterwards; broken rules {:?}",
        most / 1_024,
        held.bytes_current / 1_024,
        table.nodes[VICTIM].counters().misbehaved
    );
    assert!(most <= INPUT_BYTES_MAX, "{most} bytes for one input");
    assert!(held.bytes_current <= held_max as i64, "{} bytes are held", held.bytes_current);
    table.assert_works();
}

const MIB: usize = 1_024 * 1_024;

#[test]
fn floods_of_joins_and_links() {
    // 16,384 addresses of peers, 4,096 to dial, and 1,024 peers with a frame that waits.
    nasty_flood(Kind::Hyparview, "joins", 1_500, 16 * MIB);
    nasty_flood(Kind::Hyparview, "shuffles", 1_000, 16 * MIB);
    nasty_flood(Kind::Mesh, "links", 1_500, 16 * MIB);
}

#[test]
fn floods_of_broadcasts() {
    // 16,384 missing messages of one neighbor, at some 300 bytes, and what others learn of them.
    nasty_flood(Kind::Mesh, "announcements", 50, 24 * MIB);
    nasty_flood(Kind::Mesh, "grafts", 200, 16 * MIB);
    // Three stores of 1 MiB of payloads, 1,024 streams each, and the addresses.
    nasty_flood(Kind::Mesh, "origins", 2_500, 24 * MIB);
    nasty_flood(Kind::Mesh, "gaps", 3_000, 24 * MIB);
}

#[test]
fn floods_of_members() {
    // 500 members by hearsay in each view, and as many tombstones as 1,024.
    nasty_flood(Kind::Mesh, "tables", 100, 24 * MIB);
    nasty_flood(Kind::Hyparview, "digests", 1_500, 24 * MIB);
}

#[test]
fn floods_of_state_and_requests() {
    // Three replicas of 1 MiB and 2,000 keys; 4,096 requests.
    nasty_flood(Kind::Mesh, "entries", 100, 16 * MIB);
    nasty_flood(Kind::Mesh, "requests", 10_000, 16 * MIB);
    nasty_flood(Kind::Mesh, "messages", 5_000, 16 * MIB);
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test ends in time") });
}

/// Broadcasts from every node to every other, each once, and nobody lost.
async fn assert_talk(nodes: &[Node], number: u64) {
    let mut inboxes: Vec<_> = nodes.iter().map(Node::subscribe).collect();
    for node in nodes {
        node.broadcast(number.to_be_bytes().to_vec()).await.unwrap();
    }
    for inbox in &mut inboxes {
        for _ in 1..nodes.len() {
            assert_eq!(inbox.next().await.unwrap().payload, number.to_be_bytes().to_vec());
        }
    }
    for node in nodes {
        let report = node.report().await.unwrap();
        for other in nodes.iter().filter(|other| other.id() != node.id()) {
            assert!(report.neighbors.contains(&other.id()), "neighbors stay neighbors");
        }
    }
}

#[test]
fn garbage_on_real_connections_costs_its_sender_the_connection() {
    run(async {
        let nodes = mesh(3, &Config { topology: Kind::Mesh, ..Config::default() }).await;
        let mut events = nodes[0].events();
        let mut random = generator(5, "sockets", 0);
        let garbage: Vec<u8> = std::iter::once(0xff).chain((0..600).map(|_| random.random())).collect();
        let (undecodable, misbehaved) = (u64::from(CloseCode::Undecodable.number()), u64::from(CloseCode::Misbehaved.number()));
        // What is said on a stream behind its preamble, and what the victim makes of it.
        let mut cases: Vec<(Option<ChannelId>, Vec<u8>, u64)> = Vec::new();
        for channel in ChannelId::BUILT_IN {
            cases.push((Some(channel), vec![0; 100], undecodable));
            cases.push((Some(channel), frame::encode(OVERLAY, &garbage).to_vec(), misbehaved));
            cases.push((Some(channel), frame::encode(REQUEST, &[0xff; 12]).to_vec(), misbehaved));
            // A frame that claims 4 GiB, and one that is never finished.
            cases.push((Some(channel), vec![0xff, 0xff, 0xff, 0xff, 0x0f, 1], undecodable));
            cases.push((Some(channel), frame::encode(OVERLAY, &garbage)[..300].to_vec(), undecodable));
        }
        cases.push((Some(ChannelId::CONTROL), frame::encode(MESSAGE, b"not here").to_vec(), misbehaved));
        cases.push((Some(ChannelId::DATA), frame::encode(STATE, b"not here").to_vec(), misbehaved));
        cases.push((None, garbage.clone(), undecodable));
        for (number, (channel, bytes, code)) in cases.into_iter().enumerate() {
            let socket = Socket::new();
            let (connection, victim) = socket.dial(nodes[0].address()).await.unwrap();
            assert_eq!(victim, nodes[0].id());
            let mut stream = connection.open_uni().await.unwrap();
            if let Some(channel) = channel {
                stream.write_all(&frame::Preamble::of(channel).encode()).await.unwrap();
            }
            stream.write_all(&bytes).await.unwrap();
            let _ = stream.finish();
            assert_eq!(close_code(&connection).await, code, "case {number}: {channel:?} {bytes:?}");
            // However it was found out, by the transport or by the node, the application hears of it.
            loop {
                match events.next().await.unwrap() {
                    Event::Misbehaved(whom, what) if whom == socket.peer() => break assert!(what.is_fatal(), "case {number}: {what}"),
                    Event::Misbehaved(whom, _) => panic!("case {number}: {} is blamed", whom.short()),
                    _ => {}
                }
            }
        }
        for bytes in [vec![], [&[1], &garbage[..]].concat()] {
            let socket = Socket::new();
            let (connection, _) = socket.dial(nodes[0].address()).await.unwrap();
            connection.send_datagram(Bytes::from(bytes)).unwrap();
            assert_eq!(close_code(&connection).await, misbehaved);
        }
        assert_talk(&nodes, 1).await;
    });
}

#[test]
fn a_member_that_always_comes_back_is_reported_once_a_second() {
    run(async {
        let nodes = mesh(3, &Config { topology: Kind::Mesh, ..Config::default() }).await;
        let mut events = nodes[0].events();
        let socket = Socket::new();
        let (hostile, address) = (socket.peer(), nodes[0].address());
        let attack = tokio::spawn(async move {
            let mut times = 0_u32;
            loop {
                let Some((connection, _)) = socket.dial(address).await else { continue };
                times += 1;
                // 256 streams of unknown channels and second ones, as many as it may; then a frame that is none.
                for number in 0..256_u32 {
                    let opening = tokio::time::timeout(Duration::from_millis(20), connection.open_uni());
                    let Ok(Ok(mut stream)) = opening.await else { break };
                    let channel = ChannelId((number % 20) as u16);
                    let _ = stream.write_all(&frame::Preamble::of(channel).encode()).await;
                    let _ = stream.write_all(&[9, 1]).await;
                    // Left open, with half a frame.
                    std::mem::forget(stream);
                }
                let _ = connection.send_datagram(Bytes::from_static(&[1, 0xff, 0xff]));
                close_code(&connection).await;
                if times == 20 {
                    return;
                }
            }
        });
        let begin = tokio::time::Instant::now();
        let mut number = 0;
        while !attack.is_finished() || begin.elapsed() < Duration::from_secs(3) {
            number += 1;
            assert_talk(&nodes, number).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        attack.await.unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        nodes[0].kill().await;
        let mut reported = 0_u32;
        while let Some(event) = events.next().await {
            match event {
                Event::Misbehaved(whom, _) if whom == hostile => reported += 1,
                Event::Misbehaved(whom, what) => panic!("{} is blamed for {what}", whom.short()),
                _ => {}
            }
        }
        assert!(reported > 0, "it is reported");
        assert!(f64::from(reported) <= seconds.ceil() + 1.0, "{reported} times in {seconds} s");
    });
}

/// A member by hand that speaks of guaranteed messages, and what it is told of them.
struct Hand {
    connection: quinn::Connection,
    /// For messages, and for what is said of them.
    data: quinn::SendStream,
    words: quinn::SendStream,
    told: tokio::sync::mpsc::Receiver<reliable::Message>,
}

impl Hand {
    async fn dial(socket: &Socket, address: SocketAddr) -> Self {
        let (connection, _) = socket.dial(address).await.unwrap();
        let open = async |channel| {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&frame::Preamble::of(channel).encode()).await.unwrap();
            stream
        };
        let (data, words) = (open(ChannelId::DATA).await, open(ChannelId::COORDINATION).await);
        let (sender, told) = tokio::sync::mpsc::channel(10_000);
        let incoming = connection.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = incoming.accept_uni().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _ = support::wire::read_preamble(&mut stream).await;
                    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
                    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                        decoder.push(chunk.bytes);
                        while let Some(frame) = decoder.next().unwrap() {
                            if frame.kind == reliable::KIND_MESSAGE {
                                let _ = sender.send(decode(&frame.body).unwrap()).await;
                            }
                        }
                    }
                });
            }
        });
        Hand { connection, data, words, told }
    }

    async fn send(&mut self, sequences: impl IntoIterator<Item = Sequence>) {
        for sequence in sequences {
            self.data.write_all(&reliable::encode_data(sequence, &sequence.to_be_bytes())).await.unwrap();
        }
    }

    async fn say(&mut self, message: &reliable::Message) {
        self.words.write_all(&frame::encode(reliable::KIND_MESSAGE, &encode(message))).await.unwrap();
    }

    /// Waits until it is told that everything before `next` was taken; more is never said.
    async fn acknowledged(&mut self, next: Sequence) {
        loop {
            if let reliable::Message::Ack(positions) = self.told().await {
                let said = positions.iter().find(|position| position.channel == ChannelId::DATA).unwrap().next;
                assert!(said <= next, "{said} of {next}");
                if said == next {
                    return;
                }
            }
        }
    }

    /// Waits until it is asked to go on with `next`.
    async fn resumed(&mut self, next: Sequence) {
        loop {
            if let reliable::Message::Resume { positions, .. } = self.told().await
                && positions.iter().any(|position| (position.channel, position.next) == (ChannelId::DATA, next))
            {
                return;
            }
        }
    }

    async fn told(&mut self) -> reliable::Message {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("a word in time").expect("the connection stands")
    }
}

fn ack(next: Sequence) -> reliable::Message {
    reliable::Message::Ack(Bounded::first_of([Position { channel: ChannelId::DATA, lane: 0, next }]))
}

/// Takes the next message, which must be this one.
async fn take(messages: &mut GuaranteedMessages, sequence: Sequence) {
    let message = messages.next().await.unwrap();
    assert_eq!((message.sequence(), &message.payload()[..]), (sequence, &sequence.to_be_bytes()[..]));
    message.acknowledge();
}

async fn misbehaved(node: &Node, what: &str) -> u64 {
    node.report().await.unwrap().counters.misbehaved.get(what).copied().unwrap_or(0)
}

#[test]
fn replays_of_guaranteed_messages_are_delivered_once_and_acknowledged_again() {
    run(async {
        let nodes = mesh(3, &Config { topology: Kind::Mesh, ..Config::default() }).await;
        let mut messages = nodes[0].guaranteed();
        let socket = Socket::new();
        let mut hand = Hand::dial(&socket, nodes[0].address()).await;
        hand.send([1, 1, 2, 1, 2]).await;
        take(&mut messages, 1).await;
        take(&mut messages, 2).await;
        hand.acknowledged(3).await;
        // Again, long after they were taken, and many times.
        for _ in 0..5 {
            hand.send((0..1_000).map(|number| number % 2 + 1)).await;
            hand.acknowledged(3).await;
        }
        // And over a new connection of the same life, on which they are acknowledged before and after.
        hand.connection.close(0_u32.into(), b"");
        let hostile = socket.peer();
        support::within_patience("the end of the connection", async || {
            nodes[0].report().await.unwrap().links.iter().all(|link| link.peer != hostile)
        })
        .await;
        let mut hand = Hand::dial(&socket, nodes[0].address()).await;
        hand.acknowledged(3).await;
        hand.send([1, 2, 2, 1]).await;
        hand.acknowledged(3).await;
        hand.send([3]).await;
        take(&mut messages, 3).await;
        hand.acknowledged(4).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), messages.next()).await.is_err(), "nothing was left over");
        assert_talk(&nodes, 1).await;
    });
}

#[test]
fn numbers_out_of_order_and_acknowledgments_of_nothing_are_faults_that_cost_their_sender_alone() {
    run(async {
        let nodes = mesh(3, &Config { topology: Kind::Mesh, ..Config::default() }).await;
        let mut messages = nodes[0].guaranteed();
        let mut events = nodes[0].events();
        let socket = Socket::new();
        let mut hand = Hand::dial(&socket, nodes[0].address()).await;

        // Forward over a gap, however far, and back over it.
        hand.send([1, 3, 2, u64::MAX - 1, 5, u64::MAX, 0]).await;
        take(&mut messages, 1).await;
        take(&mut messages, 2).await;
        hand.resumed(3).await;
        assert!(misbehaved(&nodes[0], "sequence_ahead").await >= 1);
        hand.send([3]).await;
        take(&mut messages, 3).await;
        // As many as there may be, in the wrong order: what comes behind the gap is not kept.
        hand.send((5..10_000).rev()).await;
        hand.resumed(4).await;
        hand.send([4]).await;
        take(&mut messages, 4).await;
        hand.acknowledged(5).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), messages.next()).await.is_err(), "none of those was kept");

        // Of what was never sent, and then beyond what was and back again.
        hand.say(&ack(100)).await;
        support::within_patience("the fault", async || misbehaved(&nodes[0], "unasked").await == 1).await;
        let mut receipt = nodes[0].send_guaranteed(socket.peer(), ChannelId::DATA, "for you").await.unwrap();
        let ahead = misbehaved(&nodes[0], "sequence_ahead").await;
        hand.say(&ack(100)).await;
        hand.say(&ack(u64::MAX)).await;
        hand.say(&ack(0)).await;
        support::within_patience("the faults", async || misbehaved(&nodes[0], "sequence_behind").await == 1).await;
        assert_eq!(misbehaved(&nodes[0], "sequence_ahead").await, ahead + 2);
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut receipt).await.is_err(), "no lie settles it");
        hand.say(&ack(2)).await;
        receipt.await.unwrap();

        // Every fault has a name and the right culprit, and none of them ended the connection.
        assert!(hand.connection.close_reason().is_none());
        assert_talk(&nodes, 1).await;
        nodes[0].kill().await;
        let mut names = std::collections::BTreeSet::new();
        while let Some(event) = events.next().await {
            if let Event::Misbehaved(whom, what) = event {
                assert_eq!(whom, socket.peer());
                names.insert(what.name());
            }
        }
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["sequence_ahead", "sequence_behind", "unasked"]);
    });
}
