//! What two nodes hold when the application of one sends and that of the other takes nothing, in each way that there is to send: everything runs on one thread, on
//! which allocations are counted. Each bound is the sum of what is documented for the way; the test prints what was needed of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test of real sockets, in which a panic is the verdict"
)]

#[path = "support/pair.rs"]
mod pair;

use std::time::Duration;

use allocation_counter::measure;
use meshwork::channels::limits;
use meshwork::runtime::TrySendError;
use meshwork::{ChannelId, ChannelSpec, Node};
use pair::{builder, until};
use tokio::io::AsyncWriteExt;
use tokio::runtime::{Handle, Runtime};
use tokio::time::{Instant, sleep, timeout};

const MIB: usize = 1_024 * 1_024;
/// What waits for a receiver, at most.
const INBOX: usize = 4 * MIB;
/// After so long without anything taken, nothing more will be.
const STILL: Duration = Duration::from_millis(300);
/// What QUIC, the nodes and their reports take beside messages. What is received lies in the packets it came in, half again as large at most.
const BESIDE: usize = 4 * MIB;

/// Two nodes on this thread that define the channels of these tests.
fn nodes(runtime: &Runtime) -> (Node, Node) {
    runtime.block_on(async {
        let here = || {
            let specs = [ChannelSpec::new("any").best_effort(), ChannelSpec::new("new").latest(), ChannelSpec::new("sure").guaranteed()];
            specs.into_iter().fold(builder().runtime(Handle::current()), |builder, spec| builder.channel(spec))
        };
        let a = here().start().await.unwrap();
        let b = here().join(a.address().to_string()).start().await.unwrap();
        for (node, other) in [(&a, &b), (&b, &a)] {
            until(async || node.members().await.unwrap().iter().any(|member| member.peer == other.id())).await;
        }
        (a, b)
    })
}

/// Sends until nothing is taken any more, and what was held at most meanwhile. `is_taken` tries to send one.
fn held(runtime: &Runtime, what: &str, bound: usize, mut is_taken: impl AsyncFnMut() -> bool) {
    let mut sent = 0_u64;
    let counted = measure(|| {
        runtime.block_on(async {
            let begin = Instant::now();
            let mut since = begin;
            while since.elapsed() < STILL {
                assert!(begin.elapsed() < Duration::from_secs(60), "{what}: it goes on for ever");
                if is_taken().await {
                    (since, sent) = (Instant::now(), sent + 1);
                } else {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
    });
    println!("{what}: {sent} messages, {:.1} MiB of {:.1} MiB", counted.bytes_max as f64 / MIB as f64, bound as f64 / MIB as f64);
    assert!(sent > 0, "{what}: nothing was taken");
    assert!(counted.bytes_max < bound as u64, "{what}: {} bytes were held", counted.bytes_max);
}

fn is_taken(sent: Result<(), TrySendError>) -> bool {
    match sent {
        Ok(()) => true,
        Err(TrySendError::Full) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ordered_messages_are_held_within_queue_windows_and_inbox() {
    for (channel, bytes) in
        [(ChannelId::DATA, 64), (ChannelId::DATA, 64 * 1_024), (ChannelId::COORDINATION, 64), (ChannelId::EVENTS, 1_024)]
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (a, b) = nodes(&runtime);
        let queue = ChannelSpec::built_in().into_iter().find(|spec| spec.id == channel).unwrap().queued_bytes_max;
        let _receiver = runtime.block_on(b.receiver(channel)).unwrap();
        let mut sender = runtime.block_on(a.sender(b.id(), channel)).unwrap();
        let payload = vec![7; bytes];
        let window = limits::STREAM_WINDOW_BYTES as usize;
        // In the queue, in the hands of the writer, on the way or received and unread, and in the inbox.
        let bound = queue + 2 * MIB + (window + INBOX) * 3 / 2 + BESIDE;
        held(&runtime, &format!("{channel:?}, {bytes} bytes"), bound, async || is_taken(sender.try_send(&payload)));
    }
}

#[test]
fn the_newest_of_many_keys_are_held_within_the_queue() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = nodes(&runtime);
    let channel = ChannelId::named("new");
    let spec = ChannelSpec::new("new").latest();
    let _receiver = runtime.block_on(b.receiver(channel)).unwrap();
    let mut sender = runtime.block_on(a.sender(b.id(), channel)).unwrap();
    let mut key = 0_u64;
    let bound = 2 * spec.queued_bytes_max + spec.queued_frames_max * 256 + 2 * MIB + BESIDE;
    held(&runtime, "latest, 1,024 bytes", bound, async || {
        key += 1;
        is_taken(sender.try_send_latest(&key.to_le_bytes(), &[7; 1_024]))
    });
}

#[test]
fn best_effort_drops_what_finds_no_room() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = nodes(&runtime);
    let channel = ChannelId::named("any");
    let _receiver = runtime.block_on(b.receiver(channel)).unwrap();
    let mut sender = runtime.block_on(a.sender(b.id(), channel)).unwrap();
    let mut left = 300_000;
    held(&runtime, "best effort, 1,000 bytes", INBOX * 3 / 2 + 2 * MIB + BESIDE, async || {
        if left % 64 == 0 {
            tokio::task::yield_now().await;
        }
        left -= 1;
        left > 0 && is_taken(sender.try_send(&[7; 1_000]))
    });
}

#[test]
fn guaranteed_messages_are_held_within_their_windows() {
    for channel in [ChannelId::COORDINATION, ChannelId::named("sure")] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (a, b) = nodes(&runtime);
        let _receiver = b.guaranteed();
        let mut receipts = Vec::new();
        // Here until they are acknowledged, on the way, and there until they are taken.
        held(&runtime, &format!("guaranteed on {channel:?}, 1,024 bytes"), 4 * MIB + BESIDE, async || {
            let sending = a.send_guaranteed(b.id(), channel, vec![7; 1_024]);
            match timeout(Duration::from_millis(100), sending).await {
                Ok(receipt) => receipts.push(receipt.unwrap()),
                Err(_) => return false,
            }
            true
        });
    }
}

#[test]
fn a_byte_stream_is_held_within_its_windows() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (a, b) = nodes(&runtime);
    let (mut near, _far) = runtime.block_on(async {
        let mut streams = b.accept_streams(ChannelId::DATA).await.unwrap();
        let (near, far) = tokio::join!(a.open_stream(b.id(), ChannelId::DATA), streams.accept());
        (near.unwrap(), far.unwrap())
    });
    let payload = vec![7; 64 * 1_024];
    let bound = 3 * limits::STREAM_WINDOW_BYTES as usize + BESIDE;
    held(&runtime, "a byte stream, pieces of 64 KiB", bound, async || {
        timeout(Duration::from_millis(100), near.write(&payload)).await.is_ok()
    });
}
