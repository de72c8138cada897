//! A node of a few lines, to test the world, the invariants and the runner without the real one.
//!
//! It connects to whoever it hears of, floods what is new to it, and tells a new connection everything that it has. It never forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use meshwork::crdt::{Op, Stamp, Value};
use meshwork_channels::{ChannelId, Now, PeerId, Time};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::host::{self, Birth, Connection, Effect, Host, Input, Observation, Plant, Tally};
use crate::plan::Tuning;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    Addresses(Vec<SocketAddr>),
    Flood(Vec<u8>, u16),
    Write(String, u64, Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Toy {
    birth: Birth,
    connections: BTreeMap<Connection, PeerId>,
    known: BTreeSet<SocketAddr>,
    dialing: BTreeSet<SocketAddr>,
    floods: BTreeMap<Vec<u8>, u16>,
    keys: BTreeMap<String, (u64, Bytes)>,
    retry_at: Time,
}

type Effects = Vec<Effect>;

impl Toy {
    fn has(&self, plant: Plant) -> bool {
        self.birth.plant == Some(plant)
    }

    fn send(&self, connection: Connection, message: &Message, effects: &mut Effects) {
        effects.push(Effect::Send { connection, channel: ChannelId::CONTROL, frame: meshwork_channels::encode(message) });
    }

    fn send_all(&self, message: &Message, effects: &mut Effects) {
        self.connections.keys().for_each(|connection| self.send(*connection, message, effects));
    }

    fn learn(&mut self, addresses: Vec<SocketAddr>, effects: &mut Effects) {
        for address in addresses {
            if address != self.birth.address {
                self.known.insert(address);
            }
        }
        self.dial(effects);
    }

    fn dial(&mut self, effects: &mut Effects) {
        for address in &self.known {
            let index = host::at_address(*address).unwrap().0;
            let connected = self.connections.values().any(|peer| host::index_of(*peer) == index);
            if !connected && self.dialing.insert(*address) {
                effects.push(Effect::Dial { address: *address, expected: None });
            }
        }
    }

    fn deliver(&mut self, payload: Vec<u8>, hops: u16, effects: &mut Effects) {
        if self.floods.contains_key(&payload) {
            return;
        }
        self.floods.insert(payload.clone(), hops);
        for _ in 0..if self.has(Plant::DeliverTwice) { 2 } else { u32::from(!self.has(Plant::DeliverNever)) } {
            effects.push(Effect::Observed(Observation::Delivered { payload: Bytes::from(payload.clone()), hops }));
        }
        self.send_all(&Message::Flood(payload, hops + 1), effects);
    }

    fn store(&mut self, key: String, stamp: u64, value: Vec<u8>, effects: &mut Effects) {
        if self.keys.get(&key).is_some_and(|(known, held)| (*known, &held[..]) >= (stamp, &value[..])) || self.has(Plant::NeverRepairs) {
            return;
        }
        self.keys.insert(key.clone(), (stamp, Bytes::from(value.clone())));
        self.send_all(&Message::Write(key, stamp, value), effects);
    }
}

impl Host for Toy {
    type Params = ();
    type Scratch = ();

    fn params(_: &Tuning) -> Result<(), String> {
        Ok(())
    }

    fn neighbors_max((): &(), nodes: u32) -> usize {
        nodes as usize
    }

    fn start(birth: &Birth, (): &(), now: Now) -> Self {
        Toy {
            birth: *birth,
            connections: BTreeMap::new(),
            known: BTreeSet::new(),
            dialing: BTreeSet::new(),
            floods: BTreeMap::new(),
            keys: BTreeMap::new(),
            retry_at: now.time + Duration::from_secs(1),
        }
    }

    fn handle(&mut self, input: Input, now: Now, (): &mut (), effects: &mut Effects) {
        match input {
            Input::Discovered(addresses) => self.learn(addresses, effects),
            Input::Connected { connection, peer, address, .. } => {
                self.dialing.remove(&address);
                self.connections.insert(connection, peer);
                effects.push(Effect::Observed(Observation::NeighborsChanged));
                let mut addresses: Vec<SocketAddr> = self.known.iter().copied().collect();
                addresses.push(self.birth.address);
                self.send(connection, &Message::Addresses(addresses), effects);
                self.floods.iter().for_each(|(flood, hops)| self.send(connection, &Message::Flood(flood.clone(), hops + 1), effects));
                for (key, (stamp, value)) in &self.keys {
                    self.send(connection, &Message::Write(key.clone(), *stamp, value.to_vec()), effects);
                }
                self.send_all(&Message::Addresses(vec![address]), effects);
                self.learn(vec![address], effects);
                if self.has(Plant::BlameOthers) {
                    effects.push(Effect::Observed(Observation::Misbehaved { peer, rule: "planted" }));
                }
            }
            Input::Disconnected { connection, .. } => {
                self.connections.remove(&connection);
                effects.push(Effect::Observed(Observation::NeighborsChanged));
            }
            Input::DialFailed { address, .. } => {
                self.dialing.remove(&address);
            }
            Input::Frame { bytes, .. } => match meshwork_channels::decode(&bytes).unwrap() {
                Message::Addresses(addresses) => self.learn(addresses, effects),
                Message::Flood(payload, hops) => self.deliver(payload, hops, effects),
                Message::Write(key, stamp, value) => self.store(key, stamp, value, effects),
            },
            Input::Datagram { .. } => {}
            Input::DeadlineReached => {
                self.retry_at = now.time + Duration::from_secs(1);
                self.dial(effects);
                if let Some(connection) = self.connections.keys().next() {
                    effects.push(Effect::SendDatagram { connection: *connection, bytes: Bytes::from_static(b"ping") });
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(self.retry_at)
    }

    fn broadcast(&mut self, payload: Bytes, _: Now, (): &mut (), effects: &mut Effects) -> bool {
        self.floods.insert(payload.to_vec(), 0);
        self.send_all(&Message::Flood(payload.to_vec(), 1), effects);
        true
    }

    /// It knows plain registers alone, one at a time, and removes none.
    fn write(&mut self, writes: Vec<(String, Op)>, now: Now, (): &mut (), effects: &mut Effects) -> Option<Stamp> {
        let [(key, Op::Set(value))] = &writes[..] else { return None };
        self.store(key.clone(), now.wall.as_micros(), value.to_vec(), effects);
        // What it stores is in the order of microseconds.
        Some(Stamp::from_bits(now.wall.as_micros()))
    }

    fn leave(&mut self, _: Now, (): &mut (), effects: &mut Effects) {
        effects.extend(self.connections.keys().map(|connection| Effect::Close { connection: *connection, unneeded: false }));
    }

    fn visit_neighbors(&self, visit: &mut dyn FnMut(PeerId)) {
        let peers: BTreeSet<PeerId> = self.connections.values().copied().collect();
        peers.into_iter().skip(usize::from(self.has(Plant::HideNeighbor))).for_each(visit);
    }

    fn visit_members(&self, visit: &mut dyn FnMut(PeerId)) {
        visit(self.birth.peer);
        let peers: BTreeSet<PeerId> = self.connections.values().copied().collect();
        peers.into_iter().for_each(visit);
    }

    fn value(&self, key: &str) -> Option<&Bytes> {
        self.keys.get(key).map(|(_, value)| value)
    }

    fn read(&self, key: &str) -> Option<Value> {
        self.value(key).cloned().map(Value::Lww)
    }

    fn state_digest(&self) -> u128 {
        let mut digest = Digest::default();
        for (key, (stamp, value)) in &self.keys {
            digest.bytes(key.as_bytes());
            digest.number(*stamp);
            digest.bytes(value);
        }
        digest.value()
    }

    fn state_len(&self) -> usize {
        self.keys.len()
    }

    fn state_bytes(&self) -> usize {
        self.keys.iter().map(|(key, (_, value))| key.len() + value.len()).sum()
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }
}
