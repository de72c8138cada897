//! The operations that are measured, each ready to be repeated: whatever grows has grown, and nothing comes from a clock or a system generator.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::compress::Packer;
use meshwork_channels::{ChannelId, ChannelSpec, Time, frame, governor, limits, reliable, sender};

type Operation = Box<dyn FnMut()>;
/// A name, and what makes the operation.
type Case = (&'static str, fn() -> Operation);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    vec![
        ("channels/frame-encode-64", || encode(64)),
        ("channels/frame-encode-1024", || encode(1_024)),
        ("channels/frame-encode-16384", || encode(16 * 1_024)),
        ("channels/frame-decode-64", || decode(64)),
        ("channels/frame-decode-1024", || decode(1_024)),
        ("channels/frame-decode-16384", || decode(16 * 1_024)),
        ("channels/sender-64-frames-of-one-lane", || send(1)),
        ("channels/sender-64-frames-of-eight-lanes", || send(8)),
        ("channels/governor-acknowledgment", govern),
        ("channels/reliable-message", deliver),
        ("channels/compress-4096", compress),
    ]
}

/// One frame, from a body to bytes of its own.
fn encode(len: usize) -> Operation {
    let body = vec![7; len];
    Box::new(move || drop(black_box(frame::encode(7, black_box(&body)))))
}

/// One frame that arrived in one piece.
fn decode(len: usize) -> Operation {
    let bytes = frame::encode(7, &vec![7; len]);
    let mut decoder = frame::Decoder::new(limits::FRAME_BYTES_MAX);
    warm(1, move || {
        decoder.push(black_box(&bytes).clone());
        let frame = decoder.next().expect("it was encoded above");
        assert!(black_box(frame).is_some());
    })
}

/// 64 messages of 64 bytes into the queues, in turn on each lane, and out again to a driver that takes what it can get.
fn send(lanes: u8) -> Operation {
    let spec = ChannelSpec::new("measured").lanes(lanes);
    let channel = spec.id;
    let params = sender::Params::new(ChannelSpec::built_in().into_iter().chain([spec]), sender::Params::PEER_BYTES_MAX);
    let mut queues = sender::State::new(params.expect("the channels are valid"));
    let body = [7; 64];
    warm(4, move || {
        for number in 0..64 {
            queues.push_message(channel, number % lanes, 1, black_box(&body), || Time::ZERO).expect("there is room");
        }
        let mut frames = 0;
        while let Some(popped) = queues.pop(sender::BLOCK_BYTES, |_, _| true) {
            queues.sent(popped.channel, popped.lane, popped.bytes.len(), Time::ZERO);
            frames += popped.frames;
            black_box(popped);
        }
        assert_eq!(frames, 64);
    })
}

/// An acknowledgment of two packets, on a path of 50 ms and 100 Mbit/s that queues what is above that.
fn govern() -> Operation {
    const BYTES: u64 = 2_400;
    const BYTES_PER_SECOND: u64 = 12_500_000;
    let params = governor::Config::default().build().expect("the default is valid");
    let mut now = Time::from_secs(1);
    let mut state = governor::State::new(params, now);
    warm(20_000, move || {
        now += Duration::from_micros(BYTES * 1_000_000 / BYTES_PER_SECOND);
        let trip = Duration::from_micros(state.window() * 1_000_000 / BYTES_PER_SECOND).max(Duration::from_millis(50));
        state.on_ack(BYTES, Time::ZERO + now.since(Time::ZERO).saturating_sub(trip), false, now);
        black_box(state.window());
    })
}

/// A message of 64 bytes from one core to the other, to the application there, and its part of an acknowledgment back.
fn deliver() -> Operation {
    let mut cores = [(); 2].map(|()| reliable::State::new(reliable::Params::default()));
    let (mut now, mut actions) = (Time::from_secs(1), Vec::new());
    // What is still to be handled, by whom.
    let mut inputs = Vec::new();
    inputs.extend([0, 1].map(|side| (side, reliable::Input::Connected { generation: 1, incarnation: 1 })));
    let payload = Bytes::from_static(&[7; 64]);
    let mut delivered = 0_u64;
    let mut messages = 0_u64;
    warm(2_000, move || {
        now += Duration::from_millis(1);
        if messages > 0 {
            cores[0].send(ChannelId::DATA, 0, payload.clone(), None, now, &mut actions).expect("there is room");
            route(0, &mut actions, &mut inputs, &mut delivered);
        }
        messages += 1;
        for side in [0, 1] {
            if cores[side].next_deadline().is_some_and(|due| due <= now) {
                inputs.push((side, reliable::Input::DeadlineReached));
            }
        }
        while let Some((side, input)) = inputs.pop() {
            cores[side].handle(input, now, &mut actions);
            route(side, &mut actions, &mut inputs, &mut delivered);
        }
        // Acknowledgments come every 25 ms.
        assert!(delivered + 64 > messages);
    })
}

/// Carries what one core decided to the other; the application takes every message at once.
fn route(side: usize, actions: &mut Vec<reliable::Action>, inputs: &mut Vec<(usize, reliable::Input)>, delivered: &mut u64) {
    use reliable::{Action, Input};
    for action in actions.drain(..) {
        match action {
            Action::Transmit { channel, lane, sequence, payload } => {
                inputs.push((1 - side, Input::Data { generation: 1, channel, lane, sequence, payload }));
            }
            Action::Send { message, .. } => inputs.push((1 - side, Input::Received { generation: 1, message })),
            Action::Deliver { channel, lane, sequence, sender_incarnation, .. } => {
                inputs.push((side, Input::Taken { sender_incarnation, channel, lane, sequence }));
            }
            Action::Delivered { sequence, .. } => *delivered = sequence,
            Action::Expired { .. } | Action::Undelivered { .. } | Action::Misbehaved(_) => {
                unreachable!("nothing expires, nobody is abandoned or at fault")
            }
        }
    }
}

/// A body of 4 KiB that is like a log.
fn compress() -> Operation {
    let mut text = (0..).map(|number: u64| {
        format!("{:>8} node-{} took {} µs for request {}\n", number * 37, number % 7, number * number % 977, number * 613)
    });
    let mut body = String::new();
    while body.len() < 4_096 {
        body.extend(text.next());
    }
    let packer = Packer::default();
    Box::new(move || assert!(black_box(packer.pack(7, black_box(&body.as_bytes()[..4_096]))).is_some()))
}

/// The operation, after it was done some times.
fn warm(times: usize, mut operation: impl FnMut() + 'static) -> Operation {
    (0..times).for_each(|_| operation());
    Box::new(operation)
}
