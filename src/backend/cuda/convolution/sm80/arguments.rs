//! The arguments of `convolution/sm80/implicit_gemm.cu`, which stand in `convolution/sm80/problem.cuh`.

use bytemuck::Zeroable;

use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::{FastDivmod, Pass, Residue};
pub(super) use crate::backend::cuda::kernel_files::convolution::sm80::problem::{
    Arguments, MAX_PHASES, Phase,
};
use crate::ops::Conv2d;

impl Phase {
    /// The output's pixels, which see patches of the input.
    pub(super) fn of_outputs(conv: &Conv2d) -> Phase {
        Phase {
            width: FastDivmod::new(conv.out_width()),
            height: FastDivmod::new(conv.out_height()),
            taps_w: FastDivmod::new(conv.filter_width),
            pixels: conv.out_pixels() as u32,
            patch: conv.filter_elements() as u32,
            first_row: -(conv.padding as i32),
            first_column: -(conv.padding as i32),
            filter_row: 0,
            filter_column: 0,
            out_row: 0,
            out_column: 0,
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
        phases.sort_by_key(|phase| std::cmp::Reverse(phase.patch));
        phases
    }

    fn of_residues(conv: &Conv2d, row: &Residue, column: &Residue) -> Phase {
        Phase {
            width: FastDivmod::new(column.positions),
            height: FastDivmod::new(row.positions),
            taps_w: FastDivmod::new(column.taps.max(1)),
            pixels: (conv.batch * row.positions * column.positions) as u32,
            patch: (row.taps * column.taps * conv.out_channels) as u32,
            first_row: row.first as i32,
            first_column: column.first as i32,
            filter_row: row.filter as u32,
            filter_column: column.filter as u32,
            out_row: row.residue as u32,
            out_column: column.residue as u32,
        }
    }
}

impl Arguments {
    /// fprop, but for the operands and the phase.
    pub(super) fn fprop(conv: &Conv2d, kernel: &Kernel) -> Arguments {
        Arguments {
            out_height: conv.out_height() as u32,
            out_width: conv.out_width() as u32,
            ..Arguments::over_inputs(conv, kernel, conv.out_pixels(), conv.out_channels)
        }
    }

    /// wgrad, but for the operands and the phase.
    pub(super) fn wgrad(conv: &Conv2d, kernel: &Kernel, splits: usize) -> Arguments {
        Arguments {
            split_k: splits as u32,
            ..Arguments::over_inputs(conv, kernel, conv.out_channels, conv.filter_elements())
        }
    }

    /// dgrad, but for the operands and the phases.
    pub(super) fn dgrad(conv: &Conv2d, kernel: &Kernel) -> Arguments {
        Arguments {
            image_elements: (conv.out_height() * conv.out_width() * conv.out_channels) as i64,
            image_height: conv.out_height() as i32,
            image_width: conv.out_width() as i32,
            channels: FastDivmod::new(conv.out_channels),
            pixel_step: 1,
            tap_step: -1,
            filter_step: conv.stride as u32,
            out_step: conv.stride as u32,
            out_height: conv.height as u32,
            out_width: conv.width as u32,
            ..Arguments::over_inputs(conv, kernel, 0, conv.in_channels)
        }
    }

    /// A GEMM of `rows` x `columns` whose patches are those of the input.
    fn over_inputs(conv: &Conv2d, kernel: &Kernel, rows: usize, columns: usize) -> Arguments {
        let out_size = if kernel.pass == Pass::Wgrad { 4 } else { kernel.dtype.size() };
        Arguments {
            image_elements: (conv.height * conv.width * conv.in_channels) as i64,
            image_height: conv.height as i32,
            image_width: conv.width as i32,
            channels: FastDivmod::new(conv.in_channels),
            pixel_step: conv.stride as i32,
            tap_step: 1,
            filter_step: 1,
            filter_width: conv.filter_width as u32,
            filter_taps: (conv.filter_height * conv.filter_width) as u32,
            out_step: 1,
            gemm_m: rows as u32,
            gemm_n: columns as u32,
            tiles_n: columns.div_ceil(kernel.tile[1]) as u32,
            split_k: 1,
            vectorized_out: (columns * out_size).is_multiple_of(16).into(),
            ..Arguments::zeroed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_of_an_input_gradient_see_each_product_once() {
        for (stride, padding, filter_height, filter_width) in
            [(1, 1, 3, 3), (2, 1, 3, 3), (2, 0, 1, 1), (3, 2, 7, 5), (5, 0, 3, 3)]
        {
            let conv = Conv2d {
                batch: 2,
                height: 11,
                width: 8,
                in_channels: 3,
                out_channels: 4,
                filter_height,
                filter_width,
                stride,
                padding,
            };
            let phases = Phase::of_inputs(&conv);
            assert_eq!(phases.iter().map(|phase| phase.pixels).sum::<u32>(), 2 * 11 * 8);
            // Every tap belongs to one residue of its row and one of its column, and so to one phase.
            let taps: u32 = phases.iter().map(|phase| phase.patch / 4).sum();
            assert_eq!(taps as usize, filter_height * filter_width, "stride {stride}");
        }
    }
}
