//! Launches captured once and replayed: one call for a whole training step.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstreamCaptureMode};

use super::library::check;
use super::stream::{CapturedLaunches, Stream};
use super::watch::Names;
use crate::error::{Error, Result};

/// A graph of captured launches, ready to run.
#[derive(Debug)]
pub struct CapturedStep {
    executable: CUgraphExec,
    stream: Arc<Stream>,
    /// The names of its launches, and the seconds that they are predicted to take.
    names: Names,
    seconds: f64,
}

// SAFETY: a graph may be launched from any thread, one at a time, once its context is current there.
unsafe impl Send for CapturedStep {}

impl CapturedStep {
    /// Captures what `record` launches, instead of running it.
    pub fn capture(stream: &Arc<Stream>, record: impl FnOnce() -> Result<()>) -> Result<CapturedStep> {
        let mut capture = Capture::begin(stream)?;
        let recorded = record();
        let ended = capture.end();
        let launches = stream.take_captured();
        // Its own error says more than that the capture was broken off.
        recorded?;
        let captured = ended?;
        let mut executable = ptr::null_mut();
        // SAFETY: a captured graph, and a place to write to. Destroyed in `drop`.
        let result = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut executable, captured.0, 0) };
        check(result, "make the captured step ready to run")?;
        let CapturedLaunches { names, seconds } = launches;
        Ok(CapturedStep { executable, stream: stream.clone(), names: names.into(), seconds })
    }

    /// Queues all its launches.
    pub fn replay(&self) -> Result<()> {
        self.stream.refuse_in_capture("replay a graph")?;
        self.stream.enter()?;
        // SAFETY: the graph lives as long as `self`, and what is queued is finished before it is destroyed.
        check(
            unsafe { sys::cuGraphLaunch(self.executable, self.stream.handle()) },
            "replay a captured step",
        )?;
        self.stream.expect(self.seconds);
        self.stream.launched(&self.names);
        Ok(())
    }
}

impl Drop for CapturedStep {
    fn drop(&mut self) {
        let _ = self.stream.synchronise();
        if self.stream.hangs() {
            return;
        }
        // SAFETY: made once, destroyed once, and no replay of it is under way.
        unsafe { sys::cuGraphExecDestroy(self.executable) };
    }
}

/// A capture under way; ended whatever happens.
struct Capture<'a> {
    stream: &'a Stream,
    is_open: bool,
}

impl<'a> Capture<'a> {
    fn begin(stream: &'a Stream) -> Result<Capture<'a>> {
        stream.enter()?;
        if stream.set_capturing(true) {
            return Err(Error::invalid("a step is captured while another is; captures cannot be nested"));
        }
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: a stream of our own, which is not the default one.
        let result = unsafe { sys::cuStreamBeginCapture_v2(stream.handle(), mode) };
        if let Err(error) = check(result, "begin to capture a step") {
            stream.set_capturing(false);
            return Err(error);
        }
        Ok(Capture { stream, is_open: true })
    }

    fn end(&mut self) -> Result<Captured> {
        self.is_open = false;
        self.stream.set_capturing(false);
        let mut graph = ptr::null_mut();
        // SAFETY: the capture was begun on this stream and thread, and is ended once.
        let result = unsafe { sys::cuStreamEndCapture(self.stream.handle(), &raw mut graph) };
        let captured = Captured(graph);
        check(result, "end the capture of a step")?;
        Ok(captured)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // `record` panicked.
            let _ = self.end();
        }
    }
}

/// The graph as captured, needed until it is made ready to run.
struct Captured(CUgraph);

impl Drop for Captured {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: captured once, destroyed once.
            unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}
