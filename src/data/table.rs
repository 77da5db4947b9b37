//! Tables and lists that say which image has which label: CSV files, and OpenOOD's image lists.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::mapping::Mapping;
use super::spec::Level;
use super::taxonomy::{ONE_SUPERCLASS, Parents};
use super::{Taxonomy, UNKNOWN_LABEL};
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

/// What a table or list says.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// The line each row stands in.
    pub(super) lines: Vec<u64>,
    pub(super) class_names: Vec<String>,
    /// Where both levels are read.
    pub(super) taxonomy: Option<Taxonomy>,
}

/// The rows of a CSV file with a column `image`; the label is in the column the level names, `subclass_index` or
/// `superclass_index`. Without `subclass_index`, or where a label is empty or -1, the class is unknown. Both levels
/// need both columns. Names of classes come from mapping files beside the table; without, they are numbers.
pub(super) fn read_csv(path: &Path, level: Level) -> Result<Table> {
    let mut reader = csv::Reader::from_reader(open(path)?);
    let header = reader.headers().map_err(|e| damaged(path, &e))?.clone();
    let image = required_column(path, &header, "image")?;
    let subclasses = match level {
        Level::Fine => LabelColumn::new(path, column(&header, "subclass_index"), level)?,
        Level::Both => LabelColumn::required(path, &header, Level::Fine)?,
        Level::Coarse => LabelColumn::required(path, &header, level)?,
    };
    let superclasses = match level {
        Level::Fine | Level::Coarse => None,
        Level::Both => Some(LabelColumn::required(path, &header, Level::Coarse)?),
    };
    let mut table = Table { rows: Vec::new(), lines: Vec::new(), class_names: Vec::new(), taxonomy: None };
    let mut superclass_labels = Vec::new();
    let mut named: HashMap<String, u64> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|e| damaged(path, &e))?;
        let line = record.position().map_or(0, csv::Position::line);
        let name = record.get(image).unwrap_or("").trim();
        super::store::check_name(path, Position::Line(line), name)?;
        let name = name.trim_start_matches("./");
        if let Some(first) = named.insert(name.to_owned(), line) {
            let found = format!("`{name}` again, after line {first}; take one of the rows out");
            return Err(Error::malformed(path, Position::Line(line), "each image once", found));
        }
        let label = subclasses.label(path, line, &record)?;
        if let Some(superclasses) = &superclasses {
            superclass_labels.push(superclasses.label(path, line, &record)?);
        }
        table.rows.push(Row { name: name.to_owned(), label });
        table.lines.push(line);
    }
    match superclasses {
        None => table.class_names = subclasses.names_of_those_in(table.rows.iter().map(|row| row.label)),
        Some(superclasses) => {
            let taxonomy = read_taxonomy(path, &table, &superclass_labels, &superclasses, &subclasses)?;
            table.class_names = taxonomy.subclasses.clone();
            table.taxonomy = Some(taxonomy);
        }
    }
    Ok(table)
}

/// A column of class indices.
struct LabelColumn {
    position: Option<usize>,
    mapping: Option<Mapping>,
}

impl LabelColumn {
    fn new(table: &Path, position: Option<usize>, level: Level) -> Result<LabelColumn> {
        Ok(LabelColumn { position, mapping: Mapping::beside(table, level)? })
    }

    fn required(table: &Path, header: &csv::StringRecord, level: Level) -> Result<LabelColumn> {
        let name = if level == Level::Coarse { "superclass_index" } else { "subclass_index" };
        LabelColumn::new(table, Some(required_column(table, header, name)?), level)
    }

    fn label(&self, path: &Path, line: u64, record: &csv::StringRecord) -> Result<i64> {
        let text = match self.position.and_then(|column| record.get(column)).map(str::trim) {
            None | Some("") => return Ok(UNKNOWN_LABEL),
            Some(text) => text,
        };
        let label = parse_label(path, Position::Line(line), text)?;
        if let Some(mapping) = &self.mapping {
            mapping.check(path, Position::Line(line), label)?;
        }
        Ok(label)
    }

    /// The names of 0 to the largest label: a mapping may name further classes, of which there is no image.
    fn names_of_those_in(&self, labels: impl Iterator<Item = i64>) -> Vec<String> {
        let numbered = numbered_classes(labels);
        match &self.mapping {
            Some(mapping) => mapping.names[..numbered.len()].to_vec(),
            None => numbered,
        }
    }

    /// The names of all classes.
    fn names(&self, labels: impl Iterator<Item = i64>) -> Vec<String> {
        self.mapping.as_ref().map_or_else(|| numbered_classes(labels), |mapping| mapping.names.clone())
    }
}

/// Which subclass belongs to which superclass, as the rows say.
fn read_taxonomy(
    path: &Path,
    table: &Table,
    superclass_labels: &[i64],
    superclasses: &LabelColumn,
    subclasses: &LabelColumn,
) -> Result<Taxonomy> {
    let mut parents = Parents::new(
        superclasses.names(superclass_labels.iter().copied()),
        subclasses.names(table.rows.iter().map(|row| row.label)),
    );
    for ((row, &line), &superclass) in table.rows.iter().zip(&table.lines).zip(superclass_labels) {
        let at = Position::Line(line);
        let told = match (usize::try_from(superclass), usize::try_from(row.label)) {
            (Ok(superclass), Ok(subclass)) => parents.add(superclass, subclass, at.clone()),
            (Ok(_), Err(_)) => Err(format!(
                "superclass {superclass} without a subclass; to read superclasses only, write labels=superclass"
            )),
            (Err(_), _) => Ok(()),
        };
        told.map_err(|found| Error::malformed(path, at, ONE_SUPERCLASS, found))?;
    }
    Ok(parents.finish())
}

/// The lines `PATH LABEL` of one of OpenOOD's lists (`benchmark_imglist/…/*.txt`); the label -1 means unknown, and
/// so does a dictionary of further annotations. The label is what follows the last blank.
pub(super) fn read_list(path: &Path) -> Result<Table> {
    let text = files::read_text(path, LARGEST)?;
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
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
        lines.push(index as u64 + 1);
    }
    let class_names = numbered_classes(rows.iter().map(|row| row.label));
    Ok(Table { rows, lines, class_names, taxonomy: None })
}

pub(super) fn open(path: &Path) -> Result<impl Read + use<>> {
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

pub(super) fn parse_label(path: &Path, at: Position, text: &str) -> Result<i64> {
    match text.parse::<i64>() {
        Ok(label) if (UNKNOWN_LABEL..MOST_CLASSES).contains(&label) => Ok(label),
        _ => Err(Error::malformed(
            path,
            at,
            format!("a class index from 0 to {}, or -1 for unknown", MOST_CLASSES - 1),
            format!("`{text}`"),
        )),
    }
}

pub(super) fn damaged(path: &Path, error: &csv::Error) -> Error {
    let at = error.position().map_or(Position::File, |position| Position::Line(position.line()));
    Error::malformed(
        path,
        at,
        "a CSV file in UTF-8 with as many fields in each row as titles",
        error.to_string(),
    )
}

/// Numbers as names, for 0 to the largest label.
fn numbered_classes(labels: impl Iterator<Item = i64>) -> Vec<String> {
    let classes = labels.map(|label| label + 1).max().unwrap_or(0);
    (0..classes).map(|class| class.to_string()).collect()
}

fn column(header: &csv::StringRecord, name: &str) -> Option<usize> {
    header.iter().position(|title| title.trim().trim_start_matches('\u{feff}') == name)
}

/// The column of a name, or an error that says which there are.
pub(super) fn required_column(path: &Path, header: &csv::StringRecord, name: &str) -> Result<usize> {
    column(header, name).ok_or_else(|| {
        let found = header.iter().collect::<Vec<_>>().join(", ");
        Error::malformed(path, Position::Line(1), format!("a column `{name}`"), found)
    })
}
