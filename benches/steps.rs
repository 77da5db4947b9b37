//! Whole steps on the CPU: a ResNet-18 training step and an inference pass, 3x32x32, batch 128, f32.
//!
//! `cargo bench --bench steps`; `RAYON_NUM_THREADS` sets the number of threads. The PyTorch peers of the same work are in
//! `benches/peers/`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use residua::backend::cpu::Cpu;
use residua::nn::{Architecture, Depth, ImageSource, Images, Inference, Model, Network};
use residua::ops::Device as _;
use residua::rng::{Purpose, Stream};
use residua::tensor::HostValues;
use residua::train::{BatchTargets, Objective, Optimizer, OptimizerKind, TrainStep};

const BATCH: usize = 128;
const EXTENT: [usize; 3] = [32, 32, 3];

fn images() -> Vec<f32> {
    let stream = Stream::for_purpose(1, Purpose::Synthetic, &[]);
    (0..(BATCH * 32 * 32 * 3) as u64).map(|i| stream.normal(i) as f32).collect()
}

const IMAGES: Images = Images { batch: BATCH, extent: EXTENT, source: ImageSource::Numbers };

fn architecture() -> Architecture {
    Architecture::new(Depth::ResNet18, None, None, 1.0, 100).expect("a plain ResNet-18")
}

fn training_step(c: &mut Criterion) {
    let device = Cpu::<f32>::new(0).expect("threads");
    let optimizer = Optimizer {
        kind: OptimizerKind::Sgd,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        separate_heads: false,
    };
    let network = Network::new(&architecture(), device.dtype(), Some(optimizer.slots()));
    let step = TrainStep::new(&network, &device, &optimizer, &IMAGES, &Objective::cross_entropy(0.0));
    let mut model = Model::new(network, Box::new(device), step.executable().bytes()).expect("memory");
    model.initialise(1).expect("initial values");
    let labels: Vec<i32> = (0..BATCH as i32).map(|i| i % 100).collect();
    let targets = BatchTargets::plain(&labels);
    let images = images();
    let rates = optimizer.rates(1e-3, 1);
    let mut group = c.benchmark_group("resnet18-cifar-32-b128-f32");
    group
        .throughput(Throughput::Elements(BATCH as u64))
        .sample_size(10)
        .measurement_time(Duration::from_secs(20));
    group.bench_function("training_step", |b| {
        b.iter(|| black_box(step.run(&mut model, HostValues::F32(&images), &targets, &rates).expect("step")));
    });
    group.finish();
    if std::env::var_os("RESIDUA_BENCH_CALLS").is_some() {
        print_calls(&step, &mut model);
    }
}

/// Seconds per kind of call within one step, largest first: where the time goes.
fn print_calls(step: &TrainStep, model: &mut Model) {
    let mut totals = std::collections::BTreeMap::<&str, f64>::new();
    const STEPS: usize = 3;
    for _ in 0..STEPS {
        model
            .run_timed(step.executable(), |call, seconds| *totals.entry(call.name()).or_default() += seconds)
            .expect("step");
    }
    let mut rows: Vec<_> = totals.into_iter().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, seconds) in rows {
        println!("{name:30} {:9.2} ms", 1e3 * seconds / STEPS as f64);
    }
}

fn inference(c: &mut Criterion) {
    let device = Cpu::<f32>::new(0).expect("threads");
    let network = Network::new(&architecture(), device.dtype(), None);
    let pass = Inference::new(&network, &device, &IMAGES);
    let mut model = Model::new(network, Box::new(device), pass.executable().bytes()).expect("memory");
    model.initialise(1).expect("initial values");
    pass.set_up(&mut model).expect("folding");
    let images = images();
    let mut group = c.benchmark_group("resnet18-cifar-32-b128-f32");
    group
        .throughput(Throughput::Elements(BATCH as u64))
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("inference", |b| {
        b.iter(|| {
            let values = HostValues::F32(&images);
            pass.images().write_numbers(&mut model, pass.executable(), values).expect("images");
            black_box(pass.run(&mut model).expect("pass"))
        });
    });
    group.finish();
}

criterion_group!(steps, training_step, inference);
criterion_main!(steps);
