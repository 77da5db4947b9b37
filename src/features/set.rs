//! One pass of a network over a data set: features, logits and labels, opened from a folder, `.npz` or `.npy`, and the head
//! that the cache may hold itself.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::archive::Npz;
use super::block_rows;
use super::foreign;
use super::head::Head;
use super::matrix::Matrix;
use super::npy::{Element, NpyArray};
use crate::error::{Error, Position, Result};
use crate::files;

/// The content of a cache's `meta.json`. Every field may be missing: anybody can write a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheMeta {
    /// The data set, as named on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The transform that each image went through before the network saw it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// Hash of the checkpoint's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Number of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// `meta.json` is a page of text.
const LARGEST_META: u64 = 1 << 20;

/// Features (N, D), and where known logits (N, C) and labels (N,), of the same samples in the same order.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    path: PathBuf,
    features: Matrix,
    logits: Option<Matrix>,
    labels: Option<Vec<i64>>,
    /// The labels as they are stored.
    label_array: Option<NpyArray>,
    meta: CacheMeta,
    /// The file that holds `W` and `b`, if the cache holds them.
    own_head: Option<PathBuf>,
}

/// The head's file inside a cache folder.
pub const HEAD_FILE: &str = "head.npz";

impl FeatureSet {
    /// Opens a cache: a folder, an `.npz` with `features`, `logits`, `labels` (and `W`, `b`), or an `.npy` of features alone.
    /// The first bytes of a file decide its kind, not its name.
    ///
    /// # Errors
    /// Nothing there, no features, damaged arrays, numbers of rows that differ, or a value that is not finite.
    pub fn open(path: &Path) -> Result<FeatureSet> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        if metadata.is_dir() {
            return FeatureSet::open_folder(path);
        }
        let file = files::map(path)?;
        if file.starts_with(b"PK") {
            drop(file);
            return FeatureSet::open_npz(path);
        }
        if file.starts_with(b"\x93NUMPY") {
            let array = NpyArray::parse(Arc::new(file), 0, path, None)?;
            return FeatureSet::assemble(
                path,
                Some((array, path.to_path_buf())),
                None,
                None,
                CacheMeta::default(),
            );
        }
        Err(Error::malformed(
            path,
            Position::Byte(0),
            "a feature cache: a folder with features.npy, an .npz or an .npy file",
            foreign::beginning(&file),
        ))
    }

    fn open_folder(path: &Path) -> Result<FeatureSet> {
        let array = |name: &str| -> Result<Option<(NpyArray, PathBuf)>> {
            let file = path.join(name).with_extension("npy");
            if !file.exists() {
                return Ok(None);
            }
            Ok(Some((NpyArray::parse(Arc::new(files::map(&file)?), 0, &file, None)?, file)))
        };
        let meta_path = path.join("meta.json");
        let meta = if meta_path.exists() {
            files::read_json(&meta_path, LARGEST_META, "an object with data, transform, checkpoint, rows")?
        } else {
            CacheMeta::default()
        };
        let head = path.join(HEAD_FILE);
        let set = FeatureSet::assemble(path, array("features")?, array("logits")?, array("labels")?, meta)?;
        Ok(FeatureSet { own_head: head.is_file().then_some(head), ..set })
    }

    fn open_npz(path: &Path) -> Result<FeatureSet> {
        let archive = Npz::open(path)?;
        let array =
            |name: &str| Ok::<_, Error>(archive.array(name)?.map(|array| (array, path.to_path_buf())));
        let features = array("features")?;
        if features.is_none() {
            let found = foreign::members(&archive.names());
            return Err(Error::malformed(path, Position::File, "an array named `features`", found));
        }
        let own_head = archive.names().contains(&"W").then(|| path.to_path_buf());
        let meta = CacheMeta::default();
        let set = FeatureSet::assemble(path, features, array("logits")?, array("labels")?, meta)?;
        Ok(FeatureSet { own_head, ..set })
    }

    fn assemble(
        path: &Path,
        features: Option<(NpyArray, PathBuf)>,
        logits: Option<(NpyArray, PathBuf)>,
        labels: Option<(NpyArray, PathBuf)>,
        meta: CacheMeta,
    ) -> Result<FeatureSet> {
        let (array, file) = features.ok_or_else(|| {
            Error::malformed(path, Position::File, "features.npy in a cache folder", "no such file")
        })?;
        let features = Matrix::new(array, &file, "features")?;
        let logits = logits.map(|(array, file)| Matrix::new(array, &file, "logits")).transpose()?;
        let label_array = labels.as_ref().map(|(array, _)| array.clone());
        let labels = labels.map(|(array, file)| read_labels(&array, &file)).transpose()?;
        let path = path.to_path_buf();
        let set = FeatureSet { path, features, logits, labels, label_array, meta, own_head: None };
        set.check_rows()?;
        Ok(set)
    }

    /// A set held in memory; `name` stands for a path in messages.
    ///
    /// # Errors
    /// Numbers of rows that differ.
    pub fn from_parts(
        name: &str,
        features: Matrix,
        logits: Option<Matrix>,
        labels: Option<Vec<i64>>,
    ) -> Result<FeatureSet> {
        let (path, meta) = (PathBuf::from(name), CacheMeta::default());
        let label_array = labels
            .as_ref()
            .map(|labels| NpyArray::from_vec(labels.clone(), Element::Signed(8), vec![labels.len()]));
        let set = FeatureSet { path, features, logits, labels, label_array, meta, own_head: None };
        set.check_rows()?;
        Ok(set)
    }

    /// Some samples of the set, in the order of `rows`, in memory and in f32.
    ///
    /// # Errors
    /// There are no rows.
    ///
    /// # Panics
    /// If a row lies beyond the set.
    pub fn selected(&self, rows: &[u32]) -> Result<FeatureSet> {
        let pick = |matrix: &Matrix, name: &str| {
            let (mut picked, mut row) = (Vec::with_capacity(rows.len() * matrix.columns()), Vec::new());
            for index in rows {
                matrix.read_f32(*index as usize..*index as usize + 1, &mut row);
                picked.extend_from_slice(&row);
            }
            Matrix::from_f32(picked, matrix.columns(), name)
        };
        let features = pick(&self.features, "features")?;
        let logits = self.logits.as_ref().map(|logits| pick(logits, "logits")).transpose()?;
        let labels = self.labels.as_ref().map(|all| rows.iter().map(|row| all[*row as usize]).collect());
        FeatureSet::from_parts(&self.path.display().to_string(), features, logits, labels)
    }

    /// Some samples as a network of some of the classes sees them, in memory and in f32: of the logits the columns of these classes, as
    /// labels their places among them, and -1 for the others.
    ///
    /// # Errors
    /// There are no rows or classes.
    ///
    /// # Panics
    /// If a row or class lies beyond the set.
    pub fn of_classes(&self, rows: &[u32], classes: &[usize]) -> Result<FeatureSet> {
        let whole = self.selected(rows)?;
        let restricted = |logits: &Matrix| {
            let mut all = Vec::new();
            logits.read_f32(0..logits.rows(), &mut all);
            let kept =
                all.chunks_exact(logits.columns()).flat_map(|row| classes.iter().map(|&class| row[class]));
            Matrix::from_f32(kept.collect(), classes.len(), "logits")
        };
        let logits = whole.logits.as_ref().map(restricted).transpose()?;
        let place = |label: &i64| {
            let found = classes.iter().position(|&class| class as i64 == *label);
            found.map_or(-1, |place| place as i64)
        };
        let labels = whole.labels.as_ref().map(|labels| labels.iter().map(place).collect());
        FeatureSet::from_parts(&self.path.display().to_string(), whole.features, logits, labels)
    }

    /// One sample, in memory and in f64, without its label.
    ///
    /// # Errors
    /// None that opening the set would not have had.
    ///
    /// # Panics
    /// If the row lies beyond the set.
    pub fn sample(&self, row: usize) -> Result<FeatureSet> {
        let read = |matrix: &Matrix, name: &str| {
            let mut values = Vec::new();
            matrix.read_f64(row..row + 1, &mut values);
            Matrix::from_f64(values, matrix.columns(), name)
        };
        let features = read(&self.features, "features")?;
        let logits = self.logits.as_ref().map(|logits| read(logits, "logits")).transpose()?;
        FeatureSet::from_parts(&format!("{} row {row}", self.path.display()), features, logits, None)
    }

    /// Reads the stored logits of some samples, or those the head gives their features.
    pub fn read_logits(&self, head: &Head, range: Range<usize>, out: &mut Vec<f64>) {
        match &self.logits {
            Some(logits) => logits.read_f64(range, out),
            None => {
                let (mut features, rows) = (Vec::new(), range.len());
                self.features.read_f64(range, &mut features);
                head.logits(&features, rows, out);
            }
        }
    }

    /// Something of the logits of every sample ([`FeatureSet::read_logits`]), in their order.
    pub fn map_logits<T: Send>(&self, head: &Head, value: impl Fn(&[f64]) -> T + Sync) -> Vec<T> {
        let block = block_rows(self.dimension().max(head.classes()));
        let starts: Vec<usize> = (0..self.len()).step_by(block).collect();
        let of_block = |start| {
            let mut logits = Vec::new();
            self.read_logits(head, start..(start + block).min(self.len()), &mut logits);
            logits.chunks_exact(head.classes()).map(&value).collect()
        };
        let parts: Vec<Vec<T>> = starts.into_par_iter().map(of_block).collect();
        parts.into_iter().flatten().collect()
    }

    fn check_rows(&self) -> Result<()> {
        let rows = self.len();
        if u32::try_from(rows).is_err() {
            let found = rows.to_string();
            return Err(Error::malformed(&self.path, Position::File, "fewer than 2^32 samples", found));
        }
        let differs = |what: &str, found: usize| {
            Err(Error::malformed(
                &self.path,
                Position::File,
                format!("{rows} {what}, one for each row of features"),
                found.to_string(),
            ))
        };
        match (&self.logits, &self.labels) {
            (Some(logits), _) if logits.rows() != rows => differs("rows of logits", logits.rows()),
            (_, Some(labels)) if labels.len() != rows => differs("labels", labels.len()),
            _ => match self.meta.rows {
                Some(promised) if promised != rows as u64 => differs("rows in meta.json", promised as usize),
                _ => Ok(()),
            },
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.features.rows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of features of a sample, D.
    pub fn dimension(&self) -> usize {
        self.features.columns()
    }

    /// Number of classes, C, where logits are known.
    pub fn classes(&self) -> Option<usize> {
        self.logits.as_ref().map(Matrix::columns)
    }

    /// The features, N x D.
    pub fn features(&self) -> &Matrix {
        &self.features
    }

    /// The logits, N x C, if the cache holds them.
    pub fn logits(&self) -> Option<&Matrix> {
        self.logits.as_ref()
    }

    /// The labels if the cache holds them; -1 is unknown. Labels of an OOD set may belong to other classes.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// The stored arrays by name: `features`, and where there are some `logits` and `labels`.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (&'static str, &NpyArray)> {
        let logits = self.logits.as_ref().map(|logits| ("logits", logits.array()));
        let labels = self.label_array.as_ref().map(|labels| ("labels", labels));
        [("features", self.features.array())].into_iter().chain(logits).chain(labels)
    }

    /// The head that the cache holds itself: `head.npz` in its folder, or `W` and `b` in its archive.
    ///
    /// # Errors
    /// It is damaged.
    pub fn own_head(&self) -> Result<Option<Head>> {
        self.own_head.as_deref().map(Head::open).transpose()
    }

    /// The file that holds [`FeatureSet::own_head`], if there is one.
    pub fn own_head_path(&self) -> Option<&Path> {
        self.own_head.as_deref()
    }

    /// Whether features or logits are stored in half precision, with three decimal digits.
    pub fn holds_half_precision(&self) -> bool {
        std::iter::once(&self.features).chain(&self.logits).any(|matrix| matrix.element() == Element::F16)
    }

    /// The content of the cache's `meta.json` (empty for other sources).
    pub fn meta(&self) -> &CacheMeta {
        &self.meta
    }

    /// Where the set was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that features (and logits, if any) have the shape a head or another set asks for.
    ///
    /// # Errors
    /// Another dimension or number of classes, with both numbers.
    pub fn check_shape(&self, dimension: usize, classes: usize) -> Result<()> {
        let fail = |expected: String, found: String| {
            Err(Error::malformed(&self.path, Position::File, expected, found))
        };
        if self.dimension() != dimension {
            return fail(
                format!("{dimension} features per sample (is it a cache of the same network?)"),
                self.dimension().to_string(),
            );
        }
        match self.classes() {
            Some(found) if found != classes => fail(
                format!("{classes} logits per sample (is it a cache of the same network?)"),
                found.to_string(),
            ),
            _ => Ok(()),
        }
    }
}

/// Checks that no two sets come from different checkpoints, as far as their `meta.json` tell.
///
/// # Errors
/// Two sets name different checkpoints.
pub fn check_same_checkpoint(sets: &[&FeatureSet]) -> Result<()> {
    let mut known = sets.iter().filter_map(|set| set.meta.checkpoint.as_ref().map(|hash| (set, hash)));
    let Some((first, hash)) = known.next() else { return Ok(()) };
    match known.find(|(_, other)| *other != hash) {
        None => Ok(()),
        Some((set, other)) => Err(Error::invalid(format!(
            "{} and {} come from different checkpoints ({hash} and {other}); extract both with the same one",
            first.path.display(),
            set.path.display()
        ))),
    }
}

fn read_labels(array: &NpyArray, path: &Path) -> Result<Vec<i64>> {
    let at = || Position::Member("labels".into());
    let count: usize = array.shape.iter().product();
    if array.shape.iter().filter(|&&extent| extent != 1).count() > 1 {
        let found = match array.shape.as_slice() {
            [_, columns] => format!(
                "shape {:?}: a row of {columns} numbers each (of one-hot labels or probabilities save `labels.argmax(1)`)",
                array.shape
            ),
            shape => format!("shape {shape:?}"),
        };
        return Err(Error::malformed(path, at(), "one label per sample", found));
    }
    if !matches!(array.element, Element::Signed(_) | Element::Unsigned(_)) {
        let found = "floating-point numbers (save `labels.astype('int64')`)";
        return Err(Error::malformed(path, at(), "integers", found));
    }
    (0..count)
        .map(|row| {
            array.integer(row).ok_or_else(|| {
                Error::malformed(path, Position::Row(row as u64), "a label below 2^63", "a larger number")
            })
        })
        .collect()
}
