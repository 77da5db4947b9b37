//! Puts the commit into `residua --version`, and makes Rust of what launchers share with the sources in `kernels/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use declarations::{Kind, Struct};

#[allow(dead_code)]
#[path = "src/backend/cuda/kernel_files/declarations.rs"]
mod declarations;

fn main() {
    version();
    kernel_files();
    println!("cargo::rerun-if-changed=build.rs");
}

fn version() {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let version = env!("CARGO_PKG_VERSION");
    let text = match git(&["rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => format!("{version} ({commit})"),
        // A source package has no history.
        None => version.to_string(),
    };
    println!("cargo::rustc-env=RESIDUA_VERSION={text}");
    // HEAD changes with the branch, its log with every commit; a file that is not there would make every build run this again.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists());
        if let Some(path) = path {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// Rust text of items and modules, by name.
#[derive(Default)]
struct Module {
    items: BTreeMap<String, String>,
    modules: BTreeMap<String, Module>,
}

impl Module {
    /// The module of a kernel file.
    fn of(&mut self, file: &str) -> &mut Module {
        let path = file.rsplit_once('.').map_or(file, |(path, _)| path);
        path.split('/').fold(self, |module, name| module.modules.entry(name.to_string()).or_default())
    }

    /// A struct, and those in its fields.
    fn add(&mut self, of: &Struct) {
        let mut text = format!(
            "{}#[repr(C)]\n#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]\npub struct {} {{\n",
            documented(&of.doc),
            of.name
        );
        for field in &of.fields {
            let kind = match &field.kind {
                Kind::Plain("TensorMap", ..) => {
                    "crate::backend::cuda::driver::tensor_map::TensorMap".to_string()
                }
                Kind::Plain(name, ..) => (*name).to_string(),
                Kind::Struct(inner) => {
                    self.add(inner);
                    let path = inner.file.rsplit_once('.').map_or("", |(path, _)| path).replace('/', "::");
                    format!("crate::backend::cuda::kernel_files::{path}::{}", inner.name)
                }
            };
            let kind = field.extent.map_or(kind.clone(), |extent| format!("[{kind}; {extent}]"));
            let _ = writeln!(text, "    {}pub {}: {kind},", documented(&field.doc), field.name);
        }
        self.of(&of.file).items.insert(of.name.clone(), text + "}\n");
    }

    fn write(&self, text: &mut String) {
        self.items.values().for_each(|item| text.push_str(item));
        for (name, module) in &self.modules {
            let _ = writeln!(text, "pub mod {name} {{");
            module.write(text);
            text.push_str("}\n");
        }
    }
}

/// The attribute that documents an item; nothing where the kernel's file says nothing.
fn documented(doc: &str) -> String {
    if doc.is_empty() { String::new() } else { format!("#[doc = {doc:?}]\n") }
}

/// Writes the files' texts, and the structs and constants of each.
fn kernel_files() {
    println!("cargo::rerun-if-changed=kernels");
    let mut files = BTreeMap::new();
    read_folder(Path::new("kernels"), &mut files);
    let mut root = Module::default();
    let mut text = String::from(
        "/// Every kernel file, by its path relative to `kernels/`.\npub const EMBEDDED: &[(&str, &str)] = &[\n",
    );
    for file in files.keys() {
        let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/kernels/{file}\")");
        let _ = writeln!(text, "    ({file:?}, include_str!({path})),");
    }
    text.push_str("];\n");
    for file in files.keys().filter(|file| file.ends_with(".cu")) {
        let text_of = |name: &str| files.get(name).map(|text: &String| (name.to_string(), text.clone()));
        let found = declarations::read(file, &text_of).unwrap_or_else(|error| panic!("kernels/{error}"));
        found.kernels.iter().for_each(|kernel| root.add(&kernel.layout));
        for constant in found.constants.iter().filter(|constant| constant.shared) {
            let doc = documented(&constant.doc);
            let item = format!("{doc}pub const {}: usize = {};\n", constant.name, constant.value);
            root.of(&constant.file).items.insert(constant.name.clone(), item);
        }
    }
    root.write(&mut text);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("kernel_files.rs"), text).expect("OUT_DIR can be written");
}

/// The texts of all kernel files, by their paths relative to `kernels/`.
fn read_folder(folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("kernels/ can be read") {
        let path = entry.expect("kernels/ can be read").path();
        if path.is_dir() {
            read_folder(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "cu" || extension == "cuh") {
            let names: Vec<_> = path.iter().skip(1).map(|name| name.to_string_lossy()).collect();
            files.insert(names.join("/"), fs::read_to_string(&path).expect("a kernel file is UTF-8"));
        }
    }
}
