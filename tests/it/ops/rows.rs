//! Operations on rows: each against plain loops, and whole evaluations against an independent implementation.

use std::sync::Arc;

use residua::backend::cpu::Cpu;
use residua::backend::cuda::driver::Driver;
use residua::backend::cuda::driver::emulator::{Copies, Emulator, Options as EmulatorOptions, Order};
use residua::backend::cuda::driver::native::Native;
use residua::backend::cuda::{Cuda, Sources};
use residua::collapse::{self, Subject};
use residua::error::Result;
use residua::features::{FeatureSet, Head, Matrix, Moments};
use residua::ood::{Compute, Detectors, Method, OnCpu, OnDevice, Options, RowsPrecision};
use residua::ops::{
    Call, Device, InverseNorms, LogitScores, Nearest, PreparedRows, Projection, RowInverseNorms,
    RowLogitScores, RowNearest, RowNearestF32, RowNearestNormalised, RowNormalise, RowProject,
    RowSquareNorms, RowSquareNormsOfCoordinates, Rows,
};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues, Span, aligned};

use crate::ood::scores::{calibration, case, expected, options, tolerance};

fn kernels(driver: impl Driver + 'static) -> Box<dyn Device> {
    Box::new(Cuda::new(Arc::new(driver), DType::F32, Sources::default()).unwrap())
}

fn emulator(order: Order, copies: Copies) -> Box<dyn Device> {
    kernels(Emulator::new(EmulatorOptions { order, copies, threads: 1 }).expect("a C++ compiler"))
}

/// Runs a test on the CPU in both precisions, on the emulator, lowest thread first and in a random order, and on a GPU where there
/// is one.
macro_rules! on_every_device {
    (|$device:pat_param| $body:block) => {
        for order in [Order::Forward, Order::Random(5)] {
            let $device = emulator(order, Copies::Lazy);
            $body
        }
        {
            let $device: Box<dyn Device> = Box::new(Cpu::<f32>::new(2).unwrap());
            $body
        }
        {
            let $device: Box<dyn Device> = Box::new(Cpu::<f64>::new(1).unwrap());
            $body
        }
        if let Some(native) = Native::if_present(0) {
            let $device = kernels(native);
            $body
        }
    };
}

fn random(elements: usize, key: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(17, Purpose::Synthetic, &[key]);
    (0..elements as u64).map(|i| f64::from(stream.normal(i) as f32)).collect()
}

/// Operands of one call, in memory of their own.
struct Bench<'a> {
    device: &'a mut dyn Device,
    end: usize,
}

impl<'a> Bench<'a> {
    fn new(device: &'a mut dyn Device) -> Bench<'a> {
        device.allocate(1 << 22).unwrap();
        let end = aligned(device.red_zone());
        Bench { device, end }
    }

    fn place(&mut self, elements: usize, dtype: DType) -> Span {
        let span = Span { offset: self.end, elements, dtype };
        self.end = aligned(self.end + span.bytes()) + aligned(self.device.red_zone()).max(256);
        span
    }

    fn given(&mut self, values: &[f64], dtype: DType) -> Span {
        let span = self.place(values.len(), dtype);
        self.device.write(span, HostValues::F64(values)).unwrap();
        span
    }

    /// Runs an operation with the scratch memory that it asks for, or with room for `distances` distances.
    fn run(&mut self, call: impl Into<Call<Span>>, distances: Option<usize>) -> Result<()> {
        let call = call.into();
        let asked = self.device.workspace_bytes(&call.map(|_| ())).div_ceil(8);
        let room = distances.unwrap_or(asked);
        let workspace = self.place(room, DType::F64);
        self.device.run(&call, workspace)
    }

    fn read(&self, span: Span) -> Vec<f64> {
        let mut values = vec![0.0; span.elements];
        self.device.read_f64(span, &mut values).unwrap();
        values
    }
}

fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|x| x.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let number = found.iter().all(|x| x.is_finite());
    assert!(number && worst <= tolerance * size, "{what}: off by {worst:e} of {size:e}");
}

#[test]
fn logit_scores_of_every_row_are_those_of_their_definitions() {
    on_every_device!(|mut device| {
        for (rows, classes, temperature, size) in
            [(1, 1, 1.0, 1.0), (3, 5, 2.0, 1.0), (9, 33, 0.5, 10.0), (17, 100, 1.0, 500.0)]
        {
            let logits: Vec<f64> = random(rows * classes, 1).iter().map(|x| x * size).collect();
            let mut bench = Bench::new(&mut *device);
            let from = bench.given(&logits, DType::F64);
            let to = [(); 5].map(|()| bench.place(rows, DType::F64));
            let [msp, mls, energy, entropy, deviation] = to;
            let predicted = bench.place(rows, DType::I32);
            let nothing = Span { elements: 0, ..from };
            let attributes =
                LogitScores { rows, classes, temperature, scaled: false, biased: false, deviation: true };
            let scores = RowLogitScores {
                attributes,
                logits: from,
                scale: nothing,
                bias: nothing,
                msp,
                mls,
                energy,
                entropy,
                deviation,
                predicted,
            };
            bench.run(scores, None).unwrap();
            let found = to.map(|span| bench.read(span));
            let mut classes_found = vec![0; rows];
            bench.device.read_i32(predicted, &mut classes_found).unwrap();
            for (row, logits) in logits.chunks(classes).enumerate() {
                let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|l| ((l - largest) / temperature).exp()).sum();
                let p: Vec<f64> = logits.iter().map(|l| ((l - largest) / temperature).exp() / sum).collect();
                let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum();
                let deviation: f64 = p.iter().map(|p| (p * classes as f64 - 1.0).abs()).sum();
                let energy = largest + temperature * sum.ln();
                let expected = [1.0 / sum, largest, energy, entropy, deviation];
                assert_eq!(logits[classes_found[row] as usize], largest);
                let found = found.each_ref().map(|scores| scores[row]);
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() <= 1e-13 * expected.abs().max(1.0),
                        "{found} for {expected}"
                    );
                }
            }
        }
    });
}

#[test]
fn projections_and_norms_shift_and_divide_rows_first() {
    on_every_device!(|mut device| {
        for (rows, columns, outputs, shifted, divided) in [
            (1, 1, 1, false, false),
            (5, 7, 3, true, false),
            (66, 20, 65, true, true),
            (3, 130, 17, false, true),
        ] {
            let x = random(rows * columns, 1);
            let shift = if shifted { random(columns, 2) } else { vec![0.0; columns] };
            let divisor = if divided {
                random(columns, 3).iter().map(|x| x.abs() + 0.5).collect()
            } else {
                vec![1.0; columns]
            };
            let basis = random(columns * outputs, 4);
            let prepared: Vec<f64> =
                x.iter().enumerate().map(|(i, x)| (x - shift[i % columns]) / divisor[i % columns]).collect();
            let coordinates: Vec<f64> = (0..rows * outputs)
                .map(|at| {
                    let (n, j) = (at / outputs, at % outputs);
                    (0..columns).map(|i| prepared[n * columns + i] * basis[i * outputs + j]).sum()
                })
                .collect();
            let square_norms = |values: &[f64], columns: usize| -> Vec<f64> {
                values.chunks(columns).map(|row| row.iter().map(|x| x * x).sum()).collect()
            };

            let mut bench = Bench::new(&mut *device);
            let x_span = bench.given(&x, DType::F32);
            let nothing = Span { elements: 0, ..x_span };
            let shift = if shifted { bench.given(&shift, DType::F64) } else { nothing };
            let divisor = if divided { bench.given(&divisor, DType::F64) } else { nothing };
            let basis = bench.given(&basis, DType::F64);
            let z = bench.place(rows * outputs, DType::F64);
            let [norms, of_z, inverse] = [(); 3].map(|()| bench.place(rows, DType::F64));
            let attributes = Projection { rows, columns, outputs, shift: shifted, divisor: divided };
            bench.run(RowProject { attributes, x: x_span, shift, divisor, basis, z }, None).unwrap();
            let attributes = PreparedRows { rows, columns, shift: shifted, divisor: divided };
            bench.run(RowSquareNorms { attributes, x: x_span, shift, divisor, norms }, None).unwrap();
            let attributes = Rows { rows, channels: outputs };
            bench.run(RowSquareNormsOfCoordinates { attributes, z, norms: of_z }, None).unwrap();
            let attributes = InverseNorms { rows, columns, floor: 0.25 };
            bench.run(RowInverseNorms { attributes, x: x_span, norms: inverse }, None).unwrap();
            close("coordinates", &bench.read(z), &coordinates, 1e-14);
            close("norms", &bench.read(norms), &square_norms(&prepared, columns), 1e-14);
            close("norms of coordinates", &bench.read(of_z), &square_norms(&coordinates, outputs), 1e-13);
            let lengths: Vec<f64> =
                square_norms(&x, columns).iter().map(|square| 1.0 / (square.sqrt() + 0.25)).collect();
            close("inverse norms", &bench.read(inverse), &lengths, 1e-14);
        }
    });
}

/// Distances of all rows to all points, each row sorted.
fn sorted_distances(rows: &[f64], points: &[f64], columns: usize) -> Vec<Vec<f64>> {
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    rows.chunks(columns)
        .map(|row| {
            let mut all: Vec<f64> = points.chunks(columns).map(|point| distance(row, point)).collect();
            all.sort_by(f64::total_cmp);
            all
        })
        .collect()
}

#[test]
fn the_kth_nearest_is_that_of_a_sorted_list_with_ties_and_with_little_scratch() {
    on_every_device!(|mut device| {
        for (rows, columns, count, k, room) in [
            (1, 1, 1, 1, 1),
            (70, 5, 9, 9, 9),
            (3, 33, 300, 7, 600),
            (130, 6, 70, 50, 70 * 70),
            (5, 4, 12, 6, 100),
        ] {
            let (x, mut points) = (random(rows * columns, 1), random(count * columns, 2));
            // Equal points, and points equal to a row: distances that tie and distances of zero.
            if count > 9 {
                points.copy_within(..5 * columns, 5 * columns);
                points[..columns].copy_from_slice(&x[..columns]);
            }
            let kth = |rows: &[f64], points: &[f64]| -> Vec<f64> {
                sorted_distances(rows, points, columns).iter().map(|all| all[k - 1]).collect()
            };
            let mut bench = Bench::new(&mut *device);
            let z = bench.given(&x, DType::F64);
            let nearest = bench.place(rows, DType::F64);
            let attributes = Nearest { rows, columns, points: count, k };
            let to = bench.given(&points, DType::F64);
            bench.run(RowNearest { attributes, z, points: to, nearest }, Some(room)).unwrap();
            close("nearest", &bench.read(nearest), &kth(&x, &points), 1e-14);

            let scales = |values: &[f64]| -> Vec<f64> {
                values
                    .chunks(columns)
                    .map(|row| 1.0 / row.iter().map(|x| x * x).sum::<f64>().sqrt())
                    .collect()
            };
            let (x_scale, bank_scale) = (scales(&x), scales(&points));
            let scaled = |values: &[f64], scales: &[f64]| -> Vec<f64> {
                values.iter().enumerate().map(|(i, x)| x * scales[i / columns]).collect()
            };
            let normalised = RowNearestNormalised {
                attributes,
                x: bench.given(&x, DType::F32),
                scale: bench.given(&x_scale, DType::F64),
                bank: bench.given(&points, DType::F32),
                bank_scale: bench.given(&bank_scale, DType::F64),
                nearest,
            };
            bench.run(normalised, Some(room)).unwrap();
            let expected = kth(&scaled(&x, &x_scale), &scaled(&points, &bank_scale));
            close("nearest normalised", &bench.read(nearest), &expected, 1e-14);

            // The same in f32.
            let unit = |bench: &mut Bench<'_>, values: &[f64], rows: usize| {
                let (x, y) = (bench.given(values, DType::F32), bench.place(rows * columns, DType::F32));
                let attributes = InverseNorms { rows, columns, floor: 0.0 };
                bench.run(RowNormalise { attributes, x, y }, None).unwrap();
                y
            };
            let [z, points_of_unit] =
                [(&x, rows), (&points, count)].map(|(x, rows)| unit(&mut bench, x, rows));
            close("normalised", &bench.read(z), &scaled(&x, &x_scale), 1e-7);
            let single = RowNearestF32 { attributes, z, points: points_of_unit, nearest };
            bench.run(single, Some(room)).unwrap();
            // Of unit vectors: an error of a distance is one of the largest, however small the distance.
            let worst =
                bench.read(nearest).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-6, "nearest of f32 is {worst:e} off");

            for wrong in [0, count + 1] {
                let attributes = Nearest { k: wrong, ..attributes };
                let error = bench.run(RowNearest { attributes, z, points: to, nearest }, Some(room));
                let message = error.unwrap_err().to_string();
                assert!(
                    message.contains(&format!("neighbour number {wrong} of {count} points")),
                    "{message}"
                );
            }
        }
    });
}

#[test]
fn moments_on_a_device_are_those_of_the_cpu() {
    on_every_device!(|device| {
        let mut device = OnDevice::new(device);
        for (rows, columns, classes) in [(1, 1, 1), (30, 3, 4), (200, 66, 3), (50, 130, 1)] {
            // Means far from zero: E[x²] − E[x]² would lose digits. The last class has no samples if there are several.
            let values: Vec<f32> = random(rows * columns, 3).iter().map(|x| (x + 100.0) as f32).collect();
            let labels: Vec<u32> = (0..rows).map(|n| (n * n % (classes - 1).max(1)) as u32).collect();
            let features = Matrix::from_f32(values, columns, "features").unwrap();
            let expected = Moments::accumulate(&features, &labels, classes);
            let found = device.moments(&features, &labels, classes).unwrap();
            assert_eq!(found.counts(), expected.counts());
            close("means", found.means(), expected.means(), 1e-14);
            close("scatter", &found.within_scatter(), &expected.within_scatter(), 1e-12);
            close("class scatter", found.class_scatter(), expected.class_scatter(), 1e-12);
        }
    });
}

fn check_case(name: &str, compute: &mut dyn Compute, absent: &[Method]) {
    let folder = case(name);
    let head = Head::open(&folder.join("head.npz")).unwrap();
    let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
    let detectors =
        Detectors::fit_on(compute, (&train, Some(&calibration(&folder))), &head, &options(head.dimension()))
            .unwrap();
    for side in ["id", "ood"] {
        let set = FeatureSet::open(&folder.join(side).with_extension("npz")).unwrap();
        let scores = detectors.score_on(compute, &set).unwrap();
        for &method in Method::ALL.iter().filter(|method| !absent.contains(method)) {
            let expected = expected(&folder, &format!("{method}_{side}")).unwrap();
            let found = &scores[method.name()];
            assert_eq!(found.len(), expected.len(), "{name} {method} {side}");
            let mean = expected.iter().map(|x| x.abs()).sum::<f64>() / expected.len() as f64;
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // As strict as for the CPU: features are f32 and everything else f64.
            assert!(
                worst / mean <= tolerance(method),
                "{name} {method} {side}: off by {:e} of the mean",
                worst / mean
            );
        }
    }
}

/// The cases with which an option in f32 has to be within 1e-6 of the mean of every score.
#[test]
fn neighbours_in_f32_meet_the_reference_and_every_other_score_keeps_its_bits() {
    for name in ["tiny", "small", "collapsed", "rank_deficient", "more_classes_than_dim"] {
        let folder = case(name);
        let head = Head::open(&folder.join("head.npz")).unwrap();
        let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
        let device = || OnDevice::new(emulator(Order::Forward, Copies::Lazy));
        let mut exact = device();
        let mut single = device().with_precision(RowsPrecision::F32);
        let options = options(head.dimension());
        let detectors = Detectors::fit_on(&mut exact, (&train, None), &head, &options).unwrap();
        // No fit depends on it.
        let same = Detectors::fit_on(&mut single, (&train, None), &head, &options).unwrap();
        assert!(same == detectors, "{name}");
        assert!(single.note(&detectors.specs()).unwrap().contains("--rows-precision f32"));
        assert_eq!(exact.note(&detectors.specs()), None);
        for side in ["id", "ood"] {
            let set = FeatureSet::open(&folder.join(side).with_extension("npz")).unwrap();
            let exact = detectors.score_on(&mut exact, &set).unwrap();
            let single = detectors.score_on(&mut single, &set).unwrap();
            for (method, found) in &single {
                if method != Method::Knn.name() {
                    assert!(*found == exact[method], "{name} {method} {side}");
                    continue;
                }
                let expected = expected(&folder, &format!("{method}_{side}")).unwrap();
                let mean = expected.iter().map(|x| x.abs()).sum::<f64>() / expected.len() as f64;
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                println!("{name} {side}: {:.1e} of the mean", worst / mean);
                assert!(worst / mean <= 1e-6 && *found != exact[method], "{name} {side}: {:e}", worst / mean);
            }
        }
    }
}

const CASES: [&str; 6] = ["gauss", "tiny", "small", "collapsed", "rank_deficient", "more_classes_than_dim"];

/// Of the same fit, whose rounding is another matter.
#[test]
fn every_score_that_kernels_compute_is_that_of_the_cpu() {
    let mut device = OnDevice::new(emulator(Order::Forward, Copies::Lazy));
    let mut failures = Vec::new();
    for name in CASES {
        let folder = case(name);
        let head = Head::open(&folder.join("head.npz")).unwrap();
        let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
        let sets = (&train, Some(&calibration(&folder)));
        let detectors = Detectors::fit_on(&mut OnCpu, sets, &head, &options(head.dimension())).unwrap();
        for side in ["id", "ood"] {
            let set = FeatureSet::open(&folder.join(side).with_extension("npz")).unwrap();
            let (cpu, kernels) =
                (detectors.score(&set).unwrap(), detectors.score_on(&mut device, &set).unwrap());
            for (score, cpu) in &cpu {
                let mean = cpu.iter().map(|x| x.abs()).sum::<f64>() / cpu.len() as f64;
                let worst = cpu.iter().zip(&kernels[score]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                if worst / mean > 1e-12 {
                    failures.push(format!("{name} {score} {side}: {:e} of the mean", worst / mean));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn every_measure_of_collapse_with_sums_by_kernels_is_that_of_the_cpu() {
    let mut device = OnDevice::new(emulator(Order::Forward, Copies::Lazy));
    for name in CASES {
        let open = |file: &str| FeatureSet::open(&case(name).join(file).with_extension("npz")).unwrap();
        let subject = Subject {
            train: open("train"),
            test: Some(open("id")),
            head: Head::open(&case(name).join("head.npz")).unwrap(),
            ood: vec![("ood".into(), open("ood"))],
            notes: Vec::new(),
        };
        let options = collapse::Options::default();
        let cpu = collapse::measure(&subject, &options).unwrap();
        let kernels = collapse::measure_on(&mut device, &subject, &options).unwrap();
        let [cpu, kernels] = [cpu, kernels].map(|measured| serde_json::to_value(measured.row).unwrap());
        for (measure, cpu) in cpu.as_object().unwrap() {
            let Some(cpu) = cpu.as_f64() else { continue };
            let found = kernels[measure].as_f64().unwrap();
            assert!((found - cpu).abs() <= 1e-12 * cpu.abs().max(1.0), "{name} {measure}: {cpu} and {found}");
        }
    }
}

/// The cases of an independent implementation, through the kernels.
#[test]
fn every_score_computed_by_kernels_meets_the_reference() {
    let constant = [Method::NecoFormula, Method::NecoClassMeans, Method::NecoOfficial];
    let cases: [(&str, &[Method]); 6] = [
        ("gauss", &[]),
        ("tiny", &[]),
        ("small", &[]),
        ("collapsed", &[]),
        ("rank_deficient", &[]),
        ("more_classes_than_dim", &constant),
    ];
    let mut device = OnDevice::new(emulator(Order::Forward, Copies::Lazy));
    cases.iter().for_each(|(name, absent)| check_case(name, &mut device, absent));
    if let Some(native) = Native::if_present(0) {
        let mut device = OnDevice::new(kernels(native));
        cases.iter().for_each(|(name, absent)| check_case(name, &mut device, absent));
    }
}

#[test]
fn scores_do_not_depend_on_the_order_in_which_threads_run() {
    let scores = |order, copies| {
        let mut device = OnDevice::new(emulator(order, copies));
        let folder = case("tiny");
        let head = Head::open(&folder.join("head.npz")).unwrap();
        let train = FeatureSet::open(&folder.join("train.npz")).unwrap();
        let detectors =
            Detectors::fit_on(&mut device, (&train, None), &head, &options(head.dimension())).unwrap();
        detectors.score_on(&mut device, &FeatureSet::open(&folder.join("ood.npz")).unwrap()).unwrap()
    };
    let forward = scores(Order::Forward, Copies::Lazy);
    assert!(forward == scores(Order::Reverse, Copies::Eager));
    assert!(forward == scores(Order::Random(3), Copies::Lazy));
}

#[test]
fn samples_by_index_and_short_last_blocks_score_as_in_the_whole_set() {
    let mut device = OnDevice::new(emulator(Order::Forward, Copies::Lazy));
    // 2,000 features make blocks of 131 rows: three blocks, the last one short.
    let (rows, columns, classes) = (300, 2000, 3);
    let values = random(rows * columns, 9).iter().map(|&x| x as f32).collect();
    let features = Matrix::from_f32(values, columns, "features").unwrap();
    let weight = random(classes * columns, 10);
    let head = Head::new(weight, random(classes, 11), columns).unwrap();
    let set = FeatureSet::from_parts("rows", features, None, None).unwrap();
    let methods = [Method::Msp, Method::Energy, Method::Gen, Method::React, Method::Knn];
    let options = Options { temperature: 3.0, knn_k: 5, ..Options::of(&methods) };
    let detectors = Detectors::fit_on(&mut device, (&set, None), &head, &options).unwrap();
    let all = detectors.score_on(&mut device, &set).unwrap();
    let some = detectors.score_samples(&mut device, &set, &[299, 0, 131, 262]).unwrap();
    let cpu = detectors.score(&set).unwrap();
    for (name, all) in &all {
        let picked: Vec<f64> = [299, 0, 131, 262].iter().map(|&index: &usize| all[index]).collect();
        // The head's product, which gives these sets their logits, rounds by the rows it sees at once.
        close(name, &some[name], &picked, 1e-13);
        close(name, all, &cpu[name], 1e-13);
    }
}
