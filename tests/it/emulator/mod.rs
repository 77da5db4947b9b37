//! The emulator finds what it promises to find: every mistake planted here has a twin without it that passes.

mod clusters;
mod intrinsics;
mod planted;
mod sm90;
mod sm90_errors;

use residua::Result;
use residua::backend::cuda::driver::emulator::{Copies, Emulator, Options, Order};
use residua::backend::cuda::driver::{Driver, Launch, LaunchConfig, Memory};
use residua::backend::cuda::{Source, Sources, Variant};
use residua::ops::Access;
use residua::tensor::{DType, Span};

/// All modes that a test of kernels uses.
pub const MODES: [(Order, Copies); 5] = [
    (Order::Forward, Copies::Lazy),
    (Order::Forward, Copies::Eager),
    (Order::Reverse, Copies::Lazy),
    (Order::Reverse, Copies::Eager),
    (Order::Random(7), Copies::Lazy),
];

pub const ONE_BLOCK: LaunchConfig =
    LaunchConfig { grid: [1, 1, 1], threads: 64, shared_bytes: 0, cluster: 1 };

/// The complete text of a kernel written in a test: lines count from the kernel's own first.
pub fn source(kernel: &str) -> Source {
    let intrinsics = Sources::default()
        .assemble(&Variant { file: "intrinsics/ptx.cuh", constants: &[("BF16", 1)] })
        .unwrap();
    Source { name: "test.cu".into(), text: format!("{}\n#line 1 \"test.cu\"\n{kernel}", intrinsics.text) }
}

pub fn emulator((order, copies): (Order, Copies)) -> Emulator {
    Emulator::new(Options { order, copies, threads: 1 }).expect("a C++ compiler")
}

/// One device, and memory of two operands: `x`, read, and `y`, written; 256 unused bytes around each.
pub struct Rig {
    emulator: Emulator,
    memory: Memory,
    x: Span,
    y: Span,
}

/// Arguments of the kernels of this file: pointers to both operands, and a number.
fn arguments(rig: &Rig, number: u64) -> [u64; 3] {
    let base = rig.memory.address();
    [base + rig.x.offset as u64, base + rig.y.offset as u64, number]
}

pub const HEAD: &str = "struct Arguments { const float* x; float* y; u64 number; };";

impl Rig {
    pub fn new(emulator: Emulator, x: &[f32], y: usize) -> Rig {
        let span = |offset, elements| Span { offset, elements, dtype: DType::F32 };
        let x_span = span(256, x.len());
        let y_span = span((256 + x_span.bytes()).next_multiple_of(256) + 256, y);
        let mut memory = emulator.allocate(y_span.offset + y_span.bytes() + 256).unwrap();
        emulator.upload(&mut memory, 256, bytemuck::cast_slice(x)).unwrap();
        Rig { emulator, memory, x: x_span, y: y_span }
    }

    /// Runs the kernel `test` of a body's text.
    pub fn launch(&mut self, kernel: &str, config: LaunchConfig, number: u64) -> Result<()> {
        let module = self.emulator.module(&source(kernel))?;
        let arguments = arguments(self, number);
        let launch = Launch {
            entry: "test",
            config,
            arguments: bytemuck::cast_slice(&arguments),
            operands: &[("x", self.x, Access::Read), ("y", self.y, Access::Write)],
        };
        self.emulator.launch(&self.memory, &module, &launch)
    }

    pub fn y(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.y.elements];
        self.emulator.download(&self.memory, self.y.offset, bytemuck::cast_slice_mut(&mut values)).unwrap();
        values
    }
}

/// `x` is 0, 1, 2, ...
pub fn counting(elements: usize) -> Vec<f32> {
    (0..elements).map(|i| i as f32).collect()
}

/// A kernel over 64 numbers with a body of one line, so that it lies at line 2.
pub fn kernel(body: &str) -> String {
    format!("{HEAD} typedef float Numbers[64];\nKERNEL(64, test, Arguments) {{ {body} }}\n")
}

/// Result of a body run by 64 threads on 0, 1, ..., 63, in one mode.
fn run(mode: (Order, Copies), body: &str) -> Result<Vec<f32>> {
    run_with(mode, body, 0)
}

fn run_with(mode: (Order, Copies), body: &str, shared_bytes: u32) -> Result<Vec<f32>> {
    let mut rig = Rig::new(emulator(mode), &counting(64), 64);
    rig.launch(&kernel(body), LaunchConfig { shared_bytes, ..ONE_BLOCK }, 0)?;
    Ok(rig.y())
}

/// A body that passes in every mode with the same result.
#[track_caller]
pub fn sound(body: &str, expected: impl Fn(usize) -> f32) {
    let expected: Vec<f32> = (0..64).map(expected).collect();
    for mode in MODES {
        assert_eq!(run_with(mode, body, 1024).unwrap(), expected, "{mode:?}");
    }
}

/// A body that is refused in every mode, with a message that holds all of `parts`.
#[track_caller]
fn refused(body: &str, parts: &[&str]) {
    for mode in MODES {
        let error = run(mode, body).expect_err("the mistake is found").to_string();
        for part in parts.iter().chain(&["kernel `test`, block (0, 0, 0)"]) {
            assert!(error.contains(part), "{mode:?}: `{part}` is missing in: {error}");
        }
    }
}

/// A body whose results show that it is wrong: they differ between modes, or hold NaN.
#[track_caller]
fn exposed(body: &str) {
    let results = MODES.map(|mode| run_with(mode, body, 1024).unwrap());
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let moves = results.iter().any(|result| bits(result) != bits(&results[0]));
    let poisoned = results.iter().flatten().any(|value| value.is_nan());
    assert!(moves || poisoned, "{results:?}");
}

const REVERSE: fn(usize) -> f32 = |i| (63 - i) as f32;

#[test]
fn a_missing_barrier_shows_in_the_results() {
    let with = |barrier: &str| {
        format!(
            "SHARED(Numbers, numbers); numbers[threadIdx.x] = load(p.x + threadIdx.x); {barrier} \
             store(p.y + threadIdx.x, numbers[63 - threadIdx.x]);"
        )
    };
    sound(&with("block_sync();"), REVERSE);
    exposed(&with(""));
    // A barrier of one warp is not enough where warps exchange.
    exposed(&with("warp_sync();"));
}

#[test]
fn a_missing_barrier_of_a_warp_shows_in_the_results() {
    let with = |barrier: &str| {
        format!(
            "SHARED(Numbers, numbers); numbers[threadIdx.x] = load(p.x + threadIdx.x); {barrier} \
             store(p.y + threadIdx.x, numbers[threadIdx.x ^ 31]);"
        )
    };
    sound(&with("warp_sync();"), |i| (i ^ 31) as f32);
    exposed(&with(""));
}

#[test]
fn reads_and_writes_outside_the_operands_are_refused() {
    sound("store(p.y + threadIdx.x, load(p.x + (threadIdx.x + 1) % 64));", |i| ((i + 1) % 64) as f32);
    refused(
        "store(p.y + threadIdx.x, load(p.x + threadIdx.x + 1));",
        &["thread 63, test.cu line 2: load reads 4 bytes at byte 256 of `x`, which has 256 bytes"],
    );
    refused(
        "store(p.y + threadIdx.x - 1, load(p.x + threadIdx.x));",
        &["thread 0, test.cu line 2: store writes 4 bytes at 4 bytes before the first of `y`"],
    );
    refused(
        "store_vector<4>(p.y + 4 * threadIdx.x, load_vector<4>(p.x + 4 * (threadIdx.x % 16)));",
        &["test.cu line 2: store_vector writes 16 bytes at byte", "of `y`, which has 256 bytes"],
    );
    refused(
        "store(p.y, load((const float*)nullptr));",
        &["load reads 4 bytes at address 0x0, far from every operand"],
    );
    // Across the end: the first half lies inside.
    let mut rig = Rig::new(emulator(MODES[0]), &counting(65), 64);
    let text = kernel("store(p.y + threadIdx.x, load_vector<2>(p.x + 2 * threadIdx.x)[0]);");
    let error = rig.launch(&text, ONE_BLOCK, 0).unwrap_err().to_string();
    assert!(
        error.contains(
            "thread 32, test.cu line 2: load_vector reads 8 bytes at byte 256 of `x`, which has 260"
        ),
        "{error}"
    );
}

#[test]
fn a_write_to_what_may_only_be_read_is_refused() {
    refused(
        "store((float*)p.x + threadIdx.x, 1.0f);",
        &["test.cu line 2: store writes 4 bytes at byte", "of `x`, which this launch may only read"],
    );
}

#[test]
fn an_access_that_is_not_aligned_to_its_size_is_refused() {
    sound(
        "Vector<float, 4> four = load_vector<4>(p.x + threadIdx.x / 4 * 4); store(p.y + threadIdx.x, four[threadIdx.x % 4]);",
        |i| i as f32,
    );
    refused(
        "Vector<float, 4> four = load_vector<4>(p.x + 1); store(p.y + threadIdx.x, four[0]);",
        &["test.cu line 2: load_vector reads 16 bytes at byte 4 of `x`, which is not aligned to 16 bytes"],
    );
}

/// Copies 16 bytes by each of the first 16 threads, then all threads read the copy in reverse.
fn copied(wait: &str) -> String {
    format!(
        "SHARED_DYNAMIC(Numbers, numbers); \
         if (threadIdx.x < 16) cp_async_16(&numbers[4 * threadIdx.x], p.x + 4 * threadIdx.x, true); \
         {wait} block_sync(); store(p.y + threadIdx.x, numbers[63 - threadIdx.x]);"
    )
}

#[test]
fn a_missing_wait_for_a_copy_shows_in_the_results() {
    sound(&copied("cp_async_commit(); cp_async_wait<0>();"), REVERSE);
    exposed(&copied("cp_async_commit();"));
    // A load that was not committed is not waited for, nor is the latest group.
    exposed(&copied("cp_async_wait<0>();"));
    exposed(&copied("cp_async_commit(); cp_async_wait<1>();"));
    // An empty group counts as the latest.
    sound(&copied("cp_async_commit(); cp_async_commit(); cp_async_wait<1>();"), REVERSE);
}

#[test]
fn a_buffer_that_is_filled_again_too_early_shows_in_the_results() {
    let with = |barrier: &str| {
        format!(
            "SHARED_DYNAMIC(Numbers, numbers); numbers[threadIdx.x] = load(p.x + threadIdx.x); block_sync(); \
             float value = numbers[63 - threadIdx.x]; {barrier} cp_async_4(&numbers[threadIdx.x], p.x, true); \
             cp_async_commit(); cp_async_wait<0>(); store(p.y + threadIdx.x, value);"
        )
    };
    sound(&with("block_sync();"), REVERSE);
    exposed(&with(""));
}

#[test]
fn a_copy_of_nothing_writes_zeros_and_reads_nothing() {
    sound(
        "SHARED_DYNAMIC(Numbers, numbers); bool valid = threadIdx.x % 2 == 0; \
         cp_async_4(&numbers[threadIdx.x], valid ? p.x + threadIdx.x : nullptr, valid); \
         cp_async_commit(); cp_async_wait<0>(); store(p.y + threadIdx.x, numbers[threadIdx.x]);",
        |i| if i % 2 == 0 { i as f32 } else { 0.0 },
    );
}

#[test]
fn a_copy_from_or_to_the_wrong_place_is_refused() {
    let with = |to: &str, from: &str| {
        format!(
            "SHARED(Numbers, numbers); cp_async_16({to}, {from}, true); cp_async_commit(); cp_async_wait<0>(); \
             store(p.y, numbers[0]);"
        )
    };
    refused(&with("&numbers[0]", "p.x + 64"), &["cp_async_16 reads 16 bytes at byte 256 of `x`"]);
    refused(&with("p.y", "p.x"), &["cp_async_16 of 16 bytes at address", "not in the block's shared memory"]);
    refused(
        &with("&numbers[1]", "p.x"),
        &["cp_async_16 of 16 bytes at address", "which is not aligned to 16 bytes"],
    );
    refused(
        &with("&numbers[0]", "p.x + 1"),
        &["cp_async_16 reads 16 bytes at byte 4 of `x`, which is not aligned"],
    );
}

#[test]
fn lanes_that_diverge_at_an_exchange_are_refused() {
    let sum = "float v = load(p.x + threadIdx.x); ";
    sound(&format!("{sum} store(p.y + threadIdx.x, shuffle_xor(v, 1));"), |i| (i ^ 1) as f32);
    refused(
        &format!("{sum} if (threadIdx.x != 5) v = shuffle_xor(v, 1); store(p.y + threadIdx.x, v);"),
        &["is at shuffle_xor (test.cu line 2)", "thread 5 has ended", "all 32 lanes of a warp"],
    );
    refused(
        &format!(
            "{sum} if (threadIdx.x % 2)\n v = shuffle_xor(v, 1); else\n v = shuffle_xor(v, 2); store(p.y, v);"
        ),
        &["(test.cu line 3)", "(test.cu line 4)", "all 32 lanes of a warp"],
    );
    refused(
        &format!(
            "{sum} if (threadIdx.x < 40) v = shuffle_xor(v, 1); block_sync(); store(p.y + threadIdx.x, v);"
        ),
        &["shuffle_xor", "block_sync", "all 32 lanes of a warp"],
    );
}

#[test]
fn a_barrier_that_not_all_threads_reach_is_refused() {
    let end = "store(p.y + threadIdx.x, load(p.x + threadIdx.x));";
    sound(&format!("if (threadIdx.x < 32) block_sync(); else block_sync(); {end}"), |i| i as f32);
    refused(
        &format!("if (threadIdx.x < 32) block_sync(); {end}"),
        &["thread 0 is at block_sync (test.cu line 2), but thread 32 has ended", "all threads of a block"],
    );
    refused(
        &format!("if (threadIdx.x == 9) return; block_sync(); {end}"),
        &["is at block_sync (test.cu line 2), but thread 9 has ended"],
    );
}

#[test]
fn a_write_between_arrays_of_shared_memory_is_refused() {
    let with = |index: &str| {
        format!(
            "SHARED(Numbers, first); SHARED(Numbers, second); first[threadIdx.x] = second[threadIdx.x] = 0.0f; \
             float* place = first; place[{index}] = 1.0f; store(p.y + threadIdx.x, load(p.x + threadIdx.x));"
        )
    };
    sound(&with("threadIdx.x"), |i| i as f32);
    refused(&with("threadIdx.x + 1"), &["wrote past the end of shared `first`, which has 256 bytes"]);
}

#[test]
fn shared_memory_beyond_what_there_is_is_refused() {
    let with = |bytes: &str| {
        format!(
            "typedef u8 Bytes[{bytes}]; SHARED(Bytes, bytes); bytes[threadIdx.x] = 0; store(p.y + threadIdx.x, 0.0f);"
        )
    };
    sound(&with("49152"), |_| 0.0);
    refused(&with("49153"), &["test.cu line 2: with `bytes`, 49153 bytes of shared memory are declared"]);
    refused(
        "SHARED_DYNAMIC(Numbers, numbers); numbers[threadIdx.x] = 0; store(p.y, numbers[0]);",
        &["test.cu line 2: `numbers` takes 256 bytes of dynamic shared memory; the launch gives 0"],
    );
}

#[test]
fn shared_memory_is_nan_before_every_block() {
    let body = "SHARED(Numbers, numbers); float before = numbers[threadIdx.x]; numbers[threadIdx.x] = 1.0f; \
                store(p.y + 64 * blockIdx.x + threadIdx.x, before);";
    let mut rig = Rig::new(emulator(MODES[0]), &counting(64), 256);
    rig.launch(&kernel(body), LaunchConfig { grid: [4, 1, 1], ..ONE_BLOCK }, 0).unwrap();
    assert!(rig.y().iter().all(|value| value.is_nan()));
}

#[test]
fn after_an_error_the_next_launch_is_sound() {
    for threads in [1, 2] {
        let emulator = Emulator::new(Options { threads, ..Options::default() }).unwrap();
        let mut rig = Rig::new(emulator, &counting(64), 64);
        let good = kernel("float v = load(p.x + threadIdx.x); store(p.y + threadIdx.x, shuffle_xor(v, 1));");
        for bad in ["if (threadIdx.x) block_sync();", "store(p.y + 64, shuffle_xor(1.0f, 1));"] {
            rig.launch(&kernel(bad), LaunchConfig { grid: [9, 1, 1], ..ONE_BLOCK }, 0).unwrap_err();
            rig.launch(&good, ONE_BLOCK, 0).unwrap();
            assert_eq!(rig.y(), (0..64).map(|i| (i ^ 1) as f32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_launch_that_cuda_would_refuse_is_refused() {
    let mut rig = Rig::new(emulator(MODES[0]), &counting(64), 64);
    let text = kernel("store(p.y + threadIdx.x, load(p.x + threadIdx.x));");
    for (config, part) in [
        (LaunchConfig { threads: 48, ..ONE_BLOCK }, "48 threads in a block; a multiple of 32"),
        (LaunchConfig { threads: 96, ..ONE_BLOCK }, "96 threads in a block; it is declared for at most 64"),
        (LaunchConfig { threads: 0, ..ONE_BLOCK }, "0 threads"),
        (LaunchConfig { grid: [0, 1, 1], ..ONE_BLOCK }, "a grid of 0 x 1 x 1 blocks"),
        (LaunchConfig { grid: [1, 65536, 1], ..ONE_BLOCK }, "a grid of 1 x 65536 x 1 blocks"),
        (LaunchConfig { shared_bytes: 228 << 10, ..ONE_BLOCK }, "233472 bytes of dynamic shared memory"),
    ] {
        let error = rig.launch(&text, config, 0).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
    let module = rig.emulator.module(&source(&text)).unwrap();
    for (entry, arguments, part) in [
        ("test", &[0u8; 16][..], "16 bytes of arguments were given; its struct has 24"),
        ("tset", &[0; 24], "test.cu has no kernel `tset`"),
    ] {
        let launch = Launch { entry, config: ONE_BLOCK, arguments, operands: &[] };
        let error = rig.emulator.launch(&rig.memory, &module, &launch).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is missing in: {error}");
    }
}

#[test]
fn a_graph_freezes_arguments_but_not_memory() {
    let mut rig = Rig::new(emulator(MODES[0]), &counting(64), 64);
    let text = kernel("store(p.y + threadIdx.x, load(p.x) + float(p.number));");
    let module = rig.emulator.module(&source(&text)).unwrap();
    let (x, y) = (rig.x, rig.y);
    let mut number = 1;
    let base = rig.memory.address();
    let Rig { emulator, memory, .. } = &mut rig;
    let graph = emulator
        .capture(&mut || {
            let arguments = [base + x.offset as u64, base + y.offset as u64, number];
            let launch = Launch {
                entry: "test",
                config: ONE_BLOCK,
                arguments: bytemuck::cast_slice(&arguments),
                operands: &[("x", x, Access::Read), ("y", y, Access::Write)],
            };
            emulator.launch(memory, &module, &launch)?;
            assert!(emulator.synchronise().is_err(), "nothing can wait inside a capture");
            assert!(emulator.upload(memory, 0, &[0]).is_err(), "nothing is copied inside a capture");
            assert!(emulator.download(memory, 0, &mut [0]).is_err());
            assert!(emulator.begin_download(memory, 0, 1).is_err());
            assert!(emulator.allocate(1).is_err());
            Ok(())
        })
        .unwrap();
    assert_eq!(rig.y()[0], 0.0, "a capture runs nothing");
    number += 10;
    rig.emulator.upload(&mut rig.memory, x.offset, bytemuck::cast_slice(&[100.0f32])).unwrap();
    rig.emulator.replay(&rig.memory, &graph).unwrap();
    assert_eq!(rig.y()[0], 101.0, "memory counts as it is now, an argument ({number}) as it was");
    let other = rig.emulator.allocate(4096).unwrap();
    assert!(rig.emulator.replay(&other, &graph).is_err(), "the addresses are frozen too");
}

#[test]
fn a_failed_capture_leaves_the_device_usable() {
    let mut rig = Rig::new(emulator(MODES[0]), &counting(64), 64);
    let Rig { emulator, memory, .. } = &mut rig;
    assert!(emulator.capture(&mut || emulator.upload(memory, 0, &[0])).is_err());
    emulator.upload(memory, 0, &[0]).unwrap();
    let panicking = std::panic::AssertUnwindSafe(|| emulator.capture(&mut || panic!("planted")));
    assert!(std::panic::catch_unwind(panicking).is_err());
    emulator.upload(memory, 0, &[0]).unwrap();
}
