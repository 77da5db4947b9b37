//! A convolution as an implicit GEMM, on any architecture: its passes, fast divmod, and the phases of a strided dgrad.

use serde::{Deserialize, Serialize};

pub(super) use crate::backend::cuda::kernel_files::common::fast_divmod::FastDivmod;
use crate::ops::{Call, Conv2d};

/// The three passes of a convolution: fprop, dgrad and wgrad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pass {
    /// The output, in training and in inference.
    #[serde(rename = "forward")]
    Fprop,
    /// The gradient with respect to the input.
    #[serde(rename = "input-gradient")]
    Dgrad,
    /// The gradient with respect to the weights.
    #[serde(rename = "weight-gradient")]
    Wgrad,
}

impl Pass {
    /// The pass and the convolution of a call that is one.
    pub fn of<B>(call: &Call<B>) -> Option<(Pass, &Conv2d)> {
        match call {
            Call::Conv2dFprop(op) => Some((Pass::Fprop, &op.conv)),
            Call::Conv2dDgrad(op) => Some((Pass::Dgrad, &op.conv)),
            Call::Conv2dWgrad(op) => Some((Pass::Wgrad, &op.conv)),
            _ => None,
        }
    }

    /// The name in the field, by which kernels are called.
    pub fn word(self) -> &'static str {
        match self {
            Pass::Fprop => "fprop",
            Pass::Dgrad => "dgrad",
            Pass::Wgrad => "wgrad",
        }
    }

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Fprop => "forward",
            Pass::Dgrad => "input-gradient",
            Pass::Wgrad => "weight-gradient",
        }
    }
}

impl FastDivmod {
    /// For divisors from 1 to 2^31 (Granlund & Montgomery 1994).
    pub fn new(divisor: usize) -> FastDivmod {
        let shift = divisor.next_power_of_two().trailing_zeros();
        let factor = (((1u64 << shift) - divisor as u64) << 32) / divisor as u64 + 1;
        FastDivmod { divisor: divisor as u32, factor: factor as u32, shift }
    }

    /// The division as the kernels compute it.
    #[cfg(test)]
    fn divide(&self, number: u32) -> u32 {
        (((u64::from(number) * u64::from(self.factor)) >> 32) as u32 + number) >> self.shift
    }
}

/// The input's rows (or columns) that leave one residue when divided by the stride.
pub(super) struct Residue {
    pub residue: usize,
    /// Their number.
    pub positions: usize,
    /// The first filter row they see; from there every stride-th.
    pub filter: usize,
    /// Number of filter rows they see.
    pub taps: usize,
    /// The output row that the first of them sees through the first of these filter rows.
    pub first: usize,
}

impl Residue {
    pub fn all(conv: &Conv2d, extent: usize, filter_extent: usize) -> Vec<Residue> {
        (0..conv.stride.min(extent))
            .map(|residue| {
                // Input row h is output row p's through filter row r where h + padding = p * stride + r.
                let filter = (residue + conv.padding) % conv.stride;
                Residue {
                    residue,
                    positions: (extent - residue).div_ceil(conv.stride),
                    filter,
                    taps: filter_extent.saturating_sub(filter).div_ceil(conv.stride),
                    first: (residue + conv.padding) / conv.stride,
                }
            })
            .collect()
    }
}

/// One of the GEMMs of a dgrad: the pixels of one residue of row and column by the stride.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DgradPhase {
    pub pixels: usize,
    /// Filter taps that they see; there may be none.
    pub taps: usize,
}

impl DgradPhase {
    /// All of them, those with the most taps first.
    pub fn all(conv: &Conv2d) -> Vec<DgradPhase> {
        let rows = Residue::all(conv, conv.height, conv.filter_height);
        let columns = Residue::all(conv, conv.width, conv.filter_width);
        let phase = |row: &Residue, column: &Residue| DgradPhase {
            pixels: conv.batch * row.positions * column.positions,
            taps: row.taps * column.taps,
        };
        let mut phases: Vec<DgradPhase> =
            rows.iter().flat_map(|row| columns.iter().map(move |column| phase(row, column))).collect();
        phases.sort_by_key(|phase| std::cmp::Reverse(phase.taps));
        phases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_divmod_divides_every_number_below_two_to_the_31() {
        let divisors =
            (1..300).chain([1023, 1024, 1025, 65_535, 65_536, 1_000_003, (1 << 30) + 1, (1 << 31) - 1]);
        for divisor in divisors {
            let by = FastDivmod::new(divisor);
            let near = (1..50u64).flat_map(|k| {
                let multiple = (1u64 << 31) / divisor as u64 / k * divisor as u64;
                [multiple.saturating_sub(1), multiple, multiple + 1]
            });
            for number in near.chain(0..1000).filter(|&number| number < 1 << 31) {
                assert_eq!(
                    by.divide(number as u32),
                    (number / divisor as u64) as u32,
                    "{number} / {divisor}"
                );
            }
        }
    }
}
