//! Frames on a stream: a length, a kind, a body.
//!
//! ```text
//! stream   = preamble *frame
//! preamble = version (1 byte, now 1)  channel (varint, at most 65,535)  lane (varint, at most 15)  number (varint, 32 bits)
//! frame    = length (varint, of what follows)  kind (varint, at most 65,535)  body
//! varint   = LEB128: seven bits a byte, low bits first, the high bit says that more follow
//! ```
//!
//! The varints are those of postcard, which encodes the bodies, with one rule more: a number is written in the fewest bytes that hold it,
//! so that a frame has one encoding. A kind that a reader does not know is not an error here: its length lets the reader skip it, which is
//! how newer nodes talk to older ones.
//!
//! A peer can make a [`Decoder`] hold the bytes of one frame within the limit that it was made with, and the chunk that was pushed last.
//! A length above the limit is refused as soon as the varint shows it, before anything is reserved; a buffer grows with the bytes that
//! arrived, never with the bytes that were promised.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};

use crate::channel::ChannelId;
use crate::error::DecodeError;

/// The version that opens every stream. The versions of a connection were agreed on before, so another one here is a fault of the peer.
pub const VERSION: u8 = 1;

/// The most bytes that [`encode`] adds to a body of at most 4 GiB.
pub const OVERHEAD_BYTES_MAX: usize = LENGTH_VARINT_BYTES_MAX + KIND_VARINT_BYTES_MAX;

/// The first kind that is the business of connections alone; those who use channels have the kinds below.
pub const FIRST_KIND_OF_LINKS: u16 = 0xff00;

const LENGTH_VARINT_BYTES_MAX: usize = 5;
const KIND_VARINT_BYTES_MAX: usize = 3;

/// One frame, without its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is; each channel has its own numbers.
    pub kind: u16,
    /// The body. It may share memory with the chunk that it came in, up to the size of a received batch of packets: who keeps a small
    /// body for long copies it.
    pub body: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(kind {}, {} bytes)", self.kind, self.body.len())
    }
}

/// The whole frame of a kind and a body: what a stream carries and what [`crate::sender`] queues.
///
/// Checks no limit: the verbs that applications call refuse a body that is too large for its channel before they get here.
pub fn encode(kind: u16, body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(encoded_len(kind, body.len()));
    encode_into(kind, body, &mut bytes);
    Bytes::from(bytes)
}

/// Appends the whole frame of a kind and a body, so that many small frames can share one write.
#[inline]
pub fn encode_into(kind: u16, body: &[u8], bytes: &mut impl BufMut) {
    encode_head_into(kind, body.len(), bytes);
    bytes.put_slice(body);
}

/// Appends what precedes the body of a frame.
#[inline]
pub fn encode_head_into(kind: u16, body_len: usize, bytes: &mut impl BufMut) {
    // Most messages are small, and both numbers then take one byte.
    if is_small(kind, body_len) {
        return bytes.put_slice(&[body_len as u8 + 1, kind as u8]);
    }
    put_varint(kind_and_body_len(kind, body_len), bytes);
    put_varint(u64::from(kind), bytes);
}

/// The bytes that [`encode`] makes of a kind and a body of `body_len` bytes.
#[inline]
pub fn encoded_len(kind: u16, body_len: usize) -> usize {
    if is_small(kind, body_len) {
        return 2 + body_len;
    }
    varint_len(kind_and_body_len(kind, body_len)) + varint_len(u64::from(kind)) + body_len
}

/// Whether each of the two numbers before the body takes one byte.
#[inline]
fn is_small(kind: u16, body_len: usize) -> bool {
    kind < 0x80 && body_len < 0x7f
}

/// The bytes of the body in a whole frame; of bytes that are none, some number up to theirs.
pub fn body_len(frame: &[u8]) -> usize {
    let varint = |bytes: &[u8]| bytes.iter().position(|byte| byte & 0x80 == 0).map_or(bytes.len(), |last| last + 1);
    let length = varint(frame);
    frame.len() - length - varint(&frame[length..])
}

/// What a stream begins with: whose frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// The channel.
    pub channel: ChannelId,
    /// The lane of the channel.
    pub lane: u8,
    /// Which stream of the lane it is, from zero: a lane that moves to another connection goes on in the next one, which is read when the one before is over.
    pub number: u32,
}

impl Preamble {
    /// The first stream of the first lane of a channel.
    pub fn of(channel: ChannelId) -> Self {
        Preamble { channel, lane: 0, number: 0 }
    }

    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let mut bytes = vec![VERSION];
        put_varint(u64::from(self.channel.0), &mut bytes);
        put_varint(u64::from(self.lane), &mut bytes);
        put_varint(u64::from(self.number), &mut bytes);
        Bytes::from(bytes)
    }
}

/// Cuts a stream into its preamble and its frames, however the bytes arrive.
///
/// ```
/// # use bytes::Bytes;
/// # use meshwork_channels::{ChannelId, frame};
/// let mut stream = frame::Preamble::of(ChannelId::DATA).encode().to_vec();
/// frame::encode_into(7, b"hello", &mut stream);
///
/// let mut decoder = frame::Decoder::new(1_024);
/// decoder.push(Bytes::from(stream));
/// assert_eq!(decoder.preamble()?, Some(frame::Preamble::of(ChannelId::DATA)));
/// assert_eq!(decoder.next()?.map(|frame| frame.kind), Some(7));
/// assert_eq!(decoder.next()?, None);
/// # Ok::<(), meshwork_channels::DecodeError>(())
/// ```
pub struct Decoder {
    frame_bytes_max: usize,
    /// The start of an item whose end has not arrived. Empty while items lie within `chunk`.
    partial: Vec<u8>,
    /// What was pushed and not read yet.
    chunk: Bytes,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder that refuses frames of more than `frame_bytes_max` bytes of kind and body.
    pub fn new(frame_bytes_max: usize) -> Self {
        Decoder { frame_bytes_max, partial: Vec::new(), chunk: Bytes::new(), failed: None }
    }

    /// Changes the limit for the frames that are still to come: the preamble names the channel, and the channel has the limit.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes the next bytes of the stream. Call [`Decoder::next`] until it has no frame before pushing again: bytes that were pushed and
    /// not read are kept and copied together, so pushing alone holds all that was pushed.
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else if !chunk.is_empty() {
            self.chunk = [&self.chunk[..], &chunk[..]].concat().into();
        }
    }

    /// The preamble of the stream; `None` while it is incomplete. Call it until it answers, before the first
    /// [`Decoder::next`], on streams that start with a preamble.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Invalid`] for another version and for a number that is too large. The decoder stays at that error.
    pub fn preamble(&mut self) -> Result<Option<Preamble>, DecodeError> {
        self.unless_failed(Self::read_preamble)
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`DecodeError::TooLong`] for a length above the limit, [`DecodeError::Invalid`] for a number that is not written in its shortest
    /// way, a kind above 65,535 or a length of zero, [`DecodeError::Truncated`] when a kind does not fit in its frame. The decoder then
    /// holds nothing and stays at that error: where the next frame would start is unknown.
    #[expect(clippy::should_implement_trait, reason = "an iterator that ended must not go on after the next push")]
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        self.unless_failed(Self::read_frame)
    }

    /// The frames of one kind that come next and lie whole in what was pushed last, as they are, up to `bytes_max` bytes of them; `each` is told the length of each body.
    /// Empty when the next frame is another one, is larger than that, or lies in several pushes: then it is [`Decoder::next`] that knows.
    pub fn run(&mut self, kind: u16, bytes_max: usize, mut each: impl FnMut(usize)) -> Bytes {
        if self.failed.is_some() || !self.partial.is_empty() {
            return Bytes::new();
        }
        let (mut len, len_max) = (0, self.chunk.len().min(bytes_max));
        // What is wrong with a frame is said when it is the next.
        while let Ok(Some(header)) = parse_header(&self.chunk[len..], self.frame_bytes_max)
            && header.kind == kind
            && len + header.frame_len() <= len_max
        {
            each(header.body_len);
            len += header.frame_len();
        }
        match len {
            0 => Bytes::new(),
            // Even an empty rest would keep all of the chunk, for as long as the stream is silent.
            len if len == self.chunk.len() => std::mem::take(&mut self.chunk),
            len => self.chunk.split_to(len),
        }
    }

    /// Bytes that were pushed and are not part of a returned frame. Zero when a stream that ends here ends where it may.
    pub fn held_bytes(&self) -> usize {
        self.partial.len() + self.chunk.len()
    }

    fn unless_failed<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<Option<T>, DecodeError>) -> Result<Option<T>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = read(self);
        if let Err(error) = result {
            *self = Decoder { failed: Some(error), ..Decoder::new(self.frame_bytes_max) };
        }
        result
    }

    fn read_preamble(&mut self) -> Result<Option<Preamble>, DecodeError> {
        loop {
            let head = if self.partial.is_empty() { &self.chunk[..] } else { &self.partial[..] };
            if let Some((preamble, len)) = parse_preamble(head)? {
                if self.partial.is_empty() {
                    self.chunk = self.chunk.split_off(len);
                } else {
                    self.partial.clear();
                }
                return Ok(Some(preamble));
            }
            if !self.move_byte() {
                return Ok(None);
            }
        }
    }

    fn read_frame(&mut self) -> Result<Option<Frame>, DecodeError> {
        if self.partial.is_empty() {
            if let Some(header) = parse_header(&self.chunk, self.frame_bytes_max)?
                && header.frame_len() <= self.chunk.len()
            {
                return Ok(Some(Frame { kind: header.kind, body: header.cut(&mut self.chunk) }));
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
        }
        // The frame lies in more than one chunk. Its header comes over byte by byte, at most eight of them, and then the body at once.
        let header = loop {
            if let Some(header) = parse_header(&self.partial, self.frame_bytes_max)? {
                break header;
            }
            if !self.move_byte() {
                return Ok(None);
            }
        };
        let wanted = header.frame_len() - self.partial.len();
        let part = self.chunk.split_to(wanted.min(self.chunk.len()));
        let filled = self.partial.len() + part.len();
        if filled > self.partial.capacity() {
            // Doubling keeps a frame that arrives in tiny pieces cheap; the frame's own length is the end of it.
            let capacity = header.frame_len().min(filled.max(2 * self.partial.capacity()));
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(&part);
        if self.partial.len() < header.frame_len() {
            return Ok(None);
        }
        let mut frame = Bytes::from(std::mem::take(&mut self.partial));
        Ok(Some(Frame { kind: header.kind, body: frame.split_off(header.len) }))
    }

    /// Moves one byte from the chunk to the partial item; says whether there was one.
    fn move_byte(&mut self) -> bool {
        let Some(byte) = self.chunk.first() else { return false };
        self.partial.push(*byte);
        self.chunk = self.chunk.split_off(1);
        true
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("held_bytes", &self.held_bytes())
            .field("failed", &self.failed)
            .finish()
    }
}

struct Header {
    kind: u16,
    /// Bytes of the length and the kind.
    len: usize,
    body_len: usize,
}

impl Header {
    fn frame_len(&self) -> usize {
        self.len + self.body_len
    }

    /// Cuts the frame off that `bytes` begin with, and gives its body.
    #[inline]
    fn cut(&self, bytes: &mut Bytes) -> Bytes {
        if self.frame_len() == bytes.len() {
            // The last frame takes all over: even an empty rest would keep the memory, for as long as the stream is silent.
            let mut body = std::mem::take(bytes);
            body.advance(self.len);
            body
        } else {
            // One more reference to the memory, and not two.
            let body = bytes.slice(self.len..self.frame_len());
            bytes.advance(self.frame_len());
            body
        }
    }
}

/// The header at the start of `bytes`; `None` when it is incomplete.
#[inline]
fn parse_header(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<Header>, DecodeError> {
    if let [length @ 1..0x80, kind @ 0..0x80, ..] = *bytes
        && usize::from(length) <= frame_bytes_max
    {
        return Ok(Some(Header { kind: u16::from(kind), len: 2, body_len: usize::from(length) - 1 }));
    }
    let Some((frame_bytes, length_len)) = parse_varint(bytes, frame_bytes_max as u64)? else { return Ok(None) };
    // A frame has at least its kind. The cast is lossless: the number is not above a `usize`.
    let frame_bytes = frame_bytes as usize;
    if frame_bytes == 0 {
        return Err(DecodeError::Invalid);
    }
    // The kind is looked for within the frame, so that a frame too short for it is refused and not completed from the next one.
    let rest = &bytes[length_len..];
    let within = &rest[..rest.len().min(frame_bytes)];
    match parse_varint(within, u64::from(u16::MAX)) {
        Ok(Some((kind, kind_len))) => Ok(Some(Header { kind: kind as u16, len: length_len + kind_len, body_len: frame_bytes - kind_len })),
        Ok(None) if within.len() == frame_bytes => Err(DecodeError::Truncated),
        Ok(None) => Ok(None),
        // A kind that is too large is no long thing, just no kind.
        Err(_) => Err(DecodeError::Invalid),
    }
}

/// Cuts the frame off that `bytes` begin with, and gives its body; `None` when there is no whole one.
#[cfg(any(feature = "quic", test))]
pub(crate) fn next_body(bytes: &mut Bytes) -> Option<Bytes> {
    let header = parse_header(bytes, usize::MAX).ok()??;
    (header.frame_len() <= bytes.len()).then(|| header.cut(bytes))
}

/// The preamble at the start of `bytes`, with its length; `None` when it is incomplete.
fn parse_preamble(bytes: &[u8]) -> Result<Option<(Preamble, usize)>, DecodeError> {
    let Some((version, _)) = bytes.split_first() else { return Ok(None) };
    if *version != VERSION {
        return Err(DecodeError::Invalid);
    }
    let mut len = 1;
    let mut numbers = [0; 3];
    for (number, max) in numbers.iter_mut().zip([u64::from(u16::MAX), u64::from(crate::sender::LANES_MAX) - 1, u64::from(u32::MAX)]) {
        match parse_varint(&bytes[len..], max) {
            Ok(Some((value, bytes))) => (*number, len) = (value, len + bytes),
            Ok(None) => return Ok(None),
            Err(_) => return Err(DecodeError::Invalid),
        }
    }
    let [channel, lane, number] = numbers;
    Ok(Some((Preamble { channel: ChannelId(channel as u16), lane: lane as u8, number: number as u32 }, len)))
}

/// The number at the start of `bytes`, with its length in bytes; `None` when it is incomplete.
///
/// Refuses a number above `max` at the first byte that shows it ([`DecodeError::TooLong`]), and one that is not in its shortest form
/// ([`DecodeError::Invalid`]).
pub(crate) fn parse_varint(bytes: &[u8], max: u64) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        let part = bits.checked_shl(shift).filter(|part| part >> shift == bits).ok_or(DecodeError::TooLong)?;
        value |= part;
        if value > max {
            return Err(DecodeError::TooLong);
        }
        if byte & 0x80 == 0 {
            // The last byte holds the highest bits: zero there means that a shorter form exists.
            return if bits == 0 && index > 0 { Err(DecodeError::Invalid) } else { Ok(Some((value, index + 1))) };
        }
        // More bits follow, and in the shortest form at least one of them is set.
        if 1_u64.checked_shl(shift + 7).is_none_or(|least| least > max) {
            return Err(DecodeError::TooLong);
        }
    }
    Ok(None)
}

pub(crate) fn put_varint(mut value: u64, bytes: &mut impl BufMut) {
    while value > 0x7f {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

pub(crate) fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

fn kind_and_body_len(kind: u16, body_len: usize) -> u64 {
    varint_len(u64::from(kind)) as u64 + body_len as u64
}

#[cfg(test)]
mod tests;
