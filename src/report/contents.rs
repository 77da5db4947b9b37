//! The files of a run folder, as links from its page.

use std::fs;
use std::path::Path;

use minijinja::{Value, context};

use super::whole;
use crate::error::Result;
use crate::files;

/// What a run may hold: path, meaning, and whether its size depends on the clock.
const FILES: [(&str, &str, bool); 27] = [
    ("recipe.toml", "every setting, defaults written out", false),
    ("run.json", "device, precision and duration of each session of the training", true),
    ("metrics.jsonl", "the log of the training, a line an evaluation", true),
    ("metrics.csv", "means and standard deviations over seeds", false),
    ("checkpoints/last/model.safetensors", "parameters after the last epoch", false),
    ("checkpoints/last/meta.json", "the network, its classes and its training", false),
    ("checkpoints/best/model.safetensors", "parameters of the best validation", false),
    ("ood/metrics.json", "every OOD metric in full precision", false),
    ("ood/metrics.csv", "the same in the columns of OpenOOD", false),
    ("ood/fit.safetensors", "what the scores fitted on training features", false),
    ("ood/scores", "a score of every sample, by data set", false),
    ("eval", "classification metrics", false),
    ("collapse/collapse.json", "neural-collapse measures of every checkpoint", false),
    ("collapse/collapse.csv", "the same as a table", false),
    ("collapse/cosines.npy", "cosines between class means", false),
    ("collapse.json", "neural-collapse measures of every checkpoint", false),
    ("collapse.csv", "the same as a table", false),
    ("cosines.npy", "cosines between class means", false),
    ("metrics.json", "every OOD metric in full precision", false),
    ("scores", "a score of every sample, by data set", false),
    ("thresholds.toml", "novelty thresholds for `residua predict`", false),
    ("dashboard.json", "every number on novelty in full precision", false),
    ("dashboard.csv", "the same as a table", false),
    ("novelty", "the samples that chose the thresholds", false),
    ("predictions.csv", "answers on the images to predict", false),
    ("splits.csv", "which image is in which part", false),
    ("plots", "the figures of this page and further ones", false),
];

/// Networks whose parameters are linked.
const MOST_NETWORKS: usize = 50;
/// Files of a folder that are links of their own; of more, the folder is one.
const MOST_LISTED: usize = 12;

/// An entry for each file of a run that is there.
///
/// # Errors
/// A folder cannot be listed.
pub(super) fn entries(folder: &Path) -> Result<Vec<Value>> {
    let mut entries = Vec::new();
    for (path, meaning, is_clocked) in FILES {
        let found = folder.join(path);
        if found.is_file() {
            let size = fs::metadata(&found).map_or(0, |metadata| metadata.len());
            entries.push(entry(path, path, size_text(size), meaning, is_clocked));
        } else if found.is_dir() {
            let inside: Vec<_> = files::list(&found)?.into_iter().filter(|path| path.is_file()).collect();
            let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
            let total: u64 = inside.iter().map(|path| size(path)).sum();
            if inside.len() > MOST_LISTED {
                let text = format!("{} files, {}", inside.len(), size_text(total));
                entries.push(entry(&format!("{path}/"), path, text, meaning, is_clocked));
                continue;
            }
            for file in &inside {
                let Some(name) = file.file_name().map(|name| name.to_string_lossy()) else { continue };
                let own = format!("{path}/{name}");
                entries.push(entry(&own, &own, size_text(size(file)), meaning, is_clocked));
            }
        }
    }
    for network in networks(folder)? {
        let path = format!("{network}/checkpoints/last/model.safetensors");
        if let Ok(metadata) = fs::metadata(folder.join(&path)) {
            let meaning = "parameters of one network after its last epoch";
            entries.push(entry(&path, &path, size_text(metadata.len()), meaning, false));
        }
    }
    Ok(entries)
}

/// Folders of the networks of an experiment with several: `models/PART/LEVEL`.
fn networks(folder: &Path) -> Result<Vec<String>> {
    let inside = |path: &str| -> Result<Vec<String>> {
        let own = folder.join(path);
        if !own.is_dir() {
            return Ok(Vec::new());
        }
        let folders = files::list(&own)?.into_iter().filter(|path| path.is_dir());
        let names = folders.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(names.map(|name| format!("{path}/{name}")).take(MOST_NETWORKS).collect())
    };
    let mut networks = Vec::new();
    for part in inside("models")? {
        networks.extend(inside(&part)?);
    }
    networks.truncate(MOST_NETWORKS);
    Ok(networks)
}

fn entry(name: &str, path: &str, size: String, meaning: &str, is_clocked: bool) -> Value {
    // Nothing is left in it that HTML could read as markup.
    let link = Value::from_safe_string(percent_encoded(path));
    context! { name => whole(name), link => link, size => size, meaning => meaning, is_clocked => is_clocked }
}

/// A relative path as a URL: everything but letters, digits, `-_.` and `/` as the bytes of its UTF-8.
fn percent_encoded(path: &str) -> String {
    let mut url = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => url.push(byte as char),
            _ => url += &format!("%{byte:02X}"),
        }
    }
    url
}

/// Bytes in a unit that leaves one to three digits before the point.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut size = bytes as f64 / 1e3;
    let mut unit = 0;
    while size >= 999.95 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1e3, unit + 1);
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_linked_whatever_its_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), "12345").unwrap();
        let scores = folder.path().join("ood/scores");
        fs::create_dir_all(&scores).unwrap();
        fs::write(scores.join("a \"b\"<é>#?.npz"), vec![0; 2500]).unwrap();
        let shown: Vec<String> = entries(folder.path())
            .unwrap()
            .iter()
            .map(|entry| ["link", "size"].map(|key| entry.get_attr(key).unwrap().to_string()).join(" "))
            .collect();
        let expected = ["metrics.jsonl 5 bytes", "ood/scores/a%20%22b%22%3C%C3%A9%3E%23%3F.npz 2.5 kB"];
        assert_eq!(shown, expected);
        for number in 0..20 {
            fs::write(scores.join(format!("{number}.npz")), "x").unwrap();
        }
        let last = entries(folder.path()).unwrap().pop().unwrap();
        assert_eq!(last.get_attr("size").unwrap().to_string(), "21 files, 2.5 kB");
    }

    #[test]
    fn sizes_have_a_unit_that_suits_them() {
        let texts = [0, 999, 1000, 999_949, 999_999, 5_300_000_000].map(size_text);
        assert_eq!(texts, ["0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "1.0 MB", "5.3 GB"]);
    }
}
