//! Streams: the one in which all work is queued, the one for large copies; and moments in them.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUresult, CUstream, CUstream_flags};

use super::context::Context;
use super::library::check;
use super::watch::{Names, Place, Watch, poll};
use crate::error::{Error, Result};

/// A queue of work in order. Not the default stream, which cannot be captured.
#[derive(Debug)]
pub struct Stream {
    stream: CUstream,
    context: Arc<Context>,
    /// Whether launches are being captured instead of run.
    capturing: AtomicBool,
    watch: Mutex<Watch>,
    captured: Mutex<CapturedLaunches>,
}

/// Launches that were captured, and the seconds that they are predicted to take.
#[derive(Debug, Default)]
pub struct CapturedLaunches {
    /// Their names, in order.
    pub names: Vec<Arc<str>>,
    /// Predicted.
    pub seconds: f64,
}

// SAFETY: the driver's functions may be called from any thread once the context is current there.
unsafe impl Send for Stream {}
// SAFETY: as above; the driver locks its streams itself.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream; `timeout` is how long a wait may take, where a user says so.
    pub fn new(context: Arc<Context>, timeout: Option<Duration>) -> Result<Stream> {
        context.enter()?;
        let mut stream = ptr::null_mut();
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a place to write to; the context is current. Destroyed in `drop`.
        check(unsafe { sys::cuStreamCreate(&raw mut stream, flags) }, "make a stream")?;
        let watch = Mutex::new(Watch::new(timeout));
        let captured = Mutex::default();
        Ok(Stream { stream, context, capturing: AtomicBool::new(false), watch, captured })
    }

    /// The launches that are queued.
    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A launch was queued, or captured.
    pub fn launched(&self, names: &Names) {
        if self.is_capturing() {
            self.captured.lock().unwrap_or_else(PoisonError::into_inner).names.extend(names.iter().cloned());
        } else {
            self.watch().launched(names.clone());
        }
    }

    /// Work that is predicted to take so long is about to be queued, or captured.
    pub fn expect(&self, seconds: f64) {
        if self.is_capturing() {
            self.captured.lock().unwrap_or_else(PoisonError::into_inner).seconds += seconds;
        } else {
            self.watch().expect(seconds);
        }
    }

    /// The launches that were captured since the last look.
    pub fn take_captured(&self) -> CapturedLaunches {
        std::mem::take(&mut *self.captured.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a place in the queue, which `query` asks the driver for. A GPU that takes too long is given up.
    fn wait(&self, place: Place, task: &str, query: impl Fn() -> CUresult) -> Result<()> {
        let patience = self.watch().patience(place);
        let is_done = || match query() {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => check(result, task).map(|()| true),
        };
        if poll(patience, is_done)? {
            self.watch().finished(place);
            return Ok(());
        }
        self.context.give_up();
        Err(self.watch().too_late(place, patience))
    }

    /// The context, current on this thread from now on.
    pub fn enter(&self) -> Result<&Arc<Context>> {
        self.context.enter()?;
        Ok(&self.context)
    }

    /// Whether the GPU was given up: what is its own is left to the end of the process.
    pub fn hangs(&self) -> bool {
        self.context.hangs()
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

    /// Lets what is queued from now on begin after a moment in another stream.
    pub fn wait_for(&self, event: &StreamEvent) -> Result<()> {
        self.enter()?;
        // SAFETY: stream and event live as long as `self` and `event`; the driver keeps what it needs of the event.
        let result = unsafe { sys::cuStreamWaitEvent(self.stream, event.event, 0) };
        check(result, "wait for a copy to the GPU")
    }

    /// Waits until all work is done.
    pub fn synchronise(&self) -> Result<()> {
        self.enter()?;
        self.refuse_in_capture("wait for the GPU")?;
        let place = self.watch().place();
        // SAFETY: the stream lives as long as `self`.
        self.wait(place, "finish the work on the GPU", || unsafe { sys::cuStreamQuery(self.stream) })
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
    place: Mutex<Place>,
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
        Ok(StreamEvent { event, stream: stream.clone(), place: Mutex::default() })
    }

    /// Sets it to the moment when all that is queued now is done.
    pub fn record(&self) -> Result<()> {
        self.stream.refuse_in_capture("mark a moment")?;
        self.stream.enter()?;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.watch().place();
        // SAFETY: event and stream live as long as `self`.
        check(unsafe { sys::cuEventRecord(self.event, self.stream.handle()) }, "mark a moment in the stream")
    }

    /// Waits for the moment.
    pub fn wait(&self) -> Result<()> {
        self.stream.enter()?;
        let place = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the event lives as long as `self`.
        self.stream.wait(place, "wait for the GPU", || unsafe { sys::cuEventQuery(self.event) })
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
