//! Addresses: one way to write each, and which of them can be a node's.

use std::net::{IpAddr, SocketAddr};

/// One form for each address: IPv4 inside IPv6, as a socket for both families shows it, is IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        // As it is: a link-local address is nothing without its scope.
        IpAddr::V6(_) => address,
    }
}

/// Whether one node can be behind the address. Addresses come from strangers too, and nobody shall use us to reach many.
pub(crate) fn is_dialable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_addresses_are_no_node() {
        for address in ["127.0.0.1:0", "0.0.0.0:7", "224.0.0.1:7", "255.255.255.255:7", "[ff02::1]:7", "[::]:7", "[::ffff:224.0.0.1]:7"] {
            assert!(!is_dialable(address.parse().unwrap()), "{address}");
        }
        assert!(is_dialable("127.0.0.1:7".parse().unwrap()));
        assert!(is_dialable("[2001:db8::1]:7".parse().unwrap()));
    }

    #[test]
    fn an_address_has_one_form() {
        let form = |address: &str| canonical(address.parse().unwrap()).to_string();
        assert_eq!(form("[::ffff:192.0.2.1]:7"), "192.0.2.1:7");
        assert_eq!(form("192.0.2.1:7"), "192.0.2.1:7");
        assert_eq!(form("[fe80::1%3]:7"), "[fe80::1%3]:7");
    }
}
