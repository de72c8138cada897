//! What is left of a step once its values are taken out: enough to tell whether a key holds it.

use bytes::Bytes;
use meshwork_channels::Bounded;

use super::{Ascending, Change, MEMBERS_MAX, State, Step, Typed, Written};
use crate::register::Register;

impl Step {
    /// The same without values, as far as it can do without: dots, stamps and sums say enough. A growing set has nothing but its members.
    pub(crate) fn witness(&self) -> Step {
        match self {
            Step::Whole(Typed { length, state }) => Step::Whole(Typed { length: *length, state: state.as_ref().map(State::witness) }),
            Step::Mv(length, change) => Step::Mv(*length, change.map(valueless)),
            Step::Set(length, change) => Step::Set(*length, change.map(|_| Bytes::new())),
        }
    }

    /// Whether all that this does was done to what a key holds, or no longer counts.
    pub(crate) fn is_in(&self, held: &Typed) -> bool {
        Typed::after(Some(held), self).is_ok_and(|after| after == *held)
    }
}

impl State {
    fn witness(&self) -> State {
        match self {
            // No value is less than any, and no bytes are no more than any: what is held with the same stamp and origin is not less.
            State::Lww(stamp, origin, _) => State::Lww(*stamp, *origin, Register::Removed),
            State::Best(score, written) => State::Best(*score, valueless(written)),
            State::Mv(_) | State::Count(_) | State::GCount(_) | State::Set(_) | State::GSet(_) => self.clone(),
        }
    }
}

impl<P: Clone> Change<P> {
    fn map(&self, value: impl Fn(&P) -> P) -> Change<P> {
        let adds: Bounded<(u64, P), MEMBERS_MAX> = Bounded::first_of(self.adds.iter().map(|(step, held)| (*step, value(held))));
        Change { adds: Ascending(adds), removes: self.removes.clone(), ..*self }
    }
}

fn valueless(written: &Written) -> Written {
    Written { value: Bytes::new(), ..*written }
}
