//! An emulated device: the same kernel sources, compiled by the host's C++ compiler, run thread by thread.
//!
//! | file | holds |
//! |---|---|
//! | `compiler` | text to library, through the cache |
//! | `abi` | the structs that kernels and this program share with `kernels/emulated.cuh` |
//! | `grid` | a launch: its checks, its blocks over threads of the host |
//! | `runner`, `running` | a block: a fiber for every thread, and what they share |
//! | `meetings`, `order` | where threads wait for each other; who runs next |
//! | `cluster` | blocks that run together and reach into each other |
//! | `words` | what kernels call |
//! | `shared`, `copies` | shared memory with red zones; asynchronous copies |
//! | `mbarriers`, `tensor_copies` | barriers that count bytes; copies of pieces of a tensor |
//! | `warpgroups`, `async_view` | products that 128 threads ask for together; what they see of shared memory |
//! | `errors` | what a kernel did wrong, as a sentence |
//!
//! What a GPU answers with wrong numbers or a hang is an error here: an access outside the launch's operands, a write to
//! one that may only be read, lanes of a warp at different places, a thread that ends while others wait for it, a write
//! between arrays of shared memory. What depends on the order of threads or the time of copies shows as results
//! that differ between [`Options`], or as NaN, which fills shared memory and the target of every copy under way.

mod abi;
mod async_view;
mod cluster;
mod compiler;
mod copies;
mod errors;
mod grid;
mod mbarriers;
mod meetings;
mod order;
mod runner;
mod running;
mod shared;
mod tensor_copies;
mod warpgroups;
mod words;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use memmap2::MmapMut;

use super::cache::Cache;
use super::tensor_map::{TensorMap, TensorMapRequest};
use super::{Driver, Geometry, Launch, Properties};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result};
use crate::ops::Access;
use crate::tensor::Span;
use compiler::Compiler;
pub use compiler::Module;

/// In which order the threads of a block (and the blocks of a grid) run between two meeting points. Results that
/// depend on it are races.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Lowest index first.
    #[default]
    Forward,
    /// Highest index first.
    Reverse,
    /// A new random order after every meeting point, from a seed.
    Random(u64),
}

/// When an asynchronous copy happens, and a product of a warpgroup, which reads what copies wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Copies as late as allowed, when nobody can go on without them, and products at once: finds a missing wait for a copy.
    #[default]
    Lazy,
    /// Copies at once, and products as late as allowed, when they are waited for: finds a buffer that is filled again while
    /// it is still read.
    Eager,
}

/// How an emulated device behaves where a real one leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Order of threads.
    pub order: Order,
    /// Time of copies.
    pub copies: Copies,
    /// Threads of the host that run blocks; 0 means one per core.
    pub threads: usize,
}

/// Bytes of memory an emulated device pretends to have.
const MEMORY_BYTES: usize = 8 << 30;

/// Bytes around buffers that are left unused, so that a stray access is seen.
const RED_ZONE: usize = 256;

/// Steps after which a block is taken for one that never ends.
const PATIENCE: u64 = 1 << 30;

/// An emulated device.
pub struct Emulator {
    properties: Properties,
    options: Options,
    compiler: Compiler,
    cache: Cache,
    patience: u64,
    /// None where one thread is enough.
    pool: Option<rayon::ThreadPool>,
    /// Launches of the graph that is being captured.
    captured: Mutex<Option<Vec<Captured>>>,
}

impl Emulator {
    /// An emulated device, with the compiler that `CXX` names or the system has, and the user's cache.
    ///
    /// # Errors
    /// No C++ compiler is found, or there is no place for a cache.
    pub fn new(options: Options) -> Result<Emulator> {
        Emulator::made_of(options, Compiler::find()?, Cache::of_user()?)
    }

    /// An emulated device with a compiler and a cache folder of one's own.
    ///
    /// # Errors
    /// The compiler does not start, or the folder cannot be used.
    pub fn with_tools(options: Options, compiler: &str, cache: &Path) -> Result<Emulator> {
        Emulator::made_of(options, Compiler::named(compiler)?, Cache::at(cache)?)
    }

    /// Stops a block after so many steps: an access to global memory is one, a turn of a warp 32.
    #[must_use]
    pub fn with_patience(mut self, steps: u64) -> Emulator {
        self.patience = steps;
        self
    }

    fn made_of(options: Options, compiler: Compiler, cache: Cache) -> Result<Emulator> {
        let threads = match options.threads {
            0 => crate::threads::available(),
            threads => threads,
        };
        let pool = (threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build())
            .transpose()
            .map_err(|e| Error::invalid(format!("cannot start {threads} threads for the emulator: {e}")))?;
        let properties = Properties {
            name: "emulator".into(),
            architecture: "host".into(),
            capability: (9, 0),
            multiprocessors: 4,
            memory_bytes: MEMORY_BYTES,
            shared_bytes_per_block: shared::MOST_BYTES,
            red_zone: RED_ZONE,
            versions: compiler.version.clone(),
        };
        Ok(Emulator {
            properties,
            options,
            compiler,
            cache,
            patience: PATIENCE,
            pool,
            captured: Mutex::new(None),
        })
    }

    /// # Safety
    /// As for [`grid::run`].
    unsafe fn run(&self, module: &Module, entry: abi::Entry, launch: &Launch<'_>, base: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { grid::run(self.pool.as_ref(), self.options, self.patience, module, entry, launch, base) }
    }

    fn captured(&self) -> MutexGuard<'_, Option<Vec<Captured>>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream that is being captured cannot do.
    fn not_while_capturing(&self, what: &str) -> Result<()> {
        if self.captured().is_some() {
            return Err(Error::invalid(format!(
                "{what} while a graph is captured: only launches can be part of one; move it before or after"
            )));
        }
        Ok(())
    }
}

/// Memory of an emulated device.
pub struct Memory {
    map: MmapMut,
    bytes: usize,
}

impl Memory {
    fn address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    fn checked(&self, offset: usize, bytes: usize) -> Result<std::ops::Range<usize>> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(offset..end),
            _ => Err(Error::invalid(format!(
                "{bytes} bytes at byte {offset} leave the memory of {} bytes",
                self.bytes
            ))),
        }
    }
}

/// A launch as a graph keeps it: everything frozen.
struct Captured {
    module: Module,
    entry: abi::Entry,
    name: String,
    geometry: Geometry,
    arguments: Vec<u8>,
    operands: Vec<(&'static str, Span, Access)>,
}

/// A capture under way; it ends when this goes, also by an error or a panic.
struct Capture<'a>(&'a Emulator);

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        *self.0.captured() = None;
    }
}

/// Launches that can be replayed on the memory they were captured on.
pub struct Graph {
    launches: Vec<Captured>,
    address: u64,
}

impl Driver for Emulator {
    type Memory = Memory;
    type Module = Module;
    type Graph = Graph;
    type Download = Vec<u8>;
    type Event = Instant;

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.not_while_capturing("memory is allocated")?;
        let refuse =
            |why: String| Error::invalid(format!("cannot allocate {bytes} bytes on the emulator: {why}"));
        if bytes > MEMORY_BYTES {
            return Err(refuse(format!("it has {MEMORY_BYTES}")));
        }
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|e| refuse(e.to_string()))?;
        Ok(Memory { map, bytes })
    }

    fn bytes(&self, memory: &Memory) -> usize {
        memory.bytes
    }

    fn address(&self, memory: &Memory) -> u64 {
        memory.address()
    }

    fn upload(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        self.not_while_capturing("an upload")?;
        let range = memory.checked(offset, bytes.len())?;
        memory.map[range].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.not_while_capturing("a download")?;
        bytes.copy_from_slice(&memory.map[memory.checked(offset, bytes.len())?]);
        Ok(())
    }

    fn begin_download(&self, memory: &Memory, offset: usize, bytes: usize) -> Result<Vec<u8>> {
        self.not_while_capturing("a download")?;
        Ok(memory.map[memory.checked(offset, bytes)?].to_vec())
    }

    fn finish_download(&self, download: Vec<u8>) -> Result<Vec<u8>> {
        self.not_while_capturing("waiting for a download")?;
        Ok(download)
    }

    fn module(&self, source: &Source) -> Result<Module> {
        self.compiler.module(source, &self.cache)
    }

    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
        request.check()?;
        Ok(tensor_copies::encode(request))
    }

    fn launch(&self, memory: &mut Memory, module: &Module, launch: &Launch<'_>) -> Result<()> {
        let entry = grid::check(module, launch, memory.bytes)?;
        if let Some(captured) = &mut *self.captured() {
            captured.push(Captured {
                module: module.clone(),
                entry,
                name: launch.entry.to_string(),
                geometry: launch.geometry,
                arguments: launch.arguments.to_vec(),
                operands: launch.operands.to_vec(),
            });
            return Ok(());
        }
        // SAFETY: the memory is borrowed for as long as the launch runs, and its operands were checked to lie in it.
        unsafe { self.run(module, entry, launch, memory.address()) }
    }

    fn synchronise(&self) -> Result<()> {
        self.not_while_capturing("waiting for the device")
    }

    fn capture(
        &self,
        memory: &mut Memory,
        record: &mut dyn FnMut(&mut Memory) -> Result<()>,
    ) -> Result<Graph> {
        self.not_while_capturing("a second capture begins")?;
        *self.captured() = Some(Vec::new());
        let capture = Capture(self);
        record(memory)?;
        let launches = self.captured().take().unwrap_or_default();
        drop(capture);
        Ok(Graph { launches, address: memory.address() })
    }

    fn replay(&self, memory: &mut Memory, graph: &Graph) -> Result<()> {
        self.not_while_capturing("a replay")?;
        if graph.address != memory.address() {
            return Err(Error::invalid(
                "a graph is replayed on other memory than it was captured on; its launches hold the old addresses: \
                 capture it again",
            ));
        }
        for Captured { module, entry, name, geometry, arguments, operands } in &graph.launches {
            let launch = Launch { entry: name, geometry: *geometry, arguments, operands };
            // SAFETY: as in `launch`; the checks were made on memory of this address and so of this size.
            unsafe {
                self.run(module, *entry, &launch, memory.address())?;
            }
        }
        Ok(())
    }

    fn event(&self) -> Result<Instant> {
        Ok(Instant::now())
    }

    fn elapsed_seconds(&self, from: &Instant, to: &Instant) -> Result<f64> {
        Ok(to.duration_since(*from).as_secs_f64())
    }
}
