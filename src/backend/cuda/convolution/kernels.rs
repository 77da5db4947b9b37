//! The list of compiled convolution kernels. They are specialised on tile and alignment only.

use super::kernel::Kernel;
use super::{sm80, sm90, sm100, sm120};
use crate::backend::cuda::{Entry, Module, Variant};

/// The families of every architecture. Of kernels that should take equally long the first is chosen: an architecture's own before the
/// portable ones.
static ARCHITECTURES: [&[&[Kernel]]; 4] =
    [&sm120::FAMILIES, &sm100::FAMILIES, &sm90::FAMILIES, &sm80::FAMILIES];

/// Every kernel.
pub(super) fn kernels() -> impl Iterator<Item = &'static Kernel> + Clone {
    ARCHITECTURES.into_iter().flatten().copied().flatten()
}

/// Adds the split-K slices of a wgrad.
pub(super) const SPLIT_K_REDUCE: Module = Module {
    variant: Variant { file: "convolution/split_k_reduce.cu", constants: &[] },
    entries: &[Entry { name: "split_k_reduce", registers: 64, tensor_cores: false, wide_loads: true }],
};

/// All modules of convolutions.
pub(super) fn modules() -> impl Iterator<Item = Module> {
    kernels().map(|kernel| kernel.module).chain([SPLIT_K_REDUCE])
}
