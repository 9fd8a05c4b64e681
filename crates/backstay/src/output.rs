//! Where a command's words go: data on standard output, talk on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// Form of the data on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One indented JSON document.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// One YAML document.
    Yaml,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Never.
    Never,
}

/// Language of texts. Codes and JSON are the same in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Korean; texts that are not translated come in English.
    Ko,
}

impl Lang {
    /// Language of a locale name such as `ko_KR.UTF-8`.
    pub fn from_locale(locale: &str) -> Self {
        if locale.starts_with("ko") {
            Self::Ko
        } else {
            Self::En
        }
    }
}

/// Meaning of a colour, so that a theme is in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Working, but look.
    Warn,
    /// Broken.
    Bad,
    /// Headings and names.
    Strong,
    /// Less important.
    Dim,
}

impl Tone {
    const fn sgr(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Strong => "1",
            Self::Dim => "2",
        }
    }
}

/// Terminal width in columns when nobody knows it (a pipe).
const WIDTH_DEFAULT: usize = 100;
/// Narrowest width that layouts are made for, in columns.
const WIDTH_MIN: usize = 40;

/// How one run of a command talks.
#[derive(Clone, Debug)]
pub struct Ui {
    /// Form of the data.
    pub format: Format,
    /// Colours on standard output.
    pub color: bool,
    /// Only ASCII in tables.
    pub ascii: bool,
    /// Language of texts.
    pub lang: Lang,
    /// Columns that a table may use.
    pub width: usize,
    /// Colours on standard error.
    pub color_talk: bool,
}

impl Ui {
    /// Decides colours, width and language from the flags, the environment and the terminal.
    pub fn new(format: Format, color: ColorChoice, ascii: bool, lang: Option<Lang>) -> Self {
        let lang = lang.unwrap_or_else(lang_of_environment);
        Self {
            format,
            color: wants_color(color, io::stdout().is_terminal()),
            ascii,
            lang,
            width: terminal_width().unwrap_or(WIDTH_DEFAULT).max(WIDTH_MIN),
            color_talk: wants_color(color, io::stderr().is_terminal()),
        }
    }

    /// A plain `Ui` for tests and for text that goes into files: no colour, fixed width.
    pub const fn plain(format: Format, width: usize) -> Self {
        Self {
            format,
            color: false,
            ascii: false,
            lang: Lang::En,
            width,
            color_talk: false,
        }
    }

    /// True when a person reads (table format).
    pub fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// What stands between two facts on a line.
    pub const fn dot(&self) -> &'static str {
        if self.ascii { " - " } else { " · " }
    }

    /// `text` in a colour, or as it is when colours are off.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.color, tone, text)
    }

    /// Writes data, ending with a line break, to standard output.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn data(&self, text: impl fmt::Display) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Failure::broken_pipe();
            }
            Failure::new("cannot write to standard output").cause(error)
        })
    }

    /// Writes a document in the chosen format; `table` is called only for people.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub fn document<T: Serialize>(
        &self,
        document: &T,
        table: impl FnOnce(&Self) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.data(table(self).trim_end_matches('\n')),
            Format::Json => self.data(encode(serde_json::to_string_pretty(document))?),
            Format::Jsonl => self.data(encode(serde_json::to_string(document))?),
            Format::Yaml => self.data(encode(serde_norway::to_string(document))?.trim_end()),
        }
    }

    /// Says something to the person, on standard error.
    pub fn talk(&self, text: impl fmt::Display) {
        // A closed standard error must not end a command that does its work.
        writeln!(io::stderr().lock(), "{text}").ok();
    }

    /// Reports a failure on standard error.
    pub fn fail(&self, failure: &Failure) {
        if failure.is_broken_pipe() {
            return;
        }
        for (label, text) in failure.lines() {
            let tone = if label == "error" {
                Tone::Bad
            } else {
                Tone::Strong
            };
            let label = paint(self.color_talk, tone, &format!("{label}:"));
            let gap = if label.contains("hint") { "  " } else { " " };
            self.talk(format_args!("{label}{gap}{text}"));
        }
    }
}

fn encode<E: std::error::Error + 'static>(text: Result<String, E>) -> Result<String, Failure> {
    text.map_err(|error| Failure::new("cannot write the document").from_error(&error))
}

fn paint(on: bool, tone: Tone, text: &str) -> String {
    if on {
        format!("\x1b[{}m{text}\x1b[0m", tone.sgr())
    } else {
        text.to_owned()
    }
}

fn wants_color(choice: ColorChoice, terminal: bool) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        // https://no-color.org: any value that is not empty switches colours off.
        ColorChoice::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            terminal && !refused && !dumb
        }
    }
}

fn lang_of_environment() -> Lang {
    // POSIX: LC_ALL beats LC_MESSAGES beats LANG; empty ones do not count.
    ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .map_or(Lang::En, |locale| Lang::from_locale(&locale))
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_names_choose_the_language() {
        assert_eq!(Lang::from_locale("ko_KR.UTF-8"), Lang::Ko);
        assert_eq!(Lang::from_locale("C.UTF-8"), Lang::En);
    }

    #[test]
    fn plain_output_has_no_escape_codes() {
        assert_eq!(
            Ui::plain(Format::Table, 80).paint(Tone::Bad, "down"),
            "down"
        );
    }

    #[test]
    fn forced_colour_beats_a_pipe() {
        assert!(wants_color(ColorChoice::Always, false));
        assert!(!wants_color(ColorChoice::Never, true));
    }
}
