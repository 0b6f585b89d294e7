//! Results on stdout: tables for people, JSON, YAML and names for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table as Grid, presets::NOTHING};
use serde::Serialize;

use crate::failure::{Failure, Kind};

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
    /// Only the name of each thing, one a line
    Name,
}

/// Writes text to stdout.
///
/// Errors: [`Kind::ReaderGone`] when the reader has closed the pipe, which ends the verb quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Kind::ReaderGone, ""),
        _ => Failure::failed(format!("cannot write to stdout: {error}")),
    })
}

/// A value as indented JSON with a line end.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n")
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

/// A value as one line of JSON.
pub fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n")
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

/// A value as YAML.
pub fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::failed(format!("cannot write YAML: {error}")))
}

/// A table without lines, as `kubectl` made it usual: easy to read, easy to cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    head: Vec<(&'static str, CellAlignment)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns whose name begins with `>` are aligned to the right.
    pub fn new(columns: &[&'static str]) -> Self {
        let head = columns.iter().map(|column| match column.strip_prefix('>') {
            Some(name) => (name, CellAlignment::Right),
            None => (*column, CellAlignment::Left),
        });
        Self {
            head: head.collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // An empty cell would make columns hard to count for scripts that split on blanks.
        let cells = cells
            .into_iter()
            .map(|cell| if cell.is_empty() { "-".to_string() } else { cell });
        self.rows.push(cells.collect());
    }

    /// The table as text with a line end.
    pub fn text(&self) -> String {
        let mut grid = Grid::new();
        grid.load_style(NOTHING);
        grid.set_content_arrangement(ContentArrangement::Disabled);
        let cell = |text: &str, align: CellAlignment| Cell::new(text).set_alignment(align);
        grid.set_header(self.head.iter().map(|(name, align)| cell(name, *align)));
        for row in &self.rows {
            grid.add_row(row.iter().zip(&self.head).map(|(text, (_, align))| cell(text, *align)));
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in grid.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_empty_cells() {
        let mut table = Table::new(&["NAME", ">ROWS", "WHERE"]);
        table.row(["load", "1,234", "out"].map(str::to_string));
        table.row(["by-supplier", "7", ""].map(str::to_string));
        assert_eq!(
            table.text(),
            "NAME          ROWS  WHERE\n\
             load         1,234  out\n\
             by-supplier      7  -\n"
        );
    }
}
