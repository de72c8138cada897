//! What two peers must agree on about the channels that an application defined, and how they tell each other.
//!
//! Each side says in its admission message which channels it has: their names and what must be equal at both ends, the [`Terms`]. The numbers
//! follow from the names. Priorities, queues and paths are each sender's own business. A node that has no such channel says nothing, so that
//! its messages are those of a node that never heard of them.
//!
//! ```text
//! table = list of at most 32 of terms, ascending by name, each name once; never empty
//! terms = name (list of at most 32 bytes)  reliability (1 byte)  lanes (1 byte, 1 to 16)
//! ```
//!
//! A reliability that this version does not know is no fault: the peer has a channel that cannot be used together, as if it had none.
//!
//! A peer can make this hold 32 names of 32 bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::channel::{
    ChannelId, ChannelSpec, Class, DEFINED_BYTES_MAX, DEFINED_LANES_MAX, DEFINED_MAX, NAME_BYTES_MAX, Overflow, Path, Reliability,
};
use crate::codec::Bounded;
use crate::error::{ConfigError, DecodeError};
use crate::limits;
use crate::sender::{LANES_MAX, Params};

/// What must be equal at both ends of a channel that an application defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The name.
    pub name: String,
    /// What may happen to messages.
    pub reliability: Reliability,
    /// How many lanes there are.
    pub lanes: u8,
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.lanes == 1 { "" } else { "s" };
        write!(f, "{} with {} lane{plural}", self.reliability.name(), self.lanes)
    }
}

impl From<&ChannelSpec> for Terms {
    fn from(spec: &ChannelSpec) -> Self {
        Terms { name: spec.name.to_string(), reliability: spec.reliability, lanes: spec.lanes }
    }
}

/// Why a message cannot go to a peer on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// The peer has no channel of this name.
    Unknown {
        /// The channel.
        channel: ChannelId,
        /// Its name.
        name: String,
    },
    /// The peer has it on other terms.
    Mismatch {
        /// The channel.
        channel: ChannelId,
        /// Our terms.
        ours: Terms,
        /// The peer's.
        theirs: Terms,
    },
}

impl Disagreement {
    /// The channel.
    pub fn channel(&self) -> ChannelId {
        match self {
            Disagreement::Unknown { channel, .. } | Disagreement::Mismatch { channel, .. } => *channel,
        }
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disagreement::Unknown { name, .. } => write!(f, "the peer has no channel `{name}`"),
            Disagreement::Mismatch { ours, theirs, .. } => {
                write!(f, "the channel `{}` is {ours} here and {theirs} at the peer", ours.name)
            }
        }
    }
}

impl std::error::Error for Disagreement {}

/// The channels that the application of one node defined, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<Terms>);

#[derive(Serialize, Deserialize)]
struct WireTerms {
    name: Bounded<u8, NAME_BYTES_MAX>,
    reliability: u8,
    lanes: u8,
}

/// The table as it is on the wire: decoded, and still to be checked.
#[derive(Serialize, Deserialize)]
pub struct WireTable(Bounded<WireTerms, DEFINED_MAX>);

impl Table {
    /// The defined channels among those of a node.
    pub fn of(params: &Params) -> Self {
        let defined = params.channels().iter().filter(|spec| spec.id.is_defined());
        let mut terms: Vec<Terms> = defined.map(Terms::from).collect();
        terms.sort_by(|a, b| a.name.cmp(&b.name));
        Table(terms)
    }

    /// The terms, in the order of their names.
    pub fn terms(&self) -> &[Terms] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a peer with this table takes what is sent on a channel of ours. Every node has the built-in channels.
    ///
    /// # Errors
    ///
    /// What the peer does not have, or has otherwise.
    pub fn check(&self, ours: &ChannelSpec) -> Result<(), Disagreement> {
        if !ours.id.is_defined() {
            return Ok(());
        }
        match self.0.binary_search_by(|terms| terms.name.as_str().cmp(&ours.name)) {
            Ok(index) => {
                let (ours, theirs) = (Terms::from(ours), &self.0[index]);
                let channel = ChannelId::named(&ours.name);
                if ours == *theirs { Ok(()) } else { Err(Disagreement::Mismatch { channel, ours, theirs: theirs.clone() }) }
            }
            Err(_) => Err(Disagreement::Unknown { channel: ours.id, name: ours.name.to_string() }),
        }
    }

    /// The table for the wire.
    pub fn to_wire(&self) -> WireTable {
        let wire = |terms: &Terms| WireTerms {
            name: Bounded::first_of(terms.name.bytes()),
            reliability: terms.reliability as u8,
            lanes: terms.lanes,
        };
        WireTable(Bounded::first_of(self.0.iter().map(wire)))
    }

    /// Checks a table from the wire.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Trailing`] for one that is empty and should not be there, [`DecodeError::Invalid`] for names that no node can have, that come twice
    /// or out of order, and for numbers of lanes that there cannot be.
    pub fn from_wire(wire: WireTable) -> Result<Self, DecodeError> {
        let mut terms: Vec<Terms> = Vec::with_capacity(wire.0.len());
        if wire.0.is_empty() {
            return Err(DecodeError::Trailing);
        }
        let mut last = String::new();
        for WireTerms { name, reliability, lanes } in wire.0 {
            let name = String::from_utf8(name.into_vec()).map_err(|_| DecodeError::Invalid)?;
            if !is_name(&name) || name <= last || !(1..=LANES_MAX).contains(&lanes) {
                return Err(DecodeError::Invalid);
            }
            last.clone_from(&name);
            if let Some(reliability) = Reliability::ALL.get(usize::from(reliability)).copied() {
                terms.push(Terms { name, reliability, lanes });
            }
        }
        Ok(Table(terms))
    }
}

/// Whether an application may call a channel so.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_letter) && ChannelId::named(name).is_defined()
}

/// The channels of a node: the built-in ones, and those that its application defines.
///
/// # Errors
///
/// A [`ConfigError`] when a name cannot be used, two channels have one name or one number, there are too many of them, or a value is one that a
/// channel of an application cannot have.
pub fn with_defined(defined: Vec<ChannelSpec>) -> Result<Params, ConfigError> {
    if defined.len() > DEFINED_MAX {
        return Err(ConfigError::new("channels", defined.len(), format_args!("at most {DEFINED_MAX} beside the built-in ones")));
    }
    for (index, spec) in defined.iter().enumerate() {
        if !is_name(&spec.name) || spec.id != ChannelId::named(&spec.name) {
            let limit = "1 to 32 letters, digits, `-`, `_` and `.` of ASCII, and not the name of a built-in channel";
            return Err(ConfigError::new("channels.name", format_args!("{:?}", spec.name), limit));
        }
        if let Some(other) = defined[..index].iter().find(|other| other.id == spec.id && other.name != spec.name) {
            let limit = format!("another one: its number is that of `{}`", other.name);
            return Err(ConfigError::new("channels.name", format_args!("`{}`", spec.name), limit));
        }
        if spec.class == Class::Control {
            return Err(ConfigError::new("channels.class", "control", "high, medium or low"));
        }
        if spec.overflow == Overflow::Disconnect {
            return Err(ConfigError::new("channels.overflow", "disconnect", "refuse, drop or drop-oldest"));
        }
        if spec.reliability.is_acknowledged() {
            // What is dropped in a queue would never be acknowledged, and frames of these messages carry no lane.
            if spec.overflow != Overflow::Refuse {
                return Err(ConfigError::new("channels.overflow", spec.overflow.name(), "refuse where messages are acknowledged"));
            }
            if spec.lanes != 1 {
                return Err(ConfigError::new("channels.lanes", spec.lanes, "1 where messages are acknowledged"));
            }
        }
        if spec.reliability == Reliability::Latest {
            // Dropping a key would lose its newest value, and two lanes would let an old one overtake it.
            if spec.overflow != Overflow::Refuse {
                return Err(ConfigError::new("channels.overflow", spec.overflow.name(), "refuse where the latest is kept"));
            }
            if spec.lanes != 1 {
                return Err(ConfigError::new("channels.lanes", spec.lanes, "1 where the latest is kept"));
            }
        }
    }
    for spec in defined.iter().filter(|spec| spec.reliability == Reliability::BestEffort) {
        if spec.path != Path::Urgent {
            return Err(ConfigError::new("channels.path", "bulk", "urgent for best effort: datagrams travel on the first connection"));
        }
        if spec.overflow == Overflow::Refuse {
            return Err(ConfigError::new("channels.overflow", "refuse", "drop or drop-oldest for best effort"));
        }
        if spec.queued_bytes_max < limits::DATAGRAM_BYTES_MAX {
            let limit = format!("at least {}, one datagram", limits::DATAGRAM_BYTES_MAX);
            return Err(ConfigError::new("channels.queued_bytes_max", spec.queued_bytes_max, limit));
        }
    }
    let lanes: usize = defined.iter().map(|spec| usize::from(spec.lanes)).sum();
    if lanes > DEFINED_LANES_MAX {
        return Err(ConfigError::new(
            "channels.lanes",
            lanes,
            format_args!("at most {DEFINED_LANES_MAX} in all defined channels together"),
        ));
    }
    let bytes = defined.iter().fold(0_usize, |sum, spec| sum.saturating_add(spec.queued_bytes_max));
    if bytes > DEFINED_BYTES_MAX {
        let limit = format!("at most {DEFINED_BYTES_MAX} in all defined channels together");
        return Err(ConfigError::new("channels.queued_bytes_max", bytes, limit));
    }
    Params::new(ChannelSpec::built_in().into_iter().chain(defined), Params::PEER_BYTES_MAX + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode, encode};

    fn table(specs: Vec<ChannelSpec>) -> Table {
        Table::of(&with_defined(specs).unwrap())
    }

    fn read(bytes: &[u8]) -> Result<Table, DecodeError> {
        decode::<WireTable>(bytes).and_then(Table::from_wire)
    }

    #[test]
    fn a_table_is_stable_and_round_trips() {
        let ours = table(vec![ChannelSpec::new("video").lanes(3), ChannelSpec::new("pose").latest()]);
        let bytes = encode(&ours.to_wire());
        assert_eq!(&bytes[..], b"\x02\x04pose\x01\x01\x05video\x00\x03");
        assert_eq!(read(&bytes), Ok(ours));
        let kept = table(vec![ChannelSpec::new("a").at_least_once(), ChannelSpec::new("g").guaranteed()]);
        let bytes = encode(&kept.to_wire());
        assert_eq!(&bytes[..], b"\x02\x01a\x03\x01\x01g\x04\x01");
        assert_eq!(read(&bytes), Ok(kept));
    }

    #[test]
    fn the_largest_table_fits_an_admission() {
        let specs = (0..DEFINED_MAX).map(|number| ChannelSpec::new(format!("{number:032}")).queue(10, 1_200_000));
        assert!(encode(&table(specs.collect()).to_wire()).len() < crate::limits::ADMISSION_BYTES_MAX / 2);
    }

    #[test]
    fn hostile_tables_are_refused() {
        // More than there may be, promised or sent.
        let many: Vec<u8> = [0x80, 8].into_iter().chain((0..1_024).flat_map(|_| [1, b'a', 0, 1])).collect();
        assert_eq!(read(&many), Err(DecodeError::TooLong));
        assert_eq!(read(&[33]), Err(DecodeError::Truncated));
        // Names twice, out of order, empty, of a built-in channel, with other letters, or too long.
        for names in [&["a", "a"][..], &["b", "a"], &[""], &["control"], &["data"], &["a b"], &["\u{e4}"], &["a\n"]] {
            let terms = names.iter().flat_map(|name| [&[name.len() as u8], name.as_bytes(), &[0, 1]].concat());
            let bytes: Vec<u8> = [names.len() as u8].into_iter().chain(terms).collect();
            assert_eq!(read(&bytes), Err(DecodeError::Invalid), "{names:?}");
        }
        let long = [&[1, 33][..], &[b'a'; 33], &[0, 1]].concat();
        assert_eq!(read(&long), Err(DecodeError::TooLong));
        for lanes in [0, 17] {
            assert_eq!(read(&[1, 1, b'a', 0, lanes]), Err(DecodeError::Invalid));
        }
        assert_eq!(read(&[1, 1, b'a', 9, 1]), Ok(Table::default()), "a reliability of the future");
        assert_eq!(read(&[0]), Err(DecodeError::Trailing), "no channels are said by saying nothing");
    }

    #[test]
    fn two_peers_agree_or_say_why_not() {
        let ours = [
            ChannelSpec::new("video").lanes(2),
            ChannelSpec::new("pose").latest(),
            ChannelSpec::new("mine"),
            ChannelSpec::new("orders").guaranteed(),
            ChannelSpec::new("logs").at_least_once(),
        ];
        let theirs = table(vec![
            ChannelSpec::new("video"),
            ChannelSpec::new("pose").latest().queue(5, 2_000_000).class(Class::Low),
            ChannelSpec::new("orders").at_least_once(),
            ChannelSpec::new("logs").at_least_once().path(Path::Urgent),
        ]);
        let check = |spec: &ChannelSpec| theirs.check(spec).map_err(|problem| problem.to_string());
        assert_eq!(check(&ours[0]).unwrap_err(), "the channel `video` is ordered with 2 lanes here and ordered with 1 lane at the peer");
        assert_eq!(check(&ours[1]), Ok(()), "queues and classes are the sender's own");
        assert_eq!(check(&ours[2]).unwrap_err(), "the peer has no channel `mine`");
        let otherwise = "the channel `orders` is guaranteed with 1 lane here and at-least-once with 1 lane at the peer";
        assert_eq!(check(&ours[3]).unwrap_err(), otherwise);
        assert_eq!(check(&ours[4]), Ok(()));
        for spec in ChannelSpec::built_in() {
            assert_eq!(Table::default().check(&spec), Ok(()));
        }
    }

    #[test]
    fn what_an_application_cannot_define_is_refused_by_name() {
        let refused = |specs: Vec<ChannelSpec>| with_defined(specs).unwrap_err().field;
        let video = || ChannelSpec::new("video");
        assert_eq!(refused(vec![video(), video()]), "channels.name");
        assert_eq!(refused(vec![ChannelSpec::new("data")]), "channels.name");
        assert_eq!(refused(vec![ChannelSpec::new("")]), "channels.name");
        assert_eq!(refused(vec![ChannelSpec { id: ChannelId(9), ..video() }]), "channels.name");
        assert_eq!(refused(vec![video().class(Class::Control)]), "channels.class");
        assert_eq!(refused(vec![video().overflow(Overflow::Disconnect)]), "channels.overflow");
        assert_eq!(refused(vec![video().latest().overflow(Overflow::DropOldest)]), "channels.overflow");
        assert_eq!(refused(vec![video().latest().lanes(2)]), "channels.lanes");
        assert_eq!(refused(vec![video().guaranteed().lanes(2)]), "channels.lanes");
        assert_eq!(refused(vec![video().at_least_once().overflow(Overflow::Drop)]), "channels.overflow");
        assert_eq!(refused(vec![video().best_effort().path(Path::Bulk)]), "channels.path");
        assert_eq!(refused(vec![video().best_effort().overflow(Overflow::Refuse)]), "channels.overflow");
        assert_eq!(refused(vec![video().best_effort().queue(10, 100)]), "channels.queued_bytes_max");
        assert_eq!(refused(vec![video().lanes(0)]), "channels.lanes");
        assert_eq!(refused((0..3).map(|n| ChannelSpec::new(format!("c{n}")).lanes(16)).collect()), "channels.lanes");
        assert_eq!(refused((0..33).map(|n| ChannelSpec::new(format!("c{n}"))).collect()), "channels");
        assert_eq!(refused(vec![video().queue(1, usize::MAX), ChannelSpec::new("b")]), "channels.queued_bytes_max");
        assert_eq!(refused(vec![video().queue(1, 10)]), "channels.queued_bytes_max");
        assert_eq!(refused(vec![video().queue(0, 2_000_000)]), "channels.queued_frames_max");
    }

    #[test]
    fn names_that_share_a_number_are_found() {
        let first = |id: ChannelId, skip: usize| {
            let names = (0..).map(|number: u32| format!("n{number}")).filter(|name| ChannelId::named(name) == id);
            names.into_iter().nth(skip).unwrap()
        };
        let id = ChannelId::named("n0");
        let error = with_defined(vec![ChannelSpec::new(first(id, 0)), ChannelSpec::new(first(id, 1))]).unwrap_err();
        assert_eq!(error.field, "channels.name");
        assert!(error.limit.contains("`n0`"), "{error}");
    }
}
