//! What commands that talk to the daemon share: the client, safe paths, waiting, asking.

use std::io::{self, BufRead, IsTerminal};
use std::time::{Duration, Instant};

use super::Global;
use crate::api::client::{Client, ClientError};
use crate::api::view::{GroupView, Status};
use crate::config::units;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Lang, Ui};

/// Between two looks at the status while a command waits.
const POLL: Duration = Duration::from_millis(100);

/// A client of the daemon that the global options name.
pub(super) fn client(global: &Global) -> Result<Client, Failure> {
    Client::new(&global.socket_path())
}

const fn lang_code(lang: Lang) -> &'static str {
    match lang {
        Lang::En => "en",
        Lang::Ko => "ko",
    }
}

/// A path with the language of its texts.
pub(super) fn with_lang(path: &str, ui: &Ui) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}lang={}", lang_code(ui.lang))
}

/// Reads the status.
pub(super) fn status(client: &Client, ui: &Ui) -> Result<Status, ClientError> {
    client.get(&with_lang("/api/v1/status", ui))
}

/// Reads the status for a command that can do nothing without it.
pub(super) fn known_status(client: &Client, ui: &Ui) -> Result<Status, Failure> {
    status(client, ui).map_err(|error| error.failure("read the status"))
}

/// The group with this name.
pub(super) fn find_group<'s>(status: &'s Status, name: &str) -> Result<&'s GroupView, Failure> {
    status
        .groups
        .iter()
        .find(|group| group.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = status
                .groups
                .iter()
                .map(|group| group.name.as_str())
                .collect();
            Failure::new(format!("there is no group {name}"))
                .cause(format!("the cluster has {}", names.join(", ")))
                .exit(Exit::Usage)
        })
}

/// A name or an event's id as a part of a path; other characters are in neither.
pub(super) fn segment(name: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if !name.is_empty() && name.chars().all(plain) {
        return Ok(name);
    }
    Err(Failure::new(format!("`{name}` is not a name")).exit(Exit::Usage))
}

/// A span on the command line: `2`, `2s`, `500ms`, `1m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let seconds = text.bytes().all(|byte| byte.is_ascii_digit());
    let with_unit = if seconds {
        format!("{text}s")
    } else {
        text.to_owned()
    };
    let span = units::time(&with_unit).map_err(|fault| fault.words().to_owned())?;
    // A watch without a pause would only load the daemon.
    if span < POLL {
        Err("it must be at least 100ms".into())
    } else {
        Ok(span)
    }
}

/// Looks at the status until `done` says yes; none when the time is over.
pub(super) fn wait_until(
    client: &Client,
    ui: &Ui,
    limit: Duration,
    mut done: impl FnMut(&Status) -> bool,
) -> Option<Status> {
    // A daemon that restarts is asked again until the time is over.
    wait_for(limit, || {
        status(client, ui).ok().filter(|status| done(status))
    })
}

/// Looks until there is something; none when the time is over.
pub(super) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Asks a person; scripts and `--yes` are not asked.
pub(crate) fn confirm(ui: &Ui, question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    ui.talk(format_args!("{question} [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim().to_ascii_lowercase().as_str()) {
        (Ok(_), "y" | "yes") => Ok(()),
        _ => {
            Err(Failure::new("not confirmed; nothing was changed").hint("--yes skips the question"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_may_come_without_a_unit() {
        assert_eq!(span("2"), Ok(Duration::from_secs(2)));
        assert_eq!(span("500ms"), Ok(Duration::from_millis(500)));
        assert!(span("1ms").is_err() && span("x").is_err() && span("").is_err());
    }

    #[test]
    fn names_with_slashes_are_no_path_segments() {
        assert!(segment("db").is_ok() && segment("node-a:17").is_ok());
        assert!(segment("../x").is_err() && segment("").is_err() && segment("a b").is_err());
    }
}
