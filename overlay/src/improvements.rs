//! What a core does better than its paper, as names that a configuration can switch off.
//!
//! Two uses: without any of them a core is the protocol as published, a reference to measure against; without one of them a run must miss
//! the expectation that this one is there for, which shows that the expectation can fail.

use std::fmt;

/// Declares the closed enum `Improvement` of a core: each name with the text that stands for it in a configuration.
macro_rules! improvements {
    ($(#[doc = $head:literal])+ { $($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+ }) => {
        $(#[doc = $head])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum Improvement {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Improvement {
            /// Every one, in order.
            pub const ALL: &[Improvement] = &[$(Improvement::$name,)+];

            /// The text that stands for it in a configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Improvement::$name => $text,)+
                }
            }

            /// One bit for each of them.
            pub(crate) fn bits(improvements: &[Improvement]) -> u16 {
                improvements.iter().fold(0, |bits, improvement| bits | improvement.bit())
            }

            /// Its bit.
            pub(crate) const fn bit(self) -> u16 {
                1 << self as u16
            }
        }

        // A further one needs wider bits.
        const _: () = assert!(Improvement::ALL.len() <= u16::BITS as usize);

        impl std::str::FromStr for Improvement {
            type Err = crate::improvements::UnknownImprovement;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Improvement::ALL.iter().copied().find(|known| known.name() == text).ok_or(crate::improvements::UnknownImprovement)
            }
        }
    };
}

pub(crate) use improvements;

/// The text names no improvement of this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownImprovement;

impl fmt::Display for UnknownImprovement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no improvement that can be switched off")
    }
}

impl std::error::Error for UnknownImprovement {}
