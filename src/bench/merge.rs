//! One document from the parts that `benches/gpu.sh` leaves in a folder: checks, our rows, PyTorch's, a training.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::results::{Results, Row, Summary};
use crate::error::{Error, Result};
use crate::files;

/// Larger files are no results of ours.
const MOST_BYTES: u64 = 64 << 20;

/// Everything that was measured on one machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Merged {
    /// The card.
    pub card: String,
    /// Versions of driver and compiler.
    pub driver: String,
    /// Version and commit of this program.
    pub program: String,
    /// Its commit alone.
    pub commit: String,
    /// When the last of our rows was measured, in UTC.
    pub date: String,
    /// PyTorch's machine and versions.
    pub pytorch: Option<Value>,
    /// Our rows.
    pub rows: Vec<Row>,
    /// Rows the time did not suffice for.
    pub cut: Vec<String>,
    /// Whole steps: ours, PyTorch's, and their ratio.
    pub summary: BTreeMap<String, Summary>,
    /// From nothing to the first step, with an empty cache of compiled kernels and with a full one.
    pub first_step_seconds: BTreeMap<String, f64>,
    /// The checks, as `doctor --full --json` printed them.
    pub checks: Vec<Value>,
    /// A training, as `train --json` printed it.
    pub training: Vec<Value>,
}

/// The output of `benches/peers/train_step_gpu.py` and `extract_gpu.py`.
#[derive(Debug, Deserialize)]
struct Peer {
    results: Vec<PeerRow>,
    #[serde(flatten)]
    machine: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct PeerRow {
    name: String,
    mode: String,
    images_per_second: Option<f64>,
}

/// Merges the JSON files of a folder by their names: `ours*`, `first-step-*`, `peer*`, `check*`, `train*`; and `cut.txt`, a line for
/// each file that there was no time for.
///
/// # Errors
/// No such folder, none of our rows in it, or a file that is not what its name says.
pub fn merge(folder: &Path) -> Result<Merged> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(|error| Error::io("read the folder", folder, error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    let beginning = |prefix: &'static str| names.iter().filter(move |name| name.starts_with(prefix));
    let ours: Vec<Results> =
        beginning("ours").map(|name| Results::read(&folder.join(name))).collect::<Result<_>>()?;
    let Some(last) = ours.iter().max_by(|a, b| a.date.cmp(&b.date)) else {
        return Err(Error::invalid(format!(
            "{} holds no ours*.json; `residua bench --out {0}/ours.json` writes one",
            folder.display()
        )));
    };
    let mut merged = Merged {
        card: last.card.clone(),
        driver: last.driver.clone(),
        program: last.program.clone(),
        commit: last.commit.clone(),
        date: last.date.clone(),
        pytorch: None,
        rows: Vec::new(),
        cut: Vec::new(),
        summary: BTreeMap::new(),
        first_step_seconds: BTreeMap::new(),
        checks: json_files(folder, beginning("check"))?,
        training: json_files(folder, beginning("train"))?,
    };
    for results in &ours {
        if results.card != merged.card {
            return Err(Error::invalid(format!(
                "{} holds rows of `{}` and of `{}`; merge one machine at a time",
                folder.display(),
                results.card,
                merged.card
            )));
        }
        for row in &results.rows {
            // Networks share shapes.
            if merged.rows.iter().all(|known| known.name != row.name) {
                merged.rows.push(row.clone());
            }
        }
        merged.summary.extend(results.summary.clone());
        merged.cut.extend(results.cut.clone());
    }
    let unbegun = folder.join("cut.txt");
    if unbegun.exists() {
        merged.cut.extend(files::read_text(&unbegun, MOST_BYTES)?.lines().map(str::to_string));
    }
    for name in beginning("first-step-") {
        let when = name.trim_start_matches("first-step-").trim_end_matches(".json");
        let results = Results::read(&folder.join(name))?;
        for row in &results.rows {
            if let Some(seconds) = row.first_step_seconds {
                merged.first_step_seconds.insert(format!("{when}.{}", row.name), seconds);
            }
        }
    }
    for name in beginning("peer") {
        let path = folder.join(name);
        let expected = "the JSON that train_step_gpu.py and extract_gpu.py write";
        let peer: Peer = files::read_json(&path, MOST_BYTES, expected)?;
        peer.results.iter().for_each(|row| merged.add_peer(row));
        merged.pytorch = Some(Value::Object(peer.machine));
    }
    Ok(merged)
}

impl Merged {
    /// The fastest way of the peer counts.
    fn add_peer(&mut self, row: &PeerRow) {
        let Some(theirs) = row.images_per_second else { return };
        let summary = self.summary.entry(row.name.clone()).or_default();
        if summary.pytorch_images_per_second.is_some_and(|known| known >= theirs) {
            return;
        }
        summary.pytorch_images_per_second = Some(theirs);
        summary.pytorch_mode = Some(row.mode.clone());
        summary.ratio = summary.images_per_second.map(|ours| ours / theirs);
    }

    /// Writes the document as a whole, or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }
}

fn json_files<'a>(folder: &Path, names: impl Iterator<Item = &'a String>) -> Result<Vec<Value>> {
    names.map(|name| files::read_json(&folder.join(name), MOST_BYTES, "JSON")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::Kind;
    use super::*;
    use crate::ops::{Hardware, HardwareKind};
    use crate::tensor::DType;

    #[test]
    fn the_summary_holds_the_fastest_way_of_the_peer_and_the_ratio() {
        let folder = tempfile::tempdir().unwrap();
        assert!(merge(folder.path()).unwrap_err().to_string().contains("ours"));
        let hardware = Hardware { kind: HardwareKind::Gpu, name: "card".into(), versions: "1".into() };
        let mut results = Results::new(&hardware, None, None);
        let mut row = Row::new("train.x.b1.bf16".into(), Kind::Step, DType::Bf16);
        row.images_per_second = Some(300.0);
        row.first_step_seconds = Some(0.5);
        results.push(row);
        let mut row = Row::new("extract.x.b1.bf16".into(), Kind::Step, DType::Bf16);
        row.images_per_second = Some(500.0);
        results.push(row);
        results.write(&folder.path().join("ours-bf16.json")).unwrap();
        results.write(&folder.path().join("ours-of-another-network.json")).unwrap();
        fs::write(folder.path().join("cut.txt"), "ours-late\n").unwrap();
        results.write(&folder.path().join("first-step-cold.json")).unwrap();
        let peer = r#"{"torch": "2", "results": [
            {"name": "train.x.b1.bf16", "mode": "graph", "images_per_second": 100.0},
            {"name": "train.x.b1.bf16", "mode": "max-autotune", "images_per_second": 200.0},
            {"name": "train.x.b1.bf16", "mode": "eager", "error": "out of memory"},
            {"name": "train.y.b1.bf16", "mode": "graph", "images_per_second": 7.0}]}"#;
        fs::write(folder.path().join("peer.json"), peer).unwrap();
        let extraction = r#"{"torch": "2", "results": [
            {"name": "extract.x.b1.bf16", "mode": "max-autotune", "images_per_second": 250.0}]}"#;
        fs::write(folder.path().join("peer-extract.json"), extraction).unwrap();
        let merged = merge(folder.path()).unwrap();
        let both = &merged.summary["train.x.b1.bf16"];
        assert_eq!((both.ratio, both.pytorch_mode.as_deref()), (Some(1.5), Some("max-autotune")));
        assert_eq!(merged.summary["train.y.b1.bf16"].ratio, None);
        assert_eq!(merged.summary["extract.x.b1.bf16"].ratio, Some(2.0));
        assert_eq!(merged.first_step_seconds["cold.train.x.b1.bf16"], 0.5);
        assert_eq!((merged.rows.len(), merged.cut), (2, vec!["ours-late".to_string()]));
        assert_eq!(merged.pytorch.unwrap()["torch"], "2");
    }
}
