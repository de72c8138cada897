//! A flood of first packets from forged addresses, 20,000 of them or as many as `MESHWORK_FLOOD` says. Alone in its process, because it
//! measures memory.
#![cfg(feature = "quic")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "the attacker has sockets and a thread of its own"
)]

mod quic_support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meshwork_channels::quic::NodeKey;
use meshwork_channels::{ChannelId, frame, limits};
use quic_support::{CLUSTER, Node, SECRET, Shown, alpn, client_tls, join, pair};
use rustls::Side;
use rustls::quic::{ClientConnection, Keys, Version};

const SOURCE_ID: [u8; 8] = *b"attacker";

/// What a dialer says first. All the forged packets share it: making it is the expensive part of a handshake.
fn client_hello() -> Vec<u8> {
    let tls = client_tls(&Shown::RawKey(NodeKey::generate().unwrap()), vec![alpn(&SECRET, CLUSTER)]);
    // Transport parameters (RFC 9000, section 18.2): only the source connection id, which must be there.
    let params = [&[0x0f, SOURCE_ID.len() as u8], &SOURCE_ID[..]].concat();
    let mut connection = ClientConnection::new(Arc::new(tls), Version::V1, "peer.invalid".try_into().unwrap(), params).unwrap();
    let mut hello = Vec::new();
    connection.write_hs(&mut hello);
    hello
}

/// A valid first packet (RFC 9000, section 17.2.2; RFC 9001, section 5) of a connection that nobody means.
fn first_packet(hello: &[u8], number: u64) -> Vec<u8> {
    const BYTES: usize = 1_200;
    const TAG: usize = 16;
    let destination = (number ^ 0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), &destination, Side::Client);

    // Long header, Initial, packet number of four bytes; version 1; both ids; no token.
    let mut packet = [&[0xc3, 0, 0, 0, 1, 8], &destination[..], &[8], &SOURCE_ID, &[0]].concat();
    let header_len = packet.len() + 2 + 4;
    let rest = u16::try_from(BYTES - packet.len() - 2).unwrap();
    packet.extend_from_slice(&(rest | 0x4000).to_be_bytes());
    packet.extend_from_slice(&[0; 4]);
    // CRYPTO frame at offset zero, then padding.
    let mut payload = vec![0x06, 0];
    payload.extend_from_slice(&(u16::try_from(hello.len()).unwrap() | 0x4000).to_be_bytes());
    payload.extend_from_slice(hello);
    payload.resize(BYTES - header_len - TAG, 0);
    let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut payload).unwrap();
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(tag.as_ref());

    let (header, body) = packet.split_at_mut(header_len);
    let (first, number) = header.split_at_mut(header_len - 4);
    keys.local.header.encrypt_in_place(&body[..16], &mut first[0], number).unwrap();
    packet
}

/// Sends from many ports, and never listens.
fn flood(target: SocketAddr, count: u64, over: &AtomicBool) {
    let hello = client_hello();
    let sockets: Vec<UdpSocket> = (0..64).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for number in 0..count {
        let _ = sockets[number as usize % sockets.len()].send_to(&first_packet(&hello, number), target);
        // Some thousands a second: faster than that, the kernel drops them before anybody has work with them.
        if number % 16 == 15 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    over.store(true, Ordering::SeqCst);
}

/// Resident memory of this process in KiB.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}

#[tokio::test]
async fn forged_first_packets_cost_no_memory_and_no_link() {
    let count = std::env::var("MESHWORK_FLOOD").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let (mut friend, mut node, there, back) = pair().await;
    // Everything that an exchange needs is allocated before the first measurement.
    let mut round = 0_u16;
    let mut exchange = async |round: u16| {
        there.try_send(ChannelId::DATA, frame::encode(round, b"ping")).unwrap();
        loop {
            if let meshwork_channels::quic::Event::Frame { frame, .. } = node.next().await {
                assert_eq!(frame.kind, round);
                break;
            }
        }
        back.try_send(ChannelId::DATA, frame::encode(round, b"pong")).unwrap();
        assert_eq!(friend.frame().await.1.kind, round);
    };
    for _ in 0..100 {
        exchange(round).await;
        round += 1;
    }
    let before = resident_kib();

    let over = Arc::new(AtomicBool::new(false));
    let (target, told) = (there.address(), over.clone());
    let handle = std::thread::spawn(move || flood(target, count, &told));
    let (mut exchanges, mut peak) = (0_u32, before);
    while !over.load(Ordering::SeqCst) {
        exchange(round).await;
        round = round.wrapping_add(1);
        exchanges += 1;
        peak = peak.max(resident_kib());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    handle.join().unwrap();
    exchange(round).await;

    let stats = node.endpoint.stats();
    eprintln!("{exchanges} exchanges meanwhile, {before:?} KiB before, {peak:?} KiB at most, {stats:?}");
    assert!(stats.knocks > count / 10, "the flood arrived");
    assert!(stats.retries > stats.knocks / 2, "and was answered with tokens");
    assert!(exchanges > 100, "the link went on meanwhile");
    assert!(stats.half_open <= limits::HALF_OPEN_MAX);
    if let (Some(before), Some(peak)) = (before, peak) {
        assert!(peak - before <= 8 * 1_024, "{} KiB more", peak - before);
    }
    // Whoever receives at its address still gets in.
    join(&mut Node::start(), &mut node).await;
}
