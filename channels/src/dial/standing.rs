//! The connections that stand: which of several to one peer stays, and how long the others are still read.

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Links {
    pub(super) incarnation: u64,
    pub(super) up_since: Time,
    pub(super) current: ConnectionId,
    /// In the order in which they came; at most [`LINKS_MAX`].
    pub(super) all: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) direction: Direction,
}

impl State {
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        incarnation: u64,
        link: Link,
        address: SocketAddr,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        let connection = link.connection;
        if peer == self.myself {
            if link.direction == Direction::Outbound {
                self.on_failed(address, DialFailure::Myself, now, actions);
            }
            actions.push(Action::Close { connection, code: CloseReason::Myself });
            return;
        }
        if link.direction == Direction::Outbound {
            self.on_dialed(address, peer, now, actions);
        }
        match self.peers.get_mut(&peer) {
            Some(links) if incarnation < links.incarnation => {
                actions.push(Action::Close { connection, code: CloseReason::Outdated });
            }
            Some(links) if incarnation == links.incarnation => {
                if links.all.iter().any(|known| known.connection == connection) {
                    return;
                }
                links.all.push(link);
                self.choose(peer, actions);
                self.linger(peer, now, actions);
            }
            Some(_) => {
                for old in self.take_down(peer, now, actions) {
                    actions.push(Action::Close { connection: old.connection, code: CloseReason::Restarted });
                }
                self.bring_up(peer, incarnation, link, now, actions);
            }
            None => self.bring_up(peer, incarnation, link, now, actions),
        }
    }

    fn bring_up(&mut self, peer: PeerId, incarnation: u64, link: Link, now: Time, actions: &mut Vec<Action>) {
        self.peers.insert(peer, Links { incarnation, up_since: now, current: link.connection, all: vec![link] });
        actions.push(Action::Up { peer, connection: link.connection });
        // Other ways to the peer need not be tried any more.
        let others = |(address, target): (&SocketAddr, &Target)| {
            (target.expected.or(target.answered) == Some(peer) && target.phase == Phase::Waiting).then_some(*address)
        };
        for address in self.targets.iter().filter_map(others).collect::<Vec<_>>() {
            self.rest(address, now);
        }
    }

    /// Forgets a peer that lost its last connection, or its process; returns its connections.
    fn take_down(&mut self, peer: PeerId, now: Time, actions: &mut Vec<Action>) -> Vec<Link> {
        let Some(links) = self.peers.remove(&peer) else { return Vec::new() };
        for link in &links.all {
            self.timers.cancel(&Key::Linger(link.connection, peer));
        }
        actions.push(Action::Down { peer });
        let settled = now.since(links.up_since) >= self.config.settled_after;
        let ways = |(address, target): (&SocketAddr, &Target)| {
            (target.phase == Phase::Idle && target.expected.or(target.answered) == Some(peer)).then_some(*address)
        };
        for address in self.targets.iter().filter_map(ways).collect::<Vec<_>>() {
            if settled && let Some(target) = self.targets.get_mut(&address) {
                target.failures = 0;
            }
            // Even a settled one waits a moment: when a peer dies, all that knew it dial.
            self.count_failure(address, now);
            if self.targets.get(&address).is_some_and(|target| target.keep) {
                self.wait(address, now);
            } else {
                self.rest(address, now);
            }
        }
        links.all
    }

    pub(super) fn on_disconnected(&mut self, connection: ConnectionId, peer: PeerId, now: Time, actions: &mut Vec<Action>) {
        let Some(links) = self.peers.get_mut(&peer) else { return };
        let Some(index) = links.all.iter().position(|link| link.connection == connection) else { return };
        if links.all.len() == 1 {
            self.take_down(peer, now, actions);
            return;
        }
        links.all.remove(index);
        self.timers.cancel(&Key::Linger(connection, peer));
        self.choose(peer, actions);
        self.linger(peer, now, actions);
    }

    pub(super) fn on_linger_over(&mut self, connection: ConnectionId, peer: PeerId, actions: &mut Vec<Action>) {
        let Some(links) = self.peers.get_mut(&peer) else { return };
        links.all.retain(|link| link.connection != connection);
        actions.push(Action::Close { connection, code: CloseReason::Replaced });
    }

    /// Whether a connection was dialed by the smaller of the two identities.
    fn is_preferred(&self, peer: PeerId, link: &Link) -> bool {
        (link.direction == Direction::Outbound) == (self.myself < peer)
    }

    /// Moves to the connection that stays.
    fn choose(&mut self, peer: PeerId, actions: &mut Vec<Action>) {
        let Some(links) = self.peers.get(&peer) else { return };
        // Crossed dials: the smaller identity keeps its connection, or both sides would close one. Then the newest; the list is in order.
        let Some(best) = links.all.iter().max_by_key(|link| self.is_preferred(peer, link)) else { return };
        let (from, to) = (links.current, best.connection);
        if from != to
            && let Some(links) = self.peers.get_mut(&peer)
        {
            links.current = to;
            self.timers.cancel(&Key::Linger(to, peer));
            actions.push(Action::Replaced { peer, from, to });
        }
    }

    /// Sees to the end of the connections that do not stay.
    fn linger(&mut self, peer: PeerId, now: Time, actions: &mut Vec<Action>) {
        let Some(links) = self.peers.get(&peer) else { return };
        let Some(current) = links.all.iter().find(|link| link.connection == links.current) else { return };
        for link in links.all.iter().filter(|link| link.connection != links.current) {
            // Of two that the peer dialed, the peer says which one stays, by closing the other. This end only cleans up after a peer that
            // does not, and late enough not to close the one that the peer kept.
            let theirs = link.direction == Direction::Inbound && current.direction == Direction::Inbound;
            let linger = if theirs { self.config.linger.saturating_mul(5) } else { self.config.linger };
            self.timers.set_if_absent(Key::Linger(link.connection, peer), now + linger);
        }
        if links.all.len() > LINKS_MAX
            && let Some(oldest) = links.all.iter().map(|link| link.connection).find(|connection| *connection != links.current)
        {
            self.timers.cancel(&Key::Linger(oldest, peer));
            self.on_linger_over(oldest, peer, actions);
        }
    }
}
