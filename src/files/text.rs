//! Text files: whole ones, JSON and CSV.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{read_text, write_atomically};
use crate::error::{Error, Position, Result};

/// Writes text or bytes, as [`write_atomically`] does.
///
/// # Errors
/// As [`write_atomically`].
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_atomically(path, |out| out.write_all(content.as_ref()))
}

/// Writes a value as JSON, indented, with a new line at the end.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    write_atomically(path, |out| writeln!(out, "{}", text?))
}

/// Reads JSON of at most `limit` bytes; `expected` says of what.
///
/// # Errors
/// As [`read_text`]; or it is no such JSON, with the line.
pub fn read_json<T: DeserializeOwned>(path: &Path, limit: u64, expected: &str) -> Result<T> {
    serde_json::from_str(&read_text(path, limit)?).map_err(|error| {
        Error::malformed(path, Position::Line(error.line() as u64), expected, error.to_string())
    })
}

/// The text of a CSV file of these records; `what` names it in a message.
///
/// # Errors
/// Records of different lengths.
pub fn csv_text<R>(what: &str, records: impl IntoIterator<Item = R>) -> Result<String>
where
    R: IntoIterator<Item: AsRef<[u8]>>,
{
    let failed = |error: &dyn std::fmt::Display| Error::invalid(format!("cannot format {what}: {error}"));
    let mut table = csv::Writer::from_writer(Vec::new());
    for record in records {
        table.write_record(record).map_err(|e| failed(&e))?;
    }
    String::from_utf8(table.into_inner().map_err(|e| failed(&e))?).map_err(|e| failed(&e))
}
