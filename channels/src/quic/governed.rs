//! The [`governor`](crate::governor) as the congestion controller of a connection.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory};
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
    Some(controller.into_any().downcast::<Governor>().ok()?.state.report())
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

    use quinn::congestion::CubicConfig;

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
}
