//! The one error type: what was found, what was expected, what to do about it.
//!
//! Every variant prints as one sentence a user can act on. Readers name the file and the position
//! (byte, row, member of an archive); the command line turns [`Error::Usage`] into exit code 2 and
//! everything else into exit code 1.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where in a file something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The file as a whole.
    File,
    /// An offset in bytes from the start of the (decompressed) stream.
    Byte(u64),
    /// A line of a text file, counted from 1.
    Line(u64),
    /// A record or row, counted from 0.
    Row(u64),
    /// A named part: a tensor, an archive member, a key.
    Member(String),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::File => Ok(()),
            Position::Byte(offset) => write!(f, " at byte {offset}"),
            Position::Line(line) => write!(f, " line {line}"),
            Position::Row(row) => write!(f, " row {row}"),
            Position::Member(name) => write!(f, " in `{}`", printable(name)),
        }
    }
}

/// Everything that can go wrong, in the words a user reads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", printable(&path.display().to_string()))]
    Io {
        /// The action tried, as a verb phrase: "read", "create", "rename".
        action: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file's bytes are not what its format promises.
    #[error("{}{at}: expected {expected}, found {found}", printable(&path.display().to_string()))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it.
        at: Position,
        /// The content that the format asks for there.
        expected: String,
        /// The content found there.
        found: String,
    },
    /// Two well-formed things do not fit together, or a value makes no sense; the text ends with what to do.
    #[error("{0}")]
    Invalid(String),
    /// The command line or a recipe asks for something that does not exist (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// Kernels were left out while a plan that wants them was made; the same work is begun again, before it has done anything.
    #[error("the device does not use kernels that the plan was made with; plan again")]
    PlanAgain,
    /// A device that cannot do some work right: the work is done on another, before it has done anything. Why.
    #[error("{0}")]
    DeviceUnfit(String),
    /// A GPU that does not finish: nothing can be done on it before the process ends.
    #[error("{0}")]
    DeviceHangs(String),
    /// Ctrl-C: work stopped at a step boundary; the text says what was kept.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl Error {
    /// Wraps an [`io::Error`] with what was tried on which path.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Error {
        Error::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// A file's content is wrong at a position.
    pub fn malformed(
        path: impl AsRef<Path>,
        at: Position,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            path: path.as_ref().to_path_buf(),
            at,
            expected: printable(&expected.into()),
            found: printable(&found.into()),
        }
    }

    /// Things that do not fit together; say what was found, what was expected, what to do.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid(printable(&message.into()))
    }

    /// A wrong use of the command line or a recipe.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::Usage(printable(&message.into()))
    }

    /// The process exit code this error asks for: 2 for wrong use, 130 after Ctrl-C, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted(_) => 130,
            _ => 1,
        }
    }
}

/// Text from a file made safe for a terminal: control characters (escape sequences among them) become `\u{..}`,
/// and what is longer than 2000 characters is cut with an ellipsis.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 2000;
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push('…');
            break;
        }
        let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || bidi {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cannot_smuggle_escape_sequences_into_a_message() {
        let error = Error::malformed("a.npy", Position::Byte(7), "a magic number", "\u{1b}[2J");
        assert_eq!(error.to_string(), "a.npy at byte 7: expected a magic number, found \\u{1b}[2J");
    }

    #[test]
    fn wrong_use_exits_with_two_and_everything_else_with_one() {
        assert_eq!(Error::usage("no such verb").exit_code(), 2);
        assert_eq!(Error::invalid("classes differ").exit_code(), 1);
        assert_eq!(Error::Interrupted("by Ctrl-C".into()).exit_code(), 130);
    }
}
