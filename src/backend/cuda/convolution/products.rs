//! What the kernel of a convolution multiplies, in numbers, for whoever predicts its time.

use super::choice::{Chosen, candidates, choose};
use super::problem::Walk;
use super::variants::{Form, Kernel, Pass};
use crate::backend::cuda::Cuda;
use crate::ops::Conv2d;
use crate::tensor::DType;

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Arithmetic units, in f32.
    Scalar,
    /// Matrix units fed by single warps (`mma.sync`): so many of them down and across the tile.
    Warps([usize; 2]),
    /// Matrix units fed by warpgroups (`wgmma`), 64 rows times `wide` columns of the result at once, or the other way around.
    Warpgroups {
        /// How many columns.
        wide: usize,
        /// Whether both consumers work on one tile, so that none multiplies while it is stored.
        cooperate: bool,
    },
}

/// Work items that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items {
    /// How many there are.
    pub count: usize,
    /// Elements of the sum that each of them adds up, filled up to whole steps.
    pub sum: usize,
}

/// The products of one pass of a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Products {
    /// The kernel's name.
    pub kernel: &'static str,
    /// The entry of its module that is launched.
    pub entry: &'static str,
    /// Rows and columns of the result that a work item computes.
    pub tile: [usize; 2],
    /// What multiplies.
    pub units: Units,
    /// Bytes of an element of the operands.
    pub element_bytes: usize,
    /// Bytes that copies write to shared memory, and a map reads and writes there, for each element of a work item's sum.
    pub copied: f64,
    /// Bytes of them that are asked of the second-level cache: fewer where one copy serves several blocks.
    pub fetched: f64,
    /// The work items, in the order in which they are begun.
    pub items: Vec<Items>,
    /// Into how many parts the sum of a weight gradient is cut.
    pub splits: usize,
}

impl Cuda {
    /// The kernels that can compute a pass of a convolution: name, the splits that are predicted to be best, and the most.
    pub fn candidates(&self, pass: Pass, conv: &Conv2d) -> Vec<(&'static str, usize, usize)> {
        let multiprocessors = self.driver.properties().multiprocessors.max(1) as usize;
        candidates(pass, self.dtype, conv)
            .filter(|kernel| kernel.runs_on(self.driver.properties()))
            .map(|kernel| (kernel.name, kernel.splits(conv, multiprocessors), kernel.most_splits(conv)))
            .collect()
    }

    /// What a pass of a convolution is computed with here.
    pub fn products(&self, pass: Pass, conv: &Conv2d) -> Products {
        let Chosen { kernel, splits } = choose(self, pass, conv);
        let [copied, fetched] = kernel.copied(conv);
        Products {
            kernel: kernel.name,
            entry: kernel.module.entries[0].name,
            tile: kernel.tile,
            units: match kernel.form {
                Form::Sm80 { .. } if kernel.dtype == DType::F32 => Units::Scalar,
                Form::Sm80 { warps } => Units::Warps(warps),
                Form::Sm90 { swap, cooperate, .. } => {
                    Units::Warpgroups { wide: kernel.tile[usize::from(!swap)], cooperate }
                }
                Form::Sm90Rows { cooperate, .. } => {
                    Units::Warpgroups { wide: kernel.tile[usize::from(cooperate)], cooperate }
                }
                Form::Sm90Stream => Units::Warpgroups { wide: kernel.tile[1] / 3, cooperate: true },
            },
            element_bytes: kernel.dtype.size(),
            copied,
            fetched,
            items: items(kernel, conv, splits),
            splits,
        }
    }

    /// The same where an affine map is applied to the input: a kernel that does so itself rewrites its patches in shared memory.
    pub fn products_behind_map(&self, pass: Pass, conv: &Conv2d) -> Products {
        let products = self.products(pass, conv);
        if !choose(self, pass, conv).kernel.maps_patches(conv) {
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
            vec![Items { count: kernel.tiles(rows, columns), sum: kernel.sum(conv) }]
        }
        Pass::InputGradient => Walk::of_inputs(conv)
            .iter()
            .map(|walk| Items {
                count: kernel.tiles(walk.pixels as usize, columns),
                sum: kernel.sum_of_taps(walk.patch as usize / conv.out_channels, conv.out_channels),
            })
            .collect(),
        Pass::WeightGradient => {
            let sum = kernel.longest_part(conv, splits) * kernel.step();
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
        // Every extent divides its tile and every sum its step, so nothing is done in vain.
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
            // Before other kernels, and for other convolutions, a pass applies it.
            assert_eq!(card().products_behind_map(pass, &pointwise), card().products(pass, &pointwise));
            assert_eq!(hopper.products_behind_map(pass, &CONV), hopper.products(pass, &CONV));
        }
    }
}
