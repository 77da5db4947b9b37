//! How many elements each operand of an operation has, and which extents make sense.

use super::{
    ClassGroups, Conv2d, Conv2dScaled, Cosine, EnergyMargin, HYPER_ROW, HYPER_ROWS, ImageBatch, KlDivergence,
    Linear, PLACEMENT_NUMBERS, Pool, PoolHead, Rows, Segments, ShortcutA, StepTotals,
};
use crate::error::{Error, Result};
use crate::tensor::{DType, Span, aligned};

/// Extents every kernel may rely on: nothing is empty, and no window hangs outside its input.
pub(crate) fn check(sensible: bool, attributes: impl std::fmt::Debug) -> Result<()> {
    if sensible {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "an operation cannot have the extents {attributes:?}: all must be positive and windows fit"
        )))
    }
}

impl Conv2d {
    pub(crate) fn elements(&self) -> Result<[usize; 3]> {
        let extents = [
            self.batch,
            self.height,
            self.width,
            self.in_channels,
            self.out_channels,
            self.filter_height,
            self.filter_width,
            self.stride,
        ];
        let fits = self.height + 2 * self.padding >= self.filter_height
            && self.width + 2 * self.padding >= self.filter_width;
        check(!extents.contains(&0) && fits, self)?;
        Ok([
            self.batch * self.height * self.width * self.in_channels,
            self.out_channels * self.filter_elements(),
            self.out_pixels() * self.out_channels,
        ])
    }
}

impl Conv2dScaled {
    /// Bytes of scratch memory that what the map makes of the input takes in activations of a type.
    pub(crate) fn room_bytes(&self, working: DType) -> usize {
        let Rows { rows, channels } = self.conv.inputs();
        aligned(rows * channels * working.size())
    }

    /// That room, at the front of scratch memory, and what is left behind it.
    pub(crate) fn room(&self, working: DType, workspace: Span) -> Result<[Span; 2]> {
        let bytes = self.room_bytes(working);
        let Some(left) = workspace.bytes().checked_sub(bytes) else {
            return Err(Error::invalid(format!(
                "a convolution of what a map makes of its input needs {bytes} bytes of workspace for that and was given {}; ask \
                 workspace_bytes for the size",
                workspace.bytes()
            )));
        };
        let elements = self.conv.inputs().elements()?;
        Ok([
            Span { offset: workspace.offset, elements, dtype: working },
            Span {
                offset: workspace.offset + bytes,
                elements: left / workspace.dtype.size(),
                dtype: workspace.dtype,
            },
        ])
    }
}

impl Rows {
    pub(crate) fn elements(&self) -> Result<usize> {
        check(self.rows > 0 && self.channels > 0, self)?;
        Ok(self.rows * self.channels)
    }
}

impl Pool {
    /// Elements of the input and of the output.
    pub(crate) fn elements(&self) -> Result<[usize; 2]> {
        let extents = [self.batch, self.height, self.width, self.channels, self.window, self.stride];
        let fits = 2 * self.padding <= self.window
            && self.height.min(self.width) + 2 * self.padding >= self.window
            && i32::try_from(self.height * self.width).is_ok();
        check(!extents.contains(&0) && fits, self)?;
        let pixels = self.out_height() * self.out_width();
        Ok([self.batch * self.height * self.width * self.channels, self.batch * pixels * self.channels])
    }

    /// The same for a mean over all pixels, where window and stride do not count.
    pub(crate) fn global_elements(&self) -> Result<[usize; 2]> {
        check(![self.batch, self.height, self.width, self.channels].contains(&0), self)?;
        let output = self.batch * self.channels;
        Ok([output * self.height * self.width, output])
    }
}

impl ShortcutA {
    pub(crate) fn elements(&self) -> Result<[usize; 2]> {
        let extents = [self.batch, self.height, self.width, self.in_channels, self.stride];
        check(!extents.contains(&0) && self.out_channels >= self.in_channels, self)?;
        Ok([
            self.batch * self.height * self.width * self.in_channels,
            self.batch * self.out_height() * self.out_width() * self.out_channels,
        ])
    }
}

impl Linear {
    /// Elements of x, weight and y.
    pub(crate) fn elements(&self) -> Result<[usize; 3]> {
        check(![self.batch, self.inputs, self.outputs].contains(&0), self)?;
        Ok([self.batch * self.inputs, self.outputs * self.inputs, self.batch * self.outputs])
    }
}

impl PoolHead {
    /// Elements of x, weight, features and logits.
    pub(crate) fn elements(&self) -> Result<[usize; 4]> {
        let [x, features] = self.pool.global_elements()?;
        let [_, weight, logits] = self.linear().elements()?;
        Ok([x, weight, features, logits])
    }
}

impl Cosine {
    /// Elements of x, weight, inverse norms and y.
    pub(crate) fn elements(&self) -> Result<[usize; 4]> {
        let Cosine { batch, inputs, outputs, epsilon, .. } = *self;
        check(![batch, inputs, outputs].contains(&0) && epsilon > 0.0, self)?;
        Ok([batch * inputs, outputs * inputs, batch + outputs, batch * outputs])
    }
}

impl KlDivergence {
    /// Elements of each side's logits.
    pub(crate) fn elements(&self) -> Result<usize> {
        let positive = self.temperature > 0.0 && self.temperature.is_finite();
        check(self.batch > 0 && self.classes > 0 && positive, self)?;
        Ok(self.batch * self.classes)
    }
}

impl ClassGroups {
    /// Elements of the logits, of the groups' numbers and of the sums.
    pub(crate) fn elements(&self) -> Result<[usize; 3]> {
        let ClassGroups { batch, classes, groups, temperature } = *self;
        let positive = temperature > 0.0 && temperature.is_finite();
        check(![batch, classes, groups].contains(&0) && positive, self)?;
        Ok([batch * classes, classes, batch * groups])
    }
}

impl EnergyMargin {
    /// Elements of the logits.
    pub(crate) fn elements(&self) -> Result<usize> {
        let margins = self.inside.is_finite() && self.outside.is_finite();
        check(self.batch > 0 && self.classes > 0 && margins, self)?;
        Ok(self.batch * self.classes)
    }
}

/// Elements of the parameters of an optimizer's step, and of `hyper` at the least.
pub(crate) fn segment_elements(segments: &Segments) -> Result<[usize; 2]> {
    let used = || segments.iter().filter(|segment| segment.elements > 0);
    let apart = used().rev().skip(1).all(|segment| segment.elements.is_multiple_of(4));
    if !apart {
        return Err(Error::invalid(format!(
            "an optimizer moves parameters in fours, each with one setting: all segments but the last must have a multiple of \
             four, not {segments:?}"
        )));
    }
    check(used().next().is_some() && used().all(|segment| segment.row < HYPER_ROWS), segments)?;
    let last_row = used().map(|segment| segment.row).max().unwrap_or(0);
    Ok([used().map(|segment| segment.elements).sum(), last_row * HYPER_ROW + 1])
}

impl StepTotals {
    /// Elements of the totals.
    pub(crate) fn elements(&self) -> Result<usize> {
        check(self.batch > 0 && self.slots > 0 && self.column < self.columns, self)?;
        Ok(2 * self.slots * self.columns)
    }
}

impl ImageBatch {
    /// Elements of pixels, table, placement and output.
    pub(crate) fn elements(&self) -> Result<[usize; 4]> {
        check(
            ![self.images, self.batch, self.side, self.channels].contains(&0) && self.side < 1 << 15,
            self,
        )?;
        let image = self.side * self.side * self.channels;
        Ok([self.images * image, 256 * self.channels, self.batch * PLACEMENT_NUMBERS, self.batch * image])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_a_map_lies_in_front_and_too_little_scratch_memory_is_told_with_both_sizes() {
        let conv = Conv2d {
            batch: 1,
            height: 3,
            width: 5,
            in_channels: 8,
            out_channels: 16,
            filter_height: 1,
            filter_width: 1,
            stride: 1,
            padding: 0,
        };
        let scaled = Conv2dScaled { conv, relu: true };
        let bytes = scaled.room_bytes(DType::Bf16);
        assert!(bytes >= 3 * 5 * 8 * 2);
        let workspace = |bytes: usize| Span { offset: 64, elements: bytes / 4, dtype: DType::F32 };
        let [map, rest] = scaled.room(DType::Bf16, workspace(bytes + 12)).unwrap();
        assert_eq!((map.offset, map.elements, rest.offset, rest.bytes()), (64, 120, 64 + bytes, 12));
        let error = scaled.room(DType::Bf16, workspace(bytes - 4)).unwrap_err().to_string();
        let sizes = [format!("needs {bytes} bytes"), format!("was given {}", bytes - 4)];
        assert!(sizes.iter().all(|size| error.contains(size)), "{error}");
    }
}
