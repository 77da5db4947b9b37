//! The CPU backend: every operation in Rust, generic over f32 and f64.
//!
//! | file | holds |
//! |---|---|
//! | `backend` | the [`crate::ops::Backend`] implementation: checks operands, calls the kernels below |
//! | `device` | the [`crate::ops::Device`] implementation: memory and the host's way in and out |
//! | `calls` | what several of its methods share |
//! | `memory` | the flat memory and its one checked way to slices |
//! | `chunks` | how work is cut, by shape alone |
//! | `convolution`, `weight_gradient` | convolutions, cut into tiles; `taps` knows which input a tap sees |
//! | `images` | from bytes to network inputs; the totals of a step |
//! | `kernel` | the register-blocked inner loops of both |
//! | `matrix`, `cosine` | matrix products of the fully connected layer and of the cosine classifier |
//! | `batch_norm`, `pointwise`, `pooling`, `loss`, `divergence`, `shortcut`, `optimizer` | passes bound by memory |
//!
//! Nothing here depends on the number of threads but the time it takes.

mod backend;
mod batch_norm;
mod calls;
mod chunks;
mod convolution;
mod cosine;
mod device;
mod divergence;
mod element;
mod energy;
mod groups;
mod images;
mod kernel;
mod loss;
mod matrix;
mod memory;
mod optimizer;
mod pointwise;
mod pooling;
mod shortcut;
mod taps;
mod weight_gradient;

use std::marker::PhantomData;

pub use element::Element;
use memory::Memory;

use crate::error::{Error, Result};
use crate::tensor::DType;

/// The CPU as a device: its memory, and a pool of threads that computes in `T`.
#[derive(Debug)]
pub struct Cpu<T> {
    memory: Memory,
    pool: rayon::ThreadPool,
    working_type: PhantomData<T>,
}

impl<T: Element> Cpu<T> {
    /// A device without memory yet, with its own pool of `threads` threads; 0 means as many as [`crate::threads`] finds.
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
        Ok(Cpu { memory: Memory::new(0)?, pool, working_type: PhantomData })
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
