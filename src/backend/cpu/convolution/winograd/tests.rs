//! Winograd's algorithm in f32 beside the direct algorithm in f64.

use super::*;
use crate::backend::cpu::convolution::{direct, no_epilogue, wgrad as direct_wgrad};
use crate::rng::{Purpose, Stream};

fn conv(batch: usize, [height, width]: [usize; 2], [depth, channels]: [usize; 2], padding: usize) -> Conv2d {
    Conv2d {
        batch,
        height,
        width,
        in_channels: depth,
        out_channels: channels,
        filter_height: 3,
        filter_width: 3,
        stride: 1,
        padding,
    }
}

/// Maps that fill their tiles and maps that do not, several blocks and several runs of channels, every padding.
fn convolutions() -> [Conv2d; 7] {
    [
        conv(1, [4, 4], [32, 32], 1),
        conv(2, [5, 7], [32, 48], 1),
        conv(3, [9, 13], [48, 64], 0),
        conv(1, [13, 6], [160, 32], 2),
        conv(3, [32, 32], [32, 96], 1),
        conv(67, [4, 4], [64, 48], 1),
        conv(1, [3, 230], [32, 112], 1),
    ]
}

fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(seed, Purpose::Synthetic, &[]);
    // As f32, so that both precisions see the same.
    (0..count as u64).map(|i| f64::from(stream.normal(i) as f32)).collect()
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// The largest difference, measured by the size of a typical value.
fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let typical = (expected.iter().map(|v| v * v).sum::<f64>() / expected.len() as f64).sqrt();
    let differences =
        found.iter().zip(expected).map(|(&found, &expected)| (f64::from(found) - expected).abs());
    // NaN is far from everything.
    differences.fold(0.0, |most, difference| if difference <= most { most } else { difference }) / typical
}

/// Over up to a few thousand products; the direct algorithm in f32 comes to 2e-6.
const BOUND: f64 = 2e-5;

struct Operands {
    x: Vec<f64>,
    weight: Vec<f64>,
    y: Vec<f64>,
    bias: Vec<f64>,
}

fn operands(conv: &Conv2d) -> Operands {
    Operands {
        x: numbers(conv.batch * conv.height * conv.width * conv.in_channels, 1),
        weight: numbers(conv.out_channels * conv.filter_elements(), 2),
        y: numbers(conv.out_pixels() * conv.out_channels, 3),
        bias: numbers(conv.out_channels, 4),
    }
}

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Filled, so that a value which is not written shows.
fn space(bytes: usize) -> Vec<f32> {
    vec![f32::NAN; bytes / size_of::<f32>()]
}

fn forward_in_f32(conv: &Conv2d, operands: &Operands, residual: bool, relu: bool) -> Vec<f32> {
    let [x, weight, y, bias] =
        [&operands.x, &operands.weight, &operands.y, &operands.bias].map(|v| single(v));
    let epilogue = Epilogue { bias: &bias, residual: residual.then_some(&y[..]), relu };
    let mut out = vec![f32::NAN; y.len()];
    let written = [&mut out[..], &mut space(workspace(conv))];
    forward(conv, [&x, &weight], Some(epilogue), written, &Scratch::default(), &no_epilogue);
    out
}

#[test]
fn forward_with_every_epilogue_is_the_direct_algorithm() {
    for conv in convolutions() {
        let operands = operands(&conv);
        for (residual, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let found = forward_in_f32(&conv, &operands, residual, relu);
            let epilogue =
                Epilogue { bias: &operands.bias, residual: residual.then_some(&operands.y[..]), relu };
            let mut expected = vec![f64::NAN; operands.y.len()];
            let mut packed = vec![0.0; direct::forward_workspace::<f64>(&conv) / size_of::<f64>()];
            let (read, written) = ([&operands.x[..], &operands.weight], [&mut expected[..], &mut packed]);
            direct::forward(&conv, read, Some(epilogue), written, &no_epilogue);
            let distance = distance(&found, &expected);
            assert!(distance < BOUND, "{conv:?}, residual {residual}, ReLU {relu}: {distance:.1e}");
        }
    }
}

#[test]
fn dgrad_is_the_direct_algorithm_and_adds_on_request() {
    for conv in convolutions() {
        let operands = operands(&conv);
        let [dy, weight] = [&operands.y, &operands.weight].map(|v| single(v));
        for add in [false, true] {
            let mut found = single(&operands.x);
            let filters = &mut space(workspace(&conv));
            let scratch = Scratch::default();
            dgrad(&conv, [&dy, &weight], add, [&mut found, filters], &scratch, &no_epilogue);
            let mut expected = operands.x.clone();
            let mut packed = vec![0.0; direct::dgrad_workspace::<f64>(&conv) / size_of::<f64>()];
            let (read, written) = ([&operands.y[..], &operands.weight], [&mut expected[..], &mut packed]);
            direct::dgrad(&conv, read, add, written, &no_epilogue);
            let distance = distance(&found, &expected);
            assert!(distance < BOUND, "{conv:?}, added {add}: {distance:.1e}");
        }
    }
}

fn wgrad_in_f32(conv: &Conv2d, operands: &Operands) -> Vec<f32> {
    let [x, dy] = [&operands.x, &operands.y].map(|v| single(v));
    let mut found = vec![f32::NAN; operands.weight.len()];
    wgrad(conv, &x, &dy, &mut found, &mut space(wgrad_workspace(conv)), &Scratch::default());
    found
}

#[test]
fn wgrad_is_the_direct_algorithm() {
    for conv in convolutions() {
        let operands = operands(&conv);
        let found = wgrad_in_f32(&conv, &operands);
        let mut expected = vec![f64::NAN; found.len()];
        let mut sums = vec![0.0; direct_wgrad::workspace::<f64>(&conv) / size_of::<f64>()];
        direct_wgrad::wgrad(&conv, &operands.x, &operands.y, &mut expected, &mut sums);
        let distance = distance(&found, &expected);
        assert!(distance < BOUND, "{conv:?}: {distance:.1e}");
    }
}

#[test]
fn no_bit_depends_on_the_number_of_threads_or_on_earlier_calls() {
    for conv in convolutions() {
        let operands = operands(&conv);
        let run = || (forward_in_f32(&conv, &operands, true, true), wgrad_in_f32(&conv, &operands));
        assert!(in_pool(1, run) == in_pool(3, run), "{conv:?}");
    }
    // A buffer that a larger call left full of other numbers.
    let scratch = Scratch::default();
    scratch.take(1 << 20).fill(f32::NAN);
    let small = convolutions()[1];
    let operands = operands(&small);
    let [x, dy] = [&operands.x, &operands.y].map(|v| single(v));
    let mut found = vec![f32::NAN; operands.weight.len()];
    wgrad(&small, &x, &dy, &mut found, &mut space(wgrad_workspace(&small)), &scratch);
    assert!(found == wgrad_in_f32(&small, &operands));
}

#[test]
fn it_is_taken_where_it_saves_a_third_of_the_products() {
    for side in [4, 7, 8, 14, 16, 28, 32, 56, 64] {
        assert!(fits(&conv(2, [side, side], [64, 64], 1)), "{side}");
    }
    let usual = conv(2, [32, 32], [64, 64], 1);
    assert!(fits(&usual));
    // At 2x2 a filter has four taps that see an input, and a tile is mostly empty.
    assert!(!fits(&conv(2, [2, 2], [64, 64], 1)));
    assert!(!fits(&Conv2d { stride: 2, ..usual }));
    assert!(!fits(&Conv2d { in_channels: 3, ..usual }));
    assert!(!fits(&Conv2d { out_channels: 72, ..usual }));
    assert!(!fits(&Conv2d { filter_height: 1, filter_width: 1, padding: 0, ..usual }));
}
