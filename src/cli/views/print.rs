//! Views as people read them: tables.

use super::*;
use crate::cli::text::{Align, Table};

/// A view as people read it.
pub(in crate::cli) trait Printable {
    fn print(&self, width: Option<usize>) -> String;
}

impl Printable for Members {
    fn print(&self, width: Option<usize>) -> String {
        let mut table =
            Table::new(&[("member", Align::Left), ("address", Align::Left), ("status", Align::Left), ("incarnation", Align::Right)]);
        for member in &self.members {
            let status = format!("{}{}", printable(&member.status, 20), if member.this { " (this node)" } else { "" });
            table.row([short(&member.id), member.address.to_string(), status, member.incarnation.to_string()]);
        }
        table.render(width)
    }
}

impl Printable for Links {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            ("peer", Align::Left),
            ("address", Align::Left),
            ("dialed by", Align::Left),
            ("neighbor", Align::Left),
            ("rtt", Align::Right),
            ("sent", Align::Right),
            ("received", Align::Right),
            ("lost", Align::Right),
            ("queued", Align::Right),
        ]);
        for link in &self.links {
            table.row([
                short(&link.peer),
                link.address.to_string(),
                if link.direction == "outbound" { "us" } else { "peer" }.to_owned(),
                if link.neighbor { "yes" } else { "no" }.to_owned(),
                format!("{:.2} ms", link.rtt_ms),
                text::bytes(link.sent_bytes),
                text::bytes(link.received_bytes),
                format!("{}/{}", link.lost_packets, link.sent_packets),
                link.queued_frames.to_string(),
            ]);
        }
        table.render(width)
    }
}

impl Channels {
    /// All channels of all peers, after their sums.
    fn rows(&self) -> impl Iterator<Item = (String, &ChannelView)> {
        let all = self.channels.iter().map(|channel| ("all".to_owned(), channel));
        all.chain(self.peers.iter().flat_map(|peer| peer.channels.iter().map(|channel| (short(&peer.peer), channel))))
    }
}

impl Printable for Channels {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            ("peer", Align::Left),
            ("channel", Align::Left),
            ("sent", Align::Right),
            ("bytes", Align::Right),
            ("received", Align::Right),
            ("bytes", Align::Right),
            ("refused", Align::Right),
            ("dropped", Align::Right),
            ("waiting", Align::Right),
            ("most queued", Align::Right),
            ("waited p50", Align::Right),
            ("p99", Align::Right),
            ("max", Align::Right),
            ("busy", Align::Right),
            ("/write", Align::Right),
        ]);
        for (peer, channel) in self.rows() {
            table.row([
                peer,
                printable(&channel.channel, 20),
                channel.sent_frames.to_string(),
                text::bytes(channel.sent_bytes),
                channel.received_frames.to_string(),
                text::bytes(channel.received_bytes),
                channel.refused.to_string(),
                channel.dropped.to_string(),
                channel.waiting_frames.to_string(),
                channel.queued_frames_high.to_string(),
                wait(channel.waited.p50_ms),
                wait(channel.waited.p99_ms),
                wait(channel.waited.max_ms),
                format!("{:.1} %", channel.utilization * 100.0),
                format!("{:.1}", channel.frames_per_write),
            ]);
        }
        table.render(width)
    }
}

/// A wait for people: `0.041 ms`, `1234 ms`.
fn wait(milliseconds: f64) -> String {
    if milliseconds < 10.0 { format!("{milliseconds:.3} ms") } else { format!("{milliseconds:.0} ms") }
}

impl Printable for Lanes {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[
            ("peer", Align::Left),
            ("channel", Align::Left),
            ("lane", Align::Right),
            ("sent", Align::Right),
            ("bytes", Align::Right),
            ("received", Align::Right),
            ("bytes", Align::Right),
            ("dropped", Align::Right),
            ("waiting", Align::Right),
            ("state", Align::Left),
        ]);
        let mut changes = Table::new(&[
            ("peer", Align::Left),
            ("channel", Align::Left),
            ("at", Align::Right),
            ("lanes", Align::Left),
            ("bytes/s before", Align::Right),
            ("after", Align::Right),
            ("reason", Align::Left),
            ("outcome", Align::Left),
        ]);
        let mut has_changed = false;
        for (peer, channel) in self.0.rows() {
            for change in &channel.lane_changes {
                has_changed = true;
                changes.row([
                    peer.clone(),
                    printable(&channel.channel, 20),
                    format!("{:.1} s", change.at_s),
                    format!("{} -> {}", change.from, change.to),
                    text::bytes(change.before_bytes_per_second),
                    change.after_bytes_per_second.map(text::bytes).unwrap_or_default(),
                    printable(&change.reason, 20),
                    printable(&change.outcome, 20),
                ]);
            }
            for lane in &channel.lanes {
                table.row([
                    peer.clone(),
                    printable(&channel.channel, 20),
                    lane.lane.to_string(),
                    lane.sent_frames.to_string(),
                    text::bytes(lane.sent_bytes),
                    lane.received_frames.to_string(),
                    text::bytes(lane.received_bytes),
                    lane.dropped.to_string(),
                    lane.waiting_frames.to_string(),
                    match (lane.blocked, lane.lane < usize::from(channel.lanes_active)) {
                        (true, _) => "blocked".to_owned(),
                        (false, true) => "active".to_owned(),
                        (false, false) => String::new(),
                    },
                ]);
            }
        }
        let lanes = table.render(width);
        if has_changed { format!("{lanes}\n{}", changes.render(width)) } else { lanes }
    }
}

impl Printable for Topology {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("neighbor", Align::Left), ("address", Align::Left), ("rtt", Align::Right)]);
        for neighbor in &self.neighbors {
            table.row([
                short(&neighbor.peer),
                neighbor.address.map_or_else(|| "connecting".to_owned(), |address| address.to_string()),
                neighbor.rtt_ms.map(|rtt| format!("{rtt:.2} ms")).unwrap_or_default(),
            ]);
        }
        let (topology, neighbors, connections) = (printable(&self.topology, 20), self.neighbors.len(), self.connections);
        format!("{topology}, neighbors: {neighbors}, connections: {connections}\n\n{}", table.render(width))
    }
}

impl Printable for Health {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("status", Align::Left), (Self::heading(&self.status), Align::Left)]);
        let number = |count: Option<usize>| count.map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        for (name, value) in [
            ("cluster", printable(&self.cluster, 64)),
            ("node", short(&self.id)),
            ("address", self.address.to_string()),
            ("members", number(self.members)),
            ("neighbors", number(self.neighbors)),
            ("links", number(self.links)),
            ("keys", number(self.keys)),
            (
                "uptime",
                self.uptime_s
                    .map_or_else(|| "unknown".to_owned(), |seconds| text::duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12)))),
            ),
            ("stalls", self.stalls.map_or_else(|| "unknown".to_owned(), |stalls| stalls.to_string())),
            ("process", format!("{} (meshwork {})", self.pid, printable(&self.version, 20))),
        ] {
            table.row([name.to_owned(), value]);
        }
        if let Some(why) = &self.undurable {
            table.row(["state".to_owned(), format!("does not reach the disk: {}", printable(why, 400))]);
        }
        table.render(width)
    }
}

impl Health {
    /// The sentence beside a status.
    fn heading(status: &str) -> &'static str {
        match status {
            "ok" => "ok: it has neighbors",
            "alone" => "alone: it has not met another node yet",
            "isolated" => "isolated: it lost its last neighbor and looks for others",
            "stalled" => "stalled: its protocol thread does not turn",
            _ => "unknown",
        }
    }
}
