//! Launchers of `kernels/calibration/`: what the cost model assumes of a card, each assumption alone in a kernel of its own.

use bytemuck::Zeroable;

use super::call::{THREADS, entry, extent, grid};
use super::driver::LaunchConfig;
use super::driver::tensor_map::{TensorMapRequest, TmaMode};
use super::kernel_files::calibration::memory::{CHUNK, MemoryArguments};
use super::kernel_files::calibration::sm90::{tma, wgmma};
use super::{Cuda, Entry, Module, Variant};
use crate::error::Result;
use crate::ops::Access::{Read, Write};
use crate::tensor::{DType, Span};

const MEMORY: Variant = Variant { file: "calibration/memory.cu", constants: &[] };
const TILED: Variant = Variant { file: "calibration/sm90/tma.cu", constants: &[("IM2COL", 0)] };
const IM2COL: Variant = Variant { file: "calibration/sm90/tma.cu", constants: &[("IM2COL", 1)] };

/// WGMMA instructions of one consumer for a K block of its part of a tile: how many of them, and their N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WgmmaTile {
    /// Instructions of 64 rows, one below the other.
    pub wgmmas: usize,
    /// N of each.
    pub n: usize,
    variant: Variant,
}

/// The tiles that the kernels of convolutions have.
pub const WGMMA_TILES: [WgmmaTile; 5] = {
    macro_rules! tile {
        ($wgmmas:literal x $n:literal) => {
            WgmmaTile {
                wgmmas: $wgmmas,
                n: $n,
                variant: Variant {
                    file: "calibration/sm90/wgmma.cu",
                    constants: &[("WGMMAS", $wgmmas), ("WGMMA_N", $n)],
                },
            }
        };
    }
    [tile!(1 x 64), tile!(1 x 128), tile!(2 x 128), tile!(1 x 192), tile!(1 x 256)]
};

impl WgmmaTile {
    /// Sums of a thread.
    fn accumulators(&self) -> usize {
        self.wgmmas * self.n / 2
    }
}

/// Bytes that [`Cuda::calibrate_copy`] and [`Cuda::calibrate_read`] take multiples of.
pub const CHUNK_BYTES: usize = 16 * CHUNK;
/// Bytes of an image that [`Cuda::calibrate_tma`] loads.
pub const IMAGE_BYTES: usize = 2 * tma::SIDE * tma::SIDE * tma::CHANNELS;
/// Bytes of a load of [`Cuda::calibrate_tma`].
pub const TMA_LOAD_BYTES: usize = tma::STAGE_BYTES;

/// The modules of this family.
pub(super) fn modules() -> Vec<Module> {
    const OF_MEMORY: &[Entry] = &[
        entry("calibration_fill", 48, false),
        entry("calibration_copy", 48, true),
        entry("calibration_read", 48, true),
        entry("calibration_nothing", 24, false),
    ];
    const OF_WGMMA: &[Entry] =
        &[Entry { name: "calibration_wgmma_sm90", registers: 168, tensor_cores: true, wide_loads: false }];
    const OF_TMA: &[Entry] = &[entry("calibration_tma_sm90", 48, false)];
    let mut modules = vec![Module { variant: MEMORY, entries: OF_MEMORY }];
    modules.extend(WGMMA_TILES.map(|tile| Module { variant: tile.variant, entries: OF_WGMMA }));
    modules.extend([TILED, IM2COL].map(|variant| Module { variant, entries: OF_TMA }));
    modules
}

impl Cuda {
    /// Whether the device has WGMMA and TMA.
    pub fn calibrates_hopper(&self) -> bool {
        let properties = self.driver().properties();
        properties.capability == (9, 0) && matches!(properties.architecture.as_str(), "sm_90a" | "host")
    }

    /// Thread blocks that fill the device: eight of 256 threads on each SM.
    fn calibration_blocks(&self) -> usize {
        8 * self.driver().properties().sms as usize
    }

    /// Threads of all of them.
    pub fn calibration_threads(&self) -> usize {
        self.calibration_blocks() * THREADS
    }

    /// Fills `to`, a multiple of [`CHUNK_BYTES`], with numbers that look random.
    ///
    /// # Errors
    /// The device failed.
    pub fn calibrate_fill(&self, to: Span) -> Result<()> {
        let arguments = MemoryArguments {
            to: self.pointer(to),
            chunks: extent(to.bytes() / CHUNK_BYTES)?,
            ..Zeroable::zeroed()
        };
        let config = grid(self.calibration_blocks(), 1)?;
        self.launch((&MEMORY, "calibration_fill"), config, &arguments, &[("to", to, Write)])
    }

    /// Copies `from` to `to`, both of multiples of [`CHUNK_BYTES`]; tells the bytes that are read and written.
    ///
    /// # Errors
    /// The device failed.
    pub fn calibrate_copy(&self, from: Span, to: Span) -> Result<f64> {
        self.memory_pass("calibration_copy", from, to, 1)?;
        Ok(2.0 * from.bytes() as f64)
    }

    /// Reads `from`, a multiple of [`CHUNK_BYTES`], `rounds` times; tells the bytes. `out` receives an i32 for each of
    /// [`Cuda::calibration_threads`].
    ///
    /// # Errors
    /// The device failed.
    pub fn calibrate_read(&self, from: Span, out: Span, rounds: usize) -> Result<f64> {
        self.memory_pass("calibration_read", from, out, rounds)?;
        Ok((rounds * from.bytes()) as f64)
    }

    /// Launches a kernel that does nothing, on a thread block for each SM.
    ///
    /// # Errors
    /// The device failed.
    pub fn calibrate_launch(&self) -> Result<()> {
        let config = grid(self.driver().properties().sms as usize, 1)?;
        self.launch((&MEMORY, "calibration_nothing"), config, &MemoryArguments::zeroed(), &[])
    }

    fn memory_pass(&self, kernel: &'static str, from: Span, to: Span, rounds: usize) -> Result<()> {
        let arguments = MemoryArguments {
            from: self.pointer(from),
            to: self.pointer(to),
            chunks: extent(from.bytes() / CHUNK_BYTES)?,
            rounds: extent(rounds)?,
        };
        let operands = [("from", from, Read), ("to", to, Write)];
        self.launch((&MEMORY, kernel), grid(self.calibration_blocks(), 1)?, &arguments, &operands)
    }

    /// Multiplies `rounds` stages of K on every SM, by one consumer or by both at once; tells the floating-point operations. `out` is of f32,
    /// of [`Cuda::wgmma_sums`].
    ///
    /// # Errors
    /// The device failed.
    pub fn calibrate_wgmma(
        &self,
        tile: &WgmmaTile,
        consumers: usize,
        rounds: usize,
        out: Span,
    ) -> Result<f64> {
        let sms = self.driver().properties().sms as usize;
        let panels = wgmma::CONSUMERS * tile.wgmmas + tile.n / 64;
        let config = LaunchConfig {
            grid: [sms as u32, 1, 1],
            threads: wgmma::THREADS as u32,
            shared_bytes: (wgmma::STAGES * panels * wgmma::PANEL_BYTES) as u32,
            cluster: 1,
        };
        let arguments = wgmma::WgmmaArguments {
            out: self.pointer(out),
            rounds: extent(rounds)?,
            consumers: extent(consumers)?,
        };
        self.launch((&tile.variant, "calibration_wgmma_sm90"), config, &arguments, &[("out", out, Write)])?;
        let of_round = 2 * 64 * tile.wgmmas * tile.n * wgmma::BLOCK_K;
        Ok((sms * consumers * rounds * of_round) as f64)
    }

    /// Numbers that [`Cuda::calibrate_wgmma`] stores at the most.
    pub fn wgmma_sums(&self) -> usize {
        let most = WGMMA_TILES.iter().map(WgmmaTile::accumulators).max().unwrap_or(0);
        self.driver().properties().sms as usize * wgmma::THREADS * most
    }

    /// Loads pixels of `images`, bf16 of multiples of [`IMAGE_BYTES`], on every SM, `loads` times [`TMA_LOAD_BYTES`]; tells the bytes. `out` is of
    /// i32, with one for each SM.
    ///
    /// # Errors
    /// The device failed, or has no TMA.
    pub fn calibrate_tma(&self, im2col: bool, images: Span, loads: usize, out: Span) -> Result<f64> {
        let (side, channels, pixels) = (tma::SIDE as u64, tma::CHANNELS as u64, tma::PIXELS);
        let count = (images.bytes() / IMAGE_BYTES) as u64;
        let row = channels * DType::Bf16.size() as u64;
        let (extents, strides) = match im2col {
            true => (vec![channels, side, side, count], vec![row, side * row, side * side * row]),
            false => (vec![channels, side * side * count], vec![row]),
        };
        let boxes = [channels as u32, pixels as u32];
        let mode = match im2col {
            // The taps of a 3 x 3 filter with a border of one pixel.
            true => TmaMode::Im2col {
                lower: [-1, -1],
                upper: [-1, -1],
                channels: channels as u32,
                pixels: pixels as u32,
                strides: [1, 1],
            },
            false => TmaMode::Tiled(&boxes),
        };
        let request =
            TensorMapRequest { address: self.pointer(images), extents: &extents, strides: &strides, mode };
        let arguments = tma::TmaArguments {
            images: self.driver().tensor_map(&request)?,
            out: self.pointer(out),
            loads: extent(loads)?,
            groups: extent(images.bytes() / tma::STAGE_BYTES)?,
            ..Zeroable::zeroed()
        };
        const SWIZZLE_PERIOD: usize = 1024;
        let sms = self.driver().properties().sms;
        let config = LaunchConfig {
            grid: [sms, 1, 1],
            threads: tma::THREADS as u32,
            shared_bytes: (tma::STAGES * tma::STAGE_BYTES + SWIZZLE_PERIOD) as u32,
            cluster: 1,
        };
        let operands = [("images", images, Read), ("out", out, Write)];
        let variant = if im2col { &IM2COL } else { &TILED };
        self.launch((variant, "calibration_tma_sm90"), config, &arguments, &operands)?;
        Ok(sms as f64 * (loads * TMA_LOAD_BYTES) as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cuda::Sources;
    use crate::backend::cuda::driver::emulator::{Emulator, Options};
    use crate::ops::Device;

    fn with_memory(bytes: usize) -> Cuda {
        let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
        let mut cuda = Cuda::new(Arc::new(emulator), DType::Bf16, Sources::default()).unwrap();
        cuda.allocate(bytes).unwrap();
        cuda
    }

    fn words(cuda: &Cuda, span: Span) -> Vec<i32> {
        let mut values = vec![0; span.elements];
        cuda.read_i32(span, &mut values).unwrap();
        values
    }

    #[test]
    fn copies_and_reads_move_every_byte_that_is_counted() {
        let chunks = 5;
        let (bytes, zone) = (chunks * CHUNK_BYTES, 4096);
        let cuda = with_memory(3 * (bytes + zone) + (1 << 20));
        let threads = cuda.calibration_threads();
        let span = |place: usize, elements| Span {
            offset: zone + place * (bytes + zone),
            elements,
            dtype: DType::I32,
        };
        let [from, to, out] = [span(0, bytes / 4), span(1, bytes / 4), span(2, threads)];
        cuda.calibrate_fill(from).unwrap();
        let filled = words(&cuda, from);
        let distinct: std::collections::BTreeSet<&i32> = filled.iter().collect();
        assert!(distinct.len() > filled.len() * 99 / 100, "{} of {}", distinct.len(), filled.len());
        assert_eq!(cuda.calibrate_copy(from, to).unwrap(), 2.0 * bytes as f64);
        assert_eq!(words(&cuda, to), filled);
        let all = |values: &[i32]| values.iter().fold(0, |sum, value| sum ^ value);
        for rounds in [1, 2, 3] {
            assert_eq!(cuda.calibrate_read(to, out, rounds).unwrap(), (rounds * bytes) as f64);
            // What was read twice cancels itself.
            assert_eq!(
                all(&words(&cuda, out)),
                if rounds == 2 { 0 } else { all(&filled) },
                "{rounds} rounds"
            );
        }
        cuda.calibrate_launch().unwrap();
    }

    /// The number that the kernel puts into shared memory.
    fn some_bf16(number: u32) -> f64 {
        let bits = number.wrapping_mul(2_654_435_761);
        f64::from(f32::from_bits((0x3f80 | ((bits ^ bits >> 15) & 0x807f)) << 16))
    }

    #[test]
    fn tensor_cores_multiply_as_often_as_is_counted() {
        let cuda = with_memory(1 << 20);
        assert!(4 * cuda.wgmma_sums() < 1 << 20);
        let out = Span { offset: 4096, elements: cuda.wgmma_sums(), dtype: DType::F32 };
        let (panel, k) = (64 * wgmma::BLOCK_K, wgmma::BLOCK_K);
        for tile in &WGMMA_TILES {
            let panels = wgmma::CONSUMERS * tile.wgmmas + tile.n / 64;
            for (consumers, rounds) in [(1, 1), (2, 3)] {
                let flop = cuda.calibrate_wgmma(tile, consumers, rounds, out).unwrap();
                let sms = cuda.driver().properties().sms as usize;
                assert_eq!(flop, (2 * sms * consumers * rounds * 64 * tile.wgmmas * tile.n * k) as f64);
                let mut got = vec![0.0_f64; out.elements];
                cuda.read_f64(out, &mut got).unwrap();
                // Sums over the rows of an operand for each element of K, whose chunks of eight are swizzled by the row.
                let sums = |block: usize, stage: usize, first: usize, count: usize| {
                    let mut sums = vec![0.0; k];
                    for row in 0..count * 64 {
                        for (element, sum) in sums.iter_mut().enumerate() {
                            let place = row * k + ((element / 8) ^ (row % 8)) * 8 + element % 8;
                            *sum += some_bf16(((stage * panels + first) * panel + place + block) as u32);
                        }
                    }
                    sums
                };
                for block in 0..sms {
                    for consumer in 0..consumers {
                        let product = |stage| -> f64 {
                            let a = sums(block, stage, consumer * tile.wgmmas, tile.wgmmas);
                            let b = sums(block, stage, wgmma::CONSUMERS * tile.wgmmas, tile.n / 64);
                            a.iter().zip(&b).map(|(a, b)| a * b).sum()
                        };
                        let expected: f64 = (0..rounds).map(|round| product(round % wgmma::STAGES)).sum();
                        let each = tile.accumulators();
                        let own = &got[(block * wgmma::THREADS + consumer * 128) * each..][..128 * each];
                        let sum: f64 = own.iter().sum();
                        assert!(
                            (sum - expected).abs() < 1e-3 * expected.abs().max(1e4),
                            "{tile:?}, consumer {consumer} of {consumers}: {sum} instead of {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn tma_loads_pixels_and_zeros_around_them() {
        let images = 3;
        let cuda = with_memory(images * IMAGE_BYTES + (1 << 16));
        let span = Span { offset: 4096, elements: images * IMAGE_BYTES / 2, dtype: DType::Bf16 };
        let out = Span {
            offset: span.offset + span.bytes() + 8192,
            elements: cuda.driver().properties().sms as usize,
            dtype: DType::I32,
        };
        cuda.calibrate_fill(Span { elements: span.elements / 2, dtype: DType::I32, ..span }).unwrap();
        let filled = words(&cuda, Span { elements: span.elements / 2, dtype: DType::I32, ..span });
        let row_bytes = 2 * tma::CHANNELS;
        let byte_of = |pixel: usize| filled[pixel * row_bytes / 4] & 0xff;
        let blocks = out.elements;
        for im2col in [false, true] {
            // The last load of stage 0 is number `loads - 1`, of that group's pixels and tap.
            for loads in [1, tma::STAGES + 1, 3 * tma::STAGES + 1] {
                let bytes = cuda.calibrate_tma(im2col, span, loads, out).unwrap();
                assert_eq!(bytes, (blocks * loads * tma::STAGE_BYTES) as f64);
                let expected: Vec<i32> = (0..blocks)
                    .map(|block| {
                        let groups = span.bytes() / tma::STAGE_BYTES;
                        let (tap, group) = ((loads - 1) % 9, (block + (loads - 1) / 9 * blocks) % groups);
                        let pixel = group * tma::PIXELS;
                        if !im2col {
                            return byte_of(pixel);
                        }
                        let (row, column) = (pixel / tma::SIDE % tma::SIDE, pixel % tma::SIDE);
                        let (row, column) = (row + tap / 3, column + tap % 3);
                        let inside = (1..=tma::SIDE).contains(&row) && (1..=tma::SIDE).contains(&column);
                        let image = pixel / (tma::SIDE * tma::SIDE) * tma::SIDE * tma::SIDE;
                        if inside { byte_of(image + (row - 1) * tma::SIDE + column - 1) } else { 0 }
                    })
                    .collect();
                assert_eq!(words(&cuda, out), expected, "im2col {im2col}, {loads} loads");
            }
        }
    }
}
