//! NVRTC: from a kernel's text to machine code for one architecture, without a toolkit and without a GPU.
//!
//! The library is opened by its absolute path, and its few functions are looked up here, so that a library that is
//! missing or broken gives an error that says how to get one.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr;
use std::str::FromStr;

use libloading::Library;

use super::search;
use crate::backend::cuda::driver::cache::{Cache, Cached, Compiled};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result, printable};

/// How to get NVRTC.
pub const ADVICE: &str = "install the CUDA toolkit, or only this library: `pip install 'nvidia-cuda-nvrtc==13.0.*'` \
                          (a library elsewhere is named by RESIDUA_NVRTC)";

/// A version of CUDA: of NVRTC, or the newest that a driver understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 13 of 13.0.
    pub major: u32,
    /// 0 of 13.0.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Version> {
        let parts =
            text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) =
            parts.ok_or_else(|| Error::usage(format!("`{text}` is no version of CUDA, such as 13.0")))?;
        Ok(Version { major, minor })
    }
}

type Program = *mut c_void;
type Status = c_int;

/// The functions of the library.
struct Functions {
    error: unsafe extern "C" fn(Status) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
}

/// The run-time compiler.
pub struct Nvrtc {
    functions: Functions,
    path: PathBuf,
    version: Version,
    /// Never closed: the compiler keeps state of its own in threads.
    _libraries: ManuallyDrop<Vec<Library>>,
}

impl Nvrtc {
    /// The first NVRTC, in the order of [`search::folders`], that is not newer than `newest`: a driver does not load the
    /// code of a later CUDA.
    ///
    /// # Errors
    /// None is found; the message tells what was, and how to get one.
    pub fn find(newest: Option<Version>) -> Result<Nvrtc> {
        let environment = |name: &str| std::env::var_os(name);
        if let Some(named) = std::env::var_os(search::VARIABLE).map(PathBuf::from) {
            return Nvrtc::named(&named, newest);
        }
        let mut refused = Vec::new();
        let searches: [&dyn Fn() -> Vec<PathBuf>; 2] =
            [&|| search::folders(&environment), &|| search::folders_of_python(&environment)];
        for folders in searches {
            for path in search::libraries(&folders()) {
                match Nvrtc::open(&path).and_then(|found| found.not_newer_than(newest)) {
                    Ok(found) => return Ok(found),
                    Err(error) => refused.push(error.to_string()),
                }
            }
        }
        let found = if refused.is_empty() { "none was found".to_string() } else { refused.join("; ") };
        Err(Error::invalid(format!(
            "kernels are compiled by NVRTC (libnvrtc.so), and there is none to use: {found}; {ADVICE}"
        )))
    }

    /// The library that the environment names.
    fn named(named: &Path, newest: Option<Version>) -> Result<Nvrtc> {
        if !named.is_absolute() {
            return Err(Error::invalid(format!(
                "{} is `{}`; it must be an absolute path, so that it does not depend on the current directory",
                search::VARIABLE,
                named.display()
            )));
        }
        let library = if named.is_dir() {
            search::libraries(&[named.to_path_buf()]).into_iter().next()
        } else {
            Some(named.into())
        };
        let Some(library) = library.filter(|path| path.is_file()) else {
            return Err(Error::invalid(format!(
                "{} is `{}`, where no libnvrtc.so lies; name the library or its folder, or unset it",
                search::VARIABLE,
                named.display()
            )));
        };
        Nvrtc::open(&library)?.not_newer_than(newest)
    }

    /// Opens one library.
    ///
    /// # Errors
    /// It cannot be loaded, or is no NVRTC.
    pub fn open(path: &Path) -> Result<Nvrtc> {
        let broken = |e: libloading::Error| {
            let reason = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Error::invalid(format!("{} cannot be used as NVRTC: {reason}", path.display()))
        };
        // NVRTC asks for its builtins by name only, so they have to be there already. Whether one of them is missing
        // shows when it compiles.
        let mut libraries: Vec<Library> = search::builtins(path)
            .iter()
            // SAFETY: an absolute path to the vendor's library; its initialisation has no preconditions.
            .filter_map(|builtins| unsafe { Library::new(builtins) }.ok())
            .collect();
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.map_err(broken)?;
        // SAFETY: names and signatures are those of nvrtc.h, unchanged since CUDA 11.1.
        let functions = unsafe {
            Functions {
                error: *library.get(b"nvrtcGetErrorString\0").map_err(broken)?,
                version: *library.get(b"nvrtcVersion\0").map_err(broken)?,
                create: *library.get(b"nvrtcCreateProgram\0").map_err(broken)?,
                destroy: *library.get(b"nvrtcDestroyProgram\0").map_err(broken)?,
                compile: *library.get(b"nvrtcCompileProgram\0").map_err(broken)?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0").map_err(broken)?,
                log: *library.get(b"nvrtcGetProgramLog\0").map_err(broken)?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize\0").map_err(broken)?,
                cubin: *library.get(b"nvrtcGetCUBIN\0").map_err(broken)?,
            }
        };
        libraries.push(library);
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two places to write to.
        let status = unsafe { (functions.version)(&raw mut major, &raw mut minor) };
        let version = Version { major: major.unsigned_abs(), minor: minor.unsigned_abs() };
        let found =
            Nvrtc { functions, path: path.to_path_buf(), version, _libraries: ManuallyDrop::new(libraries) };
        found.check(status, "tell its version")?;
        Ok(found)
    }

    fn not_newer_than(self, newest: Option<Version>) -> Result<Nvrtc> {
        match newest {
            Some(newest) if self.version > newest => Err(Error::invalid(format!(
                "{} is of CUDA {}, and the driver loads code of CUDA {newest} at most (update the driver, or install \
                 `nvidia-cuda-nvrtc=={newest}.*`)",
                self.path.display(),
                self.version
            ))),
            _ => Ok(self),
        }
    }

    /// Where the library lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Machine code (a cubin) of a source for an architecture, out of the cache where it is there.
    ///
    /// # Errors
    /// Those of [`Nvrtc::compile`], and the disk's.
    pub fn compile_cached(&self, cache: &Cache, source: &Source, architecture: &str) -> Result<Cached> {
        let version = format!("nvrtc {}", self.version);
        let options = options(architecture).join(" ");
        cache.get(&key(source, &options, &version), "cubin", || self.compile(source, architecture))
    }

    /// Whether [`Nvrtc::compile_cached`] finds the source compiled.
    pub fn is_cached(&self, cache: &Cache, source: &Source, architecture: &str) -> bool {
        let version = format!("nvrtc {}", self.version);
        let options = options(architecture).join(" ");
        cache.find(&key(source, &options, &version), "cubin").is_some()
    }

    /// Machine code (a cubin) of a source for an architecture such as `sm_90a`, and what compiler and assembler said.
    ///
    /// # Errors
    /// The source has errors, which are told with its own files and lines; the architecture is unknown to this version.
    pub fn compile(&self, source: &Source, architecture: &str) -> Result<Compiled> {
        let terminated = |text: &str| {
            CString::new(text).map_err(|_| {
                Error::invalid(format!("{} holds a zero byte; kernel files are text", source.name))
            })
        };
        let (text, name) = (terminated(&source.text)?, terminated(&source.name)?);
        let options =
            options(architecture).iter().map(|option| terminated(option)).collect::<Result<Vec<_>>>()?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();

        let mut program = ProgramGuard { functions: &self.functions, program: ptr::null_mut() };
        // SAFETY: text and name end with zero and outlive the program; there are no headers.
        let status = unsafe {
            (self.functions.create)(
                &raw mut program.program,
                text.as_ptr(),
                name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            )
        };
        self.check(status, "take a source")?;
        // SAFETY: the program was made above; the options end with zero and outlive the call.
        let status =
            unsafe { (self.functions.compile)(program.program, options.len() as c_int, options.as_ptr()) };
        let log = self.fetch(program.program, self.functions.log_size, self.functions.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
        if status != 0 {
            let what = if log.trim().is_empty() { self.text(status) } else { errors_of(&log) };
            return Err(Error::invalid(format!(
                "{} does not compile for {architecture} (NVRTC {}):\n{what}",
                source.name, self.version
            )));
        }
        let code = self.fetch(program.program, self.functions.cubin_size, self.functions.cubin)?;
        if code.is_empty() {
            return Err(Error::invalid(format!(
                "NVRTC {} made no machine code of {} for {architecture}",
                self.version, source.name
            )));
        }
        Ok(Compiled { code, log })
    }

    /// Bytes of which the library first tells the number.
    fn fetch(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        bytes: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>> {
        let mut length = 0;
        // SAFETY: a program of this library, and a place to write to.
        self.check(unsafe { size(program, &raw mut length) }, "tell the size of its output")?;
        let mut out = vec![0_u8; length];
        if length > 0 {
            // SAFETY: the place has as many bytes as the library just asked for.
            self.check(unsafe { bytes(program, out.as_mut_ptr().cast()) }, "hand its output over")?;
        }
        Ok(out)
    }

    fn check(&self, status: Status, task: &str) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "NVRTC ({}) could not {task}: {}",
            self.path.display(),
            self.text(status)
        )))
    }

    /// The library's own name of an error.
    fn text(&self, status: Status) -> String {
        // SAFETY: takes any number and gives a text that is never freed, or null.
        let text = unsafe { (self.functions.error)(status) };
        if text.is_null() {
            return format!("error {status}");
        }
        // SAFETY: not null, so a text that ends with zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

/// Destroys a program whatever happens.
struct ProgramGuard<'a> {
    functions: &'a Functions,
    program: Program,
}

impl Drop for ProgramGuard<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: made by the same library, destroyed once.
            unsafe { (self.functions.destroy)(&raw mut self.program) };
        }
    }
}

/// What decides machine code.
pub fn key<'a>(source: &'a Source, options: &'a str, version: &'a str) -> [&'a [u8]; 3] {
    [source.text.as_bytes(), options.as_bytes(), version.as_bytes()]
}

/// Compiler options: machine code for the architecture itself, C++17, unmarked functions belong to the device,
/// and the assembler's report into the log.
pub fn options(architecture: &str) -> Vec<String> {
    ["-std=c++17", "--device-as-default-execution-space", "--ptxas-options=-v"]
        .into_iter()
        .map(String::from)
        .chain([format!("--gpu-architecture={architecture}")])
        .collect()
}

/// The architecture that kernels are compiled for on a GPU: its own, from Hopper on with its own instructions.
///
/// # Errors
/// The GPU is older than the kernels' instructions.
pub fn architecture((major, minor): (u32, u32)) -> Result<String> {
    match major {
        0..8 => Err(Error::invalid(format!(
            "the GPU has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or later: use --device cpu"
        ))),
        8 => Ok(format!("sm_{major}{minor}")),
        _ => Ok(format!("sm_{major}{minor}a")),
    }
}

/// The paragraphs of a log that report errors; all of it if there is none such.
fn errors_of(log: &str) -> String {
    let is_error = |paragraph: &&str| {
        paragraph.lines().next().is_some_and(|line| line.contains("error") && !line.contains("warning"))
    };
    let errors: Vec<&str> = log.trim().split("\n\n").filter(is_error).collect();
    printable(&if errors.is_empty() { log.trim().to_string() } else { errors.join("\n\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_follows_from_the_capability() {
        let names =
            [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)].map(|capability| architecture(capability).unwrap());
        assert_eq!(names, ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"]);
        assert!(architecture((7, 5)).unwrap_err().to_string().contains("7.5"));
    }

    #[test]
    fn errors_are_told_without_the_warnings_around_them() {
        let log = "k.cu(4): error: no member \"m\"\n  p.m\n    ^\n\nk.cu(2): warning #177-D: variable \"error\"\n  s\n\n\
                   Remark: suppress\n\n1 error detected in the compilation of \"k.cu\".\n";
        let told = errors_of(log);
        assert!(told.starts_with("k.cu(4): error") && told.ends_with("\"k.cu\"."), "{told}");
        assert!(!told.contains("177") && !told.contains("Remark"), "{told}");
        assert_eq!(errors_of("something else\n"), "something else");
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libnvrtc.so.13");
        std::fs::write(&path, "not a library").unwrap();
        let error = Nvrtc::open(&path).err().unwrap().to_string();
        assert!(error.contains("libnvrtc.so.13 cannot be used as NVRTC"), "{error}");
        let error = Nvrtc::named(&folder.path().join("elsewhere"), None).err().unwrap().to_string();
        assert!(error.contains("RESIDUA_NVRTC") && error.contains("elsewhere"), "{error}");
        let error = Nvrtc::named(Path::new("libnvrtc.so"), None).err().unwrap().to_string();
        assert!(error.contains("absolute"), "{error}");
    }
}
