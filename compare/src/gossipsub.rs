//! libp2p gossipsub over QUIC: a topic with two members.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::StreamExt;
use libp2p::gossipsub::{Behaviour, ConfigBuilder, Event, IdentTopic, MessageAuthenticity, MessageId, PublishError, ValidationMode};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, SwarmBuilder};
use tokio::time::sleep;

use crate::{Failure, Flow, Stop};

/// Messages published before the swarm may do its own work.
const BATCH: usize = 64;
/// How long a sender waits that was refused for lack of room.
const REFUSED: Duration = Duration::from_millis(1);

/// Who a message says it is from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// Nobody; it is told apart by the number in it.
    Anonymous,
    /// The sender, with a signature: the default of gossipsub.
    Signed,
}

fn swarm(author: Author) -> Result<Swarm<Behaviour>, Failure> {
    let mut config = ConfigBuilder::default();
    // It keeps what it sent for as many heartbeats in case somebody asks; nobody does here, and the least costs the least.
    config.heartbeat_initial_delay(Duration::from_millis(100)).history_length(2).history_gossip(1).max_transmit_size(131_072);
    if author == Author::Anonymous {
        config.validation_mode(ValidationMode::Anonymous);
        config.message_id_fn(|message| MessageId::from(message.data.first_chunk::<8>().copied().unwrap_or_default().to_vec()));
    }
    let config = config.build()?;
    let swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic()
        .with_behaviour(|key| {
            let authenticity = match author {
                Author::Anonymous => MessageAuthenticity::Anonymous,
                Author::Signed => MessageAuthenticity::Signed(key.clone()),
            };
            Ok(Behaviour::new(authenticity, config)?)
        })?
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
        .build();
    Ok(swarm)
}

pub(crate) async fn start(author: Author, flow: &Arc<Flow>) -> Result<Stop, Failure> {
    let topic = IdentTopic::new("compare");
    let (mut near, mut far) = (swarm(author)?, swarm(author)?);
    near.behaviour_mut().subscribe(&topic)?;
    far.behaviour_mut().subscribe(&topic)?;
    far.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse::<Multiaddr>()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = next(&mut far).await {
            break address.with(Protocol::P2p(*far.local_peer_id()));
        }
    };
    near.dial(address)?;

    let receiving = flow.clone();
    let counting = tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(Event::Message { message, .. }) = next(&mut far).await {
                receiving.count_delivered(u64::from(message.data.len() == receiving.size));
            }
        }
    });
    while !matches!(next(&mut near).await, SwarmEvent::Behaviour(Event::Subscribed { .. })) {}
    let flow = flow.clone();
    let sending = tokio::spawn(async move { send(near, &topic, &flow).await.unwrap_or_else(|error| flow.fail(error)) });
    Ok(Box::pin(async move {
        let _ = sending.await;
        counting.abort();
        let _ = counting.await;
    }))
}

async fn next(swarm: &mut Swarm<Behaviour>) -> SwarmEvent<Event> {
    swarm.next().await.expect("a swarm has no end")
}

async fn send(mut swarm: Swarm<Behaviour>, topic: &IdentTopic, flow: &Flow) -> Result<(), Failure> {
    let mut number = 0;
    while !flow.is_stopped() {
        let mut pause = Duration::ZERO;
        for _ in 0..BATCH {
            // One that was refused is held for seen: the next one has another number.
            number += 1;
            match swarm.behaviour_mut().publish(topic.hash(), flow.message(number)) {
                Ok(_) => flow.count_sent(),
                Err(PublishError::AllQueuesFull(_)) => {
                    pause = REFUSED;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let pause = async {
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
        };
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                _ = swarm.next() => {}
                () = &mut pause => break,
            }
        }
    }
    Ok(())
}
