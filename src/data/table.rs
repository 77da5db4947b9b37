//! Tables and lists that say which image has which label: CSV files, and OpenOOD's image lists.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::mapping::Mapping;
use super::names::inside;
use super::spec::Level;
use super::taxonomy::{ONE_SUPERCLASS, Parents};
use super::{Taxonomy, UNKNOWN_LABEL};
use crate::error::{Error, Position, Result};
use crate::files;

/// A table or list larger than this is not read.
const LARGEST: u64 = 1 << 30;

/// A label in a table is below this: a class has a name in memory and a row in the last layer.
const MOST_CLASSES: i64 = 1 << 16;

/// Most bytes that a message quotes of a line that is not UTF-8.
const LONGEST_QUOTE: usize = 80;

/// An image file and its label, or [`UNKNOWN_LABEL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) label: i64,
}

/// The content of a table or list.
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
    let text = read_text(path)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
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
        let name = inside(path, Position::Line(line), name)?;
        if let Some(first) = named.insert(name.clone(), line) {
            let found = format!("`{name}` again, after line {first}; take one of the rows out");
            return Err(Error::malformed(path, Position::Line(line), "each image once", found));
        }
        let label = subclasses.label(path, line, &record)?;
        if let Some(superclasses) = &superclasses {
            superclass_labels.push(superclasses.label(path, line, &record)?);
        }
        table.rows.push(Row { name, label });
        table.lines.push(line);
    }
    match superclasses {
        None => table.class_names = subclasses.names(table.rows.iter().map(|row| row.label)),
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

    /// The names of all classes: those of the mapping, whether there are images of them or not, or else numbers.
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
    let text = read_text(path)?;
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
        rows.push(Row { name: inside(path, at, name.trim())?, label });
        lines.push(index as u64 + 1);
    }
    let class_names = numbered_classes(rows.iter().map(|row| row.label));
    Ok(Table { rows, lines, class_names, taxonomy: None })
}

/// The text of a table or list: UTF-8, with a byte order mark or without.
///
/// # Errors
/// Too long, or in another encoding; the message has the line.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let file = files::open(path)?;
    let size = file.metadata().map_err(|e| Error::io("read the size of", path, e))?.len();
    let too_long =
        |size: String| Error::malformed(path, Position::File, format!("at most {LARGEST} bytes"), size);
    if size > LARGEST {
        return Err(too_long(size.to_string()));
    }
    // A device or pipe has no size; the bound holds for it all the same.
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(too_long("more".to_owned()));
    }
    decode_text(path, bytes)
}

fn decode_text(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    const EXPECTED: &str = "text in UTF-8";
    /// Which bytes of two ASCII characters are zero in UTF-16, of either byte order.
    const LITTLE: [bool; 4] = [false, true, false, true];
    const BIG: [bool; 4] = [true, false, true, false];
    let is_utf16 = bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || bytes.first_chunk::<4>().is_some_and(|head| matches!(head.map(|byte| byte == 0), LITTLE | BIG));
    if is_utf16 {
        return Err(Error::malformed(path, Position::Line(1), EXPECTED, "UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let line = 1 + bytes[..valid].iter().filter(|&&byte| byte == b'\n').count();
        let start = bytes[..valid].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let end =
            bytes[valid..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| valid + end);
        let found = match files::known_content(bytes) {
            Some(content) => content.to_owned(),
            None => format!(
                "the byte {:02x} in `{}`; save it as UTF-8",
                bytes[valid],
                String::from_utf8_lossy(&bytes[start..end.min(start + LONGEST_QUOTE)])
            ),
        };
        Error::malformed(path, Position::Line(line as u64), EXPECTED, found)
    })
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
    Error::malformed(path, at, "a CSV file with as many fields in each row as titles", error.to_string())
}

/// Numbers as names, for 0 to the largest label.
fn numbered_classes(labels: impl Iterator<Item = i64>) -> Vec<String> {
    let classes = labels.map(|label| label + 1).max().unwrap_or(0);
    (0..classes).map(|class| class.to_string()).collect()
}

fn column(header: &csv::StringRecord, name: &str) -> Option<usize> {
    header.iter().position(|title| title.trim() == name)
}

/// The column of a name, or an error that says which there are.
pub(super) fn required_column(path: &Path, header: &csv::StringRecord, name: &str) -> Result<usize> {
    column(header, name).ok_or_else(|| {
        let found = header.iter().collect::<Vec<_>>().join(", ");
        Error::malformed(path, Position::Line(1), format!("a column `{name}`"), found)
    })
}
