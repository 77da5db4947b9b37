//! The host's reads and writes of the memory: floating-point types are converted, other kinds must agree.

use super::element::Element;
use super::memory::Memory;
use crate::error::Result;
use crate::tensor::{DType, HostValues, Span};

/// Writes the host's values to a span; `working` is the type that is asked for where the span's is none of numbers.
pub(super) fn write(memory: &mut Memory, to: Span, values: HostValues<'_>, working: DType) -> Result<()> {
    match values {
        HostValues::I32(values) => {
            let place = memory.write(to, values.len(), DType::I32)?;
            bytemuck::cast_slice_mut(place).copy_from_slice(values);
            Ok(())
        }
        HostValues::U8(values) => {
            memory.write(to, values.len(), DType::U8)?.copy_from_slice(values);
            Ok(())
        }
        HostValues::F32(values) => write_numbers(memory, to, values, working),
        HostValues::F64(values) => write_numbers(memory, to, values, working),
    }
}

fn write_numbers<V: Element>(memory: &mut Memory, to: Span, values: &[V], working: DType) -> Result<()> {
    let dtype = numbers(to, working);
    let place = memory.write(to, values.len(), dtype)?;
    match dtype {
        DType::F64 => convert(values, bytemuck::cast_slice_mut::<u8, f64>(place)),
        _ => convert(values, bytemuck::cast_slice_mut::<u8, f32>(place)),
    }
    Ok(())
}

/// Reads a floating-point span.
pub(super) fn read<V: Element>(memory: &Memory, from: Span, values: &mut [V], working: DType) -> Result<()> {
    let dtype = numbers(from, working);
    let bytes = memory.read(from, values.len(), dtype)?;
    match dtype {
        DType::F64 => convert(bytemuck::cast_slice::<u8, f64>(bytes), values),
        _ => convert(bytemuck::cast_slice::<u8, f32>(bytes), values),
    }
    Ok(())
}

/// The type of a span of numbers, or the one that it should have had.
fn numbers(span: Span, working: DType) -> DType {
    if matches!(span.dtype, DType::F32 | DType::F64) { span.dtype } else { working }
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
