//! Each invariant fails on a planted violation, and holds where there is none.

use bytes::Bytes;

use super::*;
use crate::deed::{Change, Deed};
use crate::ledger::Done;
use crate::world::Sight;

/// Four nodes in a ring that know each other and agree.
#[derive(Clone)]
struct Fake {
    alive: Vec<bool>,
    neighbors: Vec<Vec<u32>>,
    members: Vec<Vec<u32>>,
    digests: Vec<u128>,
    keys: Vec<Vec<u32>>,
    /// What each reads of every key.
    values: Vec<Option<Value>>,
}

impl Fake {
    fn whole() -> Self {
        Fake {
            alive: vec![true; 4],
            neighbors: vec![vec![1, 3], vec![0, 2], vec![1, 3], vec![0, 2]],
            members: vec![vec![0, 1, 2, 3]; 4],
            digests: vec![7; 4],
            keys: vec![vec![0]; 4],
            values: vec![set(&[1]); 4],
        }
    }
}

impl View for Fake {
    fn now(&self) -> u64 {
        9_000_000
    }
    fn nodes(&self) -> u32 {
        4
    }
    fn is_alive(&self, node: u32) -> bool {
        self.alive[node as usize]
    }
    fn visit_neighbors(&self, node: u32, visit: &mut dyn FnMut(u32)) {
        self.neighbors[node as usize].iter().for_each(|peer| visit(*peer));
    }
    fn visit_members(&self, node: u32, visit: &mut dyn FnMut(u32)) {
        self.members[node as usize].iter().for_each(|peer| visit(*peer));
    }
    fn state_digest(&self, node: u32) -> u128 {
        self.digests[node as usize]
    }
    fn has_key(&self, node: u32, key: u32) -> bool {
        self.keys[node as usize].contains(&key)
    }
    fn read(&self, node: u32, _: Place) -> Option<Value> {
        self.values[node as usize].clone()
    }
}

fn set(members: &[u64]) -> Option<Value> {
    Some(Value::Set(members.iter().map(|member| Bytes::copy_from_slice(&member.to_le_bytes())).collect()))
}

fn record() -> Record {
    let mut record = Record::new(4);
    let mut see = |at, node, what| record.take(&Seen { at, node, life: 1, what });
    (0..4).for_each(|node| see(0, node, Sight::Started));
    see(1, 0, Sight::Sent { message: 0 });
    (1..4).for_each(|node| see(2, node, Sight::Delivered { message: 0, hops: 1 }));
    see(3, 2, Sight::Wrote { key: 0, write: 0 });
    let mut change = |at, node, deed| {
        let change = Change { place: Place { kind: meshwork::crdt::Kind::Set, key: 0 }, deed };
        see(at, node, Sight::Changed(Box::new(Done { change, stamp: at, saw: Vec::new() })));
    };
    change(4, 1, Deed::Insert { member: 1 });
    change(5, 1, Deed::Insert { member: 2 });
    change(6, 3, Deed::Take { member: 2 });
    record
}

/// The names of the invariants that a view breaks.
fn broken(view: &Fake, record: &Record) -> Vec<(&'static str, u32)> {
    let all = all(Bounds { neighbors_max: 2 });
    all.iter().filter_map(|invariant| invariant.check(view, record).err().map(|violation| (invariant.name(), violation.node))).collect()
}

/// The name of the invariant that a sight breaks.
fn broken_by(what: Sight) -> Vec<&'static str> {
    let seen = Seen { at: 5, node: 1, life: 1, what };
    all(Bounds { neighbors_max: 2 })
        .iter_mut()
        .filter_map(|invariant| invariant.see(&seen, &record()).err().map(|_| invariant.name()))
        .collect()
}

#[test]
fn a_whole_cluster_breaks_nothing() {
    assert_eq!(broken(&Fake::whole(), &record()), []);
    assert!(broken_by(Sight::Neighbors { len: 2 }).is_empty());
}

#[test]
fn a_second_delivery_and_an_invented_one_are_noticed() {
    assert_eq!(broken_by(Sight::Delivered { message: 0, hops: 1 }), ["delivered_once"]);
    assert_eq!(broken_by(Sight::Delivered { message: 5, hops: 1 }), ["delivered_once"]);
    assert_eq!(broken_by(Sight::Garbled), ["delivered_once"]);
}

#[test]
fn too_many_neighbors_and_blame_are_noticed() {
    assert_eq!(broken_by(Sight::Neighbors { len: 3 }), ["bounded_views"]);
    assert_eq!(broken_by(Sight::Blamed { node: 2, rule: "own_name" }), ["no_misbehavior"]);
}

#[test]
fn a_disk_that_lacks_what_was_synced_is_noticed() {
    assert_eq!(broken_by(Sight::Restored { fault: Some("planted".to_owned()) }), ["durable_kept"]);
    assert!(broken_by(Sight::Restored { fault: None }).is_empty());
}

#[test]
fn a_neighbor_on_one_side_or_dead_is_noticed() {
    let mut view = Fake::whole();
    view.neighbors[3].retain(|peer| *peer != 2);
    assert_eq!(broken(&view, &record()), [("neighbors_symmetric", 2)]);
    let mut view = Fake::whole();
    view.alive[3] = false;
    view.members.iter_mut().for_each(|members| members.retain(|member| *member != 3));
    assert_eq!(broken(&view, &record()), [("neighbors_symmetric", 0)]);
}

#[test]
fn two_components_are_noticed() {
    let mut view = Fake::whole();
    view.neighbors = vec![vec![1], vec![0], vec![3], vec![2]];
    assert_eq!(broken(&view, &record()), [("one_component", 2)]);
}

#[test]
fn a_member_too_few_and_one_too_many_are_noticed() {
    let mut view = Fake::whole();
    view.members[2].retain(|member| *member != 0);
    assert_eq!(broken(&view, &record()), [("views_complete", 2)]);
    let mut view = Fake::whole();
    view.alive[3] = false;
    view.neighbors = vec![vec![1], vec![0, 2], vec![1], vec![]];
    view.members[1].retain(|member| *member != 3);
    assert_eq!(broken(&view, &record()), [("views_complete", 0)]);
}

#[test]
fn a_missed_message_is_noticed() {
    let mut record = record();
    record.take(&Seen { at: 4, node: 3, life: 1, what: Sight::Sent { message: 1 } });
    (0..2).for_each(|node| record.take(&Seen { at: 5, node, life: 1, what: Sight::Delivered { message: 1, hops: 1 } }));
    assert_eq!(broken(&Fake::whole(), &record), [("delivered_to_all_survivors", 2)]);
}

#[test]
fn another_state_and_a_lost_write_are_noticed() {
    let mut view = Fake::whole();
    view.digests[1] = 8;
    assert_eq!(broken(&view, &record()), [("state_converged", 1)]);
    let mut view = Fake::whole();
    view.keys = vec![vec![]; 4];
    assert_eq!(broken(&view, &record()), [("writes_kept", 0)]);
}

#[test]
fn a_lost_member_and_one_that_is_back_are_noticed() {
    let mut view = Fake::whole();
    view.values[3] = set(&[]);
    assert_eq!(broken(&view, &record()), [("nothing_lost", 3)]);
    view.values[3] = set(&[1, 2]);
    assert_eq!(broken(&view, &record()), [("nothing_resurrected", 3)]);
}

#[test]
fn what_a_dead_node_did_is_owed_while_somebody_who_was_seen_to_have_it_lives() {
    let without = |is_seen: bool| {
        let mut view = Fake::whole();
        view.alive[1] = false;
        let mut record = record();
        record.take(&Seen { at: 7, node: 1, life: 1, what: Sight::Stopped });
        if !is_seen {
            view.values = vec![set(&[]); 4];
        }
        record.lives_ended(&[(1, 1)], &view);
        view.values = vec![set(&[]); 4];
        broken(&view, &record).into_iter().any(|(name, _)| name == "nothing_lost")
    };
    assert!(without(true) && !without(false));
}
