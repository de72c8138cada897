//! The replicated state as a node sees it.

use meshwork_crdt as crdt;
use serde::{Deserialize, Serialize};

use super::{Printable, Value, short};
use crate::cli::asks::Json;
use crate::cli::text::{Align, Table, printable};
use crate::runtime::{Acked, Report};

/// Entries of the replicated state in one answer.
pub(in crate::cli) const ENTRIES_MAX: usize = 1_000;
/// Bytes of each value in a list of entries.
const LISTED_BYTES_MAX: usize = 256;
/// Members of each set, and siblings of each register, in a list of entries.
const LISTED_MEMBERS_MAX: usize = 16;
/// Characters of a value in a table.
const VALUE_CHARS_MAX: usize = 60;

/// The replicated state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct State {
    /// Those of services included.
    keys: usize,
    /// Keys that were removed or have expired, and count as keys until every member knows of it.
    tombstones: usize,
    /// Values that expired on the node since it started.
    expired: u64,
    /// Equal on two nodes when their states are.
    digest: String,
    entries: Vec<Entry>,
    /// Whether there are more entries than these.
    more: bool,
}

/// A key with what it holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Entry {
    key: String,
    /// `lww`, `best`, `mv`, `count`, `g_count`, `set` or `g_set`.
    kind: String,
    #[serde(flatten)]
    held: Held,
}

/// What a key holds: which of these depends on its kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Held {
    Count {
        count: Json,
    },
    /// How many there are; fewer are shown when the list was cut.
    Members {
        members: Vec<Value>,
        len: usize,
    },
    Siblings {
        siblings: Vec<Sibling>,
        len: usize,
    },
    Scored {
        score: f64,
        #[serde(flatten)]
        value: Value,
    },
    Value(Value),
}

/// A value that was written at the same time as the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sibling {
    origin: String,
    #[serde(flatten)]
    value: Value,
}

impl Entry {
    pub(in crate::cli) fn of(key: String, value: &crdt::Value) -> Self {
        Entry::cut(key, value, usize::MAX, usize::MAX)
    }

    fn cut(key: String, value: &crdt::Value, bytes_max: usize, members_max: usize) -> Self {
        let members = |members: &[bytes::Bytes]| Held::Members {
            members: members.iter().take(members_max).map(|member| Value::cut(member, bytes_max)).collect(),
            len: members.len(),
        };
        let (kind, held) = match value {
            crdt::Value::Lww(value) => (crdt::Kind::Lww, Held::Value(Value::cut(value, bytes_max))),
            crdt::Value::Best(score, value) => (crdt::Kind::Best, Held::Scored { score: *score, value: Value::cut(value, bytes_max) }),
            crdt::Value::Mv(written) => {
                let sibling = |written: &crdt::value::Written| Sibling {
                    origin: written.origin.to_string(),
                    value: Value::cut(&written.value, bytes_max),
                };
                let siblings = written.iter().take(members_max).map(sibling).collect();
                (crdt::Kind::Mv, Held::Siblings { siblings, len: written.len() })
            }
            crdt::Value::Count(count) => (crdt::Kind::Count, Held::Count { count: Json::from(*count) }),
            crdt::Value::GCount(count) => (crdt::Kind::GCount, Held::Count { count: Json::from(*count) }),
            crdt::Value::Set(list) => (crdt::Kind::Set, members(list)),
            crdt::Value::GSet(list) => (crdt::Kind::GSet, members(list)),
        };
        Entry { key, kind: kind.name().to_owned(), held }
    }

    /// The bytes of a plain value as they were written; none of other kinds.
    pub(in crate::cli) fn raw(&self) -> Option<Vec<u8>> {
        let Held::Value(value) = &self.held else { return None };
        value.bytes()
    }
}

impl State {
    /// Of entries up to one more than [`ENTRIES_MAX`].
    pub(in crate::cli) fn of(report: &Report, entries: &[(String, crdt::Value)]) -> Self {
        let listed = entries.iter().take(ENTRIES_MAX);
        let listed = listed.map(|(key, value)| Entry::cut(key.clone(), value, LISTED_BYTES_MAX, LISTED_MEMBERS_MAX));
        State {
            keys: report.keys,
            tombstones: report.tombstones,
            expired: report.expired,
            digest: report.digest.to_string(),
            entries: listed.collect(),
            more: entries.len() > ENTRIES_MAX,
        }
    }
}

impl Held {
    fn print(&self, chars_max: usize, between: &str) -> String {
        let missing = |shown: usize, len: usize| if len > shown { format!("{between}… ({} more)", len - shown) } else { String::new() };
        match self {
            Held::Count { count } => count.to_string(),
            Held::Members { members, len } => {
                let texts: Vec<String> = members.iter().map(|member| member.printable(chars_max)).collect();
                format!("{}{}", texts.join(between), missing(members.len(), *len))
            }
            Held::Siblings { siblings, len } => {
                let text = |sibling: &Sibling| format!("{} (by {})", sibling.value.printable(chars_max), short(&sibling.origin));
                let texts: Vec<String> = siblings.iter().map(text).collect();
                format!("{}{}", texts.join(between), missing(siblings.len(), *len))
            }
            Held::Scored { score, value } => format!("{} (score {score})", value.printable(chars_max)),
            Held::Value(value) => value.printable(chars_max),
        }
    }
}

impl Printable for State {
    fn print(&self, width: Option<usize>) -> String {
        let mut table = Table::new(&[("key", Align::Left), ("kind", Align::Left), ("value", Align::Left)]);
        for entry in &self.entries {
            table.row([printable(&entry.key, VALUE_CHARS_MAX), printable(&entry.kind, 20), entry.held.print(VALUE_CHARS_MAX, ", ")]);
        }
        let more = if self.more {
            format!("only the first {} are shown; narrow them down with a prefix\n", self.entries.len())
        } else {
            String::new()
        };
        let State { keys, tombstones, expired, .. } = self;
        let digest = printable(&self.digest, 80);
        format!("{keys} keys, {tombstones} tombstones, {expired} expired so far, digest {digest}\n\n{}{more}", table.render(width))
    }
}

impl Printable for Entry {
    fn print(&self, _: Option<usize>) -> String {
        format!("{}\n", self.held.print(usize::MAX, "\n"))
    }
}

/// What a write did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Done {
    /// The verb.
    pub(in crate::cli) done: String,
    /// The key, path or name; of a batch, how many there were.
    pub(in crate::cli) what: String,
    /// Whether that changed anything.
    pub(in crate::cli) changed: bool,
}

impl Done {
    pub(in crate::cli) fn new(done: &str, what: impl Into<String>, changed: bool) -> Self {
        Done { done: done.to_owned(), what: what.into(), changed }
    }
}

impl Printable for Done {
    fn print(&self, _: Option<usize>) -> String {
        let nothing = if self.changed { "" } else { ": it was so already" };
        format!("{} {}{nothing}\n", printable(&self.done, 40), printable(&self.what, 200))
    }
}

/// What a write did that other nodes hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::cli) struct DoneBy {
    #[serde(flatten)]
    done: Done,
    /// The other nodes that hold it.
    held_by: Vec<String>,
    /// The name of the write; none when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl DoneBy {
    pub(in crate::cli) fn new(done: Done, acked: &Acked) -> Self {
        let held_by = acked.by.iter().map(ToString::to_string).collect();
        DoneBy { done, held_by, token: acked.token.as_ref().map(ToString::to_string) }
    }
}

impl Printable for DoneBy {
    fn print(&self, width: Option<usize>) -> String {
        let token = self.token.as_ref().map(|token| format!("token {}\n", printable(token, usize::MAX))).unwrap_or_default();
        format!("{}held by {} other nodes\n{token}", self.done.print(width), self.held_by.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_fields_of_its_kind_and_survives_the_wire() {
        let stamp = crdt::Stamp::from_parts(7, 0);
        let origin = meshwork_channels::PeerId::from_bytes([1; 32]);
        let written = crdt::value::Written { stamp, origin, value: "v".into() };
        for (value, json, printed) in [
            (crdt::Value::Lww("v".into()), r#"{"key":"k","kind":"lww","value":"v","bytes":1}"#.to_owned(), "v\n".to_owned()),
            (
                crdt::Value::Best(0.5, "v".into()),
                r#"{"key":"k","kind":"best","score":0.5,"value":"v","bytes":1}"#.into(),
                "v (score 0.5)\n".into(),
            ),
            (crdt::Value::Count(-3), r#"{"key":"k","kind":"count","count":-3}"#.into(), "-3\n".into()),
            (crdt::Value::GCount(u64::MAX), format!(r#"{{"key":"k","kind":"g_count","count":{}}}"#, u64::MAX), format!("{}\n", u64::MAX)),
            (
                crdt::Value::Set(vec!["a".into(), "b".into()]),
                r#"{"key":"k","kind":"set","members":[{"value":"a","bytes":1},{"value":"b","bytes":1}],"len":2}"#.into(),
                "a\nb\n".into(),
            ),
            (
                crdt::Value::Mv(vec![written]),
                format!(r#"{{"key":"k","kind":"mv","siblings":[{{"origin":"{origin}","value":"v","bytes":1}}],"len":1}}"#),
                format!("v (by {})\n", origin.short()),
            ),
        ] {
            let entry = Entry::of("k".into(), &value);
            assert_eq!(serde_json::to_string(&entry).unwrap(), json);
            let read: Entry = serde_json::from_value(serde_json::to_value(&entry).unwrap()).unwrap();
            assert_eq!((serde_json::to_string(&read).unwrap(), read.print(None)), (json, printed));
        }
    }

    #[test]
    fn a_plain_value_can_be_had_as_it_was_written() {
        for bytes in [&b"two\nlines \x1b[31m"[..], &[0xff, 0x00, 0x0a], b""] {
            assert_eq!(Entry::of("k".into(), &crdt::Value::Lww(bytes.to_vec().into())).raw().as_deref(), Some(bytes));
        }
        assert_eq!(Entry::of("k".into(), &crdt::Value::Count(1)).raw(), None);
    }

    #[test]
    fn a_list_cuts_what_is_long() {
        let members = crdt::Value::Set((0..20).map(|member| format!("{member:02}").into()).collect());
        let entry = Entry::cut("k".into(), &members, 1, 16);
        assert!(entry.held.print(60, ", ").ends_with(", … (4 more)"), "{entry:?}");
        assert!(serde_json::to_string(&entry).unwrap().contains(r#"{"value":"0","bytes":2}"#));
    }
}
