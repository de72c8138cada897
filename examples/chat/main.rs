//! A chat with history: `cargo run --example chat -- --name ann`, and again as `ben` in another terminal, or on another machine with `--join` and what ann's prints.
//! What is said before ben comes, ben sees too.
#![expect(clippy::disallowed_methods, reason = "a program reads its arguments and its input")]

mod app;

use std::error::Error;

use meshwork::Node;
use tokio::sync::mpsc;

use app::{Chat, Input};

const USAGE: &str = "usage: chat --name NAME [--join ADDRESS|TOKEN]... [--listen ADDRESS]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Node::builder("chat");
    let mut name = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match argument.as_str() {
            "--name" => name = Some(value),
            "--join" => builder = builder.join(value),
            "--listen" => builder = builder.listen(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    let mut chat = builder.start_with(Chat::new(name.ok_or(USAGE)?)).await?;
    println!("I am {} at {}. Type a line, /history or /who; the end of the input leaves.", chat.node().id().short(), chat.node().address());
    if let Some(token) = chat.node().token() {
        println!("Others come in with --join {token}");
    }

    let mut typed = typed_lines();
    loop {
        tokio::select! {
            line = typed.recv() => match line.as_deref().map(str::trim) {
                None => break,
                Some("") => {}
                Some("/history") => chat.tell(Input::ShowHistory).await?,
                Some("/who") => chat.tell(Input::ShowMembers).await?,
                Some(text) => chat.tell(Input::Say(text.to_owned())).await?,
            },
            output = chat.next() => match output {
                Some(output) => println!("{output}"),
                None => return Err(chat.panicked().unwrap_or("the node has stopped").into()),
            },
        }
    }
    chat.node().leave().await;
    Ok(())
}

/// What is typed, from a thread that may wait for it.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
