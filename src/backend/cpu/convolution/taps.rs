//! The geometry of convolutions: which row of which tensor a tap of the filter sees from a pixel, and in which order the
//! pixels of a tile are best taken.

use super::kernel::{NOWHERE, ROWS};
use crate::backend::cpu::element::Element;
use crate::ops::Conv2d;

/// The direction in which a convolution's filter taps are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From output pixels to the inputs they saw.
    Forward,
    /// From input pixels to the outputs that saw them.
    Backward,
}

/// A feature map, tile by tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taps<'a> {
    conv: &'a Conv2d,
    direction: Direction,
    /// Rows and columns of the map whose pixels are computed.
    map: [usize; 2],
}

/// Largest map (in pixels) whose tiles are whole images, taken position by position: pixels at the same position of
/// [`ROWS`] images lack the same taps, so that padding costs nothing. It is 31 % of the work at 4x4, 16 % at 8x8.
const SMALL_MAP: usize = 64;

/// Pixels of a tile of a larger map: a multiple of [`ROWS`], and of two rows of the usual maps of 32 and 16 columns.
const TILE: usize = 192;

impl<'a> Taps<'a> {
    pub(super) fn new(conv: &'a Conv2d, direction: Direction) -> Taps<'a> {
        let map = match direction {
            Direction::Forward => [conv.out_height(), conv.out_width()],
            Direction::Backward => [conv.height, conv.width],
        };
        Taps { conv, direction, map }
    }

    /// Number of taps of the filter.
    pub(super) fn count(&self) -> usize {
        self.conv.filter_height * self.conv.filter_width
    }

    /// Pixels of a tile; the last may have fewer.
    pub(super) fn tile(&self) -> usize {
        let pixels = self.map[0] * self.map[1];
        if pixels > SMALL_MAP { TILE } else { ROWS * (TILE / 2).div_ceil(ROWS * pixels) * pixels }
    }

    /// The order in which the `count` pixels from `first` on are computed, as positions in the tile.
    ///
    /// Neighbours in this order lack the same filter taps as often as possible: pixels at the same position of small maps, and
    /// of a strided dgrad pixels of the same phase, which the same filter taps can have touched.
    pub(super) fn order(&self, first: usize, count: usize, order: &mut Vec<usize>) {
        let [rows, columns] = self.map;
        let pixels = rows * columns;
        order.clear();
        let stride = if self.direction == Direction::Backward { self.conv.stride } else { 1 };
        for phase in 0..stride * stride {
            let in_phase = |pixel: usize| {
                let (row, column) = (pixel / columns % rows, pixel % columns);
                stride == 1 || row % stride * stride + column % stride == phase
            };
            if pixels > SMALL_MAP {
                order.extend((0..count).filter(|&index| in_phase(first + index)));
            } else {
                for position in (0..pixels).filter(|&position| in_phase(position)) {
                    order.extend((position..count).step_by(pixels));
                }
            }
        }
    }

    /// The offset of the row of `channels` elements that each tap sees from each pixel: `offsets[tap * padded + index]`
    /// for the pixel at `order[index]`, with `padded` the number of pixels rounded up to whole blocks.
    pub(super) fn offsets(&self, first: usize, order: &[usize], channels: usize, offsets: &mut Vec<usize>) {
        let [rows, columns] = self.map;
        let padded = order.len().next_multiple_of(ROWS);
        offsets.clear();
        offsets.resize(self.count() * padded, NOWHERE);
        for (index, &position) in order.iter().enumerate() {
            let pixel = first + position;
            let (image, row, column) = (pixel / (rows * columns), pixel / columns % rows, pixel % columns);
            for r in 0..self.conv.filter_height {
                let Some((row, height)) = self.seen(row, r, self.conv.height, self.conv.out_height()) else {
                    continue;
                };
                for s in 0..self.conv.filter_width {
                    if let Some((column, width)) =
                        self.seen(column, s, self.conv.width, self.conv.out_width())
                    {
                        let tap = r * self.conv.filter_width + s;
                        offsets[tap * padded + index] = ((image * height + row) * width + column) * channels;
                    }
                }
            }
        }
    }

    /// The coordinate that a tap sees along one axis, and the extent of the map it lies in.
    fn seen(&self, at: usize, tap: usize, input: usize, output: usize) -> Option<(usize, usize)> {
        let Conv2d { stride, padding, .. } = *self.conv;
        match self.direction {
            Direction::Forward => {
                let seen = (at * stride + tap).wrapping_sub(padding);
                (seen < input).then_some((seen, input))
            }
            Direction::Backward => {
                let scaled = (at + padding).checked_sub(tap)?;
                let seen = if stride == 1 { scaled } else { scaled / stride };
                (seen * stride == scaled && seen < output).then_some((seen, output))
            }
        }
    }
}

/// Copies the patches that output pixels see, one row of `patches` each, `stride` elements apart: for inputs of so few
/// channels that rows of them would be too short to work on.
pub(super) fn gather<T: Element>(conv: &Conv2d, x: &[T], first: usize, stride: usize, patches: &mut [T]) {
    let channels = conv.in_channels;
    let (rows, columns) = (conv.out_height(), conv.out_width());
    for (index, patch) in patches.chunks_exact_mut(stride).enumerate() {
        patch.fill(T::ZERO);
        let pixel = first + index;
        let image = pixel / (rows * columns);
        let (top, corner) = (pixel / columns % rows * conv.stride, pixel % columns * conv.stride);
        // The filter columns that fall inside the input.
        let left = conv.padding.saturating_sub(corner).min(conv.filter_width);
        let right = (conv.width + conv.padding).saturating_sub(corner).min(conv.filter_width);
        if left >= right {
            continue;
        }
        for r in 0..conv.filter_height {
            let row = (top + r).wrapping_sub(conv.padding);
            if row < conv.height {
                let column = corner + left - conv.padding;
                let from = ((image * conv.height + row) * conv.width + column) * channels;
                let length = (right - left) * channels;
                let to = (r * conv.filter_width + left) * channels;
                patch[to..to + length].copy_from_slice(&x[from..from + length]);
            }
        }
    }
}
