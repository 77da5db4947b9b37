//! The kernels' source text: embedded in the binary or taken from a folder, put together into one text for a compiler.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::edited::{EditedSources, check_declarations};
pub use super::kernel_files::EMBEDDED;
use super::kernel_files::declarations::{self, Declarations, included};
use crate::error::{Error, Result};
use crate::values::nearest;

/// The text inside the binary of the file with that path in `kernels/`.
pub(super) fn embedded(file: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(path, _)| *path == file).map(|&(_, text)| text)
}

/// The paths of all files inside the binary, relative to `kernels/`.
pub(super) fn known() -> Vec<&'static str> {
    EMBEDDED.iter().map(|&(path, _)| path).collect()
}

/// ` (did you mean `x`?)` for a path that is not among [`known`], or nothing. A path may have a slip, the folder may be wrong or missing, or
/// only some words may be those of a file.
pub(super) fn did_you_mean_path(file: &str) -> String {
    let name = |path: &'static str| path.rsplit_once('/').map_or(path, |(_, name)| name);
    let given_name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    let with_slip = || nearest(file, known());
    let elsewhere = || {
        let meant = nearest(given_name, known().into_iter().map(name))?;
        known().into_iter().find(|path| name(path) == meant)
    };
    let by_words = || {
        let (stem, extension) = file.rsplit_once('.')?;
        let words: Vec<&str> = stem.split(['/', '_', '-']).filter(|word| !word.is_empty()).collect();
        let common = |path: &str| {
            let (path, of_path) = path.rsplit_once('.').unwrap_or((path, ""));
            let has = |word: &&&str| path.split(['/', '_']).any(|other| other == **word);
            if of_path == extension { words.iter().filter(has).count() } else { 0 }
        };
        // The first of those with most words in common.
        let path = known().into_iter().rev().max_by_key(|path| common(path))?;
        (common(path) > 0).then_some(path)
    };
    let meant = with_slip().or_else(elsewhere).or_else(by_words);
    meant.map_or_else(String::new, |path| format!(" (did you mean `{path}`?)"))
}

/// A kernel file specialised by constants: what is compiled at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The file's path relative to `kernels/`.
    pub file: &'static str,
    /// Preprocessor constants that specialise it.
    pub constants: &'static [(&'static str, i64)],
}

/// The complete text of one variant, for whichever compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// For people: `elementwise/pointwise.cu BF16=1`.
    pub name: String,
    /// Constants, headers and the file, with `#line` directives that point at the originals.
    pub text: String,
}

impl Source {
    /// Whether its kernels begin with a grid dependency wait, so that they may be launched by programmatic dependent launch. All embedded
    /// kernels do; a folder of edited sources may hold an `intrinsics/ptx.cuh` without it, or a kernel that does not begin with `KERNEL`.
    pub fn has_grid_dependency_wait(&self) -> bool {
        // `__global__` stands in KERNEL, and where the emulator defines it away.
        let entries = self.text.matches("__global__").count();
        self.text.contains("griddepcontrol.wait") && entries <= 2
    }
}

/// Where kernel sources come from: the binary, and a folder of edited ones where a user names one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    edited: Option<Arc<EditedSources>>,
    traps: bool,
}

/// Seconds after which a wait for an mbarrier traps in a debugging build.
const TRAP_SECONDS: u32 = 2;

impl Sources {
    /// The files of `folder` where it has them, those inside the binary otherwise.
    ///
    /// # Errors
    /// As [`EditedSources::read`]; or a kernel takes other arguments than launchers fill.
    pub fn of_folder(folder: &Path) -> Result<Sources> {
        let sources = Sources { edited: Some(Arc::new(EditedSources::read(folder)?)), traps: false };
        check_declarations(&sources)?;
        Ok(sources)
    }

    /// The same, built for debugging: a wait for an mbarrier that takes two seconds ends the kernel with an error instead of hanging.
    #[must_use]
    pub fn with_traps(self) -> Sources {
        Sources { traps: true, ..self }
    }

    /// The folder of edited sources, if there is one.
    pub fn edited(&self) -> Option<&EditedSources> {
        self.edited.as_deref()
    }

    /// The complete text of a variant.
    ///
    /// # Errors
    /// A file is missing, or unreadable.
    pub fn assemble(&self, variant: &Variant) -> Result<Source> {
        let (mut name, mut text) = (variant.file.to_string(), String::new());
        for (constant, value) in variant.constants {
            let _ = write!(name, " {constant}={value}");
            let _ = writeln!(text, "#define {constant} {value}");
        }
        if self.traps {
            let _ = write!(name, " TRAP_SECONDS={TRAP_SECONDS}");
            let _ = writeln!(text, "#define TRAP_SECONDS {TRAP_SECONDS}");
        }
        self.include(variant.file, &mut text, &mut Vec::new())?;
        // The compiler confirms the layouts that launchers fill.
        for kernel in self.declarations(variant.file)?.kernels {
            let (argument, size) = (&kernel.argument, kernel.layout.size);
            let _ = writeln!(
                text,
                "static_assert(sizeof({argument}) == {size}, \"a launcher fills {size} bytes\");"
            );
        }
        Ok(Source { name, text })
    }

    /// The structs and constants that a kernel file shares with its launcher.
    ///
    /// # Errors
    /// A declaration that is not understood.
    pub(super) fn declarations(&self, file: &str) -> Result<Declarations> {
        let text_of = |name: &str| self.read(name).ok().map(|(shown, text)| (shown, text.into_owned()));
        declarations::read(file, &text_of).map_err(Error::usage)
    }

    /// Appends a file; what it includes in quotes goes in at that place, each file once.
    fn include(&self, file: &str, text: &mut String, seen: &mut Vec<String>) -> Result<()> {
        if seen.iter().any(|name| name == file) {
            return Ok(());
        }
        seen.push(file.to_string());
        let (shown, content) = self.read(file)?;
        let _ = writeln!(text, "#line 1 \"{shown}\"");
        for (index, line) in content.lines().enumerate() {
            match included(line) {
                Some(name) => {
                    self.include(name, text, seen)?;
                    let _ = writeln!(text, "#line {} \"{shown}\"", index + 2);
                }
                None => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(())
    }

    /// A file's name for messages, and its text.
    fn read(&self, file: &str) -> Result<(String, Cow<'_, str>)> {
        if let Some(edited) = &self.edited
            && let Some(text) = edited.files.get(file)
        {
            return Ok((edited.folder.join(file).display().to_string(), text.as_str().into()));
        }
        embedded(file).map(|text| (format!("kernels/{file}"), text.into())).ok_or_else(|| {
            Error::invalid(format!(
                "there is no kernel file `{file}`{}; there are {}",
                did_you_mean_path(file),
                known().join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_whose_intrinsics_have_the_wait_are_said_to_wait() {
        let variant = Variant { file: "optimizer/optimizer.cu", constants: &[("BF16", 0)] };
        assert!(Sources::default().assemble(&variant).unwrap().has_grid_dependency_wait());
        let folder = tempfile::tempdir().unwrap();
        let waits = || {
            Sources::of_folder(folder.path()).unwrap().assemble(&variant).unwrap().has_grid_dependency_wait()
        };
        let intrinsics = EMBEDDED.iter().find(|(path, _)| *path == "intrinsics/ptx.cuh").unwrap().1;
        let older: Vec<&str> = intrinsics.lines().filter(|line| !line.contains("griddepcontrol")).collect();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("intrinsics/ptx.cuh", &older.join("\n"));
        assert!(!waits());
        // A kernel that was not begun as all others are.
        let plain = "#include \"intrinsics/ptx.cuh\"\nextern \"C\" __global__ void plain(const int p) {}\n";
        write("intrinsics/ptx.cuh", intrinsics);
        write("optimizer/optimizer.cu", plain);
        assert!(!waits());
    }

    #[test]
    fn a_path_with_a_slip_a_wrong_folder_or_some_words_of_a_file_finds_it() {
        for (given, meant) in [
            ("elementwise/pointwize.cu", "elementwise/pointwise.cu"),
            ("pointwise.cu", "elementwise/pointwise.cu"),
            ("pointwize.cu", "elementwise/pointwise.cu"),
            ("sm90/pipeline.cuh", "convolution/sm90/pipeline.cuh"),
            ("rows_scores.cu", "rows/scores.cu"),
            ("convolution_sm90.cu", "convolution/sm90/halo_reuse.cu"),
            ("convolution_sm80.cu", "convolution/sm80/implicit_gemm.cu"),
            ("loss.cu", "loss/cross_entropy.cu"),
        ] {
            assert_eq!(did_you_mean_path(given), format!(" (did you mean `{meant}`?)"), "{given}");
        }
        assert_eq!(did_you_mean_path("something.txt"), "");
    }
}
