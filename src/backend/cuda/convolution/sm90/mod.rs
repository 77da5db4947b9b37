//! Implicit GEMMs by TMA and WGMMA on sm_90a: `convolution/sm90/*.cu`.
//!
//! | file | holds |
//! |---|---|
//! | `implicit_gemm`, `halo_reuse`, `streaming_wgrad` | the families, and their kernels |
//! | `family` | what tells them apart, and their launches |
//! | `arguments` | the argument that all of them take |
//! | `tensor_maps` | the boxes of images and filters that TMA loads |
//! | `row_layout` | image rows in shared memory, as halo reuse and the streaming wgrad keep them |

mod arguments;
#[cfg(test)]
mod epilogue_tests;
mod family;
mod halo_reuse;
mod implicit_gemm;
mod row_layout;
mod streaming_wgrad;
mod tensor_maps;

use super::kernel::Kernel;

/// The kernels of this architecture, by family. Of candidates that should take equally long the first is chosen: kernels that keep rows, then
/// larger tiles before smaller, then clusters.
pub(super) static FAMILIES: [&[Kernel]; 3] =
    [&halo_reuse::KERNELS, &streaming_wgrad::KERNELS, &implicit_gemm::KERNELS];
