//! A table of measured kernels as a TOML file; every row is held to the kernels of this program, and to the device.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::heuristics::{Chosen, candidates};
use super::kernels::kernels;
use super::tuned::{KernelTable, MeasuredOn, TableRow};
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::Properties;
use crate::error::{Error, Position, Result};
use crate::files;
use crate::ops::{Call, Conv2d, Conv2dFprop};
use crate::tensor::DType;

/// The layout of the file this program writes, and the only one there has been.
const FORMAT: u32 = 1;
/// A table of thousands of convolutions is far below it.
const LONGEST: u64 = 16 << 20;
/// The largest extent of a convolution in a table.
const LARGEST_EXTENT: usize = 1 << 20;
/// The most elements that an operand of a convolution in a table has.
const MOST_ELEMENTS: u128 = 1 << 36;

/// The file.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    note: &'a str,
    device: &'a MeasuredOn,
    row: &'a [TableRow],
}

/// The file while its rows are not yet looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: u32,
    #[serde(default)]
    note: String,
    device: MeasuredOn,
    #[serde(default)]
    row: Vec<toml::Value>,
}

impl Cuda {
    /// The same with kernels for convolutions as a table says, where it has them.
    ///
    /// # Errors
    /// The table was measured on another device.
    pub fn with_table(mut self, table: KernelTable) -> Result<Cuda> {
        table.check_device(self.driver().properties())?;
        self.table = Some(table);
        Ok(self)
    }

    /// The same with the predicted kernels.
    pub fn without_table(mut self) -> Cuda {
        self.table = None;
        self
    }
}

impl KernelTable {
    /// Adds a row.
    ///
    /// # Errors
    /// No such kernel, a convolution that it cannot compute or that the table has already, sizes that make no sense.
    pub fn push(&mut self, row: TableRow) -> Result<()> {
        self.add(row).map_err(|Fault { expected, found }| {
            Error::invalid(format!("a row of a table of kernels: expected {expected}, found {found}"))
        })
    }

    fn add(&mut self, row: TableRow) -> Result<(), Fault> {
        let (dtype, _) = resolve(&row)?;
        let key = (row.pass, dtype, row.convolution);
        if self.places.insert(key, self.rows.len()).is_some() {
            return Err(Fault::new("every pass of a convolution once", "one that an earlier row has"));
        }
        self.rows.push(row);
        Ok(())
    }

    /// Whether it was measured on this device.
    fn check_device(&self, device: &Properties) -> Result<()> {
        let (measured, this) = (&self.device, MeasuredOn::this(device));
        if *measured == this {
            let of = |row: &TableRow| resolve(row).ok().map(|(_, chosen)| chosen.kernel);
            let foreign = self.rows.iter().filter_map(of).find(|kernel| !kernel.runs_on(device));
            return match foreign {
                None => Ok(()),
                Some(kernel) => Err(Error::invalid(format!(
                    "the table of kernels names {}, which does not run on {} ({}); tune again",
                    kernel.name, device.name, device.architecture
                ))),
            };
        }
        let name = |on: &MeasuredOn| format!("{} ({}, {} SMs)", on.name, on.architecture, on.sms);
        Err(Error::invalid(format!(
            "the table of kernels was measured on {}, and this is {}; measure one here with `residua bench --tune FILE`, or \
             leave --kernel-table out",
            name(measured),
            name(&this)
        )))
    }

    /// Reads a table and holds every row to the kernels of this program.
    ///
    /// # Errors
    /// Names the file, the row and what is wrong with it.
    pub fn read(path: &Path) -> Result<KernelTable> {
        let text = files::read_text(path, LONGEST)?;
        let read: Read = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() as u64 + 1);
            let at = line.map_or(Position::File, Position::Line);
            Error::malformed(
                path,
                at,
                "a table of kernels that `residua bench --tune` wrote",
                error.message(),
            )
        })?;
        if read.format != FORMAT {
            let found = format!("format {}; tune again with this program", read.format);
            return Err(Error::malformed(path, Position::File, format!("format {FORMAT}"), found));
        }
        let mut table = KernelTable::new(read.device, read.note);
        for (index, value) in read.row.into_iter().enumerate() {
            let at = |Fault { expected, found }: Fault| {
                Error::malformed(path, Position::Row(index as u64), expected, found)
            };
            let row = value.try_into().map_err(|error: toml::de::Error| {
                at(Fault::new("pass, dtype, kernel, splits and convolution", error.message()))
            })?;
            table.add(row).map_err(at)?;
        }
        Ok(table)
    }

    /// Writes the table, all at once or not at all.
    ///
    /// # Errors
    /// The disk failed.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = Written { format: FORMAT, note: &self.note, device: &self.device, row: &self.rows };
        let text = toml::to_string(&written)
            .map_err(|error| Error::invalid(format!("cannot write the table of kernels: {error}")))?;
        files::write_atomically(path, |out| std::io::Write::write_all(out, text.as_bytes()))
    }
}

/// The error in a row.
struct Fault {
    expected: String,
    found: String,
}

impl Fault {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Fault {
        Fault { expected: expected.into(), found: found.into() }
    }
}

/// The kernel that a row names, checked against the row.
fn resolve(row: &TableRow) -> Result<(DType, Chosen), Fault> {
    let TableRow { pass, dtype: ref name, ref kernel, splits, convolution: conv, .. } = *row;
    let dtype = match name.as_str() {
        "f32" => DType::F32,
        "bf16" => DType::Bf16,
        other => return Err(Fault::new("dtype f32 or bf16", format!("`{other}`"))),
    };
    check_extents(&conv)?;
    let of_pass = || kernels().filter(|known| known.pass == pass && known.dtype == dtype);
    if !of_pass().any(|known| known.name == kernel) {
        let mut names = String::new();
        for known in of_pass() {
            let _ = write!(names, "{}{}", if names.is_empty() { "" } else { ", " }, known.name);
        }
        let expected = format!("a kernel of this pass in {name}: {names}");
        return Err(Fault::new(expected, format!("`{kernel}`; tune again with this program")));
    }
    let Some(kernel) = candidates(pass, dtype, &conv).find(|known| known.name == kernel) else {
        let found = format!("`{kernel}`, which cannot do these extents");
        return Err(Fault::new("a kernel that can compute the convolution", found));
    };
    let most = kernel.most_splits(&conv);
    if !(1..=most).contains(&splits) {
        return Err(Fault::new(format!("between 1 and {most} splits"), splits.to_string()));
    }
    Ok((dtype, Chosen { kernel, splits }))
}

/// Extents whose products can be counted.
fn check_extents(conv: &Conv2d) -> Result<(), Fault> {
    let &Conv2d {
        batch,
        height,
        width,
        in_channels,
        out_channels,
        filter_height,
        filter_width,
        stride,
        padding,
    } = conv;
    let extents =
        [batch, height, width, in_channels, out_channels, filter_height, filter_width, stride, padding + 1];
    if let Some(extent) = extents.iter().find(|extent| !(1..=LARGEST_EXTENT).contains(extent)) {
        return Err(Fault::new(format!("extents between 1 and {LARGEST_EXTENT}"), extent.to_string()));
    }
    let product = |factors: &[usize]| factors.iter().map(|&factor| factor as u128).product::<u128>();
    let padded = [height + 2 * padding, width + 2 * padding];
    let largest = product(&[batch, padded[0], padded[1], in_channels.max(out_channels)]).max(product(&[
        out_channels,
        filter_height,
        filter_width,
        in_channels,
    ]));
    if largest > MOST_ELEMENTS {
        return Err(Fault::new(format!("at most {MOST_ELEMENTS} elements"), largest.to_string()));
    }
    match Call::from(Conv2dFprop::new(*conv, [(); 3])).check_attributes() {
        Ok(()) => Ok(()),
        Err(error) => Err(Fault::new("a filter that fits into the padded image", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Pass;
    use super::*;

    const CONV: Conv2d = Conv2d {
        batch: 4,
        height: 32,
        width: 32,
        in_channels: 64,
        out_channels: 64,
        filter_height: 3,
        filter_width: 3,
        stride: 1,
        padding: 1,
    };

    fn row(pass: Pass, kernel: &str, splits: usize) -> TableRow {
        let dtype = "bf16".to_string();
        TableRow { pass, dtype, kernel: kernel.into(), splits, microseconds: Some(12.5), convolution: CONV }
    }

    fn table() -> KernelTable {
        let device = MeasuredOn { name: "a card".into(), architecture: "sm_90a".into(), sms: 132 };
        let mut table = KernelTable::new(device, "measured for a test");
        table.push(row(Pass::Fprop, "sm80-64x64", 1)).unwrap();
        table.push(row(Pass::Wgrad, "sm80-64x128", 5)).unwrap();
        table
    }

    /// The message of reading a file.
    fn read(text: &str) -> Result<KernelTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.toml");
        std::fs::write(&path, text).unwrap();
        KernelTable::read(&path)
    }

    fn written() -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.toml");
        table().write(&path).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_table_is_the_same_after_it_was_written_and_read() {
        let read = read(&written()).unwrap();
        assert_eq!((read.rows(), read.hash()), (table().rows(), table().hash()));
        assert_eq!(read.device, table().device);
        let row = read.get(Pass::Wgrad, DType::Bf16, &CONV).unwrap();
        assert_eq!((&row.kernel[..], row.splits), ("sm80-64x128", 5));
        assert!(read.get(Pass::Dgrad, DType::Bf16, &CONV).is_none());
        assert!(read.get(Pass::Fprop, DType::F32, &CONV).is_none());
    }

    #[test]
    fn the_hash_is_of_what_is_chosen_and_of_nothing_else() {
        let hash = read(&written().replace("12.5", "99.0").replace("for a test", "again")).unwrap().hash();
        assert_eq!(hash, table().hash());
        assert_ne!(read(&written().replace("splits = 5", "splits = 6")).unwrap().hash(), hash);
        assert_ne!(read(&written().replace("sm80-64x128", "sm80-64x64")).unwrap().hash(), hash);
    }

    #[test]
    fn a_damaged_table_is_an_error_that_names_file_row_and_remedy() {
        let says = |from: &str, to: &str, words: &[&str]| {
            let text = written();
            assert!(text.contains(from), "{text}");
            let error = read(&text.replace(from, to)).unwrap_err().to_string();
            for word in [&["kernels.toml"], words].concat() {
                assert!(error.contains(word), "expected `{word}` in `{error}`");
            }
        };
        says("sm80-64x128", "sm99-8x8", &["row 1", "`sm99-8x8`", "sm80-64x128", "tune again"]);
        // A kernel of another pass only.
        says("sm80-64x128", "sm80-128x64", &["row 1", "`sm80-128x64`"]);
        says("weight-gradient", "sideways", &["row 1", "sideways", "weight-gradient"]);
        says("weight-gradient", "input-gradient", &["row 1", "`sm80-64x128`"]);
        says("\"bf16\"", "\"f64\"", &["row 0", "f64"]);
        says("splits = 5", "splits = 0", &["row 1", "between 1 and 32 splits"]);
        says("splits = 5", "splits = 33", &["row 1", "between 1 and 32 splits"]);
        says("splits = 5", "splits = -1", &["row 1"]);
        says("splits = 1", "splits = 2", &["row 0", "between 1 and 1"]);
        says("in_channels = 64", "in_channels = 63", &["row 0", "cannot do these extents"]);
        says("batch = 4", "batch = 0", &["row 0", "extents between 1 and"]);
        says("height = 32", "height = 9223372036854775807", &["row 0", "extents between 1 and"]);
        says("width = 32", "width = 1048577\n#", &["row 0", "1048577"]);
        says("batch = 4", "batch = 1048576", &["row 0", "elements"]);
        says("padding = 1", "padding = 9223372036854775807", &["row 0"]);
        says("filter_width = 3", "filter_width = 40", &["row 0", "fits into the padded image"]);
        says("filter_width = 3", "filter_width = 3\ndepth = 1", &["row 0", "depth"]);
        says("format = 1", "format = 2", &["format 2", "tune again"]);
        says("note =", "nonsense =", &["line 2", "nonsense"]);
        let (head, rows) =
            written().split_once("[[row]]").map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        let error = read(&format!("{head}[[row]]{rows}[[row]]{rows}")).unwrap_err().to_string();
        assert!(error.contains("row 2") && error.contains("an earlier row"), "{error}");
    }

    #[test]
    fn a_table_of_another_device_is_refused_with_what_to_do() {
        let device = Properties {
            name: "a card".into(),
            architecture: "sm_90a".into(),
            capability: (9, 0),
            sms: 132,
            memory_bytes: 1,
            shared_bytes_per_block: 227 << 10,
            red_zone: 0,
            versions: String::new(),
        };
        table().check_device(&device).unwrap();
        let mut foreign = KernelTable::new(MeasuredOn { architecture: "sm_80".into(), ..table().device }, "");
        foreign.push(row(Pass::Fprop, "sm90-128x128", 1)).unwrap();
        let ampere = Properties { architecture: "sm_80".into(), capability: (8, 0), ..device.clone() };
        let error = foreign.check_device(&ampere).unwrap_err().to_string();
        assert!(error.contains("sm90-128x128") && error.contains("does not run on"), "{error}");
        for other in [
            Properties { name: "another card".into(), ..device.clone() },
            Properties { sms: 114, ..device.clone() },
        ] {
            let error = table().check_device(&other).unwrap_err().to_string();
            assert!(error.contains("bench --tune") && error.contains("--kernel-table"), "{error}");
        }
    }
}
