//! A counter that all nodes share: each node counts under a key of its own, and every node shows the sum. Run it several times.
//!
//! A key for each node, because the last writer of a key wins: two nodes that write the same key at once would lose a count.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork::Node;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("counter").start().await?;
    let mine = format!("count/{}", node.id().short());
    println!("I count under {mine}");

    let mut changes = node.state().watch("count/").await?;
    let mut counts = BTreeMap::new();
    let mut count = 0_u64;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => {
                count += 1;
                node.state().set(mine.clone(), count.to_string()).await?;
            }
            change = changes.next() => {
                let Some(change) = change else { return Ok(()) };
                let value = change.value.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
                counts.insert(change.key, value.unwrap_or(0));
                println!("{} from {} nodes", counts.values().sum::<u64>(), counts.len());
            }
            _ = tokio::signal::ctrl_c() => {
                node.leave().await;
                return Ok(());
            }
        }
    }
}
