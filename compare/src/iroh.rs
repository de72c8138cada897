//! iroh-gossip on iroh endpoints without relays and discovery: `broadcast` on a topic with two members.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::iroh::address_lookup::memory::MemoryLookup;
use ::iroh::endpoint::presets;
use ::iroh::protocol::Router;
use ::iroh::{Endpoint, EndpointAddr};
use futures_lite::StreamExt;
use iroh_gossip::api::{Event, GossipReceiver, GossipSender, JoinOptions};
use iroh_gossip::net::Gossip;
use iroh_gossip::proto::TopicId;
use tokio::time::sleep;

use crate::{Failure, Flow, Stop};

/// Messages under way when it is paced: it loses messages when a subscriber is 256 behind.
pub(crate) const UNDER_WAY_MAX: u64 = 192;
/// How long it waits before it looks again; so many messages in a millisecond are more than it can carry.
const LOOK: Duration = Duration::from_millis(1);
/// What has not arrived after this time is lost.
const LOST: Duration = Duration::from_millis(200);
/// It may hold so many events for us.
const EVENTS_MAX: usize = 65_536;
/// More than any message here with its frame.
const MESSAGE_BYTES_MAX: usize = 65_536;

async fn node(lookup: &MemoryLookup) -> Result<(Router, Gossip), Failure> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .clear_relay_transports()
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
        .address_lookup(lookup.clone())
        .bind()
        .await?;
    let gossip = Gossip::builder().max_message_size(MESSAGE_BYTES_MAX).spawn(endpoint.clone());
    let router = Router::builder(endpoint).accept(iroh_gossip::ALPN, gossip.clone()).spawn();
    Ok((router, gossip))
}

/// Without `under_way_max`, nothing but the queues of iroh-gossip itself holds the sender back.
pub(crate) async fn start(under_way_max: Option<u64>, flow: &Arc<Flow>) -> Result<Stop, Failure> {
    let lookup = MemoryLookup::new();
    let (near, near_gossip) = node(&lookup).await?;
    let (far, far_gossip) = node(&lookup).await?;
    for router in [&near, &far] {
        let sockets = router.endpoint().bound_sockets();
        lookup.add_endpoint_info(sockets.into_iter().fold(EndpointAddr::new(router.endpoint().id()), EndpointAddr::with_ip_addr));
    }
    let topic = TopicId::from_bytes([7; 32]);
    let options = |bootstrap: Vec<_>| JoinOptions { bootstrap: bootstrap.into_iter().collect(), subscription_capacity: EVENTS_MAX };
    let far_topic = far_gossip.subscribe_with_opts(topic, options(vec![])).await?;
    let mut near_topic = near_gossip.subscribe_with_opts(topic, options(vec![far.endpoint().id()])).await?;
    near_topic.joined().await?;

    let (far_sender, receiver) = far_topic.split();
    let receiving = flow.clone();
    let counting = tokio::spawn(async move { count(receiver, &receiving).await.unwrap_or_else(|error| receiving.fail(error)) });
    let (sender, mut near_events) = near_topic.split();
    // Somebody must take them.
    let draining = tokio::spawn(async move { while near_events.next().await.is_some() {} });
    let flow = flow.clone();
    let sending = tokio::spawn(async move { send(sender, under_way_max, &flow).await.unwrap_or_else(|error| flow.fail(error)) });
    Ok(Box::pin(async move {
        let _ = sending.await;
        counting.abort();
        draining.abort();
        let _ = near.shutdown().await;
        let _ = far.shutdown().await;
        drop(far_sender);
    }))
}

async fn send(sender: GossipSender, under_way_max: Option<u64>, flow: &Flow) -> Result<(), Failure> {
    let (mut number, mut lost) = (0, 0);
    while !flow.is_stopped() {
        if let Some(under_way_max) = under_way_max {
            let since = Instant::now();
            let seen = flow.delivered();
            while flow.sent() - lost - flow.delivered() >= under_way_max {
                if flow.delivered() == seen && since.elapsed() > LOST {
                    lost = flow.sent() - flow.delivered();
                }
                sleep(LOOK).await;
            }
        }
        sender.broadcast(flow.message(number).into()).await?;
        number += 1;
        flow.count_sent();
    }
    Ok(())
}

async fn count(mut receiver: GossipReceiver, flow: &Flow) -> Result<(), Failure> {
    while let Some(event) = receiver.next().await {
        if let Event::Received(message) = event? {
            flow.count_delivered(u64::from(message.content.len() == flow.size));
        }
    }
    Ok(())
}
