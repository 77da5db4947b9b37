//! Every differentiable operation's gradient against central differences, in f64.

use residua::autograd::{BatchNormOptions, BatchNormParameters, Mode, Parameter, Statistics, Tape, Var};
use residua::backend::cpu::Cpu;
use residua::ops::{Call, Device};
use residua::plan::{BufferId, Executable, Fusions, fuse};
use residua::rng::{Purpose, Stream};
use residua::tensor::{DType, HostValues, Shape, Span, aligned};

/// A function of some inputs and parameters, recorded on a tape.
type Build<'a> = &'a dyn Fn(&mut Tape, &[Var], &[Parameter]) -> Var;

/// Evaluates `sum of weights * f(inputs, parameters)` and its gradient.
struct Laboratory {
    device: Cpu<f64>,
    executable: Executable,
    inputs: Vec<BufferId>,
    input_gradients: Vec<Option<BufferId>>,
    parameters: Vec<Parameter>,
    output: BufferId,
    output_gradient: BufferId,
}

impl Laboratory {
    fn new(fusions: Fusions, inputs: &[Shape], parameters: &[Shape], build: Build<'_>) -> Laboratory {
        let mut device = Cpu::<f64>::new(2).unwrap();
        let mut base = 0;
        let mut place = |shape: &Shape| {
            let span = Span { offset: base, elements: shape.elements(), dtype: DType::F64 };
            base += aligned(span.bytes());
            span
        };
        let parameters: Vec<Parameter> = parameters
            .iter()
            .map(|shape| Parameter {
                value: place(shape),
                gradient: Some(place(shape)),
                copy: None,
                shape: *shape,
            })
            .collect();
        let mut tape = Tape::new(DType::F64, Mode::Train);
        let vars: Vec<Var> = inputs.iter().map(|shape| tape.differentiable_input("input", *shape)).collect();
        let y = build(&mut tape, &vars, &parameters);
        let output = tape.keep(y);
        let output_gradient = tape.input("output gradient", y.shape, DType::F64).buffer;
        let input_gradients = tape.backward_from(y, output_gradient, &vars);
        let executable = Executable::new(fuse(tape.finish(), &fusions, |_| true), &device, base);
        device.allocate(executable.bytes()).unwrap();
        let inputs = vars.iter().map(|var| var.buffer).collect();
        Laboratory { device, executable, inputs, input_gradients, parameters, output, output_gradient }
    }

    fn read(&self, span: Span) -> Vec<f64> {
        let mut values = vec![0.0; span.elements];
        self.device.read_f64(span, &mut values).unwrap();
        values
    }

    /// Runs on given values and returns the weighted sum of the outputs.
    fn run(&mut self, values: &[Vec<f64>], weights: &[f64]) -> f64 {
        let spans: Vec<Span> = self
            .inputs
            .iter()
            .map(|&id| self.executable.span(id))
            .chain(self.parameters.iter().map(|parameter| parameter.value))
            .collect();
        for (span, values) in spans.iter().zip(values) {
            self.device.write(*span, HostValues::F64(values)).unwrap();
        }
        let span = self.executable.span(self.output_gradient);
        self.device.write(span, HostValues::F64(weights)).unwrap();
        self.executable.run(&mut self.device).unwrap();
        let output = self.read(self.executable.span(self.output));
        output.iter().zip(weights).map(|(y, w)| y * w).sum()
    }
}

/// Standard normal numbers.
pub fn random(shape: &Shape, salt: u64) -> Vec<f64> {
    let stream = Stream::for_purpose(11, Purpose::Synthetic, &[salt]);
    (0..shape.elements() as u64).map(|i| stream.normal(i)).collect()
}

/// Compares every input's and every parameter's gradient with central differences, at random values.
fn check(name: &str, inputs: &[Shape], parameters: &[Shape], build: Build<'_>) {
    check_fused(name, Fusions::NONE, inputs, parameters, build);
}

/// The same of a plan in which calls are made into one; gives these.
pub fn check_fused(
    name: &str,
    fusions: Fusions,
    inputs: &[Shape],
    parameters: &[Shape],
    build: Build<'_>,
) -> Vec<Call<BufferId>> {
    let mut laboratory = Laboratory::new(fusions, inputs, parameters, build);
    let mut values: Vec<Vec<f64>> =
        inputs.iter().chain(parameters).enumerate().map(|(salt, shape)| random(shape, salt as u64)).collect();
    let outputs = laboratory.executable.span(laboratory.output).elements;
    let weights = random(&Shape::from([outputs]), 99);
    laboratory.run(&values, &weights);
    let mut gradients: Vec<Vec<f64>> = Vec::new();
    for (index, gradient) in laboratory.input_gradients.iter().enumerate() {
        let id = gradient.unwrap_or_else(|| panic!("{name}: input {index} has no gradient"));
        gradients.push(laboratory.read(laboratory.executable.span(id)));
    }
    gradients.extend(laboratory.parameters.iter().map(|p| laboratory.read(p.gradient.unwrap())));

    const STEP: f64 = 1e-5;
    for tensor in 0..values.len() {
        let count = values[tensor].len();
        let (mut difference, mut norm) = (0.0, 0.0);
        for element in (0..count).step_by(count.div_ceil(40)) {
            let original = values[tensor][element];
            values[tensor][element] = original + STEP;
            let above = laboratory.run(&values, &weights);
            values[tensor][element] = original - STEP;
            let below = laboratory.run(&values, &weights);
            values[tensor][element] = original;
            let numeric = (above - below) / (2.0 * STEP);
            difference += (numeric - gradients[tensor][element]).powi(2);
            norm += numeric.powi(2);
        }
        let relative = difference.sqrt() / norm.sqrt().max(1e-6);
        assert!(relative < 1e-7, "{name}: gradient of operand {tensor} is off by {relative:.2e} relative");
    }
    laboratory.executable.plan().calls.clone()
}

/// All gradients of a plan in which calls are made into one, at random values.
pub fn fused_gradients(
    fusions: Fusions,
    inputs: &[Shape],
    parameters: &[Shape],
    build: Build<'_>,
) -> Vec<Vec<f64>> {
    let mut laboratory = Laboratory::new(fusions, inputs, parameters, build);
    let values: Vec<Vec<f64>> =
        inputs.iter().chain(parameters).enumerate().map(|(salt, shape)| random(shape, salt as u64)).collect();
    let outputs = laboratory.executable.span(laboratory.output).elements;
    laboratory.run(&values, &random(&Shape::from([outputs]), 99));
    let of_inputs = laboratory.input_gradients.iter().flatten().map(|&id| laboratory.executable.span(id));
    let of_parameters = laboratory.parameters.iter().filter_map(|parameter| parameter.gradient);
    of_inputs.chain(of_parameters).map(|span| laboratory.read(span)).collect()
}

pub fn shape<const N: usize>(extents: [usize; N]) -> Shape {
    Shape::from(extents)
}

#[test]
fn convolution_gradients_match_differences() {
    for (size, filter, stride, padding) in
        [(5, 1, 1, 0), (6, 1, 2, 0), (5, 3, 1, 1), (7, 3, 2, 1), (9, 7, 2, 3), (8, 3, 3, 0)]
    {
        let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| tape.conv2d(x[0], &p[0], stride, padding);
        let name = format!("conv {filter}x{filter} stride {stride} padding {padding}");
        check(&name, &[shape([2, size, size - 1, 3])], &[shape([5, filter, filter, 3])], &build);
    }
}

#[test]
fn a_value_used_by_two_convolutions_collects_both_gradients() {
    let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| {
        let middle = tape.relu(x[0]);
        let a = tape.conv2d(middle, &p[0], 1, 1);
        let b = tape.conv2d(middle, &p[1], 1, 0);
        let sum = tape.add(a, b);
        tape.add(sum, middle)
    };
    check("fork", &[shape([2, 4, 4, 3])], &[shape([3, 3, 3, 3]), shape([3, 1, 1, 3])], &build);
}

pub fn norm_parameters(p: &[Parameter]) -> BatchNormParameters {
    let fixed = |parameter: Parameter| Parameter { gradient: None, ..parameter };
    BatchNormParameters {
        gamma: p[0],
        beta: p[1],
        running_mean: fixed(p[2]),
        running_variance: fixed(p[3]),
        epsilon: 1e-5,
        momentum: 0.0,
    }
}

#[test]
fn batch_norm_gradients_match_differences_in_every_combination() {
    for (relu, residual) in [(false, false), (true, false), (false, true), (true, true)] {
        let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| {
            let options =
                BatchNormOptions { statistics: Statistics::Batch, residual: residual.then(|| x[1]), relu };
            let norm = norm_parameters(p);
            tape.batch_norm(x[0], &norm, options)
        };
        let x = shape([3, 4, 5, 6]);
        let inputs = if residual { vec![x, x] } else { vec![x] };
        check(&format!("batch norm relu={relu} residual={residual}"), &inputs, &[shape([6]); 4], &build);
    }
}

#[test]
fn max_and_average_pool_gradients_match_differences() {
    let maximum = |tape: &mut Tape, x: &[Var], _: &[Parameter]| tape.max_pool(x[0], 3, 2, 1);
    check("max pool", &[shape([2, 7, 6, 3])], &[], &maximum);
    let average = |tape: &mut Tape, x: &[Var], _: &[Parameter]| tape.global_average_pool(x[0]);
    check("average pool", &[shape([3, 5, 4, 7])], &[], &average);
}

#[test]
fn linear_and_shortcut_gradients_match_differences() {
    let linear = |tape: &mut Tape, x: &[Var], p: &[Parameter]| tape.linear(x[0], &p[0], &p[1]);
    check("linear", &[shape([5, 7])], &[shape([3, 7]), shape([3])], &linear);
    let shortcut = |tape: &mut Tape, x: &[Var], _: &[Parameter]| tape.shortcut_a(x[0], 9, 2);
    check("shortcut a", &[shape([2, 5, 6, 4])], &[], &shortcut);
}

#[test]
fn cosine_gradients_match_differences_with_and_without_softplus() {
    for softplus in [false, true] {
        let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| tape.cosine(x[0], &p[0], &p[1], softplus);
        check("cosine", &[shape([5, 7])], &[shape([3, 7]), shape([1])], &build);
    }
}

#[test]
fn rectified_cosines_before_a_linear_layer_pass_gradients_to_both_maps() {
    let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| {
        let cosines = tape.cosine(x[0], &p[0], &p[1], false);
        let rectified = tape.relu_number(cosines);
        tape.linear(rectified, &p[2], &p[3])
    };
    let parameters = [shape([5, 7]), shape([1]), shape([3, 5]), shape([3])];
    check("cosine, rectifier, linear", &[shape([6, 7])], &parameters, &build);
}

#[test]
fn frozen_batch_norm_passes_gradients_as_a_fixed_affine_map() {
    let build = |tape: &mut Tape, x: &[Var], p: &[Parameter]| {
        let options = BatchNormOptions { statistics: Statistics::Frozen, residual: None, relu: true };
        tape.batch_norm(x[0], &norm_parameters(p), options)
    };
    let (x, channels) = (shape([3, 4, 5, 6]), shape([6]));
    let variance = random(&channels, 7).iter().map(|v| v.abs() + 0.3).collect();
    let values =
        vec![random(&x, 0), random(&channels, 1), random(&channels, 2), random(&channels, 3), variance];
    let mut laboratory = Laboratory::new(Fusions::NONE, &[x], &[channels; 4], &build);
    let weights = random(&x, 99);
    laboratory.run(&values, &weights);
    let analytic = [
        laboratory.read(laboratory.executable.span(laboratory.input_gradients[0].unwrap())),
        laboratory.read(laboratory.parameters[0].gradient.unwrap()),
        laboratory.read(laboratory.parameters[1].gradient.unwrap()),
    ];
    for (tensor, analytic) in analytic.iter().enumerate() {
        for element in (0..analytic.len()).step_by(7) {
            let mut at = |delta: f64| {
                let mut values = values.clone();
                values[tensor][element] += delta;
                laboratory.run(&values, &weights)
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!(
                (numeric - analytic[element]).abs() < 1e-6 * (1.0 + numeric.abs()),
                "operand {tensor}[{element}]"
            );
        }
    }
}
