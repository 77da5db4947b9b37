//! The CUDA backend: every operation as launches of our own kernels, in f32 or bf16.
//!
//! | file | holds |
//! |---|---|
//! | `engine` | the device object: its memory, compiled modules and launches |
//! | `device` | the [`crate::ops::Device`] implementation: hands calls to the launchers below; copies and captured graphs |
//! | `convolution`, `batch_norm`, `pointwise`, `pooling`, `linear`, `cosine`, `loss`, `divergence`, `optimizer`, `images` | a launcher for each family of `kernels/`: checks, launch configuration, arguments |
//! | `card` | cards in numbers, for the cost model of convolutions |
//! | `rows` | launchers of `kernels/rows/*.cu` |
//! | `calibration` | launchers of `kernels/calibration/`, which measure what the cost model assumes |
//! | `call` | what the launchers share: checked operands, grids, variants by type |
//! | `module` | a compiled variant of a kernel file, and the limits that the compile gate holds it to |
//! | `kernel_files` | the structs that kernels take and the constants that launchers share, made of `kernels/` by `build.rs` |
//! | `qualifier` | the interface of what tries kernels before they are used |
//! | `source`, `edited` | the kernels' text, embedded or from a folder |
//! | `host` | values between the host's types and the device's |
//! | [`driver`] | the device itself: a GPU, or its emulator |

mod batch_norm;
pub mod calibration;
mod call;
pub mod card;
mod compiling;
mod convolution;
mod cosine;
mod device;
mod divergence;
pub mod driver;
mod edited;
mod energy;
mod engine;
mod groups;
mod host;
mod images;
mod kernel_files;
mod linear;
mod loss;
mod module;
mod optimizer;
mod pointwise;
mod pool_head;
mod pooling;
mod qualifier;
mod row_scores;
mod rows;
mod source;

pub use compiling::watch_compiling;
pub use convolution::exclusions::{Exclusions, GRAPHS, PDL};
pub use convolution::tuned::{KernelTable, MeasuredOn, TableRow};
pub use convolution::{ConvolutionKernel, Pass, Products, cost};
pub use device::modules;
pub use edited::{EditedSources, TakenSources};
pub use engine::Cuda;
pub use module::{Entry, Module};
pub use qualifier::Qualifier;
pub use source::{EMBEDDED, Source, Sources, Variant};
