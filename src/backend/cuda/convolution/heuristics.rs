//! The kernel for a convolution: the one that a tuned table names, else the one with the least estimated time.
//!
//! The prediction is a rule of thumb that knows areas, bytes and how one weighs against the other on one card; a table of
//! measured times replaces it.

use super::kernel::Kernel;
use super::kernels::kernels;
use super::problem::Pass;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::driver::Properties;
use crate::ops::{Conv2d, Rows};
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
        Some(Chosen { kernel, splits: row.splits })
    });
    tuned.unwrap_or_else(|| predict(pass, cuda.dtype, conv, cuda.driver.properties()))
}

/// The kernels that can compute a pass of a convolution, in the order of their list: of equals the first is chosen.
pub(super) fn candidates(pass: Pass, dtype: DType, conv: &Conv2d) -> impl Iterator<Item = &'static Kernel> {
    kernels().filter(move |kernel| kernel.pass == pass && kernel.dtype == dtype && kernel.fits(conv))
}

/// The candidate of the least estimated time.
pub(super) fn predict(pass: Pass, dtype: DType, conv: &Conv2d, device: &Properties) -> Chosen {
    let sms = device.sms.max(1) as usize;
    let cost = |kernel: &&Kernel| kernel.cost(conv, sms);
    let kernel = candidates(pass, dtype, conv)
        .filter(|kernel| kernel.family.runs_on(device))
        .min_by(|a, b| cost(a).total_cmp(&cost(b)))
        .expect("every pass has a kernel for any alignment, in both types a backend may have");
    Chosen { kernel, splits: kernel.splits(conv, sms) }
}

impl Kernel {
    /// Estimated time, in any unit: that of the products or that of the traffic with memory, whichever is longer, and a little of the
    /// other; and of the epilogues that no mainloop overlaps with.
    ///
    /// Products are the share of the result that the busiest SM computes (in a wgrad, which can be split, an even share), times the
    /// padded K, over the share of the arithmetic units that a tile keeps busy, which grows with the products made of each number
    /// that a cluster loads from L2. WGMMA is faster, and so harder to feed. A gather of single elements costs more than any
    /// shape of tile.
    fn cost(&self, conv: &Conv2d, sms: usize) -> f64 {
        /// bf16 products that an SM of Hopper makes while a byte comes from memory, and while it stores an element; those in f32
        /// take `F32` times as long.
        const PER_BYTE: f64 = 57.0;
        const PER_STORE: f64 = 80.0;
        const F32: f64 = 8.0;
        let slower = if self.dtype == DType::F32 { F32 } else { 1.0 };
        let ([rows, columns], [height, width]) = (self.extents(conv), self.tile);
        let tiles = self.tiles(rows, columns);
        let share = match self.pass {
            Pass::WeightGradient => tiles as f64 / sms as f64,
            Pass::Forward | Pass::InputGradient => tiles.div_ceil(sms) as f64,
        };
        let [_, fetched] = self.family.loaded(self, conv);
        let reuse = (height * width * self.dtype.size()) as f64 / fetched;
        let rate = self.family.rate(reuse);
        let gather: usize = self.vector.iter().map(|&vector| if vector { 1 } else { 4 }).product();
        let products = share * (height * width * gather * self.gemm_k(conv)) as f64 / rate;
        let elements = |rows: Rows| rows.rows * rows.channels;
        let bytes = self.dtype.size() * (elements(conv.inputs()) + elements(conv.outputs()));
        let memory = bytes as f64 * PER_BYTE / slower / sms as f64;
        // Cooperative consumers run their epilogues together, and no mainloop meanwhile.
        let stored = if self.family.epilogues_stall() { share / 2.0 } else { 1.0_f64.min(share) };
        let ends = stored * (height * width) as f64 * PER_STORE / slower;
        products.max(memory) + products.min(memory) / 8.0 + ends
    }

    /// Split-K slices of a wgrad: the number with the least estimated time, in K blocks of a 128 x 128 tile. Two thread blocks of sm_80
    /// share an SM; a thread block begins and ends in the time of some K blocks; slices are written and read again.
    pub fn splits(&self, conv: &Conv2d, sms: usize) -> usize {
        const ENDS: f64 = 8.0;
        const BYTES_PER_STEP: f64 = 1.6e6;
        let [rows, columns] = self.extents(conv);
        let (tiles, area) = (self.tiles(rows, columns), (self.tile[0] * self.tile[1]) as f64 / 16384.0);
        let blocks = self.family.blocks_per_sm() * sms;
        let time = |splits: usize| {
            let turns = (tiles * splits).div_ceil(blocks) as f64;
            let traffic =
                if splits > 1 { (splits * rows * columns * 8) as f64 / BYTES_PER_STEP } else { 0.0 };
            turns * (self.family.longest_split(self, conv, splits) as f64 + ENDS) * area + traffic
        };
        let most = blocks.min(self.most_splits(conv));
        (1..=most).min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1)
    }

    /// The most slices that are worth it. Only a wgrad is split.
    pub fn most_splits(&self, conv: &Conv2d) -> usize {
        match self.pass {
            Pass::WeightGradient => self.family.most_splits(self, conv).min(MOST_BLOCKS),
            Pass::Forward | Pass::InputGradient => 1,
        }
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
            shared_bytes_per_block: 160 << 10,
            red_zone: 0,
            versions: String::new(),
        }
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
        let tile = |pass, conv: &Conv2d| predict(pass, DType::Bf16, conv, &card()).kernel.tile;
        assert_eq!(tile(Pass::Forward, &conv(16, 128, 128, 3)), [128, 128]);
        assert_eq!(tile(Pass::Forward, &conv(32, 64, 64, 3)), [128, 64]);
        assert_eq!(tile(Pass::InputGradient, &conv(32, 64, 256, 1)), [128, 64]);
        assert_eq!(tile(Pass::WeightGradient, &conv(32, 64, 64, 3)), [64, 128]);
        assert_eq!(tile(Pass::WeightGradient, &conv(8, 256, 256, 3)), [128, 128]);
        let few = Conv2d { batch: 1, ..conv(4, 64, 64, 3) };
        assert_eq!(tile(Pass::Forward, &few), [64, 64]);
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
        for pass in [Pass::Forward, Pass::InputGradient, Pass::WeightGradient] {
            let portable = |device: &Properties, conv| {
                predict(pass, DType::Bf16, &conv, device).kernel.name.starts_with("sm80-")
            };
            assert!(!portable(&hopper, conv(128, 256)));
            assert!(portable(&ampere, conv(128, 256)));
            assert!(portable(&hopper, conv(3, 64)));
            let f32 = predict(pass, DType::F32, &conv(128, 256), &hopper);
            assert!(f32.kernel.name.starts_with("sm80-"));
        }
        let tile = |conv| predict(Pass::Forward, DType::Bf16, &conv, &hopper).kernel.tile;
        // Rows of 14 pixels can only be loaded tap by tap; those of 16 serve a column of taps.
        let odd =
            |in_channels, out_channels| Conv2d { height: 14, width: 14, ..conv(in_channels, out_channels) };
        assert_eq!([odd(256, 256), odd(256, 128)].map(tile), [[128, 256], [256, 128]]);
        let name = |conv| predict(Pass::Forward, DType::Bf16, &conv, &hopper).kernel.name;
        assert_eq!([conv(256, 256), conv(64, 64)].map(name), ["sm90-rows-256x128", "sm90-rows-256x64"]);
        let gradient = |conv| predict(Pass::WeightGradient, DType::Bf16, &conv, &hopper).kernel.name;
        assert_eq!(gradient(conv(256, 128)), "sm90-stream-64x576");
        // Clusters of narrow tiles multicast patches along N, those of wide ones filters along M.
        let cluster = |conv| predict(Pass::Forward, DType::Bf16, &conv, &hopper).kernel.family.cluster();
        let few = |channels| Conv2d { batch: 128, height: 4, width: 4, ..conv(channels, channels) };
        assert_eq!([odd(256, 256), odd(256, 128), few(512)].map(cluster), [[2, 1], [2, 1], [1, 2]]);
        assert_eq!(tile(Conv2d { height: 32, width: 32, ..conv(64, 64) }), [256, 64]);
        assert_eq!(tile(Conv2d { batch: 1, height: 4, width: 4, ..conv(64, 64) }), [64, 64]);
    }

    #[test]
    fn a_weight_gradient_is_split_until_the_device_is_full_and_no_further() {
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
            let Chosen { kernel, splits } = predict(Pass::WeightGradient, DType::Bf16, &conv, &card());
            (splits, kernel.tiles(channels, 9 * channels))
        };
        // Few tiles, a long K: many slices, but only one wave of thread blocks.
        let (parts, tiles) = splits(512, 32, 64);
        assert!(parts > 10 && parts * tiles <= 2 * 132, "{parts} parts of {tiles} tiles");
        // Nothing to split.
        assert_eq!(splits(1, 1, 64).0, 1);
    }
}
