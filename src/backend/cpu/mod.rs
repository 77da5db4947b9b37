//! The CPU backend: every operation in Rust, generic over f32 and f64.
//!
//! | file | holds |
//! |---|---|
//! | `device` | the [`crate::ops::Device`] implementation: checks calls, hands each to its function |
//! | `memory`, `host` | the flat memory and its one checked way to slices; the host's reads and writes |
//! | `chunks` | how work is cut, by shape alone |
//! | `convolution` | convolutions and their gradients: direct, and by Winograd's algorithm |
//! | `scratch` | buffers that tasks borrow |
//! | `linear`, `cosine` | matrix products of the fully connected layer and of the cosine classifier |
//! | `pool_head` | the mean over all pixels and the fully connected layer in one call |
//! | `batch_norm`, `pointwise`, `pooling`, `optimizer` | passes bound by memory; `shortcut` has the loops of its own |
//! | `loss`, `divergence`, `groups`, `energy` | losses and other functions of logits; the totals of a step |
//! | `images` | from bytes to network inputs |
//! | `rows` | passes over many rows of features, for scores and statistics |
//!
//! Each operation of the list has a function of its name in the module of its family: `pointwise::relu`. It finds the
//! operands' slices; type, size, place and extents were checked once for all of them.
//!
//! Nothing here depends on the number of threads but the time it takes.

mod batch_norm;
mod chunks;
mod convolution;
mod cosine;
mod device;
mod divergence;
mod element;
mod energy;
mod groups;
mod host;
mod images;
mod linear;
mod loss;
mod memory;
mod optimizer;
mod pointwise;
mod pool_head;
mod pooling;
mod row_scores;
mod rows;
mod scratch;
mod shortcut;

use std::marker::PhantomData;
use std::sync::Arc;

pub use element::Element;
use memory::Memory;
use scratch::Scratch;

use crate::error::{Error, Result};
use crate::tensor::DType;

/// The CPU as a device: its memory, and a pool of threads that computes in `T`.
#[derive(Debug)]
pub struct Cpu<T> {
    memory: Memory,
    scratch: Scratch,
    /// Shared, so that a call can borrow all of the device while it runs on it.
    pool: Arc<rayon::ThreadPool>,
    working_type: PhantomData<T>,
}

impl<T: Element> Cpu<T> {
    /// A device without memory yet, with its own pool of `threads` threads; 0 means all that affinity, control
    /// groups and the scheduler leave.
    ///
    /// # Errors
    /// The system refused the threads.
    pub fn new(threads: usize) -> Result<Cpu<T>> {
        let threads = if threads == 0 { crate::threads::available() } else { threads };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(|error| {
                Error::invalid(format!("cannot start {threads} threads: {error}; ask for fewer"))
            })?;
        Ok(Cpu {
            memory: Memory::new(0)?,
            scratch: Scratch::default(),
            pool: Arc::new(pool),
            working_type: PhantomData,
        })
    }

    /// For people: "cpu, f32, 2 threads".
    fn description(&self) -> String {
        let threads = self.threads();
        let plural = if threads == 1 { "" } else { "s" };
        format!("cpu, {}, {threads} thread{plural}", if T::DTYPE == DType::F32 { "f32" } else { "f64" })
    }

    /// Number of threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}
