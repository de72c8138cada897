//! The [`governor`](crate::governor) as the congestion controller of a connection.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory, CubicConfig};
use quinn_proto::RttEstimator;

use crate::governor::{Params, Report, State};
use crate::time::Time;

/// Makes the governors of an endpoint's bulk connections: `transport.congestion_controller_factory(Arc::new(governed))`.
///
/// One serves all of them, so that their clocks have one origin: governors that share a line measure it at the same moment.
#[derive(Clone, Debug)]
pub struct Governed {
    params: Params,
    origin: Instant,
}

impl Governed {
    /// Governors with these parameters. `origin` is any moment before the first connection, the same for all that may share a line.
    pub fn new(params: Params, origin: Instant) -> Self {
        Governed { params, origin }
    }

    /// What the governor of a connection knows; `None` when the connection has another congestion controller.
    pub fn report(connection: &Connection) -> Option<Report> {
        report(connection.congestion_state())
    }
}

impl ControllerFactory for Governed {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mut state = State::new(self.params.clone(), time(self.origin, now));
        state.on_packet_bytes(current_mtu.into());
        Box::new(Governor { state, window_initial: self.params.window_initial(), origin: self.origin })
    }
}

fn report(controller: Box<dyn Controller>) -> Option<Report> {
    match controller.into_any().downcast::<Governor>() {
        Ok(governor) => Some(governor.state.report()),
        Err(other) => report(other.downcast::<Accepted>().ok()?.inner),
    }
}

/// Makes the congestion controllers of accepted connections. Whether one is the second of a link is known only after its handshake, when it has its controller already: so that
/// one is Cubic until [`govern`] turns it into a governor.
#[derive(Debug)]
pub(super) struct Accepting(pub(super) Arc<Governed>);

impl ControllerFactory for Accepting {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(Accepted { inner, governed: self.0.clone(), mtu: current_mtu, is_wanted: Arc::default(), is_governed: false })
    }
}

/// Has an accepted connection governed from its next packet on: byte streams answer on the second connection of a peer, and shall delay what is urgent no more than those that it sends.
pub(super) fn govern(connection: &Connection) {
    if let Ok(accepted) = connection.congestion_state().into_any().downcast::<Accepted>() {
        accepted.is_wanted.store(true, Ordering::Relaxed);
    }
}

struct Accepted {
    inner: Box<dyn Controller>,
    governed: Arc<Governed>,
    mtu: u16,
    /// Shared by all clones.
    is_wanted: Arc<AtomicBool>,
    is_governed: bool,
}

impl Accepted {
    fn decide(&mut self, now: Instant) {
        if !self.is_governed && self.is_wanted.load(Ordering::Relaxed) {
            self.is_governed = true;
            self.inner = self.governed.clone().build(now, self.mtu);
        }
    }
}

impl Controller for Accepted {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.decide(now);
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Accepted { inner, governed, mtu, is_wanted, is_governed } = self;
        let (inner, governed, is_wanted) = (inner.clone_box(), governed.clone(), is_wanted.clone());
        Box::new(Accepted { inner, governed, mtu: *mtu, is_wanted, is_governed: *is_governed })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn time(origin: Instant, at: Instant) -> Time {
    let elapsed = at.saturating_duration_since(origin);
    Time::from_nanos(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

#[derive(Clone)]
struct Governor {
    state: State,
    window_initial: u64,
    origin: Instant,
}

impl Controller for Governor {
    // The estimate is smoothed, and contains what a busy processor adds; the core makes its own from single samples. A sample of a lone
    // packet
    // contains up to 25 ms of delayed acknowledgment, but the smallest of a round that filled the window does not.
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _rtt: &RttEstimator) {
        self.state.on_ack(bytes, time(self.origin, sent), app_limited, time(self.origin, now));
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.state.on_loss(lost_bytes, time(self.origin, sent), is_persistent_congestion, time(self.origin, now));
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.state.on_packet_bytes(new_mtu.into());
    }

    fn window(&self) -> u64 {
        self.state.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.window_initial
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_starts_as_configured_reports_and_reacts() {
        let origin = Instant::now();
        let governed = Arc::new(Governed::new(Params::default(), origin));
        let mut governor = governed.build(origin, 1_200);
        assert_eq!(governor.window(), Params::default().window_initial());
        assert_eq!(governor.initial_window(), governor.window());
        // Moments before the origin are the origin.
        let before = origin.checked_sub(Duration::from_secs(1)).unwrap_or(origin);
        governor.on_congestion_event(before, before, true, 100_000);
        assert!(governor.window() < governor.initial_window());
        governor.on_mtu_update(u16::MAX);
        assert_eq!(governor.window(), 2 * u64::from(u16::MAX), "two packets at least");
        assert_eq!(report(governor.clone_box()).unwrap().window, governor.window());
        let cubic = Arc::new(CubicConfig::default()).build(origin, 1_200);
        assert_eq!(report(cubic), None);
    }

    #[test]
    fn an_accepted_connection_is_governed_when_that_is_wanted() {
        let origin = Instant::now();
        let accepting = Arc::new(Accepting(Arc::new(Governed::new(Params::default(), origin))));
        let mut controller = accepting.build(origin, 1_200);
        controller.on_sent(origin, 1_200, 0);
        assert_eq!(report(controller.clone_box()), None);
        // As `govern` does, through a clone.
        let clone = controller.clone_box().into_any().downcast::<Accepted>().ok().unwrap();
        clone.is_wanted.store(true, Ordering::Relaxed);
        assert_eq!(report(controller.clone_box()), None, "from the next packet on");
        controller.on_mtu_update(1_400);
        controller.on_sent(origin, 1_200, 1);
        assert_eq!(controller.window(), Params::default().window_initial());
        controller.on_mtu_update(u16::MAX);
        assert_eq!(report(controller.clone_box()).unwrap().window, 2 * u64::from(u16::MAX));
        controller.on_sent(origin, 1_200, 2);
        assert_eq!(controller.window(), 2 * u64::from(u16::MAX), "it changes once");
    }
}
