//! The program in a terminal of a given width.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};

/// Starts the program with standard output and standard error on a terminal of so many columns, and waits for it. All that it
/// wrote, escape sequences included.
pub fn run_on_terminal(columns: u16, arguments: &[&str]) -> (ExitStatus, String) {
    let size = libc::winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (mut ours, mut its) = (0, 0);
    // SAFETY: two places for descriptors, and a size that outlives the call.
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut its, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: `openpty` has just made both, and nobody else knows them.
    let (mut ours, its) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(its)) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_residua"));
    command.args(arguments).env("TERM", "xterm-256color").stdin(Stdio::null());
    command.stdout(its.try_clone().unwrap()).stderr(its);
    let mut child = command.spawn().unwrap();
    // The descriptors of the program's side that are still here would keep the terminal open.
    drop(command);
    let mut bytes = Vec::new();
    // Linux reports the end of a terminal as an error.
    let _ = ours.read_to_end(&mut bytes);
    (child.wait().unwrap(), String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines of what was written, as wide as they were at any time: what a carriage return goes back over is a line, too; and so is what
/// a bar, or a line above it, fills up to the margin, behind which the terminal goes on in the next line.
pub fn lines(written: &str, columns: u16) -> Vec<String> {
    let plain = console::strip_ansi_codes(written).replace('\r', "\n");
    let mut lines = Vec::new();
    for line in plain.lines() {
        let mut rest = line;
        while console::measure_text_width(rest) > usize::from(columns) {
            let end = rest.char_indices().nth(columns.into()).map_or(rest.len(), |(at, _)| at);
            if !rest[..end].ends_with(' ') && !rest[..end].contains(['━', '─']) {
                break;
            }
            lines.push(rest[..end].trim_end().to_string());
            rest = &rest[end..];
        }
        lines.push(rest.trim_end().to_string());
    }
    lines.retain(|line| !line.is_empty());
    lines
}
