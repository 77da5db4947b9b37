//! Mapping files beside a table: `superclass_mapping.csv` and `subclass_mapping.csv`, columns `index` and `class`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::spec::Level;
use super::table::{damaged, parse_label, read_text, required_column};
use super::taxonomy::is_novel;
use crate::error::{Error, Position, Result};

/// The names of a level's classes, by index, and the file they come from.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) path: PathBuf,
    pub(super) names: Vec<String>,
}

impl Mapping {
    /// The mapping of a level beside a table; `None` if there is no such file.
    ///
    /// # Errors
    /// It is no table of indices and names, an index is missing or there twice, a name is empty, or two classes are
    /// named `novel`.
    pub(super) fn beside(table: &Path, level: Level) -> Result<Option<Mapping>> {
        let path = table.with_file_name(match level {
            Level::Fine | Level::Both => "subclass_mapping.csv",
            Level::Coarse => "superclass_mapping.csv",
        });
        if !path.is_file() {
            return Ok(None);
        }
        let text = read_text(&path)?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(|e| damaged(&path, &e))?.clone();
        let (index, class) =
            (required_column(&path, &header, "index")?, required_column(&path, &header, "class")?);
        let mut rows: BTreeMap<i64, (u64, String)> = BTreeMap::new();
        let mut novel: Option<u64> = None;
        for record in reader.records() {
            let record = record.map_err(|e| damaged(&path, &e))?;
            let line = record.position().map_or(0, csv::Position::line);
            let wrong = |expected: &str, found: String| {
                Error::malformed(&path, Position::Line(line), expected, found)
            };
            let index = parse_label(&path, Position::Line(line), record.get(index).unwrap_or("").trim())?;
            let name = record.get(class).unwrap_or("");
            if index < 0 || name.trim().is_empty() {
                return Err(wrong(
                    "an index from 0 on and the name of a class",
                    format!("`{index}`, `{name}`"),
                ));
            }
            if let Some(first) = novel.filter(|_| is_novel(name)) {
                return Err(wrong(
                    "one class named `novel`",
                    format!("a second; the first is in line {first}"),
                ));
            }
            novel = novel.or(is_novel(name).then_some(line));
            if let Some((first, _)) = rows.insert(index, (line, name.to_owned())) {
                return Err(wrong("each index once", format!("{index} again, after line {first}")));
            }
        }
        if let Some((position, _)) = (0..).zip(rows.keys()).find(|(position, index)| position != *index) {
            let expected =
                format!("a name for each of the indices 0 to {}", rows.keys().last().unwrap_or(&0));
            return Err(Error::malformed(&path, Position::File, expected, format!("none for {position}")));
        }
        if rows.is_empty() {
            let found = "no row";
            return Err(Error::malformed(
                &path,
                Position::Line(2),
                "an index and the name of a class",
                found,
            ));
        }
        Ok(Some(Mapping { path, names: rows.into_values().map(|(_, name)| name).collect() }))
    }

    /// Checks that a label of a table has a name here.
    pub(super) fn check(&self, table: &Path, at: Position, label: i64) -> Result<()> {
        if label < self.names.len() as i64 {
            return Ok(());
        }
        let expected =
            format!("an index of {}, which has 0 to {}", self.path.display(), self.names.len() - 1);
        Err(Error::malformed(table, at, expected, format!("the unknown class {label}")))
    }
}
