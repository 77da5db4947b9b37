//! Durations: warmed up, many times, their median, and the same once more to tell a difference from noise.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::stage::Stage;
use crate::error::Result;
use crate::ops::{Call, Device, Event, HardwareKind};

/// Copies of a call's operands together take at least this: more than twice the L2 of any card in the table.
const ROTATION_BYTES: usize = 128 << 20;
/// More copies than this say nothing new.
const MOST_COPIES: usize = 16;
/// Bytes for a call on a device that shares the host's memory.
const HOST_BYTES: usize = 1 << 30;
/// Seconds, at the least, over which a device that repeats calls by itself is timed; no launch disturbs them.
const LEAST_SAMPLE: f64 = 5e-4;
const MOST_CALLS: usize = 1024;

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Seconds for one row, warm-up apart.
    pub seconds: f64,
    /// Samples in each of the two series, at the least.
    pub least: usize,
    /// Samples in each of the two series, at the most.
    pub most: usize,
}

/// When nothing new begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until {
    /// This moment.
    pub deadline: Option<Instant>,
    /// Set from outside (Ctrl-C).
    pub stop: Option<&'static AtomicBool>,
}

impl Until {
    /// Whether it is too late to begin something.
    pub fn is_over(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A duration, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median over both series, seconds.
    pub seconds: f64,
    /// The shortest.
    pub least_seconds: f64,
    /// The longest.
    pub most_seconds: f64,
    /// How far the medians of the two series lie apart, as a share of the smaller: what is below is noise.
    pub noise: f64,
    /// Durations measured in both series.
    pub samples: usize,
}

impl Timing {
    /// From two series of durations, neither empty.
    fn of([mut first, mut second]: [Vec<f64>; 2]) -> Timing {
        let medians = [median(&mut first), median(&mut second)];
        let mut all = [first, second].concat();
        let seconds = median(&mut all);
        let noise = (medians[0] - medians[1]).abs() / medians[0].min(medians[1]).max(f64::MIN_POSITIVE);
        Timing { seconds, least_seconds: all[0], most_seconds: all[all.len() - 1], noise, samples: all.len() }
    }
}

/// Sorts the values; the middle one, or the mean of the middle two.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

/// Processor seconds that all threads of this process have used, where the system tells.
pub(super) fn cpu_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(used.tv_sec as f64 + 1e-9 * used.tv_nsec as f64)
    }
    #[cfg(not(unix))]
    None
}

/// Two series of durations from `sample`, which gives one.
pub(super) fn measure(patience: &Patience, mut sample: impl FnMut() -> Result<f64>) -> Result<Timing> {
    let mut series = [Vec::new(), Vec::new()];
    for durations in &mut series {
        let started = Instant::now();
        while durations.len() < patience.least
            || (durations.len() < patience.most && started.elapsed().as_secs_f64() < 0.5 * patience.seconds)
        {
            durations.push(sample()?);
        }
    }
    Ok(Timing::of(series))
}

/// Times a call on random values.
///
/// # Errors
/// The device failed.
pub(super) fn time_call(device: &mut dyn Device, call: &Call<()>, patience: &Patience) -> Result<Timing> {
    time_calls(device, std::slice::from_ref(call), patience)
}

/// Times calls, one after the other, on random values.
///
/// # Errors
/// The device failed.
pub(super) fn time_calls(device: &mut dyn Device, calls: &[Call<()>], patience: &Patience) -> Result<Timing> {
    let emulated = device.hardware().kind == HardwareKind::Emulator;
    let bytes = Stage::bytes(device, calls)?.max(1);
    let room = device.own_memory_bytes().map_or(HOST_BYTES, |bytes| bytes / 2);
    let most = if emulated { 1 } else { MOST_COPIES.min(room / bytes).max(1) };
    let mut stage = Stage::new(device, calls, ROTATION_BYTES.div_ceil(bytes).clamp(1, most))?;
    stage.fill()?;
    for copy in 0..stage.copies() {
        stage.run(copy)?;
    }
    stage.device().synchronise()?;

    // A second round tells how long one call takes, about.
    let from = stage.device().event()?;
    for copy in 0..stage.copies() {
        stage.run(copy)?;
    }
    let about = seconds_since(&stage, &from)? / stage.copies() as f64;
    let repeats = (LEAST_SAMPLE / about.max(1e-9)).ceil().min(MOST_CALLS as f64) as usize;
    let repeats = if emulated { 1 } else { repeats.max(stage.copies()) };
    let captured = stage.capture(repeats)?;
    let mut copy = 0;
    measure(patience, || {
        let from = stage.device().event()?;
        let repeats = match &captured {
            Some(captured) => {
                stage.replay(captured)?;
                repeats
            }
            None => {
                copy += 1;
                stage.run(copy)?;
                1
            }
        };
        Ok(seconds_since(&stage, &from)? / repeats as f64)
    })
}

fn seconds_since(stage: &Stage<'_>, from: &Event) -> Result<f64> {
    let device = stage.device();
    device.seconds_between(from, &device.event()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timing_is_the_median_and_tells_how_far_its_halves_lie_apart() {
        let timing = Timing::of([vec![3.0, 1.0, 2.0], vec![2.5, 9.0, 2.5]]);
        assert_eq!((timing.seconds, timing.least_seconds, timing.most_seconds), (2.5, 1.0, 9.0));
        assert_eq!((timing.noise, timing.samples), (0.25, 6));
    }

    #[test]
    fn measuring_ends_at_the_most_and_not_before_the_least() {
        let count = |patience: &Patience| {
            let mut calls = 0;
            measure(patience, || {
                calls += 1;
                Ok(1.0)
            })
            .unwrap();
            calls
        };
        assert_eq!(count(&Patience { seconds: 0.0, least: 3, most: 9 }), 6);
        assert_eq!(count(&Patience { seconds: 1e9, least: 3, most: 9 }), 18);
    }
}
