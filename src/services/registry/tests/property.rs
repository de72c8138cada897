//! Whatever happens in whatever order, the events, the index and what is shown agree, and in the end all nodes do.

use super::*;

const NODES: usize = 3;

fn random_details(generator: &mut Generator) -> Details {
    let capabilities = ["a", "b", "c", "d"].into_iter().filter(|_| generator.random_bool(0.4)).map(str::to_owned).collect();
    Details { capabilities, weight: generator.random_range(1..4), ..Details::default() }
}

fn step(cluster: &mut Cluster, generator: &mut Generator, number: u32) {
    let index = generator.random_range(0..NODES);
    let other = (index + generator.random_range(1..NODES)) % NODES;
    let name = ["x", "y"][generator.random_range(0..2)];
    let instance = ["1", "2"][generator.random_range(0..2)];
    let mine = id(name, index, instance);
    let theirs = id(name, other, instance).key().unwrap();
    match generator.random_range(0..100) {
        0..25 => {
            let details = random_details(generator);
            let _ = cluster.register(index, Registration { details, ..registration(name, instance) });
        }
        25..35 => {
            let update = Update { weight: Some(generator.random_range(1..4)), ..Update::default() };
            let _ = cluster.write(index, |node, _| node.registry.update(&mine, update));
        }
        35..45 => drop(cluster.write(index, |node, _| node.registry.unregister(&mine))),
        45..47 => {
            let node = &mut cluster.nodes[index];
            let writes = node.registry.end_lease(node.lease);
            node.lease = node.registry.open_lease().unwrap();
            cluster.make(index, writes);
        }
        47..53 => cluster.member(index, other, generator.random_bool(0.5)),
        53..55 => {
            let now = cluster.now();
            cluster.nodes[index].registry.member_suspected(peer(other), now);
        }
        55..58 => {
            // Never equal to what is there: of that no replica tells.
            let metadata = [("forged".to_owned(), number.to_string())].into();
            cluster.set(index, &theirs, Details { metadata, ..random_details(generator) }.to_value().ok());
        }
        58..60 => cluster.set(index, &theirs, None),
        60..62 => cluster.set(index, &mine.key().unwrap(), Some(Bytes::from(vec![generator.random_range(0..4); 3]))),
        62..90 if !cluster.deltas.is_empty() => {
            // In any order, and now and then twice.
            let at = generator.random_range(0..cluster.deltas.len());
            if generator.random_bool(0.2) {
                let again = cluster.deltas[at].clone();
                cluster.deltas.push(again);
            }
            cluster.deliver(at);
        }
        _ => {
            cluster.time += Duration::from_millis(generator.random_range(0..3_000));
            (0..NODES).for_each(|index| cluster.deadline_reached(index));
        }
    }
}

#[test]
fn events_index_and_replica_agree_after_every_step_and_nodes_in_the_end() {
    for seed in 0..20 {
        let (mut cluster, mut generator) = (Cluster::new(NODES), generator(seed, "registry", 0));
        for number in 0..250 {
            step(&mut cluster, &mut generator, number);
            cluster.check();
        }
        for a in 0..NODES {
            (0..NODES).for_each(|b| cluster.member(a, b, true));
        }
        cluster.run_for(3 * limits::PASS_PERIOD);
        cluster.check();
        let registered: usize = cluster.nodes.iter().map(|node| node.registry.own_len()).sum();
        for node in &cluster.nodes {
            assert_eq!(node.shown, cluster.nodes[0].shown, "seed {seed}");
            assert_eq!(node.shown.len(), registered, "seed {seed}");
            assert!(node.hidden.is_empty());
        }
    }
}

#[test]
fn the_index_finds_what_a_pass_over_everything_finds() {
    let (mut cluster, mut generator) = (Cluster::new(2), generator(1, "registry queries", 0));
    for number in 0..300 {
        let details = random_details(&mut generator);
        let name = format!("s{}", generator.random_range(0..20));
        cluster.register(number % 2, Registration { details, ..registration(&name, &number.to_string()) }).unwrap();
    }
    cluster.settle();
    let Node { registry, replica, .. } = &cluster.nodes[0];
    let all = registry.find(replica, &Query::new());
    for _ in 0..300 {
        let mut query = Query::new();
        if generator.random_bool(0.5) {
            query = query.name(format!("s{}", generator.random_range(0..22)));
        }
        for capability in ["a", "b", "c", "d", "e"] {
            if generator.random_bool(0.2) {
                query = query.capability(capability);
            }
        }
        if generator.random_bool(0.3) {
            query = query.node(peer(generator.random_range(0..3)));
        }
        let expected: Vec<Instance> = all.iter().filter(|instance| query.matches(&instance.id, &instance.details)).cloned().collect();
        assert_eq!(registry.find(replica, &query), expected, "{query:?}");
    }
}
