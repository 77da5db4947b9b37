//! An emulated device: the same kernel sources, compiled by the host's C++ compiler, run thread by thread.
//!
//! | file | holds |
//! |---|---|
//! | `compiler` | text to library, through the cache |
//! | `abi` | the structs that kernels and this program share with `kernels/intrinsics/emulated.cuh` |
//! | `grid` | a launch: its checks, its thread blocks over threads of the host |
//! | `runner`, `running` | a thread block: a fiber for every thread, and the state they share |
//! | `barriers`, `order` | where threads wait for each other; which one runs next |
//! | `cluster` | thread blocks that run together and access each other's shared memory |
//! | `intrinsics` | the functions that kernels call |
//! | `shared`, `cp_async` | shared memory with red zones; cp.async |
//! | `mbarriers`, `tma` | barriers that count arrivals and bytes; TMA loads |
//! | `wgmma`, `async_proxy` | WGMMA instructions of a warpgroup; their view of shared memory |
//! | `errors` | errors of kernels, as sentences |
//!
//! Mistakes that a GPU answers with wrong numbers or a hang are errors here: an access outside the launch's operands, a write to
//! one that may only be read, lanes of a warp at different places, a thread that ends while others wait for it, a write
//! between arrays of shared memory. A dependence on the order of threads or the time of copies shows as results
//! that differ between [`Options`], or as NaN, which fills shared memory and the target of every copy in flight.

mod abi;
mod async_proxy;
mod barriers;
mod cluster;
mod compiler;
mod cp_async;
mod errors;
mod grid;
mod intrinsics;
mod mbarriers;
mod order;
mod runner;
mod running;
mod shared;
mod tma;
mod wgmma;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use memmap2::MmapMut;

use super::cache::Cache;
use super::tensor_map::{TensorMap, TensorMapRequest};
use super::{Download, Driver, Launch, LaunchConfig, LoadedModule, Memory, Properties};
use crate::backend::cuda::source::Source;
use crate::error::{Error, Result};
use crate::ops::{Access, Event, Graph};
use crate::tensor::Span;
use compiler::{Compiler, Module};

/// The order in which the threads of a thread block (and the thread blocks of a grid) run between two barriers. Results that
/// depend on it are races.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Lowest index first.
    #[default]
    Forward,
    /// Highest index first.
    Reverse,
    /// A new random order after every barrier, from a seed.
    Random(u64),
}

/// When cp.async and TMA loads are performed, and when WGMMA instructions, which read what these wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// Copies as late as allowed, when no thread can go on without them, and WGMMA at once: finds a missing wait for a copy.
    #[default]
    Lazy,
    /// Copies at once, and WGMMA as late as allowed, when it is waited for: finds a buffer that is filled again while
    /// it is still read.
    Eager,
}

/// Behaviour of an emulated device that a real one leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Order of threads.
    pub order: Order,
    /// Time of copies.
    pub copies: Copies,
    /// Threads of the host that run thread blocks; 0 means one per core.
    pub threads: usize,
}

/// What an emulated device refuses though a real one of its capability does not: for rehearsals of the day on which one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals {
    /// Launches in clusters.
    pub clusters: bool,
    /// Tensor maps.
    pub tensor_maps: bool,
    /// Captured graphs.
    pub captures: bool,
}

impl Refusals {
    /// The variable that names them: `clusters`, `tensor-maps`, `captures`, separated by commas.
    pub const VARIABLE: &'static str = "RESIDUA_EMULATOR_REFUSES";

    /// Those of the environment.
    ///
    /// # Errors
    /// A word that is none.
    pub fn of_environment() -> Result<Refusals> {
        let mut refusals = Refusals::default();
        for word in std::env::var(Refusals::VARIABLE).unwrap_or_default().split(',') {
            match word.trim() {
                "" => {}
                "clusters" => refusals.clusters = true,
                "tensor-maps" => refusals.tensor_maps = true,
                "captures" => refusals.captures = true,
                other => {
                    return Err(Error::usage(format!(
                        "{} names what the emulator refuses: clusters, tensor-maps, captures; found `{other}`",
                        Refusals::VARIABLE
                    )));
                }
            }
        }
        Ok(refusals)
    }

    /// What tells such a device from one that refuses nothing.
    fn in_words(self) -> String {
        let words =
            [(self.clusters, "clusters"), (self.tensor_maps, "tensor maps"), (self.captures, "captures")];
        let refused: Vec<&str> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        if refused.is_empty() { String::new() } else { format!(", refuses {}", refused.join(", ")) }
    }

    fn refuse(is_refused: bool, what: &str) -> Result<()> {
        if is_refused {
            return Err(Error::invalid(format!(
                "the emulated device refuses {what}, as {} asks",
                Refusals::VARIABLE
            )));
        }
        Ok(())
    }
}

/// Bytes of memory an emulated device pretends to have.
const MEMORY_BYTES: usize = 8 << 30;

/// Bytes around buffers that are left unused, so that a stray access is seen.
const RED_ZONE: usize = 256;

/// Steps after which a thread block is taken for one that never ends.
const PATIENCE: u64 = 1 << 30;

/// An emulated device.
pub struct Emulator {
    properties: Properties,
    options: Options,
    refuses: Refusals,
    compiler: Compiler,
    cache: Cache,
    patience: u64,
    /// None where one thread is enough.
    pool: Option<rayon::ThreadPool>,
    captured: Capturing,
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

    /// Stops a thread block after `steps` steps: an access to global memory is one, a turn of a warp 32.
    #[must_use]
    pub fn with_patience(mut self, steps: u64) -> Emulator {
        self.patience = steps;
        self
    }

    /// The same device, which refuses to do some things.
    #[must_use]
    pub fn with_refusals(mut self, refuses: Refusals) -> Emulator {
        self.refuses = refuses;
        self.properties.versions += &refuses.in_words();
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
            sms: 4,
            memory_bytes: MEMORY_BYTES,
            shared_bytes_per_block: shared::MOST_BYTES,
            red_zone: RED_ZONE,
            versions: compiler.version.clone(),
        };
        Ok(Emulator {
            properties,
            options,
            refuses: Refusals::default(),
            compiler,
            cache,
            patience: PATIENCE,
            pool,
            captured: Capturing::default(),
        })
    }

    /// # Safety
    /// As for [`grid::run`].
    unsafe fn run(&self, module: &Module, entry: abi::Entry, launch: &Launch<'_>, base: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { grid::run(self.pool.as_ref(), self.options, self.patience, module, entry, launch, base) }
    }

    /// Refuses what a stream that is being captured cannot do.
    fn not_while_capturing(&self, what: &str) -> Result<()> {
        self.captured.refuse(what)
    }
}

/// A launch as a graph keeps it: everything frozen.
struct Captured {
    module: Module,
    entry: abi::Entry,
    name: String,
    config: LaunchConfig,
    arguments: Vec<u8>,
    operands: Vec<(&'static str, Span, Access)>,
    /// Where the memory lay that it was captured on, and its bytes.
    memory: (u64, usize),
}

/// Launches of the graph that is being captured, if one is.
#[derive(Clone, Default)]
struct Capturing(Arc<Mutex<Option<Vec<Captured>>>>);

impl Capturing {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Captured>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what a stream that is being captured cannot do.
    fn refuse(&self, what: &str) -> Result<()> {
        if self.lock().is_some() {
            return Err(Error::invalid(format!(
                "{what} while a graph is captured: only launches can be part of one; move it before or after"
            )));
        }
        Ok(())
    }
}

/// A capture under way; it ends when this goes, also by an error or a panic.
struct Capture<'a>(&'a Capturing);

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Launches that can be replayed on the memory they were captured on.
struct CapturedStep {
    launches: Vec<Captured>,
}

impl Driver for Emulator {
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
        Ok(Memory::new(map.as_ptr() as u64, bytes, map))
    }

    fn upload(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        self.not_while_capturing("an upload")?;
        memory.range(offset, bytes.len())?;
        memory.owner_mut::<MmapMut>()[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn download(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.not_while_capturing("a download")?;
        memory.range(offset, bytes.len())?;
        bytes.copy_from_slice(&memory.owner::<MmapMut>()[offset..][..bytes.len()]);
        Ok(())
    }

    fn begin_download(&self, memory: &Memory, offset: usize, bytes: usize) -> Result<Download> {
        let mut copy = vec![0; bytes];
        self.download(memory, offset, &mut copy)?;
        let captured = self.captured.clone();
        Ok(Box::new(move || {
            captured.refuse("waiting for a download")?;
            Ok(copy)
        }))
    }

    fn is_compiled(&self, source: &Source) -> bool {
        self.compiler.is_cached(source, &self.cache)
    }

    fn module(&self, source: &Source) -> Result<LoadedModule> {
        self.compiler.module(source, &self.cache).map(LoadedModule::new)
    }

    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
        request.check()?;
        Refusals::refuse(self.refuses.tensor_maps, "tensor maps")?;
        Ok(tma::encode(request))
    }

    fn launch(&self, memory: &Memory, module: &LoadedModule, launch: &Launch<'_>) -> Result<()> {
        let module: &Module = module.inner();
        Refusals::refuse(self.refuses.clusters && launch.config.cluster > 1, "clusters")?;
        let entry = grid::check(module, launch, memory.bytes())?;
        if let Some(captured) = &mut *self.captured.lock() {
            captured.push(Captured {
                module: module.clone(),
                entry,
                name: launch.entry.to_string(),
                config: launch.config,
                arguments: launch.arguments.to_vec(),
                operands: launch.operands.to_vec(),
                memory: (memory.address(), memory.bytes()),
            });
            return Ok(());
        }
        // SAFETY: the memory is borrowed for as long as the launch runs, and its operands were checked to lie in it.
        unsafe { self.run(module, entry, launch, memory.address()) }
    }

    fn synchronise(&self) -> Result<()> {
        self.not_while_capturing("waiting for the device")
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        self.not_while_capturing("a second capture begins")?;
        Refusals::refuse(self.refuses.captures, "captured graphs")?;
        *self.captured.lock() = Some(Vec::new());
        let capture = Capture(&self.captured);
        record()?;
        let launches = self.captured.lock().take().unwrap_or_default();
        drop(capture);
        Ok(Graph::new(CapturedStep { launches }))
    }

    fn replay(&self, memory: &Memory, graph: &Graph) -> Result<()> {
        self.not_while_capturing("a replay")?;
        for captured in &graph.inner::<CapturedStep>().launches {
            let Captured { module, entry, name, config, arguments, operands, memory: captured_on } = captured;
            if *captured_on != (memory.address(), memory.bytes()) {
                return Err(Error::invalid(
                    "a graph is replayed on other memory than it was captured on; its launches hold the old addresses: \
                     capture it again",
                ));
            }
            let launch = Launch { entry: name, config: *config, arguments, operands };
            // SAFETY: as in `launch`; the checks were made on memory of this address and size.
            unsafe {
                self.run(module, *entry, &launch, memory.address())?;
            }
        }
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        Ok(Event::new(Instant::now()))
    }

    fn elapsed_seconds(&self, from: &Event, to: &Event) -> Result<f64> {
        Ok(to.inner::<Instant>().duration_since(*from.inner()).as_secs_f64())
    }
}
