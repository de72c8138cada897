//! What the schedule has nodes do; what it does to them is in `faults`.

use std::net::SocketAddr;

use bytes::Bytes;
use meshwork_channels::random::hash;

use super::{Arrival, Sight, World, key_name, numbered};
use crate::host::{self, Birth, Host, Input, Plant};
use crate::network::{Cut, Weather};
use crate::schedule::Happening;

impl<H: Host> World<H> {
    pub(super) fn on_entry(&mut self, index: usize) {
        let what = self.schedule.entries()[index].what.clone();
        let name = what.name();
        let effective = match what {
            Happening::Start { node, contacts } => self.start(node, &contacts, false, false),
            Happening::Restart { node, contacts, moved, remembers } => {
                self.slots[node as usize].life > 0 && self.start(node, &contacts, moved, remembers)
            }
            Happening::Crash { node } => self.stop(node),
            Happening::Strike { aim, count, spared } => self.strike(aim, count, spared),
            Happening::Leave { node } => self.leave(node),
            Happening::Pause { node, micros } => self.pause(node, micros),
            Happening::Slow { node, micros, until } => self.slow(node, micros, until),
            Happening::Break { node } => self.break_all(node),
            Happening::Partition { until, groups, bridges, one_way } => {
                self.cut(Cut::new(self.setup.nodes, &groups, &bridges, one_way, self.now, until))
            }
            Happening::Clog { until, nodes } => self.cut(Cut::clog(self.setup.nodes, &nodes, self.now, until)),
            Happening::Weather { until, mut nodes, loss, late } => {
                nodes.sort_unstable();
                self.network.worsen(Weather { until, loss: f64::from(loss) / 1_000.0, late, nodes }, self.now);
                true
            }
            Happening::Clock { node, jump, drift } => self.set_clock(node, jump, drift),
            Happening::Attack { node, frames } => self.attack(node, frames),
            Happening::Calm => {
                self.network.calm();
                true
            }
            Happening::Broadcast { node, message } => self.broadcast(node, message),
            Happening::Send { node, to, message } => self.send(node, to, message),
            Happening::Write { node, key, write } => self.write(node, key, write),
            Happening::Remove { node, key } => self.remove(node, key),
            Happening::Tell { node, input } => self.tell(node, input),
        };
        if effective {
            *self.happened.entry(name).or_default() += 1;
        }
    }

    fn start(&mut self, node: u32, contacts: &[u32], moved: bool, remembers: bool) -> bool {
        let now = self.now;
        let clock = self.clock(node);
        let plant = self.setup.plant.filter(|(planted, _)| *planted == node).map(|(_, plant)| plant);
        let slot = &mut self.slots[node as usize];
        if slot.host.is_some() {
            return false;
        }
        slot.life += 1;
        slot.moves += u16::from(moved);
        slot.wake = u64::MAX;
        slot.paused_until = now;
        slot.slow_until = 0;
        slot.leaving = false;
        let remembered = std::mem::take(&mut slot.remembered);
        let birth = Birth {
            index: node,
            peer: self.peers[node as usize],
            incarnation: if plant == Some(Plant::StaleIncarnation) { 1 } else { u64::from(slot.life) },
            address: host::address(node, slot.moves),
            seed: hash(&[self.setup.seed, 0x6e6f_6465, u64::from(node), u64::from(slot.life)]),
            plant,
        };
        slot.host = Some(H::start(&birth, &self.params, clock));
        self.see(node, Sight::Started);
        // What people configure is an address, so a contact that moved is looked for where it was first.
        let mut contacts: Vec<SocketAddr> = contacts.iter().map(|contact| host::address(*contact, 0)).collect();
        if remembers {
            contacts.extend(remembered);
        }
        if contacts.is_empty() {
            self.arm(node);
        } else {
            self.feed(node, Input::Discovered(contacts));
        }
        true
    }

    fn leave(&mut self, node: u32) -> bool {
        let slot = &mut self.slots[node as usize];
        if slot.host.is_none() || slot.leaving {
            return false;
        }
        slot.leaving = true;
        let life = slot.life;
        self.call(node, |host, now, scratch, effects| host.leave(now, scratch, effects));
        self.push(node, node, self.now + 1_000_000, Arrival::Stop { life });
        true
    }

    fn broadcast(&mut self, node: u32, message: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let payload = numbered(self.setup.seed, u64::from(message), self.setup.payload_bytes);
        if let Some(place) = self.payloads.get_mut(message as usize) {
            *place = Some(payload.clone());
        }
        // Before the node acts, so that its own delivery, if it makes one, comes after.
        self.see(node, Sight::Sent { message });
        let accepted = self.call(node, |host, now, scratch, effects| host.broadcast(payload, now, scratch, effects));
        if !accepted {
            self.seen.retain(|seen| seen.what != Sight::Sent { message });
        }
        accepted
    }

    fn send(&mut self, node: u32, to: u32, message: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let payload = self.direct(message);
        let to = self.peers[to as usize];
        let accepted = self.call(node, |host, now, scratch, effects| host.send_guaranteed(to, payload, now, scratch, effects));
        if accepted {
            self.see(node, Sight::Accepted { message });
        }
        accepted
    }

    /// The payload of a message to one node.
    pub(super) fn direct(&self, message: u32) -> Bytes {
        numbered(self.setup.seed ^ 2, u64::from(message), self.setup.payload_bytes)
    }

    fn write(&mut self, node: u32, key: u32, write: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let value = numbered(self.setup.seed ^ 1, u64::from(write), self.setup.value_bytes);
        let accepted = self.call(node, |host, now, scratch, effects| host.set(&key_name(key), value, now, scratch, effects));
        if accepted {
            self.see(node, Sight::Wrote { key, write });
        }
        accepted
    }

    fn remove(&mut self, node: u32, key: u32) -> bool {
        if self.slots[node as usize].host.is_none() || self.slots[node as usize].leaving {
            return false;
        }
        let removed = self.call(node, |host, now, scratch, effects| host.remove(&key_name(key), now, scratch, effects));
        if removed {
            self.see(node, Sight::Removed { key });
        }
        removed
    }

    fn tell(&mut self, node: u32, input: u32) -> bool {
        !self.slots[node as usize].leaving && self.call(node, |host, now, scratch, effects| host.tell(input, now, scratch, effects))
    }
}
