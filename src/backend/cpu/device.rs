//! [`Device`] for the CPU: its memory, and the host's way in and out.

use std::convert::Infallible;

use super::Cpu;
use super::calls::{Record, read, read_integers, write};
use super::element::Element;
use super::memory::Memory;
use crate::error::Result;
use crate::ops::Device;
use crate::tensor::{DType, HostValues, Span};

impl<T: Element> Device for Cpu<T> {
    type Memory = Memory;

    fn name(&self) -> String {
        self.description()
    }

    fn dtype(&self) -> DType {
        T::DTYPE
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        Memory::new(bytes)
    }

    fn write(&self, memory: &mut Memory, to: Span, values: HostValues<'_>) -> Result<()> {
        write::<T>(memory, to, values)
    }

    fn read_f32(&self, memory: &Memory, from: Span, values: &mut [f32]) -> Result<()> {
        read::<T, f32>(memory, from, values)
    }

    fn read_f64(&self, memory: &Memory, from: Span, values: &mut [f64]) -> Result<()> {
        read::<T, f64>(memory, from, values)
    }

    fn read_i32(&self, memory: &Memory, from: Span, values: &mut [i32]) -> Result<()> {
        read_integers(memory, from, values)
    }

    type Reading = Vec<f64>;

    fn begin_read(&self, memory: &Memory, from: Span) -> Result<Vec<f64>> {
        let mut values = vec![0.0; from.elements];
        self.read_f64(memory, from, &mut values)?;
        Ok(values)
    }

    fn finish_read(&self, reading: Vec<f64>) -> Result<Vec<f64>> {
        Ok(reading)
    }

    type Captured = Infallible;

    fn capture(&self, _: &mut Memory, _: Record<'_>) -> Result<Option<Infallible>> {
        Ok(None)
    }

    fn replay(&self, _: &mut Memory, captured: &Infallible) -> Result<()> {
        match *captured {}
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}
