//! What lets another machine join, as one string that people can copy.
//!
//! ```text
//! token    = "mesh" version base32(payload checksum)          the version is one digit, now 1
//! payload  = name secret expiry seeds peers                   postcard
//! checksum = CRC-32 (IEEE 802.3) of the version digit and the payload, big end first
//! ```
//!
//! The string holds the cluster's secret: whoever reads it can join until the secret is replaced. The expiry is a courtesy that keeps old
//! tokens from working by accident; it does not protect a secret that got out. The checksum catches typing and copying mistakes (all
//! that touch up to six neighboring characters, and nearly all others), and nothing that is done on purpose.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bounded};
use crate::identity::{ClusterName, ClusterSecret, PeerId, base32_decode, base32_encode};
use crate::time::WallTime;

/// Addresses in one token.
pub const SEEDS_MAX: usize = 4;
/// Identities in one token.
pub const PEERS_MAX: usize = 4;
/// Characters that are looked at; the longest token has fewer.
pub const TOKEN_CHARS_MAX: usize = 640;

const PREFIX: &str = "mesh";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// What a node needs to join a cluster. Printing it with `{:?}` hides the secret; only [`JoinToken::encode`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// The cluster.
    pub cluster: ClusterName,
    /// The secret that admits.
    pub secret: ClusterSecret,
    /// When the token ends; `None` for never. [`crate::limits::TOKEN_LIFE`] from now is the usual choice.
    pub expires: Option<WallTime>,
    /// Where to dial. The scope of a link-local IPv6 address is not kept: it means something on one machine only.
    pub seeds: Bounded<SocketAddr, SEEDS_MAX>,
    /// Who may answer there. Empty when anybody of the cluster may.
    pub peers: Bounded<PeerId, PEERS_MAX>,
}

/// Why a text does not let anybody join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is something else, or nothing that this program wrote.
    NotAToken,
    /// It is a token with a mistake in it, or a part of one.
    Typo,
    /// It was made by a later version.
    TooNew {
        /// That version.
        version: u8,
    },
    /// It ended.
    Expired {
        /// When.
        at: WallTime,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::NotAToken => f.write_str("this is not a join token; one starts with mesh1"),
            TokenError::Typo => f.write_str("the join token has a typing mistake in it or is not complete"),
            TokenError::TooNew { version } => write!(f, "the join token has version {version}, and this program knows {VERSION}"),
            TokenError::Expired { at } => write!(f, "the join token expired on {at}; ask for a new one"),
        }
    }
}

impl std::error::Error for TokenError {}

/// The payload, in the order of its fields.
#[derive(Serialize, Deserialize)]
struct Payload {
    cluster: String,
    secret: [u8; 32],
    expires: Option<WallTime>,
    seeds: Bounded<SocketAddr, SEEDS_MAX>,
    peers: Bounded<PeerId, PEERS_MAX>,
}

impl JoinToken {
    /// The token as text. It holds the secret: it belongs on a terminal or in a file of mode 0600, never in a log.
    pub fn encode(&self) -> String {
        let mut bytes = codec::encode(&Payload {
            cluster: self.cluster.as_str().to_owned(),
            secret: *self.secret.expose(),
            expires: self.expires,
            seeds: self.seeds.clone(),
            peers: self.peers.clone(),
        })
        .to_vec();
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PREFIX}{VERSION}{}", base32_encode(&bytes))
    }

    /// Reads a token, in either case and with space around it. An expired one is read too: ask [`JoinToken::check`].
    ///
    /// # Errors
    ///
    /// Any [`TokenError`] but [`TokenError::Expired`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let prefix = text.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX));
        let digit = text.as_bytes().get(PREFIX.len()).filter(|digit| matches!(digit, b'1'..=b'9'));
        let (Some(_), Some(digit)) = (prefix, digit) else { return Err(TokenError::NotAToken) };
        let version = digit - b'0';
        if version > VERSION {
            return Err(TokenError::TooNew { version });
        }
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::NotAToken);
        }
        let bytes = base32_decode(&text[PREFIX.len() + 1..]).ok_or(TokenError::Typo)?;
        let (payload, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Typo)?;
        if checksum(payload) != *sum {
            return Err(TokenError::Typo);
        }
        // The checksum is right, so whatever is wrong from here on was written like that.
        let Payload { cluster, secret, expires, seeds, peers } = codec::decode(payload).map_err(|_| TokenError::NotAToken)?;
        let cluster = cluster.parse().map_err(|_| TokenError::NotAToken)?;
        let token = JoinToken { cluster, secret: ClusterSecret::from_bytes(secret), expires, seeds, peers };
        // One text for one token: numbers that are not in their shortest form are refused.
        if token.encode().eq_ignore_ascii_case(text) { Ok(token) } else { Err(TokenError::NotAToken) }
    }

    /// Whether the token still works.
    ///
    /// # Errors
    ///
    /// [`TokenError::Expired`].
    pub fn check(&self, now: WallTime) -> Result<(), TokenError> {
        match self.expires {
            Some(at) if at <= now => Err(TokenError::Expired { at }),
            _ => Ok(()),
        }
    }
}

/// Guards against typing mistakes only.
fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let register = std::iter::once(&(b'0' + VERSION)).chain(payload).fold(u32::MAX, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |register, _| (register >> 1) ^ if register & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    (!register).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            cluster: "my-cluster".parse().unwrap(),
            secret: ClusterSecret::from_bytes(std::array::from_fn(|index| index as u8)),
            expires: Some(WallTime::from_millis(1_700_000_000_000)),
            seeds: Bounded::first_of(["192.0.2.7:7000", "[2001:db8::1]:7001"].map(|text| text.parse().unwrap())),
            peers: Bounded::first_of([PeerId::from_bytes([7; 32])]),
        }
    }

    #[test]
    fn golden() {
        let text = concat!(
            "mesh1bjwxslldnr2xg5dfoiaacaqdaqcqmbyibefawdanbyhraeiscmkbkfqxdamrugy4dupb6amaqd44bqoeqibqeagaaabapwb",
            "waeqacdnyaaaaaaaaaaaaaaaaaaa5snqba4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4d6ncbzjq"
        );
        assert_eq!(token().encode(), text);
        assert_eq!(JoinToken::parse(text), Ok(token()));
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        // The check value of CRC-32: the digit is the first character of "123456789".
        assert_eq!(checksum(b"23456789"), [0xcb, 0xf4, 0x39, 0x26]);
    }

    #[test]
    fn every_shape_comes_back() {
        let least = JoinToken { expires: None, seeds: Bounded::new(), peers: Bounded::new(), ..token() };
        let most = JoinToken {
            cluster: "x".repeat(64).parse().unwrap(),
            expires: Some(WallTime::from_micros(u64::MAX)),
            seeds: Bounded::first_of((0..9).map(|_| SocketAddr::from(([0xffff; 8], 65_535)))),
            peers: Bounded::first_of((0..9).map(|number| PeerId::from_bytes([number; 32]))),
            ..token()
        };
        assert_eq!((most.seeds.len(), most.peers.len()), (SEEDS_MAX, PEERS_MAX));
        for token in [least, most, token()] {
            let text = token.encode();
            assert!(text.len() <= TOKEN_CHARS_MAX, "{}", text.len());
            assert_eq!(JoinToken::parse(&text).as_ref(), Ok(&token));
            assert_eq!(JoinToken::parse(&format!("  {}\r\n", text.to_uppercase())), Ok(token));
        }
    }

    #[test]
    fn every_typing_mistake_is_caught() {
        let text = token().encode();
        for index in 5..text.len() {
            for character in ['a', 'b', 'q', '2', '7', '0', '1', '-', ' ', 'é'] {
                let mut changed = text.clone();
                changed.replace_range(index..=index, &character.to_string());
                if changed != text {
                    assert_eq!(JoinToken::parse(&changed).map(|_| ()).ok(), None, "{changed}");
                }
            }
            let mut swapped = text.clone().into_bytes();
            swapped.swap(index, index - 1);
            let swapped = String::from_utf8(swapped).unwrap();
            if index > 5 && swapped != text {
                assert_eq!(JoinToken::parse(&swapped), Err(TokenError::Typo));
            }
            let missing = format!("{}{}", &text[..index], &text[index + 1..]);
            assert_eq!(JoinToken::parse(&missing), Err(TokenError::Typo));
            assert_eq!(JoinToken::parse(&text[..index]), Err(TokenError::Typo));
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for text in ["", "mesh", "mesh0aaaa", "meshxaaaa", "éééé1", "mésh1aaaa", "192.0.2.7:7000", "mes"] {
            assert_eq!(JoinToken::parse(text), Err(TokenError::NotAToken), "{text}");
        }
        assert_eq!(JoinToken::parse(&format!("mesh1{}", "a".repeat(1_000))), Err(TokenError::NotAToken));
        assert_eq!(JoinToken::parse("mesh1"), Err(TokenError::Typo));
        assert_eq!(JoinToken::parse("mesh2anything at all"), Err(TokenError::TooNew { version: 2 }));
    }

    /// A token with a right checksum around any payload.
    fn around(payload: &[u8]) -> String {
        format!("mesh1{}", base32_encode(&[payload, &checksum(payload)].concat()))
    }

    #[test]
    fn a_right_checksum_does_not_make_a_token() {
        let good = base32_decode(&token().encode()[5..]).unwrap();
        let payload = &good[..good.len() - CHECKSUM_BYTES];
        assert_eq!(JoinToken::parse(&around(payload)), Ok(token()));
        let mut cases = vec![vec![], vec![0; 40], [payload, &[0]].concat(), payload[..payload.len() - 1].to_vec()];
        // A length that is not in its shortest form, a name with a control character, too many seeds.
        cases.push([&[0x8a, 0x00], &payload[1..]].concat());
        cases.push([&payload[..1], &[7], &payload[2..]].concat());
        cases.push({
            let seeds = payload.len() - 2 - 33 - 7 - 21;
            let mut changed = payload.to_vec();
            changed[seeds] = 5;
            changed
        });
        for case in cases {
            assert_eq!(JoinToken::parse(&around(&case)), Err(TokenError::NotAToken), "{case:?}");
        }
    }

    #[test]
    fn it_expires() {
        let at = WallTime::from_millis(1_700_000_000_000);
        assert_eq!(token().check(WallTime::from_micros(at.as_micros() - 1)), Ok(()));
        assert_eq!(token().check(at), Err(TokenError::Expired { at }));
        assert_eq!(JoinToken { expires: None, ..token() }.check(WallTime::from_micros(u64::MAX)), Ok(()));
        let said = TokenError::Expired { at }.to_string();
        assert_eq!(said, "the join token expired on 2023-11-14 22:13:20 UTC; ask for a new one");
    }

    #[test]
    fn the_secret_does_not_print() {
        let printed = format!("{:?}", token());
        assert!(printed.contains("ClusterSecret(***)") && !printed.contains("30, 31"), "{printed}");
    }
}
