//! What foca 2.0.0 does with a suspicion that was refuted in time, and that this adapter does not let it.

use std::num::NonZeroU32;

use foca::{AccumulatingRuntime, Foca, OwnedNotification, PostcardCodec};

use super::*;

/// An identity that renews itself, as foca's users have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Renewing {
    name: u8,
    generation: u8,
}

impl foca::Identity for Renewing {
    type Addr = u8;

    fn renew(&self) -> Option<Self> {
        Some(Renewing { generation: self.generation + 1, ..*self })
    }

    fn addr(&self) -> u8 {
        self.name
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.generation > adversary.generation
    }
}

type Bare = Foca<Renewing, PostcardCodec, Generator, foca::NoCustomBroadcast>;
type Out = AccumulatingRuntime<Renewing>;

fn timer(out: &mut Out, is: impl Fn(&Timer<Renewing>) -> bool) -> Timer<Renewing> {
    std::iter::from_fn(|| out.to_schedule()).map(|(_, timer)| timer).find(is).expect("foca asked for it")
}

/// Delivers everything that waits, until nothing does.
fn deliver(a: &mut (Bare, Out), b: &mut (Bare, Out)) {
    loop {
        if let Some((_, bytes)) = a.1.to_send() {
            b.0.handle_data(&bytes, &mut b.1).unwrap();
        } else if let Some((_, bytes)) = b.1.to_send() {
            a.0.handle_data(&bytes, &mut a.1).unwrap();
        } else {
            return;
        }
    }
}

/// If this fails, foca has been mended: the check before a verdict may then be a second one.
#[test]
fn bare_foca_tells_a_healthy_member_that_it_is_dead() {
    let node = |name| {
        let me = Renewing { name, generation: 0 };
        let config = foca::Config::new_lan(NonZeroU32::new(2).unwrap());
        (Foca::new(me, config, generator(1, "upstream", u64::from(name)), PostcardCodec), Out::new())
    };
    let (mut a, mut b) = (node(1), node(2));
    a.0.announce(*b.0.identity(), &mut a.1).unwrap();
    deliver(&mut a, &mut b);

    // The ping of A is lost, and so is all help; B becomes a suspect.
    let probe = timer(&mut a.1, |timer| matches!(timer, Timer::ProbeRandomMember(_)));
    a.0.handle_timer(probe, &mut a.1).unwrap();
    while a.1.to_send().is_some() {}
    let mut due: Vec<_> = std::iter::from_fn(|| a.1.to_schedule()).map(|(_, timer)| timer).collect();
    due.sort();
    for timer in due {
        a.0.handle_timer(timer, &mut a.1).unwrap();
    }
    let verdict = timer(&mut a.1, |timer| matches!(timer, Timer::ChangeSuspectToDown { .. }));

    // The next ping arrives with the suspicion, and B refutes it.
    deliver(&mut a, &mut b);
    let known = a.0.iter_membership_state().next().unwrap();
    assert_eq!((known.incarnation(), known.state()), (1, Verdict::Alive));

    while b.1.to_notify().is_some() {}
    a.0.handle_timer(verdict, &mut a.1).unwrap();
    deliver(&mut a, &mut b);
    let told: Vec<_> = std::iter::from_fn(|| b.1.to_notify()).collect();
    assert!(told.contains(&OwnedNotification::Rejoin(Renewing { name: 2, generation: 1 })), "{told:?}");
}

#[test]
fn here_a_suspicion_that_was_refuted_has_no_end() {
    let mut net = Network::formed(2, 1);
    // Every datagram is lost until each holds the other suspect, then none.
    net.loss = 1.0;
    while net.hosts.values().any(|host| host.state.suspicions.is_empty()) {
        net.run(ms(1));
    }
    assert!(net.events.iter().any(|(_, _, event)| matches!(event, Event::Suspected(_))));
    net.loss = 0.0;
    net.run(secs(20));
    let refuted: u64 = net.hosts.values().map(|host| host.state.counters().suspicions_refuted).sum();
    assert!(refuted >= 2, "the suspicions came to their end");
    assert!(net.failures().is_empty());
    assert_eq!(net.renewals(), 0);
    assert!(net.is_complete());
}
