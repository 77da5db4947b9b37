//! Blackwell workstation GPUs. No kernel is written for this architecture yet; its families go here.

use super::kernel::Kernel;

/// The kernels of this architecture, by family.
pub(super) static FAMILIES: [&[Kernel]; 0] = [];
