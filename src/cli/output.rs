//! What the program says: results on standard output, everything else on standard error.
//!
//! Nothing here panics: standard error may be closed or its disk full, and the work goes on. A result that standard output
//! does not take is an error ([`crate::files::print`]).

use std::io::Write;
use std::path::Path;

use crate::error::Result;
use crate::files;

/// Writes a line to standard error; where that is closed or full, the line is lost.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes what a verb has to say about a result in `out`: on standard output, or on standard error where the result itself is
/// on standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_beside(out: Option<&Path>, text: &str) -> Result<()> {
    if out.is_some_and(files::is_standard_output) {
        tell(text.trim_end_matches('\n'));
        return Ok(());
    }
    files::print(text)
}
