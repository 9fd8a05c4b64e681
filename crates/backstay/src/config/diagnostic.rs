//! What is wrong with a configuration, and where.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::Range;

use serde::Serialize;

use super::source::{Position, Source};
use crate::output::{Format, Tone, Ui};

/// Kind of mistake; each has a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A file cannot be read.
    Unreadable,
    /// The text is not TOML.
    Syntax,
    /// A key that nobody reads.
    UnknownKey,
    /// A value of a wrong type, out of range or not parseable.
    Value,
    /// Something needed is not there.
    Missing,
    /// Two things that exclude each other.
    Clash,
    /// A name that nothing bears.
    Reference,
    /// Valid, but it would break a promise.
    Unsafe,
    /// Planned, but not in this release.
    NotYet,
}

impl Fault {
    /// The stable code, for `backstay help`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "BS-501",
            Self::Syntax => "BS-502",
            Self::UnknownKey => "BS-503",
            Self::Value => "BS-504",
            Self::Missing => "BS-505",
            Self::Clash => "BS-506",
            Self::Reference => "BS-507",
            Self::Unsafe => "BS-508",
            Self::NotYet => "BS-509",
        }
    }
}

/// A place: which file, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the sources.
    pub file: usize,
    /// Bytes of the file.
    pub range: Range<usize>,
}

/// One mistake: what, why, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Kind of mistake.
    pub fault: Fault,
    /// What is wrong; names the object.
    pub what: String,
    /// Why it matters, if that is not plain.
    pub why: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Where.
    pub at: Option<Span>,
}

impl Diagnostic {
    /// A mistake at a place.
    pub fn new(fault: Fault, at: &Span, what: impl Into<String>) -> Self {
        Self {
            fault,
            what: what.into(),
            why: None,
            hint: None,
            at: Some(at.clone()),
        }
    }

    /// A mistake without a place.
    pub fn general(fault: Fault, what: impl Into<String>) -> Self {
        Self {
            fault,
            what: what.into(),
            why: None,
            hint: None,
            at: None,
        }
    }

    /// Says why it is a mistake.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Collects mistakes while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Sink {
    found: RefCell<Vec<Diagnostic>>,
}

/// Most mistakes that are reported at once; a binary file would give one per line.
const DIAGNOSTICS_MAX: usize = 50;

impl Sink {
    pub(super) fn add(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        if found.len() < DIAGNOSTICS_MAX && !found.contains(&diagnostic) {
            found.push(diagnostic);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All mistakes in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|one| one.at.as_ref().map(|at| (at.file, at.range.start)));
        found
    }
}

/// All mistakes of a configuration, with the text they are in. Never empty.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    sources: Vec<Source>,
    list: Vec<Diagnostic>,
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(&Ui::plain(Format::Table, 100)))
    }
}

/// One mistake as a JSON document's part.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosticView {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do.
    pub action: String,
    /// Where to read more.
    pub see: String,
    /// File, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl Diagnostics {
    pub(super) const fn new(sources: Vec<Source>, list: Vec<Diagnostic>) -> Self {
        Self { sources, list }
    }

    /// The mistakes in the order of their places.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Which file, line and column a mistake is at.
    pub fn place(&self, diagnostic: &Diagnostic) -> Option<(&Source, Position)> {
        let at = diagnostic.at.as_ref()?;
        let source = self.sources.get(at.file)?;
        Some((source, source.position(at.range.start)))
    }

    /// For `-o json`.
    pub fn views(&self) -> Vec<DiagnosticView> {
        self.list.iter().map(|one| self.view(one)).collect()
    }

    fn view(&self, one: &Diagnostic) -> DiagnosticView {
        let place = self.place(one);
        DiagnosticView {
            code: one.fault.code(),
            message: one.what.clone(),
            cause: one.why.clone(),
            action: one
                .hint
                .clone()
                .unwrap_or_else(|| "correct the configuration".into()),
            see: format!("backstay help {}", one.fault.code()),
            file: place.map(|(source, _)| source.path().display().to_string()),
            line: place.map(|(_, position)| position.line),
            column: place.map(|(_, position)| position.column),
        }
    }

    /// For people: each mistake with its line quoted.
    pub fn render(&self, ui: &Ui) -> String {
        let mut text = String::new();
        for one in &self.list {
            self.render_one(ui, one, &mut text).ok();
        }
        let plural = if self.list.len() == 1 {
            "mistake"
        } else {
            "mistakes"
        };
        text.push_str(&format!("{} {plural}", self.list.len()));
        text
    }

    fn render_one(&self, ui: &Ui, one: &Diagnostic, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{} {} [{}]",
            ui.paint(Tone::Bad, "error:"),
            one.what,
            one.fault.code()
        )?;
        if let (Some(at), Some((source, position))) = (&one.at, self.place(one)) {
            let Position { line, column } = position;
            writeln!(text, "   at: {}:{line}:{column}", source.path().display())?;
            let quote = source.quote(&at.range);
            let number = line.to_string();
            let gutter = " ".repeat(number.len());
            writeln!(
                text,
                "       {} {}",
                ui.paint(Tone::Dim, &format!("{number} |")),
                quote.line
            )?;
            let marks = ui.paint(Tone::Bad, &"^".repeat(quote.len));
            let bar = ui.paint(Tone::Dim, &format!("{gutter} |"));
            writeln!(text, "       {bar} {}{marks}", " ".repeat(quote.start))?;
        }
        if let Some(why) = &one.why {
            writeln!(text, "{} {why}", ui.paint(Tone::Strong, "cause:"))?;
        }
        if let Some(hint) = &one.hint {
            writeln!(text, "{}  {hint}", ui.paint(Tone::Strong, "hint:"))?;
        }
        writeln!(text)
    }
}
