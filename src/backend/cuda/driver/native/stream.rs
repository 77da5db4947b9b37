//! The one stream in which all work is queued, and moments in it.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUstream, CUstream_flags};

use super::context::Context;
use super::library::check;
use crate::error::{Error, Result};

/// A queue of work in order. Not the default stream, which cannot be captured.
#[derive(Debug)]
pub struct Stream {
    stream: CUstream,
    context: Arc<Context>,
    /// Whether launches are being captured instead of run.
    capturing: AtomicBool,
}

// SAFETY: the driver's functions may be called from any thread once the context is current there.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver locks its streams itself.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream.
    pub fn new(context: Arc<Context>) -> Result<Stream> {
        context.enter()?;
        let mut stream = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place to write to; the context is current. Destroyed in `drop`.
        check(unsafe { sys::cuStreamCreate(&raw mut stream, flags) }, "make a stream")?;
        Ok(Stream { stream, context, capturing: AtomicBool::new(false) })
    }

    /// The context, current on this thread from now on.
    pub fn enter(&self) -> Result<&Arc<Context>> {
        self.context.enter()?;
        Ok(&self.context)
    }

    /// The driver's handle.
    pub fn handle(&self) -> CUstream {
        self.stream
    }

    /// Whether launches are being captured.
    pub fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::Acquire)
    }

    /// Says whether launches are being captured, and tells what it was before.
    pub fn set_capturing(&self, capturing: bool) -> bool {
        self.capturing.swap(capturing, Ordering::AcqRel)
    }

    /// Refuses what a captured graph cannot hold.
    pub fn refuse_in_capture(&self, task: &str) -> Result<()> {
        if !self.is_capturing() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a step is being captured as a graph, which may only launch kernels, and it wants to {task}; do that before \
             the capture"
        )))
    }

    /// Waits until all work is done.
    pub fn synchronise(&self) -> Result<()> {
        self.enter()?;
        self.refuse_in_capture("wait for the GPU")?;
        // SAFETY: the stream lives as long as `self`.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "finish the work on the GPU")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: made once, destroyed once; the driver finishes what is queued first.
            unsafe { sys::cuStreamDestroy_v2(self.stream) };
        }
    }
}

/// A moment in a stream.
#[derive(Debug)]
pub struct StreamEvent {
    event: CUevent,
    stream: Arc<Stream>,
}

// SAFETY: as for the stream it belongs to.
unsafe impl Send for StreamEvent {}

impl StreamEvent {
    /// A moment that is not set yet; only one that is timed can be measured from.
    pub fn new(stream: &Arc<Stream>, timed: bool) -> Result<StreamEvent> {
        stream.enter()?;
        let flags =
            if timed { CUevent_flags::CU_EVENT_DEFAULT } else { CUevent_flags::CU_EVENT_DISABLE_TIMING }
                as u32;
        let mut event = ptr::null_mut();
        // SAFETY: a place to write to; the context is current. Destroyed in `drop`.
        check(unsafe { sys::cuEventCreate(&raw mut event, flags) }, "make an event")?;
        Ok(StreamEvent { event, stream: stream.clone() })
    }

    /// Sets it to the moment when all that is queued now is done.
    pub fn record(&self) -> Result<()> {
        self.stream.refuse_in_capture("mark a moment")?;
        self.stream.enter()?;
        // SAFETY: event and stream live as long as `self`.
        check(unsafe { sys::cuEventRecord(self.event, self.stream.handle()) }, "mark a moment in the stream")
    }

    /// Waits for the moment.
    pub fn wait(&self) -> Result<()> {
        self.stream.enter()?;
        // SAFETY: the event lives as long as `self`.
        check(unsafe { sys::cuEventSynchronize(self.event) }, "wait for the GPU")
    }

    /// Waits for `to`, and tells the seconds between.
    pub fn seconds_until(&self, to: &StreamEvent) -> Result<f64> {
        self.wait()?;
        to.wait()?;
        let mut milliseconds = 0_f32;
        // SAFETY: a place to write to; both events live and are set.
        let result = unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, self.event, to.event) };
        check(result, "measure time on the GPU")?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for StreamEvent {
    fn drop(&mut self) {
        if self.stream.enter().is_ok() {
            // SAFETY: made once, destroyed once.
            unsafe { sys::cuEventDestroy_v2(self.event) };
        }
    }
}
