//! The interface between the CUDA backend and a device, and its implementations: a GPU, an emulator of one, and a recorder that remembers what it
//! was asked and does nothing.
//!
//! Everything above this line (kernel sources, launch configuration, argument packing, the arena, captured graphs) is the
//! same code on both; only the code generator and the silicon differ.

pub mod cache;
pub mod emulator;
pub mod native;
pub mod recorder;
pub mod tensor_map;

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::ops::{Access, Event, Graph};
use crate::tensor::Span;
use crate::values::named;

use super::source::Source;
use tensor_map::{TensorMap, TensorMapRequest};

/// Properties of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// The card's name, or "emulator".
    pub name: String,
    /// The architecture that kernels are compiled for: `sm_80`, `sm_90a`; `host` on the emulator.
    pub architecture: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// SMs (streaming multiprocessors).
    pub sms: u32,
    /// Bytes of device memory in all.
    pub memory_bytes: usize,
    /// Bytes of shared memory that a thread block may have.
    pub shared_bytes_per_block: usize,
    /// Bytes that must stay unused around every buffer, so that a stray access is seen. 0 on silicon.
    pub red_zone: usize,
    /// Versions of driver and compiler, for reports.
    pub versions: String,
}

impl Properties {
    /// The first compute capability with programmatic dependent launch.
    pub(super) const OVERLAPS_LAUNCHES: (u32, u32) = (9, 0);

    /// Whether the device has programmatic dependent launch (PDL): kernels wait by themselves for those launched before
    /// (`grid_dependency_wait` of `intrinsics/ptx.cuh`), so that it can place their thread blocks early.
    pub fn overlaps_launches(&self) -> bool {
        self.capability >= Properties::OVERLAPS_LAUNCHES
    }
}

named! {
    /// How the kernels of a stream follow each other. Their results are the same.
    pub enum Launches: "way of launching" {
        /// Programmatic dependent launch (PDL) where the device has it: a kernel's thread blocks are placed while the last ones of the kernel
        /// before it still run.
        Overlapped = "overlapped",
        /// A kernel begins once the one before it has ended.
        Serial = "serial",
    }
    default Overlapped
}

/// A grid of thread blocks, and their threads and shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Thread blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads in a thread block (one dimension); a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory (`SHARED_DYNAMIC` in a kernel).
    pub shared_bytes: u32,
    /// Thread blocks of a cluster, neighbours in x that run at the same time and access each other's shared memory; 1 without clusters.
    pub cluster: u32,
}

/// Most thread blocks of a cluster that every device with clusters can run.
pub const MOST_BLOCKS_OF_CLUSTER: u32 = 8;

impl LaunchConfig {
    /// The error in its clusters, if there is one.
    fn wrong_cluster(&self) -> Option<String> {
        let LaunchConfig { grid: [x, ..], cluster, .. } = *self;
        if cluster == 0 || cluster > MOST_BLOCKS_OF_CLUSTER {
            return Some(format!(
                "clusters of {cluster} blocks; a cluster has 1 to {MOST_BLOCKS_OF_CLUSTER}, all of them in x"
            ));
        }
        (!x.is_multiple_of(cluster)).then(|| {
            format!("{x} blocks in x in clusters of {cluster}; their number must be a multiple of {cluster}")
        })
    }
}

/// One kernel launch. A kernel takes exactly one argument: a struct, by value.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The kernel's name in its module.
    pub entry: &'a str,
    /// Grid and thread block.
    pub config: LaunchConfig,
    /// The bytes of the argument struct, at most [`MOST_ARGUMENT_BYTES`].
    pub arguments: &'a [u8],
    /// Every span that the kernel may access, by name, and how; the emulator checks each access.
    pub operands: &'a [(&'static str, Span, Access)],
}

/// Bytes that CUDA allows for all arguments of a kernel, on every architecture.
pub const MOST_ARGUMENT_BYTES: usize = 4096;

/// One flat piece of device memory; freed when it goes.
pub struct Memory {
    address: u64,
    bytes: usize,
    owner: Box<dyn Any + Send>,
}

impl Memory {
    /// Memory at an address of the device, which `owner` frees when it is dropped.
    pub fn new(address: u64, bytes: usize, owner: impl Any + Send) -> Memory {
        Memory { address, bytes, owner: Box::new(owner) }
    }

    /// The device address of the first byte, for kernel arguments.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device address of a range.
    ///
    /// # Errors
    /// It leaves the memory.
    pub fn range(&self, offset: usize, bytes: usize) -> Result<u64> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(Error::invalid(format!(
                "a copy of {bytes} bytes at byte {offset} leaves the device memory of {} bytes",
                self.bytes
            )));
        }
        Ok(self.address + offset as u64)
    }

    /// The owner, which frees it.
    ///
    /// # Panics
    /// The memory is another driver's.
    fn owner<T: Any>(&self) -> &T {
        self.owner.downcast_ref().expect("memory of this driver")
    }

    /// The same, to be changed.
    ///
    /// # Panics
    /// The memory is another driver's.
    fn owner_mut<T: Any>(&mut self) -> &mut T {
        self.owner.downcast_mut().expect("memory of this driver")
    }
}

/// A compiled and loaded kernel file, as its driver keeps it.
#[derive(Clone)]
pub struct LoadedModule(Arc<dyn Any + Send + Sync>);

impl LoadedModule {
    /// Wraps what a driver keeps of it.
    pub fn new(inner: impl Any + Send + Sync) -> LoadedModule {
        LoadedModule(Arc::new(inner))
    }

    /// The wrapped module.
    ///
    /// # Panics
    /// The module is another driver's.
    pub fn inner<T: Any>(&self) -> &T {
        self.0.downcast_ref().expect("a module of this driver")
    }
}

/// Waits for a copy to the host that is under way, not for anything queued behind it, and gives its bytes.
pub type Download = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// A device: memory, compiled modules, one stream of work in order.
///
/// Work is queued and runs in order; only `download`, a [`Download`], `synchronise` and `elapsed_seconds` wait.
pub trait Driver: Send + Sync {
    /// The properties of this device.
    fn properties(&self) -> &Properties;

    /// Zeroed memory; its first byte lies at a multiple of 256.
    ///
    /// # Errors
    /// Not enough memory.
    fn allocate(&self, bytes: usize) -> Result<Memory>;

    /// Queues a copy to the device. `bytes` may be reused on return.
    ///
    /// # Errors
    /// Out of bounds, or the device failed.
    fn upload(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Waits for all work and copies to the host.
    ///
    /// # Errors
    /// Out of bounds, or the device failed.
    fn download(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()>;

    /// Queues a copy to the host; work queued later does not wait for whoever fetches it.
    ///
    /// # Errors
    /// Out of bounds, or the device failed.
    fn begin_download(&self, memory: &Memory, offset: usize, bytes: usize) -> Result<Download>;

    /// Compiles a source, or takes it from the cache, and loads it.
    ///
    /// # Errors
    /// The compiler is missing or found errors (with the source's own file and line), or the device failed.
    fn module(&self, source: &Source) -> Result<LoadedModule>;

    /// Whether a source is compiled already, so that [`Driver::compile`] takes no time.
    fn is_compiled(&self, _source: &Source) -> bool {
        true
    }

    /// Compiles a source, or finds it compiled, for a later [`Driver::module`], which may be another process's.
    ///
    /// # Errors
    /// As [`Driver::module`].
    fn compile(&self, source: &Source) -> Result<()> {
        self.module(source).map(drop)
    }

    /// Encodes the tensor map by which kernels load boxes or pixels of a tensor to shared memory (`tma_load`).
    ///
    /// # Errors
    /// The request is beyond TMA's limits, or the device has no TMA.
    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// No such kernel, a configuration the device cannot do; on the emulator also everything the kernel does wrong.
    fn launch(&self, memory: &Memory, module: &LoadedModule, launch: &Launch<'_>) -> Result<()>;

    /// The launches that are queued next are predicted to take so long; a driver that waits with a deadline adds it to that.
    fn expect(&self, _seconds: f64) {}

    /// Waits until all work is done.
    ///
    /// # Errors
    /// The device failed.
    fn synchronise(&self) -> Result<()>;

    /// Captures the launches that `record` queues, without running them. `record` may neither copy nor wait.
    ///
    /// # Errors
    /// `record`'s own, or the device failed.
    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Graph>;

    /// Queues all launches of a graph.
    ///
    /// # Errors
    /// The device failed.
    fn replay(&self, memory: &Memory, graph: &Graph) -> Result<()>;

    /// Marks this point of the stream.
    ///
    /// # Errors
    /// The device failed.
    fn event(&self) -> Result<Event>;

    /// Waits for `to`, and tells the seconds between two events.
    ///
    /// # Errors
    /// The device failed.
    fn elapsed_seconds(&self, from: &Event, to: &Event) -> Result<f64>;
}
