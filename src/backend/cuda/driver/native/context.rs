//! A GPU's context: what every piece of its memory, stream and module belongs to.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute as Attribute};

use super::library::{Library, check};
use crate::error::{Error, Result};

/// Properties that a GPU reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The card's name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// SMs (streaming multiprocessors).
    pub sms: u32,
    /// Bytes of memory in all.
    pub memory_bytes: usize,
    /// Bytes of shared memory one block may ask for.
    pub shared_bytes_per_block: usize,
}

impl Gpu {
    /// Asks GPU number `ordinal`; no context is made.
    ///
    /// # Errors
    /// There is no such GPU.
    pub fn ask(library: Library, ordinal: usize) -> Result<Gpu> {
        let device = device(library, ordinal)?;
        let number = |attribute| -> Result<u32> {
            let mut value: c_int = 0;
            // SAFETY: a place to write to, and a device of the driver's own.
            let result = unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) };
            check(result, "ask a GPU for its properties")?;
            Ok(value.unsigned_abs())
        };
        let mut name = [0 as c_char; 256];
        // SAFETY: a place of 256 bytes, which the driver ends with zero.
        check(unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), 255, device) }, "ask a GPU for its name")?;
        let mut memory_bytes = 0;
        // SAFETY: a place to write to.
        let result = unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory_bytes, device) };
        check(result, "ask a GPU for its memory")?;
        Ok(Gpu {
            // SAFETY: the last of the 256 bytes is zero whatever the driver wrote.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned(),
            capability: (
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            sms: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory_bytes,
            shared_bytes_per_block: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
        })
    }
}

/// The driver's name for GPU number `ordinal`.
fn device(library: Library, ordinal: usize) -> Result<CUdevice> {
    let count = library.devices()?;
    if ordinal >= count {
        return Err(Error::usage(format!(
            "there is no GPU number {ordinal}: the driver sees {count}, counted from 0 (CUDA_VISIBLE_DEVICES hides some)"
        )));
    }
    let mut device = 0;
    // SAFETY: a place to write to; the number fits, since the driver counts in c_int.
    check(unsafe { sys::cuDeviceGet(&raw mut device, ordinal as c_int) }, "take a GPU")?;
    Ok(device)
}

/// The primary context of a GPU, held as long as this lives.
#[derive(Debug)]
pub struct Context {
    device: CUdevice,
    context: CUcontext,
    /// Whether a wait was given up: whatever waits for the GPU, as freeing does, would wait for ever.
    hangs: AtomicBool,
}

// SAFETY: contexts are made current on the calling thread before each use, and the driver's functions may be called from
// any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Takes hold of GPU number `ordinal`.
    ///
    /// # Errors
    /// There is no such GPU, or it is taken exclusively.
    pub fn new(library: Library, ordinal: usize) -> Result<Context> {
        let device = device(library, ordinal)?;
        let mut context = ptr::null_mut();
        // SAFETY: a place to write to; released in `drop`.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) }, "take hold of the GPU")?;
        Ok(Context { device, context, hangs: AtomicBool::new(false) })
    }

    /// Gives the GPU up: nothing is asked of it any more.
    pub fn give_up(&self) {
        self.hangs.store(true, Ordering::Release);
    }

    /// Whether it was given up.
    pub fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Acquire)
    }

    /// Makes the context current on this thread, as each call of the driver wants it.
    pub fn enter(&self) -> Result<()> {
        if self.hangs() {
            return Err(Error::DeviceHangs("the GPU hangs, and was given up".into()));
        }
        // SAFETY: the context lives as long as `self`.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "use the GPU from this thread")
    }

    /// Bytes of free memory.
    pub fn free_bytes(&self) -> Result<usize> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: two places to write to, and the context is current.
        check(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "ask for free memory")?;
        Ok(free)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.hangs() {
            return;
        }
        // SAFETY: retained once; all that belongs to it holds it alive and is gone by now.
        unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}
