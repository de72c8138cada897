use rand::RngExt;

use super::*;
use crate::random;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that a decoder makes of a stream in these pieces.
fn decode_all<'a>(frame_bytes_max: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Result<usize, DecodeError>) {
    let mut decoder = Decoder::new(frame_bytes_max);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(decoder.held_bytes()))
}

fn first_error(frame_bytes_max: usize, bytes: &[u8]) -> Option<DecodeError> {
    let whole = decode_all(frame_bytes_max, [bytes]).1.err();
    assert_eq!(decode_all(frame_bytes_max, bytes.chunks(1)).1.err(), whole, "the verdict depends on how the bytes arrive");
    whole
}

#[test]
fn golden_bytes() {
    assert_eq!(hex(&Preamble::of(ChannelId::CONTROL).encode()), "01000000");
    assert_eq!(hex(&Preamble { channel: ChannelId(300), lane: 15, number: 300 }.encode()), "01ac020fac02");
    assert_eq!(hex(&Preamble::of(ChannelId(u16::MAX)).encode()), "01ffff030000");
    assert_eq!(hex(&encode(0, b"")), "0100");
    assert_eq!(hex(&encode(5, b"abc")), "0405616263");
    assert_eq!(hex(&encode(300, b"abc")), "05ac02616263");
    assert_eq!(hex(&encode(1, &[0xee; 127])[..4]), "800101ee");
    assert_eq!(hex(&encode(u16::MAX, &[0xee; 16_384])[..7]), "838001ffff03ee");
}

#[test]
fn the_length_is_known_before_encoding() {
    for kind in [0, 1, 127, 128, 16_383, 16_384, u16::MAX] {
        for len in [0, 1, 124, 125, 126, 127, 128, 16_380, 16_381, 16_382, 16_383, 16_384, 70_000] {
            let frame = encode(kind, &vec![1; len]);
            assert_eq!(frame.len(), encoded_len(kind, len));
            assert!(frame.len() <= len + OVERHEAD_BYTES_MAX);
        }
    }
}

#[test]
fn the_pieces_make_no_difference() {
    let mut rng = random::generator(1, "frame", 0);
    for round in 0..200 {
        let mut stream = Vec::new();
        let frames: Vec<Frame> = (0..rng.random_range(0..20))
            .map(|_| {
                let len = if rng.random_range(0..10) == 0 { rng.random_range(0..40_000) } else { rng.random_range(0..300) };
                let kind = rng.random::<u16>() >> rng.random_range(0..16);
                Frame { kind, body: (0..len).map(|_| rng.random::<u8>()).collect::<Vec<u8>>().into() }
            })
            .collect();
        for frame in &frames {
            encode_into(frame.kind, &frame.body, &mut stream);
        }
        assert_eq!(decode_all(50_000, [&stream[..]]), (frames.clone(), Ok(0)));
        if round % 20 == 0 {
            assert_eq!(decode_all(50_000, stream.chunks(1)), (frames.clone(), Ok(0)));
        }
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let len_max = if rng.random() { rest.len() } else { rest.len().min(5) };
            let (piece, after) = rest.split_at(rng.random_range(0..=len_max));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(decode_all(50_000, pieces), (frames, Ok(0)));
    }
}

#[test]
fn a_preamble_in_any_pieces_is_followed_by_frames() {
    let mut stream = Preamble { channel: ChannelId(300), lane: 3, number: 200 }.encode().to_vec();
    encode_into(9, b"body", &mut stream);
    for cut in 0..=stream.len() {
        let mut decoder = Decoder::new(10);
        let (mut channel, mut frame) = (None, None);
        for piece in [&stream[..cut], &stream[cut..]] {
            decoder.push(Bytes::copy_from_slice(piece));
            if channel.is_none() {
                channel = decoder.preamble().unwrap();
            }
            if channel.is_some() && frame.is_none() {
                frame = decoder.next().unwrap();
            }
        }
        assert_eq!(channel, Some(Preamble { channel: ChannelId(300), lane: 3, number: 200 }));
        assert_eq!(frame, Some(Frame { kind: 9, body: Bytes::from_static(b"body") }));
        assert_eq!(decoder.held_bytes(), 0);
    }
}

#[test]
fn a_wrong_preamble_is_refused() {
    for bytes in [&[2][..], &[0], &[1, 0x80, 0x00], &[1, 0xff, 0xff, 0x04], &[1, 0xff, 0xff, 0xff]] {
        let mut decoder = Decoder::new(10);
        decoder.push(Bytes::copy_from_slice(bytes));
        assert_eq!(decoder.preamble(), Err(DecodeError::Invalid), "{bytes:?}");
        assert_eq!(decoder.next(), Err(DecodeError::Invalid));
    }
}

#[test]
fn a_frame_within_a_chunk_is_not_copied() {
    let chunk = encode(3, &[7; 100]);
    let body = chunk.slice(2..);
    let mut decoder = Decoder::new(200);
    decoder.push(chunk);
    let frame = decoder.next().unwrap().unwrap();
    assert_eq!(frame.body.as_ptr(), body.as_ptr());
    assert_eq!(frame.body, body);
}

#[test]
fn the_limit_counts_kind_and_body() {
    assert_eq!(first_error(10, &encode(1, &[0; 9])), None);
    assert_eq!(first_error(10, &encode(1, &[0; 10])), Some(DecodeError::TooLong));
    assert_eq!(first_error(10, &encode(128, &[0; 9])), Some(DecodeError::TooLong));
    assert_eq!(first_error(0, &encode(1, &[])), Some(DecodeError::TooLong));
    assert_eq!(first_error(usize::MAX, &encode(1, &[0; 10])), None);
}

#[test]
fn adversarial_lengths() {
    // Refused at the first byte that shows it, not when the number is complete.
    assert_eq!(first_error(100, &[0x80]), Some(DecodeError::TooLong));
    assert_eq!(first_error(100, &[101]), Some(DecodeError::TooLong));
    assert_eq!(first_error(1_000, &[0xff, 0xff]), Some(DecodeError::TooLong));
    assert_eq!(first_error(crate::limits::FRAME_BYTES_MAX, &[0xff, 0xff, 0xff]), Some(DecodeError::TooLong));
    assert_eq!(first_error(usize::MAX, &[0xff; 12]), Some(DecodeError::TooLong));
    assert_eq!(first_error(usize::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Some(DecodeError::TooLong));
    // Two ways to write one number.
    assert_eq!(first_error(100_000, &[0x81, 0x00, 0x01]), Some(DecodeError::Invalid));
    assert_eq!(first_error(100_000, &[0x80, 0x80, 0x00]), Some(DecodeError::Invalid));
    assert_eq!(first_error(100_000, &[2, 0x81, 0x00]), Some(DecodeError::Invalid));
    // No kind, a kind that the frame cuts off, a kind that is none.
    assert_eq!(first_error(100, &[0]), Some(DecodeError::Invalid));
    assert_eq!(first_error(100, &[1, 0x80, 0x01]), Some(DecodeError::Truncated));
    assert_eq!(first_error(100, &[2, 0x80, 0x80, 0x01]), Some(DecodeError::Truncated));
    assert_eq!(first_error(100, &[9, 0xff, 0xff, 0x04]), Some(DecodeError::Invalid));
    assert_eq!(first_error(100, &[9, 0xff, 0xff, 0xff]), Some(DecodeError::Invalid));
}

#[test]
fn an_error_is_final_and_frees_everything() {
    let mut decoder = Decoder::new(10);
    decoder.push([&encode(1, b"good")[..], &[0xff, 0xff, 1, 2, 3]].concat().into());
    assert_eq!(decoder.next().map(|frame| frame.map(|frame| frame.kind)), Ok(Some(1)));
    assert_eq!(decoder.next(), Err(DecodeError::TooLong));
    decoder.push(encode(1, b"late"));
    assert_eq!(decoder.next(), Err(DecodeError::TooLong));
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn any_bytes_give_frames_or_an_error() {
    let mut rng = random::generator(2, "frame", 0);
    let mut errors = 0;
    for _ in 0..20_000 {
        let len = rng.random_range(0..40);
        let bytes: Vec<u8> = (0..len).map(|_| if rng.random() { rng.random() } else { rng.random_range(0..4) }).collect();
        let (frames, end) = decode_all(64, [&bytes[..]]);
        assert_eq!(decode_all(64, bytes.chunks(3)), (frames.clone(), end));
        // What was accepted has one encoding, so it is a prefix of what was sent.
        let mut again = Vec::new();
        for frame in &frames {
            encode_into(frame.kind, &frame.body, &mut again);
        }
        assert!(bytes.starts_with(&again));
        match end {
            Ok(held) => assert_eq!(again.len() + held, bytes.len()),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 1_000, "the bytes were not hostile: {errors}");
}

#[test]
fn bodies_print_as_lengths() {
    assert_eq!(format!("{:?}", Frame { kind: 3, body: Bytes::from_static(b"secret") }), "Frame(kind 3, 6 bytes)");
}

#[test]
fn a_run_is_what_lies_whole_and_is_of_the_kind() {
    let mut stream = Vec::new();
    for (kind, body) in [(7, &b"one"[..]), (7, b""), (8, b"other"), (7, b"two"), (7, b"in two pieces"), (7, b"three")] {
        encode_into(kind, body, &mut stream);
    }
    // A kind that does not fit in its frame.
    let cut = stream.len() - 10;
    stream.extend_from_slice(&[1, 0x80]);
    let mut decoder = Decoder::new(100);
    let mut lens = Vec::new();
    decoder.push(Bytes::copy_from_slice(&stream[..cut]));
    let mut run = decoder.run(7, 100, |len| lens.push(len));
    assert_eq!(
        (next_body(&mut run).unwrap(), next_body(&mut run).unwrap(), next_body(&mut run)),
        (Bytes::from_static(b"one"), Bytes::new(), None)
    );
    assert_eq!(decoder.run(7, 100, |len| lens.push(len)), Bytes::new());
    assert_eq!(decoder.next().unwrap().map(|frame| frame.kind), Some(8));
    assert_eq!(decoder.run(7, 100, |len| lens.push(len)).len(), 5);
    assert_eq!((decoder.run(7, 100, |len| lens.push(len)), decoder.next()), (Bytes::new(), Ok(None)));
    decoder.push(Bytes::copy_from_slice(&stream[cut..]));
    assert_eq!(decoder.run(7, 100, |len| lens.push(len)), Bytes::new());
    assert_eq!(decoder.next().unwrap().unwrap().body, b"in two pieces"[..]);
    assert_eq!(decoder.run(7, 6, |_| unreachable!("it is larger")), Bytes::new());
    assert_eq!(decoder.run(7, 7, |len| lens.push(len)).len(), 7);
    assert_eq!(lens, [3, 0, 3, 5]);
    // What is wrong is said once the run before it was taken.
    assert_eq!(decoder.run(7, 100, |_| {}), Bytes::new());
    assert_eq!(decoder.next(), Err(DecodeError::Truncated));
}
