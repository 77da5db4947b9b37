//! fprop and dgrad without stride, whose tiles keep image rows with their halo for all taps: `convolution/sm90/halo_reuse.cu`.

use super::arguments::{BLOCK_K, EPILOGUE_TILES};
use super::family::Sm90;
use super::row_layout::Layout;
use crate::backend::cuda::convolution::kernel::Kernel;
use crate::backend::cuda::convolution::problem::Pass;
use crate::backend::cuda::{Entry, Module, Variant};
use crate::ops::Conv2d;
use crate::tensor::DType;

/// A halo-reuse kernel of sm_90a.
macro_rules! kernel {
    ($pass:ident, $m:literal x $n:literal, cooperative $cooperative:literal, patch bytes $patches:expr, filter stages $filter_stages:literal) => {{
        const CONSTANTS: [(&str, i64); 8] = [
            ("BF16", 1),
            ("PASS", Pass::$pass as i64),
            ("TILE_M", $m),
            ("TILE_N", $n),
            ("COOPERATIVE", $cooperative as i64),
            ("SWAP_AB", !$cooperative as i64),
            ("PATCH_BYTES", $patches),
            ("FILTER_STAGES", $filter_stages),
        ];
        const ENTRIES: [Entry; 1] = [Entry {
            name: match Pass::$pass {
                Pass::Fprop => "conv2d_fprop_halo_reuse_sm90",
                _ => "conv2d_dgrad_halo_reuse_sm90",
            },
            registers: 168,
            tensor_cores: true,
            wide_loads: false,
        }];
        Kernel {
            name: concat!("sm90-rows-", $m, "x", $n),
            pass: Pass::$pass,
            dtype: DType::Bf16,
            tile: [$m, $n],
            family: &HaloReuse {
                cooperative: $cooperative,
                patch_bytes: $patches,
                filter_stages: $filter_stages,
            },
            vector: [true, true],
            module: Module {
                variant: Variant { file: "convolution/sm90/halo_reuse.cu", constants: &CONSTANTS },
                entries: &ENTRIES,
            },
        }
    }};
}

/// The kernels, larger tiles before smaller.
pub(super) static KERNELS: [Kernel; 6] = [
    kernel!(Fprop, 256 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel!(Fprop, 128 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel!(Fprop, 256 x 64, cooperative false, patch bytes 120 << 10, filter stages 9),
    kernel!(Dgrad, 256 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel!(Dgrad, 128 x 128, cooperative true, patch bytes 96 << 10, filter stages 6),
    kernel!(Dgrad, 256 x 64, cooperative false, patch bytes 120 << 10, filter stages 9),
];

/// The family: cooperative consumers (else ping-pong with A and B swapped and resident filters), bytes for stages of patches, and
/// stages of one tap's filters.
#[derive(Debug)]
struct HaloReuse {
    cooperative: bool,
    patch_bytes: usize,
    filter_stages: usize,
}

impl Sm90 for HaloReuse {
    fn stage_bytes(&self, kernel: &Kernel) -> usize {
        self.patch_bytes + self.filter_stages * kernel.tile[1] * 128 + EPILOGUE_TILES
    }

    fn cooperative(&self) -> bool {
        self.cooperative
    }

    fn wide(&self, kernel: &Kernel) -> usize {
        kernel.tile[usize::from(self.cooperative)]
    }

    fn layout(&self, kernel: &Kernel, conv: &Conv2d) -> Option<Layout> {
        let size = match kernel.pass {
            Pass::Fprop | Pass::Wgrad => [conv.out_width(), conv.out_height()],
            Pass::Dgrad => [conv.width, conv.height],
        };
        let taps = conv.filter_height * conv.filter_width;
        // With one row of taps there is no halo to reuse.
        if conv.stride != 1 || conv.filter_height == 1 {
            return None;
        }
        let steps = taps * kernel.channels(conv).div_ceil(BLOCK_K);
        let all_stay = kernel.extents(conv)[1] <= kernel.tile[1] && steps <= self.filter_stages;
        let layout = Layout::of_tile(size, kernel.tile[0], conv.filter_height, self.patch_bytes)?;
        // With A and B swapped, the pixels of a tile are one operand.
        let one_piece = layout.pixels_of_an_image() >= kernel.tile[0];
        (self.cooperative || all_stay && one_piece).then_some(layout)
    }

    /// One load serves a column of taps; resident filters count as free.
    fn loaded(&self, kernel: &Kernel, conv: &Conv2d) -> [f64; 2] {
        let Some(layout) = self.layout(kernel, conv) else { return [f64::INFINITY; 2] };
        let filters = if self.cooperative { (kernel.tile[1] * kernel.dtype.size()) as f64 } else { 0.0 };
        [layout.stage_bytes() / conv.filter_height as f64 / BLOCK_K as f64 + filters; 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(side: usize, channels: usize) -> Conv2d {
        Conv2d {
            batch: 4,
            height: side,
            width: side,
            in_channels: channels,
            out_channels: channels,
            filter_height: 3,
            filter_width: 3,
            stride: 1,
            padding: 1,
        }
    }

    /// The layout of a kernel of the list, whose configuration is given again.
    fn layout(name: &str, family: &HaloReuse, conv: &Conv2d) -> Option<Layout> {
        let kernel = KERNELS.iter().find(|kernel| kernel.name == name && kernel.pass == Pass::Fprop).unwrap();
        assert_eq!(format!("{:?}", kernel.family), format!("{family:?}"));
        family.layout(kernel, conv)
    }

    const COOPERATIVE: HaloReuse = HaloReuse { cooperative: true, patch_bytes: 96 << 10, filter_stages: 6 };
    const PING_PONG: HaloReuse = HaloReuse { cooperative: false, patch_bytes: 120 << 10, filter_stages: 9 };

    #[test]
    fn a_tile_is_part_of_an_image_or_whole_images() {
        let copied = |side, channels| {
            let layout = layout("sm90-rows-256x128", &COOPERATIVE, &conv(side, channels));
            layout.map(|layout| (layout.copied, layout.row_layout.image_panels))
        };
        assert_eq!(copied(64, 128), Some(([64, 6, 1], 4)));
        assert_eq!(copied(32, 128), Some(([32, 10, 1], 4)));
        assert_eq!(copied(16, 128), Some(([16, 18, 1], 4)));
        assert_eq!(copied(8, 128), Some(([8, 10, 4], 1)));
        // Rows that are no multiples of the swizzle's period; rows of which no whole number makes a tile.
        assert_eq!(copied(4, 128), None);
        assert_eq!(copied(56, 128), None);
        let strided = Conv2d { stride: 2, ..conv(32, 128) };
        assert!(layout("sm90-rows-256x128", &COOPERATIVE, &strided).is_none());
    }

    #[test]
    fn filters_stay_where_there_is_one_column_of_tiles_and_room_for_all() {
        let fits = |side, channels| layout("sm90-rows-256x64", &PING_PONG, &conv(side, channels)).is_some();
        assert!(fits(32, 64) && fits(64, 40) && fits(16, 8));
        assert!(!fits(32, 128) && !fits(32, 72));
        // The pixels of a tile must be contiguous.
        assert!(!fits(8, 64));
    }
}
