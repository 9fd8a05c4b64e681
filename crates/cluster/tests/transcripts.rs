//! Readable transcripts: `tests/transcripts/*.txt` hold commands, a line of dashes, and what happened. `UPDATE=1` rewrites
//! what happened; read the difference before it is committed.

mod stage;

use stage::Stage;
use std::fmt::Write as _;
use std::path::Path;

const RULE: &str = "----";

#[test]
fn transcripts_happen_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no transcript in {}", folder.display());
    for file in files {
        let written = std::fs::read_to_string(&file).unwrap();
        let happened = play(&written);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, happened).unwrap();
        } else {
            assert_eq!(
                happened,
                written,
                "{} (UPDATE=1 rewrites it)",
                file.display()
            );
        }
    }
}

/// The same text with what happens now. A block is comments, one command, a rule, and its outcome up to an empty line.
fn play(written: &str) -> String {
    let mut stage = Stage::default();
    let mut text = String::new();
    for block in written.trim_end().split("\n\n") {
        for line in block.lines().take_while(|line| *line != RULE) {
            writeln!(text, "{line}").unwrap();
            if !line.starts_with('#') && !line.is_empty() {
                stage.command(line);
            }
        }
        let happened = stage.happened();
        if !happened.is_empty() || block.lines().any(|line| line == RULE) {
            writeln!(text, "{RULE}").unwrap();
            text.push_str(&happened);
        }
        text.push('\n');
    }
    format!("{}\n", text.trim_end())
}
