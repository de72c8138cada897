//! A to-do list that several people share: run it in several terminals and type `add TEXT`, `done TEXT` or `list`. The list is two sets, in which everything stays
//! that people add at the same time, also while they are cut off from each other.
#![expect(clippy::disallowed_methods, reason = "a program reads its input")]

use std::error::Error;

use meshwork::Node;
use meshwork::crdt::{Op, Value};

const OPEN: &str = "todo/open";
const DONE: &str = "todo/done";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder("todo").start().await?;
    let mut changes = node.state().watch("todo/").await?;
    let (typed, mut lines) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || std::io::stdin().lines().map_while(Result::ok).all(|line| typed.blocking_send(line).is_ok()));
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => println!("{}", act(&node, line.trim()).await.unwrap_or_else(|error| error.to_string())),
                None => break,
            },
            change = changes.next() => match change {
                Some(change) => println!("{}: {}", change.key, texts(change.value).join(", ")),
                None => return Err("the node has stopped".into()),
            },
        }
    }
    node.leave().await;
    Ok(())
}

/// Does what a line says.
pub(crate) async fn act(node: &Node, line: &str) -> Result<String, Box<dyn Error>> {
    let (verb, text) = line.split_once(' ').unwrap_or((line, ""));
    let open = texts(node.state().read(OPEN).await?);
    // Both sets change or neither, here and on every other node.
    let (item, writes) = match verb {
        "add" if !text.is_empty() => (text, [(OPEN, Op::Insert(text.to_owned().into())), (DONE, Op::Take(text.to_owned().into()))]),
        "done" => {
            let item = open.iter().find(|item| item.starts_with(text)).ok_or("nothing like that is to be done")?;
            (item.as_str(), [(OPEN, Op::Take(item.clone().into())), (DONE, Op::Insert(item.clone().into()))])
        }
        "list" => return Ok(format!("open: {}\ndone: {}", open.join(", "), texts(node.state().read(DONE).await?).join(", "))),
        _ => return Err("add TEXT, done TEXT or its beginning, or list".into()),
    };
    node.state().batch(writes).await?;
    Ok(format!("{verb}: {item}"))
}

fn texts(value: Option<Value>) -> Vec<String> {
    let Some(Value::Set(items)) = value else { return Vec::new() };
    items.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
}
