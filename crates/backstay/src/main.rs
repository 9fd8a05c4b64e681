//! The `backstay` binary: everything is in the library, so that tests and fuzzers link it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstay::cli::main()
}
