//! Whom to dial and when, and which of several connections to one peer is the connection.
//!
//! The parts above want addresses; this core turns wants into dials that never come in storms, and turns connections, whoever dialed them,
//! into peers that are up or down. It opens and closes nothing itself: it says [`Action::Dial`] and [`Action::Close`], and is told what
//! became of them.
//!
//! # Dialing
//!
//! 1. A wanted address is dialed at once, and after a failure again after a random part of a delay that doubles from try to try ("full
//!    jitter": M. Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015). An address that is to be kept is retried for ever,
//!    any other a few times.
//! 2. A connection that ends soon after it was made counts as a failure, so an address that accepts and drops us is not dialed in a loop.
//! 3. Dials in flight and dials per second are bounded over all addresses: lists of addresses come from other peers, and must not make us a
//!    scanner. Kept addresses go first.
//! 4. An address that turned out to be ourselves, another cluster, or one that does not admit us is left alone for minutes.
//! 5. An address is not dialed while the peer that is expected there, or that answered there last, is connected.
//!
//! # Several connections to one peer
//!
//! 1. Crossed dials, so two connections in opposite directions with the same incarnation: the one that the smaller [`PeerId`] dialed stays.
//!    Both sides compute the same, whatever order they see. Sending moves to it at once ([`Action::Replaced`]), and the other one is closed
//!    after a linger, so that what is in flight on it is read.
//! 2. Same direction: the newer stays. The two sides may see the order differently, so the dialer decides: it closes the older one after the
//!    linger, and the other side keeps both until then and a while longer.
//! 3. A newer incarnation means that the peer's process was started anew: the old connections are closed, and the peer goes down and up, since
//!    nothing that was agreed on with the old process holds for the new one. A connection of an older incarnation is closed at once.
//!
//! # Bounds
//!
//! What peers make us want: [`Config::addresses_max`] addresses, of which the least recently wanted makes room. What they connect:
//! [`LINKS_MAX`] connections for each peer, of which the oldest makes room; how many peers is for the driver, which admits them.

mod config;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;

pub use self::config::{Config, Params};
use self::standing::{Link, Links};
use crate::address::{canonical, is_dialable};
use crate::identity::PeerId;
use crate::random::{self, Generator};
use crate::time::Time;
use crate::timers::Timers;

/// Connections to one peer that are kept while one replaces another.
pub const LINKS_MAX: usize = 4;

/// A connection, by the number that the driver gave it. No number is given twice in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Who dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// We.
    Outbound,
}

/// Why a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DialFailure {
    /// Nothing answered in time.
    TimedOut,
    /// The host answered that nobody listens, the network that there is no such host, or the peer that it has no room.
    Refused,
    /// The handshake failed for a reason that may pass.
    Broken,
    /// Another peer answered than the one that was expected. An address that need not be kept is given up.
    NotExpected,
    /// A node of another cluster answered. The address is blocked.
    WrongCluster,
    /// The peer does not admit us, or speaks no version that we speak. The address is blocked.
    NotAdmitted,
    /// We answered ourselves. The address is blocked.
    Myself,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DialFailure::TimedOut => "nothing answers there",
            DialFailure::Refused => "the address cannot be reached, or the peer has no room",
            DialFailure::Broken => "the handshake failed",
            DialFailure::NotExpected => "another node answered than the one that was expected there",
            DialFailure::WrongCluster => "the node there is of another cluster, or of this one under another secret",
            DialFailure::NotAdmitted => "the peer does not admit this node: the secrets, an allow-list or the versions differ",
            DialFailure::Myself => "this very node answered",
        })
    }
}

impl DialFailure {
    fn blocks(self) -> bool {
        matches!(self, DialFailure::WrongCluster | DialFailure::NotAdmitted | DialFailure::Myself)
    }
}

/// Why this side closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Another connection to the same peer stays.
    Replaced,
    /// The peer started anew: this is a connection of its earlier process.
    Restarted,
    /// The connection belongs to an earlier process of a peer whose later one is connected.
    Outdated,
    /// Both ends are ourselves.
    Myself,
}

/// What happens to this core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants a connection. Wanting an address again changes no delay.
    Want {
        /// Who is expected there; `None` takes whoever answers.
        peer: Option<PeerId>,
        /// Where to dial.
        address: SocketAddr,
        /// Whether it is retried for ever, as a configured address is, and dialed again whenever the peer is lost.
        keep: bool,
    },
    /// A connection was made and admitted.
    Connected {
        /// Its number.
        connection: ConnectionId,
        /// Who is at the other end.
        peer: PeerId,
        /// The number of the peer's process: a later start has a larger one.
        incarnation: u64,
        /// The address of the other end: for [`Direction::Outbound`] the one that was dialed.
        address: SocketAddr,
        /// Who dialed.
        direction: Direction,
    },
    /// A connection ended, by whatever cause. Not needed after [`Action::Close`], and ignored then.
    Disconnected {
        /// Its number.
        connection: ConnectionId,
        /// Who was at the other end.
        peer: PeerId,
    },
    /// A connection ended because one side had no use for it at the moment. Unlike [`Input::Disconnected`] this never counts as a failure, however short its
    /// life was, so that the peer can be dialed again at once.
    Unneeded {
        /// Its number.
        connection: ConnectionId,
        /// Who was at the other end.
        peer: PeerId,
    },
    /// A dial failed.
    Failed {
        /// The address that was dialed.
        address: SocketAddr,
        /// Why.
        reason: DialFailure,
    },
    /// Nobody wants the address any more. A dial in flight goes on.
    Forget {
        /// The address.
        address: SocketAddr,
    },
    /// The moment of [`State::next_deadline`] has come.
    DeadlineReached,
}

/// What the driver, or the part above, has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial, and answer with [`Input::Connected`] or [`Input::Failed`].
    Dial {
        /// Where.
        address: SocketAddr,
        /// Who must answer; anybody else is [`DialFailure::NotExpected`].
        expected: Option<PeerId>,
    },
    /// The first connection of a peer stands.
    Up {
        /// The peer.
        peer: PeerId,
        /// What to send on.
        connection: ConnectionId,
    },
    /// Another connection of a peer takes over: send on it from now on, and read both.
    Replaced {
        /// The peer.
        peer: PeerId,
        /// What was sent on before.
        from: ConnectionId,
        /// What to send on.
        to: ConnectionId,
    },
    /// The last connection of a peer is gone.
    Down {
        /// The peer.
        peer: PeerId,
    },
    /// Close a connection. This core has forgotten it already.
    Close {
        /// Its number.
        connection: ConnectionId,
        /// Why.
        code: CloseReason,
    },
    /// A wanted address is not dialed any more: the tries are used up, it is blocked or cannot be dialed, or the table needed its place.
    GaveUp {
        /// Who was expected there.
        peer: Option<PeerId>,
        /// The address.
        address: SocketAddr,
    },
}

/// The addresses that are wanted and the connections that stand.
#[derive(Clone, Debug)]
pub struct State {
    myself: PeerId,
    config: Config,
    rng: Generator,
    targets: BTreeMap<SocketAddr, Target>,
    /// The targets that may make room, by when they were wanted last.
    evictable: BTreeSet<(u64, SocketAddr)>,
    /// Targets whose time to be dialed has come: kept ones first, then by that time.
    due: BTreeSet<Due>,
    in_flight: usize,
    /// When the dials so far are paid for at the steady rate (the generic cell rate algorithm of ATM, ITU-T I.371, as virtual scheduling).
    paid_until: Time,
    peers: BTreeMap<PeerId, Links>,
    timers: Timers<Key>,
    /// Counts wants and connections, to tell which came later.
    clock: u64,
}

/// `(not kept, since when, where)`.
type Due = (bool, Time, SocketAddr);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Target(SocketAddr),
    Rate,
    Linger(ConnectionId, PeerId),
}

#[derive(Clone, Debug)]
struct Target {
    expected: Option<PeerId>,
    /// Who answered there last.
    answered: Option<PeerId>,
    keep: bool,
    phase: Phase,
    /// Dials for this want.
    tries: u32,
    /// Failures in a row, which survive the want.
    failures: u32,
    /// Not dialed before this.
    not_before: Time,
    wanted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to do; remembers the failures for a while. A kept target is here while its peer is connected.
    Idle,
    /// Its delay runs.
    Waiting,
    /// In `due` since this time: the delay is over and the limits decide.
    Due(Time),
    Dialing,
    /// Left alone.
    Blocked,
}

impl State {
    /// Nothing wanted and nothing connected.
    pub fn new(myself: PeerId, params: Params, seed: u64) -> Self {
        State {
            myself,
            config: params.0,
            rng: random::generator(seed, "dial", 0),
            targets: BTreeMap::new(),
            evictable: BTreeSet::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            paid_until: Time::ZERO,
            peers: BTreeMap::new(),
            timers: Timers::new(),
            clock: 0,
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn handle(&mut self, input: Input, now: Time, actions: &mut Vec<Action>) {
        match input {
            Input::Want { peer, address, keep } => self.on_want(peer, canonical(address), keep, now, actions),
            Input::Connected { connection, peer, incarnation, address, direction } => {
                let link = Link { connection, direction };
                self.on_connected(peer, incarnation, link, canonical(address), now, actions);
            }
            Input::Disconnected { connection, peer } => self.on_disconnected(connection, peer, now, actions),
            Input::Unneeded { connection, peer } => {
                self.on_disconnected(connection, peer, now, actions);
                if !self.peers.contains_key(&peer) {
                    self.forgive(peer, now);
                }
            }
            Input::Failed { address, reason } => self.on_failed(canonical(address), reason, now, actions),
            Input::Forget { address } => self.on_forget(canonical(address), now),
            Input::DeadlineReached => self.on_deadline(now, actions),
        }
        self.dial_what_is_due(now, actions);
        self.check();
    }

    /// When [`Input::DeadlineReached`] is wanted next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// The connection to send on to a peer.
    pub fn connection_of(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.peers.get(peer).map(|links| links.current)
    }

    /// The peers that are up, in the order of their identities.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    /// Whether a dial of the address is in flight.
    pub fn is_dialing(&self, address: SocketAddr) -> bool {
        self.targets.get(&canonical(address)).is_some_and(|target| target.phase == Phase::Dialing)
    }

    /// Whether the address is dialed, or will be: in flight, in its delay, or waiting for the limits.
    pub fn is_pending(&self, address: SocketAddr) -> bool {
        let target = self.targets.get(&canonical(address));
        target.is_some_and(|target| target.is_pending())
    }

    /// Dials in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Addresses in the table.
    pub fn addresses(&self) -> usize {
        self.targets.len()
    }

    fn on_want(&mut self, peer: Option<PeerId>, address: SocketAddr, keep: bool, now: Time, actions: &mut Vec<Action>) {
        if peer == Some(self.myself) || !is_dialable(address) {
            actions.push(Action::GaveUp { peer, address });
            return;
        }
        self.clock += 1;
        if !self.targets.contains_key(&address) {
            if !keep && peer.is_some_and(|peer| self.peers.contains_key(&peer)) {
                return;
            }
            if self.targets.len() >= self.config.addresses_max && !self.evict(actions) {
                actions.push(Action::GaveUp { peer, address });
                return;
            }
            let wanted = self.clock;
            let (phase, answered, tries, failures, not_before) = (Phase::Idle, None, 0, 0, now);
            self.targets.insert(address, Target { expected: peer, answered, keep, phase, tries, failures, not_before, wanted });
        }
        let Some(target) = self.targets.get_mut(&address) else { return };
        self.evictable.remove(&(target.wanted, address));
        target.wanted = self.clock;
        if keep || !target.keep {
            // A passing want does not narrow whom a kept address may lead to.
            target.expected = peer;
        }
        target.keep |= keep;
        if !target.keep {
            self.evictable.insert((target.wanted, address));
        }
        match target.phase {
            Phase::Idle => {
                target.tries = 0;
                if !self.is_satisfied(&address) {
                    self.wait(address, now);
                }
            }
            Phase::Blocked if !target.keep => actions.push(Action::GaveUp { peer, address }),
            // It may have become a kept one, which goes first.
            Phase::Due(since) => {
                self.due.remove(&(true, since, address));
                self.due.insert((!target.keep, since, address));
            }
            Phase::Blocked | Phase::Waiting | Phase::Dialing => {}
        }
    }

    /// Makes room by the least recently wanted address that is neither kept nor being dialed; says whether there was one.
    fn evict(&mut self, actions: &mut Vec<Action>) -> bool {
        let not_dialing =
            |(_, address): &&(u64, SocketAddr)| !self.targets.get(address).is_some_and(|target| target.phase == Phase::Dialing);
        let Some((_, address)) = self.evictable.iter().find(not_dialing).copied() else { return false };
        if let Some(target) = self.remove(address)
            && target.is_pending()
        {
            actions.push(Action::GaveUp { peer: target.expected, address });
        }
        true
    }

    fn remove(&mut self, address: SocketAddr) -> Option<Target> {
        let target = self.targets.remove(&address)?;
        self.evictable.remove(&(target.wanted, address));
        if let Phase::Due(since) = target.phase {
            self.due.remove(&(!target.keep, since, address));
        }
        self.timers.cancel(&Key::Target(address));
        Some(target)
    }

    /// Whether the peer that is expected at an address, or that answered there, is connected.
    fn is_satisfied(&self, address: &SocketAddr) -> bool {
        let target = self.targets.get(address);
        target.and_then(|target| target.expected.or(target.answered)).is_some_and(|peer| self.peers.contains_key(&peer))
    }

    /// Dials the address when its delay is over.
    fn wait(&mut self, address: SocketAddr, now: Time) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        if target.not_before <= now {
            target.phase = Phase::Due(now);
            self.due.insert((!target.keep, now, address));
            self.timers.cancel(&Key::Target(address));
        } else {
            target.phase = Phase::Waiting;
            self.timers.set(Key::Target(address), target.not_before);
        }
    }

    /// Leaves the address alone, and forgets it later unless it is kept.
    fn rest(&mut self, address: SocketAddr, now: Time) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        if let Phase::Due(since) = target.phase {
            self.due.remove(&(!target.keep, since, address));
        }
        target.phase = Phase::Idle;
        if target.keep {
            self.timers.cancel(&Key::Target(address));
        } else {
            // Long enough to remember the delay that a new want has to respect.
            self.timers.set(Key::Target(address), now.max(target.not_before) + self.config.backoff_max);
        }
    }

    fn dial_what_is_due(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.timers.cancel(&Key::Rate);
        let interval = Duration::from_secs(1) / self.config.per_second;
        let ahead_max = interval.saturating_mul(self.config.burst - 1);
        while self.in_flight < self.config.in_flight_max
            && let Some((_, since, address)) = self.due.first().copied()
        {
            if self.is_satisfied(&address) {
                self.rest(address, now);
                continue;
            }
            let ahead = self.paid_until.since(now);
            if ahead > ahead_max {
                self.timers.set(Key::Rate, now + (ahead - ahead_max));
                return;
            }
            self.paid_until = self.paid_until.max(now) + interval;
            self.due.pop_first();
            let Some(target) = self.targets.get_mut(&address) else { continue };
            debug_assert_eq!(target.phase, Phase::Due(since), "what is due says so");
            target.phase = Phase::Dialing;
            target.tries = target.tries.saturating_add(1);
            self.in_flight += 1;
            self.timers.set(Key::Target(address), now + self.config.dial_timeout);
            actions.push(Action::Dial { address, expected: target.expected });
        }
    }

    fn on_failed(&mut self, address: SocketAddr, reason: DialFailure, now: Time, actions: &mut Vec<Action>) {
        // The answer to a dial that we gave up on, or never asked for, says nothing about what is there now.
        let Some(target) = self.targets.get_mut(&address).filter(|target| target.phase == Phase::Dialing) else { return };
        self.in_flight -= 1;
        target.phase = Phase::Idle;
        self.count_failure(address, now);
        let Some(target) = self.targets.get_mut(&address) else { return };
        let give_up = Action::GaveUp { peer: target.expected, address };
        if reason.blocks() {
            target.phase = Phase::Blocked;
            self.timers.set(Key::Target(address), now + self.config.blocked_for);
            if !target.keep {
                actions.push(give_up);
            }
        } else if !target.keep && (reason == DialFailure::NotExpected || target.tries >= self.config.tries_max) {
            if !self.is_satisfied(&address) {
                actions.push(give_up);
            }
            self.rest(address, now);
        } else if self.is_satisfied(&address) {
            self.rest(address, now);
        } else {
            self.wait(address, now);
        }
    }

    fn count_failure(&mut self, address: SocketAddr, now: Time) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        let doubled = self.config.backoff_min.saturating_mul(1_u32.checked_shl(target.failures).unwrap_or(u32::MAX));
        target.failures = target.failures.saturating_add(1);
        let delay_max = u64::try_from(doubled.min(self.config.backoff_max).as_nanos()).unwrap_or(u64::MAX);
        target.not_before = now + Duration::from_nanos(self.rng.random_range(0..=delay_max));
    }

    fn on_forget(&mut self, address: SocketAddr, now: Time) {
        let Some(target) = self.targets.get_mut(&address) else { return };
        let (phase, was_kept) = (target.phase, target.keep);
        if let Phase::Due(since) = phase {
            self.due.remove(&(!was_kept, since, address));
            target.phase = Phase::Idle;
        }
        target.keep = false;
        self.evictable.insert((target.wanted, address));
        match phase {
            // The last try of a want that nobody has.
            Phase::Dialing => target.tries = self.config.tries_max,
            Phase::Blocked => {}
            Phase::Idle | Phase::Waiting | Phase::Due(_) => self.rest(address, now),
        }
    }

    fn on_deadline(&mut self, now: Time, actions: &mut Vec<Action>) {
        while let Some((_, key)) = self.timers.pop_due(now) {
            match key {
                Key::Rate => {}
                Key::Linger(connection, peer) => self.on_linger_over(connection, peer, actions),
                Key::Target(address) => match self.targets.get(&address).map(|target| (target.phase, target.keep)) {
                    Some((Phase::Waiting, _)) => self.wait(address, now),
                    Some((Phase::Dialing, _)) => self.on_failed(address, DialFailure::TimedOut, now, actions),
                    Some((Phase::Blocked, true)) if !self.is_satisfied(&address) => self.wait(address, now),
                    Some((Phase::Blocked, true)) => self.rest(address, now),
                    Some((Phase::Idle | Phase::Blocked, false)) => drop(self.remove(address)),
                    Some((Phase::Idle, true) | (Phase::Due(_), _)) | None => {}
                },
            }
        }
    }

    /// An address that we dialed was answered.
    fn on_dialed(&mut self, address: SocketAddr, peer: PeerId, now: Time, actions: &mut Vec<Action>) {
        let Some(target) = self.targets.get_mut(&address).filter(|target| target.phase == Phase::Dialing) else { return };
        if target.expected.is_some_and(|expected| expected != peer) {
            // The connection is as good as any, but it is not what was wanted.
            self.on_failed(address, DialFailure::NotExpected, now, actions);
        } else {
            self.in_flight -= 1;
            target.answered = Some(peer);
            target.tries = 0;
            target.phase = Phase::Idle;
            self.rest(address, now);
        }
    }

    /// Makes the addresses of a peer as good as new.
    fn forgive(&mut self, peer: PeerId, now: Time) {
        let of_peer = |(address, target): (&SocketAddr, &Target)| {
            (matches!(target.phase, Phase::Idle | Phase::Waiting) && target.expected.or(target.answered) == Some(peer)).then_some(*address)
        };
        for address in self.targets.iter().filter_map(of_peer).collect::<Vec<_>>() {
            let Some(target) = self.targets.get_mut(&address) else { continue };
            target.failures = 0;
            target.not_before = now;
            if target.phase == Phase::Waiting {
                self.wait(address, now);
            }
        }
    }

    fn check(&self) {
        debug_assert!(self.targets.len() <= self.config.addresses_max, "the table has a bound");
        debug_assert!(self.in_flight <= self.config.in_flight_max, "dials in flight have a bound");
        debug_assert!(self.timers.len() <= 1 + self.targets.len() + self.peers.len() * LINKS_MAX, "one deadline for each thing");
    }
}

impl Target {
    fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Due(_) | Phase::Dialing)
    }
}

#[cfg(test)]
mod tests;
