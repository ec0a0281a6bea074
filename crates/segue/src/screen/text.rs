//! Small pieces of text: durations, sizes, counts, one harmless line.

use segue_core::time::Time;
use serde_json::Value;

/// A duration as people read it: `12ms`, `4.2s`, `3m05s`, `2h10m`, `3d4h`.
pub fn duration(ms: u64) -> String {
    let (seconds, minutes) = (ms / 1_000, ms / 60_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{minutes}m{:02}s", seconds % 60),
        3_600_000..86_400_000 => format!("{}h{:02}m", minutes / 60, minutes % 60),
        _ => format!("{}d{}h", minutes / 1_440, minutes % 1_440 / 60),
    }
}

/// How long ago, coarsely: `now`, `12s`, `5m`, `3h`, `2d`.
pub fn ago(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A length: `512 B`, `3.4 KiB`, `1.0 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with its word: `1 task`, `2 tasks`.
pub fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// The last eight digits of an id: enough to tell the tasks of a screen apart.
pub fn short(id: &str) -> &str {
    let from = id.len().saturating_sub(8);
    id.get(from..).unwrap_or(id)
}

/// One line of a text from outside: line breaks become spaces, and what could play tricks on a terminal is replaced.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut space = false;
    for character in text.trim().chars() {
        match character {
            ' ' | '\n' | '\r' | '\t' => space = true,
            other => {
                if space {
                    out.push(' ');
                }
                space = false;
                out.push(harmless(other));
            }
        }
    }
    out
}

/// Text of several lines from outside, with what could play tricks on a terminal replaced.
pub fn lines(text: &str) -> String {
    text.chars().map(|c| if c == '\n' || c == '\t' { c } else { harmless(c) }).collect()
}

fn harmless(character: char) -> char {
    let is_trick = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    if is_trick { '\u{fffd}' } else { character }
}

/// What a progress note says, in one line: its text, or the JSON.
pub fn note(note: &Value) -> String {
    let text = match note {
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let said = ["message", "text", "note", "status"]
                .into_iter()
                .find_map(|name| fields.get(name).and_then(Value::as_str));
            said.map_or_else(|| note.to_string(), str::to_owned)
        }
        other => other.to_string(),
    };
    line(&text)
}

/// The text, cut to so many cells of a terminal. It may hold colours.
pub fn cut(text: &str, cells: usize) -> String {
    console::truncate_str(text, cells, "…").into_owned()
}

/// How many cells of a terminal a text takes, colours not counted.
pub fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// The text with spaces behind it, up to so many cells.
pub fn padded(text: &str, cells: usize) -> String {
    let missing = cells.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// The clock of this machine.
pub fn now() -> Time {
    Time(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_and_lengths_are_read_at_a_glance() {
        let shown: Vec<String> =
            [0, 999, 4_250, 59_999, 185_000, 7_800_000, 273_600_000].map(duration).to_vec();
        assert_eq!(shown, ["0ms", "999ms", "4.2s", "59.9s", "3m05s", "2h10m", "3d4h"]);
        assert_eq!([0, 59_000, 3_599_000, 90_000_000].map(ago), ["now", "59s", "59m", "1d"]);
        assert_eq!(
            [512, 3_482, 1_048_575, 1_048_576].map(bytes),
            ["512 B", "3.4 KiB", "1.0 MiB", "1.0 MiB"]
        );
        assert_eq!((count(1, "task"), count(0, "task")), ("1 task".into(), "0 tasks".into()));
    }

    #[test]
    fn text_from_outside_is_one_harmless_line() {
        assert_eq!(line(" a\n\tb\u{1b}[2J\u{202e}c "), "a b\u{fffd}[2J\u{fffd}c");
        assert_eq!(lines("a\n\u{7}b"), "a\n\u{fffd}b");
        assert_eq!(note(&json!({"message": "half\nway", "n": 1})), "half way");
        assert_eq!(note(&json!({"n": 1})), r#"{"n":1}"#);
        assert_eq!(note(&json!("so")), "so");
    }

    #[test]
    fn text_is_cut_and_padded_by_the_cells_it_takes() {
        assert_eq!(cut("日本語です", 5), "日本…");
        assert_eq!(width(&padded("日本", 6)), 6);
        assert_eq!(short("01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f"), "1c2d3e4f");
    }
}
