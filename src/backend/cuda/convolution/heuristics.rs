//! The kernel for a convolution: the one that a tuned table names, else the one with the least estimated time.
//!
//! The estimate is that of the cost model, which `bench --model` prints; a table of measured times replaces it.

use super::cost::{self, Traffic};
use super::kernel::Kernel;
use super::kernels::kernels;
use super::problem::Pass;
use super::products::Products;
use super::split_k_grid;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::card::Card;
use crate::backend::cuda::driver::Properties;
use crate::ops::{Call, CallConfig, Conv2d, Rows};
use crate::tensor::DType;

/// Thread blocks in z: split-K slices.
const MOST_BLOCKS: usize = 65_535;

/// The kernel for a convolution, and its split-K.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub kernel: &'static Kernel,
    /// Split-K slices of a wgrad; 1 in the other passes.
    pub splits: usize,
}

/// The kernel for a pass of a convolution on a device.
pub(super) fn choose(cuda: &Cuda, pass: Pass, conv: &Conv2d) -> Chosen {
    let row = cuda.table.as_ref().and_then(|table| table.get(pass, cuda.dtype, conv));
    let tuned = row.and_then(|row| {
        let kernel = candidates(pass, cuda.dtype, conv).find(|kernel| kernel.name == row.kernel)?;
        (!cuda.exclusions.excludes(kernel)).then_some(Chosen { kernel, splits: row.splits })
    });
    tuned.unwrap_or_else(|| {
        let all = || candidates(pass, cuda.dtype, conv);
        let wanted = || all().filter(|kernel| !cuda.exclusions.excludes(kernel));
        let (card, device) = (&cuda.card, cuda.driver.properties());
        predict(wanted(), conv, card, device)
            // Where every kernel is left out, the device is not used; the plan is still a plan.
            .or_else(|| predict(all(), conv, card, device))
            .expect("every pass has a kernel for any alignment, in both types a backend may have")
    })
}

/// The kernels that can compute a pass of a convolution, in the order of their list: of equals the first is chosen.
pub(super) fn candidates(pass: Pass, dtype: DType, conv: &Conv2d) -> impl Iterator<Item = &'static Kernel> {
    kernels().filter(move |kernel| kernel.pass == pass && kernel.dtype == dtype && kernel.fits(conv))
}

/// The candidate that runs on a device with the least predicted time.
fn predict(
    candidates: impl Iterator<Item = &'static Kernel>,
    conv: &Conv2d,
    card: &Card,
    device: &Properties,
) -> Option<Chosen> {
    let kernels = candidates.filter(|kernel| kernel.runs_on(device));
    least(kernels.flat_map(|kernel| kernel.estimates(conv, card)).collect())
}

/// A kernel and its splits, its predicted seconds, and those of all parts of that time were none hidden by another.
type Estimate = (Chosen, f64, f64);

/// The choice with the least predicted time. The model does not tell apart what differs by less than `ALIKE`: of those, it is the one
/// with the least to hide, and of equals the first.
fn least(estimates: Vec<Estimate>) -> Option<Chosen> {
    const ALIKE: f64 = 1.005;
    let shortest = estimates.iter().map(|estimate| estimate.1).min_by(f64::total_cmp)?;
    let alike = estimates.into_iter().filter(|estimate| estimate.1 <= ALIKE * shortest);
    alike.min_by(|a, b| a.2.total_cmp(&b.2)).map(|(chosen, ..)| chosen)
}

impl Kernel {
    /// Split-K slices of a wgrad: the number with the least predicted time.
    fn splits(&'static self, conv: &Conv2d, card: &Card) -> usize {
        least(self.estimates(conv, card).collect()).map_or(1, |chosen| chosen.splits)
    }

    /// The predictions for every number of split-K slices that is worth it.
    fn estimates(&'static self, conv: &Conv2d, card: &Card) -> impl Iterator<Item = Estimate> {
        let blocks = self.blocks_per_sm(card) * card.sms as usize;
        let most = blocks.min(self.most_splits(conv)).max(1);
        (1..=most).map(move |splits| self.estimate(conv, splits, card))
    }

    /// The prediction for a pass of a convolution, and the reduction of its split-K slices.
    fn estimate(&'static self, conv: &Conv2d, splits: usize, card: &Card) -> Estimate {
        let elements = |rows: Rows| rows.rows * rows.channels;
        let images = elements(conv.inputs()) + elements(conv.outputs());
        let weights = conv.out_channels * conv.filter_elements();
        let slices = splits * weights * DType::F32.size();
        let bytes = match self.pass {
            Pass::Wgrad => images * self.dtype.size() + slices,
            Pass::Fprop | Pass::Dgrad => (images + weights) * self.dtype.size(),
        };
        let products = self.products(conv, splits, false);
        let gemm = cost::products(card, &products, self.blocks_per_sm(card) as u32, bytes as f64);
        let (mut seconds, mut unhidden) = (gemm.seconds, gemm.unhidden());
        if splits > 1 {
            let written = (weights * DType::F32.size()) as f64;
            let bytes = Traffic { read: 0.0, written, just_written: slices as f64 };
            let (_, blocks) = split_k_grid(weights);
            let reduction = cost::pass(card, bytes, (0.0, DType::F32), blocks);
            seconds += reduction.seconds;
            unhidden += reduction.unhidden();
        }
        (Chosen { kernel: self, splits }, seconds, unhidden)
    }

    /// Thread blocks that share an SM of a card: as many as the family is made for, and fit its shared memory.
    pub fn blocks_per_sm(&self, card: &Card) -> usize {
        /// Shared memory that CUDA keeps of each thread block.
        const RESERVED: usize = 1 << 10;
        let each = self.family.shared_bytes(self) as usize + RESERVED;
        self.family.blocks_per_sm().min(card.shared_bytes / each).max(1)
    }

    /// The most slices that are worth it. Only a wgrad is split.
    pub fn most_splits(&self, conv: &Conv2d) -> usize {
        match self.pass {
            Pass::Wgrad => self.family.most_splits(self, conv).min(MOST_BLOCKS),
            Pass::Fprop | Pass::Dgrad => 1,
        }
    }
}

/// The kernel that carries out a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionKernel {
    /// The pass.
    pub pass: Pass,
    /// The name within the pass and the type.
    pub name: &'static str,
    /// The name among all kernels.
    pub full_name: String,
    /// Split-K slices of a wgrad; 1 in the other passes.
    pub splits: usize,
    /// Predicted seconds.
    pub seconds: f64,
    /// Output tiles that it computes at a time, on the whole device.
    pub tiles_in_a_wave: usize,
    /// Output tiles of the convolution.
    pub tiles: usize,
    /// Bytes of dynamic shared memory of a thread block.
    pub shared_bytes: u32,
    /// Whether it is left out, and there is no other.
    pub is_excluded: bool,
}

impl Cuda {
    /// The kernel that carries out a convolution; `None` for other calls.
    pub fn convolution_kernel(&self, call: &Call<()>) -> Option<ConvolutionKernel> {
        let (pass, conv) = Pass::of(call)?;
        let Chosen { kernel, splits } = choose(self, pass, conv);
        let [rows, columns] = kernel.extents(conv);
        let (_, seconds, _) = kernel.estimate(conv, splits, &self.card);
        Some(ConvolutionKernel {
            splits,
            seconds,
            tiles: kernel.tiles(rows, columns),
            ..self.described(kernel)
        })
    }

    /// Every kernel of convolutions that is used on this device, in its type; without a convolution it has no splits, tiles and time.
    pub fn convolution_kernels(&self) -> Vec<ConvolutionKernel> {
        kernels()
            .filter(|kernel| kernel.dtype == self.dtype && kernel.runs_on(self.driver.properties()))
            .filter(|kernel| !self.exclusions.excludes(kernel))
            .map(|kernel| self.described(kernel))
            .collect()
    }

    fn described(&self, kernel: &Kernel) -> ConvolutionKernel {
        ConvolutionKernel {
            pass: kernel.pass,
            name: kernel.name,
            full_name: kernel.full_name(),
            splits: 1,
            seconds: 0.0,
            tiles_in_a_wave: kernel.blocks_per_sm(&self.card) * self.card.sms as usize,
            tiles: 0,
            shared_bytes: kernel.family.shared_bytes(kernel),
            is_excluded: self.exclusions.excludes(kernel),
        }
    }

    /// The kernels that can compute a pass of a convolution: name, the splits that are predicted to be best, and the most.
    pub fn candidates(&self, pass: Pass, conv: &Conv2d) -> Vec<(&'static str, usize, usize)> {
        candidates(pass, self.dtype, conv)
            .filter(|kernel| kernel.runs_on(self.driver.properties()))
            .filter(|kernel| !self.exclusions.excludes(kernel))
            .map(|kernel| (kernel.name, kernel.splits(conv, &self.card), kernel.most_splits(conv)))
            .collect()
    }

    /// The GEMM of a convolution as it was prepared, or of the one among its parts; `None` for other calls.
    pub fn products(&self, call: &Call<()>, config: &CallConfig) -> Option<Products> {
        if let Some(expansion) = &config.expansion {
            return expansion
                .parts
                .iter()
                .find_map(|(part, config)| self.products(&part.map(|_| ()), config));
        }
        let (_, conv) = Pass::of(call)?;
        let prologue = match call {
            Call::Conv2dFprop(op) => op.prologue.is_some(),
            Call::Conv2dWgrad(op) => op.prologue.is_some(),
            _ => false,
        };
        let &Chosen { kernel, splits } = config.kernel.as_ref()?.inner()?;
        Some(kernel.products(conv, splits, prologue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of SMs of an H100.
    fn card() -> Properties {
        Properties {
            name: "a card".into(),
            architecture: "sm_80".into(),
            capability: (8, 0),
            sms: 132,
            memory_bytes: 1 << 36,
            shared_bytes_per_block: 227 << 10,
            red_zone: 0,
            versions: String::new(),
        }
    }

    fn chosen(pass: Pass, dtype: DType, conv: &Conv2d, device: &Properties) -> Chosen {
        predict(candidates(pass, dtype, conv), conv, &Card::nearest(device), device).unwrap()
    }

    #[test]
    fn the_choice_is_the_first_of_the_shortest_with_the_least_to_hide() {
        let estimate = |splits, seconds, unhidden| {
            let kernel = kernels().next().unwrap();
            (Chosen { kernel, splits }, seconds, unhidden)
        };
        let least = |estimates: Vec<Estimate>| least(estimates).map(|chosen| chosen.splits);
        assert_eq!(least(vec![]), None);
        assert_eq!(least(vec![estimate(1, 1.1, 1.1), estimate(2, 1.0, 4.0)]), Some(2));
        // What the model cannot tell apart, what is equal in every way, and what it can tell apart.
        assert_eq!(least(vec![estimate(1, 1.0, 4.0), estimate(2, 1.004, 3.0)]), Some(2));
        assert_eq!(least(vec![estimate(1, 1.0, 3.0), estimate(2, 1.0, 3.0)]), Some(1));
        assert_eq!(least(vec![estimate(1, 1.0, 4.0), estimate(2, 1.006, 3.0)]), Some(1));
    }

    #[test]
    fn an_operand_that_is_gathered_costs_its_stores_to_shared_memory_several_times() {
        let conv = Conv2d {
            batch: 8,
            height: 8,
            width: 8,
            in_channels: 64,
            out_channels: 64,
            filter_height: 3,
            filter_width: 3,
            stride: 1,
            padding: 1,
        };
        let copied = |name: &str| {
            let kernel =
                candidates(Pass::Wgrad, DType::F32, &conv).find(|kernel| kernel.name == name).unwrap();
            let products = kernel.products(&conv, 1, false);
            (products.copied, products.fetched)
        };
        // 64 rows and 64 columns of four bytes.
        assert_eq!(copied("sm80-64x64"), (512.0, 512.0));
        assert_eq!(copied("sm80-64x64-gather-right"), (256.0 + 4.0 * 256.0, 512.0));
        assert_eq!(copied("sm80-64x64-gather"), (4.0 * 512.0, 512.0));
    }

    #[test]
    fn large_products_get_large_tiles_and_narrow_ones_narrow_tiles() {
        let conv = |side, in_channels, out_channels, filter| Conv2d {
            batch: 512,
            height: side,
            width: side,
            in_channels,
            out_channels,
            filter_height: filter,
            filter_width: filter,
            stride: 1,
            padding: filter / 2,
        };
        let tile = |pass, conv: &Conv2d| chosen(pass, DType::Bf16, conv, &card()).kernel.tile;
        assert_eq!(tile(Pass::Fprop, &conv(16, 128, 128, 3)), [128, 128]);
        assert_eq!(tile(Pass::Fprop, &conv(32, 64, 64, 3)), [128, 64]);
        assert_eq!(tile(Pass::Dgrad, &conv(32, 64, 256, 1)), [128, 64]);
        assert_eq!(tile(Pass::Wgrad, &conv(32, 64, 64, 3)), [64, 128]);
        assert_eq!(tile(Pass::Wgrad, &conv(8, 256, 256, 3)), [128, 128]);
        let few = Conv2d { batch: 1, ..conv(4, 64, 64, 3) };
        assert_eq!(tile(Pass::Fprop, &few), [64, 64]);
    }

    #[test]
    fn hopper_gets_kernels_of_its_own_where_channels_are_aligned_and_other_cards_do_not() {
        let ampere = card();
        let hopper = Properties { architecture: "sm_90a".into(), capability: (9, 0), ..card() };
        let conv = |in_channels, out_channels| Conv2d {
            batch: 512,
            height: 16,
            width: 16,
            in_channels,
            out_channels,
            filter_height: 3,
            filter_width: 3,
            stride: 1,
            padding: 1,
        };
        for pass in [Pass::Fprop, Pass::Dgrad, Pass::Wgrad] {
            let portable = |device: &Properties, conv| {
                chosen(pass, DType::Bf16, &conv, device).kernel.name.starts_with("sm80-")
            };
            assert!(!portable(&hopper, conv(128, 256)));
            assert!(portable(&ampere, conv(128, 256)));
            assert!(portable(&hopper, conv(3, 64)));
            let f32 = chosen(pass, DType::F32, &conv(128, 256), &hopper);
            assert!(f32.kernel.name.starts_with("sm80-"));
        }
        let tile = |conv| chosen(Pass::Fprop, DType::Bf16, &conv, &hopper).kernel.tile;
        // Rows of 14 pixels can only be loaded tap by tap; those of 16 serve a column of taps.
        let odd =
            |in_channels, out_channels| Conv2d { height: 14, width: 14, ..conv(in_channels, out_channels) };
        assert_eq!([odd(256, 256), odd(256, 128)].map(tile), [[128, 256], [256, 128]]);
        let name = |conv| chosen(Pass::Fprop, DType::Bf16, &conv, &hopper).kernel.name;
        assert_eq!([conv(256, 256), conv(64, 64)].map(name), ["sm90-rows-256x128", "sm90-rows-256x64"]);
        let gradient = |conv| chosen(Pass::Wgrad, DType::Bf16, &conv, &hopper).kernel.name;
        assert_eq!(gradient(conv(256, 128)), "sm90-stream-64x576");
        // Clusters of narrow tiles multicast patches along N, those of wide ones filters along M.
        let cluster = |conv| chosen(Pass::Fprop, DType::Bf16, &conv, &hopper).kernel.family.cluster();
        let few = |channels| Conv2d { batch: 128, height: 4, width: 4, ..conv(channels, channels) };
        assert_eq!([odd(256, 256), odd(256, 128), few(512)].map(cluster), [[2, 1], [2, 1], [1, 2]]);
        assert_eq!(tile(Conv2d { height: 32, width: 32, ..conv(64, 64) }), [256, 64]);
        assert_eq!(tile(Conv2d { batch: 1, height: 4, width: 4, ..conv(64, 64) }), [64, 64]);
    }

    #[test]
    fn a_wgrad_is_split_until_the_device_is_full_and_no_further() {
        let splits = |batch: usize, side: usize, channels: usize| {
            let conv = Conv2d {
                batch,
                height: side,
                width: side,
                in_channels: channels,
                out_channels: channels,
                filter_height: 3,
                filter_width: 3,
                stride: 1,
                padding: 1,
            };
            let Chosen { kernel, splits } = chosen(Pass::Wgrad, DType::Bf16, &conv, &card());
            (splits, kernel.tiles(channels, 9 * channels))
        };
        // Few tiles, a long K: many slices, but only one wave of thread blocks.
        let (parts, tiles) = splits(512, 32, 64);
        assert!(parts > 10 && parts * tiles <= 2 * 132, "{parts} parts of {tiles} tiles");
        // Nothing to split.
        assert_eq!(splits(1, 1, 64).0, 1);
    }
}
