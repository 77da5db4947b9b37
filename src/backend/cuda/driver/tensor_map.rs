//! Tensor maps, which describe tensors in global memory to TMA, and the limits that CUDA sets.
//!
//! Both drivers make a map of the same request, which is checked here once: silicon answers a wrong one with a number,
//! and an emulator that allowed more would prove nothing.

use crate::error::{Error, Result};

/// An encoded map, which only the driver that made it can read. A kernel takes it as a member of its argument.
pub type TensorMap = [u64; 16];

/// A tensor of bf16 in global memory, and the box or pixels of it that one TMA load moves. In shared memory they lie densely, swizzled
/// by 128 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorMapRequest<'a> {
    /// Device address of the first element.
    pub address: u64,
    /// Elements along each dimension, innermost first.
    pub extents: &'a [u64],
    /// Bytes from one element to the next along each dimension but the innermost, which has 2.
    pub strides: &'a [u64],
    /// The elements of one TMA load.
    pub mode: TmaMode<'a>,
}

/// The elements that one TMA load moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TmaMode<'a> {
    /// A box: its elements along each dimension, innermost first.
    Tiled(&'a [u32]),
    /// Pixels of images (NHWC: dimensions c, w, h, n), walked over a bounding box from a first one on.
    Im2col {
        /// First pixel of the bounding box in w and h.
        lower: [i32; 2],
        /// Last pixel of the bounding box in w and h, counted from the last of the image.
        upper: [i32; 2],
        /// Channels of each pixel.
        channels: u32,
        /// Pixels in all.
        pixels: u32,
        /// Steps of the walk in w and h.
        strides: [u32; 2],
    },
}

/// Bytes of an element.
pub const ELEMENT_BYTES: u64 = 2;

/// Bytes of a swizzled row.
const ROW_BYTES: u64 = 128;

impl TensorMapRequest<'_> {
    /// Elements of the innermost row of a load.
    pub fn row(&self) -> u32 {
        match self.mode {
            TmaMode::Tiled(extents) => extents.first().copied().unwrap_or(0),
            TmaMode::Im2col { channels, .. } => channels,
        }
    }

    /// Holds the request to CUDA's limits.
    ///
    /// # Errors
    /// Names what is beyond them, and the limits.
    pub fn check(&self) -> Result<()> {
        self.check_tensor()?;
        match self.mode {
            TmaMode::Tiled(extents) => self.check_box(extents)?,
            TmaMode::Im2col { lower, upper, channels, pixels, strides } => {
                self.check_walk([lower, upper], channels, pixels, strides)?;
            }
        }
        let bytes = u64::from(self.row()) * ELEMENT_BYTES;
        if !bytes.is_multiple_of(16) || bytes > ROW_BYTES {
            return refuse(format!(
                "a row of {} elements, {bytes} bytes, is loaded; swizzled rows are a multiple of 16 bytes, at most {ROW_BYTES}",
                self.row()
            ));
        }
        Ok(())
    }

    fn check_tensor(&self) -> Result<()> {
        if self.address == 0 || !self.address.is_multiple_of(16) {
            return refuse(format!(
                "the tensor begins at address {:#x}; a multiple of 16, not zero, is needed",
                self.address
            ));
        }
        let rank = self.extents.len();
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank {
            return refuse(format!(
                "{rank} extents and {} strides; there are 1 to 5 dimensions, and a stride for each but the innermost",
                self.strides.len()
            ));
        }
        for (dimension, &extent) in self.extents.iter().enumerate() {
            if extent == 0 || extent > 1 << 32 {
                return refuse(format!(
                    "dimension {dimension} has {extent} elements; 1 to 4294967296 are allowed"
                ));
            }
        }
        for (dimension, &stride) in (1..).zip(self.strides) {
            if stride == 0 || !stride.is_multiple_of(16) || stride >= 1 << 40 {
                return refuse(format!(
                    "the stride of dimension {dimension} is {stride} bytes; a multiple of 16 below 2^40 is needed: the \
                     channels of a bf16 tensor are padded to a multiple of 8"
                ));
            }
        }
        Ok(())
    }

    fn check_box(&self, extents: &[u32]) -> Result<()> {
        if extents.len() != self.extents.len() {
            return refuse(format!(
                "a box of {} dimensions in a tensor of {}",
                extents.len(),
                self.extents.len()
            ));
        }
        match extents.iter().enumerate().find(|(_, extent)| !(1..=256).contains(*extent)) {
            Some((dimension, extent)) => refuse(format!(
                "the box has {extent} elements in dimension {dimension}; 1 to 256 are allowed"
            )),
            None => Ok(()),
        }
    }

    fn check_walk(
        &self,
        corners: [[i32; 2]; 2],
        channels: u32,
        pixels: u32,
        strides: [u32; 2],
    ) -> Result<()> {
        if self.extents.len() != 4 {
            return refuse(format!(
                "images have 4 dimensions (c, w, h, n), this tensor {}",
                self.extents.len()
            ));
        }
        if !(1..=256).contains(&channels) || !(1..=1024).contains(&pixels) {
            return refuse(format!(
                "{channels} channels of {pixels} pixels; 1 to 256 channels of 1 to 1024 pixels are allowed"
            ));
        }
        for (axis, name) in ["w", "h"].into_iter().enumerate() {
            let [lower, upper] = corners.map(|corner| corner[axis]);
            if !(-128..=127).contains(&lower) || !(-128..=127).contains(&upper) {
                return refuse(format!(
                    "the bounding box has corners {lower} and {upper} in {name}; -128 to 127 are allowed"
                ));
            }
            let last = self.extents[1 + axis] as i64 - 1 + i64::from(upper);
            if last < i64::from(lower) {
                return refuse(format!("the bounding box is empty: pixels {lower} to {last} in {name}"));
            }
            if !(1..=8).contains(&strides[axis]) {
                return refuse(format!(
                    "the walk has steps of {} in {name}; 1 to 8 are allowed",
                    strides[axis]
                ));
            }
        }
        Ok(())
    }
}

fn refuse(what: String) -> Result<()> {
    Err(Error::invalid(format!("no tensor map can be made: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILED: TensorMapRequest<'_> = TensorMapRequest {
        address: 4096,
        extents: &[64, 100],
        strides: &[128],
        mode: TmaMode::Tiled(&[64, 64]),
    };

    const WALK: TensorMapRequest<'_> = TensorMapRequest {
        address: 4096,
        extents: &[64, 8, 6, 2],
        strides: &[128, 1024, 6144],
        mode: walk([-1, -1], [-1, -1], 64, 128, [1, 1]),
    };

    const fn walk(
        lower: [i32; 2],
        upper: [i32; 2],
        channels: u32,
        pixels: u32,
        strides: [u32; 2],
    ) -> TmaMode<'static> {
        TmaMode::Im2col { lower, upper, channels, pixels, strides }
    }

    #[test]
    fn a_request_beyond_the_limits_of_tma_says_which() {
        for sound in [TILED, WALK] {
            sound.check().unwrap();
        }
        let tiled = |extents| TensorMapRequest { mode: TmaMode::Tiled(extents), ..TILED };
        let walked = |mode| TensorMapRequest { mode, ..WALK };
        for (request, part) in [
            (TensorMapRequest { address: 4104, ..TILED }, "begins at address 0x1008; a multiple of 16"),
            (TensorMapRequest { address: 0, ..TILED }, "not zero"),
            (TensorMapRequest { strides: &[], ..TILED }, "2 extents and 0 strides"),
            (TensorMapRequest { strides: &[120], ..TILED }, "the stride of dimension 1 is 120 bytes"),
            (TensorMapRequest { strides: &[1 << 40], ..TILED }, "below 2^40"),
            (TensorMapRequest { extents: &[64, 0], ..TILED }, "dimension 1 has 0 elements"),
            (tiled(&[64]), "a box of 1 dimensions in a tensor of 2"),
            (tiled(&[64, 257]), "the box has 257 elements in dimension 1"),
            (tiled(&[72, 64]), "a row of 72 elements, 144 bytes"),
            (tiled(&[12, 64]), "a row of 12 elements, 24 bytes"),
            (
                TensorMapRequest { mode: WALK.mode, ..TILED },
                "images have 4 dimensions (c, w, h, n), this tensor 2",
            ),
            (walked(walk([-129, 0], [0, 0], 64, 64, [1, 1])), "corners -129 and 0 in w"),
            (walked(walk([0, 0], [0, 128], 64, 64, [1, 1])), "corners 0 and 128 in h"),
            (walked(walk([0, 0], [0, -6], 64, 64, [1, 1])), "empty: pixels 0 to -1 in h"),
            (walked(walk([0, 0], [0, 0], 64, 1025, [1, 1])), "64 channels of 1025 pixels"),
            (walked(walk([0, 0], [0, 0], 64, 64, [1, 9])), "steps of 9 in h"),
            (walked(walk([0, 0], [0, 0], 128, 64, [1, 1])), "a row of 128 elements, 256 bytes"),
        ] {
            let error = request.check().expect_err(part).to_string();
            assert!(error.contains(part), "`{part}` is missing in: {error}");
        }
    }
}
