//! What the schedule has nodes do; what it does to them is in `faults`.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use meshwork::crdt::{Kind, Op, Value};
use meshwork_channels::random::hash;

use super::{Arrival, Sight, World, numbered};
use crate::deed::{Change, Deed};
use crate::disk::Disk;
use crate::host::{self, Birth, Host, Input, Plant};
use crate::ledger::{Done, numbers};
use crate::network::{Cut, Weather};
use crate::schedule::Happening;

/// Feeds the files of a disk.
const DISK: u64 = 0x6469_736b;
/// How long after a write a node syncs its disk by default, in microseconds: `Durability::DEFAULT` of the runtime.
const SYNC: u64 = 100_000;
/// Bytes of a member of a set, unless values have fewer: a set holds many.
const MEMBER_BYTES_MAX: usize = 16;

impl<H: Host> World<H> {
    pub(super) fn on_entry(&mut self, index: usize) {
        let what = self.schedule.entries()[index].what.clone();
        let name = what.name();
        let effective = match what {
            Happening::Start { node, contacts } => self.start(node, &contacts, false, false, false),
            Happening::Restart { node, contacts, moved, remembers, disk } => {
                self.slots[node as usize].life > 0 && self.start(node, &contacts, moved, remembers, disk)
            }
            Happening::Crash { node } => self.stop(node, false),
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
            Happening::Write { node, key, write } => self.change(node, &[Change::plain(key, Deed::Set { write })]),
            Happening::Remove { node, key } => self.change(node, &[Change::plain(key, Deed::Remove)]),
            Happening::Change { node, changes } => self.change(node, &changes),
            Happening::Tell { node, input } => self.tell(node, input),
        };
        if effective {
            *self.happened.entry(name).or_default() += 1;
        }
    }

    fn start(&mut self, node: u32, contacts: &[u32], moved: bool, remembers: bool, keeps: bool) -> bool {
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
        let (has_disk, kept) = (slot.has_disk, slot.disk.take().filter(|_| keeps));
        let birth = Birth {
            index: node,
            peer: self.peers[node as usize],
            incarnation: if plant == Some(Plant::StaleIncarnation) { 1 } else { u64::from(slot.life) },
            address: host::address(node, slot.moves),
            seed: hash(&[self.setup.seed, 0x6e6f_6465, u64::from(node), u64::from(slot.life)]),
            plant,
        };
        let life = u64::from(slot.life);
        slot.host = Some(H::start(&birth, &self.params, clock));
        self.see(node, Sight::Started);
        if has_disk {
            *self.happened.entry("restored").or_default() += u64::from(kept.is_some());
            let disk = kept.unwrap_or_else(|| Disk::new(hash(&[self.setup.seed, DISK, u64::from(node), life])));
            let sync = Duration::from_micros(if self.setup.sync == 0 { SYNC } else { self.setup.sync });
            self.call(node, |host, now, scratch, effects| host.keep(disk, sync, now, scratch, effects));
        }
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

    fn change(&mut self, node: u32, changes: &[Change]) -> bool {
        let slot = &self.slots[node as usize];
        let Some(host) = slot.host.as_ref().filter(|_| !slot.leaving) else { return false };
        let before: Vec<Option<Value>> = changes.iter().map(|change| host.read(&change.place.name())).collect();
        let writes = changes.iter().map(|change| (change.place.name(), self.op(change.deed))).collect();
        let stamp = self.call(node, |host, now, scratch, effects| host.write(writes, now, scratch, effects));
        let Some(stamp) = stamp else { return false };
        for (change, before) in changes.iter().zip(before) {
            let there = numbers(before.as_ref());
            let saw = match change.deed {
                // Of a batch a part may have changed nothing.
                Deed::Take { member } if !there.contains(&member) => continue,
                Deed::Remove if before.is_none() => continue,
                Deed::Put { .. } => there,
                _ => Vec::new(),
            };
            match (change.place.kind, change.deed) {
                (Kind::Lww, Deed::Set { write }) => self.see(node, Sight::Wrote { key: change.place.key, write }),
                (Kind::Lww, Deed::Remove | Deed::SetFor { .. }) => self.see(node, Sight::Removed { key: change.place.key }),
                _ => {}
            }
            self.see(node, Sight::Changed(Box::new(Done { change: *change, stamp: stamp.to_bits(), saw })));
        }
        true
    }

    /// What a deed is to a replica.
    fn op(&self, deed: Deed) -> Op {
        let value = |write: u32| numbered(self.setup.seed ^ 1, u64::from(write), self.setup.value_bytes);
        let named = |member: u32| numbered(self.setup.seed ^ 3, u64::from(member), self.setup.value_bytes.min(MEMBER_BYTES_MAX));
        match deed {
            Deed::Set { write } => Op::Set(value(write)),
            Deed::SetFor { write, seconds } => Op::SetFor(value(write), Duration::from_secs(seconds.into())),
            Deed::Best { score, write } => Op::Best(f64::from(score), value(write)),
            Deed::Put { write } => Op::Put(value(write)),
            Deed::Add { by } => Op::Add(by),
            Deed::Grow { by } => Op::Grow(by),
            Deed::Insert { member } => Op::Insert(named(member)),
            Deed::Take { member } => Op::Take(named(member)),
            Deed::Include { member } => Op::Include(named(member)),
            Deed::Remove => Op::Remove,
        }
    }

    fn tell(&mut self, node: u32, input: u32) -> bool {
        !self.slots[node as usize].leaving && self.call(node, |host, now, scratch, effects| host.tell(input, now, scratch, effects))
    }
}
