//! Who is turned away, with which error on which side, and that nothing of them is accepted.
#![cfg(feature = "quic")]

mod quic_support;

use std::collections::BTreeSet;

use meshwork_channels::dial::DialFailure;
use meshwork_channels::quic::{CloseCode, CloseReason, DialError, Event, NodeKey, Refusal, Versions};
use quic_support::{
    CLUSTER, NOT_ADMITTED, Node, OTHER_SECRET, SECRET, Shown, alert, alpn, client_config, close_code, config, hello, join, member, proof,
    read_frame, say, shake, stranger, trap,
};

/// No connection came of it, and the door still works.
async fn assert_nothing_accepted(node: &mut Node, reason: Refusal) {
    let stats = node.endpoint.stats();
    assert_eq!((stats.admitted, stats.links), (0, 0));
    assert_eq!(stats.refused(reason), stats.refused_total());
    assert!(stats.refused_total() > 0);
    join(&mut Node::start(), node).await;
}

#[tokio::test]
async fn another_secret() {
    let mut a = Node::new({
        let mut config = config();
        config.secrets = vec![OTHER_SECRET];
        config
    });
    let mut b = Node::start();
    a.endpoint.dial(b.address(), Some(b.id()));
    let error = a.dial_failed().await;
    assert_eq!((error, error.failure()), (DialError::WrongCluster, DialFailure::WrongCluster));
    assert_eq!(b.refused().await, Refusal::WrongCluster);
    assert_nothing_accepted(&mut b, Refusal::WrongCluster).await;
}

#[tokio::test]
async fn another_cluster_with_the_same_secret() {
    let mut a = Node::new({
        let mut config = config();
        config.cluster = "blue".parse().unwrap();
        config
    });
    let mut b = Node::start();
    a.endpoint.dial(b.address(), Some(b.id()));
    assert_eq!(a.dial_failed().await, DialError::WrongCluster);
    assert_eq!(b.refused().await, Refusal::WrongCluster);
    assert_nothing_accepted(&mut b, Refusal::WrongCluster).await;
}

#[tokio::test]
async fn a_stranger_who_copied_the_protocol_name() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let guess = proof(&connection, &OTHER_SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&connection, &hello(1, [1, 1], guess)).await.is_none());
    assert_eq!(close_code(&connection).await, u64::from(NOT_ADMITTED));
    assert_eq!(node.refused().await, Refusal::BadProof);
    assert_nothing_accepted(&mut node, Refusal::BadProof).await;
}

#[tokio::test]
async fn a_proof_with_the_wrong_context() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let other = NodeKey::generate().unwrap().peer_id();
    let wrong =
        [(&b"s"[..], CLUSTER, [key.peer_id(), node.id()]), (b"c", "blue", [key.peer_id(), node.id()]), (b"c", CLUSTER, [other, node.id()])];
    for (side, cluster, ids) in wrong {
        let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
        let wrong = proof(&connection, &SECRET, side, cluster, ids);
        assert!(say(&connection, &hello(1, [1, 1], wrong)).await.is_none());
        assert_eq!(close_code(&connection).await, u64::from(NOT_ADMITTED));
    }
    assert_eq!(node.refused().await, Refusal::BadProof);
    assert_nothing_accepted(&mut node, Refusal::BadProof).await;
}

#[tokio::test]
async fn a_replayed_proof() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let shown = Shown::RawKey(key.clone());
    let first = shake(&socket, &shown, alpn(&SECRET, CLUSTER), node.address()).await;
    let words = hello(1, [1, 1], proof(&first, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]));
    assert!(say(&first, &words).await.is_some());
    assert_eq!(node.connected().await.peer(), key.peer_id());
    // The same key, the same words, another connection.
    let second = shake(&socket, &shown, alpn(&SECRET, CLUSTER), node.address()).await;
    assert!(say(&second, &words).await.is_none());
    assert_eq!(close_code(&second).await, u64::from(NOT_ADMITTED));
    assert_eq!(node.refused().await, Refusal::BadProof);
    assert_eq!(node.endpoint.stats().admitted, 1);
}

#[tokio::test]
async fn a_relayed_admission() {
    // Mallory stands between two members, has no secret, and hands on what each side says.
    let (mut victim, mut target) = (Node::start(), Node::start());
    let mallory = Shown::RawKey(NodeKey::generate().unwrap());
    let trap = trap(&mallory, vec![alpn(&SECRET, CLUSTER)]);
    victim.endpoint.dial(trap.local_addr().unwrap(), None);
    let from_victim = trap.accept().await.unwrap().await.unwrap();
    let (mut answer, mut words) = from_victim.accept_bi().await.unwrap();
    let words = read_frame(&mut words).await.unwrap();

    let socket = stranger();
    let to_target = shake(&socket, &mallory, alpn(&SECRET, CLUSTER), target.address()).await;
    let relayed = meshwork_channels::frame::encode(words.kind, &words.body);
    assert!(say(&to_target, &relayed).await.is_none());
    assert_eq!(close_code(&to_target).await, u64::from(NOT_ADMITTED));
    assert_eq!(target.refused().await, Refusal::BadProof);

    // Nor can the victim's own words be turned into an answer.
    let echo = meshwork_channels::frame::encode(2, &words.body);
    answer.write_all(&echo).await.unwrap();
    assert_eq!(victim.dial_failed().await, DialError::NotAdmitted);
    assert_nothing_accepted(&mut target, Refusal::BadProof).await;
    assert_eq!(victim.endpoint.stats().links, 0);
}

#[tokio::test]
async fn a_pinned_peer_is_not_intercepted() {
    let mut victim = Node::start();
    let mallory = NodeKey::generate().unwrap();
    let trap = trap(&Shown::RawKey(mallory.clone()), vec![alpn(&SECRET, CLUSTER)]);
    victim.endpoint.dial(trap.local_addr().unwrap(), Some(NodeKey::generate().unwrap().peer_id()));
    // The handshake ends before the victim shows its key.
    assert!(trap.accept().await.unwrap().await.is_err());
    assert_eq!(victim.dial_failed().await, DialError::NotExpected { found: mallory.peer_id() });
}

#[tokio::test]
async fn no_key() {
    let mut node = Node::start();
    let socket = stranger();
    let connection = shake(&socket, &Shown::Nothing, alpn(&SECRET, CLUSTER), node.address()).await;
    // The dialer's handshake is over before the acceptor can object: certificate_required.
    assert_eq!(alert(&connection.closed().await), 116);
    assert_eq!(node.refused().await, Refusal::NoKey);
    assert_nothing_accepted(&mut node, Refusal::NoKey).await;
}

#[tokio::test]
async fn a_certificate_instead_of_a_key() {
    let mut node = Node::start();
    let socket = stranger();
    let config = client_config(&Shown::Certificate, vec![alpn(&SECRET, CLUSTER)]);
    let error = socket.connect_with(config, node.address(), "peer.invalid").unwrap().await.unwrap_err();
    assert_eq!(alert(&error), 40);
    assert_eq!(node.refused().await, Refusal::NoRawKey);
    assert_nothing_accepted(&mut node, Refusal::NoRawKey).await;

    // And the other way round: a node dials somebody who has only a certificate.
    let trap = trap(&Shown::Certificate, vec![alpn(&SECRET, CLUSTER)]);
    let mut node = Node::start();
    node.endpoint.dial(trap.local_addr().unwrap(), None);
    assert!(trap.accept().await.unwrap().await.is_err());
    assert_eq!(node.dial_failed().await, DialError::Handshake);
}

#[tokio::test]
async fn another_peer_than_the_expected_one() {
    let (mut a, mut b) = (Node::start(), Node::start());
    a.endpoint.dial(b.address(), Some(NodeKey::generate().unwrap().peer_id()));
    assert_eq!(a.dial_failed().await, DialError::NotExpected { found: b.id() });
    assert_eq!(b.refused().await, Refusal::Unwanted);
    assert_nothing_accepted(&mut b, Refusal::Unwanted).await;
}

#[tokio::test]
async fn ourselves() {
    let mut node = Node::start();
    node.endpoint.dial(node.address(), None);
    // Both ends are ours, and tell in any order.
    for _ in 0..2 {
        match node.next().await {
            Event::DialFailed { error, .. } => assert_eq!(error, DialError::Myself),
            Event::Refused { reason, .. } => assert_eq!(reason, Refusal::Unwanted),
            other => panic!("{other:?}"),
        }
    }
    node.endpoint.dial(node.address(), Some(node.id()));
    assert_eq!(node.dial_failed().await, DialError::Myself);
}

#[tokio::test]
async fn a_list_of_those_who_may_come() {
    let (mut friend, mut other) = (Node::start(), Node::start());
    let mut node = Node::new({
        let mut config = config();
        config.allow = Some(BTreeSet::from([friend.id()]));
        config
    });
    other.endpoint.dial(node.address(), None);
    assert_eq!(other.dial_failed().await, DialError::NotAllowed);
    assert_eq!(node.refused().await, Refusal::NotAllowed);
    // It holds for those whom we dial, too.
    node.endpoint.dial(other.address(), None);
    assert_eq!(node.dial_failed().await, DialError::NotAllowed);
    assert_eq!(other.refused().await, Refusal::GaveUp);
    node.endpoint.dial(other.address(), Some(other.id()));
    assert_eq!(node.dial_failed().await, DialError::NotAllowed);
    assert_eq!(node.endpoint.stats().links, 0);
    join(&mut friend, &mut node).await;
    // The list changes: who is off it goes, who is on it comes.
    node.endpoint.set_allow(Some(BTreeSet::from([other.id()])));
    assert!(matches!(friend.next().await, Event::Closed { reason: CloseReason::Theirs(CloseCode::NotAllowed), .. }));
    assert!(matches!(node.next().await, Event::Closed { reason: CloseReason::Ours(CloseCode::NotAllowed), .. }));
    join(&mut other, &mut node).await;
}

#[tokio::test]
async fn no_version_in_common() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&connection, &hello(1, [2, 3], right)).await.is_none());
    assert_eq!(close_code(&connection).await, u64::from(CloseCode::Incompatible.number()));
    assert_eq!(node.refused().await, Refusal::Incompatible);
    assert_nothing_accepted(&mut node, Refusal::Incompatible).await;

    let trap = trap(&Shown::RawKey(key), vec![alpn(&SECRET, CLUSTER)]);
    let mut node = Node::start();
    node.endpoint.dial(trap.local_addr().unwrap(), None);
    let connection = trap.accept().await.unwrap().await.unwrap();
    let (mut answer, _words) = connection.accept_bi().await.unwrap();
    answer.write_all(&hello(2, [7, 9], [0; 32])).await.unwrap();
    let error = node.dial_failed().await;
    assert_eq!(error, DialError::Incompatible { ours: Versions::OURS, theirs: Some(Versions { oldest: 7, newest: 9 }) });
    assert_eq!(close_code(&connection).await, u64::from(CloseCode::Incompatible.number()));
}

#[tokio::test]
async fn a_newer_peer_that_still_speaks_our_version() {
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let connection = shake(&socket, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let right = proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    assert!(say(&connection, &hello(1, [1, 40], right)).await.is_some());
    let link = node.connected().await;
    assert_eq!((link.version(), link.incarnation(), link.observed()), (1, 9, "127.0.0.1:7".parse().unwrap()));
}

#[tokio::test]
async fn the_acceptor_proves_too() {
    let mut victim = Node::start();
    let mallory = NodeKey::generate().unwrap();
    let trap = trap(&Shown::RawKey(mallory), vec![alpn(&SECRET, CLUSTER)]);
    victim.endpoint.dial(trap.local_addr().unwrap(), None);
    let connection = trap.accept().await.unwrap().await.unwrap();
    let (mut answer, _words) = connection.accept_bi().await.unwrap();
    answer.write_all(&hello(2, [1, 1], [0; 32])).await.unwrap();
    assert_eq!(victim.dial_failed().await, DialError::NotAdmitted);
    assert_eq!(close_code(&connection).await, u64::from(NOT_ADMITTED));
}

#[tokio::test]
async fn nobody_there() {
    let mut node = Node::start();
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    node.endpoint.dial(silent.local_addr().unwrap(), None);
    assert_eq!(node.dial_failed().await, DialError::TimedOut);
    for address in ["224.0.0.1:7", "127.0.0.1:0", "[::1]:7"] {
        node.endpoint.dial(address.parse().unwrap(), None);
        assert_eq!(node.dial_failed().await, DialError::Unreachable, "{address}");
    }
}

#[tokio::test]
async fn a_member_written_by_hand_is_admitted() {
    // The counterpart of all the above: the strangers here fail for their reasons, not because they speak another wire.
    let mut node = Node::start();
    let (socket, key) = (stranger(), NodeKey::generate().unwrap());
    let connection = member(&socket, &key, &node).await;
    let link = node.connected().await;
    assert_eq!(link.peer(), key.peer_id());
    connection.close(2_u32.into(), b"");
    assert!(matches!(node.next().await, Event::Closed { reason: CloseReason::Theirs(CloseCode::Shutdown), .. }));
}
