//! Which broadcast a frame carries. Nodes count the payloads that reach them, without a word of which; the world sees the bytes, and a payload stands at the end of its frame.

use bytes::Bytes;
use meshwork_channels::ChannelId;

use super::World;
use crate::host::{Connection, Host, Input};

impl<H: Host> World<H> {
    /// From now on payloads are counted for [`carried`](Self::carried), which takes a look at every frame.
    pub fn count_payloads(&mut self) {
        self.carried = vec![0; self.payloads.len()];
    }

    /// By broadcast: how many payloads of it nodes have received since they are counted, the needed ones included; all 0 for nodes that do not count them.
    pub fn carried(&self) -> &[u32] {
        &self.carried
    }

    /// Hands a frame to a node, and counts the payload in it if the node does.
    pub(super) fn feed_frame(&mut self, node: u32, connection: Connection, channel: ChannelId, bytes: Bytes) {
        if self.carried.is_empty() {
            return self.feed(node, Input::Frame { connection, channel, bytes });
        }
        let payloads = |world: &Self| world.host(node).map_or(0, |host| host.tally().payloads_received);
        let carried = self.broadcast_in(&bytes).map(|message| (message, payloads(self)));
        self.feed(node, Input::Frame { connection, channel, bytes });
        if let Some((message, before)) = carried
            && payloads(self) > before
        {
            self.carried[message] += 1;
        }
    }

    /// The broadcast whose payload a frame ends with.
    fn broadcast_in(&self, frame: &[u8]) -> Option<usize> {
        let payload = frame.get(frame.len().checked_sub(self.setup.payload_bytes)?..)?;
        let message = usize::try_from(u64::from_le_bytes(*payload.first_chunk()?)).ok()?;
        matches!(self.payloads.get(message), Some(Some(sent)) if sent == payload).then_some(message)
    }
}
