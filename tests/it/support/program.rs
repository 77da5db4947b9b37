//! The program as a user starts it.

use std::ffi::OsStr;
use std::process::Output;

use assert_cmd::Command;

/// The program with these arguments, not started yet.
pub fn residua<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(arguments);
    command
}

/// Starts the program and waits for it.
pub fn run(arguments: &[&str]) -> Output {
    residua(arguments).output().unwrap()
}

/// Its exit code, and everything it printed: what it found, and what it said on the way.
pub fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = run(arguments);
    (status.code(), [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}
