//! The house keeps its shape: a module uses only modules below its own layer.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the ground up; modules of one layer may use each other.
const LAYERS: [&[&str]; 11] = [
    &[
        "archive",
        "error",
        "files",
        "instructions",
        "rng",
        "tensor",
        "linalg",
        "pickle",
        "text_table",
        "threads",
        "values",
    ],
    &["ops"],
    &["backend"],
    &["plan"],
    &["autograd"],
    &["nn"],
    &["data", "checkpoint"],
    &["features", "ood", "novelty", "collapse", "eval", "samples", "train", "report", "monitor"],
    &["compare"],
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
        // Uses in tests are no arrows of the house.
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

/// The sources of the program, as paths from `src/` with their text; what tests use is no part of it.
fn program() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let text = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let own = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_string();
        (file.strip_prefix(&root).unwrap().to_path_buf(), own)
    };
    files.into_iter().map(text).collect()
}

#[test]
fn nothing_is_printed_by_a_macro_that_panics_when_its_stream_is_closed() {
    for (file, text) in program() {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let macros = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
            // `print!` is the end of `eprint!`, and of nothing else.
            let found = macros.iter().find(|name| code.contains(*name));
            assert!(
                found.is_none(),
                "{}:{}: use cli::output, not {}",
                file.display(),
                number + 1,
                found.unwrap()
            );
        }
    }
}

#[test]
fn every_name_a_user_may_choose_comes_from_one_list() {
    let mut lists = 0;
    for (file, text) in program() {
        lists += text.matches("named! {").count();
        let is_the_list_itself = file.starts_with("values");
        assert!(
            is_the_list_itself || !text.contains("ValueEnum") && !text.contains("value_enum"),
            "{}: names for the command line are declared by `named!`, which recipes and messages share",
            file.display()
        );
    }
    assert!(lists >= 17, "only {lists} lists found; is this test still reading the sources?");
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

#[test]
fn every_path_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // ARCHITECTURE.md shortens paths, and says so.
    let starts = ["", "src", "src/backend", "src/backend/cuda", "kernels", "kernels/convolution", "tests/it"];
    let is_path = |word: &&str| {
        let ends = [".rs", ".cu", ".cuh", ".md", ".html", ".css", ".js", ".py", ".sh", "/"];
        word.contains('/')
            && ends.iter().any(|end| word.ends_with(end))
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._".contains(c))
            // Those of a reader's own.
            && !["NAME", "smXX", "mine/", "DIR", "OUT"].iter().any(|name| word.contains(name))
            && !["runs/", "data/"].iter().any(|folder| word.starts_with(folder) && word.ends_with('/'))
    };
    let (mut checked, mut missing) = (0, Vec::new());
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md", "kernels/README.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for path in text.split('`').skip(1).step_by(2).filter(is_path) {
            checked += 1;
            if !starts.iter().any(|start| root.join(start).join(path).exists()) {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
    assert!(checked > 100, "only {checked} paths found");
}
