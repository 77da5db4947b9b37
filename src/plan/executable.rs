//! The executable: a compiled plan, with every operand resolved to a place in memory, which runs any number of times.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{BufferId, Layout, Plan};
use crate::error::Result;
use crate::ops::{Call, CallConfig, Device};
use crate::tensor::Span;

/// Tells executables apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(u64);

/// A compiled plan: laid out in a device's memory.
#[derive(Debug)]
pub struct Executable {
    id: PlanId,
    plan: Plan,
    layout: Layout,
    setup: Vec<Call<Span>>,
    calls: Vec<Call<Span>>,
    /// Whether a device was told what will run.
    is_ready: AtomicBool,
}

impl Executable {
    /// Lays out `plan` behind the first `base` bytes of memory, which hold the persistent buffers.
    pub fn new(plan: Plan, device: &dyn Device, base: usize) -> Executable {
        let layout = plan.layout(device, base);
        let resolve = |call: &Call<BufferId>| call.map(|id| layout.spans[id.index()]);
        let setup = plan.setup.iter().map(resolve).collect();
        let calls = plan.calls.iter().map(resolve).collect();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = PlanId(NEXT.fetch_add(1, Ordering::Relaxed));
        Executable { id, plan, layout, setup, calls, is_ready: AtomicBool::new(false) }
    }

    /// The number that no other executable has.
    pub fn id(&self) -> PlanId {
        self.id
    }

    /// The plan this was made from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of memory the plan needs, persistent buffers included.
    pub fn bytes(&self) -> usize {
        self.layout.bytes
    }

    /// Where a buffer lies.
    pub fn span(&self, id: BufferId) -> Span {
        self.layout.spans[id.index()]
    }

    /// The calls of a step, and how the device carries each out.
    pub fn calls(&self) -> impl Iterator<Item = (&Call<Span>, &CallConfig)> {
        self.calls.iter().zip(self.layout.calls.iter().map(|(config, _)| config))
    }

    /// Lets the device get ready for all calls, before the first of them runs.
    fn get_ready(&self, device: &mut dyn Device) -> Result<()> {
        if self.is_ready.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let setup = self.setup.iter().zip(&self.layout.setup);
        let calls = setup.chain(self.calls.iter().zip(&self.layout.calls));
        device.get_ready(&mut calls.map(|(call, (config, workspace))| (call, config, *workspace)))
    }

    /// Runs the setup calls; due after the parameters or another plan's step changed the memory.
    ///
    /// # Errors
    /// The device failed.
    pub fn set_up(&self, device: &mut dyn Device) -> Result<()> {
        self.get_ready(device)?;
        self.setup
            .iter()
            .zip(&self.layout.setup)
            .try_for_each(|(call, (config, workspace))| device.run_prepared(call, config, *workspace))
    }

    /// Runs one step.
    ///
    /// # Errors
    /// The device failed.
    pub fn run(&self, device: &mut dyn Device) -> Result<()> {
        self.get_ready(device)?;
        self.calls
            .iter()
            .zip(&self.layout.calls)
            .try_for_each(|(call, (config, workspace))| device.run_prepared(call, config, *workspace))
    }

    /// Runs one step and hands each call's name and duration in seconds to `observe`.
    ///
    /// # Errors
    /// The device failed.
    pub fn run_timed(
        &self,
        device: &mut dyn Device,
        mut observe: impl FnMut(&Call<Span>, f64),
    ) -> Result<()> {
        self.get_ready(device)?;
        for (call, (config, workspace)) in self.calls.iter().zip(&self.layout.calls) {
            let start = std::time::Instant::now();
            device.run_prepared(call, config, *workspace)?;
            device.synchronise()?;
            observe(call, start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}
