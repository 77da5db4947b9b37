//! A device that computes nothing and remembers what it was asked to launch: the kernels, grids and operands of a plan on a
//! card that need not be there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tensor_map::{TensorMap, TensorMapRequest};
use super::{Download, Driver, Launch, LaunchConfig, LoadedModule, Memory, Properties};
use crate::backend::cuda::source::Source;
use crate::error::Result;
use crate::ops::{Access, Event, Graph};
use crate::tensor::Span;

/// Where the memory of a recorder seems to lie; nothing is ever read there.
const ADDRESS: u64 = 1 << 40;

/// A launch that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLaunch {
    /// The module's text.
    pub source: Arc<Source>,
    /// The kernel's name.
    pub entry: String,
    /// Grid and thread block.
    pub config: LaunchConfig,
    /// The operands that it may access, and how.
    pub operands: Vec<(&'static str, Span, Access)>,
}

/// Remembers launches.
pub struct Recorder {
    properties: Properties,
    launches: Mutex<Vec<RecordedLaunch>>,
}

impl Recorder {
    /// In place of a card of these properties, on which kernels, tiles and grids depend.
    pub fn new(properties: Properties) -> Recorder {
        Recorder { properties, launches: Mutex::new(Vec::new()) }
    }

    /// The launches since the last look.
    pub fn take(&self) -> Vec<RecordedLaunch> {
        std::mem::take(&mut *self.launches())
    }

    fn launches(&self) -> MutexGuard<'_, Vec<RecordedLaunch>> {
        self.launches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Recorder {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Ok(Memory::new(ADDRESS, bytes, ()))
    }

    fn upload(&self, _: &mut Memory, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&self, _: &Memory, _: usize, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn begin_download(&self, _: &Memory, _: usize, bytes: usize) -> Result<Download> {
        Ok(Box::new(move || Ok(vec![0; bytes])))
    }

    fn module(&self, source: &Source) -> Result<LoadedModule> {
        Ok(LoadedModule::new(Arc::new(source.clone())))
    }

    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
        request.check()?;
        Ok(TensorMap::default())
    }

    fn launch(&self, _: &Memory, module: &LoadedModule, launch: &Launch<'_>) -> Result<()> {
        self.launches().push(RecordedLaunch {
            source: module.inner::<Arc<Source>>().clone(),
            entry: launch.entry.to_string(),
            config: launch.config,
            operands: launch.operands.to_vec(),
        });
        Ok(())
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        let before = self.launches().len();
        record()?;
        Ok(Graph::new(self.launches().split_off(before)))
    }

    fn replay(&self, _: &Memory, graph: &Graph) -> Result<()> {
        self.launches().extend(graph.inner::<Vec<RecordedLaunch>>().iter().cloned());
        Ok(())
    }

    fn event(&self) -> Result<Event> {
        Ok(Event::new(()))
    }

    fn elapsed_seconds(&self, _: &Event, _: &Event) -> Result<f64> {
        Ok(0.0)
    }
}
