//! Where NVRTC may lie: every folder that a toolkit, a distribution or a Python wheel puts it in.
//!
//! Only absolute paths count. A library found by a relative path, an empty entry of a search path or the current
//! directory would let whoever owns that folder run code here.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names one library, or the folder it lies in; nothing else is looked at then.
pub const VARIABLE: &str = "RESIDUA_NVRTC";

/// Reads a variable of the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where the libraries of a Python wheel lie in site-packages: CUDA 13's, and those before.
const WHEELS: [&str; 2] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"];

/// Folders that may hold NVRTC, best first, whether they exist or not.
pub fn folders(environment: Environment<'_>) -> Vec<PathBuf> {
    let variable = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut folders = Vec::new();
    for toolkit in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        folders.extend(["lib64", "lib", "targets/x86_64-linux/lib"].map(|lib| toolkit.join(lib)));
    }
    folders.push("/usr/local/cuda/lib64".into());
    folders.extend(newest_first("/usr/local", "cuda-", "lib64"));
    folders.extend(
        ["/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"].map(PathBuf::from),
    );
    folders.extend(absolute_entries(environment, "LD_LIBRARY_PATH"));
    folders.extend(variable("CONDA_PREFIX").map(|prefix| prefix.join("lib")));
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable);
    for prefix in prefixes.chain(variable("HOME").map(|home| home.join(".local"))) {
        folders.extend(wheels_of(newest_first(prefix.join("lib"), "python3.", "site-packages")));
    }
    folders
}

/// The same for the interpreter that `PATH` names. Apart, because it has to be asked, which takes time.
pub fn folders_of_python(environment: Environment<'_>) -> Vec<PathBuf> {
    let Some(python) =
        absolute_entries(environment, "PATH").map(|folder| folder.join("python3")).find(|p| p.is_file())
    else {
        return Vec::new();
    };
    // -I: neither the current directory nor PYTHONPATH has a say.
    let said = Command::new(python)
        .args(["-I", "-c", "import site; print('\\n'.join(site.getsitepackages()))"])
        .output();
    let Some(said) = said.ok().filter(|said| said.status.success()) else { return Vec::new() };
    let text = String::from_utf8_lossy(&said.stdout);
    wheels_of(text.lines().map(PathBuf::from).filter(|path| path.is_absolute())).collect()
}

/// NVRTC in these folders: each library once, in the order of the folders, newest name first within one.
pub fn libraries(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for folder in folders {
        for path in names_in(folder, "libnvrtc.so") {
            if path.is_file() && seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                found.push(path);
            }
        }
    }
    found
}

/// The builtins that belong to a library: its neighbours.
pub fn builtins(library: &Path) -> Vec<PathBuf> {
    library.parent().map(|folder| names_in(folder, "libnvrtc-builtins.so")).unwrap_or_default()
}

/// Folders out of which the system's loader would take a library of the driver although no absolute path says so.
pub fn relative_traps(environment: Environment<'_>, current: &Path) -> Vec<PathBuf> {
    let path = environment("LD_LIBRARY_PATH").unwrap_or_default();
    if path.is_empty() {
        return Vec::new();
    }
    std::env::split_paths(&path)
        .filter(|entry| !entry.is_absolute())
        .map(|entry| current.join(entry))
        .filter(|folder| ["libcuda", "libnvcuda"].iter().any(|name| !names_in(folder, name).is_empty()))
        .collect()
}

/// The folders of a search path, without the ones relative to the working directory.
fn absolute_entries(environment: Environment<'_>, name: &str) -> impl Iterator<Item = PathBuf> {
    let path = environment(name).unwrap_or_default();
    std::env::split_paths(&path).filter(|entry| entry.is_absolute()).collect::<Vec<_>>().into_iter()
}

/// `folder/PREFIX*/inner`, highest version first.
fn newest_first(folder: impl AsRef<Path>, prefix: &str, inner: &str) -> impl Iterator<Item = PathBuf> {
    names_in(folder.as_ref(), prefix).into_iter().map(move |path| path.join(inner))
}

fn wheels_of(site_packages: impl IntoIterator<Item = PathBuf>) -> impl Iterator<Item = PathBuf> {
    site_packages.into_iter().flat_map(|folder| WHEELS.map(|wheel| folder.join(wheel)))
}

/// Entries of a folder that begin with a prefix, highest version first.
fn names_in(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    paths.sort_by(|a, b| crate::files::compare_naturally(&text(b), &text(a)));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn a_toolkit_comes_before_a_search_path_and_that_before_wheels() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let expected = [
            "toolkit/lib64/libnvrtc.so.13",
            "search/libnvrtc.so.12",
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "venv/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
        ];
        expected.iter().for_each(|path| touch(&root.join(path)));
        // Neither is the library.
        touch(&root.join("search/libnvrtc.alt.so.12"));
        touch(&root.join("search/libnvrtc-builtins.so.12.8"));
        let environment = |name: &str| {
            let value = match name {
                "CUDA_HOME" => root.join("toolkit").into_os_string(),
                "LD_LIBRARY_PATH" => format!(":relative:{}", root.join("search").display()).into(),
                "VIRTUAL_ENV" => root.join("venv").into_os_string(),
                "HOME" => root.join("home").into_os_string(),
                _ => return None,
            };
            Some(value)
        };
        let found: Vec<PathBuf> =
            libraries(&folders(&environment)).into_iter().filter(|path| path.starts_with(root)).collect();
        assert_eq!(found, expected.map(|path| root.join(path)));
        assert_eq!(builtins(&found[1]), [root.join("search/libnvrtc-builtins.so.12.8")]);
    }

    #[test]
    fn nothing_is_looked_for_where_the_process_happens_to_stand() {
        let environment = |name: &str| match name {
            "CUDA_HOME" | "CUDA_PATH" | "VIRTUAL_ENV" | "HOME" | "CONDA_PREFIX" => Some("here".into()),
            "LD_LIBRARY_PATH" | "PATH" => Some(":.:here".into()),
            _ => None,
        };
        assert!(folders(&environment).iter().all(|path| path.is_absolute()));
        assert_eq!(folders_of_python(&environment), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_driver_library_in_a_relative_search_path_is_a_trap() {
        let folder = tempfile::tempdir().unwrap();
        let traps = |path: &'static str| {
            relative_traps(&|name| (name == "LD_LIBRARY_PATH").then(|| path.into()), folder.path())
        };
        assert!(traps(":/usr/lib").is_empty());
        touch(&folder.path().join("libcuda.so.1"));
        assert_eq!(traps(":/usr/lib"), [folder.path().join("")]);
        assert!(traps("/usr/lib").is_empty());
        assert!(traps("").is_empty());
    }

    #[test]
    fn a_library_under_two_names_is_one_library_under_its_newest() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnvrtc.so.9", "libnvrtc.so.13"] {
            touch(&folder.path().join(name));
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("libnvrtc.so.13"), folder.path().join("libnvrtc.so"))
            .unwrap();
        let names: Vec<_> = libraries(&[folder.path().to_path_buf(), folder.path().to_path_buf()])
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_string())
            .collect();
        assert_eq!(names, ["libnvrtc.so.13", "libnvrtc.so.9"]);
    }
}
