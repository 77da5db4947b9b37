//! Residua's checkpoint folders: `model.safetensors`, `state.safetensors`, `meta.json`, written whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HeadClasses, StateDict, write_safetensors};
use crate::data::Taxonomy;
use crate::error::{Error, Position, Result};
use crate::files;

/// The layout of checkpoint folders this program writes; it reads this one and none newer.
pub const FORMAT_VERSION: u32 = 1;

/// Parameters and running statistics: f32, torchvision's names and layout.
pub const MODEL_FILE: &str = "model.safetensors";
/// The optimizer's tensors: with the parameters, all that a resume needs.
pub const STATE_FILE: &str = "state.safetensors";
/// Everything that is no tensor: [`Meta`].
pub const META_FILE: &str = "meta.json";

/// The most bytes a `meta.json` may have.
const LONGEST_META: u64 = 16 << 20;

/// Everything about a checkpoint that is no tensor. The program's own descriptions (`architecture`, `transform`,
/// `optimizer`, `schedule`) are JSON here, so that this module need not know what they say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the folder's layout; [`save`] fills it in.
    pub format: u32,
    /// Program and version that wrote it; [`save`] fills it in.
    pub program: String,
    /// The network, without its weights.
    pub architecture: Value,
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Meaning of each head's logits, in the order of the network's heads.
    #[serde(default)]
    pub heads: Vec<HeadClasses>,
    /// Both levels of the training data's classes, where it has two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<Taxonomy>,
    /// The transform from image to network input; out-of-distribution data gets the same.
    pub transform: Value,
    /// Finished epochs.
    pub epoch: u64,
    /// Finished steps.
    pub step: u64,
    /// Seed of every random number of the run.
    pub seed: u64,
    /// Losses (nats) and accuracies (fractions) at this point.
    pub metrics: BTreeMap<String, f64>,
    /// The optimizer and its settings.
    pub optimizer: Value,
    /// The learning-rate schedule and its settings.
    pub schedule: Value,
    /// BLAKE3 hash of `model.safetensors`, in hexadecimal; [`save`] fills it in.
    pub model_hash: String,
    /// BLAKE3 hash of `state.safetensors`, in hexadecimal; [`save`] fills it in.
    pub state_hash: String,
    /// Hash of the table of tuned kernels the run used, if it used one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_table_hash: Option<String>,
    /// The kernels that were left out on the run's device, in the words of `--exclude`, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_kernels: Option<String>,
    /// Everything else a resume needs.
    #[serde(default)]
    pub extra: Value,
}

/// A checkpoint in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// Parameters and running statistics.
    pub model: StateDict,
    /// The optimizer's tensors.
    pub state: StateDict,
    /// Everything else.
    pub meta: Meta,
}

/// Writes a checkpoint folder: filled under a temporary name beside it, synced, renamed. A folder of that name is
/// replaced. The same checkpoint gives the same bytes. Returns the meta data as written, hashes included.
///
/// # Errors
/// A failing disk, or a metric that is not finite (JSON has no NaN); what was there before is then still there.
pub fn save(folder: &Path, checkpoint: &Checkpoint) -> Result<Meta> {
    if let Some((name, value)) = checkpoint.meta.metrics.iter().find(|(_, value)| !value.is_finite()) {
        return Err(Error::invalid(format!(
            "the metric `{name}` is {value}; a checkpoint of a diverged network is not kept"
        )));
    }
    let folder = &files::check_output_folder(folder)?;
    let parent = files::parent(folder);
    let mut temporary = files::temporary_folder_beside(folder)?;
    let inside = temporary.path().join("new");
    write_safetensors(&inside.join(MODEL_FILE), &checkpoint.model, &BTreeMap::new())?;
    write_safetensors(&inside.join(STATE_FILE), &checkpoint.state, &BTreeMap::new())?;
    let mut meta = checkpoint.meta.clone();
    meta.format = FORMAT_VERSION;
    meta.program = format!("residua {}", env!("CARGO_PKG_VERSION"));
    meta.model_hash = hash_file(&inside.join(MODEL_FILE))?;
    meta.state_hash = hash_file(&inside.join(STATE_FILE))?;
    let json = serde_json::to_string_pretty(&meta)
        .map_err(|e| Error::invalid(format!("cannot describe the checkpoint as JSON: {e}")))?;
    files::write_atomically(&inside.join(META_FILE), |writer| writeln!(writer, "{json}"))?;
    sync_folder(&inside)?;
    temporary.spare();
    replace_folder(&inside, folder, &temporary.path().join("old"))?;
    sync_folder(parent)?;
    Ok(meta)
}

/// Renames `new` to `folder`; an existing `folder` moves to `aside` first, and back if the renaming fails.
fn replace_folder(new: &Path, folder: &Path, aside: &Path) -> Result<()> {
    let existed = fs::symlink_metadata(folder).is_ok();
    if existed {
        fs::rename(folder, aside).map_err(|e| Error::io("move aside", folder, e))?;
    }
    fs::rename(new, folder).map_err(|e| {
        if existed {
            let _ = fs::rename(aside, folder);
        }
        Error::io("rename into place", folder, e)
    })
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder).and_then(|opened| opened.sync_all()).map_err(|e| Error::io("sync", folder, e))?;
    let _ = folder;
    Ok(())
}

/// The checkpoint folder a path means: itself, what a link points to, or of a run folder the best one, or where none was validated the
/// last.
///
/// # Errors
/// No checkpoint is there; says where one was looked for.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let within = |folder: PathBuf| ["best", "last"].map(|name| folder.join(name));
    let candidates = [path.to_path_buf()].into_iter().chain(within(path.to_path_buf()));
    let mut candidates = candidates.chain(within(path.join("checkpoints")));
    if let Some(found) = candidates.find(|candidate| candidate.join(META_FILE).is_file()) {
        return Ok(found);
    }
    let found = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => "a folder without them",
        Ok(_) => "a file",
        Err(_) => "nothing of that name",
    };
    Err(Error::malformed(
        path,
        Position::File,
        format!(
            "a checkpoint folder (with {META_FILE}) or a run folder (with checkpoints/best or checkpoints/last)"
        ),
        found,
    ))
}

/// Says for people which checkpoint of a run folder is meant; nothing where the path names it.
pub fn note(path: &Path, resolved: &Path) -> Option<String> {
    let name = resolved.strip_prefix(path).ok().filter(|name| !name.as_os_str().is_empty())?;
    let which = if name.ends_with("best") {
        "its best checkpoint is taken"
    } else {
        "its last checkpoint is taken, as none was validated"
    };
    let target = fs::read_link(resolved).ok();
    let target = target.map_or_else(String::new, |target| format!(" ({})", target.display()));
    Some(format!("{}: {which}: {}{target}", path.display(), name.display()))
}

/// Reads a checkpoint: from its folder, a link to it, or a run folder (then its best one, or else its last).
///
/// # Errors
/// A missing, damaged or newer checkpoint; tensors that are not those the meta data was written with.
pub fn load(path: &Path) -> Result<Checkpoint> {
    let folder = resolve(path)?;
    let meta = read_meta(&folder)?;
    let model = read_verified(&folder.join(MODEL_FILE), &meta.model_hash)?;
    let state = read_verified(&folder.join(STATE_FILE), &meta.state_hash)?;
    Ok(Checkpoint { model, state, meta })
}

/// Reads the meta data of a checkpoint only; paths as for [`load`].
///
/// # Errors
/// As [`load`].
pub fn read_meta(path: &Path) -> Result<Meta> {
    let file = resolve(path)?.join(META_FILE);
    let text = files::read_text(&file, LONGEST_META)?;
    let malformed = |expected: &str, found: String| Error::malformed(&file, Position::File, expected, found);
    let value: Value = serde_json::from_str(&text).map_err(|e| malformed("JSON", e.to_string()))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(version) if version <= u64::from(FORMAT_VERSION) => {}
        Some(version) => {
            let found = format!("version {version}; it was written by a newer residua, use that one");
            return Err(malformed(&format!("a checkpoint of version {FORMAT_VERSION} or older"), found));
        }
        None => return Err(malformed("the meta data of a checkpoint", "no `format` in it".into())),
    }
    serde_json::from_value(value).map_err(|e| malformed("the meta data of a checkpoint", e.to_string()))
}

/// Reads a tensor file whose hash is known. Names are as written; these are our own files.
fn read_verified(path: &Path, expected: &str) -> Result<StateDict> {
    let found = hash_file(path)?;
    if found != expected {
        let expected = format!("the file {META_FILE} was written with (BLAKE3 {expected})");
        let found = format!("{found}; it was damaged or changed since");
        return Err(Error::malformed(path, Position::File, expected, found));
    }
    super::safetensors_file::read_state(path)
}

/// BLAKE3 hash of a checkpoint's `model.safetensors` (paths as for [`load`]) or of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read, or there is no checkpoint.
pub fn hash(path: &Path) -> Result<String> {
    if path.is_file() { hash_file(path) } else { hash_file(&resolve(path)?.join(MODEL_FILE)) }
}

fn hash_file(path: &Path) -> Result<String> {
    Ok(blake3::hash(&files::map(path)?).to_hex().to_string())
}

/// Makes `link` a relative link to `target`, which lies in the same folder or below it; an older link is replaced
/// in one step, so that it always points to something whole.
///
/// # Errors
/// The target is elsewhere, something that is no link has the name, or the file system has no links.
pub fn point(link: &Path, target: &Path) -> Result<()> {
    let parent = link.parent().unwrap_or(Path::new(""));
    let relative = target.strip_prefix(parent).map_err(|_| {
        Error::invalid(format!("{} must lie in the folder of the link {}", target.display(), link.display()))
    })?;
    if fs::symlink_metadata(link).is_ok_and(|metadata| !metadata.is_symlink()) {
        return Err(Error::invalid(format!("{} is not a link; move it away", link.display())));
    }
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let temporary = tempfile::Builder::new()
        .prefix(".residua-")
        .suffix(".tmp")
        .make_in(folder, |path| link_folder(relative, path))
        .map_err(|e| Error::io("create a link in", folder, e))?;
    temporary.persist(link).map_err(|e| Error::io("rename into place", link, e.error))?;
    sync_folder(folder)
}

#[cfg(unix)]
fn link_folder(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn link_folder(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

/// Where a path's weights are: the file itself, or the `model.safetensors` of a checkpoint.
pub(super) fn weights_file(path: &Path) -> Result<PathBuf> {
    if path.is_dir() { Ok(resolve(path)?.join(MODEL_FILE)) } else { Ok(path.to_path_buf()) }
}
