//! The house keeps its shape: a module uses only modules below its own layer.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the ground up; modules of one layer may use each other.
const LAYERS: [&[&str]; 10] = [
    &["archive", "error", "files", "rng", "tensor", "linalg", "pickle"],
    &["ops"],
    &["backend"],
    &["plan"],
    &["autograd"],
    &["nn"],
    &["data", "checkpoint"],
    &["features", "ood", "novelty", "collapse", "train", "report"],
    &["recipe", "bench"],
    &["cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn arrows_point_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut checked = 0;
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let own = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        // What tests use is no arrow of the house.
        let is_test = relative.file_stem().unwrap().to_str().unwrap().ends_with("tests");
        if matches!(own, "lib" | "main") || is_test {
            continue;
        }
        let own_layer = layer(own).unwrap_or_else(|| panic!("{own} has no layer; give it one in this test"));
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for used in line.split("crate::").skip(1) {
                let module: String =
                    used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if let Some(used_layer) = layer(&module) {
                    checked += 1;
                    let place = format!("{}:{}", relative.display(), number + 1);
                    assert!(used_layer <= own_layer, "{place}: `{own}` uses `{module}`, which lies above it");
                }
            }
        }
    }
    assert!(checked > 300, "only {checked} uses found; is this test still reading the sources?");
}

#[test]
fn no_file_grows_beyond_one_idea() {
    const MOST_LINES: usize = 600;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines: it probably holds two ideas", file.display());
    }
}
