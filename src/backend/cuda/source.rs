//! The kernels' source text: embedded in the binary or taken from a folder, put together into one text for a compiler.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::edited::EditedSources;
use crate::error::{Error, Result};
use crate::values::did_you_mean;

/// Lists files of `kernels/` with their text.
macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// Every kernel file, by name.
        pub const EMBEDDED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../kernels/", $name)))),*];
    };
}

embedded![
    "ptx.cuh",
    "emulated.cuh",
    "ptx_sm90.cuh",
    "emulated_sm90.cuh",
    "shared_tile.cuh",
    "product_bf16_sm80.cuh",
    "product_f32.cuh",
    "divider.cuh",
    "convolution.cuh",
    "convolution_sm80.cu",
    "convolution_sm90.cuh",
    "convolution_epilogue_sm90.cuh",
    "convolution_partials_sm90.cuh",
    "convolution_finish_sm90.cuh",
    "convolution_prologue_sm90.cuh",
    "ring_sm90.cuh",
    "cluster_sm90.cuh",
    "convolution_sm90.cu",
    "convolution_rows_sm90.cu",
    "convolution_stream_sm90.cu",
    "convolution_sum.cu",
    "packs.cuh",
    "reduce.cuh",
    "average.cuh",
    "batch_norm_merge.cu",
    "tiles.cuh",
    "softmax.cuh",
    "batch_norm.cu",
    "cosine.cu",
    "divergence.cu",
    "energy.cu",
    "groups.cu",
    "images.cu",
    "linear.cu",
    "loss.cu",
    "optimizer.cu",
    "pointwise.cu",
    "pooling.cu",
    "pool_head.cu",
    "rows_scores.cu",
    "rows_products.cu",
    "rows_moments.cu",
];

/// The text inside the binary of a file of that name.
pub(super) fn embedded(file: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(name, _)| *name == file).map(|&(_, text)| text)
}

/// The names of all files inside the binary.
pub(super) fn known() -> Vec<&'static str> {
    EMBEDDED.iter().map(|&(name, _)| name).collect()
}

/// The file that a line includes in quotes.
pub(super) fn included(line: &str) -> Option<&str> {
    line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'))
}

/// A kernel file specialised by constants: what is compiled at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The file in `kernels/`.
    pub file: &'static str,
    /// Preprocessor constants that specialise it.
    pub constants: &'static [(&'static str, i64)],
}

/// The complete text of one variant, for whichever compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// For people: `convolution.cu TILE=128 BF16=1`.
    pub name: String,
    /// Constants, headers and the file, with `#line` directives that point at the originals.
    pub text: String,
}

impl Source {
    /// Whether its kernels wait by themselves for those launched before, so that their launches may overlap. All of ours do; a folder
    /// of edited sources may hold a `ptx.cuh` of before that was so, or a kernel that does not begin with `KERNEL`.
    pub fn awaits_earlier_kernels(&self) -> bool {
        // The word stands in KERNEL, and where the emulator defines it away.
        let entries = self.text.matches("__global__").count();
        self.text.contains("griddepcontrol.wait") && entries <= 2
    }
}

/// Where kernel sources come from: the binary, and a folder of edited ones where a user names one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    edited: Option<Arc<EditedSources>>,
}

impl Sources {
    /// The files of `folder` where it has them, those inside the binary otherwise.
    ///
    /// # Errors
    /// As [`EditedSources::read`].
    pub fn of_folder(folder: &Path) -> Result<Sources> {
        Ok(Sources { edited: Some(Arc::new(EditedSources::read(folder)?)) })
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
        self.include(variant.file, &mut text, &mut Vec::new())?;
        Ok(Source { name, text })
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
            let names = known();
            Error::invalid(format!(
                "no kernel file is called `{file}`{}; there are {}",
                did_you_mean(file, names.iter().copied()),
                names.join(", ")
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sources_whose_words_hold_the_wait_are_said_to_wait() {
        let variant = Variant { file: "optimizer.cu", constants: &[("BF16", 0)] };
        assert!(Sources::default().assemble(&variant).unwrap().awaits_earlier_kernels());
        let folder = tempfile::tempdir().unwrap();
        let awaits = || {
            Sources::of_folder(folder.path()).unwrap().assemble(&variant).unwrap().awaits_earlier_kernels()
        };
        let words = EMBEDDED.iter().find(|(name, _)| *name == "ptx.cuh").unwrap().1;
        let older: Vec<&str> = words.lines().filter(|line| !line.contains("griddepcontrol")).collect();
        std::fs::write(folder.path().join("ptx.cuh"), older.join("\n")).unwrap();
        assert!(!awaits());
        // A kernel that was not begun as all others are.
        let plain = "#include \"ptx.cuh\"\nextern \"C\" __global__ void plain(const int p) {}\n";
        std::fs::write(folder.path().join("ptx.cuh"), words).unwrap();
        std::fs::write(folder.path().join("optimizer.cu"), plain).unwrap();
        assert!(!awaits());
    }
}
