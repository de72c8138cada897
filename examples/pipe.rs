//! Standard input here to standard output there: `pipe` listens, `pipe PEER < file` sends. PEER is what the listener prints, or its beginning.
#![expect(clippy::disallowed_methods, reason = "a program reads its arguments and its input")]

use std::io::{Read, Write, stdin, stdout};

use meshwork::{ChannelId, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("my-pipes").start().await?;
    let mut bytes = vec![0; 16 * 1_024];
    if let Some(name) = std::env::args().nth(1) {
        let mut events = node.events();
        let peer = loop {
            let members = node.members().await?;
            if let Some(member) = members.iter().find(|member| member.peer.to_string().starts_with(&name)) {
                break member.peer;
            }
            events.next().await;
        };
        let mut stream = node.open_stream(peer, ChannelId::DATA).await?;
        while let count @ 1.. = stdin().read(&mut bytes)? {
            stream.write_all(&bytes[..count]).await?;
        }
        stream.shutdown().await?;
        // The other side ends its direction when it has everything.
        stream.read_to_end(&mut Vec::new()).await?;
    } else {
        let mut streams = node.accept_streams(ChannelId::DATA).await?;
        eprintln!("pipe {} < file", node.id());
        let mut stream = streams.accept().await.ok_or("the node has stopped")?;
        while let count @ 1.. = stream.read(&mut bytes).await? {
            stdout().write_all(&bytes[..count])?;
        }
        stream.shutdown().await?;
    }
    node.leave().await;
    Ok(())
}
