//! `residua weights`: look into weights files, bring them in, hand them out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::common::Common;
use super::output::{in_json, print, print_beside, say, width};
use crate::checkpoint::{self, Imported, StateDict, network};
use crate::error::{Error, Result, printable};
use crate::files;
use crate::nn::{Architecture, Network};
use crate::tensor::DType;
use crate::text_table::{Column, TextTable};

/// The most ignored entries a table lists; JSON has them all.
const MOST_IGNORED: usize = 40;

/// Examples of `--help`.
const EXAMPLES: &str = "\
Examples:
  residua weights inspect runs/first
      Tensors, their statistics, the network they make
  residua weights import resnet50.pth resnet50.safetensors
      Read what PyTorch wrote; nothing in it is executed
  residua weights export runs/first model.pth
      For torch.load";

/// Arguments of `residua weights`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what a weights file holds: tensors with their statistics, the network they make, the training behind them
    Inspect {
        /// A .safetensors, .pth or .th file, a checkpoint folder or a run folder
        file: PathBuf,
        #[command(flatten)]
        key: WeightsKey,
    },
    /// Bring a PyTorch file to safetensors: f32, torchvision's names; nothing in it is executed
    Import {
        /// The file that torch.save wrote (.pth, .pt, .th; zip or legacy), or a .safetensors file
        file: PathBuf,
        /// The .safetensors file to write; - is standard output
        out: PathBuf,
        #[command(flatten)]
        key: WeightsKey,
    },
    /// Write weights for other programs, as .pth (for torch.load) or .safetensors
    Export {
        /// A checkpoint folder, a run folder, or a weights file
        file: PathBuf,
        /// The file to write; its extension chooses the format; - is standard output, as safetensors
        out: PathBuf,
        #[command(flatten)]
        key: WeightsKey,
    },
}

/// The flag of every verb that reads weights files of other programs.
#[derive(Debug, Args)]
pub struct WeightsKey {
    /// Which network of a weights file that holds several: its key, such as state_dict_ema, or the prefix of its names
    #[arg(long, value_name = "KEY")]
    pub weights_key: Option<String>,
}

impl WeightsKey {
    /// The key, if one is given.
    pub fn get(&self) -> Option<&str> {
        self.weights_key.as_deref()
    }
}

/// Runs `residua weights`.
///
/// # Errors
/// An unreadable file, or an output of an unknown kind.
pub fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    match &arguments.action {
        Action::Inspect { file, key } => inspect(file, key.get(), common),
        Action::Import { file, out, key } => {
            if extension(out) != "safetensors" {
                return Err(Error::usage(format!(
                    "weights import writes .safetensors, not {}; for .pth use weights export",
                    out.display()
                )));
            }
            convert(file, out, key.get(), common)
        }
        Action::Export { file, out, key } => convert(file, out, key.get(), common),
    }
}

/// The format a file's name asks for; on standard output it is safetensors.
fn extension(path: &Path) -> String {
    if files::is_standard_output(path) {
        return "safetensors".into();
    }
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The network the tensors make, and whether each of them fits.
fn recognise(imported: &Imported) -> Result<Architecture> {
    if let Some((name, what)) = imported.unreadable.iter().next() {
        return Err(Error::invalid(format!("`{name}` cannot be read: {what}")));
    }
    let architecture = checkpoint::guess_architecture(&imported.state)?;
    let network = Network::new(&architecture, DType::F32, None);
    network::check(&network, &imported.state, &imported.path)?;
    Ok(architecture)
}

fn convert(file: &Path, out: &Path, key: Option<&str>, common: &Common) -> Result<()> {
    let kind = extension(out);
    if !matches!(kind.as_str(), "safetensors" | "pth" | "pt") {
        return Err(Error::usage(format!("{} must end in .safetensors or .pth", out.display())));
    }
    files::check_output_file(out, &[file])?;
    let imported = checkpoint::read_weights(file, key)?;
    let state: StateDict =
        imported.state.iter().map(|(name, tensor)| (name.clone(), tensor.narrowed())).collect();
    let architecture = recognise(&imported);
    if kind == "safetensors" {
        checkpoint::write_safetensors(out, &state, &metadata(&imported, architecture.as_ref().ok()))?;
    } else {
        checkpoint::write_torch(out, &state)?;
    }
    let network = match &architecture {
        Ok(architecture) => architecture.to_string(),
        Err(error) => format!("no network of this program ({error})"),
    };
    if common.json {
        let architecture = architecture.ok();
        let value = json!({
            "out": in_json(out), "tensors": state.len(), "architecture": architecture,
            "selection": imported.selection, "ignored": imported.ignored,
        });
        print_beside(common, Some(out), &format!("{value}\n"))?;
    } else if !common.quiet {
        print_beside(common, Some(out), &format!("{}: {} tensors, {network}\n", out.display(), state.len()))?;
        say(imported.note().as_deref(), common);
        if !imported.ignored.is_empty() {
            let count = imported.ignored.len();
            print_beside(
                common,
                Some(out),
                &format!(
                    "{count} other entries of {} are left behind; weights inspect lists them\n",
                    file.display()
                ),
            )?;
        }
    }
    Ok(())
}

/// Text that goes into a safetensors header: the key that Python tools look for, the architecture, and the epoch where known.
fn metadata(imported: &Imported, architecture: Option<&Architecture>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    if let Some(architecture) = architecture {
        metadata.insert("architecture".into(), json!(architecture).to_string());
    }
    if let Some(epoch) = imported.training.epoch() {
        metadata.insert("epoch".into(), epoch.to_string());
    }
    metadata
}

fn inspect(file: &Path, key: Option<&str>, common: &Common) -> Result<()> {
    let imported = checkpoint::look(file, key)?;
    let architecture = recognise(&imported);
    print(&if common.json { as_json(&imported, architecture)? } else { as_table(&imported, architecture) })
}

fn as_json(imported: &Imported, architecture: Result<Architecture>) -> Result<String> {
    let tensors: Vec<_> = imported
        .state
        .iter()
        .map(|(name, tensor)| {
            let summary = checkpoint::summarise(tensor);
            json!({
                "name": name, "shape": tensor.shape, "dtype": imported.stored_types[name].name(),
                "min": summary.minimum, "mean": summary.mean, "max": summary.maximum, "nan": summary.nan_count,
            })
        })
        .collect();
    let value = json!({
        "file": in_json(&imported.path),
        "format": imported.format.name(),
        "blake3": checkpoint::hash(&imported.path)?,
        "architecture": architecture.as_ref().ok(),
        "problem": architecture.as_ref().err().map(ToString::to_string),
        "selection": imported.selection,
        "unreadable": imported.unreadable,
        "ignored": imported.ignored,
        "training": imported.training,
        "tensors": tensors,
    });
    Ok(format!("{value:#}\n"))
}

fn as_table(imported: &Imported, architecture: Result<Architecture>) -> String {
    let columns = [
        Column::text("name"),
        Column::number("shape"),
        Column::text("dtype"),
        Column::number("min"),
        Column::number("mean"),
        Column::number("max"),
        Column::number("NaN"),
    ];
    let mut table = TextTable::new(columns);
    for (name, tensor) in &imported.state {
        let summary = checkpoint::summarise(tensor);
        let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4e}"));
        table.row([
            name.clone(),
            shape_text(&tensor.shape),
            imported.stored_types[name].name().to_string(),
            number(summary.minimum),
            number(summary.mean),
            number(summary.maximum),
            summary.nan_count.to_string(),
        ]);
    }
    let mut out = table.render(width());
    let elements: usize = imported.state.values().map(checkpoint::HostTensor::len).sum();
    out += &format!("\n{}: {}\n", printable(&imported.path.display().to_string()), imported.format.name());
    out += &format!("{} tensors, {elements} elements\n", imported.state.len());
    out += &match architecture {
        Ok(architecture) => format!("architecture: {architecture}; every tensor fits\n"),
        Err(error) => format!("architecture: unknown. {error}\n"),
    };
    for note in [imported.of_run.clone(), imported.selection.note()].into_iter().flatten() {
        out += &format!("{}\n", printable(&note));
    }
    for (name, what) in &imported.unreadable {
        out += &format!("cannot be read: {}: {}\n", printable(name), printable(what));
    }
    for (name, number) in &imported.training.numbers {
        out += &format!("{}: {number}\n", printable(name));
    }
    for (name, text) in &imported.training.texts {
        out += &format!("{}: {}\n", printable(name), printable(text));
    }
    for (name, series) in &imported.training.series {
        if let (Some(first), Some(last)) = (series.first(), series.last()) {
            out += &format!("{}: {} values, from {first} to {last}\n", printable(name), series.len());
        }
    }
    for entry in imported.ignored.iter().take(MOST_IGNORED) {
        out += &format!("ignored: {}: {}\n", printable(&entry.name), printable(&entry.what));
    }
    if imported.ignored.len() > MOST_IGNORED {
        out += &format!("ignored: {} more entries\n", imported.ignored.len() - MOST_IGNORED);
    }
    out
}

fn shape_text(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "scalar".into();
    }
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}
