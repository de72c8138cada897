//! What may be printed on a terminal, and tables.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::Failure;

/// Characters of a received line that are printed.
pub(super) const LINE_CHARS_MAX: usize = 2_000;

/// Text from elsewhere, safe to print: what moves the cursor, changes colors, reorders or hides text becomes visible, and
/// what is longer than `chars_max` is cut, with a word about how much is missing.
pub(super) fn printable(text: &str, chars_max: usize) -> String {
    let mut safe = String::with_capacity(text.len().min(chars_max.saturating_mul(2)));
    let mut rest = text.chars();
    for character in rest.by_ref().take(chars_max) {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            character if is_dangerous(character) => safe.extend(character.escape_unicode()),
            character => safe.push(character),
        }
    }
    let missing = rest.count();
    if missing > 0 {
        safe.push_str(&format!("… ({missing} more characters)"));
    }
    safe
}

/// Control characters, and those that change the direction of text or have no width.
fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A value as one line of JSON that is safe to print, too: JSON may hold any character as `\u` and four digits.
pub(super) fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("the views have string keys and no failing serializer");
    if !json.chars().any(is_dangerous) {
        return json;
    }
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_dangerous(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Writes text to standard output; that nobody reads it any more is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output as [`print`] does text.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(format!("cannot write the answer: {error}"))),
        _ => Ok(()),
    }
}

/// Bytes for people: `512 B`, `1.5 KiB`.
pub(super) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in units {
        if scaled < 1_024.0 {
            break;
        }
        scaled /= 1_024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{scaled:.1} {unit}") }
}

/// A duration for people: `850 ms`, `12.3 s`, `2 h 5 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A moment for people, in the time of Greenwich: `2026-11-28 16:03:14`. Milliseconds since the Unix epoch.
pub(super) fn date(millis: u64) -> String {
    let (days, seconds) = (millis / 86_400_000, millis / 1_000 % 86_400);
    // Days of years that begin in March, so that the odd day comes last, in cycles of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, 400 * cycle + year) } else { (month - 9, 400 * cycle + year + 1) };
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A duration as people write it: a number with `s`, `m`, `h` or `d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is not a duration; write a whole number and s, m, h or d, for example 24h");
    let unit = text.chars().last().ok_or_else(problem)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(problem()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| problem())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

/// How a column of a table is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table: columns as wide as their widest cell, two spaces between them.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, each line cut to `width` characters.
    pub(super) fn render(&self, width: Option<usize>) -> String {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width - cell.chars().count());
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.extend([cell.as_str(), &padding]),
                    Align::Right => line.extend([&padding, cell.as_str()]),
                }
            }
            let line = line.trim_end();
            match width {
                Some(width) if line.chars().count() > width => {
                    text.extend(line.chars().take(width.saturating_sub(1)));
                    text.push('…');
                }
                _ => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}

/// The width of the terminal on standard output, when there is one that says it.
#[expect(clippy::disallowed_methods, reason = "the shell says how wide the terminal is")]
pub(super) fn terminal_width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    std::env::var("COLUMNS").ok()?.parse().ok().filter(|width| *width >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_become_visible() {
        assert_eq!(printable("plain ünïcode 漢字 🙂", 100), "plain ünïcode 漢字 🙂");
        assert_eq!(printable("\x1b[2Jgone\r\n", 100), "\\u{1b}[2Jgone\\r\\n");
        assert_eq!(printable("\u{9b}31m\u{7f}", 100), "\\u{9b}31m\\u{7f}");
        assert_eq!(printable("abc\u{202e}cba", 100), "abc\\u{202e}cba");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert_eq!(printable(&"x".repeat(10), 4), "xxxx… (6 more characters)");
        assert_eq!(printable("xxxx", 4), "xxxx");
    }

    #[test]
    fn json_is_safe_to_print_and_still_the_same() {
        let value = "a\u{9b}b\u{202e}\u{e0001}\u{7f}ü\n";
        let line = json_line(&value);
        assert!(!line.chars().any(is_dangerous), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), value);
    }

    #[test]
    fn durations_are_read_and_written() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "h", "24", "1.5h", "-1h", "24ü", "99999999999999999999d", "9999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(duration(Duration::from_secs(7_500)), "2 h 5 min");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date_text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (1_795_881_794, "2026-11-28 16:03:14"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date(seconds * 1_000), date_text);
        }
        assert!(!date(u64::MAX).is_empty());
    }

    #[test]
    fn a_table_fits_its_cells_and_the_terminal() {
        let mut table = Table::new(&[("id", Align::Left), ("count", Align::Right)]);
        table.row(["a".into(), "7".into()]);
        table.row(["long".into(), "1234567".into()]);
        assert_eq!(table.render(None), "id      count\na           7\nlong  1234567\n");
        assert!(table.render(Some(8)).lines().all(|line| line.chars().count() <= 8));
    }

    #[test]
    fn bytes_are_for_people() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
