//! What the path of a frame costs in allocations, against numbers on record: counts, not times, so they are the same on every machine.

use bytes::Bytes;
use meshwork_channels::frame::Decoder;
use meshwork_channels::{ChannelId, Time, limits, sender};

const FRAMES: u64 = 1_000;

#[test]
fn a_frame_costs_what_is_on_record() {
    let body = [7; 64];
    let mut queue = sender::State::new(sender::Params::default());
    let mut decoder = Decoder::new(limits::FRAME_BYTES_MAX);
    let mut through = |count: u64| {
        for _ in 0..count {
            queue.push_message(ChannelId::EVENTS, 0, 1, &body, || Time::ZERO).expect("there is room");
        }
        let mut wire = Vec::new();
        while let Some(sender::Popped { channel, lane, bytes: frame, .. }) = queue.pop(sender::BLOCK_BYTES, |_, _| true) {
            queue.sent(channel, lane, frame.len(), Time::ZERO);
            wire.extend_from_slice(&frame);
        }
        decoder.push(Bytes::from(wire));
        let mut got = 0;
        while decoder.next().expect("well formed").is_some() {
            got += 1;
        }
        assert_eq!(got, count);
    };
    // Queues and tables reach their size first.
    through(FRAMES);
    let spent = allocation_counter::measure(|| through(FRAMES));
    let per_frame = spent.count_total as f64 / FRAMES as f64;
    println!("{} allocations for {FRAMES} frames of 64 bytes through encoder, queue and decoder: {per_frame:.3} each", spent.count_total);
    assert!(spent.count_total <= ON_RECORD, "{} allocations, {ON_RECORD} on record", spent.count_total);
}

/// Set to what was counted, so that a change for the worse is a change of this line.
const ON_RECORD: u64 = 1_021;
