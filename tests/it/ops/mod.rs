//! How an operation is tested: on poisoned outputs between red zones, against a plain-loop reference, on every backend:
//! the CPU in both precisions with one, two and three threads, the kernels on the emulator in three orders of threads,
//! and on a GPU where there is one. Here the convolutions; the other operations are in `passes` and its neighbours.

mod fused;
pub mod gradients;
mod gradients_of_losses;
mod heads;
mod losses;
mod optimizer_step;
mod passes;
pub mod reference;
mod rows;
mod step;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use residua::backend::cpu::{Cpu, Element};
use residua::backend::cuda::driver::Driver;
use residua::backend::cuda::driver::emulator::{Copies, Emulator, Options, Order};
use residua::backend::cuda::driver::native::Native;
use residua::backend::cuda::{Cuda, Sources};
use residua::ops::{
    Access, BiasEpilogue, Call, Conv2d, Conv2dDgrad, Conv2dFprop, Conv2dWgrad, Device, FpropEpilogue, Operand,
};
use residua::rng::{Purpose, Stream};
use residua::tensor::{ALIGNMENT, DType, HostValues, Span, aligned};

/// What an operand holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Float(Vec<f64>),
    Integer(Vec<i32>),
    Byte(Vec<u8>),
}

impl Values {
    fn elements(&self) -> usize {
        match self {
            Values::Float(values) => values.len(),
            Values::Integer(values) => values.len(),
            Values::Byte(values) => values.len(),
        }
    }
}

thread_local! {
    /// Whether random numbers are such that bf16 holds them exactly.
    static COARSE: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test twice: with inputs that f32 holds exactly, for the f32 and f64 backends, and with inputs that bf16 holds
/// exactly, for the bf16 ones. So every backend computes the problem that the reference solves.
pub fn in_every_precision(test: impl Fn()) {
    for coarse in [false, true] {
        COARSE.set(coarse);
        test();
    }
    COARSE.set(false);
}

/// Runs a test with inputs that bf16 holds exactly.
pub fn in_bf16(test: impl FnOnce()) {
    COARSE.set(true);
    test();
    COARSE.set(false);
}

/// Random numbers in [-1, 1) that every backend under test holds exactly.
pub fn random(elements: usize, key: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(11, Purpose::Synthetic, &[key]);
    let number = |i| 2.0 * stream.uniform(i) - 1.0;
    // bf16 has eight bits of significand.
    let coarse = |i| (number(i) * 128.0).floor() / 128.0;
    (0..elements as u64).map(|i| if COARSE.get() { coarse(i) } else { f64::from(number(i) as f32) }).collect()
}

/// The number next to `x` that the activations of every backend under test hold exactly.
pub fn held(x: f64) -> f64 {
    if COARSE.get() { half::bf16::from_f64(x).to_f64() } else { f64::from(x as f32) }
}

/// What a computed number is once a backend under test has stored it as an activation: rounded, where that shows.
pub fn stored(x: f64) -> f64 {
    if COARSE.get() { half::bf16::from_f64(x).to_f64() } else { x }
}

/// An output of `elements` numbers.
pub fn output(elements: usize) -> Values {
    Values::Float(vec![0.0; elements])
}

/// Bytes between operands that nobody may touch.
const RED_ZONE: usize = 4 * ALIGNMENT;

/// Runs a call whose operands are numbered; written operands, workspace and red zones are poisoned first. Gives all
/// operands back.
pub fn results(device: &mut dyn Device, call: &Call<usize>, operands: &[Values]) -> Vec<Values> {
    let mut dtypes = vec![device.dtype().accumulator(); operands.len()];
    for operand in call.operands() {
        dtypes[operand.place] = operand.element.dtype(device.dtype());
    }
    let mut end = RED_ZONE;
    let mut red_zones = vec![Span { offset: 0, elements: RED_ZONE, dtype: DType::U8 }];
    let mut place = |elements: usize, dtype: DType| {
        let span = Span { offset: end, elements, dtype };
        let behind = end + span.bytes();
        end += aligned(span.bytes()) + RED_ZONE;
        // A span begins where memory is aligned; its red zone begins right behind it.
        red_zones.push(Span { offset: aligned(behind), elements: RED_ZONE, dtype: DType::U8 });
        span
    };
    let spans: Vec<Span> =
        operands.iter().zip(&dtypes).map(|(values, &dtype)| place(values.elements(), dtype)).collect();
    let scratch = device.dtype().accumulator();
    let workspace = place(device.workspace_bytes(&call.map(|_| ())).div_ceil(scratch.size()), scratch);
    device.allocate(end).unwrap();

    for span in &red_zones {
        device.write(*span, HostValues::U8(&[0xff; RED_ZONE])).unwrap();
    }
    for (span, values) in spans.iter().zip(operands) {
        let values = match values {
            Values::Float(values) => HostValues::F64(values),
            Values::Integer(values) => HostValues::I32(values),
            Values::Byte(values) => HostValues::U8(values),
        };
        device.write(*span, values).unwrap();
    }
    let mut poison = |span: Span| {
        if span.dtype == DType::I32 {
            device.write(span, HostValues::I32(&vec![i32::MIN; span.elements])).unwrap();
        } else {
            device.write(span, HostValues::F64(&vec![f64::NAN; span.elements])).unwrap();
        }
    };
    for operand in call.operands() {
        if operand.access == Access::Write {
            poison(spans[operand.place]);
        }
    }
    poison(workspace);

    device
        .run(&call.map(|index| spans[index]), workspace)
        .unwrap_or_else(|error| panic!("{}: {call:?}: {error}", device.name()));
    for span in &red_zones {
        let words = Span { elements: RED_ZONE / 4, dtype: DType::I32, ..*span };
        let mut values = [0; RED_ZONE / 4];
        device.read_i32(words, &mut values).unwrap();
        assert!(
            values.iter().all(|&word| word == -1),
            "{}: {call:?} wrote outside its operands",
            device.name()
        );
    }
    spans
        .iter()
        .zip(operands)
        .map(|(span, values)| match values {
            Values::Integer(_) => {
                let mut values = vec![0; span.elements];
                device.read_i32(*span, &mut values).unwrap();
                Values::Integer(values)
            }
            Values::Float(_) => {
                let mut values = vec![0.0; span.elements];
                device.read_f64(*span, &mut values).unwrap();
                Values::Float(values)
            }
            Values::Byte(values) => Values::Byte(values.clone()),
        })
        .collect()
}

/// ‖a − b‖ / ‖b‖; NaN on one side only is an infinite error.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    if a.iter().zip(b).any(|(a, b)| a.is_nan() != b.is_nan()) {
        return f64::INFINITY;
    }
    let pairs = || a.iter().zip(b).filter(|(a, _)| !a.is_nan());
    let difference: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = pairs().map(|(_, b)| b * b).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

fn same_bits(a: &[Values], b: &[Values]) -> bool {
    a.iter().zip(b).all(|(a, b)| match (a, b) {
        (Values::Float(a), Values::Float(b)) => {
            a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        }
        (a, b) => a == b,
    })
}

/// The kernels on a driver.
pub fn kernels(driver: impl Driver + 'static, dtype: DType) -> Box<dyn Device> {
    Box::new(Cuda::new(Arc::new(driver), dtype, Sources::default()).unwrap())
}

fn emulated_in(options: &[(Order, Copies)], dtype: DType) -> Vec<Box<dyn Device>> {
    let device = |&(order, copies): &(Order, Copies)| {
        kernels(Emulator::new(Options { order, copies, threads: 1 }).expect("a C++ compiler"), dtype)
    };
    options.iter().map(device).collect()
}

/// The kernels on the emulator: three orders of threads, both times of copies. The device is made once a thread.
fn emulated(dtype: DType) -> Vec<Box<dyn Device>> {
    emulated_in(
        &[(Order::Forward, Copies::Lazy), (Order::Reverse, Copies::Eager), (Order::Random(7), Copies::Lazy)],
        dtype,
    )
}

/// The same in each of these orders at both times.
pub fn every_emulator(dtype: DType) -> Vec<Box<dyn Device>> {
    let orders = [Order::Forward, Order::Reverse, Order::Random(7)];
    let options: Vec<(Order, Copies)> =
        orders.iter().flat_map(|&order| [(order, Copies::Lazy), (order, Copies::Eager)]).collect();
    emulated_in(&options, dtype)
}

/// Runs a call on several devices, which must agree to the bit, and holds it to its reference.
pub fn check_on(
    devices: &mut [Box<dyn Device>],
    call: &Call<usize>,
    operands: &[Values],
    expected: &[Values],
    tolerance: f64,
) {
    let found = results(&mut *devices[0], call, operands);
    for device in &mut devices[1..] {
        let again = results(&mut **device, call, operands);
        assert!(same_bits(&found, &again), "{call:?}: {} gives other bits", device.name());
    }
    // What a call does not write, it leaves alone; what it writes is what the reference finds.
    for Operand { name, place: index, access, .. } in call.operands() {
        let want = if access == Access::Read { &operands[index] } else { &expected[index] };
        match (&found[index], want) {
            (Values::Float(got), Values::Float(want)) => {
                let error = relative_error(got, want);
                let bound = if access == Access::Read { 0.0 } else { tolerance };
                assert!(error <= bound, "{} {call:?}: `{name}` is off by {error:e}", devices[0].name());
            }
            (got, want) => assert_eq!(got, want, "{call:?}: `{name}`"),
        }
    }
}

/// Holds the kernels to the reference of a call that the CPU refuses: `expected` are all operands after the call.
pub fn check_kernels(call: impl Into<Call<usize>>, operands: &[Values], expected: &[Values]) {
    let call = call.into();
    thread_local! {
        static EMULATED: RefCell<[Vec<Box<dyn Device>>; 2]> =
            RefCell::new([emulated(DType::F32), emulated(DType::Bf16)]);
    }
    let (dtype, tolerance) = if COARSE.get() { (DType::Bf16, 1e-2) } else { (DType::F32, 1e-5) };
    EMULATED.with(|devices| {
        let devices = &mut devices.borrow_mut()[usize::from(dtype == DType::Bf16)];
        check_on(devices, &call, operands, expected, tolerance);
    });
    if let Some(native) = Native::if_present(0) {
        check_on(&mut [kernels(native, dtype)], &call, operands, expected, tolerance);
    }
}

/// The CPU with a pool of `threads` threads.
fn cpu<T: Element>(threads: usize) -> Box<dyn Device> {
    Box::new(Cpu::<T>::new(threads).unwrap())
}

/// Holds a call to its reference: `expected` are all operands after the call.
pub fn check(call: impl Into<Call<usize>>, operands: &[Values], expected: &[Values]) {
    let call = call.into();
    if !COARSE.get() {
        let threads = [1, 2, 3];
        check_on(&mut threads.map(cpu::<f64>), &call, operands, expected, 1e-12);
        check_on(&mut threads.map(cpu::<f32>), &call, operands, expected, 1e-5);
    }
    check_kernels(call, operands, expected);
}

/// (batch, height, width, in channels, out channels, filter rows, filter columns, stride, padding)
type ConvShape = [usize; 9];

const CONV_SHAPES: &[ConvShape] = &[
    [1, 1, 1, 1, 1, 1, 1, 1, 0],
    [2, 5, 7, 3, 5, 1, 1, 1, 0],
    [3, 8, 6, 16, 17, 1, 1, 2, 0],
    [1, 9, 9, 5, 3, 1, 1, 3, 1],
    [2, 4, 4, 1, 8, 3, 3, 1, 1],
    [5, 6, 6, 3, 16, 3, 3, 1, 1],
    [1, 3, 3, 8, 8, 3, 3, 1, 0],
    [2, 2, 2, 17, 5, 3, 3, 1, 1],
    [3, 7, 5, 5, 17, 3, 3, 2, 1],
    [2, 9, 8, 16, 32, 3, 3, 2, 0],
    [1, 8, 9, 3, 1, 3, 3, 3, 2],
    [2, 1, 1, 8, 16, 3, 3, 1, 1],
    [2, 1, 5, 3, 3, 3, 3, 2, 1],
    [1, 9, 9, 3, 64, 7, 7, 2, 3],
    [2, 7, 8, 1, 5, 7, 7, 1, 3],
    [1, 8, 7, 5, 3, 7, 7, 3, 2],
    [2, 6, 5, 3, 8, 3, 1, 1, 1],
    [2, 5, 6, 8, 3, 1, 3, 2, 1],
    [1, 3, 4, 3, 5, 1, 1, 1, 3],
    [1, 32, 32, 3, 16, 3, 3, 1, 1],
    [1, 8, 8, 64, 64, 3, 3, 1, 1],
    [3, 4, 4, 64, 80, 3, 3, 2, 1],
    [2, 4, 4, 130, 17, 3, 3, 1, 1],
    [1, 2, 3, 300, 100, 1, 1, 1, 0],
    [2, 16, 16, 17, 64, 1, 1, 2, 0],
];

pub fn conv_shapes() -> impl Iterator<Item = Conv2d> {
    CONV_SHAPES.iter().map(
        |&[batch, height, width, in_channels, out_channels, filter_height, filter_width, stride, padding]| {
            Conv2d {
                batch,
                height,
                width,
                in_channels,
                out_channels,
                filter_height,
                filter_width,
                stride,
                padding,
            }
        },
    )
}

fn float(values: &[f64]) -> Values {
    Values::Float(values.to_vec())
}

#[test]
fn convolution_is_the_sum_over_taps_and_channels() {
    in_every_precision(|| {
        for conv in conv_shapes() {
            let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
            let (x, weight) = (random(n_x, 1), random(n_weight, 2));
            let y = reference::convolution(&conv, &x, &weight);
            let call = Conv2dFprop::new(conv, [0, 1, 2]);
            check(call, &[float(&x), float(&weight), output(n_y)], &[output(0), output(0), Values::Float(y)]);
        }
    });
}

#[test]
fn inference_convolution_adds_bias_and_residual_before_the_rectifier() {
    in_every_precision(|| {
        for (index, conv) in conv_shapes().enumerate() {
            let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
            let (x, weight) = (random(n_x, 1), random(n_weight, 2));
            let (bias, residual) = (random(conv.out_channels, 3), random(n_y, 4));
            let relu = index % 2 == 0;
            let activation = |y: f64| if relu { reference::rectifier(y) } else { y };
            let sums = reference::convolution(&conv, &x, &weight);
            let biased = |i: usize| sums[i] + bias[i % conv.out_channels];
            let without = (0..n_y).map(|i| activation(biased(i))).collect();
            let with = (0..n_y).map(|i| activation(biased(i) + residual[i])).collect();
            let none = output(0);
            let behind = |residual| Conv2dFprop {
                epilogue: Some(FpropEpilogue::Bias(BiasEpilogue { bias: 2, residual, relu })),
                ..Conv2dFprop::new(conv, [0, 1, 3])
            };
            let mut operands = vec![float(&x), float(&weight), float(&bias), output(n_y)];
            check(
                behind(None),
                &operands,
                &[none.clone(), none.clone(), none.clone(), Values::Float(without)],
            );
            operands.push(float(&residual));
            check(
                behind(Some(4)),
                &operands,
                &[none.clone(), none.clone(), none.clone(), Values::Float(with), none],
            );
        }
    });
}

#[test]
fn input_gradient_of_a_convolution_replaces_or_adds() {
    in_every_precision(|| {
        for conv in conv_shapes() {
            let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
            let (dy, weight, before) = (random(n_y, 5), random(n_weight, 6), random(n_x, 7));
            let dx = reference::convolution_input_gradient(&conv, &dy, &weight);
            let sum = dx.iter().zip(&before).map(|(d, b)| d + b).collect();
            for (accumulate, start, expected) in
                [(false, vec![f64::NAN; n_x], dx.clone()), (true, before.clone(), sum)]
            {
                let call = Conv2dDgrad { accumulate, ..Conv2dDgrad::new(conv, [0, 1, 2]) };
                let operands = [float(&dy), float(&weight), Values::Float(start)];
                check(call, &operands, &[output(0), output(0), Values::Float(expected)]);
            }
        }
    });
}

#[test]
fn weight_gradient_of_a_convolution_sums_over_all_pixels() {
    in_every_precision(|| {
        let large = Conv2d {
            batch: 3,
            height: 20,
            width: 19,
            in_channels: 5,
            out_channels: 7,
            filter_height: 3,
            filter_width: 3,
            stride: 1,
            padding: 1,
        };
        for conv in conv_shapes().chain([large]) {
            let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
            let (x, dy) = (random(n_x, 8), random(n_y, 9));
            let dweight = reference::convolution_weight_gradient(&conv, &x, &dy);
            let call = Conv2dWgrad::new(conv, [0, 1, 2]);
            let operands = [float(&x), float(&dy), output(n_weight)];
            check(call, &operands, &[output(0), output(0), Values::Float(dweight)]);
        }
    });
}
