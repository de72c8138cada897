//! What was seen so far, in the form in which invariants and metrics ask for it.

use crate::graph::living;
use crate::invariants::View;
use crate::ledger::{Judgment, Ledger, LifeOf};
use crate::plan::SECOND;
use crate::world::{Seen, Sight};

/// One life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it began, in microseconds since the start of the run.
    pub from: u64,
    /// When it ended; none while it lasts.
    pub until: Option<u64>,
}

/// A broadcast that a node accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When, in microseconds since the start of the run.
    pub sent_at: u64,
    /// By which node.
    pub sender: u32,
    /// In which of its lives.
    pub life: u32,
    /// By node: the last of its lives that delivered the message; 0 for none.
    pub delivered: Vec<u32>,
    /// How often it was delivered, not counting its sender; a node that delivers it again in a later life counts again.
    pub deliveries: u32,
    /// Its deliveries to other nodes that had lived since before it was sent. A life that began later gets what is still kept, which says
    /// nothing about how fast messages are.
    pub arrivals: Vec<Arrival>,
    /// The most links that one of these arrivals crossed: its last hop.
    pub hops_max: u16,
}

/// A delivery of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// To which node.
    pub node: u32,
    /// How long after it was sent, in microseconds, up to an hour and eleven minutes.
    pub micros: u32,
}

/// What was moved since the start, in all lives of all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes sent.
    pub bytes: u64,
    /// Payloads of broadcasts that nodes received.
    pub payloads: u64,
    /// Of those, the ones that the receiver had already.
    pub copies: u64,
}

/// One second of virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Nodes alive at its end.
    pub alive: u64,
    /// Messages sent in it.
    pub sent: u64,
    /// Deliveries in it, those to senders themselves not counted.
    pub delivered: u64,
    /// What was moved in it.
    pub moved: Totals,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    lives: Vec<Vec<Life>>,
    /// By the number of the message.
    messages: Vec<Option<Message>>,
    /// By key: the lives that wrote it, and whether anybody removed it.
    keys: Vec<(Vec<(u32, u32)>, bool)>,
    /// What was done to the replicated state.
    ledger: Ledger,
    /// By second since the start.
    seconds: Vec<Second>,
    /// At the end of the last second.
    totals: Totals,
    /// By node: how many messages of others it delivered.
    deliveries: Vec<u32>,
    /// From a crash to the moment at which another node held the crashed one for dead, in microseconds.
    pub detections: Vec<u64>,
    /// How often a living node was held for dead.
    pub living_held_for_dead: u64,
    /// How often a node was suspected.
    pub suspicions: u64,
    /// The most links that a delivery crossed.
    pub hops_max: u16,
}

impl Record {
    /// Of a world with this many nodes in which nothing has happened.
    pub fn new(nodes: u32) -> Self {
        Record { lives: vec![Vec::new(); nodes as usize], deliveries: vec![0; nodes as usize], ..Record::default() }
    }

    /// Takes in one more sight.
    pub fn take(&mut self, seen: &Seen) {
        match seen.what {
            Sight::Started => self.lives[seen.node as usize].push(Life { from: seen.at, until: None }),
            Sight::Stopped => {
                if let Some(life) = self.lives[seen.node as usize].last_mut() {
                    life.until = Some(seen.at);
                }
            }
            Sight::Sent { message } => {
                let index = message as usize;
                if self.messages.len() <= index {
                    self.messages.resize(index + 1, None);
                }
                let delivered = vec![0; self.lives.len()];
                let (sent_at, sender, life) = (seen.at, seen.node, seen.life);
                self.messages[index] = Some(Message { sent_at, sender, life, delivered, deliveries: 0, arrivals: Vec::new(), hops_max: 0 });
                self.second(seen.at).sent += 1;
            }
            Sight::Delivered { message, hops } => {
                if let Some(Some(message)) = self.messages.get_mut(message as usize) {
                    message.delivered[seen.node as usize] = seen.life;
                    if seen.node != message.sender {
                        let was_there = self.lives[seen.node as usize].last().is_some_and(|life| life.from <= message.sent_at);
                        if was_there {
                            let micros = u32::try_from(seen.at - message.sent_at).unwrap_or(u32::MAX);
                            message.arrivals.push(Arrival { node: seen.node, micros });
                            message.hops_max = message.hops_max.max(hops);
                            self.hops_max = self.hops_max.max(hops);
                        }
                        message.deliveries += 1;
                        self.deliveries[seen.node as usize] += 1;
                        self.second(seen.at).delivered += 1;
                    }
                }
            }
            Sight::Wrote { key, .. } => self.key(key).0.push((seen.node, seen.life)),
            Sight::Removed { key } => self.key(key).1 = true,
            Sight::Changed(ref done) => self.ledger.take((seen.node, seen.life), done),
            Sight::Restored { .. } => self.ledger.restored((seen.node, seen.life)),
            Sight::Synced => self.ledger.synced((seen.node, seen.life)),
            Sight::HeldForDead { node, generation } => match self.lives.get(node as usize).map(|lives| (lives.len(), lives.last())) {
                Some((_, Some(Life { until: Some(until), .. }))) => self.detections.push(seen.at - until),
                // A verdict about a life that is over is true, however late: generations begin with the number of the life.
                Some((life, _)) if generation < life as u64 => {}
                _ => self.living_held_for_dead += 1,
            },
            Sight::Suspected { .. } => self.suspicions += 1,
            Sight::HeldForAlive { .. }
            | Sight::HeldForGone { .. }
            | Sight::Accepted { .. }
            | Sight::Received { .. }
            | Sight::Garbled
            | Sight::Attacked
            | Sight::ClockSet
            | Sight::Neighbors { .. }
            | Sight::Blamed { .. } => {}
        }
    }

    /// Ends the second that ends at `now`, with how many nodes are alive then and what was moved so far.
    pub fn end_second(&mut self, now: u64, alive: usize, totals: Totals) {
        let before = std::mem::replace(&mut self.totals, totals);
        let second = self.second(now);
        second.alive = alive as u64;
        second.moved = Totals {
            bytes: totals.bytes - before.bytes,
            payloads: totals.payloads - before.payloads,
            copies: totals.copies - before.copies,
        };
    }

    /// The second in which a moment lies; its last moment is a whole second, because the world runs up to those.
    fn second(&mut self, at: u64) -> &mut Second {
        let index = (at.saturating_sub(1) / SECOND) as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }

    /// The seconds since the start.
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// How many messages of others a node delivered.
    pub fn deliveries(&self, node: u32) -> u32 {
        self.deliveries.get(node as usize).copied().unwrap_or(0)
    }

    /// How many lives of a node began.
    pub fn lives(&self, node: u32) -> usize {
        self.lives.get(node as usize).map_or(0, Vec::len)
    }

    /// From sending to arrival, in microseconds, of all arrivals, in order.
    pub fn latencies(&self) -> Vec<u64> {
        let mut latencies: Vec<u64> =
            self.messages().flat_map(|(_, message)| &message.arrivals).map(|arrival| u64::from(arrival.micros)).collect();
        latencies.sort_unstable();
        latencies
    }

    fn key(&mut self, key: u32) -> &mut (Vec<(u32, u32)>, bool) {
        let index = key as usize;
        if self.keys.len() <= index {
            self.keys.resize(index + 1, Default::default());
        }
        &mut self.keys[index]
    }

    /// Whether this life of a node lasts.
    pub fn lasts(&self, node: u32, life: u32) -> bool {
        self.lives
            .get(node as usize)
            .is_some_and(|lives| lives.len() == life as usize && lives.last().is_some_and(|life| life.until.is_none()))
    }

    /// The life of a node that lasts, with its number from 1.
    pub fn current_life(&self, node: u32) -> Option<(u32, Life)> {
        let lives = self.lives.get(node as usize)?;
        lives.last().filter(|life| life.until.is_none()).map(|life| (lives.len() as u32, *life))
    }

    /// The messages that were sent, with their numbers.
    pub fn messages(&self) -> impl Iterator<Item = (u32, &Message)> {
        self.messages.iter().enumerate().filter_map(|(number, message)| Some((number as u32, message.as_ref()?)))
    }

    /// One message.
    pub fn message(&self, number: u32) -> Option<&Message> {
        self.messages.get(number as usize)?.as_ref()
    }

    /// The keys that a node that still lives wrote and that nobody ever removed.
    pub fn keys_to_keep(&self) -> impl Iterator<Item = u32> {
        self.keys
            .iter()
            .enumerate()
            .filter(|(_, (writers, removed))| !removed && writers.iter().any(|(node, life)| self.lasts(*node, *life)))
            .map(|(key, _)| key as u32)
    }

    /// Looks at who has what lives did that are over now.
    pub fn lives_ended(&mut self, ended: &[LifeOf], view: &dyn View) {
        let lasting = living(view).into_iter().filter_map(|node| Some((node, self.current_life(node)?.0)));
        let lasting: Vec<LifeOf> = lasting.collect();
        ended.iter().for_each(|life| self.ledger.ended(*life, &lasting, &|node, place| view.read(node, place)));
    }

    /// Something that a node shows and that has expired.
    pub fn unexpired(&self, node: u32, view: &dyn View) -> Option<String> {
        self.ledger.unexpired(&|place| view.read(node, place))
    }

    /// What is to be said of the replica of a node.
    pub fn judge(&self, node: u32, view: &dyn View) -> Judgment {
        self.ledger.judge(&|(node, life)| self.lasts(node, life), &|place| view.read(node, place))
    }

    /// How many deliveries are owed, and how many of those were made.
    pub fn owed(&self) -> (u64, u64) {
        let owed = self.messages().flat_map(|(_, message)| self.must_have(message));
        owed.fold((0, 0), |(owed, had), (_, has)| (owed + 1, had + u64::from(has)))
    }

    /// The nodes that must have a message: those that have lived since before it was sent. None must when its sender died before anybody
    /// who still lives had it.
    pub fn must_have<'a>(&'a self, message: &'a Message) -> impl Iterator<Item = (u32, bool)> + 'a {
        let owed = self.lasts(message.sender, message.life)
            || (0..self.lives.len() as u32).any(|node| {
                node != message.sender && message.delivered[node as usize] > 0 && self.lasts(node, message.delivered[node as usize])
            });
        (0..self.lives.len() as u32).filter(move |node| owed && *node != message.sender).filter_map(move |node| {
            let (number, life) = self.current_life(node)?;
            (life.from <= message.sent_at).then_some((node, message.delivered[node as usize] == number))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_owed_while_somebody_alive_had_it() {
        let mut record = Record::new(3);
        let mut see = |at, node, life, what| record.take(&Seen { at, node, life, what });
        (0..3).for_each(|node| see(0, node, 1, Sight::Started));
        see(5, 0, 1, Sight::Sent { message: 0 });
        see(6, 1, 1, Sight::Delivered { message: 0, hops: 1 });
        see(7, 0, 1, Sight::Stopped);
        let owed: Vec<_> = record.must_have(record.message(0).unwrap()).collect();
        assert_eq!(owed, [(1, true), (2, false)]);
        record.take(&Seen { at: 8, node: 1, life: 1, what: Sight::Stopped });
        assert_eq!(record.must_have(record.message(0).unwrap()).count(), 0, "nobody alive had it");
        record.take(&Seen { at: 9, node: 1, life: 2, what: Sight::Started });
        assert!(!record.lasts(1, 1) && record.lasts(1, 2));
        assert_eq!(record.latencies(), [1]);
    }

    #[test]
    fn a_second_has_its_end_and_not_its_start() {
        let mut record = Record::new(2);
        let totals = |bytes| Totals { bytes, payloads: 2 * bytes, copies: bytes };
        (0..2).for_each(|node| record.take(&Seen { at: 1, node, life: 1, what: Sight::Started }));
        record.take(&Seen { at: SECOND, node: 0, life: 1, what: Sight::Sent { message: 0 } });
        record.end_second(SECOND, 2, totals(7));
        record.take(&Seen { at: SECOND + 1, node: 0, life: 1, what: Sight::Delivered { message: 0, hops: 0 } });
        record.take(&Seen { at: SECOND + 1, node: 1, life: 1, what: Sight::Delivered { message: 0, hops: 3 } });
        record.end_second(2 * SECOND, 1, totals(9));
        let second = |alive, sent, delivered, bytes| Second { alive, sent, delivered, moved: totals(bytes) };
        assert_eq!(record.seconds(), [second(2, 1, 0, 7), second(1, 0, 1, 2)]);
        assert_eq!((record.deliveries(0), record.deliveries(1)), (0, 1), "its own message counts for nobody");
        let message = record.message(0).unwrap();
        assert_eq!((message.deliveries, message.hops_max), (1, 3));
        assert_eq!(message.arrivals, [Arrival { node: 1, micros: 1 }]);
    }
}
