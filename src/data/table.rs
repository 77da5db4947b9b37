//! Tables and lists that say which image has which label: CSV files, and OpenOOD's image lists.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::UNKNOWN_LABEL;
use super::spec::Level;
use crate::error::{Error, Position, Result};
use crate::files;

/// A table or list larger than this is not read.
const LARGEST: u64 = 1 << 30;

/// A label in a table is below this: a class has a name in memory and a row in the last layer.
const MOST_CLASSES: i64 = 1 << 16;

/// An image file and its label, or [`UNKNOWN_LABEL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) label: i64,
}

fn label_column(level: Level) -> &'static str {
    match level {
        Level::Fine | Level::Both => "subclass_index",
        Level::Coarse => "superclass_index",
    }
}

/// The rows of a CSV file with a column `image`; the label is in the column the level names. Without that column, or
/// where it is empty or -1, the class is unknown.
pub(super) fn read_csv(path: &Path, level: Level) -> Result<Vec<Row>> {
    let mut reader = csv::Reader::from_reader(open(path)?);
    let header = reader.headers().map_err(|e| damaged(path, &e))?.clone();
    let column =
        |name: &str| header.iter().position(|title| title.trim().trim_start_matches('\u{feff}') == name);
    let image = column("image").ok_or_else(|| {
        Error::malformed(
            path,
            Position::Line(1),
            "a column `image`",
            header.iter().collect::<Vec<_>>().join(", "),
        )
    })?;
    let label = column(label_column(level));
    if label.is_none() && level == Level::Coarse {
        let found = header.iter().collect::<Vec<_>>().join(", ");
        return Err(Error::malformed(path, Position::Line(1), "a column `superclass_index`", found));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| damaged(path, &e))?;
        let line = Position::Line(record.position().map_or(0, csv::Position::line));
        let name = record.get(image).unwrap_or("").trim();
        let label = match label.and_then(|column| record.get(column)).map(str::trim) {
            None | Some("") => UNKNOWN_LABEL,
            Some(text) => parse_label(path, line.clone(), text)?,
        };
        super::store::check_name(path, line, name)?;
        rows.push(Row { name: name.to_owned(), label });
    }
    Ok(rows)
}

/// The lines `PATH LABEL` of one of OpenOOD's lists (`benchmark_imglist/…/*.txt`); the label -1 means unknown, and
/// so does a dictionary of further annotations. The label is what follows the last blank.
pub(super) fn read_list(path: &Path) -> Result<Vec<Row>> {
    let text = files::read_text(path, LARGEST)?;
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = Position::Line(index as u64 + 1);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (name, label) = match line.split_once(" {") {
            Some((name, _)) => (name, "-1"),
            None => line.rsplit_once(char::is_whitespace).ok_or_else(|| {
                Error::malformed(path, at.clone(), "a path, a blank and a label", format!("`{line}`"))
            })?,
        };
        let label = parse_label(path, at.clone(), label)?;
        super::store::check_name(path, at, name.trim())?;
        rows.push(Row { name: name.trim().to_owned(), label });
    }
    Ok(rows)
}

fn open(path: &Path) -> Result<impl Read> {
    let file = files::open(path)?;
    let size = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
    if size > LARGEST {
        return Err(Error::malformed(
            path,
            Position::File,
            format!("at most {LARGEST} bytes"),
            format!("{size}"),
        ));
    }
    // A device or pipe has no size; the bound holds for it all the same.
    Ok(file.take(LARGEST))
}

fn parse_label(path: &Path, at: Position, text: &str) -> Result<i64> {
    match text.parse::<i64>() {
        Ok(label) if (UNKNOWN_LABEL..MOST_CLASSES).contains(&label) => Ok(label),
        _ => Err(Error::malformed(
            path,
            at,
            format!("a class index 0..{} or -1 for unknown", MOST_CLASSES - 1),
            format!("`{text}`"),
        )),
    }
}

fn damaged(path: &Path, error: &csv::Error) -> Error {
    let at = error.position().map_or(Position::File, |position| Position::Line(position.line()));
    Error::malformed(
        path,
        at,
        "a CSV file in UTF-8 with as many fields in each row as titles",
        error.to_string(),
    )
}

/// Numbers as names, for 0 to the largest label.
pub(super) fn numbered_classes(rows: &[Row]) -> Vec<String> {
    let classes = rows.iter().map(|row| row.label + 1).max().unwrap_or(0);
    (0..classes).map(|class| class.to_string()).collect()
}

/// Names of the classes: from `subclass_mapping.csv` or `superclass_mapping.csv` (columns index, class) beside the
/// table if there is one, else numbers.
pub(super) fn class_names(table: &Path, level: Level, rows: &[Row]) -> Result<Vec<String>> {
    let mut names = numbered_classes(rows);
    let file = match level {
        Level::Fine | Level::Both => "subclass_mapping.csv",
        Level::Coarse => "superclass_mapping.csv",
    };
    let path = table.with_file_name(file);
    if !path.is_file() {
        return Ok(names);
    }
    let mut reader = csv::Reader::from_reader(open(&path)?);
    let mut mapping = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(|e| damaged(&path, &e))?;
        let line = Position::Line(record.position().map_or(0, csv::Position::line));
        let index = parse_label(&path, line, record.get(0).unwrap_or("").trim())?;
        mapping.insert(index, record.get(1).unwrap_or("").to_owned());
    }
    for (class, name) in names.iter_mut().enumerate() {
        if let Some(given) = mapping.remove(&(class as i64)).filter(|given| !given.is_empty()) {
            *name = given;
        }
    }
    Ok(names)
}
