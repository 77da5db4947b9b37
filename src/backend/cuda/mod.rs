//! The CUDA backend: every operation as launches of our own kernels, in f32 or bf16.
//!
//! | file | holds |
//! |---|---|
//! | `backend` | the [`crate::ops::Backend`] implementation: hands operands to the launchers below |
//! | `device` | the [`crate::ops::Device`] implementation: copies and captured graphs |
//! | `convolution`, `batch_norm`, `pointwise`, `pooling`, `linear`, `cosine`, `loss`, `divergence`, `optimizer`, `images` | a launcher for each file of `kernels/` of the same name: checks, geometry, arguments |
//! | `rows` | the [`crate::ops::RowOps`] implementation: launches of `kernels/rows_*.cu` |
//! | `call` | what the launchers share: checked operands, grids, variants by type |
//! | `module` | what is compiled: variants of kernel files, and the limits the compile gate holds them to |
//! | `source`, `edited` | the kernels' text, embedded or from a folder |
//! | `host` | values between the host's types and the device's |
//! | [`driver`] | the device itself: a GPU, or its emulator |

mod backend;
mod batch_norm;
mod call;
mod convolution;
mod cosine;
mod device;
mod divergence;
pub mod driver;
mod edited;
mod energy;
mod groups;
mod host;
mod images;
mod linear;
mod loss;
mod module;
mod optimizer;
mod pointwise;
mod pool_head;
mod pooling;
mod rows;
mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

pub use convolution::{Items, KernelTable, MeasuredOn, Pass, Products, TableRow, Units};
pub use edited::{EditedSources, TakenSources};
pub use module::{Entry, Module, modules};
pub use source::{EMBEDDED, Source, Sources, Variant};

use crate::error::{Error, Result};
use crate::ops::Access;
use crate::tensor::{DType, Span};
use driver::{Driver, Geometry, Launch, MOST_ARGUMENT_BYTES};

/// A device that computes with our kernels.
pub struct Cuda<D: Driver> {
    driver: D,
    dtype: DType,
    sources: Sources,
    table: Option<KernelTable>,
    modules: Mutex<HashMap<Variant, Arc<D::Module>>>,
}

impl<D: Driver> Cuda<D> {
    /// A backend whose activations are f32 or bf16.
    ///
    /// # Errors
    /// Another type.
    pub fn new(driver: D, dtype: DType, sources: Sources) -> Result<Cuda<D>> {
        if !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(Error::usage(format!(
                "kernels compute in f32 or bf16, not in {dtype:?}; f64 is the CPU's"
            )));
        }
        Ok(Cuda { driver, dtype, sources, table: None, modules: Mutex::new(HashMap::new()) })
    }

    /// The same with kernels for convolutions as a table says, where it has them.
    ///
    /// # Errors
    /// The table was measured on another device.
    pub fn with_table(mut self, table: KernelTable) -> Result<Cuda<D>> {
        table.check_device(self.driver.properties())?;
        self.table = Some(table);
        Ok(self)
    }

    /// The same with the predicted kernels.
    pub fn without_table(self) -> Cuda<D> {
        Cuda { table: None, ..self }
    }

    /// The device.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The module of a variant, compiled and loaded at its first use.
    fn module(&self, variant: &Variant) -> Result<Arc<D::Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(variant) {
            return Ok(module.clone());
        }
        let module = Arc::new(self.driver.module(&self.sources.assemble(variant)?)?);
        modules.insert(*variant, module.clone());
        Ok(module)
    }

    /// Launches an entry of a module.
    fn launch<A: bytemuck::Pod>(
        &self,
        memory: &mut D::Memory,
        (variant, entry): (&Variant, &'static str),
        geometry: Geometry,
        arguments: &A,
        operands: &[(&'static str, Span, Access)],
    ) -> Result<()> {
        const { assert!(size_of::<A>() <= MOST_ARGUMENT_BYTES, "a kernel's arguments fit 4 KiB") };
        let bytes = self.driver.bytes(memory);
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
        let launch = Launch { entry, geometry, arguments: bytemuck::bytes_of(arguments), operands };
        self.driver.launch(memory, &module, &launch)
    }

    /// The device address of a span, for a kernel's arguments.
    fn pointer(&self, memory: &D::Memory, span: Span) -> u64 {
        self.driver.address(memory) + span.offset as u64
    }
}
