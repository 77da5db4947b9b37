//! Adds an operation to the tape, forward and backward, and checks its gradient by central differences: the leaky ReLU,
//! `y = max(x, 0) + slope min(x, 0)`.
//!
//! ```sh
//! cargo run --release --example new_operation
//! ```
//!
//! The operation is made of calls that the list of operations has (`residua::ops`), so it runs on every device, its gradient flows on to what
//! was recorded before it, and a plan with it is laid out, fused and captured like any other. An operation with a kernel of its own is a
//! change to the crate: ARCHITECTURE.md, "Add an operation", names the files.

use residua::Result;
use residua::autograd::{Mode, Tape, Var};
use residua::backend::cpu::Cpu;
use residua::ops::{Call, Device, Relu, ReluGradient, Rows, ScaleBias, ScaleBiasForward, ScaleBiasResidual};
use residua::plan::{BufferId, Executable};
use residua::tensor::{DType, HostValues, Shape};

/// Numbers the host writes, one for each channel: the slope, one minus the slope, and zeros.
#[derive(Clone, Copy)]
pub struct Constants {
    slope: BufferId,
    rest: BufferId,
    zero: BufferId,
}

impl Constants {
    /// Records the inputs.
    pub fn record(tape: &mut Tape, channels: usize) -> Constants {
        let mut input = |name| tape.number_input(name, [channels]).buffer;
        Constants { slope: input("slope"), rest: input("1 - slope"), zero: input("zero") }
    }

    /// Writes them.
    pub fn write(&self, executable: &Executable, device: &mut dyn Device, slope: f64) -> Result<()> {
        for (buffer, value) in [(self.slope, slope), (self.rest, 1.0 - slope), (self.zero, 0.0)] {
            let span = executable.span(buffer);
            device.write(span, HostValues::F64(&vec![value; span.elements]))?;
        }
        Ok(())
    }

    /// The calls of `y = slope * a + (1 - slope) * b`; `scaled` holds the second product.
    fn mix(self, extent: Rows, [a, b]: [BufferId; 2], scaled: BufferId, y: BufferId) -> [Call<BufferId>; 2] {
        let attributes = ScaleBias { extent, relu: false };
        let Constants { slope, rest, zero } = self;
        [
            ScaleBiasForward { attributes, x: b, scale: rest, bias: zero, y: scaled }.into(),
            ScaleBiasResidual { attributes, x: a, scale: slope, bias: zero, residual: scaled, y }.into(),
        ]
    }
}

/// Records the leaky ReLU of `x`: `y = slope * x + (1 - slope) * max(x, 0)`.
pub fn leaky_relu(tape: &mut Tape, x: Var, constants: Constants) -> Var {
    let extent = Rows { rows: x.shape.rows(), channels: x.shape.channels() };
    let [rectified, scaled, y] =
        ["rectified", "scaled", "leaky ReLU"].map(|name| tape.transient(name, x.shape));
    tape.push(Relu { attributes: extent, x: x.buffer, y: rectified });
    constants.mix(extent, [x.buffer, rectified], scaled, y).into_iter().for_each(|call| tape.push(call));
    // The gradient, `dx = slope * dy + (1 - slope) * (dy where x > 0)`. The plan keeps `rectified` until this has used it.
    tape.record(y, x.shape, &[x], false, move |backward, dy| {
        let [passed, scaled, dx] =
            ["passed", "scaled", "leaky ReLU gradient"].map(|name| backward.transient(name, x.shape));
        backward.push(ReluGradient { attributes: extent, y: rectified, dy, dx: passed });
        constants.mix(extent, [dy, passed], scaled, dx).into_iter().for_each(|call| backward.push(call));
        backward.give(x, dx);
    })
}

/// The outputs at `x`, (rows, channels), and the largest difference between an element of the gradient of `sum of weights * y` and
/// its central difference.
pub fn check(x: &[f64], weights: &[f64], shape: Shape, slope: f64) -> Result<(Vec<f64>, f64)> {
    // Record: nothing is computed yet.
    let mut tape = Tape::new(DType::F64, Mode::Train);
    let constants = Constants::record(&mut tape, shape.channels());
    let input = tape.differentiable_input("x", shape);
    let y = leaky_relu(&mut tape, input, constants);
    let output = tape.keep(y);
    let output_gradient = tape.activation_input("gradient of y", shape);
    let gradients = tape.backward_from(y, output_gradient.buffer, &[input]);
    let input_gradient = gradients[0].expect("a differentiable input has a gradient");

    // Lay out and run, in f64 on the CPU. `backend::Choice` makes a device by name.
    let mut device = Cpu::<f64>::new(0)?;
    let executable = Executable::new(tape.finish(), &device, 0);
    device.allocate(executable.bytes())?;
    constants.write(&executable, &mut device, slope)?;
    device.write(executable.span(output_gradient.buffer), HostValues::F64(weights))?;
    let mut run = |x: &[f64], wanted: BufferId| -> Result<Vec<f64>> {
        device.write(executable.span(input.buffer), HostValues::F64(x))?;
        executable.run(&mut device)?;
        let mut values = vec![0.0; x.len()];
        device.read_f64(executable.span(wanted), &mut values)?;
        Ok(values)
    };
    let (outputs, gradient) = (run(x, output)?, run(x, input_gradient)?);

    const STEP: f64 = 1e-5;
    let mut largest: f64 = 0.0;
    for element in 0..x.len() {
        let mut sum_at = |distance: f64| -> Result<f64> {
            let mut moved = x.to_vec();
            moved[element] += distance;
            Ok(run(&moved, output)?.iter().zip(weights).map(|(y, weight)| y * weight).sum())
        };
        let numeric = (sum_at(STEP)? - sum_at(-STEP)?) / (2.0 * STEP);
        largest = largest.max((numeric - gradient[element]).abs());
    }
    Ok((outputs, largest))
}

fn main() -> Result<()> {
    const SLOPE: f64 = 0.1;
    let shape = Shape::from([3, 4]);
    let x: Vec<f64> = (0..12).map(|i| f64::from(i) - 5.5).collect();
    let weights: Vec<f64> = (0..12).map(|i| f64::from(i % 5) - 2.0).collect();
    let (outputs, difference) = check(&x, &weights, shape, SLOPE)?;
    for (x, y) in x.iter().zip(&outputs) {
        println!("leaky ReLU of {x:5.2} is {y:6.3}");
    }
    println!("gradient and central differences differ by {difference:.1e} at most");
    Ok(())
}
