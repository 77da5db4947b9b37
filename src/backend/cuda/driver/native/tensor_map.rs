//! Tensor maps for TMA, encoded by the driver's library.

use std::ptr;

use cudarc::driver::sys;

use super::library::check;
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::driver::tensor_map::{TensorMap, TensorMapRequest, TmaMode};
use crate::error::{Error, Result};

/// The map of a request; it needs no context, and no memory of the device is touched.
///
/// # Errors
/// The request is beyond TMA's limits, or the GPU has no TMA.
pub(super) fn encode(properties: &Properties, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
    request.check()?;
    if properties.capability < (9, 0) {
        let (major, minor) = properties.capability;
        return Err(Error::invalid(format!(
            "{} has compute capability {major}.{minor}; tensor maps need 9.0",
            properties.name
        )));
    }
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let element = sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    let interleave = sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
    let swizzle = sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B;
    let promotion = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
    let fill = sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
    let rank = request.extents.len() as u32;
    let address = ptr::without_provenance_mut(request.address as usize);
    let (extents, bytes) = (request.extents.as_ptr(), request.strides.as_ptr());
    let mut steps = [1_u32; 5];
    // SAFETY: every array has as many elements as the rank asks for, which `check` saw to.
    let result = unsafe {
        match request.mode {
            TmaMode::Tiled(corner) => sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                rank,
                address,
                extents,
                bytes,
                corner.as_ptr(),
                steps.as_ptr(),
                interleave,
                swizzle,
                promotion,
                fill,
            ),
            TmaMode::Im2col { lower, upper, channels, pixels, strides } => {
                steps[1..3].copy_from_slice(&strides);
                sys::cuTensorMapEncodeIm2col(
                    &raw mut map,
                    element,
                    rank,
                    address,
                    extents,
                    bytes,
                    lower.as_ptr(),
                    upper.as_ptr(),
                    channels,
                    pixels,
                    steps.as_ptr(),
                    interleave,
                    swizzle,
                    promotion,
                    fill,
                )
            }
        }
    };
    check(result, "make a tensor map")?;
    Ok(map.opaque)
}
