//! The operations that are measured, each ready to be repeated: whatever grows has grown, and nothing comes from a clock or a system generator.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{ChannelId, PeerId, Time};
use meshwork_overlay::{MessageId, hyparview, plumtree, topology};

type Operation = Box<dyn FnMut()>;
/// A name, and what makes the operation.
type Case = (&'static str, fn() -> Operation);

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    vec![("overlay/plumtree-broadcast", broadcast), ("overlay/hyparview-shuffle", shuffle)]
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes([number; 32])
}

/// A broadcast of 64 bytes that is new: delivered, kept, and passed on to four of five neighbors; the oldest one is forgotten. One arrives every 100 ms.
fn broadcast() -> Operation {
    let mut state = plumtree::State::new(peer(0), 1, plumtree::Params::default(), 7);
    let (mut now, mut actions) = (Time::from_secs(1), Vec::new());
    for number in 1..=5 {
        state.handle(plumtree::Input::NeighborUp(peer(number)), now, &mut actions);
        // All want to be in the tree.
        let message = plumtree::Message::Graft { eager: true, groups: plumtree::message::Groups::new() };
        state.handle(plumtree::Input::Received { from: peer(number), message }, now, &mut actions);
    }
    let payload = Bytes::from_static(&[7; 64]);
    let mut sequence = 0;
    // Payloads are kept for 90 seconds.
    warm(2_000, move || {
        now += Duration::from_millis(100);
        sequence += 1;
        let id = MessageId { origin: peer(9), incarnation: 1, channel: ChannelId::EVENTS, sequence };
        let message = plumtree::Message::Gossip { id, hops: 2, push: plumtree::message::Push::Eager, payload: payload.clone() };
        actions.clear();
        state.handle(plumtree::Input::Received { from: peer(1), message }, now, &mut actions);
        assert_eq!(black_box(&actions).len(), 5, "one to the application, four to neighbors");
    })
}

/// A shuffle of eight peers that ends here: its sample goes into a full passive view, and one of that view goes back.
fn shuffle() -> Operation {
    use hyparview::{Config, Message, Params, Priority, State};
    use topology::Input;
    let neighbors = Config::default().active_len_max as u8;
    let mut state = State::new(peer(0), Params::default(), 7);
    let (mut now, mut actions) = (Time::from_secs(1), Vec::new());
    for number in 1..=neighbors {
        let message = topology::Message::Hyparview(Message::Neighbor { link: u32::from(number), priority: Priority::Low });
        state.handle(Input::Received { from: peer(number), message }, now, &mut actions);
    }
    assert_eq!(state.neighbors().len(), usize::from(neighbors));
    let mut nonce = 0;
    warm(1_000, move || {
        now += Duration::from_secs(1);
        nonce += 1;
        // Peers that are no neighbors, other ones each time.
        let known = |at: u32| peer(neighbors + 1 + ((nonce * 11 + at * 3) % 200) as u8);
        let message = Message::Shuffle { origin: known(0), nonce, ttl: 1, peers: hyparview::Peers::first_of((1..8).map(known)) };
        let message = topology::Message::Hyparview(message);
        actions.clear();
        state.handle(Input::Received { from: peer(1), message }, now, &mut actions);
        assert_eq!(black_box(&actions).len(), 1, "the answer");
    })
}

/// The operation, after it was done some times.
fn warm(times: usize, mut operation: impl FnMut() + 'static) -> Operation {
    (0..times).for_each(|_| operation());
    Box::new(operation)
}
