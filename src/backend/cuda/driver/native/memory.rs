//! Memory of the device, and pinned memory of the host, which the device copies from and to by itself.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdeviceptr, CUresult};

use super::context::Context;
use super::library::check;
use super::stream::{Stream, StreamEvent};
use crate::backend::cuda::driver::Memory;
use crate::error::{Error, Result};

/// Owner of device memory, which frees it.
#[derive(Debug)]
struct Allocation {
    address: CUdeviceptr,
    stream: Arc<Stream>,
}

/// Zeroed device memory.
pub fn zeroed(stream: &Arc<Stream>, bytes: usize) -> Result<Memory> {
    stream.refuse_in_capture("allocate memory")?;
    let context = stream.enter()?;
    let mut address = 0;
    // The driver refuses to allocate nothing. What it allocates begins at a multiple of 256.
    // SAFETY: a place to write to; the context is current. Freed in `drop`.
    let result = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1)) };
    if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(out_of_memory(bytes, context.free_bytes().ok()));
    }
    check(result, &format!("allocate {bytes} bytes on the GPU"))?;
    let allocation = Allocation { address, stream: stream.clone() };
    // SAFETY: the memory has `bytes` bytes, one at the least.
    let result = unsafe { sys::cuMemsetD8Async(address, 0, bytes.max(1), stream.handle()) };
    check(result, "set memory to zero")?;
    Ok(Memory::new(address, bytes, allocation))
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // Queued work may still use it. If the device failed there is none.
        let _ = self.stream.synchronise();
        if self.stream.hangs() {
            return;
        }
        // SAFETY: allocated once, freed once, and nothing queued uses it.
        unsafe { sys::cuMemFree_v2(self.address) };
    }
}

fn out_of_memory(bytes: usize, free: Option<usize>) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let free = free.map_or_else(String::new, |free| format!(", of which {} MiB are free", mib(free)));
    Error::invalid(format!(
        "the GPU's memory{free} does not hold the {} MiB that are needed at once; take a smaller --batch-size, or end what \
         else runs on the GPU",
        mib(bytes)
    ))
}

/// Page-locked memory of the host.
#[derive(Debug)]
pub struct Pinned {
    first: *mut u8,
    bytes: usize,
    context: Arc<Context>,
}

// SAFETY: plain memory that is owned alone.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Zeroed page-locked memory.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Pinned> {
        context.enter()?;
        let mut first = ptr::null_mut();
        let task = format!("lock {bytes} bytes of the host's memory for copies to the GPU");
        // SAFETY: a place to write to; the context is current. Freed in `drop`.
        check(unsafe { sys::cuMemAllocHost_v2(&raw mut first, bytes.max(1)) }, &task)?;
        // SAFETY: the memory has `bytes` bytes, one at the least, and nobody else knows of it yet.
        unsafe { ptr::write_bytes(first.cast::<u8>(), 0, bytes.max(1)) };
        Ok(Pinned { first: first.cast(), bytes, context: context.clone() })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies bytes in.
    ///
    /// # Safety
    /// The device is not reading that range.
    pub unsafe fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes, "a copy stays inside pinned memory");
        // SAFETY: inside, as was just asked; the caller keeps the device away.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.first.add(offset), bytes.len()) };
    }

    /// Copies the first bytes out.
    ///
    /// # Safety
    /// The device is not writing to it.
    pub unsafe fn read(&self, bytes: usize) -> Vec<u8> {
        assert!(bytes <= self.bytes, "a copy stays inside pinned memory");
        // SAFETY: inside, initialised when it was allocated; the caller keeps the device away.
        unsafe { std::slice::from_raw_parts(self.first, bytes) }.to_vec()
    }

    /// The address of a byte, for the device.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes, "an address inside pinned memory");
        // SAFETY: inside, or one behind the end.
        unsafe { self.first.add(offset) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: allocated once, freed once; its owner has waited for the device.
            unsafe { sys::cuMemFreeHost(self.first.cast()) };
        }
    }
}

/// Copies to the host that are fetched later; their memory is used again.
#[derive(Debug, Default)]
pub struct Downloads {
    idle: Arc<Mutex<Vec<(Pinned, StreamEvent)>>>,
}

/// A copy to the host under way.
#[derive(Debug)]
pub struct Download {
    /// Taken when it is given back.
    place: Option<(Pinned, StreamEvent)>,
    bytes: usize,
    idle: Arc<Mutex<Vec<(Pinned, StreamEvent)>>>,
}

impl Downloads {
    /// Queues a copy of device memory.
    pub fn begin(
        &self,
        stream: &Arc<Stream>,
        memory: &Memory,
        offset: usize,
        bytes: usize,
    ) -> Result<Download> {
        stream.refuse_in_capture("copy to the host")?;
        let from = memory.range(offset, bytes)?;
        let context = stream.enter()?;
        let place = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.iter().position(|(pinned, _)| pinned.bytes() >= bytes).map(|index| idle.swap_remove(index))
        };
        let (pinned, event) = match place {
            Some(place) => place,
            None => {
                (Pinned::new(context, bytes.next_power_of_two().max(256))?, StreamEvent::new(stream, false)?)
            }
        };
        // SAFETY: both ranges have `bytes` bytes, and the pinned one is kept until the event.
        let result = unsafe { sys::cuMemcpyDtoHAsync_v2(pinned.at(0).cast(), from, bytes, stream.handle()) };
        let queued = check(result, "copy to the host").and_then(|()| event.record());
        if let Err(error) = queued {
            // The copy may be under way with no event that tells its end.
            let _ = stream.synchronise();
            return Err(error);
        }
        Ok(Download { place: Some((pinned, event)), bytes, idle: self.idle.clone() })
    }
}

impl Download {
    /// Waits for the copy.
    pub fn finish(self) -> Result<Vec<u8>> {
        let (pinned, event) = self.place.as_ref().expect("only dropping takes it");
        event.wait()?;
        // SAFETY: the copy is done.
        Ok(unsafe { pinned.read(self.bytes) })
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        let Some((pinned, event)) = self.place.take() else { return };
        // Also one that nobody fetched must be over before its memory is used again.
        let _ = event.wait();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((pinned, event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_out_of_memory_says_how_much_was_asked_how_much_is_free_and_what_to_do() {
        let text = out_of_memory(3 << 30, Some(5 << 20)).to_string();
        for part in ["3072 MiB", "5 MiB are free", "smaller --batch-size"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
