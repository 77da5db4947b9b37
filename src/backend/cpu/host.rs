//! The host's ways in and out of the memory: floating-point types are converted, other kinds must agree.

use super::element::Element;
use super::memory::Memory;
use crate::error::Result;
use crate::tensor::{DType, HostValues, Span};

/// Writes the host's values to a span.
pub(super) fn write<T: Element>(memory: &mut Memory, to: Span, values: HostValues<'_>) -> Result<()> {
    match values {
        HostValues::I32(values) => {
            let place = memory.write(to, values.len(), DType::I32)?;
            bytemuck::cast_slice_mut(place).copy_from_slice(values);
        }
        HostValues::U8(values) => {
            memory.write(to, values.len(), DType::U8)?.copy_from_slice(values);
        }
        HostValues::F32(values) => {
            let place = memory.write(to, values.len(), T::DTYPE)?;
            convert(values, bytemuck::cast_slice_mut::<u8, T>(place));
        }
        HostValues::F64(values) => {
            let place = memory.write(to, values.len(), T::DTYPE)?;
            convert(values, bytemuck::cast_slice_mut::<u8, T>(place));
        }
    }
    Ok(())
}

/// Reads a floating-point span.
pub(super) fn read<T: Element, V: Element>(memory: &Memory, from: Span, values: &mut [V]) -> Result<()> {
    let bytes = memory.read(from, values.len(), T::DTYPE)?;
    convert(bytemuck::cast_slice::<u8, T>(bytes), values);
    Ok(())
}

/// Reads a span of integers.
pub(super) fn read_integers(memory: &Memory, from: Span, values: &mut [i32]) -> Result<()> {
    let bytes = memory.read(from, values.len(), DType::I32)?;
    values.copy_from_slice(bytemuck::cast_slice(bytes));
    Ok(())
}

/// Copies values of one floating-point type to another.
fn convert<A: Element, B: Element>(from: &[A], to: &mut [B]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = B::from_f64(from.to_f64());
    }
}
