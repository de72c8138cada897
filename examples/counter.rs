//! A counter that all nodes share: each adds one every second, and every node shows the sum. Nothing that two nodes add at the same time is lost, nor what they
//! add while they are cut off from each other. Run it several times.

use std::time::Duration;

use meshwork::Node;
use meshwork::crdt::{Op, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("counter").start().await?;
    let mut changes = node.state().watch("count").await?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => drop(node.state().apply("count", Op::Add(1)).await?),
            change = changes.next() => {
                let Some(change) = change else { return Ok(()) };
                if let Some(Value::Count(sum)) = change.value {
                    println!("{sum}");
                }
            }
            _ = tokio::signal::ctrl_c() => {
                node.leave().await;
                return Ok(());
            }
        }
    }
}
