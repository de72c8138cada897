//! Standard input here to standard output there: `pipe` listens, `pipe PEER < file` sends. PEER is what the listener prints, or its beginning.

use meshwork::{ChannelId, Node};
use tokio::io::{AsyncWriteExt, copy, stderr, stdin, stdout};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("my-pipes").start().await?;
    if let Some(name) = std::env::args().nth(1) {
        let peer = loop {
            let members = node.members().await?;
            if let Some(member) = members.iter().find(|member| member.peer.to_string().starts_with(&name)) {
                break member.peer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        let mut stream = node.open_stream(peer, ChannelId::DATA).await?;
        copy(&mut stdin(), &mut stream).await?;
        stream.shutdown().await?;
        // The other side ends its direction when it has everything.
        copy(&mut stream, &mut stderr()).await?;
    } else {
        let mut streams = node.accept_streams(ChannelId::DATA).await?;
        eprintln!("pipe {} < file", node.id());
        if let Some(mut stream) = streams.accept().await {
            copy(&mut stream, &mut stdout()).await?;
            stdout().flush().await?;
            stream.shutdown().await?;
        }
    }
    node.leave().await;
    Ok(())
}
