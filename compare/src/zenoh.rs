//! Zenoh over QUIC: a publisher that waits when there is no room, batches, and sends reliably; a subscriber with a callback.

use std::sync::Arc;

use ::zenoh::bytes::ZBytes;
use ::zenoh::qos::CongestionControl;
use ::zenoh::{Config, Wait};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Failure, Flow, Stop, free_port};

const TOPIC: &str = "compare/messages";

/// What both ends have in common: each finds the other in no way but by its address.
fn config() -> Result<Config, Failure> {
    let mut config = Config::default();
    config.insert_json5("mode", "\"peer\"")?;
    config.insert_json5("scouting/multicast/enabled", "false")?;
    config.insert_json5("listen/endpoints", "[]")?;
    Ok(config)
}

pub(crate) async fn start(flow: &Arc<Flow>) -> Result<Stop, Failure> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let base64 = |text: String| format!("\"{}\"", STANDARD.encode(text));
    let endpoint = format!("[\"quic/localhost:{}\"]", free_port()?);

    let mut far = config()?;
    far.insert_json5("listen/endpoints", &endpoint)?;
    far.insert_json5("transport/link/tls/listen_certificate_base64", &base64(certified.cert.pem()))?;
    far.insert_json5("transport/link/tls/listen_private_key_base64", &base64(certified.signing_key.serialize_pem()))?;
    let far = ::zenoh::open(far).await?;
    let receiving = flow.clone();
    let subscriber = far
        .declare_subscriber(TOPIC)
        .callback(move |sample| receiving.count_delivered(u64::from(sample.payload().len() == receiving.size)))
        .await?;

    let mut near = config()?;
    near.insert_json5("connect/endpoints", &endpoint)?;
    near.insert_json5("transport/link/tls/root_ca_certificate_base64", &base64(certified.cert.pem()))?;
    let near = ::zenoh::open(near).await?;
    let publisher = near.declare_publisher(TOPIC).congestion_control(CongestionControl::Block).express(false).await?;
    let flow = flow.clone();
    // Its publisher blocks the thread when there is no room.
    let sending = tokio::task::spawn_blocking(move || {
        let payload = ZBytes::from(vec![7; flow.size]);
        while !flow.is_stopped() {
            match publisher.put(payload.clone()).wait() {
                Ok(()) => flow.count_sent(),
                Err(error) => return flow.fail(error),
            }
        }
    });
    Ok(Box::pin(async move {
        let _ = sending.await;
        let _ = near.close().await;
        let _ = subscriber.undeclare().await;
        let _ = far.close().await;
    }))
}
