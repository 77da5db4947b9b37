//! A folder of kernels that were compiled elsewhere (`residua kernels build`): read, never written, and trusted only if nobody else can
//! have written it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::nvrtc::{Version, key};
use crate::backend::cuda::driver::cache::{Cache, Cached};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Position, Result};
use crate::files;

/// The file that says what a folder holds.
const MANIFEST: &str = "kernels.json";
/// The layout of the folder that this program writes, and the only one there has been.
const FORMAT: u32 = 1;
const LONGEST: u64 = 1 << 16;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The version of NVRTC that compiled all of it.
    nvrtc: String,
    /// What it was compiled for.
    architectures: Vec<String>,
    /// The program that did.
    program: String,
}

impl Manifest {
    /// Refuses a folder that holds kernels of another NVRTC; what it holds, if it is one.
    ///
    /// # Errors
    /// As said, or the disk's.
    pub fn check(folder: &Path, nvrtc: Version) -> Result<Option<Manifest>> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let manifest = Manifest::read(&path)?;
        if manifest.nvrtc == nvrtc.to_string() {
            return Ok(Some(manifest));
        }
        Err(Error::usage(format!(
            "{} holds kernels compiled by NVRTC {}, and this is {nvrtc}; choose another folder",
            folder.display(),
            manifest.nvrtc
        )))
    }

    /// Adds an architecture to what a folder says it holds.
    ///
    /// # Errors
    /// As [`Manifest::check`].
    pub fn add(folder: &Path, nvrtc: Version, architecture: &str) -> Result<()> {
        let mut architectures =
            Manifest::check(folder, nvrtc)?.map_or_else(Vec::new, |there| there.architectures);
        if !architectures.iter().any(|known| known == architecture) {
            architectures.push(architecture.to_string());
        }
        let (nvrtc, program) = (nvrtc.to_string(), env!("RESIDUA_VERSION").to_string());
        let manifest = Manifest { format: FORMAT, nvrtc, architectures, program };
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain values");
        files::write(&folder.join(MANIFEST), format!("{text}\n"))
    }

    fn read(path: &Path) -> Result<Manifest> {
        let text = files::read_text(path, LONGEST)?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|error| {
            let at = Position::Line(error.line() as u64);
            Error::malformed(path, at, "what `residua kernels build` writes", error.to_string())
        })?;
        if manifest.format == FORMAT {
            return Ok(manifest);
        }
        let found = format!("format {}; build it again with this program", manifest.format);
        Err(Error::malformed(path, Position::File, format!("format {FORMAT}"), found))
    }
}

/// Such a folder, for one architecture.
#[derive(Debug)]
pub struct Precompiled {
    cache: Cache,
    folder: PathBuf,
    version: String,
    architecture: String,
}

impl Precompiled {
    /// Opens a folder for an architecture and a driver that loads code of `newest` at most.
    ///
    /// # Errors
    /// Somebody else could have written it, it holds nothing for this architecture, or only code that is too new.
    pub fn open(folder: &Path, architecture: &str, newest: Version) -> Result<Precompiled> {
        let cache = Cache::read_only(folder)?;
        let manifest = Manifest::read(&folder.join(MANIFEST))?;
        let refuse = |what: String| Err(Error::usage(format!("--kernel-cache {}: {what}", folder.display())));
        if !manifest.architectures.iter().any(|known| known == architecture) {
            return refuse(format!(
                "it holds kernels for {}, and this GPU needs {architecture}; add them with `residua kernels build --arch \
                 {architecture}`",
                manifest.architectures.join(", ")
            ));
        }
        match manifest.nvrtc.parse::<Version>() {
            Ok(version) if version <= newest => {}
            _ => {
                return refuse(format!(
                    "its kernels were compiled by NVRTC {}, and the driver loads code of CUDA {newest} at most",
                    manifest.nvrtc
                ));
            }
        }
        let (folder, architecture) = (folder.to_path_buf(), architecture.to_string());
        Ok(Precompiled { cache, folder, version: manifest.nvrtc, architecture })
    }

    /// The machine code of a source, if it is there and whole.
    pub fn find(&self, source: &Source) -> Option<Cached> {
        let options = super::nvrtc::options(&self.architecture).join(" ");
        let version = format!("nvrtc {}", self.version);
        self.cache.find(&key(source, &options, &version), "cubin")
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The version of NVRTC that compiled it.
    pub fn version(&self) -> &str {
        &self.version
    }
}
