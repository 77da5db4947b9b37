//! Buffers that tasks borrow while they run, kept from call to call.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// The buffers that no task has at the moment.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    idle: Mutex<Vec<Vec<f32>>>,
}

impl Scratch {
    /// A buffer of `elements` elements, with what its last user left in it.
    pub(super) fn take(&self, elements: usize) -> Borrowed<'_> {
        let idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        let mut buffer = idle.unwrap_or_default();
        if buffer.len() < elements {
            // Not resized: nothing of the old buffer is worth copying.
            buffer = vec![0.0; elements];
        }
        Borrowed { buffer, elements, scratch: self }
    }
}

/// A buffer on loan.
pub(super) struct Borrowed<'a> {
    buffer: Vec<f32>,
    elements: usize,
    scratch: &'a Scratch,
}

impl Deref for Borrowed<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.elements]
    }
}

impl DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.elements]
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.scratch.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(buffer);
    }
}
