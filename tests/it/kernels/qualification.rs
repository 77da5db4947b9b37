//! Kernels are tried before a device uses them: whatever is planted (wrong numbers, a hang, a crash, an access to memory that is not
//! the kernel's, a kernel that does not load, a device that refuses), a training ends with the CPU's losses, and what is told names
//! the culprit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use assert_cmd::Command;
use residua::Error;
use residua::backend::cuda::driver::Properties;
use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::backend::cuda::{Cuda, Exclusions, Qualifier, Sources};
use residua::data::{Dataset, InMemory, RgbImage, SharedDataset, Transform};
use residua::nn::Depth;
use residua::ops::Call;
use residua::tensor::DType;
use residua::train::{RunFolder, TrainOptions, TrainingInputs};
use tempfile::TempDir;

use crate::support::program::residua;

/// A network that is small, and whose plan has kernels of every kind: portable, Hopper's, with clusters, with halo reuse, streaming.
const NETWORK: [&str; 14] = [
    "--arch",
    "resnet18",
    "--width",
    "0.25",
    "--batch-size",
    "4",
    "--max-steps",
    "3",
    "--epochs",
    "1",
    "--lr",
    "0.001",
    "--log-every",
    "1",
];

/// The one kernel that mistakes are planted in.
const CULPRIT: &str = "sm90-rows-256x64";

fn training(device: &str, out: &Path, flags: &[&str]) -> Command {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/trajectories/data");
    let mut command = residua(["train", "--data"]);
    command.arg(format!("cifar10:{}?limit=12", data.display())).args(NETWORK).arg("--out").arg(out);
    command.args(["--device", device]).args(flags);
    command
}

/// What a training found: the losses of its steps; what it told; what it says it left out.
struct Trained {
    losses: Vec<f64>,
    told: String,
    left_out: String,
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{told}");
    told
}

#[track_caller]
fn train(device: &str, flags: &[&str], variables: &[(&str, &str)]) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let told = succeeded(&training(device, &out, flags).envs(variables.iter().copied()).output().unwrap());
    let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let losses = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["loss"].as_f64().unwrap()
    });
    let losses: Vec<f64> = losses.collect();
    assert!(losses.len() >= 3, "{lines}");
    let meta = fs::read_to_string(out.join("checkpoints/last/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    let left_out = meta["excluded_kernels"].as_str().unwrap_or_default().to_string();
    Trained { losses, told, left_out }
}

/// The losses are those of the CPU, as far as bf16 is f32.
#[track_caller]
fn assert_like_the_cpu(trained: &Trained) {
    let cpu = train("cpu", &[], &[]);
    assert_eq!(cpu.losses.len(), trained.losses.len());
    for (found, expected) in trained.losses.iter().zip(&cpu.losses) {
        assert!(
            (found - expected).abs() < 1e-2 * expected,
            "{:?}, on the CPU {:?}",
            trained.losses,
            cpu.losses
        );
    }
}

/// A folder of kernels with a mistake in one of them.
fn planted(old: &str, new: &str) -> TempDir {
    const FILE: &str = "convolution/sm90/halo_reuse.cu";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(FILE)).unwrap();
    assert_eq!(text.matches(old).count(), 1, "`{old}` stands once in {FILE}");
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(FILE);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text.replace(old, new)).unwrap();
    folder
}

const BEGIN: &str = "const PanelOffsets panels(p, COOPERATIVE ? consumer : 0);";

/// Trains with a mistake in the culprit's file, which is told of with `reason`.
#[track_caller]
fn told_and_left_out(old: &str, new: &str, reason: &str) {
    told_and_left_out_within("120", old, new, reason);
}

/// The same where the device is waited for no longer than some seconds.
#[track_caller]
fn told_and_left_out_within(seconds: &str, old: &str, new: &str, reason: &str) {
    let kernels = planted(old, new);
    let folder = kernels.path().to_str().unwrap();
    let flags = ["--precision", "bf16", "--kernels", folder, "--device-timeout", seconds];
    let trained = train("emulator", &[&flags[..], &["--qualify", "again"]].concat(), &[]);
    assert_like_the_cpu(&trained);
    let warning = format!("warning: emulator: fprop.{CULPRIT}.bf16-statistics fails on conv2d_fprop.");
    assert!(trained.told.contains(&warning), "{}", trained.told);
    assert!(trained.told.contains(reason), "`{reason}` is missing in {}", trained.told);
    assert_eq!(trained.left_out, format!("dgrad.{CULPRIT}.bf16,fprop.{CULPRIT}.bf16"), "{}", trained.told);
    // The second time nothing is tried: the record says it.
    let again = train("emulator", &flags, &[]);
    assert!(!again.told.contains("tried") && !again.told.contains("warning"), "{}", again.told);
    assert!(
        again.told.contains(&format!("left out on this card, as `residua doctor` explains: dgrad.{CULPRIT}"))
    );
    assert_eq!((again.left_out, again.losses), (trained.left_out, trained.losses));
}

#[test]
fn a_kernel_that_computes_wrong_numbers_is_named_and_left_out() {
    let part = [
        "for (u32 k = 0; k < BLOCK_K; k += 16) {",
        "for (u32 k = TILE_N == 64 ? 16 : 0; k < BLOCK_K; k += 16) {",
    ];
    told_and_left_out(part[0], part[1], "of its norm off the CPU's");
}

#[test]
fn a_kernel_that_hangs_is_ended_named_and_left_out() {
    let for_ever = "if (TILE_N == 64) for (volatile bool for_ever = true; for_ever;) {}";
    let hanging = format!("{BEGIN} {for_ever}");
    told_and_left_out_within("5", BEGIN, &hanging, "it hangs: nothing came of it in 10 s");
}

#[test]
fn a_kernel_that_takes_its_process_down_is_named_and_left_out() {
    let crash = "if (TILE_N == 64) *(volatile u32*)8 = 0;";
    told_and_left_out(BEGIN, &format!("{BEGIN} {crash}"), "SIGSEGV");
}

#[test]
fn a_kernel_that_accesses_what_is_not_its_own_is_named_and_left_out() {
    let stray = "if (TILE_N == 64) store(static_cast<u32*>(p.out) - 1, 0u);";
    told_and_left_out(
        BEGIN,
        &format!("{BEGIN} {stray}"),
        "writes 4 bytes at 4 bytes before the first of `y`",
    );
}

#[test]
fn a_kernel_that_does_not_compile_is_named_and_left_out() {
    let old = "static_assert(PASS != WGRAD,";
    told_and_left_out(old, &format!("static_assert(TILE_N != 64, \"planted\"); {old}"), "planted");
}

/// Trains on an emulator that refuses something.
#[track_caller]
fn refused(what: &str) -> Trained {
    let flags = ["--precision", "bf16", "--qualify", "again"];
    let trained = train("emulator", &flags, &[("RESIDUA_EMULATOR_REFUSES", what)]);
    assert_like_the_cpu(&trained);
    trained
}

#[test]
fn a_device_that_refuses_clusters_computes_without_them() {
    let trained = refused("clusters");
    let words: Vec<&str> = trained.left_out.split(',').collect();
    assert!(words.iter().all(|word| word.contains("cluster")) && !words.is_empty(), "{}", trained.left_out);
    assert!(trained.told.contains("the emulated device refuses clusters"), "{}", trained.told);
}

#[test]
fn a_device_that_refuses_tensor_maps_computes_with_portable_kernels() {
    let trained = refused("tensor-maps");
    assert!(trained.left_out.split(',').any(|word| word == "sm90"), "{}", trained.left_out);
    // Three kernels are enough to give a kind up.
    assert_eq!(trained.told.matches("refuses tensor maps").count(), 3, "{}", trained.told);
}

#[test]
fn a_device_that_refuses_captured_graphs_launches_one_by_one() {
    let trained = refused("captures");
    // Which mechanism launches is no part of a run's identity: the bits are the same.
    assert_eq!(trained.left_out, "", "{}", trained.told);
    assert!(trained.told.contains("`graphs` is not used"), "{}", trained.told);
    let variables = [("RESIDUA_EMULATOR_REFUSES", "captures")];
    let told = succeeded(&residua(["doctor", "--json"]).envs(variables).output().unwrap());
    assert!(told.contains("; left out: graphs"), "{told}");
}

#[test]
fn where_everything_is_sound_nothing_is_left_out_and_the_record_is_used_the_second_time() {
    let kernels = planted("// ---- the producer ----", "// ---- the producer, as it was ----");
    let flags = ["--precision", "bf16", "--kernels", kernels.path().to_str().unwrap()];
    let trained = train("emulator", &[&flags[..], &["--qualify", "again"]].concat(), &[]);
    assert_like_the_cpu(&trained);
    assert!(!trained.told.contains("warning") && trained.left_out.is_empty(), "{}", trained.told);
    assert_eq!(trained.told.matches(" are right").count(), 2, "{}", trained.told);
    let again = train("emulator", &flags, &[]);
    assert!(!again.told.contains("tried") && again.losses == trained.losses, "{}", again.told);
    // Without trying anything it is the same training.
    let untried = train("emulator", &[&flags[..], &["--qualify", "skip"]].concat(), &[]);
    assert_eq!(untried.losses, trained.losses);
}

/// A training on the stand-in for a GPU, whose kernels all fail to load; nothing where there is no C++ compiler.
fn on_stand_in(cache: &Path, exclusive: &Path, out: &Path, flags: &[&str]) -> Option<Command> {
    let folder = super::fake_driver::stand_in()?;
    let mut command = training("cuda", out, flags);
    command.env("LD_LIBRARY_PATH", folder).env("RESIDUA_NVRTC", folder).env("RESIDUA_CACHE", cache);
    command.env("RESIDUA_FAKE_EXCLUSIVE", exclusive);
    Some(command)
}

#[test]
fn where_nothing_works_the_cpu_computes_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let [cache, exclusive] = ["cache", "exclusive"].map(|name| folder.path().join(name));
    let run = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        let told = succeeded(&on_stand_in(&cache, &exclusive, &out, flags)?.output().unwrap());
        Some((told, fs::read(out.join("checkpoints/last/model.safetensors")).unwrap()))
    };
    let Some((told, model)) = run("first", &["--precision", "bf16"]) else {
        println!("no C++ compiler, so no stand-in for a GPU; install g++");
        return;
    };
    // The device is in exclusive-process mode: a parent with a context of its own would have kept its child away.
    let culprit = "Fake GPU: load_images.bf16 fails on load_images";
    assert!(told.contains(culprit) && told.contains("has no kernel"), "{told}");
    assert!(
        told.contains("cuda:0 is not used, the CPU computes instead (in f32): load_images.bf16 fails"),
        "{told}"
    );
    // The second time it is a matter of record.
    let (told, again) = run("second", &["--precision", "bf16"]).unwrap();
    assert!(told.contains("cuda:0 is not used") && !told.contains("tried first"), "{told}");
    let cpu = folder.path().join("cpu");
    succeeded(&training("cpu", &cpu, &[]).output().unwrap());
    let expected = fs::read(cpu.join("checkpoints/last/model.safetensors")).unwrap();
    assert!(model == expected && again == expected, "the CPU's bits");
    // Whoever insists gets the device.
    let mut insisting =
        on_stand_in(&cache, &exclusive, &folder.path().join("skip"), &["--qualify", "skip"]).unwrap();
    let told = String::from_utf8_lossy(&insisting.output().unwrap().stderr).into_owned();
    assert!(told.contains("error:") && told.contains("has no kernel"), "{told}");
}

#[test]
fn a_device_that_cannot_be_had_is_no_kernels_fault_and_leaves_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let [cache, exclusive] = ["cache", "exclusive"].map(|name| folder.path().join(name));
    let taken = fs::File::create(&exclusive).unwrap();
    taken.lock().unwrap();
    let Some(mut command) = on_stand_in(&cache, &exclusive, &folder.path().join("run"), &[]) else { return };
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("no kernel is to blame") && told.contains("take hold of the GPU"), "{told}");
    let kept = fs::read_dir(&cache).into_iter().flatten().flatten();
    assert_eq!(kept.filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count(), 0);
}

#[test]
fn a_training_goes_on_with_the_kernels_it_began_with_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let on_emulator = ["--precision", "bf16", "--exclude", "halo,graphs", "--max-steps", "1"];
    succeeded(&training("emulator", &out, &on_emulator).output().unwrap());
    let resume = |flags: &[&str]| {
        let mut command = residua(["train", "--resume", "--device", "emulator", "--max-steps", "2", "--out"]);
        command.arg(&out).args(flags).output().unwrap()
    };
    let refused = resume(&[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("`halo`, now none") && told.contains("go on with --exclude halo"), "{told}");
    let refused = resume(&["--exclude", "halo,stream"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("begin a new run"), "{refused:?}");
    succeeded(&resume(&["--exclude", "fprop.sm90-rows-256x128,halo"]));
}

#[test]
fn what_is_left_out_by_hand_must_exist_and_leave_something() {
    let folder = tempfile::tempdir().unwrap();
    for (words, expected) in
        [("sm90-rows", "nothing is called `sm90-rows`"), ("sm80-64x64-gather", "use --device cpu")]
    {
        let output = training("emulator", folder.path(), &["--exclude", words]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains(expected), "{told}");
    }
    for flags in [["--exclude", "halo"], ["--kernel-cache", "somewhere"]] {
        let output = training("cpu", &folder.path().join("cpu"), &flags).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && told.contains("the CPU computes"), "{told}");
    }
    let trap = residua(["doctor", "--full", "--trap", "--device", "cpu"]).output().unwrap();
    let told = String::from_utf8_lossy(&trap.stderr).into_owned();
    assert!(trap.status.code() == Some(2) && told.contains("--trap: the CPU computes"), "{told}");
    let mut refusing = training("emulator", &folder.path().join("emulator"), &[]);
    let output = refusing.env("RESIDUA_EMULATOR_REFUSES", "cluster").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("found `cluster`"), "{told}");
}

#[test]
fn the_verb_in_which_kernels_are_tried_is_for_this_program_alone() {
    let output = residua(["qualify"]).write_stdin("what is this").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("reads what to try"), "{told}");
}

/// Images of which somebody may ask whether one was read.
#[derive(Debug)]
struct Watched {
    images: SharedDataset,
    read: Arc<(Mutex<bool>, Condvar)>,
}

impl Dataset for Watched {
    fn len(&self) -> usize {
        self.images.len()
    }
    fn class_names(&self) -> &[String] {
        self.images.class_names()
    }
    fn label(&self, index: usize) -> i64 {
        self.images.label(index)
    }
    fn image(&self, index: usize) -> residua::Result<RgbImage> {
        if index == self.len() - 1 {
            *self.read.0.lock().unwrap() = true;
            self.read.1.notify_all();
        }
        self.images.image(index)
    }
}

/// Admits nothing before the last image was read.
#[derive(Debug)]
struct Patient(Arc<(Mutex<bool>, Condvar)>);

impl Qualifier for Patient {
    fn exclusions(&self, _: &Properties, _: &Sources) -> Exclusions {
        Exclusions::default()
    }
    fn admit(&self, _: &Cuda, _: &[Call<()>]) -> residua::Result<()> {
        let (read, told) = &*self.0;
        let seconds = Duration::from_secs(120);
        let (read, _) = told.wait_timeout_while(read.lock().unwrap(), seconds, |read| !*read).unwrap();
        if *read { Ok(()) } else { Err(Error::invalid("no image was read while kernels were tried")) }
    }
}

#[test]
fn images_are_read_while_kernels_are_compiled_and_tried() {
    let pixels = (0..40 * 3 * 64).map(|i: usize| (i * 31 % 251) as u8).collect();
    let labels = (0..40).map(|i| i % 2).collect();
    let images = Arc::new(InMemory::new(8, 8, pixels, labels, vec!["a".into(), "b".into()]).unwrap());
    let read = Arc::new((Mutex::new(false), Condvar::new()));
    let data = Arc::new(Watched { images, read: read.clone() });
    let options = TrainOptions {
        arch: Depth::ResNet20,
        width: 0.25,
        epochs: 1,
        batch_size: 8,
        max_steps: Some(2),
        ..TrainOptions::default()
    };
    let transform = Transform::new(8, "0.4/0.3".parse().unwrap());
    // Opening the data looks at no image of these.
    let inputs = TrainingInputs::assemble(&options, data, None, transform, None, 0).unwrap();
    assert!(!*read.0.lock().unwrap());
    let out = tempfile::tempdir().unwrap();
    let folder = RunFolder::lock(out.path()).unwrap();
    let emulator = Emulator::new(Options::default()).expect("a C++ compiler");
    let device = Cuda::new(Arc::new(emulator), DType::F32, Sources::default()).unwrap();
    let device = Box::new(device.admitted_by(Arc::new(Patient(read))));
    let stop = AtomicBool::new(false);
    let summary =
        residua::train::train(device, &inputs.job(&options, 0, &folder, false, &stop), &mut ()).unwrap();
    assert_eq!(summary.steps, 2);
}
