//! Some of the nodes, and what will happen to them.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::iter;
use std::time::Duration;

use meshwork_channels::Time;
use meshwork_channels::histogram::Histogram;
use meshwork_channels::random::hash;
use meshwork_overlay::{MessageId, hyparview, plumtree, topology};

use super::parcel::{CHANNEL, Message, Parcel};
use super::setup::Attack;
use super::{Events, Setup, Spread};
use crate::digest::Sum;
use crate::network::{Fate, IDLE_TIMEOUT, Network, Shape};
use crate::plan::SECOND;
use crate::wheel::{Event, Wheel};

/// So many events are looked at together: what they will read is read for all of them before the first happens. The memory answers to many
/// reads at once as fast as to one, and the state of a million nodes is in no cache.
const BATCH: usize = 16;
/// The longest window of the wheel, in microseconds: what is put in order at once should not take much of the memory.
const WINDOW_MAX: u64 = 10_000;
/// No wake-up is queued.
const NEVER: u64 = u64::MAX;

/// What arrives at a node.
#[derive(Debug)]
pub(super) enum What {
    /// A deadline of its own, most likely of its views or of its broadcast.
    Wake { is_of_topology: bool },
    /// It is its turn to join.
    Join,
    /// It is its turn to broadcast.
    Broadcast(u32),
    /// A message.
    Parcel(Parcel),
    /// It goes, with or without a farewell.
    Go { leaves: bool },
    /// It learns that whom the event comes from cannot be reached.
    Lost,
}

/// What an event will read of a node, most likely.
#[derive(Clone, Copy, Debug)]
enum Touch {
    Nothing,
    /// Its neighbors in the overlay.
    Links,
    /// Them, and the other peers that it knows.
    Views,
    /// One neighbor of its broadcast.
    Neighbor(u32),
    /// All neighbors of its broadcast, and what it holds.
    Neighbors,
}

impl What {
    fn touches(&self, from: u32) -> Touch {
        match self {
            What::Join | What::Broadcast(_) | What::Go { .. } | What::Lost => Touch::Nothing,
            What::Wake { is_of_topology: true } => Touch::Views,
            What::Wake { is_of_topology: false } | What::Parcel(Parcel::Gossip { .. } | Parcel::Other(_)) => Touch::Neighbors,
            What::Parcel(Parcel::Alive { .. }) => Touch::Links,
            What::Parcel(parcel) if parcel.is_of_topology() => Touch::Views,
            What::Parcel(_) => Touch::Neighbor(from),
        }
    }
}

/// A node, in whole cache lines. The fields lie in the memory as they stand here.
#[derive(Debug)]
#[repr(C, align(64))]
struct Node {
    /// The wake-ups that are queued and wanted, the nearest first. A near one often comes in front of a far one, which need not be queued
    /// again afterwards.
    wakes: [u64; 2],
    /// The next deadline of each core, so that an event of one does not have to look at the other.
    topology_due: Time,
    plumtree_due: Time,
    /// Counts the events that it has caused.
    sequence: u32,
    is_gone: bool,
    topology: hyparview::State<u32>,
    plumtree: plumtree::State<u32>,
}

/// What the first node, through which others come in, did until the work began.
#[derive(Clone, Debug, Default)]
pub(super) struct Contact {
    /// Messages of the views that it sent.
    pub(super) frames: u64,
    /// By second, how many neighbors it gave up for others.
    evictions: BTreeMap<u64, u64>,
}

impl Contact {
    /// The most neighbors that it gave up in a second.
    pub(super) fn evictions_max(&self) -> u64 {
        self.evictions.values().copied().max().unwrap_or(0)
    }
}

/// Whether a message of the trees is for the sake of its sender: its own payload, or a request.
fn is_own(node: u32, message: &plumtree::Message<u32>) -> bool {
    match message {
        plumtree::Message::Gossip { id, .. } => id.origin == node,
        plumtree::Message::Graft { .. } => true,
        _ => false,
    }
}

/// Some of the nodes: those whose number leaves the same rest when divided by the number of shards.
#[derive(Debug)]
pub struct Shard {
    index: u32,
    setup: Setup,
    network: Network,
    now: u64,
    nodes: Vec<Node>,
    wheel: Wheel<What>,
    /// How many of the next events have been looked at.
    warmed: usize,
    /// Messages to nodes of the other shards.
    pub(super) out: Vec<Vec<Event<What>>>,
    /// Which messages a node has delivered, one bit each.
    delivered: Vec<u64>,
    /// The origin and the sequence number of each broadcast, in order, with its number.
    numbers: Vec<(u32, u64, u32)>,
    // Reused buffers, empty between events.
    topology_actions: Vec<topology::Action<u32>>,
    plumtree_actions: Vec<plumtree::Action<u32>>,
    /// Whether the broadcast of the node handled anything in this event.
    is_plumtree_changed: bool,
    /// When the last message from one node to another arrives, where losses could let one overtake another.
    last: BTreeMap<(u32, u32), u64>,
    contact: Contact,
    /// All hostile nodes.
    hostile: Vec<u32>,

    pub(super) digest: Sum,
    pub(super) events: Events,
    pub(super) spreads: Vec<Spread>,
    pub(super) latency: Histogram,
    pub(super) misbehaved: u64,
    pub(super) repeated: u64,
}

impl Shard {
    pub(super) fn new(index: u32, setup: &Setup) -> Self {
        let shards = setup.shards.max(1);
        let mut planned: Vec<(u32, u32)> = (0..setup.messages).map(|number| (setup.sender(number), number)).collect();
        planned.sort_unstable();
        let mut numbers: Vec<(u32, u64, u32)> = Vec::with_capacity(planned.len());
        for (origin, number) in planned {
            let sequence = numbers.last().filter(|(other, ..)| *other == origin).map_or(1, |(_, before, _)| before + 1);
            numbers.push((origin, sequence, number));
        }
        let mut shard = Shard {
            index,
            network: Network::shaped(setup.seed, setup.nodes, setup.link, Shape { model: setup.model, ..Shape::default() }),
            now: 0,
            nodes: Vec::with_capacity((setup.nodes / shards + 1) as usize),
            wheel: Wheel::by_node(setup.latency_min().min(WINDOW_MAX)),
            warmed: 0,
            out: (0..shards).map(|_| Vec::new()).collect(),
            delivered: Vec::new(),
            numbers,
            topology_actions: Vec::new(),
            plumtree_actions: Vec::new(),
            is_plumtree_changed: false,
            last: BTreeMap::new(),
            contact: Contact::default(),
            hostile: if setup.hostile > 0.0 { (0..setup.nodes).filter(|node| setup.is_hostile(*node)).collect() } else { Vec::new() },
            digest: Sum::default(),
            events: Events::default(),
            spreads: vec![Spread::default(); setup.messages as usize],
            latency: Histogram::default(),
            misbehaved: 0,
            repeated: 0,
            setup: setup.clone(),
        };
        for number in (index..setup.nodes).step_by(shards as usize) {
            let seed = setup.node_seed(number);
            shard.nodes.push(Node {
                topology: hyparview::State::new(number, setup.hyparview.clone(), seed).uncounted(),
                plumtree: setup.plumtree_state(number, seed),
                wakes: [NEVER; 2],
                topology_due: Time::MAX,
                plumtree_due: Time::MAX,
                sequence: 0,
                is_gone: false,
            });
            shard.push(number, setup.joins_at(number), What::Join);
            if let Some(end) = setup.end(number) {
                shard.push(number, end.at, What::Go { leaves: end.leaves });
            }
        }
        shard.delivered = vec![0; shard.nodes.len() * shard.words()];
        for message in 0..setup.messages {
            let sender = setup.sender(message);
            if sender % shards == index {
                shard.push(sender, setup.sent_at(message), What::Broadcast(message));
            }
        }
        shard
    }

    /// The neighbors of a node.
    pub(super) fn neighbors(&self, node: u32) -> &[u32] {
        self.nodes[self.place(node)].topology.neighbors()
    }

    /// The neighbors to which a node pushes payloads.
    pub(super) fn eager(&self, node: u32) -> impl Iterator<Item = u32> {
        self.nodes[self.place(node)].plumtree.neighbors().filter(|(_, eager)| *eager).map(|(peer, _)| peer)
    }

    /// What the first node did; only in the shard that has it.
    pub(super) fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Whether a node has not gone.
    pub(super) fn is_alive(&self, node: u32) -> bool {
        !self.nodes[self.place(node)].is_gone
    }

    /// The number of the link that a node holds to a peer.
    pub(super) fn link(&self, node: u32, peer: u32) -> Option<u32> {
        self.nodes[self.place(node)].topology.link(peer)
    }

    /// A node loses its connection to a peer, which does not notice.
    #[cfg(test)]
    pub(super) fn lose(&mut self, node: u32, peer: u32) {
        let place = self.place(node);
        let now = Time::from_micros(self.now);
        self.nodes[place].topology.handle(topology::Input::Unreachable(peer), now, &mut self.topology_actions);
        self.route_topology(node, place);
        self.route_plumtree(node, place);
        self.arm(node, place);
    }

    /// How many messages a node has delivered or sent.
    pub(super) fn delivered_len(&self, node: u32) -> u32 {
        let start = self.place(node) * self.words();
        self.delivered[start..start + self.words()].iter().map(|word| word.count_ones()).sum()
    }

    /// Whether a node has delivered or sent a message.
    pub(super) fn has(&self, node: u32, message: u32) -> bool {
        self.delivered[self.place(node) * self.words() + message as usize / 64] >> (message % 64) & 1 == 1
    }

    /// So many events happen, whenever that is.
    pub(super) fn run_events(&mut self, count: u64) {
        let mut left = count;
        while left > 0
            && let Some(event) = self.next(u64::MAX)
        {
            left -= u64::from(self.happen(event));
        }
    }

    /// Everything up to a moment happens.
    pub(super) fn run_until(&mut self, until: u64) {
        while let Some(event) = self.next(until) {
            self.happen(event);
        }
    }

    /// The next event up to a moment.
    fn next(&mut self, until: u64) -> Option<Event<What>> {
        let event = self.wheel.pop(until)?;
        self.now = event.at;
        self.warmed = match self.warmed {
            0 => self.warm(&event),
            warmed => warmed,
        } - 1;
        Some(event)
    }

    /// Reads what an event and those after it will read, first of all the nodes and then what they point to; gives for how many events.
    fn warm(&self, event: &Event<What>) -> usize {
        // The events themselves were read with those before them, and without a branch that would wait for what is read.
        let mut read = (BATCH..2 * BATCH).map_while(|count| self.wheel.ahead(count)).fold(0, |read, event| read ^ event.sequence);
        let ahead = (0..BATCH - 1).map_while(|count| self.wheel.ahead(count));
        let mut batch = [(&self.nodes[0], Touch::Nothing); BATCH];
        let mut len = 0;
        for (place, event) in batch.iter_mut().zip(iter::once(event).chain(ahead)) {
            let at = self.place(event.to);
            *place = (&self.nodes[at], event.what.touches(event.from));
            len += 1;
            if let What::Parcel(Parcel::Gossip { .. }) = event.what {
                read ^= self.delivered.get(at * self.words()).copied().unwrap_or(0);
            }
        }
        for (node, touch) in &batch[..len] {
            read ^= node.wakes[0] ^ node.topology_due.as_nanos() ^ u64::from(node.sequence);
            read ^= match touch {
                Touch::Nothing => 0,
                Touch::Links | Touch::Views => node.topology.warm(hyparview::Part::State),
                Touch::Neighbor(_) | Touch::Neighbors => node.plumtree.warm(plumtree::Part::State),
            };
        }
        for (node, touch) in &batch[..len] {
            read ^= match touch {
                Touch::Nothing => 0,
                Touch::Links => node.topology.warm(hyparview::Part::Links),
                Touch::Views => node.topology.warm(hyparview::Part::Links) ^ node.topology.warm(hyparview::Part::Passive),
                Touch::Neighbor(_) => node.plumtree.warm(plumtree::Part::Peers),
                Touch::Neighbors => node.plumtree.warm(plumtree::Part::Peers) ^ node.plumtree.warm(plumtree::Part::Pieces),
            };
        }
        for (node, touch) in &batch[..len] {
            read ^= match touch {
                Touch::Nothing | Touch::Links | Touch::Views => 0,
                Touch::Neighbor(peer) => node.plumtree.warm(plumtree::Part::Neighbor(*peer)),
                Touch::Neighbors => node.plumtree.warm(plumtree::Part::Neighbors),
            };
        }
        black_box(read);
        len
    }

    /// Takes in what other shards sent to it.
    pub(super) fn take(&mut self, events: &mut Vec<Event<What>>) {
        events.drain(..).for_each(|event| self.wheel.push(event));
    }

    fn shards(&self) -> usize {
        self.out.len()
    }

    fn place(&self, node: u32) -> usize {
        let shards = self.shards() as u32;
        // A division costs as much as a small event, and most runs have one shard.
        (if shards == 1 { node } else { node / shards }) as usize
    }

    fn words(&self) -> usize {
        (self.setup.messages as usize).div_ceil(64)
    }

    /// Queues an event that a node causes at itself.
    fn push(&mut self, node: u32, at: u64, what: What) {
        let place = self.place(node);
        let sequence = self.next_sequence(place);
        self.wheel.push(Event { at, to: node, from: node, sequence, what });
    }

    fn next_sequence(&mut self, place: usize) -> u64 {
        let node = &mut self.nodes[place];
        node.sequence += 1;
        u64::from(node.sequence)
    }

    fn send(&mut self, from: u32, place: usize, to: u32, parcel: Parcel) {
        let at = if self.setup.link.loss == 0.0 && self.setup.link.jitter == 0 {
            self.now + self.network.latency(from, to)
        } else {
            let sequence = u64::from(self.nodes[place].sequence) + 1;
            match self.network.stream(from, to, sequence, self.now) {
                Fate::After(latency) => {
                    let last = self.last.entry((from, to)).or_default();
                    *last = (self.now + latency).max(*last);
                    *last
                }
                Fate::Breaks => return self.lose_each_other(from, place, to),
            }
        };
        self.cause(from, place, to, at, What::Parcel(parcel));
    }

    /// A connection breaks because nothing came through for too long. Both sides notice.
    fn lose_each_other(&mut self, from: u32, place: usize, to: u32) {
        let at = self.now + IDLE_TIMEOUT;
        self.cause(from, place, to, at, What::Lost);
        self.cause(to, place, from, at, What::Lost);
    }

    /// Queues an event that a node causes at another.
    ///
    /// `place` is that of the node whose turn it is: its count tells the events of one moment apart.
    fn cause(&mut self, from: u32, place: usize, to: u32, at: u64, what: What) {
        let sequence = self.next_sequence(place);
        let event = Event { at, to, from, sequence, what };
        let shard = to as usize % self.shards();
        if shard == self.index as usize {
            self.wheel.push(event);
        } else {
            self.out[shard].push(event);
        }
    }

    /// Lets an event happen; says whether it was one, and not a wake-up for nothing.
    fn happen(&mut self, event: Event<What>) -> bool {
        let Event { at, to: node, from, sequence, what } = event;
        let now = Time::from_micros(self.now);
        let place = self.place(node);
        if self.nodes[place].is_gone {
            return self.happen_to_nobody(node, place, from, &what);
        }
        let told = match what {
            What::Wake { .. } => match self.wake(place) {
                true => 1,
                false => return false,
            },
            What::Join => {
                self.events.joins += 1;
                for contact in self.setup.contacts(node) {
                    let input = topology::Input::Join { contact };
                    self.nodes[place].topology.handle(input, now, &mut self.topology_actions);
                    self.route_topology(node, place);
                }
                2
            }
            What::Broadcast(message) => {
                self.broadcast(place, message);
                3 | u64::from(message) << 8
            }
            What::Parcel(parcel) => {
                let told = parcel.tell();
                self.arrive(node, place, from, parcel);
                told
            }
            What::Go { leaves } => {
                self.go(node, place, leaves);
                if leaves { 6 } else { 4 }
            }
            What::Lost => {
                self.events.losses += 1;
                self.nodes[place].topology.handle(topology::Input::Unreachable(from), now, &mut self.topology_actions);
                self.route_topology(node, place);
                5
            }
        };
        self.digest.event(&[at, u64::from(node) << 32 | u64::from(from), sequence, told]);
        self.route_plumtree(node, place);
        self.arm(node, place);
        true
    }

    /// A node ends. If it says nothing, its neighbors notice later.
    fn go(&mut self, node: u32, place: usize, leaves: bool) {
        if leaves {
            self.events.leaves += 1;
            let now = Time::from_micros(self.now);
            self.nodes[place].topology.handle(topology::Input::Leave, now, &mut self.topology_actions);
            self.route_topology(node, place);
        } else {
            self.events.crashes += 1;
            for neighbor in self.nodes[place].topology.neighbors().to_vec() {
                self.notice(node, place, neighbor);
            }
        }
        let slot = &mut self.nodes[place];
        slot.is_gone = true;
        (slot.topology_due, slot.plumtree_due) = (Time::MAX, Time::MAX);
    }

    /// A node will learn that another is gone.
    fn notice(&mut self, gone: u32, place: usize, who: u32) {
        let after = self.setup.losses.notice.max(self.network.latency(gone, who));
        self.cause(gone, place, who, self.now + after, What::Lost);
    }

    /// An event at a node that is gone. Who wants something of its links waits in vain: for as long as a connection may be silent, or a dial takes.
    fn happen_to_nobody(&mut self, node: u32, place: usize, from: u32, what: &What) -> bool {
        if matches!(what, What::Parcel(parcel) if parcel.is_of_topology()) {
            self.notice(node, place, from);
        }
        false
    }

    /// A wake-up; says whether anything was due.
    fn wake(&mut self, place: usize) -> bool {
        let number = place as u32 * self.shards() as u32 + self.index;
        let node = &mut self.nodes[place];
        let now = Time::from_micros(self.now);
        if node.wakes[0] != self.now {
            return false;
        }
        node.wakes = [node.wakes[1], NEVER];
        let (topology, plumtree) = (node.topology_due <= now, node.plumtree_due <= now);
        if topology {
            node.topology.handle(topology::Input::DeadlineReached, now, &mut self.topology_actions);
        }
        if plumtree {
            node.plumtree.handle(plumtree::Input::DeadlineReached, now, &mut self.plumtree_actions);
            self.is_plumtree_changed = true;
        }
        if topology {
            self.route_topology(number, place);
        }
        if topology || plumtree {
            self.events.deadlines += 1;
        } else {
            self.arm(number, place);
        }
        topology || plumtree
    }

    fn broadcast(&mut self, place: usize, message: u32) {
        let payload = self.setup.payload();
        let now = Time::from_micros(self.now);
        let sent = self.nodes[place].plumtree.broadcast(CHANNEL, payload, now, &mut self.plumtree_actions);
        let number = sent.ok().and_then(|id| self.number(&id));
        self.is_plumtree_changed = true;
        assert_eq!(number, Some(message), "broadcasts are numbered as planned");
        self.mark(place, message);
    }

    /// Hands a message to its node.
    fn arrive(&mut self, node: u32, place: usize, from: u32, parcel: Parcel) {
        let now = Time::from_micros(self.now);
        match parcel.open(Setup::zeros()) {
            Message::Topology(message) => {
                self.events.topology += 1;
                if message.may_swap() {
                    let carrying = self.nodes[place].plumtree.carrying().collect();
                    self.nodes[place].topology.handle(topology::Input::Carrying(carrying), now, &mut self.topology_actions);
                }
                self.nodes[place].topology.handle(topology::Input::Received { from, message }, now, &mut self.topology_actions);
                self.route_topology(node, place);
            }
            Message::Plumtree(message) => {
                match &message {
                    plumtree::Message::Gossip { id, .. } => {
                        self.events.payloads += 1;
                        if let Some(number) = self.number(id) {
                            self.spreads[number as usize].payloads += 1;
                        }
                    }
                    plumtree::Message::IHave { .. } => self.events.announcements += 1,
                    plumtree::Message::Graft { .. } | plumtree::Message::Gone { .. } => self.events.grafts += 1,
                    plumtree::Message::Prune { .. } | plumtree::Message::Met { .. } => self.events.prunes += 1,
                }
                self.nodes[place].plumtree.handle(plumtree::Input::Received { from, message }, now, &mut self.plumtree_actions);
                self.is_plumtree_changed = true;
            }
        }
    }

    /// Carries out what the topology of a node decided: the same arrows as in `meshwork_overlay::state`.
    fn route_topology(&mut self, node: u32, place: usize) {
        let now = Time::from_micros(self.now);
        let is_forming = self.now <= self.setup.works_from();
        let is_colluding = self.setup.attack == Attack::Collude && self.setup.is_hostile(node);
        let mut actions = std::mem::take(&mut self.topology_actions);
        for action in actions.drain(..) {
            match action {
                topology::Action::Send { to, message } => {
                    let message = if is_colluding { self.collude(node, message) } else { message };
                    self.contact.frames += u64::from(node == 0 && is_forming);
                    self.send(node, place, to, Parcel::topology(message));
                }
                topology::Action::NeighborUp(peer) => {
                    self.events.links += 1;
                    self.nodes[place].plumtree.handle(plumtree::Input::NeighborUp(peer), now, &mut self.plumtree_actions);
                    self.is_plumtree_changed = true;
                }
                topology::Action::NeighborDown(peer, reason) => {
                    if node == 0 && is_forming && reason == topology::DownReason::Evicted {
                        *self.contact.evictions.entry(self.now / SECOND).or_default() += 1;
                    }
                    self.nodes[place].plumtree.handle(plumtree::Input::NeighborDown(peer), now, &mut self.plumtree_actions);
                    self.is_plumtree_changed = true;
                }
                topology::Action::Misbehaved { .. } => self.misbehaved += 1,
            }
        }
        self.topology_actions = actions;
        let slot = &mut self.nodes[place];
        slot.topology_due = slot.topology.next_deadline().unwrap_or(Time::MAX);
    }

    /// What a hostile node says instead: wherever it names peers, others like it.
    fn collude(&mut self, node: u32, message: topology::Message<u32>) -> topology::Message<u32> {
        use hyparview::Message::{Disconnect, NeighborReply, Shuffle, ShuffleReply};
        let peers = |most: usize| {
            // Drawn so that the same node names others each time, whatever the number of shards.
            let draw = |index: usize| hash(&[self.setup.seed, u64::from(node), self.now, index as u64]) as usize % self.hostile.len();
            let mut peers: Vec<u32> = (0..most).map(|index| self.hostile[draw(index)]).filter(|peer| *peer != node).collect();
            peers.sort_unstable();
            peers.dedup();
            hyparview::Peers::first_of(peers)
        };
        topology::Message::Hyparview(match message {
            topology::Message::Hyparview(NeighborReply { link, accepted, .. }) => {
                NeighborReply { link, accepted, peers: peers(hyparview::CANDIDATES_LEN_MAX) }
            }
            topology::Message::Hyparview(Disconnect { link, reason, .. }) => {
                Disconnect { link, reason, peers: peers(hyparview::CANDIDATES_LEN_MAX) }
            }
            topology::Message::Hyparview(Shuffle { origin, nonce, ttl, .. }) if origin == node => Shuffle {
                origin,
                nonce,
                ttl,
                peers: peers(self.setup.hyparview.shuffle_active_len + self.setup.hyparview.shuffle_passive_len),
            },
            topology::Message::Hyparview(ShuffleReply { nonce, peers: given }) => ShuffleReply { nonce, peers: peers(given.len()) },
            message => return message,
        })
    }

    /// The same for the broadcast.
    fn route_plumtree(&mut self, node: u32, place: usize) {
        if !std::mem::take(&mut self.is_plumtree_changed) {
            return;
        }
        let is_riding = self.setup.attack == Attack::Ride && self.setup.is_hostile(node);
        let slot = &mut self.nodes[place];
        slot.plumtree_due = slot.plumtree.next_deadline().unwrap_or(Time::MAX);
        let mut actions = std::mem::take(&mut self.plumtree_actions);
        for action in actions.drain(..) {
            match action {
                plumtree::Action::Send { message, .. } if is_riding && !is_own(node, &message) => {}
                plumtree::Action::Send { to, message } => self.send(node, place, to, Parcel::plumtree(message)),
                plumtree::Action::Deliver { id, hops, .. } => self.deliver(place, &id, hops),
                plumtree::Action::Misbehaved { .. } => self.misbehaved += 1,
            }
        }
        self.plumtree_actions = actions;
    }

    fn number(&self, id: &MessageId<u32>) -> Option<u32> {
        let at = self.numbers.binary_search_by(|(origin, sequence, _)| (*origin, *sequence).cmp(&(id.origin, id.sequence))).ok()?;
        Some(self.numbers[at].2)
    }

    fn deliver(&mut self, place: usize, id: &MessageId<u32>, hops: u16) {
        let Some(message) = self.number(id) else {
            self.misbehaved += 1;
            return;
        };
        let after = self.now - self.setup.sent_at(message);
        let spread = &mut self.spreads[message as usize];
        spread.delivered += 1;
        spread.in_a_second += u64::from(after <= SECOND);
        spread.in_ten_seconds += u64::from(after <= 10 * SECOND);
        spread.hops_max = spread.hops_max.max(hops);
        spread.latency_max = spread.latency_max.max(after);
        spread.latency_sum += after;
        if message >= self.setup.warmup {
            self.latency.record(Duration::from_micros(after), 1);
        }
        self.mark(place, message);
    }

    /// Notes that a node has a message.
    fn mark(&mut self, place: usize, message: u32) {
        let word = place * self.words() + message as usize / 64;
        let bit = 1 << (message % 64);
        self.repeated += u64::from(self.delivered[word] & bit != 0);
        self.delivered[word] |= bit;
    }

    /// Queues the next wake-up of a node unless one that is early enough is queued.
    fn arm(&mut self, node: u32, place: usize) {
        let slot = &mut self.nodes[place];
        let deadline = slot.topology_due.min(slot.plumtree_due);
        if deadline == Time::MAX {
            return;
        }
        let at = deadline.as_nanos().div_ceil(1_000).max(self.now + 1);
        if at < slot.wakes[0] {
            // What was second is forgotten, and nothing happens when its moment comes.
            slot.wakes = [at, slot.wakes[0]];
            let is_of_topology = slot.topology_due < slot.plumtree_due;
            self.push(node, at, What::Wake { is_of_topology });
        }
    }
}
