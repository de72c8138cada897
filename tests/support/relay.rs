//! A path between two sockets that loses one packet in ten.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::net::UdpSocket;

/// Whether paths lose, and how much they did.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    pub(crate) is_on: AtomicBool,
    pub(crate) packets: AtomicU32,
}

/// The near end of a path, and its address.
pub(crate) async fn door() -> (UdpSocket, SocketAddr) {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = near.local_addr().unwrap();
    (near, address)
}

/// Passes packets between whoever sends to the near end and one address. Every tenth is lost while the loss is on.
pub(crate) async fn pass(near: UdpSocket, to: SocketAddr, loss: Arc<Loss>) {
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut here, mut there) = ([0; 65_536], [0; 65_536]);
    let (mut dialer, mut count) = (None, 0_u32);
    loop {
        let (socket, packet, target) = tokio::select! {
            Ok((len, from)) = near.recv_from(&mut here) => {
                dialer = Some(from);
                (&far, &here[..len], to)
            }
            Ok((len, _)) = far.recv_from(&mut there) => match dialer {
                Some(dialer) => (&near, &there[..len], dialer),
                None => continue,
            },
        };
        count += 1;
        if loss.is_on.load(Ordering::Relaxed) && count % 10 == 0 {
            loss.packets.fetch_add(1, Ordering::Relaxed);
        } else {
            let _ = socket.send_to(packet, target).await;
        }
    }
}
