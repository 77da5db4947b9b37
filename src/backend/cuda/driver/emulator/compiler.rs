//! Kernel text to a loaded library, by the host's C++ compiler.

use std::env;
use std::fs;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::Library;

use super::abi::{self, Enter};
use crate::backend::cuda::driver::cache::{Cache, Compiled};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result};

/// Compiler options of every kernel.
///
/// Products and sums may be fused, as NVRTC does by default. A stack frame beyond a quarter of a fiber's stack is an error.
const OPTIONS: &[&str] = &[
    "-O2",
    "-shared",
    "-fPIC",
    "-std=c++17",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-Wframe-larger-than=32768",
    "-Werror=frame-larger-than=32768",
    "-DRESIDUA_EMULATOR",
];

/// The wide instructions that this machine has.
fn machine_options() -> &'static [&'static str] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        return &["-mavx2", "-mfma"];
    }
    &[]
}

fn options() -> Vec<&'static str> {
    OPTIONS.iter().chain(machine_options()).copied().collect()
}

/// A C++ compiler of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compiler {
    command: Vec<String>,
    /// The first line it says about itself.
    pub version: String,
}

impl Compiler {
    /// `CXX`, or the first of `c++`, `g++` and `clang++` that starts.
    pub fn find() -> Result<Compiler> {
        static FOUND: Mutex<Option<(Option<String>, Compiler)>> = Mutex::new(None);
        let wanted = env::var("CXX").ok().filter(|command| !command.trim().is_empty());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((for_wanted, compiler)) = &*found
            && *for_wanted == wanted
        {
            return Ok(compiler.clone());
        }
        let compiler = match &wanted {
            Some(command) => Compiler::named(command)?,
            None => ["c++", "g++", "clang++"]
                .into_iter()
                .find_map(|command| Compiler::named(command).ok())
                .ok_or_else(|| missing("none of c++, g++ and clang++ starts"))?,
        };
        *found = Some((wanted, compiler.clone()));
        Ok(compiler)
    }

    /// The compiler that `command` (with options, if any) starts.
    pub fn named(command: &str) -> Result<Compiler> {
        let command: Vec<String> = command.split_whitespace().map(String::from).collect();
        let program = command.first().ok_or_else(|| missing("an empty command was given"))?;
        let output = Command::new(program)
            .args(&command[1..])
            .arg("--version")
            .output()
            .map_err(|e| missing(&format!("`{program}` does not start ({e})")))?;
        if !output.status.success() {
            return Err(missing(&format!("`{program} --version` failed")));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Compiler { version: text.lines().next().unwrap_or_default().to_string(), command })
    }

    /// Compiles and loads a source, or loads it from the cache.
    pub fn module(&self, source: &Source, cache: &Cache) -> Result<Module> {
        let options = options();
        let (options_key, command) = (options.join(" "), self.command.join(" "));
        let key = self.key(source, &options_key, &command);
        let cached = cache.get(&key, "so", || self.compile(source, &options, cache))?;
        Module::load(&cached.path, &source.name)
    }

    /// Whether a source need not be compiled.
    pub fn is_cached(&self, source: &Source, cache: &Cache) -> bool {
        cache.find(&self.key(source, &options().join(" "), &self.command.join(" ")), "so").is_some()
    }

    /// All that decides the code.
    fn key<'a>(&'a self, source: &'a Source, options: &'a str, command: &'a str) -> [&'a [u8]; 4] {
        [&*source.text, options, command, &*self.version].map(str::as_bytes)
    }

    /// The library made from a source. The text goes through a pipe, so that no name of a file gets into the library.
    fn compile(&self, source: &Source, options: &[&str], cache: &Cache) -> Result<Compiled> {
        let refused = |e| missing(&format!("`{}` does not run ({e})", self.command[0]));
        let library = tempfile::Builder::new()
            .prefix(".residua-")
            .suffix(".so")
            .tempfile_in(cache.folder())
            .map_err(|e| Error::io("create a temporary file in", cache.folder(), e))?
            .into_temp_path();
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .args(options)
            .args(["-x", "c++", "-", "-o"])
            .arg(&library)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(refused)?;
        // A compiler reads all before it says anything. If it ends early instead, its own message is the better one.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(source.text.as_bytes()));
        let output = child.wait_with_output().map_err(refused)?;
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(Error::invalid(format!(
                "{} does not compile with {}:\n{}",
                source.name,
                self.command.join(" "),
                first_messages(&log)
            )));
        }
        let code = fs::read(&library).map_err(|e| Error::io("read", &library, e))?;
        Ok(Compiled { code, log })
    }
}

fn missing(found: &str) -> Error {
    Error::invalid(format!(
        "the emulator compiles kernels with a C++ compiler, and {found}; install one (Debian and Ubuntu: \
         `apt-get install g++`, Fedora: `dnf install gcc-c++`, macOS: `xcode-select --install`), or name yours in CXX"
    ))
}

/// The lines of a compiler's output from the first error on, at most a screenful.
fn first_messages(text: &str) -> String {
    const LINES: usize = 16;
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| line.contains("error")).unwrap_or(0);
    lines[first..].iter().take(LINES).copied().collect::<Vec<_>>().join("\n")
}

/// A loaded library. It stays loaded: a graph or a thread may still know its code.
#[derive(Debug, Clone)]
pub struct Module {
    library: Arc<ManuallyDrop<Library>>,
    pub(super) enter: Enter,
    name: Arc<str>,
}

impl Module {
    fn load(path: &Path, name: &str) -> Result<Module> {
        let broken = |what: String| Error::invalid(format!("{name}: {}: {what}", path.display()));
        // SAFETY: the library was made by the compiler above from the user's own sources (the hash of the entry was
        // checked); loading it runs no code.
        let library = ManuallyDrop::new(
            unsafe { Library::new(path) }.map_err(|e| broken(format!("cannot be loaded: {e}")))?,
        );
        // SAFETY: the symbols have these types in every version of intrinsics/emulated.cuh; the version says whether the rest has.
        let (version, enter) = unsafe {
            let version = library.get::<*const u32>("residua_version").map(|symbol| **symbol);
            (version, library.get::<Enter>("residua_enter").map(|symbol| *symbol))
        };
        match (version, enter) {
            (Ok(abi::VERSION), Ok(enter)) => {
                Ok(Module { library: Arc::new(library), enter, name: name.into() })
            }
            (found, _) => Err(broken(format!(
                "intrinsics/emulated.cuh must have version {}, found {}; take the file that belongs to this program",
                abi::VERSION,
                found.map_or_else(|_| "none".to_string(), |version| version.to_string())
            ))),
        }
    }

    /// A kernel by name.
    pub(super) fn entry(&self, kernel: &str) -> Result<abi::Entry> {
        // SAFETY: the KERNEL macro defines this symbol with this type, and the library stays loaded.
        unsafe {
            self.library.get::<*const abi::Entry>(&format!("residua_kernel_{kernel}")).map(|entry| **entry)
        }
        .map_err(|_| Error::invalid(format!("{} has no kernel `{kernel}`", self.name)))
    }
}
