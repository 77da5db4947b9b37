//! Data sets of image files: a folder per class, a table, a list, or just images.

use std::fs;
use std::path::{Path, PathBuf};

use super::names::{is_image_name, is_leftover, undecoded_kind, utf8_name};
use super::spec::Level;
use super::store::{ImageStore, decode_file, numeric_order};
use super::table::{self, Row, Table};
use super::{Dataset, RgbImage, Taxonomy, UNKNOWN_LABEL};
use crate::error::{Error, Position, Result};
use crate::files;

/// Image files with labels, decoded each time they are asked for.
#[derive(Debug)]
pub(super) struct ImageFiles {
    store: ImageStore,
    rows: Vec<Row>,
    class_names: Vec<String>,
    taxonomy: Option<Taxonomy>,
}

impl ImageFiles {
    /// A folder per class, as torchvision's `ImageFolder`: classes are the subfolders in the order of their names,
    /// images lie at any depth in them.
    pub(super) fn class_folders(folder: &Path) -> Result<ImageFiles> {
        let mut classes = Vec::new();
        for path in files::list(folder)?.into_iter().filter(|path| path.is_dir()) {
            classes.push(utf8_name(folder, &path)?);
        }
        classes.retain(|name| !is_leftover(name));
        classes.sort_unstable();
        if classes.is_empty() {
            let found = "no folder in it; for images without classes write images:DIR";
            return Err(Error::malformed(folder, Position::File, "a folder for each class", found));
        }
        let mut rows = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            let mut names = ImageStore::folder(&folder.join(class)).image_names()?;
            if names.is_empty() {
                let found = "none; remove the folder if it is no class";
                return Err(Error::malformed(folder.join(class), Position::File, "images of a class", found));
            }
            names.sort_unstable();
            rows.extend(
                names.into_iter().map(|name| Row { name: format!("{class}/{name}"), label: label as i64 }),
            );
        }
        ImageFiles::new(folder, ImageStore::folder(folder), rows, classes, None)
    }

    /// A table (CSV) and the folder or zip its column `image` names files in.
    pub(super) fn table(path: &Path, images: &Path, level: Level) -> Result<ImageFiles> {
        ImageFiles::named(path, table::read_csv(path, level)?, images)
    }

    /// An OpenOOD list and the folder it is relative to.
    pub(super) fn list(path: &Path, root: &Path) -> Result<ImageFiles> {
        ImageFiles::named(path, table::read_list(path)?, root)
    }

    /// The images that `table`, read from `path`, names in a folder or zip. All of them must be there.
    fn named(path: &Path, table: Table, images: &Path) -> Result<ImageFiles> {
        let store = ImageStore::fenced(images)?;
        let mut missing = table.rows.iter().zip(&table.lines).filter(|(row, _)| !store.contains(&row.name));
        if let Some((row, line)) = missing.next() {
            let others = match missing.count() {
                0 => String::new(),
                count => format!(", nor are the images of {count} more rows"),
            };
            let unlike = store.note().map_or_else(String::new, |note| format!(" ({note})"));
            let found =
                format!("`{}`, which is not there{others}; add them or take the rows out{unlike}", row.name);
            let expected = format!("an image in {}", store.place().display());
            return Err(Error::malformed(path, Position::Line(*line), expected, found));
        }
        ImageFiles::new(path, store, table.rows, table.class_names, table.taxonomy)
    }

    /// All images of a folder or zip, in numeric order of their names, without labels.
    pub(super) fn unlabelled(path: &Path) -> Result<ImageFiles> {
        let metadata = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
        let store = if metadata.is_dir() { ImageStore::folder(path) } else { ImageStore::zip(path)? };
        let mut names = store.image_names()?;
        if names.is_empty() {
            return Err(Error::malformed(path, Position::File, "images", "none"));
        }
        names.sort_unstable_by(|a, b| numeric_order(a, b));
        let rows = names.into_iter().map(|name| Row { name, label: UNKNOWN_LABEL }).collect();
        ImageFiles::new(path, store, rows, Vec::new(), None)
    }

    fn new(
        path: &Path,
        store: ImageStore,
        rows: Vec<Row>,
        class_names: Vec<String>,
        taxonomy: Option<Taxonomy>,
    ) -> Result<ImageFiles> {
        if rows.is_empty() {
            return Err(Error::malformed(path, Position::File, "at least one image", "none"));
        }
        if u32::try_from(rows.len()).is_err() {
            let found = format!("{}; divide them", rows.len());
            return Err(Error::malformed(path, Position::File, "at most 2^32 - 1 images", found));
        }
        Ok(ImageFiles { store, rows, class_names, taxonomy })
    }
}

impl Dataset for ImageFiles {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn taxonomy(&self) -> Option<&Taxonomy> {
        self.taxonomy.as_ref()
    }

    fn label(&self, index: usize) -> i64 {
        self.rows[index].label
    }

    fn image(&self, index: usize) -> Result<RgbImage> {
        self.store.image(&self.rows[index].name)
    }

    fn sample_name(&self, index: usize) -> String {
        self.rows[index].name.clone()
    }

    fn undecoded_kind(&self, index: usize) -> Option<&'static str> {
        undecoded_kind(&self.rows[index].name)
    }

    fn notes(&self) -> Vec<String> {
        self.store.note().into_iter().collect()
    }
}

/// A single image file as a data set of one.
#[derive(Debug)]
pub(super) struct SingleImage {
    path: PathBuf,
}

impl SingleImage {
    /// The file, if its name is an image's; what else `images:` may name is a folder or zip.
    pub(super) fn recognise(path: &Path) -> Option<SingleImage> {
        let is_image = path.is_file() && is_image_name(&path.to_string_lossy());
        is_image.then(|| SingleImage { path: path.to_path_buf() })
    }
}

impl Dataset for SingleImage {
    fn len(&self) -> usize {
        1
    }

    fn class_names(&self) -> &[String] {
        &[]
    }

    fn label(&self, _index: usize) -> i64 {
        UNKNOWN_LABEL
    }

    fn image(&self, _index: usize) -> Result<RgbImage> {
        decode_file(&self.path)
    }

    fn sample_name(&self, _index: usize) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn undecoded_kind(&self, _index: usize) -> Option<&'static str> {
        undecoded_kind(&self.path.to_string_lossy())
    }
}
