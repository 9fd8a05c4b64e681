//! Blocks of aligned columns that know the terminal's width. Korean letters take two columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::output::{Tone, Ui};

/// Columns between two cells.
const GAP: usize = 2;

/// Narrowest room that a wrapped cell gets, even if the line is then too long.
const ROOM_MIN: usize = 12;

/// A cell: text with a tone.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Option<Tone>,
}

impl Cell {
    /// A cell in a tone.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Some(tone),
        }
    }

    fn painted(&self, ui: &Ui) -> String {
        self.tone
            .map_or_else(|| self.text.clone(), |tone| ui.paint(tone, &self.text))
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tone: None,
        }
    }
}

/// Columns that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Rows with a label in front of the first: `NODES  node-a  active  up`.
#[derive(Clone, Debug)]
pub struct Block {
    label: Cell,
    rows: Vec<Vec<Cell>>,
}

impl Block {
    /// An empty block with a label.
    pub fn new(label: impl Into<String>) -> Self {
        Self::toned(Tone::Strong, label)
    }

    /// An empty block with a label in a tone.
    pub fn toned(tone: Tone, label: impl Into<String>) -> Self {
        Self {
            label: Cell::toned(tone, label),
            rows: Vec::new(),
        }
    }

    /// Adds a row. The last cell of a row is wrapped when it is too wide.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Draws with the label in a column of `label_width`.
    pub fn draw(&self, ui: &Ui, label_width: usize) -> String {
        let widths = self.column_widths();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let label = if index == 0 {
                self.label.clone()
            } else {
                Cell::default()
            };
            text.push_str(&label.painted(ui));
            text.push_str(&spaces(label_width.saturating_sub(width(&label.text))));
            draw_row(ui, row, &widths, label_width, &mut text);
        }
        text
    }

    fn column_widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            // A row's last cell does not widen its column: it may be a sentence.
            let cells = self.rows.iter().filter(|row| column + 1 < row.len());
            cells.map(|row| width(&row[column].text)).max().unwrap_or(0)
        };
        (0..columns).map(widest).collect()
    }
}

fn draw_row(ui: &Ui, row: &[Cell], widths: &[usize], left: usize, text: &mut String) {
    let mut column = left;
    for (index, cell) in row.iter().enumerate() {
        if index + 1 < row.len() {
            text.push_str(&cell.painted(ui));
            text.push_str(&spaces(
                widths[index].saturating_sub(width(&cell.text)) + GAP,
            ));
            column += widths[index] + GAP;
            continue;
        }
        let room = ui.width.saturating_sub(column).max(ROOM_MIN);
        for (number, line) in wrap(&cell.text, room).into_iter().enumerate() {
            if number > 0 {
                text.push('\n');
                text.push_str(&spaces(column));
            }
            text.push_str(
                &Cell {
                    text: line,
                    tone: cell.tone,
                }
                .painted(ui),
            );
        }
    }
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

fn spaces(count: usize) -> String {
    " ".repeat(count)
}

/// Breaks text at spaces into lines of at most `room` columns; a longer word is broken.
pub fn wrap(text: &str, room: usize) -> Vec<String> {
    if width(text) <= room {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else {
            return lines;
        };
        let joined = width(line) + usize::from(!line.is_empty()) + width(word);
        if joined <= room {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            break_word(word, room, &mut lines);
        }
    }
    lines
}

fn break_word(word: &str, room: usize, lines: &mut Vec<String>) {
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let mut line = String::new();
    let mut taken = 0;
    for letter in word.chars() {
        let columns = letter.width().unwrap_or(0);
        if taken + columns > room && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        line.push(letter);
        taken += columns;
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn columns_align_and_the_last_one_wraps() {
        let mut block = Block::new("LIST");
        block.row([
            "a".into(),
            "x".into(),
            "a sentence that is wider than the room".into(),
        ]);
        block.row(["한글".into(), "y".into(), "short".into()]);
        let text = block.draw(&Ui::plain(Format::Table, 40), 6);
        let expected = "LIST  a     x  a sentence that is wider\n               than the room\n      한글  y  short\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_words_are_broken() {
        assert_eq!(wrap("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
