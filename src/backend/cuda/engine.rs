//! The device object of the CUDA backend: its memory, compiled modules and launches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::card::Card;
use super::convolution::exclusions::Exclusions;
use super::convolution::tuned::KernelTable;
use super::driver::recorder::Recorder;
use super::driver::{Driver, Launch, LaunchConfig, LoadedModule, MOST_ARGUMENT_BYTES, Memory};
use super::qualifier::Qualifier;
use super::source::{Source, Sources, Variant};
use crate::error::{Error, Result};
use crate::ops::{Access, Call, CallConfig, Device};
use crate::tensor::{DType, Span};

/// A device that computes with our kernels.
pub struct Cuda {
    // Memory and modules go before the driver they belong to.
    pub(super) memory: Option<Memory>,
    modules: Mutex<HashMap<Variant, LoadedModule>>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) dtype: DType,
    /// The device in numbers, by which kernels are chosen.
    pub(super) card: Card,
    sources: Sources,
    pub(super) table: Option<KernelTable>,
    /// What is not used on this device.
    pub(super) exclusions: Exclusions,
    /// Who is asked before memory is allocated, and the calls that were prepared since.
    pub(super) qualifier: Option<Arc<dyn Qualifier>>,
    pub(super) prepared: Mutex<Vec<Call<()>>>,
}

impl Cuda {
    /// A device without memory yet, whose activations are f32 or bf16.
    ///
    /// # Errors
    /// Another type.
    pub fn new(driver: Arc<dyn Driver>, dtype: DType, sources: Sources) -> Result<Cuda> {
        if !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(Error::usage(format!(
                "kernels compute in f32 or bf16, not in {dtype:?}; f64 is the CPU's"
            )));
        }
        let card = Card::nearest(driver.properties());
        Ok(Cuda {
            memory: None,
            modules: Mutex::default(),
            driver,
            dtype,
            card,
            sources,
            table: None,
            exclusions: Exclusions::default(),
            qualifier: None,
            prepared: Mutex::default(),
        })
    }

    /// The same without some kernels and mechanisms.
    #[must_use]
    pub fn without(self, exclusions: Exclusions) -> Cuda {
        Cuda { exclusions, ..self }
    }

    /// The same, which asks before it gets memory for the calls that were prepared.
    #[must_use]
    pub fn admitted_by(self, qualifier: Arc<dyn Qualifier>) -> Cuda {
        Cuda { qualifier: Some(qualifier), ..self }
    }

    /// The kernels' sources.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// What is not used on this device.
    pub fn exclusions(&self) -> &Exclusions {
        &self.exclusions
    }

    /// Lets the qualifier look at what was prepared since it looked last.
    pub(super) fn ask_for_admission(&self) -> Result<()> {
        let Some(qualifier) = &self.qualifier else { return Ok(()) };
        let calls = std::mem::take(&mut *self.prepared.lock().unwrap_or_else(PoisonError::into_inner));
        if calls.is_empty() { Ok(()) } else { qualifier.admit(self, &calls) }
    }

    /// Compiles the kernels of a source for this device, or finds them compiled; a GPU is not touched.
    ///
    /// # Errors
    /// They do not compile.
    pub fn compile(&self, source: &Source) -> Result<()> {
        self.driver.compile(source)
    }

    /// Compiles the kernels of a source for this device, or finds them compiled, and loads them.
    ///
    /// # Errors
    /// They do not compile, or the device does not load them.
    pub fn load(&self, source: &Source) -> Result<()> {
        self.driver.module(source).map(drop)
    }

    /// The sources of the kernels that calls launch, each once: found by launching them where nothing runs.
    pub(super) fn sources_of(
        &self,
        calls: &mut dyn Iterator<Item = (&Call<Span>, &CallConfig, Span)>,
    ) -> Result<Vec<Arc<Source>>> {
        let recorder = Arc::new(Recorder::new(self.driver.properties().clone()));
        let mut recording = Cuda {
            memory: Some(recorder.allocate(self.memory()?.bytes())?),
            modules: Mutex::default(),
            driver: recorder.clone(),
            dtype: self.dtype,
            card: self.card.clone(),
            sources: self.sources.clone(),
            table: self.table.clone(),
            exclusions: self.exclusions.clone(),
            qualifier: None,
            prepared: Mutex::default(),
        };
        for (call, config, workspace) in calls {
            recording.run_prepared(call, config, workspace)?;
        }
        let mut sources: Vec<Arc<Source>> = Vec::new();
        for launch in recorder.take() {
            if !sources.iter().any(|known| known.text == launch.source.text) {
                sources.push(launch.source);
            }
        }
        Ok(sources)
    }

    /// The device.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The module of a variant, compiled and loaded at its first use.
    fn module(&self, variant: &Variant) -> Result<LoadedModule> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(variant) {
            return Ok(module.clone());
        }
        let module = self.driver.module(&self.sources.assemble(variant)?)?;
        modules.insert(*variant, module.clone());
        Ok(module)
    }

    /// Launches an entry of a module.
    pub(super) fn launch<A: bytemuck::Pod>(
        &self,
        kernel: (&Variant, &'static str),
        config: LaunchConfig,
        arguments: &A,
        operands: &[(&'static str, Span, Access)],
    ) -> Result<()> {
        const { assert!(size_of::<A>() <= MOST_ARGUMENT_BYTES, "a kernel's arguments fit 4 KiB") };
        self.launch_bytes(kernel, config, bytemuck::bytes_of(arguments), operands)
    }

    /// The same for the bytes of any arguments.
    fn launch_bytes(
        &self,
        (variant, entry): (&Variant, &'static str),
        config: LaunchConfig,
        arguments: &[u8],
        operands: &[(&'static str, Span, Access)],
    ) -> Result<()> {
        let memory = self.memory()?;
        let bytes = memory.bytes();
        for (name, span, _) in operands {
            if span.offset.checked_add(span.bytes()).is_none_or(|end| end > bytes) {
                return Err(Error::invalid(format!(
                    "operand `{name}` of {entry}, {} bytes at byte {}, leaves the memory of {bytes} bytes",
                    span.bytes(),
                    span.offset
                )));
            }
        }
        let module = self.module(variant)?;
        let launch = Launch { entry, config, arguments, operands };
        self.driver.launch(memory, &module, &launch)
    }

    /// The device address of a span, for a kernel's arguments.
    pub(super) fn pointer(&self, span: Span) -> u64 {
        self.memory.as_ref().map_or(0, Memory::address) + span.offset as u64
    }

    /// The same, or 0 where it is empty.
    pub(super) fn pointer_or_null(&self, span: Span) -> u64 {
        if span.elements > 0 { self.pointer(span) } else { 0 }
    }

    pub(super) fn memory(&self) -> Result<&Memory> {
        self.memory.as_ref().ok_or_else(no_memory)
    }
}

pub(super) fn no_memory() -> Error {
    Error::invalid("the device was given no memory; allocate some before calls and copies")
}
