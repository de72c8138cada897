//! Who may start a handshake: the decision, without the sockets.
//!
//! A QUIC server that accepts every first packet keeps some 30 KiB for each, also when the sender's address is forged; asking the sender
//! to repeat the packet with a token (Retry) keeps nothing and costs an honest dialer one round trip. So the door stands open while it is
//! quiet, and asks for the token as soon as it is not.

use std::time::Duration;

use crate::limits;
use crate::time::Time;

/// Connections that others may open towards us. The rest is for those that we open, so that no crowd can cut us off.
pub(super) const INBOUND_MAX: usize = limits::CONNECTIONS_MAX / 4 * 3;

/// Connections without admission that QUIC may remember. One that fails is remembered for seconds if its dialer is silent, so those who
/// fail fast could be many; peers that close in good order are forgotten in three round trips.
const REMEMBERED_MAX: usize = 4 * limits::HALF_OPEN_MAX;

/// What is known of a first packet and of the endpoint when it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knock {
    /// The sender proved that it receives at its address.
    pub(super) validated: bool,
    /// Handshakes and admissions in progress that others began.
    pub(super) half_open: usize,
    /// Connections that QUIC has memory for and that are not admitted: those in progress, and those that ended some seconds ago.
    pub(super) remembered: usize,
    /// Admitted connections that others opened.
    pub(super) inbound: usize,
    /// The owner of the endpoint is slow to take its events.
    pub(super) loaded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Accept,
    Retry,
    Refuse,
}

/// Counts the newcomers of the current second. A peer can make it store nothing.
#[derive(Debug, Default)]
pub(super) struct Gate {
    second: Time,
    newcomers: u32,
}

impl Gate {
    pub(super) fn judge(&mut self, knock: Knock, now: Time) -> Decision {
        if !knock.validated {
            if now.since(self.second) >= Duration::from_secs(1) {
                *self = Gate { second: now, newcomers: 0 };
            }
            self.newcomers = self.newcomers.saturating_add(1);
            // Before the refusals: whoever forges addresses shall not learn, and not cost, more than a token.
            let crowded = knock.half_open.max(knock.remembered) > limits::HALF_OPEN_RETRY;
            if knock.loaded || crowded || self.newcomers > limits::NEW_PER_SECOND_RETRY {
                return Decision::Retry;
            }
        }
        let full = knock.half_open >= limits::HALF_OPEN_MAX || knock.remembered >= REMEMBERED_MAX || knock.inbound >= INBOUND_MAX;
        if full { Decision::Refuse } else { Decision::Accept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Knock = Knock { validated: false, half_open: 0, remembered: 0, inbound: 0, loaded: false };

    #[test]
    fn a_quiet_door_is_open() {
        assert_eq!(Gate::default().judge(QUIET, Time::from_secs(9)), Decision::Accept);
        assert_eq!(Gate::default().judge(Knock { half_open: limits::HALF_OPEN_RETRY, ..QUIET }, Time::ZERO), Decision::Accept);
    }

    #[test]
    fn a_busy_door_asks_for_a_token() {
        let crowd = limits::HALF_OPEN_RETRY + 1;
        let busy = [Knock { half_open: crowd, ..QUIET }, Knock { remembered: crowd, ..QUIET }, Knock { loaded: true, ..QUIET }];
        for knock in busy {
            assert_eq!(Gate::default().judge(knock, Time::ZERO), Decision::Retry, "{knock:?}");
            assert_eq!(Gate::default().judge(Knock { validated: true, ..knock }, Time::ZERO), Decision::Accept, "{knock:?}");
        }
    }

    #[test]
    fn newcomers_have_a_rate() {
        let mut gate = Gate::default();
        let now = Time::from_secs(5);
        for _ in 0..limits::NEW_PER_SECOND_RETRY {
            assert_eq!(gate.judge(QUIET, now), Decision::Accept);
        }
        assert_eq!(gate.judge(QUIET, now + Duration::from_millis(999)), Decision::Retry);
        assert_eq!(gate.judge(Knock { validated: true, ..QUIET }, now), Decision::Accept);
        assert_eq!(gate.judge(QUIET, now + Duration::from_secs(1)), Decision::Accept);
    }

    #[test]
    fn a_full_house_refuses_those_who_proved_their_address() {
        let full = [
            Knock { validated: true, half_open: limits::HALF_OPEN_MAX, ..QUIET },
            Knock { validated: true, remembered: REMEMBERED_MAX, ..QUIET },
            Knock { validated: true, inbound: INBOUND_MAX, ..QUIET },
            Knock { inbound: INBOUND_MAX, ..QUIET },
        ];
        for knock in full {
            assert_eq!(Gate::default().judge(knock, Time::ZERO), Decision::Refuse, "{knock:?}");
        }
        // A forged address gets a token to repeat, never a place.
        assert_eq!(Gate::default().judge(Knock { half_open: limits::HALF_OPEN_MAX, ..QUIET }, Time::ZERO), Decision::Retry);
    }
}
