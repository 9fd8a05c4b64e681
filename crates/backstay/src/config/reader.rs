//! Reads tables by the field tables: unknown, missing and wrong values are reported, all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use wire::ByteCount;

use super::convert::{self, Bad};
use super::diagnostic::{Diagnostic, Fault, Sink, Span};
use super::fields::{Field, Kind, LATER_KEYS, LATER_KINDS, Need, Shape};
use super::suggest::{closest, list_or};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Span,
}

/// Either one path for all nodes, or one per node.
#[derive(Clone, Debug)]
pub(super) enum PathPerNode {
    Same(String),
    Each(Vec<(Located<String>, String)>),
}

#[derive(Clone, Debug)]
struct Entry<'a> {
    key: Span,
    at: Span,
    value: &'a DeValue<'a>,
}

/// One table that is being read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    object: String,
    at: Span,
    fields: &'static [Field],
    entries: BTreeMap<&'a str, Vec<Entry<'a>>>,
    sink: &'a Sink,
}

impl<'a> Reader<'a> {
    /// The whole configuration, which may be spread over several files.
    pub(super) fn root(
        fields: &'static [Field],
        files: &'a [Spanned<DeTable<'a>>],
        sink: &'a Sink,
    ) -> Self {
        let at = Span {
            file: 0,
            range: 0..0,
        };
        let mut reader = Self {
            object: "the configuration".into(),
            at,
            fields,
            entries: BTreeMap::new(),
            sink,
        };
        for (file, table) in files.iter().enumerate() {
            reader.add(file, table.get_ref());
        }
        reader.check_keys();
        reader
    }

    /// A table below this one. A `tag`, such as `kind`, was read already and is no key of it.
    fn below(
        &self,
        object: String,
        at: Span,
        fields: &'static [Field],
        table: &'a DeTable<'a>,
        tag: Option<&str>,
    ) -> Self {
        let file = at.file;
        let mut reader = Self {
            object,
            at,
            fields,
            entries: BTreeMap::new(),
            sink: self.sink,
        };
        reader.add(file, table);
        reader.entries.retain(|key, _| Some(*key) != tag);
        reader.check_keys();
        reader
    }

    fn add(&mut self, file: usize, table: &'a DeTable<'a>) {
        for (key, value) in table {
            let entry = Entry {
                key: Span {
                    file,
                    range: key.span(),
                },
                at: Span {
                    file,
                    range: value.span(),
                },
                value: value.get_ref(),
            };
            self.entries
                .entry(key.get_ref().as_ref())
                .or_default()
                .push(entry);
        }
    }

    /// Where the table stands.
    pub(super) const fn at(&self) -> &Span {
        &self.at
    }

    /// What the table describes, for messages.
    pub(super) fn object(&self) -> &str {
        &self.object
    }

    /// Reports a mistake.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.sink.add(diagnostic);
    }

    /// True if the key is written in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where a key's value stands; the table itself when the key is missing.
    pub(super) fn place(&self, key: &str) -> &Span {
        self.entries
            .get(key)
            .and_then(|list| list.first())
            .map_or(&self.at, |entry| &entry.at)
    }

    fn check_keys(&self) {
        for (key, entries) in &self.entries {
            match self.fields.iter().find(|field| field.key == *key) {
                None => entries.iter().for_each(|entry| self.unknown(key, entry)),
                Some(field) => self.check_single(field, entries),
            }
        }
        for field in self.fields {
            if field.need == Need::Required && !self.entries.contains_key(field.key) {
                self.missing(field);
            }
        }
    }

    fn unknown(&self, key: &str, entry: &Entry<'_>) {
        let object = &self.object;
        let (fault, what) = if LATER_KEYS.contains(&key) {
            (
                Fault::NotYet,
                format!("`{key}` in {object} is not in this release"),
            )
        } else {
            (
                Fault::UnknownKey,
                format!("unknown key `{key}` in {object}"),
            )
        };
        let diagnostic = Diagnostic::new(fault, &entry.key, what);
        let known = self.fields.iter().map(|field| field.key);
        self.sink.add(match closest(key, known.clone()) {
            Some(word) => diagnostic.hint(format!("did you mean `{word}`?")),
            None if fault == Fault::NotYet => diagnostic.hint("leave it out"),
            None => diagnostic.hint(format!("keys here are {}", list_or(known))),
        });
    }

    fn check_single(&self, field: &Field, entries: &[Entry<'_>]) {
        let joins = matches!(field.shape, Shape::Tables(_) | Shape::Kinds(_));
        if joins {
            return;
        }
        for entry in entries.iter().skip(1) {
            let what = format!("`{}` of {} is given in two files", field.key, self.object);
            let hint = "keep it in one of them";
            self.sink
                .add(Diagnostic::new(Fault::Clash, &entry.key, what).hint(hint));
        }
    }

    fn missing(&self, field: &Field) {
        let what = format!("`{}` is missing in {}", field.key, self.object);
        let key = field.key;
        let hint = match field.shape {
            Shape::Table(_) => format!("add a table [{key}]"),
            Shape::Tables(_) => format!("add a table [[{key}]]"),
            Shape::Kinds(_) => format!("add a table [[group.{key}]]"),
            Shape::Name
            | Shape::Text
            | Shape::Path
            | Shape::Flag
            | Shape::Count(..)
            | Shape::Bytes(..)
            | Shape::Time(..)
            | Shape::Address
            | Shape::Addresses
            | Shape::Command
            | Shape::Choice(_)
            | Shape::PathPerNode => format!("add {key} = …, {}", convert::expected(field.shape)),
        };
        let diagnostic = Diagnostic::new(Fault::Missing, &self.at, what).why(field.doc);
        self.sink.add(diagnostic.hint(hint));
    }

    fn field(&self, key: &str) -> Option<&'static Field> {
        let field = self.fields.iter().find(|field| field.key == key);
        debug_assert!(
            field.is_some(),
            "`{key}` is not in the table of {}",
            self.object
        );
        field
    }

    fn complain(&self, key: &str, at: &Span, bad: Bad) {
        let what = format!("`{key}` in {} {}", self.object, bad.what);
        let mut diagnostic = Diagnostic::new(bad.fault, at, what);
        diagnostic.hint = bad.hint;
        self.sink.add(diagnostic);
    }

    fn scalar<T>(
        &self,
        key: &str,
        convert: fn(Shape, &DeValue<'_>) -> Result<T, Bad>,
    ) -> Option<Located<T>> {
        let field = self.field(key)?;
        if let Some(entry) = self.entries.get(key).and_then(|list| list.first()) {
            return match convert(field.shape, entry.value) {
                Ok(value) => Some(Located {
                    value,
                    at: entry.at.clone(),
                }),
                Err(bad) => {
                    self.complain(key, &entry.at, bad);
                    None
                }
            };
        }
        let Need::Default(text) = field.need else {
            return None;
        };
        let value = DeValue::parse(text).ok()?;
        let value = convert(field.shape, value.get_ref()).ok()?;
        Some(Located {
            value,
            at: self.at.clone(),
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<Located<String>> {
        self.scalar(key, convert::text)
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.scalar(key, convert::flag).map(|found| found.value)
    }

    pub(super) fn count(&self, key: &str) -> Option<Located<u64>> {
        self.scalar(key, convert::count)
    }

    pub(super) fn bytes(&self, key: &str) -> Option<ByteCount> {
        self.scalar(key, convert::bytes).map(|found| found.value)
    }

    pub(super) fn time(&self, key: &str) -> Option<Duration> {
        self.scalar(key, convert::time).map(|found| found.value)
    }

    pub(super) fn address(&self, key: &str) -> Option<Located<IpAddr>> {
        self.scalar(key, convert::address)
    }

    /// The items of a list; none when it is missing or not a list; wrong items are left out.
    fn items<T>(
        &self,
        key: &str,
        convert: impl Fn(&DeValue<'_>) -> Result<T, Bad>,
    ) -> Option<Vec<Located<T>>> {
        let field = self.field(key)?;
        let entry = self.entries.get(key)?.first()?;
        let DeValue::Array(array) = entry.value else {
            self.complain(key, &entry.at, Bad::wrong_type(field.shape, entry.value));
            return None;
        };
        let mut items = Vec::new();
        for item in array.iter() {
            let at = Span {
                file: entry.at.file,
                range: item.span(),
            };
            match convert(item.get_ref()) {
                Ok(value) => items.push(Located { value, at }),
                Err(bad) => self.complain(key, &at, bad),
            }
        }
        if array.is_empty() {
            let what = format!("`{key}` in {} is empty", self.object);
            let diagnostic = Diagnostic::new(Fault::Value, &entry.at, what);
            self.sink
                .add(diagnostic.hint(format!("give {}", convert::expected(field.shape))));
        }
        Some(items)
    }

    pub(super) fn addresses(&self, key: &str) -> Option<Vec<Located<IpAddr>>> {
        self.items(key, |item| convert::address(Shape::Address, item))
    }

    /// Program and arguments; never empty.
    pub(super) fn command(&self, key: &str) -> Option<Vec<String>> {
        let words: Vec<String> = self
            .items(key, convert::word)?
            .into_iter()
            .map(|word| word.value)
            .collect();
        if words.first().is_some_and(String::is_empty) {
            let what = format!("`{key}` in {} has no program", self.object);
            self.sink
                .add(Diagnostic::new(Fault::Value, self.place(key), what));
            return None;
        }
        (!words.is_empty()).then_some(words)
    }

    pub(super) fn path_per_node(&self, key: &str) -> Option<PathPerNode> {
        let entry = self.entries.get(key)?.first()?;
        let DeValue::Table(table) = entry.value else {
            let shape = if entry.value.is_str() {
                Shape::Path
            } else {
                Shape::PathPerNode
            };
            return match convert::text(shape, entry.value) {
                Ok(path) => Some(PathPerNode::Same(path)),
                Err(bad) => {
                    self.complain(key, &entry.at, bad);
                    None
                }
            };
        };
        let mut each = Vec::new();
        for (node, path) in table {
            let at = Span {
                file: entry.at.file,
                range: node.span(),
            };
            let name = Located {
                value: node.get_ref().to_string(),
                at,
            };
            match convert::text(Shape::Path, path.get_ref()) {
                Ok(path) => each.push((name, path)),
                Err(bad) => {
                    let at = Span {
                        file: entry.at.file,
                        range: path.span(),
                    };
                    self.complain(&format!("{key}.{}", name.value), &at, bad);
                }
            }
        }
        Some(PathPerNode::Each(each))
    }

    /// A table below this one; none when it is missing.
    pub(super) fn table(&self, key: &str) -> Option<Self> {
        let field = self.field(key)?;
        let Shape::Table(fields) = field.shape else {
            return None;
        };
        let entry = self.entries.get(key)?.first()?;
        let DeValue::Table(table) = entry.value else {
            self.complain(key, &entry.at, Bad::wrong_type(field.shape, entry.value));
            return None;
        };
        Some(self.below(format!("[{key}]"), entry.at.clone(), fields, table, None))
    }

    /// The tables of a list below this one.
    pub(super) fn tables(&self, key: &str) -> Vec<Self> {
        let Some(Field {
            shape: Shape::Tables(fields),
            ..
        }) = self.field(key)
        else {
            return Vec::new();
        };
        let tables = self.raw_tables(key);
        tables
            .into_iter()
            .enumerate()
            .map(|(index, (at, table))| {
                let object = named(key, index, table);
                self.below(object, at, fields, table, None)
            })
            .collect()
    }

    /// The tables of a list whose keys depend on their `kind`, with it.
    pub(super) fn kinds(&self, key: &str) -> Vec<(&'static str, Self)> {
        let Some(Field {
            shape: Shape::Kinds(kinds),
            ..
        }) = self.field(key)
        else {
            return Vec::new();
        };
        let tables = self.raw_tables(key);
        tables
            .into_iter()
            .enumerate()
            .filter_map(|(index, (at, table))| self.kind_of(kinds, index, at, table))
            .collect()
    }

    fn raw_tables(&self, key: &str) -> Vec<(Span, &'a DeTable<'a>)> {
        let mut tables = Vec::new();
        for entry in self.entries.get(key).into_iter().flatten() {
            let DeValue::Array(array) = entry.value else {
                let hint = format!("write [[{key}]], with two brackets");
                let what = format!("`{key}` must be a list of tables");
                self.sink
                    .add(Diagnostic::new(Fault::Value, &entry.key, what).hint(hint));
                continue;
            };
            for item in array.iter() {
                let at = Span {
                    file: entry.at.file,
                    range: item.span(),
                };
                if let DeValue::Table(table) = item.get_ref() {
                    tables.push((at, table));
                    continue;
                }
                let name = convert::type_name(item.get_ref());
                let what = format!("must have tables in it, but has {name}");
                self.complain(
                    key,
                    &at,
                    Bad {
                        fault: Fault::Value,
                        what,
                        hint: None,
                    },
                );
            }
        }
        tables
    }

    fn kind_of(
        &self,
        kinds: &'static [Kind],
        index: usize,
        at: Span,
        table: &'a DeTable<'a>,
    ) -> Option<(&'static str, Self)> {
        let known = || list_or(kinds.iter().map(|kind| kind.kind));
        let object = format!("resource {} of {}", index + 1, self.object);
        let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "kind") else {
            let what = format!("`kind` is missing in {object}");
            let hint = format!("add kind = …, {}", known());
            self.sink
                .add(Diagnostic::new(Fault::Missing, &at, what).hint(hint));
            return None;
        };
        let word = value.get_ref().as_str().unwrap_or_default();
        if let Some(kind) = kinds.iter().find(|kind| kind.kind == word) {
            let object = named_resource(kind.kind, index, &self.object, table);
            return Some((
                kind.kind,
                self.below(object, at, kind.fields, table, Some("kind")),
            ));
        }
        let at = Span {
            file: at.file,
            range: value.span(),
        };
        let (fault, what) = match word {
            "" => (
                Fault::Value,
                format!("`kind` of {object} must be {}", known()),
            ),
            _ if LATER_KINDS.contains(&word) => (
                Fault::NotYet,
                format!("{object} is of kind `{word}`, which is not in this release"),
            ),
            _ => (Fault::Value, format!("unknown kind `{word}` of {object}")),
        };
        let hint = closest(word, kinds.iter().map(|kind| kind.kind)).map_or_else(
            || format!("kinds are {}", known()),
            |near| format!("did you mean `{near}`?"),
        );
        self.sink.add(Diagnostic::new(fault, &at, what).hint(hint));
        None
    }
}

fn text_at<'a>(table: &'a DeTable<'a>, wanted: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(key, _)| key.get_ref() == wanted)?
        .1
        .get_ref()
        .as_str()
}

fn named(key: &str, index: usize, table: &DeTable<'_>) -> String {
    match text_at(table, "name") {
        Some(name) => format!("{key} `{name}`"),
        None => format!("[[{key}]] number {}", index + 1),
    }
}

fn named_resource(kind: &str, index: usize, group: &str, table: &DeTable<'_>) -> String {
    match ["name", "mount", "ip"]
        .iter()
        .find_map(|key| text_at(table, key))
    {
        Some(name) => format!("{kind} `{name}` of {group}"),
        None => format!("resource {} ({kind}) of {group}", index + 1),
    }
}
