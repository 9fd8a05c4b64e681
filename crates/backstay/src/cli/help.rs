//! `backstay help`: a problem code, a command, or everything.

use clap::{Command, CommandFactory};
use serde::Serialize;

use super::Cli;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{Tone, Ui};
use crate::render::catalogue::{codes, fill};
use crate::render::layout::{Block, wrap};

/// `backstay help`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A problem code such as BS-301, `codes` for all of them, or a command
    topic: Vec<String>,
}

/// A code's explanation.
#[derive(Debug, Serialize)]
struct Explanation {
    schema: &'static str,
    code: String,
    message: String,
    about: String,
    action: String,
}

pub(super) fn run(args: &Args, ui: &Ui) -> Outcome {
    match args.topic.as_slice() {
        [] => command_help(ui, &[]),
        [word] if word == "codes" => all_codes(ui),
        [word] if word.to_ascii_uppercase().starts_with("BS-") => explain(ui, word),
        words => command_help(ui, words),
    }
}

/// Placeholders of a message that is not about one object.
const ANY: [(&str, &str); 7] = [
    ("node", "NODE"),
    ("group", "GROUP"),
    ("link", "LINK"),
    ("obstacle", "…"),
    (
        "remedy",
        "what helps depends on what stands against it; see the message",
    ),
    ("resource", "RESOURCE"),
    ("why", "…"),
];

fn of_code(ui: &Ui, part: &str, code: &str) -> String {
    let args = ANY.map(|(key, value)| (key, value.to_owned()));
    fill(ui.lang, &format!("{part}.{code}"), &args)
}

fn explain(ui: &Ui, word: &str) -> Outcome {
    let code = word.to_ascii_uppercase();
    let Some(code) = codes().find(|known| *known == code) else {
        return Err(Failure::new(format!("there is no problem code {word}"))
            .hint("`backstay help codes` lists them")
            .exit(Exit::Usage));
    };
    let explanation = Explanation {
        schema: "backstay.help/1",
        code: code.into(),
        message: of_code(ui, "problem", code),
        about: of_code(ui, "about", code),
        action: of_code(ui, "action", code),
    };
    ui.document(&explanation, |ui| page(ui, &explanation))?;
    Ok(Exit::Ready)
}

fn page(ui: &Ui, explanation: &Explanation) -> String {
    let about = wrap(&explanation.about, ui.width.min(100)).join("\n");
    let head = ui.paint(Tone::Strong, &explanation.code);
    format!(
        "{head}  {}\n\n{about}\n\naction: {}",
        explanation.message, explanation.action
    )
}

fn all_codes(ui: &Ui) -> Outcome {
    let rows: Vec<(&str, String)> = codes()
        .map(|code| (code, of_code(ui, "problem", code)))
        .collect();
    let document: Vec<_> = rows
        .iter()
        .map(|(code, message)| serde_json::json!({ "code": code, "message": message }))
        .collect();
    let document = serde_json::json!({ "schema": "backstay.codes/1", "codes": document });
    ui.document(&document, |ui| {
        let mut block = Block::new("");
        for (code, message) in &rows {
            block.row([(*code).into(), message.as_str().into()]);
        }
        block.draw(ui, 0)
    })?;
    Ok(Exit::Ready)
}

fn command_help(ui: &Ui, words: &[String]) -> Outcome {
    let mut command: Command = Cli::command();
    command.build();
    for word in words {
        let Some(found) = command.find_subcommand(word) else {
            return Err(
                Failure::new(format!("there is no command {}", words.join(" ")))
                    .hint("`backstay help` lists them")
                    .exit(Exit::Usage),
            );
        };
        command = found.clone();
    }
    let text = command.render_long_help();
    if ui.color {
        ui.data(text.ansi())?
    } else {
        ui.data(text)?
    }
    Ok(Exit::Ready)
}
