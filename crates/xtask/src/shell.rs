//! Running other programs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Context as _, Failure, Outcome};

/// A command that runs in `dir`.
pub(crate) fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    command
}

/// Cargo, as the version that started us.
///
/// It does not see what cargo told us about our own package: build scripts look at these variables, and everything that
/// depends on them would be built again in turn by `./demo`, which starts cargo itself.
pub(crate) fn cargo(dir: &Path) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = command(&cargo, dir);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// This program with other arguments.
pub(crate) fn own(dir: &Path) -> Outcome<Command> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.current_dir(dir);
    Ok(command)
}

/// Runs to the end with our own output streams; a non-zero exit is a failure.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let line = describe(command);
    println!("$ {line}");
    let status = command.status().map_err(|cause| missing(&line, &cause))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{line}` failed")).because(status))
    }
}

/// Runs to the end and returns what it printed; a non-zero exit is a failure.
pub(crate) fn capture(command: &mut Command) -> Outcome<String> {
    let line = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| missing(&line, &cause))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let cause = format!("{}: {}", output.status, said.trim());
        return Err(Failure::new(format!("`{line}` failed")).because(cause));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` answers to `--version`.
pub(crate) fn present(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_else(|| command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn missing(line: &str, cause: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{line}`"))
        .because(cause)
        .hint("./test installs the programs that the checks need")
}
