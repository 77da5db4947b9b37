//! The plan: the list of calls that a recorded step is lowered to and that runs.
//!
//! A plan is a list of [`Call`]s over numbered buffers. From it follow each buffer's lifetime and producer, the offsets
//! in the arena ([`Layout`]), and, on a GPU, the captured graph. A plan belongs to one batch size; the short last batch
//! has its own.

mod executable;
mod fuse;
#[cfg(test)]
mod fuse_tests;
mod layout;

pub use executable::{Executable, PlanId};
pub use fuse::{Fusions, fuse};
pub use layout::{Layout, Lifetime};

use crate::ops::{Access, Call};
use crate::tensor::{DType, Shape, Span};

/// Names a buffer of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(u32);

impl BufferId {
    /// The buffer's index in [`Plan::buffers`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The storage class of a buffer: where its bytes are and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// At a fixed place outside the arena, across steps: parameters, their gradients, running statistics.
    Persistent(Span),
    /// In the arena for the whole step: written by the host before it, or read by the host after it.
    Step,
    /// In the arena between its first write and its last read.
    Transient,
}

/// A buffer of a plan.
#[derive(Debug, Clone)]
pub struct Buffer {
    /// The name of its content, for people.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// Its element type.
    pub dtype: DType,
    /// Its storage class.
    pub storage: Storage,
}

/// A step: calls in order.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// All buffers, by id.
    pub buffers: Vec<Buffer>,
    /// Calls that run once before a series of steps, while the parameters stay the same (folding batch normalisation).
    pub setup: Vec<Call<BufferId>>,
    /// Calls that run at every step.
    pub calls: Vec<Call<BufferId>>,
}

impl Plan {
    /// Adds a buffer.
    pub fn buffer(
        &mut self,
        name: impl Into<String>,
        shape: Shape,
        dtype: DType,
        storage: Storage,
    ) -> BufferId {
        let id = BufferId(u32::try_from(self.buffers.len()).expect("a plan has fewer than 2^32 buffers"));
        self.buffers.push(Buffer { name: name.into(), shape, dtype, storage });
        id
    }

    /// Appends a call to the step.
    pub fn push(&mut self, call: impl Into<Call<BufferId>>) {
        self.calls.push(call.into());
    }

    /// Appends a call to the setup.
    pub fn push_setup(&mut self, call: impl Into<Call<BufferId>>) {
        self.setup.push(call.into());
    }

    /// Keeps a buffer until the end of the step, so that the host can read it.
    pub fn keep(&mut self, id: BufferId) {
        let buffer = &mut self.buffers[id.index()];
        if buffer.storage == Storage::Transient {
            buffer.storage = Storage::Step;
        }
    }

    /// The last call before `before` that writes a buffer: where its content comes from.
    pub fn producer(&self, id: BufferId, before: usize) -> Option<usize> {
        (0..before).rev().find(|&index| {
            self.calls[index]
                .operands()
                .iter()
                .any(|operand| operand.place == id && operand.access != Access::Read)
        })
    }
}
