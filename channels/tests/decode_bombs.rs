//! No bytes that a peer can send cost more memory than four times the largest frame.
//!
//! The inputs are those that were measured to blow up naive wire types decoded with postcard: lengths that promise what never comes, many
//! tiny elements that each become a large one, and deep nesting. Beside them stand hostile streams for the frame decoder.

use allocation_counter::measure;
use bytes::Bytes;
use meshwork_channels::limits::FRAME_BYTES_MAX;
use meshwork_channels::{Bounded, DecodeError, decode, encode, frame};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

const BOUND: u64 = 4 * FRAME_BYTES_MAX as u64;

/// A varint of 2^63: nine bytes that promise more than any machine holds.
const HUGE: [u8; 10] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];

/// Decodes and says what it cost at its peak, and whether the bytes were accepted.
fn cost<T: DeserializeOwned>(bytes: &[u8]) -> (u64, Result<(), DecodeError>) {
    let mut result = Ok(());
    let info = measure(|| result = decode::<T>(bytes).map(drop));
    assert_eq!(info.bytes_current, 0, "decoding leaked");
    (info.bytes_max, result)
}

#[derive(Serialize, Deserialize)]
enum Message {
    Small(u8),
    /// As the rules for wire types ask: a fat variant is boxed.
    Fat(Box<Fat>),
}

#[derive(Serialize, Deserialize)]
struct Fat {
    numbers: [u64; 32],
    flag: bool,
}

#[derive(Serialize, Deserialize)]
struct Member {
    name: Bounded<u8, 256>,
    addresses: Bounded<[u8; 18], 8>,
    incarnation: u64,
}

#[test]
fn a_promise_costs_nothing() {
    for (peak, result) in [
        cost::<Bounded<u8, 1_000>>(&HUGE),
        cost::<Bounded<u64, 1_000>>(&HUGE),
        cost::<Bounded<Bounded<u64, 100>, 1_000>>(&HUGE),
        cost::<Bounded<u64, 1_000>>(&[0xff, 0xff, 0xff, 0xff, 0x7f]),
        cost::<Bytes>(&HUGE),
        cost::<String>(&HUGE),
        cost::<Bounded<Member, 128>>(&HUGE),
        cost::<Bounded<Message, 1_000>>(&HUGE),
        // 200,000 levels, if there were any.
        cost::<Message>(&[1; 200_000]),
    ] {
        assert!(result.is_err());
        assert!(peak < 1_024, "{peak} bytes for a promise");
    }
}

#[test]
fn an_error_is_decided_before_a_list_is_read() {
    // More elements than the list may have, all of them there.
    let bytes = [&[0x80, 0x80, 0x40][..], &vec![0; 1_024 * 1_024]].concat();
    let (peak, result) = cost::<Bounded<Message, 1_000>>(&bytes);
    assert_eq!(result, Err(DecodeError::TooLong));
    assert!(peak < 1_024, "{peak} bytes for a list that is too long");
}

#[test]
fn the_fullest_lists_that_the_compiler_lets_pass_stay_below_the_bound() {
    const LEN: usize = 4 * FRAME_BYTES_MAX / size_of::<Message>();
    // As many elements as one frame can carry, one byte for the index and one for the body.
    let count = LEN.min((FRAME_BYTES_MAX - 8) / 2);
    let small: Bounded<Message, LEN> = Bounded::first_of((0..count).map(|_| Message::Small(0)));
    let bytes = encode(&small);
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    let (peak, result) = cost::<Bounded<Message, LEN>>(&bytes);
    assert_eq!(result, Ok(()));
    assert!(peak <= BOUND, "{peak} bytes of small messages");
    // Cut short by one byte, it is refused at the end, and keeps nothing until then.
    let (peak, result) = cost::<Bounded<Message, LEN>>(&bytes[..bytes.len() - 1]);
    assert_eq!(result, Err(DecodeError::Truncated));
    assert!(peak <= BOUND, "{peak} bytes of small messages cut short");
    // As many bytes as elements claimed: all that a claim can reserve before the first element turns out wrong.
    let claim = [&postcard::to_stdvec(&LEN).unwrap()[..], &vec![9; LEN]].concat();
    let (peak, result) = cost::<Bounded<Message, LEN>>(&claim);
    assert!(result.is_err());
    assert!(peak <= BOUND, "{peak} bytes for a false claim");

    // 33 bytes make 264, so this list gets the bound that its memory allows, not the one that its elements' own size allows.
    const FAT_LEN: usize = 4 * FRAME_BYTES_MAX / (size_of::<Message>() + size_of::<Fat>());
    let fat: Bounded<Message, FAT_LEN> =
        Bounded::first_of((0..FAT_LEN).map(|_| Message::Fat(Box::new(Fat { numbers: [0; 32], flag: false }))));
    let bytes = encode(&fat);
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    let (peak, result) = cost::<Bounded<Message, FAT_LEN>>(&bytes);
    assert_eq!(result, Ok(()));
    assert!(peak <= BOUND, "{peak} bytes of fat messages");
}

#[test]
fn lists_of_lists_stay_below_the_bound() {
    let member = || Member { name: Bounded::first_of([7; 256]), addresses: Bounded::first_of([[1; 18]; 8]), incarnation: u64::MAX };
    let members: Bounded<Member, 2_000> = Bounded::first_of((0..2_000).map(|_| member()));
    let bytes = encode(&members);
    assert!(bytes.len() > FRAME_BYTES_MAX / 2 && bytes.len() <= FRAME_BYTES_MAX, "{}", bytes.len());
    let (peak, result) = cost::<Bounded<Member, 2_000>>(&bytes);
    assert_eq!(result, Ok(()));
    assert!(peak <= BOUND, "{peak} bytes of members");
}

#[test]
fn frames_that_promise_too_much_cost_nothing() {
    for bytes in [&HUGE[..], &[0xff; 5], &[0x81, 0x80, 0x44], &[0x80, 0x80, 0x80, 0x00]] {
        let chunk = Bytes::copy_from_slice(bytes);
        let mut result = Ok(None);
        let info = measure(|| {
            let mut decoder = frame::Decoder::new(FRAME_BYTES_MAX);
            decoder.push(chunk.clone());
            result = decoder.next();
        });
        assert!(result.is_err());
        assert!(info.bytes_max < 1_024, "{} bytes for a promise", info.bytes_max);
    }
}

#[test]
fn a_promised_frame_costs_what_arrived() {
    // The largest legal frame is promised, and little of it comes.
    let bytes = frame::encode(1, &vec![0; FRAME_BYTES_MAX - 1]);
    for arrived in [4, 100, 10_000] {
        let info = measure(|| {
            let mut decoder = frame::Decoder::new(FRAME_BYTES_MAX);
            for byte in &bytes[..arrived] {
                decoder.push(Bytes::copy_from_slice(&[*byte]));
                assert_eq!(decoder.next(), Ok(None));
            }
            assert_eq!(decoder.held_bytes(), arrived);
        });
        assert!(info.bytes_max <= 3 * arrived as u64 + 1_024, "{} bytes for {arrived}", info.bytes_max);
    }
}

#[test]
fn the_largest_frames_stay_below_the_bound_in_any_pieces() {
    let stream =
        [frame::encode(1, &vec![0; FRAME_BYTES_MAX - 1]), frame::encode(2, &[]), frame::encode(3, &vec![0; FRAME_BYTES_MAX - 1])].concat();
    for piece in [100, 1_200, 65_536, FRAME_BYTES_MAX] {
        let mut frames = 0;
        let info = measure(|| {
            let mut decoder = frame::Decoder::new(FRAME_BYTES_MAX);
            for chunk in stream.chunks(piece) {
                decoder.push(Bytes::copy_from_slice(chunk));
                while let Some(frame) = decoder.next().unwrap() {
                    frames += 1;
                    drop(frame);
                }
            }
        });
        assert_eq!(frames, 3);
        assert!(info.bytes_max <= BOUND, "{} bytes in pieces of {piece}", info.bytes_max);
        // Small enough to say more: the frame, its half while it grows, and the pieces.
        assert!(info.bytes_max <= 2 * (FRAME_BYTES_MAX + piece) as u64 + 1_024, "{} bytes in pieces of {piece}", info.bytes_max);
    }
}

#[test]
fn a_flood_of_empty_frames_holds_nothing() {
    let stream = frame::encode(0, &[]).repeat(100_000);
    let chunk = Bytes::from(stream);
    let mut frames = 0;
    let info = measure(|| {
        let mut decoder = frame::Decoder::new(FRAME_BYTES_MAX);
        decoder.push(chunk.clone());
        while decoder.next().unwrap().is_some() {
            frames += 1;
        }
    });
    assert_eq!(frames, 100_000);
    assert!(info.bytes_max < 1_024, "{}", info.bytes_max);
}
