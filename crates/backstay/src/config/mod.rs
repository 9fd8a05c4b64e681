//! The configuration: read, checked as a whole, and explained when it is wrong.
//!
//! Map: [`source`] is text with places; `fields` lists every key; `reader` and `convert` turn tables into values;
//! `decode` builds the [`model`]; `check` compares its parts; [`diagnostic`] tells a person; [`schema`] tells an editor.

mod check;
mod convert;
mod decode;
pub mod diagnostic;
mod fields;
pub mod model;
pub mod profile;
mod reader;
pub mod schema;
pub mod source;
mod suggest;
#[cfg(test)]
mod tests;
pub mod units;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use diagnostic::{Diagnostic, Diagnostics, Fault, Sink, Span};
pub use model::Config;
use source::Source;

/// Where the configuration is unless `--config` says otherwise.
pub const CONFIG_PATH_DEFAULT: &str = "/etc/backstay/backstay.toml";

/// Largest configuration file, in bytes. A larger one is refused without being read.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Most files in `conf.d`.
const CONF_D_FILES_MAX: usize = 64;

/// Reads and checks a configuration: the file, and `conf.d/*.toml` beside it in the order of their names.
///
/// # Errors
/// All mistakes at once.
pub fn load(path: &Path) -> Result<Config, Diagnostics> {
    let mut paths = vec![path.to_path_buf()];
    let directory = path
        .parent()
        .unwrap_or_else(|| Path::new("."))
        .join("conf.d");
    paths.extend(conf_d(&directory).map_err(|error| unreadable(&directory, &error))?);
    let mut sources = Vec::new();
    for path in &paths {
        sources.push(read(path).map_err(|error| unreadable(path, &error))?);
    }
    parse(sources)
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostics {
    let what = format!("cannot read {}", path.display());
    let diagnostic = Diagnostic::general(Fault::Unreadable, what).why(error.to_string());
    let diagnostic = if error.kind() == io::ErrorKind::NotFound {
        diagnostic.hint("give the file with --config FILE")
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        diagnostic.hint("run it as root")
    } else {
        diagnostic
    };
    Diagnostics::new(Vec::new(), vec![diagnostic])
}

fn read(path: &Path) -> io::Result<Source> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if metadata.len() > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is larger than {CONFIG_BYTES_MAX} bytes"
        )));
    }
    let bytes = fs::read(path)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| io::Error::other(format!("it is not UTF-8 text: {error}")))?;
    Ok(Source::new(path, text))
}

fn conf_d(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    if paths.len() > CONF_D_FILES_MAX {
        return Err(io::Error::other(format!(
            "there are more than {CONF_D_FILES_MAX} files in it"
        )));
    }
    paths.sort();
    Ok(paths)
}

/// Checks configuration texts as one configuration.
///
/// # Errors
/// All mistakes at once, never none.
pub fn parse(sources: Vec<Source>) -> Result<Config, Diagnostics> {
    let sink = Sink::default();
    let config = parse_into(&sources, &sink);
    match config {
        Some(config) if sink.is_empty() => Ok(config),
        Some(_) | None => {
            let mut list = sink.into_sorted();
            if list.is_empty() {
                let what = "the configuration is not complete";
                list.push(Diagnostic::general(Fault::Missing, what));
            }
            Err(Diagnostics::new(sources, list))
        }
    }
}

fn parse_into(sources: &[Source], sink: &Sink) -> Option<Config> {
    let mut files = Vec::new();
    for (file, source) in sources.iter().enumerate() {
        let (table, errors) = DeTable::parse_recoverable(source.text());
        for error in errors {
            let range = error.span().unwrap_or(0..0);
            let what = format!("not TOML: {}", error.message());
            sink.add(Diagnostic::new(Fault::Syntax, &Span { file, range }, what));
        }
        files.push(table);
    }
    if !sink.is_empty() {
        // A broken line hides keys; complaints about them would mislead.
        return None;
    }
    let root = reader::Reader::root(fields::ROOT, &files, sink);
    let mut parts = decode::Parts::read(root);
    check::check(&mut parts);
    if sink.is_empty() {
        parts.into_config()
    } else {
        None
    }
}
