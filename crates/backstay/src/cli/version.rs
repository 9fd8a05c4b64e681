//! `backstay version`.

use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::Ui;

#[derive(Serialize)]
struct Version {
    schema: &'static str,
    version: &'static str,
}

pub(super) fn run(ui: &Ui) -> Outcome {
    let document = Version {
        schema: "backstay.version/1",
        version: env!("CARGO_PKG_VERSION"),
    };
    ui.document(&document, |_| format!("backstay {}", document.version))?;
    Ok(Exit::Ready)
}
