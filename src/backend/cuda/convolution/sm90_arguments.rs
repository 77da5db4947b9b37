//! What the convolution kernels of sm_90a are told, field by field as in `convolution/sm90/problem.cuh`: a convolution cut into pieces of work.

use bytemuck::{Pod, Zeroable};

use super::problem::{Divider, Residue, WALKS};
use super::sm90_rows::{Layout, Resident};
use super::variants::Kernel;
use crate::backend::cuda::driver::tensor_map::TensorMap;
use crate::ops::Conv2d;

/// Elements of the sum in a stage, and channels that one copy moves.
pub(super) const STEP: usize = 64;

/// Which pixels are walked over, and which taps they see.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Walk {
    pub patches: TensorMap,
    pub width: Divider,
    pub height: Divider,
    pub pixels: u32,
    taps_down: u32,
    taps_across: u32,
    first_tap: u32,
    tap_down: i32,
    tap_across: i32,
    pub first_row: i32,
    pub first_column: i32,
    out_row: u32,
    out_column: u32,
    pub first_item: u32,
    pub first_slab: u32,
    unused: [u32; 14],
}

impl Walk {
    /// The output's pixels, which see patches of the input.
    pub fn of_outputs(conv: &Conv2d) -> Walk {
        Walk {
            width: Divider::new(conv.out_width()),
            height: Divider::new(conv.out_height()),
            pixels: conv.out_pixels() as u32,
            taps_down: conv.filter_height as u32,
            taps_across: conv.filter_width as u32,
            tap_down: conv.filter_width as i32,
            tap_across: 1,
            first_row: -(conv.padding as i32),
            first_column: -(conv.padding as i32),
            ..Walk::zeroed()
        }
    }

    /// The input's pixels, which see patches of the output: a walk for each residue of row and column by the stride, those
    /// with the most taps first.
    pub fn of_inputs(conv: &Conv2d) -> Vec<Walk> {
        let rows = Residue::all(conv, conv.height, conv.filter_height);
        let columns = Residue::all(conv, conv.width, conv.filter_width);
        let mut walks: Vec<Walk> = rows
            .iter()
            .flat_map(|row| columns.iter().map(|column| Walk::of_residues(conv, row, column)))
            .collect();
        walks.sort_by_key(|walk| std::cmp::Reverse(walk.taps()));
        walks
    }

    /// The first tap sees the last row and column of a patch: taps are counted by offsets, so from the last one back.
    fn of_residues(conv: &Conv2d, row: &Residue, column: &Residue) -> Walk {
        let last = |residue: &Residue| residue.filter + residue.taps.saturating_sub(1) * conv.stride;
        let base = |residue: &Residue| residue.first as i32 - residue.taps.saturating_sub(1) as i32;
        Walk {
            width: Divider::new(column.positions),
            height: Divider::new(row.positions),
            pixels: (conv.batch * row.positions * column.positions) as u32,
            taps_down: row.taps as u32,
            taps_across: column.taps as u32,
            first_tap: (last(row) * conv.filter_width + last(column)) as u32,
            tap_down: -((conv.stride * conv.filter_width) as i32),
            tap_across: -(conv.stride as i32),
            first_row: base(row),
            first_column: base(column),
            out_row: row.residue as u32,
            out_column: column.residue as u32,
            ..Walk::zeroed()
        }
    }

    /// Taps that its pixels see; there may be none.
    pub fn taps(&self) -> u32 {
        self.taps_down * self.taps_across
    }
}

/// What the convolution kernels of sm_90a are told.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Arguments {
    pub walks: [Walk; WALKS],
    pub matrix: TensorMap,
    pub out: u64,
    pub bias: u64,
    pub addend: u64,
    pub partial: u64,
    pub mask: u64,
    pub norm_x: u64,
    pub norm_scale: u64,
    pub norm_bias: u64,
    pub norm_mean: u64,
    pub norm_relu: u32,
    pub slabs: u32,
    walk_count: u32,
    pub items: u32,
    flat: u32,
    pixel_step: u32,
    chunks: u32,
    channels: u32,
    rows: u32,
    columns: u32,
    tiles_across: Divider,
    tiles: Divider,
    splits: u32,
    taps_across: u32,
    out_step: u32,
    out_height: u32,
    out_width: u32,
    pub relu: u32,
    resident: Resident,
    pub patch_scale: u64,
    pub patch_bias: u64,
    pub patch_relu: u32,
    unused: [u32; 11],
}

// Tensor maps lie at multiples of 64 bytes, and a C++ struct with such members has a multiple of 64 bytes.
const _: () = assert!(size_of::<Walk>() == 256 && size_of::<Arguments>().is_multiple_of(64));

impl Arguments {
    /// Forward, but for operands and maps.
    pub fn forward(conv: &Conv2d, kernel: &Kernel) -> Arguments {
        let mut arguments = Arguments {
            out_step: 1,
            out_height: conv.out_height() as u32,
            out_width: conv.out_width() as u32,
            ..Arguments::over_inputs(conv, kernel, conv.out_channels)
        };
        arguments.walk(&[Walk::of_outputs(conv)], kernel);
        arguments
    }

    /// An input gradient, but for operands, maps and walks.
    pub fn input_gradient(conv: &Conv2d, kernel: &Kernel) -> Arguments {
        Arguments {
            pixel_step: 1,
            chunks: conv.out_channels.div_ceil(STEP) as u32,
            channels: conv.out_channels as u32,
            out_step: conv.stride as u32,
            out_height: conv.height as u32,
            out_width: conv.width as u32,
            ..Arguments::over_inputs(conv, kernel, conv.in_channels)
        }
    }

    /// A weight gradient, but for operands and maps. Columns are counted in blocks of 64 channels of a tap.
    pub fn weight_gradient(conv: &Conv2d, kernel: &Kernel, splits: usize) -> Arguments {
        let blocks = conv.filter_height * conv.filter_width * conv.in_channels.div_ceil(STEP);
        let tiles_across = (blocks * STEP).div_ceil(kernel.cluster_tile()[1]);
        let tiles = conv.out_channels.div_ceil(kernel.cluster_tile()[0]) * tiles_across;
        let mut arguments = Arguments {
            rows: conv.out_channels as u32,
            columns: conv.filter_elements() as u32,
            tiles_across: Divider::new(tiles_across),
            tiles: Divider::new(tiles),
            splits: splits as u32,
            walk_count: 1,
            items: (tiles * splits) as u32,
            ..Arguments::over_inputs(conv, kernel, conv.filter_elements())
        };
        arguments.walks[0] = Walk::of_outputs(conv);
        arguments
    }

    /// A product with so many columns whose patches are those of the input.
    fn over_inputs(conv: &Conv2d, kernel: &Kernel, columns: usize) -> Arguments {
        Arguments {
            flat: conv.is_pointwise().into(),
            pixel_step: conv.stride as u32,
            chunks: conv.in_channels.div_ceil(STEP) as u32,
            channels: conv.in_channels as u32,
            columns: columns as u32,
            tiles_across: Divider::new(columns.div_ceil(kernel.cluster_tile()[1])),
            tiles: Divider::new(1),
            splits: 1,
            taps_across: conv.filter_width as u32,
            resident: Layout::of(kernel, conv).map_or(Resident::zeroed(), |layout| layout.resident()),
            ..Arguments::zeroed()
        }
    }

    /// Lays the tiles of at most [`WALKS`] walks one behind the other; those of a cluster are one piece of work.
    pub fn walk(&mut self, walks: &[Walk], kernel: &Kernel) {
        for (place, walk) in self.walks.iter_mut().zip(walks) {
            *place = Walk { first_item: self.items, ..*walk };
            self.walk_count += 1;
            let tiles = kernel.tiles(walk.pixels as usize, self.columns as usize);
            self.items += (tiles / kernel.blocks()) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_an_input_gradients_walk_reach_the_rows_that_its_taps_see() {
        for (stride, padding, filter) in [(1, 1, 3), (2, 1, 3), (2, 0, 1), (2, 3, 7), (3, 2, 5), (1, 0, 2)] {
            let conv = Conv2d {
                batch: 2,
                height: 11,
                width: 8,
                in_channels: 8,
                out_channels: 16,
                filter_height: filter,
                filter_width: filter,
                stride,
                padding,
            };
            let mut taps = 0;
            for walk in Walk::of_inputs(&conv) {
                taps += walk.taps();
                for offset in 0..walk.taps_down.min(walk.taps()) as i32 {
                    let tap = walk.first_tap as i32 + offset * walk.tap_down;
                    let row = tap / filter as i32;
                    // Input row = output row * stride + filter row - padding.
                    let seen = (walk.first_row + offset) * stride as i32 + row - padding as i32;
                    assert_eq!(seen, walk.out_row as i32, "{conv:?} {walk:?}");
                }
            }
            assert_eq!(taps as usize, filter * filter, "every tap belongs to one walk");
        }
    }
}
