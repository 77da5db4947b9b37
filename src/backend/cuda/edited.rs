//! A folder of edited kernel sources (`--kernels DIR`): what is taken from it, and what cannot be meant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::source::{embedded, included, known};
use crate::error::{Error, Result, printable};
use crate::files;
use crate::values::did_you_mean;

/// No source file is larger than this.
const MOST_BYTES: u64 = 1 << 20;

/// Kernel sources of a folder, as they were when the program began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedSources {
    pub(super) folder: PathBuf,
    /// The text of each file, by name.
    pub(super) files: BTreeMap<String, String>,
}

/// Record of the folder that kernels came from, for result files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct TakenSources {
    /// The folder.
    pub folder: String,
    /// Its files that were taken, in the place of those inside the binary.
    pub taken: Vec<String>,
    /// Those of them whose text is not the binary's.
    pub changed: Vec<String>,
}

impl EditedSources {
    /// Reads a folder. Every file must be one the engine knows, or one that such a file includes; hidden files, backups
    /// (`~`) and notes (`.md`) are left alone.
    ///
    /// # Errors
    /// There is no such folder, it holds no kernel source, or a file that nothing would ever read.
    pub fn read(folder: &Path) -> Result<EditedSources> {
        let metadata =
            fs::metadata(folder).map_err(|e| Error::io("open the folder of kernels", folder, e))?;
        if !metadata.is_dir() {
            return Err(Error::usage(format!(
                "{} is no folder; --kernels and RESIDUA_KERNELS name a folder of kernel sources",
                folder.display()
            )));
        }
        let failed = |e| Error::io("read the folder", folder, e);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() || name.starts_with('.') || name.ends_with('~') || name.ends_with(".md") {
                continue;
            }
            files.insert(name, files::read_text(&path, MOST_BYTES)?);
        }
        let edited = EditedSources { folder: folder.to_path_buf(), files };
        edited.check()?;
        Ok(edited)
    }

    fn check(&self) -> Result<()> {
        let read = self.read_by_the_engine();
        if let Some(stray) = self.files.keys().find(|name| !read.contains(name.as_str())) {
            let names = known();
            return Err(Error::usage(format!(
                "{}: the engine knows no kernel source of that name, and none that it reads includes it{}; there are {}",
                self.folder.join(stray).display(),
                did_you_mean(stray, names.iter().copied()),
                names.join(", ")
            )));
        }
        if self.files.is_empty() {
            return Err(Error::usage(format!(
                "{} holds no kernel source; it takes files named as in kernels/, such as {}",
                self.folder.display(),
                known().join(", ")
            )));
        }
        Ok(())
    }

    /// The files that the engine asks for by name, and all they include.
    fn read_by_the_engine(&self) -> BTreeSet<&str> {
        let mut read: BTreeSet<&str> =
            self.files.keys().map(String::as_str).filter(|name| embedded(name).is_some()).collect();
        let mut new: Vec<&str> = read.iter().copied().collect();
        while let Some(name) = new.pop() {
            for included in self.files[name].lines().filter_map(included) {
                if let Some((own, _)) = self.files.get_key_value(included)
                    && read.insert(own.as_str())
                {
                    new.push(own.as_str());
                }
            }
        }
        read
    }

    /// The record of this folder for result files.
    pub fn taken(&self) -> TakenSources {
        let changed = self.files.iter().filter(|(name, text)| embedded(name) != Some(text.as_str()));
        TakenSources {
            folder: self.folder.display().to_string(),
            taken: self.files.keys().cloned().collect(),
            changed: changed.map(|(name, _)| name.clone()).collect(),
        }
    }
}

impl TakenSources {
    /// One sentence for people.
    pub fn in_words(&self) -> String {
        let count = self.taken.len();
        let changed = match self.changed.as_slice() {
            [] => "none of which differs from the binary's".to_string(),
            names => format!("of which differ from the binary's: {}", names.join(", ")),
        };
        let files = if count == 1 { "file" } else { "files" };
        printable(&format!("kernel sources from {}: {count} {files}, {changed}", self.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_file_that_nothing_would_read_is_an_error_with_the_nearest_name() {
        let edited = embedded("convolution_sm80.cu").unwrap();
        let misspelt = folder(&[("convolution_sm80x.cu", edited), ("pointwise.cu", "")]);
        let error = EditedSources::read(misspelt.path()).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(
            text.contains("convolution_sm80x.cu: the engine knows no")
                && text.contains("`convolution_sm80.cu`?"),
            "{text}"
        );

        let (empty, notes) = (folder(&[]), folder(&[("README.md", ""), (".pointwise.cu.swp", "")]));
        for (path, part) in [
            (&misspelt.path().join("missing"), "cannot open the folder of kernels"),
            (&misspelt.path().join("pointwise.cu"), "is no folder"),
            (&empty.path().to_path_buf(), "holds no kernel source"),
            (&notes.path().to_path_buf(), "holds no kernel source"),
        ] {
            let text = EditedSources::read(path).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_differs_is_told_and_headers_that_an_edited_kernel_includes_are_taken() {
        let same = embedded("loss.cu").unwrap();
        let with_own = folder(&[
            ("loss.cu", same),
            ("pointwise.cu", "#include \"mine.cuh\"\n"),
            ("mine.cuh", "  #include \"deeper.cuh\"\n"),
            ("deeper.cuh", ""),
            ("pointwise.cu~", ""),
        ]);
        let taken = EditedSources::read(with_own.path()).unwrap().taken();
        assert_eq!(taken.taken, ["deeper.cuh", "loss.cu", "mine.cuh", "pointwise.cu"]);
        assert_eq!(taken.changed, ["deeper.cuh", "mine.cuh", "pointwise.cu"]);
        let text = taken.in_words();
        assert!(
            text.ends_with("4 files, of which differ from the binary's: deeper.cuh, mine.cuh, pointwise.cu"),
            "{text}"
        );
    }
}
