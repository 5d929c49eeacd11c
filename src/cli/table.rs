//! Text tables: columns as wide as their content, with colours.

use std::fmt;

use anstyle::{AnsiColor, Style};

pub(super) const HEAD: Style = Style::new().bold();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub(super) const NOTABLE: Style = AnsiColor::Yellow.on_default();
/// Less important.
pub(super) const FAINT: Style = Style::new().dimmed();

const GAP: &str = "  ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

pub(super) struct Cell {
    text: String,
    style: Style,
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(value: T) -> Self {
        styled(value, Style::new())
    }
}

pub(super) fn styled(value: impl fmt::Display, style: Style) -> Cell {
    let text = value.to_string();
    Cell { text, style }
}

/// Its `Display` ends every line with a newline.
pub(super) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        Self {
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| styled(name, HEAD)).collect()],
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max()
        };
        (0..self.aligns.len())
            .map(|column| width(column).unwrap_or(0))
            .collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for row in &self.rows {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.text.chars().count());
                let text = format!("{}{}{}", cell.style, cell.text, cell.style.render_reset());
                let gap = if at == 0 { "" } else { GAP };
                match self.aligns[at] {
                    Align::Right => write!(formatter, "{gap}{padding}{text}")?,
                    Align::Left if at + 1 == row.len() => write!(formatter, "{gap}{text}")?,
                    Align::Left => write!(formatter, "{gap}{text}{padding}")?,
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([
            ("node", Align::Left),
            ("users", Align::Right),
            ("version", Align::Left),
        ]);
        table.row([styled("a", GOOD), 12.into(), "0.1.0".into()]);
        table.row(["hüb".into(), 1_000_000.into(), "0.1.0".into()]);
        let text = anstream::adapter::strip_str(&table.to_string()).to_string();
        assert_eq!(
            text,
            "node    users  version\n\
             a          12  0.1.0\n\
             hüb   1000000  0.1.0\n"
        );
        assert!(
            table.to_string().contains("\u{1b}[32ma\u{1b}[0m"),
            "{table}"
        );
    }
}
