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

/// What a person must type before something is lost for good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typed<'a> {
    /// What to type, and what it does.
    pub(super) question: &'a str,
    /// The only answer that is taken.
    pub(super) expected: &'a str,
    /// What was given as an option in its place.
    pub(super) given: Option<&'a str>,
    /// Nobody is there to answer.
    pub(super) yes: bool,
}

/// Asks a person to type something. A script gives it as an option, together with `--yes`.
pub(super) fn confirm_typed(ui: &Ui, typed: &Typed<'_>) -> Result<(), Failure> {
    let answer = match typed.given {
        Some(given) if typed.yes => given.to_owned(),
        _ if !typed.yes && io::stdin().is_terminal() => {
            ui.talk(typed.question);
            let mut answer = String::new();
            let read = io::stdin().lock().read_line(&mut answer);
            read.map(|_| answer).unwrap_or_default()
        }
        Some(_) | None => {
            return Err(Failure::new("not confirmed; nothing was changed")
                .cause("nobody is there to type it")
                .hint(format!("scripts: --yes --confirm '{}'", typed.expected)));
        }
    };
    if answer.trim() == typed.expected {
        return Ok(());
    }
    Err(Failure::new("not confirmed; nothing was changed")
        .cause(format!("`{}` was expected", typed.expected))
        .hint("nothing else is taken, because nothing brings back what would be lost"))
}

/// The name of a node that holds data.
pub(super) fn check_data_node(status: &Status, name: &str) -> Result<(), Failure> {
    let data = || status.nodes.iter().filter(|node| node.role != "witness");
    if data().any(|node| node.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = data().map(|node| node.name.as_str()).collect();
    Err(Failure::new(format!("{name} is not a node with data"))
        .cause(format!("nodes with data are {}", names.join(", ")))
        .exit(Exit::Usage))
}

/// Epoch of the record that the person is shown: what is confirmed is confirmed of that record.
pub(super) fn shown_epoch(status: &Status, group: &str) -> Option<u64> {
    let group = status.groups.iter().find(|it| it.name == group);
    group.and_then(|group| group.epoch)
}

/// What a person confirms of a node's own replica is asked on that node.
pub(super) fn check_asked_there(status: &Status, name: &str) -> Result<(), Failure> {
    if status.node.as_deref() == Some(name) {
        return Ok(());
    }
    let here = status.node.as_deref().unwrap_or("this node");
    Err(Failure::new(format!("{here} does not pass this on"))
        .cause("it might be carried out after nobody waits for it any more")
        .hint(format!("run it on {name}; --dry-run works here, too"))
        .exit(Exit::Usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(given: Option<&'static str>, yes: bool) -> Typed<'static> {
        Typed {
            question: "type it",
            expected: "pgdata",
            given,
            yes,
        }
    }

    #[test]
    fn nothing_but_the_expected_words_confirms() {
        let ui = Ui::plain(crate::output::Format::Table, 80);
        assert_eq!(confirm_typed(&ui, &typed(Some("pgdata"), true)), Ok(()));
        assert!(confirm_typed(&ui, &typed(Some("pgdat"), true)).is_err());
        assert!(
            confirm_typed(&ui, &typed(None, true)).is_err(),
            "--yes alone"
        );
    }

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
