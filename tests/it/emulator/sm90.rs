//! The intrinsics of compute capability 9.0 on the emulator: TMA loads and WGMMA against plain loops, in every
//! mode.

use residua::Result;
use residua::backend::cuda::driver::emulator::{Copies, Emulator, Order};
use residua::backend::cuda::driver::tensor_map::{TensorMap, TensorMapRequest, TmaMode};
use residua::backend::cuda::driver::{Driver, Launch, LaunchConfig, Memory};
use residua::backend::cuda::{Source, Sources, Variant};
use residua::ops::Access;
use residua::tensor::{DType, Span};

use crate::emulator::{MODES, emulator};

/// Arguments of the kernels of these tests.
const HEAD: &str = "struct Arguments { TensorMap a, b; float* y; u64 unused[15]; };";

/// The bytes of that struct.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Arguments {
    a: TensorMap,
    b: TensorMap,
    y: u64,
    unused: [u64; 15],
}

/// A kernel's text with the intrinsics of 9.0 in front; lines count from the kernel's own first.
fn source_sm90(kernel: &str) -> Source {
    let intrinsics = Sources::default()
        .assemble(&Variant { file: "intrinsics/ptx_sm90.cuh", constants: &[("BF16", 1)] })
        .unwrap();
    Source {
        name: "test.cu".into(),
        text: format!("{}\n{HEAD}\n#line 1 \"test.cu\"\n{kernel}", intrinsics.text),
    }
}

/// One device, two operands of bf16 to read, `a` and `b`, and one of f32 to write, `y`.
pub struct Rig {
    device: Emulator,
    memory: Memory,
    a: Span,
    b: Span,
    y: Span,
}

impl Rig {
    pub fn new(mode: (Order, Copies), a: &[u16], b: &[u16], y: usize) -> Rig {
        let device = emulator(mode);
        let after = |end: usize| (end + 256).next_multiple_of(256);
        let a_span = Span { offset: 256, elements: a.len(), dtype: DType::Bf16 };
        let b_span = Span { offset: after(256 + a_span.bytes()), elements: b.len(), dtype: DType::Bf16 };
        let y_span = Span { offset: after(b_span.offset + b_span.bytes()), elements: y, dtype: DType::F32 };
        let mut memory = device.allocate(after(y_span.offset + y_span.bytes())).unwrap();
        device.upload(&mut memory, a_span.offset, bytemuck::cast_slice(a)).unwrap();
        device.upload(&mut memory, b_span.offset, bytemuck::cast_slice(b)).unwrap();
        device.upload(&mut memory, y_span.offset, &vec![0xff; y_span.bytes()]).unwrap();
        Rig { device, memory, a: a_span, b: b_span, y: y_span }
    }

    pub fn map(&self, of_b: bool, extents: &[u64], strides: &[u64], mode: TmaMode<'_>) -> TensorMap {
        let span = if of_b { self.b } else { self.a };
        let address = self.memory.address() + span.offset as u64;
        self.device.tensor_map(&TensorMapRequest { address, extents, strides, mode }).unwrap()
    }

    /// Runs the kernel `entry` of a text with 64 KiB of dynamic shared memory.
    pub fn launch(
        &mut self,
        text: &str,
        entry: &str,
        threads: u32,
        maps: [TensorMap; 2],
    ) -> Result<Vec<f32>> {
        self.launch_on(
            text,
            entry,
            LaunchConfig { grid: [1, 1, 1], threads, shared_bytes: 64 << 10, cluster: 1 },
            maps,
        )
    }

    pub fn launch_on(
        &mut self,
        text: &str,
        entry: &str,
        config: LaunchConfig,
        [a, b]: [TensorMap; 2],
    ) -> Result<Vec<f32>> {
        let module = self.device.module(&source_sm90(text))?;
        let y = self.memory.address() + self.y.offset as u64;
        let arguments = Arguments { a, b, y, unused: [0; 15] };
        let launch = Launch {
            entry,
            config,
            arguments: bytemuck::bytes_of(&arguments),
            operands: &[
                ("a", self.a, Access::Read),
                ("b", self.b, Access::Read),
                ("y", self.y, Access::Write),
            ],
        };
        self.device.launch(&self.memory, &module, &launch)?;
        let mut values = vec![0.0; self.y.elements];
        self.device.download(&self.memory, self.y.offset, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

/// Small whole numbers: exact in bf16, and their sums of products in f32, in any order.
pub fn whole_numbers(elements: usize, seed: u32) -> Vec<f32> {
    let number = |i: u32| ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 28) as f32 - 8.0;
    (0..elements as u32).map(number).collect()
}

pub fn bf16(values: &[f32]) -> Vec<u16> {
    values.iter().map(|value| (value.to_bits() >> 16) as u16).collect()
}

/// Products of 64 x 64 by 64 x N, each tile in both layouts: K-major rows of the sum, or 64 x 64 boxes of it one behind the
/// other.
const PRODUCTS: &str = "
template <int N>
struct Tiles { u8 a[8192], b[128 * N]; Mbarrier full; };

template <int N, bool A_MN_MAJOR, bool B_MN_MAJOR>
void wgmma_test(const Arguments& p) {
    typedef Tiles<N> Shared;
    SHARED_DYNAMIC(Shared, tiles);
    if (threadIdx.x == 0) {
        mbarrier_init(tiles.full, 1);
        mbarrier_init_fence();
    }
    block_sync();
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(tiles.full, sizeof(tiles.a) + sizeof(tiles.b));
        prefetch_tensor_map(p.a);
        tma_load(tiles.a, p.a, tiles.full, 0, 0);
        if (B_MN_MAJOR) for (int j = 0; j < N / 64; j++) tma_load(tiles.b + 8192 * j, p.b, tiles.full, 64 * j, 0);
        else tma_load(tiles.b, p.b, tiles.full, 0, 0);
    }
    mbarrier_wait(tiles.full, 0);
    float d[N / 2];
    wgmma_fence();
    for (int k = 0; k < 4; k++)
        wgmma<N, A_MN_MAJOR, B_MN_MAJOR>(d, matrix_descriptor(tiles.a + k * (A_MN_MAJOR ? 2048 : 32), 8192, 1024),
                                 matrix_descriptor(tiles.b, 8192, 1024) + k * (B_MN_MAJOR ? 2048 : 32) / 16, k > 0);
    wgmma_commit();
    wgmma_wait<0>();
    u32 row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = 2 * (threadIdx.x % 4);
    for (int j = 0; j < N / 8; j++)
        for (int i = 0; i < 4; i++) store(p.y + (row + i / 2 * 8) * N + 8 * j + column + i % 2, d[4 * j + i]);
}

#define FOUR(N) \\
    KERNEL(128, test_##N##_0_0, Arguments) { wgmma_test<N, false, false>(p); } \\
    KERNEL(128, test_##N##_0_1, Arguments) { wgmma_test<N, false, true>(p); } \\
    KERNEL(128, test_##N##_1_0, Arguments) { wgmma_test<N, true, false>(p); } \\
    KERNEL(128, test_##N##_1_1, Arguments) { wgmma_test<N, true, true>(p); }
FOUR(64) FOUR(128) FOUR(192) FOUR(256)
";

#[test]
fn wgmma_is_right_for_every_width_and_layout() {
    for columns in [64_usize, 128, 192, 256] {
        let a = whole_numbers(64 * 64, 1);
        let b = whole_numbers(64 * columns, 2);
        // a is (row, k) and b is (column, k).
        let expected: Vec<f32> = (0..64 * columns)
            .map(|i| (0..64).map(|k| a[i / columns * 64 + k] * b[i % columns * 64 + k]).sum())
            .collect();
        let turned = |x: &[f32], rows: usize| -> Vec<f32> {
            (0..x.len()).map(|i| x[i % rows * 64 + i / rows]).collect()
        };
        for (a_down, b_down) in [(false, false), (false, true), (true, false), (true, true)] {
            let a = if a_down { turned(&a, 64) } else { a.clone() };
            let b = if b_down { turned(&b, columns) } else { b.clone() };
            for mode in MODES {
                let mut rig = Rig::new(mode, &bf16(&a), &bf16(&b), 64 * columns);
                let tall = TmaMode::Tiled(&[64, 64]);
                let map_a = rig.map(false, &[64, 64], &[128], tall);
                let map_b = if b_down {
                    rig.map(true, &[columns as u64, 64], &[2 * columns as u64], tall)
                } else {
                    rig.map(true, &[64, columns as u64], &[128], TmaMode::Tiled(&[64, columns as u32]))
                };
                let entry = format!("test_{columns}_{}_{}", u32::from(a_down), u32::from(b_down));
                let y = rig.launch(PRODUCTS, &entry, 128, [map_a, map_b]).unwrap();
                assert!(y == expected, "{entry} {mode:?}");
            }
        }
    }
}

/// Copies one box to shared memory and writes it out as it was meant: row by row, without the swizzle.
fn dump(load: &str, rows: usize) -> String {
    format!(
        "struct Box {{ u8 tile[{}]; Mbarrier full; }};
KERNEL(64, test, Arguments) {{
    SHARED_DYNAMIC(Box, box);
    if (threadIdx.x == 0) {{ mbarrier_init(box.full, 1); mbarrier_init_fence(); }}
    block_sync();
    if (threadIdx.x == 0) {{ mbarrier_arrive_expect_tx(box.full, {}); {load}; }}
    mbarrier_wait(box.full, 0);
    for (u32 row = 0; row < {rows}; row++) {{
        u32 at = 128 * row + 2 * threadIdx.x;
        at ^= (row & 7) << 4;
        store(p.y + 64 * row + threadIdx.x, to_float(*(const bf16*)(box.tile + at)));
    }}
}}
",
        128 * rows,
        128 * rows
    )
}

#[test]
fn a_copied_box_has_zeros_outside_its_tensor() {
    // (40 elements, 5 rows, 3 planes), rows padded to 48 elements.
    let x = whole_numbers(48 * 5 * 3, 3);
    let (corner, rows) = ([-8_i32, 3, -1], 4 * 3);
    let expected: Vec<f32> = (0..64 * rows)
        .map(|i| {
            let (c, row, plane) =
                ((i % 64) as i32 + corner[0], (i / 64 % 4) as i32 + corner[1], (i / 256) as i32 + corner[2]);
            let inside = (0..40).contains(&c) && (0..5).contains(&row) && (0..3).contains(&plane);
            if inside { x[(plane * 240 + row * 48 + c) as usize] } else { 0.0 }
        })
        .collect();
    for mode in MODES {
        let mut rig = Rig::new(mode, &bf16(&x), &[0; 8], 64 * rows);
        let map = rig.map(false, &[40, 5, 3], &[96, 480], TmaMode::Tiled(&[64, 4, 3]));
        let text = dump("tma_load(box.tile, p.a, box.full, -8, 3, -1)", rows);
        assert_eq!(rig.launch(&text, "test", 64, [map, map]).unwrap(), expected, "{mode:?}");
    }
}

#[test]
fn copied_pixels_are_those_a_convolution_reads() {
    // Every tap of windows of both extents at both strides, from a first output pixel in the middle of a row, with more pixels
    // than the last image has left.
    let (images, height, width, channels) = (2_i32, 5_i32, 7_i32, 72_i32);
    let x = whole_numbers((images * height * width * channels) as usize, 4);
    for (window, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 1, 0)] {
        let out = |extent: i32| (extent + 2 * padding - window) / stride + 1;
        let (out_h, out_w) = (out(height), out(width));
        let (first, pixels, channel) = (out_w * out_h / 2 + 1, out_w * out_h + 8, 16);
        for (r, s) in (0..window).flat_map(|r| (0..window).map(move |s| (r, s))) {
            let expected: Vec<f32> = (0..64 * pixels)
                .map(|i| {
                    let (c, pixel) = (channel + i % 64, first + i / 64);
                    let (n, row, column) = (pixel / (out_w * out_h), pixel / out_w % out_h, pixel % out_w);
                    let (h, w) = (row * stride - padding + r, column * stride - padding + s);
                    let inside =
                        n < images && (0..height).contains(&h) && (0..width).contains(&w) && c < channels;
                    if inside { x[(((n * height + h) * width + w) * channels + c) as usize] } else { 0.0 }
                })
                .collect();
            let mut rig = Rig::new(MODES[(r + s) as usize % 2], &bf16(&x), &[0; 8], 64 * pixels as usize);
            let bytes = [2 * channels, 2 * channels * width, 2 * channels * width * height].map(|b| b as u64);
            let map = rig.map(
                false,
                &[channels, width, height, images].map(|extent| extent as u64),
                &bytes,
                TmaMode::Im2col {
                    lower: [-padding; 2],
                    upper: [padding - window + 1; 2],
                    channels: 64,
                    pixels: pixels as u32,
                    strides: [stride as u32; 2],
                },
            );
            let (n, row, column) = (first / (out_w * out_h), first / out_w % out_h, first % out_w);
            let load = format!(
                "tma_load_im2col(box.tile, p.a, box.full, {channel}, {}, {}, {n}, {s}, {r})",
                column * stride - padding,
                row * stride - padding
            );
            let y = rig.launch(&dump(&load, pixels as usize), "test", 64, [map, map]).unwrap();
            assert!(y == expected, "window {window} stride {stride} tap ({r}, {s})");
        }
    }
}

/// A producer warpgroup, of which one thread issues TMA loads, and a consumer warpgroup, which multiplies: two stages, five K blocks.
pub const PIPELINE: &str = "
struct Stage { u8 a[8192], b[8192]; };
struct Shared { Stage stage[2]; Mbarrier full[2], empty[2]; };
KERNEL(256, test, Arguments) {
    SHARED_DYNAMIC(Shared, shared);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbarrier_init(shared.full[i], 1);
            mbarrier_init(shared.empty[i], 1);
        }
        mbarrier_init_fence();
    }
    block_sync();
    if (threadIdx.x < 128) {
        setmaxnreg_dec<40>();
        if (threadIdx.x == 0) {
            for (u32 k = 0; k < 5; k++) {
                u32 i = k % 2;
                mbarrier_wait(shared.empty[i], k / 2 % 2 ^ 1);
                mbarrier_arrive_expect_tx(shared.full[i], 16384);
                tma_load(shared.stage[i].a, p.a, shared.full[i], 64 * k, 0);
                tma_load(shared.stage[i].b, p.b, shared.full[i], 64 * k, 0);
            }
        }
    } else {
        setmaxnreg_inc<232>();
        float d[32];
        for (u32 k = 0; k < 5; k++) {
            u32 i = k % 2;
            mbarrier_wait(shared.full[i], k / 2 % 2);
            wgmma_fence();
            for (u32 s = 0; s < 4; s++)
                wgmma<64, false, false>(d, matrix_descriptor(shared.stage[i].a + 32 * s, 0, 1024),
                                        matrix_descriptor(shared.stage[i].b + 32 * s, 0, 1024), k + s > 0);
            wgmma_commit();
            wgmma_wait<0>();
            if (threadIdx.x == 128) mbarrier_arrive(shared.empty[i]);
        }
        named_barrier_sync(1, 128);
        u32 thread = threadIdx.x - 128, row = thread / 32 * 16 + thread % 32 / 4, column = 2 * (thread % 4);
        for (int j = 0; j < 8; j++)
            for (int i = 0; i < 4; i++) store(p.y + (row + i / 2 * 8) * 64 + 8 * j + column + i % 2, d[4 * j + i]);
    }
}
";

/// Result of the pipeline in one mode.
pub fn pipeline(mode: (Order, Copies), text: &str) -> Result<Vec<f32>> {
    let (a, b) = (whole_numbers(64 * 320, 5), whole_numbers(64 * 320, 6));
    let mut rig = Rig::new(mode, &bf16(&a), &bf16(&b), 64 * 64);
    let maps = [false, true].map(|of_b| rig.map(of_b, &[320, 64], &[640], TmaMode::Tiled(&[64, 64])));
    rig.launch(text, "test", 256, maps)
}

/// Its correct result.
pub fn expected_of_pipeline() -> Vec<f32> {
    let (a, b) = (whole_numbers(64 * 320, 5), whole_numbers(64 * 320, 6));
    (0..64 * 64).map(|i| (0..320).map(|k| a[i / 64 * 320 + k] * b[i % 64 * 320 + k]).sum()).collect()
}

#[test]
fn a_producer_and_a_consumer_go_their_own_ways_through_a_ring_of_stages() {
    for mode in MODES {
        assert!(pipeline(mode, PIPELINE).unwrap() == expected_of_pipeline(), "{mode:?}");
    }
}
