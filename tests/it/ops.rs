//! How an operation is tested: on poisoned outputs, in both precisions, with one, two and three threads, against a
//! plain-loop reference. Here the convolutions; the other operations are in `ops_passes`.

use residua::backend::cpu::{Cpu, Element};
use residua::ops::{Access, Backend, Call, Conv2d, Conv2dGradient, Conv2dInference};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues, Span, aligned};

use crate::reference;

/// What an operand holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Float(Vec<f64>),
    Integer(Vec<i32>),
}

impl Values {
    fn elements(&self) -> usize {
        match self {
            Values::Float(values) => values.len(),
            Values::Integer(values) => values.len(),
        }
    }
}

/// Random numbers in [-1, 1) that f32 holds exactly, so that both precisions compute the same problem.
pub fn random(elements: usize, key: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(11, Purpose::Synthetic, &[key]);
    (0..elements as u64).map(|i| f64::from((2.0 * stream.uniform(i) - 1.0) as f32)).collect()
}

/// An output of so many numbers.
pub fn output(elements: usize) -> Values {
    Values::Float(vec![0.0; elements])
}

/// Runs a call whose operands are numbered; written operands and workspace are poisoned first. Gives all operands back.
fn run<T: Element>(threads: usize, call: &Call<usize>, operands: &[Values]) -> Vec<Values> {
    let backend = Cpu::<T>::new(threads).unwrap();
    let mut end = 0;
    let mut place = |elements: usize, dtype: DType| {
        let span = Span { offset: end, elements, dtype };
        end += aligned(span.bytes());
        span
    };
    let spans: Vec<Span> = operands
        .iter()
        .map(|values| {
            let integer = matches!(values, Values::Integer(_));
            place(values.elements(), if integer { DType::I32 } else { T::DTYPE })
        })
        .collect();
    let workspace_elements = backend.workspace_bytes(&call.map(|_| ())).div_ceil(T::DTYPE.size());
    let workspace = place(workspace_elements, T::DTYPE);
    let mut memory = backend.allocate(end).unwrap();

    for (span, values) in spans.iter().zip(operands) {
        match values {
            Values::Float(values) => backend.write(&mut memory, *span, HostValues::F64(values)).unwrap(),
            Values::Integer(values) => backend.write(&mut memory, *span, HostValues::I32(values)).unwrap(),
        }
    }
    let poison = |memory: &mut _, span: Span| {
        if span.dtype == DType::I32 {
            backend.write(memory, span, HostValues::I32(&vec![i32::MIN; span.elements])).unwrap();
        } else {
            backend.write(memory, span, HostValues::F64(&vec![f64::NAN; span.elements])).unwrap();
        }
    };
    for (_, index, access) in call.operands() {
        if access == Access::Write {
            poison(&mut memory, spans[index]);
        }
    }
    poison(&mut memory, workspace);

    call.map(|index| spans[index]).run(&backend, &mut memory, workspace).unwrap();
    spans
        .iter()
        .map(|span| {
            if span.dtype == DType::I32 {
                let mut values = vec![0; span.elements];
                backend.read_i32(&memory, *span, &mut values).unwrap();
                Values::Integer(values)
            } else {
                let mut values = vec![0.0; span.elements];
                backend.read_f64(&memory, *span, &mut values).unwrap();
                Values::Float(values)
            }
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

fn check_precision<T: Element>(call: &Call<usize>, operands: &[Values], expected: &[Values], tolerance: f64) {
    let results = run::<T>(1, call, operands);
    for threads in [2, 3] {
        let again = run::<T>(threads, call, operands);
        let same = results.iter().zip(&again).all(|(a, b)| match (a, b) {
            (Values::Float(a), Values::Float(b)) => {
                a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
            }
            (a, b) => a == b,
        });
        assert!(same, "{call:?}: {threads} threads give other bits than 1");
    }
    // What a call does not write, it leaves alone; what it writes is what the reference finds.
    for (name, index, access) in call.operands() {
        let want = if access == Access::Read { &operands[index] } else { &expected[index] };
        match (&results[index], want) {
            (Values::Float(got), Values::Float(want)) => {
                let error = relative_error(got, want);
                let bound = if access == Access::Read { 0.0 } else { tolerance };
                assert!(error <= bound, "{:?} {call:?}: `{name}` is off by {error:e}", T::DTYPE);
            }
            (got, want) => assert_eq!(got, want, "{call:?}: `{name}`"),
        }
    }
}

/// Holds a call to its reference: `expected` are all operands after the call.
pub fn check(call: Call<usize>, operands: &[Values], expected: &[Values]) {
    check_precision::<f64>(&call, operands, expected, 1e-12);
    check_precision::<f32>(&call, operands, expected, 1e-5);
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

fn conv_shapes() -> impl Iterator<Item = Conv2d> {
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
    for conv in conv_shapes() {
        let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
        let (x, weight) = (random(n_x, 1), random(n_weight, 2));
        let y = reference::convolution(&conv, &x, &weight);
        let call = Call::Conv2dForward { attributes: conv, x: 0, weight: 1, y: 2 };
        check(call, &[float(&x), float(&weight), output(n_y)], &[output(0), output(0), Values::Float(y)]);
    }
}

#[test]
fn inference_convolution_adds_bias_and_residual_before_the_rectifier() {
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
        let attributes = Conv2dInference { conv, relu };
        let none = output(0);
        let call = Call::Conv2dBias { attributes, x: 0, weight: 1, bias: 2, y: 3 };
        let mut operands = vec![float(&x), float(&weight), float(&bias), output(n_y)];
        check(call, &operands, &[none.clone(), none.clone(), none.clone(), Values::Float(without)]);
        let call = Call::Conv2dBiasResidual { attributes, x: 0, weight: 1, bias: 2, residual: 4, y: 3 };
        operands.push(float(&residual));
        check(call, &operands, &[none.clone(), none.clone(), none.clone(), Values::Float(with), none]);
    }
}

#[test]
fn input_gradient_of_a_convolution_replaces_or_adds() {
    for conv in conv_shapes() {
        let [n_x, n_weight, n_y] = reference::conv_elements(&conv);
        let (dy, weight, before) = (random(n_y, 5), random(n_weight, 6), random(n_x, 7));
        let dx = reference::convolution_input_gradient(&conv, &dy, &weight);
        let sum = dx.iter().zip(&before).map(|(d, b)| d + b).collect();
        for (accumulate, start, expected) in
            [(false, vec![f64::NAN; n_x], dx.clone()), (true, before.clone(), sum)]
        {
            let attributes = Conv2dGradient { conv, accumulate };
            let call = Call::Conv2dInputGradient { attributes, dy: 0, weight: 1, dx: 2 };
            let operands = [float(&dy), float(&weight), Values::Float(start)];
            check(call, &operands, &[output(0), output(0), Values::Float(expected)]);
        }
    }
}

#[test]
fn weight_gradient_of_a_convolution_sums_over_all_pixels() {
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
        let call = Call::Conv2dWeightGradient { attributes: conv, x: 0, dy: 1, dweight: 2 };
        let operands = [float(&x), float(&dy), output(n_weight)];
        check(call, &operands, &[output(0), output(0), Values::Float(dweight)]);
    }
}
