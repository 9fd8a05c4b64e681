//! `backstay config`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::diagnostic::DiagnosticView;
use crate::config::{self, CONFIG_PATH_DEFAULT, Config};
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{Format, Tone, Ui};

/// Commands about the configuration.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Check a configuration, with conf.d beside it; nothing is changed
    Check {
        /// The file
        #[arg(default_value = CONFIG_PATH_DEFAULT)]
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Check {
    schema: &'static str,
    ok: bool,
    file: String,
    problems: Vec<DiagnosticView>,
}

pub(super) fn run(command: &Command, ui: &Ui) -> Outcome {
    match command {
        Command::Check { file } => check(file, ui),
        Command::Schema => schema(ui),
    }
}

fn check(file: &Path, ui: &Ui) -> Outcome {
    let checked = config::load(file);
    let problems = checked
        .as_ref()
        .err()
        .map(|found| found.views())
        .unwrap_or_default();
    let document = Check {
        schema: "backstay.config-check/1",
        ok: checked.is_ok(),
        file: file.display().to_string(),
        problems,
    };
    match &checked {
        Ok(config) => ui.document(&document, |ui| summary(ui, &document.file, config))?,
        Err(found) if ui.is_table() => ui.talk(found.render(ui)),
        Err(_) => ui.document(&document, |_| String::new())?,
    }
    Ok(if checked.is_ok() {
        Exit::Ready
    } else {
        Exit::Error
    })
}

fn summary(ui: &Ui, file: &str, config: &Config) -> String {
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    let resources = config
        .groups
        .iter()
        .map(|group| group.resources.len())
        .sum();
    let parts = [
        format!("cluster {}", config.cluster),
        format!("profile {}", config.profile.name()),
        plural(config.nodes.len(), "node"),
        plural(config.groups.len(), "group"),
        plural(resources, "resource"),
    ];
    format!(
        "{} {file}: {}",
        ui.paint(Tone::Good, "ok"),
        parts.join(ui.dot())
    )
}

fn schema(ui: &Ui) -> Outcome {
    // A schema is a document for programs in every form.
    let format = if ui.is_table() {
        Format::Json
    } else {
        ui.format
    };
    let ui = Ui {
        format,
        ..ui.clone()
    };
    ui.document(&config::schema::schema(), |_| String::new())?;
    Ok(Exit::Ready)
}
