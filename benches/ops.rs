//! Every operation at the shapes of ResNet-18 on 32x32 images, batch 128, on two threads: `cargo bench --bench ops`.
//!
//! Convolutions report floating-point operations per second as "elements", passes bound by memory report bytes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use residua::backend::cpu::Cpu;
use residua::ops::{
    Accumulate, Adam, AdamStep, Add, BatchNorm, BatchNormFold, BatchNormFrozen, BatchNormGradient,
    BatchNormInputGradient, BatchNormReduce, BatchNormStatistics, BiasEpilogue, Call, Conv2d, Conv2dDgrad,
    Conv2dFprop, Conv2dWgrad, CopyRows, CrossEntropy, Device, FpropEpilogue, GlobalAveragePool,
    GlobalAveragePoolGradient, GlobalPool, HYPER_ROW, HYPER_ROWS, Linear, LinearForward, LinearInputGradient,
    LinearWeightGradient, MaxPool, MaxPoolGradient, Pool, Relu, ReluGradient, Rows, ScaleBias,
    ScaleBiasForward, ScaleBiasResidual, Segment, Sgd, SgdStep, ShortcutA, ShortcutAForward,
    ShortcutAGradient, SoftmaxCrossEntropy,
};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues, Span, aligned};

const BATCH: usize = 128;

/// Size, input channels, output channels, filter size, stride of each kind of layer.
const LAYERS: [[usize; 5]; 11] = [
    [32, 3, 64, 3, 1],
    [32, 64, 64, 3, 1],
    [32, 64, 128, 3, 2],
    [32, 64, 128, 1, 2],
    [16, 128, 128, 3, 1],
    [16, 128, 256, 3, 2],
    [16, 128, 256, 1, 2],
    [8, 256, 256, 3, 1],
    [8, 256, 512, 3, 2],
    [8, 256, 512, 1, 2],
    [4, 512, 512, 3, 1],
];

/// Hands out places in a memory that is filled with random numbers once all are known.
#[derive(Default)]
struct Places {
    end: usize,
    spans: Vec<Span>,
}

impl Places {
    fn span(&mut self, elements: usize, dtype: DType) -> Span {
        let span = Span { offset: self.end, elements, dtype };
        self.end += aligned(span.bytes());
        self.spans.push(span);
        span
    }

    fn f32(&mut self, elements: usize) -> Span {
        self.span(elements, DType::F32)
    }

    fn fill(&self, device: &mut dyn Device) {
        device.allocate(self.end).expect("memory for one layer");
        for (key, span) in self.spans.iter().enumerate() {
            if span.dtype == DType::F32 {
                let stream = Stream::for_purpose(0, Purpose::Synthetic, &[key as u64]);
                let values: Vec<f32> =
                    (0..span.elements as u64).map(|i| (stream.uniform(i) - 0.5) as f32).collect();
                device.write(*span, HostValues::F32(&values)).expect("the span is inside");
            }
        }
    }
}

/// Times calls that share their places.
fn time(
    group: &mut BenchmarkGroup<'_, WallTime>,
    device: &mut dyn Device,
    shape: &str,
    mut places: Places,
    calls: &[(String, Throughput, Call<Span>)],
) {
    let workspace_bytes =
        calls.iter().map(|(.., call)| device.workspace_bytes(&call.map(|_| ()))).max().unwrap_or(0);
    let workspace = places.f32(workspace_bytes.div_ceil(4));
    places.fill(device);
    for (name, throughput, call) in calls {
        group.throughput(throughput.clone());
        group.bench_function(format!("{name}/{shape}"), |bencher| {
            bencher.iter(|| black_box(&mut *device).run(call, workspace).expect("the call is well formed"));
        });
    }
}

fn convolutions(criterion: &mut Criterion) {
    let mut device = Cpu::<f32>::new(2).expect("two threads");
    let mut group = group(criterion, "convolution");
    for [size, in_channels, out_channels, filter, stride] in LAYERS {
        let conv = Conv2d {
            batch: BATCH,
            height: size,
            width: size,
            in_channels,
            out_channels,
            filter_height: filter,
            filter_width: filter,
            stride,
            padding: filter / 2,
        };
        let mut places = Places::default();
        let x = places.f32(BATCH * size * size * in_channels);
        let weight = places.f32(out_channels * conv.filter_elements());
        let bias = places.f32(out_channels);
        let [y, residual] = [0; 2].map(|_| places.f32(conv.out_pixels() * out_channels));
        let fprop = Conv2dFprop::new(conv, [x, weight, y]);
        let with = |residual| Conv2dFprop {
            epilogue: Some(FpropEpilogue::Bias(BiasEpilogue { bias, residual, relu: true })),
            ..fprop
        };
        let calls = [
            ("", fprop.into()),
            ("_bias", with(None).into()),
            ("_bias_residual", with(Some(residual)).into()),
            ("", Conv2dDgrad::new(conv, [y, weight, x]).into()),
            ("", Conv2dWgrad::new(conv, [x, y, weight]).into()),
        ];
        let shape = format!("{in_channels}to{out_channels}_{filter}x{filter}_stride{stride}_at{size}");
        let calls = calls.map(|(fused, call): (_, Call<Span>)| {
            (format!("{}{fused}", call.name()), Throughput::Elements(conv.flop() as u64), call)
        });
        time(&mut group, &mut device, &shape, places, &calls);
    }
}

fn passes(criterion: &mut Criterion) {
    let mut device = Cpu::<f32>::new(2).expect("two threads");
    let mut group = group(criterion, "pass");
    for [size, channels] in [[32, 64], [16, 128], [8, 256], [4, 512]] {
        let extent = Rows { rows: BATCH * size * size, channels };
        let elements = extent.rows * channels;
        let mut places = Places::default();
        let [a, b, out] = [0; 3].map(|_| places.f32(elements));
        let [gamma, beta, mean, inverse_std, scale, bias, running_mean, running_variance, dgamma, dbeta] =
            [0; 10].map(|_| places.f32(channels));
        let gradient = BatchNormGradient { extent, relu: true, frozen: false };
        let affine = ScaleBias { extent, relu: true };
        let calls = [
            (
                1,
                BatchNormStatistics {
                    attributes: BatchNorm { extent, epsilon: 1e-5, momentum: 0.1 },
                    x: a,
                    gamma,
                    beta,
                    mean,
                    inverse_std,
                    scale,
                    bias,
                    running_mean,
                    running_variance,
                }
                .into(),
            ),
            (2, ScaleBiasForward { attributes: affine, x: a, scale, bias, y: out }.into()),
            (3, ScaleBiasResidual { attributes: affine, x: a, scale, bias, residual: b, y: out }.into()),
            (
                2,
                BatchNormReduce {
                    attributes: gradient,
                    dy: a,
                    x: b,
                    scale,
                    bias,
                    mean,
                    inverse_std,
                    dgamma,
                    dbeta,
                }
                .into(),
            ),
            (
                3,
                BatchNormInputGradient {
                    attributes: gradient,
                    dy: a,
                    x: b,
                    scale,
                    bias,
                    mean,
                    inverse_std,
                    dgamma,
                    dbeta,
                    dx: out,
                }
                .into(),
            ),
            (2, Relu { attributes: extent, x: a, y: out }.into()),
            (3, ReluGradient { attributes: extent, y: a, dy: b, dx: out }.into()),
            (3, Add { attributes: extent, a, b, y: out }.into()),
            (3, Accumulate { attributes: extent, x: a, y: out }.into()),
            (2, CopyRows { attributes: extent, x: a, y: out }.into()),
        ];
        let calls = calls.map(|(passes, call): (_, Call<Span>)| {
            (call.name().to_string(), Throughput::Bytes((passes * elements * 4) as u64), call)
        });
        time(&mut group, &mut device, &format!("{}x{channels}", extent.rows), places, &calls);
    }
}

fn ends_of_the_network(criterion: &mut Criterion) {
    let mut device = Cpu::<f32>::new(2).expect("two threads");
    let mut group = group(criterion, "ends");
    let (features, classes, parameters) = (512, 100, 11_220_132);
    let pool = GlobalPool { batch: BATCH, height: 4, width: 4, channels: features };
    let stem = Pool { batch: BATCH, height: 32, width: 32, channels: 64, window: 3, stride: 2, padding: 1 };
    let linear = Linear { batch: BATCH, inputs: features, outputs: classes };
    let mut places = Places::default();
    let maps = places.f32(BATCH * 16 * features);
    let pooled = places.f32(BATCH * features);
    let weight = places.f32(classes * features);
    let bias = places.f32(classes);
    let [logits, dlogits] = [0; 2].map(|_| places.f32(BATCH * classes));
    let loss = places.f32(BATCH);
    let [labels, prediction] = [0; 2].map(|_| places.span(BATCH, DType::I32));
    let large = places.f32(BATCH * 32 * 32 * 64);
    let small = places.f32(BATCH * 16 * 16 * 64);
    let argmax = places.span(BATCH * 16 * 16 * 64, DType::I32);
    let [values, gradients, velocity] = [0; 3].map(|_| places.f32(parameters));
    let hyper = places.f32(HYPER_ROWS * HYPER_ROW);
    let second_moment = places.f32(parameters);
    let [gamma, beta, mean, variance, inverse_std, scale, shift] = [0; 7].map(|_| places.f32(512));
    let [filters, folded] = [0; 2].map(|_| places.f32(512 * 4608));
    let norm = |channels| BatchNorm { extent: Rows { rows: 512, channels }, epsilon: 1e-5, momentum: 0.1 };
    let shortcut =
        ShortcutA { batch: BATCH, height: 32, width: 32, in_channels: 64, out_channels: 128, stride: 2 };
    let widened = places.f32(BATCH * 16 * 16 * 128);
    let adam = Adam {
        segments: Segment::alone(parameters, 5e-4),
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        decoupled: false,
        copy: false,
    };
    let loss_attributes = CrossEntropy { batch: BATCH, classes, smoothing: 0.0 };
    let segments = Segment::alone(parameters, 5e-4);
    let sgd = Sgd { segments, momentum: 0.9, nesterov: false, copy: false };
    let copies = places.f32(0);
    let calls = [
        (large.bytes(), MaxPool { attributes: stem, x: large, y: small, argmax }.into()),
        (large.bytes(), MaxPoolGradient { attributes: stem, dy: small, argmax, dx: large }.into()),
        (maps.bytes(), GlobalAveragePool { attributes: pool, x: maps, y: pooled }.into()),
        (maps.bytes(), GlobalAveragePoolGradient { attributes: pool, dy: pooled, dx: maps }.into()),
        (weight.bytes(), LinearForward { attributes: linear, x: pooled, weight, bias, y: logits }.into()),
        (weight.bytes(), LinearInputGradient { attributes: linear, dy: logits, weight, dx: pooled }.into()),
        (
            weight.bytes(),
            LinearWeightGradient { attributes: linear, x: pooled, dy: logits, dweight: weight, dbias: bias }
                .into(),
        ),
        (
            logits.bytes(),
            SoftmaxCrossEntropy { attributes: loss_attributes, logits, labels, loss, prediction, dlogits }
                .into(),
        ),
        (
            5 * values.bytes(),
            SgdStep { attributes: sgd, parameters: values, gradients, velocity, hyper, copies }.into(),
        ),
        (
            7 * values.bytes(),
            AdamStep {
                attributes: adam,
                parameters: values,
                gradients,
                first: velocity,
                second: second_moment,
                hyper,
                copies,
            }
            .into(),
        ),
        (
            gamma.bytes(),
            BatchNormFrozen {
                attributes: norm(512),
                gamma,
                beta,
                running_mean: mean,
                running_variance: variance,
                inverse_std,
                scale,
                bias: shift,
            }
            .into(),
        ),
        (
            2 * filters.bytes(),
            BatchNormFold {
                attributes: norm(4608),
                weight: filters,
                gamma,
                beta,
                running_mean: mean,
                running_variance: variance,
                folded,
                bias: shift,
            }
            .into(),
        ),
        (large.bytes(), ShortcutAForward { attributes: shortcut, x: large, y: widened }.into()),
        (large.bytes(), ShortcutAGradient { attributes: shortcut, dy: widened, dx: large }.into()),
    ];
    let calls = calls.map(|(bytes, call): (usize, Call<Span>)| {
        (call.name().to_string(), Throughput::Bytes(bytes as u64), call)
    });
    time(&mut group, &mut device, "resnet18", places, &calls);
}

/// Few samples: the whole file is to end within three minutes.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    group
}

criterion_group!(benches, convolutions, passes, ends_of_the_network);
criterion_main!(benches);
