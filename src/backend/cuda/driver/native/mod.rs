//! A real GPU, through the driver library and NVRTC, both found at run time.

pub mod nvrtc;
pub mod ptxas;
pub mod search;

use super::{Driver, Launch, Properties};
use crate::backend::cuda::source::Source;
use crate::error::Result;

/// A GPU.
pub struct Native {
    properties: Properties,
}

impl Native {
    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// No driver, no such GPU, no NVRTC; the message says how to get what is missing.
    pub fn new(ordinal: usize) -> Result<Native> {
        let _ = ordinal;
        todo!()
    }

    /// GPU number `ordinal`, or nothing where there is none.
    pub fn if_present(ordinal: usize) -> Option<Native> {
        let _ = ordinal;
        None
    }
}

impl Driver for Native {
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
