//! The promises of predictions and tuning: the model sees the launches that run, adds up, and needs no GPU; a table of measured kernels
//! decides what is launched, and is written for the device that was measured.

use std::path::Path;
use std::sync::{Arc, Mutex};

use residua::backend::cuda::driver::emulator::{Emulator, Options};
use residua::backend::cuda::driver::recorder::{RecordedLaunch, Recorder};
use residua::backend::cuda::driver::tensor_map::{TensorMap, TensorMapRequest};
use residua::backend::cuda::driver::{Download, Driver, Launch, LoadedModule, Memory, Properties};
use residua::backend::cuda::{Cuda, KernelTable, MeasuredOn, Pass, Source, Sources, TableRow};
use residua::bench::NetworkName;
use residua::error::Result;
use residua::ops::{Call, Conv2d, Conv2dFprop, Conv2dWgrad, Device, Event, Graph};
use residua::plan::Fusions;
use residua::tensor::{DType, Span, aligned};
use serde_json::Value;

use crate::support::program;

const TOY: &str = "resnet18-cifar.8.w0.125";

/// The emulator, looked at while it works.
struct Watched {
    emulator: Emulator,
    launches: Mutex<Vec<RecordedLaunch>>,
}

impl Driver for Watched {
    fn properties(&self) -> &Properties {
        self.emulator.properties()
    }
    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.emulator.allocate(bytes)
    }
    fn upload(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        self.emulator.upload(memory, offset, bytes)
    }
    fn download(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.emulator.download(memory, offset, bytes)
    }
    fn begin_download(&self, memory: &Memory, offset: usize, bytes: usize) -> Result<Download> {
        self.emulator.begin_download(memory, offset, bytes)
    }
    fn module(&self, source: &Source) -> Result<LoadedModule> {
        Ok(LoadedModule::new((Arc::new(source.clone()), self.emulator.module(source)?)))
    }
    fn tensor_map(&self, request: &TensorMapRequest<'_>) -> Result<TensorMap> {
        self.emulator.tensor_map(request)
    }
    fn launch(&self, memory: &Memory, module: &LoadedModule, launch: &Launch<'_>) -> Result<()> {
        let (source, module) = module.inner::<(Arc<Source>, LoadedModule)>();
        self.launches.lock().unwrap().push(RecordedLaunch {
            source: source.clone(),
            entry: launch.entry.to_string(),
            config: launch.config,
            operands: launch.operands.to_vec(),
        });
        self.emulator.launch(memory, module, launch)
    }
    fn synchronise(&self) -> Result<()> {
        self.emulator.synchronise()
    }
    fn capture(&self, record: &mut dyn FnMut() -> Result<()>) -> Result<Graph> {
        self.emulator.capture(record)
    }
    fn replay(&self, memory: &Memory, graph: &Graph) -> Result<()> {
        self.emulator.replay(memory, graph)
    }
    fn event(&self) -> Result<Event> {
        self.emulator.event()
    }
    fn elapsed_seconds(&self, from: &Event, to: &Event) -> Result<f64> {
        self.emulator.elapsed_seconds(from, to)
    }
}

/// Places a call's operands in memory of zeros, and runs it.
fn run_alone(device: &mut dyn Device, call: &Call<()>) {
    let mut end = aligned(device.red_zone());
    let mut place = |elements: usize, dtype: DType| {
        let span = Span { offset: end, elements, dtype };
        end += aligned(span.bytes() + device.red_zone());
        span
    };
    let mut operands = call.operands().into_iter();
    let placed = call.map(|()| {
        let operand = operands.next().unwrap();
        place(operand.elements, operand.element.dtype(device.dtype()))
    });
    let workspace = place(device.workspace_bytes(call).div_ceil(4), DType::F32);
    device.allocate(end).unwrap();
    device.run(&placed, workspace).unwrap();
}

#[test]
fn the_recorder_sees_the_launches_that_the_emulator_runs() {
    let network: NetworkName = TOY.parse().unwrap();
    let emulator = Emulator::new(Options::default()).unwrap();
    let recorder = Arc::new(Recorder::new(emulator.properties().clone()));
    let watcher = Arc::new(Watched { emulator, launches: Mutex::default() });
    let mut watched = Cuda::new(watcher.clone(), DType::Bf16, Sources::default()).unwrap();
    let mut recorded = Cuda::new(recorder.clone(), DType::Bf16, Sources::default()).unwrap();
    let calls = network.calls(&recorded, 2, Fusions::ALL).unwrap();
    assert!(calls.len() > 60, "{} calls", calls.len());
    for call in &calls {
        run_alone(&mut watched, call);
        run_alone(&mut recorded, call);
        let run = std::mem::take(&mut *watcher.launches.lock().unwrap());
        assert!(!run.is_empty() && run == recorder.take(), "{}", call.name());
    }
}

#[test]
fn a_table_that_names_another_kernel_changes_the_launch() {
    let conv = Conv2d {
        batch: 4,
        height: 8,
        width: 8,
        in_channels: 64,
        out_channels: 64,
        filter_height: 3,
        filter_width: 3,
        stride: 1,
        padding: 1,
    };
    let properties = Properties {
        name: "a card".into(),
        architecture: "sm_80".into(),
        capability: (8, 0),
        sms: 108,
        memory_bytes: 1 << 36,
        shared_bytes_per_block: 163 << 10,
        red_zone: 0,
        versions: String::new(),
    };
    let launched = |kernels: &[(Pass, &str, usize)]| {
        let mut table = KernelTable::new(MeasuredOn::this(&properties), "");
        for &(pass, kernel, splits) in kernels {
            let (dtype, kernel) = ("bf16".into(), kernel.into());
            let row = TableRow { pass, dtype, kernel, splits, microseconds: None, convolution: conv };
            table.push(row).unwrap();
        }
        let recorder = Arc::new(Recorder::new(properties.clone()));
        let cuda = Cuda::new(recorder.clone(), DType::Bf16, Sources::default()).unwrap();
        let mut cuda = cuda.with_table(table).unwrap();
        run_alone(&mut cuda, &Conv2dFprop::new(conv, [(); 3]).into());
        run_alone(&mut cuda, &Conv2dWgrad::new(conv, [(); 3]).into());
        recorder.take()
    };
    let tuned = launched(&[(Pass::Fprop, "sm80-128x64", 1), (Pass::Wgrad, "sm80-64x128", 2)]);
    assert!(tuned[0].source.name.contains("TILE_M=128 TILE_N=64"), "{}", tuned[0].source.name);
    assert!(tuned[1].source.name.contains("TILE_M=64 TILE_N=128"), "{}", tuned[1].source.name);
    // 64 x 576 in tiles of 64 x 128, in two parts.
    assert_eq!(tuned[1].config.grid, [5, 1, 2]);
    assert_eq!(tuned[2].entry, "split_k_reduce");
    let other = launched(&[(Pass::Fprop, "sm80-64x64", 1), (Pass::Wgrad, "sm80-64x128", 1)]);
    assert!(other[0].source.name.contains("TILE_M=64 TILE_N=64"), "{}", other[0].source.name);
    assert_eq!((other[1].config.grid, other.len()), ([5, 1, 1], 2));
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_call_of_a_step_is_predicted_without_a_gpu_and_the_sums_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("model.json");
    let run = program::run(&[
        "bench",
        "--model",
        "--card",
        "A100",
        "--precision",
        "bf16",
        "--arch",
        "resnet18-cifar.32",
        "--batch-size",
        "128",
        "--out",
        out.to_str().unwrap(),
    ]);
    let shown = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    for words in ["predicted, not measured", "what would pay most", "sm80-128x64", "by operation"] {
        assert!(shown.contains(words), "`{words}` is not in\n{shown}");
    }
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }

    let model = read(&out);
    let steps = model["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    for step in steps {
        let (mut predicted, mut floor, mut launches) = (0.0, 0.0, 0);
        for call in step["calls"].as_array().unwrap() {
            let number = |key: &str| call[key].as_f64().unwrap();
            let count = number("count");
            predicted += count * number("predicted_seconds");
            floor += count * number("floor_seconds");
            let of_call = call["launches"].as_array().unwrap();
            launches += count as usize * of_call.len();
            let sum: f64 = of_call.iter().map(|l| l["predicted"]["seconds"].as_f64().unwrap()).sum();
            assert!((sum / number("predicted_seconds") - 1.0).abs() < 1e-9, "{call}");
            // A prediction that is faster than the card can be is wrong.
            assert!(number("predicted_seconds") > 0.99 * number("floor_seconds"), "{call}");
        }
        let near = |key: &str, expected: f64| {
            assert!((step[key].as_f64().unwrap() / expected - 1.0).abs() < 1e-9, "{key}: {expected}");
        };
        near("predicted_seconds", predicted);
        near("floor_seconds", floor);
        near("predicted_images_per_second", 128.0 / predicted);
        assert_eq!(step["launches"], launches);
    }

    let unknown = program::run(&["bench", "--model", "--card", "Voodoo"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("B200, H200, H100"));
}

#[test]
fn serial_launches_are_predicted_to_cost_more_each_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let predicted = |launches: &str| {
        let out = folder.path().join(format!("{launches}.json"));
        let run = program::run(&[
            "bench",
            "--model",
            "--card",
            "H200",
            "--precision",
            "bf16",
            "--arch",
            TOY,
            "--batch-size",
            "4",
            "--launches",
            launches,
            "--out",
            out.to_str().unwrap(),
        ]);
        let shown = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success() && shown.contains(&format!("{launches} launch")), "{shown}");
        let model = read(&out);
        let of_step = |key: &str| model["steps"][0][key].as_f64().unwrap();
        let launch = model["card"]["launch_seconds"].as_f64().unwrap();
        (of_step("predicted_seconds"), of_step("launches"), launch)
    };
    let (serial, overlapped) = (predicted("serial"), predicted("overlapped"));
    assert_eq!(serial.1, overlapped.1);
    let expected = serial.1 * (serial.2 - overlapped.2);
    assert!(
        expected > 0.0 && ((serial.0 - overlapped.0) / expected - 1.0).abs() < 1e-6,
        "{serial:?} {overlapped:?}"
    );
}

#[test]
fn tuning_names_kernels_that_compute_something_else_and_leaves_them_out() {
    let folder = tempfile::tempdir().unwrap();
    let kernels = residua::backend::cuda::EMBEDDED;
    let file = "convolution/sm90/halo_reuse.cu";
    let (_, text) = kernels.iter().find(|(name, _)| *name == file).unwrap();
    // A tap less.
    let wrong = text.replace("tap_h < taps_h", "tap_h + 1 < taps_h");
    assert_ne!(wrong, **text);
    std::fs::create_dir_all(folder.path().join(file).parent().unwrap()).unwrap();
    std::fs::write(folder.path().join(file), wrong).unwrap();
    let table = folder.path().join("kernels.toml");
    let (table, folder) = (table.to_str().unwrap(), folder.path().to_str().unwrap());
    let start = [
        "bench",
        "--tune",
        table,
        "--device",
        "emulator",
        "--kernels",
        folder,
        "--seconds",
        "0",
        "--repeats",
        "1",
    ];
    let toy =
        ["--arch", "resnet20-cifar.16.w0.5", "--batch-size", "1", "--precision", "bf16", "--quiet", "--json"];
    let run = program::run(&[&start[..], &toy].concat());
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("is not in the table") && said.contains("kernels.toml"), "{said}");
    let tuning: Value = serde_json::from_slice(&run.stdout).unwrap();
    let refused = tuning["refused"].as_array().unwrap();
    assert!(!refused.is_empty());
    let rows = |kernel: &Value| kernel.as_str().unwrap().starts_with("sm90-rows-");
    assert!(refused.iter().all(|refused| rows(&refused["kernel"])), "{refused:?}");
    let measured =
        tuning["tuned"].as_array().unwrap().iter().flat_map(|tuned| tuned["candidates"].as_array().unwrap());
    assert!(!measured.into_iter().any(|candidate| rows(&candidate["kernel"])));
}

#[test]
fn tuning_writes_a_table_of_the_device_it_measured_and_of_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.toml");
    let table = path.to_str().unwrap();
    let toy = ["--arch", "resnet20-cifar.8.w0.5", "--batch-size", "1", "--precision", "bf16", "--quiet"];
    let tune = |budget: &str| {
        let start = ["bench", "--tune", table, "--device", "emulator", "--seconds", "0", "--repeats", "1"];
        program::run(&[&start[..], &toy[..], &["--budget", budget, "--json"]].concat())
    };
    let run = tune("600");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let tuning: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(tuning["note"].as_str().unwrap().contains("times mean nothing"));
    let tuned = tuning["tuned"].as_array().unwrap();
    let written = KernelTable::read(&path).unwrap();
    assert_eq!(written.hash(), tuning["kernel_table_hash"].as_str().unwrap());
    assert_eq!(written.rows().len(), tuned.len());
    for (row, tuned) in written.rows().iter().zip(tuned) {
        let best = &tuned["candidates"][tuned["best"].as_u64().unwrap() as usize];
        assert_eq!(best["kernel"], row.kernel.as_str());
    }
    assert!(tuned.iter().any(|tuned| tuned["candidates"].as_array().unwrap().len() >= 3));
    assert!(std::fs::read_to_string(&path).unwrap().contains("a rehearsal"));

    // Nothing is lost where nothing is measured again.
    let again = tune("0");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(KernelTable::read(&path).unwrap().hash(), written.hash());

    // The table is used where it was measured, and refused elsewhere; another device's is not written over.
    let start = ["bench", "--device", "emulator", "--kernel-table", table, "--only", "conv2d_wgrad"];
    let used = program::run(&[&start[..], &["--seconds", "0", "--repeats", "1"], &toy[..]].concat());
    assert!(used.status.success(), "{}", String::from_utf8_lossy(&used.stderr));
    let refused = program::run(&[&["bench", "--model", "--kernel-table", table][..], &toy[..]].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was measured on emulator"));
    let text = std::fs::read_to_string(&path).unwrap().replace("name = \"emulator\"", "name = \"a card\"");
    std::fs::write(&path, &text).unwrap();
    let refused = tune("600");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is a table of a card"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let on_cpu = program::run(&["bench", "--tune", table, "--device", "cpu"]);
    assert_eq!(on_cpu.status.code(), Some(2));
}
