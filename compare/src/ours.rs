//! Meshwork, through its public interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use meshwork::channels::ClusterSecret;
use meshwork::channels::quic::system_random;
use meshwork::runtime::{Receiver, Sender};
use meshwork::{ChannelId, Error, Node};
use tokio::task::JoinSet;

use crate::{Failure, Flow, Stop, free_port};

/// Tasks that broadcast: each waits until the node has taken its message.
pub(crate) const PRODUCERS: usize = 16;
/// Messages taken at once.
const TAKEN_MAX: usize = 1_024;
/// From here on a message is handed over whole, as a program would.
const WHOLE_BYTES: usize = 16 * 1_024;

/// How large packets get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    /// As large as loopback carries them well: what nodes do that listen there.
    Large,
    /// As on an ordinary network: what nodes do that listen on all interfaces.
    Small,
}

async fn nodes(packets: Packets) -> Result<(Node, Node), Failure> {
    let mut secret = [0; 32];
    system_random(&mut secret)?;
    let start = async |join: Option<SocketAddr>| {
        let builder = Node::builder("compare").secret(ClusterSecret::from_bytes(secret)).mdns(false);
        let builder = match packets {
            Packets::Large => builder.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            Packets::Small => {
                let port = free_port()?;
                let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                builder.listen(everywhere).advertise(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            }
        };
        let builder = join.into_iter().fold(builder, |builder, address| builder.join(address.to_string()));
        Ok::<_, Failure>(builder.start().await?)
    };
    let far = start(None).await?;
    let near = start(Some(far.address())).await?;
    // Whoever sends must know the other.
    while near.report().await?.links.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok((near, far))
}

fn stop(near: Node, far: Node, mut tasks: JoinSet<()>) -> Stop {
    Box::pin(async move {
        near.kill().await;
        far.kill().await;
        tasks.shutdown().await;
    })
}

/// A channel to one peer.
pub(crate) async fn channel(packets: Packets, flow: &Arc<Flow>) -> Result<Stop, Failure> {
    let (near, far) = nodes(packets).await?;
    let receiver = far.receiver(ChannelId::DATA).await?;
    let sender = near.sender(far.id(), ChannelId::DATA).await?;
    let mut tasks = JoinSet::new();
    let receiving = flow.clone();
    tasks.spawn(async move { count(receiver, &receiving).await });
    let flow = flow.clone();
    tasks.spawn(async move { send(sender, &flow).await.unwrap_or_else(|error| flow.fail(error)) });
    Ok(stop(near, far, tasks))
}

async fn send(mut sender: Sender, flow: &Flow) -> Result<(), Error> {
    let payload = Bytes::from(vec![7; flow.size]);
    while !flow.is_stopped() {
        if payload.len() >= WHOLE_BYTES {
            sender.send_bytes(payload.clone()).await?;
        } else {
            sender.send(&payload).await?;
        }
        flow.count_sent();
    }
    Ok(())
}

async fn count(mut receiver: Receiver, flow: &Flow) {
    let mut taken = Vec::with_capacity(TAKEN_MAX);
    while receiver.recv_many(&mut taken, TAKEN_MAX).await > 0 {
        let whole = taken.iter().filter(|message| message.payload.len() == flow.size);
        flow.count_delivered(whole.count() as u64);
        taken.clear();
    }
}

/// Broadcast to the cluster.
pub(crate) async fn broadcast(flow: &Arc<Flow>) -> Result<Stop, Failure> {
    let (near, far) = nodes(Packets::Large).await?;
    let mut subscription = far.subscribe();
    let mut tasks = JoinSet::new();
    let receiving = flow.clone();
    tasks.spawn(async move {
        while let Some(delivery) = subscription.next().await {
            receiving.count_delivered(u64::from(delivery.payload.len() == receiving.size));
        }
    });
    for _ in 0..PRODUCERS {
        let (node, flow) = (near.clone(), flow.clone());
        tasks.spawn(async move {
            let payload = Bytes::from(vec![7; flow.size]);
            while !flow.is_stopped() {
                match node.broadcast(payload.clone()).await {
                    Ok(_) => flow.count_sent(),
                    Err(error) => return flow.fail(error),
                }
            }
        });
    }
    Ok(stop(near, far, tasks))
}
