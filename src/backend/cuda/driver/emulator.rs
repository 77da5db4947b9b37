//! An emulated device: the same kernel sources, compiled by the host's C++ compiler, run thread by thread.

use super::{Driver, Launch, Properties};
use crate::backend::cuda::source::Source;
use crate::error::Result;

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

/// When an asynchronous copy happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copies {
    /// As late as allowed, at the wait: finds a missing wait.
    #[default]
    Lazy,
    /// At once: finds a buffer that is filled again while it is still read.
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

/// An emulated device.
pub struct Emulator {
    properties: Properties,
}

impl Emulator {
    /// An emulated device.
    ///
    /// # Errors
    /// No C++ compiler is found.
    pub fn new(options: Options) -> Result<Emulator> {
        let _ = options;
        todo!()
    }
}

impl Driver for Emulator {
    type Memory = ();
    type Module = ();
    type Graph = ();
    type Download = ();
    type Event = ();

    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn allocate(&self, bytes: usize) -> Result<Self::Memory> {
        todo!()
    }
    fn bytes(&self, memory: &Self::Memory) -> usize {
        todo!()
    }
    fn address(&self, memory: &Self::Memory) -> u64 {
        todo!()
    }
    fn upload(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        todo!()
    }
    fn download(&self, memory: &Self::Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        todo!()
    }
    fn begin_download(&self, memory: &Self::Memory, offset: usize, bytes: usize) -> Result<Self::Download> {
        todo!()
    }
    fn finish_download(&self, download: Self::Download) -> Result<Vec<u8>> {
        todo!()
    }
    fn module(&self, source: &Source) -> Result<Self::Module> {
        todo!()
    }
    fn launch(&self, memory: &mut Self::Memory, module: &Self::Module, launch: &Launch<'_>) -> Result<()> {
        todo!()
    }
    fn synchronise(&self) -> Result<()> {
        todo!()
    }
    fn capture(
        &self,
        memory: &mut Self::Memory,
        record: &mut dyn FnMut(&mut Self::Memory) -> Result<()>,
    ) -> Result<Self::Graph> {
        todo!()
    }
    fn replay(&self, memory: &mut Self::Memory, graph: &Self::Graph) -> Result<()> {
        todo!()
    }
    fn event(&self) -> Result<Self::Event> {
        todo!()
    }
    fn elapsed_seconds(&self, from: &Self::Event, to: &Self::Event) -> Result<f64> {
        todo!()
    }
}
