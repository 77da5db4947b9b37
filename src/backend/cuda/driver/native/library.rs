//! The driver's library: whether it is there, new enough, and what it says of errors.
//!
//! The bindings look each function up at its first call and panic if it is missing, so all that this driver calls are
//! asked for before the first.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUresult};

use super::nvrtc::Version;
use super::search;
use crate::error::{Error, Result};

/// How to get the driver.
pub const ADVICE: &str = "install NVIDIA's driver, 580 or later for CUDA 13, or use --device cpu";

/// Every function of the library that this driver calls; a test compares the list with the sources.
const FUNCTIONS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime_v2",
    "cuEventRecord",
    "cuEventQuery",
    "cuFuncGetName",
    "cuFuncGetParamInfo",
    "cuFuncLoad",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAllocHost_v2",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleEnumerateFunctions",
    "cuModuleGetFunctionCount",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamQuery",
    "cuStreamWaitEvent",
    "cuTensorMapEncodeIm2col",
    "cuTensorMapEncodeTiled",
];

/// The driver's library, initialised: whoever holds one may call its functions.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    version: Version,
}

impl Library {
    /// The library of this machine.
    ///
    /// # Errors
    /// It is missing, too old, a stub, or sees no GPU.
    pub fn find() -> Result<Library> {
        // A failure lasts as long as the process: a library is not looked for twice.
        static FOUND: OnceLock<Result<Library, String>> = OnceLock::new();
        FOUND
            .get_or_init(|| Library::open().map_err(|error| error.to_string()))
            .clone()
            .map_err(Error::invalid)
    }

    fn open() -> Result<Library> {
        if let Ok(current) = std::env::current_dir()
            && let Some(trap) = search::relative_traps(&|name| std::env::var_os(name), &current).first()
        {
            return Err(Error::invalid(format!(
                "LD_LIBRARY_PATH has an empty or relative entry, by which a library of the driver would be loaded from {}; \
                 take the entry out, or the library away",
                trap.display()
            )));
        }
        // SAFETY: loads the vendor's library by its names, whose initialisation has no preconditions.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::invalid(format!(
                "there is no NVIDIA driver: libcuda.so.1 is in none of the system's folders; {ADVICE}"
            )));
        }
        // SAFETY: present, as was just asked; the symbols are only looked up, not called.
        let missing: Vec<&str> = FUNCTIONS
            .iter()
            .copied()
            .filter(|name| unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err())
            .collect();
        if missing.contains(&"cuGetErrorName") || missing.contains(&"cuDriverGetVersion") {
            return Err(Error::invalid(format!(
                "libcuda.so is not NVIDIA's driver, or a very old one; {ADVICE}"
            )));
        }
        let mut number = 0;
        // SAFETY: a place to write to; allowed before cuInit.
        check(unsafe { sys::cuDriverGetVersion(&raw mut number) }, "ask the driver for its version")?;
        let version = version(number);
        if !missing.is_empty() {
            return Err(Error::invalid(format!(
                "the NVIDIA driver is for CUDA {version} and lacks {}; {ADVICE}",
                missing.join(", ")
            )));
        }
        // SAFETY: the library's first call.
        check(unsafe { sys::cuInit(0) }, "start the NVIDIA driver")?;
        Ok(Library { version })
    }

    /// The newest CUDA whose code the driver loads.
    pub fn version(self) -> Version {
        self.version
    }

    /// How many GPUs there are.
    ///
    /// # Errors
    /// The driver's.
    pub fn devices(self) -> Result<usize> {
        let mut count: c_int = 0;
        // SAFETY: a place to write to.
        check(unsafe { sys::cuDeviceGetCount(&raw mut count) }, "count the GPUs")?;
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// 13.0 of 13000.
fn version(number: c_int) -> Version {
    let number = number.unsigned_abs();
    Version { major: number / 1000, minor: number % 1000 / 10 }
}

/// Turns the driver's answer into our error: what was being done, CUDA's own name and text, and a way out where there
/// is one.
pub fn check(result: CUresult, task: &str) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let name = text_of(result, sys::cuGetErrorName).unwrap_or_else(|| format!("{result:?}"));
    let text = text_of(result, sys::cuGetErrorString).unwrap_or_else(|| "unknown error".to_string());
    let hint = hint(result).map_or_else(String::new, |hint| format!("; {hint}"));
    Err(Error::invalid(format!("could not {task}: {text} ({name}){hint}")))
}

type Describe = unsafe fn(CUresult, *mut *const c_char) -> CUresult;

fn text_of(result: CUresult, describe: Describe) -> Option<String> {
    let mut text = ptr::null();
    // SAFETY: a place to write to; the text is static.
    let known = unsafe { describe(result, &raw mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: not null, so a text that ends with zero.
    known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Advice on an error, where CUDA's text does not say.
fn hint(result: CUresult) -> Option<&'static str> {
    use CUresult as Code;
    match result {
        Code::CUDA_ERROR_NO_DEVICE => {
            Some("the driver sees no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES")
        }
        Code::CUDA_ERROR_STUB_LIBRARY => Some(
            "a toolkit's stub stands in the driver's place: take its folder (stubs) out of LD_LIBRARY_PATH",
        ),
        Code::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            Some("the driver was updated while it was running: restart the machine")
        }
        Code::CUDA_ERROR_ILLEGAL_ADDRESS
        | Code::CUDA_ERROR_MISALIGNED_ADDRESS
        | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | Code::CUDA_ERROR_LAUNCH_FAILED => Some(
            "a kernel queued before did this, and nothing on the GPU can be used any more; the same run with --device \
             emulator names the kernel, the thread and the line",
        ),
        Code::CUDA_ERROR_LAUNCH_TIMEOUT => {
            Some("the GPU also drives a screen, whose time limit a kernel exceeded")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_function_that_is_called_was_asked_for_first() {
        let sources = [
            include_str!("context.rs"),
            include_str!("graph.rs"),
            include_str!("library.rs"),
            include_str!("memory.rs"),
            include_str!("mod.rs"),
            include_str!("module.rs"),
            include_str!("staging.rs"),
            include_str!("stream.rs"),
            include_str!("tensor_map.rs"),
            include_str!("watch.rs"),
        ];
        let mut called = BTreeSet::new();
        for text in sources {
            for rest in text.split("sys::cu").skip(1) {
                let name: String =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                    called.insert(format!("cu{name}"));
                }
            }
        }
        assert_eq!(called, FUNCTIONS.iter().map(|name| (*name).to_string()).collect());
    }

    #[test]
    fn a_version_is_read_as_cuda_counts() {
        assert_eq!([12080, 13000].map(|number| version(number).to_string()), ["12.8", "13.0"]);
        assert!(version(12090) < version(13000) && version(13010) > version(13000));
    }
}
