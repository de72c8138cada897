//! What was seen so far, in the form in which invariants and metrics ask for it.

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
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    lives: Vec<Vec<Life>>,
    /// By the number of the message.
    messages: Vec<Option<Message>>,
    /// By key: the lives that wrote it, and whether anybody removed it.
    keys: Vec<(Vec<(u32, u32)>, bool)>,
    /// From sending to delivery, in microseconds, of every delivery.
    pub latencies: Vec<u64>,
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
        Record { lives: vec![Vec::new(); nodes as usize], ..Record::default() }
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
                self.messages[index] = Some(Message { sent_at: seen.at, sender: seen.node, life: seen.life, delivered });
            }
            Sight::Delivered { message, hops } => {
                if let Some(Some(message)) = self.messages.get_mut(message as usize) {
                    message.delivered[seen.node as usize] = seen.life;
                    // A life that began later gets what is still kept, which says nothing about how fast messages are.
                    let was_there = self.lives[seen.node as usize].last().is_some_and(|life| life.from <= message.sent_at);
                    if seen.node != message.sender && was_there {
                        self.latencies.push(seen.at - message.sent_at);
                        self.hops_max = self.hops_max.max(hops);
                    }
                }
            }
            Sight::Wrote { key, .. } => self.key(key).0.push((seen.node, seen.life)),
            Sight::Removed { key } => self.key(key).1 = true,
            Sight::HeldForDead { node } => match self.lives.get(node as usize).and_then(|lives| lives.last()) {
                Some(Life { until: Some(until), .. }) => self.detections.push(seen.at - until),
                _ => self.living_held_for_dead += 1,
            },
            Sight::Suspected { .. } => self.suspicions += 1,
            Sight::Accepted { .. } | Sight::Received { .. } | Sight::Garbled | Sight::Neighbors { .. } | Sight::Blamed { .. } => {}
        }
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
        assert_eq!(record.latencies, [1]);
    }
}
