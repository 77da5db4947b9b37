//! Output of the program: results on standard output, everything else on standard error.
//!
//! Nothing here panics: standard error may be closed or its disk full, and the work goes on. A result that standard output
//! does not take is an error ([`crate::files::print`]).

use std::io::Write;
use std::path::Path;

use super::common::Common;
use crate::error::{Result, printable};
use crate::files;
use crate::text_table::wrap;

/// Writes a line to standard error, broken between words where it is wider than the terminal; where that is closed or full, the line
/// is lost.
pub fn tell(line: &str) {
    let width = columns_of(&console::Term::stderr());
    let _ = writeln!(std::io::stderr(), "{}", fitted(line, width));
}

/// Writes a note on standard error that decides the meaning of a result: also with `--quiet`.
pub fn warn(note: &str) {
    tell(&format!("note: {}", printable(note)));
}

/// Writes a note about a result on standard error, unless `--quiet` is given.
pub fn say(note: Option<&str>, common: &Common) {
    if let Some(note) = note.filter(|_| !common.quiet) {
        warn(note);
    }
}

/// Writes a result to standard output; see [`files::print`].
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: &str) -> Result<()> {
    files::print(&fitted(text, width()))
}

/// A text whose lines of prose are broken between words where they are wider than a terminal, and go on below where they began: behind
/// a name in front of them, if there is one. Tables fit already, and a command between backticks stays whole, to be copied.
fn fitted(text: &str, width: Option<usize>) -> String {
    // JSON is for programs, also on a terminal.
    let Some(width) = width.filter(|_| !text.starts_with(['{', '['])) else { return text.to_string() };
    let fitted = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let start = line.trim_end().rfind("  ").map_or(0, |at| at + 2);
        let (front, prose) = line.split_at(start);
        let below = console::measure_text_width(front) + if start == indent { 2 } else { 0 };
        if console::measure_text_width(line) <= width || 2 * below > width {
            return line.to_string();
        }
        let lines = wrap(prose, width - below);
        format!("{front}{}", lines.join(&format!("\n{}", " ".repeat(below))))
    };
    text.split('\n').map(fitted).collect::<Vec<_>>().join("\n")
}

/// The number of columns of the terminal that results go to; none where standard output is no terminal.
pub fn width() -> Option<usize> {
    columns_of(&console::Term::stdout())
}

fn columns_of(stream: &console::Term) -> Option<usize> {
    if !stream.is_term() {
        return None;
    }
    // Some terminals do not know how wide they are.
    stream.size_checked().map(|(_, columns)| usize::from(columns)).filter(|&columns| columns > 0)
}

/// A path as JSON has it; JSON is Unicode, and names of files need not be.
pub fn in_json(path: &Path) -> String {
    path.display().to_string()
}

/// A path as a word for a shell.
pub fn in_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "._/+:,=@%-".contains(c);
    let is_word = !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain);
    if is_word { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Writes a verb's text about a result in `out`: on standard output, or on standard error where the result itself is
/// on standard output (with `--quiet` nowhere).
///
/// # Errors
/// Standard output cannot be written.
pub fn print_beside(common: &Common, out: Option<&Path>, text: &str) -> Result<()> {
    if out.is_some_and(files::is_standard_output) {
        if !common.quiet {
            tell(text.trim_end_matches('\n'));
        }
        return Ok(());
    }
    print(text)
}

/// Prints a result as JSON or as a table, beside the file `out` it may have gone to.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_result(
    common: &Common,
    out: Option<&Path>,
    value: &impl serde::Serialize,
    table: impl FnOnce() -> String,
) -> Result<()> {
    if common.json {
        let text = serde_json::to_string_pretty(value).expect("results are plain values");
        print_beside(common, out, &format!("{text}\n"))
    } else {
        print_beside(common, out, &table())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_between_words_and_tables_and_commands_are_left_whole() {
        let command = "`residua train --resume --out runs/a-rather-long-name`";
        let text = format!(
            "  words of a note that is longer than forty columns; {command} goes on\n{}\nshort\n",
            "a  table".repeat(9)
        );
        let lines: Vec<String> = fitted(&text, Some(40)).lines().map(String::from).collect();
        assert_eq!(lines[0], "  words of a note that is longer than");
        assert_eq!(
            lines[1..4],
            ["    forty columns;".to_string(), format!("    {command}"), "    goes on".to_string()]
        );
        assert_eq!(lines[4..], ["a  table".repeat(9), "short".to_string()]);
        let named = "  duplicates  0 images repeat an earlier one, no groups";
        assert_eq!(
            fitted(named, Some(40)),
            "  duplicates  0 images repeat an earlier\n              one, no groups"
        );
        assert_eq!(fitted(&text, None), text);
        let json = format!("{{\"text\": \"{}\"}}", "word ".repeat(20));
        assert_eq!(fitted(&json, Some(40)), json);
    }

    #[test]
    fn a_path_in_advice_can_be_pasted_into_a_shell() {
        for (path, word) in [
            ("runs/first", "runs/first"),
            ("my runs/first", "'my runs/first'"),
            ("it's", r"'it'\''s'"),
            ("-x", "'-x'"),
            ("$HOME;", "'$HOME;'"),
        ] {
            assert_eq!(in_shell(Path::new(path)), word);
        }
    }
}
