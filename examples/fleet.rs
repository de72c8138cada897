//! A fleet of workers that tune two settings together. Each tries values near the best that anybody has found and writes down what is better, with its score; of what several write at once
//! the best stays, on every node. `cargo run --example fleet -- 8` starts eight nodes in this process, five without a number; with `--json` each line is an object.
#![expect(clippy::disallowed_methods, reason = "a program reads its arguments")]

use std::error::Error;
use std::time::Duration;

use meshwork::Node;
use meshwork::channels::random::generator;
use meshwork::services::ServiceError;
use meshwork::services::variables::{
    Assignment, Definition, Filter, Functions, Kind, Order, Policy, Space, Update, UpdateError, Value, Version,
};
use tokio::task::JoinSet;

const ROUNDS: u32 = 20;
/// Candidates that a worker tries in a round.
const TRIES: usize = 4;

/// What the workers find out by work: here, how far the values are from those that nobody was told.
pub(crate) fn score(values: &Assignment) -> f64 {
    let of = |name: &str| values.get(name).and_then(Value::number).unwrap_or_default();
    100.0 - ((of("batch") - 173.0) / 10.0).powi(2) - ((of("rate") - 0.31) * 30.0).powi(2)
}

/// The best that a node knows: a version of each variable. All are from one write once they have the same score.
pub(crate) type Best = Vec<(String, Version)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (flags, numbers): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument == "--json");
    let count = numbers.first().map_or(Ok(5), |number| number.parse())?;
    let print = |round: Option<u32>, node: &Node, best: &Best| {
        let number = |version: &Version| version.value.number().unwrap_or(f64::NAN);
        let Some((score, by)) = best.first().and_then(|(_, version)| Some((version.score?, version.by.as_ref()?.node))) else { return };
        if flags.is_empty() {
            let values: Vec<String> = best.iter().map(|(name, version)| format!("{name} = {:.3}", number(version))).collect();
            let what = round.map_or_else(|| format!("{} has", node.id().short()), |round| format!("round {round:2}"));
            println!("{what}: score {score:.4} for {}, found by {}", values.join(", "), by.short());
        } else {
            let values: serde_json::Map<_, _> = best.iter().map(|(name, version)| (name.clone(), number(version).into())).collect();
            let (node, by) = (node.id().to_string(), by.to_string());
            println!("{}", serde_json::json!({ "round": round, "node": node, "score": score, "values": values, "by": by }));
        }
    };
    for (node, best) in tune(count, &print).await? {
        print(None, &node, &best);
    }
    Ok(())
}

/// Starts the nodes, lets them tune, tells of every round, and ends when all show the same.
pub(crate) async fn tune(count: usize, tell: impl Fn(Option<u32>, &Node, &Best)) -> Result<Vec<(Node, Best)>, Box<dyn Error>> {
    let start = || Node::builder("fleet").insecure_without_secret().mdns(false);
    let first = start().start().await?;
    let mut nodes = vec![first.clone()];
    while nodes.len() < count {
        nodes.push(start().join(first.address().to_string()).start().await?);
    }
    for (name, kind, default) in [("batch", Kind::float(1.0, 512.0), 16.0), ("rate", Kind::float(0.0, 1.0), 0.9)] {
        let policy = Policy::Best(Order::Highest);
        first.variables().register(Definition { policy, ..Definition::new(name.parse()?, kind, default) }).await?;
    }
    agreement(&nodes, |best| best.len() == 2).await?;
    let is_one = |best: &Best| best.windows(2).all(|pair| pair[0].1.score.is_some() && pair[0].1.score == pair[1].1.score);
    for round in 1..=ROUNDS {
        let mut workers = JoinSet::new();
        for (id, node) in (0..).zip(nodes.iter().cloned()) {
            workers.spawn(async move { work(&node, id, round).await.map_err(|error| error.to_string()) });
        }
        while let Some(worked) = workers.join_next().await {
            worked??;
        }
        tell(Some(round), &first, &agreement(&nodes[..1], is_one).await?[0]);
    }
    let best = agreement(&nodes, is_one).await?;
    Ok(nodes.into_iter().zip(best).collect())
}

/// One worker in one round: it draws candidates near the best, nearer in each round, and writes the best of them if it is better.
async fn work(node: &Node, id: u64, round: u32) -> Result<(), Box<dyn Error>> {
    let mut space = Space::new(Functions::default());
    let known = best(node).await?;
    for mut definition in node.variables().space(Filter::default()).await??.iter().cloned() {
        let center = known.iter().find(|(name, _)| **name == *definition.name).map(|(_, version)| version.value.clone());
        if let (Kind::Float { min, max, .. }, Some(at)) = (&mut definition.kind, center.as_ref().and_then(Value::number)) {
            let reach = (*max - *min) * 0.5 * 0.8_f64.powi(round as i32);
            (*min, *max) = (min.max(at - reach), max.min(at + reach));
            definition.default = center;
        }
        space.add(definition)?;
    }
    let drawn = space.sample(TRIES, &mut generator(u64::from(round), "fleet", id))?;
    let Some(candidate) = drawn.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))) else { return Ok(()) };
    let score = Some(score(&candidate));
    for (name, value) in candidate {
        match node.variables().update(name.as_str(), Update { score, ..value.into() }).await {
            Err(ServiceError::Refused(UpdateError::NotBetter { .. })) => return Ok(()),
            updated => updated?,
        }
    }
    Ok(())
}

async fn best(node: &Node) -> Result<Best, Box<dyn Error>> {
    node.variables().list(Filter::default()).await?.into_iter().map(|(name, version)| Ok((name.to_string(), version?))).collect()
}

/// Waits until all nodes show the same, and that is as it should be.
async fn agreement(nodes: &[Node], is_right: impl Fn(&Best) -> bool) -> Result<Vec<Best>, Box<dyn Error>> {
    for _ in 0..1_000 {
        let mut shown = Vec::new();
        for node in nodes {
            shown.push(best(node).await?);
        }
        if shown.iter().all(|best| is_right(best) && *best == shown[0]) {
            return Ok(shown);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the nodes do not agree".into())
}
