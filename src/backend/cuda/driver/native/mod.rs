//! A real GPU, through the driver's library and NVRTC, both found at run time.
//!
//! | file | holds |
//! |---|---|
//! | [`search`] | where NVRTC may lie |
//! | [`nvrtc`] | kernel text to machine code |
//! | [`precompiled`] | a folder of kernels that were compiled elsewhere |
//! | [`ptxas`] | what the assembler says of each kernel |
//! | `library` | the driver's library, its errors in our words |
//! | `context`, `stream` | the GPU, and the queue of its work |
//! | `watch` | waiting for the GPU with a deadline |
//! | `memory`, `staging` | device memory, and copies that do not wait |
//! | `module`, `graph` | loaded kernels, and captured launches of them |
//! | `tensor_map` | tensor maps for TMA |

mod context;
mod graph;
mod library;
mod memory;
mod module;
pub mod nvrtc;
pub mod precompiled;
pub mod ptxas;
pub mod search;
mod staging;
mod stream;
mod survey;
mod tensor_map;
mod watch;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cudarc::driver::sys;

pub use context::Gpu;
pub use survey::Survey;

use super::cache::{Cache, Cached};
use super::tensor_map::{TensorMap, TensorMapRequest};
use super::{Download, Driver, Launch, Launches, LoadedModule, Memory, Properties};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result};
use crate::ops::{Event, Graph};
use context::Context;
use graph::CapturedStep;
use library::{Library, check};
use memory::Downloads;
use module::Module;
use nvrtc::Nvrtc;
use precompiled::Precompiled;
use staging::Staging;
use stream::{Stream, StreamEvent};

/// A GPU. One thread at a time queues work on it.
pub struct Native {
    properties: Properties,
    launches: Launches,
    timeout: Option<Duration>,
    // Dropped in this order: what waits for copies before the stream they are in.
    staging: Mutex<Staging>,
    downloads: Downloads,
    /// Made at its first use, and with it the context: until then another process may have the GPU for itself.
    stream: OnceLock<Arc<Stream>>,
    library: Library,
    ordinal: usize,
    /// Missing only where kernels were compiled elsewhere.
    nvrtc: Result<Nvrtc, String>,
    precompiled: Option<Precompiled>,
    cache: Cache,
}

impl Native {
    /// GPU number `ordinal`. It is asked for its properties; no context is made on it before it is used.
    ///
    /// # Errors
    /// No driver, no such GPU, no NVRTC; the message says how to get what is missing.
    pub fn new(ordinal: usize) -> Result<Native> {
        Native::with_kernel_cache(ordinal, None)
    }

    /// The same, with kernels out of a folder where it has them.
    ///
    /// # Errors
    /// Also a folder that cannot be trusted, or has nothing for this GPU.
    pub fn with_kernel_cache(ordinal: usize, folder: Option<&Path>) -> Result<Native> {
        let library = Library::find()?;
        let gpu = Gpu::ask(library, ordinal)?;
        let architecture = nvrtc::architecture(gpu.capability)?;
        let precompiled =
            folder.map(|folder| Precompiled::open(folder, &architecture, library.version())).transpose()?;
        let nvrtc = match Nvrtc::find(Some(library.version())) {
            Err(error) if precompiled.is_some() => Err(error.to_string()),
            found => Ok(found?),
        };
        let compiler = match (&nvrtc, &precompiled) {
            (_, Some(precompiled)) => format!("kernels compiled by NVRTC {}", precompiled.version()),
            (Ok(nvrtc), None) => format!("NVRTC {}", nvrtc.version()),
            (Err(_), None) => unreachable!("an error above"),
        };
        let driver =
            survey::release().map_or_else(|| "driver".to_string(), |release| format!("driver {release}"));
        let cache = Cache::of_user()?;
        let properties = Properties {
            name: gpu.name,
            architecture,
            capability: gpu.capability,
            sms: gpu.sms,
            memory_bytes: gpu.memory_bytes,
            shared_bytes_per_block: gpu.shared_bytes_per_block,
            red_zone: 0,
            versions: format!("{driver} for CUDA {}, {compiler}", library.version()),
        };
        Ok(Native {
            properties,
            launches: Launches::default(),
            timeout: None,
            staging: Mutex::new(Staging::new(None)),
            downloads: Downloads::default(),
            stream: OnceLock::new(),
            library,
            ordinal,
            nvrtc,
            precompiled,
            cache,
        })
    }

    /// The machine code of a source: compiled elsewhere, before, or now.
    fn machine_code(&self, source: &Source) -> Result<Cached> {
        if let Some(found) = self.precompiled.as_ref().and_then(|precompiled| precompiled.find(source)) {
            return Ok(found);
        }
        match (&self.nvrtc, &self.precompiled) {
            (Ok(nvrtc), _) => nvrtc.compile_cached(&self.cache, source, &self.properties.architecture),
            (Err(missing), precompiled) => Err(Error::invalid(format!(
                "{} is not in --kernel-cache {}, and cannot be compiled here: {missing}",
                source.name,
                precompiled
                    .as_ref()
                    .map_or_else(String::new, |precompiled| precompiled.folder().display().to_string())
            ))),
        }
    }

    /// The same GPU, whose kernels follow each other like this.
    pub fn with_launches(self, launches: Launches) -> Native {
        Native { launches, ..self }
    }

    /// The same GPU, for which nothing waits longer.
    pub fn with_timeout(self, timeout: Option<Duration>) -> Native {
        Native { timeout, staging: Mutex::new(Staging::new(timeout)), ..self }
    }

    fn stream(&self) -> Result<&Arc<Stream>> {
        if let Some(stream) = self.stream.get() {
            return Ok(stream);
        }
        let context = Arc::new(Context::new(self.library, self.ordinal)?);
        let stream = Arc::new(Stream::new(context, self.timeout)?);
        Ok(self.stream.get_or_init(|| stream))
    }

    /// Why a GPU that is there cannot be used; nothing where there is none, or where all is well.
    pub fn hindrance(ordinal: usize, kernel_cache: Option<&Path>) -> Option<Error> {
        let library = Library::find().ok()?;
        Gpu::ask(library, ordinal).ok()?;
        Native::with_kernel_cache(ordinal, kernel_cache).err()
    }

    /// GPU number `ordinal`, or nothing where it cannot be had; [`Native::new`] says why.
    pub fn if_present(ordinal: usize) -> Option<Native> {
        Native::new(ordinal).ok()
    }
}

impl Driver for Native {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        memory::zeroed(self.stream()?, bytes)
    }

    fn upload(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.upload(self.stream()?, memory, offset, bytes)
    }

    fn download(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let stream = self.stream()?;
        stream.refuse_in_capture("copy to the host")?;
        let from = memory.range(offset, bytes.len())?;
        stream.enter()?;
        // SAFETY: both ranges have `bytes.len()` bytes; the copy is over before this returns.
        let result = unsafe {
            sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from, bytes.len(), stream.handle())
        };
        let waited = stream.synchronise();
        check(result, "copy to the host").and(waited)
    }

    fn begin_download(&self, memory: &Memory, offset: usize, bytes: usize) -> Result<Download> {
        let download = self.downloads.begin(self.stream()?, memory, offset, bytes)?;
        Ok(Box::new(|| download.finish()))
    }

    fn module(&self, source: &Source) -> Result<LoadedModule> {
        let stream = self.stream()?;
        stream.refuse_in_capture(&format!("compile and load {}", source.name))?;
        let overlapped = self.launches == Launches::Overlapped && self.properties.overlaps_launches();
        let compiled = self.machine_code(source)?.compiled;
        Module::load(stream, source, &compiled.code, overlapped).map(LoadedModule::new)
    }

    fn is_compiled(&self, source: &Source) -> bool {
        let is_taken =
            self.precompiled.as_ref().is_some_and(|precompiled| precompiled.find(source).is_some());
        let is_cached = |nvrtc: &Nvrtc| nvrtc.is_cached(&self.cache, source, &self.properties.architecture);
        is_taken || self.nvrtc.as_ref().is_ok_and(is_cached)
    }

    fn compile(&self, source: &Source) -> Result<()> {
        self.machine_code(source).map(drop)
    }

    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
        tensor_map::encode(&self.properties, request)
    }

    fn launch(&self, _: &Memory, module: &LoadedModule, launch: &Launch<'_>) -> Result<()> {
        module.inner::<Module>().launch(launch)
    }

    fn expect(&self, seconds: f64) {
        if let Some(stream) = self.stream.get() {
            stream.expect(seconds);
        }
    }

    fn synchronise(&self) -> Result<()> {
        self.stream()?.synchronise()
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        CapturedStep::capture(self.stream()?, record).map(Graph::new)
    }

    fn replay(&self, _: &Memory, graph: &Graph) -> Result<()> {
        graph.inner::<CapturedStep>().replay()
    }

    fn event(&self) -> Result<Event> {
        let event = StreamEvent::new(self.stream()?, true)?;
        event.record()?;
        Ok(Event::new(event))
    }

    fn elapsed_seconds(&self, from: &Event, to: &Event) -> Result<f64> {
        from.inner::<StreamEvent>().seconds_until(to.inner())
    }
}
