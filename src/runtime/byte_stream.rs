//! Byte streams between the applications of two nodes.

use meshwork_channels::quic::{ByteStream, Link, OpenError, StreamListener};
use meshwork_channels::{ChannelId, PeerId};

use super::{Command, Error, Node};

/// A link may end while a stream is opened on it, because both sides dialed at once and the other link stays: so often it is tried again.
const ATTEMPTS: usize = 3;

impl Node {
    /// Opens a byte stream to whoever takes them on this channel at a peer, dialing it if need be. Both sides send and read as on a TCP connection, encrypted, and with a flow control of its
    /// own: a stream that nobody reads holds 2 MiB ([`limits::STREAM_WINDOW_BYTES`](meshwork_channels::limits::STREAM_WINDOW_BYTES)) and delays nothing else. On a
    /// channel for bulk, such as `data`, it uses the connection for bulk, which gives way to urgent messages; for little that must not wait there is `coordination`.
    ///
    /// Done when the peer answers. Waits while the peer holds as many streams of this node as it may: 16 on channels for what is urgent, 48 on those for bulk. Safe to cancel.
    ///
    /// ```no_run
    /// # async fn run(node: meshwork::Node, peer: meshwork::PeerId) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::pin::Pin;
    /// use tokio::io::AsyncWrite;
    ///
    /// let mut stream = node.open_stream(peer, meshwork::ChannelId::DATA).await?;
    /// // Or shorter, with tokio's `AsyncWriteExt`: `stream.write_all(…)` and `stream.shutdown()`.
    /// std::future::poll_fn(|context| Pin::new(&mut stream).poll_write(context, b"hello")).await?;
    /// std::future::poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when there is no such peer or no such channel for applications, [`Error::Call`] when the peer cannot be reached, [`Error::Stream`] when it takes no streams on that channel or
    /// too many are open, [`Error::Stopped`]. There is no stream then.
    pub async fn open_stream(&self, peer: PeerId, channel: ChannelId) -> Result<ByteStream, Error> {
        let mut attempts = ATTEMPTS;
        loop {
            let link: Link = self.ask(|reply| Command::Connect { to: peer, channel, reply }).await??;
            attempts -= 1;
            match link.open_stream(channel).await {
                Err(OpenError::Closed(_)) if attempts > 0 => {}
                opened => return opened.map_err(Error::Stream),
            }
        }
    }

    /// Takes the byte streams that other nodes open to this one on a channel. A later call takes over from an earlier one; peers that open streams on a channel that nobody takes are told so. At
    /// most 64 streams of one peer are open at a time, and 1,024 of all ([`limits::BYTE_STREAMS_MAX`](meshwork_channels::limits::BYTE_STREAMS_MAX)), those that wait here included.
    ///
    /// # Errors
    ///
    /// [`Error::Send`] when there is no such channel for applications, [`Error::Stopped`].
    pub async fn accept_streams(&self, channel: ChannelId) -> Result<StreamListener, Error> {
        self.ask(|reply| Command::AcceptStreams { channel, reply }).await?
    }
}
