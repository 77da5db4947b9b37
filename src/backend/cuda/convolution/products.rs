//! The work of a convolution's kernel in numbers, for predictions of its time.

use super::heuristics::{Chosen, candidates, choose};
use super::kernel::{Kernel, Pass};
use super::problem::DgradPhase;
use crate::backend::cuda::Cuda;
use crate::ops::Conv2d;

/// The units that multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// CUDA cores, in f32.
    Scalar,
    /// Tensor cores by `mma.sync`: warps along M and N of the tile.
    Warps([usize; 2]),
    /// Tensor cores by WGMMA, 64 x `wide`, or with A and B swapped.
    Warpgroups {
        /// N of an instruction.
        wide: usize,
        /// Cooperative consumers: both work on one tile, so that neither multiplies while it is stored.
        cooperate: bool,
    },
}

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
    /// The output tiles, in the order in which they begin.
    pub items: Vec<Items>,
    /// Split-K slices of a wgrad.
    pub splits: usize,
}

impl Cuda {
    /// The kernels that can compute a pass of a convolution: name, the splits that are predicted to be best, and the most.
    pub fn candidates(&self, pass: Pass, conv: &Conv2d) -> Vec<(&'static str, usize, usize)> {
        let multiprocessors = self.driver.properties().multiprocessors.max(1) as usize;
        candidates(pass, self.dtype, conv)
            .filter(|kernel| kernel.family.runs_on(self.driver.properties()))
            .map(|kernel| (kernel.name, kernel.splits(conv, multiprocessors), kernel.most_splits(conv)))
            .collect()
    }

    /// The GEMM that computes a pass of a convolution here.
    pub fn products(&self, pass: Pass, conv: &Conv2d) -> Products {
        let Chosen { kernel, splits } = choose(self, pass, conv);
        let [copied, fetched] = kernel.family.loaded(kernel, conv);
        Products {
            kernel: kernel.name,
            entry: kernel.module.entries[0].name,
            tile: kernel.tile,
            units: kernel.family.units(kernel),
            element_bytes: kernel.dtype.size(),
            copied,
            fetched,
            items: items(kernel, conv, splits),
            splits,
        }
    }

    /// The same with an affine prologue on the input: a kernel that applies it rewrites its patches in shared memory.
    pub fn products_behind_map(&self, pass: Pass, conv: &Conv2d) -> Products {
        let products = self.products(pass, conv);
        if !choose(self, pass, conv).kernel.applies_prologue(conv) {
            return products;
        }
        let patches = products.tile[usize::from(pass == Pass::WeightGradient)] * products.element_bytes;
        Products { copied: products.copied + 2.0 * patches as f64, ..products }
    }
}

fn items(kernel: &Kernel, conv: &Conv2d, splits: usize) -> Vec<Items> {
    let [rows, columns] = kernel.extents(conv);
    match kernel.pass {
        Pass::Forward => {
            vec![Items { count: kernel.tiles(rows, columns), sum: kernel.gemm_k(conv) }]
        }
        Pass::InputGradient => DgradPhase::all(conv)
            .iter()
            .map(|phase| Items {
                count: kernel.tiles(phase.pixels, columns),
                sum: kernel.k_of_taps(phase.taps, conv.out_channels),
            })
            .collect(),
        Pass::WeightGradient => {
            let sum = kernel.family.longest_split(kernel, conv, splits) * kernel.block_k();
            vec![Items { count: kernel.tiles(rows, columns) * splits, sum }]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cuda::Sources;
    use crate::backend::cuda::driver::Properties;
    use crate::backend::cuda::driver::recorder::Recorder;
    use crate::tensor::DType;

    fn card() -> Cuda {
        with("sm_80", (8, 0))
    }

    fn with(architecture: &str, capability: (u32, u32)) -> Cuda {
        let properties = Properties {
            name: "a card".into(),
            architecture: architecture.into(),
            capability,
            multiprocessors: 108,
            memory_bytes: 1 << 36,
            shared_bytes_per_block: 163 << 10,
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

    #[test]
    fn work_items_cover_every_product_once() {
        let products = |pass| {
            let Products { tile, items, .. } = card().products(pass, &CONV);
            let each: usize = items.iter().map(|items| items.count * items.sum).sum();
            each * tile[0] * tile[1]
        };
        // Every extent is whole tiles and every K whole K blocks, so nothing is computed in vain.
        let needed = (CONV.flop() / 2.0) as usize;
        assert_eq!(products(Pass::Forward), needed);
        assert_eq!(products(Pass::InputGradient), needed);
        assert!((needed..needed + needed / 8).contains(&products(Pass::WeightGradient)));
    }

    #[test]
    fn an_input_gradient_begins_with_the_longest_sums() {
        let items = card().products(Pass::InputGradient, &CONV).items;
        let sums: Vec<usize> = items.iter().map(|items| items.sum).collect();
        // Of nine taps four, two, two and one fall on the four residues of the pixels.
        assert_eq!(sums, [4 * 128, 2 * 128, 2 * 128, 128]);
    }

    #[test]
    fn patches_that_a_kernel_maps_are_read_and_written_once_more() {
        let hopper = with("sm_90a", (9, 0));
        let pointwise =
            Conv2d { in_channels: 256, filter_height: 1, filter_width: 1, stride: 1, padding: 0, ..CONV };
        for (pass, side) in [(Pass::Forward, 0), (Pass::WeightGradient, 1)] {
            let [plain, mapped] =
                [hopper.products(pass, &pointwise), hopper.products_behind_map(pass, &pointwise)];
            assert_eq!(mapped.copied - plain.copied, 2.0 * 2.0 * plain.tile[side] as f64);
            assert_eq!(Products { copied: plain.copied, ..mapped }, plain);
            // Before other kernels, and for other convolutions, a separate pass applies it.
            assert_eq!(card().products_behind_map(pass, &pointwise), card().products(pass, &pointwise));
            assert_eq!(hopper.products_behind_map(pass, &CONV), hopper.products(pass, &CONV));
        }
    }
}
