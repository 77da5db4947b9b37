//! Shared by all launchers: grids that fit, scratch memory, variants by working type.

use super::driver::LaunchConfig;
pub(super) use super::kernel_files::common::vectorized::{THREADS, WARPS};
use super::module::Entry;
use super::source::Variant;
use super::{Cuda, Module};
use crate::error::{Error, Result};
use crate::ops::{self, Access};
use crate::tensor::{DType, Span};

/// An operand as a launch lists it.
pub(super) type Operand = (&'static str, Span, Access);

/// The operands of an operation that is one launch.
pub(super) fn all(operands: Vec<ops::Operand<Span>>) -> Vec<Operand> {
    operands.into_iter().map(|operand| (operand.name, operand.place, operand.access)).collect()
}

/// The variants of a file for either working type.
pub(super) const fn of_both_types(file: &'static str) -> [Variant; 2] {
    [Variant { file, constants: &[("BF16", 0)] }, Variant { file, constants: &[("BF16", 1)] }]
}

/// A file's modules for either working type.
pub(super) fn modules_of_both_types(file: &'static str, entries: &'static [Entry]) -> Vec<Module> {
    of_both_types(file).map(|variant| Module { variant, entries }).to_vec()
}

/// A kernel that computes without tensor cores.
pub(super) const fn entry(name: &'static str, registers: u32, wide_loads: bool) -> Entry {
    Entry { name, registers, tensor_cores: false, wide_loads }
}

impl Cuda {
    /// The variant of a file for this backend's working type.
    pub(super) fn variant(&self, file: &'static str) -> Variant {
        of_both_types(file)[usize::from(self.dtype == DType::Bf16)]
    }

    /// Activations in a vector of 16 bytes.
    pub(super) fn vector_size(&self) -> usize {
        16 / self.dtype.size()
    }
}

/// The first `elements` f32 of a call's scratch memory.
pub(super) fn scratch(workspace: Span, elements: usize) -> Result<Span> {
    if workspace.bytes() < elements * DType::F32.size() {
        return Err(Error::invalid(format!(
            "a call has {} bytes of scratch memory and needs {}",
            workspace.bytes(),
            elements * DType::F32.size()
        )));
    }
    Ok(Span { offset: workspace.offset, elements, dtype: DType::F32 })
}

/// A grid of `x` times `y` thread blocks.
pub(super) fn grid(x: usize, y: usize) -> Result<LaunchConfig> {
    const MOST: [usize; 2] = [i32::MAX as usize, u16::MAX as usize];
    if x > MOST[0] || y > MOST[1] {
        return Err(Error::invalid(format!(
            "a kernel would need {x} x {y} blocks, and a device runs {} x {}; take a smaller batch",
            MOST[0], MOST[1]
        )));
    }
    Ok(LaunchConfig { grid: [x as u32, y as u32, 1], threads: THREADS as u32, shared_bytes: 0, cluster: 1 })
}

/// A grid with a thread for each vector or element.
pub(super) fn threads(work: usize) -> Result<LaunchConfig> {
    grid(work.div_ceil(THREADS), 1)
}

/// The same for kernels that count threads in 32 bits.
pub(super) fn few_threads(work: usize) -> Result<LaunchConfig> {
    extent(work.next_multiple_of(THREADS))?;
    threads(work)
}

/// An extent as kernels count it.
pub(super) fn extent(value: usize) -> Result<u32> {
    // Kernels add a tile to an extent without looking.
    u32::try_from(value).ok().filter(|value| *value < 1 << 31).ok_or_else(|| {
        Error::invalid(format!("kernels count extents below 2147483648; found {value}, take a smaller batch"))
    })
}
