//! Who can dial whom: nodes in the open, behind translators of addresses, and behind filters.
//!
//! | dials … | public | cone | symmetric | blocked |
//! |---|---|---|---|---|
//! | public, cone, symmetric | yes | yes | no | no |
//! | blocked | yes | no | no | no |
//!
//! Once a dial has got through, its connection carries in both directions.

use meshwork_channels::random::{hash, unit};
use serde::{Deserialize, Serialize};

use super::CLASS;

/// How a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// At its own address.
    Public,
    /// Behind a translator that has one outer address for it and lets everybody in there (RFC 4787: mapping and filtering independent of the endpoint). It is
    /// taken to keep that address open.
    Cone,
    /// Behind a translator that has another outer address for each peer: nobody can dial it.
    Symmetric,
    /// Behind a filter: nobody can dial it, and it gets out to public nodes alone.
    Blocked,
}

/// The shares of the classes; all others are public.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Classes {
    /// The share of nodes of class [`Class::Cone`].
    pub cone: f64,
    /// The share of nodes of class [`Class::Symmetric`].
    pub symmetric: f64,
    /// The share of nodes of class [`Class::Blocked`].
    pub blocked: f64,
}

/// The first nodes are public whatever the shares: they are whom others are told of.
const PUBLIC_MIN: u32 = 2;

impl Classes {
    /// The class of a node.
    pub fn class(&self, seed: u64, node: u32) -> Class {
        if node < PUBLIC_MIN || *self == Classes::default() {
            return Class::Public;
        }
        let draw = unit(hash(&[seed, CLASS, u64::from(node)]));
        let Classes { cone, symmetric, blocked } = *self;
        match draw {
            draw if draw < cone => Class::Cone,
            draw if draw < cone + symmetric => Class::Symmetric,
            draw if draw < cone + symmetric + blocked => Class::Blocked,
            _ => Class::Public,
        }
    }

    /// Whether a dial from one node gets through to another.
    pub fn can_dial(&self, seed: u64, from: u32, to: u32) -> bool {
        match self.class(seed, to) {
            Class::Public => true,
            Class::Cone => self.class(seed, from) != Class::Blocked,
            Class::Symmetric | Class::Blocked => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_shares_configured() {
        let classes = Classes { cone: 0.3, symmetric: 0.2, blocked: 0.1 };
        let near = |class, share: f64| {
            let found = (0..100_000).filter(|node| classes.class(1, *node) == class).count() as f64 / 1e5;
            assert!((found / share - 1.0).abs() < 0.02, "{found} of {class:?}");
        };
        near(Class::Public, 0.4);
        near(Class::Cone, 0.3);
        near(Class::Symmetric, 0.2);
        near(Class::Blocked, 0.1);
    }

    #[test]
    fn dials_get_through_as_the_table_says() {
        let classes = Classes { cone: 0.25, symmetric: 0.25, blocked: 0.25 };
        let of = |class| (2..100).find(|node| classes.class(1, *node) == class).unwrap();
        let all = [Class::Public, Class::Cone, Class::Symmetric, Class::Blocked].map(of);
        let row = |from: u32| all.map(|to| classes.can_dial(1, from, to));
        for from in [all[0], all[1], all[2]] {
            assert_eq!(row(from), [true, true, false, false]);
        }
        assert_eq!(row(all[3]), [true, false, false, false]);
        assert_eq!(classes.class(1, 0), Class::Public);
        assert!(Classes::default().can_dial(1, 9, 8));
    }
}
