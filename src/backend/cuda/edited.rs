//! A folder of edited kernel sources (`--kernels DIR`): the files taken from it, and the errors about files that nothing reads.
//!
//! Files have the paths that they have in `kernels/`, so a copy of that folder, or of the part of it that was edited, is one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::kernel_files::declarations::{Constant, Declarations, Field, Kernel, Kind, Struct, included};
use super::source::{Sources, did_you_mean_path, embedded, known};
use crate::error::{Error, Result, printable};
use crate::files;

/// No source file is larger than this.
const MOST_BYTES: u64 = 1 << 20;

/// No folder of kernel sources has more files, nor deeper folders.
const MOST_FILES: usize = 1000;
const MOST_DEPTH: usize = 8;

/// Kernel sources of a folder, as they were when the program began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EditedSources {
    pub(super) folder: PathBuf,
    /// The text of each file, by its path relative to the folder, with `/` between names on every system.
    pub(super) files: BTreeMap<String, String>,
}

/// Record of the folder that kernels came from, for result files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct TakenSources {
    /// The folder.
    pub folder: String,
    /// Its files that were taken in the place of those inside the binary: paths relative to the folder.
    pub taken: Vec<String>,
    /// Those of them whose text is not the binary's.
    pub changed: Vec<String>,
}

impl EditedSources {
    /// Reads a folder and the folders in it. Every file must be one the engine knows, or one that such a file includes; hidden files
    /// and folders, backups (`~`) and notes (`.md`) are left alone.
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
        let mut paths = BTreeSet::new();
        collect(folder, folder, &mut paths)?;
        if paths.is_empty() {
            return Err(Error::usage(format!(
                "{} holds no kernel source; it takes files with the paths they have in kernels/, such as {}",
                folder.display(),
                known().join(", ")
            )));
        }
        let files = read_by_the_engine(folder, &paths)?;
        if let Some(stray) = paths.iter().find(|path| !files.contains_key(*path)) {
            return Err(Error::usage(format!(
                "{}: the engine knows no kernel source with that path, and none that it reads includes it{}; there are {}",
                folder.join(stray).display(),
                did_you_mean_path(stray),
                known().join(", ")
            )));
        }
        Ok(EditedSources { folder: folder.to_path_buf(), files })
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

/// Refuses edited sources whose kernels take other arguments than this binary fills, or whose constants are not the ones that it launches
/// with: they would compute wrong numbers, or stray.
///
/// # Errors
/// Names file and declaration, what was found and what was expected.
pub(super) fn check_declarations(sources: &Sources) -> Result<()> {
    for file in known().into_iter().filter(|file| file.ends_with(".cu")) {
        let (ours, theirs) = (Sources::default().declarations(file)?, sources.declarations(file)?);
        if let Some(difference) = difference(&ours, &theirs) {
            return Err(Error::usage(format!(
                "{difference}: an edited kernel takes what the launcher in this binary fills"
            )));
        }
    }
    Ok(())
}

/// The first difference that launchers would not know of. Kernels and constants that are missing are of no use to them.
fn difference(ours: &Declarations, theirs: &Declarations) -> Option<String> {
    let kernel = |ours: &Kernel| {
        let theirs = theirs.kernels.iter().find(|kernel| kernel.name == ours.name)?;
        match (theirs.threads, ours.threads) {
            (Some(found), Some(expected)) if found != expected => Some(format!(
                "{}: kernel `{}`: found {found} threads, expected {expected} as in {}",
                theirs.place, theirs.name, ours.place
            )),
            _ => difference_of_structs(&ours.layout, &theirs.layout),
        }
    };
    let constant = |ours: &Constant| {
        let differs = |other: &&Constant| other.name == ours.name && other.value != ours.value;
        let Constant { name, place, value, .. } = theirs.constants.iter().find(differs)?;
        Some(format!("{place}: `{name}`: found {value}, expected {} as in {}", ours.value, ours.place))
    };
    let mut shared = ours.constants.iter().filter(|constant| constant.shared);
    ours.kernels.iter().find_map(kernel).or_else(|| shared.find_map(constant))
}

fn difference_of_structs(ours: &Struct, theirs: &Struct) -> Option<String> {
    (0..ours.fields.len().max(theirs.fields.len())).find_map(|index| {
        let (expected, found) = (ours.fields.get(index), theirs.fields.get(index));
        if let (Some(expected), Some(found)) = (expected, found)
            && (&expected.name, expected.extent) == (&found.name, found.extent)
        {
            match (&expected.kind, &found.kind) {
                (Kind::Plain(expected, ..), Kind::Plain(found, ..)) if expected == found => return None,
                (Kind::Struct(ours), Kind::Struct(theirs)) => return difference_of_structs(ours, theirs),
                _ => {}
            }
        }
        let shown = |field: Option<&Field>, of: &Struct| match field {
            Some(field) => (field.place.clone(), format!("`{}`", field.declaration)),
            None => (of.place.clone(), "no more fields".to_string()),
        };
        let ((found_at, found), (expected_at, expected)) = (shown(found, theirs), shown(expected, ours));
        let (name, number) = (&theirs.name, index + 1);
        Some(format!(
            "{found_at}: struct `{name}`, field {number}: found {found}, expected {expected} as in {expected_at}"
        ))
    })
}

/// Adds the paths of all files in `within`, relative to `folder`.
fn collect(folder: &Path, within: &Path, paths: &mut BTreeSet<String>) -> Result<()> {
    let failed = |e| Error::io("read the folder", within, e);
    for entry in fs::read_dir(within).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name.ends_with('~') || name.ends_with(".md") {
            continue;
        }
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let names: Vec<_> = relative.iter().map(|name| name.to_string_lossy()).collect();
        if paths.len() >= MOST_FILES || names.len() > MOST_DEPTH {
            return Err(Error::usage(format!(
                "{} has more than {MOST_FILES} files, or folders more than {MOST_DEPTH} deep; --kernels and RESIDUA_KERNELS name \
                 a folder of kernel sources alone",
                folder.display()
            )));
        }
        if path.is_dir() {
            collect(folder, &path, paths)?;
        } else {
            paths.insert(names.join("/"));
        }
    }
    Ok(())
}

/// The texts of the files that the engine asks for by their paths, and of all they include.
fn read_by_the_engine(folder: &Path, paths: &BTreeSet<String>) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut next: Vec<String> = paths.iter().filter(|path| embedded(path).is_some()).cloned().collect();
    while let Some(path) = next.pop() {
        if !paths.contains(&path) || files.contains_key(&path) {
            continue;
        }
        let text = files::read_text(&folder.join(&path), MOST_BYTES)?;
        next.extend(text.lines().filter_map(included).map(String::from));
        files.insert(path, text);
    }
    Ok(files)
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
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn a_file_that_nothing_would_read_is_an_error_with_the_nearest_path() {
        let edited = embedded("convolution/sm80/implicit_gemm.cu").unwrap();
        let pointwise = ("elementwise/pointwise.cu", "");
        let misspelt = folder(&[("convolution/sm80/implicit_gem.cu", edited), pointwise]);
        let error = EditedSources::read(misspelt.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);

        let (empty, flat) = (folder(&[]), folder(&[("convolution_sm80.cu", edited)]));
        let notes = folder(&[("README.md", ""), ("loss/.loss.cu.swp", ""), (".git/config", "")]);
        let elsewhere = folder(&[("sm80/implicit_gemm.cu", edited), pointwise]);
        let many: Vec<String> = (0..=MOST_FILES).map(|i| format!("a/{i}.txt")).collect();
        let many = folder(&many.iter().map(|path| (path.as_str(), "")).collect::<Vec<_>>());
        for (path, parts) in [
            (
                misspelt.path(),
                ["implicit_gem.cu: the engine knows no", "`convolution/sm80/implicit_gemm.cu`?"],
            ),
            (flat.path(), ["convolution_sm80.cu: the engine", "`convolution/sm80/implicit_gemm.cu`?"]),
            (elsewhere.path(), ["sm80/implicit_gemm.cu: the", "`convolution/sm80/implicit_gemm.cu`?"]),
            (&misspelt.path().join("missing"), ["cannot open the folder of kernels", "missing"]),
            (&misspelt.path().join("elementwise/pointwise.cu"), ["is no folder", "pointwise.cu"]),
            (empty.path(), ["holds no kernel source", "elementwise/pointwise.cu"]),
            (notes.path(), ["holds no kernel source", "elementwise/pointwise.cu"]),
            (many.path(), ["more than 1000 files", "a folder of kernel sources alone"]),
        ] {
            let text = EditedSources::read(path).unwrap_err().to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn an_edited_kernel_that_takes_other_arguments_than_the_binary_fills_is_refused() {
        let refused = |file: &str, from: &str, to: &str| {
            let text = embedded(file).unwrap();
            assert!(text.contains(from), "{file}: {from}");
            let folder = folder(&[(file, &text.replacen(from, to, 1))]);
            Sources::of_folder(folder.path()).err().map(|error| error.to_string())
        };
        let pointwise = "elementwise/pointwise.cu";
        for (file, from, to, parts) in [
            // Two fields swapped; one with another type, another name, one more and one less.
            (
                pointwise,
                "u32 stride, shift;",
                "u32 shift, stride;",
                "`Shortcut`, field 10: found `u32 shift`, expected `u32 stride`",
            ),
            (
                pointwise,
                "    u64 elements;\n};",
                "    i64 elements;\n};",
                "`Unary`, field 3: found `i64 elements`, expected `u64 elements`",
            ),
            (
                pointwise,
                "const X* x;",
                "const X* from;",
                "`Unary`, field 1: found `const X* from`, expected `const X* x`",
            ),
            (
                pointwise,
                "    u64 elements;\n};",
                "    u64 elements, more;\n};",
                "`Unary`, field 4: found `u64 more`, expected no more fields",
            ),
            (
                pointwise,
                "    u64 elements;\n};",
                "};",
                "`Unary`, field 3: found no more fields, expected `u64 elements`",
            ),
            // Of a struct in a header, an array, a constant, threads.
            (
                "common/reduce.cuh",
                "u32 channels;",
                "int channels;",
                "reduce.cuh:38: struct `Cut`, field 3: found `int channels`",
            ),
            (
                "optimizer/optimizer.cu",
                "u32 rows[3];",
                "u32 rows[5];",
                "`Segments`, field 3: found `u32 rows[5]`, expected `u32 rows[3]`",
            ),
            ("head/linear.cu", "u32 TILE = 64;", "u32 TILE = 32 << 2;", "`TILE`: found 128, expected 64"),
            (
                "loss/energy.cu",
                "KERNEL(THREADS, ",
                "KERNEL(128, ",
                "kernel `energy_margin`: found 128 threads, expected 256",
            ),
            // Not understood.
            (
                pointwise,
                "    u64 elements;\n};",
                "    u64 elements = 0;\n};",
                "expected `Type name, name[extent];`",
            ),
            (pointwise, "    u64 elements;\n};", "    u32 elements;\n};", "expected no 4 bytes of padding"),
        ] {
            let error = refused(file, from, to).unwrap_or_else(|| panic!("{to} in {file}"));
            assert!(error.contains(parts) && error.contains(file), "`{parts}` is missing in: {error}");
        }
        for (from, to) in [
            ("    const X* x;", "    // Edited.\n    X  *x;  // another comment"),
            (
                "struct Unary {",
                "struct Other {\n    bool unrelated;\n};\n/// Edited.\ntemplate <class X>\nstruct Unary {",
            ),
            ("constexpr int VECTOR_SIZE", "constexpr u32 MINE = 3;\nconstexpr int VECTOR_SIZE"),
        ] {
            assert_eq!(refused(pointwise, from, to), None, "{to}");
        }
    }

    #[test]
    fn changed_files_are_told_and_headers_that_an_edited_kernel_includes_are_taken() {
        let same = embedded("loss/energy.cu").unwrap();
        let with_own = folder(&[
            ("loss/energy.cu", same),
            ("elementwise/pointwise.cu", "#include \"mine.cuh\"\n"),
            ("mine.cuh", "  #include \"own/deeper.cuh\"\n"),
            ("own/deeper.cuh", ""),
            ("elementwise/pointwise.cu~", ""),
            ("elementwise/.hidden/pointwise.cu", ""),
        ]);
        let taken = EditedSources::read(with_own.path()).unwrap().taken();
        assert_eq!(taken.taken, ["elementwise/pointwise.cu", "loss/energy.cu", "mine.cuh", "own/deeper.cuh"]);
        assert_eq!(taken.changed, ["elementwise/pointwise.cu", "mine.cuh", "own/deeper.cuh"]);
        let text = taken.in_words();
        assert!(
            text.ends_with(
                "4 files, of which differ from the binary's: elementwise/pointwise.cu, mine.cuh, own/deeper.cuh"
            ),
            "{text}"
        );
    }
}
