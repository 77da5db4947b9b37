//! The native driver against a stand-in for the driver's library, where no GPU is needed: order of calls, lifetimes,
//! copies that are under way, captures. `fake_driver.cpp` tells what the stand-in is strict about.
//!
//! The library is found once a process, so the test runs itself again with the stand-in in the library path.

use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use residua::backend::cuda::driver::native::Native;
use residua::backend::cuda::driver::native::nvrtc::Nvrtc;
use residua::backend::cuda::driver::tensor_map::{TensorMapRequest, TmaMode};
use residua::backend::cuda::driver::{Driver, Launch, LaunchConfig, Launches, LoadedModule, Memory};
use residua::backend::cuda::{Source, Sources, Variant};
use residua::error::Error;

use crate::support::program::residua;

const CHILD: &str = "RESIDUA_FAKE_DRIVER";

/// A folder with the stand-in for both libraries, built once; nothing where there is no C++ compiler.
pub(super) fn stand_in() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let both = || {
        let folder = build("fake-driver", &[])?;
        std::fs::copy(folder.join("libcuda.so"), folder.join("libnvrtc.so.13")).unwrap();
        Some(folder)
    };
    FOLDER.get_or_init(both).as_deref()
}

/// Builds the stand-in in a folder of its own. It is never called libcuda.so.1: NVRTC would look into that.
fn build(name: &str, options: &[&str]) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut compiler = compiler.split_whitespace();
    let built = Command::new(compiler.next()?)
        .args(compiler)
        .args(["-std=c++17", "-O1", "-shared", "-fPIC"])
        .args(options)
        .arg("-o")
        .arg(folder.join("libcuda.so"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kernels/fake_driver.cpp"))
        .output()
        .ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(folder)
}

/// Runs a test of this file in a process of its own with the stand-in.
fn run(test: &str) {
    run_in("fake_driver", test, &[]);
}

/// Runs an ignored test of a module in a process that finds the stand-in in the place of the driver.
pub fn run_in(module: &str, test: &str, variables: &[(&str, &str)]) {
    let Some(folder) = stand_in() else {
        println!("no C++ compiler, so the native driver was not tried on a stand-in; install g++");
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let said = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("kernels::{module}::{test}"), "--ignored", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder)
        .env("RESIDUA_NVRTC", folder)
        .env("RESIDUA_CACHE", cache.path())
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && told.contains("1 passed"), "{test}: {}\n{told}", said.status);
}

pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub fn source() -> Source {
    Source { name: "add.cu BF16=0".to_string(), text: "the stand-in compiles everything".to_string() }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Add {
    y: u64,
    n: u64,
    x: f32,
    unused: i32,
}

pub const CONFIG: LaunchConfig = LaunchConfig { grid: [1, 1, 1], threads: 32, shared_bytes: 0, cluster: 1 };

/// Adds `x` to the first `n` numbers.
fn add(driver: &Native, memory: &Memory, module: &LoadedModule, n: u64, x: f32) -> residua::Result<()> {
    let arguments = Add { y: memory.address(), n, x, unused: 0 };
    let arguments = bytemuck::bytes_of(&arguments);
    driver.launch(memory, module, &Launch { entry: "add", config: CONFIG, arguments, operands: &[] })
}

fn numbers(driver: &Native, memory: &Memory, n: usize) -> Vec<f32> {
    let mut values = vec![0_f32; n];
    driver.download(memory, 0, bytemuck::cast_slice_mut(&mut values)).unwrap();
    values
}

#[test]
fn launches_and_captured_graphs_hold_their_promises() {
    run("launches_and_graphs");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn launches_and_graphs() {
    if !is_child() {
        return;
    }
    let driver = Native::new(0).unwrap();
    let mut memory = driver.allocate(4096).unwrap();
    let module = driver.module(&source()).unwrap();
    let before = driver.event().unwrap();
    add(&driver, &memory, &module, 3, 2.0).unwrap();
    let after = driver.event().unwrap();
    assert_eq!(driver.elapsed_seconds(&before, &after).unwrap(), 1e-3);
    assert_eq!(numbers(&driver, &memory, 4), [2.0, 2.0, 2.0, 0.0]);

    let refused = |memory: &Memory, entry: &str, arguments: &[u8], config: LaunchConfig| {
        driver
            .launch(memory, &module, &Launch { entry, config, arguments, operands: &[] })
            .unwrap_err()
            .to_string()
    };
    let text = refused(&memory, "sub", &[0; 24], CONFIG);
    assert!(text.contains("no kernel `sub`; it has add, fault, hang, two"), "{text}");
    let text = refused(&memory, "add", &[0; 16], CONFIG);
    assert!(text.contains("one argument of 24 bytes, and is given a struct of 16"), "{text}");
    let text = refused(&memory, "two", &[0; 8], CONFIG);
    assert!(text.contains("not exactly one argument"), "{text}");
    let much = LaunchConfig { shared_bytes: 100 << 10, ..CONFIG };
    let arguments = Add { y: memory.address(), n: 0, x: 0.0, unused: 0 };
    let launch =
        Launch { entry: "add", config: much, arguments: bytemuck::bytes_of(&arguments), operands: &[] };
    driver.launch(&memory, &module, &launch).unwrap();
    let text = refused(&memory, "add", &[0; 24], LaunchConfig { cluster: 2, ..CONFIG });
    assert!(text.contains("1 blocks in x in clusters of 2"), "{text}");
    let text = refused(&memory, "add", &[0; 24], LaunchConfig { shared_bytes: 300 << 10, ..CONFIG });
    assert!(text.contains("let `add` use 307200 bytes"), "{text}");

    // The stand-in adds once for every block of a cluster.
    let arguments = Add { y: memory.address(), n: 1, x: 2.0, unused: 0 };
    let config = LaunchConfig { grid: [6, 1, 1], cluster: 3, ..CONFIG };
    let launch = Launch { entry: "add", config, arguments: bytemuck::bytes_of(&arguments), operands: &[] };
    let before = numbers(&driver, &memory, 1);
    driver.launch(&memory, &module, &launch).unwrap();
    assert_eq!(numbers(&driver, &memory, 1), [before[0] + 6.0]);
    add(&driver, &memory, &module, 1, -6.0).unwrap();

    // Captured launches do not run; replayed ones run with the arguments they had.
    let mut x = 1.0;
    let graph = driver
        .capture(&mut || {
            add(&driver, &memory, &module, 1, x)?;
            x = 10.0;
            add(&driver, &memory, &module, 1, x)
        })
        .unwrap();
    assert_eq!(numbers(&driver, &memory, 1), [2.0]);
    for _ in 0..3 {
        driver.replay(&memory, &graph).unwrap();
    }
    assert_eq!(numbers(&driver, &memory, 1), [35.0]);

    // A call that a capture cannot hold is refused by name, and a capture that fails or panics leaves the stream usable.
    let in_capture =
        |work: &mut dyn FnMut() -> residua::Result<()>| driver.capture(work).err().unwrap().to_string();
    let text = in_capture(&mut || driver.upload(&mut memory, 0, &[0]));
    assert!(text.contains("being captured") && text.contains("copy to the GPU"), "{text}");
    let text = in_capture(&mut || driver.module(&source()).map(drop));
    assert!(text.contains("compile and load add.cu BF16=0"), "{text}");
    let text = in_capture(&mut || driver.synchronise());
    assert!(text.contains("wait"), "{text}");
    let text = in_capture(&mut || driver.allocate(8).map(drop));
    assert!(text.contains("allocate"), "{text}");
    let panicked = catch_unwind(AssertUnwindSafe(|| driver.capture(&mut || panic!("planted")).map(drop)));
    assert!(panicked.is_err());
    add(&driver, &memory, &module, 1, 1.0).unwrap();
    assert_eq!(numbers(&driver, &memory, 1), [36.0]);
    drop(graph);

    // A kernel that faults is told of where its result is waited for, with what to do.
    let launch = Launch { entry: "fault", config: CONFIG, arguments: &[0; 8], operands: &[] };
    driver.launch(&memory, &module, &launch).unwrap();
    let text = driver.synchronise().unwrap_err().to_string();
    assert!(text.contains("CUDA_ERROR_ILLEGAL_ADDRESS") && text.contains("--device emulator"), "{text}");
    assert!(driver.allocate(8).is_err());
}

#[test]
fn a_wait_for_a_device_that_hangs_ends_and_names_the_launches_since_the_last_one_that_finished() {
    run("hanging_launches");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn hanging_launches() {
    if !is_child() {
        return;
    }
    let driver = Native::new(0).unwrap().with_timeout(Some(Duration::from_millis(300)));
    let memory = driver.allocate(4096).unwrap();
    let module = driver.module(&source()).unwrap();
    add(&driver, &memory, &module, 1, 1.0).unwrap();
    driver.synchronise().unwrap();
    let graph = driver.capture(&mut || add(&driver, &memory, &module, 1, 1.0)).unwrap();
    let before = driver.begin_download(&memory, 0, 4).unwrap();
    let launch = Launch { entry: "hang", config: CONFIG, arguments: &[0; 8], operands: &[] };
    driver.launch(&memory, &module, &launch).unwrap();
    driver.replay(&memory, &graph).unwrap();
    let behind = driver.begin_download(&memory, 0, 4).unwrap();
    assert_eq!(before().unwrap(), 1.0_f32.to_le_bytes());
    let error = behind().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::DeviceHangs(_)), "{text}");
    // What came before has finished; what was captured counts like launches of its own.
    let named = "finished: hang (add.cu BF16=0), add (add.cu BF16=0). One";
    assert!(text.contains(named) && text.contains("--exclude"), "{text}");
    // The device was given up: whatever would wait for it does not, and the stand-in refuses what would wait for ever.
    assert!(matches!(driver.synchronise(), Err(Error::DeviceHangs(_))));
    assert!(matches!(driver.allocate(8), Err(Error::DeviceHangs(_))));
}

#[test]
fn a_device_is_taken_hold_of_when_it_is_first_used_and_not_before() {
    run("first_use");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn first_use() {
    if !is_child() {
        return;
    }
    let exclusive = tempfile::NamedTempFile::new().unwrap();
    // SAFETY: the one thread of this process that is at work.
    unsafe { std::env::set_var("RESIDUA_FAKE_EXCLUSIVE", exclusive.path()) };
    let other = exclusive.reopen().unwrap();
    other.lock().unwrap();
    let driver = Native::new(0).unwrap();
    assert_eq!(driver.properties().sms, 132);
    let error = driver.allocate(64).err().unwrap().to_string();
    assert!(error.contains("take hold of the GPU"), "{error}");
    other.unlock().unwrap();
    driver.allocate(64).unwrap();
}

#[test]
fn kernels_that_were_built_elsewhere_are_used_and_only_if_nobody_else_can_have_written_them() {
    run("carried_kernels");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn carried_kernels() {
    if !is_child() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let carried = folder.path().join("carried");
    let build =
        ["kernels", "build", "--arch", "sm_90a", "--precision", "bf16", "--threads", "2", "--json", "--out"];
    let built = residua(build).arg(&carried).output().unwrap();
    let told = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{told}");
    let built: serde_json::Value = serde_json::from_slice(&built.stdout).unwrap();
    assert!(built["modules"].as_u64().unwrap() > 60 && built["processes"] == 2, "{built}");

    // Without a compiler: what is not in the folder cannot be had.
    let source = |constants| {
        Sources::default().assemble(&Variant { file: "optimizer/optimizer.cu", constants }).unwrap()
    };
    let (bf16, f32) = (source(&[("BF16", 1)]), source(&[("BF16", 0)]));
    // SAFETY: the one thread of this process that is at work.
    unsafe { std::env::set_var("RESIDUA_NVRTC", "/nowhere") };
    assert!(Native::new(0).err().unwrap().to_string().contains("/nowhere"));
    let driver = Native::with_kernel_cache(0, Some(&carried)).unwrap();
    assert!(driver.properties().versions.contains("kernels compiled by NVRTC 13.0"));
    driver.module(&bf16).unwrap();
    let missing = driver.module(&f32).err().unwrap().to_string();
    assert!(missing.contains("is not in --kernel-cache") && missing.contains("/nowhere"), "{missing}");
    drop(driver);
    // Nothing of it came into the cache of the user, and nothing into the folder.
    let cubins = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.extension().is_some_and(|extension| extension == "cubin"))
            .collect::<Vec<_>>()
    };
    let own = std::env::var_os("RESIDUA_CACHE").unwrap();
    assert_eq!(
        (cubins(Path::new(&own)).len(), cubins(&carried).len() as u64),
        (0, built["modules"].as_u64().unwrap())
    );

    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    // A file that others may write is as if it were not there; a folder that others may write is refused.
    cubins(&carried).iter().for_each(|path| set(path, 0o664));
    let driver = Native::with_kernel_cache(0, Some(&carried)).unwrap();
    assert!(driver.module(&bf16).err().unwrap().to_string().contains("is not in --kernel-cache"));
    cubins(&carried).iter().for_each(|path| set(path, 0o644));
    driver.module(&bf16).unwrap();
    set(&carried, 0o777);
    let refused = Native::with_kernel_cache(0, Some(&carried)).err().unwrap().to_string();
    assert!(refused.contains("chmod go-w"), "{refused}");
    set(&carried, 0o755);
    // What a folder says of itself is held to this GPU and this driver.
    let manifest = carried.join("kernels.json");
    let whole = std::fs::read_to_string(&manifest).unwrap();
    for (old, new, expected) in [
        ("sm_90a", "sm_80", "it holds kernels for sm_80, and this GPU needs sm_90a"),
        ("\"13.0\"", "\"13.9\"", "compiled by NVRTC 13.9, and the driver loads code of CUDA 13.0 at most"),
        ("\"format\": 1", "\"format\": 2", "expected format 1, found format 2"),
        ("\"nvrtc\"", "\"nvcc\"", "kernels.json line 3: expected what `residua kernels build` writes"),
    ] {
        assert!(whole.contains(old), "{whole}");
        std::fs::write(&manifest, whole.replace(old, new)).unwrap();
        let refused = Native::with_kernel_cache(0, Some(&carried)).err().unwrap().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let other = residua(["kernels", "build", "--arch", "sm_75", "--out"]).arg(&carried).output().unwrap();
    assert!(
        other.status.code() == Some(2) && String::from_utf8_lossy(&other.stderr).contains("sm_80 and later")
    );
}

#[test]
fn launches_overlap_unless_they_are_to_be_serial() {
    run("overlapped_launches");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn overlapped_launches() {
    if !is_child() {
        return;
    }
    // A launch that overlaps the launch before it takes the stand-in half of its millisecond.
    let waiting = Source { text: "griddepcontrol.wait".to_string(), ..source() };
    let (shorter, longer) = ([2e-3, 3e-3], [3e-3, 4e-3]);
    let cases = [
        (Launches::Overlapped, &waiting, shorter),
        (Launches::Serial, &waiting, longer),
        // Kernels that do not wait by themselves must not begin early.
        (Launches::Overlapped, &source(), longer),
    ];
    for (launches, source, seconds) in cases {
        let driver = Native::new(0).unwrap().with_launches(launches);
        let mut memory = driver.allocate(4096).unwrap();
        let module = driver.module(source).unwrap();
        let add_often = |memory: &Memory, times: usize| -> residua::Result<()> {
            // Some with shared memory, and some without.
            (0..times).try_for_each(|index| {
                let arguments = Add { y: memory.address(), n: 1, x: 1.0, unused: 0 };
                let config = LaunchConfig { shared_bytes: (index as u32 % 2) << 16, ..CONFIG };
                let arguments = bytemuck::bytes_of(&arguments);
                driver.launch(memory, &module, &Launch { entry: "add", config, arguments, operands: &[] })
            })
        };
        let graph = driver.capture(&mut || add_often(&memory, 3)).unwrap();
        // Behind a copy the first waits as ever.
        driver.upload(&mut memory, 0, &1.0_f32.to_le_bytes()).unwrap();
        let before = driver.event().unwrap();
        add_often(&memory, 3).unwrap();
        let between = driver.event().unwrap();
        driver.upload(&mut memory, 4, &[0; 4]).unwrap();
        driver.replay(&memory, &graph).unwrap();
        let after = driver.event().unwrap();
        let took = [(&before, &between), (&between, &after)]
            .map(|(from, to)| driver.elapsed_seconds(from, to).unwrap());
        assert_eq!(took.map(|s| (s * 1e4).round() / 1e4), seconds, "{launches:?}, {}", source.text);
        assert_eq!(numbers(&driver, &memory, 1), [7.0]);
    }
}

#[test]
fn tensor_maps_say_what_was_asked_for() {
    run("tensor_maps");
}

#[test]
#[ignore = "runs in a process of its own, started by the test above"]
fn tensor_maps() {
    if !is_child() {
        return;
    }
    let driver = Native::new(0).unwrap();
    let images = TensorMapRequest {
        address: 0x1000,
        extents: &[72, 9, 8, 4],
        strides: &[144, 1296, 10368],
        mode: TmaMode::Im2col { lower: [-1, -2], upper: [1, -3], channels: 64, pixels: 128, strides: [2, 1] },
    };
    let pair = |w: i32, h: i32| u64::from(w as u32) | u64::from(h as u32) << 32;
    let corners = [pair(-1, -2), pair(1, -3)];
    let expected = [
        4,
        1,
        0x1000,
        72,
        9,
        8,
        4,
        144,
        1296,
        10368,
        corners[0],
        corners[1],
        64,
        128,
        pair(1, 1),
        pair(2, 1),
    ];
    assert_eq!(driver.tensor_map(&images).unwrap(), expected);

    let boxes = TensorMapRequest {
        address: 0x2000,
        extents: &[72, 9, 8],
        strides: &[144, 1296],
        mode: TmaMode::Tiled(&[64, 1, 128]),
    };
    let expected = [3, 0, 0x2000, 72, 9, 8, 2, 144, 1296, 64, 1, 128, 1, 1, 1, 0];
    assert_eq!(driver.tensor_map(&boxes).unwrap(), expected);
    let error = driver.tensor_map(&TensorMapRequest { address: 0x2008, ..boxes }).unwrap_err().to_string();
    assert!(error.contains("a multiple of 16"), "{error}");
}

/// Whole steps by the real compiler and the unchanged engine: every launch has a kernel of its name in the machine code,
/// an argument struct of the size it takes, no more threads and shared memory than it may have; what a graph captures is
/// allowed in one. The kernels themselves do not run.
#[test]
fn every_launch_of_a_step_fits_the_machine_code_that_nvrtc_makes() {
    let nvrtc = match Nvrtc::find(None) {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            let required = std::env::var("RESIDUA_COMPILE_GATE").is_ok_and(|value| value == "required");
            assert!(!required, "{error}");
            println!("launches were not held to machine code: {error}");
            return;
        }
    };
    let Some(folder) = build("fake-driver-for-nvrtc", &["-DWITHOUT_NVRTC"]) else { return };
    let cache = tempfile::tempdir().unwrap();
    for precision in ["bf16", "f32"] {
        let said = residua(["bench", "--device", "cuda", "--precision", precision, "--steps", "--quiet"])
            .args(["--arch", "resnet18-cifar.32,resnet50-imagenet.64.w0.3", "--batch-size", "4"])
            .args(["--seconds", "0", "--repeats", "1"])
            .env("LD_LIBRARY_PATH", &folder)
            .env("RESIDUA_NVRTC", nvrtc.path())
            .env("RESIDUA_CACHE", cache.path())
            .output()
            .unwrap();
        let told =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success() && told.contains("Fake GPU"), "{precision}: {}\n{told}", said.status);
    }
}

/// A kernel that faults leaves a context without answers: the check or the row that met it is the last, and what it was is on standard
/// error before.
#[test]
fn checks_and_measurements_end_where_the_device_answers_nothing_any_more() {
    let Ok(nvrtc) = Nvrtc::find(None) else {
        println!("without NVRTC no kernel has a name that could fault");
        return;
    };
    let Some(folder) = build("fake-driver-for-faults", &["-DWITHOUT_NVRTC"]) else { return };
    let cache = tempfile::tempdir().unwrap();
    let run = |verb: &[&str]| {
        let output = residua(verb)
            .args(["--device", "cuda", "--precision", "f32", "--only", "relu*", "--json", "--quiet"])
            .env("LD_LIBRARY_PATH", &folder)
            .env("RESIDUA_NVRTC", nvrtc.path())
            .env("RESIDUA_CACHE", cache.path())
            .env("RESIDUA_FAKE_FAULT", "relu_gradient")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (found, told)
    };
    let (found, told) = run(&["doctor", "--full"]);
    let (checks, cut) = (found[0]["checks"].as_array().unwrap(), found[0]["cut"].as_array().unwrap());
    let last = checks.last().unwrap();
    let name = last["name"].as_str().unwrap();
    assert!(
        name.starts_with("relu_gradient.") && last["failure"].as_str().unwrap().contains("ILLEGAL_ADDRESS"),
        "{last}"
    );
    assert_eq!(
        checks.iter().filter(|check| check["name"].as_str().unwrap().starts_with("relu_gradient.")).count(),
        1
    );
    let stopped = found[0]["stopped"].as_str().unwrap();
    assert!(
        stopped.starts_with(&format!("the device answers nothing after {name}")) && !cut.is_empty(),
        "{stopped}"
    );
    assert!(
        told.contains(&format!("checking: {name}\n")) && told.contains(&format!("wrong: {name}: ")),
        "{told}"
    );

    let (found, told) = run(&["bench", "--operations", "--seconds", "0", "--repeats", "1"]);
    let failed = found["rows"].as_array().unwrap().iter().filter(|row| !row["error"].is_null()).count();
    assert!(failed == 1 && !found["cut"].as_array().unwrap().is_empty(), "{found}\n{told}");
}
