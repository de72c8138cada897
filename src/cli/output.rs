//! The standard output of `meshwork node`: lines for people or as JSON, behind a bounded queue.

#![expect(clippy::disallowed_methods, reason = "a terminal blocks, so a thread of its own writes to it")]

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde::Serialize;

use super::Failure;
use super::text::{LINE_CHARS_MAX, json_line, printable};

/// Lines that wait for the terminal.
const OUTPUT_LINES_MAX: usize = 1_024;

/// Something to print: for people, or as JSON.
pub(super) trait Line: Serialize {
    fn text(&self) -> String;
}

/// The standard output, behind a bounded queue and a thread: a terminal that stands still must not hold up anything.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    lines: SyncSender<Printing>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Printing {
    Line(String),
    Flush(SyncSender<()>),
}

impl Output {
    pub(super) fn start(json: bool) -> Result<Self, Failure> {
        let (lines, queue) = sync_channel(OUTPUT_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let output = Output { json, lines, lost: lost.clone() };
        std::thread::Builder::new()
            .name("meshwork-output".into())
            .spawn(move || print_lines(&queue, &lost, json))
            .map_err(|error| Failure::new(format!("the system gives no thread: {error}")))?;
        Ok(output)
    }

    pub(super) fn line(&self, line: &impl Line) {
        self.print(if self.json { json_line(line) } else { line.text() });
    }

    /// Prints what is ready to be printed.
    pub(super) fn print(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Printing::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits a moment for what is still to be printed.
    pub(super) fn flush(&self) {
        let (done, printed) = sync_channel(1);
        if self.lines.try_send(Printing::Flush(done)).is_ok() {
            // A terminal that takes nothing does not keep the process.
            let _ = printed.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// Prints until nobody takes it any more; the node runs on without a reader.
fn print_lines(queue: &Receiver<Printing>, lost: &AtomicU64, json: bool) {
    let mut output = io::stdout().lock();
    for printing in queue {
        let printed = match printing {
            Printing::Line(line) => writeln!(output, "{line}"),
            Printing::Flush(done) => {
                // Whoever waits for it waits a second only.
                let _ = done.try_send(());
                Ok(())
            }
        };
        let printed = printed.and_then(|()| match lost.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            lines => {
                let note = Note { event: "lost", text: format!("the terminal was too slow: {lines} lines are not shown") };
                writeln!(output, "{}", if json { json_line(&note) } else { note.text() })
            }
        });
        if printed.and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

/// A word to the person at the terminal.
#[derive(Debug, Serialize)]
pub(super) struct Note {
    pub(super) event: &'static str,
    pub(super) text: String,
}

impl Line for Note {
    fn text(&self) -> String {
        let mark = if self.event == "error" { '!' } else { '*' };
        let lines: Vec<String> = self.text.lines().map(|line| format!("{mark} {}", printable(line, LINE_CHARS_MAX))).collect();
        lines.join("\n")
    }
}
