//! Configuration text and places in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file's text.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    text: String,
}

/// Line and column of a place, both counted from 1; columns are characters, as editors count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A quoted line with the columns to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The line without its break; tabs are spaces.
    pub line: String,
    /// First character to underline, from 0.
    pub start: usize,
    /// Number of characters to underline, at least 1.
    pub len: usize,
}

/// Longest line that is quoted whole, in characters; a longer one is cut.
const QUOTE_MAX: usize = 160;

impl Source {
    /// A file's text under the name that diagnostics show.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }

    /// The name that diagnostics show.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the byte `offset` is; offsets beyond the end or inside a character are moved back.
    pub fn position(&self, offset: usize) -> Position {
        let before = &self.text[..self.floor(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The line in which `span` begins, with the part to underline.
    pub fn quote(&self, span: &Range<usize>) -> Quote {
        let start = self.floor(span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |at| start + at);
        let end = self.floor(span.end).clamp(start, line_end);
        let line = self.text[line_start..line_end]
            .trim_end_matches('\r')
            .replace('\t', " ");
        let column = self.text[line_start..start].chars().count();
        let len = self.text[start..end].chars().count().max(1);
        cut(&line, column, len)
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

fn cut(line: &str, start: usize, len: usize) -> Quote {
    if line.chars().count() <= QUOTE_MAX {
        return Quote {
            line: line.to_owned(),
            start,
            len,
        };
    }
    // A long line is shown from a little before the place.
    let skip = start.saturating_sub(QUOTE_MAX / 4);
    let shown: String = line.chars().skip(skip).take(QUOTE_MAX).collect();
    let start = start - skip;
    let len = len.min(QUOTE_MAX.saturating_sub(start)).max(1);
    Quote {
        line: shown,
        start,
        len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("x", "a = 1\n한글 = 2\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(
            source.position("a = 1\n한글".len()),
            Position { line: 2, column: 3 }
        );
        assert_eq!(source.position(9_999), Position { line: 3, column: 1 });
    }

    #[test]
    fn quote_stays_within_the_line() {
        let source = Source::new("x", "name = \"\"\"a\nb\"\"\"\n");
        let quote = source.quote(&(7..16));
        assert_eq!(
            quote,
            Quote {
                line: "name = \"\"\"a".into(),
                start: 7,
                len: 4
            }
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let quote = Source::new("x", text).quote(&(500..501));
        assert_eq!(quote.line.chars().nth(quote.start), Some('X'));
        assert!(quote.line.chars().count() <= QUOTE_MAX);
    }
}
