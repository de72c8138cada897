//! Compression of single frames: a frame that gets smaller travels inside one of the kind [`COMPRESSED`], which the reader of a stream opens before anybody
//! else sees it.
//!
//! The format is an LZ4 block (the LZ4 block format description, version 1.6.3) behind the kind of the frame (two bytes) and its length when opened (four
//! bytes, both high byte first). What a peer may make us hold is bounded before anything is allocated: the length that it claims must be one
//! that an ordinary frame of the channel could have.
//!
//! Lengths of compressed messages tell something of their content. Whoever mixes secrets with what an attacker chooses in one message must not compress it.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use lz4_flex::block;

use crate::error::DecodeError;
use crate::frame::FIRST_KIND_OF_LINKS;

/// The kind of a frame with another one in it.
pub const COMPRESSED: u16 = FIRST_KIND_OF_LINKS + 1;
/// Smaller bodies are sent as they are: there is too little in them to find twice.
pub const BODY_BYTES_MIN: usize = 512;
/// Kind and length.
const HEAD_BYTES: usize = 6;
/// Messages in a row that did not get smaller, after which it is rarely tried.
const MISSES_MAX: u32 = 8;
/// One in so many is tried then.
const TRIED_ONE_IN: u32 = 64;

/// Whether it pays on one channel to one peer.
#[derive(Debug, Default)]
pub struct Packer {
    /// Messages in a row that were not worth it, or were not tried.
    misses: AtomicU32,
}

impl Packer {
    /// The body of a frame of the kind [`COMPRESSED`]; none when that would not be at least a tenth smaller, or the last ones were not and this one is not tried.
    pub fn pack(&self, kind: u16, body: &[u8]) -> Option<Bytes> {
        if body.len() < BODY_BYTES_MIN {
            return None;
        }
        let misses = self.misses.load(Ordering::Relaxed);
        if misses >= MISSES_MAX && !misses.is_multiple_of(TRIED_ONE_IN) {
            self.misses.store(misses.wrapping_add(1).max(MISSES_MAX), Ordering::Relaxed);
            return None;
        }
        let packed = pack(kind, body);
        self.misses.store(if packed.is_some() { 0 } else { misses.wrapping_add(1) }, Ordering::Relaxed);
        packed
    }
}

fn pack(kind: u16, body: &[u8]) -> Option<Bytes> {
    let len = u32::try_from(body.len()).ok()?;
    let mut packed = vec![0; HEAD_BYTES + block::get_maximum_output_size(body.len())];
    packed[..2].copy_from_slice(&kind.to_be_bytes());
    packed[2..HEAD_BYTES].copy_from_slice(&len.to_be_bytes());
    let used = HEAD_BYTES + block::compress_into(body, &mut packed[HEAD_BYTES..]).ok()?;
    if used > body.len() - body.len() / 10 {
        return None;
    }
    packed.truncate(used);
    packed.shrink_to_fit();
    Some(packed.into())
}

/// Opens the body of a frame of the kind [`COMPRESSED`]: kind and body of what is in it, at most `body_bytes_max` of them.
///
/// # Errors
///
/// [`DecodeError`] when it claims more than that or holds anything else than it claims, or when there is a frame of a link in it.
pub fn unpack(packed: &[u8], body_bytes_max: usize) -> Result<(u16, Bytes), DecodeError> {
    let (head, packed) = packed.split_first_chunk::<HEAD_BYTES>().ok_or(DecodeError::Truncated)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
    if kind >= FIRST_KIND_OF_LINKS || len > body_bytes_max {
        return Err(DecodeError::Invalid);
    }
    let mut body = vec![0; len];
    match block::decompress_into(packed, &mut body) {
        Ok(opened) if opened == len => Ok((kind, body.into())),
        _ => Err(DecodeError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::random::generator;

    const MAX: usize = 1 << 20;

    #[test]
    fn text_gets_smaller_and_comes_back() {
        let text = "a line that is like every other line, but for its number\n".repeat(2_000);
        let packed = pack(7, text.as_bytes()).expect("text repeats itself");
        assert!(packed.len() * 20 < text.len(), "{} of {}", packed.len(), text.len());
        assert_eq!(unpack(&packed, MAX), Ok((7, Bytes::from(text))));
    }

    #[test]
    fn noise_is_left_alone_and_soon_not_even_tried() {
        let mut random = generator(1, "compress", 0);
        let noise: Vec<u8> = (0..4_096).map(|_| random.random()).collect();
        let packer = Packer::default();
        assert!((0..1_000).all(|_| packer.pack(7, &noise).is_none()));
        let text = vec![b'a'; 4_096];
        let tried = (0..TRIED_ONE_IN).position(|_| packer.pack(7, &text).is_some());
        assert!(tried.is_some(), "it is tried again now and then");
        assert!(packer.pack(7, &text).is_some(), "and from then on");
        assert!(packer.pack(7, &text[..BODY_BYTES_MIN - 1]).is_none(), "what is small is not worth it");
    }

    #[test]
    fn a_bomb_costs_the_one_who_sent_it() {
        let bomb = pack(7, &vec![0; MAX]).expect("zeros are small");
        assert!(bomb.len() < 8_192);
        assert_eq!(unpack(&bomb, MAX - 1), Err(DecodeError::Invalid), "more than a frame of the channel may have");
        let mut liar = bomb.to_vec();
        liar[2..6].copy_from_slice(&1_000_u32.to_be_bytes());
        assert_eq!(unpack(&liar, MAX), Err(DecodeError::Invalid), "more than it claims");
        liar[2..6].copy_from_slice(&(MAX as u32 + 1).to_be_bytes());
        assert_eq!(unpack(&liar, 2 * MAX), Err(DecodeError::Invalid), "less than it claims");
        liar[..2].copy_from_slice(&COMPRESSED.to_be_bytes());
        assert_eq!(unpack(&liar, 2 * MAX), Err(DecodeError::Invalid), "one in another");
        assert_eq!(unpack(&[0; 5], MAX), Err(DecodeError::Truncated));
    }

    #[test]
    fn whatever_comes_is_decoded_or_refused() {
        let mut random = generator(2, "compress", 0);
        let text = "some text, some text, some more text ".repeat(40);
        let packed = pack(7, text.as_bytes()).expect("text repeats itself");
        for _ in 0..20_000 {
            let mut bytes = packed.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(0..=bytes.len()));
            if let Ok((_, body)) = unpack(&bytes, 4_096) {
                assert!(body.len() <= 4_096);
            }
        }
    }
}
