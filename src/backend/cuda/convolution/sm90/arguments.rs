//! Arguments of the convolution kernels of sm_90a, which stand in `convolution/sm90/arguments.cuh`: a convolution cut into output tiles.

use bytemuck::Zeroable;

use super::row_layout::{Layout, RowLayout};
use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::{FastDivmod, Residue};
pub(super) use crate::backend::cuda::kernel_files::convolution::sm90::arguments::{
    Arguments, BLOCK_K, MAX_PHASES, Phase,
};
use crate::backend::cuda::kernel_files::convolution::sm90::epilogue_tile::EPILOGUE_SIDE;
use crate::backend::cuda::kernel_files::convolution::sm90::mainloop::CONSUMERS;
use crate::ops::Conv2d;

/// Bytes of the epilogue tiles of both consumers.
pub(super) const EPILOGUE_TILES: usize = CONSUMERS * EPILOGUE_SIDE * EPILOGUE_SIDE * size_of::<f32>();

impl Phase {
    /// The output's pixels, which see patches of the input.
    pub(super) fn of_outputs(conv: &Conv2d) -> Phase {
        Phase {
            width: FastDivmod::new(conv.out_width()),
            height: FastDivmod::new(conv.out_height()),
            pixels: conv.out_pixels() as u32,
            taps_h: conv.filter_height as u32,
            taps_w: conv.filter_width as u32,
            tap_step_h: conv.filter_width as i32,
            tap_step_w: 1,
            first_row: -(conv.padding as i32),
            first_column: -(conv.padding as i32),
            ..Phase::zeroed()
        }
    }

    /// The input's pixels, which see patches of the output: a phase for each residue of row and column by the stride, those
    /// with the most taps first.
    pub(super) fn of_inputs(conv: &Conv2d) -> Vec<Phase> {
        let rows = Residue::all(conv, conv.height, conv.filter_height);
        let columns = Residue::all(conv, conv.width, conv.filter_width);
        let mut phases: Vec<Phase> = rows
            .iter()
            .flat_map(|row| columns.iter().map(|column| Phase::of_residues(conv, row, column)))
            .collect();
        phases.sort_by_key(|phase| std::cmp::Reverse(phase.taps()));
        phases
    }

    /// The first tap sees the last row and column of a patch: taps are counted by offsets, so from the last one back.
    fn of_residues(conv: &Conv2d, row: &Residue, column: &Residue) -> Phase {
        let last = |residue: &Residue| residue.filter + residue.taps.saturating_sub(1) * conv.stride;
        let base = |residue: &Residue| residue.first as i32 - residue.taps.saturating_sub(1) as i32;
        Phase {
            width: FastDivmod::new(column.positions),
            height: FastDivmod::new(row.positions),
            pixels: (conv.batch * row.positions * column.positions) as u32,
            taps_h: row.taps as u32,
            taps_w: column.taps as u32,
            first_tap: (last(row) * conv.filter_width + last(column)) as u32,
            tap_step_h: -((conv.stride * conv.filter_width) as i32),
            tap_step_w: -(conv.stride as i32),
            first_row: base(row),
            first_column: base(column),
            out_row: row.residue as u32,
            out_column: column.residue as u32,
            ..Phase::zeroed()
        }
    }

    /// Taps that its pixels see; there may be none.
    pub(super) fn taps(&self) -> u32 {
        self.taps_h * self.taps_w
    }
}

impl Arguments {
    /// fprop, but for operands and maps.
    pub(super) fn fprop(conv: &Conv2d, kernel: &Kernel, layout: Option<Layout>) -> Arguments {
        let mut arguments = Arguments {
            out_step: 1,
            out_height: conv.out_height() as u32,
            out_width: conv.out_width() as u32,
            ..Arguments::over_inputs(conv, kernel, layout, conv.out_channels)
        };
        arguments.add_phases(&[Phase::of_outputs(conv)], kernel);
        arguments
    }

    /// dgrad, but for operands, maps and phases.
    pub(super) fn dgrad(conv: &Conv2d, kernel: &Kernel, layout: Option<Layout>) -> Arguments {
        Arguments {
            pixel_step: 1,
            chunks: conv.out_channels.div_ceil(BLOCK_K) as u32,
            channels: conv.out_channels as u32,
            out_step: conv.stride as u32,
            out_height: conv.height as u32,
            out_width: conv.width as u32,
            ..Arguments::over_inputs(conv, kernel, layout, conv.in_channels)
        }
    }

    /// wgrad, but for operands and maps. Columns are counted in panels of 64 channels of a tap.
    pub(super) fn wgrad(conv: &Conv2d, kernel: &Kernel, layout: Option<Layout>, splits: usize) -> Arguments {
        let blocks = conv.filter_height * conv.filter_width * conv.in_channels.div_ceil(BLOCK_K);
        let tiles_n = (blocks * BLOCK_K).div_ceil(kernel.cluster_tile()[1]);
        let tiles = conv.out_channels.div_ceil(kernel.cluster_tile()[0]) * tiles_n;
        let mut arguments = Arguments {
            gemm_m: conv.out_channels as u32,
            gemm_n: conv.filter_elements() as u32,
            tiles_n: FastDivmod::new(tiles_n),
            tiles_per_split: FastDivmod::new(tiles),
            split_k: splits as u32,
            phase_count: 1,
            tile_count: (tiles * splits) as u32,
            ..Arguments::over_inputs(conv, kernel, layout, conv.filter_elements())
        };
        arguments.phases[0] = Phase::of_outputs(conv);
        arguments
    }

    /// A GEMM with `columns` columns whose patches are those of the input.
    fn over_inputs(conv: &Conv2d, kernel: &Kernel, layout: Option<Layout>, columns: usize) -> Arguments {
        Arguments {
            pointwise: conv.is_pointwise().into(),
            pixel_step: conv.stride as u32,
            chunks: conv.in_channels.div_ceil(BLOCK_K) as u32,
            channels: conv.in_channels as u32,
            gemm_n: columns as u32,
            tiles_n: FastDivmod::new(columns.div_ceil(kernel.cluster_tile()[1])),
            tiles_per_split: FastDivmod::new(1),
            split_k: 1,
            filter_w: conv.filter_width as u32,
            row_layout: layout.map_or(RowLayout::zeroed(), |layout| layout.row_layout()),
            ..Arguments::zeroed()
        }
    }

    /// Appends the output tiles of at most [`MAX_PHASES`] phases; the tiles of a cluster count as one.
    pub(super) fn add_phases(&mut self, phases: &[Phase], kernel: &Kernel) {
        for (place, phase) in self.phases.iter_mut().zip(phases) {
            *place = Phase { first_tile: self.tile_count, ..*phase };
            self.phase_count += 1;
            let tiles = kernel.tiles(phase.pixels as usize, self.gemm_n as usize);
            self.tile_count += (tiles / kernel.blocks()) as u32;
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
            for phase in Phase::of_inputs(&conv) {
                taps += phase.taps();
                for offset in 0..phase.taps_h.min(phase.taps()) as i32 {
                    let tap = phase.first_tap as i32 + offset * phase.tap_step_h;
                    let row = tap / filter as i32;
                    // Input row = output row * stride + filter row - padding.
                    let seen = (phase.first_row + offset) * stride as i32 + row - padding as i32;
                    assert_eq!(seen, phase.out_row as i32, "{conv:?} {phase:?}");
                }
            }
            assert_eq!(taps as usize, filter * filter, "every tap belongs to one phase");
        }
    }
}
