//! Sources of addresses worth dialing. None of them ever says who is a member, and one that fails is not one that found nobody.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, ServiceDaemon, ServiceEvent, ServiceInfo};
use meshwork_channels::PeerId;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::node::Candidate;

/// The service type: nodes of every cluster share it and tell their own apart by the keyed tag.
const SERVICE: &str = "_meshwork._udp.local.";
/// After a failure the source starts again this much later.
const RETRY: Duration = Duration::from_secs(5);
/// Interfaces of containers and bridges, which lead nowhere from other machines.
const EXCLUDED: [&str; 4] = ["docker", "br-", "veth", "virbr"];

/// What a source found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: &'static str,
    pub(super) candidates: Vec<Candidate>,
}

/// Announces this node by mDNS (RFC 6762, RFC 6763) and finds others of the same cluster on the local network, until the receiver is gone.
///
/// The record carries the id of the node and the keyed tag of the cluster, never its name or secret.
pub(super) async fn mdns(me: PeerId, listening: SocketAddr, tag: String, found: mpsc::Sender<Found>) {
    loop {
        match announce_and_browse(me, listening, &tag, &found).await {
            Ok(()) => return,
            Err(error) => warn!(%error, "mDNS failed; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = found.closed() => return,
        }
    }
}

async fn announce_and_browse(me: PeerId, listening: SocketAddr, tag: &str, found: &mpsc::Sender<Found>) -> Result<(), mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    let daemon = Daemon(daemon);
    let leads_nowhere = IfPredicate::new(|interface| EXCLUDED.iter().any(|prefix| interface.name.starts_with(prefix)));
    daemon.0.disable_interface(IfKind::Predicate(leads_nowhere))?;
    let events = daemon.0.browse(SERVICE)?;
    let instance = me.short();
    let properties = [("v", "1"), ("c", tag), ("id", &me.to_string())];
    let host = format!("{instance}.local.");
    // The socket's own port: an advertised address may be one of another machine that forwards to this one.
    let port = listening.port();
    let info = if listening.ip().is_unspecified() {
        ServiceInfo::new(SERVICE, &instance, &host, "", port, &properties[..])?.enable_addr_auto()
    } else {
        ServiceInfo::new(SERVICE, &instance, &host, listening.ip(), port, &properties[..])?
    };
    daemon.0.register(info)?;
    loop {
        let event = tokio::select! {
            event = events.recv_async() => event,
            () = found.closed() => return Ok(()),
        };
        // The subscription ends in silence when its queue overflowed: browse again.
        let Ok(event) = event else { return Err(mdns_sd::Error::Msg("the subscription ended".into())) };
        let ServiceEvent::ServiceResolved(service) = event else { continue };
        if service.get_property_val_str("c") != Some(tag) {
            continue;
        }
        let Some(peer) = service.get_property_val_str("id").and_then(|id| id.parse::<PeerId>().ok()) else { continue };
        if peer == me {
            continue;
        }
        let port = service.get_port();
        let candidates: Vec<Candidate> = service
            .get_addresses()
            .iter()
            .map(mdns_sd::ScopedIp::to_ip_addr)
            .filter(usable)
            .take(8)
            .map(|ip| Candidate { address: SocketAddr::new(ip, port), peer: Some(peer), keep: false })
            .collect();
        debug!(peer = %peer.short(), addresses = candidates.len(), "found by mDNS");
        if !candidates.is_empty() && found.send(Found { source: "mdns", candidates }).await.is_err() {
            return Ok(());
        }
    }
}

/// The node listens on IPv4; a link-local IPv6 address would need a scope besides.
fn usable(ip: &IpAddr) -> bool {
    ip.is_ipv4() && !ip.is_unspecified() && !ip.is_multicast()
}

/// Stops the daemon's thread when the source ends.
struct Daemon(ServiceDaemon);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.shutdown();
    }
}
