//! News over the links to neighbors, for clusters in which gossip at random would dial a stranger for nearly every packet.
//!
//! Each node tells its neighbors once what it has just come to know, so that news flood the overlay; what is known already is not told on, which
//! ends the flood. A node that misses some of it hears by the updates that ride on probes, or by the next exchange.

use meshwork_channels::{Bounded, Time};
use rand::RngExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{Message, RECORDS_MAX, Record};
use super::view::Status;
use super::{Action, Key, State};
use crate::identifier::Identifier;

/// Neighbors that are told at a time. A flood over eight links of each node misses three nodes in ten thousand, and a full mesh has hundreds.
const TOLD_MAX: usize = 8;

/// Who is to hear of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell<I> {
    /// It is no news.
    Nobody,
    /// All neighbors.
    All,
    /// All neighbors but the one who told us.
    AllBut(I),
}

/// What the neighbors are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News<I> {
    /// The records, each with the peer who told us.
    records: Vec<(Record<I>, Option<I>)>,
    /// Which of many neighbors are told.
    turn: usize,
}

impl<I: Identifier> News<I> {
    /// One message for each neighbor that has something to hear; when there are many neighbors, for some of them.
    pub fn for_neighbors(&self, neighbors: &[I]) -> impl Iterator<Item = (I, Message<I>)> {
        let start = self.turn.checked_rem(neighbors.len()).unwrap_or(0);
        let told = neighbors[start..].iter().chain(&neighbors[..start]).take(TOLD_MAX);
        told.filter_map(|neighbor| {
            let is_for = |(record, teller): &&(Record<I>, Option<I>)| record.peer != *neighbor && *teller != Some(*neighbor);
            let records = Bounded::first_of(self.records.iter().filter(is_for).map(|(record, _)| *record));
            (!records.is_empty()).then_some((*neighbor, Message::News { records }))
        })
    }
}

impl<I: Identifier + Serialize + DeserializeOwned> State<I> {
    /// Whether the cluster is too large for gossip at random.
    pub(super) fn tells_neighbors(&self) -> bool {
        self.view.up_len() >= self.params.config().gossip_nodes_max
    }

    /// Notes that the neighbors are to hear of a peer.
    pub(super) fn tell(&mut self, peer: I, teller: Option<I>, now: Time) {
        if self.tells_neighbors() {
            self.news.insert(peer, teller);
            self.timers.set_if_absent(Key::News, now + self.params.news_delay());
        }
    }

    pub(super) fn on_news_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        let life = self.params.config().tombstone_life;
        let mut records = Vec::with_capacity(self.news.len().min(RECORDS_MAX));
        while records.len() < RECORDS_MAX
            && let Some((peer, teller)) = self.news.pop_first()
        {
            let known = self.view.entry(peer).filter(|entry| entry.is_settled).map(|entry| entry.record(life, now));
            let record = if peer == self.me.peer { Some(self.own_record()) } else { known };
            records.extend(record.map(|record| (record, teller)));
        }
        if !self.news.is_empty() {
            self.timers.set(Key::News, now + self.params.news_delay());
        }
        if !records.is_empty() && self.wanted.is_none() {
            self.counters.records_sent += records.len() as u64;
            actions.push(Action::News(News { records, turn: self.random.random_range(0..usize::MAX) }));
        }
    }

    /// A neighbor tells what it has just come to know. As with gossip, all of it is believed that is not too much to believe.
    pub(super) fn on_news(&mut self, from: I, records: &[Record<I>], now: Time, actions: &mut Vec<Action<I>>) {
        self.hear_from(from, now);
        let life = self.params.config().tombstone_life;
        let mut fault = None;
        let mut updates = Vec::new();
        let mut about_us = None;
        for record in records {
            if record.peer == self.me.peer {
                about_us = Some(record);
                continue;
            }
            let known = self.view.entry(record.peer);
            if known.is_some_and(|known| known.is_settled && !record.beats(&known.record(life, now))) {
                continue;
            }
            let is_in_person = record.peer == from && record.status == Status::Alive && record.fault().is_none();
            if is_in_person || self.believes(&record.identity(), now, &mut fault) {
                self.touched.push(record.peer);
                updates.push(record.update());
            }
        }
        // The flood tells it on. If it rode on probes as well, foca would go through hundreds of updates for each packet of theirs.
        self.detector.apply(updates.into_iter(), !self.tells_neighbors());
        self.refresh(Tell::AllBut(from), now);
        if let Some(what) = fault {
            super::misbehaved(from, what, actions);
        }
        if let Some(record) = about_us {
            let verdict = record.update();
            self.on_own_name(from, &record.identity(), verdict.incarnation(), verdict.state(), now, actions);
        }
    }
}
