//! Keeping the passive view fresh (section 4.5 of the paper).

use super::*;

impl<I: Identifier> State<I> {
    pub(super) fn on_shuffle_due(&mut self, now: Time, actions: &mut Vec<Action<I>>) {
        self.passive.end_pauses(now);
        if self.requests.is_empty() {
            self.requests = Vec::new();
        }
        let Some(to) = self.random_neighbor(&[]) else {
            self.shuffling = None;
            return;
        };
        self.timers.set(Key::Shuffle, now + self.params.shuffle_period.mul_f64(self.random.random_range(0.9..1.1)));
        if self.passive.len() > 0 && self.params.buggify().happens(Site::PassiveForgotten) {
            let forgotten = self.passive.pick(now, |_| false, &mut self.random);
            forgotten.map(|peer| self.passive.remove(peer));
        }
        if self.params.buggify().happens(Site::ShuffleSkipped) {
            self.shuffling = None;
            return;
        }
        let neighbors = self.active.iter().copied().filter(|peer| *peer != to);
        let mut sent = sample(neighbors, self.params.shuffle_active_len, &mut self.random);
        sent.extend(sample(self.passive.iter(), self.params.shuffle_passive_len, &mut self.random));
        let (nonce, ttl) = (self.random.random(), self.params.shuffle_walk_len);
        send(to, Message::Shuffle { origin: self.me, nonce, ttl, peers: Peers::first_of(sent.iter().copied()) }, actions);
        self.shuffling = Some(Shuffling { nonce, sent });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the message, once")]
    pub(super) fn on_shuffle(&mut self, from: I, origin: I, nonce: u32, ttl: u8, peers: Peers<I>, now: Time, actions: &mut Vec<Action<I>>) {
        self.note_origin(origin);
        let ttl = ttl.min(self.params.shuffle_walk_len).saturating_sub(1);
        if ttl > 0
            && let Some(next) = self.random_neighbor(&[from, origin])
        {
            return send(next, Message::Shuffle { origin, nonce, ttl, peers }, actions);
        }
        // As many as it gave, itself included.
        let given = (peers.len() + 1).min(SHUFFLE_LEN_MAX);
        let answer = sample(self.passive.iter().filter(|peer| *peer != origin), given, &mut self.random);
        self.learn_all(&peers, &answer);
        self.learn(origin, &answer);
        send(origin, Message::ShuffleReply { nonce, peers: Peers::first_of(answer) }, actions);
        self.fill(now, actions);
    }

    pub(super) fn on_shuffle_reply(&mut self, nonce: u32, peers: &[I], now: Time, actions: &mut Vec<Action<I>>) {
        match self.shuffling.take_if(|shuffling| shuffling.nonce == nonce) {
            Some(shuffling) => {
                self.learn_all(peers, &shuffling.sent);
                self.fill(now, actions);
            }
            // Of a shuffle that was given up on, or of an earlier life of this node: no fault, and nothing is learned from it.
            None => self.counters.count(|counters| counters.unasked += 1),
        }
    }

    pub(super) fn learn_all(&mut self, peers: &[I], spare: &[I]) {
        let mut spare = Spare::new(spare);
        for peer in peers {
            self.learn_for(*peer, &mut spare);
        }
    }

    /// Takes a peer into the passive view; in a full one, `spare` goes first (section 4.5). Says whether it is new.
    pub(super) fn learn(&mut self, peer: I, spare: &[I]) -> bool {
        self.learn_for(peer, &mut Spare::new(spare))
    }

    fn learn_for(&mut self, peer: I, spare: &mut Spare<'_, I>) -> bool {
        peer != self.me && self.link_of(peer).is_none() && self.passive.insert(peer, self.params.passive_len_max, spare, &mut self.random)
    }

    /// Up to `len` peers that `to` may try, in random order. Neighbors of ours only stand in for passive peers that we lack: two neighbors of
    /// one node that become neighbors close a triangle, which shortens no path.
    pub(super) fn candidates(&mut self, to: I, len: usize) -> Vec<I> {
        let mut peers = sample(self.passive.iter().filter(|peer| *peer != to), len, &mut self.random);
        let lacking = ACTIVE_CANDIDATES_LEN.min(len).saturating_sub(peers.len());
        let neighbors = self.active.iter().copied().filter(|peer| *peer != to);
        peers.extend(sample(neighbors, lacking, &mut self.random));
        peers.shuffle(&mut self.random);
        peers
    }
}
