//! The chat as a state machine. The program beside it drives it over QUIC, a test of the simulator in virtual time, with nodes that crash, are cut off and come late.
//!
//! Every line is a key of the replicated state, so whoever comes late has them all. A key begins with a number above those of all lines that its writer had seen, and not before its
//! clock: an answer stands below what it answers, however wrong the clocks are. The order of the keys is the order of the chat, the same on every node.

use std::fmt;

use bytes::Bytes;
use meshwork::PeerId;
use meshwork::app::{Application, Context};
use meshwork::crdt::Value;
use meshwork::node::Event;

/// The oldest lines go when there are more.
pub(crate) const LINES_MAX: usize = 1_000;
const LINES: &str = "chat/";

/// What a user does.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Say(String),
    ShowHistory,
    ShowMembers,
}

/// A line of the chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// What a user sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A line that is new here. It may be older than others: [`Output::History`] has the order.
    Said(Line),
    History(Vec<Line>),
    Members(Vec<PeerId>),
    Came(PeerId),
    Went(PeerId),
    NotSaid(String),
}

/// One user.
#[derive(Debug)]
pub(crate) struct Chat {
    name: String,
    /// The greatest number of a line that was seen.
    last: u64,
}

impl Chat {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Chat { name: name.into(), last: 0 }
    }

    fn say(&mut self, text: &str, context: &mut Context<'_, Self>) {
        let number = context.now().wall.as_millis().max(self.last.saturating_add(1));
        // The incarnation, because another life of this node did not know what this one wrote.
        let key = format!("{LINES}{number:016x}/{}/{}", context.id(), context.incarnation());
        if let Err(error) = context.set(&key, format!("{}\n{text}", self.name)) {
            context.output(Output::NotSaid(error.to_string()));
            return;
        }
        let surplus = context.entries(LINES).count().saturating_sub(LINES_MAX);
        let oldest: Vec<String> = context.entries(LINES).take(surplus).map(|(key, _)| key.to_owned()).collect();
        for key in oldest {
            if let Err(error) = context.remove(&key) {
                context.output(Output::NotSaid(error.to_string()));
            }
        }
    }
}

impl Application for Chat {
    type Input = Input;
    type Output = Output;

    fn on_input(&mut self, input: Input, context: &mut Context<'_, Self>) {
        match input {
            Input::Say(text) => self.say(&text, context),
            Input::ShowHistory => {
                let lines = context.entries(LINES).filter_map(|(_, value)| line(value)).collect();
                context.output(Output::History(lines));
            }
            Input::ShowMembers => {
                let members = context.members().filter(|member| member.status.is_up()).map(|member| member.peer).collect();
                context.output(Output::Members(members));
            }
        }
    }

    fn on_change(&mut self, key: &str, value: Option<&Value>, context: &mut Context<'_, Self>) {
        let Some((number, _)) = key.strip_prefix(LINES).and_then(|rest| rest.split_once('/')) else { return };
        self.last = self.last.max(u64::from_str_radix(number, 16).unwrap_or(0));
        if let Some(line) = value.and_then(Value::bytes).and_then(line) {
            context.output(Output::Said(line));
        }
    }

    fn on_event(&mut self, event: &Event, context: &mut Context<'_, Self>) {
        match event {
            Event::MemberJoined(member) => context.output(Output::Came(member.peer)),
            Event::MemberLeft(member) | Event::MemberFailed(member) => context.output(Output::Went(member.peer)),
            _ => {}
        }
    }
}

/// A line as it stands in the state. What a stranger wrote there may be none.
fn line(value: &Bytes) -> Option<Line> {
    let (name, text) = std::str::from_utf8(value).ok()?.split_once('\n')?;
    Some(Line { name: name.to_owned(), text: text.to_owned() })
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Output::Said(line) => line.fmt(f),
            Output::History(lines) => {
                write!(f, "-- {} lines", lines.len())?;
                lines.iter().try_for_each(|line| write!(f, "\n   {line}"))
            }
            Output::Members(members) => {
                write!(f, "-- {} members:", members.len())?;
                members.iter().try_for_each(|peer| write!(f, " {}", peer.short()))
            }
            Output::Came(peer) => write!(f, "-- {} is here", peer.short()),
            Output::Went(peer) => write!(f, "-- {} is gone", peer.short()),
            Output::NotSaid(why) => write!(f, "-- not said: {why}"),
        }
    }
}
