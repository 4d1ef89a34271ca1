//! Standard output: tables for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// How a command's result is shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Output {
    /// Prints `json` if it was asked for, else `text`.
    pub(crate) fn print(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Outcome {
        let text = match self.json {
            true => format!("{:#}", json()),
            false => text(),
        };
        line(&text)
    }
}

/// Prints text and an end of line.
pub(crate) fn line(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))
        .and_then(|()| out.flush())
        .map_err(|e| Failure::output(&e))
}

/// What a table's column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Words, to the left.
    Text(&'static str),
    /// Numbers, to the right.
    Number(&'static str),
}

/// A table: lines and colours on a terminal, else columns of plain text.
pub(crate) fn table(columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let terminal = io::stdout().is_terminal();
    let mut table = Table::new();
    table.load_preset(if terminal {
        presets::UTF8_BORDERS_ONLY
    } else {
        presets::NOTHING
    });
    table.set_content_arrangement(match terminal {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    table.set_header(columns.iter().map(|column| {
        let (Column::Text(name) | Column::Number(name)) = column;
        Cell::new(name)
            .add_attribute(Attribute::Bold)
            .fg(Color::Cyan)
    }));
    table.add_rows(rows);
    for (at, column) in columns.iter().enumerate() {
        if let (Column::Number(_), Some(column)) = (column, table.column_mut(at)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Bytes for people: 1.5 MiB.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{amount:.1} {}", units[unit]),
    }
}

/// `1 topic`, `2 topics`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// Tells the person at the terminal something that is no result.
pub(crate) fn note(text: &str) {
    let dim = anstyle::Style::new().dimmed();
    anstream::eprintln!("{dim}{text}{dim:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }
}
