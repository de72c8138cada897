//! One core between neighbors that are played by hand: the rules of the paper by section, then what goes beyond it.

use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::{ChannelId, Misbehavior, Time};

use super::super::message::{Groups, LinkNews, Message, Packer, Push};
use super::super::{Action, BroadcastError, Config, Improvement, Input, MessageId, Params, State};

pub(super) type Id = MessageId<u32>;

pub(super) const ME: u32 = 1;

pub(super) fn id(origin: u32, sequence: u64) -> Id {
    MessageId { origin, incarnation: 1, channel: ChannelId::EVENTS, sequence }
}

pub(super) fn groups(ids: impl IntoIterator<Item = Id>) -> Groups<u32> {
    groups_with_hops(ids.into_iter().map(|id| (id, 0)))
}

pub(super) fn groups_with_hops(ids: impl IntoIterator<Item = (Id, u16)>) -> Groups<u32> {
    let mut lists = Packer::pack(ids);
    assert!(lists.len() < 2);
    lists.pop().unwrap_or_default()
}

pub(super) fn held(ids: impl IntoIterator<Item = Id>) -> Message<u32> {
    Message::IHave { link: LinkNews::Same, groups: groups(ids) }
}

pub(super) fn fresh(id: Id, hops: u16) -> Message<u32> {
    Message::IHave { link: LinkNews::Same, groups: groups_with_hops([(id, hops)]) }
}

pub(super) fn graft(eager: bool, ids: impl IntoIterator<Item = Id>) -> Message<u32> {
    Message::Graft { eager, groups: groups(ids) }
}

pub(super) fn prune() -> Message<u32> {
    Message::Prune { shape: 0 }
}

pub(super) fn gone(ids: impl IntoIterator<Item = Id>) -> Message<u32> {
    Message::Gone { groups: groups(ids) }
}

pub(super) fn gossip(id: Id, hops: u16, push: Push) -> Message<u32> {
    Message::Gossip { id, hops, push, payload: Bytes::from_static(b"payload") }
}

/// A core, and the moment it lives in.
pub(super) struct Node {
    pub(super) state: State<u32>,
    pub(super) now: Time,
}

impl Node {
    pub(super) fn new(config: Config, neighbors: impl IntoIterator<Item = u32>) -> Node {
        let state = State::new(ME, 1, config.build().unwrap(), 1);
        let mut node = Node { state, now: Time::from_secs(10) };
        for peer in neighbors {
            let actions = node.up(peer);
            assert_eq!(actions, [send(peer, Message::IHave { link: LinkNews::Opened, groups: Groups::new() })]);
        }
        node
    }

    pub(super) fn handle(&mut self, input: Input<u32>) -> Vec<Action<u32>> {
        let mut actions = Vec::new();
        self.state.handle(input, self.now, &mut actions);
        actions
    }

    pub(super) fn up(&mut self, peer: u32) -> Vec<Action<u32>> {
        self.handle(Input::NeighborUp(peer))
    }

    pub(super) fn receive(&mut self, from: u32, message: Message<u32>) -> Vec<Action<u32>> {
        self.handle(Input::Received { from, message })
    }

    pub(super) fn broadcast(&mut self) -> (Id, Vec<Action<u32>>) {
        let mut actions = Vec::new();
        let id = self.state.broadcast(ChannelId::EVENTS, Bytes::from_static(b"payload"), self.now, &mut actions).unwrap();
        (id, actions)
    }

    /// Everything that falls due within the duration.
    pub(super) fn wait(&mut self, duration: Duration) -> Vec<Action<u32>> {
        let end = self.now + duration;
        let mut actions = Vec::new();
        while let Some(due) = self.state.next_deadline()
            && due <= end
        {
            self.now = self.now.max(due);
            self.state.handle(Input::DeadlineReached, self.now, &mut actions);
        }
        self.now = end;
        actions
    }

    /// The same without the summaries, which are tested on their own.
    pub(super) fn wait_for_repair(&mut self, millis: u64) -> Vec<Action<u32>> {
        let mut actions = self.wait(Duration::from_millis(millis));
        actions.retain(|action| !matches!(action, Action::Send { message: Message::IHave { .. }, .. }));
        actions
    }

    pub(super) fn eager(&self) -> Vec<u32> {
        self.state.neighbors().filter(|(_, eager)| *eager).map(|(peer, _)| peer).collect()
    }
}

pub(super) fn send(to: u32, message: Message<u32>) -> Action<u32> {
    Action::Send { to, message }
}

pub(super) fn deliver(id: Id, from: u32, hops: u16) -> Action<u32> {
    Action::Deliver { id, payload: Bytes::from_static(b"payload"), from, hops }
}

/// Summaries far away, so that they do not stand among what is expected, and the tree as the paper makes it: by every payload, not by a flood.
pub(super) fn quiet() -> Config {
    let without = vec![Improvement::RootedTree];
    Config { summary_period: Duration::from_secs(3_600), optimization_threshold: Some(3), without, ..Config::default() }
}

/// The same with summaries.
pub(super) fn loud() -> Config {
    Config { summary_period: Config::default().summary_period, ..quiet() }
}

#[test]
fn a_first_payload_is_delivered_and_pushed_to_the_other_eager_neighbors() {
    // Section 3.4.
    let mut node = Node::new(quiet(), [2, 3, 4]);
    let first = id(9, 1);
    assert_eq!(
        node.receive(2, gossip(first, 3, Push::Eager)),
        [deliver(first, 2, 3), send(3, gossip(first, 4, Push::Eager)), send(4, gossip(first, 4, Push::Eager))]
    );
    assert!(node.state.is_seen(&first));
}

#[test]
fn a_broadcast_is_pushed_and_not_delivered_to_its_sender() {
    let mut node = Node::new(quiet(), [2, 3]);
    let (first, actions) = node.broadcast();
    assert_eq!(first, id(ME, 1));
    assert_eq!(actions, [send(2, gossip(first, 1, Push::Eager)), send(3, gossip(first, 1, Push::Eager))]);
    assert_eq!(node.broadcast().0, id(ME, 2), "without gaps");
    let mut actions = Vec::new();
    let other = node.state.broadcast(ChannelId::DATA, Bytes::new(), node.now, &mut actions).unwrap();
    assert_eq!(other.sequence, 1, "each channel counts for itself");
}

#[test]
fn a_payload_that_is_too_large_is_refused_and_uses_no_number() {
    let mut node = Node::new(Config { payload_len_max: 3, ..quiet() }, [2]);
    let mut actions = Vec::new();
    let refused = node.state.broadcast(ChannelId::EVENTS, Bytes::from_static(b"four"), node.now, &mut actions);
    assert_eq!(refused, Err(BroadcastError::TooLarge { len: 4, len_max: 3 }));
    assert_eq!(actions, []);
    let accepted = node.state.broadcast(ChannelId::EVENTS, Bytes::from_static(b"abc"), node.now, &mut actions);
    assert_eq!(accepted, Ok(id(ME, 1)));
}

#[test]
fn a_duplicate_prunes_the_link_once() {
    // Section 3.5.
    let mut node = Node::new(quiet(), [2, 3]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    assert_eq!(node.receive(3, gossip(id(9, 1), 1, Push::Eager)), [send(3, prune())]);
    assert_eq!(node.eager(), [2]);
    // The next one was already on its way.
    node.receive(2, gossip(id(9, 2), 1, Push::Eager));
    assert_eq!(node.receive(3, gossip(id(9, 2), 1, Push::Eager)), []);
    // This one was not: the prune was lost.
    node.wait(Duration::from_secs(2));
    assert_eq!(node.receive(3, gossip(id(9, 2), 1, Push::Eager)), [send(3, prune())]);
    assert_eq!(node.state.counters().duplicates, 3);
}

#[test]
fn the_last_way_into_the_tree_is_not_pruned() {
    let mut node = Node::new(quiet(), [2, 3]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.handle(Input::NeighborDown(2));
    assert_eq!(node.receive(3, gossip(id(9, 1), 1, Push::Eager)), [], "who brought it first is gone");
    assert_eq!(node.eager(), [3]);
    // Our own message comes back over the only eager link.
    let (own, _) = node.broadcast();
    assert_eq!(node.receive(3, gossip(own, 2, Push::Eager)), []);
    // The same payload twice over one link, as when a graft and the tree cross.
    node.receive(3, gossip(id(9, 2), 1, Push::Eager));
    assert_eq!(node.receive(3, gossip(id(9, 2), 1, Push::Eager)), []);
    assert_eq!(node.eager(), [3]);
}

#[test]
fn payloads_that_repair_shape_no_tree() {
    let mut node = Node::new(quiet(), [2, 3, 4]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.receive(3, prune());
    for push in [Push::Answer, Push::Late] {
        assert_eq!(node.receive(3, gossip(id(9, 1), 1, push)), []);
        assert_eq!(node.receive(4, gossip(id(9, 1), 1, push)), []);
    }
    // New to us, but late: it goes on as late, and its bringer stays lazy.
    let late = id(9, 2);
    assert_eq!(
        node.receive(3, gossip(late, 5, Push::Late)),
        [deliver(late, 3, 5), send(2, gossip(late, 6, Push::Late)), send(4, gossip(late, 6, Push::Late))]
    );
    assert_eq!(node.eager(), [2, 4]);
}

#[test]
fn a_lazy_neighbor_is_told_in_batches() {
    // Section 3.4: lazy push; the batch is the optimization that the paper leaves to the implementation.
    let mut node = Node::new(quiet(), [2, 3]);
    assert_eq!(node.receive(3, prune()), []);
    for sequence in 1..=3 {
        assert_eq!(node.receive(2, gossip(id(9, sequence), 2, Push::Eager)).len(), 1);
    }
    assert_eq!(node.wait(Duration::from_millis(4)), []);
    let batch = Message::IHave { link: LinkNews::Same, groups: groups_with_hops((1..=3).map(|sequence| (id(9, sequence), 3))) };
    assert_eq!(node.wait(Duration::from_millis(1)), [send(3, batch)]);
    assert_eq!(node.wait(Duration::from_secs(1)), [], "once");
    // What it announces itself need not be announced to it.
    node.receive(2, gossip(id(9, 4), 2, Push::Eager));
    node.receive(3, fresh(id(9, 4), 2));
    assert_eq!(node.wait(Duration::from_secs(1)), []);
}

#[test]
fn what_is_announced_and_does_not_come_is_grafted() {
    // Section 3.6.
    let mut node = Node::new(quiet(), [2, 3]);
    node.receive(2, prune());
    let missing = id(9, 1);
    assert_eq!(node.receive(2, fresh(missing, 4)), []);
    assert_eq!(node.wait_for_repair(199), []);
    assert_eq!(node.wait_for_repair(1), [send(2, graft(true, [missing]))]);
    assert_eq!(node.eager(), [2, 3], "the link joins the tree");
    assert_eq!(node.receive(2, gossip(missing, 4, Push::Answer)), [deliver(missing, 2, 4), send(3, gossip(missing, 5, Push::Eager))]);
    assert_eq!(node.wait_for_repair(60_000), []);
    assert_eq!(node.state.missing_len(), 0);
}

#[test]
fn what_the_tree_brings_in_time_is_not_grafted() {
    let mut node = Node::new(quiet(), [2, 3]);
    node.receive(2, fresh(id(9, 1), 4));
    node.wait(Duration::from_millis(150));
    assert_eq!(node.receive(3, gossip(id(9, 1), 6, Push::Eager)), [deliver(id(9, 1), 3, 6)], "the announcer has it");
    assert_eq!(node.wait_for_repair(60_000), []);
    // The tree lags: the next wait is longer than the one that was configured.
    node.receive(2, fresh(id(9, 2), 4));
    assert_eq!(node.wait_for_repair(300), []);
    assert_eq!(node.wait_for_repair(200), [send(2, graft(true, [id(9, 2)]))]);
}

#[test]
fn a_graft_is_answered_and_puts_the_link_into_the_tree() {
    let mut node = Node::new(quiet(), [2, 3]);
    let (own, _) = node.broadcast();
    node.receive(3, prune());
    assert_eq!(node.receive(3, graft(true, [own])), [send(3, gossip(own, 1, Push::Answer))]);
    assert_eq!(node.eager(), [2, 3]);
    // What is not held is never met with silence.
    assert_eq!(
        node.receive(3, graft(false, [own, id(9, 1), id(9, 2)])),
        [send(3, gossip(own, 1, Push::Answer)), send(3, gone([id(9, 1), id(9, 2)]))]
    );
    // A peer that is no neighbor any more is answered too: its request was on its way.
    assert_eq!(node.receive(8, graft(true, [id(9, 1)])), [send(8, gone([id(9, 1)]))]);
}

#[test]
fn the_next_announcer_is_asked_after_a_timeout_and_after_gone() {
    let mut node = Node::new(quiet(), [2, 3, 4]);
    let missing = id(9, 1);
    for peer in [2, 3, 4] {
        node.receive(peer, held([missing]));
    }
    assert_eq!(node.wait_for_repair(200), [send(2, graft(false, [missing]))], "a repair leaves the tree alone");
    assert_eq!(node.wait_for_repair(499), []);
    assert_eq!(node.wait_for_repair(1), [send(3, graft(false, [missing]))]);
    assert_eq!(node.receive(3, gone([missing])), [send(4, graft(false, [missing]))]);
    assert_eq!(node.receive(4, gone([missing])), [], "all were asked");
    assert_eq!(node.wait_for_repair(499), []);
    assert_eq!(node.wait_for_repair(1), [send(2, graft(false, [missing]))], "the first is asked again");
    assert_eq!(node.receive(2, gone([missing])), []);
    assert_eq!(node.state.missing_len(), 0, "nobody is left");
    assert_eq!(node.state.counters().missing_given_up, 1);
    // Until somebody announces it again.
    node.receive(3, held([missing]));
    assert_eq!(node.wait_for_repair(200), [send(3, graft(false, [missing]))]);
}

#[test]
fn a_lost_neighbor_is_replaced_at_once() {
    // Section 3.7.
    let mut node = Node::new(quiet(), [2, 3]);
    node.receive(2, held([id(9, 1), id(9, 2)]));
    node.receive(3, held([id(9, 2)]));
    assert_eq!(node.wait_for_repair(200), [send(2, graft(false, [id(9, 1), id(9, 2)]))]);
    assert_eq!(node.handle(Input::NeighborDown(2)), [send(3, graft(false, [id(9, 2)]))]);
    assert_eq!(node.state.missing_len(), 1);
    assert_eq!(node.handle(Input::NeighborDown(3)), []);
    assert_eq!(node.state.missing_len(), 0);
    assert_eq!(node.handle(Input::NeighborDown(3)), []);
    assert_eq!(node.state.next_deadline(), None, "an idle node needs no waking");
}

#[test]
fn an_announcer_that_never_answers_is_given_up() {
    let mut node = Node::new(quiet(), [2]);
    node.receive(2, held([id(9, 1)]));
    let actions = node.wait_for_repair(600_000);
    assert_eq!(actions.len(), 8);
    assert!(actions.iter().all(|action| *action == send(2, graft(false, [id(9, 1)]))));
    assert_eq!(node.state.missing_len(), 0);
}

#[test]
fn open_requests_to_a_neighbor_have_a_bound() {
    let mut node = Node::new(Config { asked_max: 10, ..quiet() }, [2]);
    node.receive(2, held((1..=25).map(|sequence| id(9, sequence))));
    assert_eq!(node.wait_for_repair(200), [send(2, graft(false, (1..=10).map(|sequence| id(9, sequence))))]);
    for sequence in 1..=4 {
        assert_eq!(node.receive(2, gossip(id(9, sequence), 1, Push::Answer)).len(), 1);
    }
    // Half of the room is free: one request fills it.
    assert_eq!(node.receive(2, gossip(id(9, 5), 1, Push::Answer))[1], send(2, graft(false, (11..=15).map(|sequence| id(9, sequence)))));
    for sequence in 6..=25 {
        node.receive(2, gossip(id(9, sequence), 1, Push::Answer));
    }
    assert_eq!(node.state.missing_len(), 0);
    assert_eq!(node.state.counters().grafts_sent, 25);
    assert_eq!(node.state.counters().delivered, 25);
}

#[test]
fn a_second_announcer_takes_what_the_first_has_no_room_for() {
    let mut node = Node::new(Config { asked_max: 10, ..quiet() }, [2, 3]);
    for peer in [2, 3] {
        node.receive(peer, held((1..=25).map(|sequence| id(9, sequence))));
    }
    assert_eq!(
        node.wait_for_repair(200),
        [send(2, graft(false, (1..=10).map(|sequence| id(9, sequence)))), send(3, graft(false, (11..=20).map(|sequence| id(9, sequence))))]
    );
    assert_eq!(node.handle(Input::NeighborDown(2)), [], "the other has no room yet; what the first was asked for waits for it");
    for sequence in 11..=15 {
        let actions = node.receive(3, gossip(id(9, sequence), 1, Push::Answer));
        assert_eq!(actions.len(), if sequence == 15 { 2 } else { 1 });
    }
    assert_eq!(node.state.missing_len(), 20);
}

#[test]
fn requests_stay_within_half_of_the_limit_of_the_other_side() {
    let config = Config { graft_burst: 20, grafts_per_second: 20, ..quiet() };
    let mut asker = Node::new(config, [2]);
    asker.receive(2, held((1..=40).map(|sequence| id(9, sequence))));
    let mut asked = 0;
    for _ in 0..400 {
        for action in asker.wait_for_repair(10) {
            let Action::Send { message: Message::Graft { groups, .. }, .. } = action else { panic!("only grafts are sent") };
            for group in &groups {
                for range in &group.ranges {
                    for sequence in range.first..=range.last() {
                        asked += 1;
                        asker.receive(2, gossip(id(9, sequence), 1, Push::Answer));
                    }
                }
            }
        }
    }
    assert_eq!(asked, 40);
    assert_eq!(asker.state.counters().grafts_timed_out, 0);
    assert_eq!(asker.state.missing_len(), 0);
}

#[test]
fn a_nearer_announcer_takes_the_place_in_the_tree() {
    // Section 3.8. What is announced after its payload came by links that are slower, however few they are.
    let mut node = Node::new(Config { optimization_threshold: Some(7), ..quiet() }, [2, 3]);
    node.receive(3, prune());
    node.receive(2, gossip(id(9, 1), 9, Push::Eager));
    assert_eq!(node.receive(3, fresh(id(9, 1), 1)), []);
    node.receive(3, fresh(id(9, 2), 3));
    let actions = node.receive(2, gossip(id(9, 2), 9, Push::Eager));
    assert_eq!(actions, [deliver(id(9, 2), 2, 9)], "six links are below the threshold");
    node.receive(3, held([id(9, 3)]));
    let actions = node.receive(2, gossip(id(9, 3), 9, Push::Eager));
    assert_eq!(actions, [deliver(id(9, 3), 2, 9)], "what is held says nothing about the tree");
    node.receive(3, fresh(id(9, 4), 2));
    let actions = node.receive(2, gossip(id(9, 4), 9, Push::Eager));
    assert_eq!(actions, [send(3, graft(true, [])), send(2, prune()), deliver(id(9, 4), 2, 9)]);
    assert_eq!(node.eager(), [3]);
}

#[test]
fn a_new_neighbor_is_told_what_is_held() {
    let mut node = Node::new(quiet(), [2]);
    let (own, _) = node.broadcast();
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.receive(2, gossip(id(9, 2), 1, Push::Eager));
    let backlog = |link| Message::IHave { link, groups: groups([own, id(9, 1), id(9, 2)]) };
    assert_eq!(node.up(3), [send(3, backlog(LinkNews::Opened))]);
    assert_eq!(node.up(3), [], "it is a neighbor already");
    // The link is new on both sides: nothing was missed.
    assert_eq!(node.receive(3, Message::IHave { link: LinkNews::Opened, groups: Groups::new() }), []);
    // The other side threw ours away, since we were no neighbor of it yet.
    assert_eq!(
        node.receive(3, Message::IHave { link: LinkNews::OpenedUnheard, groups: Groups::new() }),
        [send(3, backlog(LinkNews::Same))]
    );
    assert_eq!(node.receive(3, Message::IHave { link: LinkNews::OpenedUnheard, groups: Groups::new() }), [], "not again so soon");
    // The other side replaced the link, and we did not notice.
    node.wait(Duration::from_secs(5));
    assert_eq!(node.receive(3, Message::IHave { link: LinkNews::Opened, groups: Groups::new() }), [send(3, backlog(LinkNews::Same))]);
    // After the retention there is nothing left to tell.
    node.wait(Duration::from_secs(90));
    assert_eq!(node.up(4), [send(4, Message::IHave { link: LinkNews::Opened, groups: Groups::new() })]);
}

#[test]
fn an_announcement_that_came_before_the_neighbor_is_asked_for_again() {
    let mut node = Node::new(quiet(), []);
    assert_eq!(node.receive(2, held([id(9, 1)])), []);
    assert_eq!(node.state.missing_len(), 0);
    assert_eq!(node.up(2), [send(2, Message::IHave { link: LinkNews::OpenedUnheard, groups: Groups::new() })]);
    // A payload of a peer that is no neighbor is welcome all the same.
    assert_eq!(node.receive(3, gossip(id(9, 1), 2, Push::Eager))[0], deliver(id(9, 1), 3, 2));
}

#[test]
fn what_is_sent_without_a_neighbor_waits_for_one() {
    let mut node = Node::new(quiet(), []);
    let (own, actions) = node.broadcast();
    assert_eq!(actions, []);
    node.wait(Duration::from_secs(60));
    assert_eq!(node.up(2), [send(2, Message::IHave { link: LinkNews::Opened, groups: groups([own]) })]);
}

#[test]
fn a_sender_whose_links_are_all_lazy_pushes_over_one_of_them() {
    let mut node = Node::new(quiet(), [2, 3, 4]);
    for peer in [2, 3, 4] {
        node.receive(peer, prune());
    }
    let (own, actions) = node.broadcast();
    assert_eq!(node.eager().len(), 1);
    assert_eq!(actions, [send(node.eager()[0], gossip(own, 1, Push::Eager))]);
}

#[test]
fn a_summary_goes_to_one_neighbor_in_each_period_until_all_were_told() {
    let mut node = Node::new(loud(), [2, 3, 4]);
    node.receive(3, prune());
    let (own, _) = node.broadcast();
    node.wait(Duration::from_millis(5));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(node.wait(Duration::from_secs(5)));
    }
    assert_eq!(told.len(), 3);
    for peer in [2, 3, 4] {
        assert!(told.contains(&send(peer, held([own]))), "{peer} got its turn");
    }
    // What a neighbor sent itself it is not told.
    node.receive(2, gossip(id(9, 1), 1, Push::Answer));
    node.wait(Duration::from_millis(5));
    let told = node.wait(Duration::from_secs(40));
    assert!(told.len() == 2 && told.contains(&send(3, held([id(9, 1)]))) && told.contains(&send(4, held([id(9, 1)]))), "{told:?}");
    assert_eq!(node.state.payloads_len(), 2);
    assert_eq!(node.wait(Duration::from_secs(100)), [], "everybody was told everything");
    assert_eq!((node.state.payloads_len(), node.state.next_deadline()), (0, None), "nothing is held, so nothing is due");
}

#[test]
fn a_summary_without_room_goes_on_where_it_stopped() {
    let mut node = Node::new(Config { summary_bytes_max: 256, ..loud() }, [2, 3]);
    for origin in 10..60 {
        node.receive(2, gossip(id(origin, 1), 1, Push::Eager));
    }
    let mut told = Vec::new();
    for action in node.wait(Duration::from_secs(60)) {
        let Action::Send { to: 3, message: Message::IHave { groups, .. } } = action else { panic!("only announcements to 3 are due") };
        assert!(groups.len() < 30);
        told.extend(groups.iter().map(|group| group.stream.origin));
    }
    assert_eq!(told, (10..60).collect::<Vec<_>>(), "each once, in the order of arrival");
}

/// In a network that lost 30 % a link stood still; each request that timed out made room for another, and then all arrived at once.
#[test]
fn a_link_that_stands_still_brings_no_more_requests_than_are_allowed_at_once() {
    let mut asker = Node::new(Config { answer_wait: Duration::from_millis(200), ..quiet() }, 2..10);
    let announced = held((1..=10_000).map(|sequence| id(9, sequence)));
    let mut actions: Vec<_> = (2..10).flat_map(|peer| asker.receive(peer, announced.clone())).collect();
    actions.extend(asker.wait(Duration::from_secs(20)));
    let grafts: Vec<_> = actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Send { to: 2, message: message @ Message::Graft { .. } } => Some(message),
            _ => None,
        })
        .collect();
    let asked = |message: &Message<u32>| match message {
        Message::Graft { groups, .. } => groups.iter().flat_map(|group| group.ranges.iter()).map(|range| range.len()).sum(),
        _ => 0_u64,
    };
    let sum: u64 = grafts.iter().map(asked).sum();
    assert!(sum > 1_024, "some were taken for lost: {sum}");
    let mut answerer = Node::new(quiet(), [1_001]);
    for graft in grafts {
        let answers = answerer.receive(1_001, graft);
        assert!(!answers.iter().any(|action| matches!(action, Action::Misbehaved { .. })), "of {sum}");
    }
    // What it answers makes room for as many.
    let mut more: Vec<_> = (1..=600).flat_map(|sequence| asker.receive(2, gossip(id(9, sequence), 1, Push::Answer))).collect();
    more.extend(asker.wait(Duration::from_secs(5)));
    let more = more.into_iter().map(|action| match action {
        Action::Send { to: 2, message } => asked(&message),
        _ => 0,
    });
    assert!(more.sum::<u64>() >= 600);
}

#[test]
fn retention_is_bounded_by_number_and_bytes() {
    let mut node = Node::new(Config { payloads_max: 3, payload_bytes_max: 14, ..quiet() }, [2, 3]);
    node.receive(2, gossip(id(9, 1), 1, Push::Eager));
    node.receive(2, gossip(id(9, 2), 1, Push::Eager));
    node.receive(2, gossip(id(9, 3), 1, Push::Eager));
    assert_eq!((node.state.payloads_len(), node.state.payload_bytes()), (2, 14), "seven bytes each");
    assert_eq!(node.state.counters().payloads_evicted, 1);
    assert_eq!(node.receive(3, graft(false, [id(9, 1)])), [send(3, gone([id(9, 1)]))]);
    // It was delivered, so it is not delivered again.
    assert_eq!(node.receive(3, gossip(id(9, 1), 1, Push::Answer)), []);
}

#[test]
fn messages_of_an_earlier_life_are_delivered_to_the_next_one() {
    let mut node = Node::new(quiet(), [2]);
    let earlier = MessageId { incarnation: 0, ..id(ME, 7) };
    assert_eq!(node.receive(2, gossip(earlier, 2, Push::Answer)), [deliver(earlier, 2, 2)]);
    assert_eq!(node.receive(2, gossip(id(ME, 1), 2, Push::Eager)), [Action::Misbehaved { peer: 2, what: Misbehavior::OwnName }]);
}

#[test]
fn params_are_shared() {
    let params = Params::default();
    assert_eq!(params.config(), &Config::default());
    assert_eq!(size_of_val(&params), size_of::<usize>());
}
