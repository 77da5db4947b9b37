//! Writing caches and archives: a cache folder appears whole or not at all, an `.npz` is renamed into place.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Seek, Write};
use std::path::{Path, PathBuf};

use npyz::{NpyWriter, WriteOptions, WriterBuilder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::head::Head;
use super::npy::{Element, NpyArray};
use super::set::{CacheMeta, HEAD_FILE};
use crate::error::{Error, Result};
use crate::files::{self, TemporaryFolder};

type NpyFile<T> = NpyWriter<T, BufWriter<File>>;

/// Writes a feature cache batch by batch.
///
/// Everything goes to a temporary folder beside the target; [`CacheWriter::finish`] syncs it and renames it into
/// place. Dropped before that, it leaves nothing behind and an older cache untouched.
pub struct CacheWriter {
    folder: PathBuf,
    temporary: TemporaryFolder,
    features: NpyFile<f32>,
    logits: NpyFile<f32>,
    labels: NpyFile<i64>,
    dimension: usize,
    classes: usize,
    rows: u64,
    meta: CacheMeta,
}

impl CacheWriter {
    /// Starts a cache for `dimension` features and `classes` logits per sample.
    ///
    /// # Errors
    /// The folder's parent cannot be created or written.
    pub fn create(folder: &Path, dimension: usize, classes: usize, meta: CacheMeta) -> Result<CacheWriter> {
        let folder = &files::check_output_folder(folder)?;
        check_is_cache(folder)?;
        let temporary = files::temporary_folder_beside(folder)?;
        let matrix = |name: &str, columns: usize| -> Result<NpyFile<f32>> {
            let path = temporary.path().join(name);
            File::create(&path)
                .and_then(|file| {
                    WriteOptions::new().default_dtype().writer(BufWriter::new(file)).begin_2d(columns as u64)
                })
                .map_err(|e| Error::io("create", &path, e))
        };
        let features = matrix("features.npy", dimension)?;
        let logits = matrix("logits.npy", classes)?;
        let labels_path = temporary.path().join("labels.npy");
        let labels = File::create(&labels_path)
            .and_then(|file| WriteOptions::new().default_dtype().writer(BufWriter::new(file)).begin_1d())
            .map_err(|e| Error::io("create", &labels_path, e))?;
        let folder = folder.to_path_buf();
        Ok(CacheWriter { folder, temporary, features, logits, labels, dimension, classes, rows: 0, meta })
    }

    /// Puts the head that makes logits of these features into the cache.
    ///
    /// # Errors
    /// The disk is full.
    ///
    /// # Panics
    /// If the head has another number of features or classes.
    pub fn write_head(&self, head: &Head) -> Result<()> {
        assert_eq!((head.dimension(), head.classes()), (self.dimension, self.classes), "head of a cache");
        head.write(&self.temporary.path().join(HEAD_FILE))
    }

    /// Appends a batch: features N x D and logits N x C row-major, and N labels (-1 unknown).
    ///
    /// # Errors
    /// The disk is full or the file vanished.
    ///
    /// # Panics
    /// If the three do not describe the same number of samples.
    pub fn append(&mut self, features: &[f32], logits: &[f32], labels: &[i64]) -> Result<()> {
        assert_eq!(features.len(), labels.len() * self.dimension, "features of a batch");
        assert_eq!(logits.len(), labels.len() * self.classes, "logits of a batch");
        self.features
            .extend(features.iter().copied())
            .and_then(|()| self.logits.extend(logits.iter().copied()))
            .and_then(|()| self.labels.extend(labels.iter().copied()))
            .map_err(|e| Error::io("write the feature cache", &self.folder, e))?;
        self.rows += labels.len() as u64;
        Ok(())
    }

    /// Completes the headers, writes `meta.json`, and puts the folder in place of an older one.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be renamed; an older cache is then still there.
    pub fn finish(self) -> Result<()> {
        let CacheWriter { folder, temporary, features, logits, labels, rows, mut meta, .. } = self;
        let written = |e| Error::io("write the feature cache", &folder, e);
        features.finish().map_err(written)?;
        logits.finish().map_err(written)?;
        labels.finish().map_err(written)?;
        meta.rows = Some(rows);
        let text = serde_json::to_string_pretty(&meta).map_err(|e| Error::invalid(e.to_string()))? + "\n";
        fs::write(temporary.path().join("meta.json"), text).map_err(written)?;
        for name in ["features.npy", "logits.npy", "labels.npy", "meta.json"] {
            File::open(temporary.path().join(name)).and_then(|file| file.sync_all()).map_err(written)?;
        }
        replace_folder(temporary, &folder)
    }
}

/// Everything that a cache may hold.
const CACHE_FILES: [&str; 5] = ["features.npy", "logits.npy", "labels.npy", "meta.json", "head.npz"];

/// Refuses a folder that is there and holds more than a cache: a new cache replaces the folder as a whole.
fn check_is_cache(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io("read the folder", folder, e))?,
    };
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read the folder", folder, e))?.file_name();
        if !CACHE_FILES.iter().any(|known| name == *known) {
            return Err(Error::usage(format!(
                "{} holds `{}`, which is no part of a feature cache, and a new cache replaces the whole folder; name another \
                 folder",
                folder.display(),
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// Renames a finished temporary folder to `target`; an older folder of that name is moved aside first, and moved
/// back should the second rename fail.
fn replace_folder(mut temporary: TemporaryFolder, target: &Path) -> Result<()> {
    set_ordinary_permissions(temporary.path()).map_err(|e| Error::io("set permissions of", target, e))?;
    let rename = |e| Error::io("rename into place", target, e);
    if !target.exists() {
        fs::rename(temporary.path(), target).map_err(rename)?;
        let _ = temporary.keep();
        return Ok(());
    }
    let parent = temporary.path().parent().unwrap_or(Path::new("."));
    let aside =
        tempfile::Builder::new().prefix(".residua-").suffix(".old").tempdir_in(parent).map_err(rename)?;
    let old = aside.path().join("old");
    temporary.spare();
    fs::rename(target, &old).map_err(rename)?;
    if let Err(e) = fs::rename(temporary.path(), target) {
        let _ = fs::rename(&old, target);
        return Err(rename(e));
    }
    let _ = temporary.keep();
    Ok(())
}

/// Temporary folders are private (0700); a cache should be readable like any other folder the user makes.
fn set_ordinary_permissions(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    let _ = folder;
    Ok(())
}

/// Writes arrays in C order and this machine's byte order into an uncompressed `.npz`, all at once or not at all.
///
/// # Errors
/// The file cannot be written.
///
/// # Panics
/// If an array is neither f32, f64, i64 nor u8.
pub fn write_npz(path: &Path, arrays: &[(&str, &NpyArray)]) -> Result<()> {
    files::write_atomically(path, |out| write_archive(out, arrays))
}

/// The bytes that [`write_npz`] writes.
///
/// # Panics
/// As [`write_npz`].
pub(crate) fn npz_bytes(arrays: &[(&str, &NpyArray)]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    write_archive(&mut bytes, arrays).expect("memory takes every write");
    bytes.into_inner()
}

fn write_archive(out: impl Write + Seek, arrays: &[(&str, &NpyArray)]) -> std::io::Result<()> {
    // A fixed date (the earliest a zip can hold) keeps equal contents equal byte for byte.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    let mut archive = ZipWriter::new(out);
    for (name, array) in arrays {
        let large = array.elements().len() as u64 >= zip::ZIP64_BYTES_THR - 1024;
        archive
            .start_file(format!("{name}.npy"), options.large_file(large))
            .map_err(std::io::Error::other)?;
        write_npy(&mut archive, array)?;
    }
    archive.finish().map_err(std::io::Error::other)?;
    Ok(())
}

/// An array as an `.npy` file.
///
/// # Panics
/// As [`write_npz`].
pub(crate) fn npy_bytes(array: &NpyArray) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_npy(&mut bytes, array).expect("memory takes every write");
    bytes
}

fn write_npy(out: &mut impl Write, array: &NpyArray) -> std::io::Result<()> {
    let shape: Vec<u64> = array.shape.iter().map(|&extent| extent as u64).collect();
    let dtype = match array.element {
        Element::F32 => <f32 as npyz::AutoSerialize>::default_dtype(),
        Element::F64 => <f64 as npyz::AutoSerialize>::default_dtype(),
        Element::Signed(8) => <i64 as npyz::AutoSerialize>::default_dtype(),
        Element::Unsigned(1) => <u8 as npyz::AutoSerialize>::default_dtype(),
        other => panic!("arrays of {other:?} are not written"),
    };
    WriteOptions::new_header_only().dtype(dtype).shape(&shape).writer(&mut *out).write_header_only()?;
    out.write_all(array.elements())
}
