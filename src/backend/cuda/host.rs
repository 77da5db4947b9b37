//! Values between the host's types and the device's.

use std::borrow::Cow;

use half::bf16;

use crate::error::{Error, Result};
use crate::tensor::{DType, HostValues, Span};

/// The bytes of values in a span's own type: as they are where that is theirs, converted otherwise, rounding to nearest
/// even.
pub(super) fn to_device(to: Span, values: HostValues<'_>) -> Result<Cow<'_, [u8]>> {
    fn bytes<T: bytemuck::NoUninit>(values: impl Iterator<Item = T>) -> Cow<'static, [u8]> {
        bytemuck::cast_slice(&values.collect::<Vec<T>>()).to_vec().into()
    }
    let bytes = match (to.dtype, values) {
        (DType::F32, HostValues::F32(values)) => bytemuck::cast_slice(values).into(),
        (DType::F32, HostValues::F64(values)) => bytes(values.iter().map(|&v| v as f32)),
        (DType::F64, HostValues::F32(values)) => bytes(values.iter().map(|&v| f64::from(v))),
        (DType::F64, HostValues::F64(values)) => bytemuck::cast_slice(values).into(),
        (DType::Bf16, HostValues::F32(values)) => bytes(values.iter().map(|&v| bf16::from_f32(v))),
        (DType::Bf16, HostValues::F64(values)) => bytes(values.iter().map(|&v| bf16::from_f64(v))),
        (DType::I32, HostValues::I32(values)) => bytemuck::cast_slice(values).into(),
        (DType::U8, HostValues::U8(values)) => values.into(),
        (dtype, _) => {
            return Err(Error::invalid(format!("values of another kind than {dtype:?} were written to it")));
        }
    };
    if bytes.len() != to.bytes() {
        return Err(Error::invalid(format!(
            "{} bytes of values for a place of {} elements of {:?}",
            bytes.len(),
            to.elements,
            to.dtype
        )));
    }
    Ok(bytes)
}

/// One floating-point number from its bytes.
pub(super) fn float(dtype: DType, bytes: &[u8]) -> f64 {
    match dtype {
        DType::F32 => f64::from(bytemuck::pod_read_unaligned::<f32>(bytes)),
        DType::F64 => bytemuck::pod_read_unaligned(bytes),
        DType::Bf16 => bytemuck::pod_read_unaligned::<bf16>(bytes).to_f64(),
        DType::I32 | DType::U8 => unreachable!("checked: only floating-point spans are read as numbers"),
    }
}

/// Refuses to read a span as another number of values, or another type.
pub(super) fn check(from: Span, elements: usize, right_type: bool) -> Result<()> {
    if from.elements == elements && right_type {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{elements} values are wanted from a place of {} elements of {:?}",
        from.elements, from.dtype
    )))
}
