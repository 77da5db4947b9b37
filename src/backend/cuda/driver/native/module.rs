//! Loaded machine code and its kernels.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cudarc::driver::sys::{
    self, CUfunction, CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID as Id,
    CUlaunchAttributeValue, CUlaunchAttributeValue_union__bindgen_ty_1 as ClusterDim, CUlaunchConfig,
    CUmodule, CUresult,
};

use super::library::check;
use super::stream::Stream;
use super::watch::Names;
use crate::backend::cuda::driver::{Launch, LaunchConfig};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result};

/// Dynamic shared memory that a kernel may use without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;
/// Percent of an SM's memory that a kernel prefers as shared memory, the rest being L1 (the carve-out). An SM that runs one kernel cannot
/// take thread blocks of another that wants another carve-out, so kernels that should overlap all want the same: what the
/// convolutions need.
const CARVE_OUT: c_int = 100;

/// A cubin on the device.
#[derive(Debug)]
pub struct Module {
    name: String,
    module: CUmodule,
    functions: HashMap<String, Function>,
    stream: Arc<Stream>,
    /// Whether its kernels are launched by programmatic dependent launch: thread blocks may be placed while the kernel before still
    /// runs. A kernel that does not wait for those launched before must not begin early.
    overlaps: bool,
}

/// A kernel.
#[derive(Debug)]
struct Function {
    function: CUfunction,
    /// Its name and its module's, for messages.
    label: Names,
    /// Bytes of its one argument; nothing if it takes another number of them.
    argument_bytes: Option<usize>,
    /// Bytes of dynamic shared memory it may use.
    granted: AtomicU32,
}

// SAFETY: a loaded module may be used from any thread once its context is current there.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin, and all its kernels at once: loading while a graph is captured is not allowed. If `overlapped`, its kernels are
    /// to be launched by programmatic dependent launch.
    pub fn load(stream: &Arc<Stream>, source: &Source, cubin: &[u8], overlapped: bool) -> Result<Module> {
        let name = &source.name;
        stream.refuse_in_capture(&format!("load the kernels of {name}"))?;
        stream.enter()?;
        let mut module = ptr::null_mut();
        // SAFETY: a whole cubin, whose own header tells its size; the context is current. Unloaded in `drop`.
        let result = unsafe { sys::cuModuleLoadData(&raw mut module, cubin.as_ptr().cast()) };
        check(result, &format!("load the kernels of {name}"))?;
        let mut loaded = Module {
            name: name.clone(),
            module,
            functions: HashMap::new(),
            stream: stream.clone(),
            overlaps: overlapped && source.has_grid_dependency_wait(),
        };
        loaded.functions = functions(module, name)?;
        if loaded.overlaps {
            loaded.functions.values().try_for_each(Function::prefer_shared_memory)?;
        }
        Ok(loaded)
    }

    /// Queues a kernel.
    pub fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let function = self.functions.get(launch.entry).ok_or_else(|| {
            let mut known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
            known.sort_unstable();
            Error::invalid(format!(
                "{} has no kernel `{}`; it has {}",
                self.name,
                launch.entry,
                if known.is_empty() { "none".to_string() } else { known.join(", ") }
            ))
        })?;
        check_config(launch.entry, &launch.config)?;
        // The driver copies as many bytes as the kernel takes, so fewer would be read beyond their end.
        if function.argument_bytes != Some(launch.arguments.len()) {
            return Err(Error::invalid(format!(
                "kernel `{}` of {} takes {}, and is given a struct of {} bytes; its struct in the kernel file and that of \
                 its launcher must be the same",
                launch.entry,
                self.name,
                function.argument_bytes.map_or("not exactly one argument".to_string(), |bytes| format!(
                    "one argument of {bytes} bytes"
                )),
                launch.arguments.len()
            )));
        }
        self.stream.enter()?;
        self.grant(function, launch)?;
        let LaunchConfig { grid, threads, shared_bytes, cluster } = launch.config;
        let mut arguments: [*mut c_void; 1] = [launch.arguments.as_ptr().cast_mut().cast()];
        let mut attributes = attributes(self.overlaps, cluster);
        let config = CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared_bytes,
            hStream: self.stream.handle(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as c_uint,
        };
        // SAFETY: a loaded kernel with one argument of the size given, and as many attributes as the configuration says; the
        // driver copies all of them before it returns.
        let result = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.function,
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        let way_out =
            if self.overlaps { " (by programmatic dependent launch; try --launches serial)" } else { "" };
        check(
            result,
            &format!(
                "launch `{}` of {} on {grid:?} blocks of {threads} threads with {shared_bytes} bytes of shared memory{way_out}",
                launch.entry, self.name
            ),
        )?;
        self.stream.launched(&function.label);
        Ok(())
    }

    /// Allows a kernel as much dynamic shared memory as a launch wants, once.
    fn grant(&self, function: &Function, launch: &Launch<'_>) -> Result<()> {
        let wanted = launch.config.shared_bytes;
        if wanted <= function.granted.load(Ordering::Acquire) {
            return Ok(());
        }
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a loaded kernel.
        let result = unsafe { sys::cuFuncSetAttribute(function.function, attribute, wanted as c_int) };
        check(result, &format!("let `{}` use {wanted} bytes of shared memory", launch.entry))?;
        function.granted.fetch_max(wanted, Ordering::AcqRel);
        Ok(())
    }
}

impl Function {
    /// Asks for the carve-out that all overlapping kernels ask for.
    fn prefer_shared_memory(&self) -> Result<()> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
        // SAFETY: a loaded kernel.
        let result = unsafe { sys::cuFuncSetAttribute(self.function, attribute, CARVE_OUT) };
        check(result, &format!("set the shared memory that {} prefers", self.label[0]))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // Queued launches may still run its code.
        let _ = self.stream.synchronise();
        if self.stream.hangs() {
            return;
        }
        // SAFETY: loaded once, unloaded once.
        unsafe { sys::cuModuleUnload(self.module) };
    }
}

/// Attributes of a launch beyond its grid.
fn attributes(overlapped: bool, cluster: u32) -> Vec<CUlaunchAttribute> {
    let mut attributes = Vec::new();
    let mut ask = |id, set: &dyn Fn(&mut CUlaunchAttributeValue)| {
        let mut value = CUlaunchAttributeValue { pad: [0; 64] };
        set(&mut value);
        attributes.push(CUlaunchAttribute { id, pad: [0; 4], value });
    };
    if overlapped {
        // Between two kernels, in a captured graph as well; behind a copy, and as the first of a graph, a kernel waits as ever.
        ask(Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, &|value| {
            value.programmaticStreamSerializationAllowed = 1;
        });
    }
    if cluster > 1 {
        ask(Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION, &|value| {
            value.clusterDim = ClusterDim { x: cluster, y: 1, z: 1 };
        });
    }
    attributes
}

/// The kernels of a module, loaded.
fn functions(module: CUmodule, name: &str) -> Result<HashMap<String, Function>> {
    let task = format!("list the kernels of {name}");
    let mut count: c_uint = 0;
    // SAFETY: a loaded module, and a place to write to.
    check(unsafe { sys::cuModuleGetFunctionCount(&raw mut count, module) }, &task)?;
    let mut handles: Vec<CUfunction> = vec![ptr::null_mut(); count as usize];
    // SAFETY: room for `count` handles.
    check(unsafe { sys::cuModuleEnumerateFunctions(handles.as_mut_ptr(), count, module) }, &task)?;
    handles
        .into_iter()
        .map(|function| {
            // SAFETY: a kernel of the module.
            check(unsafe { sys::cuFuncLoad(function) }, &format!("load a kernel of {name}"))?;
            let mut text = ptr::null();
            // SAFETY: a kernel of the module, and a place to write to.
            check(unsafe { sys::cuFuncGetName(&raw mut text, function) }, &task)?;
            // SAFETY: the driver's own text, which ends with zero and lives as long as the module.
            let entry = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            let granted = AtomicU32::new(SHARED_WITHOUT_ASKING);
            let label = [format!("{entry} ({name})").into()].into();
            Ok((entry, Function { function, label, argument_bytes: argument_bytes(function), granted }))
        })
        .collect()
}

/// Bytes of a kernel's argument, if it takes exactly one.
fn argument_bytes(function: CUfunction) -> Option<usize> {
    let bytes_of = |index| {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: a loaded kernel, and two places to write to. An index beyond the last is answered with an error.
        let result = unsafe { sys::cuFuncGetParamInfo(function, index, &raw mut offset, &raw mut bytes) };
        (result == CUresult::CUDA_SUCCESS).then_some(bytes)
    };
    if bytes_of(1).is_some() { None } else { bytes_of(0) }
}

/// Limits of every device; the driver's own refusal would not say which number is wrong.
fn check_config(entry: &str, config: &LaunchConfig) -> Result<()> {
    let [x, y, z] = config.grid;
    let clusters = config.wrong_cluster();
    let wrong = if config.grid.contains(&0) {
        "a grid without blocks"
    } else if x > i32::MAX as u32 || y > 65535 || z > 65535 {
        "more blocks than 2147483647 in x or 65535 in y and z"
    } else if config.threads == 0 || config.threads > 1024 || !config.threads.is_multiple_of(32) {
        "a block that is not of 32 to 1024 threads, whole warps"
    } else if let Some(wrong) = &clusters {
        wrong
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("`{entry}` was to be launched with {wrong}: {config:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_no_device_can_do_is_refused_with_the_reason() {
        let good = LaunchConfig { grid: [1, 1, 1], threads: 256, shared_bytes: 0, cluster: 1 };
        assert!(check_config("k", &good).is_ok());
        let refused = [
            (LaunchConfig { grid: [4, 0, 1], ..good }, "without blocks"),
            (LaunchConfig { grid: [1, 65536, 1], ..good }, "65535"),
            (LaunchConfig { threads: 48, ..good }, "whole warps"),
            (LaunchConfig { threads: 2048, ..good }, "1024"),
            (LaunchConfig { cluster: 0, ..good }, "clusters of 0 blocks"),
            (LaunchConfig { grid: [3, 1, 1], cluster: 2, ..good }, "3 blocks in x in clusters of 2"),
        ];
        for (config, reason) in refused {
            let text = check_config("k", &config).unwrap_err().to_string();
            assert!(text.contains(reason), "{text}");
        }
    }
}
