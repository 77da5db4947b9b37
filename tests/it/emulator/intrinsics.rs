//! The emulator's intrinsics compute the same as the machine's; kernels are compiled once and found again.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use half::bf16;
use residua::backend::cuda::driver::emulator::{Emulator, Options, Order};
use residua::backend::cuda::driver::{Driver, LaunchConfig};

use crate::emulator::{HEAD, MODES, ONE_BLOCK, Rig, counting, emulator, kernel, sound, source};

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_nan() {
    let text = format!(
        "{HEAD}\nKERNEL(256, test, Arguments) {{ u64 i = blockIdx.x * 256 + threadIdx.x; \
         store(p.y + i, to_float(from_float<bf16>(load(p.x + i)))); }}"
    );
    let specials = [f32::NAN, -f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, -0.0, 1e-45, f32::MIN_POSITIVE];
    let mut x: Vec<f32> = (0..4096 - specials.len() as u32)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9) & 0xbfff_ffff))
        // Ties: halves of the last place, and their neighbours.
        .map(|v| if v.to_bits() % 3 == 0 { f32::from_bits(v.to_bits() & !0xffff | 0x8000) } else { v })
        .collect();
    x.extend(specials);
    let mut rig = Rig::new(emulator(MODES[0]), &x, 4096);
    rig.launch(&text, LaunchConfig { grid: [16, 1, 1], threads: 256, shared_bytes: 0, cluster: 1 }, 0)
        .unwrap();
    for (x, y) in x.iter().zip(rig.y()) {
        let expected = bf16::from_f32(*x).to_f32();
        assert!(
            y.to_bits() == expected.to_bits() || (y.is_nan() && expected.is_nan()),
            "{x:e}: {y:e} {expected:e}"
        );
    }
}

#[test]
fn shuffles_move_four_and_eight_bytes_as_cuda_does() {
    let v =
        "float v = load(p.x + threadIdx.x); u32 lane = threadIdx.x % 32; u64 wide = (u64(lane) << 40) + 1;";
    let store = |value: &str| format!("{v} store(p.y + threadIdx.x, {value});");
    sound(&store("shuffle_xor(v, 5)"), |i| (i ^ 5) as f32);
    sound(&store("shuffle_down(v, 3)"), |i| if i % 32 < 29 { (i + 3) as f32 } else { i as f32 });
    sound(&store("shuffle(v, lane / 2)"), |i| (i / 32 * 32 + i % 32 / 2) as f32);
    sound(&store("float(shuffle_xor(wide, 1) >> 40)"), |i| ((i % 32) ^ 1) as f32);
    sound(
        &format!(
            "{v} for (int mask = 16; mask > 0; mask /= 2) v += shuffle_xor(v, mask); store(p.y + threadIdx.x, v);"
        ),
        |i| if i < 32 { 496.0 } else { 1520.0 },
    );
}

/// One warp multiplies bf16 matrices a (16 x 16, row-major) and b (16 x 8), adds to c, over fragments that ldmatrix reads.
const MULTIPLY: &str = "
struct Arguments { const float* x; float* y; u64 number; };
struct Tiles { bf16 a[16][16]; bf16 b[16][16]; };
KERNEL(32, test, Arguments) {
    SHARED(Tiles, tiles);
    u32 lane = threadIdx.x;
    for (u32 i = lane; i < 256; i += 32) {
        tiles.a[i / 16][i % 16] = from_float<bf16>(load(p.x + i));
        // b (k, n) for 16 columns, of which an mma takes 8.
        tiles.b[i / 16][i % 16] = from_float<bf16>(load(p.x + 256 + i));
    }
    warp_sync();
    u32 a[4], b[4];
    ldmatrix_x4(a, &tiles.a[lane % 16][lane / 16 * 8]);
    ldmatrix_x4_transposed(b, &tiles.b[lane % 16][lane / 16 * 8]);
    for (int half = 0; half < 2; half++) {
        float d[4];
        u32 row = lane / 4, column = 8 * half + lane % 4 * 2;
        for (int i = 0; i < 4; i++) d[i] = load(p.x + 512 + (row + i / 2 * 8) * 16 + column + i % 2);
        mma_16x8x16(d, a, b[2 * half], b[2 * half + 1]);
        for (int i = 0; i < 4; i++) store(p.y + (row + i / 2 * 8) * 16 + column + i % 2, d[i]);
    }
}
";

#[test]
fn mma_and_ldmatrix_use_the_fragments_that_the_manual_describes() {
    // Small whole numbers: exact in any order of summation.
    let x: Vec<f32> = (0..768u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 28) as f32 - 8.0).collect();
    let expected: Vec<f32> = (0..256)
        .map(|i| {
            let (row, column) = (i / 16, i % 16);
            x[512 + i] + (0..16).map(|k| x[row * 16 + k] * x[256 + k * 16 + column]).sum::<f32>()
        })
        .collect();
    for mode in MODES {
        let mut rig = Rig::new(emulator(mode), &x, 256);
        rig.launch(MULTIPLY, LaunchConfig { threads: 32, ..ONE_BLOCK }, 0).unwrap();
        assert_eq!(rig.y(), expected, "{mode:?}");
    }
}

#[test]
fn blocks_know_their_place_and_host_threads_do_not_change_a_bit() {
    let text = format!(
        "{HEAD}\nKERNEL(64, test, Arguments) {{ u64 block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z); \
         float v = load(p.x + threadIdx.x) * 0.37f + block; \
         for (int mask = 16; mask > 0; mask /= 2) v += 0.1f * shuffle_xor(v, mask); \
         store(p.y + block * blockDim.x + threadIdx.x, v); }}"
    );
    let results: Vec<Vec<u32>> = [(1, Order::Forward), (2, Order::Forward), (3, Order::Random(3))]
        .into_iter()
        .map(|(threads, order)| {
            let emulator = Emulator::new(Options { threads, order, ..Options::default() }).unwrap();
            let mut rig = Rig::new(emulator, &counting(64), 5 * 3 * 2 * 64);
            rig.launch(&text, LaunchConfig { grid: [5, 3, 2], ..ONE_BLOCK }, 0).unwrap();
            rig.y().iter().map(|value| value.to_bits()).collect()
        })
        .collect();
    assert!(f32::from_bits(results[0][64 * 29]) > f32::from_bits(results[0][0]) + 28.0);
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn of_many_blocks_that_fail_the_first_is_named() {
    for threads in [1, 2] {
        let emulator = Emulator::new(Options { threads, ..Options::default() }).unwrap();
        let mut rig = Rig::new(emulator, &counting(64), 64);
        let text = kernel("if (blockIdx.x >= 5) store(p.y + 64, 1.0f);");
        let error =
            rig.launch(&text, LaunchConfig { grid: [64, 1, 1], ..ONE_BLOCK }, 0).unwrap_err().to_string();
        assert!(error.contains("block (5, 0, 0), thread 0"), "{error}");
    }
}

#[test]
fn a_compilers_error_points_at_the_kernels_own_line() {
    let text = format!("{HEAD}\nKERNEL(64, test, Arguments) {{\n  store(p.y, undeclared);\n}}");
    let error = emulator(MODES[0]).module(&source(&text)).err().unwrap().to_string();
    assert!(error.contains("test.cu does not compile"), "{error}");
    assert!(error.contains("test.cu:3:") && error.contains("undeclared"), "{error}");
}

#[test]
fn a_kernel_that_would_overflow_its_stack_does_not_compile() {
    let body = |floats: usize| {
        kernel(&format!(
            "volatile float many[{floats}]; many[p.number] = 1.0f; store(p.y, many[p.number / 2]);"
        ))
    };
    emulator(MODES[0]).module(&source(&body(4096))).unwrap();
    let error = emulator(MODES[0]).module(&source(&body(1 << 20))).err().unwrap().to_string();
    assert!(error.contains("test.cu") && error.contains("frame"), "{error}");
}

#[test]
fn a_missing_compiler_is_an_error_that_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let error = Emulator::with_tools(Options::default(), "no-such-compiler", folder.path()).err().unwrap();
    let error = error.to_string();
    for part in ["`no-such-compiler` does not start", "apt-get install g++", "CXX"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Files of a folder that end so.
fn files_of(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension() == Some(OsStr::new(extension))).collect()
}

#[test]
fn a_library_is_compiled_once_and_again_when_its_file_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let text = kernel("store(p.y + threadIdx.x, 2.0f * load(p.x + threadIdx.x));");
    let run = |compiler: &str| {
        let emulator =
            Emulator::with_tools(Options { threads: 1, ..Options::default() }, compiler, folder.path());
        let mut rig = Rig::new(emulator.unwrap(), &counting(64), 64);
        rig.launch(&text, ONE_BLOCK, 0).map(|()| rig.y())
    };
    let expected: Vec<f32> = (0..64).map(|i| 2.0 * i as f32).collect();
    assert_eq!(run("c++").unwrap(), expected);
    let path = files_of(folder.path(), "so").pop().unwrap();
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(run("c++").unwrap(), expected);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made, "it came from the cache");
    let whole = fs::read(&path).unwrap();
    for damage in [&whole[..whole.len() / 2], b""] {
        // A new file, as a crash would leave one: the loaded one must not change under its user.
        fs::remove_file(&path).unwrap();
        fs::write(&path, damage).unwrap();
        assert_eq!(run("c++").unwrap(), expected);
        assert_eq!(fs::read(&path).unwrap(), whole, "the same compiler makes the same library");
    }
    assert_eq!(files_of(folder.path(), "so").len(), 1, "nothing else is left");
}

#[test]
fn several_emulators_may_compile_the_same_kernel_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = kernel("store(p.y + threadIdx.x, 3.0f * load(p.x + threadIdx.x));");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let options = Options { threads: 1, ..Options::default() };
                let emulator = Emulator::with_tools(options, "c++", folder.path()).unwrap();
                let mut rig = Rig::new(emulator, &counting(64), 64);
                rig.launch(&text, ONE_BLOCK, 0).unwrap();
                assert_eq!(rig.y()[63], 189.0);
            });
        }
    });
}
