//! The work of a convolution's kernel in numbers, which the cost model predicts its time by.

use super::kernel::{Kernel, Units};
use super::problem::{DgradPhase, Pass};
use crate::ops::Conv2d;

/// Output tiles that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items {
    /// Their number.
    pub count: usize,
    /// K of each, padded to whole K blocks.
    pub sum: usize,
}

/// The GEMM of one pass of a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Products {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The entry of its module that is launched.
    pub entry: &'static str,
    /// Rows and columns of an output tile.
    pub tile: [usize; 2],
    /// The units that multiply.
    pub units: Units,
    /// Bytes of an element of the operands.
    pub element_bytes: usize,
    /// Bytes that loads write to shared memory, and a prologue reads and writes there, for each element of K of a tile.
    pub copied: f64,
    /// The part of them that is loaded from L2: less where a multicast serves several thread blocks.
    pub fetched: f64,
    /// Whether TMA loads patches in im2col mode.
    pub im2col: bool,
    /// The output tiles, in the order in which they begin.
    pub items: Vec<Items>,
    /// Split-K slices of a wgrad.
    pub splits: usize,
}

impl Kernel {
    /// The GEMM of a convolution's pass in a number of split-K slices. A kernel that applies a prologue rewrites its patches in shared
    /// memory.
    pub fn products(&'static self, conv: &Conv2d, splits: usize, prologue: bool) -> Products {
        let [copied, fetched] = self.family.loaded(self, conv);
        let patches = self.tile[usize::from(self.pass == Pass::Wgrad)] * self.dtype.size();
        Products {
            kernel: self.name,
            entry: self.module.entries[0].name,
            tile: self.tile,
            units: self.family.units(self),
            element_bytes: self.dtype.size(),
            copied: copied + if prologue { 2.0 * patches as f64 } else { 0.0 },
            fetched,
            im2col: self.family.loads_im2col(conv),
            items: items(self, conv, splits),
            splits,
        }
    }
}

fn items(kernel: &Kernel, conv: &Conv2d, splits: usize) -> Vec<Items> {
    let [rows, columns] = kernel.extents(conv);
    match kernel.pass {
        Pass::Fprop => {
            vec![Items { count: kernel.tiles(rows, columns), sum: kernel.gemm_k(conv) }]
        }
        Pass::Dgrad => DgradPhase::all(conv)
            .iter()
            .map(|phase| Items {
                count: kernel.tiles(phase.pixels, columns),
                sum: kernel.k_of_taps(phase.taps, conv.out_channels),
            })
            .collect(),
        Pass::Wgrad => {
            let sum = kernel.family.longest_split(kernel, conv, splits) * kernel.block_k();
            vec![Items { count: kernel.tiles(rows, columns) * splits, sum }]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cuda::driver::Properties;
    use crate::backend::cuda::driver::recorder::Recorder;
    use crate::backend::cuda::{Cuda, Sources};
    use crate::ops::{Affine, Call, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, Device};
    use crate::tensor::DType;

    fn card() -> Cuda {
        with("sm_80", (8, 0))
    }

    fn with(architecture: &str, capability: (u32, u32)) -> Cuda {
        let properties = Properties {
            name: "a card".into(),
            architecture: architecture.into(),
            capability,
            sms: 108,
            memory_bytes: 1 << 36,
            shared_bytes_per_block: 227 << 10,
            red_zone: 0,
            versions: String::new(),
        };
        Cuda::new(Arc::new(Recorder::new(properties)), DType::Bf16, Sources::default()).unwrap()
    }

    const CONV: Conv2d = Conv2d {
        batch: 128,
        height: 32,
        width: 32,
        in_channels: 64,
        out_channels: 128,
        filter_height: 3,
        filter_width: 3,
        stride: 2,
        padding: 1,
    };

    /// The GEMM of a pass of a convolution, with a prologue where it can have one.
    fn products(cuda: &Cuda, pass: Pass, conv: Conv2d, prologue: bool) -> Products {
        let prologue = prologue.then_some(Affine { scale: (), bias: (), relu: true });
        let call: Call<()> = match pass {
            Pass::Fprop => Conv2dFprop { prologue, ..Conv2dFprop::new(conv, [(); 3]) }.into(),
            Pass::Dgrad => Conv2dDgrad::new(conv, [(); 3]).into(),
            Pass::Wgrad => Conv2dWgrad { prologue, ..Conv2dWgrad::new(conv, [(); 3]) }.into(),
        };
        cuda.products(&call, &cuda.prepare(&call)).unwrap()
    }

    #[test]
    fn work_items_cover_every_product_once() {
        let needed_by = |pass| {
            let Products { tile, items, .. } = products(&card(), pass, CONV, false);
            let each: usize = items.iter().map(|items| items.count * items.sum).sum();
            each * tile[0] * tile[1]
        };
        // Every extent is whole tiles and every K whole K blocks, so nothing is computed in vain.
        let needed = (CONV.flop() / 2.0) as usize;
        assert_eq!(needed_by(Pass::Fprop), needed);
        assert_eq!(needed_by(Pass::Dgrad), needed);
        assert!((needed..needed + needed / 8).contains(&needed_by(Pass::Wgrad)));
    }

    #[test]
    fn a_dgrad_begins_with_the_longest_sums() {
        let items = products(&card(), Pass::Dgrad, CONV, false).items;
        let sums: Vec<usize> = items.iter().map(|items| items.sum).collect();
        // Of nine taps four, two, two and one fall on the four residues of the pixels.
        assert_eq!(sums, [4 * 128, 2 * 128, 2 * 128, 128]);
    }

    #[test]
    fn patches_that_a_prologue_rewrites_are_read_and_written_once_more() {
        let hopper = with("sm_90a", (9, 0));
        let pointwise =
            Conv2d { in_channels: 256, filter_height: 1, filter_width: 1, stride: 1, padding: 0, ..CONV };
        for (pass, side) in [(Pass::Fprop, 0), (Pass::Wgrad, 1)] {
            let [plain, rewritten] =
                [false, true].map(|prologue| products(&hopper, pass, pointwise, prologue));
            assert_eq!(rewritten.copied - plain.copied, 2.0 * 2.0 * plain.tile[side] as f64);
            assert_eq!(Products { copied: plain.copied, ..rewritten }, plain);
            // Before other kernels, and for other convolutions, a separate pass applies it.
            for (cuda, conv) in [(card(), pointwise), (with("sm_90a", (9, 0)), CONV)] {
                let [plain, behind] = [false, true].map(|prologue| products(&cuda, pass, conv, prologue));
                assert_eq!(behind, plain);
            }
        }
    }
}
