//! 100 MB through one byte stream: what arrives is what was sent, and the process stays small. A test of its own, for it measures the process.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

mod support;

use meshwork::ChannelId;
use meshwork::node::Config;
use support::mesh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BYTES: usize = 100_000_000;
const PIECE: usize = 50_000;
const GROWTH_MAX: usize = 16 * 1_024 * 1_024;

/// A rolling checksum in 64 bits (FNV-1a over words).
fn roll(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Bytes that look different everywhere.
fn piece(state: &mut u64, piece: &mut [u8]) {
    for word in piece.chunks_mut(8) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        word.copy_from_slice(&state.to_be_bytes()[..word.len()]);
    }
}

/// A line of the kernel's account of this process, in bytes.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1_024
}

#[tokio::test]
async fn a_hundred_megabytes_in_little_memory() {
    let nodes = mesh(2, &Config::default()).await;
    let mut streams = nodes[1].accept_streams(ChannelId::DATA).await.unwrap();
    let sending = async {
        let mut stream = nodes[0].open_stream(nodes[1].id(), ChannelId::DATA).await.unwrap();
        let (mut state, mut sum, mut bytes) = (7, 0, vec![0; PIECE]);
        for _ in 0..BYTES / PIECE {
            piece(&mut state, &mut bytes);
            sum = roll(sum, &bytes);
            stream.write_all(&bytes).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_u64().await.unwrap(), sum, "what arrived is what was sent");
    };
    let receiving = async {
        let mut stream = streams.accept().await.unwrap();
        let (mut received, mut sum, mut bytes) = (0, 0, vec![0; PIECE]);
        loop {
            let count = stream.read(&mut bytes).await.unwrap();
            if count == 0 {
                break;
            }
            received += count;
            sum = roll(sum, &bytes[..count]);
        }
        assert_eq!(received, BYTES);
        stream.write_u64(sum).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let before = memory("VmRSS");
    tokio::join!(sending, receiving);
    let growth = memory("VmHWM").saturating_sub(before);
    println!("grew by {} KiB at most", growth / 1_024);
    assert!(growth < GROWTH_MAX, "the process grew by {growth} bytes");
}
