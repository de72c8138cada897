//! A node in ten lines of `main`: run it twice.

use meshwork::Node;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("my-cluster").start().await?;
    println!("I am {} at {}", node.id().short(), node.address());
    let mut messages = node.subscribe();
    node.broadcast("hello from a newcomer").await?;
    while let Some(message) = messages.next().await {
        println!("{}: {}", message.id.origin.short(), String::from_utf8_lossy(&message.payload));
    }
    Ok(())
}
