//! [`Device`] for the CPU: checks calls, and hands each to the function of its operation.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use super::element::Element;
use super::host::{read, read_integers, write};
use super::memory::Memory;
use super::{
    Cpu, batch_norm, convolution, cosine, divergence, energy, groups, images, linear, loss, optimizer,
    pointwise, pool_head, pooling, row_scores, rows,
};
use crate::error::{Error, Result};
use crate::instructions::Instructions;
use crate::ops::{
    Call, CallConfig, Device, Event, Expansion, Graph, Hardware, HardwareKind, Readback, dispatch,
};
use crate::tensor::{DType, HostValues, Span};

/// The order of sums and the algorithms: one more whenever a change gives results other bits, so that the resume of an older
/// training can say so. 1: all convolutions direct. 2: Winograd's algorithm in f32; wgrads in parts of the pixels.
const ARITHMETIC: u32 = 2;

impl<T: Element> Device for Cpu<T> {
    fn name(&self) -> String {
        self.description()
    }

    fn dtype(&self) -> DType {
        T::DTYPE
    }

    fn hardware(&self) -> Hardware {
        let name = format!("{}, {} threads, {}", processor(), self.threads(), Instructions::in_use());
        Hardware { kind: HardwareKind::Cpu, name, versions: String::new() }
    }

    fn arithmetic(&self) -> Option<String> {
        let fused = if Instructions::in_use() == Instructions::Baseline { " without FMA" } else { "" };
        Some(format!("arithmetic {ARITHMETIC} of the CPU{fused}"))
    }

    fn prepare(&self, call: &Call<()>) -> CallConfig {
        if !convolution::fuses::<T, _>(call)
            && let Some(parts) = call.numbered().expand()
        {
            return Expansion::on(self, parts);
        }
        CallConfig::with_workspace(match call {
            Call::Conv2dFprop(fprop) => convolution::fprop_workspace::<T>(&fprop.conv),
            Call::Conv2dDgrad(dgrad) => convolution::dgrad_workspace::<T>(&dgrad.conv),
            Call::Conv2dWgrad(wgrad) => convolution::wgrad_workspace::<T>(&wgrad.conv),
            _ => 0,
        })
    }

    fn allocate(&mut self, bytes: usize) -> Result<()> {
        // Room for the new before it is asked for.
        self.memory = Memory::new(0)?;
        self.memory = Memory::new(bytes)?;
        Ok(())
    }

    fn run_prepared(&mut self, call: &Call<Span>, config: &CallConfig, workspace: Span) -> Result<()> {
        call.check(workspace, T::DTYPE, self.memory.bytes())?;
        match &config.expansion {
            Some(expansion) => expansion.run(self, call, workspace),
            None if call.expand().is_some() && !convolution::fuses::<T, _>(call) => Err(Error::invalid(
                format!("{} runs as its parts on the CPU, and was prepared as one call", call.name()),
            )),
            None => {
                let pool = Arc::clone(&self.pool);
                pool.install(|| dispatch!(call, self, workspace))
            }
        }
    }

    fn write(&mut self, to: Span, values: HostValues<'_>) -> Result<()> {
        write(&mut self.memory, to, values, T::DTYPE)
    }

    fn read_f32(&self, from: Span, values: &mut [f32]) -> Result<()> {
        read(&self.memory, from, values, T::DTYPE)
    }

    fn read_f64(&self, from: Span, values: &mut [f64]) -> Result<()> {
        read(&self.memory, from, values, T::DTYPE)
    }

    fn read_i32(&self, from: Span, values: &mut [i32]) -> Result<()> {
        read_integers(&self.memory, from, values)
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }

    fn begin_read(&self, from: Span) -> Result<Readback> {
        let mut values = vec![0.0; from.elements];
        self.read_f64(from, &mut values)?;
        Ok(Readback::new(|| Ok(values)))
    }

    fn capture(&mut self, _: &mut dyn FnMut(&mut dyn Device) -> Result<()>) -> Result<Option<Graph>> {
        Ok(None)
    }

    /// # Panics
    /// Always: the CPU captures nothing, so there is no graph of its own.
    fn replay(&mut self, _: &Graph) -> Result<()> {
        panic!("a graph of another device")
    }

    fn event(&self) -> Result<Event> {
        Ok(Event::new(Instant::now()))
    }

    fn seconds_between(&self, from: &Event, to: &Event) -> Result<f64> {
        Ok(to.inner::<Instant>().duration_since(*from.inner()).as_secs_f64())
    }
}

/// The processor's name, where the system tells.
fn processor() -> String {
    let model = |text: String| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(model)
        .unwrap_or_else(|| std::env::consts::ARCH.to_string())
}
